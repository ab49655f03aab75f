//! A replica whose disk was replaced by an older copy of it takes no part in the mesh: it ends, and
//! says what others have seen of it and what to do.
//!
//! An old disk is a sound disk, so the node cannot see it by itself; it would vote a second time in
//! a term, and count as a holder of entries that it no longer has. An operator who restored a whole
//! mesh from backups can have it taken as it is.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tests::formed::Formed;
use tests::image::Image;
use tests::{metrics, process, wait};

const REPOSITORY: &str = "demo/old";

#[test]
fn a_replica_with_an_old_disk_ends_and_says_why() {
    let mesh = Formed::of(&[("one", "a"), ("two", "b"), ("three", "c")], "");
    let image = Image::tiny();
    mesh.repository(0, REPOSITORY).push(&image, "before").unwrap_or_else(|no| panic!("{no}"));
    mesh.agree();
    let old = &mesh.members()[2];
    let copy = mesh.folder().join("copy");
    old.stop(Signal::TERM);
    copied(&old.data(), &copy);
    old.serve();
    old.wait_ready();

    // it acknowledges more, is started again as it should be, and nobody minds
    mesh.repository(0, REPOSITORY)
        .put_manifest("after", &image)
        .unwrap_or_else(|no| panic!("{no}"));
    mesh.agree();
    old.stop(Signal::KILL);
    old.serve();
    old.wait_ready();
    mesh.agree();

    old.stop(Signal::TERM);
    let newest = mesh.folder().join("newest");
    std::fs::rename(old.data(), &newest).expect("the data folder can be moved");
    copied(&copy, &old.data());
    old.serve();
    let ended = old.wait_ended();
    assert_eq!(ended.code(), Some(78), "{ended}: {}", old.last_words());
    let words = old.words();
    assert!(words.contains("disk is older than what other nodes have seen"), "{words}");
    assert!(words.contains("atoll remove") && words.contains("--accept-older-disk"), "{words}");
    let noticed =
        |at: usize| metrics::value(&mesh.client(at), "atoll_ledger_returned_with_less_total");
    assert!(noticed(0) + noticed(1) > 0, "nobody counts it");
    // the others go on
    mesh.repository(1, REPOSITORY).put_manifest("more", &image).unwrap_or_else(|no| panic!("{no}"));

    // it says the same as often as it is started like that, and is itself again with its own disk
    for _ in 0..4 {
        old.serve();
        assert_eq!(old.wait_ended().code(), Some(78), "{}", old.last_words());
    }
    std::fs::remove_dir_all(old.data()).expect("the copy can be removed");
    std::fs::rename(&newest, old.data()).expect("the data folder can be moved back");
    old.serve();
    old.wait_ready();
    mesh.agree();

    // an operator may insist
    old.stop(Signal::TERM);
    std::fs::remove_dir_all(old.data()).expect("the data folder can be removed");
    copied(&copy, &old.data());
    old.serve_with(&["--accept-older-disk"]);
    old.wait_ready();
    mesh.agree();
    old.stop(Signal::TERM);
    old.serve();
    old.wait_ready();
    wait::until_ok("it has what it had lost", || {
        mesh.repository(2, REPOSITORY).resolve("more").map(|_| ())
    });
}

fn copied(from: &Path, to: &Path) {
    process::succeed(Command::new("cp").arg("-a").arg(from).arg(to));
}
