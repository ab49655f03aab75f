//! Each request of a push may come to another node: a load balancer needs no sticky sessions. An
//! upload goes on after a restart of the node that has its bytes, and if that node is gone, the
//! client is told to begin again. It never hangs.

use bytes::Bytes;
use http::Method;
use tempfile::TempDir;
use tests::balancer::Balancer;
use tests::daemons::{Containerd, Docker, Podman};
use tests::http::Answer;
use tests::image::{Blob, Image};
use tests::mesh::Mesh;
use tests::repository::Repository;
use tests::{metrics, process, tools, wait};

const PART: usize = 3 << 20;

/// Sends a step of an upload to a node.
fn step(
    mesh: &Mesh,
    at: usize,
    method: Method,
    place: &str,
    range: Option<&str>,
    body: Bytes,
) -> Answer {
    let client = mesh.client(at);
    let ask = client.ask(method, place).header("content-type", "application/octet-stream");
    let ask = match range {
        Some(range) => ask.header("content-range", range),
        None => ask,
    };
    ask.body(body).send().unwrap_or_else(|none| panic!("{place} at {at}: {none}"))
}

fn relayed(mesh: &Mesh) -> u64 {
    (0..mesh.nodes().len())
        .map(|at| metrics::value(&mesh.client(at), "atoll_uploads_relayed_total"))
        .sum()
}

#[test]
fn an_upload_is_added_to_shown_finished_and_cancelled_at_any_node() {
    let mesh = Mesh::up(3);
    // no copy is made before a manifest is pushed
    mesh.create_project("any", true, 1);
    for home in 0..3 {
        let [second, third] = [(home + 1) % 3, (home + 2) % 3];
        let blob = Blob::random(2 * PART + 11);
        let repository = mesh.repository(home, "any/app");
        let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
        let parts = [0..PART, PART..2 * PART, 2 * PART..blob.bytes.len()];
        let [first, next, last] = parts.map(|part| blob.bytes.slice(part));

        let added = step(&mesh, second, Method::PATCH, &place, None, first);
        assert_eq!(added.status, 202, "{added}");
        assert_eq!(added.header("range"), Some(&*format!("0-{}", PART - 1)));
        assert_eq!(added.header("location"), Some(&*place));
        // a part that was lost on its way: the client hears where to go on
        let range = format!("{}-{}", PART + 5, 2 * PART + 4);
        let early = step(&mesh, third, Method::PATCH, &place, Some(&range), next.clone());
        assert_eq!(early.status, 416, "{early}");
        assert_eq!(early.header("range"), Some(&*format!("0-{}", PART - 1)));
        assert_eq!(early.header("location"), Some(&*place));
        let range = format!("{PART}-{}", 2 * PART - 1);
        let added = step(&mesh, third, Method::PATCH, &place, Some(&range), next);
        assert_eq!(added.status, 202, "{added}");
        for at in 0..3 {
            let shown = mesh.client(at).get(&place).unwrap_or_else(|none| panic!("{none}"));
            assert_eq!(shown.status, 204, "{shown}");
            assert_eq!(shown.header("range"), Some(&*format!("0-{}", 2 * PART - 1)), "at {at}");
        }
        // an upload belongs to one repository, and to those who may push there
        let elsewhere = place.replace("any/app", "any/other");
        let stolen = step(&mesh, second, Method::PATCH, &elsewhere, None, Bytes::new());
        assert_eq!(stolen.status, 404, "{stolen}");
        let anyone = mesh.anyone(second).get(&place).unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(anyone.status, 401, "{anyone}");

        let at_second = mesh.repository(second, "any/app");
        at_second
            .close_upload(&place, &blob.digest, last)
            .unwrap_or_else(|no| panic!("finished elsewhere: {no}"));
        for at in 0..3 {
            let path = at_second.path(&format!("blobs/{}", blob.digest));
            let seen_by = |client: tests::http::Client| {
                let seen = client.ask(Method::HEAD, &path).send();
                seen.unwrap_or_else(|none| panic!("at {at}: {none}"))
            };
            if at != home {
                let unseen = seen_by(mesh.anyone(at));
                assert_eq!(unseen.status, 404, "at {at}: nobody else asks all nodes: {unseen}");
            }
            // who pushes sees it before a manifest refers to it, so it is not sent twice
            let seen = seen_by(mesh.client(at));
            assert_eq!(seen.status, 200, "at {at}: {seen}");
            assert_eq!(seen.header("content-length"), Some(&*blob.bytes.len().to_string()));
            let gone = mesh.client(at).get(&place).unwrap_or_else(|none| panic!("{none}"));
            assert_eq!(gone.status, 404, "{gone}");
        }

        let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
        let wrong = format!("{place}?digest={}", Blob::random(9).digest);
        let refused = step(&mesh, third, Method::PUT, &wrong, None, blob.bytes.slice(..99));
        assert_eq!(refused.status, 400, "{refused}");
        assert_eq!(refused.envelope().expect("an envelope").0, "DIGEST_INVALID", "{refused}");
        let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
        let ended = step(&mesh, second, Method::DELETE, &place, None, Bytes::new());
        assert_eq!(ended.status, 204, "{ended}");
        let gone = step(&mesh, home, Method::PATCH, &place, None, Bytes::new());
        assert_eq!(gone.status, 404, "{gone}");
    }
    for (at, id) in [(0, "no-id".to_owned()), (1, "0".repeat(48)), (2, "f".repeat(48))] {
        let place = format!("/v2/any/app/blobs/uploads/{id}");
        let unknown = step(&mesh, at, Method::PATCH, &place, None, Bytes::from_static(b"x"));
        assert_eq!(unknown.status, 404, "{unknown}");
        assert_eq!(unknown.envelope().expect("an envelope").0, "BLOB_UPLOAD_UNKNOWN");
    }
}

