//! A manifest, as far as signatures are about it.

use std::collections::BTreeMap;

use rules::policies::signatures::MOST_SIGNATURES;
use rules::words::digest::Digest;
use serde::Deserialize;

/// The media type of a payload of cosign's simple signing.
pub(crate) const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The media type of a DSSE envelope.
pub(crate) const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
/// The media type of a Sigstore bundle, as it is written today.
pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The type of cosign 2's referrers.
pub(crate) const COSIGN_REFERRER: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// The type of notation's referrers.
pub(crate) const NOTATION: &str = "application/vnd.cncf.notary.signature";
/// The media type of a JSON web signature.
pub(crate) const JWS: &str = "application/jose+json";
/// The media type of a COSE signature.
pub(crate) const COSE: &str = "application/cose";
/// The annotation of a layer that is its signature.
pub(crate) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The media type of an image's manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an image's config.
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of a config without contents.
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The annotation of a bundle's manifest that says what it attests.
pub(crate) const PREDICATE: &str = "dev.sigstore.bundle.predicateType";

/// The maximum length of a payload of simple signing, in bytes.
pub(crate) const LARGEST_PAYLOAD: u64 = 64 << 10;
/// The maximum length of a bundle or of another envelope, in bytes.
pub(crate) const LARGEST_ENVELOPE: u64 = 1 << 20;

/// A manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Artifact {
    #[serde(default)]
    pub(crate) artifact_type: Option<String>,
    #[serde(default)]
    pub(crate) config: Option<Config>,
    #[serde(default)]
    pub(crate) layers: Option<Vec<Layer>>,
    #[serde(default)]
    pub(crate) subject: Option<Subject>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

/// A config.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) media_type: Option<String>,
}

/// What it is about.
#[derive(Deserialize)]
pub(crate) struct Subject {
    pub(crate) digest: Digest,
}

/// A layer.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Layer {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Artifact {
    /// Reads a manifest; `None` if it is no manifest of one.
    pub(crate) fn of(manifest: &[u8]) -> Option<Self> {
        serde_json::from_slice(manifest).ok()
    }

    /// Whether its artifact type, or else its config's media type, passes the test. Registries take
    /// the second for the first if there is none (distribution-spec "Pushing Manifests with
    /// Subject"); notation 1.3 writes only the second.
    pub(crate) fn is(&self, test: impl Fn(&str) -> bool) -> bool {
        let config = self.config.as_ref().and_then(|config| config.media_type.as_deref());
        self.artifact_type.as_deref().is_some_and(&test) || config.is_some_and(&test)
    }

    /// The layers whose media type passes the test, at most [`MOST_SIGNATURES`].
    pub(crate) fn layers(&self, test: impl Fn(&str) -> bool) -> impl Iterator<Item = &Layer> {
        let layers = self.layers.iter().flatten();
        layers.filter(move |layer| test(&layer.media_type)).take(MOST_SIGNATURES)
    }
}

impl Layer {
    /// An annotation.
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

/// Whether a media type is that of a Sigstore bundle, in its spelling of today or of before
/// (`protobuf-specs`, `sigstore_bundle.proto`: "mediaType").
pub(crate) fn is_bundle(media_type: &str) -> bool {
    let version = media_type
        .strip_prefix("application/vnd.dev.sigstore.bundle.v0.")
        .and_then(|rest| rest.strip_suffix("+json"))
        .or_else(|| media_type.strip_prefix("application/vnd.dev.sigstore.bundle+json;version=0."));
    version.is_some_and(|minor| {
        (1..=2).contains(&minor.len()) && minor.bytes().all(|b| b.is_ascii_digit())
    })
}
