//! Blobs that the backend has and the index lacks: a crash leaves them between the two.

use ground::supervise::at_length;
use rules::words::digest::Digest;

use super::{Store, StoreError};

/// The number of blobs that are looked at together. Nothing becomes held while their strays are
/// removed.
const PAGE: usize = 1000;

impl Store {
    /// Removes bytes of blobs that are not held. A crash leaves such bytes between the naming and
    /// the update of the index, or during an eviction. Returns how many were removed. Works on some
    /// at a time, so that nothing has to wait for long. If the index contains no blob at all
    /// (because it was deleted), nothing is removed.
    pub async fn remove_strays(&self) -> Result<u64, StoreError> {
        let mut removed = 0;
        if self.index.is_empty()? {
            return Ok(removed);
        }
        let mut after = None;
        loop {
            let page = self.backend.list(after, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(removed) };
            after = Some(*last);
            // what was given its name is held before this continues
            let _alone = self.eviction.alone().await;
            let strays = at_length(|| {
                let mut strays = Vec::new();
                for (digest, _) in &page {
                    if self.held(digest)?.is_none() {
                        strays.push(*digest);
                    }
                }
                Ok::<Vec<Digest>, StoreError>(strays)
            })?;
            if !strays.is_empty() {
                self.backend.remove(strays.clone()).await?;
                removed += strays.len() as u64;
                self.drop_outboards(strays).await;
            }
        }
    }
}
