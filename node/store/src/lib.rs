//! Stores this node's blobs: files named by their digest, and an index of held blobs.
//!
//! A blob counts as held only when its bytes were hashed, fsynced and moved into place, and the
//! index says so, in that order. A crash in between leaves a file that is ignored, and that the
//! next copy replaces. The index also has grants: a blob that was uploaded or mounted into a
//! repository lately is readable there before a manifest refers to it.
//!
//! This crate is the boundary for a second backend (object storage): code outside does not know
//! paths or names of files.

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
mod room;
mod uploads;
mod writeback;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::opening::Opening;
use ground::supervise::blocking;
use rules::blobs::holding::{Held, Stock};
use rules::blobs::scrubbing::Position;
use rules::words::digest::{Algorithm, Digest, Hasher};
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectName, RepositoryName};

pub use body::{Buffers, FileBody, Following};
pub use cached::{CachedRecords, CachedView, Tagged};
use damaged::Damaged;
use eviction::Eviction;
use index::Index;
pub use index::{EndedGrant, Numbers};
pub use ingest::Ingest;
use ingest::Sealed;
use room::Room;
pub use uploads::Rested;

/// The file that says how far the reading of all blobs is.
const SCRUB: &str = "scrub";
/// The size of the pieces in which a blob is read to check it.
const PIECE: usize = 1 << 20;

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

/// The number of bytes of room that are made at a time for arriving bytes.
const AHEAD: u64 = 64 << 20;

/// The store of this node.
pub struct Store {
    folder: PathBuf,
    index: Index,
    buffers: Buffers,
    eviction: Eviction,
    room: Arc<Room>,
    /// Held by the task that computes a list of groups again.
    rebuilding: tokio::sync::Mutex<()>,
    damaged: Damaged,
}

/// A held blob, open for reading.
#[derive(Clone)]
pub struct OpenBlob {
    /// Its bytes.
    pub file: Arc<File>,
    /// Its length.
    pub size: u64,
    /// What was recorded when it was stored.
    pub held: Held,
}

