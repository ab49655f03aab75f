//! One simulated node: the real rules around a simulated consensus.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rules::ledger::apply::apply;
use rules::ledger::command::{Command, Envelope, NewManifest, Outcome};
use rules::ledger::lease::{Granter, Holder, LeaseTerms, Touched, Unreleased};
use rules::ledger::precondition::{Named, Precondition};
use rules::ledger::records::{Look, MemoryRecords, Project, Tracked, key};
use rules::ledger::returning::{ReturnStep, Shown};
use rules::members::failover::{Failover, FailoverTerms, Situation};
use rules::members::roster::{Event, Roster};
use rules::members::signing::Openers;
use rules::wire::{FromGranter, FromHolder};
use rules::words::digest::Digest;
use rules::words::moment::{Moment, Timestamp};
use rules::words::names::{Epoch, NodeId, OperationId, Reference, Revision};

use crate::consensus::{self, Ballot, Consensus, Outbox, Role};
use crate::history::History;
use crate::returning::{Backup, Returning};
use crate::signing;

const RENEW: u64 = 500;
const STOPPING: u64 = 5000;
const PROBE: u64 = 700;
const SUSPECT: u64 = 2500;
const LOOK: u64 = 200;
const READ_PATIENCE: u64 = 3500;
const ASK_PATIENCE: u64 = 1000;

/// A rule broken on purpose, to show that the checker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// New leaders do not wait for older leases.
    HastyLeaders,
    /// Leaders release what they have applied, regardless of lease holders.
    ForgetfulLeaders,
    /// Readers show what is not released.
    EagerReaders,
    /// Nodes go on reading by a lease that they have given back.
    GreedyHolders,
    /// A leader that restarts leads on in its old term, and any entry of that term opens it.
    RestoredLeaders,
    /// A primary judges a write's precondition by what it has applied, and not the ledger where
    /// the write is applied.
    EarlyJudges,
    /// A node that comes back with an old disk is let in as it is.
    TrustedDisks,
    /// A signature takes effect whoever was the primary when it was made.
    AnybodySigns,
}

/// What one node tells another.
#[derive(Clone, Debug)]
pub(crate) enum Talk {
    Consensus(consensus::Message),
    Holder(FromHolder),
    Granter(FromGranter),
    Probe,
    Probed,
    Write { client: usize, operation: OperationId, value: u64, expects: Option<u64> },
    Written { client: usize, operation: OperationId, result: Result<Outcome, ()> },
    Propose { envelope: Envelope, client: usize, via: NodeId },
    Proposed { client: usize, operation: OperationId, via: NodeId, outcome: Outcome },
    ReadIndex { read: u64 },
    Index { read: u64, index: u64 },
    Returned { shown: Shown, step: ReturnStep },
    Seen { shown: Option<Shown> },
}

struct Waiting {
    revision: u64,
    /// The result, once it is applied here: another leader may report its release before that.
    outcome: Option<Outcome>,
    envelope: Envelope,
    client: usize,
    from: NodeId,
    via: NodeId,
}

struct IndexQuestion {
    read: u64,
    from: NodeId,
    asked: u64,
    index: u64,
}

struct Read {
    number: u64,
    floor: u64,
    began: u64,
    /// The leader's answer, if it had to be asked.
    index: Option<u64>,
    asked: bool,
    /// What was read, and what must be released before it may be shown.
    seen: Option<(Option<u64>, Revision)>,
}

pub(crate) struct Node {
    lease: LeaseTerms,
    broken: Broken,
    pub(crate) id: NodeId,
    pub(crate) consensus: Consensus,
    pub(crate) records: MemoryRecords,
    pub(crate) applied: u64,
    /// How much of what was applied is on disk, and what the commit that is under way will add: the
    /// log's length and the state as of its beginning.
    applied_synced: u64,
    flushing: Option<(u64, u64)>,
    incarnation: u64,
    unreleased: Unreleased,
    holder: Holder,
    released: Revision,
    granter: Option<(u64, Granter, Failover)>,
    waiting: Vec<Waiting>,
    questions: Vec<IndexQuestion>,
    reads: Vec<Read>,
    roster: Roster,
    seen: BTreeMap<NodeId, u64>,
    down: BTreeSet<NodeId>,
    pub(crate) returning: Returning,
    next_renewal: u64,
    next_probe: u64,
    next_look: u64,
    operations: u64,
}

pub(crate) type Mail = Vec<(NodeId, Talk)>;

fn moment(ms: u64) -> Moment {
    Moment::from_micros(ms * 1000)
}

