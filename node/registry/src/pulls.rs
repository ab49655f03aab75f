//! Pulls of blobs: whether a repository may show one, whether it is here, and which flight brings it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rules::blobs::pacing::Class;
use rules::words::digest::Digest;
use rules::words::names::RepositoryName;
use store::{FileBody, OpenBlob, Store, StoreError};
use upstream::UpstreamError;

use crate::blobs::flights::{Begun, FlightError, Flights, Sources};
use crate::blobs::rechecks::Rechecks;
use crate::proxies::confirming::Confirming;

/// How long pulls may take; see the settings of the same names.
#[derive(Clone, Copy, Debug)]
pub struct PullTerms {
    /// Until the first byte of a blob that is not here.
    pub first_byte: Duration,
    /// Between two bytes of it.
    pub stall: Duration,
    /// How long a blob stays readable that no manifest refers to.
    pub grant: Duration,
}

/// Why a blob cannot be pulled, by what the client can do about it.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The repository does not have it.
    #[error("this repository has no blob {0}")]
    Unknown(Digest),
    /// The upstream does not give it, and waiting does not help.
    #[error("{digest} of {repository}: {why}")]
    Denied {
        /// Which.
        digest: Digest,
        /// Where.
        repository: RepositoryName,
        /// What the upstream says.
        why: UpstreamError,
    },
    /// It cannot be had now. Ask again.
    #[error("{0}")]
    Unavailable(String),
    /// The flight that was to bring it has failed.
    #[error(transparent)]
    Flight(#[from] FlightError),
    /// This node's own fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A blob as its repository knows it.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its name.
    pub digest: Digest,
    /// Where it is asked for.
    pub repository: &'a RepositoryName,
    /// Whether a manifest of the repository refers to it.
    pub linked: bool,
    /// Whether the repository is cached from an upstream.
    pub proxied: bool,
    /// Its length, as the records have it.
    pub size: Option<u64>,
}

/// What this node has of a blob.
pub struct AtHand {
    opened: Option<OpenBlob>,
    recorded: Option<u64>,
    damaged: bool,
}

impl AtHand {
    /// Its length in bytes, if that is known without fetching it. Of a blob whose bytes here are
    /// damaged it is not said: a client that asks before a push is to hear that bytes are wanted.
    pub fn size(&self) -> Option<u64> {
        let known = self.opened.as_ref().map(|blob| blob.size).or(self.recorded);
        known.filter(|_| !self.damaged)
    }
}

/// The bytes of a blob, here or arriving.
pub struct Bytes {
    /// How many.
    pub size: u64,
    /// Cuts a part out of them.
    pub cut: Box<dyn Fn(Range<u64>) -> FileBody + Send>,
}

/// Serves blobs of repositories.
pub struct Pulls {
    store: Arc<Store>,
    flights: Arc<Flights>,
    rechecks: Arc<Rechecks>,
    confirming: Arc<Confirming>,
    terms: PullTerms,
}

impl Pulls {
    /// With these.
    pub fn new(
        store: Arc<Store>,
        flights: Arc<Flights>,
        rechecks: Arc<Rechecks>,
        confirming: Arc<Confirming>,
        terms: PullTerms,
    ) -> Arc<Self> {
        Arc::new(Pulls { store, flights, rechecks, confirming, terms })
    }

    /// Whether the repository may show the blob: a manifest of it refers to the blob, or it was
    /// uploaded or mounted there lately, or the upstream has just said that it has it there.
    ///
    /// A proxy's clients may have the manifest from another mirror. But a blob may be in the mesh
    /// for another project's sake only, so the upstream has to say that this repository has it.
    pub async fn check_readable(&self, known: &Known<'_>) -> Result<(), PullError> {
        let Known { digest, repository, linked, proxied, .. } = *known;
        if linked || self.store.granted(&digest, repository)? {
            return Ok(());
        }
        if !proxied {
            return Err(PullError::Unknown(digest));
        }
        match self.confirming.confirms(repository, &digest).await {
            Ok(true) => self.keep_readable(known).await,
            Ok(false) => Err(PullError::Unknown(digest)),
            Err(
                why @ (UpstreamError::Denied(_)
                | UpstreamError::Refused(_)
                | UpstreamError::Unusable(_)),
            ) => Err(PullError::Denied { digest, repository: repository.clone(), why }),
            Err(error) => Err(PullError::Unavailable(error.to_string())),
        }
    }

    /// Keeps the blob readable in its repository for a while, whatever is deleted meanwhile: a
    /// client that heard before a push that it is here does not send it.
    pub async fn keep_readable(&self, known: &Known<'_>) -> Result<(), PullError> {
        Ok(self.store.grant(known.digest, known.repository, self.terms.grant).await?)
    }

    /// What this node has of the blob. Nothing is fetched.
    pub async fn at_hand(&self, known: &Known<'_>) -> Result<AtHand, PullError> {
        let opened = self.store.open_sound(&known.digest).await?;
        let damaged = self.store.is_damaged(&known.digest);
        Ok(AtHand { opened, recorded: known.size, damaged })
    }

    /// The blob's bytes: from here, or from the flight that brings it, which begins if there is
    /// none. `only_asked`: the client wants to know whether it is here and no bytes (HEAD).
    pub async fn bytes(
        &self,
        known: &Known<'_>,
        at_hand: AtHand,
        only_asked: bool,
    ) -> Result<Bytes, PullError> {
        let digest = known.digest;
        let buffers = self.store.buffers().clone();
        let sent = metrics::counter!("atoll_blob_bytes_served_total");
        if let Some(blob) = at_hand.opened {
            let rechecks = self.rechecks.clone();
            let size = blob.size;
            let cut = move |part| {
                let rechecks = rechecks.clone();
                let body = FileBody::whole(blob.file.clone(), part, &buffers);
                body.or_unreadable(move || rechecks.unreadable(digest)).counted(sent.clone())
            };
            return Ok(Bytes { size, cut: Box::new(cut) });
        }
        metrics::counter!("atoll_blob_misses_total").increment(1);
        let sources = Sources::Find { via: known.proxied.then(|| known.repository.clone()) };
        let flight = self.flights.join(digest, sources, Class::Pull);
        let begun = match flight.begun(digest, self.terms.first_byte).await {
            // a manifest here refers to it, so it may come back: a client would give up on a 404
            // for good
            Err(error @ FlightError::Missing(_)) if known.linked => {
                return Err(PullError::Unavailable(error.to_string()));
            }
            Err(FlightError::NoSource(_)) if at_hand.damaged && only_asked => {
                return Err(PullError::Unknown(digest));
            }
            begun => begun?,
        };
        let Begun { size, file, following, .. } = begun;
        let stall = self.terms.stall;
        let cut = move |part| {
            let body = FileBody::arriving(file.clone(), part, &buffers, following.clone(), stall);
            body.counted(sent.clone())
        };
        Ok(Bytes { size, cut: Box::new(cut) })
    }
}
