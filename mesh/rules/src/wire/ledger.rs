//! Writes on their way to the ledger, and read leases.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ledger::change::Change;
use crate::ledger::command::Outcome;
use crate::ledger::lease::Grant;
use crate::words::digest::Digest;
use crate::words::names::{NodeId, OperationId, RepositoryName, Revision, Tag};

/// A command that is in the ledger for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// Its entry.
    pub revision: Revision,
    /// What came of it.
    pub outcome: Outcome,
}

/// Why the ledger did not answer. Whether the command took effect is unknown unless it says so:
/// retry with the same operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NoLedger {
    /// Ask this one instead; nothing was proposed.
    #[error("another node leads the ledger")]
    NotLeader(Option<NodeId>),
    /// No majority, or not in time.
    #[error("the ledger has no majority or did not answer in time")]
    NoMajority,
    /// The node's own disk failed.
    #[error("the ledger's storage failed: {0}")]
    Storage(String),
}

/// A write that only the project's primary may commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The idempotency key.
    pub operation: OperationId,
    /// What to do.
    pub kind: WriteKind,
}

/// The kinds of [`Write`]. The primary fills in epoch and descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteKind {
    /// Store a manifest and move tags to it.
    PutManifest {
        /// Where.
        repository: RepositoryName,
        /// Its name; checked by who received it.
        digest: Digest,
        /// Its type; effective, never empty.
        media_type: String,
        /// As received.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// The tags to move.
        tags: Vec<Tag>,
    },
    /// Anything that needs no more than the primary's epoch.
    Fenced(Change),
}

/// Why a primary did not commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteError {
    /// Not the primary (any more): look again who is. Nothing was committed.
    NotPrimary,
    /// Blobs that the manifest refers to are in no copy that the repository may use. Nothing was
    /// committed.
    BlobsUnknown(Vec<Digest>),
    /// Blobs that the manifest refers to are with nobody who answered; these did not, and may have
    /// them. Nothing was committed.
    Unanswered(Vec<NodeId>),
    /// Manifests that the index lists are not in the repository. Nothing was committed.
    ManifestsUnknown(Vec<Digest>),
    /// The bytes are not what they should be. Nothing was committed.
    Invalid(String),
    /// Fewer regions than wanted could be made to hold the blobs. Nothing was committed.
    NotDurable {
        /// Regions wanted.
        wanted: u32,
        /// Regions reached.
        reached: u32,
    },
    /// The ledger did not answer: unknown whether it was committed; retry with the same operation.
    Ledger(NoLedger),
}

/// What a replica sends on its lease stream to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHolder {
    /// Renew, and what I have applied, and whom I see as down.
    Renew {
        /// Number of the request.
        request: u64,
        /// What the replica has applied.
        applied: Revision,
        /// Whom its roster calls down.
        down: BTreeSet<NodeId>,
    },
    /// I have applied up to here.
    Applied(Revision),
}

/// What the leader sends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGranter {
    /// A lease.
    Grant(Grant),
    /// No lease: not the leader, or not confirmed.
    NoGrant,
    /// Everything up to here is released.
    Released(Revision),
}
