//! What cosign and skopeo write: layers with a signature beside them, and Sigstore bundles.

mod bundle;
mod inclusion;
mod keyless;
mod number;

use rules::policies::signatures::{By, Fault};
use rules::words::digest::Digest;

use crate::anchor::Anchors;
use crate::json::base64;
use crate::layers::{Layer, SIGNATURE};
use crate::payload::dsse::Envelope;
use crate::payload::{Said, Verdict, malformed, simple, statement};

pub(crate) use bundle::write as write_bundle;
use keyless::{Material, Signed};

/// The annotations of a keyless signature.
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const ENTRY: &str = "dev.sigstore.cosign/bundle";

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
    let signed = Signed { bytes: payload, payload, signature: &signature };
    let read = || simple::read(payload, subject);
    judge(&signed, &material(layer), &read, anchors)
}

/// The signatures of an envelope behind an `.att` tag.
pub(crate) fn attestation(
    layer: &Layer,
    envelope: &[u8],
    subject: &Digest,
    anchors: &Anchors,
) -> Vec<Verdict> {
    let opened = serde_json::from_slice::<Envelope>(envelope).map_err(malformed);
    let opened = match opened.and_then(|envelope| envelope.open()) {
        Ok(opened) => opened,
        Err(fault) => return vec![Verdict::faulty(fault)],
    };
    let material = material(layer);
    let read = || statement::read(&opened.payload, subject);
    let signatures = opened.signatures.iter().flat_map(|signature| {
        let signed = Signed { bytes: &opened.signed, payload: &opened.payload, signature };
        judge(&signed, &material, &read, anchors)
    });
    signatures.collect()
}

/// The signature of a Sigstore bundle.
pub(crate) fn bundle(bytes: &[u8], subject: &Digest, anchors: &Anchors) -> Vec<Verdict> {
    let bundle = match bundle::Bundle::read(bytes) {
        Ok(bundle) => bundle,
        Err(fault) => return vec![Verdict::faulty(fault)],
    };
    let envelope = &bundle.envelope;
    let (bytes, payload) = (&envelope.signed, &envelope.payload);
    let signed = Signed { bytes, payload, signature: &bundle.signature };
    let read = || statement::read(payload, subject);
    let mut verdicts = judge(&signed, &bundle.keyless, &read, anchors);
    for verdict in &mut verdicts {
        if verdict.fault.is_none()
            && verdict.by == (By::Unknown { hint: None })
            && let Some(hint) = bundle.hint
        {
            verdict.by = By::Unknown { hint: Some(hint) };
            verdict.fault = anchors.has_key(&hint).then_some(Fault::Wrong);
        }
    }
    verdicts
}

/// Who has made a signature: a key, or else the identities in its certificate.
fn judge(
    signed: &Signed<'_>,
    material: &Result<Option<Material>, Fault>,
    read: &dyn Fn() -> Result<Said, Fault>,
    anchors: &Anchors,
) -> Vec<Verdict> {
    let payload = Digest::sha256(signed.bytes);
    if let Some(key) = anchors.key_of(signed.bytes, signed.signature) {
        return vec![Verdict::known(By::Key(key), read(), payload)];
    }
    let unknown = Verdict::unknown(None, Some(payload));
    let identified = match material {
        Ok(None) => return vec![unknown],
        Ok(Some(material)) => keyless::judge(material, signed, anchors),
        Err(fault) => Err(fault.clone()),
    };
    match identified {
        Ok(all) if all.is_empty() => vec![unknown],
        Ok(all) => {
            let verdicts = all.into_iter().map(|one| {
                let mut verdict = Verdict::known(one.by, read(), payload);
                verdict.until = one.until;
                verdict.said.signed = one.logged.or(verdict.said.signed);
                verdict
            });
            verdicts.collect()
        }
        Err(fault) => vec![Verdict { payload: Some(payload), ..Verdict::faulty(fault) }],
    }
}

/// What a layer has of a keyless signature in its annotations.
fn material(layer: &Layer) -> Result<Option<Material>, Fault> {
    let Some(text) = layer.annotation(CERTIFICATE) else { return Ok(None) };
    let leaf = keyless::certificates(text)?.into_iter().next();
    let leaf = leaf.ok_or_else(|| malformed("its certificate is missing"))?;
    let between = keyless::certificates(layer.annotation(CHAIN).unwrap_or_default())?;
    let entry = layer.annotation(ENTRY).map(keyless::annotated).transpose()?;
    Ok(Some(Material { leaf, between, entry }))
}

/// Reads what may stand in an annotation or a bundle.
#[cfg(fuzzing)]
pub(crate) fn read(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (keyless::annotated(text), keyless::certificates(text));
    }
    keyless::read_body(bytes);
}
