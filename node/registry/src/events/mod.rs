//! What this node sees that is no change of the ledger: logins, refusals, pulls. It is counted, and
//! goes into the ledger as one summary now and then, never as a write for each.

pub mod pulls;
pub mod purging;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ground::clock;
use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::ledger::command::Command;
use rules::ledger::events::{Actor, EventTable, EventsChange, LookForEvents, Seen, Tally, key};
use rules::ledger::level::Level;
use rules::ledger::people::LookForPeople;
use rules::ledger::records::{Look, RecordError, decode};
use rules::people::robots::login_of;
use rules::words::moment::Timestamp;
use rules::words::names::{OperationId, RepositoryName};
use tracing::{debug, warn};

use self::pulls::PullTimes;
use crate::view::neighbours::Neighbours;
use rules::words::digest::Digest;

/// The time between two summaries.
const SUMMARY: Duration = Duration::from_secs(10);
/// The time between two looks for events that can be forgotten.
const TRIM: Duration = Duration::from_secs(60);

/// What is recorded, and for how long.
#[derive(Clone, Debug)]
pub struct EventTerms {
    /// How robots' names begin.
    pub robot_prefix: String,
    /// How long events are remembered.
    pub keep_for: Duration,
    /// The maximum number of changes, and of rows that were counted.
    pub keep: u64,
    /// One of so many pulls is recorded; none if 0.
    pub pulls: u64,
    /// The time between two summaries of when artifacts were pulled.
    pub pull_times: Duration,
    /// Until a summary is committed.
    pub commit: Duration,
}

/// Counts what this node sees.
pub struct Witness {
    neighbours: Arc<Neighbours>,
    tally: Mutex<Tally>,
    pulls: AtomicU64,
    times: Arc<PullTimes>,
    terms: EventTerms,
}

impl Witness {
    /// Nothing was seen yet.
    pub fn new(neighbours: Arc<Neighbours>, terms: EventTerms) -> Arc<Self> {
        let (tally, pulls) = (Mutex::default(), AtomicU64::new(0));
        let times = PullTimes::new(neighbours.clone(), terms.pull_times, terms.commit);
        Arc::new(Witness { neighbours, tally, pulls, times, terms })
    }

    /// Begins. An edge has no ledger to tell: what it sees is only in its metrics.
    pub fn start(self: &Arc<Self>, tasks: &Tasks) {
        self.times.start(tasks);
        if self.neighbours.is_edge() {
            return;
        }
        let witness = self.clone();
        tasks.spawn("witness", async move { witness.tell().await });
        let witness = self.clone();
        tasks.spawn("trim-events", async move { witness.forget_old().await });
    }

    /// Something happened that is no change.
    pub fn saw(&self, seen: Seen) {
        self.count(seen, 1);
    }

    /// A name and a password were shown. Of a wrong one the name is recorded only if somebody has
    /// it: people type their password where the name belongs.
    pub fn saw_login(&self, by: Actor, right: bool) {
        self.saw_sign_in(by, (!right).then_some("the name or the password is wrong"));
    }

    /// Somebody signed in, or was refused for this reason. See [`Witness::saw_login`].
    pub fn saw_sign_in(&self, by: Actor, refused: Option<&str>) {
        let known = || {
            let view = self.neighbours.records.view().ok()?;
            if let Some(login) = login_of(&by.name, &self.terms.robot_prefix) {
                return view.robot_named(login).ok()?.map(drop);
            }
            view.account_named(&by.name.parse().ok()?).ok()?.map(drop)
        };
        let name = match refused.is_none() || known().is_some() {
            true => by.name,
            false => "(unknown)".into(),
        };
        self.saw(Seen {
            by: Actor { name, ..by },
            operation: "login",
            resource_type: "registry",
            resource: String::new(),
            project: None,
            refused: refused.map(Into::into),
        });
    }

    /// A manifest was pulled. One of `audit.pulls` is recorded, and stands for all of them.
    pub fn saw_pull(
        &self,
        by: Actor,
        repository: &RepositoryName,
        reference: &str,
        digest: Option<&Digest>,
    ) {
        if let Some(digest) = digest {
            self.times.saw(repository, digest);
        }
        let every = self.terms.pulls;
        let pull = self.pulls.fetch_add(1, Ordering::Relaxed);
        if every == 0 || !pull.is_multiple_of(every) {
            return;
        }
        let seen = Seen {
            by,
            operation: "pull",
            resource_type: "artifact",
            resource: format!("{repository}{reference}"),
            project: Some(repository.project()),
            refused: None,
        };
        self.count(seen, u32::try_from(every).unwrap_or(u32::MAX));
    }

    /// When artifacts were pulled through this node, and through edges that told it.
    pub fn pull_times(&self) -> &Arc<PullTimes> {
        &self.times
    }

    fn count(&self, seen: Seen, times: u32) {
        if !self.neighbours.is_edge() {
            self.tally.lock().count(clock::timestamp(), seen, times);
        }
    }

    async fn tell(&self) {
        loop {
            tokio::time::sleep(SUMMARY).await;
            let records = &self.neighbours.records;
            let level = records.view().and_then(|view| view.level());
            // until then the rows stay, and their number is bounded
            if !records.connected() || !level.is_ok_and(|level| level >= Level::EVENTS) {
                continue;
            }
            let rows = self.tally.lock().take();
            if rows.is_empty() {
                continue;
            }
            let command = Command::Events(Box::new(EventsChange::Counted(rows)));
            let operation = OperationId(rand::random());
            if let Err(error) = records.propose(operation, command, self.terms.commit).await {
                debug!(%error, "a summary of what this node saw is lost");
            }
        }
    }

    /// The ledger's leader forgets events that are old or too many.
    async fn forget_old(&self) {
        loop {
            tokio::time::sleep(TRIM).await;
            let records = &self.neighbours.records;
            let leads =
                records.ledger().is_some_and(|ledger| ledger.leader() == Some(self.neighbours.me));
            let age = self.terms.keep_for.as_millis() as u64;
            let before = Timestamp(clock::timestamp().0.saturating_sub(age));
            match self.has_old(before) {
                Ok(true) if leads => {
                    let change = EventsChange::Trim { before, keep: self.terms.keep };
                    let command = Command::Events(Box::new(change));
                    let operation = OperationId(rand::random());
                    let done = records.propose(operation, command, self.terms.commit).await;
                    debug!(?done, "old events are forgotten");
                }
                Ok(_) => {}
                Err(error) => warn!(%error, "the events cannot be read"),
            }
        }
    }

    fn has_old(&self, before: Timestamp) -> Result<bool, RecordError> {
        let view = self.neighbours.records.view()?;
        for table in [EventTable::Changes, EventTable::Counted] {
            let counts = view.event_counts(table)?;
            if counts.next - counts.first > self.terms.keep {
                return Ok(true);
            }
            let oldest = view.scan(&key::events(table), None, 1)?.pop();
            if let Some((_, value)) = oldest
                && decode::<rules::ledger::events::Event>(&value)?.at < before
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
