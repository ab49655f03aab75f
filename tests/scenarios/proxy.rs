//! A proxy project is its upstream, byte for byte, at every node: asked once however many ask, and served on when the upstream fails.
//!
//! What was fetched is never rewritten, not even an index whose children nobody has pulled. A tag is as fresh as the settings say. When
//! the upstream is refused, broken, out of patience or silent, what is there is served with a `Warning`, and what is not is answered
//! soon. And no node of the mesh is needed for it: without the project's primary the others ask the upstream themselves.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tests::complaints::Complaints;
use tests::http::{Answer, Client};
use tests::image::{Blob, Image, MANIFEST, digest, random_bytes};
use tests::mesh::Mesh;
use tests::repository::Repository;
use tests::upstream::{Manner, Upstream};
use tests::{rounds, wait};

const MIB: usize = 1 << 20;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const REGISTRIES: &str = "/api/v2.0/registries";
const PROJECTS: &str = "/api/v2.0/projects";
/// No answer about an upstream that fails may take longer: ten seconds are the promise, the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(15);
/// Settings with which every pull by tag asks the upstream.
const ALWAYS_ASK: [(&str, &str); 2] = [("upstreams.fresh_for", "0s"), ("upstreams.missing_for", "0s")];

#[test]
fn registries_are_made_shown_and_taken_away_at_every_node() {
    let (mesh, upstream, wrong) = (Mesh::up(3), Upstream::start(), Complaints::default());
    let secret = hex::encode(random_bytes(16));
    upstream.demand("robot", &secret);
    let what = json!({"name": "up", "url": upstream.url(), "type": "docker-registry",
        "credential": {"access_key": "robot", "access_secret": secret}});
    let place = make(&mesh.client(1), REGISTRIES, &what);
    let id = id_of(&place);
    wrong.unless(place.starts_with(&format!("{REGISTRIES}/")), || format!("a registry at {place}"));
    for at in 0..3 {
        let all = get(&mesh.client(at), REGISTRIES);
        let listed = all.json().as_array().and_then(|all| all.iter().find(|one| one["name"] == "up").cloned());
        let one = get(&mesh.client(at), &place);
        for (told, shown) in [("in the list", listed.unwrap_or_default()), ("by itself", one.json())] {
            let right = shown["id"] == id && shown["url"] == upstream.url() && shown["type"] == "docker-registry";
            wrong.unless(right && shown["name"] == "up", || format!("{told} at {at}: {shown}"));
        }
        let quiet = !all.to_string().contains(&secret) && !String::from_utf8_lossy(&one.body).contains(&secret);
        wrong.unless(quiet, || format!("the secret is shown at {at}"));
        let anyone = mesh.anyone(at).get(REGISTRIES);
        wrong.unless_refused(&format!("registries for anyone at {at}"), anyone, &[401], &["UNAUTHORIZED"]);
        let again = mesh.client(at).send_json(Method::POST, REGISTRIES, &what);
        wrong.unless_refused(&format!("the same name at {at}"), again, &[409], &["CONFLICT"]);
    }
    let nonsense = json!({"name": "file", "url": "file:///etc/passwd", "type": "docker-registry"});
    let nonsense = mesh.client(0).send_json(Method::POST, REGISTRIES, &nonsense);
    wrong.unless_refused("a URL that is none of a registry", nonsense, &[400], &[]);
    let elsewhere = |name: &str, key: &str| {
        let what = json!({"name": name, "url": upstream.url(), "type": "aws-ecr",
            "credential": {"access_key": key, "access_secret": secret}});
        mesh.client(0).send_json(Method::POST, REGISTRIES, &what).unwrap_or_else(|none| panic!("{name}: {none}"))
    };
    let refused = elsewhere("ecr", "AKIDEXAMPLE");
    let told = refused.envelope().map(|(_, message)| message).unwrap_or_default();
    let in_words = told.contains("https://ACCOUNT.dkr.ecr.REGION.amazonaws.com") && !told.contains(&secret);
    wrong.unless(refused.status == 400 && in_words, || format!("an AWS access key for another host: {refused}"));
    let ready = elsewhere("ready", "AWS");
    wrong.unless(ready.status == 201, || format!("a password that AWS has given out: {ready}"));
    let nowhere = json!({"project_name": "nowhere", "registry_id": 987_654, "metadata": {"public": "true"}});
    let nowhere = mesh.client(0).send_json(Method::POST, PROJECTS, &nowhere);
    wrong.unless_refused("a project of a registry that is not there", nowhere, &[400, 404], &[]);

    // what it is for: the credentials are those that the upstream sees
    make_project(&mesh.client(2), "hub", &id);
    let image = Image::tiny();
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in 0..3 {
        let found = Repository::new(&mesh.anyone(at), "hub/app").pull("1").unwrap_or_else(|no| panic!("at {at}: {no}"));
        assert_eq!(found.digest, image.digest());
        let shown = get(&mesh.client(at), &format!("{PROJECTS}/hub")).json();
        wrong.unless(shown["registry_id"] == id, || format!("the project at {at}: {shown}"));
        let log = std::fs::read_to_string(mesh.nodes()[at].data.join("atoll.log")).unwrap_or_default();
        wrong.unless(!log.contains(&secret), || format!("the secret is in the log of {at}"));
    }

    let empty =
        make(&mesh.client(0), REGISTRIES, &json!({"name": "two", "url": upstream.url(), "type": "docker-registry"}));
    make_project(&mesh.client(0), "idle", &id_of(&empty));
    let used = mesh.client(1).ask(Method::DELETE, &empty).send();
    wrong.unless_refused("taking away a registry in use", used, &[412], &["PRECONDITION"]);
    for (at, what) in [(2, format!("{PROJECTS}/idle")), (1, empty.clone())] {
        let gone = mesh.client(at).ask(Method::DELETE, &what).send().unwrap_or_else(|none| panic!("{what}: {none}"));
        wrong.unless(gone.status == 200, || format!("DELETE {what}: {gone}"));
    }
    for at in 0..3 {
        wrong.unless_refused("what was taken away", mesh.client(at).get(&empty), &[404], &[]);
    }
}

