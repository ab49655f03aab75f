//! A replica leaves: one at a time, and no write counts on it meanwhile.

use super::*;
use crate::ledger::leaving::{Leaving, LeavingChange, LookForLeaving};

fn of(node: u64, removal: u128) -> Leaving {
    Leaving { node: NodeId(node), removal }
}

fn step(change: LeavingChange) -> Command {
    Command::Leaving(change)
}

/// A manifest that was checked when these nodes had its blob.
fn put_kept_by(epoch: Epoch, nodes: &[u64]) -> Command {
    let mut new = new(epoch, 1, "t", &[1]);
    new.blobs[0].kept_by = nodes.iter().map(|n| NodeId(*n)).collect();
    Command::PutManifest(new)
}

pub(super) fn at_newest() -> Ledger {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.run(raise(Level::NEWEST)), Outcome::Done);
    ledger
}

#[test]
fn of_two_replicas_that_are_to_go_the_second_waits_for_the_first() {
    let mut ledger = at_newest();
    assert_eq!(ledger.run(step(LeavingChange::Begin(of(3, 1)))), Outcome::Done);
    for other in [of(2, 2), of(3, 3)] {
        let refused = ledger.run(step(LeavingChange::Begin(other)));
        assert!(matches!(&refused, Outcome::Refused(why) if why.contains("n3")), "{refused:?}");
        let refused = ledger.run(step(LeavingChange::Finish(other)));
        assert!(matches!(refused, Outcome::Refused(_)), "it never began");
        assert_eq!(ledger.run(step(LeavingChange::End(other))), Outcome::NotFound);
    }
    assert_eq!(ledger.records.leaving().unwrap(), Some(of(3, 1)));
    assert_eq!(ledger.run(step(LeavingChange::Finish(of(3, 1)))), Outcome::Done);
    assert!(ledger.records.get(&key::removed(NodeId(3))).unwrap().is_some());
    assert_eq!(ledger.run(step(LeavingChange::Begin(of(3, 4)))), Outcome::NotFound, "it is gone");
    assert_eq!(ledger.run(step(LeavingChange::Begin(of(2, 2)))), Outcome::Done);
    assert_eq!(ledger.run(step(LeavingChange::Finish(of(2, 2)))), Outcome::Done);
    let last = ledger.run(step(LeavingChange::Begin(of(1, 5))));
    assert!(matches!(&last, Outcome::Refused(why) if why.contains("last replica")), "{last:?}");
}

#[test]
fn a_removal_that_was_given_up_cannot_be_finished() {
    let mut ledger = at_newest();
    assert_eq!(ledger.run(step(LeavingChange::Begin(of(3, 1)))), Outcome::Done);
    assert_eq!(ledger.run(step(LeavingChange::End(of(3, 1)))), Outcome::Done);
    let late = ledger.run(step(LeavingChange::Finish(of(3, 1))));
    assert!(matches!(&late, Outcome::Refused(why) if why.contains("try again")), "{late:?}");
    assert_eq!(ledger.run(step(LeavingChange::Begin(of(3, 2)))), Outcome::Done);
    let late = ledger.run(step(LeavingChange::Finish(of(3, 1))));
    assert!(matches!(late, Outcome::Refused(_)), "another one is under way");
    assert_eq!(ledger.run(step(LeavingChange::Finish(of(3, 2)))), Outcome::Done);
}

#[test]
fn a_replica_goes_in_no_other_way() {
    let mut ledger = at_newest();
    let refused = ledger.run(Command::RemoveNode { id: NodeId(3) });
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
}

