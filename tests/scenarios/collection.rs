//! What nothing refers to any more leaves the disks of all replicas, and nothing else does. Pushes
//! that count on a blob keep it. So it is when regions lose each other (`ATOLL_LOSSES` times, 2; after
//! six each pair of regions and each region has been cut off).

use std::path::Path;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::{Formed, UNHURRIED};
use tests::image::{Blob, Image};
use tests::islands::Islands;
use tests::people::must;
use tests::repository::Refusal;
use tests::{accounting, process, wait};

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
const SOON: &str = "collection: {grace: 3s, every: 1s}\nuploads: {expire_after: 2s}\n";
const COLLECTION: &str = "/api/atoll/v1/collection";

#[test]
fn what_no_manifest_refers_to_any_more_leaves_all_disks_and_the_rest_stays() {
    let mesh = without_trash(SOON);
    let base = Blob::random(200_000);
    let [old, new] = [1, 2].map(|_| Image::of_layers(vec![base.clone(), Blob::random(100_000)]));
    for (image, tag) in [(&old, "old"), (&new, "new")] {
        let pushed = mesh.repository(0, "demo/app").push(image, tag);
        pushed.unwrap_or_else(|no| panic!("{tag}: {no}"));
    }
    let other = Image::random(&[50_000]);
    mesh.repository(1, "demo/other").push(&other, "1").unwrap_or_else(|no| panic!("{no}"));
    // it misses the deletion and the collection
    mesh.members()[2].stop(Signal::KILL);
    delete(&mesh, 0, &format!("/v2/demo/app/manifests/{}", old.digest()));
    let gone: Vec<&Blob> =
        old.blobs.iter().filter(|blob| new.blobs.iter().all(|b| b.digest != blob.digest)).collect();
    assert_eq!(gone.len(), 2, "a layer and the config");
    for at in [0, 1] {
        wait::until("the disk has room again", || {
            gone.iter().all(|blob| !on_disk(&mesh, at, blob)).then_some(())
        });
    }
    mesh.members()[2].serve();
    mesh.members()[2].wait_ready();
    wait::until("so it is at the node that was away", || {
        gone.iter().all(|blob| !on_disk(&mesh, 2, blob)).then_some(())
    });
    for at in 0..3 {
        for (image, name, tag) in [(&new, "demo/app", "new"), (&other, "demo/other", "1")] {
            let found = mesh.repository(at, name).pull(tag).unwrap_or_else(|no| panic!("{no}"));
            assert_eq!(found.digest, image.digest());
        }
        let asked = mesh.client(at).get(&format!("/v2/demo/app/blobs/{}", gone[0].digest));
        assert_eq!(asked.unwrap_or_else(|none| panic!("{none}")).status, 404);
    }
    // what was deleted can be pushed again
    mesh.repository(2, "demo/app").push(&old, "old").unwrap_or_else(|no| panic!("{no}"));
    let found = mesh.repository(0, "demo/app").pull("old").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(found.digest, old.digest());
    let status = get(&mesh, COLLECTION);
    assert_eq!(status["garbage"]["blobs"], 0, "{status}");
    assert!(status["collections"].as_u64() > Some(0), "{status}");
}

#[test]
fn an_upload_that_no_manifest_ever_names_goes() {
    let mesh = without_trash(SOON);
    let blob = Blob::random(70_000);
    let begun = mesh.client(0).ask(Method::POST, "/v2/demo/app/blobs/uploads/").send();
    let begun = begun.unwrap_or_else(|none| panic!("{none}"));
    let place = begun.header("location").unwrap_or_else(|| panic!("{begun}")).to_owned();
    let mark = if place.contains('?') { '&' } else { '?' };
    let whole = format!("{place}{mark}digest={}", blob.digest);
    let sent = mesh.client(0).ask(Method::PUT, &whole).body(blob.bytes.clone()).send();
    let sent = sent.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(sent.status, 201, "{sent}");
    assert!((0..3).any(|at| on_disk(&mesh, at, &blob)));
    wait::until("no disk has it", || (0..3).all(|at| !on_disk(&mesh, at, &blob)).then_some(()));
}

