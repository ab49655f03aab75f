//! `/api/v2.0/projects/NAME/members`: who is what in a project, with Harbor's schemas and statuses.

use http::{Response, StatusCode};
use rules::ledger::events::Actor;
use rules::ledger::people::{LookForPeople, Member, PeopleChange};
use rules::ledger::records::{Project, ReadRecords, RecordError};
use rules::words::names::{MemberId, ProjectId, UserId, UserName};
use rules::words::roles::ProjectRole;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::{Harbor, bad, body, created};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

#[derive(Deserialize)]
struct NewMember {
    role_id: u64,
    member_user: Option<MemberUser>,
    member_group: Option<Value>,
}

#[derive(Deserialize)]
struct MemberUser {
    user_id: Option<u64>,
    username: Option<String>,
}

#[derive(Deserialize)]
struct ChangedMember {
    role_id: u64,
}

fn role(number: u64) -> Result<ProjectRole, Failure> {
    ProjectRole::numbered(number).ok_or_else(|| {
        bad("role_id is 1 (project admin), 2 (developer), 3 (guest), 4 (maintainer) or 5 (limited guest)")
    })
}

/// A member, with the name of the user.
struct Named {
    member: Member,
    name: String,
}

fn named(
    records: &dyn ReadRecords,
    project: ProjectId,
    wanted: impl Fn(&Member) -> bool,
) -> Result<Vec<Named>, RecordError> {
    let mut all = Vec::new();
    for member in records.members(project)?.into_iter().filter(wanted) {
        // an account that is being deleted leaves its projects one by one
        if let Some(account) = records.account(member.user)? {
            all.push(Named { member, name: account.name.to_string() });
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

impl Harbor {
    pub(super) async fn list_members(
        &self,
        request: &Request,
        project: Project,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let part = request.query("entityname").unwrap_or_default();
        let read = self.read(|records| named(records, project.id, |_| true)).await?;
        let members: Vec<Named> = read.into_iter().filter(|m| m.name.contains(part)).collect();
        Ok(wanted.answer(&members, |one| &one.name, |one| show(project.id, one)))
    }

    pub(super) async fn show_member(
        &self,
        project: Project,
        id: MemberId,
    ) -> Result<Response<Payload>, Failure> {
        let read = self.read(|records| named(records, project.id, |m| m.id == id)).await?;
        let found = read.first().map(|one| show(project.id, one));
        let found = found.ok_or_else(|| {
            Failure::new(Code::NotFound, format!("{} has no member {}", project.name, id.0))
        })?;
        Ok(json_answer(StatusCode::OK, &found))
    }

    pub(super) async fn add_member(
        &self,
        mut request: Request,
        project: Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let NewMember { role_id, member_user, member_group } = body(&mut request).await?;
        let role = role(role_id)?;
        let unknown = |who: &dyn std::fmt::Display| {
            Failure::new(Code::NotFound, format!("there is no user {who}"))
        };
        let account = match (member_user, member_group) {
            (Some(MemberUser { user_id: Some(id), .. }), None) if id != 0 => {
                let account = self.read(|r| r.account(UserId(id))).await?;
                account.ok_or_else(|| unknown(&id))?
            }
            (Some(MemberUser { username: Some(name), .. }), None) => {
                let name: UserName = name.parse().map_err(|e| bad(format!("username: {e}")))?;
                let account = self.read(|r| r.account_named(&name)).await?;
                account.ok_or_else(|| unknown(&name))?
            }
            (None, Some(_)) => return Err(bad("member_group: there are no groups; name a user")),
            _ => return Err(bad("member_user needs a user_id or a username")),
        };
        let user = account.id;
        let change = PeopleChange::AddMember { project: project.id, user, role };
        let object = format!("member {} of {}", account.name, project.name);
        self.change_people(change, &object, by).await?;
        let (made, _) = self.records.read(|r| r.member(project.id, user)).await?;
        let place =
            |made: Member| format!("/api/v2.0/projects/{}/members/{}", project.id, made.id.0);
        Ok(created(made.map(place)))
    }

    pub(super) async fn change_member(
        &self,
        mut request: Request,
        project: Project,
        id: MemberId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let ChangedMember { role_id } = body(&mut request).await?;
        let role = role(role_id)?;
        let object = format!("member {} of {}", id.0, project.name);
        let change = PeopleChange::ChangeMember { project: project.id, id, role };
        self.change_people(change, &object, by).await?;
        Ok(answer(StatusCode::OK))
    }

    pub(super) async fn remove_member(
        &self,
        project: Project,
        id: MemberId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let object = format!("member {} of {}", id.0, project.name);
        let change = PeopleChange::RemoveMember { project: project.id, id };
        self.change_people(change, &object, by).await?;
        Ok(answer(StatusCode::OK))
    }
}

fn show(project: ProjectId, Named { member, name }: &Named) -> Value {
    json!({
        "id": member.id.0,
        "project_id": project.0,
        "entity_name": name,
        "entity_id": member.user.0,
        "entity_type": "u",
        "role_id": member.role.number(),
        "role_name": member.role.name(),
        "creation_time": member.created.to_string(),
    })
}
