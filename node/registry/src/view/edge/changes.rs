//! What an edge has heard of changes in what it keeps: of records that decide about vulnerable and
//! unsigned images, and of tags and manifests that are gone. It reads these again, also if nobody asks
//! it for those images. So it knows of a revocation and of a deletion when it is cut off later.
//! `rules::ledger::told` decides.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use parking_lot::Mutex;
use rules::edges::Known;
use rules::ledger::admitted::Stamp;
use rules::ledger::cached::Owner;
use rules::ledger::records::{EDGES, Project, decode, key};
use rules::ledger::told::{Heard, decides, goes};
use rules::wire::{self, Changed, Found, MAX_QUESTIONS, Query};
use rules::words::moment::{Moment, Timestamp};
use rules::words::names::{ProjectName, Revision};
use tracing::{debug, warn};

use super::super::kept::{KeptAnswers, ReadAgain};

/// The number of queries in one question: how much the replica knows of changes is asked with them.
pub(super) const TOGETHER: usize = MAX_QUESTIONS - 1;
/// The maximum number of rounds of questions that one look at the changes asks. What is left comes with
/// the next: the small tables must not grow old meanwhile.
const ROUNDS: usize = 20;
/// How far the ledger may go on before it is written to disk again that nothing was gone.
const REVISIONS: u64 = 1_000;

/// What an edge knows of changes.
pub(super) struct Changes {
    heard: Mutex<Heard>,
    /// Up to which revision it has heard what is gone.
    gone: Mutex<Revision>,
    waiting: Mutex<Waiting>,
    /// Up to where all was read again, as it is kept on disk.
    read_again: Mutex<ReadAgain>,
    /// Projects of which nothing is kept, because this edge may not serve them, and which edges may, as
    /// far as it knew.
    forgotten: Mutex<HashMap<ProjectName, Option<String>>>,
}

/// What is to be read again: each query once, however often it was told of, so that there are no more
/// than are kept.
#[derive(Default)]
struct Waiting {
    queries: BTreeSet<Query>,
    /// The last that was taken, so that all have their turn while more come.
    last: Option<Query>,
}

impl Waiting {
    /// Takes at most `most` of them.
    fn take(&mut self, most: usize) -> Vec<Query> {
        let after =
            (self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut some: Vec<Query> = self.queries.range(after).take(most).cloned().collect();
        if some.is_empty() {
            some = self.queries.iter().take(most).cloned().collect();
        }
        some.iter().for_each(|query| drop(self.queries.take(query)));
        self.last = some.last().cloned();
        some
    }
}

impl Changes {
    /// As `kept` has it from the time before a restart; `number` is the last that it has of changes of
    /// verdicts.
    pub(super) fn open(kept: &KeptAnswers, number: u64) -> Self {
        let read_again = kept.read_again().unwrap_or_else(|error| {
            warn!(error, "what this edge has kept of changes cannot be read");
            ReadAgain::default()
        });
        let is_sure = read_again.verdicts == number;
        Changes {
            heard: Mutex::new(Heard::after(read_again.verdicts, is_sure, clock::timestamp())),
            gone: Mutex::new(read_again.gone),
            waiting: Mutex::default(),
            read_again: Mutex::new(read_again),
            forgotten: Mutex::default(),
        }
    }

    /// The number of changes of verdicts, and the revision, of which this edge has heard.
    pub(super) fn heard(&self) -> (u64, Revision) {
        (self.heard.lock().number(), *self.gone.lock())
    }

    /// A replica that was asked at `asked` has told the number of changes of verdicts, and one what has
    /// changed since [`Changes::heard`], if any knew.
    pub(super) async fn hear(
        &self,
        kept: &KeptAnswers,
        number: u64,
        changes: Option<wire::Changes>,
        asked: Moment,
    ) {
        let withheld = changes.as_ref().map(|all| all.withheld.clone()).unwrap_or_default();
        self.forget(kept, withheld).await;
        let (verdicts, gone) = changes.map(|all| (all.verdicts, all.gone)).unzip();
        self.hear_verdicts(kept, number, verdicts, asked).await;
        if let Some(gone) = gone {
            self.hear_gone(kept, gone).await;
        }
    }

