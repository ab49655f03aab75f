//! Scans of what proxy projects have cached: of each project a limited number of images, and a queue
//! with an end.

use std::collections::BTreeMap;

use super::known_images::{KnownImages, Place};
use super::scan_queue;
use crate::ledger::cached_scans::{
    LookForCachedScans, MOST_KNOWN, MOST_WAITING, begins_to_judge, key, numbers,
};
use crate::ledger::command::Outcome;
use crate::ledger::level::Level;
use crate::ledger::records::{Look, Project, RecordError, WriteRecords};
use crate::ledger::scanning::{AT_ONCE, LookForScans, key as scans_key};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectId, RepositoryName};

/// The images of which something is known, in the order in which scans were asked for.
fn list(project: ProjectId) -> KnownImages {
    KnownImages {
        all: key::all_known(project),
        count: key::count(project),
        judged: key::judged(project),
        image: scans_key::scanned,
        most: MOST_KNOWN,
    }
}

/// Puts images into the queue, as far as that has room.
pub(super) fn ask<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    repository: &RepositoryName,
    digests: &[Digest],
    first: bool,
) -> Result<Outcome, RecordError> {
    if let Some(refused) = refuses(project, digests) {
        return Ok(refused);
    }
    for digest in digests {
        let known = records.scan_of(repository, digest)?;
        let waits = known.as_ref().and_then(|known| known.wanted.as_ref());
        // one that waits already takes no other place, unless it moves forward
        let is_there = waits.is_some_and(|wanted| wanted.first || !first);
        if !is_there && !records.has_room_for_scans(project.id, first)? {
            let name = &project.name;
            let many = format!("{MOST_WAITING} scans of project {name} wait already");
            return Ok(Outcome::Refused(many));
        }
        let of_before: Vec<u64> = known.iter().flat_map(numbers).collect();
        if of_before.is_empty() {
            make_room(records, project.id)?;
            list(project.id).add(records, 1)?;
        }
        scan_queue::ask(records, at, project.id, repository, digest, first)?;
        for number in of_before {
            records.remove(&key::known(project.id, number))?;
        }
        let wanted = records.scan_of(repository, digest)?.and_then(|known| known.wanted);
        if let Some(wanted) = wanted {
            let place = scans_key::scan(repository, digest);
            records.put(&key::known(project.id, wanted.number), &place)?;
        }
    }
    Ok(Outcome::Done)
}

/// Forgets what is known of images.
pub(super) fn forget<R: WriteRecords>(
    records: &mut R,
    project: &Project,
    repository: &RepositoryName,
    digests: &[Digest],
) -> Result<Outcome, RecordError> {
    if let Some(refused) = refuses(project, digests) {
        return Ok(refused);
    }
    for digest in digests {
        forget_one(records, project.id, repository, digest)?;
    }
    Ok(Outcome::Done)
}

/// A project is about to go: forgets up to [`EMPTIED_AT_ONCE`] images, and says whether that were all
/// that it may forget at once.
pub(super) fn leave_project<R: WriteRecords>(
    records: &mut R,
    project: &Project,
) -> Result<bool, RecordError> {
    if project.upstream.is_none() || records.level()? < Level::CACHED_SCANS {
        return Ok(false);
    }
    let forget = |records: &mut R, (repository, digest): &Place| {
        forget_one(records, project.id, repository, digest)
    };
    list(project.id).leave_project(records, forget)
}

/// A project's metadata was written. What it said before this level had no effect.
pub(super) fn configured<R: WriteRecords>(
    records: &mut R,
    project: &Project,
    written: &BTreeMap<String, String>,
) -> Result<(), RecordError> {
    if records.level()? >= Level::CACHED_SCANS
        && begins_to_judge(project.upstream.is_some(), written.iter())
    {
        list(project.id).judge(records)?;
    }
    Ok(())
}

fn refuses(project: &Project, digests: &[Digest]) -> Option<Outcome> {
    if project.upstream.is_none() {
        let name = &project.name;
        return Some(Outcome::Refused(format!("project {name} caches no registry")));
    }
    (digests.len() > AT_ONCE).then(|| Outcome::Refused("too many images".into()))
}

/// Forgets the image whose scan was asked for first, if there are as many as there may be. One that
/// waits or runs stays.
fn make_room<R: WriteRecords>(records: &mut R, project: ProjectId) -> Result<(), RecordError> {
    let list = list(project);
    if !list.is_full(records)? {
        return Ok(());
    }
    for (repository, digest) in list.first(records, 2 * MOST_WAITING + 1)? {
        let known = records.scan_of(&repository, &digest)?;
        if known.is_none_or(|known| known.wanted.is_none()) {
            return forget_one(records, project, &repository, &digest);
        }
    }
    Ok(())
}

fn forget_one<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), RecordError> {
    let Some(known) = records.scan_of(repository, digest)? else { return Ok(()) };
    for number in numbers(&known) {
        records.remove(&key::known(project, number))?;
    }
    list(project).add(records, -1)?;
    scan_queue::forget(records, repository, digest)
}
