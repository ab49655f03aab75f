//! Collection beside pushes: a small mesh in which everything happens in any order. Replicas apply
//! the log late, carry out collections late, and restart; pushes are checked at one moment and
//! recorded at another, by a primary whose records are old; grants are made and end. Whatever the
//! order, a blob of a manifest that was acknowledged stays where its acknowledgement counted on it.
//!
//! The records, the commands and the judgement of what is due are the real ones. What a node does
//! with its disk and its grants is modelled here as `registry::blobs::collecting` does it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rules::ledger::apply::apply;
use rules::ledger::collecting::{self, CollectChange, LookForGarbage};
use rules::ledger::command::{Checked, Command, Envelope, NewManifest, NewProject, Outcome};
use rules::ledger::level::Level;
use rules::ledger::records::{BlobDescriptor, Look, MemoryRecords, NodeRecord, Role, User};
use rules::proxies::proxy::ProxyChange;
use rules::words::digest::{ContentHash, Digest};
use rules::words::moment::Timestamp;
use rules::words::names::{Epoch, NodeId, OperationId, RepositoryName, Revision};

#[path = "sim/dice.rs"]
#[expect(dead_code, reason = "the simulator throws more of them")]
mod dice;

use dice::Dice;

const NODES: usize = 3;
const BLOBS: u8 = 4;
/// Time is counted in steps.
const GRACE: u64 = 6;
const GRANT: u64 = 8;
const STEPS: u64 = 300;

struct Node {
    records: MemoryRecords,
    applied: usize,
    /// The blobs that it keeps.
    kept: BTreeSet<Digest>,
    /// Until when each blob is granted here.
    grants: BTreeMap<Digest, u64>,
    carried_out: u64,
}

impl Node {
    fn granted(&self, digest: &Digest, now: u64) -> bool {
        self.grants.get(digest).is_some_and(|until| *until > now)
    }

    fn apply_to(&mut self, log: &[Envelope], to: usize) {
        while self.applied < to {
            let revision = Revision(self.applied as u64 + 1);
            apply(&mut self.records, revision, &log[self.applied]).unwrap();
            self.applied += 1;
        }
    }

    /// As `Collecting::carry_out`.
    fn carry_out(&mut self, now: u64) {
        let target = self.records.collections().unwrap();
        for one in self.records.collected_after(self.carried_out, None, usize::MAX).unwrap() {
            let referenced = self.records.is_referenced(&one.digest).unwrap();
            if !referenced && !self.granted(&one.digest, now) {
                self.kept.remove(&one.digest);
            }
        }
        self.carried_out = target;
    }
}

/// A push between its check and its command.
struct Push {
    command: Command,
    /// What the acknowledgement counts on.
    counts_on: Vec<(usize, Digest)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// A primary does not say which collections it knew of.
    Forgets,
    /// A replica answers before it has carried out what the primary knows of.
    AnswersEarly,
}

struct Mesh {
    log: Vec<Envelope>,
    /// The log as it will be answered.
    outcomes: MemoryRecords,
    nodes: Vec<Node>,
    pushes: Vec<Push>,
    manifests: BTreeMap<Digest, Vec<(usize, Digest)>>,
    now: u64,
    dice: Dice,
    collected: u64,
    /// What was lost, if something was.
    violation: Option<String>,
    fault: Fault,
}

fn repository() -> RepositoryName {
    "demo/a".parse().unwrap()
}

fn blob(n: u8) -> Digest {
    Digest::sha256(&[n])
}

impl Mesh {
    fn new(seed: u64, fault: Fault) -> Self {
        let node = || Node {
            records: MemoryRecords::default(),
            applied: 0,
            kept: BTreeSet::new(),
            grants: BTreeMap::new(),
            carried_out: 0,
        };
        let mut mesh = Mesh {
            log: Vec::new(),
            outcomes: MemoryRecords::default(),
            nodes: (0..NODES).map(|_| node()).collect(),
            pushes: Vec::new(),
            manifests: BTreeMap::new(),
            now: 1,
            dice: Dice::new(seed),
            collected: 0,
            violation: None,
            fault,
        };
        let record = |n: usize| NodeRecord {
            id: NodeId(n as u64),
            name: format!("n{n}").parse().unwrap(),
            region: format!("r{n}").parse().unwrap(),
            role: Role::Replica,
            address: format!("127.0.0.1:{}", 1000 + n).parse().unwrap(),
            url: "http://n".into(),
        };
        mesh.commit(Command::FormMesh {
            mesh: 1,
            token_secret: vec![1].into(),
            administrator: ("a".into(), User { password_hash: "h".into(), administrator: true }),
            nodes: (0..NODES).map(record).collect(),
        });
        mesh.commit(Command::RaiseLevel { level: Level::NEWEST, token_secret: vec![2].into() });
        mesh.commit(Command::CreateProject(NewProject {
            name: "demo".parse().unwrap(),
            public: true,
            durability: 2,
            home: NodeId(0),
            upstream: None,
            proxy: ProxyChange::default(),
            metadata: BTreeMap::new(),
        }));
        for node in 0..NODES {
            let all = mesh.log.len();
            mesh.nodes[node].apply_to(&mesh.log, all);
        }
        mesh
    }

