//! Uploads: POST, PATCH, PUT, monolithic and chunked, and mounts. While bytes arrive they are
//! hashed, written, and copied to other regions.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use registry::blobs::flights::Sources;
use registry::people::Caller;
use registry::pushes::receiving::{Becomes, NotTaken, Pieces};
use rules::blobs::pacing::Class;
use rules::blobs::uploads::{Chunk, Place, RelayedStep, Step, StepDone, UploadId, UploadRefusal};
use rules::ledger::records::{BlobRecord, Look, Project, key};
use rules::people::access::Action;
use rules::words::digest::{Algorithm, BadDigest, Digest};
use rules::words::names::RepositoryName;

use super::{Registry, refuse_proxy};
use crate::http::answer::{answer, set};
use crate::http::door::Door;
use crate::http::request::{Arrival, Interrupted, Request};
use crate::http::{Code, Failure, Payload};

/// Who pushes, and into which project: the one that had the name when the request began.
struct Pusher {
    caller: Caller,
    project: Project,
}

/// The body of a push. At its end the caller must still have the right to push: it may have taken
/// long.
struct Pushed<'r> {
    body: &'r mut Arrival,
    door: &'r Door,
    pusher: &'r Pusher,
}

/// Why the body of a push is not taken.
enum NotPushed {
    /// It did not arrive completely.
    Interrupted(Interrupted),
    /// The caller may no longer push.
    Refused(Failure),
}

impl Pieces for Pushed<'_> {
    type Error = NotPushed;

    async fn next(&mut self) -> Result<Option<Bytes>, NotPushed> {
        let piece = self.body.next().await.map_err(NotPushed::Interrupted)?;
        if piece.is_none() {
            let Pusher { caller, project } = self.pusher;
            let still = self.door.check_still(caller, Action::Push, project).await;
            still.map_err(NotPushed::Refused)?;
        }
        Ok(piece)
    }
}

impl From<NotTaken<NotPushed>> for Failure {
    fn from(error: NotTaken<NotPushed>) -> Self {
        match error {
            NotTaken::Body(NotPushed::Interrupted(interrupted)) => interrupted.into(),
            NotTaken::Body(NotPushed::Refused(failure)) => failure,
            NotTaken::Refused(refusal) => refusal.into(),
        }
    }
}

/// The maximum number of a project's repositories that are searched for a blob to mount without a
/// source.
const SIBLINGS: usize = 1000;

impl Registry {
    pub(super) async fn begin_upload(
        &self,
        request: Request,
        repository: RepositoryName,
    ) -> Result<Response<Payload>, Failure> {
        let pusher = self.may_push(&request, &repository).await?;
        self.writes.ready().await.map_err(|e| Failure::from(e).closing_unless_read(&request))?;
        // a mount is a hint: if it is not possible, or invalid, an upload begins instead
        // (distribution-spec "Mounting a blob from another repository")
        if let Some(Ok(mount)) = request.query("mount").map(str::parse::<Digest>)
            && self.mount(&request, &pusher, &repository, mount).await?
        {
            return Ok(created(&repository, &mount));
        }
        let algorithm = match request.query("digest-algorithm") {
            None | Some("sha256") => Algorithm::Sha256,
            Some("sha512") => Algorithm::Sha512,
            Some(_) => return Err(BadDigest::Algorithm.into()),
        };
        if let Some(digest) = request.query("digest") {
            let digest: Digest =
                digest.parse().map_err(|e| Failure::from(e).closing_unless_read(&request))?;
            return self.receive_whole(request, repository, digest, &pusher).await;
        }
        let upload = self.uploads.sessions.begin(&repository, pusher.project.id, algorithm)?;
        let response = accepted(&repository, &upload.ticket.id, 0);
        self.uploads.sessions.put_back(upload);
        Ok(response)
    }

