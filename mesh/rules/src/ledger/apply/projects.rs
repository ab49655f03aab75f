//! Projects: created, emptied, deleted, and given to another primary.

use super::trash::{self, Deletion};
use super::{
    EMPTIED_AT_ONCE, cached_scans, cached_signatures, jobs, labels, manifests, next_number, people,
    quotas, scanning, signatures,
};
use crate::ledger::command::{EquippedProject, NewProject, Outcome};
use crate::ledger::level::Level;
use crate::ledger::people::LookForPeople;
use crate::ledger::policies::{Policies, key as policies_key};
use crate::ledger::records::{Look, Project, RecordError, WriteRecords, encode, key};
use crate::policies::quota::Limits;
use crate::proxies::proxy::ProxyRules;
use crate::words::moment::Timestamp;
use crate::words::names::{Epoch, NodeId, ProjectId, ProjectName, RepositoryName};

pub(super) fn create<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    new: &NewProject,
) -> Result<Outcome, RecordError> {
    create_with(records, at, new, Limits::default())
}

/// Creates a project with its limits, what stays in it, and its admin.
pub(super) fn create_equipped<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    new: &EquippedProject,
) -> Result<Outcome, RecordError> {
    let EquippedProject { project, owner, limits, retention } = new;
    if let Some(owner) = owner
        && records.account(*owner)?.is_none()
    {
        return Ok(Outcome::Refused("the project's owner is no user any more".into()));
    }
    let outcome = create_with(records, at, project, *limits)?;
    if outcome != Outcome::Done {
        return Ok(outcome);
    }
    if let Some(owner) = owner {
        people::own(records, at, &project.name, *owner)?;
    }
    if let Some(made) = records.project(&project.name)?.filter(|_| retention.is_some()) {
        let policies = Policies { retention: retention.clone(), ..Policies::default() };
        records.put(&policies_key::policies(made.id), &encode(&policies)?)?;
    }
    Ok(outcome)
}

fn create_with<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    new: &NewProject,
    limits: Limits,
) -> Result<Outcome, RecordError> {
    let NewProject { name, public, durability, home, upstream, proxy, metadata } = new.clone();
    if records.project(&name)?.is_some() {
        return Ok(Outcome::Exists);
    }
    if let Some(id) = upstream
        && records.get(&key::upstream(id))?.is_none()
    {
        return Ok(Outcome::NotFound);
    }
    let project = Project {
        id: ProjectId(next_number(records, &key::last_project())?),
        name,
        public,
        durability,
        home,
        primary: home,
        epoch: Epoch::FIRST,
        created: at,
        upstream,
        proxy: ProxyRules::default().changed(&proxy),
        metadata,
    };
    records.put(&key::project(&project.name), &encode(&project)?)?;
    cached_scans::configured(records, &project, &project.metadata)?;
    cached_signatures::configured(records, &project, &project.metadata)?;
    if records.level()? >= Level::NUMBERS {
        number(records, &project)?;
    }
    quotas::begin(records, at, &project, limits)?;
    Ok(Outcome::Done)
}

/// Has a project found by its number.
fn number<R: WriteRecords>(records: &mut R, project: &Project) -> Result<(), RecordError> {
    records.put(&key::project_number(project.id), &encode(&project.name)?)
}

/// Has all projects found by their numbers: those from before [`Level::NUMBERS`].
pub(super) fn number_all<R: WriteRecords>(records: &mut R) -> Result<(), RecordError> {
    for project in records.projects()? {
        number(records, &project)?;
    }
    Ok(())
}

