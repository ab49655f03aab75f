//! The gate before manifests: images with vulnerabilities that their project does not let pass are
//! refused here, at every node (`rules::policies::vulnerabilities` decides).

use std::time::Duration;

use ground::clock;
use rules::ledger::records::{ManifestRecord, Project};
use rules::ledger::scanning::{Facts, LookForScans};
use rules::policies::vulnerabilities::{Decision, Gate, Prevented, decide};
use rules::words::digest::Digest;
use rules::words::image::{Image, Runnable};
use rules::words::names::RepositoryName;

use super::Registry;
use crate::http::{Code, Failure};

/// The time between two looks whether a scan has ended that a pull waits for.
const LOOK: Duration = Duration::from_millis(250);

impl Registry {
    /// Refuses the manifest if its project does not let it pass. What no runtime could run passes.
    pub(super) async fn check_gate(
        &self,
        project: &Project,
        repository: &RepositoryName,
        digest: &Digest,
        manifest: &ManifestRecord,
    ) -> Result<(), Failure> {
        // the ledger does not know what is cached, and refuses this policy in such a project
        let gate = Gate::of(&project.metadata).filter(|_| project.upstream.is_none());
        let Some(gate) = gate else { return Ok(()) };
        // what runtimes may read in another way than this registry has no report, and does not pass
        if Image::read(&manifest.bytes) == Runnable::Nothing {
            return Ok(());
        }
        let mut end = None;
        loop {
            let Some(facts) = self.facts(&gate, project, repository, digest).await? else {
                return Ok(());
            };
            match decide(&gate, facts.known(), &facts.allowed, clock::timestamp()) {
                Decision::Pass => return Ok(()),
                Decision::Refuse(why) => return Err(refusal(repository, digest, &why)),
                Decision::Wait(wait, why) => {
                    let now = clock::now();
                    if now >= *end.get_or_insert(now + wait) {
                        return Err(refusal(repository, digest, &why));
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// What decides; `None` if nothing is scanned in this mesh. A node that is cut off uses what it
    /// knows, and an edge that knows nothing of the image counts it as not scanned.
    async fn facts(
        &self,
        gate: &Gate,
        project: &Project,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Facts>, Failure> {
        let read =
            self.door.read(|records| records.scan_facts(gate, project.id, repository, digest));
        match read.await {
            Ok((facts, _)) => Ok(facts),
            Err(_) if self.neighbours.is_edge() => Ok(Some(Facts::default())),
            Err(failure) => Err(failure),
        }
    }
}

fn refusal(repository: &RepositoryName, digest: &Digest, why: &Prevented) -> Failure {
    metrics::counter!("atoll_pulls_prevented_total").increment(1);
    tracing::debug!(%repository, %digest, %why, "a pull is refused");
    Failure::new(Code::Prevented, why.to_string())
}
