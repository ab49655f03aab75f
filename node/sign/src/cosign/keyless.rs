//! Keyless signatures: a certificate of Fulcio says who had the key for ten minutes, and Rekor's log
//! says that the signature was there in that time.
//!
//! Rekor's promise (the signed entry timestamp) is checked, with the key that the project trusts, and
//! that the entry is of this signature by this certificate. A bundle must also prove that the entry is in
//! the log. Only the promise says when it came there, so entries of a log that gives none (Rekor 2)
//! count for nothing. Certificate transparency's timestamps are not read: private authorities do not
//! have them.

use rules::policies::signatures::{AnchorId, By, Fault};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use serde::Deserialize;
use x509_parser::asn1_rs::{Any, FromDer, Tag};

use super::inclusion::Inclusion;
use crate::anchor::{Anchors, COMPROMISED, Fulcio};
use crate::certificates::Certificate;
use crate::certificates::path::{self, Purpose};
use crate::json::{base64, is_short, seconds};
use crate::payload::malformed;

/// Fulcio's extensions for the issuer: as plain text, and in DER (`docs/oid-info.md`).
const ISSUER: u64 = 1;
const ISSUER_DER: u64 = 8;
/// The label of a certificate in PEM.
const CERTIFICATE: &str = "CERTIFICATE";

/// What a keyless signature has beside itself. Nothing of it is verified.
pub(super) struct Material {
    /// The certificate of the key, in DER.
    pub(super) leaf: Vec<u8>,
    /// Certificates of authorities, in DER.
    pub(super) between: Vec<Vec<u8>>,
    /// What Rekor says.
    pub(super) entry: Option<Entry>,
}

/// An entry of Rekor's log.
#[derive(Debug)]
pub(super) struct Entry {
    /// The entry in base64.
    pub(super) body: String,
    /// When it was added, in seconds since the Unix epoch.
    pub(super) time: i64,
    pub(super) index: i64,
    /// The id of the log's key.
    pub(super) log: AnchorId,
    /// The log's signature of this.
    pub(super) promise: Vec<u8>,
    /// What shows that the log has it.
    pub(super) shown: Shown,
}

/// What shows that a log has an entry.
#[derive(Debug)]
pub(super) enum Shown {
    /// The form has no place for a proof: cosign's annotation.
    Promised,
    /// The proof of a bundle.
    Proof(Inclusion),
    /// A bundle without a proof, which version 0.2 of the form and later ones demand.
    Nothing,
}

/// Something that was signed.
pub(super) struct Signed<'a> {
    /// The signed bytes.
    pub(super) bytes: &'a [u8],
    /// The payload in them.
    pub(super) payload: &'a [u8],
    pub(super) signature: &'a [u8],
}

/// Who has signed, and how long that counts.
pub(super) struct Identified {
    pub(super) by: By,
    pub(super) until: Option<Timestamp>,
    /// When the log got it.
    pub(super) logged: Option<Timestamp>,
}

/// The identities under each Fulcio that is trusted; none if the certificate is of another one.
pub(super) fn judge(
    material: &Material,
    signed: &Signed<'_>,
    anchors: &Anchors,
) -> Result<Vec<Identified>, Fault> {
    let leaf = Certificate::read(&material.leaf).map_err(Fault::Chain)?;
    if !leaf.key.verifies(signed.bytes, signed.signature) {
        return Err(Fault::Wrong);
    }
    let (mut found, mut wrong) = (Vec::<Identified>::new(), None);
    for fulcio in anchors.fulcios() {
        match identity(material, &leaf, signed, fulcio) {
            Ok(Some(one)) if is_compromised(material, &leaf, &one.by, fulcio, anchors) => {
                wrong = Some(Fault::Chain(COMPROMISED.into()));
            }
            Ok(Some(one)) => {
                if !found.iter().any(|there| there.by == one.by && there.until == one.until) {
                    found.push(one);
                }
            }
            Ok(None) => {}
            Err(why) => wrong = Some(Fault::Chain(why)),
        }
    }
    match wrong {
        Some(fault) if found.is_empty() => Err(fault),
        _ => Ok(found),
    }
}