/// A client that has heard that a blob is here does not send it.
#[test]
fn a_push_that_counts_on_a_blob_keeps_it() {
    let settings = "collection: {grace: 1s, every: 1s}\nuploads: {expire_after: 1h}\n";
    let mesh = without_trash(settings);
    let layer = Blob::random(80_000);
    let first = Image::of_layers(vec![layer.clone()]);
    mesh.repository(0, "demo/app").push(&first, "1").unwrap_or_else(|no| panic!("{no}"));
    // at a node that need not hold it, before the only manifest that has it is deleted
    let asked = mesh.client(2).ask(Method::HEAD, &format!("/v2/demo/app/blobs/{}", layer.digest));
    assert_eq!(asked.send().unwrap_or_else(|none| panic!("{none}")).status, 200);
    delete(&mesh, 1, &format!("/v2/demo/app/manifests/{}", first.digest()));
    wait::until("it is garbage", || {
        (get(&mesh, COLLECTION)["garbage"]["blobs"].as_u64() >= Some(1)).then_some(())
    });
    let dry = run(&mesh, &["--older-than", "0s", "--dry-run"]);
    assert_eq!(dry["dry_run"], true);
    assert!(dry["pushes_count_on"].as_u64() >= Some(1), "{dry}");
    let ran = run(&mesh, &["--older-than", "0s"]);
    assert!(ran["pushes_count_on"].as_u64() >= Some(1), "{ran}");
    assert!(ran["pushes_count_until"].as_str().is_some_and(|at| at.ends_with('Z')), "{ran}");
    let second = Image::of_layers(vec![layer.clone()]);
    let repository = mesh.repository(2, "demo/app");
    repository.upload(&second.blobs[0]).unwrap_or_else(|no| panic!("the config: {no}"));
    let put = repository.put_manifest("2", &second);
    put.unwrap_or_else(|no| panic!("a layer that was promised: {no}"));
    for at in 0..3 {
        mesh.repository(at, "demo/app").pull("2").unwrap_or_else(|no| panic!("{no}"));
    }
    // an upload that its client takes back counts no longer
    let blob = Blob::random(40_000);
    repository.upload(&blob).unwrap_or_else(|no| panic!("{no}"));
    delete(&mesh, 2, &format!("/v2/demo/app/blobs/{}", blob.digest));
    wait::until("no disk has it", || (0..3).all(|at| !on_disk(&mesh, at, &blob)).then_some(()));
}