fn wrap(outbox: Outbox) -> Mail {
    outbox.into_iter().map(|(to, m)| (to, Talk::Consensus(m))).collect()
}

pub(crate) fn tag_key() -> Vec<u8> {
    key::tag(&"demo/app".parse().unwrap(), &"latest".parse().unwrap())
}

/// The register's value: the last write's number stands in the tag's time.
pub(crate) fn value_of(records: &MemoryRecords) -> Option<u64> {
    records
        .tag(&"demo/app".parse().unwrap(), &"latest".parse().unwrap())
        .unwrap()
        .map(|t| t.pushed.0)
}

pub(crate) fn project_of(records: &MemoryRecords) -> Option<Project> {
    records.project(&"demo".parse().unwrap()).unwrap()
}

impl Node {
    pub(crate) fn new(
        id: NodeId,
        all: &[NodeId],
        now: u64,
        patience: u64,
        lease: LeaseTerms,
        broken: Broken,
    ) -> Self {
        Node {
            lease,
            broken,
            id,
            consensus: Consensus::new(id, all, now, patience),
            records: MemoryRecords::default(),
            applied: 0,
            applied_synced: 0,
            flushing: None,
            incarnation: 0,
            unreleased: Unreleased::default(),
            holder: Holder::new(lease),
            released: Revision(0),
            granter: None,
            waiting: Vec::new(),
            questions: Vec::new(),
            reads: Vec::new(),
            roster: Roster::default(),
            seen: all.iter().map(|n| (*n, now)).collect(),
            down: BTreeSet::new(),
            returning: Returning::default(),
            next_renewal: 0,
            next_probe: 0,
            next_look: 0,
            operations: 0,
        }
    }

    /// Begins a commit if there is anything to be committed and none is under way.
    pub(crate) fn begin_flush(&mut self) -> bool {
        let begins =
            self.flushing.is_none() && self.consensus.synced < self.consensus.log.len() as u64;
        if begins {
            self.flushing = Some((self.consensus.log.len() as u64, self.applied));
        }
        begins
    }

    /// The commit that was under way is on disk: what was queued of the log, and the state as it
    /// was then, for both are in one file.
    pub(crate) fn finish_flush(&mut self, now: u64) -> Mail {
        let Some((target, applied)) = self.flushing.take() else { return Vec::new() };
        self.applied_synced = self.applied_synced.max(applied);
        wrap(self.consensus.handle_synced(now, target))
    }

    /// What its disk holds now.
    pub(crate) fn backup(&self) -> Backup {
        Backup {
            durable: self.consensus.durable(),
            applied: self.applied_synced,
            returning: self.returning.clone(),
        }
    }

    /// Its disk is replaced by an older one while it does not run.
    pub(crate) fn become_that_of(&mut self, backup: Backup) {
        let Backup { durable, applied, returning } = backup;
        self.consensus.become_that_of(durable);
        (self.applied_synced, self.returning) = (applied, returning);
    }

    /// The process died and comes back with what its disk held.
    pub(crate) fn restart(&mut self, now: u64, patience: u64) {
        let keep = self.applied_synced;
        self.consensus.restart(now, patience, keep, self.broken == Broken::RestoredLeaders);
        self.flushing = None;
        self.incarnation += 1;
        self.records = MemoryRecords::default();
        self.applied = 0;
        self.unreleased = Unreleased::default();
        for index in 1..=keep {
            self.apply_entry(index, &mut History::default());
        }
        self.unreleased = Unreleased::after_restart(Revision(keep));
        self.holder = Holder::new(self.lease);
        self.released = Revision(0);
        self.granter = None;
        self.waiting.clear();
        self.questions.clear();
        self.reads.clear();
        self.roster = Roster::default();
        self.down.clear();
        for at in self.seen.values_mut() {
            *at = now;
        }
        if self.broken != Broken::TrustedDisks {
            let all = self.seen.keys().copied().collect();
            let shown = self.consensus.shown();
            self.returning.begin(now, self.id, shown, &all, self.incarnation);
        }
    }

