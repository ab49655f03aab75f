//! What projects store is counted, and stays within their quotas: to the byte, whoever pushes at the
//! same time, through restarts, and after an upgrade of a mesh that had images before.

use std::collections::BTreeMap;
use std::process::Command;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::formed::Formed;
use tests::http::{Answer, Client};
use tests::image::{Blob, Image, write_layout};
use tests::people::{create_user, must};
use tests::{process, tools, wait};

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
const PROJECTS: &str = "/api/v2.0/projects";

/// The bytes of images, each blob and manifest once.
fn size(images: &[&Image]) -> u64 {
    let mut all: BTreeMap<&str, usize> = BTreeMap::new();
    for image in images {
        for blob in image.blobs.iter().chain([&image.manifest]) {
            all.insert(&blob.digest, blob.bytes.len());
        }
    }
    all.values().sum::<usize>() as u64
}

/// A project with a limit, as an administrator makes it; its number.
fn limited(admin: &Client, name: &str, storage: u64) -> u64 {
    let what = json!({"project_name": name, "storage_limit": storage, "metadata": {}});
    must(admin, Method::POST, PROJECTS, &what, 201);
    id(admin, name)
}

fn id(admin: &Client, name: &str) -> u64 {
    let shown = must(admin, Method::GET, &format!("{PROJECTS}/{name}"), &Value::Null, 200).json();
    shown["project_id"].as_u64().expect("a number")
}

fn quota(client: &Client, id: u64) -> Value {
    must(client, Method::GET, &format!("/api/v2.0/quotas/{id}"), &Value::Null, 200).json()
}

fn used(client: &Client, id: u64) -> u64 {
    quota(client, id)["used"]["storage"].as_u64().expect("a number")
}

fn limit(client: &Client, id: u64, hard: &Value, status: u16) -> Answer {
    let what = json!({ "hard": hard });
    must(client, Method::PUT, &format!("/api/v2.0/quotas/{id}"), &what, status)
}

/// That it was refused for the quota, as Harbor does.
fn is_over(answer: &Answer) {
    assert_eq!(answer.status, 403, "{answer}");
    let (code, said) = answer.envelope().expect("an envelope");
    assert_eq!(code, "DENIED", "{said}");
    assert!(said.starts_with("adding ") && said.contains("will exceed the configured"), "{said}");
}

