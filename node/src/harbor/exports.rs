//! Exports of vulnerabilities in Harbor's API (`handler/scanexport.go`): asked for, listed, and
//! downloaded as CSV by who has asked for them.

use std::collections::{BTreeMap, VecDeque};

use http::{HeaderValue, Response, StatusCode, header};
use registry::people::Caller;
use registry::scans::exports::{self, ExportOrder, Exports};
use rules::ledger::jobs::{Job, JobState, LookForJobs, key};
use rules::ledger::records::{Look, ReadRecords, RecordError, decode};
use rules::policies::selectors::Pattern;
use rules::words::moment::Timestamp;
use rules::words::names::{JobId, LabelId, ProjectId, ProjectName};
use rules::words::roles::{Operation, Permission, Resource};
use serde::Deserialize;
use serde_json::{Value, json};

use super::overviews::REPORT;
use super::stored::missing as absent;
use super::{Harbor, bad, body};
use crate::http::answer::json_answer;
use crate::http::door::actor;
use crate::http::request::Request;
use crate::http::route::Export;
use crate::http::{Code, Failure, Payload};

/// The header that names what is exported.
const DATA_TYPE: header::HeaderName = header::HeaderName::from_static("x-scan-data-type");
/// The maximum number of exports in a list: the newest.
const LISTED: usize = 100;
/// The number of jobs that are read at a time.
const PIECE: usize = 200;
/// The maximum number of labels that may be named.
const MOST_LABELS: usize = 100;

/// What is to be exported, as clients write it (`ScanDataExportRequest`).
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    projects: Option<Vec<u64>>,
    #[serde(default)]
    labels: Option<Vec<u64>>,
    #[serde(default)]
    repositories: String,
    #[serde(rename = "cveIds", default)]
    ids: String,
    #[serde(default)]
    tags: String,
}

impl Written {
    /// The one project and the order, if they are sound. As in Harbor, a pattern has no spaces.
    fn checked(self) -> Result<(u64, ExportOrder), Failure> {
        let projects = self.projects.unwrap_or_default();
        let [project] = projects[..] else {
            return Err(bad("only support export single project: projects has one number"));
        };
        let pattern = |field: &str, text: &str| {
            if text.contains(' ') {
                return Err(bad(format!("{field} has spaces; remove them")));
            }
            Pattern::new(text).map_err(|e| bad(format!("{field}: {e}")))
        };
        let labels = self.labels.unwrap_or_default();
        if labels.len() > MOST_LABELS {
            return Err(bad(format!("labels has at most {MOST_LABELS} numbers")));
        }
        let order = ExportOrder {
            repositories: pattern("repositories", &self.repositories)?,
            tags: pattern("tags", &self.tags)?,
            ids: pattern("cveIds", &self.ids)?,
            labels: labels.into_iter().map(LabelId).collect(),
        };
        Ok((project, order))
    }
}

/// An export as Harbor shows it (`ScanDataExportExecution`). Jobs know people by their names, so nothing
/// is said of a user's number.
fn show(job: &Job) -> Value {
    let status = match job.state {
        JobState::Waiting => "Pending",
        JobState::Running(_) => "Running",
        JobState::Done => "Success",
        JobState::Failed => "Error",
        JobState::Stopped => "Stopped",
    };
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    json!({
        "id": job.id.number(),
        "user_name": job.task.asked_by,
        "status": status,
        "status_text": job.current_result(),
        "trigger": "MANUAL",
        "start_time": job.created.to_string(),
        "end_time": time(job.ended),
        "file_present": job.state == JobState::Done,
    })
}

/// The newest jobs that are wanted, the newest first.
fn newest(
    records: &dyn ReadRecords,
    wanted: impl Fn(&Job) -> bool,
) -> Result<Vec<Job>, RecordError> {
    let (mut found, mut after) = (VecDeque::new(), None::<Vec<u8>>);
    loop {
        let piece = records.scan(&key::places(), after.as_deref(), PIECE)?;
        let Some((last, _)) = piece.last() else { return Ok(found.into_iter().rev().collect()) };
        after = Some(last.clone());
        for (place, project) in &piece {
            let Some(id) = key::job_of_place(place) else { continue };
            let project: ProjectId = decode(project)?;
            found.extend(records.record::<Job>(&key::job(project, id))?.filter(|job| wanted(job)));
            if found.len() > LISTED {
                found.pop_front();
            }
        }
    }
}