impl Store {
    /// Opens the store under `data_dir`, and removes fetches that a crash cut off. Keeps at most
    /// `budget` bytes of cached blobs, or all.
    pub fn open(
        data_dir: &Path,
        budget: Option<u64>,
        opening: &Opening,
    ) -> Result<Arc<Self>, StoreError> {
        opening.begin("the index of blobs (store.redb)");
        let folder = data_dir.to_path_buf();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            fs::create_dir_all(folder.join("blobs").join(algorithm.name()))?;
        }
        let arriving = folder.join("arriving");
        if arriving.exists() {
            fs::remove_dir_all(&arriving)?;
        }
        fs::create_dir_all(&arriving)?;
        fs::create_dir_all(uploads::folder(&folder))?;
        let index = Index::open(&folder.join("store.redb"), opening)?;
        let eviction = Eviction::new(budget, index.cached()?);
        // what the index cannot say is not forgotten
        let is_held = |digest: &Digest| index.held(digest).map_or(true, |held| held.is_some());
        let damaged = Damaged::open(&folder, is_held)?;
        let room = Arc::new(Room::of(&folder));
        Ok(Arc::new(Store {
            folder,
            index,
            buffers: Buffers::default(),
            eviction,
            room,
            rebuilding: tokio::sync::Mutex::default(),
            damaged,
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

    fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.folder.join("blobs").join(digest.algorithm().name()).join(&hex[..2]).join(hex)
    }

    /// Begins to receive bytes.
    pub fn ingest(&self, algorithm: Algorithm) -> Result<Ingest, StoreError> {
        let name = format!("{:032x}", rand::random::<u128>());
        Ok(Ingest::create(self.folder.join("arriving").join(name), algorithm, self.room.clone())?)
    }

    /// The record of `digest`, if it is held.
    pub fn held(&self, digest: &Digest) -> Result<Option<Held>, StoreError> {
        self.index.held(digest)
    }

    /// Whether `digest` is held, and whether it is granted in `repository`. What has no file is not
    /// held, whatever the index says. What is known to be damaged counts like what is cached: others may
    /// ask for it, and nobody counts on it.
    pub fn stock(
        &self,
        digest: &Digest,
        repository: Option<&RepositoryName>,
    ) -> Result<Stock, StoreError> {
        let granted = repository.map(|r| self.granted(digest, r)).transpose()?.unwrap_or(false);
        let held = self.held(digest)?.filter(|held| self.has_file(digest, held));
        let cached = self.eviction.is_cached(digest) || self.is_damaged(digest);
        Ok(Stock { held, cached, granted })
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

    /// Opens a held blob. If its file is missing or has another length, the blob is no longer held,
    /// and will be fetched again.
    pub async fn open_blob(&self, digest: &Digest) -> Result<Option<OpenBlob>, StoreError> {
        let opened = self.open_unused(digest).await?;
        if let Some(blob) = &opened {
            self.eviction.opened(digest, &blob.file, clock::timestamp());
        }
        Ok(opened)
    }

    /// The same, which is no use of the blob: it may be evicted meanwhile, and is as old as before.
    async fn open_unused(&self, digest: &Digest) -> Result<Option<OpenBlob>, StoreError> {
        let Some(held) = self.held(digest)? else { return Ok(None) };
        let opened =
            File::open(self.path(digest)).and_then(|file| Ok((file.metadata()?.len(), file)));
        let lost = match opened {
            Ok((length, file)) if length == held.size => {
                return Ok(Some(OpenBlob { file: Arc::new(file), size: held.size, held }));
            }
            Ok((length, _)) => format!("has {length} of {} bytes", held.size),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "is gone".to_owned(),
            Err(error) => return Err(error.into()),
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

    /// Some bytes of a held blob are wrong, or cannot be read. This is remembered, over restarts, until
    /// it is sealed again. Peers still get the bytes, because they check them.
    pub fn note_damaged(&self, digest: &Digest) {
        self.damaged.note(digest);
    }

    /// The bytes of a blob are right after all.
    pub fn note_sound(&self, digest: &Digest) {
        self.damaged.forget(digest);
    }

    /// Whether bytes of a blob are known to be wrong.
    pub fn is_damaged(&self, digest: &Digest) -> bool {
        self.damaged.contains(digest)
    }

    /// Whether the bytes of a held blob still hash to its digest. Reads all of them, which is no use
    /// of the blob. True for a blob that is not held.
    pub async fn is_sound(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.is_sound_slowly(digest, |_| Duration::ZERO).await?.unwrap_or(true))
    }

    /// The same, waiting after each piece for as long as `pause` says of its length. `None` if the
    /// blob is not held, or its file was lost.
    pub async fn is_sound_slowly(
        &self,
        digest: &Digest,
        pause: impl Fn(u64) -> Duration,
    ) -> Result<Option<bool>, StoreError> {
        let Some(blob) = self.open_unused(digest).await? else { return Ok(None) };
        let mut hasher = Hasher::new(digest.algorithm());
        let (mut piece, mut at) = (vec![0; PIECE], 0);
        while at < blob.size {
            let length = (blob.size - at).min(PIECE as u64) as usize;
            let file = blob.file.clone();
            let read = blocking(move || -> std::io::Result<_> {
                file.read_exact_at(&mut piece[..length], at)?;
                hasher.update(&piece[..length]);
                Ok((hasher, piece))
            });
            (hasher, piece) = read.await.map_err(|e| StoreError::Index(e.to_string()))??;
            at += length as u64;
            let pause = pause(length as u64);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(Some(hasher.finish() == *digest))
    }

    /// The next held blobs after `after`, in the order of their digests, with their lengths.
    pub fn held_after(
        &self,
        after: Option<&Digest>,
        most: usize,
    ) -> Result<Vec<(Digest, u64)>, StoreError> {
        self.index.held_after(after, most)
    }

    /// Where the reading of all blobs is; the beginning if that is not known.
    pub fn scrub_position(&self) -> Position {
        let read = fs::read(self.folder.join(SCRUB)).ok();
        read.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default()
    }

    /// Remembers where the reading of all blobs is. Nothing is lost but time if this is lost.
    pub fn note_scrub_position(&self, position: &Position) -> Result<(), StoreError> {
        let bytes = postcard::to_stdvec(position).map_err(|e| StoreError::Index(e.to_string()))?;
        let (partial, path) = (self.folder.join("scrub.partial"), self.folder.join(SCRUB));
        fs::write(&partial, bytes)?;
        Ok(fs::rename(partial, path)?)
    }

    /// Stops holding `digest`, whose bytes are lost. The next copy replaces what is left of the
    /// file.
    async fn forget(&self, digest: Digest) -> Result<(), StoreError> {
        self.index.lose(digest).await?;
        self.eviction.forget(&digest);
        self.drop_outboard(&digest);
        self.damaged.forget(&digest);
        Ok(())
    }

    /// Makes `ingest` the blob `expected`: checks the hash, fsyncs, moves the file into place, and
    /// updates the index. With `grant`, the blob is readable in that repository for that long. If
    /// the hash is wrong, nothing is kept.
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
    /// uploaded first), or was until its file was lost, it stays so.
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
        let lost = |e: tokio::task::JoinError| StoreError::Index(e.to_string());
        let mut sealed = blocking(move || ingest.seal(expected)).await.map_err(lost)??;
        // the blob may be evicted at this moment
        let _settled = self.eviction.settled().await;
        let store = self.clone();
        let sealed = blocking(move || -> Result<Sealed, StoreError> {
            sealed.move_to(&store.path(&expected))?;
            store.keep_outboard(&expected, &sealed.list.take().unwrap_or_default());
            Ok(sealed)
        })
        .await
        .map_err(lost)??;
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
        // a record without a file is none
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
        }
    }

    /// Removes files of blobs that are not held. A crash leaves such files between the move into
    /// place and the update of the index, or during an eviction. Returns how many were removed.
    /// Works on one folder at a time, so that nothing has to wait for long. If the index contains
    /// no blob at all (because it was deleted), nothing is removed.
    pub async fn remove_strays(self: &Arc<Self>) -> Result<u64, StoreError> {
        let mut removed = 0;
        if self.index.is_empty()? {
            return Ok(removed);
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let above = self.folder.join("blobs").join(algorithm.name());
            for folder in fs::read_dir(above)? {
                let folder = folder?.path();
                // a file that was moved into place is held before this continues
                let _alone = self.eviction.alone().await;
                let store = self.clone();
                let strays = blocking(move || store.remove_strays_in(algorithm, &folder));
                removed += strays.await.map_err(|e| StoreError::Index(e.to_string()))??;
            }
        }
        Ok(removed)
    }

    fn remove_strays_in(&self, algorithm: Algorithm, folder: &Path) -> Result<u64, StoreError> {
        let mut removed = 0;
        for file in fs::read_dir(folder)? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(digest) = format!("{}:{name}", algorithm.name()).parse::<Digest>() else {
                continue;
            };
            if self.held(&digest)?.is_none() {
                fs::remove_file(&path)?;
                self.drop_outboard(&digest);
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The number of bytes that are free for this node on the file system of `data_dir`; `None` if
    /// that does not report it.
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

    /// Up to `most` grants that have ended, and the blobs that they were about. They are listed until
    /// they are removed.
    pub fn ended_grants(&self, most: usize) -> Result<Vec<(EndedGrant, Digest)>, StoreError> {
        self.index.ended_grants(clock::timestamp(), most)
    }

    /// Removes grants that have ended. One that was given anew meanwhile stays.
    pub async fn remove_grants(&self, ended: Vec<EndedGrant>) -> Result<(), StoreError> {
        self.index.remove_grants(ended, clock::timestamp()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store_with(bytes: &[u8]) -> (tempfile::TempDir, Arc<Store>, Digest) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &ground::opening::Opening::default()).unwrap();
        let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
        ingest.write(bytes).unwrap();
        let digest = Digest::sha256(bytes);
        let repository: RepositoryName = "demo/a".parse().unwrap();
        store.seal(ingest, digest, Some((&repository, Duration::from_secs(60)))).await.unwrap();
        (folder, store, digest)
    }

    #[tokio::test]
    async fn all_blobs_can_be_read_one_after_the_other_and_a_restart_goes_on_there() {
        let (folder, store, digest) = store_with(b"hello").await;
        let mut all = vec![digest];
        for text in [&b"a"[..], b"b", b"c"] {
            let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
            ingest.write(text).unwrap();
            all.push(Digest::sha256(text));
            store.seal(ingest, all[all.len() - 1], None).await.unwrap();
        }
        all.sort_by_key(Digest::to_key);
        let mut position = store.scrub_position();
        assert_eq!(position, Position::default());
        let mut found = Vec::new();
        while let [(digest, size)] = store.held_after(position.after.as_ref(), 1).unwrap()[..] {
            let pause = |_| Duration::ZERO;
            let sound = store.is_sound_slowly(&digest, pause).await.unwrap() == Some(true);
            position.read(digest, size, sound);
            store.note_scrub_position(&position).unwrap();
            assert_eq!(store.scrub_position(), position);
            found.push(digest);
        }
        assert_eq!(found, all);
        assert_eq!((position.blobs, position.bytes, position.damaged), (4, 8, 0));
        fs::write(store.path(&digest), b"hullo").unwrap();
        let pause = |_| Duration::ZERO;
        assert_eq!(store.is_sound_slowly(&digest, pause).await.unwrap(), Some(false));
        fs::remove_file(store.path(&digest)).unwrap();
        assert_eq!(store.is_sound_slowly(&digest, pause).await.unwrap(), None);
        fs::write(folder.path().join(SCRUB), b"\xff").unwrap();
        assert_eq!(store.scrub_position(), Position::default());
    }

    #[tokio::test]
    async fn whether_an_ingest_is_whole_can_be_asked_before_it_is_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &ground::opening::Opening::default()).unwrap();
        for (bytes, whole) in [(b"hello", true), (b"hullo", false)] {
            let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
            ingest.write(bytes).unwrap();
            let digest = Digest::sha256(b"hello");
            assert_eq!((ingest.is_whole(&digest), ingest.is_whole(&digest)), (whole, whole));
            assert_eq!(store.seal(ingest, digest, None).await.is_ok(), whole);
        }
    }

    #[tokio::test]
    async fn free_space_is_told_while_there_is_a_file_system() {
        let (folder, store, _) = store_with(b"hello").await;
        assert!(store.free_on_disk().is_some_and(|free| free > 0));
        drop(folder);
        assert_eq!(store.free_on_disk(), None);
    }

    #[tokio::test]
    async fn a_sealed_blob_is_held_over_a_restart_and_granted_only_where_it_was_uploaded() {
        let (folder, store, digest) = store_with(b"hello").await;
        drop(store);
        let store = Store::open(folder.path(), None, &ground::opening::Opening::default()).unwrap();
        let stock = store.stock(&digest, Some(&"demo/a".parse().unwrap())).unwrap();
        assert!(stock.granted);
        assert_eq!(stock.held.unwrap().size, 5);
        assert!(!store.granted(&digest, &"demo/b".parse().unwrap()).unwrap());
        assert!(store.ended_grants(10).unwrap().is_empty());
        assert!(store.revoke(digest, &"demo/a".parse().unwrap()).await.unwrap());
        assert!(!store.granted(&digest, &"demo/a".parse().unwrap()).unwrap());
        assert!(!store.revoke(digest, &"demo/a".parse().unwrap()).await.unwrap(), "once");
        // otherwise nobody would ever report its blob, which stayed until all blobs were read again
        let ended = store.ended_grants(10).unwrap();
        assert_eq!(ended.iter().map(|(_, of)| *of).collect::<Vec<_>>(), [digest]);
    }

    #[tokio::test]
    async fn wrong_bytes_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &ground::opening::Opening::default()).unwrap();
        let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
        ingest.write(b"hello").unwrap();
        let expected = Digest::sha256(b"other");
        assert!(matches!(store.seal(ingest, expected, None).await, Err(StoreError::Digest { .. })));
        assert!(store.held(&expected).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path().join("arriving")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_blob_named_by_sha512_is_checked_by_sha512() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &ground::opening::Opening::default()).unwrap();
        let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
        ingest.write(b"hello").unwrap();
        let digest = Digest::of(Algorithm::Sha512, b"hello");
        store.seal(ingest, digest, None).await.unwrap();
        assert!(store.open_blob(&digest).await.unwrap().is_some());
    }

    async fn cache(store: &Arc<Store>, bytes: &[u8]) -> Digest {
        let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
        ingest.write(bytes).unwrap();
        let digest = Digest::sha256(bytes);
        store.seal_cached(ingest, digest).await.unwrap();
        digest
    }

    #[tokio::test]
    async fn the_budget_evicts_the_least_recently_used_but_nothing_kept_and_nothing_being_read() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(folder.path(), Some(250), &ground::opening::Opening::default()).unwrap();
        let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
        ingest.write(&[9; 1000]).unwrap();
        let kept = Digest::sha256(&[9; 1000]);
        store.seal(ingest, kept, None).await.unwrap();
        let first = cache(&store, &[1; 100]).await;
        let reading = store.open_blob(&first).await.unwrap().unwrap();
        let second = cache(&store, &[2; 100]).await;
        assert_eq!(store.cached(), (2, 200, Some(250)));
        let third = cache(&store, &[3; 100]).await;
        assert!(store.held(&second).unwrap().is_none() && !store.path(&second).exists());
        assert!(store.held(&first).unwrap().is_some() && store.held(&third).unwrap().is_some());
        assert!(store.held(&kept).unwrap().is_some());
        drop(reading);
        store.make_room(100).await.unwrap();
        assert!(
            store.held(&first).unwrap().is_none()
                && store.open_blob(&first).await.unwrap().is_none()
        );
        assert!(store.stock(&third, None).unwrap().cached);
        store.keep(&third).await.unwrap();
        store.make_room(250).await.unwrap();
        assert!(
            store.held(&third).unwrap().is_some() && !store.stock(&third, None).unwrap().cached
        );
    }

