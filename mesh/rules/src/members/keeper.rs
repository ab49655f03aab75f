//! Copies are kept: when a project's primary looks whether enough regions hold its blobs, and where
//! the missing copies are made.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::placement::{Candidate, ranked};
use crate::blobs::holding::Trouble;
use crate::words::digest::Digest;
use crate::words::moment::Moment;
use crate::words::names::{NodeId, ProjectName, Region};

/// When a primary looks.
#[derive(Clone, Copy, Debug)]
pub struct KeeperTerms {
    /// How long a replica is away until its copies count as gone.
    pub after: Duration,
    /// The longest time between two looks at a project of which nothing has changed.
    pub every: Duration,
}

/// How long the replicas must have been the same before a look: when a node is away or joins, others
/// often follow.
const SETTLE: Duration = Duration::from_secs(5);

/// How long after a project has moved it is looked at where copies may be missing: a replica drains, or
/// one has come or gone and nobody has looked since. It is short, because a primary may move again
/// and again, and a second replica may be lost meanwhile.
const SOON: Duration = Duration::from_secs(5);

/// How long after a look that did not end well another one follows then.
const AGAIN: Duration = Duration::from_secs(60);

/// What a replica sees when it decides whether to look.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// All replicas of the mesh that do not drain.
    pub replicas: &'a BTreeSet<NodeId>,
    /// Those of them that do not answer.
    pub down: &'a BTreeSet<NodeId>,
    /// The replicas that drain and do not answer.
    pub drained: &'a BTreeSet<NodeId>,
    /// Whether some replica drains. Then projects have just moved, and somebody waits for their copies.
    pub drains: bool,
    /// The projects whose primary this node is, with their durability.
    pub mine: &'a [(ProjectName, u32)],
    /// Whether the ledger knows of a look at a project, at whatever node, that has ended well and began
    /// after the last removal of a replica. It is asked once for each project that has moved here.
    pub looked: &'a dyn Fn(&ProjectName) -> bool,
}

/// A project without a look at this node.
#[derive(Clone, Copy, Debug)]
struct New {
    /// Since when it is this node's, or when the last look did not end well.
    since: Moment,
    /// Its durability then.
    durability: u32,
    /// Whether another primary may not have looked since a replica was removed.
    unlooked: bool,
    /// Whether a look here did not end well.
    failed: bool,
}

/// What decides where copies of a project should be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Situation {
    durability: u32,
    present: BTreeSet<NodeId>,
}

/// Decides, at one replica, which of the projects whose primary it is have to be looked at. It
/// remembers nothing over a restart, so a new primary looks at each of its projects.
#[derive(Debug, Default)]
pub struct Keeper {
    /// Since when each replica is away.
    away: BTreeMap<NodeId, Moment>,
    /// Since when each replica is away that drains.
    drained: BTreeMap<NodeId, Moment>,
    present: BTreeSet<NodeId>,
    present_since: Option<Moment>,
    /// When a replica came or went last, since the first view.
    changed: Option<Moment>,
    /// The replicas that are away for so long that their copies count as gone.
    gone: BTreeSet<NodeId>,
    /// Each project whose last look has begun and not failed, and whether it was unlooked before.
    looked: BTreeMap<ProjectName, (Situation, Moment, bool)>,
    new: BTreeMap<ProjectName, New>,
}

