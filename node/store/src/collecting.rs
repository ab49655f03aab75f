//! What was collected leaves the disk.

use std::collections::HashSet;

use ground::clock;
use rules::words::digest::Digest;

use super::{Store, StoreError};

impl Store {
    /// The blobs that are granted in any repository now: a push counts on them.
    pub fn all_granted(&self) -> Result<HashSet<Digest>, StoreError> {
        self.index.all_granted(clock::timestamp())
    }

    /// Whether a blob is held, and kept for good.
    pub fn is_kept(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.held(digest)?.is_some() && !self.eviction.is_cached(digest))
    }

    /// Removes the bytes of those of `digests` of which `is_garbage` says so, unless they are
    /// granted here or only cached. Nothing becomes held meanwhile, so pass few at a time. Whoever
    /// reads one of them reads to its end. Returns the number of blobs and of their bytes.
    pub async fn collect(
        &self,
        digests: &[Digest],
        is_garbage: impl Fn(&Digest) -> Result<bool, StoreError>,
    ) -> Result<(u64, u64), StoreError> {
        let _alone = self.eviction.alone().await;
        let mut garbage = Vec::new();
        for digest in digests {
            if is_garbage(digest)? {
                garbage.push(*digest);
            }
        }
        let gone = self.index.collect(garbage, clock::timestamp()).await?;
        // a crash from here on leaves strays, and so does an error
        let digests: Vec<Digest> = gone.iter().map(|(digest, _)| *digest).collect();
        let _ = self.backend.remove(digests.clone()).await;
        digests.iter().for_each(|digest| self.note_sound(digest));
        self.drop_outboards(digests).await;
        Ok((gone.len() as u64, gone.iter().map(|(_, size)| size).sum()))
    }

    /// The number of the last collection of the ledger that was carried out here.
    pub fn collected(&self) -> Result<u64, StoreError> {
        self.index.collected()
    }

    /// All collections of the ledger up to this one were carried out here.
    pub async fn note_collected(&self, number: u64) -> Result<(), StoreError> {
        self.index.note_collected(number).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rules::words::names::RepositoryName;

    use super::*;
    use crate::rig::Rig;

    async fn granted(store: &Arc<Store>, bytes: &[u8], millis: u64) -> Digest {
        let (digest, place): (_, RepositoryName) =
            (Digest::sha256(bytes), "demo/a".parse().unwrap());
        let grant = Some((&place, Duration::from_millis(millis)));
        store.seal(store.ingested(bytes), digest, grant).await.unwrap();
        digest
    }

    #[tokio::test]
    async fn garbage_leaves_the_disk_and_what_a_push_counts_on_or_is_cached_stays() {
        for rig in Rig::each() {
            let store = rig.store(None);
            let garbage = store.kept(b"garbage").await;
            let live = store.kept(b"live").await;
            let pushed = granted(&store, b"pushed", 60_000).await;
            let late = granted(&store, b"late", 0).await;
            let cached = store.kept_cached(b"cached").await;
            assert_eq!(store.all_granted().unwrap(), [pushed].into());
            let reading = store.open_blob(&garbage).await.unwrap().unwrap();
            let all = [garbage, live, pushed, late, cached];
            let gone = store.collect(&all, |digest| Ok(*digest != live)).await.unwrap();
            assert_eq!(gone, (2, 11));
            for (digest, stays) in [(garbage, false), (live, true), (pushed, true), (late, false)] {
                assert_eq!(store.is_kept(&digest).unwrap(), stays, "{digest}");
                assert_eq!(store.has_bytes(digest).await, stays);
            }
            assert!(store.held(&cached).unwrap().is_some() && !store.is_kept(&cached).unwrap());
            let mut bytes = [0; 7];
            reading.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(&bytes, b"garbage");
            // it can come back
            let again = store.kept(b"garbage").await;
            assert!(store.is_kept(&again).unwrap());
            store.note_collected(7).await.unwrap();
            drop(store);
            let store = rig.store(None);
            assert_eq!(store.collected().unwrap(), 7);
            let ended = store.ended_grants(10).unwrap();
            assert!(ended.len() == 1 && ended[0].1 == late);
            assert_eq!(store.ended_grants(10).unwrap(), ended, "until they are removed");
            store.remove_grants(vec![ended[0].0.clone()]).await.unwrap();
            assert_eq!(store.ended_grants(10).unwrap(), []);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_judged_is_not_collected() {
        for rig in Rig::each() {
            let store = rig.store(None);
            let (a, b) = (store.kept(b"a").await, store.kept(b"b").await);
            let unknown = |digest: &Digest| match *digest == b {
                true => Err(StoreError::Index("no".into())),
                false => Ok(true),
            };
            assert!(store.collect(&[a, b], unknown).await.is_err());
            assert!(store.is_kept(&a).unwrap() && store.is_kept(&b).unwrap());
        }
    }
}