/// As Harbor's clients ask for it.
#[test]
fn a_collection_that_somebody_asks_for_is_a_run_and_an_event() {
    let mesh = without_trash("collection: {grace: 1s, every: 1h}\nuploads: {expire_after: 1s}\n");
    let admin = mesh.client(0);
    let image = Image::random(&[60_000]);
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    delete(&mesh, 1, &format!("/v2/demo/app/manifests/{}", image.digest()));
    let schedule = "/api/v2.0/system/gc/schedule";
    let ask = |parameters: &Value| {
        let body = json!({"schedule": {"type": "Manual"}, "parameters": parameters});
        let asked = admin.send_json(Method::POST, schedule, &body);
        asked.unwrap_or_else(|none| panic!("{none}"))
    };
    let refused = ask(&json!({"delete_untagged": true}));
    assert_eq!(refused.status, 400, "{refused}");
    let log = |dry_run: bool| {
        let asked = ask(&json!({"dry_run": dry_run, "workers": 2}));
        assert_eq!(asked.status, 201, "{asked}");
        let place = asked.header("location").expect("a place").to_owned();
        let run = get(&mesh, &place);
        assert_eq!(run["job_status"], "Success", "{run}");
        let log = mesh.client(2).get(&format!("{place}/log"));
        String::from_utf8_lossy(&log.unwrap_or_else(|none| panic!("{none}")).body).into_owned()
    };
    wait::until("it is due", || log(true).contains("2 blobs would be collected").then_some(()));
    assert!(image.blobs.iter().all(|blob| on_disk(&mesh, 0, blob)), "that was dry");
    let told = log(false);
    assert!(told.contains("2 blobs are collected"), "{told}");
    wait::until("the bytes are gone", || {
        image.blobs.iter().all(|blob| (0..3).all(|at| !on_disk(&mesh, at, blob))).then_some(())
    });
    let runs = get(&mesh, "/api/v2.0/system/gc?page_size=100");
    let newest = &runs[0]["job_parameters"];
    assert_eq!(*newest, r#"{"delete_untagged":false,"dry_run":false,"workers":2}"#, "{runs}");
    let events = get(&mesh, "/api/v2.0/auditlog-exts?q=resource_type=blob&page_size=100");
    let said = events[0]["resource"].as_str().unwrap_or_default();
    assert!(said.starts_with("2 that nothing refers to, "), "{events}");
}

/// A replica that is paused says nothing, so that a collection waits for it.
#[test]
fn a_collection_can_be_stopped_at_any_node() {
    let settings = "collection: {grace: 1s, every: 1h}\nuploads: {expire_after: 1s}\n";
    let mesh = without_trash(&format!("{settings}{UNHURRIED}"));
    let begin = || {
        let schedule = "/api/v2.0/system/gc/schedule";
        let what = json!({"schedule": {"type": "Manual"}, "parameters": {}});
        mesh.client(0).send_json(Method::POST, schedule, &what)
    };
    let status = mesh.status(0).unwrap_or_else(|no| panic!("{no}"));
    let leader = status["leader"]["name"].as_str().expect("a leader").to_owned();
    let paused = if leader == THREE[2].0 { 1 } else { 2 };
    let other = 3 - paused;
    // what fails because of the pause, or has collected before somebody can stop it, is begun again
    let (place, image) = wait::until("a collection is stopped before it has collected", || {
        let image = Image::random(&[60_000]);
        mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
        delete(&mesh, 1, &format!("/v2/demo/app/manifests/{}", image.digest()));
        mesh.members()[paused].signal(Signal::STOP);
        let begun = begin().unwrap_or_else(|none| panic!("{none}"));
        let place = begun.header("location").map(str::to_owned);
        let number = place.as_deref().and_then(|place| place.rsplit('/').next());
        let stopped = gc(&mesh, other, &["stop", number.unwrap_or("0")]);
        mesh.members()[paused].signal(Signal::CONT);
        let place = place.filter(|_| begun.status == 201 && stopped.success)?;
        let was_stopped = wait::until("it ends", || {
            let run = mesh.client(other).get(&place).ok()?.json();
            match run["job_status"].as_str()? {
                "Running" => None,
                status => Some(status == "Stopped"),
            }
        });
        let log = mesh.client(paused).get(&format!("{place}/log"));
        let log = log.unwrap_or_else(|none| panic!("{none}"));
        let said = String::from_utf8_lossy(&log.body).into_owned();
        assert!(!was_stopped || said.contains("it was stopped by admin"), "{said}");
        (was_stopped && said.contains("; 0 blobs are collected")).then_some((place, image))
    });
    assert!(image.blobs.iter().any(|blob| on_disk(&mesh, 0, blob)), "nothing was collected");
    // to stop what has ended is no error, as in Harbor
    must(&mesh.client(paused), Method::PUT, &place, &json!({"status": "Stopped"}), 200);
    must(&mesh.client(0), Method::PUT, &place, &json!({"status": "Running"}), 400);
    must(&mesh.client(0), Method::PUT, "/api/v2.0/system/gc/7", &json!({}), 400);
    let unknown = json!({"status": "Stopped"});
    must(&mesh.client(0), Method::PUT, "/api/v2.0/system/gc/7", &unknown, 404);
    must(&mesh.client(0), Method::PUT, "/api/v2.0/system/purgeaudit/7", &unknown, 404);
    let none = gc(&mesh, 0, &["stop"]);
    assert!(!none.success && none.err.contains("no collection is under way"), "{none:?}");
    // the next one does what that one did not
    wait::until("the bytes are gone", || {
        drop(begin());
        image.blobs.iter().all(|blob| (0..3).all(|at| !on_disk(&mesh, at, blob))).then_some(())
    });
}

/// Who does not hear whom.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// Two regions do not hear each other, and both hear the third.
    EachOther(usize, usize),
    /// One region hears nobody.
    Everybody(usize),
}

