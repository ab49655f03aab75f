//! Which identity may do what.
//!
//! What a client shows (a password, a token) names a [`Principal`]. For each request, the records
//! say which [`Identity`] that is now, and what it may do: whoever was deleted, disabled or removed
//! from a project may nothing from that moment on, whatever their token says. A token's scopes only
//! narrow this.

use serde::{Deserialize, Serialize};

use super::roles::{public_may, role_may};
use crate::ledger::people::{Grant, LookForPeople, Space};
use crate::ledger::records::{Look, Project, ReadRecords, RecordError, User, key};
use crate::proxies::mirror::without_colon;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectId, ProjectName, RepositoryName, RobotId, UserId, UserName};
use crate::words::roles::{Operation, Permission, ProjectRole, Resource};

/// The authenticated identity behind a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// No credentials were shown.
    Anonymous,
    /// An administrator, who may do everything.
    Administrator(String),
    /// Another user.
    User(SignedIn),
    /// A robot.
    Robot(Box<RobotIdentity>),
}

/// A user who is no administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIn {
    /// Their number.
    pub id: UserId,
    /// Their name.
    pub name: UserName,
}

/// A robot, with what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotIdentity {
    /// Its number.
    pub id: RobotId,
    /// Its name, with the prefix.
    pub name: String,
    /// The project that it belongs to.
    pub project: Option<ProjectId>,
    /// What it may do.
    pub grants: Vec<Grant>,
}

impl Identity {
    /// The name for logs.
    pub fn name(&self) -> &str {
        match self {
            Identity::Anonymous => "anonymous",
            Identity::Administrator(name) => name,
            Identity::User(user) => user.name.as_str(),
            Identity::Robot(robot) => &robot.name,
        }
    }

    /// Whether they may do everything.
    pub fn is_administrator(&self) -> bool {
        matches!(self, Identity::Administrator(_))
    }

    /// Whether they may do this in the registry as a whole.
    pub fn may_in_system(&self, permission: Permission) -> bool {
        match self {
            Identity::Administrator(_) => true,
            Identity::Robot(robot) => grants(robot, permission, |space| space == Space::System),
            Identity::Anonymous | Identity::User(_) => false,
        }
    }

    /// Whether they may do this in `project`, according to `records`.
    pub fn may<R: ReadRecords + ?Sized>(
        &self,
        records: &R,
        permission: Permission,
        project: &Project,
    ) -> Result<bool, RecordError> {
        if project.public && public_may(permission) {
            return Ok(true);
        }
        Ok(match self {
            Identity::Anonymous => false,
            Identity::Administrator(_) => true,
            Identity::User(user) => {
                let role = records.role(project, user.id)?;
                role.is_some_and(|role| role_may(role, permission))
            }
            Identity::Robot(robot) => grants(robot, permission, |space| {
                space == Space::Project(project.id) || space == Space::AllProjects
            }),
        })
    }

    /// Their role in `project`, if they are a member.
    pub fn role<R: ReadRecords + ?Sized>(
        &self,
        records: &R,
        project: &Project,
    ) -> Result<Option<ProjectRole>, RecordError> {
        match self {
            Identity::User(user) => records.role(project, user.id),
            _ => Ok(None),
        }
    }
}

fn grants(robot: &RobotIdentity, permission: Permission, there: impl Fn(Space) -> bool) -> bool {
    robot.grants.iter().any(|grant| there(grant.space) && grant.permissions.contains(&permission))
}

/// Who shows a token or was shown by a password: a number that is never reused, and the generation
/// of what they showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Principal {
    /// A user.
    User {
        /// Which.
        id: UserId,
        /// See [`Account::generation`](crate::ledger::people::Account::generation).
        generation: u64,
    },
    /// A robot.
    Robot {
        /// Which.
        id: RobotId,
        /// See [`Robot::generation`](crate::ledger::people::Robot::generation).
        generation: u64,
    },
}

