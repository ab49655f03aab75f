//! Signatures count while what they are in is there, and for whom a project trusts.

use super::leaving::at_newest;
use super::*;
use crate::ledger::change::Change;
use crate::ledger::records::key as records_key;
use crate::ledger::scanning::LookForScans;
use crate::ledger::sign_log::{Checked, LogEntry, LookForSigning, MeshKey, key as log_key};
use crate::ledger::signatures::{
    LookForSignatures, MOST_EVIDENCE, MOST_IN_ALL, SignatureChange, Unverified, key,
};
use crate::policies::signatures::metadata::MODE;
use crate::policies::signatures::{
    Anchor, AnchorId, By, Context, Evidence, Exemption, Format, Mode, Policy, Seen, Signature,
    SignatureRecord, Signer, State, counts,
};
use crate::words::digest::Digest;
use crate::words::manifest::Referrer;
use crate::words::names::Tag;

const KEY: AnchorId = AnchorId([1; 32]);

pub(super) fn place() -> RepositoryName {
    "demo/a".parse().unwrap()
}

pub(super) fn image() -> Digest {
    Digest::sha256(&[1, 0])
}

/// The tag of cosign's signatures of the image.
pub(super) fn sig() -> Tag {
    format!("{}.sig", image().to_string().replace(':', "-")).parse().unwrap()
}

pub(super) fn change(ledger: &mut Ledger, change: SignatureChange) -> Outcome {
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
    Seen { at: Timestamp(0), logged: None, signature }
}

pub(super) fn evidence(manifest: u8, tag: Option<Tag>, payloads: &[u8]) -> Evidence {
    let signatures = payloads.iter().map(|one| signature(By::Key(KEY), *one)).collect();
    Evidence { manifest: Digest::sha256(&[manifest, 0]), tag, is_text: true, signatures }
}

