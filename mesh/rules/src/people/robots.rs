//! What a robot may be granted, and by whom.

use super::access::Identity;
use super::roles::{is_of_project, is_of_system};
use crate::ledger::people::{Grant, Space};
use crate::ledger::records::{Project, ReadRecords, RecordError};
use crate::words::moment::Timestamp;
use crate::words::names::ProjectId;
use crate::words::roles::{Operation, Permission, Resource};

/// The maximum number of grants of a robot. Each is about one project, or about all.
pub const MOST_GRANTS: usize = 1_000;

/// The name without the prefix, if `name` is a robot's.
pub fn login_of<'n>(name: &'n str, prefix: &str) -> Option<&'n str> {
    name.strip_prefix(prefix).filter(|login| !login.is_empty())
}

/// Why grants are refused. A sentence for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadGrant {
    /// Nothing was granted.
    #[error("permissions: a robot needs at least one permission")]
    Nothing,
    /// There are too many.
    #[error("permissions: at most {MOST_GRANTS} entries are accepted")]
    TooMany,
    /// A robot of a project is granted something elsewhere.
    #[error("permissions: a robot of a project has permissions in that project only")]
    Elsewhere,
    /// There is no such permission in the system, or in a project.
    #[error("permissions: nobody can be granted to {0} in {1}")]
    Unknown(Permission, &'static str),
    /// Pushing clients ask for both.
    #[error("permissions: 'push repository' needs 'pull repository'")]
    PushAlone,
}

/// Checks the grants of a robot of `project`, or of the system.
pub fn check_grants(project: Option<ProjectId>, grants: &[Grant]) -> Result<(), BadGrant> {
    if grants.iter().all(|grant| grant.permissions.is_empty()) {
        return Err(BadGrant::Nothing);
    }
    if grants.len() > MOST_GRANTS {
        return Err(BadGrant::TooMany);
    }
    for grant in grants {
        if project.is_some_and(|project| grant.space != Space::Project(project)) {
            return Err(BadGrant::Elsewhere);
        }
        let unknown = |permission: &&Permission| match grant.space {
            Space::System => !is_of_system(**permission),
            Space::Project(_) | Space::AllProjects => !is_of_project(**permission),
        };
        if let Some(permission) = grant.permissions.iter().find(unknown) {
            let place = if grant.space == Space::System { "the system" } else { "a project" };
            return Err(BadGrant::Unknown(*permission, place));
        }
        let has = |operation| {
            grant.permissions.contains(&Permission::new(Resource::Repository, operation))
        };
        if has(Operation::Push) && !has(Operation::Pull) {
            return Err(BadGrant::PushAlone);
        }
    }
    Ok(())
}

/// Whether a robot that is made, or changed, by one that ends at `own` would be there after that. What
/// somebody may do they give for as long as they have it.
pub fn outlives(own: Option<Timestamp>, made: Option<Timestamp>) -> bool {
    match (own, made) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(own), Some(made)) => made > own,
    }
}

/// The first of `permissions` in `project` that `who` may not give away, because they do not have it
/// themselves.
pub fn not_theirs_in<R: ReadRecords + ?Sized>(
    records: &R,
    who: &Identity,
    project: &Project,
    permissions: impl Iterator<Item = Permission>,
) -> Result<Option<Permission>, RecordError> {
    for permission in permissions {
        if !who.may(records, permission, project)? {
            return Ok(Some(permission));
        }
    }
    Ok(None)
}

