//! What the mesh has made about a manifest goes with it, and nothing that somebody else has.

use super::leaving::at_newest;
use super::*;
use crate::words::manifest::{MADE_BY, Referrer};

/// A manifest about the one with number 1, with these tags.
fn about(ledger: &Ledger, n: u8, made: bool, tags: &[&str]) -> Command {
    let mut new = new(ledger.epoch(), n, "t", &[n]);
    new.tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    let annotations = made.then(|| (MADE_BY.to_owned(), "Atoll 0".to_owned()));
    let referrer = Referrer {
        digest: new.digest,
        media_type: "m".into(),
        size: 1,
        artifact_type: None,
        annotations: annotations.into_iter().collect(),
    };
    new.subject = Some(Box::new((Digest::sha256(&[1, 0]), referrer)));
    Command::PutManifest(new)
}

fn left_after_deletion(mut ledger: Ledger) -> Vec<u8> {
    let repository: RepositoryName = "demo/a".parse().unwrap();
    assert_eq!(ledger.run(put(ledger.epoch(), 1, "t", &[1])), Outcome::Done);
    for (n, made, tags) in [(2, true, &[][..]), (3, true, &["mine"]), (4, false, &[])] {
        assert_eq!(ledger.run(about(&ledger, n, made, tags)), Outcome::Done);
    }
    let delete = Command::DeleteManifest {
        epoch: ledger.epoch(),
        repository: repository.clone(),
        digest: Digest::sha256(&[1, 0]),
    };
    assert_eq!(ledger.run(delete), Outcome::Done);
    let is_there =
        |n: &u8| ledger.records.has_manifest(&repository, &Digest::sha256(&[*n, 0])).unwrap();
    (1..=4).filter(is_there).collect()
}

#[test]
fn what_the_mesh_has_made_goes_unless_it_has_a_tag() {
    assert_eq!(left_after_deletion(at_newest()), [3, 4]);
}

#[test]
fn below_its_level_it_stays() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.run(raise(Level::SCANS)), Outcome::Done);
    assert_eq!(left_after_deletion(ledger), [2, 3, 4]);
}
