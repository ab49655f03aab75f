//! Manifests and tags: put, deleted, and the blobs that they link.

use std::collections::BTreeSet;

use super::quotas::Account;
use super::trash::{self, Deletion};
use super::{collecting, labels, references, scan_queue, signatures};
use crate::ledger::command::{NewManifest, Outcome};
use crate::ledger::level::Level;
use crate::ledger::policies::key as policies_key;
use crate::ledger::precondition::Precondition;
use crate::ledger::records::{
    BlobRecord, ContentRecord, Look, ManifestRecord, RecordError, Repository, TagIndex, TagRecord,
    WriteRecords, decode, encode, key,
};
use crate::policies::signatures::is_evidence;
use crate::words::digest::Digest;
use crate::words::fallback::tags_about;
use crate::words::manifest::{MADE_BY, Referrer};
use crate::words::moment::Timestamp;
use crate::words::names::{BadName, NodeId, Reference, RepositoryName, Tag};

/// What a reference names now.
fn named<R: WriteRecords>(
    records: &R,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Option<Digest>, RecordError> {
    Ok(match reference {
        Reference::Tag(tag) => records.tag(repository, tag)?.map(|tag| tag.digest),
        Reference::Digest(digest) => records.has_manifest(repository, digest)?.then_some(*digest),
    })
}

/// Stores a manifest and moves its tags, if the precondition holds.
pub(super) fn put_if<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    precondition: &Precondition,
    new: &NewManifest,
) -> Result<Outcome, RecordError> {
    let current = named(records, &new.repository, &precondition.of)?;
    if !precondition.holds(current.as_ref()) {
        return Ok(Outcome::PreconditionFailed);
    }
    put(records, at, new)
}

/// Stores a manifest and moves its tags to it.
pub(in crate::ledger) fn put<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    new: &NewManifest,
) -> Result<Outcome, RecordError> {
    store(records, at, new)?;
    for tag in &new.tags {
        set_tag(records, &new.repository, tag, &TagRecord { digest: new.digest, pushed: at })?;
    }
    Ok(Outcome::Done)
}

/// Gives a manifest that is there another tag. A tag that exists stays where it is.
pub(super) fn add_tag<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    repository: &RepositoryName,
    digest: &Digest,
    tag: &Tag,
) -> Result<Outcome, RecordError> {
    if !records.has_manifest(repository, digest)? {
        return Ok(Outcome::NotFound);
    }
    if records.tag(repository, tag)?.is_some() {
        return Ok(Outcome::Exists);
    }
    set_tag(records, repository, tag, &TagRecord { digest: *digest, pushed: at })?;
    Ok(Outcome::Done)
}

/// Whether the records have the form that they have from the level of caches on.
fn is_indexed<R: WriteRecords>(records: &R) -> Result<bool, RecordError> {
    Ok(records.level()? >= Level::CACHES)
}

/// Moves a tag, and its entry in the index of tags by their manifests.
pub(in crate::ledger) fn set_tag<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    tag: &Tag,
    record: &TagRecord,
) -> Result<(), RecordError> {
    let place = key::tag(repository, tag);
    if is_indexed(records)? {
        let before = records.tag(repository, tag)?;
        if before.is_none() {
            let mut account = Account::of(records, repository)?;
            account.gains_tag(&place);
            account.close(records)?;
        }
        if let Some(before) = before.filter(|before| before.digest != record.digest) {
            records.remove(&key::named(repository, &before.digest, tag))?;
        }
        records.put(&key::named(repository, &record.digest, tag), &[])?;
    }
    trash::names_again(records, repository, &record.digest, tag)?;
    records.put(&place, &encode(record)?)
}

/// Puts the tags of a repository that were set below the level of caches into the index, at most
/// `most` at a time. Returns whether all are in it.
pub(super) fn index_tags<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    most: usize,
) -> Result<bool, RecordError> {
    let place = key::tag_index(repository);
    if records.get(&key::repository(repository))?.is_none() {
        return Ok(true);
    }
    let after = match records.record::<TagIndex>(&place)? {
        Some(TagIndex::Whole) => return Ok(true),
        Some(TagIndex::UpTo(tag)) => Some(key::tag(repository, &tag)),
        None => None,
    };
    let tags = records.scan(&key::tags(repository), after.as_deref(), most)?;
    let mut last = None;
    for (tag, record) in &tags {
        let broken = |e: BadName| RecordError(format!("a tag of {repository}: {e}"));
        let tag: Tag = key::tag_of(tag).parse().map_err(broken)?;
        let record: TagRecord = decode(record)?;
        records.put(&key::named(repository, &record.digest, &tag), &[])?;
        last = Some(tag);
    }
    let index = match last {
        Some(last) if tags.len() >= most => TagIndex::UpTo(last),
        _ => TagIndex::Whole,
    };
    records.put(&place, &encode(&index)?)?;
    Ok(index == TagIndex::Whole)
}

