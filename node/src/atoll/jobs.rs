//! `/api/atoll/v1/jobs` and `/api/atoll/v1/schedules`: background work of the whole mesh, through
//! any replica.

use ground::clock;
use http::{Response, StatusCode};
use registry::jobs::repairs::{self, Repairs};
use registry::writes::Refusal;
use rules::ledger::events::Actor;
use rules::ledger::jobs::cron::{self, Cron};
use rules::ledger::jobs::{Job, JobState, LookForJobs, Schedule, Task, key};
use rules::ledger::records::{Look, ReadRecords, RecordError, decode};
use rules::words::moment::Timestamp;
use rules::words::names::{JobId, ProjectId, ProjectName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Atoll;
use crate::http::answer::{json_answer, mark, page_links, set};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The default and the maximum number of jobs on a page.
const PAGE: usize = 50;
const LARGEST: usize = 100;
/// The number of jobs that are read at a time for a page.
const PIECE: usize = 200;

/// A schedule, as the API takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleBody {
    name: String,
    /// Harbor's: Hourly, Daily, Weekly, Custom.
    #[serde(rename = "type", default = "custom")]
    kind: String,
    #[serde(default)]
    cron: String,
    #[serde(default)]
    spread: u32,
}

fn custom() -> String {
    "Custom".into()
}

/// The maximum size of a request's body in bytes.
const BODY: u64 = 4 << 10;

/// A job that somebody asks for. A preheat is asked for at a path of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobBody {
    kind: String,
    project: String,
}

/// Which jobs are listed.
struct Wanted<'a> {
    project: Option<&'a str>,
    kind: Option<&'a str>,
    state: Option<&'a str>,
}

impl Wanted<'_> {
    fn admits(&self, job: &Job) -> bool {
        let is = |wanted: Option<&str>, has: &str| wanted.is_none_or(|wanted| wanted == has);
        is(self.project, job.task.project.as_str())
            && is(self.kind, &job.task.kind)
            && is(self.state, job.state.word())
    }
}

impl Atoll {
    /// The newest jobs first, in pages.
    pub(super) async fn list_jobs(&self, request: &Request) -> Result<Response<Payload>, Failure> {
        let number = |name: &str, otherwise: usize, most: usize| {
            let Some(text) = request.query(name) else { return Ok(otherwise) };
            text.parse().ok().filter(|n| (1..=most).contains(n)).ok_or_else(|| {
                Failure::new(Code::BadRequest, format!("{name} is a number from 1 to {most}"))
            })
        };
        let (page, size) = (number("page", 1, 1_000_000)?, number("page_size", PAGE, LARGEST)?);
        let wanted = Wanted {
            project: request.query("project"),
            kind: request.query("kind"),
            state: request.query("state"),
        };
        if let Some(state) = wanted.state
            && !["waiting", "running", "done", "failed", "stopped"].contains(&state)
        {
            let message = "state is waiting, running, done, failed or stopped";
            return Err(Failure::new(Code::BadRequest, message));
        }
        let skip = (page - 1).saturating_mul(size);
        let ((jobs, total), freshness) = self
            .door
            .read_at_length(|records| {
                let mut all = newest(records, |job| wanted.admits(job))?;
                let total = all.len();
                let page = all.drain(..).skip(skip).take(size).collect::<Vec<_>>();
                Ok((page, total))
            })
            .await?;
        let shown: Vec<Value> = jobs.iter().map(|job| self.show(job)).collect();
        let mut response = json_answer(StatusCode::OK, &Value::from(shown));
        set(&mut response, "x-total-count", total.to_string());
        let uri = &request.head.uri;
        let links = page_links(uri.path(), uri.query().unwrap_or_default(), page, size, total);
        if !links.is_empty() {
            set(&mut response, "link", links);
        }
        mark(&mut response, freshness);
        Ok(response)
    }

