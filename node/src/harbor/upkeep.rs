//! Collections and purges of the audit log in Harbor's API (`handler/gc.go`, `handler/purge.go`): a
//! schedule for each, runs, what they did, and how they are stopped.
//!
//! Here garbage is always collected, so the schedule of collections is kept and shown, and decides
//! nothing. The log is purged by its schedule, beside what `audit.keep_for` and `audit.keep` forget.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::{Method, Response, StatusCode};
use registry::blobs::collecting::{Collecting, NotCollected};
use registry::events::purging::{self, NotPurged};
use registry::view::neighbours::Neighbours;
use registry::view::runs::UnderWay;
use registry::view::upkeep;
use rules::ledger::events::{Actor, PurgeOrder};
use rules::ledger::level::Level;
use rules::ledger::upkeep::{LookForUpkeep, RunningUpkeep, UpkeepEnd, UpkeepKind, UpkeepRun};
use rules::people::configurations::Configured;
use rules::policies::quota::bytes;
use rules::words::query::{self, Field, Kind, number, text};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::lists::PageRequest;
use super::schedules::{self, Times, Wants};
use super::{Harbor, bad, body, created};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::upkeep::Upkeep;
use crate::http::{Code, Failure, Payload};

/// How long an answer waits for the end of what was begun. Most runs end at once, and then the answer can
/// say why one has failed; Harbor's clients look at the others until they are over.
const SHORT: Duration = Duration::from_secs(2);

/// The setting that says when garbage is collected elsewhere.
const GC_SCHEDULE: &str = "gc_schedule";

#[derive(Deserialize)]
struct Written {
    schedule: Times,
    #[serde(default)]
    parameters: Option<Parameters>,
}

/// What Harbor's clients send of both; the rest has no effect here.
#[derive(Deserialize, Default)]
struct Parameters {
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(default)]
    delete_untagged: Option<bool>,
    #[serde(default)]
    workers: Option<i64>,
    #[serde(default)]
    audit_retention_hour: Option<i64>,
    #[serde(default)]
    include_operations: Option<String>,
    #[serde(default)]
    include_event_types: Option<String>,
}

/// A run as it is shown: one that has ended, or is under way at some replica.
struct ShownRun {
    run: UpkeepRun,
    under_way: bool,
}

impl ShownRun {
    fn ended(run: UpkeepRun) -> Self {
        ShownRun { run, under_way: false }
    }

    fn running(running: RunningUpkeep) -> Self {
        let RunningUpkeep { kind, scheduled, parameters, began, stopped } = running;
        let said = if stopped { "it is told to stop" } else { "it is under way" };
        let (failed, log) = (None, said.to_owned());
        let run = UpkeepRun { kind, scheduled, parameters, began, ended: began, failed, log };
        ShownRun { run, under_way: true }
    }

    /// Harbor's word.
    fn status(&self) -> &'static str {
        match self.run.end() {
            _ if self.under_way => "Running",
            UpkeepEnd::Done => "Success",
            UpkeepEnd::Failed => "Error",
            UpkeepEnd::Stopped => "Stopped",
        }
    }

    fn trigger(&self) -> &'static str {
        if self.run.scheduled { "SCHEDULE" } else { "MANUAL" }
    }
}

/// What `q` and `sort` may be about.
const FIELDS: &[Field<ShownRun>] = &[
    Field::new("id", Kind::Number, |one| number(one.run.began.0)),
    Field::new("job_kind", Kind::Text, |one| text(one.trigger())),
    Field::new("job_status", Kind::Text, |one| text(one.status())),
    Field::new("creation_time", Kind::Time, |one| query::Value::Time(one.run.began)),
    Field::new("update_time", Kind::Time, |one| query::Value::Time(one.run.ended)),
];

fn job_name(kind: UpkeepKind) -> &'static str {
    match kind {
        UpkeepKind::Collection => "GARBAGE_COLLECTION",
        UpkeepKind::Purge => "PURGE_AUDIT_LOG",
    }
}

/// `GCHistory` and `ExecHistory` of Harbor.
fn show(one: &ShownRun) -> Value {
    let run = &one.run;
    json!({
        "id": run.began.0,
        "job_name": job_name(run.kind),
        "job_kind": one.trigger(),
        "job_parameters": run.parameters,
        "job_status": one.status(),
        "schedule": {"type": if run.scheduled { "Schedule" } else { "Manual" }},
        "deleted": false,
        "creation_time": run.began.to_string(),
        "update_time": run.ended.to_string(),
    })
}

