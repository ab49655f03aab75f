//! What lists of artifacts say of scans.

use std::collections::BTreeMap;

use registry::scans::sboms;
use rules::ledger::records::{Look, Project, ReadRecords, RecordError};
use rules::ledger::scanning::{DatabaseRecord, LookForScans, ScanRecord};
use rules::policies::vulnerabilities::{ScanStatus, Severity};
use rules::words::digest::Digest;
use rules::words::names::RepositoryName;
use scan::sbom::SPDX;
use serde_json::{Value, json};

use super::stored::number;

/// The media type of reports (`pkg/scan/rest/v1/models.go`).
pub(super) const REPORT: &str = "application/vnd.security.vulnerability.report; version=1.1";

/// The scanner, in reports.
pub(super) fn scanner() -> Value {
    json!({
        "name": "Atoll",
        "vendor": "Atoll",
        "version": env!("CARGO_PKG_VERSION"),
    })
}

/// What a list says of an artifact's scan (`NativeReportSummary` of Harbor).
fn overview(record: &ScanRecord, matched: Option<Digest>, used: Option<&DatabaseRecord>) -> Value {
    let report = record.report.as_ref();
    let (start, end) = report.map_or((None, None), |report| (Some(report.begun), Some(report.at)));
    let wanted = record.wanted.as_ref();
    let number = wanted.map(|wanted| wanted.number).or(report.map(|report| report.number));
    let mut shown = json!({
        "report_id": number.unwrap_or_default().to_string(),
        "scan_status": record.status().word(),
        "complete_percent": if record.status() == ScanStatus::Success { 100 } else { 0 },
        "scanner": scanner(),
    });
    if let Some(unfinished) = &record.unfinished {
        shown["end_time"] = unfinished.at.to_string().into();
        shown["error"] = unfinished.why.clone().into();
    }
    if let (Some(report), Some(start), Some(end)) = (report, start, end) {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for weakness in &report.found {
            *counts.entry(weakness.severity.word()).or_default() += 1;
        }
        let worst = report.found.iter().map(|weakness| weakness.severity).max();
        shown["severity"] = worst.map_or("None", Severity::word).into();
        shown["start_time"] = start.to_string().into();
        shown["end_time"] = end.to_string().into();
        shown["duration"] = (end.0.saturating_sub(start.0) / 1000).into();
        shown["summary"] = json!({
            "total": report.found.len(),
            "fixable": report.found.iter().filter(|weakness| weakness.fixable).count(),
            "summary": counts,
        });
        let database = matched.filter(|_| used.is_some()).unwrap_or(report.database);
        shown["database"] = database.to_string().into();
        shown["stale"] = used.is_none_or(|used| used.digest != database).into();
        if let Some(why) = &report.insufficient {
            shown["insufficient"] = why.clone().into();
        }
    }
    shown
}

/// The overview of an artifact for lists; `None` if nothing is known of it.
pub(super) fn overview_of(
    records: &dyn ReadRecords,
    project: &Project,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Value>, RecordError> {
    let Some(record) = records.scan_of(repository, digest)? else { return Ok(None) };
    let (matched, used) = (records.matched_database(project.id)?, records.scan_database()?);
    Ok(Some(json!({REPORT: overview(&record, matched, used.as_ref())})))
}

/// What a list says of an artifact's SBOM (`SBOMOverview` of Harbor), if this mesh has made one.
pub(super) fn sbom_overview_of(
    records: &dyn ReadRecords,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Value>, RecordError> {
    let made = sboms::made_of(records, repository, digest)?;
    let Some(one) = made.iter().find(|one| one.artifact_type.as_deref() == Some(SPDX)) else {
        return Ok(None);
    };
    let pushed = records.manifest(repository, &one.digest)?.map(|manifest| manifest.pushed);
    let at = pushed.map(|at| at.to_string());
    Ok(Some(json!({
        "start_time": at,
        "end_time": at,
        "scan_status": ScanStatus::Success.word(),
        "sbom_digest": one.digest.to_string(),
        "report_id": number(&one.digest.to_string()).to_string(),
        "duration": 0,
        "scanner": scanner(),
    })))
}
