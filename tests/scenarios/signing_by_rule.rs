//! The mesh signs by itself what its projects' rules let it, in every form, with keys that only who has
//! the operator's passphrase can open.

use std::path::Path;

use base64::Engine as _;
use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::{Blob, INDEX, Image, MANIFEST};
use tests::mesh::primary;
use tests::process::{self, Finished};
use tests::repository::create_project;
use tests::shop::{THREE, atoll, did, in_days, named, refused, served, set, trust, with_shop};
use tests::signers::{P256, PASSPHRASE, Signers};
use tests::wait;

fn passphrase(folder: &Path, name: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, format!("a long passphrase of the operator: {name}\n")).expect("a file");
    file.display().to_string()
}

/// The number of entries of the sign log, which must be whole.
fn logged(mesh: &Formed, at: usize) -> u64 {
    let log = mesh.client(at).get("/api/v2.0/projects/shop/signing/log?verify=true");
    let log = log.unwrap_or_else(|none| panic!("{none}")).json();
    assert_eq!(log["whole"], true, "{log}");
    log["last"]["number"].as_u64().expect("a number")
}

fn signing(mesh: &Formed, at: usize) -> Value {
    let shown = mesh.client(at).get("/api/atoll/v1/projects/shop/signing");
    shown.unwrap_or_else(|none| panic!("{none}")).json()
}

