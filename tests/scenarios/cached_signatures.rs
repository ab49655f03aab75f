//! An image of a proxy project needs the signatures that its project demands: they are asked of the
//! upstream, verified, and decide on every path from then on, also while the upstream cannot be asked.

use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::http::Answer;
use tests::hub::{by, is_served, pull, set};
use tests::image::{Blob, INDEX, Image, MANIFEST};
use tests::process::{self, Finished};
use tests::proxies::{PROJECTS, REGISTRIES, create_proxy, id_of, make};
use tests::repository::create_project;
use tests::shop::{atoll, did, in_days};
use tests::signers::{P256, Signers};
use tests::upstream::{Manner, Spoiling, Upstream};
use tests::wait;

const TWO: [(&str, &str); 2] = [("one", "us-east-1"), ("two", "us-west-2")];

/// Whether GET and HEAD are refused for `why`, whatever the client has already.
fn is_refused(mesh: &Formed, at: usize, path: &str, why: &str) -> Result<(), String> {
    let answer = pull(mesh, at, Method::GET, path);
    let head = pull(mesh, at, Method::HEAD, path).status;
    let (code, said) = answer.envelope().unwrap_or_default();
    let is_right = answer.status == 403 && code == "DENIED" && head == 403;
    match is_right && said.contains("serves signed images only") && said.contains(why) {
        true => Ok(()),
        false => Err(format!("HEAD {head}, GET {answer}")),
    }
}

fn trust(mesh: &Formed, project: &str, name: &str, key: &str) {
    let signers = format!("{PROJECTS}/{project}/signers");
    make(&mesh.client(0), &signers, &json!({"name": name, "key": key}));
}

fn signer(mesh: &Formed, arguments: &[&str]) -> Finished {
    atoll(mesh, 1, "signer", arguments)
}

