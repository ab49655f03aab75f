//! What projects have and may have: counted with each write, and kept within its limits.

use std::collections::BTreeSet;

use super::{EMPTIED_AT_ONCE, events};
use crate::ledger::command::{NewManifest, Outcome};
use crate::ledger::level::Level;
use crate::ledger::quotas::{
    LimitsRecord, LookForQuotas, Progress, ProjectBlob, QuotaChange, UsageRecord, key,
};
use crate::ledger::records::{
    BlobRecord, ContentRecord, Look, ManifestRecord, Project, RecordError, WriteRecords, decode,
    encode, key as records_key,
};
use crate::ledger::trash::{LookForTrash, TrashBlob, TrashUsage, key as trash_key};
use crate::policies::quota::{self, Limits, Usage};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectName, RepositoryName, Tag};

/// The maximum number of bytes of manifests that one entry reads to count them.
const READ_AT_ONCE: usize = 16 << 20;
/// The number of records that are read in one scan.
const PAGE: usize = 50;

/// The account of a project while one write changes what it has. Of a project that is not counted it
/// does nothing.
pub(super) struct Account {
    project: ProjectName,
    record: Option<UsageRecord>,
    changed: bool,
    /// What its trash has, and whether that changes. What only the trash has is what is not counted.
    trash: TrashUsage,
    trash_changed: bool,
}

impl Account {
    /// The account of the project of a repository.
    pub(super) fn of<R: WriteRecords>(
        records: &R,
        repository: &RepositoryName,
    ) -> Result<Self, RecordError> {
        let project = repository.project();
        let record = records.usage(&project)?;
        let trash = records.trash_usage(&project)?;
        Ok(Account { project, record, changed: false, trash, trash_changed: false })
    }

    /// What is counted, if the place is among what is.
    fn counted(&mut self, place: &[u8]) -> Option<&mut Usage> {
        let record = self.record.as_mut().filter(|record| record.progress.has(place))?;
        self.changed = true;
        Some(&mut record.used)
    }

    /// At this place a repository refers to a blob from now on, or has a manifest.
    pub(super) fn gains<R: WriteRecords>(
        &mut self,
        records: &mut R,
        place: &[u8],
        digest: &Digest,
        size: u64,
    ) -> Result<(), RecordError> {
        let blob = key::blob(&self.project, digest);
        let Some(used) = self.counted(place) else { return Ok(()) };
        let mut record = match records.record::<ProjectBlob>(&blob)? {
            Some(known) => known,
            None => {
                used.storage = used.storage.saturating_add(size);
                self.changes_trash(records, digest, |storage, size| storage.saturating_sub(size))?;
                ProjectBlob { size, repositories: 0 }
            }
        };
        record.repositories += 1;
        records.put(&blob, &encode(&record)?)
    }

    /// At this place a repository does not refer to a blob any more, or a manifest is gone.
    pub(super) fn loses<R: WriteRecords>(
        &mut self,
        records: &mut R,
        place: &[u8],
        digest: &Digest,
    ) -> Result<(), RecordError> {
        let blob = key::blob(&self.project, digest);
        let Some(used) = self.counted(place) else { return Ok(()) };
        let Some(mut record) = records.record::<ProjectBlob>(&blob)? else { return Ok(()) };
        record.repositories = record.repositories.saturating_sub(1);
        if record.repositories > 0 {
            return records.put(&blob, &encode(&record)?);
        }
        used.storage = used.storage.saturating_sub(record.size);
        records.remove(&blob)?;
        self.changes_trash(records, digest, u64::saturating_add)
    }

    /// Changes the bytes of what only the trash has, if it has a blob.
    fn changes_trash<R: WriteRecords>(
        &mut self,
        records: &R,
        digest: &Digest,
        change: impl Fn(u64, u64) -> u64,
    ) -> Result<(), RecordError> {
        if self.trash == TrashUsage::default() {
            return Ok(());
        }
        let trashed = records.record::<TrashBlob>(&trash_key::blob(&self.project, digest))?;
        if let Some(trashed) = trashed {
            self.trash.storage = change(self.trash.storage, trashed.size);
            self.trash_changed = true;
        }
        Ok(())
    }

    /// The trash of a repository refers to a blob from now on, or has a manifest.
    pub(super) fn trash_gains<R: WriteRecords>(
        &mut self,
        records: &mut R,
        digest: &Digest,
        size: u64,
    ) -> Result<(), RecordError> {
        let place = trash_key::blob(&self.project, digest);
        let mut record = match records.record::<TrashBlob>(&place)? {
            Some(known) => known,
            None => {
                if records.get(&key::blob(&self.project, digest))?.is_none() {
                    self.trash.storage = self.trash.storage.saturating_add(size);
                    self.trash_changed = true;
                }
                TrashBlob { size, repositories: 0 }
            }
        };
        record.repositories += 1;
        records.put(&place, &encode(&record)?)
    }

