//! The lists of blobs' groups, each in a file beside the blobs.
//!
//! A list is used only after it was checked against the blob's content hash, and can always be
//! computed again from the bytes. So it is not fsynced, and may be missing (after a crash, or from
//! an older version) or damaged. Only its removal must go together with the blob's. Blobs of one
//! group have no list.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ground::supervise::blocking;
use rules::blobs::groups::{GroupHasher, Groups};
use rules::blobs::holding::Held;
use rules::words::digest::Digest;
use tracing::{error, info, warn};

use super::{OpenBlob, Store, StoreError};

/// The size of the pieces in which a blob is read to compute its list again.
const PIECE: usize = 1 << 20;

/// The bytes on disk are no longer the blob.
struct Damaged;

impl Store {
    fn outboard_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.folder.join("outboards").join(digest.algorithm().name()).join(&hex[..2]).join(hex)
    }

    /// Stores a blob's list. If this fails, the list is only computed again later.
    pub(super) fn keep_outboard(&self, digest: &Digest, list: &[u8]) {
        let path = self.outboard_path(digest);
        let write = || match (path.parent(), list.is_empty()) {
            (Some(folder), false) => {
                fs::create_dir_all(folder).and_then(|()| fs::write(&path, list))
            }
            _ => Ok(()),
        };
        if let Err(error) = write() {
            warn!(%digest, %error, "the list of a blob's groups could not be written; it will be computed again");
        }
    }

    /// Removes the list of a blob that is no longer held.
    pub(super) fn drop_outboard(&self, digest: &Digest) {
        match fs::remove_file(self.outboard_path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%digest, %error, "the list of a blob's groups could not be removed");
            }
            _ => {}
        }
    }

    /// The groups of a held blob, from the list's file, or, if that is missing or damaged, from the
    /// blob's bytes. `None` for a blob that is too long for a list, and for one whose bytes turn
    /// out to be damaged, which is then no longer held.
    ///
    /// As long as the list is good, the bytes themselves are not checked: the receiver does that.
    pub async fn groups(
        self: &Arc<Self>,
        digest: Digest,
        blob: &OpenBlob,
    ) -> Result<Option<Groups>, StoreError> {
        let held = blob.held;
        if !Groups::checkable(held.size) {
            return Ok(None);
        }
        if let Some(groups) = self.read_outboard(digest, held).await? {
            return Ok(Some(groups));
        }
        // one at a time: many requests may want the same list, and each would read a whole blob
        let _turn = self.rebuilding.lock().await;
        if let Some(groups) = self.read_outboard(digest, held).await? {
            return Ok(Some(groups));
        }
        metrics::counter!("atoll_outboards_rebuilt_total").increment(1);
        let (store, file) = (self.clone(), blob.file.clone());
        let rebuilt = blocking(move || store.rebuild_outboard(digest, held, &file))
            .await
            .map_err(|e| StoreError::Index(e.to_string()))??;
        match rebuilt {
            Ok(groups) => Ok(Some(groups)),
            Err(Damaged) => {
                error!(%digest, "a held blob's bytes are damaged on the disk; it will be fetched again");
                self.forget(digest).await?;
                Ok(None)
            }
        }
    }

    async fn read_outboard(
        self: &Arc<Self>,
        digest: Digest,
        held: Held,
    ) -> Result<Option<Groups>, StoreError> {
        if !Groups::listed(held.size) {
            return Ok(Groups::from_list(&[], held.content, held.size).ok());
        }
        let path = self.outboard_path(&digest);
        let read = move || match fs::read(path) {
            Ok(list) => {
                let groups = Groups::from_list(&list, held.content, held.size);
                if groups.is_err() {
                    warn!(%digest, "the list of a blob's groups is damaged; it is computed again");
                }
                Ok(groups.ok())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        Ok(blocking(read).await.map_err(|e| StoreError::Index(e.to_string()))??)
    }

    fn rebuild_outboard(
        &self,
        digest: Digest,
        held: Held,
        file: &File,
    ) -> Result<Result<Groups, Damaged>, io::Error> {
        use std::os::unix::fs::FileExt;
        let (mut hasher, mut piece, mut at) = (GroupHasher::new(), vec![0; PIECE], 0);
        loop {
            match file.read_at(&mut piece, at)? {
                0 => break,
                n => {
                    hasher.update(&piece[..n]);
                    at += n as u64;
                }
            }
        }
        let (content, list) = hasher.finish();
        let list = list.unwrap_or_default();
        let groups = Groups::from_list(&list, held.content, held.size)
            .ok()
            .filter(|_| content == held.content);
        if groups.is_some() {
            self.keep_outboard(&digest, &list);
            info!(%digest, "the list of a blob's groups was computed again");
        }
        Ok(groups.ok_or(Damaged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rules::blobs::groups::GROUP;
    use rules::words::digest::Algorithm;

    async fn stored(bytes: &[u8]) -> (tempfile::TempDir, Arc<Store>, Digest) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), None, &ground::opening::Opening::default()).unwrap();
        let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
        ingest.write(bytes).unwrap();
        let digest = Digest::sha256(bytes);
        store.seal(ingest, digest, None).await.unwrap();
        (folder, store, digest)
    }

    async fn groups(store: &Arc<Store>, digest: Digest) -> Option<Groups> {
        let blob = store.open_blob(&digest).await.unwrap().unwrap();
        store.groups(digest, &blob).await.unwrap()
    }

    #[tokio::test]
    async fn a_list_is_made_at_the_seal_and_made_anew_when_it_is_damaged_or_missing() {
        let bytes = vec![7; 3 * GROUP + 1];
        let (_folder, store, digest) = stored(&bytes).await;
        let path = store.outboard_path(&digest);
        let good = fs::read(&path).unwrap();
        assert_eq!(good.len(), 4 * 32);
        for damage in [Some(vec![0; 4 * 32]), Some(good[..32].to_vec()), Some(Vec::new()), None] {
            match damage {
                Some(bad) => fs::write(&path, bad).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            assert_eq!(groups(&store, digest).await.unwrap().list(), good);
            assert_eq!(fs::read(&path).unwrap(), good);
        }
    }

    #[tokio::test]
    async fn a_blob_of_one_group_has_no_list_and_is_checked_all_the_same() {
        let (_folder, store, digest) = stored(&[7; GROUP]).await;
        assert!(!store.outboard_path(&digest).exists());
        assert!(groups(&store, digest).await.unwrap().verify(0, vec![7; GROUP]).is_some());
    }

    #[tokio::test]
    async fn bytes_found_damaged_are_no_longer_held() {
        let (_folder, store, digest) = stored(&vec![7; 2 * GROUP]).await;
        let mut bytes = vec![7; 2 * GROUP];
        bytes[GROUP + 1] = 8;
        fs::write(store.path(&digest), bytes).unwrap();
        assert!(
            groups(&store, digest).await.is_some(),
            "while the list is good nobody reads the bytes"
        );
        fs::remove_file(store.outboard_path(&digest)).unwrap();
        assert!(groups(&store, digest).await.is_none());
        assert!(store.open_blob(&digest).await.unwrap().is_none());
    }
}
