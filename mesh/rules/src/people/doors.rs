//! What each route needs: the one table of who may do what over HTTP. The node asks it for each
//! request of the API, and a test walks it against a running mesh.

use crate::words::roles::{Operation, Permission, Resource};

use Operation::{Create, Delete, List, Operate, Pull, Push, Read, Stop, Update};

/// What a caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing. The answer shows only what the caller may see.
    Nothing,
    /// Some valid credentials.
    Credentials,
    /// To be a user or an administrator: robots have no account.
    Account,
    /// A permission in the registry as a whole.
    System(Permission),
    /// A permission in the project of the path.
    Project(Permission),
    /// To be the user that the path names, or a permission in the registry as a whole.
    Own(Permission),
    /// A permission in the system, or, for a robot of a project, in that project.
    Robot(Permission),
    /// A permission in the project of a label, or, for labels of all projects, in the system.
    /// Whoever is signed in may list those.
    Label(Permission),
    /// To be allowed to create projects (`people.project_creation`).
    NewProject,
}

/// A route and a method, and what they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The path, with the names of its variable parts in braces.
    pub path: &'static str,
    /// The methods. GET stands for HEAD, too.
    pub methods: &'static [&'static str],
    /// What they need.
    pub need: Need,
}

const fn system(resource: Resource, operation: Operation) -> Need {
    Need::System(Permission::new(resource, operation))
}

const fn project(resource: Resource, operation: Operation) -> Need {
    Need::Project(Permission::new(resource, operation))
}

