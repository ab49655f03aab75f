//! Collection: which blobs nothing refers to any more, and when their bytes may go.
//!
//! `apply` notes when the last manifest that refers to a blob goes. A blob that was uploaded and
//! never named by a manifest is reported by the node that has it. From then on it is *garbage*. When
//! it has been garbage for a grace, the ledger's leader asks all replicas whether a push of somebody
//! counts on it, and if not, proposes to *collect* it. Each replica that has applied this removes its
//! bytes by itself. So what is collected costs what it is, and nothing else is read.
//!
//! A push may have been checked before a collection and be recorded after it. Therefore collections
//! are numbered. A primary reads the number before it asks who holds what; a replica answers only
//! after it has carried out all collections up to that number; and `apply` refuses a manifest that
//! names a blob with a collection that its primary did not know. Then the primary checks anew.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::level::Level;
use super::records::{BlobRecord, Look, RecordError};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;

/// The maximum number of blobs of one change. Applying an entry delays all others.
pub const AT_ONCE: usize = 500;

/// How long it is remembered what was collected. A replica that was away for longer finds its
/// leftovers when it reads all its blobs.
pub const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// A change of what is garbage. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectChange {
    /// A node keeps these blobs, and no push counts on them there. Those that nothing refers to
    /// become garbage.
    Strays(Vec<Digest>),
    /// Collects those of these blobs that have been garbage since before this time.
    Collect {
        /// The blobs.
        digests: Vec<Digest>,
        /// The time.
        before: Timestamp,
    },
}

impl CollectChange {
    /// The blobs.
    pub fn digests(&self) -> &[Digest] {
        match self {
            CollectChange::Strays(digests) | CollectChange::Collect { digests, .. } => digests,
        }
    }

    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        Level::COLLECTION
    }

    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            CollectChange::Strays(_) => "report_strays",
            CollectChange::Collect { .. } => "collect",
        }
    }
}

/// A blob that nothing refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// Its digest.
    pub digest: Digest,
    /// Since when nothing refers to it.
    pub since: Timestamp,
}

/// A blob that was collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collected {
    /// The number of the collection.
    pub number: u64,
    /// The blob's digest.
    pub digest: Digest,
}

/// Keys of garbage in the map.
pub mod key {
    use super::*;

    fn make(table: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = vec![table];
        parts.iter().for_each(|part| key.extend_from_slice(part));
        key
    }

    /// Since when a blob is garbage.
    pub fn garbage(digest: &Digest) -> Vec<u8> {
        make(b'5', &[&digest.to_key()])
    }
    /// Garbage, the oldest first.
    pub fn by_age(since: Timestamp, digest: &Digest) -> Vec<u8> {
        make(b'6', &[&since.0.to_be_bytes(), &digest.to_key()])
    }
    /// All of it.
    pub fn all_by_age() -> Vec<u8> {
        make(b'6', &[])
    }
    /// The garbage of a key of [`by_age`].
    pub fn garbage_of(key: &[u8]) -> Option<Garbage> {
        let since = Timestamp(u64::from_be_bytes(key.get(1..9)?.try_into().ok()?));
        Some(Garbage { digest: Digest::from_key(key.get(9..)?).ok()?, since })
    }
    /// The number of the last collection of a blob.
    pub fn collected(digest: &Digest) -> Vec<u8> {
        make(b'7', &[&digest.to_key()])
    }
    /// What was collected, in the order of the collections. The value is the time.
    pub fn in_order(number: u64, digest: &Digest) -> Vec<u8> {
        make(b'8', &[&number.to_be_bytes(), &digest.to_key()])
    }
    /// All of it.
    pub fn all_in_order() -> Vec<u8> {
        make(b'8', &[])
    }
    /// The end of what was collected up to a collection, for a scan of what follows.
    pub fn end_of(number: u64) -> Vec<u8> {
        // longer than any digest
        make(b'8', &[&number.to_be_bytes(), &[0xff; 80]])
    }
    /// The blob of a key of [`in_order`].
    pub fn collected_of(key: &[u8]) -> Option<Collected> {
        let number = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
        Some(Collected { number, digest: Digest::from_key(key.get(9..)?).ok()? })
    }
    /// The number of the last collection.
    pub fn collections() -> Vec<u8> {
        make(b'c', &[b"collections"])
    }
}

