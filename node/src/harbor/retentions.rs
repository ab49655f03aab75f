//! `/api/v2.0/retentions`: what stays of a project, and the runs that delete the rest
//! (`RetentionPolicy` and `RetentionExecution` of Harbor's `api/v2.0/swagger.yaml`). A project has
//! one policy, whose number is the project's.

use std::collections::BTreeMap;

use http::{Method, Response, StatusCode};
use registry::jobs::retentions::{self, InRepository, Order, Retentions, Told};
use registry::people::Caller;
use rules::ledger::events::Actor;
use rules::ledger::jobs::cron::Cron;
use rules::ledger::jobs::{Job, JobState, LookForJobs, key as jobs_key};
use rules::ledger::policies::{LookForPolicies, PolicyChange, Retention};
use rules::ledger::records::{Project, ReadRecords, RecordError, decode};
use rules::people::configurations::Configured;
use rules::policies::retention::{Environments, RetentionRule, Template, environments};
use rules::wire::JobReport;
use rules::words::names::{JobId, ProjectName};
use rules::words::roles::{Operation, Permission, Resource};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::selectors::{Selector, repositories, show_repositories, show_tags, tags};
use super::{Harbor, bad, body, created};
use crate::http::answer::{answer, json_answer};
use crate::http::door::actor;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The name of the schedule of a project's retention.
const SCHEDULE: &str = "retention";

/// What Harbor's clients send beside the rest, and what has no effect here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyBody {
    #[serde(default, rename = "id")]
    _id: Value,
    #[serde(default)]
    algorithm: String,
    /// Read one by one, so that each says what is wrong with it.
    #[serde(default)]
    rules: Vec<Value>,
    #[serde(default)]
    trigger: Trigger,
    #[serde(default)]
    scope: Scope,
    /// Atoll's own: the rules of a preset instead of `rules`.
    #[serde(default)]
    preset: Option<Preset>,
}

#[derive(Deserialize)]
struct Preset {
    name: String,
    production: Option<String>,
    staging: Option<String>,
    development: Option<String>,
}

#[derive(Deserialize, Default)]
struct Trigger {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    settings: Option<TriggerSettings>,
}

#[derive(Deserialize, Default)]
struct TriggerSettings {
    #[serde(default)]
    cron: String,
}

