//! `/api/v2.0/projects`: Harbor's schemas and statuses (its `api/v2.0/swagger.yaml`), with
//! `durability` as additional metadata.

use std::collections::BTreeMap;

use http::{HeaderName, Method, Response, StatusCode};
use registry::people::Caller;
use rules::ledger::change::Change;
use rules::ledger::command::{Command, EquippedProject, NewProject, Outcome};
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::policies::LookForPolicies;
use rules::ledger::records::{EDGES, Look, Project, ReadRecords, SPARSE_IMAGES, SPARSE_INDEXES};
use rules::ledger::scanning::LookForScans;
use rules::ledger::signatures::LookForSignatures;
use rules::members::placement::{self, Candidate};
use rules::people::access::{Identity, RegistryScope};
use rules::people::roles::of_everybody;
use rules::policies::alone::ALONE;
use rules::policies::caching::UNUSED_AFTER;
use rules::policies::quota::Limits;
use rules::policies::signatures;
use rules::policies::signatures::metadata::REQUIRE;
use rules::policies::trash::TRASH;
use rules::policies::vulnerabilities::{self, Allowlist};
use rules::proxies::proxy::{ProxyChange, ProxyRules, patterns};
use rules::wire::WriteKind;
use rules::words::names::{ProjectName, UpstreamId};
use rules::words::query::{self, Field, Kind, number, text};
use rules::words::roles::{Operation, Permission, ProjectRole, Resource};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::metadata::kept;
use super::quotas::limits_of_new;
use super::scanning::{AllowlistBody, show_allowlist};
use super::{Harbor, bad, body, created, missing, retentions};
use crate::http::answer::{answer, json_answer};
use crate::http::door::actor;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};
use registry::writes::Refusal;

/// With this header a client says that it wants a name in `Location`.
const NAME_IN_LOCATION: HeaderName = HeaderName::from_static("x-resource-name-in-location");
/// The values that `durability` may have.
const DURABILITY: std::ops::RangeInclusive<u32> = 1..=5;

/// What `q` and `sort` may be about.
const FIELDS: &[Field<(Project, Option<ProjectRole>)>] = &[
    Field::new("name", Kind::Text, |(project, _)| text(project.name.as_str())),
    Field::new("project_id", Kind::Number, |(project, _)| number(project.id.0)),
    Field::new("public", Kind::Flag, |(project, _)| query::Value::Flag(project.public)),
    Field::new("registry_id", Kind::Number, |(project, _)| {
        number(project.upstream.map_or(0, |id| id.0))
    }),
    Field::new("creation_time", Kind::Time, |(project, _)| query::Value::Time(project.created)),
];

#[derive(Deserialize, Default)]
struct ProjectBody {
    project_name: Option<String>,
    public: Option<bool>,
    registry_id: Option<u64>,
    /// In bytes; -1 is no limit. Of an update it is not read, as in Harbor.
    storage_limit: Option<i64>,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    cve_allowlist: Option<AllowlistBody>,
}

