//! The words of permissions: what somebody may do (an operation on a resource), and the roles in a
//! project. They are Harbor's (`src/common/rbac/const.go`, `src/common/const.go`), because robots
//! and scripts name them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::words::names::{BadName, bad};

/// Makes an enum whose values have a word each. A value's position is its number in the ledger:
/// add new ones at the end.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $problem:literal, { $($value:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $(#[doc = concat!("`", $word, "`")] $value),*
        }

        impl $name {
            /// All values, in the order of their numbers.
            pub const ALL: &'static [$name] = &[$($name::$value),*];

            /// The word in Harbor's API.
            pub fn word(self) -> &'static str {
                match self { $($name::$value => $word),* }
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::ALL.iter().copied().find(|one| one.word() == text).ok_or(bad($problem))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words!(
    /// What an operation is done to.
    Resource, "there is no such resource", {
        Project = "project",
        Member = "member",
        Metadata = "metadata",
        Log = "log",
        Label = "label",
        Quota = "quota",
        Repository = "repository",
        TagRetention = "tag-retention",
        ImmutableTag = "immutable-tag",
        Configuration = "configuration",
        Robot = "robot",
        NotificationPolicy = "notification-policy",
        Scan = "scan",
        Sbom = "sbom",
        Scanner = "scanner",
        Artifact = "artifact",
        ArtifactAddition = "artifact-addition",
        ArtifactLabel = "artifact-label",
        Tag = "tag",
        Accessory = "accessory",
        PreheatPolicy = "preheat-policy",
        ExportCve = "export-cve",
        AuditLog = "audit-log",
        Catalog = "catalog",
        User = "user",
        UserGroup = "user-group",
        Registry = "registry",
        Replication = "replication",
        ReplicationAdapter = "replication-adapter",
        ReplicationPolicy = "replication-policy",
        GarbageCollection = "garbage-collection",
        ScanAll = "scan-all",
        SecurityHub = "security-hub",
        SystemVolumes = "system-volumes",
        PurgeAudit = "purge-audit",
        PreheatInstance = "preheat-instance",
        JobserviceMonitor = "jobservice-monitor",
        LdapUser = "ldap-user",
        Node = "node",
    }
);

words!(
    /// What is done to a resource.
    Operation, "there is no such action", {
        Create = "create",
        Read = "read",
        Update = "update",
        Delete = "delete",
        List = "list",
        Pull = "pull",
        Push = "push",
        Operate = "operate",
        Stop = "stop",
        ScannerPull = "scanner-pull",
    }
);

/// An operation on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Permission {
    /// The resource.
    pub resource: Resource,
    /// The operation.
    pub operation: Operation,
}

impl Permission {
    /// `operation` on `resource`.
    pub const fn new(resource: Resource, operation: Operation) -> Self {
        Permission { resource, operation }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation, self.resource)
    }
}

/// The role of a member in a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProjectRole {
    /// Everything in the project, members and policies too.
    Admin,
    /// Pushes, pulls, deletes and scans.
    Maintainer,
    /// Pushes and pulls.
    Developer,
    /// Pulls, and sees what there is.
    Guest,
    /// Pulls, without seeing members and logs.
    LimitedGuest,
}

impl ProjectRole {
    /// All roles, from the most to the fewest permissions.
    pub const ALL: [ProjectRole; 5] = [
        ProjectRole::Admin,
        ProjectRole::Maintainer,
        ProjectRole::Developer,
        ProjectRole::Guest,
        ProjectRole::LimitedGuest,
    ];

    /// Its number in Harbor's API.
    pub fn number(self) -> u64 {
        match self {
            ProjectRole::Admin => 1,
            ProjectRole::Developer => 2,
            ProjectRole::Guest => 3,
            ProjectRole::Maintainer => 4,
            ProjectRole::LimitedGuest => 5,
        }
    }

    /// Its name in Harbor's API.
    pub fn name(self) -> &'static str {
        match self {
            ProjectRole::Admin => "projectAdmin",
            ProjectRole::Maintainer => "maintainer",
            ProjectRole::Developer => "developer",
            ProjectRole::Guest => "guest",
            ProjectRole::LimitedGuest => "limitedGuest",
        }
    }

    /// The role with this number.
    pub fn numbered(number: u64) -> Option<Self> {
        ProjectRole::ALL.into_iter().find(|role| role.number() == number)
    }
}

/// Who vouches for users and groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Provider {
    /// A directory of people (RFC 4511).
    Ldap,
    /// An OpenID Connect provider.
    Oidc,
}

impl Provider {
    /// Its number in Harbor's API (`group_type`, `src/common/const.go`). Harbor's 2 stands for groups
    /// of an HTTP proxy, which there are none of here.
    pub fn number(self) -> u64 {
        match self {
            Provider::Ldap => 1,
            Provider::Oidc => 3,
        }
    }

    /// The provider with this number.
    pub fn numbered(number: u64) -> Option<Self> {
        [Provider::Ldap, Provider::Oidc].into_iter().find(|one| one.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_lead_back() {
        for resource in Resource::ALL {
            assert_eq!(resource.word().parse(), Ok(*resource));
        }
        for operation in Operation::ALL {
            assert_eq!(operation.word().parse(), Ok(*operation));
        }
        for role in ProjectRole::ALL {
            assert_eq!(ProjectRole::numbered(role.number()), Some(role));
        }
        assert!("helm-chart".parse::<Resource>().is_err() && ProjectRole::numbered(6).is_none());
    }

    #[test]
    fn what_the_ledger_holds_keeps_its_number() {
        // records of robots hold these numbers; a permission that moved would be another one
        let kept = |permission| postcard::to_stdvec(&permission).unwrap();
        let pull = Permission::new(Resource::Repository, Operation::Pull);
        assert_eq!(kept(pull), [6, 5]);
        let node = Permission::new(Resource::Node, Operation::ScannerPull);
        assert_eq!(kept(node), [38, 9]);
        let role = |role| postcard::to_stdvec(&role).unwrap();
        assert_eq!(ProjectRole::ALL.map(role).concat(), [0, 1, 2, 3, 4]);
    }
}
