//! Parses a request's path once into a route. Code behind this does not see paths. The caller
//! decides which repository a name means: it may be a repository of another registry that a project
//! of this mesh caches.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use rules::words::digest::Digest;
use rules::words::names::{
    GroupId, JobId, LabelId, MemberId, ProjectId, ProjectName, Reference, RepositoryName, RobotId,
    TrustId, UpstreamId, UserId,
};

use self::numbered::{of_job, of_robot};
use super::errors::{Code, Failure};
use super::policies::Policy;
pub use super::scanning::{Export, Scanning};
pub use super::stored::Stored;
use super::upkeep::Upkeep;

/// The route of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/service/token`
    Token,
    /// `/c/login`
    Login,
    /// `/c/log_out`
    Logout,
    /// `/c/oidc/login`
    OidcLogin,
    /// `/c/oidc/callback`
    OidcCallback,
    /// `/c/oidc/onboard`
    OidcOnboard,
    /// `/v2/NAME/blobs/DIGEST`
    Blob(RepositoryName, Digest),
    /// `/v2/NAME/blobs/uploads/`
    Uploads(RepositoryName),
    /// `/v2/NAME/blobs/uploads/ID`
    Upload(RepositoryName, String),
    /// `/v2/NAME/manifests/REFERENCE`
    Manifest(RepositoryName, Reference),
    /// `/v2/NAME/tags/list`
    Tags(RepositoryName),
    /// `/v2/NAME/referrers/DIGEST`
    Referrers(RepositoryName, Digest),
    /// `/api/v2.0/projects`
    Projects,
    /// `/api/v2.0/projects/NAME`, or a project's number
    Project(ProjectName),
    /// `/api/v2.0/projects/NAME/metadatas`
    Metadatas(ProjectName),
    /// `/api/v2.0/projects/NAME/metadatas/KEY`
    Metadata(ProjectName, String),
    /// `/api/v2.0/labels`
    Labels,
    /// `/api/v2.0/labels/ID`
    Label(LabelId),
    /// `/api/v2.0/projects/NAME/members`
    Members(ProjectName),
    /// `/api/v2.0/projects/NAME/members/ID`
    Member(ProjectName, MemberId),
    /// `/api/v2.0/projects/NAME/repositories` and what is below, and other views of what a project
    /// stores
    Stored(ProjectName, Stored),
    /// What a project decides about its artifacts.
    Policy(ProjectName, Policy),
    /// `/api/v2.0/retentions`
    Retentions,
    /// `/api/v2.0/retentions/metadatas`
    RetentionTemplates,
    /// Scans of the whole mesh.
    Scanning(Scanning),
    /// `/api/v2.0/repositories`
    Repositories,
    /// `/api/v2.0/search`
    Search,
    /// `/api/v2.0/statistics`
    Statistics,
    /// `/api/v2.0/quotas`
    Quotas,
    /// `/api/v2.0/quotas/ID`: the number of a quota is that of its project.
    Quota(ProjectId),
    /// Collections, and purges of the audit log.
    Upkeep(Upkeep),
    /// `/api/v2.0/ping`
    Ping,
    /// `/api/v2.0/health`
    ApiHealth,
    /// `/api/v2.0/systeminfo`
    SystemInfo,
    /// `/api/v2.0/users`
    Users,
    /// `/api/v2.0/users/current`
    CurrentUser,
    /// `/api/v2.0/users/search`
    UserSearch,
    /// `/api/v2.0/users/ID`
    User(UserId),
    /// `/api/v2.0/users/ID/sysadmin`
    UserAdministers(UserId),
    /// `/api/v2.0/users/ID/password`
    UserPassword(UserId),
    /// `/api/v2.0/users/ID/cli_secret`
    UserCliSecret(UserId),
    /// `/api/v2.0/configurations`
    Configurations,
    /// `/api/v2.0/system/oidc/ping`
    OidcPing,
    /// `/api/v2.0/ldap/ping`
    LdapPing,
    /// `/api/v2.0/ldap/users/search`
    LdapUserSearch,
    /// `/api/v2.0/ldap/users/import`
    LdapUserImport,
    /// `/api/v2.0/ldap/groups/search`
    LdapGroupSearch,
    /// `/api/v2.0/usergroups`
    Groups,
    /// `/api/v2.0/usergroups/search`
    GroupSearch,
    /// `/api/v2.0/usergroups/ID`
    Group(GroupId),
    /// `/api/v2.0/robots`
    Robots,
    /// `/api/v2.0/robots/ID`
    Robot(RobotId),
    /// `/api/v2.0/robots/ID/trusts`
    Trusts(RobotId),
    /// `/api/v2.0/robots/ID/trusts/ID`
    Trust(RobotId, TrustId),
    /// `/api/v2.0/permissions`
    Permissions,
    /// `/api/v2.0/auditlog-exts`
    AuditLogExts,
    /// `/api/v2.0/audit-logs`
    AuditLogs,
    /// `/api/v2.0/projects/PROJECT/auditlog-exts`
    ProjectAuditLogExts(ProjectName),
    /// `/api/v2.0/projects/PROJECT/logs`
    ProjectLogs(ProjectName),
    /// `/api/v2.0/registries`
    Registries,
    /// `/api/v2.0/registries/ping`
    RegistryPing,
    /// `/api/v2.0/registries/ID`
    Registry(UpstreamId),
    /// `/api/openapi.json`
    OpenApi,
    /// `/api/atoll/v1/status`
    Status,
    /// `/api/atoll/v1/dr`
    Dr,
    /// `/api/atoll/v1/replication`
    Replication,
    /// `/api/atoll/v1/inventory`
    Inventory,
    /// `/api/atoll/v1/dr/drill`
    Drill,
    /// `/api/atoll/v1/level`
    Level,
    /// `/api/atoll/v1/mirrors`
    Mirrors,
    /// `/api/atoll/v1/preheats`
    Preheats,
    /// `/api/atoll/v1/nodes/NAME`
    Node(String),
    /// `/api/atoll/v1/nodes/NAME/drain`
    Drain(String),
    /// `/api/atoll/v1/nodes/NAME/scrub`
    Scrub(String),
    /// `/api/atoll/v1/preheats/ID`
    Preheat(u64),
    /// `/api/atoll/v1/jobs`
    Jobs,
    /// `/api/atoll/v1/jobs/ID`
    Job(JobId),
    /// `/api/atoll/v1/jobs/ID/log`
    JobLog(JobId),
    /// `/api/atoll/v1/jobs/ID/stop`
    JobStop(JobId),
    /// `/api/atoll/v1/jobs/ID/retry`
    JobRetry(JobId),
    /// `/api/atoll/v1/schedules`
    Schedules,
    /// `/api/atoll/v1/schedules/PROJECT/NAME`
    Schedule(ProjectName, String),
    /// `/api/atoll/v1/collection`
    Collection,
    /// `/metrics`
    Metrics,
    /// `/healthz`
    Health,
    /// `/readyz`
    Ready,
}

