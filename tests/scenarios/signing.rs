//! An image without the signatures that its project demands is refused at every replica and edge, by
//! each of them alone; signatures are verified, whoever wrote them.

mod forms;

use base64::Engine as _;
use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::{Blob, Image};
use tests::people::{create_robot, robot_of};
use tests::process::{self, Finished};
use tests::repository::create_project;
use tests::shop::{
    THREE, anybody, asks, atoll, did, in_days, named, refused, served, set, trust, with_shop,
};
use tests::signers::{KeyPair, P256, Signers};
use tests::{tools, wait};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Somebody who signs at every node of the mesh.
fn hand(mesh: &Formed, name: &str, secret: &str) -> Signers {
    let nodes: Vec<String> =
        mesh.members().iter().map(|member| member.place().http.to_string()).collect();
    Signers::at_each(&nodes, name, secret)
}

/// Signs in cosign's first form.
fn sign(hand: &Signers, program: &str, key: &KeyPair, image: &str) -> Finished {
    match program {
        "cosign2" => hand.cosign2("sign", key, &[], image),
        _ => hand.cosign3("sign", key, true, &[], image),
    }
}

/// Signs with a bundle.
fn bundle(hand: &Signers, key: &KeyPair, image: &str) -> Finished {
    hand.cosign3("sign", key, false, &[], image)
}

/// Attests something of an image with a bundle.
fn attest(hand: &Signers, key: &KeyPair, image: &str) -> Finished {
    hand.write("sbom.json", "{\"spdxVersion\":\"SPDX-2.3\"}");
    let sbom = hand.at("sbom.json").display().to_string();
    hand.cosign3("attest", key, false, &["--type", "spdxjson", "--predicate", &sbom], image)
}

