//! A region that lacks a blob streams it from one that has it: once, however many ask, and before
//! the last byte has arrived.
//!
//! A client gets right bytes or an honest error. A source that dies in the middle is replaced by
//! another, from the byte that was reached. If no live node holds the blob, the answer is 503 and
//! never 404, because clients believe a 404 for good.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tests::http::{Arriving, Client};
use tests::image::{Blob, Image};
use tests::islands::Islands;
use tests::mesh::{Mesh, UNHURRIED};
use tests::repository::{Repository, create_project};
use tests::{metrics, wait};

const MIB: usize = 1 << 20;

#[test]
fn however_many_ask_one_blob_crosses_into_a_region() {
    let mesh = Mesh::up_with(6, &UNHURRIED);
    let of = |region: &str| -> Vec<_> {
        (0..6).filter(|at| mesh.nodes()[*at].region == region).collect()
    };
    let (here, there) = (of("us-east-1")[0], of("us-west-2"));
    assert_eq!(there.len(), 2, "six nodes are two in each region");
    mesh.create_project("alone", true, 1);
    let image = Image::random(&[64 * MIB]);
    let layer = &image.blobs[1];
    mesh.repository(here, "alone/cold").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let count = |name: &str| -> Vec<u64> {
        (0..6).map(|at| metrics::value(&mesh.anyone(at), name)).collect()
    };
    let counts =
        || ["sent", "received"].map(|what| count(&format!("atoll_link_bytes_{what}_total")));
    let ([sent, received], flights) = (counts(), count("atoll_flights_total"));
    assert!(sent[here] < MIB as u64, "with durability 1 nobody else gets a copy: {sent:?}");

    // what each of them asks for, and whether it stays to the end
    let asked = [
        (0, true),
        (0, true),
        (0, true),
        (1, true),
        (20 * MIB, true),
        (63 * MIB, true),
        (0, false),
        (5 * MIB, false),
    ];
    std::thread::scope(|all| {
        for at in &there {
            for (from, stays) in asked {
                let (repository, layer) = (mesh.repository(*at, "alone/cold"), layer.clone());
                all.spawn(move || repository.read_from(&layer, from, stays));
            }
        }
    });
    let after = count("atoll_flights_total");
    let flown: Vec<_> = flights.iter().zip(&after).map(|(before, after)| after - before).collect();
    assert_eq!(
        flown,
        (0..6).map(|at| u64::from(there.contains(&at))).collect::<Vec<_>>(),
        "one flight for each of the two"
    );
    let [sent, received] = [(sent, 0), (received, 1)].map(|(before, which)| {
        before
            .iter()
            .zip(&counts()[which])
            .map(|(before, after)| after - before)
            .collect::<Vec<_>>()
    });
    let whole = layer.bytes.len() as u64;
    let outside: u64 = (0..6).filter(|at| !there.contains(at)).map(|at| sent[at]).sum();
    let within: u64 = there.iter().map(|at| sent[*at]).sum();
    let came: Vec<_> = there.iter().map(|at| received[*at]).collect();
    assert_eq!(came, [whole; 2], "each node there received it once");
    assert_eq!(
        (outside, within),
        (whole, whole),
        "it crossed regions once, and from one node there to the other: {sent:?}"
    );
    for at in there {
        mesh.repository(at, "alone/cold")
            .pull("1")
            .unwrap_or_else(|no| panic!("held now at {at}: {no}"));
    }
}

#[test]
fn the_first_byte_is_served_before_the_last_has_arrived() {
    let mesh = Islands::raise();
    create_project(&mesh.client(0), "alone", true, 1);
    let image = Image::random(&[12 * MIB]);
    let layer = &image.blobs[1];
    mesh.repository(0, "alone/slow").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    mesh.narrow(1, 24_000);
    let mut coming = begin(&mesh.repository(1, "alone/slow"), layer);
    let first =
        coming.next().expect("a first piece").unwrap_or_else(|no| panic!("the first piece: {no}"));
    let moving = arriving(&mesh, 1, &layer.digest)
        .expect("the client has bytes, so the transfer is shown or the blob is held");
    let (bytes, total) = (moving["bytes"].as_u64(), moving["total"].as_u64());
    assert_eq!(total, Some(layer.bytes.len() as u64), "{moving}");
    assert!(bytes < total, "the client's first bytes came with the last: {moving}");
    assert_eq!(moving["peer"], "us-east-1", "{moving}");
    // a later request follows the same transfer, from any byte on
    let late = mesh.repository(1, "alone/slow");
    std::thread::scope(|beside| {
        beside.spawn(move || late.read_from(layer, 7 * MIB, true));
        assert_eq!(layer.bytes[..first.len()], first);
        coming.rest_is(&layer.bytes[first.len()..]).unwrap_or_else(|no| panic!("{no}"));
    });
}

