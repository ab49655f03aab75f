use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ledger::admitted::Changes;
use crate::ledger::command::{NewManifest, NewProject};
use crate::ledger::precondition::{Named, Precondition};
use crate::ledger::records::{
    BlobDescriptor, BlobRecord, ContentRecord, ManifestRecord, MemoryRecords, MeshRecord,
    NodeRecord, ReadRecords, Role, TagIndex, TagRecord, Tracked, User, tags_page,
};
use crate::proxies::proxy::ProxyChange;
use crate::words::digest::{ContentHash, Digest};
use crate::words::names::{Epoch, NodeId, ProjectId, Reference, RepositoryName, UpstreamId};

mod admitted;
mod cached_scans;
mod collecting;
mod leaving;
mod made;
mod policies;
mod quotas;
mod scanners;
mod scanning;
mod signatures;
mod signing;
mod trash;
mod trust;

struct Ledger {
    records: MemoryRecords,
    revision: u64,
    changes: Changes,
}

impl Ledger {
    fn new() -> Self {
        let mut ledger =
            Ledger { records: MemoryRecords::default(), revision: 0, changes: Changes::default() };
        let nodes = (1..=3).map(node).collect();
        let user = User { password_hash: "x".into(), administrator: true };
        let form = Command::FormMesh {
            mesh: 1,
            token_secret: vec![1].into(),
            administrator: ("admin".into(), user),
            nodes,
        };
        assert_eq!(ledger.run(form), Outcome::Done);
        assert_eq!(ledger.run(create("demo")), Outcome::Done);
        ledger
    }

    fn run(&mut self, command: Command) -> Outcome {
        self.revision += 1;
        let operation = OperationId(u128::from(self.revision) << 64);
        let envelope = Envelope { operation, at: Timestamp(self.revision), command };
        let mut tracked = Tracked::new(&mut self.records);
        let outcome = apply(&mut tracked, Revision(self.revision), &envelope).unwrap();
        tracked.changed.iter().for_each(|key| self.changes.count(key));
        outcome
    }

    /// The time of the next entry.
    fn now(&self) -> Timestamp {
        Timestamp(self.revision + 1)
    }

    fn epoch(&self) -> Epoch {
        self.records.project(&"demo".parse().unwrap()).unwrap().unwrap().epoch
    }
}

fn node(n: u64) -> NodeRecord {
    NodeRecord {
        id: NodeId(n),
        name: format!("n{n}").parse().unwrap(),
        region: format!("r{n}").parse().unwrap(),
        role: Role::Replica,
        address: ([127, 0, 0, n as u8], 7946).into(),
        url: String::new(),
    }
}

fn create(name: &str) -> Command {
    Command::CreateProject(NewProject {
        name: name.parse().unwrap(),
        public: true,
        durability: 2,
        home: NodeId(1),
        upstream: None,
        proxy: ProxyChange::default(),
        // what is deleted is gone: the trash has tests of its own
        metadata: BTreeMap::from([("trash".into(), "0".into())]),
    })
}

fn put(epoch: Epoch, manifest: u8, tag: &str, blobs: &[u8]) -> Command {
    let describe = |n: &u8| BlobDescriptor {
        digest: Digest::sha256(&[*n]),
        size: 1,
        content: Some(ContentHash::of(&[*n])),
        kept_by: Vec::new(),
    };
    Command::PutManifest(NewManifest {
        epoch,
        repository: "demo/a".parse().unwrap(),
        digest: Digest::sha256(&[manifest, 0]),
        media_type: "m".into(),
        bytes: vec![manifest],
        tags: vec![tag.parse().unwrap()],
        blobs: blobs.iter().map(describe).collect(),
        subject: None,
    })
}

/// What a [`put`] stores.
fn new(epoch: Epoch, manifest: u8, tag: &str, blobs: &[u8]) -> NewManifest {
    match put(epoch, manifest, tag, blobs) {
        Command::PutManifest(new) => new,
        _ => unreachable!("it is one"),
    }
}

#[test]
fn a_write_of_an_older_epoch_is_refused_and_changes_nothing() {
    let mut ledger = Ledger::new();
    let old = ledger.epoch();
    let assign = |expect_epoch| Command::AssignPrimary {
        project: "demo".parse().unwrap(),
        node: NodeId(2),
        expect_epoch,
    };
    assert_eq!(ledger.run(assign(old)), Outcome::Done);
    assert_eq!(ledger.run(assign(old)), Outcome::StaleEpoch { current: old.next() });
    assert_eq!(ledger.run(put(old, 1, "t", &[1])), Outcome::StaleEpoch { current: old.next() });
    assert!(
        ledger.records.tag(&"demo/a".parse().unwrap(), &"t".parse().unwrap()).unwrap().is_none()
    );
    assert_eq!(ledger.run(put(old.next(), 1, "t", &[1])), Outcome::Done);
}

#[test]
fn the_same_operation_twice_is_applied_once() {
    let mut ledger = Ledger::new();
    let envelope =
        Envelope { operation: OperationId(9), at: Timestamp(1), command: create("other") };
    for revision in [100, 101] {
        let outcome = apply(&mut ledger.records, Revision(revision), &envelope).unwrap();
        assert_eq!(outcome, Outcome::Done);
    }
}

fn digest_of(ledger: &Ledger, tag: &str) -> Option<Digest> {
    let found = ledger.records.tag(&"demo/a".parse().unwrap(), &tag.parse().unwrap()).unwrap();
    found.map(|tag| tag.digest)
}

/// A write of the tag `t` that expects it to name `is`.
fn put_if(epoch: Epoch, manifest: u8, is: Option<Digest>) -> Command {
    let (is, is_not) = match is {
        Some(digest) => (Some(Named::These(vec![digest])), None),
        None => (None, Some(Named::Anything)),
    };
    let of = Reference::Tag("t".parse().unwrap());
    let precondition = Box::new(Precondition { of, is, is_not });
    Command::PutManifestIf(precondition, new(epoch, manifest, "t", &[manifest]))
}