const fn row(path: &'static str, methods: &'static [&'static str], need: Need) -> Row {
    Row { path, methods, need }
}

/// The table.
pub const DOORS: &[Row] = &[
    row("/v2/", &["GET"], Need::Credentials),
    row("/v2/_catalog", &["GET"], system(Resource::Catalog, Read)),
    row("/v2/{repository}/blobs/{digest}", &["GET"], project(Resource::Repository, Pull)),
    row("/v2/{repository}/blobs/{digest}", &["DELETE"], project(Resource::Repository, Delete)),
    row("/v2/{repository}/blobs/uploads/", &["POST"], project(Resource::Repository, Push)),
    row(
        "/v2/{repository}/blobs/uploads/{id}",
        &["GET", "PATCH", "PUT", "DELETE"],
        project(Resource::Repository, Push),
    ),
    row("/v2/{repository}/manifests/{reference}", &["GET"], project(Resource::Repository, Pull)),
    row("/v2/{repository}/manifests/{reference}", &["PUT"], project(Resource::Repository, Push)),
    row(
        "/v2/{repository}/manifests/{reference}",
        &["DELETE"],
        project(Resource::Repository, Delete),
    ),
    row("/v2/{repository}/tags/list", &["GET"], project(Resource::Repository, Pull)),
    row("/v2/{repository}/referrers/{digest}", &["GET"], project(Resource::Repository, Pull)),
    row("/api/v2.0/projects", &["GET"], Need::Nothing),
    row("/api/v2.0/projects", &["POST"], Need::NewProject),
    row("/api/v2.0/projects/{project}", &["GET"], project(Resource::Project, Read)),
    row("/api/v2.0/projects/{project}", &["PUT"], project(Resource::Project, Update)),
    row("/api/v2.0/projects/{project}", &["DELETE"], project(Resource::Project, Delete)),
    // Harbor asks for a right to list them that no role has
    row("/api/v2.0/projects/{project}/metadatas", &["GET"], project(Resource::Metadata, Read)),
    row("/api/v2.0/projects/{project}/metadatas", &["POST"], project(Resource::Metadata, Create)),
    row(
        "/api/v2.0/projects/{project}/metadatas/{key}",
        &["GET"],
        project(Resource::Metadata, Read),
    ),
    row(
        "/api/v2.0/projects/{project}/metadatas/{key}",
        &["PUT"],
        project(Resource::Metadata, Update),
    ),
    row(
        "/api/v2.0/projects/{project}/metadatas/{key}",
        &["DELETE"],
        project(Resource::Metadata, Delete),
    ),
    row("/api/v2.0/labels", &["GET"], Need::Label(Permission::new(Resource::Label, List))),
    row("/api/v2.0/labels", &["POST"], Need::Label(Permission::new(Resource::Label, Create))),
    row("/api/v2.0/labels/{label}", &["GET"], Need::Label(Permission::new(Resource::Label, Read))),
    row(
        "/api/v2.0/labels/{label}",
        &["PUT"],
        Need::Label(Permission::new(Resource::Label, Update)),
    ),
    row(
        "/api/v2.0/labels/{label}",
        &["DELETE"],
        Need::Label(Permission::new(Resource::Label, Delete)),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/labels",
        &["POST"],
        project(Resource::ArtifactLabel, Create),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/labels/{label}",
        &["DELETE"],
        project(Resource::ArtifactLabel, Delete),
    ),
    row("/api/v2.0/projects/{project}/members", &["GET"], project(Resource::Member, List)),
    row("/api/v2.0/projects/{project}/members", &["POST"], project(Resource::Member, Create)),
    row("/api/v2.0/projects/{project}/members/{id}", &["GET"], project(Resource::Member, Read)),
    row("/api/v2.0/projects/{project}/members/{id}", &["PUT"], project(Resource::Member, Update)),
    row(
        "/api/v2.0/projects/{project}/members/{id}",
        &["DELETE"],
        project(Resource::Member, Delete),
    ),
    row("/api/v2.0/projects/{project}/summary", &["GET"], project(Resource::Project, Read)),
    // Harbor asks for the right to delete
    row("/api/v2.0/projects/{project}/_deletable", &["GET"], project(Resource::Project, Delete)),
    row(
        "/api/v2.0/projects/{project}/immutabletagrules",
        &["GET"],
        project(Resource::ImmutableTag, List),
    ),
    row(
        "/api/v2.0/projects/{project}/immutabletagrules",
        &["POST"],
        project(Resource::ImmutableTag, Create),
    ),
    row(
        "/api/v2.0/projects/{project}/immutabletagrules/{id}",
        &["PUT"],
        project(Resource::ImmutableTag, Update),
    ),
    row(
        "/api/v2.0/projects/{project}/immutabletagrules/{id}",
        &["DELETE"],
        project(Resource::ImmutableTag, Delete),
    ),
    row("/api/v2.0/projects/{project}/scanner", &["GET"], project(Resource::Scanner, Read)),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/scan",
        &["POST"],
        project(Resource::Scan, Create),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/scan/stop",
        &["POST"],
        project(Resource::Scan, Stop),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/scan/{id}/log",
        &["GET"],
        project(Resource::Scan, Read),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/additions/vulnerabilities",
        &["GET"],
        project(Resource::ArtifactAddition, Read),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/additions/sbom",
        &["GET"],
        project(Resource::ArtifactAddition, Read),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/explanation",
        &["GET"],
        // it tells of findings, as the report does
        project(Resource::ArtifactAddition, Read),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/accessories",
        &["GET"],
        project(Resource::Accessory, List),
    ),
    // what is not in Harbor: who may see accessories sees what they are worth and by whom; who may
    // change a project's policies says whom it trusts; only its administrators make exceptions
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/signatures",
        &["GET"],
        project(Resource::Accessory, List),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/signatures/exemption",
        &["PUT", "DELETE"],
        project(Resource::Configuration, Update),
    ),
    row("/api/v2.0/projects/{project}/signers", &["GET"], project(Resource::Accessory, List)),
    row("/api/v2.0/projects/{project}/signers", &["POST"], project(Resource::Metadata, Update)),
    row(
        "/api/v2.0/projects/{project}/signers/{signer}",
        &["GET"],
        project(Resource::Accessory, List),
    ),
    row(
        "/api/v2.0/projects/{project}/signers/{signer}",
        &["PUT", "DELETE"],
        project(Resource::Metadata, Update),
    ),
    row("/api/v2.0/projects/{project}/signing", &["GET"], project(Resource::Accessory, List)),
    row(
        "/api/v2.0/projects/{project}/signing",
        &["POST"],
        project(Resource::Configuration, Update),
    ),
    row("/api/v2.0/projects/{project}/signing/log", &["GET"], project(Resource::Accessory, List)),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/signatures",
        &["POST"],
        project(Resource::Accessory, Update),
    ),
    // who may push could push it again, so they may restore it; for good it is removed by those who may
    // delete
    row("/api/v2.0/projects/{project}/trash", &["GET"], project(Resource::Repository, Push)),
    row("/api/v2.0/projects/{project}/trash", &["DELETE"], project(Resource::Artifact, Delete)),
    row(
        "/api/v2.0/projects/{project}/trash/restore",
        &["POST"],
        project(Resource::Repository, Push),
    ),
    row("/api/v2.0/projects/{project}/unsigned", &["GET"], project(Resource::Metadata, Read)),
    row("/api/v2.0/system/CVEAllowlist", &["GET"], Need::Account),
    row("/api/v2.0/system/CVEAllowlist", &["PUT"], Need::System(ADMINISTER)),
    row("/api/v2.0/projects/{project}/scanner", &["PUT"], project(Resource::Scanner, Create)),
    // Harbor asks for the right to set it
    row(
        "/api/v2.0/projects/{project}/scanner/candidates",
        &["GET"],
        project(Resource::Scanner, Create),
    ),
    row("/api/v2.0/scanners", &["GET"], system(Resource::Scanner, List)),
    row("/api/v2.0/scanners", &["POST"], system(Resource::Scanner, Create)),
    row("/api/v2.0/scanners/ping", &["POST"], system(Resource::Scanner, Read)),
    row("/api/v2.0/scanners/{scanner}", &["GET"], system(Resource::Scanner, Read)),
    row("/api/v2.0/scanners/{scanner}", &["PATCH", "PUT"], system(Resource::Scanner, Update)),
    row("/api/v2.0/scanners/{scanner}", &["DELETE"], system(Resource::Scanner, Delete)),
    row("/api/v2.0/scanners/{scanner}/metadata", &["GET"], system(Resource::Scanner, Read)),
    row("/api/v2.0/system/scanAll/schedule", &["GET"], system(Resource::ScanAll, Read)),
    row("/api/v2.0/system/scanAll/schedule", &["POST"], system(Resource::ScanAll, Create)),
    row("/api/v2.0/system/scanAll/schedule", &["PUT"], system(Resource::ScanAll, Update)),
    row("/api/v2.0/system/scanAll/stop", &["POST"], system(Resource::ScanAll, Stop)),
    row("/api/v2.0/scans/all/metrics", &["GET"], system(Resource::ScanAll, Read)),
    row("/api/v2.0/security/summary", &["GET"], system(Resource::SecurityHub, Read)),
    row("/api/v2.0/security/vul", &["GET"], system(Resource::SecurityHub, List)),
    // the project is in the body; the others show what the caller has asked for
    row("/api/v2.0/export/cve", &["POST"], project(Resource::ExportCve, Create)),
    row("/api/v2.0/export/cve/executions", &["GET"], Need::Credentials),
    row("/api/v2.0/export/cve/execution/{id}", &["GET"], Need::Credentials),
    row("/api/v2.0/export/cve/download/{id}", &["GET"], Need::Credentials),
    row("/api/v2.0/retentions", &["POST"], project(Resource::TagRetention, Create)),
    row("/api/v2.0/retentions/metadatas", &["GET"], Need::Nothing),
    row("/api/v2.0/retentions/{project}", &["GET"], project(Resource::TagRetention, Read)),
    row("/api/v2.0/retentions/{project}", &["PUT"], project(Resource::TagRetention, Update)),
    row("/api/v2.0/retentions/{project}", &["DELETE"], project(Resource::TagRetention, Delete)),
    // a POST has the policy that is judged, and changes nothing
    row(
        "/api/v2.0/retentions/{project}/forecast",
        &["GET", "POST"],
        project(Resource::TagRetention, Read),
    ),
    row(
        "/api/v2.0/retentions/{project}/executions",
        &["GET"],
        project(Resource::TagRetention, List),
    ),
    row(
        "/api/v2.0/retentions/{project}/executions",
        &["POST"],
        project(Resource::TagRetention, Operate),
    ),
    row(
        "/api/v2.0/retentions/{project}/executions/{id}",
        &["PATCH"],
        project(Resource::TagRetention, Operate),
    ),
    row(
        "/api/v2.0/retentions/{project}/executions/{id}/tasks",
        &["GET"],
        project(Resource::TagRetention, List),
    ),
    row(
        "/api/v2.0/retentions/{project}/executions/{id}/tasks/{task}",
        &["GET"],
        project(Resource::TagRetention, Read),
    ),
    row("/api/v2.0/projects/{project}/repositories", &["GET"], project(Resource::Repository, List)),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}",
        &["GET"],
        project(Resource::Repository, Read),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}",
        &["DELETE"],
        project(Resource::Repository, Delete),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts",
        &["GET"],
        project(Resource::Artifact, List),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}",
        &["GET"],
        project(Resource::Artifact, Read),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}",
        &["DELETE"],
        project(Resource::Artifact, Delete),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/tags",
        &["GET"],
        project(Resource::Tag, List),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/tags",
        &["POST"],
        project(Resource::Tag, Create),
    ),
    row(
        "/api/v2.0/projects/{project}/repositories/{name}/artifacts/{reference}/tags/{tag}",
        &["DELETE"],
        project(Resource::Tag, Delete),
    ),
    row("/api/v2.0/repositories", &["GET"], Need::Nothing),
    row("/api/v2.0/search", &["GET"], Need::Nothing),
    row("/api/v2.0/statistics", &["GET"], Need::Nothing),
    row("/api/v2.0/quotas", &["GET"], system(Resource::Quota, List)),
    row("/api/v2.0/quotas/{id}", &["GET"], system(Resource::Quota, Read)),
    row("/api/v2.0/quotas/{id}", &["PUT"], system(Resource::Quota, Update)),
    row("/api/v2.0/system/gc", &["GET"], system(Resource::GarbageCollection, List)),
    row("/api/v2.0/system/gc/schedule", &["GET"], system(Resource::GarbageCollection, Read)),
    row("/api/v2.0/system/gc/schedule", &["POST"], system(Resource::GarbageCollection, Create)),
    row("/api/v2.0/system/gc/schedule", &["PUT"], system(Resource::GarbageCollection, Update)),
    row("/api/v2.0/system/gc/{id}", &["GET"], system(Resource::GarbageCollection, Read)),
    row("/api/v2.0/system/gc/{id}", &["PUT"], system(Resource::GarbageCollection, Stop)),
    row("/api/v2.0/system/gc/{id}/log", &["GET"], system(Resource::GarbageCollection, Read)),
    row("/api/v2.0/system/purgeaudit", &["GET"], system(Resource::PurgeAudit, List)),
    row("/api/v2.0/system/purgeaudit/schedule", &["GET"], system(Resource::PurgeAudit, Read)),
    row("/api/v2.0/system/purgeaudit/schedule", &["POST"], system(Resource::PurgeAudit, Create)),
    row("/api/v2.0/system/purgeaudit/schedule", &["PUT"], system(Resource::PurgeAudit, Update)),
    row("/api/v2.0/system/purgeaudit/{id}", &["GET"], system(Resource::PurgeAudit, Read)),
    row("/api/v2.0/system/purgeaudit/{id}", &["PUT"], system(Resource::PurgeAudit, Stop)),
    row("/api/v2.0/system/purgeaudit/{id}/log", &["GET"], system(Resource::PurgeAudit, Read)),
    row("/api/v2.0/ping", &["GET"], Need::Nothing),
    row("/api/v2.0/health", &["GET"], Need::Nothing),
    row("/api/v2.0/systeminfo", &["GET"], Need::Nothing),
    row("/api/v2.0/registries", &["GET"], system(Resource::Registry, List)),
    row("/api/v2.0/registries", &["POST"], system(Resource::Registry, Create)),
    row("/api/v2.0/registries/ping", &["POST"], system(Resource::Registry, Read)),
    row("/api/v2.0/registries/{id}", &["GET"], system(Resource::Registry, Read)),
    row("/api/v2.0/registries/{id}", &["PUT"], system(Resource::Registry, Update)),
    row("/api/v2.0/registries/{id}", &["DELETE"], system(Resource::Registry, Delete)),
    row("/api/v2.0/users", &["GET"], system(Resource::User, List)),
    row("/api/v2.0/users", &["POST"], system(Resource::User, Create)),
    row("/api/v2.0/users/current", &["GET"], Need::Account),
    row("/api/v2.0/users/search", &["GET"], Need::Account),
    row("/api/v2.0/users/{user}", &["GET"], Need::Own(Permission::new(Resource::User, Read))),
    row("/api/v2.0/users/{user}", &["PUT"], Need::Own(Permission::new(Resource::User, Update))),
    row("/api/v2.0/users/{user}", &["DELETE"], system(Resource::User, Delete)),
    // Harbor has none for these two: whoever may do them could become an administrator
    row("/api/v2.0/users/{user}/sysadmin", &["PUT"], Need::System(ADMINISTER)),
    row("/api/v2.0/users/{user}/password", &["PUT"], Need::Own(ADMINISTER)),
    row("/api/v2.0/users/{user}/cli_secret", &["PUT"], Need::Own(ADMINISTER)),
    row("/api/v2.0/usergroups", &["GET"], system(Resource::UserGroup, List)),
    row("/api/v2.0/usergroups", &["POST"], system(Resource::UserGroup, Create)),
    row("/api/v2.0/usergroups/search", &["GET"], Need::Account),
    row("/api/v2.0/usergroups/{id}", &["GET"], system(Resource::UserGroup, Read)),
    row("/api/v2.0/usergroups/{id}", &["PUT"], system(Resource::UserGroup, Update)),
    row("/api/v2.0/usergroups/{id}", &["DELETE"], system(Resource::UserGroup, Delete)),
    row("/api/v2.0/robots", &["GET"], Need::Robot(Permission::new(Resource::Robot, List))),
    row("/api/v2.0/robots", &["POST"], Need::Robot(Permission::new(Resource::Robot, Create))),
    row("/api/v2.0/robots/{id}", &["GET"], Need::Robot(Permission::new(Resource::Robot, Read))),
    row(
        "/api/v2.0/robots/{id}",
        &["PUT", "PATCH"],
        Need::Robot(Permission::new(Resource::Robot, Update)),
    ),
    row(
        "/api/v2.0/robots/{id}",
        &["DELETE"],
        Need::Robot(Permission::new(Resource::Robot, Delete)),
    ),
    row(
        "/api/v2.0/robots/{id}/trusts",
        &["GET"],
        Need::Robot(Permission::new(Resource::Robot, Read)),
    ),
    row(
        "/api/v2.0/robots/{id}/trusts",
        &["POST"],
        Need::Robot(Permission::new(Resource::Robot, Update)),
    ),
    row(
        "/api/v2.0/robots/{id}/trusts/{trust}",
        &["PUT", "DELETE"],
        Need::Robot(Permission::new(Resource::Robot, Update)),
    ),
    row("/api/v2.0/configurations", &["GET", "PUT"], Need::System(ADMINISTER)),
    // Harbor lets robots do these that read settings; they make a node connect to any address
    row("/api/v2.0/system/oidc/ping", &["POST"], Need::System(ADMINISTER)),
    row("/api/v2.0/ldap/ping", &["POST"], Need::System(ADMINISTER)),
    row("/api/v2.0/ldap/users/search", &["GET"], system(Resource::LdapUser, List)),
    row("/api/v2.0/ldap/users/import", &["POST"], system(Resource::LdapUser, Create)),
    row("/api/v2.0/ldap/groups/search", &["GET"], system(Resource::LdapUser, List)),
    row("/api/v2.0/permissions", &["GET"], Need::Account),
    row("/api/v2.0/auditlog-exts", &["GET"], system(Resource::AuditLog, List)),
    row("/api/v2.0/audit-logs", &["GET"], system(Resource::AuditLog, List)),
    row("/api/v2.0/projects/{project}/auditlog-exts", &["GET"], project(Resource::Log, List)),
    row("/api/v2.0/projects/{project}/logs", &["GET"], project(Resource::Log, List)),
    row("/api/openapi.json", &["GET"], Need::Nothing),
    row("/api/atoll/v1/status", &["GET"], system(Resource::Node, Read)),
    row("/api/atoll/v1/dr", &["GET"], system(Resource::Node, Read)),
    row("/api/atoll/v1/replication", &["GET"], system(Resource::Node, Read)),
    row("/api/atoll/v1/level", &["GET"], system(Resource::Node, Read)),
    row("/api/atoll/v1/level", &["POST"], Need::System(ADMINISTER)),
    row("/api/atoll/v1/inventory", &["GET"], Need::System(ADMINISTER)),
    row("/api/atoll/v1/dr/drill", &["GET", "POST", "DELETE"], Need::System(ADMINISTER)),
    row("/api/atoll/v1/mirrors", &["GET"], Need::Nothing),
    row("/api/atoll/v1/nodes/{node}", &["GET"], system(Resource::Node, Read)),
    row("/api/atoll/v1/nodes/{node}", &["DELETE"], system(Resource::Node, Delete)),
    row("/api/atoll/v1/nodes/{node}/drain", &["GET"], system(Resource::Node, Read)),
    row("/api/atoll/v1/nodes/{node}/drain", &["POST", "DELETE"], system(Resource::Node, Delete)),
    row("/api/atoll/v1/nodes/{node}/scrub", &["GET"], system(Resource::Node, Read)),
    // as repairs
    row("/api/atoll/v1/nodes/{node}/scrub", &["POST"], system(Resource::GarbageCollection, Create)),
    row("/api/atoll/v1/preheats", &["GET"], system(Resource::PreheatInstance, List)),
    row("/api/atoll/v1/preheats", &["POST"], system(Resource::PreheatInstance, Create)),
    row("/api/atoll/v1/preheats/{id}", &["GET"], system(Resource::PreheatInstance, Read)),
    row("/api/atoll/v1/preheats/{id}", &["DELETE"], system(Resource::PreheatInstance, Delete)),
    row("/api/atoll/v1/jobs", &["GET"], system(Resource::JobserviceMonitor, List)),
    row("/api/atoll/v1/jobs", &["POST"], system(Resource::GarbageCollection, Create)),
    row("/api/atoll/v1/jobs/{id}", &["GET"], system(Resource::JobserviceMonitor, List)),
    row("/api/atoll/v1/jobs/{id}/log", &["GET"], system(Resource::JobserviceMonitor, List)),
    row("/api/atoll/v1/jobs/{id}/stop", &["POST"], system(Resource::JobserviceMonitor, Stop)),
    row("/api/atoll/v1/jobs/{id}/retry", &["POST"], system(Resource::JobserviceMonitor, Stop)),
    row("/api/atoll/v1/collection", &["GET"], system(Resource::GarbageCollection, Read)),
    row("/api/atoll/v1/collection", &["POST"], system(Resource::GarbageCollection, Create)),
    row("/api/atoll/v1/schedules", &["GET"], system(Resource::JobserviceMonitor, List)),
    row(
        "/api/atoll/v1/schedules/{project}/{name}",
        &["DELETE"],
        system(Resource::JobserviceMonitor, Stop),
    ),
];

