use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp(1_000);

fn gate(entries: &[(&str, &str)]) -> Gate {
    let on = [(metadata::PREVENT, "true")];
    let entries = on.iter().chain(entries).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Gate::of(&entries.collect()).expect("it prevents")
}

fn weak(id: &str, severity: Severity, fixable: bool) -> Weakness {
    Weakness { id: id.into(), severity, fixable }
}

fn count(gate: &Gate, found: &[Weakness], allowed: &Allowlist) -> usize {
    match decide(gate, Known::Found(found, None), allowed, NOW) {
        Decision::Pass => 0,
        Decision::Refuse(Prevented::Vulnerable { count, .. }) => count,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_below_the_threshold_passes_and_what_is_allowed_does_until_the_list_ends() {
    let found = [
        weak("CVE-2024-0727", Severity::Medium, true),
        weak("CVE-2024-5535", Severity::Critical, false),
        weak("GHSA-x", Severity::Unknown, true),
    ];
    let nothing = Allowlist::default();
    for (word, expected) in
        [("none", 3), ("negligible", 3), ("low", 2), ("Medium", 2), ("high", 1), ("critical", 1)]
    {
        assert_eq!(count(&gate(&[("severity", word)]), &found, &nothing), expected, "{word}");
    }
    assert_eq!(count(&gate(&[]), &found, &nothing), 2, "without a threshold it is low");
    assert_eq!(count(&gate(&[("severity", "what")]), &found, &nothing), 3);
    let fixable = gate(&[("severity", "medium"), (metadata::FIXABLE, "true")]);
    assert_eq!(count(&fixable, &found, &nothing), 1);
    let high = gate(&[("severity", "high")]);
    let list = |expires| Allowlist { ids: vec!["CVE-2024-5535".into()], expires };
    assert_eq!(count(&high, &found, &list(None)), 0);
    assert_eq!(count(&high, &found, &list(Some(Timestamp(1_001)))), 0);
    assert_eq!(count(&high, &found, &list(Some(NOW))), 1, "it has ended");
    let other_case = Allowlist { ids: vec!["cve-2024-5535".into()], expires: None };
    assert_eq!(count(&high, &found, &other_case), 1);
}

#[test]
fn a_project_without_the_policy_has_no_gate() {
    for value in [None, Some("false"), Some("TRUE"), Some("")] {
        let entries: BTreeMap<_, _> =
            value.iter().map(|v| (metadata::PREVENT.to_owned(), (*v).to_owned())).collect();
        assert_eq!(Gate::of(&entries), None, "{value:?}");
    }
}

#[test]
fn an_unscanned_image_is_refused_unless_the_project_says_otherwise() {
    let of = |entries: &[(&str, &str)], status| {
        decide(&gate(entries), Known::Nothing(status), &Allowlist::default(), NOW)
    };
    let refused = |status| Decision::Refuse(Prevented::Unscanned(status, Severity::Low));
    for status in [ScanStatus::NotScanned, ScanStatus::Running, ScanStatus::Error] {
        assert_eq!(of(&[], status), refused(status));
        assert_eq!(of(&[(metadata::UNSCANNED, "allow")], status), Decision::Pass);
    }
    let wait = [(metadata::UNSCANNED, "wait 20")];
    let waits = Decision::Wait(
        Duration::from_secs(20),
        Prevented::Unscanned(ScanStatus::Pending, Severity::Low),
    );
    assert_eq!(of(&wait, ScanStatus::Pending), waits);
    for status in [ScanStatus::Error, ScanStatus::NotScanned] {
        assert_eq!(of(&wait, status), refused(status), "it does not come");
    }
}

#[test]
fn too_little_is_as_unscanned_unless_the_project_says_otherwise() {
    let of = |entries: &[(&str, &str)], found: &[Weakness]| {
        let known = Known::Found(found, Some("Debian 11 has ended"));
        decide(&gate(entries), known, &Allowlist::default(), NOW)
    };
    let why = Prevented::Insufficient("Debian 11 has ended".into(), Severity::Low);
    assert_eq!(of(&[], &[]), Decision::Refuse(why.clone()));
    assert_eq!(of(&[(metadata::UNSCANNED, "wait 9")], &[]), Decision::Refuse(why.clone()));
    assert_eq!(of(&[(metadata::UNSCANNED, "allow")], &[]), Decision::Pass);
    let both = [(metadata::UNSCANNED, "allow"), (metadata::INSUFFICIENT, "block")];
    assert_eq!(of(&both, &[]), Decision::Refuse(why));
    let allow = [(metadata::INSUFFICIENT, "allow")];
    assert_eq!(of(&allow, &[]), Decision::Pass);
    let bad = [weak("CVE-2024-1234", Severity::High, false)];
    assert!(matches!(of(&allow, &bad), Decision::Refuse(Prevented::Vulnerable { .. })));
}

#[test]
fn values_are_checked_when_they_are_written() {
    for (key, value) in [
        (metadata::PREVENT, "true"),
        (metadata::SEVERITY, "Critical"),
        (metadata::SEVERITY, "none"),
        (metadata::UNSCANNED, "wait 60"),
        (metadata::UNSCANNED, "block"),
        (metadata::INSUFFICIENT, "unscanned"),
        ("something", "else"),
    ] {
        assert_eq!(check(key, value), Ok(()), "{key} {value}");
    }
    for (key, value) in [
        (metadata::AUTO_SCAN, "yes"),
        (metadata::SEVERITY, "severe"),
        (metadata::UNSCANNED, "wait 61"),
        (metadata::UNSCANNED, "wait"),
        (metadata::INSUFFICIENT, "wait 3"),
    ] {
        assert!(check(key, value).is_err(), "{key} {value}");
    }
}

#[test]
fn the_sentences_are_harbors() {
    let why = Prevented::Vulnerable { count: 3, threshold: Severity::High };
    assert_eq!(
        why.to_string(),
        "current image with 3 vulnerabilities cannot be pulled due to configured policy in 'Prevent images with vulnerability severity of \"High\" or higher from running.' To continue with pull, please contact your project administrator to exempt matched vulnerabilities through configuring the CVE allowlist."
    );
}

#[test]
fn a_list_has_each_id_once() {
    let list = |ids: &[&str]| Allowlist {
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        expires: None,
    };
    assert_eq!(list(&["CVE-2024-1", "GHSA-x"]).check(), Ok(()));
    assert!(list(&["a", "a"]).check().is_err());
    assert!(list(&[" "]).check().is_err() && list(&[&"x".repeat(129)]).check().is_err());
}

proptest! {
    #[test]
    fn an_id_is_printed_as_it_was_written(text in "CVE-[0-9]{1,6}-[0-9]{1,12}|[ -~]{0,30}") {
        prop_assert_eq!(VulnerabilityId::from(text.as_str()).to_string(), text);
    }
}
