//! A push that cannot be kept in as many regions as its project asks for is refused, in words, until somebody asks for less.
//!
//! Three voters, two of them in one region: when the other region is lost there still is a majority, so that only durability
//! stands in the way of a push. What was acknowledged before is really there twice: the region that comes back alone has it.

use rustix::process::Signal;
use tests::formed::Formed;
use tests::image::Image;
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
    mesh.repository(1, "demo/kept").push(&again, "again").unwrap_or_else(|no| panic!("one region was asked for: {no}"));

    mesh.members()[2].serve();
    mesh.members()[2].wait_ready();
    let expected = [("kept", &kept), ("also", &kept), ("single", &single), ("again", &again)];
    for at in [2, 0, 1] {
        for (tag, image) in expected {
            let found = mesh.repository(at, "demo/kept").pull(tag);
            let found = found.unwrap_or_else(|no| panic!("{tag} at {at}: {no}"));
            assert!(found.digest == image.digest() && !found.may_be_stale, "{tag} at {at}: {found:?}");
        }
        nothing_of(&mesh, at, &refused, 0);
    }
    set_durability(&mesh.client(0), "demo", 2);
    wait::until_ok("two regions are there again", || mesh.repository(0, "demo/kept").push(&last, "last"));

    // nobody pulled this one in b: that it is there is the acknowledgement's doing
    for at in 0..2 {
        mesh.members()[at].stop(Signal::KILL);
    }
    let alone = mesh.repository(2, "demo/kept");
    for (tag, image) in [("last", &last), ("kept", &kept)] {
        let found = wait::until_ok("the other region serves what was acknowledged", || alone.pull(tag));
        assert_eq!(found.digest, image.digest(), "{tag}");
    }
}

/// Whether the refusal, 503 with a hint to come again, is a sentence that names what can be done about it; else what it says.
fn names_durability(refusal: &Refusal) -> Result<(), String> {
    let answer = refusal.answer().unwrap_or_else(|| panic!("a refusal must be an answer: {refusal}"));
    assert_eq!(answer.status, 503, "{answer}");
    assert!(answer.header("retry-after").is_some(), "503 without Retry-After: {:?}", answer.headers);
    let (code, message) = answer.envelope().unwrap_or_else(|| panic!("not the specification's envelope: {answer}"));
    assert_eq!(code, "UNAVAILABLE", "{answer}");
    if message.contains("durability") { Ok(()) } else { Err(message) }
}

/// Neither the tags nor the manifest of a refused push exist.
fn nothing_of(mesh: &Formed, at: usize, image: &Image, round: usize) {
    let repository = mesh.repository(at, "demo/kept");
    for reference in [format!("refused-{round}-0"), format!("refused-{round}-1"), image.digest().to_owned()] {
        let no = repository.resolve(&reference).expect_err("a refused push is there");
        assert_eq!(no.answer().map(|answer| answer.status), Some(404), "{reference} at {at}: {no}");
    }
    let listed = repository.client().get("/v2/demo/kept/tags/list").unwrap_or_else(|none| panic!("{none}"));
    assert!(!String::from_utf8_lossy(&listed.body).contains("refused"), "at {at}: {listed}");
}
