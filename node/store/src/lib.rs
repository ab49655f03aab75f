//! Stores this node's blobs: their bytes in a backend, and an index of held blobs.
//!
//! A blob counts as held only when its bytes were hashed, are durable and have their name in the
//! backend, and the index says so, in that order. A crash in between leaves a stray, which is
//! ignored, and which the next copy replaces. The index also has grants: a blob that was uploaded
//! or mounted into a repository lately is readable there before a manifest refers to it.
//!
//! [`backend`] is the seam for other storage. Code outside of a backend knows no paths or names of
//! its files. What is on a local disk all the same, in data_dir, is what is known *about* blobs:
//! the index, cached manifests, marks of damaged blobs and the position of the scrub.

pub mod backend;
mod blob;
mod body;
mod cached;
mod collecting;
mod damaged;
mod eviction;
mod index;
mod ingest;
pub mod inventory;
mod lost;
mod outboard;
#[cfg(test)]
mod rig;
mod room;
mod scrubbing;
mod strays;
#[cfg(test)]
mod tests;
mod uploads;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::opening::Opening;
use ground::supervise::{at_length, blocking};
use rules::blobs::holding::{Condition, Held, Stock, Trouble};
use rules::words::digest::{Algorithm, Digest};
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectName, RepositoryName};

use backend::disk::Disk;
use backend::{Backend, Opened};
pub use blob::{BlobReader, OpenBlob};
pub use body::{BlobBody, Buffers, Following};
pub use cached::{CachedRecords, CachedView, Tagged};
use damaged::Damaged;
use eviction::Eviction;
use index::Index;
pub use index::{EndedGrant, Numbers};
pub use ingest::Ingest;
use room::Room;
use scrubbing::Scrubbed;
pub use uploads::Rested;

/// What is opened, in words for operators.
const OPENED: &str = "the index of blobs (store.redb)";

/// Why the store failed. A blob is never held half done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk failed.
    #[error("the store in data_dir failed: {0}")]
    Disk(#[from] std::io::Error),
    /// The index failed.
    #[error("the store's index in data_dir failed: {0}")]
    Index(String),
    /// The database of cached manifests failed.
    #[error("the cache of manifests in data_dir failed: {0}")]
    Cached(String),
    /// The bytes do not have the expected digest.
    #[error("the bytes hash to {actual}, not to {expected}")]
    Digest {
        /// The expected digest.
        expected: Box<Digest>,
        /// The actual digest.
        actual: Box<Digest>,
    },
}

/// The maximum number of damaged blobs that others are told of unless they ask for some.
const DAMAGED_TOLD: usize = 100;

/// The number of bytes of room that are made at a time for arriving bytes.
const AHEAD: u64 = 64 << 20;

/// The store of this node.
pub struct Store {
    backend: Arc<dyn Backend>,
    index: Index,
    buffers: Buffers,
    eviction: Eviction,
    room: Arc<Room>,
    /// Held by the task that computes a list of groups again.
    rebuilding: tokio::sync::Mutex<()>,
    damaged: Damaged,
    scrubbed: Scrubbed,
}

impl Store {
    /// Opens the store under `data_dir`, with its blobs on that disk too, and removes fetches that
    /// a crash cut off. Keeps at most `budget` bytes of cached blobs, or all.
    pub fn open(
        data_dir: &Path,
        budget: Option<u64>,
        opening: &Opening,
    ) -> Result<Arc<Self>, StoreError> {
        opening.begin(OPENED);
        Self::open_with(Arc::new(Disk::open(data_dir)?), data_dir, budget, opening)
    }

    /// The same with the bytes of blobs in `backend`. It belongs to this store alone, and to one
    /// index: what that lacks is removed from it.
    pub fn open_with(
        backend: Arc<dyn Backend>,
        data_dir: &Path,
        budget: Option<u64>,
        opening: &Opening,
    ) -> Result<Arc<Self>, StoreError> {
        opening.begin(OPENED);
        let index = Index::open(&data_dir.join("store.redb"), opening)?;
        let eviction = Eviction::new(budget, index.cached()?);
        // what the index cannot say is not forgotten
        let is_held = |digest: &Digest| index.held(digest).map_or(true, |held| held.is_some());
        let damaged = Damaged::open(data_dir, is_held)?;
        let room = Arc::new(Room::of(backend.clone()));
        Ok(Arc::new(Store {
            backend,
            index,
            buffers: Buffers::default(),
            eviction,
            room,
            rebuilding: tokio::sync::Mutex::default(),
            damaged,
            scrubbed: Scrubbed::of(data_dir),
        }))
    }

