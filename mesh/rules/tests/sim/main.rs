//! The simulator: a whole mesh in one thread, driven by one seed.
//!
//! Every node runs the real rules: `apply`, `Granter` and `Holder`, `Unreleased`, `Roster`,
//! `Failover`, `placement`. Around them the world is made up: virtual time, links with latency and
//! loss, partitions, disks that take their time, crashes that lose what was not synced (of the log
//! and of the state), leaders that are back before anybody missed them, disks that are replaced by older
//! ones while whoever knows better is there, processes that are stopped
//! and woken, clocks that run at different rates. The consensus is a small Raft with pre-vote and
//! leader stickiness (`consensus`), because the rules lean on what it promises.
//!
//! What is checked (`history`): acknowledged writes and fresh reads are linearizable; a conditional
//! write replaces only what its writer expected, and one that was told it lost never takes effect;
//! every node applies the same entries to the same records; no two processes lead by one ballot; no write is
//! committed under two primaries; nothing acknowledged is lost; and once the faults end, the mesh
//! commits again and every project goes home. Primaries sign (`signing`): the sign log is whole, and has
//! nothing of a node that was not the primary, and nothing by a key that had been replaced.

mod consensus;
mod dice;
mod history;
mod node;
mod returning;
mod signing;
mod world;

use std::time::Duration;

use node::Broken;
use rules::ledger::lease::LeaseTerms;
use world::{Faults, World};

#[expect(
    clippy::disallowed_methods,
    reason = "which seed to run is for whoever runs the test to say"
)]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// One seed of trouble: `ATOLL_SIM_SEED=n cargo test -p rules --test sim one_seed` runs it alone.
fn run(seed: u64) {
    let mut world = World::new(seed, Faults::All);
    world.run_troubled(25);
    world.run_healed();
    world.check_end();
}

#[test]
fn a_thousand_seeds_of_trouble_keep_every_promise() {
    let total = number("ATOLL_SIM_SEEDS", 1000);
    let (mut acknowledged, mut reads, mut moves, mut won, mut lost) = (0, 0, 0, 0, 0);
    let mut old_disks = 0;
    let (mut signed, mut epochs) = (0, 0);
    for seed in 0..total {
        let mut world = World::new(seed, Faults::All);
        world.run_troubled(25);
        world.run_healed();
        world.check_end();
        acknowledged += world.history.acknowledged();
        reads += world.history.fresh_reads();
        moves += world.moves();
        old_disks += world.old_disks();
        let logged = world.logged();
        (signed, epochs) = (signed + logged.values().sum::<u64>(), epochs + logged.len());
        let contests = world.history.contests();
        (won, lost) = (won + contests.0, lost + contests.1);
    }
    // a simulator in which nothing happens proves nothing
    assert!(acknowledged > total * 10, "only {acknowledged} writes were acknowledged");
    assert!(reads > total * 20, "only {reads} fresh reads");
    assert!(moves > total / 4, "projects moved only {moves} times");
    assert!(won > total && lost > total, "of the conditional writes {won} won and {lost} lost");
    assert!(old_disks > total / 20, "only {old_disks} old disks were noticed");
    assert!(signed > total * 5, "only {signed} signatures are in the logs");
    assert!(epochs as u64 > total + total / 10, "of {epochs} epochs in all");
    println!(
        "{total} seeds: {old_disks} old disks, {acknowledged} writes acknowledged, {reads} fresh reads, {moves} failovers; {won} conditional writes won, {lost} lost"
    );
}

#[test]
fn one_seed() {
    run(number("ATOLL_SIM_SEED", 7));
}

#[test]
fn without_trouble_no_project_ever_moves() {
    for seed in 0..20 {
        let mut world = World::new(seed, Faults::LossOnly);
        world.run_troubled(60);
        assert_eq!(world.moves(), 0, "seed {seed}: a failover without a failure");
    }
}

/// Seeds of trouble under long leases, with a rule broken: how many show it.
fn caught(broken: Broken, seeds: u64) -> usize {
    let lease = LeaseTerms { duration: Duration::from_secs(12) };
    let shows = |seed: &u64| {
        let mut world = World::with(*seed, Faults::All, lease, broken);
        world.run_troubled(25);
        if broken == Broken::AnybodySigns {
            // a deposed primary signs when it wakes
            world.run_healed();
        }
        world.history.violation().is_some()
    };
    (0..seeds).filter(shows).count()
}

#[test]
fn broken_rules_are_caught_and_whole_ones_are_not() {
    assert_eq!(caught(Broken::Nothing, 100), 0);
    for broken in [
        Broken::HastyLeaders,
        Broken::ForgetfulLeaders,
        Broken::EagerReaders,
        Broken::GreedyHolders,
        Broken::RestoredLeaders,
        Broken::EarlyJudges,
        Broken::TrustedDisks,
        Broken::AnybodySigns,
    ] {
        // few primaries are deposed at the right moment
        let seeds = if broken == Broken::AnybodySigns { 600 } else { 200 };
        let seen = caught(broken, seeds);
        println!("{broken:?}: {seen} of {seeds} seeds show it");
        assert!(seen > 0, "{broken:?} went unnoticed: the simulator is blind");
    }
}
