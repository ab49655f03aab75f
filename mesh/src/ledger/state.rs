//! The applied state: `rules::ledger::apply` over the STATE table, and the state as a file
//! (snapshot).
//!
//! Changes are recorded in [`Unreleased`] before they become visible to readers, never after.

use std::collections::{BTreeSet, VecDeque};
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
use rules::ledger::admitted::{Changes, Stamp};
use rules::ledger::apply::apply;
use rules::ledger::command::Outcome;
use rules::ledger::fingerprint::Fingerprint;
use rules::ledger::lease::Unreleased;
use rules::ledger::records::{Pair, ReadRecords, RecordError, Tracked, WriteRecords};
use rules::ledger::scanning::LookForScans;
use rules::ledger::told::{Recent, decides, goes};
use rules::words::names::{RepositoryName, Revision};
use tokio::sync::watch;

use super::carried::{Carried, Held, Snapshot};
use super::database::{META, STATE, Store, decode, encode, other};
use super::log::Log;
use super::snapshot::{HASH_BYTES, Hashed, MAGIC, check_snapshot, read_block, write_block};
use super::types::{Consensus, LogEntry, LogId, Membership, SnapshotMeta};
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
    fingerprints: Arc<Mutex<Fingerprints>>,
    changes: Arc<Mutex<Changes>>,
    verdicts: Arc<Mutex<Recent>>,
    gone: Arc<Mutex<Recent>>,
}

/// The fingerprints of the records after each of the last entries, the newest last. Never empty.
struct Fingerprints(VecDeque<(Revision, Fingerprint)>);

impl Fingerprints {
    /// The number that is kept: those of several seconds of the busiest ledger.
    const KEPT: usize = 16_384;

    fn begin(at: Revision, fingerprint: Fingerprint) -> Self {
        Fingerprints([(at, fingerprint)].into())
    }

    fn newest(&self) -> (Revision, Fingerprint) {
        self.0.back().copied().unwrap_or_default()
    }

    fn extend(&mut self, newer: Vec<(Revision, Fingerprint)>) {
        self.0.extend(newer);
        let surplus = self.0.len().saturating_sub(Self::KEPT);
        self.0.drain(..surplus);
    }

    fn at(&self, revision: Revision) -> Option<Fingerprint> {
        let place = self.0.binary_search_by_key(&revision, |(at, _)| *at).ok()?;
        Some(self.0[place].1)
    }
}

/// What changed when a node's records were replaced by those of another.
#[derive(Debug, Default)]
pub(super) struct Replaced {
    /// The number of records that only this node had.
    pub(super) only_here: u64,
    /// The number of records that only the other had.
    pub(super) only_there: u64,
    /// The number of records that both had, with different values.
    pub(super) changed: u64,
    /// The keys of some of them, for people.
    pub(super) examples: Vec<String>,
}

impl Replaced {
    /// The number of keys that are named.
    const EXAMPLES: usize = 20;

    fn name(&mut self, key: &[u8]) {
        if self.examples.len() < Self::EXAMPLES {
            self.examples.push(key.escape_ascii().to_string());
        }
    }

    /// Removes the records within `bounds`, which the other node does not have.
    fn forget(
        &mut self,
        records: &mut StateTable<'_>,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> io::Result<()> {
        let mut keys = BTreeSet::new();
        for pair in records.table.range::<&[u8]>(bounds).map_err(other)? {
            keys.insert(pair.map_err(other)?.0.value().to_vec());
        }
        for key in keys {
            self.only_here += 1;
            self.name(&key);
            records.table.remove(key.as_slice()).map_err(other)?;
        }
        Ok(())
    }

    /// Takes a record of the other node.
    fn take_over(
        &mut self,
        records: &mut StateTable<'_>,
        key: &[u8],
        value: &[u8],
    ) -> io::Result<()> {
        let before = records.table.get(key).map_err(other)?.map(|held| held.value() == value);
        match before {
            Some(true) => {}
            Some(false) => self.changed += 1,
            None => self.only_there += 1,
        }
        if before != Some(true) {
            self.name(key);
            records.table.insert(key, value).map_err(other)?;
        }
        Ok(())
    }

