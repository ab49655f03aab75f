//! What nothing refers to becomes garbage and is collected; a write that did not know is checked
//! anew.

use super::leaving::at_newest;
use super::*;
use crate::ledger::collecting::{CollectChange, Collected, Garbage, LookForGarbage, REMEMBERED};
use crate::ledger::command::{Checked, Envelope};
use crate::words::moment::Timestamp;
use crate::words::names::{OperationId, Revision};

fn blob(n: u8) -> Digest {
    Digest::sha256(&[n])
}

fn collect(blobs: &[u8], before: u64) -> Command {
    let digests = blobs.iter().map(|n| blob(*n)).collect();
    Command::Collect(CollectChange::Collect { digests, before: Timestamp(before) })
}

fn strays(blobs: &[u8]) -> Command {
    Command::Collect(CollectChange::Strays(blobs.iter().map(|n| blob(*n)).collect()))
}

fn delete(epoch: Epoch, manifest: u8) -> Command {
    let digest = Digest::sha256(&[manifest, 0]);
    Command::DeleteManifest { epoch, repository: "demo/a".parse().unwrap(), digest }
}

fn checked(collections: u64, new: NewManifest) -> Command {
    Command::PutChecked(Box::new(Checked { collections, precondition: None, new }))
}

fn garbage(ledger: &Ledger) -> Vec<Digest> {
    let all = ledger.records.garbage(None, 100).unwrap();
    let known = |one: &Garbage| ledger.records.garbage_since(&one.digest).unwrap();
    assert!(all.iter().all(|one| known(one) == Some(one.since)), "the two tables agree");
    all.into_iter().map(|one| one.digest).collect()
}

#[test]
fn a_blob_is_garbage_from_its_last_manifest_until_the_next() {
    let mut ledger = at_newest();
    let e = ledger.epoch();
    for (manifest, blobs) in [(1, &[1, 2][..]), (2, &[2, 3])] {
        assert_eq!(ledger.run(checked(0, new(e, manifest, "t", blobs))), Outcome::Done);
    }
    assert_eq!(ledger.run(delete(e, 1)), Outcome::Done);
    assert_eq!(garbage(&ledger), [blob(1)], "the second manifest refers to the others");
    assert_eq!(ledger.run(checked(0, new(e, 1, "t", &[1, 2]))), Outcome::Done);
    assert_eq!(garbage(&ledger), []);
    assert_eq!(ledger.run(delete(e, 2)), Outcome::Done);
    assert_eq!(ledger.run(delete(e, 1)), Outcome::Done);
    assert_eq!(garbage(&ledger), [blob(3), blob(1), blob(2)], "the oldest first");
}

#[test]
fn what_a_node_reports_is_garbage_unless_a_manifest_refers_to_it() {
    let mut ledger = at_newest();
    let e = ledger.epoch();
    assert_eq!(ledger.run(checked(0, new(e, 1, "t", &[1]))), Outcome::Done);
    assert_eq!(ledger.run(strays(&[1, 7])), Outcome::Done);
    assert_eq!(garbage(&ledger), [blob(7)]);
    let since = ledger.records.garbage_since(&blob(7)).unwrap();
    assert_eq!(ledger.run(strays(&[7])), Outcome::Done);
    assert_eq!(ledger.records.garbage_since(&blob(7)).unwrap(), since, "it does not begin anew");
    let many = vec![blob(1); 501];
    let refused = ledger.run(Command::Collect(CollectChange::Strays(many)));
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
}

