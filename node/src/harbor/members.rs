//! `/api/v2.0/projects/NAME/members`: who is what in a project, with Harbor's schemas and statuses.

use http::{Response, StatusCode};
use registry::people::Caller;
use rules::ledger::directory::{DirectoryChange, LookForGroups};
use rules::ledger::events::Actor;
use rules::ledger::people::{LookForPeople, PeopleChange};
use rules::ledger::records::{Project, ReadRecords, RecordError};
use rules::people::roles::of_role;
use rules::words::moment::Timestamp;
use rules::words::names::{GroupId, MemberId, ProjectId, UserId, UserName};
use rules::words::roles::ProjectRole;
use serde::Deserialize;
use serde_json::{Value, json};

use super::groups::WrittenGroup;
use super::lists::PageRequest;
use super::{Harbor, bad, body, created};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

#[derive(Deserialize)]
struct NewMember {
    role_id: u64,
    member_user: Option<MemberUser>,
    member_group: Option<WrittenGroup>,
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

/// A member, a user or a group, with the name.
struct Named {
    id: MemberId,
    entity: u64,
    is_group: bool,
    name: String,
    role: ProjectRole,
    created: Timestamp,
}

fn named(
    records: &dyn ReadRecords,
    project: ProjectId,
    wanted: impl Fn(MemberId) -> bool,
) -> Result<Vec<Named>, RecordError> {
    let mut all = Vec::new();
    for member in records.members(project)?.into_iter().filter(|member| wanted(member.id)) {
        // an account that is being deleted leaves its projects one by one
        if let Some(account) = records.account(member.user)? {
            all.push(Named {
                id: member.id,
                entity: member.user.0,
                is_group: false,
                name: account.name.to_string(),
                role: member.role,
                created: member.created,
            });
        }
    }
    for member in records.group_members(project)?.into_iter().filter(|one| wanted(one.id)) {
        if let Some(group) = records.group(member.group)? {
            all.push(Named {
                id: member.id,
                entity: member.group.0,
                is_group: true,
                name: group.name,
                role: member.role,
                created: member.created,
            });
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
        let wanted = PageRequest::pages(request)?;
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
        let read = self.read(|records| named(records, project.id, |member| member == id)).await?;
        let found = read.first().map(|one| show(project.id, one));
        let found = found.ok_or_else(|| {
            Failure::new(Code::NotFound, format!("{} has no member {}", project.name, id.0))
        })?;
        Ok(json_answer(StatusCode::OK, &found))
    }

    pub(super) async fn add_member(
        &self,
        mut request: Request,
        caller: &Caller,
        project: Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let NewMember { role_id, member_user, member_group } = body(&mut request).await?;
        let role = role(role_id)?;
        self.check_gives(caller, &project, role).await?;
        let member = match (member_user, member_group) {
            (Some(user), None) => self.add_user(&project, user, role, by).await?,
            (None, Some(group)) => self.add_group(&project, group, role, by).await?,
            _ => return Err(bad("member_user or member_group is needed, one of them")),
        };
        let place = |id: MemberId| format!("/api/v2.0/projects/{}/members/{}", project.id, id.0);
        Ok(created(member.map(place)))
    }

    /// Nobody gives a role that may do more than they may: a robot that manages members has no more
    /// rights through one of them.
    async fn check_gives(
        &self,
        caller: &Caller,
        project: &Project,
        role: ProjectRole,
    ) -> Result<(), Failure> {
        self.check_theirs_in(caller, project, &of_role(role).collect::<Vec<_>>()).await
    }

    async fn add_user(
        &self,
        project: &Project,
        user: MemberUser,
        role: ProjectRole,
        by: &Actor,
    ) -> Result<Option<MemberId>, Failure> {
        let unknown = |who: &dyn std::fmt::Display| {
            Failure::new(Code::NotFound, format!("there is no user {who}"))
        };
        let account = match user {
            MemberUser { user_id: Some(id), .. } if id != 0 => {
                let account = self.read(|r| r.account(UserId(id))).await?;
                account.ok_or_else(|| unknown(&id))?
            }
            MemberUser { username: Some(name), .. } => {
                let name: UserName = name.parse().map_err(|e| bad(format!("username: {e}")))?;
                let account = self.read(|r| r.account_named(&name)).await?;
                account.ok_or_else(|| unknown(&name))?
            }
            _ => return Err(bad("member_user needs a user_id or a username")),
        };
        let user = account.id;
        let change = PeopleChange::AddMember { project: project.id, user, role };
        let object = format!("member {} of {}", account.name, project.name);
        self.change_people(change, &object, by).await?;
        let (made, _) = self.records.read(|r| r.member(project.id, user)).await?;
        Ok(made.map(|made| made.id))
    }

    /// A group that is not known yet becomes known, as in Harbor: its provider need not be asked, and
    /// its people may sign in later.
    async fn add_group(
        &self,
        project: &Project,
        written: WrittenGroup,
        role: ProjectRole,
        by: &Actor,
    ) -> Result<Option<MemberId>, Failure> {
        let group = match written.id {
            Some(id) if id != 0 => {
                let missing = || Failure::new(Code::NotFound, format!("there is no group {id}"));
                self.read(|r| r.group(GroupId(id))).await?.ok_or_else(missing)?
            }
            _ => {
                let new = written.read()?;
                let find = || self.read(|r| r.group_called(new.provider, &new.subject));
                match find().await? {
                    Some(group) => group,
                    None => {
                        match self.make_group(&new, by).await {
                            Err(failure) if failure.status() == StatusCode::CONFLICT => {}
                            made => made?,
                        }
                        let gone = || Failure::new(Code::NotFound, "the group is gone again");
                        find().await?.ok_or_else(gone)?
                    }
                }
            }
        };
        let (project_id, id) = (project.id, group.id);
        let change = DirectoryChange::AddGroupMember { project: project_id, group: id, role };
        let object = format!("member {} of {}", group.name, project.name);
        self.change_people(PeopleChange::Directory(change), &object, by).await?;
        let (made, _) = self.records.read(|r| r.group_member(project_id, id)).await?;
        Ok(made.map(|made| made.id))
    }

    pub(super) async fn change_member(
        &self,
        mut request: Request,
        caller: &Caller,
        project: Project,
        id: MemberId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let ChangedMember { role_id } = body(&mut request).await?;
        let role = role(role_id)?;
        self.check_gives(caller, &project, role).await?;
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

fn show(project: ProjectId, one: &Named) -> Value {
    json!({
        "id": one.id.0,
        "project_id": project.0,
        "entity_name": one.name,
        "entity_id": one.entity,
        "entity_type": if one.is_group { "g" } else { "u" },
        "role_id": one.role.number(),
        "role_name": one.role.name(),
        "creation_time": one.created.to_string(),
    })
}
