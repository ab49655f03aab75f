//! Whatever a broken or hostile client sends: the right status, an error that says what is wrong, nothing stored, nothing grown.
//!
//! One mesh takes it all, and at the end an honest push and pull go through, the data folders are as large as before and hold no
//! file more. A refusal has the specification's envelope; "the right status" is what the specification names, and where it leaves
//! room, any of the few a client can make sense of.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tests::http::{Answer, Client, Unanswered};
use tests::image::{Blob, Image, MANIFEST, digest, manifest_of, random_bytes};
use tests::mesh::Mesh;
use tests::repository::{Refusal, Repository};
use tests::{wait, wire};

#[test]
fn hostile_input_is_refused_in_words_and_leaves_nothing_behind() {
    let mesh = Mesh::up(3);
    mesh.create_project("secret", false, 2);
    let repository = mesh.repository(0, "demo/hostile");
    let known = Image::random(&[20 << 10]);
    repository.push(&known, "honest").unwrap_or_else(|no| panic!("{no}"));
    settle(&mesh, &repository);
    let before = files(&mesh);
    let size = bytes(&mesh);

    names_with_tricks(&mesh.client(0));
    wrong_digests(&repository);
    chunks_out_of_order(&repository);
    manifests_that_are_none(&repository, &known);
    strangers(&mesh, &known);
    too_much(&mesh, &repository);
    half_closed_uploads(&repository);

    let honest = Image::random(&[20 << 10]);
    repository.push(&honest, "after").unwrap_or_else(|no| panic!("an honest push afterwards: {no}"));
    for at in 0..3 {
        mesh.repository(at, "demo/hostile")
            .pull("honest")
            .unwrap_or_else(|no| panic!("an honest pull afterwards: {no}"));
    }
    let own: BTreeSet<String> = honest.blobs.iter().map(|blob| blob.digest["sha256:".len()..].to_owned()).collect();
    wait::until_ok("nothing is left of it", || {
        let left: Vec<_> = files(&mesh).into_iter().filter(|file| !before.contains(file)).collect();
        let left: Vec<_> =
            left.iter().filter(|file| !own.iter().any(|hex| file.to_string_lossy().contains(hex.as_str()))).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}")) }
    });
    let grown = bytes(&mesh).saturating_sub(size);
    assert!(grown < 24 << 20, "the data folders have grown by {grown} bytes");
}

#[test]
fn slow_senders_are_let_go_and_hold_up_nobody() {
    let mesh = Mesh::up(3);
    let repository = mesh.repository(0, "demo/slow");
    let image = Image::random(&[20 << 10]);
    let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
    let authority = repository.client().authority().to_owned();
    let head = format!("GET /v2/ HTTP/1.1\r\nhost: {authority}\r\nx-slow: ");
    let path = place.split_once(&authority).map_or(place.as_str(), |(_, path)| path);
    let body = format!(
        "PATCH {path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: {}\r\ncontent-type: application/octet-stream\r\n\
         content-length: 1000000\r\n\r\nonly this much",
        credentials(repository.client())
    );
    let patience = Duration::from_secs(240);
    let mut slow: Vec<_> = (0..64).map(|_| (wire::connect(&authority, patience), head.clone())).collect();
    slow.push((wire::connect(&authority, patience), body));
    for (socket, text) in &mut slow {
        socket.write_all(text.as_bytes()).expect("the kernel takes it");
    }
    repository.push(&image, "1").unwrap_or_else(|no| panic!("a push beside slow senders: {no}"));
    repository.pull("1").unwrap_or_else(|no| panic!("a pull beside slow senders: {no}"));
    for (socket, text) in &mut slow {
        // an answer or just the end, but an end: `answer` fails when the node keeps the connection for ever
        if let Some(answer) = wire::answer(socket) {
            assert!((400..500).contains(&answer.status), "a slow sender of {text:?} is told {answer}");
        }
    }
}

fn names_with_tricks(client: &Client) {
    let long = "a".repeat(300);
    let tricks = [
        "../../etc",
        "demo/../../etc",
        "demo/%2e%2e/%2e%2e/etc",
        "demo/..%2f..%2fetc",
        "demo/UPPER",
        "demo//double",
        "demo/",
        "/demo/x",
        "demo/.hidden",
        "demo/-dash",
        "demo/a..b..",
        "demo/a b",
        "demo/nul%00",
        "demo/back\\slash",
        "demo/ünicode",
        &format!("demo/{long}"),
    ];
    for name in tricks {
        for (method, what) in [("GET", "manifests/1"), ("POST", "blobs/uploads/"), ("PUT", "manifests/1")] {
            let authorization = credentials(client);
            let request = format!(
                "{method} /v2/{name}/{what} HTTP/1.1\r\nhost: {}\r\nauthorization: {authorization}\r\ncontent-type: {MANIFEST}\r\n\
                 content-length: 2\r\nconnection: close\r\n\r\n{{}}",
                client.authority()
            );
            let what = format!("{method} of the name {name:?}");
            let answer =
                wire::say(client.authority(), request.as_bytes()).unwrap_or_else(|| panic!("{what}: no answer"));
            assert!(matches!(answer.status, 400 | 404), "{what}: {answer}");
        }
    }
    for tag in ["-dash", ".dot", "a/b", "%2e%2e", "white%20space", &"t".repeat(129)] {
        let put = client
            .ask(Method::PUT, &format!("/v2/demo/hostile/manifests/{tag}"))
            .header("content-type", MANIFEST)
            .body("{}")
            .send();
        refused(&format!("the tag {tag:?}"), put, &[400, 404], &[]);
    }
}

