//! Other scanners are registered once, chosen, and forgotten; what they report counts as any report.

use serde_bytes::ByteBuf;
use serde_json::json;

use super::leaving::at_newest;
use super::*;
use crate::edges::may_look;
use crate::ledger::change::Change;
use crate::ledger::scanners::{
    Elsewhere, LookForScanners, MOST, MOST_KEPT, RegistrationChange, ScannerAuth, ScannerRecord,
    key as scanners_key,
};
use crate::ledger::scanning::{LookForScans, Report, ScanChange, ScannerChange, key as scan_key};
use crate::ledger::sealing::{SealedPlace, SealingChange};
use crate::policies::vulnerabilities::{Gate, Severity, Weakness};
use crate::wire::Query;
use crate::words::digest::Digest;
use crate::words::names::ScannerId;
use crate::words::secret::Secret;

fn scanner(n: u8) -> ScannerRecord {
    ScannerRecord {
        id: ScannerId(u128::from(n)),
        name: format!("scanner-{n}"),
        description: String::new(),
        url: format!("https://{n}.example"),
        auth: ScannerAuth::Bearer,
        credential: Some("sealed".into()),
        skips_certificate: false,
        internal: false,
        disabled: false,
        created: Timestamp(0),
        changed: Timestamp(0),
    }
}

fn register(ledger: &mut Ledger, change: RegistrationChange) -> Outcome {
    ledger.run(Command::Scanner(Box::new(ScannerChange::Registration(Box::new(change)))))
}

fn place() -> RepositoryName {
    "demo/a".parse().unwrap()
}

fn image(ledger: &Ledger) -> Command {
    let layer = json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": Digest::sha256(&[1]).to_string(),
        "size": 1,
    });
    let bytes = json!({"schemaVersion": 2, "layers": [layer]}).to_string().into_bytes();
    Command::PutManifest(NewManifest { bytes, ..new(ledger.epoch(), 1, "t", &[1]) })
}

fn digest() -> Digest {
    Digest::sha256(&[1, 0])
}

fn scan(ledger: &mut Ledger, change: ScanChange) -> Outcome {
    let command = Change::Scan(Box::new(change)).under(ledger.epoch());
    ledger.run(command)
}

fn ask(ledger: &mut Ledger) -> u64 {
    let (repository, digests, first) = (place(), vec![digest()], true);
    let asked = scan(ledger, ScanChange::Ask { repository, digests, first });
    assert_eq!(asked, Outcome::Done);
    ledger.records.scan_of(&place(), &digest()).unwrap().unwrap().wanted.unwrap().number
}

fn report(number: u64, database: Digest) -> Report {
    let found = Weakness { id: "CVE-2024-0001".into(), severity: Severity::High, fixable: true };
    Report {
        number,
        begun: Timestamp(1),
        at: Timestamp(0),
        engine: "Clair 2".into(),
        database,
        insufficient: None,
        found: vec![found],
        log: String::new(),
    }
}

fn reported(number: u64, kept: usize) -> ScanChange {
    ScanChange::ReportElsewhere {
        repository: place(),
        digest: digest(),
        report: report(number, Digest::sha256(b"whatever it says")),
        elsewhere: Box::new(Elsewhere {
            scanner: ScannerId(1),
            name: "Clair".into(),
            vendor: "Quay".into(),
            version: "2".into(),
            updated: None,
            findings: ByteBuf::from(vec![7; kept]),
        }),
    }
}

