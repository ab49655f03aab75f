//! The one function that changes the ledger. It is pure and deterministic: the same records and the
//! same entry give the same records and the same outcome on every node.

mod cached_scans;
mod cached_signatures;
mod collecting;
mod directory;
mod draining;
mod drills;
mod events;
mod jobs;
mod known_images;
mod labels;
pub(in crate::ledger) mod manifests;
mod members;
mod people;
mod policies;
mod projects;
mod provider_tokens;
mod quotas;
mod references;
mod restoring;
mod scan_queue;
mod scanners;
mod scanning;
mod sealing;
mod signatures;
pub(in crate::ledger) mod trash;
mod trust;
mod upkeep;
mod upstreams;

use self::trash::Deletion;
use crate::ledger::command::{Command, Envelope, NewManifest, Outcome};
use crate::ledger::events::Actor;
use crate::ledger::level::Level;
use crate::ledger::people::LookForPeople;
use crate::ledger::precondition::Precondition;
use crate::ledger::records::{
    Look, Project, RecordError, Repository, UpstreamRecord, WriteRecords, decode, encode, key,
};
use crate::words::moment::Timestamp;
use crate::words::names::{OperationId, Reference, RepositoryName, Revision};

/// The maximum number of records that one entry removes of what it empties: tags and manifests of a
/// cache, members and robots of a project. Applying an entry delays all others, while read leases
/// run out.
pub const EMPTIED_AT_ONCE: usize = 500;

/// The number of operations whose answers are kept for retries.
pub const REMEMBERED_OPERATIONS: u64 = 8192;

/// Applies one entry. An operation that was applied before changes nothing and gets its first
/// answer again. One that was refused for its epoch, or for a node that leaves, counts as not
/// applied.
pub fn apply<R: WriteRecords>(
    records: &mut R,
    revision: Revision,
    envelope: &Envelope,
) -> Result<Outcome, RecordError> {
    let operation = key::operation(envelope.operation);
    if let Some(outcome) = records.record::<Outcome>(&operation)? {
        return Ok(outcome);
    }
    let (by, command) = envelope.command.plain();
    let described = events::describe(records, command)?;
    let outcome = perform(records, envelope.at, by, command)?;
    if let Some(described) = described {
        events::record(records, envelope.at, by, described, &outcome)?;
    }
    if matches!(outcome, Outcome::StaleEpoch { .. }) && records.level()? >= Level::ROLES {
        // Nothing took effect, and the operation will be decided anew under the next epoch. It
        // keeps its id: with a new one, an operation that did take effect unseen would be applied
        // twice.
        return Ok(outcome);
    }
    if matches!(outcome, Outcome::Leaving(_) | Outcome::Collected) {
        return Ok(outcome); // likewise
    }
    records.put(&operation, &encode(&outcome)?)?;
    records.put(&key::operation_order(revision), &encode(&envelope.operation)?)?;
    forget_old_operations(records, revision)?;
    Ok(outcome)
}

fn forget_old_operations<R: WriteRecords>(
    records: &mut R,
    revision: Revision,
) -> Result<(), RecordError> {
    let Some(oldest_kept) = revision.0.checked_sub(REMEMBERED_OPERATIONS) else { return Ok(()) };
    for (order, id) in records.scan(&key::operation_orders(), None, 2)? {
        if order < key::operation_order(Revision(oldest_kept)) {
            records.remove(&key::operation(decode::<OperationId>(&id)?))?;
            records.remove(&order)?;
        }
    }
    Ok(())
}

