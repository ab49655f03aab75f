//! Collection at this node: reports what nothing refers to, removes what was collected, and, at the
//! ledger's leader, proposes what to collect. `rules::ledger::collecting` has the protocol, and why
//! no push that was acknowledged can lose a blob by it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use ground::clock;
use ground::supervise::{Tasks, at_length};
use parking_lot::Mutex;
use rules::ledger::collecting::{self, AT_ONCE, CollectChange, Collected, Garbage, LookForGarbage};
use rules::ledger::command::{Command, Outcome};
use rules::ledger::level::Level;
use rules::ledger::records::{BlobRecord, Look, RecordError, key};
use rules::ledger::upkeep::UpkeepKind;
use rules::wire::{CollectionAnswer, CollectionAsk, MAX_HAVE, NoLedger, questions};
use rules::words::digest::Digest;
use rules::words::moment::{Moment, Timestamp};
use rules::words::names::{NodeId, OperationId};
use store::{Store, StoreError};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::view::neighbours::Neighbours;
use crate::view::runs::UnderWay;

/// The number of blobs that are removed while nothing can become held.
const TOGETHER: usize = 32;
/// The number of blobs of one collection: what each replica removes before the next one.
const IN_ONE: usize = 100;
/// How long a replica may take to remove them.
const PATIENCE: Duration = Duration::from_secs(60);
/// The number of collected blobs that are looked at in one scan.
const PAGE: usize = 1000;
/// The maximum number of blobs that wait to be reported. What does not fit is found when all blobs
/// are read again.
const SUSPECTS: usize = 100_000;
/// The least time between two looks for what was collected: a busy mesh applies very much.
const PAUSE: Duration = Duration::from_millis(20);
/// The time between two looks whether something is due.
const LOOK: Duration = Duration::from_secs(1);
/// How often the leader counts what waits, for the metrics.
const TOLD_EVERY: Duration = Duration::from_secs(30);
/// The time between two looks for grants that have ended: all grants are read.
const REPORT: Duration = Duration::from_secs(5);
/// How long replicas may take to say what pushes count on.
const ASKED: Duration = Duration::from_secs(5);
/// How long a replica waits for its own collections before it says that it is behind.
const BEHIND: Duration = Duration::from_millis(700);
/// How long after a round that could not be finished the next one begins.
const AGAIN: Duration = Duration::from_secs(30);
/// The number of blobs of which the age and the length are counted for people.
const COUNTED: usize = 100_000;

/// When garbage is collected; see the settings of the same names.
#[derive(Clone, Copy, Debug)]
pub struct CollectionTerms {
    /// How long a blob is garbage until it is collected.
    pub grace: Duration,
    /// The time between two rounds.
    pub every: Duration,
    /// How long a command may take.
    pub commit: Duration,
    /// How long a push counts on a blob after it was uploaded, mounted or asked for.
    pub counted_for: Duration,
}

/// Why a round of collection ended before its end. What was collected until then stays so.
#[derive(Debug, thiserror::Error)]
pub enum NotCollected {
    /// These replicas are up and did not say what pushes count on.
    #[error("{0} did not say which blobs pushes count on; nothing more is collected until it does")]
    Silent(String),
    /// This replica is up and has not removed in time what was collected.
    #[error("{0} has not removed yet what was collected; nothing more is collected until it has")]
    Slow(String),
    /// The mesh is below the feature level of collection.
    #[error("this needs feature level {0}: `atoll level --raise`")]
    Level(Level),
    /// Nothing can be committed now.
    #[error(transparent)]
    Ledger(#[from] NoLedger),
    /// The records cannot be read.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a round has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// The number of blobs that were garbage for long enough.
    pub due: u64,
    /// The number of those that pushes count on, so that they stay.
    pub counted_on: u64,
    /// The number of blobs that were collected, or would have been.
    pub collected: u64,
    /// The number of their bytes, as far as the ledger knows it.
    pub bytes: u64,
    /// Whether somebody has stopped it before its end.
    pub stopped: bool,
}

/// How much garbage there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The number of blobs.
    pub blobs: u64,
    /// The number of their bytes in one copy, as far as the ledger knows it.
    pub bytes: u64,
    /// Since when the oldest is garbage.
    pub oldest: Option<Timestamp>,
    /// Whether there is more, which was not counted.
    pub more: bool,
}