#[test]
fn only_old_garbage_is_collected_once_and_numbered() {
    let mut ledger = at_newest();
    let e = ledger.epoch();
    assert_eq!(ledger.run(checked(0, new(e, 1, "t", &[1]))), Outcome::Done);
    assert_eq!(ledger.run(strays(&[2, 3])), Outcome::Done);
    let since = ledger.records.garbage_since(&blob(2)).unwrap().unwrap().0;
    assert_eq!(ledger.run(collect(&[2, 3], since)), Outcome::NotFound, "it is not old enough");
    assert_eq!(ledger.run(collect(&[1, 2, 2, 9], since + 1)), Outcome::Done);
    assert_eq!(ledger.run(collect(&[3], since + 1)), Outcome::Done);
    assert_eq!(ledger.run(collect(&[2, 3], u64::MAX)), Outcome::NotFound, "it is collected");
    assert_eq!(ledger.records.collections().unwrap(), 2);
    let all = ledger.records.collected_after(0, None, 10).unwrap();
    let of = |number, n| Collected { number, digest: blob(n) };
    assert_eq!(all, [of(1, 2), of(2, 3)]);
    assert_eq!(ledger.records.collected_after(1, None, 10).unwrap(), all[1..]);
    assert_eq!(ledger.records.collected_after(0, Some(&all[0]), 10).unwrap(), all[1..]);
    assert_eq!(garbage(&ledger), []);
    assert!(ledger.records.is_referenced(&blob(1)).unwrap(), "a manifest refers to it");
}

#[test]
fn a_manifest_that_was_checked_before_a_collection_is_checked_anew_and_keeps_its_operation() {
    let mut ledger = at_newest();
    let e = ledger.epoch();
    assert_eq!(ledger.run(strays(&[1])), Outcome::Done);
    assert_eq!(ledger.run(collect(&[1], u64::MAX)), Outcome::Done);
    let apply_as = |ledger: &mut Ledger, revision: u64, command: Command| {
        let envelope = Envelope { operation: OperationId(77), at: Timestamp(revision), command };
        apply(&mut ledger.records, Revision(revision), &envelope).unwrap()
    };
    let early = apply_as(&mut ledger, 100, checked(0, new(e, 1, "t", &[1])));
    assert_eq!(early, Outcome::Collected);
    let plain = ledger.run(put(e, 1, "t", &[1]));
    assert_eq!(plain, Outcome::Collected, "nobody knows what its primary knew");
    assert!(
        !ledger.records.has_manifest(&"demo/a".parse().unwrap(), &Digest::sha256(&[1, 0])).unwrap()
    );
    // others are not about what was collected
    assert_eq!(ledger.run(checked(0, new(e, 2, "u", &[2]))), Outcome::Done);
    let anew = apply_as(&mut ledger, 101, checked(1, new(e, 1, "t", &[1])));
    assert_eq!(anew, Outcome::Done);
    assert_eq!(ledger.run(collect(&[1], u64::MAX)), Outcome::NotFound, "a manifest has it again");
}

#[test]
fn what_was_collected_long_ago_is_forgotten() {
    let mut ledger = at_newest();
    assert_eq!(ledger.run(strays(&[1])), Outcome::Done);
    assert_eq!(ledger.run(collect(&[1], u64::MAX)), Outcome::Done);
    let later = Timestamp(1000 + REMEMBERED.as_millis() as u64);
    let command = strays(&[2]);
    let envelope = Envelope { operation: OperationId(1 << 70), at: later, command };
    assert_eq!(apply(&mut ledger.records, Revision(500), &envelope).unwrap(), Outcome::Done);
    let command = collect(&[2], u64::MAX);
    let envelope = Envelope { operation: OperationId(2 << 70), at: later, command };
    assert_eq!(apply(&mut ledger.records, Revision(501), &envelope).unwrap(), Outcome::Done);
    let left = ledger.records.collected_after(0, None, 10).unwrap();
    assert_eq!(left, [Collected { number: 2, digest: blob(2) }]);
}

#[test]
fn below_its_level_nothing_becomes_garbage() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.run(raise(Level(7))), Outcome::Done);
    let e = ledger.epoch();
    assert_eq!(ledger.run(put(e, 1, "t", &[1])), Outcome::Done);
    assert_eq!(ledger.run(delete(e, 1)), Outcome::Done);
    assert_eq!(garbage(&ledger), []);
    let refused = ledger.run(strays(&[1]));
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
}
