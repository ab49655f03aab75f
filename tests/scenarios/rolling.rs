//! A mesh of the build before rolls to this one and back, node by node and under pushes, and its
//! replicas have the same records all the way. Then its feature level is raised.
//!
//! While a mesh is upgraded, two builds apply the same entries. If they did it in different ways,
//! replicas would differ for ever, so their fingerprints are compared after each step. The build
//! before is the one of the commit that `tests/previous` names.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rules::ledger::level::Level;
use rustix::process::Signal;
use tests::formed::Formed;
use tests::image::Image;
use tests::{process, tools, wait};

const SITES: [(&str, &str); 3] = [("one", "a"), ("two", "b"), ("three", "c")];
const NAME: &str = "demo/rolled";

#[test]
fn a_mesh_of_the_build_before_rolls_to_this_one_and_back_with_the_same_records() {
    let (before, this) = (tools::previous_atoll(), tools::atoll());
    let mesh = Formed::by(&before, &SITES);
    let image = Image::random(&[40 << 10]);
    mesh.repository(0, NAME).push(&image, "first").unwrap_or_else(|no| panic!("{no}"));
    let level = level(&mesh);
    let mut tags = vec!["first".to_owned()];
    for (step, build) in [&this, &before, &this].into_iter().enumerate() {
        for at in 0..SITES.len() {
            tags.extend(roll(&mesh, at, build, &image, &format!("step-{step}-{at}")));
            mesh.agree();
        }
        has_all(&mesh, &image, &tags);
        assert_eq!(self::level(&mesh), level, "nobody raised it");
    }
    if level == u64::from(Level::NEWEST.0) {
        return; // this build brings no new level
    }
    let password = mesh.folder().join("password");
    std::fs::write(&password, mesh.password()).expect("a file");
    let mut raise = mesh.members()[0].atoll("level");
    raise.args(["--raise", "--url", &format!("http://{}", mesh.members()[0].place().http)]);
    process::succeed(raise.arg("--password-file").arg(&password));
    assert_eq!(self::level(&mesh), u64::from(Level::NEWEST.0));
    for at in 0..SITES.len() {
        tags.extend(roll(&mesh, at, &this, &image, &format!("raised-{at}")));
        mesh.agree();
    }
    has_all(&mesh, &image, &tags);
    let node = &mesh.members()[2];
    node.stop(Signal::TERM);
    node.is_of(&before);
    node.serve();
    assert!(!node.wait_ended().success(), "the build before started in a mesh that was raised");
}

/// Restarts a node with another build, while pushes go on at the others. Returns the tags of the
/// pushes that were acknowledged.
fn roll(mesh: &Formed, at: usize, build: &Path, image: &Image, name: &str) -> Vec<String> {
    let over = AtomicBool::new(false);
    std::thread::scope(|beside| {
        let stop = StopOnDrop(&over);
        let pushers = [(at + 1) % SITES.len(), (at + 2) % SITES.len()].map(|other| {
            let over = &over;
            beside.spawn(move || {
                let repository = mesh.repository(other, NAME);
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    if over.load(Ordering::Relaxed) && !acknowledged.is_empty() {
                        break;
                    }
                    let tag = format!("{name}-{other}-{number}");
                    if repository.put_manifest(&tag, image).is_ok() {
                        acknowledged.push(tag);
                    }
                }
                acknowledged
            })
        });
        let node = &mesh.members()[at];
        node.stop(Signal::TERM);
        node.is_of(build);
        node.serve();
        node.wait_ready();
        drop(stop);
        pushers.into_iter().flat_map(|pusher| pusher.join().expect("no pusher panics")).collect()
    })
}

/// Lets the pushers end also when a step has failed.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn has_all(mesh: &Formed, image: &Image, tags: &[String]) {
    for at in 0..SITES.len() {
        let repository = mesh.repository(at, NAME);
        for tag in tags {
            let found = repository.resolve(tag).unwrap_or_else(|no| panic!("{tag} at {at}: {no}"));
            assert_eq!(found.digest, image.digest(), "{tag} at {at}");
        }
    }
}

fn level(mesh: &Formed) -> u64 {
    wait::until_ok("the level is told", || {
        let answer = mesh.client(0).get("/api/atoll/v1/level").map_err(|none| none.to_string())?;
        answer.json()["level"].as_u64().ok_or_else(|| answer.to_string())
    })
}
