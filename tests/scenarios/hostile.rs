//! Whatever a broken or hostile client sends: the right status, an error that says what is wrong, nothing stored, nothing grown.
//!
//! One mesh takes it all, and at the end an honest push and pull go through, the data folders are as large as before and hold no
//! file more. A refusal has the specification's envelope; "the right status" is what the specification names, and where it leaves
//! room, any of the few a client can make sense of.

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tests::complaints::Complaints;
use tests::http::Client;
use tests::image::{Blob, Image, MANIFEST, digest, manifest_of, random_bytes};
use tests::mesh::Mesh;
use tests::repository::Repository;
use tests::{footprint, wire};

#[test]
fn hostile_input_is_refused_in_words_and_leaves_nothing_behind() {
    let mesh = Mesh::up(3);
    mesh.create_project("secret", false, 2);
    let repository = mesh.repository(0, "demo/hostile");
    let known = Image::random(&[20 << 10]);
    let secret = Image::random(&[10 << 10]);
    repository.push(&known, "honest").unwrap_or_else(|no| panic!("{no}"));
    mesh.repository(0, "secret/vault").push(&secret, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..3 {
        // a pull brings both everywhere, so that nothing honest is on its way any more
        for (name, tag) in [("demo/hostile", "honest"), ("secret/vault", "1")] {
            mesh.repository(at, name).pull(tag).unwrap_or_else(|no| panic!("{name} at {at}: {no}"));
        }
    }
    footprint::until_held(&mesh, &[known.blobs.as_slice(), &secret.blobs].concat());
    let wrong = Complaints::default();
    let before = footprint::files(&mesh);
    let size = footprint::bytes(&mesh);

    names_with_tricks(&wrong, &mesh.client(0));
    wrong_digests(&wrong, &repository);
    chunks_out_of_order(&wrong, &repository);
    manifests_that_are_none(&wrong, &repository, &known);
    strangers(&wrong, &mesh, &known, &secret);

    footprint::until_as_before(&mesh, &before, size);
    let honest = Image::random(&[20 << 10]);
    repository.push(&honest, "after").unwrap_or_else(|no| panic!("an honest push afterwards: {no}"));
    for at in 0..3 {
        for tag in ["honest", "after"] {
            mesh.repository(at, "demo/hostile").pull(tag).unwrap_or_else(|no| panic!("an honest pull of {tag}: {no}"));
        }
    }
}

fn names_with_tricks(wrong: &Complaints, client: &Client) {
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
            match wire::say(client.authority(), request.as_bytes()) {
                Some(answer) => wrong.unless(matches!(answer.status, 400 | 404), || format!("{what}: {answer}")),
                None => wrong.add(format!("{what}: no answer")),
            }
        }
    }
    for tag in ["-dash", ".dot", "a/b", "%2e%2e", "white%20space", &"t".repeat(129)] {
        let put = client
            .ask(Method::PUT, &format!("/v2/demo/hostile/manifests/{tag}"))
            .header("content-type", MANIFEST)
            .body("{}")
            .send();
        wrong.unless_refused(&format!("the tag {tag:?}"), put, &[400, 404], &[]);
    }
}

fn wrong_digests(wrong: &Complaints, repository: &Repository) {
    let bytes = random_bytes(1000);
    let hex = "0".repeat(64);
    let put = |name: &str| {
        let place = repository.open_upload()?;
        let answer = repository.close_upload(&place, name, bytes.clone());
        let _ = repository.client().ask(Method::DELETE, &place).send();
        answer
    };
    wrong.unless_failed("bytes under another name", put(&format!("sha256:{hex}")), &[400], &["DIGEST_INVALID"]);
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
        wrong.unless_failed(&format!("the digest {trick:?}"), put(trick), &[400], &["DIGEST_INVALID"]);
        if !trick.is_empty() {
            let get = repository.client().get(&repository.path(&format!("blobs/{trick}")));
            wrong.unless_refused(&format!("reading the digest {trick:?}"), get, &[400, 404], &[]);
        }
    }
    let get = repository.client().get(&repository.path(&format!("blobs/{real}")));
    wrong.unless_refused("bytes that were never accepted", get, &[404], &["BLOB_UNKNOWN"]);
    let image = Image::tiny();
    let put = repository.put_bytes(&format!("sha256:{hex}"), MANIFEST, image.manifest.bytes.clone());
    wrong.unless_failed("a manifest under another name", put, &[400], &["DIGEST_INVALID"]);
}

