//! What a project has is counted exactly, through a raise of the level and a counting in steps; and
//! nothing is stored beyond its quota.

use std::collections::{BTreeMap, BTreeSet};

use super::leaving::at_newest;
use super::*;
use crate::ledger::collecting::LookForGarbage;
use crate::ledger::command::{Checked, EquippedProject};
use crate::ledger::events::{EventTable, LookForEvents};
use crate::ledger::quotas::{LookForQuotas, Progress, ProjectBlob, QuotaChange, UsageRecord};
use crate::ledger::records::decode;
use crate::ledger::trash::{
    LookForTrash, TrashBlob, TrashChange, TrashUsage, key as trash_key, restoration,
};
use crate::policies::quota::{Limits, Usage};
use crate::words::names::ProjectName;

fn demo() -> ProjectName {
    "demo".parse().unwrap()
}

/// A manifest of so many bytes with blobs whose sizes are their numbers.
fn manifest(epoch: Epoch, repository: &str, n: u8, tags: &[&str], blobs: &[u8]) -> NewManifest {
    let describe = |n: &u8| BlobDescriptor {
        digest: Digest::sha256(&[*n]),
        size: u64::from(*n),
        content: Some(ContentHash::of(&[*n])),
        kept_by: Vec::new(),
    };
    NewManifest {
        epoch,
        repository: repository.parse().unwrap(),
        // one of them is also a blob, and as long as that one
        digest: if n == 3 { Digest::sha256(&[n]) } else { Digest::sha256(&[n, 0]) },
        media_type: "m".into(),
        bytes: vec![n; usize::from(n)],
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        blobs: blobs.iter().map(describe).collect(),
        subject: None,
    }
}

fn push(epoch: Epoch, repository: &str, n: u8, tags: &[&str], blobs: &[u8]) -> Command {
    let new = manifest(epoch, repository, n, tags, blobs);
    Command::PutChecked(Box::new(Checked { collections: u64::MAX, precondition: None, new }))
}

fn trash(epoch: Epoch, change: TrashChange) -> Command {
    Command::Trash { epoch, change: Box::new(change) }
}

fn keeps_trash(epoch: Epoch, time: &str) -> Command {
    Command::ConfigureProject {
        name: demo(),
        epoch,
        public: None,
        durability: None,
        proxy: ProxyChange::default(),
        metadata: BTreeMap::from([("trash".into(), time.into())]),
    }
}

fn count() -> Command {
    Command::Quota(Box::new(QuotaChange::Count { project: demo() }))
}

fn limit(limits: Limits) -> Command {
    Command::Quota(Box::new(QuotaChange::Set { project: ProjectId(1), limits }))
}

fn storage(storage: u64) -> Limits {
    Limits { storage: Some(storage), ..Limits::default() }
}

fn used(ledger: &Ledger) -> Usage {
    ledger.records.usage(&demo()).unwrap().unwrap().used
}

/// What the project has at the places that are counted, by looking at everything.
fn recounted(records: &MemoryRecords, record: &UsageRecord) -> (Usage, BTreeMap<Digest, u64>) {
    let mut places: BTreeMap<Digest, u64> = BTreeMap::new();
    let mut sizes = BTreeMap::new();
    let counted = |place: &[u8]| record.progress.has(place);
    for (place, _) in records.scan(&key::links_of(&demo()), None, usize::MAX).unwrap() {
        if trash_key::is_link(&place) {
            continue;
        }
        let digest = key::digest_of(&place).unwrap();
        let blob: BlobRecord = records.record(&key::blob(&digest)).unwrap().unwrap();
        if counted(&place) {
            *places.entry(digest).or_default() += 1;
            sizes.insert(digest, blob.size);
        }
    }
    for (place, value) in records.scan(&key::manifests_of(&demo()), None, usize::MAX).unwrap() {
        let digest = key::digest_of(&place).unwrap();
        let manifest: ManifestRecord = decode(&value).unwrap();
        let content = records.record::<ContentRecord>(&key::content(&digest)).unwrap();
        let shared = content.map_or(0, |content| content.bytes.len());
        if counted(&place) {
            *places.entry(digest).or_default() += 1;
            sizes.insert(digest, manifest.bytes.len().max(shared) as u64);
        }
    }
    let number = |prefix: Vec<u8>| {
        let all = records.scan(&prefix, None, usize::MAX).unwrap();
        all.iter().filter(|(place, _)| counted(place)).count() as u64
    };
    let usage = Usage {
        storage: sizes.values().sum(),
        tags: number(key::tags_of(&demo())),
        repositories: number(key::repositories_of(&demo())),
    };
    (usage, places)
}

