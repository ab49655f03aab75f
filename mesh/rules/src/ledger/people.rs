//! Users, robots, members, and the keys that tokens are signed with: their records, and the changes
//! of them. They exist from the feature level [`Level::PEOPLE`] on; before that there is one
//! [`User`](super::records::User).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::directory::{DirectoryChange, LookForGroups};
use super::level::Level;
use super::provider_tokens::ProviderTokenChange;
use super::records::{Look, Project, RecordError, key};
use crate::words::lookalikes::look_alike;
use crate::words::moment::Timestamp;
use crate::words::names::{
    MemberId, ProjectId, ProjectName, RobotId, RobotName, TrustId, UserId, UserName,
};
use crate::words::roles::{Permission, ProjectRole};
use crate::words::secret::Secret;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its number.
    pub id: UserId,
    /// The name with which they sign in. It never changes.
    pub name: UserName,
    /// For people.
    pub email: String,
    /// For people.
    pub real_name: String,
    /// For people.
    pub comment: String,
    /// The password's argon2id hash, in PHC format. An edge is told none.
    pub password_hash: Secret,
    /// Whether they may do everything.
    pub administrator: bool,
    /// Whether they may do nothing, not even what everybody may.
    pub disabled: bool,
    /// Grows when the password changes, or when they are disabled. A token of an earlier generation
    /// is not valid.
    pub generation: u64,
    /// When it was created.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// A user's role in a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The membership's number.
    pub id: MemberId,
    /// Who.
    pub user: UserId,
    /// As what.
    pub role: ProjectRole,
    /// Since when.
    pub created: Timestamp,
}

/// Where the permissions of a [`Grant`] hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Space {
    /// In the registry as a whole.
    System,
    /// In this project.
    Project(ProjectId),
    /// In every project.
    AllProjects,
}

/// What a robot may do somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Where.
    pub space: Space,
    /// What.
    pub permissions: Vec<Permission>,
}

/// A robot: an account for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Robot {
    /// Its number.
    pub id: RobotId,
    /// Its name, without prefix and project.
    pub name: RobotName,
    /// The project that it belongs to; `None` for a robot of the system.
    pub project: Option<(ProjectId, ProjectName)>,
    /// For people.
    pub description: String,
    /// The keyed hash of its secret. An edge is told none.
    pub secret_hash: Secret<Vec<u8>>,
    /// When it expires; `None` for never.
    pub expires: Option<Timestamp>,
    /// For how many days it was made; -1 for ever.
    pub days: i64,
    /// Whether it may do nothing.
    pub disabled: bool,
    /// What it may do.
    pub grants: Vec<Grant>,
    /// Grows when its secret changes, when it is disabled, and when tokens of an issuer are trusted
    /// no more. A token of an earlier generation is not valid.
    pub generation: u64,
    /// When it was created.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

impl Robot {
    /// Its name without the prefix: `project+name`, or `name` for a robot of the system.
    pub fn login(&self) -> String {
        robot_login(self.project.as_ref().map(|(_, name)| name), &self.name)
    }
}

/// The name of a robot without the prefix.
pub fn robot_login(project: Option<&ProjectName>, name: &RobotName) -> String {
    match project {
        Some(project) => format!("{project}+{name}"),
        None => name.to_string(),
    }
}

/// A key that tokens are signed with (Ed25519).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKey {
    /// Its number, which is also its `kid` in a token.
    pub number: u64,
    /// The public key, raw.
    pub public: Vec<u8>,
    /// The private key (PKCS #8), sealed. An edge is told none.
    pub sealed: Secret,
    /// When it was created.
    pub created: Timestamp,
}

/// That whoever shows a token of an issuer is a robot: a CI job, or a service account of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRule {
    /// Its number.
    pub id: TrustId,
    /// The robot.
    pub robot: RobotId,
    /// What the token and its owner must be.
    pub terms: TrustTerms,
    /// The issuer's public keys: a JWK Set (RFC 7517 section 5), as it was given. Empty: the issuer is
    /// asked for them (OpenID Connect Discovery 1.0), from [`Level::DISCOVERY`] on.
    pub keys: String,
    /// When it was made.
    pub created: Timestamp,
}

/// What a token must say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustTerms {
    /// `iss`, exactly.
    pub issuer: String,
    /// One of `aud`, exactly.
    pub audience: String,
    /// `sub`; `*` stands for any text.
    pub subject: String,
    /// Other claims, by name; `*` stands for any text.
    pub claims: BTreeMap<String, String>,
}

