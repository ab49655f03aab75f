//! `/api/v2.0/quotas`: how much projects may store (`handler/quota.go` of Harbor). A project's quota has
//! the project's number. Limits of tags and repositories are Atoll's own, and beside Harbor's
//! `storage`.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use rules::ledger::command::Command;
use rules::ledger::directory::LookForGroups;
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::quotas::{LimitsRecord, LookForQuotas, Progress, QuotaChange, UsageRecord};
use rules::ledger::records::{Look, Project, ReadRecords, RecordError};
use rules::ledger::trash::LookForTrash;
use rules::people::configurations::Configured;
use rules::policies::quota::{Counted, Limits};
use rules::policies::trash;
use rules::words::names::{ProjectId, ProjectName};
use rules::words::query::{Field, Kind, number, text};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::lists::PageRequest;
use super::{Harbor, bad, body};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The value that means that there is no limit.
const UNLIMITED: i64 = -1;

#[derive(Deserialize)]
struct QuotaBody {
    #[serde(default)]
    hard: Option<BTreeMap<String, i64>>,
}

/// A project with what it may have and what it has.
pub(super) struct Quota {
    project: Project,
    limits: Option<LimitsRecord>,
    usage: Option<UsageRecord>,
}

/// What `q` and `sort` may be about.
const FIELDS: &[Field<Quota>] = &[
    Field::new("id", Kind::Number, |quota| number(quota.project.id.0)),
    Field::new("name", Kind::Text, |quota| text(quota.project.name.as_str())),
    Field::new("hard.storage", Kind::Number, |quota| number(quota.hard(Counted::Storage))),
    Field::new("hard.tags", Kind::Number, |quota| number(quota.hard(Counted::Tags))),
    Field::new("hard.repositories", Kind::Number, |quota| {
        number(quota.hard(Counted::Repositories))
    }),
    Field::new("used.storage", Kind::Number, |quota| number(quota.used(Counted::Storage))),
    Field::new("used.tags", Kind::Number, |quota| number(quota.used(Counted::Tags))),
    Field::new("used.repositories", Kind::Number, |quota| {
        number(quota.used(Counted::Repositories))
    }),
];

impl Quota {
    pub(super) fn of(records: &dyn ReadRecords, project: Project) -> Result<Self, RecordError> {
        let limits = records.limits(&project.name)?;
        let mut usage = records.usage(&project.name)?;
        // as the quota counts
        if let Some(record) = usage.as_mut().filter(|_| project.is_set(trash::COUNTED)) {
            let trash = records.trash_usage(&project.name)?.storage;
            record.used.storage = record.used.storage.saturating_add(trash);
        }
        Ok(Quota { project, limits, usage })
    }

    fn limit(&self, resource: Counted) -> Option<u64> {
        self.limits.and_then(|record| record.limits.of(resource))
    }

    /// For an order: what is unlimited is the most.
    fn hard(&self, resource: Counted) -> u64 {
        self.limit(resource).unwrap_or(u64::MAX)
    }

    fn used(&self, resource: Counted) -> u64 {
        self.usage.as_ref().map_or(0, |record| record.used.of(resource))
    }

    /// `hard` and `used` of Harbor.
    pub(super) fn numbers(&self) -> Value {
        let all = |value: &dyn Fn(Counted) -> Value| -> Map<String, Value> {
            Counted::ALL.iter().map(|one| (one.word().to_owned(), value(*one))).collect()
        };
        json!({
            "hard": all(&|one| self.limit(one).map_or(UNLIMITED.into(), Value::from)),
            "used": all(&|one| self.used(one).into()),
        })
    }

    fn show(&self) -> Value {
        let mut shown = self.numbers();
        let created = self.project.created;
        shown["id"] = self.project.id.0.into();
        shown["ref"] = json!({
            "id": self.project.id.0,
            "name": self.project.name.as_str(),
            "owner_name": "",
        });
        shown["creation_time"] = created.to_string().into();
        let changed = self.limits.map_or(created, |record| record.changed);
        shown["update_time"] = changed.to_string().into();
        let whole = self.usage.as_ref().is_some_and(|record| record.progress == Progress::Whole);
        shown["counted"] = whole.into();
        shown
    }
}

/// A limit as clients write it.
fn limit(word: &str, value: i64) -> Result<Option<u64>, Failure> {
    match value {
        UNLIMITED => Ok(None),
        1.. => Ok(Some(value.unsigned_abs())),
        _ => Err(bad(format!("{word} is a number from 1 on, or -1 for no limit"))),
    }
}

