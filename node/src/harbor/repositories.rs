//! Repositories in Harbor's API: of a project, and of all that a caller may see.

use http::{Response, StatusCode};
use rules::ledger::change::Change;
use rules::ledger::directory::LookForGroups;
use rules::ledger::events::Actor;
use rules::ledger::people::LookForPeople;
use rules::ledger::policies::LookForPolicies;
use rules::ledger::quotas::{UsageRecord, key as quotas_key};
use rules::ledger::records::{Look, Project, ReadRecords, RecordError, Repository, decode, key};
use rules::policies::immutability::is_immutable;
use rules::wire::WriteKind;
use rules::words::names::{ProjectName, RepositoryName};
use rules::words::query::{self, Field, Kind, text};
use rules::words::roles::{Operation, Permission, ProjectRole, Resource};
use serde_json::{Value, json};

use super::Harbor;
use super::lists::PageRequest;
use super::quotas::Quota;
use super::stored::{missing, number};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};
use registry::people::Caller;
use registry::writes::Refusal;

/// How many members have each role, by the name in a project's summary.
const MEMBER_COUNTS: [(&str, u64); 5] = [
    ("project_admin_count", 1),
    ("developer_count", 2),
    ("guest_count", 3),
    ("maintainer_count", 4),
    ("limited_guest_count", 5),
];

/// A repository of a project, as its list shows it.
pub(super) struct Listed {
    name: RepositoryName,
    record: Repository,
}

impl Listed {
    /// The number of its manifests.
    pub(super) fn manifests(&self) -> u64 {
        self.record.manifests
    }
}

/// All repositories of a project.
pub(super) fn repositories(
    records: &dyn ReadRecords,
    project: &ProjectName,
) -> Result<Vec<Listed>, RecordError> {
    let mut found = Vec::new();
    for (place, record) in records.scan(&key::repositories_of(project), None, usize::MAX)? {
        if let Ok(name) = key::name_of(&place).parse() {
            found.push(Listed { name, record: decode(&record)? });
        }
    }
    Ok(found)
}

fn show_repository(project: &Project, one: &Listed) -> Value {
    json!({
        "id": number(one.name.as_str()),
        "project_id": project.id.0,
        "name": one.name.as_str(),
        "description": "",
        "artifact_count": one.record.manifests,
        "pull_count": 0,
        "creation_time": one.record.created.to_string(),
        "update_time": one.record.created.to_string(),
    })
}

/// What `q` and `sort` may be about in lists of repositories.
const REPOSITORY_FIELDS: &[Field<(Project, Listed)>] = &[
    Field::new("name", Kind::Text, |(_, one)| text(one.name.as_str())),
    Field::new("repository_id", Kind::Number, |(_, one)| query::number(number(one.name.as_str()))),
    Field::new("project_id", Kind::Number, |(project, _)| query::number(project.id.0)),
    // as it is shown: pulls are not counted
    Field::new("pull_count", Kind::Number, |_| query::number(0)),
    Field::new("artifact_count", Kind::Number, |(_, one)| query::number(one.record.manifests)),
    Field::new("creation_time", Kind::Time, |(_, one)| query::Value::Time(one.record.created)),
    Field::new("update_time", Kind::Time, |(_, one)| query::Value::Time(one.record.created)),
];

fn answer_repositories(
    wanted: &PageRequest,
    found: Vec<(Project, Listed)>,
) -> Result<Response<Payload>, Failure> {
    let show = |(project, one): &(Project, Listed)| show_repository(project, one);
    wanted.answer_chosen(found, REPOSITORY_FIELDS, |(_, one)| one.name.as_str(), show)
}

/// A tag of a repository that may not be deleted, if there is one.
fn immutable_tag(
    records: &dyn ReadRecords,
    project: &ProjectName,
    repository: &RepositoryName,
) -> Result<Option<String>, RecordError> {
    let Some(project) = records.project(project)? else { return Ok(None) };
    let rules = records.policies(project.id)?.immutable;
    if rules.is_empty() {
        return Ok(None);
    }
    let within = repository.as_str().split_once('/').map_or("", |(_, rest)| rest);
    let tags = records.scan(&key::tags(repository), None, usize::MAX)?;
    let mut tags = tags.iter().map(|(place, _)| key::tag_of(place));
    Ok(tags.find(|tag| is_immutable(&rules, within, tag)))
}

impl Harbor {
    pub(super) async fn list_repositories(
        &self,
        request: &Request,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let found = self.read_at_length(|records| repositories(records, &project.name)).await?;
        let found = found.into_iter().map(|one| (project.clone(), one)).collect();
        answer_repositories(&wanted, found)
    }

    /// The repositories of all projects that the caller may see.
    pub(super) async fn list_all_repositories(
        &self,
        request: &Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let found = self.seen_repositories(caller).await?;
        answer_repositories(&wanted, found)
    }

    async fn seen_repositories(&self, caller: &Caller) -> Result<Vec<(Project, Listed)>, Failure> {
        let seen = self.seen_projects(caller).await?;
        self.read_at_length(|records| {
            let mut all = Vec::new();
            for (project, _) in &seen {
                let found = repositories(records, &project.name)?;
                all.extend(found.into_iter().map(|one| (project.clone(), one)));
            }
            Ok(all)
        })
        .await
    }

