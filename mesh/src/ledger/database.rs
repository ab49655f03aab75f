//! The one redb file of a node's ledger. It has log, vote and state together, so that applying
//! needs no fsync of its own.
//!
//! Appends and votes are durable before they are answered. Applies use `Durability::None` and
//! become durable with the next append, so the log is never purged beyond a state that is on disk.

use std::io;
use std::path::Path;

use redb::{ReadableDatabase, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use ground::grouped::Grouped;
use ground::opening::Opening;

/// Log entries by index.
pub(super) const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log-1");
/// The vote, the purged and the applied position, and the membership.
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta-1");
/// The ledger's records: see `rules::ledger::records`.
pub(super) const STATE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("state-1");

/// The ledger's records at one moment.
pub(super) type Records = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The size of redb's cache in bytes.
const CACHE: usize = 16 << 20;

pub(super) fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

pub(super) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(other)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(other)
}

/// The ledger's file.
#[derive(Clone)]
pub(super) struct Store(Grouped);

impl std::ops::Deref for Store {
    type Target = Grouped;
    fn deref(&self) -> &Grouped {
        &self.0
    }
}

impl Store {
    /// Opens or creates the file.
    pub(super) fn open(path: &Path, opening: &Opening) -> io::Result<Self> {
        let prepare = |write: &redb::WriteTransaction| {
            write.open_table(LOG)?;
            write.open_table(META)?;
            write.open_table(STATE)?;
            Ok(())
        };
        Grouped::open(path, "ledger-log", CACHE, opening, prepare).map(Store)
    }

    /// Reads a value of the META table.
    pub(super) fn meta<T: DeserializeOwned>(&self, key: &str) -> io::Result<Option<T>> {
        let read = self.database().begin_read().map_err(other)?;
        let table = read.open_table(META).map_err(other)?;
        table.get(key).map_err(other)?.map(|value| decode(value.value())).transpose()
    }
}
