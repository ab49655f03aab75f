//! An edge serves its region from a cache, sees a moved tag at once, and goes on when it is cut off
//! from everything.
//!
//! It takes no pushes, votes for nothing, holds no secret of the mesh, keeps no more than its
//! budget, and says how old it is when no replica answers.

use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use tests::complaints::Complaints;
use tests::formed::{Formed, UNHURRIED};
use tests::http::Client;
use tests::image::{Blob, Image};
use tests::proxies::create_proxy;
use tests::repository::{Repository, create_project};
use tests::small_disk::SmallDisk;
use tests::{footprint, metrics, wait};

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
const MIB: usize = 1 << 20;
/// No answer of an edge that is cut off may take longer.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn an_edge_serves_what_the_mesh_has_as_fresh_as_the_mesh() {
    let (mut mesh, wrong) =
        (Formed::of(&THREE, "upstreams:\n  allow_loopback: true\n"), Complaints::default());
    // an edge needs no more than one CPU
    let member = mesh.prepare("edge", "us-east-1", "role: edge\n");
    member.must_join(&mesh.members()[0].invite_as("edge"));
    member.serve_on_one_cpu();
    member.wait_ready();
    let edge = mesh.members().len();
    mesh.add(member);
    let anyone = Repository::new(&mesh.members()[edge].anyone(), "demo/app");
    for round in 0..5 {
        let image = Image::random(&[MIB, 300_000]);
        mesh.repository(round % 3, "demo/app")
            .push(&image, "latest")
            .unwrap_or_else(|no| panic!("{no}"));
        let found = anyone.pull("latest").unwrap_or_else(|no| panic!("round {round}: {no}"));
        wrong.unless(found.digest == image.digest(), || {
            format!("round {round}: an older tag at the edge")
        });
        for blob in &image.blobs {
            let again = anyone.blob(&blob.digest).unwrap_or_else(|no| panic!("{no}"));
            wrong.unless(again == blob.bytes, || "other bytes from the edge's cache".into());
        }
    }
    let client = mesh.members()[edge].anyone();
    let tags = client.get("/v2/demo/app/tags/list").unwrap_or_else(|none| panic!("{none}")).json();
    wrong.unless(tags["tags"] == serde_json::json!(["latest"]), || {
        format!("the tags at the edge: {tags}")
    });
    let missing = client.get("/v2/demo/app/manifests/nothing");
    wrong.unless_refused("a tag that is not there", missing, &[404], &["MANIFEST_UNKNOWN"]);

    // what another registry has about an image it may not ask that itself; the mesh is such a
    // registry here
    let image = Image::tiny();
    let signature = Image::about(&image);
    for (tag, one) in [("image", &image), ("signature", &signature)] {
        mesh.repository(0, "demo/app").push(one, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    let url = format!("http://{}", mesh.client(0).authority());
    create_proxy(&mesh.client(0), "self", "docker-registry", &url, true);
    for repository in ["demo/app", "self/demo/app"] {
        let about = client.get(&format!("/v2/{repository}/referrers/{}", image.digest()));
        let about = about.unwrap_or_else(|none| panic!("{none}"));
        let told = about.json()["manifests"][0]["digest"] == signature.digest();
        wrong.unless(told, || {
            format!("what refers to an image of {repository}, at the edge: {about}")
        });
        let list = client.get(&format!("/v2/{repository}/tags/list"));
        let list = list.unwrap_or_else(|none| panic!("{none}")).json();
        let all = serde_json::json!({"name": repository, "tags": ["image", "latest", "signature"]});
        wrong.unless(list == all, || format!("the tags at the edge: {list}"));
    }

    // it is asked to take nothing, and takes nothing
    let push = mesh.client(edge).ask(Method::POST, "/v2/demo/app/blobs/uploads/").send();
    let said = push.as_ref().map(ToString::to_string).unwrap_or_default();
    wrong.unless_refused("a push to an edge", push, &[405], &["UNSUPPORTED"]);
    wrong.unless(said.contains("http://"), || format!("it does not say where to push: {said}"));

    // everybody sees it as what it is, once the replica that it talks to has told the others; it
    // votes for nothing and follows no ledger
    for at in 0..4 {
        wait::until_ok("everybody sees the edge", || {
            let status = mesh.status(at)?;
            let shown = status["nodes"]
                .as_array()
                .and_then(|all| all.iter().find(|n| n["name"] == "edge"))
                .cloned();
            let shown = shown.unwrap_or_default();
            let well = shown["role"] == "edge" && shown["state"] == "up";
            if well { Ok(()) } else { Err(format!("the edge as {at} sees it: {shown}")) }
        });
    }
    let ledger = mesh.status(0).unwrap_or_else(|no| panic!("{no}"))["ledger"].clone();
    wrong.unless(!ledger.to_string().contains("\"edge\""), || {
        format!("the edge is in the ledger: {ledger}")
    });
    let own = mesh.status(edge).unwrap_or_else(|no| panic!("{no}"));
    wrong.unless(own["ledger"].is_null() && own["cache"]["blobs"].as_u64() >= Some(10), || {
        format!("its status: {own}")
    });
    let key = std::fs::read(mesh.members()[edge].data().join("identity/authority.key"))
        .unwrap_or_default();
    wrong.unless(key.is_empty(), || "the edge was given the key of the mesh's CA".into());
}

#[test]
fn what_may_be_seen_is_decided_by_the_mesh() {
    let (mut mesh, wrong) = (Formed::of(&THREE, ""), Complaints::default());
    let edge = mesh.add_edge("edge", "us-west-2", "edge:\n  access_age: 0s\n");
    mesh.members()[edge].wait_ready();
    create_project(&mesh.client(0), "team", false, 1);
    let image = Image::tiny();
    mesh.repository(0, "team/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let anyone = mesh.members()[edge].anyone();
    let path = format!("/v2/team/app/blobs/{}", image.blobs[0].digest);
    wrong.unless_refused("a private blob for anyone", anyone.get(&path), &[401], &["UNAUTHORIZED"]);
    let liar = anyone.clone().basic("admin", "not the password");
    wrong.unless_refused(
        "a private blob with a wrong password",
        liar.get(&path),
        &[401],
        &["UNAUTHORIZED"],
    );
    mesh.repository(edge, "team/app")
        .pull("1")
        .unwrap_or_else(|no| panic!("with the password: {no}"));

    // tokens: its own, and one that a replica signed
    for signer in [edge, 1] {
        let asked = "/service/token?service=atoll&scope=repository:team/app:pull";
        let token =
            mesh.client(signer).get(asked).unwrap_or_else(|none| panic!("{none}")).json()["token"]
                .clone();
        let bearer = mesh.members()[edge].anyone().bearer(token.as_str().unwrap_or_default());
        Repository::new(&bearer, "team/app")
            .pull("1")
            .unwrap_or_else(|no| panic!("token of {signer}: {no}"));
    }
    // an edge's tokens are good elsewhere, too: two edges may stand behind one name
    let other = mesh.add_edge("other", "eu-central-1", "");
    mesh.members()[other].wait_ready();
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let token_of = |client: &Client, scope: &str| {
        let asked = client.get(&format!("/service/token?service=atoll&scope=repository:{scope}"));
        asked.unwrap_or_else(|none| panic!("{none}")).json()["token"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let private = token_of(&mesh.client(edge), "team/app:pull");
    // an edge's own token for anonymous clients can be checked by no other node: it does no harm,
    // and grants nothing
    let strange = token_of(&mesh.members()[edge].anyone(), "demo/app:pull");
    for at in [other, 1] {
        let anyone = mesh.members()[at].anyone();
        let known = Repository::new(&anyone.clone().bearer(&private), "team/app");
        known.pull("1").unwrap_or_else(|no| panic!("the edge's token at {at}: {no}"));
        let stranger = anyone.bearer(&strange);
        let public = Repository::new(&stranger, "demo/app").pull("1");
        public.unwrap_or_else(|no| panic!("a public image with a strange token at {at}: {no}"));
        challenged(&wrong, &stranger);
        let refused =
            stranger.get("/v2/team/app/manifests/1").unwrap_or_else(|none| panic!("{none}"));
        let scope = refused
            .header("www-authenticate")
            .unwrap_or_default()
            .contains("scope=\"repository:team/app:pull\"");
        wrong.unless(refused.status == 401 && scope, || {
            format!("a private image with a strange token: {refused}")
        });
    }
    let pushes = mesh.members()[1]
        .anyone()
        .bearer(&strange)
        .ask(Method::POST, "/v2/demo/app/blobs/uploads/")
        .send();
    wrong.unless_refused("a push with a strange token", pushes, &[401], &["UNAUTHORIZED"]);
    // it becomes public, and private again: the edge follows
    for public in ["true", "false"] {
        let change = serde_json::json!({"metadata": {"public": public}});
        let changed = mesh.client(1).send_json(Method::PUT, "/api/v2.0/projects/team", &change);
        assert_eq!(changed.unwrap_or_else(|none| panic!("{none}")).status, 200);
        let answer = anyone.get(&path).unwrap_or_else(|none| panic!("{none}"));
        let expected = if public == "true" { 200 } else { 401 };
        wrong.unless(answer.status == expected, || {
            format!("public is {public}, and the edge answers {answer}")
        });
    }
    // one token for two edges admits two
    let token = mesh.members()[0].invite_many("edge", 2);
    for (name, welcome) in [("third", true), ("fourth", true), ("fifth", false)] {
        let joins = mesh.prepare(name, "us-west-2", "role: edge\n").join(&token);
        wrong.unless(joins.success == welcome, || format!("{name}: {}{}", joins.out, joins.err));
    }
    // tokens are for the role that they name
    let late = mesh.prepare("late", "us-west-2", "role: edge\n");
    let refused = late.join(&mesh.members()[0].invite());
    wrong.unless(!refused.success && refused.err.contains("--role edge"), || {
        format!("an edge: {}", refused.err)
    });
    let late = mesh.prepare("late2", "us-west-2", "");
    let refused = late.join(&mesh.members()[0].invite_as("edge"));
    wrong.unless(!refused.success && refused.err.contains("--role replica"), || {
        format!("a replica: {}", refused.err)
    });
}

#[test]
fn while_the_ledger_has_no_leader_an_edge_has_what_it_was_never_asked_for() {
    let mut mesh = Formed::of(&THREE, "");
    let edge = mesh.add_edge("edge", "us-east-1", "");
    mesh.members()[edge].wait_ready();
    let image = Image::random(&[MIB]);
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let leader = wait::until("somebody leads the ledger", || {
        (0..3).find(|at| mesh.status(*at).is_ok_and(|status| status["lease"]["state"] == "leader"))
    });
    mesh.members()[leader].stop(Signal::KILL);
    // no node knows yet that it is dead: the others wait for its answer, and then answer with what
    // they have
    let found =
        Repository::new(&mesh.members()[edge].anyone().patient_for(SOON), "demo/app").pull("1");
    assert_eq!(found.unwrap_or_else(|no| panic!("{no}")).digest, image.digest());
}

#[test]
fn cut_off_from_everything_it_serves_what_it_has_and_says_how_old_it_is() {
    let (mut mesh, wrong) = (Formed::of(&THREE, ""), Complaints::default());
    let edge = mesh.add_edge("edge", "us-east-1", "edge:\n  access_age: 1h\n");
    let strict = mesh.add_edge("strict", "us-east-1", "edge:\n  alone_for: 0s\n  access_age: 0s\n");
    create_project(&mesh.client(0), "team", false, 1);
    let (open, closed, never) = (Image::random(&[MIB]), Image::tiny(), Image::tiny());
    mesh.repository(0, "demo/app").push(&open, "1").unwrap_or_else(|no| panic!("{no}"));
    mesh.repository(0, "demo/never").push(&never, "1").unwrap_or_else(|no| panic!("{no}"));
    mesh.repository(0, "team/app").push(&closed, "1").unwrap_or_else(|no| panic!("{no}"));
    for at in [edge, strict] {
        mesh.members()[at].wait_ready();
        Repository::new(&mesh.members()[at].anyone(), "demo/app")
            .pull("1")
            .unwrap_or_else(|no| panic!("{no}"));
        mesh.repository(at, "team/app").pull("1").unwrap_or_else(|no| panic!("{no}"));
    }
    // it is killed, too: what it is to serve after that it must hold
    wait::until("the edge holds what it was asked for", || {
        footprint::holds(&mesh.members()[edge].data(), &mesh.status(edge).ok()?, &open.blobs)
            .then_some(())
    });
    // a made-up token: the replicas are asked once, and their answer is remembered
    let forger = mesh.members()[edge]
        .anyone()
        .bearer("eyJhbGciOiJIUzI1NiJ9.e30.bm9ib2R5J3M")
        .patient_for(SOON);
    challenged(&wrong, &forger);
    for replica in 0..3 {
        mesh.members()[replica].stop(Signal::KILL);
    }
    challenged(&wrong, &forger);
    let manifest = "/v2/demo/app/manifests/1";
    let anyone = mesh.members()[edge].anyone().patient_for(SOON);
    for restarted in [false, true] {
        if restarted {
            mesh.members()[edge].stop(Signal::KILL);
            mesh.members()[edge].serve();
            mesh.members()[edge].wait_ready();
        }
        let answer = wait::until("the edge says that it is cut off", || {
            let answer = anyone.get(manifest).ok()?;
            assert_eq!(answer.status, 200, "restarted: {restarted}: {answer}");
            answer.may_be_stale().then_some(answer)
        });
        let age = answer.header("age").and_then(|age| age.parse::<u64>().ok());
        wrong.unless(age.is_some(), || format!("restarted: {restarted}: how old? {answer}"));
        let found = Repository::new(&anyone, "demo/app")
            .pull("1")
            .unwrap_or_else(|no| panic!("restarted: {restarted}: {no}"));
        wrong.unless(found.digest == open.digest(), || "another image".into());
        let absent = anyone.get("/v2/demo/never/manifests/1");
        wrong.unless_refused("what it never had", absent, &[503], &["UNAVAILABLE"]);
        let private = format!("/v2/team/app/blobs/{}", closed.blobs[0].digest);
        wrong.unless_refused(
            "a private blob for anyone",
            anyone.get(&private),
            &[401],
            &["UNAUTHORIZED"],
        );
        if !restarted {
            // verdicts on passwords are kept in memory only
            mesh.repository(edge, "team/app")
                .pull("1")
                .unwrap_or_else(|no| panic!("cut off, with the password: {no}"));
        }
    }
    let strict = mesh.members()[strict].anyone().patient_for(SOON);
    wait::until("an edge that may not be alone refuses", || {
        (strict.get(manifest).ok()?.status == 503).then_some(())
    });

    // a replica comes back, and all is fresh again
    for replica in 0..3 {
        mesh.members()[replica].serve();
    }
    wait::until("the edge is fresh again", || {
        let answer = anyone.get(manifest).ok()?;
        (answer.status == 200 && !answer.may_be_stale()).then_some(())
    });
}

/// What a client gets that reads a tag's manifest.
fn reads(client: &Client, repository: &str) -> u16 {
    let answer = client.get(&format!("/v2/{repository}/manifests/1"));
    answer.unwrap_or_else(|none| panic!("{repository}: {none}")).status
}

#[test]
fn cut_off_it_believes_what_it_knows_of_people_for_no_longer_than_access_may_be_old() {
    let mut mesh = Formed::of(&THREE, "");
    let brief = mesh.add_edge("brief", "us-east-1", "edge:\n  access_age: 1s\n");
    let long = mesh.add_edge("long", "us-east-1", "edge:\n  access_age: 1h\n");
    create_project(&mesh.client(0), "team", false, 1);
    for repository in ["demo/app", "team/app"] {
        let push = mesh.repository(0, repository).push(&Image::tiny(), "1");
        push.unwrap_or_else(|no| panic!("{no}"));
    }
    let scope = "repository:team/app:pull";
    let token = tests::people::with_token(&mesh.client(0), &[scope]);
    let bearer = token.credentials().and_then(|all| all.strip_prefix("Bearer ")).expect("one");
    let (password, token) = (
        |at: usize| mesh.client(at).patient_for(SOON),
        |at: usize| mesh.members()[at].anyone().bearer(bearer).patient_for(SOON),
    );
    let anyone = |at: usize| mesh.members()[at].anyone().patient_for(SOON);
    for at in [brief, long] {
        mesh.members()[at].wait_ready();
        for client in [password(at), token(at)] {
            wait::until("the edge knows the mesh", || {
                (reads(&client, "team/app") == 200).then_some(())
            });
        }
        assert_eq!(reads(&anyone(at), "demo/app"), 200);
    }
    for replica in 0..3 {
        mesh.members()[replica].stop(Signal::KILL);
    }
    // a password cannot be checked; a client with a token is asked for another, which it does not get
    wait::until("what is known of a password counts no longer", || {
        (reads(&password(brief), "team/app") == 503).then_some(())
    });
    wait::until("what is known of a token's owner counts no longer", || {
        (reads(&token(brief), "team/app") == 401).then_some(())
    });
    let again = password(brief).get(&format!("/service/token?service=atoll&scope={scope}"));
    let again = again.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(again.status, 503, "{again}");
    assert!(again.to_string().contains("edge.access_age"), "it names the setting: {again}");
    // what everybody may read it serves on, and the other edge goes by what it was told to
    wait::until("both say that they are cut off", || {
        let stale = |at: usize| {
            let answer = anyone(at).get("/v2/demo/app/manifests/1").ok()?;
            assert_eq!(answer.status, 200, "{answer}");
            Some(answer.may_be_stale())
        };
        (stale(brief)? && stale(long)?).then_some(())
    });
    assert_eq!(reads(&password(long), "team/app"), 200);
    assert_eq!(reads(&token(long), "team/app"), 200);

    for replica in 0..3 {
        mesh.members()[replica].serve();
    }
    wait::until("the password counts again", || {
        (reads(&password(brief), "team/app") == 200).then_some(())
    });
}

#[test]
fn a_cache_stays_within_its_budget_and_loses_nothing_but_time() {
    let mut mesh = Formed::of(&THREE, "cache:\n  budget: 16MiB\n");
    let edge = mesh.add_edge("edge", "us-east-1", "cache:\n  budget: 16MiB\n");
    mesh.members()[edge].wait_ready();
    let client = mesh.members()[edge].anyone();
    let image = Image::random(&[5 * MIB; 6]);
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let there = Repository::new(&client, "demo/app");
    for round in 0..3 {
        there.pull("1").unwrap_or_else(|no| panic!("round {round}: {no}"));
        within_budget(&mesh, edge, &image);
    }
    assert!(metrics::value(&client, "atoll_cache_evicted_total") >= 3, "nothing was evicted");
    // at a replica what durability counts on is no cache: it stays, whatever is pulled
    for at in (0..3).cycle().take(6) {
        let there = Repository::new(&mesh.members()[at].anyone(), "demo/app");
        there.pull("1").unwrap_or_else(|no| panic!("at {at}: {no}"));
        within_budget(&mesh, at, &image);
    }
    let status = mesh.status(0).unwrap_or_else(|no| panic!("{no}"));
    let copies = status["projects"][0]["copies"].as_object().cloned().unwrap_or_default();
    let held: u64 = copies.values().filter_map(|region| region["blobs"].as_u64()).sum();
    assert!(held >= 2 * image.blobs.len() as u64, "fewer than two copies of each blob: {copies:?}");
}

#[test]
fn a_disk_smaller_than_the_budget_is_not_filled() {
    let mut mesh = Formed::of(&THREE, "");
    let member = mesh.prepare("edge", "us-east-1", "role: edge\n");
    let _small = SmallDisk::of(&member.data(), "48m");
    member.must_join(&mesh.members()[0].invite_as("edge"));
    member.serve();
    member.wait_ready();
    let client = member.anyone();
    mesh.add(member);
    let images: Vec<Image> = (0..3).map(|_| Image::random(&[8 * MIB; 3])).collect();
    for (tag, image) in images.iter().enumerate() {
        mesh.repository(0, "demo/app")
            .push(image, &tag.to_string())
            .unwrap_or_else(|no| panic!("{no}"));
    }
    let there = Repository::new(&client, "demo/app");
    for round in 0..2 {
        for tag in 0..images.len() {
            there
                .pull(&tag.to_string())
                .unwrap_or_else(|no| panic!("round {round}, image {tag}: {no}"));
        }
    }
    assert!(
        metrics::value(&client, "atoll_cache_evicted_total") >= 6,
        "72 MiB twice on a disk of 48"
    );
    let ready = client.get("/readyz").unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(ready.status, 200, "{ready}");
}

#[test]
fn a_region_of_edges_fetches_once_however_many_ask() {
    let mut mesh = Formed::of(&THREE, UNHURRIED);
    let edges: Vec<usize> =
        (0..4).map(|n| mesh.add_edge(&format!("edge-{n}"), "sa-east-1", UNHURRIED)).collect();
    for edge in &edges {
        mesh.members()[*edge].wait_ready();
        wait::until("the edges know each other", || {
            let nodes = mesh.status(*edge).ok()?["nodes"].as_array()?.clone();
            (nodes.len() == 7 && nodes.iter().all(|n| n["state"] == "up")).then_some(())
        });
    }
    let image = Image::random(&[8 * MIB]);
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let sent = |mesh: &Formed| -> u64 {
        (0..3)
            .map(|at| metrics::value(&mesh.members()[at].anyone(), "atoll_link_bytes_sent_total"))
            .sum()
    };
    let before = sent(&mesh);
    std::thread::scope(|scope| {
        for edge in edges.iter().cycle().take(12) {
            let there = Repository::new(&mesh.members()[*edge].anyone(), "demo/app");
            scope.spawn(move || there.pull("1").unwrap_or_else(|no| panic!("{no}")));
        }
    });
    let (size, sent) =
        (image.blobs.iter().map(|b| b.bytes.len() as u64).sum::<u64>(), sent(&mesh) - before);
    assert!(
        sent >= size && sent < size + size / 4,
        "{sent} bytes left the other regions for an image of {size}"
    );
}

#[test]
fn an_edge_that_is_taken_out_is_told_nothing_more_and_its_name_is_free() {
    let mut mesh = Formed::of(&THREE, "");
    let edge = mesh.add_edge("edge", "us-east-1", "edge:\n  access_age: 0s\n");
    mesh.members()[edge].wait_ready();
    let image = Image::tiny();
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let anyone = mesh.members()[edge].anyone().patient_for(SOON);
    Repository::new(&anyone, "demo/app").pull("1").unwrap_or_else(|no| panic!("{no}"));
    let remove = |name: &str| {
        let taken_out =
            mesh.client(1).ask(Method::DELETE, &format!("/api/atoll/v1/nodes/{name}")).send();
        taken_out.unwrap_or_else(|none| panic!("{none}"))
    };
    assert_eq!(remove("nobody").status, 404);
    assert_eq!(remove("edge").status, 204);
    for at in 0..3 {
        let nodes = mesh.status(at).unwrap_or_else(|no| panic!("{no}"))["nodes"].to_string();
        assert!(!nodes.contains("\"edge\""), "at {at}: {nodes}");
    }
    // what it has it may go on serving, as if it were cut off; of what is new it learns nothing
    mesh.repository(0, "demo/app").push(&Image::tiny(), "2").unwrap_or_else(|no| panic!("{no}"));
    wait::until("the edge hears nothing any more", || {
        let answer = anyone.get("/v2/demo/app/manifests/1").ok()?;
        assert_eq!(answer.status, 200, "{answer}");
        answer.may_be_stale().then_some(())
    });
    let news = anyone.get("/v2/demo/app/manifests/2").unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(news.status, 503, "{news}");
    mesh.members()[edge].stop(Signal::TERM);
    let next = mesh.prepare("edge", "us-east-1", "role: edge\n");
    std::fs::remove_dir_all(next.data()).expect("an empty folder");
    next.must_join(&mesh.members()[0].invite_as("edge"));
}

/// Complains unless credentials are refused with a challenge that leads to this node's own tokens.
fn challenged(wrong: &Complaints, client: &Client) {
    let answer = client.get("/v2/").unwrap_or_else(|none| panic!("{none}"));
    let expected = format!("Bearer realm=\"http://{}/service/token\"", client.authority());
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    wrong.unless(challenge.starts_with(&expected), || {
        format!("a made-up token: {answer}, challenge {challenge:?}")
    });
    wrong.unless_refused("a made-up token", Ok(answer), &[401], &["UNAUTHORIZED"]);
}

/// Waits until nothing of an image that was pulled is still on its way into a node's cache, and the
/// cache is within 16 MiB.
fn within_budget(mesh: &Formed, at: usize, image: &Image) {
    wait::until_ok("the cache is within its budget", || {
        let status = mesh.status(at)?;
        let moving = status["transfers"].as_array().cloned().unwrap_or_default();
        let comes = |blob: &Blob| {
            moving
                .iter()
                .any(|one| one["direction"] == "in" && one["digest"] == blob.digest.as_str())
        };
        let well =
            status["cache"]["bytes"].as_u64() <= Some(16 << 20) && !image.blobs.iter().any(comes);
        if well { Ok(()) } else { Err(format!("at {at}: {}, {moving:?}", status["cache"])) }
    });
}