    /// Projects and repositories with `q` in their names.
    pub(super) async fn search(
        &self,
        request: &Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let part = request.query("q").unwrap_or_default();
        let projects = self.seen_projects(caller).await?;
        let named = projects.iter().filter(|(project, _)| project.name.as_str().contains(part));
        let projects: Vec<Value> =
            named.map(|(project, role)| self.show_in(project, *role)).collect();
        let found = self.seen_repositories(caller).await?;
        let named = found.iter().filter(|(_, one)| one.name.as_str().contains(part));
        let repositories: Vec<Value> = named
            .map(|(project, one)| {
                json!({
                    "project_id": project.id.0,
                    "project_name": project.name.as_str(),
                    "project_public": project.public,
                    "repository_name": one.name.as_str(),
                    "artifact_count": one.record.manifests,
                    "pull_count": 0,
                })
            })
            .collect();
        let shown = json!({"project": projects, "repository": repositories});
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// How many projects and repositories the caller may see.
    pub(super) async fn statistics(&self, caller: &Caller) -> Result<Response<Payload>, Failure> {
        let projects = self.seen_projects(caller).await?;
        let found = self.seen_repositories(caller).await?;
        let of = |public: bool| {
            let projects = projects.iter().filter(|(project, _)| project.public == public).count();
            (projects, found.iter().filter(|(project, _)| project.public == public).count())
        };
        let ((public, public_repositories), (private, private_repositories)) =
            (of(true), of(false));
        let mut shown = json!({
            "public_project_count": public,
            "public_repo_count": public_repositories,
            "private_project_count": private,
            "private_repo_count": private_repositories,
            "total_project_count": public + private,
            "total_repo_count": public_repositories + private_repositories,
        });
        // Harbor tells administrators only
        if caller.identity.is_administrator() && !self.neighbours.is_edge() {
            let used = self
                .read_at_length(|records| {
                    let mut used = 0u64;
                    for (_, usage) in records.records::<UsageRecord>(&quotas_key::usages())? {
                        used = used.saturating_add(usage.used.storage);
                    }
                    Ok(used)
                })
                .await?;
            shown["total_storage_consumption"] = used.into();
        }
        Ok(json_answer(StatusCode::OK, &shown))
    }

    pub(super) async fn show_repository(
        &self,
        project: &Project,
        name: &RepositoryName,
    ) -> Result<Response<Payload>, Failure> {
        let record =
            self.read(|records| records.record::<Repository>(&key::repository(name))).await?;
        let record = record.ok_or_else(|| missing(&format!("repository {name}")))?;
        let shown = show_repository(project, &Listed { name: name.clone(), record });
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Removes all manifests of a repository, one after the other. If this breaks off, the next
    /// DELETE goes on.
    pub(super) async fn delete_repository(
        &self,
        name: &RepositoryName,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let manifests = self
            .read_at_length(|records| {
                let found = records.scan(&key::manifests(name), None, usize::MAX)?;
                Ok(found.iter().filter_map(|(place, _)| key::digest_of(place)).collect::<Vec<_>>())
            })
            .await?;
        if manifests.is_empty() {
            return Err(missing(&format!("repository {name}")));
        }
        // before anything goes: what is deleted one by one until something stays would leave indexes
        // without their images
        let project = name.project();
        let stays = self.read_at_length(|records| immutable_tag(records, &project, name)).await?;
        if let Some(tag) = stays {
            let message = format!("the tag {tag} configured as immutable, cannot be deleted");
            return Err(Failure::new(Code::Precondition, message));
        }
        for digest in manifests {
            let change = Change::DeleteManifest { repository: name.clone(), digest };
            match self.writes.commit(&name.project(), WriteKind::Fenced(change), by).await {
                // somebody else has deleted it
                Ok(_) | Err(Refusal::NotFound) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(answer(StatusCode::OK))
    }

    /// How much a project has. How many members it has is told to those who may list them, as in
    /// Harbor.
    pub(super) async fn summarize(
        &self,
        caller: &Caller,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let list = Permission::new(Resource::Member, Operation::List);
        let (found, roles) = self
            .read_at_length(|records| {
                if !caller.identity.may(records, list, project)? {
                    return Ok((repositories(records, &project.name)?, None));
                }
                let users = records.members(project.id)?.into_iter().map(|one| one.role);
                let groups = records.group_members(project.id)?.into_iter().map(|one| one.role);
                let roles: Vec<ProjectRole> = users.chain(groups).collect();
                Ok((repositories(records, &project.name)?, Some(roles)))
            })
            .await?;
        let mut shown = json!({"repo_count": found.len()});
        let read = Permission::new(Resource::Quota, Operation::Read);
        if project.upstream.is_none() {
            let quota = self
                .read(|records| {
                    let may = caller.identity.may(records, read, project)?;
                    may.then(|| Quota::of(records, project.clone())).transpose()
                })
                .await?;
            if let Some(quota) = quota {
                shown["quota"] = quota.numbers();
            }
        }
        if let Some(roles) = roles {
            for (name, number) in MEMBER_COUNTS {
                let with = roles.iter().filter(|role| role.number() == number).count();
                shown[name] = with.into();
            }
        }
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Whether the project can be deleted: Harbor's clients ask before they do it.
    pub(super) async fn show_deletable(
        &self,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let found = self.read_at_length(|records| repositories(records, &project.name)).await?;
        let deletable = found.is_empty() || project.upstream.is_some();
        let message = match deletable {
            true => String::new(),
            false => format!("the project has {} repositories", found.len()),
        };
        let shown = json!({"deletable": deletable, "message": message});
        Ok(json_answer(StatusCode::OK, &shown))
    }
}
