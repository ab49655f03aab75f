//! What cosign, skopeo and notation sign is read back as what it is, and what the mesh signs is accepted
//! by each of them.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use bytes::Bytes;
use rules::policies::signatures::{Anchor, By, COSIGN_SIGNATURE, Fault, Format, Signature};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use serde_json::json;
use sign::making::{Claims, Identity, Made, SigningKey, bundle, classic, cosign_key, notation};
use sign::{Anchors, evidence, union, verify};
use tests::image::{Blob, Image, MANIFEST, write_layout};
use tests::mesh::Mesh;
use tests::process::{self, Finished};
use tests::repository::Repository;
use tests::signers::{KeyPair, PASSPHRASE, Signers};
use tests::sigstore::{self, Sigstore, serve_timestamps};
use tests::tools;

/// A predicate that is no signature.
const SPDX: &str = "https://spdx.dev/Document";

/// A mesh and the programs that sign there.
struct Stage {
    mesh: Mesh,
    signers: Signers,
}

/// What a registry has of signatures.
struct Stored {
    manifest: Bytes,
    ending: Option<&'static str>,
    blobs: BTreeMap<Digest, Bytes>,
}

impl Stage {
    fn new() -> Self {
        let mesh = Mesh::up(1);
        let client = mesh.client(0);
        let (user, password) = mesh.admin();
        let signers = Signers::new(client.authority(), user, password);
        Self { mesh, signers }
    }

    fn repository(&self, name: &str) -> Repository {
        self.mesh.repository(0, name)
    }

    /// A new image; its digest.
    fn push(&self, name: &str) -> Image {
        let image = Image::unpackable(&[64]);
        let pushed = self.repository(name).push(&image, "v1");
        pushed.unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        image
    }

    /// What lies behind the tag about an image.
    fn behind(&self, name: &str, image: &Image, ending: &'static str) -> Stored {
        let tag = format!("{}{ending}", image.digest().replace(':', "-"));
        self.stored(name, &tag, Some(ending))
    }

    /// The only referrer of an image.
    fn referrer(&self, name: &str, image: &Image) -> Stored {
        let path = format!("/v2/{name}/referrers/{}", image.digest());
        let listed = self.mesh.client(0).get(&path).unwrap_or_else(|none| panic!("{none}")).json();
        let listed = listed["manifests"].as_array().expect("a list");
        assert_eq!(listed.len(), 1, "{listed:?}");
        self.stored(name, listed[0]["digest"].as_str().expect("a digest"), None)
    }

    fn stored(&self, name: &str, reference: &str, ending: Option<&'static str>) -> Stored {
        let repository = self.repository(name);
        let manifest = repository.manifest(reference);
        let (_, manifest) = manifest.unwrap_or_else(|no| panic!("{name} {reference}: {no}"));
        let read = evidence::read(&manifest, ending);
        let read = read.unwrap_or_else(|| panic!("it is evidence: {manifest:?}"));
        let blob = |digest: &Digest| {
            repository.blob(&digest.to_string()).unwrap_or_else(|no| panic!("{no}"))
        };
        let blobs = read.blobs.iter().map(|(digest, _)| (*digest, blob(digest))).collect();
        Stored { manifest, ending, blobs }
    }

    fn store(&self, name: &str, reference: &str, made: &Made) {
        let repository = self.repository(name);
        for blob in &made.blobs {
            let uploaded = repository.upload(&Blob::of(blob.clone()));
            uploaded.unwrap_or_else(|no| panic!("{name}: {no}"));
        }
        let put = repository.put_bytes(reference, MANIFEST, Bytes::from(made.manifest.clone()));
        put.unwrap_or_else(|no| panic!("{name}: {no}"));
    }
}

impl Stored {
    fn verify(&self, image: &Image, anchors: &[Anchor]) -> Vec<Signature> {
        let subject = image.digest().parse().expect("a digest");
        self.verify_with(&self.blobs, &subject, anchors)
    }

    fn verify_with(
        &self,
        blobs: &BTreeMap<Digest, Bytes>,
        subject: &Digest,
        anchors: &[Anchor],
    ) -> Vec<Signature> {
        let read = evidence::read(&self.manifest, self.ending).expect("evidence");
        verify(&self.manifest, &read, blobs, subject, &Anchors::of(anchors))
    }