#[derive(Deserialize, Default)]
struct Scope {
    #[serde(default)]
    level: String,
    #[serde(default, rename = "ref")]
    of: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleBody {
    #[serde(default, rename = "id")]
    _id: Value,
    #[serde(default, rename = "priority")]
    _priority: Value,
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    action: String,
    template: String,
    #[serde(default)]
    params: BTreeMap<String, Value>,
    #[serde(default)]
    tag_selectors: Vec<Selector>,
    #[serde(default)]
    scope_selectors: BTreeMap<String, Vec<Selector>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RunBody {
    dry_run: bool,
    /// Atoll's own.
    confirmed: bool,
    /// Atoll's own.
    days_later: u32,
}

impl RuleBody {
    /// The rule, or all that is wrong with it.
    fn checked(&self) -> Result<RetentionRule, Vec<String>> {
        let mut wrong = Vec::new();
        if !matches!(self.action.as_str(), "" | "retain") {
            wrong.push("rules.action is retain".to_owned());
        }
        let template = self.template().map_err(|said| wrong.push(said)).ok();
        let mut note = |failure: Failure| wrong.push(failure.message().to_owned());
        let repositories = repositories(&self.scope_selectors).map_err(&mut note).ok();
        let tags = tags(&self.tag_selectors).map_err(&mut note).ok();
        match (template, repositories, tags) {
            (Some(template), Some(repositories), Some(tags)) if wrong.is_empty() => {
                Ok(RetentionRule { disabled: self.disabled, template, repositories, tags })
            }
            _ => Err(wrong),
        }
    }

    fn template(&self) -> Result<Template, String> {
        let takes_one = Template::named(&self.template, None)?.name().1.is_some();
        let number = match self.params.get(&self.template) {
            // a number under another name must not become a default
            None | Some(Value::Null) if takes_one => {
                return Err(format!("rules.params.{} is missing", self.template));
            }
            None | Some(Value::Null) => None,
            Some(value) => {
                let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
                Some(number.ok_or_else(|| {
                    format!("rules.params.{} is a number from 0 on", self.template)
                })?)
            }
        };
        Template::named(&self.template, number)
    }
}

/// The rules, or what is wrong with all of them.
fn checked_rules(written: &[Value]) -> Result<Vec<RetentionRule>, Vec<String>> {
    let (mut rules, mut wrong) = (Vec::new(), Vec::new());
    for (at, rule) in written.iter().enumerate() {
        let read = RuleBody::deserialize(rule).map_err(|error| vec![error.to_string()]);
        match read.and_then(|rule| rule.checked()) {
            Ok(rule) => rules.push(rule),
            Err(all) => wrong.extend(all.iter().map(|one| format!("rule {}: {one}", at + 1))),
        }
    }
    if wrong.is_empty() { Ok(rules) } else { Err(wrong) }
}

impl PolicyBody {
    /// What stays, as it is written. A failure says all that is wrong: whoever writes a policy into a
    /// file wants to correct it once.
    pub(super) fn checked(&self) -> Result<Retention, Failure> {
        let mut wrong = Vec::new();
        if !matches!(self.algorithm.as_str(), "" | "or") {
            wrong.push("algorithm is or".to_owned());
        }
        let cron = self.trigger.settings.as_ref().map(|s| s.cron.trim()).unwrap_or_default();
        if !matches!(self.trigger.kind.as_str(), "" | "Schedule") {
            wrong.push("trigger.kind is Schedule".to_owned());
        }
        if let Some(Err(error)) = (!cron.is_empty()).then(|| cron.parse::<Cron>()) {
            wrong.push(format!("trigger.settings.cron: {error}"));
        }
        let rules = self.rules().unwrap_or_else(|all| {
            wrong.extend(all);
            Vec::new()
        });
        match wrong.is_empty() {
            true => Ok(Retention { rules, cron: cron.to_owned() }),
            false => Err(bad(wrong.join("; "))),
        }
    }

    fn rules(&self) -> Result<Vec<RetentionRule>, Vec<String>> {
        match &self.preset {
            None => checked_rules(&self.rules),
            Some(preset) if preset.name == "environments" => {
                let otherwise = Environments::default();
                let or = |written: &Option<String>, otherwise: String| {
                    written.clone().unwrap_or(otherwise)
                };
                let of = Environments {
                    production: or(&preset.production, otherwise.production),
                    staging: or(&preset.staging, otherwise.staging),
                    development: or(&preset.development, otherwise.development),
                };
                environments(&of).map_err(|e| vec![format!("preset: {e}")])
            }
            Some(preset) => {
                Err(vec![format!("there is no preset {:?}: environments", preset.name)])
            }
        }
    }
}

fn show(project: &Project, retention: &Retention) -> Value {
    let rules: Vec<Value> = retention
        .rules
        .iter()
        .enumerate()
        .map(|(at, rule)| {
            let (template, number) = rule.template.name();
            json!({
                "id": at + 1,
                "priority": at,
                "disabled": rule.disabled,
                "action": "retain",
                "template": template,
                "params": number.map_or(json!({}), |number| json!({template: number})),
                "tag_selectors": show_tags(&rule.tags),
                "scope_selectors": show_repositories(&rule.repositories),
            })
        })
        .collect();
    json!({
        "id": project.id.0,
        "algorithm": "or",
        "rules": rules,
        "trigger": {"kind": "Schedule", "references": {}, "settings": {"cron": retention.cron}},
        "scope": {"level": "project", "ref": project.id.0},
    })
}

/// The answer for a project without a policy.
pub(super) fn none(project: &Project) -> Failure {
    let message = format!("project {} has no retention policy", project.name);
    Failure::new(Code::NotFound, message)
}

/// The templates, as Harbor's portal asks for them.
pub(super) fn show_templates() -> Response<Payload> {
    let template = |name: &str, text: &str, unit: &str| {
        let params = match unit {
            "" => json!([]),
            _ => json!([{"type": "int", "unit": unit, "required": true}]),
        };
        json!({"rule_template": name, "display_text": text, "action": "retain", "params": params})
    };
    let selector = |text: &str, matches: &str, excludes: &str| json!({"display_text": text, "kind": "doublestar", "decorations": [matches, excludes]});
    json_answer(
        StatusCode::OK,
        &json!({
            "templates": [
                template("latestPushedK", "the most recently pushed # artifacts", "COUNT"),
                template("latestPulledN", "the most recently pulled # artifacts", "COUNT"),
                template("latestActiveK", "the most recently active # artifacts", "COUNT"),
                template("nDaysSinceLastPush", "pushed within the last # days", "DAYS"),
                template("nDaysSinceLastPull", "pulled within the last # days", "DAYS"),
                template("lastXDays", "pushed within the last # days", "DAYS"),
                template("always", "always", ""),
                template("nothing", "nothing", ""),
            ],
            "scope_selectors": [selector("Repositories", "repoMatches", "repoExcludes")],
            "tag_selectors": [selector("Tags", "matches", "excludes")],
        }),
    )
}

/// Harbor's word (`src/jobservice/job/status.go`).
fn status(job: &Job) -> &'static str {
    match job.state {
        JobState::Waiting => "Pending",
        JobState::Running(_) => "Running",
        JobState::Done => "Success",
        JobState::Failed => "Error",
        JobState::Stopped => "Stopped",
    }
}

/// The tasks of a run, one for each repository that rules are about. Those that the run has not come to
/// yet are not among them.
fn tasks(job: &Job, told: &Told) -> Vec<Value> {
    let task = |(at, one): (usize, &InRepository)| {
        let repository = one.repository.as_str();
        json!({
            "id": at + 1,
            "execution_id": job.id.number(),
            "repository": repository.split_once('/').map_or(repository, |(_, rest)| rest),
            "status": "Success",
            // what Harbor says of each task that has ended
            "status_code": 3,
            "start_time": job.began.unwrap_or(job.created).to_string(),
            "end_time": job.ended.map(|at| at.to_string()),
            "job_id": job.id.to_string(),
            "total": one.found.artifacts,
            "retained": one.found.retained,
        })
    };
    told.repositories.iter().enumerate().map(task).collect()
}

fn show_run(project: &Project, job: &Job, dry: bool) -> Value {
    json!({
        "id": job.id.number(),
        "policy_id": project.id.0,
        "type": "RETENTION",
        "start_time": job.began.unwrap_or(job.created).to_string(),
        "end_time": job.ended.map(|at| at.to_string()),
        "status": status(job),
        "trigger": if job.schedule.is_some() { "Schedule" } else { "Manual" },
        "dry_run": dry,
        "job": job.id.to_string(),
        "result": job.result,
    })
}

/// The runs of a project's retention, the newest first.
fn runs(records: &dyn ReadRecords, project: &Project) -> Result<Vec<Job>, RecordError> {
    let all = records.scan(&jobs_key::jobs_of(project.id), None, usize::MAX)?;
    let jobs = all.iter().map(|(_, job)| decode::<Job>(job));
    let mut jobs = jobs.collect::<Result<Vec<_>, _>>()?;
    jobs.retain(|job| job.task.kind == retentions::KIND);
    jobs.sort_by_key(|job| std::cmp::Reverse((job.created, job.id.0)));
    Ok(jobs)
}

/// What stays in new projects, as the mesh's settings say.
pub(super) fn of_new(settings: &Configured) -> Result<Option<Retention>, Failure> {
    if settings.text("retention_per_project") != "environments" {
        return Ok(None);
    }
    let rules = environments(&Environments::default()).map_err(|e| bad(e.to_string()))?;
    let cron = settings.text("retention_per_project_schedule").to_owned();
    Ok(Some(Retention { rules, cron }))
}

impl Harbor {
    /// Has what stays in a new project applied at its times.
    pub(super) async fn schedule_retention(
        &self,
        name: &ProjectName,
        retention: &Retention,
        by: &Actor,
    ) -> Result<(), Failure> {
        let task = Retentions::task(name, Order::default(), &by.name);
        self.set_schedule(SCHEDULE, task, retention.cron.parse::<Cron>().ok(), by).await
    }