/// Whether a compromised signer stands behind it, whatever certificates it shows.
fn is_compromised(
    material: &Material,
    leaf: &Certificate,
    by: &By,
    fulcio: &Fulcio,
    anchors: &Anchors,
) -> bool {
    let between: Vec<Certificate> =
        material.between.iter().filter_map(|der| Certificate::read(der).ok()).collect();
    let By::Identity { root, .. } = by else { return false };
    let root = fulcio.certificates.iter().filter(|one| one.id == *root);
    let all: Vec<&Certificate> = std::iter::once(leaf).chain(&between).chain(root).collect();
    anchors.is_compromised(by, &all)
}

/// `None` if the certificate is not of this Fulcio. The error is the end of a sentence.
fn identity(
    material: &Material,
    leaf: &Certificate,
    signed: &Signed<'_>,
    fulcio: &Fulcio,
) -> Result<Option<Identified>, String> {
    let path = |at| {
        let (trusted, purpose) = (&fulcio.certificates, Purpose::CodeSigning);
        path::to_authority(leaf, &material.between, trusted, purpose, at)
    };
    let Ok(root) = path(leaf.not_before) else { return Ok(None) };
    let (until, logged) = match &fulcio.rekor {
        None => (Some(leaf.not_after), None),
        Some((log, key)) => {
            let entry =
                material.entry.as_ref().ok_or("no entry of a transparency log is with it")?;
            if entry.log != *log {
                return Err("it is in another transparency log".into());
            }
            if !key.verifies(entry.promised()?.as_bytes(), &entry.promise) {
                return Err("the transparency log has not signed its entry".into());
            }
            match &entry.shown {
                Shown::Promised => {}
                Shown::Proof(proof) => {
                    proof.verify(&base64(&entry.body).unwrap_or_default(), key)?;
                }
                Shown::Nothing => {
                    return Err("it has no proof that the transparency log has its entry".into());
                }
            }
            entry.is_of(signed, leaf)?;
            let at = seconds(entry.time);
            path(at).map_err(|why| format!("not when the transparency log got it: {why}"))?;
            (None, Some(at))
        }
    };
    let [subject] = &leaf.identities[..] else {
        return Err("its certificate does not name exactly one identity".into());
    };
    let issuer = issuer(leaf).ok_or("its certificate does not say who vouches for the identity")?;
    if !is_short(&issuer) || !is_short(subject) {
        return Err(
            "its certificate names a very long identity, or one of control characters".into()
        );
    }
    let by = By::Identity { root, issuer, subject: subject.clone() };
    Ok(Some(Identified { by, until, logged }))
}

fn issuer(leaf: &Certificate) -> Option<String> {
    let value = |wanted: u64| {
        let found = leaf.fulcio.iter().find(|(number, _)| *number == wanted);
        found.map(|(_, value)| value.as_slice())
    };
    let bytes = match value(ISSUER_DER) {
        Some(der) => match Any::from_der(der) {
            Ok(([], any)) if any.tag() == Tag::Utf8String => any.data,
            _ => return None,
        },
        None => value(ISSUER)?,
    };
    String::from_utf8(bytes.to_vec()).ok().filter(|issuer| !issuer.is_empty())
}

#[derive(Deserialize)]
struct Body {
    kind: String,
    spec: Spec,
}

/// The specs of all kinds that are read (sigstore/rekor `pkg/types`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    /// hashedrekord
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    signature: Option<Content>,
    /// dsse
    #[serde(default)]
    payload_hash: Option<Value>,
    #[serde(default)]
    signatures: Option<Vec<Verified>>,
}

#[derive(Deserialize)]
struct Data {
    hash: Value,
}

