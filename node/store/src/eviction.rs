//! The budget of cached blobs: which ones may be evicted, which are being read, and how eviction is
//! ordered against everything that could bring a blob back.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rules::blobs::cache::Cache;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::backend::ReadAt;
use super::{Store, StoreError};

/// The number of cached blobs that are looked at for their age at a time.
const LOOKED_AT: usize = 1000;

struct Inner {
    cache: Cache,
    open: HashMap<Digest, Vec<Weak<dyn ReadAt>>>,
    used: HashSet<Digest>,
    /// The blob that was looked at last for its age.
    looked_at: Option<(Timestamp, Digest)>,
}

pub(super) struct Eviction {
    inner: Mutex<Inner>,
    // eviction takes this exclusively; whatever makes a blob held, or counts on one, shares it
    order: RwLock<()>,
}

impl Inner {
    fn is_read(&self, digest: &Digest) -> bool {
        let readers = self.open.get(digest);
        readers.is_some_and(|readers| readers.iter().any(|bytes| bytes.strong_count() > 0))
    }
}

impl Store {
    /// Evicts cached blobs until nothing is missing, the least recently used first.
    pub(super) async fn evict(&self, missing: impl Fn() -> u64) -> Result<(), StoreError> {
        if missing() == 0 && !self.eviction.is_overfull() {
            return Ok(());
        }
        let _alone = self.eviction.alone().await;
        self.drop_cached(self.eviction.victims(missing()), "cache.budget").await
    }

    /// Some of the cached blobs that nobody has used since `before`. Each call goes on where the
    /// last one has ended, and begins anew after the end.
    pub fn unused(&self, before: Timestamp) -> Vec<Digest> {
        self.eviction.unused(before, LOOKED_AT)
    }

    /// Evicts those of these blobs that are cached and that nobody has used since `before`.
    pub async fn evict_unused(
        &self,
        digests: &[Digest],
        before: Timestamp,
    ) -> Result<(), StoreError> {
        if digests.is_empty() {
            return Ok(());
        }
        let _alone = self.eviction.alone().await;
        // one of them may have been used meanwhile
        self.drop_cached(self.eviction.still_unused(digests, before), "they were not used").await
    }

    /// The caller sees to it that nothing becomes held meanwhile.
    async fn drop_cached(&self, victims: Vec<Digest>, why: &str) -> Result<(), StoreError> {
        if victims.is_empty() {
            return Ok(());
        }
        self.index.drop_blobs(victims.clone()).await?;
        let removed = self.backend.remove(victims.clone()).await;
        metrics::counter!("atoll_cache_evicted_total").increment(victims.len() as u64);
        tracing::debug!(blobs = victims.len(), ?removed, why, "cached blobs were evicted");
        for digest in &victims {
            self.eviction.forget(digest);
            self.damaged.forget(digest);
        }
        self.drop_outboards(victims).await;
        Ok(())
    }
}

impl Eviction {
    pub(super) fn new(budget: Option<u64>, cached: Vec<(Digest, u64, Timestamp)>) -> Self {
        let mut cache = Cache::new(budget);
        for (digest, size, used) in cached {
            cache.add(digest, size, used);
        }
        let inner = Inner { cache, open: HashMap::new(), used: HashSet::new(), looked_at: None };
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

    /// A blob is read through `bytes`, and is not evicted while those are open.
    pub(super) fn opened(&self, digest: &Digest, bytes: &Arc<dyn ReadAt>, now: Timestamp) {
        let mut inner = self.inner.lock();
        if !inner.cache.contains(digest) {
            return;
        }
        inner.cache.touch(digest, now);
        inner.used.insert(*digest);
        let open = inner.open.entry(*digest).or_default();
        open.retain(|bytes| bytes.strong_count() > 0);
        open.push(Arc::downgrade(bytes));
    }

    /// Somebody counts on a blob from now on.
    pub(super) fn touch(&self, digest: &Digest, now: Timestamp) {
        let mut inner = self.inner.lock();
        if inner.cache.contains(digest) {
            inner.cache.touch(digest, now);
            inner.used.insert(*digest);
        }
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
        inner.cache.victims(missing, |digest| inner.is_read(digest))
    }

    /// Up to `limit` blobs that nobody has used since `before`. Each call goes on where the last
    /// one has ended, and begins anew after the end.
    pub(super) fn unused(&self, before: Timestamp, limit: usize) -> Vec<Digest> {
        let mut inner = self.inner.lock();
        let some = inner.cache.unused(before, inner.looked_at, limit);
        inner.looked_at = some.last().copied();
        some.into_iter().map(|(_, digest)| digest).collect()
    }

    /// Those of `digests` that still may go: nobody reads them or has used them since `before`.
    pub(super) fn still_unused(&self, digests: &[Digest], before: Timestamp) -> Vec<Digest> {
        let inner = self.inner.lock();
        let old = |digest: &&Digest| inner.cache.used(digest).is_some_and(|used| used < before);
        digests.iter().filter(old).filter(|digest| !inner.is_read(digest)).copied().collect()
    }

    /// The blobs that were used since the last call, and when.
    pub(super) fn take_uses(&self) -> Vec<(Digest, Timestamp)> {
        let mut inner = self.inner.lock();
        let used = std::mem::take(&mut inner.used);
        inner.open.retain(|_, readers| readers.iter().any(|bytes| bytes.strong_count() > 0));
        used.into_iter().filter_map(|digest| Some((digest, inner.cache.used(&digest)?))).collect()
    }
}