#[derive(Deserialize, Default)]
struct Metadata {
    public: Option<String>,
    durability: Option<String>,
    proxy_cache_filter_pattern: Option<String>,
    proxy_cache_deny_pattern: Option<String>,
    proxy_cache_local_on_not_found: Option<String>,
    sparse_indexes: Option<String>,
    sparse_images: Option<String>,
    edges: Option<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// A checked request.
struct CheckedProject {
    public: Option<bool>,
    durability: Option<u32>,
    proxy: ProxyChange,
    metadata: BTreeMap<String, String>,
}

fn flag(name: &str, text: Option<&str>) -> Result<Option<bool>, Failure> {
    match text {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => {
            Err(Failure::new(Code::BadRequest, format!("metadata.{name} is \"true\" or \"false\"")))
        }
    }
}

/// Whether this has images of a project scanned that caches a registry.
fn scans_cached(metadata: &BTreeMap<String, String>, caches: bool) -> bool {
    let on = |key: &str| metadata.get(key).is_some_and(|value| value == "true");
    caches && (on(vulnerabilities::metadata::PREVENT) || on(vulnerabilities::metadata::AUTO_SCAN))
}

/// The feature level that these entries of a project's metadata need.
fn level_of(metadata: &BTreeMap<String, String>, caches: bool) -> Option<Level> {
    if caches && metadata.contains_key(ALONE) {
        return Some(Level::REVOCATIONS);
    }
    match (caches && signatures::is_on(metadata), scans_cached(metadata, caches)) {
        (true, _) => Some(Level::CACHED_SIGNATURES),
        (false, true) => Some(Level::CACHED_SCANS),
        (false, false) => None,
    }
}

/// The feature level that these entries of the metadata of a project need that caches none: below it
/// they would do nothing, and begin to with a raise, when nobody thinks of them.
fn level_of_own(metadata: &BTreeMap<String, String>) -> Option<Level> {
    let on = |key: &str| metadata.get(key).is_some_and(|value| value == "true");
    let scans = on(vulnerabilities::metadata::PREVENT) || on(vulnerabilities::metadata::AUTO_SCAN);
    let needs = [
        (metadata.contains_key(TRASH), Level::TRASH),
        (metadata.contains_key(ALONE), Level::REVOCATIONS),
        (signatures::is_on(metadata), Level::SIGNATURES),
        (scans, Level::SCANS),
    ];
    needs.into_iter().filter(|(says, _)| *says).map(|(_, level)| level).max()
}

/// What is cached of another registry is scanned when it is pulled, and at no other times; and it is
/// signed there.
fn check_cached(metadata: &BTreeMap<String, String>, caches: bool) -> Result<(), Failure> {
    let schedule = metadata.get(vulnerabilities::metadata::SCHEDULE);
    if caches && schedule.is_some_and(|value| value != "none") {
        return Err(bad(
            "a project that caches a registry is scanned when it is pulled from: it has no scan_schedule",
        ));
    }
    if caches && metadata.get(signatures::metadata::AUTO).is_some_and(|value| !value.is_empty()) {
        return Err(bad(
            "a project that caches a registry signs nothing: it has no signature_auto",
        ));
    }
    Ok(())
}

/// An age without pulls has a meaning only where a registry is cached: what was pushed would not come
/// back.
fn check_unused_after(metadata: &BTreeMap<String, String>, caches: bool) -> Result<(), Failure> {
    if !caches && metadata.contains_key(UNUSED_AFTER) {
        return Err(bad(format!(
            "metadata.{UNUSED_AFTER} is for projects that cache a registry; what is pushed here goes by a retention policy: atoll retention apply"
        )));
    }
    Ok(())
}

/// A signer that is required and not there would refuse everything.
fn check_required(
    metadata: &BTreeMap<String, String>,
    signers: &[signatures::Signer],
    project: &ProjectName,
) -> Result<(), Failure> {
    match metadata.get(REQUIRE).and_then(|text| signatures::unknown_in(text, signers)) {
        None => Ok(()),
        Some(name) if name == signatures::MESH => Err(bad(format!(
            "metadata.{REQUIRE}: project {project} has no key of its own yet: atoll sign key --project {project}"
        ))),
        Some(name) => Err(bad(format!(
            "metadata.{REQUIRE}: project {project} trusts no signer {name}: atoll signer add {name} --project {project}"
        ))),
    }
}

fn list(name: &str, text: Option<&str>) -> Result<Option<Vec<String>>, Failure> {
    let read = |text| {
        patterns(text).map_err(|e| Failure::new(Code::BadRequest, format!("metadata.{name}: {e}")))
    };
    text.map(read).transpose()
}

impl ProjectBody {
    fn asked(&self) -> Result<CheckedProject, Failure> {
        let metadata = &self.metadata;
        let public = flag("public", metadata.public.as_deref())?.or(self.public);
        let durability = match self.metadata.durability.as_deref().map(str::parse::<u32>) {
            None => None,
            Some(Ok(regions)) if DURABILITY.contains(&regions) => Some(regions),
            Some(_) => {
                let message = "metadata.durability is a number of regions, \"1\" to \"5\"";
                return Err(Failure::new(Code::BadRequest, message));
            }
        };
        let proxy = ProxyChange {
            allow: list(
                "proxy_cache_filter_pattern",
                metadata.proxy_cache_filter_pattern.as_deref(),
            )?,
            deny: list("proxy_cache_deny_pattern", metadata.proxy_cache_deny_pattern.as_deref())?,
            local_on_not_found: flag(
                "proxy_cache_local_on_not_found",
                metadata.proxy_cache_local_on_not_found.as_deref(),
            )?,
        };
        let mut others = kept(&metadata.rest)?;
        for (name, text) in
            [(SPARSE_INDEXES, &metadata.sparse_indexes), (SPARSE_IMAGES, &metadata.sparse_images)]
        {
            if let Some(allowed) = flag(name, text.as_deref())? {
                others.insert(name.to_owned(), allowed.to_string());
            }
        }
        if let Some(edges) = list("edges", metadata.edges.as_deref())? {
            others.insert(EDGES.to_owned(), edges.join(","));
        }
        Ok(CheckedProject { public, durability, proxy, metadata: others })
    }
}

/// The metadata of a project, as it is shown.
pub(super) fn metadata_of(project: &Project) -> BTreeMap<String, String> {
    let mut metadata = project.metadata.clone();
    metadata.insert("public".into(), project.public.to_string());
    metadata.insert("durability".into(), project.durability.to_string());
    if project.upstream.is_some() {
        let ProxyRules { allow, deny, local_on_not_found } = &project.proxy;
        metadata.insert("proxy_cache_filter_pattern".into(), allow.join(","));
        metadata.insert("proxy_cache_deny_pattern".into(), deny.join(","));
        metadata.insert("proxy_cache_local_on_not_found".into(), local_on_not_found.to_string());
    }
    metadata
}

impl Harbor {
    /// The projects that the caller may see: public ones, and those that they are a member of. With
    /// their role there.
    pub(super) async fn seen_projects(
        &self,
        caller: &Caller,
    ) -> Result<Vec<(Project, Option<ProjectRole>)>, Failure> {
        // with a token that is not for the API, a caller sees what everybody may
        let caller = match self.access.signed_in(caller, RegistryScope::Api) {
            Ok(()) => caller.identity.clone(),
            Err(_) => Identity::Anonymous,
        };
        let see = Permission::new(Resource::Project, Operation::Read);
        let look = |records: &dyn ReadRecords| {
            let mut seen = Vec::new();
            for project in records.projects()? {
                if caller.may(records, see, &project)? {
                    let role = caller.role(records, &project)?;
                    seen.push((project, role));
                }
            }
            Ok(seen)
        };
        self.read_at_length(look).await
    }

