//! What an edge reads of the ledger's records.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::encode;
use crate::words::names::ProjectName;

/// What an edge wants to read of the ledger's records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Query {
    /// The value under a key.
    Key(#[serde(with = "serde_bytes")] Vec<u8>),
    /// See [`crate::ledger::records::ReadRecords::scan`].
    Scan {
        /// The prefix of the keys.
        #[serde(with = "serde_bytes")]
        prefix: Vec<u8>,
        /// Only keys strictly after this one.
        after: Option<Vec<u8>>,
        /// The maximum number of pairs.
        limit: u64,
    },
}

impl Query {
    /// The arguments of [`crate::ledger::records::ReadRecords::scan`] as a query.
    pub fn scan(prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Self {
        let after = after.map(<[u8]>::to_vec);
        Query::Scan { prefix: prefix.to_vec(), after, limit: limit as u64 }
    }
}

/// A query of an edge that may already have an older answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// What it wants to read.
    pub query: Query,
    /// The [`Found::print`] of the answer that it has. If that is still right, the answer is
    /// [`Found::Same`].
    pub unless: Option<[u8; 16]>,
}

/// The maximum number of questions in one [`Ask::Look`](super::Ask::Look).
pub const MAX_QUESTIONS: usize = 64;

/// What has changed of what an edge may have kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Of the records that decide about pulls.
    pub verdicts: Changed,
    /// Tags and manifests that are gone; their number is the ledger's revision.
    pub gone: Changed,
    /// Projects that the asker may not serve now. What changed of theirs is left out: it must not count
    /// on anything that it has kept of them.
    pub withheld: BTreeSet<ProjectName>,
}

/// Records that have changed since a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The number now, as far as the node that answers has come. It may be behind another.
    pub number: u64,
    /// Their keys, as far as the asker may serve their projects; `None` if they are not known.
    pub keys: Option<Vec<serde_bytes::ByteBuf>>,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// The value under the key.
    Value(Option<serde_bytes::ByteBuf>),
    /// The pairs of the scan.
    Pairs(Vec<(serde_bytes::ByteBuf, serde_bytes::ByteBuf)>),
    /// The asker's answer is still right.
    Same,
}

impl Found {
    /// A short hash of the answer, with which an edge says which answer it has.
    pub fn print(&self) -> [u8; 16] {
        let mut print = [0; 16];
        print.copy_from_slice(&blake3::hash(&encode(self)).as_bytes()[..16]);
        print
    }
}