    fn apply_entry(&mut self, index: u64, history: &mut History) -> Option<Outcome> {
        let entry = self.consensus.log[index as usize - 1].clone();
        self.applied = index;
        history.note_entry(index, &entry);
        let mut envelope = entry.envelope?;
        let before = value_of(&self.records);
        let project_before = project_of(&self.records);
        if let (Broken::AnybodySigns, Some(project)) = (self.broken, &project_before) {
            envelope.command = signing::relabelled(envelope.command, project.epoch);
        }
        let head_before = signing::head(&self.records);
        let mut tracked = Tracked::new(&mut self.records);
        let outcome = apply(&mut tracked, Revision(index), &envelope).unwrap();
        let changed = std::mem::take(&mut tracked.changed);
        self.unreleased.note(Revision(index), changed);
        let signed =
            signing::fault(project_before.as_ref(), head_before, &self.records, &envelope.command);
        if let Some(why) = signed {
            history.violate(format!("entry {index} is a signature {why}"));
        }
        if let Command::PutManifest(new) | Command::PutManifestIf(_, new) = &envelope.command {
            let project = project_of(&self.records);
            if value_of(&self.records) != before {
                history.note_applied(index, envelope.at.0, before);
                if project.is_none_or(|p| p.epoch != new.epoch) {
                    history.violate(format!(
                        "entry {index} was committed under epoch {:?}, not the project's",
                        new.epoch
                    ));
                }
            }
        }
        Some(outcome)
    }

    /// Everything that follows from time passing and from what was just taken in.
    pub(crate) fn settle(
        &mut self,
        now: u64,
        patience: u64,
        history: &mut History,
        replies: &mut Vec<(usize, OperationId, Result<Outcome, ()>)>,
    ) -> Mail {
        let (step, asks) = self.returning.ask(now);
        let shown = self.returning.shown(self.consensus.shown());
        let mut mail: Mail =
            asks.into_iter().map(|node| (node, Talk::Returned { shown, step })).collect();
        if self.returning.is_quiet() {
            return mail;
        }
        mail.extend(wrap(self.consensus.tick(now, patience)));
        if self.consensus.role == Role::Leader {
            let consensus = &self.consensus;
            self.returning.note_followers(
                consensus.vote.term,
                consensus.commit,
                &consensus.matched,
            );
        }
        let commit = self.consensus.commit;
        let mut applied_any = false;
        while self.applied < commit {
            let index = self.applied + 1;
            let outcome = self.apply_entry(index, history);
            applied_any = true;
            for waiting in self.waiting.iter_mut().filter(|w| w.revision == index) {
                waiting.outcome.clone_from(&outcome);
            }
        }
        self.lead(now, history, &mut mail);
        if let Some(leader) = self.consensus.leader.filter(|l| *l != self.id && applied_any) {
            mail.push((leader, Talk::Holder(FromHolder::Applied(Revision(self.applied)))));
        }
        if now >= self.next_renewal {
            self.next_renewal = now + RENEW;
            if let Some(leader) = self.consensus.leader.filter(|l| *l != self.id) {
                let request = self.holder.ask(moment(now));
                let (applied, down) = (Revision(self.applied), self.down.clone());
                mail.push((leader, Talk::Holder(FromHolder::Renew { request, applied, down })));
            }
        }
        self.gossip(now, &mut mail);
        self.answer_writers(replies, &mut mail);
        self.answer_questions(&mut mail);
        self.advance_reads(now, history, &mut mail);
        mail
    }

    fn gossip(&mut self, now: u64, mail: &mut Mail) {
        if now < self.next_probe {
            return;
        }
        self.next_probe = now + PROBE;
        for (peer, at) in self.seen.clone() {
            if peer == self.id {
                continue;
            }
            mail.push((peer, Talk::Probe));
            let event =
                if now > at + SUSPECT { Event::MemberDown(peer) } else { Event::MemberUp(peer) };
            self.roster.handle(moment(now), event);
        }
        self.down = self.roster.down(moment(now));
    }

