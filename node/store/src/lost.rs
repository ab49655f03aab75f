//! Blobs whose files are gone, though the index has them: a disk was mounted elsewhere, or somebody has
//! removed them.

use rules::blobs::holding::Held;
use rules::words::digest::Digest;

use super::{Store, StoreError};

impl Store {
    /// Whether the file of a held blob is there, with its length. It is not read.
    pub(super) fn has_file(&self, digest: &Digest, held: &Held) -> bool {
        std::fs::metadata(self.path(digest)).is_ok_and(|about| about.len() == held.size)
    }

    /// Of these blobs, those that are kept for good by the index and have no file (any more).
    pub fn without_file(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let mut lost = Vec::new();
        for digest in digests {
            if let Some(held) = self.held(digest)?
                && !self.eviction.is_cached(digest)
                && !self.has_file(digest, &held)
            {
                lost.push(*digest);
            }
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rules::words::digest::Algorithm;

    use super::*;

    async fn keep(store: &Arc<Store>, bytes: &[u8]) -> Digest {
        let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
        ingest.write(bytes).unwrap();
        store.seal(ingest, Digest::sha256(bytes), None).await.unwrap();
        Digest::sha256(bytes)
    }

    /// A node once counted as one that keeps what was in its index only, and the last copy was
    /// removed.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_has_no_file_is_not_held_and_what_is_damaged_is_not_counted_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &ground::opening::Opening::default()).unwrap();
        let (gone, short) = (keep(&store, b"gone").await, keep(&store, b"short").await);
        let (bad, sound) = (keep(&store, b"bad").await, keep(&store, b"sound").await);
        std::fs::remove_file(store.path(&gone)).unwrap();
        std::fs::write(store.path(&short), b"sho").unwrap();
        store.note_damaged(&bad);
        let stock = |digest| store.stock(&digest, None).unwrap();
        assert!(stock(gone).held.is_none() && stock(short).held.is_none());
        assert!(stock(bad).held.is_some() && stock(bad).cached, "a source, and no more");
        assert!(stock(sound).held.is_some() && !stock(sound).cached);
        let all = [gone, short, bad, sound];
        assert_eq!(store.without_file(&all).unwrap(), [gone, short]);
        // whoever wants to keep it has to fetch it
        assert!(store.keep(&gone).await.unwrap().is_none());
        assert!(store.keep(&sound).await.unwrap().is_some());
        assert_eq!(store.without_file(&all).unwrap(), [short], "the index knows it now");
        keep(&store, b"gone").await;
        assert!(stock(gone).held.is_some());
    }
}