fn hours(parameters: &Parameters) -> Result<u64, Failure> {
    let hours = parameters.audit_retention_hour;
    let hours = hours.ok_or_else(|| bad("parameters.audit_retention_hour should provide"))?;
    let fits = (1..=240_000).contains(&hours);
    let refused = || bad("parameters.audit_retention_hour is a number from 1 to 240000");
    fits.then_some(hours.unsigned_abs()).ok_or_else(refused)
}

fn words(name: &str, text: Option<&str>) -> Result<BTreeSet<String>, Failure> {
    let words = text.unwrap_or_default().split(',').map(str::trim);
    let words: BTreeSet<String> =
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let plain = |word: &String| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    match words.iter().find(|word| !plain(word)) {
        Some(word) => Err(bad(format!("parameters.{name}: '{word}' is no word"))),
        None => Ok(words),
    }
}

impl Parameters {
    /// What a purge is to forget.
    fn purge(&self) -> Result<PurgeOrder, Failure> {
        if self.include_operations.is_none() {
            return Err(bad("parameters.include_operations should provide"));
        }
        Ok(PurgeOrder {
            hours: hours(self)?,
            operations: words("include_operations", self.include_operations.as_deref())?,
            event_types: words("include_event_types", self.include_event_types.as_deref())?,
            dry_run: self.dry_run == Some(true),
        })
    }

    /// How many workers a client wants for collections: kept, and without effect.
    fn workers(&self) -> Result<u64, Failure> {
        if self.delete_untagged == Some(true) {
            return Err(bad(
                "parameters.delete_untagged: what has no tag is deleted by a retention policy here (atoll retention apply), not by the collection",
            ));
        }
        let workers = self.workers.unwrap_or(1);
        let fits = (1..=10).contains(&workers);
        let refused = || bad("parameters.workers is a number from 1 to 10");
        fits.then_some(workers.unsigned_abs()).ok_or_else(refused)
    }
}

impl Harbor {
    pub(super) async fn answer_about_upkeep(
        &self,
        request: Request,
        upkeep: Upkeep,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        match (&request.method, upkeep) {
            (&Method::POST | &Method::PUT, Upkeep::Schedule(kind)) => {
                self.set_upkeep(request, kind, by).await
            }
            (_, Upkeep::Schedule(kind)) => self.show_upkeep(kind).await,
            (_, Upkeep::Runs(kind)) => {
                let wanted = PageRequest::read(&request)?;
                let running = upkeep::running(&self.neighbours, kind).await;
                let mut runs: Vec<ShownRun> = running.into_iter().map(ShownRun::running).collect();
                let ended = self.read_at_length(|records| records.upkeep_runs(kind)).await?;
                // one may have ended between the two looks
                runs.retain(|one| ended.iter().all(|run| run.began != one.run.began));
                runs.extend(ended.into_iter().map(ShownRun::ended));
                runs.sort_by_key(|one| Reverse(one.run.began));
                wanted.answer_chosen(runs, FIELDS, |_| "", show)
            }
            (&Method::PUT, Upkeep::Run(kind, id)) => self.stop_upkeep(request, kind, id, by).await,
            (_, Upkeep::Run(kind, id)) => {
                Ok(json_answer(StatusCode::OK, &show(&self.upkeep_run(kind, id).await?)))
            }
            (_, Upkeep::Log(kind, id)) => {
                let UpkeepRun { ended, failed, log, .. } = self.upkeep_run(kind, id).await?.run;
                let said = match (failed, log) {
                    (Some(why), done) if !done.is_empty() => format!("{why}; {done}"),
                    (Some(why), _) => why,
                    (None, done) => done,
                };
                let mut response = Response::new(Payload::full(format!("{ended} {said}\n")));
                let kind = http::HeaderValue::from_static("text/plain");
                response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
                Ok(response)
            }
        }
    }

    async fn upkeep_run(&self, kind: UpkeepKind, id: u64) -> Result<ShownRun, Failure> {
        let ended = || self.read(|records| records.upkeep_run(kind, id));
        if let Some(run) = ended().await? {
            return Ok(ShownRun::ended(run));
        }
        let running = upkeep::running(&self.neighbours, kind).await;
        if let Some(one) = running.into_iter().find(|one| one.began.0 == id) {
            return Ok(ShownRun::running(one));
        }
        // it may have ended between the two looks
        let run = ended().await?.map(ShownRun::ended);
        run.ok_or_else(|| Failure::new(Code::NotFound, format!("there is no run {id}")))
    }

