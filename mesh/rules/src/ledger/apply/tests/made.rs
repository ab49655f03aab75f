//! What is about a manifest goes with it, unless somebody has given it a tag; in earlier levels only what
//! the mesh has made. If there is much of it, it goes and comes back in steps.

use super::leaving::at_newest;
use super::*;
use crate::ledger::change::Change;
use crate::ledger::trash::{AT_ONCE, LookForTrash, TrashChange, restoration};
use crate::words::manifest::{MADE_BY, Referrer};

/// A manifest about the one with number 1, with these tags.
fn about(ledger: &Ledger, n: u8, made: bool, tags: &[&str]) -> Command {
    about_another(ledger, 1, n, made, tags)
}

fn about_another(ledger: &Ledger, of: u8, n: u8, made: bool, tags: &[&str]) -> Command {
    let mut new = new(ledger.epoch(), n, "t", &[n]);
    new.tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    let annotations = made.then(|| (MADE_BY.to_owned(), "Atoll 0".to_owned()));
    let referrer = Referrer {
        digest: new.digest,
        media_type: "m".into(),
        size: 1,
        artifact_type: (n != 6).then(|| "application/spdx+json".to_owned()),
        annotations: annotations.into_iter().collect(),
    };
    new.subject = Some(Box::new((Digest::sha256(&[of, 0]), referrer)));
    Command::PutManifest(new)
}

fn left_after_deletion(mut ledger: Ledger) -> Vec<u8> {
    let repository: RepositoryName = "demo/a".parse().unwrap();
    assert_eq!(ledger.run(put(ledger.epoch(), 1, "t", &[1])), Outcome::Done);
    for (n, made, tags) in [(2, true, &[][..]), (3, true, &["mine"]), (4, false, &[])] {
        assert_eq!(ledger.run(about(&ledger, n, made, tags)), Outcome::Done);
    }
    // about an SBOM that a client has attached, as its signature is
    assert_eq!(ledger.run(about_another(&ledger, 4, 5, false, &[])), Outcome::Done);
    // an image that is about another one may be listed by an index
    assert_eq!(ledger.run(about_another(&ledger, 1, 6, false, &[])), Outcome::Done);
    let delete = Command::DeleteManifest {
        epoch: ledger.epoch(),
        repository: repository.clone(),
        digest: Digest::sha256(&[1, 0]),
    };
    assert_eq!(ledger.run(delete), Outcome::Done);
    let is_there =
        |n: &u8| ledger.records.has_manifest(&repository, &Digest::sha256(&[*n, 0])).unwrap();
    (1..=6).filter(is_there).collect()
}

#[test]
fn what_is_about_a_manifest_and_about_that_goes_unless_it_has_a_tag() {
    assert_eq!(left_after_deletion(at_newest()), [3, 6]);
}

#[test]
fn before_its_level_only_what_the_mesh_has_made_goes() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.run(raise(Level::TALLIES)), Outcome::Done);
    assert_eq!(left_after_deletion(ledger), [3, 4, 5, 6]);
}

#[test]
fn below_its_level_it_stays() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.run(raise(Level::SCANS)), Outcome::Done);
    assert_eq!(left_after_deletion(ledger), [2, 3, 4, 5, 6]);
}

const MANY: u8 = 120;

/// A manifest that the mesh has made very much about.
fn much_made(level: Level) -> Ledger {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.run(raise(level)), Outcome::Done);
    assert_eq!(ledger.run(put(ledger.epoch(), 1, "t", &[1])), Outcome::Done);
    for n in 2..2 + MANY {
        assert_eq!(ledger.run(about(&ledger, n, true, &[])), Outcome::Done);
    }
    ledger
}

fn count(ledger: &Ledger) -> usize {
    let repository: RepositoryName = "demo/a".parse().unwrap();
    let is_there =
        |n: &u8| ledger.records.has_manifest(&repository, &Digest::sha256(&[*n, 0])).unwrap();
    (1..2 + MANY).filter(is_there).count()
}

/// Gives `command` until it is finished, and counts the steps.
fn in_steps(ledger: &mut Ledger, command: &Command) -> usize {
    let mut steps = 1;
    while ledger.run(command.clone()) == Outcome::Unfinished {
        steps += 1;
    }
    steps
}

#[test]
fn much_that_was_made_goes_in_steps_and_the_manifest_goes_last() {
    let (repository, digest) = ("demo/a".parse().unwrap(), Digest::sha256(&[1, 0]));
    let mut ledger = much_made(Level::NEWEST);
    let epoch = ledger.epoch();
    let delete = Command::DeleteManifest { epoch, repository, digest };
    assert_eq!(ledger.run(delete.clone()), Outcome::Unfinished);
    assert_eq!(count(&ledger), 1 + usize::from(MANY) - 50, "with it, so that a retry goes on");
    assert_eq!(in_steps(&mut ledger, &delete), 2);
    assert_eq!(count(&ledger), 0);
    assert_eq!(ledger.run(delete.clone()), Outcome::NotFound);
    // as all replicas did it before this level
    let mut before = much_made(Level::UPKEEP);
    assert_eq!(before.run(delete), Outcome::Done);
    assert_eq!(count(&before), usize::from(MANY) - 50);
}

#[test]
fn much_that_went_with_a_manifest_comes_back_or_goes_for_good_in_steps() {
    let repository: RepositoryName = "demo/a".parse().unwrap();
    let digest = Digest::sha256(&[1, 0]);
    let mut ledger = much_made(Level::NEWEST);
    let epoch = ledger.epoch();
    let delete = Command::DeleteManifest { epoch, repository: repository.clone(), digest };
    let trash = |change| Change::Trash(Box::new(change)).under(epoch);
    let keeps = Change::Configure {
        name: repository.project(),
        public: None,
        durability: None,
        proxy: ProxyChange::default(),
        metadata: [("trash".to_owned(), "7d".to_owned())].into(),
    };
    assert_eq!(ledger.run(keeps.under(epoch)), Outcome::Done);
    in_steps(&mut ledger, &delete);
    let found = restoration(&ledger.records, &repository, digest).unwrap();
    let tag = "t".parse().unwrap();
    let steps = found.steps(&repository, digest, Some(&tag));
    assert_eq!((found.too_much, found.all.len(), steps.len()), (false, 1 + usize::from(MANY), 2));
    for step in steps {
        assert_eq!(ledger.run(trash(step)), Outcome::Done);
    }
    assert_eq!(count(&ledger), 1 + usize::from(MANY));
    assert_eq!(digest_of(&ledger, "t"), Some(digest));

    in_steps(&mut ledger, &delete);
    let project = repository.project();
    let empty = trash(TrashChange::Empty {
        project: project.clone(),
        repository: Some(repository.clone()),
        digest: Some(digest),
    });
    assert_eq!(in_steps(&mut ledger, &empty), 2);
    assert!(ledger.records.trash(&project, None, None, AT_ONCE).unwrap().is_empty());
    assert_eq!(ledger.run(empty), Outcome::NotFound);
}
