//! Questions about tags and manifests.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use rules::words::digest::Digest;
use rules::words::manifest::{BadManifest, Manifest, media_type};
use rules::words::names::Tag;

use tracing::warn;

use super::{FetchedManifest, Question, Resolved, Upstream, UpstreamAnswer, kind};
use crate::UpstreamError;
use crate::budget::Ask;
use crate::coding::{Coding, coding};
use crate::headers::text;

/// The media types of manifests that the mesh can store.
const MANIFESTS: [&str; 4] = [
    media_type::OCI_INDEX,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_LIST,
    media_type::DOCKER_MANIFEST,
];
const CONTENT_DIGEST: &str = "docker-content-digest";

impl Upstream {
    /// Resolves `reference`, a tag or a digest, to a manifest. Uses a HEAD, which Docker Hub does
    /// not count as a pull, or a GET if the answer to HEAD is not sufficient.
    pub async fn resolve(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<Resolved, UpstreamError> {
        let question = self.manifest_question(Method::HEAD, repository, reference)?;
        let answer = self.within(self.terms.question, self.ask(question)).await?;
        let status = answer.response.status();
        let speechless = super::knows_no_head(status)
            // storage services sign a URL for one method
            || (!answer.own && status.is_client_error());
        if !status.is_success() && !speechless {
            return Err(self.no_manifest(answer).await);
        }
        let headers = answer.response.headers();
        let length = text(headers, header::CONTENT_LENGTH)
            .and_then(|length| length.trim().parse::<u64>().ok())
            .filter(|length| *length > 0 && coding(headers) == Coding::Identity);
        let asked = reference.parse::<Digest>().ok();
        match (digest(headers), kind(headers), length) {
            (Some(digest), Some(media_type), Some(size))
                if status.is_success() && asked.is_none_or(|asked| asked == digest) =>
            {
                Ok(Resolved { digest, media_type, size })
            }
            _ => Ok(self.manifest(repository, reference).await?.resolved()),
        }
    }

    /// Fetches the manifest that `reference`, a tag or a digest, names. If asked for by digest, its
    /// bytes have that digest. If asked for by tag, they have the digest that the upstream says; if
    /// it says none, or one that the bytes do not have, the result has their sha256. A manifest of a kind that the mesh cannot store
    /// is [`UpstreamError::Unusable`], and an HTML page is [`UpstreamError::Bad`], whatever the
    /// status is.
    pub async fn manifest(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<FetchedManifest, UpstreamError> {
        self.fetch(repository, reference).await.inspect_err(|error| self.note_failure(error))
    }

    async fn fetch(
        &self,
        repository: &str,
        reference: &str,
    ) -> Result<FetchedManifest, UpstreamError> {
        let question = self.manifest_question(Method::GET, repository, reference)?;
        let answer = self.within(self.terms.question, self.ask(question)).await?;
        // any success: the bytes decide, and a gateway may answer 203
        if !answer.response.status().is_success() {
            return Err(self.no_manifest(answer).await);
        }
        let (head, body) = answer.response.into_parts();
        let came = self.whole(body, "a manifest").await?;
        let asked = reference.parse::<Digest>().ok();
        let said = asked.or_else(|| digest(&head.headers));
        let has = |bytes: &Bytes, said: Digest| Digest::of(said.algorithm(), bytes) == said;
        // what has the digest needs no decoding, whatever it is said to be encoded in
        let bytes = match said {
            Some(said) if has(&came, said) => came,
            _ => self.decoded(&head.headers, &came)?.unwrap_or(came),
        };
        let proven = said.is_some_and(|said| has(&bytes, said));
        if let Some(asked) = asked
            && !proven
        {
            let why = format!("the manifest's bytes do not hash to {asked}");
            return Err(UpstreamError::bad(why));
        }
        let actual = said.filter(|_| proven).unwrap_or_else(|| Digest::sha256(&bytes));
        let media_type = keepable(kind(&head.headers), &bytes, proven)?;
        if let Some(said) = said
            && !proven
        {
            let registry = self.endpoint.authority();
            warn!(registry, repository, reference, %said, %actual, "the upstream says that a tag is another manifest than the one that it gives");
        }
        let digest = actual;
        Ok(FetchedManifest { media_type, digest, bytes })
    }

    /// The error for an answer without a manifest. A status that says that the question itself is
    /// refused does not pass by waiting.
    async fn no_manifest(&self, answer: UpstreamAnswer) -> UpstreamError {
        let (status, own) = (answer.response.status(), answer.own);
        // too slow, at the wrong server, too early (RFC 9110 section 15.5, RFC 8470)
        let passes = matches!(status.as_u16(), 408 | 421 | 425);
        match self.refusal(Ask::Manifest, answer).await {
            UpstreamError::Bad(why) if own && status.is_client_error() && !passes => {
                UpstreamError::Unusable(why)
            }
            error => error,
        }
    }

    fn manifest_question(
        &self,
        method: Method,
        repository: &str,
        reference: &str,
    ) -> Result<Question, UpstreamError> {
        if reference.parse::<Digest>().is_err() {
            reference.parse::<Tag>().map_err(UpstreamError::bad)?;
        }
        // one line, because a few registries read only the first header
        let accept = HeaderValue::try_from(MANIFESTS.join(", ")).map_err(UpstreamError::bad)?;
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept)]);
        self.question(method, Ask::Manifest, repository, &format!("manifests/{reference}"), headers)
    }
}

fn digest(headers: &HeaderMap) -> Option<Digest> {
    text(headers, CONTENT_DIGEST)?.trim().parse().ok()
}

/// The media type of a manifest that came as `said`. If the header has none, the manifest's own
/// type is used. Fails if the mesh cannot store this kind. `proven` bytes have the digest that was
/// asked for, or that the upstream has named.
fn keepable(said: Option<String>, bytes: &[u8], proven: bool) -> Result<String, UpstreamError> {
    let what = said.clone().unwrap_or_default();
    let manifest = Manifest::read_served(&what, bytes).map_err(|error| {
        // for example a gateway's page with status 200: the registry behind it may be well again
        // soon
        if what == "text/html" || (matches!(error, BadManifest::Json(_)) && !proven) {
            return UpstreamError::bad(error);
        }
        let came = said.as_deref().unwrap_or("without a media type");
        UpstreamError::Unusable(format!("a manifest came as {came}: {error}").into())
    })?;
    Ok(said.unwrap_or(manifest.media_type))
}
