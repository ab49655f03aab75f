//! Which manifests have signatures, and which blobs of theirs must be read.

use rules::policies::signatures::COSIGN_SIGNATURE;
use rules::words::digest::Digest;

use crate::layers::{
    Artifact, COSE, COSIGN_REFERRER, DSSE, JWS, LARGEST_ENVELOPE, LARGEST_PAYLOAD, Layer, NOTATION,
    PREDICATE, SIMPLE, is_bundle,
};

/// How a manifest has its signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// cosign's simple signing behind a `.sig` tag: a signature for each layer.
    Classic,
    /// cosign's attestations behind an `.att` tag: an envelope for each layer.
    Attestation,
    /// Simple signing in a referrer (cosign 2 with `--registry-referrers-mode=oci-1-1`).
    CosignReferrer,
    /// Sigstore bundles in a referrer.
    Bundle,
    /// notation's envelopes in a referrer.
    Notation,
}

impl Shape {
    /// Whether a layer of this media type has a signature.
    pub(crate) fn has(self, media_type: &str) -> bool {
        match self {
            Shape::Classic | Shape::CosignReferrer => media_type == SIMPLE,
            Shape::Attestation => media_type == DSSE,
            Shape::Bundle => is_bundle(media_type),
            Shape::Notation => matches!(media_type, JWS | COSE),
        }
    }

    /// Whether a layer is larger than what is read.
    pub(crate) fn exceeds(self, layer: &Layer) -> bool {
        layer.size
            > match self {
                Shape::Classic | Shape::CosignReferrer => LARGEST_PAYLOAD,
                Shape::Attestation | Shape::Bundle | Shape::Notation => LARGEST_ENVELOPE,
            }
    }
}

/// A manifest that has signatures, or says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// How it has them.
    pub format: Shape,
    /// What it says to be about. Only what is signed counts.
    pub subject: Option<Digest>,
    /// The blobs that [`verify`](crate::verify()) needs, with their lengths: at most 64, none longer
    /// than 1 MiB. One that is longer is a fault of its signature, without being read.
    pub blobs: Vec<(Digest, u64)>,
}

/// Reads a manifest. `ending` is that of the tag about another manifest behind which it lies (`.sig`,
/// `.att`), `None` for a referrer. `None`: it has no signatures and does not say so.
pub fn read(manifest: &[u8], ending: Option<&str>) -> Option<Evidence> {
    let artifact = Artifact::of(manifest)?;
    let format = shape(&artifact, ending)?;
    let mut blobs: Vec<(Digest, u64)> = Vec::new();
    let layers = artifact.layers(|kind| format.has(kind));
    for layer in layers.filter(|layer| !format.exceeds(layer)) {
        if !blobs.iter().any(|(digest, _)| *digest == layer.digest) {
            blobs.push((layer.digest, layer.size));
        }
    }
    let subject = artifact.subject.map(|subject| subject.digest);
    Some(Evidence { format, subject, blobs })
}

fn shape(artifact: &Artifact, ending: Option<&str>) -> Option<Shape> {
    let has = |shape: Shape| artifact.layers(|kind| shape.has(kind)).next().is_some();
    match ending {
        Some(".sig") => has(Shape::Classic).then_some(Shape::Classic),
        Some(".att") => has(Shape::Attestation).then_some(Shape::Attestation),
        Some(_) => None,
        None => {
            artifact.subject.as_ref()?;
            if artifact.is(|kind| kind == NOTATION) {
                Some(Shape::Notation)
            } else if artifact.is(|kind| kind == COSIGN_REFERRER) {
                Some(Shape::CosignReferrer)
            } else if artifact.is(is_bundle) || has(Shape::Bundle) {
                Some(Shape::Bundle)
            } else {
                None
            }
        }
    }
}

/// Whether a referrer of this artifact type may have signatures. Cheap, for lists.
pub fn is_evidence(artifact_type: &str) -> bool {
    artifact_type == NOTATION || artifact_type == COSIGN_REFERRER || is_bundle(artifact_type)
}

/// Harbor's word for the accessory that a manifest is: `signature.cosign` or `signature.notation`;
/// `None` if it is no signature (Harbor: `src/server/middleware/{cosign,subject}`). Nothing is
/// verified. A bundle that says to attest something else is no signature.
pub fn accessory(manifest: &[u8]) -> Option<&'static str> {
    let artifact = Artifact::of(manifest)?;
    match shape(&artifact, None).or_else(|| shape(&artifact, Some(".sig")))? {
        Shape::Notation => Some("signature.notation"),
        Shape::Classic | Shape::CosignReferrer => Some("signature.cosign"),
        Shape::Bundle => {
            let attests = artifact.annotations.as_ref().and_then(|all| all.get(PREDICATE));
            let signs = attests.is_none_or(|predicate| predicate == COSIGN_SIGNATURE);
            signs.then_some("signature.cosign")
        }
        Shape::Attestation => None,
    }
}
