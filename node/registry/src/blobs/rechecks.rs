//! Checks of this node's own copies. A node that sent wrong bytes is told so and checks its copy;
//! it also does so when its disk cannot read a blob. A bad copy is replaced by another node's good
//! one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::blobs::flight::Hurry;
use rules::blobs::pacing::Class;
use rules::words::digest::Digest;
use rules::words::moment::Moment;
use tokio::sync::Semaphore;
use tracing::{error, info};

use crate::blobs::flights::{Flights, Sources};
use crate::view::neighbours::Neighbours;
use store::Store;

/// How long a copy is not checked again, whoever asks: each check reads the whole blob.
const LATELY: Duration = Duration::from_secs(600);
/// The maximum number of checks that are remembered. While there are that many, no other copy is
/// checked.
const REMEMBERED: usize = 1000;

/// Checks copies that peers complain about.
pub struct Rechecks {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    flights: Arc<Flights>,
    tasks: Tasks,
    turn: Semaphore,
    lately: Mutex<HashMap<Digest, Moment>>,
}

impl Rechecks {
    /// No complaints yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        flights: Arc<Flights>,
        tasks: Tasks,
    ) -> Arc<Self> {
        let (turn, lately) = (Semaphore::new(1), Mutex::default());
        Arc::new(Rechecks { neighbours, store, flights, tasks, turn, lately })
    }

    /// A peer says that this node's copy of `digest` is wrong. The copy is hashed (one copy at a
    /// time), and replaced if it is wrong. A bad copy that cannot be replaced stays, because its
    /// other groups are right: two damaged copies make one good one for a node that fetches.
    /// Clients get no wrong bytes of it any more.
    pub fn complained(self: &Arc<Self>, digest: Digest) {
        let now = clock::now();
        {
            let mut lately = self.lately.lock();
            lately.retain(|_, at| now.since(*at) < LATELY);
            if lately.contains_key(&digest) || lately.len() >= REMEMBERED {
                return;
            }
            lately.insert(digest, now);
        }
        let rechecks = self.clone();
        self.tasks.spawn("recheck", async move {
            let Ok(_turn) = rechecks.turn.acquire().await else { return };
            rechecks.look_at(digest).await;
        });
    }

    /// A client could not be given the whole blob, because the disk could not read it. The copy is
    /// checked in the same way.
    pub fn unreadable(self: &Arc<Self>, digest: Digest) {
        error!(%digest, "a blob in data_dir could not be read: look at this node's disk");
        self.complained(digest);
    }

    async fn look_at(&self, digest: Digest) {
        match self.store.is_sound(&digest).await {
            Ok(true) => {
                self.store.note_sound(&digest);
                info!(%digest, "a peer complained about a blob that is sound here");
            }
            Ok(false) => {
                error!(%digest, "a blob in data_dir is damaged: look at this node's disk; the blob is replaced by another node's copy");
                // no bytes are better than wrong bytes
                self.store.note_damaged(&digest);
                self.replace(digest).await;
            }
            Err(error) => {
                error!(%digest, %error, "a blob in data_dir cannot be read: look at this node's disk; the blob is replaced by another node's copy");
                self.replace(digest).await;
            }
        }
    }

    async fn replace(&self, digest: Digest) {
        metrics::counter!("atoll_blobs_damaged_total").increment(1);
        let cached = self.store.stock(&digest, None).is_ok_and(|stock| stock.cached);
        let others = self.neighbours.holders(digest, Hurry::All, |_| true).await;
        if others.is_empty() {
            error!(%digest, "no other node that is up holds the damaged blob; its image has to be pushed again");
            return;
        }
        // until it is replaced, clients get it from that node
        self.store.note_damaged(&digest);
        // fetched as cached or kept, whichever it was
        let (sources, class) = if cached {
            (Sources::Holders { via: None }, Class::Preheat)
        } else {
            (Sources::Told(others), Class::Copy)
        };
        match self.flights.join(digest, sources, class).finished().await {
            Ok(_) => info!(%digest, "the damaged blob was replaced"),
            Err(error) => error!(%digest, %error, "the damaged blob could not be replaced yet"),
        }
    }
}
