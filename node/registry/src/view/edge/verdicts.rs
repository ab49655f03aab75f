//! What an edge keeps of the records that decide about vulnerable and unsigned images: when replicas
//! say that some have changed, it reads these again, also if nobody asks it for those images. So it
//! knows of a revocation when it is cut off later. `rules::ledger::verdict_changes` decides.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use ground::clock;
use parking_lot::Mutex;
use rules::edges::Known;
use rules::ledger::admitted::Stamp;
use rules::ledger::verdict_changes::{Heard, decides};
use rules::wire::{ChangedVerdicts, MAX_QUESTIONS, Query};
use rules::words::moment::{Moment, Timestamp};
use tracing::{debug, warn};

use super::super::kept::KeptAnswers;

/// The maximum number of rounds of questions that one look at the changes asks. What is left comes with
/// the next: the small tables must not grow old meanwhile.
const ROUNDS: usize = 20;

/// What an edge knows of changes.
pub(super) struct Verdicts {
    heard: Mutex<Heard>,
    /// What is to be read again.
    doubtful: Mutex<VecDeque<Query>>,
    /// The number up to which all was read again, as it is kept.
    read_again: Mutex<u64>,
}

impl Verdicts {
    /// As `kept` has it from the time before a restart; `number` is the last that it has of changes.
    pub(super) fn open(kept: &KeptAnswers, number: u64) -> Self {
        let read_again = kept.read_again().unwrap_or_else(|error| {
            warn!(error, "what this edge has kept of changes cannot be read");
            0
        });
        let heard = Heard::after(read_again, read_again == number, clock::timestamp());
        Verdicts {
            heard: Mutex::new(heard),
            doubtful: Mutex::default(),
            read_again: Mutex::new(read_again),
        }
    }

    /// The number of which this edge has heard.
    pub(super) fn number(&self) -> u64 {
        self.heard.lock().number()
    }

    /// A replica that was asked at `asked` has told `number`, and one which records have changed since
    /// [`Verdicts::number`], if any knew.
    pub(super) async fn hear(
        &self,
        kept: &KeptAnswers,
        number: u64,
        changed: Option<ChangedVerdicts>,
        asked: Moment,
    ) {
        let is_news = number != self.number();
        // a replica that lags behind the first does not know all of it
        let changed = changed.filter(|changed| changed.number >= number);
        let keys: Option<BTreeSet<Vec<u8>>> = match changed.and_then(|changed| changed.keys) {
            Some(keys) => Some(keys.into_iter().map(|key| key.into_vec()).collect()),
            None => None,
        };
        self.heard.lock().hear(number, keys.clone(), asked, clock::timestamp());
        if !is_news {
            return;
        }
        debug!(number, changed = keys.as_ref().map(BTreeSet::len), "told of changes of verdicts");
        let doubtful = match keys {
            Some(keys) => keys.into_iter().map(Query::Key).collect(),
            None => kept.listed(|query| decides(place_of(query))).await.unwrap_or_else(|error| {
                warn!(error, "what this edge has kept cannot be listed");
                Vec::new()
            }),
        };
        let mut waiting = self.doubtful.lock();
        let is_kept =
            |query: &Query| kept.get(query).is_some_and(|answer| self.supersedes(query, answer.at));
        waiting.extend(doubtful.into_iter().filter(is_kept));
    }

    /// Has what has changed read again by `ask`, which keeps fresh answers and says whether there was
    /// one.
    pub(super) async fn read_again<F>(&self, kept: &KeptAnswers, ask: impl Fn(Vec<Query>) -> F)
    where
        F: Future<Output = bool>,
    {
        let number = self.number();
        if !self.doubtful.lock().is_empty() {
            // an answer of the very millisecond in which the change was heard of would not be newer
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for _ in 0..ROUNDS {
            let some: Vec<Query> = {
                let mut waiting = self.doubtful.lock();
                let some = MAX_QUESTIONS.min(waiting.len());
                waiting.drain(..some).collect()
            };
            if some.is_empty() {
                break;
            }
            let is_doubtful = |query: &&Query| {
                kept.get(query).is_some_and(|answer| self.supersedes(query, answer.at))
            };
            let still: Vec<Query> = some.iter().filter(is_doubtful).cloned().collect();
            let number = still.len() as u64;
            if number > 0 && !ask(still).await {
                let mut waiting = self.doubtful.lock();
                some.into_iter().rev().for_each(|query| waiting.push_front(query));
                return;
            }
            metrics::counter!("atoll_edge_verdicts_read_again_total").increment(number);
        }
        let mut read_again = self.read_again.lock();
        if self.doubtful.lock().is_empty() && *read_again != number {
            *read_again = number;
            kept.set_read_again(number);
        }
    }

    /// Whether an answer to `query` of this time may have changed since.
    pub(super) fn supersedes(&self, query: &Query, at: Timestamp) -> bool {
        let is_list = matches!(query, Query::Scan { .. });
        self.heard.lock().supersedes(place_of(query), is_list, at)
    }

    /// How sure an answer to `query` of this time is, if it decides about images.
    pub(super) fn known(&self, query: &Query, at: Timestamp, now: Timestamp) -> Option<Known> {
        decides(place_of(query)).then(|| Known {
            asked: now.since(at),
            heard: self.heard.lock().age(clock::now()),
            superseded: self.supersedes(query, at),
        })
    }

    /// The state of what decides about pulls; `None` while this edge may not hear of changes.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.heard.lock().stamp(clock::now())
    }
}

