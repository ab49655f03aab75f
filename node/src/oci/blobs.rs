//! Blobs: GET and HEAD with ranges, from this node or as they arrive from another; DELETE of blobs
//! that no manifest refers to.

use http::{HeaderValue, Method, Response, StatusCode, header};
use rules::ledger::records::{BlobRecord, EDGES, Look, key};
use rules::people::access::Action;
use rules::wire::questions::Revoke;
use rules::words::digest::Digest;
use rules::words::names::RepositoryName;
use rules::words::range::{Ranges, wanted};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::{Registry, condition_failed};
use crate::http::answer::{answer, mark, moved, set};
use crate::http::conditional::{self, Condition};
use crate::http::door::{Admitted, beyond_the_pass};
use crate::http::request::Request;
use crate::http::{Code, Failure, Parts, Payload, Piece};
use registry::pulls::{Bytes, Known, PullError, Readable};
use registry::view::Freshness;
use store::BlobBody;

/// How long other nodes may take to revoke a grant.
const REVOKE: Duration = Duration::from_secs(2);

/// The media type of a blob: the registry does not know its content.
const OCTETS: &str = "application/octet-stream";

impl Registry {
    pub(super) async fn get_blob(
        &self,
        request: Request,
        repository: RepositoryName,
        digest: Digest,
    ) -> Result<Response<Payload>, Failure> {
        let admitted = self.door.admit_reader(&request, &repository, |records, _| {
            let linked = records.linked(&repository, &digest)?;
            let record =
                if linked { records.record::<BlobRecord>(&key::blob(&digest))? } else { None };
            Ok((linked, record))
        });
        let Admitted { caller, project, freshness, found: (linked, record) } = admitted.await?;
        if let Some(pass) = caller.pass() {
            let opens = || self.door.read(|records| pass.opens_blob(records, &repository, &digest));
            let mut opened = opens().await?.0;
            if !opened && project.upstream.is_some() {
                // another node has given the scanner its manifest
                let caches = self.proxies.caches();
                opened = caches.manifest(&pass.repository, &pass.digest, false).await.is_some()
                    && opens().await?.0;
            }
            if !opened {
                return Err(beyond_the_pass());
            }
        }
        let proxied = project.upstream.is_some();
        if proxied && !self.upstreams.admits(&project, &repository) {
            return Err(PullError::Unknown(digest).into());
        }
        if proxied && let Some(elsewhere) = self.upstreams.canonical(&repository) {
            return Ok(moved(&request.place(&elsewhere, &format!("blobs/{digest}"))));
        }
        let size = record.map(|record| record.size);
        let client = request.client;
        let chosen = project.metadata.contains_key(EDGES);
        let repository_of = &repository;
        let mut known =
            Known { digest, repository: repository_of, linked, proxied, chosen, size, client };
        let readable = match self.pulls.check_readable(&known).await {
            Err(PullError::Unknown(digest)) if !proxied => {
                // only who pushes asks for what no manifest refers to yet
                let pushes = !self.neighbours.is_edge()
                    && self.door.may(&caller, Action::Push, &repository).await?;
                let elsewhere = match pushes {
                    true => self.neighbours.granted(digest, &repository).await,
                    false => None,
                };
                known.size = elsewhere.map(|held| held.size);
                elsewhere.map(|_| Readable::Here).ok_or(PullError::Unknown(digest))
            }
            readable => readable,
        };
        let readable = readable.map_err(|error| Failure::from(error).if_known(freshness))?;
        // a client that asks before a push, and hears that the blob is here, does not send it; so
        // it must stay until its manifest can have come
        if request.method == Method::HEAD
            && !proxied
            && !self.neighbours.is_edge()
            && self.door.may(&caller, Action::Push, &repository).await?
        {
            self.pulls.keep_readable(&known).await?;
        }
        let verdict = conditional::verdict(&request.head.headers, &digest.to_string());
        if verdict == Condition::Failed {
            return Err(condition_failed(&digest));
        }
        if verdict == Condition::NotModified {
            let mut response = describe(&digest, freshness);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        // a range has no meaning for a HEAD (RFC 9110 section 14.2)
        let ranged = verdict == Condition::Go && request.method == Method::GET;
        let range = request.header(&header::RANGE).filter(|_| ranged);

        let mut response = describe(&digest, freshness);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(OCTETS));
        response.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));

        let at_hand = self.pulls.at_hand(&known).await?;
        let only_asked = request.method == Method::HEAD;
        if only_asked {
            self.pulls.check_somewhere(&known, &at_hand).await?;
        }
        if let (true, Some(size)) = (only_asked, at_hand.size()) {
            response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
            return Ok(response);
        }
        let Bytes { size, cut } = self.pulls.bytes(&known, readable, at_hand).await?;
        let payload = match wanted(range, size) {
            Ranges::Whole => Payload::File(Box::new(cut(0..size))),
            Ranges::Part(part) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                set(&mut response, "content-range", content_range(&part, size));
                Payload::File(Box::new(cut(part)))
            }
            Ranges::Parts(parts) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let boundary = format!("{:032x}", rand::random::<u128>());
                set(
                    &mut response,
                    "content-type",
                    format!("multipart/byteranges; boundary={boundary}"),
                );
                Payload::Parts(Box::new(in_parts(parts, size, &boundary, &*cut)))
            }
            Ranges::Unsatisfiable => {
                return Err(Failure::new(Code::RangeInvalid, format!("the blob has {size} bytes"))
                    .header(header::CONTENT_RANGE, format!("bytes */{size}")));
            }
        };
        let length = http_body::Body::size_hint(&payload).lower();
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        *response.body_mut() = match request.method {
            Method::HEAD => Payload::empty(),
            _ => payload,
        };
        Ok(response)
    }

    pub(super) async fn delete_blob(
        &self,
        request: Request,
        repository: RepositoryName,
        digest: Digest,
    ) -> Result<Response<Payload>, Failure> {
        let admitted = self.door.admit(&request, Action::Delete, &repository, |records, _| {
            records.linked(&repository, &digest)
        });
        if admitted.await?.found {
            let message = "a manifest of this repository refers to the blob; delete the manifest, which also unlinks the blob";
            return Err(Failure::new(Code::Unsupported, message).header(header::ALLOW, "GET, HEAD"));
        }
        let mut revoked = self.store.revoke(digest, &repository).await?;
        let others = self.neighbours.alive().into_iter().filter(|c| c.id != self.neighbours.me);
        let asked = others.map(|other| {
            let ask = Revoke { repository: repository.clone(), digest };
            async move { self.neighbours.links.ask(other.id, ask, REVOKE).await }
        });
        for answered in futures::future::join_all(asked).await {
            revoked |= matches!(answered, Ok(true));
        }
        if revoked {
            Ok(answer(StatusCode::ACCEPTED))
        } else {
            Err(PullError::Unknown(digest).into())
        }
    }
}

/// The headers of every answer about a blob.
fn describe(digest: &Digest, freshness: Freshness) -> Response<Payload> {
    let mut response = answer(StatusCode::OK);
    mark(&mut response, freshness);
    set(&mut response, "docker-content-digest", digest.to_string());
    set(&mut response, "etag", format!("\"{digest}\""));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=31536000, immutable"));
    response
}

fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

/// A body of several parts (RFC 9110 section 14.6), which are made by `cut`.
fn in_parts(
    parts: Vec<Range<u64>>,
    size: u64,
    boundary: &str,
    cut: &dyn Fn(Range<u64>) -> BlobBody,
) -> Parts {
    let mut pieces = VecDeque::new();
    for (number, part) in parts.into_iter().enumerate() {
        let newline = if number == 0 { "" } else { "\r\n" };
        let range = content_range(&part, size);
        let head = format!(
            "{newline}--{boundary}\r\ncontent-type: {OCTETS}\r\ncontent-range: {range}\r\n\r\n"
        );
        pieces.push_back(Piece::Between(head.into()));
        pieces.push_back(Piece::Part(Box::new(cut(part))));
    }
    pieces.push_back(Piece::Between(format!("\r\n--{boundary}--\r\n").into()));
    Parts::new(pieces)
}