#[test]
fn a_manifest_that_counts_on_a_leaving_node_is_checked_anew_and_keeps_its_operation() {
    let mut ledger = at_newest();
    let epoch = ledger.epoch();
    assert_eq!(ledger.run(step(LeavingChange::Begin(of(3, 1)))), Outcome::Done);
    let mut write = |kept_by: &[u64]| {
        ledger.revision += 1;
        let command = put_kept_by(epoch, kept_by);
        let envelope = Envelope { operation: OperationId(7), at: Timestamp(9), command };
        apply(&mut ledger.records, Revision(ledger.revision), &envelope).unwrap()
    };
    assert_eq!(write(&[2, 3]), Outcome::Leaving(NodeId(3)));
    assert_eq!(write(&[3]), Outcome::Leaving(NodeId(3)), "nothing is remembered of it");
    assert_eq!(write(&[2]), Outcome::Done);
    assert_eq!(write(&[3]), Outcome::Done, "the same operation");
    assert_eq!(digest_of(&ledger, "t"), Some(Digest::sha256(&[1, 0])));
    assert_eq!(ledger.run(step(LeavingChange::End(of(3, 1)))), Outcome::Done);
    assert_eq!(ledger.run(put_kept_by(epoch, &[3])), Outcome::Done, "it stays");
}

#[test]
fn a_manifest_that_counts_on_a_node_that_has_gone_is_checked_anew() {
    let mut ledger = at_newest();
    let epoch = ledger.epoch();
    ledger.run(step(LeavingChange::Begin(of(3, 1))));
    assert_eq!(ledger.run(step(LeavingChange::Finish(of(3, 1)))), Outcome::Done);
    assert_eq!(ledger.run(put_kept_by(epoch, &[2, 3])), Outcome::Leaving(NodeId(3)));
    assert_eq!(ledger.run(put_kept_by(epoch, &[2])), Outcome::Done);
}

#[test]
fn an_edge_keeps_the_name_by_which_projects_choose_it() {
    let mut ledger = at_newest();
    let edge = |name: &str| NodeRecord {
        role: Role::Edge,
        name: name.parse().unwrap(),
        url: "http://there".into(),
        ..node(9)
    };
    let secret_hash = Digest::sha256(b"secret");
    let (expires, role, nodes) = (Timestamp(u64::MAX), Role::Edge, 1);
    ledger.run(Command::Invite { secret_hash, expires, role, nodes });
    assert_eq!(ledger.run(Command::Join { secret_hash, node: edge("office") }), Outcome::Done);
    let renamed = ledger.run(Command::MoveNode { node: edge("shop-1") });
    assert!(matches!(&renamed, Outcome::Refused(why) if why.contains("keeps the name")));
    assert_eq!(ledger.run(Command::MoveNode { node: edge("office") }), Outcome::Done);
}

#[test]
fn a_tag_is_added_to_what_is_there_and_never_brings_back_what_was_deleted() {
    let mut ledger = at_newest();
    let epoch = ledger.epoch();
    let digest = Digest::sha256(&[1, 0]);
    let add = |tag: &str| Command::AddTag {
        epoch,
        repository: repository(),
        digest,
        tag: tag.parse().unwrap(),
    };
    assert_eq!(ledger.run(add("u")), Outcome::NotFound);
    assert_eq!(ledger.run(put(epoch, 1, "t", &[1])), Outcome::Done);
    assert_eq!(ledger.run(add("u")), Outcome::Done);
    assert_eq!(ledger.run(add("u")), Outcome::Exists);
    assert_eq!(ledger.run(add("t")), Outcome::Exists);
    assert_eq!(digest_of(&ledger, "u"), Some(digest));
    assert_eq!(ledger.run(delete(epoch, 1)), Outcome::Done);
    assert_eq!(digest_of(&ledger, "u"), None, "both tags went with it");
    assert_eq!(ledger.run(add("v")), Outcome::NotFound);
}