#[test]
fn what_the_upstream_has_comes_through_unchanged() {
    let (mesh, upstream, wrong) = (Mesh::up(6), Upstream::start(), Complaints::default());
    let here = upstream.repository("team/app");
    let (image, child, sibling, lost) = (Image::tiny(), Image::tiny(), Image::tiny(), Image::tiny());
    for one in [&image, &child, &sibling, &lost] {
        here.push(one, one.digest()).unwrap_or_else(|no| panic!("{no}"));
    }
    // as no program would write it, so that nothing that reads and writes it again leaves it as it is
    let odd = odd_manifest(&image);
    let docker = docker_manifest(&image);
    let objects = [
        ("plain", MANIFEST, image.manifest.clone()),
        ("odd", MANIFEST, odd),
        ("docker", DOCKER, docker.clone()),
        (
            "index",
            INDEX,
            index(INDEX, &[(MANIFEST, &child.manifest), (MANIFEST, &sibling.manifest), (MANIFEST, &lost.manifest)]),
        ),
        ("list", DOCKER_LIST, index(DOCKER_LIST, &[(DOCKER, &docker)])),
    ];
    for (tag, kind, object) in &objects {
        here.put_bytes(tag, kind, object.bytes.clone()).unwrap_or_else(|no| panic!("{tag}: {no}"));
    }
    // an index that is sparse already upstream
    let gone = here.client().ask(Method::DELETE, &here.path(&format!("manifests/{}", lost.digest()))).send();
    assert_eq!(gone.unwrap_or_else(|none| panic!("{none}")).status, 202);

    make_project(&mesh.client(0), "hub", &registry(&mesh, &upstream));
    for at in 0..6 {
        for (tag, kind, object) in &objects {
            for reference in [*tag, &object.digest] {
                same(&wrong, &mesh.anyone(at), &format!("team/app/manifests/{reference}"), kind, object);
            }
        }
    }
    let asked = upstream.asked_for_content();
    for unasked in [&child, &sibling, &lost] {
        let fetched = asked.iter().any(|one| one.path.contains(unasked.digest()));
        wrong.unless(!fetched, || format!("a child that nobody pulled was fetched: {}", unasked.digest()));
    }
    for at in 0..6 {
        let there = Repository::new(&mesh.anyone(at), "hub/team/app");
        for reference in ["plain", "odd", "docker", child.digest()] {
            there.pull(reference).unwrap_or_else(|no| panic!("{reference} at {at}: {no}"));
        }
        let lost = manifest(&mesh.anyone(at), "team/app", lost.digest());
        wrong.unless_refused("a child the upstream lacks", Ok(lost), &[404], &["MANIFEST_UNKNOWN"]);
    }

    // all of it is here now: by digest the upstream is not asked
    let present = [image.digest(), &objects[1].2.digest, &docker.digest, child.digest()];
    wait::until_ok("a pull by digest asks the upstream nothing", || {
        upstream.forget();
        present.iter().try_for_each(|one| {
            Repository::new(&mesh.anyone(0), "hub/team/app").pull(one).map(drop).map_err(|no| no.to_string())
        })?;
        let asked = upstream.asked_for_content();
        if asked.is_empty() { Ok(()) } else { Err(format!("{asked:?}")) }
    });
    for at in 0..6 {
        for one in present {
            let there = Repository::new(&mesh.anyone(at), "hub/team/app");
            there.pull(one).unwrap_or_else(|no| panic!("{one} at {at}: {no}"));
        }
    }
    let asked = upstream.asked_for_content();
    wrong.unless(asked.is_empty(), || format!("asked for what the mesh has: {asked:?}"));
}

