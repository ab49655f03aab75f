//! Blobs whose bytes are gone, though the index has them: a disk was mounted elsewhere, or somebody
//! has removed them.

use rules::words::digest::Digest;

use super::{Store, StoreError};

impl Store {
    /// Of these blobs, those that are kept for good by the index and have no bytes (any more).
    pub async fn without_bytes(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let (mut kept, mut sizes) = (Vec::new(), Vec::new());
        for digest in digests {
            if let Some(held) = self.held(digest)?
                && !self.eviction.is_cached(digest)
            {
                kept.push(*digest);
                sizes.push(held.size);
            }
        }
        let lengths = self.backend.lengths(kept.clone()).await?;
        let found = kept.into_iter().zip(sizes).zip(lengths);
        Ok(found
            .filter(|((_, size), length)| *length != Some(*size))
            .map(|((d, _), _)| d)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::rig::Rig;

    /// A node once counted as one that keeps what was in its index only, and the last copy was
    /// removed.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_has_no_bytes_is_not_held_and_what_is_damaged_is_not_counted_on() {
        for rig in Rig::each() {
            let store = rig.store(None);
            let (gone, short) = (store.kept(b"gone").await, store.kept(b"short").await);
            let (bad, sound) = (store.kept(b"bad").await, store.kept(b"sound").await);
            store.lose(gone).await;
            store.overwrite(short, b"sho").await;
            store.note_damaged(&bad);
            let all = [gone, short, bad, sound];
            let stocks = store.stocks(&all, None).await.unwrap();
            assert!(stocks[0].held.is_none() && stocks[1].held.is_none());
            assert!(stocks[2].held.is_some() && stocks[2].cached, "a source, and no more");
            assert!(stocks[3].held.is_some() && !stocks[3].cached);
            for (digest, stock) in all.iter().zip(stocks) {
                assert_eq!(store.stock(digest, None).await.unwrap(), stock);
            }
            assert_eq!(store.without_bytes(&all).await.unwrap(), [gone, short]);
            // whoever wants to keep it has to fetch it
            assert!(store.keep(&gone).await.unwrap().is_none());
            assert!(store.keep(&sound).await.unwrap().is_some());
            let lost = store.without_bytes(&all).await.unwrap();
            assert_eq!(lost, [short], "the index knows it now");
            store.kept(b"gone").await;
            assert!(store.stock(&gone, None).await.unwrap().held.is_some());
        }
    }
}
