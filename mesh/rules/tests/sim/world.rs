//! The world around the nodes: time, links, faults, clients.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::Duration;

use rules::ledger::command::{Command, Envelope, NewProject, Outcome};
use rules::ledger::lease::LeaseTerms;
use rules::ledger::level::Level;
use rules::ledger::records::{self, NodeRecord, User};
use rules::proxies::proxy::ProxyChange;
use rules::words::moment::Timestamp;
use rules::words::names::{Epoch, NodeId, OperationId};

use crate::consensus::{Ballot, LogEntry, Role};
use crate::dice::Dice;
use crate::history::History;
use crate::node::{Broken, Mail, Node, Talk, project_of, value_of};
use crate::returning::Backup;
use crate::signing;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Faults {
    All,
    LossOnly,
}

enum Event {
    Deliver {
        from: NodeId,
        to: NodeId,
        talk: Box<Talk>,
        incarnation: u64,
    },
    Tick(usize),
    /// A node's disk has what was being committed.
    Synced {
        at: usize,
        incarnation: u64,
    },
    Client(usize),
    Revive(usize),
    /// A step towards a node with an old disk.
    OldDisk(u64),
    Fault,
}

/// How a node's process is.
struct Process {
    alive: bool,
    stopped: bool,
    incarnation: u64,
    /// Its clock's rate in parts per thousand of true time, and where it stood at the world's
    /// beginning.
    rate: u64,
    offset: u64,
    held: Vec<(NodeId, Talk)>,
}

struct Client {
    node: usize,
    /// The write under way: operation, value, floor, when it was last sent.
    write: Option<(OperationId, u64, u64, u64)>,
}

pub(crate) struct World {
    seed: u64,
    dice: Dice,
    faults: Faults,
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: HashMap<u64, Event>,
    nodes: Vec<Node>,
    processes: Vec<Process>,
    clients: Vec<Client>,
    cut: BTreeSet<(usize, usize)>,
    latency: Vec<Vec<u64>>,
    /// How long a commit takes at most, in milliseconds: disks are quick in some worlds, slow in
    /// others.
    slowest_sync: u64,
    /// A node's disk as it was once, until it comes back: at most one node of a world loses its disk.
    backup: Option<(usize, Backup)>,
    replaced: bool,
    /// No other fault until then.
    calm_until: u64,
    values: u64,
    reads: u64,
    pub(crate) history: History,
}

