//! The ledger records that an edge has kept, also over restarts.
//!
//! Anybody can ask for what does not exist, under as many names as they like. So an answer that
//! there is nothing, and a page of a list that begins where the client says, are kept in memory
//! only, and only so many of them.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ground::grouped::Grouped;
use ground::opening::Opening;
use ground::supervise::blocking;
use parking_lot::Mutex;
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use rules::wire::{Found, Query};
use rules::words::moment::Timestamp;
use rules::words::names::Revision;
use tracing::warn;

/// From an encoded query to its answer and the time of the answer.
const KEPT: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("kept-1");
/// Up to where all that has changed was read again: one number for each kind of changes.
const READ_AGAIN: TableDefinition<'static, &str, u64> = TableDefinition::new("read-again-1");
const VERDICTS: &str = "verdicts";
const GONE: &str = "gone";
/// The size of redb's cache in bytes.
const CACHE: usize = 4 << 20;
/// The approximate maximum size in bytes of the answers in memory. When it is exceeded, all of them
/// are dropped and read from disk again.
const MEMORY: usize = 8 << 20;
/// The maximum number of answers on disk. Beyond it new ones stay in memory, until the oldest were
/// removed.
const MOST: u64 = 200_000;
/// The maximum number of answers that are in memory only.
const PASSING: usize = 10_000;
/// The number of answers that are removed from disk at a time, so that other writes need not wait
/// long.
const PIECE: usize = 1_000;
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

/// Up to where an edge has read again what has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadAgain {
    /// The number of changes of what decides about images.
    pub verdicts: u64,
    /// The revision up to which it has followed what is gone.
    pub gone: Revision,
}

#[derive(Default)]
struct Memory {
    answers: HashMap<Query, KeptAnswer>,
    bytes: usize,
}

/// Answers that are in memory only. The oldest makes room.
#[derive(Default)]
struct Passing {
    answers: HashMap<Query, KeptAnswer>,
    order: VecDeque<Query>,
}

impl Passing {
    fn put(&mut self, query: Query, answer: KeptAnswer) {
        if self.answers.insert(query.clone(), answer).is_none() {
            self.order.push_back(query);
        }
        if self.order.len() > PASSING
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }

    fn remove(&mut self, query: &Query) {
        if self.answers.remove(query).is_some() {
            self.order.retain(|other| other != query);
        }
    }
}

/// Whether an answer is worth a place on disk. A stranger can make any number of the others.
fn lasts(query: &Query, found: &Found) -> bool {
    let something = match found {
        Found::Value(value) => value.is_some(),
        Found::Pairs(pairs) => !pairs.is_empty(),
        Found::Same => false,
    };
    something && !matches!(query, Query::Scan { after: Some(_), .. })
}

/// The answers.
pub(super) struct KeptAnswers {
    disk: Grouped,
    memory: Mutex<Memory>,
    passing: Mutex<Passing>,
    /// The number of answers on disk, with those that are about to be written.
    on_disk: Arc<AtomicU64>,
    most: u64,
}

fn size_of(found: &Found) -> usize {
    200 + match found {
        Found::Value(value) => value.as_ref().map_or(0, |v| v.len()),
        Found::Pairs(pairs) => pairs.iter().map(|(k, v)| k.len() + v.len()).sum(),
        Found::Same => 0,
    }
}

impl KeptAnswers {
    pub(super) fn open(path: &Path, opening: &Opening) -> std::io::Result<Self> {
        let disk = Grouped::open(path, "kept-records", CACHE, opening, |write| {
            write.open_table(KEPT)?;
            write.open_table(READ_AGAIN)?;
            Ok(())
        })?;
        let (memory, passing) = (Mutex::default(), Mutex::default());
        let kept = KeptAnswers { disk, memory, passing, on_disk: Arc::default(), most: MOST };
        kept.on_disk.store(kept.count(), Ordering::Relaxed);
        Ok(kept)
    }

    /// Whether nothing can be written, not even nothing.
    pub(super) async fn is_broken(&self) -> bool {
        self.disk.has_failed().await
    }

