//! `/api/v2.0/projects`: Harbor's schemas and statuses (its `api/v2.0/swagger.yaml`), with
//! `durability` as additional metadata.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use rules::ledger::change::Change;
use rules::ledger::command::{Command, NewProject, Outcome};
use rules::ledger::records::{Look, Project, ReadRecords};
use rules::members::placement::{self, Candidate};
use rules::proxies::proxy::{ProxyChange, ProxyRules, patterns};
use rules::wire::WriteKind;
use rules::words::names::{OperationId, ProjectId, ProjectName, UpstreamId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Harbor;
use super::lists::PageRequest;
use super::metadata::kept;
use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};
use registry::writes::{Refusal, settle};

/// The maximum size of a request's body in bytes.
const BODY: u64 = 64 << 10;
/// With these headers a client says that the last part of a path is a name, and that it wants a
/// name in `Location`.
const IS_NAME: HeaderName = HeaderName::from_static("x-is-resource-name");
const NAME_IN_LOCATION: HeaderName = HeaderName::from_static("x-resource-name-in-location");
/// The values that `durability` may have.
const DURABILITY: std::ops::RangeInclusive<u32> = 1..=5;

#[derive(Deserialize, Default)]
struct ProjectBody {
    project_name: Option<String>,
    public: Option<bool>,
    registry_id: Option<u64>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    public: Option<String>,
    durability: Option<String>,
    proxy_cache_filter_pattern: Option<String>,
    proxy_cache_deny_pattern: Option<String>,
    proxy_cache_local_on_not_found: Option<String>,
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

fn list(name: &str, text: Option<&str>) -> Result<Option<Vec<String>>, Failure> {
    let read = |text| {
        patterns(text).map_err(|e| Failure::new(Code::BadRequest, format!("metadata.{name}: {e}")))
    };
    text.map(read).transpose()
}

impl ProjectBody {
    async fn read(request: &mut Request) -> Result<Self, Failure> {
        let bytes = request.body.whole(BODY).await?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Failure::new(Code::BadRequest, format!("the body: {e}")))
    }

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
        Ok(CheckedProject { public, durability, proxy, metadata: kept(&metadata.rest)? })
    }
}

impl Harbor {
    pub(super) async fn list_projects(
        &self,
        request: &Request,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let (projects, _) = self.records.read(|records| records.projects()).await?;
        Ok(wanted.answer(&projects, |project| project.name.as_str(), |project| self.show(project)))
    }

    pub(super) async fn show_project(
        &self,
        request: &Request,
        written: ProjectName,
    ) -> Result<Response<Payload>, Failure> {
        let project = self.project(request, &written).await?;
        Ok(json_answer(StatusCode::OK, &self.show(&project)))
    }

    /// The project that a path names. Digits are a project's number if there is one, unless the
    /// client says that it sends names (Harbor's `X-Is-Resource-Name`).
    async fn project(&self, request: &Request, written: &ProjectName) -> Result<Project, Failure> {
        let named =
            request.header(&IS_NAME).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let number = written
            .as_str()
            .parse()
            .ok()
            .filter(|n: &u64| !named && n.to_string() == written.as_str());
        let changes = !matches!(request.method, Method::GET | Method::HEAD);
        let look = |records: &dyn ReadRecords| {
            let by_name = records.project(written)?;
            let by_number =
                number.map(|n| records.project_numbered(ProjectId(n))).transpose()?.flatten();
            Ok(match (by_number, by_name) {
                // as in Harbor, digits are a number; the client may mean a deleted project by it,
                // and a project with that name must not be changed in its place
                (None, Some(by_name)) if changes && number.is_some() => Err(by_name.name),
                (by_number, by_name) => Ok(by_number.or(by_name)),
            })
        };
        let (project, _) = self.records.read(|records| look(records)).await?;
        let unclear = |name: ProjectName| {
            let message = format!(
                "{name} is a project's name and may be a number: send X-Is-Resource-Name: true for the name"
            );
            Failure::new(Code::Conflict, message)
        };
        project.map_err(unclear)?.ok_or_else(|| missing(written))
    }

