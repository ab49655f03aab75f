//! What the mesh knows from identity providers (LDAP, OIDC): groups, which projects they are members
//! of, whom a provider vouches for, and the settings of the providers. These records exist from the
//! feature level [`Level::DIRECTORY`](super::level::Level::DIRECTORY) on.
//!
//! A user of a provider has an account like every other user, without a password. Beside it is what
//! the provider said of them when they signed in ([`Vouched`]). So a group that becomes a member, or
//! is one no more, changes what its people may do at once, whoever of them signed in before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::records::{Look, Project, RecordError, key};
use crate::words::moment::Timestamp;
use crate::words::names::{GroupId, MemberId, ProjectId, UserId, UserName};
use crate::words::roles::{ProjectRole, Provider};
use crate::words::secret::Secret;

/// The maximum number of groups that are remembered of one user, and that are members of one project:
/// each request reads both.
pub const MOST_GROUPS: usize = 500;
/// The setting with the secret of this mesh at its OIDC provider, and the place for which it is sealed.
pub const CLIENT_SECRET: &str = "oidc_client_secret";
/// The same of the account that searches the LDAP directory.
pub const SEARCH_PASSWORD: &str = "ldap_search_password";
/// The maximum length of what a provider calls a group or a user, in bytes.
pub const LONGEST_SUBJECT: usize = 512;

/// A group of an identity provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its number.
    pub id: GroupId,
    /// Whose it is.
    pub provider: Provider,
    /// Its name for people. It may change.
    pub name: String,
    /// What its provider calls it, in the form of [`subject`](crate::people::groups::subject). It
    /// never changes.
    pub subject: String,
    /// When it became known.
    pub created: Timestamp,
}

/// A group's role in a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    /// The membership's number, from the same row as those of users.
    pub id: MemberId,
    /// Which group.
    pub group: GroupId,
    /// See [`Group::provider`].
    pub provider: Provider,
    /// See [`Group::subject`].
    pub subject: String,
    /// As what.
    pub role: ProjectRole,
    /// Since when.
    pub created: Timestamp,
}

/// What a provider says of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouched {
    /// Who says so.
    pub provider: Provider,
    /// What it calls them: a distinguished name, or an issuer with its `sub`.
    pub subject: String,
    /// Their groups, in the form of [`Group::subject`], at most [`MOST_GROUPS`].
    pub groups: Vec<String>,
    /// Whether they are in the provider's group of administrators.
    pub administers: bool,
}

/// A user whom a provider vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belonging {
    /// What it said when they last signed in.
    pub vouched: Vouched,
    /// Whether their account is an administrator's because it said so.
    pub administers: bool,
    /// When it last said so. This is recorded when it says something else than before, and again
    /// when what is recorded is an hour old.
    pub since: Timestamp,
}

/// The settings of the mesh that administrators change over the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configurations {
    /// How often they were changed.
    pub version: u64,
    /// Values by name, as JSON; see [`configurations`](crate::people::configurations).
    pub values: BTreeMap<String, String>,
    /// Sealed values by name.
    pub secrets: BTreeMap<String, Secret>,
}

/// A change of what is known from providers. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryChange {
    /// Makes a group known.
    CreateGroup {
        /// See [`Group::provider`].
        provider: Provider,
        /// See [`Group::name`].
        name: String,
        /// See [`Group::subject`].
        subject: String,
    },
    /// Gives a group another name for people.
    RenameGroup {
        /// Which.
        id: GroupId,
        /// See [`Group::name`].
        name: String,
    },
    /// Forgets a group and its memberships.
    DeleteGroup {
        /// Which.
        id: GroupId,
    },
    /// Makes a group a member of a project.
    AddGroupMember {
        /// Of this one.
        project: ProjectId,
        /// Which group.
        group: GroupId,
        /// As what.
        role: ProjectRole,
    },
    /// Creates the account of a user whom a provider vouches for.
    Enrol {
        /// With this name.
        name: UserName,
        /// For people.
        email: String,
        /// For people.
        real_name: String,
        /// What the provider says.
        vouched: Vouched,
    },
    /// Records what the provider says now.
    Attest {
        /// Of this user.
        user: UserId,
        /// What it says.
        vouched: Vouched,
    },
    /// Records that the provider vouches for them no more: what they showed before is not valid.
    Disown {
        /// Of this user.
        user: UserId,
    },
    /// Replaces the settings.
    Configure {
        /// The version that was read. If there is a newer one, nothing changes.
        after: u64,
        /// See [`Configurations::values`].
        values: BTreeMap<String, String>,
        /// See [`Configurations::secrets`].
        secrets: BTreeMap<String, Secret>,
        /// The names of those that change, for the record of what happened.
        changed: Vec<String>,
    },
    /// Gives a user of an OIDC provider a secret for clients that have no browser. What they showed
    /// before is not valid.
    SetCliSecret {
        /// Whom.
        user: UserId,
        /// The secret, sealed for [`cli_place`].
        sealed: Secret,
    },
}

