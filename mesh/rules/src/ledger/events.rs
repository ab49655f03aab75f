//! What happened: a record of who changed what, in the order of the log.
//!
//! Each command that matters to people leaves an event in the same entry ([`describe`]). What is no
//! command (logins, refusals, pulls) comes as summaries of the nodes, in a table of its own, so that
//! a flood of it pushes out no changes. Both tables are bounded.
//!
//! An event names things, and never contains passwords, secrets or tokens: it is made of names only.
//!
//! [`describe`]: crate::ledger::apply

use std::collections::{BTreeMap, BTreeSet};
// only the address type is used; what could do I/O with it is in std
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ledger::level::Level;
use crate::ledger::records::{Look, RecordError, decode};
use crate::words::moment::Timestamp;
use crate::words::names::ProjectName;

/// The maximum length of an event's texts in characters.
pub const MAX_TEXT: usize = 300;
/// The maximum number of rows in a node's summary.
pub const MAX_ROWS: usize = 50;
/// The maximum number of bytes of all events of a table. The oldest make room.
pub const MOST_BYTES: [u64; 2] = [64 << 20, 8 << 20];

/// What separates, in [`Event::resource`], a name from what was changed of it. No name has one.
pub const DETAILS: char = '\n';

/// Who did something, and from where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Actor {
    /// The name of a user or robot; `anonymous`; or [`MESH`].
    pub name: String,
    /// The client's address, as the node that was asked knew it.
    pub address: Option<IpAddr>,
}

/// The name of the actor of what the mesh does by itself.
pub const MESH: &str = "atoll";

impl Actor {
    /// The mesh itself.
    pub fn mesh() -> Self {
        Actor { name: MESH.into(), address: None }
    }
}

/// The tables of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EventTable {
    /// Changes of the ledger.
    Changes,
    /// What nodes have counted: logins, refusals, pulls.
    Counted,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When. Of a summary's row, the last time.
    pub at: Timestamp,
    /// Who did it.
    pub by: Actor,
    /// What was done, in Harbor's words where it has some: create, delete, update, pull, login.
    pub operation: String,
    /// To what kind of thing: artifact, tag, project, member, user, robot.
    pub resource_type: String,
    /// Its name; from the feature level [`Level::DETAILS`] on, after [`DETAILS`], what was changed of
    /// it. See [`Event::named`].
    pub resource: String,
    /// The project that it belongs to.
    pub project: Option<ProjectName>,
    /// Why it was refused. `None` if it was done.
    pub refused: Option<String>,
    /// How often it happened.
    pub count: u32,
}

impl Event {
    /// Its name, and what was changed of it, which may be empty.
    pub fn named(&self) -> (&str, &str) {
        self.resource.split_once(DETAILS).unwrap_or((&self.resource, ""))
    }
}

/// The place of an event: its table, and its number there. Numbers grow; those of events that were
/// purged are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EventId(pub EventTable, pub u64);

impl EventId {
    /// Its number for people and in Harbor's API: of both tables.
    pub fn number(self) -> u64 {
        self.1 * 2 + u64::from(self.0 == EventTable::Counted)
    }
}

/// What a table has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounts {
    /// The number of the oldest event.
    pub first: u64,
    /// The number that the next event gets.
    pub next: u64,
    /// The bytes of all.
    pub bytes: u64,
}

/// A change of the events that is no consequence of another command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventsChange {
    /// What a node has counted: at most [`MAX_ROWS`] rows.
    Counted(Vec<Event>),
    /// Forgets events, a limited number at a time.
    Trim {
        /// Those from before this.
        before: Timestamp,
        /// And all but this number of the newest changes.
        keep: u64,
    },
    /// Forgets these events, a limited number.
    Purge {
        /// The events.
        events: Vec<EventId>,
        /// Those that are not from before this stay.
        before: Timestamp,
    },
}

