//! Which replicas vote in the ledger, and the next step towards that.
//!
//! There are five voters if there are five regions, otherwise three, and one in each region as far
//! as possible. A voter remains a voter while it is away for a while. When it has been down for
//! [`VoterTerms::hold_down`], it is replaced by a replica that is live and caught up, preferably of
//! its own region. No other replica becomes a voter, so a dead candidate is skipped and blocks
//! nothing. One that drains is replaced in the same way, without that delay. A step is taken only if
//! a majority of the voters before it and of the voters after it is live (both must agree: Ongaro's
//! thesis, 4.3), and if it does not reduce the number of live voters. A change that was begun is
//! finished first.
//!
//! A node that is no member, or is about to leave, is not in the list of nodes. It votes no more
//! as soon as the others can do without it, and then follows no more.
//!
//! The leader asks after each step. A new leader begins with an empty memory, so it replaces a
//! voter only after it has itself seen it down for that long.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ledger::records::{NodeRecord, Role};
use crate::members::since::{keep_since, lasted};
use crate::words::moment::Moment;
use crate::words::names::{NodeId, Region};

/// Delays in the choice of voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoterTerms {
    /// How long a voter must be down before another takes its place.
    pub hold_down: Duration,
    /// How long a replica must be live and caught up before it replaces a voter. An additional
    /// voter need not wait.
    pub settle: Duration,
}

/// What the leader knows at one moment.
pub struct Situation<'a> {
    /// The leader itself.
    pub leader: NodeId,
    /// All members that stay.
    pub nodes: &'a [NodeRecord],
    /// The sets of voters: one, or two while the second replaces the first.
    pub sets: &'a [BTreeSet<NodeId>],
    /// The nodes that the ledger replicates to, voters or not, with the address that it uses;
    /// `None` if that cannot be read.
    pub followers: &'a BTreeMap<NodeId, Option<SocketAddr>>,
    /// The nodes that are up, including the leader itself.
    pub live: &'a BTreeSet<NodeId>,
    /// The nodes that have all but the newest entries in their logs.
    pub caught_up: &'a BTreeSet<NodeId>,
    /// The nodes that drain: others take their places, if there are any.
    pub draining: &'a BTreeSet<NodeId>,
}

/// The next change of the ledger's membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoterStep {
    /// A change of voters was interrupted. Its second set, given here, must become the only one.
    Finish(BTreeSet<NodeId>),
    /// Let this replica follow the ledger.
    Follow(NodeId, SocketAddr),
    /// Let this node follow no more: it is no member, or leaves.
    Forget(NodeId),
    /// Record the new address of this follower.
    Move(NodeId, SocketAddr),
    /// Make this the set of voters.
    Vote(BTreeSet<NodeId>),
}

/// The leader's memory of which nodes are down and which are well, and since when.
#[derive(Clone, Debug)]
pub struct Voters {
    terms: VoterTerms,
    down_since: BTreeMap<NodeId, Moment>,
    well_since: BTreeMap<NodeId, Moment>,
}

impl Voters {
    /// An empty memory.
    pub fn new(terms: VoterTerms) -> Self {
        Voters { terms, down_since: BTreeMap::new(), well_since: BTreeMap::new() }
    }

