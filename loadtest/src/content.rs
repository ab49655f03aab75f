//! What is pushed and pulled: random bytes, because compressible or repeated ones would flatter a
//! registry that notices.

use rules::words::digest::{Digest, Hasher};
use serde_json::json;

/// The media type of the manifests made here.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// About the size of a manifest with a dozen layers.
const MANIFEST_BYTES: usize = 2048;

/// One mebibyte.
pub(crate) const MIB: usize = 1 << 20;

/// Bytes and their name.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// Their sha256.
    pub(crate) digest: Digest,
}

impl Blob {
    /// These bytes.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Blob { digest: Digest::sha256(&bytes), bytes }
    }

    /// This many random bytes.
    pub(crate) fn random(length: usize) -> Self {
        let mut bytes = vec![0; length];
        rand::fill(&mut bytes[..]);
        Blob::of(bytes)
    }

    /// The smallest image configuration, made unique.
    pub(crate) fn config() -> Self {
        let config = json!({
            "architecture": "amd64", "os": "linux", "author": format!("loadtest {:032x}", rand::random::<u128>()),
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        Blob::of(config.to_string().into_bytes())
    }
}

/// Bodies that differ in their first bytes only, so that a thousand unique ones cost the memory of
/// one.
#[derive(Debug)]
pub(crate) struct Bodies {
    base: Vec<u8>,
    each: Vec<([u8; STAMP], Digest)>,
}

const STAMP: usize = 16;

impl Bodies {
    /// `count` bodies of `length` random bytes. Hashing them takes its time: do it outside of what
    /// is timed.
    pub(crate) fn random(count: usize, length: usize) -> Self {
        let base = Blob::random(length.max(STAMP)).bytes;
        let stamped = |_| {
            let mut stamp = [0; STAMP];
            rand::fill(&mut stamp);
            let mut hasher = Hasher::new(rules::words::digest::Algorithm::Sha256);
            hasher.update(&stamp);
            hasher.update(&base[STAMP..]);
            (stamp, hasher.finish())
        };
        let each = (0..count).map(stamped).collect();
        Bodies { base, each }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.each.len()
    }

    /// The length of each.
    pub(crate) fn length(&self) -> usize {
        self.base.len()
    }

    /// The parts of one body.
    pub(crate) fn parts(&self, at: usize) -> [&[u8]; 2] {
        [&self.each[at].0, &self.base[STAMP..]]
    }

    /// The name of one body.
    pub(crate) fn digest(&self, at: usize) -> Digest {
        self.each[at].1
    }
}

/// An OCI image manifest of about two kilobytes.
pub(crate) fn manifest(config: &Blob, layers: &[(Digest, usize)]) -> Blob {
    padded(config, layers, |missing| "x".repeat(missing), MANIFEST_BYTES)
}

/// An OCI image manifest of this length, most of it random letters and digits.
pub(crate) fn manifest_of(config: &Blob, layers: &[(Digest, usize)], length: usize) -> Blob {
    let letters = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+-";
    let random = |missing| {
        let mut bytes = vec![0_u8; missing];
        rand::fill(&mut bytes[..]);
        bytes.iter().map(|byte| char::from(letters[usize::from(*byte) % letters.len()])).collect()
    };
    padded(config, layers, random, length)
}

fn padded(
    config: &Blob,
    layers: &[(Digest, usize)],
    padding: impl Fn(usize) -> String,
    length: usize,
) -> Blob {
    let layers: Vec<_> = layers
        .iter()
        .map(|(digest, size)| {
            json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest.to_string(), "size": size })
        })
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.digest.to_string(),
            "size": config.bytes.len(),
        },
        "layers": layers,
        "annotations": { "padding": "" },
    });
    let missing = length.saturating_sub(manifest.to_string().len());
    manifest["annotations"]["padding"] = padding(missing).into();
    Blob::of(manifest.to_string().into_bytes())
}

/// A manifest made by [`manifest`] with a number in its padding: as long, and with a digest of its
/// own.
pub(crate) fn numbered(manifest: &Blob, number: usize) -> Blob {
    let mark = b"\"padding\":\"";
    let found = manifest.bytes.windows(mark.len()).position(|bytes| bytes == mark);
    let at = found.expect("a manifest made here is padded") + mark.len();
    let mut bytes = manifest.bytes.clone();
    bytes[at..at + 12].copy_from_slice(format!("{number:012}").as_bytes());
    Blob::of(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_unique_and_named_by_their_bytes() {
        let bodies = Bodies::random(3, 1000);
        for at in 0..bodies.count() {
            assert_eq!(Digest::sha256(&bodies.parts(at).concat()), bodies.digest(at));
            assert_eq!(bodies.parts(at).concat().len(), bodies.length());
        }
        assert_ne!(bodies.digest(0), bodies.digest(1));
    }

    #[test]
    fn a_manifest_has_the_size_that_the_goals_speak_of() {
        let layer = Blob::random(10);
        let manifest = manifest(&Blob::config(), &[(layer.digest, 10)]);
        assert_eq!(manifest.bytes.len(), MANIFEST_BYTES);
        let large = manifest_of(&Blob::config(), &[(layer.digest, 10)], MIB);
        assert_eq!(numbered(&large, 7).bytes.len(), MIB);
        assert_ne!(numbered(&large, 7).digest, numbered(&large, 8).digest);
    }
}