fn wrong_digests(repository: &Repository) {
    let bytes = random_bytes(1000);
    let hex = "0".repeat(64);
    let put = |name: &str| {
        let place = repository.open_upload()?;
        let answer = repository.close_upload(&place, name, bytes.clone());
        let _ = repository.client().ask(Method::DELETE, &place).send();
        answer
    };
    no("bytes under another name", put(&format!("sha256:{hex}")), &[400], &["DIGEST_INVALID"]);
    let real = digest(&bytes);
    let tricks = [
        "sha256:short",
        "sha256:",
        "sha256",
        "",
        &real.to_uppercase(),
        &real.replace("sha256", "md5"),
        &real.replace("sha256", "sha512"),
        "sha256:../../../../etc/passwd",
        &format!("{real}0"),
        &real.replace("sha256", "sha256+b64"),
        "sha256:%00",
    ];
    for trick in tricks {
        no(&format!("the digest {trick:?}"), put(trick), &[400], &["DIGEST_INVALID"]);
        if !trick.is_empty() {
            let get = repository.client().get(&repository.path(&format!("blobs/{trick}")));
            refused(&format!("reading the digest {trick:?}"), get, &[400, 404], &[]);
        }
    }
    let get = repository.client().get(&repository.path(&format!("blobs/{real}")));
    refused("bytes that were never accepted", get, &[404], &["BLOB_UNKNOWN"]);
    let image = Image::tiny();
    let put = repository.put_bytes(&format!("sha256:{hex}"), MANIFEST, image.manifest.bytes.clone());
    no("a manifest under another name", put, &[400], &["DIGEST_INVALID"]);
}

fn chunks_out_of_order(repository: &Repository) {
    let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
    let patch = |range: &str| {
        repository.client().ask(Method::PATCH, &place).header("content-range", range).body(random_bytes(100)).send()
    };
    refused("a first chunk that is not the first", patch("100-199"), &[416], &[]);
    for nonsense in ["abc", "5-2", "-", "0-", "0-99999999999999999999999", "bytes 0-99/100", "0-98"] {
        refused(&format!("the range {nonsense:?}"), patch(nonsense), &[400, 416], &[]);
    }
    let first = patch("0-99").unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(first.status, 202, "the upload is as good as before: {first}");
    refused("the same chunk again", patch("0-99"), &[416], &[]);
    refused("a chunk after a gap", patch("200-299"), &[416], &[]);
    let state = repository.client().get(&place).unwrap_or_else(|none| panic!("{none}"));
    assert_eq!((state.status, state.header("range")), (204, Some("0-99")), "what was refused has not moved it");

    let elsewhere = place.replacen("demo/hostile", "demo/other", 1);
    let borrowed = repository.client().ask(Method::PATCH, &elsewhere).body(random_bytes(10)).send();
    refused("an upload of another repository", borrowed, &[404], &["BLOB_UPLOAD_UNKNOWN"]);
    let ended = repository.client().ask(Method::DELETE, &place).send().unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(ended.status, 204, "an upload can be given up: {ended}");
    refused("an upload that was given up", repository.client().get(&place), &[404], &["BLOB_UPLOAD_UNKNOWN"]);
    for unknown in ["00000000-0000-0000-0000-000000000000", "..", "%2e%2e%2f", "x"] {
        let path = repository.path(&format!("blobs/uploads/{unknown}"));
        let patch = repository.client().ask(Method::PATCH, &path).body(random_bytes(10)).send();
        refused(&format!("the upload {unknown:?}"), patch, &[400, 404], &[]);
    }
}