    pub(super) async fn create_retention(
        &self,
        mut request: Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let written: PolicyBody = body(&mut request).await?;
        if !matches!(written.scope.level.as_str(), "" | "project") {
            return Err(bad("scope.level is project"));
        }
        let of = match &written.scope.of {
            Value::Number(number) => number.to_string(),
            Value::String(name) => name.clone(),
            _ => return Err(bad("scope.ref is the number of a project")),
        };
        let name: ProjectName = of.parse().map_err(|e| bad(format!("scope.ref: {e}")))?;
        let permission = Permission::new(Resource::TagRetention, Operation::Create);
        let project = self.project(&request, caller, permission, &name).await?;
        let by = &actor(caller, &request);
        let known = self.read(|records| records.policies(project.id)).await?.retention;
        if known.is_some() {
            let message = format!("project {} has a retention policy already", project.name);
            return Err(Failure::new(Code::BadRequest, message));
        }
        self.set_retention(&project, written.checked()?, by).await?;
        Ok(created(Some(format!("/api/v2.0/retentions/{}", project.id.0))))
    }

    pub(super) async fn show_retention(
        &self,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let known = self.read(|records| records.policies(project.id)).await?.retention;
        let known = known.ok_or_else(|| none(project))?;
        Ok(json_answer(StatusCode::OK, &show(project, &known)))
    }

