use super::*;
use crate::ledger::apply::apply;
use crate::ledger::command::{Command, Envelope, NewProject};
use crate::ledger::jobs::{Priority, cron::Cron};
use crate::ledger::level::Level;
use crate::ledger::records::{MemoryRecords, NodeRecord, ReadRecords, Role, User};
use crate::proxies::proxy::ProxyChange;
use crate::words::names::{OperationId, Revision};

struct Ledger {
    records: MemoryRecords,
    revision: u64,
    now: u64,
}

fn node(n: u64) -> NodeRecord {
    NodeRecord {
        id: NodeId(n),
        name: format!("n{n}").parse().unwrap(),
        region: format!("r{n}").parse().unwrap(),
        role: Role::Replica,
        address: ([127, 0, 0, n as u8], 7946).into(),
        url: "http://127.0.0.1:5000".into(),
    }
}

fn demo() -> ProjectName {
    "demo".parse().unwrap()
}

fn task() -> Task {
    Task {
        project: demo(),
        kind: "preheat".into(),
        subject: "demo/app:1".into(),
        order: b"{}".to_vec(),
        priority: Priority::Normal,
        tries: 2,
        asked_by: "ann".into(),
    }
}

impl Ledger {
    fn new() -> Self {
        let mut ledger = Ledger { records: MemoryRecords::default(), revision: 0, now: 1_000_000 };
        let user = User { password_hash: "x".into(), administrator: true };
        let form = Command::FormMesh {
            mesh: 1,
            token_secret: vec![1].into(),
            administrator: ("admin".into(), user),
            nodes: (1..=3).map(node).collect(),
        };
        ledger.done(form);
        ledger.done(Command::RaiseLevel { level: Level::JOBS, token_secret: vec![1].into() });
        ledger.done(Command::CreateProject(NewProject {
            name: demo(),
            public: true,
            durability: 1,
            home: NodeId(1),
            upstream: None,
            proxy: ProxyChange::default(),
            metadata: Default::default(),
        }));
        ledger
    }

    fn run(&mut self, command: Command) -> Outcome {
        self.revision += 1;
        self.now += 1;
        let operation = OperationId(u128::from(self.revision) << 64);
        let envelope = Envelope { operation, at: Timestamp(self.now), command };
        apply(&mut self.records, Revision(self.revision), &envelope).unwrap()
    }

    fn done(&mut self, command: Command) {
        assert_eq!(self.run(command.clone()), Outcome::Done, "{command:?}");
    }

    fn job(&mut self, change: JobChange) -> Outcome {
        self.run(Command::Job(Box::new(change)))
    }

    fn ask(&mut self, id: u64) -> JobId {
        assert_eq!(self.job(JobChange::Ask { id: JobId(id), task: task() }), Outcome::Done);
        JobId(id)
    }

    fn epoch(&self) -> Epoch {
        self.records.project(&demo()).unwrap().unwrap().epoch
    }

    fn claim(&mut self, id: JobId, node: u64, runs: u32, epoch: Epoch) -> Outcome {
        self.job(JobChange::Claim { project: demo(), epoch, node: NodeId(node), id, runs })
    }

    fn end(&mut self, id: JobId, run: u32, epoch: Epoch, end: RunEnd) -> Outcome {
        self.job(JobChange::End { project: demo(), epoch, id, run, end })
    }

    fn fail_over(&mut self, to: u64) {
        let expect_epoch = self.epoch();
        self.done(Command::AssignPrimary { project: demo(), node: NodeId(to), expect_epoch });
    }

    fn look(&self, id: JobId) -> Job {
        self.records.job(id).unwrap().unwrap()
    }

    /// The tables agree with each other.
    fn check(&self) {
        let project = self.records.project(&demo()).unwrap().unwrap().id;
        let jobs = self.records.records::<Job>(&key::jobs_of(project)).unwrap();
        let over = jobs.iter().filter(|(_, job)| job.state.is_over()).count();
        let table = |prefix: Vec<u8>| self.records.scan(&prefix, None, usize::MAX).unwrap().len();
        let counts = counts(&self.records, project).unwrap();
        assert_eq!(table(key::ended_of(project)), over);
        assert_eq!(table(key::all_active()), jobs.len() - over);
        assert_eq!(table(key::places()), jobs.len());
        assert_eq!(table(b"E".to_vec()), jobs.len(), "each has its order");
        assert_eq!((counts.ended as usize, counts.active as usize), (over, jobs.len() - over));
    }
}

fn is_refused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(_))
}

