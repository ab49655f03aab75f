//! When a project gets another primary. The ledger's leader decides; the change takes effect only
//! with the next epoch.
//!
//! A node counts as lost when two things have lasted `hold_down`: at least two voters' own views
//! call it down (or every voter, if there are fewer than two others), and it has not renewed its
//! lease with the leader. It also counts as lost when it has had no lease for `silent_for`,
//! whatever the gossip says, or when it says itself that it is down. A node that does not renew, or
//! has not applied what it must to get a lease, cannot write: its disk is full or hangs, or its
//! ledger has stopped. A project returns to its home when the home has been well and caught up for
//! `return_after`. A project that signs goes to a replica that can open its key, if there is one: when
//! it moves, and after `return_after` also from a primary that cannot. This module only proposes, and each proposal names the epoch it was decided
//! under.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ledger::records::{NodeRecord, Project, Role};
use crate::members::draining;
use crate::members::placement::{self, Candidate};
use crate::members::signing::Openers;
use crate::members::since::{keep_since, lasted};
use crate::words::moment::Moment;
use crate::words::names::{Epoch, NodeId, ProjectName};

/// Delays of failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailoverTerms {
    /// How long a node must look lost before its projects move.
    pub hold_down: Duration,
    /// How long a project's home must be well before it moves back.
    pub return_after: Duration,
    /// The maximum age of a voter's view that counts.
    pub view_age: Duration,
    /// How long a node must not have asked for a lease, or not have kept up, to be lost although the
    /// gossip calls it up. Longer than a lease.
    pub silent_for: Duration,
}

/// What the leader knows at one moment.
pub struct Situation<'a> {
    /// All members.
    pub nodes: &'a [NodeRecord],
    /// The ledger's voters.
    pub voters: &'a BTreeSet<NodeId>,
    /// All projects.
    pub projects: &'a [Project],
    /// Nodes that have an unexpired lease and have applied all but the newest entries, including
    /// the leader itself.
    pub caught_up: &'a BTreeSet<NodeId>,
    /// Nodes that have shown lately that they are there and keep up, including the leader itself: see
    /// [`Granter::renewing`](crate::ledger::lease::Granter::renewing).
    pub renewing: &'a BTreeSet<NodeId>,
    /// Replicas that drain: they lose their projects, and get none.
    pub draining: &'a BTreeSet<NodeId>,
    /// Who can sign for which projects.
    pub openers: &'a Openers,
}

/// One proposal: give `project` to `node`, if its epoch is still `expect_epoch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The project.
    pub project: ProjectName,
    /// Its next primary.
    pub node: NodeId,
    /// The epoch this was decided under.
    pub expect_epoch: Epoch,
}

/// The leader's memory of how long each condition has lasted. A new leader starts with an empty
/// one.
#[derive(Clone, Debug)]
pub struct Failover {
    terms: FailoverTerms,
    views: BTreeMap<NodeId, (Moment, BTreeSet<NodeId>)>,
    lost_since: BTreeMap<NodeId, Moment>,
    silent_since: BTreeMap<NodeId, Moment>,
    well_since: BTreeMap<NodeId, Moment>,
    closed_since: BTreeMap<NodeId, Moment>,
}

impl Failover {
    /// An empty memory.
    pub fn new(terms: FailoverTerms) -> Self {
        Failover {
            terms,
            views: BTreeMap::new(),
            lost_since: BTreeMap::new(),
            silent_since: BTreeMap::new(),
            well_since: BTreeMap::new(),
            closed_since: BTreeMap::new(),
        }
    }

    /// `voter` reports which members it sees as down. It names itself if it cannot write.
    pub fn handle_view(&mut self, now: Moment, voter: NodeId, down: BTreeSet<NodeId>) {
        self.views.insert(voter, (now, down));
    }

