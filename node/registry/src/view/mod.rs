//! The ledger's records as this node reads them: a replica from its own ledger, an edge from the
//! answers of replicas.
//!
//! All reads of records go through here, so the rest of the node does not depend on which of the
//! two it is.

pub mod caches;
pub mod conditions;
mod edge;
mod found;
mod kept;
pub mod listed;
mod looking;
pub mod neighbours;
pub mod runs;
pub mod upkeep;

use std::sync::Arc;
use std::time::Duration;

use mesh::ledger::{Freshness as LedgerFreshness, Ledger, Reading};
use rules::ledger::admitted::Stamp;
use rules::ledger::cached::WithCached;
use rules::ledger::command::Command;
use rules::ledger::records::{ReadRecords, RecordError};
use rules::wire::{NoLedger, Proposed};
use rules::words::names::{OperationId, RepositoryName, Revision};
use store::CachedRecords;
use tokio::sync::watch;

pub use edge::{EdgeRecords, EdgeStanding};
pub use looking::{changes, look};

/// Where a node's records come from.
#[derive(Clone)]
pub enum Records {
    /// The node takes part in the ledger, and caches what proxy projects have.
    Ledger(Arc<Ledger>, Arc<CachedRecords>),
    /// The node is an edge.
    Edge(Arc<EdgeRecords>),
}

/// Whether every other node would give the same answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// They would; or, at an edge, the answer is no older than the settings allow.
    Fresh,
    /// From records that may be old, because no leader can be reached.
    Stale,
    /// From what an edge kept this long ago, because no replica can be reached.
    Aged(Duration),
    /// The same, and some of it is known to have changed since. It counts against an image, and for
    /// none.
    Superseded(Duration),
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The storage failed.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// This node is an edge that cannot reach a replica. It has not kept what is needed, or kept it
    /// too long ago.
    #[error(
        "this edge can reach no replica of the mesh, and has not kept what this needs, or kept it too \
         long ago (edge.alone_for; what is about people: edge.access_age)"
    )]
    CutOff,
}

impl Records {
    /// The ledger, if this node takes part in it.
    pub fn ledger(&self) -> Option<&Arc<Ledger>> {
        match self {
            Records::Ledger(ledger, _) => Some(ledger),
            Records::Edge(_) => None,
        }
    }

    /// What this node has cached of proxy projects apart from blobs, if it is a replica. An edge
    /// has it among the answers that it keeps.
    pub fn cached(&self) -> Option<&Arc<CachedRecords>> {
        match self {
            Records::Ledger(_, cached) => Some(cached),
            Records::Edge(_) => None,
        }
    }

    /// The records as this node has them, which may be old, with what it has cached. For hints,
    /// never for answers.
    pub fn view(&self) -> Result<Box<dyn ReadRecords + Send>, RecordError> {
        match self {
            Records::Ledger(ledger, cached) => {
                Ok(Box::new(WithCached { ledger: ledger.view()?, cache: cached.view()? }))
            }
            Records::Edge(edge) => Ok(Box::new(edge.view())),
        }
    }

    /// Runs `read`, perhaps several times, on records that are fresh, if that is possible. A
    /// replica's include what it has cached.
    pub async fn read<T>(
        &self,
        read: impl Fn(&dyn ReadRecords) -> Result<T, RecordError>,
    ) -> Result<(T, Freshness), ReadError> {
        match self {
            Records::Ledger(ledger, cached) => {
                let with_cached = |reading: &Reading| {
                    read(&WithCached { ledger: reading, cache: cached.view()? })
                };
                let (value, freshness) = ledger.read(with_cached).await?;
                Ok((
                    value,
                    match freshness {
                        LedgerFreshness::Fresh => Freshness::Fresh,
                        LedgerFreshness::Stale => Freshness::Stale,
                    },
                ))
            }
            Records::Edge(edge) => edge.read(read).await,
        }
    }

    /// Grows whenever the projects, upstreams or nodes in [`Records::view`] may have changed.
    pub fn version(&self) -> u64 {
        match self {
            Records::Ledger(ledger, _) => ledger.applied().borrow().0,
            Records::Edge(edge) => edge.version(),
        }
    }

    /// The state of what decides about pulls of a repository's images; `None` at an edge that may not
    /// hear of changes now. Take it before the records are read that decide, and after a read
    /// that was fresh.
    pub fn stamp(&self, repository: &RepositoryName) -> Option<Stamp> {
        match self {
            Records::Ledger(ledger, _) => Some(ledger.stamp(repository)),
            Records::Edge(edge) => edge.stamp(),
        }
    }

    /// At an edge, how long ago a replica that was sure told it of changes in what decides about pulls;
    /// `None` if none ever has, and at a replica.
    pub fn told_ago(&self) -> Option<Duration> {
        match self {
            Records::Ledger(..) => None,
            Records::Edge(edge) => edge.told_ago(),
        }
    }

    /// Whether writes can succeed now: the node hears the ledger's majority. Always false at an
    /// edge.
    pub fn connected(&self) -> bool {
        self.ledger().is_some_and(|ledger| ledger.connected())
    }

    /// See [`Ledger::propose`]; an edge cannot propose.
    pub async fn propose(
        &self,
        operation: OperationId,
        command: Command,
        deadline: Duration,
    ) -> Result<Proposed, NoLedger> {
        match self {
            Records::Ledger(ledger, _) => ledger.propose(operation, command, deadline).await,
            Records::Edge(_) => Err(NoLedger::NotLeader(None)),
        }
    }

    /// Waits until more is applied here than when [`Records::version`] was `seen`, but at most
    /// `patience`. A caller takes `seen` before it looks at the records, so that it misses nothing
    /// that is applied between the look and the wait. An edge always waits for `patience`.
    pub async fn applied_more(&self, seen: u64, patience: Duration) {
        match self {
            Records::Ledger(ledger, _) => grown(ledger.applied(), Revision(seen), patience).await,
            Records::Edge(_) => tokio::time::sleep(patience).await,
        }
    }
}

/// Waits until there is more than `seen`, but at most `patience`.
async fn grown(mut applied: watch::Receiver<Revision>, seen: Revision, patience: Duration) {
    let more = async {
        if applied.wait_for(|now| *now > seen).await.is_err() {
            // the ledger has stopped; a caller in a loop must not spin
            std::future::pending::<()>().await;
        }
    };
    let _ = tokio::time::timeout(patience, more).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_wait_ends_with_what_came_after_the_look_and_not_with_what_was_there() {
        let (sender, first) = watch::channel(Revision(1));
        sender.send_replace(Revision(7));
        // everybody gets a clone of a receiver that has seen nothing
        let wait = |seen: u64| grown(first.clone(), Revision(seen), HOUR);
        assert!(wait(7).now_or_never().is_none(), "what was there at the look ends no wait");
        // applied between the look and the wait
        sender.send_replace(Revision(8));
        assert!(wait(7).now_or_never().is_some());
        let mut waiting = Box::pin(wait(8));
        assert!((&mut waiting).now_or_never().is_none());
        sender.send_replace(Revision(9));
        assert!(waiting.now_or_never().is_some());
        drop(sender);
        assert!(wait(9).now_or_never().is_none(), "nothing comes any more, and nobody spins");
    }
}
