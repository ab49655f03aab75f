//! What strangers may have asked of an upstream is bounded: what it denied is not asked again at
//! once, one address has a budget, and what nobody waits for is not fetched to its end.

use std::time::Duration;

use http::Method;
use tests::http::Client;
use tests::image::{Image, digest, random_bytes};
use tests::mesh::Mesh;
use tests::proxies::{make_project, make_registry, manifest};
use tests::repository::Repository;
use tests::upstream::{Spoiling, Upstream};
use tests::{metrics, wait};

const MIB: usize = 1 << 20;

/// Asks for a blob that is nowhere, of the project `hub`.
fn ask_blob(client: &Client, digest: &str) -> tests::http::Answer {
    let client = client.clone().patient_for(Duration::from_secs(60));
    client.get(&format!("/v2/hub/app/blobs/{digest}")).unwrap_or_else(|none| panic!("{none}"))
}

#[test]
fn what_the_upstream_denied_is_asked_once_and_others_do_not_push_it_out() {
    let mesh = Mesh::up_with(3, &[("upstreams.missing_for", "1h"), ("upstreams.questions", "0")]);
    let upstream = Upstream::start();
    upstream.repository("app").push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let nothing = digest(&random_bytes(8));
    upstream.forget();
    for _ in 0..5 {
        let answer = ask_blob(&mesh.anyone(0), &nothing);
        assert_eq!(answer.status, 404, "{answer}");
        let unknown = manifest(&mesh.anyone(0), "app", "nothing");
        assert_eq!(unknown.status, 404, "{unknown}");
    }
    let asked = upstream.asked_for_content();
    let blobs = asked.iter().filter(|asked| asked.path.contains("/blobs/")).count();
    let manifests = asked.iter().filter(|asked| asked.path.contains("/manifests/")).count();
    assert_eq!((blobs, manifests), (1, 1), "{asked:?}");
}

#[test]
fn an_address_above_its_budget_is_refused_and_others_are_not() {
    let changes = [("upstreams.questions", "10"), ("upstreams.questions_per_minute", "1")];
    let (mesh, upstream) = (Mesh::up_with(3, &changes), Upstream::start());
    let image = Image::tiny();
    for name in ["app", "late"] {
        upstream.repository(name).push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    }
    let registry = make_registry(&mesh.client(0), &upstream);
    for project in ["hub", "other"] {
        make_project(&mesh.client(0), project, &registry);
    }
    let there = Repository::new(&mesh.anyone(0), "hub/app");
    there.pull("1").unwrap_or_else(|no| panic!("{no}"));
    upstream.forget();
    let answers: Vec<_> =
        (0..30).map(|_| ask_blob(&mesh.anyone(0), &digest(&random_bytes(8)))).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(answers.iter().all(|answer| matches!(answer.status, 404 | 429)), "{answers:?}");
    assert!(answers[0].status == 404 && refused.len() >= 15, "{} were refused", refused.len());
    for answer in &refused {
        let wait = answer.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
        assert!(wait.is_some_and(|wait| (1..=61).contains(&wait)), "{answer}");
        assert_eq!(answer.envelope().map(|(code, _)| code).as_deref(), Some("TOOMANYREQUESTS"));
    }
    assert!(upstream.asked_for_content().len() <= 15, "{:?}", upstream.asked_for_content());
    let counted = metrics::value(&mesh.anyone(0), "atoll_upstream_questions_refused_total");
    assert!(counted >= refused.len() as u64, "{counted}");
    // what is cached costs nothing; another project has its own budget; and the upstream is not
    // closed to clients of other nodes
    for _ in 0..20 {
        there.pull("1").unwrap_or_else(|no| panic!("what is cached: {no}"));
    }
    for (at, name) in [(0, "other/late"), (1, "hub/late")] {
        let there = Repository::new(&mesh.anyone(at), name);
        there.pull("1").unwrap_or_else(|no| panic!("{name} at {at}: {no}"));
    }
}

#[test]
fn a_blob_for_which_nobody_waits_is_not_fetched_to_its_end() {
    let (mesh, upstream) = (Mesh::up(3), Upstream::start());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let image = Image::random(&[96 * MIB]);
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(manifest(&mesh.anyone(0), "app", "1").status, 200);
    upstream.spoil(Spoiling::Slow(MIB));
    let blob = format!("blobs/{}", image.blobs[1].digest);
    let asked = mesh.anyone(0).ask(Method::GET, &format!("/v2/hub/app/{blob}"));
    let begun = asked.open().unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(begun.status, 200);
    drop(begun);
    wait::until("the nodes give the blob up", || {
        let given_up: u64 =
            (0..3).map(|at| metrics::value(&mesh.anyone(at), "atoll_flights_deserted_total")).sum();
        (given_up > 0).then_some(())
    });
    let sent = |upstream: &Upstream| -> usize {
        upstream.asked_for(&Method::GET, &blob).iter().map(|asked| asked.sent).sum()
    };
    // the door hands on a piece at a time
    wait::until("nothing more is fetched", || {
        let before = sent(&upstream);
        std::thread::sleep(Duration::from_secs(3));
        (sent(&upstream) == before).then_some(())
    });
    assert!(sent(&upstream) < 96 * MIB / 4 * 3, "{} bytes were fetched", sent(&upstream));
    // and who asks again gets it
    upstream.spoil(Spoiling::Nothing);
    let there = Repository::new(&mesh.anyone(0).patient_for(Duration::from_secs(60)), "hub/app");
    wait::until_ok("it is pulled", || there.pull("1"));
}