/// Removes a project that is empty. Of a cache, also removes the contents, at most
/// [`EMPTIED_AT_ONCE`] records at a time. What is in its trash goes with it.
pub(super) fn delete<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
) -> Result<Outcome, RecordError> {
    let name = &project.name;
    if project.upstream.is_some() {
        empty(records, at, name, EMPTIED_AT_ONCE)?;
    }
    if !records.scan(&key::repositories_of(name), None, 1)?.is_empty() {
        return Ok(match project.upstream {
            Some(_) => Outcome::Unfinished,
            None => Outcome::Refused(format!(
                "project {name} still has repositories; delete them first"
            )),
        });
    }
    if trash::leave_project(records, at, name)?
        || people::leave_project(records, project, EMPTIED_AT_ONCE)?
    {
        return Ok(Outcome::Unfinished);
    }
    if records.level()? >= Level::JOBS && jobs::leave_project(records, project.id, EMPTIED_AT_ONCE)?
    {
        return Ok(Outcome::Unfinished);
    }
    if signatures::leave_project(records, project.id, EMPTIED_AT_ONCE)?
        || cached_scans::leave_project(records, project)?
        || cached_signatures::leave_project(records, project)?
    {
        return Ok(Outcome::Unfinished);
    }
    records.remove(&policies_key::policies(project.id))?;
    labels::leave_project(records, project.id)?;
    scanning::leave_project(records, project.id)?;
    quotas::leave_project(records, name)?;
    records.remove(&key::project(name))?;
    if records.level()? >= Level::NUMBERS {
        records.remove(&key::project_number(project.id))?;
    }
    Ok(Outcome::Done)
}

/// Removes what is recorded of a cache's content, at most [`EMPTIED_AT_ONCE`] records at a time. The
/// content of a project that is no cache is not touched.
pub(super) fn empty_cache<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
) -> Result<Outcome, RecordError> {
    if project.upstream.is_none() {
        return Ok(Outcome::Refused(format!("project {} caches no registry", project.name)));
    }
    empty(records, at, &project.name, EMPTIED_AT_ONCE)?;
    let left = records.scan(&key::repositories_of(&project.name), None, 1)?;
    Ok(if left.is_empty() { Outcome::Done } else { Outcome::Unfinished })
}

/// Gives a project to another primary, under the next epoch.
pub(super) fn assign<R: WriteRecords>(
    records: &mut R,
    mut project: Project,
    node: NodeId,
) -> Result<Outcome, RecordError> {
    if records.get(&key::node(node))?.is_none() {
        return Ok(Outcome::Refused(format!("node {node} is not a member")));
    }
    if records.level()? >= Level::KEYS && records.get(&key::node(project.home))?.is_none() {
        project.home = node;
    }
    project.primary = node;
    project.epoch = project.epoch.next();
    records.put(&key::project(&project.name), &encode(&project)?)?;
    Ok(Outcome::Done)
}

/// `node` leaves the mesh: projects that are at home there are at home with their primary.
pub(super) fn leave_home<R: WriteRecords>(
    records: &mut R,
    node: NodeId,
) -> Result<(), RecordError> {
    for project in records.projects()? {
        if project.home == node && project.primary != node {
            let moved = Project { home: project.primary, ..project };
            records.put(&key::project(&moved.name), &encode(&moved)?)?;
        }
    }
    Ok(())
}

/// Removes up to `most` tags and manifests of a project, repository by repository. Tags are removed
/// first, so that none names a manifest that is gone.
fn empty<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &ProjectName,
    most: usize,
) -> Result<(), RecordError> {
    let mut left = most;
    while left > 0 {
        let Some((place, _)) = records.scan(&key::repositories_of(project), None, 1)?.pop() else {
            return Ok(());
        };
        let broken = |what: &dyn std::fmt::Display| {
            RecordError(format!("a repository of {project}: {what}"))
        };
        let repository: RepositoryName = key::name_of(&place).parse().map_err(|e| broken(&e))?;
        let tags = records.scan(&key::tags(&repository), None, left)?;
        for (tag, _) in &tags {
            records.remove(tag)?;
        }
        left -= tags.len();
        // one by one: manifests may be large
        while left > 0
            && let Some((place, _)) = records.scan(&key::manifests(&repository), None, 1)?.pop()
        {
            let digest =
                key::digest_of(&place).ok_or_else(|| broken(&"a manifest's key has no digest"))?;
            manifests::delete(records, &Deletion::of(at, None), &repository, &digest)?;
            left -= 1;
        }
    }
    Ok(())
}
