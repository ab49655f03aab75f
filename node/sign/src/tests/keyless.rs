//! Keyless signatures, with a Fulcio and a Rekor of the tests.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, CustomExtension, SanType};
use rules::policies::signatures::{COSIGN_SIGNATURE, LONGEST_TEXT};
use serde_json::{Value, json};

use super::issued::{Issued, Root};
use super::*;
use crate::layers::{BUNDLE, SIGNATURE, SIMPLE};
use crate::payload::dsse::to_sign;
use crate::payload::{simple, statement};
use crate::union::{descriptor, write};

/// 2026-06-01T12:00:00Z
const LOGGED: i64 = 1_780_315_200;
const ISSUER: &str = "https://accounts.example";
/// A change of an entry of the log, and of its time.
type Change<'a> = dyn Fn(&mut Value, &mut i64) + 'a;
/// A change of a proof that the log has an entry.
type Damage<'a> = dyn Fn(&mut Value) + 'a;

const SUBJECT: &str = "ci@example.com";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn identity(params: &mut CertificateParams) {
    params.subject_alt_names = vec![SanType::Rfc822Name(SUBJECT.try_into().expect("ASCII"))];
    let issuer = [&[0x0c, ISSUER.len() as u8], ISSUER.as_bytes()].concat();
    params.custom_extensions =
        vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 8], issuer)];
}

/// A mesh's own services: who certifies, and who logs.
struct Services {
    fulcio: Root,
    between: Root,
    rekor: SigningKey,
}

impl Services {
    fn new() -> Self {
        let fulcio = Root::new("fulcio");
        let between = fulcio.below("between", |_| {});
        Services { fulcio, between, rekor: signing_key() }
    }

    fn trust(&self) -> Anchors {
        self.trust_with(&self.rekor.public_pem())
    }

    fn trust_with(&self, rekor: &str) -> Anchors {
        let anchor = crate::anchor::keyless(&self.fulcio.pem(), rekor, ISSUER, "*@example.com");
        Anchors::of(&[anchor.expect("an anchor")])
    }

    fn by(&self) -> By {
        By::Identity {
            root: crate::keys::id(&self.fulcio.der()),
            issuer: ISSUER.into(),
            subject: SUBJECT.into(),
        }
    }

    /// What the log signs of an entry.
    fn promise(&self, body: &Value, at: i64) -> Logged {
        let body = encode(body.to_string());
        let log = self.rekor.id();
        let said =
            format!(r#"{{"body":"{body}","integratedTime":{at},"logID":"{log}","logIndex":7}}"#);
        Logged { body, at, promise: self.rekor.sign(said.as_bytes()), log: log.0 }
    }
}

impl Services {
    /// That the log has this entry: the second of three.
    fn proof(&self, body: &Value) -> Value {
        let hash = |parts: &[&[u8]]| Digest::sha256(&parts.concat()).as_bytes().to_vec();
        let body = body.to_string();
        let (first, last) = (hash(&[&[0], b"first"]), hash(&[&[0], b"last"]));
        let both = hash(&[&[1], &first, &hash(&[&[0], body.as_bytes()])]);
        let root = encode(hash(&[&[1], &both, &last]));
        json!({
            "logIndex": "1", "treeSize": "3", "rootHash": root,
            "hashes": [encode(first), encode(last)],
            "checkpoint": {"envelope": self.checkpoint(&format!("rekor.example - 1\n3\n{root}\n"))},
        })
    }

    fn checkpoint(&self, text: &str) -> String {
        let signature = [&self.rekor.id().0[..4], &self.rekor.sign(text.as_bytes())].concat();
        format!("{text}\n\u{2014} witness AAAAAAAA\n\u{2014} rekor.example {}\n", encode(signature))
    }
}

struct Logged {
    body: String,
    at: i64,
    promise: Vec<u8>,
    log: [u8; 32],
}

/// A signature of cosign 2: a layer with annotations.
fn classic(
    signer: &Issued,
    services: &Services,
    change: impl FnOnce(&mut Value, &mut i64),
) -> Case {
    let payload = simple::write("registry.example/shop/web", &subject(), &BTreeMap::new(), NOW);
    let signature = signer.sign_asn1(&payload);
    let mut body = json!({
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": Digest::sha256(&payload).hex()}},
            "signature": {"content": encode(&signature), "publicKey": {"content": encode(&signer.pem)}},
        },
    });
    let mut at = LOGGED;
    change(&mut body, &mut at);
    let logged = services.promise(&body, at);
    let entry = json!({
        "SignedEntryTimestamp": encode(&logged.promise),
        "Payload": {
            "body": logged.body, "integratedTime": logged.at, "logIndex": 7,
            "logID": hex::encode(logged.log),
        },
    });
    let mut layer = descriptor(SIMPLE, &payload);
    layer["annotations"] = json!({
        SIGNATURE: encode(&signature),
        "dev.sigstore.cosign/certificate": signer.pem,
        "dev.sigstore.cosign/chain": format!("{}{}", services.between.pem(), services.fulcio.pem()),
        "dev.sigstore.cosign/bundle": entry.to_string(),
    });
    let (manifest, config) = write(vec![layer], serde_json::Map::new());
    Case { manifest, ending: Some(".sig"), blobs: vec![payload, config] }
}

