//! Labels: made, changed, put on artifacts, and gone with what they are about.

use super::{EMPTIED_AT_ONCE, next_number};
use crate::ledger::command::Outcome;
use crate::ledger::labels::{
    Label, LabelChange, LabelTerms, LookForLabels, MOST_LABELS, MOST_ON_ARTIFACT, key,
};
use crate::ledger::level::Level;
use crate::ledger::records::{Look, RecordError, WriteRecords, encode};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{LabelId, ProjectId, RepositoryName};

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &LabelChange,
) -> Result<Outcome, RecordError> {
    match change {
        LabelChange::Create { project, terms } => create(records, at, *project, terms),
        LabelChange::Change { id, terms } => {
            let Some(label) = records.label(*id)? else { return Ok(Outcome::NotFound) };
            if is_taken(records, label.project, &terms.name, Some(*id))? {
                return Ok(Outcome::Exists);
            }
            let changed = Label { terms: terms.clone(), updated: at, ..label };
            records.put(&key::label(*id), &encode(&changed)?)?;
            Ok(Outcome::Done)
        }
        LabelChange::Delete { id } => {
            let Some(label) = records.label(*id)? else { return Ok(Outcome::NotFound) };
            delete(records, &label, EMPTIED_AT_ONCE)
        }
        LabelChange::Attach { repository, digest, id } => attach(records, repository, digest, *id),
        LabelChange::Detach { repository, digest, id } => {
            if records.get(&key::on_artifact(repository, digest, *id))?.is_none() {
                return Ok(Outcome::NotFound);
            }
            detach(records, repository, digest, *id)?;
            Ok(Outcome::Done)
        }
    }
}

fn is_taken<R: WriteRecords>(
    records: &R,
    project: Option<ProjectId>,
    name: &str,
    but: Option<LabelId>,
) -> Result<bool, RecordError> {
    let labels = records.labels(project)?;
    Ok(labels.iter().any(|label| label.terms.name == name && Some(label.id) != but))
}

fn create<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: Option<ProjectId>,
    terms: &LabelTerms,
) -> Result<Outcome, RecordError> {
    if let Some(id) = project
        && records.project_numbered(id)?.is_none()
    {
        return Ok(Outcome::NotFound);
    }
    if is_taken(records, project, &terms.name, None)? {
        return Ok(Outcome::Exists);
    }
    if records.scan(&key::all_of_project(project), None, MOST_LABELS)?.len() >= MOST_LABELS {
        let whose = if project.is_some() { "a project has" } else { "all projects together have" };
        return Ok(Outcome::Refused(format!("{whose} at most {MOST_LABELS} labels")));
    }
    let id = LabelId(next_number(records, &key::last())?);
    let label = Label { id, project, terms: terms.clone(), created: at, updated: at };
    records.put(&key::label(id), &encode(&label)?)?;
    records.put(&key::of_project(project, id), &[])?;
    Ok(Outcome::Done)
}

/// Puts a label on an artifact.
pub(super) fn attach<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
    id: LabelId,
) -> Result<Outcome, RecordError> {
    let Some(project) = records.project(&repository.project())? else {
        return Ok(Outcome::NotFound);
    };
    let label = records.label(id)?;
    let fits = |label: &Label| label.project.is_none_or(|of| of == project.id);
    if !label.as_ref().is_some_and(fits) || !records.has_manifest(repository, digest)? {
        return Ok(Outcome::NotFound);
    }
    if records.get(&key::on_artifact(repository, digest, id))?.is_some() {
        return Ok(Outcome::Exists);
    }
    if records.labels_on(repository, digest)?.len() >= MOST_ON_ARTIFACT {
        let message = format!("an artifact has at most {MOST_ON_ARTIFACT} labels");
        return Ok(Outcome::Refused(message));
    }
    records.put(&key::on_artifact(repository, digest, id), &[])?;
    records.put(&key::place(id, repository, digest), &[])?;
    Ok(Outcome::Done)
}

fn detach<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
    id: LabelId,
) -> Result<(), RecordError> {
    records.remove(&key::on_artifact(repository, digest, id))?;
    records.remove(&key::place(id, repository, digest))
}

/// Takes a label off at most `most` artifacts, and forgets it once it is on none.
fn delete<R: WriteRecords>(
    records: &mut R,
    label: &Label,
    most: usize,
) -> Result<Outcome, RecordError> {
    let places = records.scan(&key::places(label.id), None, most)?;
    for (place, _) in &places {
        let (repository, digest) = key::of_place(place)
            .ok_or_else(|| RecordError("a label's place has no artifact".into()))?;
        detach(records, &repository, &digest, label.id)?;
    }
    if places.len() == most {
        return Ok(Outcome::Unfinished);
    }
    records.remove(&key::of_project(label.project, label.id))?;
    records.remove(&key::label(label.id))?;
    Ok(Outcome::Done)
}

/// A manifest is gone, and with it the labels on it.
pub(super) fn forget<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), RecordError> {
    if records.level()? < Level::LABELS {
        return Ok(());
    }
    for id in records.labels_on(repository, digest)? {
        detach(records, repository, digest, id)?;
    }
    Ok(())
}

/// A project goes: its labels do, too. It has no artifacts any more, so they are on none.
pub(super) fn leave_project<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
) -> Result<(), RecordError> {
    if records.level()? < Level::LABELS {
        return Ok(());
    }
    for label in records.labels(Some(project))? {
        delete(records, &label, EMPTIED_AT_ONCE)?;
    }
    Ok(())
}

/// What a label is called in the record of what happened.
pub(super) fn name<R: WriteRecords>(records: &R, id: LabelId) -> Result<String, RecordError> {
    Ok(records.label(id)?.map_or(id.0.to_string(), |label| label.terms.name))
}

#[cfg(test)]
mod tests;