impl EventsChange {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            EventsChange::Counted(_) => "count_events",
            EventsChange::Trim { .. } => "trim_events",
            EventsChange::Purge { .. } => "purge_events",
        }
    }

    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        match self {
            EventsChange::Counted(_) | EventsChange::Trim { .. } => Level::EVENTS,
            EventsChange::Purge { .. } => Level::UPKEEP,
        }
    }
}

/// What a purge of the log is to forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeOrder {
    /// What happened within the last so many hours stays.
    pub hours: u64,
    /// Only events of these operations go: `create`, `delete`, `pull`.
    pub operations: BTreeSet<String>,
    /// And events of these operations on these kinds of things: `create_artifact`. If neither these
    /// nor operations are named, events of all kinds go.
    pub event_types: BTreeSet<String>,
    /// Only count them.
    pub dry_run: bool,
}

impl PurgeOrder {
    /// What happened before this goes.
    pub fn before(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_sub(self.hours.saturating_mul(3_600_000)))
    }

    /// Whether an event that is old enough goes.
    pub fn takes(&self, event: &Event) -> bool {
        let kind = || format!("{}_{}", event.operation, event.resource_type);
        let all = self.operations.is_empty() && self.event_types.is_empty();
        all || self.operations.contains(&event.operation) || self.event_types.contains(&kind())
    }
}

/// Keys of events in the map.
pub mod key {
    use super::*;

    fn letter(table: EventTable) -> u8 {
        match table {
            EventTable::Changes => b'X',
            EventTable::Counted => b'O',
        }
    }

    /// An event.
    pub fn event(id: EventId) -> Vec<u8> {
        [&[letter(id.0)][..], &id.1.to_be_bytes()].concat()
    }
    /// All events of a table, the oldest first.
    pub fn events(table: EventTable) -> Vec<u8> {
        vec![letter(table)]
    }
    /// The number at the end of a key of [`event`].
    pub fn number_of(key: &[u8]) -> Option<u64> {
        key.get(1..)?.try_into().ok().map(u64::from_be_bytes)
    }
    /// What a table has.
    pub fn counts(table: EventTable) -> Vec<u8> {
        vec![b'Q', letter(table)]
    }
}

/// Typed reading of events.
pub trait LookForEvents: Look {
    /// What a table has.
    fn event_counts(&self, table: EventTable) -> Result<EventCounts, RecordError> {
        Ok(self.record(&key::counts(table))?.unwrap_or_default())
    }

    /// Events of a table before the number `before`, the newest first: those with up to `most`
    /// numbers, or the next ones before if these were purged. None if there is none.
    fn events_before(
        &self,
        table: EventTable,
        before: u64,
        most: u64,
    ) -> Result<Vec<(EventId, Event)>, RecordError> {
        let EventCounts { first, next, .. } = self.event_counts(table)?;
        let mut before = before.min(next);
        loop {
            let from = before.saturating_sub(most).max(first);
            if from >= before {
                return Ok(Vec::new());
            }
            // strictly after the one before the first
            let after = from.checked_sub(1).map(|last| key::event(EventId(table, last)));
            let count = (before - from) as usize;
            let pairs = self.scan(&key::events(table), after.as_deref(), count)?;
            let mut events = Vec::new();
            for (place, value) in pairs {
                match key::number_of(&place) {
                    Some(number) if number < before => {
                        events.push((EventId(table, number), decode(&value)?));
                    }
                    _ => break,
                }
            }
            if !events.is_empty() {
                events.reverse();
                return Ok(events);
            }
            before = from;
        }
    }