/// Applies a command that was not applied before. A command that carries an epoch is fenced first:
/// if the project has another epoch, nothing changes.
fn perform<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    by: Option<&Actor>,
    command: &Command,
) -> Result<Outcome, RecordError> {
    let project = match fenced(records, command)? {
        Ok(project) => project,
        Err(outcome) => return Ok(outcome),
    };
    if let Some(new) = command.new_manifest() {
        if let Some(node) = members::counts_on_leaving(records, new)? {
            return Ok(Outcome::Leaving(node));
        }
        // one without a number was checked before there were collections
        let seen = match command {
            Command::PutChecked(checked) => checked.collections,
            _ => 0,
        };
        if collecting::is_collected(records, seen, new)? {
            return Ok(Outcome::Collected);
        }
        if let Some(project) = &project
            && let Some(forbidden) = policies::forbids_put(records, project, new)?
        {
            return Ok(forbidden);
        }
    }
    if let Some(project) = &project
        && let Some((repository, what)) = deleted_by(command)
        && let Some(forbidden) = policies::forbids_delete(records, project, repository, &what)?
    {
        return Ok(forbidden);
    }
    match (command, project) {
        (Command::FormMesh { mesh, token_secret, administrator, nodes }, _) => {
            members::form(records, at, *mesh, token_secret, administrator, nodes)
        }
        (Command::Invite { secret_hash, expires, role, nodes }, _) => {
            members::invite(records, secret_hash, *expires, *role, *nodes)
        }
        (Command::Join { secret_hash, node }, _) => members::join(records, at, secret_hash, node),
        (Command::RemoveNode { id }, _) => members::remove(records, at, *id),
        (Command::Leaving(change), _) => members::leave(records, at, change),
        (Command::Trust(change), _) => trust::change(records, at, change),
        (Command::MoveNode { node }, _) => members::change(records, node),
        (Command::RaiseLevel { level, token_secret }, _) => {
            members::raise_level(records, at, *level, token_secret)
        }
        (Command::CreateProject(new), _) => projects::create(records, at, new),
        (Command::CreateOwnedProject { owner, project }, _) => {
            if records.account(*owner)?.is_none() {
                return Ok(Outcome::Refused("the project's owner is no user any more".into()));
            }
            let outcome = projects::create(records, at, project)?;
            if outcome == Outcome::Done {
                people::own(records, at, &project.name, *owner)?;
            }
            Ok(outcome)
        }
        (Command::CreateEquippedProject(new), _) => projects::create_equipped(records, at, new),
        (Command::Quota(change), _) => quotas::change(records, at, change),
        (Command::Upkeep(run), _) => upkeep::ran(records, run),
        (Command::Drain(change), _) => draining::change(records, at, *change),
        (Command::Drill(change), _) => drills::change(records, at, by, change),
        (Command::ConfigureProject { public, durability, proxy, metadata, .. }, Some(project)) => {
            let changed = Project {
                public: public.unwrap_or(project.public),
                durability: durability.unwrap_or(project.durability),
                proxy: project.proxy.changed(proxy),
                metadata: project.metadata.into_iter().chain(metadata.clone()).collect(),
                ..project
            };
            records.put(&key::project(&changed.name), &encode(&changed)?)?;
            cached_scans::configured(records, &changed, metadata)?;
            cached_signatures::configured(records, &changed, metadata)?;
            Ok(Outcome::Done)
        }
        (Command::ForgetMetadata { key: entry, .. }, Some(mut project)) => {
            if project.metadata.remove(entry).is_none() {
                return Ok(Outcome::NotFound);
            }
            records.put(&key::project(&project.name), &encode(&project)?)?;
            Ok(Outcome::Done)
        }
        (Command::DeleteProject { .. }, Some(project)) => projects::delete(records, at, &project),
        (Command::AssignPrimary { node, .. }, Some(project)) => {
            projects::assign(records, project, *node)
        }
        (Command::People(change), _) => people::change(records, at, change),
        (Command::Sealing(change), _) => sealing::change(records, at, change),
        (Command::Job(change), project) => jobs::change(records, at, change, project.as_ref()),
        (Command::Label(change), _) => labels::change(records, at, change),
        (Command::Events(change), _) => events::change(records, change),
        // it has no other command inside
        (Command::Audited(audited), _) => perform(records, at, by, audited.command.command()),
        (Command::CreateUpstream { name, kind, url, description, credentials }, _) => {
            let record = |id| UpstreamRecord {
                id,
                name: name.clone(),
                kind: kind.clone(),
                url: url.clone(),
                description: description.clone(),
                credentials: credentials.clone(),
                created: at,
            };
            upstreams::create(records, name, record)
        }
        (Command::ChangeUpstream { was, becomes }, _) => upstreams::change(records, was, becomes),
        (Command::DeleteUpstream { id }, _) => upstreams::delete(records, *id),
        (
            Command::PutManifest(_)
            | Command::PutManifestIf(..)
            | Command::PutChecked(_)
            | Command::AddTag { .. },
            Some(project),
        ) if project.upstream.is_some() && records.level()? >= Level::CACHES => {
            Ok(Outcome::Refused(format!(
                "project {} caches a registry, and the ledger does not record what is cached",
                project.name
            )))
        }
        (Command::PutManifest(new), Some(project)) => {
            put_manifest(records, at, &project, None, new)
        }
        (Command::PutManifestIf(precondition, new), Some(project)) => {
            put_manifest(records, at, &project, Some(precondition), new)
        }
        (Command::PutChecked(checked), Some(project)) => {
            put_manifest(records, at, &project, checked.precondition.as_ref(), &checked.new)
        }
        (Command::Scan { change, .. }, Some(project)) => {
            scanning::change(records, at, &project, change)
        }
        (Command::Signatures { change, .. }, Some(project)) => {
            cached_signatures::change(records, at, &project, change)
        }
        (Command::Trash { change, .. }, Some(project)) => {
            restoring::change(records, at, &project, change)
        }
        (Command::Scanner(change), _) => scanning::change_scanner(records, at, change),
        (Command::Collect(change), _) => collecting::change(records, at, change),
        (Command::Policy { change, .. }, Some(project)) => {
            policies::change(records, &project, change)
        }
        (Command::Retire { repository, digests, judged, manifests, .. }, Some(project)) => {
            let known = records.record::<Repository>(&key::repository(repository))?;
            if known.is_none_or(|known| known.manifests != *manifests) {
                return Ok(Outcome::PreconditionFailed);
            }
            let deletion = Deletion::by_policy(at, by);
            policies::retire(records, &deletion, &project, repository, digests, *judged)
        }
        (Command::RetireSeen { repository, seen, manifests, .. }, Some(project)) => {
            let known = records.record::<Repository>(&key::repository(repository))?;
            if known.is_none_or(|known| known.manifests != *manifests) {
                return Ok(Outcome::PreconditionFailed);
            }
            let deletion = Deletion::by_policy(at, by);
            policies::retire_seen(records, &deletion, &project, repository, seen)
        }
        (Command::Kept { blobs, .. }, Some(_)) => manifests::kept(records, blobs),
        (Command::Pulled(pulls), _) => policies::pulled(records, at, pulls),
        (Command::EmptyCache { .. }, Some(project)) => projects::empty_cache(records, at, &project),
        (Command::IndexTags { repository, .. }, Some(_)) => {
            let whole = manifests::index_tags(records, repository, EMPTIED_AT_ONCE)?;
            Ok(if whole { Outcome::Done } else { Outcome::Unfinished })
        }
        (Command::AddTag { repository, digest, tag, .. }, Some(project)) => quotas::within(
            records,
            at,
            &project,
            |records| quotas::added_by_tag(records, repository, tag),
            |records| {
                let outcome = manifests::add_tag(records, at, repository, digest, tag)?;
                if outcome == Outcome::Done {
                    signatures::tagged(records, &project, repository, digest, tag)?;
                }
                Ok(outcome)
            },
        ),
        (Command::DeleteTag { repository, tag, .. }, Some(_)) => {
            manifests::delete_tag(records, &Deletion::of(at, by), repository, tag)
        }
        (Command::DeleteManifest { repository, digest, .. }, Some(_)) => {
            manifests::delete(records, &Deletion::of(at, by), repository, digest)
        }
        (Command::DeleteIf { repository, precondition, .. }, Some(_)) => {
            manifests::delete_if(records, &Deletion::of(at, by), repository, precondition)
        }
        (
            Command::ConfigureProject { .. }
            | Command::ForgetMetadata { .. }
            | Command::DeleteProject { .. }
            | Command::AssignPrimary { .. }
            | Command::PutManifest(_)
            | Command::PutManifestIf(..)
            | Command::PutChecked(_)
            | Command::DeleteTag { .. }
            | Command::DeleteManifest { .. }
            | Command::DeleteIf { .. }
            | Command::AddTag { .. }
            | Command::Policy { .. }
            | Command::Retire { .. }
            | Command::RetireSeen { .. }
            | Command::Kept { .. }
            | Command::EmptyCache { .. }
            | Command::IndexTags { .. }
            | Command::Scan { .. }
            | Command::Signatures { .. }
            | Command::Trash { .. },
            None,
        ) => Ok(Outcome::NotFound),
    }
}

