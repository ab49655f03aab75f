//! A manifest as large as manifests may be gets through the ledger over slow links, and small
//! writes go on before, beside and after it.
//!
//! Both of the leader's followers stand behind 8 Mbit/s. Over that, the entry with a manifest of
//! 4 MiB is under way for more than four seconds. A leader that gave it up after three seconds and
//! began again would repeat that for ever, and no write of the whole mesh would be committed any
//! more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tests::image::{Image, MANIFEST, digest, manifest_of, random_bytes};
use tests::islands::Islands;
use tests::repository::Repository;
use tests::wait;

const NAME: &str = "demo/narrow";
/// What `uploads.max_manifest` allows unless something else is set.
const LARGEST: usize = 4 << 20;

#[test]
fn the_largest_manifest_gets_through_slow_links_and_holds_up_no_writes_for_good() {
    let mesh = Islands::raise();
    let image = Image::tiny();
    mesh.repository(0, NAME).push(&image, "first").unwrap_or_else(|no| panic!("{no}"));
    let leader = wait::until("the ledger has a leader", || {
        Some(mesh.named(mesh.status(0).ok()?["leader"]["name"].as_str()?))
    });
    for at in (0..3).filter(|at| *at != leader) {
        mesh.narrow(at, 8_000);
    }
    let repository = |at: usize| {
        let patient = mesh.client(at).patient_for(Duration::from_secs(240));
        Repository::new(&patient, NAME)
    };
    small(&repository(leader), &image, "before");

    let (over, beside) = (AtomicBool::new(false), AtomicUsize::new(0));
    let large = large(&image);
    std::thread::scope(|threads| {
        let put = threads.spawn(|| {
            let put = repository(leader).put_bytes("large", MANIFEST, large.clone());
            over.store(true, Ordering::Relaxed);
            put
        });
        let repository = repository(leader);
        while !over.load(Ordering::Relaxed) {
            let tag = format!("beside-{}", beside.load(Ordering::Relaxed));
            small(&repository, &image, &tag);
            beside.fetch_add(1, Ordering::Relaxed);
        }
        let put = put.join().expect("it does not panic");
        put.unwrap_or_else(|no| panic!("a manifest of {LARGEST} bytes: {no}"));
    });
    small(&repository(leader), &image, "after");

    let written = beside.into_inner();
    for at in 0..3 {
        let repository = repository(at);
        let found = repository.resolve("large").unwrap_or_else(|no| panic!("large at {at}: {no}"));
        assert_eq!(found.digest, digest(&large), "at {at}");
        let beside = (0..written).map(|number| format!("beside-{number}"));
        for tag in ["before".to_owned(), "after".to_owned()].into_iter().chain(beside) {
            let found = repository.resolve(&tag).unwrap_or_else(|no| panic!("{tag} at {at}: {no}"));
            assert_eq!(found.digest, image.digest(), "{tag} at {at}");
        }
    }
}

fn small(repository: &Repository, image: &Image, tag: &str) {
    repository.put_manifest(tag, image).unwrap_or_else(|no| panic!("{tag}: {no}"));
}

/// A manifest of [`LARGEST`] bytes with the blobs of `image`, and annotations that do not compress.
fn large(image: &Image) -> Bytes {
    let mut manifest = manifest_of(&image.blobs);
    let length = |manifest: &serde_json::Value| manifest.to_string().len();
    manifest["annotations"] = serde_json::json!({ "filler": "" });
    let room = LARGEST - length(&manifest);
    let filler = hex::encode(random_bytes(room.div_ceil(2)));
    manifest["annotations"]["filler"] = filler[..room].into();
    assert_eq!(length(&manifest), LARGEST);
    manifest.to_string().into()
}
