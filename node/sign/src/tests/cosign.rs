//! cosign's forms: each kind of key as each client signs with it, and everything that must not pass.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData};
use rules::policies::signatures::{COSIGN_SIGNATURE, Format, LONGEST_TEXT};
use serde_json::{Value, json};

use super::*;
use crate::layers::{self, BUNDLE, DSSE, SIGNATURE, SIMPLE};
use crate::making::{bundle, classic};
use crate::payload::dsse::to_sign;
use crate::union::{descriptor, write};
use crate::{BadAnchor, Shape, accessory, is_evidence};

/// The manifest of a `.sig` or `.att` tag.
fn tagged(ending: &'static str, kind: &str, payload: &[u8], signature: &[u8]) -> Case {
    let mut layer = descriptor(kind, payload);
    layer["annotations"] = json!({SIGNATURE: BASE64_STANDARD.encode(signature)});
    let (manifest, config) = write(vec![layer], serde_json::Map::new());
    Case { manifest, ending: Some(ending), blobs: vec![payload.to_vec(), config] }
}

/// A payload as cosign 2 writes it.
fn payload() -> Vec<u8> {
    payload_with(|_| {})
}

fn payload_with(change: impl Fn(&mut Value)) -> Vec<u8> {
    let mut payload = json!({
        "critical": {
            "identity": {"docker-reference": "registry.example/shop/web"},
            "image": {"docker-manifest-digest": subject().to_string()},
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    change(&mut payload);
    payload.to_string().into_bytes()
}

fn statement_with(predicate: &str, change: impl Fn(&mut Value)) -> Vec<u8> {
    let mut statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": subject().hex()}, "annotations": {}}],
        "predicateType": predicate,
        "predicate": {},
    });
    change(&mut statement);
    statement.to_string().into_bytes()
}

fn envelope(payload: &[u8], signature: &[u8]) -> Value {
    json!({
        "payload": BASE64_STANDARD.encode(payload),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": BASE64_STANDARD.encode(signature), "keyid": ""}],
    })
}

/// A bundle as cosign 3 writes it.
fn referrer(payload: &[u8], signature: &[u8], hint: &[u8]) -> Case {
    let bundle = json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": BASE64_STANDARD.encode(hint)}},
        "dsseEnvelope": envelope(payload, signature),
    });
    referrer_of(bundle.to_string().as_bytes())
}

fn referrer_of(bundle: &[u8]) -> Case {
    let manifest = json!({
        "schemaVersion": 2,
        "artifactType": BUNDLE,
        "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [descriptor(BUNDLE, bundle)],
        "subject": {"mediaType": "m", "digest": subject().to_string(), "size": 8},
    });
    Case {
        manifest: manifest.to_string().into_bytes(),
        ending: None,
        blobs: vec![bundle.to_vec(), b"{}".to_vec()],
    }
}

type Sign = dyn Fn(&[u8]) -> Vec<u8>;

/// A key, and the signatures that clients make with it.
struct Signer {
    name: &'static str,
    anchor: Anchor,
    sign: Box<Sign>,
}

impl Signer {
    fn of(name: &'static str, spki: &[u8], sign: impl Fn(&[u8]) -> Vec<u8> + 'static) -> Self {
        let pem = crate::anchor::to_pem("PUBLIC KEY", spki);
        let anchor = crate::anchor::key(&pem).expect("a key");
        Signer { name, anchor, sign: Box::new(sign) }
    }

    fn trust(&self) -> Anchors {
        Anchors::of(std::slice::from_ref(&self.anchor))
    }

    fn id(&self) -> AnchorId {
        match &self.anchor {
            Anchor::Key { id, .. } => *id,
            other => panic!("{other:?}"),
        }
    }
}

