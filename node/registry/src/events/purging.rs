//! Purges of the audit log: what is older than somebody wants is forgotten, if it is of the kinds
//! that they name. Any replica purges when it is asked to; by a schedule the ledger's leader does.

use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::{Tasks, at_length};
use rules::ledger::command::Command;
use rules::ledger::directory::LookForGroups;
use rules::ledger::events::{Actor, Event, EventId, EventTable, EventsChange, PurgeOrder, key};
use rules::ledger::jobs::cron::Cron;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, ReadRecords, RecordError, decode};
use rules::ledger::upkeep::{LookForUpkeep, UpkeepKind};
use rules::people::configurations::Configured;
use rules::wire::NoLedger;
use rules::words::moment::Timestamp;
use rules::words::names::OperationId;
use tracing::{debug, info, warn};

use crate::view::neighbours::Neighbours;
use crate::view::runs::UnderWay;
use crate::view::upkeep;

/// The setting that says when the log is purged.
pub const SCHEDULE: &str = "purge_audit_schedule";
/// The number of events that one command forgets.
const AT_ONCE: usize = 500;
/// The time between two looks whether a purge is due.
const LOOK: Duration = Duration::from_secs(5);

/// Why a purge ended before its end. What was forgotten until then is forgotten.
#[derive(Debug, thiserror::Error)]
pub enum NotPurged {
    /// The mesh is below the feature level.
    #[error("this needs feature level {0}: `atoll level --raise`")]
    Level(Level),
    /// Nothing can be committed now.
    #[error(transparent)]
    Ledger(#[from] NoLedger),
    /// The records cannot be read.
    #[error(transparent)]
    Records(#[from] RecordError),
}

/// Purges of this mesh's audit log.
pub struct Purging {
    neighbours: Arc<Neighbours>,
    commit: Duration,
}

impl Purging {
    /// `commit` is how long a command may take.
    pub fn new(neighbours: Arc<Neighbours>, commit: Duration) -> Arc<Self> {
        Arc::new(Purging { neighbours, commit })
    }

    /// Begins to follow the schedule, at a replica.
    pub fn start(self: &Arc<Self>, tasks: &Tasks) {
        if self.neighbours.is_edge() {
            return;
        }
        let purging = self.clone();
        tasks.spawn("purge-audit", async move { purging.follow().await });
    }

    /// Begins a run, which [`Purging::run`] carries out.
    pub fn begin(&self, scheduled: bool, parameters: &str) -> Result<UnderWay, NotPurged> {
        if self.neighbours.records.view()?.level()? < Level::UPKEEP {
            return Err(NotPurged::Level(Level::UPKEEP));
        }
        let now = clock::timestamp();
        Ok(self.neighbours.upkeep.begin(UpkeepKind::Purge, scheduled, parameters, now))
    }

    /// Forgets what `order` names of before its begin, and records the run with what it did. Returns
    /// its number.
    pub async fn run(
        &self,
        run: UnderWay,
        order: &PurgeOrder,
        by: &Actor,
    ) -> Result<u64, NotPurged> {
        let mut events = 0;
        let purged = self.purge(order, &run, &mut events).await;
        let would = if order.dry_run { "would be" } else { "are" };
        let failed = match &purged {
            Ok(stopped) => stopped.clone(),
            Err(error) => Some(error.to_string()),
        };
        let done = run.ended(failed, format!("{events} events {would} purged"));
        let number = upkeep::record(&self.neighbours, done, by, self.commit).await?;
        purged.map(|_| number)
    }

    /// Why it ended before its end, if somebody has stopped it.
    async fn purge(
        &self,
        order: &PurgeOrder,
        run: &UnderWay,
        purged: &mut u64,
    ) -> Result<Option<String>, NotPurged> {
        let before = order.before(run.began());
        for table in [EventTable::Changes, EventTable::Counted] {
            let mut after = None::<Vec<u8>>;
            loop {
                let stopped = run.is_stopped();
                if stopped.is_some() {
                    return Ok(stopped);
                }
                let view = self.neighbours.records.view()?;
                let last = after.take();
                let (some, next) =
                    at_length(|| chosen(&*view, table, last.as_deref(), order, before))?;
                drop(view);
                *purged += some.len() as u64;
                if !some.is_empty() && !order.dry_run {
                    let change = EventsChange::Purge { events: some, before };
                    let command = Command::Events(Box::new(change));
                    let operation = OperationId(rand::random());
                    let records = &self.neighbours.records;
                    records.propose(operation, command, self.commit).await?;
                }
                match next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Ok(None)
    }

    async fn follow(&self) {
        // since when this node has known the schedule
        let mut known: Option<(Cron, Timestamp)> = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let records = &self.neighbours.records;
            let leads = records.ledger().is_some_and(|ledger| ledger.leads());
            if !leads || !records.connected() {
                continue;
            }
            match self.due(&mut known) {
                Ok(Some((order, parameters))) => {
                    let ran = match self.begin(true, &parameters) {
                        Ok(run) => self.run(run, &order, &Actor::mesh()).await,
                        Err(error) => Err(error),
                    };
                    match ran {
                        Ok(_) => info!("the audit log is purged, as its schedule says"),
                        Err(error) => warn!(%error, "the audit log could not be purged"),
                    }
                }
                Ok(None) => {}
                Err(error) => debug!(%error, "the schedule of purges cannot be read"),
            }
        }
    }

    /// What is to be purged now, if the schedule says so.
    fn due(
        &self,
        known: &mut Option<(Cron, Timestamp)>,
    ) -> Result<Option<(PurgeOrder, String)>, RecordError> {
        let view = self.neighbours.records.view()?;
        if view.level()? < Level::UPKEEP {
            return Ok(None);
        }
        let settings = Configured::of(&view.configurations()?);
        let Ok(cron) = settings.text(SCHEDULE).parse::<Cron>() else {
            *known = None;
            return Ok(None);
        };
        let now = clock::timestamp();
        let since = match known {
            Some((same, since)) if *same == cron => *since,
            _ => known.insert((cron.clone(), now)).1,
        };
        let runs = view.upkeep_runs(UpkeepKind::Purge)?;
        let last = runs.iter().find(|run| run.scheduled).map(|run| run.began);
        let due = cron.next(last.unwrap_or(since)).is_some_and(|next| next <= now);
        Ok(due.then(|| (settings.purge(), settings.purge_parameters())))
    }
}

/// The next of the table's events after a place that are to be purged, at most [`AT_ONCE`] of them, and
/// where to go on.
fn chosen<R: ReadRecords + ?Sized>(
    records: &R,
    table: EventTable,
    after: Option<&[u8]>,
    order: &PurgeOrder,
    before: Timestamp,
) -> Result<(Vec<EventId>, Option<Vec<u8>>), RecordError> {
    let page = records.scan(&key::events(table), after, AT_ONCE)?;
    let mut chosen = Vec::new();
    for (place, value) in &page {
        let event: Event = decode(value)?;
        if event.at >= before {
            // they are in the order of time
            return Ok((chosen, None));
        }
        if let Some(number) = key::number_of(place).filter(|_| order.takes(&event)) {
            chosen.push(EventId(table, number));
        }
    }
    Ok((chosen, page.into_iter().next_back().map(|(place, _)| place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::ledger::records::{MemoryRecords, WriteRecords, encode};

    /// Events with these operations, one an hour, the first with the number 5.
    fn log(operations: &[&str]) -> MemoryRecords {
        let mut records = MemoryRecords::default();
        for (hour, operation) in operations.iter().enumerate() {
            let event = Event {
                at: Timestamp(hour as u64 * 3_600_000),
                by: Actor::mesh(),
                operation: (*operation).into(),
                resource_type: "artifact".into(),
                resource: "team/app:1".into(),
                project: None,
                refused: None,
                count: 1,
            };
            let place = key::event(EventId(EventTable::Changes, hour as u64 + 5));
            records.put(&place, &encode(&event).unwrap()).unwrap();
        }
        records
    }

    #[test]
    fn what_is_old_enough_and_of_a_kind_that_is_named_goes() {
        let records = log(&["create", "pull", "delete", "create", "create"]);
        let numbers = |order: &PurgeOrder, hour: u64| {
            let before = order.before(Timestamp(hour * 3_600_000));
            let (ids, next) =
                chosen(&records, EventTable::Changes, None, order, before).expect("readable");
            assert!(next.is_none() || ids.len() <= AT_ONCE);
            ids.into_iter().map(|id| id.1).collect::<Vec<_>>()
        };
        let order = |hours, operations: &[&str], event_types: &[&str]| PurgeOrder {
            hours,
            operations: operations.iter().map(|word| (*word).to_owned()).collect(),
            event_types: event_types.iter().map(|word| (*word).to_owned()).collect(),
            dry_run: false,
        };
        assert_eq!(numbers(&order(1, &[], &[]), 4), [5, 6, 7], "three are older than an hour");
        assert_eq!(numbers(&order(1, &["create"], &[]), 5), [5, 8]);
        assert_eq!(numbers(&order(1, &[], &["pull_artifact"]), 9), [6]);
        assert_eq!(numbers(&order(1, &["delete"], &["pull_artifact"]), 9), [6, 7]);
        assert_eq!(numbers(&order(100, &[], &[]), 9), [0; 0], "all are younger");
        assert_eq!(numbers(&order(1, &[], &["create_tag"]), 9), [0; 0]);
        let far = order(u64::MAX, &[], &[]);
        assert_eq!(numbers(&far, 9), [0; 0], "no overflow");
    }

    #[test]
    fn a_long_log_is_gone_through_in_pieces() {
        let records = log(&vec!["pull"; AT_ONCE + 3]);
        let order = PurgeOrder { hours: 1, ..PurgeOrder::default() };
        let before = Timestamp(u64::MAX);
        let first = chosen(&records, EventTable::Changes, None, &order, before).unwrap();
        assert_eq!(first.0.len(), AT_ONCE);
        let then =
            chosen(&records, EventTable::Changes, first.1.as_deref(), &order, before).unwrap();
        assert_eq!(then.0.len(), 3);
        let end = chosen(&records, EventTable::Changes, then.1.as_deref(), &order, before).unwrap();
        assert_eq!(end, (Vec::new(), None));
    }
}
