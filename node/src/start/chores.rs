//! Background tasks that run as long as the node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use mesh::ledger::Ledger;
use registry::blobs::copies::Copies;
use registry::pushes::sessions::Sessions;
use registry::view::Records;
use registry::view::neighbours::Neighbours;
use rules::ledger::cached::Origin;
use rules::ledger::collecting::{self, LookForGarbage};
use rules::ledger::command::{Command, Outcome};
use rules::ledger::records::{Look, NodeRecord, ReadRecords, key};
use rules::policies::caching::unused_after;
use rules::wire::questions::Introduce;
use rules::words::moment::Timestamp;
use rules::words::names::{NodeId, OperationId, ProjectName};
use store::{Store, StoreError};
use tracing::{debug, info, warn};

use super::birth::Birth;

/// The maximum number of grants that are removed at a time.
const GRANTS: usize = 10_000;

/// Forms the mesh that `init` or `up` described, on the one node that has the birth file. Retries
/// until it is done.
pub(super) async fn be_born(ledger: Arc<Ledger>, birth: Birth, data_dir: std::path::PathBuf) {
    let voters: BTreeMap<NodeId, SocketAddr> = birth.voters.iter().copied().collect();
    loop {
        match ledger.form(voters.clone()).await {
            Ok(()) => break,
            Err(error) => warn!(%error, "the ledger could not be formed yet"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for (operation, command) in birth.commands() {
        loop {
            match ledger.propose(operation, command.clone(), Duration::from_secs(5)).await {
                Ok(proposed) => {
                    info!(command = command.name(), outcome = ?proposed.outcome, "birth");
                    break;
                }
                Err(error) => warn!(%error, "the mesh could not be formed yet"),
            }
        }
    }
    if let Err(error) = Birth::forget(&data_dir) {
        warn!(%error, "the birth file could not be removed");
    }
}

/// Introduces every member in the ledger to the gossip, and updates this node's own record in the
/// ledger when it has changed.
pub(super) async fn introduce(neighbours: Arc<Neighbours>, record: NodeRecord) {
    loop {
        for node in neighbours.nodes() {
            if node.id != neighbours.me {
                neighbours.links.know(node.id, node.address);
                neighbours.members.introduce(node.id, node.role, node.address).await;
            }
        }
        for removed in neighbours.removed() {
            neighbours.links.shut_out(removed);
            neighbours.members.handle_left(removed);
        }
        let known = neighbours
            .records
            .view()
            .and_then(|v| v.record::<NodeRecord>(&key::node(neighbours.me)));
        if let Ok(Some(known)) = known
            && known != record
            && tell(&neighbours, &record).await
        {
            info!(address = %record.address, url = record.url, "this node's record was brought up to date");
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// Updates this node's record in the ledger. An edge does this through a replica, and so does a
/// replica that hears no leader, because the leader may look for it at its old address.
async fn tell(neighbours: &Neighbours, record: &NodeRecord) -> bool {
    match &neighbours.records {
        Records::Edge(edge) => edge.introduce(record.clone()).await,
        Records::Ledger(ledger, _) if ledger.connected() => {
            let command = Command::MoveNode { node: record.clone() };
            match ledger.propose(OperationId(rand::random()), command, Duration::from_secs(5)).await
            {
                Ok(proposed) if proposed.outcome == Outcome::Done => true,
                Ok(proposed) => {
                    warn!(outcome = ?proposed.outcome, "this node's record could not be brought up to date");
                    false
                }
                Err(error) => {
                    warn!(%error, "this node's record could not be brought up to date yet");
                    false
                }
            }
        }
        Records::Ledger(..) => {
            for other in neighbours.alive().into_iter().filter(|other| other.id != neighbours.me) {
                let question = Introduce { record: record.clone() };
                match neighbours.links.ask(other.id, question, Duration::from_secs(5)).await {
                    Ok(()) => return true,
                    Err(error) => {
                        debug!(to = %other.id, %error, "this node's record could not be told")
                    }
                }
            }
            false
        }
    }
}

/// Extends the grants of open pushes until they have been idle for `lasts`: the last layer alone
/// may take longer than that.
pub(super) async fn keep_grants(
    store: Arc<Store>,
    sessions: Arc<Sessions>,
    copies: Arc<Copies>,
    lasts: Duration,
) {
    loop {
        tokio::time::sleep((lasts / 4).min(Duration::from_secs(30))).await;
        for repository in sessions.repositories().union(&copies.repositories()) {
            if let Err(error) = store.extend_grants(repository, lasts).await {
                warn!(%repository, %error, "what an open push was granted could not be kept");
            }
        }
    }
}

/// Removes uploads, grants and files that are no longer used.
pub(super) async fn sweep(store: Arc<Store>, sessions: Arc<Sessions>, records: Records) {
    match store.remove_strays().await {
        Ok(0) => {}
        Ok(files) => info!(files, "files of blobs that a crash left behind were removed"),
        Err(error) => warn!(%error, "files that a crash left behind could not be removed"),
    }
    loop {
        tokio::time::sleep(Duration::from_secs(30)).await;
        sessions.expire();
        // a replica removes them when it has told what they were about
        if records.ledger().is_none()
            && let Err(error) = remove_ended_grants(&store).await
        {
            warn!(%error, "grants that have ended could not be removed");
        }
        if let Err(error) = store.note_uses().await {
            warn!(%error, "the use of cached blobs could not be written down");
        }
        if let Err(error) = sweep_manifests(&store, &records).await {
            warn!(%error, "what is cached of manifests could not be swept");
        }
    }
}

async fn remove_ended_grants(store: &Store) -> Result<(), StoreError> {
    let ended = store.ended_grants(GRANTS)?;
    store.remove_grants(ended.into_iter().map(|(grant, _)| grant).collect()).await
}

/// Removes cached manifests that are too many, too old, or of no project any more. What is left
/// takes its part of the cache's budget.
async fn sweep_manifests(store: &Store, records: &Records) -> Result<(), StoreError> {
    let (Some(cached), Some(ledger)) = (records.cached(), records.ledger()) else { return Ok(()) };
    // a node that does not know its mesh yet knows no projects either
    let view = ledger.view().map_err(|e| StoreError::Cached(e.to_string()))?;
    let formed = view.get(&key::mesh()).is_ok_and(|mesh| mesh.is_some());
    if let (Ok(there), Ok(projects), true) = (Origin::all(&view), view.projects(), formed) {
        let unused: BTreeMap<ProjectName, Option<Duration>> = projects
            .into_iter()
            .map(|project| (project.name, unused_after(&project.metadata)))
            .collect();
        let of = |(name, origin)| (origin, unused.get(&name).copied().flatten());
        let there: BTreeMap<Origin, Option<Duration>> = there.into_iter().map(of).collect();
        // what a blob was cached for is not known any more when no manifest refers to it
        let longest = there.values().copied().collect::<Option<Vec<Duration>>>();
        let longest = longest.and_then(|all| all.into_iter().max());
        cached.sweep(there).await?;
        if let Some(longest) = longest {
            let before = collecting::before(clock::timestamp(), longest);
            evict_unused(store, records, before).await?;
        }
    }
    store.share_budget(cached.totals().1);
    Ok(())
}

/// Evicts cached blobs that nobody has used since `before` and that no manifest refers to, in the
/// ledger or in this node's cache.
async fn evict_unused(
    store: &Store,
    records: &Records,
    before: Timestamp,
) -> Result<(), StoreError> {
    let idle = {
        let view = records.view().map_err(|e| StoreError::Cached(e.to_string()))?;
        let mut idle = store.unused(before);
        if !idle.is_empty() {
            let granted = store.all_granted()?;
            idle.retain(|digest| !granted.contains(digest));
        }
        // what cannot be read counts as wanted
        idle.retain(|digest| !view.is_referenced(digest).unwrap_or(true));
        idle
    };
    store.evict_unused(&idle, before).await
}
