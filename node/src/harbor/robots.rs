//! `/api/v2.0/robots`: accounts for programs, with Harbor's schemas and statuses. A secret is shown
//! once, in the answer to the request that made it.

use ground::clock;
use http::{Response, StatusCode};
use rand::seq::{IndexedRandom, SliceRandom};
use registry::people::Caller;
use rules::ledger::people::{
    Grant, LookForPeople, PeopleChange, Robot, RobotTerms, Space, robot_login,
};
use rules::ledger::records::{Look, Project, ReadRecords};
use rules::people::access::Identity;
use rules::people::doors::{self, Need};
use rules::people::robots::{BadGrant, check_grants, not_theirs, not_theirs_in, outlives};
use rules::people::roles::grantable;
use rules::people::{access::RegistryScope, passwords};
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectId, ProjectName, RobotId, RobotName};
use rules::words::query::{self, Field, Kind, number, text};
use rules::words::roles::{Operation, Permission, Resource};
use rules::words::secret::Secret;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::registries::sealing;
use super::{Harbor, bad, body};
use crate::http::answer::{answer, json_answer, set};
use crate::http::door::actor;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The paths, as in the table of what each route needs.
const ROBOTS: &str = "/api/v2.0/robots";
const ROBOT: &str = "/api/v2.0/robots/{id}";

/// How many days a robot is valid if nobody says so, as in Harbor.
pub(super) const DEFAULT_DAYS: i64 = 30;
/// The maximum length of a description in bytes.
const DESCRIPTION: usize = 1024;
/// The length of a secret that is made here.
const SECRET: usize = 32;
/// The longest duration in days: a hundred years.
const LONGEST: i64 = 36_500;
const DAY: u64 = 24 * 3600 * 1000;
/// The number that no project has.
const NOBODYS: ProjectId = ProjectId(0);

#[derive(Deserialize)]
struct RobotBody {
    name: String,
    #[serde(default)]
    description: String,
    level: String,
    duration: Option<i64>,
    #[serde(default)]
    disable: bool,
    secret: Option<Secret>,
    #[serde(default)]
    permissions: Vec<GrantBody>,
}

#[derive(Deserialize)]
struct GrantBody {
    kind: String,
    namespace: String,
    #[serde(default)]
    access: Vec<AccessBody>,
}

#[derive(Deserialize)]
struct AccessBody {
    resource: String,
    action: String,
    #[serde(default)]
    effect: String,
}

#[derive(Deserialize, Default)]
struct SecretBody {
    #[serde(default)]
    secret: Secret,
    #[serde(flatten)]
    others: serde_json::Map<String, Value>,
}

/// The answer to who may not do this to robots, whether the robot or its project exists or not.
fn refused(caller: &Caller, permission: Permission) -> Failure {
    let message = format!("{} may not {permission} there", caller.identity.name());
    Failure::new(Code::Denied, message)
}

/// Refuses a robot that would change itself: what it is given, and for how long, others decide.
pub(super) fn check_other(caller: &Caller, id: RobotId) -> Result<(), Failure> {
    match &caller.identity {
        Identity::Robot(own) if own.id == id => {
            let message = format!("{} may not change itself", caller.identity.name());
            Err(Failure::new(Code::Denied, message))
        }
        _ => Ok(()),
    }
}

/// What `q` and `sort` may be about.
const FIELDS: &[Field<Robot>] = &[
    Field::new("name", Kind::Text, |robot| text(robot.name.as_str())),
    Field::new("id", Kind::Number, |robot| number(robot.id.0)),
    Field::new("level", Kind::Text, |robot| {
        text(if robot.project.is_some() { "project" } else { "system" })
    }),
    Field::new("project_id", Kind::Number, |robot| {
        number(robot.project.as_ref().map_or(0, |(id, _)| id.0))
    }),
    Field::new("duration", Kind::Number, |robot| query::Value::Number(robot.days)),
    Field::new("expires_at", Kind::Number, |robot| query::Value::Number(expires_at(robot.expires))),
    Field::new("disable", Kind::Flag, |robot| query::Value::Flag(robot.disabled)),
    Field::new("creation_time", Kind::Time, |robot| query::Value::Time(robot.created)),
    Field::new("update_time", Kind::Time, |robot| query::Value::Time(robot.updated)),
];

