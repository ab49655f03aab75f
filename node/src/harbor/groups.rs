//! `/api/v2.0/usergroups`: groups of identity providers, with Harbor's schemas and statuses.

use http::{Response, StatusCode};
use rules::ledger::directory::{DirectoryChange, Group, LookForGroups};
use rules::ledger::events::Actor;
use rules::ledger::people::PeopleChange;
use rules::people::groups::{BadGroup, check_name, subject};
use rules::words::names::GroupId;
use rules::words::query::{self, Field, Kind, number, text};
use rules::words::roles::Provider;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::{Harbor, bad, body, created};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// A group as clients write it: Harbor's `UserGroup`.
#[derive(Deserialize)]
pub(super) struct WrittenGroup {
    pub(super) id: Option<u64>,
    #[serde(default)]
    group_name: String,
    group_type: Option<u64>,
    #[serde(default)]
    ldap_group_dn: String,
}

#[derive(Deserialize)]
struct RenamedGroup {
    group_name: String,
}

/// A group that can be made known.
pub(super) struct NewGroup {
    pub(super) provider: Provider,
    pub(super) name: String,
    pub(super) subject: String,
}

impl WrittenGroup {
    /// The group that is meant. A group of LDAP is known by its distinguished name, and may be written
    /// without a name for people.
    pub(super) fn read(self) -> Result<NewGroup, Failure> {
        let provider = self.group_type.and_then(Provider::numbered);
        let provider = provider.ok_or_else(|| bad("group_type is 1 (LDAP) or 3 (OIDC)"))?;
        let (name, called) = match provider {
            Provider::Oidc => (self.group_name.clone(), &self.group_name),
            Provider::Ldap if self.group_name.is_empty() => {
                let first = self.ldap_group_dn.split(',').next().unwrap_or_default();
                let name = first.split_once('=').map_or(first, |(_, name)| name).trim();
                (name.to_owned(), &self.ldap_group_dn)
            }
            Provider::Ldap => (self.group_name.clone(), &self.ldap_group_dn),
        };
        let wrong = match provider {
            Provider::Oidc => BadGroup::Name,
            Provider::Ldap => BadGroup::DistinguishedName,
        };
        let subject = subject(provider, called).ok_or_else(|| bad(wrong.to_string()))?;
        check_name(&name).map_err(|e| bad(e.to_string()))?;
        Ok(NewGroup { provider, name, subject })
    }
}

fn no_group(id: GroupId) -> Failure {
    Failure::new(Code::NotFound, format!("there is no group {}", id.0))
}

fn place(id: GroupId) -> String {
    format!("/api/v2.0/usergroups/{}", id.0)
}

/// What `q` and `sort` may be about.
const FIELDS: &[Field<Group>] = &[
    Field::new("group_name", Kind::Text, |group| text(&group.name)),
    Field::new("group_type", Kind::Number, |group| number(group.provider.number())),
    Field::new("id", Kind::Number, |group| number(group.id.0)),
    Field::new("creation_time", Kind::Time, |group| query::Value::Time(group.created)),
];

impl Harbor {
    pub(super) async fn list_groups(
        &self,
        request: &Request,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let dn = request.query("ldap_group_dn");
        let dn = dn.map(|dn| subject(Provider::Ldap, dn).unwrap_or_default());
        let part = request.query("group_name").unwrap_or_default();
        let fits = |group: &Group| {
            let named = dn.as_ref().is_none_or(|dn| *dn == group.subject);
            named && group.name.contains(part)
        };
        let groups = self.read(|records| records.groups()).await?;
        let groups: Vec<Group> = groups.into_iter().filter(fits).collect();
        wanted.answer_chosen(groups, FIELDS, |group| group.name.as_str(), show)
    }

    /// Everybody who is signed in may look for groups by a part of their name: a project's admin has
    /// to know whom to make a member.
    pub(super) async fn search_groups(
        &self,
        request: &Request,
    ) -> Result<Response<Payload>, Failure> {
        let part = request.query("groupname").unwrap_or_default();
        if part.is_empty() {
            return Err(bad("groupname is needed: a part of the name"));
        }
        let wanted = PageRequest::pages(request)?;
        let groups = self.read(|records| records.groups()).await?;
        let groups: Vec<Group> =
            groups.into_iter().filter(|group| group.name.contains(part)).collect();
        let show = |group: &Group| {
            json!({"id": group.id.0, "group_name": group.name,
                "group_type": group.provider.number()})
        };
        Ok(wanted.answer(&groups, |group| group.name.as_str(), show))
    }

    pub(super) async fn create_group(
        &self,
        mut request: Request,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let new = body::<WrittenGroup>(&mut request).await?.read()?;
        self.make_group(&new, by).await?;
        let (made, _) = self.records.read(|r| r.group_called(new.provider, &new.subject)).await?;
        Ok(created(made.map(|made| place(made.id))))
    }

    /// Makes a group known.
    pub(super) async fn make_group(&self, new: &NewGroup, by: &Actor) -> Result<(), Failure> {
        let NewGroup { provider, name, subject } = new;
        let object = format!("group {name}");
        let (provider, name, subject) = (*provider, name.clone(), subject.clone());
        let change = DirectoryChange::CreateGroup { provider, name, subject };
        self.change_people(PeopleChange::Directory(change), &object, by).await
    }

    pub(super) async fn show_group(&self, id: GroupId) -> Result<Response<Payload>, Failure> {
        let group = self.read(|records| records.group(id)).await?;
        Ok(json_answer(StatusCode::OK, &show(&group.ok_or_else(|| no_group(id))?)))
    }

    /// What an OIDC provider calls a group is its name, so only groups of LDAP can have another one.
    pub(super) async fn rename_group(
        &self,
        mut request: Request,
        id: GroupId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let RenamedGroup { group_name: name } = body(&mut request).await?;
        check_name(&name).map_err(|e| bad(e.to_string()))?;
        let group = self.read(|records| records.group(id)).await?.ok_or_else(|| no_group(id))?;
        if group.provider == Provider::Oidc && group.name != name {
            return Err(bad(
                "group_name: an OIDC group has the name that its provider gives it; create another group",
            ));
        }
        let change = DirectoryChange::RenameGroup { id, name };
        self.change_people(PeopleChange::Directory(change), &format!("group {}", id.0), by).await?;
        Ok(answer(StatusCode::OK))
    }

    pub(super) async fn delete_group(
        &self,
        id: GroupId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let change = DirectoryChange::DeleteGroup { id };
        self.change_people(PeopleChange::Directory(change), &format!("group {}", id.0), by).await?;
        Ok(answer(StatusCode::OK))
    }
}

fn show(group: &Group) -> Value {
    let dn = if group.provider == Provider::Ldap { group.subject.as_str() } else { "" };
    json!({
        "id": group.id.0,
        "group_name": group.name,
        "group_type": group.provider.number(),
        "ldap_group_dn": dn,
    })
}
