//! A replica is removed by command, whether it lives or is dead: the others choose voters and
//! primaries anew, and it is heard in no channel any more.
//!
//! Before that it is said what the mesh would be without it, and what must not be lost is not lost
//! without a word.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Method;
use rules::wire::Ask;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::Image;
use tests::intruder::{Intruder, stolen};
use tests::people::must;
use tests::process::{self, Finished};
use tests::wait;

const FOUR: [(&str, &str); 4] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1"), ("four", "us-west-2")];

#[test]
fn a_living_replica_is_removed_while_the_others_serve() {
    let mut mesh = Formed::of(&FOUR, "");
    let image = Image::tiny();
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let identity = stolen(&mesh.members()[0].data());
    // work that it has done, and that others still tell of
    let repair = json!({"kind": "repair", "project": "demo"});
    let asked = must(&mesh.client(1), Method::POST, "/api/atoll/v1/jobs", &repair, 202);
    let job = asked.header("location").expect("a place").to_owned();
    let shown = || must(&mesh.client(1), Method::GET, &job, &json!({}), 200).json();
    wait::until("it has repaired", || (!shown()["end_time"].is_null()).then_some(()));
    assert_eq!(shown()["owner"], "one");
    let stays = remove(&mesh, 1, "one", &[]);
    assert!(!stays.success && stays.err.contains("--yes"), "{}", stays.err);
    assert!(stays.out.contains("get another primary"), "{}", stays.out);
    let itself = remove(&mesh, 0, "one", &["--yes"]);
    assert!(!itself.success && itself.err.contains("itself"), "{}", itself.err);

    let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|beside| {
        beside.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let round = rounds.fetch_add(1, Ordering::SeqCst);
                let there = mesh.repository(1 + round % 3, "demo/app");
                there.push(&Image::tiny(), "2").unwrap_or_else(|no| panic!("{round}: {no}"));
                there.pull("1").unwrap_or_else(|no| panic!("{round}: {no}"));
            }
        });
        wait::until("pushes go on", || (rounds.load(Ordering::SeqCst) > 3).then_some(()));
        let removed = remove(&mesh, 1, "one", &["--yes"]);
        assert!(removed.success, "{}{}", removed.out, removed.err);
        let before = rounds.load(Ordering::SeqCst);
        wait::until("pushes go on", || (rounds.load(Ordering::SeqCst) > before + 6).then_some(()));
        over.store(true, Ordering::SeqCst);
    });
    ends_as_removed(&mesh, 0);
    for at in 1..4 {
        wait::until("it is nowhere any more", || {
            let status = mesh.status(at).ok()?;
            let (ledger, demo) = (&status["ledger"], &status["projects"][0]);
            let voters = names(&ledger["voters"]);
            let gone = !voters.contains(&"one".to_owned()) && names(&ledger["learners"]).is_empty();
            let listed = status["nodes"].as_array()?.iter().any(|node| node["name"] == "one");
            let moved = demo["primary"] != "one" && FOUR.iter().any(|n| demo["home"] == n.0);
            (gone && voters.len() == 3 && !listed && moved && demo["home"] != "one").then_some(())
        });
        let place = &mesh.members()[at].place().mesh;
        let intruder = Intruder::with(&identity);
        for ask in [Ask::Build, Ask::ReadIndex, Ask::Raft { kind: 2, body: vec![] }] {
            let refused = intruder
                .knock(place.parse().expect("an address"))
                .map_or(true, |open| intruder.ask(&open, &ask).is_refusal());
            assert!(refused, "{ask:?} at {at}");
        }
    }
    let told = must(&mesh.client(1), Method::GET, &job, &json!({}), 200).json();
    assert_eq!(told["owner"], "(a removed node)", "and no number that nobody knows");
    // its disk, started again, ends again, and its name is free
    mesh.members()[0].serve();
    ends_as_removed(&mesh, 0);
    let token = mesh.members()[2].invite();
    let again = mesh.prepare("one", "us-east-1", "");
    let refused = again.join(&token);
    assert!(!refused.success, "its old disk has an identity");
    std::fs::remove_dir_all(again.data()).expect("an empty folder");
    again.must_join(&token);
    again.serve();
    again.wait_ready();
    assert_ne!(stolen(&again.data()).node, identity.node, "a fresh id");
    mesh.add(again);
    let found = wait::until_ok("it has what there is", || mesh.repository(4, "demo/app").pull("1"));
    assert_eq!(found.digest, image.digest());
}