#[test]
fn an_image_needs_the_signatures_of_whom_its_project_trusts_at_every_node() {
    // long, so that it learns of each change only because it is told
    let (mesh, edge) = with_shop("retention: {pulls_every: 1s}\n", "1h");
    let web = mesh.repository(0, "shop/web");
    let image = Image::tiny();
    web.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let digest = image.digest();
    let ann = hand(&mesh, "admin", mesh.password());
    let (ci, other) = (ann.key("ci", P256), ann.key("other", P256));

    // a project trusts whom it says, and serves the rest until it says otherwise
    trust(&mesh, "ci", &ci.public);
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, "1"));
    }
    let preview = atoll(&mesh, 1, "signatures", &["--unsigned", "shop"]);
    assert!(preview.success && preview.out.contains("1 of 1 tags would be refused"), "{preview:?}");
    web.push(&Image::random(&[69]), "idle").unwrap_or_else(|no| panic!("{no}"));
    let lately = "/api/v2.0/projects/shop/unsigned?pulled_within_days=1";
    wait::until("one of two was pulled lately", || {
        let said = mesh.client(2).get(lately).ok()?.json();
        (said["artifacts"] == 1 && said["refused_in_all"] == 1).then_some(())
    });
    set(&mesh, &json!({"signature_policy": "enforce"}));
    for at in 0..=edge {
        for reference in ["1", digest] {
            wait::until_ok("it is refused", || {
                refused(
                    &mesh,
                    at,
                    reference,
                    "project shop serves signed images only (signature_policy), and it is not signed",
                )
            });
        }
        // nor under the names that clients of mirrors write
        let name = mesh.members()[at].place().http.to_string();
        for query in ["?ns=".to_owned(), format!("?ns={name}")] {
            for method in [Method::GET, Method::HEAD] {
                let answer = asks(&anybody(&mesh, at), method, &format!("1{query}"));
                assert_eq!(answer.status, 403, "{query}: {answer}");
            }
        }
        let known = anybody(&mesh, at).ask(Method::GET, "/v2/shop/web/manifests/1");
        let known = known.header("if-none-match", &format!("\"{digest}\"")).send();
        assert_eq!(known.unwrap_or_else(|none| panic!("{none}")).status, 403, "nor a 304");
    }
    for at in [1, edge] {
        let why = atoll(&mesh, at, "explain", &[&format!("shop/web@{digest}")]);
        assert!(why.success && why.out.contains("it is refused: it is not signed"), "{why:?}");
        assert!(why.out.contains("remedy    sign it"), "{why:?}");
    }

    // the wrong key, and something that only says that it is a signature
    did(&sign(&ann, "cosign2", &other, &named(&mesh, 1, &image)));
    let forged = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": Blob::of("{}").digest, "size": 2},
        "layers": [],
        "subject": {"mediaType": MANIFEST, "digest": digest, "size": image.manifest.bytes.len()},
    });
    web.upload(&Blob::of("{}")).unwrap_or_else(|no| panic!("{no}"));
    let forged = Blob::of(forged.to_string());
    web.put_bytes(&forged.digest, MANIFEST, forged.bytes.clone())
        .unwrap_or_else(|no| panic!("{no}"));
    for at in 0..=edge {
        wait::until_ok("it is refused for its signatures", || {
            refused(&mesh, at, "1", "no signature of it counts")
        });
    }
    // an attestation by the right key is no signature
    did(&attest(&ann, &ci, &named(&mesh, 2, &image)));
    wait::until_ok("it is refused for its attestation", || {
        refused(&mesh, 0, "1", "an attestation of https://spdx.dev/Document by ci is no signature")
    });

    // the right key
    did(&sign(&ann, "cosign3", &ci, &named(&mesh, 2, &image)));
    for at in 0..=edge {
        for reference in ["1", digest] {
            wait::until_ok("it is served", || served(&mesh, at, reference));
        }
        let head = asks(&anybody(&mesh, at), Method::HEAD, "1");
        assert_eq!(head.status, 200, "{head}");
    }
    // both are there: what is behind the tag has all
    let shown = atoll(&mesh, edge, "signatures", &[&format!("shop/web@{digest}")]);
    assert!(shown.success, "{shown:?}");
    assert!(shown.out.contains("ci, cosign: counts\n"), "{shown:?}");
    assert!(shown.out.contains("is by nobody who is trusted\n"), "{shown:?}");
    let path = format!("/api/v2.0/projects/shop/repositories/web/artifacts/{digest}/accessories");
    let accessories = mesh.client(1).get(&path).unwrap_or_else(|none| panic!("{none}"));
    let types = accessories.json().as_array().expect("a list").len();
    assert!(
        types >= 3 && accessories.json().to_string().contains("signature.cosign"),
        "{accessories}"
    );

    // a tag that moves to what nobody has signed
    let another = Image::random(&[70]);
    web.push(&another, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..=edge {
        wait::until_ok("the tag is refused", || refused(&mesh, at, "1", "it is not signed"));
        wait::until_ok("the digest is served", || served(&mesh, at, digest));
    }
    // the signatures of one image behind the tag of another
    let (sig, of_another) = (tag_of(&image), tag_of(&another));
    let copied = web.manifest(&sig).unwrap_or_else(|no| panic!("{no}")).1;
    web.put_bytes(&of_another, MANIFEST, copied).unwrap_or_else(|no| panic!("{no}"));
    wait::until_ok("it is refused for that", || {
        refused(&mesh, 1, "1", "a signature is of another digest")
    });
    // a bundle
    did(&bundle(&ann, &ci, &named(&mesh, 0, &another)));
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, "1"));
    }

    // a key that is revoked, at once and everywhere, also at an edge that hears it from replicas only
    did(&atoll(&mesh, 2, "signer", &["revoke", "ci", "--project", "shop", "--reason", "rotated"]));
    for at in 0..=edge {
        wait::until_ok("what was signed before is served", || served(&mesh, at, digest));
    }
    let third = Image::random(&[71]);
    web.push(&third, "3").unwrap_or_else(|no| panic!("{no}"));
    did(&sign(&ann, "cosign2", &ci, &named(&mesh, 0, &third)));
    wait::until_ok("what is signed later is refused", || {
        refused(&mesh, edge, "3", "the signer ci is revoked: rotated")
    });
    let revoke =
        ["revoke", "ci", "--project", "shop", "--compromised", "--reason", "stolen", "--yes"];
    did(&atoll(&mesh, 1, "signer", &revoke));
    for at in 0..=edge {
        wait::until_ok("nothing of it counts", || {
            refused(&mesh, at, digest, "the signer ci is revoked: stolen")
        });
    }
    never_again(&mesh, &ci, &other);
    // a new key counts for what it has signed before anybody trusted it
    trust(&mesh, "other", &other.public);
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, digest));
    }
    // for some tags only, it counts by digest while one of them names the image
    did(&atoll(&mesh, 1, "signer", &["set", "other", "--project", "shop", "--tags", "v*"]));
    for at in 0..=edge {
        let why = "signs the tags v* only, and none of these names the image";
        wait::until_ok("it is refused", || refused(&mesh, at, digest, why));
    }
    let bytes = image.manifest.bytes.clone();
    web.put_bytes("v9", MANIFEST, bytes).unwrap_or_else(|no| panic!("{no}"));
    for at in 0..=edge {
        for reference in ["v9", digest] {
            wait::until_ok("it is served", || served(&mesh, at, reference));
        }
    }
    did(&atoll(&mesh, 1, "signer", &["set", "other", "--project", "shop", "--tags", ""]));
    ends_when_it_is_known_what_that_shuts(&mesh);
    // no longer when its signature is deleted
    let gone = mesh.client(0).ask(Method::DELETE, &format!("/v2/shop/web/manifests/{sig}")).send();
    assert_eq!(gone.unwrap_or_else(|none| panic!("{none}")).status, 202);
    for at in 0..=edge {
        wait::until_ok("it is refused", || refused(&mesh, at, digest, "signature"));
    }
    // somebody has a reason
    let exact = format!("shop/web@{digest}");
    let exempt = [&*exact, "--reason", "the signer is down", "--until", &in_days(1)];
    did(&atoll(&mesh, 1, "exempt", &exempt));
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, digest));
    }
    did(&atoll(&mesh, 1, "exempt", &[&exact, "--end"]));
    wait::until_ok("it is refused", || refused(&mesh, edge, digest, "signature"));
    let log = mesh.client(0).get("/api/v2.0/projects/shop/auditlog-exts?page_size=100");
    let log = log.unwrap_or_else(|none| panic!("{none}")).json().to_string();
    for said in ["the signer is down", "compromised: stolen", "signature exemption"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    // Harbor's way of saying it
    set(&mesh, &json!({"signature_status": "412"}));
    wait::until("it is refused as in Harbor", || {
        let answer = asks(&anybody(&mesh, 0), Method::GET, digest);
        let code = answer.envelope().unwrap_or_default().0;
        (answer.status == 412 && code == "PROJECTPOLICYVIOLATION").then_some(())
    });
    // a gate that only warns
    set(&mesh, &json!({"signature_policy": "warn"}));
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, digest));
    }
}

