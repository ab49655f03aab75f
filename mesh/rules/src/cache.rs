//! What of a node's cached blobs goes when the budget is full: the least recently used, never what is in use or not cached at all.
//!
//! Only blobs that somebody else has for good are in here: fetched for a pull, or from an upstream. What durability counts on never is.

use std::collections::{BTreeSet, HashMap};

use crate::digest::Digest;
use crate::moment::Timestamp;

/// The cached blobs of one node, by when they were last used. About 200 bytes each.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    budget: Option<u64>,
    bytes: u64,
    known: HashMap<Digest, Entry>,
    order: BTreeSet<(Timestamp, Digest)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    size: u64,
    used: Timestamp,
}

impl Cache {
    /// Nothing cached yet; `None` is no limit.
    pub fn new(budget: Option<u64>) -> Self {
        Cache { budget, ..Cache::default() }
    }

    /// How many bytes are cached.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many blobs are cached.
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
        self.bytes += size;
        self.known.insert(digest, Entry { size, used });
        self.order.insert((used, digest));
    }

    /// A blob went, or is kept for good from now on. Returns whether it was cached.
    pub fn remove(&mut self, digest: &Digest) -> bool {
        let Some(entry) = self.known.remove(digest) else { return false };
        self.order.remove(&(entry.used, *digest));
        self.bytes -= entry.size;
        true
    }

    /// A blob was used. A clock that goes back makes nothing older.
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

    /// What must go so that `room` more bytes fit: the least recently used first, none that is in use. Fewer than needed if too much is in use: the
    /// budget is then exceeded until that ends. Nothing is forgotten here: [`Cache::remove`] says that it went.
    pub fn victims(&self, room: u64, in_use: impl Fn(&Digest) -> bool) -> Vec<Digest> {
        let Some(budget) = self.budget else { return Vec::new() };
        let mut over = (self.bytes + room).saturating_sub(budget);
        let mut victims = Vec::new();
        for (_, digest) in &self.order {
            if over == 0 {
                break;
            }
            if in_use(digest) {
                continue;
            }
            over = over.saturating_sub(self.known[digest].size);
            victims.push(*digest);
        }
        victims
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(n: u64) -> Digest {
        Digest::sha256(&n.to_be_bytes())
    }

    #[test]
    fn the_least_recently_used_goes_first_and_what_is_in_use_stays() {
        let mut cache = Cache::new(Some(30));
        for n in 1..=3 {
            cache.add(digest(n), 10, Timestamp(n));
        }
        assert!(cache.victims(0, |_| false).is_empty());
        cache.touch(&digest(1), Timestamp(9));
        assert_eq!(cache.victims(1, |_| false), [digest(2)]);
        assert_eq!(cache.victims(11, |d| *d == digest(2)), [digest(3), digest(1)]);
        assert_eq!(cache.victims(1, |_| true), []);
    }

    #[test]
    fn without_a_budget_nothing_goes() {
        let mut cache = Cache::new(None);
        cache.add(digest(1), u64::MAX / 2, Timestamp(1));
        assert!(cache.victims(u64::MAX / 4, |_| false).is_empty());
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
                    for victim in cache.victims(size, in_use) {
                        prop_assert!(!in_use(&victim));
                        prop_assert!(cache.remove(&victim));
                    }
                    let fits = cache.bytes() + size <= budget;
                    prop_assert!(fits || cache.known.keys().all(in_use));
                    cache.add(digest(n), size, now);
                }
                prop_assert_eq!(cache.bytes(), cache.known.values().map(|e| e.size).sum::<u64>());
                prop_assert_eq!(cache.order.len(), cache.known.len());
            }
        }
    }
}
