//! The log and the vote. An appended entry can be read at once and is durable a little later, as
//! the consensus core allows. The tail that is not on disk yet is kept in memory.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use redb::{ReadableDatabase, ReadableTable};
use rules::ledger::trimming::LogSizes;
use rules::words::names::NodeId;

use super::database::{LOG, META, Store, decode, encode, other};
use super::types::{Consensus, Leader, LogEntry, LogId, Vote};

/// The maximum number of bytes of the entries in one message of the consensus. A larger entry has a
/// message of its own, so entries before it do not wait until it has arrived.
const MESSAGE_BYTES: usize = 1 << 20;

/// The log of this node.
#[derive(Clone)]
pub(super) struct Log {
    store: Store,
    tail: Arc<Mutex<Tail>>,
}

#[derive(Default)]
struct Tail {
    /// Entries, and the number of bytes of each on disk.
    unflushed: BTreeMap<u64, (LogEntry, usize)>,
    vote: Option<Vote>,
    sizes: LogSizes,
    /// The first entry that this process has appended.
    first_appended: Option<u64>,
    /// The newest leader of whom this process has appended an entry, and the first such entry.
    opened: Option<(Leader, u64)>,
}

impl Log {
    pub(super) fn open(store: Store) -> io::Result<Self> {
        let vote = store.meta("vote")?;
        Ok(Log { store, tail: Arc::new(Mutex::new(Tail { vote, ..Tail::default() })) })
    }

    /// The first entry that this node has proposed as the leader of `term` since the process started.
    /// Entries that were on disk before do not count: it is not known which of them were committed,
    /// nor which others were. Nor do those of another node that led in the same term, see
    /// [`super::types`].
    pub(super) fn opened(&self, term: u64, me: NodeId) -> Option<u64> {
        let leader = Leader { term, node_id: me.0 };
        self.tail.lock().opened.filter(|(of, _)| *of == leader).map(|(_, index)| index)
    }

    /// Counts the bytes of the entries that were there before this process appended any. This reads
    /// all of them.
    pub(super) fn measure(&self) -> io::Result<()> {
        let read = self.store.database().begin_read().map_err(other)?;
        let table = read.open_table(LOG).map_err(other)?;
        let mut found = Vec::new();
        for pair in table.iter().map_err(other)? {
            let (index, bytes) = pair.map_err(other)?;
            found.push((index.value(), bytes.value().len() as u64));
        }
        let mut tail = self.tail.lock();
        let first_appended = tail.first_appended.unwrap_or(u64::MAX);
        let before = found.into_iter().filter(|(index, _)| *index < first_appended);
        before.for_each(|(index, bytes)| tail.sizes.add(index, bytes));
        Ok(())
    }

    /// See [`LogSizes::surplus`].
    pub(super) fn surplus(&self, most: u64) -> Option<u64> {
        self.tail.lock().sizes.surplus(most)
    }

    /// The number of bytes of the entries that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.tail.lock().sizes.total()
    }

    /// The first entries of `range` that have at most `most` bytes together; at least one if the
    /// range is not empty. One follows the other: a log with a hole is an error.
    pub(super) fn entries<R: RangeBounds<u64> + Clone>(
        &self,
        range: R,
        most: usize,
    ) -> io::Result<Vec<LogEntry>> {
        let mut total = 0;
        let mut fits = |bytes: usize| {
            let first = total == 0;
            total += bytes;
            first || total <= most
        };
        // The tail is read before the file: what is flushed in between is then found twice, and
        // never missed. Entries of the file come first and use up `most` first, so at most that
        // much of the tail is needed.
        let (mut unflushed, mut tail_bytes) = (Vec::new(), 0);
        for (entry, bytes) in self.tail.lock().unflushed.range(range.clone()).map(|(_, kept)| kept)
        {
            if !unflushed.is_empty() && tail_bytes + bytes > most {
                break;
            }
            tail_bytes += bytes;
            unflushed.push((entry.clone(), *bytes));
        }
        let first_unflushed = unflushed.first().map(|(entry, _)| entry.log_id.index);
        let read = self.store.database().begin_read().map_err(other)?;
        let table = read.open_table(LOG).map_err(other)?;
        let mut entries = Vec::new();
        for pair in table.range(range).map_err(other)? {
            let (index, bytes) = pair.map_err(other)?;
            if first_unflushed.is_some_and(|first| index.value() >= first) {
                break;
            }
            if !fits(bytes.value().len()) {
                return without_holes(None, entries);
            }
            entries.push(decode(bytes.value())?);
        }
        for (entry, bytes) in unflushed {
            if !fits(bytes) {
                break;
            }
            entries.push(entry);
        }
        without_holes(None, entries)
    }
}