/// SHA-256 with P-384, as cosign 2 and skopeo sign.
fn p384_with_sha256(pkcs8: &[u8], message: &[u8]) -> Vec<u8> {
    use p384::ecdsa::signature::hazmat::PrehashSigner as _;
    use p384::pkcs8::DecodePrivateKey as _;
    let key = p384::ecdsa::SigningKey::from_pkcs8_der(pkcs8).expect("a key");
    let digest = Digest::sha256(message);
    let made: p384::ecdsa::Signature = key.sign_prehash(digest.as_bytes()).expect("a signature");
    made.to_der().as_bytes().to_vec()
}

/// Each row of the table of keys and clients.
fn signers() -> Vec<Signer> {
    let mut all = Vec::new();
    let pair = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pair.serialize_der());
    let key = key.expect("a key");
    all.push(Signer::of("P-256", &pair.subject_public_key_info(), move |message| {
        key.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
    }));
    let pair = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
    let (spki, pkcs8) = (pair.subject_public_key_info(), pair.serialize_der());
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &pkcs8).expect("a key");
    all.push(Signer::of("P-384 with SHA-384 (cosign 3)", &spki, move |message| {
        key.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
    }));
    all.push(Signer::of("P-384 with SHA-256 (cosign 2, skopeo)", &spki, move |message| {
        p384_with_sha256(&pkcs8, message)
    }));
    let key = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a key");
    let prefix = hex::decode("302a300506032b6570032100").expect("hex");
    let spki = [&prefix, key.public_key().as_ref()].concat();
    all.push(Signer::of("Ed25519 (cosign 2, skopeo)", &spki, move |message| {
        key.sign(message).as_ref().to_vec()
    }));
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    all.push(Signer::of("Ed25519ph (cosign 3)", &spki, move |message| {
        use sha2::Digest as _;
        let hashed = sha2::Sha512::new_with_prefix(message);
        key.sign_prehashed(hashed, None).expect("a signature").to_bytes().to_vec()
    }));
    let key = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key");
    let spki = rsa_info(key.public_key().as_ref());
    all.push(Signer::of("RSA", &spki, move |message| rsa(&key, &RSA_PKCS1_SHA256, message)));
    all
}

fn rsa(
    key: &RsaKeyPair,
    how: &'static dyn aws_lc_rs::signature::RsaEncoding,
    message: &[u8],
) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(how, &SystemRandom::new(), message, &mut signature).expect("a signature");
    signature
}

/// A SubjectPublicKeyInfo around an RSAPublicKey.
pub(super) fn rsa_info(pkcs1: &[u8]) -> Vec<u8> {
    let algorithm = hex::decode("300d06092a864886f70d0101010500").expect("hex");
    let length = |bytes: &[u8]| {
        let length = (bytes.len() as u16).to_be_bytes();
        [&[0x82][..], &length].concat()
    };
    let bits = [&[0][..], pkcs1].concat();
    let inner = [&algorithm[..], &[0x03], &length(&bits), &bits].concat();
    [&[0x30][..], &length(&inner), &inner].concat()
}

#[test]
fn every_kind_of_key_is_verified_in_every_form() {
    for signer in signers() {
        let (name, trust) = (signer.name, signer.trust());
        let payload = payload();
        let classic = tagged(".sig", SIMPLE, &payload, &(signer.sign)(&payload));
        let told = classic.verify(&trust);
        assert_eq!(good(&told), Some(signer.id()), "{name}: {told:?}");
        assert_eq!(told[0].format, Format::Cosign);
        assert_eq!(told[0].reference.as_deref(), Some("registry.example/shop/web"));

        let statement = statement_with(COSIGN_SIGNATURE, |_| {});
        let signature = (signer.sign)(&to_sign(&statement));
        let bundle = referrer(&statement, &signature, &signer.id().0);
        let told = bundle.verify(&trust);
        assert_eq!(good(&told), Some(signer.id()), "{name}: {told:?}");
        assert_eq!(told[0].predicate.as_deref(), Some(COSIGN_SIGNATURE));

        let attested = statement_with("https://spdx.dev/Document", |statement| {
            statement["_type"] = "https://in-toto.io/Statement/v0.1".into();
        });
        let signature = (signer.sign)(&to_sign(&attested));
        let attestation =
            tagged(".att", DSSE, envelope(&attested, &signature).to_string().as_bytes(), b"");
        let told = attestation.verify(&trust);
        assert_eq!(good(&told), Some(signer.id()), "{name}: {told:?}");
        assert_eq!(told[0].format, Format::Attestation);
        assert_eq!(told[0].predicate.as_deref(), Some("https://spdx.dev/Document"));

        let nobody = trust_of_nobody();
        for case in [&classic, &bundle, &attestation] {
            assert!(!counts(&case.verify(&nobody)), "{name}");
            let other = case.verify_for(&Digest::sha256(b"another image"), &trust);
            assert_eq!(fault(&other), Some(Fault::OtherDigest), "{name}");
        }
    }
}

