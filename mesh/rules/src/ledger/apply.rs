//! The one function that changes the ledger: pure and deterministic. Same records, same entry: same records, same outcome, on every node.

use crate::ledger::command::{Command, Envelope, Outcome};
use crate::ledger::level::Level;
use crate::ledger::records::{
    BlobDescriptor, BlobRecord, Invitation, Look, ManifestRecord, MeshRecord, NodeRecord, Project, RecordError,
    Repository, Role, TagRecord, UpstreamRecord, WriteRecords, decode, encode, key,
};
use crate::proxies::proxy::ProxyRules;
use crate::words::digest::Digest;
use crate::words::manifest::Referrer;
use crate::words::moment::Timestamp;
use crate::words::names::{Epoch, OperationId, ProjectId, ProjectName, RepositoryName, Revision, Tag, UpstreamId};
use crate::words::secret::Secret;

/// How many answers are kept for retries of the same operation.
pub const REMEMBERED_OPERATIONS: u64 = 8192;

/// So many tags and manifests of a cache go with one entry: everything else waits while an entry is applied, and read leases run meanwhile.
pub const EMPTIED_AT_ONCE: usize = 500;

/// Applies one entry. An operation that was applied before changes nothing and gets its first answer again; one that was decided under an older epoch was
/// not applied.
pub fn apply<R: WriteRecords>(
    records: &mut R,
    revision: Revision,
    envelope: &Envelope,
) -> Result<Outcome, RecordError> {
    let operation = key::operation(envelope.operation);
    if let Some(outcome) = records.record::<Outcome>(&operation)? {
        return Ok(outcome);
    }
    let outcome = perform(records, envelope.at, &envelope.command)?;
    if matches!(outcome, Outcome::StaleEpoch { .. }) && records.level()? >= Level::ROLES {
        // nothing took effect, and the same operation is to be decided anew under the next epoch: with another id, one that did take effect unseen
        // would be done twice
        return Ok(outcome);
    }
    records.put(&operation, &encode(&outcome)?)?;
    records.put(&key::operation_order(revision), &encode(&envelope.operation)?)?;
    forget_old_operations(records, revision)?;
    Ok(outcome)
}

fn forget_old_operations<R: WriteRecords>(records: &mut R, revision: Revision) -> Result<(), RecordError> {
    let Some(oldest_kept) = revision.0.checked_sub(REMEMBERED_OPERATIONS) else { return Ok(()) };
    for (order, id) in records.scan(&key::operation_orders(), None, 2)? {
        if order < key::operation_order(Revision(oldest_kept)) {
            records.remove(&key::operation(decode::<OperationId>(&id)?))?;
            records.remove(&order)?;
        }
    }
    Ok(())
}

