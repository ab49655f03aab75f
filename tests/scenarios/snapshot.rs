//! A node that was away for longer than the log remembers catches up by a snapshot and then serves
//! everything, by itself; one that was away for less gets what it missed from the log.
//!
//! The log is cut after every few entries here, so a node that misses hundreds of pushes can only
//! come back by the state as a whole; so does one that joins late. Either must then know every tag,
//! fresh: from its own records and under a read lease.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use http::Method;
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use rustix::process::Signal;
use tests::formed::Formed;
use tests::image::Image;
use tests::wait;

const SOON: &str = "ledger:\n  log_bytes: 64KiB\n";
/// More than the log keeps behind a snapshot.
const MISSED: usize = 250;
/// Far less than the log keeps by default.
const MISSED_LITTLE: usize = 600;

const SITES: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];

#[test]
fn a_node_that_was_away_too_long_gets_the_records_that_it_lacks() {
    catches_up(Formed::of(&SITES, SOON));
}

/// An hour's outage at 20 writes a second is `loadtest outage`.
#[test]
fn a_node_that_was_killed_gets_what_it_missed_from_the_log() {
    let mesh = Formed::of(&SITES, "");
    let images: Vec<_> = (0..4).map(|_| Image::tiny()).collect();
    for (number, image) in images.iter().enumerate() {
        let repository = mesh.repository(number % 3, "demo/many");
        let tag = format!("image-{number}");
        wait::until_ok(&tag, || repository.push(image, &tag));
    }
    let away = 2;
    let knew = entry(&mesh, away, "applied");
    mesh.members()[away].stop(Signal::KILL);
    push_tags(&mesh, &images, MISSED_LITTLE);
    for at in 0..2 {
        assert!(entry(&mesh, at, "log_from") <= knew + 1, "the log of {at} has all that it missed");
        let newest = entry(&mesh, at, "applied");
        assert!(newest >= knew + MISSED_LITTLE as u64, "{newest} at {at}, {knew} was known");
    }
    mesh.members()[away].serve();
    knows_everything(&mesh, away, &images, MISSED_LITTLE);
    assert_eq!(entry(&mesh, away, "snapshots"), 0, "it took a snapshot");
}

/// Until the mesh's level is 8, a peer may be of a build that takes files only.
#[test]
fn before_level_8_it_gets_all_records_as_a_file() {
    catches_up(Formed::at_level(&SITES, SOON, 7));
}

fn catches_up(mut mesh: Formed) {
    let images: Vec<_> = (0..20).map(|_| Image::tiny()).collect();
    for (number, image) in images.iter().enumerate() {
        let repository = mesh.repository(number % 3, "demo/many");
        repository
            .push(image, &format!("image-{number}"))
            .unwrap_or_else(|no| panic!("image-{number}: {no}"));
    }
    let away = 2;
    let path = "/v2/demo/many/manifests/fleeting";
    mesh.repository(0, "demo/many")
        .put_manifest("fleeting", &images[0])
        .unwrap_or_else(|no| panic!("{no}"));
    let knew = wait::until("it has the last tag", || {
        let seen =
            mesh.client(away).get(path).unwrap_or_else(|none| panic!("{none}")).status == 200;
        seen.then(|| entry(&mesh, away, "applied"))
    });
    mesh.members()[away].stop(Signal::TERM);
    push_tags(&mesh, &images, MISSED);
    let gone =
        mesh.client(1).ask(Method::DELETE, path).send().unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(gone.status, 202, "a tag is deleted while the node is away: {gone}");
    // the leader keeps what it is still sending to who is away, until that has failed
    wait::until("the log has forgotten what it missed", || {
        (0..2).all(|at| entry(&mesh, at, "log_from") > knew + 1).then_some(())
    });

    let watch = Watch::on(&mesh.members()[away].data().join("ledger"));
    mesh.members()[away].serve();
    knows_everything(&mesh, away, &images, MISSED);
    assert!(watch.saw("snapshot.received"), "the log was cut, and it caught up without a snapshot");
    assert!(entry(&mesh, away, "snapshots") > 0, "its status does not tell of the snapshot");

    // a node that was never there: the log does not go back to its beginning either
    let late = mesh.prepare("four", "ap-south-1", SOON);
    late.must_join(&mesh.members()[away].invite());
    std::fs::create_dir_all(late.data().join("ledger")).expect("a folder");
    let watch = Watch::on(&late.data().join("ledger"));
    late.serve();
    mesh.add(late);
    knows_everything(&mesh, 3, &images, MISSED);
    assert!(
        watch.saw("snapshot.received"),
        "the log was cut, and it learnt all that without a snapshot"
    );

    // and both go on from there: what is pushed through them everyone sees
    for at in [away, 3] {
        let (image, tag) = (Image::tiny(), format!("after-{at}"));
        // on a busy machine a node may be without a lease for a moment
        wait::until_ok(&tag, || mesh.repository(at, "demo/many").push(&image, &tag));
        for reader in 0..4 {
            let found = mesh.repository(reader, "demo/many").pull(&tag);
            let found = found.unwrap_or_else(|no| panic!("{tag} at {reader}: {no}"));
            assert!(
                found.digest == image.digest() && !found.may_be_stale,
                "{tag} at {reader}: {found:?}"
            );
        }
    }
}

