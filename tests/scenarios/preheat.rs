//! A preheated image is in the requested regions before any client there asks, was fetched from its
//! upstream once, and stays when the upstream and the first node are gone.
//!
//! The order names its images as people do, is known to every node, and says what it lacks by name.

use http::Method;
use serde_json::{Value, json};
use tests::complaints::Complaints;
use tests::formed::Formed;
use tests::http::Client;
use tests::image::{Blob, INDEX, Image, MANIFEST};
use tests::mesh::{Mesh, UNHURRIED};
use tests::process;
use tests::proxies::create_proxy;
use tests::repository::{Repository, create_project};
use tests::upstream::{Manner, Upstream};
use tests::wait;

const MIB: usize = 1 << 20;
const PREHEATS: &str = "/api/atoll/v1/preheats";

/// An index of two platforms.
fn index(amd64: &Image, arm64: &Image) -> Blob {
    let child = |image: &Image, architecture: &str| {
        json!({"mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.bytes.len(),
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let children = [child(amd64, "amd64"), child(arm64, "arm64")];
    Blob::of(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).to_string())
}

/// A node in another region than node 0's, and a node in the third.
fn elsewhere(mesh: &Mesh) -> (usize, usize) {
    let region = |at: usize| &mesh.nodes()[at].region;
    assert!(
        region(0) != region(1) && region(1) != region(2) && region(0) != region(2),
        "three nodes, three regions"
    );
    (1, 2)
}

#[test]
fn what_was_preheated_outlives_its_upstream_and_the_node_that_took_the_order() {
    let changes = [&UNHURRIED[..], &[("mirrors.aliases", "{docker.io: hub}")]].concat();
    let (mesh, upstream) = (Mesh::up_with(3, &changes), Upstream::start());
    create_proxy(&mesh.client(0), "hub", "docker-registry", upstream.url(), true);
    let (amd64, arm64, unwanted) =
        (Image::random(&[8 * MIB, MIB]), Image::random(&[4 * MIB]), Image::random(&[MIB]));
    let there = upstream.repository("library/app");
    for image in [&amd64, &arm64, &unwanted] {
        there.push(image, image.digest()).unwrap_or_else(|no| panic!("{no}"));
    }
    let both = index(&amd64, &arm64);
    there.put_bytes("1", INDEX, both.bytes.clone()).unwrap_or_else(|no| panic!("{no}"));
    there.put_bytes("2", INDEX, index(&amd64, &unwanted).bytes).unwrap_or_else(|no| panic!("{no}"));
    let (near, far) = elsewhere(&mesh);
    let regions = format!("{},{}", mesh.nodes()[near].region, mesh.nodes()[far].region);
    let url = mesh.nodes()[0].url.as_str();
    let run = |more: &[&str]| {
        let data = mesh.folder().display().to_string();
        mesh.atoll(
            &[&["preheat", "--regions", &regions, "--data", &data, "--url", url], more].concat(),
        )
    };

    upstream.forget();
    let told = run(&["docker.io/library/app:1", "--platform", "linux/amd64,linux/arm64"]);
    assert!(told.success, "{told:?}");
    let last = told.out.lines().filter(|line| line.contains("done, 5 of 5 blobs")).count();
    assert_eq!(last, 2, "a line for each region says that all is there: {told:?}");
    let told = run(&["hub/library/app:2", "--platform", "linux/amd64"]);
    assert!(told.success && told.out.contains("done, 3 of 3 blobs"), "{told:?}");
    for blob in amd64.blobs.iter().chain(&arm64.blobs) {
        let asked = upstream.asked_for(&Method::GET, &format!("blobs/{}", blob.digest));
        assert!(asked.len() == 1, "the upstream was asked more than once, or never: {asked:?}");
    }
    for blob in &unwanted.blobs {
        let asked = upstream.asked_for(&Method::GET, &format!("blobs/{}", blob.digest));
        assert!(asked.is_empty(), "a platform that nobody wanted was fetched: {asked:?}");
    }

    upstream.behave(Manner::Refuse);
    mesh.kill(0);
    for at in [near, far] {
        let here = Repository::new(&mesh.anyone(at), "hub/library/app");
        let (found, bytes) = here.manifest("1").unwrap_or_else(|no| panic!("at {at}: {no}"));
        assert!(found.digest == both.digest && bytes == both.bytes, "another index at {at}");
        for image in [&amd64, &arm64] {
            here.pull(image.digest()).unwrap_or_else(|no| panic!("at {at}: {no}"));
        }
    }
}

#[test]
fn a_third_order_waits_while_two_run_and_every_node_shows_it() {
    // what the first sends is so slow that orders for 4 MiB are under way for a while
    let mesh = Formed::of(
        &[("one", "near"), ("two", "far")],
        "links: {caps: {far: 256KiB}}\njobs: {at_a_time: 2}\n",
    );
    create_project(&mesh.client(0), "lonely", true, 1);
    let image = Image::random(&[4 * MIB]);
    mesh.repository(0, "lonely/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let order = json!({"images": ["lonely/app:1"], "regions": ["far"]});
    let place = |at: usize| {
        let taken = mesh.client(at).send_json(Method::POST, PREHEATS, &order);
        let taken = taken.unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(taken.status, 202, "{taken}");
        taken.header("location").unwrap_or_else(|| panic!("{taken}")).to_owned()
    };
    let places = [place(0), place(1), place(0)];
    let states = |at: usize| {
        let state =
            |place: &String| mesh.client(at).get(place).map(|told| told.json()["state"].clone());
        places
            .iter()
            .map(|place| state(place).unwrap_or_else(|none| panic!("{none}")))
            .collect::<Vec<_>>()
    };
    wait::until("two have begun", || {
        let running = states(1).iter().filter(|state| **state == "fetching").count();
        (running == 2).then_some(())
    });
    assert!(states(0).contains(&json!("waiting")), "{:?}", states(0));
    wait::until("all are done", || states(1).iter().all(|state| *state == "done").then_some(()));
}

#[test]
fn a_preheat_that_is_stopped_begins_with_nothing_more() {
    let mesh = Formed::of(&[("one", "near"), ("two", "far")], "links: {caps: {far: 256KiB}}");
    create_project(&mesh.client(0), "lonely", true, 1);
    let image = Image::random(&[MIB / 2; 12]);
    mesh.repository(0, "lonely/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let order = json!({"images": ["lonely/app:1"], "regions": ["far"]});
    let taken = mesh
        .client(0)
        .send_json(Method::POST, PREHEATS, &order)
        .unwrap_or_else(|none| panic!("{none}"));
    let place = taken.header("location").unwrap_or_else(|| panic!("{taken}")).to_owned();
    let id = place.rsplit('/').next().expect("a path has an end");
    let look = |at: usize| mesh.client(at).get(&place).unwrap_or_else(|none| panic!("{none}"));
    wait::until("it has begun", || (look(0).json()["state"] == "fetching").then_some(()));
    let stop = |id: &str| {
        let mut command = mesh.members()[0].atoll("preheat");
        let url = format!("http://{}", mesh.members()[0].place().http);
        command
            .args(["--stop", id, "--url", &url, "--password-file"])
            .arg(mesh.members()[0].data().join("admin-password"));
        process::finish(&mut command)
    };
    let stopped = stop(id);
    assert!(stopped.success && stopped.out.contains("is stopped"), "{stopped:?}");
    let shown = wait::until("what was on its way has come", || {
        let shown = look(0).json();
        (shown["state"] != "fetching").then_some(shown)
    });
    let region = &shown["images"][0]["regions"][0];
    assert_eq!(
        (&shown["state"], &region["state"]),
        (&json!("stopped"), &json!("stopped")),
        "{shown}"
    );
    let of = |name: &str| region["blobs"][name].as_u64().unwrap_or_else(|| panic!("{shown}"));
    assert!(of("held") < of("wanted") && of("wanted") == 13, "{shown}");
    let again =
        mesh.client(0).ask(Method::DELETE, &place).send().unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(again.status, 202, "it may be said twice: {again}");
    let unknown = stop("0");
    assert!(!unknown.success && unknown.err.contains("no such preheat"), "{unknown:?}");
}

#[test]
fn our_own_projects_can_be_preheated_and_what_is_not_there_is_named() {
    let (mesh, wrong) = (Mesh::up(3), Complaints::default());
    mesh.create_project("lonely", false, 1);
    let image = Image::random(&[2 * MIB]);
    mesh.repository(0, "lonely/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let (near, far) = elsewhere(&mesh);
    let region = |at: usize| mesh.nodes()[at].region.clone();
    let data = mesh.folder().display().to_string();
    let run = |regions: &str, image: &str| {
        mesh.atoll(&["preheat", "--regions", regions, "--data", &data, image])
    };

    let all = [region(near), region(far)].join(",");
    let told = run(&all, &format!("lonely/app@{}", image.digest()));
    assert!(told.success, "{told:?}");
    for (regions, image, says) in [
        ("mars", "lonely/app:1", vec!["no region 'mars'".to_owned(), region(near)]),
        (&*all, "nowhere/app:1", vec!["no project nowhere".to_owned(), "lonely".to_owned()]),
        (&*all, "ghcr.io/x/y:1", vec!["no project of this mesh caches ghcr.io".to_owned()]),
        (&*all, "lonely/app:2", vec!["has no tag 2; it has 1".to_owned()]),
        (&*all, "lonely/other:1", vec!["there is no repository lonely/other".to_owned()]),
        (&*all, "lonely/app:-", vec!["a tag is".to_owned()]),
    ] {
        let told = run(regions, image);
        let clear = !told.success && says.iter().all(|word| told.err.contains(word));
        wrong.unless(clear, || format!("{image} to {regions}: {told:?}"));
    }

    // the order is the mesh's, and for administrators
    let order = json!({"images": ["lonely/app:1"], "regions": [region(near)]});
    let taken = mesh
        .client(near)
        .send_json(Method::POST, PREHEATS, &order)
        .unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(taken.status, 202, "{taken}");
    let place = taken.header("location").expect("an order has a location").to_owned();
    let listed = |client: &Client| {
        let all = client.get(PREHEATS).unwrap_or_else(|none| panic!("{none}")).json();
        all.as_array().map_or(0, Vec::len)
    };
    let before = listed(&mesh.client(far));
    assert!(before >= 2, "the orders of before and this one, at another node, too: {before}");
    let shown: Value = wait::until("the order is done", || {
        let shown = mesh.client(near).get(&place).ok()?.json();
        (shown["state"] == "done").then_some(shown)
    });
    let progress = &shown["images"][0]["regions"][0];
    wrong.unless(progress["bytes"]["held"] == progress["bytes"]["wanted"], || format!("{shown}"));
    wrong.unless(shown["images"][0]["digest"] == image.digest(), || format!("{shown}"));
    let there = mesh.client(far).get(&place).unwrap_or_else(|none| panic!("{none}")).json();
    wrong.unless(there["images"] == shown["images"], || format!("another node says {there}"));
    for (what, answer) in [
        ("a list for anyone", mesh.anyone(near).get(PREHEATS)),
        ("an order by anyone", mesh.anyone(near).send_json(Method::POST, PREHEATS, &order)),
    ] {
        wrong.unless_refused(what, answer, &[401], &["UNAUTHORIZED"]);
    }
    for order in [
        json!({"images": [], "regions": [region(near)]}),
        json!({"images": ["lonely/app:1"]}),
        json!([]),
    ] {
        let answer = mesh.client(near).send_json(Method::POST, PREHEATS, &order);
        wrong.unless_refused(&format!("{order}"), answer, &[400], &["BAD_REQUEST"]);
    }

    // durability 1 left it in one region: now it is in three
    mesh.kill(0);
    for at in [near, far] {
        mesh.repository(at, "lonely/app")
            .pull(image.digest())
            .unwrap_or_else(|no| panic!("at {at}: {no}"));
    }
}