fn agrees(ledger: &Ledger) {
    let Some(record) = ledger.records.usage(&demo()).unwrap() else { return };
    let (usage, places) = recounted(&ledger.records, &record);
    assert_eq!(record.used, usage, "{:?}", record.progress);
    let blobs =
        ledger.records.records::<ProjectBlob>(&crate::ledger::quotas::key::blobs(&demo())).unwrap();
    let known: BTreeMap<Digest, u64> = blobs
        .into_iter()
        .map(|(place, blob)| (key::digest_of(&place).unwrap(), blob.repositories))
        .collect();
    assert_eq!(known, places);
    trash_agrees(ledger);
}

/// What only the trash has is what a count of all its records finds, and each blob and content has as
/// many references as there are repositories and trashes that refer to it.
fn trash_agrees(ledger: &Ledger) {
    let records = &ledger.records;
    let mut references: BTreeMap<Digest, BTreeSet<(bool, RepositoryName)>> = BTreeMap::new();
    let mut contents: BTreeMap<Digest, u64> = BTreeMap::new();
    let mut sizes: BTreeMap<Digest, u64> = BTreeMap::new();
    let (mut manifests, mut ends, mut links) = (0, 0, BTreeMap::<Vec<u8>, u64>::new());
    for (repository, digest, record) in records.trash(&demo(), None, None, usize::MAX).unwrap() {
        ends += 1;
        let end = trash_key::by_end(record.until, &repository, &digest);
        assert!(records.get(&end).unwrap().is_some());
        assert!(record.manifest.is_some() || !record.tags.is_empty());
        let Some(manifest) = record.manifest else { continue };
        assert!(!records.has_manifest(&repository, &digest).unwrap(), "it is in one place");
        manifests += 1;
        *contents.entry(digest).or_default() += 1;
        sizes.insert(digest, manifest.size);
        for blob in manifest.blobs {
            let known: BlobRecord = records.record(&key::blob(&blob)).unwrap().unwrap();
            sizes.insert(blob, known.size);
            *links.entry(trash_key::link(&repository, &blob)).or_default() += 1;
            references.entry(blob).or_default().insert((true, repository.clone()));
        }
    }
    assert_eq!(records.scan(&trash_key::all_by_end(), None, 9999).unwrap().len(), ends);
    for (place, count) in records.records::<u64>(&key::links_of(&demo())).unwrap() {
        match trash_key::is_link(&place) {
            true => assert_eq!(links.remove(&place), Some(count)),
            false => {
                let (repository, rest) = key::in_repository(&place).unwrap();
                let blob = Digest::from_key(rest).unwrap();
                references.entry(blob).or_default().insert((false, repository));
            }
        }
    }
    assert_eq!(links, BTreeMap::new());
    for (place, _) in records.scan(&key::manifests_of(&demo()), None, usize::MAX).unwrap() {
        *contents.entry(key::digest_of(&place).unwrap()).or_default() += 1;
    }
    for (digest, count) in contents {
        let content = records.record::<ContentRecord>(&key::content(&digest)).unwrap();
        // one of before its level has its bytes in its record
        let bare = content.is_none_or(|content| content.repositories == count);
        assert!(bare, "{digest}");
    }
    for (blob, by) in references {
        let record: BlobRecord = records.record(&key::blob(&blob)).unwrap().unwrap();
        assert_eq!(record.repositories, by.len() as u64, "{blob} {by:?}");
        assert_eq!(records.garbage_since(&blob).unwrap(), None);
    }
    let live = |digest: &Digest| {
        records.get(&crate::ledger::quotas::key::blob(&demo(), digest)).unwrap().is_some()
    };
    let storage = sizes.iter().filter(|(digest, _)| !live(digest)).map(|(_, size)| *size).sum();
    assert_eq!(records.trash_usage(&demo()).unwrap(), TrashUsage { manifests, storage });
    let blobs = records.scan(b"9xb", None, 9999).unwrap();
    assert_eq!(blobs.len(), sizes.len());
    for (_, value) in blobs {
        assert!(decode::<TrashBlob>(&value).unwrap().repositories > 0);
    }
}

