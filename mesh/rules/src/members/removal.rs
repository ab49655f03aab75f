//! What the removal of a replica costs: said before it is confirmed, and a reason to refuse it.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::records::{NodeRecord, Role};
use crate::words::digest::Digest;
use crate::words::names::{NodeId, ProjectName, Region};

/// What is known when a replica is to be removed.
pub struct Survey<'a> {
    /// The replica.
    pub leaving: NodeId,
    /// All members.
    pub nodes: &'a [NodeRecord],
    /// The ledger's voters.
    pub voters: &'a BTreeSet<NodeId>,
    /// The replicas that are up. Those among them that are in `holdings` have said what they hold.
    pub live: &'a BTreeSet<NodeId>,
    /// Each project with its `durability` and the blobs that its manifests refer to.
    pub projects: &'a [(ProjectName, u32, BTreeSet<Digest>)],
    /// What each replica that answered keeps for good. Copies that are only cached do not count.
    pub holdings: &'a BTreeMap<NodeId, BTreeSet<Digest>>,
}

/// What the mesh is without the replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consequences {
    /// No other replica is left.
    pub last_replica: bool,
    /// The remaining voters would have no live majority, so that nothing could be written.
    pub no_majority: bool,
    /// How many of the remaining voters are up, of how many, with other replicas in free places.
    pub voters: (usize, usize),
    /// The number of blobs in each project that this replica keeps, or may keep, and no remaining one
    /// says it does.
    pub lost: BTreeMap<ProjectName, usize>,
    /// The number of blobs in each project that no replica says it keeps, and that this one says it
    /// does not: whether it stays changes nothing for them.
    pub gone: BTreeMap<ProjectName, usize>,
    /// The number of other blobs in each project that would be in fewer regions than the project's
    /// durability, and in fewer than now. If the replica does not say what it keeps, all in too few
    /// regions count.
    pub short: BTreeMap<ProjectName, usize>,
    /// The remaining replicas that did not say what they keep. They may have what seems lost.
    pub silent: BTreeSet<NodeId>,
    /// Whether voters that are down would make a majority with the disk of this replica as it is
    /// now. They do not know of the removal, and could elect a leader with it.
    pub misled: bool,
}