/// A key that was compromised is trusted no more: not when another is put in its place, nor in another
/// form.
fn never_again(mesh: &Formed, stolen: &KeyPair, other: &KeyPair) {
    let (signers, client) = ("/api/v2.0/projects/shop/signers", mesh.client(2));
    let pem = |key: &KeyPair| std::fs::read_to_string(&key.public).expect("a public key");
    let (stolen, replaced) = (pem(stolen), json!({"key": pem(other)}));
    let answer = client.send_json(Method::PUT, &format!("{signers}/ci"), &replaced);
    let answer = answer.unwrap_or_else(|none| panic!("{none}"));
    assert!(answer.status == 400 && answer.to_string().contains("keeps what it was"), "{answer}");
    // the same point, compressed: the form before it says what it is
    let base64 = base64::prelude::BASE64_STANDARD;
    let body: String = stolen.lines().filter(|line| !line.starts_with("---")).collect();
    let long = base64.decode(body).expect("DER");
    let (before, point) = long.split_at(long.len() - 65);
    let mut short = before.to_vec();
    let tail = short.len();
    (short[1], short[tail - 2]) = (short[1] - 32, short[tail - 2] - 32);
    short.push(2 + (point[64] & 1));
    short.extend(&point[1..33]);
    let compressed =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64.encode(short));
    for key in [&stolen, &compressed] {
        let again = json!({"name": "again", "key": key});
        let answer = client.send_json(Method::POST, signers, &again);
        let answer = answer.unwrap_or_else(|none| panic!("{none}"));
        let said = answer.to_string().contains("compromised");
        assert!(answer.status == 400 && said, "{answer}");
    }
}

