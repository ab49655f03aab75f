//! The ledger records that an edge has kept, also over restarts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ground::grouped::Grouped;
use parking_lot::Mutex;
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use rules::wire::{Found, Query};
use rules::words::moment::Timestamp;
use tracing::warn;

/// From an encoded query to its answer and the time of the answer.
const KEPT: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("kept-1");
/// The size of redb's cache in bytes.
const CACHE: usize = 4 << 20;
/// The approximate maximum size in bytes of the answers in memory. When it is exceeded, all of them
/// are dropped and read from disk again.
const MEMORY: usize = 8 << 20;
/// The maximum number of answers on disk. Beyond it the oldest are removed.
const MOST: u64 = 200_000;
/// After this time an unchanged answer is written again, so that its age is right after a restart.
const REWRITE: Duration = Duration::from_secs(10);

/// An answer, and when it was right.
#[derive(Clone)]
pub(super) struct KeptAnswer {
    /// When the question was asked.
    pub at: Timestamp,
    /// The answer.
    pub found: Arc<Found>,
    written: Timestamp,
}

#[derive(Default)]
struct Memory {
    answers: HashMap<Query, KeptAnswer>,
    bytes: usize,
}

/// The answers.
pub(super) struct KeptAnswers {
    disk: Grouped,
    memory: Mutex<Memory>,
}

fn size_of(found: &Found) -> usize {
    200 + match found {
        Found::Value(value) => value.as_ref().map_or(0, |v| v.len()),
        Found::Pairs(pairs) => pairs.iter().map(|(k, v)| k.len() + v.len()).sum(),
        Found::Same => 0,
    }
}

impl KeptAnswers {
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        let disk = Grouped::open(path, "kept-records", CACHE, |write| {
            write.open_table(KEPT)?;
            Ok(())
        })?;
        Ok(KeptAnswers { disk, memory: Mutex::default() })
    }

    /// The kept answer to `query`, however old.
    pub(super) fn get(&self, query: &Query) -> Option<KeptAnswer> {
        let in_memory = self.memory.lock().answers.get(query).cloned();
        in_memory.or_else(|| {
            let answer = self.read(query).unwrap_or_else(|error| {
                warn!(error, "what this edge has kept cannot be read");
                None
            })?;
            self.remember(query.clone(), answer.clone());
            Some(answer)
        })
    }

    fn read(&self, query: &Query) -> Result<Option<KeptAnswer>, String> {
        let key = postcard::to_stdvec(query).map_err(|e| e.to_string())?;
        let read = self.disk.database().begin_read().map_err(|e| e.to_string())?;
        let kept = read.open_table(KEPT).map_err(|e| e.to_string())?;
        let Some(value) = kept.get(key.as_slice()).map_err(|e| e.to_string())? else {
            return Ok(None);
        };
        let (at, found): (Timestamp, Found) =
            postcard::from_bytes(value.value()).map_err(|e| e.to_string())?;
        Ok(Some(KeptAnswer { at, found: Arc::new(found), written: at }))
    }

    fn remember(&self, query: Query, answer: KeptAnswer) {
        let mut memory = self.memory.lock();
        if memory.bytes > MEMORY {
            memory.answers.clear();
            memory.bytes = 0;
        }
        memory.bytes += size_of(&answer.found);
        if let Some(before) = memory.answers.insert(query, answer) {
            memory.bytes -= size_of(&before.found);
        }
    }

    /// `query` was answered; `None` means that the kept answer is still right. It is written to
    /// disk soon. An edge that crashes before that asks again.
    pub(super) fn put(&self, query: Query, at: Timestamp, found: Option<Arc<Found>>) {
        let before = self.get(&query);
        let Some(found) = found.or_else(|| before.as_ref().map(|b| b.found.clone())) else {
            return;
        };
        let same = before.as_ref().is_some_and(|b| b.found == found);
        let written = before.filter(|_| same).map_or(Timestamp(0), |b| b.written);
        let lately = written.0 + REWRITE.as_millis() as u64 > at.0;
        let written = if lately { written } else { at };
        self.remember(query.clone(), KeptAnswer { at, found: found.clone(), written });
        if lately {
            return;
        }
        let (key, value) = match (postcard::to_stdvec(&query), postcard::to_stdvec(&(at, &*found)))
        {
            (Ok(key), Ok(value)) => (key, value),
            _ => return,
        };
        let write = move |write: &redb::WriteTransaction| {
            write.open_table(KEPT)?.insert(key.as_slice(), value.as_slice())?;
            Ok(())
        };
        let written = |result: std::io::Result<()>| {
            if let Err(error) = result {
                warn!(%error, "what an edge keeps could not be written");
            }
        };
        if let Err(error) = self.disk.queue(write, written) {
            warn!(%error, "what an edge keeps could not be written");
        }
    }

    /// Removes answers that are older than `oldest`, and the oldest ones beyond the maximum number.
    pub(super) async fn prune(&self, oldest: Timestamp) -> std::io::Result<()> {
        self.disk
            .write(move |write| {
                let mut kept = write.open_table(KEPT)?;
                let mut all = Vec::new();
                for pair in kept.iter()? {
                    let (key, value) = pair?;
                    let at = postcard::take_from_bytes::<Timestamp>(value.value())
                        .map_or(Timestamp(0), |(at, _)| at);
                    all.push((at, key.value().to_vec()));
                }
                all.sort();
                let too_many = kept.len()?.saturating_sub(MOST) as usize;
                for (i, (at, key)) in all.into_iter().enumerate() {
                    if i < too_many || at < oldest {
                        kept.remove(key.as_slice())?;
                    }
                }
                Ok(())
            })
            .await
    }

    /// The number of kept answers.
    pub(super) fn count(&self) -> u64 {
        let count = || {
            let read = self.disk.database().begin_read().ok()?;
            read.open_table(KEPT).ok()?.len().ok()
        };
        count().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(n: u8) -> Query {
        Query::Key(vec![b'p', n])
    }

    fn found(text: &str) -> Arc<Found> {
        Arc::new(Found::Value(Some(serde_bytes::ByteBuf::from(text.as_bytes()))))
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart_with_its_age() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept.redb");
        let kept = KeptAnswers::open(&path).unwrap();
        kept.put(query(1), Timestamp(50_000), Some(found("a")));
        kept.put(query(1), Timestamp(90_000), None);
        kept.put(query(2), Timestamp(90_000), None);
        drop(kept);
        let kept = KeptAnswers::open(&path).unwrap();
        let answer = kept.get(&query(1)).unwrap();
        assert_eq!((answer.at, answer.found), (Timestamp(90_000), found("a")));
        assert!(kept.get(&query(2)).is_none(), "nothing is no answer to confirm");
    }

    #[tokio::test]
    async fn what_is_too_old_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptAnswers::open(&folder.path().join("kept.redb")).unwrap();
        kept.put(query(1), Timestamp(50_000), Some(found("a")));
        kept.put(query(2), Timestamp(90_000), Some(found("b")));
        kept.prune(Timestamp(60_000)).await.unwrap();
        assert_eq!(kept.count(), 1);
        assert!(kept.read(&query(1)).unwrap().is_none());
    }
}
