//! Replicas hand each other the keys that seal secrets in the ledger.

use serde::{Deserialize, Serialize};

use crate::words::digest::Digest;
use crate::words::secret::Secret;

/// A question of one replica to another about keys that seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SealingAsk {
    /// Keep this key on your disk. It will be used when a majority of the replicas has it.
    Keep {
        /// Its version.
        version: u64,
        /// The key.
        key: Secret<Vec<u8>>,
    },
    /// Give me the key with this sha256, which the ledger names.
    Give(Digest),
}

/// The answer to the [`SealingAsk`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SealingAnswer {
    /// It is on the disk.
    Kept,
    /// The key, if the node has it.
    Given(Option<Secret<Vec<u8>>>),
}