/// The limits of a new project: what an administrator wrote, else what the mesh's settings say.
pub(super) fn limits_of_new(
    settings: &Configured,
    storage: Option<i64>,
    administers: bool,
) -> Result<Limits, Failure> {
    let mut limits = Limits {
        storage: settings.limit("storage_per_project"),
        tags: settings.limit("tags_per_project"),
        repositories: settings.limit("repositories_per_project"),
    };
    // as in Harbor: 0 is the setting, and what others write is not read
    if let Some(storage) = storage.filter(|storage| administers && *storage != 0) {
        limits.storage = limit("storage_limit", storage)?;
    }
    Ok(limits)
}

/// Why a project that caches a registry has no quota, and what bounds it.
fn caches(project: &ProjectName) -> String {
    format!(
        "project {project} caches a registry and has no quota: what it caches is evicted for each \
         node's cache.budget, and when nobody has pulled it for its proxy_cache_unused_after \
         (`atoll project set {project} proxy_cache_unused_after=3d`)"
    )
}

impl Harbor {
    /// All quotas; those of projects that cache a registry do not exist.
    pub(super) async fn list_quotas(
        &self,
        request: &Request,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        if request.query("reference").is_some_and(|kind| !matches!(kind, "" | "project")) {
            return Err(bad("reference is project"));
        }
        let of = match request.query("reference_id") {
            None | Some("") => None,
            Some(id) => {
                Some(id.parse::<u64>().map_err(|_| bad("reference_id is a project's number"))?)
            }
        };
        let mut found = self
            .read_at_length(|records| {
                let projects = records.projects()?.into_iter();
                let projects = projects.filter(|project| project.upstream.is_none());
                projects.map(|project| Quota::of(records, project)).collect::<Result<Vec<_>, _>>()
            })
            .await?;
        found.retain(|quota| of.is_none_or(|id| quota.project.id.0 == id));
        found.sort_by_key(|quota| quota.project.id);
        wanted.answer_chosen(found, FIELDS, |quota| quota.project.name.as_str(), Quota::show)
    }

    async fn quota(&self, id: ProjectId) -> Result<Quota, Failure> {
        let found = self
            .read(|records| {
                let project = records.project_numbered(id)?;
                match project {
                    None => Ok(Err(format!("there is no quota {id}"))),
                    Some(project) if project.upstream.is_some() => Ok(Err(caches(&project.name))),
                    Some(project) => Quota::of(records, project).map(Ok),
                }
            })
            .await?;
        found.map_err(|said| Failure::new(Code::NotFound, said))
    }

    pub(super) async fn show_quota(&self, id: ProjectId) -> Result<Response<Payload>, Failure> {
        Ok(json_answer(StatusCode::OK, &self.quota(id).await?.show()))
    }

    /// Sets the limits that the body names; the others stay.
    pub(super) async fn set_quota(
        &self,
        mut request: Request,
        id: ProjectId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: QuotaBody = body(&mut request).await?;
        let hard = written.hard.filter(|hard| !hard.is_empty());
        let hard = hard.ok_or_else(|| bad("hard required in body"))?;
        self.writes.check_level(Level::QUOTAS)?;
        let known = self.quota(id).await?;
        let mut limits = known.limits.map(|record| record.limits).unwrap_or_default();
        for (word, value) in &hard {
            let value = limit(&format!("hard.{word}"), *value)?;
            match Counted::ALL.into_iter().find(|resource| resource.word() == word) {
                Some(Counted::Storage) => limits.storage = value,
                Some(Counted::Tags) => limits.tags = value,
                Some(Counted::Repositories) => limits.repositories = value,
                None => return Err(bad(format!("resource {word} not support"))),
            }
        }
        let change = QuotaChange::Set { project: id, limits };
        let command = Command::Quota(Box::new(change));
        self.propose(command, &format!("quota {id}"), by).await?;
        Ok(answer(StatusCode::OK))
    }

    /// The settings of new projects.
    pub(super) async fn settings(&self) -> Result<Configured, Failure> {
        Ok(Configured::of(&self.read(|records| records.configurations()).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::ledger::directory::Configurations;

    #[test]
    fn new_projects_have_what_the_settings_say_and_administrators_may_say_otherwise() {
        let mut record = Configurations::default();
        record.values.insert("storage_per_project".into(), "100".into());
        record.values.insert("tags_per_project".into(), "7".into());
        let settings = Configured::of(&record);
        let of = |storage, administers| limits_of_new(&settings, storage, administers).unwrap();
        let (tags, repositories) = (Some(7), None);
        let default = Limits { storage: Some(100), tags, repositories };
        for (storage, administers) in
            [(None, true), (Some(0), true), (Some(5), false), (Some(-1), false)]
        {
            assert_eq!(of(storage, administers), default);
        }
        assert_eq!(of(Some(5), true), Limits { storage: Some(5), ..default });
        assert_eq!(of(Some(-1), true), Limits { storage: None, ..default });
        assert!(limits_of_new(&settings, Some(-2), true).is_err());
        let unset = Configured::of(&Configurations::default());
        assert_eq!(limits_of_new(&unset, None, true).unwrap(), Limits::default());
    }
}
