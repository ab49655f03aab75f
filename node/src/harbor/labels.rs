//! `/api/v2.0/labels`: labels of all projects (scope `g`) and of one project (scope `p`), and what
//! they are on, with Harbor's schemas and statuses (`src/server/v2.0/handler/label.go`).

use http::{Response, StatusCode};
use registry::people::Caller;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::events::Actor;
use rules::ledger::labels::{Label, LabelChange, LabelTerms, LookForLabels};
use rules::ledger::records::{Look, Project, ReadRecords};
use rules::people::access::RegistryScope;
use rules::words::digest::Digest;
use rules::words::names::{LabelId, ProjectId, RepositoryName};
use rules::words::query::{self, Field, Kind, number, text};
use rules::words::roles::{Operation, Permission, Resource};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::{Harbor, bad, body, created};
use crate::http::answer::{answer, json_answer};
use crate::http::door::actor;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

#[derive(Deserialize)]
struct NewLabel {
    scope: String,
    project_id: Option<u64>,
    #[serde(flatten)]
    terms: WrittenTerms,
}

#[derive(Deserialize)]
struct WrittenTerms {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    color: String,
}

#[derive(Deserialize)]
struct AttachedLabel {
    id: u64,
}

impl WrittenTerms {
    fn read(self) -> Result<LabelTerms, Failure> {
        let WrittenTerms { name, description, color } = self;
        let terms = LabelTerms { name, description, color };
        terms.check().map_err(bad)?;
        Ok(terms)
    }
}

/// The project of a scope; `None` for all projects.
fn scope(scope: &str, project: Option<u64>) -> Result<Option<ProjectId>, Failure> {
    match (scope, project.filter(|id| *id != 0)) {
        ("g", _) => Ok(None),
        ("p", Some(id)) => Ok(Some(ProjectId(id))),
        ("p", None) => Err(bad("project_id is needed: a label of scope p belongs to a project")),
        _ => Err(bad("scope is \"g\" (all projects) or \"p\" (one project)")),
    }
}

fn no_label(id: LabelId) -> Failure {
    Failure::new(Code::NotFound, format!("there is no label {}", id.0))
}

/// What `q` and `sort` may be about.
const FIELDS: &[Field<Label>] = &[
    Field::new("name", Kind::Text, |label| text(&label.terms.name)),
    Field::new("id", Kind::Number, |label| number(label.id.0)),
    Field::new("color", Kind::Text, |label| text(&label.terms.color)),
    Field::new("creation_time", Kind::Time, |label| query::Value::Time(label.created)),
    Field::new("update_time", Kind::Time, |label| query::Value::Time(label.updated)),
];

impl Harbor {
    /// Checks that the caller may do this to labels of a project, or of all projects.
    async fn admit_to_labels(
        &self,
        request: &Request,
        caller: &Caller,
        operation: Operation,
        project: Option<&Project>,
    ) -> Result<(), Failure> {
        let permission = Permission::new(Resource::Label, operation);
        match project {
            Some(project) => {
                let called = &project.name;
                self.door.admit_to_project(request, caller, permission, project, called).await
            }
            // everybody may choose from them
            None if operation == Operation::List => {
                self.door.admit_signed_in(request).await.map(|_| ())
            }
            None => {
                self.door.admit_system(request, permission, RegistryScope::Api).await.map(|_| ())
            }
        }
    }

    /// The project with this number, if the caller may do this to its labels. Whether there is a
    /// project is told only to whoever may see all.
    async fn project_of_labels(
        &self,
        request: &Request,
        caller: &Caller,
        operation: Operation,
        id: Option<ProjectId>,
    ) -> Result<Option<Project>, Failure> {
        let Some(id) = id else {
            self.admit_to_labels(request, caller, operation, None).await?;
            return Ok(None);
        };
        let Some(project) = self.read(|records| records.project_numbered(id)).await? else {
            self.door.admit_signed_in(request).await?;
            let message = match caller.identity.is_administrator() {
                true => {
                    return Err(Failure::new(Code::NotFound, format!("there is no project {id}")));
                }
                false => format!("{} may not {operation} label there", caller.identity.name()),
            };
            return Err(Failure::new(Code::Denied, message));
        };
        let admitted = self.admit_to_labels(request, caller, operation, Some(&project)).await;
        admitted.map_err(|failure| match failure.status() {
            StatusCode::FORBIDDEN => {
                let name = caller.identity.name();
                Failure::new(Code::Denied, format!("{name} may not {operation} label there"))
            }
            _ => failure,
        })?;
        Ok(Some(project))
    }

    /// A label, if the caller may do this to it.
    async fn their_label(
        &self,
        request: &Request,
        caller: &Caller,
        operation: Operation,
        id: LabelId,
    ) -> Result<Label, Failure> {
        let Some(label) = self.read(|records| records.label(id)).await? else {
            self.admit_to_labels(request, caller, operation, None).await?;
            return Err(no_label(id));
        };
        self.project_of_labels(request, caller, operation, label.project).await?;
        Ok(label)
    }