/// What a request says about a robot, checked.
struct Asked {
    project: Option<Project>,
    terms: RobotTerms,
}

/// A secret that fits the rule for secrets.
fn new_secret() -> Secret {
    const KINDS: [&[u8]; 3] =
        [b"ABCDEFGHJKLMNPQRSTUVWXYZ", b"abcdefghijkmnopqrstuvwxyz", b"23456789"];
    let all = KINDS.concat();
    let mut rng = rand::rng();
    let mut letters: Vec<u8> =
        KINDS.iter().filter_map(|kind| kind.choose(&mut rng)).copied().collect();
    letters.extend((letters.len()..SECRET).filter_map(|_| all.choose(&mut rng)));
    letters.shuffle(&mut rng);
    String::from_utf8_lossy(&letters).into_owned().into()
}

fn permission(written: &AccessBody) -> Result<Permission, Failure> {
    let AccessBody { resource, action, effect } = written;
    if !matches!(effect.as_str(), "" | "allow") {
        return Err(bad(format!("permissions: effect '{effect}' is not supported, only 'allow'")));
    }
    let unknown = |what, word: &str| {
        bad(format!("permissions: there is no {what} '{word}'; see GET /api/v2.0/permissions"))
    };
    Ok(Permission::new(
        resource.parse().map_err(|_| unknown("resource", resource))?,
        action.parse().map_err(|_| unknown("action", action))?,
    ))
}

/// Where a robot shall have permissions.
enum Place {
    System,
    AllProjects,
    Project(ProjectName),
}

/// The permissions that a body asks for, and where.
fn read_grants(written: &[GrantBody]) -> Result<Vec<(Place, Vec<Permission>)>, Failure> {
    let read = |grant: &GrantBody| {
        let place = match (grant.kind.as_str(), grant.namespace.as_str()) {
            ("system", "/") => Place::System,
            ("system", _) => return Err(bad("permissions: the namespace of a system is \"/\"")),
            ("project", "*") => Place::AllProjects,
            ("project", name) => {
                let name = name.parse();
                Place::Project(name.map_err(|e| bad(format!("permissions: namespace: {e}")))?)
            }
            _ => return Err(bad("permissions: kind is \"project\" or \"system\"")),
        };
        let permissions = grant.access.iter().map(permission).collect::<Result<_, _>>()?;
        Ok((place, permissions))
    };
    written.iter().map(read).collect()
}

/// Checks what is asked for, before any project is looked for. `own` is the project of a robot that is
/// changed.
fn check_wanted(
    of_project: bool,
    own: Option<&ProjectName>,
    wanted: &[(Place, Vec<Permission>)],
) -> Result<(), Failure> {
    let mut home = own;
    let mut grants = Vec::new();
    for (place, permissions) in wanted {
        let space = match place {
            Place::System => Space::System,
            Place::AllProjects => Space::AllProjects,
            Place::Project(name) => {
                if of_project && home.is_some_and(|home| home != name) {
                    return Err(bad(BadGrant::Elsewhere.to_string()));
                }
                home = Some(name);
                Space::Project(NOBODYS)
            }
        };
        grants.push(Grant { space, permissions: permissions.clone() });
    }
    check_grants(of_project.then_some(NOBODYS), &grants).map_err(|e| bad(e.to_string()))
}

