//! Scans of what proxy projects have cached: bounded, and forgotten with the project.

use super::cached::{digest, left_after_deletion, of_a_proxy, place, project, set};
use super::leaving::at_newest;
use super::*;
use crate::ledger::cached_scans::{LookForCachedScans, MOST_KNOWN, MOST_WAITING, key};
use crate::ledger::change::Change;
use crate::ledger::scanning::{LookForScans, Report, ScanChange, ScanRecord, key as scans_key};
use crate::words::digest::Digest;

fn change(ledger: &mut Ledger, change: ScanChange) -> Outcome {
    let command = Change::Scan(Box::new(change)).under(ledger.epoch());
    ledger.run(command)
}

fn ask(ledger: &mut Ledger, n: u64, first: bool) -> Outcome {
    let digests = vec![digest(n)];
    change(ledger, ScanChange::AskCached { repository: place(), digests, first })
}

fn known(ledger: &Ledger, n: u64) -> Option<ScanRecord> {
    ledger.records.scan_of(&place(), &digest(n)).unwrap()
}

/// The scan ends with a report.
fn end(ledger: &mut Ledger, n: u64) {
    let number = known(ledger, n).and_then(|known| known.wanted).expect("it waits").number;
    let report = Report {
        number,
        begun: Timestamp(0),
        at: Timestamp(0),
        engine: "test".into(),
        database: Digest::sha256(b"database"),
        insufficient: None,
        found: vec![],
        log: String::new(),
    };
    let report = ScanChange::Report { repository: place(), digest: digest(n), report };
    assert_eq!(change(ledger, report), Outcome::Done);
}

fn count(ledger: &Ledger) -> u64 {
    let of = project(ledger).id;
    ledger.records.record(&key::count(of)).unwrap().unwrap_or(0)
}

#[test]
fn the_queue_of_what_is_cached_has_an_end_and_who_asks_by_hand_has_another() {
    let mut ledger = at_newest();
    assert!(matches!(ask(&mut ledger, 1, false), Outcome::Refused(_)), "it caches nothing");
    let mut ledger = of_a_proxy();
    for n in 0..MOST_WAITING as u64 {
        assert_eq!(ask(&mut ledger, n, false), Outcome::Done);
    }
    assert!(matches!(ask(&mut ledger, 1_000, false), Outcome::Refused(_)));
    assert_eq!(ask(&mut ledger, 3, false), Outcome::Done, "it waits already");
    assert_eq!(ask(&mut ledger, 1_000, true), Outcome::Done);
    assert_eq!(ask(&mut ledger, 4, true), Outcome::Done, "it moves forward, and leaves its place");
    assert_eq!(ask(&mut ledger, 1_001, false), Outcome::Done);
    assert_eq!(count(&ledger), MOST_WAITING as u64 + 2);
    assert!(known(&ledger, 4).unwrap().wanted.unwrap().first);
}

#[test]
fn of_so_many_images_the_one_is_forgotten_that_was_asked_for_first() {
    let mut ledger = of_a_proxy();
    for n in 0..MOST_KNOWN {
        assert_eq!(ask(&mut ledger, n, false), Outcome::Done);
        if n > 0 {
            end(&mut ledger, n);
        }
    }
    // it is asked for again, and is the newest then
    assert_eq!(ask(&mut ledger, 1, false), Outcome::Done);
    end(&mut ledger, 1);
    assert_eq!(ask(&mut ledger, MOST_KNOWN, false), Outcome::Done);
    assert_eq!(count(&ledger), MOST_KNOWN);
    for (n, is_known) in [(0, true), (1, true), (2, false), (3, true), (MOST_KNOWN, true)] {
        assert_eq!(known(&ledger, n).is_some(), is_known, "{n}; 0 waits still");
    }
    let of = project(&ledger).id;
    let order = ledger.records.scan(&key::all_known(of), None, usize::MAX).unwrap();
    assert_eq!(order.len() as u64, MOST_KNOWN);
}

#[test]
fn what_is_known_goes_with_the_cache_and_with_the_project() {
    let mut ledger = of_a_proxy();
    let of = project(&ledger).id;
    for n in 0..3 {
        ask(&mut ledger, n, false);
    }
    end(&mut ledger, 0);
    let forget = |digests| ScanChange::ForgetCached { repository: place(), digests };
    assert_eq!(change(&mut ledger, forget(vec![digest(0), digest(9)])), Outcome::Done);
    assert_eq!((known(&ledger, 0), count(&ledger)), (None, 2));

    // what the metadata said before this level had no effect
    assert!(!ledger.records.are_cached_judged(of).unwrap());
    set(&mut ledger, "prevent_vul", "false");
    assert!(!ledger.records.are_cached_judged(of).unwrap());
    set(&mut ledger, "prevent_vul", "true");
    assert!(ledger.records.are_cached_judged(of).unwrap());
    assert!(ledger.records.gate_of(&project(&ledger)).unwrap().is_some());

    let of_project = [key::all_known(of), key::count(of), scans_key::queue(of)];
    assert_eq!(left_after_deletion(&mut ledger, &of_project), 0);
    for n in 0..3 {
        assert_eq!(known(&ledger, n), None);
    }
    assert!(!ledger.records.are_cached_judged(of).unwrap());
}
