//! Questions about blobs.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use rules::words::digest::{Digest, Hasher};

use tracing::warn;

use super::Upstream;
use crate::UpstreamError;
use crate::blob::{Beginning, BlobStream};
use crate::budget::Ask;
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
        let mut headers = HeaderMap::new();
        if offset > 0 {
            headers.insert(
                header::RANGE,
                HeaderValue::try_from(format!("bytes={offset}-")).map_err(UpstreamError::bad)?,
            );
        }
        let question = || {
            self.question(
                Method::GET,
                Ask::Blob,
                repository,
                &format!("blobs/{digest}"),
                headers.clone(),
            )
        };
        let begin = async |length| {
            let question = question()?;
            self.within(self.terms.first_byte, async {
                let answer = self.ask(question).await?;
                match answer.response.status() {
                    status @ (StatusCode::OK
                    | StatusCode::PARTIAL_CONTENT
                    | StatusCode::RANGE_NOT_SATISFIABLE) => {
                        let (head, body) = answer.response.into_parts();
                        BlobStream::begin(
                            status,
                            &head.headers,
                            body,
                            offset,
                            length,
                            self.terms.stall,
                        )
                        .await
                    }
                    _ => Err(self.refusal(Ask::Blob, answer).await),
                }
            })
            .await
        };
        match begin(None).await? {
            Beginning::Stream(stream) => Ok(stream),
            // followers of the stream must know when it is complete, and not every upstream says a
            // blob's length
            Beginning::Unmeasured(unmeasured) => {
                let length = match self.length(repository, digest).await {
                    Some(length) => length,
                    None => unmeasured
                        .length(digest)
                        .await
                        .inspect_err(|error| self.note_failure(error))?,
                };
                match begin(Some(length)).await? {
                    Beginning::Stream(stream) => Ok(stream),
                    Beginning::Unmeasured(_) => {
                        Err(UpstreamError::bad("a blob came without its length"))
                    }
                }
            }
        }
    }

    /// The length of a blob from the answer to a HEAD, if that has it.
    async fn length(&self, repository: &str, digest: &Digest) -> Option<u64> {
        let path = format!("blobs/{digest}");
        let question =
            self.question(Method::HEAD, Ask::Blob, repository, &path, HeaderMap::new()).ok()?;
        let answer = self.within(self.terms.first_byte, self.ask(question)).await.ok()?;
        let length =
            text(answer.response.headers(), header::CONTENT_LENGTH)?.trim().parse().ok()?;
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
        match status {
            StatusCode::PARTIAL_CONTENT => {
                if BlobStream::first_of(answer.response.headers()) != Some(range.start) {
                    let why = format!("bytes {}-{last} were answered with others", range.start);
                    return Err(UpstreamError::bad(why));
                }
            }
            StatusCode::OK => {
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
