//! `/api/v2.0/projects/NAME/metadatas`: a project's metadata, entry by entry, with Harbor's statuses
//! (`src/server/v2.0/handler/project_metadata.go`).

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use registry::people::Caller;
use rules::ledger::change::Change;
use rules::ledger::events::Actor;
use rules::ledger::records::Project;
use rules::policies::keys;
use rules::policies::vulnerabilities::metadata::{SCANNER, SCHEDULE};
use serde_json::json;

use super::projects::metadata_of;
use super::{Harbor, bad, body};
use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// Entries that every project has, with the value that they have when they are deleted. `None`: the
/// node's own default.
const ALWAYS: [(&str, Option<&str>); 2] = [("public", Some("false")), ("durability", None)];
/// The same of a project that caches a registry.
const OF_PROXIES: [(&str, &str); 3] = [
    ("proxy_cache_filter_pattern", ""),
    ("proxy_cache_deny_pattern", ""),
    ("proxy_cache_local_on_not_found", "false"),
];
/// Harbor's entries that are `true` or `false`.
const FLAGS: [&str; 6] = [
    "auto_sbom_generation",
    "auto_scan",
    "enable_content_trust",
    "enable_content_trust_cosign",
    "prevent_vul",
    "reuse_sys_cve_allowlist",
];
/// Harbor's severities.
const SEVERITIES: [&str; 5] = ["none", "low", "medium", "high", "critical"];

/// Checks that a project can have this entry.
fn check(project: &Project, key: &str, value: &str) -> Result<(), Failure> {
    let of_proxies = OF_PROXIES.iter().any(|(name, _)| *name == key);
    if of_proxies && project.upstream.is_none() {
        return Err(bad(format!("{key}: this project caches no registry")));
    }
    if !keys::is_known(key) {
        return Err(bad(format!("invalid key: {key}")));
    }
    if FLAGS.contains(&key) && !matches!(value, "true" | "false") {
        return Err(bad(format!("{key} is \"true\" or \"false\"")));
    }
    if key == "severity" && !SEVERITIES.contains(&value) {
        return Err(bad(format!("severity is one of {}", SEVERITIES.join(", "))));
    }
    Ok(())
}

fn missing(project: &Project, key: &str) -> Failure {
    Failure::new(Code::NotFound, format!("project {} has no metadata {key}", project.name))
}

/// All entries.
pub(super) fn list(project: &Project) -> Response<Payload> {
    json_answer(StatusCode::OK, &json!(metadata_of(project)))
}

/// One entry.
pub(super) fn show(project: &Project, key: &str) -> Result<Response<Payload>, Failure> {
    let value = metadata_of(project).remove(key).ok_or_else(|| missing(project, key))?;
    Ok(json_answer(StatusCode::OK, &json!({key: value})))
}

impl Harbor {
    /// Adds the one entry in the body.
    pub(super) async fn add_entry(
        &self,
        mut request: Request,
        caller: &Caller,
        project: Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: BTreeMap<String, String> = body(&mut request).await?;
        let mut entries = written.into_iter();
        let (Some((key, value)), None) = (entries.next(), entries.next()) else {
            return Err(bad("only one key with its value is allowed"));
        };
        check(&project, &key, &value)?;
        if metadata_of(&project).contains_key(&key) {
            let message = format!("project {} has metadata {key} already", project.name);
            return Err(Failure::new(Code::Conflict, message));
        }
        self.configure_entry(caller, project, &key, &value, by).await
    }

    /// Changes an entry to what the body has under its key.
    pub(super) async fn set_entry(
        &self,
        mut request: Request,
        caller: &Caller,
        project: Project,
        key: &str,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: BTreeMap<String, String> = body(&mut request).await?;
        let value = written.get(key).ok_or_else(|| bad(format!("the body has no {key}")))?;
        check(&project, key, value)?;
        if !metadata_of(&project).contains_key(key) {
            return Err(missing(&project, key));
        }
        self.configure_entry(caller, project, key, value, by).await
    }

    /// Deletes an entry. What every project has gets its default again.
    pub(super) async fn forget_entry(
        &self,
        caller: &Caller,
        project: Project,
        key: &str,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        // which scanner a project has is chosen under its own path, by who may
        if !metadata_of(&project).contains_key(key) || key == SCANNER {
            return Err(missing(&project, key));
        }
        let durability = self.durability.to_string();
        let own = ALWAYS.iter().map(|(name, value)| (*name, value.unwrap_or(&durability)));
        if let Some((_, value)) = own.chain(OF_PROXIES).find(|(name, _)| *name == key) {
            return self.configure_entry(caller, project, key, value, by).await;
        }
        if key == SCHEDULE {
            let none = BTreeMap::from([(key.to_owned(), "none".to_owned())]);
            self.schedule_scans(&project.name, &none, by).await?;
        }
        let change = Change::ForgetMetadata { name: project.name.clone(), key: key.to_owned() };
        self.commit(change, by).await?;
        Ok(Response::new(Payload::empty()))
    }
}