#[test]
fn of_two_writers_that_expect_the_same_one_wins() {
    let mut ledger = Ledger::new();
    let e = ledger.epoch();
    let named = |manifest: u8| Some(new(e, manifest, "t", &[]).digest);
    assert_eq!(ledger.run(put_if(e, 1, named(9))), Outcome::PreconditionFailed, "no tag yet");
    assert_eq!(ledger.run(put_if(e, 1, None)), Outcome::Done);
    let before = ledger.records.clone();
    let lost = |outcome| assert_eq!(outcome, Outcome::PreconditionFailed);
    lost(ledger.run(put_if(e, 2, None)));
    let linked = ledger.records.linked(&"demo/a".parse().unwrap(), &Digest::sha256(&[2]));
    assert!(!linked.unwrap(), "nothing of it was stored");
    assert_eq!(
        digest_of(&ledger, "t"),
        digest_of(&Ledger { records: before, ..Ledger::new() }, "t")
    );
    assert_eq!(ledger.run(put_if(e, 2, named(1))), Outcome::Done);
    lost(ledger.run(put_if(e, 3, named(1))));
    assert_eq!(digest_of(&ledger, "t"), named(2));
    // a fence comes first: the write is decided anew under the epoch that holds
    let stale = ledger.run(put_if(e.next(), 3, named(2)));
    assert_eq!(stale, Outcome::StaleEpoch { current: e });
}

#[test]
fn a_conditional_write_that_is_sent_again_has_its_first_outcome() {
    let mut ledger = Ledger::new();
    ledger.run(raise(Level::NEWEST));
    let e = ledger.epoch();
    ledger.run(put(e, 1, "t", &[1]));
    let named = |manifest: u8| Some(new(e, manifest, "t", &[]).digest);
    let mut run = |operation, command| {
        ledger.revision += 1;
        let operation = OperationId(operation);
        let envelope = Envelope { operation, at: Timestamp(ledger.revision), command };
        let outcome = apply(&mut ledger.records, Revision(ledger.revision), &envelope).unwrap();
        (outcome, digest_of(&ledger, "t"))
    };
    for _ in 0..2 {
        assert_eq!(run(77, put_if(e, 2, named(1))), (Outcome::Done, named(2)));
    }
    let lost = (Outcome::PreconditionFailed, named(2));
    assert_eq!(run(78, put_if(e, 3, named(1))), lost);
    // the tag is again what the loser expected
    assert_eq!(run(79, put_if(e, 1, named(2))), (Outcome::Done, named(1)));
    assert_eq!(run(78, put_if(e, 3, named(1))), (Outcome::PreconditionFailed, named(1)));
    assert_eq!(run(77, put_if(e, 2, named(1))), (Outcome::Done, named(1)));
}

#[test]
fn a_conditional_delete_removes_what_is_as_expected_and_nothing_else() {
    let mut ledger = Ledger::new();
    let e = ledger.epoch();
    ledger.run(put(e, 1, "t", &[1]));
    let first = new(e, 1, "t", &[]).digest;
    let delete = |of: Reference, is: Digest| Command::DeleteIf {
        epoch: e,
        repository: "demo/a".parse().unwrap(),
        precondition: Box::new(Precondition { of, is: Some(Named::These(vec![is])), is_not: None }),
    };
    let tag = |name: &str| Reference::Tag(name.parse().unwrap());
    let other = Digest::sha256(b"another");
    assert_eq!(ledger.run(delete(tag("t"), other)), Outcome::PreconditionFailed);
    assert_eq!(digest_of(&ledger, "t"), Some(first));
    assert_eq!(ledger.run(delete(tag("nowhere"), first)), Outcome::NotFound);
    assert_eq!(ledger.run(delete(tag("t"), first)), Outcome::Done);
    assert_eq!(digest_of(&ledger, "t"), None);
    let by_digest = || Reference::Digest(first);
    assert_eq!(ledger.run(delete(by_digest(), other)), Outcome::PreconditionFailed);
    assert_eq!(ledger.run(delete(by_digest(), first)), Outcome::Done);
    assert_eq!(ledger.run(delete(by_digest(), first)), Outcome::NotFound);
}

#[test]
fn what_only_an_upstream_said_of_a_blob_gives_way_to_who_has_hashed_it() {
    let mut ledger = Ledger::new();
    let e = ledger.epoch();
    let blob = |ledger: &Ledger| {
        let record = ledger
            .records
            .record::<BlobRecord>(&key::blob(&Digest::sha256(&[7])))
            .unwrap()
            .unwrap();
        (record.size, record.content, record.repositories)
    };
    let with = |mut new: NewManifest, name: &str, size: u64, content: Option<ContentHash>| {
        (new.blobs[0].size, new.blobs[0].content) = (size, content);
        Command::PutManifest(NewManifest { repository: name.parse().unwrap(), ..new })
    };
    ledger.run(with(new(e, 1, "t", &[7]), "demo/cached", 99, None));
    assert_eq!(blob(&ledger), (99, None, 1));
    ledger.run(put(e, 2, "t", &[7]));
    assert_eq!(blob(&ledger), (1, Some(ContentHash::of(&[7])), 2));
    ledger.run(with(new(e, 3, "t", &[7]), "demo/cached-too", 99, None));
    assert_eq!(blob(&ledger), (1, Some(ContentHash::of(&[7])), 3), "and not the other way round");
}

#[test]
fn a_manifest_that_comes_again_links_what_it_did_not_and_unlinks_only_what_it_did() {
    let mut ledger = Ledger::new();
    let (e, repository) = (ledger.epoch(), "demo/a".parse().unwrap());
    let linked = |ledger: &Ledger| {
        [7, 8].map(|n| {
            let blob = Digest::sha256(&[n]);
            let record = ledger.records.record::<BlobRecord>(&key::blob(&blob)).unwrap();
            (
                ledger.records.linked(&repository, &blob).unwrap(),
                record.map_or(0, |record| record.repositories),
            )
        })
    };
    for (blobs, expected) in [
        (&[7][..], [(true, 1), (false, 0)]),
        (&[7, 8], [(true, 1), (true, 1)]),
        (&[8], [(true, 1), (true, 1)]),
        (&[7, 8], [(true, 1), (true, 1)]),
    ] {
        ledger.run(put(e, 1, "one", blobs));
        assert_eq!(linked(&ledger), expected, "with {blobs:?}");
    }
    let digest = Digest::sha256(&[1, 0]);
    let delete =
        Command::DeleteManifest { epoch: e, repository: "demo/a".parse().unwrap(), digest };
    assert_eq!(ledger.run(delete), Outcome::Done);
    assert_eq!(linked(&ledger), [(false, 0); 2]);
}

