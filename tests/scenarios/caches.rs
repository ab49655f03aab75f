//! What proxy projects cache is each node's own: it moves no ledger, it is bounded, nodes give it to
//! each other, and it is gone with its project.
//!
//! A mesh of earlier builds has recorded it in its ledger. From there it is moved without an outage,
//! through crashes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::complaints::Complaints;
use tests::formed::Formed;
use tests::http::Client;
use tests::image::{Image, MANIFEST};
use tests::mesh::Mesh;
use tests::proxies::{
    ALWAYS_ASK, PROJECTS, REGISTRIES, create_proxy, make_project, make_registry, manifest, warned,
};
use tests::repository::Repository;
use tests::upstream::{Manner, Upstream};
use tests::{metrics, process, wait};

/// What the ledger has, as a node sees it: the entries that it has applied, and the fingerprint of
/// its records.
fn ledger(status: &Value) -> (u64, Value) {
    let applied = status["ledger"]["applied"].as_u64();
    (
        applied.unwrap_or_else(|| panic!("{status}")),
        status["ledger"]["records"]["fingerprint"].clone(),
    )
}

#[test]
fn a_flood_of_manifests_moves_nothing_but_caches() {
    // without the summaries of pulls, which each node writes every ten seconds
    let changes = [("cache.manifests", "50"), ("upstreams.questions", "0"), ("audit.pulls", "0")];
    let (mesh, upstream, wrong) =
        (Mesh::up_with(3, &changes), Upstream::start(), Complaints::default());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let (here, image) = (upstream.repository("app"), Image::tiny());
    here.push(&image, "tiny").unwrap_or_else(|no| panic!("{no}"));
    let mut told: Value = serde_json::from_slice(&image.manifest.bytes).expect("JSON");
    let digests: Vec<String> = (0..200)
        .map(|n| {
            told["annotations"] = json!({"number": n.to_string()});
            let bytes = told.to_string();
            here.put_bytes(&format!("t{n}"), MANIFEST, bytes.clone().into())
                .unwrap_or_else(|no| panic!("{n}: {no}"));
            tests::image::digest(bytes.as_bytes())
        })
        .collect();
    let settled = wait::until("the ledger is at rest", || {
        let before = ledger(&mesh.status(0).ok()?);
        std::thread::sleep(std::time::Duration::from_secs(1));
        (ledger(&mesh.status(0).ok()?) == before).then_some(before)
    });
    for (n, digest) in digests.iter().enumerate() {
        let reference = if n % 2 == 0 { format!("t{n}") } else { digest.clone() };
        let answer = manifest(&mesh.anyone(n % 3), "app", &reference);
        let right = answer.status == 200 && tests::image::digest(&answer.body) == *digest;
        wrong.unless(right, || format!("{reference}: {answer}"));
    }
    for at in 0..3 {
        let status = mesh.status(at).unwrap_or_else(|no| panic!("{no}"));
        let now = ledger(&status);
        wrong.unless(now == settled, || format!("at {at}: {settled:?} became {now:?}"));
        let cached = metrics::value(&mesh.anyone(at), "atoll_cache_manifests");
        wrong.unless((1..=50).contains(&cached), || format!("at {at}: {cached} are cached"));
    }
    let primary = mesh.anyone(mesh.primary_of("hub"));
    let evicted = metrics::value(&primary, "atoll_cache_manifests_evicted_total");
    wrong.unless(evicted >= 100, || format!("the primary has evicted {evicted}"));
    // what was evicted is fetched again, and its blobs are served
    for at in 0..3 {
        let there = Repository::new(&mesh.anyone(at), "hub/app");
        there.pull("t0").unwrap_or_else(|no| panic!("at {at}: {no}"));
    }
}