#[test]
fn a_source_that_dies_in_the_middle_is_replaced_and_the_client_notices_nothing() {
    let mesh = Islands::raise();
    create_project(&mesh.client(0), "two", true, 2);
    let image = Image::random(&[12 * MIB]);
    let layer = &image.blobs[1];
    mesh.repository(0, "two/torn").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let held = |at: usize| {
        mesh.status(0).ok().and_then(|status| copies(&status, "two", at)).unwrap_or_default()
    };
    let without = (1..3)
        .find(|at| held(*at) < layer.bytes.len() as u64)
        .expect("durability 2 is not three copies");
    mesh.narrow(without, 24_000);
    let mut coming = begin(&mesh.repository(without, "two/torn"), layer);
    let first =
        coming.next().expect("a first piece").unwrap_or_else(|no| panic!("the first piece: {no}"));
    assert_eq!(layer.bytes[..first.len()], first);
    let moving = arriving(&mesh, without, &layer.digest).expect("the blob is on its way");
    let source = mesh.named(moving["peer"].as_str().expect("a transfer has a peer"));
    mesh.kill(source);
    coming
        .rest_is(&layer.bytes[first.len()..])
        .unwrap_or_else(|no| panic!("its source was killed: {no}"));
    mesh.repository(without, "two/torn").pull("1").unwrap_or_else(|no| panic!("held now: {no}"));
    mesh.start(source);
    mesh.repository(source, "two/torn")
        .pull("1")
        .unwrap_or_else(|no| panic!("the killed one serves it: {no}"));
}

#[test]
fn a_pull_whose_only_source_dies_breaks_off_and_succeeds_when_the_source_is_back() {
    let mesh = Islands::raise();
    create_project(&mesh.client(0), "alone", true, 1);
    let image = Image::random(&[12 * MIB]);
    let layer = &image.blobs[1];
    mesh.repository(0, "alone/torn").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    mesh.narrow(1, 24_000);
    let mut coming = begin(&mesh.repository(1, "alone/torn"), layer);
    let first =
        coming.next().expect("a first piece").unwrap_or_else(|no| panic!("the first piece: {no}"));
    assert_eq!(layer.bytes[..first.len()], first);
    mesh.kill(0);
    let broken = coming.rest_is(&layer.bytes[first.len()..]).expect_err("nobody had the rest");
    assert!(broken.contains("no answer"), "the client must see that it is not the whole: {broken}");
    for at in 1..3 {
        unavailable(&mesh.client(at), "alone/torn", layer);
    }
    mesh.start(0);
    for at in 1..3 {
        let client = mesh.client(at);
        wait::until_ok("the returned holder's blob is served", || {
            served(&client, "alone/torn", layer)
        });
    }
}

#[test]
fn whoever_kept_a_blob_and_lost_it_or_falls_silent_costs_a_cold_pull_only_time() {
    let mesh = Mesh::up(3);
    mesh.create_project("two", true, 2);
    // the ledger names two who keep each blob; whichever is turned to first, one of two rounds
    // meets the one that does not give it
    let pushed = ["lost-0", "lost-1", "silent-0", "silent-1"].map(|tag| {
        let image = Image::random(&[3 * MIB]);
        mesh.repository(0, "two/app").push(&image, tag).unwrap_or_else(|no| panic!("{tag}: {no}"));
        let file = |at: usize| image.blobs[1].file(&mesh.nodes()[at].data);
        let (kept, lack): (Vec<_>, Vec<_>) = (0..3).partition(|at| file(*at).exists());
        let ([_, _], [lacks]) = (&kept[..], &lack[..]) else {
            panic!("{tag}: durability 2 is two copies: {kept:?}")
        };
        (tag, [file(kept[0]), file(kept[1])], kept, *lacks)
    });
    for (round, (tag, files, kept, lacks)) in pushed.iter().enumerate() {
        let bad = kept[round % 2];
        if round < 2 {
            std::fs::remove_file(&files[round]).unwrap_or_else(|error| panic!("{tag}: {error}"));
        } else {
            mesh.nodes()[bad].pause();
        }
        let pulled = Repository::new(&mesh.anyone(*lacks), "two/app").pull(tag);
        mesh.nodes()[bad].wake();
        pulled.unwrap_or_else(|no| panic!("{tag}, at {lacks}: {no}"));
        mesh.wait_ready(bad);
    }
}

