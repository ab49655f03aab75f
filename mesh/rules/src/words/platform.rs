//! The platforms of an index's manifests (image-spec `image-index.md`).

use serde::Deserialize;

use crate::words::digest::Digest;

/// An index, reduced to its platforms.
#[derive(Clone, Debug, Deserialize)]
pub struct Index {
    /// The manifests that it lists.
    #[serde(default, deserialize_with = "listed")]
    pub manifests: Vec<Listed>,
}

/// Go writes an empty list as `null`.
fn listed<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Listed>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// One manifest of an index.
#[derive(Clone, Debug, Deserialize)]
pub struct Listed {
    /// Its digest.
    pub digest: Digest,
    /// Its platform; artifacts have none.
    pub platform: Option<Platform>,
}

/// The platform of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`.
    pub os: String,
    /// `amd64`, `arm64`: Go's names.
    pub architecture: String,
    /// `v8`.
    pub variant: Option<String>,
}

impl Index {
    /// Reads an index's bytes. The error is a sentence.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|e| format!("the index cannot be read: {e}"))
    }

    /// The manifest that a Linux machine of this architecture (Rust's name, `x86_64`) would pull;
    /// the first one if none is for it.
    pub fn chosen(&self, architecture: &str) -> Option<Digest> {
        let here = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let fits = |listed: &&Listed| {
            listed.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == here)
        };
        self.manifests.iter().find(fits).or(self.manifests.first()).map(|listed| listed.digest)
    }
}

impl Listed {
    /// Whether its platform is one of `wanted` (`os/architecture[/variant]`). If `wanted` is empty,
    /// every platform is.
    pub fn is_one_of(&self, wanted: &[String]) -> bool {
        let fits = |wanted: &String| {
            self.platform.as_ref().is_some_and(|p| {
                let mut parts = wanted.split('/');
                parts.next() == Some(p.os.as_str())
                    && parts.next() == Some(p.architecture.as_str())
                    && parts.next().is_none_or(|variant| p.variant.as_deref() == Some(variant))
            })
        };
        wanted.is_empty() || wanted.iter().any(fits)
    }

    /// Its platform as text for people.
    pub fn words(&self) -> String {
        self.platform
            .as_ref()
            .map_or_else(|| "none".into(), |p| format!("{}/{}", p.os, p.architecture))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let digest = Digest::sha256(b"");
        let other = Digest::sha256(b"x");
        let text = format!(
            r#"{{"manifests": [
                {{"digest": "{other}"}},
                {{"digest": "{digest}", "platform": {{"os": "linux", "architecture": "arm64", "variant": "v8"}}}}
            ]}}"#
        );
        Index::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_index_of_nothing_is_written_in_three_ways() {
        for text in ["{}", r#"{"manifests":null}"#, r#"{"manifests":[]}"#] {
            assert!(Index::read(text.as_bytes()).unwrap().manifests.is_empty(), "{text}");
        }
    }

    #[test]
    fn platforms_are_chosen_by_as_much_as_is_said_of_them() {
        let index = index();
        let (none, arm) = (&index.manifests[0], &index.manifests[1]);
        let wanted = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(arm.is_one_of(&wanted(&["linux/amd64", "linux/arm64"])));
        assert!(arm.is_one_of(&wanted(&["linux/arm64/v8"])));
        assert!(!arm.is_one_of(&wanted(&["linux/arm64/v7", "linux"])));
        assert!(arm.is_one_of(&[]) && none.is_one_of(&[]));
        assert!(
            !none.is_one_of(&wanted(&["linux/amd64"])),
            "what has no platform is no image of one"
        );
        assert_eq!((arm.words(), none.words()), ("linux/arm64".into(), "none".into()));
    }

    #[test]
    fn a_machine_takes_its_own_or_the_first() {
        let index = index();
        assert_eq!(index.chosen("aarch64"), Some(index.manifests[1].digest));
        assert_eq!(index.chosen("x86_64"), Some(index.manifests[0].digest));
        assert!(Index::read(b"{}").unwrap().chosen("x86_64").is_none());
        assert!(Index::read(b"[").is_err());
    }
}
