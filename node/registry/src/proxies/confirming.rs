//! What an upstream says of a blob that is in the mesh for another's sake.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::Shared;
use futures::{FutureExt, StreamExt, TryStreamExt};
use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::ledger::records::{BlobRecord, Look, RecordError, key};
use rules::words::digest::Digest;
use rules::words::manifest::Manifest;
use rules::words::names::RepositoryName;
use tokio::sync::oneshot;
use tracing::warn;

use super::{UPSTREAM, slow};
use crate::upstreams::Upstreams;
use crate::view::Records;
use upstream::{Upstream, UpstreamError};

/// So many blobs of one manifest are asked for at a time.
const AT_A_TIME: usize = 16;
/// Largest number of blobs that are read for a proof at a time.
const PROOFS: usize = 64;
/// How long what came of it is remembered if nobody waits for it any more.
const PROOF_KEPT: Duration = Duration::from_secs(60);
/// How long a client waits for a proof.
const PROOF: Duration = Duration::from_secs(20);

/// What comes of reading a blob for a proof.
type Proof = Shared<oneshot::Receiver<Result<bool, UpstreamError>>>;

/// Asks upstreams for blobs, and reads those that they deny.
pub struct Confirming {
    records: Records,
    upstreams: Arc<Upstreams>,
    tasks: Tasks,
    proofs: Arc<Mutex<HashMap<(RepositoryName, Digest), Proof>>>,
}

impl Confirming {
    /// Nothing is asked of anyone yet.
    pub fn new(records: Records, upstreams: Arc<Upstreams>, tasks: Tasks) -> Arc<Self> {
        Arc::new(Confirming { records, upstreams, tasks, proofs: Arc::default() })
    }

    /// Whether the upstream of a proxy project has a blob: asked before one is handed out that
    /// nothing in the project refers to, for it may be here for another project's sake.
    pub async fn confirms(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, UpstreamError> {
        let Some((upstream, there)) = self.upstreams.of(repository)? else { return Ok(false) };
        if !self.upstreams.allowed() {
            return Ok(false);
        }
        let asked = tokio::time::timeout(UPSTREAM, upstream.has_blob(&there, digest));
        match asked.await.unwrap_or_else(|_| Err(slow())) {
            Ok(false) => self.proven(repository, upstream, there, *digest).await,
            answer => answer,
        }
    }

    /// Whether the upstream gives a blob that it says it does not have, as a cache before another
    /// cache does: by the bytes alone, which are read once however many ask. A long one takes
    /// longer than a client's patience; who asks again finds the reading where it is, or what came
    /// of it.
    async fn proven(
        &self,
        repository: &RepositoryName,
        upstream: Arc<Upstream>,
        there: String,
        digest: Digest,
    ) -> Result<bool, UpstreamError> {
        let place = (repository.clone(), digest);
        let reading = {
            let mut proofs = self.proofs.lock();
            if proofs.len() >= PROOFS && !proofs.contains_key(&place) {
                return Err(UpstreamError::unreachable("many blobs are being checked; ask again"));
            }
            proofs
                .entry(place.clone())
                .or_insert_with(|| {
                    let (sender, receiver) = oneshot::channel();
                    let (proofs, place) = (self.proofs.clone(), place.clone());
                    self.tasks.spawn("proxy.proof", async move {
                        let _ = sender.send(upstream.gives_blob(&there, &digest).await);
                        // whoever gave up waiting may ask again
                        tokio::time::sleep(PROOF_KEPT).await;
                        proofs.lock().remove(&place);
                    });
                    receiver.shared()
                })
                .clone()
        };
        let proven = tokio::time::timeout(PROOF, reading).await;
        match proven {
            Ok(answer) => {
                self.proofs.lock().remove(&place);
                answer.unwrap_or_else(|_| Err(UpstreamError::unreachable("the node is stopping")))
            }
            Err(_) => Err(UpstreamError::unreachable("the blob is still being checked; ask again")),
        }
    }

    /// Of the blobs that an upstream's manifest names those that it does not have itself, and the
    /// mesh has for another's sake. A manifest is quickly written, and whoever may write one there
    /// must not read everything here. An error when the upstream does not say: what is recorded is
    /// recorded for good.
    pub(super) async fn unconfirmed(
        &self,
        repository: &RepositoryName,
        upstream: &Upstream,
        there: &str,
        manifest: &Manifest,
    ) -> Result<BTreeSet<Digest>, UpstreamError> {
        let elsewhere =
            self.known_elsewhere(repository, manifest).map_err(UpstreamError::unreachable)?;
        let asked = elsewhere.into_iter().map(async |digest| {
            match upstream.has_blob(there, &digest).await {
                Ok(true) => Ok(None),
                Ok(false) | Err(UpstreamError::Denied(_)) => Ok(Some(digest)),
                Err(error) => Err(error),
            }
        });
        let asked: Vec<Option<Digest>> =
            futures::stream::iter(asked).buffer_unordered(AT_A_TIME).try_collect().await?;
        let unconfirmed: BTreeSet<Digest> = asked.into_iter().flatten().collect();
        if !unconfirmed.is_empty() {
            warn!(%repository, blobs = ?unconfirmed, "an upstream's manifest names blobs of others that the upstream does not have");
        }
        Ok(unconfirmed)
    }

    /// The blobs of `manifest` that some repository refers to, and this one does not yet.
    fn known_elsewhere(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
    ) -> Result<BTreeSet<Digest>, RecordError> {
        let view = self.records.view()?;
        let mut elsewhere = BTreeSet::new();
        for blob in &manifest.blobs {
            let known = view.record::<BlobRecord>(&key::blob(&blob.digest))?;
            if known.is_some_and(|known| known.repositories > 0)
                && !view.linked(repository, &blob.digest)?
            {
                elsewhere.insert(blob.digest);
            }
        }
        Ok(elsewhere)
    }
}