impl Principal {
    /// The identity that this is now; `None` if it is gone, disabled or expired, or if what was
    /// shown is no longer valid. `prefix` is that of robots' names.
    pub fn identity<R: ReadRecords + ?Sized>(
        self,
        records: &R,
        now: Timestamp,
        prefix: &str,
    ) -> Result<Option<Identity>, RecordError> {
        Ok(match self {
            Principal::User { id, generation } => records
                .account(id)?
                .filter(|account| account.generation == generation && !account.disabled)
                .map(|account| match account.administrator {
                    true => Identity::Administrator(account.name.to_string()),
                    false => Identity::User(SignedIn { id, name: account.name }),
                }),
            Principal::Robot { id, generation } => records
                .robot(id)?
                .filter(|robot| robot.generation == generation && !robot.disabled)
                .filter(|robot| robot.expires.is_none_or(|end| now < end))
                .map(|robot| {
                    let name = format!("{prefix}{}", robot.login());
                    let project = robot.project.map(|(id, _)| id);
                    Identity::Robot(Box::new(RobotIdentity {
                        id,
                        name,
                        project,
                        grants: robot.grants,
                    }))
                }),
        })
    }
}

/// The administrator with this name in a mesh below the level
/// [`PEOPLE`](crate::ledger::level::Level::PEOPLE), and whoever of that name became an account: for
/// a token that only names them.
pub fn named_administrator<R: ReadRecords + ?Sized>(
    records: &R,
    name: &str,
) -> Result<Option<Identity>, RecordError> {
    let old = records.record::<User>(&key::user(name))?.map(|user| user.administrator);
    let is = match (old, name.parse::<UserName>()) {
        // as it became an account: what only names them was shown before a password changed since
        (None, Ok(name)) => records
            .account_named(&name)?
            .map(|account| account.administrator && !account.disabled && account.generation == 1),
        (old, _) => old,
    };
    Ok((is == Some(true)).then(|| Identity::Administrator(name.to_owned())))
}

/// An action, in the terms of token scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// Read manifests, tags, blobs.
    Pull,
    /// Upload blobs, put manifests.
    Push,
    /// Delete manifests, tags, blobs.
    Delete,
}

impl Action {
    /// The word in a token's scope.
    pub fn name(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "push",
            Action::Delete => "delete",
        }
    }
}

impl Action {
    /// The permission in a project that it needs (Harbor's `src/server/middleware/v2auth`).
    pub fn permission(self) -> Permission {
        let operation = match self {
            Action::Pull => Operation::Pull,
            Action::Push => Operation::Push,
            Action::Delete => Operation::Delete,
        };
        Permission::new(Resource::Repository, operation)
    }
}

/// Whether `identity` may do `action` in `project`. `None` stands for a project that does not
/// exist; only an administrator is told so.
pub fn allowed<R: ReadRecords + ?Sized>(
    records: &R,
    identity: &Identity,
    action: Action,
    project: Option<&Project>,
) -> Result<bool, RecordError> {
    match project {
        Some(project) => identity.may(records, action.permission(), project),
        None => Ok(identity.is_administrator()),
    }
}

/// One scope of a token request: `repository:demo/app:pull,push`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The repository.
    pub repository: RepositoryName,
    /// The actions that are asked for. Unknown words are left out.
    pub actions: Vec<Action>,
}

impl Scope {
    /// Parses one scope by the token grammar of the distribution project:
    /// `type[(class)]:name:actions`. The class names a kind of image and has no effect. A registry
    /// before the name may have a port. `None` for other types (`registry:catalog:*`) and malformed
    /// scopes, which grant nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let kind = match kind.strip_suffix(')') {
            Some(classed) => classed.split_once('(').filter(|(_, class)| is_class(class))?.0,
            None => kind,
        };
        if kind != "repository" {
            return None;
        }
        let (written, words) = rest.rsplit_once(':')?;
        let repository = match written.split_once('/') {
            Some((host, path)) if host.contains(':') => format!("{}/{path}", without_colon(host)),
            _ => written.to_owned(),
        };
        let mut actions: Vec<Action> = words
            .split(',')
            .flat_map(|word| match word.trim() {
                "pull" => vec![Action::Pull],
                "push" => vec![Action::Push],
                "delete" => vec![Action::Delete],
                "*" => vec![Action::Pull, Action::Push, Action::Delete],
                _ => vec![],
            })
            .collect();
        actions.sort_unstable();
        actions.dedup();
        Some(Scope { repository: repository.parse().ok()?, actions })
    }

    /// The project that the scope is in.
    pub fn project(&self) -> ProjectName {
        self.repository.project()
    }
}

