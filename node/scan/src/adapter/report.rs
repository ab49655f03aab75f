//! Reports: as this engine writes them, and as others write them.

use std::fmt;

use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use super::metadata::ScannerName;
use super::request::Artifact;
use crate::database::about::timestamp;
use crate::package::Kind;
use crate::report::{Cvss, Finding, Severity, Status};

/// The maximum number of findings in a report of another scanner.
pub const MOST_FINDINGS: usize = 50_000;
/// The maximum number of links and of kinds of weaknesses that are kept of one finding.
pub(crate) const MOST_LINKS: usize = 10;
/// The maximum length of an id in bytes: allowlists have none that is longer.
pub(crate) const LONGEST_ID: usize = 128;
/// The maximum length of a name, a version and a link that is kept, in bytes.
pub(crate) const LONGEST_WORD: usize = 512;
/// The maximum length of a description that is kept, in bytes.
pub(crate) const LONGEST_TEXT: usize = 8 << 10;

/// A finding as reports write it.
pub fn vulnerability(finding: &Finding) -> Value {
    let mut cvss = Map::new();
    if let Some(scores) = &finding.cvss {
        cvss.insert("score_v3".into(), scores.v3_score.into());
        cvss.insert("vector_v3".into(), scores.v3_vector.clone().into());
        cvss.insert("score_v2".into(), scores.v2_score.into());
        cvss.insert("vector_v2".into(), scores.v2_vector.clone().into());
    }
    let text = if finding.description.is_empty() { &finding.title } else { &finding.description };
    json!({
        "id": finding.id,
        "package": finding.package,
        "version": finding.installed,
        "fix_version": finding.fixed.clone().unwrap_or_default(),
        "severity": finding.severity.word(),
        "status": finding.status.name(),
        "description": text,
        "links": finding.links,
        "preferred_cvss": cvss,
        "cwe_ids": finding.cwe_ids,
        "vendor_attributes": {
            "title": finding.title,
            "severity_source": finding.severity_source,
            "path": finding.path,
            "kind": finding.kind.name(),
        },
    })
}

/// The word for the worst of these findings, as reports write it.
pub fn worst(findings: &[Finding]) -> &'static str {
    findings.iter().map(|finding| finding.severity).max().map_or("None", Severity::word)
}

/// A report of this engine about an artifact.
pub fn written(
    scanner: &ScannerName,
    artifact: &Artifact,
    findings: &[Finding],
    insufficient: Option<&str>,
    at: Timestamp,
) -> Value {
    json!({
        "generated_at": at.to_string(),
        "artifact": artifact,
        "scanner": scanner,
        "severity": worst(findings),
        "insufficient": insufficient,
        "vulnerabilities": findings.iter().map(vulnerability).collect::<Vec<_>>(),
    })
}

/// What another scanner has reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    /// When it made the report, if it says so.
    pub at: Option<Timestamp>,
    /// What it calls itself in the report, if it does.
    pub scanner: Option<ScannerName>,
    /// Why it knows too little, as this engine says it when it is the other scanner.
    pub insufficient: Option<String>,
    /// What it has found.
    pub findings: Vec<Finding>,
}

#[derive(serde::Deserialize)]
struct Written {
    #[serde(default)]
    generated_at: Option<String>,
    #[serde(default)]
    artifact: Option<About>,
    #[serde(default)]
    scanner: Option<ScannerName>,
    #[serde(default)]
    insufficient: Option<String>,
    /// It must be there: another answer than a report says nothing of the image.
    #[serde(deserialize_with = "Deserialize::deserialize")]
    vulnerabilities: Option<Findings>,
}

#[derive(serde::Deserialize)]
struct About {
    #[serde(default)]
    digest: String,
}

#[derive(serde::Deserialize)]
struct WrittenFinding {
    id: String,
    #[serde(default)]
    package: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    fix_version: Option<String>,
    #[serde(default)]
    severity: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    links: Option<Vec<String>>,
    #[serde(default)]
    preferred_cvss: Option<WrittenCvss>,
    #[serde(default)]
    cwe_ids: Option<Vec<String>>,
}

#[derive(serde::Deserialize)]
struct WrittenCvss {
    #[serde(default)]
    score_v3: Option<f64>,
    #[serde(default)]
    score_v2: Option<f64>,
    #[serde(default)]
    vector_v3: Option<String>,
    #[serde(default)]
    vector_v2: Option<String>,
}