fn trust_of_nobody() -> Anchors {
    trust(&signing_key())
}

/// The algorithm is the key's: an RSA key signs PKCS#1 v1.5 for cosign, whatever else it could.
#[test]
fn a_signature_of_another_algorithm_with_the_right_key_is_none() {
    let key = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key");
    let spki = rsa_info(key.public_key().as_ref());
    let payload = payload();
    let signature = rsa(&key, &RSA_PSS_SHA256, &payload);
    let signer = Signer::of("RSA", &spki, move |_| signature.clone());
    let case = tagged(".sig", SIMPLE, &payload, &(signer.sign)(&payload));
    assert!(!counts(&case.verify(&signer.trust())));
}

#[test]
fn only_keys_that_count_are_taken() {
    let key = |der: &[u8]| crate::anchor::key(&crate::anchor::to_pem("PUBLIC KEY", der));
    let small = rsa_info(
        &hex::decode(format!("30818902818100{}0203010001", "c1".repeat(128))).expect("hex"),
    );
    assert_eq!(key(&small), Err(BadAnchor::Key(crate::anchor::BadKey::Bits(1024))));
    let p521 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("a key");
    assert_eq!(
        key(&p521.subject_public_key_info()),
        Err(BadAnchor::Key(crate::anchor::BadKey::Kind))
    );
    assert_eq!(key(b"x"), Err(BadAnchor::Key(crate::anchor::BadKey::Form)));
    let good = signing_key().public_pem();
    let said = |text: &str| crate::anchor::key(text).map(|_| ()).expect_err("refused").to_string();
    assert!(said(&format!("{good}{good}")).contains("exactly one"));
    assert!(said("").contains("exactly one"));
    assert!(said(&good.replace("PUBLIC KEY", "CERTIFICATE")).contains("PUBLIC KEY is needed"));
    assert!(said(&good.replace("PUBLIC", "PRIVATE")).contains("replace it"));
    assert!(said(&good.repeat(200)).contains("at most"));
    assert!(said("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----").contains("PEM"));
    // a point that is not on the curve
    let mut off = pem::parse(&good).expect("PEM").into_contents();
    let last = off.len() - 1;
    off[last] ^= 1;
    assert_eq!(key(&off), Err(BadAnchor::Key(crate::anchor::BadKey::Form)));
    // bytes behind the key
    let mut long = pem::parse(&good).expect("PEM").into_contents();
    long.push(0);
    assert_eq!(key(&long), Err(BadAnchor::Key(crate::anchor::BadKey::Form)));
}

