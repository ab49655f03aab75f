//! What cosign and skopeo write: layers with a signature beside them, and Sigstore bundles.

mod bundle;

use rules::policies::signatures::{By, Fault};
use rules::words::digest::Digest;

use crate::anchor::Anchors;
use crate::json::base64;
use crate::layers::{Layer, SIGNATURE};
use crate::payload::dsse::{Envelope, Opened};
use crate::payload::{Said, Verdict, malformed, simple, statement};

pub(crate) use bundle::write as write_bundle;

/// The signature of a layer of simple signing.
pub(crate) fn layer(
    layer: &Layer,
    payload: &[u8],
    subject: &Digest,
    anchors: &Anchors,
) -> Vec<Verdict> {
    let Some(signature) = layer.annotation(SIGNATURE).and_then(base64) else {
        return vec![Verdict::faulty(malformed("the layer has no signature in its annotations"))];
    };
    let signed = Digest::sha256(payload);
    let read = || simple::read(payload, subject);
    if let Some(key) = anchors.key_of(payload, &signature) {
        return vec![Verdict::known(By::Key(key), read(), signed)];
    }
    vec![Verdict::unknown(None, Some(signed))]
}

/// The signatures of an envelope behind an `.att` tag.
pub(crate) fn attestation(envelope: &[u8], subject: &Digest, anchors: &Anchors) -> Vec<Verdict> {
    let opened = serde_json::from_slice::<Envelope>(envelope).map_err(malformed);
    match opened.and_then(|envelope| envelope.open()) {
        Ok(opened) => signatures(&opened, subject, anchors),
        Err(fault) => vec![Verdict::faulty(fault)],
    }
}

fn signatures(opened: &Opened, subject: &Digest, anchors: &Anchors) -> Vec<Verdict> {
    let payload = Digest::sha256(&opened.signed);
    let judge = |signature: &Vec<u8>| match anchors.key_of(&opened.signed, signature) {
        Some(key) => {
            Verdict::known(By::Key(key), statement::read(&opened.payload, subject), payload)
        }
        None => Verdict::unknown(None, Some(payload)),
    };
    opened.signatures.iter().map(judge).collect()
}

/// The signature of a Sigstore bundle.
pub(crate) fn bundle(bytes: &[u8], subject: &Digest, anchors: &Anchors) -> Vec<Verdict> {
    let bundle = match bundle::Bundle::read(bytes) {
        Ok(bundle) => bundle,
        Err(fault) => return vec![Verdict::faulty(fault)],
    };
    let payload = Digest::sha256(&bundle.envelope.signed);
    let read = || -> Result<Said, Fault> { statement::read(&bundle.envelope.payload, subject) };
    if let Some(key) = anchors.key_of(&bundle.envelope.signed, &bundle.signature) {
        return vec![Verdict::known(By::Key(key), read(), payload)];
    }
    let mut unknown = Verdict::unknown(bundle.hint, Some(payload));
    if bundle.hint.is_some_and(|hint| anchors.has_key(&hint)) {
        unknown.fault = Some(Fault::Wrong);
    }
    vec![unknown]
}
