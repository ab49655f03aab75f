//! What a repository stores, read without the bytes.

use std::collections::BTreeMap;

use super::records::{Look, ManifestRecord, RecordError, decode, key};
use crate::words::digest::Digest;
use crate::words::names::RepositoryName;

/// The number of records that are read in one scan.
const PAGE: usize = 1000;

/// All manifests of a repository, without their bytes and blobs: there may be very many, and few are
/// looked at.
pub fn manifests_of<R: Look + ?Sized>(
    records: &R,
    repository: &RepositoryName,
) -> Result<BTreeMap<Digest, ManifestRecord>, RecordError> {
    let (mut found, mut after) = (BTreeMap::new(), None::<Vec<u8>>);
    loop {
        let some = records.scan(&key::manifests(repository), after.as_deref(), PAGE)?;
        let Some((last, _)) = some.last() else { return Ok(found) };
        after = Some(last.clone());
        for (place, record) in some {
            let Some(digest) = key::digest_of(&place) else { continue };
            let record: ManifestRecord = decode(&record)?;
            found.insert(digest, ManifestRecord { bytes: Vec::new(), blobs: Vec::new(), ..record });
        }
    }
}
