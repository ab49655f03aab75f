//! An image without the signatures that its project demands is refused at every replica and edge, by
//! each of them alone; signatures are verified, whoever wrote them.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::http::{Answer, Client};
use tests::image::{Blob, Image};
use tests::people::{create_robot, robot_of};
use tests::process::{self, Finished};
use tests::repository::create_project;
use tests::{tools, wait};

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const PASSPHRASE: &str = "correct horse";

/// Somebody who signs, with a folder for keys and what programs keep.
struct Hand {
    folder: PathBuf,
    name: String,
    secret: String,
}

impl Hand {
    fn new(folder: &Path, name: &str, secret: &str) -> Self {
        let folder = folder.join(name.replace(['$', '+'], "-"));
        std::fs::create_dir_all(folder.join("home/.docker")).expect("a folder");
        let config = json!({
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "rekorTlogConfig": {},
            "tsaConfig": {},
        });
        std::fs::write(folder.join("alone.json"), config.to_string()).expect("a file");
        Hand { folder, name: name.into(), secret: secret.into() }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = tools::signer(program);
        command.current_dir(&self.folder).env("HOME", self.folder.join("home"));
        command.env("COSIGN_PASSWORD", PASSPHRASE).env("COSIGN_YES", "true");
        command
    }

    /// Makes a pair of keys, and gives the public one.
    fn key(&self, name: &str) -> PathBuf {
        let made = ["generate-key-pair", "--output-key-prefix", name];
        process::succeed(self.command("cosign2").args(made));
        self.folder.join(format!("{name}.pub"))
    }

    /// What cosign needs to talk with a node over plain HTTP as this user.
    fn on<'c>(&self, command: &'c mut Command, node: &str) -> &'c mut Command {
        let auth = base64::engine::general_purpose::STANDARD
            .encode(format!("{}:{}", self.name, self.secret));
        let config = json!({"auths": {node: {"auth": auth}}});
        let file = self.folder.join("home/.docker/config.json");
        std::fs::write(file, config.to_string()).expect("a file");
        command.arg("--allow-http-registry")
    }

    /// Signs in cosign's first form.
    fn sign(&self, program: &str, key: &str, image: &str) -> Finished {
        let node = image.split('/').next().expect("a node");
        let mut command = self.command(program);
        command.args(["sign", "--key", &format!("{key}.key")]);
        match program {
            "cosign2" => command.arg("--tlog-upload=false"),
            _ => command.args([
                "--new-bundle-format=false",
                "--use-signing-config=false",
                "--tlog-upload=false",
            ]),
        };
        process::finish(self.on(&mut command, node).arg(image))
    }

    /// Signs with a bundle.
    fn bundle(&self, key: &str, image: &str) -> Finished {
        let node = image.split('/').next().expect("a node");
        let mut command = self.command("cosign3");
        command.args(["sign", "--key", &format!("{key}.key"), "--signing-config", "alone.json"]);
        process::finish(self.on(&mut command, node).arg(image))
    }

    /// Attests something of an image with a bundle.
    fn attest(&self, key: &str, image: &str) -> Finished {
        let node = image.split('/').next().expect("a node");
        std::fs::write(self.folder.join("sbom.json"), "{\"spdxVersion\":\"SPDX-2.3\"}")
            .expect("a file");
        let mut command = self.command("cosign3");
        command.args(["attest", "--key", &format!("{key}.key"), "--signing-config", "alone.json"]);
        command.args(["--type", "spdxjson", "--predicate", "sbom.json"]);
        process::finish(self.on(&mut command, node).arg(image))
    }
}

/// A mesh with a public project, and the place of its edge, which asks again after this time at the
/// latest.
fn with_shop(settings: &str, access_age: &str) -> (Formed, usize) {
    let mut mesh = Formed::of(&THREE, settings);
    let age = format!("edge: {{access_age: {access_age}}}\n");
    let edge = mesh.add_edge("edge", "us-east-1", &age);
    mesh.members()[edge].wait_ready();
    create_project(&mesh.client(0), "shop", true, 2);
    (mesh, edge)
}

fn did(finished: &Finished) {
    assert!(finished.success, "{finished:?}");
}

/// The image as clients name it at a node.
fn named(mesh: &Formed, at: usize, image: &Image) -> String {
    format!("{}/shop/web@{}", mesh.members()[at].place().http, image.digest())
}

fn set(mesh: &Formed, metadata: &Value) {
    let body = json!({"metadata": metadata});
    let answer = mesh.client(0).send_json(Method::PUT, "/api/v2.0/projects/shop", &body);
    let answer = answer.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(answer.status, 200, "{answer}");
}

