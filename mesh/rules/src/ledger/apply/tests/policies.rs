//! Immutable tags neither move nor go, and retention deletes only what nobody has touched since.

use super::leaving::at_newest;
use super::*;
use crate::ledger::policies::{LookForPolicies, PolicyChange, Pull, Retention};
use crate::policies::immutability::ImmutableRule;
use crate::policies::selectors::{Pattern, Repositories, Tags};
use crate::words::moment::Timestamp;

fn change(ledger: &mut Ledger, change: PolicyChange) -> Outcome {
    let epoch = ledger.epoch();
    let project: crate::words::names::ProjectName = "demo".parse().unwrap();
    ledger.run(Command::Policy { project, epoch, change: Box::new(change) })
}

fn rule(id: u64, tag: &str) -> ImmutableRule {
    ImmutableRule {
        id,
        disabled: false,
        repositories: Repositories::default(),
        tags: Tags { pattern: Pattern::new(tag).unwrap(), ..Tags::default() },
    }
}

fn manifest(n: u8) -> Digest {
    Digest::sha256(&[n, 0])
}

fn place() -> RepositoryName {
    "demo/a".parse().unwrap()
}

fn tagged(ledger: &Ledger, tag: &str) -> Option<Digest> {
    ledger.records.tag(&place(), &tag.parse().unwrap()).unwrap().map(|tag| tag.digest)
}

#[test]
fn an_immutable_tag_is_made_once_and_neither_moved_nor_deleted() {
    let mut ledger = at_newest();
    let epoch = ledger.epoch();
    assert_eq!(change(&mut ledger, PolicyChange::AddImmutable(rule(0, "v*"))), Outcome::Done);
    assert_eq!(ledger.run(put(epoch, 1, "v1", &[1])), Outcome::Done);
    assert_eq!(ledger.run(put(epoch, 1, "v1", &[1])), Outcome::Done, "the same again");
    assert_eq!(ledger.run(put(epoch, 1, "latest", &[1])), Outcome::Done);
    let moved = ledger.run(put(epoch, 2, "v1", &[1]));
    assert!(matches!(&moved, Outcome::Immutable(why) if why.contains("'a:v1'")), "{moved:?}");
    assert!(!ledger.records.has_manifest(&place(), &manifest(2)).unwrap(), "nothing of it is kept");
    // signatures of what never moves can be added
    let sig = format!("sha256-{}.sig", "0".repeat(64));
    let all = PolicyChange::AddImmutable(rule(0, "sha256-*"));
    assert_eq!(change(&mut ledger, all), Outcome::Done);
    assert_eq!(ledger.run(put(epoch, 3, &sig, &[1])), Outcome::Done);
    assert_eq!(ledger.run(put(epoch, 4, &sig, &[1])), Outcome::Done);
    let (repository, digest) = (place(), manifest(1));
    let tag =
        |tag: &str| Command::DeleteTag { epoch, repository: place(), tag: tag.parse().unwrap() };
    let condition = |of| Command::DeleteIf {
        epoch,
        repository: place(),
        precondition: Box::new(Precondition { of, is: None, is_not: None }),
    };
    for command in [
        tag("v1"),
        Command::DeleteManifest { epoch, repository, digest },
        condition(Reference::Tag("v1".parse().unwrap())),
        condition(Reference::Digest(digest)),
    ] {
        let refused = ledger.run(command);
        let says = |why: &String| why == "the tag v1 configured as immutable, cannot be deleted";
        assert!(matches!(&refused, Outcome::Immutable(why) if says(why)), "{refused:?}");
    }
    assert_eq!(ledger.run(tag("v2")), Outcome::NotFound, "what is not there is not found");
    assert_eq!(ledger.run(tag("latest")), Outcome::Done, "its other tags can go");
    assert_eq!(tagged(&ledger, "v1"), Some(digest));
    let disabled = ImmutableRule { disabled: true, ..rule(1, "v*") };
    assert_eq!(change(&mut ledger, PolicyChange::SetImmutable(disabled)), Outcome::Done);
    assert_eq!(ledger.run(put(epoch, 2, "v1", &[1])), Outcome::Done);
}

#[test]
fn rules_are_numbered_bounded_and_each_there_once() {
    let mut ledger = at_newest();
    for n in 0..15 {
        let added = change(&mut ledger, PolicyChange::AddImmutable(rule(77, &format!("v{n}"))));
        assert_eq!(added, Outcome::Done);
    }
    let id = ledger.records.projects().unwrap()[0].id;
    let rules = ledger.records.policies(id).unwrap().immutable;
    assert_eq!(rules.iter().map(|rule| rule.id).collect::<Vec<_>>(), (1..=15).collect::<Vec<_>>());
    let many = change(&mut ledger, PolicyChange::AddImmutable(rule(0, "more")));
    assert!(matches!(many, Outcome::Refused(why) if why.contains("only 15 rules")));
    let same = change(&mut ledger, PolicyChange::AddImmutable(rule(0, "v3")));
    assert_eq!(same, Outcome::Exists);
    let same = change(&mut ledger, PolicyChange::SetImmutable(rule(1, "v3")));
    assert_eq!(same, Outcome::Exists);
    assert_eq!(change(&mut ledger, PolicyChange::SetImmutable(rule(99, "x"))), Outcome::NotFound);
    assert_eq!(change(&mut ledger, PolicyChange::RemoveImmutable(3)), Outcome::Done);
    assert_eq!(change(&mut ledger, PolicyChange::RemoveImmutable(3)), Outcome::NotFound);
    assert_eq!(change(&mut ledger, PolicyChange::AddImmutable(rule(0, "more"))), Outcome::Done);
    let last = ledger.records.policies(id).unwrap().immutable.last().unwrap().id;
    assert_eq!(last, 16, "a number is not used again");
}

