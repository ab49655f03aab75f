//! Which cached blobs a node evicts when the budget is full: the least recently used, but none that
//! is in use or kept for good.
//!
//! The cache contains only blobs that other nodes hold for good: fetched for a pull, or from an
//! upstream. A blob that durability counts is never in it.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use crate::words::digest::Digest;
use crate::words::moment::Timestamp;

/// The cached blobs of one node, by when they were last used. About 200 bytes each.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    budget: Option<u64>,
    bytes: u64,
    /// The number of bytes of the budget that something else takes.
    shared: u64,
    /// The number of blobs that are larger than the budget. They do not count in `bytes`, and are
    /// evicted first.
    oversized: usize,
    known: HashMap<Digest, CachedBlob>,
    order: BTreeSet<(Timestamp, Digest)>,
}

#[derive(Clone, Copy, Debug)]
struct CachedBlob {
    size: u64,
    used: Timestamp,
}

impl Cache {
    /// An empty cache; `None` means no limit.
    pub fn new(budget: Option<u64>) -> Self {
        Cache { budget, ..Cache::default() }
    }

    /// Something else than blobs takes so many bytes of the budget.
    pub fn share(&mut self, bytes: u64) {
        self.shared = bytes;
    }

    /// The number of bytes of the budget that blobs use.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of cached blobs.
    pub fn blobs(&self) -> usize {
        self.known.len()
    }

    /// The limit, if there is one.
    pub fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// Whether `digest` is cached, as opposed to kept for good.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.known.contains_key(digest)
    }

    /// A blob was cached.
    pub fn add(&mut self, digest: Digest, size: u64, used: Timestamp) {
        self.remove(&digest);
        match self.fits(size) {
            true => self.bytes += size,
            false => self.oversized += 1,
        }
        self.known.insert(digest, CachedBlob { size, used });
        self.order.insert((used, digest));
    }

    /// A blob was removed, or is kept for good from now on. Returns whether it was cached.
    pub fn remove(&mut self, digest: &Digest) -> bool {
        let Some(entry) = self.known.remove(digest) else { return false };
        self.order.remove(&(entry.used, *digest));
        match self.fits(entry.size) {
            true => self.bytes -= entry.size,
            false => self.oversized -= 1,
        }
        true
    }

    fn fits(&self, size: u64) -> bool {
        self.budget.is_none_or(|budget| size <= budget)
    }

    /// Whether blobs must be evicted now. A blob that is larger than the budget is streamed
    /// through, and does not displace others.
    pub fn is_overfull(&self) -> bool {
        self.oversized > 0
    }

    /// A blob was used. If the clock was set back, the older time is ignored.
    pub fn touch(&mut self, digest: &Digest, now: Timestamp) {
        if let Some(entry) = self.known.get_mut(digest)
            && entry.used < now
        {
            self.order.remove(&(entry.used, *digest));
            entry.used = now;
            self.order.insert((now, *digest));
        }
    }

    /// When `digest` was last used, if it is cached.
    pub fn used(&self, digest: &Digest) -> Option<Timestamp> {
        self.known.get(digest).map(|entry| entry.used)
    }

    /// How many bytes must be evicted so that `room` more fit into the budget. 0 for a `room` that
    /// can never fit: evicting everything would not help.
    pub fn missing(&self, room: u64) -> u64 {
        let Some(budget) = self.budget.filter(|budget| room <= *budget) else { return 0 };
        (self.bytes + self.shared + room).saturating_sub(budget)
    }

    /// The blobs to evict so that `missing` bytes become free: first those larger than the budget,
    /// then the least recently used. Blobs in use are skipped, so the result may be too small; the
    /// budget is then exceeded until they are no longer in use. This does not change the cache:
    /// call [`Cache::remove`] after a blob was evicted.
    pub fn victims(&self, mut missing: u64, in_use: impl Fn(&Digest) -> bool) -> Vec<Digest> {
        let mut victims = Vec::new();
        if self.is_overfull() {
            let oversized = self
                .known
                .iter()
                .filter(|(digest, entry)| !self.fits(entry.size) && !in_use(digest));
            victims.extend(oversized.map(|(digest, _)| *digest));
        }
        for (_, digest) in &self.order {
            if missing == 0 {
                break;
            }
            let size = self.known[digest].size;
            if !self.fits(size) || in_use(digest) {
                continue;
            }
            missing = missing.saturating_sub(size);
            victims.push(*digest);
        }
        victims
    }

    /// Up to `limit` blobs that were last used before `before`, the oldest first, after the one that
    /// the last call has ended with. An empty answer is the end: the next call begins anew.
    pub fn unused(
        &self,
        before: Timestamp,
        after: Option<(Timestamp, Digest)>,
        limit: usize,
    ) -> Vec<(Timestamp, Digest)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let old = self.order.range((from, Bound::Unbounded));
        old.take_while(|(used, _)| *used < before).take(limit).copied().collect()
    }
}

/// The maximum free space in bytes that is left on a disk.
const SPARE: u64 = 1 << 30;

/// How many bytes of a disk of `all` bytes are reserved: no blob may take them. They are for the
/// ledger, the index and snapshots, because the node stops when it cannot write those. This is a
/// quarter of what the cache leaves free.
pub fn reserve(all: u64) -> u64 {
    SPARE.min(all / 50) / 4
}

