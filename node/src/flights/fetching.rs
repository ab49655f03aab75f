//! One flight: source after source, each byte judged as it comes, until the digest has the last word.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use mesh::clock;
use mesh::links::LinkError;
use mesh::transfer::{self, Wanted};
use rules::digest::Digest;
use rules::flight::{Bound, Flight, Judgement, Step};
use rules::moment::Moment;
use rules::names::{NodeId, RepositoryName};
use rules::pacing::Class;
use rules::records::{BlobRecord, Look, key};
use rules::reputation::Lie;
use rules::wire::Held;
use tracing::{debug, warn};

use super::arriving::Landing;
use super::source::{Batch, FetchError, Incoming, Source, Then, next_batch};
use super::{Arriving, FlightError, Flights, Sources};
use crate::neighbours::Hurry;
use crate::store::{Ingest, StoreError};
use crate::transfers::{Direction, Moving};
use crate::upstream::UpstreamError;

/// This much of a blob is withheld until its hash was checked.
const WITHHELD: u64 = 64 << 10;
/// Between two attempts at sources that stand still.
const AGAIN: Duration = Duration::from_millis(200);

impl Flights {
    /// What the ledger knows of the blob. Nothing before a manifest refers to it.
    fn record(&self, digest: &Digest) -> Option<BlobRecord> {
        let view = self.neighbours.records.view();
        view.and_then(|view| view.record::<BlobRecord>(&key::blob(digest))).ok().flatten()
    }

