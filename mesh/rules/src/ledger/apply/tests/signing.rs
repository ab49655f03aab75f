//! The keys that the mesh signs with: their certificates, and who opens them.

use serde_bytes::ByteBuf;

use super::leaving::at_newest;
use super::*;
use crate::ledger::change::Change;
use crate::ledger::leaving::{Leaving, LeavingChange};
use crate::ledger::records::encode;
use crate::ledger::sign_due::{Due, LookForDue, Parts};
use crate::ledger::sign_log::{
    KekId, LookForSigning, MeshKey, NotationIdentity, key as log_key, sealed_head, sealed_under,
};
use crate::ledger::signatures::{LookForSignatures, Resealed, SignatureChange, key};
use crate::ledger::trust::{MOST_KEKS, TrustChange};
use crate::policies::signatures::{
    Anchor, AnchorId, By, Evidence, Format, Own, Seen, Signature, SignatureRecord, metadata,
};
use crate::words::digest::Digest;
use crate::words::names::{ProjectId, Tag};

const OLD: KekId = KekId([1; 8]);
const NEW: KekId = KekId([2; 8]);

fn change(ledger: &mut Ledger, change: SignatureChange) -> Outcome {
    let command = Change::Signatures(Box::new(change)).under(ledger.epoch());
    ledger.run(command)
}

fn id(ledger: &Ledger) -> ProjectId {
    ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap().id
}

fn sealed(under: Option<KekId>, what: u8) -> ByteBuf {
    ByteBuf::from([sealed_head(under), vec![what]].concat())
}

fn key_id(version: u32) -> AnchorId {
    let mut id = [7; 32];
    id[0] = version as u8;
    AnchorId(id)
}

fn set_key(ledger: &mut Ledger, version: u32) -> Outcome {
    let (id, pem) = (key_id(version), "pem".to_owned());
    let sealed = sealed(Some(OLD), version as u8);
    let key = Box::new(MeshKey { id, pem, version, created: Timestamp(0), sealed });
    change(ledger, SignatureChange::SetKey { project: "demo".parse().unwrap(), key })
}

fn identity(key: AnchorId, authority: u8) -> NotationIdentity {
    let authority = AnchorId([authority; 32]);
    let (chain, sealed) = ("chain".to_owned(), Some(sealed(Some(OLD), 0)));
    NotationIdentity { key, authority, chain, until: Timestamp(9), sealed }
}

fn set_identity(ledger: &mut Ledger, identity: NotationIdentity) -> Outcome {
    let (project, authority) = ("demo".parse().unwrap(), "pem".to_owned());
    let identity = Box::new(identity);
    change(ledger, SignatureChange::SetIdentity { project, identity, authority })
}

fn states(ledger: &Ledger) -> Vec<(String, &'static str)> {
    let signers = ledger.records.trusted(id(ledger)).unwrap().signers;
    signers.into_iter().map(|one| (one.name, one.state.as_str())).collect()
}

fn named(all: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    all.iter().map(|(name, state)| ((*name).to_owned(), *state)).collect()
}

/// An index within an index once was signed with its list, and what that lists was not looked at.
#[test]
fn all_that_an_image_lists_is_signed_with_it_however_deep_or_nothing_is() {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let mut ledger = at_newest();
    let repository: RepositoryName = "demo/a".parse().unwrap();
    let mut put = |media_type: &str, bytes: String| {
        let digest = Digest::sha256(bytes.as_bytes());
        let new = NewManifest {
            epoch: ledger.epoch(),
            repository: repository.clone(),
            digest,
            media_type: media_type.into(),
            bytes: bytes.into_bytes(),
            tags: vec![],
            blobs: vec![],
            subject: None,
        };
        assert_eq!(ledger.run(Command::PutManifest(new)), Outcome::Done);
        digest
    };
    let list = |all: &[Digest]| {
        let child = |digest: &Digest| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":2}}"#
            )
        };
        let all: Vec<_> = all.iter().map(child).collect();
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, all.join(","))
    };
    let image = put("application/vnd.oci.image.manifest.v1+json", "{}".into());
    let inner = put(INDEX, list(&[image]));
    let outer = put(INDEX, list(&[inner]));
    let broken = put(INDEX, list(&[outer, Digest::sha256(b"nowhere")]));
    let many: Vec<_> = (0..201_u32).map(|n| Digest::sha256(&n.to_be_bytes())).collect();
    let many = put(INDEX, list(&many));
    let project = ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap();
    let parts = |digest| ledger.records.parts_of(&project, &repository, digest).unwrap();
    let Parts::All(all) = parts(outer) else { panic!("{:?}", parts(outer)) };
    assert_eq!(all.iter().map(|one| one.digest).collect::<Vec<_>>(), [outer, inner, image]);
    assert!(matches!(parts(broken), Parts::Lacks(_)), "{:?}", parts(broken));
    assert!(!matches!(parts(many), Parts::All(_)), "{:?}", parts(many));
}