    /// Shows that it is one good signature of the image for `right`, and none for anybody else, of
    /// anything else, or when a byte of it was changed.
    fn is_good(&self, what: &str, image: &Image, right: &Anchor, wrong: &Anchor) -> Signature {
        let told = self.verify(image, std::slice::from_ref(right));
        let [one] = &told[..] else { panic!("{what}: {told:?}") };
        assert_eq!(one.fault, None, "{what}");
        assert!(!matches!(one.by, By::Unknown { .. }), "{what}: {one:?}");
        let others = self.verify(image, std::slice::from_ref(wrong));
        assert!(!others.iter().any(counts), "{what}: another key: {others:?}");
        let other = Digest::sha256(b"another image");
        let moved = self.verify_with(&self.blobs, &other, std::slice::from_ref(right));
        assert_eq!(moved[0].fault, Some(Fault::OtherDigest), "{what}");
        for at in 0..self.blobs.len() {
            let (mut digest, mut bytes) = (Digest::sha256(b""), Vec::new());
            for (digest_of_it, blob) in self.blobs.iter().skip(at).take(1) {
                (digest, bytes) = (*digest_of_it, blob.to_vec());
            }
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            let mut blobs = self.blobs.clone();
            blobs.insert(digest, Bytes::from(bytes));
            let subject = image.digest().parse().expect("a digest");
            let told = self.verify_with(&blobs, &subject, std::slice::from_ref(right));
            assert!(!told.iter().any(counts), "{what}: a changed byte: {told:?}");
        }
        one.clone()
    }
}

fn counts(signature: &Signature) -> bool {
    signature.fault.is_none() && !matches!(signature.by, By::Unknown { .. })
}

fn anchor(key: &KeyPair) -> Anchor {
    sign::anchor::key(&key.pem()).unwrap_or_else(|bad| panic!("{bad}"))
}

fn well(what: &str, finished: &Finished) {
    assert!(finished.success, "{what}: {}\n{}", finished.out, finished.err);
}

fn refused(what: &str, finished: &Finished) {
    assert!(!finished.success, "{what}: {}\n{}", finished.out, finished.err);
}