    /// Whether nothing can be stored any more: the disk has failed, and the node must be restarted
    /// once the disk works again.
    pub fn has_failed(&self) -> bool {
        self.index.has_failed()
    }

    /// Whether the index takes no write, not even an empty one.
    pub async fn is_broken(&self) -> bool {
        self.index.is_broken().await
    }

    /// The pool that bodies read into.
    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Begins to receive bytes.
    pub fn ingest(&self, algorithm: Algorithm) -> Result<Ingest, StoreError> {
        Ok(Ingest::new(self.backend.arrive()?, algorithm, self.room.clone()))
    }

    /// The record of `digest`, if it is held.
    pub fn held(&self, digest: &Digest) -> Result<Option<Held>, StoreError> {
        self.index.held(digest)
    }

    /// Whether `digest` is held, and whether it is granted in `repository`. What has no bytes is
    /// not held, whatever the index says. What is known to be damaged counts like what is cached:
    /// others may ask for it, and nobody counts on it.
    pub async fn stock(
        &self,
        digest: &Digest,
        repository: Option<&RepositoryName>,
    ) -> Result<Stock, StoreError> {
        let stocks = self.stocks(std::slice::from_ref(digest), repository).await?;
        Ok(stocks.into_iter().next().unwrap_or_default())
    }

    /// The same of many blobs, in their order.
    pub async fn stocks(
        &self,
        digests: &[Digest],
        repository: Option<&RepositoryName>,
    ) -> Result<Vec<Stock>, StoreError> {
        let recorded = |digest: &Digest| -> Result<Stock, StoreError> {
            let granted = repository.map(|r| self.granted(digest, r)).transpose()?;
            let cached = self.eviction.is_cached(digest) || self.is_damaged(digest);
            Ok(Stock { held: self.held(digest)?, cached, granted: granted.unwrap_or(false) })
        };
        let mut stocks: Vec<Stock> = match digests {
            [one] => vec![recorded(one)?],
            many => at_length(|| many.iter().map(recorded).collect::<Result<_, _>>())?,
        };
        let held: Vec<usize> = (0..stocks.len()).filter(|at| stocks[*at].held.is_some()).collect();
        if held.is_empty() {
            return Ok(stocks);
        }
        let lengths = self.backend.lengths(held.iter().map(|at| digests[*at]).collect()).await?;
        for (at, length) in held.into_iter().zip(lengths) {
            let stock = &mut stocks[at];
            stock.held = stock.held.filter(|held| length == Some(held.size));
        }
        Ok(stocks)
    }

    /// Tells the store of projects, once. Grants then count only in the project in which they were
    /// given, and not in a later one of the same name.
    pub fn know_projects(&self, numbers: Numbers) {
        self.index.know_projects(numbers);
    }

    /// Whether a recent upload or mount makes `digest` readable in `repository`.
    pub fn granted(
        &self,
        digest: &Digest,
        repository: &RepositoryName,
    ) -> Result<bool, StoreError> {
        self.index.granted(digest, repository, clock::timestamp())
    }

    /// Whether `digest` is granted in any repository of `project` now.
    pub fn granted_within(
        &self,
        digest: &Digest,
        project: &ProjectName,
    ) -> Result<bool, StoreError> {
        self.index.granted_within(digest, project, clock::timestamp())
    }

    /// Opens a held blob. If its bytes are missing or have another length, the blob is no longer
    /// held, and will be fetched again.
    pub async fn open_blob(&self, digest: &Digest) -> Result<Option<OpenBlob>, StoreError> {
        let opened = self.open_unused(digest).await?;
        if let Some(blob) = &opened {
            self.eviction.opened(digest, &blob.bytes, clock::timestamp());
        }
        Ok(opened)
    }

    /// The same, which is no use of the blob: it may be evicted meanwhile, and is as old as before.
    async fn open_unused(&self, digest: &Digest) -> Result<Option<OpenBlob>, StoreError> {
        let Some(held) = self.held(digest)? else { return Ok(None) };
        let lost = match self.backend.open(*digest).await? {
            Some(Opened { bytes, length }) if length == held.size => {
                return Ok(Some(OpenBlob { bytes, size: held.size, held }));
            }
            Some(Opened { length, .. }) => format!("has {length} of {} bytes", held.size),
            None => "is gone".to_owned(),
        };
        // it was evicted just now, or is lost
        let settled = self.eviction.settled().await;
        if self.held(digest)?.is_none() {
            return Ok(None);
        }
        drop(settled);
        tracing::error!(%digest, "a held blob's file in data_dir {lost}; it will be fetched again");
        self.forget(*digest).await?;
        Ok(None)
    }