#[test]
fn a_thousand_pushes_at_once_at_three_nodes_end_exactly_at_the_edge() {
    let mesh = Formed::of(&THREE, "");
    let admin = mesh.client(2);
    let images: Vec<Image> = (0..1000).map(|_| Image::random(&[500])).collect();
    let one = size(&[&images[0]]);
    assert!(images.iter().all(|image| size(&[image]) == one), "all have the same size");
    let small = limited(&admin, "small", 400 * one);
    let pushed: Vec<Result<(), tests::repository::Refusal>> = std::thread::scope(|beside| {
        let pushers: Vec<_> = images
            .iter()
            .enumerate()
            .map(|(at, image)| {
                let repository = mesh.repository(at % 3, &format!("small/app-{}", at % 3));
                beside.spawn(move || {
                    loop {
                        match repository.push(image, &format!("t{at}")) {
                            // a machine that is this busy may lose its leader for a moment
                            Err(no) if no.answer().is_none_or(|no| no.status == 503) => {
                                std::thread::sleep(std::time::Duration::from_millis(500));
                            }
                            settled => return settled,
                        }
                    }
                })
            })
            .collect();
        pushers.into_iter().map(|pusher| pusher.join().expect("no pusher panics")).collect()
    });
    for refusal in pushed.iter().filter_map(|pushed| pushed.as_ref().err()) {
        is_over(refusal.answer().unwrap_or_else(|| panic!("{refusal}")));
    }
    assert_eq!(pushed.iter().filter(|pushed| pushed.is_ok()).count(), 400);
    for at in 0..3 {
        assert_eq!(used(&mesh.client(at), small), 400 * one);
    }
    mesh.agree();
    // what is there costs nothing once more, in another repository and under another tag
    let there = pushed.iter().position(Result::is_ok).expect("one of them");
    mesh.repository(2, "small/other").push(&images[there], "copy").unwrap_or_else(|no| {
        panic!("a copy within the project: {no}");
    });
    // people were told once that little is left
    let logs = format!("{PROJECTS}/small/logs?q=operation=warn&page_size=100");
    let told = must(&admin, Method::GET, &logs, &Value::Null, 200).json();
    assert_eq!(told.as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told[0]["resource_type"], "quota");
    // a deletion gives the bytes back at once
    for name in [format!("small/app-{}", there % 3), "small/other".to_owned()] {
        let path = format!("/v2/{name}/manifests/{}", images[there].digest());
        let gone = mesh.client(1).ask(Method::DELETE, &path).send();
        assert_eq!(gone.unwrap_or_else(|none| panic!("{none}")).status, 202);
    }
    assert_eq!(used(&admin, small), 399 * one);
    let again = pushed.iter().position(Result::is_err).expect("one of them");
    let repository = mesh.repository(0, "small/app-0");
    repository.push(&images[again], "again").unwrap_or_else(|no| panic!("it fits now: {no}"));
    assert_eq!(used(&admin, small), 400 * one);
    // restarts change nothing
    for member in mesh.members() {
        member.stop(Signal::KILL);
    }
    for member in mesh.members() {
        member.serve();
    }
    for (at, member) in mesh.members().iter().enumerate() {
        member.wait_ready();
        assert_eq!(used(&mesh.client(at), small), 400 * one);
    }
}

/// The node that leads the ledger, or the primary of a project, as some node sees it.
fn seen(mesh: &Formed, what: impl Fn(&Value) -> Option<String>) -> usize {
    wait::until("somebody knows it", || {
        let name = (0..3).find_map(|at| what(&mesh.status(at).ok()?))?;
        THREE.iter().position(|(one, _)| *one == name)
    })
}

/// What all images of a project take, as somebody reads it who follows every manifest.
fn recount(mesh: &Formed, at: usize, project: &str) -> Value {
    let client = mesh.client(at);
    let get = |path: &str| must(&client, Method::GET, path, &Value::Null, 200).json();
    let list = |path: &str| get(path).as_array().cloned().unwrap_or_default();
    let (mut sizes, mut tags) = (BTreeMap::<String, u64>::new(), 0);
    let repositories = list(&format!("{PROJECTS}/{project}/repositories?page_size=100"));
    for repository in &repositories {
        let name = repository["name"].as_str().expect("a name").to_owned();
        let short = name.strip_prefix(&format!("{project}/")).expect("the project's").to_owned();
        let of = format!("{PROJECTS}/{project}/repositories/{short}/artifacts");
        for artifact in list(&format!("{of}?page_size=100&with_tag=true")) {
            let digest = artifact["digest"].as_str().expect("a digest");
            tags += artifact["tags"].as_array().map_or(0, Vec::len);
            let manifest = must(
                &client,
                Method::GET,
                &format!("/v2/{name}/manifests/{digest}"),
                &Value::Null,
                200,
            );
            sizes.insert(digest.to_owned(), manifest.body.len() as u64);
            let manifest = manifest.json();
            let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
            for blob in layers.iter().chain([&manifest["config"]]) {
                let digest = blob["digest"].as_str().expect("a digest").to_owned();
                sizes.insert(digest, blob["size"].as_u64().expect("a size"));
            }
        }
    }
    let storage: u64 = sizes.values().sum();
    json!({"storage": storage, "tags": tags, "repositories": repositories.len()})
}

