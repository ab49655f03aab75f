//! What a manifest refers to. The bytes stay as received, so that the digest cannot drift; this only reads them.
//!
//! Sources: image-spec `manifest.md`, `image-index.md`; distribution's `manifest/schema2`. Unknown fields are allowed and ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Media types that this registry reads.
pub mod media_type {
    /// An OCI image or artifact.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// A Docker v2 schema 2 image.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// A Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
}

/// Manifests nest at most this many references each: a bound on what one push can make the mesh check.
pub const MAX_REFERENCES: usize = 10_000;

/// Why bytes are not a manifest that can be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// Not JSON of the right shape.
    #[error("the manifest is not valid: {0}")]
    Json(String),
    /// A type this registry does not know.
    #[error("media type '{0}' is not a manifest; push OCI images and indexes or Docker v2 schema 2")]
    MediaType(String),
    /// The header and the body disagree.
    #[error("the Content-Type '{header}' and the manifest's own mediaType '{body}' differ")]
    Disagree {
        /// What the request said.
        header: String,
        /// What the body says.
        body: String,
    },
    /// More references than [`MAX_REFERENCES`].
    #[error("the manifest refers to more than {MAX_REFERENCES} blobs and manifests")]
    TooMany,
    /// `schemaVersion` is missing or not 2.
    #[error("schemaVersion must be 2")]
    Schema,
    /// A blob is described with a negative or contradicting size.
    #[error("the manifest describes {0} with two different sizes")]
    Sizes(Digest),
}

/// A blob as a manifest describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobReference {
    /// Its name.
    pub digest: Digest,
    /// Its length as the manifest tells it.
    pub size: u64,
}

/// What a manifest says of the world around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The effective media type.
    pub media_type: String,
    /// Config and layers that this registry must hold (layers with `urls` of the nondistributable types are not among them).
    pub blobs: Vec<BlobReference>,
    /// Manifests that an index lists.
    pub children: Vec<Digest>,
    /// What it is about, for referrers.
    pub subject: Option<Digest>,
    /// `artifactType`, or the config's media type for images (spec: "Pushing Manifests with Subject").
    pub artifact_type: Option<String>,
    /// Its annotations, shown in the referrers list.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<WrittenDescriptor>,
    layers: Option<Vec<WrittenDescriptor>>,
    manifests: Option<Vec<WrittenDescriptor>>,
    subject: Option<WrittenDescriptor>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenDescriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
}

/// Layers that a registry does not have to hold (image-spec `layer.md`, deprecated; Docker's foreign layers).
fn nondistributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
}

impl Manifest {
    /// Reads `bytes`, which were sent as `content_type` (parameters already cut off; empty if the client sent none).
    pub fn parse(content_type: &str, bytes: &[u8]) -> Result<Self, BadManifest> {
        let written: Written = serde_json::from_slice(bytes).map_err(|e| BadManifest::Json(e.to_string()))?;
        if written.schema_version != Some(2) {
            return Err(BadManifest::Schema);
        }
        let media_type = match (content_type, &written.media_type) {
            ("", Some(body)) => body.clone(),
            ("", None) if written.manifests.is_some() => media_type::OCI_INDEX.into(),
            ("", None) => media_type::OCI_MANIFEST.into(),
            (header, None) => header.into(),
            (header, Some(body)) if header == body => header.into(),
            (header, Some(body)) => {
                return Err(BadManifest::Disagree { header: header.into(), body: body.clone() });
            }
        };
        let is_index = match media_type.as_str() {
            media_type::OCI_INDEX | media_type::DOCKER_LIST => true,
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => false,
            _ => return Err(BadManifest::MediaType(media_type)),
        };
        let mut blobs = Vec::new();
        let mut children = Vec::new();
        let mut config_type = None;
        if is_index {
            let listed = written.manifests.ok_or_else(|| BadManifest::Json("an index needs 'manifests'".into()))?;
            children.extend(listed.iter().map(|d| d.digest));
        } else {
            let config = written.config.ok_or_else(|| BadManifest::Json("an image needs 'config'".into()))?;
            blobs.push(BlobReference { digest: config.digest, size: config.size });
            config_type = Some(config.media_type).filter(|t| !t.is_empty());
            for layer in written.layers.unwrap_or_default() {
                if !nondistributable(&layer.media_type) {
                    blobs.push(BlobReference { digest: layer.digest, size: layer.size });
                }
            }
        }
        if blobs.len() + children.len() > MAX_REFERENCES {
            return Err(BadManifest::TooMany);
        }
        blobs.sort_by_key(|b| (b.digest, b.size));
        blobs.dedup();
        if let Some(pair) = blobs.windows(2).find(|p| p[0].digest == p[1].digest) {
            return Err(BadManifest::Sizes(pair[0].digest));
        }
        children.sort_unstable();
        children.dedup();
        Ok(Manifest {
            media_type,
            blobs,
            children,
            subject: written.subject.map(|d| d.digest),
            artifact_type: written.artifact_type.filter(|t| !t.is_empty()).or(config_type),
            annotations: written.annotations.unwrap_or_default(),
        })
    }
}

/// One entry of a referrers list, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referrer {
    /// The referring manifest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// What it is.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(n: u8) -> Digest {
        Digest::sha256(&[n])
    }

    #[test]
    fn an_image_refers_to_config_and_layers_once() {
        let (c, l) = (digest(1), digest(2));
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{m}","config":{{"mediaType":"x/y","digest":"{c}","size":1}},
            "layers":[{{"digest":"{l}","size":2}},{{"digest":"{l}","size":2}},
            {{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{c}","size":9}}],"extra":[1]}}"#,
            m = media_type::OCI_MANIFEST
        );
        let manifest = Manifest::parse(media_type::OCI_MANIFEST, text.as_bytes()).unwrap();
        assert_eq!(manifest.blobs.len(), 2);
        assert_eq!(manifest.artifact_type.as_deref(), Some("x/y"));
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_the_reason() {
        let parse = |t: &str, b: &str| Manifest::parse(t, b.as_bytes());
        assert!(matches!(parse("", "{"), Err(BadManifest::Json(_))));
        assert!(matches!(parse("", "{}"), Err(BadManifest::Schema)));
        let body = r#"{"schemaVersion":2}"#;
        assert!(matches!(parse("text/plain", body), Err(BadManifest::MediaType(_))));
        assert!(matches!(parse(media_type::OCI_INDEX, body), Err(BadManifest::Json(_))));
        let other = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX);
        assert!(matches!(parse(media_type::DOCKER_LIST, &other), Err(BadManifest::Disagree { .. })));
        assert!(Manifest::parse(media_type::OCI_INDEX, other.as_bytes()).unwrap().children.is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::parse("", &bytes);
        }
    }
}