/// These entries, if each follows the one before, beginning with `first` if that is given.
fn without_holes(first: Option<u64>, entries: Vec<LogEntry>) -> io::Result<Vec<LogEntry>> {
    let follow = consecutive(first, entries.iter().map(|entry| entry.log_id.index));
    if follow { Ok(entries) } else { Err(other("the log has a hole")) }
}

/// Whether each index follows the one before, beginning with `first` if that is known.
pub(super) fn consecutive(first: Option<u64>, indices: impl IntoIterator<Item = u64>) -> bool {
    let mut expected = first;
    indices.into_iter().all(|index| expected.replace(index + 1).is_none_or(|at| at == index))
}

impl RaftLogReader<Consensus> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<LogEntry>, io::Error> {
        self.entries(range, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, io::Error> {
        // what is sent begins where it is said to begin
        without_holes(Some(start), self.entries(start..end, MESSAGE_BYTES)?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.tail.lock().vote)
    }
}

impl RaftLogStorage<Consensus> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Consensus>, io::Error> {
        let purged: Option<LogId> = self.store.meta("purged")?;
        let read = self.store.database().begin_read().map_err(other)?;
        let table = read.open_table(LOG).map_err(other)?;
        let on_disk = match table.last().map_err(other)? {
            Some((_, bytes)) => Some(decode::<LogEntry>(bytes.value())?.log_id),
            None => None,
        };
        let last =
            self.tail.lock().unflushed.last_key_value().map(|(_, (e, _))| e.log_id).or(on_disk);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = encode(vote)?;
        self.store
            .write(move |write| {
                write.open_table(META)?.insert("vote", bytes.as_slice())?;
                Ok(())
            })
            .await?;
        self.tail.lock().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<Consensus>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        let mut encoded = Vec::with_capacity(entries.len());
        for entry in &entries {
            encoded.push((entry.log_id, encode(entry)?));
        }
        {
            let mut tail = self.tail.lock();
            for (entry, (_, bytes)) in entries.into_iter().zip(&encoded) {
                let leader = entry.log_id.leader_id;
                if tail.opened.is_none_or(|(newest, _)| newest < leader) {
                    tail.opened = Some((leader, entry.log_id.index));
                }
                tail.first_appended.get_or_insert(entry.log_id.index);
                tail.sizes.add(entry.log_id.index, bytes.len() as u64);
                tail.unflushed.insert(entry.log_id.index, (entry, bytes.len()));
            }
        }
        let flushed: Vec<LogId> = encoded.iter().map(|(id, _)| *id).collect();
        let tail = self.tail.clone();
        self.store.queue(
            move |write| {
                let mut table = write.open_table(LOG)?;
                for (id, bytes) in &encoded {
                    table.insert(id.index, bytes.as_slice())?;
                }
                Ok(())
            },
            move |result| {
                // What could not be written stays readable as it was: without it the entries after
                // it would look as if they came next, and a follower would get a log with a hole.
                if result.is_ok() {
                    let mut tail = tail.lock();
                    for id in flushed {
                        if tail.unflushed.get(&id.index).is_some_and(|(e, _)| e.log_id == id) {
                            tail.unflushed.remove(&id.index);
                        }
                    }
                }
                callback.io_completed(result);
            },
        )
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        {
            let mut tail = self.tail.lock();
            tail.unflushed.split_off(&from);
            tail.sizes.truncate(from);
            tail.first_appended = tail.first_appended.map(|first| first.min(from));
        }
        self.store
            .write(move |write| {
                write.open_table(LOG)?.retain_in(from.., |_, _| false)?;
                Ok(())
            })
            .await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let bytes = encode(&upto)?;
        self.tail.lock().sizes.purge(upto.index);
        self.store
            .write(move |write| {
                write.open_table(META)?.insert("purged", bytes.as_slice())?;
                write.open_table(LOG)?.retain_in(..=upto.index, |_, _| false)?;
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use rules::ledger::command::{Command, Envelope, NewManifest};
    use rules::words::digest::Digest;
    use rules::words::moment::Timestamp;
    use rules::words::names::{Epoch, OperationId};

    use super::super::types::Entry;
    use super::*;

    /// An entry with a manifest of about so many bytes.
    fn entry(index: u64, bytes: usize) -> LogEntry {
        let manifest = NewManifest {
            epoch: Epoch::FIRST,
            repository: "demo/a".parse().unwrap(),
            digest: Digest::sha256(b"x"),
            media_type: String::new(),
            bytes: vec![0; bytes],
            tags: vec![],
            blobs: vec![],
            subject: None,
        };
        let command = Command::PutManifest(manifest);
        let envelope =
            Envelope { operation: OperationId(u128::from(index)), at: Timestamp(index), command };
        let log_id = openraft::testing::log_id::<Consensus>(1, 1, index);
        LogEntry { log_id, payload: EntryPayload::Normal(Entry(envelope)) }
    }

    /// A term may have two leaders, one after the other (seen by `loadtest faults`).
    #[tokio::test]
    async fn an_entry_of_another_leader_of_the_same_term_is_not_ones_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.redb");
        let store = Store::open(&path, &ground::opening::Opening::default()).unwrap();
        let mut log = Log::open(store).unwrap();
        let of = |node, index| {
            let log_id = openraft::testing::log_id::<Consensus>(5, node, index);
            LogEntry { log_id, ..entry(index, 10) }
        };
        log.append([of(1, 1), of(1, 2)], IOFlushed::noop()).await.unwrap();
        assert_eq!(log.opened(5, NodeId(1)), Some(1));
        assert_eq!(log.opened(5, NodeId(2)), None, "it has proposed nothing yet");
        log.append([of(2, 3), of(2, 4)], IOFlushed::noop()).await.unwrap();
        assert_eq!(log.opened(5, NodeId(2)), Some(3));
        assert_eq!(log.opened(6, NodeId(2)), None);
    }

    /// A write that failed once took its entries out of memory, so that the next ones were sent in
    /// their place, and the replicas differed (found by `loadtest faults`, a disk that fails).
    #[tokio::test]
    async fn an_entry_that_could_not_be_written_leaves_no_hole() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&folder.path().join("ledger.redb"), &ground::opening::Opening::default())
                .unwrap();
        let mut log = Log::open(store.clone()).unwrap();
        let (failed, ended) = std::sync::mpsc::channel();
        // the write of the second entry is in one commit with one that fails
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let blocks = move |_: &redb::WriteTransaction| {
            let _ = wait.recv();
            Ok(())
        };
        log.append([entry(1, 10)], IOFlushed::noop()).await.unwrap();
        store.write(|_| Ok(())).await.unwrap();
        store.queue(blocks, |_| {}).unwrap();
        log.append([entry(2, 10)], IOFlushed::noop()).await.unwrap();
        let breaks = |_: &redb::WriteTransaction| Err(redb::Error::ValueTooLarge(1));
        store.queue(breaks, move |result| failed.send(result.is_err()).unwrap()).unwrap();
        go.send(()).unwrap();
        assert!(ended.recv().unwrap(), "the commit failed");
        log.append([entry(3, 10)], IOFlushed::noop()).await.unwrap();
        store.write(|_| Ok(())).await.unwrap();
        let read = log.try_get_log_entries(1..4).await;
        let read = read.map(|read| read.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>());
        assert!(read.as_ref().is_ok_and(|read| *read == [1, 2]) || read.is_err(), "{read:?}");
        assert!(log.try_get_log_entries(2..4).await.map_or(true, |read| read[0].log_id.index == 2));
    }

