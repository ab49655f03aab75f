//! Secrets in the ledger are sealed under a key that every replica has, and nobody else. It has
//! nothing to do with the CA's.
//!
//! A mesh of the level before gets such a key when the level is raised, without an outage: what was
//! sealed is sealed anew, robots of before still sign in, and a replica that joins later is handed
//! the key.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Method;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use rustix::process::Signal;
use serde_json::json;
use tests::formed::Formed;
use tests::image::Image;
use tests::member::Member;
use tests::people;
use tests::proxies::{REGISTRIES, id_of, make, make_project};
use tests::repository::Repository;
use tests::upstream::Upstream;
use tests::wait;

const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];
/// Every pull asks the upstream, with its password.
const MORE: &str = "upstreams: {allow_loopback: true, fresh_for: 0s, missing_for: 0s}\n";
/// The level before there were such keys.
const BEFORE: u32 = 5;

#[test]
fn a_mesh_of_the_level_before_gets_a_key_of_its_own_while_it_serves() {
    let mut mesh = Formed::at_level(&THREE, MORE, BEFORE);
    let edge = mesh.add_edge("edge", "us-east-1", MORE);
    mesh.members()[edge].wait_ready();
    let upstream = Upstream::start();
    upstream.demand("ann", "hidden word");
    let image = Image::tiny();
    upstream.repository("app").push(&image, "1").unwrap_or_else(|no| panic!("{no}"));
    let what = json!({"name": "up", "url": upstream.url(), "type": "docker-registry",
        "credential": {"access_key": "ann", "access_secret": "hidden word"}});
    let registry = id_of(&make(&mesh.client(0), REGISTRIES, &what));
    make_project(&mesh.client(0), "hub", &registry);
    let robot = people::create_robot(&mesh.client(0), &people::robot_of("demo", "ci", &["pull"]));
    let signs_in = |at: usize| {
        let answer = mesh.members()[at].anyone().basic(&robot.name, &robot.secret).get("/v2/");
        let answer = answer.unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(answer.status, 200, "the robot at {at}: {answer}");
    };
    (0..3).for_each(signs_in);
    assert!(mesh.members()[..3].iter().all(|member| keys(member).is_none()));

    let (over, pulls) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|beside| {
        beside.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let at = pulls.fetch_add(1, Ordering::SeqCst) % 3;
                let there = Repository::new(&mesh.members()[at].anyone(), "hub/app");
                there.pull("1").unwrap_or_else(|no| panic!("at {at}: {no}"));
                mesh.repository(at, "demo/app")
                    .push(&image, "1")
                    .unwrap_or_else(|no| panic!("at {at}: {no}"));
            }
        });
        let raised = mesh.client(1).ask(Method::POST, "/api/atoll/v1/level").send();
        let raised = raised.unwrap_or_else(|none| panic!("{none}"));
        assert_eq!(raised.status, 200, "{raised}");
        wait::until("every replica has the key", || {
            let all: Option<Vec<_>> = mesh.members()[..3].iter().map(keys).collect();
            let all = all?;
            (all.len() == 3 && all.iter().all(|keys| *keys == all[0])).then_some(())
        });
        let pulled = pulls.load(Ordering::SeqCst);
        wait::until("pulls go on", || (pulls.load(Ordering::SeqCst) > pulled + 6).then_some(()));
        over.store(true, Ordering::SeqCst);
    });
    assert!(keys(&mesh.members()[edge]).is_none(), "an edge gets none");
    (0..3).for_each(signs_in);

    let late = mesh.prepare("late", "ap-south-1", MORE);
    late.must_join(&mesh.members()[2].invite());
    late.serve();
    late.wait_ready();
    wait::until("who joins later is handed the key", || {
        (keys(&late)? == keys(&mesh.members()[0])?).then_some(())
    });
    // while it waits for the key it says so, with a 503
    wait::until_ok("it asks the upstream with the password", || {
        Repository::new(&late.anyone(), "hub/app").pull("1")
    });

    wait::until("all is sealed anew", || {
        let sealed = mesh.members()[0].data();
        sealed_under(&sealed, mesh.members()).then_some(())
    });
    for at in 0..3 {
        mesh.members()[at].serve();
    }
    for at in 0..3 {
        mesh.members()[at].wait_ready();
        wait::until_ok("the key is there after a restart", || {
            Repository::new(&mesh.members()[at].anyone(), "hub/app").pull("1")
        });
    }
    (0..3).for_each(signs_in);
}

/// The keys on a node's disk, if it has some.
fn keys(member: &Member) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let file = member.data().join("identity/sealing.keys");
    let text = std::fs::read_to_string(&file).ok()?;
    let mode = file.metadata().expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{}", file.display());
    Some(text)
}

/// Stops the first three nodes, and looks into the ledger of one: whether its secrets are sealed
/// under the new key. Starts them again if not.
fn sealed_under(data: &std::path::Path, members: &[Member]) -> bool {
    for member in &members[..3] {
        member.stop(Signal::TERM);
    }
    let (old, new) = {
        const STATE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("state-1");
        let database = redb::Database::open(data.join("ledger/ledger.redb")).expect("a ledger");
        let read = database.begin_read().expect("a transaction");
        let table = read.open_table(STATE).expect("records");
        let (mut old, mut new) = (0, 0);
        for pair in table.iter().expect("records") {
            let (_, value) = pair.expect("a record");
            let text = String::from_utf8_lossy(value.value()).into_owned();
            old += text.matches("sealed1.").count();
            new += text.matches("sealed2.1.").count();
        }
        (old, new)
    };
    // a password, a key that signs tokens, and the secret that did before
    if old == 0 && new >= 3 {
        return true;
    }
    for member in &members[..3] {
        member.serve();
    }
    for member in &members[..3] {
        member.wait_ready();
    }
    false
}
