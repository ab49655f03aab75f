//! The part of Harbor's API for projects, registries and people (its `api/v2.0/swagger.yaml`), as
//! Harbor's clients use it.

mod artifacts;
mod attributes;
mod audit;
mod configurations;
mod entries;
mod explaining;
mod exports;
mod forecasts;
mod groups;
mod immutability;
mod labels;
mod ldap;
mod lists;
mod members;
mod metadata;
mod overviews;
mod projects;
mod quotas;
mod registries;
mod repositories;
mod retentions;
mod robots;
mod scan_all;
mod scanners;
mod scanning;
mod schedules;
mod security;
mod selectors;
mod sessions;
mod signatures;
mod signing;
mod stored;
mod system;
mod tags;
mod trash;
mod trusts;
mod upkeep;
mod users;
mod verifiers;

use std::sync::Arc;

use ground::supervise::Tasks;
use http::{HeaderName, Method, Response};
use mesh::secrets::Secrets;
use registry::blobs::collecting::Collecting;
use registry::events::purging::Purging;
use registry::jobs::queue::Jobs;
use registry::people::{Access, Caller};
use registry::pulls::Pulls;
use registry::scans::Scans;
use registry::signatures::Signatures;
use registry::upstreams::Upstreams;
use registry::view::neighbours::Neighbours;
use registry::view::{Freshness, Records};
use registry::writes::{Refusal, WriteTerms, Writes, settle};
use rules::ledger::command::{Command, Outcome};
use rules::ledger::events::Actor;
use rules::ledger::jobs::cron::Cron;
use rules::ledger::jobs::{Schedule, Task};
use rules::ledger::people::PeopleChange;
use rules::ledger::records::{Look, Project, ReadRecords, RecordError};
use rules::people::access::{Identity, RegistryScope};
use rules::people::doors::{self, Need};
use rules::words::names::{OperationId, ProjectId, ProjectName};
use rules::words::roles::{Operation, Permission, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::http::door::{Door, actor, beyond_the_pass};
use crate::http::request::Request;
use crate::http::route::{Route, Scanning, Stored};
use crate::http::{Code, Failure, Payload};

/// The maximum size of a request's body in bytes.
const BODY: u64 = 64 << 10;
/// How much later than its time a run may begin, in seconds: not all projects at once.
const SPREAD: u32 = 60;
/// With this header a client says that a project in a path is a name.
const IS_NAME: HeaderName = HeaderName::from_static("x-is-resource-name");

/// Who may create projects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectCreation {
    /// Every user. They become its admin.
    Everyone,
    /// Administrators, and robots with the permission.
    Administrators,
}

/// The rooms that Harbor's API uses.
pub struct Harbor {
    /// Authorization.
    pub door: Arc<Door>,
    /// Passwords.
    pub access: Arc<Access>,
    /// The ledger's records.
    pub records: Records,
    /// The other nodes.
    pub neighbours: Arc<Neighbours>,
    /// Commits writes.
    pub writes: Arc<Writes>,
    /// Background work.
    pub jobs: Arc<Jobs>,
    /// Scans of images.
    pub scans: Arc<Scans>,
    /// Signatures.
    pub signatures: Arc<Signatures>,
    /// Asks other registries whether they are well.
    pub upstreams: Arc<Upstreams>,
    /// Held by the one who reads a forecast of retention.
    pub forecasts: Semaphore,
    /// The percentage of a project above which a run of retention has to be confirmed.
    pub confirm_over: u32,
    /// Collects garbage.
    pub collecting: Arc<Collecting>,
    /// Purges the audit log.
    pub purging: Arc<Purging>,
    /// Brings the configurations of artifacts.
    pub pulls: Arc<Pulls>,
    /// Seals secrets for the ledger.
    pub secrets: Arc<Secrets>,
    /// The default `durability` of new projects.
    pub durability: u32,
    /// Who may create projects.
    pub project_creation: ProjectCreation,
    /// Deadlines of writes.
    pub terms: WriteTerms,
    /// What goes on after a client's answer.
    pub tasks: Tasks,
}

