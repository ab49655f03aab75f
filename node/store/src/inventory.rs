//! What this node has, counted: what the index says, and what the backend has.

use std::cmp::Ordering;
use std::collections::VecDeque;

use ground::supervise::{at_length, blocking};
use rules::words::digest::Digest;

pub use super::backend::Sum;
use super::{Store, StoreError};

/// The number of blobs that are listed at a time.
const PAGE: usize = 1000;

/// What this node has. It is read while blobs come and go, so it is exact only when nothing does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Blobs that may be evicted.
    pub cached: Sum,
    /// Blobs that are kept for good, with their lengths, which [`Store::inventory`] hands out.
    pub kept: Sum,
    /// The bytes of the budget for cached blobs; `None` if there is no limit.
    pub budget: Option<u64>,
    /// Uploads that are open.
    pub uploads: Sum,
    /// Fetches and copies that are under way.
    pub arriving: Sum,
    /// Held blobs whose bytes are known to be wrong, and that are served to nobody.
    pub quarantined: u64,
    /// Blobs that the backend has and the index does not.
    pub strays: Sum,
    /// Blobs that the index has and whose bytes are missing or have another length.
    pub missing: Vec<Digest>,
}

/// Blobs with their lengths, in order of their digests, page by page.
#[derive(Default)]
struct Pages {
    page: VecDeque<(Digest, u64)>,
    after: Option<Digest>,
    ended: bool,
}

impl Pages {
    /// Whether the next page is needed, which begins behind [`Pages::after`].
    fn is_used_up(&self) -> bool {
        self.page.is_empty() && !self.ended
    }

    fn add(&mut self, page: Vec<(Digest, u64)>) {
        self.ended = page.is_empty();
        self.after = page.last().map(|(last, _)| *last).or(self.after);
        self.page = page.into();
    }
}

impl Store {
    /// Counts everything. `kept` gets each blob that is kept for good, with its length. Goes
    /// through the whole index and all blobs, side by side: both are sorted.
    pub async fn inventory(&self, kept: impl FnMut(Digest, u64)) -> Result<Inventory, StoreError> {
        self.inventory_by(PAGE, kept).await
    }

    async fn inventory_by(
        &self,
        most: usize,
        mut kept: impl FnMut(Digest, u64),
    ) -> Result<Inventory, StoreError> {
        let mut found = Inventory { budget: self.cached().2, ..Inventory::default() };
        let (mut held, mut there) = (Pages::default(), Pages::default());
        loop {
            if held.is_used_up() {
                held.add(at_length(|| self.held_after(held.after.as_ref(), most))?);
            }
            if there.is_used_up() {
                there.add(self.backend.list(there.after, most).await?);
            }
            let order = match (held.page.front(), there.page.front()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((held, _)), Some((there, _))) => held.cmp(there),
            };
            let mut length = None;
            if order != Ordering::Less
                && let Some((digest, there)) = there.page.pop_front()
            {
                length = Some(there);
                if order == Ordering::Greater {
                    self.count_stray(digest, &mut found.strays).await?;
                }
            }
            if order != Ordering::Greater
                && let Some((digest, size)) = held.page.pop_front()
            {
                match self.eviction.is_cached(&digest) {
                    true => found.cached.add(size),
                    false => {
                        found.kept.add(size);
                        kept(digest, size);
                    }
                }
                if length != Some(size) && self.is_missing(digest, size).await? {
                    found.missing.push(digest);
                }
            }
        }
        let backend = self.backend.clone();
        let others =
            blocking(move || Ok::<_, std::io::Error>((backend.uploads()?, backend.arriving()?)));
        let (uploads, arriving) = others.await.map_err(|e| StoreError::Index(e.to_string()))??;
        uploads.iter().for_each(|upload| found.uploads.add(upload.length));
        found.arriving = arriving;
        found.quarantined = self.damaged.count() as u64;
        Ok(found)
    }

    /// Whether a blob still is without its bytes. It may have come or gone since it was listed.
    async fn is_missing(&self, digest: Digest, size: u64) -> Result<bool, StoreError> {
        let length = self.backend.lengths(vec![digest]).await?;
        Ok(length != [Some(size)] && self.held(&digest)?.is_some())
    }

    /// Counts what still is not held. It may have become held, or have been removed, since it was
    /// listed.
    async fn count_stray(&self, digest: Digest, strays: &mut Sum) -> Result<(), StoreError> {
        if self.held(&digest)?.is_none()
            && let [Some(length)] = self.backend.lengths(vec![digest]).await?[..]
        {
            strays.add(length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::Rig;

    #[tokio::test]
    async fn all_that_there_is_is_counted_once() {
        for rig in Rig::each() {
            let store = rig.store(Some(1 << 20));
            let digest = store.kept(b"kept").await;
            store.kept_cached(b"cached").await;
            let _open = store.ingested(b"on its way");
            let mut kept = Vec::new();
            let found = store.inventory(|digest, size| kept.push((digest, size))).await.unwrap();
            assert_eq!(kept, [(digest, 4)]);
            let sum = |count, bytes| Sum { count, bytes };
            assert_eq!((found.kept, found.cached), (sum(1, 4), sum(1, 6)));
            assert_eq!((found.arriving, found.uploads), (sum(1, 10), Sum::default()));
            assert_eq!((found.strays, found.missing.len()), (Sum::default(), 0));
            assert_eq!(found.budget, Some(1 << 20));
            // what a crash may leave
            store.overwrite(Digest::sha256(b"stray"), b"stray").await;
            store.overwrite(digest, b"cut").await;
            let found = store.inventory(|_, _| {}).await.unwrap();
            assert_eq!((found.strays, found.missing), (sum(1, 5), vec![digest]));
        }
    }

    #[tokio::test]
    async fn more_than_a_page_of_either_side_is_counted() {
        for rig in Rig::each() {
            let store = rig.store(None);
            let digests: Vec<_> = (0..90_u8).map(|n| Digest::sha256(&[n])).collect();
            for n in 0..60 {
                store.kept(&[n]).await;
            }
            for n in 0..90 {
                match n % 3 {
                    // some of the kept are lost, and some that are not kept are there
                    0 => store.lose(digests[usize::from(n)]).await,
                    _ => store.overwrite(digests[usize::from(n)], &[n]).await,
                }
            }
            let found = store.inventory_by(7, |_, _| {}).await.unwrap();
            let mut lost: Vec<_> = (0..60).step_by(3).map(|n| digests[n]).collect();
            lost.sort_unstable();
            assert_eq!((found.kept.count, found.strays.count), (60, 20));
            assert_eq!(found.missing, lost);
        }
    }
}
