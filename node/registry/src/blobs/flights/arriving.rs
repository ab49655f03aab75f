//! An arriving blob, as its followers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rules::blobs::groups::Groups;
use rules::blobs::holding::Held;
use rules::blobs::pacing::Class;
use rules::words::digest::Digest;
use tokio::sync::watch;

use super::FlightError;
use store::backend::ReadAt;
use store::{Following, Ingest};

/// An arriving blob whose length is known.
#[derive(Clone)]
pub struct Begun {
    /// Its length in bytes.
    pub size: u64,
    /// Its bytes, as far as they have arrived.
    pub bytes: Arc<dyn ReadAt>,
    /// How far they may be read. If they turn out to be wrong, this ends with an error, and others
    /// follow.
    pub following: Following,
    /// The groups that its bytes are checked with; `None` while they come from an upstream.
    pub groups: Option<Groups>,
    /// The number of nodes between this one and one that holds the blob, or the upstream.
    pub behind: u8,
}

/// An arriving blob.
pub struct Arriving {
    /// The most urgent purpose for which it is wanted.
    class: watch::Sender<Class>,
    /// Whether the mesh itself wants it (a copy, a preheat), whoever waits for it.
    mesh_wants: AtomicBool,
    pub(super) begun: watch::Sender<Option<Begun>>,
    pub(super) done: watch::Sender<Option<Result<Held, FlightError>>>,
}

impl Arriving {
    /// No bytes have arrived yet.
    pub(super) fn new(class: Class) -> Self {
        Arriving {
            class: watch::Sender::new(class),
            mesh_wants: AtomicBool::new(class != Class::Pull),
            begun: watch::Sender::new(None),
            done: watch::Sender::new(None),
        }
    }

    /// The blob is wanted for `class`. If this is more urgent than before, its source is asked
    /// again for the new class, from the byte that was reached.
    pub fn raise(&self, class: Class) {
        if class != Class::Pull {
            self.mesh_wants.store(true, Ordering::Relaxed);
        }
        self.class.send_if_modified(|now| {
            let more = class < *now;
            *now = class.min(*now);
            more
        });
    }

    /// Whether the mesh itself wants the blob, or a client or another node waits for it or reads it
    /// now. `landing` is where it arrives.
    pub(super) fn is_waited_for(&self, landing: &Landing) -> bool {
        // what is shown holds one end of `allowed` itself
        let shown = usize::from(self.begun.borrow().is_some());
        self.mesh_wants.load(Ordering::Relaxed)
            || self.begun.receiver_count() > 0
            || self.done.receiver_count() > 0
            || landing.allowed.receiver_count() > shown
    }

    /// The purpose for which it is wanted.
    pub(super) fn class(&self) -> Class {
        *self.class.borrow()
    }

    /// Completes when the blob is wanted for something more urgent than `class`.
    pub(super) async fn raised(&self, class: Class) {
        // `self` is the sender, so it stays alive meanwhile
        let _ = self.class.subscribe().wait_for(|now| *now < class).await;
    }

    /// What is known of the blob once a source has answered. Waits for at most `deadline`.
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

    /// Waits for the end of the flight.
    pub async fn finished(&self) -> Result<Held, FlightError> {
        let mut done = self.done.subscribe();
        match done.wait_for(Option::is_some).await.ok().and_then(|d| d.clone()) {
            Some(result) => result,
            None => Err(FlightError::Broken("the flight was dropped".into())),
        }
    }
}

/// Where the bytes go to, and how far others may read them. If this is dropped before the
/// end, all followers end with an error.
pub(super) struct Landing {
    pub(super) ingest: Ingest,
    size: Option<u64>,
    pub(super) allowed: watch::Sender<Result<u64, Arc<str>>>,
}

impl Landing {
    /// Writes into `ingest`, which is empty.
    pub(super) fn new(ingest: Ingest) -> Self {
        Landing { ingest, size: None, allowed: watch::Sender::new(Ok(0)) }
    }

    /// Whether others may follow.
    pub(super) fn is_shown(&self) -> bool {
        self.size.is_some()
    }

    /// Lets others follow. Followers that were told another length, and have read no byte yet, end
    /// with an error.
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
        let (bytes, following) = (self.ingest.bytes(), self.allowed.subscribe());
        arriving.begun.send_replace(Some(Begun { size, bytes, following, groups, behind }));
    }
}
