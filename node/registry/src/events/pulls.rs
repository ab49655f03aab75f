//! When artifacts were pulled. Each node remembers the last pull of each artifact, and the ledger
//! hears of it now and then, never for each pull. What a node has not told when it dies is lost,
//! which is an hour at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::ledger::command::Command;
use rules::ledger::level::Level;
use rules::ledger::policies::{AT_ONCE, LookForPolicies, Pull};
use rules::ledger::records::{Look, RecordError};
use rules::wire::NoLedger;
use rules::wire::questions::Pulled;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::{OperationId, RepositoryName};
use tracing::debug;

use crate::view::neighbours::Neighbours;

/// The maximum number of artifacts that are remembered. More pulled ones are not, until the next
/// summary.
const REMEMBERED: usize = 200_000;
/// How long a replica may take to hear an edge.
const TOLD: Duration = Duration::from_secs(5);

/// The last pulls through this node.
pub struct PullTimes {
    neighbours: Arc<Neighbours>,
    seen: Mutex<BTreeMap<(RepositoryName, Digest), Timestamp>>,
    every: Duration,
    commit: Duration,
}

impl PullTimes {
    /// Tells the ledger `every` so often.
    pub fn new(neighbours: Arc<Neighbours>, every: Duration, commit: Duration) -> Arc<Self> {
        Arc::new(PullTimes { neighbours, seen: Mutex::default(), every, commit })
    }

    /// Begins to tell.
    pub fn start(self: &Arc<Self>, tasks: &Tasks) {
        let pulls = self.clone();
        tasks.spawn("pulls", async move {
            loop {
                tokio::time::sleep(pulls.every).await;
                pulls.tell_all().await;
            }
        });
    }

    /// An artifact was pulled.
    pub fn saw(&self, repository: &RepositoryName, digest: &Digest) {
        self.hear([Pull {
            repository: repository.clone(),
            digest: *digest,
            at: clock::timestamp(),
        }]);
    }

    /// Artifacts were pulled here, or through an edge. A time that is yet to come counts as now.
    pub fn hear(&self, pulls: impl IntoIterator<Item = Pull>) {
        let now = clock::timestamp();
        let mut seen = self.seen.lock();
        for Pull { repository, digest, at } in pulls {
            let known = seen.len();
            let place = (repository, digest);
            if known >= REMEMBERED && !seen.contains_key(&place) {
                continue;
            }
            let last = seen.entry(place).or_insert(Timestamp(0));
            *last = at.min(now).max(*last);
        }
    }

    async fn tell_all(&self) {
        let seen = std::mem::take(&mut *self.seen.lock());
        let all: Vec<Pull> = seen
            .into_iter()
            .map(|((repository, digest), at)| Pull { repository, digest, at })
            .collect();
        if all.is_empty() && self.counts_nothing_yet() {
            // pulls are counted from now on
            let _ = self.tell_the_ledger(&[]).await;
        }
        let mut parts = all.chunks(AT_ONCE);
        while let Some(some) = parts.next() {
            let told = match self.neighbours.is_edge() {
                true => self.tell_a_replica(some).await,
                false => self.tell_the_ledger(some).await,
            };
            if let Err(error) = told {
                debug!(%error, "when artifacts were pulled could not be told yet");
                self.hear(some.iter().cloned());
                parts.by_ref().for_each(|rest| self.hear(rest.iter().cloned()));
            }
        }
    }

    fn counts_nothing_yet(&self) -> bool {
        let leads = self.neighbours.records.ledger().is_some_and(|ledger| ledger.leads());
        let since = self.neighbours.records.view().and_then(|view| view.pulls_counted_since());
        leads && since.is_ok_and(|since| since.is_none())
    }

    async fn tell_a_replica(&self, pulls: &[Pull]) -> Result<(), String> {
        let mut last = "no replica is up".to_owned();
        for replica in self.neighbours.alive() {
            let question = Pulled { pulls: pulls.to_vec() };
            match self.neighbours.links.ask(replica.id, question, TOLD).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    async fn tell_the_ledger(&self, pulls: &[Pull]) -> Result<(), String> {
        let news = self.news(pulls).map_err(|e| e.to_string())?;
        // until the level is raised nothing is told, and what was pulled since stays remembered
        let news = news.ok_or("the mesh does not count pulls yet")?;
        let operation = OperationId(rand::random());
        let command = Command::Pulled(news);
        let records = &self.neighbours.records;
        let told: Result<_, NoLedger> = records.propose(operation, command, self.commit).await;
        told.map(|_| ()).map_err(|e| e.to_string())
    }

    /// Those of `pulls` that the ledger does not know, or only of much earlier. `None` below the
    /// level.
    fn news(&self, pulls: &[Pull]) -> Result<Option<Vec<Pull>>, RecordError> {
        let view = self.neighbours.records.view()?;
        if view.level()? < Level::POLICIES {
            return Ok(None);
        }
        let mut news = Vec::new();
        for pull in pulls {
            // what proxy projects cache is evicted by its use, and is not in the ledger
            if !view.has_manifest(&pull.repository, &pull.digest)? {
                continue;
            }
            let known = view.pulled(&pull.repository, &pull.digest)?;
            if known.is_none_or(|known| known < pull.at) {
                news.push(pull.clone());
            }
        }
        Ok(Some(news))
    }
}
