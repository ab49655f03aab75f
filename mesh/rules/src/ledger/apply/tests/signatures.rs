//! Signatures count while what they are in is there, and for whom a project trusts.

use super::leaving::at_newest;
use super::*;
use crate::ledger::change::Change;
use crate::ledger::scanning::LookForScans;
use crate::ledger::signatures::{
    LookForSignatures, MOST_EVIDENCE, SignatureChange, Unverified, key,
};
use crate::policies::signatures::metadata::MODE;
use crate::policies::signatures::{
    Anchor, AnchorId, By, Evidence, Exemption, Format, Seen, Signature, SignatureRecord, Signer,
    State,
};
use crate::words::digest::Digest;
use crate::words::manifest::Referrer;
use crate::words::names::Tag;

const KEY: AnchorId = AnchorId([1; 32]);

fn place() -> RepositoryName {
    "demo/a".parse().unwrap()
}

fn image() -> Digest {
    Digest::sha256(&[1, 0])
}

/// The tag of cosign's signatures of the image.
fn sig() -> Tag {
    format!("{}.sig", image().to_string().replace(':', "-")).parse().unwrap()
}

fn change(ledger: &mut Ledger, change: SignatureChange) -> Outcome {
    let command = Change::Signatures(Box::new(change)).under(ledger.epoch());
    ledger.run(command)
}

fn known(ledger: &Ledger, digest: &Digest) -> SignatureRecord {
    ledger.records.signatures_of(&place(), digest).unwrap()
}

fn queue(ledger: &Ledger) -> Vec<(Vec<u8>, Unverified)> {
    ledger.records.records(&key::all_unverified()).unwrap()
}

fn verdicts(ledger: &Ledger) -> u64 {
    ledger.records.verdicts_version().unwrap()
}

fn signature(by: By, payload: u8) -> Seen {
    let signature = Signature {
        format: Format::Cosign,
        by,
        fault: None,
        predicate: None,
        reference: None,
        signed: None,
        until: None,
        payload: Digest::sha256(&[payload]),
        claims: std::collections::BTreeMap::new(),
    };
    Seen { at: Timestamp(0), signature }
}

fn evidence(manifest: u8, tag: Option<Tag>, payloads: &[u8]) -> Evidence {
    let signatures = payloads.iter().map(|one| signature(By::Key(KEY), *one)).collect();
    Evidence { manifest: Digest::sha256(&[manifest, 0]), tag, signatures }
}

fn verified(evidence: Evidence, children: Vec<Digest>, number: Option<u64>) -> SignatureChange {
    let (repository, subject) = (place(), image());
    SignatureChange::Verified { repository, subject, children, evidence, number }
}

/// A referrer of the image with this type.
fn referrer(ledger: &Ledger, n: u8, artifact_type: &str) -> Command {
    let digest = Digest::sha256(&[n, 0]);
    let about = Referrer {
        digest,
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        size: 2,
        artifact_type: Some(artifact_type.into()),
        annotations: std::collections::BTreeMap::new(),
    };
    let new = new(ledger.epoch(), n, "none", &[n]);
    let subject = Some(Box::new((image(), about)));
    Command::PutManifest(NewManifest { tags: Vec::new(), subject, ..new })
}

/// A ledger with the image.
fn with_image() -> Ledger {
    let mut ledger = at_newest();
    let put = put(ledger.epoch(), 1, "v1", &[1]);
    assert_eq!(ledger.run(put), Outcome::Done);
    ledger
}

fn signer(name: &str, state: State) -> Box<Signer> {
    Box::new(Signer {
        name: name.into(),
        anchor: Anchor::Key { id: KEY, pem: "pem".into() },
        formats: Vec::new(),
        predicates: Vec::new(),
        repositories: None,
        tags: None,
        not_before: None,
        not_after: None,
        state,
    })
}

fn set(ledger: &mut Ledger, name: &str, state: State, new: bool) -> Outcome {
    let (project, signer) = ("demo".parse().unwrap(), signer(name, state));
    change(ledger, SignatureChange::SetSigner { project, signer, new })
}