    pub(super) async fn fly(&self, digest: Digest, sources: Sources, arriving: &Arriving) -> Result<Held, FlightError> {
        metrics::counter!("atoll_flights_total").increment(1);
        let via = match &sources {
            Sources::Find { via } | Sources::Holders { via } => via.clone(),
            Sources::Told(_) => None,
        };
        let record = self.record(&digest);
        let kept_by = record.as_ref().map_or(&[][..], |record| &record.kept_by);
        let (first, presumed) = self.sources(digest, &sources, kept_by).await;
        let mut fetching = Fetching {
            digest,
            class: arriving.class(),
            named: BTreeSet::new(),
            via,
            flight: Flight::new(first, record.and_then(|record| bound(&record))),
            presumed,
            missing_upstream: false,
            stalled: Vec::new(),
            grew: clock::now(),
            shown: None,
        };
        let mut landing = Some(self.land_in(&digest)?);
        let (mut looked_again, mut wrong) = (None, None);
        loop {
            match fetching.flight.step() {
                Step::Ask { source, offset } => {
                    // `None` only after an error, which has ended the loop
                    let Some(file) = landing.take() else { return Err(FlightError::NoSource(digest)) };
                    landing = Some(self.ask(&mut fetching, source, offset, file, arriving).await?);
                }
                Step::GiveUp if looked_again != Some((offset_of(&landing), Hurry::All)) => {
                    // the region's fetcher, or those who were told, could not: ask everyone who has it, and take whoever says so first, for a client waits;
                    // then who says so later; and again whenever that has got any further
                    let at = offset_of(&landing);
                    let hurry =
                        if looked_again.is_some_and(|(before, _)| before == at) { Hurry::All } else { Hurry::First };
                    looked_again = Some((at, hurry));
                    fetching.presumed = false;
                    let mut others = self.last_sources(digest, &sources, hurry).await;
                    others.retain(|other| !fetching.flight.shunned().iter().any(|shunned| shunned.is(other)));
                    fetching.flight.turn_to(others);
                }
                Step::GiveUp if fetching.flight.forgive() => {}
                Step::GiveUp if self.turn_to_stalled(&mut fetching) => tokio::time::sleep(AGAIN).await,
                Step::GiveUp => {
                    let missing = FlightError::Missing(digest);
                    let nothing = if fetching.missing_upstream { missing } else { FlightError::NoSource(digest) };
                    return Err(wrong.unwrap_or(nothing));
                }
                Step::Check => {
                    let Some(Landing { mut ingest, allowed, .. }) = landing.take() else {
                        return Err(FlightError::NoSource(digest));
                    };
                    if ingest.is_whole(&digest) {
                        // those who follow need not wait for this disk: in a chain each would wait for all before it
                        let _ = allowed.send_replace(Ok(ingest.written()));
                    }
                    let sealed = match &sources {
                        Sources::Told(_) => self.store.seal(ingest, digest, None).await,
                        Sources::Find { .. } | Sources::Holders { .. } => self.store.seal_cached(ingest, digest).await,
                    };
                    match sealed {
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
                            (looked_again, fetching.shown) = (None, None);
                            // whoever has read wrong bytes is broken off; whoever comes now reads the next file
                            arriving.begun.send_replace(None);
                            landing = Some(self.land_in(&digest)?);
                        }
                    }
                }
            }
        }
    }

    /// Nobody else has it: goes on with those who had it and stand still (a paused machine, a full link) while they are not known to be down, for as long as
    /// a client would wait.
    fn turn_to_stalled(&self, fetching: &mut Fetching) -> bool {
        let down = self.neighbours.members.down();
        let mut again = std::mem::take(&mut fetching.stalled);
        again.retain(|source| source.peer().is_some_and(|node| !down.contains(&node)));
        let patient = !again.is_empty() && clock::now().since(fetching.grew) < self.terms.stall;
        if patient {
            fetching.flight.turn_to(again);
        }
        patient
    }

    fn land_in(&self, digest: &Digest) -> Result<Landing, FlightError> {
        let ingest = self.store.ingest(digest.algorithm()).map_err(store_error)?;
        Ok(Landing::new(ingest))
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

    /// Begins to fetch from one source.
    async fn begin(&self, fetching: &Fetching, source: &Source, offset: u64) -> Result<Answer, FetchError> {
        let digest = fetching.digest;
        match source {
            Source::Peer { node, fill } => {
                let (via, list) = (fetching.via.clone(), fetching.flight.wants_list());
                let direct = fetching.named.contains(node);
                let wanted = Wanted { digest, offset, fill: *fill, via, list, direct, class: fetching.class };
                let mut terms = self.terms;
                if fetching.presumed {
                    // it was not asked whether it is there: others have to be turned to while a client still waits
                    terms.first_byte = terms.first_byte.min(terms.source_stall);
                }
                let fetch = transfer::fetch(&self.neighbours.links, *node, wanted, terms);
                Ok(match fetch.await? {
                    transfer::Fetching::Found(fetch) => Answer::Found(Incoming::Peer(fetch)),
                    transfer::Fetching::Elsewhere(other) => Answer::Elsewhere { named_by: *node, other },
                    transfer::Fetching::Missing => Answer::Nothing,
                })
            }
            Source::Upstream(repository) => {
                let Some(proxies) = self.proxies.get() else { return Ok(Answer::Nothing) };
                let Some((upstream, there)) = proxies.upstream_of(repository)? else { return Ok(Answer::Nothing) };
                let stream = upstream.blob(&there, &digest, offset).await?;
                Ok(Answer::Found(Incoming::Upstream(Box::new(stream))))
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
        fetching.class = arriving.class();
        let mut incoming = match self.begin(fetching, &source, offset).await {
            Ok(Answer::Found(incoming)) => incoming,
            Ok(Answer::Elsewhere { named_by, other }) => {
                self.turn_aside(fetching, named_by, other);
                return Ok(landing);
            }
            Ok(Answer::Nothing) => {
                fetching.flight.handle_silence();
                return Ok(landing);
            }
            Err(error) => {
                debug!(%digest, ?source, %error, "source failed");
                fetching.missing_upstream |= matches!(error, FetchError::Upstream(UpstreamError::NotFound));
                fetching.failed(&source, &error);
                return Ok(landing);
            }
        };
        fetching.presumed = false;
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
                self.caught(&source, digest, offset, lie);
                fetching.flight.handle_lie(lie);
                return Ok(landing);
            }
        }
        drop(claim);
        self.store.make_room(size).await.map_err(store_error)?;
        landing.show(arriving, size, fetching.flight.groups().cloned(), incoming.behind());
        let peer = source.peer().unwrap_or(self.neighbours.me);
        let shown = fetching.shown.get_or_insert_with(|| self.transfers.begin(digest, Direction::In, peer, size));
        shown.turn_to(peer);
        while fetching.flight.step() != Step::Check {
            if arriving.class() < fetching.class {
                // somebody is in more of a hurry now: the same source again, for that
                return Ok(landing);
            }
            let Batch { pieces, then } = next_batch(&mut incoming).await;
            let count: u64 = pieces.iter().map(|b| b.len() as u64).sum();
            if let Source::Peer { .. } = source {
                metrics::counter!("atoll_link_bytes_received_total").increment(count);
            }
            let before = landing.ingest.written();
            let (judged, ingest) = take(&mut fetching.flight, landing.ingest, pieces).await?;
            landing.ingest = ingest;
            let grown = landing.ingest.written() - before;
            if grown > 0 {
                (fetching.grew, fetching.stalled) = (clock::now(), Vec::new());
            }
            shown.advance(grown);
            let _ = landing.allowed.send_replace(Ok(landing.ingest.written().min(size.saturating_sub(WITHHELD))));
            let ended = match then {
                _ if judged.is_err() => judged,
                Then::More => continue,
                Then::End => fetching.flight.handle_end(),
                Then::Broke(error) => {
                    warn!(%digest, ?source, %error, at = landing.ingest.written(), "source broke off");
                    fetching.failed(&source, &error);
                    return Ok(landing);
                }
            };
            match ended {
                Ok(()) => {}
                Err(lie) => {
                    self.caught(&source, digest, landing.ingest.written(), lie);
                    fetching.flight.handle_lie(lie);
                    return Ok(landing);
                }
            }
        }
        Ok(landing)
    }

    /// A source names another node that passes the blob on. It is named once: whoever has named one is to send the blob itself the next time.
    fn turn_aside(&self, fetching: &mut Fetching, named_by: NodeId, other: NodeId) {
        if !fetching.named.insert(named_by) {
            fetching.flight.handle_failure();
        } else if other != self.neighbours.me && !self.liars.demoted(other) {
            metrics::counter!("atoll_flights_sent_on_total").increment(1);
            // whoever named it has made room for this node there: it is not to be sent on again
            fetching.named.insert(other);
            fetching.flight.handle_elsewhere(Source::Peer { node: other, fill: false });
        }
    }

    fn caught(&self, source: &Source, digest: Digest, offset: u64, lie: Lie) {
        match source {
            Source::Peer { node, .. } => self.liars.caught(*node, digest, offset, lie),
            Source::Upstream(repository) => warn!(%repository, %digest, offset, "an upstream's bytes are wrong: {lie}"),
        }
    }
}