#[test]
fn deleting_the_last_manifest_unlinks_its_blobs() {
    let mut ledger = Ledger::new();
    let (e, repository) = (ledger.epoch(), "demo/a".parse().unwrap());
    ledger.run(put(e, 1, "one", &[7, 8]));
    ledger.run(put(e, 2, "two", &[8]));
    let delete = |n: u8| Command::DeleteManifest {
        epoch: e,
        repository: "demo/a".parse().unwrap(),
        digest: Digest::sha256(&[n, 0]),
    };
    assert_eq!(ledger.run(delete(1)), Outcome::Done);
    assert!(!ledger.records.linked(&repository, &Digest::sha256(&[7])).unwrap());
    assert!(ledger.records.linked(&repository, &Digest::sha256(&[8])).unwrap());
    assert_eq!(tags_page(&ledger.records, &repository, None, 9).unwrap(), ["two"]);
    assert_eq!(ledger.run(delete(2)), Outcome::Done);
    assert_eq!(ledger.run(delete(2)), Outcome::NotFound);
    assert!(ledger.records.scan(&key::repositories(), None, 9).unwrap().is_empty());
}

#[test]
fn an_invitation_opens_once_and_not_after_its_time() {
    let mut ledger = Ledger::new();
    let secret_hash = Digest::sha256(b"secret");
    ledger.run(Command::Invite {
        secret_hash,
        expires: Timestamp(1_000),
        role: Role::Replica,
        nodes: 1,
    });
    let join = |n| Command::Join { secret_hash, node: node(n) };
    assert_eq!(ledger.run(join(4)), Outcome::Done);
    assert!(matches!(ledger.run(join(5)), Outcome::Refused(_)));
    ledger.run(Command::Invite {
        secret_hash,
        expires: Timestamp(1),
        role: Role::Replica,
        nodes: 1,
    });
    assert!(matches!(ledger.run(join(5)), Outcome::Refused(_)));
    assert_eq!(ledger.records.nodes().unwrap().len(), 4);
}

#[test]
fn a_token_for_a_replica_lets_no_edge_in_and_a_role_is_for_good() {
    let mut ledger = Ledger::new();
    let secret_hash = Digest::sha256(b"secret");
    let edge = NodeRecord { role: Role::Edge, ..node(9) };
    ledger.run(Command::Invite {
        secret_hash,
        expires: Timestamp(u64::MAX),
        role: Role::Replica,
        nodes: 1,
    });
    let join = Command::Join { secret_hash, node: edge.clone() };
    assert!(matches!(ledger.run(join.clone()), Outcome::Refused(_)));
    ledger.run(Command::Invite {
        secret_hash,
        expires: Timestamp(u64::MAX),
        role: Role::Edge,
        nodes: 2,
    });
    assert_eq!(ledger.run(join), Outcome::Done);
    let another =
        |n| Command::Join { secret_hash, node: NodeRecord { role: Role::Edge, ..node(n) } };
    assert_eq!(ledger.run(another(10)), Outcome::Done, "it was issued for two");
    assert!(matches!(ledger.run(another(11)), Outcome::Refused(_)));
    assert_eq!(ledger.run(Command::RemoveNode { id: NodeId(10) }), Outcome::Done);
    assert!(ledger.records.get(&key::removed(NodeId(10))).unwrap().is_some());
    assert_eq!(ledger.run(Command::RemoveNode { id: NodeId(10) }), Outcome::NotFound);
    assert!(
        matches!(ledger.run(Command::RemoveNode { id: NodeId(1) }), Outcome::Refused(_)),
        "a replica stays"
    );
    assert!(matches!(ledger.run(Command::MoveNode { node: node(9) }), Outcome::Refused(_)));
    assert_eq!(ledger.run(Command::MoveNode { node: edge }), Outcome::Done);
}

#[test]
fn an_upstream_in_use_is_not_forgotten_and_names_are_not_shared() {
    let mut ledger = Ledger::new();
    let upstream = |name: &str| Command::CreateUpstream {
        name: name.into(),
        kind: "docker-registry".into(),
        url: "https://example.com".into(),
        description: String::new(),
        credentials: None,
    };
    let proxy = |id| {
        Command::CreateProject(NewProject {
            name: "hub".parse().unwrap(),
            public: true,
            durability: 1,
            home: NodeId(1),
            upstream: Some(UpstreamId(id)),
            proxy: ProxyChange::default(),
            metadata: BTreeMap::new(),
        })
    };
    assert_eq!(ledger.run(proxy(1)), Outcome::NotFound);
    assert_eq!(ledger.run(upstream("a")), Outcome::Done);
    assert_eq!(ledger.run(upstream("a")), Outcome::Exists);
    assert_eq!(ledger.run(upstream("b")), Outcome::Done);
    assert_eq!(ledger.run(proxy(1)), Outcome::Done);
    assert!(matches!(
        ledger.run(Command::DeleteUpstream { id: UpstreamId(1) }),
        Outcome::Refused(_)
    ));
    assert_eq!(ledger.run(Command::DeleteUpstream { id: UpstreamId(2) }), Outcome::Done);
    assert_eq!(ledger.records.upstreams().unwrap().len(), 1);
    assert_eq!(ledger.run(upstream("c")), Outcome::Done);
    assert_eq!(
        ledger.records.upstreams().unwrap()[1].id,
        UpstreamId(3),
        "a number names one registry for good"
    );
}