#[test]
fn however_many_ask_a_cold_blob_is_fetched_once() {
    let (mesh, upstream) = (Mesh::up(6), Upstream::start());
    make_project(&mesh.client(0), "hub", &registry(&mesh, &upstream));
    let of = |region: &str| -> Vec<_> { (0..6).filter(|at| mesh.nodes()[*at].region == region).collect() };
    let places = [of("us-east-1"), of("us-west-2")].concat();
    assert_eq!(places.len(), 4, "six nodes are two in each region");
    let image = Image::random(&[32 * MIB]);
    let layer = &image.blobs[1];
    upstream.repository("cold").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let name = format!("blobs/{}", layer.digest);
    Repository::new(&mesh.anyone(places[3]), "hub/cold").resolve("1").unwrap_or_else(|no| panic!("{no}"));
    upstream.pause(Duration::from_millis(3)); // they meet; if they do not, one fetch is still enough
    std::thread::scope(|all| {
        for at in &places {
            for (from, stays) in [(0, true), (0, true), (20 * MIB, true), (5 * MIB, false)] {
                let client = mesh.anyone(*at);
                all.spawn(move || pull(&client, "hub/cold", layer, from, stays));
            }
        }
    });
    for at in 0..6 {
        let there = Repository::new(&mesh.anyone(at), "hub/cold");
        there.pull("1").unwrap_or_else(|no| panic!("all of it, at {at}: {no}"));
        let size = layer.bytes.len();
        for (range, from, to) in [
            ("bytes=0-0".to_owned(), 0, 1),
            (format!("bytes={MIB}-{}", MIB + 99), MIB, MIB + 100),
            ("bytes=-1000".to_owned(), size - 1000, size),
        ] {
            let part = there.client().ask(Method::GET, &there.path(&name)).header("range", &range).send();
            let part = part.unwrap_or_else(|none| panic!("{range} at {at}: {none}"));
            assert_eq!(part.status, 206, "{range} at {at}");
            assert_eq!(part.header("content-range"), Some(format!("bytes {from}-{}/{size}", to - 1).as_str()));
            assert!(part.body == layer.bytes[from..to], "wrong bytes: {range} at {at}");
        }
    }
    let asked = upstream.asked_for(&Method::GET, &name);
    assert!(asked.len() == 1, "the upstream was asked more than once: {asked:?}");
    assert_eq!(asked[0].sent, layer.bytes.len());
}

#[test]
fn an_upstream_that_breaks_off_is_asked_for_the_rest() {
    let (mesh, upstream) = (Mesh::up(3), Upstream::start());
    make_project(&mesh.client(0), "hub", &registry(&mesh, &upstream));
    let image = Image::random(&[8 * MIB, 8 * MIB]);
    let (torn, lost) = (&image.blobs[1], &image.blobs[2]);
    upstream.repository("torn").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    Repository::new(&mesh.anyone(1), "hub/torn").resolve("1").unwrap_or_else(|no| panic!("{no}"));
    upstream.cut(3 * MIB, Manner::Honest);
    pull(&mesh.anyone(1), "hub/torn", torn, 0, true);
    let asked = upstream.asked_for(&Method::GET, &format!("blobs/{}", torn.digest));
    assert_eq!(asked.len(), 2, "{asked:?}");
    let from =
        asked[1].range.as_deref().and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    assert!(from.is_some_and(|from: usize| from > 0 && from <= 3 * MIB), "not from where it broke off: {asked:?}");

    // when nobody has the rest, the client must see that it is not the whole
    upstream.cut(3 * MIB, Manner::Answer(500));
    let client = mesh.anyone(2).patient_for(Duration::from_secs(120));
    let coming = client.ask(Method::GET, &format!("/v2/hub/torn/blobs/{}", lost.digest)).open();
    match coming.unwrap_or_else(|none| panic!("{none}")) {
        coming if coming.status == 200 => {
            let broken = coming.rest_is(&lost.bytes).expect_err("the upstream never sent the rest");
            assert!(!broken.contains("wrong bytes") && !broken.contains("no whole answer"), "{broken}");
        }
        coming => assert_eq!(coming.status, 503, "{:?}", coming.headers),
    }
    upstream.behave(Manner::Honest);
    for at in 0..3 {
        wait::until_ok("all of it is served again", || Repository::new(&mesh.anyone(at), "hub/torn").pull("1"));
    }
}

