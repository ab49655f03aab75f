//! Which replicas should be given no blobs, by their own word, and which blobs they know to be damaged
//! at their own: pushes and repairs choose others for their copies where they can, and people are
//! shown why. `blobs::checkups` asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rules::blobs::holding::Trouble;
use rules::words::digest::Digest;
use rules::words::names::NodeId;

/// What the replicas have said last.
#[derive(Clone, Default)]
pub struct Conditions(Arc<Mutex<Said>>);

#[derive(Default)]
struct Said {
    trouble: BTreeMap<NodeId, Trouble>,
    damaged: BTreeMap<NodeId, BTreeSet<Digest>>,
}

impl Conditions {
    /// Why `node` should be given no blobs; `None` if it takes them, or has not said.
    pub fn trouble(&self, node: NodeId) -> Option<Trouble> {
        self.0.lock().trouble.get(&node).copied()
    }

    /// The replicas that should be given no blobs.
    pub fn troubled(&self) -> BTreeSet<NodeId> {
        self.0.lock().trouble.keys().copied().collect()
    }

    /// The same, and why.
    pub fn all(&self) -> BTreeMap<NodeId, Trouble> {
        self.0.lock().trouble.clone()
    }

    /// Notes what `node` says. The result is whether it says something else than before.
    pub fn note(&self, node: NodeId, trouble: Option<Trouble>) -> bool {
        let mut said = self.0.lock();
        let before = match trouble {
            Some(trouble) => said.trouble.insert(node, trouble),
            None => said.trouble.remove(&node),
        };
        before.is_some() != trouble.is_some()
    }

    /// Notes which blobs `node` knows to be damaged at its own: all, or the first of many.
    pub fn note_damaged(&self, node: NodeId, damaged: Vec<Digest>) {
        let mut said = self.0.lock();
        match damaged.is_empty() {
            true => drop(said.damaged.remove(&node)),
            false => drop(said.damaged.insert(node, damaged.into_iter().collect())),
        }
    }

    /// The blobs that `node` knows to be damaged at its own, or the first of many.
    pub fn damaged_at(&self, node: NodeId) -> BTreeSet<Digest> {
        self.0.lock().damaged.get(&node).cloned().unwrap_or_default()
    }

    /// The blobs that are damaged at some replica.
    pub fn all_damaged(&self) -> BTreeSet<Digest> {
        self.0.lock().damaged.values().flatten().copied().collect()
    }

    /// Only these are replicas now.
    pub fn retain(&self, nodes: &BTreeSet<NodeId>) {
        let mut said = self.0.lock();
        said.trouble.retain(|node, _| nodes.contains(node));
        said.damaged.retain(|node, _| nodes.contains(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_last_counts_until_it_is_gone() {
        let conditions = Conditions::default();
        let (one, two) = (NodeId(1), NodeId(2));
        assert!(!conditions.note(one, None));
        assert!(conditions.note(one, Some(Trouble::Full { free: 1 })));
        assert!(!conditions.note(one, Some(Trouble::Unwritable)), "it is no news");
        assert!(conditions.note(two, Some(Trouble::Unwritable)));
        assert_eq!(conditions.trouble(one), Some(Trouble::Unwritable));
        assert_eq!(conditions.troubled(), [one, two].into());
        let [here, there] = [b"here", b"elsw"].map(|text| Digest::sha256(text));
        conditions.note_damaged(one, vec![here]);
        conditions.note_damaged(two, vec![here, there]);
        assert_eq!(conditions.all_damaged(), [here, there].into());
        conditions.retain(&[one].into());
        assert_eq!(conditions.all_damaged(), [here].into());
        assert!(conditions.damaged_at(two).is_empty());
        conditions.note_damaged(one, Vec::new());
        assert!(conditions.damaged_at(one).is_empty(), "it is mended");
        assert_eq!(conditions.troubled(), [one].into());
        assert!(conditions.note(one, None));
        assert_eq!(conditions.trouble(one), None);
    }
}
