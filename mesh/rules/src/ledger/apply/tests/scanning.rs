//! Scans are asked for, carried out once, and what they found decides until there is something newer.

use serde_bytes::ByteBuf;
use serde_json::json;

use super::leaving::at_newest;
use super::*;
use crate::ledger::change::Change;
use crate::ledger::collecting::CollectChange;
use crate::ledger::scanning::{
    LookForScans, MOST_TRIES, Report, ScanChange, ScanRecord, ScannerChange, Unfinished, key,
};
use crate::policies::vulnerabilities::{Allowlist, ScanStatus, Severity, Weakness};
use crate::words::digest::Digest;

fn place() -> RepositoryName {
    "demo/a".parse().unwrap()
}

fn digest(n: u8) -> Digest {
    Digest::sha256(&[n, 0])
}

/// An image with one layer, which is the blob of the same number.
fn image(ledger: &Ledger, n: u8) -> Command {
    let layer = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": Digest::sha256(&[n]).to_string(),
        "size": 1,
    });
    let bytes = json!({"schemaVersion": 2, "layers": [layer]}).to_string().into_bytes();
    Command::PutManifest(NewManifest { bytes, ..new(ledger.epoch(), n, "t", &[n]) })
}

fn change(ledger: &mut Ledger, change: ScanChange) -> Outcome {
    let command = Change::Scan(Box::new(change)).under(ledger.epoch());
    ledger.run(command)
}

fn scan(ledger: &Ledger, n: u8) -> ScanRecord {
    ledger.records.scan_of(&place(), &digest(n)).unwrap().unwrap_or_default()
}

fn ask(n: u8, first: bool) -> ScanChange {
    ScanChange::Ask { repository: place(), digests: vec![digest(n)], first }
}

fn begin(n: u8, number: u64) -> ScanChange {
    ScanChange::Begin { repository: place(), digest: digest(n), number }
}

fn fail(n: u8, number: u64, again: bool) -> ScanChange {
    ScanChange::Fail {
        repository: place(),
        digest: digest(n),
        number,
        why: "the layer is damaged".into(),
        again,
    }
}

fn report(n: u8, number: u64, database: &[u8], found: &[(&str, Severity)]) -> ScanChange {
    let weak = |(id, severity): &(&str, Severity)| Weakness {
        id: (*id).into(),
        severity: *severity,
        fixable: true,
    };
    ScanChange::Report {
        repository: place(),
        digest: digest(n),
        report: Report {
            number,
            begun: Timestamp(1),
            at: Timestamp(0),
            engine: "x".into(),
            database: Digest::sha256(database),
            insufficient: None,
            found: found.iter().map(weak).collect(),
            log: "a line\n".into(),
        },
    }
}

fn queue(ledger: &Ledger) -> Vec<Digest> {
    let project = ledger.records.projects().unwrap()[0].id;
    let queued = ledger.records.queued_scans(project, 100).unwrap();
    queued.into_iter().map(|(_, digest)| digest).collect()
}

fn auto_scan(ledger: &mut Ledger) {
    set(ledger, "auto_scan");
}

fn set(ledger: &mut Ledger, key: &str) {
    let metadata = BTreeMap::from([(key.to_owned(), "true".to_owned())]);
    let name = "demo".parse().unwrap();
    let (public, durability, proxy) = (None, None, ProxyChange::default());
    let configure = Change::Configure { name, public, durability, proxy, metadata };
    let command = configure.under(ledger.epoch());
    assert_eq!(ledger.run(command), Outcome::Done);
}

#[test]
fn what_is_pushed_is_scanned_if_the_project_wants_that_and_a_runtime_could_run_it() {
    let mut ledger = at_newest();
    assert_eq!(ledger.run(image(&ledger, 1)), Outcome::Done);
    assert_eq!(queue(&ledger), []);
    auto_scan(&mut ledger);
    let epoch = ledger.epoch();
    let chart = NewManifest { bytes: b"{\"schemaVersion\":2}".into(), ..new(epoch, 3, "c", &[3]) };
    assert_eq!(ledger.run(Command::PutManifest(chart)), Outcome::Done);
    assert_eq!(queue(&ledger), [], "it is no image");
    for n in [2, 2] {
        assert_eq!(ledger.run(image(&ledger, n)), Outcome::Done);
        assert_eq!(queue(&ledger), [digest(2)], "once");
    }
    assert_eq!(scan(&ledger, 2).status(), ScanStatus::Pending);
    let number = scan(&ledger, 2).wanted.unwrap().number;
    assert_eq!(change(&mut ledger, begin(2, number)), Outcome::Done);
    assert_eq!(scan(&ledger, 2).status(), ScanStatus::Running);
    assert_eq!(change(&mut ledger, report(2, number, b"d", &[])), Outcome::Done);
    assert_eq!(scan(&ledger, 2).status(), ScanStatus::Success);
    assert_eq!(queue(&ledger), []);
    assert_eq!(ledger.run(image(&ledger, 2)), Outcome::Done);
    assert_eq!(queue(&ledger), [], "it has a report");
}

