//! What an edge has kept follows what the mesh decides about it: it is evicted, deleted, collected and
//! restored there as everywhere, and nothing that was deleted comes back from an edge's disk.

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::{Blob, Image};
use tests::people::must;
use tests::repository::{Repository, create_project};
use tests::shop::in_days;
use tests::{accounting, process, wait};

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
const SOON: &str = "collection: {grace: 1s, every: 1s}\nuploads: {expire_after: 1s}\n";
const EDGE: &str = "edge: {access_age: 2s}\ncache: {budget: 16MiB}\n";

fn there(mesh: &Formed, at: usize) -> Repository {
    Repository::new(&mesh.members()[at].anyone(), "demo/app")
}

fn status(mesh: &Formed, at: usize, path: &str) -> u16 {
    let answer = mesh.members()[at].anyone().get(path);
    answer.unwrap_or_else(|none| panic!("{path}: {none}")).status
}

/// The paths under which somebody who had it before would ask for an image.
fn paths(image: &Image, tag: &str) -> Vec<String> {
    let manifests = [tag, image.digest()].map(|name| format!("/v2/demo/app/manifests/{name}"));
    let blobs = image.blobs.iter().map(|blob| format!("/v2/demo/app/blobs/{}", blob.digest));
    manifests.into_iter().chain(blobs).collect()
}

/// Waits until a node has none of it for anybody.
fn is_gone(mesh: &Formed, at: usize, image: &Image, tag: &str) {
    for path in paths(image, tag) {
        wait::until_ok(&format!("{path} is gone at {at}"), || match status(mesh, at, &path) {
            404 => Ok(()),
            other => Err(format!("{other}")),
        });
    }
}

fn keeps_budget(mesh: &Formed, edge: usize) {
    wait::until_ok("what an edge caches is within its budget", || {
        let inventory = accounting::inventory(&mesh.client(edge))?;
        accounting::fault(&inventory).map_or(Ok(()), Err)
    });
}

fn atoll(mesh: &Formed, verb: &str, arguments: &[&str]) {
    let password = mesh.folder().join("password-for-edges");
    std::fs::write(&password, mesh.password()).expect("a file");
    let url = format!("http://{}", mesh.members()[1].place().http);
    let mut command = mesh.members()[1].atoll(verb);
    command.args(arguments).args(["--url", &url]).arg("--password-file").arg(password);
    let told = process::finish(&mut command);
    assert!(told.success, "{verb} {arguments:?}: {told:?}");
}

/// How many records that decide about images an edge has read again, because they had changed.
fn read_again(mesh: &Formed, edge: usize) -> u64 {
    let said = mesh.client(edge).get("/metrics").unwrap_or_else(|none| panic!("{none}"));
    let text = String::from_utf8_lossy(&said.body).into_owned();
    let number = text.lines().find_map(|line| {
        line.strip_prefix("atoll_edge_read_again_total")?.rsplit(' ').next()?.parse().ok()
    });
    number.unwrap_or(0)
}

fn delete(mesh: &Formed, image: &Image) {
    let path = format!("/v2/demo/app/manifests/{}", image.digest());
    must(&mesh.client(0), Method::DELETE, &path, &Value::Null, 202);
}

