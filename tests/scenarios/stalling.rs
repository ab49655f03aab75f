//! A source that stalls in the middle of a blob is replaced while the client's answer continues. If
//! no source can continue, the answer ends short and is not reset. A client that reads slowly
//! delays no other client.
//!
//! containerd asks for the rest of a short answer at once, and gives the whole pull up after a
//! reset.

use std::time::Duration;

use http::Method;
use tests::http::Arriving;
use tests::image::{Blob, Image};
use tests::islands::Islands;
use tests::metrics;
use tests::repository::{Repository, create_project};

const MIB: usize = 1 << 20;

#[test]
fn a_source_that_falls_silent_is_replaced_long_before_its_connection_is_given_up() {
    let mesh = Islands::raise();
    create_project(&mesh.client(0), "two", true, 2);
    let image = Image::random(&[12 * MIB]);
    let layer = &image.blobs[1];
    mesh.repository(0, "two/still").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let held = |at: usize| {
        let status = mesh.status(0).unwrap_or_else(|no| panic!("{no}"));
        let projects = status["projects"].as_array().expect("projects").clone();
        let project = projects.into_iter().find(|one| one["name"] == "two").expect("the project");
        project["copies"][Islands::region(at)]["bytes"].as_u64().unwrap_or_default()
    };
    let without = (1..3)
        .find(|at| held(*at) < layer.bytes.len() as u64)
        .expect("durability 2 is not three copies");
    mesh.narrow(without, 24_000);
    let repository = mesh.repository(without, "two/still");
    // one that reads nothing more after its first piece, beside one that reads all
    let (mut slow, slow_first) = begin(&repository, layer);
    let (fast, fast_first) = begin(&repository, layer);
    let status = mesh.status(without).unwrap_or_else(|no| panic!("{no}"));
    let moving = status["transfers"]
        .as_array()
        .expect("transfers")
        .iter()
        .find(|one| one["direction"] == "in")
        .cloned();
    let moving = moving.expect("the blob is on its way");
    mesh.cut(mesh.named(moving["peer"].as_str().expect("a transfer has a peer")));
    fast.rest_is(&layer.bytes[fast_first..])
        .unwrap_or_else(|no| panic!("its source fell silent: {no}"));
    let stalled = metrics::value(&mesh.anyone(without), "atoll_sources_stalled_total");
    assert!(stalled > 0, "the source was not given up for its silence");
    let next = slow.next().expect("more").unwrap_or_else(|no| panic!("the slow one: {no}"));
    assert!(layer.bytes[slow_first..].starts_with(&next));
    slow.rest_is(&layer.bytes[slow_first + next.len()..])
        .unwrap_or_else(|no| panic!("the slow one: {no}"));
}

#[test]
fn when_nobody_can_go_on_the_answer_ends_short_and_is_not_reset() {
    let mesh = Islands::raise();
    create_project(&mesh.client(0), "alone", true, 1);
    let image = Image::random(&[12 * MIB]);
    let layer = &image.blobs[1];
    mesh.repository(0, "alone/still").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    mesh.narrow(1, 24_000);
    let (coming, first) = begin(&mesh.repository(1, "alone/still"), layer);
    mesh.cut(0);
    let broken = coming.rest_is(&layer.bytes[first..]).expect_err("nobody had the rest");
    assert!(!broken.contains("wrong bytes") && !broken.contains("reset"), "{broken}");
    mesh.heal(0);
    // what containerd does then
    let client = mesh.client(1);
    let path = format!("/v2/alone/still/blobs/{}", layer.digest);
    let rest = tests::wait::within(Duration::from_secs(60), || {
        let ask = client.ask(Method::GET, &path).header("range", &format!("bytes={first}-"));
        let answer = ask.send().ok()?;
        assert!(matches!(answer.status, 206 | 503), "a known blob: {answer}");
        (answer.status == 206).then_some(answer)
    });
    assert_eq!(rest.expect("the rest, once the source is back").body, layer.bytes[first..]);
}

/// Asks for a blob and reads its first piece; how long that was.
fn begin(repository: &Repository, blob: &Blob) -> (Arriving, usize) {
    let client = repository.client().clone().patient_for(Duration::from_secs(120));
    let path = repository.path(&format!("blobs/{}", blob.digest));
    let mut coming = client.ask(Method::GET, &path).open().unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(coming.status, 200, "{:?}", coming.headers);
    let first =
        coming.next().expect("a first piece").unwrap_or_else(|no| panic!("the first piece: {no}"));
    assert!(blob.bytes.starts_with(&first), "wrong bytes");
    (coming, first.len())
}
