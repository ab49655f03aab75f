//! A blob that is arriving, as those see it who follow it.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rules::blobs::groups::Groups;
use rules::blobs::holding::Held;
use rules::blobs::pacing::Class;
use rules::words::digest::Digest;
use tokio::sync::watch;

use super::FlightError;
use store::{Following, Ingest};

/// A blob of which the length is known.
#[derive(Clone)]
pub struct Begun {
    /// Its length in bytes.
    pub size: u64,
    /// The file that it arrives in.
    pub file: Arc<File>,
    /// How far that may be read. When the bytes turn out to be wrong this ends, and another file
    /// follows.
    pub following: Following,
    /// What its bytes are checked with; `None` while they come from an upstream.
    pub groups: Option<Groups>,
    /// How many nodes are between this one and whoever holds it, or its upstream.
    pub behind: u8,
}

/// A blob that is arriving.
pub struct Arriving {
    /// The most urgent that anyone wants it for.
    class: watch::Sender<Class>,
    pub(super) begun: watch::Sender<Option<Begun>>,
    pub(super) done: watch::Sender<Option<Result<Held, FlightError>>>,
}

impl Arriving {
    /// Nothing has come yet.
    pub(super) fn new(class: Class) -> Self {
        Arriving {
            class: watch::Sender::new(class),
            begun: watch::Sender::new(None),
            done: watch::Sender::new(None),
        }
    }

    /// Somebody wants it for this: if that is more urgent, its source is asked again accordingly,
    /// from the byte that was reached.
    pub fn raise(&self, class: Class) {
        self.class.send_if_modified(|now| {
            let more = class < *now;
            *now = class.min(*now);
            more
        });
    }

    /// What it is wanted for.
    pub(super) fn class(&self) -> Class {
        *self.class.borrow()
    }

    /// Ends when somebody wants it for something more urgent than `class`.
    pub(super) async fn raised(&self, class: Class) {
        // the sender is this: it does not go away meanwhile
        let _ = self.class.subscribe().wait_for(|now| *now < class).await;
    }

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

/// Where the bytes go, and how far others may read them. Dropped before the end, it breaks off
/// whoever follows.
pub(super) struct Landing {
    pub(super) ingest: Ingest,
    size: Option<u64>,
    pub(super) allowed: watch::Sender<Result<u64, Arc<str>>>,
}

impl Landing {
    /// In `ingest`, which is empty.
    pub(super) fn new(ingest: Ingest) -> Self {
        Landing { ingest, size: None, allowed: watch::Sender::new(Ok(0)) }
    }

    /// Lets others follow. Those who were told another length, of which no byte has come, are
    /// broken off.
    pub(super) fn show(
        &mut self,
        arriving: &Arriving,
        size: u64,
        groups: Option<Groups>,
        behind: u8,
    ) {
        if self.size.replace(size).is_some_and(|before| before != size) {
            self.allowed = watch::Sender::new(Ok(0));
        }
        let (file, following) = (self.ingest.file(), self.allowed.subscribe());
        arriving.begun.send_replace(Some(Begun { size, file, following, groups, behind }));
    }
}