#[test]
fn what_was_deleted_is_gone_at_an_edge_and_comes_back_only_when_it_is_restored() {
    let mut mesh = Formed::of(&THREE, SOON);
    let edge = mesh.add_edge("edge", "us-east-1", EDGE);
    mesh.members()[edge].wait_ready();
    let images: Vec<Image> = (0..6).map(|_| Image::random(&[6 << 20])).collect();
    for (at, image) in images.iter().enumerate() {
        let pushed = mesh.repository(at % 3, "demo/app").push(image, &format!("v{at}"));
        pushed.unwrap_or_else(|no| panic!("{no}"));
    }
    // it evicts: six images do not fit, and each is served again and again
    for round in 0..2 {
        for at in 0..images.len() {
            let found = there(&mesh, edge).pull(&format!("v{at}"));
            found.unwrap_or_else(|no| panic!("v{at} in round {round}: {no}"));
            keeps_budget(&mesh, edge);
        }
    }

    // deleted by a client, restored, deleted again and for good
    there(&mesh, edge).pull("v0").unwrap_or_else(|no| panic!("{no}"));
    delete(&mesh, &images[0]);
    is_gone(&mesh, edge, &images[0], "v0");
    atoll(&mesh, "trash", &["restore", "demo/app:v0"]);
    let back = wait::until_ok("it is served again", || there(&mesh, edge).pull("v0"));
    assert_eq!(back.digest, images[0].digest());
    delete(&mesh, &images[0]);
    is_gone(&mesh, edge, &images[0], "v0");
    atoll(&mesh, "trash", &["empty", "demo", "--yes"]);
    let on_replicas = |blob: &Blob| (0..3).any(|at| blob.file(&mesh.members()[at].data()).exists());
    wait::until("its layers leave the replicas", || {
        (!images[0].blobs[1..].iter().any(on_replicas)).then_some(())
    });

    // the edge may have its bytes still, and nobody gets them: not a node that looks for them, and
    // not a client that says that it need not send them
    for at in [0, edge] {
        is_gone(&mesh, at, &images[0], "v0");
    }
    let refused = mesh.repository(2, "demo/app").put_manifest("v0", &images[0]);
    let refused = refused.expect_err("its layers are gone");
    assert_eq!(refused.answer().map(|answer| answer.status), Some(404), "{refused}");
    let mount =
        format!("/v2/demo/copy/blobs/uploads/?mount={}&from=demo/app", images[0].blobs[1].digest);
    let mounted = mesh.client(1).ask(Method::POST, &mount).send();
    assert_eq!(mounted.unwrap_or_else(|none| panic!("{none}")).status, 202, "it has to be sent");

    // a retention policy deletes for edges, too
    there(&mesh, edge).pull("v1").unwrap_or_else(|no| panic!("{no}"));
    let policy = json!({
        "scope": {"level": "project", "ref": "demo"},
        "rules": [{"template": "always", "params": {},
            "tag_selectors": [{"decoration": "excludes", "pattern": "v1",
                "extras": "{\"untagged\":true}"}],
            "scope_selectors": {"repository": [{"decoration": "repoMatches", "pattern": "**"}]}}],
    });
    must(&mesh.client(0), Method::POST, "/api/v2.0/retentions", &policy, 201);
    atoll(&mesh, "retention", &["run", "demo", "--confirm"]);
    is_gone(&mesh, edge, &images[1], "v1");

    // a restart brings nothing back, and neither does an edge that is alone with what it has
    there(&mesh, edge).pull("v2").unwrap_or_else(|no| panic!("{no}"));
    delete(&mesh, &images[2]);
    is_gone(&mesh, edge, &images[2], "v2");
    there(&mesh, edge).pull("v3").unwrap_or_else(|no| panic!("{no}"));
    mesh.members()[edge].stop(Signal::KILL);
    mesh.members()[edge].serve();
    mesh.members()[edge].wait_ready();
    for (at, image) in images[..3].iter().enumerate() {
        is_gone(&mesh, edge, image, &format!("v{at}"));
    }
    there(&mesh, edge).pull("v3").unwrap_or_else(|no| panic!("{no}"));
    keeps_budget(&mesh, edge);
    accounting::settles(&[0, 1, 2].map(|at| mesh.client(at)));
    for at in 0..3 {
        mesh.members()[at].stop(Signal::KILL);
    }
    for (at, image) in images[..3].iter().enumerate() {
        for path in paths(image, &format!("v{at}")) {
            let said = status(&mesh, edge, &path);
            assert!(matches!(said, 404 | 503), "{path} at an edge that is alone: {said}");
        }
    }
    let alone = there(&mesh, edge).pull("v3").unwrap_or_else(|no| panic!("it has that: {no}"));
    assert!(alone.may_be_stale && alone.digest == images[3].digest(), "{alone:?}");
    mesh.members()[edge].stop(Signal::KILL);
    mesh.members()[edge].serve();
    for (at, image) in images[..3].iter().enumerate() {
        for path in paths(image, &format!("v{at}")) {
            let said = wait::until("the edge answers", || {
                mesh.members()[edge].anyone().get(&path).ok().map(|answer| answer.status)
            });
            assert!(matches!(said, 404 | 503), "{path} after a restart without replicas: {said}");
        }
    }
}