#[test]
fn certificates_are_of_the_key_that_signs_and_their_authority_outlives_it() {
    let mut ledger = at_newest();
    assert!(matches!(set_identity(&mut ledger, identity(key_id(1), 1)), Outcome::Refused(_)));
    assert_eq!(set_key(&mut ledger, 1), Outcome::Done);
    assert!(matches!(set_identity(&mut ledger, identity(key_id(2), 1)), Outcome::Refused(_)));
    let before = ledger.records.trusted(id(&ledger)).unwrap().anchors;
    assert_eq!(set_identity(&mut ledger, identity(key_id(1), 1)), Outcome::Done);
    assert_eq!(states(&ledger), named(&[("mesh", "active"), ("mesh-notation", "active")]));
    let trusted = ledger.records.trusted(id(&ledger)).unwrap();
    assert_eq!(trusted.anchors, before + 1, "all is verified against it");
    assert!(trusted.signers.iter().all(|signer| signer.logged));
    let own = Own::of(&trusted.signers).unwrap();
    assert_eq!((own.key, own.authority), (key_id(1), Some(AnchorId([1; 32]))));
    // the next key, of the same authority and then of another
    assert_eq!(set_key(&mut ledger, 2), Outcome::Done);
    assert!(matches!(set_identity(&mut ledger, identity(key_id(1), 1)), Outcome::Refused(_)));
    assert_eq!(set_identity(&mut ledger, identity(key_id(2), 1)), Outcome::Done);
    assert_eq!(set_identity(&mut ledger, identity(key_id(2), 9)), Outcome::Done);
    assert_eq!(
        states(&ledger),
        named(&[
            ("mesh", "verify-only"),
            ("mesh-notation", "verify-only"),
            ("mesh-2", "active"),
            ("mesh-notation-2", "active"),
        ])
    );
    assert!(matches!(set_identity(&mut ledger, identity(key_id(2), 1)), Outcome::Refused(_)));
    let kept = ledger.records.notation_identity(id(&ledger)).unwrap().unwrap();
    assert_eq!(kept, identity(key_id(2), 9));
    let long = NotationIdentity { chain: "x".repeat(20 << 10), ..identity(key_id(2), 9) };
    assert!(matches!(set_identity(&mut ledger, long), Outcome::Refused(_)));
}

#[test]
fn keys_are_sealed_anew_together_and_only_as_they_were() {
    let mut ledger = at_newest();
    set_key(&mut ledger, 1);
    set_key(&mut ledger, 2);
    set_identity(&mut ledger, identity(key_id(2), 1));
    let under = |ledger: &Ledger| {
        let keys = ledger.records.mesh_keys(id(ledger)).unwrap();
        let identity = ledger.records.notation_identity(id(ledger)).unwrap().unwrap();
        let all = keys.into_iter().map(|key| key.sealed).chain(identity.sealed);
        all.map(|sealed| sealed_under(&sealed).unwrap().0.unwrap()).collect::<Vec<_>>()
    };
    let one = |version: u32, was: KekId| Resealed {
        version,
        was: sealed(Some(was), version as u8),
        becomes: sealed(Some(NEW), version as u8),
    };
    let reseal = |ledger: &mut Ledger, keys: Vec<Resealed>| {
        change(ledger, SignatureChange::Reseal { project: "demo".parse().unwrap(), keys })
    };
    for wrong in [vec![one(1, OLD), one(2, NEW)], vec![one(3, OLD)]] {
        assert_eq!(reseal(&mut ledger, wrong), Outcome::PreconditionFailed);
        assert_eq!(under(&ledger), [OLD, OLD, OLD], "all or none");
    }
    let all = vec![one(1, OLD), one(2, OLD), one(0, OLD)];
    assert_eq!(reseal(&mut ledger, all.clone()), Outcome::Done);
    assert_eq!(under(&ledger), [NEW, NEW, NEW]);
    assert_eq!(reseal(&mut ledger, all), Outcome::PreconditionFailed, "they are not so any more");
    let signing = ledger.records.signing_projects().unwrap();
    assert_eq!(signing, [(id(&ledger), Some(NEW))].into());
}