pub(super) fn verified(
    evidence: Evidence,
    children: Vec<Digest>,
    number: Option<u64>,
) -> SignatureChange {
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
pub(super) fn with_image() -> Ledger {
    let mut ledger = at_newest();
    let put = put(ledger.epoch(), 1, "v1", &[1]);
    assert_eq!(ledger.run(put), Outcome::Done);
    ledger
}

pub(super) fn signer(name: &str, state: State) -> Box<Signer> {
    Box::new(Signer {
        name: name.into(),
        anchor: Anchor::Key { id: KEY, pem: "pem".into() },
        formats: Vec::new(),
        predicates: Vec::new(),
        repositories: None,
        tags: None,
        logged: false,
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
    let counted = verdicts(&ledger);
    let delete = Command::DeleteManifest { epoch, repository, digest: image() };
    assert_eq!(ledger.run(delete), Outcome::Done);
    assert!(verdicts(&ledger) > counted, "edges hear of it: the same bytes may be pushed again");
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
        let evidence = Evidence { manifest, tag: None, is_text: true, signatures };
        assert_eq!(change(&mut ledger, verified(evidence, vec![], None)), Outcome::Done);
    }
    let record = known(&ledger, &image());
    assert_eq!(record.evidence.len(), MOST_EVIDENCE);
    assert!(record.evidence.iter().any(Evidence::is_known));
}

#[test]
fn a_signer_pushes_out_only_their_own_signatures() {
    let mut ledger = with_image();
    let kind = "application/vnd.dev.sigstore.bundle.v0.3+json";
    for n in 10..80_u8 {
        let put = referrer(&ledger, n, kind);
        assert_eq!(ledger.run(put), Outcome::Done);
    }
    let by = |n: u8, key: AnchorId, count: u8| Evidence {
        manifest: Digest::sha256(&[n, 0]),
        tag: None,
        is_text: true,
        signatures: (0..count).map(|_| signature(By::Key(key), n)).collect(),
    };
    let other = AnchorId([2; 32]);
    change(&mut ledger, verified(by(10, other, 1), vec![], None));
    for n in 11..80_u8 {
        assert_eq!(change(&mut ledger, verified(by(n, KEY, 4), vec![], None)), Outcome::Done);
    }
    let record = known(&ledger, &image());
    let all: usize = record.evidence.iter().map(|one| one.signatures.len()).sum();
    assert!(all <= MOST_IN_ALL && record.evidence.len() <= MOST_EVIDENCE, "{all}");
    assert_eq!(record.evidence[0], by(10, other, 1).at(&record.evidence[0]), "it is there still");
    assert_eq!(
        record.evidence.last().unwrap().manifest,
        Digest::sha256(&[79, 0]),
        "so is the last"
    );
}

trait At {
    fn at(self, other: &Evidence) -> Evidence;
}

impl At for Evidence {
    /// The same, first seen when the other was.
    fn at(mut self, other: &Evidence) -> Evidence {
        for (seen, known) in self.signatures.iter_mut().zip(&other.signatures) {
            seen.at = known.at;
        }
        self
    }
}

#[test]
fn only_an_index_that_somebody_has_signed_makes_what_it_lists_good_and_does_so_again() {
    let mut ledger = with_image();
    let child = Digest::sha256(&[9, 0]);
    let bundle = referrer(&ledger, 3, "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(ledger.run(bundle), Outcome::Done);
    let nobody = Evidence {
        manifest: Digest::sha256(&[3, 0]),
        tag: None,
        is_text: true,
        signatures: vec![signature(By::Unknown { hint: None }, 1)],
    };
    change(&mut ledger, verified(nobody, vec![child], None));
    assert!(known(&ledger, &child).parents.is_empty());
    change(&mut ledger, verified(evidence(3, None, &[1]), vec![child], None));
    assert_eq!(known(&ledger, &child).parents, [image()]);
    // the child is deleted and pushed again
    let epoch = ledger.epoch();
    assert_eq!(ledger.run(put(epoch, 9, "child", &[9])), Outcome::Done);
    let delete = Command::DeleteManifest { epoch, repository: place(), digest: child };
    assert_eq!(ledger.run(delete), Outcome::Done);
    assert_eq!(known(&ledger, &child).parents, [image()]);
}

#[test]
fn a_compromised_signer_stays_so() {
    let mut ledger = with_image();
    assert_eq!(set(&mut ledger, "ci", State::Active, true), Outcome::Done);
    let revoked =
        |compromised| State::Revoked { at: Timestamp(0), compromised, why: "stolen".into() };
    assert_eq!(set(&mut ledger, "ci", revoked(true), false), Outcome::Done);
    for state in [State::Active, State::VerifyOnly, State::Pending, revoked(false)] {
        assert!(matches!(set(&mut ledger, "ci", state, false), Outcome::Refused(_)));
    }
    // nor under another name, nor after it was removed
    assert!(matches!(set(&mut ledger, "again", State::Active, true), Outcome::Refused(_)));
    let (project, name) = ("demo".parse().unwrap(), "ci".to_owned());
    let remove = SignatureChange::RemoveSigner { project, name };
    assert!(matches!(change(&mut ledger, remove), Outcome::Refused(_)));
}

#[test]
fn a_compromised_signer_keeps_what_it_was() {
    let revoked = || State::Revoked { at: Timestamp(0), compromised: true, why: "stolen".into() };
    let put = |ledger: &mut Ledger, name: &str, anchor: Anchor, state, new| {
        let signer = Box::new(Signer { anchor, ..*signer(name, state) });
        let project = "demo".parse().unwrap();
        change(ledger, SignatureChange::SetSigner { project, signer, new })
    };
    let key = |id: u8| Anchor::Key { id: AnchorId([id; 32]), pem: "pem".into() };
    let mut ledger = with_image();
    assert_eq!(put(&mut ledger, "ci", key(1), State::Active, true), Outcome::Done);
    let id = ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap().id;
    let anchors = |ledger: &Ledger| ledger.records.trusted(id).unwrap().anchors;
    let before = anchors(&ledger);
    assert_eq!(put(&mut ledger, "ci", key(1), revoked(), false), Outcome::Done);
    assert_eq!(anchors(&ledger), before + 1, "certificates of its key are looked for");
    let other = put(&mut ledger, "ci", key(2), revoked(), false);
    assert!(matches!(&other, Outcome::Refused(why) if why.contains("keeps what it was")));
    assert!(matches!(put(&mut ledger, "re", key(1), State::Active, true), Outcome::Refused(_)));
    // as before this level, because logs are applied again
    let mut early = Ledger::new();
    assert_eq!(early.run(raise(Level::CACHED_SIGNATURES)), Outcome::Done);
    let put_first = super::put(early.epoch(), 1, "v1", &[1]);
    assert_eq!(early.run(put_first), Outcome::Done);
    assert_eq!(put(&mut early, "ci", key(1), revoked(), true), Outcome::Done);
    assert_eq!(put(&mut early, "ci", key(2), revoked(), false), Outcome::Done);

    // the same authority, or keyless identity, however it is written
    let authority = |ids: &[u8], subjects: &[&str]| Anchor::Authority {
        ids: ids.iter().map(|id| AnchorId([*id; 32])).collect(),
        pem: format!("{ids:?}"),
        timestamps: format!("{subjects:?}"),
        subjects: subjects.iter().map(|one| (*one).to_owned()).collect(),
    };
    let keyless = |ids: &[u8], rekor: &str| Anchor::Keyless {
        ids: ids.iter().map(|id| AnchorId([*id; 32])).collect(),
        pem: String::new(),
        rekor: rekor.into(),
        issuer: "https://idp".into(),
        subject: "ci@*".into(),
    };
    let stolen = authority(&[7, 8], &["O=Acme,C=DE", "CN=x"]);
    assert_eq!(put(&mut ledger, "nota", stolen, revoked(), true), Outcome::Done);
    let fulcio = keyless(&[9], "");
    assert_eq!(put(&mut ledger, "keyless", fulcio, revoked(), true), Outcome::Done);
    for same in [
        authority(&[8, 7], &["CN=x", "C=DE,O=Acme"]),
        authority(&[7, 8, 7], &["C=DE, O=Acme", "CN=x", "CN=x"]),
        keyless(&[9, 9], "another log"),
    ] {
        let again = put(&mut ledger, "again", same.clone(), State::Active, true);
        let Outcome::Refused(why) = &again else { panic!("{same:?}: {again:?}") };
        assert!(why.contains("which is compromised"), "{why}");
    }
    let others = authority(&[7, 8], &["CN=y"]);
    assert_eq!(put(&mut ledger, "others", others, State::Active, true), Outcome::Done);
}

#[test]
fn compromised_signers_take_no_place_of_others() {
    let mut ledger = with_image();
    let revoked = || State::Revoked { at: Timestamp(0), compromised: true, why: String::new() };
    let mut put = |n: u8, state| {
        let anchor = Anchor::Key { id: AnchorId([n; 32]), pem: "pem".into() };
        let signer = Box::new(Signer { anchor, ..*signer(&format!("s{n}"), state) });
        let project = "demo".parse().unwrap();
        change(&mut ledger, SignatureChange::SetSigner { project, signer, new: true })
    };
    for n in 0..50 {
        assert_eq!(put(n, revoked()), Outcome::Done, "{n}");
    }
    for n in 50..100 {
        assert_eq!(put(n, State::Active), Outcome::Done, "{n}");
    }
    assert!(matches!(put(100, State::Active), Outcome::Refused(_)));
}

#[test]
fn a_key_is_one_signer() {
    let mut ledger = with_image();
    assert_eq!(set(&mut ledger, "ci", State::Active, true), Outcome::Done);
    let again = set(&mut ledger, "twin", State::Active, true);
    assert!(matches!(&again, Outcome::Refused(why) if why.contains("as ci")), "{again:?}");
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
fn what_an_exempted_index_lists_is_served_with_it_and_signed_by_nobody_for_that() {
    let exempt = |children: &[u8]| SignatureChange::ExemptIndex {
        repository: place(),
        digest: image(),
        children: children.iter().map(|n| Digest::sha256(&[*n, 0])).collect(),
        exemption: Exemption { until: Timestamp(1_000_000), why: "night".into(), by: "ann".into() },
    };
    let mut early = Ledger::new();
    assert_eq!(early.run(raise(Level::CACHED_SCANS)), Outcome::Done);
    let put_first = put(early.epoch(), 1, "v1", &[1]);
    assert_eq!(early.run(put_first), Outcome::Done);
    assert!(matches!(change(&mut early, exempt(&[2])), Outcome::Refused(_)), "not at this level");
    assert_eq!(known(&early, &Digest::sha256(&[2, 0])), SignatureRecord::default());

    let mut ledger = with_image();
    let child = Digest::sha256(&[2, 0]);
    assert_eq!(change(&mut ledger, exempt(&[2, 3])), Outcome::Done);
    let id = ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap().id;
    let facts = ledger.records.signature_facts(id, &place(), &child).unwrap();
    assert!(facts.parents[0].exempt.is_some());
    assert!(facts.without_exemptions().parents[0].exempt.is_none());
    let end = || SignatureChange::Exempt { repository: place(), digest: image(), exemption: None };
    assert_eq!(change(&mut ledger, end()), Outcome::Done);
    assert_eq!(known(&ledger, &child), SignatureRecord::default());
    assert_eq!(known(&ledger, &image()), SignatureRecord::default());
    // its deletion ends it, too
    assert_eq!(change(&mut ledger, exempt(&[2])), Outcome::Done);
    let (epoch, repository, digest) = (ledger.epoch(), place(), image());
    ledger.run(Command::DeleteManifest { epoch, repository, digest });
    assert_eq!(known(&ledger, &child), SignatureRecord::default());
    assert_eq!(change(&mut ledger, exempt(&[2])), Outcome::NotFound);
}

fn mesh_key(version: u32) -> MeshKey {
    MeshKey {
        id: AnchorId([100 + version as u8; 32]),
        pem: "pem".into(),
        version,
        created: Timestamp(0),
        sealed: vec![1, 2, 3].into(),
    }
}

fn set_key(ledger: &mut Ledger, version: u32) -> Outcome {
    let (project, key) = ("demo".parse().unwrap(), Box::new(mesh_key(version)));
    change(ledger, SignatureChange::SetKey { project, key })
}

fn log(ledger: &mut Ledger, number: u64, key: u32, payload: u8) -> Outcome {
    let entry = LogEntry {
        number,
        repository: place(),
        subject: image(),
        reference: "host/demo/a:v1".into(),
        key: mesh_key(key).id,
        payloads: vec![Digest::sha256(&[payload])],
        epoch: Epoch::FIRST,
        node: NodeId(1),
        by: "ann".into(),
        at: Timestamp(0),
        before: Digest::sha256(b"a lie"),
    };
    change(ledger, SignatureChange::Log(Box::new(entry)))
}

#[test]
fn the_sign_log_takes_the_next_number_by_the_active_key_under_the_present_epoch() {
    let mut ledger = with_image();
    let id = ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap().id;
    assert!(matches!(log(&mut ledger, 1, 1, 1), Outcome::Refused(_)), "there is no key");
    assert_eq!(set_key(&mut ledger, 2), Outcome::PreconditionFailed);
    assert_eq!(set_key(&mut ledger, 1), Outcome::Done);
    assert_eq!(set_key(&mut ledger, 1), Outcome::PreconditionFailed, "of two, one is made");
    assert_eq!(log(&mut ledger, 2, 1, 1), Outcome::PreconditionFailed);
    assert_eq!(log(&mut ledger, 1, 1, 1), Outcome::Done);
    assert_eq!(log(&mut ledger, 1, 1, 2), Outcome::PreconditionFailed, "the number is taken");
    // a node that was primary, and does not know yet that it is not any more
    let old = ledger.epoch();
    let assign = Command::AssignPrimary {
        project: "demo".parse().unwrap(),
        node: NodeId(2),
        expect_epoch: old,
    };
    assert_eq!(ledger.run(assign), Outcome::Done);
    let entry = ledger.records.log_after(id, 0, 9).unwrap().remove(0);
    let late = SignatureChange::Log(Box::new(LogEntry { number: 2, ..entry }));
    let late = Change::Signatures(Box::new(late)).under(old);
    assert!(matches!(ledger.run(late), Outcome::StaleEpoch { .. }));
    assert_eq!(log(&mut ledger, 2, 1, 2), Outcome::Done);
    // another key: the one before signs nothing more
    assert_eq!(set_key(&mut ledger, 2), Outcome::Done);
    assert!(matches!(log(&mut ledger, 3, 1, 3), Outcome::Refused(_)));
    assert_eq!(log(&mut ledger, 3, 2, 3), Outcome::Done);
    let signers = ledger.records.trusted(id).unwrap().signers;
    let states: Vec<_> =
        signers.iter().map(|one| (one.name.as_str(), one.state.as_str())).collect();
    assert_eq!(states, [("mesh", "verify-only"), ("mesh-2", "active")]);
    // what somebody says of what came before does not count
    let entries = ledger.records.log_after(id, 0, 9).unwrap();
    assert_eq!(entries[1].before, entries[0].hash().unwrap());
    assert_eq!(entries[1].epoch, ledger.epoch());
    let head = ledger.records.log_head(id).unwrap();
    assert_eq!(ledger.records.check_log(id).unwrap(), Checked::Whole(head));
    // an entry that was changed, one that is missing, and an end that is missing
    let place = log_key::entry(id, 2);
    let kept = ledger.records.get(&place).unwrap().unwrap();
    let forged = LogEntry { by: "bob".into(), ..entries[1].clone() };
    ledger.records.put(&place, &encode(&forged).unwrap()).unwrap();
    assert_eq!(ledger.records.check_log(id).unwrap(), Checked::Broken(3));
    ledger.records.remove(&place).unwrap();
    assert_eq!(ledger.records.check_log(id).unwrap(), Checked::Broken(2));
    ledger.records.put(&place, &kept).unwrap();
    ledger.records.remove(&log_key::entry(id, 3)).unwrap();
    assert_eq!(ledger.records.check_log(id).unwrap(), Checked::Broken(3));
}

#[test]
fn a_signature_by_a_key_of_the_mesh_counts_only_if_the_log_has_it() {
    let mut ledger = with_image();
    let id = ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap().id;
    assert_eq!(set_key(&mut ledger, 1), Outcome::Done);
    assert_eq!(log(&mut ledger, 1, 1, 1), Outcome::Done);
    let tag = put(ledger.epoch(), 2, sig().as_str(), &[2]);
    assert_eq!(ledger.run(tag), Outcome::Done);
    let by = || By::Key(mesh_key(1).id);
    // the second was made with the key, and not by the mesh
    let signatures = vec![signature(by(), 1), signature(by(), 2)];
    let manifest = Digest::sha256(&[2, 0]);
    change(
        &mut ledger,
        verified(Evidence { manifest, tag: Some(sig()), is_text: true, signatures }, vec![], None),
    );
    let record = known(&ledger, &image());
    let logged: Vec<_> = record.evidence[0].signatures.iter().map(|one| one.logged).collect();
    assert_eq!(logged, [Some(1), None]);
    let signers = ledger.records.trusted(id).unwrap().signers;
    let policy = Policy { mode: Mode::Enforce, ..Policy::NOTHING };
    let (repository, now) = (place(), Timestamp(9));
    let context = Context {
        repository: &repository,
        cached: false,
        tag: None,
        tags: &[],
        pushed: Timestamp(0),
        now,
    };
    let judge = |seen: &Seen| counts(&policy, &signers, seen, &context);
    assert_eq!(judge(&record.evidence[0].signatures[0]), Ok(vec!["mesh", "mesh"]));
    assert!(judge(&record.evidence[0].signatures[1]).unwrap_err().contains("the sign log has no"));
    // nobody takes its place
    let renamed = SignatureChange::SetSigner {
        project: "demo".parse().unwrap(),
        signer: Box::new(Signer { logged: false, ..signers[0].clone() }),
        new: false,
    };
    assert!(matches!(change(&mut ledger, renamed), Outcome::Refused(_)));
    let other = Box::new(Signer {
        anchor: Anchor::Key { id: KEY, pem: "pem".into() },
        ..signers[0].clone()
    });
    let project = "demo".parse().unwrap();
    let other = SignatureChange::SetSigner { project, signer: other, new: false };
    assert!(matches!(change(&mut ledger, other), Outcome::Refused(_)));
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

#[test]
fn the_tags_that_name_an_image_or_its_index_decide_by_digest_about_a_signer_of_some_tags() {
    let mut ledger = with_image();
    let id = ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap().id;
    let child = Digest::sha256(&[9, 0]);
    let epoch = ledger.epoch();
    assert_eq!(ledger.run(put(epoch, 9, "child", &[9])), Outcome::Done);
    let tag = put(epoch, 2, sig().as_str(), &[2]);
    assert_eq!(ledger.run(tag), Outcome::Done);
    change(&mut ledger, verified(evidence(2, Some(sig()), &[1]), vec![child], None));
    let of = |ledger: &Ledger, digest: &Digest| {
        let facts = ledger.records.signature_facts_by_digest(id, &place(), digest).unwrap();
        facts.tags.map(|tags| tags.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(set(&mut ledger, "ci", State::Active, true), Outcome::Done);
    assert_eq!(of(&ledger, &image()), None, "it may sign every tag");
    let narrow = Signer {
        tags: Some(crate::policies::selectors::Pattern::new("v*").unwrap()),
        ..*signer("ci", State::Active)
    };
    let (project, signer) = ("demo".parse().unwrap(), Box::new(narrow));
    change(&mut ledger, SignatureChange::SetSigner { project, signer, new: false });
    assert_eq!(of(&ledger, &image()), Some(vec!["v1".to_owned()]));
    assert_eq!(of(&ledger, &child), Some(vec!["child".to_owned(), "v1".to_owned()]));
    // an edge is told no level, and reads the tags themselves
    ledger.records.remove(&records_key::level()).unwrap();
    assert_eq!(of(&ledger, &child), Some(vec!["child".to_owned(), "v1".to_owned()]));
}