/// A node may be silent for a moment: its machine is suspended or overloaded, its links lose
/// everything. If it alone has a blob, who asks waits until it answers or counts as down.
#[test]
fn the_only_holder_is_waited_for_while_it_may_be_alive() {
    let mesh = Mesh::up_with(3, &[("roster.suspect_to_down", "20s")]);
    mesh.create_project("alone", true, 1);
    for round in 0..tests::rounds(3) {
        let image = Image::random(&[100 << 10]);
        let tag = round.to_string();
        let pushed = mesh.repository(0, "alone/late").push(&image, &tag);
        pushed.unwrap_or_else(|no| panic!("{no}"));
        mesh.nodes()[0].pause();
        let pulled = std::thread::scope(|beside| {
            let pull =
                beside.spawn(|| mesh.repository(1, "alone/late").blob(&image.blobs[1].digest));
            // longer than a node may take to say what it holds
            std::thread::sleep(Duration::from_secs(2));
            mesh.nodes()[0].wake();
            pull.join().expect("a pull")
        });
        let bytes = pulled.unwrap_or_else(|no| panic!("round {round}: {no}"));
        assert!(bytes == image.blobs[1].bytes, "round {round}: wrong bytes");
        mesh.wait_ready(0);
    }
}

#[test]
fn what_nobody_alive_holds_is_unavailable_and_not_unknown() {
    let mesh = Mesh::up(3);
    mesh.create_project("alone", true, 1);
    let image = Image::random(&[100 << 10]);
    let layer = &image.blobs[1];
    mesh.repository(0, "alone/gone").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    mesh.kill(0);
    // first while it still counts as alive, then as dead, then with another primary
    for _ in 0..3 {
        for at in 1..3 {
            unavailable(&mesh.client(at), "alone/gone", layer);
            let found = mesh.repository(at, "alone/gone").resolve("1");
            let found = found.unwrap_or_else(|no| {
                panic!("the manifest is in every node's records: at {at}: {no}")
            });
            assert_eq!(found.digest, image.digest());
        }
    }
    mesh.primary_of("alone");
    for at in 1..3 {
        unavailable(&mesh.client(at), "alone/gone", layer);
    }
    mesh.start(0);
    for at in 1..3 {
        let client = mesh.client(at);
        wait::until_ok("the returned holder's blob is served", || {
            served(&client, "alone/gone", layer)
        });
        mesh.repository(at, "alone/gone")
            .pull("1")
            .unwrap_or_else(|no| panic!("all of it, at {at}: {no}"));
    }
}

fn begin(repository: &Repository, blob: &Blob) -> Arriving {
    let client = repository.client().clone().patient_for(Duration::from_secs(120));
    let path = repository.path(&format!("blobs/{}", blob.digest));
    let coming = client.ask(Method::GET, &path).open().unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(coming.status, 200, "{:?}", coming.headers);
    coming
}

/// A node's transfer of a blob to itself, if one is going on.
fn arriving(mesh: &Islands, at: usize, digest: &str) -> Option<Value> {
    let status = mesh.status(at).unwrap_or_else(|no| panic!("{no}"));
    let moving = status["transfers"].as_array().expect("status tells of transfers");
    moving.iter().find(|one| one["direction"] == "in" && one["digest"] == digest).cloned()
}

/// How many bytes of a project the region of an island holds.
fn copies(status: &Value, project: &str, at: usize) -> Option<u64> {
    let found = status["projects"].as_array()?.iter().find(|one| one["name"] == project)?;
    found["copies"][Islands::region(at)]["bytes"].as_u64()
}

/// A blob is known and cannot be had: in words, with the hint to come again, and without a doubt
/// that it exists.
fn unavailable(client: &Client, repository: &str, blob: &Blob) {
    for range in ["bytes=0-", "bytes=1000-"] {
        let ask = client
            .ask(Method::GET, &format!("/v2/{repository}/blobs/{}", blob.digest))
            .header("range", range);
        let answer = ask
            .send()
            .unwrap_or_else(|none| panic!("an answer is owed, at {}: {none}", client.authority()));
        assert_eq!(answer.status, 503, "at {}: {answer}", client.authority());
        assert!(
            answer.header("retry-after").is_some(),
            "503 without Retry-After: {:?}",
            answer.headers
        );
        let (code, message) = answer
            .envelope()
            .unwrap_or_else(|| panic!("not the specification's envelope: {answer}"));
        assert!(code == "UNAVAILABLE" && !message.is_empty(), "{answer}");
    }
}

/// The blob, right to the last byte; until then it may be unavailable and nothing else.
fn served(client: &Client, repository: &str, blob: &Blob) -> Result<(), String> {
    let answer = client
        .get(&format!("/v2/{repository}/blobs/{}", blob.digest))
        .map_err(|none| none.to_string())?;
    assert!(matches!(answer.status, 200 | 503), "at {}: {answer}", client.authority());
    let whole: &Bytes = &answer.body;
    if answer.status == 200 && *whole == blob.bytes { Ok(()) } else { Err(answer.to_string()) }
}