/// Every kind of key, signed with by every client in every form that it writes, and verified by the mesh
/// and by every client that can.
#[test]
fn what_cosign_and_skopeo_sign_is_verified_with_every_kind_of_key() {
    let stage = Stage::new();
    let signers = &stage.signers;
    let stranger = signers.key("wrong", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256");
    let wrong = anchor(&stranger);
    for (kind, algorithm) in [
        ("p256", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
        ("p384", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384"),
        ("rsa", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048"),
        ("ed25519", "-algorithm ED25519"),
    ] {
        let key = signers.key(kind, algorithm);
        let right = anchor(&key);
        let good = |what: &str, stored: &Stored, image: &Image, format: Format| {
            let what = format!("{what} with {kind}");
            let one = stored.is_good(&what, image, &right, &wrong);
            assert_eq!(one.format, format, "{what}");
            one
        };
        // what these programs say of each other's signatures, as the registry has them
        let accepted = |what: &str, programs: &[&str], name: &str| {
            for program in programs {
                let what = format!("{program} verifies {what} with {kind}");
                well(&what, &signers.judges(program, &key.public, name));
            }
        };
        let all = ["skopeo", "cosign2", "cosign3, classic"];
        // cosign 3 signs with SHA-384 and Ed25519ph, and verifies neither
        let is_common = matches!(kind, "p256" | "rsa");

        let name = format!("demo/skopeo-{kind}");
        let (image, layout) = (Image::unpackable(&[64]), signers.at(&format!("layout-{kind}")));
        write_layout(&layout, &image);
        well("skopeo", &signers.skopeo_signs(&key, &layout, &format!("{name}:v1")));
        let one = good("skopeo", &stage.behind(&name, &image, ".sig"), &image, Format::Cosign);
        assert_eq!(one.reference, Some(signers.named(&format!("{name}:v1"))));
        assert!(one.signed.is_some(), "{one:?}");
        accepted("skopeo", &all, &format!("{name}:v1"));
        for program in all {
            let told = signers.judges(program, &stranger.public, &format!("{name}:v1"));
            refused(&format!("{program} with another key than {kind}"), &told);
        }

        let name = format!("demo/cosign2-{kind}");
        let image = stage.push(&name);
        let named = format!("{name}@{}", image.digest());
        let claim = ["-a", "build=17"];
        well("cosign 2", &signers.cosign2("sign", &key, &claim, &named));
        let one = good("cosign 2", &stage.behind(&name, &image, ".sig"), &image, Format::Cosign);
        assert_eq!(one.reference, Some(signers.named(&name)));
        assert_eq!(one.claims.get("build").map(String::as_str), Some("17"));
        accepted("cosign 2", &["skopeo, repository", "cosign2", "cosign3, classic"], &named);

        let name = format!("demo/cosign3-classic-{kind}");
        let image = stage.push(&name);
        let named = format!("{name}@{}", image.digest());
        well("cosign 3", &signers.cosign3("sign", &key, true, &[], &named));
        good("cosign 3, classic", &stage.behind(&name, &image, ".sig"), &image, Format::Cosign);
        if is_common {
            accepted("cosign 3, classic", &["cosign2", "cosign3, classic"], &named);
        }

        let name = format!("demo/cosign3-{kind}");
        let image = stage.push(&name);
        let named = format!("{name}@{}", image.digest());
        well("cosign 3", &signers.cosign3("sign", &key, false, &[], &named));
        let one = good("cosign 3", &stage.referrer(&name, &image), &image, Format::Bundle);
        assert_eq!(one.predicate.as_deref(), Some(COSIGN_SIGNATURE));
        let nobody = stage.referrer(&name, &image).verify(&image, &[]);
        let Anchor::Key { id, .. } = right else { panic!("{right:?}") };
        assert_eq!(nobody[0].by, By::Unknown { hint: Some(id) }, "{kind}: it names its key");
        if is_common {
            accepted("cosign 3", &["cosign3"], &named);
            refused("another key", &signers.judges("cosign3", &stranger.public, &named));
        }
    }
}

/// The other forms that cosign writes: a referrer of layers, and attestations, which say what they are.
#[test]
fn attestations_and_cosigns_first_referrers_are_verified() {
    let stage = Stage::new();
    let signers = &stage.signers;
    let curve = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    let (key, wrong) = (signers.key("ci", curve), anchor(&signers.key("wrong", curve)));
    let right = anchor(&key);
    signers.write("sbom.json", r#"{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT"}"#);
    let sbom = signers.at("sbom.json").display().to_string();
    let attest = ["--type", "spdxjson", "--predicate", &sbom];

    let image = stage.push("demo/att");
    let named = format!("demo/att@{}", image.digest());
    well("cosign 2 attests", &signers.cosign2("attest", &key, &attest, &named));
    let stored = stage.behind("demo/att", &image, ".att");
    let one = stored.is_good("cosign 2 attests", &image, &right, &wrong);
    assert_eq!((one.format, one.predicate.as_deref()), (Format::Attestation, Some(SPDX)));

    let image = stage.push("demo/bundled");
    let named = format!("demo/bundled@{}", image.digest());
    well("cosign 3 attests", &signers.cosign3("attest", &key, false, &attest, &named));
    let stored = stage.referrer("demo/bundled", &image);
    let one = stored.is_good("cosign 3 attests", &image, &right, &wrong);
    assert_eq!((one.format, one.predicate.as_deref()), (Format::Bundle, Some(SPDX)));

    let image = stage.push("demo/referrer");
    let mut command = signers.command("cosign2");
    command
        .env("COSIGN_EXPERIMENTAL", "1")
        .args(["sign", "--allow-http-registry", "--tlog-upload=false"])
        .args(["--registry-referrers-mode=oci-1-1", "--key"])
        .arg(&key.private)
        .arg(signers.named(&format!("demo/referrer@{}", image.digest())));
    well("cosign 2 with referrers", &process::finish(&mut command));
    let stored = stage.referrer("demo/referrer", &image);
    let one = stored.is_good("cosign 2 with referrers", &image, &right, &wrong);
    assert_eq!(one.format, Format::CosignReferrer);
}

/// What the mesh signs is accepted by all that verify, and by none of them for another key.
#[test]
fn what_the_mesh_signs_is_accepted_by_every_client() {
    let stage = Stage::new();
    let signers = &stage.signers;
    let (key, other) = (new_key(), new_key());
    signers.write("mesh.pub", &key.public_pem());
    signers.write("other.pub", &other.public_pem());
    let (right, wrong) = (signers.at("mesh.pub"), signers.at("other.pub"));
    let image = stage.push("demo/signed");
    let made = claims(signers, "demo/signed", &image);
    let (tagged, bundled) = (classic(&key, &made), bundle(&key, &made));
    let tag = format!("{}.sig", image.digest().replace(':', "-"));
    stage.store("demo/signed", &tag, &tagged);
    let named = format!("demo/signed@{}", image.digest());
    let accepts = |program: &str, more: &[&str]| {
        let what = format!("{program} {more:?}");
        well(&what, &signers.verify(program, &right, more, &named));
        refused(&what, &signers.verify(program, &wrong, more, &named));
    };
    accepts("cosign2", &[]);
    accepts("cosign3", &["--new-bundle-format=false"]);
    stage.store("demo/signed", &Blob::of(bundled.manifest.clone()).digest, &bundled);
    accepts("cosign2", &["-a", "mesh.epoch=7"]);
    refused("-a", &signers.verify("cosign2", &right, &["-a", "mesh.epoch=8"], &named));
    // now there is a bundle, which cosign 3 prefers
    accepts("cosign3", &[]);
    accepts("cosign3", &["-a", "mesh.epoch=7"]);
    accepts("cosign3", &["--new-bundle-format=false", "-a", "mesh.epoch=7"]);
    for image in ["demo/signed:v1", &named] {
        well("skopeo", &signers.skopeo_pulls(&right, image));
        refused("skopeo", &signers.skopeo_pulls(&wrong, image));
    }
    // the same image under another tag was not signed under that
    let moved = stage.repository("demo/signed").put_manifest("v2", &image);
    moved.unwrap_or_else(|no| panic!("{no}"));
    refused("skopeo", &signers.skopeo_pulls(&right, "demo/signed:v2"));
}

/// Two signers of one image, one of whom did not know of the other.
#[test]
fn both_signatures_of_a_union_are_accepted() {
    let stage = Stage::new();
    let signers = &stage.signers;
    let curve = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    let (ci, mesh) = (signers.key("ci", curve), new_key());
    signers.write("mesh.pub", &mesh.public_pem());
    let image = stage.push("demo/both");
    let named = format!("demo/both@{}", image.digest());
    well("cosign 2", &signers.cosign2("sign", &ci, &[], &named));
    let there = stage.behind("demo/both", &image, ".sig").manifest;
    let made = classic(&mesh, &claims(signers, "demo/both", &image));
    let joined = union(&there, &made.manifest).expect("both are kept");
    let mut blobs = made.blobs.clone();
    blobs.push(joined.config.clone());
    let joined = Made { blobs, manifest: joined.manifest, payload: made.payload };
    let tag = format!("{}.sig", image.digest().replace(':', "-"));
    stage.store("demo/both", &tag, &joined);
    for public in [&ci.public, &signers.at("mesh.pub")] {
        well("cosign 2", &signers.verify("cosign2", public, &[], &named));
        let classic = ["--new-bundle-format=false"];
        well("cosign 3", &signers.verify("cosign3", public, &classic, &named));
    }
    well("skopeo", &signers.skopeo_pulls(&signers.at("mesh.pub"), "demo/both:v1"));
    // a client adds to what the mesh has written
    let third = signers.key("third", curve);
    well("cosign 2", &signers.cosign2("sign", &third, &[], &named));
    let told = stage.behind("demo/both", &image, ".sig").verify(
        &image,
        &[anchor(&ci), sign::anchor::key(&mesh.public_pem()).expect("a key"), anchor(&third)],
    );
    assert_eq!(told.iter().filter(|one| counts(one)).count(), 3, "{told:?}");
}

#[test]
fn files_of_private_keys_go_both_ways() {
    let stage = Stage::new();
    let signers = &stage.signers;
    for program in ["cosign2", "cosign3"] {
        let mut command = signers.command(program);
        command.args(["generate-key-pair", "--output-key-prefix", program]);
        process::succeed(&mut command);
        imported(signers, program, "key");
    }
    let mut skopeo = tools::newer_skopeo();
    skopeo.args(["generate-sigstore-key", "--output-prefix"]).arg(signers.at("skopeo"));
    skopeo.arg("--passphrase-file").arg(signers.at("passphrase"));
    process::succeed(&mut skopeo);
    imported(signers, "skopeo", "private");
    let rsa = signers.key("rsa", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048");
    let text = std::fs::read_to_string(&rsa.private).expect("a file");
    let told = cosign_key::import(&text, PASSPHRASE.as_bytes()).err();
    assert!(matches!(told, Some(cosign_key::CosignKeyError::Key(_))), "{told:?}");

    let key = new_key();
    let exported = cosign_key::export(&key, PASSPHRASE.as_bytes()).expect("a file");
    signers.write("exported.key", &exported);
    signers.write("exported.pub", &key.public_pem());
    let pair = KeyPair { private: signers.at("exported.key"), public: signers.at("exported.pub") };
    for program in ["cosign2", "cosign3"] {
        let mut command = signers.command(program);
        command.args(["public-key", "--key"]).arg(&pair.private);
        let told = process::succeed(&mut command);
        assert_eq!(told.trim(), key.public_pem().trim(), "{program}");
    }
    let (image, layout) = (Image::unpackable(&[64]), signers.at("layout"));
    write_layout(&layout, &image);
    well("skopeo", &signers.skopeo_signs(&pair, &layout, "demo/exported:v1"));
    let stored = stage.behind("demo/exported", &image, ".sig");
    assert!(counts(&stored.verify(&image, &[anchor(&pair)])[0]));
}

fn imported(signers: &Signers, prefix: &str, ending: &str) {
    let read = |ending: &str| {
        std::fs::read_to_string(signers.at(&format!("{prefix}.{ending}"))).expect("a file")
    };
    let key = cosign_key::import(&read(ending), PASSPHRASE.as_bytes());
    let key = key.unwrap_or_else(|error| panic!("{prefix}: {error}"));
    let Ok(Anchor::Key { id, .. }) = sign::anchor::key(&read("pub")) else { panic!("{prefix}") };
    assert_eq!(key.id(), id, "{prefix}");
    let wrong = cosign_key::import(&read(ending), b"another").err();
    assert_eq!(wrong, Some(cosign_key::CosignKeyError::Passphrase), "{prefix}");
}

/// notation's envelopes, with a certificate that has signed itself and with a chain.
#[test]
fn what_notation_signs_is_verified() {
    let stage = Stage::new();
    let signers = &stage.signers;
    let mut command = signers.command("notation");
    command.args(["cert", "generate-test", "--default", "own.example"]);
    process::succeed(&mut command);
    let own = store_of(&signers.at("notation/localkeys/own.example.crt"));
    let chain = signers.at("chain");
    certify(&chain, "extendedKeyUsage=codeSigning");
    let keys = json!({"default": "own.example", "keys": [
        {"name": "own.example", "keyPath": signers.at("notation/localkeys/own.example.key"),
            "certPath": signers.at("notation/localkeys/own.example.crt")},
        {"name": "chained", "keyPath": chain.join("signer.key"), "certPath": chain.join("chain.crt")},
    ]});
    signers.write("notation/signingkeys.json", &keys.to_string());
    let chained = store_of(&chain.join("ca.crt"));
    for (key, right, wrong) in [("own.example", &own, &chained), ("chained", &chained, &own)] {
        for (envelope, format) in [("jws", Format::NotationJws), ("cose", Format::NotationCose)] {
            let what = format!("notation {envelope} {key}");
            let name = format!("demo/notation-{envelope}-{}", key.replace('.', "-"));
            let image = stage.push(&name);
            let named = format!("{name}@{}", image.digest());
            let more = [
                "--key",
                key,
                "--signature-format",
                envelope,
                "--expiry",
                "24h",
                "--user-metadata",
                "build=17",
            ];
            well(&what, &signers.notation("sign", &more, &named));
            let one = stage.referrer(&name, &image).is_good(&what, &image, right, wrong);
            assert_eq!(one.format, format, "{what}");
            assert_eq!(one.claims.get("build").map(String::as_str), Some("17"), "{what}");
            let (Some(signed), Some(until)) = (one.signed, one.until) else { panic!("{one:?}") };
            // notation asks for the time twice
            let lives = until.0.abs_diff(signed.0) / 60_000;
            assert!((24 * 60 - 1..=24 * 60).contains(&lives), "{what}: {signed} {until}");
            let By::Certificate { subject, .. } = one.by else { panic!("{what}: {:?}", one.by) };
            let expected = match key {
                "chained" => "CN=signer,O=Example,ST=BE,C=DE",
                _ => "CN=own.example,O=Notary,L=Seattle,ST=WA,C=US",
            };
            assert_eq!(subject, expected, "{what}");
        }
    }
}

/// What the mesh signs for notation, with a certificate of an authority's.
#[test]
fn what_the_mesh_signs_for_notation_is_accepted() {
    let stage = Stage::new();
    let signers = &stage.signers;
    let (chain, key) = (signers.at("chain"), new_key());
    certify(&chain, "extendedKeyUsage=codeSigning");
    signers.write("chain/mesh.pub", &key.public_pem());
    let mut openssl = tools::packaged("openssl", "openssl");
    openssl.current_dir(&chain).args([
        "x509",
        "-new",
        "-force_pubkey",
        "mesh.pub",
        "-subj",
        "/C=DE/ST=BE/O=Example/CN=mesh",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-days",
        "9",
        "-extfile",
        "extensions",
        "-out",
        "mesh.crt",
    ]);
    process::succeed(&mut openssl);
    let read = |name: &str| std::fs::read_to_string(chain.join(name)).expect("a certificate");
    let identity = Identity::read(&(read("mesh.crt") + &read("ca.crt")), &key);
    let identity = identity.unwrap_or_else(|bad| panic!("{bad}"));
    let image = stage.push("demo/notation");
    let now = std::time::UNIX_EPOCH.elapsed().expect("a time").as_millis() as u64;
    let claims = Claims { timestamp: Timestamp(now), ..claims(signers, "demo/notation", &image) };
    let made = notation(&key, &identity, &claims);
    stage.store("demo/notation", &Blob::of(made.manifest.clone()).digest, &made);
    certify(&signers.at("other"), "extendedKeyUsage=codeSigning");
    for (store, certificate) in [("right", "chain/ca.crt"), ("wrong", "other/ca.crt")] {
        let mut command = signers.command("notation");
        command.args(["cert", "add", "--type", "ca", "--store", store]);
        process::succeed(command.arg(signers.at(certificate)));
    }
    let verify = |store: &str, identity: &str, more: &[&str]| {
        let policy = json!({"version": "1.0", "trustPolicies": [{
            "name": "mesh", "registryScopes": ["*"],
            "signatureVerification": {"level": "strict"},
            "trustStores": [format!("ca:{store}")], "trustedIdentities": [identity],
        }]});
        signers.write("notation/trustpolicy.json", &policy.to_string());
        signers.notation("verify", more, &format!("demo/notation@{}", image.digest()))
    };
    well("notation", &verify("right", "*", &[]));
    let subject = "x509.subject: C=DE, ST=BE, O=Example, CN=mesh";
    well("its subject", &verify("right", subject, &["--user-metadata", "mesh.epoch=7"]));
    refused("a claim", &verify("right", subject, &["--user-metadata", "mesh.epoch=8"]));
    refused("another subject", &verify("right", &subject.replace("CN=mesh", "CN=other"), &[]));
    refused("another authority", &verify("wrong", "*", &[]));
}

/// A signature with a timestamp of a trusted authority does not end with its certificates.
#[test]
fn a_timestamp_that_notation_has_got_is_verified() {
    let stage = Stage::new();
    let signers = &stage.signers;
    let (chain, stamping) = (signers.at("chain"), signers.at("stamping"));
    certify(&chain, "extendedKeyUsage=codeSigning");
    certify(&stamping, "extendedKeyUsage=critical,timeStamping");
    let keys = json!({"keys": [{"name": "chained", "keyPath": chain.join("signer.key"),
        "certPath": chain.join("chain.crt")}]});
    std::fs::create_dir_all(signers.at("notation")).expect("a folder");
    signers.write("notation/signingkeys.json", &keys.to_string());
    let url = serve_timestamps(&stamping);
    let root = stamping.join("ca.crt").display().to_string();
    let read = |file: &Path| std::fs::read_to_string(file).expect("a certificate");
    let store = |timestamps: &str| {
        let store = sign::anchor::authority(&read(&chain.join("ca.crt")), timestamps, &[]);
        store.unwrap_or_else(|bad| panic!("{bad}"))
    };
    for (envelope, name) in [("jws", "demo/stamped-jws"), ("cose", "demo/stamped-cose")] {
        let image = stage.push(name);
        let named = format!("{name}@{}", image.digest());
        let more = [
            "--key",
            "chained",
            "--signature-format",
            envelope,
            "--timestamp-url",
            &url,
            "--timestamp-root-cert",
            &root,
        ];
        well(envelope, &signers.notation("sign", &more, &named));
        let stored = stage.referrer(name, &image);
        let until = |store: Anchor| {
            let told = stored.verify(&image, &[store]);
            assert!(counts(&told[0]), "{envelope}: {told:?}");
            told[0].until
        };
        assert_eq!(until(store(&read(&stamping.join("ca.crt")))), None, "{envelope}");
        assert!(until(store("")).is_some(), "{envelope}: nobody's timestamps are trusted");
        let other = until(store(&read(&chain.join("ca.crt"))));
        assert!(other.is_some(), "{envelope}: it is of another authority");
    }
}

/// Keyless signatures of both cosigns, under a Fulcio and a Rekor of one's own.
#[test]
fn keyless_signatures_under_a_private_fulcio_and_rekor_are_verified() {
    let stage = Stage::new();
    let signers = &stage.signers;
    let services = Sigstore::serve();
    let (root, log) = (&services.fulcio, &services.rekor);
    let keyless = |fulcio: &str, rekor: &str| {
        let anchor = sign::anchor::keyless(fulcio, rekor, sigstore::ISSUER, "*@example.com");
        anchor.unwrap_or_else(|bad| panic!("{bad}"))
    };
    let other = Sigstore::serve();
    let (right, wrong) = (keyless(root, log), keyless(&other.fulcio, &other.rekor));
    signers.write("fulcio.pem", root);
    signers.write("rekor.pub", log);
    signers.write("token", &Sigstore::token());
    let valid = json!({"start": "2026-01-01T00:00:00Z"});
    let service = json!([{
        "url": services.url, "majorApiVersion": 1, "operator": "example", "validFor": valid,
    }]);
    let config = json!({
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "caUrls": service, "rekorTlogUrls": service, "rekorTlogConfig": {"selector": "ANY"},
        "tsaConfig": {},
    });
    signers.write("keyless.json", &config.to_string());
    let raw = |bytes: &[u8]| base64::prelude::BASE64_STANDARD.encode(bytes);
    let key = pem_contents(log);
    let trusted = json!({
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [{
            "baseUrl": services.url, "hashAlgorithm": "SHA2_256",
            "publicKey": {"rawBytes": key, "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid},
            "logId": {"keyId": raw(&services.log)},
        }],
        "certificateAuthorities": [{
            "subject": {"organization": "example", "commonName": "fulcio"}, "uri": services.url,
            "certChain": {"certificates": [{"rawBytes": raw(&services.fulcio_der)}]},
            "validFor": valid,
        }],
    });
    signers.write("trusted.json", &trusted.to_string());
    let is_it = |what: &str, one: &Signature| {
        let By::Identity { issuer, subject, .. } = &one.by else { panic!("{what}: {one:?}") };
        assert_eq!((&**issuer, &**subject), (sigstore::ISSUER, sigstore::SUBJECT), "{what}");
        assert_eq!(one.until, None, "{what}: the log has seen it in time");
    };

    let image = stage.push("demo/keyless-classic");
    signers.write("sbom.json", r#"{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT"}"#);
    for (verb, ending, more) in [
        ("sign", ".sig", &[][..]),
        ("attest", ".att", &["--type", "spdxjson", "--predicate", "sbom.json"]),
    ] {
        let mut command = signers.command("cosign2");
        command
            .env("SIGSTORE_ROOT_FILE", signers.at("fulcio.pem"))
            .env("SIGSTORE_REKOR_PUBLIC_KEY", signers.at("rekor.pub"))
            .args([verb, "--allow-http-registry", "--insecure-skip-verify"])
            .args(["--fulcio-url", &services.url, "--rekor-url", &services.url])
            .args(["--identity-token", &Sigstore::token()])
            .args(more)
            .arg(signers.named(&format!("demo/keyless-classic@{}", image.digest())));
        let what = format!("cosign 2 without a key: {verb}");
        well(&what, &process::finish(&mut command));
        let stored = stage.behind("demo/keyless-classic", &image, ending);
        is_it(&what, &stored.is_good(&what, &image, &right, &wrong));
        let elsewhere = stored.verify(&image, &[keyless(root, &other.rekor)]);
        assert!(!elsewhere.iter().any(counts), "another log: {elsewhere:?}");
    }

    let image = stage.push("demo/keyless");
    let mut command = signers.command("cosign3");
    command
        .args(["sign", "--allow-http-registry", "--signing-config"])
        .arg(signers.at("keyless.json"))
        .arg("--trusted-root")
        .arg(signers.at("trusted.json"))
        .arg("--identity-token")
        .arg(signers.at("token"))
        .arg(signers.named(&format!("demo/keyless@{}", image.digest())));
    well("cosign 3 without a key", &process::finish(&mut command));
    let stored = stage.referrer("demo/keyless", &image);
    is_it("cosign 3", &stored.is_good("cosign 3 without a key", &image, &right, &wrong));
    let elsewhere = stored.verify(&image, &[keyless(root, &other.rekor)]);
    assert!(!elsewhere.iter().any(counts), "another log: {elsewhere:?}");
}

/// What is between the lines of PEM, which is base64.
fn pem_contents(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with("-----")).collect()
}

/// A certificate of an authority's, and a key of P-256 below it for a purpose, with openssl.
fn certify(folder: &Path, purpose: &str) {
    std::fs::create_dir_all(folder).expect("a folder");
    let openssl = |arguments: &str| {
        let mut command = tools::packaged("openssl", "openssl");
        process::succeed(command.args(arguments.split(' ')).current_dir(folder));
    };
    let name = "/C=DE/ST=BE/O=Example/CN=";
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout ca.key -out ca.crt -days 9 -subj {name}root \
         -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
    ));
    openssl(&format!("req {key} -keyout signer.key -out signer.csr -subj {name}signer"));
    let extensions = format!("keyUsage=critical,digitalSignature\n{purpose}\n");
    std::fs::write(folder.join("extensions"), extensions).expect("a file");
    openssl(
        "x509 -req -in signer.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 9 \
         -extfile extensions -out signer.crt",
    );
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a certificate");
    let chain = format!("{}{}", read("signer.crt"), read("ca.crt"));
    std::fs::write(folder.join("chain.crt"), chain).expect("a file");
}

fn store_of(certificate: &Path) -> Anchor {
    let pem = std::fs::read_to_string(certificate).expect("a certificate");
    sign::anchor::authority(&pem, "", &[]).unwrap_or_else(|bad| panic!("{bad}"))
}

fn new_key() -> SigningKey {
    SigningKey::generate().expect("a key")
}

fn claims(signers: &Signers, name: &str, image: &Image) -> Claims {
    Claims {
        reference: signers.named(&format!("{name}:v1")),
        subject: image.digest().parse().expect("a digest"),
        subject_size: image.manifest.bytes.len() as u64,
        subject_media_type: MANIFEST.into(),
        optional: BTreeMap::from([("mesh.epoch".into(), "7".into())]),
        timestamp: Timestamp(1_780_000_000_000),
    }
}
