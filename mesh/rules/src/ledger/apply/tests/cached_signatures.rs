//! Signatures of what proxy projects have cached: what was verified stays, bounded, and is forgotten
//! with the cache and with the project.

use super::leaving::at_newest;
use super::*;
use crate::ledger::cached_signatures::{
    LookForCachedSignatures, MOST_FOUND, MOST_KNOWN, MOST_UNKNOWN, key,
};
use crate::ledger::change::Change;
use crate::ledger::records::{Project, encode, key as records_key};
use crate::ledger::signatures::{LookForSignatures, SignatureChange, key as signed_key};
use crate::policies::signatures::{
    AnchorId, By, Evidence, Exemption, Fault, Format, Seen, Signature, SignatureRecord,
};
use crate::words::digest::Digest;

fn place() -> RepositoryName {
    "demo/a".parse().unwrap()
}

fn digest(n: u64) -> Digest {
    Digest::sha256(&n.to_be_bytes())
}

fn signature(by: Option<u8>, payload: u64, fault: Option<Fault>) -> Seen {
    let by = match by {
        Some(key) => By::Key(AnchorId([key; 32])),
        None => By::Unknown { hint: None },
    };
    let signature = Signature {
        format: Format::Cosign,
        by,
        fault,
        predicate: None,
        reference: None,
        signed: None,
        until: None,
        payload: digest(payload),
        claims: Default::default(),
    };
    Seen { at: Timestamp(0), logged: None, signature }
}

fn evidence(manifest: u64, tagged: bool, signatures: Vec<Seen>) -> Evidence {
    let tag = tagged.then(|| "sha256-x.sig".parse().unwrap());
    Evidence { manifest: digest(manifest), tag, is_text: true, signatures }
}

/// An artifact that key 1 has signed.
fn good(n: u64) -> Evidence {
    evidence(n, false, vec![signature(Some(1), n, None)])
}

/// One by nobody who is trusted.
fn unknown(n: u64) -> Evidence {
    evidence(n, false, vec![signature(None, n, None)])
}

fn change(ledger: &mut Ledger, change: SignatureChange) -> Outcome {
    let command = Change::Signatures(Box::new(change)).under(ledger.epoch());
    ledger.run(command)
}

fn found(ledger: &mut Ledger, n: u64, children: &[u64], evidence: Vec<Evidence>) -> Outcome {
    let children = children.iter().map(|n| digest(*n)).collect();
    let (repository, subject) = (place(), digest(n));
    change(ledger, SignatureChange::FoundCached { repository, subject, children, evidence })
}

fn forget(ledger: &mut Ledger, digests: &[u64]) -> Outcome {
    let digests = digests.iter().map(|n| digest(*n)).collect();
    change(ledger, SignatureChange::ForgetCached { repository: place(), digests })
}

fn exempt(ledger: &mut Ledger, n: u64, exempt: bool) -> Outcome {
    let exemption = exempt.then(|| {
        let (why, by) = ("a test".to_owned(), "ann".to_owned());
        Exemption { until: Timestamp(60_000_000), why, by }
    });
    let (repository, digest) = (place(), digest(n));
    change(ledger, SignatureChange::Exempt { repository, digest, exemption })
}

fn project(ledger: &Ledger) -> Project {
    ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap()
}

fn known(ledger: &Ledger, n: u64) -> SignatureRecord {
    ledger.records.signatures_of(&place(), &digest(n)).unwrap()
}

fn of_a_proxy() -> Ledger {
    let mut ledger = at_newest();
    let project = project(&ledger);
    let cached = Project { upstream: Some(UpstreamId(1)), ..project };
    ledger.records.put(&records_key::project(&cached.name), &encode(&cached).unwrap()).unwrap();
    ledger
}

