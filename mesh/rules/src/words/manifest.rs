//! What a manifest refers to. This module only reads the bytes. They are stored as received, so
//! that the digest stays right.
//!
//! Sources: image-spec `manifest.md`, `image-index.md`; distribution's `manifest/schema2`. Unknown
//! fields are allowed and ignored.

use std::collections::BTreeMap;
use std::fmt::{self, Formatter};

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::words::digest::Digest;

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

/// The maximum number of references in one manifest, which bounds the checks that one push causes.
/// No more fit into 4 MiB, the size that every registry should accept (distribution-spec "Pushing
/// Manifests").
pub const MAX_REFERENCES: usize = 40_000;

/// Why bytes are not a manifest that can be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// Not JSON, or not of the right shape.
    #[error("the manifest is not valid: {0}")]
    Json(String),
    /// A media type that this registry does not know.
    #[error(
        "media type '{0}' is not a manifest; push OCI images and indexes or Docker v2 schema 2"
    )]
    MediaType(String),
    /// The header and the body name different media types.
    #[error("the Content-Type '{header}' and the manifest's own mediaType '{body}' differ")]
    Disagree {
        /// The media type in the request.
        header: String,
        /// The media type in the body.
        body: String,
    },
    /// More references than [`MAX_REFERENCES`].
    #[error("the manifest refers to more than {MAX_REFERENCES} blobs and manifests")]
    TooMany,
    /// `schemaVersion` is missing or not 2.
    #[error("schemaVersion must be 2")]
    Schema,
    /// One blob is described with two sizes.
    #[error("the manifest describes {0} with two different sizes")]
    Sizes(Digest),
    /// A descriptor has no usable digest or size (image-spec `descriptor.md`: both are required).
    #[error("the manifest's {place}: {problem}")]
    Descriptor {
        /// Where in the manifest it is, such as `layers[3]`.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The bytes begin with a byte order mark (RFC 8259 section 8.1).
    #[error("the manifest begins with a byte order mark, which JSON may not; push it without")]
    ByteOrderMark,
}

/// A blob as a manifest describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobReference {
    /// Its digest.
    pub digest: Digest,
    /// Its length according to the manifest.
    pub size: u64,
}

/// An entry of an index: a manifest or a blob. The media type alone does not decide (image-spec
/// `image-index.md`: an unknown one must not be an error), so the repository's contents decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its digest.
    pub digest: Digest,
    /// Its length according to the index.
    pub size: u64,
    /// Whether its media type is that of a manifest.
    pub manifest: bool,
}

impl Listed {
    /// The entry as a blob.
    pub fn as_blob(&self) -> BlobReference {
        BlobReference { digest: self.digest, size: self.size }
    }
}

/// The contents of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The effective media type.
    pub media_type: String,
    /// Config and layers that this registry must hold, without nondistributable layers.
    pub blobs: Vec<BlobReference>,
    /// Nondistributable layers. This registry need not hold them; those that were uploaded are kept
    /// like any layer.
    pub optional: Vec<BlobReference>,
    /// The entries of an index.
    pub children: Vec<Listed>,
    /// The manifest that it is about, for referrers.
    pub subject: Option<Digest>,
    /// `artifactType`, or the config's media type for images (spec: "Pushing Manifests with
    /// Subject").
    pub artifact_type: Option<String>,
    /// Its annotations, shown in the referrers list.
    pub annotations: BTreeMap<String, String>,
}

/// A manifest as Go's clients and registries read it: of a field that is written twice, the last
/// counts; and a text need not be valid Unicode.
#[derive(Default)]
pub(super) struct ManifestJson {
    schema_version: Option<u32>,
    media_type: Option<Text>,
    pub(super) config: Option<WrittenDescriptor>,
    pub(super) layers: Option<Vec<WrittenDescriptor>>,
    /// The outer `Option` says whether the field is present. Go writes an empty list as `null`.
    manifests: Option<Option<Vec<WrittenDescriptor>>>,
    subject: Option<WrittenDescriptor>,
    artifact_type: Option<Text>,
    /// Go reads `null` as an empty string.
    annotations: Option<BTreeMap<Text, Option<Text>>>,
}