impl Keeper {
    /// The projects to look at now. A project is due until [`Keeper::looked`] says that a look at it
    /// has begun.
    pub fn handle_view(
        &mut self,
        now: Moment,
        terms: KeeperTerms,
        view: View<'_>,
    ) -> Vec<ProjectName> {
        let View { replicas, down, drained, drains, mine, looked } = view;
        self.drained.retain(|node, _| drained.contains(node));
        for node in drained {
            self.drained.entry(*node).or_insert(now);
        }
        self.away.retain(|node, _| down.contains(node) && replicas.contains(node));
        for node in down.intersection(replicas) {
            self.away.entry(*node).or_insert(now);
        }
        let gone = self.away.iter().filter(|(_, since)| now.since(**since) >= terms.after);
        self.gone = gone.map(|(node, _)| *node).collect();
        let present: BTreeSet<NodeId> = replicas.difference(&self.gone).copied().collect();
        if present != self.present {
            self.present = present;
            self.changed = self.present_since.and(Some(now));
            self.present_since = Some(now);
        }
        let names: BTreeSet<&ProjectName> = mine.iter().map(|(name, _)| name).collect();
        self.looked.retain(|name, _| names.contains(name));
        self.new.retain(|name, _| names.contains(name));
        if self.present_since.is_none_or(|since| now.since(since) < SETTLE) {
            return Vec::new();
        }
        for (name, durability) in mine.iter().filter(|(name, _)| !self.looked.contains_key(name)) {
            let new = || New {
                since: now,
                durability: *durability,
                unlooked: !looked(name),
                failed: false,
            };
            self.new.entry(name.clone()).or_insert_with(new);
        }
        let changed = self.changed.is_some_and(|at| now.since(at) < terms.after);
        let due = |(name, durability): &&(ProjectName, u32)| match self.looked.get(name) {
            Some((situation, at, _)) => {
                *situation != self.situation(*durability) || now.since(*at) >= terms.every
            }
            // where nothing has changed the primary before may have looked a moment ago, and it was
            // away for as long as a replica that counts as gone
            None => self.new.get(name).is_some_and(|new| {
                let after = match (drains || changed || new.unlooked, new.failed) {
                    (true, false) => SOON,
                    (true, true) => terms.after.min(AGAIN),
                    (false, _) => terms.after,
                };
                new.durability != *durability || now.since(new.since) >= after
            }),
        };
        mine.iter().filter(due).map(|(name, _)| name.clone()).collect()
    }

    /// A look at a project, with that durability, begins.
    pub fn looked(&mut self, now: Moment, name: &ProjectName, durability: u32) {
        let unlooked = self.new.remove(name).is_some_and(|new| new.unlooked);
        self.looked.insert(name.clone(), (self.situation(durability), now, unlooked));
    }

    /// A look at a project did not end well: another one is due after [`KeeperTerms::after`], or
    /// sooner if something changes.
    pub fn again(&mut self, now: Moment, name: &ProjectName) {
        let begun = self.looked.remove(name);
        let begun = begun.map(|(situation, _, unlooked)| (situation.durability, unlooked));
        let known = self.new.get(name).map(|new| (new.durability, new.unlooked));
        if let Some((durability, unlooked)) = begun.or(known) {
            self.new.insert(name.clone(), New { since: now, durability, unlooked, failed: true });
        }
    }

    /// The replicas among `all` whose copies do not count as gone.
    pub fn present(&self, all: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        match self.present_since {
            // a replica that nobody has seen yet may be there
            Some(_) => all.iter().copied().filter(|node| !self.gone.contains(node)).collect(),
            None => all.clone(),
        }
    }

    /// Whether what a replica has that drains and does not answer is not to be given up yet: its copies
    /// count for nothing, but it may come back with them.
    pub fn may_return(&self, now: Moment, terms: KeeperTerms, node: NodeId) -> bool {
        self.drained.get(&node).is_none_or(|since| now.since(*since) < terms.after)
    }

    fn situation(&self, durability: u32) -> Situation {
        Situation { durability, present: self.present.clone() }
    }
}