fn manifests_that_are_none(repository: &Repository, known: &Image) {
    let put = |kind: &str, bytes: Bytes| repository.put_bytes("bad", kind, bytes);
    let good = manifest_of(&known.blobs);
    let with = |field: &str, value: serde_json::Value| {
        let mut changed = good.clone();
        changed[field] = value;
        Bytes::from(changed.to_string())
    };
    let invalid: [(&str, Bytes); 9] = [
        ("no JSON", Bytes::from_static(b"{\"schemaVersion\":2")),
        ("nothing", Bytes::new()),
        ("a list", Bytes::from_static(b"[]")),
        ("no UTF-8", Bytes::from_static(b"\xff\xfe{}")),
        ("very deep JSON", Bytes::from([b"[".repeat(200_000), b"]".repeat(200_000)].concat())),
        ("schema 1", with("schemaVersion", json!(1))),
        ("a number for layers", with("layers", json!(7))),
        (
            "a layer of negative size",
            with("layers", json!([{"mediaType": "a/b", "digest": known.blobs[1].digest, "size": -1}])),
        ),
        ("another type inside than outside", with("mediaType", json!("application/vnd.oci.image.index.v1+json"))),
    ];
    for (what, bytes) in invalid {
        no(&format!("a manifest of {what}"), put(MANIFEST, bytes), &[400], &["MANIFEST_INVALID"]);
    }
    for kind in
        ["text/html", "application/x-unknown", "application/vnd.docker.distribution.manifest.v1+prettyjws", "nonsense"]
    {
        no(
            &format!("the type {kind:?}"),
            put(kind, Bytes::from(good.to_string())),
            &[400, 415],
            &["MANIFEST_INVALID", "UNSUPPORTED"],
        );
    }
    let missing = manifest_of(&[known.blobs[0].clone(), Blob::random(100)]);
    no(
        "a manifest of blobs nobody has",
        put(MANIFEST, Bytes::from(missing.to_string())),
        &[404],
        &["MANIFEST_BLOB_UNKNOWN"],
    );
    let get = repository.client().get(&repository.path("manifests/bad"));
    refused("a tag that was never accepted", get, &[404], &["MANIFEST_UNKNOWN"]);
}

fn strangers(mesh: &Mesh, known: &Image) {
    let anyone = mesh.anyone(1);
    let here = Repository::new(&anyone, "demo/hostile");
    for (method, what) in [
        (Method::POST, "blobs/uploads/".to_owned()),
        (Method::PUT, "manifests/honest".to_owned()),
        (Method::DELETE, "manifests/honest".to_owned()),
        (Method::DELETE, format!("blobs/{}", known.blobs[1].digest)),
    ] {
        let answer = anyone.ask(method.clone(), &here.path(&what)).header("content-type", MANIFEST).body("{}").send();
        refused(&format!("{method} {what} by nobody"), answer, &[401], &["UNAUTHORIZED"]);
    }
    let wrong = anyone.clone().basic("admin", "not the password").get("/v2/");
    refused("a wrong password", wrong, &[401], &["UNAUTHORIZED"]);
    refused("a forged token", anyone.clone().bearer("a.b.c").get("/v2/"), &[401], &[]);

    // what a repository does not refer to is not read through it, nor mounted by who may not read its source
    let secret = Image::random(&[10 << 10]);
    mesh.repository(0, "secret/vault").push(&secret, "1").unwrap_or_else(|no| panic!("{no}"));
    let layer = &secret.blobs[1].digest;
    refused("a private manifest", anyone.get("/v2/secret/vault/manifests/1"), &[401], &[]);
    refused("a private blob", anyone.get(&format!("/v2/secret/vault/blobs/{layer}")), &[401], &[]);
    refused(
        "a private blob through a public repository",
        anyone.get(&here.path(&format!("blobs/{layer}"))),
        &[404],
        &["BLOB_UNKNOWN"],
    );
    let token = mesh.client(1).get("/service/token?service=atoll&scope=repository:demo/hostile:pull,push");
    let token = token.unwrap_or_else(|none| panic!("{none}")).json();
    let token = token["token"].as_str().expect("a token").to_owned();
    let narrow = Repository::new(&anyone.bearer(&token), "demo/hostile");
    for from in ["secret/vault", "demo/nowhere"] {
        let mount = narrow
            .client()
            .ask(Method::POST, &narrow.path(&format!("blobs/uploads/?mount={layer}&from={from}")))
            .send();
        let mount = mount.unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(mount.status, 202, "a mount from {from} is no mount but an upload: {mount}");
        let place = mount.header("location").expect("an upload has a location").to_owned();
        let _ = narrow.client().ask(Method::DELETE, &place).send();
    }
    refused(
        "the same after the tries",
        narrow.client().get(&narrow.path(&format!("blobs/{layer}"))),
        &[404],
        &["BLOB_UNKNOWN"],
    );
    let gone = mesh.client(0).ask(Method::DELETE, &format!("/v2/secret/vault/manifests/{}", secret.digest())).send();
    assert_eq!(gone.unwrap_or_else(|none| panic!("{none}")).status, 202);
}

