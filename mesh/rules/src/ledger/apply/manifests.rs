//! Manifests and tags: put, deleted, and the blobs that they link.

use crate::ledger::command::{NewManifest, Outcome};
use crate::ledger::level::Level;
use crate::ledger::precondition::Precondition;
use crate::ledger::records::{
    BlobRecord, Look, ManifestRecord, RecordError, Repository, TagRecord, WriteRecords, encode, key,
};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{Reference, RepositoryName, Tag};

/// What a reference names now.
fn named<R: WriteRecords>(
    records: &R,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<Option<Digest>, RecordError> {
    Ok(match reference {
        Reference::Tag(tag) => records.tag(repository, tag)?.map(|tag| tag.digest),
        Reference::Digest(digest) => records.manifest(repository, digest)?.map(|_| *digest),
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
        let record = TagRecord { digest: new.digest, pushed: at };
        records.put(&key::tag(&new.repository, tag), &encode(&record)?)?;
    }
    Ok(Outcome::Done)
}

fn store<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    new: &NewManifest,
) -> Result<(), RecordError> {
    let NewManifest { repository, digest, blobs, .. } = new;
    let mut manifest = ManifestRecord {
        media_type: new.media_type.clone(),
        bytes: new.bytes.clone(),
        blobs: blobs.iter().map(|b| b.digest).collect(),
        subject: new.subject.as_ref().map(|pair| pair.0),
        pushed: at,
    };
    let place = key::manifest(repository, digest);
    let known = records.record::<ManifestRecord>(&place)?;
    let linked = known.as_ref().map_or(&[][..], |known| &known.blobs);
    let unlinked = |blob: &Digest| !linked.contains(blob);
    // blobs that are linked stay linked; the upstream may by now have shown blobs that it did not
    // show at first
    manifest.blobs =
        linked.iter().chain(manifest.blobs.iter().filter(|blob| unlinked(blob))).copied().collect();
    records.put(&place, &encode(&manifest)?)?;
    if known.is_none() {
        let repository_key = key::repository(repository);
        let mut repository_record = records
            .record::<Repository>(&repository_key)?
            .unwrap_or(Repository { created: at, manifests: 0 });
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
            if let Some(content) = blob.content {
                // a primary has these from nodes that have hashed the bytes; an upstream's manifest
                // has only the size
                (record.size, record.content) = (blob.size, Some(content));
            }
            if !blob.kept_by.is_empty() {
                record.kept_by.clone_from(&blob.kept_by);
            }
            records.put(&blob_key, &encode(&record)?)?;
        }
    }
    if let Some((subject, referrer)) = new.subject.as_deref() {
        records.put(&key::referrer(repository, subject, digest), &encode(referrer)?)?;
    }
    Ok(())
}

/// Removes what the precondition is about, if there is such a thing and the precondition holds.
pub(super) fn delete_if<R: WriteRecords>(
    records: &mut R,
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
        Reference::Tag(tag) => delete_tag(records, repository, tag),
        Reference::Digest(digest) => delete(records, repository, digest),
    }
}

/// Removes a tag; the manifest stays.
pub(in crate::ledger) fn delete_tag<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<Outcome, RecordError> {
    if records.tag(repository, tag)?.is_none() {
        return Ok(Outcome::NotFound);
    }
    records.remove(&key::tag(repository, tag))?;
    Ok(Outcome::Done)
}

/// Removes a manifest, the tags that name it, and its links.
pub(in crate::ledger) fn delete<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Outcome, RecordError> {
    let Some(manifest) = records.manifest(repository, digest)? else {
        return Ok(Outcome::NotFound);
    };
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
                    // nothing is known of a blob that only an upstream has described
                    let nothing = record.repositories == 0 && record.content.is_none();
                    if nothing && records.level()? >= Level::CACHES {
                        records.remove(&blob_key)?;
                    } else {
                        records.put(&blob_key, &encode(&record)?)?;
                    }
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
