//! notation's forms.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use coset::cbor::value::Value as Cbor;
use coset::{
    CoseSign1Builder, HeaderBuilder, RegisteredLabelWithPrivate, TaggedCborSerializable, iana,
};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    date_time_ymd,
};
use rules::policies::signatures::Format;
use rules::words::moment;
use serde_json::{Value, json};

use super::issued::{Issued, Root, self_signed};
use super::*;
use crate::layers::{COSE, JWS, NOTATION};
use crate::union::descriptor;

/// A change of the signed headers, and of the payload.
type Change = dyn Fn(&mut Value, &mut Value);

/// When the envelopes are signed.
const SIGNED: &str = "2026-06-01T12:00:00+02:00";

pub(super) fn referrer(media_type: &str, envelope: &[u8]) -> Case {
    let manifest = json!({
        "schemaVersion": 2,
        "config": descriptor(NOTATION, b"{}"),
        "layers": [descriptor(media_type, envelope)],
        "subject": {"mediaType": "m", "digest": subject().to_string(), "size": 8},
    });
    Case {
        manifest: manifest.to_string().into_bytes(),
        ending: None,
        blobs: vec![envelope.to_vec()],
    }
}

fn target() -> Value {
    json!({"targetArtifact": {
        "mediaType": "m", "digest": subject().to_string(), "size": 8,
        "annotations": {"build": "17"},
    }})
}

fn protected() -> Value {
    json!({
        "alg": "ES256",
        "cty": "application/vnd.cncf.notary.payload.v1+json",
        "crit": ["io.cncf.notary.signingScheme"],
        "io.cncf.notary.signingScheme": "notary.x509",
        "io.cncf.notary.signingTime": SIGNED,
    })
}

