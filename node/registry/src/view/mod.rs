//! The ledger's records as this node reads them: a replica from its own ledger, an edge from what
//! replicas tell it.
//!
//! Everything that reads records goes through here, so that the rest of the node does not know
//! which it is.

mod edge;
mod kept;
pub mod listed;
mod looking;
pub mod neighbours;

use std::sync::Arc;
use std::time::Duration;

use mesh::ledger::{Freshness as LedgerFreshness, Ledger};
use rules::ledger::command::Command;
use rules::ledger::records::{ReadRecords, RecordError};
use rules::wire::{NoLedger, Proposed};
use rules::words::names::OperationId;

pub use edge::{EdgeRecords, EdgeStanding};
pub use looking::look;

/// Where a node's records come from.
#[derive(Clone)]
pub enum Records {
    /// The node takes part in the ledger.
    Ledger(Arc<Ledger>),
    /// The node is an edge.
    Edge(Arc<EdgeRecords>),
}

/// Whether an answer is what every other node would say now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It is; or, at an edge, it is as old as the settings allow.
    Fresh,
    /// From records that may be old, because no leader can be reached.
    Stale,
    /// From what an edge kept this long ago, because no replica can be reached.
    Aged(Duration),
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The storage failed.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// This node is an edge that can reach no replica, and has not kept what is needed, or kept it
    /// too long ago.
    #[error(
        "this edge can reach no replica of the mesh, and has not kept what this needs (edge.alone_for)"
    )]
    CutOff,
}

impl Records {
    /// The ledger, on a node that takes part in it.
    pub fn ledger(&self) -> Option<&Arc<Ledger>> {
        match self {
            Records::Ledger(ledger) => Some(ledger),
            Records::Edge(_) => None,
        }
    }

    /// The records as this node has them: true some time ago. For hints, never for answers.
    pub fn view(&self) -> Result<Box<dyn ReadRecords + Send>, RecordError> {
        match self {
            Records::Ledger(ledger) => Ok(Box::new(ledger.view()?)),
            Records::Edge(edge) => Ok(Box::new(edge.view())),
        }
    }

    /// Runs `read`, perhaps several times, on records that are fresh, if at all possible.
    pub async fn read<T>(
        &self,
        read: impl Fn(&dyn ReadRecords) -> Result<T, RecordError>,
    ) -> Result<(T, Freshness), ReadError> {
        match self {
            Records::Ledger(ledger) => {
                let (value, freshness) = ledger.read(|reading| read(reading)).await?;
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

    /// Grows whenever what [`Records::view`] shows of projects, upstreams and nodes may have
    /// changed.
    pub fn version(&self) -> u64 {
        match self {
            Records::Ledger(ledger) => ledger.applied().borrow().0,
            Records::Edge(edge) => edge.version(),
        }
    }

    /// Whether writes have a chance now: the node hears the ledger's majority. Never at an edge.
    pub fn connected(&self) -> bool {
        self.ledger().is_some_and(|ledger| ledger.connected())
    }

    /// See [`Ledger::propose`]; an edge proposes nothing.
    pub async fn propose(
        &self,
        operation: OperationId,
        command: Command,
        deadline: Duration,
    ) -> Result<Proposed, NoLedger> {
        match self {
            Records::Ledger(ledger) => ledger.propose(operation, command, deadline).await,
            Records::Edge(_) => Err(NoLedger::NotLeader(None)),
        }
    }

    /// Waits until something new is applied here, at most `patience`. At an edge just that long.
    pub async fn applied_more(&self, patience: Duration) {
        match self {
            Records::Ledger(ledger) => {
                let mut applied = ledger.applied();
                let _ = tokio::time::timeout(patience, applied.changed()).await;
            }
            Records::Edge(_) => tokio::time::sleep(patience).await,
        }
    }
}