    /// Forgets what is kept of projects that this edge may not serve: it is not told what changes.
    async fn forget(&self, kept: &KeptAnswers, withheld: BTreeSet<ProjectName>) {
        let edges_of = |name: &ProjectName| {
            let found = kept_project(kept, name)?;
            found.metadata.get(EDGES).cloned()
        };
        self.forgotten.lock().retain(|name, edges| *edges == edges_of(name));
        for name in withheld {
            let edges = edges_of(&name);
            if self.forgotten.lock().contains_key(&name) {
                continue;
            }
            let owner = Owner::Project(name.clone());
            let is_of_it = move |query: &Query| Owner::of(place_of(query)) == owner;
            match kept.forget(is_of_it).await {
                Ok(()) => drop(self.forgotten.lock().insert(name, edges)),
                Err(error) => {
                    warn!(error, project = %name, "what this edge has kept of a project that it may not serve cannot be forgotten")
                }
            }
        }
    }

    async fn hear_verdicts(
        &self,
        kept: &KeptAnswers,
        number: u64,
        changed: Option<Changed>,
        asked: Moment,
    ) {
        let is_news = number != self.heard().0;
        // a replica that lags behind the first does not know all of it
        let keys = changed.filter(|changed| changed.number >= number).and_then(|all| all.keys);
        let keys: Option<BTreeSet<Vec<u8>>> =
            keys.map(|keys| keys.into_iter().map(|key| key.into_vec()).collect());
        let wrong = self.heard.lock().hear(number, keys, asked, clock::timestamp());
        if is_news {
            debug!(number, keys = wrong.as_ref().map(BTreeSet::len), "verdicts have changed");
            self.await_turn(kept, wrong, decides).await;
        }
    }

    async fn hear_gone(&self, kept: &KeptAnswers, gone: Changed) {
        // one that lags behind another has nothing new to tell
        if gone.number <= self.heard().1.0 {
            return;
        }
        let keys: Option<BTreeSet<Vec<u8>>> =
            gone.keys.map(|keys| keys.into_iter().map(|key| key.into_vec()).collect());
        self.await_turn(kept, keys, goes).await;
        *self.gone.lock() = Revision(gone.number);
    }

    /// Has the answers about these records wait for their turn, as far as they are kept; if it is not
    /// known which, those about all records of their kind.
    async fn await_turn(
        &self,
        kept: &KeptAnswers,
        keys: Option<BTreeSet<Vec<u8>>>,
        is_kind: fn(&[u8]) -> bool,
    ) {
        let queries = match keys {
            Some(keys) => keys.into_iter().map(Query::Key).collect(),
            None => {
                kept.listed(move |query| is_kind(place_of(query))).await.unwrap_or_else(|error| {
                    warn!(error, "what this edge has kept cannot be listed");
                    Vec::new()
                })
            }
        };
        let queries = queries.into_iter().filter(|query| self.may_be_wrong(kept, query));
        self.waiting.lock().queries.extend(queries);
    }

    /// Whether what is kept may not be so any more, as far as replicas have told.
    fn may_be_wrong(&self, kept: &KeptAnswers, query: &Query) -> bool {
        kept.get(query).is_some_and(|answer| {
            let is_there = *answer.found != Found::Value(None);
            self.supersedes(query, answer.at) || is_there && goes(place_of(query))
        })
    }

