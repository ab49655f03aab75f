//! Which replicas should be given no blobs, by their own word: pushes choose others for their copies
//! where they can, and people are shown why.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::blobs::holding::Trouble;
use rules::wire::questions::Condition;
use rules::words::names::NodeId;
use store::Store;
use tracing::{info, warn};

use super::neighbours::Neighbours;

/// The time between two questions to each replica.
const EVERY: Duration = Duration::from_secs(5);
/// How long a replica may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

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

    /// Notes what `node` says. The result is whether it says something else than before.
    fn note(&self, node: NodeId, trouble: Option<Trouble>) -> bool {
        let mut known = self.0.lock();
        let before = match trouble {
            Some(trouble) => known.insert(node, trouble),
            None => known.remove(&node),
        };
        before.is_some() != trouble.is_some()
    }

    /// Only these are replicas now.
    fn retain(&self, nodes: &BTreeSet<NodeId>) {
        self.0.lock().retain(|node, _| nodes.contains(node));
    }
}

/// Asks the replicas again and again, as long as this node runs. An edge needs not to know.
pub fn start(neighbours: Arc<Neighbours>, store: Arc<Store>, tasks: &Tasks) {
    if neighbours.is_edge() {
        return;
    }
    tasks.spawn("conditions", async move {
        loop {
            ask_all(&neighbours, &store).await;
            tokio::time::sleep(EVERY).await;
        }
    });
}

async fn ask_all(neighbours: &Neighbours, store: &Store) {
    let (me, conditions) = (neighbours.me, &neighbours.conditions);
    let alive: BTreeSet<NodeId> = neighbours.alive().into_iter().map(|c| c.id).collect();
    conditions.retain(&alive);
    let others = alive.into_iter().filter(|node| *node != me).map(|node| async move {
        let question = Condition { digests: Vec::new() };
        let said = neighbours.links.ask(node, question, PATIENCE).await;
        // one that does not say is taken for well: who is asked to take a blob has a deadline
        (node, said.ok().and_then(|condition| condition.trouble))
    });
    let mut said = join_all(others).await;
    said.push((me, store.trouble()));
    for (node, trouble) in said {
        if !conditions.note(node, trouble) {
            continue;
        }
        let name = neighbours.name_of(node);
        match trouble {
            Some(trouble) => {
                warn!(node = name, "copies go to other replicas than this one: {trouble}")
            }
            None => info!(node = name, "copies go to this replica again"),
        }
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
