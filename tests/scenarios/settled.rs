//! Nodes that are restarted one after the other, as for an upgrade, fail no pull and lose nothing
//! that was acknowledged.
//!
//! SIGTERM is not a crash: what is under way on that node ends well, and the others take its work
//! over. A push may have to be tried again; a pull through a node that runs may not.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use tests::image::Image;
use tests::mesh::Mesh;
use tests::repository::Refusal;
use tests::{process, rounds, wait};

#[test]
fn a_rolling_restart_under_load_costs_no_pull_and_no_acknowledged_push() {
    let mesh = Mesh::up(3);
    let held = Image::random(&[100 << 10, 1 << 20]);
    mesh.repository(0, "demo/held").push(&held, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..3 {
        mesh.repository(at, "demo/held").pull("1").unwrap_or_else(|no| panic!("at {at}: {no}"));
    }
    let mut acknowledged: Vec<(String, String)> = Vec::new();
    for round in 0..rounds(6) {
        let leaving = round % 3;
        let others = [(leaving + 1) % 3, (leaving + 2) % 3];
        let (over, pulls) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|beside| {
            let stop = StopOnDrop(&over);
            let (mesh, held, over, pulls) = (&mesh, &held, &over, &pulls);
            for at in others {
                beside.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let found = mesh.repository(at, "demo/held").pull("1");
                        let found = found.unwrap_or_else(|no| {
                            panic!("round {round}: a pull failed at {at}: {no}")
                        });
                        assert_eq!(found.digest, held.digest());
                        pulls.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let pushers = others.map(|at| beside.spawn(move || push_until(over, mesh, at, round)));
            wait::until("there is a load", || (pulls.load(Ordering::Relaxed) > 4).then_some(()));
            mesh.end(leaving);
            // the mesh of two takes pushes before the third is back
            let between = (Image::tiny(), format!("between-{round}"));
            let push = || mesh.repository(others[0], "demo/rolled").push(&between.0, &between.1);
            wait::until_ok("two of three take a push", push);
            acknowledged.push((between.1, between.0.digest().to_owned()));
            mesh.start(leaving);
            mesh.wait_ready(leaving);
            drop(stop);
            for pusher in pushers {
                acknowledged.extend(pusher.join().expect("a push went wrong"));
            }
        });
    }
    assert!(acknowledged.len() > rounds(6), "nothing was pushed beside the restarts");
    for at in 0..3 {
        for (tag, digest) in &acknowledged {
            let found = mesh.repository(at, "demo/rolled").pull(tag);
            let found =
                found.unwrap_or_else(|no| panic!("{tag} was acknowledged, {at} has lost it: {no}"));
            assert_eq!(&found.digest, digest, "{tag} at {at}");
        }
    }
}

#[test]
fn what_is_under_way_on_a_node_that_is_told_to_end_ends_well() {
    // how long it may take is not what this is about
    let mesh = Mesh::up_with(3, &[("drain", "5m")]);
    let image = Image::random(&[48 << 20]);
    let layer = &image.blobs[1];
    mesh.repository(0, "demo/drained").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..3 {
        let path = format!("/v2/demo/drained/blobs/{}", layer.digest);
        mesh.repository(at, "demo/drained").pull("1").unwrap_or_else(|no| panic!("at {at}: {no}"));
        // an upload and a download, each in the middle when the signal comes
        let mut coming = mesh
            .client(at)
            .ask(Method::GET, &path)
            .open()
            .unwrap_or_else(|none| panic!("at {at}: {none}"));
        assert_eq!(coming.status, 200);
        let first =
            coming.next().expect("a first piece").unwrap_or_else(|none| panic!("at {at}: {none}"));
        let new = Image::random(&[12 << 20]);
        let repository = mesh.repository(at, "demo/drained");
        let place = repository.open_upload().unwrap_or_else(|no| panic!("at {at}: {no}"));
        let put = repository
            .client()
            .ask(Method::PUT, &format!("{place}?digest={}", new.blobs[1].digest));
        let (half, (go_on, told)) = (new.blobs[1].bytes.len() / 2, channel::<()>());
        let put = put.streamed(new.blobs[1].bytes.clone(), move |sent| {
            if sent == half {
                let _ = told.recv(); // until the node is told to end
            }
        });
        let answer = std::thread::scope(|beside| {
            let upload = beside.spawn(|| put.send());
            // its bytes are on their way to another region: the node is in the middle of it
            wait::until("the node takes the upload in", || copies_out(&mesh, at).then_some(()));
            process::signal(mesh.nodes()[at].pid(), Signal::TERM);
            wait::until("it takes nobody in any more", || {
                mesh.anyone(at).get("/healthz").is_err().then_some(())
            });
            drop(go_on);
            upload.join().expect("the upload does not panic")
        });
        let answer =
            answer.unwrap_or_else(|none| panic!("an upload under way is cut off at {at}: {none}"));
        assert_eq!(answer.status, 201, "an upload under way at {at}: {answer}");
        let rest = coming.rest_is(&layer.bytes[first.len()..]);
        rest.unwrap_or_else(|no| panic!("a download under way is cut off at {at}: {no}"));
        // no second signal, which would mean: at once
        wait::until("it has drained and ended", || (!mesh.nodes()[at].lives()).then_some(()));
        mesh.start(at);
        mesh.wait_ready(at);
        // the upload was acknowledged: a manifest may name it
        let repository = mesh.repository(at, "demo/drained");
        repository.upload(&new.blobs[0]).unwrap_or_else(|no| panic!("at {at}: {no}"));
        let named = wait::until_ok("a manifest of it is taken", || {
            match repository.put_manifest("new", &new) {
                Err(Refusal::Answered(no)) if no.status < 500 => Ok(Err(no.to_string())),
                other => other.map(Ok),
            }
        });
        named.unwrap_or_else(|no| {
            panic!("an acknowledged blob is gone after the restart at {at}: {no}")
        });
    }
}

/// Whether a node sends an upload that has no name yet to another.
fn copies_out(mesh: &Mesh, at: usize) -> bool {
    let status = mesh.status(at).unwrap_or_else(|no| panic!("{no}"));
    let moving = status["transfers"].as_array().expect("status tells of transfers");
    moving.iter().any(|one| one["direction"] == "out" && one["digest"].is_null())
}

/// Pushes small images until told to stop; those that were acknowledged. Others may have been
/// refused, but never as a mistake.
fn push_until(over: &AtomicBool, mesh: &Mesh, at: usize, round: usize) -> Vec<(String, String)> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let (image, tag) = (Image::tiny(), format!("{round}-{at}-{number}"));
        match mesh.repository(at, "demo/rolled").push(&image, &tag) {
            Ok(()) => acknowledged.push((tag, image.digest().to_owned())),
            Err(Refusal::Answered(no)) => assert_eq!(no.status, 503, "{tag}: {no}"),
            Err(Refusal::Unanswered(none)) => {
                panic!("{tag}: {at} runs and does not answer: {none}")
            }
        }
        std::thread::sleep(Duration::from_millis(20)); // people, not a load test
    }
    acknowledged
}

/// Lets the others end also when the round has failed; else the scope would wait for them for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
