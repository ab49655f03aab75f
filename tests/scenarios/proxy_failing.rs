//! An upstream that is refused, broken, out of patience or silent takes away nothing that is here:
//! it is served on with a `Warning`, and what is not here is answered soon.
//!
//! A body that breaks off is gone on with, a limit that one node hears is kept by all, what is gone
//! upstream stays if the project says so. And no node of the mesh is needed for it: without the
//! project's primary the others ask the upstream themselves, and a primary needs no majority for it.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tests::complaints::Complaints;
use tests::http::{Answer, Client};
use tests::image::Image;
use tests::mesh::{Mesh, UNHURRIED};
use tests::proxies::{
    ALWAYS_ASK, PROJECTS, ask_manifest, make, make_project, make_registry, manifest, warned,
};
use tests::repository::Repository;
use tests::upstream::{Manner, Upstream};
use tests::{rounds, wait};

const MIB: usize = 1 << 20;
/// No answer about an upstream that fails may take longer: ten seconds are the promise, the rest is
/// for a busy machine.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_failing_upstream_takes_away_nothing_that_is_here() {
    let (mesh, upstream, wrong) =
        (Mesh::up_with(6, &ALWAYS_ASK), Upstream::start(), Complaints::default());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let primary = mesh.primary_of("hub");
    let elsewhere = (0..6)
        .find(|at| mesh.nodes()[*at].region != mesh.nodes()[primary].region)
        .expect("three regions");
    let manners =
        [Manner::Refuse, Manner::Answer(500), Manner::Answer(429), Manner::Silent, Manner::Page];
    for (number, manner) in manners.into_iter().enumerate() {
        let (kept, moved, known, absent) =
            (Image::tiny(), Image::tiny(), Image::tiny(), Image::tiny());
        let name = format!("failing-{number}");
        let here = upstream.repository(&name);
        for (image, tag) in [(&kept, "latest"), (&known, "known"), (&absent, "absent")] {
            here.push(image, tag).unwrap_or_else(|no| panic!("{no}"));
        }
        for at in [primary, elsewhere] {
            let there = Repository::new(&mesh.anyone(at), &format!("hub/{name}"));
            there
                .pull("latest")
                .and_then(|_| there.resolve("known"))
                .unwrap_or_else(|no| panic!("at {at}: {no}"));
        }
        here.push(&moved, "latest").unwrap_or_else(|no| panic!("{no}"));

        upstream.behave(manner);
        for at in [elsewhere, primary] {
            let (client, what) =
                (mesh.anyone(at).patient_for(SOON), format!("{manner:?}, at {at}"));
            let there = Repository::new(&client, &format!("hub/{name}"));
            for reference in ["latest", "known"] {
                let image = if reference == "known" { &known } else { &kept };
                match ask_manifest(&client, &name, reference).send() {
                    Err(none) => wrong.add(format!("{what}, {reference}: {none}")),
                    Ok(answer) => {
                        wrong.unless(answer.body == image.manifest.bytes, || {
                            format!("{what}, {reference}: {answer}")
                        });
                        wrong.unless(warned(&answer), || {
                            format!("{what}, {reference}: no warning: {:?}", answer.headers)
                        });
                    }
                }
            }
            let pulled = there.pull(kept.digest());
            wrong.unless(pulled.is_ok(), || {
                format!("{what}, by digest: {}", pulled.expect_err("it is not ok"))
            });
            let absent = ask_manifest(&client, &name, "absent").send();
            wrong.unless_refused(&format!("{what}, what is not here"), absent, &[404, 503], &[]);
            let blob = client.get(&there.path(&format!("blobs/{}", known.blobs[1].digest)));
            wrong.unless_refused(&format!("{what}, a blob that is known"), blob, &[503], &[]);
        }

        upstream.behave(Manner::Honest);
        for at in 0..6 {
            wait::until_ok("the tag is fresh again", || {
                let answer = manifest(&mesh.anyone(at), &name, "latest");
                let fresh = answer.body == moved.manifest.bytes && !warned(&answer);
                if fresh {
                    Ok(())
                } else {
                    Err(format!("{manner:?}, at {at}: {answer}, {:?}", answer.headers))
                }
            });
            let there = Repository::new(&mesh.anyone(at), &format!("hub/{name}"));
            for tag in ["latest", "known", "absent"] {
                wait::until_ok("everything can be pulled again", || there.pull(tag));
            }
        }
    }
}