    /// Calls `each` with the events of both tables, the newest first, until it returns false.
    fn newest_events(&self, mut each: impl FnMut(EventId, Event) -> bool) -> Result<(), RecordError>
    where
        Self: Sized,
    {
        let tables = [EventTable::Changes, EventTable::Counted];
        let mut before = [u64::MAX; 2];
        let mut heads: [std::collections::VecDeque<(EventId, Event)>; 2] = Default::default();
        loop {
            for (at, table) in tables.into_iter().enumerate() {
                if heads[at].is_empty() && before[at] > 0 {
                    let piece = self.events_before(table, before[at], 200)?;
                    before[at] = piece.last().map_or(0, |(id, _)| id.1);
                    heads[at] = piece.into();
                }
            }
            let time = |at: usize| heads[at].front().map(|(_, event)| event.at);
            let at = if time(1) > time(0) { 1 } else { 0 };
            let Some((id, event)) = heads[at].pop_front() else { return Ok(()) };
            if !each(id, event) {
                return Ok(());
            }
        }
    }
}

impl<R: Look + ?Sized> LookForEvents for R {}

/// What a node saw that is no command: a row of its next summary, without time and number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Who did it.
    pub by: Actor,
    /// See [`Event::operation`].
    pub operation: &'static str,
    /// See [`Event::resource_type`].
    pub resource_type: &'static str,
    /// See [`Event::resource`].
    pub resource: String,
    /// See [`Event::project`].
    pub project: Option<ProjectName>,
    /// See [`Event::refused`].
    pub refused: Option<String>,
}

/// Counts what a node sees until its next summary. What happens again is one row.
#[derive(Debug, Default)]
pub struct Tally {
    rows: BTreeMap<Seen, (Timestamp, u32)>,
    /// What found no row, by operation and whether it was refused.
    others: BTreeMap<(&'static str, bool), (Timestamp, u32)>,
}

impl Tally {
    /// `seen` happened `times` times, the last time at `now`. Beyond [`MAX_ROWS`] rows only
    /// how often is counted.
    pub fn count(&mut self, now: Timestamp, seen: Seen, times: u32) {
        // the rows of the others need places, too
        let full = self.rows.len() >= MAX_ROWS - 10 && !self.rows.contains_key(&seen);
        let row = match full {
            true => self.others.entry((seen.operation, seen.refused.is_some())).or_default(),
            false => self.rows.entry(seen).or_default(),
        };
        *row = (now, row.1.saturating_add(times));
    }

    /// The summary, in the order of time; empty if nothing was seen. Counting begins anew.
    pub fn take(&mut self) -> Vec<Event> {
        let row = |(seen, (at, count)): (Seen, (Timestamp, u32))| Event {
            at,
            by: seen.by,
            operation: seen.operation.into(),
            resource_type: seen.resource_type.into(),
            resource: seen.resource,
            project: seen.project,
            refused: seen.refused,
            count,
        };
        let mut events: Vec<Event> = std::mem::take(&mut self.rows).into_iter().map(row).collect();
        for ((operation, refused), (at, count)) in std::mem::take(&mut self.others) {
            events.push(Event {
                at,
                by: Actor { name: "others".into(), address: None },
                operation: operation.into(),
                resource_type: "several".into(),
                resource: String::new(),
                project: None,
                refused: refused.then(|| "refused".into()),
                count,
            });
        }
        events.sort_by_key(|event| event.at);
        events.truncate(MAX_ROWS);
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_again_is_one_row_and_a_flood_is_a_bounded_number_of_them() {
        let seen = |name: &str| Seen {
            by: Actor { name: name.into(), address: None },
            operation: "login",
            resource_type: "registry",
            resource: String::new(),
            project: None,
            refused: None,
        };
        let mut tally = Tally::default();
        for n in 0..5 {
            tally.count(Timestamp(n), seen("ann"), 1);
        }
        for n in 0..10_000 {
            tally.count(Timestamp(9), seen(&n.to_string()), 2);
        }
        let rows = tally.take();
        assert_eq!((rows[0].by.name.as_str(), rows[0].count, rows[0].at), ("ann", 5, Timestamp(4)));
        assert!(rows.len() <= MAX_ROWS, "{}", rows.len());
        let all: u32 = rows.iter().map(|row| row.count).sum();
        assert_eq!(all, 5 + 20_000, "none is lost in the count");
        assert!(tally.take().is_empty());
    }
}
