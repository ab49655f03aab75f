//! What a node holds of a blob.

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

/// What a node knows of one blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// It holds it.
    pub held: Option<Held>,
    /// It holds it as a cache does: it may evict it, so that this copy does not count as durable.
    pub cached: bool,
    /// A recent upload or mount there grants it in the repository asked for.
    pub granted: bool,
}
