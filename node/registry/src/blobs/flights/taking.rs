//! Takes what one source gives: asks it from the byte that is wanted, judges its claim, and reads
//! until it ends, lies, breaks off or falls silent.

use bytes::Bytes;
use ground::clock;
use mesh::transfer::{self, Wanted};
use rules::blobs::flight::{Flight, Judgement, Request, Source};
use rules::blobs::reputation::Lie;
use rules::words::digest::Digest;
use rules::words::names::NodeId;
use tracing::{debug, warn};

use super::arriving::Landing;
use super::fetching::{Fetching, store_error};
use super::source::{Batch, FetchError, Incoming, Then, next_batch};
use super::{Arriving, FlightError, Flights};
use crate::blobs::transfers::Direction;
use store::Ingest;
use upstream::UpstreamError;

/// The number of bytes at the end of a blob that are withheld until its hash was checked.
const WITHHELD: u64 = 64 << 10;

impl Flights {
    /// Begins to fetch from one source.
    async fn begin(
        &self,
        fetching: &Fetching,
        request: &Request<NodeId>,
    ) -> Result<Answer, FetchError> {
        let digest = fetching.digest;
        let &Request { offset, list, direct, presumed, .. } = request;
        match &request.source {
            Source::Peer { node, fill } => {
                let (via, class) = (fetching.via.clone(), fetching.class);
                let wanted = Wanted { digest, offset, fill: *fill, via, list, direct, class };
                let mut terms = self.terms;
                if presumed {
                    terms.first_byte = terms.first_byte.min(terms.source_stall);
                }
                let fetch = transfer::fetch(&self.neighbours.links, *node, wanted, terms);
                Ok(match fetch.await? {
                    transfer::Fetching::Found(fetch) => Answer::Found(Incoming::Peer(fetch)),
                    transfer::Fetching::Elsewhere(other) => Answer::Elsewhere(other),
                    transfer::Fetching::Missing => Answer::Nothing,
                })
            }
            Source::Upstream(repository) => {
                let Some((upstream, there)) = self.upstreams.admitted(repository)? else {
                    return Ok(Answer::Nothing);
                };
                if let Some(error) = self.refusals.standing(clock::now(), repository, digest) {
                    return Err(error.into());
                }
                match upstream.blob(&there, &digest, offset).await {
                    Ok(stream) => Ok(Answer::Found(Incoming::Upstream(Box::new(stream)))),
                    Err(error) => {
                        self.refusals.note(clock::now(), repository, digest, error.clone());
                        Err(error.into())
                    }
                }
            }
        }
    }

