//! Registries that projects cache, and what the ledger recorded of them before caches left it.

use super::*;

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