#[test]
fn a_replica_drains_while_another_stays_and_its_removal_ends_that() {
    use crate::ledger::draining::{DrainChange, LookForDraining};
    let mut ledger = Ledger::new();
    let begin = |n| Command::Drain(DrainChange::Begin(NodeId(n)));
    let end = |n| Command::Drain(DrainChange::End(NodeId(n)));
    assert_eq!(ledger.run(raise(Level::DETAILS)), Outcome::Done);
    assert!(matches!(ledger.run(begin(1)), Outcome::Refused(_)), "too early");
    assert_eq!(ledger.run(raise(Level::NEWEST)), Outcome::Done);
    assert_eq!(ledger.run(begin(9)), Outcome::NotFound);
    assert_eq!((ledger.run(begin(1)), ledger.run(begin(1))), (Outcome::Done, Outcome::Exists));
    assert_eq!(ledger.run(begin(2)), Outcome::Done);
    let refused = ledger.run(begin(3));
    assert!(matches!(&refused, Outcome::Refused(why) if why.contains("n3")), "{refused:?}");
    assert_eq!(ledger.records.draining().unwrap(), [1, 2].map(NodeId).into());
    assert_eq!((ledger.run(end(2)), ledger.run(end(2))), (Outcome::Done, Outcome::NotFound));
    let leaves = Leaving { node: NodeId(1), removal: 7 };
    assert_eq!(ledger.run(Command::Leaving(LeavingChange::Begin(leaves))), Outcome::Done);
    assert_eq!(ledger.run(Command::Leaving(LeavingChange::Finish(leaves))), Outcome::Done);
    assert_eq!(ledger.records.draining().unwrap(), [].into());
}

#[test]
fn a_drill_is_never_of_the_only_region_and_there_is_one_at_a_time() {
    use crate::ledger::drills::{DrillChange, LookForDrills};
    let mut ledger = at_newest();
    let begin = |region: &str, seconds| {
        let (region, time) = (region.parse().unwrap(), std::time::Duration::from_secs(seconds));
        Command::Drill(DrillChange::Begin { region, time })
    };
    let refused = |outcome: Outcome| matches!(outcome, Outcome::Refused(_));
    assert!(refused(ledger.run(begin("nowhere", 5))));
    assert!(refused(ledger.run(begin("r1", 0))) && refused(ledger.run(begin("r1", 3601))));
    assert_eq!(ledger.run(Command::Drill(DrillChange::End)), Outcome::NotFound);
    assert_eq!(ledger.run(begin("r1", 1)), Outcome::Done);
    assert!(refused(ledger.run(begin("r2", 1))), "one at a time");
    assert!(ledger.records.drill(ledger.now()).unwrap().is_some());
    ledger.revision += 1000;
    assert_eq!(ledger.records.drill(ledger.now()).unwrap(), None, "its time is over");
    assert_eq!(ledger.run(begin("r2", 60)), Outcome::Done);
    assert_eq!(ledger.run(Command::Drill(DrillChange::End)), Outcome::Done);
    assert_eq!(ledger.records.drill(ledger.now()).unwrap(), None);
    let last = ledger.records.last_drill().unwrap().unwrap();
    assert_eq!((last.region.as_str(), last.by.as_str()), ("r2", "atoll"));
    for n in [2, 3] {
        ledger.records.0.remove(&key::node(NodeId(n)));
    }
    assert!(refused(ledger.run(begin("r1", 5))), "nobody else is left");
}

/// A repair once left the ledger with who had kept a blob at its push, for good.
#[test]
fn a_repair_records_who_keeps_what_is_there_and_only_under_its_epoch() {
    let mut ledger = at_newest();
    let epoch = ledger.epoch();
    assert_eq!(ledger.run(put_kept_by(epoch, &[1, 3])), Outcome::Done);
    let digest = new(epoch, 1, "t", &[1]).blobs[0].digest;
    let gone = Digest::sha256(b"no manifest refers to it");
    let kept = |epoch| Command::Kept {
        project: new(epoch, 1, "t", &[1]).repository.project(),
        epoch,
        blobs: vec![(gone, vec![NodeId(1)]), (digest, vec![NodeId(1), NodeId(2)])],
    };
    let of = |ledger: &Ledger, digest| ledger.records.record::<BlobRecord>(&key::blob(&digest));
    let stale = ledger.run(kept(epoch.next()));
    assert!(matches!(stale, Outcome::StaleEpoch { .. }), "{stale:?}");
    assert_eq!(of(&ledger, digest).unwrap().unwrap().kept_by, [NodeId(1), NodeId(3)]);
    assert_eq!(ledger.run(kept(epoch)), Outcome::Done);
    assert_eq!(of(&ledger, digest).unwrap().unwrap().kept_by, [NodeId(1), NodeId(2)]);
    assert_eq!(of(&ledger, gone).unwrap(), None, "and makes no record");
}