fn perform<R: WriteRecords>(records: &mut R, at: Timestamp, command: &Command) -> Result<Outcome, RecordError> {
    match command {
        Command::FormMesh { mesh, token_secret, administrator: (name, user), nodes } => {
            if records.get(&key::mesh())?.is_some() {
                return Ok(Outcome::Exists);
            }
            let record = MeshRecord { id: *mesh, formed: at, token_secret: token_secret.clone() };
            records.put(&key::mesh(), &encode(&record)?)?;
            records.put(&key::user(name), &encode(user)?)?;
            for node in nodes {
                records.put(&key::node(node.id), &encode(node)?)?;
            }
            Ok(Outcome::Done)
        }
        Command::Invite { secret_hash, expires, role, nodes } => {
            let invitation = Invitation { expires: *expires, role: *role, left: *nodes };
            records.put(&key::invitation(secret_hash), &encode(&invitation)?)?;
            Ok(Outcome::Done)
        }
        Command::Join { secret_hash, node } => join(records, at, secret_hash, node),
        Command::RemoveNode { id } => match records.record::<NodeRecord>(&key::node(*id))? {
            None => Ok(Outcome::NotFound),
            Some(node) if node.role != Role::Edge => Ok(Outcome::Refused(format!(
                "{} is a replica, which cannot be taken out by command yet; stop it, and the others go on without it",
                node.name
            ))),
            Some(_) => {
                records.remove(&key::node(*id))?;
                records.put(&key::removed(*id), &encode(&at)?)?;
                Ok(Outcome::Done)
            }
        },
        Command::MoveNode { node } => {
            if records.level()? >= Level::ROLES
                && let Some(reason) = unfit(records, node)?
            {
                return Ok(Outcome::Refused(reason));
            }
            match records.record::<NodeRecord>(&key::node(node.id))? {
                None => return Ok(Outcome::NotFound),
                Some(known) if known.role != node.role => {
                    return Ok(Outcome::Refused(format!(
                        "{} joined as {} and cannot become {}; join anew with another data_dir",
                        known.name,
                        known.role.name(),
                        node.role.name()
                    )));
                }
                Some(_) => {}
            }
            records.put(&key::node(node.id), &encode(node)?)?;
            Ok(Outcome::Done)
        }
        Command::CreateProject { name, public, durability, home, upstream, proxy, metadata } => {
            if records.project(name)?.is_some() {
                return Ok(Outcome::Exists);
            }
            if let Some(id) = upstream
                && records.get(&key::upstream(*id))?.is_none()
            {
                return Ok(Outcome::NotFound);
            }
            let project = Project {
                id: ProjectId(next_number(records, &key::last_project())?),
                name: name.clone(),
                public: *public,
                durability: *durability,
                home: *home,
                primary: *home,
                epoch: Epoch::FIRST,
                created: at,
                upstream: *upstream,
                proxy: ProxyRules::default().changed(proxy),
                metadata: metadata.clone(),
            };
            records.put(&key::project(name), &encode(&project)?)?;
            Ok(Outcome::Done)
        }
        Command::CreateUpstream { name, kind, url, description, credentials } => {
            if records.upstreams()?.iter().any(|u| u.name == *name) {
                return Ok(Outcome::Exists);
            }
            let id = UpstreamId(next_number(records, &key::last_upstream())?);
            let record = UpstreamRecord {
                id,
                name: name.clone(),
                kind: kind.clone(),
                url: url.clone(),
                description: description.clone(),
                credentials: credentials.clone(),
                created: at,
            };
            records.put(&key::upstream(id), &encode(&record)?)?;
            Ok(Outcome::Done)
        }
        Command::ChangeUpstream { was, becomes } => change_upstream(records, was, becomes),
        Command::DeleteUpstream { id } => {
            if records.get(&key::upstream(*id))?.is_none() {
                return Ok(Outcome::NotFound);
            }
            if let Some(user) = records.projects()?.into_iter().find(|p| p.upstream == Some(*id)) {
                return Ok(Outcome::Refused(format!(
                    "project {} caches this registry; delete the project first",
                    user.name
                )));
            }
            records.remove(&key::upstream(*id))?;
            Ok(Outcome::Done)
        }
        Command::ConfigureProject { name, epoch, public, durability, proxy, metadata } => {
            let mut project = match fenced(records, name, *epoch)? {
                Ok(project) => project,
                Err(outcome) => return Ok(outcome),
            };
            project.public = public.unwrap_or(project.public);
            project.durability = durability.unwrap_or(project.durability);
            project.proxy = project.proxy.changed(proxy);
            project.metadata.extend(metadata.clone());
            records.put(&key::project(name), &encode(&project)?)?;
            Ok(Outcome::Done)
        }
        Command::DeleteProject { name, epoch } => {
            let project = match fenced(records, name, *epoch)? {
                Ok(project) => project,
                Err(outcome) => return Ok(outcome),
            };
            if project.upstream.is_some() {
                empty(records, name, EMPTIED_AT_ONCE)?;
            }
            if !records.scan(&key::repositories_of(name), None, 1)?.is_empty() {
                return Ok(match project.upstream {
                    Some(_) => Outcome::Unfinished,
                    None => Outcome::Refused(format!("project {name} still has repositories; delete them first")),
                });
            }
            records.remove(&key::project(name))?;
            Ok(Outcome::Done)
        }
        Command::AssignPrimary { project, node, expect_epoch } => {
            let mut record = match fenced(records, project, *expect_epoch)? {
                Ok(record) => record,
                Err(outcome) => return Ok(outcome),
            };
            if records.get(&key::node(*node))?.is_none() {
                return Ok(Outcome::Refused(format!("node {node} is not a member")));
            }
            record.primary = *node;
            record.epoch = record.epoch.next();
            records.put(&key::project(project), &encode(&record)?)?;
            Ok(Outcome::Done)
        }
        Command::PutManifest { epoch, repository, digest, media_type, bytes, tags, blobs, subject } => {
            if let Err(outcome) = fenced(records, &repository.project(), *epoch)? {
                return Ok(outcome);
            }
            let manifest = ManifestRecord {
                media_type: media_type.clone(),
                bytes: bytes.clone(),
                blobs: blobs.iter().map(|b| b.digest).collect(),
                subject: subject.as_ref().map(|pair| pair.0),
                pushed: at,
            };
            put_manifest(records, at, repository, digest, manifest, blobs, subject.as_deref())?;
            for tag in tags {
                records.put(&key::tag(repository, tag), &encode(&TagRecord { digest: *digest, pushed: at })?)?;
            }
            Ok(Outcome::Done)
        }
        Command::DeleteTag { epoch, repository, tag } => {
            if let Err(outcome) = fenced(records, &repository.project(), *epoch)? {
                return Ok(outcome);
            }
            if records.tag(repository, tag)?.is_none() {
                return Ok(Outcome::NotFound);
            }
            records.remove(&key::tag(repository, tag))?;
            Ok(Outcome::Done)
        }
        Command::DeleteManifest { epoch, repository, digest } => {
            if let Err(outcome) = fenced(records, &repository.project(), *epoch)? {
                return Ok(outcome);
            }
            delete_manifest(records, repository, digest)
        }
        Command::RaiseLevel { level, token_secret } => raise_level(records, *level, token_secret),
    }
}

