//! Questions about blobs.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use rules::words::digest::{Digest, Hasher};

use tracing::warn;

use super::Upstream;
use crate::UpstreamError;
use crate::blob::{Beginning, BlobStream, Measured};
use crate::budget::Ask;
use crate::coding::{Coding, coding};
use crate::headers::text;

/// A part of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sample {
    /// These bytes came for it.
    Bytes(Bytes),
    /// The upstream does not answer parts of this blob, because it knows no ranges or says that the
    /// blob has no such range. Only the whole blob proves that it is there.
    Unanswered,
}

impl Upstream {
    /// The blob `digest` from byte `offset` on, once its first bytes have arrived. The bytes are
    /// not checked against the digest: the store does that.
    pub async fn blob(
        &self,
        repository: &str,
        digest: &Digest,
        offset: u64,
    ) -> Result<BlobStream, UpstreamError> {
        let path = format!("blobs/{digest}");
        let begin = async |known, from| {
            let mut headers = HeaderMap::new();
            if from > 0 {
                let range = HeaderValue::try_from(format!("bytes={from}-"));
                headers.insert(header::RANGE, range.map_err(UpstreamError::bad)?);
            }
            let question = self.question(Method::GET, Ask::Blob, repository, &path, headers)?;
            self.within(self.terms.first_byte, async {
                let answer = self.ask(question).await?;
                let status = answer.response.status();
                if !status.is_success() && status != StatusCode::RANGE_NOT_SATISFIABLE {
                    return Err(self.refusal(Ask::Blob, answer).await);
                }
                let (head, body) = answer.response.into_parts();
                let (headers, stall) = (&head.headers, self.terms.stall);
                let whole = from == 0;
                BlobStream::begin(status, headers, body, offset, known, whole, stall).await
            })
            .await
        };
        let unmeasured = match begin(None, offset).await? {
            Beginning::Stream(stream) => return Ok(stream),
            Beginning::Unmeasured(unmeasured) => unmeasured,
            Beginning::EncodedPart => match begin(None, 0).await? {
                Beginning::Stream(stream) => return Ok(stream),
                Beginning::Unmeasured(unmeasured) => unmeasured,
                Beginning::EncodedPart => return Err(unasked()),
            },
        };
        // followers of the stream must know when it is complete, and not every upstream says a
        // blob's length
        let told = match unmeasured.is_plain() {
            true => self.length(repository, digest).await,
            false => None,
        };
        let known = match told {
            Some(length) => Measured { length, decoded: false },
            None => {
                let measured = unmeasured.measure(digest).await;
                measured.inspect_err(|error| self.note_failure(error))?
            }
        };
        match begin(Some(known), 0).await? {
            Beginning::Stream(stream) => Ok(stream),
            Beginning::Unmeasured(_) | Beginning::EncodedPart => Err(unasked()),
        }
    }

    /// The length of a blob from the answer to a HEAD, if that has it.
    async fn length(&self, repository: &str, digest: &Digest) -> Option<u64> {
        let path = format!("blobs/{digest}");
        let question =
            self.question(Method::HEAD, Ask::Blob, repository, &path, HeaderMap::new()).ok()?;
        let answer = self.within(self.terms.first_byte, self.ask(question)).await.ok()?;
        let headers = answer.response.headers();
        if coding(headers) != Coding::Identity {
            return None;
        }
        let length = text(headers, header::CONTENT_LENGTH)?.trim().parse().ok()?;
        (answer.response.status().is_success() && length > 0).then_some(length)
    }

    /// The bytes in `range` of a blob, which must not be longer than what a proof of it may ask for
    /// ([`rules::blobs::proof`]). They are not checked. Anything but bytes is an error or a
    /// [`Sample::Unanswered`], whatever its status: a status is no proof that a blob is there.
    pub async fn sample(
        &self,
        repository: &str,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Sample, UpstreamError> {
        // an empty range cannot be asked for (RFC 9110 section 14.1.1)
        let last = range.end.max(range.start + 1) - 1;
        let value = HeaderValue::try_from(format!("bytes={}-{last}", range.start));
        let value = value.map_err(UpstreamError::bad)?;
        let headers = HeaderMap::from_iter([(header::RANGE, value)]);
        let path = format!("blobs/{digest}");
        let question = self.question(Method::GET, Ask::Blob, repository, &path, headers)?;
        let answer = self.within(self.terms.question, self.ask(question)).await?;
        let status = answer.response.status();
        let length = range.end - range.start;
        if status.is_success() && coding(answer.response.headers()) != Coding::Identity {
            return Ok(Sample::Unanswered);
        }
        match status {
            StatusCode::PARTIAL_CONTENT => {
                if BlobStream::first_of(answer.response.headers()) != Some(range.start) {
                    let why = format!("bytes {}-{last} were answered with others", range.start);
                    return Err(UpstreamError::bad(why));
                }
            }
            status if status.is_success() => {
                let headers = answer.response.headers();
                let kind = headers.get(header::CONTENT_TYPE);
                if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html")) {
                    return Err(UpstreamError::bad("it answers with a page for people"));
                }
                let told =
                    text(headers, header::CONTENT_LENGTH).and_then(|t| t.trim().parse().ok());
                // an upstream without ranges, and a blob that was asked for whole
                if range.start != 0 || told != Some(length) {
                    return Ok(Sample::Unanswered);
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(Sample::Unanswered),
            _ => return Err(self.refusal(Ask::Blob, answer).await),
        }
        let limit = usize::try_from(length).unwrap_or(usize::MAX);
        let collect = Limited::new(answer.response.into_body(), limit).collect();
        match tokio::time::timeout(self.terms.stall, collect).await {
            Err(_) => Err(UpstreamError::unreachable("a range of a blob made no progress")),
            Ok(Ok(collected)) => Ok(Sample::Bytes(collected.to_bytes())),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                Err(UpstreamError::bad("a range of a blob is longer than what was asked for"))
            }
            Ok(Err(error)) => {
                Err(UpstreamError::unreachable(format!("a range of a blob broke off: {error}")))
            }
        }
    }

    /// Whether the repository gives the blob: all bytes are read, and must have its digest.
    pub async fn gives_blob(
        &self,
        repository: &str,
        digest: &Digest,
    ) -> Result<bool, UpstreamError> {
        let mut stream = match self.blob(repository, digest, 0).await {
            Err(UpstreamError::NotFound) => return Ok(false),
            stream => stream?,
        };
        let mut hasher = Hasher::new(digest.algorithm());
        while let Some(bytes) = stream.next().await? {
            hasher.update(&bytes);
        }
        let actual = hasher.finish();
        if actual != *digest {
            warn!(%digest, %actual, repository, "an upstream gives other bytes than the blob's");
        }
        Ok(actual == *digest)
    }
}

fn unasked() -> UpstreamError {
    UpstreamError::bad("a blob came without its length, or a part of it that was not asked for")
}
