//! What is deleted is out of sight at once, and comes back as it was for as long as its project says.

use super::leaving::at_newest;
use super::*;
use crate::ledger::change::Change;
use crate::ledger::collecting::LookForGarbage;
use crate::ledger::quotas::{LookForQuotas, QuotaChange};
use crate::ledger::trash::{LookForTrash, TrashChange, TrashUsage, Why, restoration};
use crate::policies::quota::Limits;
use crate::words::manifest::{MADE_BY, Referrer};
use crate::words::names::{ProjectName, Tag};

fn demo() -> ProjectName {
    "demo".parse().unwrap()
}

fn repository() -> RepositoryName {
    "demo/a".parse().unwrap()
}

fn digest(n: u8) -> Digest {
    Digest::sha256(&[n, 0])
}

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

/// A mesh whose project keeps what is deleted for so long.
fn with_trash(entries: &[(&str, &str)]) -> Ledger {
    let mut ledger = at_newest();
    let all = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    configure(&mut ledger, all.collect());
    while ledger.run(Command::Quota(Box::new(QuotaChange::Count { project: demo() })))
        == Outcome::Unfinished
    {}
    ledger
}

fn configure(ledger: &mut Ledger, metadata: BTreeMap<String, String>) {
    let change = Change::Configure {
        name: demo(),
        public: None,
        durability: None,
        proxy: ProxyChange::default(),
        metadata,
    };
    assert_eq!(ledger.run(change.under(ledger.epoch())), Outcome::Done);
}

fn delete(ledger: &mut Ledger, n: u8) {
    let change = Change::DeleteManifest { repository: repository(), digest: digest(n) };
    let by = Actor { name: "ann".into(), address: None };
    assert_eq!(ledger.run(change.under(ledger.epoch()).audited(by)), Outcome::Done);
}

fn restore(ledger: &mut Ledger, n: u8, wanted: Option<&str>) -> Outcome {
    let all = restoration(&ledger.records, &repository(), digest(n)).unwrap().all;
    let change = TrashChange::Restore {
        repository: repository(),
        digest: digest(n),
        tag: wanted.map(tag),
        all,
    };
    ledger.run(Change::Trash(Box::new(change)).under(ledger.epoch()))
}

fn empty(ledger: &mut Ledger, n: Option<u8>) -> Outcome {
    let change = TrashChange::Empty {
        project: demo(),
        repository: n.map(|_| repository()),
        digest: n.map(digest),
    };
    ledger.run(Change::Trash(Box::new(change)).under(ledger.epoch()))
}

fn is_garbage(ledger: &Ledger, blob: u8) -> bool {
    ledger.records.garbage_since(&Digest::sha256(&[blob])).unwrap().is_some()
}

#[test]
fn a_deleted_image_is_out_of_sight_and_comes_back_with_its_tags() {
    let mut ledger = with_trash(&[("trash", "7d")]);
    let e = ledger.epoch();
    assert_eq!(ledger.run(put(e, 1, "t", &[1, 2])), Outcome::Done);
    assert_eq!(ledger.run(put(e, 1, "u", &[1, 2])), Outcome::Done);
    let before = ledger.records.manifest(&repository(), &digest(1)).unwrap().unwrap();
    delete(&mut ledger, 1);
    let records = &ledger.records;
    assert!(records.manifest(&repository(), &digest(1)).unwrap().is_none());
    assert!(!records.linked(&repository(), &Digest::sha256(&[1])).unwrap());
    assert_eq!(digest_of(&ledger, "t"), None);
    assert!(records.get(&key::repository(&repository())).unwrap().is_none(), "the catalogue");
    assert!(!is_garbage(&ledger, 1) && !is_garbage(&ledger, 2));
    assert_eq!(records.trash_usage(&demo()).unwrap(), TrashUsage { manifests: 1, storage: 3 });
    assert_eq!(records.usage(&demo()).unwrap().unwrap().used.storage, 0);
    let kept = records.trashed(&repository(), &digest(1)).unwrap().unwrap();
    assert_eq!((kept.by.as_str(), kept.why, kept.tags.len()), ("ann", Why::Deleted, 2));
    assert_eq!(records.last_tagged(&repository(), &tag("u")).unwrap(), Some(digest(1)));

    assert_eq!(restore(&mut ledger, 1, None), Outcome::Done);
    assert_eq!(
        (digest_of(&ledger, "t"), digest_of(&ledger, "u")),
        (Some(digest(1)), Some(digest(1)))
    );
    let after = ledger.records.manifest(&repository(), &digest(1)).unwrap().unwrap();
    assert_eq!((after.bytes, after.blobs), (before.bytes, before.blobs));
    assert!(ledger.records.linked(&repository(), &Digest::sha256(&[1])).unwrap());
    assert!(ledger.records.trashed(&repository(), &digest(1)).unwrap().is_none());
    assert_eq!(ledger.records.trash_usage(&demo()).unwrap(), TrashUsage::default());
    assert_eq!(restore(&mut ledger, 1, None), Outcome::NotFound, "the trash has it no more");
}

