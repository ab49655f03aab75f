//! Reports with all their texts, for those who want to see them: made anew, or as another scanner has
//! sent them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ground::supervise::at_length;
use rules::ledger::scanners::LookForScanners;
use rules::ledger::scanning::{LookForScans, ScanRecord};
use rules::words::digest::Digest;
use rules::words::names::RepositoryName;

use super::{Findings, ScanError, Scans, elsewhere, judge, native};

impl Scans {
    /// The report about an image with all its texts, made from the database of this node. `None` if
    /// there is no report. Fails if this node has no database, or not all layers are known.
    pub async fn findings(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Findings>, ScanError> {
        let view = self.neighbours.records.view()?;
        let Some(record) = view.scan_of(repository, digest)? else { return Ok(None) };
        let ScanRecord { report: Some(report), .. } = record else { return Ok(None) };
        if report.is_from_elsewhere() {
            let kept = view.reported_elsewhere(repository, digest)?;
            drop(view);
            let Some(kept) = kept else { return Ok(None) };
            let permit = self.shown.clone().acquire_owned().await.ok().map(Arc::new);
            let found = at_length(|| elsewhere::shown(report, kept))?;
            return Ok(Some(Findings { _permit: permit, ..found }));
        }
        let used = view.scan_database()?;
        drop(view);
        let (database, digest_of) = self.database()?;
        let (image, again) = self.image_to_show(repository, digest).await?;
        let updated = used.map(|used| used.updated);
        let permit = self.shown.clone().acquire_owned().await.ok().map(Arc::new);
        at_length(|| {
            let layers = match again {
                Some(layers) => layers,
                None => self.kept_layers(&image)?,
            };
            let findings = judge(&image, &layers, &database)?.findings;
            let (database, scanner) = (Some(digest_of), native());
            Ok(Some(Findings { report, scanner, findings, database, updated, _permit: permit }))
        })
    }

    /// The report about an image as `write` writes it, which readers share. `None` if there is none.
    pub async fn report_body(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        write: impl Fn(&Findings) -> Vec<u8>,
    ) -> Result<Option<Bytes>, ScanError> {
        let view = self.neighbours.records.view()?;
        let report = view.scan_of(repository, digest)?.and_then(|record| record.report);
        let Some(report) = report else { return Ok(None) };
        let used = view.scan_database()?.map(|used| used.digest);
        drop(view);
        let database = used.filter(|_| !report.is_from_elsewhere());
        let key = (repository.clone(), *digest, report.number, database);
        if let Some(sent) = self.bodies.sent(&key) {
            return Ok(Some(sent));
        }
        let Some(found) = self.findings(repository, digest).await? else { return Ok(None) };
        // others may have waited for the same
        if let Some(sent) = self.bodies.sent(&key) {
            return Ok(Some(sent));
        }
        let bytes = at_length(|| write(&found));
        self.bodies.send(key, bytes).await.map(Some)
    }

    /// The score (CVSS 3) of each of these ids, as the database of this node has it: the highest of
    /// all sources. Fails if this node does not have the mesh's database; without one in the mesh there
    /// are none.
    pub fn scores<'a>(
        &self,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<BTreeMap<String, f64>, ScanError> {
        if self.neighbours.records.view()?.scan_database()?.is_none() {
            return Ok(BTreeMap::new());
        }
        let (database, _) = self.database()?;
        at_length(|| {
            let mut scores = BTreeMap::new();
            for id in ids {
                let detail = database.detail(id).map_err(|e| ScanError::Again(e.to_string()))?;
                let all = detail.unwrap_or_default().cvss.into_values();
                if let Some(score) = all.filter_map(|scores| scores.v3).reduce(f64::max) {
                    scores.insert(id.to_owned(), score);
                }
            }
            Ok(scores)
        })
    }
}
