//! A voter of the ledger that is gone for good is replaced by another node, so that the mesh
//! survives the next loss, too.
//!
//! Five nodes in three regions, of which three vote. One of them dies for good: another votes in
//! its place. Then a second one dies, which three voters of which one is dead would not have
//! survived, and pushes still go through.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use tests::formed::Formed;
use tests::image::Image;
use tests::wait;

const SOON: &str = "failover: {replace_voter_after: 3s}\n";
const SITES: [(&str, &str); 5] = [
    ("one", "us-east-1"),
    ("two", "us-west-2"),
    ("three", "eu-central-1"),
    ("four", "us-west-2"),
    ("five", "us-east-1"),
];

#[test]
fn a_voter_that_is_gone_for_good_is_replaced_and_the_next_loss_is_survived() {
    let mesh = Formed::of(&SITES, SOON);
    let image = Image::tiny();
    wait::until_ok("a push", || mesh.repository(0, "demo/heal").push(&image, "0"));
    let mut dead = BTreeSet::new();
    for round in 1..=2 {
        // the first voter, whichever node leads
        let voting = voters(&mesh, &dead);
        let victim = (0..SITES.len())
            .find(|at| !dead.contains(at) && voting.contains(SITES[*at].0))
            .expect("a voter");
        mesh.members()[victim].stop(Signal::KILL);
        dead.insert(victim);
        let living = (0..SITES.len()).find(|at| !dead.contains(at)).expect("a living node");
        let tag = round.to_string();
        wait::until_ok("a push goes through", || {
            mesh.repository(living, "demo/heal").push(&image, &tag)
        });
        wait::until("three living nodes vote", || {
            let status = mesh.status(living).ok()?;
            let now = named(&status["ledger"]["voters"]);
            let gone = dead.iter().any(|at| now.contains(SITES[*at].0));
            (now.len() == 3 && !gone).then_some(())
        });
    }
    for at in (0..SITES.len()).filter(|at| !dead.contains(at)) {
        for tag in ["0", "1", "2"] {
            let found = wait::until_ok("every push is there", || {
                mesh.repository(at, "demo/heal").pull(tag)
            });
            assert_eq!(found.digest, image.digest(), "{tag} at {at}");
        }
    }
}

#[test]
fn a_replica_that_moves_is_told_of_once() {
    let mut mesh = Formed::of(&SITES[..3], "");
    mesh.members()[2].stop(Signal::TERM);
    // the same folder, the same name, other ports
    let moved = mesh.prepare(SITES[2].0, SITES[2].1, "");
    moved.serve();
    moved.wait_ready();
    let address = moved.place().mesh.clone();
    mesh.add(moved);
    wait::until("the ledger has its new address", || {
        let status = mesh.status(0).ok()?;
        status["nodes"]
            .as_array()?
            .iter()
            .any(|node| node["address"] == address.as_str())
            .then_some(())
    });
    let applied = || {
        let status = mesh.status(0).unwrap_or_else(|no| panic!("{no}"));
        status["ledger"]["applied"].as_u64().unwrap_or_else(|| panic!("{status}"))
    };
    // the leader looks five times a second: if each look wrote an entry, nothing else of membership
    // would ever go on
    wait::until("the leader is content", || {
        let before = applied();
        std::thread::sleep(Duration::from_secs(2));
        (applied() <= before + 1).then_some(())
    });
    let late = mesh.prepare("late", "ap-south-1", "");
    late.must_join(&mesh.members()[0].invite());
    late.serve();
    late.wait_ready();
}

fn voters(mesh: &Formed, dead: &BTreeSet<usize>) -> BTreeSet<String> {
    let living = (0..SITES.len()).find(|at| !dead.contains(at)).expect("a living node");
    wait::until("a node names the voters", || {
        let now = named(&mesh.status(living).ok()?["ledger"]["voters"]);
        (now.len() == 3).then_some(now)
    })
}

fn named(list: &serde_json::Value) -> BTreeSet<String> {
    let all = list.as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}