#[test]
fn a_scan_has_one_end_and_an_earlier_report_stays_until_there_is_another() {
    let mut ledger = at_newest();
    assert_eq!(ledger.run(image(&ledger, 1)), Outcome::Done);
    assert_eq!(change(&mut ledger, ask(9, true)), Outcome::NotFound);
    assert_eq!(change(&mut ledger, ask(1, false)), Outcome::Done);
    let high = [("CVE-2024-0001", Severity::High)];
    assert_eq!(change(&mut ledger, report(1, 1, b"d", &high)), Outcome::Done);
    assert_eq!(change(&mut ledger, fail(1, 1, true)), Outcome::NotFound, "it has ended");
    assert_eq!(change(&mut ledger, ask(1, false)), Outcome::Done);
    assert_eq!(change(&mut ledger, begin(1, 1)), Outcome::NotFound, "that was another one");
    assert_eq!(change(&mut ledger, begin(1, 2)), Outcome::Done);
    assert_eq!(scan(&ledger, 1).report.unwrap().found.len(), 1, "the old one counts");
    assert_eq!(change(&mut ledger, fail(1, 2, false)), Outcome::Done);
    let failed = scan(&ledger, 1);
    assert_eq!((failed.status(), failed.report.unwrap().number), (ScanStatus::Error, 1));
    // the same scan by another database
    assert_eq!(change(&mut ledger, report(1, 1, b"e", &[])), Outcome::Done);
    assert_eq!(scan(&ledger, 1).report.unwrap().found, []);
    let late = report(1, 2, b"d", &high);
    assert_eq!(change(&mut ledger, late), Outcome::NotFound, "it had failed");
    let old = Change::Scan(Box::new(ask(1, true))).under(ledger.epoch().next());
    assert!(matches!(ledger.run(old), Outcome::StaleEpoch { .. }));
}

#[test]
fn what_decides_about_pulls_is_counted_so_that_edges_ask_again() {
    let mut ledger = at_newest();
    assert_eq!(ledger.run(image(&ledger, 1)), Outcome::Done);
    let version = |ledger: &Ledger| ledger.records.verdicts_version().unwrap();
    let list = Allowlist::default();
    let allow = ScanChange::Allow { project: place().project(), list: list.clone() };
    assert_eq!(change(&mut ledger, allow), Outcome::Done);
    assert_eq!(version(&ledger), 1);
    let command = Command::Scanner(Box::new(ScannerChange::Allow(list)));
    assert_eq!(ledger.run(command), Outcome::Done);
    assert_eq!(version(&ledger), 2);
    change(&mut ledger, ask(1, false));
    change(&mut ledger, begin(1, 1));
    change(&mut ledger, report(1, 1, b"one", &[]));
    assert_eq!(version(&ledger), 2, "the project has no gate");
    set(&mut ledger, "prevent_vul");
    change(&mut ledger, ask(1, false));
    change(&mut ledger, begin(1, 2));
    assert_eq!(version(&ledger), 2);
    change(&mut ledger, report(1, 2, b"one", &[]));
    assert_eq!(version(&ledger), 3);
}

#[test]
fn a_scan_is_tried_a_few_times_and_can_be_stopped() {
    let mut ledger = at_newest();
    assert_eq!(ledger.run(image(&ledger, 1)), Outcome::Done);
    assert_eq!(change(&mut ledger, ask(1, false)), Outcome::Done);
    for tried in 1..=MOST_TRIES {
        assert_eq!(scan(&ledger, 1).status(), ScanStatus::Pending, "{tried}");
        assert_eq!(change(&mut ledger, begin(1, 1)), Outcome::Done);
        assert_eq!(change(&mut ledger, fail(1, 1, true)), Outcome::Done);
    }
    assert_eq!(scan(&ledger, 1).status(), ScanStatus::Error);
    assert_eq!(queue(&ledger), []);
    let stop = || ScanChange::Stop { repository: place(), digest: digest(1) };
    assert_eq!(change(&mut ledger, stop()), Outcome::NotFound);
    assert_eq!(change(&mut ledger, ask(1, false)), Outcome::Done);
    assert_eq!(change(&mut ledger, stop()), Outcome::Done);
    let stopped = scan(&ledger, 1);
    assert_eq!((stopped.status(), queue(&ledger)), (ScanStatus::Stopped, vec![]));
    assert!(matches!(stopped.unfinished, Some(Unfinished { number: 2, why: None, .. })));
}