#[test]
fn a_dead_replica_is_removed_and_a_majority_is_not() {
    let mesh = Formed::of(&FOUR[..3], "");
    let image = Image::tiny();
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    mesh.members()[2].stop(Signal::KILL);
    wait::until("it is known to be dead", || {
        let nodes = mesh.status(0).ok()?["nodes"].clone();
        nodes.as_array()?.iter().any(|n| n["name"] == "three" && n["state"] == "down").then_some(())
    });
    for force in [&["--yes"][..], &["--yes", "--force"]] {
        let stays = remove(&mesh, 0, "two", force);
        assert!(!stays.success && stays.err.contains("without a majority"), "{}", stays.err);
    }
    let removed = remove(&mesh, 0, "three", &["--yes"]);
    assert!(removed.success, "{}{}", removed.out, removed.err);
    wait::until_ok("two are enough now", || mesh.repository(1, "demo/app").push(&image, "2"));
    assert_eq!(wait::until("two vote", || voters(&mesh, 0, 2)), ["one", "two"]);
    // and of two that live, one: it has a say in that
    let removed = remove(&mesh, 0, "two", &["--yes"]);
    assert!(removed.success, "{}{}", removed.out, removed.err);
    ends_as_removed(&mesh, 1);
    assert_eq!(wait::until("one votes", || voters(&mesh, 0, 1)), ["one"]);
    let found = mesh.repository(0, "demo/app").pull("1").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(found.digest, image.digest());
    let last = remove(&mesh, 0, "one", &["--yes", "--force"]);
    assert!(!last.success, "the last one stays");
}