/// A number of an entry of the ledger, as a node's status has it.
fn entry(mesh: &Formed, at: usize, name: &str) -> u64 {
    let status = mesh.status(at).unwrap_or_else(|no| panic!("at {at}: {no}"));
    status["ledger"][name].as_u64().unwrap_or_else(|| panic!("no {name} at {at}: {status}"))
}

/// Two nodes put tags, half of them each: one entry of the log for each tag.
fn push_tags(mesh: &Formed, images: &[Image], count: usize) {
    std::thread::scope(|pushers| {
        for half in 0..2 {
            pushers.spawn(move || {
                let repository = mesh.repository(half, "demo/many");
                for number in (half..count).step_by(2) {
                    let put = || {
                        repository
                            .put_manifest(&format!("tag-{number}"), &images[number % images.len()])
                    };
                    wait::until_ok("two of three take a push", put);
                }
            });
        }
    });
}

/// Every tag and every image, without a warning, from a node that holds a lease and has applied
/// what the first one has.
fn knows_everything(mesh: &Formed, at: usize, images: &[Image], tags: usize) {
    mesh.members()[at].wait_ready();
    let target = entry(mesh, 0, "applied");
    wait::until("it has caught up", || (entry(mesh, at, "applied") >= target).then_some(()));
    wait::until("it holds a lease", || {
        let lease = mesh.status(at).ok()?["lease"]["state"].clone();
        (lease == "held" || lease == "leader").then_some(())
    });
    let repository = mesh.repository(at, "demo/many");
    for number in 0..tags {
        let found = repository.resolve(&format!("tag-{number}"));
        let found = found.unwrap_or_else(|no| panic!("tag-{number} at {at}: {no}"));
        let right = found.digest == images[number % images.len()].digest() && !found.may_be_stale;
        assert!(right, "tag-{number} at {at}: {found:?}");
    }
    for (number, image) in images.iter().enumerate() {
        for reference in [format!("image-{number}"), image.digest().to_owned()] {
            let found = repository
                .pull(&reference)
                .unwrap_or_else(|no| panic!("{reference} at {at}: {no}"));
            assert_eq!(found.digest, image.digest(), "{reference} at {at}");
        }
    }
    let listed = repository
        .client()
        .get("/v2/demo/many/tags/list?n=10000")
        .unwrap_or_else(|none| panic!("{none}"));
    let count = listed.json()["tags"].as_array().map(Vec::len);
    assert_eq!(
        count,
        Some(tags + images.len()),
        "tags listed at {at}: what was deleted is gone: {listed}"
    );
}

/// The beginnings of the names of the files that come to be in a folder.
struct Watch(OwnedFd);

impl Watch {
    fn on(folder: &Path) -> Self {
        let watch = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify");
        add_watch(&watch, folder, WatchFlags::CREATE)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        Self(watch)
    }

    fn saw(&self, name: &str) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut buffer);
        let mut saw = false;
        while let Ok(event) = events.next() {
            saw |=
                event.file_name().is_some_and(|file| file.to_bytes().starts_with(name.as_bytes()));
        }
        saw
    }
}