/// The number of manifests that only this key has signed.
fn only_by(mesh: &Formed, at: usize, signer: &str) -> u64 {
    let shown = signing(mesh, at);
    let keys = shown["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["signer"] == signer);
    key.unwrap_or_else(|| panic!("{shown}"))["only_by_it"].as_u64().expect("a number")
}

fn explained(mesh: &Formed, at: usize, image: &str, what: &str) -> Result<(), String> {
    let told = atoll(mesh, at, "explain", &[image]);
    if told.success && told.out.contains(what) { Ok(()) } else { Err(format!("{told:?}")) }
}

/// Which member is the primary.
fn primary_at(mesh: &Formed, asked: usize) -> Result<usize, String> {
    let status = mesh.status(asked)?;
    let name = primary(&status, "shop").ok_or("no primary")?;
    THREE.iter().position(|(one, _)| *one == name).ok_or(name)
}

#[test]
fn a_rule_signs_each_tag_once_when_its_gates_let_it_whoever_is_the_primary() {
    let secrets = tempfile::TempDir::with_prefix("atoll-rule-").expect("a temporary folder");
    let file = passphrase(secrets.path(), "first");
    let (mesh, edge) = with_shop(&format!("signing: {{passphrase_file: '{file}'}}\n"), "1h");
    let web = mesh.repository(0, "shop/web");
    let push = |image: &Image, tag: &str| {
        web.push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    };
    let nodes: Vec<String> =
        mesh.members().iter().map(|member| member.place().http.to_string()).collect();
    let ann = Signers::at_each(&nodes, "admin", mesh.password());
    let ci = ann.key("ci", P256);
    trust(&mesh, "ci", &ci.public);
    did(&atoll(&mesh, 0, "sign", &["key", "--project", "shop"]));
    set(
        &mesh,
        &json!({
            "signature_host": nodes[0], "signature_auto": "v*", "signature_policy": "enforce",
            "signature_require": "ci;mesh",
        }),
    );

    // not before CI has signed it
    let image = Image::tiny();
    push(&image, "v1");
    push(&image, "latest");
    for at in 0..=edge {
        wait::until_ok("it says what it waits for", || {
            explained(&mesh, at, "shop/web:v1", "signing   waits (signature_auto=v*)")?;
            explained(&mesh, at, "shop/web:v1", "it is not signed")?;
            explained(&mesh, at, "shop/web:latest", "the rule is not about the tag latest")
        });
        wait::until_ok("it is refused", || refused(&mesh, at, "v1", "it is not signed"));
    }
    // an exemption of an index is one of what it lists, also in an index within it, and no reason to sign
    let size = image.manifest.bytes.len();
    let entry = json!({"mediaType": MANIFEST, "digest": image.digest(), "size": size});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    let within = Blob::of(index.to_string());
    web.put_bytes(&within.digest, INDEX, within.bytes.clone()).unwrap_or_else(|no| panic!("{no}"));
    let size = within.bytes.len();
    let entry = json!({"mediaType": INDEX, "digest": within.digest, "size": size});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    let index = Blob::of(index.to_string());
    web.put_bytes("v0", INDEX, index.bytes.clone()).unwrap_or_else(|no| panic!("{no}"));
    let (exact, listed) = (format!("shop/web@{}", index.digest), image.digest());
    let order = [&*exact, "--reason", "a night", "--until", &in_days(1)];
    did(&atoll(&mesh, 1, "exempt", &order));
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, "v0"));
        for one in [&*within.digest, listed] {
            wait::until_ok("with what it lists", || served(&mesh, at, one));
        }
        wait::until_ok("and says why, and what is still waited for", || {
            explained(&mesh, at, &format!("shop/web@{listed}"), "has exempted the index sha256:")?;
            explained(&mesh, at, "shop/web:v0", "has exempted it until")?;
            explained(&mesh, at, "shop/web:v0", "signing   waits (signature_auto=v*)")
        });
    }
    did(&atoll(&mesh, 1, "exempt", &[&exact, "--end"]));
    wait::until_ok("it is refused", || refused(&mesh, edge, listed, "it is not signed"));
    for index in [&index, &within] {
        let gone = format!("/v2/shop/web/manifests/{}", index.digest);
        let gone = mesh.client(0).ask(Method::DELETE, &gone).send();
        assert_eq!(gone.unwrap_or_else(|none| panic!("{none}")).status, 202);
    }

    assert_eq!(logged(&mesh, 1), 0);
    did(&ann.cosign2("sign", &ci, &[], &named(&mesh, 1, &image)));
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, "v1"));
        wait::until_ok("by whom is told", || {
            explained(&mesh, at, "shop/web:v1", "it is served: it is signed by ci, mesh;")
        });
    }
    wait::until_ok("it says so", || {
        explained(&mesh, 2, "shop/web:v1", "signing   signed (signature_auto=v*)")
    });
    assert_eq!(logged(&mesh, 1), 1, "for the tag of the rule, once");

    // the same image under another tag of the rule, and the same tag on another image
    push(&image, "v2");
    wait::until("it is signed under that, too", || (logged(&mesh, 0) == 2).then_some(()));
    let other = Image::random(&[70]);
    push(&other, "v1");
    did(&ann.cosign3("sign", &ci, false, &[], &named(&mesh, 2, &other)));
    wait::until_ok("the tag is served again", || served(&mesh, edge, "v1"));
    wait::until("once", || (logged(&mesh, 0) == 3).then_some(()));
    let jobs = mesh.client(0).get("/api/atoll/v1/jobs").unwrap_or_else(|none| panic!("{none}"));
    assert!(jobs.json().to_string().contains("signatures in shop: by its rule"), "{jobs}");

    // the next primary goes on
    let dead = primary_at(&mesh, 0).unwrap_or_else(|no| panic!("{no}"));
    let alive = (dead + 1) % 3;
    mesh.members()[dead].stop(Signal::KILL);
    let late = Image::random(&[71]);
    wait::until_ok("another primary takes pushes", || {
        mesh.repository(alive, "shop/web").push(&late, "v3").map_err(|no| no.to_string())
    });
    let place = named(&mesh, alive, &late);
    wait::until_ok("CI signs", || {
        let signed = ann.cosign2("sign", &ci, &[], &place);
        if signed.success { Ok(()) } else { Err(signed.err) }
    });
    wait::until_ok("the mesh signs", || served(&mesh, edge, "v3"));
    assert_eq!(logged(&mesh, alive), 4);
    mesh.members()[dead].serve();
    mesh.members()[dead].wait_ready();

    // another key: everything is signed anew, and then the old one can end
    did(&atoll(&mesh, alive, "sign", &["key", "--project", "shop", "--rotate"]));
    wait::until("everything has the new key's signature", || {
        (only_by(&mesh, alive, "mesh") == 0).then_some(())
    });
    let revoke =
        ["revoke", "mesh", "--project", "shop", "--compromised", "--reason", "leaked", "--yes"];
    did(&atoll(&mesh, alive, "signer", &revoke));
    for at in 0..=edge {
        for tag in ["v1", "v2", "v3"] {
            wait::until_ok("it is served", || served(&mesh, at, tag));
        }
        wait::until_ok("by whom is told", || {
            explained(&mesh, at, "shop/web:v3", "it is signed by ci, mesh-2;")
        });
    }
    assert_eq!(logged(&mesh, alive), 7, "v1, v2 and v3 once more");

    // a rule that is taken out signs nothing more
    did(&atoll(&mesh, 1, "project", &["set", "shop", "signature_auto="]));
    let metadata = mesh.client(0).get("/api/v2.0/projects/shop/metadatas/signature_auto");
    assert_eq!(metadata.unwrap_or_else(|none| panic!("{none}")).status, 404);

    // what edges have kept: whom the project trusts, and no key, sealed or not
    let kept = mesh.members()[edge].data();
    assert!(has_bytes(&kept, b"-----BEGIN PUBLIC KEY-----"), "an edge keeps public keys");
    let sealed = sealed_keys(&mesh, alive);
    assert!(sealed > 0);
    for table in [&b"$k\0\0\0\0"[..], b"$c\0\0\0\0", b"$w\0\0\0\0", b"PRIVATE KEY-----"] {
        let own_identity = table == b"PRIVATE KEY-----";
        let found = files(&kept)
            .into_iter()
            .filter(|file| !(own_identity && file.display().to_string().contains("identity")))
            .find(|file| contains(&std::fs::read(file).unwrap_or_default(), table));
        assert_eq!(found, None, "{}", String::from_utf8_lossy(table));
    }
}