    /// The projects that the caller may see.
    pub(super) async fn list_projects(
        &self,
        request: &Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let public = flag("public", request.query("public"))?;
        let mut projects = self.seen_projects(caller).await?;
        // Harbor's clients ask so whether a project exists
        if let (&Method::HEAD, Some(name)) = (&request.method, request.query("project_name")) {
            let exists = projects.iter().any(|(project, _)| project.name.as_str() == name);
            let message = format!("there is no project {name}, or you may not see it");
            return match exists {
                true => Ok(answer(StatusCode::OK)),
                false => Err(Failure::new(Code::NameUnknown, message)),
            };
        }
        projects.retain(|(project, _)| public.is_none_or(|public| public == project.public));
        wanted.answer_chosen(
            projects,
            FIELDS,
            |(project, _)| project.name.as_str(),
            |(project, role)| self.show_in(project, *role),
        )
    }

    pub(super) async fn show_project(
        &self,
        caller: &Caller,
        project: Project,
    ) -> Result<Response<Payload>, Failure> {
        let role = self.read(|records| caller.identity.role(records, &project)).await?;
        let mut shown = self.show_in(&project, role);
        // an edge is not told of it
        if !self.neighbours.is_edge() {
            let policies = self.read(|records| records.policies(project.id)).await?;
            if policies.retention.is_some() {
                shown["metadata"]["retention_id"] = project.id.0.to_string().into();
            }
            let list = self.read(|records| records.allowlist(project.id)).await?;
            shown["cve_allowlist"] = show_allowlist(&list, project.id.0);
        }
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Creates a project. A user who creates it becomes its admin.
    pub(super) async fn create_project(
        &self,
        mut request: Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let written: ProjectBody = body(&mut request).await?;
        let name = written.project_name.as_deref().unwrap_or_default();
        let name: ProjectName = name.parse().map_err(|e| bad(format!("project_name: {e}")))?;
        let mut asked = written.asked()?;
        let list = written.cve_allowlist.clone().map(AllowlistBody::checked).transpose()?;
        asked.metadata.entry(SPARSE_INDEXES.to_owned()).or_insert_with(|| "true".to_owned());
        // Harbor's clients send 0 or null for a project without an upstream
        let upstream = written.registry_id.filter(|id| *id != 0).map(UpstreamId);
        if upstream.is_some() && !caller.identity.is_administrator() {
            let message = "only an administrator may create a project that caches another registry";
            return Err(Failure::new(Code::Denied, message));
        }
        self.check_edges_are_kept_out(&asked.metadata)?;
        check_cached(&asked.metadata, upstream.is_some())?;
        check_unused_after(&asked.metadata, upstream.is_some())?;
        let needs = match upstream {
            Some(_) => level_of(&asked.metadata, true),
            None => level_of_own(&asked.metadata),
        };
        if let Some(level) = needs {
            self.writes.check_level(level)?;
        }
        check_required(&asked.metadata, &[], &name)?;
        let mut load = BTreeMap::new();
        for project in self.records.view()?.projects()? {
            *load.entry(project.home).or_insert(0) += 1;
        }
        let alive: Vec<Candidate> = self.neighbours.taking();
        let home = placement::primary(&name, &self.neighbours.region, &alive, &load)
            .unwrap_or(self.neighbours.me);
        let new = NewProject {
            name: name.clone(),
            public: asked.public.unwrap_or(false),
            durability: asked.durability.unwrap_or(self.durability),
            home,
            upstream,
            proxy: asked.proxy,
            metadata: asked.metadata.clone(),
        };
        let administers = caller.identity.is_administrator();
        let settings = self.settings().await?;
        let limits = limits_of_new(&settings, written.storage_limit, administers)?;
        let is_limited = administers && written.storage_limit.is_some_and(|limit| limit > 0);
        let limits = match upstream {
            None => limits,
            Some(_) if is_limited => {
                return Err(bad(
                    "a project that caches another registry has no quota: storage_limit is -1",
                ));
            }
            Some(_) => Limits::default(),
        };
        let owner = match &caller.identity {
            Identity::User(user) => Some(user.id),
            _ => None,
        };
        let level = self.records.view()?.level()?;
        let retention = match upstream {
            None if level >= Level::QUOTAS => retentions::of_new(&settings)?,
            _ => None,
        };
        let command = match owner {
            // below the level the settings have no effect yet, and what is written is refused
            _ if level >= Level::QUOTAS || is_limited => {
                let retention = retention.clone();
                let new = EquippedProject { project: new, owner, limits, retention };
                Command::CreateEquippedProject(Box::new(new))
            }
            Some(owner) => Command::CreateOwnedProject { owner, project: Box::new(new) },
            None => Command::CreateProject(new),
        };
        self.propose(command, &format!("project {name}"), &actor(caller, &request)).await.map_err(
            |failure| match failure.status() {
                StatusCode::NOT_FOUND => bad("there is no registry with this registry_id"),
                _ => failure,
            },
        )?;
        if let Some(retention) = &retention {
            self.schedule_retention(&name, retention, &actor(caller, &request)).await?;
        }
        self.schedule_scans(&name, &asked.metadata, &actor(caller, &request)).await?;
        if let Some(list) = list.filter(|list| *list != Allowlist::default()) {
            self.set_allowlist(&name, list, &actor(caller, &request)).await?;
        }
        let by_name = request
            .header(&NAME_IN_LOCATION)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let (made, _) = self.records.read(|records| records.project(&name)).await?;
        let place = made.map(|made| if by_name { name.to_string() } else { made.id.to_string() });
        Ok(created(place.map(|place| format!("/api/v2.0/projects/{place}"))))
    }

    pub(super) async fn configure_project(
        &self,
        mut request: Request,
        caller: &Caller,
        project: Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written = body::<ProjectBody>(&mut request).await?;
        let asked = written.asked()?;
        let list = written.cve_allowlist.map(AllowlistBody::checked).transpose()?;
        let name = project.name.clone();
        let configured = self.configure_as_asked(caller, project, asked, by).await?;
        if let Some(list) = list {
            self.set_allowlist(&name, list, by).await?;
        }
        Ok(configured)
    }

    /// Changes one entry of a project's metadata.
    pub(super) async fn configure_entry(
        &self,
        caller: &Caller,
        project: Project,
        key: &str,
        value: &str,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written = json!({"metadata": {key: value}});
        let written: ProjectBody =
            serde_json::from_value(written).map_err(|e| bad(format!("metadata.{key}: {e}")))?;
        self.configure_as_asked(caller, project, written.asked()?, by).await
    }

    async fn configure_as_asked(
        &self,
        caller: &Caller,
        project: Project,
        asked: CheckedProject,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let CheckedProject { public, durability, proxy, metadata } = asked;
        self.check_edges_are_kept_out(&metadata)?;
        check_cached(&metadata, project.upstream.is_some())?;
        // what was written before this was refused may be sent back unchanged
        if metadata.get(UNUSED_AFTER) != project.metadata.get(UNUSED_AFTER) {
            check_unused_after(&metadata, project.upstream.is_some())?;
        }
        let needs = match project.upstream {
            Some(_) => level_of(&metadata, true),
            // what is sent back unchanged is not looked at again
            None => {
                let known = &project.metadata;
                let new = metadata.iter().filter(|(key, value)| known.get(*key) != Some(*value));
                level_of_own(&new.map(|(key, value)| (key.clone(), value.clone())).collect())
            }
        };
        if let Some(level) = needs {
            self.writes.check_level(level)?;
        }
        // what is sent back unchanged is not looked at again
        if metadata.get(REQUIRE) != project.metadata.get(REQUIRE) {
            let trusted = self.read(|records| records.trusted(project.id)).await?;
            check_required(&metadata, &trusted.signers, &project.name)?;
        }
        if public == Some(true) && !project.public {
            // everybody gets what only members had: who opens a project has all of that
            self.check_theirs_in(caller, &project, &of_everybody().collect::<Vec<_>>()).await?;
        }
        let name = project.name;
        self.schedule_scans(&name, &metadata, by).await?;
        self.commit(Change::Configure { name, public, durability, proxy, metadata }, by).await?;
        Ok(Response::new(Payload::empty()))
    }

    /// Only from a feature level on do all replicas keep edges from what they may not serve.
    fn check_edges_are_kept_out(&self, metadata: &BTreeMap<String, String>) -> Result<(), Failure> {
        if metadata.contains_key(EDGES) {
            self.writes.check_level(Level::EDGES)?;
        }
        Ok(())
    }

    pub(super) async fn delete_project(
        &self,
        project: Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let change = Change::Delete { name: project.name };
        // a large cache is deleted in parts; if this breaks off, the next DELETE finishes it
        while self.commit(change.clone(), by).await? == Outcome::Unfinished {}
        Ok(Response::new(Payload::empty()))
    }

    /// Commits through the project's primary.
    pub(super) async fn commit(&self, change: Change, by: &Actor) -> Result<Outcome, Failure> {
        let name = change.project();
        match self.writes.commit(&name, WriteKind::Fenced(change), by).await {
            Ok(outcome) => Ok(outcome),
            Err(Refusal::NotFound) => Err(missing(&name)),
            Err(Refusal::Conflict(reason)) => Err(Failure::new(Code::Precondition, reason)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    pub(super) fn show_in(&self, project: &Project, role: Option<ProjectRole>) -> Value {
        json!({
            "project_id": project.id.0,
            "name": project.name.as_str(),
            "creation_time": project.created.to_string(),
            "metadata": metadata_of(project),
            "registry_id": project.upstream.map(|id| id.0),
            "primary": self.neighbours.name_of(project.primary),
            "home": self.neighbours.name_of(project.home),
            "epoch": project.epoch.get(),
            "current_user_role_id": role.map_or(0, ProjectRole::number),
            "current_user_role_ids": role.map(ProjectRole::number).into_iter().collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_do_nothing_below_a_level_needs_that_level() {
        let level = |entries: &[(&str, &str)]| {
            let entry = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            level_of_own(&entries.iter().map(entry).collect())
        };
        assert_eq!(level(&[("severity", "high"), ("prevent_vul", "false")]), None);
        assert_eq!(level(&[("prevent_vul", "true")]), Some(Level::SCANS));
        assert_eq!(level(&[("signature_policy", "off")]), None);
        let both = [("auto_scan", "true"), ("signature_policy", "warn")];
        assert_eq!(level(&both), Some(Level::SIGNATURES));
        assert_eq!(level(&[("trash", "7d"), both[0], both[1]]), Some(Level::TRASH));
    }
}
