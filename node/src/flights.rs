//! Blobs on their way to this node: one flight per digest, however many ask; everyone follows the file while it fills.
//!
//! Within a region one node fetches over the WAN (rendezvous hashing over the live nodes); the others fetch from it while it still
//! fills. What a peer sends is checked in groups of 64 KiB before a byte of it goes on ([`rules::groups`]); only what comes from an upstream, which has no
//! list of groups, goes on unchecked, here and at those who follow. The last piece of a blob is handed out only after its digest was checked: a client
//! never receives the whole of wrong bytes.
//!
//! Memory of a flight: one batch, one group, and 32 bytes for each 64 KiB of the blob.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use mesh::links::LinkError;
use mesh::supervise::Tasks;
use mesh::transfer::{self, TransferTerms, Wanted};
use parking_lot::Mutex;
use rules::digest::Digest;
use rules::flight::{Bound, Claim, Flight, Judgement, Step};
use rules::groups::Groups;
use rules::names::{NodeId, RepositoryName};
use rules::placement;
use rules::records::{BlobRecord, Look, key};
use rules::reputation::Lie;
use rules::wire::Held;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::liars::Liars;
use crate::neighbours::Neighbours;
use crate::proxies::Proxies;
use crate::store::{Following, Ingest, Store, StoreError};
use crate::transfers::{Direction, Moving, Transfers};
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

/// A blob of which the length is known.
#[derive(Clone)]
pub struct Begun {
    /// Its length in bytes.
    pub size: u64,
    /// The file that it arrives in.
    pub file: Arc<File>,
    /// How far that may be read. When the bytes turn out to be wrong this ends, and another file follows.
    pub following: Following,
    /// What its bytes are checked with; `None` while they come from an upstream.
    pub groups: Option<Groups>,
}

/// A blob that is arriving.
pub struct Arriving {
    begun: watch::Sender<Option<Begun>>,
    done: watch::Sender<Option<Result<Held, FlightError>>>,
}