/// A push goes on until it is taken or has no room. Whoever was killed meanwhile may have taken it:
/// then it costs nothing to push it again.
#[test]
fn pushes_end_exactly_at_the_edge_while_the_primary_and_the_leader_are_killed() {
    let mesh = Formed::of(&THREE, "");
    let admin = mesh.client(0);
    let (all, fit) = (90, 31);
    let images: Vec<Image> = (0..all).map(|_| Image::random(&[20_000])).collect();
    let one = size(&[&images[0]]);
    let small = limited(&admin, "small", fit * one);
    let over = std::sync::atomic::AtomicUsize::new(0);
    let taken: Vec<bool> = std::thread::scope(|beside| {
        let pushers: Vec<_> = (0..9)
            .map(|pusher| {
                let (mesh, images, over) = (&mesh, &images, &over);
                beside.spawn(move || {
                    let mine = images.iter().enumerate().filter(|(at, _)| at % 9 == pusher);
                    let push = |(number, image): (usize, &Image)| {
                        let mut tries = 0;
                        let taken = wait::until("a push is taken, or has no room", || {
                            tries += 1;
                            let name = format!("small/app-{}", number % 3);
                            let repository = mesh.repository((pusher + tries) % 3, &name);
                            match repository.push(image, &format!("t{number}")) {
                                Ok(()) => Some(true),
                                Err(no) => match no.answer() {
                                    Some(answer) if answer.status == 403 => {
                                        is_over(answer);
                                        Some(false)
                                    }
                                    _ => None,
                                },
                            }
                        });
                        over.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        taken
                    };
                    mine.map(push).collect::<Vec<bool>>()
                })
            })
            .collect();
        // three times while something is left to do: the primary, the leader, the primary
        for round in 0..3 {
            let before = over.load(std::sync::atomic::Ordering::Relaxed);
            wait::until("some pushes have ended", || {
                let now = over.load(std::sync::atomic::Ordering::Relaxed);
                (now >= before + 8 || now == all).then_some(())
            });
            let killed = match round {
                1 => seen(&mesh, |status| Some(status["leader"]["name"].as_str()?.to_owned())),
                _ => seen(&mesh, |status| tests::mesh::primary(status, "small")),
            };
            mesh.members()[killed].stop(Signal::KILL);
            std::thread::sleep(std::time::Duration::from_millis(300));
            mesh.members()[killed].serve();
            mesh.members()[killed].wait_ready();
        }
        pushers.into_iter().flat_map(|one| one.join().expect("no pusher panics")).collect()
    });
    assert_eq!(taken.iter().filter(|taken| **taken).count() as u64, fit, "exactly what fits");
    let counted = json!({"storage": fit * one, "tags": fit, "repositories": 3});
    for at in 0..3 {
        assert_eq!(quota(&mesh.client(at), small)["used"], counted);
        assert_eq!(recount(&mesh, at, "small"), counted, "counted by reading");
    }
    mesh.agree();
}