#[test]
fn a_projects_number_is_its_own_for_good_and_what_is_written_about_it_is_kept() {
    let mut ledger = Ledger::new();
    let number = |ledger: &Ledger, name: &str| {
        ledger.records.project(&name.parse().unwrap()).unwrap().map(|project| project.id)
    };
    ledger.run(create("a"));
    assert_eq!(ledger.run(create("a")), Outcome::Exists);
    let (demo, a) = (number(&ledger, "demo").unwrap(), number(&ledger, "a").unwrap());
    assert_eq!((demo, a), (ProjectId(1), ProjectId(2)));
    let delete = Command::DeleteProject { name: "a".parse().unwrap(), epoch: Epoch::FIRST };
    assert_eq!(ledger.run(delete), Outcome::Done);
    assert!(ledger.records.project_numbered(a).unwrap().is_none());
    ledger.run(create("a"));
    assert_eq!(number(&ledger, "a"), Some(ProjectId(3)));

    let write = |key: &str, value: &str| Command::ConfigureProject {
        name: "a".parse().unwrap(),
        epoch: Epoch::FIRST,
        public: None,
        durability: None,
        proxy: ProxyChange::default(),
        metadata: BTreeMap::from([(key.to_owned(), value.to_owned())]),
    };
    for (key, value) in [("severity", "low"), ("auto_scan", "true"), ("severity", "high")] {
        assert_eq!(ledger.run(write(key, value)), Outcome::Done);
    }
    let project = ledger.records.project_numbered(ProjectId(3)).unwrap().unwrap();
    // those of before are found by their numbers, too, once the mesh has the level of it
    let index = |ledger: &Ledger| ledger.records.scan(b"9p", None, 9).unwrap().len();
    assert_eq!(index(&ledger), 0);
    let raise = Command::RaiseLevel { level: Level::NUMBERS, token_secret: Default::default() };
    assert_eq!(ledger.run(raise), Outcome::Done);
    assert_eq!(index(&ledger), 2, "demo and a");
    assert_eq!(ledger.records.project_numbered(ProjectId(3)).unwrap(), Some(project.clone()));
    ledger.run(create("b"));
    let b = ledger.records.project_numbered(ProjectId(4)).unwrap().unwrap();
    assert_eq!((b.name.as_str(), index(&ledger)), ("b", 3));
    let delete = Command::DeleteProject { name: b.name, epoch: Epoch::FIRST };
    assert_eq!(ledger.run(delete), Outcome::Done);
    assert_eq!((ledger.records.project_numbered(ProjectId(4)).unwrap(), index(&ledger)), (None, 2));
    let expected = [("auto_scan", "true"), ("severity", "high"), ("trash", "0")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(project.metadata, BTreeMap::from(expected));
}

#[test]
fn a_cache_goes_with_what_it_has_a_part_at_a_time_and_another_project_does_not() {
    let mut ledger = Ledger::new();
    let delete =
        |project: &str, epoch| Command::DeleteProject { name: project.parse().unwrap(), epoch };
    let e = ledger.epoch();
    ledger.run(put(e, 1, "kept", &[1, 2]));
    assert!(
        matches!(ledger.run(delete("demo", e)), Outcome::Refused(_)),
        "it is nobody else's copy"
    );

    ledger.run(Command::CreateUpstream {
        name: "a".into(),
        kind: "docker-registry".into(),
        url: "https://example.com".into(),
        description: String::new(),
        credentials: None,
    });
    ledger.run(match create("hub") {
        Command::CreateProject(NewProject {
            name,
            public,
            durability,
            home,
            proxy,
            metadata,
            ..
        }) => {
            let upstream = Some(UpstreamId(1));
            Command::CreateProject(NewProject {
                name,
                public,
                durability,
                home,
                proxy,
                metadata,
                upstream,
            })
        }
        other => other,
    });
    let before = ledger.records.clone();
    let manifests = EMPTIED_AT_ONCE as u32 / 2 + 10;
    for n in 0..manifests {
        let done = ledger.run(Command::PutManifest(NewManifest {
            repository: format!("hub/{}", n % 3).parse().unwrap(),
            digest: Digest::sha256(&n.to_be_bytes()),
            ..new(Epoch::FIRST, 1, &format!("t{n}"), &[1, 3])
        }));
        assert_eq!(done, Outcome::Done);
    }
    assert_eq!(ledger.run(delete("hub", Epoch::FIRST)), Outcome::Unfinished);
    let r = &ledger.records;
    for (place, _) in r.scan(&key::repositories_of(&"hub".parse().unwrap()), None, 9).unwrap() {
        let repository: RepositoryName = key::name_of(&place).parse().unwrap();
        for (_, tag) in r.records::<TagRecord>(&key::tags(&repository)).unwrap() {
            assert!(
                r.manifest(&repository, &tag.digest).unwrap().is_some(),
                "a tag outlived its manifest"
            );
        }
    }
    assert_eq!(ledger.run(delete("hub", Epoch::FIRST)), Outcome::Done);
    assert_eq!(ledger.run(delete("hub", Epoch::FIRST)), Outcome::NotFound);

    // nothing is left of it, and nothing of the other is touched
    let about = |records: &MemoryRecords| {
        let tables = records.0.iter().filter(|(k, _)| b"ptmlry".contains(&k[0]));
        tables
            .map(|(k, v)| (k.clone(), v.clone()))
            .filter(|(k, _)| *k != key::project(&"hub".parse().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(about(&ledger.records), about(&before));
    let blob = |n: u8| {
        ledger.records.record::<BlobRecord>(&key::blob(&Digest::sha256(&[n]))).unwrap().unwrap()
    };
    assert_eq!((blob(1).repositories, blob(3).repositories), (1, 0));
}

#[test]
fn an_upstream_is_changed_only_from_what_it_was() {
    let mut ledger = Ledger::new();
    for name in ["a", "b"] {
        let made = ledger.run(Command::CreateUpstream {
            name: name.into(),
            kind: "docker-registry".into(),
            url: "https://example.com".into(),
            description: String::new(),
            credentials: Some(("robot".into(), "sealed".into())),
        });
        assert_eq!(made, Outcome::Done);
    }
    let now = |ledger: &Ledger| ledger.records.upstreams().unwrap()[0].clone();
    let first = now(&ledger);
    let change = |was: &UpstreamRecord, becomes: UpstreamRecord| Command::ChangeUpstream {
        was: Box::new(was.clone()),
        becomes: Box::new(becomes),
    };
    let new = UpstreamRecord {
        credentials: Some(("robot".into(), "anew".into())),
        id: UpstreamId(9),
        created: Timestamp(0),
        ..first.clone()
    };
    assert_eq!(ledger.run(change(&first, new.clone())), Outcome::Done);
    assert_eq!(
        now(&ledger),
        UpstreamRecord { id: first.id, created: first.created, ..new.clone() }
    );
    assert!(
        matches!(ledger.run(change(&first, new.clone())), Outcome::Refused(_)),
        "it is another by now"
    );
    let taken = UpstreamRecord { name: "b".into(), ..new.clone() };
    let before = now(&ledger);
    assert_eq!(ledger.run(change(&before, taken)), Outcome::Exists);
    assert_eq!(
        ledger.run(change(&UpstreamRecord { id: UpstreamId(9), ..before.clone() }, new)),
        Outcome::NotFound
    );
    assert_eq!(now(&ledger), before);
}

#[test]
fn old_answers_are_forgotten() {
    let mut ledger = Ledger::new();
    for n in 0..50 {
        let envelope =
            Envelope { operation: OperationId(n), at: Timestamp(1), command: create("demo") };
        let revision = Revision(REMEMBERED_OPERATIONS * 2 + n as u64);
        apply(&mut ledger.records, revision, &envelope).unwrap();
    }
    assert_eq!(ledger.records.scan(&key::operation_orders(), None, 100).unwrap().len(), 50);
}

proptest! {
    /// A tag always names a manifest that exists, and a link exists exactly for the blobs of
    /// manifests that exist.
    #[test]
    fn records_agree_with_each_other(steps in proptest::collection::vec((0u8..4, 0u8..4, 0u8..3), 1..60)) {
        let mut ledger = Ledger::new();
        let repository: RepositoryName = "demo/a".parse().unwrap();
        for (kind, n, t) in steps {
            let epoch = ledger.epoch();
            let digest = Digest::sha256(&[n, 0]);
            ledger.run(match kind {
                0 | 1 => put(epoch, n, &format!("t{t}"), &[n, n + 1]),
                2 => Command::DeleteTag { epoch, repository: repository.clone(), tag: format!("t{t}").parse().unwrap() },
                _ => Command::DeleteManifest { epoch, repository: repository.clone(), digest },
            });
            let r = &ledger.records;
            let manifests = r.records::<ManifestRecord>(&key::manifests(&repository)).unwrap();
            for (_, tag) in r.records::<TagRecord>(&key::tags(&repository)).unwrap() {
                prop_assert!(r.manifest(&repository, &tag.digest).unwrap().is_some());
            }
            for n in 0..6u8 {
                let blob = Digest::sha256(&[n]);
                let expected = manifests.iter().any(|(_, m)| m.blobs.contains(&blob));
                prop_assert_eq!(r.linked(&repository, &blob).unwrap(), expected);
            }
            prop_assert_eq!(r.get(&key::repository(&repository)).unwrap().is_some(), !manifests.is_empty());
        }
    }
}

#[test]
fn what_builds_of_the_first_level_cannot_read_is_not_proposed_before_the_level_of_roles() {
    let at = |name: &str| {
        let repository = name.parse().unwrap();
        Command::PutManifest(NewManifest { repository, ..new(Epoch::FIRST, 1, "t", &[]) })
    };
    let (fits, long) = ("a".repeat(128), "a".repeat(129));
    assert_eq!(create(&fits).level(), Level::FIRST);
    assert_eq!(create(&long).level(), Level::ROLES);
    assert_eq!(at(&format!("demo/{fits}/b")).level(), Level::FIRST);
    assert_eq!(at(&format!("demo/{long}")).level(), Level::ROLES);
    assert_eq!(put_if(Epoch::FIRST, 1, None).level(), Level::CONDITIONS);
}

fn raise(level: Level) -> Command {
    Command::RaiseLevel { level, token_secret: b"sealed".to_vec().into() }
}

fn join(id: u64, name: &str, secret: &[u8]) -> Command {
    let node = NodeRecord {
        name: name.parse().unwrap(),
        role: Role::Edge,
        url: "http://10.0.0.9:5000".into(),
        ..node(id)
    };
    Command::Join { secret_hash: Digest::sha256(secret), node }
}

fn invite(secret: &[u8]) -> Command {
    Command::Invite {
        secret_hash: Digest::sha256(secret),
        expires: Timestamp(u64::MAX),
        role: Role::Edge,
        nodes: 9,
    }
}

#[test]
fn the_level_only_grows_and_seals_the_key_of_the_tokens_once() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.records.level().unwrap(), Level::FIRST);
    assert_eq!(ledger.run(raise(Level::ROLES)), Outcome::Done);
    let mesh =
        |ledger: &Ledger| ledger.records.record::<MeshRecord>(&key::mesh()).unwrap().unwrap();
    assert_eq!(
        (ledger.records.level().unwrap(), mesh(&ledger).token_secret),
        (Level::ROLES, b"sealed".to_vec().into())
    );
    assert_eq!(ledger.run(raise(Level::FIRST)), Outcome::Exists);
    assert_eq!(ledger.run(raise(Level::ROLES)), Outcome::Exists);
    assert_eq!(ledger.records.level().unwrap(), Level::ROLES);
}

/// Builds of the first level apply a join as they always did: else one entry would mean two things
/// on two nodes.
#[test]
fn an_id_that_was_used_is_not_let_in_again_from_the_level_of_roles_on() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.run(invite(b"s")), Outcome::Done);
    assert_eq!(ledger.run(join(9, "e1", b"s")), Outcome::Done);
    assert_eq!(ledger.run(join(9, "e2", b"s")), Outcome::Done, "as before");
    ledger.run(raise(Level::ROLES));
    assert!(matches!(ledger.run(join(9, "e3", b"s")), Outcome::Refused(_)));
    assert_eq!(ledger.run(Command::RemoveNode { id: NodeId(9) }), Outcome::Done);
    assert!(matches!(ledger.run(join(9, "e4", b"s")), Outcome::Refused(_)));
    assert_eq!(ledger.run(join(10, "e4", b"s")), Outcome::Done);
}

