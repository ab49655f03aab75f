//! Questions about blobs.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use rules::words::digest::{Digest, Hasher};

use super::Upstream;
use crate::UpstreamError;
use crate::blob::{Beginning, BlobStream};
use crate::budget::Ask;
use crate::headers::text;

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

    /// Whether the repository says that it has the blob, without fetching it. A redirect does not
    /// count, because some registries redirect every request to where the answer is. A "no" is no
    /// proof: an upstream that is itself a cache may not have the blob yet, and give it when asked
    /// for the bytes ([`Upstream::gives_blob`]). The deadline is that of a question about a
    /// manifest.
    pub async fn has_blob(&self, repository: &str, digest: &Digest) -> Result<bool, UpstreamError> {
        let question = self.question(
            Method::HEAD,
            Ask::Blob,
            repository,
            &format!("blobs/{digest}"),
            HeaderMap::new(),
        )?;
        let answer = self.within(self.terms.question, self.ask(question)).await?;
        let status = answer.response.status();
        let kind = answer.response.headers().get(header::CONTENT_TYPE);
        if status.is_success() && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
        {
            return Err(UpstreamError::bad("it answers with a page for people"));
        }
        let speechless = super::knows_no_head(status)
            // storage services sign a URL for one method
            || (!answer.own && status.is_client_error());
        let has = match status {
            _ if status.is_success() => Ok(()),
            _ if speechless => self.blob(repository, digest, 0).await.map(|_| ()),
            _ => Err(self.refusal(Ask::Blob, answer).await),
        };
        match has {
            Ok(()) => Ok(true),
            Err(UpstreamError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the repository gives the blob: all bytes are read, and must have its digest. Nothing
    /// less proves it.
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
        match hasher.finish() {
            actual if actual == *digest => Ok(true),
            actual => Err(UpstreamError::bad(format!(
                "{digest} was asked for, the bytes that came hash to {actual}"
            ))),
        }
    }
}