/// The nodes that get a copy of `digest`, one in each region that lacks it, until `wanted` regions
/// have one. `have` are the regions where a replica keeps it for good, `cached` the replicas that may
/// evict it: in their regions they are chosen, because that moves no bytes. `alive` are the replicas
/// that can be asked to take a copy. Those of them that are `troubled` are chosen only where the
/// others are in too few regions, but for one that has the bytes and can write that it keeps them.
pub fn missing_copies<'a>(
    digest: &Digest,
    mut have: BTreeSet<&'a Region>,
    cached: &BTreeSet<NodeId>,
    alive: &'a [Candidate],
    troubled: &BTreeMap<NodeId, Trouble>,
    wanted: usize,
) -> Vec<NodeId> {
    let region_of = |node: NodeId| alive.iter().find(|c| c.id == node).map(|c| &c.region);
    let mut ranked = ranked(digest, alive.iter().map(|candidate| candidate.id));
    ranked.sort_by_key(|node| match (troubled.get(node), cached.contains(node)) {
        (None | Some(Trouble::Full { .. }), true) => 0,
        (None, false) => 1,
        (Some(_), _) => 2,
    });
    let mut chosen = Vec::new();
    for node in ranked {
        if have.len() >= wanted {
            break;
        }
        if let Some(region) = region_of(node)
            && have.insert(region)
        {
            chosen.push(node);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::records::Role;

    const TERMS: KeeperTerms =
        KeeperTerms { after: Duration::from_secs(600), every: Duration::from_secs(86_400) };

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    fn set(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn mine(durability: u32) -> Vec<(ProjectName, u32)> {
        vec![("team".parse().unwrap(), durability)]
    }

    /// Where the ledger knows of a look.
    fn view(
        keeper: &mut Keeper,
        now: Moment,
        replicas: &BTreeSet<NodeId>,
        down: &BTreeSet<NodeId>,
        drains: bool,
        mine: &[(ProjectName, u32)],
    ) -> Vec<ProjectName> {
        let (drained, looked) = (&BTreeSet::new(), &|_: &ProjectName| true);
        keeper.handle_view(now, TERMS, View { replicas, down, drained, drains, mine, looked })
    }

    /// A primary that moved every few seconds after a replica was removed once never looked, and the
    /// next loss of a disk took the last copies along.
    #[test]
    fn a_new_primary_looks_at_once_where_nobody_has_since_a_replica_was_removed() {
        let (all, none) = (set(&[1, 2]), set(&[]));
        let due = |keeper: &mut Keeper, second, mine: &[(ProjectName, u32)], looked: bool| {
            let looked = &|_: &ProjectName| looked;
            let (replicas, down, drained) = (&all, &none, &none);
            let view = View { replicas, down, drained, drains: false, mine, looked };
            keeper.handle_view(at(second), TERMS, view).len()
        };
        // it was started after the removal, so it has seen nothing change
        let mut keeper = Keeper::default();
        assert_eq!(
            (due(&mut keeper, 0, &[], false), due(&mut keeper, 100, &mine(2), false)),
            (0, 0)
        );
        assert_eq!(
            (due(&mut keeper, 104, &mine(2), false), due(&mut keeper, 105, &mine(2), false)),
            (0, 1)
        );
        keeper.looked(at(105), &mine(2)[0].0, 2);
        keeper.again(at(106), &mine(2)[0].0);
        assert_eq!(due(&mut keeper, 165, &mine(2), false), 0, "not again and again");
        assert_eq!(due(&mut keeper, 166, &mine(2), false), 1, "and not forgotten");
        let mut keeper = Keeper::default();
        assert_eq!((due(&mut keeper, 0, &[], true), due(&mut keeper, 100, &mine(2), true)), (0, 0));
        assert_eq!(
            (due(&mut keeper, 699, &mine(2), true), due(&mut keeper, 700, &mine(2), true)),
            (0, 1)
        );
    }

    #[test]
    fn a_new_primary_looks_soon_where_a_replica_has_come_or_gone() {
        let mut keeper = Keeper::default();
        let mut due = |second, replicas: &[u64], mine: &[(ProjectName, u32)]| {
            let replicas = set(replicas);
            view(&mut keeper, at(second), &replicas, &set(&[]), false, mine).len()
        };
        assert_eq!((due(0, &[1, 2, 3], &[]), due(100, &[1, 2], &[])), (0, 0));
        assert_eq!((due(110, &[1, 2, 4], &[]), due(120, &[1, 2, 4], &mine(2))), (0, 0));
        assert_eq!(due(124, &[1, 2, 4], &mine(2)), 0, "the primary before may have looked");
        assert_eq!(due(125, &[1, 2, 4], &mine(2)), 1);
    }

    /// A keeper that has looked at its project at second 700.
    fn after_a_look() -> Keeper {
        let mut keeper = Keeper::default();
        let all = set(&[1, 2, 3]);
        let due = |keeper: &mut Keeper, second| {
            view(keeper, at(second), &all, &set(&[]), false, &mine(2)).len()
        };
        assert_eq!((due(&mut keeper, 0), due(&mut keeper, 10), due(&mut keeper, 500)), (0, 0, 0));
        assert_eq!(due(&mut keeper, 700), 1, "a primary that has just begun looks after a while");
        assert_eq!(due(&mut keeper, 701), 1, "until a look has begun");
        keeper.looked(at(700), &"team".parse().unwrap(), 2);
        assert_eq!(due(&mut keeper, 702), 0);
        keeper
    }

    #[test]
    fn a_look_follows_when_a_replica_is_gone_for_long_comes_back_joins_or_is_removed() {
        let all = set(&[1, 2, 3]);
        let mut keeper = after_a_look();
        let mut due = |second, replicas: &BTreeSet<NodeId>, down: &[u64]| {
            let due = view(&mut keeper, at(second), replicas, &set(down), false, &mine(2));
            if !due.is_empty() {
                keeper.looked(at(second), &due[0], 2);
            }
            due.len()
        };
        assert_eq!(due(1000, &all, &[3]), 0, "it may come back");
        assert_eq!(due(1500, &all, &[]), 0, "it did");
        assert_eq!(due(1600, &all, &[3]), 0);
        assert_eq!(due(2199, &all, &[3]), 0);
        assert_eq!(due(2200, &all, &[3]), 0, "its copies are gone from now on");
        assert_eq!(due(2206, &all, &[3]), 1);
        assert_eq!(due(2210, &all, &[3]), 0);
        assert_eq!((due(3000, &all, &[]), due(3010, &all, &[])), (0, 1), "it is back");
        let four = set(&[1, 2, 3, 4]);
        assert_eq!((due(3100, &four, &[]), due(3110, &four, &[])), (0, 1), "another joined");
        assert_eq!((due(3200, &all, &[]), due(3210, &all, &[])), (0, 1), "it was removed");
        assert_eq!(due(3210 + 86_399, &all, &[]), 0);
        assert_eq!(due(3210 + 86_400, &all, &[]), 1, "and now and then");
    }

    #[test]
    fn a_look_that_did_not_end_well_is_followed_by_another_though_nothing_changed() {
        let mut keeper = after_a_look();
        let all = set(&[1, 2, 3]);
        keeper.again(at(710), &"team".parse().unwrap());
        let mut due =
            |second| view(&mut keeper, at(second), &all, &set(&[]), false, &mine(2)).len();
        assert_eq!((due(711), due(1309), due(1310)), (0, 0, 1));
    }

    #[test]
    fn projects_that_moved_because_a_replica_drains_are_looked_at_soon() {
        let mut keeper = Keeper::default();
        let staying = set(&[1, 2]);
        let mut due = |second, drains| {
            view(&mut keeper, at(second), &staying, &set(&[]), drains, &mine(2)).len()
        };
        assert_eq!((due(0, true), due(4, true), due(6, true)), (0, 0, 0));
        assert_eq!(due(10, false), 0, "nobody waits for it");
        assert_eq!(due(11, true), 1);
        keeper.looked(at(11), &"team".parse().unwrap(), 2);
        let mut due = |second, drains| {
            view(&mut keeper, at(second), &staying, &set(&[]), drains, &mine(2)).len()
        };
        assert_eq!((due(12, true), due(100, true)), (0, 0), "it was looked at");
    }

    #[test]
    fn a_replica_that_is_away_for_a_moment_is_present_and_one_that_is_gone_is_not() {
        let all = set(&[1, 2, 3]);
        let mut keeper = Keeper::default();
        assert_eq!(keeper.present(&all), all, "nothing is known yet");
        view(&mut keeper, at(0), &all, &set(&[3]), false, &mine(2));
        view(&mut keeper, at(599), &all, &set(&[3]), false, &mine(2));
        assert_eq!(keeper.present(&all), all);
        view(&mut keeper, at(600), &all, &set(&[3]), false, &mine(2));
        assert_eq!(keeper.present(&all), set(&[1, 2]));
        assert_eq!(keeper.present(&set(&[1, 2, 3, 4])), set(&[1, 2, 4]), "it has just joined");
    }

    #[test]
    fn a_look_follows_when_the_durability_was_changed() {
        let mut keeper = after_a_look();
        let all = set(&[1, 2, 3]);
        let due = view(&mut keeper, at(800), &all, &set(&[]), false, &mine(3));
        assert_eq!(due.len(), 1);
        keeper.looked(at(800), &due[0], 3);
        assert!(view(&mut keeper, at(900), &all, &set(&[]), false, &mine(3)).is_empty());
    }

    /// Such a change once waited for as long as a replica may be away.
    #[test]
    fn a_new_primary_looks_when_the_durability_was_changed_before_its_first_look() {
        let mut keeper = Keeper::default();
        let all = set(&[1, 2, 3]);
        let due = |keeper: &mut Keeper, second, durability| {
            let mine = mine(durability);
            view(keeper, at(second), &all, &set(&[]), false, &mine).len()
        };
        assert_eq!((due(&mut keeper, 0, 2), due(&mut keeper, 10, 2)), (0, 0));
        assert_eq!(due(&mut keeper, 20, 3), 1);
        // one that did not end well is not followed by another at once
        keeper.looked(at(20), &mine(3)[0].0, 3);
        keeper.again(at(21), &mine(3)[0].0);
        assert_eq!((due(&mut keeper, 22, 3), due(&mut keeper, 23, 2)), (0, 1));
        keeper.again(at(24), &"unknown".parse().unwrap());
        assert!(keeper.new.contains_key(&mine(3)[0].0) && keeper.new.len() == 1);
    }

    #[test]
    fn what_drains_and_is_away_may_come_back_for_a_while() {
        let mut keeper = Keeper::default();
        let (all, none, one) = (set(&[1, 2]), set(&[]), set(&[3]));
        let mut see = |second, drained: &BTreeSet<NodeId>| {
            let (replicas, down, looked) = (&all, &none, &|_: &ProjectName| true);
            let view = View { replicas, down, drained, drains: true, mine: &[], looked };
            keeper.handle_view(at(second), TERMS, view);
            keeper.may_return(at(second), TERMS, NodeId(3))
        };
        assert!(see(0, &none), "nobody has missed it yet");
        assert!(see(10, &one) && see(609, &one) && !see(610, &one));
        assert!(see(620, &none) && see(630, &one), "it was there in between");
    }

    #[test]
    fn a_project_that_moved_away_and_came_back_is_looked_at_again() {
        let mut keeper = after_a_look();
        let all = set(&[1, 2, 3]);
        let mut due = |second, mine: &[(ProjectName, u32)]| {
            view(&mut keeper, at(second), &all, &set(&[]), false, mine).len()
        };
        assert_eq!(due(800, &[]), 0);
        assert_eq!((due(810, &mine(2)), due(1000, &mine(2)), due(1410, &mine(2))), (0, 0, 1));
    }

    #[test]
    fn copies_go_to_regions_without_one_and_first_where_no_byte_moves() {
        let candidate = |id: u64, region: &str| Candidate {
            id: NodeId(id),
            region: region.parse().unwrap(),
            role: Role::Replica,
        };
        let alive = [
            candidate(1, "a"),
            candidate(2, "b"),
            candidate(3, "b"),
            candidate(4, "c"),
            candidate(5, "d"),
        ];
        let digest = Digest::sha256(b"x");
        let chosen = |keep: &[u64], cached: &[u64], wanted| {
            let keep = alive.iter().filter(|c| keep.contains(&c.id.0)).map(|c| &c.region).collect();
            missing_copies(&digest, keep, &set(cached), &alive, &BTreeMap::new(), wanted)
        };
        assert!(chosen(&[1, 2], &[], 2).is_empty());
        assert_eq!(chosen(&[1, 2], &[3], 2), [], "its region has one");
        assert_eq!(chosen(&[2, 3], &[4], 2), [NodeId(4)]);
        assert_eq!(chosen(&[9], &[], 4).len(), 4, "a copy of a node that is gone counts nothing");
        assert_eq!(chosen(&[1], &[], 9).len(), 3, "there are no more regions");
        let all: BTreeSet<NodeId> = chosen(&[], &[3], 4).into_iter().collect();
        assert_eq!(all, set(&[1, 3, 4, 5]));
        let chosen = |cached: &[u64], troubled: &[(u64, Trouble)], wanted| {
            let troubled = troubled.iter().map(|(node, why)| (NodeId(*node), *why)).collect();
            let have = [&alive[0].region].into();
            let to = missing_copies(&digest, have, &set(cached), &alive, &troubled, wanted);
            to.into_iter().collect::<BTreeSet<_>>()
        };
        let full = Trouble::Full { free: 1 };
        for (one, other) in [(4, 5), (5, 4)] {
            let troubled = [(one, full), (2, full)];
            assert_eq!(chosen(&[], &troubled, 3), set(&[3, other]), "the others can take it");
        }
        let all = [(2, full), (3, full), (4, full)];
        assert_eq!(chosen(&[], &all, 2), set(&[5]));
        assert_eq!(chosen(&[], &all, 4).len(), 3, "there may be room by then");
        assert_eq!(chosen(&[4], &all, 2), set(&[4]), "it has the bytes");
        assert_eq!(chosen(&[4], &[(4, Trouble::Unwritable), (2, full)], 2).len(), 1);
        assert!(!chosen(&[4], &[(4, Trouble::Unwritable)], 2).contains(&NodeId(4)));
    }
}
