//! Writes on their way to the ledger, and read leases.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ledger::change::Change;
use crate::ledger::command::{Outcome, level_of_part};
use crate::ledger::events::Actor;
use crate::ledger::lease::Grant;
use crate::ledger::level::Level;
use crate::ledger::precondition::Precondition;
use crate::words::digest::Digest;
use crate::words::names::{NodeId, OperationId, RepositoryName, Revision, Tag};

/// A command that is committed to the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// The revision of its entry.
    pub revision: Revision,
    /// Its result.
    pub outcome: Outcome,
}

/// Why the ledger did not answer. It is unknown whether the command took effect, unless the variant
/// says so: retry with the same operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NoLedger {
    /// Another node is the leader; nothing was proposed. Ask that node instead.
    #[error("another node leads the ledger")]
    NotLeader(Option<NodeId>),
    /// There is no majority, or no answer in time.
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
    PutManifest(Pushed),
    /// A write for which the primary only adds its epoch.
    Fenced(Change),
    /// As `PutManifest`, if the precondition holds.
    PutManifestIf(Box<Precondition>, Pushed),
    /// One of the others, with who asked for it.
    Audited(Box<AuditedWrite>),
}

/// A write with who asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditedWrite {
    /// Who asked for it.
    pub by: Actor,
    /// What to do.
    pub what: PlainWrite,
}

/// The kinds of [`WriteKind`] without who asked for them. They are no [`WriteKind`], because a
/// message must not be nested without end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlainWrite {
    /// See [`WriteKind::PutManifest`] and [`WriteKind::PutManifestIf`].
    Put(Option<Box<Precondition>>, Pushed),
    /// See [`WriteKind::Fenced`].
    Fenced(Change),
}

/// A manifest as a client pushed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    /// The repository.
    pub repository: RepositoryName,
    /// Its digest; already checked by the node that received it.
    pub digest: Digest,
    /// The effective media type, never empty.
    pub media_type: String,
    /// As received.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// The tags to move.
    pub tags: Vec<Tag>,
}

impl WriteKind {
    /// This write with who asked for it. One that has that already keeps it.
    #[must_use]
    pub fn audited(self, by: Actor) -> WriteKind {
        let what = match self {
            WriteKind::PutManifest(pushed) => PlainWrite::Put(None, pushed),
            WriteKind::PutManifestIf(precondition, pushed) => {
                PlainWrite::Put(Some(precondition), pushed)
            }
            WriteKind::Fenced(change) => PlainWrite::Fenced(change),
            audited @ WriteKind::Audited(_) => return audited,
        };
        WriteKind::Audited(Box::new(AuditedWrite { by, what }))
    }

    /// Who asked for it, if that is known, and the write itself.
    pub fn plain(self) -> (Option<Actor>, PlainWrite) {
        match self {
            WriteKind::PutManifest(pushed) => (None, PlainWrite::Put(None, pushed)),
            WriteKind::PutManifestIf(precondition, pushed) => {
                (None, PlainWrite::Put(Some(precondition), pushed))
            }
            WriteKind::Fenced(change) => (None, PlainWrite::Fenced(change)),
            WriteKind::Audited(audited) => (Some(audited.by), audited.what),
        }
    }

    /// Whether it deletes a manifest, which may take several entries, see
    /// [`Outcome::Unfinished`](crate::ledger::command::Outcome::Unfinished).
    pub fn deletes_manifest(&self) -> bool {
        let change = match self {
            WriteKind::Fenced(change) => change,
            WriteKind::Audited(audited) => match &audited.what {
                PlainWrite::Fenced(change) => change,
                PlainWrite::Put(..) => return false,
            },
            WriteKind::PutManifest(_) | WriteKind::PutManifestIf(..) => return false,
        };
        matches!(change, Change::DeleteManifest { .. } | Change::DeleteIf { .. })
    }

    /// The minimum feature level of the mesh: below it, some replica could not decode the write or
    /// its entry.
    pub fn level(&self) -> Level {
        match self {
            WriteKind::PutManifest(pushed) => level_of_part(pushed.repository.longest_part()),
            WriteKind::Fenced(change) => change.level(),
            WriteKind::PutManifestIf(..) => Level::CONDITIONS,
            WriteKind::Audited(_) => Level::EVENTS,
        }
    }

    /// The number of bytes of the manifest in it, 0 for writes without one. A deadline has to grow
    /// with it.
    pub fn payload(&self) -> usize {
        match self {
            WriteKind::PutManifest(pushed) | WriteKind::PutManifestIf(_, pushed) => {
                pushed.bytes.len()
            }
            WriteKind::Fenced(_) => 0,
            WriteKind::Audited(audited) => match &audited.what {
                PlainWrite::Put(_, pushed) => pushed.bytes.len(),
                PlainWrite::Fenced(_) => 0,
            },
        }
    }
}

/// Why a primary did not commit a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteError {
    /// This node is not the primary (any more): look up the primary again. Nothing was committed.
    NotPrimary,
    /// The manifest refers to blobs of which there is no copy that the repository may use. Nothing
    /// was committed.
    BlobsUnknown(Vec<Digest>),
    /// No node that answered has these blobs; the nodes listed here did not answer, and may have
    /// them. Nothing was committed.
    Unanswered(Vec<NodeId>),
    /// Manifests that the index lists are not in the repository. Nothing was committed.
    ManifestsUnknown(Vec<Digest>),
    /// The manifest's bytes are invalid. Nothing was committed.
    Invalid(String),
    /// The blobs could not be stored in as many regions as wanted. Nothing was committed.
    NotDurable {
        /// Regions wanted.
        wanted: u32,
        /// Regions reached.
        reached: u32,
    },
    /// The ledger did not answer. It is unknown whether the write was committed; retry with the
    /// same operation.
    Ledger(NoLedger),
    /// This node is being removed, and what the write refers to has too few copies without it, or
    /// was checked before that was known. Nothing was committed.
    Leaving(NodeId),
}

/// What a replica sends on its lease stream to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHolder {
    /// Requests a renewal, and reports what the replica has applied and which nodes it sees as
    /// down.
    Renew {
        /// Number of the request.
        request: u64,
        /// What the replica has applied.
        applied: Revision,
        /// The nodes that its roster calls down.
        down: BTreeSet<NodeId>,
    },
    /// I have applied up to here.
    Applied(Revision),
    /// I give my lease back. My last request had this number.
    Return(u64),
}

/// What the leader sends on the lease stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGranter {
    /// A lease.
    Grant(Grant),
    /// No lease: not the leader, or not confirmed.
    NoGrant,
    /// Everything up to here is released.
    Released(Revision),
    /// Give your lease back: writes have to wait for you.
    Recall,
}
