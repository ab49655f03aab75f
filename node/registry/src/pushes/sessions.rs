//! The open uploads of this node. An upload stays on the node that began it, belongs to one
//! repository, and is written by one request at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ground::clock;
use parking_lot::Mutex;
use rules::members::placement;
use rules::words::digest::{Algorithm, Digest};
use rules::words::moment::Moment;
use rules::words::names::RepositoryName;
use tokio::sync::Notify;
use tracing::info;

use super::underway::Underway;
use crate::blobs::copies::{Copies, Copying};
use store::{Ingest, Store, StoreError};

/// After this time without bytes, a request may lose its upload to another request.
const QUIET: Duration = Duration::from_secs(2);
/// How long a request waits for an upload that another request holds.
const TAKE_OVER: Duration = Duration::from_secs(6);
/// How often it looks, and repeats that it waits.
const LOOK: Duration = Duration::from_millis(200);

/// Why an upload cannot continue, by what the client can do about it.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// It is not on this node: it has ended, or was never begun here.
    #[error(
        "no such upload on this node; it may have expired, or it was begun on another node (an upload stays with one node)"
    )]
    Unknown,
    /// Another request is writing it, and bytes still arrive.
    #[error("another request is writing this upload")]
    Busy,
    /// The maximum number of uploads is open.
    #[error("{0} uploads are open on this node, the most that uploads.max_open allows")]
    TooMany(usize),
    /// The bytes could not be written, or the digest is wrong.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All open uploads.
pub struct Sessions {
    pub(super) store: Arc<Store>,
    copies: Arc<Copies>,
    max_open: usize,
    expire_after: Duration,
    open: Mutex<HashMap<String, Session>>,
    underway: Underway,
}

struct Session {
    repository: RepositoryName,
    touched: Moment,
    /// `None` while a request writes it.
    upload: Option<Upload>,
    /// Alive while a request holds the upload. A request that is cut off ends its upload.
    taken: Weak<Hold>,
    written: u64,
}

/// An upload that a request holds.
pub struct Upload {
    /// Everything but the bytes.
    pub ticket: Ticket,
    /// Its bytes.
    pub ingest: Ingest,
}

/// Everything about an upload but its bytes.
pub struct Ticket {
    /// Its id on this node.
    pub id: String,
    /// The repository in which it will be granted.
    pub repository: RepositoryName,
    pub(super) copying: Vec<Copying>,
    copies_begun: bool,
    claim: Arc<Hold>,
}

/// A request's hold on an upload.
#[derive(Default)]
struct Hold {
    wanted: Notify,
}

impl Ticket {
    /// Completes when another request wants the upload and this one has received nothing for
    /// [`QUIET`]. Then this request's client is most likely gone, and the other request is its
    /// successor. Call this again after each piece.
    pub async fn is_taken_over(&self) {
        self.claim.wanted.notified().await;
        tokio::time::sleep(QUIET).await;
    }
}

impl Sessions {
    /// No uploads yet.
    pub fn new(
        store: Arc<Store>,
        copies: Arc<Copies>,
        max_open: usize,
        expire_after: Duration,
    ) -> Arc<Self> {
        let (open, underway) = Default::default();
        Arc::new(Sessions { store, copies, max_open, expire_after, open, underway })
    }

    /// Begins an upload, which the caller's request then holds.
    pub fn begin(
        &self,
        repository: &RepositoryName,
        algorithm: Algorithm,
    ) -> Result<Upload, UploadError> {
        let mut open = self.open.lock();
        if open.len() >= self.max_open {
            return Err(UploadError::TooMany(open.len()));
        }
        let id = format!("{:032x}", rand::random::<u128>());
        let ingest = self.store.ingest(algorithm)?;
        let claim = Arc::new(Hold::default());
        let taken = Arc::downgrade(&claim);
        let session = Session {
            repository: repository.clone(),
            touched: clock::now(),
            upload: None,
            taken,
            written: 0,
        };
        open.insert(id.clone(), session);
        metrics::gauge!("atoll_uploads_open").set(open.len() as f64);
        let ticket = Ticket {
            id,
            repository: repository.clone(),
            copying: Vec::new(),
            copies_begun: false,
            claim,
        };
        Ok(Upload { ticket, ingest })
    }

    /// Takes an upload for the caller's request.
    pub fn take(&self, repository: &RepositoryName, id: &str) -> Result<Upload, UploadError> {
        let mut open = self.open.lock();
        let session =
            open.get_mut(id).filter(|s| s.repository == *repository).ok_or(UploadError::Unknown)?;
        session.touched = clock::now();
        match session.upload.take() {
            Some(mut upload) => {
                // a new hold, so that this request does not see who waited for the one before
                upload.ticket.claim = Arc::default();
                session.taken = Arc::downgrade(&upload.ticket.claim);
                Ok(upload)
            }
            None if session.taken.strong_count() > 0 => Err(UploadError::Busy),
            None => {
                open.remove(id);
                Err(UploadError::Unknown)
            }
        }
    }