/// The first of `grants` that `who` may not give away, because they do not have it themselves.
/// `project` reads a project by its number.
pub fn not_theirs<R: ReadRecords + ?Sized>(
    records: &R,
    who: &Identity,
    grants: &[Grant],
    project: impl Fn(ProjectId) -> Result<Option<Project>, RecordError>,
) -> Result<Option<Permission>, RecordError> {
    if who.is_administrator() {
        return Ok(None);
    }
    for grant in grants {
        for permission in &grant.permissions {
            let has = match (grant.space, who) {
                (Space::System, _) => who.may_in_system(*permission),
                (Space::Project(id), _) => match project(id)? {
                    Some(project) => who.may(records, *permission, &project)?,
                    None => false,
                },
                (Space::AllProjects, Identity::Robot(robot)) => robot.grants.iter().any(|own| {
                    own.space == Space::AllProjects && own.permissions.contains(permission)
                }),
                (Space::AllProjects, _) => false,
            };
            if !has {
                return Ok(Some(*permission));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::records::MemoryRecords;
    use crate::people::access::RobotIdentity;
    use crate::words::names::RobotId;

    const PULL: Permission = Permission::new(Resource::Repository, Operation::Pull);
    const PUSH: Permission = Permission::new(Resource::Repository, Operation::Push);
    const CATALOG: Permission = Permission::new(Resource::Catalog, Operation::Read);

    fn grant(space: Space, permissions: &[Permission]) -> Grant {
        Grant { space, permissions: permissions.to_vec() }
    }

    #[test]
    fn a_robot_of_a_project_stays_in_it() {
        let own = Space::Project(ProjectId(1));
        let check =
            |project: Option<u64>, grants: &[Grant]| check_grants(project.map(ProjectId), grants);
        assert_eq!(check(Some(1), &[grant(own, &[PULL, PUSH])]), Ok(()));
        assert_eq!(check(Some(2), &[grant(own, &[PULL])]), Err(BadGrant::Elsewhere));
        assert_eq!(check(Some(1), &[grant(Space::System, &[CATALOG])]), Err(BadGrant::Elsewhere));
        assert_eq!(check(None, &[grant(Space::System, &[CATALOG]), grant(own, &[PULL])]), Ok(()));
        assert_eq!(check(None, &[]), Err(BadGrant::Nothing));
        assert_eq!(check(None, &[grant(own, &[])]), Err(BadGrant::Nothing));
        assert_eq!(check(Some(1), &[grant(own, &[PUSH])]), Err(BadGrant::PushAlone));
        let unknown = check(None, &[grant(Space::System, &[PULL])]);
        assert_eq!(unknown, Err(BadGrant::Unknown(PULL, "the system")));
        let unknown = check(None, &[grant(Space::AllProjects, &[CATALOG])]);
        assert_eq!(unknown, Err(BadGrant::Unknown(CATALOG, "a project")));
    }

    #[test]
    fn nobody_gives_away_what_they_do_not_have() {
        let records = MemoryRecords::default();
        let robot = |grants| {
            Identity::Robot(Box::new(RobotIdentity {
                id: RobotId(1),
                name: "robot$a".into(),
                project: None,
                grants,
            }))
        };
        let missing = |who: &Identity, grants: &[Grant]| {
            not_theirs(&records, who, grants, |_| Ok(None)).unwrap()
        };
        let all = [grant(Space::AllProjects, &[PULL])];
        assert_eq!(missing(&Identity::Administrator("admin".into()), &all), None);
        assert_eq!(missing(&robot(all.to_vec()), &all), None);
        assert_eq!(missing(&robot(vec![]), &all), Some(PULL));
        let more = [grant(Space::AllProjects, &[PULL, PUSH])];
        assert_eq!(missing(&robot(all.to_vec()), &more), Some(PUSH));
        let system = [grant(Space::System, &[CATALOG])];
        assert_eq!(missing(&robot(all.to_vec()), &system), Some(CATALOG));
    }

    #[test]
    fn a_role_is_given_by_whoever_has_all_of_it() {
        use crate::people::roles::{of_everybody, of_role};
        use crate::proxies::proxy::ProxyRules;
        use crate::words::names::{Epoch, NodeId};
        use crate::words::roles::ProjectRole;
        let project = Project {
            id: ProjectId(7),
            name: "demo".parse().unwrap(),
            public: false,
            home: NodeId(1),
            primary: NodeId(1),
            epoch: Epoch::FIRST,
            durability: 1,
            upstream: None,
            proxy: ProxyRules::default(),
            metadata: Default::default(),
            created: Timestamp(1),
        };
        let records = MemoryRecords::default();
        let missing = |own: Vec<Permission>, wanted: Vec<Permission>| {
            let who = Identity::Robot(Box::new(RobotIdentity {
                id: RobotId(1),
                name: "robot$a".into(),
                project: None,
                grants: vec![grant(Space::Project(project.id), &own)],
            }));
            not_theirs_in(&records, &who, &project, wanted.into_iter()).unwrap()
        };
        let add = Permission::new(Resource::Member, Operation::Create);
        let [admin, guest] =
            [ProjectRole::Admin, ProjectRole::Guest].map(|role| of_role(role).collect::<Vec<_>>());
        assert!(missing(vec![add], guest.clone()).is_some());
        assert_eq!(missing(admin.clone(), admin.clone()), None);
        assert_eq!(missing(guest.clone(), guest.clone()), None);
        assert!(missing(guest.clone(), admin).is_some());
        let everybody: Vec<Permission> = of_everybody().collect();
        assert!(everybody.contains(&PULL));
        let update = Permission::new(Resource::Metadata, Operation::Update);
        assert!(missing(vec![update], everybody.clone()).is_some());
        let maintainer: Vec<Permission> = of_role(ProjectRole::Maintainer).collect();
        assert_eq!(missing(maintainer, everybody), None, "what such a one may do as before");
    }

    #[test]
    fn nobody_gives_anything_for_longer_than_they_have_it() {
        let at = |time| Some(Timestamp(time));
        for (own, made, longer) in [
            (None, None, false),
            (None, at(9), false),
            (at(9), None, true),
            (at(9), at(10), true),
            (at(9), at(9), false),
            (at(9), at(8), false),
        ] {
            assert_eq!(outlives(own, made), longer, "{own:?} {made:?}");
        }
    }

    #[test]
    fn a_robots_name_has_its_prefix() {
        assert_eq!(login_of("robot$p+ci", "robot$"), Some("p+ci"));
        assert_eq!(login_of("robot$", "robot$"), None);
        assert_eq!(login_of("admin", "robot$"), None);
    }
}
