//! Artifacts that the mesh makes itself, of bytes that are in memory: SBOMs of images.

use bytes::Bytes;
use rules::ledger::events::Actor;
use rules::ledger::precondition::Precondition;
use rules::wire::{Pushed, WriteKind};
use rules::words::digest::{Algorithm, Digest};
use rules::words::names::{Reference, RepositoryName};
use store::StoreError;

use super::{Refusal, Writes};

/// The media type of the manifests.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Writes {
    /// Stores the blobs at this node and commits the manifest, which is about `subject`, as if a
    /// client had pushed them here: when this returns, each blob is in as many regions as the
    /// project's durability says. The manifest gets no tag. Nothing changes if it is there already,
    /// and nothing is stored if the subject is not there any more ([`Refusal::Precondition`]).
    pub async fn put_about(
        &self,
        repository: &RepositoryName,
        subject: Digest,
        blobs: Vec<Bytes>,
        manifest: Bytes,
        by: &Actor,
    ) -> Result<Digest, Refusal> {
        let unstored = |error: StoreError| {
            Refusal::Unavailable(format!("a blob could not be stored at this node: {error}"))
        };
        let mut held = Vec::new();
        for blob in blobs {
            held.push(self.hold(repository, blob).await.map_err(unstored)?);
        }
        let digest = Digest::sha256(&manifest);
        let pushed = Pushed {
            repository: repository.clone(),
            digest,
            media_type: MANIFEST.into(),
            bytes: manifest.to_vec(),
            tags: Vec::new(),
        };
        let there = Precondition::names(Reference::Digest(subject), subject);
        let kind = WriteKind::PutManifestIf(Box::new(there), pushed);
        if let Err(refusal) = self.commit(&repository.project(), kind, by).await {
            for digest in held {
                // another project may have the name now
                self.store.revoke(digest, repository).await.map_err(unstored)?;
            }
            return Err(refusal);
        }
        Ok(digest)
    }

    /// Stores a blob at this node, with a grant for the repository.
    pub(super) async fn hold(
        &self,
        repository: &RepositoryName,
        blob: Bytes,
    ) -> Result<Digest, StoreError> {
        let digest = Digest::sha256(&blob);
        let ingest = self.store.ingest(Algorithm::Sha256)?;
        let ingest = self.store.reserve(ingest, blob.len() as u64).await?;
        let ingest = ingest.write_all(vec![blob]).await?;
        self.store.seal(ingest, digest, Some((repository, self.terms.grant))).await.map(|_| digest)
    }
}