#[test]
fn an_edge_that_is_cut_off_knows_what_was_revoked_or_deleted_before_though_nobody_asked_it() {
    let mut mesh = Formed::of(&THREE[..2], "");
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    let gated = |name: &str, alone: &str| {
        let metadata = json!({"signature_policy": "enforce", "gate_alone_for": alone});
        let path = format!("/api/v2.0/projects/{name}");
        must(&mesh.client(0), Method::PUT, &path, &json!({"metadata": metadata}), 200);
    };
    create_project(&mesh.client(0), "strict", true, 2);
    create_project(&mesh.client(0), "open", true, 2);
    gated("demo", "1h");
    gated("strict", "0");
    let images: Vec<Image> = (0..3).map(|_| Image::random(&[64])).collect();
    let unsigned = Image::random(&[64]);
    let push = |repository: &str, at: usize| {
        let pushed = mesh.repository(0, repository).push(&images[at], &format!("v{at}"));
        pushed.unwrap_or_else(|no| panic!("{no}"));
        let named = format!("{repository}@{}", images[at].digest());
        atoll(&mesh, "exempt", &[&named, "--reason", "a trial", "--until", &in_days(1)]);
    };
    (0..3).for_each(|at| push("demo/app", at));
    push("strict/app", 0);
    let said = |repository: &str, at: usize| {
        let path = format!("/v2/{repository}/manifests/{}", images[at].digest());
        status(&mesh, edge, &path)
    };
    for repository in ["demo/app", "strict/app"] {
        let pushed = mesh.repository(0, repository).push(&unsigned, "unsigned");
        pushed.unwrap_or_else(|no| panic!("{no}"));
        let path = format!("/v2/{repository}/manifests/{}", unsigned.digest());
        wait::until("the edge has heard of the policy", || {
            (status(&mesh, edge, &path) == 403).then_some(())
        });
    }
    let pushed = mesh.repository(0, "open/app").push(&images[0], "v0");
    pushed.unwrap_or_else(|no| panic!("{no}"));
    let all =
        [("demo/app", 0), ("demo/app", 1), ("demo/app", 2), ("strict/app", 0), ("open/app", 0)];
    for (repository, at) in all {
        wait::until("it is exempt", || (said(repository, at) == 200).then_some(()));
    }

    // the edge is asked for none of these after that
    let before = read_again(&mesh, edge);
    atoll(&mesh, "exempt", &[&format!("demo/app@{}", images[0].digest()), "--end"]);
    let grows = |before: u64| match read_again(&mesh, edge) {
        now if now > before => Ok(()),
        now => Err(format!("{now} records were read again")),
    };
    wait::until_ok("the edge has read it again", || grows(before));
    // the same bytes again are not what was exempted
    let before = read_again(&mesh, edge);
    delete(&mesh, &images[1]);
    mesh.repository(0, "demo/app").push(&images[1], "again").unwrap_or_else(|no| panic!("{no}"));
    wait::until_ok("and this one", || grows(before));

    // and what is deleted
    let before = read_again(&mesh, edge);
    let path = format!("/v2/open/app/manifests/{}", images[0].digest());
    must(&mesh.client(0), Method::DELETE, &path, &Value::Null, 202);
    wait::until_ok("the edge has read that it is gone", || grows(before));

    for at in 0..2 {
        mesh.members()[at].stop(Signal::KILL);
    }
    let settled = |repository: &str, at: usize, expected: u16| {
        wait::until_ok(&format!("{repository} {at}"), || match said(repository, at) {
            status if status == expected => Ok(()),
            other => Err(other.to_string()),
        });
    };
    settled("demo/app", 0, 403);
    settled("demo/app", 1, 403);
    settled("demo/app", 2, 200);
    settled("strict/app", 0, 503);
    // it cannot know that nobody has pushed it again
    settled("open/app", 0, 503);
    // nor after a restart, with which it forgets that nobody is trusted in the first two
    mesh.members()[edge].stop(Signal::KILL);
    mesh.members()[edge].serve();
    mesh.members()[edge].wait_ready();
    for (repository, at) in [("demo/app", 0), ("demo/app", 1), ("strict/app", 0), ("open/app", 0)] {
        let status = said(repository, at);
        assert!(matches!(status, 403 | 503), "{repository} {at}: {status}");
    }
}