    /// Takes from one source what it gives. An error is a fault of this node, not of the source.
    pub(super) async fn ask(
        &self,
        fetching: &mut Fetching,
        request: Request<NodeId>,
        mut landing: Landing,
        arriving: &Arriving,
    ) -> Result<Landing, FlightError> {
        let digest = fetching.digest;
        fetching.class = arriving.class();
        let begun = tokio::select! {
            biased;
            begun = self.begin(fetching, &request) => begun,
            () = arriving.raised(fetching.class) => return Ok(landing),
        };
        let source = request.source;
        let mut incoming = match begun {
            Ok(Answer::Found(incoming)) => incoming,
            Ok(Answer::Elsewhere(other)) => {
                let usable = other != self.neighbours.me && !self.liars.demoted(other);
                if fetching.flight.handle_elsewhere(other, usable) {
                    metrics::counter!("atoll_flights_sent_on_total").increment(1);
                }
                return Ok(landing);
            }
            Ok(Answer::Nothing) => {
                fetching.flight.handle_nothing();
                return Ok(landing);
            }
            Err(error) => {
                debug!(%digest, ?source, %error, "source failed");
                match error {
                    FetchError::Upstream(UpstreamError::NotFound) => {
                        fetching.flight.handle_missing()
                    }
                    error => fetching.failed(&error),
                }
                return Ok(landing);
            }
        };
        if incoming.is_damaged() && fetching.flight.handle_damaged() {
            debug!(%digest, ?source, "a source says that its copy is damaged");
            fetching.damaged.extend(source.peer());
            return Ok(landing);
        }
        let claim = incoming.claim();
        let size = claim.size;
        match fetching.flight.handle_claim(&claim) {
            Judgement::Believed => {}
            Judgement::Contradicted => {
                debug!(%digest, ?source, size, "a source says what others do not");
                fetching.flight.handle_failure();
                return Ok(landing);
            }
            Judgement::Lied(lie) => {
                self.caught(&source, digest, fetching.flight.offset(), lie);
                fetching.flight.handle_lie(lie);
                return Ok(landing);
            }
        }
        drop(claim);
        if fetching.cached {
            self.make_room(size);
        }
        landing.ingest = self.store.reserve(landing.ingest, size).await.map_err(store_error)?;
        // a client is told how it ends, once its answer has begun, by breaking off; so what may well
        // not come is announced when it is here
        if !incoming.is_damaged() || landing.is_shown() {
            landing.show(arriving, size, fetching.flight.groups().cloned(), incoming.behind());
        }
        let peer = source.peer().unwrap_or(self.neighbours.me);
        let shown = fetching
            .shown
            .get_or_insert_with(|| self.transfers.begin(digest, Direction::In, peer, size));
        shown.turn_to(peer);
        while !fetching.flight.is_whole() {
            let Batch { pieces, then } = tokio::select! {
                biased;
                // a more urgent request came: ask the same source again, for that class
                () = arriving.raised(fetching.class) => return Ok(landing),
                batch = next_batch(&mut incoming) => batch,
            };
            let count: u64 = pieces.iter().map(|b| b.len() as u64).sum();
            if let Source::Peer { .. } = source {
                metrics::counter!("atoll_link_bytes_received_total").increment(count);
            }
            let before = landing.ingest.written();
            let (judged, ingest) = take(&mut fetching.flight, landing.ingest, pieces).await?;
            landing.ingest = ingest;
            shown.advance(landing.ingest.written() - before);
            let _ = landing
                .allowed
                .send_replace(Ok(landing.ingest.written().min(size.saturating_sub(WITHHELD))));
            let now = clock::now();
            fetching.flight.handle_waiting(now, arriving.is_waited_for(&landing));
            if judged.is_ok() && fetching.flight.is_deserted(now) {
                debug!(%digest, at = landing.ingest.written(), "nobody waits for a blob any more");
                return Ok(landing);
            }
            let ended = match then {
                _ if judged.is_err() => judged,
                Then::More => continue,
                Then::End => fetching.flight.handle_end(),
                Then::Broke(error) => {
                    warn!(%digest, ?source, %error, at = landing.ingest.written(), "source broke off");
                    fetching.failed(&error);
                    return Ok(landing);
                }
            };
            match ended {
                Ok(()) => {}
                Err(lie) => {
                    self.caught(&source, digest, landing.ingest.written(), lie);
                    fetching.damaged.extend(source.peer());
                    fetching.flight.handle_lie(lie);
                    return Ok(landing);
                }
            }
        }
        Ok(landing)
    }

    /// Makes room in the budget for a blob that will be cached, while it already arrives. The budget
    /// may be exceeded for a moment, and otherwise the client would wait for the evictions.
    fn make_room(&self, size: u64) {
        let store = self.store.clone();
        self.tasks.spawn("flight.room", async move {
            if let Err(error) = store.make_room(size).await {
                warn!(%error, "cached blobs could not be evicted");
            }
        });
    }

    fn caught(&self, source: &Source<NodeId>, digest: Digest, offset: u64, lie: Lie) {
        match source {
            Source::Peer { node, .. } => self.liars.caught(*node, digest, offset, lie),
            Source::Upstream(repository) => {
                warn!(%repository, %digest, offset, "an upstream's bytes are wrong: {lie}")
            }
        }
    }
}

/// Writes the bytes of `pieces` that are right. Wrong bytes are dropped, and their sender is
/// judged.
async fn take(
    flight: &mut Flight<NodeId>,
    ingest: Ingest,
    pieces: Vec<Bytes>,
) -> Result<(Result<(), Lie>, Ingest), FlightError> {
    let (now, mut judged) = (clock::now(), Ok(()));
    let written = if flight.groups().is_some() {
        let mut checked = Vec::new();
        for piece in &pieces {
            judged = flight.handle_bytes(now, piece, &mut checked);
            if judged.is_err() {
                break;
            }
        }
        drop(pieces);
        ingest.write_groups(checked).await
    } else {
        judged = flight.handle_unchecked(now, pieces.iter().map(|b| b.len() as u64).sum());
        ingest.write_all(if judged.is_ok() { pieces } else { Vec::new() }).await
    };
    Ok((judged, written.map_err(|e| store_error(e.into()))?))
}

/// A source's answer.
enum Answer {
    Found(Incoming),
    Elsewhere(NodeId),
    Nothing,
}