/// Typed reading of garbage.
pub trait LookForGarbage: Look {
    /// The number of the last collection, 0 before the first.
    fn collections(&self) -> Result<u64, RecordError> {
        Ok(self.record(&key::collections())?.unwrap_or(0))
    }
    /// Whether a manifest of some repository refers to a blob.
    fn is_referenced(&self, digest: &Digest) -> Result<bool, RecordError> {
        let record = self.record::<BlobRecord>(&super::records::key::blob(digest))?;
        Ok(record.is_some_and(|record| record.repositories > 0))
    }
    /// Since when a blob is garbage, if it is.
    fn garbage_since(&self, digest: &Digest) -> Result<Option<Timestamp>, RecordError> {
        self.record(&key::garbage(digest))
    }
    /// Up to `limit` of the oldest garbage after `after`.
    fn garbage(&self, after: Option<&Garbage>, limit: usize) -> Result<Vec<Garbage>, RecordError> {
        let after = after.map(|last| key::by_age(last.since, &last.digest));
        let pairs = self.scan(&key::all_by_age(), after.as_deref(), limit)?;
        Ok(pairs.iter().filter_map(|(place, _)| key::garbage_of(place)).collect())
    }
    /// Up to `limit` blobs of the collections after `number`, in their order. A collection may be
    /// cut off at the end: look again for what follows `after` within it.
    fn collected_after(
        &self,
        number: u64,
        after: Option<&Collected>,
        limit: usize,
    ) -> Result<Vec<Collected>, RecordError> {
        let after = match after {
            Some(last) => key::in_order(last.number, &last.digest),
            None => key::end_of(number),
        };
        let pairs = self.scan(&key::all_in_order(), Some(&after), limit)?;
        Ok(pairs.iter().filter_map(|(place, _)| key::collected_of(place)).collect())
    }
}

impl<R: Look + ?Sized> LookForGarbage for R {}

/// What to collect of `garbage` at `now`: what is garbage for longer than `grace`, and on which no
/// push counts. `counted_on` are the blobs that some replica has granted, of all replicas that are
/// up.
pub fn due<'a>(
    garbage: &'a [Garbage],
    now: Timestamp,
    grace: Duration,
    counted_on: impl Fn(&Digest) -> bool + 'a,
) -> impl Iterator<Item = Digest> + 'a {
    let before = before(now, grace);
    garbage
        .iter()
        .filter(move |one| one.since < before && !counted_on(&one.digest))
        .map(|one| one.digest)
}

/// What has been garbage since before this time is due at `now`.
pub fn before(now: Timestamp, grace: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(grace.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::digest::Algorithm;

    #[test]
    fn only_what_is_old_enough_and_wanted_by_nobody_is_due() {
        let one = |n: u8, since| Garbage { digest: Digest::sha256(&[n]), since: Timestamp(since) };
        let all = [one(1, 10), one(2, 20), one(3, 99), one(4, 100), one(5, 500)];
        let wanted = Digest::sha256(&[2]);
        let grace = Duration::from_millis(900);
        let due: Vec<Digest> = due(&all, Timestamp(1000), grace, |d| *d == wanted).collect();
        assert_eq!(due, [all[0].digest, all[2].digest]);
        assert_eq!(before(Timestamp(5), grace), Timestamp(0), "a clock that is far behind");
    }

    #[test]
    fn keys_are_read_back_and_in_order() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"x");
            let garbage = Garbage { digest, since: Timestamp(7) };
            assert_eq!(key::garbage_of(&key::by_age(garbage.since, &digest)), Some(garbage));
            let collected = Collected { number: 3, digest };
            assert_eq!(key::collected_of(&key::in_order(3, &digest)), Some(collected));
            assert!(key::in_order(3, &digest) < key::end_of(3));
            assert!(key::end_of(3) < key::in_order(4, &digest));
        }
        assert_eq!(key::garbage_of(&[b'6', 0, 0]), None);
    }
}
