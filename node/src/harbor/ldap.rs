//! `/api/v2.0/ldap`: what administrators look up in the LDAP directory, with Harbor's schemas and
//! statuses (its `src/server/v2.0/handler/ldap.go`). And `/api/v2.0/system/oidc/ping`, which tries an
//! OIDC provider (`handler/oidc.go`).

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use registry::people::{ListedGroup, ListedPerson, WantedGroups};
use rules::ledger::directory::LookForGroups;
use rules::ledger::events::Actor;
use rules::people::configurations::{check_all, is_issuer};
use rules::people::groups::subject;
use rules::words::roles::Provider;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Harbor, bad, body};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The maximum number of people who are imported with one request.
const IMPORTED: usize = 100;

/// Harbor's `LdapConf` has these beside the names of settings. They have no meaning here.
const IGNORED: [&str; 1] = ["ldap_connection_timeout"];

/// Harbor's body of a ping of an OIDC provider.
#[derive(Deserialize)]
struct Provided {
    url: String,
    /// Anything but `true` is refused: a CA of its own goes into `upstreams.ca`.
    #[serde(default = "yes")]
    verify_cert: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Import {
    ldap_uid_list: Vec<String>,
}

fn not_ldap() -> Failure {
    let message = "nobody signs in with LDAP here: set auth_mode to ldap_auth in /configurations";
    Failure::new(Code::Precondition, message)
}

impl Harbor {
    /// Tries settings before they are recorded. What the body does not say, or says with an empty
    /// text, is as it is now. The password that is known is never sent to another server.
    pub(super) async fn ping_ldap(
        &self,
        mut request: Request,
    ) -> Result<Response<Payload>, Failure> {
        let whole = request.body.whole(super::BODY).await?;
        let mut written: BTreeMap<String, Value> = match whole.is_empty() {
            true => BTreeMap::new(),
            false => serde_json::from_slice(&whole).map_err(|e| bad(format!("the body: {e}")))?,
        };
        written.retain(|name, value| !IGNORED.contains(&name.as_str()) && !is_unsaid(value));
        if let Some(other) = written.keys().find(|name| !name.starts_with("ldap_")) {
            return Err(bad(format!("{other} is no setting of LDAP")));
        }
        written.insert("auth_mode".into(), "ldap_auth".into());
        let was = self.read(|records| records.configurations()).await?;
        let (tried, changed) = self.with_settings(&was, &written)?;
        check_all(&was, &tried, &changed).map_err(|e| bad(e.to_string()))?;
        let said = self.access.ping_ldap(&tried).await;
        let message = said.as_ref().err().map(|why| format!("error: {why}")).unwrap_or_default();
        Ok(json_answer(StatusCode::OK, &json!({"success": said.is_ok(), "message": message})))
    }

    /// Tries an OIDC provider before it is recorded. As in Harbor, one that does not answer as it
    /// should is the caller's mistake.
    pub(super) async fn ping_oidc(
        &self,
        mut request: Request,
    ) -> Result<Response<Payload>, Failure> {
        let Provided { url, verify_cert } = body(&mut request).await?;
        if !verify_cert {
            return Err(bad(
                "verify_cert is true: name the CA of the provider in upstreams.ca of each replica",
            ));
        }
        if !is_issuer(&url) {
            return Err(bad("url is https://HOST/PATH, or http on this machine, without a query"));
        }
        match self.access.ping_oidc(&url).await {
            Ok(()) => Ok(answer(StatusCode::OK)),
            Err(why) => Err(bad(format!("the OIDC provider cannot be used: {why}"))),
        }
    }

    pub(super) async fn search_ldap_people(
        &self,
        request: &Request,
    ) -> Result<Response<Payload>, Failure> {
        let name = request.query("username").unwrap_or_default();
        let found = self.access.search_ldap_people(name).await?.ok_or_else(not_ldap)?;
        let show = |one: &ListedPerson| json!({"username": one.name, "realname": one.real_name, "email": one.email});
        let shown: Vec<Value> = found.iter().map(show).collect();
        Ok(json_answer(StatusCode::OK, &json!(shown)))
    }

    pub(super) async fn search_ldap_groups(
        &self,
        request: &Request,
    ) -> Result<Response<Payload>, Failure> {
        let said = |name: &str| request.query(name).filter(|text| !text.is_empty());
        let which = match (said("groupname"), said("groupdn")) {
            (Some(name), _) => WantedGroups::Named(name.to_owned()),
            (None, Some(dn)) if subject(Provider::Ldap, dn).is_some() => {
                WantedGroups::At(dn.to_owned())
            }
            (None, Some(_)) => return Err(bad("groupdn is no distinguished name")),
            (None, None) => return Err(bad("groupname or groupdn is needed")),
        };
        let found = self.access.search_ldap_groups(&which).await?.ok_or_else(not_ldap)?;
        if found.is_empty() {
            return Err(Failure::new(Code::NotFound, "the directory has no such group"));
        }
        let show = |one: &ListedGroup| {
            let kind = Provider::Ldap.number();
            json!({"group_name": one.name, "ldap_group_dn": one.dn, "group_type": kind})
        };
        let shown: Vec<Value> = found.iter().map(show).collect();
        Ok(json_answer(StatusCode::OK, &json!(shown)))
    }

    /// Gives people of the directory accounts. Those who get none are in the answer, with the reason.
    pub(super) async fn import_from_ldap(
        &self,
        mut request: Request,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let Import { ldap_uid_list: names } = body(&mut request).await?;
        if names.is_empty() || names.len() > IMPORTED {
            return Err(bad(format!("ldap_uid_list has 1 to {IMPORTED} names")));
        }
        let mut failed = Vec::new();
        for name in &names {
            let made = self.access.import_from_ldap(name, by).await?.ok_or_else(not_ldap)?;
            if let Err(why) = made {
                failed.push(json!({"uid": name, "error": why.word()}));
            }
        }
        Ok(match failed.is_empty() {
            true => answer(StatusCode::OK),
            false => json_answer(StatusCode::NOT_FOUND, &json!(failed)),
        })
    }
}

/// Clients send all fields of Harbor's schema, those too that nobody has filled in.
fn is_unsaid(value: &Value) -> bool {
    value.is_null() || value == ""
}