fn raise_level<R: WriteRecords>(
    records: &mut R,
    level: Level,
    token_secret: &Secret<Vec<u8>>,
) -> Result<Outcome, RecordError> {
    if level > Level::NEWEST {
        let reason = "this build does not support the feature level that the mesh was raised to; start a newer one";
        return Err(RecordError(reason.into()));
    }
    let current = records.level()?;
    if level <= current {
        return Ok(Outcome::Exists);
    }
    let Some(mesh) = records.record::<MeshRecord>(&key::mesh())? else { return Ok(Outcome::NotFound) };
    records.put(&key::level(), &encode(&level)?)?;
    if current < Level::ROLES && !token_secret.expose().is_empty() {
        records.put(&key::mesh(), &encode(&MeshRecord { token_secret: token_secret.clone(), ..mesh })?)?;
    }
    Ok(Outcome::Done)
}

/// Why `node` cannot be a member with this record, whoever says so.
fn unfit<R: WriteRecords>(records: &R, node: &NodeRecord) -> Result<Option<String>, RecordError> {
    if let Err(reason) = node.check() {
        return Ok(Some(reason.into()));
    }
    if let Some(other) = records.nodes()?.into_iter().find(|n| n.name == node.name && n.id != node.id) {
        return Ok(Some(format!("a node called {} is a member already; set another `name`", other.name)));
    }
    Ok(None)
}

/// The number after the last one, which is never given out again: clients keep numbers for longer than what they name lives.
fn next_number<R: WriteRecords>(records: &mut R, last: &[u8]) -> Result<u64, RecordError> {
    let next = records.record::<u64>(last)?.unwrap_or(0) + 1;
    records.put(last, &encode(&next)?)?;
    Ok(next)
}

