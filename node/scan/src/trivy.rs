//! Reports of the program trivy, as `trivy image --format json` writes them (schema 2).

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::adapter::report::{
    LONGEST_ID, LONGEST_TEXT, LONGEST_WORD, MOST_FINDINGS, MOST_LINKS, severity, short, status,
};
use crate::package::Kind;
use crate::report::{Cvss, Finding};

/// The one form of report that is read.
const SCHEMA: u64 = 2;

/// What trivy has reported of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct TrivyReport {
    /// Why it knows too little, if that is so.
    pub insufficient: Option<String>,
    /// What it has found.
    pub findings: Vec<Finding>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    schema_version: u64,
    #[serde(default)]
    metadata: Option<About>,
    #[serde(default)]
    results: Option<Results>,
}

#[derive(Deserialize)]
struct About {
    #[serde(rename = "OS", default)]
    system: Option<System>,
}

#[derive(Deserialize)]
struct System {
    #[serde(rename = "Family", default)]
    family: String,
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "EOSL", default)]
    ended: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OneResult {
    #[serde(default)]
    class: String,
    #[serde(default)]
    target: String,
    #[serde(default)]
    vulnerabilities: Option<Each<Finding>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WrittenFinding {
    #[serde(rename = "VulnerabilityID")]
    id: String,
    #[serde(rename = "VendorIDs", default)]
    vendor_ids: Option<Each<String>>,
    #[serde(default)]
    pkg_name: String,
    #[serde(default)]
    pkg_path: String,
    #[serde(default)]
    installed_version: String,
    #[serde(default)]
    fixed_version: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    severity_source: String,
    #[serde(default)]
    severity: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    description: String,
    #[serde(rename = "PrimaryURL", default)]
    url: String,
    #[serde(default)]
    references: Option<Each<String>>,
    #[serde(rename = "CweIDs", default)]
    cwe_ids: Option<Each<String>>,
    #[serde(rename = "CVSS", default)]
    cvss: Option<BySource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Scores {
    #[serde(default)]
    v2_score: Option<f64>,
    #[serde(default)]
    v2_vector: String,
    #[serde(default)]
    v3_score: Option<f64>,
    #[serde(default)]
    v3_vector: String,
}

/// What becomes of each entry of a list while it is read, so that no more is in memory than is kept.
trait Kept: Sized {
    /// What it is read as.
    type Read: for<'de> Deserialize<'de>;
    /// The maximum number of entries.
    const MOST: usize;
    /// Whether more are an error; else they are left out.
    const STRICT: bool;
    fn keep(read: Self::Read) -> Result<Self, String>;
}

impl Kept for String {
    type Read = String;
    const MOST: usize = MOST_LINKS;
    const STRICT: bool = false;
    fn keep(read: String) -> Result<String, String> {
        Ok(short(read, LONGEST_WORD))
    }
}

impl Kept for Finding {
    type Read = WrittenFinding;
    const MOST: usize = MOST_FINDINGS;
    const STRICT: bool = true;
    fn keep(read: WrittenFinding) -> Result<Finding, String> {
        finding(read)
    }
}

/// A list of which no more is read than is kept.
struct Each<T>(Vec<T>);

impl<'de, T: Kept> Deserialize<'de> for Each<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit<T>(PhantomData<T>);
        impl<'de, T: Kept> Visitor<'de> for Visit<T> {
            type Value = Each<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Each<T>, A::Error> {
                let mut all = Vec::new();
                while all.len() < T::MOST {
                    let Some(one) = list.next_element::<T::Read>()? else {
                        return Ok(Each(all));
                    };
                    all.push(T::keep(one).map_err(A::Error::custom)?);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    if T::STRICT {
                        return Err(A::Error::custom(format!("more than {} entries", T::MOST)));
                    }
                }
                Ok(Each(all))
            }
        }
        deserializer.deserialize_seq(Visit(PhantomData))
    }
}

/// The scores of a finding by who says them, at most [`MOST_LINKS`] of them.
#[derive(Default)]
struct BySource(BTreeMap<String, Scores>);

