//! What a scanner is and can do.

use std::collections::BTreeMap;

use rules::words::moment::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{IMAGES, LEGACY_REPORT, REPORT, SBOM_REPORT, is_same_type};
use crate::database::about::timestamp;
use crate::sbom::{CYCLONEDX, SPDX};

/// When the scanner's database was made.
const UPDATED: &str = "harbor.scanner-adapter/vulnerability-database-updated-at";
/// When there will be a newer one.
const NEXT: &str = "harbor.scanner-adapter/vulnerability-database-next-update-at";
/// What it looks for.
const TYPE: &str = "harbor.scanner-adapter/scanner-type";
/// How it wants to sign in at the registry: `Basic` or `Bearer` (Harbor's `GetRegistryAuthorizationType`).
const SIGNS_IN: &str = "harbor.scanner-adapter/registry-authorization-type";

/// What a scanner calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScannerName {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Whose it is.
    #[serde(default)]
    pub vendor: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
}

impl ScannerName {
    /// The same with at most `most` bytes in each word.
    #[must_use]
    pub fn bounded(&self, most: usize) -> Self {
        let cut = |text: &str| {
            let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
            text[..end.unwrap_or(0)].to_owned()
        };
        ScannerName {
            name: cut(&self.name),
            vendor: cut(&self.vendor),
            version: cut(&self.version),
        }
    }
}

impl std::fmt::Display for ScannerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.name.is_empty() { "a scanner without a name" } else { &self.name };
        f.write_str(name)?;
        if self.version.is_empty() { Ok(()) } else { write!(f, " {}", self.version) }
    }
}

/// One thing that a scanner can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Capability {
    /// `vulnerability` or `sbom`; the former if it is missing.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default)]
    consumes_mime_types: Option<Vec<String>>,
    #[serde(default)]
    produces_mime_types: Option<Vec<String>>,
}

/// What a scanner says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Metadata {
    /// What it calls itself.
    pub scanner: ScannerName,
    #[serde(default)]
    capabilities: Option<Vec<Capability>>,
    #[serde(default)]
    properties: Option<BTreeMap<String, Value>>,
}

impl Metadata {
    /// Reads what a scanner has answered. The error is a sentence.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let read = serde_json::from_slice::<Metadata>(bytes);
        let metadata = read.map_err(|e| format!("its metadata cannot be read: {e}"))?;
        if metadata.report_type().is_none() {
            return Err("its metadata names no report that can be read here".into());
        }
        Ok(metadata)
    }

    /// As it was read, without what is not of this API.
    pub fn shown(&self) -> Value {
        json!({
            "scanner": self.scanner,
            "capabilities": self.capabilities,
            "properties": self.properties,
        })
    }

    fn looks_for_vulnerabilities(&self) -> impl Iterator<Item = &Capability> {
        let all = self.capabilities.iter().flatten();
        all.filter(|one| matches!(one.kind.as_deref(), None | Some("" | "vulnerability")))
    }

    /// The report to ask for: the newest that both know; `None` if there is none.
    pub fn report_type(&self) -> Option<&'static str> {
        [REPORT, LEGACY_REPORT].into_iter().find(|wanted| {
            let mut produced =
                self.looks_for_vulnerabilities().flat_map(|one| one.produces_mime_types.iter());
            produced.any(|kinds| kinds.iter().any(|kind| is_same_type(kind, wanted)))
        })
    }

    /// Whether it looks into manifests of this type.
    pub fn takes(&self, media_type: &str) -> bool {
        let mut consumed =
            self.looks_for_vulnerabilities().flat_map(|one| one.consumes_mime_types.iter());
        consumed.any(|kinds| kinds.iter().any(|kind| is_same_type(kind, media_type)))
    }

    /// Whether it can make SBOMs.
    pub fn makes_sboms(&self) -> bool {
        let mut all = self.capabilities.iter().flatten();
        all.any(|one| one.kind.as_deref() == Some("sbom"))
    }

    /// When its database was made, if it says so.
    pub fn database_updated(&self) -> Option<Timestamp> {
        timestamp(self.properties.as_ref()?.get(UPDATED)?.as_str()?)
    }

    /// Whether it wants a token to sign in with, and not a name and a password.
    pub fn wants_token(&self) -> bool {
        let properties = self.properties.as_ref();
        properties.and_then(|all| all.get(SIGNS_IN)).is_some_and(|way| way == "Bearer")
    }
}

