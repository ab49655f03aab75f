//! Checks of this node's own copies. A node that sent wrong bytes is told so and checks its copy;
//! it also does so when its disk cannot read a blob, and it reads all blobs again now and then. A
//! bad copy is replaced by another node's good one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ground::clock;
use ground::supervise::{Tasks, at_length};
use parking_lot::Mutex;
use rules::blobs::flight::Hurry;
use rules::blobs::pacing::Class;
use rules::blobs::scrubbing::{self, Position, Progress};
use rules::ledger::records::{BlobRecord, Look, key};
use rules::words::digest::Digest;
use rules::words::moment::Moment;
use rules::words::names::NodeId;
use tokio::sync::{Notify, Semaphore};
use tracing::{error, info, warn};

use super::collecting::Collecting;
use crate::blobs::flights::{Flights, Sources};
use crate::view::neighbours::Neighbours;
use store::{Store, StoreError};

/// How long a copy is not checked again, whoever asks: each check reads the whole blob.
const LATELY: Duration = Duration::from_secs(600);
/// The time between two tries to replace what is damaged.
const HEAL: Duration = Duration::from_secs(20);
/// The number of blobs after which it is looked again how many there are.
const TOGETHER: usize = 1000;
/// The time between two looks whether it is time to read all blobs again.
const REST: Duration = Duration::from_secs(60);
/// The maximum number of checks that are remembered. While there are that many, no other copy is
/// checked.
const REMEMBERED: usize = 1000;

/// Checks copies that peers complain about.
pub struct Rechecks {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    flights: Arc<Flights>,
    collecting: Arc<Collecting>,
    tasks: Tasks,
    turn: Semaphore,
    /// Set when somebody wants a new round now.
    asked: AtomicBool,
    wake: Notify,
    /// Where the reading is.
    position: Mutex<Position>,
    /// How long a round takes that nobody asked for.
    every: Duration,
    lately: Mutex<HashMap<Digest, Moment>>,
}

