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

use super::database::{LOG, META, Store, decode, encode, other};
use super::types::{Consensus, LogEntry, LogId, Vote};

/// The approximate maximum number of bytes in one message of the consensus, so that a burst of
/// large manifests does not take longer than a heartbeat.
const MESSAGE_BYTES: usize = 8 << 20;

/// The log of this node.
#[derive(Clone)]
pub(super) struct Log {
    store: Store,
    tail: Arc<Mutex<Tail>>,
}

#[derive(Default)]
struct Tail {
    unflushed: BTreeMap<u64, LogEntry>,
    vote: Option<Vote>,
    /// The newest term in which this process has appended an entry, and the first such entry.
    opened: Option<(u64, u64)>,
}

impl Log {
    pub(super) fn open(store: Store) -> io::Result<Self> {
        let vote = store.meta("vote")?;
        Ok(Log { store, tail: Arc::new(Mutex::new(Tail { vote, ..Tail::default() })) })
    }

    /// The first entry of `term` that was appended since the process started. At the leader of that
    /// term, this is the first entry that this process has proposed. Entries that were on disk
    /// before do not count: it is not known which of them were committed, nor which others were.
    pub(super) fn opened(&self, term: u64) -> Option<u64> {
        self.tail.lock().opened.filter(|(of, _)| *of == term).map(|(_, index)| index)
    }

    /// Entries of `range`, until `enough` returns true; at least one if the range is not empty.
    pub(super) fn entries<R: RangeBounds<u64> + Clone>(
        &self,
        range: R,
        mut enough: impl FnMut(usize) -> bool,
    ) -> io::Result<Vec<LogEntry>> {
        let unflushed: Vec<LogEntry> =
            self.tail.lock().unflushed.range(range.clone()).map(|(_, e)| e.clone()).collect();
        let first_unflushed = unflushed.first().map(|entry| entry.log_id.index);
        let read = self.store.database().begin_read().map_err(other)?;
        let table = read.open_table(LOG).map_err(other)?;
        let mut entries = Vec::new();
        for pair in table.range(range).map_err(other)? {
            let (index, bytes) = pair.map_err(other)?;
            if first_unflushed.is_some_and(|first| index.value() >= first) {
                break;
            }
            entries.push(decode(bytes.value())?);
            if enough(bytes.value().len()) {
                return Ok(entries);
            }
        }
        entries.extend(unflushed);
        Ok(entries)
    }
}

impl RaftLogReader<Consensus> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<LogEntry>, io::Error> {
        self.entries(range, |_| false)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, io::Error> {
        let mut total = 0;
        self.entries(start..end, |bytes| {
            total += bytes;
            total >= MESSAGE_BYTES
        })
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
        let last = self.tail.lock().unflushed.last_key_value().map(|(_, e)| e.log_id).or(on_disk);
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
            for entry in entries {
                let term = entry.log_id.leader_id.term;
                if tail.opened.is_none_or(|(newest, _)| newest < term) {
                    tail.opened = Some((term, entry.log_id.index));
                }
                tail.unflushed.insert(entry.log_id.index, entry);
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
                {
                    let mut tail = tail.lock();
                    for id in flushed {
                        if tail.unflushed.get(&id.index).is_some_and(|e| e.log_id == id) {
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
        self.tail.lock().unflushed.split_off(&from);
        self.store
            .write(move |write| {
                write.open_table(LOG)?.retain_in(from.., |_, _| false)?;
                Ok(())
            })
            .await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let bytes = encode(&upto)?;
        self.store
            .write(move |write| {
                write.open_table(META)?.insert("purged", bytes.as_slice())?;
                write.open_table(LOG)?.retain_in(..=upto.index, |_, _| false)?;
                Ok(())
            })
            .await
    }
}
