//! Carries out one flight. `rules` (flight) decides each step.

use std::collections::BTreeSet;
use std::io;

use ground::clock;
use mesh::links::LinkError;
use rules::blobs::flight::{Bound, Flight, GivenUp, Step};
use rules::blobs::holding::Held;
use rules::blobs::pacing::Class;
use rules::ledger::records::{BlobRecord, Look, key};
use rules::words::digest::Digest;
use rules::words::names::{NodeId, RepositoryName};
use tracing::warn;

use super::arriving::Landing;
use super::source::FetchError;
use super::{Arriving, FlightError, Flights, Sources};
use crate::blobs::transfers::Moving;
use store::StoreError;

impl Flights {
    pub(super) async fn fly(
        &self,
        digest: Digest,
        sources: Sources,
        arriving: &Arriving,
    ) -> Result<Held, FlightError> {
        metrics::counter!("atoll_flights_total").increment(1);
        let mut fetching = self.fetching(digest, &sources, arriving).await;
        let mut landing = self.land_in(&digest)?;
        // the error if the flight gives up because of wrong bytes
        let mut wrong = FlightError::NoSource(digest);
        loop {
            let down = |node| self.neighbours.members.down().contains(&node);
            let now = clock::now();
            fetching.flight.handle_waiting(now, arriving.is_waited_for(&landing));
            match fetching.flight.step(now, down) {
                Step::Ask(request) => {
                    landing = self.ask(&mut fetching, request, landing, arriving).await?
                }
                Step::Look(hurry) => {
                    let found = self.last_sources(digest, &sources, hurry, &fetching.damaged).await;
                    fetching.flight.handle_found(found);
                }
                Step::Wait(pause) => tokio::time::sleep(pause).await,
                Step::Check => match self.seal(&fetching, landing, arriving).await {
                    Ok(held) => return Ok(held),
                    Err(error @ StoreError::Digest { .. }) => {
                        wrong = store_error(error);
                        self.disproved(&mut fetching);
                        // a client that has read wrong bytes is cut off; clients that come now read
                        // the next file
                        arriving.begun.send_replace(None);
                        landing = self.land_in(&digest)?;
                    }
                    Err(error) => return Err(store_error(error)),
                },
                Step::GiveUp(why @ (GivenUp::Nobody | GivenUp::MissingUpstream)) => {
                    return Err(self.nobody(digest, &sources, why).await);
                }
                Step::GiveUp(GivenUp::WrongBytes) => return Err(wrong),
                Step::GiveUp(GivenUp::Deserted) => {
                    metrics::counter!("atoll_flights_deserted_total").increment(1);
                    return Err(FlightError::Deserted(digest));
                }
            }
        }
    }

    /// The flight at its start.
    async fn fetching(&self, digest: Digest, sources: &Sources, arriving: &Arriving) -> Fetching {
        let record = self.record(&digest);
        let kept_by = record.as_ref().map_or(&[][..], |record| &record.kept_by);
        let first = self.first_sources(digest, sources, kept_by).await;
        let bound = record.and_then(|record| bound(&record));
        Fetching {
            digest,
            class: arriving.class(),
            cached: !matches!(sources, Sources::Told(_)),
            via: sources.via().cloned(),
            flight: Flight::new(clock::now(), first, bound, self.terms.stall),
            shown: None,
            damaged: BTreeSet::new(),
        }
    }

    /// The ledger's record of the blob, if a manifest refers to it.
    pub(super) fn record(&self, digest: &Digest) -> Option<BlobRecord> {
        let view = self.neighbours.records.view();
        view.and_then(|view| view.record::<BlobRecord>(&key::blob(digest))).ok().flatten()
    }

    fn land_in(&self, digest: &Digest) -> Result<Landing, FlightError> {
        let ingest = self.store.ingest(digest.algorithm()).map_err(store_error)?;
        Ok(Landing::new(ingest))
    }

    /// All bytes are here. They become the blob if their digest is right.
    async fn seal(
        &self,
        fetching: &Fetching,
        mut landing: Landing,
        arriving: &Arriving,
    ) -> Result<Held, StoreError> {
        if !landing.is_shown() {
            let size = fetching.flight.offset();
            landing.show(arriving, size, fetching.flight.groups().cloned(), 0);
        }
        let Landing { mut ingest, allowed, .. } = landing;
        if ingest.is_whole(&fetching.digest) {
            // followers need not wait for this disk: in a chain each would wait for the disks of
            // all nodes before it
            let _ = allowed.send_replace(Ok(ingest.written()));
        }
        let held = if fetching.cached {
            self.store.seal_cached(ingest, fetching.digest).await?
        } else {
            self.store.seal(ingest, fetching.digest, None).await?
        };
        let _ = allowed.send_replace(Ok(held.size));
        Ok(held)
    }

    /// All bytes are here, and their digest is wrong.
    fn disproved(&self, fetching: &mut Fetching) {
        let digest = fetching.digest;
        warn!(%digest, "what arrived is not the blob; it was thrown away");
        metrics::counter!("atoll_flights_wrong_bytes_total").increment(1);
        fetching.shown = None;
        if let Some((liar, lie)) = fetching.flight.handle_wrong_digest()
            && let Some(node) = liar.peer()
        {
            self.liars.caught(node, digest, 0, lie);
        }
    }
}

/// What the ledger knows of the blob's bytes; `None` if they came from an upstream.
pub(super) fn bound(record: &BlobRecord) -> Option<Bound> {
    Some(Bound { content: record.content?, size: record.size })
}

pub(super) fn store_error(error: StoreError) -> FlightError {
    let said = error.to_string().into();
    match error {
        StoreError::Disk(error) if error.kind() == io::ErrorKind::StorageFull => {
            FlightError::NoRoom(said)
        }
        _ => FlightError::Broken(said),
    }
}

/// A flight, with what this node needs to carry it out.
pub(super) struct Fetching {
    pub(super) digest: Digest,
    pub(super) class: Class,
    /// Whether the blob becomes a cached one instead of being kept for good.
    pub(super) cached: bool,
    pub(super) via: Option<RepositoryName>,
    pub(super) flight: Flight<NodeId>,
    /// Shows the progress to people, once a source has begun.
    pub(super) shown: Option<Moving>,
    /// The peers that turned out to have a damaged copy.
    pub(super) damaged: BTreeSet<NodeId>,
}

impl Fetching {
    /// The source that was asked failed.
    pub(super) fn failed(&mut self, error: &FetchError) {
        if !matches!(error, FetchError::Peer(LinkError::Deadline)) {
            self.flight.handle_failure();
        } else if self.flight.handle_silence() {
            metrics::counter!("atoll_sources_stalled_total").increment(1);
        }
    }
}
