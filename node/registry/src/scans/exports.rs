//! Findings of a project's images as a table (Harbor's export of CVEs, `src/pkg/scan/export`).
//!
//! An export is a job with an order that says which findings are meant. Its table is not kept: it is made
//! while it is downloaded, image by image, by the node that is asked. So it has no limit, no node must
//! hold it, and none is left behind.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ground::supervise::at_length;
use rules::ledger::jobs::{Priority, RunEnd, Task};
use rules::ledger::labels::LookForLabels;
use rules::ledger::records::{Look, ReadRecords, RecordError, key as records_key};
use rules::ledger::scanning::{LookForScans, Report};
use rules::ledger::stored::manifests_of;
use rules::policies::selectors::Pattern;
use rules::words::digest::Digest;
use rules::words::manifest::Manifest;
use rules::words::names::{LabelId, ProjectName, RepositoryName};
use scan::Finding;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::warn;

use super::{ScanError, Scans};
use crate::jobs::{Run, Work};
use crate::view::neighbours::Neighbours;

/// The name of this kind of jobs.
pub const KIND: &str = "export";
/// How often a run is tried.
const TRIES: u32 = 3;
/// The maximum number of tables that a node makes at a time.
pub(super) const AT_A_TIME: usize = 4;
/// How long a reader may take nothing of a table before it is cut off: its place is for others.
const STALL: Duration = Duration::from_secs(30);
/// How many bytes of a table are sent at a time.
const PIECE: usize = 64 << 10;
/// The names of the columns, as Harbor writes them.
const COLUMNS: &str = "RowId,Scanner,Repository,Artifact Digest,CVE,Package,Current Version,\
                       Fixed in version,Severity,CVSS V3 Score,CVSS V2 Score,CVSS V3 Vector,\
                       CVSS V2 Vector,CWE Ids\n";

/// Which findings of a project are meant: those that are of all of these. An empty pattern is about all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportOrder {
    /// The repositories, by their names without the project's.
    pub repositories: Pattern,
    /// The tags, of an image or of an index that lists it.
    pub tags: Pattern,
    /// The ids of vulnerabilities.
    pub ids: Pattern,
    /// The labels: one of them is on an image, or on an index that lists it.
    pub labels: Vec<LabelId>,
}

impl ExportOrder {
    /// The order in a job's record. One that cannot be read is of a later build.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    fn is_of_all_artifacts(&self) -> bool {
        self.tags.written().is_empty() && self.labels.is_empty()
    }
}

/// The images of a project whose findings are meant.
fn selected(
    view: &dyn ReadRecords,
    project: &ProjectName,
    order: &ExportOrder,
) -> Result<Vec<(RepositoryName, Digest)>, RecordError> {
    let (mut images, mut repository, mut chosen) = (Vec::new(), None, BTreeSet::new());
    view.each_scan(project, |name, digest, record| {
        let Some(Report { found, .. }) = record.report else { return Ok(()) };
        let path = name.as_str().split_once('/').map_or("", |(_, path)| path);
        let meant = order.repositories.matches(path)
            && found.iter().any(|one| order.ids.matches(&one.id.to_string()));
        if !meant {
            return Ok(());
        }
        if !order.is_of_all_artifacts() {
            if repository.as_ref() != Some(&name) {
                chosen = artifacts(view, &name, order)?;
                repository = Some(name.clone());
            }
            if !chosen.contains(&digest) {
                return Ok(());
            }
        }
        images.push((name, digest));
        Ok(())
    })?;
    Ok(images)
}

/// The artifacts of a repository that have a tag and a label that are meant, with what they list.
fn artifacts(
    view: &dyn ReadRecords,
    repository: &RepositoryName,
    order: &ExportOrder,
) -> Result<BTreeSet<Digest>, RecordError> {
    let mut chosen = BTreeSet::new();
    for digest in manifests_of(view, repository)?.into_keys() {
        let tagged = order.tags.written().is_empty() || {
            let prefix = records_key::all_named(repository, &digest);
            let tags = view.scan(&prefix, None, usize::MAX)?;
            tags.iter().any(|(place, _)| {
                std::str::from_utf8(&place[prefix.len()..]).is_ok_and(|tag| order.tags.matches(tag))
            })
        };
        let labelled = order.labels.is_empty()
            || view.labels_on(repository, &digest)?.iter().any(|one| order.labels.contains(one));
        if !tagged || !labelled {
            continue;
        }
        if let Some(manifest) = view.manifest(repository, &digest)?
            && let Ok(read) = Manifest::read_served(&manifest.media_type, &manifest.bytes)
        {
            chosen.extend(read.children.iter().map(|child| child.digest));
        }
        chosen.insert(digest);
    }
    Ok(chosen)
}

