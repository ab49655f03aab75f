//! The open uploads of this node. An upload's bytes stay on the node that began it, an upload belongs
//! to one repository, and is written by one request at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ground::clock;
use parking_lot::Mutex;
use rules::blobs::uploads::{UploadId, UploadRefusal};
use rules::members::placement;
use rules::words::digest::{Algorithm, Digest};
use rules::words::moment::Moment;
use rules::words::names::{ProjectId, RepositoryName};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::underway::Underway;
use crate::blobs::copies::{Copies, Copying};
use store::{Ingest, Rested, Store, StoreError};

/// After this time without bytes, a request may lose its upload to another request.
const QUIET: Duration = Duration::from_secs(2);
/// How long a request waits for an upload that another request holds.
const TAKE_OVER: Duration = Duration::from_secs(6);
/// How often it looks, and repeats that it waits.
const LOOK: Duration = Duration::from_millis(200);

/// What the client is told when the store fails.
pub(super) fn refusal(error: StoreError) -> UploadRefusal {
    match error {
        StoreError::Digest { expected, actual } => UploadRefusal::Digest { expected, actual },
        StoreError::Disk(full) if full.kind() == std::io::ErrorKind::StorageFull => {
            UploadRefusal::Unavailable(full.to_string())
        }
        error => UploadRefusal::Failed(error.to_string()),
    }
}

/// All open uploads.
pub struct Sessions {
    pub(super) store: Arc<Store>,
    copies: Arc<Copies>,
    max_open: usize,
    expire_after: Duration,
    open: Mutex<HashMap<UploadId, Session>>,
    underway: Underway,
}

struct Session {
    repository: RepositoryName,
    /// See [`Rested::project`].
    project: Option<ProjectId>,
    touched: Moment,
    bytes: Bytes,
    written: u64,
}

/// Where the bytes of an open upload are.
enum Bytes {
    /// Here, for the next request.
    Here(Box<Upload>),
    /// A request writes them while the hold is alive. A request that is cut off ends its upload: its
    /// last write may still be under way.
    Taken(Weak<Hold>),
    /// On the disk, from before the node was restarted.
    Rested(Box<Rested>),
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
    /// Its id.
    pub id: UploadId,
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

/// What a request gets that asks for an upload.
enum Taken {
    Upload(Box<Upload>),
    /// Its bytes must be read first. The request holds it already.
    Rested(Box<Rested>, Box<Ticket>),
    /// Another request has it.
    Held(Arc<Hold>),
    Refused(UploadRefusal),
}

impl Ticket {
    fn of(id: UploadId, repository: RepositoryName) -> Self {
        let (copying, claim) = Default::default();
        Ticket { id, repository, copying, copies_begun: false, claim }
    }

    /// Completes when another request wants the upload and this one has received nothing for
    /// [`QUIET`]. Then this request's client is most likely gone, and the other request is its
    /// successor. Call this again after each piece.
    pub async fn is_taken_over(&self) {
        self.claim.wanted.notified().await;
        tokio::time::sleep(QUIET).await;
    }
}

impl Sessions {
    /// The uploads that were open when the node was stopped, whose files `store` has, and no others.
    pub fn new(
        store: Arc<Store>,
        copies: Arc<Copies>,
        max_open: usize,
        expire_after: Duration,
    ) -> Result<Arc<Self>, StoreError> {
        let rested = store.rested_uploads()?.into_iter().map(|upload| {
            let session = Session {
                repository: upload.repository.clone(),
                project: upload.project,
                touched: clock::now(),
                written: upload.written,
                bytes: Bytes::Rested(Box::new(upload.clone())),
            };
            (upload.id, session)
        });
        let (open, underway) = (Mutex::new(rested.collect()), Underway::default());
        Ok(Arc::new(Sessions { store, copies, max_open, expire_after, open, underway }))
    }

    /// Begins an upload, which the caller's request then holds.
    pub fn begin(
        &self,
        repository: &RepositoryName,
        project: ProjectId,
        algorithm: Algorithm,
    ) -> Result<Upload, UploadRefusal> {
        let mut open = self.open.lock();
        if open.len() >= self.max_open {
            return Err(UploadRefusal::TooMany(open.len() as u64));
        }
        let id = UploadId::new(rand::random(), self.copies.neighbours.me);
        let ingest = self.store.begin_upload(&id, repository, project, algorithm);
        let ingest = ingest.map_err(refusal)?;
        let ticket = Ticket::of(id, repository.clone());
        let session = Session {
            repository: repository.clone(),
            project: Some(project),
            touched: clock::now(),
            bytes: Bytes::Taken(Arc::downgrade(&ticket.claim)),
            written: 0,
        };
        open.insert(id, session);
        metrics::gauge!("atoll_uploads_open").set(open.len() as f64);
        Ok(Upload { ticket, ingest })
    }

