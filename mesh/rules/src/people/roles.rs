//! What each role may do in a project: Harbor's matrix (`src/common/rbac/project/rbac_role.go`).

use crate::words::roles::{Operation, Permission, ProjectRole, Resource};

use Operation::{Create, Delete, List, Operate, Pull, Push, Read, Stop, Update};

/// The letter of each role in the table: admin, maintainer, developer, guest, limited guest.
fn letter(role: ProjectRole) -> char {
    match role {
        ProjectRole::Admin => 'A',
        ProjectRole::Maintainer => 'M',
        ProjectRole::Developer => 'D',
        ProjectRole::Guest => 'G',
        ProjectRole::LimitedGuest => 'L',
    }
}

/// For each permission, the roles that have it, and `*` if everybody has it in a public project.
const MATRIX: &[(Resource, Operation, &str)] = &[
    (Resource::Project, Read, "AMDGL*"),
    (Resource::Project, Update, "A"),
    (Resource::Project, Delete, "A"),
    (Resource::Member, Create, "A"),
    (Resource::Member, Read, "AMDG"),
    (Resource::Member, Update, "A"),
    (Resource::Member, Delete, "A"),
    (Resource::Member, List, "AMDG"),
    (Resource::Metadata, Create, "AM"),
    (Resource::Metadata, Read, "AM"),
    (Resource::Metadata, Update, "AM"),
    (Resource::Metadata, Delete, "AM"),
    (Resource::Log, List, "AMDG"),
    (Resource::Label, Create, "AM"),
    (Resource::Label, Read, "AMDG*"),
    (Resource::Label, Update, "AM"),
    (Resource::Label, Delete, "AM"),
    (Resource::Label, List, "AMDG*"),
    (Resource::Quota, Read, "AMDGL"),
    (Resource::Repository, Create, "AMD"),
    (Resource::Repository, Read, "AMDG*"),
    (Resource::Repository, Update, "AMD"),
    (Resource::Repository, Delete, "AM"),
    (Resource::Repository, List, "AMDGL*"),
    (Resource::Repository, Pull, "AMDGL*"),
    (Resource::Repository, Push, "AMD"),
    (Resource::TagRetention, Create, "AMD"),
    (Resource::TagRetention, Read, "AMD"),
    (Resource::TagRetention, Update, "AMD"),
    (Resource::TagRetention, Delete, "AMD"),
    (Resource::TagRetention, List, "AMD"),
    (Resource::TagRetention, Operate, "AMD"),
    (Resource::ImmutableTag, Create, "AM"),
    (Resource::ImmutableTag, Update, "AM"),
    (Resource::ImmutableTag, Delete, "AM"),
    (Resource::ImmutableTag, List, "AM"),
    (Resource::Configuration, Read, "AMDGL"),
    (Resource::Configuration, Update, "A"),
    (Resource::Robot, Create, "A"),
    (Resource::Robot, Read, "AMDG"),
    (Resource::Robot, Update, "A"),
    (Resource::Robot, Delete, "A"),
    (Resource::Robot, List, "AMDG"),
    (Resource::NotificationPolicy, Create, "A"),
    (Resource::NotificationPolicy, Read, "A"),
    (Resource::NotificationPolicy, Update, "A"),
    (Resource::NotificationPolicy, Delete, "A"),
    (Resource::NotificationPolicy, List, "AM"),
    (Resource::Scan, Create, "AM"),
    (Resource::Scan, Read, "AMDGL*"),
    (Resource::Scan, Stop, "AM"),
    (Resource::Sbom, Create, "AM"),
    (Resource::Sbom, Read, "AMDGL*"),
    (Resource::Sbom, Stop, "AM"),
    (Resource::Scanner, Create, "A"),
    (Resource::Scanner, Read, "AMDGL*"),
    (Resource::Artifact, Create, "AMD"),
    (Resource::Artifact, Read, "AMDGL*"),
    (Resource::Artifact, Delete, "AM"),
    (Resource::Artifact, List, "AMDGL*"),
    (Resource::ArtifactAddition, Read, "AMDGL*"),
    (Resource::ArtifactLabel, Create, "AMD"),
    (Resource::ArtifactLabel, Delete, "AMD"),
    (Resource::Tag, Create, "AMD"),
    (Resource::Tag, Delete, "AM"),
    (Resource::Tag, List, "AMDGL*"),
    (Resource::Accessory, List, "AMDGL*"),
    // not in Harbor: who signs has to read what is not signed yet, whatever the project demands
    (Resource::Accessory, Create, "AMD"),
    // nor this: who may have the mesh sign
    (Resource::Accessory, Update, "AM"),
    (Resource::PreheatPolicy, Create, "A"),
    (Resource::PreheatPolicy, Read, "A"),
    (Resource::PreheatPolicy, Update, "A"),
    (Resource::PreheatPolicy, Delete, "A"),
    (Resource::PreheatPolicy, List, "A"),
    (Resource::ExportCve, Create, "AM"),
    (Resource::ExportCve, Read, "AM"),
    (Resource::ExportCve, List, "AM"),
];

fn row(permission: Permission) -> &'static str {
    let found = MATRIX.iter().find(|(resource, operation, _)| {
        (*resource, *operation) == (permission.resource, permission.operation)
    });
    found.map_or("", |(_, _, who)| who)
}