#[test]
fn a_tag_moved_upstream_is_seen_by_who_always_asks() {
    let (mesh, upstream) = (Mesh::up_with(6, &ALWAYS_ASK), Upstream::start());
    make_project(&mesh.client(0), "hub", &registry(&mesh, &upstream));
    let mut before: Option<Image> = None;
    for round in 0..rounds(5) {
        let image = Image::tiny();
        upstream.repository("moving").push(&image, "latest").unwrap_or_else(|no| panic!("{no}"));
        for at in 0..6 {
            let there = Repository::new(&mesh.anyone(at), "hub/moving");
            let head =
                there.client().ask(Method::HEAD, &there.path("manifests/latest")).header("accept", MANIFEST).send();
            let head = head.unwrap_or_else(|none| panic!("round {round} at {at}: {none}"));
            assert_eq!(head.header("docker-content-digest"), Some(image.digest()), "round {round}: HEAD at {at}");
            let answer = manifest(&mesh.anyone(at), "moving", "latest");
            assert!(answer.body == image.manifest.bytes, "round {round}: stale or rewritten at {at}: {answer}");
            assert!(!warned(&answer), "round {round}: a warning at {at}: {:?}", answer.headers);
            there.pull("latest").unwrap_or_else(|no| panic!("round {round} at {at}: {no}"));
            if let Some(before) = &before {
                there.pull(before.digest()).unwrap_or_else(|no| panic!("round {round}, by digest at {at}: {no}"));
            }
        }
        before = Some(image);
    }
}

#[test]
fn what_an_upstream_said_is_believed_for_as_long_as_the_settings_say() {
    let changes = [("upstreams.fresh_for", "24h"), ("upstreams.missing_for", "1h")];
    let (mesh, upstream) = (Mesh::up_with(3, &changes), Upstream::start());
    make_project(&mesh.client(0), "hub", &registry(&mesh, &upstream));
    let (old, new) = (Image::tiny(), Image::tiny());
    let here = upstream.repository("believed");
    here.push(&old, "latest").unwrap_or_else(|no| panic!("{no}"));
    Repository::new(&mesh.anyone(0), "hub/believed").pull("latest").unwrap_or_else(|no| panic!("{no}"));
    assert_eq!(manifest(&mesh.anyone(0), "believed", "soon").status, 404);
    here.push(&new, "latest").and_then(|()| here.push(&new, "soon")).unwrap_or_else(|no| panic!("{no}"));
    upstream.forget();
    for at in 0..3 {
        let answer = manifest(&mesh.anyone(at), "believed", "latest");
        assert!(answer.body == old.manifest.bytes, "at {at}: {answer}");
        assert!(!warned(&answer), "what is fresh needs no warning, at {at}: {:?}", answer.headers);
        let missing = manifest(&mesh.anyone(at), "believed", "soon");
        assert_eq!(missing.status, 404, "at {at}: {missing}");
    }
    let asked = upstream.asked_for_content();
    assert!(asked.is_empty(), "one node's answer is the whole mesh's: {asked:?}");
}

#[test]
fn a_failing_upstream_takes_away_nothing_that_is_here() {
    let (mesh, upstream, wrong) = (Mesh::up_with(6, &ALWAYS_ASK), Upstream::start(), Complaints::default());
    make_project(&mesh.client(0), "hub", &registry(&mesh, &upstream));
    let primary = mesh.primary_of("hub");
    let elsewhere = (0..6).find(|at| mesh.nodes()[*at].region != mesh.nodes()[primary].region).expect("three regions");
    let manners = [Manner::Refuse, Manner::Answer(500), Manner::Answer(429), Manner::Silent];
    for (number, manner) in manners.into_iter().enumerate() {
        let (kept, moved, known, absent) = (Image::tiny(), Image::tiny(), Image::tiny(), Image::tiny());
        let name = format!("failing-{number}");
        let here = upstream.repository(&name);
        for (image, tag) in [(&kept, "latest"), (&known, "known"), (&absent, "absent")] {
            here.push(image, tag).unwrap_or_else(|no| panic!("{no}"));
        }
        for at in [primary, elsewhere] {
            let there = Repository::new(&mesh.anyone(at), &format!("hub/{name}"));
            there.pull("latest").and_then(|_| there.resolve("known")).unwrap_or_else(|no| panic!("at {at}: {no}"));
        }
        here.push(&moved, "latest").unwrap_or_else(|no| panic!("{no}"));

        upstream.behave(manner);
        for at in [elsewhere, primary] {
            let (client, what) = (mesh.anyone(at).patient_for(SOON), format!("{manner:?}, at {at}"));
            let there = Repository::new(&client, &format!("hub/{name}"));
            for reference in ["latest", "known"] {
                let image = if reference == "known" { &known } else { &kept };
                match ask_manifest(&client, &name, reference).send() {
                    Err(none) => wrong.add(format!("{what}, {reference}: {none}")),
                    Ok(answer) => {
                        wrong.unless(answer.body == image.manifest.bytes, || format!("{what}, {reference}: {answer}"));
                        wrong.unless(warned(&answer), || {
                            format!("{what}, {reference}: no warning: {:?}", answer.headers)
                        });
                    }
                }
            }
            let pulled = there.pull(kept.digest());
            wrong.unless(pulled.is_ok(), || format!("{what}, by digest: {}", pulled.expect_err("it is not ok")));
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
                if fresh { Ok(()) } else { Err(format!("{manner:?}, at {at}: {answer}, {:?}", answer.headers)) }
            });
            let there = Repository::new(&mesh.anyone(at), &format!("hub/{name}"));
            for tag in ["latest", "known", "absent"] {
                wait::until_ok("everything can be pulled again", || there.pull(tag));
            }
        }
    }
}