#[test]
fn what_a_node_says_of_itself_is_checked_from_the_level_of_roles_on() {
    let mut ledger = Ledger::new();
    ledger.run(raise(Level::ROLES));
    let url = |url: &str| NodeRecord { url: url.into(), ..node(2) };
    let moved = |node: NodeRecord| Command::MoveNode { node };
    assert_eq!(ledger.run(moved(url("https://registry.example:5000"))), Outcome::Done);
    for bad in [
        "",
        "docker.io",
        "http://",
        "http://a b",
        "http://a/\u{1b}[2J",
        &format!("http://{}", "a".repeat(600)),
    ] {
        assert!(matches!(ledger.run(moved(url(bad))), Outcome::Refused(_)), "{bad:?}");
    }
    let taken = NodeRecord { name: "n1".parse().unwrap(), ..url("http://a:1") };
    assert!(matches!(ledger.run(moved(taken)), Outcome::Refused(_)));
}

/// A write that was retried under the next primary got a new id: one that had taken effect unseen
/// was done twice. A tag went back to what it had been, and a delete that had worked was answered
/// "not found".
#[test]
fn an_operation_keeps_its_id_through_a_change_of_primary_and_takes_effect_once() {
    let mut ledger = Ledger::new();
    ledger.run(raise(Level::ROLES));
    let first = ledger.epoch();
    assert_eq!(ledger.run(put(first, 1, "t", &[])), Outcome::Done);
    let operation = OperationId(77);
    let delete = |epoch| Command::DeleteTag {
        epoch,
        repository: "demo/a".parse().unwrap(),
        tag: "t".parse().unwrap(),
    };
    let run = |ledger: &mut Ledger, command: Command| {
        ledger.revision += 1;
        let envelope = Envelope { operation, at: Timestamp(ledger.revision), command };
        apply(&mut ledger.records, Revision(ledger.revision), &envelope).unwrap()
    };
    let assign = Command::AssignPrimary {
        project: "demo".parse().unwrap(),
        node: NodeId(2),
        expect_epoch: first,
    };
    assert_eq!(ledger.run(assign), Outcome::Done);
    let second = ledger.epoch();
    // decided under the old epoch: refused, and nothing remembered; under the new one: done, once
    assert_eq!(run(&mut ledger, delete(first)), Outcome::StaleEpoch { current: second });
    assert_eq!(run(&mut ledger, delete(second)), Outcome::Done);
    // what was under way meanwhile, of either epoch, hears the same and changes nothing, whatever
    // the tag is now
    assert_eq!(ledger.run(put(second, 2, "t", &[])), Outcome::Done);
    for epoch in [first, second] {
        assert_eq!(run(&mut ledger, delete(epoch)), Outcome::Done);
    }
    assert!(
        ledger.records.tag(&"demo/a".parse().unwrap(), &"t".parse().unwrap()).unwrap().is_some()
    );
}

