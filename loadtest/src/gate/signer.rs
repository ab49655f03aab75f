//! A key that signs images as cosign does.

use anyhow::Result;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{KeyPair, SigningKey};
use serde_json::json;

use crate::content::{Blob, MANIFEST};
use crate::registry;
use crate::wire::Client;

/// A key of P-256.
pub(super) struct Signer(KeyPair);

impl Signer {
    /// A new one.
    pub(super) fn new() -> Result<Self> {
        Ok(Signer(KeyPair::generate()?))
    }

    /// Its public key as PEM.
    pub(super) fn public(&self) -> String {
        self.0.public_key_pem()
    }

    /// Signs an image and stores that behind the tag where cosign looks.
    pub(super) fn sign(&self, client: &mut Client, repository: &str, image: &Blob) -> Result<()> {
        let payload = json!({
            "critical": {
                "identity": {"docker-reference": format!("registry.example/{repository}")},
                "image": {"docker-manifest-digest": image.digest.to_string()},
                "type": "cosign container image signature",
            },
            "optional": null,
        });
        let payload = Blob::of(payload.to_string().into_bytes());
        let signature = BASE64_STANDARD.encode(self.0.sign(&payload.bytes)?);
        let config = json!({
            "architecture": "", "os": "", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [payload.digest.to_string()]},
        });
        let config = Blob::of(config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.digest.to_string(), "size": config.bytes.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": payload.digest.to_string(), "size": payload.bytes.len(),
                "annotations": {"dev.cosignproject.cosign/signature": signature},
            }],
        });
        registry::upload_blob(client, repository, &payload)?;
        registry::upload_blob(client, repository, &config)?;
        let tag = format!("{}.sig", image.digest.to_string().replace(':', "-"));
        let manifest = Blob::of(manifest.to_string().into_bytes());
        registry::put_manifest(client, repository, &tag, &manifest)
    }
}