impl Harbor {
    /// Answers a request under `/api/v2.0/`.
    pub async fn answer(
        &self,
        route: Route,
        mut request: Request,
    ) -> Result<Response<Payload>, Failure> {
        self.door.check_origin(&request)?;
        let Some(need) = doors::need(route.pattern(), request.method.as_str()) else {
            self.door.admit_signed_in(&request).await?;
            request.changes_nothing_at(&self.neighbours)?;
            let message = format!("{} is not supported here", request.method);
            return Err(Failure::new(Code::Unsupported, message));
        };
        let mut caller = self.admit(&request, need).await?;
        request.changes_nothing_at(&self.neighbours)?;
        if self.neighbours.is_edge() && route.is_about_people() {
            let message = "this node is an edge, which does not know all users, labels and policies; ask a replica";
            return Err(Failure::new(Code::Unsupported, message));
        }
        let named = match &route {
            Route::Project(name)
            | Route::Metadatas(name)
            | Route::Metadata(name, _)
            | Route::Members(name)
            | Route::Member(name, _)
            | Route::ProjectLogs(name)
            | Route::ProjectAuditLogExts(name)
            | Route::Stored(name, _)
            | Route::Policy(name, _) => Some(name),
            _ => None,
        };
        if !matches!(request.method, Method::GET | Method::HEAD) {
            if let (Some(name), Need::Project(permission)) = (named, need) {
                self.project(&request, &caller, permission, name).await?;
            }
            request.body.hold(BODY).await?;
            // decided again, now that the request is complete
            caller = self.admit(&request, need).await?;
        }
        match (named, need) {
            (Some(name), Need::Project(permission)) => {
                // why a pull is refused must be found out when the node is cut off, too
                let stale = matches!(route, Route::Stored(_, Stored::Explanation(..)));
                let project = self.project_if(&request, &caller, permission, name, stale).await?;
                self.answer_in_project(route, request, caller, project).await
            }
            _ => self.answer_in_system(route, request, caller).await,
        }
    }

    /// The caller, if they have what `need` says, as far as that does not depend on what the path
    /// or the body names.
    async fn admit(&self, request: &Request, need: Need) -> Result<Caller, Failure> {
        match need {
            Need::System(permission) => {
                self.door.admit_system(request, permission, RegistryScope::Api).await
            }
            Need::Label(_) if !matches!(request.method, Method::GET | Method::HEAD) => {
                self.door.admit_signed_in(request).await
            }
            Need::Nothing | Need::Project(_) | Need::Label(_) => {
                self.door.caller(request).await.and_then(|caller| match caller.pass() {
                    Some(_) => Err(beyond_the_pass()),
                    None => Ok(caller),
                })
            }
            Need::Credentials | Need::Own(_) | Need::Robot(_) => {
                self.door.admit_signed_in(request).await
            }
            Need::Account => {
                let caller = self.door.admit_signed_in(request).await?;
                match caller.identity {
                    Identity::Robot(_) => Err(Failure::new(Code::Denied, "a robot has no account")),
                    _ => Ok(caller),
                }
            }
            Need::NewProject => {
                let caller = self.door.admit_signed_in(request).await?;
                let create = Permission::new(Resource::Project, Operation::Create);
                let may = caller.identity.may_in_system(create)
                    || self.project_creation == ProjectCreation::Everyone
                        && matches!(caller.identity, Identity::User(_));
                if may {
                    return Ok(caller);
                }
                let message = format!(
                    "{} may not create projects (people.project_creation)",
                    caller.identity.name()
                );
                Err(Failure::new(Code::Denied, message))
            }
        }
    }

    async fn answer_in_project(
        &self,
        route: Route,
        request: Request,
        caller: Caller,
        project: Project,
    ) -> Result<Response<Payload>, Failure> {
        let by = &actor(&caller, &request);
        match (&request.method, route) {
            (&Method::PUT, Route::Project(_)) => {
                self.configure_project(request, &caller, project, by).await
            }
            (&Method::DELETE, Route::Project(_)) => self.delete_project(project, by).await,
            (_, Route::Project(_)) => self.show_project(&caller, project).await,
            (&Method::POST, Route::Metadatas(_)) => {
                self.add_entry(request, &caller, project, by).await
            }
            (_, Route::Metadatas(_)) => Ok(entries::list(&project)),
            (&Method::PUT, Route::Metadata(_, key)) => {
                self.set_entry(request, &caller, project, &key, by).await
            }
            (&Method::DELETE, Route::Metadata(_, key)) => {
                self.forget_entry(&caller, project, &key, by).await
            }
            (_, Route::Metadata(_, key)) => entries::show(&project, &key),
            (&Method::POST, Route::Members(_)) => {
                self.add_member(request, &caller, project, by).await
            }
            (_, Route::Members(_)) => self.list_members(&request, project).await,
            (&Method::PUT, Route::Member(_, id)) => {
                self.change_member(request, &caller, project, id, by).await
            }
            (&Method::DELETE, Route::Member(_, id)) => self.remove_member(project, id, by).await,
            (_, Route::Member(_, id)) => self.show_member(project, id).await,
            (_, Route::ProjectLogs(_) | Route::ProjectAuditLogExts(_)) => {
                self.list_events(&request, Some(&project)).await
            }
            (_, Route::Policy(_, policy)) => {
                self.answer_about_policies(request, project, policy, by).await
            }
            (_, Route::Stored(_, stored)) => {
                self.answer_about_stored(request, project, stored, &caller).await
            }
            (method, _) => {
                Err(Failure::new(Code::Unsupported, format!("{method} is not supported here")))
            }
        }
    }

