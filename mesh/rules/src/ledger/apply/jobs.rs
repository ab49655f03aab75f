//! Jobs and schedules: asked for, claimed, ended, stopped, swept.

use super::EMPTIED_AT_ONCE;
use crate::ledger::command::Outcome;
use crate::ledger::jobs::{
    Job, JobChange, JobCounts, JobState, LookForJobs, MAX_RESULT, MOST_ACTIVE, MOST_ENDED,
    MOST_RUNS, MOST_SCHEDULES, RunEnd, Schedule, Task, backoff, bounded, key,
};
use crate::ledger::records::{Look, Project, RecordError, WriteRecords, encode};
use crate::words::moment::Timestamp;
use crate::words::names::{Epoch, JobId, NodeId, ProjectId, ProjectName};

/// Changes jobs. `project` is that of a change which only its primary may make; its epoch was
/// checked.
pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &JobChange,
    project: Option<&Project>,
) -> Result<Outcome, RecordError> {
    match (change, project) {
        (JobChange::Ask { id, task }, _) => ask(records, at, *id, task),
        (JobChange::Stop { id }, _) => stop(records, at, *id),
        (JobChange::Retry { id }, _) => retry(records, at, *id),
        (JobChange::Schedule(schedule), _) => make_schedule(records, at, schedule),
        (JobChange::Unschedule { project, name }, _) => unschedule(records, project, name),
        (JobChange::Claim { epoch, node, id, runs, .. }, Some(project)) => {
            claim(records, at, project.id, *epoch, *node, *id, *runs)
        }
        (JobChange::End { epoch, id, run, end, .. }, Some(project)) => {
            end_run(records, at, project.id, *epoch, *id, *run, end)
        }
        (JobChange::Sweep { before, keep, .. }, Some(project)) => {
            sweep(records, project.id, *before, *keep)
        }
        (JobChange::Fire { name, was, next, id, .. }, Some(project)) => {
            fire(records, at, project.id, name, *was, *next, *id)
        }
        (
            JobChange::Claim { .. }
            | JobChange::End { .. }
            | JobChange::Sweep { .. }
            | JobChange::Fire { .. },
            None,
        ) => Ok(Outcome::NotFound),
    }
}

fn refused(why: impl Into<String>) -> Result<Outcome, RecordError> {
    Ok(Outcome::Refused(why.into()))
}

fn put<R: WriteRecords>(records: &mut R, project: ProjectId, job: &Job) -> Result<(), RecordError> {
    records.put(&key::job(project, job.id), &encode(job)?)
}

fn counts<R: WriteRecords>(records: &R, project: ProjectId) -> Result<JobCounts, RecordError> {
    Ok(records.record(&key::counts(project))?.unwrap_or_default())
}

fn ask<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    id: JobId,
    task: &Task,
) -> Result<Outcome, RecordError> {
    if let Err(why) = task.check() {
        return refused(why);
    }
    let Some(project) = records.project(&task.project)? else { return Ok(Outcome::NotFound) };
    if records.get(&key::place(id))?.is_some() {
        return Ok(Outcome::Exists);
    }
    add(records, project.id, &waiting(id, task, None, at))
}

/// A job that was asked for just now.
fn waiting(id: JobId, task: &Task, schedule: Option<&str>, at: Timestamp) -> Job {
    Job {
        id,
        task: task.clone(),
        schedule: schedule.map(str::to_owned),
        created: at,
        not_before: at,
        state: JobState::Waiting,
        runs: 0,
        runs_before: 0,
        failures: 0,
        owner: None,
        stop: false,
        began: None,
        ended: None,
        result: String::new(),
    }
}

/// Adds a job that waits.
fn add<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    job: &Job,
) -> Result<Outcome, RecordError> {
    let counts = counts(records, project)?;
    if counts.active >= MOST_ACTIVE {
        return refused(format!(
            "project {} has {MOST_ACTIVE} jobs that are not over; wait for some, or stop them",
            job.task.project
        ));
    }
    let mut job = job.clone();
    let order = std::mem::take(&mut job.task.order);
    if !order.is_empty() {
        records.put(&key::order(project, job.id), &order)?;
    }
    put(records, project, &job)?;
    records.put(&key::place(job.id), &encode(&project)?)?;
    records.put(&key::active(project, job.id), &[])?;
    let counts = JobCounts { active: counts.active + 1, ..counts };
    records.put(&key::counts(project), &encode(&counts)?)?;
    Ok(Outcome::Done)
}

