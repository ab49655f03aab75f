//! One flight: source after source, each byte judged as it comes, until the digest has the last word.

use std::collections::BTreeSet;
use std::time::Duration;

use ground::clock;
use mesh::links::LinkError;
use rules::blobs::flight::{Bound, Flight, Step};
use rules::blobs::holding::Held;
use rules::blobs::pacing::Class;
use rules::blobs::reputation::Lie;
use rules::ledger::records::{BlobRecord, Look, key};
use rules::words::digest::Digest;
use rules::words::moment::Moment;
use rules::words::names::{NodeId, RepositoryName};
use tracing::warn;

use super::arriving::Landing;
use super::source::{FetchError, Source};
use super::{Arriving, FlightError, Flights, Found, Sources};
use crate::blobs::transfers::Moving;
use crate::view::neighbours::Hurry;
use store::StoreError;

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
        let (first, found) = self.sources(digest, &sources, kept_by).await;
        // where all were asked last, and how; who asks in a hurry and hears of nobody has waited for all
        let waited = |others: &[Source], hurry| if others.is_empty() { Hurry::All } else { hurry };
        let mut looked = (found == Found::Asked).then(|| (0, waited(&first, Hurry::First)));
        let mut fetching = Fetching {
            digest,
            class: arriving.class(),
            cached: !matches!(sources, Sources::Told(_)),
            named: BTreeSet::new(),
            via,
            flight: Flight::new(first, record.and_then(|record| bound(&record))),
            presumed: found == Found::Presumed,
            missing_upstream: false,
            stalled: Vec::new(),
            grew: clock::now(),
            shown: None,
        };
        let mut landing = Some(self.land_in(&digest)?);
        let mut wrong = None;
        loop {
            match fetching.flight.step() {
                Step::Ask { source, offset } => {
                    // `None` only after an error, which has ended the loop
                    let Some(file) = landing.take() else { return Err(FlightError::NoSource(digest)) };
                    landing = Some(self.ask(&mut fetching, source, offset, file, arriving).await?);
                }
                Step::GiveUp if looked != Some((offset_of(&landing), Hurry::All)) => {
                    // the region's fetcher, or those who were told, could not: ask everyone who has it, and take whoever says so first, for a client waits;
                    // then who says so later; and again whenever that has got any further
                    let at = offset_of(&landing);
                    let hurry = if looked.is_some_and(|(before, _)| before == at) { Hurry::All } else { Hurry::First };
                    fetching.presumed = false;
                    let mut others = self.last_sources(digest, &sources, hurry).await;
                    looked = Some((at, waited(&others, hurry)));
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
                            (looked, fetching.shown) = (None, None);
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
}

/// What the ledger says of the blob's bytes: nothing of what came from an upstream.
fn bound(record: &BlobRecord) -> Option<Bound> {
    Some(Bound { content: record.content?, size: record.size })
}

pub(super) fn store_error(error: StoreError) -> FlightError {
    FlightError::Broken(error.to_string().into())
}

/// A flight as this node carries it out.
pub(super) struct Fetching {
    pub(super) digest: Digest,
    pub(super) class: Class,
    /// Whether it is to be cached, and not kept for good.
    pub(super) cached: bool,
    /// Who has named another node to go on with, and who was named: they are to send the blob themselves.
    pub(super) named: BTreeSet<NodeId>,
    pub(super) via: Option<RepositoryName>,
    pub(super) flight: Flight<Source>,
    /// Whether the source was not asked first whether it holds the blob.
    pub(super) presumed: bool,
    pub(super) missing_upstream: bool,
    /// Who has it and stood still since the last byte.
    pub(super) stalled: Vec<Source>,
    /// When the last byte came.
    pub(super) grew: Moment,
    pub(super) shown: Option<Moving>,
}

impl Fetching {
    pub(super) fn failed(&mut self, source: &Source, error: &FetchError) {
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

/// How far the bytes are.
fn offset_of(landing: &Option<Landing>) -> u64 {
    landing.as_ref().map_or(0, |landing| landing.ingest.written())
}