/// A scope for the registry as a whole: `registry:catalog:*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryScope {
    /// The list of all repositories (distribution's term).
    Catalog,
    /// The API under `/api/`.
    Api,
}

impl RegistryScope {
    /// The word in the scope.
    pub fn name(self) -> &'static str {
        match self {
            RegistryScope::Catalog => "catalog",
            RegistryScope::Api => "api",
        }
    }

    /// Parses one scope; `None` for all others.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("registry:")?.strip_suffix(":*")?;
        [RegistryScope::Catalog, RegistryScope::Api].into_iter().find(|scope| scope.name() == name)
    }
}

fn is_class(class: &str) -> bool {
    !class.is_empty() && class.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledger::people::{Account, Member};
    use crate::ledger::records::{MemoryRecords, WriteRecords, encode};
    use crate::proxies::proxy::ProxyRules;
    use crate::words::names::{Epoch, MemberId, NodeId};

    #[test]
    fn a_scope_may_have_a_class_and_a_port() {
        let scope =
            |text| Scope::parse(text).map(|scope| (scope.repository.to_string(), scope.actions));
        let both = vec![Action::Pull, Action::Push];
        assert_eq!(scope("repository(plugin):p/x:push,pull"), Some(("p/x".into(), both.clone())));
        assert_eq!(scope("repository(image2):p/x:pull, push"), Some(("p/x".into(), both)));
        let pull = vec![Action::Pull];
        assert_eq!(
            scope("repository:r.example:5000/a/b:pull"),
            Some(("r.example_5000/a/b".into(), pull))
        );
        for bad in [
            "repository():p/x:pull",
            "repository(a:p/x:pull",
            "repositorya):p/x:pull",
            "registry(x):p/x:pull",
            "repository(A):p/x:pull",
            "repository(a)b:p/x:pull",
            "repository",
            "repository:",
            "",
        ] {
            assert_eq!(scope(bad), None, "{bad}");
        }
    }

    #[test]
    fn scopes_are_read_as_clients_write_them() {
        let scope = Scope::parse("repository:demo/app:push,pull").unwrap();
        assert_eq!(scope.actions, [Action::Pull, Action::Push]);
        assert_eq!(Scope::parse("repository:demo/app:*").unwrap().actions.len(), 3);
        assert!(Scope::parse("registry:catalog:*").is_none());
        assert!(Scope::parse("repository:../x:pull").is_none());
        assert!(Scope::parse("repository:demo/app:fly").unwrap().actions.is_empty());
    }

    #[test]
    fn scopes_of_the_registry_are_two_and_mean_nothing_else() {
        assert_eq!(RegistryScope::parse("registry:catalog:*"), Some(RegistryScope::Catalog));
        assert_eq!(RegistryScope::parse("registry:api:*"), Some(RegistryScope::Api));
        for other in
            ["registry:catalog:pull", "registry::*", "repository:demo/a:*", "registry:api", ""]
        {
            assert_eq!(RegistryScope::parse(other), None, "{other}");
        }
    }

    fn project(id: u64, public: bool) -> Project {
        Project {
            id: ProjectId(id),
            name: format!("p{id}").parse().unwrap(),
            public,
            durability: 1,
            home: NodeId(1),
            primary: NodeId(1),
            epoch: Epoch::FIRST,
            created: Timestamp(0),
            upstream: None,
            proxy: ProxyRules::default(),
            metadata: BTreeMap::new(),
        }
    }

    fn user(id: u64) -> Identity {
        Identity::User(SignedIn { id: UserId(id), name: format!("u{id}").parse().unwrap() })
    }

    #[test]
    fn nobody_writes_without_credentials() {
        let records = MemoryRecords::default();
        let may = |identity: &Identity, action, project: Option<&Project>| {
            allowed(&records, identity, action, project).unwrap()
        };
        let (open, closed) = (project(1, true), project(2, false));
        for who in [Identity::Anonymous, user(7)] {
            for action in [Action::Push, Action::Delete] {
                assert!(!may(&who, action, None) && !may(&who, action, Some(&open)));
            }
            assert!(!may(&who, Action::Pull, None) && !may(&who, Action::Pull, Some(&closed)));
            assert!(may(&who, Action::Pull, Some(&open)));
        }
        let administrator = Identity::Administrator("admin".into());
        assert!(may(&administrator, Action::Delete, None));
    }

    #[test]
    fn a_member_may_what_the_role_may_in_that_project_only() {
        let mut records = MemoryRecords::default();
        let member =
            |role| Member { id: MemberId(1), user: UserId(7), role, created: Timestamp(0) };
        for role in ProjectRole::ALL {
            let place = key::member(ProjectId(2), UserId(7));
            records.put(&place, &encode(&member(role)).unwrap()).unwrap();
            for action in [Action::Pull, Action::Push, Action::Delete] {
                let may = |who: &Identity, id| {
                    allowed(&records, who, action, Some(&project(id, false))).unwrap()
                };
                assert_eq!(may(&user(7), 2), role_may(role, action.permission()));
                assert!(!may(&user(7), 3) && !may(&user(8), 2));
            }
        }
    }

    #[test]
    fn a_robot_may_what_it_was_granted_where_it_was_granted() {
        let records = MemoryRecords::default();
        let push = Action::Push.permission();
        let robot = |space| {
            Identity::Robot(Box::new(RobotIdentity {
                id: RobotId(1),
                name: "robot$x".into(),
                project: None,
                grants: vec![Grant { space, permissions: vec![push] }],
            }))
        };
        let may = |who: &Identity, id| who.may(&records, push, &project(id, false)).unwrap();
        let (one, all, system) =
            (robot(Space::Project(ProjectId(2))), robot(Space::AllProjects), robot(Space::System));
        assert!(may(&one, 2) && !may(&one, 3) && may(&all, 2) && may(&all, 3));
        assert!(!may(&system, 2) && system.may_in_system(push) && !all.may_in_system(push));
        let pull = Action::Pull.permission();
        assert!(
            !one.may(&records, pull, &project(2, false)).unwrap(),
            "nothing it was not granted"
        );
        assert!(one.may(&records, pull, &project(3, true)).unwrap(), "what everybody may");
    }

    #[test]
    fn what_was_shown_counts_until_the_records_change() {
        let mut records = MemoryRecords::default();
        let account = Account {
            id: UserId(7),
            name: "ann".parse().unwrap(),
            email: String::new(),
            real_name: String::new(),
            comment: String::new(),
            password_hash: "hash".into(),
            administrator: false,
            disabled: false,
            generation: 3,
            created: Timestamp(0),
            updated: Timestamp(0),
        };
        let shown = Principal::User { id: UserId(7), generation: 3 };
        let mut now = |account: &Account| {
            records.put(&key::account(UserId(7)), &encode(account).unwrap()).unwrap();
            shown.identity(&records, Timestamp(5), "robot$").unwrap()
        };
        let ann = Identity::User(SignedIn { id: UserId(7), name: "ann".parse().unwrap() });
        assert_eq!(now(&account), Some(ann));
        assert_eq!(now(&Account { disabled: true, ..account.clone() }), None);
        assert_eq!(now(&Account { generation: 4, ..account.clone() }), None);
        let leads = now(&Account { administrator: true, ..account });
        assert_eq!(leads, Some(Identity::Administrator("ann".into())));
        assert_eq!(
            Principal::User { id: UserId(8), generation: 3 }
                .identity(&records, Timestamp(5), "robot$")
                .unwrap(),
            None
        );
    }
}