    /// Has what has changed read again by `ask`, which keeps fresh answers and says whether there was
    /// one.
    pub(super) async fn read_again<F>(&self, kept: &KeptAnswers, ask: impl Fn(Vec<Query>) -> F)
    where
        F: Future<Output = bool>,
    {
        let (verdicts, gone) = self.heard();
        let has_some = !self.waiting.lock().queries.is_empty();
        if has_some {
            // an answer of the very millisecond in which the change was heard of would not be newer
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for _ in 0..ROUNDS {
            let some = self.waiting.lock().take(TOGETHER);
            if some.is_empty() {
                break;
            }
            let still: Vec<Query> =
                some.iter().filter(|query| self.may_be_wrong(kept, query)).cloned().collect();
            let number = still.len() as u64;
            if number > 0 && !ask(still).await {
                self.waiting.lock().queries.extend(some);
                return;
            }
            metrics::counter!("atoll_edge_read_again_total").increment(number);
        }
        let now = ReadAgain { verdicts, gone };
        let mut before = self.read_again.lock();
        let is_news = has_some
            || now.verdicts != before.verdicts
            || now.gone.0 > before.gone.0.saturating_add(REVISIONS);
        if !self.waiting.lock().queries.is_empty() {
            return;
        }
        self.heard.lock().read_again(clock::timestamp());
        if is_news {
            *before = now;
            kept.set_read_again(now);
        }
    }

    /// Takes the place of stale answers about verdicts with what this edge has kept, if it knows more: a
    /// replica that hears no leader may not have heard of a revocation that this edge has heard of.
    /// `number` is how many changes that replica has applied.
    pub(super) fn prefer_kept(
        &self,
        kept: &KeptAnswers,
        number: u64,
        answers: &mut [(Query, Arc<Found>)],
    ) {
        if number >= self.heard().0 {
            return;
        }
        for (query, found) in answers.iter_mut().filter(|(query, _)| decides(place_of(query))) {
            if let Some(own) = kept.get(query)
                && !self.supersedes(query, own.at)
            {
                *found = own.found;
            }
        }
    }

    /// How long ago a replica that was sure of it told the number of changes; `None` if none has since
    /// the start.
    pub(super) fn age(&self) -> Option<Duration> {
        self.heard.lock().age(clock::now())
    }

    /// Whether an answer to `query` of this time may have changed since.
    pub(super) fn supersedes(&self, query: &Query, at: Timestamp) -> bool {
        let is_list = matches!(query, Query::Scan { .. });
        self.heard.lock().supersedes(place_of(query), is_list, at)
    }

    /// How sure an answer to `query` of this time is, if it decides about images.
    pub(super) fn known(&self, query: &Query, at: Timestamp, now: Timestamp) -> Option<Known> {
        if !decides(place_of(query)) {
            return None;
        }
        // one after the other: both take the lock
        let heard = self.heard.lock().age(clock::now());
        let superseded = self.supersedes(query, at);
        Some(Known { asked: now.since(at), heard, superseded })
    }

    /// The state of what decides about pulls; `None` while this edge may not hear of changes.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.heard.lock().stamp(clock::now())
    }
}

/// Whether `query` is about what decides about images.
pub(super) fn is_of_verdicts(query: &Query) -> bool {
    decides(place_of(query))
}

/// A project's record, as far as it is kept.
fn kept_project(kept: &KeptAnswers, name: &ProjectName) -> Option<Project> {
    let (table, place) = (key::projects(), key::project(name));
    let all = kept.get(&Query::Scan { prefix: table, after: None, limit: u64::MAX })?;
    let Found::Pairs(pairs) = &*all.found else { return None };
    let (_, value) = pairs.iter().find(|(key, _)| **key == place)?;
    decode(value).ok()
}

fn place_of(query: &Query) -> &[u8] {
    let (Query::Key(place) | Query::Scan { prefix: place, .. }) = query;
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::opening::Opening;
    use rules::wire::Found;
    use rules::words::names::ProjectId;

    fn opened(folder: &tempfile::TempDir) -> KeptAnswers {
        KeptAnswers::open(&folder.path().join("kept.redb"), &Opening::default()).unwrap()
    }

    fn fresh() -> (tempfile::TempDir, KeptAnswers) {
        let folder = tempfile::tempdir().unwrap();
        let kept = opened(&folder);
        (folder, kept)
    }

    fn trusted(project: u64) -> Query {
        Query::Key(rules::ledger::signatures::key::trusted(ProjectId(project)))
    }

    fn found(text: &str) -> Option<Arc<Found>> {
        Some(Arc::new(Found::Value(Some(text.as_bytes().to_vec().into()))))
    }

    fn changed(number: u64, queries: &[Query]) -> Changed {
        let keys = queries.iter().map(|query| place_of(query).to_vec().into()).collect();
        Changed { number, keys: Some(keys) }
    }

    fn verdicts(number: u64, queries: &[Query]) -> Option<wire::Changes> {
        Some(wire::Changes { verdicts: changed(number, queries), ..wire::Changes::default() })
    }

    /// Reads again, and says what was asked for; `answers` is whether a replica answers.
    async fn asked(changes: &Changes, kept: &KeptAnswers, answers: bool) -> Vec<Query> {
        let asked = Mutex::new(Vec::new());
        let ask = |queries: Vec<Query>| {
            if answers {
                for query in &queries {
                    kept.put(query.clone(), clock::timestamp(), None);
                }
            }
            asked.lock().extend(queries);
            async move { answers }
        };
        changes.read_again(kept, ask).await;
        asked.into_inner()
    }

    #[tokio::test]
    async fn what_has_changed_is_read_again_though_nobody_asks_for_it() {
        let (folder, kept) = fresh();
        let changes = Changes::open(&kept, 0);
        let at = clock::timestamp();
        for project in 1..4 {
            kept.put(trusted(project), at, found("trust"));
        }
        changes.hear(&kept, 7, verdicts(7, &[trusted(1), trusted(9)]), clock::now()).await;
        let known = |project| changes.known(&trusted(project), at, clock::timestamp()).unwrap();
        assert!(known(1).superseded && !known(2).superseded);
        // no replica answers: it is asked for again with the next look, and not lost in a restart
        assert_eq!(asked(&changes, &kept, false).await, [trusted(1)], "what it has kept of them");
        assert_eq!(kept.read_again().unwrap().verdicts, 0);
        assert_eq!(asked(&changes, &kept, true).await, [trusted(1)]);
        let answer = kept.get(&trusted(1)).unwrap();
        assert!(!changes.supersedes(&trusted(1), answer.at));
        assert!(asked(&changes, &kept, true).await.is_empty());
        drop(kept);

        let kept = opened(&folder);
        let after = Changes::open(&kept, 7);
        assert_eq!((after.heard().0, after.supersedes(&trusted(2), at)), (7, false));
        let fell = Changes::open(&kept, 8);
        assert!(fell.supersedes(&trusted(2), at), "it had heard of a change, and not read it");
    }

    #[tokio::test]
    async fn all_is_read_again_if_no_replica_knows_what_has_changed() {
        let (_folder, kept) = fresh();
        let changes = Changes::open(&kept, 0);
        let at = clock::timestamp();
        let most = (ROUNDS * TOGETHER) as u64;
        for project in 0..most + 5 {
            kept.put(trusted(project), at, found("trust"));
        }
        kept.put(Query::Key(b"p-project".to_vec()), at, found("no verdict"));
        let lags = verdicts(6, &[]);
        changes.hear(&kept, 7, lags, clock::now()).await;
        assert_eq!(asked(&changes, &kept, true).await.len() as u64, most);
        assert_eq!(kept.read_again().unwrap().verdicts, 0, "some are left");
        assert_eq!(asked(&changes, &kept, true).await.len(), 5);
        assert!(asked(&changes, &kept, true).await.is_empty());
    }

    #[tokio::test]
    async fn what_is_gone_is_read_again_and_a_replica_that_lags_behind_tells_nothing() {
        let (_folder, kept) = fresh();
        let tag = |name: &str| {
            let repository = "demo/a".parse().unwrap();
            Query::Key(key::tag(&repository, &name.parse().unwrap()))
        };
        for name in ["1", "2"] {
            kept.put(tag(name), Timestamp(50_000), found("a tag"));
        }
        kept.put(tag("3"), Timestamp(50_000), Some(Arc::new(Found::Value(None))));
        let changes = Changes::open(&kept, 0);
        changes.hear_gone(&kept, changed(70, &[tag("1"), tag("3"), tag("9")])).await;
        assert_eq!(
            asked(&changes, &kept, true).await,
            [tag("1")],
            "the others are not kept as there"
        );
        changes.hear_gone(&kept, changed(69, &[tag("2")])).await;
        assert!(asked(&changes, &kept, true).await.is_empty(), "it lags behind");
        assert_eq!(changes.heard().1, Revision(70));
        // one that has just started does not know what is gone
        changes.hear_gone(&kept, Changed { number: 71, keys: None }).await;
        assert_eq!(asked(&changes, &kept, true).await, [tag("1"), tag("2")]);
        // what is queued is on disk after this
        kept.listed(|_| false).await.unwrap();
        assert_eq!(kept.read_again().unwrap().gone, Revision(71));
    }

    #[tokio::test]
    async fn a_replica_that_is_behind_does_not_take_back_what_this_edge_knows() {
        let (_folder, kept) = fresh();
        let changes = Changes::open(&kept, 0);
        changes.hear(&kept, 7, verdicts(7, &[]), clock::now()).await;
        kept.put(trusted(1), clock::timestamp(), found("revoked"));
        let stale = |query: Query| [(query, found("trusted").unwrap())];
        let told = |number, mut answers: [(Query, Arc<Found>); 1]| {
            changes.prefer_kept(&kept, number, &mut answers);
            Some(answers[0].1.clone())
        };
        assert_eq!(told(6, stale(trusted(1))), found("revoked"));
        assert_eq!(told(7, stale(trusted(1))), found("trusted"), "it knows as much");
        assert_eq!(told(6, stale(trusted(2))), found("trusted"), "this edge knows nothing");
    }

    #[tokio::test]
    async fn of_projects_that_it_may_not_serve_an_edge_keeps_nothing() {
        let (folder, kept) = fresh();
        let changes = Changes::open(&kept, 0);
        let tag = |project: &str| {
            Query::Key(key::tag(&format!("{project}/a").parse().unwrap(), &"1".parse().unwrap()))
        };
        let withheld = || BTreeSet::from(["closed".parse().unwrap()]);
        for project in ["closed", "open"] {
            kept.put(tag(project), Timestamp(50_000), found("a tag"));
        }
        changes.forget(&kept, withheld()).await;
        assert!(kept.get(&tag("closed")).is_none() && kept.get(&tag("open")).is_some());
        // also when it is read from disk
        drop(kept);
        let kept = opened(&folder);
        assert!(kept.get(&tag("closed")).is_none() && kept.get(&tag("open")).is_some());
    }

    #[test]
    fn each_waits_once_and_all_have_their_turn_while_more_come() {
        let mut waiting = Waiting::default();
        waiting.queries.extend((0..5).chain(0..5).map(trusted));
        assert_eq!(waiting.take(2), [trusted(0), trusted(1)]);
        waiting.queries.extend([trusted(0), trusted(4)]);
        assert_eq!(waiting.take(2), [trusted(2), trusted(3)]);
        waiting.queries.insert(trusted(1));
        assert_eq!(waiting.take(2), [trusted(4)]);
        assert_eq!(waiting.take(9), [trusted(0), trusted(1)]);
        assert!(waiting.take(9).is_empty() && waiting.queries.is_empty());
    }
}
