//! The scans that were asked for: so many at a time, the others in a line with an end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ground::clock;
use ground::supervise::{Tasks, at_length};
use parking_lot::Mutex;
use rules::scanners::requests::{Full, Progress, RequestTerms, Requests};
use rules::words::digest::Digest;
use scan::adapter::metadata::ScannerName;
use scan::adapter::report::written;
use scan::adapter::request::Artifact;
use scan::{Coverage, sbom};
use serde_json::json;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::database::Databases;
use super::pulling::{Pulling, Source};

/// The maximum number of packages of an SBOM.
const MOST_PACKAGES: usize = 20_000;

/// What a result takes beside its texts, in bytes.
const EACH: usize = 256;

/// A scan to be done.
pub struct Job {
    /// Where the image is.
    pub source: Source,
    /// Which image it is.
    pub artifact: Artifact,
    /// Its digest.
    pub digest: Digest,
    /// Whether SBOMs are wanted, too.
    pub sboms: bool,
}

/// What came out.
#[derive(Clone)]
pub struct Reports {
    /// The report.
    pub vulnerabilities: Bytes,
    /// SBOMs in their envelopes, if they were wanted: SPDX and CycloneDX.
    pub sboms: Option<[Bytes; 2]>,
}

/// Bounds of the work.
#[derive(Clone, Copy, Debug)]
pub struct WorkTerms {
    /// How many scans there may be.
    pub requests: RequestTerms,
    /// How long one may take.
    pub timeout: Duration,
}

/// The work of this adapter.
pub struct Work {
    requests: Mutex<Requests<Job, Result<Reports, String>>>,
    wake: Notify,
    databases: Arc<Databases>,
    pulling: Arc<Pulling>,
    timeout: Duration,
    tasks: Tasks,
}

/// How far a scan is.
pub enum Found {
    /// It is not known, or not any more.
    Nothing,
    /// It waits or runs.
    UnderWay,
    /// It has failed, for this reason.
    Failed(String),
    /// It has ended.
    Reports(Reports),
}

/// What this adapter calls itself.
pub fn scanner() -> ScannerName {
    registry::scans::native()
}

/// How many bytes a result takes for as long as it is kept. One that has failed takes some, too: whoever
/// asks for many that fail must not fill the memory.
fn size(result: &Result<Reports, String>) -> usize {
    EACH + match result {
        Ok(reports) => {
            let sboms = reports.sboms.iter().flatten().map(Bytes::len).sum::<usize>();
            reports.vulnerabilities.len() + sboms
        }
        Err(why) => why.len(),
    }
}

impl Work {
    /// Nothing was asked for yet.
    pub fn new(
        databases: Arc<Databases>,
        pulling: Arc<Pulling>,
        terms: WorkTerms,
        tasks: Tasks,
    ) -> Arc<Self> {
        let requests = Mutex::new(Requests::new(terms.requests));
        let (wake, timeout) = (Notify::new(), terms.timeout);
        Arc::new(Work { requests, wake, databases, pulling, timeout, tasks })
    }

    /// Reads where images are.
    pub fn pulling(&self) -> &Pulling {
        &self.pulling
    }

    /// Takes a scan. Returns its number.
    pub fn take(&self, job: Job) -> Result<u128, Full> {
        let id = rand::random();
        self.requests.lock().take(id, job)?;
        self.wake.notify_one();
        Ok(id)
    }

    /// How far a scan is.
    pub fn found(&self, id: u128) -> Found {
        match self.requests.lock().progress(id, clock::now()) {
            None => Found::Nothing,
            Some(Progress::UnderWay) => Found::UnderWay,
            Some(Progress::Ended(Err(why))) => Found::Failed(why.clone()),
            Some(Progress::Ended(Ok(reports))) => Found::Reports(reports.clone()),
        }
    }

    /// How many scans wait, and how many run.
    pub fn load(&self) -> (usize, usize) {
        self.requests.lock().load()
    }

    /// Works for as long as the process runs.
    pub async fn run(self: Arc<Self>) {
        loop {
            loop {
                let next = self.requests.lock().begin();
                let Some((id, job)) = next else { break };
                let work = self.clone();
                self.tasks.spawn("scan", async move { work.carry_out(id, job).await });
            }
            self.wake.notified().await;
        }
    }

    async fn carry_out(&self, id: u128, job: Job) {
        let Job { artifact, digest, .. } = &job;
        let (repository, digest) = (artifact.repository.clone(), *digest);
        let scanned = tokio::time::timeout(self.timeout, self.scan(job)).await;
        let late = || format!("it took longer than {} s", self.timeout.as_secs());
        let result = scanned.unwrap_or_else(|_| Err(late()));
        match &result {
            Ok(_) => info!(repository, %digest, "an image was scanned"),
            Err(why) => warn!(repository, %digest, why, "an image could not be scanned"),
        }
        let bytes = size(&result);
        self.requests.lock().end(id, result, bytes, clock::now());
        self.wake.notify_one();
    }

    async fn scan(&self, job: Job) -> Result<Reports, String> {
        let Job { source, artifact, digest, sboms } = job;
        let layers = self.pulling.layers(source, &artifact.repository, &digest).await?;
        let database = self.databases.opened().ok_or("there is no database of vulnerabilities")?;
        at_length(|| {
            let (inventory, now) = (scan::merge(&layers), clock::timestamp());
            let report = scan::judge(&inventory, &database, now).map_err(|e| e.to_string())?;
            let insufficient = match &report.coverage {
                Coverage::Whole => None,
                Coverage::Insufficient { why } => Some(why.as_str()),
            };
            let scanner = scanner();
            let shown = written(&scanner, &artifact, &report.findings, insufficient, now);
            let sboms = match sboms {
                false => None,
                true if inventory.packages.len() > MOST_PACKAGES => {
                    return Err(format!("an SBOM has at most {MOST_PACKAGES} packages"));
                }
                true => {
                    let about = sbom::Subject {
                        repository: artifact.repository.clone(),
                        digest,
                        at: now,
                        tool_version: scanner.version.clone(),
                    };
                    let envelope = |kind: &str, document: serde_json::Value| {
                        let envelope = json!({
                            "generated_at": now.to_string(),
                            "artifact": artifact,
                            "scanner": scanner,
                            "vendor_attributes": {},
                            "media_type": kind,
                            "sbom": document,
                        });
                        Bytes::from(envelope.to_string())
                    };
                    Some([
                        envelope(sbom::SPDX, sbom::spdx(&inventory, &about)),
                        envelope(sbom::CYCLONEDX, sbom::cyclonedx(&inventory, &about)),
                    ])
                }
            };
            Ok(Reports { vulnerabilities: shown.to_string().into(), sboms })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_failed_takes_memory_too() {
        assert_eq!(size(&Err("x".repeat(1000))), 1000 + EACH);
        let sbom = || Bytes::from_static(b"12");
        let vulnerabilities = Bytes::from_static(b"123");
        let reports = Reports { vulnerabilities, sboms: Some([sbom(), sbom()]) };
        assert_eq!(size(&Ok(reports)), 7 + EACH);
    }
}