    #[test]
    fn a_hole_is_seen() {
        assert!(consecutive(Some(3), [3, 4, 5]) && consecutive(None, [7, 8]));
        assert!(consecutive(Some(3), []) && consecutive(None, []));
        for (first, indices) in [(Some(3), vec![4]), (Some(3), vec![3, 5]), (None, vec![3, 3])] {
            assert!(!consecutive(first, indices.clone()), "{first:?} {indices:?}");
        }
    }

    /// Entries that were not on disk yet once did not count: 64 manifests of 4 MiB became one
    /// message, which was longer than a frame may be.
    #[tokio::test]
    async fn a_message_has_entries_of_a_mebibyte_or_one_larger_entry_on_disk_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&folder.path().join("ledger.redb"), &ground::opening::Opening::default())
                .unwrap();
        let mut log = Log::open(store.clone()).unwrap();
        let sizes = [300 << 10, 300 << 10, 4 << 20, 10, 10, 900 << 10, 900 << 10];
        let messages = [1..3, 3..4, 4..7, 7..8];
        let entries: Vec<_> = (1..).zip(sizes).map(|(index, bytes)| entry(index, bytes)).collect();
        for on_disk in 0..=entries.len() {
            log.tail.lock().unflushed.clear();
            let write = store.database().begin_write().unwrap();
            for (at, entry) in entries.iter().enumerate() {
                let bytes = encode(entry).unwrap();
                if at < on_disk {
                    let mut table = write.open_table(LOG).unwrap();
                    table.insert(entry.log_id.index, bytes.as_slice()).unwrap();
                } else {
                    let kept = (entry.clone(), bytes.len());
                    log.tail.lock().unflushed.insert(entry.log_id.index, kept);
                }
            }
            write.commit().unwrap();
            for message in &messages {
                let read = log.limited_get_log_entries(message.start, 8).await.unwrap();
                let read: Vec<_> = read.iter().map(|entry| entry.log_id.index).collect();
                let expected: Vec<_> = message.clone().collect();
                assert_eq!(read, expected, "{on_disk} are on disk");
            }
            assert_eq!(log.try_get_log_entries(1..8).await.unwrap(), entries);
        }
    }
}