/// Whether a member with this role may do this in the project.
pub fn role_may(role: ProjectRole, permission: Permission) -> bool {
    row(permission).contains(letter(role))
}

/// Whether everybody may do this in a public project, signed in or not.
pub fn public_may(permission: Permission) -> bool {
    row(permission).contains('*')
}

/// All that a member with this role may do in the project.
pub fn of_role(role: ProjectRole) -> impl Iterator<Item = Permission> {
    in_project().filter(move |permission| role_may(role, *permission))
}

/// All that everybody may do in a public project.
pub fn of_everybody() -> impl Iterator<Item = Permission> {
    in_project().filter(|permission| public_may(*permission))
}

fn in_project() -> impl Iterator<Item = Permission> {
    MATRIX.iter().map(|(resource, operation, _)| Permission::new(*resource, *operation))
}

/// Whether this is a permission in a project, so that it can be granted there.
pub fn is_of_project(permission: Permission) -> bool {
    !row(permission).is_empty()
}

/// What can be granted to a robot in the system, besides permissions in projects: Harbor's list of
/// system permissions (`GET /permissions`), and nodes, which are Atoll's own.
const SYSTEM: &[(Resource, &[Operation])] = &[
    (Resource::AuditLog, &[List]),
    (Resource::Catalog, &[Read]),
    (Resource::GarbageCollection, &[Create, Read, Update, Delete, List, Stop]),
    (Resource::JobserviceMonitor, &[List, Stop]),
    (Resource::Label, &[Create, Read, Update, Delete]),
    (Resource::LdapUser, &[Create, List]),
    (Resource::Node, &[Read, Delete]),
    (Resource::PreheatInstance, &[Create, Read, Update, Delete, List]),
    (Resource::Project, &[Create, List]),
    (Resource::PurgeAudit, &[Create, Read, Update, Delete, List, Stop]),
    (Resource::Quota, &[Read, Update, List]),
    (Resource::Registry, &[Create, Read, Update, Delete, List]),
    (Resource::Replication, &[Create, Read, List]),
    (Resource::ReplicationAdapter, &[List]),
    (Resource::ReplicationPolicy, &[Create, Read, Update, Delete, List]),
    (Resource::Robot, &[Create, Read, Delete, List]),
    (Resource::ScanAll, &[Create, Read, Update, Stop]),
    (Resource::Scanner, &[Create, Read, Update, Delete, List]),
    (Resource::SecurityHub, &[Read, List]),
    (Resource::SystemVolumes, &[Read]),
    (Resource::User, &[Create, Read, Update, Delete, List]),
    (Resource::UserGroup, &[Create, Read, Update, Delete, List]),
];

/// Whether this can be granted in the system.
pub fn is_of_system(permission: Permission) -> bool {
    SYSTEM.iter().any(|(resource, operations)| {
        *resource == permission.resource && operations.contains(&permission.operation)
    })
}

/// The permissions that can be granted to robots: in the system, and in a project.
pub fn grantable() -> (Vec<Permission>, Vec<Permission>) {
    let system = SYSTEM.iter().flat_map(|(resource, operations)| {
        operations.iter().map(|operation| Permission::new(*resource, *operation))
    });
    (system.collect(), in_project().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_role_may_all_that_a_lower_one_may() {
        let may = |role| {
            move |(resource, operation, _): &(Resource, Operation, &str)| {
                role_may(role, Permission::new(*resource, *operation))
            }
        };
        for pair in ProjectRole::ALL.windows(2) {
            let (higher, lower) = (pair[0], pair[1]);
            assert!(MATRIX.iter().filter(|row| may(lower)(row)).all(may(higher)), "{lower:?}");
        }
        let counts =
            ProjectRole::ALL.map(|role| MATRIX.iter().filter(|row| may(role)(row)).count());
        assert_eq!(counts, [77, 58, 35, 21, 13]);
    }

    #[test]
    fn each_permission_has_one_row() {
        for (i, (resource, operation, _)) in MATRIX.iter().enumerate() {
            let again =
                MATRIX[i + 1..].iter().find(|row| (row.0, row.1) == (*resource, *operation));
            assert_eq!(again, None);
        }
    }

    #[test]
    fn the_lines_that_people_know() {
        use ProjectRole::{Admin, Developer, Guest, LimitedGuest, Maintainer};
        for (permission, least) in [
            (Permission::new(Resource::Repository, Pull), LimitedGuest),
            (Permission::new(Resource::Member, List), Guest),
            (Permission::new(Resource::Repository, Push), Developer),
            (Permission::new(Resource::TagRetention, Update), Developer),
            (Permission::new(Resource::Artifact, Delete), Maintainer),
            (Permission::new(Resource::Scan, Create), Maintainer),
            (Permission::new(Resource::Robot, Create), Admin),
            (Permission::new(Resource::Project, Delete), Admin),
        ] {
            let may: Vec<_> =
                ProjectRole::ALL.into_iter().filter(|role| role_may(*role, permission)).collect();
            assert_eq!(may.last(), Some(&least), "{permission}");
        }
        let pull = Permission::new(Resource::Repository, Pull);
        assert!(public_may(pull) && !public_may(Permission::new(Resource::Repository, Push)));
        assert!(!public_may(Permission::new(Resource::Member, List)));
        let catalog = Permission::new(Resource::Catalog, Read);
        assert!(is_of_system(catalog) && !is_of_project(catalog));
    }
}