    /// Decides what to propose at `now`. Call this a few times per second.
    pub fn handle_timeout(&mut self, now: Moment, situation: &Situation<'_>) -> Vec<Assignment> {
        let replicas = situation.nodes.iter().filter(|n| n.role == Role::Replica).map(|n| n.id);
        let silent: BTreeSet<NodeId> =
            replicas.filter(|n| !situation.renewing.contains(n)).collect();
        keep_since(&mut self.silent_since, now, &silent);
        let lost = self.lost(now, situation);
        let by_id: BTreeMap<NodeId, &NodeRecord> =
            situation.nodes.iter().map(|n| (n.id, n)).collect();
        // one that is about to be removed is not among the nodes, and may still hold a lease
        let well: BTreeSet<NodeId> = situation
            .caught_up
            .difference(&lost)
            .filter(|node| by_id.contains_key(node))
            .copied()
            .collect();
        keep_since(&mut self.lost_since, now, &lost);
        keep_since(&mut self.well_since, now, &well);

        let able: Vec<Candidate> = well
            .iter()
            .filter_map(|id| by_id.get(id))
            .filter(|n| n.role == Role::Replica)
            .map(|n| Candidate::of(n))
            .collect();
        let able = draining::taking(able, situation.draining);
        let takes = |node: &NodeId| !situation.draining.contains(node);
        let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
        for project in situation.projects {
            *load.entry(project.primary).or_default() += 1;
        }
        let can = |node: NodeId, project: &Project| situation.openers.can(node, project.id);
        // primaries that cannot sign, where another replica could
        let is_closed = |project: &&Project| {
            !can(project.primary, project) && able.iter().any(|one| can(one.id, project))
        };
        let closed: BTreeSet<NodeId> =
            situation.projects.iter().filter(is_closed).map(|project| project.primary).collect();
        keep_since(&mut self.closed_since, now, &closed);
        let mut assignments = Vec::new();
        for project in situation.projects {
            let gone = !by_id.contains_key(&project.primary);
            let lost_long = lasted(&self.lost_since, now, project.primary, self.terms.hold_down)
                || lasted(&self.silent_since, now, project.primary, self.terms.silent_for);
            let home_well_long =
                lasted(&self.well_since, now, project.home, self.terms.return_after);
            let drains =
                !takes(&project.primary) && able.iter().any(|candidate| takes(&candidate.id));
            let closed_long =
                lasted(&self.closed_since, now, project.primary, self.terms.return_after)
                    && is_closed(&project);
            let next = if gone || lost_long || drains || closed_long {
                let home = by_id
                    .get(&project.home)
                    .or_else(|| by_id.get(&project.primary))
                    .map(|n| n.region.clone());
                let able = situation.openers.preferred(project.id, &able);
                home.or_else(|| able.first().map(|c| c.region.clone()))
                    .and_then(|region| placement::primary(&project.name, &region, &able, &load))
            } else if project.primary != project.home
                && home_well_long
                && takes(&project.home)
                && (can(project.home, project) || !can(project.primary, project))
            {
                Some(project.home)
            } else {
                None
            };
            if let Some(node) = next.filter(|n| *n != project.primary) {
                *load.entry(node).or_default() += 1;
                assignments.push(Assignment {
                    project: project.name.clone(),
                    node,
                    expect_epoch: project.epoch,
                });
            }
        }
        assignments
    }