fn store<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    new: &NewManifest,
) -> Result<(), RecordError> {
    let NewManifest { repository, digest, blobs, .. } = new;
    let indexed = is_indexed(records)?;
    let mut account = Account::of(records, repository)?;
    let mut manifest = ManifestRecord {
        media_type: new.media_type.clone(),
        bytes: if indexed { Vec::new() } else { new.bytes.clone() },
        blobs: blobs.iter().map(|b| b.digest).collect(),
        subject: new.subject.as_ref().map(|pair| pair.0),
        pushed: at,
    };
    let place = key::manifest(repository, digest);
    let known = records.record::<ManifestRecord>(&place)?;
    let linked = known.as_ref().map_or(&[][..], |known| &known.blobs);
    let already: BTreeSet<&Digest> = linked.iter().collect();
    let unlinked = |blob: &Digest| !already.contains(blob);
    // blobs that are linked stay linked; the upstream may by now have shown blobs that it did not
    // show at first
    manifest.blobs =
        linked.iter().chain(manifest.blobs.iter().filter(|blob| unlinked(blob))).copied().collect();
    if indexed && let Some(known) = &known {
        manifest.pushed = known.pushed;
    }
    if !indexed || known.as_ref() != Some(&manifest) {
        records.put(&place, &encode(&manifest)?)?;
    }
    // one that was recorded with its bytes below this level is counted from now on
    if indexed && known.as_ref().is_none_or(|known| !known.bytes.is_empty()) {
        let content = key::content(digest);
        let shared = records.record::<ContentRecord>(&content)?;
        let repositories = shared.map_or(0, |shared| shared.repositories) + 1;
        let shared = ContentRecord { repositories, bytes: new.bytes.clone() };
        records.put(&content, &encode(&shared)?)?;
    }
    if known.is_none() {
        account.gains(records, &place, digest, new.bytes.len() as u64)?;
        let repository_key = key::repository(repository);
        let repository_record = records.record::<Repository>(&repository_key)?;
        if repository_record.is_none() {
            account.gains_repository(&repository_key);
        }
        if indexed && repository_record.is_none() {
            // it has no tags yet that could be missing
            records.put(&key::tag_index(repository), &encode(&TagIndex::Whole)?)?;
        }
        let mut repository_record =
            repository_record.unwrap_or(Repository { created: at, manifests: 0 });
        repository_record.manifests += 1;
        records.put(&repository_key, &encode(&repository_record)?)?;
    }
    for blob in blobs.iter().filter(|blob| unlinked(&blob.digest)) {
        let link = key::link(repository, &blob.digest);
        let links = records.record::<u64>(&link)?.unwrap_or(0);
        records.put(&link, &encode(&(links + 1))?)?;
        if links == 0 {
            let blob_key = key::blob(&blob.digest);
            let known = records.record::<BlobRecord>(&blob_key)?;
            // a blob that no manifest refers to any more gets a new record
            let mut record = known.filter(|known| known.repositories > 0).unwrap_or(BlobRecord {
                size: blob.size,
                content: None,
                repositories: 0,
                kept_by: Vec::new(),
            });
            record.repositories += 1;
            collecting::is_no_garbage(records, &blob.digest)?;
            if let Some(content) = blob.content {
                // a primary has these from nodes that have hashed the bytes; an upstream's manifest
                // has only the size
                (record.size, record.content) = (blob.size, Some(content));
            }
            if !blob.kept_by.is_empty() {
                record.kept_by.clone_from(&blob.kept_by);
            }
            records.put(&blob_key, &encode(&record)?)?;
            account.gains(records, &link, &blob.digest, record.size)?;
        }
    }
    if let Some((subject, referrer)) = new.subject.as_deref() {
        records.put(&key::referrer(repository, subject, digest), &encode(referrer)?)?;
    }
    trash::taken_out(records, at, &mut account, repository, digest)?;
    account.close(records)
}

/// Records which replicas keep blobs. One that no manifest refers to any more is passed over.
pub(super) fn kept<R: WriteRecords>(
    records: &mut R,
    blobs: &[(Digest, Vec<NodeId>)],
) -> Result<Outcome, RecordError> {
    for (digest, kept_by) in blobs {
        let place = key::blob(digest);
        let known = records.record::<BlobRecord>(&place)?;
        if let Some(mut record) = known.filter(|known| known.repositories > 0) {
            record.kept_by.clone_from(kept_by);
            records.put(&place, &encode(&record)?)?;
        }
    }
    Ok(Outcome::Done)
}