    pub(super) async fn change_retention(
        &self,
        mut request: Request,
        project: &Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: PolicyBody = body(&mut request).await?;
        let known = self.read(|records| records.policies(project.id)).await?.retention;
        known.ok_or_else(|| none(project))?;
        self.set_retention(project, written.checked()?, by).await?;
        Ok(answer(StatusCode::OK))
    }

    pub(super) async fn remove_retention(
        &self,
        project: &Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let known = self.read(|records| records.policies(project.id)).await?.retention;
        known.ok_or_else(|| none(project))?;
        let task = Retentions::task(&project.name, Order::default(), &by.name);
        self.set_schedule(SCHEDULE, task, None, by).await?;
        self.decide(project, PolicyChange::SetRetention(None), by).await?;
        Ok(answer(StatusCode::OK))
    }

    async fn set_retention(
        &self,
        project: &Project,
        retention: Retention,
        by: &Actor,
    ) -> Result<(), Failure> {
        if project.upstream.is_some() {
            let message = "what a project caches is evicted by its use (cache.budget)";
            return Err(bad(message));
        }
        let cron = retention.cron.clone();
        self.decide(project, PolicyChange::SetRetention(Some(retention)), by).await?;
        let task = Retentions::task(&project.name, Order::default(), &by.name);
        self.set_schedule(SCHEDULE, task, cron.parse::<Cron>().ok(), by).await
    }

    pub(super) async fn list_runs(
        &self,
        request: &Request,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::pages(request)?;
        let found = self.read_at_length(|records| {
            let jobs = runs(records, project)?;
            let shown = jobs.iter().map(|job| {
                let order: Order =
                    serde_json::from_slice(&records.order(job.id)?).unwrap_or_default();
                Ok(show_run(project, job, order.dry_run))
            });
            shown.collect::<Result<Vec<Value>, RecordError>>()
        });
        Ok(wanted.answer(&found.await?, |_| "", Value::clone))
    }

    pub(super) async fn begin_run(
        &self,
        mut request: Request,
        project: &Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let RunBody { dry_run, confirmed, days_later } = body(&mut request).await?;
        if days_later > 3650 || days_later > 0 && !dry_run {
            return Err(bad("days_later is for a dry run, and 3650 at most"));
        }
        let known = self.read(|records| records.policies(project.id)).await?.retention;
        known.ok_or_else(|| none(project))?;
        let order = Order { dry_run, confirmed, days_later };
        let id = self.jobs.ask(Retentions::task(&project.name, order, &by.name), by).await?;
        let place = format!("/api/v2.0/retentions/{}/executions/{}", project.id.0, id.number());
        let shown = json!({"id": id.number(), "job": id.to_string()});
        let mut response = json_answer(StatusCode::CREATED, &shown);
        crate::http::answer::set(&mut response, "location", place);
        Ok(response)
    }

    async fn run(&self, project: &Project, id: JobId) -> Result<Job, Failure> {
        let found = self.read(|records| records.job(id)).await?;
        let ours = found
            .filter(|job| job.task.kind == retentions::KIND && job.task.project == project.name);
        ours.ok_or_else(|| {
            Failure::new(
                Code::NotFound,
                format!("project {} has no run {}", project.name, id.number()),
            )
        })
    }

    pub(super) async fn stop_run(
        &self,
        mut request: Request,
        project: &Project,
        id: JobId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        #[derive(Deserialize)]
        struct Asked {
            action: String,
        }
        let Asked { action } = body(&mut request).await?;
        if action != "stop" {
            return Err(bad("action is stop"));
        }
        self.run(project, id).await?;
        self.jobs.stop(id, by).await?;
        Ok(answer(StatusCode::OK))
    }

    /// The log and the tasks are in the memory of the node that had the run.
    async fn report(&self, job: &Job) -> Result<JobReport, Failure> {
        self.jobs.report(job).await.ok_or_else(|| {
            let message = "the tasks and the log are in the memory of the node that had the run, which does not answer or was restarted since";
            Failure::new(Code::NotFound, message)
        })
    }

