//! Asks the replicas again and again whether they can take blobs, and which of theirs are damaged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ground::supervise::Tasks;
use rules::wire::questions::Condition;
use rules::words::names::NodeId;
use store::Store;
use tracing::{info, warn};

use crate::view::neighbours::Neighbours;

/// The time between two questions to each replica.
const EVERY: Duration = Duration::from_secs(5);
/// How long a replica may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Begins to ask, as long as this node runs. An edge needs not to know.
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
        (node, said.unwrap_or_default())
    });
    let mut said = join_all(others).await;
    said.push((me, store.condition(&[])));
    for (node, said) in said {
        let trouble = said.trouble;
        conditions.note_damaged(node, said.damaged);
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