#[test]
fn a_proxy_project_takes_nothing_and_has_what_its_upstream_has() {
    let (mesh, upstream, wrong) = (Mesh::up(3), Upstream::start(), Complaints::default());
    make_project(&mesh.client(0), "hub", &registry(&mesh, &upstream));
    let (image, ours) = (Image::tiny(), Image::tiny());
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    mesh.create_project("secret", false, 2);
    mesh.repository(0, "secret/ours").push(&ours, "1").unwrap_or_else(|no| panic!("{no}"));
    let nothing = digest(&random_bytes(8));
    for at in 0..3 {
        let there = mesh.repository(at, "hub/app");
        let client = there.client();
        let (blob, elsewhere) = (&ours.blobs[1].digest, "secret/ours");
        let pushes = [
            (Method::POST, "blobs/uploads/".to_owned()),
            (Method::POST, format!("blobs/uploads/?digest={blob}")),
            (Method::POST, format!("blobs/uploads/?mount={blob}&from={elsewhere}")),
            (Method::PUT, "manifests/1".to_owned()),
            (Method::PUT, format!("manifests/{}", ours.digest())),
        ];
        for (method, what) in pushes {
            let named = format!("{method} {what} at {at}");
            let ask = client.ask(method.clone(), &there.path(&what));
            let answer = if method == Method::PUT {
                ask.header("content-type", MANIFEST).body(ours.manifest.bytes.clone()).send()
            } else {
                ask.send()
            };
            let said = answer.as_ref().ok().and_then(Answer::envelope).map(|(_, message)| message).unwrap_or_default();
            wrong.unless(said.contains("can not push artifact to a proxy project"), || format!("{named}: '{said}'"));
            wrong.unless_refused(&named, answer, &[403], &["DENIED"]);
        }
        for (repository, reference) in [("app", "2"), ("app", nothing.as_str()), ("no/such", "1")] {
            let answer = Ok(manifest(&mesh.anyone(at), repository, reference));
            wrong.unless_refused(&format!("{repository}:{reference} at {at}"), answer, &[404], &["MANIFEST_UNKNOWN"]);
        }
        let blob = mesh.anyone(at).get(&format!("/v2/hub/app/blobs/{nothing}"));
        wrong.unless_refused(&format!("a blob that is nowhere, at {at}"), blob, &[404], &["BLOB_UNKNOWN"]);
        // what others have put into the mesh is not of this project: who may not read it there must not get it here
        for method in [Method::GET, Method::HEAD] {
            let blob =
                mesh.anyone(at).ask(method.clone(), &format!("/v2/hub/app/blobs/{}", ours.blobs[1].digest)).send();
            let blob = blob.unwrap_or_else(|none| panic!("at {at}: {none}"));
            wrong.unless(blob.status == 404, || {
                format!("{method} of a private project's blob at {at}: {}", blob.status)
            });
        }
        let theirs = manifest(&mesh.anyone(at), "app", ours.digest()).status;
        wrong.unless(theirs == 404, || format!("a private project's manifest at {at}: {theirs}"));
        there.pull("1").unwrap_or_else(|no| panic!("at {at}: {no}"));
    }
    assert!(upstream.repository("app").resolve("1").is_ok_and(|found| found.digest == image.digest()));
}