#[derive(Deserialize)]
struct Value {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    content: String,
    #[serde(default)]
    public_key: Option<Key>,
}

#[derive(Deserialize)]
struct Key {
    content: String,
}

#[derive(Deserialize)]
struct Verified {
    signature: String,
    verifier: String,
}

impl Entry {
    /// What the log signs: the entry in canonical JSON (RFC 8785).
    fn promised(&self) -> Result<String, String> {
        let is_base64 = base64(&self.body).is_some();
        let (body, time, log, index) = (&self.body, self.time, self.log, self.index);
        match is_base64 {
            true => Ok(format!(
                r#"{{"body":"{body}","integratedTime":{time},"logID":"{log}","logIndex":{index}}}"#
            )),
            false => Err("the transparency log's entry is no base64".into()),
        }
    }

    /// Whether the entry is of this signature, made with the key of this certificate.
    fn is_of(&self, signed: &Signed<'_>, leaf: &Certificate) -> Result<(), String> {
        let body = base64(&self.body).unwrap_or_default();
        let body: Body = serde_json::from_slice(&body)
            .map_err(|_| "the transparency log's entry is of a kind that is not known")?;
        let is_hash = |hash: &Value, bytes: &[u8]| {
            hash.algorithm == "sha256" && hash.value == Digest::sha256(bytes).hex()
        };
        let is_made = |signature: &str, key: &str| {
            let key = base64(key).and_then(|pem| pem::parse(pem).ok());
            base64(signature).is_some_and(|bytes| bytes == signed.signature)
                && key.is_some_and(|key| key.tag() == CERTIFICATE && key.contents() == leaf.der)
        };
        let fits = match (body.kind.as_str(), body.spec) {
            ("hashedrekord", Spec { data: Some(data), signature: Some(made), .. }) => {
                let key = made.public_key.map(|key| key.content).unwrap_or_default();
                is_hash(&data.hash, signed.bytes) && is_made(&made.content, &key)
            }
            ("dsse", Spec { payload_hash: Some(hash), signatures: Some(all), .. }) => {
                is_hash(&hash, signed.payload)
                    && all.iter().any(|one| is_made(&one.signature, &one.verifier))
            }
            _ => return Err("the transparency log's entry is of a kind that is not known".into()),
        };
        match fits {
            true => Ok(()),
            false => Err("the transparency log's entry is of another signature".into()),
        }
    }
}

/// Certificates in PEM, of an annotation.
pub(super) fn certificates(text: &str) -> Result<Vec<Vec<u8>>, Fault> {
    let blocks = pem::parse_many(text).map_err(|error| malformed(error.to_string()))?;
    let der = |block: pem::Pem| match block.tag() {
        CERTIFICATE => Ok(block.into_contents()),
        tag => Err(malformed(format!("a certificate is expected, and not a {tag:?}"))),
    };
    blocks.into_iter().take(path::MOST).map(der).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Annotation {
    signed_entry_timestamp: String,
    payload: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    body: String,
    integrated_time: i64,
    log_index: i64,
    #[serde(rename = "logID")]
    log_id: String,
}

/// The entry in an annotation of a layer (cosign `pkg/cosign/bundle`).
pub(super) fn annotated(text: &str) -> Result<Entry, Fault> {
    let read: Annotation = serde_json::from_str(text).map_err(malformed)?;
    let log = hex::decode(&read.payload.log_id).ok().and_then(|id| id.try_into().ok());
    let promise = base64(&read.signed_entry_timestamp);
    let (Some(log), Some(promise)) = (log, promise) else {
        return Err(malformed("the entry of the transparency log cannot be read"));
    };
    Ok(Entry {
        body: read.payload.body,
        time: read.payload.integrated_time,
        index: read.payload.log_index,
        log: AnchorId(log),
        promise,
        shown: Shown::Promised,
    })
}

/// Reads an entry of the log.
#[cfg(fuzzing)]
pub(super) fn read_body(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Body>(bytes);
}
