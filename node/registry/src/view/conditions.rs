//! Which replicas should be given no blobs, by their own word: pushes choose others for their copies
//! where they can, and people are shown why. `blobs::checkups` asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rules::blobs::holding::Trouble;
use rules::words::names::NodeId;

/// What the replicas have said last.
#[derive(Clone, Default)]
pub struct Conditions(Arc<Mutex<BTreeMap<NodeId, Trouble>>>);

impl Conditions {
    /// Why `node` should be given no blobs; `None` if it takes them, or has not said.
    pub fn trouble(&self, node: NodeId) -> Option<Trouble> {
        self.0.lock().get(&node).copied()
    }

    /// The replicas that should be given no blobs.
    pub fn troubled(&self) -> BTreeSet<NodeId> {
        self.0.lock().keys().copied().collect()
    }

    /// The same, and why.
    pub fn all(&self) -> BTreeMap<NodeId, Trouble> {
        self.0.lock().clone()
    }

    /// Notes what `node` says. The result is whether it says something else than before.
    pub fn note(&self, node: NodeId, trouble: Option<Trouble>) -> bool {
        let mut known = self.0.lock();
        let before = match trouble {
            Some(trouble) => known.insert(node, trouble),
            None => known.remove(&node),
        };
        before.is_some() != trouble.is_some()
    }

    /// Only these are replicas now.
    pub fn retain(&self, nodes: &BTreeSet<NodeId>) {
        self.0.lock().retain(|node, _| nodes.contains(node));
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
        conditions.retain(&[one].into());
        assert_eq!(conditions.troubled(), [one].into());
        assert!(conditions.note(one, None));
        assert_eq!(conditions.trouble(one), None);
    }
}