/// A ledger at the level before caches, with a proxy project `hub` that has `manifests` manifests,
/// each with a tag, a layer of its own and one that all have.
fn with_recorded_cache(manifests: u32) -> Ledger {
    let mut ledger = Ledger::new();
    ledger.run(raise(Level::CONDITIONS));
    let upstream = Command::CreateUpstream {
        name: "a".into(),
        kind: "docker-registry".into(),
        url: "https://example.com".into(),
        description: String::new(),
        credentials: None,
    };
    assert_eq!(ledger.run(upstream), Outcome::Done);
    let Command::CreateProject(new) = create("hub") else { unreachable!("it is one") };
    let project = Command::CreateProject(NewProject { upstream: Some(UpstreamId(1)), ..new });
    assert_eq!(ledger.run(project), Outcome::Done);
    for n in 0..manifests {
        assert_eq!(ledger.run(cached(n)), Outcome::Done);
    }
    ledger
}

/// What a primary recorded of an upstream before there were caches.
fn cached(n: u32) -> Command {
    let only_described =
        |digest| BlobDescriptor { digest, size: 1, content: None, kept_by: vec![] };
    let blobs = [Digest::sha256(&n.to_be_bytes()), Digest::sha256(b"common")];
    Command::PutManifest(NewManifest {
        repository: format!("hub/r{}", n % 3).parse().unwrap(),
        digest: Digest::sha256(&[&n.to_be_bytes()[..], b"m"].concat()),
        blobs: blobs.into_iter().map(only_described).collect(),
        tags: vec![format!("t{n}").parse().unwrap()],
        ..new(Epoch::FIRST, 1, "t", &[])
    })
}

fn empty_cache(epoch: Epoch) -> Command {
    Command::EmptyCache { project: "hub".parse().unwrap(), epoch }
}

#[test]
fn the_ledger_records_no_cached_content_from_the_level_of_caches_on() {
    let mut ledger = with_recorded_cache(1);
    ledger.run(raise(Level::CACHES));
    let before = ledger.records.clone();
    let about = |records: &MemoryRecords| {
        let of = |table: u8| records.scan(&[table], None, 99).unwrap();
        b"tmlbry".map(of)
    };
    assert!(matches!(ledger.run(cached(7)), Outcome::Refused(_)));
    let Command::PutManifest(new) = cached(8) else { unreachable!("it is one") };
    let of = Reference::Digest(new.digest);
    let none = Box::new(Precondition { of, is: None, is_not: Some(Named::Anything) });
    assert!(matches!(ledger.run(Command::PutManifestIf(none, new)), Outcome::Refused(_)));
    assert_eq!(about(&ledger.records), about(&before));
    let epoch = ledger.epoch();
    assert_eq!(ledger.run(put(epoch, 1, "t", &[1])), Outcome::Done, "another project's");
}

#[test]
fn recorded_caches_are_emptied_in_bounded_pieces_and_leave_nothing_behind() {
    let many = EMPTIED_AT_ONCE as u32;
    let mut ledger = with_recorded_cache(many);
    let epoch = ledger.epoch();
    // a blob that somebody has pushed, too
    let mut pushed = new(epoch, 1, "t", &[7]);
    pushed.blobs[0].digest = Digest::sha256(b"common");
    assert_eq!(ledger.run(Command::PutManifest(pushed)), Outcome::Done);
    assert_eq!(empty_cache(Epoch::FIRST).level(), Level::CACHES);
    ledger.run(raise(Level::CACHES));
    let stale = ledger.run(empty_cache(Epoch::FIRST.next()));
    assert_eq!(stale, Outcome::StaleEpoch { current: Epoch::FIRST });
    let left = |ledger: &Ledger| {
        let count = |prefix: &[u8]| ledger.records.scan(prefix, None, usize::MAX).unwrap().len();
        count(b"thub") + count(b"mhub")
    };
    for round in 0..2 {
        let before = left(&ledger);
        let outcome = ledger.run(empty_cache(Epoch::FIRST));
        assert_eq!(outcome, [Outcome::Unfinished, Outcome::Done][round]);
        assert_eq!(before - left(&ledger), EMPTIED_AT_ONCE);
    }
    let table = |table: &[u8]| ledger.records.scan(table, None, usize::MAX).unwrap();
    for kept in [b"t", b"m", b"l", b"y"] {
        assert_eq!(table(kept).len(), 1, "only what is in the other project");
    }
    let blobs = table(b"b");
    assert_eq!(blobs.len(), 1, "what only an upstream described is gone");
    let record: BlobRecord = decode(&blobs[0].1).unwrap();
    assert_eq!((record.repositories, record.content), (1, Some(ContentHash::of(&[7]))));
    assert!(ledger.records.project(&"hub".parse().unwrap()).unwrap().is_some());
    assert_eq!(ledger.run(empty_cache(Epoch::FIRST)), Outcome::Done);
}