    async fn answer_in_system(
        &self,
        route: Route,
        request: Request,
        caller: Caller,
    ) -> Result<Response<Payload>, Failure> {
        let by = &actor(&caller, &request);
        match (&request.method, route) {
            (&Method::GET | &Method::HEAD, Route::Registries) => {
                self.list_registries(&request).await
            }
            (&Method::POST, Route::Registries) => self.create_registry(request, by).await,
            (&Method::POST, Route::RegistryPing) => self.ping_registry(request).await,
            (&Method::GET | &Method::HEAD, Route::Registry(id)) => self.show_registry(id).await,
            (&Method::PUT, Route::Registry(id)) => self.change_registry(request, id, by).await,
            (&Method::DELETE, Route::Registry(id)) => self.delete_registry(id, by).await,
            (&Method::GET | &Method::HEAD, Route::Projects) => {
                self.list_projects(&request, &caller).await
            }
            (&Method::POST, Route::Projects) => self.create_project(request, &caller).await,
            (&Method::GET | &Method::HEAD, Route::Labels) => {
                self.list_labels(&request, &caller).await
            }
            (&Method::POST, Route::Labels) => self.create_label(request, &caller).await,
            (&Method::GET | &Method::HEAD, Route::Label(id)) => {
                self.show_label(&request, &caller, id).await
            }
            (&Method::PUT, Route::Label(id)) => self.change_label(request, &caller, id).await,
            (&Method::DELETE, Route::Label(id)) => self.delete_label(&request, &caller, id).await,
            (&Method::GET | &Method::HEAD, Route::Users) => self.list_users(&request).await,
            (&Method::POST, Route::Users) => self.create_user(request, by).await,
            (&Method::GET | &Method::HEAD, Route::CurrentUser) => {
                self.show_current_user(&caller).await
            }
            (&Method::GET | &Method::HEAD, Route::UserSearch) => self.search_users(&request).await,
            (&Method::GET | &Method::HEAD, Route::User(id)) => self.show_user(&caller, id).await,
            (&Method::PUT, Route::User(id)) => self.change_user(request, &caller, id).await,
            (&Method::DELETE, Route::User(id)) => self.delete_user(&caller, id, by).await,
            (&Method::PUT, Route::UserAdministers(id)) => {
                self.set_administrator(request, id, by).await
            }
            (&Method::PUT, Route::UserCliSecret(id)) => {
                self.set_cli_secret(request, &caller, id).await
            }
            (&Method::PUT, Route::UserPassword(id)) => {
                self.set_password(request, &caller, id).await
            }
            (&Method::GET | &Method::HEAD, Route::Configurations) => {
                self.show_configurations().await
            }
            (&Method::PUT, Route::Configurations) => self.configure(request, by).await,
            (&Method::POST, Route::LdapPing) => self.ping_ldap(request).await,
            (&Method::POST, Route::OidcPing) => self.ping_oidc(request).await,
            (&Method::GET | &Method::HEAD, Route::LdapUserSearch) => {
                self.search_ldap_people(&request).await
            }
            (&Method::POST, Route::LdapUserImport) => self.import_from_ldap(request, by).await,
            (&Method::GET | &Method::HEAD, Route::LdapGroupSearch) => {
                self.search_ldap_groups(&request).await
            }
            (&Method::GET | &Method::HEAD, Route::Groups) => self.list_groups(&request).await,
            (&Method::POST, Route::Groups) => self.create_group(request, by).await,
            (&Method::GET | &Method::HEAD, Route::GroupSearch) => {
                self.search_groups(&request).await
            }
            (&Method::GET | &Method::HEAD, Route::Group(id)) => self.show_group(id).await,
            (&Method::PUT, Route::Group(id)) => self.rename_group(request, id, by).await,
            (&Method::DELETE, Route::Group(id)) => self.delete_group(id, by).await,
            (&Method::GET | &Method::HEAD, Route::Robots) => {
                self.list_robots(&request, &caller).await
            }
            (&Method::POST, Route::Robots) => self.create_robot(request, &caller).await,
            (&Method::GET | &Method::HEAD, Route::Robot(id)) => {
                self.show_robot(&request, &caller, id).await
            }
            (&Method::PUT, Route::Robot(id)) => self.change_robot(request, &caller, id).await,
            (&Method::PATCH, Route::Robot(id)) => {
                self.refresh_robot_secret(request, &caller, id).await
            }
            (&Method::DELETE, Route::Robot(id)) => self.delete_robot(&request, &caller, id).await,
            (&Method::GET | &Method::HEAD, Route::Trusts(id)) => {
                self.list_trusts(&request, &caller, id).await
            }
            (&Method::POST, Route::Trusts(id)) => self.add_trust(request, &caller, id).await,
            (&Method::PUT, Route::Trust(id, trust)) => {
                self.set_trust_keys(request, &caller, id, trust).await
            }
            (&Method::DELETE, Route::Trust(id, trust)) => {
                self.remove_trust(&request, &caller, id, trust).await
            }
            (&Method::GET | &Method::HEAD, Route::AuditLogs | Route::AuditLogExts) => {
                self.list_events(&request, None).await
            }
            (_, Route::Scanning(Scanning::Export(export))) => {
                self.answer_about_exports(request, export, &caller).await
            }
            (_, Route::Scanning(scanning)) => {
                self.answer_about_scanning(request, scanning, by).await
            }
            (&Method::GET | &Method::HEAD, Route::Quotas) => self.list_quotas(&request).await,
            (&Method::GET | &Method::HEAD, Route::Quota(id)) => self.show_quota(id).await,
            (&Method::PUT, Route::Quota(id)) => self.set_quota(request, id, by).await,
            (_, Route::Upkeep(upkeep)) => self.answer_about_upkeep(request, upkeep, by).await,
            (&Method::POST, Route::Retentions) => self.create_retention(request, &caller).await,
            (&Method::GET | &Method::HEAD, Route::RetentionTemplates) => {
                Ok(retentions::show_templates())
            }
            (&Method::GET | &Method::HEAD, Route::Permissions) => Ok(robots::show_permissions()),
            (&Method::GET | &Method::HEAD, Route::Repositories) => {
                self.list_all_repositories(&request, &caller).await
            }
            (&Method::GET | &Method::HEAD, Route::Search) => self.search(&request, &caller).await,
            (&Method::GET | &Method::HEAD, Route::Statistics) => self.statistics(&caller).await,
            (&Method::GET | &Method::HEAD, Route::Ping) => Ok(system::pong()),
            (&Method::GET | &Method::HEAD, Route::ApiHealth) => Ok(self.health()),
            (&Method::GET | &Method::HEAD, Route::SystemInfo) => {
                self.system_info(&request, &caller).await
            }
            (method, _) => {
                Err(Failure::new(Code::Unsupported, format!("{method} is not supported here")))
            }
        }
    }

