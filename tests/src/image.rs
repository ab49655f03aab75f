//! Images made of random bytes: as small as a scenario likes, and never twice the same.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rand::RngExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// The media type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// That of an OCI index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// That of docker's image manifest.
pub const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// That of docker's manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// All of them: what a client accepts that does not care.
pub const ANY_KIND: [&str; 4] = [MANIFEST, DOCKER, INDEX, DOCKER_LIST];

/// `sha256:...` of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Fresh random bytes.
#[must_use]
pub fn random_bytes(size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    rand::rng().fill(bytes.as_mut_slice());
    Bytes::from(bytes)
}

/// Bytes with their name.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Their sha256.
    pub digest: String,
    /// The bytes.
    pub bytes: Bytes,
}

impl Blob {
    /// Names some bytes.
    #[must_use]
    pub fn of(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: digest(&bytes), bytes }
    }

    /// The hexadecimal digits of its digest.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.digest.strip_prefix("sha256:").expect("digests here are sha256")
    }

    /// The file that has its bytes at a node whose data folder this is.
    #[must_use]
    pub fn file(&self, data: &Path) -> PathBuf {
        data.join("blobs/sha256").join(&self.hex()[..2]).join(self.hex())
    }

    /// A fresh random blob.
    #[must_use]
    pub fn random(size: usize) -> Self {
        Self::of(random_bytes(size))
    }
}

/// An image: its manifest and everything that the manifest names.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's bytes and digest.
    pub manifest: Blob,
    /// The configuration, then the layers.
    pub blobs: Vec<Blob>,
}

impl Image {
    /// An image with a layer of each of these sizes.
    #[must_use]
    pub fn random(layers: &[usize]) -> Self {
        Self::of_layers(layers.iter().map(|size| Blob::random(*size)).collect())
    }

    /// An image of these layers.
    #[must_use]
    pub fn of_layers(layers: Vec<Blob>) -> Self {
        let config = json!({"architecture": "amd64", "os": "linux", "author": hex::encode(random_bytes(8)), "config": {},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| &layer.digest).collect::<Vec<_>>()}});
        let mut blobs = vec![Blob::of(config.to_string())];
        blobs.extend(layers);
        Self { manifest: Blob::of(manifest_of(&blobs).to_string()), blobs }
    }

    /// An image that clients can unpack: each layer is an archive of one file of about this size.
    #[must_use]
    pub fn unpackable(layers: &[usize]) -> Self {
        let layers = layers
            .iter()
            .enumerate()
            .map(|(at, size)| Blob::of(archive(&[(&format!("file-{at}"), &random_bytes(*size))])));
        Self::of_layers(layers.collect())
    }

    /// The smallest image there is.
    #[must_use]
    pub fn tiny() -> Self {
        Self::random(&[512])
    }

    /// A small image that is about another one, as signatures are.
    #[must_use]
    pub fn about(subject: &Self) -> Self {
        let blobs = Self::tiny().blobs;
        let mut manifest = manifest_of(&blobs);
        manifest["subject"] = json!({"mediaType": MANIFEST, "digest": subject.digest(), "size": subject.manifest.bytes.len()});
        Self { manifest: Blob::of(manifest.to_string()), blobs }
    }

    /// The image's name by content.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }
}

/// A manifest that names these blobs: the configuration first, then layers.
#[must_use]
pub fn manifest_of(blobs: &[Blob]) -> serde_json::Value {
    let named = |kind: &str, blob: &Blob| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": blob.digest, "size": blob.bytes.len()});
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": named("config.v1+json", &blobs[0]),
        "layers": blobs[1..].iter().map(|layer| named("layer.v1.tar", layer)).collect::<Vec<_>>()})
}

/// A tar archive (ustar) of these files.
#[must_use]
pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (name, bytes) in files {
        let mut header = [0; 512];
        let mut put =
            |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        for (at, field) in
            [(100, "0000644\0"), (108, "0000000\0"), (116, "0000000\0"), (136, "00000000000\0")]
        {
            put(at, field);
        }
        put(124, &format!("{:011o}\0", bytes.len()));
        put(148, "        "); // the sum counts itself as spaces
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        all.extend_from_slice(&header);
        all.extend_from_slice(bytes);
        all.resize(all.len().next_multiple_of(512), 0);
    }
    all.resize(all.len() + 1024, 0);
    all
}

/// Writes an image as a folder (OCI image layout) that clients can push.
///
/// # Panics
/// When it cannot be written.
pub fn write_layout(folder: &Path, image: &Image) {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a folder");
    let put = |blob: &Blob| {
        std::fs::write(blobs.join(blob.digest.trim_start_matches("sha256:")), &blob.bytes)
    };
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.bytes.len()}]});
    for blob in image.blobs.iter().chain([&image.manifest]) {
        put(blob).expect("a file");
    }
    std::fs::write(folder.join("index.json"), index.to_string()).expect("a file");
    std::fs::write(
        folder.join("oci-layout"),
        Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#),
    )
    .expect("a file");
}
