//! The paths of what has a number and something below it: jobs and robots.

use rules::words::names::{RobotId, TrustId};

use super::Route;

/// What follows `/api/atoll/v1/jobs/`.
pub(super) fn of_job(rest: &str) -> Option<Route> {
    let (id, what) = rest.split_once('/').unwrap_or((rest, ""));
    let id = id.parse().ok()?;
    match what {
        "" => Some(Route::Job(id)),
        "log" => Some(Route::JobLog(id)),
        "stop" => Some(Route::JobStop(id)),
        "retry" => Some(Route::JobRetry(id)),
        _ => None,
    }
}

/// What follows `/api/v2.0/robots/`.
pub(super) fn of_robot(rest: &str) -> Option<Route> {
    let mut parts = rest.split('/');
    let id = RobotId(parts.next()?.parse().ok()?);
    match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => Some(Route::Robot(id)),
        (Some("trusts"), None, _) => Some(Route::Trusts(id)),
        (Some("trusts"), Some(trust), None) => {
            trust.parse().ok().map(|trust| Route::Trust(id, TrustId(trust)))
        }
        _ => None,
    }
}
