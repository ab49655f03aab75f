//! What the mesh signs: a signature for cosign 2, skopeo, podman and CRI-O ([`classic`]), the same as a
//! bundle for cosign 3 ([`bundle`]), and, if the key has certificates, one of notation ([`notation()`]).

pub mod authority;
pub mod cosign_key;
mod key;
mod notation;
pub mod sealed;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rules::policies::signatures::COSIGN_SIGNATURE;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use serde_json::{Map, json};

pub use key::{BadSigningKey, SigningKey};
pub use notation::{Identity, notation};

use crate::cosign::write_bundle;
use crate::layers::{BUNDLE, EMPTY, MANIFEST, PREDICATE, SIGNATURE, SIMPLE};
use crate::payload::statement::CREATED;
use crate::payload::{dsse, simple, statement};
use crate::union::{descriptor, write};

/// What a config has that has nothing.
const NOTHING: &[u8] = b"{}";
/// The annotation of a bundle's subject that names the image.
const REFERENCE: &str = "docker-reference";

/// What is said with a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The image's name as clients write it: `HOST/REPOSITORY:TAG`. skopeo accepts a signature for a
    /// pull of this name only (`matchRepoDigestOrExact`).
    pub reference: String,
    /// The image's manifest.
    pub subject: Digest,
    /// Its length in bytes.
    pub subject_size: u64,
    /// Its media type.
    pub subject_media_type: String,
    /// What else is said (`cosign verify -a NAME=TEXT` asks for it). `timestamp` is taken.
    pub optional: BTreeMap<String, String>,
    /// When it is signed; to the second.
    pub timestamp: Timestamp,
}

/// A signature to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The blobs that the manifest names.
    pub blobs: Vec<Vec<u8>>,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// SHA-256 of the signed bytes, as [`verify`](crate::verify()) tells it.
    pub payload: Digest,
}

/// A signature of cosign's simple signing, as the only layer of a manifest for the `.sig` tag.
/// [`union`](crate::union()) joins it with what is there. The same claims make the same bytes.
pub fn classic(key: &SigningKey, claims: &Claims) -> Made {
    let Claims { reference, subject, optional, timestamp, .. } = claims;
    let payload = simple::write(reference, subject, optional, *timestamp);
    let mut layer = descriptor(SIMPLE, &payload);
    layer["annotations"] = json!({SIGNATURE: BASE64_STANDARD.encode(key.sign(&payload))});
    let (manifest, config) = write(vec![layer], Map::new());
    let signed = Digest::sha256(&payload);
    Made { blobs: vec![payload, config], manifest, payload: signed }
}

/// A Sigstore bundle, in a referrer of the image. The same claims make the same bytes.
///
/// The format has no name of the image: the reference is among the subject's annotations, with the
/// other claims, where verifiers do not ask for it.
pub fn bundle(key: &SigningKey, claims: &Claims) -> Made {
    let created = Timestamp(claims.timestamp.0 / 1000 * 1000).to_string();
    let mut annotations = claims.optional.clone();
    annotations.insert(REFERENCE.into(), claims.reference.clone());
    annotations.insert(CREATED.into(), created.clone());
    let payload = statement::write(&claims.subject, &annotations);
    let signed = dsse::to_sign(&payload);
    let bundle = write_bundle(key.id(), &payload, &key.sign(&signed));
    let mut config = descriptor(EMPTY, NOTHING);
    config["data"] = BASE64_STANDARD.encode(NOTHING).into();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": BUNDLE,
        "config": config,
        "layers": [descriptor(BUNDLE, &bundle)],
        "subject": {
            "mediaType": claims.subject_media_type,
            "digest": claims.subject.to_string(),
            "size": claims.subject_size,
        },
        "annotations": {
            "dev.sigstore.bundle.content": "dsse-envelope",
            PREDICATE: COSIGN_SIGNATURE,
            CREATED: created,
        },
    });
    let manifest = manifest.to_string().into_bytes();
    Made { blobs: vec![bundle, NOTHING.to_vec()], manifest, payload: Digest::sha256(&signed) }
}