/// A signer is not removed while the policy names it, nor before somebody was told what that shuts.
fn ends_when_it_is_known_what_that_shuts(mesh: &Formed) {
    let remove = ["remove", "other", "--project", "shop"];
    set(mesh, &json!({"signature_require": "other"}));
    let named = atoll(mesh, 1, "signer", &[&remove[..], &["--yes"]].concat());
    assert!(!named.success && named.err.contains("names the signer other"), "{named:?}");
    did(&atoll(mesh, 1, "project", &["set", "shop", "signature_require="]));
    let asked = atoll(mesh, 1, "signer", &remove);
    assert!(!asked.success && asked.err.contains("other stays; confirm with --yes"), "{asked:?}");
    let told = "Without other 1 of 4 tags would be refused that are not now";
    assert!(asked.err.contains(told) && asked.err.contains("shop/web:v9"), "{asked:?}");
}

fn tag_of(image: &Image) -> String {
    format!("{}.sig", image.digest().replace(':', "-"))
}

#[test]
fn those_who_sign_read_what_is_unsigned_and_all_their_signatures_are_kept() {
    let (mesh, edge) = with_shop("", "1s");
    let web = mesh.repository(0, "shop/web");
    let image = Image::tiny();
    web.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let pulls = create_robot(&mesh.client(0), &robot_of("shop", "pulls", &["pull", "push"]));
    let mut may_sign = robot_of("shop", "signs", &["pull", "push"]);
    let access = may_sign["permissions"][0]["access"].as_array_mut().expect("a list");
    access.push(json!({"resource": "accessory", "action": "create"}));
    let signs = create_robot(&mesh.client(0), &may_sign);
    let six = (0..6).map(|n| {
        let hand = hand(&mesh, &signs.name, &signs.secret);
        let key = hand.key("own", P256);
        trust(&mesh, &format!("ci{n}"), &key.public);
        (hand, key)
    });
    let hands: Vec<(Signers, KeyPair)> = six.collect();
    let unknown = json!({"metadata": {"signature_require": "ci0;nobody"}});
    let answer = mesh.client(0).send_json(Method::PUT, "/api/v2.0/projects/shop", &unknown);
    let answer = answer.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(answer.status, 400, "{answer}");
    assert!(answer.to_string().contains("trusts no signer nobody"), "{answer}");
    set(&mesh, &json!({"signature_policy": "enforce", "signature_require": "ci0;ci1"}));
    // no User-Agent opens the gate
    let stranger = mesh.client(1).basic(&pulls.name, &pulls.secret);
    let path = format!("/v2/shop/web/manifests/{}", image.digest());
    let answer = stranger.ask(Method::GET, &path).header("user-agent", "cosign/v2.5.0").send();
    assert_eq!(answer.unwrap_or_else(|none| panic!("{none}")).status, 403);
    let without = hand(&mesh, &pulls.name, &pulls.secret);
    let own = without.key("own", P256);
    assert!(!sign(&without, "cosign2", &own, &named(&mesh, 0, &image)).success);

    // six at once, at three nodes
    std::thread::scope(|scope| {
        let signing: Vec<_> = hands
            .iter()
            .enumerate()
            .map(|(n, (hand, key))| {
                let name = named(&mesh, n % 3, &image);
                let program = if n % 2 == 0 { "cosign2" } else { "cosign3" };
                scope.spawn(move || sign(hand, program, key, &name))
            })
            .collect();
        for one in signing {
            did(&one.join().expect("it ends"));
        }
    });
    wait::until_ok("all six are there", || {
        let shown = atoll(&mesh, 1, "signatures", &["shop/web:1"]).out;
        let has = |n: &usize| shown.contains(&format!("ci{n}, cosign: counts\n"));
        if (0..6).all(|n| has(&n)) { Ok(()) } else { Err(shown) }
    });
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, "1"));
    }
    // what cannot be joined with them does not take their place, whatever the client says is there
    let sig = tag_of(&image);
    let (found, kept) = web.manifest(&sig).unwrap_or_else(|no| panic!("{no}"));
    let mut mixed: Value = serde_json::from_slice(&kept).expect("JSON");
    let other = Blob::of("{\"other\": 1}");
    web.upload(&other).unwrap_or_else(|no| panic!("{no}"));
    let layer =
        json!({"mediaType": "text/plain", "digest": other.digest, "size": other.bytes.len()});
    mixed["layers"] = json!([mixed["layers"][0], layer]);
    let plain = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": mixed["config"].clone(), "layers": [],
    });
    for (junk, condition) in [(&mixed, None), (&plain, None), (&plain, Some(&found.digest))] {
        let put = mesh.client(1).ask(Method::PUT, &format!("/v2/shop/web/manifests/{sig}"));
        let put = put.header("content-type", MANIFEST).body(junk.to_string());
        let put = match condition {
            Some(digest) => put.header("if-match", &format!("\"{digest}\"")),
            None => put,
        };
        let answer = put.send().unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(answer.status, 400, "{answer}");
    }
    let (still, _) = web.manifest(&sig).unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(still.digest, found.digest);
    // an image that calls itself attestations, and an index that has one inside, at a tag as if they
    // were about another
    let packed = Image::unpackable(&[64]);
    for blob in &packed.blobs {
        web.upload(blob).unwrap_or_else(|no| panic!("{no}"));
    }
    let mut disguised: Value = serde_json::from_slice(&packed.manifest.bytes).expect("JSON");
    for layer in disguised["layers"].as_array_mut().expect("layers") {
        layer["mediaType"] = "application/vnd.in-toto+json".into();
    }
    let inside = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{
            "mediaType": MANIFEST, "digest": packed.digest(), "size": packed.manifest.bytes.len(),
            "data": base64::engine::general_purpose::STANDARD.encode(&packed.manifest.bytes),
        }],
    });
    let behind = format!("sha256-{}", "ab".repeat(32));
    for (what, kind, tag) in [
        (&disguised, MANIFEST, "disguised".to_owned()),
        (&disguised, MANIFEST, format!("{behind}.att")),
        (&inside, INDEX, behind.clone()),
    ] {
        let bytes = what.to_string().into_bytes();
        web.put_bytes(&tag, kind, bytes.into()).unwrap_or_else(|no| panic!("{tag}: {no}"));
        for at in 0..=edge {
            wait::until_ok("it is refused", || refused(&mesh, at, &tag, "not signed"));
        }
    }
    // one of two lists is not enough
    let half = Image::random(&[80]);
    web.push(&half, "2").unwrap_or_else(|no| panic!("{no}"));
    did(&sign(&hands[0].0, "cosign2", &hands[0].1, &named(&mesh, 2, &half)));
    for at in 0..=edge {
        wait::until_ok("it is refused", || {
            refused(&mesh, at, "2", "a signature by ci1 is missing")
        });
    }

    // an index is signed, and with it what it lists
    set(&mesh, &json!({"signature_require": "ci0"}));
    let (children, index) = index_of(&[Image::random(&[81]), Image::random(&[82])]);
    for child in &children {
        for blob in &child.blobs {
            web.upload(blob).unwrap_or_else(|no| panic!("{no}"));
        }
        web.put_manifest(child.digest(), child).unwrap_or_else(|no| panic!("{no}"));
    }
    web.put_bytes("many", INDEX, index.bytes.clone()).unwrap_or_else(|no| panic!("{no}"));
    for at in 0..=edge {
        wait::until_ok("the index is refused", || refused(&mesh, at, "many", "not signed"));
        let child = children[0].digest();
        wait::until_ok("so is a child", || refused(&mesh, at, child, "not signed"));
    }
    let place = format!("{}/shop/web@{}", mesh.members()[0].place().http, index.digest);
    did(&bundle(&hands[0].0, &hands[0].1, &place));
    for at in 0..=edge {
        for reference in ["many", children[0].digest(), children[1].digest()] {
            wait::until_ok("it is served", || served(&mesh, at, reference));
        }
    }
    set(&mesh, &json!({"signature_children": "false"}));
    for at in 0..=edge {
        wait::until_ok("the index is served", || served(&mesh, at, "many"));
        let child = children[0].digest();
        wait::until_ok("a child is refused", || refused(&mesh, at, child, "not signed"));
    }

    // a pull waits for the signature of what was pushed a moment ago
    set(&mesh, &json!({"signature_wait": "60"}));
    let fresh = Image::random(&[83]);
    web.push(&fresh, "fresh").unwrap_or_else(|no| panic!("{no}"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| served(&mesh, 1, "fresh"));
        did(&sign(&hands[0].0, "cosign2", &hands[0].1, &named(&mesh, 0, &fresh)));
        assert_eq!(waiting.join().expect("it ends"), Ok(()));
    });

    // each decides alone: an edge and a replica whose others have died
    wait::until_ok("the edge serves it", || served(&mesh, edge, "many"));
    wait::until_ok("and knows why not", || {
        refused(&mesh, edge, "2", "ci0").or_else(|_| served(&mesh, edge, "2"))
    });
    for member in &mesh.members()[..3] {
        member.stop(Signal::KILL);
    }
    assert_eq!(served(&mesh, edge, &index.digest), Ok(()));
    assert!(refused(&mesh, edge, children[0].digest(), "not signed").is_ok());
}