impl<'de> Deserialize<'de> for BySource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = BySource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("scores by their sources")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BySource, A::Error> {
                let mut all = BTreeMap::new();
                while all.len() < MOST_LINKS {
                    let Some((source, scores)) = map.next_entry::<String, Scores>()? else {
                        return Ok(BySource(all));
                    };
                    all.insert(source, scores);
                }
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(BySource(all))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// What all results say together.
#[derive(Default)]
struct Results {
    findings: Vec<Finding>,
    /// Whether packages of a distribution were judged, and others.
    system: bool,
    languages: bool,
}

impl<'de> Deserialize<'de> for Results {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Results;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of results")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Results, A::Error> {
                let mut all = Results::default();
                while let Some(one) = list.next_element::<OneResult>()? {
                    all.system |= one.class == "os-pkgs";
                    all.languages |= one.class == "lang-pkgs";
                    let mut found = one.vulnerabilities.map(|each| each.0).unwrap_or_default();
                    for finding in &mut found {
                        // what an archive of packages has is said of the archive
                        if finding.path.is_empty() && one.class == "lang-pkgs" {
                            finding.path = short(one.target.clone(), LONGEST_WORD);
                        }
                    }
                    all.findings.append(&mut found);
                    if all.findings.len() > MOST_FINDINGS {
                        let most = format!("more than {MOST_FINDINGS} vulnerabilities");
                        return Err(A::Error::custom(most));
                    }
                }
                Ok(all)
            }
        }
        deserializer.deserialize_seq(Visit)
    }
}

fn finding(written: WrittenFinding) -> Result<Finding, String> {
    let id = written.id.trim().to_owned();
    if id.is_empty() || id.len() > LONGEST_ID {
        return Err(format!("the id of a vulnerability has 1 to {LONGEST_ID} bytes"));
    }
    let word = |text: String| short(text, LONGEST_WORD);
    let mut links = written.references.map(|each| each.0).unwrap_or_default();
    if !written.url.is_empty() {
        let url = word(written.url);
        links.retain(|link| *link != url);
        links.insert(0, url);
        links.truncate(MOST_LINKS);
    }
    let mut scores = written.cvss.unwrap_or_default().0;
    let preferred = scores.remove(&written.severity_source).or_else(|| scores.remove("nvd"));
    let preferred = preferred.or_else(|| scores.into_values().next());
    let cvss = preferred.and_then(|one| {
        let score = |score: Option<f64>| score.filter(|score| (0.0..=10.0).contains(score));
        let cvss = Cvss {
            v3_score: score(one.v3_score),
            v3_vector: word(one.v3_vector),
            v2_score: score(one.v2_score),
            v2_vector: word(one.v2_vector),
        };
        (cvss != Cvss::default()).then_some(cvss)
    });
    Ok(Finding {
        id,
        aliases: written.vendor_ids.map(|each| each.0).unwrap_or_default(),
        package: word(written.pkg_name),
        source: None,
        installed: word(written.installed_version),
        fixed: Some(word(written.fixed_version)).filter(|fixed| !fixed.is_empty()),
        severity: severity(&written.severity),
        severity_source: word(written.severity_source),
        status: status(&written.status),
        title: word(written.title),
        description: short(written.description, LONGEST_TEXT),
        links,
        cvss,
        cwe_ids: written.cwe_ids.map(|each| each.0).unwrap_or_default(),
        kind: Kind::Other,
        path: word(written.pkg_path),
        layer: 0,
    })
}