#[test]
fn names_and_addresses_of_scanners_are_there_once_and_edges_learn_no_secret() {
    let mut ledger = at_newest();
    assert_eq!(register(&mut ledger, RegistrationChange::Add(scanner(1))), Outcome::Done);
    let counted = ledger.records.verdicts_version().unwrap();
    assert_eq!(counted, 1, "edges hear of it");
    for alike in [
        ScannerRecord { name: "scanner-1".into(), ..scanner(2) },
        ScannerRecord { url: "https://1.example".into(), ..scanner(2) },
        scanner(1),
    ] {
        assert_eq!(register(&mut ledger, RegistrationChange::Add(alike)), Outcome::Exists);
    }
    let unnamed = ScannerRecord { name: String::new(), ..scanner(2) };
    let refused = register(&mut ledger, RegistrationChange::Add(unnamed));
    assert!(matches!(refused, Outcome::Refused(_)));
    assert_eq!(register(&mut ledger, RegistrationChange::Add(scanner(2))), Outcome::Done);

    let was = ledger.records.scanner(ScannerId(2)).unwrap().unwrap();
    let change = |was: &ScannerRecord, becomes: ScannerRecord| RegistrationChange::Change {
        was: Box::new(was.clone()),
        becomes: Box::new(becomes),
    };
    let renamed = |name: &str| ScannerRecord { name: name.into(), ..was.clone() };
    assert_eq!(register(&mut ledger, change(&was, renamed("scanner-1"))), Outcome::Exists);
    assert_eq!(register(&mut ledger, change(&was, renamed("two"))), Outcome::Done);
    let late = register(&mut ledger, change(&was, renamed("three")));
    assert!(matches!(late, Outcome::Refused(_)), "it has changed since");
    let now = ledger.records.scanner(ScannerId(2)).unwrap().unwrap();
    assert_eq!((now.name.as_str(), now.created), ("two", was.created));
    assert!(now.changed > was.changed);

    let key = scanners_key::scanner(ScannerId(2));
    assert!(!may_look(&Query::Key(key)));
    assert!(!may_look(&Query::Key(scanners_key::elsewhere(&place(), &digest()))));
    let scan = |prefix: Vec<u8>| Query::Scan { prefix, after: None, limit: 9 };
    assert!(!may_look(&scan(scanners_key::scanners())));
    assert!(may_look(&scan(scan_key::verdicts())));

    let reseal = |was: &str| {
        Command::Sealing(Box::new(SealingChange::Reseal {
            place: SealedPlace::Scanner(ScannerId(2)),
            was: was.as_bytes().to_vec().into(),
            becomes: b"anew".to_vec().into(),
        }))
    };
    assert_eq!(ledger.run(reseal("another")), Outcome::Exists);
    assert_eq!(ledger.run(reseal("sealed")), Outcome::Done);
    let anew = ledger.records.scanner(ScannerId(2)).unwrap().unwrap().credential;
    assert_eq!(anew, Some(Secret::from("anew")));
}

#[test]
fn one_scanner_is_the_default_and_when_it_goes_the_one_that_is_built_in_is() {
    let mut ledger = at_newest();
    let (one, two) = (ScannerId(1), ScannerId(2));
    let usual = |ledger: &Ledger| ledger.records.known_scanners().unwrap().usual();
    let set = |ledger: &mut Ledger, id| register(ledger, RegistrationChange::MakeDefault(id));
    assert_eq!(set(&mut ledger, one), Outcome::NotFound);
    for n in [1, 2] {
        assert_eq!(register(&mut ledger, RegistrationChange::Add(scanner(n))), Outcome::Done);
    }
    assert_eq!(usual(&ledger), ScannerId::NATIVE);
    for id in [one, two, ScannerId::NATIVE, one] {
        assert_eq!(set(&mut ledger, id), Outcome::Done);
        assert_eq!(set(&mut ledger, id), Outcome::Exists);
        assert_eq!(usual(&ledger), id);
        assert_eq!(ledger.records.known_scanners().unwrap().of(Some(two)), two, "it stays");
    }
    let remove = |ledger: &mut Ledger, id| register(ledger, RegistrationChange::Remove(id));
    assert_eq!(remove(&mut ledger, one), Outcome::Done);
    assert_eq!(remove(&mut ledger, one), Outcome::NotFound);
    assert_eq!(remove(&mut ledger, ScannerId::NATIVE), Outcome::NotFound);
    assert_eq!(usual(&ledger), ScannerId::NATIVE);
    for n in 10..10 + MOST as u8 - 1 {
        assert_eq!(register(&mut ledger, RegistrationChange::Add(scanner(n))), Outcome::Done);
    }
    let refused = register(&mut ledger, RegistrationChange::Add(scanner(9)));
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
}

