//! Receives an upload's bytes. While one batch is hashed and written, the next is received, and
//! copies follow the file.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rules::blobs::uploads::{Chunk, RelayedStep, Step, StepDone, UploadId, UploadRefusal};
use rules::ledger::quotas::LookForQuotas;
use rules::ledger::records::{Look, Project, RecordError};
use rules::policies::quota::{self, Limits, Usage};
use rules::words::digest::Digest;
use rules::words::names::{ProjectId, RepositoryName};
use store::{Ingest, StoreError};
use tokio::task::JoinHandle;

use super::sessions::{Sessions, Ticket, Upload, refusal};

/// Bytes are written in batches of about this size.
const BATCH: usize = 1 << 20;
/// How long an upload's last request waits for the copies, which usually end with it. The
/// manifest's commit waits longer.
const COPY_WAIT: Duration = Duration::from_secs(2);

/// The body of an upload request.
pub trait Pieces: Send {
    /// Why the body broke off.
    type Error: Send;

    /// The next bytes; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Self::Error>> + Send;
}

/// Why not all of a body arrived.
#[derive(Debug)]
pub enum NotReceived<E> {
    /// The client or its connection failed.
    Body(E),
    /// Another request has taken the upload over.
    TakenOver,
}

/// Why a step of an upload was not taken.
#[derive(Debug)]
pub enum NotTaken<E> {
    /// The request's body did not arrive completely.
    Body(E),
    /// The client is told why.
    Refused(UploadRefusal),
}

impl<E> From<UploadRefusal> for NotTaken<E> {
    fn from(refusal: UploadRefusal) -> Self {
        NotTaken::Refused(refusal)
    }
}

impl<E> From<NotReceived<E>> for NotTaken<E> {
    fn from(received: NotReceived<E>) -> Self {
        match received {
            NotReceived::Body(error) => NotTaken::Body(error),
            NotReceived::TakenOver => UploadRefusal::TakenOver.into(),
        }
    }
}

/// What an upload becomes.
#[derive(Clone, Copy, Debug)]
pub struct Becomes {
    /// The project of its repository. An upload that was begun in an earlier one of that name is
    /// unknown.
    pub project: ProjectId,
    /// The number of regions that should have the blob.
    pub regions: u32,
    /// How long it is granted in its repository.
    pub grant: Duration,
    /// What the project may have and what it has, if the blob must fit into that.
    pub quota: Option<(Limits, Usage)>,
}

impl Becomes {
    /// What uploads in `project` become. `sealed` is the digest, if it is known. A blob that the
    /// project has costs nothing.
    pub fn of<R: Look + ?Sized>(
        records: &R,
        project: &Project,
        sealed: Option<&Digest>,
        grant: Duration,
    ) -> Result<Self, RecordError> {
        let mut quota = records.quota(&project.name)?;
        if let Some(digest) = sealed
            && quota.is_some()
            && records.is_counted(&project.name, digest)?
        {
            quota = None;
        }
        Ok(Becomes { project: project.id, regions: project.durability, grant, quota })
    }

    /// Refuses a blob of this length, or a longer one, if even alone it does not fit. What uploads
    /// count on is only decided with their manifest: until then nothing is charged for them.
    pub fn check_room(&self, length: u64) -> Result<(), UploadRefusal> {
        let Some((limits, used)) = &self.quota else { return Ok(()) };
        let added = Usage { storage: length, ..Usage::default() };
        quota::fits(limits, used, &added).map_err(|over| UploadRefusal::OverQuota(over.to_string()))
    }
}

impl Sessions {
    /// Receives a body. Returns the upload with what arrived, and why that was not everything. If
    /// this node fails, or the blob becomes too long for its project, the upload ends.
    async fn receive<B: Pieces>(
        &self,
        body: &mut B,
        upload: Upload,
        becomes: Becomes,
    ) -> Result<(Upload, Option<NotReceived<B::Error>>), UploadRefusal> {
        let Upload { mut ticket, ingest } = upload;
        let mut writing = Writing::Idle(ingest.into());
        loop {
            let (batch, end) = next_batch(body, &ticket).await;
            let ingest = self.wait_written(writing, &mut ticket).await?;
            let length = batch.iter().map(|piece| piece.len() as u64).sum::<u64>();
            if let Err(refusal) = becomes.check_room(ingest.written() + length) {
                self.end(&ticket.id);
                return Err(refusal);
            }
            if !batch.is_empty() {
                self.begin_copies(&mut ticket, &ingest, becomes.regions);
            }
            writing = if batch.is_empty() {
                Writing::Idle(ingest.into())
            } else {
                Writing::Busy(ingest.start_write(batch))
            };
            if let Some(end) = end {
                // what came before the end is written before the end is reported
                let ingest = self.wait_written(writing, &mut ticket).await?;
                return Ok((Upload { ticket, ingest }, end.err()));
            }
        }
    }