/// A JSON web signature, with a timestamp that is made of its signature.
pub(super) fn jws(
    signer: &Issued,
    chain: &[&[u8]],
    change: impl FnOnce(&mut Value, &mut Value),
    stamp: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Vec<u8> {
    let (mut protected, mut payload) = (protected(), target());
    change(&mut protected, &mut payload);
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let (protected, payload) = (encode(&protected), encode(&payload));
    let signature = signer.sign_fixed(format!("{protected}.{payload}").as_bytes());
    let chain: Vec<String> = chain.iter().map(|der| BASE64_STANDARD.encode(der)).collect();
    let mut header = json!({"x5c": chain, "io.cncf.notary.signingAgent": "test/1"});
    if let Some(token) = stamp(&signature) {
        header["io.cncf.notary.timestampSignature"] = BASE64_STANDARD.encode(token).into();
    }
    let envelope = json!({
        "payload": payload, "protected": protected, "header": header,
        "signature": BASE64_URL_SAFE_NO_PAD.encode(signature),
    });
    envelope.to_string().into_bytes()
}

fn plain(signer: &Issued, chain: &[&[u8]]) -> Vec<u8> {
    jws(signer, chain, |_, _| {}, |_| None)
}

/// COSE_Sign1.
fn cose(
    signer: &Issued,
    chain: &[&[u8]],
    change: impl FnOnce(coset::Header) -> coset::Header,
) -> Vec<u8> {
    let time = Cbor::Tag(1, Box::new(Cbor::from(1_780_308_000)));
    let mut protected = HeaderBuilder::new()
        .algorithm(iana::Algorithm::ES256)
        .content_type("application/vnd.cncf.notary.payload.v1+json".into())
        .text_value("io.cncf.notary.signingScheme".into(), Cbor::from("notary.x509"))
        .text_value("io.cncf.notary.signingTime".into(), time)
        .build();
    protected.crit = vec![RegisteredLabelWithPrivate::Text("io.cncf.notary.signingScheme".into())];
    let chain = chain.iter().map(|der| Cbor::from(*der)).collect();
    let unprotected = HeaderBuilder::new().value(33, Cbor::Array(chain)).build();
    let message = CoseSign1Builder::new()
        .protected(change(protected))
        .unprotected(unprotected)
        .payload(target().to_string().into_bytes())
        .create_signature(&[], |bytes| signer.sign_fixed(bytes));
    message.build().to_tagged_vec().expect("CBOR")
}

pub(super) fn store(pem: &str, timestamps: &str) -> Anchors {
    Anchors::of(&[crate::anchor::authority(pem, timestamps, &[]).expect("an authority")])
}

fn at(text: &str) -> Option<Timestamp> {
    moment::read(text)
}

#[test]
fn both_envelopes_are_verified_and_lead_to_their_authority() {
    let root = Root::new("root");
    let between = root.below("between", |_| {});
    let signer = between.signer(|_| {});
    let chain = [signer.der.as_slice(), &between.der(), &root.der()];
    let (jws, cose) = (plain(&signer, &chain), cose(&signer, &chain, |header| header));
    for (format, case) in
        [(Format::NotationJws, referrer(JWS, &jws)), (Format::NotationCose, referrer(COSE, &cose))]
    {
        for trusted in [&root, &between] {
            let told = case.verify(&store(&trusted.pem(), ""));
            let [one] = &told[..] else { panic!("{told:?}") };
            let by = By::Certificate {
                root: crate::keys::id(&trusted.der()),
                subject: "CN=signer,O=Example,C=DE".into(),
            };
            assert_eq!((&one.by, &one.fault), (&by, &None), "{format}");
            assert_eq!(one.format, format);
            assert_eq!(one.signed, at("2026-06-01T10:00:00Z"));
            assert_eq!(one.until, at("2027-01-01"), "its certificates end then");
            assert_eq!(one.claims["build"], "17");
        }
        // the certificate of the signer alone is as good
        assert!(counts(&case.verify(&store(&signer.pem, ""))));
        let nobody = case.verify(&store(&Root::new("root").pem(), ""));
        assert_eq!(nobody[0].by, By::Unknown { hint: Some(crate::keys::id(&root.der())) });
        assert_eq!(fault(&nobody), None);
        let other = case.verify_for(&Digest::sha256(b"other"), &store(&root.pem(), ""));
        assert_eq!(fault(&other), Some(Fault::OtherDigest));
    }
}

#[test]
fn two_that_trust_the_same_chain_are_both_told() {
    let root = Root::new("root");
    let signer = root.signer(|_| {});
    let case = referrer(JWS, &plain(&signer, &[&signer.der, &root.der()]));
    let anchors = [&root.pem(), &signer.pem, &root.pem()]
        .map(|pem| crate::anchor::authority(pem, "", &[]).expect("an authority"));
    let told = case.verify(&Anchors::of(&anchors));
    assert_eq!(told.len(), 2, "each once");
    assert!(told.iter().all(|one| counts(std::slice::from_ref(one))));
}

#[test]
fn a_certificate_that_signed_itself_signs_alone() {
    let signer = self_signed();
    let case = referrer(JWS, &plain(&signer, &[&signer.der]));
    assert!(counts(&case.verify(&store(&signer.pem, ""))));
    assert!(!counts(&case.verify(&store(&self_signed().pem, ""))));
}

#[test]
fn chains_must_be_for_signing_code() {
    let root = Root::new("root");
    let refused = |chain: &[&[u8]], signer: &Issued| match fault(
        &referrer(JWS, &plain(signer, chain)).verify(&store(&root.pem(), "")),
    ) {
        Some(Fault::Chain(why)) => why,
        other => panic!("{other:?}"),
    };
    let changed = |change: &dyn Fn(&mut CertificateParams)| {
        let signer = root.signer(change);
        refused(&[&signer.der, &root.der()], &signer)
    };
    let server = |p: &mut CertificateParams| {
        p.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    };
    assert!(changed(&server).contains("something else"));
    let stamps = |p: &mut CertificateParams| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::TimeStamping];
    };
    assert!(changed(&stamps).contains("something else"));
    let any =
        |p: &mut CertificateParams| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    assert!(changed(&any).contains("not for signing code"));
    let encrypts = |p: &mut CertificateParams| p.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    assert!(changed(&encrypts).contains("something else than sign"));
    assert!(changed(&|p| p.key_usages.clear()).contains("may not sign"));
    let authority = |p: &mut CertificateParams| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert!(changed(&authority).contains("authority's certificate"));
    assert!(changed(&|p| p.not_before = date_time_ymd(2026, 7, 1)).contains("not valid yet"));

    let signer = root.signer(|_| {});
    let other = Root::new("root");
    assert!(refused(&[&signer.der], &signer).contains("does not end"));
    assert!(refused(&[&signer.der, &other.der()], &signer).contains("not issued"));
    assert!(refused(&[&signer.der, &root.der(), &root.der()], &signer).contains("before the last"));
    assert!(refused(&[signer.der.as_slice(); 11], &signer).contains("11 certificates"));
    // authorities between them
    let depth = root.below("between", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let (deep, deeper) = (depth.below("deep", |_| {}), depth.signer(|_| {}));
    let signer = deep.signer(|_| {});
    let chain = [signer.der.as_slice(), &deep.der(), &depth.der(), &root.der()];
    assert!(refused(&chain, &signer).contains("longer"));
    let fits = [deeper.der.as_slice(), &depth.der(), &root.der()];
    assert!(counts(&referrer(JWS, &plain(&deeper, &fits)).verify(&store(&root.pem(), ""))));
    let powerless = root.below("between", |p| p.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let signer = powerless.signer(|_| {});
    let chain = [signer.der.as_slice(), &powerless.der(), &root.der()];
    assert!(refused(&chain, &signer).contains("may not sign certificates"));
    let no_authority = root.below("between", |p| p.is_ca = IsCa::ExplicitNoCa);
    let signer = no_authority.signer(|_| {});
    let chain = [signer.der.as_slice(), &no_authority.der(), &root.der()];
    assert!(refused(&chain, &signer).contains("no authority's"));
}

/// What must be in the signed headers, and what a plugin could demand there.
#[test]
fn headers_must_be_as_their_form_demands() {
    let root = Root::new("root");
    let signer = root.signer(|_| {});
    let chain = [signer.der.as_slice(), &root.der()];
    let told = |change: &Change| {
        let envelope = jws(&signer, &chain, change, |_| None);
        referrer(JWS, &envelope).verify(&store(&root.pem(), ""))
    };
    let expiring = told(&|p, _| {
        p["crit"] = json!(["io.cncf.notary.signingScheme", "io.cncf.notary.expiry"]);
        p["io.cncf.notary.expiry"] = "2026-06-02T00:00:00Z".into();
    });
    assert_eq!((expiring[0].until, &expiring[0].fault), (at("2026-06-02"), &None));
    let wrong: [&Change; 15] = [
        &|p, _| p["alg"] = "ES384".into(),
        &|p, _| p["alg"] = "none".into(),
        &|p, _| p["alg"] = "HS256".into(),
        &|p, _| p["cty"] = "text/plain".into(),
        &|p, _| p["crit"] = json!([]),
        &|p, _| {
            p["crit"] = json!(["io.cncf.notary.signingScheme", "io.cncf.notary.verificationPlugin"])
        },
        &|p, _| p["io.cncf.notary.signingScheme"] = "notary.x509.signingAuthority".into(),
        &|p, _| p["io.cncf.notary.signingTime"] = Value::Null,
        &|p, _| p["io.cncf.notary.signingTime"] = "yesterday".into(),
        &|p, _| p["io.cncf.notary.expiry"] = "2026-07-01T00:00:00Z".into(),
        &|p, _| {
            p["crit"] = json!(["io.cncf.notary.signingScheme", "io.cncf.notary.expiry"]);
            p["io.cncf.notary.expiry"] = SIGNED.into();
        },
        &|_, t| t["targetArtifact"]["digest"] = "sha256:1".into(),
        &|_, t| t["more"] = 1.into(),
        &|_, t| *t = json!([]),
        &|_, t| t["targetArtifact"]["annotations"] = 1.into(),
    ];
    for (number, change) in wrong.iter().enumerate() {
        let told = told(change);
        assert!(matches!(fault(&told), Some(Fault::Malformed(_))), "{number}: {told:?}");
    }
    let cose = |change: &dyn Fn(&mut coset::Header)| {
        let envelope = cose(&signer, &chain, |mut header| {
            change(&mut header);
            header
        });
        fault(&referrer(COSE, &envelope).verify(&store(&root.pem(), "")))
    };
    assert_eq!(cose(&|_| {}), None);
    let wrong: [&dyn Fn(&mut coset::Header); 6] = [
        &|h| h.alg = None,
        &|h| h.alg = Some(RegisteredLabelWithPrivate::Assigned(iana::Algorithm::ES384)),
        &|h| h.content_type = None,
        &|h| h.crit.push(RegisteredLabelWithPrivate::Text("plugin".into())),
        &|h| h.rest.clear(),
        &|h| h.rest.truncate(1),
    ];
    for (number, change) in wrong.iter().enumerate() {
        let told = cose(change);
        assert!(matches!(told, Some(Fault::Malformed(_))), "{number}: {told:?}");
    }
}

#[test]
fn a_signature_of_other_bytes_or_by_another_key_is_wrong() {
    let root = Root::new("root");
    let (signer, other) = (root.signer(|_| {}), root.signer(|_| {}));
    let trust = store(&root.pem(), "");
    let case = referrer(JWS, &plain(&other, &[&signer.der, &root.der()]));
    assert_eq!(fault(&case.verify(&trust)), Some(Fault::Wrong));
    let case = referrer(COSE, &cose(&other, &[&signer.der, &root.der()], |header| header));
    assert_eq!(fault(&case.verify(&trust)), Some(Fault::Wrong));
    for (kind, envelope) in [(JWS, "{}"), (JWS, ""), (COSE, ""), (COSE, "\u{0}")] {
        let told = referrer(kind, envelope.as_bytes()).verify(&trust);
        assert!(matches!(fault(&told), Some(Fault::Malformed(_))), "{told:?}");
    }
}

#[test]
fn authorities_are_checked_when_they_are_written() {
    let root = Root::new("root");
    let authority = |pem: &str, subjects: &[&str]| {
        let subjects: Vec<String> = subjects.iter().map(|text| (*text).to_owned()).collect();
        crate::anchor::authority(pem, "", &subjects)
    };
    let Ok(Anchor::Authority { ids, pem, subjects, .. }) = authority(
        &format!("{}{}", root.pem(), root.pem()),
        &["x509.subject: C=DE, O=Example\\, Inc., cn = signer"],
    ) else {
        panic!("it is accepted")
    };
    assert_eq!(ids, [crate::keys::id(&root.der())], "each once");
    assert_eq!(pem::parse_many(&pem).map(|all| all.len()), Ok(1));
    assert_eq!(subjects, ["C=DE,O=Example\\, Inc.,CN=signer"]);
    for wrong in ["", "C", "=DE", "C=", "C=DE,,O=x", "*"] {
        assert!(authority(&root.pem(), &[wrong]).is_err(), "{wrong}");
    }
    assert!(authority("", &[]).is_err());
    assert!(authority(&signing_key().public_pem(), &[]).is_err());
    assert!(authority(&root.pem(), &["C=DE"; 17]).is_err());
    let many: String = (0..17).map(|n| Root::new(&n.to_string()).pem()).collect();
    assert!(authority(&many, &[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Changed envelopes neither panic nor become a signature of something else.
    #[test]
    fn changed_envelopes_never_become_another_signature(
        is_jws in any::<bool>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        thread_local! {
            static MADE: (Root, Vec<u8>, Vec<u8>) = {
                let root = Root::new("root");
                let signer = root.signer(|_| {});
                let chain = [signer.der.as_slice(), &root.der()];
                let (jws, cose) = (plain(&signer, &chain), cose(&signer, &chain, |header| header));
                (root, jws, cose)
            };
        }
        MADE.with(|(root, jws, cose)| {
            let (kind, envelope) = if is_jws { (JWS, jws) } else { (COSE, cose) };
            let before = referrer(kind, envelope).verify(&store(&root.pem(), ""));
            let mut changed = envelope.clone();
            let at = at.index(changed.len());
            if cut { changed.truncate(at) } else { changed[at] = byte }
            let after = referrer(kind, &changed).verify(&store(&root.pem(), ""));
            for one in after.iter().filter(|one| counts(std::slice::from_ref(*one))) {
                prop_assert_eq!(one, &before[0]);
            }
            Ok(())
        })?;
    }
}