#[test]
fn without_the_primary_the_others_ask_the_upstream_themselves() {
    let (mesh, upstream) = (Mesh::up(6), Upstream::start());
    make_project(&mesh.client(0), "hub", &registry(&mesh, &upstream));
    for round in 0..rounds(5) {
        let victim = mesh.primary_of("hub");
        let name = format!("round-{round}");
        let (kept, lonely, cold) = (Image::tiny(), Image::random(&[MIB]), Image::random(&[MIB]));
        for (image, tag) in [(&kept, "kept"), (&lonely, "lonely"), (&cold, "cold")] {
            upstream.repository(&name).push(image, tag).unwrap_or_else(|no| panic!("{no}"));
        }
        let at = |at: usize| Repository::new(&mesh.anyone(at).patient_for(SOON), &format!("hub/{name}"));
        for node in 0..6 {
            at(node).pull("kept").unwrap_or_else(|no| panic!("round {round} at {node}: {no}"));
        }
        at(victim).pull("lonely").unwrap_or_else(|no| panic!("round {round} at {victim}: {no}"));
        mesh.kill(victim);
        // at once, while it still counts as alive, and again when somebody else is primary
        for time in ["at once", "after that"] {
            for node in (0..6).filter(|node| *node != victim) {
                for (image, tag) in [(&kept, "kept"), (&cold, "cold"), (&lonely, "lonely")] {
                    for reference in [tag, image.digest()] {
                        let found = at(node).pull(reference);
                        let found = found.unwrap_or_else(|no| panic!("round {round}, {time}: {tag} at {node}: {no}"));
                        assert_eq!(found.digest, image.digest(), "round {round}, {time}: {tag} at {node}");
                    }
                }
            }
            mesh.primary_of("hub");
        }
        mesh.start(victim);
        mesh.wait_ready(victim);
        for tag in ["kept", "cold", "lonely"] {
            at(victim).pull(tag).unwrap_or_else(|no| panic!("round {round}: {tag} at the returned {victim}: {no}"));
        }
    }
}

#[test]
fn an_upstream_on_loopback_is_not_touched_unless_it_is_allowed() {
    let (mesh, upstream) = (Mesh::up_with(3, &[("upstreams.allow_loopback", "false")]), Upstream::start());
    upstream.repository("app").push(&Image::tiny(), "1").unwrap_or_else(|no| panic!("{no}"));
    for (name, url) in
        [("plain", upstream.url().to_owned()), ("named", upstream.url().replace("127.0.0.1", "localhost"))]
    {
        let what = json!({"name": name, "url": url, "type": "docker-registry"});
        let made = mesh.client(0).send_json(Method::POST, REGISTRIES, &what).unwrap_or_else(|none| panic!("{none}"));
        if made.status == 201 {
            let id = id_of(made.header("location").expect("what is made has a location"));
            make_project(&mesh.client(0), name, &id);
            for at in 0..3 {
                let path = format!("/v2/{name}/app/manifests/1");
                let answer = mesh.anyone(at).ask(Method::GET, &path).header("accept", MANIFEST).send();
                let answer = answer.unwrap_or_else(|none| panic!("{url} at {at}: {none}"));
                assert!(answer.status >= 400 && answer.envelope().is_some(), "{url} at {at}: {answer}");
            }
        } else {
            assert_eq!(made.status, 400, "{url}: {made}");
        }
    }
    assert!(upstream.asked().is_empty(), "{:?}", upstream.asked());
}

#[test]
fn patterns_decide_what_of_the_upstream_is_there() {
    let (mesh, upstream, wrong) = (Mesh::up(3), Upstream::start(), Complaints::default());
    let image = Image::tiny();
    for name in ["library/app", "team/app", "team/secret"] {
        upstream.repository(name).push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    }
    let id = registry(&mesh, &upstream);
    let what = json!({"project_name": "hub", "registry_id": id,
        "metadata": {"public": "true", "proxy_cache_filter_pattern": "{library,team}/*", "proxy_cache_deny_pattern": "**/secret"}});
    make(&mesh.client(0), PROJECTS, &what);
    for at in 0..3 {
        let anyone = mesh.anyone(at);
        for (name, served) in [("library/app", true), ("team/app", true), ("team/secret", false), ("other/app", false)]
        {
            let there = format!("hub/{name}");
            let blob = anyone.get(&format!("/v2/{there}/blobs/{}", image.blobs[0].digest));
            if served {
                Repository::new(&anyone, &there).pull("1").unwrap_or_else(|no| panic!("{there} at {at}: {no}"));
            } else {
                let tag = ask_manifest(&anyone, name, "1").send();
                wrong.unless_refused(&format!("{there} at {at}"), tag, &[404], &["MANIFEST_UNKNOWN"]);
                wrong.unless_refused(&format!("a blob of {there} at {at}"), blob, &[404], &["BLOB_UNKNOWN"]);
            }
        }
    }
    let asked = upstream.asked();
    wrong.unless(asked.iter().all(|a| !a.path.contains("secret")), || {
        "the upstream was asked for what is denied".into()
    });
    // widened, it is there
    let change = json!({"metadata": {"proxy_cache_deny_pattern": ""}});
    let changed = mesh.client(1).send_json(Method::PUT, &format!("{PROJECTS}/hub"), &change);
    assert_eq!(changed.unwrap_or_else(|none| panic!("{none}")).status, 200);
    Repository::new(&mesh.anyone(2), "hub/team/secret").pull("1").unwrap_or_else(|no| panic!("{no}"));
    let nonsense = json!({"metadata": {"proxy_cache_filter_pattern": "a{b"}});
    let nonsense = mesh.client(1).send_json(Method::PUT, &format!("{PROJECTS}/hub"), &nonsense);
    wrong.unless_refused("a pattern with an open brace", nonsense, &[400], &[]);
}