impl Route {
    /// A word for metrics. There are few of them, and none contains a name.
    pub fn word(&self) -> &'static str {
        match self {
            Route::Base => "base",
            Route::Catalog => "catalog",
            Route::Token => "token",
            Route::Login
            | Route::Logout
            | Route::OidcLogin
            | Route::OidcCallback
            | Route::OidcOnboard => "session",
            Route::Blob(..) => "blob",
            Route::Uploads(..) | Route::Upload(..) => "upload",
            Route::Manifest(..) => "manifest",
            Route::Tags(..) => "tags",
            Route::Referrers(..) => "referrers",
            Route::Projects | Route::Project(..) | Route::Metadatas(_) | Route::Metadata(..) => {
                "projects"
            }
            Route::Labels | Route::Label(_) => "labels",
            Route::Members(_) | Route::Member(..) => "members",
            Route::Stored(..) | Route::Repositories => "repositories",
            Route::Search => "search",
            Route::Statistics => "statistics",
            Route::Quotas | Route::Quota(_) => "quotas",
            Route::Upkeep(_) => "upkeep",
            Route::Ping | Route::ApiHealth => "health",
            Route::SystemInfo => "systeminfo",
            Route::Users
            | Route::CurrentUser
            | Route::UserSearch
            | Route::User(_)
            | Route::UserAdministers(_)
            | Route::UserCliSecret(_)
            | Route::UserPassword(_) => "users",
            Route::Configurations | Route::OidcPing => "configurations",
            Route::LdapPing
            | Route::LdapUserSearch
            | Route::LdapUserImport
            | Route::LdapGroupSearch => "ldap",
            Route::Groups | Route::GroupSearch | Route::Group(_) => "groups",
            Route::Robots | Route::Robot(_) | Route::Trusts(_) | Route::Trust(..) => "robots",
            Route::Permissions => "permissions",
            Route::AuditLogExts
            | Route::AuditLogs
            | Route::ProjectAuditLogExts(_)
            | Route::ProjectLogs(_) => "audit",
            Route::Scanning(_) => "scans",
            Route::Policy(..) | Route::Retentions | Route::RetentionTemplates => "policies",
            Route::Registries | Route::RegistryPing | Route::Registry(..) => "registries",
            Route::OpenApi => "openapi",
            Route::Status => "status",
            Route::Dr | Route::Drill | Route::Inventory | Route::Replication => "dr",
            Route::Level => "level",
            Route::Mirrors => "mirrors",
            Route::Node(_) | Route::Drain(_) | Route::Scrub(_) => "nodes",
            Route::Preheats | Route::Preheat(_) => "preheats",
            Route::Jobs
            | Route::Job(_)
            | Route::JobLog(_)
            | Route::JobStop(_)
            | Route::JobRetry(_)
            | Route::Schedules
            | Route::Schedule(..) => "jobs",
            Route::Collection => "collection",
            Route::Metrics => "metrics",
            Route::Health | Route::Ready => "health",
        }
    }

    /// The path with names in braces for its variable parts, as in the table of what each route
    /// needs ([`rules::people::doors`]).
    pub fn pattern(&self) -> &'static str {
        match self {
            Route::Base => "/v2/",
            Route::Catalog => "/v2/_catalog",
            Route::Token => "/service/token",
            Route::Login => "/c/login",
            Route::Logout => "/c/log_out",
            Route::OidcLogin => "/c/oidc/login",
            Route::OidcCallback => "/c/oidc/callback",
            Route::OidcOnboard => "/c/oidc/onboard",
            Route::Blob(..) => "/v2/{repository}/blobs/{digest}",
            Route::Uploads(_) => "/v2/{repository}/blobs/uploads/",
            Route::Upload(..) => "/v2/{repository}/blobs/uploads/{id}",
            Route::Manifest(..) => "/v2/{repository}/manifests/{reference}",
            Route::Tags(_) => "/v2/{repository}/tags/list",
            Route::Referrers(..) => "/v2/{repository}/referrers/{digest}",
            Route::Projects => "/api/v2.0/projects",
            Route::Project(_) => "/api/v2.0/projects/{project}",
            Route::Metadatas(_) => "/api/v2.0/projects/{project}/metadatas",
            Route::Metadata(..) => "/api/v2.0/projects/{project}/metadatas/{key}",
            Route::Labels => "/api/v2.0/labels",
            Route::Label(_) => "/api/v2.0/labels/{label}",
            Route::Members(_) => "/api/v2.0/projects/{project}/members",
            Route::Member(..) => "/api/v2.0/projects/{project}/members/{id}",
            Route::Stored(_, stored) => stored.pattern(),
            Route::Repositories => "/api/v2.0/repositories",
            Route::Search => "/api/v2.0/search",
            Route::Statistics => "/api/v2.0/statistics",
            Route::Quotas => "/api/v2.0/quotas",
            Route::Upkeep(upkeep) => upkeep.pattern(),
            Route::Quota(_) => "/api/v2.0/quotas/{id}",
            Route::Ping => "/api/v2.0/ping",
            Route::ApiHealth => "/api/v2.0/health",
            Route::SystemInfo => "/api/v2.0/systeminfo",
            Route::Users => "/api/v2.0/users",
            Route::CurrentUser => "/api/v2.0/users/current",
            Route::UserSearch => "/api/v2.0/users/search",
            Route::User(_) => "/api/v2.0/users/{user}",
            Route::UserAdministers(_) => "/api/v2.0/users/{user}/sysadmin",
            Route::UserPassword(_) => "/api/v2.0/users/{user}/password",
            Route::UserCliSecret(_) => "/api/v2.0/users/{user}/cli_secret",
            Route::Configurations => "/api/v2.0/configurations",
            Route::OidcPing => "/api/v2.0/system/oidc/ping",
            Route::LdapPing => "/api/v2.0/ldap/ping",
            Route::LdapUserSearch => "/api/v2.0/ldap/users/search",
            Route::LdapUserImport => "/api/v2.0/ldap/users/import",
            Route::LdapGroupSearch => "/api/v2.0/ldap/groups/search",
            Route::Groups => "/api/v2.0/usergroups",
            Route::GroupSearch => "/api/v2.0/usergroups/search",
            Route::Group(_) => "/api/v2.0/usergroups/{id}",
            Route::Robots => "/api/v2.0/robots",
            Route::Robot(_) => "/api/v2.0/robots/{id}",
            Route::Trusts(_) => "/api/v2.0/robots/{id}/trusts",
            Route::Trust(..) => "/api/v2.0/robots/{id}/trusts/{trust}",
            Route::Permissions => "/api/v2.0/permissions",
            Route::AuditLogExts => "/api/v2.0/auditlog-exts",
            Route::AuditLogs => "/api/v2.0/audit-logs",
            Route::ProjectAuditLogExts(_) => "/api/v2.0/projects/{project}/auditlog-exts",
            Route::ProjectLogs(_) => "/api/v2.0/projects/{project}/logs",
            Route::Registries => "/api/v2.0/registries",
            Route::RegistryPing => "/api/v2.0/registries/ping",
            Route::Registry(_) => "/api/v2.0/registries/{id}",
            Route::Policy(_, policy) => policy.pattern(),
            Route::Retentions => "/api/v2.0/retentions",
            Route::Scanning(scanning) => scanning.pattern(),
            Route::RetentionTemplates => "/api/v2.0/retentions/metadatas",
            Route::OpenApi => "/api/openapi.json",
            Route::Status => "/api/atoll/v1/status",
            Route::Dr => "/api/atoll/v1/dr",
            Route::Replication => "/api/atoll/v1/replication",
            Route::Drill => "/api/atoll/v1/dr/drill",
            Route::Inventory => "/api/atoll/v1/inventory",
            Route::Level => "/api/atoll/v1/level",
            Route::Mirrors => "/api/atoll/v1/mirrors",
            Route::Preheats => "/api/atoll/v1/preheats",
            Route::Node(_) => "/api/atoll/v1/nodes/{node}",
            Route::Drain(_) => "/api/atoll/v1/nodes/{node}/drain",
            Route::Scrub(_) => "/api/atoll/v1/nodes/{node}/scrub",
            Route::Preheat(_) => "/api/atoll/v1/preheats/{id}",
            Route::Jobs => "/api/atoll/v1/jobs",
            Route::Job(_) => "/api/atoll/v1/jobs/{id}",
            Route::JobLog(_) => "/api/atoll/v1/jobs/{id}/log",
            Route::JobStop(_) => "/api/atoll/v1/jobs/{id}/stop",
            Route::JobRetry(_) => "/api/atoll/v1/jobs/{id}/retry",
            Route::Schedules => "/api/atoll/v1/schedules",
            Route::Schedule(..) => "/api/atoll/v1/schedules/{project}/{name}",
            Route::Collection => "/api/atoll/v1/collection",
            Route::Metrics => "/metrics",
            Route::Health => "/healthz",
            Route::Ready => "/readyz",
        }
    }

    /// The methods that are supported here, as listed in the `Allow` of a 405 (RFC 9110 section
    /// 15.5.6). At an edge, only those that change nothing.
    pub fn methods(&self, at_edge: bool) -> &'static str {
        match self {
            Route::Base => "GET, HEAD",
            Route::Token => "GET, HEAD, POST",
            Route::Login | Route::OidcOnboard => "POST",
            Route::Logout | Route::OidcLogin | Route::OidcCallback => "GET, HEAD",
            _ if at_edge && (self.is_about_people() || self.is_about_jobs()) => "",
            _ if at_edge => "GET, HEAD",
            Route::Uploads(..) => "POST",
            Route::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
            Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
            Route::Blob(..) => "GET, HEAD, DELETE",
            Route::Projects
            | Route::Registries
            | Route::Metadatas(_)
            | Route::Labels
            | Route::Members(_)
            | Route::Users
            | Route::Groups
            | Route::Robots
            | Route::Trusts(_) => "GET, HEAD, POST",
            Route::Preheats | Route::Jobs | Route::Level | Route::Scrub(_) | Route::Collection => {
                "GET, HEAD, POST"
            }
            Route::Preheat(_) => "GET, HEAD, DELETE",
            Route::OidcPing | Route::LdapPing | Route::LdapUserImport => "POST",
            Route::JobStop(_) | Route::JobRetry(_) | Route::RegistryPing => "POST",
            Route::Schedule(..) => "DELETE",
            Route::Project(_)
            | Route::Metadata(..)
            | Route::Label(_)
            | Route::Registry(_)
            | Route::Member(..)
            | Route::Group(_)
            | Route::User(_) => "GET, HEAD, PUT, DELETE",
            Route::Robot(_) => "GET, HEAD, PUT, PATCH, DELETE",
            Route::Stored(_, stored) => stored.methods(),
            Route::Policy(_, policy) => policy.methods(),
            Route::Retentions => "POST",
            Route::Scanning(scanning) => scanning.methods(),
            Route::Upkeep(upkeep) => upkeep.methods(),
            Route::RetentionTemplates => "GET, HEAD",
            Route::Trust(..) => "PUT, DELETE",
            Route::UserAdministers(_) | Route::UserPassword(_) | Route::UserCliSecret(_) => "PUT",
            Route::Configurations | Route::Quota(_) => "GET, HEAD, PUT",
            Route::Node(_) => "GET, HEAD, DELETE",
            Route::Drain(_) | Route::Drill => "GET, HEAD, POST, DELETE",
            Route::Catalog
            | Route::Tags(..)
            | Route::Referrers(..)
            | Route::CurrentUser
            | Route::UserSearch
            | Route::GroupSearch
            | Route::LdapUserSearch
            | Route::LdapGroupSearch
            | Route::Permissions
            | Route::AuditLogExts
            | Route::AuditLogs
            | Route::ProjectAuditLogExts(_)
            | Route::ProjectLogs(_)
            | Route::Repositories
            | Route::Search
            | Route::Statistics
            | Route::Quotas
            | Route::Ping
            | Route::ApiHealth
            | Route::SystemInfo
            | Route::OpenApi
            | Route::Status
            | Route::Dr
            | Route::Replication
            | Route::Inventory
            | Route::Mirrors
            | Route::Job(_)
            | Route::JobLog(_)
            | Route::Schedules
            | Route::Metrics
            | Route::Health
            | Route::Ready => "GET, HEAD",
        }
    }

    /// Parses a path. `meant` says which repository a name in it means. As most registries do, this
    /// takes a path with a slash at its end, or with characters that are encoded as `%XX`, for the
    /// plain path. A slash twice is one only if nothing is to be written: what a write names must
    /// not be guessed.
    pub fn parse(
        path: &str,
        writes: bool,
        meant: impl Fn(&str) -> Result<RepositoryName, Failure>,
    ) -> Result<Route, Failure> {
        let path = &*plain(path, writes);
        match path {
            "/v2" => return Ok(Route::Base),
            "/v2/_catalog" => return Ok(Route::Catalog),
            "/service/token" => return Ok(Route::Token),
            "/c/login" => return Ok(Route::Login),
            "/c/log_out" => return Ok(Route::Logout),
            "/c/oidc/login" => return Ok(Route::OidcLogin),
            "/c/oidc/callback" => return Ok(Route::OidcCallback),
            "/c/oidc/onboard" => return Ok(Route::OidcOnboard),
            "/api/v2.0/projects" => return Ok(Route::Projects),
            "/api/v2.0/registries" => return Ok(Route::Registries),
            "/api/v2.0/retentions" => return Ok(Route::Retentions),
            "/api/v2.0/retentions/metadatas" => return Ok(Route::RetentionTemplates),
            "/api/v2.0/labels" => return Ok(Route::Labels),
            "/api/v2.0/registries/ping" => return Ok(Route::RegistryPing),
            "/api/v2.0/users" => return Ok(Route::Users),
            "/api/v2.0/users/current" => return Ok(Route::CurrentUser),
            "/api/v2.0/users/search" => return Ok(Route::UserSearch),
            "/api/v2.0/configurations" => return Ok(Route::Configurations),
            "/api/v2.0/system/oidc/ping" => return Ok(Route::OidcPing),
            "/api/v2.0/ldap/ping" => return Ok(Route::LdapPing),
            "/api/v2.0/ldap/users/search" => return Ok(Route::LdapUserSearch),
            "/api/v2.0/ldap/users/import" => return Ok(Route::LdapUserImport),
            "/api/v2.0/ldap/groups/search" => return Ok(Route::LdapGroupSearch),
            "/api/v2.0/usergroups" => return Ok(Route::Groups),
            "/api/v2.0/usergroups/search" => return Ok(Route::GroupSearch),
            "/api/v2.0/robots" => return Ok(Route::Robots),
            "/api/v2.0/permissions" => return Ok(Route::Permissions),
            "/api/v2.0/auditlog-exts" => return Ok(Route::AuditLogExts),
            "/api/v2.0/audit-logs" => return Ok(Route::AuditLogs),
            "/api/v2.0/repositories" => return Ok(Route::Repositories),
            "/api/v2.0/search" => return Ok(Route::Search),
            "/api/v2.0/statistics" => return Ok(Route::Statistics),
            "/api/v2.0/quotas" => return Ok(Route::Quotas),
            "/api/v2.0/ping" => return Ok(Route::Ping),
            "/api/v2.0/health" => return Ok(Route::ApiHealth),
            "/api/v2.0/systeminfo" => return Ok(Route::SystemInfo),
            "/api/openapi.json" => return Ok(Route::OpenApi),
            "/api/atoll/v1/status" => return Ok(Route::Status),
            "/api/atoll/v1/dr" => return Ok(Route::Dr),
            "/api/atoll/v1/replication" => return Ok(Route::Replication),
            "/api/atoll/v1/inventory" => return Ok(Route::Inventory),
            "/api/atoll/v1/dr/drill" => return Ok(Route::Drill),
            "/api/atoll/v1/level" => return Ok(Route::Level),
            "/api/atoll/v1/mirrors" => return Ok(Route::Mirrors),
            "/api/atoll/v1/preheats" => return Ok(Route::Preheats),
            "/api/atoll/v1/jobs" => return Ok(Route::Jobs),
            "/api/atoll/v1/schedules" => return Ok(Route::Schedules),
            "/api/atoll/v1/collection" => return Ok(Route::Collection),
            "/metrics" => return Ok(Route::Metrics),
            "/healthz" => return Ok(Route::Health),
            "/readyz" => return Ok(Route::Ready),
            _ => {}
        }
        if let Some(upkeep) = Upkeep::parse(path) {
            return Ok(Route::Upkeep(upkeep));
        }
        if let Some(scanning) = Scanning::parse(path) {
            return Ok(Route::Scanning(scanning));
        }
        if let Some(rest) = path.strip_prefix("/api/v2.0/projects/") {
            return of_project(rest);
        }
        if let Some(rest) = path.strip_prefix("/api/v2.0/retentions/") {
            let (name, rest) = match rest.split_once('/') {
                Some((name, rest)) => (name, Some(rest)),
                None => (rest, None),
            };
            let name = name.parse().map_err(|_| not_found())?;
            let policy = Policy::of_retention(rest).ok_or_else(not_found)?;
            return Ok(Route::Policy(name, policy));
        }
        if let Some(rest) = path.strip_prefix("/api/v2.0/users/") {
            let (id, what) = rest.split_once('/').unwrap_or((rest, ""));
            let id = id.parse().map(UserId).map_err(|_| not_found())?;
            return match what {
                "" if !rest.contains('/') => Ok(Route::User(id)),
                "sysadmin" => Ok(Route::UserAdministers(id)),
                "password" => Ok(Route::UserPassword(id)),
                "cli_secret" => Ok(Route::UserCliSecret(id)),
                _ => Err(not_found()),
            };
        }
        if let Some(id) = path.strip_prefix("/api/v2.0/quotas/") {
            return id.parse().map(|id| Route::Quota(ProjectId(id))).map_err(|_| not_found());
        }
        if let Some(id) = path.strip_prefix("/api/v2.0/labels/") {
            return id.parse().map(|id| Route::Label(LabelId(id))).map_err(|_| not_found());
        }
        if let Some(id) = path.strip_prefix("/api/v2.0/usergroups/") {
            return id.parse().map(|id| Route::Group(GroupId(id))).map_err(|_| not_found());
        }
        if let Some(rest) = path.strip_prefix("/api/v2.0/robots/") {
            return of_robot(rest).ok_or_else(not_found);
        }
        if let Some(id) = path.strip_prefix("/api/v2.0/registries/") {
            return id.parse().map(|id| Route::Registry(UpstreamId(id))).map_err(|_| not_found());
        }
        if let Some(name) = path.strip_prefix("/api/atoll/v1/nodes/") {
            return Ok(match name.rsplit_once('/') {
                Some((name, "drain")) => Route::Drain(name.to_owned()),
                Some((name, "scrub")) => Route::Scrub(name.to_owned()),
                _ => Route::Node(name.to_owned()),
            });
        }
        // the same as below Harbor's path
        if let Some(rest) = path.strip_prefix("/api/atoll/v1/projects/") {
            let (project, rest) = rest.split_once('/').ok_or_else(not_found)?;
            let project = project.parse().map_err(|_| not_found())?;
            return match rest {
                "signing" => Ok(Route::Stored(project, Stored::Signing)),
                "signing/log" => Ok(Route::Stored(project, Stored::SignLog)),
                _ => Err(not_found()),
            };
        }
        if let Some(id) = path.strip_prefix("/api/atoll/v1/preheats/") {
            return u64::from_str_radix(id, 16).map(Route::Preheat).map_err(|_| not_found());
        }
        if let Some(rest) = path.strip_prefix("/api/atoll/v1/jobs/") {
            return of_job(rest).ok_or_else(not_found);
        }
        if let Some(rest) = path.strip_prefix("/api/atoll/v1/schedules/") {
            let (project, name) = rest.split_once('/').ok_or_else(not_found)?;
            let project = project.parse().map_err(|_| not_found())?;
            return Ok(Route::Schedule(project, name.to_owned()));
        }
        let rest = path.strip_prefix("/v2/").ok_or_else(not_found)?;
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Route::Tags(meant(name)?));
        }
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Ok(Route::Uploads(meant(name)?));
        }
        // the last two parts decide; a repository's name may itself contain parts called `blobs` or
        // `manifests`
        let (front, last) = rest.rsplit_once('/').ok_or_else(not_found)?;
        if let Some(name) = front.strip_suffix("/blobs/uploads") {
            let id_ok = !last.is_empty()
                && last.len() <= 64
                && last.bytes().all(|b| b.is_ascii_alphanumeric());
            let name = meant(name)?;
            return if id_ok {
                Ok(Route::Upload(name, last.into()))
            } else {
                Err(upload_unknown())
            };
        }
        if let Some(name) = front.strip_suffix("/blobs") {
            return Ok(Route::Blob(meant(name)?, last.parse()?));
        }
        if let Some(name) = front.strip_suffix("/manifests") {
            let name = meant(name)?;
            let code = if last.contains(':') { Code::DigestInvalid } else { Code::TagInvalid };
            let reference = last
                .parse()
                .map_err(|e: rules::words::names::BadName| Failure::new(code, e.to_string()))?;
            return Ok(Route::Manifest(name, reference));
        }
        if let Some(name) = front.strip_suffix("/referrers") {
            return Ok(Route::Referrers(meant(name)?, last.parse()?));
        }
        Err(not_found())
    }
}