fn claim<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: ProjectId,
    epoch: Epoch,
    node: NodeId,
    id: JobId,
    runs: u32,
) -> Result<Outcome, RecordError> {
    let Some(mut job) = records.record::<Job>(&key::job(project, id))? else {
        return Ok(Outcome::NotFound);
    };
    if job.runs != runs || job.state.is_over() {
        return refused("the job has gone on meanwhile");
    }
    if job.stop {
        let why = "it was stopped when its node was gone";
        return end(records, project, job, JobState::Stopped, why, at);
    }
    if job.runs - job.runs_before >= MOST_RUNS {
        let why = format!("it was begun {MOST_RUNS} times and its node went away each time");
        return end(records, project, job, JobState::Failed, &why, at);
    }
    job.runs += 1;
    job.state = JobState::Running(epoch);
    job.owner = Some(node);
    job.began = Some(at);
    put(records, project, &job)?;
    Ok(Outcome::Done)
}

fn end_run<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: ProjectId,
    epoch: Epoch,
    id: JobId,
    run: u32,
    how: &RunEnd,
) -> Result<Outcome, RecordError> {
    let Some(mut job) = records.record::<Job>(&key::job(project, id))? else {
        return Ok(Outcome::NotFound);
    };
    if job.runs != run || job.state != JobState::Running(epoch) {
        return refused("this run of the job is not the last one");
    }
    match how {
        RunEnd::Done(result) => end(records, project, job, JobState::Done, result, at),
        RunEnd::Stopped(result) => end(records, project, job, JobState::Stopped, result, at),
        RunEnd::Failed(why) | RunEnd::Hopeless(why) => {
            job.failures += 1;
            let again = matches!(how, RunEnd::Failed(_)) && job.failures < job.task.tries;
            if job.stop {
                end(records, project, job, JobState::Stopped, why, at)
            } else if again {
                job.state = JobState::Waiting;
                job.not_before = at.after(backoff(id, job.failures));
                job.result = bounded(why, MAX_RESULT);
                put(records, project, &job)?;
                Ok(Outcome::Done)
            } else {
                end(records, project, job, JobState::Failed, why, at)
            }
        }
    }
}

/// Records that a job is over.
fn end<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    job: Job,
    state: JobState,
    result: &str,
    at: Timestamp,
) -> Result<Outcome, RecordError> {
    let job = Job { state, ended: Some(at), result: bounded(result, MAX_RESULT), ..job };
    put(records, project, &job)?;
    records.remove(&key::active(project, job.id))?;
    records.put(&key::ended(project, at, job.id), &[])?;
    let was = counts(records, project)?;
    let now = JobCounts { active: was.active.saturating_sub(1), ended: was.ended + 1 };
    records.put(&key::counts(project), &encode(&now)?)?;
    if now.ended > MOST_ENDED {
        forget_ended(records, project, Timestamp(0), MOST_ENDED, 1)?;
    }
    Ok(Outcome::Done)
}

/// Forgets up to `most` jobs that ended before `before`, or that are more than `keep`, the oldest
/// first. Returns whether none of those is left.
fn forget_ended<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    before: Timestamp,
    keep: u32,
    most: usize,
) -> Result<bool, RecordError> {
    let mut counts = counts(records, project)?;
    let oldest = records.scan(&key::ended_of(project), None, most + 1)?;
    let mut forgotten = 0;
    for (place, _) in &oldest {
        let Some((ended, id)) = key::ended_at(place) else {
            return Err(RecordError("the key of an ended job cannot be read".into()));
        };
        if ended >= before && counts.ended <= keep {
            break;
        }
        if forgotten == most {
            records.put(&key::counts(project), &encode(&counts)?)?;
            return Ok(false);
        }
        records.remove(place)?;
        records.remove(&key::job(project, id))?;
        records.remove(&key::order(project, id))?;
        records.remove(&key::place(id))?;
        counts.ended = counts.ended.saturating_sub(1);
        forgotten += 1;
    }
    if forgotten > 0 {
        records.put(&key::counts(project), &encode(&counts)?)?;
    }
    Ok(true)
}

fn sweep<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    before: Timestamp,
    keep: u32,
) -> Result<Outcome, RecordError> {
    let all = forget_ended(records, project, before, keep, EMPTIED_AT_ONCE)?;
    Ok(if all { Outcome::Done } else { Outcome::Unfinished })
}

fn stop<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    id: JobId,
) -> Result<Outcome, RecordError> {
    let Some(project) = records.record::<ProjectId>(&key::place(id))? else {
        return Ok(Outcome::NotFound);
    };
    let Some(mut job) = records.record::<Job>(&key::job(project, id))? else {
        return Ok(Outcome::NotFound);
    };
    match job.state {
        JobState::Waiting => {
            end(records, project, job, JobState::Stopped, "it was stopped before it began", at)
        }
        JobState::Running(_) => {
            job.stop = true;
            put(records, project, &job)?;
            Ok(Outcome::Done)
        }
        // to stop it twice is no mistake
        JobState::Stopped => Ok(Outcome::Done),
        JobState::Done | JobState::Failed => {
            refused(format!("job {id} is over already ({})", job.state.word()))
        }
    }
}

