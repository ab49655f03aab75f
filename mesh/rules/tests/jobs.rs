//! The queue of jobs under trouble: owners die, come back, are deposed while they run and do not
//! hear of it, and what they propose arrives late, twice, or in another order. Everything that
//! decides is real: `apply`, and `queue::Queue` at each node. The log is one list, because the
//! consensus has a simulator of its own (`sim`).
//!
//! What is checked: no job ends twice, and none ends by a run whose node was no primary when the
//! end was applied, or that another run had replaced; what a run did is done under its epoch; when
//! trouble ends, every job ends.

use std::collections::{BTreeMap, VecDeque};

use rules::ledger::apply::apply;
use rules::ledger::command::{Command, Envelope, NewProject, Outcome};
use rules::ledger::jobs::queue::{Active, Queue, Step};
use rules::ledger::jobs::{JobChange, JobState, LookForJobs, Priority, RunEnd, Task};
use rules::ledger::level::Level;
use rules::ledger::records::{Look, MemoryRecords, NodeRecord, Role, User};
use rules::proxies::proxy::ProxyChange;
use rules::words::moment::Timestamp;
use rules::words::names::{Epoch, JobId, NodeId, OperationId, ProjectName, Revision};

const NODES: u64 = 3;
const JOBS: u64 = 6;
const TICK: u64 = 200;

/// A rule broken on purpose, to show that the check sees it.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Nothing,
    /// An owner records its end under whatever epoch and run the ledger shows it then.
    EagerOwners,
    /// A node forgets what it claimed when its project has moved, and so what it dropped goes on.
    NoClaims,
}

/// Splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A run in a process. It ends at `until`, unless it is stopped or dropped before.
struct Run {
    number: u32,
    epoch: Epoch,
    until: u64,
    stopped: bool,
}

struct Node {
    id: NodeId,
    process: u64,
    up: bool,
    queue: Queue,
    runs: BTreeMap<JobId, Run>,
    /// How much of the log it has applied.
    seen: usize,
    records: MemoryRecords,
}

/// A proposal on its way, from a process that may be dead when it arrives.
struct Mail {
    arrives: u64,
    from: NodeId,
    process: u64,
    envelope: Envelope,
}

struct World {
    dice: Dice,
    broken: Broken,
    now: u64,
    log: Vec<Envelope>,
    truth: MemoryRecords,
    nodes: Vec<Node>,
    mail: VecDeque<Mail>,
    operations: u128,
    /// Who ended each job: checked against what the ledger had then.
    ended: BTreeMap<JobId, u32>,
    deaths: u64,
    takeovers: u64,
    refused: u64,
    violation: Option<String>,
}

fn demo() -> ProjectName {
    "demo".parse().unwrap()
}

fn node_record(n: u64) -> NodeRecord {
    NodeRecord {
        id: NodeId(n),
        name: format!("n{n}").parse().unwrap(),
        region: format!("r{n}").parse().unwrap(),
        role: Role::Replica,
        address: ([127, 0, 0, n as u8], 7946).into(),
        url: "http://127.0.0.1:5000".into(),
    }
}

impl World {
    fn new(seed: u64, broken: Broken) -> Self {
        let node = |n| Node {
            id: NodeId(n),
            process: 0,
            up: true,
            queue: Queue::new(NodeId(n), 3),
            runs: BTreeMap::new(),
            seen: 0,
            records: MemoryRecords::default(),
        };
        let mut world = World {
            dice: Dice(seed),
            broken,
            now: 1_000_000,
            log: Vec::new(),
            truth: MemoryRecords::default(),
            nodes: (1..=NODES).map(node).collect(),
            mail: VecDeque::new(),
            operations: 0,
            ended: BTreeMap::new(),
            deaths: 0,
            takeovers: 0,
            refused: 0,
            violation: None,
        };
        let user = User { password_hash: "x".into(), administrator: true };
        world.commit(Command::FormMesh {
            mesh: 1,
            token_secret: vec![1].into(),
            administrator: ("admin".into(), user),
            nodes: (1..=NODES).map(node_record).collect(),
        });
        world.commit(Command::RaiseLevel { level: Level::JOBS, token_secret: vec![1].into() });
        world.commit(Command::CreateProject(NewProject {
            name: demo(),
            public: true,
            durability: 1,
            home: NodeId(1),
            upstream: None,
            proxy: ProxyChange::default(),
            metadata: Default::default(),
        }));
        for id in 1..=JOBS {
            let task = Task {
                project: demo(),
                kind: "sim".into(),
                subject: String::new(),
                order: Vec::new(),
                priority: Priority::Normal,
                tries: 20,
                asked_by: String::new(),
            };
            world.commit(Command::Job(Box::new(JobChange::Ask { id: JobId(id), task })));
        }
        world
    }

    fn commit(&mut self, command: Command) -> Outcome {
        self.operations += 1;
        let operation = OperationId(self.operations);
        self.append(Envelope { operation, at: Timestamp(self.now), command })
    }