#[test]
fn a_tag_brings_back_the_image_that_lost_it_last_whatever_else_was_deleted_of_others() {
    let mut ledger = with_trash(&[("trash", "7d")]);
    let e = ledger.epoch();
    let untag = |ledger: &mut Ledger, name: &str| {
        let gone = Change::DeleteTag { repository: repository(), tag: tag(name) };
        assert_eq!(ledger.run(gone.under(e)), Outcome::Done);
    };
    for name in ["v", "x"] {
        assert_eq!(ledger.run(put(e, 1, name, &[1])), Outcome::Done);
    }
    untag(&mut ledger, "v");
    assert_eq!(ledger.run(put(e, 2, "v", &[1])), Outcome::Done);
    delete(&mut ledger, 2);
    untag(&mut ledger, "x");
    assert_eq!(ledger.records.last_tagged(&repository(), &tag("v")).unwrap(), Some(digest(2)));
    assert_eq!(ledger.records.last_tagged(&repository(), &tag("x")).unwrap(), Some(digest(1)));
}

#[test]
fn a_repository_comes_back_with_its_last_tags_in_whatever_order() {
    for order in [[1, 2], [2, 1]] {
        let mut ledger = with_trash(&[("trash", "7d")]);
        let e = ledger.epoch();
        for name in ["v", "w"] {
            assert_eq!(ledger.run(put(e, 1, name, &[1])), Outcome::Done);
        }
        delete(&mut ledger, 1);
        assert_eq!(ledger.run(put(e, 2, "v", &[1])), Outcome::Done);
        assert_eq!(restore(&mut ledger, 1, None), Outcome::Done);
        for n in [1, 2] {
            delete(&mut ledger, n);
        }
        for n in order {
            assert_eq!(restore(&mut ledger, n, None), Outcome::Done);
        }
        let tags = (digest_of(&ledger, "v"), digest_of(&ledger, "w"));
        assert_eq!(tags, (Some(digest(2)), Some(digest(1))), "{order:?}");
        assert!(!ledger.records.0.keys().any(|key| key.starts_with(b"9xn")));
    }
}

#[test]
fn one_tag_of_several_comes_back_and_none_is_taken_from_another_image() {
    let mut ledger = with_trash(&[("trash", "7d")]);
    let e = ledger.epoch();
    for name in ["t", "u"] {
        assert_eq!(ledger.run(put(e, 1, name, &[1])), Outcome::Done);
    }
    delete(&mut ledger, 1);
    assert_eq!(ledger.run(put(e, 2, "u", &[1])), Outcome::Done);
    assert_eq!(restore(&mut ledger, 1, Some("u")), Outcome::Exists);
    assert_eq!(restore(&mut ledger, 1, Some("t")), Outcome::Done);
    assert_eq!(
        (digest_of(&ledger, "t"), digest_of(&ledger, "u")),
        (Some(digest(1)), Some(digest(2)))
    );
    let left = ledger.records.trashed(&repository(), &digest(1)).unwrap().unwrap();
    let tags: Vec<_> = left.tags.into_iter().map(|(tag, _)| tag).collect();
    assert_eq!((left.manifest, tags), (None, vec![tag("u")]));
    // a tag that was deleted alone
    let gone = Change::DeleteTag { repository: repository(), tag: tag("t") };
    assert_eq!(ledger.run(gone.under(e)), Outcome::Done);
    assert_eq!(restore(&mut ledger, 1, Some("t")), Outcome::Done);
    assert_eq!(digest_of(&ledger, "t"), Some(digest(1)));
    assert_eq!(restore(&mut ledger, 1, Some("v")), Outcome::NotFound);
}