#[test]
fn an_upload_goes_on_after_a_restart_of_its_node() {
    let mesh = Mesh::up(3);
    for (round, kills) in [true, false].into_iter().enumerate() {
        let blob = Blob::random(2 * PART);
        let name = format!("demo/again{round}");
        let repository = mesh.repository(0, &name);
        let [resumed, idle] = [0, 1].map(|_| {
            let place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
            let part = blob.bytes.slice(..PART);
            let added = step(&mesh, 0, Method::PATCH, &place, None, part);
            assert_eq!(added.status, 202, "{added}");
            place
        });
        if kills {
            mesh.kill(0)
        } else {
            mesh.end(0)
        }
        mesh.start(0);
        mesh.wait_ready(0);
        for at in [1, 0] {
            let shown = wait::until("the node is reached again", || {
                mesh.client(at).get(&resumed).ok().filter(|shown| shown.status == 204)
            });
            assert_eq!(shown.header("range"), Some(&*format!("0-{}", PART - 1)), "at {at}");
        }
        let range = format!("{PART}-{}", 2 * PART - 1);
        let rest = blob.bytes.slice(PART..);
        let added = step(&mesh, 1, Method::PATCH, &resumed, Some(&range), rest);
        assert_eq!(added.status, 202, "{added}");
        repository
            .close_upload(&resumed, &blob.digest, Bytes::new())
            .unwrap_or_else(|no| panic!("finished after a restart: {no}"));
        let image = Image::tiny();
        repository.push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
        let found = mesh.repository(1, &name).blob(&blob.digest);
        assert!(found.unwrap_or_else(|no| panic!("{no}")) == blob.bytes, "wrong bytes");
        let ended = step(&mesh, 2, Method::DELETE, &idle, None, Bytes::new());
        assert_eq!(ended.status, 204, "{ended}");
    }
    let left = std::fs::read_dir(mesh.nodes()[0].data.join("uploads")).expect("a folder");
    assert_eq!(left.count(), 0, "files of uploads that have ended");
}

#[test]
fn a_client_whose_uploads_node_dies_begins_again_elsewhere() {
    let mesh = Mesh::up(3);
    let blob = Blob::random(8 << 20);
    let place = mesh.repository(0, "demo/dies").open_upload().unwrap_or_else(|no| panic!("{no}"));
    let (passed_half, half_passed) = std::sync::mpsc::channel();
    let patch = mesh.client(1).ask(Method::PATCH, &place);
    let half = blob.bytes.len() / 2;
    let sending = patch.streamed(blob.bytes.clone(), move |sent| {
        if sent > half {
            let _ = passed_half.send(());
        }
    });
    let sent = std::thread::scope(|beside| {
        let sending = beside.spawn(|| sending.send());
        half_passed.recv().expect("half of it is sent");
        mesh.kill(0);
        sending.join().expect("an upload")
    });
    // it may have come in whole before the node died
    if let Ok(answer) = sent {
        assert!([202, 404, 503].contains(&answer.status), "{answer}");
    }
    let gone = wait::until("the upload is known to be gone", || {
        let answer = mesh.client(2).get(&place).unwrap_or_else(|none| panic!("{none}"));
        assert!([404, 503].contains(&answer.status), "{answer}");
        (answer.status == 404).then_some(answer)
    });
    assert_eq!(gone.envelope().expect("an envelope").0, "BLOB_UPLOAD_UNKNOWN", "{gone}");
    wait::until_ok("the client begins again at another node", || {
        mesh.repository(1, "demo/dies").upload(&blob)
    });
}