    /// Makes the records after the key `after`, up to and with `last`, those of `pairs`.
    fn take_range(
        &mut self,
        records: &mut StateTable<'_>,
        (after, last): (Option<&[u8]>, Option<&[u8]>),
        pairs: impl Iterator<Item = io::Result<Pair>>,
    ) -> io::Result<()> {
        let mut after = after.map(<[u8]>::to_vec);
        for pair in pairs {
            let (key, value) = pair?;
            let begin = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            self.forget(records, (begin, Bound::Excluded(&key)))?;
            self.take_over(records, &key, &value)?;
            after = Some(key);
        }
        let begin = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        // a range that begins and ends with the same key is empty, and redb refuses it
        if last.is_some() && after.as_deref() >= last {
            return Ok(());
        }
        self.forget(records, (begin, last.map_or(Bound::Unbounded, Bound::Included)))
    }
}

/// The beginning of the names of files that are written for other nodes.
pub(super) const FOR_ANOTHER: &str = "snapshot.for.";

type Applied = (Option<LogId>, Membership);

/// Removes files with states: an earlier build kept its last snapshot, and a process that was
/// killed may have left one that it wrote for another node.
fn remove_files(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let partial = name.strip_suffix(".partial").unwrap_or(&name);
        if partial == "snapshot" || partial == "records" || name.starts_with(FOR_ANOTHER) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl StateMachine {
    pub(super) fn open(store: Store, folder: &Path) -> io::Result<Self> {
        remove_files(folder)?;
        let applied = revision_of(&store.meta::<Applied>("applied")?.unwrap_or_default());
        // an earlier build does not keep the fingerprint up to date
        let kept = store.meta::<(Revision, Fingerprint)>("fingerprint")?;
        let fingerprint = match kept {
            Some((at, fingerprint)) if at == applied => fingerprint,
            _ => fingerprint_of(&store)?,
        };
        let number = {
            let read = store.database().begin_read().map_err(other)?;
            let view = View { table: read.open_table(STATE).map_err(other)? };
            view.verdicts_version().map_err(other)?
        };
        Ok(StateMachine {
            fingerprints: Arc::new(Mutex::new(Fingerprints::begin(applied, fingerprint))),
            store,
            folder: folder.into(),
            unreleased: Arc::new(Mutex::new(Unreleased::after_restart(applied))),
            applied: watch::Sender::new(applied),
            changes: Arc::default(),
            verdicts: Arc::new(Mutex::new(Recent::after(number))),
            gone: Arc::new(Mutex::new(Recent::after(applied.0))),
        })
    }

    pub(super) fn unreleased(&self) -> Arc<Mutex<Unreleased>> {
        self.unreleased.clone()
    }

    pub(super) fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    /// The fingerprint of the records as they were at `revision`, if that is known here.
    pub(super) fn fingerprint(&self, revision: Revision) -> Option<Fingerprint> {
        self.fingerprints.lock().at(revision)
    }

    /// What this node has applied, and the fingerprint of its records.
    pub(super) fn newest_fingerprint(&self) -> (Revision, Fingerprint) {
        self.fingerprints.lock().newest()
    }

    /// The state of what decides about pulls of a repository's images.
    pub(super) fn stamp(&self, repository: &RepositoryName) -> Stamp {
        self.changes.lock().stamp(repository)
    }

    /// Which records that decide about pulls have changed since their number was this.
    pub(super) fn changed_verdicts(&self, since: u64) -> (u64, Option<BTreeSet<Vec<u8>>>) {
        self.verdicts.lock().since(since)
    }

    /// Which tags and manifests are gone since this revision.
    pub(super) fn gone(&self, since: Revision) -> (u64, Option<BTreeSet<Vec<u8>>>) {
        self.gone.lock().since(since.0)
    }

    /// All records may be others at this revision.
    fn forget_changes(&self, at: Revision) -> io::Result<()> {
        self.changes.lock().count_all();
        let number = self.view().and_then(|view| view.verdicts_version()).map_err(other)?;
        *self.verdicts.lock() = Recent::after(number);
        *self.gone.lock() = Recent::after(at.0);
        Ok(())
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
        let mut fingerprints = Vec::with_capacity(entries.len());
        let mut all_changed = BTreeSet::new();
        let mut gone = Vec::new();
        let number;
        {
            let mut meta = write.open_table(META).map_err(other)?;
            let mut applied: Applied = match meta.get("applied").map_err(other)? {
                Some(value) => decode(value.value())?,
                None => Applied::default(),
            };
            let (_, fingerprint) = self.newest_fingerprint();
            let mut records =
                StateTable { table: write.open_table(STATE).map_err(other)?, fingerprint };
            for entry in entries {
                let at = Revision(entry.log_id.index);
                applied.0 = Some(entry.log_id);
                revision = Some(at);
                outcomes.push(match entry.payload {
                    EntryPayload::Blank => None,
                    EntryPayload::Membership(membership) => {
                        applied.1 = Membership::new(Some(entry.log_id), membership);
                        None
                    }
                    EntryPayload::Normal(command) => {
                        let mut tracked = Tracked::new(&mut records);
                        let outcome = apply(&mut tracked, at, &command.0).map_err(other)?;
                        let changed = std::mem::take(&mut tracked.changed);
                        tracing::debug!(index = at.0, term = entry.log_id.leader_id.term, operation = ?command.0.operation, ?outcome, name = command.0.command.name(), "applied");
                        all_changed.extend(changed.iter().cloned());
                        self.unreleased.lock().note(at, changed);
                        Some(outcome)
                    }
                });
                fingerprints.push((at, records.fingerprint));
            }
            number = records.verdicts_version().map_err(other)?;
            for key in all_changed.iter().filter(|key| goes(key)) {
                if records.table.get(key.as_slice()).map_err(other)?.is_none() {
                    gone.push(key);
                }
            }
            meta.insert("applied", encode(&applied)?.as_slice()).map_err(other)?;
            if let Some(newest) = fingerprints.last() {
                meta.insert("fingerprint", encode(newest)?.as_slice()).map_err(other)?;
            }
        }
        write.commit().map_err(other)?;
        {
            // readers see the changes, and none is released yet
            let mut changes = self.changes.lock();
            all_changed.iter().for_each(|key| changes.count(key));
            let decides = all_changed.iter().map(Vec::as_slice).filter(|key| decides(key));
            self.verdicts.lock().note(decides, number);
            if let Some(revision) = revision {
                self.gone.lock().note(gone.into_iter().map(Vec::as_slice), revision.0);
            }
        }
        self.fingerprints.lock().extend(fingerprints);
        if let Some(revision) = revision {
            self.applied.send_replace(revision);
        }
        Ok(outcomes)
    }

    /// This node's records as they are now.
    pub(super) fn held(&self) -> io::Result<Held> {
        let read = self.store.database().begin_read().map_err(other)?;
        let kept = read.open_table(META).map_err(other)?;
        let (last_log_id, last_membership) = match kept.get("applied").map_err(other)? {
            Some(value) => decode::<Applied>(value.value())?,
            None => Applied::default(),
        };
        let meta = SnapshotMeta { last_log_id, last_membership };
        let fingerprint = match kept.get("fingerprint").map_err(other)? {
            Some(value) => Some(decode::<(Revision, Fingerprint)>(value.value())?),
            None => None,
        };
        let mut held =
            Held { table: read.open_table(STATE).map_err(other)?, meta, fingerprint: None };
        // an earlier build does not keep it up to date
        held.fingerprint =
            fingerprint.filter(|(at, _)| *at == held.revision()).map(|(_, kept)| kept);
        Ok(held)
    }

    /// Writes `held` into a file called `name`, for a node that takes nothing else.
    pub(super) fn write_file(&self, held: &Held, name: &str) -> io::Result<PathBuf> {
        let path = self.folder.join(name);
        let mut file = Hashed::new(BufWriter::new(File::create(&path)?));
        file.write_all(MAGIC)?;
        write_block(&mut file, &encode(&held.meta)?)?;
        for pair in held.table.iter().map_err(other)? {
            let (key, value) = pair.map_err(other)?;
            write_block(&mut file, key.value())?;
            write_block(&mut file, value.value())?;
        }
        let file = file.finish()?.into_inner().map_err(other)?;
        file.sync_all()?;
        Ok(path)
    }

    /// Replaces the records by another node's, which arrived as `state`, and applies to them the
    /// entries that this node has applied since. `None` if this node has not applied as much yet.
    /// After an error nothing has changed.
    pub(super) async fn rebuild(
        &self,
        log: Log,
        meta: SnapshotMeta,
        state: Carried,
    ) -> io::Result<Option<Replaced>> {
        let machine = self.clone();
        blocking(move || machine.rebuild_here(&log, &meta, &state)).await.map_err(other)?
    }

    fn rebuild_here(
        &self,
        log: &Log,
        meta: &SnapshotMeta,
        state: &Carried,
    ) -> io::Result<Option<Replaced>> {
        check(state)?;
        let from = meta.last_log_id.map_or(0, |id| id.index);
        let turn = self.store.turn();
        let applied = revision_of(&self.store.meta::<Applied>("applied")?.unwrap_or_default());
        if applied.0 < from {
            return Ok(None);
        }
        let entries = log.entries(from + 1..applied.0 + 1, usize::MAX)?;
        if entries.len() as u64 != applied.0 - from {
            return Err(other("the log does not reach back to the other node's state"));
        }
        let write = self.store.database().begin_write().map_err(other)?;
        turn.may_take_long();
        let mut replaced = Replaced::default();
        let newest;
        {
            let table = write.open_table(STATE).map_err(other)?;
            let mut records = StateTable { table, fingerprint: Fingerprint::default() };
            records.become_those_of(state, self.newest_fingerprint(), &mut replaced)?;
            for entry in entries {
                if let EntryPayload::Normal(command) = entry.payload {
                    apply(&mut records, Revision(entry.log_id.index), &command.0).map_err(other)?;
                }
            }
            newest = (applied, records.fingerprint);
            write
                .open_table(META)
                .map_err(other)?
                .insert("fingerprint", encode(&newest)?.as_slice())
                .map_err(other)?;
        }
        self.unreleased.lock().note_all(applied);
        write.commit().map_err(other)?;
        self.forget_changes(applied)?;
        *self.fingerprints.lock() = Fingerprints::begin(newest.0, newest.1);
        self.applied.send_replace(applied);
        Ok(Some(replaced))
    }

    fn install(&self, meta: &SnapshotMeta, state: &Carried) -> io::Result<()> {
        check(state)?;
        let revision = meta.last_log_id.map_or(Revision(0), |id| Revision(id.index));
        let turn = self.store.turn();
        let write = self.store.database().begin_write().map_err(other)?;
        turn.may_take_long();
        let fingerprint;
        {
            let table = write.open_table(STATE).map_err(other)?;
            let mut records = StateTable { table, fingerprint: Fingerprint::default() };
            let before = self.newest_fingerprint();
            records.become_those_of(state, before, &mut Replaced::default())?;
            fingerprint = records.fingerprint;
            let applied: Applied = (meta.last_log_id, meta.last_membership.clone());
            let mut table = write.open_table(META).map_err(other)?;
            table.insert("applied", encode(&applied)?.as_slice()).map_err(other)?;
            let newest = encode(&(revision, fingerprint))?;
            table.insert("fingerprint", newest.as_slice()).map_err(other)?;
        }
        self.unreleased.lock().note_all(revision);
        write.commit().map_err(other)?;
        self.forget_changes(revision)?;
        *self.fingerprints.lock() = Fingerprints::begin(revision, fingerprint);
        self.applied.send_replace(revision);
        Ok(())
    }
}

/// Fails if a file with a state is not complete. What arrived in ranges was checked on arrival.
fn check(state: &Carried) -> io::Result<()> {
    match state {
        Carried::File(path) => check_snapshot(path),
        Carried::Arrived(_) | Carried::Here(_) => Ok(()),
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

/// The records in a transaction, and their fingerprint.
struct StateTable<'txn> {
    table: Table<'txn, &'static [u8], &'static [u8]>,
    fingerprint: Fingerprint,
}

impl ReadRecords for StateTable<'_> {
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

impl WriteRecords for StateTable<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        if let Some(before) = self.table.insert(key, value).map_err(record_error)? {
            self.fingerprint.take(key, before.value());
        }
        self.fingerprint.add(key, value);
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), RecordError> {
        if let Some(before) = self.table.remove(key).map_err(record_error)? {
            self.fingerprint.take(key, before.value());
        }
        Ok(())
    }
}

