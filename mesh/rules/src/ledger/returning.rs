//! A replica that comes back with less than it had: its disk was restored from a backup, or its
//! machine from a snapshot.
//!
//! Such a node would vote a second time in a term, and count as a holder of entries that it no
//! longer has; both lose what was acknowledged. It cannot see that by itself, because an old disk is
//! a sound disk. But it has shown its disk to others: they counted on its vote and on its entries.
//! So each replica remembers what the others have [`Shown`] it, and a replica that has just started
//! asks them before it takes part in the consensus ([`Return`]). Only then it counts its start. If anybody has seen more than it
//! has, it ends, and joins anew under another identity.
//!
//! It waits for as many answers as make a majority together with itself, which the consensus needs
//! anyway, and a little longer for the rest. So one kind of loss stays unseen: if the only node that
//! has seen more is down while the restored one returns.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::words::moment::Moment;
use crate::words::names::NodeId;

/// What a replica's disk has, as it has shown it to another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// How often the replica has started, this time included.
    pub starts: u64,
    /// A random number of that start: two starts with one number are starts of two disks.
    pub mark: u64,
    /// The newest term in which it voted for somebody, or followed somebody. Of two nodes that it
    /// voted for in one term (a greater one after a smaller one) nothing more is known: a disk that
    /// lost the second vote, and nothing else since this start, is taken for whole.
    pub term: u64,
    /// The last entry of its log. To others: the last one that it acknowledged and that was
    /// committed, since what was not may have been replaced.
    pub index: u64,
}

/// How far a replica is that has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReturnStep {
    /// It asks, and nothing of this start counts yet. One that is refused leaves nothing behind, so it
    /// is refused as often as it asks.
    Asks,
    /// It takes part, and has written this start down.
    TakesPart,
    /// The same, though it has less than it had: its operator knows. What was seen before is forgotten.
    Accepts,
}

/// What a replica once had and has no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It has started more often than its disk knows.
    Starts {
        /// How often it has started according to others.
        seen: u64,
        /// And according to its disk.
        has: u64,
    },
    /// It has voted in a newer term than its disk knows.
    Vote {
        /// The term that others know of.
        seen: u64,
        /// The term that its disk knows of.
        has: u64,
    },
    /// It has acknowledged entries that its disk does not have.
    Entries {
        /// The last one according to others.
        seen: u64,
        /// The last one on its disk.
        has: u64,
    },
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lost::Starts { seen, has } => {
                write!(f, "it started {seen} times, and its disk knows of {has}")
            }
            Lost::Vote { seen, has } => {
                write!(f, "it voted in term {seen}, and its disk knows of term {has}")
            }
            Lost::Entries { seen, has } => {
                write!(f, "it acknowledged entry {seen}, and its disk ends with {has}")
            }
        }
    }
}

impl Shown {
    /// Takes in what the replica shows now, or showed somebody else. Nothing of before is
    /// forgotten.
    pub fn merge(&mut self, other: Shown) {
        if other.starts > self.starts {
            (self.starts, self.mark) = (other.starts, other.mark);
        }
        self.term = self.term.max(other.term);
        self.index = self.index.max(other.index);
    }

    /// What a replica whose disk has `self` has lost, if others have `seen` more of it.
    pub fn lost(&self, seen: &Shown) -> Option<Lost> {
        if seen.starts > self.starts || (seen.starts == self.starts && seen.mark != self.mark) {
            // of two starts with one number, this one's disk does not know the other
            return Some(Lost::Starts { seen: seen.starts, has: self.starts.saturating_sub(1) });
        }
        if seen.term > self.term {
            return Some(Lost::Vote { seen: seen.term, has: self.term });
        }
        (seen.index > self.index).then_some(Lost::Entries { seen: seen.index, has: self.index })
    }
}

/// How long a replica that returns waits for those that are not needed for a majority.
pub const GRACE: Duration = Duration::from_secs(1);

/// What a replica that returns may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask on.
    Wait,
    /// Take part.
    TakePart,
    /// End: this node has seen more than the disk has.
    End(NodeId, Lost),
}

/// A replica that has just started and does not take part in the consensus yet.
#[derive(Clone, Debug)]
pub struct Return {
    mine: Shown,
    others: BTreeSet<NodeId>,
    needed: usize,
    heard: BTreeSet<NodeId>,
    lost: Option<(NodeId, Lost)>,
    grace: Moment,
}

impl Return {
    /// `me` starts with what its disk has. `voters` are those of the membership on its disk, with
    /// itself if it is one; `others` are all other replicas that it knows.
    pub fn begin(
        now: Moment,
        me: NodeId,
        mine: Shown,
        voters: &BTreeSet<NodeId>,
        others: BTreeSet<NodeId>,
    ) -> Self {
        // one that is no voter promises nothing that an election counts
        let needed = if voters.contains(&me) { voters.len() / 2 } else { 0 };
        Return { mine, others, needed, heard: BTreeSet::new(), lost: None, grace: now + GRACE }
    }