/// Counts the records that are read and written through it.
struct Counted<'a> {
    records: &'a mut MemoryRecords,
    touched: std::cell::Cell<usize>,
}

impl Counted<'_> {
    fn count(&self, more: usize) {
        self.touched.set(self.touched.get() + more);
    }
}

impl ReadRecords for Counted<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        self.count(1);
        self.records.get(key)
    }
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, RecordError> {
        let pairs = self.records.scan(prefix, after, limit)?;
        self.count(1 + pairs.len());
        Ok(pairs)
    }
}

impl WriteRecords for Counted<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        self.count(1);
        self.records.put(key, value)
    }
    fn remove(&mut self, key: &[u8]) -> Result<(), RecordError> {
        self.count(1);
        self.records.remove(key)
    }
}

/// The number of records that a command touches.
fn touched(ledger: &mut Ledger, command: Command) -> usize {
    ledger.revision += 1;
    let operation = OperationId(u128::from(ledger.revision) << 64);
    let envelope = Envelope { operation, at: Timestamp(ledger.revision), command };
    let mut counted = Counted { records: &mut ledger.records, touched: 0.into() };
    let outcome = apply(&mut counted, Revision(ledger.revision), &envelope).unwrap();
    assert_eq!(outcome, Outcome::Done);
    counted.touched.get()
}

fn repository() -> RepositoryName {
    "demo/a".parse().unwrap()
}

fn delete(epoch: Epoch, manifest: u8) -> Command {
    let digest = Digest::sha256(&[manifest, 0]);
    Command::DeleteManifest { epoch, repository: repository(), digest }
}

#[test]
fn a_manifest_among_many_tags_is_put_and_deleted_at_the_cost_of_its_own() {
    let mut ledger = Ledger::new();
    ledger.run(raise(Level::NEWEST));
    let e = ledger.epoch();
    let cost = |ledger: &mut Ledger| {
        let put = touched(ledger, put(e, 1, "one", &[1]));
        let again = touched(ledger, self::put(e, 1, "two", &[1]));
        (put, again, touched(ledger, delete(e, 1)))
    };
    ledger.run(put(e, 3, "first", &[3]));
    // its blob becomes garbage, which the next manifest ends
    cost(&mut ledger);
    let alone = cost(&mut ledger);
    for n in 0..100_000 {
        ledger.run(put(e, 2, &format!("t{n}"), &[]));
    }
    // five more: by now each command forgets the answer to an old one
    let among = cost(&mut ledger);
    assert_eq!(among, (alone.0 + 5, alone.1 + 5, alone.2 + 5), "put, another tag, delete");
    // five records each are the event's; a delete also looks for four tags that would be about the
    // manifest, and for its labels; quotas, signatures and the trash look at a few more
    assert!(alone.0 < 50 && alone.1 < 35 && alone.2 < 60, "{alone:?}");
    // what names much costs that much
    let all = touched(&mut ledger, delete(e, 2));
    assert!((200_000..350_000).contains(&all), "{all}");
    assert_eq!(tags_page(&ledger.records, &repository(), None, 9).unwrap(), ["first"]);
}

#[test]
fn a_large_index_that_gets_another_tag_is_not_written_again() {
    let mut ledger = Ledger::new();
    ledger.run(raise(Level::NEWEST));
    let e = ledger.epoch();
    let large = |tag: &str, blobs: u32| {
        let describe = |n: u32| BlobDescriptor {
            digest: Digest::sha256(&n.to_be_bytes()),
            size: 1,
            content: None,
            kept_by: Vec::new(),
        };
        let blobs = (0..blobs).map(describe).collect();
        Command::PutManifest(NewManifest { blobs, ..new(e, 1, tag, &[]) })
    };
    assert!(touched(&mut ledger, large("one", 10_000)) > 10_000);
    let place = key::manifest(&repository(), &Digest::sha256(&[1, 0]));
    let before = ledger.records.get(&place).unwrap();
    assert!(touched(&mut ledger, large("two", 10_000)) < 35);
    assert_eq!(ledger.records.get(&place).unwrap(), before);
    let one_more = touched(&mut ledger, large("two", 10_001));
    assert!(one_more < 40, "one blob more touches {one_more}");
}