/// Stores a manifest, if the precondition holds.
fn put_manifest<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    precondition: Option<&Precondition>,
    new: &NewManifest,
) -> Result<Outcome, RecordError> {
    let put = |records: &mut R| match precondition {
        Some(precondition) => manifests::put_if(records, at, precondition, new),
        None => manifests::put(records, at, new),
    };
    let outcome = quotas::within(records, at, project, |records| quotas::added(records, new), put)?;
    if outcome == Outcome::Done {
        scanning::pushed(records, at, project, new)?;
        signatures::pushed(records, project, new)?;
    }
    Ok(outcome)
}

/// What somebody wants to delete, if that is a tag or an artifact.
fn deleted_by(command: &Command) -> Option<(&RepositoryName, Reference)> {
    Some(match command {
        Command::DeleteTag { repository, tag, .. } => (repository, Reference::Tag(tag.clone())),
        Command::DeleteManifest { repository, digest, .. } => {
            (repository, Reference::Digest(*digest))
        }
        Command::DeleteIf { repository, precondition, .. } => (repository, precondition.of.clone()),
        _ => return None,
    })
}

/// The fence: the project of a command that carries an epoch, if it still has that epoch; otherwise
/// the answer for the caller.
fn fenced<R: WriteRecords>(
    records: &R,
    command: &Command,
) -> Result<Result<Option<Project>, Outcome>, RecordError> {
    let Some((name, epoch)) = command.fence() else { return Ok(Ok(None)) };
    Ok(match records.project(&name)? {
        None => Err(Outcome::NotFound),
        Some(project) if project.epoch != epoch => {
            Err(Outcome::StaleEpoch { current: project.epoch })
        }
        Some(project) => Ok(Some(project)),
    })
}

/// The next number. Numbers are never reused, because clients keep them for longer than the thing
/// they name exists.
fn next_number<R: WriteRecords>(records: &mut R, last: &[u8]) -> Result<u64, RecordError> {
    let next = records.record::<u64>(last)?.unwrap_or(0) + 1;
    records.put(last, &encode(&next)?)?;
    Ok(next)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trial;