fn atoll(mesh: &Formed, at: usize, verb: &str, arguments: &[&str]) -> Finished {
    let password = mesh.folder().join("password-for-signing");
    std::fs::write(&password, mesh.password()).expect("a file");
    let url = format!("http://{}", mesh.members()[at].place().http);
    let mut command = mesh.members()[0].atoll(verb);
    command.args(arguments).args(["--url", &url, "--password-file"]);
    process::finish(command.arg(password))
}

fn trust(mesh: &Formed, name: &str, key: &Path) {
    let key = key.display().to_string();
    did(&atoll(mesh, 0, "signer", &["add", name, "--project", "shop", "--key", &key]));
}

/// What somebody without an account gets at a node.
fn anybody(mesh: &Formed, at: usize) -> Client {
    mesh.client(at).anonymous()
}

fn asks(client: &Client, method: Method, reference: &str) -> Answer {
    let path = format!("/v2/shop/web/manifests/{reference}");
    client.ask(method, &path).send().unwrap_or_else(|none| panic!("{none}"))
}

/// Whether a node serves it to everybody; else what it said.
fn served(mesh: &Formed, at: usize, reference: &str) -> Result<(), String> {
    let answer = asks(&anybody(mesh, at), Method::GET, reference);
    match answer.status {
        200 => Ok(()),
        status => Err(format!("{status} {}", answer.envelope().unwrap_or_default().1)),
    }
}

/// Whether a node refuses it for `why`, to GET and HEAD; else what it said.
fn refused(mesh: &Formed, at: usize, reference: &str, why: &str) -> Result<(), String> {
    let answer = asks(&anybody(mesh, at), Method::GET, reference);
    let said = answer.envelope().unwrap_or_default();
    let expected = answer.status == 403 && said.0 == "DENIED" && said.1.contains(why);
    let head = asks(&anybody(mesh, at), Method::HEAD, reference).status;
    match expected && head == 403 {
        true => Ok(()),
        false => Err(format!("{} (HEAD {head}) {said:?}", answer.status)),
    }
}

#[test]
fn an_image_needs_the_signatures_of_whom_its_project_trusts_at_every_node() {
    // long, so that it learns of each change only because it is told
    let (mesh, edge) = with_shop("", "1h");
    let web = mesh.repository(0, "shop/web");
    let image = Image::tiny();
    web.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let digest = image.digest();
    let ann = Hand::new(mesh.folder(), "admin", mesh.password());
    let (ci, other) = (ann.key("ci"), ann.key("other"));
    assert!(other.exists());

    // a project trusts whom it says, and serves the rest until it says otherwise
    trust(&mesh, "ci", &ci);
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, "1"));
    }
    let preview = atoll(&mesh, 1, "signatures", &["--unsigned", "shop"]);
    assert!(preview.success && preview.out.contains("1 of 1 tags would be refused"), "{preview:?}");
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
    did(&ann.sign("cosign2", "other", &named(&mesh, 1, &image)));
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
    did(&ann.attest("ci", &named(&mesh, 2, &image)));
    wait::until_ok("it is refused for its attestation", || {
        refused(&mesh, 0, "1", "an attestation of https://spdx.dev/Document by ci is no signature")
    });

    // the right key
    did(&ann.sign("cosign3", "ci", &named(&mesh, 2, &image)));
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
    did(&ann.bundle("ci", &named(&mesh, 0, &another)));
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
    did(&ann.sign("cosign2", "ci", &named(&mesh, 0, &third)));
    wait::until_ok("what is signed later is refused", || {
        refused(&mesh, edge, "3", "the signer ci is revoked: rotated")
    });
    let revoke = ["revoke", "ci", "--project", "shop", "--compromised", "--reason", "stolen"];
    did(&atoll(&mesh, 1, "signer", &revoke));
    for at in 0..=edge {
        wait::until_ok("nothing of it counts", || {
            refused(&mesh, at, digest, "the signer ci is revoked: stolen")
        });
    }
    // a new key counts for what it has signed before anybody trusted it
    trust(&mesh, "other", &other);
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, digest));
    }
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

fn in_days(days: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    (now.as_secs() + days * 86_400).to_string()
}

/// The tag of cosign's signatures of an image.
fn tag_of(image: &Image) -> String {
    format!("{}.sig", image.digest().replace(':', "-"))
}

