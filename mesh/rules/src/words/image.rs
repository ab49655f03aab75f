//! What an image consists of: its configuration and its layers, in their order.

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

/// The parts of a manifest that is no index. They are read exactly as for the check of a push
/// ([`manifest`](super::manifest)), so that nothing passes there that cannot be seen here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The media type of the configuration; empty without one.
    pub config_type: String,
    /// The layers, the bottom one first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// Reads the parts of a manifest. An index has none. `None` if a part cannot be read: such a
    /// manifest is not accepted in a push.
    pub fn read(bytes: &[u8]) -> Option<Self> {
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

    /// Whether a container's runtime could run it, so that its vulnerabilities count. Its subject and
    /// its artifact type do not matter: runtimes do not look at them.
    pub fn is_scannable(&self) -> bool {
        // what buildx and cosign attest has the configuration of an image
        let attests = !self.layers.is_empty()
            && self.layers.iter().all(|layer| ATTESTS.contains(&layer.media_type.as_str()));
        let of_image = |layer: &Layer| {
            layer.media_type.starts_with("application/vnd.oci.image.layer.")
                || layer.media_type.starts_with("application/vnd.docker.image.rootfs.")
        };
        let config = CONFIGS.contains(&self.config_type.as_str());
        (config && !attests) || self.layers.iter().any(of_image)
    }
}

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
/// The configurations of images.
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(config: &str, layers: &[&str]) -> Image {
        let digest = Digest::sha256(b"x").to_string();
        let of = |kind: &str| json!({"mediaType": kind, "digest": digest, "size": 3});
        let layers: Vec<_> = layers.iter().map(|kind| of(kind)).collect();
        let written = json!({"schemaVersion": 2, "config": of(config), "layers": layers});
        Image::read(written.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_a_runtime_could_run_is_scannable_and_what_is_about_it_is_not() {
        let oci = "application/vnd.oci.image.config.v1+json";
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        for (config, layers, expected) in [
            (oci, &[gzip][..], true),
            (oci, &[], true),
            // another configuration hides no layers from a scan
            ("application/x", &[gzip], true),
            ("application/x", &["application/vnd.docker.image.rootfs.diff.tar.gzip"], true),
            (oci, &[ATTESTS[0], ATTESTS[0]], false),
            (oci, &[ATTESTS[0], gzip], true),
            (oci, &[ATTESTS[1]], false),
            (oci, &["application/x"], true),
            (
                "application/vnd.cncf.helm.config.v1+json",
                &["application/vnd.cncf.helm.chart.content.v1.tar+gzip"],
                false,
            ),
            ("application/vnd.oci.empty.v1+json", &["text/spdx"], false),
        ] {
            assert_eq!(image(config, layers).is_scannable(), expected, "{config} {layers:?}");
        }
    }

    #[test]
    fn of_a_field_that_is_written_twice_the_last_counts_as_for_a_push() {
        let layer = format!(
            r#"[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":1}}]"#,
            Digest::sha256(b"x")
        );
        let written = format!(r#"{{"schemaVersion":2,"layers":[],"layers":{layer}}}"#);
        assert!(Image::read(written.as_bytes()).unwrap().is_scannable());
        assert_eq!(Image::read(br#"{"schemaVersion":2,"manifests":[]}"#), Some(Image::default()));
        assert_eq!(Image::read(b"["), None);
    }
}