impl Harbor {
    /// What `written` asks for.
    async fn asked(
        &self,
        caller: &Caller,
        written: &RobotBody,
        before: Option<&Robot>,
    ) -> Result<Asked, Failure> {
        if written.description.len() > DESCRIPTION {
            return Err(bad(format!("description has at most {DESCRIPTION} bytes")));
        }
        let days = written.duration.or(before.map(|robot| robot.days)).unwrap_or(DEFAULT_DAYS);
        if days != -1 && !(1..=LONGEST).contains(&days) {
            let message = format!("duration is a number of days from 1 to {LONGEST}, or -1");
            return Err(bad(message));
        }
        let from = before.map_or_else(clock::timestamp, |robot| robot.created);
        let expires = match before {
            // as in Harbor, a duration counts from the creation
            Some(robot) if robot.days == days => robot.expires,
            _ => u64::try_from(days).ok().map(|days| Timestamp(from.0 + days * DAY)),
        };
        let of_project = match written.level.as_str() {
            "project" => true,
            "system" => false,
            _ => return Err(bad("level is \"project\" or \"system\"")),
        };
        let wanted = read_grants(&written.permissions)?;
        // all that is wrong is said before a project is looked for: it tells nothing of projects
        let own = before.and_then(|robot| Some(&robot.project.as_ref()?.1));
        check_wanted(of_project, own, &wanted)?;
        let mut grants = Vec::new();
        let mut project = None;
        for (place, permissions) in wanted {
            let space = match place {
                Place::System => Space::System,
                Place::AllProjects => Space::AllProjects,
                Place::Project(name) => {
                    let found = self.read(|r| r.project(&name)).await?;
                    // only an administrator is told that there is none
                    match found {
                        Some(found) => {
                            let space = Space::Project(found.id);
                            project = project.or(Some(found));
                            space
                        }
                        None if caller.identity.is_administrator() => {
                            let message = format!("permissions: there is no project {name}");
                            return Err(Failure::new(Code::NotFound, message));
                        }
                        None if of_project => {
                            let create = Permission::new(Resource::Robot, Operation::Create);
                            return Err(refused(caller, create));
                        }
                        // nobody has anything there, as in a project of others
                        None => Space::Project(NOBODYS),
                    }
                }
            };
            grants.push(Grant { space, permissions });
        }
        let project = match (of_project, before) {
            (false, _) => None,
            (true, _) if project.is_some() => project,
            (true, _) => {
                let message = "permissions: a robot of a project names it as the namespace";
                return Err(bad(message));
            }
        };
        let (description, disabled) = (written.description.clone(), written.disable);
        Ok(Asked { project, terms: RobotTerms { description, expires, days, disabled, grants } })
    }

    /// Refuses a caller who does not have what they would give away.
    pub(super) async fn check_theirs(
        &self,
        caller: &Caller,
        grants: &[Grant],
    ) -> Result<(), Failure> {
        let look = |records: &dyn ReadRecords| {
            let projects = records.projects()?;
            let find = |id: ProjectId| Ok(projects.iter().find(|p| p.id == id).cloned());
            not_theirs(records, &caller.identity, grants, find)
        };
        match self.read(look).await? {
            None => Ok(()),
            Some(permission) => {
                let name = caller.identity.name();
                let message = format!("{name} may not {permission} there, so no robot gets that");
                Err(Failure::new(Code::Denied, message))
            }
        }
    }

    /// Refuses a caller who does not have these permissions in a project, which somebody would get.
    pub(super) async fn check_theirs_in(
        &self,
        caller: &Caller,
        project: &Project,
        permissions: &[Permission],
    ) -> Result<(), Failure> {
        let look = |records: &dyn ReadRecords| {
            not_theirs_in(records, &caller.identity, project, permissions.iter().copied())
        };
        match self.read(look).await? {
            None => Ok(()),
            Some(permission) => {
                let name = caller.identity.name();
                let message = format!("{name} may not {permission} there, so nobody gets that");
                Err(Failure::new(Code::Denied, message))
            }
        }
    }

