//! `/api/atoll/v1/preheats`: preheats, which are jobs of the mesh. Below the level of jobs they are
//! this node's own.

use http::{Response, StatusCode};
use registry::jobs::preheats::{Item, KIND, Order, Preheat, Progress, State};
use rules::ledger::events::Actor;
use rules::ledger::jobs::{Job, JobState, LookForJobs};
use rules::words::names::JobId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Atoll;
use super::jobs::{ScheduleBody, newest};
use crate::http::answer::{json_answer, set};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The maximum size of a request's body in bytes.
const BODY: u64 = 64 << 10;
/// The maximum number of preheats that are listed.
const LISTED: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreheatBody {
    images: Vec<String>,
    regions: Vec<String>,
    #[serde(default)]
    platforms: Vec<String>,
    schedule: Option<ScheduleBody>,
}

impl Atoll {
    pub(super) async fn create_preheat(
        &self,
        mut request: Request,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let bytes = request.body.whole(BODY).await?;
        let PreheatBody { images, regions, platforms, schedule } =
            serde_json::from_slice(&bytes)
                .map_err(|e| Failure::new(Code::BadRequest, format!("the body: {e}")))?;
        let order = self.preheats.order(&images, &regions, platforms)?;
        let id = match (self.jobs.are_used()?, schedule) {
            (_, Some(schedule)) => {
                let task = order.task(&by.name)?;
                let made = self.make_schedule(schedule, task, by).await?;
                let shown = json!({
                    "project": made.task.project.as_str(),
                    "schedule": made.name,
                    "cron": made.cron.to_string(),
                });
                return Ok(json_answer(StatusCode::CREATED, &shown));
            }
            (true, None) => self.jobs.ask(order.task(&by.name)?, by).await?.0,
            (false, None) => self.preheats.take(&order)?,
        };
        let mut response = json_answer(StatusCode::ACCEPTED, &json!({"id": written(id)}));
        set(&mut response, "location", format!("/api/atoll/v1/preheats/{}", written(id)));
        Ok(response)
    }

    pub(super) async fn show_preheat(&self, id: u64) -> Result<Response<Payload>, Failure> {
        if let Some(found) = self.preheats.look(id) {
            return Ok(json_answer(StatusCode::OK, &show(&found)));
        }
        let job = self.preheat_job(id).await?;
        Ok(json_answer(StatusCode::OK, &self.show_preheat_job(&job).await?))
    }

    pub(super) async fn stop_preheat(
        &self,
        id: u64,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        if let Some(stopped) = self.preheats.stop(id) {
            return Ok(json_answer(StatusCode::ACCEPTED, &show(&stopped)));
        }
        // to stop what is over changes nothing, as it was before preheats were jobs
        if !self.preheat_job(id).await?.state.is_over() {
            self.jobs.stop(JobId(id), by).await?;
        }
        let job = self.preheat_job(id).await?;
        Ok(json_answer(StatusCode::ACCEPTED, &self.show_preheat_job(&job).await?))
    }

    pub(super) async fn list_preheats(&self) -> Result<Response<Payload>, Failure> {
        let mut shown: Vec<Value> = self.preheats.list().iter().map(show).collect();
        let (jobs, _) =
            self.door.read(|records| newest(records, |job| job.task.kind == KIND)).await?;
        for job in jobs.iter().take(LISTED).rev() {
            // their owners are not asked one by one for how far they are
            shown.push(self.preheat_without(job).await?);
        }
        Ok(json_answer(StatusCode::OK, &Value::from(shown)))
    }

    async fn preheat_job(&self, id: u64) -> Result<Job, Failure> {
        let job = self.door.read(|records| records.job(JobId(id))).await?.0;
        job.filter(|job| job.task.kind == KIND).ok_or_else(|| {
            let message = "there is no such preheat; old ones are forgotten (jobs.keep_for)";
            Failure::new(Code::NameUnknown, message)
        })
    }

    /// A preheat with its progress, as its owner tells it.
    async fn show_preheat_job(&self, job: &Job) -> Result<Value, Failure> {
        let mut shown = self.preheat_without(job).await?;
        let report = self.jobs.report(job).await.unwrap_or_default();
        if let Ok(Value::Array(images)) = serde_json::from_str(&report.progress) {
            shown["images"] = Value::Array(images);
        }
        Ok(shown)
    }

    /// A preheat as the ledger has it: each part is as far as the whole.
    async fn preheat_without(&self, job: &Job) -> Result<Value, Failure> {
        let order = self.door.read(|records| records.order(job.id)).await?.0;
        let order = Order::of(&order).map_err(|e| Failure::new(Code::Internal, e))?;
        let state = match job.state {
            JobState::Waiting => State::Waiting,
            JobState::Running(_) => State::Fetching,
            JobState::Done => State::Done,
            JobState::Failed => State::Failed,
            JobState::Stopped => State::Stopped,
        };
        let images: Vec<Value> = order.items(state).iter().map(|item| unknown(item, job)).collect();
        Ok(json!({
            "id": job.id.to_string(),
            "creation_time": job.created.to_string(),
            "state": state.word(),
            "project": job.task.project.as_str(),
            "result": job.current_result(),
            "platforms": order.platforms,
            "images": images,
        }))
    }
}

/// An image whose progress nobody tells: there are no numbers.
fn unknown(item: &Item, job: &Job) -> Value {
    let mut shown = item.show();
    let regions = item.regions.iter().map(|region: &Progress| {
        let errors: Vec<&str> = match job.state {
            JobState::Failed => vec![&job.result],
            _ => Vec::new(),
        };
        json!({
            "region": region.region.as_str(),
            "state": region.state.word(),
            "blobs": {"wanted": null, "held": null},
            "bytes": {"wanted": null, "held": null},
            "errors": errors,
        })
    });
    shown["regions"] = regions.collect();
    shown
}

fn written(id: u64) -> String {
    JobId(id).to_string()
}

fn show(preheat: &Preheat) -> Value {
    json!({
        "id": written(preheat.id),
        "creation_time": preheat.taken.to_string(),
        "state": preheat.state().word(),
        "platforms": preheat.platforms,
        "images": preheat.items.iter().map(Item::show).collect::<Vec<_>>(),
    })
}