    /// Asks for a repair: the one kind of jobs that needs nothing but its project.
    pub(super) async fn create_job(
        &self,
        mut request: Request,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let bytes = request.body.whole(BODY).await?;
        let JobBody { kind, project } = serde_json::from_slice(&bytes)
            .map_err(|e| Failure::new(Code::BadRequest, format!("the body: {e}")))?;
        if kind != repairs::KIND {
            let message = format!("kind is {}; preheats have a path of their own", repairs::KIND);
            return Err(Failure::new(Code::BadRequest, message));
        }
        let named = project.parse::<ProjectName>().ok();
        let found = self.door.read(|records| match &named {
            Some(name) => records.project(name),
            None => Ok(None),
        });
        let Some(project) = found.await?.0 else {
            let message = format!("there is no project {project:?}");
            return Err(Failure::new(Code::NameUnknown, message));
        };
        if project.upstream.is_some() {
            let message = format!(
                "project {} caches a registry, whose content needs no copies here",
                project.name
            );
            return Err(Failure::new(Code::BadRequest, message));
        }
        let asked = |job: &Job| job.task.kind == repairs::KIND && job.task.project == project.name;
        let active = self.door.read_at_length(|records| records.active_jobs()).await?.0;
        let waiting = active.iter().find(|job| asked(job) && job.state == JobState::Waiting);
        let now = match waiting {
            // one that has not begun will see all that there is now
            Some(job) if job.not_before <= clock::timestamp() => Some(job.id),
            Some(job) => self.hasten(job.id, by).await?,
            None => None,
        };
        let id = match now {
            Some(id) => id,
            None => self.jobs.ask(Repairs::task(&project.name, &by.name), by).await?,
        };
        let shown = json!({"id": id.to_string(), "project": project.name.as_str()});
        let mut response = json_answer(StatusCode::ACCEPTED, &shown);
        set(&mut response, "location", format!("/api/atoll/v1/jobs/{id}"));
        Ok(response)
    }