#[test]
fn who_asks_for_one_image_goes_before_all_others() {
    let mut ledger = at_newest();
    for n in 1..=3 {
        assert_eq!(ledger.run(image(&ledger, n)), Outcome::Done);
        assert_eq!(change(&mut ledger, ask(n, false)), Outcome::Done);
    }
    assert_eq!(change(&mut ledger, ask(3, true)), Outcome::Done);
    assert_eq!(queue(&ledger), [digest(3), digest(1), digest(2)]);
    assert_eq!(change(&mut ledger, report(3, 3, b"d", &[])), Outcome::Done);
    assert_eq!(queue(&ledger), [digest(1), digest(2)]);
}

#[test]
fn what_is_known_goes_with_the_image_the_layer_and_the_project() {
    let mut ledger = at_newest();
    let layers = |n: u8| {
        let kept = vec![(Digest::sha256(&[n]), ByteBuf::from([1]))];
        Command::Scanner(Box::new(ScannerChange::Layers(kept)))
    };
    assert_eq!(ledger.run(layers(1)), Outcome::Done);
    assert_eq!(ledger.records.layer_contents(&Digest::sha256(&[1])).unwrap(), None, "no image");
    assert_eq!(ledger.run(image(&ledger, 1)), Outcome::Done);
    assert_eq!(ledger.run(layers(1)), Outcome::Done);
    assert!(ledger.records.layer_contents(&Digest::sha256(&[1])).unwrap().is_some());
    let allow = |ids: &[&str]| ScanChange::Allow {
        project: "demo".parse().unwrap(),
        list: Allowlist { ids: ids.iter().map(|id| (*id).to_owned()).collect(), expires: None },
    };
    let project = ledger.records.projects().unwrap()[0].id;
    assert!(matches!(change(&mut ledger, allow(&["a", "a"])), Outcome::Refused(_)));
    assert_eq!(change(&mut ledger, allow(&["CVE-2024-0001"])), Outcome::Done);
    assert_eq!(ledger.records.allowlist(project).unwrap().ids.len(), 1);
    assert_eq!(change(&mut ledger, ask(1, false)), Outcome::Done);
    let delete = |epoch| Command::DeleteManifest { epoch, repository: place(), digest: digest(1) };
    assert_eq!(ledger.run(delete(ledger.epoch())), Outcome::Done);
    assert_eq!((scan(&ledger, 1), queue(&ledger)), (ScanRecord::default(), vec![]));
    let collect =
        CollectChange::Collect { digests: vec![Digest::sha256(&[1])], before: Timestamp(u64::MAX) };
    assert_eq!(ledger.run(Command::Collect(collect)), Outcome::Done);
    assert_eq!(ledger.records.layer_contents(&Digest::sha256(&[1])).unwrap(), None);
    let epoch = ledger.epoch();
    let delete = Command::DeleteProject { name: "demo".parse().unwrap(), epoch };
    assert_eq!(ledger.run(delete), Outcome::Done);
    let left: Vec<_> = ledger.records.0.keys().filter(|k| matches!(k[0], b'#' | b'%')).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(ledger.records.get(&key::allowlist(project)).unwrap(), None);
}

#[test]
fn an_older_database_does_not_take_the_place_of_a_newer_one() {
    let mut ledger = at_newest();
    let database = |n: u8, updated| {
        Command::Scanner(Box::new(ScannerChange::Database {
            digest: Digest::sha256(&[n]),
            updated: Timestamp(updated),
            next_update: Timestamp(updated),
        }))
    };
    assert_eq!(ledger.run(database(1, 10)), Outcome::Done);
    assert_eq!(ledger.run(database(1, 10)), Outcome::Exists);
    assert!(matches!(ledger.run(database(2, 9)), Outcome::Refused(_)));
    assert_eq!(ledger.run(database(3, 11)), Outcome::Done);
    let used = ledger.records.scan_database().unwrap().unwrap();
    assert_eq!(used.digest, Digest::sha256(&[3]));
}

#[test]
fn nothing_is_scanned_below_its_feature_level() {
    let mut ledger = Ledger::new();
    auto_scan(&mut ledger);
    assert_eq!(ledger.run(image(&ledger, 1)), Outcome::Done);
    assert!(ledger.records.0.keys().all(|key| !matches!(key[0], b'#' | b'$' | b'%')));
    assert!(matches!(change(&mut ledger, ask(1, true)), Outcome::Refused(_)));
    let list = ScannerChange::Allow(Allowlist::default());
    assert!(matches!(ledger.run(Command::Scanner(Box::new(list))), Outcome::Refused(_)));
}