#[test]
fn clients_push_and_pull_through_a_balancer_without_sticky_sessions() {
    let images = tools::images();
    let mesh = Mesh::up(3);
    let balancer = Balancer::before(&mesh);
    let (user, password) = mesh.admin();
    let folder = TempDir::with_prefix("atoll-balanced-").expect("a temporary folder");
    let name = |rest: &str| format!("{}/demo/{rest}", balancer.authority());
    let app = images.join("docker/app.tar").display().to_string();
    let layout = |what: &str| format!("oci:{}:1", images.join("oci").join(what).display());
    let digest = |repository: &str, tag: &str| {
        let of = |at| {
            let found = mesh.repository(at, &format!("demo/{repository}")).pull(tag);
            found.unwrap_or_else(|no| panic!("{repository}:{tag} at {at}: {no}")).digest
        };
        let all = [0, 1, 2].map(of);
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
        all[0].clone()
    };

    let docker = Docker::start();
    docker.login(balancer.authority(), user, password);
    docker.run(&["load", "-q", "-i", &app]);
    docker.run(&["tag", "atoll/app:1", &name("docker:1")]);
    docker.run(&["push", "-q", &name("docker:1")]);
    let pushed = digest("docker", "1");
    docker.run(&["rmi", "-f", "atoll/app:1", &name("docker:1")]);
    assert_eq!(docker.pull(&name("docker:1")), pushed);

    let containerd = Containerd::start();
    containerd.run(&["images", "import", &app]);
    containerd.run(&["images", "tag", "docker.io/atoll/app:1", &name("ctr:1")]);
    let credentials = format!("{user}:{password}");
    let push = ["images", "push", "--plain-http", "--user", &credentials, &name("ctr:1")];
    containerd.run(&push);
    assert_eq!(containerd.digest(&name("ctr:1")), digest("ctr", "1"));

    let registries = folder.path().join("registries.conf");
    let insecure =
        format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", balancer.authority());
    std::fs::write(&registries, insecure).expect("a file");
    let podman = Podman::with_registries(&registries);
    let loaded = podman.run(&["load", "-q", "-i", &app]);
    let (_, loaded) = loaded.trim().rsplit_once(' ').expect("podman says what it calls the image");
    podman.run(&["push", "-q", "--creds", &credentials, loaded, &name("podman:1")]);
    podman.run(&["rmi", "-a", "-f"]);
    assert_eq!(podman.pull(&name("podman:1")), digest("podman", "1"));

    let mut skopeo = tools::packaged("skopeo", "skopeo");
    skopeo.args(["copy", "-q", "--all", "--dest-tls-verify=false", "--dest-creds", &credentials]);
    process::succeed(skopeo.arg(layout("multi")).arg(format!("docker://{}", name("skopeo:1"))));
    let index = mesh.repository(1, "demo/skopeo").resolve("1").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(docker.pull(&name("skopeo:1")), index.digest);

    let mut oras = tools::built_by_go("oras");
    oras.args(["cp", "--to-plain-http", "--to-username", user, "--to-password", password]);
    let chart = format!("{}:0.1.0", images.join("oci/chart").display());
    process::succeed(oras.args(["--from-oci-layout", &chart, &name("chart:0.1.0")]));
    digest("chart", "0.1.0");

    // chunks, each to the next node: what splits a layer of many gigabytes
    let client = tests::http::Client::of(&format!("http://{}", balancer.authority()));
    let repository = Repository::new(&client.basic(user, password), "demo/chunks");
    let image = Image::random(&[5 * PART + 7]);
    for blob in &image.blobs {
        let mut place = repository.open_upload().unwrap_or_else(|no| panic!("{no}"));
        for begin in (0..blob.bytes.len()).step_by(PART) {
            let end = (begin + PART).min(blob.bytes.len());
            let patch = repository
                .client()
                .ask(Method::PATCH, &place)
                .header("content-range", &format!("{begin}-{}", end - 1))
                .body(blob.bytes.slice(begin..end));
            let added = patch.send().unwrap_or_else(|none| panic!("{none}"));
            assert_eq!(added.status, 202, "{added}");
            place = added.header("location").expect("an upload has a location").to_owned();
        }
        let closed = repository.close_upload(&place, &blob.digest, Bytes::new());
        closed.unwrap_or_else(|no| panic!("{no}"));
    }
    repository.put_manifest("1", &image).unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(digest("chunks", "1"), image.digest());
    assert!(relayed(&mesh) > 20, "nginx sent most requests to the node that had the upload");
}