    fn commit(&mut self, command: Command) -> Outcome {
        let operation = OperationId(self.log.len() as u128 + 1);
        let envelope = Envelope { operation, at: Timestamp(self.now), command };
        self.log.push(envelope.clone());
        apply(&mut self.outcomes, Revision(self.log.len() as u64), &envelope).unwrap()
    }

    fn any_node(&mut self) -> usize {
        self.dice.below(NODES as u64) as usize
    }

    fn any_blob(&mut self) -> Digest {
        blob(self.dice.below(u64::from(BLOBS)) as u8)
    }

    fn step(&mut self) {
        self.now += 1;
        match self.dice.below(10) {
            0..=2 => self.catch_up(),
            3 => self.upload(),
            4 => self.ask_whether_it_is_here(),
            5 => self.check_a_push(),
            6 => self.record_a_push(),
            7 => self.delete(),
            8 => self.report_strays(),
            _ => self.collect(),
        }
        self.nothing_is_lost();
    }

    /// A node applies some of the log, and may carry out collections, or restart before.
    fn catch_up(&mut self) {
        let at = self.any_node();
        let behind = self.log.len() - self.nodes[at].applied;
        let to = self.nodes[at].applied + self.dice.below(behind as u64 + 1) as usize;
        let now = self.now;
        let carries_out = self.dice.below(10) < 7;
        let node = &mut self.nodes[at];
        node.apply_to(&self.log, to);
        if carries_out {
            node.carry_out(now);
        }
    }

    fn upload(&mut self) {
        let (at, digest) = (self.any_node(), self.any_blob());
        let until = self.now + GRANT;
        self.nodes[at].kept.insert(digest);
        self.nodes[at].grants.insert(digest, until);
    }

    /// A client asks, and does not send what is linked. The answer is from records that may be old,
    /// but by less than the grace.
    fn ask_whether_it_is_here(&mut self) {
        let (at, digest) = (self.any_node(), self.any_blob());
        let fresh = self.log.len();
        let node = &mut self.nodes[at];
        node.apply_to(&self.log, fresh);
        if node.records.linked(&repository(), &digest).unwrap() {
            node.grants.insert(digest, self.now + GRANT);
        }
    }

    /// The primary, with records that may be old, asks all who holds what.
    fn check_a_push(&mut self) {
        let primary = self.any_node();
        let wanted: BTreeSet<Digest> = (0..=self.dice.below(2)).map(|_| self.any_blob()).collect();
        let now = self.now;
        let view = self.nodes[primary].records.clone();
        let collections = view.collections().unwrap();
        let mut answers = Vec::new();
        for at in 0..NODES {
            // one that is asked waits a moment for what it has to carry out
            if at == primary || self.dice.below(10) < 3 {
                self.nodes[at].carry_out(now);
            }
            let node = &self.nodes[at];
            if node.carried_out >= collections || self.fault == Fault::AnswersEarly {
                answers.push(at);
            }
        }
        let (mut blobs, mut counts_on) = (Vec::new(), Vec::new());
        for digest in wanted {
            let granted = view.linked(&repository(), &digest).unwrap()
                || answers.iter().any(|at| self.nodes[*at].granted(&digest, now));
            let holders: Vec<usize> = answers
                .iter()
                .copied()
                .filter(|at| self.nodes[*at].kept.contains(&digest))
                .collect();
            if !granted || holders.is_empty() {
                return;
            }
            let mut kept_by = holders;
            if kept_by.len() < 2 {
                // a copy is made, and granted where it is made
                let Some(other) = answers.iter().copied().find(|at| !kept_by.contains(at)) else {
                    return;
                };
                self.nodes[other].kept.insert(digest);
                self.nodes[other].grants.insert(digest, now + GRANT);
                kept_by.push(other);
            }
            counts_on.extend(kept_by.iter().map(|at| (*at, digest)));
            blobs.push(BlobDescriptor {
                digest,
                size: 1,
                content: Some(ContentHash::of(b"x")),
                kept_by: kept_by.iter().map(|at| NodeId(*at as u64)).collect(),
            });
        }
        let manifest = Digest::sha256(&[self.dice.below(256) as u8, 1]);
        let new = NewManifest {
            epoch: Epoch::FIRST,
            repository: repository(),
            digest: manifest,
            media_type: "m".into(),
            bytes: vec![1],
            tags: vec![],
            blobs,
            subject: None,
        };
        let collections = if self.fault == Fault::Forgets { u64::MAX } else { collections };
        let command =
            Command::PutChecked(Box::new(Checked { collections, precondition: None, new }));
        self.pushes.push(Push { command, counts_on });
    }

