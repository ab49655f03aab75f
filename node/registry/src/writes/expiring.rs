//! Ends the time of what is in the trash.
//!
//! Each project's primary proposes it, a limited number of records in each entry of the ledger, by its
//! own clock; `apply` compares the time of the entry with that of each record. What a primary that
//! dies has not proposed the next one finds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::{Tasks, at_length};
use rules::ledger::change::Change;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, RecordError};
use rules::ledger::trash::{AT_ONCE, LookForTrash, TrashChange};
use rules::wire::WriteError;
use rules::words::digest::Digest;
use rules::words::names::{OperationId, ProjectName, RepositoryName};
use tracing::{debug, info};

use super::Writes;

/// The time between two looks for what has ended.
const LOOK: Duration = Duration::from_secs(10);
/// The time between two commands: other entries come first.
const PAUSE: Duration = Duration::from_millis(50);

/// Ends it as long as the node runs. Does nothing at an edge.
pub fn start(writes: Arc<Writes>, tasks: &Tasks) {
    if writes.records.ledger().is_none() {
        return;
    }
    tasks.spawn("writes.expire", async move {
        loop {
            tokio::time::sleep(LOOK).await;
            if writes.records.connected()
                && let Err(error) = look(&writes).await
            {
                debug!(?error, "what is in the trash for too long could not be removed yet");
            }
        }
    });
}

/// The records of one project that have ended.
type Ended = Vec<(RepositoryName, Digest)>;

/// What has ended of the projects whose primary is this node, at most as much of each as one entry
/// takes.
fn ended(writes: &Writes) -> Result<BTreeMap<ProjectName, Ended>, RecordError> {
    let view = writes.records.view()?;
    let mut ended: BTreeMap<ProjectName, Ended> = BTreeMap::new();
    if view.level()? < Level::TRASH {
        return Ok(ended);
    }
    let (now, mut after) = (clock::timestamp(), None);
    loop {
        let page = view.ended_trash(now, after.as_deref(), AT_ONCE)?;
        let Some((last, ..)) = page.last() else { return Ok(ended) };
        after = Some(last.clone());
        for (_, repository, digest) in page {
            let project = repository.project();
            let known = view.project(&project)?;
            if known.is_none_or(|project| project.primary != writes.neighbours.me) {
                continue;
            }
            let of_project = ended.entry(project).or_default();
            if of_project.len() == AT_ONCE {
                return Ok(ended);
            }
            of_project.push((repository, digest));
        }
    }
}

async fn look(writes: &Writes) -> Result<(), WriteError> {
    loop {
        let some = at_length(|| ended(writes)).map_err(|error| {
            WriteError::Ledger(rules::wire::NoLedger::Storage(error.to_string()))
        })?;
        if some.is_empty() {
            return Ok(());
        }
        for (project, records) in some {
            let count = records.len();
            let change = TrashChange::Expire { project: project.clone(), records };
            let epoch = writes.primary_of(&project)?.epoch;
            let command = Change::Trash(Box::new(change)).under(epoch);
            writes.propose_fenced(OperationId(rand::random()), command).await?;
            info!(%project, records = count, "what was in the trash for its time is removed");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