proptest! {
    /// Whatever is pushed, tagged, deleted and counted, in whatever order: what is known to be there
    /// is what a count of everything finds. A project that is deleted leaves nothing behind.
    #[test]
    fn what_is_counted_is_what_is_there(
        steps in proptest::collection::vec((0u8..12, 1u8..6, 0u8..3, 0u8..2), 1..80),
        raised in 0usize..50,
        at_once in 1usize..6,
    ) {
        let mut ledger = Ledger::new();
        ledger.run(raise(Level::DETAILS));
        ledger.run(keeps_trash(ledger.epoch(), "7d"));
        for (at, (kind, n, t, r)) in steps.into_iter().enumerate() {
            if at == raised {
                prop_assert_eq!(ledger.run(raise(Level::NEWEST)), Outcome::Done);
            }
            let epoch = ledger.epoch();
            let repository = ["demo/a", "demo/b"][usize::from(r)];
            let place: RepositoryName = repository.parse().unwrap();
            let tag = format!("t{t}");
            let digest = manifest(epoch, repository, n, &[], &[]).digest;
            match kind {
                0..=2 => {
                    ledger.run(push(epoch, repository, n, &[&tag, "latest"], &[n, n + 1, t + 1]));
                }
                3 => {
                    let tag = tag.parse().unwrap();
                    ledger.run(Command::DeleteTag { epoch, repository: place, tag });
                }
                4 => {
                    let tag = "more".parse().unwrap();
                    ledger.run(Command::AddTag { epoch, repository: place, digest, tag });
                }
                5 if at > raised => {
                    super::super::quotas::count(&mut ledger.records, &demo(), at_once).unwrap();
                }
                6 if t == 0 => {
                    for repository in ["demo/a", "demo/b"] {
                        let repository: RepositoryName = repository.parse().unwrap();
                        let all = ledger.records.scan(&key::manifests(&repository), None, 99);
                        for (place, _) in all.unwrap() {
                            let digest = key::digest_of(&place).unwrap();
                            let repository = repository.clone();
                            ledger.run(Command::DeleteManifest { epoch, repository, digest });
                        }
                    }
                    agrees(&ledger);
                    let name = demo();
                    let done = ledger.run(Command::DeleteProject { name, epoch });
                    prop_assert_eq!(done, Outcome::Done);
                    let left = |key: &[u8]| [&b"9q"[..], b"9x", b"l", b"d"].iter().any(|t| key.starts_with(t));
                    prop_assert!(!ledger.records.0.keys().any(|key| left(key)));
                    ledger.run(create("demo"));
                    ledger.run(keeps_trash(ledger.epoch(), "7d"));
                }
                8 => {
                    let restoration = restoration(&ledger.records, &place, digest).unwrap();
                    let tag = (t == 0).then(|| tag.parse().unwrap());
                    let (repository, all) = (place, restoration.all);
                    ledger.run(trash(epoch, TrashChange::Restore { repository, digest, tag, all }));
                }
                9 => {
                    let change = TrashChange::Empty {
                        project: demo(),
                        repository: (t > 0).then_some(place),
                        digest: (t > 1).then_some(digest),
                    };
                    ledger.run(trash(epoch, change));
                }
                10 => {
                    let at = Timestamp(ledger.now().0 + if t == 0 { 2_000 } else { 0 });
                    let ended = ledger.records.ended_trash(at, None, usize::from(n)).unwrap();
                    let records = ended.into_iter().map(|(_, name, digest)| (name, digest)).collect();
                    ledger.revision = at.0;
                    ledger.run(trash(epoch, TrashChange::Expire { project: demo(), records }));
                }
                11 => {
                    ledger.run(keeps_trash(epoch, ["0", "1s", "7d"][usize::from(t)]));
                }
                _ => {
                    ledger.run(Command::DeleteManifest { epoch, repository: place, digest });
                }
            }
            agrees(&ledger);
        }
        // in the end everything is counted
        if ledger.records.level().unwrap() == Level::NEWEST {
            while ledger.run(count()) == Outcome::Unfinished {}
            let record = ledger.records.usage(&demo()).unwrap().unwrap();
            prop_assert_eq!(&record.progress, &Progress::Whole);
            agrees(&ledger);
        }
    }
}