#[test]
fn those_who_sign_read_what_is_unsigned_and_all_their_signatures_are_kept() {
    let (mesh, edge) = with_shop("", "1s");
    let web = mesh.repository(0, "shop/web");
    let image = Image::tiny();
    web.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    set(&mesh, &json!({"signature_policy": "enforce", "signature_require": "ci0;ci1"}));
    let pulls = create_robot(&mesh.client(0), &robot_of("shop", "pulls", &["pull", "push"]));
    let mut may_sign = robot_of("shop", "signs", &["pull", "push"]);
    let access = may_sign["permissions"][0]["access"].as_array_mut().expect("a list");
    access.push(json!({"resource": "accessory", "action": "create"}));
    let signs = create_robot(&mesh.client(0), &may_sign);
    let hands: Vec<Hand> = (0..6)
        .map(|n| Hand::new(&mesh.folder().join(format!("hand{n}")), &signs.name, &signs.secret))
        .collect();
    for (n, hand) in hands.iter().enumerate() {
        let key = hand.key("own");
        trust(&mesh, &format!("ci{n}"), &key);
    }
    // no User-Agent opens the gate
    let stranger = mesh.client(1).basic(&pulls.name, &pulls.secret);
    let path = format!("/v2/shop/web/manifests/{}", image.digest());
    let answer = stranger.ask(Method::GET, &path).header("user-agent", "cosign/v2.5.0").send();
    assert_eq!(answer.unwrap_or_else(|none| panic!("{none}")).status, 403);
    let without = Hand::new(mesh.folder(), &pulls.name, &pulls.secret);
    without.key("own");
    assert!(!without.sign("cosign2", "own", &named(&mesh, 0, &image)).success);

    // six at once, at three nodes
    std::thread::scope(|scope| {
        let signing: Vec<_> = hands
            .iter()
            .enumerate()
            .map(|(n, hand)| {
                let name = named(&mesh, n % 3, &image);
                let program = if n % 2 == 0 { "cosign2" } else { "cosign3" };
                scope.spawn(move || hand.sign(program, "own", &name))
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
    did(&hands[0].sign("cosign2", "own", &named(&mesh, 2, &half)));
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
    did(&hands[0].bundle("own", &place));
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
        did(&hands[0].sign("cosign2", "own", &named(&mesh, 0, &fresh)));
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
fn skopeo(hand: &Hand, policy: &Value, registries: &Value, image: &str) -> Finished {
    let (folder, to) = (hand.folder.join("registries.d"), hand.folder.join("copy"));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::remove_dir_all(&to).ok();
    std::fs::write(hand.folder.join("policy.json"), policy.to_string()).expect("a file");
    std::fs::write(folder.join("atoll.yaml"), registries.to_string()).expect("a file");
    let mut command = tools::newer_skopeo();
    command.env("HOME", hand.folder.join("home"));
    command.arg("--policy").arg(hand.folder.join("policy.json"));
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
    let ann = Hand::new(mesh.folder(), "admin", mesh.password());
    trust(&mesh, "ci", &ann.key("ci"));
    set(
        &mesh,
        &json!({"signature_policy": "enforce", "signature_require": "ci;mesh", "signature_name": "none"}),
    );
    let refusal = atoll(&mesh, 0, "sign", &["shop/web:1"]);
    assert!(!refusal.success && refusal.err.contains("it is not signed"), "{refusal:?}");
    did(&ann.sign("cosign2", "ci", &named(&mesh, 1, &image)));
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
    std::fs::write(ann.folder.join("mesh.pub"), show("keys")).expect("a file");
    let other = ann.key("other");
    // (cosign verifies over plain HTTP at 127.0.0.1 only: `signatures_made` has that)
    let own = ann.folder.join("mesh.pub").display().to_string();
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
    did(&ann.bundle("ci", &place));
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
    let log = atoll(&mesh, primary, "sign", &["log", "--project", "shop", "--verify"]);
    assert!(log.success && log.out.contains("the log is whole: 4 entries"), "{log:?}");

    // another key: what the old one has signed stays good
    did(&atoll(&mesh, other, "sign", &["key", "--project", "shop", "--rotate"]));
    let shown = atoll(&mesh, 0, "sign", &["show", "--project", "shop"]);
    assert!(shown.out.contains("mesh-2") && shown.out.contains("verify-only"), "{shown:?}");
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, "1"));
    }
    did(&atoll(&mesh, 0, "sign", &["shop/web:1"]));
    let revoke = ["revoke", "mesh", "--project", "shop", "--compromised", "--reason", "leaked"];
    did(&atoll(&mesh, 1, "signer", &revoke));
    for at in 0..=edge {
        wait::until_ok("it is refused", || {
            refused(&mesh, at, "many", "a signature by mesh is missing")
        });
        wait::until_ok("what the new key has signed is served", || served(&mesh, at, "1"));
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