fn chunks_out_of_order(wrong: &Complaints, repository: &Repository) {
    let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
    let patch_at = |place: &str, range: &str| {
        repository.client().ask(Method::PATCH, place).header("content-range", range).body(random_bytes(100)).send()
    };
    wrong.unless_refused("a first chunk that is not the first", patch_at(&place, "100-199"), &[416], &[]);
    for nonsense in ["abc", "5-2", "-", "0-", "0-99999999999999999999999", "bytes=0-99", "0-98"] {
        wrong.unless_refused(&format!("the range {nonsense:?}"), patch_at(&place, nonsense), &[400, 416], &[]);
    }
    let first = patch_at(&place, "0-99").unwrap_or_else(|none| panic!("{none}"));
    let place = first.header("location").unwrap_or(&place).to_owned(); // each answer may move it
    wrong.unless(first.status == 202, || format!("the upload is not as good as before: {first}"));
    wrong.unless_refused("the same chunk again", patch_at(&place, "0-99"), &[416], &[]);
    wrong.unless_refused("a chunk after a gap", patch_at(&place, "200-299"), &[416], &[]);
    let state = repository.client().get(&place).unwrap_or_else(|none| panic!("{none}"));
    wrong.unless((state.status, state.header("range")) == (204, Some("0-99")), || {
        format!("what was refused has moved it: {state} {:?}", state.headers)
    });

    let elsewhere = place.replacen("demo/hostile", "demo/other", 1);
    let borrowed = repository.client().ask(Method::PATCH, &elsewhere).body(random_bytes(10)).send();
    wrong.unless_refused("an upload of another repository", borrowed, &[404], &["BLOB_UPLOAD_UNKNOWN"]);
    let ended = repository.client().ask(Method::DELETE, &place).send().unwrap_or_else(|none| panic!("{none}"));
    wrong.unless(ended.status == 204, || format!("an upload cannot be given up: {ended}"));
    wrong.unless_refused(
        "an upload that was given up",
        repository.client().get(&place),
        &[404],
        &["BLOB_UPLOAD_UNKNOWN"],
    );
    for unknown in ["00000000-0000-0000-0000-000000000000", "..", "%2e%2e%2f", "x"] {
        let path = repository.path(&format!("blobs/uploads/{unknown}"));
        let patch = repository.client().ask(Method::PATCH, &path).body(random_bytes(10)).send();
        wrong.unless_refused(&format!("the upload {unknown:?}"), patch, &[400, 404], &[]);
    }
}

fn manifests_that_are_none(wrong: &Complaints, repository: &Repository, known: &Image) {
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
        wrong.unless_failed(&format!("a manifest of {what}"), put(MANIFEST, bytes), &[400], &["MANIFEST_INVALID"]);
    }
    for kind in
        ["text/html", "application/x-unknown", "application/vnd.docker.distribution.manifest.v1+prettyjws", "nonsense"]
    {
        wrong.unless_failed(
            &format!("the type {kind:?}"),
            put(kind, Bytes::from(good.to_string())),
            &[400, 415],
            &["MANIFEST_INVALID", "UNSUPPORTED"],
        );
    }
    let missing = manifest_of(&[known.blobs[0].clone(), Blob::random(100)]);
    wrong.unless_failed(
        "a manifest of blobs nobody has",
        put(MANIFEST, Bytes::from(missing.to_string())),
        &[404],
        &["MANIFEST_BLOB_UNKNOWN"],
    );
    let get = repository.client().get(&repository.path("manifests/bad"));
    wrong.unless_refused("a tag that was never accepted", get, &[404], &["MANIFEST_UNKNOWN"]);
}

fn strangers(wrong: &Complaints, mesh: &Mesh, known: &Image, secret: &Image) {
    let anyone = mesh.anyone(1);
    let here = Repository::new(&anyone, "demo/hostile");
    for (method, what) in [
        (Method::POST, "blobs/uploads/".to_owned()),
        (Method::PUT, "manifests/honest".to_owned()),
        (Method::DELETE, "manifests/honest".to_owned()),
        (Method::DELETE, format!("blobs/{}", known.blobs[1].digest)),
    ] {
        let answer = anyone.ask(method.clone(), &here.path(&what)).header("content-type", MANIFEST).body("{}").send();
        wrong.unless_refused(&format!("{method} {what} by nobody"), answer, &[401], &["UNAUTHORIZED"]);
    }
    let guessed = anyone.clone().basic("admin", "not the password").get("/v2/");
    wrong.unless_refused("a wrong password", guessed, &[401], &["UNAUTHORIZED"]);
    wrong.unless_refused("a forged token", anyone.clone().bearer("a.b.c").get("/v2/"), &[401], &[]);

    // what a repository does not refer to is not read through it, nor mounted by who may not read its source
    let layer = &secret.blobs[1].digest;
    wrong.unless_refused("a private manifest", anyone.get("/v2/secret/vault/manifests/1"), &[401], &[]);
    wrong.unless_refused("a private blob", anyone.get(&format!("/v2/secret/vault/blobs/{layer}")), &[401], &[]);
    wrong.unless_refused(
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
        wrong.unless(mount.status == 202, || format!("a mount from {from} is an upload and no mount: {mount}"));
        if let Some(place) = mount.header("location").filter(|_| mount.status == 202) {
            let _ = narrow.client().ask(Method::DELETE, place).send();
        }
    }
    wrong.unless_refused(
        "the same after the tries",
        narrow.client().get(&narrow.path(&format!("blobs/{layer}"))),
        &[404],
        &["BLOB_UNKNOWN"],
    );
}

fn credentials(client: &Client) -> String {
    client.credentials().expect("this client has credentials").to_owned()
}
