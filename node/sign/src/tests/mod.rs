//! What is verified: each form, with each kind of key, and what must not pass.

mod compromised;
mod cosign;
mod issued;
mod keyless;
mod made;
mod notation;
mod stamped;
mod union;

use std::collections::BTreeMap;

use bytes::Bytes;
use rules::policies::signatures::{Anchor, AnchorId, By, Fault, Signature};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;

use crate::making::{Claims, Made, SigningKey};
use crate::{Anchors, Evidence, evidence, verify};

/// A time in 2026.
pub(crate) const NOW: Timestamp = Timestamp(1_780_000_000_000);

/// The digest of an image.
pub(crate) fn subject() -> Digest {
    Digest::sha256(b"an image")
}

pub(crate) fn claims() -> Claims {
    Claims {
        reference: "registry.example/shop/web:v1".into(),
        subject: subject(),
        subject_size: 8,
        subject_media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        optional: BTreeMap::from([("mesh.epoch".into(), "7".into())]),
        timestamp: NOW,
    }
}

pub(crate) fn signing_key() -> SigningKey {
    SigningKey::generate().expect("random bytes")
}

pub(crate) fn trust(key: &SigningKey) -> Anchors {
    Anchors::of(&[anchor_of(key)])
}

pub(crate) fn anchor_of(key: &SigningKey) -> Anchor {
    crate::anchor::key(&key.public_pem()).expect("a key")
}

/// What a verifier gets.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) manifest: Vec<u8>,
    pub(crate) ending: Option<&'static str>,
    pub(crate) blobs: Vec<Vec<u8>>,
}

impl Case {
    pub(crate) fn of(made: Made, ending: Option<&'static str>) -> Self {
        Case { manifest: made.manifest, ending, blobs: made.blobs }
    }

    pub(crate) fn evidence(&self) -> Option<Evidence> {
        evidence::read(&self.manifest, self.ending)
    }

    pub(crate) fn verify(&self, anchors: &Anchors) -> Vec<Signature> {
        self.verify_for(&subject(), anchors)
    }

    pub(crate) fn verify_for(&self, subject: &Digest, anchors: &Anchors) -> Vec<Signature> {
        let blobs = self.blobs.iter();
        let blobs: BTreeMap<Digest, Bytes> =
            blobs.map(|blob| (Digest::sha256(blob), Bytes::from(blob.clone()))).collect();
        match self.evidence() {
            Some(evidence) => verify(&self.manifest, &evidence, &blobs, subject, anchors),
            None => Vec::new(),
        }
    }

    /// The same with one blob instead of another, and its digest in the manifest.
    pub(crate) fn with(&self, old: &[u8], new: &[u8]) -> Self {
        let text = String::from_utf8(self.manifest.clone()).expect("text");
        let text = text.replace(&Digest::sha256(old).to_string(), &Digest::sha256(new).to_string());
        let size = |bytes: &[u8]| format!("\"size\":{}", bytes.len());
        let text = match old.len() == new.len() {
            true => text,
            false => text.replace(&size(old), &size(new)),
        };
        let blobs =
            self.blobs.iter().map(|blob| if blob == old { new.to_vec() } else { blob.clone() });
        Case { manifest: text.into_bytes(), ending: self.ending, blobs: blobs.collect() }
    }
}

/// The key of the only signature, which counts.
pub(crate) fn good(signatures: &[Signature]) -> Option<AnchorId> {
    match signatures {
        [Signature { fault: None, by: By::Key(key), .. }] => Some(*key),
        _ => None,
    }
}

/// Whether any signature counts.
pub(crate) fn counts(signatures: &[Signature]) -> bool {
    signatures.iter().any(|one| one.fault.is_none() && !matches!(one.by, By::Unknown { .. }))
}

/// The fault of the only signature.
pub(crate) fn fault(signatures: &[Signature]) -> Option<Fault> {
    match signatures {
        [one] => one.fault.clone(),
        _ => panic!("one signature: {signatures:?}"),
    }
}