    /// The nodes that look lost at `now`.
    fn lost(&self, now: Moment, situation: &Situation<'_>) -> BTreeSet<NodeId> {
        let mut own_word = BTreeSet::new();
        let mut witnesses: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (voter, (at, down)) in &self.views {
            if down.contains(voter)
                && now.since(*at) <= self.terms.view_age
                && !situation.renewing.contains(voter)
            {
                own_word.insert(*voter);
            }
            if situation.voters.contains(voter) && now.since(*at) <= self.terms.view_age {
                for node in down {
                    *witnesses.entry(*node).or_default() += 1;
                }
            }
        }
        witnesses
            .into_iter()
            .filter(|(node, count)| {
                let others = situation.voters.iter().filter(|v| *v != node).count();
                *count >= others.clamp(1, 2) && !situation.renewing.contains(node)
            })
            .map(|(node, _)| node)
            .chain(own_word)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::sign_log::KekId;
    use crate::words::moment::Timestamp;
    use crate::words::names::ProjectId;

    const TERMS: FailoverTerms = FailoverTerms {
        hold_down: Duration::from_secs(1),
        return_after: Duration::from_secs(20),
        view_age: Duration::from_secs(3),
        silent_for: Duration::from_secs(10),
    };

    struct World {
        nodes: Vec<NodeRecord>,
        project: Project,
        /// In place of `project`, if there are any.
        projects: Vec<Project>,
        alive: BTreeSet<NodeId>,
        draining: BTreeSet<NodeId>,
        openers: Openers,
        failover: Failover,
    }

    impl World {
        fn new() -> Self {
            let node = |n: u64| NodeRecord {
                id: NodeId(n),
                name: format!("n{n}").parse().unwrap(),
                region: format!("r{n}").parse().unwrap(),
                role: Role::Replica,
                address: ([127, 0, 0, 1], 1).into(),
                url: String::new(),
            };
            let project = Project {
                id: ProjectId(1),
                name: "demo".parse().unwrap(),
                public: true,
                durability: 2,
                home: NodeId(1),
                primary: NodeId(1),
                epoch: Epoch::FIRST,
                created: Timestamp(0),
                upstream: None,
                proxy: Default::default(),
                metadata: Default::default(),
            };
            World {
                nodes: (1..=3).map(node).collect(),
                project,
                projects: Vec::new(),
                alive: (1..=3).map(NodeId).collect(),
                draining: BTreeSet::new(),
                openers: Openers::default(),
                failover: Failover::new(TERMS),
            }
        }

        fn tick(&mut self, seconds: u64, views: &[(u64, &[u64])]) -> Vec<Assignment> {
            let now = Moment::from_micros(1_000_000 * (1000 + seconds));
            for (voter, down) in views {
                self.failover.handle_view(
                    now,
                    NodeId(*voter),
                    down.iter().map(|n| NodeId(*n)).collect(),
                );
            }
            let voters = (1..=3).map(NodeId).collect();
            let situation = Situation {
                nodes: &self.nodes,
                voters: &voters,
                projects: if self.projects.is_empty() {
                    std::slice::from_ref(&self.project)
                } else {
                    &self.projects
                },
                caught_up: &self.alive,
                renewing: &self.alive,
                draining: &self.draining,
                openers: &self.openers,
            };
            self.failover.handle_timeout(now, &situation)
        }
    }

    #[test]
    fn a_project_that_signs_goes_to_who_opens_its_key_and_returns_to_a_home_that_does() {
        let kek = KekId([1; 8]);
        let mut world = World::new();
        world.openers.sealed = [(ProjectId(1), Some(kek))].into();
        for second in 0..40 {
            assert!(world.tick(second, &[]).is_empty(), "nobody opens it");
        }
        world.openers.opens = [(NodeId(3), vec![kek])].into();
        assert!(world.tick(40, &[]).is_empty(), "the primary may get it in a moment");
        assert!(world.tick(59, &[]).is_empty());
        let moved = world.tick(60, &[]);
        assert_eq!(moved.iter().map(|one| one.node).collect::<Vec<_>>(), [NodeId(3)]);
        world.project.primary = NodeId(3);
        for second in 61..100 {
            assert!(world.tick(second, &[]).is_empty(), "its home cannot sign");
        }
        world.openers.opens.insert(NodeId(1), vec![KekId([2; 8])]);
        assert!(world.tick(100, &[]).is_empty(), "another key opens nothing");
        world.openers.opens.insert(NodeId(1), vec![kek]);
        assert_eq!(world.tick(101, &[])[0].node, NodeId(1));
        // when its primary is lost, of those who are left one that can sign
        world.project.primary = NodeId(1);
        for dead in [1, 2] {
            world.alive.remove(&NodeId(dead));
        }
        world.alive.insert(NodeId(2));
        world.tick(110, &[(2, &[1]), (3, &[1])]);
        assert_eq!(world.tick(112, &[(2, &[1]), (3, &[1])])[0].node, NodeId(3));
    }

    #[test]
    fn one_view_alone_moves_nothing_and_neither_does_a_moment() {
        let mut world = World::new();
        world.alive.remove(&NodeId(1));
        assert!(world.tick(0, &[(2, &[1])]).is_empty());
        assert!(world.tick(2, &[(2, &[1]), (3, &[])]).is_empty());
        assert!(world.tick(3, &[(2, &[1]), (3, &[1])]).is_empty(), "two views, but only just");
        let moved = world.tick(4, &[(2, &[1]), (3, &[1])]);
        assert_eq!(moved.len(), 1);
        assert_eq!(moved[0].expect_epoch, Epoch::FIRST);
        assert_ne!(moved[0].node, NodeId(1));
    }

    #[test]
    fn a_node_that_renews_its_lease_is_not_lost_whatever_the_gossip_says() {
        let mut world = World::new();
        for s in 0..5 {
            assert!(world.tick(s, &[(2, &[1]), (3, &[1])]).is_empty());
        }
    }

    #[test]
    fn a_node_that_only_gossips_loses_its_projects_after_a_while() {
        let mut world = World::new();
        world.alive.remove(&NodeId(1));
        for s in 0..10 {
            assert!(world.tick(s, &[(2, &[]), (3, &[])]).is_empty(), "second {s}");
        }
        let moved = world.tick(10, &[(2, &[]), (3, &[])]);
        assert_eq!(moved.len(), 1);
        assert_ne!(moved[0].node, NodeId(1));
        world.alive.insert(NodeId(1));
        assert!(world.tick(11, &[]).is_empty(), "it can write again");
        world.alive.remove(&NodeId(1));
        assert!(world.tick(12, &[]).is_empty(), "it was silent for no more than a moment");
    }

    #[test]
    fn a_node_that_says_itself_that_it_cannot_write_loses_its_projects_soon() {
        let mut world = World::new();
        assert!(world.tick(0, &[(1, &[1])]).is_empty(), "its lease still runs");
        world.alive.remove(&NodeId(1));
        assert!(world.tick(1, &[(1, &[1])]).is_empty());
        let moved = world.tick(2, &[(1, &[1])]);
        assert_eq!(moved.len(), 1);
        assert_ne!(moved[0].node, NodeId(1));
    }

    #[test]
    fn all_projects_of_a_lost_node_move_at_once_and_are_shared_out() {
        let mut world = World::new();
        world.alive.remove(&NodeId(1));
        let named = |n| Project {
            name: format!("p{n}").parse().unwrap(),
            id: ProjectId(n),
            ..world.project.clone()
        };
        let projects: Vec<Project> = (1..=1000).map(named).collect();
        world.projects = projects;
        world.tick(0, &[(2, &[1]), (3, &[1])]);
        let moved = world.tick(1, &[(2, &[1]), (3, &[1])]);
        assert_eq!(moved.len(), 1000);
        let to = |node| moved.iter().filter(|a| a.node == NodeId(node)).count();
        assert_eq!((to(2), to(3)), (500, 500));
    }

    #[test]
    fn a_project_goes_home_after_a_good_while() {
        let mut world = World::new();
        world.project.primary = NodeId(2);
        assert!(world.tick(0, &[]).is_empty());
        assert!(world.tick(19, &[]).is_empty());
        assert_eq!(world.tick(20, &[])[0].node, NodeId(1));
    }

    #[test]
    fn a_home_that_is_about_to_be_removed_gets_nothing_back() {
        let mut world = World::new();
        world.tick(0, &[]);
        world.nodes.retain(|node| node.id != NodeId(1));
        for seconds in 30..34 {
            if let [assigned] = &world.tick(seconds, &[])[..] {
                assert_ne!(assigned.node, NodeId(1), "at {seconds}");
                world.project.primary = assigned.node;
                world.project.epoch = world.project.epoch.next();
            }
        }
        assert_ne!(world.project.primary, NodeId(1));
        assert_eq!(world.project.epoch, Epoch::FIRST.next(), "it moved once");
    }

    #[test]
    fn a_node_that_drains_loses_its_projects_at_once_and_gets_them_back_when_it_does_not() {
        let mut world = World::new();
        world.tick(0, &[]);
        world.draining.insert(NodeId(1));
        let moved = world.tick(1, &[]);
        assert_eq!(moved.len(), 1);
        assert_ne!(moved[0].node, NodeId(1));
        world.project.primary = moved[0].node;
        world.project.epoch = world.project.epoch.next();
        for second in 2..60 {
            assert!(world.tick(second, &[]).is_empty(), "its home drains");
        }
        world.draining.clear();
        assert_eq!(world.tick(60, &[])[0].node, NodeId(1));
    }

    #[test]
    fn what_nobody_else_can_take_stays_where_it_is() {
        let mut world = World::new();
        world.draining.insert(NodeId(1));
        world.alive = [NodeId(1)].into();
        for second in 0..5 {
            assert!(world.tick(second, &[]).is_empty());
        }
        // and who drains still takes over from who is lost
        world.project.primary = NodeId(2);
        world.tick(10, &[(1, &[2, 3]), (3, &[2])]);
        let moved = world.tick(30, &[(1, &[2, 3]), (3, &[2])]);
        assert_eq!(moved[0].node, NodeId(1));
    }

    #[test]
    fn old_views_do_not_count() {
        let mut world = World::new();
        world.alive.remove(&NodeId(1));
        world.tick(0, &[(2, &[1]), (3, &[1])]);
        assert!(world.tick(4, &[(2, &[1])]).is_empty());
    }
}
