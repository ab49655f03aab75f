//! What was collected leaves the disk.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use ground::clock;
use ground::supervise::blocking;
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
        // a crash from here on leaves files that are removed as strays
        let paths: Vec<PathBuf> = gone.iter().map(|(digest, _)| self.path(digest)).collect();
        let _ = blocking(move || paths.iter().for_each(|path| drop(fs::remove_file(path)))).await;
        for (digest, _) in &gone {
            self.drop_outboard(digest);
            self.note_sound(digest);
        }
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

    use rules::words::digest::Algorithm;
    use rules::words::names::RepositoryName;

    use super::*;

    async fn seal(store: &Arc<Store>, bytes: &[u8], granted: Option<u64>) -> Digest {
        let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
        ingest.write(bytes).unwrap();
        let (digest, place): (_, RepositoryName) =
            (Digest::sha256(bytes), "demo/a".parse().unwrap());
        let grant = granted.map(|millis| (&place, Duration::from_millis(millis)));
        store.seal(ingest, digest, grant).await.unwrap();
        digest
    }

    #[tokio::test]
    async fn garbage_leaves_the_disk_and_what_a_push_counts_on_or_is_cached_stays() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Store::open(folder.path(), None, &ground::opening::Opening::default());
        let store = open().unwrap();
        let garbage = seal(&store, b"garbage", None).await;
        let live = seal(&store, b"live", None).await;
        let pushed = seal(&store, b"pushed", Some(60_000)).await;
        let late = seal(&store, b"late", Some(0)).await;
        let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
        ingest.write(b"cached").unwrap();
        let cached = Digest::sha256(b"cached");
        store.seal_cached(ingest, cached).await.unwrap();
        assert_eq!(store.all_granted().unwrap(), [pushed].into());
        let reading = store.open_blob(&garbage).await.unwrap().unwrap();
        let all = [garbage, live, pushed, late, cached];
        let gone = store.collect(&all, |digest| Ok(*digest != live)).await.unwrap();
        assert_eq!(gone, (2, 11));
        for (digest, stays) in [(garbage, false), (live, true), (pushed, true), (late, false)] {
            assert_eq!(store.is_kept(&digest).unwrap(), stays, "{digest}");
            assert_eq!(store.path(&digest).exists(), stays);
        }
        assert!(store.held(&cached).unwrap().is_some() && !store.is_kept(&cached).unwrap());
        let mut bytes = [0; 7];
        std::os::unix::fs::FileExt::read_exact_at(&*reading.file, &mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"garbage");
        // it can come back
        let again = seal(&store, b"garbage", None).await;
        assert!(store.is_kept(&again).unwrap());
        store.note_collected(7).await.unwrap();
        drop(store);
        let store = open().unwrap();
        assert_eq!(store.collected().unwrap(), 7);
        let ended = store.ended_grants(10).unwrap();
        assert!(ended.len() == 1 && ended[0].1 == late);
        assert_eq!(store.ended_grants(10).unwrap(), ended, "until they are removed");
        store.remove_grants(vec![ended[0].0.clone()]).await.unwrap();
        assert_eq!(store.ended_grants(10).unwrap(), []);
    }

    #[tokio::test]
    async fn what_cannot_be_judged_is_not_collected() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &ground::opening::Opening::default()).unwrap();
        let (a, b) = (seal(&store, b"a", None).await, seal(&store, b"b", None).await);
        let unknown = |digest: &Digest| match *digest == b {
            true => Err(StoreError::Index("no".into())),
            false => Ok(true),
        };
        assert!(store.collect(&[a, b], unknown).await.is_err());
        assert!(store.is_kept(&a).unwrap() && store.is_kept(&b).unwrap());
    }
}
