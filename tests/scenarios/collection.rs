//! What nothing refers to any more leaves the disks of all replicas, and nothing else does. Pushes
//! that count on a blob keep it.

use std::path::Path;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::{Blob, Image};
use tests::people::must;
use tests::process;
use tests::wait;

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

/// `atoll gc run`, at the second node.
fn run(mesh: &Formed, arguments: &[&str]) -> Value {
    let password = mesh.folder().join("password-for-gc");
    std::fs::write(&password, mesh.password()).expect("a file");
    let url = format!("http://{}", mesh.members()[1].place().http);
    let mut command = mesh.members()[0].atoll("gc");
    command.arg("run").args(arguments).args(["--output", "json", "--url", &url]);
    let told = process::finish(command.arg("--password-file").arg(password));
    assert!(told.success, "{}", told.err);
    serde_json::from_str(&told.out).unwrap_or_else(|e| panic!("{e}: {}", told.out))
}
