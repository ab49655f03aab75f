//! Blobs on their way to this node: one flight per digest, however many ask; everyone follows the file while it fills.
//!
//! Within a region one node fetches over the WAN (rendezvous hashing over the live nodes); the others fetch from it while it still
//! fills. The last piece of a blob is handed out only after its hash was checked: a client never receives the whole of wrong bytes.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use mesh::links::LinkError;
use mesh::supervise::Tasks;
use mesh::transfer::{self, TransferTerms};
use parking_lot::Mutex;
use rules::digest::Digest;
use rules::flight::{Flight, Step};
use rules::names::{NodeId, RepositoryName};
use rules::placement;
use rules::wire::Held;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::neighbours::Neighbours;
use crate::proxies::Proxies;
use crate::store::{Following, Store, StoreError};
use crate::transfers::{Direction, Transfers};
use crate::upstream::{BlobStream, UpstreamError};

/// This much of a blob is withheld until its hash was checked.
const WITHHELD: u64 = 64 << 10;
/// Bytes are written and published in pieces of about this size.
const PIECE: usize = 256 << 10;

/// Why a blob could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlightError {
    /// No live node has it. It may come back with a node.
    #[error("no reachable node holds {0}")]
    NoSource(Digest),
    /// It is in no node, and its upstream does not have it.
    #[error("neither the mesh nor the upstream has {0}")]
    Missing(Digest),
    /// It did not begin to arrive in time.
    #[error("{0} did not begin to arrive in time")]
    Slow(Digest),
    /// It began and broke off.
    #[error("{0}")]
    Broken(Arc<str>),
}

/// A blob that is arriving.
pub struct Arriving {
    file: OnceLock<Arc<File>>,
    size: watch::Sender<Option<u64>>,
    allowed: watch::Sender<Result<u64, Arc<str>>>,
    done: watch::Sender<Option<Result<Held, FlightError>>>,
}

impl Arriving {
    /// Its length, its file, and how far that may be read, once the first bytes are there; at most `deadline` later.
    pub async fn begun(&self, digest: Digest, deadline: Duration) -> Result<(u64, Arc<File>, Following), FlightError> {
        let (mut size, mut done) = (self.size.subscribe(), self.done.subscribe());
        let known = async {
            tokio::select! {
                found = size.wait_for(Option::is_some) => found.ok().and_then(|s| *s).ok_or(FlightError::NoSource(digest)),
                ended = done.wait_for(Option::is_some) => match ended.ok().and_then(|d| d.clone()) {
                    Some(Ok(held)) => Ok(held.size),
                    Some(Err(error)) => Err(error),
                    None => Err(FlightError::NoSource(digest)),
                },
            }
        };
        let size = tokio::time::timeout(deadline, known).await.map_err(|_| FlightError::Slow(digest))??;
        let file = self.file.get().cloned().ok_or(FlightError::NoSource(digest))?;
        Ok((size, file, self.allowed.subscribe()))
    }

    /// Its end.
    pub async fn finished(&self) -> Result<Held, FlightError> {
        let mut done = self.done.subscribe();
        match done.wait_for(Option::is_some).await.ok().and_then(|d| d.clone()) {
            Some(result) => result,
            None => Err(FlightError::Broken("the flight was dropped".into())),
        }
    }
}

/// Who may be asked for a blob.
#[derive(Clone, Debug)]
pub enum Sources {
    /// Whoever is right: the region's fetcher, or whoever holds it, or the upstream.
    Find {
        /// The proxy repository whose upstream has it.
        via: Option<RepositoryName>,
    },
    /// This node was chosen to fetch for others: whoever holds it, or the upstream.
    Holders {
        /// The proxy repository whose upstream has it.
        via: Option<RepositoryName>,
    },
    /// These, told by the primary.
    Told(Vec<NodeId>),
}

