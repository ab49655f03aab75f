//! Questions about tags and manifests.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use rules::words::digest::Digest;
use rules::words::manifest::{BadManifest, Manifest, media_type};
use rules::words::names::Tag;

use super::{FetchedManifest, Question, Resolved, Upstream, kind};
use crate::UpstreamError;
use crate::budget::Ask;
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
            return Err(self.refusal(Ask::Manifest, answer).await);
        }
        let headers = answer.response.headers();
        let length = text(headers, header::CONTENT_LENGTH)
            .and_then(|length| length.trim().parse::<u64>().ok());
        match (digest(headers), kind(headers), length.filter(|length| *length > 0)) {
            (Some(digest), Some(media_type), Some(size)) if status.is_success() => {
                expect(reference, &digest)?;
                Ok(Resolved { digest, media_type, size })
            }
            _ => {
                let fetched = self.manifest(repository, reference).await?;
                let size = fetched.bytes.len() as u64;
                Ok(Resolved { digest: fetched.digest, media_type: fetched.media_type, size })
            }
        }
    }

    /// Fetches the manifest that `reference`, a tag or a digest, names. If asked for by digest, its
    /// bytes have that digest. If asked for by tag, they have the digest that the upstream says, or
    /// the result has their sha256 if it says none. A manifest of a kind that the mesh cannot store
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
        if answer.response.status() != StatusCode::OK {
            return Err(self.refusal(Ask::Manifest, answer).await);
        }
        let (head, body) = answer.response.into_parts();
        if text(&head.headers, header::CONTENT_ENCODING)
            .is_some_and(|e| !e.trim().eq_ignore_ascii_case("identity"))
        {
            return Err(UpstreamError::bad(
                "a manifest came in an encoding that was not asked for",
            ));
        }
        let bytes = self.whole(body, "a manifest").await?;
        let said = reference.parse::<Digest>().ok().or_else(|| digest(&head.headers));
        let digest = match said {
            None => Digest::sha256(&bytes),
            Some(said) if Digest::of(said.algorithm(), &bytes) == said => said,
            Some(said) => {
                return Err(UpstreamError::bad(format!(
                    "the manifest's bytes do not hash to {said}"
                )));
            }
        };
        let media_type = keepable(kind(&head.headers), &bytes, said.is_some())?;
        Ok(FetchedManifest { media_type, digest, bytes })
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

fn expect(reference: &str, digest: &Digest) -> Result<(), UpstreamError> {
    match reference.parse::<Digest>() {
        Ok(asked) if asked != *digest => {
            Err(UpstreamError::bad(format!("{asked} was asked for, {digest} came")))
        }
        _ => Ok(()),
    }
}