    /// Else the reading of all blobs would make the next one to evict a matter of digests.
    #[tokio::test]
    async fn to_check_a_cached_blob_is_no_use_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(folder.path(), Some(250), &ground::opening::Opening::default()).unwrap();
        let mut known = Vec::new();
        for byte in [1, 2] {
            known.push(cache(&store, &[byte; 100]).await);
            // times are in milliseconds
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        assert!(store.is_sound(&known[0]).await.unwrap());
        cache(&store, &[3; 100]).await;
        assert!(store.held(&known[0]).unwrap().is_none(), "it is the least recently used");
        assert!(store.held(&known[1]).unwrap().is_some());
    }

    #[tokio::test]
    async fn room_that_was_reserved_is_not_reserved_again_until_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &ground::opening::Opening::default()).unwrap();
        let (free, all) = store.room.free().unwrap();
        let ingest = || store.ingest(Algorithm::Sha256).unwrap();
        let full = |result: Result<Ingest, StoreError>| matches!(result, Err(StoreError::Disk(e)) if e.kind() == std::io::ErrorKind::StorageFull);
        // larger than the disk, as somebody may say that a blob is
        assert!(full(store.reserve(ingest(), u64::MAX).await));
        assert!(full(store.reserve(ingest(), all + 1).await));
        let most = free / 3 * 2;
        let first = store.reserve(ingest(), most).await.unwrap();
        assert!(full(store.reserve(ingest(), most).await), "it is promised to another");
        assert!(store.reserve(ingest(), 1000).await.is_ok(), "what is left is for others");
        drop(first);
        let mut second = store.reserve(ingest(), most).await.unwrap();
        second.write(&[1; 1000]).unwrap();
        assert!(store.reserve(second, most).await.is_ok(), "it has its room already");
    }

    #[tokio::test]
    async fn what_is_cached_is_known_over_a_restart_and_an_upload_makes_it_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(folder.path(), Some(1000), &ground::opening::Opening::default()).unwrap();
        let (a, b) = (cache(&store, &[1; 100]).await, cache(&store, &[2; 100]).await);
        store.open_blob(&a).await.unwrap();
        store.note_uses().await.unwrap();
        let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
        ingest.write(&[2; 100]).unwrap();
        store.seal(ingest, b, None).await.unwrap();
        drop(store);
        let store =
            Store::open(folder.path(), Some(120), &ground::opening::Opening::default()).unwrap();
        assert_eq!(store.cached(), (1, 100, Some(120)));
        store.make_room(50).await.unwrap();
        assert!(store.held(&a).unwrap().is_none() && store.held(&b).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_lost_file_is_noticed_and_no_longer_held() {
        let (_folder, store, digest) = store_with(b"hello").await;
        fs::remove_file(store.path(&digest)).unwrap();
        assert!(store.open_blob(&digest).await.unwrap().is_none());
        assert!(store.held(&digest).unwrap().is_none());
        assert_eq!(cache(&store, b"hello").await, digest);
        assert!(
            !store.stock(&digest, None).unwrap().cached,
            "it was kept for good before it was lost"
        );
    }

    #[tokio::test]
    async fn what_was_uploaded_while_it_was_fetched_for_a_pull_is_kept() {
        let (_folder, store, digest) = store_with(b"hello").await;
        assert_eq!(cache(&store, b"hello").await, digest);
        assert!(!store.stock(&digest, None).unwrap().cached);
        assert_eq!(store.cached().0, 0);
    }

    #[tokio::test]
    async fn clients_are_not_given_what_is_damaged_until_it_was_replaced() {
        let (folder, store, digest) = store_with(b"hello").await;
        store.note_damaged(&digest);
        drop(store);
        let store = Store::open(folder.path(), None, &ground::opening::Opening::default()).unwrap();
        assert!(store.open_sound(&digest).await.unwrap().is_none(), "it is not forgotten");
        assert!(store.open_blob(&digest).await.unwrap().is_some(), "peers check what they get");
        cache(&store, b"hello").await;
        assert!(store.open_sound(&digest).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn files_that_nobody_believes_in_are_removed() {
        let (_folder, store, digest) = store_with(b"hello").await;
        let stray = store.path(&Digest::sha256(b"stray"));
        fs::create_dir_all(stray.parent().unwrap()).unwrap();
        fs::write(&stray, b"stray").unwrap();
        assert_eq!(store.remove_strays().await.unwrap(), 1);
        assert!(!stray.exists() && store.open_blob(&digest).await.unwrap().is_some());
        assert_eq!(store.remove_strays().await.unwrap(), 0);
        store.forget(digest).await.unwrap();
        assert_eq!(
            store.remove_strays().await.unwrap(),
            0,
            "an index without any blob may be a new one"
        );
        assert!(store.path(&digest).exists());
    }

    #[tokio::test]
    async fn what_is_larger_than_the_budget_takes_nothing_elses_place() {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(folder.path(), Some(250), &ground::opening::Opening::default()).unwrap();
        let small = cache(&store, &[1; 100]).await;
        store.make_room(300).await.unwrap();
        let large = cache(&store, &[2; 300]).await;
        assert!(store.held(&small).unwrap().is_some() && store.held(&large).unwrap().is_none());
        assert_eq!(store.cached(), (1, 100, Some(250)));
    }

    #[tokio::test]
    async fn what_was_granted_in_a_project_is_not_in_a_later_one_of_that_name() {
        use std::sync::atomic::{AtomicU64, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &ground::opening::Opening::default()).unwrap();
        let number = Arc::new(AtomicU64::new(7));
        let now = number.clone();
        store.know_projects(Box::new(move |_| {
            Some(now.load(Ordering::Relaxed)).filter(|number| *number > 0)
        }));
        let (place, other) = ("vault/keys".parse().unwrap(), "vaults/keys".parse().unwrap());
        let digests = [b"a", b"b"].map(|bytes| Digest::sha256(bytes));
        let lasts = Duration::from_secs(60);
        for repository in [&place, &other] {
            store.grant(digests[0], repository, lasts).await.unwrap();
            assert!(store.granted(&digests[0], repository).unwrap());
        }
        for later in [0, 8] {
            number.store(later, Ordering::Relaxed);
            assert!(!store.granted(&digests[0], &place).unwrap());
            assert!(!store.granted_within(&digests[0], &place.project()).unwrap());
        }
        // nor after something was granted in the later one, which does not prolong it either
        store.grant(digests[1], &place, lasts).await.unwrap();
        store.extend_grants(&place, lasts * 2).await.unwrap();
        assert!(store.granted(&digests[1], &place).unwrap());
        assert!(!store.granted(&digests[0], &place).unwrap());
        assert_eq!(store.ended_grants(9).unwrap().len(), 1, "its blob can be collected");
        number.store(7, Ordering::Relaxed);
        assert!(store.granted(&digests[0], &other).unwrap(), "another project has what it had");
    }
}
