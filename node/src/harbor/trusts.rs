//! `/api/v2.0/robots/ID/trusts`: tokens of other issuers, whose owners are that robot. This is
//! Atoll's own.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use registry::people::{Caller, check_keys};
use rules::ledger::level::Level;
use rules::ledger::people::{LookForPeople, PeopleChange, Robot, TrustRule, TrustTerms};
use rules::people::discovery::Owner;
use rules::people::trusts;
use rules::words::names::{RobotId, TrustId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::robots::check_other;
use super::{Harbor, bad, body, created};
use crate::http::answer::{answer, json_answer};
use crate::http::door::actor;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The paths, as in the table of what each route needs.
const TRUSTS: &str = "/api/v2.0/robots/{id}/trusts";
const TRUST: &str = "/api/v2.0/robots/{id}/trusts/{trust}";

#[derive(Deserialize)]
struct TrustBody {
    issuer: String,
    audience: String,
    subject: String,
    #[serde(default)]
    claims: BTreeMap<String, String>,
    keys: Option<Value>,
}

#[derive(Deserialize)]
struct KeysBody {
    /// `null` has to be written: a body without keys is more likely a mistake.
    #[serde(deserialize_with = "Option::deserialize")]
    keys: Option<Value>,
}

impl Harbor {
    /// The keys as they are recorded. Without any, the issuer is asked for them from now on, so it has
    /// to be one that answers.
    async fn checked(
        &self,
        keys: Option<&Value>,
        issuer: &str,
        robot: &Robot,
    ) -> Result<String, Failure> {
        let Some(keys) = keys else {
            self.writes.check_level(Level::DISCOVERY)?;
            let owner = robot.project.as_ref();
            let owner = owner.map_or(Owner::Mesh, |(id, _)| Owner::Project(*id));
            self.access.try_issuer(issuer, owner).await?;
            return Ok(String::new());
        };
        let keys = keys.to_string();
        check_keys(&keys).map_err(bad)?;
        Ok(keys)
    }

    pub(super) async fn list_trusts(
        &self,
        request: &Request,
        caller: &Caller,
        robot: RobotId,
    ) -> Result<Response<Payload>, Failure> {
        self.their_robot(request, caller, TRUSTS, robot).await?;
        let rules = self.read(|records| records.trusts_of(robot)).await?;
        let shown: Vec<Value> = rules.iter().map(show).collect();
        Ok(json_answer(StatusCode::OK, &json!(shown)))
    }

    pub(super) async fn add_trust(
        &self,
        mut request: Request,
        caller: &Caller,
        robot: RobotId,
    ) -> Result<Response<Payload>, Failure> {
        let found = self.their_robot(&request, caller, TRUSTS, robot).await?;
        check_other(caller, robot)?;
        // whoever makes such tokens can do what the robot can
        self.check_theirs(caller, &found.grants).await?;
        self.check_lasting(caller, found.expires).await?;
        let TrustBody { issuer, audience, subject, claims, keys } = body(&mut request).await?;
        let terms = TrustTerms { issuer, audience, subject, claims };
        trusts::check(&terms).map_err(|e| bad(e.to_string()))?;
        let keys = self.checked(keys.as_ref(), &terms.issuer, &found).await?;
        let change = PeopleChange::AddTrust { robot, terms: terms.clone(), keys };
        self.change_people(
            change,
            "trust rule of this robot with these terms",
            &actor(caller, &request),
        )
        .await?;
        let (rules, _) = self.records.read(|records| records.trusts_of(robot)).await?;
        let made = rules.into_iter().find(|rule| rule.terms == terms);
        let place = |rule: TrustRule| format!("/api/v2.0/robots/{}/trusts/{}", robot.0, rule.id.0);
        Ok(created(made.map(place)))
    }

    /// Replaces the issuer's keys, when it has others, or has it asked for them.
    pub(super) async fn set_trust_keys(
        &self,
        mut request: Request,
        caller: &Caller,
        robot: RobotId,
        id: TrustId,
    ) -> Result<Response<Payload>, Failure> {
        let found = self.their_robot(&request, caller, TRUST, robot).await?;
        check_other(caller, robot)?;
        self.check_theirs(caller, &found.grants).await?;
        self.check_lasting(caller, found.expires).await?;
        let KeysBody { keys } = body(&mut request).await?;
        let rules = self.read(|records| records.trusts_of(robot)).await?;
        let rule = rules.into_iter().find(|rule| rule.id == id);
        let rule = rule.ok_or_else(|| {
            Failure::new(Code::NotFound, format!("there is no trust rule {}", id.0))
        })?;
        let keys = self.checked(keys.as_ref(), &rule.terms.issuer, &found).await?;
        let change = PeopleChange::SetTrustKeys { robot, id, keys };
        self.change_people(change, &format!("trust rule {}", id.0), &actor(caller, &request))
            .await?;
        Ok(answer(StatusCode::OK))
    }

    pub(super) async fn remove_trust(
        &self,
        request: &Request,
        caller: &Caller,
        robot: RobotId,
        id: TrustId,
    ) -> Result<Response<Payload>, Failure> {
        self.their_robot(request, caller, TRUST, robot).await?;
        let change = PeopleChange::RemoveTrust { robot, id };
        self.change_people(change, &format!("trust rule {}", id.0), &actor(caller, request))
            .await?;
        Ok(answer(StatusCode::OK))
    }
}

fn show(rule: &TrustRule) -> Value {
    let TrustTerms { issuer, audience, subject, claims } = &rule.terms;
    // null: the issuer is asked
    let keys = serde_json::from_str::<Value>(&rule.keys).unwrap_or_default();
    json!({
        "id": rule.id.0,
        "issuer": issuer,
        "audience": audience,
        "subject": subject,
        "claims": claims,
        "keys": keys,
        "creation_time": rule.created.to_string(),
    })
}
