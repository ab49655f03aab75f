//! Jobs: work that no client waits for, in one queue for all kinds. A job belongs to a project, and
//! the project's primary carries it out under its epoch.
//!
//! The ledger has what must survive: what is to be done, and how far it came. Progress and logs are
//! the owner's, in memory. A kind is a name that the ledger does not know: a replica begins only
//! jobs of kinds that its build has.
//!
//! A run is claimed in the ledger before it begins, and its end is recorded with the epoch and the
//! number of the run. So of all runs of a job only the one that the ledger knows can end it.

pub mod cron;
pub mod queue;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::cron::Cron;
use crate::ledger::level::Level;
use crate::ledger::records::{Look, RecordError};
use crate::words::moment::Timestamp;
use crate::words::names::{Epoch, JobId, NodeId, ProjectId, ProjectName};

/// The maximum number of jobs of a project that wait or run.
pub const MOST_ACTIVE: u32 = 1_000;
/// The maximum number of jobs of a project that have ended and are remembered. The oldest makes
/// room.
pub const MOST_ENDED: u32 = 1_000;
/// The maximum number of schedules of a project.
pub const MOST_SCHEDULES: usize = 50;
/// The maximum length of an order in bytes.
pub const MAX_ORDER: usize = 32 << 10;
/// The maximum number of times that a job is begun. One that takes its node down each time must
/// come to an end.
pub const MOST_RUNS: u32 = 20;
/// The maximum length of a result in characters.
pub const MAX_RESULT: usize = 500;
/// The maximum length of the other texts in characters.
const MAX_TEXT: usize = 300;

/// Which jobs go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// After all others.
    Low,
    /// What nothing is said of.
    Normal,
    /// Before all others.
    High,
}

impl Priority {
    /// Its word in the API.
    pub fn word(self) -> &'static str {
        match self {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        }
    }
}

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// It waits: for its time, for room, or for a primary that can do it.
    Waiting,
    /// The primary of this epoch carries it out.
    Running(Epoch),
    /// It was carried out.
    Done,
    /// It was given up; the result says why.
    Failed,
    /// Somebody stopped it.
    Stopped,
}

impl JobState {
    /// Its word in the API.
    pub fn word(self) -> &'static str {
        match self {
            JobState::Waiting => "waiting",
            JobState::Running(_) => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Stopped => "stopped",
        }
    }

    /// Whether nothing more happens to it by itself.
    pub fn is_over(self) -> bool {
        matches!(self, JobState::Done | JobState::Failed | JobState::Stopped)
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The project whose primary does it.
    pub project: ProjectName,
    /// The name of the kind.
    pub kind: String,
    /// What it is about, for people.
    pub subject: String,
    /// The kind's own parameters. Only the kind reads them. In a job's record they are empty, and in
    /// a record of their own ([`LookForJobs::order`]), so that the queue can be looked through.
    #[serde(with = "serde_bytes")]
    pub order: Vec<u8>,
    /// Whether it goes before others.
    pub priority: Priority,
    /// How often it is tried before it has failed.
    pub tries: u32,
    /// Who asked for it, for people.
    pub asked_by: String,
}

impl Task {
    /// Checks its bounds. The error is a sentence for the caller.
    pub fn check(&self) -> Result<(), String> {
        if self.order.len() > MAX_ORDER {
            return Err(format!("a job's order may have {} KiB", MAX_ORDER >> 10));
        }
        let texts = [&self.kind, &self.subject, &self.asked_by];
        if self.kind.is_empty() || texts.iter().any(|text| text.chars().count() > MAX_TEXT) {
            return Err(format!(
                "a job has a kind, and its texts have up to {MAX_TEXT} characters"
            ));
        }
        if !(1..=MOST_RUNS).contains(&self.tries) {
            return Err(format!("a job is tried 1 to {MOST_RUNS} times"));
        }
        Ok(())
    }
}