/// A signature of cosign 3: a bundle.
fn bundle(signer: &Issued, services: &Services, change: impl FnOnce(&mut Value)) -> Case {
    let payload = statement::write(&subject(), &BTreeMap::new());
    let signature = signer.sign_asn1(&to_sign(&payload));
    let body = json!({
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": "00"},
            "payloadHash": {"algorithm": "sha256", "value": Digest::sha256(&payload).hex()},
            "signatures": [{"signature": encode(&signature), "verifier": encode(&signer.pem)}],
        },
    });
    let logged = services.promise(&body, LOGGED);
    let proof = services.proof(&body);
    let mut bundle = json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {
            "x509CertificateChain": {"certificates": [
                {"rawBytes": encode(&signer.der)}, {"rawBytes": encode(services.between.der())},
            ]},
            "tlogEntries": [{
                "logIndex": "7", "logId": {"keyId": encode(logged.log)},
                "kindVersion": {"kind": "dsse", "version": "0.0.1"},
                "integratedTime": logged.at.to_string(),
                "inclusionPromise": {"signedEntryTimestamp": encode(&logged.promise)},
                "inclusionProof": proof,
                "canonicalizedBody": logged.body,
            }],
        },
        "dsseEnvelope": {
            "payload": encode(&payload), "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": encode(&signature)}],
        },
    });
    change(&mut bundle);
    let bundle = bundle.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "artifactType": BUNDLE, "layers": [descriptor(BUNDLE, &bundle)],
        "subject": {"mediaType": "m", "digest": subject().to_string(), "size": 8},
    });
    Case { manifest: manifest.to_string().into_bytes(), ending: None, blobs: vec![bundle] }
}

#[test]
fn an_identity_is_told_with_who_vouched_for_it() {
    let services = Services::new();
    let signer = services.between.signer(identity);
    for case in [classic(&signer, &services, |_, _| {}), bundle(&signer, &services, |_| {})] {
        let told = case.verify(&services.trust());
        let [one] = &told[..] else { panic!("{told:?}") };
        assert_eq!((&one.by, &one.fault), (&services.by(), &None));
        assert_eq!(one.signed.map(|at| at.0), Some(LOGGED as u64 * 1000), "when the log got it");
        assert_eq!(one.until, None, "the log shows that the certificate was valid");
        // without a log it counts only as long as its certificate
        let told = case.verify(&services.trust_with(""));
        assert_eq!((&told[0].by, told[0].until.is_some()), (&services.by(), true));
        assert_eq!(told[0].fault, None);
        let other = case.verify_for(&Digest::sha256(b"other"), &services.trust());
        assert_eq!(fault(&other), Some(Fault::OtherDigest));
        let stranger = case.verify(&Services::new().trust());
        assert_eq!((fault(&stranger), counts(&stranger)), (None, false));
        assert!(!counts(&case.verify(&trust(&services.rekor))));
    }
    let told = bundle(&signer, &services, |_| {}).verify(&services.trust());
    assert_eq!(told[0].predicate.as_deref(), Some(COSIGN_SIGNATURE));
}

