//! Blobs on their way to this node. There is one flight per digest, however many requests want it,
//! and all of them follow the file while it fills.
//!
//! Within a region one node fetches over the WAN (rendezvous hashing over the live nodes). The
//! others fetch from it while it is still filling. What a peer sends is checked in groups of 64 KiB
//! before a byte of it is passed on ([`rules::blobs::groups`]). Only bytes from an upstream, which
//! has no list of groups, are passed on unchecked, here and at the followers. The last piece of a
//! blob is passed on only after the digest was checked, so a client never receives the whole of
//! wrong bytes.
//!
//! A flight needs memory for one batch, one group, and 32 bytes for each 64 KiB of the blob.

mod arriving;
mod fetching;
mod passing;
mod refusals;
mod source;
mod taking;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ground::supervise::Tasks;
use mesh::transfer::TransferTerms;
use parking_lot::Mutex;
use rules::blobs::flight::{First, GivenUp, Hurry, Source};
use rules::blobs::holding::Held;
use rules::blobs::pacing::Class;
use rules::members::placement;
use rules::words::digest::Digest;
use rules::words::names::{NodeId, RepositoryName};
use tracing::debug;

pub use arriving::{Arriving, Begun};

use refusals::Refusals;

use crate::blobs::liars::Liars;
use crate::blobs::transfers::Transfers;
use crate::upstreams::Upstreams;
use crate::view::neighbours::Neighbours;
use store::{Store, StoreError};

/// The number of blobs about which replicas are asked one by one at a time.
const ASKED_AT_A_TIME: usize = 8;

/// Why a blob could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlightError {
    /// No live node has it. It may come back when another node does.
    #[error("no reachable node holds {0}")]
    NoSource(Digest),
    /// No node has it, and its upstream does not have it either.
    #[error("neither the mesh nor the upstream has {0}")]
    Missing(Digest),
    /// Every replica has said that it does not hold it, and no upstream can bring it: only a push
    /// can.
    #[error("no node of the mesh holds {0} any more; push its image again")]
    Lost(Digest),
    /// Every replica has said that it does not hold it, and its upstream does not have it either.
    #[error("neither any node of the mesh nor the upstream has {0} any more")]
    Gone(Digest),
    /// It did not begin to arrive in time.
    #[error("{0} did not begin to arrive in time")]
    Slow(Digest),
    /// Nobody waited for it any more, so it was given up.
    #[error("nobody waited for {0} any more; ask again")]
    Deserted(Digest),
    /// It began to arrive and broke off.
    #[error("{0}")]
    Broken(Arc<str>),
    /// This node has no room for it.
    #[error("{0}")]
    NoRoom(Arc<str>),
}

/// What became of some blobs. Those that are in neither may be at a replica that was not heard, or are
/// only cached.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Some replica keeps them.
    pub kept: BTreeSet<Digest>,
    /// Every replica was heard, and none has a sound copy.
    pub lost: Vec<Digest>,
}

/// Where to look for a blob.
#[derive(Clone, Debug)]
pub enum Sources {
    /// The usual sources: the region's fetcher, or the nodes that hold it, or the upstream.
    Find {
        /// The proxy repository whose upstream has it.
        via: Option<RepositoryName>,
    },
    /// This node was chosen to fetch for others: from the nodes that hold it, or from the upstream.
    Holders {
        /// The proxy repository whose upstream has it.
        via: Option<RepositoryName>,
    },
    /// These nodes, as told by the primary.
    Told(Vec<NodeId>),
}

impl Sources {
    /// The proxy repository whose upstream has the blob, if the upstream may be asked.
    fn via(&self) -> Option<&RepositoryName> {
        match self {
            Sources::Find { via } | Sources::Holders { via } => via.as_ref(),
            Sources::Told(_) => None,
        }
    }
}

/// All flights of this node.
pub struct Flights {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    transfers: Arc<Transfers>,
    liars: Arc<Liars>,
    terms: TransferTerms,
    upstreams: Arc<Upstreams>,
    tasks: Tasks,
    refusals: Refusals,
    flying: Mutex<HashMap<Digest, Arc<Arriving>>>,
}