/// A change of users, robots, members or keys. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeopleChange {
    /// Creates a user.
    CreateUser {
        /// With this name.
        name: UserName,
        /// For people.
        email: String,
        /// For people.
        real_name: String,
        /// For people.
        comment: String,
        /// See [`Account::password_hash`].
        password_hash: Secret,
        /// Whether they may do everything.
        administrator: bool,
    },
    /// Changes what is given.
    ChangeUser {
        /// Whom.
        id: UserId,
        /// New address.
        email: Option<String>,
        /// New name for people.
        real_name: Option<String>,
        /// New comment.
        comment: Option<String>,
        /// Whether they may do everything.
        administrator: Option<bool>,
        /// Whether they may do nothing.
        disabled: Option<bool>,
    },
    /// Sets a password.
    SetPassword {
        /// Whose.
        id: UserId,
        /// The new hash.
        password_hash: Secret,
        /// If given: only if the account still has this generation.
        generation: Option<u64>,
    },
    /// Forgets a user and their memberships.
    DeleteUser {
        /// Whom.
        id: UserId,
    },
    /// Makes a user a member of a project.
    AddMember {
        /// Of this one. A number: a project of the same name may be another one by now.
        project: ProjectId,
        /// Whom.
        user: UserId,
        /// As what.
        role: ProjectRole,
    },
    /// Gives a member another role.
    ChangeMember {
        /// In this project.
        project: ProjectId,
        /// Which membership.
        id: MemberId,
        /// The new role.
        role: ProjectRole,
    },
    /// Ends a membership.
    RemoveMember {
        /// In this project.
        project: ProjectId,
        /// Which.
        id: MemberId,
    },
    /// Creates a robot.
    CreateRobot {
        /// With this name.
        name: RobotName,
        /// In this project, or in the system.
        project: Option<ProjectId>,
        /// What it is and may do.
        terms: RobotTerms,
        /// See [`Robot::secret_hash`].
        secret_hash: Secret<Vec<u8>>,
    },
    /// Changes what a robot is and may do.
    ChangeRobot {
        /// Which.
        id: RobotId,
        /// From now on.
        terms: RobotTerms,
    },
    /// Gives a robot another secret.
    SetRobotSecret {
        /// Which.
        id: RobotId,
        /// The new hash.
        secret_hash: Secret<Vec<u8>>,
    },
    /// Forgets a robot.
    DeleteRobot {
        /// Which.
        id: RobotId,
    },
    /// Adds a key to sign tokens with. Keys that nobody needs any more are forgotten.
    AddTokenKey {
        /// The number of the newest key when this was decided; 0 if there was none. Otherwise two
        /// nodes would add one each.
        after: u64,
        /// See [`TokenKey::public`].
        public: Vec<u8>,
        /// See [`TokenKey::sealed`].
        sealed: Secret,
        /// Keys with a number below this are forgotten.
        forget_below: u64,
    },
    /// Trusts tokens of an issuer.
    AddTrust {
        /// Who shows one is this robot.
        robot: RobotId,
        /// What it must say.
        terms: TrustTerms,
        /// See [`TrustRule::keys`].
        keys: String,
    },
    /// Replaces the issuer's keys.
    SetTrustKeys {
        /// Of this robot.
        robot: RobotId,
        /// Which rule.
        id: TrustId,
        /// See [`TrustRule::keys`].
        keys: String,
    },
    /// Trusts these tokens no more.
    RemoveTrust {
        /// Of this robot.
        robot: RobotId,
        /// Which rule.
        id: TrustId,
    },
    /// Sets the password of the user with this name, from the disk of a replica.
    RecoverPassword {
        /// Whose.
        name: UserName,
        /// The new hash.
        password_hash: Secret,
    },
    /// Changes what is known from identity providers.
    Directory(DirectoryChange),
    /// Changes what the OIDC provider is asked with about a user.
    ProviderToken(ProviderTokenChange),
}

/// What of a robot can be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotTerms {
    /// See [`Robot::description`].
    pub description: String,
    /// See [`Robot::expires`].
    pub expires: Option<Timestamp>,
    /// See [`Robot::days`].
    pub days: i64,
    /// See [`Robot::disabled`].
    pub disabled: bool,
    /// See [`Robot::grants`].
    pub grants: Vec<Grant>,
}

impl PeopleChange {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            PeopleChange::CreateUser { .. } => "create_user",
            PeopleChange::ChangeUser { .. } => "change_user",
            PeopleChange::SetPassword { .. } => "set_password",
            PeopleChange::DeleteUser { .. } => "delete_user",
            PeopleChange::AddMember { .. } => "add_member",
            PeopleChange::ChangeMember { .. } => "change_member",
            PeopleChange::RemoveMember { .. } => "remove_member",
            PeopleChange::CreateRobot { .. } => "create_robot",
            PeopleChange::ChangeRobot { .. } => "change_robot",
            PeopleChange::SetRobotSecret { .. } => "set_robot_secret",
            PeopleChange::DeleteRobot { .. } => "delete_robot",
            PeopleChange::AddTokenKey { .. } => "add_token_key",
            PeopleChange::AddTrust { .. } => "add_trust",
            PeopleChange::SetTrustKeys { .. } => "set_trust_keys",
            PeopleChange::RemoveTrust { .. } => "remove_trust",
            PeopleChange::RecoverPassword { .. } => "recover_password",
            PeopleChange::Directory(change) => change.name(),
            PeopleChange::ProviderToken(change) => change.name(),
        }
    }

    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        match self {
            PeopleChange::Directory(_) => Level::DIRECTORY,
            PeopleChange::ProviderToken(change) => change.level(),
            // a replica below it would refuse the tokens that others accept
            PeopleChange::AddTrust { keys, .. } | PeopleChange::SetTrustKeys { keys, .. }
                if keys.is_empty() =>
            {
                Level::DISCOVERY
            }
            _ => Level::PEOPLE,
        }
    }
}

