//! Uploads: POST, PATCH, PUT, monolithic and chunked, and mounts. While bytes arrive they are
//! hashed, written, and copied to other regions.

use http::{Response, StatusCode, header};
use registry::blobs::flights::Sources;
use registry::people::Caller;
use registry::pushes::sessions::Upload;
use rules::blobs::pacing::Class;
use rules::ledger::records::{BlobRecord, Look, Project, key};
use rules::people::access::Action;
use rules::words::digest::{Algorithm, BadDigest, Digest};
use rules::words::names::RepositoryName;

use super::{Registry, refuse_proxy};
use crate::http::answer::{answer, set};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The maximum number of a project's repositories that are searched for a blob to mount without a
/// source.
const SIBLINGS: usize = 1000;

impl Registry {
    pub(super) async fn begin_upload(
        &self,
        request: Request,
        repository: RepositoryName,
    ) -> Result<Response<Payload>, Failure> {
        let project = self.may_push(&request, &repository).await?;
        self.writes.ready().await.map_err(|e| Failure::from(e).closing_unless_read(&request))?;
        // a mount is a hint: if it is not possible, or invalid, an upload begins instead
        // (distribution-spec "Mounting a blob from another repository")
        if let Some(Ok(mount)) = request.query("mount").map(str::parse::<Digest>)
            && self.mount(&request, &repository, mount).await?
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
        let upload = upload.map_err(|e| Failure::from(e).closing_unless_read(&request))?;
        if let Err(failure) = check_range(&request, upload.ingest.written(), &upload) {
            self.sessions.put_back(upload);
            return Err(failure.closing_unless_read(&request));
        }
        let received = self.sessions.receive(&mut request.body, upload, project.durability).await;
        let (upload, interrupted) = received.map_err(|e| Failure::from(e).closing())?;
        let written = upload.ingest.written();
        self.sessions.put_back(upload);
        match interrupted {
            // what arrived is kept: a client may continue from there
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
        let digest: Digest =
            digest.parse().map_err(|e| Failure::from(e).closing_unless_read(&request))?;
        let upload = self.sessions.take_over(&repository, &id).await;
        let upload = upload.map_err(|e| Failure::from(e).closing_unless_read(&request))?;
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
        // what another request has received counts only when it gives the upload back; a request
        // that still receives keeps it
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

    async fn may_push(
        &self,
        request: &Request,
        repository: &RepositoryName,
    ) -> Result<Project, Failure> {
        let check = async {
            let project =
                self.door.admit(request, Action::Push, repository, |_, _| Ok(())).await?.project;
            refuse_proxy(&project)?;
            Ok(project)
        };
        check.await.map_err(|failure: Failure| failure.closing_unless_read(request))
    }

    /// Makes a blob of another repository readable here, if the caller may read it there.
    async fn mount(
        &self,
        request: &Request,
        to: &RepositoryName,
        digest: Digest,
    ) -> Result<bool, Failure> {
        let Ok(from) = request.query("from").map(str::parse::<RepositoryName>).transpose() else {
            return Ok(false);
        };
        let caller = self.door.caller(request).await?;
        let ((project, linked, known), _) = self
            .door
            .read(|records| {
                let project =
                    from.as_ref().map(|f| records.project(&f.project())).transpose()?.flatten();
                let linked =
                    from.as_ref().map(|f| records.linked(f, &digest)).transpose()?.unwrap_or(false);
                let known = records
                    .record::<BlobRecord>(&key::blob(&digest))?
                    .is_some_and(|b| b.repositories > 0);
                Ok((project, linked, known))
            })
            .await?;
        let readable = match &from {
            Some(from) => {
                let there = linked || self.store.granted(&digest, from)?;
                there && self.door.may(&caller, Action::Pull, from, project.as_ref())
            }
            // without a source: an administrator may read every repository, so it is enough that
            // any repository has the blob
            None if caller.may_read_all() => known || self.store.held(&digest)?.is_some(),
            None => self.in_reach(&caller, to, &digest).await?,
        };
        if readable {
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

    /// Receives the rest of the body, and makes the upload the blob `digest`.
    async fn receive_and_seal(
        &self,
        mut request: Request,
        upload: Upload,
        digest: Digest,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let repository = upload.ticket.repository.clone();
        let body = &mut request.body;
        let sealed = self
            .sessions
            .receive_and_seal(body, upload, digest, project.durability, self.terms.grant)
            .await;
        sealed.map_err(|e| Failure::from(e).closing_unless_read(&request))?;
        Ok(created(&repository, &digest))
    }
}

/// Checks that a chunk begins where the last one ended (distribution-spec "Pushing a blob in
/// chunks"), and that its length is as announced.
fn check_range(request: &Request, written: u64, upload: &Upload) -> Result<(), Failure> {
    let Some(range) =
        request.header(&header::CONTENT_RANGE).filter(|range| !range.trim().is_empty())
    else {
        return Ok(());
    };
    let out_of_order = |message: String| {
        Failure::new(Code::RangeInvalid, message)
            .header(header::RANGE, format!("0-{}", written.saturating_sub(1)))
            .header(header::LOCATION, upload_path(&upload.ticket.repository, &upload.ticket.id))
    };
    let spec = range.trim().strip_prefix("bytes ").unwrap_or(range).trim();
    let spec = spec.split('/').next().unwrap_or(spec);
    let parsed = spec
        .split_once('-')
        .and_then(|(a, b)| Some((a.parse::<u64>().ok()?, b.parse::<u64>().ok()?)));
    let Some((first, last)) = parsed.filter(|(first, last)| last >= first || *last + 1 == *first)
    else {
        return Err(out_of_order(format!(
            "the Content-Range '{spec}' cannot be read; it is written first-last"
        )));
    };
    if first != written {
        return Err(out_of_order(format!(
            "the chunk begins at {first}, but the upload has {written} bytes"
        )));
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