/// All flights of this node.
pub struct Flights {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    transfers: Arc<Transfers>,
    terms: TransferTerms,
    tasks: Tasks,
    upstream_allowed: bool,
    proxies: OnceLock<Arc<Proxies>>,
    flying: Mutex<HashMap<Digest, Arc<Arriving>>>,
}

impl Flights {
    /// None yet. `upstream_allowed`: this node may fetch from upstreams itself.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        transfers: Arc<Transfers>,
        terms: TransferTerms,
        upstream_allowed: bool,
        tasks: Tasks,
    ) -> Arc<Self> {
        Arc::new(Flights {
            neighbours,
            store,
            transfers,
            terms,
            tasks,
            upstream_allowed,
            proxies: OnceLock::new(),
            flying: Mutex::default(),
        })
    }

    /// Upstreams may be fetched from, too. Told once: proxies need writes, and writes need flights.
    pub fn use_upstreams(&self, proxies: Arc<Proxies>) {
        let _ = self.proxies.set(proxies);
    }

    /// The flight of `digest`, if there is one.
    pub fn flying(&self, digest: &Digest) -> Option<Arc<Arriving>> {
        self.flying.lock().get(digest).cloned()
    }

    /// Joins the flight of `digest`, or starts it.
    pub fn join(self: &Arc<Self>, digest: Digest, sources: Sources) -> Arc<Arriving> {
        let mut flying = self.flying.lock();
        if let Some(arriving) = flying.get(&digest) {
            return arriving.clone();
        }
        let arriving = Arc::new(Arriving {
            file: OnceLock::new(),
            size: watch::Sender::new(None),
            allowed: watch::Sender::new(Ok(0)),
            done: watch::Sender::new(None),
        });
        flying.insert(digest, arriving.clone());
        let (flights, task) = (self.clone(), arriving.clone());
        self.tasks.spawn("flight", async move {
            let landing = Landing { flights: flights.clone(), digest, arriving: task.clone() };
            let result = flights.fly(digest, sources, &task).await;
            if let Err(error) = &result {
                debug!(%digest, %error, "flight failed");
                metrics::counter!("atoll_flights_failed_total").increment(1);
            }
            landing.land(result);
        });
        arriving
    }

    /// Fetches `digest` unless it is held, and grants it in `repository` if one is given.
    pub async fn replicate(
        self: &Arc<Self>,
        digest: Digest,
        sources: Vec<NodeId>,
        repository: Option<(&RepositoryName, Duration)>,
    ) -> Result<Held, String> {
        let keep = || self.store.keep(&digest);
        let held = match keep().await.map_err(|e| e.to_string())? {
            Some(held) => held,
            None => {
                self.join(digest, Sources::Told(sources)).finished().await.map_err(|e| e.to_string())?;
                // the flight may have been another's, which keeps it as a cache does
                let held = keep().await.map_err(|e| e.to_string())?;
                held.ok_or_else(|| format!("{digest} was fetched, but there is no room for it (cache.budget)"))?
            }
        };
        if let Some((repository, lasts)) = repository {
            self.store.grant(digest, repository, lasts).await.map_err(|e| e.to_string())?;
        }
        Ok(held)
    }

    /// The sources to try first.
    async fn sources(&self, digest: Digest, sources: &Sources) -> Vec<Source> {
        let me = self.neighbours.me;
        let told = match sources {
            Sources::Find { .. } => {
                let fetcher = placement::fetcher(&digest, &self.neighbours.region, &self.neighbours.region_alive());
                fetcher.filter(|f| *f != me).map(|node| Source::Peer { node, fill: true }).into_iter().collect()
            }
            Sources::Holders { .. } => Vec::new(),
            Sources::Told(nodes) => {
                nodes.iter().filter(|n| **n != me).map(|n| Source::Peer { node: *n, fill: false }).collect()
            }
        };
        if told.is_empty() { self.last_sources(digest, sources).await } else { told }
    }

    /// The sources when nobody else is to fetch for this node: holders; if there are none, whoever of the whole mesh fetches from the upstream; then the
    /// upstream itself.
    async fn last_sources(&self, digest: Digest, sources: &Sources) -> Vec<Source> {
        let holders = self.neighbours.holders(digest).await;
        let mut found: Vec<Source> = holders.into_iter().map(|node| Source::Peer { node, fill: false }).collect();
        let via = match sources {
            Sources::Find { via } | Sources::Holders { via } => via.as_ref(),
            Sources::Told(_) => None,
        };
        if let Some(via) = via {
            let alive = self.neighbours.alive().into_iter().map(|c| c.id);
            let fetcher = placement::ranked(&digest, alive).first().copied();
            if found.is_empty() {
                let other = fetcher.filter(|node| *node != self.neighbours.me);
                found.extend(other.map(|node| Source::Peer { node, fill: true }));
            }
            if self.upstream_allowed {
                found.push(Source::Upstream(via.clone()));
            }
        }
        found
    }

    /// Begins to fetch from one source; `None` if it has nothing.
    async fn begin(
        &self,
        digest: Digest,
        offset: u64,
        source: &Source,
        via: Option<RepositoryName>,
    ) -> Result<Option<Incoming>, FetchError> {
        match source {
            Source::Peer { node, fill } => {
                let fetch = transfer::fetch(&self.neighbours.links, *node, digest, offset, *fill, via, self.terms);
                Ok(fetch.await?.map(Incoming::Peer))
            }
            Source::Upstream(repository) => {
                let Some(proxies) = self.proxies.get() else { return Ok(None) };
                let Some((upstream, there)) = proxies.upstream_of(repository)? else { return Ok(None) };
                let stream = upstream.blob(&there, &digest, offset).await?;
                Ok(Some(Incoming::Upstream(Box::new(stream))))
            }
        }
    }

    async fn fly(&self, digest: Digest, sources: Sources, arriving: &Arriving) -> Result<Held, FlightError> {
        metrics::counter!("atoll_flights_total").increment(1);
        let store_error = |e: StoreError| FlightError::Broken(e.to_string().into());
        let via = match &sources {
            Sources::Find { via } | Sources::Holders { via } => via.clone(),
            Sources::Told(_) => None,
        };
        let mut flight = Flight::new(self.sources(digest, &sources).await);
        let mut ingest = self.store.ingest(digest.algorithm()).map_err(store_error)?;
        let _ = arriving.file.set(ingest.file());
        let mut progress = None;
        let mut looked_again = false;
        let mut missing_upstream = false;
        loop {
            let (source, offset) = match flight.step() {
                Step::Check => break,
                Step::GiveUp if !looked_again => {
                    // the region's fetcher, or those who were told, could not: ask everyone who has it
                    looked_again = true;
                    flight = Flight::new(self.last_sources(digest, &sources).await);
                    if let Some(size) = *arriving.size.borrow() {
                        flight.handle_size(size);
                    }
                    flight.handle_bytes(ingest.written());
                    continue;
                }
                Step::GiveUp if missing_upstream => return Err(FlightError::Missing(digest)),
                Step::GiveUp => return Err(FlightError::NoSource(digest)),
                Step::Ask { source, offset } => (source, offset),
            };
            let mut incoming = match self.begin(digest, offset, &source, via.clone()).await {
                Ok(Some(incoming)) if flight.handle_size(incoming.size()) => incoming,
                Ok(_) => {
                    flight.handle_failure();
                    continue;
                }
                Err(error) => {
                    debug!(%digest, ?source, %error, "source failed");
                    missing_upstream |= matches!(error, FetchError::Upstream(UpstreamError::NotFound));
                    flight.handle_failure();
                    continue;
                }
            };
            let size = incoming.size();
            let peer = match &source {
                Source::Peer { node, .. } => *node,
                Source::Upstream(_) => self.neighbours.me,
            };
            let shown = progress.get_or_insert_with(|| self.transfers.begin(digest, Direction::In, peer, size));
            arriving.size.send_replace(Some(size));
            self.store.make_room(size).await.map_err(store_error)?;
            loop {
                let batch = match next_batch(&mut incoming).await {
                    Ok(batch) if batch.is_empty() => break,
                    Ok(batch) => batch,
                    Err(error) => {
                        warn!(%digest, ?source, %error, at = ingest.written(), "source broke off");
                        break;
                    }
                };
                let count: u64 = batch.iter().map(|b| b.len() as u64).sum();
                if !flight.handle_bytes(count) {
                    warn!(%digest, ?source, "source sent more than it said");
                    break;
                }
                if let Source::Peer { .. } = source {
                    metrics::counter!("atoll_link_bytes_received_total").increment(count);
                }
                ingest = ingest.write_all(batch).await.map_err(|e| store_error(e.into()))?;
                shown.advance(count);
                let allowed = ingest.written().min(size.saturating_sub(WITHHELD));
                let _ = arriving.allowed.send_replace(Ok(allowed));
            }
            if ingest.written() < size {
                flight.handle_failure();
            }
        }
        let sealed = match &sources {
            Sources::Told(_) => self.store.seal(ingest, digest, None).await,
            Sources::Find { .. } | Sources::Holders { .. } => self.store.seal_cached(ingest, digest).await,
        };
        let held = match sealed {
            Ok(held) => held,
            Err(error) => {
                // not demoted by name yet: which of several sources lied is known once ranges are verified
                warn!(%digest, %error, "what arrived is not the blob; it was thrown away");
                metrics::counter!("atoll_flights_wrong_bytes_total").increment(1);
                return Err(store_error(error));
            }
        };
        let _ = arriving.allowed.send_replace(Ok(held.size));
        Ok(held)
    }
}