    /// Has a job begin now that waits for its next try; `None` if it has gone on meanwhile.
    async fn hasten(&self, id: JobId, by: &Actor) -> Result<Option<JobId>, Failure> {
        // what was stopped begins anew at once
        let stopped = self.jobs.stop(id, by).await;
        let again = match stopped {
            Ok(()) => self.jobs.retry(id, by).await,
            Err(refusal) => Err(refusal),
        };
        match again {
            Ok(()) => Ok(Some(id)),
            Err(Refusal::Conflict(_) | Refusal::NotFound) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// A job, with what its owner says of its progress.
    pub(super) async fn show_job(&self, id: JobId) -> Result<Response<Payload>, Failure> {
        let job = self.job(id).await?;
        let mut shown = self.show(&job);
        let report = self.jobs.report(&job).await.unwrap_or_default();
        shown["progress"] = serde_json::from_str(&report.progress).unwrap_or(Value::Null);
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// The log of a job's last run, which is its owner's.
    pub(super) async fn show_log(&self, id: JobId) -> Result<Response<Payload>, Failure> {
        let job = self.job(id).await?;
        let Some(report) = self.jobs.report(&job).await else {
            let owner = job.owner.map(|owner| self.neighbours.name_of(owner));
            let message = match owner {
                Some(owner) => format!(
                    "the log of job {id} is in the memory of node {owner}, which does not answer or was restarted since"
                ),
                None => format!("job {id} has not begun, so it has no log"),
            };
            return Err(Failure::new(Code::NameUnknown, message));
        };
        let lines =
            report.log.iter().map(|(at, line)| json!({"time": at.to_string(), "line": line}));
        Ok(json_answer(StatusCode::OK, &lines.collect()))
    }

    /// Stops a job.
    pub(super) async fn stop_job(
        &self,
        id: JobId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        self.jobs.stop(id, by).await?;
        let job = self.job(id).await?;
        Ok(json_answer(StatusCode::ACCEPTED, &self.show(&job)))
    }

    /// Begins a job anew.
    pub(super) async fn retry_job(
        &self,
        id: JobId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        self.jobs.retry(id, by).await?;
        let job = self.job(id).await?;
        Ok(json_answer(StatusCode::ACCEPTED, &self.show(&job)))
    }

    /// All schedules.
    pub(super) async fn list_schedules(&self) -> Result<Response<Payload>, Failure> {
        let (schedules, freshness) = self.door.read(|records| records.schedules()).await?;
        let shown = schedules.iter().map(|schedule| {
            json!({
                "project": schedule.task.project.as_str(),
                "name": schedule.name,
                "kind": schedule.task.kind,
                "subject": schedule.task.subject,
                "cron": schedule.cron.to_string(),
                "spread": schedule.spread,
                "creation_time": schedule.created.to_string(),
                "next_time": schedule.next.to_string(),
                "last_job": schedule.last.map(|id| id.to_string()),
                "asked_by": schedule.task.asked_by,
            })
        });
        let mut response = json_answer(StatusCode::OK, &shown.collect());
        mark(&mut response, freshness);
        Ok(response)
    }

    /// Makes a schedule for a task.
    pub(super) async fn make_schedule(
        &self,
        body: ScheduleBody,
        task: Task,
        by: &Actor,
    ) -> Result<Schedule, Failure> {
        let bad = |error: cron::BadCron| Failure::new(Code::BadRequest, error.to_string());
        let cron: Option<Cron> = cron::harbor(&body.kind, &body.cron).map_err(bad)?;
        let cron = cron.ok_or_else(|| {
            Failure::new(Code::BadRequest, "a schedule of type None is none; leave it out")
        })?;
        let schedule = Schedule {
            name: body.name,
            task,
            cron,
            spread: body.spread,
            created: Timestamp(0),
            next: Timestamp(0),
            last: None,
        };
        schedule.check().map_err(|why| Failure::new(Code::BadRequest, why))?;
        self.jobs.schedule(schedule.clone(), by).await?;
        Ok(schedule)
    }

    /// The job with this number.
    pub(super) async fn job(&self, id: JobId) -> Result<Job, Failure> {
        let (job, freshness) = self.door.read(|records| records.job(id)).await?;
        job.ok_or_else(|| {
            let message = format!("there is no job {id}; old ones are forgotten (jobs.keep_for)");
            Failure::new(Code::NameUnknown, message).if_known(freshness)
        })
    }

    fn show(&self, job: &Job) -> Value {
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        json!({
            "id": job.id.to_string(),
            "project": job.task.project.as_str(),
            "kind": job.task.kind,
            "subject": job.task.subject,
            "state": job.state.word(),
            "stopping": job.stop && !job.state.is_over(),
            "priority": job.task.priority.word(),
            "runs": job.runs,
            "failures": job.failures,
            "tries": job.task.tries,
            "owner": job.owner.map(|owner| self.neighbours.name_of(owner)),
            "schedule": job.schedule,
            "asked_by": job.task.asked_by,
            "creation_time": job.created.to_string(),
            "not_before": job.not_before.to_string(),
            "start_time": time(job.began),
            "end_time": time(job.ended),
            "result": job.current_result(),
        })
    }
}

/// The jobs that are wanted, the newest first.
pub(super) fn newest(
    records: &dyn ReadRecords,
    wanted: impl Fn(&Job) -> bool,
) -> Result<Vec<Job>, RecordError> {
    let (mut found, mut after) = (Vec::new(), None::<Vec<u8>>);
    loop {
        let piece = records.scan(&key::places(), after.as_deref(), PIECE)?;
        for (place, project) in &piece {
            let Some(id) = key::job_of_place(place) else { continue };
            let project: ProjectId = decode(project)?;
            found.extend(records.record::<Job>(&key::job(project, id))?.filter(|job| wanted(job)));
        }
        match piece.into_iter().nth(PIECE - 1) {
            Some((last, _)) => after = Some(last),
            None => break,
        }
    }
    found.reverse();
    Ok(found)
}
