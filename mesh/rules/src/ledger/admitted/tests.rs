use std::collections::BTreeSet;

use super::*;
use crate::ledger::told::Heard;
use crate::words::moment::Moment;

fn pull(n: usize) -> Pull {
    let repository = "demo/a".parse().unwrap();
    Pull { project: ProjectId(1), repository, digest: Digest::sha256(&[n as u8]), tag: None }
}

fn admission(changes: &Changes) -> Admission {
    Admission {
        metadata: BTreeMap::new(),
        stamp: changes.stamp(&"demo/a".parse().unwrap()),
        at: Timestamp(10),
        until: None,
        lacking: None,
    }
}

#[test]
fn what_was_asked_for_lately_stays_and_the_number_is_bounded() {
    let (changes, mut admissions) = (Changes::default(), Admissions::new(10));
    let one = admission(&changes);
    let find = |admissions: &mut Admissions, n: usize| {
        admissions.find(&pull(n), &one.metadata, one.stamp, Timestamp(10)).is_some()
    };
    for n in 0..200 {
        admissions.remember(pull(n), one.clone());
        assert!(admissions.len() <= 10);
        assert!(find(&mut admissions, n));
        assert!(find(&mut admissions, 0), "it is asked for all the time ({n})");
    }
    assert!(!find(&mut admissions, 100), "nobody has asked for it any more");
    assert_eq!(Admissions::new(0).len(), 0);
}

#[test]
fn a_change_ends_what_it_may_be_about_and_nothing_else() {
    let (here, elsewhere): (RepositoryName, RepositoryName) =
        ("demo/a".parse().unwrap(), "demo/b".parse().unwrap());
    let (digest, project) = (Digest::sha256(b"x"), ProjectId(7));
    let mut changes = Changes::default();
    let mut ends = |key: &[u8]| {
        let before = [&here, &elsewhere].map(|one| changes.stamp(one));
        changes.count(key);
        let after = [&here, &elsewhere].map(|one| changes.stamp(one));
        [before[0] != after[0], before[1] != after[1]]
    };
    assert_eq!(ends(&signatures::key::signatures(&here, &digest)), [true, false]);
    assert_eq!(ends(&scanning::key::scan(&elsewhere, &digest)), [false, true]);
    for all in [
        signatures::key::trusted(project),
        scanning::key::allowlist(project),
        scanning::key::system_allowlist(),
        scanning::key::database(),
        scanning::key::known_scanner(crate::words::names::ScannerId(3)),
    ] {
        assert_eq!(ends(&all), [true, true], "{}", all.escape_ascii());
    }
    for none in [
        scanning::key::verdicts(),
        scanning::key::queued(project, true, 1),
        signatures::key::unverified(project, 1),
        super::super::records::key::tag(&here, &"v1".parse().unwrap()),
    ] {
        assert_eq!(ends(&none), [false, false], "{}", none.escape_ascii());
    }
    let before = changes.stamp(&here);
    changes.count_all();
    assert_ne!(changes.stamp(&here), before);
}

#[test]
fn an_edge_remembers_only_while_it_would_hear_of_a_change() {
    let at = |seconds: u64| Moment::from_micros(seconds * 1_000_000);
    let mut heard = Heard::after(7, true, Timestamp(0));
    assert_eq!(heard.stamp(at(100)), None, "nobody has told it anything");
    heard.hear(7, Some(BTreeSet::new()), at(100), Timestamp(1));
    let first = heard.stamp(at(101));
    assert!(first.is_some());
    heard.hear(7, Some(BTreeSet::new()), at(104), Timestamp(4));
    assert_eq!(heard.stamp(at(109)), first, "nothing has changed");
    assert_eq!(heard.stamp(at(110)), None, "it may have been cut off since");
    heard.hear(8, Some(BTreeSet::new()), at(111), Timestamp(11));
    let second = heard.stamp(at(111));
    assert!(second.is_some() && second != first);
    // a mesh that was made anew may count the same
    heard.hear(9, None, at(112), Timestamp(12));
    heard.hear(8, None, at(113), Timestamp(13));
    assert!(![first, second].contains(&heard.stamp(at(113))));

    let (mut admissions, metadata) = (Admissions::new(10), BTreeMap::new());
    let (stamp, at) = (heard.stamp(at(113)).unwrap(), Timestamp(10));
    let until = Some(at.after(AT_AN_EDGE));
    let one = Admission { metadata: metadata.clone(), stamp, at, until, lacking: None };
    admissions.remember(pull(1), one);
    let mut found = |now| admissions.find(&pull(1), &metadata, stamp, now).is_some();
    assert!(found(Timestamp(10)) && found(Timestamp(2_009)) && !found(Timestamp(2_010)));
}
