//! What lists of artifacts say of scans.

use std::collections::{BTreeMap, BTreeSet};

use registry::scans::{native, sboms};
use rules::ledger::records::{Look, Project, ReadRecords, RecordError};
use rules::ledger::scanning::{DatabaseRecord, LookForScans, Report, ScanRecord};
use rules::policies::vulnerabilities::{ScanStatus, Severity};
use rules::words::digest::Digest;
use rules::words::names::RepositoryName;
use scan::sbom::SPDX;
use serde_json::{Value, json};

use super::stored::number;

/// The media type of reports (`pkg/scan/rest/v1/models.go`).
pub(super) const REPORT: &str = "application/vnd.security.vulnerability.report; version=1.1";

/// The scanner that has made a report; the one that is built in if there is none. What it calls itself
/// ends with its version, if it has one.
fn scanner(report: Option<&Report>) -> Value {
    match report.filter(|report| report.is_from_elsewhere()) {
        None => json!(native()),
        Some(report) => {
            let (name, version) = report.engine.rsplit_once(' ').unwrap_or((&report.engine, ""));
            json!({"name": name, "vendor": "", "version": version})
        }
    }
}

/// What a list says of an artifact's scan (`NativeReportSummary` of Harbor).
fn overview(record: &ScanRecord, matched: Option<Digest>, used: Option<&DatabaseRecord>) -> Value {
    let report = record.report.as_ref();
    let (start, end) = report.map_or((None, None), |report| (Some(report.begun), Some(report.at)));
    let wanted = record.wanted.as_ref();
    let ended = record.unfinished.as_ref().map(|unfinished| unfinished.number);
    let number = wanted.map(|wanted| wanted.number).or(ended);
    let number = number.or(report.map(|report| report.number));
    let mut shown = json!({
        "report_id": number.unwrap_or_default().to_string(),
        "scan_status": record.status().word(),
        "complete_percent": if record.status() == ScanStatus::Success { 100 } else { 0 },
        "scanner": scanner(report),
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
        if report.is_from_elsewhere() {
            // a database of this mesh says nothing about it
            shown["stale"] = false.into();
        } else {
            let database = matched.filter(|_| used.is_some()).unwrap_or(report.database);
            shown["database"] = database.to_string().into();
            shown["stale"] = used.is_none_or(|used| used.digest != database).into();
        }
        if let Some(why) = &report.insufficient {
            shown["insufficient"] = why.clone().into();
        }
    }
    shown
}

/// What is known of the images of an index, as of one image: how far the slowest is, and everything
/// that was found, as Harbor merges them. `None` if nothing is known of any.
fn merged(images: Vec<ScanRecord>) -> Option<ScanRecord> {
    images.into_iter().reduce(|mut all, one| {
        let runs = |record: &ScanRecord| record.status() == ScanStatus::Running;
        if all.wanted.is_none() || (!runs(&all) && runs(&one)) {
            all.wanted = one.wanted.or(all.wanted);
        }
        // one report is enough
        all.unfinished = all.unfinished.or(one.unfinished);
        all.report = match (all.report, one.report) {
            (Some(mut all), Some(one)) => {
                for weakness in one.found {
                    match all.found.iter_mut().find(|other| other.id == weakness.id) {
                        Some(other) => {
                            other.severity = other.severity.max(weakness.severity);
                            other.fixable &= weakness.fixable;
                        }
                        None => all.found.push(weakness),
                    }
                }
                all.number = all.number.max(one.number);
                (all.begun, all.at) = (all.begun.min(one.begun), all.at.max(one.at));
                all.insufficient = all.insufficient.or(one.insufficient);
                Some(all)
            }
            (all, one) => all.or(one),
        };
        if all.report.is_some() {
            all.unfinished = None;
        }
        all
    })
}

/// The overview of an artifact for lists; `None` if nothing is known of it. Of an index, `images` are
/// what it lists.
pub(super) fn overview_of(
    records: &dyn ReadRecords,
    project: &Project,
    repository: &RepositoryName,
    digest: &Digest,
    images: impl FnOnce() -> Result<BTreeSet<Digest>, RecordError>,
) -> Result<Option<Value>, RecordError> {
    let record = match records.scan_of(repository, digest)? {
        Some(record) => Some(record),
        None => {
            let mut known = Vec::new();
            for image in images()? {
                known.extend(records.scan_of(repository, &image)?);
            }
            merged(known)
        }
    };
    let Some(record) = record else { return Ok(None) };
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
        "scanner": native(),
    })))
}

#[cfg(test)]
mod tests {
    use rules::ledger::scanning::{Unfinished, Wanted};
    use rules::policies::vulnerabilities::{VulnerabilityId, Weakness};
    use rules::words::moment::Timestamp;

    use super::*;

    fn report(number: u64, found: &[(&str, Severity, bool)]) -> ScanRecord {
        let weak = |(id, severity, fixable): &(&str, Severity, bool)| Weakness {
            id: VulnerabilityId::from(*id),
            severity: *severity,
            fixable: *fixable,
        };
        let report = Report {
            number,
            begun: Timestamp(number),
            at: Timestamp(10 + number),
            engine: "Atoll".into(),
            database: Digest::sha256(b"database"),
            insufficient: None,
            found: found.iter().map(weak).collect(),
            log: String::new(),
        };
        ScanRecord { report: Some(report), ..ScanRecord::default() }
    }

    #[test]
    fn an_index_has_what_its_images_have() {
        assert_eq!(merged(Vec::new()), None);
        let one = report(1, &[("CVE-2024-0001", Severity::Low, true)]);
        let other = report(
            2,
            &[("CVE-2024-0001", Severity::High, false), ("CVE-2024-0002", Severity::Low, true)],
        );
        let both = merged(vec![one.clone(), other]).unwrap();
        assert_eq!(both.status(), ScanStatus::Success);
        let all = both.report.unwrap();
        assert_eq!((all.number, all.begun, all.at), (2, Timestamp(1), Timestamp(12)));
        let shown: Vec<_> = all.found.iter().map(|one| (one.severity, one.fixable)).collect();
        assert_eq!(shown, [(Severity::High, false), (Severity::Low, true)]);

        let failed = Unfinished { number: 3, at: Timestamp(1), why: Some("damaged".into()) };
        let failed = ScanRecord { unfinished: Some(failed), ..ScanRecord::default() };
        let status = |records| merged(records).unwrap().status();
        assert_eq!(status(vec![failed.clone(), one.clone()]), ScanStatus::Success, "as in Harbor");
        assert_eq!(status(vec![failed.clone(), failed.clone()]), ScanStatus::Error);
        let wanted = Wanted { number: 4, at: Timestamp(1), first: true, tries: 0, begun: None };
        let waits = ScanRecord { wanted: Some(wanted), ..ScanRecord::default() };
        assert_eq!(status(vec![one, waits, failed]), ScanStatus::Pending);
    }
}
