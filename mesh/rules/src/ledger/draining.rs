//! Replicas that drain: they give away what others need them for, so that they can be switched off.
//!
//! While a replica drains, its projects get other primaries, it hands leadership of the ledger over,
//! and its copies count for nothing, so they are made elsewhere. It answers as before. Nothing of
//! this is lost if it is called off: copies that were made stay.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::level::Level;
use super::records::{Look, RecordError};
use crate::words::moment::Timestamp;
use crate::words::names::NodeId;

/// A change of which replicas drain. A variant's position is its number in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainChange {
    /// The replica drains from now on.
    Begin(NodeId),
    /// It does not any more.
    End(NodeId),
}

impl DrainChange {
    /// The replica.
    pub fn node(&self) -> NodeId {
        match self {
            DrainChange::Begin(node) | DrainChange::End(node) => *node,
        }
    }

    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            DrainChange::Begin(_) => "begin_drain",
            DrainChange::End(_) => "end_drain",
        }
    }

    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        Level::DRAINS
    }
}

/// Keys of draining replicas in the map.
pub mod key {
    use super::*;

    /// Since when a replica drains.
    pub fn draining(node: NodeId) -> Vec<u8> {
        [&all_draining()[..], &node.0.to_be_bytes()].concat()
    }
    /// All of them.
    pub fn all_draining() -> Vec<u8> {
        b"9d".to_vec()
    }
    /// The replica of a key of [`draining`].
    pub fn node_of(key: &[u8]) -> Option<NodeId> {
        key.get(2..)?.try_into().ok().map(|id| NodeId(u64::from_be_bytes(id)))
    }
}

/// Typed reading of which replicas drain.
pub trait LookForDraining: Look {
    /// The replicas that drain.
    fn draining(&self) -> Result<BTreeSet<NodeId>, RecordError> {
        let all = self.scan(&key::all_draining(), None, usize::MAX)?;
        Ok(all.iter().filter_map(|(place, _)| key::node_of(place)).collect())
    }
    /// Since when a replica drains, if it does.
    fn draining_since(&self, node: NodeId) -> Result<Option<Timestamp>, RecordError> {
        self.record(&key::draining(node))
    }
}

impl<R: Look + ?Sized> LookForDraining for R {}