    /// The same for a client, which checks nothing until it has everything. Also `None` for a blob
    /// whose bytes are known to be damaged.
    pub async fn open_sound(&self, digest: &Digest) -> Result<Option<OpenBlob>, StoreError> {
        if self.is_damaged(digest) {
            return Ok(None);
        }
        self.open_blob(digest).await
    }

    /// Some bytes of a held blob are wrong, or cannot be read. This is remembered, over restarts,
    /// until it is sealed again. Peers still get the bytes, because they check them.
    pub fn note_damaged(&self, digest: &Digest) {
        self.damaged.note(digest);
    }

    /// What others are told of this store: which of `digests` are damaged, or, if it was asked for
    /// none, the first that are; and why it should be given no blobs.
    pub fn condition(&self, digests: &[Digest]) -> Condition {
        let damaged = match digests {
            [] => self.damaged.first(DAMAGED_TOLD),
            some => some.iter().copied().filter(|digest| self.is_damaged(digest)).collect(),
        };
        Condition { damaged, trouble: self.trouble() }
    }

    /// Why this store should be given no blobs now, if others can take them.
    pub fn trouble(&self) -> Option<Trouble> {
        let (free, all) = self.room.free().unwrap_or_default();
        let (_, evictable, _) = self.eviction.totals();
        Trouble::of(self.has_failed(), free, all, evictable)
    }

    /// The bytes of a blob are right after all.
    pub fn note_sound(&self, digest: &Digest) {
        self.damaged.forget(digest);
    }

    /// Whether bytes of a blob are known to be wrong.
    pub fn is_damaged(&self, digest: &Digest) -> bool {
        self.damaged.contains(digest)
    }

    /// Stops holding `digest`, whose bytes are lost. The next copy replaces what is left of
    /// them.
    async fn forget(&self, digest: Digest) -> Result<(), StoreError> {
        self.index.lose(digest).await?;
        self.eviction.forget(&digest);
        self.damaged.forget(&digest);
        self.drop_outboards(vec![digest]).await;
        Ok(())
    }

    /// Makes `ingest` the blob `expected`: checks the hash, makes the bytes durable, gives them
    /// their name, and updates the index. With `grant`, the blob is readable in that repository for
    /// that long. If the hash is wrong, nothing is kept.
    pub async fn seal(
        self: &Arc<Self>,
        ingest: Ingest,
        expected: Digest,
        grant: Option<(&RepositoryName, Duration)>,
    ) -> Result<Held, StoreError> {
        let expires = grant.map(|(repository, lasts)| {
            (repository.clone(), clock::timestamp().0 + lasts.as_millis() as u64)
        });
        self.seal_as(ingest, expected, expires, None).await
    }

    /// The same for a blob that other nodes hold for good, or that an upstream has: it counts
    /// against the budget, and may be evicted. If the blob is kept for good already (because it was
    /// uploaded first), or was until its bytes were lost, it stays so.
    pub async fn seal_cached(
        self: &Arc<Self>,
        ingest: Ingest,
        expected: Digest,
    ) -> Result<Held, StoreError> {
        let sealed = self.seal_as(ingest, expected, None, Some(clock::timestamp())).await?;
        self.make_room(0).await?;
        Ok(sealed)
    }

    async fn seal_as(
        self: &Arc<Self>,
        ingest: Ingest,
        expected: Digest,
        grant: Option<(RepositoryName, u64)>,
        cached: Option<Timestamp>,
    ) -> Result<Held, StoreError> {
        let sealed = ingest.seal(expected).await?;
        // the blob may be evicted at this moment
        let _settled = self.eviction.settled().await;
        sealed.nameless.name(expected).await?;
        self.keep_outboard(expected, sealed.list.unwrap_or_default()).await;
        let (store, size) = (self.clone(), sealed.size);
        // in the order of the index's writes, and before anyone can read them
        let noted = move |cached| store.eviction.sealed(expected, size, cached);
        self.index
            .hold(expected, Held { size, content: sealed.content }, grant, cached, noted)
            .await?;
        self.damaged.forget(&expected);
        metrics::counter!("atoll_blobs_stored_total").increment(1);
        metrics::counter!("atoll_blob_bytes_stored_total").increment(sealed.size);
        Ok(Held { size: sealed.size, content: sealed.content })
    }

