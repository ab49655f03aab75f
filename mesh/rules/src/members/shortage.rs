//! Which replicas take no copies, and why: what people read where a push or a repair finds too few
//! regions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::blobs::holding::Trouble;
use crate::ledger::records::{NodeRecord, Role};
use crate::words::names::{NodeId, Region};

/// Why a replica takes no copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unable {
    /// It does not answer.
    Down,
    /// It drains, so its copies count for nothing.
    Drains,
    /// It says that it should be given none.
    Trouble(Trouble),
}

impl Unable {
    /// What to do about it, in a few words.
    fn remedy(self) -> &'static str {
        match self {
            Unable::Down => "start it, or remove it if it is gone for good",
            Unable::Drains => "let another replica join, or end that with `atoll drain --undo`",
            Unable::Trouble(Trouble::Full { .. }) => "make room there",
            Unable::Trouble(Trouble::Unwritable) => "start it again on a disk that works",
        }
    }
}

impl fmt::Display for Unable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unable::Down => f.write_str("does not answer"),
            Unable::Drains => f.write_str("drains"),
            Unable::Trouble(trouble) => write!(f, "is in trouble: {trouble}"),
        }
    }
}

/// Why each of the replicas among `nodes` takes no copies, of those that take none.
pub fn unable(
    nodes: &[NodeRecord],
    live: &BTreeSet<NodeId>,
    draining: &BTreeSet<NodeId>,
    troubled: &BTreeMap<NodeId, Trouble>,
) -> BTreeMap<NodeId, Unable> {
    let replicas = nodes.iter().filter(|node| node.role == Role::Replica);
    let why = |node: &NodeId| match troubled.get(node) {
        _ if !live.contains(node) => Some(Unable::Down),
        Some(trouble) => Some(Unable::Trouble(*trouble)),
        None => draining.contains(node).then_some(Unable::Drains),
    };
    replicas.filter_map(|node| Some((node.id, why(&node.id)?))).collect()
}

/// The regions in which a replica takes copies.
pub fn able<'a>(
    nodes: &'a [NodeRecord],
    unable: &BTreeMap<NodeId, Unable>,
) -> BTreeSet<&'a Region> {
    let replicas = nodes.iter().filter(|node| node.role == Role::Replica);
    replicas.filter(|node| !unable.contains_key(&node.id)).map(|node| &node.region).collect()
}

/// The names of replicas that take no copies, each with why, and what to do.
pub fn told(unable: &[(String, Unable)]) -> String {
    let each = unable.iter().map(|(name, why)| format!("{name} {why} ({})", why.remedy()));
    each.collect::<Vec<_>>().join("; ")
}

/// Blobs of a push could be kept in too few regions.
pub struct Shortage<'a> {
    /// The number of regions that the project wants.
    pub wanted: u32,
    /// The number of regions that keep all of them.
    pub reached: u32,
    /// The replicas that take no copies, as far as is known.
    pub unable: &'a [(String, Unable)],
}

impl fmt::Display for Shortage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { wanted, reached, unable } = self;
        write!(f, "wants its blobs in {wanted} regions (durability), and ")?;
        match reached {
            0 => f.write_str("no sound copy of some of them could be had")?,
            _ => write!(f, "only {reached} could be reached")?,
        }
        match unable.is_empty() {
            true => {
                f.write_str(": `atoll status` says which replicas are down, full or draining")?
            }
            false => write!(f, ": {}", told(unable))?,
        }
        match reached {
            0 => f.write_str(". Or push all layers of the image again"),
            _ => write!(f, ". Or set the project's durability to {reached}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u64, role: Role) -> NodeRecord {
        NodeRecord {
            id: NodeId(n),
            name: format!("n{n}").parse().unwrap(),
            region: format!("r{}", n % 3).parse().unwrap(),
            role,
            address: ([127, 0, 0, 1], 1).into(),
            url: String::new(),
        }
    }

    #[test]
    fn a_replica_that_is_down_full_or_draining_takes_no_copies() {
        let mut nodes: Vec<NodeRecord> = (1..6).map(|n| node(n, Role::Replica)).collect();
        nodes.push(node(6, Role::Edge));
        let live = [1, 2, 3, 5].map(NodeId).into();
        let full = Trouble::Full { free: 0 };
        let troubled = [(NodeId(2), full), (NodeId(4), full)].into();
        let unable = unable(&nodes, &live, &[NodeId(2), NodeId(3)].into(), &troubled);
        let why = [(2, Unable::Trouble(full)), (3, Unable::Drains), (4, Unable::Down)];
        assert_eq!(unable, why.map(|(node, why)| (NodeId(node), why)).into());
        let able: Vec<&str> = able(&nodes, &unable).into_iter().map(Region::as_str).collect();
        assert_eq!(able, ["r1", "r2"], "an edge keeps nothing");
    }

    #[test]
    fn a_push_that_is_refused_says_who_takes_nothing_and_what_to_do() {
        let full = Unable::Trouble(Trouble::Full { free: 5 << 20 });
        let unable = [("one".to_owned(), full), ("two".to_owned(), Unable::Down)];
        let said = Shortage { wanted: 2, reached: 1, unable: &unable }.to_string();
        for part in ["only 1 could", "one is in trouble", "make room there", "two does not answer"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(said.contains("durability to 1"), "{said}");
        let said = Shortage { wanted: 2, reached: 0, unable: &[] }.to_string();
        assert!(!said.contains("durability to"), "a project with 0 keeps nothing: {said}");
        assert!(said.contains("atoll status") && said.contains("push"), "{said}");
    }
}
