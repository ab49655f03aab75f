//! Blobs: GET and HEAD with ranges, from here or as they arrive from another node; DELETE of what no manifest refers to.

use http::{HeaderValue, Method, Response, StatusCode, header};
use rules::access::Action;
use rules::digest::Digest;
use rules::names::RepositoryName;
use rules::pacing::Class;
use rules::records::{BlobRecord, Look, key};
use rules::wire::{Answer, Ask};
use std::time::Duration;

use super::{DENIED, Registry, answer, mark, moved, set};
use crate::flights::{Begun, FlightError, Sources};
use crate::http::range::{Wanted, wanted};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};
use crate::store::FileBody;
use crate::upstream::UpstreamError;

/// How long other nodes may take to forget an upload.
const REVOKE: Duration = Duration::from_secs(2);

impl Registry {
    pub(super) async fn get_blob(
        &self,
        request: Request,
        repository: RepositoryName,
        digest: Digest,
    ) -> Result<Response<Payload>, Failure> {
        let caller = self.access.caller(&request).await?;
        let ((project, linked, record), freshness) = self
            .read(|records| {
                let project = records.project(&repository.project())?;
                let linked = records.linked(&repository, &digest)?;
                let record = if linked { records.record::<BlobRecord>(&key::blob(&digest))? } else { None };
                Ok((project, linked, record))
            })
            .await?;
        self.access.authorize(&request, &caller, Action::Pull, &repository, project.as_ref())?;
        let proxied = project.as_ref().is_some_and(|p| p.upstream.is_some());
        if proxied && project.as_ref().is_some_and(|p| !self.proxies.admits(p, &repository)) {
            return Err(unknown(&digest));
        }
        if proxied && let Some(elsewhere) = self.proxies.canonical(&repository) {
            return Ok(moved(&request.place(&elsewhere, &format!("blobs/{digest}"))));
        }
        if !linked && !self.store.granted(&digest, &repository)? {
            // a proxy's clients may have the manifest from another mirror; but a blob may be in the mesh for another project's sake only, so the
            // upstream has to say that this repository has it
            if !proxied {
                return Err(unknown(&digest));
            }
            match self.proxies.confirms(&repository, &digest).await {
                Ok(true) => self.store.grant(digest, &repository, self.grant).await?,
                Ok(false) => return Err(unknown(&digest)),
                Err(UpstreamError::Denied(why)) => {
                    let message = format!("the upstream denies {digest} of {repository} ({why}): {DENIED}");
                    return Err(Failure::new(Code::BlobUnknown, message));
                }
                Err(error) => return Err(Failure::new(Code::Unavailable, error.to_string())),
            }
        }
        let opened = self.store.open_sound(&digest).await?;
        let known_size = opened.as_ref().map(|b| b.size).or(record.map(|r| r.size));
        let range = request.header(&header::RANGE);

        let mut response = answer(StatusCode::OK);
        mark(&mut response, freshness);
        set(&mut response, "docker-content-digest", digest.to_string());
        set(&mut response, "etag", format!("\"{digest}\""));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=31536000, immutable"));

        // whoever asks before a push is to hear whether bytes are wanted, and those at hand are not right
        let damaged = self.store.is_damaged(&digest);
        if let (&Method::HEAD, Some(size), false) = (&request.method, known_size, damaged) {
            response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
            return Ok(response);
        }
        let sent = metrics::counter!("atoll_blob_bytes_served_total");
        let (size, body) = match opened {
            Some(blob) => {
                let part = part(range, blob.size)?;
                let body = FileBody::whole(blob.file, part, self.store.buffers());
                let rechecks = self.rechecks.clone();
                (blob.size, body.or_unreadable(move || rechecks.unreadable(digest)))
            }
            None => {
                metrics::counter!("atoll_blob_misses_total").increment(1);
                let sources = Sources::Find { via: proxied.then(|| repository.clone()) };
                let flight = self.flights.join(digest, sources, Class::Pull);
                let Begun { size, file, following, .. } = match flight.begun(digest, self.first_byte).await {
                    // a manifest here refers to it, so it may come back: a client would give up on a 404 for good
                    Err(error @ FlightError::Missing(_)) if linked => {
                        return Err(Failure::new(Code::Unavailable, error.to_string()));
                    }
                    Err(FlightError::NoSource(_)) if damaged && request.method == Method::HEAD => {
                        return Err(unknown(&digest));
                    }
                    begun => begun?,
                };
                let part = part(range, size)?;
                (size, FileBody::arriving(file, part, self.store.buffers(), following, self.stall))
            }
        };
        let length = http_body::Body::size_hint(&body).lower();
        if let Wanted::Part(part) = wanted(range, size) {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            set(&mut response, "content-range", format!("bytes {}-{}/{size}", part.start, part.end - 1));
        }
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        *response.body_mut() = match request.method {
            Method::HEAD => Payload::empty(),
            _ => Payload::File(Box::new(body.counted(sent))),
        };
        Ok(response)
    }

    pub(super) async fn delete_blob(
        &self,
        request: Request,
        repository: RepositoryName,
        digest: Digest,
    ) -> Result<Response<Payload>, Failure> {
        let caller = self.access.caller(&request).await?;
        let ((project, linked), _) = self
            .read(|records| Ok((records.project(&repository.project())?, records.linked(&repository, &digest)?)))
            .await?;
        self.access.authorize(&request, &caller, Action::Delete, &repository, project.as_ref())?;
        if linked {
            let message =
                "a manifest of this repository refers to the blob; delete the manifest, and the blob goes with it";
            return Err(Failure::new(Code::Unsupported, message));
        }
        let mut revoked = self.store.revoke(digest, &repository).await?;
        let others = self.neighbours.alive().into_iter().filter(|c| c.id != self.neighbours.me);
        let asked = others.map(|other| {
            let ask = Ask::Revoke { repository: repository.clone(), digest };
            async move { self.neighbours.links.ask(other.id, ask, REVOKE).await }
        });
        for answered in futures::future::join_all(asked).await {
            revoked |= matches!(answered, Ok(Answer::Revoked(true)));
        }
        if revoked { Ok(answer(StatusCode::ACCEPTED)) } else { Err(unknown(&digest)) }
    }
}

fn unknown(digest: &Digest) -> Failure {
    Failure::new(Code::BlobUnknown, format!("this repository has no blob {digest}"))
}

fn part(range: Option<&str>, size: u64) -> Result<std::ops::Range<u64>, Failure> {
    match wanted(range, size) {
        Wanted::Whole => Ok(0..size),
        Wanted::Part(part) => Ok(part),
        Wanted::Unsatisfiable => Err(Failure::new(Code::RangeInvalid, format!("the blob has {size} bytes"))
            .header(header::CONTENT_RANGE, format!("bytes */{size}"))),
    }
}
