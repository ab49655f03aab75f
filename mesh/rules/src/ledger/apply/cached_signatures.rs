//! Signatures of what proxy projects have cached: of each project a limited number of images, and of
//! each image a limited number of signatures.

use std::collections::BTreeMap;

use super::known_images::{KnownImages, Place};
use super::signatures::exempting::Order;
use super::{next_number, signatures};
use crate::ledger::cached_signatures::{AT_ONCE, MOST_FOUND, MOST_KNOWN, MOST_UNKNOWN, Worth, key};
use crate::ledger::command::Outcome;
use crate::ledger::level::Level;
use crate::ledger::records::{Look, Project, RecordError, WriteRecords, encode};
use crate::ledger::signatures::{
    LookForSignatures, MOST_CHILDREN, SignatureChange, key as signatures_key,
};
use crate::policies::signatures::{
    Evidence, MOST_SIGNATURES, Policy, Seen, SignatureRecord, Signer, is_on,
};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectId, RepositoryName};

/// The maximum number of images that are looked at when one is to be forgotten.
const LOOKED_AT: usize = 200;

/// The images of whose signatures something is known.
fn list(project: ProjectId) -> KnownImages {
    KnownImages {
        all: key::all_known(project),
        count: key::count(project),
        judged: key::judged(project),
        image: signatures_key::signed,
        most: MOST_KNOWN,
    }
}

/// Applies a change of what is known of signatures: of a proxy project here.
pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    change: &SignatureChange,
) -> Result<Outcome, RecordError> {
    if project.upstream.is_none() || records.level()? < Level::CACHED_SIGNATURES {
        return signatures::change(records, at, project, change);
    }
    match change {
        SignatureChange::FoundCached { repository, subject, children, evidence } => {
            found(records, at, project, (repository, subject), children, evidence)
        }
        SignatureChange::ForgetCached { repository, digests } => {
            forget(records, project, repository, digests)
        }
        SignatureChange::Exempt { .. } | SignatureChange::ExemptIndex { .. } => {
            exempt(records, at, project, change)
        }
        change => signatures::change(records, at, project, change),
    }
}

/// Serves an image without signatures for a while, or not any more. The ledger does not know whether it
/// is cached.
fn exempt<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    change: &SignatureChange,
) -> Result<Outcome, RecordError> {
    let Some(order) = Order::of(change) else { return Ok(Outcome::NotFound) };
    match order.carry_out(records, at)? {
        Err(refused) => Ok(refused),
        Ok(known) => {
            keep(records, at, project.id, (order.repository, order.digest), &known)?;
            signatures::count_change(records)?;
            Ok(Outcome::Done)
        }
    }
}

/// Records what the upstream has about an image. What was verified before stays, also if the upstream
/// does not show it any more.
fn found<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: &Project,
    (repository, subject): (&RepositoryName, &Digest),
    children: &[Digest],
    evidence: &[Evidence],
) -> Result<Outcome, RecordError> {
    let too_much = evidence.len() > MOST_FOUND
        || evidence.iter().any(|one| one.signatures.len() > MOST_SIGNATURES)
        || children.len() > MOST_CHILDREN;
    if too_much {
        return Ok(Outcome::Refused("too many signatures, or too many manifests".into()));
    }
    let mut known = records.signatures_of(repository, subject)?;
    let before = known.clone();
    let mut new = evidence.to_vec();
    let older: Vec<&Evidence> = known.evidence.iter().collect();
    for one in &mut new {
        signatures::date(records, at, project.id, one, &older)?;
    }
    known.evidence = joined(known.evidence, new);
    let is_known = known.evidence.iter().any(Evidence::is_known);
    if !children.is_empty() {
        known.children = children.to_vec();
    }
    if known == before {
        return Ok(Outcome::Done);
    }
    if !keep(records, at, project.id, (repository, subject), &known)? {
        return Ok(Outcome::Done);
    }
    if is_known || known.exempt.is_some() {
        signatures::inherit(records, repository, subject, &known.children)?;
    }
    // of a project without a policy edges need not hear: its metadata they follow anyhow
    if Policy::of(&project.metadata).is_some() {
        signatures::count_change(records)?;
    }
    Ok(Outcome::Done)
}