#[test]
fn what_was_touched_since_it_was_judged_stays() {
    let mut ledger = at_newest();
    let epoch = ledger.epoch();
    for (n, tag) in [(1, "old"), (2, "again"), (3, "pulled"), (4, "v4"), (5, "five")] {
        assert_eq!(ledger.run(put(epoch, n, tag, &[n])), Outcome::Done);
    }
    assert_eq!(change(&mut ledger, PolicyChange::AddImmutable(rule(0, "v*"))), Outcome::Done);
    let judged = ledger.now();
    assert_eq!(ledger.run(put(epoch, 2, "newer", &[2])), Outcome::Done);
    let pull = |n, at| Pull { repository: place(), digest: manifest(n), at: Timestamp(at) };
    let pulls = vec![pull(3, u64::MAX), pull(5, judged.0 - 1), pull(99, 1)];
    assert_eq!(ledger.run(Command::Pulled(pulls)), Outcome::Done);
    let digests: Vec<Digest> = (1..=6).map(manifest).collect();
    let retire = |manifests| Command::Retire {
        epoch,
        repository: place(),
        digests: digests.clone(),
        judged,
        manifests,
    };
    assert_eq!(ledger.run(retire(4)), Outcome::PreconditionFailed, "another was pushed");
    assert_eq!(ledger.run(retire(5)), Outcome::Done);
    let left: Vec<u8> =
        (1..=6).filter(|n| ledger.records.has_manifest(&place(), &manifest(*n)).unwrap()).collect();
    assert_eq!(left, [2, 3, 4]);
    assert_eq!(tagged(&ledger, "old"), None);
    assert_eq!(ledger.run(retire(3)), Outcome::NotFound);
    assert_eq!(ledger.records.pulled(&place(), &manifest(5)).unwrap(), None, "it went along");
    let pulled = ledger.records.pulled(&place(), &manifest(3)).unwrap().unwrap();
    assert!(pulled < Timestamp(u64::MAX), "not later than it was told");
    assert!(ledger.records.pulls_counted_since().unwrap().is_some());
}

/// What was on its way when it was judged was recorded later, with an earlier time, and was deleted.
#[test]
fn what_was_recorded_after_it_was_seen_stays_whatever_its_time_is() {
    let mut ledger = at_newest();
    let epoch = ledger.epoch();
    for (n, tag) in [(1, "old"), (2, "two"), (3, "three")] {
        assert_eq!(ledger.run(put(epoch, n, tag, &[n])), Outcome::Done);
    }
    let look = |ledger: &Ledger, all: &[u8]| {
        let seen = |n: &u8| (manifest(*n), ledger.records.seen(&place(), &manifest(*n)).unwrap());
        all.iter().map(seen).filter_map(|(digest, seen)| Some((digest, seen?))).collect::<Vec<_>>()
    };
    let retire =
        |seen, manifests| Command::RetireSeen { epoch, repository: place(), seen, manifests };
    let left = |ledger: &Ledger| -> Vec<u8> {
        let is_there = |n: &u8| ledger.records.has_manifest(&place(), &manifest(*n)).unwrap();
        (1..=4).filter(is_there).collect()
    };
    let seen = look(&ledger, &[1, 2]);
    // another tag, the same tag once more, and a pull: each changes what is seen
    let touches: [fn(&mut Ledger); 3] = [
        |ledger| drop(ledger.run(put(ledger.epoch(), 1, "new", &[1]))),
        |ledger| drop(ledger.run(put(ledger.epoch(), 1, "old", &[1]))),
        |ledger| {
            let pull = Pull { repository: place(), digest: manifest(1), at: Timestamp(1) };
            drop(ledger.run(Command::Pulled(vec![pull])));
        },
    ];
    for touch in touches {
        let before = look(&ledger, &[1, 2]);
        touch(&mut ledger);
        assert_eq!(ledger.run(retire(before, 3)), Outcome::PreconditionFailed);
        assert_eq!(left(&ledger), [1, 2, 3], "the other one may be part of what was touched");
    }
    assert_eq!(ledger.run(retire(seen, 3)), Outcome::PreconditionFailed, "long ago");
    let seen = look(&ledger, &[1, 2]);
    assert_eq!(ledger.run(retire(seen.clone(), 4)), Outcome::PreconditionFailed);
    assert_eq!(ledger.run(retire(seen.clone(), 3)), Outcome::Done);
    assert_eq!(left(&ledger), [3]);
    assert_eq!(ledger.run(retire(seen, 1)), Outcome::NotFound, "they are gone");
}

#[test]
fn a_projects_policies_go_with_it() {
    let mut ledger = at_newest();
    let retention = Retention { rules: Vec::new(), cron: String::new() };
    assert_eq!(change(&mut ledger, PolicyChange::SetRetention(Some(retention))), Outcome::Done);
    let (epoch, id) = (ledger.epoch(), ledger.records.projects().unwrap()[0].id);
    assert!(ledger.records.policies(id).unwrap().retention.is_some());
    let delete = Command::DeleteProject { name: "demo".parse().unwrap(), epoch };
    assert_eq!(ledger.run(delete), Outcome::Done);
    assert!(ledger.records.policies(id).unwrap().retention.is_none());
}