/// How many bytes of cached blobs must be evicted to write `room` more bytes to a disk of `all`
/// bytes with `free` bytes free, so that a fiftieth of the disk (at most 1 GiB) stays free. 0 if
/// `room` is larger than a disk of this size can take, and if the file system does not report its
/// size.
pub fn missing_on_disk(free: u64, all: u64, room: u64) -> u64 {
    if all == 0 || room > all { 0 } else { (room + SPARE.min(all / 50)).saturating_sub(free) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(n: u64) -> Digest {
        Digest::sha256(&n.to_be_bytes())
    }

    #[test]
    fn all_that_was_not_used_for_long_is_come_to_in_turn() {
        let mut cache = Cache::new(None);
        (1..=5).for_each(|n| cache.add(digest(n), 10, Timestamp(n / 2)));
        cache.touch(&digest(1), Timestamp(7));
        let (mut seen, mut after) = (BTreeSet::new(), None);
        loop {
            let some = cache.unused(Timestamp(2), after, 1);
            let Some(last) = some.last() else { break };
            after = Some(*last);
            seen.extend(some.into_iter().map(|(_, digest)| digest));
        }
        assert_eq!(seen, [2, 3].map(digest).into(), "the others were used at 2 or later");
    }

    #[test]
    fn the_least_recently_used_goes_first_and_what_is_in_use_stays() {
        let mut cache = Cache::new(Some(30));
        for n in 1..=3 {
            cache.add(digest(n), 10, Timestamp(n));
        }
        assert_eq!([0, 1, 11, 30, 31].map(|room| cache.missing(room)), [0, 1, 11, 30, 0]);
        assert!(cache.victims(0, |_| false).is_empty());
        cache.share(4);
        assert_eq!(cache.missing(0), 4, "what something else takes is missing");
        cache.share(0);
        cache.touch(&digest(1), Timestamp(9));
        assert_eq!(cache.victims(1, |_| false), [digest(2)]);
        assert_eq!(cache.victims(11, |d| *d == digest(2)), [digest(3), digest(1)]);
        assert_eq!(cache.victims(1, |_| true), []);
    }

    #[test]
    fn what_is_larger_than_the_budget_goes_alone() {
        let mut cache = Cache::new(Some(30));
        cache.add(digest(1), 25, Timestamp(1));
        cache.add(digest(2), 31, Timestamp(2));
        assert!(cache.is_overfull());
        assert_eq!((cache.bytes(), cache.missing(0)), (25, 0));
        assert_eq!(cache.victims(0, |_| false), [digest(2)]);
        assert!(cache.remove(&digest(2)) && !cache.is_overfull());
        assert_eq!(cache.bytes(), 25);
    }

    #[test]
    fn a_disk_keeps_something_to_spare() {
        let gib = 1 << 30;
        assert_eq!(missing_on_disk(2 * gib, 100 * gib, gib), 0);
        assert_eq!(missing_on_disk(2 * gib, 100 * gib, gib + 5), 5);
        assert_eq!(missing_on_disk(100, 5000, 1), 1, "a fiftieth of a small one");
        assert_eq!(missing_on_disk(0, 0, 5), 0, "a file system that does not say");
        assert_eq!(missing_on_disk(100, 5000, u64::MAX), 0);
        assert_eq!((reserve(100 * gib), reserve(5000), reserve(0)), (gib / 4, 25, 0));
    }

    #[test]
    fn without_a_budget_nothing_goes() {
        let mut cache = Cache::new(None);
        cache.add(digest(1), u64::MAX / 2, Timestamp(1));
        assert_eq!(cache.missing(u64::MAX / 4), 0);
        assert!(cache.victims(0, |_| false).is_empty());
    }

    #[test]
    fn what_is_kept_for_good_is_no_victim_any_more() {
        let mut cache = Cache::new(Some(5));
        cache.add(digest(1), 10, Timestamp(1));
        assert!(cache.remove(&digest(1)));
        assert!(!cache.remove(&digest(1)));
        assert!(cache.victims(0, |_| false).is_empty());
        assert_eq!((cache.bytes(), cache.blobs()), (0, 0));
    }

    proptest! {
        #[test]
        fn after_the_victims_are_gone_it_fits_or_all_the_rest_is_in_use(
            steps in proptest::collection::vec((0u64..40, 1u64..50, any::<bool>()), 1..120),
            budget in 0u64..500,
        ) {
            let mut cache = Cache::new(Some(budget));
            let in_use = |d: &Digest| d.to_key()[1].is_multiple_of(5);
            for (now, (n, size, touch)) in steps.into_iter().enumerate() {
                let now = Timestamp(now as u64);
                if touch {
                    cache.touch(&digest(n), now);
                } else {
                    for victim in cache.victims(cache.missing(size), in_use) {
                        prop_assert!(!in_use(&victim));
                        prop_assert!(cache.remove(&victim));
                    }
                    let fits = cache.bytes() + size <= budget;
                    prop_assert!(fits || size > budget || cache.known.keys().all(in_use));
                    cache.add(digest(n), size, now);
                }
                let fitting = cache.known.values().map(|e| e.size).filter(|size| *size <= budget);
                prop_assert_eq!(cache.bytes(), fitting.sum::<u64>());
                prop_assert_eq!(cache.order.len(), cache.known.len());
            }
        }
    }
}
