//! How bad a finding is, and what is known of it (trivy's `pkg/vulnerability`).

use crate::database::advisories::{Detail, Scores};
use crate::database::{Database, DatabaseError};
use crate::package::Package;
use crate::report::{Cvss, Finding, Severity, Status, severity_of};

use super::Match;

/// Who is asked last.
const NVD: &str = "nvd";

/// Whose severities count for ids of GitHub's.
const GITHUB: &str = "ghsa";

/// The finding that a match makes.
pub(super) fn finding(
    package: &Package,
    found: Match,
    database: &Database,
) -> Result<Finding, DatabaseError> {
    let detail = database.detail(&found.id)?;
    let (severity, severity_source) = match (found.severity, &detail) {
        (Some((severity, source)), _) => (severity, source.to_owned()),
        (None, Some(detail)) => severity(&found, detail),
        (None, None) => (Severity::Unknown, String::new()),
    };
    let detail = detail.unwrap_or_default();
    let status = match (&found.fixed, found.status) {
        (Some(_), _) => Status::Fixed,
        (None, Status::Unknown) => Status::Affected,
        (None, status) => status,
    };
    let scores = detail.cvss.get(&severity_source).filter(|scores| scores.v3.is_some());
    let cvss = scores.or_else(|| detail.cvss.get(NVD)).or_else(|| detail.cvss.values().next());
    let mut links: Vec<String> = page(&found.id).into_iter().collect();
    links.extend(detail.references);
    Ok(Finding {
        id: found.id,
        aliases: found.aliases,
        package: package.name.clone(),
        source: package.source.as_ref().map(|source| source.name.clone()),
        installed: package.version.clone(),
        fixed: found.fixed,
        severity,
        severity_source,
        status,
        title: detail.title,
        description: detail.description,
        links,
        cvss: cvss.map(scores_of),
        cwe_ids: detail.cwe_ids,
        kind: package.kind,
        path: package.path.clone(),
        layer: package.layer,
    })
}

/// The distribution's or ecosystem's own severity, then GitHub's for ids of GitHub's, then NVD's. If
/// the first of these that says anything does not know it either, the one counts that trivy-db chose
/// of all others.
fn severity(found: &Match, detail: &Detail) -> (Severity, String) {
    let said = |source: &str| {
        let number = detail.vendor_severity.get(source)?;
        Some((severity_of(*number), source.to_owned()))
    };
    if let Some(own) = said(&found.source) {
        return own;
    }
    let github = found.id.starts_with("GHSA-").then(|| said(GITHUB)).flatten();
    match github.or_else(|| said(NVD)) {
        Some((severity, source)) if severity != Severity::Unknown => (severity, source),
        _ => (Severity::named(&detail.severity).unwrap_or_default(), String::new()),
    }
}

fn scores_of(scores: &Scores) -> Cvss {
    Cvss {
        v3_score: scores.v3,
        v3_vector: scores.v3_vector.clone(),
        v2_score: scores.v2,
        v2_vector: scores.v2_vector.clone(),
    }
}

/// The page about an id, of those who give such ids out.
fn page(id: &str) -> Option<String> {
    let pages = [
        ("CVE-", "https://nvd.nist.gov/vuln/detail/"),
        ("GHSA-", "https://github.com/advisories/"),
        ("RUSTSEC-", "https://rustsec.org/advisories/"),
        ("GO-", "https://pkg.go.dev/vuln/"),
        ("PYSEC-", "https://osv.dev/vulnerability/"),
        ("TEMP-", "https://security-tracker.debian.org/tracker/"),
    ];
    pages.iter().find(|(begin, _)| id.starts_with(begin)).map(|(_, page)| format!("{page}{id}"))
}
