//! Whatever a broken or hostile client sends: the right status, an error that says what is wrong,
//! nothing stored, nothing grown.
//!
//! One mesh takes it all, and at the end an honest push and pull go through, the data folders are
//! as large as before and hold no file more. A refusal has the specification's envelope; "the right
//! status" is what the specification names, and where it leaves room, any of the few a client can
//! make sense of.

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tests::complaints::Complaints;
use tests::http::Client;
use tests::image::{Blob, INDEX, Image, MANIFEST, digest, manifest_of, random_bytes};
use tests::mesh::Mesh;
use tests::repository::Repository;
use tests::{footprint, wait, wire};

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
    repository
        .push(&honest, "after")
        .unwrap_or_else(|no| panic!("an honest push afterwards: {no}"));
    for at in 0..3 {
        for tag in ["honest", "after"] {
            mesh.repository(at, "demo/hostile")
                .pull(tag)
                .unwrap_or_else(|no| panic!("an honest pull of {tag}: {no}"));
        }
    }
}

/// Not hostile requests, but those of other registries' users, caches and clients: they are
/// accepted, or refused in the way that makes the client continue or stop.
#[test]
fn what_other_registries_take_is_taken_here() {
    let mesh = Mesh::up_with(3, &[("uploads.expire_after", "10s")]);
    let (repository, wrong) = (mesh.repository(0, "demo/guests"), Complaints::default());
    let image = Image::random(&[50_000]);
    repository.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    mesh.create_project("locked", false, 2);
    mesh.repository(0, "locked/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));

    kept_when_named(&wrong, &mesh, &repository);
    hints_and_empty_parameters(&wrong, &repository, &image);
    conditions(&wrong, &mesh, &image);
    ranges(&wrong, &mesh, &image.blobs[1]);
    heads(&wrong, &mesh, &image);
    first_mistakes(&wrong, &mesh, &image);
    lost_connections(&wrong, &repository);
    promises_of_a_head(&wrong, &repository);
}

/// An upload whose client vanished without a word is gone on with by its successor.
fn lost_connections(wrong: &Complaints, repository: &Repository) {
    use std::io::{Read as _, Write as _};
    let client = repository.client();
    let blob = Blob::random(1000);
    let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
    let mut lost = std::net::TcpStream::connect(client.authority()).expect("the node listens");
    let head = format!(
        "PATCH {place} HTTP/1.1\r\nhost: {}\r\nauthorization: {}\r\ncontent-length: 1000\r\n\r\n",
        client.authority(),
        credentials(client)
    );
    lost.write_all(&[head.as_bytes(), &blob.bytes[..400]].concat()).expect("it takes what comes");
    // what was sent may still be on its way
    wait::until("the node has what came", || {
        let state = client.get(&place).unwrap_or_else(|none| panic!("{none}"));
        wrong.unless(state.status == 204, || {
            format!("the state of an upload whose client is gone: {state}")
        });
        (state.status != 204 || state.header("range") == Some("0-399")).then_some(())
    });
    // the successor may pause for longer than it took to take the upload over, because no other
    // request wants it
    let mut next = std::net::TcpStream::connect(client.authority()).expect("the node listens");
    let head = format!(
        "PATCH {place} HTTP/1.1\r\nhost: {}\r\nauthorization: {}\r\ncontent-range: 400-999\r\ncontent-length: 600\r\nconnection: close\r\n\r\n",
        client.authority(),
        credentials(client)
    );
    next.write_all(&[head.as_bytes(), &blob.bytes[400..500]].concat())
        .expect("it takes what comes");
    std::thread::sleep(std::time::Duration::from_secs(5));
    let went = next.write_all(&blob.bytes[500..]);
    let mut answer = String::new();
    let read = next.read_to_string(&mut answer);
    wrong.unless(answer.starts_with("HTTP/1.1 202"), || {
        format!("the rest by another connection, with a pause: {went:?}, {read:?}, {answer}")
    });
    let sealed = repository.close_upload(&place, &blob.digest, Bytes::new());
    wrong.unless(sealed.is_ok(), || {
        format!("the end: {}", sealed.err().map(|no| no.to_string()).unwrap_or_default())
    });
    drop(lost);
}

/// A blob that a HEAD has promised can be named, though the manifest that kept it is deleted
/// meanwhile.
fn promises_of_a_head(wrong: &Complaints, repository: &Repository) {
    let image = Image::tiny();
    repository.push(&image, "promised").unwrap_or_else(|no| panic!("{no}"));
    // the grants of the uploads themselves are over
    wait::until("what was uploaded beside it is gone", || {
        let blob = Blob::random(100);
        repository.upload(&blob).unwrap_or_else(|no| panic!("{no}"));
        std::thread::sleep(std::time::Duration::from_secs(12));
        repository.blob(&blob.digest).is_err().then_some(())
    });
    for blob in &image.blobs {
        let path = repository.path(&format!("blobs/{}", blob.digest));
        let head = repository
            .client()
            .ask(Method::HEAD, &path)
            .send()
            .unwrap_or_else(|none| panic!("{none}"));
        wrong.unless(head.status == 200, || format!("HEAD of what was pushed: {head}"));
    }
    let path = repository.path(&format!("manifests/{}", image.digest()));
    let deleted = repository
        .client()
        .ask(Method::DELETE, &path)
        .send()
        .unwrap_or_else(|none| panic!("{none}"));
    wrong.unless(deleted.status == 202, || format!("deleting the manifest: {deleted}"));
    let again = repository.put_manifest("again", &image);
    wrong.unless(again.is_ok(), || {
        format!("what HEAD promised: {}", again.err().map(|no| no.to_string()).unwrap_or_default())
    });
}

/// A blob that was uploaded and is named by a manifest stays, whatever its media type says, on
/// every node and after the upload's time.
fn kept_when_named(wrong: &Complaints, mesh: &Mesh, repository: &Repository) {
    let (listed, foreign, config, unnamed) =
        (Blob::random(20_000), Blob::random(20_000), Blob::random(100), Blob::random(100));
    for blob in [&listed, &foreign, &config, &unnamed] {
        repository.upload(blob).unwrap_or_else(|no| panic!("{no}"));
    }
    // what BuildKit before 0.21 writes as its cache
    let described = |blob: &Blob, kind: &str| json!({"mediaType": kind, "digest": blob.digest, "size": blob.bytes.len()});
    let cache = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [described(&listed, "application/vnd.docker.image.rootfs.diff.tar.gzip")]});
    let put = |tag: &str, kind: &str, what: &serde_json::Value| {
        let put = repository.put_bytes(tag, kind, Bytes::from(what.to_string()));
        wrong.unless(put.is_ok(), || {
            format!("{tag}: {}", put.err().map(|no| no.to_string()).unwrap_or_default())
        });
    };
    put("cache", INDEX, &cache);
    let mut away = described(&foreign, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    away["urls"] = json!(["https://nowhere.invalid/layer"]);
    let never = json!({"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "digest": digest(b"never uploaded"), "size": 14, "urls": ["https://nowhere.invalid/other"]});
    let windows = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": described(&config, "application/vnd.oci.image.config.v1+json"), "layers": [away, never]});
    put("windows", MANIFEST, &windows);
    put("nothing", INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": null}));
    let lost = json!({"schemaVersion": 2, "manifests": [{"mediaType": "a/b", "digest": digest(b"gone"), "size": 4}]});
    let lost = repository.put_bytes("lost", INDEX, Bytes::from(lost.to_string()));
    wrong.unless_failed("an index of what nobody has", lost, &[404], &["MANIFEST_BLOB_UNKNOWN"]);

    let everywhere = || {
        (0..3).flat_map(|at| [(at, &listed), (at, &foreign)]).filter_map(|(at, blob)| {
            let answer = Repository::new(&mesh.anyone(at), "demo/guests").blob(&blob.digest);
            answer.err().map(|no| format!("{} at {at}: {no}", blob.digest))
        })
    };
    everywhere().for_each(|missing| wrong.add(missing));
    wait::until("what no manifest names is gone", || {
        let gone = (0..3).all(|at| {
            let path = repository.path(&format!("blobs/{}", unnamed.digest));
            mesh.anyone(at).get(&path).is_ok_and(|answer| answer.status == 404)
        });
        gone.then_some(())
    });
    everywhere().for_each(|missing| wrong.add(format!("afterwards, {missing}")));
}

/// A hint that cannot be followed is no error, and an empty parameter is one that was not given.
fn hints_and_empty_parameters(wrong: &Complaints, repository: &Repository, image: &Image) {
    let layer = &image.blobs[1].digest;
    let client = repository.client();
    for query in [
        &format!("mount={layer}&from=pause"),
        &format!("mount={layer}&from=../../etc"),
        &format!("mount={layer}&from=UPPER/case"),
        &format!("mount={layer}&from=demo/nowhere"),
        "mount=sha256:short&from=demo/guests",
        "mount=&from=demo/guests",
        "mount=&from=&digest=&digest-algorithm=&ns=",
    ] {
        let begun =
            client.ask(Method::POST, &repository.path(&format!("blobs/uploads/?{query}"))).send();
        let begun = begun.unwrap_or_else(|none| panic!("{query}: {none}"));
        wrong.unless(begun.status == 202, || format!("{query}: {begun}"));
        if let Some(place) = begun.header("location").filter(|_| begun.status == 202) {
            let _ = client.ask(Method::DELETE, place).send();
        }
    }
    let mounted = client
        .ask(Method::POST, &repository.path(&format!("blobs/uploads/?mount={layer}&from=")))
        .send();
    wrong.unless(mounted.is_ok_and(|answer| answer.status == 201), || {
        "an administrator's mount from anywhere".into()
    });
    for what in [
        "tags/list?n=&last=",
        &format!("referrers/{}?artifactType=", image.digest()),
        "manifests/1?ns=",
    ] {
        let answer =
            client.get(&repository.path(what)).unwrap_or_else(|none| panic!("{what}: {none}"));
        wrong.unless(answer.status == 200, || format!("{what}: {answer}"));
        wrong.unless(answer.header("oci-filters-applied").is_none(), || {
            format!("{what}: filtered by nothing")
        });
    }
    for scope in ["repository(plugin):demo/guests:push,pull", "repository:demo/guests:pull,push"] {
        let token = client.get(&format!("/service/token?service=atoll&scope={scope}"));
        let token = token.unwrap_or_else(|none| panic!("{none}")).json()["token"].clone();
        let bearer = client.clone().anonymous().bearer(token.as_str().unwrap_or_default());
        let begun = Repository::new(&bearer, "demo/guests").open_upload();
        match begun {
            Ok(place) => drop(client.ask(Method::DELETE, &place).send()),
            Err(no) => wrong.add(format!("a token for {scope}: {no}")),
        }
    }
}

/// Conditions are judged, on every route that has entity tags, once it is known that the caller may
/// read.
fn conditions(wrong: &Complaints, mesh: &Mesh, image: &Image) {
    let (manifest, blob) = (image.digest(), &image.blobs[1].digest);
    for at in 0..3 {
        let client = mesh.anyone(at);
        for (what, tag) in [
            ("manifests/1", manifest),
            (&format!("manifests/{manifest}"), manifest),
            (&format!("blobs/{blob}"), blob),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let ask = |name: &str, value: &str| {
                    let ask = client
                        .ask(method.clone(), &format!("/v2/demo/guests/{what}"))
                        .header(name, value);
                    ask.send().unwrap_or_else(|none| panic!("{what}: {none}"))
                };
                let plain = ask("accept", "*/*");
                let tag_said = plain.header("etag").unwrap_or_default().to_owned();
                wrong.unless(tag_said == format!("\"{tag}\""), || {
                    format!("{method} {what} at {at}: {tag_said:?}")
                });
                for (name, value, status) in [
                    ("if-none-match", tag_said.as_str(), 304),
                    ("if-none-match", &format!("\"other\", W/{tag_said}"), 304),
                    ("if-none-match", "*", 304),
                    ("if-none-match", "\"other\"", 200),
                    ("if-match", &tag_said, 200),
                    ("if-match", "\"other\"", 412),
                ] {
                    let answer = ask(name, value);
                    let right =
                        answer.status == status && (status != 304 || answer.body.is_empty());
                    wrong.unless(right, || {
                        format!("{method} {what} at {at}, {name}: {value}: {answer}")
                    });
                    let tagged = status == 412 || answer.header("etag") == Some(&tag_said);
                    wrong.unless(tagged, || {
                        format!("{method} {what} at {at}, {name}: {value}: no tag")
                    });
                }
                let (user, password) = mesh.admin();
                let owner = client
                    .clone()
                    .basic(user, password)
                    .ask(method.clone(), &format!("/v2/locked/app/{what}"));
                let owner = owner.send().unwrap_or_else(|none| panic!("{none}"));
                let kept =
                    owner.header("cache-control").is_some_and(|said| said.starts_with("private"));
                wrong.unless(kept, || {
                    format!("{method} {what} at {at}: a shared cache may keep what is private")
                });
                let locked = client
                    .ask(method.clone(), &format!("/v2/locked/app/{what}"))
                    .header("if-none-match", "*");
                let locked = locked.send().unwrap_or_else(|none| panic!("{none}"));
                wrong.unless(locked.status == 401, || {
                    format!("{method} {what} of who may not read it: {locked}")
                });
            }
        }
        let absent = client
            .ask(Method::GET, "/v2/demo/guests/manifests/absent")
            .header("if-none-match", "*")
            .send();
        wrong.unless_refused(
            "a condition on what is not there",
            absent,
            &[404],
            &["MANIFEST_UNKNOWN"],
        );
    }
}

/// Parts of a blob, as podman asks for them, wherever it is asked.
fn ranges(wrong: &Complaints, mesh: &Mesh, blob: &Blob) {
    let path = format!("/v2/demo/guests/blobs/{}", blob.digest);
    let size = blob.bytes.len();
    for at in [2, 1, 0] {
        let ask = |range: &str| mesh.anyone(at).ask(Method::GET, &path).header("range", range);
        let answer =
            |range: &str| ask(range).send().unwrap_or_else(|none| panic!("{range}: {none}"));
        let several = answer("bytes=0-9,20-29,-5");
        let kind = several.header("content-type").unwrap_or_default().to_owned();
        let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_default();
        let mut expected = Vec::new();
        for (first, end) in [(0, 10), (20, 30), (size - 5, size)] {
            let newline = if first == 0 { "" } else { "\r\n" };
            let head = format!(
                "{newline}--{boundary}\r\ncontent-type: application/octet-stream\r\ncontent-range: bytes {first}-{}/{size}\r\n\r\n",
                end - 1
            );
            expected.extend_from_slice(head.as_bytes());
            expected.extend_from_slice(&blob.bytes[first..end]);
        }
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let right = several.status == 206 && !boundary.is_empty() && several.body == expected;
        wrong.unless(right, || format!("several ranges at {at}: {several}, {kind}"));
        let one = answer("bytes=0-9,");
        let right = one.status == 206 && one.body == blob.bytes[..10];
        wrong.unless(right, || format!("a list of one range at {at}: {one}"));
        for (range, etag, whole) in [
            ("bytes=0-9", "\"other\"", true),
            ("bytes=0-9", &format!("\"{}\"", blob.digest), false),
        ] {
            let part =
                ask(range).header("if-range", etag).send().unwrap_or_else(|none| panic!("{none}"));
            let right = if whole { (200, size) } else { (206, 10) };
            wrong.unless((part.status, part.body.len()) == right, || {
                format!("If-Range {etag} at {at}: {part}")
            });
        }
        for too_much in ["bytes=0-,0-", &format!("bytes={}", "0-0,".repeat(1025))] {
            let whole = answer(too_much);
            wrong.unless(whole.status == 200 && whole.body == blob.bytes, || {
                format!("{too_much} at {at}: {whole}")
            });
        }
        wrong.unless_refused(
            "ranges behind the end",
            ask(&format!("bytes={size}-,{size}-")).send(),
            &[416],
            &[],
        );
    }
}

/// HEAD and GET differ in nothing but the body.
fn heads(wrong: &Complaints, mesh: &Mesh, image: &Image) {
    let (manifest, blob) = (image.digest(), &image.blobs[1].digest);
    for path in [
        "/v2/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/demo/guests/tags/list".to_owned(),
        "/v2/demo/guests/tags/list?n=1".to_owned(),
        format!("/v2/demo/guests/referrers/{manifest}"),
        "/v2/demo/guests/manifests/1".to_owned(),
        "/v2/demo/guests/manifests/absent".to_owned(),
        format!("/v2/demo/guests/blobs/{blob}"),
        "/api/v2.0/projects".to_owned(),
        "/api/v2.0/projects/demo".to_owned(),
        "/api/v2.0/registries".to_owned(),
        "/healthz".to_owned(),
        "/nowhere".to_owned(),
    ] {
        let ask = |method| {
            mesh.client(1).ask(method, &path).send().unwrap_or_else(|none| panic!("{path}: {none}"))
        };
        let (head, get) = (ask(Method::HEAD), ask(Method::GET));
        wrong.unless(head.status == get.status && head.body.is_empty(), || {
            format!("{path}: {head}, but {get}")
        });
        for name in [
            "content-length",
            "content-type",
            "docker-content-digest",
            "etag",
            "link",
            "x-total-count",
            "allow",
        ] {
            let (of_head, of_get) = (head.header(name), get.header(name));
            wrong.unless(of_head == of_get, || {
                format!("{path}: {name}: {of_head:?}, but {of_get:?}")
            });
        }
    }
}

/// Mistakes that everybody makes are answered so that the client stops at once and shows why.
fn first_mistakes(wrong: &Complaints, mesh: &Mesh, image: &Image) {
    let client = mesh.client(0);
    for (method, path) in
        [(Method::POST, "/v2/app/blobs/uploads/"), (Method::GET, "/v2/app/manifests/1")]
    {
        let answer = client.ask(method.clone(), path).send();
        let says = answer
            .as_ref()
            .ok()
            .and_then(tests::http::Answer::envelope)
            .map(|(_, message)| message);
        wrong.unless(says.is_some_and(|says| says.contains("project/name")), || {
            format!("{path}: no word on projects")
        });
        wrong.unless_refused(&format!("{method} {path}"), answer, &[404], &["NAME_UNKNOWN"]);
    }
    let blob = &image.blobs[1].digest;
    for (method, path, allowed) in [
        (Method::PATCH, "/v2/demo/guests/tags/list".to_owned(), "GET, HEAD"),
        (Method::POST, "/v2/demo/guests/manifests/1".to_owned(), "GET, HEAD, PUT, DELETE"),
        (Method::GET, "/v2/demo/guests/blobs/uploads/".to_owned(), "POST"),
        (Method::DELETE, format!("/v2/demo/guests/blobs/{blob}"), "GET, HEAD"),
        (Method::DELETE, "/api/v2.0/projects".to_owned(), "GET, HEAD, POST"),
        (Method::PUT, "/service/token".to_owned(), "GET, POST"),
        (Method::DELETE, "/v2/".to_owned(), "GET, HEAD"),
    ] {
        let answer = client
            .ask(method.clone(), &path)
            .send()
            .unwrap_or_else(|none| panic!("{path}: {none}"));
        let said = answer.header("allow");
        let right = (answer.status, said) == (405, Some(allowed));
        wrong.unless(right, || format!("{method} {path}: {answer}, Allow: {said:?}"));
    }
    // a name may be as long as the specification lets it be
    let long = Repository::new(&client, &format!("demo/{}", "a".repeat(250)));
    let pushed = long.push(&Image::tiny(), "1");
    wrong.unless(pushed.is_ok(), || {
        format!("a long name: {}", pushed.err().map(|no| no.to_string()).unwrap_or_default())
    });
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
        for (method, what) in
            [("GET", "manifests/1"), ("POST", "blobs/uploads/"), ("PUT", "manifests/1")]
        {
            let authorization = credentials(client);
            let request = format!(
                "{method} /v2/{name}/{what} HTTP/1.1\r\nhost: {}\r\nauthorization: {authorization}\r\ncontent-type: {MANIFEST}\r\n\
                 content-length: 2\r\nconnection: close\r\n\r\n{{}}",
                client.authority()
            );
            let what = format!("{method} of the name {name:?}");
            match wire::say(client.authority(), request.as_bytes()) {
                Some(answer) => {
                    wrong.unless(matches!(answer.status, 400 | 404), || format!("{what}: {answer}"))
                }
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
    wrong.unless_failed(
        "bytes under another name",
        put(&format!("sha256:{hex}")),
        &[400],
        &["DIGEST_INVALID"],
    );
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
        wrong.unless_failed(
            &format!("the digest {trick:?}"),
            put(trick),
            &[400],
            &["DIGEST_INVALID"],
        );
        if !trick.is_empty() {
            let get = repository.client().get(&repository.path(&format!("blobs/{trick}")));
            wrong.unless_refused(&format!("reading the digest {trick:?}"), get, &[400, 404], &[]);
        }
    }
    let get = repository.client().get(&repository.path(&format!("blobs/{real}")));
    wrong.unless_refused("bytes that were never accepted", get, &[404], &["BLOB_UNKNOWN"]);
    let image = Image::tiny();
    let put =
        repository.put_bytes(&format!("sha256:{hex}"), MANIFEST, image.manifest.bytes.clone());
    wrong.unless_failed("a manifest under another name", put, &[400], &["DIGEST_INVALID"]);
}

fn chunks_out_of_order(wrong: &Complaints, repository: &Repository) {
    let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
    let patch_at = |place: &str, range: &str| {
        repository
            .client()
            .ask(Method::PATCH, place)
            .header("content-range", range)
            .body(random_bytes(100))
            .send()
    };
    wrong.unless_refused(
        "a first chunk that is not the first",
        patch_at(&place, "100-199"),
        &[416],
        &[],
    );
    for nonsense in ["abc", "5-2", "-", "0-", "0-99999999999999999999999", "bytes=0-99", "0-98"] {
        wrong.unless_refused(
            &format!("the range {nonsense:?}"),
            patch_at(&place, nonsense),
            &[400, 416],
            &[],
        );
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
    wrong.unless_refused(
        "an upload of another repository",
        borrowed,
        &[404],
        &["BLOB_UPLOAD_UNKNOWN"],
    );
    let ended = repository
        .client()
        .ask(Method::DELETE, &place)
        .send()
        .unwrap_or_else(|none| panic!("{none}"));
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
            with(
                "layers",
                json!([{"mediaType": "a/b", "digest": known.blobs[1].digest, "size": -1}]),
            ),
        ),
        (
            "another type inside than outside",
            with("mediaType", json!("application/vnd.oci.image.index.v1+json")),
        ),
    ];
    for (what, bytes) in invalid {
        wrong.unless_failed(
            &format!("a manifest of {what}"),
            put(MANIFEST, bytes),
            &[400],
            &["MANIFEST_INVALID"],
        );
    }
    for kind in [
        "text/html",
        "application/x-unknown",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "nonsense",
    ] {
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
        let answer = anyone
            .ask(method.clone(), &here.path(&what))
            .header("content-type", MANIFEST)
            .body("{}")
            .send();
        wrong.unless_refused(
            &format!("{method} {what} by nobody"),
            answer,
            &[401],
            &["UNAUTHORIZED"],
        );
    }
    let guessed = anyone.clone().basic("admin", "not the password").get("/v2/");
    wrong.unless_refused("a wrong password", guessed, &[401], &["UNAUTHORIZED"]);
    wrong.unless_refused("a forged token", anyone.clone().bearer("a.b.c").get("/v2/"), &[401], &[]);

    // what a repository does not refer to is not read through it, nor mounted by who may not read
    // its source
    let layer = &secret.blobs[1].digest;
    wrong.unless_refused(
        "a private manifest",
        anyone.get("/v2/secret/vault/manifests/1"),
        &[401],
        &[],
    );
    wrong.unless_refused(
        "a private blob",
        anyone.get(&format!("/v2/secret/vault/blobs/{layer}")),
        &[401],
        &[],
    );
    wrong.unless_refused(
        "a private blob through a public repository",
        anyone.get(&here.path(&format!("blobs/{layer}"))),
        &[404],
        &["BLOB_UNKNOWN"],
    );
    let token =
        mesh.client(1).get("/service/token?service=atoll&scope=repository:demo/hostile:pull,push");
    let token = token.unwrap_or_else(|none| panic!("{none}")).json();
    let token = token["token"].as_str().expect("a token").to_owned();
    let narrow = Repository::new(&anyone.bearer(&token), "demo/hostile");
    for from in ["secret/vault", "demo/nowhere"] {
        let mount = narrow
            .client()
            .ask(Method::POST, &narrow.path(&format!("blobs/uploads/?mount={layer}&from={from}")))
            .send();
        let mount = mount.unwrap_or_else(|none| panic!("{none}"));
        wrong.unless(mount.status == 202, || {
            format!("a mount from {from} is an upload and no mount: {mount}")
        });
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
