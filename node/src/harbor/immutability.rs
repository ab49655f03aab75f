//! `/api/v2.0/projects/PROJECT/immutabletagrules`: tags that never move (`ImmutableRule` of Harbor's
//! `api/v2.0/swagger.yaml`).

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use registry::writes::Refusal;
use rules::ledger::change::Change;
use rules::ledger::events::Actor;
use rules::ledger::policies::{LookForPolicies, PolicyChange};
use rules::ledger::records::Project;
use rules::policies::immutability::ImmutableRule;
use rules::wire::WriteKind;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::selectors::{Selector, repositories, show_repositories, show_tags, tags};
use super::{Harbor, bad, body, created};
use crate::http::answer::answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

#[derive(Deserialize)]
struct RuleBody {
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    tag_selectors: Option<Vec<Selector>>,
    #[serde(default)]
    scope_selectors: BTreeMap<String, Vec<Selector>>,
}

impl RuleBody {
    fn checked(&self, id: u64) -> Result<ImmutableRule, Failure> {
        let selectors = self.tag_selectors.as_deref().unwrap_or_default();
        if selectors.is_empty() {
            return Err(bad("tag_selectors has one selector"));
        }
        let repositories = repositories(&self.scope_selectors)?;
        Ok(ImmutableRule { id, disabled: self.disabled, repositories, tags: tags(selectors)? })
    }
}

fn show(project: &Project, rule: &ImmutableRule) -> Value {
    json!({
        "id": rule.id,
        "project_id": project.id.0,
        "disabled": rule.disabled,
        "priority": 0,
        "action": "immutable",
        "template": "immutable_template",
        "params": {},
        "tag_selectors": show_tags(&rule.tags),
        "scope_selectors": show_repositories(&rule.repositories),
    })
}

impl Harbor {
    pub(super) async fn list_immutable_rules(
        &self,
        request: &Request,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::pages(request)?;
        let rules = self.read(|records| records.policies(project.id)).await?.immutable;
        Ok(wanted.answer(&rules, |_| "", |rule| show(project, rule)))
    }

    pub(super) async fn add_immutable_rule(
        &self,
        mut request: Request,
        project: &Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: RuleBody = body(&mut request).await?;
        let rule = written.checked(0)?;
        if project.upstream.is_some() {
            let message = "a project that caches a registry has the tags of that registry";
            return Err(bad(message));
        }
        self.decide(project, PolicyChange::AddImmutable(rule.clone()), by).await?;
        let rules = self.read(|records| records.policies(project.id)).await?.immutable;
        let made = rules.iter().find(|known| known.is_as(&rule));
        let id = made.map(|made| made.id).unwrap_or_default();
        let place = format!("/api/v2.0/projects/{}/immutabletagrules/{id}", project.id.0);
        Ok(created(Some(place)))
    }

    pub(super) async fn change_immutable_rule(
        &self,
        mut request: Request,
        project: &Project,
        id: u64,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let written: RuleBody = body(&mut request).await?;
        let rule = match written.tag_selectors {
            Some(_) => written.checked(id)?,
            // Harbor's portal sends only whether it is disabled
            None => {
                let rules = self.read(|records| records.policies(project.id)).await?.immutable;
                let known = rules.into_iter().find(|rule| rule.id == id);
                let known = known.ok_or_else(|| no_rule(id))?;
                ImmutableRule { disabled: written.disabled, ..known }
            }
        };
        match self.decide(project, PolicyChange::SetImmutable(rule), by).await {
            Err(failure) if failure.status() == StatusCode::NOT_FOUND => Err(no_rule(id)),
            changed => changed.map(|()| answer(StatusCode::OK)),
        }
    }

    pub(super) async fn remove_immutable_rule(
        &self,
        project: &Project,
        id: u64,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        match self.decide(project, PolicyChange::RemoveImmutable(id), by).await {
            Err(failure) if failure.status() == StatusCode::NOT_FOUND => Err(no_rule(id)),
            changed => changed.map(|()| answer(StatusCode::OK)),
        }
    }

    /// Commits a change of what a project decides.
    pub(super) async fn decide(
        &self,
        project: &Project,
        change: PolicyChange,
        by: &Actor,
    ) -> Result<(), Failure> {
        let change = Change::Policy { name: project.name.clone(), change: Box::new(change) };
        match self.writes.commit(&project.name, WriteKind::Fenced(change), by).await {
            Ok(_) => Ok(()),
            Err(Refusal::Exists) => {
                Err(Failure::new(Code::Conflict, "the project has such a rule already"))
            }
            Err(Refusal::NotFound) => Err(Failure::new(Code::NotFound, "it is not there")),
            Err(Refusal::Conflict(why)) => Err(bad(why)),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

fn no_rule(id: u64) -> Failure {
    Failure::new(Code::NotFound, format!("the project has no immutable tag rule {id}"))
}
