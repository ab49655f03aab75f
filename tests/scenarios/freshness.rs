//! After any client was told that a push is stored, every later pull in every region sees it.
//!
//! Replicas answer tags from their own state under a read lease, without asking anyone. That is
//! only right if a push is not acknowledged before every holder of a lease has applied it, and if a
//! replica that slept knows that it slept. So tags are moved at one region and read at once in the
//! others; and a replica is stopped in its tracks (SIGSTOP, as a paused virtual machine), with
//! readers already waiting at its door when it wakes.

use std::io::Write as _;
use std::time::Duration;

use tests::image::{Image, MANIFEST, digest};
use tests::mesh::Mesh;
use tests::{rounds, wait, wire};

#[test]
fn a_tag_moved_in_one_region_is_never_stale_or_missing_in_another() {
    let mesh = Mesh::up(3);
    for round in 0..rounds(100) {
        let writer = round % 3;
        let image = Image::tiny();
        let fresh = format!("round-{round}");
        let here = mesh.repository(writer, "demo/fresh");
        here.push(&image, "latest").unwrap_or_else(|no| panic!("round {round}: push: {no}"));
        here.put_manifest(&fresh, &image)
            .unwrap_or_else(|no| panic!("round {round}: second tag: {no}"));
        std::thread::scope(|readers| {
            for reader in (0..3).filter(|at| *at != writer) {
                for tag in ["latest", &fresh] {
                    let (mesh, image) = (&mesh, &image);
                    readers.spawn(move || {
                        let found = mesh.repository(reader, "demo/fresh").pull(tag);
                        let found = found
                            .unwrap_or_else(|no| panic!("round {round}: {tag} at {reader}: {no}"));
                        assert_eq!(
                            found.digest,
                            image.digest(),
                            "round {round}: {tag} is stale at {reader}"
                        );
                    });
                }
            }
        });
    }
}

#[test]
fn a_replica_that_slept_through_a_push_never_speaks_as_if_it_had_not() {
    let mesh = Mesh::up(3);
    for round in 0..rounds(12) {
        let (leader, primary) = (mesh.leader(), mesh.primary_of("demo"));
        let sleeper = (0..3).find(|at| *at != leader && *at != primary).expect("three nodes");
        let writer = (sleeper + 1 + round % 2) % 3;
        let (old, new) = (Image::tiny(), Image::tiny());
        let repository = mesh.repository(writer, "demo/slept");
        repository.push(&old, "latest").unwrap_or_else(|no| panic!("round {round}: {no}"));
        mesh.repository(sleeper, "demo/slept")
            .pull("latest")
            .unwrap_or_else(|no| panic!("round {round}: {no}"));

        mesh.nodes()[sleeper].pause();
        // The writer waits until the sleeper's lease must have run out: slower, but it goes
        // through.
        wait::until_ok("a push goes through beside a paused replica", || {
            repository.push(&new, "latest")
        });
        // These readers come after the acknowledgement; their requests are in the sleeper's queue
        // when it wakes.
        let client = mesh.anyone(sleeper);
        let request = format!(
            "GET /v2/demo/slept/manifests/latest HTTP/1.1\r\nhost: {}\r\naccept: {MANIFEST}\r\nconnection: close\r\n\r\n",
            client.authority()
        );
        let mut waiting: Vec<_> = (0..4)
            .map(|_| {
                let mut socket = wire::connect(client.authority(), Duration::from_secs(60));
                socket.write_all(request.as_bytes()).expect("the kernel takes the request");
                socket
            })
            .collect();
        for at in (0..3).filter(|at| *at != sleeper) {
            let found = mesh.repository(at, "demo/slept").resolve("latest");
            let found = found.unwrap_or_else(|no| panic!("round {round}: at {at}: {no}"));
            assert_eq!(
                found.digest,
                new.digest(),
                "round {round}: stale at {at}, which was awake all the time"
            );
        }
        mesh.nodes()[sleeper].wake();
        for socket in &mut waiting {
            let answer = wire::answer(socket).expect("a woken replica answers who waited");
            let honest = match answer.status {
                200 => digest(&answer.body) == new.digest() || answer.may_be_stale(),
                503 => answer.header("retry-after").is_some(),
                _ => false,
            };
            assert!(
                honest,
                "round {round}: the woken replica said {answer}, headers {:?}",
                answer.headers
            );
        }
        wait::until("the woken replica has caught up", || {
            let found = mesh.repository(sleeper, "demo/slept").pull("latest").ok()?;
            assert!(
                found.digest == new.digest() || found.may_be_stale,
                "round {round}: stale after waking"
            );
            (found.digest == new.digest() && !found.may_be_stale).then_some(())
        });
    }
}