/// Typed reading of people's records.
pub trait LookForPeople: Look {
    /// The user with this number.
    fn account(&self, id: UserId) -> Result<Option<Account>, RecordError> {
        self.record(&key::account(id))
    }
    /// The user with this name.
    fn account_named(&self, name: &UserName) -> Result<Option<Account>, RecordError> {
        match self.record::<UserId>(&key::user_name(name))? {
            Some(id) => self.account(id),
            None => Ok(None),
        }
    }
    /// The name of another user that this one may be taken for. It reads all names.
    fn name_like(&self, name: &UserName) -> Result<Option<String>, RecordError> {
        let all = self.scan(&key::user_names(), None, usize::MAX)?;
        let names = all.iter().map(|(place, _)| key::name_of(place));
        Ok(names.into_iter().find(|other| look_alike(name.as_str(), other)))
    }
    /// All users, by number.
    fn accounts(&self) -> Result<Vec<Account>, RecordError> {
        Ok(self.records(&key::accounts())?.into_iter().map(|(_, v)| v).collect())
    }
    /// The membership of a user in a project.
    fn member(&self, project: ProjectId, user: UserId) -> Result<Option<Member>, RecordError> {
        self.record(&key::member(project, user))
    }
    /// All members of a project.
    fn members(&self, project: ProjectId) -> Result<Vec<Member>, RecordError> {
        Ok(self.records(&key::members(project))?.into_iter().map(|(_, v)| v).collect())
    }
    /// The robot with this number.
    fn robot(&self, id: RobotId) -> Result<Option<Robot>, RecordError> {
        self.record(&key::robot(id))
    }
    /// The robot with this name (without the prefix, see [`Robot::login`]).
    fn robot_named(&self, login: &str) -> Result<Option<Robot>, RecordError> {
        match self.record::<RobotId>(&key::robot_name(login))? {
            Some(id) => self.robot(id),
            None => Ok(None),
        }
    }
    /// All robots, by number.
    fn robots(&self) -> Result<Vec<Robot>, RecordError> {
        Ok(self.records(&key::robots())?.into_iter().map(|(_, v)| v).collect())
    }
    /// The rules of a robot.
    fn trusts_of(&self, robot: RobotId) -> Result<Vec<TrustRule>, RecordError> {
        let mut rules = Vec::new();
        for (place, issuer) in self.records::<String>(&key::trusts_of(robot))? {
            let Some(id) = key::trust_of(&place) else { continue };
            rules.extend(self.record(&key::trust(&issuer, robot, id))?);
        }
        Ok(rules)
    }
    /// The rules about an issuer, the oldest first.
    fn trusts_in(&self, issuer: &str) -> Result<Vec<TrustRule>, RecordError> {
        let rules = self.records::<TrustRule>(&key::trusts_in(issuer))?;
        let mut rules: Vec<TrustRule> =
            rules.into_iter().map(|(_, v)| v).filter(|rule| rule.terms.issuer == issuer).collect();
        rules.sort_by_key(|rule| rule.id);
        Ok(rules)
    }
    /// All keys that tokens are signed with, by number.
    fn token_keys(&self) -> Result<Vec<TokenKey>, RecordError> {
        Ok(self.records(&key::token_keys())?.into_iter().map(|(_, v)| v).collect())
    }
    /// How often people's records were changed. An edge looks at this to know when what it has kept
    /// of them is old.
    fn people_version(&self) -> Result<u64, RecordError> {
        Ok(self.record(&key::people_version())?.unwrap_or(0))
    }
    /// The role of a user in a project: the strongest of their own and those of their groups.
    fn role(&self, project: &Project, user: UserId) -> Result<Option<ProjectRole>, RecordError> {
        let own = self.member(project.id, user)?.map(|member| member.role);
        let of_groups = self.role_of_groups(project, user)?;
        // the strongest is the first in the order of roles
        Ok(own.into_iter().chain(of_groups).min())
    }
}

impl<R: Look + ?Sized> LookForPeople for R {}