/// Reads a report. The error is a sentence.
///
/// It never calls an image clean of which trivy could not judge all: `insufficient` says what is
/// missing, as for the engine that is built in.
pub fn read(bytes: &[u8]) -> Result<TrivyReport, String> {
    let read = serde_json::from_slice::<Written>(bytes);
    let written = read.map_err(|e| format!("its report cannot be read: {e}"))?;
    if written.schema_version != SCHEMA {
        let version = written.schema_version;
        return Err(format!("its report has the schema {version}, and {SCHEMA} is read here"));
    }
    let results = written.results.unwrap_or_default();
    let system = written.metadata.and_then(|about| about.system);
    let insufficient = match &system {
        Some(System { family, name, ended: true }) => {
            Some(format!("{family} {name} has ended: nobody looks for its faults any more"))
        }
        Some(System { family, name, .. }) if !results.system => {
            Some(format!("it is {family} {name}, of which trivy has judged no packages"))
        }
        None if results.system => {
            Some("it has packages of a distribution, and no file in it says of which".to_owned())
        }
        None if !results.languages => Some("no packages were found in it".to_owned()),
        _ => None,
    };
    let insufficient = insufficient.map(|why| short(why, LONGEST_WORD));
    Ok(TrivyReport { insufficient, findings: results.findings })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::report::{Severity, Status};

    fn read_value(value: &Value) -> Result<TrivyReport, String> {
        read(value.to_string().as_bytes())
    }

    fn report(system: &Value, results: &Value) -> Value {
        json!({"SchemaVersion": 2, "Metadata": {"OS": system}, "Results": results})
    }

    #[test]
    fn what_trivy_writes_is_read() {
        let one = json!({
            "VulnerabilityID": "CVE-2024-5535",
            "VendorIDs": ["DSA-1"],
            "PkgName": "libssl3",
            "InstalledVersion": "3.0.11-1",
            "FixedVersion": "3.0.14-1",
            "Status": "fixed",
            "SeveritySource": "debian",
            "PrimaryURL": "https://first.example",
            "Severity": "HIGH",
            "Title": "a title",
            "Description": "a text",
            "References": ["https://second.example", "https://first.example"],
            "CweIDs": ["CWE-125"],
            "CVSS": {"nvd": {"V3Score": 9.1, "V3Vector": "CVSS:3.1/AV:N"}},
            "Layer": {"Digest": "sha256:1"},
            "PkgIdentifier": {"PURL": "pkg:deb/debian/libssl3"},
        });
        let other =
            json!({"VulnerabilityID": "GHSA-1", "PkgName": "lodash", "Severity": "UNKNOWN"});
        let system = json!({"Family": "debian", "Name": "12.5"});
        let results = json!([
            {"Target": "x (debian 12.5)", "Class": "os-pkgs", "Vulnerabilities": [one]},
            {"Target": "app/package.json", "Class": "lang-pkgs", "Vulnerabilities": [other]},
        ]);
        let read = read_value(&report(&system, &results)).unwrap();
        assert_eq!((read.insufficient, read.findings.len()), (None, 2));
        let [system, language] = &read.findings[..] else { panic!("two") };
        assert_eq!(
            (system.id.as_str(), system.aliases.as_slice()),
            ("CVE-2024-5535", &["DSA-1".into()][..])
        );
        assert_eq!((system.severity, system.status), (Severity::High, Status::Fixed));
        assert_eq!(system.links, ["https://first.example", "https://second.example"]);
        assert_eq!(system.cvss.as_ref().unwrap().v3_score, Some(9.1));
        assert_eq!(system.fixed.as_deref(), Some("3.0.14-1"));
        assert_eq!((language.severity, language.fixed.as_deref()), (Severity::Unknown, None));
        assert_eq!(language.path, "app/package.json");
    }

    #[test]
    fn an_image_of_which_too_little_is_known_is_not_clean() {
        let debian = json!({"Family": "debian", "Name": "12.5"});
        let os = json!([{"Class": "os-pkgs", "Target": "x"}]);
        let why = |system: &Value, results: &Value| {
            read_value(&report(system, results)).unwrap().insufficient
        };
        assert_eq!(why(&debian, &os), None);
        assert_eq!(why(&Value::Null, &json!([{"Class": "lang-pkgs"}])), None);
        let ended = json!({"Family": "debian", "Name": "10", "EOSL": true});
        assert!(why(&ended, &os).unwrap().contains("debian 10 has ended"));
        assert!(why(&debian, &Value::Null).unwrap().contains("no packages"));
        assert!(why(&Value::Null, &os).unwrap().contains("no file in it says of which"));
        assert!(why(&Value::Null, &json!([])).unwrap().contains("no packages were found"));
    }

    #[test]
    fn what_is_no_report_or_too_much_says_nothing() {
        for wrong in [
            json!({}),
            json!([]),
            json!({"SchemaVersion": 1}),
            json!({"SchemaVersion": 3, "Results": []}),
            report(&Value::Null, &json!([{"Vulnerabilities": [{"VulnerabilityID": ""}]}])),
            report(&Value::Null, &json!([{"Vulnerabilities": [{}]}])),
        ] {
            assert!(read_value(&wrong).is_err(), "{wrong}");
        }
        let many = |count| vec![json!({"VulnerabilityID": "CVE-2024-0001"}); count];
        let one = report(&Value::Null, &json!([{"Vulnerabilities": many(MOST_FINDINGS + 1)}]));
        assert!(read_value(&one).unwrap_err().contains("more than 50000"));
        let two = json!([{"Vulnerabilities": many(40_000)}, {"Vulnerabilities": many(20_000)}]);
        assert!(read_value(&report(&Value::Null, &two)).unwrap_err().contains("more than 50000"));
        let long = json!([{"Vulnerabilities": [{
            "VulnerabilityID": "CVE-2024-0001",
            "Severity": "Defcon1",
            "Description": "é".repeat(9000),
            "References": vec!["l".repeat(9000); 100],
        }]}]);
        let finding = read_value(&report(&Value::Null, &long)).unwrap().findings.remove(0);
        assert_eq!(finding.severity, Severity::Critical, "a strange word is the worst");
        assert_eq!((finding.description.len(), finding.links.len()), (8192, 10));
        assert_eq!(finding.links[0].len(), 512);
    }
}