    fn lead(&mut self, now: u64, history: &mut History, mail: &mut Mail) {
        if self.consensus.role != Role::Leader {
            self.granter = None;
            self.questions.clear();
            return;
        }
        let Ballot { term, .. } = self.consensus.vote;
        if self.broken != Broken::RestoredLeaders {
            history.note_leader(self.consensus.vote, self.id, self.incarnation);
        }
        if self.granter.as_ref().is_none_or(|(t, _, _)| *t != term) {
            let first = term == 1 || self.broken == Broken::HastyLeaders;
            let begin = if first { Granter::begin_first } else { Granter::begin };
            let terms = FailoverTerms {
                hold_down: Duration::from_secs(1),
                return_after: Duration::from_secs(8),
                view_age: Duration::from_secs(2),
                silent_for: Duration::from_secs(10),
            };
            self.granter = Some((term, begin(self.lease, moment(now)), Failover::new(terms)));
        }
        let Some((_, granter, failover)) = &mut self.granter else { return };
        let last = self.applied.checked_sub(1).map(|at| self.consensus.log[at as usize].by.term);
        let own_entry = match self.broken {
            Broken::RestoredLeaders => (last == Some(term)).then_some(self.applied),
            _ => self.consensus.opened,
        };
        granter.handle_confirmed(moment(self.consensus.confirmed_until()), own_entry.map(Revision));
        granter.handle_applied(Revision(self.applied));
        let mut released = granter.released(moment(now));
        if self.broken == Broken::ForgetfulLeaders {
            released = Revision(self.applied);
        }
        if released > self.released {
            self.released = released;
            self.unreleased.forget(released);
            for peer in self.seen.keys().filter(|p| **p != self.id) {
                mail.push((*peer, Talk::Granter(FromGranter::Released(released))));
            }
        }
        for peer in self.seen.keys() {
            if granter.recalls(moment(now), *peer) {
                mail.push((*peer, Talk::Granter(FromGranter::Recall)));
            }
        }
        if now < self.next_look || !granter.may_lead(moment(now)) {
            return;
        }
        self.next_look = now + LOOK;
        failover.handle_view(moment(now), self.id, self.down.clone());
        let holders = granter.holders(moment(now));
        let mut renewing = granter.renewing(moment(now));
        let mut caught_up: BTreeSet<NodeId> =
            holders.iter().filter(|(_, a)| a.0 + 50 >= self.applied).map(|(n, _)| *n).collect();
        renewing.insert(self.id);
        caught_up.insert(self.id);
        let (nodes, projects) = (self.records.nodes().unwrap(), self.records.projects().unwrap());
        let voters: BTreeSet<NodeId> = self.seen.keys().copied().collect();
        let situation = Situation {
            nodes: &nodes,
            voters: &voters,
            projects: &projects,
            caught_up: &caught_up,
            renewing: &renewing,
            draining: &BTreeSet::new(),
            openers: &Openers::default(),
        };
        for assignment in failover.handle_timeout(moment(now), &situation) {
            let command = Command::AssignPrimary {
                project: assignment.project,
                node: assignment.node,
                expect_epoch: assignment.expect_epoch,
            };
            self.operations += 1;
            let operation =
                OperationId(u128::from(self.id.0) << 64 | u128::from(self.operations) | 1 << 100);
            let envelope = Envelope { operation, at: Timestamp(now), command };
            mail.extend(wrap(self.consensus.propose(now, envelope).1));
        }
    }

    pub(crate) fn handle(
        &mut self,
        now: u64,
        from: NodeId,
        talk: Talk,
        replies: &mut Vec<(usize, OperationId, Result<Outcome, ()>)>,
    ) -> Mail {
        self.seen.insert(from, now);
        match talk {
            Talk::Consensus(_) | Talk::Granter(_) if self.returning.is_quiet() => Vec::new(),
            Talk::Returned { shown, step } => {
                let shown = self.returning.handle_question(from, shown, step);
                vec![(from, Talk::Seen { shown })]
            }
            Talk::Seen { shown } => {
                self.returning.handle_answer(from, shown);
                Vec::new()
            }
            Talk::Consensus(message) => {
                self.returning.hear(from, &message);
                wrap(self.consensus.handle(now, from, message))
            }
            Talk::Probe => vec![(from, Talk::Probed)],
            Talk::Probed => Vec::new(),
            Talk::Holder(message) => self.handle_holder(now, from, message),
            Talk::Granter(message) => {
                match message {
                    FromGranter::Grant(grant) => {
                        self.holder.handle_grant(grant);
                        self.note_released(grant.released);
                    }
                    FromGranter::Released(released) => self.note_released(released),
                    FromGranter::NoGrant => {}
                    FromGranter::Recall => return self.give_back(from),
                }
                Vec::new()
            }
            Talk::Write { client, operation, value, expects } => {
                self.take_write(now, from, client, operation, value, expects)
            }
            Talk::Written { client, operation, result } => {
                replies.push((client, operation, result));
                Vec::new()
            }
            Talk::Propose { envelope, client, via } => {
                self.take_proposal(now, from, envelope, client, via)
            }
            Talk::Proposed { client, operation, via, outcome } => {
                if via == self.id {
                    replies.push((client, operation, Ok(outcome)));
                    return Vec::new();
                }
                vec![(via, Talk::Written { client, operation, result: Ok(outcome) })]
            }
            Talk::ReadIndex { read } => {
                if self.consensus.role != Role::Leader {
                    return Vec::new();
                }
                let index = self.consensus.commit;
                let of_own_term = self
                    .consensus
                    .log
                    .get(index.max(1) as usize - 1)
                    .is_some_and(|e| e.by == self.consensus.vote);
                let own = match self.broken {
                    Broken::RestoredLeaders => of_own_term,
                    _ => self.consensus.opened.is_some_and(|own| index >= own),
                };
                if !own {
                    return Vec::new();
                }
                self.questions.push(IndexQuestion { read, from, asked: now, index });
                wrap(self.consensus.replicate(now))
            }
            Talk::Index { read, index } => {
                self.note_released(Revision(index));
                if let Some(read) = self.reads.iter_mut().find(|r| r.number == read) {
                    read.index = Some(index);
                }
                Vec::new()
            }
        }
    }

