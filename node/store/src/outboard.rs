//! The lists of blobs' groups.
//!
//! A list is used only after it was checked against the blob's content hash, and can always be
//! computed again from the bytes. So it may be missing (after a crash, or from an older version) or
//! damaged. Only its removal must go together with the blob's. Blobs of one group have no list.

use std::io;

use ground::supervise::blocking;
use rules::blobs::groups::{GroupHasher, Groups};
use rules::blobs::holding::Held;
use rules::words::digest::Digest;
use tracing::{error, info, warn};

use super::backend::ReadAt;
use super::{OpenBlob, Store, StoreError};

/// The size of the pieces in which a blob is read to compute its list again.
const PIECE: usize = 1 << 20;

impl Store {
    /// Stores a blob's list. If this fails, the list is only computed again later.
    pub(super) async fn keep_outboard(&self, digest: Digest, list: Vec<u8>) {
        if !list.is_empty()
            && let Err(error) = self.backend.keep_outboard(digest, list).await
        {
            warn!(%digest, %error, "the list of a blob's groups could not be written; it will be computed again");
        }
    }

    /// Removes the lists of blobs that are no longer held.
    pub(super) async fn drop_outboards(&self, digests: Vec<Digest>) {
        if let Err(error) = self.backend.drop_outboards(digests).await {
            warn!(%error, "the list of a blob's groups could not be removed");
        }
    }

    /// The groups of a held blob, from its list, or, if that is missing or damaged, from the blob's
    /// bytes. `None` for a blob that is too long for a list, and for one whose bytes turn out to be
    /// damaged, which is then no longer held.
    ///
    /// As long as the list is good, the bytes themselves are not checked: the receiver does that.
    pub async fn groups(
        &self,
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
        let bytes = blob.bytes.clone();
        let rebuilt = blocking(move || groups_of(&*bytes, held));
        match rebuilt.await.map_err(|e| StoreError::Index(e.to_string()))?? {
            Some((groups, list)) => {
                self.keep_outboard(digest, list).await;
                info!(%digest, "the list of a blob's groups was computed again");
                Ok(Some(groups))
            }
            None => {
                error!(%digest, "a held blob's bytes are damaged on the disk; it will be fetched again");
                self.forget(digest).await?;
                Ok(None)
            }
        }
    }

    async fn read_outboard(
        &self,
        digest: Digest,
        held: Held,
    ) -> Result<Option<Groups>, StoreError> {
        if !Groups::listed(held.size) {
            return Ok(Groups::from_list(&[], held.content, held.size).ok());
        }
        let Some(list) = self.backend.outboard(digest).await? else { return Ok(None) };
        let groups = Groups::from_list(&list, held.content, held.size);
        if groups.is_err() {
            warn!(%digest, "the list of a blob's groups is damaged; it is computed again");
        }
        Ok(groups.ok())
    }
}

/// The groups of a blob and their list, from its bytes; `None` if these are no longer the blob.
fn groups_of(bytes: &dyn ReadAt, held: Held) -> io::Result<Option<(Groups, Vec<u8>)>> {
    let (mut hasher, mut piece, mut at) = (GroupHasher::new(), vec![0; PIECE], 0);
    loop {
        match bytes.read_at(&mut piece, at)? {
            0 => break,
            n => {
                hasher.update(&piece[..n]);
                at += n as u64;
            }
        }
    }
    let (content, list) = hasher.finish();
    let list = list.unwrap_or_default();
    let groups = Groups::from_list(&list, held.content, held.size);
    Ok(groups.ok().filter(|_| content == held.content).map(|groups| (groups, list)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rig::Rig;
    use rules::blobs::groups::GROUP;

    async fn groups(store: &Arc<Store>, digest: Digest) -> Option<Groups> {
        let blob = store.open_blob(&digest).await.unwrap().unwrap();
        store.groups(digest, &blob).await.unwrap()
    }

    #[tokio::test]
    async fn a_list_is_made_at_the_seal_and_made_anew_when_it_is_damaged_or_missing() {
        for rig in Rig::each() {
            let store = rig.store(None);
            let digest = store.kept(&vec![7; 3 * GROUP + 1]).await;
            let kept = async || store.backend.outboard(digest).await.unwrap();
            let good = kept().await.unwrap();
            assert_eq!(good.len(), 4 * 32);
            for damage in [Some(vec![0; 4 * 32]), Some(good[..32].to_vec()), Some(Vec::new()), None]
            {
                match damage {
                    Some(bad) => store.backend.keep_outboard(digest, bad).await.unwrap(),
                    None => store.backend.drop_outboards(vec![digest]).await.unwrap(),
                }
                assert_eq!(groups(&store, digest).await.unwrap().list(), good);
                assert_eq!(kept().await.unwrap(), good);
            }
        }
    }

    #[tokio::test]
    async fn a_blob_of_one_group_has_no_list_and_is_checked_all_the_same() {
        for rig in Rig::each() {
            let store = rig.store(None);
            let digest = store.kept(&[7; GROUP]).await;
            assert_eq!(store.backend.outboard(digest).await.unwrap(), None);
            assert!(groups(&store, digest).await.unwrap().verify(0, vec![7; GROUP]).is_some());
        }
    }

    #[tokio::test]
    async fn bytes_found_damaged_are_no_longer_held() {
        for rig in Rig::each() {
            let store = rig.store(None);
            let mut bytes = vec![7; 2 * GROUP];
            let digest = store.kept(&bytes).await;
            bytes[GROUP + 1] = 8;
            store.overwrite(digest, &bytes).await;
            let found = groups(&store, digest).await;
            assert!(found.is_some(), "while the list is good nobody reads the bytes");
            store.backend.drop_outboards(vec![digest]).await.unwrap();
            assert!(groups(&store, digest).await.is_none());
            assert!(store.open_blob(&digest).await.unwrap().is_none());
        }
    }
}