#[test]
fn an_upstream_that_breaks_off_is_asked_for_the_rest() {
    let (mesh, upstream) = (Mesh::up_with(3, &UNHURRIED), Upstream::start());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let image = Image::random(&[8 * MIB, 8 * MIB]);
    let (torn, lost) = (&image.blobs[1], &image.blobs[2]);
    upstream.repository("torn").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    Repository::new(&mesh.anyone(1), "hub/torn").resolve("1").unwrap_or_else(|no| panic!("{no}"));
    upstream.cut(3 * MIB, Manner::Honest);
    Repository::new(&mesh.anyone(1), "hub/torn").read_from(torn, 0, true);
    let asked = upstream.asked_for(&Method::GET, &format!("blobs/{}", torn.digest));
    assert_eq!(asked.len(), 2, "{asked:?}");
    let from = asked[1]
        .range
        .as_deref()
        .and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    assert!(
        from.is_some_and(|from: usize| from > 0 && from <= 3 * MIB),
        "not from where it broke off: {asked:?}"
    );

    // when no node has the rest, the client must see that the answer is incomplete
    upstream.cut(3 * MIB, Manner::Answer(500));
    let client = mesh.anyone(2).patient_for(Duration::from_secs(120));
    let coming = client.ask(Method::GET, &format!("/v2/hub/torn/blobs/{}", lost.digest)).open();
    match coming.unwrap_or_else(|none| panic!("{none}")) {
        coming if coming.status == 200 => {
            let broken = coming.rest_is(&lost.bytes).expect_err("the upstream never sent the rest");
            assert!(
                !broken.contains("wrong bytes") && !broken.contains("no whole answer"),
                "{broken}"
            );
        }
        coming => assert_eq!(coming.status, 503, "{:?}", coming.headers),
    }
    upstream.behave(Manner::Honest);
    for at in 0..3 {
        wait::until_ok("all of it is served again", || {
            Repository::new(&mesh.anyone(at), "hub/torn").pull("1")
        });
    }
}

#[test]
fn an_upstream_that_is_slower_than_its_clients_are_patient_is_cached_in_the_end() {
    let (mesh, upstream) = (Mesh::up(3), Upstream::start());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let image = Image::tiny();
    upstream.repository("slow").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    upstream.think(Duration::from_secs(4));
    for at in 0..3 {
        let there = Repository::new(&mesh.anyone(at).patient_for(SOON), "hub/slow");
        let found = wait::until_ok("what was asked for is there", || there.pull("1"));
        assert_eq!(found.digest, image.digest());
    }
}

#[test]
fn what_is_gone_upstream_is_gone_here_unless_the_project_keeps_it() {
    let (mesh, upstream) = (Mesh::up_with(3, &ALWAYS_ASK), Upstream::start());
    let image = Image::tiny();
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let id = make_registry(&mesh.client(0), &upstream);
    for (name, keep) in [("keeps", "true"), ("follows", "false")] {
        let what = json!({"project_name": name, "registry_id": id,
            "metadata": {"public": "true", "proxy_cache_local_on_not_found": keep}});
        make(&mesh.client(0), PROJECTS, &what);
        Repository::new(&mesh.anyone(0), &format!("{name}/app"))
            .pull("1")
            .unwrap_or_else(|no| panic!("{no}"));
    }
    upstream.behave(Manner::Answer(404));
    for at in 0..3 {
        let kept = any_answer(&mesh.anyone(at), "/v2/keeps/app/manifests/1");
        assert!(kept.status == 200 && warned(&kept), "at {at}: {kept}");
        let followed = any_answer(&mesh.anyone(at), "/v2/follows/app/manifests/1");
        assert_eq!(followed.status, 404, "at {at}: {followed}");
    }
}

