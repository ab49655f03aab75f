//! The applied state: `rules::ledger::apply` over the STATE table, and the state as a file
//! (snapshot).
//!
//! Changes are recorded in [`Unreleased`] before they become visible to readers, never after.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use redb::{Durability, ReadableDatabase, ReadableTable, Table};
use rules::ledger::apply::apply;
use rules::ledger::command::Outcome;
use rules::ledger::lease::Unreleased;
use rules::ledger::records::{Pair, ReadRecords, RecordError, Tracked, WriteRecords};
use rules::words::digest::{Algorithm, Hasher};
use rules::words::names::Revision;
use tokio::sync::watch;

use super::database::{META, STATE, Store, decode, encode, other};
use super::types::{Consensus, LogEntry, LogId, Membership, Snapshot, SnapshotMeta};
use ground::supervise::blocking;

/// The consensus, over this state.
pub(super) type Raft = openraft::Raft<Consensus, StateMachine>;

/// The state machine of this node.
#[derive(Clone)]
pub(super) struct StateMachine {
    store: Store,
    folder: PathBuf,
    unreleased: Arc<Mutex<Unreleased>>,
    applied: watch::Sender<Revision>,
}

type Applied = (Option<LogId>, Membership);

const FILE: &str = "snapshot";
const MAGIC: &[u8; 8] = b"atolls1\n";

impl StateMachine {
    pub(super) fn open(store: Store, folder: &Path) -> io::Result<Self> {
        let applied = revision_of(&store.meta::<Applied>("applied")?.unwrap_or_default());
        Ok(StateMachine {
            store,
            folder: folder.into(),
            unreleased: Arc::new(Mutex::new(Unreleased::after_restart(applied))),
            applied: watch::Sender::new(applied),
        })
    }

    pub(super) fn unreleased(&self) -> Arc<Mutex<Unreleased>> {
        self.unreleased.clone()
    }

    pub(super) fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    /// A consistent view of the present records.
    pub(super) fn view(&self) -> Result<View, RecordError> {
        let read = self.store.database().begin_read().map_err(record_error)?;
        Ok(View { table: read.open_table(STATE).map_err(record_error)? })
    }

    fn apply_batch(&self, entries: Vec<LogEntry>) -> io::Result<Vec<Option<Outcome>>> {
        let _turn = self.store.turn();
        let mut write = self.store.database().begin_write().map_err(other)?;
        write.set_durability(Durability::None).map_err(other)?;
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut revision = None;
        {
            let mut meta = write.open_table(META).map_err(other)?;
            let mut applied: Applied = match meta.get("applied").map_err(other)? {
                Some(value) => decode(value.value())?,
                None => Applied::default(),
            };
            let mut records = StateTable(write.open_table(STATE).map_err(other)?);
            for entry in entries {
                applied.0 = Some(entry.log_id);
                revision = Some(Revision(entry.log_id.index));
                outcomes.push(match entry.payload {
                    EntryPayload::Blank => None,
                    EntryPayload::Membership(membership) => {
                        applied.1 = Membership::new(Some(entry.log_id), membership);
                        None
                    }
                    EntryPayload::Normal(command) => {
                        let at = Revision(entry.log_id.index);
                        let mut tracked = Tracked::new(&mut records);
                        let outcome = apply(&mut tracked, at, &command.0).map_err(other)?;
                        let changed = std::mem::take(&mut tracked.changed);
                        self.unreleased.lock().note(at, changed);
                        Some(outcome)
                    }
                });
            }
            meta.insert("applied", encode(&applied)?.as_slice()).map_err(other)?;
        }
        write.commit().map_err(other)?;
        if let Some(revision) = revision {
            self.applied.send_replace(revision);
        }
        Ok(outcomes)
    }

    fn write_snapshot(&self) -> io::Result<Snapshot> {
        let read = self.store.database().begin_read().map_err(other)?;
        let (last_log_id, last_membership) =
            match read.open_table(META).map_err(other)?.get("applied").map_err(other)? {
                Some(value) => decode::<Applied>(value.value())?,
                None => Applied::default(),
            };
        let meta = SnapshotMeta { last_log_id, last_membership };
        let partial = self.folder.join("snapshot.partial");
        let mut file = Hashed::new(BufWriter::new(File::create(&partial)?));
        file.write_all(MAGIC)?;
        write_block(&mut file, &encode(&meta)?)?;
        for pair in read.open_table(STATE).map_err(other)?.iter().map_err(other)? {
            let (key, value) = pair.map_err(other)?;
            write_block(&mut file, key.value())?;
            write_block(&mut file, value.value())?;
        }
        let file = file.finish()?.into_inner().map_err(other)?;
        file.sync_all()?;
        let path = self.folder.join(FILE);
        std::fs::rename(&partial, &path)?;
        Ok(Snapshot { meta, snapshot: path })
    }