/// The number of keys that a replica says are sealed under a named key.
fn sealed_keys(mesh: &Formed, at: usize) -> usize {
    let shown = signing(mesh, at);
    let keys = shown["keys"].as_array().expect("keys");
    keys.iter().filter(|key| key["sealed_under"].is_string()).count()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

fn has_bytes(folder: &Path, what: &[u8]) -> bool {
    files(folder).iter().any(|file| contains(&std::fs::read(file).unwrap_or_default(), what))
}

/// A key of cosign's, imported, signs what others verify with its public key; what would cost too much
/// to open is refused before it is opened.
#[test]
fn a_key_of_cosign_is_imported_and_signs_for_skopeo_and_for_notation() {
    let secrets = tempfile::TempDir::with_prefix("atoll-import-").expect("a temporary folder");
    let file = passphrase(secrets.path(), "first");
    let mesh = Formed::of(&THREE[..1], &format!("signing: {{passphrase_file: '{file}'}}\n"));
    create_project(&mesh.client(0), "shop", true, 1);
    let node = mesh.members()[0].place().http.to_string();
    let signers = Signers::new(&node, "admin", mesh.password());
    let mut cosign = signers.command("cosign2");
    process::succeed(cosign.args(["generate-key-pair", "--output-key-prefix", "own"]));
    let own = signers.at("own.key").display().to_string();
    signers.write("wrong", "another passphrase");
    let import = |key: &str, passphrase: &str, more: &[&str]| {
        let with = signers.at(passphrase).display().to_string();
        let all = ["key", "--project", "shop", "--import", key, "--passphrase-file", &with];
        atoll(&mesh, 0, "sign", &[&all[..], more].concat())
    };
    let refusal = import(&own, "wrong", &[]);
    assert!(!refusal.success && refusal.err.contains("the passphrase is wrong"), "{refusal:?}");
    // 1 GiB of scrypt, or hours of it
    for (n, p) in [(1_u64 << 20, 1), (1 << 16, 1 << 20)] {
        let inner = json!({
            "kdf": {"name": "scrypt", "params": {"N": n, "r": 8, "p": p}, "salt": "AAAA"},
            "cipher": {"name": "nacl/secretbox", "nonce": "A".repeat(32)}, "ciphertext": "AAAA",
        });
        let inner = base64::engine::general_purpose::STANDARD.encode(inner.to_string());
        let label = "ENCRYPTED SIGSTORE PRIVATE KEY";
        let bomb = format!("-----BEGIN {label}-----\n{inner}\n-----END {label}-----\n");
        let body = json!({"import": {"key": bomb, "passphrase": "x"}});
        let answer =
            mesh.client(0).send_json(Method::POST, "/api/v2.0/projects/shop/signing", &body);
        let answer = answer.unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(answer.status, 400, "{answer}");
        assert!(answer.to_string().contains("costs more than is allowed"), "{answer}");
    }
    did(&import(&own, "passphrase", &[]));
    assert_eq!(PASSPHRASE, std::fs::read_to_string(signers.at("passphrase")).expect("a file"));
    let again = import(&own, "passphrase", &["--rotate"]);
    assert!(!again.success && again.err.contains("trusts this key already"), "{again:?}");
    let other = atoll(&mesh, 0, "sign", &["key", "--project", "shop"]);
    assert!(!other.success && other.err.contains("has a key"), "{other:?}");

    // notation: an authority of the mesh's own, and what others need to verify
    let early = atoll(&mesh, 0, "sign", &["show", "--project", "shop", "--for", "notation"]);
    assert!(!early.success && early.err.contains("atoll sign notation"), "{early:?}");
    set(&mesh, &json!({"signature_host": node, "signature_auto": "**"}));
    did(&atoll(&mesh, 0, "sign", &["notation", "--project", "shop"]));
    let web = mesh.repository(0, "shop/web");
    let image = Image::tiny();
    web.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    wait::until("it is signed", || (logged(&mesh, 0) == 1).then_some(()));
    let folder = signers.folder().display().to_string();
    let written = atoll(&mesh, 0, "trust", &["write", "--project", "shop", "--to", &folder]);
    assert!(written.success && written.out.contains("notation/trustpolicy.json"), "{written:?}");
    let digest = format!("shop/web@{}", image.digest());
    let verified = |what: &str, finished: Finished| {
        assert!(finished.success, "{what}: {}\n{}", finished.out, finished.err);
    };
    // (the log has an entry before the last form can be read)
    wait::until_ok("notation verifies it", || {
        let finished = signers.notation("verify", &[], &digest);
        if finished.success { Ok(()) } else { Err(finished.err) }
    });
    let public = signers.at("shop-mesh.pub");
    assert_eq!(
        std::fs::read_to_string(&public).expect("a file").trim(),
        std::fs::read_to_string(signers.at("own.pub")).expect("a file").trim()
    );
    // what was written says where to look; two files may not say it of one registry
    std::fs::remove_file(signers.at("registries.d/here.yaml")).expect("a file");
    // (cosign verifies over plain HTTP at 127.0.0.1 only: `signatures_made` has that)
    verified("skopeo", signers.skopeo_pulls(&public, "shop/web:1"));
    let kyverno = std::fs::read_to_string(signers.at("kyverno.yaml")).expect("a file");
    let kyverno: Value = serde_json::from_str(&kyverno).expect("JSON");
    assert_eq!(kyverno["kind"], "ClusterPolicy");
    let images = &kyverno["spec"]["rules"][0]["verifyImages"][0]["imageReferences"];
    assert_eq!(*images, json!([format!("{node}/shop/*")]));

    // the gate counts it, too, and not what somebody else signs with notation (not by the rule: `none`)
    set(&mesh, &json!({"signature_auto": "none"}));
    let stranger = Image::random(&[9]);
    web.push(&stranger, "2").unwrap_or_else(|no| panic!("{no}"));
    let plain = Signers::new(&node, "admin", mesh.password());
    process::succeed(plain.command("notation").args(["cert", "generate-test", "--default", "x"]));
    let named = format!("shop/web@{}", stranger.digest());
    did(&plain.notation("sign", &["--username", "admin", "--password", mesh.password()], &named));
    set(&mesh, &json!({"signature_policy": "enforce", "signature_require": "mesh-notation"}));
    wait::until_ok("it is served", || served(&mesh, 0, "1"));
    wait::until_ok("the other is not", || refused(&mesh, 0, "2", "mesh-notation is missing"));

    // the next key is certified by the same authority, and what was signed is signed anew
    did(&atoll(&mesh, 0, "sign", &["key", "--project", "shop", "--rotate"]));
    wait::until("it is signed with the new key", || (only_by(&mesh, 0, "mesh") == 0).then_some(()));
    let revoke = ["revoke", "mesh", "--project", "shop", "--reason", "rotated"];
    did(&atoll(&mesh, 0, "signer", &revoke));
    verified("notation", signers.notation("verify", &[], &digest));

    // certificates of the operator's own authority
    let chain = signers.at("chain");
    certify(&chain, &signing(&mesh, 0)["keys"][1]["pem"]);
    let given = chain.join("chain.pem").display().to_string();
    let wrong = chain.join("ca.pem").display().to_string();
    let refusal =
        atoll(&mesh, 0, "sign", &["notation", "--project", "shop", "--certificates", &wrong]);
    assert!(!refusal.success && refusal.err.contains("certificate"), "{refusal:?}");
    let cosigned = || claimed(&mesh, 0, &image).unwrap_or_else(|no| panic!("{no}")).len();
    assert_eq!(cosigned(), 2, "with each key");
    did(&atoll(&mesh, 0, "sign", &["notation", "--project", "shop", "--certificates", &given]));
    set(&mesh, &json!({"signature_require": "mesh-notation-2"}));
    wait::until_ok("it is signed under that authority, too", || served(&mesh, 0, "1"));
    assert_eq!(cosigned(), 2, "and for notation only");
    let written = atoll(&mesh, 0, "trust", &["write", "--project", "shop", "--to", &folder]);
    for key in ["shop-mesh.pub", "shop-mesh-2.pub"] {
        assert!(written.success && written.out.contains(key), "{written:?}");
    }
    breaks_the_log(&mesh);
    verified("notation", signers.notation("verify", &[], &digest));
}

/// The log is whole; and broken when somebody who has the disk has changed an entry.
fn breaks_the_log(mesh: &Formed) {
    let verify = || atoll(mesh, 0, "sign", &["log", "--project", "shop", "--verify"]);
    let whole = verify();
    assert!(whole.success && whole.out.contains("the log is whole"), "{whole:?}");
    let log = mesh.client(0).get("/api/v2.0/projects/shop/signing/log");
    let log = log.unwrap_or_else(|none| panic!("{none}")).json();
    let last = log["entries"].as_array().and_then(|all| all.last()).expect("an entry").clone();
    let before = last["before"].as_str().and_then(|one| one.strip_prefix("sha256:"));
    let before = hex::decode(before.expect("a digest")).expect("a digest");
    let member = &mesh.members()[0];
    member.stop(Signal::TERM);
    let ledger = files(&member.data()).into_iter().find(|file| file.ends_with("ledger.redb"));
    let ledger = ledger.expect("a ledger");
    let mut bytes = std::fs::read(&ledger).expect("a ledger");
    let places = bytes.windows(before.len()).enumerate().filter(|(_, one)| **one == before[..]);
    let places: Vec<usize> = places.map(|(place, _)| place).collect();
    assert!(!places.is_empty(), "an entry has the hash of the one before");
    for place in places {
        bytes[place] ^= 1;
    }
    std::fs::write(&ledger, bytes).expect("a ledger");
    member.serve();
    member.wait_ready();
    let said = format!("the log is broken at entry {}", last["number"]);
    wait::until_ok("it says so", || {
        let broken = verify();
        let is_told = !broken.success && broken.err.contains(&said);
        if is_told { Ok(()) } else { Err(format!("{said}: {broken:?}")) }
    });
}

/// An authority, and a certificate of the public key: with openssl, as operators do it.
fn certify(folder: &Path, pem: &Value) {
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join("mesh.pub"), pem.as_str().expect("PEM")).expect("a file");
    let leaf = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\n";
    std::fs::write(folder.join("leaf.ext"), leaf).expect("a file");
    let openssl = |arguments: &str| {
        let mut command = tests::tools::packaged("openssl", "openssl");
        process::succeed(command.current_dir(folder).args(arguments.split(' ')));
    };
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj /C=DE/ST=BE/O=Acme/CN=authority -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign",
    );
    openssl(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout any.key -out any.csr -subj /C=DE/ST=BE/O=Acme/CN=shop",
    );
    openssl(
        "x509 -req -in any.csr -force_pubkey mesh.pub -CA ca.pem -CAkey ca.key -set_serial 7 -days 20 -extfile leaf.ext -out leaf.pem",
    );
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file");
    std::fs::write(folder.join("chain.pem"), read("leaf.pem") + &read("ca.pem")).expect("a file");
}