    /// Reads the records. The API's clients keep what they hear: one that is told that a robot
    /// does not exist makes another. So a node that may not know what is new gives no answer.
    async fn read<T>(
        &self,
        read: impl Fn(&dyn ReadRecords) -> Result<T, RecordError>,
    ) -> Result<T, Failure> {
        let (found, freshness) = self.door.read(read).await?;
        if freshness == Freshness::Fresh { Ok(found) } else { Err(self.outdated(freshness)) }
    }

    /// The refusal of an answer from records that may be old.
    fn outdated(&self, freshness: Freshness) -> Failure {
        match self.neighbours.majority().lost() {
            Some(lost) if freshness == Freshness::Stale => Failure::new(Code::Unavailable, lost),
            _ => Failure::outdated(freshness),
        }
    }

    /// As [`Harbor::read`], for what grows with the number of projects, repositories or artifacts.
    async fn read_at_length<T>(
        &self,
        read: impl Fn(&dyn ReadRecords) -> Result<T, RecordError>,
    ) -> Result<T, Failure> {
        let (found, freshness) = self.door.read_at_length(read).await?;
        if freshness == Freshness::Fresh { Ok(found) } else { Err(self.outdated(freshness)) }
    }

    /// The project that a path names, if the caller has `permission` in it. Digits are a project's
    /// number if there is one, unless the client says that it sends names (Harbor's
    /// `X-Is-Resource-Name`).
    async fn project(
        &self,
        request: &Request,
        caller: &Caller,
        permission: Permission,
        written: &ProjectName,
    ) -> Result<Project, Failure> {
        self.project_if(request, caller, permission, written, false).await
    }