/// What this engine says of itself, with the date of its database and of the next one.
pub fn of_this(scanner: &ScannerName, database: Option<(Timestamp, Timestamp)>) -> Value {
    let mut properties = BTreeMap::from([(TYPE, "os-package-vulnerability".to_owned())]);
    if let Some((updated, next)) = database {
        properties.insert(UPDATED, updated.to_string());
        properties.insert(NEXT, next.to_string());
    }
    json!({
        "scanner": scanner,
        "capabilities": [
            {
                "type": "vulnerability",
                "consumes_mime_types": IMAGES,
                "produces_mime_types": [REPORT, LEGACY_REPORT],
            },
            {
                "type": "sbom",
                "consumes_mime_types": IMAGES,
                "produces_mime_types": [SBOM_REPORT],
                "additional_attributes": {"sbom_media_types": [SPDX, CYCLONEDX]},
            },
        ],
        "properties": properties,
    })
}

/// What is said of a program that finds vulnerabilities, with the date of its database and of the next
/// one.
pub fn of_program(scanner: &ScannerName, database: Option<(Timestamp, Timestamp)>) -> Value {
    let mut said = of_this(scanner, database);
    if let Some(all) = said["capabilities"].as_array_mut() {
        all.retain(|one| one["type"] == "vulnerability");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_engine_says_of_itself_is_read_again() {
        let name =
            ScannerName { name: "Atoll".into(), vendor: "Atoll".into(), version: "1".into() };
        let dates = (Timestamp(1_709_210_096_000), Timestamp(1_709_310_096_000));
        let written = of_this(&name, Some(dates)).to_string();
        let read = Metadata::read(written.as_bytes()).unwrap();
        assert_eq!((&read.scanner, read.report_type()), (&name, Some(REPORT)));
        assert_eq!(read.database_updated(), Some(dates.0));
        assert!(read.takes(IMAGES[0]) && read.takes(IMAGES[1]) && read.makes_sboms());
        assert!(!read.takes("application/vnd.oci.image.index.v1+json") && !read.wants_token());
        assert_eq!(name.to_string(), "Atoll 1");
        let program = of_program(&name, None).to_string();
        let program = Metadata::read(program.as_bytes()).unwrap();
        assert!(program.takes(IMAGES[0]) && !program.makes_sboms());
        assert_eq!(program.database_updated(), None);
    }

    #[test]
    fn older_and_sloppier_scanners_are_read_too() {
        let read = |value: Value| Metadata::read(value.to_string().as_bytes());
        let old = read(json!({
            "scanner": {"name": "Clair"},
            "capabilities": [{
                "consumes_mime_types": ["application/vnd.oci.image.manifest.v1+json"],
                "produces_mime_types": [
                    "application/vnd.scanner.adapter.vuln.report.raw",
                    "application/vnd.scanner.adapter.vuln.report.harbor+json;version=1.0",
                ],
            }],
            "properties": {SIGNS_IN: "Bearer", "n": 7},
        }));
        let old = old.unwrap();
        assert_eq!((old.report_type(), old.wants_token()), (Some(LEGACY_REPORT), true));
        assert_eq!((old.database_updated(), old.makes_sboms()), (None, false));
        for wrong in [
            json!({}),
            json!({"scanner": {"name": "x"}}),
            json!({"scanner": {}, "capabilities": [{"type": "sbom", "produces_mime_types": [REPORT]}]}),
            json!({"scanner": {}, "capabilities": null, "properties": null}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
        let long = ScannerName { name: "é".repeat(100), ..ScannerName::default() };
        assert_eq!(long.bounded(5).name, "éé");
    }
}