#[test]
fn clients_are_told_before_the_bytes_and_with_the_manifest() {
    let mesh = Formed::of(&THREE[..1], "");
    let admin = mesh.client(0);
    let small = limited(&admin, "small", 1 << 20);
    let folder = TempDir::with_prefix("atoll-quota-").expect("a temporary folder");
    let (user, password) = ("admin", mesh.password());
    let place = mesh.members()[0].place().http.to_string();
    let copy = |image: &Image, to: &str| {
        let layout = folder.path().join(to.replace(['/', ':'], "-"));
        write_layout(&layout, image);
        let mut skopeo = tools::packaged("skopeo", "skopeo");
        skopeo.args([
            "copy",
            "-q",
            "--preserve-digests",
            "--dest-tls-verify=false",
            "--dest-creds",
        ]);
        skopeo.arg(format!("{user}:{password}")).arg(format!("oci:{}", layout.display()));
        process::finish(skopeo.arg(format!("docker://{place}/{to}")))
    };
    let fits = Image::unpackable(&[600_000]);
    let told = copy(&fits, "small/app:1");
    assert!(told.success, "{}", told.err);
    let over = |err: &str| {
        assert!(err.contains("will exceed the configured upper limit of 1.0 MiB"), "{err}");
    };
    // one layer that does not fit, and several that fit one by one
    for layers in [&[800_000][..], &[200_000, 200_000, 200_000]] {
        let told = copy(&Image::unpackable(layers), "small/app:2");
        assert!(!told.success, "{layers:?}");
        over(&told.err);
    }
    let mut oras = tools::built_by_go("oras");
    let file = folder.path().join("file");
    std::fs::write(&file, tests::image::random_bytes(900_000)).expect("a file");
    oras.current_dir(folder.path()).args(["push", "--plain-http", "--username", user]);
    oras.args(["--password", password, &format!("{place}/small/thing:1"), "file"]);
    let told = process::finish(&mut oras);
    assert!(!told.success);
    over(&told.err);
    assert_eq!(used(&admin, small), size(&[&fits]));

    // without the bytes: the client says how many they would be
    let large = Blob::random(900_000);
    let whole = format!("/v2/small/app/blobs/uploads/?digest={}", large.digest);
    is_over(&send(admin.ask(Method::POST, &whole).body(large.bytes.clone())));
    let begun = send(admin.ask(Method::POST, "/v2/small/app/blobs/uploads/"));
    let upload = begun.header("location").expect("a place").to_owned();
    is_over(&send(admin.ask(Method::PATCH, &upload).body(large.bytes.clone())));
    let gone = send(admin.ask(Method::GET, &upload));
    assert_eq!(gone.status, 404, "the upload has ended: {gone}");
    // a blob of another project that does not fit is not mounted
    must(&admin, Method::POST, PROJECTS, &json!({"project_name": "big", "metadata": {}}), 201);
    let wide = Image::random(&[700_000]);
    mesh.repository(0, "big/app").push(&wide, "1").unwrap_or_else(|no| panic!("{no}"));
    let layer = &wide.blobs[1].digest;
    let mount = format!("/v2/small/app/blobs/uploads/?mount={layer}&from=big/app");
    is_over(&send(admin.ask(Method::POST, &mount)));
    // what the project has is no addition, however large
    let again = &fits.blobs[1];
    let mount = format!("/v2/small/copy/blobs/uploads/?mount={}&from=small/app", again.digest);
    assert_eq!(send(admin.ask(Method::POST, &mount)).status, 201);
}

fn send(ask: tests::http::Ask) -> Answer {
    ask.send().unwrap_or_else(|none| panic!("{none}"))
}

