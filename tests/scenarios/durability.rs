//! A push that cannot be stored in as many regions as its project requires is refused with a
//! reason, until the project requires fewer.
//!
//! Three voters, two of them in one region: when the other region is lost there still is a
//! majority, so that only durability stands in the way of a push. What was acknowledged before is
//! really there twice: the region that comes back alone has it.

use http::Method;
use rustix::process::Signal;
use serde_json::json;
use tests::formed::Formed;
use tests::image::{Blob, Image, MANIFEST};
use tests::metrics;
use tests::repository::{Refusal, set_durability};
use tests::wait;

#[test]
fn a_lost_region_stops_pushes_until_somebody_asks_for_less() {
    let mesh = Formed::of(&[("a-1", "a"), ("a-2", "a"), ("b-1", "b")], "");
    let [kept, refused, again, single, last] = [(); 5].map(|()| Image::random(&[200 << 10]));
    mesh.repository(0, "demo/kept").push(&kept, "kept").unwrap_or_else(|no| panic!("{no}"));
    mesh.repository(1, "demo/kept").push(&kept, "also").unwrap_or_else(|no| panic!("{no}"));

    mesh.members()[2].stop(Signal::KILL);
    // through the primary and through the other; at once and once more when the death is known
    for (round, image) in [&refused, &again].into_iter().enumerate() {
        for at in 0..2 {
            let tag = format!("refused-{round}-{at}");
            // if the killed one led the ledger the others may refuse for that, at first
            wait::until_ok("it is refused for the sake of its durability", || {
                let no = mesh.repository(at, "demo/kept").push(image, &tag);
                names_durability(&no.expect_err("held in one region, and acknowledged"))
            });
        }
        for at in 0..2 {
            nothing_of(&mesh, at, image, round);
        }
        wait::until("the death is known", || {
            let status = mesh.status(0).ok()?;
            let nodes = status["nodes"].as_array()?;
            nodes.iter().any(|node| node["name"] == "b-1" && node["state"] == "down").then_some(())
        });
    }
    for at in 0..2 {
        for tag in ["kept", "also"] {
            let found = mesh.repository(at, "demo/kept").pull(tag);
            let found = found.unwrap_or_else(|no| panic!("pulls go on: {tag} at {at}: {no}"));
            assert_eq!(found.digest, kept.digest(), "{tag} at {at}");
        }
    }

    set_durability(&mesh.client(1), "demo", 1);
    mesh.repository(0, "demo/kept")
        .push(&single, "single")
        .unwrap_or_else(|no| panic!("one region was asked for: {no}"));
    mesh.repository(1, "demo/kept")
        .push(&again, "again")
        .unwrap_or_else(|no| panic!("one region was asked for: {no}"));

    mesh.members()[2].serve();
    mesh.members()[2].wait_ready();
    let expected = [("kept", &kept), ("also", &kept), ("single", &single), ("again", &again)];
    for at in [2, 0, 1] {
        for (tag, image) in expected {
            let found = mesh.repository(at, "demo/kept").pull(tag);
            let found = found.unwrap_or_else(|no| panic!("{tag} at {at}: {no}"));
            assert!(
                found.digest == image.digest() && !found.may_be_stale,
                "{tag} at {at}: {found:?}"
            );
        }
        nothing_of(&mesh, at, &refused, 0);
    }
    set_durability(&mesh.client(0), "demo", 2);
    wait::until_ok("two regions are there again", || {
        mesh.repository(0, "demo/kept").push(&last, "last")
    });

    // this image was not pulled in b: the acknowledgement alone has brought it there
    for at in 0..2 {
        mesh.members()[at].stop(Signal::KILL);
    }
    let alone = mesh.repository(2, "demo/kept");
    for (tag, image) in [("last", &last), ("kept", &kept)] {
        let found =
            wait::until_ok("the other region serves what was acknowledged", || alone.pull(tag));
        assert_eq!(found.digest, image.digest(), "{tag}");
    }
}