/// What only administrators have: no robot can be granted it.
const ADMINISTER: Permission = Permission::new(Resource::User, Operation::Operate);

/// What `method` on `path` (as in the table) needs; `None` if it is not supported there.
pub fn need(path: &str, method: &str) -> Option<Need> {
    let method = if method == "HEAD" { "GET" } else { method };
    let row = DOORS.iter().find(|row| row.path == path && row.methods.contains(&method));
    row.map(|row| row.need)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::people::access::Action;
    use crate::people::roles::{is_of_project, is_of_system};

    #[test]
    fn each_row_needs_what_can_be_had() {
        for row in DOORS {
            match row.need {
                Need::Project(permission) => assert!(is_of_project(permission), "{row:?}"),
                Need::Robot(permission) | Need::Label(permission) => {
                    assert!(is_of_project(permission), "{row:?}")
                }
                Need::System(ADMINISTER) | Need::Own(ADMINISTER) => {}
                Need::System(permission) | Need::Own(permission) => {
                    assert!(is_of_system(permission), "{row:?}");
                }
                Need::Nothing | Need::Credentials | Need::Account | Need::NewProject => {}
            }
            for method in row.methods {
                assert_eq!(need(row.path, method), Some(row.need), "one row for each");
            }
        }
        assert!(!is_of_system(ADMINISTER) && !is_of_project(ADMINISTER));
        assert_eq!(need("/api/v2.0/projects", "HEAD"), Some(Need::Nothing));
        assert_eq!(need("/api/v2.0/projects", "PATCH"), None);
    }

    #[test]
    fn what_tokens_name_is_what_the_table_names() {
        let manifests = |method| need("/v2/{repository}/manifests/{reference}", method);
        for (method, action) in
            [("GET", Action::Pull), ("PUT", Action::Push), ("DELETE", Action::Delete)]
        {
            assert_eq!(manifests(method), Some(Need::Project(action.permission())));
        }
    }
}
