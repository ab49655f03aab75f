//! Confirms with an upstream that it has a blob which is in the mesh for another project.

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

/// The maximum number of blobs of one manifest that are asked for at a time.
const AT_A_TIME: usize = 16;
/// The maximum number of blobs that are read as a proof at a time.
const PROOFS: usize = 64;
/// How long the result of a proof is remembered when no client waits for it any more.
const PROOF_KEPT: Duration = Duration::from_secs(60);
/// How long a client waits for a proof.
const PROOF: Duration = Duration::from_secs(20);

/// The result of reading a blob as a proof.
type Proof = Shared<oneshot::Receiver<Result<bool, UpstreamError>>>;

/// Asks upstreams for blobs, and reads blobs that they deny.
pub struct Confirming {
    records: Records,
    upstreams: Arc<Upstreams>,
    tasks: Tasks,
    proofs: Arc<Mutex<HashMap<(RepositoryName, Digest), Proof>>>,
}

impl Confirming {
    /// Nothing was asked yet.
    pub fn new(records: Records, upstreams: Arc<Upstreams>, tasks: Tasks) -> Arc<Self> {
        Arc::new(Confirming { records, upstreams, tasks, proofs: Arc::default() })
    }

    /// Whether the upstream of a proxy project has a blob. This is asked before a blob is served
    /// that nothing in the project refers to, because the blob may be here for another project.
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

    /// Whether the upstream gives a blob although it says that it does not have it. An upstream
    /// that is itself a cache does this. The only proof is the bytes, which are read once, however
    /// many clients ask. A long blob takes longer than a client waits; a client that asks again
    /// gets the reading in progress, or its result.
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
                return Err(UpstreamError::unreachable("many blobs are being checked; try again"));
            }
            proofs
                .entry(place.clone())
                .or_insert_with(|| {
                    let (sender, receiver) = oneshot::channel();
                    let (proofs, place) = (self.proofs.clone(), place.clone());
                    self.tasks.spawn("proxy.proof", async move {
                        let _ = sender.send(upstream.gives_blob(&there, &digest).await);
                        // clients that gave up waiting may ask again
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
            Err(_) => Err(UpstreamError::unreachable("the blob is still being checked; try again")),
        }
    }

    /// The blobs of an upstream's manifest that the mesh has for another project, and that the
    /// upstream itself does not have. A user who may write a manifest there could otherwise read
    /// every blob in the mesh. If the upstream does not answer, this is an error, because what is
    /// recorded stays recorded.
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