impl StateTable<'_> {
    /// Replaces all records by those of `state`. `now` says of which revision these records are,
    /// and their fingerprint.
    fn become_those_of(
        &mut self,
        state: &Carried,
        now: (Revision, Fingerprint),
        replaced: &mut Replaced,
    ) -> io::Result<()> {
        match state {
            Carried::Here(held) => {
                let mut fingerprint = Fingerprint::default();
                let pairs = held.table.iter().map_err(other)?.map(|pair| {
                    let (key, value) = pair.map_err(other)?;
                    fingerprint.add(key.value(), value.value());
                    Ok((key.value().to_vec(), value.value().to_vec()))
                });
                replaced.take_range(self, (None, None), pairs)?;
                self.fingerprint = fingerprint;
                Ok(())
            }
            Carried::File(path) => {
                let mut file = BufReader::new(File::open(path)?);
                let length = file.get_ref().metadata()?.len();
                let mut left = length.saturating_sub(HASH_BYTES + MAGIC.len() as u64);
                file.read_exact(&mut [0; MAGIC.len()])?;
                read_block(&mut file, &mut left)?;
                let mut fingerprint = Fingerprint::default();
                let pairs = std::iter::from_fn(|| {
                    (left > 0).then(|| {
                        let key = read_block(&mut file, &mut left)?;
                        let value = read_block(&mut file, &mut left)?;
                        fingerprint.add(&key, &value);
                        Ok((key, value))
                    })
                });
                replaced.take_range(self, (None, None), pairs)?;
                self.fingerprint = fingerprint;
                Ok(())
            }
            Carried::Arrived(arrived) => {
                // whether these are still the records that this node had when the transfer began
                let base = &arrived.base;
                let untouched = (base.revision(), base.fingerprint) == (now.0, Some(now.1));
                for piece in &arrived.pieces {
                    let (after, last) = (piece.after.as_deref(), piece.last.as_deref());
                    let bounds = (
                        after.map_or(Bound::Unbounded, Bound::Excluded),
                        last.map_or(Bound::Unbounded, Bound::Included),
                    );
                    match piece.records()? {
                        Some(pairs) => {
                            let pairs = pairs.into_iter().map(Ok);
                            replaced.take_range(self, (after, last), pairs)?;
                        }
                        None if untouched => {}
                        None => {
                            let pairs = base.table.range::<&[u8]>(bounds).map_err(other)?;
                            let pairs = pairs.map(|pair| {
                                let (key, value) = pair.map_err(other)?;
                                Ok((key.value().to_vec(), value.value().to_vec()))
                            });
                            replaced.take_range(self, (after, last), pairs)?;
                        }
                    }
                }
                self.fingerprint = arrived.whole;
                Ok(())
            }
        }
    }
}

/// The fingerprint of all records, read one by one.
fn fingerprint_of(store: &Store) -> io::Result<Fingerprint> {
    let read = store.database().begin_read().map_err(other)?;
    let mut fingerprint = Fingerprint::default();
    for pair in read.open_table(STATE).map_err(other)?.iter().map_err(other)? {
        let (key, value) = pair.map_err(other)?;
        fingerprint.add(key.value(), value.value());
    }
    Ok(fingerprint)
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
    type SnapshotData = Carried;
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
        snapshot: Carried,
    ) -> Result<(), io::Error> {
        let (machine, meta) = (self.clone(), meta.clone());
        blocking(move || machine.install(&meta, &snapshot)).await.map_err(other)?
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let held = self.held()?;
        let meta = held.meta.clone();
        Ok(meta.last_log_id.map(|_| Snapshot { meta, snapshot: Carried::Here(held.into()) }))
    }
}

impl RaftSnapshotBuilder<Consensus> for StateMachine {
    type SnapshotData = Carried;

    /// The present records, in a read transaction: nothing is written.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let held = self.held()?;
        Ok(Snapshot { meta: held.meta.clone(), snapshot: Carried::Here(held.into()) })
    }
}

#[cfg(test)]
mod tests;
