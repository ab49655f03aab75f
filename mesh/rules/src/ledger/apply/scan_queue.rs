//! The queue of scans: images come into it, and what is known of them goes.

use super::{next_number, scanners};
use crate::ledger::records::{Look, RecordError, WriteRecords, encode};
use crate::ledger::scanning::{LookForScans, Wanted, key};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectId, RepositoryName};

/// Puts an image into the queue, unless it is there.
pub(super) fn ask<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    project: ProjectId,
    repository: &RepositoryName,
    digest: &Digest,
    first: bool,
) -> Result<(), RecordError> {
    let place = key::scan(repository, digest);
    let mut record = records.scan_of(repository, digest)?.unwrap_or_default();
    match &mut record.wanted {
        // it moves forward in the queue, and keeps its number
        Some(wanted) if first && !wanted.first => {
            records.remove(&key::queued(project, false, wanted.number))?;
            wanted.first = true;
            records.put(&key::queued(project, true, wanted.number), &place)?;
        }
        Some(_) => return Ok(()),
        None => {
            let number = next_number(records, &key::last_scan())?;
            record.wanted = Some(Wanted { number, at, first, tries: 0, begun: None });
            records.put(&key::queued(project, first, number), &place)?;
        }
    }
    records.put(&place, &encode(&record)?)
}

/// An image is gone.
pub(super) fn forget<R: WriteRecords>(
    records: &mut R,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), RecordError> {
    let Some(known) = records.scan_of(repository, digest)? else { return Ok(()) };
    if let (Some(wanted), Some(project)) = (&known.wanted, records.project(&repository.project())?)
    {
        records.remove(&key::queued(project.id, wanted.first, wanted.number))?;
    }
    scanners::forget(records, repository, digest)?;
    records.remove(&key::scan(repository, digest))
}
