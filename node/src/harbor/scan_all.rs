//! Scans of everything in Harbor's API (`handler/scan_all.go`): now, and by a schedule that is one of
//! the mesh's settings.

use std::collections::BTreeMap;

use http::{Method, Response, StatusCode};
use registry::scans::everything::{SCHEDULE, SETTING};
use registry::scans::rescans;
use registry::writes::Refusal;
use rules::ledger::directory::LookForGroups;
use rules::ledger::events::Actor;
use rules::ledger::jobs::LookForJobs;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, RecordError};
use rules::ledger::scanning::LookForScans;
use rules::people::configurations::Configured;
use rules::policies::vulnerabilities::{ScanStatus, chosen_scanner};
use serde::Deserialize;
use serde_json::{Value, json};

use super::schedules::{self, Times, Wants};
use super::{Harbor, body};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

#[derive(Deserialize)]
struct Written {
    schedule: Times,
}

impl Harbor {
    pub(super) async fn answer_about_scan_all(
        &self,
        mut request: Request,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let known = self.read(|records| records.configurations()).await?;
        let known = Configured::of(&known).text(SETTING).to_owned();
        if matches!(request.method, Method::GET | Method::HEAD) {
            return self.show_scan_all(&known).await;
        }
        let creates = request.method == Method::POST;
        let written: Written = body(&mut request).await?;
        let done = if creates { StatusCode::CREATED } else { StatusCode::OK };
        let cron = match written.schedule.wants()? {
            Wants::Now => {
                self.scan_everything(by).await?;
                return Ok(answer(done));
            }
            Wants::At(_) if creates && !known.is_empty() => {
                let message =
                    "there is a schedule already; change it with PUT, or remove it with type None";
                return Err(Failure::new(Code::Precondition, message));
            }
            Wants::Never => String::new(),
            Wants::At(cron) => cron.to_string(),
        };
        self.set(&BTreeMap::from([(SETTING.to_owned(), cron.into())]), by).await?;
        Ok(answer(done))
    }

    async fn show_scan_all(&self, cron: &str) -> Result<Response<Payload>, Failure> {
        let shown = match schedules::show(cron) {
            Value::Null => json!({"schedule": null}),
            schedule => json!({"id": 1, "status": "Pending", "schedule": schedule}),
        };
        Ok(json_answer(StatusCode::OK, &shown))
    }

    async fn scan_everything(&self, by: &Actor) -> Result<(), Failure> {
        let projects = self
            .read(|records| {
                let mut scanned = Vec::new();
                for project in records.projects()? {
                    let chosen = chosen_scanner(&project.metadata);
                    if project.upstream.is_none() && records.can_be_scanned(chosen)? {
                        scanned.push(project.name);
                    }
                }
                Ok(scanned)
            })
            .await?;
        if projects.is_empty() {
            return Err(Failure::new(Code::Precondition, super::scanning::NO_DATABASE));
        }
        for project in &projects {
            self.scans.ask_for_all(project, by).await?;
        }
        Ok(())
    }

    /// Stops the scans of all images (`POST /system/scanAll/stop`). Those of images that somebody has
    /// asked for alone go on, and so does the schedule.
    pub(super) async fn stop_scanning_everything(
        &self,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        self.writes.check_level(Level::SCANNERS)?;
        // those that would ask for more
        for job in self.read_at_length(|records| records.active_jobs()).await? {
            if job.task.kind == rescans::KIND {
                match self.jobs.stop(job.id, by).await {
                    // it has ended meanwhile
                    Ok(()) | Err(Refusal::NotFound | Refusal::Conflict(_)) => {}
                    Err(refusal) => return Err(refusal.into()),
                }
            }
        }
        for project in self.read(|records| records.projects()).await? {
            if project.upstream.is_none() {
                self.scans.stop_all(&project.name, by).await?;
            }
        }
        Ok(answer(StatusCode::ACCEPTED))
    }

    /// How far the scans are of all images that were ever to be scanned (`Stats` of Harbor).
    pub(super) async fn show_scan_metrics(&self) -> Result<Response<Payload>, Failure> {
        let shown = self
            .read_at_length(|records| {
                let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
                for project in records.projects()? {
                    records.each_scan(&project.name, |_, _, record| {
                        *counts.entry(record.status().word()).or_default() += 1;
                        Ok(())
                    })?;
                }
                let scheduled = records.schedules()?.iter().any(|one| one.name == SCHEDULE);
                Ok::<_, RecordError>(stats(&counts, scheduled))
            })
            .await?;
        Ok(json_answer(StatusCode::OK, &shown))
    }
}

fn stats(counts: &BTreeMap<&str, usize>, scheduled: bool) -> Value {
    let count = |status: ScanStatus| counts.get(status.word()).copied().unwrap_or_default();
    let total: usize = counts.values().sum();
    let under_way = count(ScanStatus::Pending) + count(ScanStatus::Running);
    json!({
        "total": total,
        "completed": total - under_way,
        "metrics": counts,
        "ongoing": under_way > 0,
        "trigger": if scheduled { "Schedule" } else { "Manual" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_or_runs_is_not_completed() {
        let counts = [("Success", 5), ("Error", 1), ("Pending", 2), ("Running", 1)].into();
        let shown = stats(&counts, true);
        assert_eq!((&shown["total"], &shown["completed"]), (&json!(9), &json!(6)));
        assert_eq!((&shown["ongoing"], &shown["trigger"]), (&json!(true), &json!("Schedule")));
    }
}