/// The findings, each shortened as it comes, so that a report holds no more than was sent.
struct Findings(Vec<Finding>);

impl<'de> Deserialize<'de> for Findings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Findings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of vulnerabilities")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Findings, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element::<WrittenFinding>()? {
                    if all.len() >= MOST_FINDINGS {
                        let most = format!("more than {MOST_FINDINGS} vulnerabilities");
                        return Err(A::Error::custom(most));
                    }
                    all.push(finding(one).map_err(A::Error::custom)?);
                }
                Ok(Findings(all))
            }
        }
        deserializer.deserialize_seq(Each)
    }
}

fn finding(written: WrittenFinding) -> Result<Finding, String> {
    let id = written.id.trim().to_owned();
    if id.is_empty() || id.len() > LONGEST_ID {
        return Err(format!("the id of a vulnerability has 1 to {LONGEST_ID} bytes"));
    }
    let word = |text: Option<String>| short(text.unwrap_or_default(), LONGEST_WORD);
    let few = |list: Option<Vec<String>>| {
        let some = list.unwrap_or_default().into_iter().take(MOST_LINKS);
        some.map(|one| short(one, LONGEST_WORD)).collect::<Vec<_>>()
    };
    let cvss = written.preferred_cvss.and_then(|one| {
        let score = |score: Option<f64>| score.filter(|score| (0.0..=10.0).contains(score));
        let cvss = Cvss {
            v3_score: score(one.score_v3),
            v3_vector: word(one.vector_v3),
            v2_score: score(one.score_v2),
            v2_vector: word(one.vector_v2),
        };
        (cvss != Cvss::default()).then_some(cvss)
    });
    Ok(Finding {
        id,
        aliases: Vec::new(),
        package: word(written.package),
        source: None,
        installed: word(written.version),
        fixed: Some(word(written.fix_version)).filter(|fixed| !fixed.is_empty()),
        severity: severity(written.severity.as_deref().unwrap_or_default()),
        severity_source: String::new(),
        status: status(written.status.as_deref().unwrap_or_default()),
        title: String::new(),
        description: short(written.description.unwrap_or_default(), LONGEST_TEXT),
        links: few(written.links),
        cvss,
        cwe_ids: few(written.cwe_ids),
        kind: Kind::Other,
        path: String::new(),
        layer: 0,
    })
}

/// The severity with this word. One that is in no list of severities is the worst: Harbor refuses it
/// under each threshold (`src/pkg/scan/vuln/severity.go`).
pub(crate) fn severity(word: &str) -> Severity {
    match word.trim() {
        "" => Severity::Unknown,
        word => Severity::named(word).unwrap_or(Severity::Critical),
    }
}

pub(crate) fn status(word: &str) -> Status {
    let word = word.trim().to_ascii_lowercase();
    (0..=7).map(Status::of_number).find(|status| status.name() == word).unwrap_or_default()
}

/// The beginning of a text.
pub(crate) fn short(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
    }
    text
}