/// Signed by the right key, and yet no signature of the image.
#[test]
fn what_is_signed_must_be_as_its_form_demands() {
    let key = signing_key();
    let told = |payload: &[u8]| {
        let told = tagged(".sig", SIMPLE, payload, &key.sign(payload)).verify(&trust(&key));
        assert_eq!(told[0].by, By::Key(key.id()));
        fault(&told)
    };
    assert_eq!(told(&payload()), None);
    let twice = |field: &str| {
        let text = String::from_utf8(payload()).expect("text");
        let other = format!("\"docker-manifest-digest\":\"{}\"", Digest::sha256(b"another"));
        match field {
            "digest" => text.replace(
                "\"docker-manifest-digest\"",
                &format!("{other},\"docker-manifest-digest\""),
            ),
            "image" => text.replace("\"image\":", &format!("\"image\":{{{other}}},\"image\":")),
            _ => text.replace("\"optional\":null", "\"optional\":{\"a\":\"1\",\"a\":\"2\"}"),
        }
    };
    let long = "x".repeat(LONGEST_TEXT + 1);
    let wrong: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{}".to_vec(),
        b"[]".to_vec(),
        twice("digest").into_bytes(),
        twice("image").into_bytes(),
        twice("optional").into_bytes(),
        payload_with(|p| p["critical"]["type"] = "atomic container signature".into()),
        payload_with(|p| p["critical"]["extra"] = 1.into()),
        payload_with(|p| p["extra"] = 1.into()),
        payload_with(|p| p["critical"]["image"]["docker-manifest-digest"] = "sha256:1".into()),
        payload_with(|p| p["critical"]["identity"]["docker-reference"] = long.as_str().into()),
        [payload(), b"{}".to_vec()].concat(),
    ];
    for payload in wrong {
        let text = String::from_utf8_lossy(&payload).into_owned();
        assert!(matches!(told(&payload), Some(Fault::Malformed(_))), "{text}");
    }
    let other = payload_with(|p| {
        p["critical"]["image"]["docker-manifest-digest"] =
            Digest::sha256(b"other").to_string().into();
    });
    assert_eq!(told(&other), Some(Fault::OtherDigest));
}

#[test]
fn a_statement_must_be_of_the_image_and_in_order() {
    let key = signing_key();
    let told = |statement: &[u8]| {
        let signature = key.sign(&to_sign(statement));
        fault(&referrer(statement, &signature, &key.id().0).verify(&trust(&key)))
    };
    let with = |change: &dyn Fn(&mut Value)| statement_with(COSIGN_SIGNATURE, change);
    assert_eq!(told(&with(&|_| {})), None);
    // one of several subjects, with digests of other algorithms beside
    let several = with(&|s| {
        let wanted = s["subject"][0].clone();
        s["subject"] = json!([{"digest": {"gitCommit": "abc"}}, wanted]);
    });
    assert_eq!(told(&several), None);
    let others: [Value; 4] = [
        json!([]),
        json!([{"digest": {"sha256": Digest::sha256(b"other").hex()}}]),
        json!([{"digest": {"sha512": subject().hex()}}]),
        json!([{"name": subject().to_string()}]),
    ];
    for subjects in others {
        let other = with(&|s| s["subject"] = subjects.clone());
        assert_eq!(told(&other), Some(Fault::OtherDigest), "{subjects}");
    }
    let text = String::from_utf8(with(&|_| {})).expect("text");
    let twice = text.replace("\"sha256\":", "\"sha256\":\"00\",\"sha256\":");
    let types = text.replace("\"predicateType\":", "\"predicateType\":\"x\",\"predicateType\":");
    let wrong = [
        twice.into_bytes(),
        types.into_bytes(),
        with(&|s| s["_type"] = "https://in-toto.io/Statement/v2".into()),
        with(&|s| s["subject"] = 1.into()),
        with(&|s| s["predicateType"] = "x".repeat(LONGEST_TEXT + 1).into()),
        b"{}".to_vec(),
    ];
    for statement in wrong {
        let text = String::from_utf8_lossy(&statement).into_owned();
        assert!(matches!(told(&statement), Some(Fault::Malformed(_))), "{text}");
    }
}