    /// Refuses a robot that would give something for longer than it has it.
    pub(super) async fn check_lasting(
        &self,
        caller: &Caller,
        expires: Option<Timestamp>,
    ) -> Result<(), Failure> {
        let Identity::Robot(own) = &caller.identity else { return Ok(()) };
        let own = self.read(|records| records.robot(own.id)).await?;
        match own.and_then(|own| own.expires) {
            Some(end) if outlives(Some(end), expires) => {
                let message = format!(
                    "{} ends at {end}, so it makes no robot that is there for longer (duration)",
                    caller.identity.name(),
                );
                Err(Failure::new(Code::Denied, message))
            }
            _ => Ok(()),
        }
    }

    /// Admits a caller to the robots of a project, or of the system, as the table says for `path`.
    async fn admit_to_robots(
        &self,
        request: &Request,
        caller: &Caller,
        path: &str,
        project: Option<&Project>,
    ) -> Result<(), Failure> {
        let Some(Need::Robot(permission)) = doors::need(path, request.method.as_str()) else {
            return Err(Failure::new(Code::Internal, "a route of robots has no row in the table"));
        };
        let admitted = match project {
            Some(project) => {
                let called = &project.name;
                self.door.admit_to_project(request, caller, permission, project, called).await
            }
            None => {
                self.door.admit_system(request, permission, RegistryScope::Api).await.map(|_| ())
            }
        };
        admitted.map_err(|failure| match failure.status() {
            StatusCode::FORBIDDEN => refused(caller, permission),
            _ => failure,
        })
    }

    /// The robot with this number, if the caller may do to it what the table says for `path`.
    pub(super) async fn their_robot(
        &self,
        request: &Request,
        caller: &Caller,
        path: &str,
        id: RobotId,
    ) -> Result<Robot, Failure> {
        let look = |records: &dyn ReadRecords| {
            let Some(robot) = records.robot(id)? else { return Ok(None) };
            let project = match &robot.project {
                Some((_, name)) => records.project(name)?,
                None => None,
            };
            Ok(Some((robot, project)))
        };
        let found = self.read(look).await?;
        let Some((robot, project)) = found else {
            // only who may see all robots is told that there is none
            self.admit_to_robots(request, caller, path, None).await?;
            return Err(Failure::new(Code::NotFound, format!("there is no robot {}", id.0)));
        };
        self.admit_to_robots(request, caller, path, project.as_ref()).await?;
        Ok(robot)
    }

    pub(super) async fn list_robots(
        &self,
        request: &Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let project = match (wanted.wants("level"), wanted.wants("projectid")) {
            (None | Some("system"), None) => None,
            (None | Some("project"), Some(id)) => {
                let id = id.parse().map_err(|_| bad("q: ProjectID is a number"))?;
                let found = self.read(|r| r.project_numbered(ProjectId(id))).await?;
                match found {
                    Some(project) => Some(project),
                    None => {
                        self.admit_to_robots(request, caller, ROBOTS, None).await?;
                        return Err(Failure::new(
                            Code::NotFound,
                            format!("there is no project {id}"),
                        ));
                    }
                }
            }
            _ => return Err(bad("q: Level=system, or Level=project,ProjectID=NUMBER")),
        };
        self.admit_to_robots(request, caller, ROBOTS, project.as_ref()).await?;
        let robots = self.read(|records| records.robots()).await?;
        let of = project.as_ref().map(|project| project.id);
        let fits = |robot: &Robot| robot.project.as_ref().map(|(id, _)| *id) == of;
        let robots: Vec<Robot> = robots.into_iter().filter(fits).collect();
        let projects = self.read(|records| records.projects()).await?;
        let show = |robot: &Robot| self.show(robot, &projects);
        wanted.answer_chosen(robots, FIELDS, |robot| robot.name.as_str(), show)
    }

    pub(super) async fn show_robot(
        &self,
        request: &Request,
        caller: &Caller,
        id: RobotId,
    ) -> Result<Response<Payload>, Failure> {
        let robot = self.their_robot(request, caller, ROBOT, id).await?;
        let projects = self.read(|records| records.projects()).await?;
        Ok(json_answer(StatusCode::OK, &self.show(&robot, &projects)))
    }

