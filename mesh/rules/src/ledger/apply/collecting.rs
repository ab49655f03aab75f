//! What nothing refers to any more: when it became garbage, and its collection.

use std::collections::BTreeSet;

use super::{next_number, scanning};
use crate::ledger::collecting::{AT_ONCE, CollectChange, LookForGarbage, REMEMBERED, key};
use crate::ledger::command::{NewManifest, Outcome};
use crate::ledger::level::Level;
use crate::ledger::records::{
    BlobRecord, Look, RecordError, WriteRecords, decode, encode, key as records_key,
};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;

/// Nothing refers to the blob from now on.
pub(super) fn becomes_garbage<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    digest: &Digest,
) -> Result<(), RecordError> {
    if records.level()? < Level::COLLECTION || records.garbage_since(digest)?.is_some() {
        return Ok(());
    }
    records.put(&key::garbage(digest), &encode(&at)?)?;
    records.put(&key::by_age(at, digest), &[])
}

/// The blob is no garbage any more: a manifest refers to it, or it was collected.
pub(super) fn is_no_garbage<R: WriteRecords>(
    records: &mut R,
    digest: &Digest,
) -> Result<(), RecordError> {
    if let Some(since) = records.garbage_since(digest)? {
        records.remove(&key::garbage(digest))?;
        records.remove(&key::by_age(since, digest))?;
    }
    Ok(())
}

/// Whether the manifest names a blob that was collected after the collection `seen`, the last one
/// that its primary knew when it checked who holds what.
pub(super) fn is_collected<R: WriteRecords>(
    records: &R,
    seen: u64,
    new: &NewManifest,
) -> Result<bool, RecordError> {
    if records.collections()? <= seen {
        return Ok(false);
    }
    for blob in &new.blobs {
        let last = records.record::<u64>(&key::collected(&blob.digest))?;
        if last.is_some_and(|number| number > seen) {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    change: &CollectChange,
) -> Result<Outcome, RecordError> {
    if records.level()? < Level::COLLECTION || change.digests().len() > AT_ONCE {
        return Ok(Outcome::Refused("too many blobs, or too early".into()));
    }
    match change {
        CollectChange::Strays(digests) => {
            for digest in digests {
                if !records.is_referenced(digest)? {
                    becomes_garbage(records, at, digest)?;
                }
            }
            Ok(Outcome::Done)
        }
        CollectChange::Collect { digests, before } => collect(records, at, digests, *before),
    }
}

/// The number of blobs that a collection would take of these, and of their bytes.
pub(super) fn due<R: WriteRecords>(
    records: &R,
    digests: &[Digest],
    before: Timestamp,
) -> Result<(u64, u64), RecordError> {
    let mut due = (0, 0);
    let digests: BTreeSet<&Digest> = digests.iter().take(AT_ONCE).collect();
    for digest in digests {
        let since = records.garbage_since(digest)?;
        if since.is_some_and(|since| since < before) && !records.is_referenced(digest)? {
            let blob = records.record::<BlobRecord>(&records_key::blob(digest))?;
            due = (due.0 + 1, due.1 + blob.map_or(0, |blob| blob.size));
        }
    }
    Ok(due)
}

fn collect<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    digests: &[Digest],
    before: Timestamp,
) -> Result<Outcome, RecordError> {
    let mut number = None;
    for digest in digests {
        let since = records.garbage_since(digest)?;
        // one that is listed twice is no garbage the second time
        if since.is_none_or(|since| since >= before) || records.is_referenced(digest)? {
            continue;
        }
        let number = match number {
            Some(number) => number,
            None => *number.insert(next_number(records, &key::collections())?),
        };
        is_no_garbage(records, digest)?;
        records.remove(&records_key::blob(digest))?;
        scanning::forget_layer(records, digest)?;
        if let Some(earlier) = records.record::<u64>(&key::collected(digest))? {
            records.remove(&key::in_order(earlier, digest))?;
        }
        records.put(&key::collected(digest), &encode(&number)?)?;
        records.put(&key::in_order(number, digest), &encode(&at)?)?;
    }
    forget(records, at)?;
    Ok(if number.is_some() { Outcome::Done } else { Outcome::NotFound })
}

/// Forgets what was collected long ago, a limited number of blobs.
fn forget<R: WriteRecords>(records: &mut R, now: Timestamp) -> Result<(), RecordError> {
    let oldest = now.0.saturating_sub(REMEMBERED.as_millis() as u64);
    // more than one entry can add
    for (place, at) in records.scan(&key::all_in_order(), None, 2 * AT_ONCE)? {
        if decode::<Timestamp>(&at)?.0 >= oldest {
            break;
        }
        if let Some(collected) = key::collected_of(&place) {
            records.remove(&key::collected(&collected.digest))?;
        }
        records.remove(&place)?;
    }
    Ok(())
}