#[test]
fn a_push_of_the_same_takes_it_out() {
    let mut ledger = with_trash(&[("trash", "7d")]);
    let e = ledger.epoch();
    assert_eq!(ledger.run(put(e, 1, "t", &[1])), Outcome::Done);
    delete(&mut ledger, 1);
    assert_eq!(ledger.run(put(e, 1, "t", &[1])), Outcome::Done);
    assert!(ledger.records.trashed(&repository(), &digest(1)).unwrap().is_none());
    assert_eq!(empty(&mut ledger, None), Outcome::NotFound);
    assert!(!is_garbage(&ledger, 1));
}

#[test]
fn what_is_about_an_image_goes_with_it_and_comes_back_with_it() {
    let mut ledger = with_trash(&[("trash", "7d")]);
    let e = ledger.epoch();
    assert_eq!(ledger.run(put(e, 1, "t", &[1])), Outcome::Done);
    let mut made = new(e, 2, "x", &[2]);
    made.tags.clear();
    let referrer = Referrer {
        digest: made.digest,
        media_type: "m".into(),
        size: 1,
        artifact_type: None,
        annotations: BTreeMap::from([(MADE_BY.into(), "Atoll 0".into())]),
    };
    made.subject = Some(Box::new((digest(1), referrer)));
    assert_eq!(ledger.run(Command::PutManifest(made)), Outcome::Done);
    let hex = digest(1).to_string().replace(':', "-");
    let signature = format!("{hex}.sig");
    assert_eq!(ledger.run(put(e, 3, &signature, &[3])), Outcome::Done);
    delete(&mut ledger, 1);
    assert!(ledger.records.referrers(&repository(), &digest(1)).unwrap().is_empty());
    assert_eq!(digest_of(&ledger, &signature), None);
    assert_eq!(ledger.records.trash_usage(&demo()).unwrap().manifests, 3);
    assert_eq!(restore(&mut ledger, 1, Some("t")), Outcome::Done);
    assert_eq!(ledger.records.referrers(&repository(), &digest(1)).unwrap().len(), 1);
    assert_eq!(digest_of(&ledger, &signature), Some(digest(3)));
    assert_eq!(ledger.records.trash_usage(&demo()).unwrap(), TrashUsage::default());
    // a leaked image goes at once with all that tells of it
    delete(&mut ledger, 1);
    assert_eq!(empty(&mut ledger, Some(1)), Outcome::Done);
    assert_eq!(ledger.records.trash_usage(&demo()).unwrap(), TrashUsage::default());
    assert!((1..=3).all(|n| is_garbage(&ledger, n)));
    assert_eq!(empty(&mut ledger, Some(1)), Outcome::NotFound);
}

#[test]
fn it_ends_when_a_command_says_so_and_not_before_its_time() {
    let mut ledger = with_trash(&[("trash", "1s")]);
    let e = ledger.epoch();
    assert_eq!(ledger.run(put(e, 1, "t", &[1])), Outcome::Done);
    delete(&mut ledger, 1);
    let expire = |ledger: &mut Ledger| {
        let records = vec![(repository(), digest(1))];
        let change = TrashChange::Expire { project: demo(), records };
        ledger.run(Change::Trash(Box::new(change)).under(e))
    };
    assert_eq!(expire(&mut ledger), Outcome::NotFound);
    assert!(ledger.records.ended_trash(ledger.now(), None, 9).unwrap().is_empty());
    ledger.revision += 1000;
    assert_eq!(ledger.records.ended_trash(ledger.now(), None, 9).unwrap().len(), 1);
    assert_eq!(expire(&mut ledger), Outcome::Done);
    assert!(is_garbage(&ledger, 1));
    assert_eq!(restore(&mut ledger, 1, None), Outcome::NotFound);
}