#[test]
fn what_is_gone_upstream_is_gone_here_unless_the_project_keeps_it() {
    let (mesh, upstream) = (Mesh::up_with(3, &ALWAYS_ASK), Upstream::start());
    let image = Image::tiny();
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let id = registry(&mesh, &upstream);
    for (name, keep) in [("keeps", "true"), ("follows", "false")] {
        let what = json!({"project_name": name, "registry_id": id,
            "metadata": {"public": "true", "proxy_cache_local_on_not_found": keep}});
        make(&mesh.client(0), PROJECTS, &what);
        Repository::new(&mesh.anyone(0), &format!("{name}/app")).pull("1").unwrap_or_else(|no| panic!("{no}"));
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
fn a_limit_that_one_node_hears_is_kept_by_all_of_them() {
    let (mesh, upstream) = (Mesh::up_with(3, &ALWAYS_ASK), Upstream::start());
    let image = Image::tiny();
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let id = registry(&mesh, &upstream);
    // every project has a primary of its own, so that each node asks the upstream itself
    let names: Vec<String> = (0..6).map(|n| format!("hub-{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        make_project(&mesh.client(n % 3), name, &id);
    }
    let primaries: std::collections::BTreeSet<usize> = names.iter().map(|name| mesh.primary_of(name)).collect();
    assert!(primaries.len() > 1, "one node is primary of every project: {primaries:?}");
    upstream.behave(Manner::Answer(503));
    let first = any_answer(&mesh.anyone(0), "/v2/hub-0/app/manifests/1");
    assert_eq!(first.status, 503, "{first}");
    upstream.behave(Manner::Answer(429));
    // the door says `Retry-After: 1`: within that second nobody else may come
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
    upstream.behave(Manner::Honest);
    wait::until("the upstream is asked again when its time is over", || {
        Repository::new(&mesh.anyone(2), "hub-3/app").pull("1").ok()
    });
}

#[test]
fn a_secret_of_an_upstream_lies_nowhere_in_the_clear() {
    let (mesh, upstream) = (Mesh::up(3), Upstream::start());
    let secret = hex::encode(random_bytes(16));
    upstream.demand("robot", &secret);
    let image = Image::tiny();
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let what = json!({"name": "up", "url": upstream.url(), "type": "docker-registry",
        "credential": {"access_key": "robot", "access_secret": secret}});
    make_project(&mesh.client(0), "hub", &id_of(&make(&mesh.client(1), REGISTRIES, &what)));
    for at in 0..3 {
        Repository::new(&mesh.anyone(at), "hub/app").pull("1").unwrap_or_else(|no| panic!("at {at}: {no}"));
    }
    let mut folders = vec![mesh.folder().to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                seen += 1;
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "the secret is in {}", path.display());
            }
        }
    }
    assert!(seen > 10, "only {seen} files were looked at");
}

/// Makes the upstream known; its id.
fn registry(mesh: &Mesh, upstream: &Upstream) -> Value {
    let what = json!({"name": "up", "url": upstream.url(), "type": "docker-registry"});
    id_of(&make(&mesh.client(0), REGISTRIES, &what))
}

/// A public project that stands for a registry.
fn make_project(administrator: &Client, name: &str, registry: &Value) {
    let what = json!({"project_name": name, "registry_id": registry, "metadata": {"public": "true"}});
    make(administrator, PROJECTS, &what);
}

/// Makes something; where it is.
fn make(administrator: &Client, path: &str, what: &Value) -> String {
    let made = administrator.send_json(Method::POST, path, what).unwrap_or_else(|none| panic!("{what}: {none}"));
    assert_eq!(made.status, 201, "{what}: {made}");
    made.header("location").unwrap_or_else(|| panic!("{what}: made and not said where")).to_owned()
}

/// The id at the end of a location: a number, as in Harbor.
fn id_of(location: &str) -> Value {
    let id = location.rsplit('/').next().and_then(|id| id.parse::<u64>().ok());
    json!(id.unwrap_or_else(|| panic!("no number at the end of {location}")))
}

fn any_answer(client: &Client, path: &str) -> Answer {
    client.get(path).unwrap_or_else(|none| panic!("{path} at {}: {none}", client.authority()))
}

fn get(client: &Client, path: &str) -> Answer {
    let answer = any_answer(client, path);
    assert_eq!(answer.status, 200, "{path} at {}: {answer}", client.authority());
    answer
}

