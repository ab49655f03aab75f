//! Fingerprints, and records that are taken from another replica.

use rules::ledger::command::{Command, Envelope};
use rules::words::moment::Timestamp;
use rules::words::names::{NodeId, OperationId};

use super::super::types::Entry;
use super::*;

struct Replica {
    _folder: tempfile::TempDir,
    log: Log,
    machine: StateMachine,
}

impl Replica {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(&folder.path().join("ledger.redb"), &ground::opening::Opening::default())
                .unwrap();
        let log = Log::open(store.clone()).unwrap();
        let machine = StateMachine::open(store, folder.path()).unwrap();
        Replica { _folder: folder, log, machine }
    }

    /// Appends and applies an entry that every replica gets.
    fn apply(&self, index: u64) {
        let command = Command::RemoveNode { id: NodeId(index) };
        let operation = OperationId(u128::from(index));
        let envelope = Envelope { operation, at: Timestamp(index), command };
        let log_id = openraft::testing::log_id::<Consensus>(1, 1, index);
        let entry = LogEntry { log_id, payload: EntryPayload::Normal(Entry(envelope)) };
        let bytes = encode(&entry).unwrap();
        let write = self.machine.store.database().begin_write().unwrap();
        write
            .open_table(super::super::database::LOG)
            .unwrap()
            .insert(index, bytes.as_slice())
            .unwrap();
        write.commit().unwrap();
        self.machine.apply_batch(vec![entry]).unwrap();
    }

    /// Changes the records as a fault would: nothing notes it.
    fn spoil(&self, change: impl FnOnce(&mut Table<'_, &'static [u8], &'static [u8]>)) -> Self {
        let write = self.machine.store.database().begin_write().unwrap();
        change(&mut write.open_table(STATE).unwrap());
        write.open_table(META).unwrap().remove("fingerprint").unwrap();
        write.commit().unwrap();
        let (store, folder) = (self.machine.store.clone(), self.machine.folder.clone());
        let machine = StateMachine::open(store, &folder).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Replica { _folder: folder, log: self.log.clone(), machine }
    }

    /// The present state as a file.
    fn file(&self) -> (SnapshotMeta, PathBuf) {
        let held = self.machine.held().unwrap();
        let path = self.machine.write_file(&held, "snapshot.for.a-test").unwrap();
        (held.meta, path)
    }

    fn records(&self) -> Vec<Pair> {
        self.machine.view().unwrap().scan(b"", None, usize::MAX).unwrap()
    }
}

#[test]
fn the_fingerprint_is_that_of_all_records_however_it_came_about() {
    let (one, two) = (Replica::new(), Replica::new());
    for index in 1..=20 {
        one.apply(index);
        two.apply(index);
    }
    let newest = one.machine.newest_fingerprint();
    assert_eq!(newest, two.machine.newest_fingerprint());
    assert_eq!(newest.0, Revision(20));
    assert_eq!(newest.1, fingerprint_of(&one.machine.store).unwrap());
    assert_ne!(one.machine.fingerprint(Revision(19)), Some(newest.1));
    assert_eq!(
        one.machine.fingerprint(Revision(19)),
        two.machine.fingerprint(Revision(19)),
        "of entries before, too"
    );
    assert_eq!(one.machine.fingerprint(Revision(21)), None);
    let again = StateMachine::open(one.machine.store.clone(), &one.machine.folder).unwrap();
    assert_eq!(again.newest_fingerprint(), newest, "after a restart");
    let three = Replica::new();
    let (meta, file) = one.file();
    three.machine.install(&meta, &Carried::File(file)).unwrap();
    assert_eq!(three.machine.newest_fingerprint(), newest, "from a snapshot");
}

#[tokio::test]
async fn records_that_differ_become_those_of_the_other_and_what_came_since_is_applied() {
    let (right, wrong) = (Replica::new(), Replica::new());
    for index in 1..=10 {
        right.apply(index);
        wrong.apply(index);
    }
    let wrong = wrong.spoil(|table| {
        let first = table.first().unwrap().unwrap().0.value().to_vec();
        let last = table.last().unwrap().unwrap().0.value().to_vec();
        table.remove(first.as_slice()).unwrap();
        table.insert(last.as_slice(), [1, 2, 3].as_slice()).unwrap();
        table.insert([0].as_slice(), [4].as_slice()).unwrap();
        table.insert([255].as_slice(), [4].as_slice()).unwrap();
    });
    assert_ne!(wrong.machine.newest_fingerprint(), right.machine.newest_fingerprint());
    let (meta, path) = right.file();
    let rebuild = |replica: &Replica| {
        let (machine, log) = (replica.machine.clone(), replica.log.clone());
        let (meta, state) = (meta.clone(), Carried::File(path.clone()));
        async move { machine.rebuild(log, meta, state).await }
    };
    for index in 11..=15 {
        right.apply(index);
        wrong.apply(index);
    }
    let replaced = rebuild(&wrong).await.unwrap().unwrap();
    // the five entries that came since were taken back, too, and applied again
    assert!(replaced.only_here >= 2 && replaced.only_there >= 1 && replaced.changed >= 1);
    assert_eq!(wrong.records(), right.records());
    assert_eq!(wrong.machine.newest_fingerprint(), right.machine.newest_fingerprint());
    right.apply(16);
    wrong.apply(16);
    assert_eq!(wrong.machine.newest_fingerprint(), right.machine.newest_fingerprint());

    // a state that is newer than what a node has applied is not taken yet
    let behind = Replica::new();
    behind.apply(1);
    let before = behind.records();
    assert!(rebuild(&behind).await.unwrap().is_none());
    // nor one that is cut off
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    rebuild(&behind).await.unwrap_err();
    assert_eq!(behind.records(), before);
}