    pub(super) async fn create_robot(
        &self,
        mut request: Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let written: RobotBody = body(&mut request).await?;
        let name: RobotName = written.name.parse().map_err(|e| bad(format!("name: {e}")))?;
        let Asked { project, terms } = self.asked(caller, &written, None).await?;
        self.admit_to_robots(&request, caller, ROBOTS, project.as_ref()).await?;
        self.check_theirs(caller, &terms.grants).await?;
        self.check_lasting(caller, terms.expires).await?;
        let secret = match written.secret.filter(|secret| !secret.expose().is_empty()) {
            Some(secret) => {
                passwords::check(secret.expose()).map_err(|e| bad(format!("secret: {e}")))?;
                secret
            }
            None => new_secret(),
        };
        let expires = terms.expires;
        let login = robot_login(project.as_ref().map(|project| &project.name), &name);
        let project = project.map(|project| project.id);
        let change =
            PeopleChange::CreateRobot { name, project, terms, secret_hash: self.hashed(&secret)? };
        self.change_people(change, &format!("robot {login}"), &actor(caller, &request)).await?;
        let (made, _) = self.records.read(|records| records.robot_named(&login)).await?;
        let made = made.ok_or_else(|| {
            Failure::new(Code::Unavailable, "the robot was created and is gone again")
        })?;
        let shown = json!({
            "id": made.id.0,
            "name": format!("{}{login}", self.access.robot_prefix()),
            "secret": secret.expose(),
            "creation_time": made.created.to_string(),
            "expires_at": expires_at(expires),
        });
        let mut response = json_answer(StatusCode::CREATED, &shown);
        set(&mut response, "location", format!("/api/v2.0/robots/{}", made.id.0));
        set(&mut response, "cache-control", "no-store");
        Ok(response)
    }

    pub(super) async fn change_robot(
        &self,
        mut request: Request,
        caller: &Caller,
        id: RobotId,
    ) -> Result<Response<Payload>, Failure> {
        let robot = self.their_robot(&request, caller, ROBOT, id).await?;
        check_other(caller, id)?;
        let written: RobotBody = body(&mut request).await?;
        let full = format!("{}{}", self.access.robot_prefix(), robot.login());
        if written.name != full && written.name != robot.name.as_str() {
            return Err(bad(format!("name: a robot keeps its name, {full}")));
        }
        let Asked { project, terms } = self.asked(caller, &written, Some(&robot)).await?;
        if project.map(|project| project.id) != robot.project.as_ref().map(|(id, _)| *id) {
            return Err(bad("level: a robot stays in its project, or in the system"));
        }
        self.check_theirs(caller, &terms.grants).await?;
        if terms.expires != robot.expires || (robot.disabled && !terms.disabled) {
            self.check_lasting(caller, terms.expires).await?;
        }
        let change = PeopleChange::ChangeRobot { id, terms };
        self.change_people(change, &format!("robot {}", id.0), &actor(caller, &request)).await?;
        Ok(answer(StatusCode::OK))
    }

    /// Gives a robot a new secret. The old one, and tokens of it, are refused from then on.
    pub(super) async fn refresh_robot_secret(
        &self,
        mut request: Request,
        caller: &Caller,
        id: RobotId,
    ) -> Result<Response<Payload>, Failure> {
        let robot = self.their_robot(&request, caller, ROBOT, id).await?;
        check_other(caller, id)?;
        let SecretBody { secret, others } = body(&mut request).await?;
        // what was meant for PUT must not take the robot's secret away
        if let (true, Some(other)) = (secret.expose().is_empty(), others.keys().next()) {
            return Err(bad(format!(
                "PATCH gives the robot a new secret, and {other} has no place in it: PUT the whole \
                 robot, as GET shows it, to change the rest"
            )));
        }
        // whoever has the secret can do what the robot can
        self.check_theirs(caller, &robot.grants).await?;
        self.check_lasting(caller, robot.expires).await?;
        let made = secret.expose().is_empty();
        let secret = if made { new_secret() } else { secret };
        passwords::check(secret.expose()).map_err(|e| bad(format!("secret: {e}")))?;
        let change = PeopleChange::SetRobotSecret { id, secret_hash: self.hashed(&secret)? };
        self.change_people(change, &format!("robot {}", id.0), &actor(caller, &request)).await?;
        let shown = if made { json!({"secret": secret.expose()}) } else { json!({}) };
        let mut response = json_answer(StatusCode::OK, &shown);
        set(&mut response, "cache-control", "no-store");
        Ok(response)
    }