#[test]
fn administrators_set_and_see_quotas_and_new_projects_have_the_default() {
    let mesh = Formed::of(&THREE[..2], "");
    let (admin, other) = (mesh.client(0), mesh.client(1));
    let settings = json!({"storage_per_project": 5000, "tags_per_project": 2});
    must(&admin, Method::PUT, "/api/v2.0/configurations", &settings, 200);
    create_user(&admin, "ann");
    let ann = mesh.members()[0].anyone().basic("ann", tests::people::PASSWORD);
    // what others write is not read, as in Harbor
    let what = json!({"project_name": "theirs", "storage_limit": -1, "metadata": {}});
    must(&ann, Method::POST, PROJECTS, &what, 201);
    let theirs = id(&admin, "theirs");
    let hard = json!({"storage": 5000, "tags": 2, "repositories": -1});
    assert_eq!(quota(&other, theirs)["hard"], hard);
    let free = json!({"project_name": "free", "storage_limit": -1, "metadata": {}});
    must(&admin, Method::POST, PROJECTS, &free, 201);
    let free = id(&admin, "free");
    assert_eq!(quota(&other, free)["hard"]["storage"], -1);
    must(&ann, Method::GET, "/api/v2.0/quotas", &Value::Null, 403);
    must(&ann, Method::GET, &format!("/api/v2.0/quotas/{theirs}"), &Value::Null, 403);
    limit(&ann, theirs, &json!({"storage": -1}), 403);
    let summary = |client: &Client, name: &str| {
        let path = format!("{PROJECTS}/{name}/summary");
        must(client, Method::GET, &path, &Value::Null, 200).json()
    };
    assert_eq!(summary(&ann, "theirs")["quota"]["hard"]["storage"], 5000);

    for (hard, why) in [
        (json!({}), "hard required in body"),
        (json!({"storage": 0}), "hard.storage"),
        (json!({"storage": -2}), "hard.storage"),
        (json!({"count": 5}), "resource count not support"),
    ] {
        let said = limit(&admin, theirs, &hard, 400).envelope().expect("an envelope").1;
        assert!(said.contains(why), "{said}");
    }
    must(&admin, Method::PUT, "/api/v2.0/quotas/999", &json!({"hard": {"storage": 5}}), 404);
    // Harbor's clients name storage only: the others stay
    limit(&admin, theirs, &json!({"storage": 100_000}), 200);
    let hard = json!({"storage": 100_000, "tags": 2, "repositories": -1});
    assert_eq!(quota(&other, theirs)["hard"], hard);

    let image = Image::random(&[10_000]);
    let repository = mesh.repository(0, "theirs/app");
    for tag in ["1", "2"] {
        repository.push(&image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    let refused = repository.put_manifest("3", &image).expect_err("a third tag");
    is_over(refused.answer().unwrap_or_else(|| panic!("{refused}")));
    let tags = format!("{PROJECTS}/theirs/repositories/app/artifacts/{}/tags", image.digest());
    let refused = must(&admin, Method::POST, &tags, &json!({"name": "3"}), 403);
    is_over(&refused);
    let one = quota(&other, theirs);
    assert_eq!(one["used"], json!({"storage": size(&[&image]), "tags": 2, "repositories": 1}));
    assert_eq!(one["ref"]["name"], "theirs");
    let list = |query: &str| {
        let path = format!("/api/v2.0/quotas?{query}");
        must(&other, Method::GET, &path, &Value::Null, 200).json()
    };
    let names = |list: &Value| -> Vec<String> {
        let all = list.as_array().expect("a list").iter();
        all.map(|one| one["ref"]["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&list("sort=-used.storage&page_size=1")), ["theirs"]);
    assert_eq!(names(&list(&format!("reference=project&reference_id={free}"))), ["free"]);
    assert_eq!(names(&list("page=9&page_size=100")), [""; 0]);
    let all = must(&admin, Method::GET, "/api/v2.0/statistics", &Value::Null, 200).json();
    assert_eq!(all["total_storage_consumption"], size(&[&image]));
    let theirs_only = must(&ann, Method::GET, "/api/v2.0/statistics", &Value::Null, 200).json();
    assert!(theirs_only["total_storage_consumption"].is_null(), "{theirs_only}");

    // and what stays in new projects
    let presets = json!({"retention_per_project": "environments"});
    must(&admin, Method::PUT, "/api/v2.0/configurations", &presets, 200);
    must(&ann, Method::POST, PROJECTS, &json!({"project_name": "tidy", "metadata": {}}), 201);
    let tidy = id(&admin, "tidy");
    let path = format!("/api/v2.0/retentions/{tidy}");
    let policy = must(&other, Method::GET, &path, &Value::Null, 200).json();
    assert_eq!(policy["trigger"]["settings"]["cron"], "0 0 3 * * *", "{policy}");
    assert!(policy["rules"].as_array().is_some_and(|rules| rules.len() > 3), "{policy}");
    let schedules = must(&admin, Method::GET, "/api/atoll/v1/schedules", &Value::Null, 200).json();
    let of_tidy = |one: &Value| one["project"] == "tidy";
    assert!(schedules.as_array().is_some_and(|all| all.iter().any(of_tidy)), "{schedules}");
    let path = format!("/api/v2.0/retentions/{theirs}");
    must(&other, Method::GET, &path, &Value::Null, 404);

    // the command line
    let password = mesh.folder().join("password-for-quotas");
    std::fs::write(&password, mesh.password()).expect("a file");
    let url = format!("http://{}", mesh.members()[1].place().http);
    let atoll = |verb: &str, arguments: &[&str]| {
        let mut command: Command = mesh.members()[0].atoll(verb);
        command.args(arguments).args(["--url", &url]).arg("--password-file").arg(&password);
        process::finish(&mut command)
    };
    let told = atoll("quota", &["set", "theirs", "--storage", "2MiB", "--tags", "none"]);
    assert!(told.success && told.out.contains("storage: at most 2.0 MiB"), "{told:?}");
    let hard = json!({"storage": 2 << 20, "tags": -1, "repositories": -1});
    assert_eq!(quota(&other, theirs)["hard"], hard);
    let told = atoll("quota", &["list"]);
    assert!(
        told.success && told.out.contains("theirs") && told.out.contains("2.0 MiB"),
        "{told:?}"
    );
    let told = atoll("project", &["show", "theirs"]);
    assert!(told.out.contains("of 2.0 MiB"), "{told:?}");
    let told = atoll("project", &["create", "new", "--storage", "1GiB"]);
    assert!(told.success, "{told:?}");
    assert_eq!(quota(&other, id(&admin, "new"))["hard"]["storage"], 1 << 30);
    let told = atoll("quota", &["set", "theirs"]);
    assert!(!told.success, "nothing is named");
}

#[test]
fn what_was_there_before_the_level_is_counted_and_then_limited() {
    let mut mesh = Formed::at_level(&THREE, "", 9);
    let admin = mesh.client(0);
    let base = Blob::random(30_000);
    let images: Vec<Image> =
        (0..8).map(|_| Image::of_layers(vec![base.clone(), Blob::random(9_000)])).collect();
    for (at, image) in images.iter().enumerate() {
        let repository = mesh.repository(at % 3, &format!("demo/app-{}", at % 2));
        repository.push(image, &format!("t{at}")).unwrap_or_else(|no| panic!("{no}"));
    }
    let demo = id(&admin, "demo");
    let refused = limit(&admin, demo, &json!({"storage": 100}), 403);
    let said = refused.envelope().expect("an envelope").1;
    assert!(said.contains("feature level 10") && said.contains("has 9"), "{said}");
    wait::until("the level is raised", || {
        let raised = admin.ask(Method::POST, "/api/atoll/v1/level").send().ok()?;
        (raised.status == 200).then_some(())
    });
    let all: Vec<&Image> = images.iter().collect();
    wait::until("all is counted", || (quota(&admin, demo)["counted"] == true).then_some(()));
    let expected = json!({"storage": size(&all), "tags": 8, "repositories": 2});
    for at in 0..3 {
        assert_eq!(quota(&mesh.client(at), demo)["used"], expected);
    }
    mesh.agree();
    limit(&admin, demo, &json!({"storage": size(&all)}), 200);
    let more = Image::of_layers(vec![base.clone(), Blob::random(10)]);
    let refused = mesh.repository(1, "demo/app-0").push(&more, "more").expect_err("no room");
    is_over(refused.answer().unwrap_or_else(|| panic!("{refused}")));
    let path = format!("/v2/demo/app-0/manifests/{}", images[0].digest());
    assert_eq!(send(mesh.client(2).ask(Method::DELETE, &path)).status, 202);
    assert_eq!(used(&admin, demo), size(&all[1..]), "the base is still somebody's");
    mesh.repository(1, "demo/app-0").push(&more, "more").unwrap_or_else(|no| panic!("{no}"));
    // a node that gets the records from another one has the same
    let late = mesh.prepare("four", "us-east-1", "");
    late.must_join(&mesh.members()[0].invite());
    late.serve();
    late.wait_ready();
    mesh.add(late);
    mesh.agree();
    let mut now: Vec<&Image> = all[1..].to_vec();
    now.push(&more);
    assert_eq!(used(&mesh.client(3), demo), size(&now));
}
