//! Stores for tests, one on each backend.

use std::path::Path;
use std::sync::Arc;

use ground::opening::Opening;
use rules::words::digest::{Algorithm, Digest};

use super::backend::tests::Site;
use super::{Ingest, Store};

/// What outlives a store: a node's folder, and what keeps its bytes.
pub(crate) struct Rig {
    site: Site,
}

impl Rig {
    /// One for each backend, empty.
    pub(crate) fn each() -> [Rig; 2] {
        Site::each().map(|site| Rig { site })
    }

    /// The node's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.site.folder()
    }

    /// Opens the store. The one of before must be gone.
    pub(crate) fn store(&self, budget: Option<u64>) -> Arc<Store> {
        let (backend, folder) = (self.site.backend(), self.site.folder());
        Store::open_with(backend, folder, budget, &Opening::default()).unwrap()
    }
}

impl Store {
    /// Bytes that are to be sealed.
    pub(crate) fn ingested(&self, bytes: &[u8]) -> Ingest {
        let mut ingest = self.ingest(Algorithm::Sha256).unwrap();
        ingest.write(bytes).unwrap();
        ingest
    }

    /// Keeps a blob for good.
    pub(crate) async fn kept(self: &Arc<Self>, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        self.seal(self.ingested(bytes), digest, None).await.unwrap();
        digest
    }

    /// Keeps a blob that may be evicted.
    pub(crate) async fn kept_cached(self: &Arc<Self>, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        self.seal_cached(self.ingested(bytes), digest).await.unwrap();
        digest
    }

    /// Whether there are bytes of this name, whatever the index says.
    pub(crate) async fn has_bytes(&self, digest: Digest) -> bool {
        self.backend.lengths(vec![digest]).await.unwrap()[0].is_some()
    }

    /// Puts bytes where those of a blob belong, as a disk may do.
    pub(crate) async fn overwrite(&self, digest: Digest, bytes: &[u8]) {
        let mut arrival = self.backend.arrive().unwrap();
        arrival.write(bytes).unwrap();
        arrival.sync().await.unwrap().name(digest).await.unwrap();
    }

    /// Loses the bytes of a blob.
    pub(crate) async fn lose(&self, digest: Digest) {
        self.backend.remove(vec![digest]).await.unwrap();
    }
}