#[test]
fn what_an_upstream_denies_is_not_there_unless_it_is_cached() {
    let (mesh, upstream) = (
        Mesh::up_with(3, &[("upstreams.fresh_for", "0s"), ("upstreams.missing_for", "1h")]),
        Upstream::start(),
    );
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let image = Image::tiny();
    for tag in ["kept", "absent"] {
        upstream.repository("app").push(&image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    Repository::new(&mesh.anyone(0), "hub/app").pull("kept").unwrap_or_else(|no| panic!("{no}"));
    for (number, denial) in [401, 403].into_iter().enumerate() {
        upstream.behave(Manner::Answer(denial));
        for at in 0..3 {
            let kept = manifest(&mesh.anyone(at), "app", "kept");
            assert!(kept.body == image.manifest.bytes && warned(&kept), "{denial} at {at}: {kept}");
            let absent = manifest(&mesh.anyone(at), &format!("absent-{number}"), "1");
            assert_eq!(absent.status, 404, "{denial} at {at}: {absent}");
            assert!(
                absent.to_string().contains("credential may not see it"),
                "{denial} at {at}: {absent}"
            );
        }
        let asked = upstream.asked_for(&Method::HEAD, &format!("absent-{number}/manifests/1"));
        assert_eq!(asked.len(), 1, "{denial}: it was not remembered: {asked:?}");
    }
    upstream.behave(Manner::Honest);
}

#[test]
fn what_an_upstream_has_and_no_cache_can_keep_is_refused_for_good_and_in_words() {
    let (mesh, upstream) = (
        Mesh::up_with(3, &[("upstreams.fresh_for", "0s"), ("upstreams.missing_for", "1h")]),
        Upstream::start(),
    );
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    upstream.repository("app").push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    upstream.behave(Manner::Schema1);
    for at in 0..3 {
        let refused = manifest(&mesh.anyone(at), "app", "1");
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (404, None),
            "at {at}: {refused}"
        );
        assert!(
            refused.to_string().contains("manifest.v1+prettyjws"),
            "at {at}: it does not say what came: {refused}"
        );
    }
    // an answer that no registry means so is no verdict
    upstream.behave(Manner::Page);
    let sick = manifest(&mesh.anyone(0), "app", "other");
    assert_eq!((sick.status, sick.header("retry-after")), (503, Some("1")), "{sick}");
}

#[test]
fn a_layer_that_another_registry_gave_is_believed_by_its_bytes_where_a_head_denies_it() {
    let mesh = Mesh::up_with(3, &UNHURRIED);
    let (first, second) = (Upstream::start(), Upstream::start());
    for (name, upstream) in [("one", &first), ("two", &second)] {
        tests::proxies::create_proxy(
            &mesh.client(0),
            name,
            "docker-registry",
            upstream.url(),
            true,
        );
    }
    let image = Image::random(&[3 * MIB]);
    for upstream in [&first, &second] {
        upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    }
    let secret = Image::tiny();
    first.repository("secret").push(&secret, "1").unwrap_or_else(|no| panic!("{no}"));
    for (name, repository) in [("one/app", "app"), ("one/secret", "secret")] {
        Repository::new(&mesh.anyone(0), name)
            .pull("1")
            .unwrap_or_else(|no| panic!("{repository}: {no}"));
    }
    second.behave(Manner::DeniesBlobs);
    for at in 0..3 {
        let there =
            Repository::new(&mesh.anyone(at).patient_for(Duration::from_secs(60)), "two/app");
        wait::until_ok("the image is pulled from the second registry", || there.pull("1"));
        // what the second registry does not give is not served because the first one gave it
        let theirs = there.client().get(&there.path(&format!("blobs/{}", secret.blobs[1].digest)));
        let theirs = theirs.unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(theirs.status, 404, "at {at}: {theirs}");
    }
}

#[test]
fn a_limit_that_one_node_hears_is_kept_by_all_of_them() {
    let (mesh, upstream) = (Mesh::up_with(3, &ALWAYS_ASK), Upstream::start());
    let image = Image::tiny();
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let id = make_registry(&mesh.client(0), &upstream);
    // every project has a primary of its own, so that each node asks the upstream itself
    let names: Vec<String> = (0..6).map(|n| format!("hub-{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        make_project(&mesh.client(n % 3), name, &id);
    }
    let primaries: std::collections::BTreeSet<usize> =
        names.iter().map(|name| mesh.primary_of(name)).collect();
    assert!(primaries.len() > 1, "one node is primary of every project: {primaries:?}");
    upstream.behave(Manner::Answer(503));
    let first = any_answer(&mesh.anyone(0), "/v2/hub-0/app/manifests/1");
    assert_eq!(first.status, 503, "{first}");
    upstream.behave(Manner::Answer(429));
    // the door says `Retry-After: 1`: within that second no other request may come
    wait::until("a node has heard of the limit and told the others, and none of them asks", || {
        upstream.forget();
        let limited = any_answer(&mesh.anyone(0), "/v2/hub-0/app/manifests/1");
        assert_eq!(limited.status, 503, "{limited}");
        if upstream.asked_for_content().is_empty() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(150));
        upstream.forget();
        for name in &names[1..] {
            let other = any_answer(&mesh.anyone(1), &format!("/v2/{name}/app/manifests/1"));
            assert_eq!(other.status, 503, "{other}");
        }
        upstream.asked_for_content().is_empty().then_some(())
    });
    // the node that heard it tells people, and all nodes name the upstream
    let heard = (0..3).filter(|at| {
        let status = mesh.status(*at).unwrap_or_else(|none| panic!("{none}"));
        let told = &status["upstreams"][0];
        assert!(
            told["url"] == upstream.url() && told["paused_seconds"].is_u64(),
            "at {at}: {}",
            status["upstreams"]
        );
        let counted = any_answer(&mesh.anyone(*at), "/metrics");
        let host = upstream.url().trim_start_matches("http://").to_owned();
        let label = format!("atoll_upstream_requests_total{{registry=\"{host}\",status=\"429\"}}");
        let why = told["last_error"]["message"].as_str().unwrap_or_default();
        why.contains("limits requests") && String::from_utf8_lossy(&counted.body).contains(&label)
    });
    assert!(heard.count() > 0, "no node tells of the limit");
    upstream.behave(Manner::Honest);
    wait::until("the upstream is asked again when its time is over", || {
        Repository::new(&mesh.anyone(2), "hub-3/app").pull("1").ok()
    });
}

#[test]
fn without_the_primary_the_others_ask_the_upstream_themselves() {
    let (mesh, upstream) = (Mesh::up(6), Upstream::start());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    for round in 0..rounds(5) {
        let victim = mesh.primary_of("hub");
        let name = format!("round-{round}");
        let (kept, lonely, cold) = (Image::tiny(), Image::random(&[MIB]), Image::random(&[MIB]));
        for (image, tag) in [(&kept, "kept"), (&lonely, "lonely"), (&cold, "cold")] {
            upstream.repository(&name).push(image, tag).unwrap_or_else(|no| panic!("{no}"));
        }
        let at =
            |at: usize| Repository::new(&mesh.anyone(at).patient_for(SOON), &format!("hub/{name}"));
        // on a busy machine, content that was never requested may take longer than a client may
        // wait
        let pulled = |node: usize, tag: &str| {
            wait::until_ok(&format!("{tag} is pulled at {node}"), || at(node).pull(tag))
        };
        for node in 0..6 {
            pulled(node, "kept");
        }
        pulled(victim, "lonely");
        mesh.kill(victim);
        // at once, while it still counts as alive, and again when another node is primary
        for time in ["at once", "after that"] {
            for node in (0..6).filter(|node| *node != victim) {
                for (image, tag) in [(&kept, "kept"), (&cold, "cold"), (&lonely, "lonely")] {
                    for reference in [tag, image.digest()] {
                        let found = at(node).pull(reference);
                        let found = found.unwrap_or_else(|no| {
                            panic!("round {round}, {time}: {tag} at {node}: {no}")
                        });
                        assert_eq!(
                            found.digest,
                            image.digest(),
                            "round {round}, {time}: {tag} at {node}"
                        );
                    }
                }
            }
            mesh.primary_of("hub");
        }
        mesh.start(victim);
        mesh.wait_ready(victim);
        for tag in ["kept", "cold", "lonely"] {
            at(victim)
                .pull(tag)
                .unwrap_or_else(|no| panic!("round {round}: {tag} at the returned {victim}: {no}"));
        }
    }
}

#[test]
fn a_primary_without_a_majority_hands_on_what_the_upstream_says_and_caches_it() {
    let (mesh, upstream) = (Mesh::up_with(3, &ALWAYS_ASK), Upstream::start());
    make_project(&mesh.client(0), "hub", &make_registry(&mesh.client(0), &upstream));
    let primary = mesh.primary_of("hub");
    let (kept, cold) = (Image::tiny(), Image::random(&[MIB]));
    for (image, tag) in [(&kept, "kept"), (&cold, "cold")] {
        upstream.repository("app").push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    let client = mesh.anyone(primary).patient_for(SOON);
    let here = Repository::new(&client, "hub/app");
    here.pull("kept").unwrap_or_else(|no| panic!("{no}"));
    for other in (0..3).filter(|other| *other != primary) {
        mesh.kill(other);
    }
    // while it still counts on its lease, and when it has found out
    for time in ["at once", "after that"] {
        for (image, tag) in [(&kept, "kept"), (&cold, "cold")] {
            let found = here.pull(tag).unwrap_or_else(|no| panic!("{time}: {tag}: {no}"));
            assert_eq!(found.digest, image.digest(), "{time}: {tag}");
        }
        wait::until("it knows that it is alone", || {
            warned(&manifest(&client, "app", kept.digest())).then_some(())
        });
    }
    let late = Image::tiny();
    upstream.repository("app").push(&late, "late").unwrap_or_else(|no| panic!("{no}"));
    let fresh = manifest(&client, "app", "late");
    assert!(fresh.body == late.manifest.bytes && warned(&fresh), "{fresh}: {:?}", fresh.headers);
    upstream.behave(Manner::Page);
    for (image, tag) in [(&kept, "kept"), (&cold, "cold"), (&late, "late")] {
        let stale = manifest(&client, "app", tag);
        let right = stale.body == image.manifest.bytes && warned(&stale);
        assert!(right, "{tag}: {stale}: {:?}", stale.headers);
    }
    let absent = manifest(&client, "app", "absent");
    assert_eq!(absent.status, 503, "{absent}");
}

fn any_answer(client: &Client, path: &str) -> Answer {
    client.get(path).unwrap_or_else(|none| panic!("{path} at {}: {none}", client.authority()))
}