/// The log must have promised this very signature, in the time of its certificate.
#[test]
fn what_the_log_says_must_be_of_this_signature() {
    let services = Services::new();
    let signer = services.between.signer(identity);
    let refused = |change: &dyn Fn(&mut Value, &mut i64)| match fault(
        &classic(&signer, &services, change).verify(&services.trust()),
    ) {
        Some(Fault::Chain(why)) => why,
        other => panic!("{other:?}"),
    };
    let other = encode(services.between.signer(identity).pem);
    let changes: [(&Change<'_>, &str); 8] = [
        (&|b, _| b["spec"]["signature"]["content"] = "AAAA".into(), "another signature"),
        (&|b, _| b["spec"]["data"]["hash"]["value"] = "00".into(), "another signature"),
        (&|b, _| b["spec"]["data"]["hash"]["algorithm"] = "sha512".into(), "another signature"),
        (&|b, _| b["spec"]["signature"]["publicKey"]["content"] = other.as_str().into(), "another"),
        (&|b, _| b["kind"] = "rekord".into(), "not known"),
        (&|b, _| *b = json!([]), "not known"),
        (&|_, at| *at += 365 * 86_400, "not when"),
        (&|_, at| *at -= 365 * 86_400, "not when"),
    ];
    for (number, (change, said)) in changes.iter().enumerate() {
        let why = refused(change);
        assert!(why.contains(said), "{number}: {why}");
    }
    // another log, or none
    let elsewhere = Services { rekor: signing_key(), ..Services::new() };
    let trust = services.trust_with(&elsewhere.rekor.public_pem());
    let told = classic(&signer, &services, |_, _| {}).verify(&trust);
    assert!(
        matches!(fault(&told), Some(Fault::Chain(why)) if why.contains("another transparency"))
    );
    let with = |change: &dyn Fn(&mut Value)| {
        fault(&bundle(&signer, &services, change).verify(&services.trust()))
    };
    let entry =
        |bundle: &mut Value| -> Value { bundle["verificationMaterial"]["tlogEntries"][0].take() };
    let none = with(&|b| drop(entry(b)));
    assert!(matches!(none, Some(Fault::Malformed(_))), "an entry that is null: {none:?}");
    let none = with(&|b| b["verificationMaterial"]["tlogEntries"] = json!([]));
    assert!(matches!(none, Some(Fault::Chain(why)) if why.contains("no entry")));
    let forged = with(&|b| b["verificationMaterial"]["tlogEntries"][0]["logIndex"] = "8".into());
    assert!(matches!(forged, Some(Fault::Chain(why)) if why.contains("not signed")));
    let broken = with(&|b| b["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA".into());
    assert_eq!(broken, Some(Fault::Wrong));
}

/// A bundle proves that the log has its entry, under a root that the log has signed.
#[test]
fn a_bundle_proves_that_the_log_has_its_entry() {
    let services = Services::new();
    let signer = services.between.signer(identity);
    let with = |change: &dyn Fn(&mut Value)| {
        let change = |bundle: &mut Value| {
            change(&mut bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]);
        };
        match fault(&bundle(&signer, &services, change).verify(&services.trust())) {
            Some(Fault::Chain(why) | Fault::Malformed(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let other = |text: &str| services.checkpoint(text);
    let forged = Services::new().proof(&json!("another"))["checkpoint"].clone();
    let changes: [(&Damage<'_>, &str); 9] = [
        (&|proof| *proof = Value::Null, "no proof"),
        (&|proof| proof["hashes"][0] = encode([7; 32]).into(), "does not prove"),
        (&|proof| proof["hashes"] = json!([]), "does not prove"),
        (&|proof| proof["logIndex"] = "0".into(), "does not prove"),
        (&|proof| proof["logIndex"] = "-1".into(), "not of the size"),
        (&|proof| proof["treeSize"] = "4".into(), "not of the size"),
        (&|proof| proof["checkpoint"] = forged.clone(), "has not signed the root"),
        (
            &|proof| {
                let root = encode([7; 32]);
                let text = format!("rekor.example - 1\n3\n{root}\n");
                proof["checkpoint"]["envelope"] = other(&text).into();
            },
            "does not prove",
        ),
        (
            &|proof| proof["checkpoint"]["envelope"] = other("rekor.example - 1\nx\n").into(),
            "cannot be read",
        ),
    ];
    for (number, (change, said)) in changes.iter().enumerate() {
        let why = with(change);
        assert!(why.contains(said), "{number}: {why}");
    }
}

#[test]
fn a_certificate_must_name_one_identity_and_be_for_signing_code() {
    let services = Services::new();
    let told = |signer: &Issued| classic(signer, &services, |_, _| {}).verify(&services.trust());
    let refused = |change: &dyn Fn(&mut CertificateParams)| {
        let signer = services.between.signer(|params| {
            identity(params);
            change(params);
        });
        match fault(&told(&signer)) {
            Some(Fault::Chain(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let another = SanType::URI("https://ci.example/job".try_into().expect("ASCII"));
    assert!(refused(&|p| p.subject_alt_names.push(another.clone())).contains("exactly one"));
    assert!(refused(&|p| p.subject_alt_names.clear()).contains("exactly one"));
    assert!(refused(&|p| p.custom_extensions.clear()).contains("vouches"));
    let long = format!("{}@example.com", "x".repeat(LONGEST_TEXT));
    let long = SanType::Rfc822Name(long.try_into().expect("ASCII"));
    assert!(refused(&|p| p.subject_alt_names = vec![long.clone()]).contains("long"));
    // one that is for servers is nobody's here
    let server = services.between.signer(|params| {
        identity(params);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert!(!counts(&told(&server)));
}

#[test]
fn keyless_anchors_are_checked_when_they_are_written() {
    let (fulcio, rekor) = (Root::new("fulcio").pem(), signing_key().public_pem());
    let keyless = crate::anchor::keyless;
    assert!(keyless(&fulcio, &rekor, ISSUER, "*").is_ok());
    assert!(keyless("", &rekor, ISSUER, "*").is_err());
    assert!(keyless(&fulcio, &fulcio, ISSUER, "*").is_err());
    assert!(keyless(&fulcio, &rekor, "", "*").is_err());
    assert!(keyless(&fulcio, &rekor, ISSUER, "").is_err());
    assert!(keyless(&fulcio, &rekor, &"x".repeat(LONGEST_TEXT + 1), "*").is_err());
}