    /// The trash of a repository does not refer to a blob any more, or does not have a manifest.
    pub(super) fn trash_loses<R: WriteRecords>(
        &mut self,
        records: &mut R,
        digest: &Digest,
    ) -> Result<(), RecordError> {
        let place = trash_key::blob(&self.project, digest);
        let Some(mut record) = records.record::<TrashBlob>(&place)? else { return Ok(()) };
        record.repositories = record.repositories.saturating_sub(1);
        if record.repositories > 0 {
            return records.put(&place, &encode(&record)?);
        }
        if records.get(&key::blob(&self.project, digest))?.is_none() {
            self.trash.storage = self.trash.storage.saturating_sub(record.size);
            self.trash_changed = true;
        }
        records.remove(&place)
    }

    /// The trash has so many manifests more, or less.
    pub(super) fn trashes(&mut self, manifests: i64) {
        self.trash.manifests = self.trash.manifests.saturating_add_signed(manifests);
        self.trash_changed = true;
    }

    /// A repository is there that was not.
    pub(super) fn gains_repository(&mut self, place: &[u8]) {
        if let Some(used) = self.counted(place) {
            used.repositories += 1;
        }
    }

    /// A repository is gone.
    pub(super) fn loses_repository(&mut self, place: &[u8]) {
        if let Some(used) = self.counted(place) {
            used.repositories = used.repositories.saturating_sub(1);
        }
    }

    /// A tag is there that was not.
    pub(super) fn gains_tag(&mut self, place: &[u8]) {
        if let Some(used) = self.counted(place) {
            used.tags += 1;
        }
    }

    /// A tag is gone.
    pub(super) fn loses_tag(&mut self, place: &[u8]) {
        if let Some(used) = self.counted(place) {
            used.tags = used.tags.saturating_sub(1);
        }
    }

    /// Records what has changed.
    pub(super) fn close<R: WriteRecords>(self, records: &mut R) -> Result<(), RecordError> {
        if self.trash_changed {
            let place = trash_key::usage(&self.project);
            match self.trash == TrashUsage::default() {
                true => records.remove(&place)?,
                false => records.put(&place, &encode(&self.trash)?)?,
            }
        }
        match self.record.filter(|_| self.changed) {
            Some(record) => records.put(&key::usage(&self.project), &encode(&record)?),
            None => Ok(()),
        }
    }
}

/// A project is there, and has nothing. One that caches a registry is not counted.
pub(super) fn begin<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    limits: Limits,
) -> Result<(), RecordError> {
    if records.level()? < Level::QUOTAS || project.upstream.is_some() {
        return Ok(());
    }
    records.put(&key::usage(&project.name), &encode(&UsageRecord::empty())?)?;
    if !limits.is_none() {
        let record = LimitsRecord { limits, changed: at };
        records.put(&key::limits(&project.name), &encode(&record)?)?;
    }
    Ok(())
}

/// A project is gone, and had nothing any more.
pub(super) fn leave_project<R: WriteRecords>(
    records: &mut R,
    project: &ProjectName,
) -> Result<(), RecordError> {
    records.remove(&key::usage(project))?;
    records.remove(&key::limits(project))
}

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &QuotaChange,
) -> Result<Outcome, RecordError> {
    if records.level()? < Level::QUOTAS {
        return Ok(Outcome::Refused("there are no quotas at this feature level".into()));
    }
    let project = match change {
        QuotaChange::Set { project, .. } => records.project_numbered(*project)?,
        QuotaChange::Count { project } => records.project(project)?,
    };
    let Some(project) = project else { return Ok(Outcome::NotFound) };
    if project.upstream.is_some() {
        let said = format!("project {} caches a registry, and has no quota", project.name);
        return Ok(Outcome::Refused(said));
    }
    match change {
        QuotaChange::Set { limits, .. } => {
            let record = LimitsRecord { limits: *limits, changed: at };
            records.put(&key::limits(&project.name), &encode(&record)?)?;
            Ok(Outcome::Done)
        }
        QuotaChange::Count { .. } => {
            let whole = count(records, &project.name, EMPTIED_AT_ONCE)?;
            Ok(if whole { Outcome::Done } else { Outcome::Unfinished })
        }
    }
}