/// What was known, with what was found now. What was verified of a manifest is true of it for good: a
/// blob that is away now makes nothing wrong.
fn joined(known: Vec<Evidence>, mut new: Vec<Evidence>) -> Vec<Evidence> {
    let is_good = |seen: &&Seen| seen.signature.is_known();
    let mut all: Vec<Evidence> = known.into_iter().filter(Evidence::is_known).collect();
    for one in &mut new {
        let same = |old: &&Evidence| (old.manifest, &old.tag) == (one.manifest, &one.tag);
        let Some(old) = all.iter().find(same) else { continue };
        let is_new =
            |old: &&Seen| !one.signatures.iter().any(|seen| seen.signature.is_same(&old.signature));
        let lost = old.signatures.iter().filter(is_good).filter(is_new);
        let lost: Vec<Seen> = lost.cloned().collect();
        one.signatures.extend(lost);
    }
    all.retain(|old| {
        let is_there = |seen: &Seen| {
            let mut now = new.iter().flat_map(|one| &one.signatures);
            now.any(|one| one.signature.is_same(&seen.signature))
        };
        !old.signatures.iter().filter(is_good).all(is_there)
    });
    let mut room = MOST_UNKNOWN;
    new.retain(|one| {
        let stays = one.is_known() || room > 0;
        room -= usize::from(stays && !one.is_known());
        stays
    });
    all.append(&mut new);
    signatures::bound(&mut all);
    all
}

/// Keeps what is known of an image, and makes room for it. Nothing is kept if all that there is room
/// for is worth more.
fn keep<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: ProjectId,
    (repository, digest): (&RepositoryName, &Digest),
    record: &SignatureRecord,
) -> Result<bool, RecordError> {
    let is_nothing = record.evidence.is_empty() && record.exempt.is_none();
    if is_nothing {
        forget_one(records, project, repository, digest)?;
        return Ok(true);
    }
    let signers = records.trusted(project)?.signers;
    let worth = Worth::of(record, &signers, at);
    let place = key::number(repository, digest);
    match records.record::<(Worth, u64)>(&place)? {
        Some(before) => records.remove(&key::known(project, before))?,
        None => {
            if !make_room(records, at, project, &signers, worth)? {
                return Ok(false);
            }
            list(project).add(records, 1)?;
        }
    }
    let number = next_number(records, &key::last())?;
    records.put(&place, &encode(&(worth, number))?)?;
    let of_record = signatures_key::signatures(repository, digest);
    records.put(&key::known(project, (worth, number)), &of_record)?;
    signatures::keep(records, repository, digest, record)?;
    Ok(true)
}

/// Forgets what is known of images.
fn forget<R: WriteRecords>(
    records: &mut R,
    project: &Project,
    repository: &RepositoryName,
    digests: &[Digest],
) -> Result<Outcome, RecordError> {
    if digests.len() > AT_ONCE {
        return Ok(Outcome::Refused("too many images".into()));
    }
    for digest in digests {
        forget_one(records, project.id, repository, digest)?;
    }
    signatures::count_change(records)?;
    Ok(Outcome::Done)
}

/// A project is about to go: forgets up to [`EMPTIED_AT_ONCE`] images, and says whether that were all
/// that it may forget at once.
pub(super) fn leave_project<R: WriteRecords>(
    records: &mut R,
    project: &Project,
) -> Result<bool, RecordError> {
    if project.upstream.is_none() || records.level()? < Level::CACHED_SIGNATURES {
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
    if records.level()? >= Level::CACHED_SIGNATURES && project.upstream.is_some() && is_on(written)
    {
        list(project.id).judge(records)?;
    }
    Ok(())
}

/// Makes room for something of this worth, if there are as many as there may be: forgets what is worth
/// least, and of that about which something was found first. `false` if all is worth more. What an image
/// was worth when something was found about it counts, and for the first [`LOOKED_AT`] what it is worth
/// now.
fn make_room<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: ProjectId,
    signers: &[Signer],
    worth: Worth,
) -> Result<bool, RecordError> {
    let list = list(project);
    if !list.is_full(records)? {
        return Ok(true);
    }
    let mut least = None;
    for image in list.first(records, LOOKED_AT)? {
        let of_it = Worth::of(&records.signatures_of(&image.0, &image.1)?, signers, at);
        if least.as_ref().is_none_or(|(least, _)| of_it < *least) {
            least = Some((of_it, image));
        }
        if of_it == Worth::Nothing {
            break;
        }
    }
    match least {
        Some((of_it, _)) if of_it > worth => Ok(false),
        Some((_, (repository, digest))) => {
            forget_one(records, project, &repository, &digest)?;
            Ok(true)
        }
        None => Ok(true),
    }
}

fn forget_one<R: WriteRecords>(
    records: &mut R,
    project: ProjectId,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), RecordError> {
    let place = key::number(repository, digest);
    let Some(number) = records.record::<(Worth, u64)>(&place)? else { return Ok(()) };
    signatures::forget(records, repository, digest, None)?;
    records.remove(&place)?;
    records.remove(&key::known(project, number))?;
    list(project).add(records, -1)
}
