//! Copies of an upload to another region, made while the upload arrives. A copy follows the
//! upload's own file, so a slow link neither slows the client nor costs memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ground::supervise::Tasks;
use mesh::links::LinkError;
use mesh::transfer::{CopyIn, CopyOut, Piece, TransferTerms};
use parking_lot::Mutex;
use rules::blobs::holding::Held;
use rules::blobs::pacing::Class;
use rules::wire::CopyEnd;
use rules::words::digest::{Algorithm, Digest};
use rules::words::names::{NodeId, RepositoryName};
use tokio::sync::{oneshot, watch};
use tracing::{debug, info};

use crate::blobs::pacing::Pacing;
use crate::blobs::transfers::{Direction, Transfers};
use crate::view::neighbours::Neighbours;
use store::backend::ReadAt;
use store::{BlobBody, Following, Ingest, Store};

/// A received copy is written in batches of about this many bytes.
const BATCH: usize = 1 << 20;

/// What copies need to run.
pub struct Copies {
    /// The other nodes.
    pub neighbours: Arc<Neighbours>,
    /// The store with the bytes.
    pub store: Arc<Store>,
    /// The list that shows transfers.
    pub transfers: Arc<Transfers>,
    /// The caps on their speed.
    pub pacing: Arc<Pacing>,
    /// Their deadlines.
    pub terms: TransferTerms,
    /// How long a grant lasts.
    pub grant: Duration,
    /// The number of arriving copies by repository.
    pub arriving: Mutex<BTreeMap<RepositoryName, usize>>,
    /// The tasks that run them.
    pub tasks: Tasks,
}

/// A copy of an upload that is under way.
pub struct Copying {
    peer: NodeId,
    written: watch::Sender<Result<u64, Arc<str>>>,
    seal: Option<oneshot::Sender<Digest>>,
    held: oneshot::Receiver<Result<Held, LinkError>>,
}

impl Copying {
    /// The node that receives the copy.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// The upload has `written` bytes now.
    pub fn advance(&self, written: u64) {
        let _ = self.written.send_replace(Ok(written));
    }

    /// The upload's digest is known. Waits until the copy is held or has failed.
    pub async fn seal(mut self, digest: Digest) -> Result<Held, LinkError> {
        if let Some(seal) = self.seal.take() {
            let _ = seal.send(digest);
        }
        self.held.await.unwrap_or(Err(LinkError::Broken("the copy was dropped".into())))
    }
}

/// Counts an arriving copy until it is dropped.
struct ArrivingCopy<'a> {
    copies: &'a Copies,
    repository: &'a RepositoryName,
}

impl<'a> ArrivingCopy<'a> {
    fn note(copies: &'a Copies, repository: &'a RepositoryName) -> Self {
        *copies.arriving.lock().entry(repository.clone()).or_default() += 1;
        ArrivingCopy { copies, repository }
    }
}

impl Drop for ArrivingCopy<'_> {
    fn drop(&mut self) {
        let mut arriving = self.copies.arriving.lock();
        if let Some(count) = arriving.get_mut(self.repository) {
            *count -= 1;
            if *count == 0 {
                arriving.remove(self.repository);
            }
        }
    }
}

impl Copies {
    /// Begins to copy `ingest`, which may still grow, to `peer`. Dropping the [`Copying`] abandons
    /// the copy.
    pub fn begin(
        self: &Arc<Self>,
        ingest: &Ingest,
        repository: RepositoryName,
        peer: NodeId,
    ) -> Copying {
        let (written, following) = watch::channel(Ok(ingest.written()));
        let (seal, sealed) = oneshot::channel();
        let (answer, held) = oneshot::channel();
        let (copies, bytes) = (self.clone(), ingest.bytes());
        self.tasks.spawn("copy.out", async move {
            let result = copies.run(bytes, following, repository, peer, sealed).await;
            if let Err(error) = &result {
                debug!(%peer, %error, "copy of an upload ended early");
            }
            let _ = answer.send(result);
        });
        Copying { peer, written, seal: Some(seal), held }
    }

    async fn run(
        &self,
        from: Arc<dyn ReadAt>,
        mut following: Following,
        repository: RepositoryName,
        peer: NodeId,
        mut sealed: oneshot::Receiver<Digest>,
    ) -> Result<Held, LinkError> {
        let mut copy = CopyOut::begin(&self.neighbours.links, peer, repository, self.terms).await?;
        let shown = self.transfers.begin_unnamed(Direction::Out, peer);
        let pace = self.pacing.towards(peer, Class::Copy);
        let mut sent = 0;
        let mut named = None;
        let digest = loop {
            let written = match following.borrow_and_update().clone() {
                Ok(written) => written,
                Err(reason) => return Err(LinkError::Broken(reason.to_string())),
            };
            if written > sent {
                let mut body = BlobBody::whole(from.clone(), sent..written, self.store.buffers());
                while let Some(piece) = body.next().await {
                    let mut bytes = piece.map_err(|e| LinkError::Broken(e.to_string()))?;
                    while let Some(piece) = pace.next(&mut bytes).await {
                        copy.send(&piece).await?;
                        metrics::counter!("atoll_link_bytes_sent_total")
                            .increment(piece.len() as u64);
                        shown.advance(piece.len() as u64);
                        sent += piece.len() as u64;
                    }
                }
                continue;
            }
            if let Some(digest) = named {
                break digest;
            }
            // the owner of the upload drops both senders when it gives the upload up
            tokio::select! {
                name = &mut sealed => match name {
                    Ok(digest) => named = Some(digest),
                    Err(_) => {
                        copy.abandon().await;
                        return Err(LinkError::Broken("the upload was given up".into()));
                    }
                },
                _ = following.changed() => {}
            }
        };
        copy.seal(digest).await
    }

    /// The repositories for which a copy is arriving, so whose pushes continue at other nodes.
    pub fn repositories(&self) -> BTreeSet<RepositoryName> {
        self.arriving.lock().keys().cloned().collect()
    }

    /// Receives a copy from a peer.
    pub async fn receive(
        &self,
        from: NodeId,
        repository: RepositoryName,
        mut copy: CopyIn,
    ) -> Result<(), LinkError> {
        let _arriving = ArrivingCopy::note(self, &repository);
        let broken = |e: &dyn std::fmt::Display| LinkError::Broken(e.to_string());
        let mut ingest = self.store.ingest(Algorithm::Sha256).map_err(|e| broken(&e))?;
        let shown = self.transfers.begin_unnamed(Direction::In, from);
        let (mut batch, mut length) = (Vec::new(), 0);
        let digest = loop {
            match copy.next().await? {
                Piece::Bytes(bytes) => {
                    metrics::counter!("atoll_link_bytes_received_total")
                        .increment(bytes.len() as u64);
                    shown.advance(bytes.len() as u64);
                    length += bytes.len();
                    batch.push(bytes);
                    if length >= BATCH {
                        ingest = ingest
                            .write_all(std::mem::take(&mut batch))
                            .await
                            .map_err(|e| broken(&e))?;
                        length = 0;
                    }
                }
                Piece::End(CopyEnd::Seal(digest)) => break digest,
                Piece::End(CopyEnd::Abandon) => return Ok(()),
            }
        };
        ingest = ingest.write_all(batch).await.map_err(|e| broken(&e))?;
        let held = self.store.seal(ingest, digest, Some((&repository, self.grant))).await;
        if let Err(error) = &held {
            info!(%digest, %from, %error, "a copied upload does not have the digest that it was sent with");
        }
        copy.answer(held.map_err(|e| e.to_string())).await
    }
}
