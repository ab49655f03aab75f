//! Which nodes hold and fetch blobs. This is computed from roster and ledger, never stored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ledger::records::{NodeRecord, Role};
use crate::words::digest::Digest;
use crate::words::names::{NodeId, ProjectName, Region};

/// A node, as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its identity.
    pub id: NodeId,
    /// Its region.
    pub region: Region,
    /// Its role.
    pub role: Role,
}

impl Candidate {
    /// The candidate for a member.
    pub fn of(node: &NodeRecord) -> Self {
        Candidate { id: node.id, region: node.region.clone(), role: node.role }
    }
}

/// Rendezvous (highest random weight) hashing. All nodes rank the same nodes in the same order for
/// the same bytes, and a node that comes or goes changes only its own assignments.
fn weight(subject: &[u8], node: NodeId) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&node.0.to_be_bytes());
    hasher.update(subject);
    let mut weight = [0; 8];
    weight.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    weight
}

/// The nodes, ordered by their rank for `digest`.
pub fn ranked(digest: &Digest, nodes: impl IntoIterator<Item = NodeId>) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
    nodes.sort_by_key(|n| std::cmp::Reverse((weight(&digest.to_key(), *n), *n)));
    nodes
}

/// Which live node of a region fetches `digest` over the WAN; the others follow it. It is a replica
/// if the region has one, because a replica keeps more blobs and for longer than an edge.
pub fn fetcher(digest: &Digest, region: &Region, alive: &[Candidate]) -> Option<NodeId> {
    let of = |role| {
        let there = alive.iter().filter(move |c| c.region == *region && c.role == role);
        ranked(digest, there.map(|c| c.id)).first().copied()
    };
    of(Role::Replica).or_else(|| of(Role::Edge))
}

/// A node that is presumed to hold a blob, so that it can be asked for the blob at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presumed {
    /// The nearest node that kept the blob when it was pushed.
    pub node: NodeId,
    /// Its round trip: asking other nodes is worth at most this wait.
    pub round_trip: Duration,
    /// Nodes that are so much nearer that asking them first costs less than it may save.
    pub nearer: Vec<NodeId>,
}

/// Chooses among the nodes that kept a blob, given the round trip to each live replica; `None` if
/// none of them is live. Asking who holds a blob costs a round trip, and the answer is nearly
/// always the same as at the push.
pub fn presumed(kept_by: &[NodeId], alive: &[(NodeId, Duration)]) -> Option<Presumed> {
    let (round_trip, node) = alive
        .iter()
        .filter(|(node, _)| kept_by.contains(node))
        .map(|(node, took)| (*took, *node))
        .min()?;
    let nearer = alive.iter().filter(|(other, took)| *other != node && *took < round_trip / 2);
    Some(Presumed { node, round_trip, nearer: nearer.map(|(other, _)| *other).collect() })
}

/// The nodes to which an upload is streamed while it arrives: one live node in each of
/// `regions_wanted - 1` other regions, by rank. The upload's id takes the place of the digest,
/// which is not known yet.
pub fn copy_targets(
    seed: &Digest,
    own: &Region,
    alive: &[Candidate],
    regions_wanted: u32,
) -> Vec<NodeId> {
    let mut chosen = Vec::new();
    let mut regions = BTreeSet::from([own.clone()]);
    let region_of: BTreeMap<NodeId, &Region> = alive.iter().map(|c| (c.id, &c.region)).collect();
    for node in ranked(seed, alive.iter().map(|c| c.id)) {
        if regions.len() >= regions_wanted as usize {
            break;
        }
        if regions.insert(region_of[&node].clone()) {
            chosen.push(node);
        }
    }
    chosen
}

/// The best primary of `project` among `able` (alive and caught up): one in the home's region if
/// there is one, otherwise the one with the fewest projects, otherwise by rendezvous hashing of the
/// project's name.
pub fn primary(
    project: &ProjectName,
    home: &Region,
    able: &[Candidate],
    load: &BTreeMap<NodeId, usize>,
) -> Option<NodeId> {
    let subject = project.as_str().as_bytes();
    able.iter()
        .min_by_key(|c| {
            let load = load.get(&c.id).copied().unwrap_or(0);
            (c.region != *home, load, std::cmp::Reverse(weight(subject, c.id)), c.id)
        })
        .map(|c| c.id)
}

