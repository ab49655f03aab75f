use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ledger::records::{MemoryRecords, Repository, tags_page};
use crate::proxies::proxy::ProxyRules;
use crate::words::names::{NodeId, ProjectId, UpstreamId};

fn upstream(id: u64, url: &str) -> UpstreamRecord {
    UpstreamRecord {
        id: UpstreamId(id),
        name: format!("u{id}"),
        kind: "docker-registry".into(),
        url: url.into(),
        description: String::new(),
        credentials: None,
        created: Timestamp(1),
    }
}

fn project(id: u64, name: &str, upstream: Option<u64>) -> Project {
    Project {
        id: ProjectId(id),
        name: name.parse().unwrap(),
        public: true,
        durability: 1,
        home: NodeId(1),
        primary: NodeId(1),
        epoch: Epoch::FIRST,
        created: Timestamp(1),
        upstream: upstream.map(UpstreamId),
        proxy: ProxyRules::default(),
        metadata: BTreeMap::new(),
    }
}

/// The ledger of a mesh with two proxy projects, `hub` and `hub-2`, and a plain one, `demo`.
fn ledger() -> MemoryRecords {
    let mut records = MemoryRecords::default();
    let up = upstream(1, "https://example.com");
    records.put(&key::upstream(UpstreamId(1)), &encode(&up).unwrap()).unwrap();
    for (id, name, caches) in [(1, "hub", Some(1)), (2, "hub-2", Some(1)), (3, "demo", None)] {
        let project = project(id, name, caches);
        records.put(&key::project(&project.name), &encode(&project).unwrap()).unwrap();
    }
    records
}

fn origin(ledger: &MemoryRecords, name: &str) -> Origin {
    Origin::of_project(ledger, &name.parse().unwrap()).unwrap().unwrap()
}

fn blob(n: u8) -> Digest {
    Digest::sha256(&[n])
}

/// A manifest of one layer, which is linked.
fn record(n: u8, at: u64) -> (Digest, ManifestRecord) {
    let bytes = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{}","size":7}},"layers":[{{"mediaType":"l","digest":"{}","size":9}}],"annotations":{{"n":"{n}"}}}}"#,
        blob(200),
        blob(n)
    )
    .into_bytes();
    let record = ManifestRecord {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        bytes: bytes.clone(),
        blobs: vec![blob(200), blob(n)],
        subject: None,
        pushed: Timestamp(at),
    };
    (Digest::sha256(&bytes), record)
}

fn named(repository: &str) -> RepositoryName {
    repository.parse().unwrap()
}

fn keep_one(cache: &mut MemoryRecords, origin: Origin, repository: &str, n: u8, tag: &str) {
    let (digest, record) = record(n, 5);
    let manifest = CachedManifest::of(&named(repository), digest, record).unwrap();
    keep(cache, origin, &manifest).unwrap();
    let said = TagRecord { digest, pushed: Timestamp(1_000 * u64::from(n)) };
    keep_tag(cache, origin, &named(repository), &tag.parse().unwrap(), &said).unwrap();
}

#[test]
fn a_project_made_anew_or_moved_to_another_address_has_nothing_cached() {
    let was = (project(1, "hub", Some(1)), upstream(1, "https://a.example"));
    let of = |project: &Project, upstream: &UpstreamRecord| Origin::of(project, upstream);
    let same = (Project { public: false, ..was.0.clone() }, {
        let credentials = Some(("robot".to_owned(), "sealed".to_owned()));
        UpstreamRecord { credentials, name: "other".into(), ..was.1.clone() }
    });
    assert_eq!(of(&was.0, &was.1), of(&same.0, &same.1));
    assert_ne!(of(&was.0, &was.1), of(&project(2, "hub", Some(1)), &was.1));
    assert_ne!(of(&was.0, &was.1), of(&was.0, &upstream(1, "https://b.example")));
    assert_ne!(of(&was.0, &was.1), of(&was.0, &upstream(2, "https://a.example")));
}