fn retry<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    id: JobId,
) -> Result<Outcome, RecordError> {
    let Some(project) = records.record::<ProjectId>(&key::place(id))? else {
        return Ok(Outcome::NotFound);
    };
    let Some(job) = records.record::<Job>(&key::job(project, id))? else {
        return Ok(Outcome::NotFound);
    };
    let (Some(ended), JobState::Failed | JobState::Stopped) = (job.ended, job.state) else {
        return refused(format!(
            "job {id} is {}; only one that failed or was stopped can be retried",
            job.state.word()
        ));
    };
    let was = counts(records, project)?;
    let again = Job {
        state: JobState::Waiting,
        not_before: at,
        runs_before: job.runs,
        failures: 0,
        stop: false,
        ended: None,
        ..job
    };
    let outcome = add(records, project, &again)?;
    if outcome == Outcome::Done {
        records.remove(&key::ended(project, ended, id))?;
        let counts = JobCounts { active: was.active + 1, ended: was.ended.saturating_sub(1) };
        records.put(&key::counts(project), &encode(&counts)?)?;
    }
    Ok(outcome)
}

fn make_schedule<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    schedule: &Schedule,
) -> Result<Outcome, RecordError> {
    if let Err(why) = schedule.check() {
        return refused(why);
    }
    let Some(project) = records.project(&schedule.task.project)? else {
        return Ok(Outcome::NotFound);
    };
    let place = key::schedule(project.id, &schedule.name);
    let there = records.record::<Schedule>(&place)?;
    let many = records.scan(&key::schedules_of(project.id), None, MOST_SCHEDULES)?.len();
    if there.is_none() && many >= MOST_SCHEDULES {
        return refused(format!(
            "project {} has {MOST_SCHEDULES} schedules already; remove one first",
            project.name
        ));
    }
    let last = there.and_then(|there| there.last);
    let schedule = Schedule { created: at, last, ..schedule.clone() };
    records.put(&place, &encode(&schedule)?)?;
    Ok(Outcome::Done)
}

fn unschedule<R: WriteRecords>(
    records: &mut R,
    project: &ProjectName,
    name: &str,
) -> Result<Outcome, RecordError> {
    let Some(project) = records.project(project)? else { return Ok(Outcome::NotFound) };
    let place = key::schedule(project.id, name);
    if records.get(&place)?.is_none() {
        return Ok(Outcome::NotFound);
    }
    records.remove(&place)?;
    Ok(Outcome::Done)
}

fn fire<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: ProjectId,
    name: &str,
    was: Timestamp,
    next: Timestamp,
    id: JobId,
) -> Result<Outcome, RecordError> {
    let place = key::schedule(project, name);
    let Some(mut schedule) = records.record::<Schedule>(&place)? else {
        return Ok(Outcome::NotFound);
    };
    if schedule.next != was {
        return refused("the schedule has gone on meanwhile");
    }
    if records.get(&key::place(id))?.is_some() {
        return Ok(Outcome::Exists);
    }
    schedule.next = next;
    let busy = match schedule.last {
        Some(last) => records.job(last)?.is_some_and(|job| !job.state.is_over()),
        None => false,
    };
    if !busy {
        let job = waiting(id, &schedule.task, Some(name), at);
        // a project with too many jobs misses this time, and the schedule goes on
        if add(records, project, &job)? == Outcome::Done {
            schedule.last = Some(id);
        }
    }
    records.put(&place, &encode(&schedule)?)?;
    Ok(Outcome::Done)
}

/// A project is deleted: removes up to `most` records of its jobs and schedules. Returns whether
/// there may be more.
pub(super) fn leave_project<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    most: usize,
) -> Result<bool, RecordError> {
    let jobs = records.scan(&key::jobs_of(project), None, most)?;
    for (place, value) in &jobs {
        let job: Job = crate::ledger::records::decode(value)?;
        records.remove(place)?;
        records.remove(&key::order(project, job.id))?;
        records.remove(&key::place(job.id))?;
        records.remove(&key::active(project, job.id))?;
        if let Some(ended) = job.ended {
            records.remove(&key::ended(project, ended, job.id))?;
        }
    }
    if jobs.len() == most {
        return Ok(true);
    }
    for (place, _) in records.scan(&key::schedules_of(project), None, MOST_SCHEDULES)? {
        records.remove(&place)?;
    }
    records.remove(&key::counts(project))?;
    Ok(false)
}

#[cfg(test)]
mod tests;
