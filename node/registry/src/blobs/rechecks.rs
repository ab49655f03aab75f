//! A node that was caught sending wrong bytes is told, and looks at its own copy, as it does when
//! its disk gives none: one that has turned bad is mended from another node's good one.

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

/// A copy is not looked at again for this long, whoever asks: each look reads the whole blob.
const LATELY: Duration = Duration::from_secs(600);
/// So many looks are remembered; while there are more, nothing else is looked at.
const REMEMBERED: usize = 1000;

/// Looks at copies that peers complain of.
pub struct Rechecks {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    flights: Arc<Flights>,
    tasks: Tasks,
    turn: Semaphore,
    lately: Mutex<HashMap<Digest, Moment>>,
}

impl Rechecks {
    /// Nothing was complained of yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        flights: Arc<Flights>,
        tasks: Tasks,
    ) -> Arc<Self> {
        let (turn, lately) = (Semaphore::new(1), Mutex::default());
        Arc::new(Rechecks { neighbours, store, flights, tasks, turn, lately })
    }

    /// A peer says that this node's copy of `digest` is wrong: it is hashed, one copy at a time,
    /// and replaced if it is. A bad copy that cannot be replaced stays as it is, for its other
    /// groups are right: two damaged copies make a good one for whoever fetches. Clients are not
    /// given wrong bytes from then on.
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

    /// A client could not be given all of the blob, for the disk did not: the same.
    pub fn unreadable(self: &Arc<Self>, digest: Digest) {
        error!(%digest, "a blob in data_dir could not be read: look at this node's disk");
        self.complained(digest);
    }

    async fn look_at(&self, digest: Digest) {
        match self.store.is_sound(&digest).await {
            Ok(true) => {
                self.store.note_sound(&digest);
                info!(%digest, "somebody complained of a blob that is sound here");
            }
            Ok(false) => {
                error!(%digest, "a blob in data_dir is damaged: look at this node's disk; the blob is replaced by another node's copy");
                // wrong bytes are worth less than none
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
        // until it is replaced clients get it from there
        self.store.note_damaged(&digest);
        // as what it is held, it is held again
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