/// What follows `/api/v2.0/projects/`.
fn of_project(rest: &str) -> Result<Route, Failure> {
    let (name, what) = rest.split_once('/').unwrap_or((rest, ""));
    let name: ProjectName = name.parse().map_err(name_invalid)?;
    match what.split_once('/') {
        None if !rest.contains('/') => Ok(Route::Project(name)),
        None if what == "metadatas" => Ok(Route::Metadatas(name)),
        Some(("metadatas", key)) if !key.is_empty() && !key.contains('/') => {
            Ok(Route::Metadata(name, key.to_owned()))
        }
        None if what == "members" => Ok(Route::Members(name)),
        None if what == "logs" => Ok(Route::ProjectLogs(name)),
        None if what == "auditlog-exts" => Ok(Route::ProjectAuditLogExts(name)),
        _ if what.starts_with("immutabletagrules") => {
            let rest = what.strip_prefix("immutabletagrules").filter(|rest| !rest.is_empty());
            let rest = match rest {
                None => None,
                Some(rest) => Some(rest.strip_prefix('/').ok_or_else(not_found)?),
            };
            let policy = Policy::of_immutable(rest).ok_or_else(not_found)?;
            Ok(Route::Policy(name, policy))
        }
        Some(("members", id)) => {
            id.parse().map(|id| Route::Member(name, MemberId(id))).map_err(|_| not_found())
        }
        _ => match Stored::parse(&name, what) {
            Some(stored) => Ok(Route::Stored(name, stored)),
            None => Err(not_found()),
        },
    }
}