/// An index of these images.
fn index_of(images: &[Image]) -> (Vec<Image>, Blob) {
    let architectures = ["amd64", "arm64"];
    let manifests = images.iter().zip(architectures).map(|(image, architecture)| {
        json!({
            "mediaType": MANIFEST,
            "digest": image.digest(),
            "size": image.manifest.bytes.len(),
            "platform": {"os": "linux", "architecture": architecture},
        })
    });
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests.collect::<Vec<_>>(),
    });
    (images.to_vec(), Blob::of(index.to_string()))
}

/// What a program says whose name is not on the path of signers.
fn skopeo(hand: &Signers, policy: &Value, registries: &Value, image: &str) -> Finished {
    let (folder, to) = (hand.at("of-the-mesh"), hand.at("copy"));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::remove_dir_all(&to).ok();
    hand.write("policy.json", &policy.to_string());
    std::fs::write(folder.join("atoll.yaml"), registries.to_string()).expect("a file");
    let mut command = tools::newer_skopeo();
    command.env("HOME", hand.folder());
    command.arg("--policy").arg(hand.at("policy.json"));
    command.arg("--registries.d").arg(&folder);
    command.args(["copy", "--src-tls-verify=false", &format!("docker://{image}")]);
    process::finish(command.arg(format!("dir:{}", to.display())))
}