/// The place for which the secret of a user is sealed.
pub fn cli_place(user: UserId) -> String {
    format!("CLI secret of user {}", user.0)
}

impl DirectoryChange {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            DirectoryChange::CreateGroup { .. } => "create_group",
            DirectoryChange::RenameGroup { .. } => "rename_group",
            DirectoryChange::DeleteGroup { .. } => "delete_group",
            DirectoryChange::AddGroupMember { .. } => "add_group_member",
            DirectoryChange::Enrol { .. } => "enrol",
            DirectoryChange::Attest { .. } => "attest",
            DirectoryChange::Disown { .. } => "disown",
            DirectoryChange::Configure { .. } => "configure",
            DirectoryChange::SetCliSecret { .. } => "set_cli_secret",
        }
    }
}

/// Typed reading of these records.
pub trait LookForGroups: Look {
    /// The group with this number.
    fn group(&self, id: GroupId) -> Result<Option<Group>, RecordError> {
        self.record(&key::group(id))
    }
    /// The group that the provider calls so.
    fn group_called(
        &self,
        provider: Provider,
        subject: &str,
    ) -> Result<Option<Group>, RecordError> {
        match self.record::<GroupId>(&key::group_subject(provider, subject))? {
            Some(id) => self.group(id),
            None => Ok(None),
        }
    }
    /// All groups, by number.
    fn groups(&self) -> Result<Vec<Group>, RecordError> {
        Ok(self.records(&key::groups())?.into_iter().map(|(_, v)| v).collect())
    }
    /// The membership of a group in a project.
    fn group_member(
        &self,
        project: ProjectId,
        group: GroupId,
    ) -> Result<Option<GroupMember>, RecordError> {
        self.record(&key::group_member(project, group))
    }
    /// All groups that are members of a project.
    fn group_members(&self, project: ProjectId) -> Result<Vec<GroupMember>, RecordError> {
        Ok(self.records(&key::group_members(project))?.into_iter().map(|(_, v)| v).collect())
    }
    /// What a provider says of a user; `None` for one who has a password here. It is a scan, because
    /// an edge remembers that a scan found nothing.
    fn belonging(&self, user: UserId) -> Result<Option<Belonging>, RecordError> {
        Ok(self.records(&key::belonging(user))?.into_iter().next().map(|(_, v)| v))
    }
    /// The account of whom the provider calls so.
    fn user_called(
        &self,
        provider: Provider,
        subject: &str,
    ) -> Result<Option<UserId>, RecordError> {
        self.record(&key::user_subject(provider, subject))
    }
    /// How often an account of whom the provider calls so was deleted, since the feature level
    /// [`Level::FORGOTTEN`](super::level::Level::FORGOTTEN).
    fn times_forgotten(&self, provider: Provider, subject: &str) -> Result<u64, RecordError> {
        Ok(self.record(&key::forgotten(provider, subject))?.unwrap_or(0))
    }
    /// The sealed secret with which a user of an OIDC provider signs in without a browser.
    fn cli_secret(&self, user: UserId) -> Result<Option<Secret>, RecordError> {
        self.record(&key::cli_secret(user))
    }
    /// All of them, by user.
    fn cli_secrets(&self) -> Result<Vec<(UserId, Secret)>, RecordError> {
        let all = self.records::<Secret>(&key::cli_secrets())?;
        Ok(all.into_iter().filter_map(|(place, v)| Some((key::user_of_cli(&place)?, v))).collect())
    }
    /// The settings.
    fn configurations(&self) -> Result<Configurations, RecordError> {
        Ok(self.record(&key::configurations())?.unwrap_or_default())
    }
    /// The strongest role that a user has in a project as a member of groups. Nothing of the groups is
    /// read until one was made a member somewhere.
    fn role_of_groups(
        &self,
        project: &Project,
        user: UserId,
    ) -> Result<Option<ProjectRole>, RecordError> {
        if self.records::<()>(&key::groups_used())?.is_empty() {
            return Ok(None);
        }
        let members = self.group_members(project.id)?;
        if members.is_empty() {
            return Ok(None);
        }
        let Some(belonging) = self.belonging(user)? else { return Ok(None) };
        let Vouched { provider, groups, .. } = belonging.vouched;
        let is_theirs =
            |member: &&GroupMember| member.provider == provider && groups.contains(&member.subject);
        Ok(members.iter().filter(is_theirs).map(|member| member.role).min())
    }
}

impl<R: Look + ?Sized> LookForGroups for R {}