impl Consequences {
    /// Whether content would be lost, as far as is known.
    pub fn loses_content(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Why the removal of a replica whose disk somebody else has is refused, if it is.
    pub fn refusal_exposed(&self, forced: bool) -> Option<String> {
        if self.misled && !forced {
            return Some(
                "voters that are down would make a majority with its disk, and could believe it; start them first, or remove those that are gone for good, or force it (`--force`) if none of them will come back".into(),
            );
        }
        self.refusal(forced)
    }

    /// Why the removal is refused, if it is. `forced` accepts that content is lost. A missing
    /// majority cannot be accepted: nothing could be removed any more, or written at all.
    pub fn refusal(&self, forced: bool) -> Option<String> {
        if self.last_replica {
            return Some("it is the mesh's last replica".into());
        }
        if self.no_majority {
            let (up, all) = self.voters;
            return Some(format!(
                "only {up} of the {all} voters that remain would be up, and without a majority nothing can be written; start the others, or remove one that is gone for good first"
            ));
        }
        if self.loses_content() && !forced {
            let blobs: usize = self.lost.values().sum();
            let projects: Vec<&str> = self.lost.keys().map(ProjectName::as_str).collect();
            let first = match self.silent.is_empty() {
                true => "have them copied first (`atoll repair`)",
                false => "start those that do not answer",
            };
            return Some(format!(
                "no other replica that answers keeps {blobs} blob(s) of {}; {first}, or force it (`--force`) if these may be lost",
                projects.join(", ")
            ));
        }
        None
    }
}

/// What the mesh is without `survey.leaving`.
pub fn consequences(survey: &Survey<'_>) -> Consequences {
    let leaving = survey.leaving;
    let remaining: Vec<&NodeRecord> = survey
        .nodes
        .iter()
        .filter(|node| node.role == Role::Replica && node.id != leaving)
        .collect();
    let live = |node: &NodeId| survey.live.contains(node);
    let listed = |node: &&NodeId| remaining.iter().any(|other| other.id == **node);
    let staying: BTreeSet<NodeId> = survey.voters.iter().filter(listed).copied().collect();
    // others take free places if they are up; see [`super::voters`]
    let free = survey.voters.len().min(remaining.len()) - staying.len();
    let spare = remaining.iter().filter(|n| live(&n.id) && !staying.contains(&n.id)).count();
    let filled = free.min(spare);
    let up = staying.iter().filter(|n| live(n)).count() + filled;
    let voters = staying.len() + filled;

    let region_of: BTreeMap<NodeId, &Region> =
        survey.nodes.iter().map(|node| (node.id, &node.region)).collect();
    let said = survey.holdings.contains_key(&leaving);
    let (mut lost, mut gone, mut short) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (project, durability, blobs) in survey.projects {
        for blob in blobs {
            let keeps = |(_, held): &(&NodeId, &BTreeSet<Digest>)| held.contains(blob);
            let keepers: BTreeSet<NodeId> =
                survey.holdings.iter().filter(keeps).map(|(node, _)| *node).collect();
            let regions = |of: &dyn Fn(&NodeId) -> bool| {
                let there = keepers.iter().filter(|node| of(node));
                there.filter_map(|node| region_of.get(node)).collect::<BTreeSet<_>>().len()
            };
            let (now, after) = (regions(&|_| true), regions(&|node| *node != leaving));
            if now == 0 && said {
                *gone.entry(project.clone()).or_insert(0) += 1;
            } else if after == 0 {
                *lost.entry(project.clone()).or_insert(0) += 1;
            } else if (after < now || !said) && after < *durability as usize {
                *short.entry(project.clone()).or_insert(0) += 1;
            }
        }
    }
    let down = staying.iter().filter(|n| !live(n)).count();
    let misled = survey.voters.contains(&leaving) && (down + 1) * 2 > survey.voters.len();
    Consequences {
        misled: misled && down > 0,
        last_replica: remaining.is_empty(),
        no_majority: !remaining.is_empty() && up * 2 <= voters,
        voters: (up, voters),
        lost,
        gone,
        short,
        silent: remaining
            .iter()
            .map(|node| node.id)
            .filter(|node| !survey.holdings.contains_key(node))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        nodes: Vec<NodeRecord>,
        voters: BTreeSet<NodeId>,
        live: BTreeSet<NodeId>,
        projects: Vec<(ProjectName, u32, BTreeSet<Digest>)>,
        holdings: BTreeMap<NodeId, BTreeSet<Digest>>,
    }

    #[test]
    fn what_a_dead_replica_may_have_kept_is_said_to_be_short() {
        let mut world = world(3);
        world.projects = vec![("team".parse().unwrap(), 2, [blob(1), blob(2)].into())];
        world.holdings.remove(&NodeId(3));
        world.holdings.insert(NodeId(1), [blob(1), blob(2)].into());
        world.holdings.insert(NodeId(2), [blob(2)].into());
        let of = |world: &World| {
            let World { nodes, voters, live, projects, holdings } = world;
            let leaving = NodeId(3);
            consequences(&Survey { leaving, nodes, voters, live, projects, holdings }).short
        };
        assert_eq!(of(&world), [("team".parse().unwrap(), 1)].into());
        world.holdings.insert(NodeId(3), [blob(1)].into());
        assert_eq!(of(&world), [("team".parse().unwrap(), 1)].into());
        world.holdings.insert(NodeId(3), BTreeSet::new());
        assert!(of(&world).is_empty(), "it is short already");
    }

    fn blob(n: u8) -> Digest {
        Digest::sha256(&[n])
    }

    /// Replica n is in region n; the first three vote; all are up and hold nothing.
    fn world(replicas: u64) -> World {
        let node = |n: u64| NodeRecord {
            id: NodeId(n),
            name: format!("n{n}").parse().unwrap(),
            region: format!("r{n}").parse().unwrap(),
            role: Role::Replica,
            address: ([127, 0, 0, 1], 1).into(),
            url: String::new(),
        };
        let ids: BTreeSet<NodeId> = (1..=replicas).map(NodeId).collect();
        World {
            nodes: (1..=replicas).map(node).collect(),
            voters: (1..=replicas.min(3)).map(NodeId).collect(),
            holdings: ids.iter().map(|id| (*id, BTreeSet::new())).collect(),
            live: ids,
            projects: Vec::new(),
        }
    }

    impl World {
        fn die(&mut self, node: u64) {
            self.live.remove(&NodeId(node));
            self.holdings.remove(&NodeId(node));
        }

        fn without(&self, node: u64) -> Consequences {
            consequences(&Survey {
                leaving: NodeId(node),
                nodes: &self.nodes,
                voters: &self.voters,
                live: &self.live,
                projects: &self.projects,
                holdings: &self.holdings,
            })
        }
    }

    #[test]
    fn a_replica_goes_while_the_others_have_a_majority() {
        assert_eq!(world(3).without(3).refusal(false), None);
        assert_eq!(world(2).without(1).refusal(false), None, "one votes alone");
        let mut world = world(3);
        world.die(3);
        assert_eq!(world.without(3).refusal(false), None, "the dead one goes");
        let refused = world.without(1).refusal(true).unwrap();
        assert!(refused.contains("1 of the 2 voters"), "{refused}");
        let last = self::world(1).without(1).refusal(true).unwrap();
        assert!(last.contains("last replica"), "{last}");
    }

    #[test]
    fn a_stolen_disk_finds_no_majority_that_does_not_know_of_the_removal() {
        let mut world = world(4);
        assert_eq!(world.without(3).refusal_exposed(false), None);
        world.die(2);
        assert_eq!(world.without(4).refusal_exposed(false), None, "it does not vote");
        let refused = world.without(3).refusal_exposed(false).unwrap();
        assert!(refused.contains("could believe it"), "{refused}");
        assert_eq!(world.without(3).refusal_exposed(true), None);
        assert_eq!(world.without(3).refusal(false), None, "nobody has its disk");
    }

    #[test]
    fn another_replica_that_is_up_takes_the_place() {
        let mut world = world(4);
        world.die(3);
        assert_eq!(world.without(1).refusal(false), None);
        assert_eq!(world.without(1).voters, (2, 3));
        assert_eq!(world.without(4).refusal(false), None, "it does not vote");
    }

    #[test]
    fn the_last_copy_goes_only_when_forced_and_what_falls_short_is_said() {
        let mut world = world(3);
        let project: ProjectName = "demo".parse().unwrap();
        world.projects = vec![(project.clone(), 2, [1, 2, 3].map(blob).into())];
        let holds = |world: &mut World, node: u64, blobs: &[u8]| {
            world.holdings.insert(NodeId(node), blobs.iter().map(|n| blob(*n)).collect());
        };
        holds(&mut world, 1, &[1, 2, 3]);
        holds(&mut world, 2, &[2, 3]);
        holds(&mut world, 3, &[3]);
        let first = world.without(1);
        assert_eq!(first.lost, [(project.clone(), 1)].into());
        assert_eq!(first.short, [(project.clone(), 1)].into(), "the third is in two regions still");
        let refused = first.refusal(false).unwrap();
        assert!(refused.contains("1 blob(s) of demo") && refused.contains("--force"), "{refused}");
        assert!(refused.contains("atoll repair"), "all answer: {refused}");
        assert_eq!(first.refusal(true), None);
        assert_eq!(world.without(3), Consequences { voters: (2, 2), ..Consequences::default() });
        // what only a silent one may have counts as lost, and it is said who was silent
        world.die(2);
        let (third, silent) = (world.without(3), BTreeSet::from([NodeId(2)]));
        assert!(third.no_majority && third.silent == silent);
        holds(&mut world, 1, &[1]);
        let third = world.without(3);
        assert_eq!(third.lost, [(project.clone(), 1)].into());
        assert_eq!(third.gone, [(project.clone(), 1)].into(), "this one says it has it not");
        // one that says nothing may have all of them
        world.holdings.remove(&NodeId(3));
        let third = world.without(3);
        assert!(third.lost == [(project, 2)].into() && third.gone.is_empty());
    }
}