    pub(super) async fn list_labels(
        &self,
        request: &Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let id = request.query("project_id").map(str::parse).transpose();
        let id = id.map_err(|_| bad("project_id is a number"))?;
        let of = scope(request.query("scope").unwrap_or_default(), id)?;
        self.project_of_labels(request, caller, Operation::List, of).await?;
        let labels = self.read(|records| records.labels(of)).await?;
        wanted.answer_chosen(labels, FIELDS, |label| &label.terms.name, show)
    }

    pub(super) async fn create_label(
        &self,
        mut request: Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let NewLabel { scope: word, project_id, terms } = body(&mut request).await?;
        let of = scope(&word, project_id)?;
        self.project_of_labels(&request, caller, Operation::Create, of).await?;
        let terms = terms.read()?;
        let name = terms.name.clone();
        let change = LabelChange::Create { project: of, terms };
        self.change_labels(change, &format!("label {name}"), &actor(caller, &request)).await?;
        let (labels, _) = self.records.read(|records| records.labels(of)).await?;
        let made = labels.into_iter().find(|label| label.terms.name == name);
        Ok(created(made.map(|made| format!("/api/v2.0/labels/{}", made.id.0))))
    }

    pub(super) async fn show_label(
        &self,
        request: &Request,
        caller: &Caller,
        id: LabelId,
    ) -> Result<Response<Payload>, Failure> {
        let label = self.their_label(request, caller, Operation::Read, id).await?;
        Ok(json_answer(StatusCode::OK, &show(&label)))
    }

    pub(super) async fn change_label(
        &self,
        mut request: Request,
        caller: &Caller,
        id: LabelId,
    ) -> Result<Response<Payload>, Failure> {
        self.their_label(&request, caller, Operation::Update, id).await?;
        let terms = body::<WrittenTerms>(&mut request).await?.read()?;
        let object = format!("label {}", terms.name);
        let change = LabelChange::Change { id, terms };
        self.change_labels(change, &object, &actor(caller, &request)).await?;
        Ok(answer(StatusCode::OK))
    }

    pub(super) async fn delete_label(
        &self,
        request: &Request,
        caller: &Caller,
        id: LabelId,
    ) -> Result<Response<Payload>, Failure> {
        self.their_label(request, caller, Operation::Delete, id).await?;
        let by = actor(caller, request);
        self.change_labels(LabelChange::Delete { id }, &format!("label {}", id.0), &by).await?;
        Ok(answer(StatusCode::OK))
    }

    /// Puts the label in the body on an artifact.
    pub(super) async fn attach_label(
        &self,
        mut request: Request,
        project: &Project,
        repository: RepositoryName,
        digest: Digest,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let id = LabelId(body::<AttachedLabel>(&mut request).await?.id);
        if project.upstream.is_some() {
            let message =
                "what a project caches of another registry has no labels: it may be evicted";
            return Err(Failure::new(Code::Precondition, message));
        }
        let object = format!("label {} on {repository}@{digest}", id.0);
        let change = LabelChange::Attach { repository, digest, id };
        self.change_labels(change, &object, by).await?;
        Ok(answer(StatusCode::OK))
    }

    /// Takes a label off an artifact.
    pub(super) async fn detach_label(
        &self,
        repository: RepositoryName,
        digest: Digest,
        id: LabelId,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let object = format!("label {} on {repository}@{digest}", id.0);
        let change = LabelChange::Detach { repository, digest, id };
        self.change_labels(change, &object, by).await?;
        Ok(answer(StatusCode::OK))
    }

    async fn change_labels(
        &self,
        change: LabelChange,
        object: &str,
        by: &Actor,
    ) -> Result<(), Failure> {
        let command = Command::Label(Box::new(change));
        while self.propose(command.clone(), object, by).await? == Outcome::Unfinished {}
        Ok(())
    }
}

/// A label as Harbor shows it.
pub(super) fn show(label: &Label) -> Value {
    json!({
        "id": label.id.0,
        "name": label.terms.name,
        "description": label.terms.description,
        "color": label.terms.color,
        "scope": if label.project.is_some() { "p" } else { "g" },
        "project_id": label.project.map_or(0, |id| id.0),
        "creation_time": label.created.to_string(),
        "update_time": label.updated.to_string(),
    })
}

/// The labels of an artifact, as Harbor shows them.
pub(super) fn shown_on(
    records: &dyn ReadRecords,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Vec<Value>, rules::ledger::records::RecordError> {
    let mut shown = Vec::new();
    for id in records.labels_on(repository, digest)? {
        shown.extend(records.label(id)?.as_ref().map(show));
    }
    Ok(shown)
}