    /// Applies an entry to the true state, and checks what it did.
    fn append(&mut self, envelope: Envelope) -> Outcome {
        let before = match &envelope.command {
            Command::Job(change) => match &**change {
                JobChange::End { id, run, epoch, .. } => {
                    Some((*id, *run, *epoch, self.truth.job(*id).unwrap()))
                }
                _ => None,
            },
            _ => None,
        };
        let revision = Revision(self.log.len() as u64 + 1);
        let known = before.is_some().then(|| self.truth.clone());
        let outcome = apply(&mut self.truth, revision, &envelope).unwrap();
        let changed = known.is_some_and(|known| known != self.truth);
        self.log.push(envelope);
        if let (Some((id, run, epoch, Some(job))), Outcome::Done, true) =
            (before, &outcome, changed)
        {
            let project = self.truth.project(&demo()).unwrap().unwrap();
            if job.state.is_over() {
                self.violation = Some(format!("job {id} ended twice"));
            }
            if job.runs != run || job.state != JobState::Running(epoch) || project.epoch != epoch {
                self.violation = Some(format!("job {id} was ended by a run that was replaced"));
            }
            if self.truth.job(id).unwrap().unwrap().state.is_over() {
                *self.ended.entry(id).or_default() += 1;
            }
        }
        outcome
    }

    fn propose(&mut self, at: usize, change: JobChange) {
        self.operations += 1;
        let envelope = Envelope {
            operation: OperationId(self.operations),
            at: Timestamp(self.now),
            command: Command::Job(Box::new(change)),
        };
        let (from, process) = (self.nodes[at].id, self.nodes[at].process);
        let copies = if self.dice.chance(10) { 2 } else { 1 };
        for _ in 0..copies {
            let arrives = self.now + self.dice.below(3_000);
            self.mail.push_back(Mail { arrives, from, process, envelope: envelope.clone() });
        }
    }

    fn step(&mut self, trouble: bool) {
        self.now += TICK;
        if trouble {
            self.trouble();
        }
        for at in 0..self.nodes.len() {
            self.tick(at);
        }
        let (due, later): (Vec<Mail>, Vec<Mail>) =
            self.mail.drain(..).partition(|mail| mail.arrives <= self.now);
        self.mail = later.into();
        for mail in due {
            let outcome = self.append(mail.envelope.clone());
            self.answer(&mail, &outcome);
        }
    }

    /// A node dies, comes back, or is deposed although it is well.
    fn trouble(&mut self) {
        let at = self.dice.below(NODES) as usize;
        if self.dice.chance(6) && self.nodes.iter().filter(|n| n.up).count() > 1 {
            let node = &mut self.nodes[at];
            if node.up {
                node.up = false;
                self.deaths += u64::from(!node.runs.is_empty());
                node.runs.clear();
            }
        }
        if self.dice.chance(8) {
            self.revive(at);
        }
        if self.dice.chance(5) {
            self.assign(at);
        }
    }

    fn revive(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if !node.up {
            node.up = true;
            node.process += 1;
            node.queue = Queue::new(node.id, 3);
        }
    }

    fn assign(&mut self, at: usize) {
        let expect_epoch = self.truth.project(&demo()).unwrap().unwrap().epoch;
        let node = self.nodes[at].id;
        let command = Command::AssignPrimary { project: demo(), node, expect_epoch };
        self.commit(command);
    }

    fn tick(&mut self, at: usize) {
        if !self.nodes[at].up {
            return;
        }
        // a node may be behind
        let behind = if self.dice.chance(30) { self.dice.below(4) as usize } else { 0 };
        let target = self.log.len().saturating_sub(behind);
        let node = &mut self.nodes[at];
        while node.seen < target {
            let revision = Revision(node.seen as u64 + 1);
            apply(&mut node.records, revision, &self.log[node.seen]).unwrap();
            node.seen += 1;
        }
        let project = node.records.project(&demo()).unwrap();
        let Some(project) = project else { return };
        let jobs = node.records.active_jobs().unwrap();
        let active: Vec<Active> = jobs
            .into_iter()
            .map(|job| Active { job, primary: project.primary, epoch: project.epoch })
            .collect();
        let steps = node.queue.decide(Timestamp(self.now), &active, |task| task.kind == "sim");
        for step in steps {
            self.take(at, step);
        }
        self.finish(at);
    }

    fn take(&mut self, at: usize, step: Step) {
        let node = self.nodes[at].id;
        match step {
            Step::Claim { id, project, epoch, runs } => {
                self.propose(at, JobChange::Claim { project, epoch, node, id, runs });
            }
            Step::Stop(id) => {
                if let Some(run) = self.nodes[at].runs.get_mut(&id) {
                    run.stopped = true;
                }
            }
            Step::Drop(id) if self.broken == Broken::NoClaims => {
                // it goes on, and its job may be claimed once more
                self.nodes[at].queue.over(id);
            }
            Step::Drop(id) => {
                self.nodes[at].runs.remove(&id);
                self.nodes[at].queue.over(id);
            }
        }
    }

