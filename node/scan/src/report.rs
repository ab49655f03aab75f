//! What is wrong with an image: findings, severities, and how much they cover.

pub use rules::policies::vulnerabilities::Severity;
use serde::{Deserialize, Serialize};

use crate::package::Kind;

/// The severity with trivy-db's number (0 unknown, 1 low .. 4 critical).
pub(crate) fn severity_of(number: u64) -> Severity {
    match number {
        1 => Severity::Low,
        2 => Severity::Medium,
        3 => Severity::High,
        4 => Severity::Critical,
        _ => Severity::Unknown,
    }
}

/// What is being done about a finding, in the words of trivy-db (`pkg/types/status.go`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nobody has said.
    #[default]
    Unknown,
    /// The package does not have the fault.
    NotAffected,
    /// The package has the fault, and no fixed version is known.
    Affected,
    /// A fixed version is there.
    Fixed,
    /// Its maintainers look at it.
    UnderInvestigation,
    /// Its maintainers will not mend it.
    WillNotFix,
    /// It will be mended later.
    FixDeferred,
    /// The package is not maintained any more.
    EndOfLife,
}

impl Status {
    /// The status with trivy-db's number.
    pub fn of_number(number: u64) -> Status {
        match number {
            1 => Status::NotAffected,
            2 => Status::Affected,
            3 => Status::Fixed,
            4 => Status::UnderInvestigation,
            5 => Status::WillNotFix,
            6 => Status::FixDeferred,
            7 => Status::EndOfLife,
            _ => Status::Unknown,
        }
    }

    /// The word, as reports write it: `will_not_fix`.
    pub fn name(self) -> &'static str {
        match self {
            Status::Unknown => "unknown",
            Status::NotAffected => "not_affected",
            Status::Affected => "affected",
            Status::Fixed => "fixed",
            Status::UnderInvestigation => "under_investigation",
            Status::WillNotFix => "will_not_fix",
            Status::FixDeferred => "fix_deferred",
            Status::EndOfLife => "end_of_life",
        }
    }
}

/// Scores of one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cvss {
    /// The score of version 3, 0 to 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v3_score: Option<f64>,
    /// The vector of version 3.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub v3_vector: String,
    /// The score of version 2, 0 to 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v2_score: Option<f64>,
    /// The vector of version 2.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub v2_vector: String,
}

/// One fault of one package of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The fault's id: a CVE where it has one, else the id of who found it.
    pub id: String,
    /// Ids that others have for it: of advisories of the distribution's, or of GitHub's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The package's name.
    pub package: String,
    /// The source package's name, of a distribution's package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The version that the image has.
    pub installed: String,
    /// The version that has the fault no more; several are separated by `, `.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<String>,
    /// How bad it is: what the distribution says, else who wrote the advisory, else NVD.
    pub severity: Severity,
    /// Who said how bad it is: `debian`, `ghsa`, `nvd`; empty where nobody did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub severity_source: String,
    /// What is being done about it.
    pub status: Status,
    /// One line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// More than one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Pages about it, the first one about it in general.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// Scores of the source that was preferred, else of NVD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cvss: Option<Cvss>,
    /// Kinds of weaknesses: `CWE-79`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cwe_ids: Vec<String>,
    /// The package's ecosystem.
    pub kind: Kind,
    /// The file in which the package was found.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// The layer that brought the package, counted from the bottom, from 0.
    #[serde(default)]
    pub layer: u32,
}

/// How much of an image a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Coverage {
    /// All that the engine looks for could be judged: no finding means that none is known.
    Whole,
    /// Something could not be judged: no finding means nothing.
    Insufficient {
        /// What, and why; for people.
        why: String,
    },
}

/// What is known to be wrong with an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The number of this form.
    pub format: u32,
    /// How much of the image it is about.
    pub coverage: Coverage,
    /// The findings: the worst first, then by id, package and path.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The number of the form that this build writes.
    pub const FORMAT: u32 = 1;
}
