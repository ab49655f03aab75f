//! Signatures of what proxy projects have cached: what was verified stays, bounded, and is forgotten
//! with the cache and with the project.

use super::cached::{digest, left_after_deletion, of_a_proxy, place, project, set};
use super::leaving::at_newest;
use super::*;
use crate::ledger::cached_signatures::{
    LookForCachedSignatures, MOST_FOUND, MOST_KNOWN, MOST_UNKNOWN, key,
};
use crate::ledger::change::Change;
use crate::ledger::records::{encode, key as records_key};
use crate::ledger::scanning::LookForScans;
use crate::ledger::signatures::{
    LookForSignatures, MOST_CHILDREN, SignatureChange, key as signed_key,
};
use crate::policies::signatures::{
    Anchor, AnchorId, By, Evidence, Exemption, Fault, Format, Seen, Signature, SignatureRecord,
    Signer, State, exempting,
};
use crate::words::digest::Digest;

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

fn an_exemption() -> Exemption {
    Exemption { until: Timestamp(60_000_000), why: "a test".into(), by: "ann".into() }
}

fn exempt_index(ledger: &mut Ledger, n: u64, children: &[u64]) -> Outcome {
    let children = children.iter().map(|n| digest(*n)).collect();
    let (repository, digest, exemption) = (place(), digest(n), an_exemption());
    change(ledger, SignatureChange::ExemptIndex { repository, digest, children, exemption })
}

fn exempt(ledger: &mut Ledger, n: u64, exempt: bool) -> Outcome {
    let exemption = exempt.then(an_exemption);
    let (repository, digest) = (place(), digest(n));
    change(ledger, SignatureChange::Exempt { repository, digest, exemption })
}