/// A job's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub id: JobId,
    /// What is to be done.
    pub task: Task,
    /// The schedule that made it.
    pub schedule: Option<String>,
    /// When it was asked for.
    pub created: Timestamp,
    /// Before this it does not begin.
    pub not_before: Timestamp,
    /// How far it has come.
    pub state: JobState,
    /// How often it was begun. This is the number of its last run.
    pub runs: u32,
    /// How often it had been begun when somebody last asked for it.
    pub runs_before: u32,
    /// How often it failed since somebody last asked for it.
    pub failures: u32,
    /// The node that has, or had, the last run: it may have progress and a log.
    pub owner: Option<NodeId>,
    /// Whether somebody wants it to stop.
    pub stop: bool,
    /// When the last run began.
    pub began: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// A sentence about the last run's end, of at most [`MAX_RESULT`] characters.
    pub result: String,
}

impl Job {
    /// What its last run said at its end, if that is of this try: one that somebody asks for again
    /// begins without a result.
    pub fn current_result(&self) -> &str {
        if self.state.is_over() || self.failures > 0 { &self.result } else { "" }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunEnd {
    /// All is done.
    Done(String),
    /// Something went wrong; another try may help.
    Failed(String),
    /// Something is wrong that no other try mends.
    Hopeless(String),
    /// It was stopped.
    Stopped(String),
}

/// What makes jobs at times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its name within the project.
    pub name: String,
    /// What is to be done each time.
    pub task: Task,
    /// When.
    pub cron: Cron,
    /// Up to how many seconds later, see [`Schedule::following`].
    pub spread: u32,
    /// When it was made.
    pub created: Timestamp,
    /// The next time.
    pub next: Timestamp,
    /// The last job that it made.
    pub last: Option<JobId>,
}

impl Schedule {
    /// The first time after `now`. Each schedule is late by a part of `spread` that is always the
    /// same for its project and name: so those that say midnight do not all begin at once.
    pub fn following(&self, now: Timestamp) -> Timestamp {
        let seed = format!("{}\0{}", self.task.project, self.name);
        let late = match self.spread {
            0 => 0,
            spread => hash(seed.as_bytes()) % (u64::from(spread) + 1) * 1000,
        };
        let next = self.cron.next(Timestamp(now.0.saturating_sub(late)));
        Timestamp(next.map_or(u64::MAX, |next| next.0.saturating_add(late)))
    }

    /// Checks its bounds. The error is a sentence for the caller.
    pub fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(plain) {
            return Err(
                "a schedule's name has 1 to 64 letters, digits, dots, dashes and underscores"
                    .into(),
            );
        }
        if self.spread > 86_400 {
            return Err("a schedule is late by a day at most (spread: up to 86400 s)".into());
        }
        self.task.check()
    }
}

/// Whether a schedule is as it should be: at these times, or not there at all.
pub fn kept_as(known: Option<&Schedule>, wanted: Option<&Cron>) -> bool {
    known.map(|known| &known.cron) == wanted
}

fn hash(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    hash.as_bytes().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// How long a job waits after it failed so often: 5 s, then twice as long each time, up to ten
/// minutes; and up to a quarter longer, so that those that failed together do not all come again at
/// once.
pub fn backoff(id: JobId, failures: u32) -> Duration {
    let plain = (5_000u64 << failures.saturating_sub(1).min(16)).min(600_000);
    let seed = [id.0.to_be_bytes().as_slice(), &failures.to_be_bytes()].concat();
    Duration::from_millis(plain + hash(&seed) % (plain / 4))
}

/// How many jobs a project has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCounts {
    /// That wait or run.
    pub active: u32,
    /// That have ended.
    pub ended: u32,
}

