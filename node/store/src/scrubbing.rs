//! Reading of blobs to see whether they still are what they were, and how far that is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ground::supervise::blocking;
use rules::blobs::scrubbing::Position;
use rules::words::digest::{Digest, Hasher};

use super::{Store, StoreError};

/// The file that says how far the reading of all blobs is.
const SCRUB: &str = "scrub";
/// The size of the pieces in which a blob is read to check it.
const PIECE: usize = 1 << 20;

/// The note of how far the reading of all blobs is.
pub(super) struct Scrubbed(PathBuf);

impl Scrubbed {
    pub(super) fn of(data_dir: &Path) -> Self {
        Scrubbed(data_dir.join(SCRUB))
    }
}

impl Store {
    /// Whether the bytes of a held blob still hash to its digest. Reads all of them, which is no
    /// use of the blob. True for a blob that is not held.
    pub async fn is_sound(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.is_sound_slowly(digest, |_| Duration::ZERO).await?.unwrap_or(true))
    }

    /// The same, waiting after each piece for as long as `pause` says of its length. `None` if the
    /// blob is not held, or its bytes were lost.
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
            let blob = blob.clone();
            let read = blocking(move || -> std::io::Result<_> {
                blob.read_exact_at(&mut piece[..length], at)?;
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
        let read = fs::read(&self.scrubbed.0).ok();
        read.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default()
    }

    /// Remembers where the reading of all blobs is. Nothing is lost but time if this is lost.
    pub fn note_scrub_position(&self, position: &Position) -> Result<(), StoreError> {
        let bytes = postcard::to_stdvec(position).map_err(|e| StoreError::Index(e.to_string()))?;
        let partial = self.scrubbed.0.with_extension("partial");
        fs::write(&partial, bytes)?;
        Ok(fs::rename(partial, &self.scrubbed.0)?)
    }
}
