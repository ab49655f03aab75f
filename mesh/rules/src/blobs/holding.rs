//! What a node has of a blob.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cache::missing_on_disk;
use crate::words::digest::{ContentHash, Digest};

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

/// The condition of what a node stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Those of the blobs asked for that the node holds and whose bytes it knows to be wrong. If it was
    /// asked for none, the first of all such blobs.
    pub damaged: Vec<Digest>,
    /// Why it should be given no blob now; `None` if it takes them.
    pub trouble: Option<Trouble>,
}

/// Why a node should be given no blob if others can take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// Its disk has less free space than it should have, and nothing can be evicted.
    Full {
        /// The number of free bytes.
        free: u64,
    },
    /// Its index of blobs takes no write.
    Unwritable,
}

impl Trouble {
    /// What keeps a node from taking blobs: whether the last write of its index `failed`, and its disk
    /// with so many bytes free, of so many, when it can make room of `evictable` more. An `all` of 0 is
    /// a disk that does not say its size.
    pub fn of(failed: bool, free: u64, all: u64, evictable: u64) -> Option<Self> {
        let room = free.saturating_add(evictable);
        match failed {
            true => Some(Trouble::Unwritable),
            false if missing_on_disk(room, all, 0) > 0 => Some(Trouble::Full { free }),
            false => None,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Full { free } => write!(
                f,
                "the disk of data_dir is full ({} MiB are free, and nothing can be evicted)",
                free >> 20
            ),
            Trouble::Unwritable => f.write_str("store.redb in data_dir takes no write"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_can_neither_write_nor_make_room_is_in_trouble() {
        const GIB: u64 = 1 << 30;
        let (all, free) = (100 * GIB, GIB - 1);
        assert_eq!(Trouble::of(false, GIB, all, 0), None);
        assert_eq!(Trouble::of(false, free, all, 0), Some(Trouble::Full { free }));
        assert_eq!(Trouble::of(false, free, all, 1), None, "a cached blob makes room");
        assert_eq!(Trouble::of(false, 0, 0, 0), None, "nothing is known");
        assert_eq!(Trouble::of(true, GIB, all, GIB), Some(Trouble::Unwritable));
        assert_eq!(Trouble::of(true, 0, 0, u64::MAX), Some(Trouble::Unwritable));
    }
}