/// One cell, as RFC 4180 has it.
fn cell(text: &str) -> String {
    // a spreadsheet would take it for a formula, and scanners and images choose these words
    let text = match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => &format!("'{text}"),
        false => text,
    };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// The rows of an image, and the number of the next one.
fn rows(
    (repository, digest): &(RepositoryName, Digest),
    scanner: &str,
    findings: &[Finding],
    ids: &Pattern,
    mut number: u64,
) -> (Vec<u8>, u64) {
    let mut rows = Vec::new();
    for one in findings.iter().filter(|one| ids.matches(&one.id)) {
        let cvss = one.cvss.clone().unwrap_or_default();
        let score = |score: Option<f64>| score.map(|score| score.to_string()).unwrap_or_default();
        let cells = [
            number.to_string(),
            scanner.to_owned(),
            repository.to_string(),
            digest.to_string(),
            one.id.clone(),
            one.package.clone(),
            one.installed.clone(),
            one.fixed.clone().unwrap_or_default(),
            one.severity.word().to_owned(),
            score(cvss.v3_score),
            score(cvss.v2_score),
            cvss.v3_vector,
            cvss.v2_vector,
            one.cwe_ids.join(","),
        ];
        let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
        rows.extend_from_slice(cells.join(",").as_bytes());
        rows.push(b'\n');
        number += 1;
    }
    (rows, number)
}

/// Gives a reader the next piece. `false` if nobody reads any more, or nothing was taken for so long.
async fn hand_on<T>(send: &mpsc::Sender<T>, piece: T, stall: Duration) -> bool {
    matches!(tokio::time::timeout(stall, send.send(piece)).await, Ok(Ok(())))
}

impl Scans {
    /// Makes the table of a project, piece by piece. Fails before the first piece if this node cannot
    /// make it now. What goes wrong later is an error in its place, so that a table is whole or seen
    /// to be cut off.
    pub async fn export(
        self: &Arc<Self>,
        project: &ProjectName,
        order: ExportOrder,
    ) -> Result<mpsc::Receiver<std::io::Result<Bytes>>, ScanError> {
        let busy = "this node makes as many exports as it may; try again in a moment";
        let place = self.exporting.clone().try_acquire_owned();
        let place = place.map_err(|_| ScanError::Again(busy.into()))?;
        let images = at_length(|| {
            let view = self.neighbours.records.view()?;
            selected(&*view, project, &order)
        })?;
        let mut images = images.into_iter();
        let first = match images.next() {
            Some(image) => self.of_image(&image, &order, 1).await?,
            None => (Vec::new(), 1),
        };
        let (send, pieces) = mpsc::channel(1);
        let scans = self.clone();
        self.tasks.spawn("export", async move {
            let _place = place;
            let (mut made, mut number) = first;
            made.splice(0..0, COLUMNS.bytes());
            loop {
                let mut rows = Bytes::from(made);
                while !rows.is_empty() {
                    let piece = rows.split_to(rows.len().min(PIECE));
                    if !hand_on(&send, Ok(piece), STALL).await {
                        return;
                    }
                }
                let Some(image) = images.next() else { return };
                (made, number) = match scans.of_image(&image, &order, number).await {
                    Ok(next) => next,
                    Err(error) => {
                        warn!(repository = %image.0, digest = %image.1, %error, "an export is cut off");
                        let cut = Err(std::io::Error::other(error.to_string()));
                        hand_on(&send, cut, STALL).await;
                        return;
                    }
                };
            }
        });
        Ok(pieces)
    }

    async fn of_image(
        &self,
        image: &(RepositoryName, Digest),
        order: &ExportOrder,
        number: u64,
    ) -> Result<(Vec<u8>, u64), ScanError> {
        // it may be gone by now
        let Some(found) = self.findings(&image.0, &image.1).await? else {
            return Ok((Vec::new(), number));
        };
        let scanner = &found.scanner.name;
        Ok(at_length(|| rows(image, scanner, &found.findings, &order.ids, number)))
    }
}

