//! Blobs to peers: those that are held, and those that are still arriving here. When many nodes of
//! a region want the same blob at once, later ones are referred to earlier ones.
//!
//! A held blob is sent as it is on disk, without a check: the receiver checks it.

use std::sync::Arc;
use std::time::Duration;

use mesh::links::LinkError;
use mesh::transfer::{Serve, Wanted};
use parking_lot::Mutex;
use quinn::SendStream;
use rules::blobs::fanout::{Fanout, Place};
use rules::blobs::groups::Groups;
use rules::wire::DAMAGED;
use rules::words::digest::{ContentHash, Digest};
use rules::words::names::{NodeId, Region};
use tracing::debug;

use crate::blobs::flights::{Begun, Flights, Sources};
use crate::blobs::pacing::Pacing;
use crate::blobs::transfers::{Direction, Transfers};
use crate::view::neighbours::Neighbours;
use store::{BlobBody, Store, StoreError};

/// A blob with fewer bytes than this is sent to every node that asks: sending it takes less time
/// than asking another node.
const PASSED_ON: u64 = 1 << 20;

type Chains = Arc<Mutex<Fanout<Digest, Region, NodeId>>>;

/// Sends blobs to peers.
pub struct Outgoing {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    flights: Arc<Flights>,
    transfers: Arc<Transfers>,
    pacing: Arc<Pacing>,
    chains: Chains,
    terms: OutgoingTerms,
}

/// Deadlines for sending to peers.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingTerms {
    /// How long to wait for the first byte of a blob that is still arriving here.
    pub first_byte: Duration,
    /// How long a peer may read no bytes.
    pub stall: Duration,
}

/// A blob that can be sent, from the requested byte on.
struct Sendable {
    size: u64,
    content: Option<ContentHash>,
    list: Option<Vec<u8>>,
    behind: u8,
    body: BlobBody,
}

impl Outgoing {
    /// No transfers yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        flights: Arc<Flights>,
        transfers: Arc<Transfers>,
        pacing: Arc<Pacing>,
        terms: OutgoingTerms,
    ) -> Self {
        Outgoing { neighbours, store, flights, transfers, pacing, chains: Chains::default(), terms }
    }

    /// Answers a fetch of `from`.
    pub async fn serve(
        &self,
        from: NodeId,
        wanted: Wanted,
        send: SendStream,
    ) -> Result<(), LinkError> {
        let (digest, offset) = (wanted.digest, wanted.offset);
        let mut serve =
            Serve::new(send, self.neighbours.links.line(from), wanted.class, self.terms.stall);
        let found = self.find(&wanted).await.map_err(|e| LinkError::Broken(e.to_string()))?;
        let Some(Sendable { size, content, list, behind, mut body }) = found else {
            return serve.missing().await;
        };
        let _link = match self.place(from, &wanted, size) {
            Ok(link) => link,
            Err(other) => {
                debug!(%digest, %from, %other, "a follower is sent on");
                return serve.elsewhere(other).await;
            }
        };
        serve.found(size, content, list, behind).await?;
        let pace = self.pacing.towards(from, wanted.class);
        let shown = self.transfers.begin(digest, Direction::Out, from, size - offset);
        let gone = serve.stopped();
        let sending = async {
            while let Some(piece) = body.next().await {
                match piece {
                    Ok(mut bytes) => {
                        while let Some(piece) = pace.next(&mut bytes).await {
                            shown.advance(piece.len() as u64);
                            metrics::counter!("atoll_link_bytes_sent_total")
                                .increment(piece.len() as u64);
                            serve.send(piece).await?;
                        }
                    }
                    Err(error) => {
                        debug!(%digest, %error, "what a peer follows broke off");
                        return Ok(());
                    }
                }
            }
            serve.finish();
            Ok(())
        };
        // a peer that has gone away must not wait for its turn ahead of peers that are still there
        tokio::select! {
            sent = sending => sent,
            () = gone => Ok(()),
        }
    }

    async fn find(&self, wanted: &Wanted) -> Result<Option<Sendable>, StoreError> {
        let Wanted { digest, offset, .. } = *wanted;
        let listed = |groups: &Groups| wanted.list && Groups::listed(groups.size());
        if let Some(blob) = self.store.open_blob(&digest).await? {
            let groups = if wanted.list { self.store.groups(digest, &blob).await? } else { None };
            let damaged = wanted.list && groups.is_none() && Groups::checkable(blob.size);
            if offset > blob.size || damaged {
                return Ok(None);
            }
            return Ok(Some(Sendable {
                size: blob.size,
                content: Some(blob.held.content),
                list: groups.filter(listed).map(|groups| groups.list().to_vec()),
                behind: if self.store.is_damaged(&digest) { DAMAGED } else { 0 },
                body: BlobBody::whole(blob.bytes, offset..blob.size, self.store.buffers()),
            }));
        }
        let flight = self.flights.flying(&digest);
        let flight = flight.or_else(|| {
            let sources = Sources::Holders { via: wanted.via.clone() };
            wanted.fill.then(|| self.flights.join(digest, sources, wanted.class))
        });
        let Some(flight) = flight else { return Ok(None) };
        flight.raise(wanted.class);
        let Ok(Begun { size, bytes, following, groups, behind }) =
            flight.begun(digest, self.terms.first_byte).await
        else {
            return Ok(None);
        };
        if offset > size {
            return Ok(None);
        }
        Ok(Some(Sendable {
            size,
            content: groups.as_ref().map(Groups::content),
            list: groups.filter(listed).map(|groups| groups.list().to_vec()),
            behind: behind.saturating_add(1).min(DAMAGED - 1),
            body: BlobBody::arriving(
                bytes,
                offset..size,
                self.store.buffers(),
                following,
                self.terms.stall,
            ),
        }))
    }

    /// Whether `from` is served here (as the first of a chain, if there is a [`Link`]); if not, the
    /// node that serves it.
    fn place(&self, from: NodeId, wanted: &Wanted, size: u64) -> Result<Option<Link>, NodeId> {
        let node = self.neighbours.nodes().into_iter().find(|node| node.id == from);
        let Some(region) = node
            .map(|node| node.region)
            .filter(|_| (wanted.offset == 0 || wanted.direct) && size >= PASSED_ON)
        else {
            return Ok(None);
        };
        let digest = wanted.digest;
        let mut chains = self.chains.lock();
        if wanted.direct {
            chains.return_to_here(&digest, &region, from);
        } else if let Place::Follow(other) = chains.place(&digest, &region, from) {
            return Err(other);
        }
        Ok(Some(Link { chains: self.chains.clone(), digest, region, from }))
    }
}

/// The first link of a chain, until this is dropped.
struct Link {
    chains: Chains,
    digest: Digest,
    region: Region,
    from: NodeId,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.chains.lock().ended(&self.digest, &self.region, self.from);
    }
}