#[test]
fn what_is_cached_is_read_as_if_the_ledger_had_it_and_only_in_its_project() {
    let (ledger, mut cache) = (ledger(), MemoryRecords::default());
    keep_one(&mut cache, origin(&ledger, "hub"), "hub/a", 1, "t");
    keep_one(&mut cache, origin(&ledger, "hub-2"), "hub-2/b", 2, "t");
    let both = WithCached { ledger, cache };
    let (digest, written) = record(1, 5);
    assert_eq!(both.manifest(&named("hub/a"), &digest).unwrap(), Some(written));
    assert!(both.manifest(&named("hub-2/a"), &digest).unwrap().is_none());
    let tag = both.tag(&named("hub/a"), &"t".parse().unwrap()).unwrap().unwrap();
    assert_eq!(tag.digest, digest);
    assert!(both.linked(&named("hub/a"), &blob(1)).unwrap());
    assert!(!both.linked(&named("hub/a"), &blob(2)).unwrap());
    assert_eq!(tags_page(&both, &named("hub/a"), None, 9).unwrap(), ["t"]);
    let names = |prefix: &[u8], limit| {
        let pairs = both.scan(prefix, None, limit).unwrap();
        pairs.iter().map(|(key, _)| key::name_of(key)).collect::<Vec<_>>()
    };
    assert_eq!(names(&key::repositories(), 9), ["hub-2/b", "hub/a"], "in the order of their keys");
    assert_eq!(names(&key::repositories(), 1), ["hub-2/b"]);
    assert_eq!(names(&key::repositories_of(&"hub".parse().unwrap()), 9), ["hub/a"]);
    // a blob's record counts the repositories of all projects
    let known: BlobRecord = both.record(&key::blob(&blob(200))).unwrap().unwrap();
    assert_eq!((known.repositories, known.size, known.content), (2, 7, None));
}

#[test]
fn what_is_forgotten_leaves_nothing_behind() {
    let (ledger, mut cache) = (ledger(), MemoryRecords::default());
    let of = origin(&ledger, "hub");
    keep_one(&mut cache, of, "hub/a", 1, "t");
    let before = cache.clone();
    keep_one(&mut cache, of, "hub/a", 2, "u");
    let second = Reference::Digest(record(2, 5).0);
    assert!(forget(&mut cache, of, &named("hub/a"), &second).unwrap());
    assert!(!forget(&mut cache, of, &named("hub/a"), &second).unwrap());
    assert_eq!(cache, before);
    let tag = Reference::Tag("t".parse().unwrap());
    assert!(forget(&mut cache, of, &named("hub/a"), &tag).unwrap());
    let first = Reference::Digest(record(1, 5).0);
    assert!(forget(&mut cache, of, &named("hub/a"), &first).unwrap());
    assert_eq!(cache, MemoryRecords::default());
}

#[test]
fn of_what_a_tag_named_the_upstreams_last_word_counts() {
    let (mut ledger, mut cache) = (ledger(), MemoryRecords::default());
    let (of, repository, tag) = (origin(&ledger, "hub"), named("hub/a"), "t".parse().unwrap());
    keep_one(&mut cache, of, "hub/a", 2, "t");
    keep_one(&mut cache, of, "hub/a", 1, "t");
    let says = |cache: &MemoryRecords, ledger: &MemoryRecords| {
        let both = WithCached { ledger: ledger.clone(), cache: cache.clone() };
        both.tag(&repository, &tag).unwrap().unwrap().digest
    };
    let digest = |n| record(n, 5).0;
    assert_eq!(says(&cache, &ledger), digest(2), "the older word came later");
    for (at, counts) in [(1_999, digest(2)), (2_001, digest(1))] {
        let recorded = TagRecord { digest: digest(1), pushed: Timestamp(at) };
        ledger.put(&key::tag(&repository, &tag), &encode(&recorded).unwrap()).unwrap();
        assert_eq!(says(&cache, &ledger), counts, "the ledger's is of {at}");
    }
    // a tag that names what is not cached is no help to anybody
    let absent = TagRecord { digest: blob(9), pushed: Timestamp(u64::MAX) };
    keep_tag(&mut cache, of, &repository, &tag, &absent).unwrap();
    assert_eq!(says(&cache, &self::ledger()), digest(2));
}