/// Starts a member anew with these settings for signing.
fn restart(mesh: &Formed, at: usize, signing: &str) {
    let member = &mesh.members()[at];
    let text = std::fs::read_to_string(member.config()).expect("settings");
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("signing:")).collect();
    if !signing.is_empty() {
        lines.push(signing);
    }
    std::fs::write(member.config(), lines.join("\n") + "\n").expect("settings");
    member.stop(Signal::TERM);
    member.serve();
    member.wait_ready();
}

#[test]
fn who_has_the_passphrase_becomes_the_primary_and_a_passphrase_can_be_replaced_and_lost() {
    let secrets = tempfile::TempDir::with_prefix("atoll-kek-").expect("a temporary folder");
    let file = |name: &str| passphrase(secrets.path(), name);
    let (first, second, third) = (file("first"), file("second"), file("third"));
    let with = |file: &str| format!("signing: {{passphrase_file: '{file}'}}");
    let mesh = Formed::of(&THREE, "failover: {return_after: 2s}\n");
    create_project(&mesh.client(0), "shop", true, 2);
    let web = mesh.repository(0, "shop/web");
    let image = Image::tiny();
    web.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    set(&mesh, &json!({"signature_host": "registry.example", "signature_policy": "enforce"}));
    let home = primary_at(&mesh, 0).unwrap_or_else(|no| panic!("{no}"));
    let (next, last) = ((home + 1) % 3, (home + 2) % 3);
    let is_primary = |at: usize| {
        wait::until_ok("the primary moves", || match primary_at(&mesh, last) {
            Ok(now) if now == at => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    let status = |what: &str| {
        wait::until_ok("the status tells", || {
            let told = atoll(&mesh, last, "status", &["--no-copies"]);
            if told.success && told.out.contains(what) { Ok(()) } else { Err(told.out + &told.err) }
        });
    };

    // a job waits until the primary has what it lacks
    let key = atoll(&mesh, last, "sign", &["key", "--project", "shop"]);
    let waits = key.err.contains("it waits as job") && key.err.contains("passphrase_file");
    assert!(!key.success && waits, "{key:?}");
    // whoever reads that tries again
    let again = atoll(&mesh, last, "sign", &["key", "--project", "shop"]);
    assert!(!again.success && again.err.contains("it waits as job"), "{again:?}");
    restart(&mesh, home, &with(&first));
    wait::until_ok("both jobs end", || {
        let jobs = mesh.client(last).get("/api/atoll/v1/jobs?project=shop&kind=sign");
        let jobs = jobs.map_err(|none| none.to_string())?.json();
        let all = jobs.as_array().cloned().unwrap_or_default();
        let done = all.iter().filter(|job| job["state"] == "done").count();
        if done == 2 { Ok(()) } else { Err(jobs.to_string()) }
    });
    let keys = signing(&mesh, last)["keys"].as_array().map_or(0, Vec::len);
    assert_eq!(keys, 1, "{}", signing(&mesh, last));
    wait::until_ok("it signs", || {
        let signed = atoll(&mesh, last, "sign", &["shop/web:1"]);
        if signed.success { Ok(()) } else { Err(signed.err) }
    });

    // the project goes to whoever has it, and back when its home has it again
    restart(&mesh, home, "");
    status("cannot open the key that the project signs with: its signing jobs wait");
    wait::until_ok("a metric tells", || {
        let metric = mesh.client(home).get("/metrics").map_err(|none| none.to_string())?;
        let metric = String::from_utf8_lossy(&metric.body).into_owned();
        let lines = || metric.lines().filter(|line| line.starts_with("atoll_signing_keys_closed"));
        match lines().any(|line| line.ends_with(" 1")) {
            true => Ok(()),
            false => Err(lines().collect::<Vec<_>>().join("; ")),
        }
    });
    restart(&mesh, next, &with(&first));
    is_primary(next);
    let late = Image::random(&[70]);
    // a node that was restarted may have led the ledger: writes wait for the next leader
    wait::until_ok("it is pushed", || web.push(&late, "2").map_err(|no| no.to_string()));
    wait::until_ok("it signs", || {
        let signed = atoll(&mesh, last, "sign", &["shop/web:2"]);
        if signed.success { Ok(()) } else { Err(signed.err) }
    });
    restart(&mesh, home, &with(&first));
    is_primary(home);

    // another passphrase: both for a while, then only the new one
    let under = |at: usize| signing(&mesh, at)["keys"][0]["sealed_under"].clone();
    let old = under(last);
    assert!(old.is_string(), "{old}");
    let both =
        format!("signing: {{passphrase_file: '{second}', previous_passphrase_file: '{first}'}}");
    for at in [next, last, home] {
        restart(&mesh, at, &both);
    }
    wait::until("the key is sealed under the new one", || {
        let now = under(next);
        (now.is_string() && now != old).then_some(())
    });
    for at in [next, last, home] {
        restart(&mesh, at, &with(&second));
    }
    let more = Image::random(&[71]);
    wait::until_ok("it is pushed", || web.push(&more, "3").map_err(|no| no.to_string()));
    wait::until_ok("it signs", || {
        let signed = atoll(&mesh, last, "sign", &["shop/web:3"]);
        if signed.success { Ok(()) } else { Err(signed.err) }
    });

    did(&atoll(&mesh, last, "sign", &["notation", "--project", "shop"]));

    // a passphrase that is lost: nothing is signed until there is another key; what was signed counts
    for at in [next, last, home] {
        restart(&mesh, at, &with(&third));
    }
    status("cannot open the key that the project signs with");
    wait::until_ok("it says so", || {
        let signed = atoll(&mesh, next, "sign", &["shop/web:3"]);
        let said = signed.err.contains("it waits as job")
            && signed.err.contains("another key-encryption key");
        if !signed.success && said { Ok(()) } else { Err(format!("{signed:?}")) }
    });
    for tag in ["1", "2", "3"] {
        wait::until_ok("it is served", || served(&mesh, next, tag));
    }
    // the job waits, and is carried out with the next key
    let waiting = || {
        let jobs = mesh.client(next).get("/api/atoll/v1/jobs?state=waiting");
        let jobs = jobs.map_err(|none| none.to_string())?.json();
        let some = jobs.as_array().ok_or("no list")?.iter();
        Ok::<_, String>(some.filter(|job| job["kind"] == "sign").count())
    };
    assert!(waiting().is_ok_and(|jobs| jobs > 0), "{:?}", waiting());
    wait::until_ok("another key is made", || {
        let made = atoll(&mesh, next, "sign", &["key", "--project", "shop", "--rotate"]);
        if made.success { Ok(()) } else { Err(made.err) }
    });
    wait::until_ok("the job is done", || match waiting() {
        Ok(0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // the authority for notation is lost with the passphrase, cosign's forms are signed all the same,
    // and another authority is made
    did(&atoll(&mesh, next, "sign", &["shop/web:3"]));
    let authority = signing(&mesh, next)["notation"].clone();
    did(&atoll(&mesh, next, "sign", &["notation", "--project", "shop"]));
    assert_ne!(signing(&mesh, next)["notation"], authority, "it is another one");
}

/// The claims of each signature behind the tag of cosign's signatures of an image.
fn claimed(mesh: &Formed, at: usize, image: &Image) -> Result<Vec<Value>, String> {
    let tag = format!("{}.sig", image.digest().replace(':', "-"));
    let repository = mesh.repository(at, "shop/web");
    let (_, manifest) = repository.manifest(&tag).map_err(|no| no.to_string())?;
    let manifest: Value = serde_json::from_slice(&manifest).map_err(|error| error.to_string())?;
    let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
    let claims = layers.iter().map(|layer| {
        let digest = layer["digest"].as_str().unwrap_or_default();
        let payload = repository.blob(digest).map_err(|no| no.to_string())?;
        let payload: Value = serde_json::from_slice(&payload).map_err(|e| e.to_string())?;
        Ok(payload["optional"].clone())
    });
    claims.collect()
}

/// A primary that is stopped when it has signed and has not published yet: the next one signs, and what
/// the first one has made is never readable, also after it goes on.
#[test]
fn what_a_primary_has_signed_that_was_deposed_before_it_published_is_never_served() {
    let secrets = tempfile::TempDir::with_prefix("atoll-deposed-").expect("a temporary folder");
    let file = passphrase(secrets.path(), "first");
    let (mesh, edge) = with_shop(&format!("signing: {{passphrase_file: '{file}'}}\n"), "1h");
    did(&atoll(&mesh, 0, "sign", &["key", "--project", "shop"]));
    set(&mesh, &json!({"signature_host": "registry.example", "signature_policy": "enforce"}));
    let mut tries = 0..20;
    let (image, deposed, next, epoch) = loop {
        let n = tries.next().expect("the moment between the log and the signature is never met");
        let first = wait::until_ok("there is a primary", || primary_at(&mesh, 0));
        let next = (first + 1) % 3;
        let image = Image::random(&[100 + n]);
        wait::until_ok("it is pushed", || {
            mesh.repository(next, "shop/web").push(&image, "x").map_err(|no| no.to_string())
        });
        let before = logged(&mesh, next);
        let epoch = epoch_of(&mesh, next);
        let digest = format!("shop/web@{}", image.digest());
        let stopped = std::thread::scope(|scope| {
            let asked = scope.spawn(|| atoll(&mesh, next, "sign", &[&digest]));
            // the log says that it is signed
            let seen = wait::within(std::time::Duration::from_secs(20), || {
                (logged(&mesh, next) > before).then_some(())
            });
            if seen.is_some() {
                mesh.members()[first].signal(Signal::STOP);
            }
            // another primary goes on with the job
            wait::until_ok("the project moves", || match primary_at(&mesh, next) {
                Ok(now) if now != first => Ok(()),
                other => Err(format!("{other:?}")),
            });
            asked.join().expect("it ends");
            seen.is_some()
        });
        assert!(stopped, "nothing was signed");
        wait::until_ok("the next primary has signed it", || served(&mesh, next, image.digest()));
        let claims = wait::until_ok("its signatures are read", || claimed(&mesh, next, &image));
        // it came too late: what the first has signed is there, as it may be
        if claims.iter().any(|one| one["mesh.epoch"] == epoch.to_string().as_str()) {
            mesh.members()[first].signal(Signal::CONT);
            mesh.members()[first].wait_ready();
            continue;
        }
        assert_eq!(claims.len(), 1, "{claims:?}");
        break (image, first, next, epoch);
    };
    mesh.members()[deposed].signal(Signal::CONT);
    mesh.members()[deposed].wait_ready();
    // it hears that it is not the primary of its term any more, and gives up what it had begun
    let more = Image::random(&[99]);
    wait::until_ok("it takes pushes", || {
        mesh.repository(deposed, "shop/web").push(&more, "y").map_err(|no| no.to_string())
    });
    did(&atoll(&mesh, next, "sign", &["shop/web:y"]));
    for at in 0..=edge {
        wait::until_ok("it is served", || served(&mesh, at, image.digest()));
    }
    for at in 0..3 {
        let claims = claimed(&mesh, at, &image).unwrap_or_else(|no| panic!("{no}"));
        assert_eq!(claims.len(), 1, "{claims:?}");
        assert_ne!(claims[0]["mesh.epoch"], epoch.to_string().as_str(), "{claims:?}");
        let referrers = mesh.client(at).get(&format!("/v2/shop/web/referrers/{}", image.digest()));
        let referrers = referrers.unwrap_or_else(|none| panic!("{none}")).json();
        assert_eq!(referrers["manifests"].as_array().map(Vec::len), Some(1), "{referrers}");
    }
    // the log has both, and says so
    let entries = mesh.client(next).get("/api/v2.0/projects/shop/signing/log");
    let entries = entries.unwrap_or_else(|none| panic!("{none}")).json();
    let of_it = entries["entries"].as_array().expect("a list").iter().filter(|one| {
        one["artifact"].as_str().is_some_and(|artifact| artifact.ends_with(image.digest()))
    });
    assert_eq!(of_it.count(), 2, "{entries}");
}

/// The same with a primary that is stopped before it signs, and with one that is stopped when it has
/// published: what it takes itself for when it goes on changes nothing.
#[test]
fn a_primary_that_sleeps_before_it_signs_or_after_it_has_published_changes_nothing() {
    let secrets = tempfile::TempDir::with_prefix("atoll-asleep-").expect("a temporary folder");
    let file = passphrase(secrets.path(), "first");
    let (mesh, edge) = with_shop(&format!("signing: {{passphrase_file: '{file}'}}\n"), "1h");
    did(&atoll(&mesh, 0, "sign", &["key", "--project", "shop"]));
    set(&mesh, &json!({"signature_host": "registry.example", "signature_policy": "enforce"}));
    for published in [true, false] {
        let first = wait::until_ok("there is a primary", || primary_at(&mesh, 0));
        let next = (first + 1) % 3;
        let image = Image::random(&[100 + usize::from(published)]);
        wait::until_ok("it is pushed", || {
            mesh.repository(next, "shop/web").push(&image, "x").map_err(|no| no.to_string())
        });
        let (before, epoch) = (logged(&mesh, next), epoch_of(&mesh, next).to_string());
        let digest = format!("shop/web@{}", image.digest());
        if published {
            did(&atoll(&mesh, next, "sign", &[&digest]));
        }
        mesh.members()[first].signal(Signal::STOP);
        // who goes on signs what is not signed, and nothing twice
        wait::until_ok("another primary has signed it, or sees that it is", || {
            let signed = atoll(&mesh, next, "sign", &[&digest]);
            let now = primary_at(&mesh, next);
            let moved = signed.success && now.as_ref().is_ok_and(|now| *now != first);
            if moved { Ok(()) } else { Err(format!("{signed:?} {now:?}")) }
        });
        mesh.members()[first].signal(Signal::CONT);
        mesh.members()[first].wait_ready();
        let more = Image::random(&[90]);
        wait::until_ok("it takes pushes", || {
            mesh.repository(first, "shop/web").push(&more, "y").map_err(|no| no.to_string())
        });
        for at in 0..=edge {
            wait::until_ok("it is served", || served(&mesh, at, image.digest()));
        }
        assert_eq!(logged(&mesh, next), before + 1, "published: {published}");
        for at in 0..3 {
            let claims = wait::until_ok("its signatures are read", || claimed(&mesh, at, &image));
            let [one] = &claims[..] else { panic!("{claims:?}") };
            assert_eq!(one["mesh.epoch"] == *epoch, published, "{claims:?}");
        }
    }
}

fn epoch_of(mesh: &Formed, at: usize) -> u64 {
    let status = mesh.status(at).unwrap_or_else(|no| panic!("{no}"));
    let projects = status["projects"].as_array().expect("a list");
    let shop = projects.iter().find(|one| one["name"] == "shop");
    shop.unwrap_or_else(|| panic!("{status}"))["epoch"].as_u64().expect("a number")
}