#[test]
fn the_mesh_signs_what_has_met_its_projects_rules_and_others_verify_it() {
    let secrets = tempfile::TempDir::with_prefix("atoll-signing-").expect("a temporary folder");
    let passphrase = secrets.path().join("passphrase");
    std::fs::write(&passphrase, "a long passphrase of the operator\n").expect("a file");
    let settings = format!("signing: {{passphrase_file: '{}'}}\n", passphrase.display());
    let (mesh, edge) = with_shop(&settings, "1h");
    let web = mesh.repository(0, "shop/web");
    let image = Image::tiny();
    web.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let digest = image.digest();

    // it says what is missing
    let early = atoll(&mesh, 1, "sign", &["shop/web:1"]);
    assert!(!early.success && early.err.contains("signature_host"), "{early:?}");
    let host = mesh.members()[0].place().http.to_string();
    set(&mesh, &json!({"signature_host": host}));
    let early = atoll(&mesh, 1, "sign", &["shop/web:1"]);
    assert!(!early.success && early.err.contains("has no key of its own"), "{early:?}");
    did(&atoll(&mesh, 2, "sign", &["key", "--project", "shop"]));
    let again = atoll(&mesh, 2, "sign", &["key", "--project", "shop"]);
    assert!(!again.success && again.err.contains("has a key"), "{again:?}");

    // both of ours and that of CI are needed; the mesh signs last
    let ann = hand(&mesh, "admin", mesh.password());
    let ci = ann.key("ci", P256);
    trust(&mesh, "ci", &ci.public);
    set(
        &mesh,
        &json!({"signature_policy": "enforce", "signature_require": "ci;mesh", "signature_name": "none"}),
    );
    let refusal = atoll(&mesh, 0, "sign", &["shop/web:1"]);
    assert!(!refusal.success && refusal.err.contains("it is not signed"), "{refusal:?}");
    did(&sign(&ann, "cosign2", &ci, &named(&mesh, 1, &image)));
    wait::until_ok("one signature is missing", || {
        refused(&mesh, edge, "1", "a signature by mesh is missing")
    });
    let signed = atoll(&mesh, 1, "sign", &["shop/web:1"]);
    assert!(signed.success && signed.out.contains("1 of 1 manifests are signed"), "{signed:?}");
    for at in 0..=edge {
        for reference in ["1", digest] {
            wait::until_ok("it is served", || served(&mesh, at, reference));
        }
    }
    let again = atoll(&mesh, 1, "sign", &["shop/web:1"]);
    assert!(again.success && again.out.contains("0 of 1 manifests are signed"), "{again:?}");

    // what others say of it
    let show = |client: &str| {
        let shown = atoll(&mesh, 0, "sign", &["show", "--project", "shop", "--for", client]);
        assert!(shown.success, "{shown:?}");
        shown.out
    };
    ann.write("mesh.pub", &show("keys"));
    let other = ann.key("other", P256).public;
    // (cosign verifies over plain HTTP at 127.0.0.1 only: `signatures_made` has that)
    let own = ann.at("mesh.pub").display().to_string();
    let policy = show("policy.json").replace("/etc/atoll/shop-mesh.pub", &own);
    let policy: Value = serde_json::from_str(&policy).expect("JSON");
    let registries: Value = serde_json::from_str(&show("registries.d")).expect("JSON");
    let tagged = format!("{host}/shop/web:1");
    did(&skopeo(&ann, &policy, &registries, &tagged));
    let wrong = policy.to_string().replace(&own, &other.display().to_string());
    let wrong: Value = serde_json::from_str(&wrong).expect("JSON");
    assert!(!skopeo(&ann, &wrong, &registries, &tagged).success);

    // an index with all it lists, by the next primary, after the first has stopped for a while
    let (children, index) = index_of(&[Image::random(&[91]), Image::random(&[92])]);
    for child in &children {
        for blob in &child.blobs {
            web.upload(blob).unwrap_or_else(|no| panic!("{no}"));
        }
        web.put_manifest(child.digest(), child).unwrap_or_else(|no| panic!("{no}"));
    }
    web.put_bytes("many", INDEX, index.bytes.clone()).unwrap_or_else(|no| panic!("{no}"));
    let place = format!("{}/shop/web@{}", mesh.members()[0].place().http, index.digest);
    did(&bundle(&ann, &ci, &place));
    let status = mesh.status(0).expect("a status");
    let primary = tests::mesh::primary(&status, "shop").expect("a primary");
    let primary = THREE.iter().position(|(name, _)| *name == primary).expect("it is one of them");
    let other = (primary + 1) % 3;
    mesh.members()[primary].signal(Signal::STOP);
    wait::until_ok("the next primary signs", || {
        let signed = atoll(&mesh, other, "sign", &["shop/web:many"]);
        if signed.success { Ok(()) } else { Err(signed.err) }
    });
    mesh.members()[primary].signal(Signal::CONT);
    for at in 0..=edge {
        for reference in ["many", children[0].digest(), children[1].digest()] {
            wait::until_ok("it is served", || served(&mesh, at, reference));
        }
    }
    for child in &children {
        did(&skopeo(&ann, &policy, &registries, &format!("{host}/shop/web@{}", child.digest())));
    }
    wait::until_ok("the log is whole", || {
        let log = atoll(&mesh, primary, "sign", &["log", "--project", "shop", "--verify"]);
        let whole = log.success && log.out.contains("the log is whole: 4 entries");
        if whole { Ok(()) } else { Err(format!("{log:?}")) }
    });

    // another key: what the old one has signed stays good
    did(&atoll(&mesh, other, "sign", &["key", "--project", "shop", "--rotate"]));
    let shown = atoll(&mesh, 0, "sign", &["show", "--project", "shop"]);
    assert!(shown.out.contains("mesh-2") && shown.out.contains("verify-only"), "{shown:?}");
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, "1"));
    }
    // the mesh signs it anew, and then the old one can end
    wait::until("nothing has the old key's signature only", || {
        let shown = mesh.client(other).get("/api/v2.0/projects/shop/signing").ok()?.json();
        (shown["keys"][0]["only_by_it"] == 0).then_some(())
    });
    let revoke =
        ["revoke", "mesh", "--project", "shop", "--compromised", "--reason", "leaked", "--yes"];
    did(&atoll(&mesh, 1, "signer", &revoke));
    for at in 0..=edge {
        for reference in ["1", "many", children[0].digest(), children[1].digest()] {
            wait::until_ok("what the new key has signed is served", || {
                served(&mesh, at, reference)
            });
        }
    }
    // edges are told public keys only
    let status =
        mesh.client(edge).get("/api/v2.0/projects/shop/signing").expect("an answer").status;
    assert_eq!(status, 405);
}

#[test]
fn a_primary_without_the_operators_passphrase_signs_nothing_and_says_so() {
    let mesh = Formed::of(&THREE[..1], "");
    create_project(&mesh.client(0), "shop", true, 1);
    let key = atoll(&mesh, 0, "sign", &["key", "--project", "shop"]);
    assert!(!key.success && key.err.contains("signing.passphrase_file"), "{key:?}");
}