    /// Ends the runs whose time has come.
    fn finish(&mut self, at: usize) {
        let now = self.now;
        let over: Vec<JobId> = self.nodes[at]
            .runs
            .iter()
            .filter(|(_, run)| run.until <= now || run.stopped)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            let Some(run) = self.nodes[at].runs.get(&id) else { continue };
            let (mut number, mut epoch) = (run.number, run.epoch);
            let end = match self.dice.below(4) {
                _ if run.stopped => RunEnd::Stopped(String::new()),
                0 => RunEnd::Failed("dice".into()),
                _ => RunEnd::Done(String::new()),
            };
            if self.broken == Broken::EagerOwners
                && let Some(job) = self.truth.job(id).unwrap()
                && let JobState::Running(now) = job.state
            {
                (number, epoch) = (job.runs, now);
                if number != run.number {
                    self.violation = Some(format!("job {id} was ended by a run before"));
                }
            }
            // the answer tells the queue that the run is over
            self.nodes[at].runs.get_mut(&id).unwrap().until = u64::MAX;
            self.nodes[at].runs.get_mut(&id).unwrap().stopped = false;
            self.propose(at, JobChange::End { project: demo(), epoch, id, run: number, end });
        }
    }

    /// The proposer hears what became of its proposal, if it is still that process.
    fn answer(&mut self, mail: &Mail, outcome: &Outcome) {
        let until = self.now + self.dice.below(8_000);
        let Some(node) = self.nodes.iter_mut().find(|n| n.id == mail.from) else { return };
        if !node.up || node.process != mail.process {
            return;
        }
        let Command::Job(change) = &mail.envelope.command else { return };
        match (&**change, outcome) {
            (JobChange::Claim { id, runs, epoch, .. }, Outcome::Done) => {
                if node.runs.contains_key(id) {
                    return; // the second copy of the answer
                }
                let job = self.truth.job(*id).unwrap();
                let mine = job.is_some_and(|job| {
                    job.runs == runs + 1 && job.state == JobState::Running(*epoch)
                });
                if !mine {
                    node.queue.over(*id);
                    return;
                }
                self.takeovers += u64::from(*runs > 0);
                node.queue.begun(*id, runs + 1);
                let run = Run { number: runs + 1, epoch: *epoch, until, stopped: false };
                node.runs.insert(*id, run);
            }
            (JobChange::Claim { id, .. }, _) => {
                self.refused += 1;
                if !node.runs.contains_key(id) {
                    node.queue.over(*id);
                }
            }
            (JobChange::End { id, run, .. }, outcome) => {
                self.refused += u64::from(*outcome != Outcome::Done);
                if node.runs.get(id).is_some_and(|mine| mine.number == *run) {
                    node.runs.remove(id);
                    node.queue.over(*id);
                }
            }
            _ => {}
        }
    }

    fn run(&mut self) {
        for _ in 0..300 {
            self.step(true);
        }
        for at in 0..self.nodes.len() {
            self.revive(at);
        }
        self.assign(0);
        // the longest backoff is ten minutes and a quarter
        for _ in 0..60_000 {
            if self.truth.active_jobs().unwrap().is_empty() {
                break;
            }
            self.step(false);
        }
    }
}

#[test]
fn no_job_is_lost_or_ends_twice_whatever_happens_to_its_owners() {
    let (mut deaths, mut takeovers, mut refused) = (0, 0, 0);
    for seed in 0..150 {
        let mut world = World::new(seed, Broken::Nothing);
        world.run();
        assert_eq!(world.violation, None, "seed {seed}");
        for id in 1..=JOBS {
            let job = world.truth.job(JobId(id)).unwrap().unwrap();
            assert!(job.state.is_over(), "seed {seed}: job {id} is lost: {job:?}");
            // the ledger itself ends a job that was begun too often
            let by_run = world.ended.get(&JobId(id)).copied().unwrap_or(0);
            assert!(by_run == 1 || job.result.contains("times"), "seed {seed}: {by_run}, {job:?}");
        }
        deaths += world.deaths;
        takeovers += world.takeovers;
        refused += world.refused;
    }
    // trouble that never meets a run proves nothing
    assert!(deaths > 100 && takeovers > 300 && refused > 300, "{deaths} {takeovers} {refused}");
    println!("{deaths} owners died, {takeovers} runs were taken over, {refused} proposals refused");
}

#[test]
fn a_node_that_ends_a_run_which_is_not_its_own_is_noticed() {
    let seen = |broken| {
        (0..50)
            .filter(|seed| {
                let mut world = World::new(*seed, broken);
                world.run();
                world.violation.is_some()
            })
            .count()
    };
    assert!(seen(Broken::EagerOwners) > 0, "the check is blind");
}

#[test]
fn a_run_that_was_not_dropped_still_ends_nothing() {
    for seed in 0..50 {
        let mut world = World::new(seed, Broken::NoClaims);
        world.run();
        assert_eq!(
            world.violation, None,
            "seed {seed}: the ledger's fence alone keeps the promise"
        );
    }
}
