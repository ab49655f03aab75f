//! Sigstore bundles (sigstore/protobuf-specs `sigstore_bundle.proto`, in protobuf's JSON) as cosign 3
//! writes them for images: one DSSE envelope with one signature.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rules::policies::signatures::{AnchorId, Fault};
use serde::{Deserialize, Serialize};

use crate::json::base64;
use crate::layers::{BUNDLE, is_bundle};
use crate::payload::dsse::{Envelope, Opened};
use crate::payload::malformed;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: String,
    verification_material: Material,
    #[serde(default)]
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(default)]
    public_key: Option<Hint>,
}

#[derive(Deserialize, Serialize)]
struct Hint {
    #[serde(default)]
    hint: String,
}

/// A bundle that was read.
pub(crate) struct Bundle {
    /// The envelope.
    pub(crate) envelope: Opened,
    /// Its one signature.
    pub(crate) signature: Vec<u8>,
    /// The key that it claims to be by.
    pub(crate) hint: Option<AnchorId>,
}

impl Bundle {
    /// Reads a bundle. Nothing of it is verified.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let written: Written = serde_json::from_slice(bytes).map_err(malformed)?;
        if !is_bundle(&written.media_type) {
            return Err(malformed(format!("its mediaType is {:?}", written.media_type)));
        }
        let envelope = written.dsse_envelope.ok_or_else(|| malformed("it has no DSSE envelope"))?;
        let mut envelope = envelope.open()?;
        let (Some(signature), true) = (envelope.signatures.pop(), envelope.signatures.is_empty())
        else {
            return Err(malformed("a bundle has exactly one signature"));
        };
        let hint = written.verification_material.public_key.and_then(|key| base64(&key.hint));
        let hint = hint.and_then(|hint| hint.try_into().ok()).map(AnchorId);
        Ok(Bundle { envelope, signature, hint })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct New {
    media_type: &'static str,
    verification_material: NewMaterial,
    dsse_envelope: Envelope,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewMaterial {
    public_key: Hint,
}

/// Writes a bundle of a signature with a key.
pub(crate) fn write(key: AnchorId, payload: &[u8], signature: &[u8]) -> Vec<u8> {
    let hint = BASE64_STANDARD.encode(key.0);
    let new = New {
        media_type: BUNDLE,
        verification_material: NewMaterial { public_key: Hint { hint } },
        dsse_envelope: Envelope::of(payload, signature),
    };
    serde_json::to_vec(&new).unwrap_or_default()
}