impl Flights {
    /// No flights yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        transfers: Arc<Transfers>,
        liars: Arc<Liars>,
        terms: TransferTerms,
        upstreams: Arc<Upstreams>,
        tasks: Tasks,
    ) -> Arc<Self> {
        Arc::new(Flights {
            neighbours,
            store,
            transfers,
            liars,
            terms,
            upstreams,
            tasks,
            refusals: Refusals::default(),
            flying: Mutex::default(),
        })
    }

    /// The flight of `digest`, if there is one.
    pub fn flying(&self, digest: &Digest) -> Option<Arc<Arriving>> {
        self.flying.lock().get(digest).cloned()
    }

    /// Joins the flight of `digest`, or starts it. In both cases the blob is then wanted for
    /// `class`.
    pub fn join(self: &Arc<Self>, digest: Digest, sources: Sources, class: Class) -> Arc<Arriving> {
        let mut flying = self.flying.lock();
        if let Some(arriving) = flying.get(&digest) {
            arriving.raise(class);
            return arriving.clone();
        }
        let arriving = Arc::new(Arriving::new(class));
        flying.insert(digest, arriving.clone());
        let (flights, task) = (self.clone(), arriving.clone());
        self.tasks.spawn("flight", async move {
            let _finish = Finish { flights: flights.clone(), digest, arriving: task.clone() };
            let result = flights.fly(digest, sources, &task).await;
            if let Err(error) = &result {
                debug!(%digest, %error, "flight failed");
                metrics::counter!("atoll_flights_failed_total").increment(1);
            }
            task.done.send_replace(Some(result));
        });
        arriving
    }

    /// Fetches `digest` unless it is held, and grants it in `repository` if that is set.
    pub async fn replicate(
        self: &Arc<Self>,
        digest: Digest,
        sources: Vec<NodeId>,
        repository: Option<(&RepositoryName, Duration)>,
    ) -> Result<Held, String> {
        let keep = || self.store.keep(&digest);
        let held = match keep().await.map_err(|e| e.to_string())? {
            // a copy that is damaged is no copy
            Some(held) if !self.store.is_damaged(&digest) => held,
            _ => {
                let mut sources = sources;
                sources.retain(|node| *node != self.neighbours.me);
                self.join(digest, Sources::Told(sources), Class::Copy)
                    .finished()
                    .await
                    .map_err(|e| e.to_string())?;
                // the flight may have been started by a pull, which only caches the blob
                let held = keep().await.map_err(|e| e.to_string())?;
                held.ok_or_else(|| {
                    format!("{digest} was fetched, but there is no room for it (cache.budget)")
                })?
            }
        };
        if let Some((repository, lasts)) = repository {
            self.store.grant(digest, repository, lasts).await.map_err(|e| e.to_string())?;
        }
        Ok(held)
    }

    /// Whether no replica, this node included, has a copy of `digest` that is not damaged. False if it
    /// cannot be known now.
    pub async fn is_lost(&self, digest: Digest) -> bool {
        let has_none = self.store.held(&digest).is_ok_and(|held| held.is_none());
        (has_none || self.store.is_damaged(&digest)) && self.neighbours.denied_by_all(digest).await
    }

    /// Which of `digests` some replica keeps, and of which no replica has a sound copy. All replicas are
    /// asked once about all of them, and again about each that none of them keeps.
    pub async fn found(&self, digests: &[Digest]) -> Result<Found, StoreError> {
        if digests.is_empty() {
            return Ok(Found::default());
        }
        let mut stocks = self.neighbours.have(digests, None).await;
        stocks.insert(self.neighbours.me, self.store.stocks(digests, None).await?);
        let is_kept = |at: usize| stocks.values().any(|s| s[at].held.is_some() && !s[at].cached);
        let (kept, doubtful): (BTreeSet<_>, Vec<_>) = {
            let (kept, doubtful): (Vec<_>, Vec<_>) =
                (0..digests.len()).partition(|at| is_kept(*at));
            let named = |at: usize| digests[at];
            (kept.into_iter().map(named).collect(), doubtful.into_iter().map(named).collect())
        };
        let asked =
            doubtful.into_iter().map(|digest| async move { (digest, self.is_lost(digest).await) });
        let asked = futures::stream::iter(asked).buffered(ASKED_AT_A_TIME);
        let lost = asked.filter_map(|(digest, lost)| std::future::ready(lost.then_some(digest)));
        Ok(Found { kept, lost: lost.collect().await })
    }

    /// The error if nobody gives the blob.
    async fn nobody(&self, digest: Digest, sources: &Sources, given_up: GivenUp) -> FlightError {
        let missing = given_up == GivenUp::MissingUpstream;
        let error =
            if missing { FlightError::Missing(digest) } else { FlightError::NoSource(digest) };
        match sources {
            // an upstream that failed may bring it later
            Sources::Find { via: Some(_) } | Sources::Holders { via: Some(_) } if !missing => error,
            Sources::Told(_) => error,
            Sources::Find { .. } | Sources::Holders { .. } => match self.is_lost(digest).await {
                true if missing => FlightError::Gone(digest),
                true => FlightError::Lost(digest),
                false => error,
            },
        }
    }

    /// The sources to ask first, with peers that lied lately at the end.
    async fn first_sources(
        &self,
        digest: Digest,
        sources: &Sources,
        kept_by: &[NodeId],
    ) -> First<NodeId> {
        let me = self.neighbours.me;
        let mut told: Vec<Source<NodeId>> = match sources {
            Sources::Find { .. } => {
                let fetcher = placement::fetcher(
                    &digest,
                    &self.neighbours.region,
                    &self.neighbours.region_alive(),
                );
                let fetcher = fetcher.filter(|f| *f != me && !self.liars.demoted(*f));
                fetcher.map(|node| Source::Peer { node, fill: true }).into_iter().collect()
            }
            Sources::Holders { .. } => Vec::new(),
            Sources::Told(nodes) => nodes
                .iter()
                .filter(|n| **n != me)
                .map(|n| Source::Peer { node: *n, fill: false })
                .collect(),
        };
        self.liars.order(&mut told, Source::peer);
        if !told.is_empty() {
            return First::Named(told);
        }
        let trusted: Vec<NodeId> =
            kept_by.iter().copied().filter(|node| !self.liars.demoted(*node)).collect();
        let mut presumed = self.neighbours.presumed_holders(digest, &trusted).await;
        presumed.retain(|node| !self.liars.demoted(*node));
        if presumed.is_empty() {
            return First::Named(Vec::new());
        }
        First::Presumed(
            presumed.into_iter().map(|node| Source::Peer { node, fill: false }).collect(),
        )
    }

    /// The sources when no other node of the region fetches for this one: the nodes that hold the
    /// blob. If there are none, the nodes of the whole mesh that fetch from the upstream, and then
    /// the upstream itself. The copies of the `damaged` ones are known to be.
    async fn last_sources(
        &self,
        digest: Digest,
        sources: &Sources,
        hurry: Hurry,
        damaged: &BTreeSet<NodeId>,
    ) -> Vec<Source<NodeId>> {
        let trusted = |node| !self.liars.demoted(node);
        let mut holders = self.neighbours.holders(digest, hurry, trusted, damaged).await;
        if holders.is_empty() && sources.via().is_none() {
            holders.extend(self.neighbours.late_holder(digest).await);
        }
        let mut found: Vec<Source<NodeId>> =
            holders.into_iter().map(|node| Source::Peer { node, fill: false }).collect();
        self.liars.order(&mut found, Source::peer);
        if let Some(via) = sources.via() {
            let alive = self.neighbours.alive().into_iter().map(|c| c.id);
            if found.is_empty() {
                // the next in rank replaces one that has just died, so that not all nodes ask the
                // upstream; a node only asks nodes that rank above it
                let before = placement::ranked(&digest, alive)
                    .into_iter()
                    .take_while(|node| *node != self.neighbours.me);
                found.extend(before.take(2).map(|node| Source::Peer { node, fill: true }));
            }
            if self.upstreams.allowed() {
                found.push(Source::Upstream(via.clone()));
            }
        }
        found
    }
}

/// Ends a flight for all who wait for it, even if its task is dropped.
struct Finish {
    flights: Arc<Flights>,
    digest: Digest,
    arriving: Arc<Arriving>,
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.flights.flying.lock().remove(&self.digest);
        let stopped = || FlightError::Broken("the node is stopping".into());
        self.arriving
            .done
            .send_if_modified(|done| done.is_none() && done.replace(Err(stopped())).is_none());
    }
}
