//! The gate before images that a proxy project has cached: a pull asks for the scan that the project
//! wants, and is judged by what is known.

use std::net::IpAddr;
use std::time::Duration;

use ground::clock;
use http::header;
use registry::scans::cached::Puller;
use rules::ledger::cached_scans::{LookForCachedScans, decide_cached, wants_scans};
use rules::ledger::records::Project;
use rules::ledger::scanning::{Facts, LookForScans};
use rules::policies::vulnerabilities::{Decision, Gate, Prevented, decide};
use rules::words::digest::Digest;
use rules::words::image::{Image, Runnable};
use rules::words::names::RepositoryName;

use super::Registry;
use super::gate::{carries_manifests, refusal};
use crate::http::{Code, Failure};

/// The time between two looks whether the scan has ended that a pull waits for.
const LOOK: Duration = Duration::from_millis(250);

impl Registry {
    /// Refuses what a proxy project has cached if it does not let it pass. What no runtime could run
    /// passes. A scan is asked for where the project wants one.
    pub(super) async fn check_cached(
        &self,
        project: &Project,
        repository: &RepositoryName,
        (digest, manifest): (&Digest, &[u8]),
        client: IpAddr,
    ) -> Result<(), Failure> {
        if !wants_scans(project) {
            return Ok(());
        }
        let read = Image::read(manifest);
        let (is_image, is_scanned) =
            (read != Runnable::Nothing, matches!(read, Runnable::Image(_)));
        if is_scanned {
            self.scans.pulled(project, repository, digest, Puller::Client(client)).await;
        }
        let Some(gate) = Gate::of(&project.metadata) else { return Ok(()) };
        let mut end = None;
        loop {
            let Some(facts) = self.cached_facts(&gate, project, repository, digest).await? else {
                return Ok(());
            };
            if !is_image {
                return match hides_images(manifest) {
                    true => Err(hidden(project)),
                    false => Ok(()),
                };
            }
            let (known, now) = (facts.known(), clock::timestamp());
            let decision = match is_scanned {
                true => decide_cached(&gate, known, &facts.allowed, now),
                // what runtimes may read in another way than this registry gets no report
                false => decide(&gate, known, &facts.allowed, now),
            };
            match decision {
                Decision::Pass => return Ok(()),
                Decision::Refuse(why) => return Err(refusal(repository, digest, &why)),
                Decision::Wait(wait, why) => {
                    let now = clock::now();
                    if now >= *end.get_or_insert(now + wait) {
                        return Err(come_back(repository, digest, &why));
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// What decides; `None` if this project refuses nothing, or nothing is scanned in this mesh. An edge
    /// that is cut off and knows nothing of the image counts it as not scanned.
    async fn cached_facts(
        &self,
        gate: &Gate,
        project: &Project,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Facts>, Failure> {
        let read = self.door.read(|records| match records.are_cached_judged(project.id)? {
            true => records.scan_facts(gate, project.id, repository, digest),
            false => Ok(None),
        });
        match read.await {
            Ok((facts, _)) => Ok(facts),
            Err(_) if self.neighbours.is_edge() => Ok(Some(Facts::default())),
            Err(failure) => Err(failure),
        }
    }
}

/// Whether an index has manifests inside, which clients would not ask for.
fn hides_images(manifest: &[u8]) -> bool {
    let is_index = Image::parts(manifest).is_none_or(|one| one == Image::default());
    is_index && carries_manifests(manifest)
}

fn hidden(project: &Project) -> Failure {
    let name = &project.name;
    let said = format!(
        "project {name} refuses vulnerable images (prevent_vul), and this index carries manifests inside (data), which nobody could refuse"
    );
    Failure::new(Code::Prevented, said)
}

/// The layers of an image may have to come from the upstream first, which takes longer than a client
/// waits: one that asks again finds the report.
fn come_back(repository: &RepositoryName, digest: &Digest, why: &Prevented) -> Failure {
    tracing::debug!(%repository, %digest, %why, "a pull is to come again");
    let message = format!("{repository}@{digest} is being scanned; try again ({why})");
    Failure::new(Code::Unavailable, message).header(header::RETRY_AFTER, "5")
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use rules::policies::vulnerabilities::{ScanStatus, Severity};
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_to_come_again_is_told_when() {
        let why = Prevented::Unscanned(ScanStatus::Running, Severity::High);
        let repository = "hub/app".parse().unwrap();
        let said = come_back(&repository, &Digest::sha256(b"x"), &why).response();
        assert_eq!(said.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(said.headers()[header::RETRY_AFTER], "5");
    }

    #[test]
    fn an_index_that_carries_its_images_hides_them() {
        let listed = json!({"schemaVersion": 2, "manifests": [{"digest": "x"}]});
        let inside = json!({"schemaVersion": 2, "manifests": [{"digest": "x", "data": "e30="}]});
        assert!(!hides_images(listed.to_string().as_bytes()));
        assert!(hides_images(inside.to_string().as_bytes()));
    }
}
