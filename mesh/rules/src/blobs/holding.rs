//! What a node has of a blob.

use serde::{Deserialize, Serialize};

use crate::words::digest::ContentHash;

/// A blob that a node holds: sha256 (or sha512) checked, fsynced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its length in bytes.
    pub size: u64,
    /// Its content hash.
    pub content: ContentHash,
}

/// What a node has of one blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// Set if the node holds the blob.
    pub held: Option<Held>,
    /// The copy is cached: the node may evict it, so it does not count for durability.
    pub cached: bool,
    /// A recent upload or mount at that node grants the blob in the repository asked for.
    pub granted: bool,
}