/// Collection at this node.
pub struct Collecting {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    terms: CollectionTerms,
    carried_out: watch::Sender<u64>,
    /// Blobs here that may be garbage.
    suspects: Mutex<BTreeSet<Digest>>,
    /// Held by whoever collects at this node.
    turn: tokio::sync::Mutex<()>,
}

impl Collecting {
    /// Goes on where the node was when it stopped.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        terms: CollectionTerms,
    ) -> Result<Arc<Self>, StoreError> {
        let carried_out = watch::Sender::new(store.collected()?);
        let (suspects, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Arc::new(Collecting { neighbours, store, terms, carried_out, suspects, turn }))
    }

    /// When garbage is collected.
    pub fn terms(&self) -> CollectionTerms {
        self.terms
    }

    /// Begins to work, at a replica.
    pub fn start(self: &Arc<Self>, tasks: &Tasks) {
        if self.neighbours.is_edge() {
            return;
        }
        let collecting = self.clone();
        tasks.spawn("collection", async move { collecting.follow().await });
        let collecting = self.clone();
        tasks.spawn("collection.leader", async move { collecting.lead().await });
    }

    /// Somebody came across these blobs. Those that are kept here although nothing refers to them are
    /// reported.
    pub fn suspect(&self, digests: impl IntoIterator<Item = Digest>) {
        if self.neighbours.is_edge() {
            return;
        }
        let mut suspects = self.suspects.lock();
        for digest in digests {
            if suspects.len() >= SUSPECTS {
                return;
            }
            suspects.insert(digest);
        }
    }

    /// Waits a moment until all collections up to `number` were carried out here. Returns whether
    /// they were.
    pub async fn is_carried_out(&self, number: u64) -> bool {
        let mut carried_out = self.carried_out.subscribe();
        let wait = carried_out.wait_for(|done| *done >= number);
        tokio::time::timeout(BEHIND, wait).await.is_ok_and(|done| done.is_ok())
    }

    /// Answers another replica. The error is a sentence for it.
    pub async fn answer(&self, ask: CollectionAsk) -> Result<CollectionAnswer, String> {
        if ask.len() > MAX_HAVE {
            return Err(format!("more than {MAX_HAVE} blobs in one question"));
        }
        match ask {
            CollectionAsk::Stock { digests, repository, collections } => {
                if !self.is_carried_out(collections).await {
                    return Err(format!(
                        "collection {collections} is not carried out here yet; try again"
                    ));
                }
                let stock = self.store.stocks(&digests, repository.as_ref()).await;
                Ok(CollectionAnswer::Stock(stock.map_err(|e| e.to_string())?))
            }
            CollectionAsk::CountedOn(digests) => {
                let granted = self.store.all_granted().map_err(|e| e.to_string())?;
                let counted_on = digests.iter().map(|digest| granted.contains(digest)).collect();
                Ok(CollectionAnswer::CountedOn(counted_on))
            }
        }
    }

    async fn follow(&self) {
        let records = &self.neighbours.records;
        let Some(ledger) = records.ledger() else { return };
        let (mut applied, mut reported) = (ledger.applied(), clock::now());
        loop {
            // what is applied from here on wakes it again
            applied.borrow_and_update();
            if let Err(error) = self.carry_out().await {
                warn!(%error, "what was collected could not be removed yet");
                tokio::time::sleep(LOOK).await;
            }
            if clock::now().since(reported) >= REPORT && records.connected() {
                reported = clock::now();
                if let Err(error) = self.report().await {
                    debug!(%error, "garbage could not be reported yet");
                }
            }
            tokio::time::sleep(PAUSE).await;
            let _ = tokio::time::timeout(LOOK, applied.changed()).await;
        }
    }

    /// Removes what was collected since the last call.
    async fn carry_out(&self) -> Result<(), NotCollected> {
        let done = *self.carried_out.borrow();
        let view = self.neighbours.records.view()?;
        let target = view.collections()?;
        if target <= done {
            return Ok(());
        }
        let (mut after, mut total) = (None::<Collected>, (0, 0));
        loop {
            let some = view.collected_after(done, after.as_ref(), PAGE)?;
            let Some(last) = some.last() else { break };
            after = Some(*last);
            for part in some.chunks(TOGETHER) {
                let digests: Vec<Digest> = part.iter().map(|one| one.digest).collect();
                let (blobs, bytes) =
                    self.store.collect(&digests, |digest| self.is_unreferenced(digest)).await?;
                total = (total.0 + blobs, total.1 + bytes);
                metrics::counter!("atoll_collected_blobs_total").increment(blobs);
                metrics::counter!("atoll_collected_bytes_total").increment(bytes);
            }
        }
        self.store.note_collected(target).await?;
        self.carried_out.send_replace(target);
        if total.0 > 0 {
            info!(blobs = total.0, bytes = total.1, "blobs that nothing refers to were removed");
        }
        Ok(())
    }

    /// As this node has the records now. A manifest that it has not applied yet was recorded by a
    /// primary that does not count on this node, or that waits for it.
    fn is_unreferenced(&self, digest: &Digest) -> Result<bool, StoreError> {
        let view = self.neighbours.records.view();
        let referenced = view.and_then(|view| view.is_referenced(digest));
        referenced.map(|referenced| !referenced).map_err(|e| StoreError::Index(e.to_string()))
    }

    /// Tells the ledger of blobs that are kept here although nothing refers to them, and removes
    /// grants that have ended. A grant is removed after that, so a crash in between loses none.
    async fn report(&self) -> Result<(), NotCollected> {
        let ended = at_length(|| self.store.ended_grants(AT_ONCE))?;
        let digests: BTreeSet<Digest> = ended.iter().map(|(_, digest)| *digest).collect();
        self.tell(digests.into_iter().collect()).await?;
        if !ended.is_empty() {
            self.store.remove_grants(ended.into_iter().map(|(grant, _)| grant).collect()).await?;
        }
        let some: Vec<Digest> = self.suspects.lock().iter().take(AT_ONCE).copied().collect();
        self.tell(some.clone()).await?;
        let mut suspects = self.suspects.lock();
        for digest in &some {
            suspects.remove(digest);
        }
        Ok(())
    }

    /// Reports those of `suspects` that are garbage. Below its feature level there is none.
    async fn tell(&self, suspects: Vec<Digest>) -> Result<(), NotCollected> {
        if suspects.is_empty() {
            return Ok(());
        }
        let strays = at_length(|| self.strays(&suspects))?;
        if strays.is_empty() {
            return Ok(());
        }
        debug!(blobs = strays.len(), "blobs here are garbage");
        self.propose(Command::Collect(CollectChange::Strays(strays))).await.map(drop)
    }

    /// Those of `suspects` that are kept here and that nothing refers to.
    fn strays(&self, suspects: &[Digest]) -> Result<Vec<Digest>, NotCollected> {
        let view = self.neighbours.records.view()?;
        if view.level()? < Level::COLLECTION {
            return Ok(Vec::new());
        }
        let granted = self.store.all_granted()?;
        let mut strays = Vec::new();
        for digest in suspects {
            let known = view.is_referenced(digest)? || view.garbage_since(digest)?.is_some();
            if !known && !granted.contains(digest) && self.store.is_kept(digest)? {
                strays.push(*digest);
            }
        }
        Ok(strays)
    }

    async fn propose(&self, command: Command) -> Result<Outcome, NotCollected> {
        let operation = OperationId(rand::random());
        let records = &self.neighbours.records;
        Ok(records.propose(operation, command, self.terms.commit).await?.outcome)
    }

    /// At the ledger's leader: a round now and then.
    async fn lead(&self) {
        let (mut next, mut told): (Option<Moment>, Option<Moment>) = (None, None);
        loop {
            tokio::time::sleep(LOOK).await;
            let leads = self.neighbours.records.ledger().is_some_and(|ledger| ledger.leads());
            if !leads || !self.neighbours.records.connected() {
                if next.take().is_some() {
                    show(Waiting::default());
                    told = None;
                }
                continue;
            }
            if told.is_none_or(|at| clock::now().since(at) >= TOLD_EVERY) {
                match at_length(|| self.waiting()) {
                    Ok(waiting) => show(waiting),
                    Err(error) => warn!(%error, "garbage could not be counted"),
                }
                told = Some(clock::now());
            }
            // the leader before may have had a round a moment ago, which does no harm
            let due = *next.get_or_insert(clock::now());
            if clock::now() < due {
                continue;
            }
            let pause = match self.collect(self.terms.grace, false, None).await {
                Ok(Round { due, counted_on, collected, bytes, .. }) => {
                    if collected > 0 {
                        info!(due, counted_on, collected, bytes, "garbage is collected");
                    }
                    self.terms.every
                }
                Err(NotCollected::Level(_)) => self.terms.every,
                Err(error) => {
                    warn!(%error, "garbage could not be collected");
                    AGAIN.min(self.terms.every)
                }
            };
            next = Some(clock::now() + pause);
            told = None;
        }
    }

    /// Begins a run that somebody has asked for, and that can be stopped.
    pub fn begin(&self, parameters: &str) -> UnderWay {
        let now = clock::timestamp();
        self.neighbours.upkeep.begin(UpkeepKind::Collection, false, parameters, now)
    }

    /// Collects what has been garbage for `grace`, or only counts it (`dry`). Any replica may. If it is
    /// a `run`, it ends between two commands when that is stopped.
    pub async fn collect(
        &self,
        grace: Duration,
        dry: bool,
        run: Option<&UnderWay>,
    ) -> Result<Round, NotCollected> {
        let is_stopped = || run.is_some_and(|run| run.is_stopped().is_some());
        let stopped = |round| Ok(Round { stopped: true, ..round });
        let Some(_turn) = unless_stopped(run, self.turn.lock()).await else {
            return stopped(Round::default());
        };
        if self.neighbours.records.view()?.level()? < Level::COLLECTION {
            return Err(NotCollected::Level(Level::COLLECTION));
        }
        let before = collecting::before(clock::timestamp(), grace);
        let (mut round, mut after) = (Round::default(), None::<Garbage>);
        loop {
            let mut page = self.neighbours.records.view()?.garbage(after.as_ref(), AT_ONCE)?;
            page.retain(|one| one.since < before);
            let Some(last) = page.last() else { return Ok(round) };
            after = Some(*last);
            let digests: Vec<Digest> = page.iter().map(|one| one.digest).collect();
            let Some(counted_on) = unless_stopped(run, self.counted_on(&digests)).await else {
                return stopped(round);
            };
            let counted_on = counted_on?;
            let due: Vec<Digest> =
                digests.into_iter().filter(|digest| !counted_on.contains(digest)).collect();
            round.due += page.len() as u64;
            round.counted_on += (page.len() - due.len()) as u64;
            for some in due.chunks(IN_ONE) {
                if is_stopped() {
                    return stopped(round);
                }
                let view = self.neighbours.records.view()?;
                for digest in some {
                    round.collected += 1;
                    round.bytes += size_of(&*view, digest)?;
                }
                drop(view);
                if !dry {
                    let change = CollectChange::Collect { digests: some.to_vec(), before };
                    self.propose(Command::Collect(change)).await?;
                    match unless_stopped(run, self.wait_for_all()).await {
                        Some(all) => all?,
                        None => return stopped(round),
                    }
                }
            }
        }
    }

    /// Waits until every replica that is up has carried out what was collected. Pushes wait for the
    /// slowest disk, so it must never have much to do.
    async fn wait_for_all(&self) -> Result<(), NotCollected> {
        let collections = self.neighbours.records.view()?.collections()?;
        let end = clock::now() + PATIENCE;
        for node in self.neighbours.alive().into_iter().map(|c| c.id) {
            let (digests, repository) = (Vec::new(), None);
            let ask = CollectionAsk::Stock { digests, repository, collections };
            loop {
                let done = match node == self.neighbours.me {
                    true => self.is_carried_out(collections).await,
                    false => {
                        let question = questions::Collection { ask: ask.clone() };
                        self.neighbours.links.ask(node, question, ASKED).await.is_ok()
                    }
                };
                let up = self.neighbours.alive().iter().any(|c| c.id == node);
                if done || !up {
                    break;
                }
                if clock::now() >= end {
                    return Err(NotCollected::Slow(self.neighbours.name_of(node)));
                }
                tokio::time::sleep(LOOK / 4).await;
            }
        }
        Ok(())
    }

    /// Those of `digests` that a push counts on at some replica that is up.
    async fn counted_on(&self, digests: &[Digest]) -> Result<HashSet<Digest>, NotCollected> {
        let mut all = self.store.all_granted()?;
        let others: Vec<NodeId> = self.neighbours.alive().into_iter().map(|c| c.id).collect();
        let others = others.into_iter().filter(|id| *id != self.neighbours.me);
        let asked = others.map(|node| async move {
            let ask = CollectionAsk::CountedOn(digests.to_vec());
            let question = questions::Collection { ask };
            match self.neighbours.links.ask(node, question, ASKED).await {
                Ok(CollectionAnswer::CountedOn(says)) if says.len() == digests.len() => Ok(says),
                _ => Err(node),
            }
        });
        for answer in join_all(asked).await {
            match answer {
                Ok(says) => all.extend(
                    digests.iter().zip(says).filter(|(_, counted)| *counted).map(|(d, _)| *d),
                ),
                Err(node) => {
                    return Err(NotCollected::Silent(self.neighbours.name_of(node)));
                }
            }
        }
        Ok(all)
    }

    /// How much garbage there is. Reads all of it, to a limit.
    pub fn waiting(&self) -> Result<Waiting, RecordError> {
        let view = self.neighbours.records.view()?;
        let (mut waiting, mut after) = (Waiting::default(), None::<Garbage>);
        loop {
            let page = view.garbage(after.as_ref(), AT_ONCE)?;
            let Some(last) = page.last() else { return Ok(waiting) };
            waiting.oldest = waiting.oldest.or(page.first().map(|first| first.since));
            after = Some(*last);
            for one in &page {
                waiting.blobs += 1;
                waiting.bytes += size_of(&*view, &one.digest)?;
            }
            if waiting.blobs as usize >= COUNTED {
                waiting.more = true;
                return Ok(waiting);
            }
        }
    }
}

/// What `work` comes to; `None` if the run is stopped before.
async fn unless_stopped<T>(run: Option<&UnderWay>, work: impl Future<Output = T>) -> Option<T> {
    let Some(run) = run else { return Some(work.await) };
    tokio::select! {
        biased;
        () = run.stopped() => None,
        done = work => Some(done),
    }
}

fn size_of(view: &(impl Look + ?Sized), digest: &Digest) -> Result<u64, RecordError> {
    let record = view.record::<BlobRecord>(&key::blob(digest))?;
    Ok(record.map_or(0, |record| record.size))
}

fn show(waiting: Waiting) {
    let age = waiting.oldest.map_or(0, |since| clock::timestamp().0.saturating_sub(since.0));
    metrics::gauge!("atoll_garbage_blobs").set(waiting.blobs as f64);
    metrics::gauge!("atoll_garbage_bytes").set(waiting.bytes as f64);
    metrics::gauge!("atoll_garbage_oldest_seconds").set(age as f64 / 1000.0);
}
