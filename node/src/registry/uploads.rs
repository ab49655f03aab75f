//! Uploads: POST, PATCH, PUT, monolithic and chunked, mounts. While bytes arrive they are hashed, written, and copied to other regions.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use rules::ledger::records::{BlobRecord, Look, Project, key};
use rules::people::access::Action;
use rules::words::digest::{Algorithm, Digest};
use rules::words::names::RepositoryName;
use tokio::task::JoinHandle;

use super::sessions::{Ticket, Upload};
use super::{Registry, answer, refuse_proxy, set};
use crate::access::Caller;
use crate::flights::Sources;
use crate::http::request::{Interrupted, Request};
use crate::http::{Code, Failure, Payload};
use store::{Ingest, StoreError};

/// Bytes are written in batches of about this size while the next are received.
const BATCH: usize = 1 << 20;
/// How long the client of an upload waits for its copies: they usually end with it. The manifest's commit waits longer.
const COPY_WAIT: Duration = Duration::from_secs(2);

impl Registry {
    pub(super) async fn begin_upload(
        &self,
        request: Request,
        repository: RepositoryName,
    ) -> Result<Response<Payload>, Failure> {
        let project = self.may_push(&request, &repository).await?;
        self.writes.ready().await.map_err(|e| Failure::from(e).closing_unless_read(&request))?;
        // a mount is a hint: one that cannot be done, or cannot be read, is a plain upload (distribution-spec "Mounting a blob from another repository")
        if let Some(Ok(mount)) = request.query("mount").map(str::parse::<Digest>)
            && self.mount(&request, &repository, mount).await?
        {
            return Ok(created(&repository, &mount));
        }
        let algorithm = match request.query("digest-algorithm") {
            None | Some("sha256") => Algorithm::Sha256,
            Some("sha512") => Algorithm::Sha512,
            Some(_) => return Err(rules::words::digest::BadDigest::Algorithm.into()),
        };
        if let Some(digest) = request.query("digest") {
            let digest: Digest = digest.parse().map_err(|e| Failure::from(e).closing_unless_read(&request))?;
            let upload = self.sessions.begin(&repository, digest.algorithm())?;
            return self.receive_and_seal(request, upload, digest, &project).await;
        }
        let upload = self.sessions.begin(&repository, algorithm)?;
        let response = accepted(&repository, &upload.ticket.id, 0);
        self.sessions.put_back(upload);
        Ok(response)
    }

    pub(super) async fn add_to_upload(
        &self,
        mut request: Request,
        repository: RepositoryName,
        id: String,
    ) -> Result<Response<Payload>, Failure> {
        let project = self.may_push(&request, &repository).await?;
        let upload = self.sessions.take_over(&repository, &id).await;
        let upload = upload.map_err(|f| f.closing_unless_read(&request))?;
        if let Err(failure) = check_range(&request, upload.ingest.written(), &upload) {
            self.sessions.put_back(upload);
            return Err(failure.closing_unless_read(&request));
        }
        let (upload, interrupted) = self.receive(&mut request, upload, &project).await?;
        let written = upload.ingest.written();
        self.sessions.put_back(upload);
        match interrupted {
            // what came is kept: a client that knows how may go on from there
            Some(interrupted) => Err(interrupted.into()),
            None => Ok(accepted(&repository, &id, written)),
        }
    }

    pub(super) async fn finish_upload(
        &self,
        request: Request,
        repository: RepositoryName,
        id: String,
    ) -> Result<Response<Payload>, Failure> {
        let project = self.may_push(&request, &repository).await?;
        let Some(digest) = request.query("digest") else {
            let message = "the upload's PUT needs ?digest=";
            return Err(Failure::new(Code::DigestInvalid, message).closing_unless_read(&request));
        };
        let digest: Digest = digest.parse().map_err(|e| Failure::from(e).closing_unless_read(&request))?;
        let upload = self.sessions.take_over(&repository, &id).await;
        let upload = upload.map_err(|f| f.closing_unless_read(&request))?;
        if let Err(failure) = check_range(&request, upload.ingest.written(), &upload) {
            self.sessions.put_back(upload);
            return Err(failure.closing_unless_read(&request));
        }
        self.receive_and_seal(request, upload, digest, &project).await
    }