impl Rechecks {
    /// No complaints yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        flights: Arc<Flights>,
        collecting: Arc<Collecting>,
        tasks: Tasks,
        every: Duration,
    ) -> Arc<Self> {
        let (turn, lately) = (Semaphore::new(1), Mutex::default());
        let (asked, wake) = (AtomicBool::new(false), Notify::new());
        let position = Mutex::new(store.scrub_position());
        Arc::new(Rechecks {
            neighbours,
            store,
            flights,
            collecting,
            tasks,
            turn,
            asked,
            wake,
            position,
            every,
            lately,
        })
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
            Ok(false) => self.is_damaged(digest).await,
            Err(error) => self.is_unreadable(digest, error).await,
        }
    }

    async fn is_damaged(&self, digest: Digest) {
        error!(%digest, "a blob in data_dir is damaged: look at this node's disk; the blob is replaced by another node's copy");
        // no bytes are better than wrong bytes
        self.store.note_damaged(&digest);
        self.replace(digest).await;
    }

    async fn is_gone(&self, digest: Digest) {
        error!(%digest, "the file of a blob in data_dir is gone: look at this node's disk; the blob is fetched from another node");
        self.replace(digest).await;
    }

    /// Whether a manifest or a trash refers to a blob. If not, it was collected a moment ago.
    fn is_wanted(&self, digest: &Digest) -> bool {
        at_length(|| {
            let view = self.neighbours.records.view().ok()?;
            view.record::<BlobRecord>(&key::blob(digest)).ok()?
        })
        .is_some_and(|record| record.repositories > 0)
    }

    /// Once after the start: fetches what has no file any more, because the disk was another one or
    /// somebody removed it. No blob is read for that.
    pub async fn look_for_lost(self: Arc<Self>) {
        while !self.neighbours.records.connected() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if let Err(error) = self.find_lost().await {
            warn!(%error, "the blobs in data_dir cannot be looked for");
        }
    }

    async fn find_lost(&self) -> Result<(), StoreError> {
        let (mut after, mut found) = (None, 0_u64);
        loop {
            let some = self.store.held_after(after.as_ref(), TOGETHER)?;
            let Some((last, _)) = some.last() else { break };
            after = Some(*last);
            let digests: Vec<Digest> = some.iter().map(|(digest, _)| *digest).collect();
            for digest in self.store.without_bytes(&digests).await? {
                // the index hears of it
                let is_gone = self.store.open_blob(&digest).await?.is_none();
                if is_gone && self.is_wanted(&digest) {
                    found += 1;
                    let _turn = self.turn.acquire().await;
                    self.is_gone(digest).await;
                }
            }
            // pulls come first
            tokio::task::yield_now().await;
        }
        if found > 0 {
            error!(blobs = found, "files of blobs in data_dir were gone at the start");
        }
        Ok(())
    }

    /// Tries again and again to replace copies that are damaged and could not be replaced: a push, or a
    /// node that came back, may have brought their bytes. Runs as long as the node.
    pub async fn heal(self: Arc<Self>) {
        loop {
            tokio::time::sleep(HEAL).await;
            for digest in self.store.condition(&[]).damaged {
                let others = self.holders(digest).await;
                if !others.is_empty() && self.store.is_damaged(&digest) {
                    let _turn = self.turn.acquire().await;
                    self.replace_from(digest, others).await;
                }
            }
        }
    }

    async fn holders(&self, digest: Digest) -> Vec<NodeId> {
        self.neighbours.holders(digest, Hurry::All, |_| true, &BTreeSet::new()).await
    }

    async fn is_unreadable(&self, digest: Digest, error: StoreError) {
        error!(%digest, %error, "a blob in data_dir cannot be read: look at this node's disk; the blob is replaced by another node's copy");
        self.replace(digest).await;
    }

    /// How far the reading of all blobs is. If `now`, a new round has begun when this returns, and
    /// reads faster.
    pub fn progress(&self, now: bool) -> Result<Progress, StoreError> {
        let total = at_length(|| self.held_bytes())?;
        let mut position = self.position.lock();
        if now {
            *position = Position { began: clock::timestamp(), ..Position::default() };
            self.asked.store(true, Ordering::Relaxed);
            self.wake.notify_one();
        }
        let every_seconds = self.every.as_secs();
        Ok(Progress { position: position.clone(), total, every_seconds })
    }

    /// Reads all blobs again and again, each round in about the time that the settings say, and
    /// replaces what is wrong. Goes on where it was after a restart. Runs as long as the node.
    pub async fn scrub(self: Arc<Self>) {
        let every = self.every;
        let mut position = self.position.lock().clone();
        let rest = REST.min(every / 4);
        let mut hurried = false;
        loop {
            if self.asked.swap(false, Ordering::Relaxed) {
                position = self.position.lock().clone();
                hurried = true;
            }
            let Some(next) = position.next(clock::timestamp(), every) else {
                hurried = false;
                tokio::select! {
                    () = tokio::time::sleep(rest) => {}
                    () = self.wake.notified() => {}
                }
                continue;
            };
            position = next;
            if let Err(error) = self.scrub_some(&mut position, hurried).await {
                warn!(%error, "the blobs in data_dir cannot be read through");
                tokio::time::sleep(rest).await;
            }
        }
    }

    /// Reads the next blobs, or fewer if somebody wants a new round.
    async fn scrub_some(&self, position: &mut Position, hurried: bool) -> Result<(), StoreError> {
        let total = at_length(|| self.held_bytes())?;
        let some = self.store.held_after(position.after.as_ref(), TOGETHER)?;
        for (digest, size) in &some {
            let pause = |bytes| match hurried || self.is_asked() {
                true => scrubbing::hurried_pause(bytes),
                false => scrubbing::pause(bytes, total, self.every),
            };
            let kept = self.store.is_kept(digest)?;
            let sound = match self.store.is_sound_slowly(digest, pause).await {
                Ok(Some(false)) => {
                    let _turn = self.turn.acquire().await;
                    self.is_damaged(*digest).await;
                    false
                }
                Ok(None) if kept && self.is_wanted(digest) => {
                    let _turn = self.turn.acquire().await;
                    self.is_gone(*digest).await;
                    false
                }
                Ok(_) => true,
                Err(error) => {
                    let _turn = self.turn.acquire().await;
                    self.is_unreadable(*digest, error).await;
                    false
                }
            };
            position.read(*digest, *size, sound);
            self.collecting.suspect([*digest]);
            metrics::counter!("atoll_scrub_blobs_total").increment(1);
            metrics::counter!("atoll_scrub_bytes_total").increment(*size);
            if !self.note(position)? {
                return Ok(());
            }
        }
        if some.len() < TOGETHER {
            let Position { blobs, bytes, damaged, .. } = *position;
            info!(blobs, bytes, damaged, "all blobs in data_dir were read");
            position.over = true;
            self.note(position)?;
        }
        Ok(())
    }

    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Notes where the reading is, unless somebody wants a new round: then it is false.
    fn note(&self, position: &Position) -> Result<bool, StoreError> {
        {
            let mut known = self.position.lock();
            if self.is_asked() {
                return Ok(false);
            }
            known.clone_from(position);
        }
        self.store.note_scrub_position(position)?;
        Ok(true)
    }

    fn held_bytes(&self) -> Result<u64, StoreError> {
        let (mut total, mut after) = (0, None);
        loop {
            let some = self.store.held_after(after.as_ref(), 10_000)?;
            total += some.iter().map(|(_, size)| size).sum::<u64>();
            match some.last() {
                Some((last, _)) => after = Some(*last),
                None => return Ok(total),
            }
        }
    }

    async fn replace(&self, digest: Digest) {
        metrics::counter!("atoll_blobs_damaged_total").increment(1);
        let others = self.holders(digest).await;
        if others.is_empty() {
            error!(%digest, "no other node that is up holds the damaged blob; its image has to be pushed again");
            return;
        }
        // until it is replaced, clients get it from that node
        self.store.note_damaged(&digest);
        self.replace_from(digest, others).await;
    }

    async fn replace_from(&self, digest: Digest, others: Vec<NodeId>) {
        // fetched as cached or kept, whichever it was
        let cached = self.store.stock(&digest, None).await.is_ok_and(|stock| stock.cached);
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