    /// Decides what to do at `now`, if anything. Call this a few times per second.
    pub fn handle_timeout(&mut self, now: Moment, situation: &Situation<'_>) -> Option<VoterStep> {
        let replicas: Vec<&NodeRecord> =
            situation.nodes.iter().filter(|n| n.role == Role::Replica).collect();
        let live = |node: &NodeId| *node == situation.leader || situation.live.contains(node);
        let ids = replicas.iter().map(|n| n.id);
        let down: BTreeSet<NodeId> = ids.clone().filter(|id| !live(id)).collect();
        let well: BTreeSet<NodeId> =
            ids.filter(|id| live(id) && situation.caught_up.contains(id)).collect();
        keep_since(&mut self.down_since, now, &down);
        keep_since(&mut self.well_since, now, &well);

        if let [_, .., last] = situation.sets {
            return Some(VoterStep::Finish(last.clone()));
        }
        for node in replicas.iter().filter(|n| n.id != situation.leader) {
            match situation.followers.get(&node.id) {
                None => return Some(VoterStep::Follow(node.id, node.address)),
                Some(known) if *known != Some(node.address) => {
                    return Some(VoterStep::Move(node.id, node.address));
                }
                Some(_) => {}
            }
        }
        let current = situation.sets.first()?;
        let listed = |node: &NodeId| replicas.iter().any(|n| n.id == *node);
        let strays = situation.followers.keys().filter(|n| !listed(n) && !current.contains(n));
        if let Some(stray) = strays.copied().find(|n| *n != situation.leader) {
            return Some(VoterStep::Forget(stray));
        }
        let wanted = self.wanted(now, situation, &replicas, current);
        let agrees =
            |set: &BTreeSet<NodeId>| set.iter().filter(|n| live(n)).count() > set.len() / 2;
        // One that is no member (any more) is not missed. If fewer voters are wanted, because fewer
        // regions are left, all of them must be live.
        let kept = wanted.iter().filter(|n| live(n)).count()
            >= current.iter().filter(|n| live(n) && listed(n)).count().min(wanted.len());
        (wanted != *current && kept && agrees(current) && agrees(&wanted))
            .then_some(VoterStep::Vote(wanted))
    }

    /// The set of voters to aim for, of the present voters and the candidates.
    fn wanted(
        &self,
        now: Moment,
        situation: &Situation<'_>,
        replicas: &[&NodeRecord],
        current: &BTreeSet<NodeId>,
    ) -> BTreeSet<NodeId> {
        let regions: BTreeSet<&Region> = replicas.iter().map(|n| &n.region).collect();
        let count = voter_count(replicas.len(), regions.len());
        // a leader that drains hands leadership over first
        let drains = |node: &NodeId| situation.draining.contains(node) && *node != situation.leader;
        let gone = |node: &NodeId| {
            drains(node) || lasted(&self.down_since, now, *node, self.terms.hold_down)
        };
        let grows = current.len() < count;
        let able = |node: &NodeId| {
            let settled = lasted(&self.well_since, now, *node, self.terms.settle);
            situation.followers.contains_key(node)
                && !drains(node)
                && (settled || grows && self.well_since.contains_key(node))
        };
        let stays = |node: &NodeId| current.contains(node) && !gone(node);
        let pool =
            replicas.iter().filter(|n| stays(&n.id) || !current.contains(&n.id) && able(&n.id));
        let mut by_region: BTreeMap<&Region, Vec<NodeId>> = BTreeMap::new();
        for node in pool {
            by_region.entry(&node.region).or_default().push(node.id);
        }
        for ids in by_region.values_mut() {
            ids.sort_by_key(|id| (!current.contains(id), *id != situation.leader, *id));
        }
        // regions that have voters come first, so that a new region displaces no voter while the
        // count is full; then regions that had one
        let had: BTreeSet<&Region> =
            replicas.iter().filter(|n| current.contains(&n.id)).map(|n| &n.region).collect();
        let mut order: Vec<(&&Region, &Vec<NodeId>)> = by_region.iter().collect();
        order.sort_by_key(|(region, ids)| {
            (!ids.iter().any(|id| current.contains(id)), !had.contains(**region), ids[0])
        });
        let mut chosen = BTreeSet::new();
        for round in 0..replicas.len() {
            for id in order.iter().filter_map(|(_, ids)| ids.get(round)) {
                if chosen.len() < count {
                    chosen.insert(*id);
                }
            }
        }
        // if no replica can take a place, the voter that is gone keeps it: fewer voters would not
        // survive more failures
        for node in replicas.iter().filter(|n| current.contains(&n.id) && gone(&n.id)) {
            if chosen.len() < count.min(current.len()) {
                chosen.insert(node.id);
            }
        }
        chosen
    }
}