/// A mesh whose projects are scanned by the scanner with number 1.
fn with_default() -> Ledger {
    let mut ledger = at_newest();
    let set = RegistrationChange::MakeDefault(ScannerId(1));
    for change in [RegistrationChange::Add(scanner(1)), set] {
        assert_eq!(register(&mut ledger, change), Outcome::Done);
    }
    ledger
}

#[test]
fn a_scanner_that_was_given_up_during_a_scan_decides_nothing() {
    let was = || Box::new(scanner(1));
    let disabled = Box::new(ScannerRecord { disabled: true, ..scanner(1) });
    for given_up in [
        RegistrationChange::Remove(ScannerId(1)),
        RegistrationChange::MakeDefault(ScannerId::NATIVE),
        RegistrationChange::Change { was: was(), becomes: disabled },
    ] {
        let mut ledger = with_default();
        assert_eq!(ledger.run(image(&ledger)), Outcome::Done);
        let number = ask(&mut ledger);
        let said = format!("{given_up:?}");
        let given_up = match given_up {
            RegistrationChange::Change { becomes, .. } => {
                let is = ledger.records.scanner(ScannerId(1)).unwrap().unwrap();
                RegistrationChange::Change { was: Box::new(is), becomes }
            }
            other => other,
        };
        assert_eq!(register(&mut ledger, given_up), Outcome::Done, "{said}");
        assert_eq!(scan(&mut ledger, reported(number, 3)), Outcome::PreconditionFailed, "{said}");
        let known = ledger.records.scan_of(&place(), &digest()).unwrap().unwrap();
        assert!(known.report.is_none() && known.wanted.is_some(), "it is scanned again: {said}");
    }
}

#[test]
fn a_report_from_elsewhere_counts_and_goes_with_the_next_one_or_with_the_image() {
    let mut ledger = with_default();
    assert_eq!(ledger.run(image(&ledger)), Outcome::Done);
    let number = ask(&mut ledger);
    assert!(matches!(scan(&mut ledger, reported(number, MOST_KEPT + 1)), Outcome::Refused(_)));
    assert_eq!(scan(&mut ledger, reported(number + 1, 3)), Outcome::NotFound, "another scan");
    assert_eq!(scan(&mut ledger, reported(number, 3)), Outcome::Done);
    let known = ledger.records.scan_of(&place(), &digest()).unwrap().unwrap();
    assert!(known.wanted.is_none() && known.report.as_ref().unwrap().is_from_elsewhere());
    let kept = |ledger: &Ledger| ledger.records.reported_elsewhere(&place(), &digest()).unwrap();
    assert_eq!(kept(&ledger).unwrap().name, "Clair");

    // a new database of the mesh says nothing of it
    let native = |number| ScanChange::Report {
        repository: place(),
        digest: digest(),
        report: report(number, Digest::sha256(b"database")),
    };
    assert_eq!(scan(&mut ledger, native(number)), Outcome::NotFound);
    assert!(kept(&ledger).is_some());
    let next = ask(&mut ledger);
    assert!(kept(&ledger).is_some(), "it counts until there is another");
    assert_eq!(scan(&mut ledger, native(next)), Outcome::Done);
    assert_eq!(kept(&ledger), None);

    let again = ask(&mut ledger);
    assert_eq!(scan(&mut ledger, reported(again, 3)), Outcome::Done);
    let epoch = ledger.epoch();
    let delete = Command::DeleteManifest { epoch, repository: place(), digest: digest() };
    assert_eq!(ledger.run(delete), Outcome::Done);
    assert_eq!(kept(&ledger), None);
}