fn known(ledger: &Ledger, n: u64) -> SignatureRecord {
    ledger.records.signatures_of(&place(), &digest(n)).unwrap()
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

/// Trusts this key, or ends that.
fn trust(ledger: &mut Ledger, key: u8, compromised: bool) {
    let state = match compromised {
        true => State::Revoked { at: Timestamp(0), compromised, why: String::new() },
        false => State::Active,
    };
    let anchor = Anchor::Key { id: AnchorId([key; 32]), pem: "pem".into() };
    let signer = Signer { logged: false, state, ..Signer::of_the_mesh("ci".into(), anchor) };
    let project = "demo".parse().unwrap();
    let set = SignatureChange::SetSigner { project, signer: Box::new(signer), new: !compromised };
    assert_eq!(change(ledger, set), Outcome::Done);
}

/// Which of these images something is known of.
fn are_known(ledger: &Ledger, images: &[u64]) -> Vec<bool> {
    images.iter().map(|n| known(ledger, *n) != SignatureRecord::default()).collect()
}

#[test]
fn what_nobody_who_is_trusted_has_signed_pushes_out_nothing_that_somebody_has() {
    let mut ledger = of_a_proxy();
    trust(&mut ledger, 1, false);
    assert_eq!(exempt(&mut ledger, 0, true), Outcome::Done, "it needs not be recorded");
    for n in 1..=3 {
        assert_eq!(found(&mut ledger, n, &[], vec![unknown(7)]), Outcome::Done);
    }
    for n in 4..MOST_KNOWN {
        assert_eq!(found(&mut ledger, n, &[], vec![good(7)]), Outcome::Done);
    }
    // something new is found about one of them
    assert_eq!(found(&mut ledger, 1, &[], vec![unknown(8)]), Outcome::Done);
    let last = MOST_KNOWN;
    for (n, evidence, goes) in
        [(last, unknown(7), 2), (last + 1, good(7), 3), (last + 2, good(8), 1)]
    {
        assert_eq!(are_known(&ledger, &[goes]), [true]);
        assert_eq!(found(&mut ledger, n, &[], vec![evidence]), Outcome::Done);
        assert_eq!(are_known(&ledger, &[goes, n]), [false, true], "{n}");
        assert_eq!(count(&ledger), MOST_KNOWN);
    }
    assert_eq!(found(&mut ledger, last + 3, &[], vec![good(7)]), Outcome::Done);
    assert_eq!(are_known(&ledger, &[last, last + 3]), [false, true]);
    // all is worth more than what is by nobody, whatever it lists
    let verdicts = ledger.records.verdicts_version().unwrap();
    assert_eq!(found(&mut ledger, 9_000, &[9_001], vec![unknown(7)]), Outcome::Done);
    assert_eq!(are_known(&ledger, &[0, 4, 9_000, 9_001]), [true, true, false, false]);
    assert_eq!(ledger.records.verdicts_version().unwrap(), verdicts, "nothing to hear of");
    // and as much as what is signed
    assert_eq!(found(&mut ledger, 9_000, &[9_001], vec![good(7)]), Outcome::Done);
    assert_eq!(are_known(&ledger, &[0, 4, 5, 9_000, 9_001]), [true, false, true, true, true]);
    // what was signed by a key that others have is worth nothing
    trust(&mut ledger, 1, true);
    assert_eq!(found(&mut ledger, 9_002, &[], vec![unknown(7)]), Outcome::Done);
    assert_eq!(are_known(&ledger, &[0, 5, 9_002]), [true, false, true]);
    assert_eq!(exempt(&mut ledger, 0, false), Outcome::Done);
    assert_eq!((known(&ledger, 0), count(&ledger)), (SignatureRecord::default(), MOST_KNOWN - 1));
}

#[test]
fn what_an_exempted_index_lists_is_exempted_until_that_ends() {
    let mut ledger = of_a_proxy();
    assert_eq!(exempt_index(&mut ledger, 1, &[2, 3]), Outcome::Done);
    let exempted = |ledger: &Ledger, n| {
        let facts = ledger.records.signature_facts(project(ledger).id, &place(), &digest(n));
        let facts = facts.unwrap();
        exempting(&facts.own, &facts.parents, Timestamp(1)).map(|(index, _)| index)
    };
    assert_eq!([1, 2, 4].map(|n| exempted(&ledger, n)), [Some(None), Some(Some(0)), None]);
    assert_eq!(count(&ledger), 1, "what it lists takes no places");
    // signatures of it stay when it ends, and what it lists is as good
    assert_eq!(found(&mut ledger, 1, &[2, 3], vec![good(7)]), Outcome::Done);
    assert_eq!(exempt(&mut ledger, 1, false), Outcome::Done);
    assert_eq!([1, 2].map(|n| exempted(&ledger, n)), [None, None]);
    assert_eq!(known(&ledger, 2).parents, [digest(1)]);
    // one that nobody has signed leaves nothing
    assert_eq!(exempt_index(&mut ledger, 5, &[6]), Outcome::Done);
    assert_eq!(exempt(&mut ledger, 5, false), Outcome::Done);
    assert_eq!(are_known(&ledger, &[5, 6]), [false, false]);
    assert_eq!(exempt_index(&mut ledger, 5, &[6]), Outcome::Done);
    assert_eq!(forget(&mut ledger, &[5]), Outcome::Done);
    assert_eq!(are_known(&ledger, &[5, 6]), [false, false]);
    let many: Vec<u64> = (0..=MOST_CHILDREN as u64).collect();
    assert!(matches!(exempt_index(&mut ledger, 9, &many), Outcome::Refused(_)));
}

#[test]
fn what_is_known_goes_with_the_project_and_a_policy_of_before_has_no_effect() {
    let mut ledger = of_a_proxy();
    let of = project(&ledger).id;
    for n in 0..3 {
        assert_eq!(found(&mut ledger, n, &[10 + n], vec![good(7)]), Outcome::Done);
    }
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
    set(&mut ledger, "signature_policy", "off");
    assert_eq!(policy(&ledger), None);
    set(&mut ledger, "signature_policy", "enforce");
    assert!(policy(&ledger).is_some_and(|policy| policy.refuses()));
    assert_eq!(idle(&ledger), ["prevent_vul"]);

    let of_repository = signed_key::signatures_in(&place());
    let numbers = key::number(&place(), &digest(0))[..8].to_vec();
    let of_project = [key::all_known(of), key::count(of), of_repository, numbers];
    assert_eq!(left_after_deletion(&mut ledger, &of_project), 0);
    assert!(!ledger.records.are_cached_verified(of).unwrap());
}
