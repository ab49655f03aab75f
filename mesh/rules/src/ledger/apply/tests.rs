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
mod cached;
mod cached_scans;
mod cached_signatures;
mod collecting;
mod joining;
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
mod upstreams;
mod writing;

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