/// Looks how much an export is about: the table itself is made when it is downloaded.
pub struct Exports(pub Arc<Neighbours>);

impl Exports {
    /// The job of an export.
    pub fn task(project: &ProjectName, order: &ExportOrder, asked_by: &str) -> Task {
        Task {
            project: project.clone(),
            kind: KIND.into(),
            subject: format!("vulnerabilities of {project}"),
            order: serde_json::to_vec(order).unwrap_or_default(),
            priority: Priority::Normal,
            tries: TRIES,
            asked_by: asked_by.into(),
        }
    }
}

impl Work for Exports {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn carry_out<'a>(&'a self, run: &'a Run) -> Pin<Box<dyn Future<Output = RunEnd> + Send + 'a>> {
        Box::pin(async move {
            let Some(order) = ExportOrder::read(&run.job.task.order) else {
                return RunEnd::Hopeless("its order cannot be read".into());
            };
            let counted = at_length(|| {
                let view = self.0.records.view()?;
                selected(&*view, &run.job.task.project, &order)
            });
            match counted {
                Ok(images) => RunEnd::Done(format!("{} images have such findings", images.len())),
                Err(error) => RunEnd::Failed(error.to_string()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::policies::vulnerabilities::Severity;
    use scan::adapter::report;
    use serde_json::json;

    /// Whoever reports findings, or names packages, chooses these words.
    #[test]
    fn no_cell_is_a_formula() {
        for (text, written) in [
            ("=1+1", "'=1+1"),
            ("@SUM(1)", "'@SUM(1)"),
            ("-2,3", "\"'-2,3\""),
            ("+\"a\"", "\"'+\"\"a\"\"\""),
            ("1.2-3", "1.2-3"),
            ("", ""),
        ] {
            assert_eq!(cell(text), written);
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_keeps_no_place() {
        let (send, mut pieces) = mpsc::channel(1);
        assert!(hand_on(&send, 1, STALL).await);
        assert!(!hand_on(&send, 2, Duration::ZERO).await, "the first was not taken");
        assert_eq!(pieces.recv().await, Some(1));
        assert!(hand_on(&send, 3, STALL).await);
        drop(pieces);
        assert!(!hand_on(&send, 4, STALL).await, "nobody reads");
    }

    #[test]
    fn a_row_is_as_harbor_writes_it() {
        let body = json!({"vulnerabilities": [
            {"id": "CVE-2024-0001", "package": "a,\"b\"", "version": "1", "fix_version": "2",
             "severity": "High", "preferred_cvss": {"score_v3": 9.8, "vector_v3": "CVSS:3.1/AV:N"},
             "cwe_ids": ["CWE-79", "CWE-80"]},
            {"id": "CVE-2024-0002", "package": "p", "version": "1", "severity": "Low"},
        ]});
        let digest = Digest::sha256(b"image");
        let findings = report::read(body.to_string().as_bytes(), &digest).unwrap().findings;
        assert_eq!(findings[0].severity, Severity::High);
        let image = ("shop/web".parse().unwrap(), digest);
        let (written, next) = rows(&image, "Trivy", &findings, &Pattern::default(), 7);
        let text = String::from_utf8(written).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            format!(
                "7,Trivy,shop/web,{digest},CVE-2024-0001,\"a,\"\"b\"\"\",1,2,High,9.8,,CVSS:3.1/AV:N,,\"CWE-79,CWE-80\""
            )
        );
        assert_eq!(lines[1], format!("8,Trivy,shop/web,{digest},CVE-2024-0002,p,1,,Low,,,,,"));
        assert_eq!((lines.len(), next), (2, 9));
        assert_eq!(COLUMNS.matches(',').count(), lines[1].matches(',').count());
        let one = Pattern::new("CVE-2024-0002,CVE-2024-0009").unwrap();
        let (written, next) = rows(&image, "Trivy", &findings, &one, 1);
        assert!(next == 2 && String::from_utf8(written).unwrap().contains("CVE-2024-0002"));
        let order = ExportOrder { ids: one, ..ExportOrder::default() };
        let task = Exports::task(&"shop".parse().unwrap(), &order, "admin");
        assert_eq!(ExportOrder::read(&task.order), Some(order));
    }
}
