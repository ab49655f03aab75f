//! All nodes killed at once, while pushes are under way: when they are started again, every
//! acknowledged image is there.
//!
//! An acknowledgement that only lives in memory, in three memories even, is none. (What `kill -9`
//! cannot show is what the disks would have kept: the kernel's cache survives it. That side belongs
//! to the store's and the ledger's own crash tests.)

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::RngExt as _;
use tests::image::Image;
use tests::mesh::Mesh;
use tests::{rounds, wait};

#[test]
fn all_nodes_killed_at_once_bring_back_every_acknowledged_image() {
    let mesh = Mesh::up(3);
    let acknowledged = Mutex::new(Vec::new());
    for round in 0..rounds(5) {
        let enough = rand::rng().random_range(2..10);
        let (count, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|beside| {
            for writer in 0..3 {
                let (mesh, acknowledged, count, ended) = (&mesh, &acknowledged, &count, &ended);
                beside.spawn(move || {
                    for n in 0.. {
                        let image = Image::random(&[256 << 10, 4 << 10]);
                        let tag = format!("r{round}-w{writer}-n{n}");
                        if mesh.repository(writer, "demo/lights").push(&image, &tag).is_err() {
                            break; // the lights are out
                        }
                        acknowledged
                            .lock()
                            .expect("no writer panics")
                            .push((tag, image.digest().to_owned()));
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    ended.fetch_add(1, Ordering::Relaxed);
                });
            }
            let seen = wait::within(wait::PATIENCE, || {
                let over = ended.load(Ordering::Relaxed) == 3;
                (over || count.load(Ordering::Relaxed) >= enough).then_some(())
            });
            mesh.kill_all();
            assert!(
                seen.is_some(),
                "round {round}: only {count:?} of {enough} pushes went through"
            );
        });
        assert!(
            count.into_inner() >= enough,
            "round {round}: the writers gave up before the lights went out"
        );
        for at in 0..3 {
            mesh.start(at);
        }
        for at in 0..3 {
            mesh.wait_ready(at);
        }
        let acknowledged = acknowledged.lock().expect("no writer panics");
        for at in 0..3 {
            for (tag, digest) in acknowledged.iter() {
                let found = mesh.repository(at, "demo/lights").pull(tag);
                let found = found.unwrap_or_else(|no| {
                    panic!("round {round}: {tag} was acknowledged, {at} has lost it: {no}")
                });
                assert_eq!(&found.digest, digest, "round {round}: {tag} at {at}");
            }
        }
    }
}