#[test]
fn a_blob_is_charged_once_and_its_bytes_are_free_with_its_last_manifest() {
    let mut ledger = at_newest();
    while ledger.run(count()) == Outcome::Unfinished {}
    let e = ledger.epoch();
    assert_eq!(ledger.run(push(e, "demo/a", 1, &["t"], &[50, 60])), Outcome::Done);
    assert_eq!(used(&ledger), Usage { storage: 111, tags: 1, repositories: 1 });
    assert_eq!(ledger.run(push(e, "demo/b", 2, &["t", "u"], &[60, 70])), Outcome::Done);
    assert_eq!(used(&ledger), Usage { storage: 183, tags: 3, repositories: 2 });
    assert_eq!(ledger.run(push(e, "demo/b", 1, &[], &[50, 60])), Outcome::Done);
    assert_eq!(used(&ledger).storage, 183, "a copy within the project costs nothing");
    let gone = |repository: &str, n: u8| Command::DeleteManifest {
        epoch: e,
        repository: repository.parse().unwrap(),
        digest: Digest::sha256(&[n, 0]),
    };
    assert_eq!(ledger.run(gone("demo/a", 1)), Outcome::Done);
    assert_eq!(used(&ledger), Usage { storage: 183, tags: 2, repositories: 1 });
    assert_eq!(ledger.run(gone("demo/b", 1)), Outcome::Done);
    assert_eq!(used(&ledger).storage, 132, "60 is still somebody's");
    assert_eq!(ledger.run(gone("demo/b", 2)), Outcome::Done);
    assert_eq!(used(&ledger), Usage::default());
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let mut ledger = at_newest();
    while ledger.run(count()) == Outcome::Unfinished {}
    let e = ledger.epoch();
    assert_eq!(ledger.run(limit(storage(100))), Outcome::Done);
    assert_eq!(ledger.run(push(e, "demo/a", 1, &["t"], &[59])), Outcome::Done);
    let refused = ledger.run(push(e, "demo/a", 2, &["t"], &[39]));
    let said = "adding 41 B of storage resource, which when updated to current usage of 60 B will exceed the configured upper limit of 100 B.";
    assert_eq!(refused, Outcome::OverQuota(said.into()));
    assert_eq!(used(&ledger), Usage { storage: 60, tags: 1, repositories: 1 });
    let warned = |ledger: &Ledger| {
        let all = ledger.records.events_before(EventTable::Changes, u64::MAX, 100).unwrap();
        let of_quota = all.into_iter().filter(|(_, event)| event.resource_type == "quota");
        let warnings = of_quota.filter(|(_, event)| event.operation == "warn");
        warnings.map(|(_, event)| event.resource).collect::<Vec<_>>()
    };
    assert_eq!(warned(&ledger), [""; 0]);
    assert_eq!(ledger.run(push(e, "demo/a", 2, &["t"], &[38])), Outcome::Done, "exactly");
    assert_eq!(used(&ledger).storage, 100);
    assert_eq!(warned(&ledger), ["demo: storage: 100 B of 100 B are used"]);
    // what is there already costs nothing, and neither does another tag
    assert_eq!(ledger.run(push(e, "demo/a", 1, &["v"], &[59])), Outcome::Done);
    assert_eq!(ledger.run(limit(storage(1))), Outcome::Done, "a limit below what is there");
    assert_eq!(ledger.run(push(e, "demo/b", 1, &["v"], &[59])), Outcome::Done);
    let limits = Limits { tags: Some(3), repositories: Some(2), ..Limits::default() };
    assert_eq!(ledger.run(limit(limits)), Outcome::Done);
    let over = |outcome: Outcome| matches!(outcome, Outcome::OverQuota(_));
    assert!(over(ledger.run(push(e, "demo/a", 1, &["w"], &[59]))), "a fourth tag");
    assert!(over(ledger.run(push(e, "demo/c", 1, &[], &[59]))), "a third repository");
    let add = |tag: &str| Command::AddTag {
        epoch: e,
        repository: "demo/a".parse().unwrap(),
        digest: Digest::sha256(&[1, 0]),
        tag: tag.parse().unwrap(),
    };
    assert!(over(ledger.run(add("w"))));
    assert_eq!(ledger.run(add("v")), Outcome::Exists);
    assert_eq!(ledger.run(push(e, "demo/a", 2, &["v"], &[38])), Outcome::Done, "a tag moves");
    assert_eq!(ledger.run(limit(Limits::default())), Outcome::Done);
    assert_eq!(ledger.run(add("w")), Outcome::Done);
    agrees(&ledger);
}