    /// The kept answer to `query`, however old.
    pub(super) fn get(&self, query: &Query) -> Option<KeptAnswer> {
        let in_memory = self.memory.lock().answers.get(query).cloned();
        let passing = || self.passing.lock().answers.get(query).cloned();
        in_memory.or_else(passing).or_else(|| {
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
        let known = before.is_some();
        let Some(found) = found.or_else(|| before.as_ref().map(|b| b.found.clone())) else {
            return;
        };
        let same = before.as_ref().is_some_and(|b| b.found == found);
        let written = before.filter(|_| same).map_or(Timestamp(0), |b| b.written);
        let lately = written.0 + REWRITE.as_millis() as u64 > at.0;
        let written = if lately { written } else { at };
        let answer = KeptAnswer { at, found: found.clone(), written };
        let stays = lasts(&query, &found);
        // what was there and is gone now replaces what is on disk: that must not come back
        let replaces = known && !self.passing.lock().answers.contains_key(&query);
        if !replaces && (!stays || self.on_disk.load(Ordering::Relaxed) >= self.most) {
            self.passing.lock().put(query, KeptAnswer { written: Timestamp(0), ..answer });
            return;
        }
        self.passing.lock().remove(&query);
        self.remember(query.clone(), answer);
        if lately {
            return;
        }
        if !replaces {
            self.on_disk.fetch_add(1, Ordering::Relaxed);
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
        self.write_soon(write);
    }

    /// What was set last; zero if nothing was.
    pub(super) fn read_again(&self) -> Result<ReadAgain, String> {
        let read = self.disk.database().begin_read().map_err(|e| e.to_string())?;
        let table = read.open_table(READ_AGAIN).map_err(|e| e.to_string())?;
        let number = |kind| {
            let number = table.get(kind).map_err(|e| e.to_string())?;
            Ok::<_, String>(number.map_or(0, |number| number.value()))
        };
        Ok(ReadAgain { verdicts: number(VERDICTS)?, gone: Revision(number(GONE)?) })
    }

    /// What had changed until this was read again. It is written to disk soon, after what was read.
    pub(super) fn set_read_again(&self, until: ReadAgain) {
        let write = move |write: &redb::WriteTransaction| {
            let mut table = write.open_table(READ_AGAIN)?;
            table.insert(VERDICTS, until.verdicts)?;
            table.insert(GONE, until.gone.0)?;
            Ok(())
        };
        self.write_soon(write);
    }

    fn write_soon(
        &self,
        write: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) {
        let warn_of = |error| warn!(%error, "what an edge keeps could not be written");
        let written = move |result: std::io::Result<()>| {
            result.unwrap_or_else(warn_of);
        };
        self.disk.queue(write, written).unwrap_or_else(warn_of);
    }

    /// Forgets the answers to all queries that `goes` chooses.
    pub(super) async fn forget(
        &self,
        goes: impl Fn(&Query) -> bool + Clone + Send + 'static,
    ) -> Result<(), String> {
        let queries = self.listed(goes.clone()).await?;
        for piece in queries.chunks(PIECE) {
            let keys: Result<Vec<Vec<u8>>, _> = piece.iter().map(postcard::to_stdvec).collect();
            let keys = keys.map_err(|e| e.to_string())?;
            let removed = self.disk.write(move |write| {
                let mut kept = write.open_table(KEPT)?;
                for key in &keys {
                    kept.remove(key.as_slice())?;
                }
                Ok(())
            });
            removed.await.map_err(|e| e.to_string())?;
        }
        self.on_disk.store(self.count(), Ordering::Relaxed);
        self.memory.lock().answers.retain(|query, _| !goes(query));
        let mut passing = self.passing.lock();
        let gone: Vec<Query> =
            passing.answers.keys().filter(|query| goes(query)).cloned().collect();
        gone.iter().for_each(|query| passing.remove(query));
        Ok(())
    }

    /// The queries with an answer on disk that `wanted` chooses.
    pub(super) async fn listed(
        &self,
        wanted: impl Fn(&Query) -> bool + Send + 'static,
    ) -> Result<Vec<Query>, String> {
        // what is queued is on disk after this
        self.disk.write(|_| Ok(())).await.map_err(|e| e.to_string())?;
        let read = self.disk.database().begin_read().map_err(|e| e.to_string())?;
        let list = move || {
            let kept = read.open_table(KEPT).map_err(|e| e.to_string())?;
            let mut queries = Vec::new();
            for pair in kept.iter().map_err(|e| e.to_string())? {
                let (key, _) = pair.map_err(|e| e.to_string())?;
                let query = postcard::from_bytes(key.value()).map_err(|e| e.to_string())?;
                if wanted(&query) {
                    queries.push(query);
                }
            }
            Ok(queries)
        };
        blocking(list).await.map_err(|e| e.to_string())?
    }

    /// Removes answers that are older than `oldest`, and, if there are nearly as many as there may
    /// be, the oldest tenth. They are removed a piece at a time.
    pub(super) async fn prune(&self, oldest: Timestamp) -> std::io::Result<()> {
        // what is queued is on disk after this
        self.disk.write(|_| Ok(())).await?;
        let victims = self.victims(oldest).map_err(std::io::Error::other)?;
        for piece in victims.chunks(PIECE) {
            let keys = piece.to_vec();
            self.disk
                .write(move |write| {
                    let mut kept = write.open_table(KEPT)?;
                    for key in &keys {
                        kept.remove(key.as_slice())?;
                    }
                    Ok(())
                })
                .await?;
        }
        self.on_disk.store(self.count(), Ordering::Relaxed);
        Ok(())
    }

    /// The keys of the answers to remove. Reading them keeps no writer waiting.
    fn victims(&self, oldest: Timestamp) -> Result<Vec<Vec<u8>>, redb::Error> {
        let read = self.disk.database().begin_read()?;
        let kept = read.open_table(KEPT)?;
        let mut ages = Vec::new();
        for pair in kept.iter()? {
            ages.push(age_of(pair?.1.value()));
        }
        ages.sort_unstable();
        let enough = self.most - self.most / 10;
        let too_many = (ages.len() as u64).saturating_sub(enough) as usize;
        // those that came at the same time stay or go together
        let youngest = too_many.checked_sub(1).and_then(|last| ages.get(last)).copied();
        let mut victims = Vec::new();
        for pair in kept.iter()? {
            let (key, value) = pair?;
            let at = age_of(value.value());
            if at < oldest || youngest.is_some_and(|youngest| at <= youngest) {
                victims.push(key.value().to_vec());
            }
        }
        Ok(victims)
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

/// When a kept answer was right.
fn age_of(value: &[u8]) -> Timestamp {
    postcard::take_from_bytes::<Timestamp>(value).map_or(Timestamp(0), |(at, _)| at)
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
        let kept = KeptAnswers::open(&path, &Opening::default()).unwrap();
        kept.put(query(1), Timestamp(50_000), Some(found("a")));
        kept.put(query(1), Timestamp(90_000), None);
        kept.put(query(2), Timestamp(90_000), None);
        drop(kept);
        let kept = KeptAnswers::open(&path, &Opening::default()).unwrap();
        let answer = kept.get(&query(1)).unwrap();
        assert_eq!((answer.at, answer.found), (Timestamp(90_000), found("a")));
        assert!(kept.get(&query(2)).is_none(), "nothing is no answer to confirm");
    }

    #[tokio::test]
    async fn what_is_too_old_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let kept =
            KeptAnswers::open(&folder.path().join("kept.redb"), &Opening::default()).unwrap();
        kept.put(query(1), Timestamp(50_000), Some(found("a")));
        kept.put(query(2), Timestamp(90_000), Some(found("b")));
        kept.prune(Timestamp(60_000)).await.unwrap();
        assert_eq!(kept.count(), 1);
        assert!(kept.read(&query(1)).unwrap().is_none());
    }

    fn nothing() -> Arc<Found> {
        Arc::new(Found::Value(None))
    }

    #[tokio::test]
    async fn what_does_not_exist_takes_a_bounded_place_in_memory_and_none_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept.redb");
        let kept = KeptAnswers::open(&path, &Opening::default()).unwrap();
        kept.put(query(1), Timestamp(50_000), Some(found("a")));
        let name = |n: usize| Query::Key(format!("m{n}").into_bytes());
        for n in 0..PASSING + 500 {
            kept.put(name(n), Timestamp(50_000), Some(nothing()));
            // a page that begins where the client says
            let after = format!("{n}");
            let page = Query::scan(b"t", Some(after.as_bytes()), 10);
            let pairs = vec![(vec![1].into(), vec![2].into())];
            kept.put(page, Timestamp(50_000), Some(Arc::new(Found::Pairs(pairs))));
        }
        assert_eq!(kept.passing.lock().answers.len(), PASSING);
        assert_eq!(kept.passing.lock().order.len(), PASSING);
        assert!(kept.get(&name(PASSING + 499)).is_some_and(|answer| answer.found == nothing()));
        assert_eq!(kept.get(&query(1)).unwrap().found, found("a"), "what exists stays");
        drop(kept);
        let kept = KeptAnswers::open(&path, &Opening::default()).unwrap();
        assert_eq!(kept.count(), 1, "only what exists is on disk");
    }

    #[tokio::test]
    async fn what_is_gone_does_not_come_back_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept.redb");
        let kept = KeptAnswers::open(&path, &Opening::default()).unwrap();
        kept.put(query(1), Timestamp(50_000), Some(found("a")));
        kept.put(query(1), Timestamp(90_000), Some(nothing()));
        kept.put(query(2), Timestamp(50_000), Some(nothing()));
        kept.put(query(2), Timestamp(90_000), Some(found("b")));
        assert_eq!(kept.get(&query(2)).unwrap().found, found("b"), "and what is new is there");
        drop(kept);
        let kept = KeptAnswers::open(&path, &Opening::default()).unwrap();
        assert_eq!(kept.get(&query(1)).unwrap().found, nothing());
        assert_eq!(kept.get(&query(2)).unwrap().found, found("b"));
    }

    #[tokio::test]
    async fn no_more_than_the_maximum_is_on_disk_at_any_time_and_the_oldest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept =
            KeptAnswers::open(&folder.path().join("kept.redb"), &Opening::default()).unwrap();
        kept.most = 50;
        for n in 0..80 {
            kept.put(query(n), Timestamp(50_000 + u64::from(n)), Some(found("a")));
        }
        kept.prune(Timestamp(0)).await.unwrap();
        assert_eq!(kept.count(), 45, "fifty were written, and five make room");
        assert!(kept.read(&query(4)).unwrap().is_none(), "the oldest");
        assert!(kept.read(&query(5)).unwrap().is_some());
        assert!(kept.get(&query(79)).is_some(), "what found no room is in memory");
        kept.put(query(79), Timestamp(99_000), Some(found("b")));
        kept.prune(Timestamp(0)).await.unwrap();
        assert!(kept.read(&query(79)).unwrap().is_some(), "and on disk when there is room");
    }
}
