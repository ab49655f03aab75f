//! What was deleted is gone for everybody at once, and comes back byte for byte until its time is over
//! or somebody empties the trash. Then its bytes leave all disks.

use std::io::Write as _;
use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::http::Client;
use tests::image::{Blob, Image, MANIFEST, manifest_of};
use tests::people::{PASSWORD, create_user, must};
use tests::wire::connect;
use tests::{process, wait};

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
const SOON: &str = "collection: {grace: 1s, every: 1s}\nuploads: {expire_after: 1s}\n";
const DEMO: &str = "/api/v2.0/projects/demo";
const TRASH: &str = "/api/v2.0/projects/demo/trash";

fn on_disk(mesh: &Formed, blob: &Blob) -> usize {
    (0..3).filter(|at| blob.file(&mesh.members()[*at].data()).exists()).count()
}

/// A command, at the second node.
fn atoll(mesh: &Formed, verb: &str, arguments: &[&str]) -> process::Finished {
    let password = mesh.folder().join("password-for-trash");
    std::fs::write(&password, mesh.password()).expect("a file");
    let url = format!("http://{}", mesh.members()[1].place().http);
    let mut command = mesh.members()[1].atoll(verb);
    command.args(arguments).args(["--url", &url]).arg("--password-file").arg(password);
    process::finish(&mut command)
}

fn keep_for(mesh: &Formed, time: &str) {
    let what = json!({"metadata": {"trash": time}});
    must(&mesh.client(0), Method::PUT, DEMO, &what, 200);
}

fn delete(client: &Client, reference: &str) {
    let path = format!("/v2/demo/app/manifests/{reference}");
    must(client, Method::DELETE, &path, &Value::Null, 202);
}

fn status(client: &Client, path: &str) -> u16 {
    client.get(path).unwrap_or_else(|none| panic!("{path}: {none}")).status
}

fn trash(mesh: &Formed) -> Value {
    must(&mesh.client(2), Method::GET, TRASH, &Value::Null, 200).json()
}

