//! What trivy-db writes about packages (its `pkg/types/types.go`).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Go writes an empty list as `null` where it does not leave it out.
fn or_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Who a bucket's advisories are from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Source {
    /// `debian`, `ghsa`.
    #[serde(rename = "ID", default)]
    pub id: String,
    /// Whose severities count, where these are made from another source's advisories.
    #[serde(rename = "BaseID", default)]
    pub base: String,
    /// Its name.
    #[serde(rename = "Name", default)]
    pub name: String,
}

impl Source {
    /// Whose severities count.
    pub fn of_severities(&self) -> &str {
        if self.base.is_empty() { &self.id } else { &self.base }
    }
}

/// An advisory about a package, and where it stands.
#[derive(Clone, Debug)]
pub struct Found {
    /// The id: mostly a CVE.
    pub id: String,
    /// Who it is from.
    pub source: Source,
    /// What it says.
    pub advisory: Advisory,
}

/// What an advisory says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Advisory {
    /// Ids that others have for it.
    #[serde(rename = "VendorIDs", deserialize_with = "or_empty")]
    pub vendor_ids: Vec<String>,
    /// The first version without the fault, of a distribution's package. Empty: there is none.
    pub fixed_version: String,
    /// The first version with the fault, of Alpine's.
    pub affected_version: String,
    /// A severity for this package alone, as trivy-db's number.
    pub severity: u64,
    /// What is being done, as trivy-db's number.
    pub status: u64,
    /// The architectures that it is about.
    #[serde(deserialize_with = "or_empty")]
    pub arches: Vec<String>,
    /// Ranges with the fault, of a language's package.
    #[serde(deserialize_with = "or_empty")]
    pub vulnerable_versions: Vec<String>,
    /// Ranges without it, because it was mended.
    #[serde(deserialize_with = "or_empty")]
    pub patched_versions: Vec<String>,
    /// Ranges that never had it.
    #[serde(deserialize_with = "or_empty")]
    pub unaffected_versions: Vec<String>,
    /// More of them for one id, of Rocky and Oracle.
    #[serde(deserialize_with = "or_empty")]
    pub entries: Vec<Advisory>,
}

/// What Red Hat says of a package under one id.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RedHat {
    /// For each group of products.
    #[serde(deserialize_with = "or_empty")]
    pub entries: Vec<RedHatEntry>,
}

/// What Red Hat says of a package in some products.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RedHatEntry {
    /// The first version without the fault. Empty: there is none.
    pub fixed_version: String,
    /// The faults.
    #[serde(deserialize_with = "or_empty")]
    pub cves: Vec<RedHatCve>,
    /// The architectures that it is about; none means all.
    #[serde(deserialize_with = "or_empty")]
    pub arches: Vec<String>,
    /// The products, as numbers of CPEs.
    #[serde(deserialize_with = "or_empty")]
    pub affected: Vec<u64>,
    /// What is being done, as trivy-db's number.
    pub status: u64,
}

/// One fault in an advisory of Red Hat's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RedHatCve {
    /// Its CVE. Empty where the advisory's own id is one.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its severity there, as trivy-db's number.
    #[serde(rename = "Severity")]
    pub severity: u64,
}

/// What is known of an id.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Detail {
    /// One line.
    pub title: String,
    /// More than one line.
    pub description: String,
    /// The worst of all, in trivy-db's words: `HIGH`.
    pub severity: String,
    /// Kinds of weaknesses.
    #[serde(rename = "CweIDs", deserialize_with = "or_empty")]
    pub cwe_ids: Vec<String>,
    /// How bad each source says it is, as trivy-db's numbers.
    #[serde(deserialize_with = "or_empty")]
    pub vendor_severity: BTreeMap<String, u64>,
    /// Scores of each source.
    #[serde(rename = "CVSS", deserialize_with = "or_empty")]
    pub cvss: BTreeMap<String, Scores>,
    /// Pages about it.
    #[serde(deserialize_with = "or_empty")]
    pub references: Vec<String>,
}

/// Scores of one source.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Scores {
    /// The score of version 2.
    #[serde(rename = "V2Score")]
    pub v2: Option<f64>,
    /// The vector of version 2.
    #[serde(rename = "V2Vector")]
    pub v2_vector: String,
    /// The score of version 3.
    #[serde(rename = "V3Score")]
    pub v3: Option<f64>,
    /// The vector of version 3.
    #[serde(rename = "V3Vector")]
    pub v3_vector: String,
}