/// A change of jobs or schedules. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobChange {
    /// Asks for a job.
    Ask {
        /// Its number.
        id: JobId,
        /// What is to be done.
        task: Task,
    },
    /// As the project's primary: begins the next run of a job.
    Claim {
        /// The project.
        project: ProjectName,
        /// The epoch of the primary.
        epoch: Epoch,
        /// The primary.
        node: NodeId,
        /// The job.
        id: JobId,
        /// The number of runs that the primary knows of. If there was another, nothing changes.
        runs: u32,
    },
    /// As the project's primary: records the end of a run.
    End {
        /// The project.
        project: ProjectName,
        /// The epoch of the primary.
        epoch: Epoch,
        /// The job.
        id: JobId,
        /// The run.
        run: u32,
        /// How it ended.
        end: RunEnd,
    },
    /// Stops a job: at once if it waits. A run is told by its owner.
    Stop {
        /// The job.
        id: JobId,
    },
    /// Begins a job anew that failed or was stopped.
    Retry {
        /// The job.
        id: JobId,
    },
    /// As the project's primary: forgets jobs that have ended, a limited number at a time.
    Sweep {
        /// The project.
        project: ProjectName,
        /// The epoch of the primary.
        epoch: Epoch,
        /// Those that ended before this.
        before: Timestamp,
        /// And all but this number of the newest.
        keep: u32,
    },
    /// Makes a schedule, or replaces the one of this name.
    Schedule(Box<Schedule>),
    /// Removes a schedule. Jobs that it made stay.
    Unschedule {
        /// The project.
        project: ProjectName,
        /// The schedule's name.
        name: String,
    },
    /// As the project's primary: makes the job for which the time has come, unless the last one is
    /// not over yet.
    Fire {
        /// The project.
        project: ProjectName,
        /// The epoch of the primary.
        epoch: Epoch,
        /// The schedule's name.
        name: String,
        /// The time that has come. If the schedule has another, nothing changes.
        was: Timestamp,
        /// The next time.
        next: Timestamp,
        /// The job's number.
        id: JobId,
    },
}

impl JobChange {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            JobChange::Ask { .. } => "ask_job",
            JobChange::Claim { .. } => "claim_job",
            JobChange::End { .. } => "end_job",
            JobChange::Stop { .. } => "stop_job",
            JobChange::Retry { .. } => "retry_job",
            JobChange::Sweep { .. } => "sweep_jobs",
            JobChange::Schedule(_) => "schedule",
            JobChange::Unschedule { .. } => "unschedule",
            JobChange::Fire { .. } => "fire_schedule",
        }
    }

    /// The project and the epoch, of what only its primary may do.
    pub fn fence(&self) -> Option<(ProjectName, Epoch)> {
        match self {
            JobChange::Claim { project, epoch, .. }
            | JobChange::End { project, epoch, .. }
            | JobChange::Sweep { project, epoch, .. }
            | JobChange::Fire { project, epoch, .. } => Some((project.clone(), *epoch)),
            JobChange::Ask { .. }
            | JobChange::Stop { .. }
            | JobChange::Retry { .. }
            | JobChange::Schedule(_)
            | JobChange::Unschedule { .. } => None,
        }
    }

    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        Level::JOBS
    }
}

/// Keys of jobs in the map.
pub mod key {
    use super::*;

    fn of(table: &[u8], project: ProjectId, rest: &[u8]) -> Vec<u8> {
        [table, &project.0.to_be_bytes(), rest].concat()
    }

