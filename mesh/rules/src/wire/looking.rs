//! What an edge reads of the ledger's records.

use serde::{Deserialize, Serialize};

use super::encode;

/// What an edge wants to read of the ledger's records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Query {
    /// The value under a key.
    Key(#[serde(with = "serde_bytes")] Vec<u8>),
    /// See [`crate::ledger::records::ReadRecords::scan`].
    Scan {
        /// What the keys begin with.
        #[serde(with = "serde_bytes")]
        prefix: Vec<u8>,
        /// Strictly after this key.
        after: Option<Vec<u8>>,
        /// At most so many.
        limit: u64,
    },
}

/// A query of an edge that may have an older answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// What it wants to read.
    pub query: Query,
    /// The [`Found::print`] of the answer that it has: if that is still right, only that is said.
    pub unless: Option<[u8; 16]>,
}

/// How many questions one [`Ask::Look`](super::Ask::Look) may hold.
pub const MAX_QUESTIONS: usize = 64;

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// What the key says.
    Value(Option<serde_bytes::ByteBuf>),
    /// The pairs of the scan.
    Pairs(Vec<(serde_bytes::ByteBuf, serde_bytes::ByteBuf)>),
    /// What the asker has is right.
    Same,
}

impl Found {
    /// A short hash of the answer, by which an edge says what it has.
    pub fn print(&self) -> [u8; 16] {
        let mut print = [0; 16];
        print.copy_from_slice(&blake3::hash(&encode(self)).as_bytes()[..16]);
        print
    }
}
