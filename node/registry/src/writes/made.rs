//! Artifacts that the mesh makes itself, of bytes that are in memory: SBOMs of images.

use bytes::Bytes;
use rules::ledger::events::Actor;
use rules::wire::{Pushed, WriteKind};
use rules::words::digest::{Algorithm, Digest};
use rules::words::names::RepositoryName;

use super::{Refusal, Writes};

/// The media type of the manifests.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Writes {
    /// Stores the blobs at this node and commits the manifest, as if a client had pushed them here:
    /// when this returns, each blob is in as many regions as the project's durability says. The
    /// manifest gets no tag. Nothing changes if it is there already.
    pub async fn put_made(
        &self,
        repository: &RepositoryName,
        blobs: Vec<Bytes>,
        manifest: Bytes,
        by: &Actor,
    ) -> Result<Digest, Refusal> {
        for blob in blobs {
            self.hold(repository, blob).await.map_err(|error| {
                Refusal::Unavailable(format!("a blob could not be stored at this node: {error}"))
            })?;
        }
        let digest = Digest::sha256(&manifest);
        let pushed = Pushed {
            repository: repository.clone(),
            digest,
            media_type: MANIFEST.into(),
            bytes: manifest.to_vec(),
            tags: Vec::new(),
        };
        self.commit(&repository.project(), WriteKind::PutManifest(pushed), by).await?;
        Ok(digest)
    }

    async fn hold(
        &self,
        repository: &RepositoryName,
        blob: Bytes,
    ) -> Result<(), store::StoreError> {
        let digest = Digest::sha256(&blob);
        let ingest = self.store.ingest(Algorithm::Sha256)?;
        let ingest = self.store.reserve(ingest, blob.len() as u64).await?;
        let ingest = ingest.write_all(vec![blob]).await?;
        self.store.seal(ingest, digest, Some((repository, self.terms.grant))).await.map(drop)
    }
}