    pub(super) async fn list_tasks(
        &self,
        request: &Request,
        project: &Project,
        id: JobId,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::pages(request)?;
        let job = self.run(project, id).await?;
        let report = self.jobs.report(&job).await.unwrap_or_default();
        let told: Told = serde_json::from_str(&report.progress).unwrap_or_default();
        Ok(wanted.answer(&tasks(&job, &told), |_| "", Value::clone))
    }

    /// The log of one repository; `task` 0, which Harbor does not have, is all of it.
    pub(super) async fn show_run_log(
        &self,
        project: &Project,
        id: JobId,
        task: u64,
    ) -> Result<Response<Payload>, Failure> {
        let job = self.run(project, id).await?;
        let report = self.report(&job).await?;
        let told: Told = serde_json::from_str(&report.progress).unwrap_or_default();
        let at = usize::try_from(task).ok().and_then(|task| task.checked_sub(1));
        let of = match at {
            None => None,
            Some(at) => Some(told.repositories.get(at).ok_or_else(|| {
                Failure::new(Code::NotFound, format!("run {} has no task {task}", id.number()))
            })?),
        };
        let is_of = |line: &str| {
            of.is_none_or(|one| line.split(['@', ' ']).any(|word| word == one.repository))
        };
        let lines = report.log.iter().filter(|(_, line)| is_of(line));
        let lines: String = lines.map(|(at, line)| format!("{at} {line}\n")).collect();
        let mut response = Response::new(Payload::full(lines));
        crate::http::answer::set(&mut response, "content-type", "text/plain");
        Ok(response)
    }

    /// Answers about what a project decides.
    pub(super) async fn answer_about_policies(
        &self,
        request: Request,
        project: Project,
        policy: crate::http::policies::Policy,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        use crate::http::policies::Policy;
        match (&request.method, policy) {
            (&Method::POST, Policy::ImmutableRules) => {
                self.add_immutable_rule(request, &project, by).await
            }
            (_, Policy::ImmutableRules) => self.list_immutable_rules(&request, &project).await,
            (&Method::DELETE, Policy::ImmutableRule(id)) => {
                self.remove_immutable_rule(&project, id, by).await
            }
            (_, Policy::ImmutableRule(id)) => {
                self.change_immutable_rule(request, &project, id, by).await
            }
            (&Method::PUT, Policy::Retention) => self.change_retention(request, &project, by).await,
            (&Method::DELETE, Policy::Retention) => self.remove_retention(&project, by).await,
            (_, Policy::Retention) => self.show_retention(&project).await,
            (&Method::POST, Policy::Runs) => self.begin_run(request, &project, by).await,
            (_, Policy::Forecast) => self.show_forecast(request, &project).await,
            (_, Policy::Runs) => self.list_runs(&request, &project).await,
            (_, Policy::Run(id)) => self.stop_run(request, &project, id, by).await,
            (_, Policy::Tasks(id)) => self.list_tasks(&request, &project, id).await,
            (_, Policy::Log(id, task)) => self.show_run_log(&project, id, task).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_with_a_policy_is_told_at_once() {
        let rule = |template: &str, params: Value| {
            json!({"template": template, "params": params,
                "tag_selectors": [{"decoration": "matches", "pattern": "**"}]})
        };
        let mut other = rule("latestPushedK", json!({}));
        other["scope_selectors"] = json!({"repository": [{"pattern": "{a"}]});
        let mut unknown = rule("always", json!({}));
        unknown["tag_selector"] = json!([]);
        let right = rule("always", json!({}));
        let wrong = json!({"rules": [right, other, rule("never", json!({})), unknown],
            "trigger": {"kind": "Schedule", "settings": {"cron": "61 * * * *"}}});
        let body: PolicyBody = serde_json::from_value(wrong).unwrap();
        let said = body.checked().unwrap_err();
        let said = said.message();
        for part in [
            "trigger.settings.cron:",
            "rule 2: rules.params.latestPushedK is missing",
            "rule 2: scope_selectors.repository.pattern:",
            "rule 3:",
            "rule 4: unknown field `tag_selector`",
        ] {
            assert!(said.contains(part), "{part} is not in: {said}");
        }
        assert!(!said.contains("rule 1"), "{said}");
        let body: PolicyBody = serde_json::from_value(json!({"rules": [right]})).unwrap();
        assert_eq!(body.checked().unwrap().rules.len(), 1);
    }
}
