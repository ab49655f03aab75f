//! Who has signed what: every signature of a manifest.

use std::collections::BTreeMap;

use bytes::Bytes;
use rules::policies::signatures::{Fault, Format, MOST_SIGNATURES, Signature};
use rules::words::digest::Digest;

use crate::anchor::Anchors;
use crate::cosign;
use crate::evidence::{Evidence, Shape};
use crate::layers::{Artifact, JWS, Layer};
use crate::notation;
use crate::payload::{Verdict, malformed};

/// Verifies each signature of `manifest`, which was read as `evidence`, with the blobs that it named.
/// Only a signature without a fault, by somebody, counts for `subject`. At most 64 are told.
///
/// A signature that is none, or whose blob is missing, too large or another one, is told with its
/// fault. Nothing here panics, whatever the bytes are.
pub fn verify(
    manifest: &[u8],
    evidence: &Evidence,
    blobs: &BTreeMap<Digest, Bytes>,
    subject: &Digest,
    anchors: &Anchors,
) -> Vec<Signature> {
    let shape = evidence.format;
    let artifact = Artifact::of(manifest);
    let layers = artifact.iter().flat_map(|artifact| artifact.layers(|kind| shape.has(kind)));
    let mut signatures = Vec::new();
    for layer in layers {
        // each may cost as many tries as there are keys
        if signatures.len() >= MOST_SIGNATURES {
            break;
        }
        let verdicts = match blob(shape, layer, blobs) {
            Ok(bytes) => judge(shape, layer, bytes, subject, anchors),
            Err(fault) => vec![Verdict::faulty(fault)],
        };
        let format = format(shape, &layer.media_type);
        signatures
            .extend(verdicts.into_iter().map(|verdict| signature(format, layer.digest, verdict)));
    }
    if signatures.is_empty() {
        let empty = Verdict::faulty(malformed("the manifest has no layer with a signature"));
        signatures.push(signature(format(shape, ""), Digest::sha256(manifest), empty));
    }
    signatures.truncate(MOST_SIGNATURES);
    signatures
}

/// The bytes of a layer: neither too many nor others.
fn blob<'a>(
    shape: Shape,
    layer: &Layer,
    blobs: &'a BTreeMap<Digest, Bytes>,
) -> Result<&'a Bytes, Fault> {
    if shape.exceeds(layer) {
        return Err(Fault::TooLarge);
    }
    let bytes = blobs.get(&layer.digest).ok_or(Fault::Missing)?;
    let fits = bytes.len() as u64 == layer.size
        && Digest::of(layer.digest.algorithm(), bytes) == layer.digest;
    match fits {
        true => Ok(bytes),
        false => Err(malformed("a blob is not the one that the manifest names")),
    }
}

fn judge(
    shape: Shape,
    layer: &Layer,
    bytes: &[u8],
    subject: &Digest,
    anchors: &Anchors,
) -> Vec<Verdict> {
    match shape {
        Shape::Classic | Shape::CosignReferrer => cosign::layer(layer, bytes, subject, anchors),
        Shape::Attestation => cosign::attestation(layer, bytes, subject, anchors),
        Shape::Bundle => cosign::bundle(bytes, subject, anchors),
        Shape::Notation => notation::envelope(&layer.media_type, bytes, subject, anchors),
    }
}

fn format(shape: Shape, media_type: &str) -> Format {
    match shape {
        Shape::Classic => Format::Cosign,
        Shape::CosignReferrer => Format::CosignReferrer,
        Shape::Attestation => Format::Attestation,
        Shape::Bundle => Format::Bundle,
        Shape::Notation if media_type == JWS => Format::NotationJws,
        Shape::Notation => Format::NotationCose,
    }
}

fn signature(format: Format, blob: Digest, verdict: Verdict) -> Signature {
    Signature {
        format,
        by: verdict.by,
        fault: verdict.fault,
        predicate: verdict.said.predicate,
        reference: verdict.said.reference,
        signed: verdict.said.signed,
        until: verdict.until,
        payload: verdict.payload.unwrap_or(blob),
        claims: verdict.said.claims,
    }
}