#[test]
fn what_was_deleted_is_gone_at_once_and_comes_back_as_it_was() {
    let mut mesh = Formed::of(&THREE, SOON);
    let edge = mesh.add_edge("edge", "us-east-1", "edge: {access_age: 2s}\n");
    mesh.members()[edge].wait_ready();
    let image = Image::random(&[100_000, 2_000]);
    let signature = Image::tiny();
    let signed = format!("{}.sig", image.digest().replace(':', "-"));
    for (what, tag) in [(&image, "a"), (&image, "b"), (&signature, &signed)] {
        mesh.repository(0, "demo/app").push(what, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    wait::until("the edge serves it", || mesh.repository(edge, "demo/app").pull("a").ok());
    delete(&mesh.client(1), image.digest());
    let manifest = |reference: &str| format!("/v2/demo/app/manifests/{reference}");
    for at in 0..3 {
        for reference in ["a", "b", image.digest(), &signed, signature.digest()] {
            assert_eq!(status(&mesh.client(at), &manifest(reference)), 404, "{reference} at {at}");
        }
        assert_eq!(status(&mesh.client(at), "/v2/demo/app/tags/list"), 404, "it had nothing else");
    }
    let catalog = must(&mesh.client(2), Method::GET, "/v2/_catalog", &Value::Null, 200).json();
    assert!(!catalog.to_string().contains("demo/app"), "{catalog}");
    wait::until("it is gone at the edge", || {
        (status(&mesh.client(edge), &manifest(image.digest())) == 404).then_some(())
    });
    // nothing of it is garbage, whatever the grace is
    let ran = atoll(&mesh, "gc", &["run", "--older-than", "0s", "--output", "json"]);
    assert!(ran.success, "{}", ran.err);
    let ran: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!((&ran["due"], &ran["collected"]), (&json!(0), &json!(0)), "{ran}");
    assert!(image.blobs.iter().all(|blob| on_disk(&mesh, blob) >= 2));

    let listed = atoll(&mesh, "trash", &["list", "demo", "--output", "json"]);
    let listed: Value =
        serde_json::from_str(&listed.out).unwrap_or_else(|e| panic!("{e}: {}", listed.err));
    assert_eq!(listed["artifacts"], 2, "{listed}");
    let records = listed["records"].as_array().expect("records");
    let of = |digest: &str| records.iter().find(|one| one["digest"] == digest).expect("a record");
    assert_eq!(of(image.digest())["tags"], json!(["a", "b"]), "{listed}");
    assert_eq!(of(image.digest())["deleted_by"], "admin", "{listed}");
    assert_eq!(of(signature.digest())["with"], image.digest(), "{listed}");
    let table = atoll(&mesh, "trash", &["list", "demo"]).out;
    let row = |digest: &str| {
        let row = table.lines().find(|line| line.contains(digest) && line.starts_with("artifact"));
        row.unwrap_or_else(|| panic!("{digest}: {table}")).to_owned()
    };
    assert!(row(signature.digest()).contains(&image.digest()[..19]), "{table}");
    assert!(!row(image.digest()).contains(&signature.digest()[..19]), "{table}");
    // a node that knew nothing else dies and comes back
    mesh.members()[2].stop(Signal::KILL);
    mesh.members()[2].serve();
    mesh.members()[2].wait_ready();
    let missing = atoll(&mesh, "trash", &["restore", "demo/app:c"]);
    assert!(!missing.success && missing.err.contains("trash of demo/app"), "{}", missing.err);
    let back = atoll(&mesh, "trash", &["restore", "demo/app:a"]);
    assert!(back.success && back.out.contains("2 artifacts"), "{}\n{}", back.out, back.err);
    for at in 0..3 {
        for (what, tag) in [(&image, "a"), (&signature, signed.as_str())] {
            let found = mesh.repository(at, "demo/app").pull(tag);
            let found = found.unwrap_or_else(|no| panic!("{tag} at {at}: {no}"));
            assert_eq!(found.digest, what.digest());
        }
        assert_eq!(status(&mesh.client(at), &manifest("b")), 404, "that tag was not asked for");
    }
    let back = atoll(&mesh, "trash", &["restore", "demo/app:b"]);
    assert!(back.success, "{}", back.err);
    let found = mesh.repository(edge, "demo/app").pull("b").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(found.digest, image.digest());
    assert_eq!(trash(&mesh)["records"], json!([]));

    // a tag that names something else now stays where it is
    delete(&mesh.client(0), image.digest());
    let other = Image::tiny();
    mesh.repository(0, "demo/app").push(&other, "a").unwrap_or_else(|no| panic!("{no}"));
    let refused = atoll(&mesh, "trash", &["restore", "demo/app:a"]);
    assert!(!refused.success && refused.err.contains("names something now"), "{}", refused.err);
    let exactly = format!("demo/app@{}", image.digest());
    assert!(atoll(&mesh, "trash", &["restore", &exactly]).success);
    for (tag, what) in [("a", &other), ("b", &image)] {
        let found = mesh.repository(2, "demo/app").pull(tag).unwrap_or_else(|no| panic!("{no}"));
        assert_eq!(found.digest, what.digest(), "{tag}");
    }
    // all of a repository, as whoever deleted it by mistake wants it back
    must(&mesh.client(0), Method::DELETE, &format!("{DEMO}/repositories/app"), &Value::Null, 200);
    assert_eq!(status(&mesh.client(1), &manifest("b")), 404);
    let back = atoll(&mesh, "trash", &["restore", "demo/app", "--all"]);
    assert!(back.success, "{}", back.err);
    for (tag, what) in [("a", &other), ("b", &image), (signed.as_str(), &signature)] {
        let found = mesh.repository(0, "demo/app").pull(tag).unwrap_or_else(|no| panic!("{no}"));
        assert_eq!(found.digest, what.digest(), "{tag}");
    }
    mesh.members()[edge].stop(Signal::KILL);
}

#[test]
fn what_must_go_goes_at_once_and_the_rest_when_its_time_is_over() {
    let mesh = Formed::of(&THREE, SOON);
    let admin = mesh.client(0);
    keep_for(&mesh, "1h");
    let [leaked, late, again] = [1, 2, 3].map(|n| Image::random(&[50_000 + n]));
    for (image, tag) in [(&leaked, "leaked"), (&late, "late"), (&again, "again")] {
        mesh.repository(0, "demo/app").push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    // the layers: a node may have cached the configuration to show the artifact
    let gone = |image: &Image| image.blobs[1..].iter().all(|blob| on_disk(&mesh, blob) == 0);
    let now = atoll(&mesh, "artifact", &["delete", "demo/app:leaked", "--now"]);
    assert!(now.success, "{}", now.err);
    wait::until("the leaked bytes are on no disk", || gone(&leaked).then_some(()));

    // a tag whose artifact stays
    for tag in ["gone", "now"] {
        let put = mesh.repository(0, "demo/app").put_manifest(tag, &again);
        put.unwrap_or_else(|no| panic!("{no}"));
    }
    let rows = || {
        let table = atoll(&mesh, "trash", &["list", "demo"]).out;
        table.lines().filter(|line| line.starts_with("tag ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(atoll(&mesh, "tag", &["delete", "demo/app:gone"]).success);
    assert!(rows().len() == 1 && rows()[0].contains(" gone "), "{:?}", rows());
    let now = atoll(&mesh, "tag", &["delete", "demo/app:now", "--now"]);
    assert!(now.success && rows().is_empty(), "{now:?} {:?}", rows());
    let found = mesh.repository(2, "demo/app").pull("again").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(found.digest, again.digest());

    // a push of the same takes it out of the trash
    delete(&admin, again.digest());
    mesh.repository(1, "demo/app").push(&again, "again").unwrap_or_else(|no| panic!("{no}"));
    let emptied = atoll(&mesh, "trash", &["empty", "demo"]);
    assert!(!emptied.success && emptied.err.contains("--yes"), "{}", emptied.err);
    // a parameter that is misspelt must not mean everything
    let misspelt = format!("{TRASH}?repositories=app");
    must(&mesh.client(0), Method::DELETE, &misspelt, &Value::Null, 400);
    let emptied = atoll(&mesh, "trash", &["empty", "demo", "--yes"]);
    assert!(emptied.success, "{}", emptied.err);
    keep_for(&mesh, "1s");
    delete(&admin, late.digest());
    assert!(late.blobs.iter().all(|blob| on_disk(&mesh, blob) >= 2));
    wait::until("its time is over", || (trash(&mesh)["artifacts"] == 0).then_some(()));
    wait::until("and its bytes are on no disk", || gone(&late).then_some(()));
    for at in 0..3 {
        let found = mesh.repository(at, "demo/app").pull("again");
        assert_eq!(found.unwrap_or_else(|no| panic!("{no}")).digest, again.digest());
    }
    tests::accounting::settles(&[0, 1, 2].map(|at| mesh.client(at)));
    let log = "/api/v2.0/auditlog-exts?q=resource_type=trash&page_size=100";
    let told = must(&admin, Method::GET, log, &Value::Null, 200).to_string();
    assert!(told.contains("expire") && told.contains("empty"), "{told}");
    for wrong in ["a week", "-1d", "7"] {
        let what = json!({"metadata": {"trash": wrong}});
        let refused = must(&admin, Method::PUT, DEMO, &what, 400);
        assert!(refused.envelope().expect("an envelope").1.contains("7d"), "{refused}");
    }
}

#[test]
fn who_may_push_restores_and_who_may_delete_empties() {
    let mesh = Formed::of(&THREE, SOON);
    let admin = mesh.client(0);
    for (name, role) in [("dora", 2), ("gus", 3), ("max", 4)] {
        create_user(&admin, name);
        let member = json!({"role_id": role, "member_user": {"username": name}});
        must(&admin, Method::POST, &format!("{DEMO}/members"), &member, 201);
    }
    let as_user = |name: &str| mesh.members()[1].anyone().basic(name, PASSWORD);
    let image = Image::random(&[30_000]);
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    delete(&admin, image.digest());
    let restore = format!("{TRASH}/restore");
    let what = json!({"repository": "app", "reference": "1"});
    // Harbor's numbers: 2 is a developer, 3 a guest, 4 a maintainer
    must(&as_user("gus"), Method::GET, TRASH, &Value::Null, 403);
    must(&as_user("gus"), Method::POST, &restore, &what, 403);
    must(&as_user("dora"), Method::DELETE, TRASH, &Value::Null, 403);
    must(&as_user("dora"), Method::GET, TRASH, &Value::Null, 200);
    // a quota that has no room for it
    let shown = must(&admin, Method::GET, DEMO, &Value::Null, 200).json();
    let quota = format!("/api/v2.0/quotas/{}", shown["project_id"]);
    must(&admin, Method::PUT, &quota, &json!({"hard": {"storage": 1000}}), 200);
    let refused = must(&as_user("dora"), Method::POST, &restore, &what, 403);
    assert!(refused.envelope().expect("an envelope").1.contains("exceed"), "{refused}");
    must(&admin, Method::PUT, &quota, &json!({"hard": {"storage": -1}}), 200);
    must(&as_user("dora"), Method::POST, &restore, &what, 200);
    let found = mesh.repository(2, "demo/app").pull("1").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(found.digest, image.digest());
    delete(&admin, image.digest());
    must(&as_user("max"), Method::DELETE, TRASH, &Value::Null, 200);
    must(&as_user("max"), Method::POST, &restore, &what, 404);
    must(&admin, Method::POST, &restore, &json!({"repository": "app", "references": "1"}), 400);
}

/// The deletion was once the client's own: an image whose client left stayed, with fewer signatures.
#[test]
fn an_image_with_many_signatures_goes_with_all_of_them_even_if_its_client_leaves() {
    let mesh = Formed::of(&THREE, "");
    let image = Image::tiny();
    let repository = mesh.repository(0, "demo/app");
    repository.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    // far more than go in one step, so that the client is gone before the last one
    for number in 0..300 {
        let mut signature = manifest_of(&image.blobs);
        signature["artifactType"] = "application/vnd.dev.sigstore.bundle.v0.3+json".into();
        signature["subject"] = json!({"mediaType": MANIFEST, "digest": image.digest(),
            "size": image.manifest.bytes.len()});
        signature["annotations"] = json!({"number": number.to_string()});
        let signature = Blob::of(signature.to_string().into_bytes());
        let put = repository.put_bytes(&signature.digest, MANIFEST, signature.bytes);
        put.unwrap_or_else(|no| panic!("signature {number}: {no}"));
    }
    let referrers = format!("/v2/demo/app/referrers/{}", image.digest());
    let left = |at: usize| {
        let answer = mesh.client(at).get(&referrers).ok()?;
        (answer.status == 200).then_some(answer.json()["manifests"].as_array()?.len())
    };
    wait::until("all are listed", || (left(1)? > 0).then_some(()));

    let admin = mesh.client(2);
    let basic = admin.credentials().expect("it has credentials");
    let deletion = format!(
        "DELETE /v2/demo/app/manifests/{} HTTP/1.1\r\nhost: registry\r\nauthorization: {basic}\r\n\r\n",
        image.digest()
    );
    let mut socket = connect(&mesh.members()[2].place().http, Duration::from_secs(10));
    socket.write_all(deletion.as_bytes()).expect("it is sent");
    // it has begun
    wait::until("the first step is done", || {
        let gone = status(&mesh.client(0), &format!("/v2/demo/app/manifests/{}", image.digest()));
        (gone == 404 || left(0)? < 300).then_some(())
    });
    drop(socket);
    for at in 0..3 {
        wait::until("all is gone", || {
            let path = format!("/v2/demo/app/manifests/{}", image.digest());
            (status(&mesh.client(at), &path) == 404 && left(at)? == 0).then_some(())
        });
    }
}