/// The number of voters for this many replicas and regions: 5 if there are five regions, otherwise
/// 3, and fewer only if there are fewer nodes.
fn voter_count(nodes: usize, regions: usize) -> usize {
    if regions >= 5 { 5 } else { nodes.min(3) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TERMS: VoterTerms =
        VoterTerms { hold_down: Duration::from_secs(300), settle: Duration::from_secs(3) };

    fn set(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|n| NodeId(*n)).collect()
    }

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    /// A ledger that does what it is told, and the leader that tells it.
    struct World {
        nodes: Vec<NodeRecord>,
        sets: Vec<BTreeSet<NodeId>>,
        followers: BTreeMap<NodeId, Option<SocketAddr>>,
        live: BTreeSet<NodeId>,
        caught_up: BTreeSet<NodeId>,
        draining: BTreeSet<NodeId>,
        now: Moment,
        voters: Voters,
    }

    impl World {
        /// Node `n` is in the n-th of `regions`; node 1 leads; all nodes are well and follow.
        fn new(regions: &[&str], voters: &[u64]) -> Self {
            let node = |(n, region): (usize, &&str)| NodeRecord {
                id: NodeId(n as u64 + 1),
                name: format!("n{n}").parse().unwrap(),
                region: region.parse().unwrap(),
                role: Role::Replica,
                address: address(1),
                url: String::new(),
            };
            let nodes: Vec<_> = regions.iter().enumerate().map(node).collect();
            let all: BTreeSet<NodeId> = nodes.iter().map(|n| n.id).collect();
            World {
                sets: vec![set(voters)],
                followers: all.iter().map(|n| (*n, Some(address(1)))).collect(),
                live: all.clone(),
                caught_up: all,
                draining: BTreeSet::new(),
                nodes,
                now: Moment::from_micros(1_000_000_000),
                voters: Voters::new(TERMS),
            }
        }

        fn step(&mut self) -> Option<VoterStep> {
            let situation = Situation {
                leader: NodeId(1),
                nodes: &self.nodes,
                sets: &self.sets,
                followers: &self.followers,
                live: &self.live,
                caught_up: &self.caught_up,
                draining: &self.draining,
            };
            self.voters.handle_timeout(self.now, &situation)
        }

        fn obey(&mut self, step: VoterStep) {
            match step {
                VoterStep::Finish(voters) | VoterStep::Vote(voters) => self.sets = vec![voters],
                VoterStep::Follow(node, address) | VoterStep::Move(node, address) => {
                    self.followers.insert(node, Some(address));
                }
                VoterStep::Forget(node) => {
                    assert!(!self.sets.iter().any(|set| set.contains(&node)), "it still votes");
                    self.followers.remove(&node);
                }
            }
        }

        /// Lets `seconds` pass, one step each. Returns whether anything was done.
        fn pass(&mut self, seconds: u64) -> bool {
            let mut any = false;
            for _ in 0..seconds {
                self.now = self.now + Duration::from_secs(1);
                if let Some(step) = self.step() {
                    any = true;
                    self.obey(step);
                }
            }
            any
        }

        fn die(&mut self, node: u64) {
            self.live.remove(&NodeId(node));
            self.caught_up.remove(&NodeId(node));
        }

        fn revive(&mut self, node: u64) {
            self.live.insert(NodeId(node));
            self.caught_up.insert(NodeId(node));
        }
    }

    #[test]
    fn three_regions_give_three_voters_one_in_each_and_five_give_five() {
        let mut world = World::new(&["a", "a", "b", "c", "b"], &[1]);
        world.pass(2);
        assert_eq!(world.sets, [set(&[1, 3, 4])]);
        let mut world = World::new(&["a", "a", "b", "c", "b"], &[2, 4, 5]);
        assert!(!world.pass(10), "who votes goes on voting");
        let mut world = World::new(&["a", "b", "c", "d", "e", "a", "b"], &[1]);
        world.pass(2);
        assert_eq!(world.sets, [set(&[1, 2, 3, 4, 5])]);
        let mut world = World::new(&["a", "a"], &[1]);
        world.pass(2);
        assert_eq!(world.sets, [set(&[1, 2])]);
    }

    #[test]
    fn a_voter_that_drains_gives_its_vote_to_another_replica_if_there_is_one() {
        let mut world = World::new(&["a", "b", "c", "c"], &[1, 2, 3]);
        world.draining = set(&[3]);
        world.pass(10);
        assert_eq!(world.sets, [set(&[1, 2, 4])], "one of its region");
        world.draining = set(&[]);
        assert!(!world.pass(10), "it does not come back by itself");
        // of those that are left none can take it
        world.draining = set(&[2]);
        world.die(3);
        assert!(!world.pass(100), "three voters with one that drains are better than two");
        assert_eq!(world.sets, [set(&[1, 2, 4])]);
        world.revive(3);
        world.pass(10);
        assert_eq!(world.sets, [set(&[1, 3, 4])]);
        world.draining = set(&[1, 2]);
        assert!(!world.pass(10), "the leader hands leadership over first");
    }

    #[test]
    fn a_change_that_was_cut_is_finished_before_anything_else() {
        let mut world = World::new(&["a", "b", "c"], &[]);
        world.sets = vec![set(&[1]), set(&[1, 2])];
        world.followers.remove(&NodeId(3));
        assert_eq!(world.step(), Some(VoterStep::Finish(set(&[1, 2]))));
        world.pass(3);
        assert_eq!(world.sets, [set(&[1, 2, 3])]);
    }

    #[test]
    fn a_follower_that_moved_is_told_of_once() {
        let mut world = World::new(&["a", "b", "c"], &[1, 2, 3]);
        world.nodes[1].address = address(2);
        let step = world.step().unwrap();
        assert_eq!(step, VoterStep::Move(NodeId(2), address(2)));
        world.obey(step);
        assert_eq!(world.step(), None);
    }

    #[test]
    fn a_voter_that_is_gone_for_good_is_replaced_and_one_that_is_away_is_not() {
        let mut world = World::new(&["a", "b", "c", "d", "b"], &[1, 2, 3]);
        world.die(2);
        assert!(!world.pass(200), "it may come back");
        world.revive(2);
        assert!(!world.pass(200));
        world.die(2);
        assert!(!world.pass(300), "it was away for less than that at a time");
        assert!(world.pass(5));
        assert_eq!(world.sets, [set(&[1, 3, 5])], "another of its region");
        world.revive(2);
        assert!(!world.pass(1000), "who comes back takes nobody's place");
        world.die(5);
        world.die(2);
        world.pass(310);
        assert_eq!(world.sets, [set(&[1, 3, 4])], "a region is gone: one of another");
    }

    #[test]
    fn a_region_that_comes_back_takes_the_place_of_a_second_of_another() {
        let mut world = World::new(&["a", "b", "c", "a"], &[1, 2, 3]);
        world.die(3);
        world.pass(310);
        assert_eq!(world.sets, [set(&[1, 2, 4])]);
        world.revive(3);
        assert!(!world.pass(2), "not at once");
        world.pass(3);
        assert_eq!(world.sets, [set(&[1, 2, 3])]);
        assert!(!world.pass(1000));
    }

    #[test]
    fn who_leaves_votes_no_more_and_then_follows_no_more() {
        for dead in [false, true] {
            let mut world = World::new(&["a", "b", "c", "b"], &[1, 2, 3]);
            world.pass(5);
            if dead {
                world.die(2);
            }
            world.nodes.retain(|node| node.id != NodeId(2));
            world.pass(2);
            assert_eq!(world.sets, [set(&[1, 3, 4])], "another takes its place");
            assert!(!world.followers.contains_key(&NodeId(2)));
            world.nodes.retain(|node| node.id != NodeId(3));
            world.pass(5);
            assert_eq!(world.sets, [set(&[1, 4])], "fewer if there is no other");
            world.nodes.retain(|node| node.id != NodeId(4));
            world.pass(5);
            assert_eq!(world.sets, [set(&[1])], "it still had a say in that");
            let left: Vec<_> = world.followers.keys().copied().collect();
            assert_eq!(left, [NodeId(1)]);
        }
        // without a majority of those before, it keeps its vote
        let mut world = World::new(&["a", "b"], &[1, 2]);
        world.die(2);
        world.nodes.retain(|node| node.id != NodeId(2));
        assert!(!world.pass(10));
    }

    #[test]
    fn a_dead_candidate_blocks_nothing() {
        let mut world = World::new(&["a", "b", "c"], &[1]);
        world.die(3);
        world.pass(2);
        assert_eq!(world.sets, [set(&[1, 2])]);
        world.revive(3);
        world.pass(2);
        assert_eq!(world.sets, [set(&[1, 2, 3])]);
        let mut world = World::new(&["a", "b", "c", "b", "b"], &[1, 2, 3]);
        for dead in [2, 4] {
            world.die(dead);
        }
        world.pass(310);
        assert_eq!(world.sets, [set(&[1, 3, 5])]);
    }

    #[test]
    fn without_a_successor_nothing_changes_and_without_majorities_neither() {
        let mut world = World::new(&["a", "b", "c"], &[1, 2, 3]);
        world.die(3);
        assert!(
            !world.pass(1000),
            "two voters would survive no more than three of which one is dead"
        );
        let mut world = World::new(&["a", "b", "c", "d"], &[1, 2, 3]);
        for dead in [2, 3] {
            world.die(dead);
        }
        assert!(!world.pass(1000), "one of three cannot decide anything");
        let mut world = World::new(&["a", "b", "c", "d"], &[1, 2, 3]);
        world.die(3);
        world.caught_up.remove(&NodeId(4));
        assert!(!world.pass(1000), "nobody votes who has not caught up");
    }

    proptest! {
        /// Whichever nodes die and come back: there is no step without live majorities, no new
        /// voter that is dead or behind, and never fewer live voters. When nodes stop dying,
        /// nothing changes any more after a while, and every voter is live if enough nodes are.
        #[test]
        fn voters_heal_and_do_not_flap(
            regions in proptest::collection::vec(0usize..6, 1..9),
            happenings in proptest::collection::vec((0u64..9, any::<bool>(), 1u64..400), 0..12),
        ) {
            let names = ["a", "b", "c", "d", "e", "f"];
            let regions: Vec<&str> = regions.iter().map(|r| names[*r]).collect();
            let mut world = World::new(&regions, &[1]);
            let check = |world: &mut World, seconds: u64| -> Result<(), TestCaseError> {
                for _ in 0..seconds {
                    world.now = world.now + Duration::from_secs(1);
                    let before = world.sets[0].clone();
                    let alive = world.live.clone();
                    let live = |set: &BTreeSet<NodeId>| set.intersection(&alive).count();
                    let Some(step) = world.step() else { continue };
                    if let VoterStep::Vote(after) = &step {
                        prop_assert!(live(&before) * 2 > before.len() && live(after) * 2 > after.len(), "{before:?} to {after:?}");
                        prop_assert!(live(after) >= live(&before), "{before:?} to {after:?}");
                        prop_assert!(after.difference(&before).all(|n| world.caught_up.contains(n)));
                    }
                    world.obey(step);
                }
                Ok(())
            };
            check(&mut world, 5)?;
            for (node, dies, seconds) in happenings {
                let node = node % regions.len() as u64 + 1;
                match dies {
                    true if node != 1 => world.die(node),
                    true => {}
                    false => world.revive(node),
                }
                // a leader leads only while a majority hears it
                if world.sets[0].intersection(&world.live).count() * 2 <= world.sets[0].len() {
                    world.revive(node);
                }
                check(&mut world, seconds)?;
            }
            check(&mut world, 2000)?;
            let settled = world.sets.clone();
            check(&mut world, 1000)?;
            prop_assert_eq!(&settled, &world.sets, "it flaps");
            let count = voter_count(regions.len(), regions.iter().collect::<BTreeSet<_>>().len());
            let live = settled[0].intersection(&world.live).count();
            prop_assert_eq!(live, count.min(world.live.len()), "{:?} of {:?}", settled, world.live);
        }
    }
}