    fn record_a_push(&mut self) {
        if self.pushes.is_empty() {
            return;
        }
        let at = self.dice.below(self.pushes.len() as u64) as usize;
        let Push { command, counts_on } = self.pushes.swap_remove(at);
        let manifest = command.new_manifest().unwrap().digest;
        if self.commit(command) == Outcome::Done {
            self.manifests.insert(manifest, counts_on);
        }
    }

    fn delete(&mut self) {
        let all: Vec<Digest> = self.manifests.keys().copied().collect();
        if all.is_empty() {
            return;
        }
        let digest = all[self.dice.below(all.len() as u64) as usize];
        let epoch = Epoch::FIRST;
        let command = Command::DeleteManifest { epoch, repository: repository(), digest };
        assert_eq!(self.commit(command), Outcome::Done);
        self.manifests.remove(&digest);
    }

    /// A node whose grants have ended tells what it keeps for nothing.
    fn report_strays(&mut self) {
        let (at, now) = (self.any_node(), self.now);
        let node = &self.nodes[at];
        let strays = node.kept.iter().filter(|digest| {
            !node.granted(digest, now) && !node.records.is_referenced(digest).unwrap()
        });
        let strays: Vec<Digest> = strays.copied().collect();
        if !strays.is_empty() {
            self.commit(Command::Collect(CollectChange::Strays(strays)));
        }
    }

    fn collect(&mut self) {
        let (at, now) = (self.any_node(), self.now);
        let garbage = self.nodes[at].records.garbage(None, 100).unwrap();
        let counted_on = |digest: &Digest| self.nodes.iter().any(|node| node.granted(digest, now));
        let grace = Duration::from_millis(GRACE);
        let digests: Vec<Digest> =
            collecting::due(&garbage, Timestamp(now), grace, counted_on).collect();
        let before = collecting::before(Timestamp(now), grace);
        if self.commit(Command::Collect(CollectChange::Collect { digests, before }))
            == Outcome::Done
        {
            self.collected += 1;
        }
    }

    fn nothing_is_lost(&mut self) {
        for (manifest, counts_on) in &self.manifests {
            for (at, digest) in counts_on {
                if !self.nodes[*at].kept.contains(digest) {
                    let now = self.now;
                    let lost = format!("{now}: node {at} has lost {digest} of {manifest}");
                    self.violation.get_or_insert(lost);
                }
            }
        }
    }

    /// Everything is applied and carried out, all pushes are over, and grants end.
    fn settle(&mut self) {
        while !self.pushes.is_empty() {
            self.record_a_push();
        }
        for _ in 0..3 {
            self.now += GRANT + GRACE + 1;
            let (now, all) = (self.now, self.log.len());
            for node in &mut self.nodes {
                node.apply_to(&self.log, all);
                node.carry_out(now);
            }
            for _ in 0..20 {
                self.report_strays();
            }
            self.now += GRACE + 2;
            let all = self.log.len();
            self.nodes.iter_mut().for_each(|node| node.apply_to(&self.log, all));
            self.collect();
        }
        let (now, all) = (self.now, self.log.len());
        for node in &mut self.nodes {
            node.apply_to(&self.log, all);
            node.carry_out(now);
        }
        self.nothing_is_lost();
        for node in &self.nodes {
            let dead: Vec<&Digest> =
                node.kept.iter().filter(|d| !node.records.is_referenced(d).unwrap()).collect();
            if !dead.is_empty() {
                self.violation.get_or_insert(format!("left over: {dead:?}"));
            }
        }
    }
}

fn play(seed: u64, fault: Fault) -> Mesh {
    let mut mesh = Mesh::new(seed, fault);
    for _ in 0..STEPS {
        mesh.step();
    }
    mesh.settle();
    mesh
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_dead_is_left() {
    let mut collected = 0;
    for seed in 0..300 {
        let mesh = play(seed, Fault::None);
        assert_eq!(mesh.violation, None, "seed {seed}");
        collected += mesh.collected;
    }
    assert!(collected > 600, "only {collected} collections: the model is too quiet");
}

/// Each part of the protocol is needed: without it, the model loses something.
#[test]
fn without_a_part_of_the_protocol_something_is_lost() {
    for fault in [Fault::Forgets, Fault::AnswersEarly] {
        let lost = (0..1000).any(|seed| play(seed, fault).violation.is_some());
        assert!(lost, "{fault:?}");
    }
}
