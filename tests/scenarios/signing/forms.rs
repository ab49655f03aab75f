//! Signatures in every form that are not as their form demands.

use std::collections::BTreeMap;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SubjectPublicKeyInfo, date_time_ymd,
};
use rules::words::moment::Timestamp;
use sign::making::{Claims, Identity, Made, SigningKey, classic, notation};

use super::*;

/// Stores what somebody has made for a tag or, without one, under its digest.
fn store(mesh: &Formed, reference: Option<&str>, made: Made) {
    let web = mesh.repository(0, "shop/web");
    for blob in made.blobs {
        web.upload(&Blob::of(blob)).unwrap_or_else(|no| panic!("{no}"));
    }
    let manifest = Blob::of(made.manifest);
    let reference = reference.unwrap_or(&manifest.digest);
    web.put_bytes(reference, MANIFEST, manifest.bytes.clone()).unwrap_or_else(|no| panic!("{no}"));
}

/// The same with another payload, which the key has signed, too.
fn with_payload(made: Made, key: &SigningKey, payload: String) -> Made {
    let mut manifest: Value = serde_json::from_slice(&made.manifest).expect("JSON");
    let layer = &mut manifest["layers"][0];
    layer["digest"] = Blob::of(payload.clone()).digest.into();
    layer["size"] = payload.len().into();
    let signature = base64::prelude::BASE64_STANDARD.encode(key.sign(payload.as_bytes()));
    layer["annotations"]["dev.cosignproject.cosign/signature"] = signature.into();
    let blobs = vec![payload.into_bytes(), made.blobs[1].clone()];
    Made { blobs, manifest: manifest.to_string().into_bytes(), ..made }
}

/// An authority, and certificates of the key by it that ended in 2021.
fn expired(key: &SigningKey) -> (String, Identity) {
    let params = |name: &str, from, to| {
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        params.distinguished_name = DistinguishedName::new();
        for (kind, text) in [(DnType::CountryName, "DE"), (DnType::CommonName, name)] {
            params.distinguished_name.push(kind, text);
        }
        (params.not_before, params.not_after) =
            (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        params
    };
    let mut of_root = params("root", 2020, 2060);
    of_root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    of_root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let root = CertifiedIssuer::self_signed(of_root, root).expect("a certificate");
    let mut of_leaf = params("leaf", 2020, 2021);
    of_leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    of_leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let public = SubjectPublicKeyInfo::from_pem(&key.public_pem()).expect("a public key");
    let leaf = of_leaf.signed_by(&public, &root).expect("a certificate");
    let chain = format!("{}{}", leaf.pem(), root.pem());
    (root.pem(), Identity::read(&chain, key).unwrap_or_else(|bad| panic!("{bad}")))
}

/// Whoever has the right key can still not say two things at once, say too much, or sign after its end.
#[test]
fn what_a_trusted_key_has_signed_counts_only_if_it_is_as_its_form_demands() {
    let secrets = tempfile::TempDir::with_prefix("atoll-forms-").expect("a temporary folder");
    let passphrase = secrets.path().join("passphrase");
    std::fs::write(&passphrase, "a long passphrase of the operator\n").expect("a file");
    let settings = format!("signing: {{passphrase_file: '{}'}}\n", passphrase.display());
    let mesh = Formed::of(&THREE[..1], &settings);
    create_project(&mesh.client(0), "shop", true, 1);
    set(&mesh, &json!({"signature_policy": "enforce"}));
    let (key, web) = (SigningKey::generate().expect("a key"), mesh.repository(0, "shop/web"));
    let (authority, identity) = expired(&key);
    for signer in [
        json!({"name": "ci", "key": key.public_pem()}),
        json!({"name": "old", "authority": {"certificates": authority}}),
    ] {
        let path = "/api/v2.0/projects/shop/signers";
        let answer = mesh.client(0).send_json(Method::POST, path, &signer);
        assert_eq!(answer.unwrap_or_else(|none| panic!("{none}")).status, 201);
    }
    let claims_of = |image: &Image| Claims {
        reference: "registry.example/shop/web:1".into(),
        subject: image.digest().parse().expect("a digest"),
        subject_size: image.manifest.bytes.len() as u64,
        subject_media_type: MANIFEST.into(),
        optional: BTreeMap::new(),
        timestamp: Timestamp(1_590_000_000_000),
    };
    let pushed = |layer: usize| {
        let image = Image::random(&[layer]);
        web.push(&image, &format!("t{layer}")).unwrap_or_else(|no| panic!("{no}"));
        image
    };
    let (good, twice, large, late) = (pushed(60), pushed(61), pushed(62), pushed(63));
    store(&mesh, Some(&tag_of(&good)), classic(&key, &claims_of(&good)));
    wait::until_ok("it is served", || served(&mesh, 0, good.digest()));
    served(&mesh, 0, good.digest()).unwrap_or_else(|no| panic!("{no}"));
    let metrics = mesh.client(0).get("/metrics").unwrap_or_else(|none| panic!("{none}")).body;
    let metrics = String::from_utf8_lossy(&metrics);
    assert!(metrics.contains("atoll_gate_decisions_total{from=\"memory\"}"), "{metrics}");
    let text = |made: &Made| String::from_utf8(made.blobs[0].clone()).expect("text");
    let made = classic(&key, &claims_of(&twice));
    let other = format!("\"docker-manifest-digest\":\"{}\",", good.digest());
    let name = "\"docker-manifest-digest\"";
    let said = text(&made).replacen(name, &format!("{other}{name}"), 1);
    assert_ne!(said, text(&made));
    store(&mesh, Some(&tag_of(&twice)), with_payload(made, &key, said));
    let made = classic(&key, &claims_of(&large));
    let said = text(&made) + &" ".repeat(64 << 10);
    store(&mesh, Some(&tag_of(&large)), with_payload(made, &key, said));
    store(&mesh, None, notation(&key, &identity, &claims_of(&late)));
    for (image, why) in [
        (&twice, "does not count: it is malformed"),
        (&large, "does not count: it is too large"),
        (&late, "a signature has expired on 2021-01-01"),
    ] {
        wait::until_ok("it is told", || refused(&mesh, 0, image.digest(), why));
    }

    // a file that would cost gigabytes to open is not opened
    let file = secrets.path().join("cosign.key");
    let json = json!({
        "kdf": {"name": "scrypt", "params": {"N": 1_u64 << 30, "r": 8, "p": 1}, "salt": "A".repeat(43) + "="},
        "cipher": {"name": "nacl/secretbox", "nonce": "A".repeat(32)}, "ciphertext": "AAAA",
    });
    let body = base64::prelude::BASE64_STANDARD.encode(json.to_string());
    let kind = "ENCRYPTED SIGSTORE PRIVATE KEY";
    std::fs::write(&file, format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n"))
        .expect("a file");
    let (file, of_it) = (file.display().to_string(), passphrase.display().to_string());
    let import = ["key", "--project", "shop", "--import", &file, "--passphrase-file", &of_it];
    let told = atoll(&mesh, 0, "sign", &import);
    assert!(!told.success && told.err.contains("1073741824"), "{told:?}");
}
