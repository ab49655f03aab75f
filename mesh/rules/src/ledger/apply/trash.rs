//! The trash: what is deleted goes there, and what is stored leaves it. See [`crate::ledger::trash`].

use super::quotas::Account;
use super::references;
use crate::ledger::events::Actor;
use crate::ledger::jobs::bounded;
use crate::ledger::labels::LookForLabels;
use crate::ledger::level::Level;
use crate::ledger::records::{
    BlobRecord, ContentRecord, Look, ManifestRecord, RecordError, WriteRecords, encode,
    key as records_key,
};
use crate::ledger::scanning::LookForScans;
use crate::ledger::trash::{
    AT_ONCE, LookForTrash, MOST_TAGS, TrashRecord, TrashedManifest, Why, key,
};
use crate::words::digest::Digest;
use crate::words::manifest::Referrer;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectName, RepositoryName, Tag};

/// The maximum length of the name of who deleted something, in bytes.
const LONGEST_NAME: usize = 255;

/// A deletion: when, by whom, and why.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct Deletion {
    pub(super) at: Timestamp,
    by: String,
    why: Why,
    with: Option<Digest>,
}

impl Deletion {
    /// What somebody has asked for.
    pub(in crate::ledger) fn of(at: Timestamp, by: Option<&Actor>) -> Self {
        let by = by.cloned().unwrap_or_else(Actor::mesh).name;
        Deletion { at, by: bounded(&by, LONGEST_NAME), why: Why::Deleted, with: None }
    }

    /// What the project's policy does not retain.
    pub(super) fn by_policy(at: Timestamp, by: Option<&Actor>) -> Self {
        Deletion { why: Why::NotRetained, ..Deletion::of(at, by) }
    }

    /// The deletion of what goes with a manifest.
    pub(super) fn with(&self, digest: Digest) -> Self {
        Deletion { with: Some(digest), ..self.clone() }
    }
}

/// Until when something is kept that is deleted now; `None` if it is not.
fn until<R: WriteRecords>(
    records: &R,
    at: Timestamp,
    project: &ProjectName,
) -> Result<Option<Timestamp>, RecordError> {
    if records.level()? < Level::TRASH {
        return Ok(None);
    }
    let Some(project) = records.project(project)? else { return Ok(None) };
    let time = records.trash_time(&project)?;
    let until = Timestamp(at.0.saturating_add(time.as_millis() as u64));
    Ok(Some(until).filter(|_| !time.is_zero()))
}

/// Writes a record in place of the one that is there, or removes it if it has nothing.
fn replace<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
    record: &TrashRecord,
) -> Result<(), RecordError> {
    let place = key::record(repository, digest);
    if let Some(before) = records.trashed(repository, digest)? {
        records.remove(&key::by_end(before.until, repository, digest))?;
        for (tag, _) in &before.tags {
            records.remove(&key::tagged(repository, tag))?;
        }
        if let Some(subject) = before.with {
            records.remove(&key::follower(repository, &subject, digest))?;
        }
    }
    if record.manifest.is_none() && record.tags.is_empty() {
        return records.remove(&place);
    }
    records.put(&key::by_end(record.until, repository, digest), &[])?;
    for (tag, _) in &record.tags {
        records.put(&key::tagged(repository, tag), &encode(digest)?)?;
    }
    if let Some(subject) = record.with {
        records.put(&key::follower(repository, &subject, digest), &encode(digest)?)?;
    }
    records.put(&place, &encode(record)?)
}

/// A manifest is being removed: has the trash refer to its bytes and blobs. Returns what the record has
/// of it; `None` if nothing is kept.
pub(super) fn keep<R: WriteRecords>(
    records: &mut R,
    deletion: &Deletion,
    account: &mut Account,
    repository: &RepositoryName,
    digest: &Digest,
    manifest: &ManifestRecord,
) -> Result<Option<TrashedManifest>, RecordError> {
    if until(records, deletion.at, &repository.project())?.is_none() {
        return Ok(None);
    }
    let content = records_key::content(digest);
    let shared = records.record::<ContentRecord>(&content)?;
    let mut shared = shared.unwrap_or(ContentRecord { repositories: 0, bytes: Vec::new() });
    if !manifest.bytes.is_empty() {
        // one that was recorded with its bytes
        shared.bytes.clone_from(&manifest.bytes);
    }
    shared.repositories += 1;
    let size = shared.bytes.len() as u64;
    records.put(&content, &encode(&shared)?)?;
    account.trash_gains(records, digest, size)?;
    account.trashes(1);
    for blob in &manifest.blobs {
        let link = key::link(repository, blob);
        let links = records.record::<u64>(&link)?.unwrap_or(0);
        records.put(&link, &encode(&(links + 1))?)?;
        let place = records_key::blob(blob);
        if links == 0
            && let Some(mut record) = records.record::<BlobRecord>(&place)?
        {
            record.repositories += 1;
            records.put(&place, &encode(&record)?)?;
            account.trash_gains(records, blob, record.size)?;
        }
    }
    let subject = match manifest.subject {
        Some(subject) => records
            .record::<Referrer>(&records_key::referrer(repository, &subject, digest))?
            .map(|referrer| (subject, referrer)),
        None => None,
    };
    Ok(Some(TrashedManifest {
        media_type: manifest.media_type.clone(),
        size,
        blobs: manifest.blobs.clone(),
        pushed: manifest.pushed,
        subject,
        labels: match records.level()? >= Level::LABELS {
            true => records.labels_on(repository, digest)?,
            false => Vec::new(),
        },
        scanned: records.scan_of(repository, digest)?.is_some(),
    }))
}