/// Whom `me` asks for something that any replica may have: first the others of its region at once,
/// then all others at once. No round is empty.
pub fn rounds(me: NodeId, region: &Region, replicas: &[Candidate]) -> Vec<Vec<NodeId>> {
    let others = || replicas.iter().filter(|candidate| candidate.id != me);
    let near = others().filter(|candidate| candidate.region == *region).map(|c| c.id).collect();
    let far = others().filter(|candidate| candidate.region != *region).map(|c| c.id).collect();
    [near, far].into_iter().filter(|round: &Vec<NodeId>| !round.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(id: u64, region: &str) -> NodeRecord {
        NodeRecord {
            id: NodeId(id),
            name: format!("n{id}").parse().unwrap(),
            region: region.parse().unwrap(),
            role: Role::Replica,
            address: ([127, 0, 0, 1], 1).into(),
            url: String::new(),
        }
    }

    #[test]
    fn a_replica_fetches_for_its_region_and_an_edge_only_where_there_is_none() {
        let edge = |id, region| Candidate { role: Role::Edge, ..Candidate::of(&node(id, region)) };
        let alive = [edge(1, "a"), edge(2, "a"), Candidate::of(&node(3, "a")), edge(4, "b")];
        for seed in 0..20u8 {
            let digest = Digest::sha256(&[seed]);
            assert_eq!(fetcher(&digest, &"a".parse().unwrap(), &alive), Some(NodeId(3)));
            assert_eq!(fetcher(&digest, &"b".parse().unwrap(), &alive), Some(NodeId(4)));
        }
    }

    #[test]
    fn of_those_who_kept_a_blob_the_nearest_is_turned_to_and_only_who_is_much_nearer_is_asked_before()
     {
        let at = |id: u64, millis| (NodeId(id), Duration::from_millis(millis));
        let alive = [at(1, 100), at(2, 80), at(3, 60), at(4, 41), at(5, 39), at(6, 0)];
        let kept_by = [1, 2, 9].map(NodeId);
        let found = presumed(&kept_by, &alive).unwrap();
        assert_eq!((found.node, found.round_trip), (NodeId(2), Duration::from_millis(80)));
        assert_eq!(found.nearer, [5, 6].map(NodeId));
        assert_eq!(presumed(&kept_by, &alive[2..]), None, "none of them is reached");
        assert_eq!(presumed(&[], &alive), None);
        let beside = presumed(&[NodeId(6)], &alive).unwrap();
        assert!(beside.nearer.is_empty(), "nobody is nearer than a neighbour: {beside:?}");
    }

    #[test]
    fn the_own_region_is_asked_first_and_all_others_at_once_after_it() {
        let all: Vec<_> = [node(1, "a"), node(2, "b"), node(3, "a"), node(4, "c")]
            .iter()
            .map(Candidate::of)
            .collect();
        let of = |me: u64, region: &str| rounds(NodeId(me), &region.parse().unwrap(), &all);
        assert_eq!(of(1, "a"), [vec![NodeId(3)], vec![NodeId(2), NodeId(4)]]);
        assert_eq!(of(4, "c"), [vec![NodeId(1), NodeId(2), NodeId(3)]]);
        assert!(rounds(NodeId(1), &"a".parse().unwrap(), &all[..1]).is_empty());
    }

    #[test]
    fn a_primary_is_sought_at_home_first() {
        let able: Vec<_> =
            [node(1, "a"), node(2, "b"), node(3, "b")].iter().map(Candidate::of).collect();
        let (project, home) = ("demo".parse().unwrap(), "b".parse().unwrap());
        let load = BTreeMap::from([(NodeId(2), 5)]);
        assert_eq!(primary(&project, &home, &able, &load), Some(NodeId(3)));
        assert_eq!(primary(&project, &home, &able[..1], &load), Some(NodeId(1)));
        assert_eq!(primary(&project, &home, &[], &load), None);
    }

    proptest! {
        #[test]
        fn a_node_that_goes_moves_only_its_own(seed in any::<u8>(), n in 2u64..20) {
            let digest = Digest::sha256(&[seed]);
            let all = ranked(&digest, (0..n).map(NodeId));
            let fewer = ranked(&digest, (0..n - 1).map(NodeId));
            prop_assert_eq!(all.iter().filter(|id| id.0 != n - 1).copied().collect::<Vec<_>>(), fewer);
        }

        #[test]
        fn copies_go_to_different_regions(seed in any::<u8>(), wanted in 1u32..4, n in 1u64..12) {
            let alive: Vec<_> = (0..n).map(|i| Candidate::of(&node(i, ["a", "b", "c"][i as usize % 3]))).collect();
            let targets = copy_targets(&Digest::sha256(&[seed]), &"a".parse().unwrap(), &alive, wanted);
            let regions: BTreeSet<_> = targets.iter().map(|t| &alive[t.0 as usize].region).collect();
            prop_assert_eq!(regions.len(), targets.len());
            prop_assert!(regions.iter().all(|r| r.as_str() != "a"));
            prop_assert_eq!(targets.len(), (wanted as usize - 1).min(n.min(3) as usize - 1));
        }
    }
}
