//! The queue at one node: begins the jobs of the projects whose primary this node is, and records
//! how they end. `rules::ledger::jobs` decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::events::Actor;
use rules::ledger::jobs::queue::{Active, Queue, Step};
use rules::ledger::jobs::{
    Job, JobChange, JobCounts, JobState, LookForJobs, RunEnd, Schedule, Task, key,
};
use rules::ledger::level::Level;
use rules::ledger::records::{Look, Project, RecordError};
use rules::wire::{JobAsk, JobReport, NoLedger, questions};
use rules::words::moment::Timestamp;
use rules::words::names::{Epoch, JobId, NodeId, OperationId, ProjectName};
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::{Report, Run, Work};
use crate::view::neighbours::Neighbours;
use crate::writes::{Refusal, settle};

/// The time between two looks at the queue, if nothing happens.
const LOOK: Duration = Duration::from_millis(500);
/// The shortest time between two looks: each applied entry would cause one.
const PAUSE: Duration = Duration::from_millis(100);
/// The time between two looks at the schedules.
const SCHEDULES: Duration = Duration::from_secs(1);
/// The time between two looks for what can be forgotten.
const SWEEP: Duration = Duration::from_secs(60);
/// The time between two tries to record the end of a run.
const AGAIN: Duration = Duration::from_millis(500);
/// How long this node waits until it has applied its own claim.
const APPLIED: Duration = Duration::from_secs(5);
/// How long a job's owner may take to say how far it is.
const ASK: Duration = Duration::from_secs(3);
/// The maximum number of runs whose progress and log are remembered.
const REMEMBERED: usize = 200;

/// Limits of the queue.
#[derive(Clone, Copy, Debug)]
pub struct JobTerms {
    /// The maximum number of jobs that this node carries out at a time.
    pub at_a_time: usize,
    /// How long jobs that have ended are remembered.
    pub keep_for: Duration,
    /// The maximum number of those of each project.
    pub keep: u32,
    /// Until a change of a job is committed.
    pub commit: Duration,
}

/// The jobs of this node, and the door to those of the mesh.
pub struct Jobs {
    neighbours: Arc<Neighbours>,
    kinds: BTreeMap<&'static str, Arc<dyn Work>>,
    queue: Mutex<Queue>,
    told: Mutex<BTreeMap<JobId, Orders>>,
    reports: Mutex<BTreeMap<JobId, Arc<Report>>>,
    over: Notify,
    tasks: Tasks,
    terms: JobTerms,
}

/// What a run is told.
struct Orders {
    /// That it shall stop.
    stop: watch::Sender<bool>,
    /// That it is not this node's any more.
    drop: watch::Sender<bool>,
}

/// A claim that the queue decided on.
struct Claim {
    id: JobId,
    project: ProjectName,
    epoch: Epoch,
    runs: u32,
}

/// The queue is told that a run is over when this is dropped, whatever became of it.
struct Slot<'a>(&'a Jobs, JobId);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.told.lock().remove(&self.1);
        self.0.queue.lock().over(self.1);
        self.0.over.notify_one();
    }
}

