//! What an image consists of: its configuration and its layers, in their order; and whether a
//! container's runtime could run it.
//!
//! Runtimes read manifests more loosely than a registry: in Go a key counts in any case, and of a key
//! that is written twice parts of both values may. What they could read in another way is no image
//! that can be looked into, and nothing else either.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::digest::Digest;
use super::manifest::ManifestJson;

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its digest.
    pub digest: Digest,
    /// Its compressed size in bytes, as the manifest says.
    pub size: u64,
    /// Its media type, as it was written.
    pub media_type: String,
}

/// The parts of a manifest that is no index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The media type of the configuration; empty without one.
    pub config_type: String,
    /// The layers, the bottom one first.
    pub layers: Vec<Layer>,
}

/// What a manifest is to a container's runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runnable {
    /// An image, or something that a runtime could take for one.
    Image(Image),
    /// Not known: runtimes may read it in another way.
    Ambiguous,
    /// Something that no runtime runs: an index, a chart, a signature.
    Nothing,
}

impl Image {
    /// What the bytes of a manifest are to a runtime.
    pub fn read(bytes: &[u8]) -> Runnable {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        if (Keys { of_people: false }).deserialize(&mut json).is_err() {
            return Runnable::Ambiguous;
        }
        let Some(image) = Self::parts(bytes) else { return Runnable::Ambiguous };
        match image.is_runnable() {
            true => Runnable::Image(image),
            false => Runnable::Nothing,
        }
    }

    /// The parts, read exactly as for the check of a push ([`manifest`](super::manifest)).
    pub fn parts(bytes: &[u8]) -> Option<Self> {
        let written: ManifestJson = serde_json::from_slice(bytes).ok()?;
        let layers = written.layers.unwrap_or_default();
        let layers = layers.iter().map(|layer| {
            let blob = layer.reference(String::new).ok()?;
            let (digest, size, media_type) = (blob.digest, blob.size, layer.kind().to_owned());
            Some(Layer { digest, size, media_type })
        });
        let config_type = written.config.map_or_else(String::new, |c| c.kind().to_owned());
        Some(Image { config_type, layers: layers.collect::<Option<_>>()? })
    }

    /// Whether a runtime could run it. Its subject and its artifact type do not matter: runtimes do
    /// not look at them, and docker does not look at the types of layers either.
    fn is_runnable(&self) -> bool {
        if self.config_type.is_empty() && self.layers.is_empty() {
            // an index, or nothing
            return false;
        }
        let of_image = |layer: &Layer| {
            let kind = layer.media_type.to_ascii_lowercase();
            kind.contains(".image.") || CONFIGS.contains(&kind.as_str())
        };
        let config = self.has_image_config();
        let small =
            self.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add) <= SMALL;
        (config && !(self.attests() && small)) || self.layers.iter().any(of_image)
    }

    /// Whether docker takes its configuration for that of an image. To docker all it has are layers
    /// then, whatever their types say.
    pub fn has_image_config(&self) -> bool {
        let config = self.config_type.to_ascii_lowercase();
        CONFIGS.contains(&config.trim()) || config.contains(".image.")
    }

    /// Whether it says that all it has are signatures, attestations or SBOMs by buildx and cosign,
    /// which have the configuration of an image. To docker they are layers.
    pub fn attests(&self) -> bool {
        let attests = |layer: &Layer| ATTESTS.contains(&layer.media_type.as_str());
        !self.layers.is_empty() && self.layers.iter().all(attests)
    }
}

/// The maximum number of bytes of attestations that pass without a look into them. No package of a
/// distribution is so small together with what it runs on.
const SMALL: u64 = 64 << 10;
/// The layers of attestations and signatures by buildx and cosign, and of cosign's SBOMs.
const ATTESTS: [&str; 8] = [
    "application/vnd.in-toto+json",
    "application/vnd.dev.cosign.simplesigning.v1+json",
    "application/vnd.dsse.envelope.v1+json",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.cyclonedx+json",
    "application/vnd.cyclonedx+xml",
    "application/spdx+json",
    "text/spdx",
];
/// The configurations that docker takes for those of images (moby's `distribution/registry.go`).
const CONFIGS: [&str; 7] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
    "application/json",
    "text/html",
    "text/plain",
    "",
];
/// The keys that runtimes read.
const KEYS: [&str; 12] = [
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "subject",
    "artifactType",
    "annotations",
    "digest",
    "size",
    "platform",
    "fsLayers",
];