/// Asks for a manifest of the project, whatever its kind.
fn ask_manifest(client: &Client, repository: &str, reference: &str) -> tests::http::Ask {
    let accept = [MANIFEST, INDEX, DOCKER, DOCKER_LIST].join(", ");
    client.ask(Method::GET, &format!("/v2/hub/{repository}/manifests/{reference}")).header("accept", &accept)
}

fn manifest(client: &Client, repository: &str, reference: &str) -> Answer {
    let answer = ask_manifest(client, repository, reference).send();
    answer.unwrap_or_else(|none| panic!("{repository}:{reference} at {}: {none}", client.authority()))
}

/// Whether the node says that its answer may be old (110) or that it could not ask (111).
fn warned(answer: &Answer) -> bool {
    let warnings = answer.headers.get_all("warning");
    warnings.iter().any(|value| [&b"110"[..], b"111"].iter().any(|code| value.as_bytes().starts_with(code)))
}

/// Complains unless an object is there as the upstream has it: bytes, digest and kind, for GET and HEAD.
fn same(wrong: &Complaints, client: &Client, path: &str, kind: &str, object: &Blob) {
    for method in [Method::GET, Method::HEAD] {
        let what = format!("{method} {path} at {}", client.authority());
        let accept = [MANIFEST, INDEX, DOCKER, DOCKER_LIST].join(", ");
        let answer = client.ask(method.clone(), &format!("/v2/hub/{path}")).header("accept", &accept).send();
        let answer = match answer {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => return wrong.add(format!("{what}: {answer}")),
            Err(none) => return wrong.add(format!("{what}: {none}")),
        };
        wrong
            .unless(method == Method::HEAD || answer.body == object.bytes, || format!("{what}: other bytes: {answer}"));
        let length = object.bytes.len().to_string();
        for (name, value) in
            [("content-type", kind), ("docker-content-digest", &object.digest), ("content-length", &length)]
        {
            wrong.unless(answer.header(name) == Some(value), || format!("{what}: {name}: {:?}", answer.header(name)));
        }
    }
}

/// A client that wants a blob from a byte on, and may hang up in the middle.
fn pull(client: &Client, repository: &str, blob: &Blob, from: usize, stays: bool) {
    let client = client.clone().patient_for(Duration::from_secs(120));
    let mut ask = client.ask(Method::GET, &format!("/v2/{repository}/blobs/{}", blob.digest));
    if from > 0 {
        ask = ask.header("range", &format!("bytes={from}-"));
    }
    let mut coming = ask.open().unwrap_or_else(|none| panic!("from {from}: {none}"));
    assert_eq!(coming.status, if from > 0 { 206 } else { 200 }, "from {from}: {:?}", coming.headers);
    let wanted = &blob.bytes[from..];
    if stays {
        return coming.rest_is(wanted).unwrap_or_else(|no| panic!("from {from}: {no}"));
    }
    let first = coming.next().expect("a first piece").unwrap_or_else(|none| panic!("from {from}: {none}"));
    assert_eq!(wanted[..first.len()], first, "from {from}");
}

/// The image's manifest with other white space, fields in another order, and fields that nobody knows.
fn odd_manifest(image: &Image) -> Blob {
    let told: Value = serde_json::from_slice(&image.manifest.bytes).expect("a manifest is JSON");
    let text = format!(
        "{{\n\t\"layers\": {},\n\t\"config\" : {},\n\n\t\"x-unknown\": [1.0, \"\\u00e9\"],\n\t\"mediaType\":\"{MANIFEST}\",\
         \n\t\"schemaVersion\": 2\n}}\n",
        told["layers"], told["config"]
    );
    Blob::of(text)
}

/// The same image as docker has it.
fn docker_manifest(image: &Image) -> Blob {
    let named = |kind: &str, blob: &Blob| json!({"mediaType": format!("application/vnd.docker.{kind}"), "size": blob.bytes.len(), "digest": blob.digest});
    let told = json!({"schemaVersion": 2, "mediaType": DOCKER,
        "config": named("container.image.v1+json", &image.blobs[0]),
        "layers": [named("image.rootfs.diff.tar.gzip", &image.blobs[1])]});
    Blob::of(Bytes::from(serde_json::to_vec_pretty(&told).expect("JSON can be written")))
}

/// An index of manifests, each for a platform of its own.
fn index(kind: &str, children: &[(&str, &Blob)]) -> Blob {
    let platforms = ["amd64", "arm64", "s390x"];
    let named = |(at, (kind, child)): (usize, &(&str, &Blob))| {
        json!({"mediaType": kind, "digest": child.digest, "size": child.bytes.len(),
            "platform": {"os": "linux", "architecture": platforms[at]}})
    };
    let children: Vec<_> = children.iter().enumerate().map(named).collect();
    Blob::of(json!({"schemaVersion": 2, "mediaType": kind, "manifests": children}).to_string())
}