#[test]
fn what_is_pulled_through_is_refused_without_the_signatures_that_its_project_demands() {
    let more = "upstreams: {allow_loopback: true, fresh_for: 1s, missing_for: 1s}\n";
    let mut mesh = Formed::of(&TWO, more);
    let edge = mesh.add_edge("edge", "eu-central-1", "edge: {access_age: 1h}\n");
    mesh.members()[edge].wait_ready();
    let upstream = Upstream::start();
    let there = upstream.repository("team/app");
    let ann = Signers::new(upstream.authority(), "any", "body");
    let (ci, other) = (ann.key("ci", P256), ann.key("other", P256));
    let images: Vec<Image> = (0..7).map(|n| Image::random(&[64 + n])).collect();
    let [signed, bundled, foreign, bare, child, late, lied] = &images[..] else { unreachable!() };
    let tags = ["signed", "bundled", "foreign", "bare", "child", "late", "lied"];
    for (image, tag) in images.iter().zip(tags) {
        there.push(image, tag).unwrap_or_else(|no| panic!("{no}"));
    }
    let entry = json!({"mediaType": MANIFEST, "digest": child.digest(), "size": child.manifest.bytes.len()});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    let index = Blob::of(index.to_string());
    there.put_bytes("all", INDEX, index.bytes.clone()).unwrap_or_else(|no| panic!("{no}"));
    let at = |digest: &str| format!("team/app@{digest}");
    did(&ann.cosign2("sign", &ci, &[], &at(signed.digest())));
    did(&ann.cosign3("sign", &ci, false, &[], &at(bundled.digest())));
    did(&ann.cosign2("sign", &other, &[], &at(foreign.digest())));
    did(&ann.cosign2("sign", &ci, &[], &at(&index.digest)));
    did(&ann.cosign2("sign", &ci, &[], &at(lied.digest())));

    let registry = json!({"name": "up", "url": upstream.url(), "type": "docker-registry"});
    let registry = id_of(&make(&mesh.client(0), REGISTRIES, &registry));
    let project = json!({
        "project_name": "hub", "registry_id": registry,
        "metadata": {"public": "true", "signature_policy": "enforce", "signature_name": "repository"},
    });
    make(&mesh.client(0), PROJECTS, &project);
    // bundles say no name
    set(&mesh, "hub", &json!({"signature_name": "none"}));
    for at in 0..=edge {
        wait::until_ok("it trusts nobody yet", || is_refused(&mesh, at, &by("signed"), ""));
    }
    trust(&mesh, "hub", "ci", &ci.pem());

    // an upstream whose blobs are others' shows nothing
    upstream.spoil(Spoiling::FlipAlways);
    wait::until_ok("it is refused", || is_refused(&mesh, 1, &by("lied"), ""));
    upstream.spoil(Spoiling::Nothing);

    // every path, at every node, and first at any of them
    let host = upstream.url().trim_start_matches("http://");
    let paths = |image: &Image, tag: &str| {
        [
            by(tag),
            by(image.digest()),
            format!("/v2/team/app/manifests/{tag}?ns={host}"),
            format!("/v2/team/app/manifests/{}?ns={host}", image.digest()),
        ]
    };
    for at in (0..=edge).rev() {
        for path in paths(signed, "signed").iter().chain(&paths(bundled, "bundled")) {
            wait::until_ok("it is served", || is_served(&mesh, at, path));
        }
        for path in &paths(bare, "bare") {
            wait::until_ok("it is refused", || is_refused(&mesh, at, path, "it is not signed"));
        }
        wait::until_ok("the key is not trusted", || {
            is_refused(&mesh, at, &by("foreign"), "is by nobody who is trusted")
        });
        let known = mesh.members()[at].anyone().ask(Method::GET, &by("bare"));
        let known = known.header("if-none-match", &format!("\"{}\"", bare.digest())).send();
        assert_eq!(known.unwrap_or_else(|none| panic!("{none}")).status, 403, "nor a 304");
        // the signature itself is no image
        let sig = format!("{}.sig", signed.digest().replace(':', "-"));
        wait::until_ok("the signature is served", || is_served(&mesh, at, &by(&sig)));
    }
    // each remembers what it has let pass
    for at in 0..=edge {
        wait::until("it decides from memory", || {
            is_served(&mesh, at, &by(signed.digest())).ok()?;
            let metrics = mesh.client(at).get("/metrics").ok()?.body;
            let from_memory = "atoll_gate_decisions_total{from=\"memory\"}";
            String::from_utf8_lossy(&metrics).contains(from_memory).then_some(())
        });
    }
    wait::until_ok("it shows them now", || is_served(&mesh, 1, &by("lied")));
    // nobody signs here, so nobody needs to read it
    let administrator = mesh.client(0).get(&by("bare"));
    assert_eq!(administrator.unwrap_or_else(|none| panic!("{none}")).status, 403);
    // what a signed index lists
    is_refused(&mesh, 1, &by(child.digest()), "it is not signed").expect("nobody knows the index");
    // whose signature somebody may ask for before the index itself
    let sig = format!("{}.sig", index.digest.replace(':', "-"));
    wait::until_ok("the signature is served", || is_served(&mesh, 2, &by(&sig)));
    wait::until_ok("the index is served", || is_served(&mesh, 0, &by("all")));
    for at in 0..=edge {
        wait::until_ok("what it lists, too", || is_served(&mesh, at, &by(child.digest())));
    }
    let why = atoll(&mesh, 1, "explain", &[&format!("hub/team/app@{}", child.digest())]);
    assert!(why.out.contains("an index that lists it is signed by ci"), "{why:?}");
    let why = atoll(&mesh, 0, "explain", &[&format!("hub/team/app@{}", bare.digest())]);
    assert!(why.out.contains("remedy    sign it at the registry"), "{why:?}");
    // its cache forgets one, and the ledger what it knew of it
    let gone = mesh.client(0).ask(Method::DELETE, &by(bundled.digest())).send();
    assert_eq!(gone.unwrap_or_else(|none| panic!("{none}")).status, 202);

    // a signature that comes later, and a key that is trusted later
    wait::until_ok("it is refused", || is_refused(&mesh, edge, &by("late"), "it is not signed"));
    set(&mesh, "hub", &json!({"signature_wait": "30"}));
    did(&ann.cosign2("sign", &ci, &[], &at(late.digest())));
    wait::until_ok("it is served", || is_served(&mesh, edge, &by("late")));
    trust(&mesh, "hub", "other", &other.pem());
    for at in 0..=edge {
        wait::until_ok("it is served", || is_served(&mesh, at, &by("foreign")));
    }
    set(&mesh, "hub", &json!({"signature_wait": "0"}));

    // what was decided counts without the upstream, and so does what is decided then
    upstream.behave(Manner::Refuse);
    for at in 0..=edge {
        for reference in [signed.digest(), late.digest(), child.digest()] {
            wait::until_ok("it is served", || is_served(&mesh, at, &by(reference)));
        }
    }
    wait::until_ok("it is refused", || is_refused(&mesh, edge, &by(bare.digest()), "not signed"));
    did(&signer(
        &mesh,
        &["revoke", "ci", "--project", "hub", "--compromised", "--reason", "lost", "--yes"],
    ));
    for at in 0..=edge {
        wait::until_ok("the key is revoked", || {
            is_refused(&mesh, at, &by(signed.digest()), "the signer ci is revoked: lost")
        });
        wait::until_ok("another's counts", || is_served(&mesh, at, &by(foreign.digest())));
    }
    wait::until_ok("for what it lists, too", || {
        is_refused(&mesh, edge, &by(child.digest()), "the signer ci is revoked: lost")
    });
    let all = format!("hub/team/app@{}", index.digest);
    let ordered = atoll(&mesh, 1, "exempt", &[&all, "--reason", "a night", "--until", &in_days(1)]);
    assert!(ordered.success && ordered.out.contains("with the 1 that it lists"), "{ordered:?}");
    for at in 0..=edge {
        for reference in [&*index.digest, child.digest()] {
            wait::until_ok("the index is exempted", || is_served(&mesh, at, &by(reference)));
        }
    }
    let why = atoll(&mesh, 1, "explain", &[&format!("hub/team/app@{}", child.digest())]);
    assert!(why.out.contains(&format!("has exempted the index {}", index.digest)), "{why:?}");
    did(&atoll(&mesh, 1, "exempt", &[&all, "--end"]));
    wait::until_ok("and not any more", || {
        is_refused(&mesh, 0, &by(child.digest()), "the signer ci is revoked: lost")
    });
    let exact = format!("hub/team/app@{}", late.digest());
    let away = [&*exact, "--reason", "the upstream is away", "--until", &in_days(1)];
    did(&atoll(&mesh, 1, "exempt", &away));
    for at in 0..=edge {
        wait::until_ok("somebody has a reason", || is_served(&mesh, at, &by(late.digest())));
    }
    wait::until("what is known of it is forgotten", || {
        let forgotten = "signatures of images are forgotten";
        (0..2).any(|at| mesh.members()[at].words().contains(forgotten)).then_some(())
    });

    // an edge that is cut off
    for member in &mesh.members()[..2] {
        member.stop(Signal::KILL);
    }
    assert_eq!(is_served(&mesh, edge, &by(foreign.digest())), Ok(()));
    assert_eq!(is_served(&mesh, edge, &by(late.digest())), Ok(()));
    for (reference, why) in [(signed.digest(), "revoked"), (bare.digest(), "not signed")] {
        // until it knows that nobody is there, it says that the upstream is being asked
        wait::until_ok("it is refused", || is_refused(&mesh, edge, &by(reference), why));
    }
}