#[test]
fn limits_are_kept_when_all_is_counted_and_caches_have_none() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.run(raise(Level::DETAILS)), Outcome::Done);
    let e = ledger.epoch();
    assert_eq!(ledger.run(push(e, "demo/a", 1, &["t"], &[59])), Outcome::Done);
    assert!(matches!(ledger.run(count()), Outcome::Refused(_)), "too early");
    assert_eq!(ledger.run(raise(Level::NEWEST)), Outcome::Done);
    assert_eq!(ledger.run(limit(storage(60))), Outcome::Done);
    assert_eq!(ledger.records.quota(&demo()).unwrap(), None, "it is not counted");
    assert_eq!(ledger.run(count()), Outcome::Done);
    let e = ledger.epoch();
    let refused = ledger.run(push(e, "demo/a", 2, &["t"], &[59]));
    assert!(matches!(refused, Outcome::OverQuota(_)), "{refused:?}");
    let upstream = Command::CreateUpstream {
        name: "hub".into(),
        kind: "docker-hub".into(),
        url: "https://hub".into(),
        description: String::new(),
        credentials: None,
    };
    assert_eq!(ledger.run(upstream), Outcome::Done);
    let Command::CreateProject(new) = create("cache") else { unreachable!("it is one") };
    let project = NewProject { upstream: Some(UpstreamId(1)), ..new };
    let equipped = |project, limits| {
        let (owner, retention) = (None, None);
        Command::CreateEquippedProject(Box::new(EquippedProject {
            project,
            owner,
            limits,
            retention,
        }))
    };
    assert_eq!(ledger.run(equipped(project, storage(5))), Outcome::Done);
    assert_eq!(ledger.records.usage(&"cache".parse().unwrap()).unwrap(), None);
    let set = QuotaChange::Set { project: ProjectId(2), limits: storage(1) };
    assert!(matches!(ledger.run(Command::Quota(Box::new(set))), Outcome::Refused(_)));
    let missing = QuotaChange::Set { project: ProjectId(9), limits: storage(1) };
    assert_eq!(ledger.run(Command::Quota(Box::new(missing))), Outcome::NotFound);
    let Command::CreateProject(new) = create("small") else { unreachable!("it is one") };
    assert_eq!(ledger.run(equipped(new, storage(5))), Outcome::Done);
    let small = ledger.records.quota(&"small".parse().unwrap()).unwrap();
    assert_eq!(small, Some((storage(5), Usage::default())), "it is counted from its beginning");
}
