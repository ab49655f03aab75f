//! `kill -9` of a project's primary in the middle of a push loses nothing that was acknowledged,
//! and stops no pull.
//!
//! The client that pushes sees an error or a success. After a success every node keeps the image
//! for ever, also the killed node when it is back. An error may mean anything, but it means the
//! same everywhere. Pulls of what a region holds are not affected. Soon another node is primary, so
//! a push succeeds again without help.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use rustix::process::Signal;
use tests::image::{Blob, Image};
use tests::mesh::Mesh;
use tests::repository::Refusal;
use tests::{process, rounds, wait};

const LAYER: usize = 6 << 20;

#[test]
fn a_primary_killed_in_the_middle_of_a_push_costs_nothing_that_was_acknowledged() {
    let mesh = Mesh::up(3);
    let held = Image::random(&[48 << 10, 160 << 10]);
    mesh.repository(0, "demo/held").push(&held, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..3 {
        mesh.repository(at, "demo/held")
            .pull("1")
            .unwrap_or_else(|no| panic!("{at} cannot fetch what others hold: {no}"));
    }
    let mut acknowledged: Vec<(String, String)> = Vec::new();
    let mut unknown: Vec<String> = Vec::new();
    for round in 0..rounds(20) {
        let victim = mesh.primary_of("demo");
        // to the primary itself in every other round, else through a node that only takes the bytes
        let through =
            if round % 2 == 0 { victim } else { (victim + 1 + rand::rng().random_range(0..2)) % 3 };
        let (torn, next) = (Image::random(&[LAYER]), Image::random(&[32 << 10]));
        let (over, pulls) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|beside| {
            let stop = StopOnDrop(&over);
            for at in (0..3).filter(|at| *at != victim) {
                let (mesh, held, over, pulls) = (&mesh, &held, &over, &pulls);
                beside.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let found = mesh.repository(at, "demo/held").pull("1");
                        let found = found.unwrap_or_else(|no| {
                            panic!("round {round}: a pull failed at {at}: {no}")
                        });
                        assert_eq!(found.digest, held.digest());
                        pulls.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(50)); // a reader, not a load test
                    }
                });
            }
            let tag = format!("torn-{round}");
            match push_and_kill(&mesh, victim, through, &torn, &tag) {
                Ok(()) => acknowledged.push((tag, torn.digest().to_owned())),
                Err(Refusal::Unanswered(_)) => unknown.push(tag),
                Err(Refusal::Answered(no)) => {
                    assert!(
                        no.status >= 500,
                        "round {round}: the push was at fault for the primary's death: {no}"
                    );
                    unknown.push(tag);
                }
            }
            mesh.kill(victim); // if the push was over before its time
            let survivor = (victim + 1) % 3;
            let tag = format!("next-{round}");
            wait::until_ok("a push goes through again", || {
                mesh.repository(survivor, "demo/torn").push(&next, &tag)
            });
            acknowledged.push((tag.clone(), next.digest().to_owned()));

            mesh.start(victim);
            mesh.wait_ready(victim);
            let missed = wait::until_ok("the old primary serves what it missed", || {
                mesh.repository(victim, "demo/torn").pull(&tag)
            });
            assert_eq!(
                missed.digest,
                next.digest(),
                "round {round}: the old primary serves something else"
            );
            drop(stop);
        });
        assert!(pulls.into_inner() > 0, "round {round}: nobody pulled");
    }
    for at in 0..3 {
        let repository = mesh.repository(at, "demo/torn");
        for (tag, digest) in &acknowledged {
            let found = repository
                .pull(tag)
                .unwrap_or_else(|no| panic!("{tag} was acknowledged, {at} has lost it: {no}"));
            assert_eq!(&found.digest, digest, "{tag} at {at}");
            repository
                .pull(digest)
                .unwrap_or_else(|no| panic!("{digest} was acknowledged, {at} has lost it: {no}"));
        }
    }
    for tag in &unknown {
        let seen: Vec<_> = (0..3).map(|at| mesh.repository(at, "demo/torn").pull(tag)).collect();
        let seen: Vec<_> = seen
            .into_iter()
            .map(|found| match found {
                Ok(found) => Some(found.digest),
                Err(Refusal::Answered(no)) if no.status == 404 => None,
                Err(no) => panic!("{tag} is neither there nor not there: {no}"),
            })
            .collect();
        assert!(seen.iter().all(|one| one == &seen[0]), "the nodes disagree about {tag}: {seen:?}");
    }
}

/// Pushes, and kills the primary at a random byte of the layer, or while the manifest is on its
/// way.
fn push_and_kill(
    mesh: &Mesh,
    victim: usize,
    through: usize,
    image: &Image,
    tag: &str,
) -> Result<(), Refusal> {
    let repository = mesh.repository(through, "demo/torn");
    let pid = mesh.nodes()[victim].pid();
    let layers = &image.blobs;
    let (config, layer): (&Blob, &Blob) = (&layers[0], &layers[1]);
    repository.upload(config)?;
    if rand::rng().random_range(0..3) < 2 {
        let point = rand::rng().random_range(0..LAYER);
        repository.upload_watched(layer, move |sent| {
            if sent >= point {
                process::signal(pid, Signal::KILL); // again and again: it stays dead
            }
        })?;
        return repository.put_manifest(tag, image);
    }
    repository.upload(layer)?;
    let together = Barrier::new(2);
    let delay = Duration::from_micros(rand::rng().random_range(0..40_000));
    std::thread::scope(|beside| {
        beside.spawn(|| {
            together.wait();
            std::thread::sleep(delay); // the dice that say where in the commit it dies
            process::signal(pid, Signal::KILL);
        });
        together.wait();
        repository.put_manifest(tag, image)
    })
}

/// Lets the readers end also when the round has failed; else the scope would wait for them for
/// ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