    /// Stops a run. As in Harbor (`pkg/task/execution.go`) one that has ended is no error.
    async fn stop_upkeep(
        &self,
        mut request: Request,
        kind: UpkeepKind,
        id: u64,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        #[derive(Deserialize)]
        struct Wanted {
            status: String,
        }
        let bytes = request.body.whole(super::BODY).await?;
        if !bytes.is_empty() {
            let wanted: Wanted =
                serde_json::from_slice(&bytes).map_err(|e| bad(format!("the body: {e}")))?;
            if !wanted.status.eq_ignore_ascii_case("stopped") {
                return Err(bad("status is Stopped, or there is no body"));
            }
        }
        if !upkeep::stop(&self.neighbours, kind, id, &by.name).await {
            let run = self.upkeep_run(kind, id).await?;
            if run.under_way {
                // it began at a replica that did not answer in time
                let message = format!("run {id} could not be stopped now; try again");
                return Err(Failure::new(Code::Unavailable, message));
            }
        }
        Ok(answer(StatusCode::OK))
    }

    async fn show_upkeep(&self, kind: UpkeepKind) -> Result<Response<Payload>, Failure> {
        let settings = self.settings().await?;
        let (schedule, parameters) = match kind {
            UpkeepKind::Collection => (GC_SCHEDULE, gc_parameters(&settings)),
            UpkeepKind::Purge => (purging::SCHEDULE, settings.purge_parameters()),
        };
        let shown = match schedules::show(settings.text(schedule)) {
            Value::Null => json!({"schedule": null, "job_parameters": parameters}),
            schedule => json!({
                "id": 1,
                "job_name": job_name(kind),
                "job_kind": schedule["cron"],
                "job_parameters": parameters,
                "job_status": "Pending",
                "deleted": false,
                "schedule": schedule,
            }),
        };
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Sets when it runs, or runs now.
    async fn set_upkeep(
        &self,
        mut request: Request,
        kind: UpkeepKind,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let creates = request.method == Method::POST;
        let written: Written = body(&mut request).await?;
        let parameters = written.parameters.unwrap_or_default();
        let wants = written.schedule.wants()?;
        if wants == Wants::Now {
            let id = match kind {
                UpkeepKind::Collection => self.collect_now(&parameters, by).await?,
                UpkeepKind::Purge => self.purge_now(&parameters, by).await?,
            };
            if !creates {
                return Ok(answer(StatusCode::OK));
            }
            let place = match kind {
                UpkeepKind::Collection => "gc",
                UpkeepKind::Purge => "purgeaudit",
            };
            return Ok(created(Some(format!("/api/v2.0/system/{place}/{id}"))));
        }
        let cron = match &wants {
            Wants::At(cron) => cron.to_string(),
            Wants::Now | Wants::Never => String::new(),
        };
        let schedule = match kind {
            UpkeepKind::Collection => GC_SCHEDULE,
            UpkeepKind::Purge => purging::SCHEDULE,
        };
        if creates && !cron.is_empty() && !self.settings().await?.text(schedule).is_empty() {
            let message =
                "there is a schedule already; change it with PUT, or remove it with type None";
            return Err(Failure::new(Code::Precondition, message));
        }
        self.writes.check_level(Level::UPKEEP)?;
        let mut values = BTreeMap::from([(schedule.to_owned(), Value::from(cron))]);
        let set = |values: &mut BTreeMap<String, Value>, name: &str, value: Value| {
            values.insert(name.to_owned(), value);
        };
        match kind {
            UpkeepKind::Collection => {
                set(&mut values, "gc_workers", parameters.workers()?.into());
            }
            // what removes the schedule may have no parameters
            UpkeepKind::Purge if wants == Wants::Never => {}
            UpkeepKind::Purge => {
                let order = parameters.purge()?;
                let joined = |words: BTreeSet<String>| {
                    Value::from(words.into_iter().collect::<Vec<_>>().join(","))
                };
                set(&mut values, "purge_audit_retention_hours", order.hours.into());
                set(&mut values, "purge_audit_operations", joined(order.operations));
                set(&mut values, "purge_audit_event_types", joined(order.event_types));
            }
        }
        self.set(&values, by).await?;
        Ok(answer(if creates { StatusCode::CREATED } else { StatusCode::OK }))
    }

    /// Begins to collect what is due. Returns the number of the run, which is over or goes on.
    async fn collect_now(&self, parameters: &Parameters, by: &Actor) -> Result<u64, Failure> {
        self.writes.check_level(Level::UPKEEP)?;
        let workers = parameters.workers()?;
        let dry = parameters.dry_run == Some(true);
        let asked = json!({"dry_run": dry, "delete_untagged": false, "workers": workers});
        let run = self.collecting.begin(&asked.to_string());
        let number = run.began().0;
        let (collecting, neighbours) = (self.collecting.clone(), self.neighbours.clone());
        let (by, commit) = (by.clone(), self.terms.commit);
        let (tell, told) = oneshot::channel();
        self.tasks.spawn("collection.asked", async move {
            let ended = collect(&collecting, &neighbours, run, dry, &by, commit).await;
            // whoever asked may have been answered
            drop(tell.send(ended));
        });
        soon(number, told).await
    }

    async fn purge_now(&self, parameters: &Parameters, by: &Actor) -> Result<u64, Failure> {
        self.writes.check_level(Level::UPKEEP)?;
        let order = parameters.purge()?;
        let asked = json!({
            "audit_retention_hour": order.hours,
            "include_operations": parameters.include_operations,
            "include_event_types": parameters.include_event_types.as_deref().unwrap_or_default(),
            "dry_run": order.dry_run,
        });
        let run = self.purging.begin(false, &asked.to_string()).map_err(not_purged)?;
        let number = run.began().0;
        let (purging, by) = (self.purging.clone(), by.clone());
        let (tell, told) = oneshot::channel();
        self.tasks.spawn("purge-audit.asked", async move {
            let ended = purging.run(run, &order, &by).await.map_err(not_purged);
            drop(tell.send(ended));
        });
        soon(number, told).await
    }
}

/// The number of a run, and the error if it fails at once.
async fn soon(number: u64, told: oneshot::Receiver<Result<u64, Failure>>) -> Result<u64, Failure> {
    match tokio::time::timeout(SHORT, told).await {
        Ok(Ok(ended)) => ended,
        // it goes on, or this node stops
        Ok(Err(_)) | Err(_) => Ok(number),
    }
}

/// Collects what is due, and records the run. Returns its number.
async fn collect(
    collecting: &Collecting,
    neighbours: &Neighbours,
    run: UnderWay,
    dry: bool,
    by: &Actor,
    commit: Duration,
) -> Result<u64, Failure> {
    let grace: Duration = collecting.terms().grace;
    let round = collecting.collect(grace, dry, Some(&run)).await;
    let (failed, log) = match &round {
        Ok(round) => {
            let would = if dry { "would be" } else { "are" };
            let said = format!(
                "{} blobs {would} collected, {}; pushes count on {} more",
                round.collected,
                bytes(round.bytes),
                round.counted_on
            );
            (run.is_stopped().filter(|_| round.stopped), said)
        }
        Err(error) => (Some(error.to_string()), String::new()),
    };
    let recorded = upkeep::record(neighbours, run.ended(failed, log), by, commit).await;
    let number = recorded.map_err(|e| Failure::new(Code::Unavailable, e.to_string()))?;
    match round {
        Ok(_) => Ok(number),
        Err(error @ (NotCollected::Records(_) | NotCollected::Store(_))) => {
            Err(Failure::new(Code::Internal, error.to_string()))
        }
        Err(error) => Err(Failure::new(Code::Unavailable, error.to_string())),
    }
}

fn not_purged(error: NotPurged) -> Failure {
    let code = match error {
        NotPurged::Level(_) => Code::Denied,
        NotPurged::Ledger(_) => Code::Unavailable,
        NotPurged::Records(_) => Code::Internal,
    };
    Failure::new(code, error.to_string())
}

fn gc_parameters(settings: &Configured) -> String {
    let workers = settings.number("gc_workers");
    json!({"delete_untagged": false, "dry_run": false, "workers": workers}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(value: Value) -> Parameters {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_a_purge_forgets_is_what_the_client_names() {
        let order = parameters(json!({
            "audit_retention_hour": 48, "include_operations": "create, delete",
            "include_event_types": "pull_artifact", "dry_run": true,
        }));
        let order = order.purge().unwrap();
        assert_eq!((order.hours, order.dry_run), (48, true));
        assert_eq!(order.operations, ["create", "delete"].map(String::from).into());
        assert_eq!(order.event_types, ["pull_artifact"].map(String::from).into());
        for wrong in [
            json!({}),
            json!({"audit_retention_hour": 0, "include_operations": "create"}),
            json!({"audit_retention_hour": 5}),
            json!({"audit_retention_hour": 5, "include_operations": "Create"}),
        ] {
            assert!(parameters(wrong.clone()).purge().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_collection_deletes_no_manifests() {
        assert_eq!(parameters(json!({"delete_untagged": false})).workers().unwrap(), 1);
        assert_eq!(parameters(json!({"workers": 7})).workers().unwrap(), 7);
        for wrong in [json!({"delete_untagged": true}), json!({"workers": 0})] {
            assert!(parameters(wrong.clone()).workers().is_err(), "{wrong}");
        }
    }
}