    fn note_released(&mut self, released: Revision) {
        if released > self.released {
            self.released = released;
            self.unreleased.forget(released);
        }
    }

    fn give_back(&mut self, leader: NodeId) -> Mail {
        let request = match self.broken {
            Broken::GreedyHolders => self.holder.clone().give_back(),
            _ => self.holder.give_back(),
        };
        vec![(leader, Talk::Holder(FromHolder::Return(request)))]
    }

    /// The node is about to stop: it gives its lease back and asks for none, while its readers go
    /// on for a while.
    pub(crate) fn give_up_lease(&mut self, now: u64) -> Mail {
        self.next_renewal = now + STOPPING;
        match self.consensus.leader.filter(|leader| *leader != self.id) {
            Some(leader) => self.give_back(leader),
            None => Vec::new(),
        }
    }

    fn handle_holder(&mut self, now: u64, from: NodeId, message: FromHolder) -> Mail {
        let Some((_, granter, failover)) = &mut self.granter else { return Vec::new() };
        match message {
            FromHolder::Renew { request, applied, down } => {
                failover.handle_view(moment(now), from, down);
                let grant = granter.handle_renewal(moment(now), from, request, applied);
                vec![(from, Talk::Granter(grant.map_or(FromGranter::NoGrant, FromGranter::Grant)))]
            }
            FromHolder::Applied(applied) => {
                granter.handle_report(from, applied);
                Vec::new()
            }
            FromHolder::Return(request) => {
                granter.handle_return(from, request);
                Vec::new()
            }
        }
    }

    /// A client's write at this node: to the project's primary, or to the leader if this is it. If
    /// the client `expects` a value, the write may replace that value only.
    pub(crate) fn take_write(
        &mut self,
        now: u64,
        from: NodeId,
        client: usize,
        operation: OperationId,
        value: u64,
        expects: Option<u64>,
    ) -> Mail {
        let Some(project) = project_of(&self.records) else { return Vec::new() };
        if project.primary != self.id {
            return match from == self.id {
                true => vec![(project.primary, Talk::Write { client, operation, value, expects })],
                false => vec![(from, Talk::Written { client, operation, result: Err(()) })],
            };
        }
        let early = self.broken == Broken::EarlyJudges;
        if early && expects.is_some() && expects != value_of(&self.records) {
            let result = Ok(Outcome::PreconditionFailed);
            return vec![(from, Talk::Written { client, operation, result })];
        }
        let command = match expects.filter(|_| !early) {
            None => Command::PutManifest(put(project.epoch, value)),
            Some(expected) => {
                Command::PutManifestIf(Box::new(names(expected)), put(project.epoch, value))
            }
        };
        let envelope = Envelope { operation, at: Timestamp(value), command };
        let mut mail = self.propose(now, envelope, client, from);
        // what was there before is signed: the write is under way
        let there = value_of(&self.records).map(|value| Digest::sha256(&value.to_be_bytes()));
        let there = there.map(|digest| (digest, value));
        if let Some(command) =
            there.and_then(|there| signing::sign(&self.records, &project, self.id, there))
        {
            // no client waits for it
            let operation = OperationId(operation.0 | u128::from(self.id.0) << 96 | 1 << 110);
            let envelope = Envelope { operation, at: Timestamp(value), command };
            mail.extend(self.propose(now, envelope, client, from));
        }
        mail
    }

    fn propose(&mut self, now: u64, envelope: Envelope, client: usize, from: NodeId) -> Mail {
        match self.consensus.leader {
            Some(leader) if leader == self.id => {
                self.take_proposal(now, self.id, envelope, client, from)
            }
            Some(leader) => vec![(leader, Talk::Propose { envelope, client, via: from })],
            None => Vec::new(),
        }
    }