/// The fence: the project, if `epoch` is the one of its primary now; else what the caller is to be told.
fn fenced<R: WriteRecords>(
    records: &R,
    name: &ProjectName,
    epoch: Epoch,
) -> Result<Result<Project, Outcome>, RecordError> {
    Ok(match records.project(name)? {
        None => Err(Outcome::NotFound),
        Some(project) if project.epoch != epoch => Err(Outcome::StaleEpoch { current: project.epoch }),
        Some(project) => Ok(project),
    })
}

fn join<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    secret_hash: &Digest,
    node: &NodeRecord,
) -> Result<Outcome, RecordError> {
    let invitation = key::invitation(secret_hash);
    let known = records.record::<Invitation>(&invitation)?;
    if let Err(reason) = Invitation::lets_in(known.as_ref(), node.role, at) {
        return Ok(Outcome::Refused(reason));
    }
    if records.level()? >= Level::ROLES {
        if records.get(&key::node(node.id))?.is_some() || records.get(&key::removed(node.id))?.is_some() {
            return Ok(Outcome::Refused(
                "this identity was used before; run `atoll join` with an empty data_dir".into(),
            ));
        }
        if let Some(reason) = unfit(records, node)? {
            return Ok(Outcome::Refused(reason));
        }
    }
    if let Some(other) = records.nodes()?.into_iter().find(|n| n.name == node.name && n.id != node.id) {
        return Ok(Outcome::Refused(format!("a node called {} is a member already; set another `name`", other.name)));
    }
    match known {
        Some(known) if known.left > 1 => {
            records.put(&invitation, &encode(&Invitation { left: known.left - 1, ..known })?)?;
        }
        _ => records.remove(&invitation)?,
    }
    records.put(&key::node(node.id), &encode(node)?)?;
    Ok(Outcome::Done)
}

fn change_upstream<R: WriteRecords>(
    records: &mut R,
    was: &UpstreamRecord,
    becomes: &UpstreamRecord,
) -> Result<Outcome, RecordError> {
    let known = records.upstreams()?;
    match known.iter().find(|u| u.id == was.id) {
        None => return Ok(Outcome::NotFound),
        Some(now) if now != was => {
            return Ok(Outcome::Refused(format!(
                "registry {} was changed by somebody else just now; ask again",
                was.id
            )));
        }
        Some(_) => {}
    }
    if known.iter().any(|u| u.id != was.id && u.name == becomes.name) {
        return Ok(Outcome::Exists);
    }
    let record = UpstreamRecord { id: was.id, created: was.created, ..becomes.clone() };
    records.put(&key::upstream(was.id), &encode(&record)?)?;
    Ok(Outcome::Done)
}

