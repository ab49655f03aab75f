//! A name that a deleted project had belongs to whoever makes a project of that name next. What the
//! earlier one had does not.

use http::Method;
use serde_json::json;
use tests::formed::Formed;
use tests::http::Client;
use tests::image::{Blob, Image};
use tests::people::{PASSWORD, create_user, must};
use tests::repository::{Repository, create_project};
use tests::wait;

const SITES: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];

fn status(client: &Client, method: Method, path: &str) -> u16 {
    let answer = client.ask(method, path).send();
    answer.unwrap_or_else(|none| panic!("{path}: {none}")).status
}

#[test]
fn who_makes_a_deleted_projects_name_anew_sees_nothing_of_what_it_had() {
    let mut mesh = Formed::of(&SITES, "");
    // long, so that nothing is forgotten because of its age
    let edge = mesh.add_edge("edge", "us-east-1", "edge: {access_age: 1h}\n");
    mesh.members()[edge].wait_ready();
    let admin = mesh.client(0);
    create_user(&admin, "eve");
    create_project(&admin, "vault", false, 3);
    let kept = Image::random(&[20 << 10]);
    let lone = Blob::random(9000);
    let keys = mesh.repository(0, "vault/keys");
    keys.push(&kept, "1").unwrap_or_else(|no| panic!("{no}"));
    keys.upload(&lone).unwrap_or_else(|no| panic!("{no}"));
    let manifest = format!("/v2/vault/keys/manifests/{}", kept.digest());
    wait::until("the edge has it", || {
        let at_edge = Repository::new(&mesh.client(edge), "vault/keys");
        at_edge.pull(kept.digest()).is_ok().then_some(())
    });
    let delete = |path: &str| must(&mesh.client(1), Method::DELETE, path, &json!({}), 200);
    delete("/api/v2.0/projects/vault/repositories/keys");
    delete("/api/v2.0/projects/vault");

    let eve = |at: usize| mesh.members()[at].anyone().basic("eve", PASSWORD);
    let project = json!({"project_name": "vault", "metadata": {"public": "false"}});
    must(&eve(1), Method::POST, "/api/v2.0/projects", &project, 201);
    let own = Image::tiny();
    let there = Repository::new(&eve(2), "vault/keys");
    there.push(&own, "mine").unwrap_or_else(|no| panic!("{no}"));
    let layers = kept.blobs.iter().chain([&lone]).map(|blob| blob.digest.clone());
    for digest in layers {
        let path = format!("/v2/vault/keys/blobs/{digest}");
        for at in 0..3 {
            for method in [Method::HEAD, Method::GET] {
                assert_eq!(status(&eve(at), method, &path), 404, "{digest} at {at}");
            }
        }
        let mount = format!("/v2/vault/other/blobs/uploads/?mount={digest}&from=vault/keys");
        assert_eq!(status(&eve(0), Method::POST, &mount), 202, "nothing is mounted");
    }
    // while the edge learns of the new project, it gives out nothing of the old one
    wait::until("the edge serves what is new", || {
        assert_ne!(status(&eve(edge), Method::GET, &manifest), 200);
        assert_ne!(status(&eve(edge), Method::GET, "/v2/vault/keys/manifests/1"), 200);
        Repository::new(&eve(edge), "vault/keys").pull("mine").is_ok().then_some(())
    });
    assert_eq!(status(&eve(edge), Method::GET, &manifest), 404);
    let log = must(&eve(0), Method::GET, "/api/v2.0/projects/vault/logs", &json!({}), 200);
    let told = log.to_string();
    assert!(told.contains("eve") && !told.contains("admin"), "{told}");
    assert!(!told.contains(kept.digest()), "{told}");
}

#[test]
fn an_upload_that_was_begun_in_a_deleted_project_ends_in_no_other_one() {
    let mesh = Formed::of(&SITES[..2], "");
    let admin = mesh.client(0);
    let blob = Blob::random(1 << 20);
    let digest = &blob.digest;
    let begin = |at: usize| {
        let ask = mesh.client(at).ask(Method::POST, "/v2/vault/keys/blobs/uploads/");
        let answer = ask.send().unwrap_or_else(|none| panic!("{none}"));
        let place = answer.header("location").expect("a place").to_owned();
        let place = place[place.find("/v2/").expect("a path")..].to_owned();
        let ask = mesh.client(at).ask(Method::PATCH, &place).body(blob.bytes.slice(..1 << 19));
        assert_eq!(ask.send().unwrap_or_else(|none| panic!("{none}")).status, 202);
        place
    };
    create_project(&admin, "vault", false, 1);
    let (here, there) = (begin(0), begin(1));
    // one that is asked for after a restart, too
    mesh.members()[1].stop(rustix::process::Signal::TERM);
    mesh.members()[1].serve();
    mesh.members()[1].wait_ready();
    let own = begin(0);
    let put = |place: &str, at: usize| {
        let ask = mesh.client(at).ask(Method::PUT, &format!("{place}?digest={digest}"));
        let ask = ask.header("content-range", &format!("{}-{}", 1 << 19, (1 << 20) - 1));
        let ask = ask.body(blob.bytes.slice(1 << 19..));
        ask.send().unwrap_or_else(|none| panic!("{none}")).status
    };
    assert_eq!(put(&own, 1), 201, "the project is the same");
    must(&admin, Method::DELETE, "/api/v2.0/projects/vault", &json!({}), 200);
    create_project(&admin, "vault", false, 1);
    for (place, at) in [(&here, 0), (&there, 0)] {
        assert_eq!(status(&mesh.client(at), Method::GET, place), 404);
        assert_eq!(put(place, at), 404);
    }
    let lost = begin(0);
    assert_eq!(put(&lost, 1), 201, "and another one can be begun");
}
