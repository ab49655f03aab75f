//! Counts what projects have that are older than the feature level of quotas.
//!
//! Each project's primary does it, a limited number of records in each entry of the ledger. The
//! ledger knows how far a project is, so another primary goes on there. From then on `apply` counts
//! with each write.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ground::supervise::Tasks;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::level::Level;
use rules::ledger::quotas::{LookForQuotas, Progress, QuotaChange};
use rules::ledger::records::{Look, RecordError};
use rules::wire::NoLedger;
use rules::words::names::{OperationId, ProjectId, ProjectName};
use tracing::{debug, info};

use super::Writes;

/// The time between two looks for projects that are not counted.
const LOOK: Duration = Duration::from_secs(5);
/// The time between two commands: other entries come first.
const PAUSE: Duration = Duration::from_millis(20);

/// Counts as long as the node runs. Does nothing at an edge.
pub fn start(writes: Arc<Writes>, tasks: &Tasks) {
    if writes.records.ledger().is_none() {
        return;
    }
    tasks.spawn("writes.count", async move {
        let mut done = BTreeSet::new();
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = look(&writes, &mut done).await {
                debug!(%error, "what projects have could not be counted yet");
            }
        }
    });
}

fn unreadable(error: RecordError) -> NoLedger {
    NoLedger::Storage(error.to_string())
}

async fn look(writes: &Writes, done: &mut BTreeSet<ProjectId>) -> Result<(), NoLedger> {
    let mut wanted = Vec::new();
    {
        let view = writes.records.view().map_err(unreadable)?;
        if view.level().map_err(unreadable)? < Level::QUOTAS {
            return Ok(());
        }
        for project in view.projects().map_err(unreadable)? {
            let mine = project.primary == writes.neighbours.me && project.upstream.is_none();
            if !mine || done.contains(&project.id) {
                continue;
            }
            let usage = view.usage(&project.name).map_err(unreadable)?;
            match usage.is_some_and(|usage| usage.progress == Progress::Whole) {
                true => {
                    done.insert(project.id);
                }
                false => wanted.push(project.name),
            }
        }
    }
    for project in wanted {
        count(writes, &project).await?;
        info!(%project, "it is counted what the project has");
    }
    Ok(())
}

async fn count(writes: &Writes, project: &ProjectName) -> Result<(), NoLedger> {
    loop {
        let change = QuotaChange::Count { project: project.clone() };
        let (operation, command) = (OperationId(rand::random()), Command::Quota(Box::new(change)));
        let proposed = writes.records.propose(operation, command, writes.terms.commit).await?;
        if proposed.outcome != Outcome::Unfinished {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