    /// Takes an upload for the caller's request, if necessary from another request. A client whose
    /// connection was lost returns on a new one long before this node learns that the old one is
    /// dead. A request that still receives bytes keeps the upload. One that was begun in another
    /// project than `project`, which had its name, is unknown, and ends.
    pub async fn take_over(
        &self,
        repository: &RepositoryName,
        project: ProjectId,
        id: &UploadId,
    ) -> Result<Upload, UploadRefusal> {
        let started = clock::now();
        loop {
            match self.take(repository, project, id) {
                Taken::Upload(upload) => return Ok(*upload),
                Taken::Refused(refusal) => return Err(refusal),
                Taken::Rested(rested, ticket) => return self.reopen(&rested, *ticket).await,
                Taken::Held(claim) if clock::now().since(started) < TAKE_OVER => {
                    claim.wanted.notify_one();
                }
                Taken::Held(_) => return Err(UploadRefusal::Busy),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn reopen(&self, rested: &Rested, ticket: Ticket) -> Result<Upload, UploadRefusal> {
        match self.store.reopen_upload(rested).await {
            Ok(ingest) => Ok(Upload { ticket, ingest }),
            Err(error) => {
                self.end(&rested.id);
                Err(refusal(error))
            }
        }
    }

    fn take(&self, repository: &RepositoryName, project: ProjectId, id: &UploadId) -> Taken {
        let now = clock::now();
        let mut open = self.open.lock();
        let Some(session) = open.get_mut(id).filter(|s| s.repository == *repository) else {
            return Taken::Refused(UploadRefusal::Unknown);
        };
        if session.project.is_some_and(|begun| begun != project) {
            drop(open);
            self.end(id);
            return Taken::Refused(UploadRefusal::Unknown);
        }
        if let Bytes::Taken(hold) = &session.bytes
            && let Some(claim) = hold.upgrade()
        {
            return Taken::Held(claim);
        }
        if self.is_over(session, now) {
            drop(open);
            self.end(id);
            return Taken::Refused(UploadRefusal::Unknown);
        }
        session.touched = now;
        // a new hold, so that this request does not see who waited for the one before
        let claim = Arc::default();
        match std::mem::replace(&mut session.bytes, Bytes::Taken(Arc::downgrade(&claim))) {
            Bytes::Here(mut upload) => {
                upload.ticket.claim = claim;
                Taken::Upload(upload)
            }
            Bytes::Rested(rested) => {
                let ticket = Ticket { claim, ..Ticket::of(*id, repository.clone()) };
                Taken::Rested(rested, Box::new(ticket))
            }
            Bytes::Taken(_) => Taken::Refused(UploadRefusal::Busy),
        }
    }

    /// The number of bytes that an upload has.
    pub fn written(
        &self,
        repository: &RepositoryName,
        id: &UploadId,
    ) -> Result<u64, UploadRefusal> {
        let open = self.open.lock();
        let session = open.get(id).filter(|s| s.repository == *repository);
        let session = session.ok_or(UploadRefusal::Unknown)?;
        Ok(match &session.bytes {
            Bytes::Here(upload) => upload.ingest.written(),
            Bytes::Taken(_) | Bytes::Rested(_) => session.written,
        })
    }

    /// Returns an upload, for the next request.
    pub fn put_back(&self, upload: Upload) {
        if let Some(session) = self.open.lock().get_mut(&upload.ticket.id) {
            session.touched = clock::now();
            session.written = upload.ingest.written();
            session.bytes = Bytes::Here(Box::new(upload));
        }
    }

    /// Ends an upload: it became a blob, or was given up.
    pub fn end(&self, id: &UploadId) {
        let (ended, left) = {
            let mut open = self.open.lock();
            (open.remove(id), open.len())
        };
        metrics::gauge!("atoll_uploads_open").set(left as f64);
        self.remove_file(id, ended);
    }

    /// Removes what an upload has on disk. A disk may be slow, so nobody holds a lock meanwhile.
    fn remove_file(&self, id: &UploadId, ended: Option<Session>) {
        drop(ended);
        if let Err(error) = self.store.forget_upload(id) {
            warn!(%id, %error, "what is left of an upload could not be removed");
        }
    }

    /// The repositories of open uploads, so whose pushes continue.
    pub fn repositories(&self) -> BTreeSet<RepositoryName> {
        self.open.lock().values().map(|session| session.repository.clone()).collect()
    }

    /// Whether nobody used the upload for too long, or its last request was cut off.
    fn is_over(&self, session: &Session, now: Moment) -> bool {
        match &session.bytes {
            Bytes::Here(_) | Bytes::Rested(_) => now.since(session.touched) >= self.expire_after,
            Bytes::Taken(hold) => hold.strong_count() == 0,
        }
    }

    /// Gives up uploads that were not used for too long.
    pub fn expire(&self) {
        let now = clock::now();
        let over: Vec<(UploadId, Session)> =
            self.open.lock().extract_if(|_, session| self.is_over(session, now)).collect();
        let count = over.len();
        for (id, ended) in over {
            self.remove_file(&id, Some(ended));
        }
        if count > 0 {
            info!(count, "uploads expired");
            metrics::counter!("atoll_uploads_expired_total").increment(count as u64);
        }
        metrics::gauge!("atoll_uploads_open").set(self.open.lock().len() as f64);
    }

    /// Begins to copy an upload that has its first bytes, to as many other regions as its project
    /// requires.
    pub fn begin_copies(&self, ticket: &mut Ticket, ingest: &Ingest, regions_wanted: u32) {
        if std::mem::replace(&mut ticket.copies_begun, true) {
            return;
        }
        let neighbours = &self.copies.neighbours;
        let seed = Digest::sha256(ticket.id.to_string().as_bytes());
        let alive = neighbours.taking();
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
