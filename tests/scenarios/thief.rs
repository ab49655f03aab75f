//! Somebody has the disk of a replica. The mesh goes on with new keys, and what can be made with the
//! old ones counts for nothing.
//!
//! The thief has the CA's key, so it can sign certificates for any node, the keys that seal, and with
//! them those that sign tokens.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Method;
use mesh::identity::Identity;
use rules::ledger::records::Role;
use rules::wire::{Ask, SealingAsk};
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::NodeId;
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::formed::Formed;
use tests::image::Image;
use tests::intruder::{Intruder, forged, stolen};
use tests::people;
use tests::process::{self, Finished};
use tests::proxies::{REGISTRIES, id_of, make, make_project};
use tests::repository::Repository;
use tests::upstream::Upstream;
use tests::wait;

const FIVE: [(&str, &str); 5] = [
    ("one", "us-east-1"),
    ("two", "us-west-2"),
    ("three", "eu-central-1"),
    ("four", "us-east-1"),
    ("five", "us-west-2"),
];
/// Every pull asks the upstream, with its password.
const MORE: &str = "upstreams: {allow_loopback: true, fresh_for: 0s, missing_for: 0s}\n";
/// The stolen replica; one that is down while it is removed.
const STOLEN: usize = 3;
const AWAY: usize = 4;

#[test]
fn what_a_stolen_replica_knew_counts_for_nothing_and_no_pull_fails() {
    // from before there were keys that seal: what the first CA's key has hashed must count on
    let mut mesh = Formed::at_level(&FIVE, MORE, 5);
    let edge = mesh.add_edge("edge", "us-east-1", MORE);
    mesh.members()[edge].wait_ready();
    let image = Image::tiny();
    mesh.repository(0, "demo/app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let upstream = Upstream::start();
    upstream.demand("ann", "hidden word");
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let what = json!({"name": "up", "url": upstream.url(), "type": "docker-registry",
        "credential": {"access_key": "ann", "access_secret": "hidden word"}});
    let registry = id_of(&make(&mesh.client(0), REGISTRIES, &what));
    make_project(&mesh.client(0), "hub", &registry);
    let robot = people::create_robot(&mesh.client(0), &people::robot_of("demo", "ci", &["pull"]));
    let late_token = mesh.members()[0].invite();
    let token = token_at(&mesh, 1);
    assert_eq!(with_token(&mesh, 0, &token), 200, "while it counts");
    let raised = mesh.client(1).ask(Method::POST, "/api/atoll/v1/level").send();
    let raised = raised.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(raised.status, 200, "{raised}");
    wait::until(
        "the mesh knows its nodes by their keys, and seals under keys of their own",
        || {
            let trust = mesh.status(0).ok()?["trust"].clone();
            let known = trust["unknown_keys"].as_array().is_some_and(Vec::is_empty);
            (known && trust["sealing_key"] == 1).then_some(())
        },
    );
    let thief = stolen(&mesh.members()[STOLEN].data());
    let others: Vec<Identity> =
        mesh.members().iter().map(|member| stolen(&member.data())).collect();
    let sealing = std::fs::read(mesh.members()[STOLEN].data().join("identity/sealing.keys"));
    let sealing = sealing.expect("the keys that seal");
    mesh.members()[AWAY].stop(Signal::KILL);

    let (over, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|beside| {
        beside.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let round = rounds.fetch_add(1, Ordering::SeqCst);
                let at = [0, 1, 2, edge][round % 4];
                let anyone = Repository::new(&mesh.members()[at].anyone(), "demo/app");
                anyone.pull("1").unwrap_or_else(|no| panic!("{round} at {at}: {no}"));
                let there = mesh.repository(round % 3, "demo/app");
                there.push(&Image::tiny(), "2").unwrap_or_else(|no| panic!("{round}: {no}"));
            }
        });
        wait::until("pulls go on", || (rounds.load(Ordering::SeqCst) > 3).then_some(()));
        let removed = remove(&mesh, 1, "four");
        assert!(removed.success, "{}{}", removed.out, removed.err);
        for part in ["registries, which the disk has: up", "users", "admin", "demo+ci", "new keys"]
        {
            assert!(removed.out.contains(part), "{part}: {}", removed.out);
        }
        let before = rounds.load(Ordering::SeqCst);
        wait::until("pulls go on", || (rounds.load(Ordering::SeqCst) > before + 8).then_some(()));
        over.store(true, Ordering::SeqCst);
    });
    let members = || [0, 1, 2, edge].map(|at| &mesh.members()[at]);
    wait::until("every node has a certificate of the new CA", || {
        members().iter().all(|m| stolen(&m.data()).authority.version() == 1).then_some(())
    });
    assert!(stolen(&mesh.members()[edge].data()).authority.key.trim().is_empty());
    let kept = std::fs::read(mesh.members()[0].data().join("identity/sealing.keys"));
    assert_ne!(kept.expect("the keys that seal"), sealing, "there is a new key");
    assert_eq!(with_token(&mesh, 0, &token), 401, "a token of before, at a replica");
    wait::until("a token of before, at an edge", || {
        (with_token(&mesh, edge, &token) == 401).then_some(())
    });

    // the one that was away knows the old CA only, and hears of the new one by the others' keys
    mesh.members()[AWAY].serve();
    mesh.members()[AWAY].wait_ready();
    wait::until("it has a certificate of the new CA", || {
        (stolen(&mesh.members()[AWAY].data()).authority.version() == 1).then_some(())
    });
    for at in [0, 1, 2, AWAY] {
        wait::until("robots sign in", || {
            let robot = mesh.members()[at].anyone().basic(&robot.name, &robot.secret);
            (robot.get("/v2/").ok()?.status == 200).then_some(())
        });
        let hub = Repository::new(&mesh.members()[at].anyone(), "hub/app");
        wait::until_ok("upstreams are asked with their passwords", || hub.pull("1"));
    }

    is_nobody(&mesh, &thief, &others);

    // invitations name the CA of before
    let late = mesh.prepare("late", "ap-south-1", MORE);
    assert!(!late.join(&late_token).success, "an invitation of before");
    late.must_join(&mesh.members()[2].invite());
    late.serve();
    late.wait_ready();
    wait::until("it checks what was hashed before it came", || {
        let robot = late.anyone().basic(&robot.name, &robot.secret);
        (robot.get("/v2/").ok()?.status == 200).then_some(())
    });
    let hub = Repository::new(&late.anyone(), "hub/app");
    wait::until_ok("it opens what was sealed before it came", || hub.pull("1"));
    // and everything is there after a restart
    for at in [0, 1, 2, AWAY, edge] {
        mesh.members()[at].stop(Signal::TERM);
    }
    for at in [0, 1, 2, AWAY, edge] {
        mesh.members()[at].serve();
    }
    for at in [0, 1, 2, AWAY, edge] {
        mesh.members()[at].wait_ready();
        wait::until_ok("pulls after a restart", || {
            Repository::new(&mesh.members()[at].anyone(), "demo/app").pull("1")
        });
    }
    wait::until_ok("pushes after a restart", || mesh.repository(0, "demo/app").push(&image, "3"));
}