#[test]
fn signatures_in_an_upstreams_list_of_referrers_are_found_and_a_warning_refuses_nothing() {
    let more = "upstreams: {allow_loopback: true, fresh_for: 1s, missing_for: 1s}\n";
    let mesh = Formed::of(&TWO[..1], more);
    create_project(&mesh.client(0), "own", true, 1);
    let image = Image::random(&[64]);
    mesh.repository(0, "own/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let authority = mesh.members()[0].place().http.to_string();
    let ann = Signers::new(&authority, "admin", mesh.password());
    let ci = ann.key("ci", P256);
    let url = format!("http://{authority}");
    let registry = json!({"name": "self", "url": url, "type": "docker-registry"});
    let registry = id_of(&make(&mesh.client(0), REGISTRIES, &registry));
    let project = json!({
        "project_name": "cache", "registry_id": registry,
        "metadata": {"public": "true", "signature_policy": "warn"},
    });
    make(&mesh.client(0), PROJECTS, &project);
    trust(&mesh, "cache", "ci", &ci.pem());
    let path = "/v2/cache/own/app/manifests/1";
    is_served(&mesh, 0, path).expect("it is only warned of");
    let unsigned = |count: u64| {
        let said = mesh.client(0).get("/api/v2.0/projects/cache/unsigned").ok()?.json();
        (said["refused_in_all"] == json!(count)).then_some(())
    };
    wait::until("it would be refused", || unsigned(1));
    did(&ann.cosign3("sign", &ci, false, &[], &format!("own/app@{}", image.digest())));
    wait::until("a pull has found that it is signed", || {
        is_served(&mesh, 0, path).ok()?;
        unsigned(0)
    });
    set(&mesh, "cache", &json!({"signature_policy": "enforce"}));
    is_served(&mesh, 0, path).expect("it is signed");

    // notation's
    let other = Image::random(&[65]);
    mesh.repository(0, "own/app").push(&other, "2").unwrap_or_else(|no| panic!("{no}"));
    process::succeed(ann.command("notation").args(["cert", "generate-test", "--default", "x"]));
    let certificate = ann.at("notation/localkeys/x.crt");
    let certificate = std::fs::read_to_string(certificate).expect("a certificate");
    let signer = json!({"name": "acme", "authority": {"certificates": certificate}});
    make(&mesh.client(0), &format!("{PROJECTS}/cache/signers"), &signer);
    let path = "/v2/cache/own/app/manifests/2";
    wait::until_ok("it is refused", || is_refused(&mesh, 0, path, "it is not signed"));
    let login = ["--username", "admin", "--password", mesh.password()];
    did(&ann.notation("sign", &login, &format!("own/app@{}", other.digest())));
    wait::until_ok("it is served", || is_served(&mesh, 0, path));
}

/// A registry of this name, and a project that caches it.
fn cache(mesh: &Formed, name: &str, upstream: &Upstream) {
    create_proxy(&mesh.client(0), name, "docker-registry", upstream.url(), true);
}

#[test]
fn an_upstream_that_is_slow_away_or_lies_keeps_nobody_from_what_is_known() {
    let more = "upstreams: {allow_loopback: true, fresh_for: 1s, missing_for: 1s, questions: 120, questions_per_minute: 1}\n";
    let mesh = Formed::of(&TWO[..1], more);
    let (slow, quick) = (Upstream::start(), Upstream::start());
    for (name, upstream) in [("slow", &slow), ("hub", &quick)] {
        cache(&mesh, name, upstream);
    }
    let ann = Signers::new(quick.authority(), "any", "body");
    let ci = ann.key("ci", P256);
    let [signed, bare, long] = [64, 65, 66].map(|size| Image::random(&[size]));
    let there = quick.repository("team/app");
    for (image, tag) in [(&signed, "signed"), (&bare, "bare"), (&long, "long")] {
        there.push(image, tag).unwrap_or_else(|no| panic!("{no}"));
        is_served(&mesh, 0, &by(image.digest())).expect("there is no policy yet");
    }
    for image in [&signed, &long] {
        did(&ann.cosign2("sign", &ci, &[], &format!("team/app@{}", image.digest())));
    }
    trust(&mesh, "hub", "ci", &ci.pem());

    // a manifest that says of a signature's blob that it is shorter than it is
    let sig = format!("{}.sig", long.digest().replace(':', "-"));
    let right = there.manifest(&sig).unwrap_or_else(|no| panic!("{no}")).1;
    let mut lies: Value = serde_json::from_slice(&right).expect("a manifest");
    let size = lies["layers"][0]["size"].as_u64().expect("a size");
    lies["layers"][0]["size"] = json!(size - 1);
    there.put_bytes(&sig, MANIFEST, lies.to_string().into()).unwrap_or_else(|no| panic!("{no}"));
    set(&mesh, "hub", &json!({"signature_policy": "enforce"}));
    wait::until_ok("it is no signature", || {
        is_refused(&mesh, 0, &by(long.digest()), "a cosign signature does not count")
    });
    there.put_bytes(&sig, MANIFEST, right).unwrap_or_else(|no| panic!("{no}"));
    wait::until_ok("the right one is", || is_served(&mesh, 0, &by(long.digest())));

    // more is asked of an upstream that thinks for long than there are places for one client
    let eager: Vec<Image> = (0..40).map(|n| Image::random(&[70 + n])).collect();
    let path = |image: &Image| format!("/v2/slow/team/app/manifests/{}", image.digest());
    for image in &eager {
        let pushed = slow.repository("team/app").push(image, "any");
        pushed.unwrap_or_else(|no| panic!("{no}"));
        is_served(&mesh, 0, &path(image)).expect("there is no policy yet");
    }
    set(&mesh, "slow", &json!({"signature_policy": "enforce"}));
    slow.think(Duration::from_secs(600));
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asks = eager.iter().map(|image| {
            let path = path(image);
            scope.spawn(|| pull(&mesh, 0, Method::GET, &{ path }))
        });
        let asks: Vec<_> = asks.collect();
        asks.into_iter().map(|ask| ask.join().expect("an answer")).collect()
    });
    for answer in answers {
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{answer}");
    }
    // they are asked for still, and others have their turn
    wait::until_ok("another project's is found", || is_served(&mesh, 0, &by(signed.digest())));

    // a client that has no questions left
    let asked = (0..1_000).map(|n| pull(&mesh, 0, Method::GET, &by(&format!("none{n}"))).status);
    assert!(asked.take_while(|status| *status != 429).count() < 1_000);
    assert_eq!(pull(&mesh, 0, Method::GET, &by(bare.digest())).status, 429);
    assert_eq!(is_served(&mesh, 0, &by(signed.digest())), Ok(()), "what is known needs none");
    set(&mesh, "hub", &json!({"signature_policy": "warn"}));
    wait::until_ok("it is only warned of", || is_served(&mesh, 0, &by(bare.digest())));
    for _ in 0..3 {
        assert_eq!(is_served(&mesh, 0, &by(bare.digest())), Ok(()), "with 429 and 503 nowhere");
    }

    // an upstream that is away is not waited for: another client, which has questions, is refused
    quick.behave(Manner::Refuse);
    set(&mesh, "hub", &json!({"signature_policy": "enforce", "signature_wait": "60"}));
    let other = mesh.members()[0].anyone().from("127.0.0.2");
    wait::until_ok("it is refused, and not told to come again", || {
        let answer = other.get(&by(bare.digest())).map_err(|none| none.to_string())?;
        let said = answer.envelope().unwrap_or_default().1;
        match answer.status == 403 && said.contains("its upstream could not be asked") {
            true => Ok(()),
            false => Err(answer.to_string()),
        }
    });
}