/// An attestation of the same key is no signature: it is told which it is.
#[test]
fn an_attestation_says_what_it_attests() {
    let key = signing_key();
    let statement = statement_with("https://spdx.dev/Document", |_| {});
    let signature = key.sign(&to_sign(&statement));
    let told = referrer(&statement, &signature, &key.id().0).verify(&trust(&key));
    assert_eq!(told[0].predicate.as_deref(), Some("https://spdx.dev/Document"));
}

#[test]
fn a_bundle_must_be_as_its_form_demands() {
    let key = signing_key();
    let statement = statement_with(COSIGN_SIGNATURE, |_| {});
    let signature = key.sign(&to_sign(&statement));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut bundle = json!({
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": BASE64_STANDARD.encode(key.id().0)}},
            "dsseEnvelope": envelope(&statement, &signature),
        });
        change(&mut bundle);
        referrer_of(bundle.to_string().as_bytes()).verify(&trust(&key))
    };
    for media_type in [
        BUNDLE,
        "application/vnd.dev.sigstore.bundle.v0.4+json",
        "application/vnd.dev.sigstore.bundle+json;version=0.2",
    ] {
        assert_eq!(good(&with(&|b| b["mediaType"] = media_type.into())), Some(key.id()));
    }
    assert_eq!(good(&with(&|b| b["verificationMaterial"] = json!({}))), Some(key.id()));
    let broken = BASE64_STANDARD.encode(key.sign(b"something else"));
    let wrong = with(&|b| b["dsseEnvelope"]["signatures"][0]["sig"] = broken.as_str().into());
    assert_eq!(fault(&wrong), Some(Fault::Wrong), "it names a trusted key, which did not sign");
    let changes: [&dyn Fn(&mut Value); 9] = [
        &|b| b["mediaType"] = "application/vnd.dev.sigstore.bundle.v1.0+json".into(),
        &|b| b["dsseEnvelope"] = Value::Null,
        &|b| b["dsseEnvelope"]["payloadType"] = "text/plain".into(),
        &|b| b["dsseEnvelope"]["payload"] = "!".into(),
        &|b| b["dsseEnvelope"]["signatures"] = json!([]),
        &|b| b["dsseEnvelope"]["signatures"] = json!([{"sig": ""}, {"sig": ""}]),
        &|b| b["dsseEnvelope"]["signatures"] = json!([{"sig": "!"}]),
        &|b| b["verificationMaterial"] = Value::Null,
        &|b| *b = json!([]),
    ];
    for (number, change) in changes.iter().enumerate() {
        let told = with(change);
        assert!(matches!(fault(&told), Some(Fault::Malformed(_))), "{number}: {told:?}");
    }
}

#[test]
fn sizes_and_digests_are_checked_before_anything_is_read() {
    let key = signing_key();
    let made = classic(&key, &claims());
    let case = Case::of(made.clone(), Some(".sig"));
    let resized = |size: u64| {
        let text = String::from_utf8(made.manifest.clone()).expect("text");
        let text =
            text.replace(&format!("\"size\":{}", made.blobs[0].len()), &format!("\"size\":{size}"));
        Case { manifest: text.into_bytes(), ..case.clone() }
    };
    let large = resized((64 << 10) + 1);
    assert_eq!(large.evidence().map(|evidence| evidence.blobs), Some(vec![]));
    assert_eq!(fault(&large.verify(&trust(&key))), Some(Fault::TooLarge));
    let other_size = resized(made.blobs[0].len() as u64 + 1);
    assert!(matches!(fault(&other_size.verify(&trust(&key))), Some(Fault::Malformed(_))));
    let missing = Case { blobs: vec![], ..case.clone() };
    assert_eq!(fault(&missing.verify(&trust(&key))), Some(Fault::Missing));
    // another blob under the digest
    let evidence = case.evidence().expect("evidence");
    let wrong = vec![b'x'; made.blobs[0].len()];
    let blobs = BTreeMap::from([(evidence.blobs[0].0, Bytes::from(wrong))]);
    let told = verify(&case.manifest, &evidence, &blobs, &subject(), &trust(&key));
    assert!(matches!(fault(&told), Some(Fault::Malformed(_))));
    let bundle = bundle(&key, &claims());
    let text = String::from_utf8(bundle.manifest.clone()).expect("text");
    let text = text.replace(&format!("\"size\":{}", bundle.blobs[0].len()), "\"size\":1048577");
    let large = Case { manifest: text.into_bytes(), ..Case::of(bundle, None) };
    assert_eq!(fault(&large.verify(&trust(&key))), Some(Fault::TooLarge));
}