    pub(super) async fn delete_robot(
        &self,
        request: &Request,
        caller: &Caller,
        id: RobotId,
    ) -> Result<Response<Payload>, Failure> {
        self.their_robot(request, caller, ROBOT, id).await?;
        self.change_people(
            PeopleChange::DeleteRobot { id },
            &format!("robot {}", id.0),
            &actor(caller, request),
        )
        .await?;
        Ok(answer(StatusCode::OK))
    }

    fn hashed(&self, secret: &Secret) -> Result<Secret<Vec<u8>>, Failure> {
        self.secrets.hash(secret).map_err(sealing)
    }

    fn show(&self, robot: &Robot, projects: &[Project]) -> Value {
        let namespace = |space: Space| match space {
            Space::System => ("system", "/".to_owned()),
            Space::AllProjects => ("project", "*".to_owned()),
            Space::Project(id) => {
                let project = projects.iter().find(|project| project.id == id);
                // a project that was deleted since; its number is not used again
                let name = project.map_or_else(|| format!("#{id}"), |p| p.name.to_string());
                ("project", name)
            }
        };
        let permissions: Vec<Value> = robot
            .grants
            .iter()
            .map(|grant| {
                let (kind, namespace) = namespace(grant.space);
                let access: Vec<Value> = grant.permissions.iter().map(show_granted).collect();
                json!({"kind": kind, "namespace": namespace, "access": access})
            })
            .collect();
        json!({
            "id": robot.id.0,
            "name": format!("{}{}", self.access.robot_prefix(), robot.login()),
            "description": robot.description,
            "level": if robot.project.is_some() { "project" } else { "system" },
            "duration": robot.days,
            "disable": robot.disabled,
            "editable": true,
            "expires_at": expires_at(robot.expires),
            "permissions": permissions,
            "creation_time": robot.created.to_string(),
            "update_time": robot.updated.to_string(),
        })
    }
}

/// As Harbor says it: in seconds, -1 for never.
fn expires_at(expires: Option<Timestamp>) -> i64 {
    expires.and_then(|at| i64::try_from(at.0 / 1000).ok()).unwrap_or(-1)
}

fn show_permission(permission: &Permission) -> Value {
    json!({"resource": permission.resource.word(), "action": permission.operation.word()})
}

/// As a robot shows it: with its effect, which Terraform's provider compares.
fn show_granted(permission: &Permission) -> Value {
    let mut shown = show_permission(permission);
    shown["effect"] = "allow".into();
    shown
}

/// What can be granted to robots.
pub(super) fn show_permissions() -> Response<Payload> {
    let (system, project) = grantable();
    let show = |all: Vec<Permission>| all.iter().map(show_permission).collect::<Vec<Value>>();
    json_answer(StatusCode::OK, &json!({"system": show(system), "project": show(project)}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_made_here_is_accepted_and_new_each_time() {
        let secrets: Vec<Secret> = (0..1000).map(|_| new_secret()).collect();
        for secret in &secrets {
            assert_eq!(passwords::check(secret.expose()), Ok(()));
            assert_eq!(secret.expose().len(), SECRET);
        }
        let different: std::collections::BTreeSet<_> = secrets.iter().map(Secret::expose).collect();
        assert_eq!(different.len(), secrets.len());
    }
}