#[test]
fn what_one_node_has_cached_all_nodes_serve_when_the_upstream_is_gone() {
    let (mesh, upstream, wrong) =
        (Mesh::up_with(3, &ALWAYS_ASK), Upstream::start(), Complaints::default());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let primary = mesh.primary_of("hub");
    let [first, last] = [(primary + 1) % 3, (primary + 2) % 3];
    let (image, older, later) = (Image::tiny(), Image::tiny(), Image::tiny());
    let here = upstream.repository("app");
    for (image, tag) in [(&image, "1"), (&older, "moves")] {
        here.push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    Repository::new(&mesh.anyone(last), "hub/app")
        .pull("moves")
        .unwrap_or_else(|no| panic!("{no}"));
    here.push(&later, "moves").unwrap_or_else(|no| panic!("{no}"));
    for tag in ["1", "moves"] {
        let there = Repository::new(&mesh.anyone(first), "hub/app");
        there.pull(tag).unwrap_or_else(|no| panic!("{tag}: {no}"));
    }
    upstream.behave(Manner::Refuse);
    mesh.kill(primary);
    // `last` has seen neither the image nor where the tag has moved. It learns it from `first`
    let client = mesh.anyone(last);
    for blob in &image.blobs {
        wait::until_ok("a blob whose manifest another node has", || {
            let path = format!("/v2/hub/app/blobs/{}", blob.digest);
            let answer = client.get(&path).map_err(|none| none.to_string())?;
            if answer.status == 200 && answer.body == blob.bytes {
                return Ok(());
            }
            Err(answer.to_string())
        });
    }
    let serves = |at: usize, what: &str| {
        for (tag, image) in [("1", &image), ("moves", &later)] {
            for reference in [tag, image.digest()] {
                let found = wait::until_ok(&format!("{reference} {what}, at {at}"), || {
                    Repository::new(&mesh.anyone(at), "hub/app").pull(reference)
                });
                wrong.unless(found.digest == image.digest(), || {
                    format!("{what}, at {at}: {reference} is {}", found.digest)
                });
            }
            let answer = manifest(&mesh.anyone(at), "app", tag);
            wrong.unless(warned(&answer), || format!("{what}, at {at}: {:?}", answer.headers));
        }
    };
    for at in [last, first] {
        serves(at, "without the upstream and the primary");
    }
    mesh.kill(first);
    mesh.kill(last);
    for at in 0..3 {
        mesh.start(at);
    }
    for at in 0..3 {
        mesh.wait_ready(at);
        serves(at, "after a restart of everything");
        let tags = mesh.anyone(at).get("/v2/hub/app/tags/list");
        let tags = tags.unwrap_or_else(|none| panic!("{none}"));
        wrong.unless(tags.json()["tags"] == json!(["1", "moves"]), || format!("at {at}: {tags}"));
        let all = mesh.client(at).get("/v2/_catalog").unwrap_or_else(|none| panic!("{none}"));
        wrong.unless(all.json()["repositories"] == json!(["hub/app"]), || format!("{all}"));
    }
}

#[test]
fn what_is_cached_is_gone_with_its_project_its_registry_and_when_it_is_deleted() {
    let (mesh, upstream, other) =
        (Mesh::up_with(3, &ALWAYS_ASK), Upstream::start(), Upstream::start());
    let wrong = Complaints::default();
    let registry = make_registry(&mesh.client(0), &upstream);
    make_project(&mesh.client(0), "hub", &registry);
    let (image, kept) = (Image::tiny(), Image::tiny());
    for (image, tag) in [(&image, "1"), (&kept, "kept")] {
        upstream.repository("app").push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    let pull_everywhere = || {
        for at in 0..3 {
            for tag in ["1", "kept"] {
                let there = Repository::new(&mesh.anyone(at), "hub/app");
                wait::until_ok("it is pulled", || there.pull(tag));
            }
        }
    };
    let gone = |what: &str, references: &[&str]| {
        for at in 0..3 {
            for reference in references {
                let answer = manifest(&mesh.anyone(at), "app", reference);
                wrong.unless_refused(what, Ok(answer), &[404, 503], &[]);
            }
        }
    };
    let ask = |method: Method, path: &str, status: u16| {
        let answer = mesh.client(1).ask(method, path).send();
        let answer = answer.unwrap_or_else(|none| panic!("{path}: {none}"));
        assert_eq!(answer.status, status, "{path}: {answer}");
    };
    pull_everywhere();
    upstream.behave(Manner::Refuse);
    let path = |reference: &str| format!("/v2/hub/app/manifests/{reference}");
    ask(Method::DELETE, &path(image.digest()), 202);
    ask(Method::DELETE, &path(image.digest()), 404);
    gone("a manifest that was deleted", &["1", image.digest()]);
    for at in 0..3 {
        let answer = manifest(&mesh.anyone(at), "app", "kept");
        wrong.unless(answer.body == kept.manifest.bytes, || format!("at {at}: {answer}"));
    }

    upstream.behave(Manner::Honest);
    pull_everywhere();
    ask(Method::DELETE, &format!("{PROJECTS}/hub"), 200);
    make_project(&mesh.client(0), "hub", &registry);
    upstream.behave(Manner::Refuse);
    let all = ["1", image.digest(), "kept", kept.digest()];
    gone("what the project of this name had", &all);

    upstream.behave(Manner::Honest);
    pull_everywhere();
    // and what nobody pulls any more, of a project whose registry stays
    create_proxy(&mesh.client(0), "brief", "docker-registry", other.url(), true);
    let unused = json!({"metadata": {"proxy_cache_unused_after": "1s"}});
    for name in ["hub", "brief"] {
        let answer = mesh.client(0).send_json(Method::PUT, &format!("{PROJECTS}/{name}"), &unused);
        assert_eq!(answer.unwrap_or_else(|none| panic!("{none}")).status, 200);
    }
    let pushed = mesh.client(0).send_json(Method::PUT, &format!("{PROJECTS}/demo"), &unused);
    assert_eq!(
        pushed.unwrap_or_else(|none| panic!("{none}")).status,
        400,
        "it would not come back"
    );
    let passing = Image::tiny();
    other.repository("job").push(&passing, "1").unwrap_or_else(|no| panic!("{no}"));
    let there = Repository::new(&mesh.anyone(2), "brief/job");
    wait::until_ok("it is pulled", || there.pull("1"));
    let moved = json!({"url": other.url()});
    let path = format!("{REGISTRIES}/{registry}");
    let answer = mesh.client(0).send_json(Method::PUT, &path, &moved);
    assert_eq!(answer.unwrap_or_else(|none| panic!("{none}")).status, 200);
    gone("what another registry had", &all);
    wait::until("no node has any of it any more", || {
        let left = |at, of: &str| metrics::value(&mesh.anyone(at), of);
        let none = |at| left(at, "atoll_cache_manifests") + left(at, "atoll_cache_blobs") == 0;
        (0..3).all(none).then_some(())
    });
    let again = there.pull("1").unwrap_or_else(|no| panic!("it is fetched anew: {no}"));
    assert_eq!(again.digest, passing.digest());
}

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];

/// Which projects' content is still in the ledger.
fn moving(client: &Client) -> Option<Value> {
    let told = client.get("/api/atoll/v1/level").ok().filter(|answer| answer.status == 200)?;
    Some(told.json()["moving"].clone())
}

#[test]
fn what_earlier_builds_have_recorded_is_moved_without_an_outage_and_through_crashes() {
    let more = "upstreams:\n  allow_loopback: true\n  fresh_for: 24h\n";
    let mut mesh = Formed::at_level(&THREE, more, 3);
    let edge = mesh.add_edge("edge", "us-east-1", "");
    let (upstream, wrong) = (Upstream::start(), Complaints::default());
    create_proxy(&mesh.client(0), "hub", "docker-registry", upstream.url(), true);
    let images: Vec<(String, Image)> = (0..40).map(|n| (format!("t{n}"), Image::tiny())).collect();
    for (n, (tag, image)) in images.iter().enumerate() {
        let name = format!("app{}", n % 3);
        upstream.repository(&name).push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    let pull = |at: usize, n: usize| {
        let (tag, image) = &images[n];
        let there = Repository::new(&mesh.members()[at].anyone(), &format!("hub/app{}", n % 3));
        let found = there.pull(tag).map_err(|no| format!("{tag} at {at}: {no}"))?;
        if found.digest == image.digest() { Ok(()) } else { Err(format!("{tag} at {at}: another")) }
    };
    for n in 0..images.len() {
        pull(n % 3, n).unwrap_or_else(|no| panic!("{no}"));
    }
    assert_eq!(metrics::value(&mesh.members()[0].anyone(), "atoll_cache_manifests"), 0);
    let status = mesh.status(0).unwrap_or_else(|no| panic!("{no}"));
    let primary = status["projects"].as_array().into_iter().flatten();
    let primary = primary.filter(|project| project["name"] == "hub");
    let primary = primary.map(|project| project["primary"].clone()).next();
    let primary = THREE.iter().position(|(name, _)| Some(json!(name)) == primary).expect("hub's");
    let [leaves, reads] = [primary, (primary + 1) % 3];

    // a node that is no primary is read all the time, while the primary dies in the middle
    upstream.behave(Manner::Refuse);
    let (over, pulls) = (AtomicBool::new(false), [reads, edge].map(|_| AtomicUsize::new(0)));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|beside| {
        let (over, failed) = (&over, &failed);
        for (at, pulls) in [reads, edge].into_iter().zip(&pulls) {
            let pull = &pull;
            beside.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let n = pulls.fetch_add(1, Ordering::Relaxed) % 40;
                    if let Err(no) = pull(at, n) {
                        failed.lock().expect("a lock").push(no);
                    }
                }
            });
        }
        // until then some images are at the primary alone, and the upstream refuses
        wait::until("each has pulled each", || {
            pulls.iter().all(|pulls| pulls.load(Ordering::Relaxed) > images.len()).then_some(())
        });
        let mut raise = mesh.members()[reads].atoll("level");
        let password = mesh.folder().join("password");
        std::fs::write(&password, mesh.password()).expect("a file");
        let url = format!("http://{}", mesh.members()[reads].place().http);
        let arguments = ["--raise", "--url", &url, "--password-file"];
        let told = process::succeed(raise.args(arguments).arg(&password));
        let level = format!("feature level {}", rules::ledger::level::Level::NEWEST.0);
        assert!(told.contains(&level), "{told}");
        mesh.members()[leaves].stop(Signal::KILL);
        mesh.members()[leaves].serve();
        mesh.members()[leaves].wait_ready();
        wait::until("the ledger has no cached content", || {
            (moving(&mesh.client(reads))? == json!([])).then_some(())
        });
        over.store(true, Ordering::Relaxed);
    });
    let failed = failed.into_inner().expect("a lock");
    wrong.unless(failed.is_empty(), || format!("while it was moved: {failed:?}"));
    for at in [0, 1, 2, edge] {
        for n in 0..images.len() {
            wait::until_ok("it is served from the caches", || pull(at, n));
        }
    }
    for at in 0..3 {
        let cached = metrics::value(&mesh.members()[at].anyone(), "atoll_cache_manifests");
        wrong.unless(cached == 40, || format!("at {at}: {cached} are cached"));
        mesh.members()[at].stop(Signal::KILL);
    }
    for at in 0..3 {
        mesh.members()[at].serve();
    }
    for at in 0..3 {
        mesh.members()[at].wait_ready();
        for n in 0..images.len() {
            wait::until_ok("it is served after a restart of everything", || pull(at, n));
        }
    }
    // and what comes now is not recorded
    upstream.behave(Manner::Honest);
    let (name, image) = ("app0", Image::tiny());
    upstream.repository(name).push(&image, "late").unwrap_or_else(|no| panic!("{no}"));
    wait::until_ok("what comes now is cached", || {
        Repository::new(&mesh.members()[0].anyone(), "hub/app0").pull("late")
    });
    assert_eq!(moving(&mesh.client(0)), Some(json!([])));
}