#[test]
fn what_may_be_signatures_is_to_be_verified_and_nothing_else() {
    let mut ledger = with_image();
    assert!(queue(&ledger).is_empty(), "an image is none");
    let put = put(ledger.epoch(), 2, sig().as_str(), &[2]);
    assert_eq!(ledger.run(put), Outcome::Done);
    let bundle = referrer(&ledger, 3, "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(ledger.run(bundle), Outcome::Done);
    let sbom = referrer(&ledger, 4, "application/spdx+json");
    assert_eq!(ledger.run(sbom), Outcome::Done);
    let waits = queue(&ledger);
    let tags: Vec<Option<Tag>> = waits.iter().map(|(_, one)| one.tag.clone()).collect();
    assert_eq!(tags, [Some(sig()), None]);
    let (_, number) = key::queued(&waits[0].0).unwrap();
    let outcome =
        change(&mut ledger, verified(evidence(2, Some(sig()), &[1]), vec![], Some(number)));
    assert_eq!((outcome, queue(&ledger).len()), (Outcome::Done, 1));
    assert_eq!(known(&ledger, &image()).evidence.len(), 1);
}

#[test]
fn signatures_count_no_more_when_their_artifact_their_tag_or_their_image_is_deleted() {
    let epoch = with_image().epoch();
    let repository = place();
    let of = |n: u8| Digest::sha256(&[n, 0]);
    for (what, gone) in [
        ("tag", Command::DeleteTag { epoch, repository: place(), tag: sig() }),
        ("manifest", Command::DeleteManifest { epoch, repository: place(), digest: of(2) }),
    ] {
        let mut ledger = with_image();
        let put = put(epoch, 2, sig().as_str(), &[2]);
        assert_eq!(ledger.run(put), Outcome::Done);
        change(&mut ledger, verified(evidence(2, Some(sig()), &[1]), vec![], None));
        assert_eq!(known(&ledger, &image()).evidence.len(), 1);
        assert_eq!(ledger.run(gone), Outcome::Done);
        assert_eq!(known(&ledger, &image()), SignatureRecord::default(), "{what}");
        // what was verified before it was deleted, and is recorded after
        change(&mut ledger, verified(evidence(2, Some(sig()), &[1]), vec![], None));
        assert_eq!(known(&ledger, &image()), SignatureRecord::default(), "{what}");
    }
    let mut ledger = with_image();
    let kind = "application/vnd.cncf.notary.signature";
    let put = referrer(&ledger, 3, kind);
    assert_eq!(ledger.run(put), Outcome::Done);
    change(&mut ledger, verified(evidence(3, None, &[1]), vec![of(9)], None));
    assert_eq!(known(&ledger, &of(9)).parents, [image()]);
    let digest = of(3);
    let delete = Command::DeleteManifest { epoch, repository: repository.clone(), digest };
    assert_eq!(ledger.run(delete), Outcome::Done);
    assert!(known(&ledger, &image()).evidence.is_empty());
    // the image goes, and with it what was known, and its signatures
    let put = referrer(&ledger, 3, kind);
    assert_eq!(ledger.run(put), Outcome::Done);
    change(&mut ledger, verified(evidence(3, None, &[1]), vec![of(9)], None));
    let delete = Command::DeleteManifest { epoch, repository, digest: image() };
    assert_eq!(ledger.run(delete), Outcome::Done);
    assert_eq!(known(&ledger, &image()), SignatureRecord::default());
    assert_eq!(known(&ledger, &of(9)), SignatureRecord::default());
    assert!(!ledger.records.has_manifest(&place(), &of(3)).unwrap(), "it goes with its subject");
}

#[test]
fn a_signature_that_was_seen_keeps_the_time_at_which_it_was() {
    let mut ledger = with_image();
    let tag = put(ledger.epoch(), 2, sig().as_str(), &[2]);
    assert_eq!(ledger.run(tag), Outcome::Done);
    let first = ledger.now();
    change(&mut ledger, verified(evidence(2, Some(sig()), &[1]), vec![], None));
    let tag = put(ledger.epoch(), 3, sig().as_str(), &[3]);
    assert_eq!(ledger.run(tag), Outcome::Done);
    assert_eq!(known(&ledger, &image()).evidence.len(), 1, "until the new ones are verified");
    let second = ledger.now();
    change(&mut ledger, verified(evidence(3, Some(sig()), &[1, 2]), vec![], None));
    let record = known(&ledger, &image());
    assert_eq!(record.evidence.len(), 1, "it is in place of the one before");
    let times: Vec<Timestamp> = record.evidence[0].signatures.iter().map(|one| one.at).collect();
    assert_eq!(times, [first, second]);
}

#[test]
fn signatures_by_nobody_push_out_none_by_somebody() {
    let mut ledger = with_image();
    let kind = "application/vnd.dev.sigstore.bundle.v0.3+json";
    for n in 10..80_u8 {
        let put = referrer(&ledger, n, kind);
        assert_eq!(ledger.run(put), Outcome::Done);
    }
    change(&mut ledger, verified(evidence(10, None, &[1]), vec![], None));
    for n in 11..80_u8 {
        let signatures = vec![signature(By::Unknown { hint: None }, n)];
        let manifest = Digest::sha256(&[n, 0]);
        let evidence = Evidence { manifest, tag: None, signatures };
        assert_eq!(change(&mut ledger, verified(evidence, vec![], None)), Outcome::Done);
    }
    let record = known(&ledger, &image());
    assert_eq!(record.evidence.len(), MOST_EVIDENCE);
    assert!(record.evidence.iter().any(Evidence::is_known));
}

#[test]
fn whom_a_project_trusts_is_said_once_and_counted_when_it_changes_what_is_verified() {
    let mut ledger = with_image();
    let before = verdicts(&ledger);
    assert_eq!(set(&mut ledger, "ci", State::Active, false), Outcome::NotFound);
    assert_eq!(set(&mut ledger, "ci", State::Active, true), Outcome::Done);
    assert_eq!(set(&mut ledger, "ci", State::Active, true), Outcome::Exists);
    assert!(matches!(set(&mut ledger, "C I", State::Active, true), Outcome::Refused(_)));
    let id = ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap().id;
    assert_eq!(ledger.records.trusted(id).unwrap().anchors, 1);
    let at = ledger.now();
    let revoked = |at| State::Revoked { at, compromised: false, why: "old".into() };
    assert_eq!(set(&mut ledger, "ci", revoked(Timestamp(0)), false), Outcome::Done);
    let trusted = ledger.records.trusted(id).unwrap();
    assert_eq!((trusted.anchors, &trusted.signers[0].state), (1, &revoked(at)), "nothing anew");
    // it stays revoked since then
    assert_eq!(set(&mut ledger, "ci", revoked(Timestamp(0)), false), Outcome::Done);
    assert_eq!(ledger.records.trusted(id).unwrap().signers[0].state, revoked(at));
    assert_eq!(verdicts(&ledger), before + 3, "edges hear of each");
    let (project, name) = ("demo".parse().unwrap(), "ci".to_owned());
    let remove = SignatureChange::RemoveSigner { project, name };
    assert_eq!(change(&mut ledger, remove.clone()), Outcome::Done);
    assert_eq!(change(&mut ledger, remove), Outcome::NotFound);
    assert_eq!(ledger.records.trusted(id).unwrap().anchors, 2);
}

#[test]
fn edges_hear_of_signatures_where_a_project_demands_some() {
    let mut ledger = with_image();
    let tag = put(ledger.epoch(), 2, sig().as_str(), &[2]);
    assert_eq!(ledger.run(tag), Outcome::Done);
    change(&mut ledger, verified(evidence(2, Some(sig()), &[1]), vec![], None));
    assert_eq!(verdicts(&ledger), 0);
    let configure = Command::ConfigureProject {
        name: "demo".parse().unwrap(),
        epoch: ledger.epoch(),
        public: None,
        durability: None,
        proxy: crate::proxies::proxy::ProxyChange::default(),
        metadata: [(MODE.to_owned(), "enforce".to_owned())].into(),
    };
    assert_eq!(ledger.run(configure), Outcome::Done);
    change(&mut ledger, verified(evidence(2, Some(sig()), &[1]), vec![], None));
    assert_eq!(verdicts(&ledger), 0, "nothing is new");
    change(&mut ledger, verified(evidence(2, Some(sig()), &[1, 2]), vec![], None));
    assert_eq!(verdicts(&ledger), 1);
    let delete = Command::DeleteTag { epoch: ledger.epoch(), repository: place(), tag: sig() };
    assert_eq!(ledger.run(delete), Outcome::Done);
    assert_eq!(verdicts(&ledger), 2);
}

#[test]
fn an_exemption_has_a_reason_an_end_and_an_image() {
    let mut ledger = with_image();
    let exempt =
        |digest, exemption| SignatureChange::Exempt { repository: place(), digest, exemption };
    let of = |until: u64, why: &str| {
        Some(Exemption { until: Timestamp(until), why: why.into(), by: "ann".into() })
    };
    for (digest, exemption, fits) in [
        (image(), of(1_000_000, "an outage"), true),
        (image(), of(1_000_000, ""), false),
        (image(), of(1_000_000, "a\nb"), false),
        (image(), of(0, "an outage"), false),
        (image(), of(100 * 86_400_000, "an outage"), false),
        (Digest::sha256(b"other"), of(1_000_000, "an outage"), false),
    ] {
        let outcome = change(&mut ledger, exempt(digest, exemption.clone()));
        assert_eq!(outcome == Outcome::Done, fits, "{exemption:?}: {outcome:?}");
    }
    assert_eq!(change(&mut ledger, exempt(image(), None)), Outcome::Done);
    assert_eq!(change(&mut ledger, exempt(image(), None)), Outcome::NotFound);
    assert_eq!(known(&ledger, &image()), SignatureRecord::default());
}

#[test]
fn nothing_is_verified_below_the_level() {
    let mut ledger = Ledger::new();
    let raise = Command::RaiseLevel { level: Level(9), token_secret: vec![2].into() };
    ledger.run(raise);
    let tag = put(ledger.epoch(), 2, sig().as_str(), &[2]);
    assert_eq!(ledger.run(tag), Outcome::Done);
    assert!(queue(&ledger).is_empty());
    assert!(matches!(set(&mut ledger, "ci", State::Active, true), Outcome::Refused(_)));
}