    pub(super) async fn create_project(
        &self,
        mut request: Request,
    ) -> Result<Response<Payload>, Failure> {
        let written = ProjectBody::read(&mut request).await?;
        let name = written.project_name.as_deref().unwrap_or_default();
        let name: ProjectName = name.parse().map_err(|e: rules::words::names::BadName| {
            Failure::new(Code::BadRequest, format!("project_name: {e}"))
        })?;
        let asked = written.asked()?;
        // Harbor's clients send 0 or null for a project without an upstream
        let upstream = written.registry_id.filter(|id| *id != 0).map(UpstreamId);
        self.writes.ready().await?;
        let alive: Vec<Candidate> = self.neighbours.alive();
        let mut load = BTreeMap::new();
        for project in self.records.view()?.projects()? {
            *load.entry(project.home).or_insert(0) += 1;
        }
        let home = placement::primary(&name, &self.neighbours.region, &alive, &load)
            .unwrap_or(self.neighbours.me);
        let command = Command::CreateProject(NewProject {
            name: name.clone(),
            public: asked.public.unwrap_or(false),
            durability: asked.durability.unwrap_or(self.durability),
            home,
            upstream,
            proxy: asked.proxy,
            metadata: asked.metadata,
        });
        self.writes.check_level(command.level())?;
        let proposed =
            self.records.propose(OperationId(rand::random()), command, self.terms.commit).await;
        let proposed = proposed.map_err(|e| Failure::new(Code::Unavailable, e.to_string()))?;
        match settle(proposed.outcome) {
            Ok(_) => {}
            Err(Refusal::Exists) => {
                return Err(Failure::new(Code::Conflict, format!("project {name} exists already")));
            }
            Err(Refusal::NotFound) => {
                return Err(Failure::new(
                    Code::BadRequest,
                    "there is no registry with this registry_id",
                ));
            }
            Err(refusal) => return Err(refusal.into()),
        }
        let by_name = request
            .header(&NAME_IN_LOCATION)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let (made, _) = self.records.read(|records| records.project(&name)).await?;
        let place = made.map(|made| if by_name { name.to_string() } else { made.id.to_string() });
        let mut response = Response::new(Payload::empty());
        *response.status_mut() = StatusCode::CREATED;
        if let Some(place) = place
            && let Ok(location) = HeaderValue::from_str(&format!("/api/v2.0/projects/{place}"))
        {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    }

    pub(super) async fn configure_project(
        &self,
        mut request: Request,
        written: ProjectName,
    ) -> Result<Response<Payload>, Failure> {
        let CheckedProject { public, durability, proxy, metadata } =
            ProjectBody::read(&mut request).await?.asked()?;
        let name = self.project(&request, &written).await?.name;
        self.commit(Change::Configure { name, public, durability, proxy, metadata }).await?;
        Ok(Response::new(Payload::empty()))
    }

    pub(super) async fn delete_project(
        &self,
        request: &Request,
        written: ProjectName,
    ) -> Result<Response<Payload>, Failure> {
        let name = self.project(request, &written).await?.name;
        let change = Change::Delete { name };
        // a large cache is deleted in parts; if this breaks off, the next DELETE finishes it
        while self.commit(change.clone()).await? == Outcome::Unfinished {}
        Ok(Response::new(Payload::empty()))
    }

    /// Commits through the project's primary.
    async fn commit(&self, change: Change) -> Result<Outcome, Failure> {
        let name = change.project();
        match self.writes.commit(&name, WriteKind::Fenced(change)).await {
            Ok(outcome) => Ok(outcome),
            Err(Refusal::NotFound) => Err(missing(&name)),
            Err(Refusal::Conflict(reason)) => Err(Failure::new(Code::Precondition, reason)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn show(&self, project: &Project) -> Value {
        let mut metadata = json!({
            "public": project.public.to_string(),
            "durability": project.durability.to_string(),
        });
        if project.upstream.is_some() {
            let ProxyRules { allow, deny, local_on_not_found } = &project.proxy;
            metadata["proxy_cache_filter_pattern"] = allow.join(",").into();
            metadata["proxy_cache_deny_pattern"] = deny.join(",").into();
            metadata["proxy_cache_local_on_not_found"] = local_on_not_found.to_string().into();
        }
        for (key, value) in &project.metadata {
            metadata[key] = value.as_str().into();
        }
        json!({
            "project_id": project.id.0,
            "name": project.name.as_str(),
            "creation_time": project.created.to_string(),
            "metadata": metadata,
            "registry_id": project.upstream.map(|id| id.0),
            "primary": self.neighbours.name_of(project.primary),
            "home": self.neighbours.name_of(project.home),
            "epoch": project.epoch.get(),
        })
    }
}

fn missing(name: &ProjectName) -> Failure {
    Failure::new(Code::NameUnknown, format!("there is no project {name}"))
}
