//! A node whose disk hangs or fails does not stop pushes, and it ends, so that a supervisor
//! restarts it.
//!
//! Such a node still gossips, answers probes and accepts connections; only what it is for it cannot
//! do. It leads the ledger here, so that until others take over nothing goes through. What counts
//! is what a node can do: its leadership and its projects pass on while its process lives, and when
//! its write has not come back for long, or comes back failed, the process says so and ends with an
//! error.

use rustix::process::Signal;
use tests::disk::Disk;
use tests::formed::Formed;
use tests::image::Image;
use tests::repository::create_project;
use tests::wait;

#[test]
fn a_node_whose_disk_hangs_passes_its_work_on_and_ends() {
    let mesh =
        Formed::of(&[("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")], "");
    let disks: Vec<_> = (0..3).map(|_| Disk::new(0)).collect();
    for member in mesh.members() {
        member.stop(Signal::TERM);
    }
    for (member, disk) in mesh.members().iter().zip(&disks) {
        member.serve_on(disk);
    }
    for member in mesh.members() {
        member.wait_ready();
    }
    let ailing = leader(&mesh);
    let (member, disk) = (&mesh.members()[ailing], &disks[ailing]);
    create_project(&mesh.client(ailing), "ail", true, 1);
    let healthy = (ailing + 1) % 3;
    let image = Image::tiny();
    wait::until_ok("a push before", || mesh.repository(healthy, "ail/app").push(&image, "before"));
    for at in 0..3 {
        wait::until_ok("every node holds the blobs", || {
            mesh.repository(at, "ail/app").pull("before")
        });
    }
    // only the ledger from here on: a blob that is on its way to the node is another matter
    let push = |tag: &str| mesh.repository(healthy, "ail/app").put_manifest(tag, &image);

    disk.hang();
    wait::until_ok("a push goes through without the node whose disk hangs", || push("hangs"));
    let ended = member.wait_ended();
    assert!(!ended.success(), "it ended as if all were well");
    assert!(member.last_words().contains("not come back"), "{}", member.last_words());

    disk.mend();
    member.serve_on(disk);
    member.wait_ready();
    for tag in ["before", "hangs"] {
        let found = wait::until_ok("it knows what it missed", || {
            mesh.repository(ailing, "ail/app").pull(tag)
        });
        assert_eq!(found.digest, image.digest());
    }

    let other = (ailing + 2) % 3;
    let (member, disk) = (&mesh.members()[other], &disks[other]);
    disk.fail();
    wait::until_ok("a push goes through without the node whose disk fails", || push("fails"));
    let ended = member.wait_ended();
    assert!(!ended.success(), "it ended as if all were well");
    assert!(member.last_words().contains("cannot write"), "{}", member.last_words());
}

/// An edge has no ledger, and once stayed as it was after a few failed syncs: not ready, or keeping
/// nothing for the time when it is cut off, until somebody restarted it.
#[test]
fn an_edge_whose_disk_has_failed_for_a_moment_ends_and_is_whole_after_its_restart() {
    let mut mesh = Formed::of(&[("one", "us-east-1")], "");
    let edge = mesh.add_edge("edge", "us-east-1", "");
    let disk = Disk::new(0);
    let member = &mesh.members()[edge];
    member.stop(Signal::TERM);
    member.serve_on(&disk);
    member.wait_ready();
    let images: Vec<Image> = (0..20).map(|_| Image::tiny()).collect();
    for (number, image) in images.iter().enumerate() {
        let pushed = mesh.repository(0, "demo/app").push(image, &format!("{number}"));
        pushed.unwrap_or_else(|no| panic!("{no}"));
    }
    let through_edge =
        |tag: &str| tests::repository::Repository::new(&mesh.client(edge), "demo/app").pull(tag);
    wait::until_ok("it serves", || through_edge("0"));
    disk.fail();
    // some of what it keeps, and some blobs
    (1..20).for_each(|number| drop(through_edge(&format!("{number}"))));
    let ended = member.wait_ended();
    assert!(!ended.success(), "it ended as if all were well");
    assert!(member.last_words().contains("takes no write"), "{}", member.last_words());
    disk.mend();
    member.serve_on(&disk);
    member.wait_ready();
    for (number, image) in images.iter().enumerate() {
        let found = wait::until_ok("it serves again", || through_edge(&format!("{number}")));
        assert_eq!(found.digest, image.digest());
    }
}

fn leader(mesh: &Formed) -> usize {
    wait::until("the ledger has a leader", || {
        let said = mesh.members().iter().enumerate().filter(|(_, member)| member.runs());
        let name = said.filter_map(|(at, _)| mesh.status(at).ok()).find_map(|status| {
            let name = status["leader"]["name"].as_str()?;
            Some(name.to_owned())
        })?;
        mesh.members().iter().position(|member| member.name == name)
    })
}
