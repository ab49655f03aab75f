//! Pulls: conditions, ranges, and HEAD.

use super::*;

/// A blob that a HEAD has promised can be named, though the manifest that kept it is deleted
/// meanwhile.
pub(super) fn promises_of_a_head(wrong: &Complaints, repository: &Repository) {
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

/// Conditions are judged, on every route that has entity tags, once it is known that the caller may
/// read.
pub(super) fn conditions(wrong: &Complaints, mesh: &Mesh, image: &Image) {
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
pub(super) fn ranges(wrong: &Complaints, mesh: &Mesh, blob: &Blob) {
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
pub(super) fn heads(wrong: &Complaints, mesh: &Mesh, image: &Image) {
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
        "/v2/demo/guests/tags/list?n=99999999999999999999".to_owned(),
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

/// The ways in which clients and proxies write a path.
pub(super) fn paths(wrong: &Complaints, mesh: &Mesh, image: &Image) {
    let (manifest, blob) = (image.digest(), &image.blobs[1].digest);
    for (plain, others) in [
        ("/v2/", vec!["/v2".to_owned(), "/v2//".to_owned()]),
        ("/v2/_catalog", vec!["/v2/_catalog/".to_owned()]),
        (
            "/v2/demo/guests/tags/list",
            [
                "/v2/demo/guests/tags/list/",
                "/v2/demo%2Fguests/tags/list",
                "//v2/demo/guests/tags/list",
            ]
            .map(str::to_owned)
            .to_vec(),
        ),
        (
            "/v2/demo/guests/manifests/1",
            vec![
                "/v2/demo//guests/manifests/1/".to_owned(),
                format!("/v2/demo/guests/manifests/{manifest}/"),
            ],
        ),
        (
            &format!("/v2/demo/guests/blobs/{blob}"),
            vec![
                format!("/v2/demo/guests/blobs/{blob}/"),
                format!("/v2/demo/guests/blobs/{}", blob.replace(':', "%3a")),
            ],
        ),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let ask = |path: &str| {
                let answer = mesh.client(1).ask(method.clone(), path).send();
                answer.unwrap_or_else(|none| panic!("{method} {path}: {none}"))
            };
            let expected = ask(plain);
            for other in &others {
                let answer = ask(other);
                let same = answer.status == 200
                    && expected.status == 200
                    && answer.body == expected.body
                    && answer.header("etag") == expected.header("etag");
                wrong.unless(same, || format!("{method} {other}: {answer}; {plain}: {expected}"));
            }
        }
    }
    // what a write names is not guessed
    let small = Blob::random(9);
    for (place, status) in
        [("/v2/demo%2Fguests/blobs/uploads//", 201), ("/v2/demo//guests/blobs/uploads/", 400)]
    {
        let post = mesh.client(1).ask(Method::POST, &format!("{place}?digest={}", small.digest));
        let put = post.body(small.bytes.clone()).send().unwrap_or_else(|none| panic!("{none}"));
        wrong.unless(put.status == status, || format!("POST {place}: {put}"));
    }
}