fn too_much(mesh: &Mesh, repository: &Repository) {
    let large = format!("{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"junk\":\"{}\"}}", "x".repeat(10 << 20));
    no("a manifest of 10 MB", repository.put_bytes("large", MANIFEST, Bytes::from(large)), &[413], &[]);
    let client = mesh.anyone(0);
    let header =
        format!("GET /v2/ HTTP/1.1\r\nhost: {}\r\nx-large: {}\r\n\r\n", client.authority(), "x".repeat(2 << 20));
    if let Some(answer) = wire::say(client.authority(), header.as_bytes()) {
        assert!(matches!(answer.status, 400 | 413 | 431), "a header of 2 MB: {answer}");
    }
    for garbage in [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut socket = wire::connect(client.authority(), Duration::from_secs(60));
        let _ = socket.write_all(garbage.as_bytes());
        let _ = socket.shutdown(Shutdown::Write);
        if let Some(answer) = wire::answer(&mut socket) {
            assert!((400..=505).contains(&answer.status), "{garbage:?}: {answer}");
        }
    }
}

/// Uploads whose connection is cut in the body. The bytes that came may stay until the upload is given up; then they must go.
fn half_closed_uploads(repository: &Repository) {
    for round in 0..20 {
        let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
        let client = repository.client();
        let path = place.split_once(client.authority()).map_or(place.as_str(), |(_, path)| path);
        let (verb, query) = if round % 2 == 0 {
            ("PATCH", String::new())
        } else {
            ("PUT", format!("{}digest=sha256:{}", if path.contains('?') { '&' } else { '?' }, "1".repeat(64)))
        };
        let mut socket = wire::connect(client.authority(), Duration::from_secs(60));
        let head = format!(
            "{verb} {path}{query} HTTP/1.1\r\nhost: {}\r\nauthorization: {}\r\ncontent-type: application/octet-stream\r\n\
             content-length: 8000000\r\n\r\n",
            client.authority(),
            credentials(client)
        );
        socket
            .write_all(head.as_bytes())
            .and_then(|()| socket.write_all(&random_bytes(1 << 20)))
            .expect("the node takes it");
        drop(socket);
        wait::until_ok("a cut upload can be given up", || {
            let gone = client.ask(Method::DELETE, &place).send().map_err(|none| none.to_string())?;
            if matches!(gone.status, 204 | 404) { Ok(()) } else { Err(gone.to_string()) }
        });
    }
}

fn credentials(client: &Client) -> String {
    client.credentials().expect("this client has credentials").to_owned()
}

fn refused(what: &str, answer: Result<Answer, Unanswered>, status: &[u16], codes: &[&str]) {
    let answer = answer.unwrap_or_else(|none| panic!("{what}: {none}"));
    assert!(status.contains(&answer.status), "{what}: {answer}, expected {status:?}");
    let (code, message) =
        answer.envelope().unwrap_or_else(|| panic!("{what}: not the specification's envelope: {answer}"));
    assert!(codes.is_empty() || codes.contains(&code.as_str()), "{what}: {answer}, expected {codes:?}");
    assert!(!message.trim().is_empty(), "{what}: no word on what is wrong: {answer}");
}

fn no<T>(what: &str, outcome: Result<T, Refusal>, status: &[u16], codes: &[&str]) {
    match outcome {
        Ok(_) => panic!("{what} was accepted"),
        Err(Refusal::Unanswered(none)) => panic!("{what}: {none}"),
        Err(Refusal::Answered(answer)) => refused(what, Ok(*answer), status, codes),
    }
}

/// Waits until the honest image is everywhere it is going to be: a pull at each node brings it there.
fn settle(mesh: &Mesh, repository: &Repository) {
    for at in 0..mesh.nodes().len() {
        mesh.repository(at, "demo/hostile").pull("honest").unwrap_or_else(|no| panic!("{no}"));
    }
    repository.resolve("honest").unwrap_or_else(|no| panic!("{no}"));
}

/// Every file of every node but its log and what the ledger keeps.
fn files(mesh: &Mesh) -> BTreeSet<PathBuf> {
    let all = mesh.nodes().iter().flat_map(|node| walk(&node.data));
    all.map(|(file, _)| file).filter(|file| !is_ledger_or_log(file)).collect()
}

fn bytes(mesh: &Mesh) -> u64 {
    mesh.nodes().iter().flat_map(|node| walk(&node.data)).map(|(_, size)| size).sum()
}

fn is_ledger_or_log(file: &Path) -> bool {
    let database = file.extension().is_some_and(|extension| extension == "redb" || extension == "log");
    database || file.components().any(|part| part.as_os_str().to_string_lossy().starts_with("ledger"))
}

fn walk(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(kind) if kind.is_dir() => found.extend(walk(&entry.path())),
            Ok(kind) => found.push((entry.path(), kind.len())),
            Err(_) => {} // gone between listing and asking
        }
    }
    found
}