    /// All whom it asks, and tells when it takes part.
    pub fn others(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.others.iter().copied()
    }

    /// Those who have not answered yet.
    pub fn missing(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.others.difference(&self.heard).copied()
    }

    /// `from` says what it has seen of this node; `None`: nothing.
    pub fn handle_answer(&mut self, from: NodeId, seen: Option<Shown>) {
        self.heard.insert(from);
        if let Some(lost) = seen.and_then(|seen| self.mine.lost(&seen)) {
            self.lost.get_or_insert((from, lost));
        }
    }

    /// What to do now. To be asked again after an answer, and when time has passed.
    pub fn handle_timeout(&self, now: Moment) -> Verdict {
        if let Some((by, lost)) = self.lost {
            return Verdict::End(by, lost);
        }
        let all = self.missing().next().is_none();
        if all || (self.heard.len() >= self.needed && now >= self.grace) {
            return Verdict::TakePart;
        }
        Verdict::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_micros(millis * 1000)
    }

    fn shown(starts: u64, term: u64, index: u64) -> Shown {
        Shown { starts, mark: starts * 10, term, index }
    }

    fn nodes<const N: usize>(ids: [u64; N]) -> BTreeSet<NodeId> {
        ids.map(NodeId).into()
    }

    #[test]
    fn a_restart_loses_nothing_and_an_old_disk_does() {
        let mine = shown(5, 7, 100);
        for seen in [Shown::default(), shown(4, 7, 100), shown(5, 7, 99), shown(1, 1, 1)] {
            assert_eq!(mine.lost(&seen), None, "{seen:?}");
        }
        assert_eq!(mine.lost(&shown(6, 7, 9)), Some(Lost::Starts { seen: 6, has: 4 }));
        let other_disk = Shown { mark: 1, ..shown(5, 7, 9) };
        assert_eq!(mine.lost(&other_disk), Some(Lost::Starts { seen: 5, has: 4 }));
        assert_eq!(mine.lost(&shown(4, 8, 9)), Some(Lost::Vote { seen: 8, has: 7 }));
        assert_eq!(mine.lost(&shown(4, 7, 101)), Some(Lost::Entries { seen: 101, has: 100 }));
    }

    #[test]
    fn what_was_seen_is_not_forgotten() {
        let mut seen = shown(3, 9, 50);
        seen.merge(Shown { mark: 7, ..shown(3, 2, 60) });
        assert_eq!(seen, shown(3, 9, 60), "the first start with a number counts");
        seen.merge(shown(4, 1, 1));
        assert_eq!(seen, Shown { term: 9, index: 60, ..shown(4, 0, 0) });
    }

    #[test]
    fn it_waits_for_a_majority_and_a_little_for_the_rest() {
        let voters = nodes([1, 2, 3, 4, 5]);
        let others = nodes([2, 3, 4, 5, 6]);
        let mut returns = Return::begin(at(0), NodeId(1), shown(2, 1, 1), &voters, others);
        assert_eq!(returns.handle_timeout(at(60_000)), Verdict::Wait, "nobody has answered");
        returns.handle_answer(NodeId(2), None);
        assert_eq!(returns.handle_timeout(at(60_000)), Verdict::Wait);
        returns.handle_answer(NodeId(3), None);
        assert_eq!(returns.handle_timeout(at(500)), Verdict::Wait, "others may answer yet");
        assert_eq!(returns.handle_timeout(at(1_000)), Verdict::TakePart);
        for other in [4, 5, 6] {
            returns.handle_answer(NodeId(other), None);
        }
        assert_eq!(returns.handle_timeout(at(500)), Verdict::TakePart, "all have answered");
        assert_eq!(returns.missing().count(), 0);
    }

    #[test]
    fn one_that_has_seen_more_is_enough() {
        let voters = nodes([1, 2, 3]);
        let mine = shown(2, 1, 1);
        let mut returns = Return::begin(at(0), NodeId(1), mine, &voters, nodes([2, 3]));
        returns.handle_answer(NodeId(3), Some(shown(1, 5, 1)));
        returns.handle_answer(NodeId(2), None);
        let lost = Lost::Vote { seen: 5, has: 1 };
        assert_eq!(returns.handle_timeout(at(0)), Verdict::End(NodeId(3), lost));
    }

    #[test]
    fn a_lone_node_and_one_that_does_not_vote_need_nobody() {
        let alone = Return::begin(at(0), NodeId(1), shown(2, 1, 1), &nodes([1]), nodes([]));
        assert_eq!(alone.handle_timeout(at(0)), Verdict::TakePart);
        let learner =
            Return::begin(at(0), NodeId(4), shown(2, 1, 1), &nodes([1, 2, 3]), nodes([1, 2, 3]));
        assert_eq!(learner.handle_timeout(at(0)), Verdict::Wait);
        assert_eq!(learner.handle_timeout(at(1_000)), Verdict::TakePart);
    }
}
