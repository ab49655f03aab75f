//! What clients saw. One tag is a register: every write sets another value, and the log orders the
//! writes. Linearizable means that whatever began after something ended shows that or something
//! later.

use std::collections::{BTreeMap, BTreeSet};

use rules::words::names::NodeId;

use crate::consensus::{Ballot, LogEntry};

#[derive(Default)]
pub(crate) struct History {
    /// What was applied under each index by the first node that applied it.
    entries: BTreeMap<u64, LogEntry>,
    /// Which process led by a ballot: the node, and how often it had been restarted.
    leaders: BTreeMap<Ballot, (NodeId, u64)>,
    /// Value to the revision that set it.
    ranks: BTreeMap<u64, u64>,
    /// The latest revision that anyone has seen or been promised.
    shown: u64,
    acknowledged: Vec<u64>,
    /// Of conditional writes: the value that each may replace.
    expected: BTreeMap<u64, u64>,
    /// The writes that were told that their precondition does not hold.
    lost: BTreeSet<u64>,
    fresh_reads: u64,
    violation: Option<String>,
}

impl History {
    /// Some node applies an entry: no other may ever apply another one there.
    pub(crate) fn note_entry(&mut self, index: u64, entry: &LogEntry) {
        if self.entries.entry(index).or_insert_with(|| entry.clone()) != entry {
            self.violate(format!("two nodes applied different entries at {index}"));
        }
    }

    /// A process leads in `term`: no other may ever do so, not even the next one of the same node.
    pub(crate) fn note_leader(&mut self, by: Ballot, node: NodeId, incarnation: u64) {
        let first = *self.leaders.entry(by).or_insert((node, incarnation));
        if first != (node, incarnation) {
            self.violate(format!("{node:?} led by {by:?}, by which {first:?} had led"));
        }
    }

    /// The write of `value` may replace `expected` only.
    pub(crate) fn expect(&mut self, value: u64, expected: u64) {
        self.expected.insert(value, expected);
    }

    /// What the write of `value` may replace, if it is conditional.
    pub(crate) fn expected(&self, value: u64) -> Option<u64> {
        self.expected.get(&value).copied()
    }

    /// The writer of `value` is told that its precondition does not hold: it may never take effect.
    pub(crate) fn lose(&mut self, value: u64) {
        if let Some(rank) = self.ranks.get(&value) {
            self.violate(format!("write {value} was called lost and took effect at {rank}"));
        }
        self.lost.insert(value);
    }

    /// Entry `revision` set the register to `value`; it had been `before`.
    pub(crate) fn note_applied(&mut self, revision: u64, value: u64, before: Option<u64>) {
        let expected = self.expected(value);
        if expected.is_some() && before != expected {
            self.violate(format!("write {value} expected {expected:?} and replaced {before:?}"));
        }
        if self.lost.contains(&value) {
            self.violate(format!("write {value} took effect after it was called lost"));
        }
        let first = *self.ranks.entry(value).or_insert(revision);
        if first != revision {
            self.violate(format!("write {value} took effect at {first} and again at {revision}"));
        }
    }

    /// What an operation that begins now must not fall behind.
    pub(crate) fn floor(&self) -> u64 {
        self.shown
    }

    pub(crate) fn acknowledge(&mut self, value: u64, floor: u64) {
        match self.ranks.get(&value).copied() {
            None => self.violate(format!("write {value} was acknowledged and never applied")),
            Some(rank) => {
                if rank <= floor {
                    self.violate(format!(
                        "write {value} at {rank} was ordered before what was seen at {floor}"
                    ));
                }
                self.shown = self.shown.max(rank);
                self.acknowledged.push(value);
            }
        }
    }

    pub(crate) fn read(&mut self, value: Option<u64>, floor: u64, where_: &str) {
        let rank = value.map_or(0, |v| self.ranks.get(&v).copied().unwrap_or(u64::MAX));
        if rank == u64::MAX {
            self.violate(format!("{where_} read {value:?}, which nobody wrote"));
        } else if rank < floor {
            self.violate(format!(
                "{where_} read {value:?} of revision {rank} after {floor} was shown"
            ));
        }
        self.shown = self.shown.max(rank);
        self.fresh_reads += 1;
    }

    pub(crate) fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub(crate) fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.len() as u64
    }

    /// The conditional writes that won, and those that lost.
    pub(crate) fn contests(&self) -> (u64, u64) {
        let won = self.acknowledged.iter().filter(|value| self.expected.contains_key(value));
        (won.count() as u64, self.lost.len() as u64)
    }

    pub(crate) fn acknowledged_values(&self) -> &[u64] {
        &self.acknowledged
    }

    pub(crate) fn fresh_reads(&self) -> u64 {
        self.fresh_reads
    }
}