    /// A blob that comes with the request that begins its upload.
    async fn receive_whole(
        &self,
        mut request: Request,
        repository: RepositoryName,
        digest: Digest,
        pusher: &Pusher,
    ) -> Result<Response<Payload>, Failure> {
        let sessions = &self.uploads.sessions;
        let becomes = self.becomes(&pusher.project, Some(&digest))?;
        let length = request.content_length().unwrap_or(0);
        becomes.check_room(length).map_err(|e| Failure::from(e).closing_unless_read(&request))?;
        let upload = sessions.begin(&repository, pusher.project.id, digest.algorithm())?;
        let mut body = Pushed { body: &mut request.body, door: &self.door, pusher };
        let done = sessions.receive_and_seal(&mut body, upload, digest, becomes).await;
        done.map_err(|e| Failure::from(e).closing_unless_read(&request))?;
        Ok(created(&repository, &digest))
    }

    pub(super) async fn add_to_upload(
        &self,
        request: Request,
        repository: RepositoryName,
        id: String,
    ) -> Result<Response<Payload>, Failure> {
        let step = Step::Add(chunk(&request));
        self.step(request, repository, &id, step).await
    }

    pub(super) async fn finish_upload(
        &self,
        request: Request,
        repository: RepositoryName,
        id: String,
    ) -> Result<Response<Payload>, Failure> {
        self.may_push(&request, &repository).await?;
        let Some(digest) = request.query("digest") else {
            let message = "the upload's PUT needs ?digest=";
            return Err(Failure::new(Code::DigestInvalid, message).closing_unless_read(&request));
        };
        let digest: Digest =
            digest.parse().map_err(|e| Failure::from(e).closing_unless_read(&request))?;
        let step = Step::Finish(chunk(&request), digest);
        self.step(request, repository, &id, step).await
    }