#[test]
fn a_job_is_begun_ended_and_ends_once() {
    let mut ledger = Ledger::new();
    let (id, epoch) = (ledger.ask(7), ledger.epoch());
    assert_eq!(ledger.job(JobChange::Ask { id, task: task() }), Outcome::Exists);
    assert_eq!(ledger.claim(id, 1, 0, epoch), Outcome::Done);
    assert!(is_refused(&ledger.claim(id, 1, 0, epoch)), "the second of two claims");
    let (state, owner) = (ledger.look(id).state, ledger.look(id).owner);
    assert_eq!((state, owner), (JobState::Running(epoch), Some(NodeId(1))));
    assert_eq!(ledger.end(id, 1, epoch, RunEnd::Done("all of it".into())), Outcome::Done);
    assert!(is_refused(&ledger.end(id, 1, epoch, RunEnd::Failed("no".into()))));
    assert!(is_refused(&ledger.claim(id, 1, 1, epoch)), "what is over is not begun");
    let job = ledger.look(id);
    assert_eq!((job.state, job.result.as_str()), (JobState::Done, "all of it"));
    ledger.check();
}

#[test]
fn after_a_failover_only_the_new_primarys_run_counts() {
    let mut ledger = Ledger::new();
    let (id, old) = (ledger.ask(7), ledger.epoch());
    assert_eq!(ledger.claim(id, 1, 0, old), Outcome::Done);
    ledger.fail_over(2);
    let new = ledger.epoch();
    let late = ledger.end(id, 1, old, RunEnd::Done("too late".into()));
    assert_eq!(late, Outcome::StaleEpoch { current: new });
    assert!(is_refused(&ledger.end(id, 1, new, RunEnd::Done("under another's epoch".into()))));
    assert_eq!(ledger.claim(id, 2, 1, new), Outcome::Done);
    assert_eq!(ledger.claim(id, 1, 1, old), Outcome::StaleEpoch { current: new });
    assert!(is_refused(&ledger.end(id, 1, new, RunEnd::Done("the run before".into()))));
    assert_eq!(ledger.end(id, 2, new, RunEnd::Done("whole".into())), Outcome::Done);
    assert_eq!((ledger.look(id).runs, ledger.look(id).owner), (2, Some(NodeId(2))));
    ledger.check();
}

#[test]
fn what_failed_waits_and_is_tried_again_until_its_tries_are_used_up() {
    let mut ledger = Ledger::new();
    let (id, epoch) = (ledger.ask(7), ledger.epoch());
    ledger.claim(id, 1, 0, epoch);
    assert_eq!(ledger.end(id, 1, epoch, RunEnd::Failed("a\nlink".into())), Outcome::Done);
    let job = ledger.look(id);
    assert_eq!((job.state, job.result.as_str()), (JobState::Waiting, "a link"));
    let waits = job.not_before.0 - ledger.now;
    assert!((5_000..6_250).contains(&waits), "{waits}");
    ledger.claim(id, 1, 1, epoch);
    ledger.end(id, 2, epoch, RunEnd::Failed("x".repeat(2_000)));
    let job = ledger.look(id);
    assert_eq!((job.state, job.result.chars().count()), (JobState::Failed, MAX_RESULT));
    ledger.check();
    assert_eq!(ledger.job(JobChange::Retry { id }), Outcome::Done);
    assert_eq!(ledger.records.order(id).unwrap(), b"{}", "its order is still there");
    ledger.check();
    ledger.claim(id, 1, 2, epoch);
    ledger.end(id, 3, epoch, RunEnd::Hopeless("there is no such image".into()));
    assert_eq!(ledger.look(id).state, JobState::Failed, "no other try mends it");
    ledger.claim(id, 1, 3, epoch);
    assert_eq!(ledger.look(id).state, JobState::Failed);
}

#[test]
fn a_job_that_takes_its_node_down_each_time_comes_to_an_end() {
    let mut ledger = Ledger::new();
    let (id, epoch) = (ledger.ask(7), ledger.epoch());
    for run in 0..=MOST_RUNS {
        assert_eq!(ledger.claim(id, 1, run, epoch), Outcome::Done);
    }
    let job = ledger.look(id);
    assert_eq!((job.state, job.runs), (JobState::Failed, MOST_RUNS));
    assert!(job.result.contains("20 times"), "{}", job.result);
    assert_eq!(ledger.job(JobChange::Retry { id }), Outcome::Done);
    assert_eq!(ledger.claim(id, 1, MOST_RUNS, epoch), Outcome::Done);
    assert_eq!(ledger.look(id).runs, MOST_RUNS + 1, "a run's number is never used twice");
}