impl<'de> Deserialize<'de> for ManifestJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = ManifestJson;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("a manifest")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ManifestJson, A::Error> {
                let mut written = ManifestJson::default();
                while let Some(Text(name)) = map.next_key()? {
                    match name.as_str() {
                        "schemaVersion" => written.schema_version = map.next_value()?,
                        "mediaType" => written.media_type = map.next_value()?,
                        "config" => written.config = map.next_value()?,
                        "layers" => written.layers = map.next_value()?,
                        "manifests" => written.manifests = Some(map.next_value()?),
                        "subject" => written.subject = map.next_value()?,
                        "artifactType" => written.artifact_type = map.next_value()?,
                        "annotations" => written.annotations = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(written)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A descriptor. What is wrong with it is said later, together with its place in the manifest.
pub(super) struct WrittenDescriptor {
    media_type: Option<Text>,
    digest: Option<Text>,
    size: Size,
}

impl<'de> Deserialize<'de> for WrittenDescriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = WrittenDescriptor;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("a descriptor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut media_type, mut digest, mut size) = (None, None, Size::Missing);
                while let Some(Text(name)) = map.next_key()? {
                    match name.as_str() {
                        "mediaType" => media_type = map.next_value()?,
                        "digest" => digest = map.next_value::<Option<Text>>()?.or(digest),
                        "size" => match map.next_value()? {
                            // Go leaves a field as it is when it reads `null`
                            Size::Missing => {}
                            written => size = written,
                        },
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(WrittenDescriptor { media_type, digest, size })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A descriptor's `size` as it was written.
enum Size {
    Missing,
    Bytes(u64),
    Unusable(String),
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Size;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Size, E> {
                Ok(Size::Missing)
            }

            // image-spec `descriptor.md`: an int64
            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(match i64::try_from(bytes) {
                    Ok(_) => Size::Bytes(bytes),
                    Err(_) => Size::Unusable(bytes.to_string()),
                })
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Size, E> {
                Ok(u64::try_from(bytes)
                    .map_or_else(|_| Size::Unusable(bytes.to_string()), Size::Bytes))
            }

            fn visit_f64<E: serde::de::Error>(self, bytes: f64) -> Result<Size, E> {
                Ok(Size::Unusable(bytes.to_string()))
            }

            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Size, E> {
                Ok(Size::Unusable("a text".into()))
            }

            fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Size, E> {
                Ok(Size::Unusable("a truth value".into()))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// A text. What is not valid Unicode in it (half a surrogate pair) is replaced, as Go does.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Text, E> {
                Ok(Text(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Layers that a registry does not have to hold (image-spec `layer.md`, deprecated; Docker's
/// foreign layers).
fn nondistributable(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
        || media_type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
}

impl WrittenDescriptor {
    pub(super) fn kind(&self) -> &str {
        self.media_type.as_ref().map_or("", |kind| &kind.0)
    }

    /// The descriptor, which is at `place` of its manifest.
    pub(super) fn reference(
        &self,
        place: impl Fn() -> String,
    ) -> Result<BlobReference, BadManifest> {
        let wrong = |problem: String| BadManifest::Descriptor { place: place(), problem };
        let digest = self.digest(&place)?;
        match &self.size {
            Size::Bytes(size) => Ok(BlobReference { digest, size: *size }),
            Size::Missing => Err(wrong("it has no size".into())),
            Size::Unusable(what) => Err(wrong(format!(
                "its size is {what}, and must be a whole number from 0 to {}",
                i64::MAX
            ))),
        }
    }

    fn digest(&self, place: impl Fn() -> String) -> Result<Digest, BadManifest> {
        let wrong = |problem: String| BadManifest::Descriptor { place: place(), problem };
        let written = self.digest.as_ref().ok_or_else(|| wrong("it has no digest".into()))?;
        written.0.parse().map_err(|e| wrong(format!("its digest '{}': {e}", written.0)))
    }
}

/// How to treat a manifest that contradicts itself or its header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contradictions {
    Refused,
    Taken,
}

fn is_manifest(media_type: &str) -> bool {
    use media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].contains(&media_type)
}

/// Removes duplicates. Fails for a blob that is described with two sizes.
fn distinct(blobs: &mut Vec<BlobReference>) -> Result<(), BadManifest> {
    blobs.sort_by_key(|b| (b.digest, b.size));
    blobs.dedup();
    match blobs.windows(2).find(|p| p[0].digest == p[1].digest) {
        Some(pair) => Err(BadManifest::Sizes(pair[0].digest)),
        None => Ok(()),
    }
}

impl Manifest {
    /// Every blob that this registry may have to hold for the manifest.
    pub fn all_blobs(&self) -> impl Iterator<Item = BlobReference> {
        let listed = self.children.iter().filter(|child| !child.manifest).map(Listed::as_blob);
        self.blobs.iter().chain(&self.optional).copied().chain(listed)
    }

    /// Parses `bytes` that were pushed as `content_type` (without parameters; empty if the client
    /// sent none).
    pub fn parse(content_type: &str, bytes: &[u8]) -> Result<Self, BadManifest> {
        Manifest::read(content_type, bytes, Contradictions::Refused)
    }

    /// Parses `bytes` that another registry serves as `content_type`. A cache passes on what it
    /// gets, so it is no error if the media type inside differs from the one outside, if a blob is
    /// described with two sizes, or if the bytes begin with a byte order mark. Blobs whose
    /// descriptor has no usable digest or size are left out: nothing true could be recorded of
    /// them. An entry of an index without a usable size has the size 0.
    pub fn read_served(content_type: &str, bytes: &[u8]) -> Result<Self, BadManifest> {
        Manifest::read(content_type, bytes, Contradictions::Taken)
    }

    /// Its subject, and its own entry in the subject's list of referrers; `None` if it has no
    /// subject. `digest`, `media_type` and `size` are its own.
    pub fn referrer(
        &self,
        digest: Digest,
        media_type: &str,
        size: usize,
    ) -> Option<Box<(Digest, Referrer)>> {
        self.subject.map(|subject| {
            let referrer = Referrer {
                digest,
                media_type: media_type.to_owned(),
                size: size as u64,
                artifact_type: self.artifact_type.clone(),
                annotations: self.annotations.clone(),
            };
            Box::new((subject, referrer))
        })
    }

    fn read(
        content_type: &str,
        bytes: &[u8],
        contradictions: Contradictions,
    ) -> Result<Self, BadManifest> {
        let taken = contradictions == Contradictions::Taken;
        let bytes = match bytes.strip_prefix("\u{feff}".as_bytes()) {
            Some(unmarked) if taken => unmarked,
            Some(_) => return Err(BadManifest::ByteOrderMark),
            None => bytes,
        };
        let written: ManifestJson =
            serde_json::from_slice(bytes).map_err(|e| BadManifest::Json(e.to_string()))?;
        if written.schema_version != Some(2) {
            return Err(BadManifest::Schema);
        }
        let media_type = match (content_type, written.media_type.map(|text| text.0)) {
            ("", Some(body)) => body,
            ("", None) if written.manifests.is_some() => media_type::OCI_INDEX.into(),
            ("", None) => media_type::OCI_MANIFEST.into(),
            (header, None) => header.into(),
            // media types have no case (RFC 9110 section 8.3.1)
            (header, Some(body)) if header.eq_ignore_ascii_case(&body) || taken => header.into(),
            (header, Some(body)) => {
                return Err(BadManifest::Disagree { header: header.into(), body });
            }
        };
        let lower = media_type.to_ascii_lowercase();
        let media_type = if is_manifest(&lower) { lower } else { media_type };
        let is_index = match media_type.as_str() {
            media_type::OCI_INDEX | media_type::DOCKER_LIST => true,
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => false,
            _ => return Err(BadManifest::MediaType(media_type)),
        };
        let (mut blobs, mut optional, mut children) = (Vec::new(), Vec::new(), Vec::new());
        let mut config_type = None;
        if is_index {
            let listed = written
                .manifests
                .ok_or_else(|| BadManifest::Json("an index needs 'manifests'".into()))?;
            for (number, listed) in listed.unwrap_or_default().iter().enumerate() {
                let place = || format!("manifests[{number}]");
                let entry = match listed.reference(place) {
                    Err(_) if taken => match listed.digest(place) {
                        Ok(digest) => BlobReference { digest, size: 0 },
                        Err(_) => continue,
                    },
                    entry => entry?,
                };
                let BlobReference { digest, size } = entry;
                children.push(Listed { digest, size, manifest: is_manifest(listed.kind()) });
            }
        } else {
            let config = written
                .config
                .ok_or_else(|| BadManifest::Json("an image needs 'config'".into()))?;
            match config.reference(|| "config".into()) {
                Err(_) if taken => {}
                reference => blobs.push(reference?),
            }
            config_type = config.media_type.filter(|t| !t.0.is_empty());
            for (number, layer) in written.layers.unwrap_or_default().iter().enumerate() {
                let kind = if nondistributable(layer.kind()) { &mut optional } else { &mut blobs };
                match layer.reference(|| format!("layers[{number}]")) {
                    Err(_) if taken => {}
                    reference => kind.push(reference?),
                }
            }
        }
        if blobs.len() + optional.len() + children.len() > MAX_REFERENCES {
            return Err(BadManifest::TooMany);
        }
        for blobs in [&mut blobs, &mut optional] {
            match distinct(blobs) {
                Err(_) if taken => blobs.dedup_by_key(|blob| blob.digest),
                result => result?,
            }
        }
        // a blob that must be held is not optional, even if it is listed there as well
        optional
            .retain(|layer| blobs.binary_search_by_key(&layer.digest, |blob| blob.digest).is_err());
        children.sort_by_key(|c| (c.digest, c.size, c.manifest));
        children.dedup();
        let subject = match &written.subject {
            Some(subject) if taken => subject.digest(|| "subject".into()).ok(),
            Some(subject) => Some(subject.reference(|| "subject".into())?.digest),
            None => None,
        };
        let texts = written.annotations.unwrap_or_default().into_iter();
        Ok(Manifest {
            media_type,
            blobs,
            optional,
            children,
            subject,
            artifact_type: written
                .artifact_type
                .filter(|t| !t.0.is_empty())
                .or(config_type)
                .map(|t| t.0),
            annotations: texts
                .map(|(name, text)| (name.0, text.map(|text| text.0).unwrap_or_default()))
                .collect(),
        })
    }
}

/// The annotation of artifacts that the mesh makes itself: which version made it.
pub const MADE_BY: &str = "dev.atoll.engine";

/// One entry of a referrers list, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referrer {
    /// The referring manifest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its artifact type.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests;