    pub(super) async fn show_upload(
        &self,
        request: Request,
        repository: RepositoryName,
        id: String,
    ) -> Result<Response<Payload>, Failure> {
        let mut response = self.step(request, repository, &id, Step::Show).await?;
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    pub(super) async fn cancel_upload(
        &self,
        request: Request,
        repository: RepositoryName,
        id: String,
    ) -> Result<Response<Payload>, Failure> {
        self.step(request, repository, &id, Step::Cancel).await
    }

    /// Takes a step of an upload, on whichever node it is, if the caller may push.
    async fn step(
        &self,
        mut request: Request,
        repository: RepositoryName,
        id: &str,
        step: Step,
    ) -> Result<Response<Payload>, Failure> {
        let pusher = self.may_push(&request, &repository).await?;
        // what is no id was never begun
        let id: Result<UploadId, _> = id.parse();
        let id =
            id.map_err(|_| Failure::from(UploadRefusal::Unknown).closing_unless_read(&request))?;
        let sealed = step.sealed().copied();
        let becomes = self.becomes(&pusher.project, sealed.as_ref())?;
        let step = RelayedStep { repository: repository.clone(), id, step };
        let mut body = Pushed { body: &mut request.body, door: &self.door, pusher: &pusher };
        let taken = self.uploads.step(step, &mut body, becomes).await;
        match (taken, sealed) {
            (Ok(StepDone::Open(written)), _) => Ok(accepted(&repository, &id, written)),
            (Ok(StepDone::Blob), Some(digest)) => Ok(created(&repository, &digest)),
            (Ok(StepDone::Blob | StepDone::GivenUp), _) => Ok(answer(StatusCode::NO_CONTENT)),
            (Err(NotTaken::Refused(refusal @ UploadRefusal::OutOfOrder { written, .. })), _) => {
                let failure = Failure::from(refusal)
                    .header(header::RANGE, format!("0-{}", written.saturating_sub(1)))
                    .header(header::LOCATION, upload_path(&repository, &id));
                Err(failure.closing_unless_read(&request))
            }
            (Err(why), _) => Err(Failure::from(why).closing_unless_read(&request)),
        }
    }

    fn becomes(&self, project: &Project, sealed: Option<&Digest>) -> Result<Becomes, Failure> {
        let view = self.uploads.neighbours.records.view()?;
        Ok(Becomes::of(&*view, project, sealed, self.terms.grant)?)
    }

    async fn may_push(
        &self,
        request: &Request,
        repository: &RepositoryName,
    ) -> Result<Pusher, Failure> {
        let check = async {
            let admitted =
                self.door.admit(request, Action::Push, repository, |_, _| Ok(())).await?;
            refuse_proxy(&admitted.project)?;
            Ok(Pusher { caller: admitted.caller, project: admitted.project })
        };
        check.await.map_err(|failure: Failure| failure.closing_unless_read(request))
    }

    /// Makes a blob of another repository readable here, if the caller may read it there.
    async fn mount(
        &self,
        request: &Request,
        pusher: &Pusher,
        to: &RepositoryName,
        digest: Digest,
    ) -> Result<bool, Failure> {
        let Ok(from) = request.query("from").map(str::parse::<RepositoryName>).transpose() else {
            return Ok(false);
        };
        let caller = &pusher.caller;
        let ((linked, record), _) = self
            .door
            .read(|records| {
                let linked =
                    from.as_ref().map(|f| records.linked(f, &digest)).transpose()?.unwrap_or(false);
                let record = records
                    .record::<BlobRecord>(&key::blob(&digest))?
                    .filter(|b| b.repositories > 0);
                Ok((linked, record))
            })
            .await?;
        let readable = match &from {
            Some(from) => {
                let there = linked || self.store.granted(&digest, from)?;
                there && self.door.may(caller, Action::Pull, from).await?
            }
            // without a source: an administrator may read every repository, so it is enough that
            // any repository has the blob
            None if caller.may_read_all() => {
                record.is_some() || self.store.held(&digest)?.is_some()
            }
            None => self.in_reach(caller, to, &digest).await?,
        };
        // a copy that nobody can give is none: the client uploads the blob, which mends it
        if readable && self.flights.is_lost(digest).await {
            return Ok(false);
        }
        if readable {
            let held = self.store.held(&digest)?.map(|held| held.size);
            let length = record.map(|record| record.size).or(held).unwrap_or(0);
            self.becomes(&pusher.project, Some(&digest))?.check_room(length)?;
            // the node may have waited for the ledger since they were admitted
            self.door.check_still(caller, Action::Push, &pusher.project).await?;
            self.store.grant(digest, to, self.terms.grant).await?;
            metrics::counter!("atoll_mounts_total").increment(1);
            if self.store.held(&digest)?.is_none() {
                self.flights.join(digest, Sources::Find { via: None }, Class::Copy);
            }
        }
        Ok(readable)
    }

    /// Whether a repository that the caller may pull from has the blob. Only the repositories in
    /// its token, and those of the target's own project if it is public, are searched. In other
    /// cases the client uploads its blob.
    async fn in_reach(
        &self,
        caller: &Caller,
        to: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, Failure> {
        let home = to.project();
        let ((public, repositories, linked), _) = self
            .door
            .read(|records| {
                let public = records.project(&home)?.is_some_and(|project| project.public);
                let siblings = if public {
                    records.scan(&key::repositories_of(&home), None, SIBLINGS)?
                } else {
                    Vec::new()
                };
                let siblings =
                    siblings.iter().filter_map(|(place, _)| key::name_of(place).parse().ok());
                let mut linked = false;
                let mut repositories: Vec<RepositoryName> = siblings.collect();
                for named in caller.pullable() {
                    // what the token names may have been taken away since
                    if self.door.may_in(records, caller, Action::Pull, &named)? {
                        repositories.push(named);
                    }
                }
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
}

/// The body of a request, as its headers announce it.
fn chunk(request: &Request) -> Chunk {
    let range = request.header(&header::CONTENT_RANGE).filter(|range| !range.trim().is_empty());
    Chunk { place: range.map_or(Place::Next, Place::read), length: request.content_length() }
}

fn upload_path(repository: &RepositoryName, id: &UploadId) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

fn accepted(repository: &RepositoryName, id: &UploadId, written: u64) -> Response<Payload> {
    let mut response = answer(StatusCode::ACCEPTED);
    set(&mut response, "location", upload_path(repository, id));
    set(&mut response, "range", format!("0-{}", written.saturating_sub(1)));
    set(&mut response, "docker-upload-uuid", id.to_string());
    response
}

fn created(repository: &RepositoryName, digest: &Digest) -> Response<Payload> {
    let mut response = answer(StatusCode::CREATED);
    set(&mut response, "location", format!("/v2/{repository}/blobs/{digest}"));
    set(&mut response, "docker-content-digest", digest.to_string());
    response
}
