//! What a node has shown of its disk, what it has seen of others', and disks that are older than
//! they should be.

use std::collections::{BTreeMap, BTreeSet};

use rules::ledger::returning::{Return, ReturnStep, Shown, Verdict};
use rules::words::moment::Moment;
use rules::words::names::NodeId;

use crate::consensus::{Durable, Message};

const AGAIN: u64 = 100;

/// What a node's disk has of this, and whether the node takes part yet.
#[derive(Clone, Default)]
pub(crate) struct Returning {
    starts: u64,
    mark: u64,
    /// The number of the start that does not count yet.
    next_mark: u64,
    seen: BTreeMap<NodeId, Shown>,
    returns: Option<Return>,
    next_ask: u64,
    /// Its disk was older than what somebody had seen of it.
    pub(crate) lost: bool,
}

/// A node's disk as it was once.
#[derive(Clone)]
pub(crate) struct Backup {
    pub(crate) durable: Durable,
    pub(crate) applied: u64,
    pub(crate) returning: Returning,
}

impl Returning {
    /// The node starts again, with this on its disk.
    pub(crate) fn begin(
        &mut self,
        now: u64,
        me: NodeId,
        (term, index): (u64, u64),
        all: &BTreeSet<NodeId>,
        mark: u64,
    ) {
        self.next_mark = mark;
        self.next_ask = now;
        let mine = Shown { starts: self.starts + 1, mark, term, index };
        let others = all.iter().copied().filter(|node| *node != me).collect();
        self.returns = Some(Return::begin(moment(now), me, mine, all, others));
    }

    /// What this node's disk has, with this vote and this end of its log.
    pub(crate) fn shown(&self, (term, index): (u64, u64)) -> Shown {
        match self.returns {
            Some(_) => Shown { starts: self.starts + 1, mark: self.next_mark, term, index },
            None => Shown { starts: self.starts, mark: self.mark, term, index },
        }
    }

    /// Whether the consensus hears and says nothing yet, or no more.
    pub(crate) fn is_quiet(&self) -> bool {
        self.lost || self.returns.is_some()
    }

    /// Whom to ask, or to tell, now.
    pub(crate) fn ask(&mut self, now: u64) -> (ReturnStep, Vec<NodeId>) {
        let nobody = (ReturnStep::Asks, Vec::new());
        let Some(returns) = &self.returns else { return nobody };
        match returns.handle_timeout(moment(now)) {
            Verdict::TakePart => {
                let all = returns.others().collect();
                (self.starts, self.mark) = (self.starts + 1, self.next_mark);
                self.returns = None;
                return (ReturnStep::TakesPart, all);
            }
            Verdict::End(..) => {
                self.lost = true;
                self.returns = None;
            }
            Verdict::Wait if now >= self.next_ask => {
                self.next_ask = now + AGAIN;
                return (ReturnStep::Asks, returns.missing().collect());
            }
            Verdict::Wait => {}
        }
        nobody
    }

    pub(crate) fn handle_answer(&mut self, from: NodeId, seen: Option<Shown>) {
        if let Some(returns) = &mut self.returns {
            returns.handle_answer(from, seen);
        }
    }

    /// Another node has started and shows its disk: what was seen of it before.
    pub(crate) fn handle_question(
        &mut self,
        from: NodeId,
        shown: Shown,
        step: ReturnStep,
    ) -> Option<Shown> {
        let before = self.seen.get(&from).copied();
        if step == ReturnStep::TakesPart {
            self.note(from, Shown { index: 0, ..shown });
        }
        before
    }

    /// A message of the consensus that shows a vote.
    pub(crate) fn hear(&mut self, from: NodeId, message: &Message) {
        if let Message::Voted { by, pre: false, granted: true } = message {
            self.note(from, Shown { term: by.term, ..Shown::default() });
        }
    }

    /// What followers have acknowledged to this leader, and is committed.
    pub(crate) fn note_followers(&mut self, term: u64, committed: u64, at: &BTreeMap<NodeId, u64>) {
        for (node, matched) in at.iter().filter(|(_, matched)| **matched > 0) {
            let index = (*matched).min(committed);
            self.note(*node, Shown { term, index, ..Shown::default() });
        }
    }

    fn note(&mut self, node: NodeId, shown: Shown) {
        self.seen.entry(node).or_default().merge(shown);
    }
}

fn moment(ms: u64) -> Moment {
    Moment::from_micros(ms * 1000)
}