    /// Takes an upload for the caller's request, if necessary from another request. A client whose
    /// connection was lost returns on a new one long before this node learns that the old one is
    /// dead. A request that still receives bytes keeps the upload.
    pub async fn take_over(
        &self,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<Upload, UploadError> {
        let started = clock::now();
        loop {
            let claim = {
                let open = self.open.lock();
                let session =
                    open.get(id).filter(|s| s.repository == *repository && s.upload.is_none());
                session.and_then(|session| session.taken.upgrade())
            };
            match claim {
                Some(claim) if clock::now().since(started) < TAKE_OVER => claim.wanted.notify_one(),
                _ => return self.take(repository, id),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The number of bytes that an upload has.
    pub fn written(&self, repository: &RepositoryName, id: &str) -> Result<u64, UploadError> {
        let open = self.open.lock();
        let session =
            open.get(id).filter(|s| s.repository == *repository).ok_or(UploadError::Unknown)?;
        Ok(session.upload.as_ref().map_or(session.written, |u| u.ingest.written()))
    }

    /// Returns an upload, for the next request.
    pub fn put_back(&self, upload: Upload) {
        if let Some(session) = self.open.lock().get_mut(&upload.ticket.id) {
            session.touched = clock::now();
            session.written = upload.ingest.written();
            session.upload = Some(upload);
        }
    }

    /// Ends an upload: it became a blob, or was given up.
    pub fn end(&self, id: &str) {
        let mut open = self.open.lock();
        open.remove(id);
        metrics::gauge!("atoll_uploads_open").set(open.len() as f64);
    }

    /// The repositories of open uploads, so whose pushes continue.
    pub fn repositories(&self) -> BTreeSet<RepositoryName> {
        self.open.lock().values().map(|session| session.repository.clone()).collect()
    }

    /// Gives up uploads that were not used for too long.
    pub fn expire(&self) {
        let now = clock::now();
        let mut open = self.open.lock();
        let before = open.len();
        open.retain(|_, s| match s.upload {
            Some(_) => now.since(s.touched) < self.expire_after,
            None => s.taken.strong_count() > 0,
        });
        if open.len() < before {
            info!(count = before - open.len(), "uploads expired");
            metrics::counter!("atoll_uploads_expired_total")
                .increment((before - open.len()) as u64);
        }
        metrics::gauge!("atoll_uploads_open").set(open.len() as f64);
    }

    /// Begins to copy an upload that has its first bytes, to as many other regions as its project
    /// requires.
    pub fn begin_copies(&self, ticket: &mut Ticket, ingest: &Ingest, regions_wanted: u32) {
        if std::mem::replace(&mut ticket.copies_begun, true) {
            return;
        }
        let neighbours = &self.copies.neighbours;
        let seed = Digest::sha256(ticket.id.as_bytes());
        let alive = neighbours.alive();
        for target in placement::copy_targets(&seed, &neighbours.region, &alive, regions_wanted) {
            ticket.copying.push(self.copies.begin(ingest, ticket.repository.clone(), target));
        }
    }

    /// Tells the copies of an upload its digest. They continue without the client: see
    /// [`Sessions::settled`].
    pub fn seal_copies(self: &Arc<Self>, digest: Digest, copying: Vec<Copying>) {
        if copying.is_empty() {
            return;
        }
        let done = self.underway.begin(digest);
        let sessions = self.clone();
        self.copies.tasks.spawn("copy.seal", async move {
            let sealed = copying.into_iter().map(|copy| async {
                let peer = copy.peer();
                // a dead peer's link looks open for seconds after the gossip has noticed
                let result = tokio::select! {
                    sealed = copy.seal(digest) => sealed.map(|_| ()).map_err(|e| e.to_string()),
                    () = sessions.copies.neighbours.members.until_down(peer) => Err("the node went down".to_owned()),
                };
                if let Err(error) = result {
                    // the manifest's commit notices that a region lacks the blob, and copies it
                    // then
                    info!(%digest, %peer, error, "an upload's copy failed");
                    metrics::counter!("atoll_upload_copies_failed_total").increment(1);
                }
            });
            futures::future::join_all(sealed).await;
            sessions.underway.end(&digest, &done);
        });
    }

    /// Waits until the copies of all `digests` that began with their uploads have ended, with or
    /// without success, but for at most `deadline` in total.
    pub async fn settled(&self, digests: impl IntoIterator<Item = Digest>, deadline: Duration) {
        self.underway.ended(digests, tokio::time::sleep(deadline)).await;
    }
}
