//! Pulls of blobs: whether a repository may show a blob, whether it is here, and which flight brings
//! it.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ground::supervise::Tasks;
use rules::blobs::pacing::Class;
use rules::words::digest::Digest;
use rules::words::names::RepositoryName;
use store::{BlobBody, OpenBlob, Store, StoreError};
use tracing::warn;
use upstream::UpstreamError;

use crate::blobs::flights::{Arriving, Begun, FlightError, Flights, Sources};
use crate::blobs::rechecks::Rechecks;
use crate::proxies::confirming::{Confirmed, Confirming};
use crate::proxies::questions::{Questions, TooManyQuestions};

/// Deadlines of pulls; see the settings of the same names.
#[derive(Clone, Copy, Debug)]
pub struct PullTerms {
    /// The maximum time to the first byte of a blob that is not here.
    pub first_byte: Duration,
    /// The maximum time between two bytes of it.
    pub stall: Duration,
    /// How long a blob stays readable if no manifest refers to it.
    pub grant: Duration,
}

/// Why a blob cannot be pulled, by what the client can do about it.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The repository does not have it.
    #[error("this repository has no blob {0}")]
    Unknown(Digest),
    /// The client has used up its budget of questions to the upstream.
    #[error(transparent)]
    TooManyQuestions(#[from] TooManyQuestions),
    /// The upstream refuses it, and waiting does not help.
    #[error("{digest} of {repository}: {why}")]
    Denied {
        /// The blob.
        digest: Digest,
        /// The repository.
        repository: RepositoryName,
        /// The upstream's reason.
        why: UpstreamError,
    },
    /// It cannot be had now. The client should try again.
    #[error("{0}")]
    Unavailable(String),
    /// The flight for it has failed.
    #[error(transparent)]
    Flight(#[from] FlightError),
    /// A fault of this node.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the records say about a blob in a repository.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its digest.
    pub digest: Digest,
    /// The repository of the request.
    pub repository: &'a RepositoryName,
    /// Whether a manifest of the repository refers to it.
    pub linked: bool,
    /// Whether the repository is cached from an upstream.
    pub proxied: bool,
    /// Whether only some edges may have it. Then no other node fetches it for this one.
    pub chosen: bool,
    /// Its length according to the records.
    pub size: Option<u64>,
    /// The address of the client that asks.
    pub client: IpAddr,
}

/// Where a blob that may be read comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// From this node or another one, or from the upstream.
    Here,
    /// The same. A manifest that another node has cached refers to it.
    LinkedElsewhere,
    /// From the upstream: no node has it. Once its bytes are here it can be read from here.
    OnlyUpstream,
}

/// What this node has of a blob.
pub struct AtHand {
    opened: Option<OpenBlob>,
    recorded: Option<u64>,
    damaged: bool,
}

impl AtHand {
    /// Its length in bytes, if that is known without a fetch. `None` if the bytes here are damaged:
    /// a client that asks before a push must learn that the bytes are wanted.
    pub fn size(&self) -> Option<u64> {
        let known = self.opened.as_ref().map(|blob| blob.size).or(self.recorded);
        known.filter(|_| !self.damaged)
    }
}

/// The bytes of a blob: here, arriving, or passed on from another node.
pub struct Bytes {
    /// Their number.
    pub size: u64,
    /// Makes the body of a range of them.
    pub cut: Box<dyn Fn(Range<u64>) -> BlobBody + Send>,
}

/// Serves blobs of repositories.
pub struct Pulls {
    store: Arc<Store>,
    flights: Arc<Flights>,
    rechecks: Arc<Rechecks>,
    confirming: Arc<Confirming>,
    questions: Arc<Questions>,
    terms: PullTerms,
    tasks: Tasks,
}

impl Pulls {
    /// Creates the room.
    pub fn new(
        store: Arc<Store>,
        flights: Arc<Flights>,
        rechecks: Arc<Rechecks>,
        confirming: Arc<Confirming>,
        questions: Arc<Questions>,
        terms: PullTerms,
        tasks: Tasks,
    ) -> Arc<Self> {
        Arc::new(Pulls { store, flights, rechecks, confirming, questions, terms, tasks })
    }

    /// Whether the repository may show the blob: a manifest of it refers to the blob, or it was
    /// uploaded or mounted there lately, or the upstream has shown it just now, or only the upstream
    /// has it.
    ///
    /// A proxy's clients may have the manifest from another mirror. But a blob may be in the mesh
    /// only for another project, so the upstream must show that this repository has it.
    pub async fn check_readable(&self, known: &Known<'_>) -> Result<Readable, PullError> {
        let Known { digest, repository, linked, proxied, .. } = *known;
        if linked || self.store.granted(&digest, repository)? {
            return Ok(Readable::Here);
        }
        if !proxied {
            return Err(PullError::Unknown(digest));
        }
        if self.confirming.caches().links(repository, &digest).await {
            // the client has its manifest from another node, and asks here for the other blobs, too
            self.keep_readable(known).await?;
            return Ok(Readable::LinkedElsewhere);
        }
        if self.confirming.is_denied(repository, &digest) {
            return Err(PullError::Unknown(digest));
        }
        self.questions.ask(known.client, &repository.project())?;
        match self.confirming.confirms(repository, &digest).await {
            Ok(Confirmed::Shown) => {
                self.keep_readable(known).await?;
                Ok(Readable::Here)
            }
            Ok(Confirmed::Absent) => Ok(Readable::OnlyUpstream),
            Ok(Confirmed::Denied) => Err(PullError::Unknown(digest)),
            Err(
                why @ (UpstreamError::Denied(_)
                | UpstreamError::Refused(_)
                | UpstreamError::Unusable(_)),
            ) => Err(PullError::Denied { digest, repository: repository.clone(), why }),
            Err(error) => Err(PullError::Unavailable(error.to_string())),
        }
    }

