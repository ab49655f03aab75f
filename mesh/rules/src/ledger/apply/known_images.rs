//! Bounded lists of images of which something is known though the ledger does not have them, because
//! proxy projects cache them: one list of a project for each kind of knowledge. What it lists first
//! goes first.

use super::EMPTIED_AT_ONCE;
use crate::ledger::records::{Look, RecordError, WriteRecords, encode};
use crate::words::digest::Digest;
use crate::words::names::RepositoryName;

/// An image.
pub(super) type Place = (RepositoryName, Digest);

/// The keys of one project's list, and how long it may be.
pub(super) struct KnownImages {
    /// What all places in the list begin with. The value of each is the key of what is known.
    pub(super) all: Vec<u8>,
    /// The key of their number.
    pub(super) count: Vec<u8>,
    /// The key that says that images of the project are judged by what is known.
    pub(super) judged: Vec<u8>,
    /// The image in the key of what is known.
    pub(super) image: fn(&[u8]) -> Option<Place>,
    /// The maximum number.
    pub(super) most: u64,
}

impl KnownImages {
    /// Whether there are as many as there may be.
    pub(super) fn is_full<R: Look + ?Sized>(&self, records: &R) -> Result<bool, RecordError> {
        Ok(records.record::<u64>(&self.count)?.unwrap_or(0) >= self.most)
    }

    /// The first of them, at most `most`.
    pub(super) fn first<R: Look + ?Sized>(
        &self,
        records: &R,
        most: usize,
    ) -> Result<Vec<Place>, RecordError> {
        let some = records.scan(&self.all, None, most)?;
        Ok(some.iter().filter_map(|(_, place)| (self.image)(place)).collect())
    }

    /// Counts one more, or with -1 one less.
    pub(super) fn add<R: WriteRecords>(
        &self,
        records: &mut R,
        more: i64,
    ) -> Result<(), RecordError> {
        let count = records.record::<u64>(&self.count)?.unwrap_or(0);
        records.put(&self.count, &encode(&count.saturating_add_signed(more))?)
    }

    /// The project is about to go: has up to [`EMPTIED_AT_ONCE`] images forgotten, and says whether
    /// that were all that it may forget at once.
    pub(super) fn leave_project<R: WriteRecords>(
        &self,
        records: &mut R,
        forget: impl Fn(&mut R, &Place) -> Result<(), RecordError>,
    ) -> Result<bool, RecordError> {
        let some = self.first(records, EMPTIED_AT_ONCE)?;
        for image in &some {
            forget(records, image)?;
        }
        if some.len() == EMPTIED_AT_ONCE {
            return Ok(true);
        }
        records.remove(&self.count)?;
        records.remove(&self.judged)?;
        Ok(false)
    }

    /// From now on images of the project are judged by what is known.
    pub(super) fn judge<R: WriteRecords>(&self, records: &mut R) -> Result<(), RecordError> {
        records.put(&self.judged, &encode(&1_u64)?)
    }
}
