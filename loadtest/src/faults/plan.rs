//! What happens in a trial, decided by its seed alone: which faults, when, to whom, how long, over
//! which network.

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::network::{PROFILES, Profile};

/// Kinds of faults.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// kill -9, and back within 0.3 s
    Blink,
    /// kill -9, and back after seconds
    Kill,
    /// SIGSTOP, and SIGCONT later
    Stop,
    /// kill -9, and what was not synced is lost or torn
    Power,
    /// A node hears nobody, and nobody it
    Cut,
    /// Two nodes do not hear each other, all others do
    Pair,
    /// A node is not heard, but hears
    Deaf,
    /// A node is cut off and back, again and again
    Flap,
    /// Packets are lost and late
    Weather,
    /// A disk whose syncs take long
    Slow,
    /// A disk whose syncs do not come back
    Hang,
    /// A disk whose syncs fail
    Fail,
    /// A disk that is full
    Full,
    /// A clock that jumps, forwards or back
    Clock,
    /// A disk is gone; the replica is removed, and joins anew under its name
    Replace,
}

impl Kind {
    /// Its name in reports and on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Whom a fault befalls; who leads is looked up when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// The ledger's leader.
    Leader,
    /// The primary of the project that is written to.
    Primary,
    /// Both, in the same moment; one node if they are one.
    Both,
    /// This node.
    Node(usize),
    /// Every node.
    All,
}

/// One fault of a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault {
    /// What happens.
    pub(crate) kind: Kind,
    /// To whom.
    pub(crate) victim: Victim,
    /// Seconds after the trial's begin.
    pub(crate) at: f64,
    /// For so many seconds.
    pub(crate) lasts: f64,
    /// How bad it is, from 0 to 1, where there are degrees.
    pub(crate) degree: f64,
}

/// A whole trial.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Where it comes from.
    pub(crate) seed: u64,
    /// The network between the nodes, apart from faults.
    pub(crate) network: Profile,
    /// Its faults, by their begin.
    pub(crate) faults: Vec<Fault>,
}

/// How long clients work before the first fault, and after the last, in seconds.
const CALM: f64 = 1.5;

impl Plan {
    /// The trial of a seed, among so many nodes, of some of `kinds`.
    pub(crate) fn of(seed: u64, replicas: usize, edges: usize, kinds: &[Kind]) -> Self {
        let dice = &mut StdRng::seed_from_u64(seed);
        let network = PROFILES[[0, 0, 1, 2][dice.random_range(0..4)]];
        // one trial in four is a storm: several at once; the others have one kind, so that a table
        // of kinds says something
        let storm = dice.random_range(0..4) == 0 && kinds != [Kind::Replace];
        let count = if storm { dice.random_range(2..5) } else { 1 };
        // what is durable twice stands the loss of one disk, and of no other one meanwhile
        let kinds: Vec<_> = kinds.iter().filter(|kind| !storm || **kind != Kind::Replace).collect();
        let mut faults = Vec::new();
        for _ in 0..count {
            let Some(kind) = kinds.choose(dice) else { break };
            let mut at = CALM;
            for _ in 0..repeats(**kind, dice) {
                let lasts = lasts(**kind, dice);
                let victim = match kind {
                    Kind::Replace => victim(**kind, replicas, dice),
                    _ => victim(**kind, replicas + edges, dice),
                };
                faults.push(Fault { kind: **kind, victim, at, lasts, degree: dice.random() });
                at += lasts + dice.random_range(0.3..2.5);
            }
        }
        faults.sort_by(|one, other| one.at.total_cmp(&other.at));
        Plan { seed, network, faults }
    }

    /// Seconds from the first request of a client to the last.
    pub(crate) fn lasts(&self) -> f64 {
        let end = self.faults.iter().map(|fault| fault.at + fault.lasts).fold(0.0, f64::max);
        end + CALM
    }

    /// Its kinds, each once.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = self.faults.iter().map(|fault| fault.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

/// How often it happens in one trial. Short ones come again before the mesh has got over them.
fn repeats(kind: Kind, dice: &mut StdRng) -> usize {
    match kind {
        Kind::Blink => dice.random_range(2..6),
        Kind::Kill | Kind::Power | Kind::Clock | Kind::Pair => dice.random_range(1..4),
        Kind::Stop | Kind::Cut | Kind::Deaf | Kind::Full | Kind::Fail => dice.random_range(1..3),
        Kind::Flap | Kind::Weather | Kind::Slow | Kind::Hang | Kind::Replace => 1,
    }
}

/// How long it lasts, in seconds: some shorter than what the mesh notices, some longer.
fn lasts(kind: Kind, dice: &mut StdRng) -> f64 {
    match kind {
        Kind::Blink => dice.random_range(0.0..0.3),
        Kind::Kill | Kind::Power | Kind::Replace => dice.random_range(0.5..12.0),
        // a stopped node comes back as what it was, with clocks that went on: the worst is long
        Kind::Stop if dice.random_range(0..8) == 0 => dice.random_range(20.0..60.0),
        Kind::Stop | Kind::Cut | Kind::Pair | Kind::Deaf => dice.random_range(0.2..15.0),
        Kind::Flap | Kind::Weather | Kind::Slow => dice.random_range(8.0..25.0),
        Kind::Hang => dice.random_range(0.5..20.0),
        Kind::Fail | Kind::Full => dice.random_range(0.2..8.0),
        Kind::Clock => dice.random_range(2.0..10.0),
    }
}

fn victim(kind: Kind, nodes: usize, dice: &mut StdRng) -> Victim {
    let any = Victim::Node(dice.random_range(0..nodes));
    match (kind, dice.random_range(0..10)) {
        (Kind::Weather, _) => Victim::All,
        (Kind::Power, 0) | (Kind::Slow, 0..3) => Victim::All,
        (Kind::Kill | Kind::Blink | Kind::Stop, 0) => Victim::All,
        (Kind::Kill | Kind::Blink | Kind::Stop | Kind::Power, 1..3) => Victim::Both,
        (_, 3..6) => Victim::Leader,
        (_, 6..8) => Victim::Primary,
        _ => any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Kind; 3] = [Kind::Blink, Kind::Power, Kind::Cut];

    #[test]
    fn a_seed_says_everything() {
        assert_eq!(Plan::of(7, 3, 1, &ALL), Plan::of(7, 3, 1, &ALL));
        let plans: Vec<_> = (0..50).map(|seed| Plan::of(seed, 3, 1, &ALL)).collect();
        assert!(plans.iter().all(|plan| !plan.faults.is_empty() && plan.lasts() > 2.0 * CALM));
        assert!(plans.iter().any(|plan| plan.kinds().len() > 1), "there are storms");
        assert!(plans.iter().all(|plan| plan.faults.iter().all(|fault| fault.at >= CALM)));
        for kind in ALL {
            assert!(plans.iter().any(|plan| plan.kinds() == [kind]), "{kind:?} alone");
        }
    }

    #[test]
    fn only_what_was_asked_for_happens() {
        for seed in 0..20 {
            assert_eq!(Plan::of(seed, 3, 1, &[Kind::Clock]).kinds(), [Kind::Clock]);
        }
    }
}