impl Jobs {
    /// A queue for these kinds of jobs, which has not begun yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        kinds: Vec<Arc<dyn Work>>,
        terms: JobTerms,
        tasks: Tasks,
    ) -> Arc<Self> {
        let queue = Mutex::new(Queue::new(neighbours.me, terms.at_a_time));
        let kinds = kinds.into_iter().map(|kind| (kind.kind(), kind)).collect();
        let (told, reports, over) = (Mutex::default(), Mutex::default(), Notify::new());
        Arc::new(Jobs { neighbours, kinds, queue, told, reports, over, tasks, terms })
    }

    /// Begins. An edge has no part in the queue.
    pub fn start(self: &Arc<Self>) {
        if self.neighbours.is_edge() {
            return;
        }
        let jobs = self.clone();
        self.tasks.spawn("jobs", async move { jobs.work().await });
        let jobs = self.clone();
        self.tasks.spawn("schedules", async move { jobs.keep_schedules().await });
        let jobs = self.clone();
        self.tasks.spawn("forget-jobs", async move { jobs.forget_old().await });
    }

    /// Whether the mesh has the feature level of jobs.
    pub fn are_used(&self) -> Result<bool, RecordError> {
        Ok(self.neighbours.records.view()?.level()? >= Level::JOBS)
    }

    /// Asks for a job, in the ledger. It is begun by the project's primary when there is room.
    pub async fn ask(&self, task: Task, by: &Actor) -> Result<JobId, Refusal> {
        loop {
            let id = JobId::new(clock::timestamp(), rand::random());
            let asked = self.change(JobChange::Ask { id, task: task.clone() }, by).await;
            match asked {
                // another node has drawn the same number
                Err(Refusal::Exists) => {}
                other => return other.map(|()| id),
            }
        }
    }

    /// Stops a job: at once if it waits; a run ends as soon as its kind allows.
    pub async fn stop(&self, id: JobId, by: &Actor) -> Result<(), Refusal> {
        self.change(JobChange::Stop { id }, by).await
    }

    /// Begins a job anew that failed or was stopped.
    pub async fn retry(&self, id: JobId, by: &Actor) -> Result<(), Refusal> {
        self.change(JobChange::Retry { id }, by).await
    }

    /// Makes a schedule, or replaces the one of the same name.
    pub async fn schedule(&self, mut schedule: Schedule, by: &Actor) -> Result<(), Refusal> {
        schedule.next = schedule.following(clock::timestamp());
        self.change(JobChange::Schedule(Box::new(schedule)), by).await
    }

    /// Removes a schedule. Jobs that it made stay.
    pub async fn unschedule(
        &self,
        project: ProjectName,
        name: String,
        by: &Actor,
    ) -> Result<(), Refusal> {
        self.change(JobChange::Unschedule { project, name }, by).await
    }

    /// What the last owner of a job has of its run; `None` if it does not answer or knows nothing,
    /// for instance after a restart.
    pub async fn report(&self, job: &Job) -> Option<JobReport> {
        let owner = job.owner?;
        if owner == self.neighbours.me {
            return self.report_here(job.id);
        }
        let question = questions::Job { ask: JobAsk::Report(job.id) };
        match self.neighbours.links.ask(owner, question, ASK).await {
            Ok(report) => report,
            Err(error) => {
                debug!(job = %job.id, %error, "a job's owner does not say how far it is");
                None
            }
        }
    }

    /// What this node has of its last run of a job.
    pub fn report_here(&self, id: JobId) -> Option<JobReport> {
        let report = self.reports.lock().get(&id).cloned();
        report.map(|report| report.read())
    }

    async fn change(&self, change: JobChange, by: &Actor) -> Result<(), Refusal> {
        let records = &self.neighbours.records;
        let has = records.view()?.level()?;
        if has < Level::JOBS {
            return Err(Refusal::Level { needs: Level::JOBS, has });
        }
        let operation = OperationId(rand::random());
        let command = Command::Job(Box::new(change)).audited(by.clone());
        let proposed = records.propose(operation, command, self.terms.commit).await;
        let lost = |error| Refusal::Unavailable(self.neighbours.no_ledger(&error));
        settle(proposed.map_err(lost)?.outcome).map(|_| ())
    }

    /// A change that only a project's primary makes.
    async fn fenced(&self, operation: OperationId, change: JobChange) -> Result<Outcome, NoLedger> {
        let command = Command::Job(Box::new(change));
        let proposed = self.neighbours.records.propose(operation, command, self.terms.commit).await;
        proposed.map(|proposed| proposed.outcome)
    }

    /// Looks at the queue again and again, and begins what may begin.
    async fn work(self: Arc<Self>) {
        loop {
            let seen = self.neighbours.records.version();
            match self.decide() {
                Ok(steps) => steps.into_iter().for_each(|step| self.take(step)),
                Err(error) => warn!(%error, "the queue of jobs cannot be read"),
            }
            tokio::time::sleep(PAUSE).await;
            tokio::select! {
                () = self.neighbours.records.applied_more(seen, LOOK) => {}
                () = self.over.notified() => {}
            }
        }
    }

    fn decide(&self) -> Result<Vec<Step>, RecordError> {
        // cut off from the majority, this node cannot know whose jobs these are
        if !self.neighbours.records.connected() {
            return Ok(Vec::new());
        }
        let view = self.neighbours.records.view()?;
        if view.level()? < Level::JOBS {
            return Ok(Vec::new());
        }
        let mut projects: BTreeMap<ProjectName, Option<(NodeId, Epoch)>> = BTreeMap::new();
        let mut active = Vec::new();
        for job in view.active_jobs()? {
            let name = &job.task.project;
            if !projects.contains_key(name) {
                let project = view.project(name)?;
                projects.insert(name.clone(), project.map(|p| (p.primary, p.epoch)));
            }
            if let Some(Some((primary, epoch))) = projects.get(name).copied() {
                active.push(Active { job, primary, epoch });
            }
        }
        self.count(&active);
        let can = |task: &Task| {
            let kind = self.kinds.get(task.kind.as_str());
            kind.is_some_and(|kind| kind.lacks(task).is_none())
        };
        Ok(self.queue.lock().decide(clock::timestamp(), &active, can))
    }

    /// The gauges are of the projects whose primary this node is, so that all nodes together have
    /// the mesh's.
    fn count(&self, active: &[Active]) {
        let mine = || active.iter().filter(|one| one.primary == self.neighbours.me);
        let waiting = mine().filter(|one| one.job.state == JobState::Waiting).count();
        metrics::gauge!("atoll_jobs_waiting").set(waiting as f64);
        metrics::gauge!("atoll_jobs_running").set((mine().count() - waiting) as f64);
    }

    fn take(self: &Arc<Self>, step: Step) {
        match step {
            Step::Claim { id, project, epoch, runs } => {
                let (stop, stopped) = watch::channel(false);
                let (drop, dropped) = watch::channel(false);
                self.told.lock().insert(id, Orders { stop, drop });
                let (jobs, claim) = (self.clone(), Claim { id, project, epoch, runs });
                self.tasks.spawn("job", async move {
                    let _slot = Slot(&jobs, id);
                    jobs.run(claim, stopped, dropped).await;
                });
            }
            Step::Stop(id) => self.tell(id, |orders| &orders.stop),
            Step::Drop(id) => self.tell(id, |orders| &orders.drop),
        }
    }

    fn tell(&self, id: JobId, what: impl Fn(&Orders) -> &watch::Sender<bool>) {
        if let Some(orders) = self.told.lock().get(&id) {
            what(orders).send_replace(true);
        }
    }

    /// Claims a job, carries it out, and records how it ended.
    async fn run(&self, claim: Claim, stop: watch::Receiver<bool>, dropped: watch::Receiver<bool>) {
        let Claim { id, project, epoch, runs } = claim;
        let node = self.neighbours.me;
        let change = JobChange::Claim { project: project.clone(), epoch, node, id, runs };
        match self.fenced(OperationId(rand::random()), change).await {
            Ok(Outcome::Done) => {}
            Ok(outcome) => return debug!(job = %id, ?outcome, "a job was not begun"),
            Err(error) => return debug!(job = %id, %error, "a job could not be claimed yet"),
        }
        let number = runs + 1;
        let Some(job) = self.claimed(id, number).await else { return };
        // the ledger ends a job itself that was stopped, or begun too often
        let Some(work) = self.kinds.get(job.task.kind.as_str()).filter(|_| !job.state.is_over())
        else {
            return;
        };
        self.queue.lock().begun(id, number);
        let report = self.new_report(id);
        report.log(&format!("run {number} began at {}", self.neighbours.name_of(node)));
        info!(job = %id, kind = work.kind(), %project, run = number, "a job has begun");
        let stopping = stop.clone();
        let run = Run { job, stop, report: report.clone() };
        let mut gone = dropped.clone();
        let end = tokio::select! {
            end = work.carry_out(&run) => end,
            _ = gone.wait_for(|dropped| *dropped) => {
                report.log("another primary goes on with this job");
                return info!(job = %id, run = number, "a job is not this node's any more");
            }
        };
        let (word, sentence) = match &end {
            RunEnd::Done(said) => ("done", said),
            // as the ledger has it: what somebody stops and what breaks off for that has not failed
            RunEnd::Failed(said) | RunEnd::Hopeless(said) if *stopping.borrow() => {
                ("stopped", said)
            }
            RunEnd::Failed(said) | RunEnd::Hopeless(said) => ("failed", said),
            RunEnd::Stopped(said) => ("stopped", said),
        };
        report.log(&format!("{word}: {sentence}"));
        info!(job = %id, run = number, end = word, sentence, "a job's run has ended");
        if word == "failed" {
            metrics::counter!("atoll_job_runs_failed_total").increment(1);
        }
        self.record_end(id, JobChange::End { project, epoch, id, run: number, end }, dropped).await;
    }

    /// The job as this node's claim made it, once this node has applied the claim.
    async fn claimed(&self, id: JobId, number: u32) -> Option<Job> {
        let end = clock::now() + APPLIED;
        loop {
            let seen = self.neighbours.records.version();
            let view = self.neighbours.records.view().ok()?;
            let job = view.job(id).ok()??;
            if job.runs >= number || job.state.is_over() {
                let order = view.order(id).ok()?;
                let task = Task { order, ..job.task };
                return (job.runs == number).then_some(Job { task, ..job });
            }
            drop(view);
            if clock::now() >= end {
                return None;
            }
            self.neighbours.records.applied_more(seen, AGAIN).await;
        }
    }

    /// Records the end of a run. Without an answer it is tried again, as the same operation, until
    /// the run is not this node's any more.
    async fn record_end(&self, id: JobId, change: JobChange, dropped: watch::Receiver<bool>) {
        let operation = OperationId(rand::random());
        while !*dropped.borrow() {
            match self.fenced(operation, change.clone()).await {
                Ok(Outcome::Done) => return,
                Ok(outcome) => {
                    return info!(job = %id, ?outcome, "the end of a run was not taken");
                }
                Err(error) => debug!(job = %id, %error, "the end of a run is not recorded yet"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn new_report(&self, id: JobId) -> Arc<Report> {
        let report = Arc::new(Report::default());
        let running: BTreeSet<JobId> = self.told.lock().keys().copied().collect();
        let mut reports = self.reports.lock();
        // numbers are in the order of their jobs
        let oldest = reports.keys().find(|id| !running.contains(id)).copied();
        if let Some(oldest) = oldest.filter(|_| reports.len() >= REMEMBERED) {
            reports.remove(&oldest);
        }
        reports.insert(id, report.clone());
        report
    }

    /// Makes the jobs for which the time has come.
    async fn keep_schedules(&self) {
        loop {
            tokio::time::sleep(SCHEDULES).await;
            let due = match self.due() {
                Ok(due) => due,
                Err(error) => {
                    warn!(%error, "the schedules cannot be read");
                    continue;
                }
            };
            for (epoch, schedule) in due {
                let now = clock::timestamp();
                let change = JobChange::Fire {
                    project: schedule.task.project.clone(),
                    epoch,
                    name: schedule.name.clone(),
                    was: schedule.next,
                    next: schedule.following(now),
                    id: JobId::new(now, rand::random()),
                };
                let fired = self.fenced(OperationId(rand::random()), change).await;
                debug!(schedule = schedule.name, ?fired, "the time of a schedule has come");
            }
        }
    }

    fn due(&self) -> Result<Vec<(Epoch, Schedule)>, RecordError> {
        let view = self.neighbours.records.view()?;
        if view.level()? < Level::JOBS || !self.neighbours.records.connected() {
            return Ok(Vec::new());
        }
        let now = clock::timestamp();
        let mut due = Vec::new();
        for schedule in view.schedules()?.into_iter().filter(|schedule| schedule.next <= now) {
            let project = view.project(&schedule.task.project)?;
            if let Some(project) = project.filter(|p| p.primary == self.neighbours.me) {
                due.push((project.epoch, schedule));
            }
        }
        Ok(due)
    }

    /// Forgets jobs that ended long ago, or that are too many.
    async fn forget_old(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let age = self.terms.keep_for.as_millis() as u64;
            let before = Timestamp(clock::timestamp().0.saturating_sub(age));
            let full = match self.with_old(before) {
                Ok(full) => full,
                Err(error) => {
                    warn!(%error, "the jobs that have ended cannot be read");
                    continue;
                }
            };
            for project in full {
                let change = JobChange::Sweep {
                    project: project.name,
                    epoch: project.epoch,
                    before,
                    keep: self.terms.keep,
                };
                let swept = self.fenced(OperationId(rand::random()), change).await;
                debug!(?swept, "old jobs are forgotten");
            }
        }
    }

    /// The projects of this node with jobs that can be forgotten.
    fn with_old(&self, before: Timestamp) -> Result<Vec<Project>, RecordError> {
        let view = self.neighbours.records.view()?;
        if view.level()? < Level::JOBS || !self.neighbours.records.connected() {
            return Ok(Vec::new());
        }
        let mut full = Vec::new();
        for project in view.projects()? {
            if project.primary != self.neighbours.me {
                continue;
            }
            let counts: JobCounts = view.record(&key::counts(project.id))?.unwrap_or_default();
            let oldest = view.scan(&key::ended_of(project.id), None, 1)?;
            let oldest = oldest.first().and_then(|(place, _)| key::ended_at(place));
            if counts.ended > self.terms.keep || oldest.is_some_and(|(at, _)| at < before) {
                full.push(project);
            }
        }
        Ok(full)
    }
}