fn place_of(query: &Query) -> &[u8] {
    let (Query::Key(place) | Query::Scan { prefix: place, .. }) = query;
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::opening::Opening;
    use rules::ledger::signatures::key;
    use rules::wire::Found;
    use rules::words::names::ProjectId;
    use std::sync::Arc;

    fn trusted(project: u64) -> Query {
        Query::Key(key::trusted(ProjectId(project)))
    }

    fn found(text: &str) -> Option<Arc<Found>> {
        Some(Arc::new(Found::Value(Some(text.as_bytes().to_vec().into()))))
    }

    fn changed(number: u64, queries: &[Query]) -> Option<ChangedVerdicts> {
        let keys = queries.iter().map(|query| place_of(query).to_vec().into()).collect();
        Some(ChangedVerdicts { number, keys: Some(keys) })
    }

    /// Reads again, and says what was asked for; `answers` is whether a replica answers.
    async fn asked(verdicts: &Verdicts, kept: &KeptAnswers, answers: bool) -> Vec<Query> {
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
        verdicts.read_again(kept, ask).await;
        asked.into_inner()
    }

    #[tokio::test]
    async fn what_has_changed_is_read_again_though_nobody_asks_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept.redb");
        let kept = KeptAnswers::open(&path, &Opening::default()).unwrap();
        let verdicts = Verdicts::open(&kept, 0);
        let at = clock::timestamp();
        for project in 1..4 {
            kept.put(trusted(project), at, found("trust"));
        }
        verdicts.hear(&kept, 7, changed(7, &[trusted(1), trusted(9)]), clock::now()).await;
        let known = |project| verdicts.known(&trusted(project), at, clock::timestamp()).unwrap();
        assert!(known(1).superseded && !known(2).superseded);
        // no replica answers: it is asked for again with the next look, and not lost in a restart
        assert_eq!(asked(&verdicts, &kept, false).await, [trusted(1)], "what it has kept of them");
        assert_eq!(kept.read_again().unwrap(), 0);
        assert_eq!(asked(&verdicts, &kept, true).await, [trusted(1)]);
        let answer = kept.get(&trusted(1)).unwrap();
        assert!(!verdicts.supersedes(&trusted(1), answer.at));
        assert!(asked(&verdicts, &kept, true).await.is_empty());
        drop(kept);

        let kept = KeptAnswers::open(&path, &Opening::default()).unwrap();
        let after = Verdicts::open(&kept, 7);
        assert_eq!((after.number(), after.supersedes(&trusted(2), at)), (7, false));
        let fell = Verdicts::open(&kept, 8);
        assert!(fell.supersedes(&trusted(2), at), "it had heard of a change, and not read it");
    }

    #[tokio::test]
    async fn all_is_read_again_if_no_replica_knows_what_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept.redb");
        let kept = KeptAnswers::open(&path, &Opening::default()).unwrap();
        let verdicts = Verdicts::open(&kept, 0);
        let at = clock::timestamp();
        let most = (ROUNDS * MAX_QUESTIONS) as u64;
        for project in 0..most + 5 {
            kept.put(trusted(project), at, found("trust"));
        }
        kept.put(Query::Key(b"p-project".to_vec()), at, found("no verdict"));
        let lags = changed(6, &[]);
        verdicts.hear(&kept, 7, lags, clock::now()).await;
        assert_eq!(asked(&verdicts, &kept, true).await.len() as u64, most);
        assert_eq!(kept.read_again().unwrap(), 0, "some are left");
        assert_eq!(asked(&verdicts, &kept, true).await.len(), 5);
        assert!(asked(&verdicts, &kept, true).await.is_empty());
    }
}
