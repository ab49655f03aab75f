//! The budget of cached blobs: which ones may be evicted, which are being read, and how eviction is
//! ordered against everything that could bring a blob back.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rules::blobs::cache::Cache;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

struct Inner {
    cache: Cache,
    open: HashMap<Digest, Vec<Weak<File>>>,
    used: HashSet<Digest>,
}

pub(super) struct Eviction {
    inner: Mutex<Inner>,
    // eviction takes this exclusively; whatever makes a blob held, or counts on one, shares it
    order: RwLock<()>,
}

impl Eviction {
    pub(super) fn new(budget: Option<u64>, cached: Vec<(Digest, u64, Timestamp)>) -> Self {
        let mut cache = Cache::new(budget);
        for (digest, size, used) in cached {
            cache.add(digest, size, used);
        }
        let inner = Inner { cache, open: HashMap::new(), used: HashSet::new() };
        let eviction = Eviction { inner: Mutex::new(inner), order: RwLock::new(()) };
        eviction.show();
        eviction
    }

    fn show(&self) {
        let (blobs, bytes, budget) = self.totals();
        metrics::gauge!("atoll_cache_blobs").set(blobs as f64);
        metrics::gauge!("atoll_cache_bytes").set(bytes as f64);
        metrics::gauge!("atoll_cache_budget_bytes")
            .set(budget.map_or(f64::INFINITY, |budget| budget as f64));
    }

    pub(super) fn totals(&self) -> (usize, u64, Option<u64>) {
        let inner = self.inner.lock();
        (inner.cache.blobs(), inner.cache.bytes(), inner.cache.budget())
    }

    pub(super) fn is_cached(&self, digest: &Digest) -> bool {
        self.inner.lock().cache.contains(digest)
    }

    /// Nothing is evicted while the guard lives.
    pub(super) async fn settled(&self) -> RwLockReadGuard<'_, ()> {
        self.order.read().await
    }

    /// Nothing becomes held while the guard lives.
    pub(super) async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.order.write().await
    }

    /// A blob was made held. If it may be evicted, `cached` says when it was last used.
    pub(super) fn sealed(&self, digest: Digest, size: u64, cached: Option<Timestamp>) {
        let mut inner = self.inner.lock();
        match cached {
            Some(used) => inner.cache.add(digest, size, used),
            None => {
                inner.cache.remove(&digest);
            }
        }
        drop(inner);
        self.show();
    }

    /// A blob was removed, or is kept for good.
    pub(super) fn forget(&self, digest: &Digest) {
        let mut inner = self.inner.lock();
        inner.cache.remove(digest);
        inner.open.remove(digest);
        drop(inner);
        self.show();
    }

    /// A blob is read through `file`, and is not evicted while that is open.
    pub(super) fn opened(&self, digest: &Digest, file: &Arc<File>, now: Timestamp) {
        let mut inner = self.inner.lock();
        if !inner.cache.contains(digest) {
            return;
        }
        inner.cache.touch(digest, now);
        inner.used.insert(*digest);
        let open = inner.open.entry(*digest).or_default();
        open.retain(|file| file.strong_count() > 0);
        open.push(Arc::downgrade(file));
    }

    /// How many bytes must be evicted for `room` more.
    pub(super) fn missing(&self, room: u64) -> u64 {
        self.inner.lock().cache.missing(room)
    }

    /// So many bytes of the budget are not for blobs.
    pub(super) fn share(&self, bytes: u64) {
        self.inner.lock().cache.share(bytes);
    }

    /// Whether something must be evicted in any case.
    pub(super) fn is_overfull(&self) -> bool {
        self.inner.lock().cache.is_overfull()
    }

    /// The blobs to evict so that `missing` bytes become free. They count until
    /// [`Eviction::forget`].
    pub(super) fn victims(&self, missing: u64) -> Vec<Digest> {
        let inner = self.inner.lock();
        let being_read = |digest: &Digest| {
            inner
                .open
                .get(digest)
                .is_some_and(|files| files.iter().any(|file| file.strong_count() > 0))
        };
        inner.cache.victims(missing, being_read)
    }

    /// The blobs that were used since the last call, and when.
    pub(super) fn take_uses(&self) -> Vec<(Digest, Timestamp)> {
        let mut inner = self.inner.lock();
        let used = std::mem::take(&mut inner.used);
        inner.open.retain(|_, files| files.iter().any(|file| file.strong_count() > 0));
        used.into_iter().filter_map(|digest| Some((digest, inner.cache.used(&digest)?))).collect()
    }
}