#[test]
fn a_job_is_stopped_before_it_begins_by_its_owner_and_after_its_owners_death() {
    let mut ledger = Ledger::new();
    let epoch = ledger.epoch();
    let [waits, runs, orphan, over] = [1, 2, 3, 4].map(|id| ledger.ask(id));
    ledger.job(JobChange::Stop { id: waits });
    assert_eq!(ledger.look(waits).state, JobState::Stopped);
    assert_eq!(ledger.job(JobChange::Stop { id: waits }), Outcome::Done, "twice is no mistake");

    ledger.claim(runs, 1, 0, epoch);
    ledger.job(JobChange::Stop { id: runs });
    assert!(ledger.look(runs).stop && !ledger.look(runs).state.is_over());
    ledger.end(runs, 1, epoch, RunEnd::Failed("broken off".into()));
    assert_eq!(ledger.look(runs).state, JobState::Stopped, "and not tried again");

    ledger.claim(over, 1, 0, epoch);
    ledger.end(over, 1, epoch, RunEnd::Done(String::new()));
    assert!(is_refused(&ledger.job(JobChange::Stop { id: over })));
    assert!(is_refused(&ledger.job(JobChange::Retry { id: over })));

    ledger.claim(orphan, 1, 0, epoch);
    ledger.job(JobChange::Stop { id: orphan });
    ledger.fail_over(2);
    let epoch = ledger.epoch();
    assert_eq!(ledger.claim(orphan, 2, 1, epoch), Outcome::Done);
    assert_eq!(ledger.look(orphan).state, JobState::Stopped);
    assert_eq!(ledger.job(JobChange::Stop { id: JobId(99) }), Outcome::NotFound);
    assert_eq!(ledger.job(JobChange::Retry { id: JobId(99) }), Outcome::NotFound);
    ledger.check();
}

#[test]
fn a_project_has_a_bounded_number_of_jobs() {
    let mut ledger = Ledger::new();
    let epoch = ledger.epoch();
    for id in 0..u64::from(MOST_ACTIVE) {
        ledger.ask(id);
    }
    let more = JobChange::Ask { id: JobId(5_000), task: task() };
    assert!(matches!(ledger.job(more), Outcome::Refused(why) if why.contains("1000 jobs")));
    ledger.check();
    for round in 0..2 {
        for id in 0..u64::from(MOST_ENDED) {
            let id = if round == 0 { JobId(id) } else { ledger.ask(10_000 + id) };
            ledger.claim(id, 1, 0, epoch);
            ledger.end(id, 1, epoch, RunEnd::Done(String::new()));
        }
    }
    ledger.check();
    assert!(ledger.records.job(JobId(0)).unwrap().is_none(), "the oldest made room");
    assert_eq!(ledger.look(JobId(10_000)).state, JobState::Done);

    let sweep = |before, keep| JobChange::Sweep { project: demo(), epoch, before, keep };
    assert_eq!(ledger.job(sweep(Timestamp(0), 100)), Outcome::Unfinished);
    assert_eq!(ledger.job(sweep(Timestamp(0), 100)), Outcome::Done);
    assert!(ledger.records.job(JobId(10_899)).unwrap().is_none());
    assert_eq!(ledger.look(JobId(10_900)).state, JobState::Done);
    ledger.check();
    assert_eq!(ledger.job(sweep(Timestamp(u64::MAX), 100)), Outcome::Done);
    assert!(ledger.records.job(JobId(10_999)).unwrap().is_none(), "too old");
    ledger.check();
}

fn nightly() -> Schedule {
    let cron: Cron = "0 3 * * *".parse().unwrap();
    Schedule {
        name: "nightly".into(),
        task: task(),
        cron,
        spread: 0,
        created: Timestamp(0),
        next: Timestamp(5),
        last: None,
    }
}