    /// The same, and if it may be `stale`, as this node knows it while it is cut off.
    async fn project_if(
        &self,
        request: &Request,
        caller: &Caller,
        permission: Permission,
        written: &ProjectName,
        stale: bool,
    ) -> Result<Project, Failure> {
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
                (None, Some(by_name)) if changes && number.is_some() => Err(by_name),
                (by_number, by_name) => Ok(by_number.or(by_name)),
            })
        };
        let (found, freshness) = self.door.read(look).await?;
        if freshness != Freshness::Fresh && !stale {
            return Err(self.outdated(freshness));
        }
        match found {
            Ok(Some(project)) => {
                self.door.admit_to_project(request, caller, permission, &project, written).await?;
                self.door.check_edge(&project)?;
                Ok(project)
            }
            Ok(None) => {
                // only who may see every project is told that there is none
                self.door.admit_signed_in(request).await?;
                Err(match caller.identity.is_administrator() {
                    true => missing(written),
                    false => self.door.denied(caller, permission, written),
                })
            }
            Err(by_name) => {
                self.door.admit_to_project(request, caller, permission, &by_name, written).await?;
                let message = format!(
                    "{} is a project's name and may be a number: send X-Is-Resource-Name: true for the name",
                    by_name.name
                );
                Err(Failure::new(Code::Conflict, message))
            }
        }
    }

    /// Commits a command that needs no project's primary. What its object is called is said in
    /// answers about it.
    async fn propose(
        &self,
        command: Command,
        object: &str,
        by: &Actor,
    ) -> Result<Outcome, Failure> {
        self.writes.ready().await?;
        self.writes.check_level(command.level())?;
        let operation = OperationId(rand::random());
        let outcome = self.writes.propose(operation, command, by, self.terms.commit).await;
        let outcome =
            outcome.map_err(|e| Failure::new(Code::Unavailable, self.neighbours.no_ledger(&e)))?;
        settle(outcome).map_err(|refusal| match refusal {
            Refusal::NotFound => Failure::new(Code::NotFound, format!("there is no {object}")),
            Refusal::Exists => Failure::new(Code::Conflict, format!("there is a {object} already")),
            Refusal::Conflict(reason) => Failure::new(Code::Precondition, reason),
            other => other.into(),
        })
    }

    /// Makes the schedule of a project with this name, or removes it if there is no `cron`.
    async fn set_schedule(
        &self,
        name: &str,
        task: Task,
        cron: Option<Cron>,
        by: &Actor,
    ) -> Result<(), Failure> {
        let Some(cron) = cron else {
            return match self.jobs.unschedule(task.project, name.to_owned(), by).await {
                Ok(()) | Err(Refusal::NotFound) => Ok(()),
                Err(refusal) => Err(refusal.into()),
            };
        };
        let now = ground::clock::timestamp();
        let (name, spread, created, next, last) = (name.to_owned(), SPREAD, now, now, None);
        let schedule = Schedule { name, task, cron, spread, created, next, last };
        Ok(self.jobs.schedule(schedule, by).await?)
    }

    /// Commits a change of people.
    async fn change_people(
        &self,
        change: PeopleChange,
        object: &str,
        by: &Actor,
    ) -> Result<(), Failure> {
        let command = Command::People(Box::new(change));
        while self.propose(command.clone(), object, by).await? == Outcome::Unfinished {}
        Ok(())
    }
}

/// The body of a request.
async fn body<T: DeserializeOwned>(request: &mut Request) -> Result<T, Failure> {
    let bytes = request.body.whole(BODY).await?;
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let read = serde_path_to_error::deserialize(&mut json);
    let read = read.map_err(|e| match e.path().to_string() {
        root if root == "." => bad(format!("the body: {}", e.inner())),
        field => bad(format!("the body: {field}: {}", e.inner())),
    })?;
    json.end().map_err(|e| bad(format!("the body: {e}")))?;
    Ok(read)
}

fn bad(reason: impl Into<String>) -> Failure {
    Failure::new(Code::BadRequest, reason)
}

fn missing(name: &ProjectName) -> Failure {
    Failure::new(Code::NameUnknown, format!("there is no project {name}"))
}

/// 201 with the place of what was created.
fn created(place: Option<String>) -> Response<Payload> {
    let mut response = crate::http::answer::answer(http::StatusCode::CREATED);
    if let Some(place) = place {
        crate::http::answer::set(&mut response, "location", place);
    }
    response
}