fn count(ledger: &Ledger) -> u64 {
    let of = project(ledger).id;
    let listed = ledger.records.scan(&key::all_known(of), None, usize::MAX).unwrap().len() as u64;
    let count = ledger.records.record(&key::count(of)).unwrap().unwrap_or(0);
    assert_eq!(count, listed, "what is counted is what is listed");
    count
}

/// The artifacts of an image, and by how many who are known each is signed.
fn shown(ledger: &Ledger, n: u64) -> Vec<(Digest, usize)> {
    let signed = |one: &Evidence| one.signatures.iter().filter(|s| s.signature.is_known()).count();
    known(ledger, n).evidence.iter().map(|one| (one.manifest, signed(one))).collect()
}

#[test]
fn what_was_verified_stays_whatever_the_upstream_shows_later() {
    let mut ledger = at_newest();
    assert!(matches!(found(&mut ledger, 1, &[], vec![good(7)]), Outcome::Refused(_)), "not cached");
    let mut ledger = of_a_proxy();
    assert_eq!(found(&mut ledger, 1, &[], vec![good(7), unknown(8)]), Outcome::Done);
    assert_eq!(shown(&ledger, 1), [(digest(7), 1), (digest(8), 0)]);
    let since = known(&ledger, 1).evidence[0].signatures[0].at;

    // nothing, something else, and the same with its blob away
    assert_eq!(found(&mut ledger, 1, &[], vec![]), Outcome::Done);
    assert_eq!(shown(&ledger, 1), [(digest(7), 1)], "what is by nobody goes");
    assert_eq!(found(&mut ledger, 1, &[], vec![unknown(9)]), Outcome::Done);
    assert_eq!(shown(&ledger, 1), [(digest(7), 1), (digest(9), 0)]);
    let away = evidence(7, false, vec![signature(None, 7, Some(Fault::Missing))]);
    assert_eq!(found(&mut ledger, 1, &[], vec![away]), Outcome::Done);
    assert_eq!(shown(&ledger, 1), [(digest(7), 1)]);

    // a tag that moves on with what it had, and one that moves on without
    let first = signature(Some(1), 20, None);
    let both = vec![first.clone(), signature(Some(2), 21, None)];
    assert_eq!(found(&mut ledger, 2, &[], vec![evidence(30, true, vec![first])]), Outcome::Done);
    assert_eq!(found(&mut ledger, 2, &[], vec![evidence(31, true, both)]), Outcome::Done);
    assert_eq!(shown(&ledger, 2), [(digest(31), 2)]);
    let other = vec![signature(Some(3), 22, None)];
    assert_eq!(found(&mut ledger, 2, &[], vec![evidence(32, true, other)]), Outcome::Done);
    assert_eq!(shown(&ledger, 2), [(digest(31), 2), (digest(32), 1)]);

    // since when a signature is known says when it was seen first
    assert_eq!(found(&mut ledger, 1, &[], vec![good(7), good(8)]), Outcome::Done);
    assert_eq!(known(&ledger, 1).evidence[0].signatures[0].at, since);

    let many: Vec<Evidence> = (100..100 + MOST_FOUND as u64).map(unknown).collect();
    assert_eq!(found(&mut ledger, 3, &[], many.clone()), Outcome::Done);
    assert_eq!(shown(&ledger, 3).len(), MOST_UNKNOWN);
    let many = [many, vec![unknown(99)]].concat();
    assert!(matches!(found(&mut ledger, 3, &[], many), Outcome::Refused(_)));
}

#[test]
fn what_a_signed_index_lists_is_as_good_for_as_long_as_the_index_is_known() {
    let mut ledger = of_a_proxy();
    assert_eq!(found(&mut ledger, 1, &[2, 3], vec![unknown(7)]), Outcome::Done);
    assert_eq!(known(&ledger, 2), SignatureRecord::default(), "nobody has signed the index");
    assert_eq!(found(&mut ledger, 1, &[2, 3], vec![good(7)]), Outcome::Done);
    assert_eq!(known(&ledger, 2).parents, [digest(1)]);
    // one of them is signed, too
    assert_eq!(found(&mut ledger, 3, &[], vec![good(8)]), Outcome::Done);
    assert_eq!(count(&ledger), 2);
    assert_eq!(forget(&mut ledger, &[1, 2]), Outcome::Done);
    assert_eq!(known(&ledger, 1), SignatureRecord::default());
    assert_eq!(known(&ledger, 2), SignatureRecord::default());
    assert_eq!((known(&ledger, 3).parents.len(), shown(&ledger, 3).len()), (0, 1));
    assert_eq!(count(&ledger), 1);
}