#[test]
fn a_tag_that_names_the_same_is_written_again_only_now_and_then() {
    let says = |n: u8, at: u64| TagRecord { digest: blob(n), pushed: Timestamp(at) };
    assert!(replaces(&says(1, 0), None));
    assert!(replaces(&says(2, 101), Some(&says(1, 100))));
    assert!(!replaces(&says(2, 100), Some(&says(1, 100))));
    assert!(!replaces(&says(1, 100 + REWRITE - 1), Some(&says(1, 100))));
    assert!(replaces(&says(1, 100 + REWRITE), Some(&says(1, 100))));
    let sorted = newest_first([says(1, 5), says(2, 6), says(1, 9), says(3, 1)]);
    assert_eq!(sorted, [says(1, 9), says(2, 6), says(3, 1)]);
}

#[test]
fn however_many_tags_name_a_manifest_a_bounded_number_is_known() {
    let (ledger, mut cache) = (ledger(), MemoryRecords::default());
    let (of, repository) = (origin(&ledger, "hub"), named("hub/a"));
    keep_one(&mut cache, of, "hub/a", 1, "first");
    let digest = record(1, 5).0;
    let mut say = |tag: &str, at: usize| {
        let said = TagRecord { digest, pushed: Timestamp(2_000 + at as u64) };
        keep_tag(&mut cache, of, &repository, &tag.parse().unwrap(), &said).unwrap();
    };
    for n in 0..TAGS + 20 {
        say(&format!("t{n}"), n);
        if n == 100 {
            // the upstream says again that it is so
            say("first", 100_000);
        }
    }
    let both = WithCached { ledger, cache };
    let known = tags_page(&both, &repository, None, usize::MAX).unwrap();
    assert_eq!(known.len(), TAGS);
    for (tag, there) in [("first", true), ("t20", false), ("t21", true), ("t519", true)] {
        assert_eq!(known.contains(&tag.to_owned()), there, "{tag}");
    }
}

#[test]
fn the_place_of_a_manifest_says_which_it_is() {
    let ledger = ledger();
    let (of, repository, digest) = (origin(&ledger, "hub"), named("hub/a/b"), blob(1));
    let place = place_of_manifest(of, &repository, &digest);
    assert_eq!(manifest_at(&place), Some((of, repository.clone(), digest)));
    assert_eq!(manifest_at(&super::place(of, &key::link(&repository, &digest))), None);
    assert_eq!(manifest_at(&place[..20]), None);
}

proptest! {
    /// The two kinds of records do not get in each other's way: what is read is what a ledger
    /// with all of them would have.
    #[test]
    fn both_together_are_what_one_would_be(
        steps in proptest::collection::vec((0u8..3, 0u8..3, 0u8..3, any::<bool>()), 0..25),
        limit in 1usize..9,
        after in 0u8..3,
    ) {
        let (mut ledger, mut cache) = (ledger(), MemoryRecords::default());
        let mut one = ledger.clone();
        for (project, repository, n, in_ledger) in steps {
            let name = ["hub", "hub-2", "demo"][usize::from(project)];
            let repository: RepositoryName = format!("{name}/r{repository}").parse().unwrap();
            let value = encode(&Repository { created: Timestamp(u64::from(n)), manifests: 1 }).unwrap();
            let place = key::repository(&repository);
            let of = Origin::of_project(&ledger, &name.parse().unwrap()).unwrap();
            match of {
                Some(of) if !in_ledger => {
                    cache.put(&super::place(of, &place), &value).unwrap();
                    one.put(&place, &value).unwrap();
                }
                _ if one.get(&place).unwrap().is_none() => {
                    ledger.put(&place, &value).unwrap();
                    one.put(&place, &value).unwrap();
                }
                _ => {}
            }
        }
        let both = WithCached { ledger, cache };
        let after = key::repository(&format!("hub/r{after}").parse().unwrap());
        for prefix in [key::repositories(), key::repositories_of(&"hub".parse().unwrap())] {
            for after in [None, Some(after.as_slice())] {
                prop_assert_eq!(
                    both.scan(&prefix, after, limit).unwrap(),
                    one.scan(&prefix, after, limit).unwrap()
                );
            }
        }
    }

    #[test]
    fn no_key_makes_its_owner_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = Owner::of(&bytes);
        let _ = manifest_at(&bytes);
    }
}