/// The path without encoded characters, slashes at its end, and, unless it `writes`, empty parts.
/// Some clients encode the colon of a digest, or the slashes of a name, and Go's servers read a path
/// decoded. Some proxies add a slash. What is not UTF-8 stays as it is, and is no name.
fn plain(path: &str, writes: bool) -> Cow<'_, str> {
    let decoded = percent_decode_str(path).decode_utf8().unwrap_or(Cow::Borrowed(path));
    if writes && decoded.ends_with('/') {
        return decoded.trim_end_matches('/').to_owned().into();
    }
    if writes || !decoded.contains("//") && !decoded.ends_with('/') {
        return decoded;
    }
    let parts = decoded.split('/').filter(|part| !part.is_empty());
    parts.fold(String::new(), |path, part| path + "/" + part).into()
}

fn name_invalid(error: rules::words::names::BadName) -> Failure {
    Failure::new(Code::NameInvalid, error.to_string())
}

fn upload_unknown() -> Failure {
    Failure::new(Code::BlobUploadUnknown, "no such upload")
}

fn not_found() -> Failure {
    let message =
        "no such path; the registry is under /v2/, the API under /api/v2.0/ (docs/api.md)";
    Failure::new(Code::NameUnknown, message)
}

mod about;
mod numbered;
#[cfg(test)]
mod tests;
