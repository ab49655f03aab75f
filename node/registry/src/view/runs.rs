//! Runs of the mesh's upkeep that are under way at this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use ground::clock;
use parking_lot::Mutex;
use rules::ledger::upkeep::{RunningUpkeep, UpkeepKind, UpkeepRun, stopped_by};
use rules::wire::UpkeepAsk;
use rules::words::moment::Timestamp;
use tokio::sync::watch;

type Place = (UpkeepKind, u64);

/// The runs of this node.
#[derive(Clone, Default)]
pub struct UpkeepRuns(Arc<Mutex<BTreeMap<Place, Entry>>>);

struct Entry {
    shown: RunningUpkeep,
    stop: watch::Sender<Option<String>>,
}

/// A run of this node. It is under way until this is dropped.
pub struct UnderWay {
    runs: UpkeepRuns,
    place: Place,
    scheduled: bool,
    parameters: String,
    stop: watch::Receiver<Option<String>>,
}

impl UpkeepRuns {
    /// Begins a run, at `now` or a moment later: no two runs of a kind have the same number here.
    pub fn begin(
        &self,
        kind: UpkeepKind,
        scheduled: bool,
        parameters: &str,
        now: Timestamp,
    ) -> UnderWay {
        let mut runs = self.0.lock();
        let mut began = now;
        while runs.contains_key(&(kind, began.0)) {
            began.0 += 1;
        }
        let parameters = parameters.to_owned();
        let shown = RunningUpkeep {
            kind,
            scheduled,
            parameters: parameters.clone(),
            began,
            stopped: false,
        };
        let (stop, stopped) = watch::channel(None);
        let place = (kind, began.0);
        runs.insert(place, Entry { shown, stop });
        UnderWay { runs: self.clone(), place, scheduled, parameters, stop: stopped }
    }

    /// Answers a question about the runs of this node.
    pub fn answer(&self, ask: &UpkeepAsk) -> Vec<RunningUpkeep> {
        let mut runs = self.0.lock();
        match ask {
            UpkeepAsk::Running(kind) => {
                let of_kind = runs.iter().filter(|(place, _)| place.0 == *kind);
                of_kind.map(|(_, entry)| entry.shown.clone()).collect()
            }
            UpkeepAsk::Stop { kind, number, by } => {
                let entry = runs.get_mut(&(*kind, *number));
                let stopped = entry.map(|entry| {
                    // who was first has stopped it
                    entry.stop.send_if_modified(|stop| {
                        let first = stop.is_none();
                        stop.get_or_insert_with(|| by.clone());
                        first
                    });
                    entry.shown.stopped = true;
                    entry.shown.clone()
                });
                stopped.into_iter().collect()
            }
        }
    }
}

impl UnderWay {
    /// When it began, which is also its number.
    pub fn began(&self) -> Timestamp {
        Timestamp(self.place.1)
    }

    /// Why it must end now, if somebody has stopped it.
    pub fn is_stopped(&self) -> Option<String> {
        self.stop.borrow().as_deref().map(stopped_by)
    }

    /// What is recorded of it now that it has ended.
    pub fn ended(&self, failed: Option<String>, log: String) -> UpkeepRun {
        UpkeepRun {
            kind: self.place.0,
            scheduled: self.scheduled,
            parameters: self.parameters.clone(),
            began: self.began(),
            ended: clock::timestamp(),
            failed,
            log,
        }
    }

    /// Completes when somebody stops it.
    pub async fn stopped(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.runs.0.lock().remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_is_stopped_by_its_number_while_it_is_under_way() {
        let runs = UpkeepRuns::default();
        let begin = || runs.begin(UpkeepKind::Collection, false, "{}", Timestamp(7));
        let (first, second) = (begin(), begin());
        assert_eq!((first.began(), second.began()), (Timestamp(7), Timestamp(8)));
        let stop = |kind, number, by: &str| {
            runs.answer(&UpkeepAsk::Stop { kind, number, by: by.into() }).len()
        };
        assert_eq!(stop(UpkeepKind::Purge, 8, "ann"), 0, "another kind");
        assert_eq!(stop(UpkeepKind::Collection, 9, "ann"), 0, "no such run");
        assert_eq!(first.is_stopped(), None);
        assert_eq!(stop(UpkeepKind::Collection, 8, "ann"), 1);
        assert_eq!(stop(UpkeepKind::Collection, 8, "bob"), 1, "again");
        second.stopped().await;
        assert_eq!(second.is_stopped().as_deref(), Some("it was stopped by ann"));
        let running = || runs.answer(&UpkeepAsk::Running(UpkeepKind::Collection));
        let shown: Vec<bool> = running().iter().map(|run| run.stopped).collect();
        assert_eq!(shown, [false, true]);
        drop(second);
        assert_eq!(running().len(), 1);
        drop(first);
        assert!(running().is_empty());
    }
}
