//! Artifacts that the mesh makes itself, of bytes that are in memory: SBOMs of images.

use bytes::Bytes;
use rules::ledger::change::Change;
use rules::ledger::command::Outcome;
use rules::ledger::events::Actor;
use rules::ledger::precondition::Precondition;
use rules::wire::{Pushed, Write, WriteKind};
use rules::words::digest::{Algorithm, Digest};
use rules::words::names::{OperationId, ProjectName, Reference, RepositoryName, Tag};
use store::StoreError;

use super::{Refusal, Writes, refusal, settle};

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
        if let Err(refusal) = self.commit_here_or_there(&repository.project(), kind, by).await {
            for digest in held {
                // another project may have the name now
                self.store.revoke(digest, repository).await.map_err(unstored)?;
            }
            return Err(refusal);
        }
        Ok(digest)
    }

    /// As the project's primary, and only as that: stores blobs and a manifest about `subject`, behind
    /// a tag of signatures or as a referrer. A node that is not the primary any more refuses it.
    pub async fn put_here(
        &self,
        repository: &RepositoryName,
        subject: Digest,
        blobs: Vec<Vec<u8>>,
        manifest: Vec<u8>,
        tag: Option<Tag>,
        by: &Actor,
    ) -> Result<(), Refusal> {
        let unstored = |error: StoreError| {
            Refusal::Unavailable(format!("a blob could not be stored at this node: {error}"))
        };
        let mut held = Vec::new();
        for blob in blobs {
            held.push(self.hold(repository, blob.into()).await.map_err(unstored)?);
        }
        let pushed = Pushed {
            repository: repository.clone(),
            digest: Digest::sha256(&manifest),
            media_type: MANIFEST.into(),
            bytes: manifest,
            tags: tag.into_iter().collect(),
        };
        let kind = match pushed.tags.is_empty() {
            true => {
                let there = Precondition::names(Reference::Digest(subject), subject);
                WriteKind::PutManifestIf(Box::new(there), pushed)
            }
            // joined with what is there
            false => WriteKind::PutManifest(pushed),
        };
        let written = self.write_here(&repository.project(), kind, by).await;
        if written.is_err() {
            for digest in held {
                // what a node has signed that is no longer primary is not readable anywhere
                self.store.revoke(digest, repository).await.map_err(unstored)?;
            }
        }
        written.map(drop)
    }

    /// Commits a change here, and nowhere else.
    pub async fn change_here(&self, change: Change, by: &Actor) -> Result<Outcome, Refusal> {
        let project = change.project();
        self.write_here(&project, WriteKind::Fenced(change), by).await
    }

    async fn write_here(
        &self,
        project: &ProjectName,
        kind: WriteKind,
        by: &Actor,
    ) -> Result<Outcome, Refusal> {
        self.ready().await?;
        self.check_level(kind.level())?;
        let (operation, kind) = (OperationId(rand::random()), kind.audited(by.clone()));
        match self.commit_here(Write { operation, kind }).await {
            Ok(outcome) => settle(outcome),
            Err(error) => Err(refusal(&self.neighbours, project, error)),
        }
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