#[test]
fn the_bytes_of_a_manifest_are_recorded_once_and_as_long_as_a_repository_has_it() {
    let mut ledger = Ledger::new();
    let e = ledger.epoch();
    let at = |name: &str| {
        let repository = name.parse().unwrap();
        let mut new = NewManifest { repository, ..new(e, 1, "t", &[1]) };
        new.bytes = vec![7; 1000];
        Command::PutManifest(new)
    };
    let digest = Digest::sha256(&[1, 0]);
    let contents = |ledger: &Ledger| {
        let all = ledger.records.0.values().filter(|value| value.len() >= 1000).count();
        let shared = ledger.records.record::<ContentRecord>(&key::content(&digest)).unwrap();
        (all, shared.map_or(0, |shared| shared.repositories))
    };
    let reads = |ledger: &Ledger, name: &str| {
        let manifest = ledger.records.manifest(&name.parse().unwrap(), &digest).unwrap();
        manifest.map(|manifest| manifest.bytes.len())
    };
    // two of an earlier level: with their bytes
    for name in ["demo/a", "demo/b"] {
        ledger.run(at(name));
    }
    assert_eq!(contents(&ledger), (2, 0));
    ledger.run(raise(Level::NEWEST));
    for name in ["demo/c", "demo/d", "demo/d"] {
        ledger.run(at(name));
    }
    assert_eq!(contents(&ledger), (3, 2));
    ledger.run(at("demo/a"));
    assert_eq!(contents(&ledger), (2, 3), "what comes again takes part");
    for name in ["demo/a", "demo/b", "demo/c", "demo/d"] {
        assert_eq!(reads(&ledger, name), Some(1000), "{name}");
    }
    let delete = |name: &str| Command::DeleteManifest {
        epoch: e,
        repository: name.parse().unwrap(),
        digest,
    };
    for (name, left) in [("demo/b", (1, 3)), ("demo/c", (1, 2)), ("demo/a", (1, 1))] {
        assert_eq!(ledger.run(delete(name)), Outcome::Done);
        assert_eq!((contents(&ledger), reads(&ledger, name)), (left, None), "{name}");
        assert_eq!(reads(&ledger, "demo/d"), Some(1000));
    }
    assert_eq!(ledger.run(delete("demo/d")), Outcome::Done);
    assert_eq!(contents(&ledger), (0, 0));
    for table in [b"m", b"d", b"w", b"z", b"t", b"l", b"y"] {
        let left = ledger.records.scan(table, None, 9).unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn tags_of_an_earlier_level_are_indexed_in_bounded_pieces_and_deleted_meanwhile() {
    let mut ledger = Ledger::new();
    let e = ledger.epoch();
    let many = EMPTIED_AT_ONCE * 2 + 10;
    for n in 0..many {
        ledger.run(put(e, (n % 2) as u8, &format!("t{n:05}"), &[]));
    }
    ledger.run(raise(Level::NEWEST));
    let index = || Command::IndexTags { epoch: e, repository: repository() };
    assert_eq!(index().level(), Level::CACHES);
    assert_eq!(ledger.run(index()), Outcome::Unfinished);
    // half of it is indexed: all tags of the manifest go, whether they are in the index or not
    assert_eq!(ledger.run(delete(e, 0)), Outcome::Done);
    let odd: Vec<String> = (0..many).filter(|n| n % 2 == 1).map(|n| format!("t{n:05}")).collect();
    assert_eq!(tags_page(&ledger.records, &repository(), None, many).unwrap(), odd);
    ledger.run(put(e, 4, "t00001", &[]));
    let mut rounds = 0;
    while ledger.run(index()) == Outcome::Unfinished {
        rounds += 1;
    }
    assert!(rounds <= 2, "{rounds}");
    assert_eq!(ledger.run(index()), Outcome::Done);
    agree(&ledger.records);
    assert_eq!(ledger.run(delete(e, 1)), Outcome::Done);
    assert_eq!(tags_page(&ledger.records, &repository(), None, many).unwrap(), ["t00001"]);
    let gone = Command::IndexTags { epoch: e, repository: "demo/none".parse().unwrap() };
    assert_eq!(ledger.run(gone), Outcome::Done);
    agree(&ledger.records);
}

/// The index of a repository's tags, where it is whole, has exactly its tags, and bytes are counted as
/// often as manifests share them.
fn agree(records: &MemoryRecords) {
    let repository = repository();
    let whole = records.record::<TagIndex>(&key::tag_index(&repository)).unwrap();
    let all = records.records::<TagRecord>(&key::tags(&repository)).unwrap();
    let expected: Vec<Vec<u8>> = {
        let place = |(place, tag): &(Vec<u8>, TagRecord)| {
            let name = key::tag_of(place).parse().unwrap();
            key::named(&repository, &tag.digest, &name)
        };
        let mut places: Vec<_> = all.iter().map(place).collect();
        places.sort();
        places
    };
    let indexed: Vec<Vec<u8>> =
        records.scan(b"w", None, usize::MAX).unwrap().into_iter().map(|(key, _)| key).collect();
    if whole == Some(TagIndex::Whole) {
        assert_eq!(indexed, expected);
    } else {
        assert!(indexed.iter().all(|place| expected.contains(place)), "{indexed:?}");
    }
    let manifests = records.records::<ManifestRecord>(&key::manifests(&repository)).unwrap();
    let sharing = manifests.iter().filter(|(_, manifest)| manifest.bytes.is_empty()).count();
    let contents = records.records::<ContentRecord>(b"d").unwrap();
    assert_eq!(contents.len(), sharing);
    assert!(contents.iter().all(|(_, content)| content.repositories == 1));
}

proptest! {
    /// Whenever the level is raised, and however far the tags are indexed: tags name manifests that
    /// exist, and the index has what it must.
    #[test]
    fn records_agree_through_a_raise_of_the_level(
        steps in proptest::collection::vec((0u8..6, 0u8..4, 0u8..4), 1..60), raised in 0usize..40
    ) {
        let mut ledger = Ledger::new();
        for (at, (kind, n, t)) in steps.into_iter().enumerate() {
            if at == raised {
                ledger.run(raise(Level::NEWEST));
            }
            let (epoch, repository) = (ledger.epoch(), repository());
            ledger.run(match kind {
                0..=2 => put(epoch, n, &format!("t{t}"), &[n, n + 1]),
                3 => Command::DeleteTag { epoch, repository, tag: format!("t{t}").parse().unwrap() },
                4 if at > raised => Command::IndexTags { epoch, repository },
                _ => delete(epoch, n),
            });
            let r = &ledger.records;
            for (_, tag) in r.records::<TagRecord>(&key::tags(&self::repository())).unwrap() {
                let manifest = r.manifest(&self::repository(), &tag.digest).unwrap();
                prop_assert!(manifest.is_some_and(|manifest| !manifest.bytes.is_empty()));
            }
            agree(r);
        }
    }
}

#[test]
fn a_replica_is_removed_from_the_level_on_that_can_and_never_the_last() {
    let mut ledger = Ledger::new();
    let remove = |n| Command::RemoveNode { id: NodeId(n) };
    assert!(matches!(ledger.run(remove(1)), Outcome::Refused(_)), "the level before");
    let raise = Command::RaiseLevel { level: Level::KEYS, token_secret: Default::default() };
    assert_eq!(ledger.run(raise), Outcome::Done);
    let demo = |ledger: &Ledger| ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap();
    let move_to = |ledger: &Ledger, n| Command::AssignPrimary {
        project: "demo".parse().unwrap(),
        node: NodeId(n),
        expect_epoch: ledger.epoch(),
    };
    // a project that has moved is at home where it is; one that has not, where it moves to
    let moved = move_to(&ledger, 2);
    assert_eq!(ledger.run(moved), Outcome::Done);
    assert_eq!(demo(&ledger).home, NodeId(1));
    assert_eq!(ledger.run(remove(1)), Outcome::Done);
    assert_eq!((demo(&ledger).home, demo(&ledger).primary), (NodeId(2), NodeId(2)));
    assert_eq!(ledger.run(remove(2)), Outcome::Done);
    let moved = move_to(&ledger, 3);
    assert_eq!(ledger.run(moved), Outcome::Done);
    assert_eq!((demo(&ledger).home, demo(&ledger).primary), (NodeId(3), NodeId(3)));
    assert!(ledger.records.get(&key::removed(NodeId(2))).unwrap().is_some());
    assert!(matches!(ledger.run(remove(3)), Outcome::Refused(_)), "the last one");
}