#[test]
fn no_more_than_64_signatures_are_read() {
    let key = signing_key();
    let layers: Vec<Value> = (0..100)
        .map(|number| {
            let payload = payload_with(|p| p["optional"] = json!({"number": number}));
            descriptor(SIMPLE, &payload)
        })
        .collect();
    let (manifest, _) = write(layers, serde_json::Map::new());
    let case = Case { manifest, ending: Some(".sig"), blobs: vec![] };
    assert_eq!(case.evidence().map(|evidence| evidence.blobs.len()), Some(64));
    assert_eq!(case.verify(&trust(&key)).len(), 64);
    // an envelope with many signatures cannot have more, either
    let statement = statement_with(COSIGN_SIGNATURE, |_| {});
    let mut many = envelope(&statement, &key.sign(&to_sign(&statement)));
    many["signatures"] = vec![many["signatures"][0].clone(); 16].into();
    let bytes = many.to_string();
    let mut case = tagged(".att", DSSE, bytes.as_bytes(), b"");
    assert_eq!(case.verify(&trust(&key)).len(), 16);
    let layers = (0..20).map(|_| descriptor(DSSE, bytes.as_bytes())).collect();
    case.manifest = write(layers, serde_json::Map::new()).0;
    assert_eq!(case.verify(&trust(&key)).len(), 64);
}

#[test]
fn manifests_with_signatures_are_recognised() {
    let key = signing_key();
    let classic = classic(&key, &claims()).manifest;
    let bundle = bundle(&key, &claims()).manifest;
    let shape = |manifest: &[u8], ending: Option<&str>| {
        evidence::read(manifest, ending).map(|evidence| evidence.format)
    };
    assert_eq!(shape(&classic, Some(".sig")), Some(Shape::Classic));
    assert_eq!(shape(&classic, Some(".att")), None);
    assert_eq!(shape(&classic, Some(".sbom")), None);
    assert_eq!(shape(&classic, None), None, "it is about nothing");
    assert_eq!(shape(&bundle, None), Some(Shape::Bundle));
    assert_eq!(accessory(&classic), Some("signature.cosign"));
    assert_eq!(accessory(&bundle), Some("signature.cosign"));
    let text = String::from_utf8(bundle).expect("text");
    let attests = text.replace(COSIGN_SIGNATURE, "https://spdx.dev/Document");
    assert_eq!(accessory(attests.as_bytes()), None);
    let about = |artifact_type: &str, config: &str, layer: &str| {
        let manifest = json!({
            "schemaVersion": 2,
            "artifactType": artifact_type,
            "config": descriptor(config, b"{}"),
            "layers": [descriptor(layer, b"x")],
            "subject": {"mediaType": "m", "digest": subject().to_string(), "size": 8},
        });
        manifest.to_string().into_bytes()
    };
    let empty = "application/vnd.oci.empty.v1+json";
    // cosign 2 with --registry-referrers-mode=oci-1-1; notation 1.3, which writes the config's type only
    let referrer = about("", layers::COSIGN_REFERRER, SIMPLE);
    assert_eq!(shape(&referrer, None), Some(Shape::CosignReferrer));
    assert_eq!(accessory(&referrer), Some("signature.cosign"));
    for notation in [about("", layers::NOTATION, layers::JWS), about(layers::NOTATION, empty, "x")]
    {
        assert_eq!(shape(&notation, None), Some(Shape::Notation));
        assert_eq!(accessory(&notation), Some("signature.notation"));
    }
    // what only says to be a signature is one in Harbor's lists, and told to be none here
    let forged = about(BUNDLE, empty, empty);
    let case = Case { manifest: forged.clone(), ending: None, blobs: vec![] };
    assert_eq!(accessory(&forged), Some("signature.cosign"));
    assert!(matches!(fault(&case.verify(&trust(&key))), Some(Fault::Malformed(_))));
    for other in [about("application/spdx+json", empty, "x"), b"{}".to_vec(), b"".to_vec()] {
        assert_eq!((shape(&other, None), accessory(&other)), (None, None));
    }
    for kind in [BUNDLE, layers::NOTATION, layers::COSIGN_REFERRER] {
        assert!(is_evidence(kind));
    }
    for kind in ["", "application/spdx+json", "application/vnd.dev.sigstore.bundle.v0.+json"] {
        assert!(!is_evidence(kind), "{kind}");
    }
}