/// What the ledger says of the blob's bytes: nothing of what came from an upstream.
fn bound(record: &BlobRecord) -> Option<Bound> {
    Some(Bound { content: record.content?, size: record.size })
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
    class: Class,
    /// Who has named another node to go on with, and who was named: they are to send the blob themselves.
    named: BTreeSet<NodeId>,
    via: Option<RepositoryName>,
    flight: Flight<Source>,
    /// Whether the source was not asked first whether it holds the blob.
    presumed: bool,
    missing_upstream: bool,
    /// Who has it and stood still since the last byte.
    stalled: Vec<Source>,
    /// When the last byte came.
    grew: Moment,
    shown: Option<Moving>,
}

impl Fetching {
    fn failed(&mut self, source: &Source, error: &FetchError) {
        if !matches!(error, FetchError::Peer(LinkError::Deadline)) {
            return self.flight.handle_failure();
        }
        self.flight.handle_silence();
        if self.shown.is_some() {
            // it had begun: if nobody else has the blob, it may go on
            metrics::counter!("atoll_sources_stalled_total").increment(1);
            self.stalled.push(source.clone());
        }
    }
}

/// What a source answers.
enum Answer {
    Found(Incoming),
    Elsewhere { named_by: NodeId, other: NodeId },
    Nothing,
}

/// How far the bytes are.
fn offset_of(landing: &Option<Landing>) -> u64 {
    landing.as_ref().map_or(0, |landing| landing.ingest.written())
}
