//! What repositories and their trashes refer to: manifests' bytes and blobs.

use super::collecting;
use crate::ledger::level::Level;
use crate::ledger::records::{
    BlobRecord, ContentRecord, Look, RecordError, WriteRecords, encode, key,
};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;

/// A repository, or its trash, does not have a manifest's bytes any more.
pub(super) fn lose_content<R: WriteRecords>(
    records: &mut R,
    digest: &Digest,
) -> Result<(), RecordError> {
    let content = key::content(digest);
    match records.record::<ContentRecord>(&content)? {
        Some(mut shared) if shared.repositories > 1 => {
            shared.repositories -= 1;
            records.put(&content, &encode(&shared)?)
        }
        _ => records.remove(&content),
    }
}

/// A repository, or its trash, does not refer to a blob any more.
pub(super) fn lose_blob<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    blob: &Digest,
) -> Result<(), RecordError> {
    let blob_key = key::blob(blob);
    let Some(mut record) = records.record::<BlobRecord>(&blob_key)? else { return Ok(()) };
    record.repositories = record.repositories.saturating_sub(1);
    if record.repositories == 0 {
        collecting::becomes_garbage(records, at, blob)?;
    }
    // nothing is known of a blob that only an upstream has described
    let nothing = record.repositories == 0 && record.content.is_none();
    if nothing && records.level()? >= Level::CACHES {
        records.remove(&blob_key)
    } else {
        records.put(&blob_key, &encode(&record)?)
    }
}