/// A signature beside which another layer lies counts alone.
#[test]
fn one_bad_signature_does_not_spoil_the_others() {
    let (key, other) = (signing_key(), signing_key());
    let (good_one, bad) = (classic(&key, &claims()), classic(&other, &claims()));
    let joined = crate::union(&bad.manifest, &good_one.manifest).expect("a union");
    let blobs = [bad.blobs, good_one.blobs].concat();
    let case = Case { manifest: joined.manifest, ending: Some(".sig"), blobs };
    let told = case.verify(&trust(&key));
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].by, By::Unknown { hint: None });
    assert_eq!(good(&told[1..]), Some(key.id()));
}

/// The cases that are changed at random, all with one key.
pub(super) fn cases(key: &SigningKey) -> Vec<Case> {
    let statement = statement_with(COSIGN_SIGNATURE, |_| {});
    let envelope = envelope(&statement, &key.sign(&to_sign(&statement))).to_string();
    vec![
        Case::of(classic(key, &claims()), Some(".sig")),
        Case::of(bundle(key, &claims()), None),
        tagged(".att", DSSE, envelope.as_bytes(), b""),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// A changed envelope, with its digest set right, is never a signature of the image by the key,
    /// unless what was changed is no part of what is signed, and nothing of it panics.
    #[test]
    fn changed_bytes_never_become_another_signature(
        which in 0_usize..3, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let key = SigningKey::from_pkcs8(&PKCS8).expect("a key");
        let case = cases(&key).swap_remove(which);
        let old = case.blobs[0].clone();
        let mut new = old.clone();
        let at = at.index(new.len());
        if cut { new.truncate(at) } else { new[at] = byte }
        let before = case.verify(&trust(&key));
        let after = case.with(&old, &new).verify(&trust(&key));
        for one in after.iter().filter(|one| counts(std::slice::from_ref(*one))) {
            prop_assert_eq!(one.payload, before[0].payload);
            prop_assert_eq!(&one.claims, &before[0].claims);
            prop_assert_eq!(&one.predicate, &before[0].predicate);
        }
        if which == 0 && new != old {
            prop_assert!(!counts(&after), "every byte of a payload is signed");
        }
    }

    #[test]
    fn no_manifest_makes_anything_panic(
        which in 0_usize..3, at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let key = SigningKey::from_pkcs8(&PKCS8).expect("a key");
        let mut case = cases(&key).swap_remove(which);
        let at = at.index(case.manifest.len());
        let end = (at + bytes.len()).min(case.manifest.len());
        case.manifest.splice(at..end, bytes);
        let other = cases(&key).swap_remove(0).manifest;
        let _ = (case.verify(&trust(&key)), accessory(&case.manifest));
        let _ = (crate::union(&case.manifest, &other), crate::union(&other, &case.manifest));
    }
}

/// A key of which nothing depends, so that each run of the properties has the same one.
const PKCS8: [u8; 67] = [
    0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
    0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01,
    0x01, 0x04, 0x20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
];
