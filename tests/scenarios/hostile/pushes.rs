//! Pushes: uploads and manifests.

use super::*;

/// An upload whose client vanished without a word is gone on with by its successor.
pub(super) fn lost_connections(wrong: &Complaints, repository: &Repository) {
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

/// A blob that was uploaded and is named by a manifest stays, whatever its media type says, on
/// every node and after the upload's time.
pub(super) fn kept_when_named(wrong: &Complaints, mesh: &Mesh, repository: &Repository) {
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

/// What a client writes in another way than most do, and every other registry reads.
pub(super) fn written_otherwise(wrong: &Complaints, repository: &Repository, image: &Image) {
    let text = String::from_utf8_lossy(&image.manifest.bytes).into_owned();
    let twice = text.replacen('{', "{\"schemaVersion\":2,\"annotations\":{},", 1);
    let half = text.replacen('{', "{\"annotations\":{\"a\":\"\\ud800\"},", 1);
    for (tag, kind, text) in [
        ("twice", MANIFEST.to_owned(), twice),
        ("half", MANIFEST.to_owned(), half),
        ("upper", MANIFEST.to_uppercase(), text),
    ] {
        let bytes = Bytes::from(text);
        let put = repository.put_bytes(tag, &kind, bytes.clone());
        wrong.unless(put.is_ok(), || {
            format!("{tag}: {}", put.err().map(|no| no.to_string()).unwrap_or_default())
        });
        let path = repository.path(&format!("manifests/{tag}"));
        let got = repository.client().get(&path).unwrap_or_else(|none| panic!("{tag}: {none}"));
        let same = got.body == bytes && got.header("content-type") == Some(MANIFEST);
        wrong.unless(same, || format!("{tag} did not come as it was put: {got}"));
    }
    let blob = Blob::random(100);
    let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
    let patch = repository.client().ask(Method::PATCH, &place).header("content-range", "");
    let patched = patch.body(blob.bytes.clone()).send().unwrap_or_else(|none| panic!("{none}"));
    wrong.unless(patched.status == 202, || format!("an empty Content-Range: {patched}"));
    for range in ["bytes 0-99/100", "bytes 0-99/*", "0-99"] {
        let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
        let patch = repository.client().ask(Method::PATCH, &place).header("content-range", range);
        let patched = patch.body(blob.bytes.clone()).send();
        let patched = patched.unwrap_or_else(|none| panic!("{none}"));
        wrong.unless(patched.status == 202, || format!("Content-Range {range}: {patched}"));
    }
    let token = "/service/token?service=atoll&scope=repository:demo/guests:pull";
    let head = repository.client().ask(Method::HEAD, token).send();
    let head = head.unwrap_or_else(|none| panic!("{none}"));
    wrong.unless(head.status == 200, || format!("HEAD of {token}: {head}"));
}

/// A hint that cannot be followed is no error, and an empty parameter is one that was not given.
pub(super) fn hints_and_empty_parameters(
    wrong: &Complaints,
    repository: &Repository,
    image: &Image,
) {
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

pub(super) fn wrong_digests(wrong: &Complaints, repository: &Repository) {
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

pub(super) fn chunks_out_of_order(wrong: &Complaints, repository: &Repository) {
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

pub(super) fn manifests_that_are_none(wrong: &Complaints, repository: &Repository, known: &Image) {
    let put = |kind: &str, bytes: Bytes| repository.put_bytes("bad", kind, bytes);
    let good = manifest_of(&known.blobs);
    let with = |field: &str, value: serde_json::Value| {
        let mut changed = good.clone();
        changed[field] = value;
        Bytes::from(changed.to_string())
    };
    let invalid: [(&str, Bytes); 12] = [
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
            "a layer without a size",
            with("layers", json!([{"mediaType": "a/b", "digest": known.blobs[1].digest}])),
        ),
        ("a config without a digest", with("config", json!({"mediaType": "a/b", "size": 1}))),
        ("a byte order mark", Bytes::from(format!("\u{feff}{good}"))),
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

/// A write happens only if its tag or digest is what the writer expects: of writers at several
/// nodes that expect the same, one wins, and the others hear 412.
pub(super) fn conditional_writes(wrong: &Complaints, mesh: &Mesh) {
    let at = |node: usize| mesh.repository(node % 3, "demo/contest");
    let images: Vec<Image> = (0..6).map(|_| Image::tiny()).collect();
    for image in &images {
        // blobs and manifests are there: what is left to do is to move the tag
        at(0).push(image, image.digest()).unwrap_or_else(|no| panic!("{no}"));
    }
    let put = |node: usize, reference: &str, image: &Image, conditions: &[(&str, &str)]| {
        let place = at(node).path(&format!("manifests/{reference}"));
        let client = mesh.client(node % 3);
        let mut put = client.ask(Method::PUT, &place).header("content-type", MANIFEST);
        for (name, value) in conditions {
            put = put.header(name, value);
        }
        put.body(image.manifest.bytes.clone()).send()
    };
    let named = || {
        let found: std::collections::BTreeSet<String> = (0..3)
            .map(|node| at(node).resolve("latest").unwrap_or_else(|no| panic!("{no}")).digest)
            .collect();
        wrong.unless(found.len() == 1, || format!("the nodes name different ones: {found:?}"));
        found.into_iter().next().unwrap_or_default()
    };
    // the first round creates the tag, each other one moves it
    let mut condition = ("if-none-match", "*".to_owned());
    let mut before = String::new();
    for round in 0..4 {
        // to write what is there already changes nothing for the others
        let images: Vec<_> = images.iter().filter(|image| image.digest() != before).collect();
        let answers: Vec<_> = std::thread::scope(|beside| {
            let writers: Vec<_> = images
                .iter()
                .enumerate()
                .map(|(n, image)| {
                    let (put, (name, value)) = (&put, &condition);
                    beside.spawn(move || put(n, "latest", image, &[(*name, value.as_str())]))
                })
                .collect();
            writers.into_iter().map(|w| w.join().expect("a writer does not panic")).collect()
        });
        let mut won = Vec::new();
        for (answer, image) in answers.into_iter().zip(&images) {
            match answer {
                Ok(answer) if answer.status == 201 => won.push(image.digest()),
                other => {
                    let what = format!("round {round}, a loser");
                    wrong.unless_refused(&what, other, &[412], &["PRECONDITION"]);
                }
            }
        }
        let now = named();
        wrong.unless(won == [now.as_str()], || format!("round {round}: {won:?} won, {now} stays"));
        condition = ("if-match", format!("\"{now}\""));
        before = now;
    }
    let now = named();
    let other = images.iter().find(|image| image.digest() != now).expect("there are six");
    let quoted = format!("\"{now}\"");
    for conditions in [
        [("if-match", "\"sha256:short\"")].as_slice(),
        &[("if-match", &format!("W/{quoted}"))],
        &[("if-none-match", &quoted)],
        &[("if-match", "*"), ("if-none-match", "*")],
    ] {
        let answer = put(1, "latest", other, conditions);
        wrong.unless_refused(&format!("{conditions:?}"), answer, &[412], &["PRECONDITION"]);
    }
    let again = put(1, other.digest(), other, &[("if-none-match", "*")]);
    wrong.unless_refused("a manifest that is there", again, &[412], &["PRECONDITION"]);
    let lost = put(1, "none", other, &[("if-match", "*")]);
    wrong.unless_refused("a tag that is not there", lost, &[412], &["PRECONDITION"]);
    let delete = |reference: &str, tag: &str| {
        let place = at(2).path(&format!("manifests/{reference}"));
        mesh.client(2).ask(Method::DELETE, &place).header("if-match", tag).send()
    };
    let refused = delete("latest", &format!("\"{}\"", other.digest()));
    wrong.unless_refused("a delete of something else", refused, &[412], &["PRECONDITION"]);
    wrong.unless_refused("a delete of nothing", delete("none", "*"), &[404], &["MANIFEST_UNKNOWN"]);
    wrong.unless(named() == now, || "a refused write had an effect".to_owned());
    let deleted = delete("latest", &quoted).unwrap_or_else(|none| panic!("{none}"));
    wrong.unless(deleted.status == 202, || format!("a delete of what is expected: {deleted}"));
    // who may not write learns nothing
    let stranger = mesh.anyone(1);
    let place = at(1).path("manifests/latest");
    let answer = stranger.ask(Method::PUT, &place).header("if-match", "*").send();
    wrong.unless_refused("a stranger", answer, &[401], &["UNAUTHORIZED"]);
}