    /// Keeps the blob readable in its repository for a while, whatever is deleted meanwhile: a
    /// client that has heard, before a push, that the blob is here does not send it.
    pub async fn keep_readable(&self, known: &Known<'_>) -> Result<(), PullError> {
        Ok(self.store.grant(known.digest, known.repository, self.terms.grant).await?)
    }

    /// Keeps the blob readable in its repository for a while once the upstream has given all of it.
    fn keep_readable_once_here(&self, known: &Known<'_>, flight: Arc<Arriving>) {
        let (store, grant) = (self.store.clone(), self.terms.grant);
        let (digest, repository) = (known.digest, known.repository.clone());
        self.tasks.spawn("pull.grant", async move {
            if flight.finished().await.is_ok()
                && let Err(error) = store.grant(digest, &repository, grant).await
            {
                warn!(%digest, %repository, %error, "a blob from an upstream is not readable yet");
            }
        });
    }

    /// What this node has of the blob. Nothing is fetched.
    pub async fn at_hand(&self, known: &Known<'_>) -> Result<AtHand, PullError> {
        let opened = self.store.open_sound(&known.digest).await?;
        let damaged = self.store.is_damaged(&known.digest);
        Ok(AtHand { opened, recorded: known.size, damaged })
    }

    /// For a client that only asks whether the blob is here (HEAD): fails if a GET would find that
    /// every replica has lost it. A client that asks before a push then sends it. Costs nothing if
    /// the blob is held here.
    pub async fn check_somewhere(
        &self,
        known: &Known<'_>,
        at_hand: &AtHand,
    ) -> Result<(), PullError> {
        // also what was only uploaded or mounted lately: its manifest would not be taken
        let elsewhere = at_hand.opened.is_none() && !known.proxied;
        if elsewhere && self.flights.is_lost(known.digest).await {
            return Err(FlightError::Lost(known.digest).into());
        }
        Ok(())
    }

    /// Those of `digests` that only a push can bring back: no replica has a sound copy.
    pub async fn lost_among(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        Ok(self.flights.found(digests).await?.lost)
    }

    /// The blob's bytes: from this node, or from the flight that brings it, which is started if
    /// there is none.
    pub async fn bytes(
        &self,
        known: &Known<'_>,
        readable: Readable,
        at_hand: AtHand,
    ) -> Result<Bytes, PullError> {
        let digest = known.digest;
        let buffers = self.store.buffers().clone();
        let sent = metrics::counter!("atoll_blob_bytes_served_total");
        if let Some(blob) = at_hand.opened {
            let rechecks = self.rechecks.clone();
            let size = blob.size;
            let cut = move |part| {
                let rechecks = rechecks.clone();
                let body = BlobBody::whole(blob.bytes.clone(), part, &buffers);
                body.or_unreadable(move || rechecks.unreadable(digest)).counted(sent.clone())
            };
            return Ok(Bytes { size, cut: Box::new(cut) });
        }
        metrics::counter!("atoll_blob_misses_total").increment(1);
        let via = known.proxied.then(|| known.repository.clone());
        let sources = match known.chosen {
            true => Sources::Holders { via },
            false => Sources::Find { via },
        };
        let flight = self.flights.join(digest, sources, Class::Pull);
        if readable == Readable::OnlyUpstream {
            self.keep_readable_once_here(known, flight.clone());
        }
        // a flight that is under way may have begun before its source knew that its copy is damaged
        if at_hand.damaged && !known.proxied && self.flights.is_lost(digest).await {
            match tokio::time::timeout(self.terms.first_byte, flight.finished()).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Err(FlightError::Lost(digest).into()),
                Err(_) => return Err(FlightError::Slow(digest).into()),
            }
        }
        let begun = match flight.begun(digest, self.terms.first_byte).await {
            // a manifest here refers to it, so it may come back with a node that was not heard;
            // with a 404 a client would give up for good
            Err(error @ FlightError::Missing(_))
                if known.linked || readable == Readable::LinkedElsewhere =>
            {
                return Err(PullError::Unavailable(error.to_string()));
            }
            // the flight was of a project without an upstream, and this one has one
            Err(error @ FlightError::Lost(_)) if known.proxied => {
                return Err(PullError::Unavailable(error.to_string()));
            }
            // what this node cannot keep it need not refuse
            Err(error @ FlightError::NoRoom(_)) => {
                let passing = Arc::new(self.flights.pass(digest, error).await?);
                let size = passing.size();
                let cut = move |part| {
                    BlobBody::whole(passing.clone(), part, &buffers).counted(sent.clone())
                };
                return Ok(Bytes { size, cut: Box::new(cut) });
            }
            begun => begun?,
        };
        let Begun { size, bytes, following, .. } = begun;
        let stall = self.terms.stall;
        let cut = move |part| {
            let body = BlobBody::arriving(bytes.clone(), part, &buffers, following.clone(), stall);
            body.counted(sent.clone())
        };
        Ok(Bytes { size, cut: Box::new(cut) })
    }
}