/// A manifest is removed, and the tags that named it: records what is kept of it.
pub(super) fn close<R: WriteRecords>(
    records: &mut R,
    deletion: &Deletion,
    repository: &RepositoryName,
    digest: &Digest,
    kept: Option<TrashedManifest>,
    tags: Vec<Tag>,
) -> Result<(), RecordError> {
    if records.level()? < Level::TRASH {
        return Ok(());
    }
    if kept.is_some() {
        return add(records, deletion, repository, digest, kept, tags);
    }
    // what was deleted of it before cannot come back without it
    match records.trashed(repository, digest)? {
        Some(before) => {
            let nothing = TrashRecord { tags: Vec::new(), manifest: None, ..before };
            replace(records, repository, digest, &nothing)
        }
        None => Ok(()),
    }
}

/// A tag was deleted.
pub(super) fn keep_tag<R: WriteRecords>(
    records: &mut R,
    deletion: &Deletion,
    repository: &RepositoryName,
    digest: &Digest,
    tag: &Tag,
) -> Result<(), RecordError> {
    add(records, deletion, repository, digest, None, vec![tag.clone()])
}

fn add<R: WriteRecords>(
    records: &mut R,
    deletion: &Deletion,
    repository: &RepositoryName,
    digest: &Digest,
    manifest: Option<TrashedManifest>,
    tags: Vec<Tag>,
) -> Result<(), RecordError> {
    let Deletion { at, by, why, with } = deletion.clone();
    let Some(until) = until(records, at, &repository.project())? else { return Ok(()) };
    for tag in &tags {
        // it comes back to what it named last
        if let Some(other) = records.last_tagged(repository, tag)?.filter(|one| one != digest) {
            names_again(records, repository, &other, tag)?;
        }
    }
    let before = records.trashed(repository, digest)?;
    let (mut all, known) = before.map_or((Vec::new(), None), |one| (one.tags, one.manifest));
    for tag in tags {
        all.retain(|(known, _)| *known != tag);
        if all.len() < MOST_TAGS {
            all.push((tag, at));
        }
    }
    let manifest = manifest.or(known);
    let record = TrashRecord { at, until, by, why, with, tags: all, manifest };
    replace(records, repository, digest, &record)
}

/// A tag names a manifest again from which it was deleted, or was deleted from another one since: the
/// record of `digest` has it no more.
pub(super) fn names_again<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
    tag: &Tag,
) -> Result<(), RecordError> {
    if records.level()? < Level::TRASH {
        return Ok(());
    }
    let Some(mut record) = records.trashed(repository, digest)? else { return Ok(()) };
    let before = record.tags.len();
    record.tags.retain(|(known, _)| known != tag);
    match record.tags.len() == before {
        true => Ok(()),
        false => replace(records, repository, digest, &record),
    }
}

/// A manifest is stored: it is not in the trash any more. Deleted tags of it stay there.
pub(super) fn taken_out<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    account: &mut Account,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), RecordError> {
    if records.level()? < Level::TRASH {
        return Ok(());
    }
    let Some(mut record) = records.trashed(repository, digest)? else { return Ok(()) };
    if let Some(manifest) = record.manifest.take() {
        release(records, at, account, repository, digest, &manifest)?;
        replace(records, repository, digest, &record)?;
    }
    Ok(())
}

/// The trash does not refer to a manifest's bytes and blobs any more.
fn release<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    account: &mut Account,
    repository: &RepositoryName,
    digest: &Digest,
    manifest: &TrashedManifest,
) -> Result<(), RecordError> {
    account.trash_loses(records, digest)?;
    account.trashes(-1);
    references::lose_content(records, digest)?;
    for blob in &manifest.blobs {
        let link = key::link(repository, blob);
        match records.record::<u64>(&link)? {
            Some(links) if links > 1 => records.put(&link, &encode(&(links - 1))?)?,
            Some(_) => {
                records.remove(&link)?;
                account.trash_loses(records, blob)?;
                references::lose_blob(records, at, blob)?;
            }
            None => {}
        }
    }
    Ok(())
}

/// Removes a record for good.
pub(super) fn discard<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    repository: &RepositoryName,
    digest: &Digest,
    record: TrashRecord,
) -> Result<(), RecordError> {
    if let Some(manifest) = &record.manifest {
        let mut account = Account::of(records, repository)?;
        release(records, at, &mut account, repository, digest, manifest)?;
        account.close(records)?;
    }
    let nothing = TrashRecord { tags: Vec::new(), manifest: None, ..record };
    replace(records, repository, digest, &nothing)
}

/// A project is going: its trash goes before it, a limited number of records at a time. Returns whether
/// there is more.
pub(super) fn leave_project<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &ProjectName,
) -> Result<bool, RecordError> {
    if records.level()? < Level::TRASH {
        return Ok(false);
    }
    let page = records.trash(project, None, None, AT_ONCE)?;
    let more = page.len() == AT_ONCE;
    for (repository, digest, record) in page {
        discard(records, at, &repository, &digest, record)?;
    }
    Ok(more)
}