/// What every node has lost is told as gone, so that nobody waits for it and the next push sends
/// it; but only when all nodes have been heard.
#[test]
fn a_blob_that_every_node_has_lost_is_gone_until_it_is_pushed_again() {
    let mesh = Formed::of(&[("a-1", "a"), ("b-1", "b"), ("c-1", "c")], "");
    let (image, other) = (Image::random(&[300 << 10]), Image::random(&[200 << 10]));
    for (image, tag) in [(&image, "1"), (&other, "2")] {
        mesh.repository(0, "demo/lost").push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    let layer = &image.blobs[1];
    let path = format!("/v2/demo/lost/blobs/{}", layer.digest);
    let lose = |at: usize| {
        let _ = std::fs::remove_file(layer.file(&mesh.members()[at].data()));
    };
    let answered = |at: usize, method: Method| {
        let client = mesh.repository(at, "demo/lost").client().clone();
        client.ask(method, &path).send().unwrap_or_else(|none| panic!("{none}"))
    };
    (0..3).for_each(lose);
    mesh.members()[2].stop(Signal::KILL);
    for at in [0, 1, 0] {
        // the one that is not heard may have it
        let answer = answered(at, Method::GET);
        assert_eq!(answer.status, 503, "at {at}: {answer}");
    }
    mesh.members()[2].serve();
    mesh.members()[2].wait_ready();
    for at in 0..3 {
        wait::until_ok("it is told as gone", || {
            let answer = answered(at, Method::GET);
            let gone = answer.status == 404
                && answer.envelope().is_some_and(|(code, _)| code == "BLOB_UNKNOWN");
            if gone { Ok(()) } else { Err(format!("at {at}: {answer}")) }
        });
        let head = answered(at, Method::HEAD);
        assert_eq!(head.status, 404, "HEAD and GET say the same, at {at}: {head}");
    }
    // a client that asks first, as all do, sends what is missing
    wait::until_ok("a push mends it", || mesh.repository(1, "demo/lost").push(&image, "1"));
    for at in 0..3 {
        for (image, tag) in [(&image, "1"), (&other, "2")] {
            let found =
                wait::until_ok("all of it is back", || mesh.repository(at, "demo/lost").pull(tag));
            assert_eq!(found.digest, image.digest(), "{tag} at {at}");
        }
    }
}

/// What every node has and knows to be damaged was once tried again for ever, told by no metric, and
/// never sent again: a client that asked before a push heard that it was there.
#[test]
fn a_blob_that_is_damaged_everywhere_is_lost_until_it_is_pushed_again() {
    let mut mesh = Formed::of(&[("a-1", "a"), ("b-1", "b"), ("c-1", "c")], "");
    let image = Image::random(&[300 << 10]);
    mesh.repository(0, "demo/spoilt").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let layer = &image.blobs[1];
    for at in 0..3 {
        // whoever had none fetches one
        mesh.repository(at, "demo/spoilt").pull("1").unwrap_or_else(|no| panic!("{no}"));
    }
    spoil(&mesh, layer);
    let client = |at: usize| mesh.repository(at, "demo/spoilt").client().clone();
    for at in 0..3 {
        let path = format!("/v2/demo/spoilt/blobs/{}", layer.digest);
        wait::until_ok("it is told as gone", || {
            let answer = client(at).ask(Method::HEAD, &path).send().map_err(|no| no.to_string())?;
            if answer.status == 404 { Ok(()) } else { Err(format!("at {at}: {answer}")) }
        });
        for range in [None, Some("bytes=0-99"), Some("bytes=200000-")] {
            let get = client(at).ask(Method::GET, &path);
            let get = range.into_iter().fold(get, |get, range| get.header("range", range));
            let answer = get.send().unwrap_or_else(|none| panic!("{range:?} at {at}: {none}"));
            let code = answer.envelope().map(|(code, _)| code);
            let gone = answer.status == 404 && code.as_deref() == Some("BLOB_UNKNOWN");
            assert!(gone, "GET says what HEAD says, {range:?} at {at}: {answer}");
        }
        let path = format!("/v2/demo/other/blobs/uploads/?mount={}&from=demo/spoilt", layer.digest);
        let answer = client(at).ask(Method::POST, &path).send().unwrap_or_else(|no| panic!("{no}"));
        assert_eq!(answer.status, 202, "a mount is no promise of bytes, at {at}: {answer}");
    }
    let repaired = |counted: u64| {
        wait::until_ok("a repair tells how many are lost", || {
            let repair = json!({"kind": "repair", "project": "demo"});
            let said = mesh.client(0).send_json(Method::POST, "/api/atoll/v1/jobs", &repair);
            let said = said.map_err(|none| none.to_string())?;
            let lost: Vec<u64> = (0..3)
                .map(|at| metrics::value(&mesh.client(at), "atoll_repair_blobs_lost"))
                .collect();
            let most = lost.iter().max().copied();
            if most == Some(counted) { Ok(()) } else { Err(format!("{lost:?}: {said}")) }
        });
    };
    let counted = |wanted: u64| {
        wait::until_ok("what is lost is counted without a repair", || {
            let lost: Vec<u64> = (0..3)
                .map(|at| metrics::value(&mesh.client(at), "atoll_repair_blobs_lost"))
                .collect();
            if lost.iter().max() == Some(&wanted) { Ok(()) } else { Err(format!("{lost:?}")) }
        });
    };
    counted(1);
    repaired(1);
    told_as_lost(&mesh, &layer.digest);
    // whoever is not heard may have a sound copy
    mesh.members()[2].stop(Signal::KILL);
    for (at, method) in [(0, Method::HEAD), (1, Method::HEAD), (0, Method::GET)] {
        let path = format!("/v2/demo/spoilt/blobs/{}", layer.digest);
        let answer = client(at).ask(method.clone(), &path).send();
        let answer = answer.unwrap_or_else(|none| panic!("{method} at {at}: {none}"));
        assert_eq!(answer.status, 503, "{method} at {at}: {answer}");
    }
    mesh.members()[2].serve();
    mesh.members()[2].wait_ready();
    // a client that does not ask hears it with the manifest
    let put = client(1).ask(Method::PUT, "/v2/demo/spoilt/manifests/2");
    let put = put.header("content-type", MANIFEST).body(image.manifest.bytes.clone()).send();
    let put = put.unwrap_or_else(|none| panic!("{none}"));
    let code = put.envelope().map(|(code, _)| code);
    assert!(put.status == 404 && code.as_deref() == Some("MANIFEST_BLOB_UNKNOWN"), "{put}");
    // a client that asks first, as all do, sends what is missing
    wait::until_ok("a push mends it", || mesh.repository(1, "demo/spoilt").push(&image, "1"));
    for at in 0..3 {
        let found = wait::until_ok("it is back", || mesh.repository(at, "demo/spoilt").pull("1"));
        assert_eq!(found.digest, image.digest(), "at {at}");
    }
    counted(0);
    repaired(0);
    let told = tests::shop::atoll(&mesh, 1, "dr", &["--check"]);
    assert!(told.success, "{told:?}");

    // the same once more, and an edge of another region has pulled it
    let edge = mesh.add_edge("edge", "d", "");
    mesh.members()[edge].wait_ready();
    mesh.repository(edge, "demo/spoilt").pull("1").unwrap_or_else(|no| panic!("{no}"));
    spoil(&mesh, layer);
    for at in 0..3 {
        wait::until_ok("its copy mends all others, though nobody wants them there", || {
            let there = std::fs::read(layer.file(&mesh.members()[at].data()));
            let there = there.map_err(|no| format!("at {at}: {no}"))?;
            if there == layer.bytes { Ok(()) } else { Err(format!("at {at}")) }
        });
    }
}

/// Spoils the copy of each replica, and has all notice.
fn spoil(mesh: &Formed, blob: &Blob) {
    for member in &mesh.members()[..3] {
        member.flip(blob, 100_000);
    }
    for name in ["a-1", "b-1", "c-1"] {
        let path = format!("/api/atoll/v1/nodes/{name}/scrub");
        let begun = mesh.client(0).ask(Method::POST, &path).send();
        begun.unwrap_or_else(|none| panic!("{name}: {none}"));
    }
}

/// A blob of demo/spoilt:1 is damaged wherever it is: every command that is about it says so.
fn told_as_lost(mesh: &Formed, digest: &str) {
    let atoll = |verb: &str, arguments: &[&str]| tests::shop::atoll(mesh, 1, verb, arguments);
    let told = atoll("dr", &["--check"]);
    assert!(!told.success && told.out.contains("these images need: demo/spoilt:1"), "{told:?}");
    let told = atoll("explain", &["demo/spoilt:1"]);
    assert!(told.out.contains("no replica has a sound copy of 1 of its blobs"), "{told:?}");
    assert!(told.out.contains(digest), "{told:?}");
    let told = atoll("scrub", &["a-1"]);
    assert!(told.out.contains(digest), "{told:?}");
    // each asks the others every few seconds
    wait::until_ok("status says who has some", || {
        let told = atoll("status", &[]);
        if told.out.contains("up, has damaged blobs") { Ok(()) } else { Err(format!("{told:?}")) }
    });
    let told = atoll("artifact", &["delete", "demo/spoilt:1"]);
    assert!(told.success, "{told:?}");
    let told = atoll("trash", &["restore", "demo/spoilt:1"]);
    let says = format!("no replica has a sound copy of its blob {digest}");
    assert!(told.success && told.out.contains(&says), "{told:?}");
}

/// Whether the refusal, 503 with a hint to come again, is a sentence that names what can be done
/// about it; else what it says.
fn names_durability(refusal: &Refusal) -> Result<(), String> {
    let answer =
        refusal.answer().unwrap_or_else(|| panic!("a refusal must be an answer: {refusal}"));
    assert_eq!(answer.status, 503, "{answer}");
    assert!(
        answer.header("retry-after").is_some(),
        "503 without Retry-After: {:?}",
        answer.headers
    );
    let (code, message) =
        answer.envelope().unwrap_or_else(|| panic!("not the specification's envelope: {answer}"));
    assert_eq!(code, "UNAVAILABLE", "{answer}");
    if message.contains("durability") { Ok(()) } else { Err(message) }
}

/// Neither the tags nor the manifest of a refused push exist.
fn nothing_of(mesh: &Formed, at: usize, image: &Image, round: usize) {
    let repository = mesh.repository(at, "demo/kept");
    for reference in
        [format!("refused-{round}-0"), format!("refused-{round}-1"), image.digest().to_owned()]
    {
        let no = repository.resolve(&reference).expect_err("a refused push is there");
        assert_eq!(no.answer().map(|answer| answer.status), Some(404), "{reference} at {at}: {no}");
    }
    let listed =
        repository.client().get("/v2/demo/kept/tags/list").unwrap_or_else(|none| panic!("{none}"));
    assert!(!String::from_utf8_lossy(&listed.body).contains("refused"), "at {at}: {listed}");
}

/// The first layers' grants ended after `uploads.expire_after`, however busily the last layer was
/// still being uploaded; its manifest was refused then, for ever.
#[test]
fn a_push_that_takes_longer_than_an_upload_may_rest_is_taken() {
    let mesh =
        Formed::of(&[("one", "a"), ("two", "b"), ("three", "c")], "uploads:\n  expire_after: 2s\n");
    let image = Image::random(&[64 << 10, 256 << 10]);
    let repository = mesh.repository(0, "demo/slow");
    let (last, first) = image.blobs.split_last().expect("a layer");
    for blob in first {
        repository.upload(blob).unwrap_or_else(|no| panic!("{no}"));
    }
    let mut place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
    let pieces: Vec<_> = last.bytes.chunks(last.bytes.len() / 10 + 1).collect();
    let mut sent = 0;
    for piece in &pieces {
        std::thread::sleep(std::time::Duration::from_millis(600));
        let range = format!("{sent}-{}", sent + piece.len() - 1);
        let patch =
            repository.client().ask(http::Method::PATCH, &place).header("content-range", &range);
        let answer = patch.body(piece.to_vec()).send().unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(answer.status, 202, "{answer}");
        place = answer.header("location").expect("where it goes on").to_owned();
        sent += piece.len();
    }
    repository
        .close_upload(&place, &last.digest, Vec::new().into())
        .unwrap_or_else(|no| panic!("{no}"));
    repository
        .put_manifest("1", &image)
        .unwrap_or_else(|no| panic!("after three times expire_after: {no}"));
    mesh.repository(2, "demo/slow").pull("1").unwrap_or_else(|no| panic!("{no}"));
    // grants of a push that does not continue expire all the same
    let orphan = tests::image::Image::random(&[1000]);
    repository.upload(&orphan.blobs[0]).unwrap_or_else(|no| panic!("{no}"));
    wait::until("the blob is not readable any more", || {
        repository.blob(&orphan.blobs[0].digest).err()
    });
}

/// Uploads and copies never made room, although cached blobs may go; and a disk that blobs have
/// filled stops the ledger.
#[test]
fn cached_blobs_make_way_for_uploads_and_the_last_of_a_disk_is_the_ledgers() {
    const MIB: usize = 1 << 20;
    let mut mesh = Formed::of(&[("one", "a"), ("two", "b"), ("three", "c")], "");
    let member = mesh.prepare("small", "d", "");
    let _small = tests::small_disk::SmallDisk::of(&member.data(), "128m");
    member.must_join(&mesh.members()[0].invite());
    member.serve();
    member.wait_ready();
    let client = member.anyone();
    mesh.add(member);
    set_durability(&mesh.client(0), "demo", 1);
    let layers = |count: usize| Image::random(&vec![8 * MIB; count]);
    for tag in ["a", "b"] {
        mesh.repository(0, "demo/app").push(&layers(5), tag).unwrap_or_else(|no| panic!("{no}"));
        tests::repository::Repository::new(&client, "demo/app")
            .pull(tag)
            .unwrap_or_else(|no| panic!("{no}"));
    }
    // some 80 MiB of 128 are cached now; what is pushed here is kept
    let small = mesh.repository(3, "demo/kept");
    small.push(&layers(7), "1").unwrap_or_else(|no| panic!("cached blobs did not make way: {no}"));
    let evicted = tests::metrics::value(&client, "atoll_cache_evicted_total");
    assert!(evicted >= 1, "nothing was evicted");
    // when nothing cached is left to go, an upload is refused in words, and nothing else is
    let mut kept = 0;
    let refused = loop {
        assert!(kept < 30, "240 MiB on a disk of 128");
        kept += 1;
        if let Err(no) = small.upload(layers(1).blobs.last().expect("a layer")) {
            break no;
        }
    };
    let answer = refused.answer().unwrap_or_else(|| panic!("{refused}")).clone();
    assert_eq!(answer.status, 503, "{answer}");
    assert!(answer.to_string().contains("data_dir"), "it does not say what is full: {answer}");
    for n in 0..20 {
        let tag = format!("t{n}");
        mesh.repository(0, "demo/app")
            .push(&Image::tiny(), &tag)
            .unwrap_or_else(|no| panic!("{no}"));
        tests::repository::Repository::new(&client, "demo/app")
            .pull(&tag)
            .unwrap_or_else(|no| panic!("{tag}: {no}"));
    }
    small.pull("1").unwrap_or_else(|no| panic!("{no}"));
    let ready = client.get("/readyz").unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(ready.status, 200, "its ledger and its index go on: {ready}");
}
