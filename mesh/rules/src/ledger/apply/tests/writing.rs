//! What a write does to tags, manifests and links, and what happens to one that comes twice or too late.

use super::*;

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