fn put_manifest<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    repository: &RepositoryName,
    digest: &Digest,
    mut manifest: ManifestRecord,
    blobs: &[BlobDescriptor],
    subject: Option<&(Digest, Referrer)>,
) -> Result<(), RecordError> {
    let place = key::manifest(repository, digest);
    let known = records.record::<ManifestRecord>(&place)?;
    let linked = known.as_ref().map_or(&[][..], |known| &known.blobs);
    let new = |blob: &Digest| !linked.contains(blob);
    // what is linked stays so; an upstream may have shown blobs since that it did not show at first
    manifest.blobs = linked.iter().chain(manifest.blobs.iter().filter(|blob| new(blob))).copied().collect();
    records.put(&place, &encode(&manifest)?)?;
    if known.is_none() {
        let repository_key = key::repository(repository);
        let mut repository_record =
            records.record::<Repository>(&repository_key)?.unwrap_or(Repository { created: at, manifests: 0 });
        repository_record.manifests += 1;
        records.put(&repository_key, &encode(&repository_record)?)?;
    }
    for blob in blobs.iter().filter(|blob| new(&blob.digest)) {
        let link = key::link(repository, &blob.digest);
        let links = records.record::<u64>(&link)?.unwrap_or(0);
        records.put(&link, &encode(&(links + 1))?)?;
        if links == 0 {
            let blob_key = key::blob(&blob.digest);
            let known = records.record::<BlobRecord>(&blob_key)?;
            // what nobody referred to any more is known anew
            let mut record = known.filter(|known| known.repositories > 0).unwrap_or(BlobRecord {
                size: blob.size,
                content: None,
                repositories: 0,
                kept_by: Vec::new(),
            });
            record.repositories += 1;
            if let Some(content) = blob.content {
                // a primary has it from nodes that have hashed the bytes; an upstream's manifest only says how many there are
                (record.size, record.content) = (blob.size, Some(content));
            }
            if !blob.kept_by.is_empty() {
                record.kept_by.clone_from(&blob.kept_by);
            }
            records.put(&blob_key, &encode(&record)?)?;
        }
    }
    if let Some((subject, referrer)) = subject {
        records.put(&key::referrer(repository, subject, digest), &encode(referrer)?)?;
    }
    Ok(())
}

fn delete_manifest<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Outcome, RecordError> {
    let Some(manifest) = records.manifest(repository, digest)? else { return Ok(Outcome::NotFound) };
    records.remove(&key::manifest(repository, digest))?;
    for (tag_key, tag) in records.records::<TagRecord>(&key::tags(repository))? {
        if tag.digest == *digest {
            records.remove(&tag_key)?;
        }
    }
    for blob in &manifest.blobs {
        let link = key::link(repository, blob);
        match records.record::<u64>(&link)? {
            Some(links) if links > 1 => records.put(&link, &encode(&(links - 1))?)?,
            _ => {
                records.remove(&link)?;
                let blob_key = key::blob(blob);
                if let Some(mut record) = records.record::<BlobRecord>(&blob_key)? {
                    record.repositories = record.repositories.saturating_sub(1);
                    records.put(&blob_key, &encode(&record)?)?;
                }
            }
        }
    }
    if let Some(subject) = &manifest.subject {
        records.remove(&key::referrer(repository, subject, digest))?;
    }
    let repository_key = key::repository(repository);
    match records.record::<Repository>(&repository_key)? {
        Some(mut record) if record.manifests > 1 => {
            record.manifests -= 1;
            records.put(&repository_key, &encode(&record)?)?;
        }
        _ => records.remove(&repository_key)?,
    }
    Ok(Outcome::Done)
}

/// Takes up to `most` tags and manifests out of a project, repository by repository. Tags go first, so that none names a manifest that is gone.
fn empty<R: WriteRecords>(records: &mut R, project: &ProjectName, most: usize) -> Result<(), RecordError> {
    let mut left = most;
    while left > 0 {
        let Some((place, _)) = records.scan(&key::repositories_of(project), None, 1)?.pop() else { return Ok(()) };
        let broken = |what: &dyn std::fmt::Display| RecordError(format!("a repository of {project}: {what}"));
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
            let digest = key::digest_of(&place).ok_or_else(|| broken(&"a manifest's key has no digest"))?;
            delete_manifest(records, &repository, &digest)?;
            left -= 1;
        }
    }
    Ok(())
}

/// The names in a page of a repository's tags: up to `limit` after `last`, in order.
pub fn tags_page<R: Look + ?Sized>(
    records: &R,
    repository: &RepositoryName,
    last: Option<&Tag>,
    limit: usize,
) -> Result<Vec<String>, RecordError> {
    let after = last.map(|tag| key::tag(repository, tag));
    let pairs = records.scan(&key::tags(repository), after.as_deref(), limit)?;
    Ok(pairs.iter().map(|(k, _)| key::tag_of(k)).collect())
}

#[cfg(test)]
mod tests;
