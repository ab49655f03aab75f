//! Manifests and tags: put, deleted, and the blobs that they link.

use crate::ledger::command::Outcome;
use crate::ledger::records::{
    BlobDescriptor, BlobRecord, Look, ManifestRecord, RecordError, Repository, TagRecord,
    WriteRecords, encode, key,
};
use crate::words::digest::Digest;
use crate::words::manifest::Referrer;
use crate::words::moment::Timestamp;
use crate::words::names::{RepositoryName, Tag};

pub(super) fn put<R: WriteRecords>(
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
    // blobs that are linked stay linked; the upstream may by now have shown blobs that it did not
    // show at first
    manifest.blobs =
        linked.iter().chain(manifest.blobs.iter().filter(|blob| new(blob))).copied().collect();
    records.put(&place, &encode(&manifest)?)?;
    if known.is_none() {
        let repository_key = key::repository(repository);
        let mut repository_record = records
            .record::<Repository>(&repository_key)?
            .unwrap_or(Repository { created: at, manifests: 0 });
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
    if let Some((subject, referrer)) = subject {
        records.put(&key::referrer(repository, subject, digest), &encode(referrer)?)?;
    }
    Ok(())
}

/// Moves tags to a manifest.
pub(super) fn tag<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    repository: &RepositoryName,
    digest: &Digest,
    tags: &[Tag],
) -> Result<Outcome, RecordError> {
    for tag in tags {
        records.put(
            &key::tag(repository, tag),
            &encode(&TagRecord { digest: *digest, pushed: at })?,
        )?;
    }
    Ok(Outcome::Done)
}

/// Removes a tag; the manifest stays.
pub(super) fn delete_tag<R: WriteRecords>(
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

pub(super) fn delete<R: WriteRecords>(
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