/// After the faults projects are at home within this time, and nothing moves for that.
const HOME: u64 = 28_000;
const CALM: u64 = 20_000;
const TICK: u64 = 50;
const RETRY: u64 = 2000;

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        World::with(seed, faults, LeaseTerms { duration: Duration::from_secs(2) }, Broken::Nothing)
    }

    pub(crate) fn with(seed: u64, faults: Faults, lease: LeaseTerms, broken: Broken) -> Self {
        let mut dice = Dice::new(seed);
        let count = if dice.chance(300) { 5 } else { 3 };
        let ids: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let clients = 4;
        let mut world = World {
            seed,
            faults,
            now: 1_000,
            order: 0,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            nodes: Vec::new(),
            processes: Vec::new(),
            clients: (0..clients)
                .map(|i| Client { node: i % count as usize, write: None })
                .collect(),
            cut: BTreeSet::new(),
            latency: Vec::new(),
            slowest_sync: 0,
            backup: None,
            replaced: false,
            calm_until: 0,
            values: 0,
            reads: 0,
            history: History::default(),
            dice,
        };
        for id in &ids {
            let rate = world.dice.between(970, 1030);
            let offset = world.dice.below(1_000_000);
            let process = Process {
                alive: true,
                stopped: false,
                incarnation: 0,
                rate,
                offset,
                held: Vec::new(),
            };
            let now = process.offset + world.now * rate / 1000;
            let patience = world.dice.between(0, 600);
            world.processes.push(process);
            world.nodes.push(Node::new(*id, &ids, now, patience, lease, broken));
        }
        world.latency =
            (0..count).map(|_| (0..count).map(|_| world.dice.between(1, 80)).collect()).collect();
        world.slowest_sync = *[0, 5, 80].get(world.dice.below(3) as usize).unwrap_or(&80);
        world.form(&ids);
        for i in 0..count as usize {
            let at = world.now + world.dice.below(TICK);
            world.push(at, Event::Tick(i));
        }
        for i in 0..clients {
            let at = world.now + 3_000 + world.dice.below(500);
            world.push(at, Event::Client(i));
        }
        let at = world.now + 5_000;
        world.push(at, Event::Fault);
        world
    }

    /// All nodes begin with the mesh formed, and a project that signs: the same entries in every log.
    fn form(&mut self, ids: &[NodeId]) {
        let node = |id: &NodeId| NodeRecord {
            id: *id,
            name: format!("n{}", id.0).parse().unwrap(),
            region: format!("r{}", id.0).parse().unwrap(),
            role: records::Role::Replica,
            address: ([127, 0, 0, 1], 1).into(),
            url: String::new(),
        };
        let user = User { password_hash: "x".into(), administrator: true };
        let nodes = ids.iter().map(node).collect();
        let commands = [
            Command::FormMesh {
                mesh: 1,
                token_secret: vec![].into(),
                administrator: ("admin".into(), user),
                nodes,
            },
            // what builds of today write, not those of the first landing
            Command::RaiseLevel { level: Level::NEWEST, token_secret: vec![].into() },
            Command::CreateProject(NewProject {
                name: "demo".parse().unwrap(),
                public: true,
                durability: 1,
                home: ids[0],
                upstream: None,
                proxy: ProxyChange::default(),
                metadata: Default::default(),
            }),
            signing::new_key(Epoch::FIRST, 1),
        ];
        for (i, command) in commands.into_iter().enumerate() {
            let operation = OperationId(i as u128 + 1);
            let envelope = Envelope { operation, at: Timestamp(0), command };
            for node in &mut self.nodes {
                node.consensus
                    .log
                    .push(LogEntry { by: Ballot::default(), envelope: Some(envelope.clone()) });
                node.consensus.commit = node.consensus.log.len() as u64;
                node.consensus.synced = node.consensus.commit;
            }
        }
    }

    /// How many signatures of each epoch the logs have, which are whole.
    pub(crate) fn logged(&self) -> BTreeMap<Epoch, u64> {
        let all = self.nodes.iter().filter_map(|node| {
            let project = project_of(&node.records)?;
            Some(signing::logged(&node.records, &project))
        });
        all.max_by_key(|logged| logged.values().sum::<u64>()).unwrap_or_default()
    }

    fn push(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((at, self.order)));
        self.events.insert(self.order, event);
    }

    fn clock(&self, i: usize) -> u64 {
        let process = &self.processes[i];
        process.offset + self.now * process.rate / 1000
    }

    fn index(&self, id: NodeId) -> usize {
        id.0 as usize - 1
    }

    pub(crate) fn run_troubled(&mut self, seconds: u64) {
        let end = self.now + seconds * 1000;
        self.run(end, true);
    }

    /// Faults end: everything heals, everyone comes back, projects go home and stay there.
    pub(crate) fn run_healed(&mut self) {
        self.cut.clear();
        self.backup = None; // and no old disk comes any more
        for i in 0..self.nodes.len() {
            self.wake(i);
            self.revive(i);
        }
        self.run(self.now + HOME, false);
        let moves = self.moves();
        self.run(self.now + CALM, false);
        if self.moves() != moves {
            self.history.violate("a failover without a failure".into());
        }
    }

    fn run(&mut self, end: u64, trouble: bool) {
        while let Some(Reverse((at, order))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            let Some(event) = self.events.remove(&order) else { continue };
            match event {
                Event::Deliver { from, to, talk, incarnation } => {
                    self.deliver(from, to, *talk, incarnation)
                }
                Event::Tick(i) => {
                    self.settle(i);
                    self.push(self.now + TICK, Event::Tick(i));
                }
                Event::Synced { at, incarnation } => self.synced(at, incarnation),
                Event::Client(i) => self.client(i),
                Event::Revive(i) => self.revive(i),
                Event::OldDisk(step) => self.replace_disk(step),
                Event::Fault => {
                    if trouble && self.faults == Faults::All {
                        self.fault();
                    }
                    let at = self.now + self.dice.between(300, 4_000);
                    self.push(at, Event::Fault);
                }
            }
        }
        self.now = end;
    }

    fn runs(&self, i: usize) -> bool {
        self.processes[i].alive && !self.processes[i].stopped
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, talk: Talk, incarnation: u64) {
        let i = self.index(to);
        if !self.processes[i].alive || self.processes[i].incarnation != incarnation {
            return;
        }
        if self.processes[i].stopped {
            self.processes[i].held.push((from, talk));
            return;
        }
        self.hand(i, from, talk);
    }

    fn hand(&mut self, i: usize, from: NodeId, talk: Talk) {
        let now = self.clock(i);
        let mut replies = Vec::new();
        let mail = self.nodes[i].handle(now, from, talk, &mut replies);
        self.send(i, mail);
        self.reply(replies);
        self.settle(i);
    }

    fn settle(&mut self, i: usize) {
        if !self.runs(i) {
            return;
        }
        let (now, patience) = (self.clock(i), self.dice.between(0, 600));
        let mut replies = Vec::new();
        let mail = self.nodes[i].settle(now, patience, &mut self.history, &mut replies);
        self.send(i, mail);
        self.reply(replies);
        if self.nodes[i].returning.lost {
            return self.kill(i); // for good
        }
        if self.nodes[i].begin_flush() {
            let done = self.now + self.dice.between(0, self.slowest_sync);
            self.push(done, Event::Synced { at: i, incarnation: self.processes[i].incarnation });
        }
    }

    fn synced(&mut self, i: usize, incarnation: u64) {
        let process = &self.processes[i];
        if !process.alive || process.incarnation != incarnation {
            return;
        }
        if process.stopped {
            self.push(self.now + TICK, Event::Synced { at: i, incarnation });
            return;
        }
        let now = self.clock(i);
        let mail = self.nodes[i].finish_flush(now);
        self.send(i, mail);
        self.settle(i);
    }

    fn send(&mut self, from: usize, mail: Mail) {
        for (to, talk) in mail {
            let i = self.index(to);
            let lost = self.cut.contains(&(from, i))
                || self.dice.chance(if self.faults == Faults::All { 20 } else { 5 });
            if lost {
                continue;
            }
            let jitter = self.dice.below(20);
            let slow = if self.dice.chance(5) { self.dice.below(1_500) } else { 0 };
            let at = self.now + self.latency[from][i] + jitter + slow;
            let incarnation = self.processes[i].incarnation;
            self.push(
                at,
                Event::Deliver { from: self.nodes[from].id, to, talk: talk.into(), incarnation },
            );
        }
    }

    fn reply(&mut self, replies: Vec<(usize, OperationId, Result<Outcome, ()>)>) {
        for (client, operation, result) in replies {
            let Some((waiting, value, floor, _)) = self.clients[client].write else { continue };
            if waiting != operation {
                continue;
            }
            match result {
                Ok(Outcome::Done) => {
                    self.history.acknowledge(value, floor);
                    self.clients[client].write = None;
                }
                Ok(Outcome::PreconditionFailed) => {
                    self.history.lose(value);
                    self.clients[client].write = None;
                }
                // it will be decided anew under the next epoch, and a copy of it that is still under
                // way may be the one that takes effect: it keeps its id
                Ok(Outcome::StaleEpoch { .. }) => {
                    self.clients[client].write = Some((waiting, value, floor, 0));
                }
                // nothing was committed under this id: the next try is another operation
                Ok(_) => {
                    let again = OperationId(self.dice.next() as u128 | 1 << 90);
                    self.clients[client].write = Some((again, value, floor, 0));
                }
                Err(()) => {}
            }
        }
    }

    fn client(&mut self, i: usize) {
        let at = self.now + self.dice.between(60, 400);
        self.push(at, Event::Client(i));
        let node = self.clients[i].node;
        if self.dice.chance(500) {
            let reader = self.dice.below(self.nodes.len() as u64) as usize;
            if self.runs(reader) {
                self.reads += 1;
                let (now, floor) = (self.clock(reader), self.history.floor());
                self.nodes[reader].begin_read(now, self.reads, floor);
                self.settle(reader);
            }
        }
        match self.clients[i].write {
            None => {
                self.values += 1;
                // every third write goes by what was acknowledged last; by now there may be another
                if let Some(last) = self.history.acknowledged_values().last().copied()
                    && self.values.is_multiple_of(3)
                {
                    self.history.expect(self.values, last);
                }
                let operation = OperationId(self.dice.next() as u128 | 1 << 90);
                self.clients[i].write =
                    Some((operation, self.values, self.history.floor(), self.now));
            }
            Some((operation, value, floor, sent)) if self.now >= sent + RETRY => {
                self.clients[i].write = Some((operation, value, floor, self.now));
                // the node may be dead: the client turns to another
                self.clients[i].node = self.dice.below(self.nodes.len() as u64) as usize;
            }
            Some(_) => return,
        }
        if let (Some((operation, value, _, _)), true) = (self.clients[i].write, self.runs(node)) {
            let (now, id) = (self.clock(node), self.nodes[node].id);
            let expects = self.history.expected(value);
            let mail = self.nodes[node].take_write(now, id, i, operation, value, expects);
            self.send(node, mail);
            self.settle(node);
        }
    }

    fn fault(&mut self) {
        if self.now < self.calm_until {
            return;
        }
        let count = self.nodes.len() as u64;
        let i = self.dice.below(count) as usize;
        match self.dice.below(14) {
            12 | 13 => self.plan_old_disk(i),
            0 | 1 => self.kill(i),
            9 | 10 => self.bounce_leader(),
            2 | 3 => (0..self.nodes.len()).for_each(|i| self.revive(i)),
            4 => self.processes[i].stopped = self.processes[i].alive,
            5 => (0..self.nodes.len()).for_each(|i| self.wake(i)),
            6 => {
                for j in 0..self.nodes.len() {
                    self.cut.insert((i, j));
                    self.cut.insert((j, i));
                }
            }
            7 => {
                let j = self.dice.below(count) as usize;
                self.cut.insert((i, j));
            }
            8 => self.cut.clear(),
            _ => {
                if self.runs(i) {
                    let now = self.clock(i);
                    let mail = self.nodes[i].give_up_lease(now);
                    self.send(i, mail);
                }
            }
        }
    }

    /// The first time, a node's disk is copied. The second time everybody is well for a while, and
    /// then only that node and a bare majority with it hear each other.
    fn plan_old_disk(&mut self, i: usize) {
        if self.backup.is_none() {
            self.backup = Some((i, self.nodes[i].backup()));
        } else if !self.replaced {
            self.replaced = true;
            self.cut.clear();
            (0..self.nodes.len()).for_each(|i| self.wake(i));
            (0..self.nodes.len()).for_each(|i| self.revive(i));
            self.calm_until = self.now + 12_000;
            self.push(self.now + 4_000, Event::OldDisk(0));
        }
    }

    /// The node whose disk was copied dies, and comes back with the copy. The leader, who knows what
    /// that node has acknowledged, is there to say so, and dies soon after it: then those that were
    /// cut off may elect a leader with that node, and nobody else.
    fn replace_disk(&mut self, step: u64) {
        let Some((i, backup)) = self.backup.clone() else { return };
        let all = self.nodes.len();
        let leads = |at: &usize| self.runs(*at) && self.nodes[*at].consensus.role == Role::Leader;
        let Some(leader) = (0..all).find(leads).filter(|leader| *leader != i) else { return };
        match step {
            0 => {
                let late = (0..all).filter(|at| ![i, leader].contains(at)).take(all / 2);
                for at in late.collect::<Vec<_>>() {
                    (0..all).for_each(|to| self.cut.extend([(at, to), (to, at)]));
                }
                self.push(self.now + 2_000, Event::OldDisk(1));
            }
            1 => {
                self.kill(i);
                self.nodes[i].become_that_of(backup);
                self.push(self.now + 10, Event::Revive(i));
                self.push(self.now + 600, Event::OldDisk(2));
            }
            _ => {
                self.cut.clear();
                self.kill(leader);
                self.push(self.now + 5_000, Event::Revive(leader));
            }
        }
    }

    /// How many nodes ended since their disks were old.
    pub(crate) fn old_disks(&self) -> u64 {
        self.nodes.iter().filter(|node| node.returning.lost).count() as u64
    }

    /// The leader dies and is back before any node has missed it, as with a supervisor.
    fn bounce_leader(&mut self) {
        let leads = |i: &usize| self.runs(*i) && self.nodes[*i].consensus.role == Role::Leader;
        let Some(i) = (0..self.nodes.len()).find(leads) else { return };
        self.kill(i);
        let at = self.now + self.dice.between(1, 300);
        self.push(at, Event::Revive(i));
    }

    fn kill(&mut self, i: usize) {
        self.processes[i].alive = false;
        self.processes[i].stopped = false;
        self.processes[i].incarnation += 1;
        self.processes[i].held.clear();
    }

    fn revive(&mut self, i: usize) {
        if self.processes[i].alive || self.nodes[i].returning.lost {
            return;
        }
        self.processes[i].alive = true;
        let (now, patience) = (self.clock(i), self.dice.between(0, 600));
        self.nodes[i].restart(now, patience);
    }

    fn wake(&mut self, i: usize) {
        if !self.processes[i].stopped {
            return;
        }
        self.processes[i].stopped = false;
        for (from, talk) in std::mem::take(&mut self.processes[i].held) {
            if self.runs(i) {
                self.hand(i, from, talk);
            }
        }
    }

    /// How often the project has moved, as the most advanced node knows.
    pub(crate) fn moves(&self) -> u64 {
        self.nodes
            .iter()
            .filter_map(|n| project_of(&n.records))
            .map(|p| p.epoch.get() - 1)
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn check_end(&self) {
        let seed = self.seed;
        assert_eq!(self.history.violation(), None, "seed {seed}");
        let longest = self.nodes.iter().max_by_key(|n| n.applied).unwrap();
        for node in self.nodes.iter().filter(|node| !node.returning.lost) {
            let entries = node.applied.min(longest.applied) as usize;
            assert_eq!(
                node.consensus.log[..entries],
                longest.consensus.log[..entries],
                "seed {seed}: logs differ"
            );
            if node.applied == longest.applied {
                assert_eq!(
                    node.records, longest.records,
                    "seed {seed}: the same entries gave other records"
                );
            }
        }
        let stays = |node: &&Node| !node.returning.lost;
        let behind =
            self.nodes.iter().filter(stays).map(|n| longest.applied - n.applied).max().unwrap_or(0);
        assert!(
            behind < 20,
            "seed {seed}: a node is still {behind} entries behind after the faults ended"
        );
        assert!(value_of(&longest.records).is_some(), "seed {seed}: nothing was ever written");
        let level = records::Look::level(&longest.records).unwrap();
        assert_eq!(level, Level::NEWEST, "seed {seed}: rules of earlier levels were played");
        let project = project_of(&longest.records).unwrap();
        let home = self.nodes.iter().filter(stays).any(|node| node.id == project.home);
        assert!(
            !home || project.primary == project.home,
            "seed {seed}: the project did not go home"
        );
        for value in self.history.acknowledged_values() {
            let digest = rules::words::digest::Digest::sha256(&value.to_be_bytes());
            let kept = rules::ledger::records::Look::manifest(
                &longest.records,
                &"demo/app".parse().unwrap(),
                &digest,
            );
            assert!(kept.unwrap().is_some(), "seed {seed}: acknowledged write {value} is lost");
        }
    }
}