#[test]
fn a_schedule_makes_one_job_for_each_time_and_none_while_the_last_is_not_over() {
    let mut ledger = Ledger::new();
    let epoch = ledger.epoch();
    assert_eq!(ledger.job(JobChange::Schedule(Box::new(nightly()))), Outcome::Done);
    let fire = |was, next, id| JobChange::Fire {
        project: demo(),
        epoch,
        name: "nightly".into(),
        was: Timestamp(was),
        next: Timestamp(next),
        id: JobId(id),
    };
    assert_eq!(ledger.job(fire(5, 10, 1)), Outcome::Done);
    assert!(is_refused(&ledger.job(fire(5, 10, 2))), "that time has made its job");
    assert_eq!(ledger.look(JobId(1)).schedule.as_deref(), Some("nightly"));
    assert_eq!(ledger.job(fire(10, 15, 3)), Outcome::Done);
    assert!(ledger.records.job(JobId(3)).unwrap().is_none(), "the last one is not over");
    ledger.claim(JobId(1), 1, 0, epoch);
    ledger.end(JobId(1), 1, epoch, RunEnd::Done(String::new()));
    assert_eq!(ledger.job(fire(15, 20, 4)), Outcome::Done);
    assert_eq!(ledger.look(JobId(4)).state, JobState::Waiting);
    ledger.check();

    let schedules = ledger.records.schedules().unwrap();
    assert_eq!((schedules[0].next, schedules[0].last), (Timestamp(20), Some(JobId(4))));
    let again = Schedule { spread: 60, ..nightly() };
    assert_eq!(ledger.job(JobChange::Schedule(Box::new(again))), Outcome::Done);
    assert_eq!(ledger.records.schedules().unwrap()[0].last, Some(JobId(4)), "it is replaced");
    for name in ["", "a b", "../x"] {
        let bad = Schedule { name: name.into(), ..nightly() };
        assert!(is_refused(&ledger.job(JobChange::Schedule(Box::new(bad)))), "{name}");
    }
    for n in 1..MOST_SCHEDULES {
        let more = Schedule { name: n.to_string(), ..nightly() };
        assert_eq!(ledger.job(JobChange::Schedule(Box::new(more))), Outcome::Done);
    }
    let more = Schedule { name: "more".into(), ..nightly() };
    assert!(is_refused(&ledger.job(JobChange::Schedule(Box::new(more)))));
    let gone = |name: &str| JobChange::Unschedule { project: demo(), name: name.into() };
    assert_eq!(ledger.job(gone("nightly")), Outcome::Done);
    assert_eq!(ledger.job(gone("nightly")), Outcome::NotFound);
    assert_eq!(ledger.job(fire(20, 25, 6)), Outcome::NotFound);
}

#[test]
fn a_schedule_is_late_by_the_same_part_each_time() {
    let on = |name: &str, spread| Schedule { name: name.into(), spread, ..nightly() };
    let times = |schedule: Schedule| {
        let first = schedule.following(Timestamp(1_795_917_600_000));
        let second = schedule.following(first);
        assert_eq!(second.0 - first.0, 86_400_000, "a day apart");
        first.0 % 86_400_000 - 3 * 3_600_000
    };
    assert_eq!(times(on("a", 0)), 0);
    let (a, b) = (times(on("a", 3600)), times(on("b", 3600)));
    assert!(a != b && a <= 3_600_000 && b <= 3_600_000 && a % 1000 == 0, "{a} {b}");
}

#[test]
fn a_deleted_project_takes_its_jobs_and_schedules_with_it() {
    let mut ledger = Ledger::new();
    let (id, epoch) = (ledger.ask(1), ledger.epoch());
    ledger.ask(2);
    ledger.claim(id, 1, 0, epoch);
    ledger.end(id, 1, epoch, RunEnd::Done(String::new()));
    ledger.job(JobChange::Schedule(Box::new(nightly())));
    ledger.done(Command::DeleteProject { name: demo(), epoch });
    for prefix in [
        key::jobs(),
        key::places(),
        key::all_active(),
        b"f".to_vec(),
        b"E".to_vec(),
        key::schedules(),
    ] {
        assert!(ledger.records.scan(&prefix, None, 9).unwrap().is_empty(), "{prefix:?}");
    }
    assert!(ledger.records.scan(&key::all_counts(), None, 9).unwrap().is_empty());
}

#[test]
fn an_order_that_is_out_of_bounds_is_refused() {
    let mut ledger = Ledger::new();
    for bad in [
        Task { order: vec![0; 33 << 10], ..task() },
        Task { kind: String::new(), ..task() },
        Task { subject: "x".repeat(301), ..task() },
        Task { tries: 0, ..task() },
        Task { tries: 21, ..task() },
    ] {
        assert!(is_refused(&ledger.job(JobChange::Ask { id: JobId(1), task: bad })));
    }
    let elsewhere = Task { project: "other".parse().unwrap(), ..task() };
    let outcome = ledger.job(JobChange::Ask { id: JobId(1), task: elsewhere });
    assert_eq!(outcome, Outcome::NotFound);
    ledger.check();
}
