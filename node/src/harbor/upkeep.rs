//! Collections and purges of the audit log in Harbor's API (`handler/gc.go`, `handler/purge.go`): a
//! schedule for each, runs, and what they did.
//!
//! Here garbage is always collected, so the schedule of collections is kept and shown, and decides
//! nothing. The log is purged by its schedule, beside what `audit.keep_for` and `audit.keep` forget.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ground::clock;
use http::{Method, Response, StatusCode};
use registry::blobs::collecting::NotCollected;
use registry::events::purging::{self, NotPurged};
use rules::ledger::events::{Actor, PurgeOrder};
use rules::ledger::level::Level;
use rules::ledger::upkeep::{LookForUpkeep, UpkeepKind, UpkeepRun};
use rules::people::configurations::Configured;
use rules::policies::quota::bytes;
use rules::words::query::{self, Field, Kind, number, text};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::schedules::{self, Times, Wants};
use super::{Harbor, bad, body, created};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::upkeep::Upkeep;
use crate::http::{Code, Failure, Payload};

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

/// What `q` and `sort` may be about.
const FIELDS: &[Field<UpkeepRun>] = &[
    Field::new("id", Kind::Number, |run| number(run.began.0)),
    Field::new("job_kind", Kind::Text, |run| text(trigger(run))),
    Field::new("job_status", Kind::Text, |run| text(status(run))),
    Field::new("creation_time", Kind::Time, |run| query::Value::Time(run.began)),
    Field::new("update_time", Kind::Time, |run| query::Value::Time(run.ended)),
];

fn trigger(run: &UpkeepRun) -> &'static str {
    if run.scheduled { "SCHEDULE" } else { "MANUAL" }
}

fn status(run: &UpkeepRun) -> &'static str {
    if run.failed.is_some() { "Error" } else { "Success" }
}

fn job_name(kind: UpkeepKind) -> &'static str {
    match kind {
        UpkeepKind::Collection => "GARBAGE_COLLECTION",
        UpkeepKind::Purge => "PURGE_AUDIT_LOG",
    }
}

/// `GCHistory` and `ExecHistory` of Harbor.
fn show(run: &UpkeepRun) -> Value {
    json!({
        "id": run.began.0,
        "job_name": job_name(run.kind),
        "job_kind": trigger(run),
        "job_parameters": run.parameters,
        "job_status": status(run),
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
                let runs = self.read_at_length(|records| records.upkeep_runs(kind)).await?;
                wanted.answer_chosen(runs, FIELDS, |_| "", show)
            }
            (_, Upkeep::Run(kind, id)) => {
                Ok(json_answer(StatusCode::OK, &show(&self.upkeep_run(kind, id).await?)))
            }
            (_, Upkeep::Log(kind, id)) => {
                let run = self.upkeep_run(kind, id).await?;
                let said = run.failed.unwrap_or(run.log);
                let mut response = Response::new(Payload::full(format!("{} {said}\n", run.ended)));
                let kind = http::HeaderValue::from_static("text/plain");
                response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
                Ok(response)
            }
        }
    }

    async fn upkeep_run(&self, kind: UpkeepKind, id: u64) -> Result<UpkeepRun, Failure> {
        let run = self.read(|records| records.upkeep_run(kind, id)).await?;
        run.ok_or_else(|| Failure::new(Code::NotFound, format!("there is no run {id}")))
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

    /// Collects what is due, and records the run. Returns its number.
    async fn collect_now(&self, parameters: &Parameters, by: &Actor) -> Result<u64, Failure> {
        self.writes.check_level(Level::UPKEEP)?;
        let workers = parameters.workers()?;
        let dry = parameters.dry_run == Some(true);
        let began = clock::timestamp();
        let grace: Duration = self.collecting.terms().grace;
        let round = self.collecting.collect(grace, dry).await;
        let (failed, log) = match &round {
            Ok(round) => {
                let would = if dry { "would be" } else { "are" };
                let said = format!(
                    "{} blobs {would} collected, {}; pushes count on {} more",
                    round.collected,
                    bytes(round.bytes),
                    round.counted_on
                );
                (None, said)
            }
            Err(error) => (Some(error.to_string()), String::new()),
        };
        let asked = json!({"dry_run": dry, "delete_untagged": false, "workers": workers});
        let run = UpkeepRun {
            kind: UpkeepKind::Collection,
            scheduled: false,
            parameters: asked.to_string(),
            began,
            ended: clock::timestamp(),
            failed,
            log,
        };
        let recorded = purging::record(&self.neighbours, run, by, self.terms.commit).await;
        let number = recorded.map_err(|e| Failure::new(Code::Unavailable, e.to_string()))?;
        match round {
            Ok(_) => Ok(number),
            Err(error @ (NotCollected::Records(_) | NotCollected::Store(_))) => {
                Err(Failure::new(Code::Internal, error.to_string()))
            }
            Err(error) => Err(Failure::new(Code::Unavailable, error.to_string())),
        }
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
        let purged = self.purging.run(&order, false, &asked.to_string(), by).await;
        purged.map_err(|error| {
            let code = match error {
                NotPurged::Level(_) => Code::Denied,
                NotPurged::Ledger(_) => Code::Unavailable,
                NotPurged::Records(_) => Code::Internal,
            };
            Failure::new(code, error.to_string())
        })
    }
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