#[test]
fn of_so_many_images_the_one_is_forgotten_about_which_something_was_found_first() {
    let mut ledger = of_a_proxy();
    assert_eq!(exempt(&mut ledger, 0, true), Outcome::Done, "it needs not be recorded");
    for n in 1..MOST_KNOWN {
        assert_eq!(found(&mut ledger, n, &[], vec![good(7)]), Outcome::Done);
    }
    // something new is found about one of them
    assert_eq!(found(&mut ledger, 1, &[], vec![good(8)]), Outcome::Done);
    assert_eq!(found(&mut ledger, MOST_KNOWN, &[], vec![good(7)]), Outcome::Done);
    assert_eq!(count(&ledger), MOST_KNOWN);
    for (n, is_known) in [(0, true), (1, true), (2, false), (3, true), (MOST_KNOWN, true)] {
        assert_eq!(known(&ledger, n) != SignatureRecord::default(), is_known, "{n}");
    }
    assert_eq!(exempt(&mut ledger, 0, false), Outcome::Done);
    assert_eq!((known(&ledger, 0), count(&ledger)), (SignatureRecord::default(), MOST_KNOWN - 1));
}

#[test]
fn what_is_known_goes_with_the_project_and_a_policy_of_before_has_no_effect() {
    let mut ledger = of_a_proxy();
    let of = project(&ledger).id;
    for n in 0..3 {
        assert_eq!(found(&mut ledger, n, &[10 + n], vec![good(7)]), Outcome::Done);
    }
    let set = |value: &str| {
        let metadata = [("signature_policy".to_owned(), value.to_owned())].into();
        let (name, proxy) = ("demo".parse().unwrap(), Default::default());
        Change::Configure { name, public: None, durability: None, proxy, metadata }
    };
    let epoch = ledger.epoch();
    let mut before = project(&ledger);
    before.metadata.insert("enable_content_trust".into(), "true".into());
    before.metadata.insert("prevent_vul".into(), "true".into());
    before.metadata.insert("auto_scan".into(), "true".into());
    ledger.records.put(&records_key::project(&before.name), &encode(&before).unwrap()).unwrap();
    let policy = |ledger: &Ledger| ledger.records.signature_policy_of(&project(ledger)).unwrap();
    assert_eq!(policy(&ledger), None);
    let idle = |ledger: &Ledger| -> Vec<String> {
        let found = ledger.records.without_effect(&project(ledger)).unwrap();
        found.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(idle(&ledger), ["enable_content_trust", "prevent_vul"], "and it is told");
    ledger.run(set("off").under(epoch));
    assert_eq!(policy(&ledger), None);
    ledger.run(set("enforce").under(epoch));
    assert!(policy(&ledger).is_some_and(|policy| policy.refuses()));
    assert_eq!(idle(&ledger), ["prevent_vul"]);

    assert_eq!(
        ledger.run(Change::Delete { name: "demo".parse().unwrap() }.under(epoch)),
        Outcome::Done
    );
    let of_repository = signed_key::signatures_in(&place());
    let numbers = key::number(&place(), &digest(0))[..8].to_vec();
    for left in [key::all_known(of), key::count(of), of_repository, numbers] {
        assert!(ledger.records.scan(&left, None, 1).unwrap().is_empty(), "{left:?}");
    }
    assert!(!ledger.records.are_cached_verified(of).unwrap());
}