    /// A job.
    pub fn job(project: ProjectId, id: JobId) -> Vec<u8> {
        of(b"j", project, &id.0.to_be_bytes())
    }
    /// All jobs of a project, in the order in which they were asked for.
    pub fn jobs_of(project: ProjectId) -> Vec<u8> {
        of(b"j", project, &[])
    }
    /// All jobs.
    pub fn jobs() -> Vec<u8> {
        b"j".to_vec()
    }
    /// The project of a job.
    pub fn place(id: JobId) -> Vec<u8> {
        [b"k".as_slice(), &id.0.to_be_bytes()].concat()
    }
    /// The order of a job.
    pub fn order(project: ProjectId, id: JobId) -> Vec<u8> {
        of(b"E", project, &id.0.to_be_bytes())
    }
    /// The projects of all jobs, in the order in which they were asked for.
    pub fn places() -> Vec<u8> {
        b"k".to_vec()
    }
    /// The job of a key of [`place`].
    pub fn job_of_place(key: &[u8]) -> Option<JobId> {
        key.get(1..)?.try_into().ok().map(|id| JobId(u64::from_be_bytes(id)))
    }
    /// That a job waits or runs.
    pub fn active(project: ProjectId, id: JobId) -> Vec<u8> {
        of(b"a", project, &id.0.to_be_bytes())
    }
    /// All jobs that wait or run.
    pub fn all_active() -> Vec<u8> {
        b"a".to_vec()
    }
    /// The project and the job of a key of [`active`].
    pub fn active_of(key: &[u8]) -> Option<(ProjectId, JobId)> {
        let number = |from: usize| -> Option<u64> {
            Some(u64::from_be_bytes(key.get(from..from + 8)?.try_into().ok()?))
        };
        Some((ProjectId(number(1)?), JobId(number(9)?)))
    }
    /// That a job has ended, and when.
    pub fn ended(project: ProjectId, at: Timestamp, id: JobId) -> Vec<u8> {
        of(b"f", project, &[at.0.to_be_bytes(), id.0.to_be_bytes()].concat())
    }
    /// All jobs of a project that have ended, the oldest first.
    pub fn ended_of(project: ProjectId) -> Vec<u8> {
        of(b"f", project, &[])
    }
    /// The time and the job of a key of [`ended`].
    pub fn ended_at(key: &[u8]) -> Option<(Timestamp, JobId)> {
        let number = |from: usize| -> Option<u64> {
            Some(u64::from_be_bytes(key.get(from..from + 8)?.try_into().ok()?))
        };
        Some((Timestamp(number(9)?), JobId(number(17)?)))
    }
    /// How many jobs a project has.
    pub fn counts(project: ProjectId) -> Vec<u8> {
        of(b"e", project, &[])
    }
    /// How many jobs each project has.
    pub fn all_counts() -> Vec<u8> {
        b"e".to_vec()
    }
    /// A schedule.
    pub fn schedule(project: ProjectId, name: &str) -> Vec<u8> {
        of(b"h", project, name.as_bytes())
    }
    /// All schedules of a project.
    pub fn schedules_of(project: ProjectId) -> Vec<u8> {
        of(b"h", project, &[])
    }
    /// All schedules.
    pub fn schedules() -> Vec<u8> {
        b"h".to_vec()
    }
}

/// Typed reading of jobs.
pub trait LookForJobs: Look {
    /// The job with this number.
    fn job(&self, id: JobId) -> Result<Option<Job>, RecordError> {
        match self.record::<ProjectId>(&key::place(id))? {
            Some(project) => self.record(&key::job(project, id)),
            None => Ok(None),
        }
    }
    /// The order of the job with this number.
    fn order(&self, id: JobId) -> Result<Vec<u8>, RecordError> {
        match self.record::<ProjectId>(&key::place(id))? {
            Some(project) => Ok(self.get(&key::order(project, id))?.unwrap_or_default()),
            None => Ok(Vec::new()),
        }
    }
    /// All jobs that wait or run.
    fn active_jobs(&self) -> Result<Vec<Job>, RecordError> {
        let mut jobs = Vec::new();
        for (place, _) in self.scan(&key::all_active(), None, usize::MAX)? {
            if let Some((project, id)) = key::active_of(&place) {
                jobs.extend(self.record::<Job>(&key::job(project, id))?);
            }
        }
        Ok(jobs)
    }
    /// A schedule of a project.
    fn schedule(&self, project: ProjectId, name: &str) -> Result<Option<Schedule>, RecordError> {
        self.record(&key::schedule(project, name))
    }
    /// All schedules.
    fn schedules(&self) -> Result<Vec<Schedule>, RecordError> {
        Ok(self.records(&key::schedules())?.into_iter().map(|(_, v)| v).collect())
    }
}

impl<R: Look + ?Sized> LookForJobs for R {}

/// A sentence of at most `most` characters, on one line.
pub fn bounded(text: &str, most: usize) -> String {
    let mut plain: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most + 1).collect();
    if plain.chars().count() > most {
        plain = plain.chars().take(most - 1).chain(['…']).collect();
    }
    plain
}
