//! Peers that were caught sending what is not the blob: asked last for a while, counted, and named
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

/// What this node remembers of its peers' lies.
pub struct Liars {
    neighbours: Arc<Neighbours>,
    reputation: Mutex<Reputation<NodeId>>,
    tasks: Tasks,
}

/// How long a peer may take to hear that its copy is bad.
const TELL: Duration = Duration::from_secs(2);

impl Liars {
    /// Nobody was caught yet.
    pub fn new(neighbours: Arc<Neighbours>, tasks: Tasks) -> Self {
        Liars { neighbours, reputation: Mutex::default(), tasks }
    }

    /// `peer` sent of `digest`, from the group at `offset` on, what is not the blob's.
    pub fn caught(&self, peer: NodeId, digest: Digest, offset: u64, lie: Lie) {
        let name = self.neighbours.name_of(peer);
        warn!(peer = name, %digest, offset, what = lie.name(), "a peer was caught: {lie}; the bytes were thrown away");
        metrics::counter!("atoll_peers_lied_total", "peer" => name, "what" => lie.name())
            .increment(1);
        self.reputation.lock().handle(clock::now(), peer, lie);
        // most liars are honest nodes with a bad disk: told so, they mend it
        let links = self.neighbours.links.clone();
        self.tasks.spawn("liars.tell", async move {
            let _ = links.ask(peer, Recheck { digest }, TELL).await;
        });
    }

    /// Puts peers that were caught lately last.
    pub fn order<T>(&self, sources: &mut [T], peer: impl Fn(&T) -> Option<NodeId>) {
        self.reputation.lock().order(clock::now(), sources, peer);
    }

    /// Whether `peer` was caught lately.
    pub fn demoted(&self, peer: NodeId) -> bool {
        self.reputation.lock().demoted(clock::now(), &peer)
    }

    /// Who was caught, for people to see.
    pub fn list(&self) -> Vec<(NodeId, Caught)> {
        let now = clock::now();
        self.reputation.lock().caught(now).map(|(peer, caught)| (peer, caught.clone())).collect()
    }
}
