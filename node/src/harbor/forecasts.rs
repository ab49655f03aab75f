//! `/api/v2.0/retentions/PROJECT/forecast`: what a policy would delete today, in a week, in a month.
//! Harbor has only the dry run, which says it of one moment.

use std::collections::BTreeSet;

use ground::clock;
use http::{Method, Response, StatusCode};
use registry::jobs::retentions::{MOST_DAYS, forecast};
use rules::ledger::policies::{LookForPolicies, Policies};
use rules::ledger::records::Project;
use rules::policies::MOST_RULES;
use rules::policies::retention::needs_confirmation;
use serde_json::json;

use super::retentions::{PolicyBody, none};
use super::{Harbor, bad, body};
use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Failure, Payload};

/// The days of a forecast that names none: today, in a week, in a month.
const DAYS: [u32; 3] = [0, 7, 30];
/// The latest day, about ten years from now.
const LATEST: u32 = 3650;
/// The maximum number of repositories that an answer has.
const NAMED: usize = 1000;

/// The days that are asked for, in order.
fn days(written: Option<&str>) -> Result<Vec<u32>, Failure> {
    let Some(written) = written else { return Ok(DAYS.to_vec()) };
    let wrong = || bad(format!("days are up to {MOST_DAYS} numbers from 0 to {LATEST}: 0,7,30"));
    let read = |day: &str| day.trim().parse().ok().filter(|day| *day <= LATEST);
    let days: Option<BTreeSet<u32>> = written.split(',').map(read).collect();
    let days = days.filter(|days| days.len() <= MOST_DAYS).ok_or_else(wrong)?;
    Ok(days.into_iter().collect())
}

impl Harbor {
    /// Says it of the project's policy, or of the one in the body, which is not kept.
    pub(super) async fn show_forecast(
        &self,
        mut request: Request,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        request.knows_only(&["days"])?;
        let days = days(request.query("days"))?;
        let given = match request.method {
            Method::POST => Some(body::<PolicyBody>(&mut request).await?.checked()?),
            _ => None,
        };
        if project.upstream.is_some() {
            return Err(bad("what a project caches is evicted by its use, so it has no policy"));
        }
        if given.as_ref().is_some_and(|given| given.rules.len() > MOST_RULES) {
            return Err(bad(format!("only {MOST_RULES} rules are allowed at most")));
        }
        // each reads all manifests of a project
        let _one = self.forecasts.acquire().await;
        let found = self.read_at_length(|records| {
            let known = records.policies(project.id)?;
            let policies = match &given {
                Some(given) => Policies { retention: Some(given.clone()), ..known },
                None if known.retention.is_none() => return Ok(None),
                None => known,
            };
            let now = clock::timestamp();
            Ok(Some((now, forecast(records, &policies, &project.name, now, &days)?)))
        });
        let (now, mut told) = found.await?.ok_or_else(|| none(project))?;
        let more = told.repositories.len().saturating_sub(NAMED);
        told.repositories.truncate(NAMED);
        let mut shown = json!(&told);
        shown["at"] = json!(now.to_string());
        shown["more_repositories"] = json!(more);
        let now = told.forecast.first().filter(|first| first.days == 0);
        let deleted = now.map_or(0, |first| first.deleted);
        let much = needs_confirmation(deleted, told.artifacts, self.confirm_over);
        shown["confirm_over"] = json!(self.confirm_over);
        shown["has_to_be_confirmed"] = json!(much);
        Ok(json_answer(StatusCode::OK, &shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_a_few_numbers_in_order() {
        assert_eq!(days(None).unwrap(), [0, 7, 30]);
        assert_eq!(days(Some("30, 7,7")).unwrap(), [7, 30]);
        assert_eq!(days(Some("3650")).unwrap(), [3650]);
        for wrong in ["", ",", "1,", "-1", "3651", "x", "1;2", "0,1,2,3,4,5,6,7,8"] {
            let no = days(Some(wrong)).err().unwrap_or_else(|| panic!("{wrong:?} was taken"));
            assert_eq!(no.status(), StatusCode::BAD_REQUEST, "{wrong:?}");
        }
    }
}
