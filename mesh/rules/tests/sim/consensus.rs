//! A small Raft: ballots, votes, log matching, commit by majority of the own ballot; with pre-vote and
//! sticky followers, as the real ledger is configured. Decides only: messages come in, messages go
//! out.
//!
//! As in the real ledger a leader is a term and a node ([`Ballot`]). Who has voted for a node votes
//! for a greater one in the same term, so a term may have two leaders, one after the other.
//!
//! As in the real ledger an appended entry is readable, and sent on, at once and on disk a little
//! later ([`Consensus::synced`]): a leader counts itself, and a follower acknowledges, only what
//! is. Votes and truncations are on disk before anybody hears of them.

use std::collections::{BTreeMap, BTreeSet};

use rules::ledger::command::Envelope;
use rules::words::names::NodeId;

/// Milliseconds, as the ledger's defaults are.
pub(crate) const HEARTBEAT: u64 = 400;
pub(crate) const ELECTION_MIN: u64 = 1200;
pub(crate) const ELECTION_MAX: u64 = 1800;

/// A leader, or a node that would be one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ballot {
    pub(crate) term: u64,
    pub(crate) node: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogEntry {
    pub(crate) by: Ballot,
    pub(crate) envelope: Option<Envelope>,
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Append { by: Ballot, previous: (Ballot, u64), entries: Vec<LogEntry>, commit: u64, sent: u64 },
    Appended { by: Ballot, matched: Option<u64>, sent: u64 },
    Vote { by: Ballot, last: (Ballot, u64), pre: bool },
    Voted { by: Ballot, pre: bool, granted: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Follower,
    Candidate,
    Leader,
}

/// One voter. Times are its own clock's milliseconds.
pub(crate) struct Consensus {
    pub(crate) me: NodeId,
    peers: Vec<NodeId>,
    // durable
    /// Whom it has voted for or followed last; it takes no smaller one.
    pub(crate) vote: Ballot,
    pub(crate) log: Vec<LogEntry>,
    /// Whether the vote says that this node was elected.
    elected: bool,
    /// How much of the log is on disk; what comes after it is lost with the process.
    pub(crate) synced: u64,
    // volatile
    unsynced_acks: Vec<(NodeId, Ballot, u64, u64)>,
    /// The first entry that this process proposed in the ballot by which it leads.
    pub(crate) opened: Option<u64>,
    pub(crate) role: Role,
    pub(crate) leader: Option<NodeId>,
    pub(crate) commit: u64,
    heard: u64,
    wary_until: u64,
    patience: u64,
    votes: BTreeSet<NodeId>,
    pre: bool,
    next: BTreeMap<NodeId, u64>,
    pub(crate) matched: BTreeMap<NodeId, u64>,
    acked: BTreeMap<NodeId, u64>,
    last_heartbeat: u64,
}

/// What is on a node's disk.
#[derive(Clone)]
pub(crate) struct Durable {
    vote: Ballot,
    log: Vec<LogEntry>,
    elected: bool,
}

pub(crate) type Outbox = Vec<(NodeId, Message)>;

impl Consensus {
    pub(crate) fn new(me: NodeId, all: &[NodeId], now: u64, patience: u64) -> Self {
        Consensus {
            me,
            peers: all.iter().copied().filter(|n| *n != me).collect(),
            vote: Ballot::default(),
            log: Vec::new(),
            elected: false,
            synced: 0,
            unsynced_acks: Vec::new(),
            opened: None,
            role: Role::Follower,
            leader: None,
            commit: 0,
            heard: now,
            wary_until: 0,
            patience,
            votes: BTreeSet::new(),
            pre: false,
            next: BTreeMap::new(),
            matched: BTreeMap::new(),
            acked: BTreeMap::new(),
            last_heartbeat: 0,
        }
    }

    /// The process died and comes back: what was on disk stays, and the state says up to where
    /// entries must have been committed. `restores`: one that was elected leads on in its old term
    /// (the consensus library's `enable_leader_restore`).
    pub(crate) fn restart(&mut self, now: u64, patience: u64, applied: u64, restores: bool) {
        self.log.truncate(self.synced as usize);
        self.unsynced_acks.clear();
        self.opened = None;
        self.role = Role::Follower;
        self.leader = None;
        self.commit = applied;
        self.heard = now;
        self.wary_until = now + ELECTION_MIN;
        self.patience = patience;
        self.votes.clear();
        self.acked.clear();
        self.matched.clear();
        if restores && self.elected {
            self.role = Role::Leader;
            self.leader = Some(self.me);
            self.next = self.peers.iter().map(|p| (*p, self.log.len() as u64)).collect();
            self.last_heartbeat = 0;
        }
    }

    /// What is on the disk now.
    pub(crate) fn durable(&self) -> Durable {
        Durable {
            vote: self.vote,
            log: self.log[..self.synced as usize].to_vec(),
            elected: self.elected,
        }
    }

    /// The disk is replaced by another one. The node must not run.
    pub(crate) fn become_that_of(&mut self, durable: Durable) {
        let Durable { vote, log, elected } = durable;
        self.synced = log.len() as u64;
        (self.vote, self.log, self.elected) = (vote, log, elected);
    }

    /// The newest term that it has voted in or followed somebody in, and the end of its log on
    /// disk.
    pub(crate) fn shown(&self) -> (u64, u64) {
        (self.vote.term, self.synced)
    }

    /// The disk has everything up to `target`, unless that was truncated meanwhile.
    pub(crate) fn handle_synced(&mut self, now: u64, target: u64) -> Outbox {
        self.synced = self.synced.max(target.min(self.log.len() as u64));
        let (by, synced) = (self.vote, self.synced);
        let mut outbox = Vec::new();
        self.unsynced_acks.retain(|(to, of, matched, sent)| {
            if *of == by && *matched <= synced {
                outbox.push((*to, Message::Appended { by, matched: Some(*matched), sent: *sent }));
            }
            *of == by && *matched > synced
        });
        if self.role == Role::Leader {
            outbox.extend(self.advance_commit(now));
        }
        outbox
    }

    fn majority(&self) -> usize {
        self.peers.len().div_ceil(2) + 1
    }

    fn last(&self) -> (Ballot, u64) {
        (self.log.last().map_or(Ballot::default(), |e| e.by), self.log.len() as u64)
    }

    /// Until when a majority has confirmed this leader, counted from when it sent what they
    /// acknowledged.
    pub(crate) fn confirmed_until(&self) -> u64 {
        self.quorum_sent().map_or(0, |sent| sent + ELECTION_MIN * 8 / 10)
    }

    /// When this leader sent the newest heartbeat that a majority has acknowledged.
    pub(crate) fn quorum_sent(&self) -> Option<u64> {
        let mut sent: Vec<u64> =
            self.peers.iter().filter_map(|p| self.acked.get(p).copied()).collect();
        sent.sort_unstable_by(|a, b| b.cmp(a));
        sent.get(self.majority() - 2).copied()
    }

    pub(crate) fn tick(&mut self, now: u64, patience: u64) -> Outbox {
        match self.role {
            Role::Leader if now >= self.last_heartbeat + HEARTBEAT => self.replicate(now),
            Role::Leader => Vec::new(),
            _ if now >= self.heard + ELECTION_MAX + self.patience => {
                self.heard = now;
                self.patience = patience;
                self.campaign(now, true)
            }
            _ => Vec::new(),
        }
    }

    fn campaign(&mut self, now: u64, pre: bool) -> Outbox {
        self.role = Role::Candidate;
        self.pre = pre;
        self.leader = None;
        self.votes = BTreeSet::from([self.me]);
        let by = Ballot { term: self.vote.term + 1, node: self.me.0 };
        if !pre {
            self.vote = by;
            self.elected = false;
        }
        if self.votes.len() >= self.majority() {
            return self.won(now);
        }
        let last = self.last();
        self.peers.iter().map(|p| (*p, Message::Vote { by, last, pre })).collect()
    }

    fn won(&mut self, now: u64) -> Outbox {
        if self.pre {
            return self.campaign(now, false);
        }
        self.role = Role::Leader;
        self.elected = true;
        self.leader = Some(self.me);
        self.acked.clear();
        self.matched.clear();
        self.next = self.peers.iter().map(|p| (*p, self.log.len() as u64)).collect();
        self.log.push(LogEntry { by: self.vote, envelope: None });
        self.opened = Some(self.log.len() as u64);
        self.replicate(now)
    }

    /// Appends a command, if this node leads.
    pub(crate) fn propose(&mut self, now: u64, envelope: Envelope) -> (u64, Outbox) {
        self.log.push(LogEntry { by: self.vote, envelope: Some(envelope) });
        self.opened = self.opened.or(Some(self.log.len() as u64));
        (self.log.len() as u64, self.replicate(now))
    }

    pub(crate) fn replicate(&mut self, now: u64) -> Outbox {
        self.last_heartbeat = now;
        self.peers
            .iter()
            .map(|p| {
                let next = self.next.get(p).copied().unwrap_or(0).min(self.log.len() as u64);
                let before = next.checked_sub(1).map(|at| self.log[at as usize].by);
                let entries = self.log[next as usize..].iter().take(20).cloned().collect();
                let previous = (before.unwrap_or_default(), next);
                (
                    *p,
                    Message::Append {
                        by: self.vote,
                        previous,
                        entries,
                        commit: self.commit,
                        sent: now,
                    },
                )
            })
            .collect()
    }

    fn step_down(&mut self, by: Ballot) {
        if by > self.vote {
            self.vote = by;
            self.elected = false;
        }
        self.role = Role::Follower;
    }

    pub(crate) fn handle(&mut self, now: u64, from: NodeId, message: Message) -> Outbox {
        match message {
            Message::Vote { by, last, pre } => {
                // sticky: a node that hears a leader, or may have heard one before a restart, votes
                // for no other node
                let heard_lately = now < self.heard + ELECTION_MIN && self.leader.is_some();
                let content = self.role == Role::Leader || heard_lately || now < self.wary_until;
                let granted = !content && by >= self.vote && last >= self.last();
                if granted && !pre {
                    if by > self.vote {
                        self.step_down(by);
                    }
                    self.heard = now;
                }
                vec![(from, Message::Voted { by, pre, granted })]
            }
            Message::Voted { by, pre, granted } => {
                let term = if self.pre { self.vote.term + 1 } else { self.vote.term };
                let asked = Ballot { term, node: self.me.0 };
                if self.role != Role::Candidate || pre != self.pre || by != asked || !granted {
                    return Vec::new();
                }
                self.votes.insert(from);
                if self.votes.len() >= self.majority() { self.won(now) } else { Vec::new() }
            }
            Message::Append { by, previous, entries, commit, sent } => {
                if by < self.vote {
                    return vec![(from, Message::Appended { by: self.vote, matched: None, sent })];
                }
                self.step_down(by);
                self.leader = Some(from);
                self.heard = now;
                let (before, at) = previous;
                let fits = at as usize <= self.log.len()
                    && (at == 0 || self.log[at as usize - 1].by == before);
                if !fits {
                    return vec![(from, Message::Appended { by, matched: None, sent })];
                }
                let mut index = at as usize;
                for entry in entries {
                    match self.log.get(index) {
                        Some(known) if known.by == entry.by => {}
                        _ => {
                            if self.log.len() > index {
                                self.log.truncate(index);
                                self.synced = index as u64;
                                self.unsynced_acks.clear();
                            }
                            self.log.push(entry);
                        }
                    }
                    index += 1;
                }
                let index = index as u64;
                self.commit = self.commit.max(commit.min(index));
                if index > self.synced {
                    self.unsynced_acks.push((from, by, index, sent));
                }
                vec![(from, Message::Appended { by, matched: Some(index.min(self.synced)), sent })]
            }
            Message::Appended { by, matched, sent } => {
                if by > self.vote {
                    self.step_down(by);
                    self.leader = None;
                    return Vec::new();
                }
                if self.role != Role::Leader || by != self.vote {
                    return Vec::new();
                }
                let acked = self.acked.entry(from).or_insert(0);
                *acked = (*acked).max(sent);
                match matched {
                    Some(index) => {
                        let known = self.matched.entry(from).or_insert(0);
                        *known = (*known).max(index);
                        let next = *known;
                        self.next.insert(from, next);
                        self.advance_commit(now)
                    }
                    None => {
                        let next = self.next.entry(from).or_insert(0);
                        *next = next.saturating_sub(5);
                        Vec::new()
                    }
                }
            }
        }
    }

    fn advance_commit(&mut self, now: u64) -> Outbox {
        let mut matched: Vec<u64> =
            self.peers.iter().map(|p| self.matched.get(p).copied().unwrap_or(0)).collect();
        matched.push(self.synced);
        matched.sort_unstable_by(|a, b| b.cmp(a));
        let index = matched[self.majority() - 1];
        // Two leaders of one ballot, as a broken rule makes them, may have been told of more entries
        // than this one has. What follows from that is the checker's to see.
        let its_own = |entry: &LogEntry| entry.by == self.vote;
        if index > self.commit && self.log.get(index as usize - 1).is_some_and(its_own) {
            self.commit = index;
            // followers learn of it at once, as the real one tells them
            return self.replicate(now);
        }
        Vec::new()
    }
}
