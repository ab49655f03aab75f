//! Indexes the tags that were set before the mesh had the feature level of caches, so that a manifest
//! can be deleted without reading all tags of its repository.
//!
//! Each project's primary does it, repository by repository, a limited number of tags in each entry
//! of the ledger. The ledger knows how far a repository is, so another primary goes on there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ground::supervise::Tasks;
use rules::ledger::command::Outcome;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, ReadRecords, RecordError, TagIndex, key};
use rules::wire::WriteError;
use rules::words::names::{ProjectId, ProjectName, RepositoryName};
use tracing::{debug, info};

use super::Writes;

/// The time between two looks for projects that this node has become the primary of.
const LOOK: Duration = Duration::from_secs(30);
/// The time between two commands: other entries come first.
const PAUSE: Duration = Duration::from_millis(50);
/// The number of repositories that are read at a time.
const PAGE: usize = 100;

/// Indexes tags as long as the node runs. Does nothing at an edge.
pub fn start(writes: Arc<Writes>, tasks: &Tasks) {
    if writes.records.ledger().is_none() {
        return;
    }
    tasks.spawn("writes.index", async move {
        let mut done = BTreeSet::new();
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = look(&writes, &mut done).await {
                debug!(error = ?error, "tags could not be indexed yet");
            }
        }
    });
}

async fn look(writes: &Writes, done: &mut BTreeSet<ProjectId>) -> Result<(), WriteError> {
    let Some(ledger) = writes.records.ledger() else { return Ok(()) };
    let view = ledger.view().map_err(unreadable)?;
    if view.level().map_err(unreadable)? < Level::CACHES {
        return Ok(());
    }
    for project in view.projects().map_err(unreadable)? {
        let mine = project.primary == writes.neighbours.me && project.upstream.is_none();
        if mine && !done.contains(&project.id) {
            let tags = index(writes, &project.name).await?;
            if tags > 0 {
                info!(project = %project.name, repositories = tags, "tags are indexed by their manifests");
            }
            done.insert(project.id);
        }
    }
    Ok(())
}

/// Indexes the tags of a project. Returns the number of repositories that were not indexed.
async fn index(writes: &Writes, project: &ProjectName) -> Result<usize, WriteError> {
    let Some(ledger) = writes.records.ledger() else { return Ok(0) };
    let (mut after, mut indexed) = (None::<Vec<u8>>, 0);
    loop {
        let repositories = key::repositories_of(project);
        let view = ledger.view().map_err(unreadable)?;
        let page = view.scan(&repositories, after.as_deref(), PAGE).map_err(unreadable)?;
        let Some((last, _)) = page.last() else { return Ok(indexed) };
        after = Some(last.clone());
        for (place, _) in page {
            let Ok(repository) = key::name_of(&place).parse::<RepositoryName>() else { continue };
            let known: Option<TagIndex> =
                view.record(&key::tag_index(&repository)).map_err(unreadable)?;
            if known == Some(TagIndex::Whole) {
                continue;
            }
            indexed += 1;
            while writes.index_tags(&repository).await? == Outcome::Unfinished {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn unreadable(error: RecordError) -> WriteError {
    WriteError::Ledger(rules::wire::NoLedger::Storage(error.to_string()))
}