#[test]
fn what_is_sealed_says_under_which_key_and_what_is_unknown_is_not_guessed() {
    assert_eq!(sealed_under(&sealed(None, 5)), Some((None, &[5][..])));
    assert_eq!(sealed_under(&sealed(Some(NEW), 5)), Some((Some(NEW), &[5][..])));
    for wrong in [&[][..], &[0, 1], &[3, 1, 2, 3, 4, 5, 6, 7, 8, 9], &[2, 1, 2]] {
        assert_eq!(sealed_under(wrong), None, "{wrong:?}");
    }
}

#[test]
fn only_listed_replicas_say_what_they_open() {
    let mut ledger = at_newest();
    let node = ledger.records.nodes().unwrap()[0].id;
    let opens = |ledger: &mut Ledger, node: NodeId, keks: Vec<KekId>| {
        ledger.run(Command::Trust(Box::new(TrustChange::Opens { node, keks })))
    };
    assert_eq!(opens(&mut ledger, node, vec![NEW, OLD]), Outcome::Done);
    assert_eq!(opens(&mut ledger, NodeId(4711), vec![NEW]), Outcome::NotFound);
    let many = vec![NEW; MOST_KEKS + 1];
    assert!(matches!(opens(&mut ledger, node, many), Outcome::Refused(_)));
    assert_eq!(ledger.records.opens().unwrap(), [(node, vec![NEW, OLD])].into());
    assert_eq!(opens(&mut ledger, node, vec![]), Outcome::Done);
    assert!(ledger.records.opens().unwrap().is_empty());
    let removed = Leaving { node: NodeId(3), removal: 1 };
    assert_eq!(opens(&mut ledger, removed.node, vec![NEW]), Outcome::Done);
    for step in [LeavingChange::Begin(removed), LeavingChange::Finish(removed)] {
        assert_eq!(ledger.records.opens().unwrap().len(), 1, "{step:?}");
        assert_eq!(ledger.run(Command::Leaving(step)), Outcome::Done);
    }
    assert!(ledger.records.opens().unwrap().is_empty(), "it is gone, and opens nothing");
    assert_eq!(
        Command::Trust(Box::new(TrustChange::Opens { node, keks: vec![] })).level(),
        Level::SIGNING
    );
    for place in
        [log_key::opens(node), log_key::identity(ProjectId(1)), log_key::keys(ProjectId(1))]
    {
        assert!(log_key::is_sealed(&place), "no edge is told");
    }
}

#[test]
fn a_key_that_is_imported_is_one_that_nobody_else_has_in_the_project() {
    let mut ledger = at_newest();
    assert_eq!(set_key(&mut ledger, 1), Outcome::Done);
    let again = MeshKey {
        id: key_id(1),
        pem: "pem".into(),
        version: 2,
        created: Timestamp(0),
        sealed: sealed(Some(OLD), 2),
    };
    let project = "demo".parse().unwrap();
    let again = SignatureChange::SetKey { project, key: Box::new(again) };
    let said = change(&mut ledger, again);
    assert!(matches!(&said, Outcome::Refused(why) if why.contains("as mesh")), "{said:?}");
    assert_eq!(set_key(&mut ledger, 2), Outcome::Done);
}