#[test]
fn without_a_database_only_projects_with_another_scanner_refuse_what_is_not_scanned() {
    let mut ledger = at_newest();
    assert_eq!(register(&mut ledger, RegistrationChange::Add(scanner(1))), Outcome::Done);
    assert_eq!(ledger.run(image(&ledger)), Outcome::Done);
    let project = ledger.records.projects().unwrap()[0].id;
    let facts = |ledger: &Ledger, chosen: Option<ScannerId>| {
        let mut entries = BTreeMap::from([("prevent_vul".to_owned(), "true".to_owned())]);
        entries.extend(chosen.map(|id| ("scanner".to_owned(), id.to_string())));
        let gate = Gate::of(&entries).unwrap();
        ledger.records.scan_facts(&gate, project, &place(), &digest()).unwrap().is_some()
    };
    assert!(!facts(&ledger, None) && !facts(&ledger, Some(ScannerId::NATIVE)));
    assert!(facts(&ledger, Some(ScannerId(1))));
    assert!(!facts(&ledger, Some(ScannerId(9))), "it is not there: the default counts");
    let set = RegistrationChange::MakeDefault(ScannerId(1));
    assert_eq!(register(&mut ledger, set), Outcome::Done);
    assert!(facts(&ledger, None) && facts(&ledger, Some(ScannerId(9))));
    assert!(!facts(&ledger, Some(ScannerId::NATIVE)));
}

#[test]
fn scans_of_many_images_are_stopped_together_and_one_that_somebody_asked_for_goes_on() {
    let mut ledger = at_newest();
    let stop = |ledger: &mut Ledger| {
        scan(ledger, ScanChange::StopAll { project: "demo".parse().unwrap() })
    };
    assert_eq!(stop(&mut ledger), Outcome::NotFound);
    let many = 620_u16;
    let digest = |n: u16| Digest::sha256(&n.to_be_bytes());
    for n in 0..many {
        let one = NewManifest {
            digest: digest(n),
            bytes: n.to_be_bytes().to_vec(),
            tags: Vec::new(),
            ..new(ledger.epoch(), 1, "t", &[1])
        };
        assert_eq!(ledger.run(Command::PutManifest(one)), Outcome::Done);
    }
    let ask = |ledger: &mut Ledger, some: Vec<Digest>, first: bool| {
        let (repository, digests) = (place(), some);
        assert_eq!(scan(ledger, ScanChange::Ask { repository, digests, first }), Outcome::Done);
    };
    let all: Vec<_> = (0..many).map(digest).collect();
    for some in all.chunks(400) {
        ask(&mut ledger, some.to_vec(), false);
    }
    ask(&mut ledger, vec![digest(3)], true);
    assert_eq!(stop(&mut ledger), Outcome::Unfinished);
    assert_eq!(stop(&mut ledger), Outcome::Done);
    assert_eq!(stop(&mut ledger), Outcome::NotFound);
    let project = ledger.records.projects().unwrap()[0].id;
    let left = ledger.records.queued_scans(project, 9).unwrap();
    assert_eq!(left, [(place(), digest(3))]);
    let stopped = ledger.records.scan_of(&place(), &digest(9)).unwrap().unwrap();
    assert_eq!(stopped.status(), crate::policies::vulnerabilities::ScanStatus::Stopped);
}

#[test]
fn there_is_one_scanner_below_the_feature_level() {
    let mut ledger = Ledger::new();
    let added = register(&mut ledger, RegistrationChange::Add(scanner(1)));
    assert!(matches!(added, Outcome::Refused(_)));
    assert_eq!(ledger.run(image(&ledger)), Outcome::Done);
    assert!(matches!(scan(&mut ledger, reported(1, 3)), Outcome::Refused(_)));
    assert!(ledger.records.scanners().unwrap().is_empty());
}