    fn take_proposal(
        &mut self,
        now: u64,
        from: NodeId,
        envelope: Envelope,
        client: usize,
        via: NodeId,
    ) -> Mail {
        if self.consensus.role != Role::Leader {
            return Vec::new();
        }
        let (revision, outbox) = self.consensus.propose(now, envelope.clone());
        self.waiting.push(Waiting { revision, outcome: None, envelope, client, from, via });
        wrap(outbox)
    }

    /// Tells writers of what is released, as long as this node leads and the entry is still theirs.
    fn answer_writers(
        &mut self,
        replies: &mut Vec<(usize, OperationId, Result<Outcome, ()>)>,
        mail: &mut Mail,
    ) {
        if self.consensus.role != Role::Leader {
            self.waiting.clear();
            return;
        }
        let (released, id) = (self.released.0, self.id);
        let log = &self.consensus.log;
        self.waiting.retain(|w| {
            if log.get(w.revision as usize - 1).and_then(|e| e.envelope.as_ref())
                != Some(&w.envelope)
            {
                return false;
            }
            let Some(outcome) = w.outcome.clone().filter(|_| w.revision <= released) else {
                return true;
            };
            let (client, operation, via) = (w.client, w.envelope.operation, w.via);
            if w.from == id && via == id {
                replies.push((client, operation, Ok(outcome)));
            } else {
                mail.push((
                    if w.from == id { via } else { w.from },
                    Talk::Proposed { client, operation, via, outcome },
                ));
            }
            false
        });
    }

    fn answer_questions(&mut self, mail: &mut Mail) {
        let (sent, released) = (self.consensus.quorum_sent().unwrap_or(0), self.released.0);
        self.questions.retain(|q| {
            let done = sent >= q.asked && released >= q.index;
            if done {
                mail.push((q.from, Talk::Index { read: q.read, index: q.index }));
            }
            !done
        });
    }

    pub(crate) fn begin_read(&mut self, now: u64, number: u64, floor: u64) {
        self.reads.push(Read { number, floor, began: now, index: None, asked: false, seen: None });
    }

    fn may_read_now(&self, now: u64) -> bool {
        let leads = self.granter.as_ref().is_some_and(|(_, g, _)| g.may_lead(moment(now)));
        leads || self.holder.may_read(moment(now), Revision(self.applied))
    }

    /// Mirrors the ledger's read: by lease or by asking, then waiting for the release of what was
    /// seen.
    fn advance_reads(&mut self, now: u64, history: &mut History, mail: &mut Mail) {
        let fresh = self.may_read_now(now);
        let touched = Touched { keys: [tag_key()].into(), prefixes: BTreeSet::new() };
        for mut read in std::mem::take(&mut self.reads) {
            let limit = if read.seen.is_some() { READ_PATIENCE } else { ASK_PATIENCE };
            if now > read.began + limit {
                continue;
            }
            if read.seen.is_none() && (fresh || read.index.is_some_and(|i| self.applied >= i)) {
                let needs = self
                    .unreleased
                    .needs(&touched, self.released)
                    .filter(|_| self.broken != Broken::EagerReaders);
                let needs = needs.unwrap_or(Revision(0));
                read.seen = Some((value_of(&self.records), needs));
            } else if read.seen.is_none() && !read.asked {
                read.asked = true;
                if let Some(leader) = self.consensus.leader.filter(|l| *l != self.id) {
                    mail.push((leader, Talk::ReadIndex { read: read.number }));
                }
            }
            match read.seen {
                Some((value, needs)) if needs <= self.released => {
                    history.read(value, read.floor, &format!("node {:?} at {now}", self.id));
                }
                _ => self.reads.push(read),
            }
        }
    }
}

fn put(epoch: Epoch, value: u64) -> NewManifest {
    NewManifest {
        epoch,
        repository: "demo/app".parse().unwrap(),
        digest: Digest::sha256(&value.to_be_bytes()),
        media_type: "m".into(),
        bytes: value.to_be_bytes().to_vec(),
        tags: vec!["latest".parse().unwrap()],
        blobs: Vec::new(),
        subject: None,
    }
}

/// The precondition that the register has this value.
fn names(value: u64) -> Precondition {
    Precondition {
        of: Reference::Tag("latest".parse().unwrap()),
        is: Some(Named::These(vec![Digest::sha256(&value.to_be_bytes())])),
        is_not: None,
    }
}
