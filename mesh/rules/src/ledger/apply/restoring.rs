//! The trash: what somebody restores or removes, and what has been there for its time.

use std::collections::BTreeSet;

use super::quotas;
use super::trash::discard;
use super::{labels, manifests, scan_queue, scanning, signatures};
use crate::ledger::command::{NewManifest, Outcome};
use crate::ledger::level::Level;
use crate::ledger::records::{
    BlobDescriptor, BlobRecord, ContentRecord, Look, Project, RecordError, WriteRecords,
    key as records_key,
};
use crate::ledger::trash::{AT_ONCE, LookForTrash, TrashChange, TrashedManifest};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{RepositoryName, Tag};

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    change: &TrashChange,
) -> Result<Outcome, RecordError> {
    if records.level()? < Level::TRASH {
        return Ok(Outcome::Refused("there is no trash at this feature level".into()));
    }
    match change {
        TrashChange::Restore { repository, digest, tag, all } => {
            if all.len() > AT_ONCE {
                return Ok(Outcome::Refused("too many artifacts".into()));
            }
            restore(records, at, project, (repository, digest, tag.as_ref()), all)
        }
        TrashChange::Empty { repository: Some(repository), digest: Some(digest), .. } => {
            if repository.project() != project.name {
                return Ok(Outcome::NotFound);
            }
            empty_one(records, at, repository, digest)
        }
        TrashChange::Empty { repository, .. } => {
            if repository.as_ref().is_some_and(|one| one.project() != project.name) {
                return Ok(Outcome::NotFound);
            }
            let page = records.trash(&project.name, repository.as_ref(), None, AT_ONCE)?;
            if page.is_empty() {
                return Ok(Outcome::NotFound);
            }
            for (repository, digest, record) in page {
                discard(records, at, &repository, &digest, record)?;
            }
            let left = records.trash(&project.name, repository.as_ref(), None, 1)?;
            Ok(if left.is_empty() { Outcome::Done } else { Outcome::Unfinished })
        }
        TrashChange::Expire { records: ended, .. } => {
            if ended.len() > AT_ONCE {
                return Ok(Outcome::Refused("too many records".into()));
            }
            let mut gone = false;
            for (repository, digest) in ended {
                let record = records.trashed(repository, digest)?;
                let ours = repository.project() == project.name;
                // it may have been deleted once more since
                if let Some(record) = record.filter(|record| ours && record.until <= at) {
                    discard(records, at, repository, digest, record)?;
                    gone = true;
                }
            }
            Ok(if gone { Outcome::Done } else { Outcome::NotFound })
        }
    }
}

/// Removes the record of a manifest, and those of what went with it: a signature of a leaked image tells
/// of it. What went with something goes before that, so that the next step finds what is left.
fn empty_one<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Outcome, RecordError> {
    if records.trashed(repository, digest)?.is_none() {
        return Ok(Outcome::NotFound);
    }
    let (mut path, mut seen, mut left) = (vec![*digest], BTreeSet::from([*digest]), AT_ONCE);
    while let Some(one) = path.last().copied() {
        let with = records.went_with(repository, &one, seen.len() + 1)?;
        if let Some(follower) = with.into_iter().find(|follower| seen.insert(*follower)) {
            path.push(follower);
            continue;
        }
        if left == 0 {
            return Ok(Outcome::Unfinished);
        }
        left -= 1;
        path.pop();
        if let Some(record) = records.trashed(repository, &one)? {
            discard(records, at, repository, &one, record)?;
        }
    }
    Ok(Outcome::Done)
}

/// Stores manifests again that the trash has, and gives them their tags. The one that is wanted gets
/// `tag`, if that is said.
fn restore<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    (repository, wanted, tag): (&RepositoryName, &Digest, Option<&Tag>),
    all: &[Digest],
) -> Result<Outcome, RecordError> {
    let (mut new, mut tagged, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for digest in all {
        let Some(record) = records.trashed(repository, digest)? else { continue };
        let mut tags = Vec::new();
        for (one, _) in &record.tags {
            let chosen = digest != wanted || tag.is_none_or(|tag| tag == one);
            let taken = records.tag(repository, one)?.is_some();
            if chosen && taken && tag.is_some() && digest == wanted {
                return Ok(Outcome::Exists);
            }
            if chosen && !taken && !tags.contains(one) {
                tags.push(one.clone());
            }
        }
        if digest == wanted && tag.is_some() && tags.is_empty() {
            return Ok(Outcome::NotFound);
        }
        match &record.manifest {
            Some(manifest) => {
                new.push(stored(records, project, repository, digest, manifest, tags)?)
            }
            None => tagged.push((*digest, tags)),
        }
        found.push((*digest, record));
    }
    if !found.iter().any(|(digest, _)| digest == wanted) {
        return Ok(Outcome::NotFound);
    }
    let more: u64 = tagged.iter().map(|(_, tags)| tags.len() as u64).sum();
    let added = |records: &R| {
        let mut added = quotas::added_by_all(records, repository, &new)?;
        added.tags += more;
        Ok(added)
    };
    quotas::within(records, at, project, added, |records| {
        for new in &new {
            manifests::put(records, at, new)?;
            scanning::pushed(records, at, project, new)?;
            signatures::pushed(records, project, new)?;
        }
        for (digest, tags) in &tagged {
            for tag in tags {
                if manifests::add_tag(records, at, repository, digest, tag)? == Outcome::Done {
                    signatures::tagged(records, project, repository, digest, tag)?;
                }
            }
        }
        for (digest, record) in &found {
            let Some(manifest) = &record.manifest else { continue };
            for label in &manifest.labels {
                // one that does not exist any more is not put on it
                labels::attach(records, repository, digest, *label)?;
            }
            if manifest.scanned {
                scan_queue::ask(records, at, project.id, repository, digest, false)?;
            }
        }
        Ok(Outcome::Done)
    })
}

/// What a push of a manifest in the trash would store.
fn stored<R: WriteRecords>(
    records: &R,
    project: &Project,
    repository: &RepositoryName,
    digest: &Digest,
    manifest: &TrashedManifest,
    tags: Vec<Tag>,
) -> Result<NewManifest, RecordError> {
    let content = records.record::<ContentRecord>(&records_key::content(digest))?;
    let broken = || RecordError(format!("the trash of {repository} has no bytes of {digest}"));
    let mut blobs = Vec::new();
    for blob in &manifest.blobs {
        let Some(known) = records.record::<BlobRecord>(&records_key::blob(blob))? else { continue };
        let BlobRecord { size, content, kept_by, .. } = known;
        blobs.push(BlobDescriptor { digest: *blob, size, content, kept_by });
    }
    Ok(NewManifest {
        epoch: project.epoch,
        repository: repository.clone(),
        digest: *digest,
        media_type: manifest.media_type.clone(),
        bytes: content.ok_or_else(broken)?.bytes,
        tags,
        blobs,
        subject: manifest.subject.clone().map(Box::new),
    })
}