    pub(super) async fn show_upload(
        &self,
        request: Request,
        repository: RepositoryName,
        id: String,
    ) -> Result<Response<Payload>, Failure> {
        self.may_push(&request, &repository).await?;
        // what another request has received of it counts once it has given the upload back; one that still sends keeps it
        if let Ok(upload) = self.sessions.take_over(&repository, &id).await {
            self.sessions.put_back(upload);
        }
        let written = self.sessions.written(&repository, &id)?;
        let mut response = accepted(&repository, &id, written);
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    pub(super) async fn cancel_upload(
        &self,
        request: Request,
        repository: RepositoryName,
        id: String,
    ) -> Result<Response<Payload>, Failure> {
        self.may_push(&request, &repository).await?;
        let upload = self.sessions.take_over(&repository, &id).await?;
        self.sessions.end(&upload.ticket.id);
        Ok(answer(StatusCode::NO_CONTENT))
    }

    async fn may_push(&self, request: &Request, repository: &RepositoryName) -> Result<Project, Failure> {
        let check = async {
            let caller = self.access.caller(request).await?;
            let (project, _) = self.read(|records| records.project(&repository.project())).await?;
            self.access.authorize(request, &caller, Action::Push, repository, project.as_ref())?;
            let project = project.ok_or_else(|| Failure::new(Code::NameUnknown, "there is no such project"))?;
            refuse_proxy(&project)?;
            Ok(project)
        };
        check.await.map_err(|failure: Failure| failure.closing_unless_read(request))
    }

    /// Makes a blob of another repository readable here, if the caller may read it there.
    async fn mount(&self, request: &Request, to: &RepositoryName, digest: Digest) -> Result<bool, Failure> {
        let Ok(from) = request.query("from").map(str::parse::<RepositoryName>).transpose() else { return Ok(false) };
        let caller = self.access.caller(request).await?;
        let ((project, linked, known), _) = self
            .read(|records| {
                let project = from.as_ref().map(|f| records.project(&f.project())).transpose()?.flatten();
                let linked = from.as_ref().map(|f| records.linked(f, &digest)).transpose()?.unwrap_or(false);
                let known = records.record::<BlobRecord>(&key::blob(&digest))?.is_some_and(|b| b.repositories > 0);
                Ok((project, linked, known))
            })
            .await?;
        let readable = match &from {
            Some(from) => {
                let there = linked || self.store.granted(&digest, from)?;
                there && self.access.authorize(request, &caller, Action::Pull, from, project.as_ref()).is_ok()
            }
            // without a source: an administrator may read every repository, so any that has it will do
            None if caller.may_read_all() => known || self.store.held(&digest)?.is_some(),
            None => self.in_reach(&caller, to, &digest).await?,
        };
        if readable {
            self.store.grant(digest, to, self.grant).await?;
            metrics::counter!("atoll_mounts_total").increment(1);
            if self.store.held(&digest)?.is_none() {
                self.flights.join(digest, Sources::Find { via: None }, rules::blobs::pacing::Class::Copy);
            }
        }
        Ok(readable)
    }

    /// Whether a repository that the caller may pull from has the blob: of those that its token names, and of the target's own project if everybody may pull
    /// there. Others are not looked through: the client then uploads what it has.
    async fn in_reach(&self, caller: &Caller, to: &RepositoryName, digest: &Digest) -> Result<bool, Failure> {
        let home = to.project();
        let ((public, repositories, linked), _) = self
            .read(|records| {
                let public = records.project(&home)?.is_some_and(|project| project.public);
                let siblings =
                    if public { records.scan(&key::repositories_of(&home), None, SIBLINGS)? } else { Vec::new() };
                let siblings = siblings.iter().filter_map(|(place, _)| key::name_of(place).parse().ok());
                let mut linked = false;
                let repositories: Vec<RepositoryName> = siblings.chain(caller.pullable()).collect();
                for repository in &repositories {
                    linked = linked || records.linked(repository, digest)?;
                }
                Ok((public, repositories, linked))
            })
            .await?;
        if linked || (public && self.store.granted_within(digest, &home)?) {
            return Ok(true);
        }
        for repository in &repositories {
            if self.store.granted(digest, repository)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the body in: while one batch is hashed and written, the next is received. The upload comes back with what arrived, and with why that was
    /// not all.
    async fn receive(
        &self,
        request: &mut Request,
        upload: Upload,
        project: &Project,
    ) -> Result<(Upload, Option<Interrupted>), Failure> {
        let Upload { mut ticket, ingest } = upload;
        let mut writing = Writing::Idle(ingest.into());
        loop {
            let (batch, end) = next_batch(request, &ticket).await;
            let ingest = self.written(writing, &mut ticket).await?;
            if !batch.is_empty() {
                self.sessions.begin_copies(&mut ticket, &ingest, project.durability);
            }
            writing =
                if batch.is_empty() { Writing::Idle(ingest.into()) } else { Writing::Busy(ingest.start_write(batch)) };
            if let Some(end) = end {
                // what came before the end is written before the end is told
                let ingest = self.written(writing, &mut ticket).await?;
                return Ok((Upload { ticket, ingest }, end.err()));
            }
        }
    }

    /// Waits for a write, and tells the upload's copies how far they may follow.
    async fn written(&self, writing: Writing, ticket: &mut Ticket) -> Result<Ingest, Failure> {
        let ingest = writing.idle().await.map_err(|error| {
            self.sessions.end(&ticket.id);
            Failure::from(StoreError::from(error)).closing()
        })?;
        for copy in &ticket.copying {
            copy.advance(ingest.written());
        }
        Ok(ingest)
    }

    /// Takes the rest of the body in and makes the upload the blob `digest`: hashed, fsynced, granted in its repository. On any failure nothing is kept.
    async fn receive_and_seal(
        &self,
        mut request: Request,
        upload: Upload,
        digest: Digest,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let mut ending = Ending { sessions: self.sessions.clone(), id: Some(upload.ticket.id.clone()) };
        let (upload, interrupted) = self.receive(&mut request, upload, project).await?;
        if let Some(interrupted) = interrupted {
            if let Interrupted::TakenOver = interrupted {
                ending.never();
                self.sessions.put_back(upload);
            }
            return Err(interrupted.into());
        }
        let Upload { mut ticket, ingest } = upload;
        // an empty blob has no first byte that would have begun its copies
        self.sessions.begin_copies(&mut ticket, &ingest, project.durability);
        let Ticket { repository, copying, .. } = ticket;
        let sealed = self.store.seal(ingest, digest, Some((&repository, self.grant))).await;
        sealed.map_err(|e| Failure::from(e).closing_unless_read(&request))?;
        self.sessions.seal_copies(digest, copying);
        self.sessions.settled(digest, COPY_WAIT).await;
        drop(ending);
        Ok(created(&repository, &digest))
    }
}

/// In so many repositories of a project a blob is looked for that is to be mounted from anywhere.
const SIBLINGS: usize = 1000;

/// An ingest, or the write that has it.
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

/// The next bytes of a body, about [`BATCH`] of them; and how it ended, if it did.
async fn next_batch(request: &mut Request, ticket: &Ticket) -> (Vec<Bytes>, Option<Result<(), Interrupted>>) {
    let (mut batch, mut length) = (Vec::new(), 0);
    while length < BATCH {
        let next = tokio::select! {
            biased;
            next = request.body.next() => next,
            () = ticket.is_taken_over() => Err(Interrupted::TakenOver),
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

/// Ends an upload however its last request ends.
struct Ending {
    sessions: std::sync::Arc<super::Sessions>,
    id: Option<String>,
}

impl Ending {
    /// The upload goes on.
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

/// A chunk must begin where the last one ended (distribution-spec "Pushing a blob in chunks"), and be as long as it says.
fn check_range(request: &Request, written: u64, upload: &Upload) -> Result<(), Failure> {
    let Some(range) = request.header(&header::CONTENT_RANGE) else { return Ok(()) };
    let out_of_order = |message: String| {
        Failure::new(Code::RangeInvalid, message)
            .header(header::RANGE, format!("0-{}", written.saturating_sub(1)))
            .header(header::LOCATION, upload_path(&upload.ticket.repository, &upload.ticket.id))
    };
    let spec = range.trim().strip_prefix("bytes ").unwrap_or(range).trim();
    let spec = spec.split('/').next().unwrap_or(spec);
    let parsed = spec.split_once('-').and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
    let Some((first, last)) = parsed.filter(|(first, last)| last >= first || *last + 1 == *first) else {
        return Err(out_of_order(format!("the Content-Range '{spec}' cannot be read; it is written first-last")));
    };
    if first != written {
        return Err(out_of_order(format!("the chunk begins at {first}, but the upload has {written} bytes")));
    }
    match request.content_length() {
        Some(length) if length != last + 1 - first => {
            Err(Failure::new(Code::SizeInvalid, "the Content-Length and the Content-Range differ"))
        }
        _ => Ok(()),
    }
}

fn upload_path(repository: &RepositoryName, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

fn accepted(repository: &RepositoryName, id: &str, written: u64) -> Response<Payload> {
    let mut response = answer(StatusCode::ACCEPTED);
    set(&mut response, "location", upload_path(repository, id));
    set(&mut response, "range", format!("0-{}", written.saturating_sub(1)));
    set(&mut response, "docker-upload-uuid", id);
    response
}

fn created(repository: &RepositoryName, digest: &Digest) -> Response<Payload> {
    let mut response = answer(StatusCode::CREATED);
    set(&mut response, "location", format!("/v2/{repository}/blobs/{digest}"));
    set(&mut response, "docker-content-digest", digest.to_string());
    response
}