    fn install(&self, meta: &SnapshotMeta, path: &Path) -> io::Result<()> {
        check_snapshot(path)?;
        let mut file = BufReader::new(File::open(path)?);
        let mut left =
            file.get_ref().metadata()?.len().saturating_sub(HASH_BYTES + MAGIC.len() as u64);
        file.read_exact(&mut [0; MAGIC.len()])?;
        read_block(&mut file, &mut left)?;
        let revision = meta.last_log_id.map_or(Revision(0), |id| Revision(id.index));
        let turn = self.store.turn();
        let write = self.store.database().begin_write().map_err(other)?;
        turn.may_take_long();
        {
            let mut table = write.open_table(STATE).map_err(other)?;
            table.retain(|_, _| false).map_err(other)?;
            while left > 0 {
                let key = read_block(&mut file, &mut left)?;
                let value = read_block(&mut file, &mut left)?;
                table.insert(key.as_slice(), value.as_slice()).map_err(other)?;
            }
            let applied: Applied = (meta.last_log_id, meta.last_membership.clone());
            write
                .open_table(META)
                .map_err(other)?
                .insert("applied", encode(&applied)?.as_slice())
                .map_err(other)?;
        }
        self.unreleased.lock().note_all(revision);
        write.commit().map_err(other)?;
        let own = self.folder.join(FILE);
        if path != own {
            std::fs::rename(path, own)?;
        }
        self.applied.send_replace(revision);
        Ok(())
    }
}

fn revision_of(applied: &Applied) -> Revision {
    Revision(applied.0.as_ref().map_or(0, |id| id.index))
}

fn record_error(error: impl std::fmt::Display) -> RecordError {
    RecordError(error.to_string())
}

/// A consistent, read-only view of the records.
pub struct View {
    table: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl ReadRecords for View {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        Ok(self.table.get(key).map_err(record_error)?.map(|v| v.value().to_vec()))
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError> {
        scan(&self.table, prefix, after, limit)
    }
}

struct StateTable<'txn>(Table<'txn, &'static [u8], &'static [u8]>);

impl ReadRecords for StateTable<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        Ok(self.0.get(key).map_err(record_error)?.map(|v| v.value().to_vec()))
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError> {
        scan(&self.0, prefix, after, limit)
    }
}

impl WriteRecords for StateTable<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        self.0.insert(key, value).map_err(record_error)?;
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), RecordError> {
        self.0.remove(key).map_err(record_error)?;
        Ok(())
    }
}

fn scan(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Pair>, RecordError> {
    let start = match after {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let mut pairs = Vec::new();
    for pair in table.range::<&[u8]>((start, Bound::Unbounded)).map_err(record_error)? {
        let (key, value) = pair.map_err(record_error)?;
        if pairs.len() >= limit || !key.value().starts_with(prefix) {
            break;
        }
        pairs.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(pairs)
}

impl RaftStateMachine<Consensus> for StateMachine {
    type SnapshotData = PathBuf;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<Applied, io::Error> {
        Ok(self.store.meta::<Applied>("applied")?.unwrap_or_default())
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Consensus>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut batch, mut responders) = (Vec::new(), Vec::new());
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            batch.push(entry);
            responders.push(responder);
        }
        let machine = self.clone();
        let outcomes = blocking(move || machine.apply_batch(batch)).await.map_err(other)??;
        // only now: an answer before the commit could announce a change that no reader can see yet
        for (responder, outcome) in responders.into_iter().zip(outcomes) {
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: PathBuf,
    ) -> Result<(), io::Error> {
        let (machine, meta) = (self.clone(), meta.clone());
        blocking(move || machine.install(&meta, &snapshot)).await.map_err(other)?
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let path = self.folder.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        blocking(move || {
            let meta = snapshot_meta(&mut File::open(&path)?)?;
            Ok(Some(Snapshot { meta, snapshot: path }))
        })
        .await
        .map_err(other)?
    }
}

impl RaftSnapshotBuilder<Consensus> for StateMachine {
    type SnapshotData = PathBuf;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let machine = self.clone();
        blocking(move || machine.write_snapshot()).await.map_err(other)?
    }
}

/// Reads the description in a snapshot's file.
pub(super) fn snapshot_meta(file: &mut File) -> io::Result<SnapshotMeta> {
    let mut left = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    reader.read_exact(&mut [0; MAGIC.len()])?;
    decode(&read_block(&mut reader, &mut left)?)
}

/// The length of the hash at the end of a snapshot's file. It is the SHA-256 of everything before
/// it.
pub(super) const HASH_BYTES: u64 = 32;

/// Hashes what is written through it, and writes the hash at the end.
struct Hashed<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> Hashed<W> {
    fn new(inner: W) -> Self {
        Hashed { inner, hasher: Hasher::new(Algorithm::Sha256) }
    }

    fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(self.hasher.finish().as_bytes())?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn write_block(file: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(other)?;
    file.write_all(&length.to_be_bytes())?;
    file.write_all(bytes)
}

fn read_block(file: &mut impl Read, left: &mut u64) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    file.read_exact(&mut length)?;
    let length = u64::from(u32::from_be_bytes(length));
    *left = left.checked_sub(4 + length).ok_or_else(|| other("the snapshot is cut off"))?;
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Fails if the file is not complete.
pub(super) fn check_snapshot(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let body = file
        .metadata()?
        .len()
        .checked_sub(HASH_BYTES)
        .ok_or_else(|| other("the snapshot is cut off"))?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut reader = BufReader::with_capacity(1 << 16, (&mut file).take(body));
    let mut chunk = vec![0; 1 << 16];
    let mut first = true;
    loop {
        let n = reader.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        if std::mem::take(&mut first) && !chunk.starts_with(MAGIC) {
            return Err(other("not a snapshot of this version"));
        }
        hasher.update(&chunk[..n]);
    }
    let mut hash = [0; HASH_BYTES as usize];
    file.read_exact(&mut hash)?;
    if hasher.finish().as_bytes() == hash {
        Ok(())
    } else {
        Err(other("the snapshot's hash does not match"))
    }
}