/// Nothing that the thief can show opens anything at any node.
fn is_nobody(mesh: &Formed, thief: &Identity, others: &[Identity]) {
    let now = Timestamp(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0)),
    );
    let mut shown = vec![("its own".to_owned(), thief.clone())];
    let fresh = NodeId(0x7e57_0000_0000_0001);
    shown.push(("a new replica".into(), forged(&thief.authority, fresh, Role::Replica, now)));
    shown.push(("a new edge".into(), forged(&thief.authority, fresh, Role::Edge, now)));
    for other in others {
        for role in [Role::Replica, Role::Edge] {
            let forged = forged(&thief.authority, other.node, role, now);
            shown.push((format!("another's name, as {}", role.name()), forged));
        }
    }
    let asks = [
        Ask::Build,
        Ask::ReadIndex,
        Ask::Raft { kind: 2, body: vec![] },
        Ask::Present,
        Ask::Sealing(SealingAsk::Give(Digest::sha256(b"any"))),
    ];
    for at in [0, 1, 2, AWAY] {
        let place = mesh.members()[at].place().mesh.parse().expect("an address");
        for (what, identity) in &shown {
            let intruder = Intruder::with(identity);
            for ask in &asks {
                let refused = intruder
                    .knock(place)
                    .map_or(true, |open| intruder.ask(&open, ask).is_refusal());
                assert!(refused, "{what}: {ask:?} at {at}");
            }
        }
    }
}

/// `atoll remove NAME --compromised`, asked of the node `at`.
fn remove(mesh: &Formed, at: usize, name: &str) -> Finished {
    let url = format!("http://{}", mesh.members()[at].place().http);
    let password = mesh.members()[0].data().join("admin-password");
    let mut command = mesh.members()[at].atoll("remove");
    let flags = ["--yes", "--compromised", "--url", &url, "--password-file"];
    process::finish(command.arg(name).args(flags).arg(password))
}

/// A token of the administrator, from the node `at`.
fn token_at(mesh: &Formed, at: usize) -> String {
    let path = "/service/token?service=atoll&scope=registry:catalog:*";
    let answer = mesh.client(at).get(path).unwrap_or_else(|none| panic!("{none}"));
    let json: Value = answer.json();
    json["token"].as_str().expect("a token").to_owned()
}

/// The status of a request with this token.
fn with_token(mesh: &Formed, at: usize, token: &str) -> u16 {
    let answer = mesh.members()[at].anyone().bearer(token).get("/v2/");
    answer.unwrap_or_else(|none| panic!("{none}")).status
}