const LOSSES: [Loss; 6] = [
    Loss::EachOther(0, 1),
    Loss::Everybody(0),
    Loss::EachOther(1, 2),
    Loss::Everybody(1),
    Loss::EachOther(0, 2),
    Loss::Everybody(2),
];

fn losses() -> usize {
    std::env::var("ATOLL_LOSSES").ok().and_then(|losses| losses.parse().ok()).unwrap_or(2)
}

fn lose(mesh: &Islands, loss: Loss, lost: bool) {
    match loss {
        Loss::EachOther(one, other) => mesh.part(one, other, lost),
        Loss::Everybody(at) if lost => mesh.cut(at),
        Loss::Everybody(at) => mesh.heal(at),
    }
}

/// Whether a deletion was acknowledged. If not, it may have been done all the same.
fn is_deleted(mesh: &Islands, at: usize, image: &Image) -> bool {
    let path = format!("/v2/demo/app/manifests/{}", image.digest());
    let answer = mesh.client(at).ask(Method::DELETE, &path).send();
    answer.is_ok_and(|answer| matches!(answer.status, 202 | 404))
}

/// That an image that was acknowledged is whole at a node. A node may say that it cannot know, or be
/// silent; it may not say that there is no such image.
fn is_whole(mesh: &Islands, at: usize, tag: &str, image: &Image) -> Result<(), String> {
    match mesh.repository(at, "demo/app").pull(tag) {
        Ok(found) if found.digest == image.digest() => Ok(()),
        Err(Refusal::Answered(answer)) if answer.status == 404 => {
            panic!("{tag} was acknowledged and is lost at {at}: {answer}")
        }
        other => Err(format!("{tag} at {at}: {other:?}")),
    }
}

