//! Takes cached content out of the ledger, once the mesh has the feature level of caches.
//!
//! Earlier builds recorded it there. Every replica takes what its ledger has into its own cache.
//! When all live replicas have done so, each project's primary empties the ledger of it, a limited
//! number of records at a time. After a crash everything begins again where it stopped: what is in
//! the ledger is served from there until it is gone, and taking something over twice changes
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use ground::supervise::Tasks;
use rules::ledger::cached::{CachedManifest, Origin};
use rules::ledger::command::Outcome;
use rules::ledger::records::{
    Look, ManifestRecord, Project, ReadRecords, RecordError, TagRecord, decode, key,
};
use rules::words::digest::Digest;
use rules::words::names::{RepositoryName, Tag};
use store::Tagged;
use tracing::{info, warn};

use crate::view::caches::Caches;
use crate::view::neighbours::Neighbours;
use crate::writes::Writes;

/// The time between two looks at what the ledger still has.
const LOOK: Duration = Duration::from_secs(2);
/// The same when it had nothing more. From then on nothing comes to it.
const REST: Duration = Duration::from_secs(60);
/// The number of manifests, and of tags, that are taken over at a time. Manifests may be large.
const PIECE: usize = 50;
/// The time between two commands that empty the ledger: other entries come first.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a project's content is still in the ledger.
#[derive(Debug, thiserror::Error)]
enum NotMoved {
    #[error(transparent)]
    Records(#[from] RecordError),
    #[error(transparent)]
    Store(#[from] store::StoreError),
    #[error("the ledger did not take the command: {0}")]
    Ledger(String),
}

/// Moves cached content out of the ledger as long as the node runs. Does nothing at an edge.
pub fn start(neighbours: Arc<Neighbours>, caches: Arc<Caches>, writes: Arc<Writes>, tasks: &Tasks) {
    if neighbours.is_edge() {
        return;
    }
    let moving = Moving { neighbours, caches, writes };
    tasks.spawn("proxy.move", async move {
        let mut left = true;
        loop {
            tokio::time::sleep(if left { LOOK } else { REST }).await;
            left = moving.look().await.unwrap_or_else(|error| {
                warn!(%error, "what is cached could not be moved out of the ledger yet; it is tried again");
                true
            });
        }
    });
}

struct Moving {
    neighbours: Arc<Neighbours>,
    caches: Arc<Caches>,
    writes: Arc<Writes>,
}

impl Moving {
    /// Whether the ledger has, or may come to have, something to move.
    async fn look(&self) -> Result<bool, NotMoved> {
        let Some(ledger) = self.neighbours.records.ledger() else { return Ok(false) };
        let mut left = !self.caches.are_used() || ledger.view()?.get(&key::mesh())?.is_none();
        if left {
            return Ok(true);
        }
        for project in ledger.view()?.projects()? {
            if project.upstream.is_none() {
                continue;
            }
            let recorded =
                !ledger.view()?.scan(&key::repositories_of(&project.name), None, 1)?.is_empty();
            left |= recorded;
            if !self.caches.has_moved(project.id) {
                if recorded {
                    let manifests = self.take_over(&project).await?;
                    info!(project = %project.name, manifests, "this node has taken over what the ledger has recorded of a cache");
                }
                self.caches.note_moved(project.id);
            }
            let mine = project.primary == self.neighbours.me;
            if recorded && mine && self.caches.all_have_moved(&project.name).await {
                self.empty(&project).await?;
            }
        }
        Ok(left)
    }

    /// Copies everything that the ledger has of a project's content into this node's cache. Returns
    /// the number of manifests.
    async fn take_over(&self, project: &Project) -> Result<usize, NotMoved> {
        let records = &self.neighbours.records;
        let (Some(ledger), Some(cached)) = (records.ledger(), records.cached()) else {
            return Ok(0);
        };
        let mut taken = 0;
        let mut last = None::<Vec<u8>>;
        loop {
            // a view of its own for each repository: one that is held keeps the file's old pages
            let view = ledger.view()?;
            let Some(origin) = Origin::of_project(&view, &project.name)? else { return Ok(taken) };
            let repositories = key::repositories_of(&project.name);
            let Some((place, _)) = view.scan(&repositories, last.as_deref(), 1)?.pop() else {
                return Ok(taken);
            };
            let repository = key::name_of(&place).parse::<RepositoryName>();
            last = Some(place);
            let Ok(repository) = repository else { continue };
            let prefix = key::manifests(&repository);
            let mut after = None::<Vec<u8>>;
            loop {
                let pairs = view.scan(&prefix, after.as_deref(), PIECE)?;
                let Some((end, _)) = pairs.last() else { break };
                after = Some(end.clone());
                let manifests: Vec<_> =
                    pairs.iter().filter_map(|pair| manifest_of(&repository, pair)).collect();
                taken += manifests.len();
                cached.keep(origin, manifests, CachedManifest::fetched).await?;
            }
            let prefix = key::tags(&repository);
            let mut after = None::<Vec<u8>>;
            loop {
                let pairs = view.scan(&prefix, after.as_deref(), PIECE)?;
                let Some((end, _)) = pairs.last() else { break };
                after = Some(end.clone());
                let tags = pairs.iter().filter_map(|(place, value)| {
                    let tag = key::tag_of(place).parse::<Tag>().ok()?;
                    Some((tag, decode::<TagRecord>(value).ok()?))
                });
                cached.keep_tags(origin, repository.clone(), tags.collect()).await?;
            }
        }
    }

    /// As the project's primary: removes its content from the ledger.
    async fn empty(&self, project: &Project) -> Result<(), NotMoved> {
        loop {
            match self.writes.empty_cache(&project.name).await {
                Ok(Outcome::Unfinished) => tokio::time::sleep(PAUSE).await,
                Ok(Outcome::Done) => {
                    info!(project = %project.name, "what is cached is out of the ledger");
                    return Ok(());
                }
                Ok(outcome) => return Err(NotMoved::Ledger(format!("{outcome:?}"))),
                Err(error) => return Err(NotMoved::Ledger(format!("{error:?}"))),
            }
        }
    }
}

/// A recorded manifest as it is cached; `None` if this build cannot read it.
fn manifest_of(repository: &RepositoryName, (place, value): &(Vec<u8>, Vec<u8>)) -> Option<Tagged> {
    let digest: Digest = key::digest_of(place)?;
    let record = decode::<ManifestRecord>(value).ok()?;
    let manifest = CachedManifest::of(repository, digest, record).ok()?;
    Some((manifest, Vec::new()))
}