impl Harbor {
    /// Answers a request about exports.
    pub(super) async fn answer_about_exports(
        &self,
        request: Request,
        export: Export,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        match export {
            Export::New => self.begin_export(request, caller).await,
            Export::All => self.list_exports(&request, caller).await,
            Export::One(id) => {
                let job = self.own_export(&request, caller, id).await?;
                Ok(json_answer(StatusCode::OK, &show(&job)))
            }
            Export::Download(id) => {
                let job = self.own_export(&request, caller, id).await?;
                self.download(&request, &job).await
            }
        }
    }

    async fn begin_export(
        &self,
        mut request: Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        if request.header(&DATA_TYPE) != Some(REPORT) {
            return Err(bad(format!("X-Scan-Data-Type is {REPORT}")));
        }
        let written: Written = body(&mut request).await?;
        let (project, order) = written.checked()?;
        let name: ProjectName =
            project.to_string().parse().map_err(|e| bad(format!("projects: {e}")))?;
        let permission = Permission::new(Resource::ExportCve, Operation::Create);
        let project = self.project(&request, caller, permission, &name).await?;
        let by = actor(caller, &request);
        let task = Exports::task(&project.name, &order, &by.name);
        let id = self.jobs.ask(task, &by).await?;
        Ok(json_answer(StatusCode::OK, &json!({"id": id.number()})))
    }

    /// The newest exports that the caller has asked for, of projects that they may still export.
    async fn list_exports(
        &self,
        request: &Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let name = caller.identity.name();
        let is_own = |job: &Job| job.task.kind == exports::KIND && job.task.asked_by == name;
        let jobs = self.read_at_length(|records| newest(records, is_own)).await?;
        let permission = Permission::new(Resource::ExportCve, Operation::Read);
        let (mut known, mut shown) = (BTreeMap::new(), Vec::new());
        for job in jobs {
            let of = &job.task.project;
            if !known.contains_key(of) {
                let may = self.project(request, caller, permission, of).await.is_ok();
                known.insert(of.clone(), may);
            }
            if known.get(of) == Some(&true) {
                shown.push(show(&job));
            }
        }
        Ok(json_answer(StatusCode::OK, &json!({"items": shown})))
    }

    /// An export that the caller has asked for, if they may still export its project.
    async fn own_export(
        &self,
        request: &Request,
        caller: &Caller,
        id: u64,
    ) -> Result<Job, Failure> {
        let none = || Failure::new(Code::NotFound, format!("there is no export {id}"));
        let job = self.read(|records| records.job(JobId::of_number(id))).await?;
        let job = job.filter(|job| job.task.kind == exports::KIND).ok_or_else(none)?;
        // Harbor says that it is somebody else's; who may not see it is not told that it is there
        if job.task.asked_by != caller.identity.name() {
            return Err(none());
        }
        let permission = Permission::new(Resource::ExportCve, Operation::Read);
        self.project(request, caller, permission, &job.task.project).await?;
        Ok(job)
    }

    async fn download(&self, request: &Request, job: &Job) -> Result<Response<Payload>, Failure> {
        if request.query("format").is_some_and(|format| format != "csv") {
            return Err(bad("format is csv"));
        }
        let order = self.read(|records| records.order(job.id)).await?;
        let order = ExportOrder::read(&order).filter(|_| job.state == JobState::Done);
        let Some(order) = order else {
            return Err(absent(&format!("file of export {}", job.id.number())));
        };
        let pieces = self.scans.export(&job.task.project, order).await?;
        let mut response = Response::new(Payload::made(pieces));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
        let name = format!("attachment; filename=\"scandata_export_{}.csv\"", job.id.number());
        if let Ok(name) = HeaderValue::from_str(&name) {
            headers.insert(header::CONTENT_DISPOSITION, name);
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_order_is_refused() {
        let checked = |value: Value| serde_json::from_value::<Written>(value).unwrap().checked();
        let (project, order) = checked(json!({
            "job_name": "anything", "projects": [7], "labels": [3], "repositories": "web,api/**",
            "cveIds": "CVE-2024-0001", "tags": "{1,2}", "user_id": 1,
        }))
        .unwrap();
        assert_eq!((project, order.labels.as_slice()), (7, &[LabelId(3)][..]));
        assert!(order.repositories.matches("api/v1/x") && !order.repositories.matches("other"));
        let all = checked(json!({"projects": [7]})).unwrap().1;
        assert_eq!(all, ExportOrder::default());
        for wrong in [
            json!({}),
            json!({"projects": []}),
            json!({"projects": [1, 2]}),
            json!({"projects": [1], "tags": "a b"}),
            json!({"projects": [1], "repositories": "{a"}),
            json!({"projects": [1], "labels": vec![1; 101]}),
        ] {
            assert!(checked(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