/// Reads the report of another scanner about `digest`, in either of the two forms. The error is a
/// sentence.
pub fn read(bytes: &[u8], digest: &Digest) -> Result<Reported, String> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err("its report is no JSON object".into());
    }
    let read = serde_json::from_slice::<Written>(bytes);
    let written = read.map_err(|e| format!("its report cannot be read: {e}"))?;
    let about = written.artifact.map(|about| about.digest).unwrap_or_default();
    if !about.is_empty() && about.parse::<Digest>().as_ref() != Ok(digest) {
        return Err("its report is about another artifact".into());
    }
    Ok(Reported {
        at: written.generated_at.as_deref().and_then(timestamp),
        scanner: written.scanner.map(|name| name.bounded(LONGEST_ID)),
        insufficient: written.insufficient.map(|why| short(why, LONGEST_WORD)),
        findings: written.vulnerabilities.map(|all| all.0).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_report_says_nothing() {
        for other in [json!({}), json!({"error": {"message": "no"}}), json!([]), json!([null])] {
            assert!(read_value(&other).is_err(), "{other}");
        }
    }

    fn read_value(value: &Value) -> Result<Reported, String> {
        read(value.to_string().as_bytes(), &Digest::sha256(b"image"))
    }

    #[test]
    fn what_this_engine_writes_it_reads_again() {
        let one = json!({
            "id": "CVE-2024-0001",
            "package": "openssl",
            "version": "3.0.11",
            "fix_version": "3.0.14",
            "severity": "High",
            "status": "fixed",
            "description": "It has a fault.",
            "links": ["https://example.org"],
            "preferred_cvss": {"score_v3": 9.8, "vector_v3": "CVSS:3.1/AV:N"},
            "cwe_ids": ["CWE-79"],
            "vendor_attributes": {"anything": [1, {"a": 2}]},
        });
        let report = read_value(&json!({
            "generated_at": "2026-08-13T06:15:54.123456789Z",
            "artifact": {"digest": Digest::sha256(b"image").to_string()},
            "scanner": {"name": "Trivy", "vendor": "Aqua", "version": "0.74"},
            "severity": "High",
            "vulnerabilities": [one],
        }));
        let report = report.unwrap();
        assert_eq!(report.at.unwrap().to_string(), "2026-08-13T06:15:54Z");
        assert_eq!(report.scanner.as_ref().unwrap().to_string(), "Trivy 0.74");
        let finding = &report.findings[0];
        assert_eq!((finding.severity, finding.status), (Severity::High, Status::Fixed));
        assert_eq!(finding.cvss.as_ref().unwrap().v3_score, Some(9.8));
        let artifact = Artifact {
            repository: "a/b".into(),
            digest: Digest::sha256(b"image").to_string(),
            tag: String::new(),
            mime_type: String::new(),
        };
        let name = report.scanner.clone().unwrap();
        let again = written(&name, &artifact, &report.findings, Some("ended"), Timestamp(0));
        let again = read_value(&again).unwrap();
        assert_eq!(again.findings, report.findings);
        assert_eq!(again.insufficient.as_deref(), Some("ended"));
    }

    #[test]
    fn nothing_and_null_are_no_findings_and_strange_words_are_the_worst() {
        for clean in [json!({"vulnerabilities": null}), json!({"vulnerabilities": []})] {
            assert_eq!(read_value(&clean).unwrap().findings, []);
        }
        let of = |severity: &Value| {
            let one = json!({"id": "X-1", "severity": severity, "links": null, "cwe_ids": null});
            read_value(&json!({"vulnerabilities": [one]})).unwrap().findings[0].severity
        };
        assert_eq!(of(&json!("negligible")), Severity::Negligible);
        assert_eq!(of(&json!("Defcon1")), Severity::Critical);
        assert_eq!((of(&json!(null)), of(&json!(""))), (Severity::Unknown, Severity::Unknown));
    }

    #[test]
    fn a_report_that_lies_about_its_subject_or_is_too_long_is_refused() {
        let other = Digest::sha256(b"other").to_string();
        let other = json!({"artifact": {"digest": other}, "vulnerabilities": []});
        assert!(read_value(&other).unwrap_err().contains("another artifact"));
        let nonsense = json!({"artifact": {"digest": "nonsense"}, "vulnerabilities": []});
        assert!(read_value(&nonsense).unwrap_err().contains("another artifact"));
        let many = vec![json!({"id": "CVE-2024-0001"}); MOST_FINDINGS + 1];
        let refused = read_value(&json!({"vulnerabilities": many})).unwrap_err();
        assert!(refused.contains("more than 50000"), "{refused}");
        for wrong in [json!({"id": ""}), json!({"id": "x".repeat(129)}), json!({}), json!([])] {
            assert!(read_value(&json!({"vulnerabilities": [wrong]})).is_err(), "{wrong}");
        }
        assert!(read(b"<html>", &Digest::sha256(b"image")).is_err());
    }

    #[test]
    fn what_is_kept_of_a_finding_is_short() {
        let one = json!({
            "id": "CVE-2024-0001",
            "package": "p".repeat(9000),
            "description": "é".repeat(9000),
            "links": vec!["l".repeat(9000); 100],
            "preferred_cvss": {"score_v3": 1e9},
        });
        let report = read_value(&json!({"vulnerabilities": [one]})).unwrap();
        let finding = &report.findings[0];
        assert_eq!((finding.package.len(), finding.description.len()), (512, 8192));
        assert_eq!((finding.links.len(), finding.links[0].len()), (10, 512));
        assert_eq!(finding.cvss, None);
    }
}