/// As Go's `encoding/json` compares keys: without case, and with the two letters that become `s` and
/// `k` (`foldFunc`).
fn folded(key: &str) -> String {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).collect()
}

/// Reads a document and fails if a key is there twice, or is a known one in another case. The contents
/// of annotations are people's.
#[derive(Clone, Copy)]
struct Keys {
    of_people: bool,
}

impl<'de> DeserializeSeed<'de> for Keys {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.of_people {
            true => deserializer.deserialize_any(IgnoredAny).map(drop),
            false => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Keys {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest that every client reads in one way")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let plain = folded(&key);
            let other = KEYS.iter().any(|known| folded(known) == plain && *known != key);
            if other || !seen.insert(plain) {
                return Err(serde::de::Error::custom("a key that is read in several ways"));
            }
            map.next_value_seed(Keys { of_people: key == "annotations" })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const OCI: &str = "application/vnd.oci.image.config.v1+json";
    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn read(config: &str, layers: &[&str], size: u64) -> Runnable {
        let digest = Digest::sha256(b"x").to_string();
        let of = |kind: &str| json!({"mediaType": kind, "digest": digest, "size": size});
        let layers: Vec<_> = layers.iter().map(|kind| of(kind)).collect();
        let written = json!({"schemaVersion": 2, "config": of(config), "layers": layers});
        Image::read(written.to_string().as_bytes())
    }

    #[test]
    fn what_a_runtime_could_run_is_an_image_and_what_is_about_it_is_none() {
        for (config, layers, expected) in [
            (OCI, &[GZIP][..], true),
            (OCI, &[], true),
            // another configuration hides no layers
            ("application/x", &[GZIP], true),
            ("application/x", &["application/vnd.docker.image.rootfs.diff.tar.gzip"], true),
            ("application/x", &["application/vnd.docker.container.image.v1+json"], true),
            // what docker takes for an image, whatever its layers are called
            ("application/octet-stream", &["application/x"], true),
            ("application/json", &["text/spdx"], false),
            ("", &["application/x"], true),
            (OCI, &["application/x"], true),
            (OCI, &[ATTESTS[0], ATTESTS[0]], false),
            (OCI, &[ATTESTS[0], GZIP], true),
            (OCI, &[ATTESTS[1]], false),
            (
                "application/vnd.cncf.helm.config.v1+json",
                &["application/vnd.cncf.helm.chart.content.v1.tar+gzip"],
                false,
            ),
            ("application/vnd.oci.empty.v1+json", &["text/spdx"], false),
        ] {
            let found = read(config, layers, 3);
            assert_eq!(matches!(found, Runnable::Image(_)), expected, "{config} {layers:?}");
            assert_eq!(found == Runnable::Nothing, !expected, "{config} {layers:?}");
        }
        // docker does not look at the types of layers
        assert!(matches!(read(OCI, &[ATTESTS[7]], SMALL + 1), Runnable::Image(_)));
        assert_eq!(Image::read(br#"{"schemaVersion":2,"manifests":[]}"#), Runnable::Nothing);
    }

    #[test]
    fn what_runtimes_read_in_several_ways_is_no_image_and_nothing_else() {
        let digest = Digest::sha256(b"x");
        let layers = format!(r#"[{{"mediaType":"{GZIP}","digest":"{digest}","size":1}}]"#);
        let plain = r#""schemaVersion":2,"config":{"mediaType":"application/x"}"#;
        for more in [
            format!(r#""layers":[],"Layers":{layers}"#),
            format!(r#""layers":[],"layer\u017f":{layers}"#),
            format!(r#""layers":[],"layers":{layers}"#),
            format!(r#""LAYERS":{layers}"#),
            r#""layers":[{"mediaType":"a","MediaType":"b"}]"#.to_owned(),
            r#""config":{"mediaType":"b"}"#.to_owned(),
        ] {
            let written = format!("{{{plain},{more}}}");
            assert_eq!(Image::read(written.as_bytes()), Runnable::Ambiguous, "{written}");
        }
        assert_eq!(Image::read(b"["), Runnable::Ambiguous);
        // people's own keys may be anything
        let own =
            format!(r#"{{{plain},"annotations":{{"Config":"a","config":"b"}},"layers":{layers}}}"#);
        assert!(matches!(Image::read(own.as_bytes()), Runnable::Image(_)));
    }
}