/// Removes what the precondition is about, if there is such a thing and the precondition holds.
pub(super) fn delete_if<R: WriteRecords>(
    records: &mut R,
    deletion: &Deletion,
    repository: &RepositoryName,
    precondition: &Precondition,
) -> Result<Outcome, RecordError> {
    let Some(current) = named(records, repository, &precondition.of)? else {
        return Ok(Outcome::NotFound);
    };
    if !precondition.holds(Some(&current)) {
        return Ok(Outcome::PreconditionFailed);
    }
    match &precondition.of {
        Reference::Tag(tag) => delete_tag(records, deletion, repository, tag),
        Reference::Digest(digest) => delete(records, deletion, repository, digest),
    }
}

/// Removes a tag; the manifest stays.
pub(in crate::ledger) fn delete_tag<R: WriteRecords>(
    records: &mut R,
    deletion: &Deletion,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<Outcome, RecordError> {
    let Some(record) = records.tag(repository, tag)? else { return Ok(Outcome::NotFound) };
    let place = key::tag(repository, tag);
    records.remove(&place)?;
    let mut account = Account::of(records, repository)?;
    account.loses_tag(&place);
    account.close(records)?;
    if is_indexed(records)? {
        records.remove(&key::named(repository, &record.digest, tag))?;
    }
    signatures::untagged(records, repository, tag)?;
    trash::keep_tag(records, deletion, repository, &record.digest, tag)?;
    Ok(Outcome::Done)
}

/// The maximum number of manifests that go in one step with the one that they are about. Somebody may
/// have signed signatures of signatures.
const FOLLOWERS: usize = 50;

/// Removes a manifest, the tags that name it, and its links; and what is about it by a tag's name,
/// unless that has another tag. The manifest itself goes with the last step, so that whoever asks again
/// ends what was begun.
pub(in crate::ledger) fn delete<R: WriteRecords>(
    records: &mut R,
    deletion: &Deletion,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Outcome, RecordError> {
    let level = records.level()?;
    if level >= Level::STEPS {
        if !records.has_manifest(repository, digest)? {
            return Ok(Outcome::NotFound);
        }
        let (deletion, mut left) = (deletion.with(*digest), FOLLOWERS);
        if !remove_about(records, &deletion, repository, digest, &mut left, DEEP)? {
            return Ok(Outcome::Unfinished);
        }
    }
    if remove(records, deletion, repository, digest)? == Outcome::NotFound {
        return Ok(Outcome::NotFound);
    }
    if level < Level::FALLBACK_TAGS {
        return Ok(Outcome::Done);
    }
    if (Level::MADE..Level::STEPS).contains(&level) {
        let mut left = FOLLOWERS;
        remove_about(records, &deletion.with(*digest), repository, digest, &mut left, DEEP)?;
    }
    let (mut gone, mut left) = (vec![*digest], FOLLOWERS);
    while let Some(subject) = gone.pop() {
        let deletion = &deletion.with(subject);
        for tag in tags_about(&subject) {
            let Some(record) = records.tag(repository, &tag)? else { continue };
            delete_tag(records, deletion, repository, &tag)?;
            if left > 0 && !is_tagged(records, repository, &record.digest)? {
                left -= 1;
                remove(records, deletion, repository, &record.digest)?;
                gone.push(record.digest);
            }
        }
    }
    Ok(Outcome::Done)
}

/// Whether a manifest with a subject may be an image or an index: an index may list it, which would break
/// without it. It stays.
fn may_be_listed(artifact_type: Option<&str>) -> bool {
    artifact_type.is_none_or(|of| of.contains(".image."))
}

/// How far what is about something that is about a manifest is followed: a signature of an SBOM of an
/// image is two steps from it.
const DEEP: u32 = 4;

/// Removes what is about a manifest, after what is about that, unless it has a tag: somebody wants it
/// then. Before [`Level::REFERRERS`] only what the mesh has made goes, and signatures. At most `left`
/// go. Returns whether none is left.
fn remove_about<R: WriteRecords>(
    records: &mut R,
    deletion: &Deletion,
    repository: &RepositoryName,
    subject: &Digest,
    left: &mut usize,
    deep: u32,
) -> Result<bool, RecordError> {
    let level = records.level()?;
    for (_, referrer) in records.scan(&key::referrers(repository, subject), None, usize::MAX)? {
        let referrer: Referrer = decode(&referrer)?;
        let goes = level >= Level::REFERRERS && !may_be_listed(referrer.artifact_type.as_deref())
            || referrer.annotations.contains_key(MADE_BY)
            || level >= Level::SIGNATURES && is_evidence(referrer.artifact_type.as_deref());
        if !goes || is_tagged(records, repository, &referrer.digest)? {
            continue;
        }
        if level >= Level::REFERRERS
            && deep > 0
            && !remove_about(records, deletion, repository, &referrer.digest, left, deep - 1)?
        {
            return Ok(false);
        }
        if *left == 0 {
            return Ok(false);
        }
        *left -= 1;
        remove(records, deletion, repository, &referrer.digest)?;
    }
    Ok(true)
}

/// Whether a tag names a manifest. If not all tags of the repository are in the index, all of them are
/// read.
fn is_tagged<R: WriteRecords>(
    records: &R,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<bool, RecordError> {
    if records.record::<TagIndex>(&key::tag_index(repository))? == Some(TagIndex::Whole) {
        return Ok(!records.scan(&key::all_named(repository, digest), None, 1)?.is_empty());
    }
    let tags = records.records::<TagRecord>(&key::tags(repository))?;
    Ok(tags.iter().any(|(_, tag)| tag.digest == *digest))
}

/// Removes a manifest, the tags that name it, and its links. It is in the trash then, if the project has
/// one.
fn remove<R: WriteRecords>(
    records: &mut R,
    deletion: &Deletion,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Outcome, RecordError> {
    let place = key::manifest(repository, digest);
    let Some(manifest) = records.record::<ManifestRecord>(&place)? else {
        return Ok(Outcome::NotFound);
    };
    let mut account = Account::of(records, repository)?;
    // the trash refers to all of it before the repository does not any more
    let kept = trash::keep(records, deletion, &mut account, repository, digest, &manifest)?;
    records.remove(&place)?;
    account.loses(records, &place, digest)?;
    if manifest.bytes.is_empty() {
        references::lose_content(records, digest)?;
    }
    let tags = untag(records, &mut account, repository, digest)?;
    records.remove(&policies_key::pulled(repository, digest))?;
    labels::forget(records, repository, digest)?;
    scan_queue::forget(records, repository, digest)?;
    signatures::forget(records, repository, digest, manifest.subject.as_ref())?;
    for blob in &manifest.blobs {
        let link = key::link(repository, blob);
        match records.record::<u64>(&link)? {
            Some(links) if links > 1 => records.put(&link, &encode(&(links - 1))?)?,
            _ => {
                records.remove(&link)?;
                account.loses(records, &link, blob)?;
                references::lose_blob(records, deletion.at, blob)?;
            }
        }
    }
    trash::close(records, deletion, repository, digest, kept, tags)?;
    if let Some(subject) = &manifest.subject {
        records.remove(&key::referrer(repository, subject, digest))?;
    }
    let repository_key = key::repository(repository);
    match records.record::<Repository>(&repository_key)? {
        Some(mut record) if record.manifests > 1 => {
            record.manifests -= 1;
            records.put(&repository_key, &encode(&record)?)?;
        }
        _ => {
            records.remove(&repository_key)?;
            account.loses_repository(&repository_key);
            if is_indexed(records)? {
                records.remove(&key::tag_index(repository))?;
            }
        }
    }
    account.close(records)?;
    Ok(Outcome::Done)
}

/// Removes the tags that name a manifest, and returns them. If not all tags of the repository are in
/// the index, all of them are read.
fn untag<R: WriteRecords>(
    records: &mut R,
    account: &mut Account,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Vec<Tag>, RecordError> {
    let mut tags = Vec::new();
    let indexed = is_indexed(records)?;
    let index = records.record::<TagIndex>(&key::tag_index(repository))?;
    if indexed && index == Some(TagIndex::Whole) {
        let named = key::all_named(repository, digest);
        for (place, _) in records.scan(&named, None, usize::MAX)? {
            let tag = place.get(named.len()..).unwrap_or_default();
            let tag = [&key::tags(repository), tag].concat();
            account.loses_tag(&tag);
            records.remove(&tag)?;
            records.remove(&place)?;
            if let Ok(tag) = key::tag_of(&tag).parse() {
                signatures::untagged(records, repository, &tag)?;
                tags.push(tag);
            }
        }
        return Ok(tags);
    }
    for (place, tag) in records.records::<TagRecord>(&key::tags(repository))? {
        if tag.digest == *digest {
            if indexed {
                let tag = key::tag_of(&place);
                let named = key::all_named(repository, digest);
                records.remove(&[&named, tag.as_bytes()].concat())?;
            }
            account.loses_tag(&place);
            records.remove(&place)?;
            if let Ok(tag) = key::tag_of(&place).parse() {
                signatures::untagged(records, repository, &tag)?;
                tags.push(tag);
            }
        }
    }
    Ok(tags)
}