/// What is due is what the rule covers, and what was signed once under a name that it still has.
#[test]
fn what_is_due_follows_from_rule_keys_and_tags() {
    let mut ledger = at_newest();
    for (n, tag) in [(1, "v1"), (2, "latest")] {
        let put = put(ledger.epoch(), n, tag, &[n]);
        assert_eq!(ledger.run(put), Outcome::Done);
    }
    set_key(&mut ledger, 1);
    let repository: RepositoryName = "demo/a".parse().unwrap();
    let of = |n: u8| Digest::sha256(&[n, 0]);
    let project = |ledger: &Ledger, rule: Option<&str>| {
        let mut project = ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap();
        if let Some(rule) = rule {
            project.metadata.insert(metadata::AUTO.to_owned(), rule.to_owned());
        }
        project
    };
    let due = |ledger: &Ledger, rule: Option<&str>| {
        let project = project(ledger, rule);
        let signers = ledger.records.trusted(project.id).unwrap().signers;
        let own = Own::of(&signers).unwrap();
        let due = ledger.records.due_in(&project, &signers, &own, "host", &repository).unwrap();
        due.into_iter()
            .map(|Due { digest, tag, .. }| (digest, tag.map(|tag: Tag| tag.to_string())))
            .collect::<Vec<_>>()
    };
    let tagged = |n: u8, tag: &str| (of(n), Some(tag.to_owned()));
    assert_eq!(due(&ledger, None), []);
    assert_eq!(due(&ledger, Some("v*")), [tagged(1, "v1")]);
    assert_eq!(due(&ledger, Some("**")), [tagged(2, "latest"), tagged(1, "v1")]);
    // signed in both forms under this name, by this key
    let sign = |ledger: &mut Ledger, n: u8, key: AnchorId, names: &[&str]| {
        let mut signatures = Vec::new();
        for (entry, name) in names.iter().enumerate() {
            for (format, name) in [(Format::Cosign, Some(*name)), (Format::Bundle, None)] {
                let signature = Signature {
                    format,
                    by: By::Key(key),
                    fault: None,
                    predicate: None,
                    reference: name.map(str::to_owned),
                    signed: None,
                    until: None,
                    payload: Digest::sha256(b"payload"),
                    claims: Default::default(),
                };
                let logged = Some(entry as u64 + 1);
                signatures.push(Seen { at: Timestamp(0), logged, signature });
            }
        }
        let manifest = Digest::sha256(b"m");
        let evidence = vec![Evidence { manifest, tag: None, is_text: true, signatures }];
        let record = SignatureRecord { evidence, ..SignatureRecord::default() };
        let place = key::signatures(&"demo/a".parse().unwrap(), &of(n));
        ledger.records.put(&place, &encode(&record).unwrap()).unwrap();
    };
    sign(&mut ledger, 1, key_id(1), &["host/demo/a:v1"]);
    assert_eq!(due(&ledger, Some("v*")), []);
    // under another name it is due again, and the rule is not about what was signed by hand
    sign(&mut ledger, 2, key_id(1), &["host/demo/a:latest", "host/demo/a"]);
    assert_eq!(due(&ledger, Some("v*")), []);
    let again = put(ledger.epoch(), 1, "v2", &[1]);
    assert_eq!(ledger.run(again), Outcome::Done);
    assert_eq!(due(&ledger, Some("v*")), [tagged(1, "v2")]);
    // another key: all that was signed, under the names that are still theirs
    set_key(&mut ledger, 2);
    let expected = [tagged(2, "latest"), tagged(1, "v1"), (of(2), None)];
    assert_eq!(due(&ledger, None), expected);
    let mut only = Default::default();
    let signers = ledger.records.trusted(id(&ledger)).unwrap().signers;
    ledger.records.signed_only_by(&signers, &repository, &mut only).unwrap();
    assert_eq!(only, [("mesh".to_owned(), 2)].into());
    let moved = put(ledger.epoch(), 3, "latest", &[3]);
    assert_eq!(ledger.run(moved), Outcome::Done);
    assert_eq!(due(&ledger, None), [tagged(1, "v1"), (of(2), None)], "the tag names another image");
    assert!(matches!(signers[0].anchor, Anchor::Key { .. }));
}