/// Where a blob's bytes may come from.
#[derive(Clone, Debug)]
enum Source {
    Peer {
        node: NodeId,
        /// Whether it is to fetch the blob itself if it lacks it.
        fill: bool,
    },
    /// The upstream of this proxy repository.
    Upstream(RepositoryName),
}

/// A blob that is arriving from one source.
enum Incoming {
    Peer(transfer::Fetch),
    Upstream(Box<BlobStream>),
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Peer(#[from] LinkError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

impl Incoming {
    fn size(&self) -> u64 {
        match self {
            Incoming::Peer(fetch) => fetch.size,
            Incoming::Upstream(stream) => stream.size,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        match self {
            Incoming::Peer(fetch) => Ok(fetch.next().await?),
            Incoming::Upstream(stream) => Ok(stream.next().await?),
        }
    }
}

/// Takes what has arrived, up to about [`PIECE`], and does not wait for more once it has something.
async fn next_batch(fetch: &mut Incoming) -> Result<Vec<Bytes>, FetchError> {
    let mut batch = Vec::new();
    let mut length = 0;
    while length < PIECE {
        let next = if batch.is_empty() {
            fetch.next().await?
        } else {
            match futures::FutureExt::now_or_never(fetch.next()) {
                Some(next) => next?,
                None => break,
            }
        };
        match next {
            Some(bytes) => {
                length += bytes.len();
                batch.push(bytes);
            }
            None => break,
        }
    }
    Ok(batch)
}

/// Ends a flight for all who follow it, even if its task is dropped.
struct Landing {
    flights: Arc<Flights>,
    digest: Digest,
    arriving: Arc<Arriving>,
}

impl Landing {
    fn land(self, result: Result<Held, FlightError>) {
        if let Err(error) = &result {
            let _ = self.arriving.allowed.send_replace(Err(error.to_string().into()));
        }
        self.arriving.done.send_replace(Some(result));
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.flying.lock().remove(&self.digest);
        if self.arriving.done.borrow().is_none() {
            let stopped = FlightError::Broken("the node is stopping".into());
            let _ = self.arriving.allowed.send_replace(Err(stopped.to_string().into()));
            self.arriving.done.send_replace(Some(Err(stopped)));
        }
    }
}