    /// Keeps a held blob for good from now on, because durability counts it. `None` if it is not
    /// held (any more).
    pub async fn keep(&self, digest: &Digest) -> Result<Option<Held>, StoreError> {
        // a record without bytes is none
        if self.open_unused(digest).await?.is_none() {
            return Ok(None);
        }
        let _settled = self.eviction.settled().await;
        let Some(held) = self.held(digest)? else { return Ok(None) };
        if self.eviction.is_cached(digest) {
            self.index.keep(*digest).await?;
            self.eviction.forget(digest);
        }
        Ok(Some(held))
    }

    /// Evicts cached blobs until `room` more bytes fit into the budget, and onto the disk with some
    /// space to spare. The least recently used are evicted first, and none that is being read. A
    /// `room` larger than the budget evicts nothing for the budget, because it can never fit. A
    /// `room` of 0 evicts nothing for the disk, even if that is full.
    pub async fn make_room(&self, room: u64) -> Result<(), StoreError> {
        let on_disk = || if room == 0 { 0 } else { self.room.missing(room) };
        self.evict(|| self.eviction.missing(room).max(on_disk())).await
    }

    /// Reserves room on the disk for all `size` bytes of a blob before they come, and evicts cached
    /// blobs for them. So a blob that begins to arrive does not stop half way because of others.
    ///
    /// # Errors
    /// [`StorageFull`](std::io::ErrorKind::StorageFull) if the disk has no room for all of it.
    /// Nothing was reserved, and the ingest is gone.
    pub async fn reserve(&self, mut ingest: Ingest, size: u64) -> Result<Ingest, StoreError> {
        let more = size.saturating_sub(ingest.written());
        if self.room.missing(more) > 0 {
            self.evict(|| self.room.missing(more)).await?;
        }
        let reserved = blocking(move || ingest.reserve(size).map(|()| ingest));
        Ok(reserved.await.map_err(|e| StoreError::Index(e.to_string()))??)
    }

    /// Evicts cached blobs whenever something arrives (an upload, a copy, a blob to keep) and the
    /// disk has less free space than it should have. Runs as long as the node. The budget does not
    /// matter here.
    pub async fn keep_room(&self) {
        loop {
            self.room.wanted().await;
            if let Err(error) = self.evict(|| self.room.missing(AHEAD)).await {
                tracing::warn!(%error, "cached blobs could not make room for what arrives");
            }
            if self.room.missing(AHEAD) > 0 {
                self.room.note_short();
            }
        }
    }

    /// The number of bytes that are free for what arrives at this node; `None` if that is not
    /// known.
    pub fn free_on_disk(&self) -> Option<u64> {
        self.room.free().map(|(free, _)| free)
    }

    /// So many bytes of the budget are taken by something else than blobs. Blobs are evicted for
    /// them when the next one needs room.
    pub fn share_budget(&self, bytes: u64) {
        self.eviction.share(bytes);
    }

    /// The number of cached blobs and of their bytes, and the budget.
    pub fn cached(&self) -> (usize, u64, Option<u64>) {
        self.eviction.totals()
    }

    /// Writes to the index when cached blobs were last used.
    pub async fn note_uses(&self) -> Result<(), StoreError> {
        let used = self.eviction.take_uses();
        if used.is_empty() { Ok(()) } else { self.index.used(used).await }
    }

    /// Makes a blob readable in `repository` for `lasts`, durably.
    pub async fn grant(
        &self,
        digest: Digest,
        repository: &RepositoryName,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        self.eviction.touch(&digest, clock::timestamp());
        self.index
            .grant(digest, repository.clone(), clock::timestamp().0 + lasts.as_millis() as u64)
            .await
    }

    /// Revokes a grant: it has ended now. Returns whether there was one.
    pub async fn revoke(
        &self,
        digest: Digest,
        repository: &RepositoryName,
    ) -> Result<bool, StoreError> {
        self.index.revoke(digest, repository.clone(), clock::timestamp()).await
    }

    /// A push into `repository` continues: its valid grants last for at least `lasts` from now.
    pub async fn extend_grants(
        &self,
        repository: &RepositoryName,
        lasts: Duration,
    ) -> Result<(), StoreError> {
        let now = clock::timestamp();
        self.index.extend_grants(repository.clone(), now, now.0 + lasts.as_millis() as u64).await
    }

    /// Up to `most` grants that have ended, and the blobs that they were about. They are listed
    /// until they are removed.
    pub fn ended_grants(&self, most: usize) -> Result<Vec<(EndedGrant, Digest)>, StoreError> {
        self.index.ended_grants(clock::timestamp(), most)
    }

    /// Removes grants that have ended. One that was given anew meanwhile stays.
    pub async fn remove_grants(&self, ended: Vec<EndedGrant>) -> Result<(), StoreError> {
        self.index.remove_grants(ended, clock::timestamp()).await
    }
}
