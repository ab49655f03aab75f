//! Peers that were caught sending wrong bytes. They are asked last for a while, counted, and shown
//! to people.

use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::blobs::reputation::{Caught, Lie, Reputation};
use rules::wire::questions::Recheck;
use rules::words::digest::Digest;
use rules::words::names::NodeId;
use tracing::warn;

use crate::view::neighbours::Neighbours;

/// This node's memory of its peers' lies.
pub struct Liars {
    neighbours: Arc<Neighbours>,
    reputation: Mutex<Reputation<NodeId>>,
    tasks: Tasks,
}

/// How long a peer may take to receive the notice that its copy is bad.
const TELL: Duration = Duration::from_secs(2);

impl Liars {
    /// No peer was caught yet.
    pub fn new(neighbours: Arc<Neighbours>, tasks: Tasks) -> Self {
        Liars { neighbours, reputation: Mutex::default(), tasks }
    }

    /// For `digest`, in the group at `offset` or after it, `peer` sent what is not the blob.
    pub fn caught(&self, peer: NodeId, digest: Digest, offset: u64, lie: Lie) {
        let name = self.neighbours.name_of(peer);
        warn!(peer = name, %digest, offset, what = lie.name(), "a peer was caught: {lie}; the bytes were thrown away");
        metrics::counter!("atoll_peers_lied_total", "peer" => name, "what" => lie.name())
            .increment(1);
        self.reputation.lock().handle(clock::now(), peer, lie);
        // most liars are honest nodes with a bad disk, which can repair their copy if they are told
        let links = self.neighbours.links.clone();
        self.tasks.spawn("liars.tell", async move {
            let _ = links.ask(peer, Recheck { digest }, TELL).await;
        });
    }

    /// Moves peers that were caught lately to the end.
    pub fn order<T>(&self, sources: &mut [T], peer: impl Fn(&T) -> Option<NodeId>) {
        self.reputation.lock().order(clock::now(), sources, peer);
    }

    /// Whether `peer` was caught lately.
    pub fn demoted(&self, peer: NodeId) -> bool {
        self.reputation.lock().demoted(clock::now(), &peer)
    }

    /// The peers that were caught, for people to see.
    pub fn list(&self) -> Vec<(NodeId, Caught)> {
        let now = clock::now();
        self.reputation.lock().caught(now).map(|(peer, caught)| (peer, caught.clone())).collect()
    }
}
