//! What is on this node's disk, counted: what the index has, and what the files are.

use std::fs;
use std::path::Path;

use rules::words::digest::{Algorithm, Digest};

use super::{Store, StoreError, uploads};

/// The number of blobs that are read from the index at a time.
const PAGE: usize = 1000;

/// A number of things and of their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Sum {
    /// Adds one.
    pub fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What the disk has. It is read while blobs come and go, so it is exact only when nothing does.
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
    /// Files of blobs that the index does not have.
    pub strays: Sum,
    /// Blobs that the index has and whose file is missing or has another length.
    pub missing: Vec<Digest>,
}

impl Store {
    /// Counts everything. `kept` gets each blob that is kept for good, with its length. Reads the whole
    /// index and looks at each file, so call it where that may take long.
    pub fn inventory(&self, mut kept: impl FnMut(Digest, u64)) -> Result<Inventory, StoreError> {
        let mut found = Inventory { budget: self.cached().2, ..Inventory::default() };
        let mut after = None;
        loop {
            let page = self.held_after(after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (digest, size) in page {
                match self.eviction.is_cached(&digest) {
                    true => found.cached.add(size),
                    false => {
                        found.kept.add(size);
                        kept(digest, size);
                    }
                }
                let there = fs::metadata(self.path(&digest)).is_ok_and(|file| file.len() == size);
                // it may have gone since it was read
                if !there && self.held(&digest)?.is_some() {
                    found.missing.push(digest);
                }
            }
        }
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let above = self.folder.join("blobs").join(algorithm.name());
            for folder in fs::read_dir(above)? {
                self.look_for_strays(algorithm, &folder?.path(), &mut found.strays)?;
            }
        }
        found.uploads = files(&uploads::folder(&self.folder), uploads::is_note)?;
        found.arriving = files(&self.folder.join("arriving"), |_| false)?;
        found.quarantined = self.damaged.count() as u64;
        Ok(found)
    }

    fn look_for_strays(
        &self,
        algorithm: Algorithm,
        folder: &Path,
        strays: &mut Sum,
    ) -> Result<(), StoreError> {
        for file in fs::read_dir(folder)? {
            let file = file?;
            let name = file.file_name();
            let name = name.to_str().unwrap_or_default();
            let digest = format!("{}:{name}", algorithm.name()).parse::<Digest>();
            let is_held = match digest {
                Ok(digest) => self.held(&digest)?.is_some(),
                Err(_) => false,
            };
            // it may have been removed since
            if !is_held && let Ok(about) = file.metadata() {
                strays.add(about.len());
            }
        }
        Ok(())
    }
}

fn files(folder: &Path, except: impl Fn(&Path) -> bool) -> Result<Sum, StoreError> {
    let mut all = Sum::default();
    for file in fs::read_dir(folder)? {
        let file = file?;
        if !except(&file.path())
            && let Ok(about) = file.metadata()
        {
            all.add(about.len());
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ground::opening::Opening;

    #[tokio::test]
    async fn all_that_is_on_the_disk_is_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Some(1 << 20), &Opening::default()).unwrap();
        let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
        ingest.write(b"kept").unwrap();
        let digest = Digest::sha256(b"kept");
        store.seal(ingest, digest, None).await.unwrap();
        let mut ingest = store.ingest(Algorithm::Sha256).unwrap();
        ingest.write(b"cached").unwrap();
        let other = Digest::sha256(b"cached");
        store.seal_cached(ingest, other).await.unwrap();
        let mut open = store.ingest(Algorithm::Sha256).unwrap();
        open.write(b"on its way").unwrap();
        let mut kept = Vec::new();
        let found = store.inventory(|digest, size| kept.push((digest, size))).unwrap();
        assert_eq!(kept, [(digest, 4)]);
        let sum = |count, bytes| Sum { count, bytes };
        assert_eq!((found.kept, found.cached), (sum(1, 4), sum(1, 6)));
        assert_eq!((found.arriving.count, found.uploads), (1, Sum::default()));
        assert_eq!((found.strays, found.missing.len()), (Sum::default(), 0));
        assert_eq!(found.budget, Some(1 << 20));
        // what a crash may leave
        let stray = store.path(&Digest::sha256(b"stray"));
        fs::create_dir_all(stray.parent().unwrap()).unwrap();
        fs::write(stray, b"stray").unwrap();
        fs::write(store.path(&digest), b"cut").unwrap();
        let found = store.inventory(|_, _| {}).unwrap();
        assert_eq!((found.strays, found.missing), (sum(1, 5), vec![digest]));
    }
}
