//! An inventory as CycloneDX 1.6 and SPDX 2.3.

mod cyclonedx;
mod purl;
mod spdx;

use std::collections::BTreeMap;

use rules::words::digest::Digest;
use rules::words::moment::Timestamp;

pub use cyclonedx::cyclonedx;
pub use spdx::spdx;

use crate::layer::Inventory;
use crate::package::Package;

/// The media type of a CycloneDX document in JSON.
pub const CYCLONEDX: &str = "application/vnd.cyclonedx+json";

/// The media type of an SPDX document in JSON.
pub const SPDX: &str = "application/spdx+json";

/// What a document is about, and who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The image's repository, with its registry where that is known: `mesh.example/team/app`.
    pub repository: String,
    /// The image's digest.
    pub digest: Digest,
    /// When the document was made.
    pub at: Timestamp,
    /// The version of the program that made it.
    pub tool_version: String,
}

impl Subject {
    /// `pkg:oci/app@sha256:..?repository_url=..`
    fn purl(&self) -> String {
        let name = self.repository.rsplit('/').next().unwrap_or_default().to_lowercase();
        format!(
            "pkg:oci/{}@{}?repository_url={}",
            purl::encoded(&name),
            purl::encoded(&self.digest.to_string()),
            purl::encoded(&self.repository)
        )
    }

    /// A UUID of the document (RFC 9562, version 8): of what it is about, and when it was made.
    fn uuid(&self) -> String {
        let told = format!("{} {} {}", self.repository, self.digest, self.at.0);
        let hex = Digest::sha256(told.as_bytes()).to_string();
        let hex = hex.rsplit(':').next().unwrap_or_default();
        format!(
            "{}-{}-8{}-a{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[13..16],
            &hex[17..20],
            &hex[20..32]
        )
    }
}

/// The packages by their URLs: the same one in two places is one component. Each with its places.
fn components(inventory: &Inventory) -> BTreeMap<String, (&Package, Vec<&str>)> {
    let mut components: BTreeMap<String, (&Package, Vec<&str>)> = BTreeMap::new();
    for package in &inventory.packages {
        let url = purl::of(package, inventory.system.as_ref());
        let (_, places) = components.entry(url).or_insert_with(|| (package, Vec::new()));
        if !places.contains(&package.path.as_str()) {
            places.push(&package.path);
        }
    }
    components
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{Kind, System};

    fn subject() -> Subject {
        Subject {
            repository: "mesh.example/team/app".to_owned(),
            digest: Digest::sha256(b"x"),
            at: Timestamp(1_709_210_096_000),
            tool_version: "1.0.0".to_owned(),
        }
    }

    fn inventory() -> Inventory {
        let at = |path: &str| Package {
            path: path.to_owned(),
            licenses: vec!["MIT".to_owned()],
            ..Package::new(Kind::NodePkg, "@scope/lib", "1.0.0")
        };
        Inventory {
            format: Inventory::FORMAT,
            system: Some(System { family: "debian".to_owned(), release: "12.7".to_owned() }),
            repository: None,
            packages: vec![
                Package::new(Kind::Deb, "apt", "2.6.1"),
                at("a/package.json"),
                at("b/package.json"),
            ],
            builds: Vec::new(),
            gaps: Vec::new(),
        }
    }

    #[test]
    fn cyclonedx_lists_each_package_once() {
        let document = cyclonedx(&inventory(), &subject());
        assert_eq!(document, cyclonedx(&inventory(), &subject()));
        assert_eq!(document["specVersion"], "1.6");
        let components = document["components"].as_array().expect("components");
        let names: Vec<_> = components.iter().map(|one| one["name"].as_str()).collect();
        assert_eq!(names, [Some("debian"), Some("apt"), Some("lib")]);
        assert_eq!(components[2]["group"], "@scope");
        let places = components[2]["evidence"]["occurrences"].as_array().expect("places");
        assert_eq!(places.len(), 2);
        assert_eq!(document["metadata"]["timestamp"], "2024-02-29T12:34:56Z");
    }

    #[test]
    fn spdx_says_what_the_image_contains() {
        let document = spdx(&inventory(), &subject());
        assert_eq!(document["spdxVersion"], "SPDX-2.3");
        let packages = document["packages"].as_array().expect("packages");
        assert_eq!(packages.len(), 4);
        let ids: std::collections::BTreeSet<_> =
            packages.iter().map(|one| one["SPDXID"].as_str().expect("an id")).collect();
        assert_eq!(ids.len(), 4);
        for one in document["relationships"].as_array().expect("relationships") {
            let related = one["relatedSpdxElement"].as_str().expect("an id");
            assert!(ids.contains(related), "{related}");
        }
    }
}