#[test]
fn the_only_copy_goes_only_when_that_is_said() {
    let mesh = Formed::of(&FOUR[..3], "projects: {durability: 1}\n");
    let image = Image::tiny();
    mesh.repository(2, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let stays = remove(&mesh, 0, "three", &["--yes"]);
    assert!(!stays.success && stays.err.contains("--force"), "{}{}", stays.out, stays.err);
    assert!(stays.out.contains("of demo are kept by no other replica"), "{}", stays.out);
    assert_eq!(wait::until("nothing has changed", || voters(&mesh, 0, 3)), ["one", "three", "two"]);
    let removed = remove(&mesh, 0, "three", &["--yes", "--force"]);
    assert!(removed.success, "{}{}", removed.out, removed.err);
    ends_as_removed(&mesh, 2);
}

#[test]
fn of_two_that_go_at_once_neither_takes_the_last_copy() {
    let mesh = Formed::of(&FOUR[..3], "projects: {durability: 2}\n");
    let images: Vec<Image> = (0..12).map(|n| Image::random(&[700 + n])).collect();
    for (n, image) in images.iter().enumerate() {
        let pushed = mesh.repository(n % 3, "demo/app").push(image, &format!("t{n}"));
        pushed.unwrap_or_else(|no| panic!("{n}: {no}"));
    }
    let ends: Vec<Finished> = std::thread::scope(|beside| {
        let both = ["two", "three"].map(|name| {
            let mesh = &mesh;
            beside.spawn(move || remove(mesh, 0, name, &["--yes"]))
        });
        both.map(|one| one.join().expect("it ends")).into()
    });
    for end in ends.iter().filter(|end| !end.success) {
        let named = end.err.contains("one replica leaves at a time")
            || end.err.contains("stays: no other replica")
            || end.err.contains("stays: only");
        assert!(named, "{}{}", end.out, end.err);
    }
    for (n, image) in images.iter().enumerate() {
        let found =
            wait::until_ok("it is there", || mesh.repository(0, "demo/app").pull(&format!("t{n}")));
        assert_eq!(found.digest, image.digest());
    }
}

#[test]
fn what_is_pushed_at_a_replica_that_leaves_stays_or_is_refused() {
    let mut mesh = Formed::of(&FOUR[..3], "projects: {durability: 1}\n");
    // nothing is there yet, so nothing holds the node back
    let (over, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
    let kept: Vec<(String, Image)> = std::thread::scope(|beside| {
        let pusher = beside.spawn(|| {
            let (there, mut kept) = (mesh.repository(1, "demo/app"), Vec::new());
            for round in 0.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let (image, tag) = (Image::random(&[900]), format!("p{round}"));
                if there.push(&image, &tag).is_ok() {
                    kept.push((tag, image));
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            }
            kept
        });
        wait::until("a push is there", || (acknowledged.load(Ordering::SeqCst) > 0).then_some(()));
        // what was pushed before is on that node only, and that holds it back
        let stays = remove(&mesh, 0, "two", &["--yes"]);
        assert!(!stays.success && stays.err.contains("--force"), "{}{}", stays.out, stays.err);
        over.store(true, Ordering::SeqCst);
        pusher.join().expect("it ends")
    });
    for (tag, image) in &kept {
        let found = mesh.repository(2, "demo/app").pull(tag).unwrap_or_else(|no| panic!("{no}"));
        assert_eq!(found.digest, image.digest());
    }
    // a node that nothing holds back, and pushes that begin while it is on its way out
    let four = mesh.prepare("four", "us-west-2", "projects: {durability: 1}\n");
    four.must_join(&mesh.members()[0].invite());
    four.serve();
    four.wait_ready();
    mesh.add(four);
    let (over, tried) = (AtomicBool::new(false), AtomicUsize::new(0));
    let kept: Vec<(String, Image)> = std::thread::scope(|beside| {
        let pusher = beside.spawn(|| {
            let (there, mut kept) = (mesh.repository(3, "demo/late"), Vec::new());
            std::thread::sleep(std::time::Duration::from_millis(300));
            while !over.load(Ordering::SeqCst) {
                let (image, tag) = (Image::random(&[900]), format!("l{}", kept.len()));
                if there.push(&image, &tag).is_ok() {
                    kept.push((tag, image));
                }
                tried.fetch_add(1, Ordering::SeqCst);
            }
            kept
        });
        let removed = remove(&mesh, 0, "four", &["--yes"]);
        let stays = removed.err.contains("stays: no other replica");
        assert!(removed.success || stays, "{}{}", removed.out, removed.err);
        wait::until("pushes were tried", || (tried.load(Ordering::SeqCst) > 0).then_some(()));
        over.store(true, Ordering::SeqCst);
        pusher.join().expect("it ends")
    });
    for (tag, image) in &kept {
        let found = wait::until_ok("what was acknowledged is there", || {
            mesh.repository(0, "demo/late").pull(tag)
        });
        assert_eq!(found.digest, image.digest(), "{tag}");
    }
}

/// `atoll remove NAME`, asked of the node `at`.
fn remove(mesh: &Formed, at: usize, name: &str, flags: &[&str]) -> Finished {
    let url = format!("http://{}", mesh.members()[at].place().http);
    let password = mesh.members()[0].data().join("admin-password");
    let mut command = mesh.members()[at].atoll("remove");
    process::finish(
        command.arg(name).args(flags).args(["--url", &url, "--password-file"]).arg(password),
    )
}

/// Waits until a node has noticed that it was removed, and has ended with that word.
fn ends_as_removed(mesh: &Formed, at: usize) {
    let ended = mesh.members()[at].wait_ended();
    assert_eq!(ended.code(), Some(78), "{ended}");
    let words = mesh.members()[at].last_words();
    assert!(words.contains("it was removed from the mesh"), "{words}");
}

/// The voters as a node names them, if there are so many.
fn voters(mesh: &Formed, at: usize, many: usize) -> Option<Vec<String>> {
    let voters = names(&mesh.status(at).ok()?["ledger"]["voters"]);
    (voters.len() == many).then_some(voters)
}

fn names(list: &Value) -> Vec<String> {
    let all = list.as_array().cloned().unwrap_or_default();
    let mut all: Vec<String> = all.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect();
    all.sort();
    all
}