/// All the while somebody pushes, deletes and collects at each node. What is deleted shares a layer
/// with what stays, and some of it is pushed again.
#[test]
fn regions_that_lose_each_other_during_a_collection_lose_nothing_that_is_live() {
    let mesh =
        Islands::raise_with("collection: {grace: 1s, every: 1s}\nuploads: {expire_after: 5s}\n");
    let none = json!({"metadata": {"trash": "0"}});
    must(&mesh.client(0), Method::PUT, "/api/v2.0/projects/demo", &none, 200);
    let base = Blob::random(30_000);
    let image = || Image::of_layers(vec![base.clone(), Blob::random(10_000)]);
    let mut live: Vec<(String, Image)> = Vec::new();
    for (round, loss) in LOSSES.iter().cycle().take(losses()).enumerate() {
        let (early, late): (Vec<Image>, Vec<Image>) =
            ((0..6).map(|_| image()).collect(), (0..6).map(|_| image()).collect());
        let stays: Vec<Image> = (0..3).map(|_| image()).collect();
        let named = |what: &str, at: usize| format!("{what}-{round}-{at}");
        for (what, images) in [("early", &early), ("late", &late), ("stays", &stays)] {
            for (at, image) in images.iter().enumerate() {
                let there = mesh.repository(at % 3, "demo/app");
                wait::until_ok("a push is taken", || there.push(image, &named(what, at)));
            }
        }
        for (at, image) in early.iter().enumerate() {
            wait::until("it is deleted", || is_deleted(&mesh, at % 3, image).then_some(()));
        }
        live.extend(stays.into_iter().enumerate().map(|(at, image)| (named("stays", at), image)));
        let taken = std::thread::scope(|beside| {
            let deleting = beside.spawn(|| {
                for (at, image) in late.iter().enumerate() {
                    is_deleted(&mesh, at % 3, image);
                }
            });
            lose(&mesh, *loss, true);
            let pushing: Vec<_> = (0..3)
                .map(|at| {
                    // a new one, and one that was deleted a moment ago
                    let images = [("new", image()), ("again", early[at].clone())];
                    let (mesh, images) = (&mesh, images.map(|(what, i)| (named(what, at), i)));
                    beside.spawn(move || {
                        let all = json!({"older_than_seconds": 0});
                        images.map(|(tag, image)| {
                            drop(mesh.client(at).send_json(Method::POST, COLLECTION, &all));
                            let pushed = mesh.repository(at, "demo/app").push(&image, &tag);
                            pushed.is_ok().then_some((tag, image))
                        })
                    })
                })
                .collect();
            let taken: Vec<_> =
                pushing.into_iter().flat_map(|one| one.join().expect("it pushes")).collect();
            deleting.join().expect("it deletes");
            taken
        });
        let revived: Vec<bool> = taken.iter().skip(1).step_by(2).map(Option::is_some).collect();
        live.extend(taken.into_iter().flatten());
        for (tag, image) in &live {
            wait::until(&format!("{tag} is somewhere ({loss:?})"), || {
                (0..3).any(|at| is_whole(&mesh, at, tag, image).is_ok()).then_some(())
            });
        }
        lose(&mesh, *loss, false);
        for at in 0..3 {
            for (tag, image) in &live {
                wait::until_ok("it is whole", || is_whole(&mesh, at, tag, image));
            }
        }
        let gone = early.iter().enumerate().filter(|(at, _)| revived.get(*at) != Some(&true));
        for (at, image) in gone.chain(late.iter().enumerate()) {
            // a push that was not acknowledged may have been recorded
            wait::until("it is deleted", || is_deleted(&mesh, at % 3, image).then_some(()));
            let path = format!("/v2/demo/app/manifests/{}", image.digest());
            must(&mesh.client(0), Method::GET, &path, &Value::Null, 404);
        }
        accounting::settles(&[0, 1, 2].map(|at| mesh.client(at)));
    }
}

/// A mesh whose project keeps nothing of what is deleted.
fn without_trash(settings: &str) -> Formed {
    let mesh = Formed::of(&THREE, settings);
    let none = json!({"metadata": {"trash": "0"}});
    must(&mesh.client(0), Method::PUT, "/api/v2.0/projects/demo", &none, 200);
    mesh
}

fn on_disk(mesh: &Formed, at: usize, blob: &Blob) -> bool {
    let data = mesh.members()[at].data();
    blob.file(Path::new(&data)).exists()
}

fn delete(mesh: &Formed, at: usize, path: &str) {
    let answer = mesh.client(at).ask(Method::DELETE, path).send();
    let answer = answer.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(answer.status, 202, "{path}: {answer}");
}

fn get(mesh: &Formed, path: &str) -> Value {
    let answer = mesh.client(1).get(path).unwrap_or_else(|none| panic!("{path}: {none}"));
    assert_eq!(answer.status, 200, "{path}: {answer}");
    answer.json()
}

/// `atoll gc`, at a node.
fn gc(mesh: &Formed, at: usize, arguments: &[&str]) -> process::Finished {
    let password = mesh.folder().join("password-for-gc");
    std::fs::write(&password, mesh.password()).expect("a file");
    let url = format!("http://{}", mesh.members()[at].place().http);
    let mut command = mesh.members()[0].atoll("gc");
    command.args(arguments).args(["--url", &url]);
    process::finish(command.arg("--password-file").arg(password))
}

/// `atoll gc run`, at the second node.
fn run(mesh: &Formed, arguments: &[&str]) -> Value {
    let told = gc(mesh, 1, &[&["run", "--output", "json"], arguments].concat());
    assert!(told.success, "{}", told.err);
    serde_json::from_str(&told.out).unwrap_or_else(|e| panic!("{e}: {}", told.out))
}