#[test]
fn the_quota_counts_what_only_the_trash_has_if_the_project_says_so() {
    let limits = Limits { storage: Some(4), ..Limits::default() };
    let set = QuotaChange::Set { project: ProjectId(1), limits };
    for (counted, fits) in [("true", false), ("false", true)] {
        let mut ledger = with_trash(&[("trash", "7d"), ("trash_counted", counted)]);
        let e = ledger.epoch();
        assert_eq!(ledger.run(Command::Quota(Box::new(set.clone()))), Outcome::Done);
        // two blobs and a manifest, of a byte each
        assert_eq!(ledger.run(put(e, 1, "t", &[1, 2])), Outcome::Done);
        delete(&mut ledger, 1);
        let pushed = ledger.run(put(e, 2, "u", &[3]));
        assert_eq!(pushed == Outcome::Done, fits, "{pushed:?}");
        // what the trash has costs nothing more, if it is counted
        let again = restore(&mut ledger, 1, None);
        assert_eq!(again == Outcome::Done, !fits, "{again:?}");
    }
}

#[test]
fn the_mesh_says_what_projects_do_not_and_zero_is_none() {
    let mut ledger = with_trash(&[]);
    let forget = |e| Change::ForgetMetadata { name: demo(), key: "trash".into() }.under(e);
    let e = ledger.epoch();
    assert_eq!(ledger.run(put(e, 1, "t", &[1])), Outcome::Done);
    delete(&mut ledger, 1);
    assert!(is_garbage(&ledger, 1), "this project keeps nothing");
    assert_eq!(ledger.run(forget(e)), Outcome::Done);
    let days = |ledger: &Ledger| {
        let project = ledger.records.project(&demo()).unwrap().unwrap();
        ledger.records.trash_time(&project).unwrap().as_secs() / 86_400
    };
    assert_eq!(days(&ledger), 7);
    let values = BTreeMap::from([("trash_per_project".to_owned(), "\"2d\"".to_owned())]);
    let change = crate::ledger::directory::DirectoryChange::Configure {
        after: 0,
        values,
        secrets: BTreeMap::new(),
        changed: vec!["trash_per_project".into()],
    };
    let change = crate::ledger::people::PeopleChange::Directory(change);
    assert_eq!(ledger.run(Command::People(Box::new(change))), Outcome::Done);
    assert_eq!(days(&ledger), 2);
}

#[test]
fn below_its_level_what_is_deleted_is_gone() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.run(raise(Level::QUOTAS)), Outcome::Done);
    configure(&mut ledger, BTreeMap::from([("trash".to_owned(), "7d".to_owned())]));
    let e = ledger.epoch();
    assert_eq!(ledger.run(put(e, 1, "t", &[1])), Outcome::Done);
    delete(&mut ledger, 1);
    assert!(is_garbage(&ledger, 1));
    assert!(!ledger.records.0.keys().any(|key| key.starts_with(b"9x")));
    assert!(matches!(restore(&mut ledger, 1, None), Outcome::Refused(_)));
}

#[test]
fn a_project_takes_its_trash_along() {
    let mut ledger = with_trash(&[("trash", "7d")]);
    let e = ledger.epoch();
    for n in 0..150 {
        assert_eq!(ledger.run(put(e, n, "t", &[n])), Outcome::Done);
        delete(&mut ledger, n);
    }
    let go = || Change::Delete { name: demo() }.under(e);
    assert_eq!(ledger.run(go()), Outcome::Unfinished);
    assert_eq!(ledger.run(go()), Outcome::Done);
    assert!(!ledger.records.0.keys().any(|key| key.starts_with(b"9x")));
    assert!((0..150).all(|n| is_garbage(&ledger, n)));
    assert_eq!(ledger.run(create("demo")), Outcome::Done);
    assert_eq!(restore(&mut ledger, 1, None), Outcome::NotFound);
}
