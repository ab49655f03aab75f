//! The one redb file of a node's ledger: log, vote and state in one, so that applying costs no fsync of its own.
//!
//! Appends and votes are `Durability::Immediate`; applies are `None` and become durable with the next append, so the log can never be purged past a
//! state that is not on disk. One thread writes; everything queued behind a commit shares the next one (group commit).

use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Index to entry.
pub(super) const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log-1");
/// The vote, what was purged, what was applied, the membership.
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta-1");
/// The ledger's records: see `rules::records`.
pub(super) const STATE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("state-1");

type Job = Box<dyn FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send>;
type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

pub(super) fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

pub(super) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(other)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes).map_err(other)
}

/// The open file and its writer.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) database: Arc<Database>,
    jobs: std::sync::mpsc::Sender<(Job, Done)>,
}

impl Store {
    /// Opens or makes the file. What a crash left half written is repaired by redb.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut database = Database::builder().set_cache_size(16 << 20).create(path).map_err(other)?;
        // the file does not shrink by itself, and compaction needs it exclusively: now or never
        let _ = database.compact();
        let write = database.begin_write().map_err(other)?;
        write.open_table(LOG).map_err(other)?;
        write.open_table(META).map_err(other)?;
        write.open_table(STATE).map_err(other)?;
        write.commit().map_err(other)?;
        let database = Arc::new(database);
        let (jobs, queue) = std::sync::mpsc::channel::<(Job, Done)>();
        let writer = database.clone();
        std::thread::Builder::new().name("ledger-log".into()).spawn(move || {
            while let Ok(first) = queue.recv() {
                let batch: Vec<(Job, Done)> = std::iter::once(first).chain(queue.try_iter()).collect();
                commit_batch(&writer, batch);
            }
        })?;
        Ok(Store { database, jobs })
    }

    /// Queues a durable write; `done` hears of it from the writer's thread.
    pub(super) fn queue(
        &self,
        job: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        self.jobs.send((Box::new(job), Box::new(done))).map_err(|_| other("the ledger's writer has stopped"))
    }

    /// Writes durably.
    pub(super) async fn write(
        &self,
        job: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> io::Result<()> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.queue(job, move |result| {
            let _ = sender.send(result);
        })?;
        receiver.await.map_err(other)?
    }

    /// Reads a value of the META table.
    pub(super) fn meta<T: DeserializeOwned>(&self, key: &str) -> io::Result<Option<T>> {
        let read = self.database.begin_read().map_err(other)?;
        let table = read.open_table(META).map_err(other)?;
        table.get(key).map_err(other)?.map(|value| decode(value.value())).transpose()
    }
}

fn commit_batch(database: &Database, batch: Vec<(Job, Done)>) {
    let mut waiting = Vec::with_capacity(batch.len());
    let commit = || -> Result<(), redb::Error> {
        let write = database.begin_write()?;
        for (job, done) in batch {
            waiting.push(done);
            job(&write)?;
        }
        write.commit()?;
        Ok(())
    };
    let result = commit();
    for done in waiting {
        done(match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(other(error)),
        });
    }
}