impl Arriving {
    /// What is known of it once a source has answered; at most `deadline` later.
    pub async fn begun(&self, digest: Digest, deadline: Duration) -> Result<Begun, FlightError> {
        let (mut begun, mut done) = (self.begun.subscribe(), self.done.subscribe());
        let known = async {
            tokio::select! {
                begun = begun.wait_for(Option::is_some) => begun.ok().and_then(|b| b.clone()).ok_or(FlightError::NoSource(digest)),
                ended = done.wait_for(Option::is_some) => match ended.ok().and_then(|d| d.clone()) {
                    Some(Err(error)) => Err(error),
                    _ => self.begun.borrow().clone().ok_or(FlightError::NoSource(digest)),
                },
            }
        };
        tokio::time::timeout(deadline, known).await.map_err(|_| FlightError::Slow(digest))?
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
    liars: Arc<Liars>,
    terms: TransferTerms,
    tasks: Tasks,
    proxies: OnceLock<Arc<Proxies>>,
    flying: Mutex<HashMap<Digest, Arc<Arriving>>>,
}

impl Flights {
    /// None yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        transfers: Arc<Transfers>,
        liars: Arc<Liars>,
        terms: TransferTerms,
        tasks: Tasks,
    ) -> Arc<Self> {
        Arc::new(Flights {
            neighbours,
            store,
            transfers,
            liars,
            terms,
            tasks,
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
        let arriving = Arc::new(Arriving { begun: watch::Sender::new(None), done: watch::Sender::new(None) });
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

    /// Fetches `digest` unless it is held, and grants it in `repository` if one is given.
    pub async fn replicate(
        self: &Arc<Self>,
        digest: Digest,
        sources: Vec<NodeId>,
        repository: Option<(&RepositoryName, Duration)>,
    ) -> Result<Held, String> {
        let known = self.store.held(&digest).map_err(|e| e.to_string())?;
        let held = match known {
            Some(held) => held,
            None => self.join(digest, Sources::Told(sources)).finished().await.map_err(|e| e.to_string())?,
        };
        if let Some((repository, lasts)) = repository {
            self.store.grant(digest, repository, lasts).await.map_err(|e| e.to_string())?;
        }
        Ok(held)
    }

    /// The sources to try first; peers that lied lately are the last.
    async fn sources(&self, digest: Digest, sources: &Sources) -> Vec<Source> {
        let me = self.neighbours.me;
        let mut told: Vec<Source> = match sources {
            Sources::Find { .. } => {
                let fetcher = placement::fetcher(&digest, &self.neighbours.region, &self.neighbours.alive());
                let fetcher = fetcher.filter(|f| *f != me && !self.liars.demoted(*f));
                fetcher.map(|node| Source::Peer { node, fill: true }).into_iter().collect()
            }
            Sources::Holders { .. } => Vec::new(),
            Sources::Told(nodes) => {
                nodes.iter().filter(|n| **n != me).map(|n| Source::Peer { node: *n, fill: false }).collect()
            }
        };
        self.liars.order(&mut told, Source::peer);
        if told.is_empty() { self.last_sources(digest, sources).await } else { told }
    }

    /// The sources when nobody else is to fetch for this node: holders; if there are none, whoever of the whole mesh fetches from the upstream; then the
    /// upstream itself.
    async fn last_sources(&self, digest: Digest, sources: &Sources) -> Vec<Source> {
        let holders = self.neighbours.holders(digest).await;
        let mut found: Vec<Source> = holders.into_iter().map(|node| Source::Peer { node, fill: false }).collect();
        self.liars.order(&mut found, Source::peer);
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
            found.push(Source::Upstream(via.clone()));
        }
        found
    }

    /// What the ledger knows of the blob's bytes. Nothing before a manifest refers to it, and nothing of what came from an upstream.
    fn bound(&self, digest: &Digest) -> Option<Bound> {
        let view = self.neighbours.ledger.view();
        let record = view.and_then(|view| view.record::<BlobRecord>(&key::blob(digest))).ok().flatten()?;
        Some(Bound { content: record.content?, size: record.size })
    }

    async fn fly(&self, digest: Digest, sources: Sources, arriving: &Arriving) -> Result<Held, FlightError> {
        metrics::counter!("atoll_flights_total").increment(1);
        let via = match &sources {
            Sources::Find { via } | Sources::Holders { via } => via.clone(),
            Sources::Told(_) => None,
        };
        let first = self.sources(digest, &sources).await;
        let mut fetching = Fetching {
            digest,
            via,
            flight: Flight::new(first, self.bound(&digest)),
            missing_upstream: false,
            shown: None,
        };
        let mut landing = Some(self.land_in(&digest)?);
        let (mut looked_again, mut wrong) = (false, None);
        loop {
            match fetching.flight.step() {
                Step::Ask { source, offset } => {
                    // `None` only after an error, which has ended the loop
                    let Some(file) = landing.take() else { return Err(FlightError::NoSource(digest)) };
                    landing = Some(self.ask(&mut fetching, source, offset, file, arriving).await?);
                }
                Step::GiveUp if !looked_again => {
                    // the region's fetcher, or those who were told, could not: ask everyone who has it
                    looked_again = true;
                    let mut others = self.last_sources(digest, &sources).await;
                    others.retain(|other| !fetching.flight.shunned().iter().any(|shunned| shunned.is(other)));
                    fetching.flight.turn_to(others);
                }
                Step::GiveUp => {
                    let missing = FlightError::Missing(digest);
                    let nothing = if fetching.missing_upstream { missing } else { FlightError::NoSource(digest) };
                    return Err(wrong.unwrap_or(nothing));
                }
                Step::Check => {
                    let Some(Landing { ingest, allowed, .. }) = landing.take() else {
                        return Err(FlightError::NoSource(digest));
                    };
                    match self.store.seal(ingest, digest, None).await {
                        Ok(held) => {
                            let _ = allowed.send_replace(Ok(held.size));
                            return Ok(held);
                        }
                        Err(error) => {
                            let disproved = matches!(error, StoreError::Digest { .. });
                            let failed = store_error(error);
                            if !disproved || !self.restart(&mut fetching) {
                                return Err(failed);
                            }
                            wrong = Some(failed);
                            looked_again = false;
                            // whoever has read wrong bytes is broken off; whoever comes now reads the next file
                            arriving.begun.send_replace(None);
                            landing = Some(self.land_in(&digest)?);
                        }
                    }
                }
            }
        }
    }

    fn land_in(&self, digest: &Digest) -> Result<Landing, FlightError> {
        let ingest = self.store.ingest(digest.algorithm()).map_err(store_error)?;
        Ok(Landing { ingest, size: None, allowed: watch::Sender::new(Ok(0)) })
    }

    /// All bytes are here and their digest is another: whether the flight may begin again without those on whose word they were.
    fn restart(&self, fetching: &mut Fetching) -> bool {
        let digest = fetching.digest;
        warn!(%digest, "what arrived is not the blob; it was thrown away");
        metrics::counter!("atoll_flights_wrong_bytes_total").increment(1);
        let lie = if fetching.flight.groups().is_some() { Lie::Binding } else { Lie::Group };
        let Some(liar) = fetching.flight.restart() else { return false };
        if let Some(Source::Peer { node, .. }) = liar {
            self.liars.caught(node, digest, 0, lie);
        }
        true
    }

    /// Begins to fetch from one source; `None` if it has nothing.
    async fn begin(&self, fetching: &Fetching, source: &Source, offset: u64) -> Result<Option<Incoming>, FetchError> {
        let digest = fetching.digest;
        match source {
            Source::Peer { node, fill } => {
                let (via, list) = (fetching.via.clone(), fetching.flight.wants_list());
                let wanted = Wanted { digest, offset, fill: *fill, via, list };
                let fetch = transfer::fetch(&self.neighbours.links, *node, wanted, self.terms);
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

    /// Takes from one source what it gives. An error is this node's own.
    async fn ask(
        &self,
        fetching: &mut Fetching,
        source: Source,
        offset: u64,
        mut landing: Landing,
        arriving: &Arriving,
    ) -> Result<Landing, FlightError> {
        let digest = fetching.digest;
        let begun = self.begin(fetching, &source, offset).await;
        let flight = &mut fetching.flight;
        let mut incoming = match begun {
            Ok(Some(incoming)) => incoming,
            Ok(None) => {
                flight.handle_failure();
                return Ok(landing);
            }
            Err(error) => {
                debug!(%digest, ?source, %error, "source failed");
                fetching.missing_upstream |= matches!(error, FetchError::Upstream(UpstreamError::NotFound));
                flight.handle_failure();
                return Ok(landing);
            }
        };
        let claim = incoming.claim();
        let size = claim.size;
        match flight.handle_claim(&claim) {
            Judgement::Believed => {}
            Judgement::Contradicted => {
                debug!(%digest, ?source, size, "a source says what others do not");
                flight.handle_failure();
                return Ok(landing);
            }
            Judgement::Lied(lie) => {
                self.caught(&source, digest, offset, lie);
                flight.handle_lie();
                return Ok(landing);
            }
        }
        drop(claim);
        landing.show(arriving, size, flight.groups().cloned());
        let peer = source.peer().unwrap_or(self.neighbours.me);
        let shown = fetching.shown.get_or_insert_with(|| self.transfers.begin(digest, Direction::In, peer, size));
        shown.turn_to(peer);
        while flight.step() != Step::Check {
            let Batch { pieces, then } = next_batch(&mut incoming).await;
            let count: u64 = pieces.iter().map(|b| b.len() as u64).sum();
            if let Source::Peer { .. } = source {
                metrics::counter!("atoll_link_bytes_received_total").increment(count);
            }
            let before = landing.ingest.written();
            let (judged, ingest) = take(flight, landing.ingest, pieces).await?;
            landing.ingest = ingest;
            shown.advance(landing.ingest.written() - before);
            let _ = landing.allowed.send_replace(Ok(landing.ingest.written().min(size.saturating_sub(WITHHELD))));
            let ended = match then {
                _ if judged.is_err() => judged,
                Then::More => continue,
                Then::End => flight.handle_end(),
                Then::Broke(error) => {
                    warn!(%digest, ?source, %error, at = landing.ingest.written(), "source broke off");
                    flight.handle_failure();
                    return Ok(landing);
                }
            };
            match ended {
                Ok(()) => {}
                Err(lie) => {
                    self.caught(&source, digest, landing.ingest.written(), lie);
                    flight.handle_lie();
                    return Ok(landing);
                }
            }
        }
        Ok(landing)
    }

    fn caught(&self, source: &Source, digest: Digest, offset: u64, lie: Lie) {
        match source {
            Source::Peer { node, .. } => self.liars.caught(*node, digest, offset, lie),
            Source::Upstream(repository) => warn!(%repository, %digest, offset, "an upstream's bytes are wrong: {lie}"),
        }
    }
}

fn store_error(error: StoreError) -> FlightError {
    FlightError::Broken(error.to_string().into())
}

/// Writes what counts of `pieces`; bytes that are wrong do not, and who sent them is judged.
async fn take(
    flight: &mut Flight<Source>,
    ingest: Ingest,
    pieces: Vec<Bytes>,
) -> Result<(Result<(), Lie>, Ingest), FlightError> {
    let mut judged = Ok(());
    let written = if flight.groups().is_some() {
        let mut checked = Vec::new();
        for piece in &pieces {
            judged = flight.handle_bytes(piece, &mut checked);
            if judged.is_err() {
                break;
            }
        }
        drop(pieces);
        ingest.write_groups(checked).await
    } else {
        judged = flight.handle_unchecked(pieces.iter().map(|b| b.len() as u64).sum());
        ingest.write_all(if judged.is_ok() { pieces } else { Vec::new() }).await
    };
    Ok((judged, written.map_err(|e| store_error(e.into()))?))
}

/// A flight as this node carries it out.
struct Fetching {
    digest: Digest,
    via: Option<RepositoryName>,
    flight: Flight<Source>,
    missing_upstream: bool,
    shown: Option<Moving>,
}

/// Where the bytes go, and how far others may read them. Dropped before the end, it breaks off whoever follows.
struct Landing {
    ingest: Ingest,
    size: Option<u64>,
    allowed: watch::Sender<Result<u64, Arc<str>>>,
}

impl Landing {
    /// Lets others follow. Those who were told another length, of which no byte has come, are broken off.
    fn show(&mut self, arriving: &Arriving, size: u64, groups: Option<Groups>) {
        if self.size.replace(size).is_some_and(|before| before != size) {
            self.allowed = watch::Sender::new(Ok(0));
        }
        let (file, following) = (self.ingest.file(), self.allowed.subscribe());
        arriving.begun.send_replace(Some(Begun { size, file, following, groups }));
    }
}

/// Where a blob's bytes may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Peer {
        node: NodeId,
        /// Whether it is to fetch the blob itself if it lacks it.
        fill: bool,
    },
    /// The upstream of this proxy repository.
    Upstream(RepositoryName),
}

impl Source {
    fn peer(&self) -> Option<NodeId> {
        match self {
            Source::Peer { node, .. } => Some(*node),
            Source::Upstream(_) => None,
        }
    }

    /// Whether it is the same one, however it is asked.
    fn is(&self, other: &Source) -> bool {
        self == other || (self.peer().is_some() && self.peer() == other.peer())
    }
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
    fn claim(&mut self) -> Claim {
        match self {
            Incoming::Peer(fetch) => std::mem::replace(&mut fetch.claim, Claim { size: 0, content: None, list: None }),
            Incoming::Upstream(stream) => Claim { size: stream.size, content: None, list: None },
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        match self {
            Incoming::Peer(fetch) => Ok(fetch.next().await?),
            // an upstream that ends early has broken off; it has said nothing about the rest
            Incoming::Upstream(stream) => match stream.next().await? {
                None if stream.position() < stream.size => Err(LinkError::Broken("it ended early".into()).into()),
                next => Ok(next),
            },
        }
    }
}

/// What has arrived, and what comes after it.
struct Batch {
    pieces: Vec<Bytes>,
    then: Then,
}

enum Then {
    More,
    End,
    Broke(FetchError),
}

/// Takes what has arrived, up to about [`PIECE`], and does not wait for more once it has something.
async fn next_batch(fetch: &mut Incoming) -> Batch {
    let mut pieces = Vec::new();
    let mut length = 0;
    let then = loop {
        if length >= PIECE {
            break Then::More;
        }
        let next = if pieces.is_empty() {
            fetch.next().await
        } else {
            match futures::FutureExt::now_or_never(fetch.next()) {
                Some(next) => next,
                None => break Then::More,
            }
        };
        match next {
            Ok(Some(bytes)) => {
                length += bytes.len();
                pieces.push(bytes);
            }
            Ok(None) => break Then::End,
            Err(error) => break Then::Broke(error),
        }
    };
    Batch { pieces, then }
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
        self.arriving.done.send_if_modified(|done| done.is_none() && done.replace(Err(stopped())).is_none());
    }
}