/// Counts up to `most` more records of a project. Returns whether all are counted.
pub(super) fn count<R: WriteRecords>(
    records: &mut R,
    project: &ProjectName,
    most: usize,
) -> Result<bool, RecordError> {
    let begun = UsageRecord { used: Usage::default(), progress: Progress::UpTo(Vec::new()) };
    let UsageRecord { used, progress } = records.usage(project)?.unwrap_or(begun);
    let Progress::UpTo(mut last) = progress else { return Ok(true) };
    // what is counted here is before `last` from the next entry on
    let record = Some(UsageRecord { used, progress: Progress::Whole });
    let trash = records.trash_usage(project)?;
    let mut account =
        Account { project: project.clone(), record, changed: true, trash, trash_changed: false };
    let (mut left, mut read) = (most, 0);
    // in the order of their keys
    let tables = [
        records_key::links_of(project),
        records_key::manifests_of(project),
        records_key::tags_of(project),
        records_key::repositories_of(project),
    ];
    let mut whole = true;
    'tables: for (number, table) in tables.iter().enumerate() {
        loop {
            if left == 0 || read >= READ_AT_ONCE {
                whole = false;
                break 'tables;
            }
            let page = records.scan(table, Some(&last), left.min(PAGE))?;
            if page.is_empty() {
                break;
            }
            for (place, value) in page {
                read += value.len();
                match number {
                    0 if trash_key::is_link(&place) => {}
                    0 | 1 => {
                        let broken = || RecordError(format!("a key of {project} has no digest"));
                        let digest = records_key::digest_of(&place).ok_or_else(broken)?;
                        let size = match number {
                            0 => size_of_blob(records, &digest)?,
                            _ => size_of_manifest(records, &digest, &value)?,
                        };
                        read += if number == 1 { size as usize } else { 0 };
                        account.gains(records, &place, &digest, size)?;
                    }
                    2 => account.gains_tag(&place),
                    _ => account.gains_repository(&place),
                }
                (last, left) = (place, left - 1);
                if read >= READ_AT_ONCE {
                    break;
                }
            }
        }
    }
    if let Some(record) = &mut account.record
        && !whole
    {
        record.progress = Progress::UpTo(last);
    }
    account.close(records)?;
    Ok(whole)
}

fn size_of_blob<R: WriteRecords>(records: &R, digest: &Digest) -> Result<u64, RecordError> {
    let blob = records.record::<BlobRecord>(&records_key::blob(digest))?;
    Ok(blob.map_or(0, |blob| blob.size))
}

/// The size of a manifest, whose record is `value`. Its bytes are in it, or in a record of their own.
fn size_of_manifest<R: WriteRecords>(
    records: &R,
    digest: &Digest,
    value: &[u8],
) -> Result<u64, RecordError> {
    let manifest: ManifestRecord = decode(value)?;
    if !manifest.bytes.is_empty() {
        return Ok(manifest.bytes.len() as u64);
    }
    let content = records.record::<ContentRecord>(&records_key::content(digest))?;
    Ok(content.map_or(0, |content| content.bytes.len() as u64))
}

/// What a manifest would add to its project.
pub(super) fn added<R: WriteRecords>(records: &R, new: &NewManifest) -> Result<Usage, RecordError> {
    added_by_all(records, &new.repository, core::slice::from_ref(new))
}

/// What manifests of one repository would add to its project.
pub(super) fn added_by_all<R: WriteRecords>(
    records: &R,
    repository: &RepositoryName,
    all: &[NewManifest],
) -> Result<Usage, RecordError> {
    let project = repository.project();
    let mut added = Usage::default();
    let mut seen = BTreeSet::new();
    for new in all {
        let manifest = (new.digest, new.bytes.len() as u64);
        let blobs = new.blobs.iter().map(|blob| (blob.digest, blob.size));
        for (digest, size) in blobs.chain([manifest]) {
            if seen.insert(digest) && !records.is_counted(&project, &digest)? {
                added.storage = added.storage.saturating_add(size);
            }
        }
    }
    let tags: BTreeSet<&Tag> = all.iter().flat_map(|new| &new.tags).collect();
    for tag in tags {
        added.tags += u64::from(records.tag(repository, tag)?.is_none());
    }
    let known = records.get(&records_key::repository(repository))?;
    added.repositories = u64::from(known.is_none() && !all.is_empty());
    Ok(added)
}

/// What another tag would add.
pub(super) fn added_by_tag<R: WriteRecords>(
    records: &R,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<Usage, RecordError> {
    let tags = u64::from(records.tag(repository, tag)?.is_none());
    Ok(Usage { tags, ..Usage::default() })
}

/// Carries out `write` if what it adds fits into the quota of the project, and tells once when
/// little is left.
pub(super) fn within<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    added: impl FnOnce(&R) -> Result<Usage, RecordError>,
    write: impl FnOnce(&mut R) -> Result<Outcome, RecordError>,
) -> Result<Outcome, RecordError> {
    let Some((limits, before)) = records.quota(&project.name)? else { return write(records) };
    if let Err(over) = quota::fits(&limits, &before, &added(records)?) {
        return Ok(Outcome::OverQuota(over.to_string()));
    }
    let outcome = write(records)?;
    if outcome == Outcome::Done
        && let Some((_, after)) = records.quota(&project.name)?
    {
        for warning in quota::warnings(&limits, &before, &after) {
            events::warn_of_quota(records, at, &project.name, &warning)?;
        }
    }
    Ok(outcome)
}