    /// Takes a step of an upload of this node. A body that is not received is left to the caller.
    pub async fn step<B: Pieces>(
        self: &Arc<Self>,
        RelayedStep { repository, id, step }: &RelayedStep,
        body: &mut B,
        becomes: Becomes,
    ) -> Result<StepDone, NotTaken<B::Error>> {
        match step {
            Step::Add(chunk) => {
                let upload = self.take_for(repository, becomes, id, chunk).await?;
                let (upload, interrupted) = self.receive(body, upload, becomes).await?;
                let written = upload.ingest.written();
                // what arrived is kept: a client may continue from there
                self.put_back(upload);
                interrupted.map_or(Ok(StepDone::Open(written)), |why| Err(why.into()))
            }
            Step::Finish(chunk, digest) => {
                let upload = self.take_for(repository, becomes, id, chunk).await?;
                self.receive_and_seal(body, upload, *digest, becomes).await
            }
            Step::Show => {
                // what another request has received counts only when it gives the upload back; a
                // request that still receives keeps it
                match self.take_over(repository, becomes.project, id).await {
                    Ok(upload) => self.put_back(upload),
                    Err(UploadRefusal::Unknown) => return Err(UploadRefusal::Unknown.into()),
                    Err(_) => {}
                }
                Ok(StepDone::Open(self.written(repository, id)?))
            }
            Step::Cancel => {
                self.take_over(repository, becomes.project, id).await?;
                self.end(id);
                Ok(StepDone::GivenUp)
            }
        }
    }

    async fn take_for(
        &self,
        repository: &RepositoryName,
        becomes: Becomes,
        id: &UploadId,
        chunk: &Chunk,
    ) -> Result<Upload, UploadRefusal> {
        let upload = self.take_over(repository, becomes.project, id).await?;
        let written = upload.ingest.written();
        if let Err(refusal) = chunk.check(written) {
            self.put_back(upload);
            return Err(refusal);
        }
        if let Err(refusal) = becomes.check_room(written.saturating_add(chunk.length.unwrap_or(0)))
        {
            self.end(id);
            return Err(refusal);
        }
        Ok(upload)
    }

    /// Receives the rest of a body and makes the upload the blob `digest`: hashed, fsynced, and
    /// granted in its repository. On a failure nothing is kept, unless another request has taken
    /// the upload over.
    pub async fn receive_and_seal<B: Pieces>(
        self: &Arc<Self>,
        body: &mut B,
        upload: Upload,
        digest: Digest,
        becomes: Becomes,
    ) -> Result<StepDone, NotTaken<B::Error>> {
        let mut ending = Ending { sessions: self.clone(), id: Some(upload.ticket.id) };
        let (upload, interrupted) = self.receive(body, upload, becomes).await?;
        if let Some(interrupted) = interrupted {
            if let NotReceived::TakenOver = interrupted {
                ending.never();
                self.put_back(upload);
            }
            return Err(interrupted.into());
        }
        let Upload { mut ticket, ingest } = upload;
        // an empty blob has no first byte that would have started its copies
        self.begin_copies(&mut ticket, &ingest, becomes.regions);
        let Ticket { repository, copying, .. } = ticket;
        let sealed = self.store.seal(ingest, digest, Some((&repository, becomes.grant))).await;
        sealed.map_err(refusal)?;
        self.seal_copies(digest, copying);
        self.settled([digest], COPY_WAIT).await;
        drop(ending);
        Ok(StepDone::Blob)
    }

    /// Waits for a write, and tells the upload's copies how far they may read.
    async fn wait_written(
        &self,
        writing: Writing,
        ticket: &mut Ticket,
    ) -> Result<Ingest, UploadRefusal> {
        let ingest = writing.idle().await.map_err(|error| {
            self.end(&ticket.id);
            refusal(StoreError::from(error))
        })?;
        for copy in &ticket.copying {
            copy.advance(ingest.written());
        }
        Ok(ingest)
    }
}

/// An ingest, or the write that owns it.
enum Writing {
    Idle(Box<Ingest>),
    Busy(JoinHandle<io::Result<Ingest>>),
}

impl Writing {
    async fn idle(self) -> io::Result<Ingest> {
        match self {
            Writing::Idle(ingest) => Ok(*ingest),
            Writing::Busy(write) => write.await.map_err(io::Error::other)?,
        }
    }
}

/// How a body ended, if it has ended.
type End<E> = Option<Result<(), NotReceived<E>>>;

/// The next bytes of a body, about [`BATCH`] of them, and how it ended, if it did.
async fn next_batch<B: Pieces>(body: &mut B, ticket: &Ticket) -> (Vec<Bytes>, End<B::Error>) {
    let (mut batch, mut length) = (Vec::new(), 0);
    while length < BATCH {
        let next = tokio::select! {
            biased;
            next = body.next() => next.map_err(NotReceived::Body),
            () = ticket.is_taken_over() => Err(NotReceived::TakenOver),
        };
        match next {
            Ok(Some(piece)) => {
                length += piece.len();
                batch.push(piece);
            }
            Ok(None) => return (batch, Some(Ok(()))),
            Err(error) => return (batch, Some(Err(error))),
        }
    }
    (batch, None)
}

/// Ends an upload when dropped, however its last request ends.
struct Ending {
    sessions: Arc<Sessions>,
    id: Option<UploadId>,
}

impl Ending {
    /// Keeps the upload open.
    fn never(&mut self) {
        self.id = None;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.sessions.end(id);
        }
    }
}
