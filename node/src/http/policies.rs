//! The paths of what a project decides about its artifacts.

use rules::words::names::JobId;

/// What of a project's policies a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `/api/v2.0/projects/PROJECT/immutabletagrules`
    ImmutableRules,
    /// `/api/v2.0/projects/PROJECT/immutabletagrules/ID`
    ImmutableRule(u64),
    /// `/api/v2.0/retentions/PROJECT`: the number of a policy is that of its project.
    Retention,
    /// `/api/v2.0/retentions/PROJECT/forecast`
    Forecast,
    /// `/api/v2.0/retentions/PROJECT/executions`
    Runs,
    /// `/api/v2.0/retentions/PROJECT/executions/ID`
    Run(JobId),
    /// `/api/v2.0/retentions/PROJECT/executions/ID/tasks`
    Tasks(JobId),
    /// `/api/v2.0/retentions/PROJECT/executions/ID/tasks/TASK`: the log of a repository; 0 is all of it.
    Log(JobId, u64),
}

impl Policy {
    /// See [`Route::pattern`](super::route::Route::pattern).
    pub(super) fn pattern(self) -> &'static str {
        match self {
            Policy::ImmutableRules => "/api/v2.0/projects/{project}/immutabletagrules",
            Policy::ImmutableRule(_) => "/api/v2.0/projects/{project}/immutabletagrules/{id}",
            Policy::Retention => "/api/v2.0/retentions/{project}",
            Policy::Forecast => "/api/v2.0/retentions/{project}/forecast",
            Policy::Runs => "/api/v2.0/retentions/{project}/executions",
            Policy::Run(_) => "/api/v2.0/retentions/{project}/executions/{id}",
            Policy::Tasks(_) => "/api/v2.0/retentions/{project}/executions/{id}/tasks",
            Policy::Log(..) => "/api/v2.0/retentions/{project}/executions/{id}/tasks/{task}",
        }
    }

    /// See [`Route::methods`](super::route::Route::methods).
    pub(super) fn methods(self) -> &'static str {
        match self {
            Policy::ImmutableRules | Policy::Runs | Policy::Forecast => "GET, HEAD, POST",
            Policy::ImmutableRule(_) => "PUT, DELETE",
            Policy::Retention => "GET, HEAD, PUT, DELETE",
            Policy::Run(_) => "PATCH",
            Policy::Tasks(_) | Policy::Log(..) => "GET, HEAD",
        }
    }

    /// What follows `/api/v2.0/projects/PROJECT/immutabletagrules`.
    pub(super) fn of_immutable(rest: Option<&str>) -> Option<Self> {
        match rest {
            None => Some(Policy::ImmutableRules),
            Some(id) => id.parse().ok().map(Policy::ImmutableRule),
        }
    }

    /// What follows `/api/v2.0/retentions/PROJECT`.
    pub(super) fn of_retention(rest: Option<&str>) -> Option<Self> {
        let Some(rest) = rest else { return Some(Policy::Retention) };
        if rest == "forecast" {
            return Some(Policy::Forecast);
        }
        let mut parts = rest.split('/');
        if parts.next() != Some("executions") {
            return None;
        }
        let Some(id) = parts.next() else { return Some(Policy::Runs) };
        let id = JobId::of_number(id.parse().ok()?);
        match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => Some(Policy::Run(id)),
            (Some("tasks"), None, _) => Some(Policy::Tasks(id)),
            (Some("tasks"), Some(task), None) => Some(Policy::Log(id, task.parse().ok()?)),
            _ => None,
        }
    }

    /// One of each, for tests.
    #[cfg(test)]
    pub(super) fn all() -> [Policy; 8] {
        let id = JobId(7);
        [
            Policy::ImmutableRules,
            Policy::ImmutableRule(7),
            Policy::Retention,
            Policy::Forecast,
            Policy::Runs,
            Policy::Run(id),
            Policy::Tasks(id),
            Policy::Log(id, 1),
        ]
    }
}
