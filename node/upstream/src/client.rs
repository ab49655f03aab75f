//! The questions to an upstream: the digest of a tag, a manifest, a blob.
//!
//! Every question has a deadline to the first byte, including logins and redirects, and every body
//! has a maximum time between two bytes. A question has at most two rounds (the second with a new
//! token) of at most six requests each (five redirects).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ground::clock;
use ground::supervise::Tasks;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use parking_lot::Mutex;
use rules::wire::{ReferrersPage, TagsPage};
use rules::words::digest::{Digest, Hasher};
use rules::words::manifest::{BadManifest, Manifest, media_type};
use rules::words::moment::Moment;
use rules::words::names::Tag;
use serde_json::Value;
use tracing::{info, warn};

use super::address::{AddressRule, Endpoint};
use super::blob::{Beginning, BlobStream};
use super::budget::{Ask, Gate};
use super::challenge;
use super::connect::{Connections, Trust};
use super::headers::{USER_AGENT, text, wait_of};
use super::login::{Credentials, Login, Pass};
use super::{UpstreamError, redirect};

/// The media types of manifests that the mesh can store.
const MANIFESTS: [&str; 4] = [
    media_type::OCI_INDEX,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_LIST,
    media_type::DOCKER_MANIFEST,
];
const CONTENT_DIGEST: &str = "docker-content-digest";
const FILTERS_APPLIED: &str = "oci-filters-applied";
/// The maximum number of redirects that are followed.
const REDIRECTS: usize = 5;
/// How much of an unwanted answer is read, for its message and to keep the connection, and for how
/// long.
const UNWANTED: usize = 8 << 10;
const UNWANTED_WAIT: Duration = Duration::from_millis(250);

/// Limits on the time and memory that an upstream may use.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamTerms {
    /// The maximum time until an answer begins.
    pub first_byte: Duration,
    /// The maximum time between two bytes of a body.
    pub stall: Duration,
    /// The maximum time until a question about a manifest is answered, or a login. It may be longer
    /// than a client waits: the question then continues in the background.
    pub question: Duration,
    /// The maximum size of a manifest in bytes.
    pub max_manifest: u64,
}

/// The settings of an upstream.
pub struct UpstreamSettings {
    /// Its address.
    pub endpoint: Endpoint,
    /// The credentials; `None` for anonymous requests.
    pub credentials: Option<Credentials>,
    /// The certificates that are trusted.
    pub trust: Trust,
    /// The addresses that may be connected to.
    pub rule: AddressRule,
    /// Limits on time and memory.
    pub terms: UpstreamTerms,
    /// Called when the upstream asks for a pause.
    pub on_limit: OnLimit,
}

/// Called with a limit: whether it is for everything or for manifests only, and how long it lasts.
pub type OnLimit = Arc<dyn Fn(bool, Duration) + Send + Sync>;

/// A client of one registry. It keeps connections, tokens and pauses; share one per upstream.
pub struct Upstream {
    endpoint: Endpoint,
    connections: Connections,
    pub(super) login: Login,
    gate: Mutex<Gate>,
    failed: Mutex<Option<(String, Moment)>>,
    terms: UpstreamTerms,
    on_limit: OnLimit,
}

/// The state of an upstream, as far as this node knows.
#[derive(Clone, Debug, Default)]
pub struct UpstreamStanding {
    /// How much longer nothing is asked of it, because it wants a pause; zero if there is none.
    pub paused: Duration,
    /// The last failure, and how long ago it was. A missing object is not a failure, and neither is
    /// a question that was not asked because of a pause.
    pub failed: Option<(String, Duration)>,
}

/// What a tag or digest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest's digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
}

/// A manifest, byte for byte as the upstream has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    /// Its media type.
    pub media_type: String,
    /// Its digest, which was checked against the bytes.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A question that is being asked.
struct Question {
    method: Method,
    ask: Ask,
    repository: String,
    url: Uri,
    headers: HeaderMap,
}

struct UpstreamAnswer {
    response: Response<Incoming>,
    /// Whether the upstream itself answered, and not a host that it redirected to.
    own: bool,
}

impl Upstream {
    /// A client that has not asked anything yet. Its connections and logins are tasks of `tasks`,
    /// and end with them.
    pub fn new(settings: UpstreamSettings, tasks: Tasks) -> Self {
        let UpstreamSettings { endpoint, credentials, trust, rule, terms, on_limit } = settings;
        let connections =
            Connections::new(endpoint.authority(), rule, trust, terms.first_byte, tasks.clone());
        let login = Login::new(
            connections.clone(),
            credentials,
            endpoint.is_secure(),
            terms.question,
            tasks,
        );
        Upstream {
            endpoint,
            connections,
            login,
            gate: Mutex::default(),
            failed: Mutex::default(),
            terms,
            on_limit,
        }
    }

    /// The upstream's address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The upstream's state.
    pub fn standing(&self) -> UpstreamStanding {
        let now = clock::now();
        let failed = self.failed.lock().clone().map(|(error, at)| (error, now.since(at)));
        UpstreamStanding { paused: self.gate.lock().closed_for(now), failed }
    }

    /// Records a failure for [`Upstream::standing`].
    pub fn note_failure(&self, error: &UpstreamError) {
        // a limit was recorded when it was received; a question that is refused because of it was
        // not asked
        if !matches!(error, UpstreamError::NotFound | UpstreamError::Limited { .. }) {
            *self.failed.lock() = Some((error.to_string(), clock::now()));
        }
    }

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
        let speechless = matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED)
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
        let bytes = self.whole(body).await?;
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
        let media_type = keepable(kind(&head.headers), &bytes)?;
        Ok(FetchedManifest { media_type, digest, bytes })
    }

    /// The upstream's index of the manifests that refer to `subject`; `query` is the client's. An
    /// upstream without this API gives [`UpstreamError::NotFound`] or [`UpstreamError::Bad`].
    pub async fn referrers(
        &self,
        repository: &str,
        subject: &Digest,
        query: &str,
    ) -> Result<ReferrersPage, UpstreamError> {
        let headers = HeaderMap::from_iter([(
            header::ACCEPT,
            HeaderValue::from_static(media_type::OCI_INDEX),
        )]);
        let joint = if query.is_empty() { "" } else { "?" };
        let path = format!("referrers/{subject}{joint}{query}");
        let question = self.question(Method::GET, Ask::Manifest, repository, &path, headers)?;
        let answer = self.within(self.terms.first_byte, self.ask(question)).await?;
        if answer.response.status() != StatusCode::OK {
            return Err(self.refusal(Ask::Manifest, answer).await);
        }
        let (head, body) = answer.response.into_parts();
        let bytes = self.whole(body).await?;
        Manifest::parse(&kind(&head.headers).unwrap_or_default(), &bytes)
            .map_err(UpstreamError::bad)
            .and_then(|index| match index.media_type.as_str() {
                media_type::OCI_INDEX => Ok(()),
                other => Err(UpstreamError::bad(format!("referrers came as {other}"))),
            })?;
        let filtered = text(&head.headers, FILTERS_APPLIED).map(str::to_owned);
        Ok(ReferrersPage { index: bytes.to_vec(), filtered, next: next_page(&head.headers) })
    }

    /// A page of the repository's tags; `query` is the client's. Names that are no tags are left
    /// out: nobody could ask for them. [`UpstreamError::Bad`] if what comes is no list of tags.
    pub async fn tags(&self, repository: &str, query: &str) -> Result<TagsPage, UpstreamError> {
        let accept = (header::ACCEPT, HeaderValue::from_static("application/json"));
        let joint = if query.is_empty() { "" } else { "?" };
        let path = format!("tags/list{joint}{query}");
        let headers = HeaderMap::from_iter([accept]);
        let question = self.question(Method::GET, Ask::Manifest, repository, &path, headers)?;
        let answer = self.within(self.terms.question, self.ask(question)).await?;
        if answer.response.status() != StatusCode::OK {
            return Err(self.refusal(Ask::Manifest, answer).await);
        }
        let (head, body) = answer.response.into_parts();
        let read = self.whole(body).await.and_then(|bytes| read_tags(&bytes));
        let tags = read.inspect_err(|error| self.note_failure(error))?;
        Ok(TagsPage { tags, next: next_page(&head.headers) })
    }

    async fn whole(&self, body: Incoming) -> Result<Bytes, UpstreamError> {
        let limit = usize::try_from(self.terms.max_manifest).unwrap_or(usize::MAX);
        let collect = Limited::new(body, limit).collect();
        let collected = tokio::time::timeout(self.terms.stall, collect)
            .await
            .map_err(|_| UpstreamError::unreachable("a manifest made no progress"))?;
        match collected {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                let why =
                    format!("a manifest of more than {limit} bytes came (uploads.max_manifest)");
                Err(UpstreamError::Unusable(why.into()))
            }
            Err(error) => Err(UpstreamError::unreachable(format!("a manifest broke off: {error}"))),
        }
    }

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
        let speechless = matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED)
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

    async fn within<T>(
        &self,
        time: Duration,
        work: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let late = |_| {
            UpstreamError::unreachable(format!(
                "{} did not answer in time",
                self.endpoint.authority()
            ))
        };
        let result = tokio::time::timeout(time, work).await.map_err(late).and_then(|result| result);
        result.inspect_err(|error| self.note_failure(error))
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

    fn question(
        &self,
        method: Method,
        ask: Ask,
        repository: &str,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Question, UpstreamError> {
        let repository = self.endpoint.repository(repository).map_err(UpstreamError::bad)?;
        let url = self.endpoint.url(&format!("{repository}/{path}")).map_err(UpstreamError::bad)?;
        Ok(Question { method, ask, repository, url, headers })
    }

    /// Asks, and asks again with a new token or password if the present one is refused.
    async fn ask(&self, question: Question) -> Result<UpstreamAnswer, UpstreamError> {
        self.gate
            .lock()
            .admit(clock::now(), question.ask)
            .map_err(|until| UpstreamError::Limited { until })?;
        let pass = self.login.pass(&question.repository).await.map_err(|e| self.heed(e))?;
        let answer = self.follow(&question, pass.as_ref()).await?;
        let refused = match answer.response.status() {
            StatusCode::UNAUTHORIZED => answer.own,
            StatusCode::FORBIDDEN => answer.own && self.login.is_doubtful(pass.as_ref()),
            _ => false,
        };
        if !refused {
            return Ok(answer);
        }
        let challenges = answer.response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges =
            challenge::parse(challenges.iter().filter_map(|value| value.to_str().ok()));
        drop(read_unwanted(answer.response.into_body()).await);
        let renewed = self
            .login
            .renew(&question.repository, pass.as_ref(), challenges)
            .await
            .map_err(|e| self.heed(e))?;
        self.follow(&question, Some(&renewed)).await
    }

    /// Treats a limit on logins as a limit on everything.
    fn heed(&self, error: UpstreamError) -> UpstreamError {
        if let UpstreamError::Limited { until } = error {
            self.close(None, Some(until.since(clock::now())));
        }
        error
    }

    /// The upstream asked for a pause. Records it here, and reports it to the other nodes.
    fn close(&self, ask: Option<Ask>, wait: Option<Duration>) -> Moment {
        let now = clock::now();
        let (until, news) = self.pause(now, ask, wait);
        let wait = until.since(now);
        if news {
            let (registry, seconds, what) =
                (self.endpoint.authority(), wait.as_secs(), affected(ask));
            *self.failed.lock() =
                Some((format!("it limits requests: {what} for {seconds} s"), now));
            warn!(
                registry,
                seconds, what, "the upstream limits requests: it is left alone by the whole mesh"
            );
        }
        (self.on_limit)(ask != Some(Ask::Manifest), wait);
        until
    }

    /// Another node has heard that the upstream wants a pause. The whole mesh shares what it is
    /// allowed.
    pub fn spare(&self, everything: bool, wait: Duration) {
        let ask = if everything { None } else { Some(Ask::Manifest) };
        if self.pause(clock::now(), ask, Some(wait)).1 {
            let (registry, seconds, what) =
                (self.endpoint.authority(), wait.as_secs(), affected(ask));
            info!(
                registry,
                seconds, what, "another node has heard that the upstream limits requests"
            );
        }
    }

    /// When `ask` may be asked again, and whether it could be asked until now.
    pub(super) fn pause(
        &self,
        now: Moment,
        ask: Option<Ask>,
        wait: Option<Duration>,
    ) -> (Moment, bool) {
        let mut gate = self.gate.lock();
        // a pause for blobs is a pause for everything
        let open = gate.admit(now, ask.unwrap_or(Ask::Blob)).is_ok();
        (gate.handle_limit(now, ask, wait), open)
    }

    /// Sends `question`, and follows redirects. `pass` is sent to the upstream only, and not even
    /// there after another host has determined the URL.
    async fn follow(
        &self,
        question: &Question,
        pass: Option<&Pass>,
    ) -> Result<UpstreamAnswer, UpstreamError> {
        let mut url = question.url.clone();
        let mut pass = pass;
        for _ in 0..=REDIRECTS {
            let request = question.request(&url, pass)?;
            let response = self.connections.send(request).await?;
            let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !moved {
                let own = self.endpoint.serves(&url);
                if own && response.status().is_success() {
                    self.gate.lock().handle_answer(question.ask);
                }
                return Ok(UpstreamAnswer { response, own });
            }
            let location =
                response.headers().get(header::LOCATION).map(|value| value.as_bytes().to_vec());
            drop(read_unwanted(response.into_body()).await);
            let next = redirect::follow(&url, &location.unwrap_or_default())
                .ok_or_else(|| UpstreamError::bad("it redirects to something that is not a URL"))?;
            if url.scheme() == Some(&Scheme::HTTPS) && next.scheme() != Some(&Scheme::HTTPS) {
                return Err(UpstreamError::Refused("it redirects from https to http".into()));
            }
            if !self.endpoint.serves(&next) {
                pass = None;
            }
            url = next;
        }
        Err(UpstreamError::bad(format!("it redirects more than {REDIRECTS} times")))
    }

    /// The error for an unexpected answer.
    async fn refusal(&self, ask: Ask, answer: UpstreamAnswer) -> UpstreamError {
        let UpstreamAnswer { response, own } = answer;
        let (head, body) = response.into_parts();
        let (status, wait) = (head.status, wait_of(&head.headers));
        let said = message(&read_unwanted(body).await);
        let said = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
        let limit = |ask| {
            let now = clock::now();
            // a host that was redirected to is not the upstream, so its limit causes no pause
            let until = if own {
                self.close(ask, wait)
            } else {
                Gate::default().handle_limit(now, ask, wait)
            };
            UpstreamError::Limited { until }
        };
        let refusal = match status.as_u16() {
            404 | 410 => UpstreamError::NotFound,
            401 | 402 | 403 | 451 if own => UpstreamError::Denied(said.into()),
            429 => limit(Some(ask)),
            503 if wait.is_some() => limit(None),
            500.. => UpstreamError::unreachable(said),
            // a signed URL that is refused has most likely expired; another try gets a new URL
            _ if !own => {
                UpstreamError::unreachable(format!("the host it redirects to answered {said}"))
            }
            _ => UpstreamError::bad(format!("it answered {said}")),
        };
        self.note_failure(&refusal);
        refusal
    }
}

impl Question {
    fn request(
        &self,
        url: &Uri,
        pass: Option<&Pass>,
    ) -> Result<Request<Full<Bytes>>, UpstreamError> {
        let mut request = Request::builder()
            .method(&self.method)
            .uri(url)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT_ENCODING, "identity")
            .body(Full::default())
            .map_err(UpstreamError::bad)?;
        request.headers_mut().extend(self.headers.clone());
        if let Some(pass) = pass {
            request.headers_mut().insert(header::AUTHORIZATION, pass.header.clone());
        }
        Ok(request)
    }
}

/// The requests that a limit heard for `ask` stops.
fn affected(ask: Option<Ask>) -> &'static str {
    if ask == Some(Ask::Manifest) { "manifests" } else { "everything" }
}

fn digest(headers: &HeaderMap) -> Option<Digest> {
    text(headers, CONTENT_DIGEST)?.trim().parse().ok()
}

/// The media type of a manifest that came as `said`. If the header has none, the manifest's own
/// type is used. Fails if the mesh cannot store this kind.
fn keepable(said: Option<String>, bytes: &[u8]) -> Result<String, UpstreamError> {
    let what = said.clone().unwrap_or_default();
    let manifest = Manifest::read_served(&what, bytes).map_err(|error| {
        // for example a gateway's page with status 200: the registry behind it may be well again
        // soon
        if what == "text/html" || matches!(error, BadManifest::Json(_)) {
            return UpstreamError::bad(error);
        }
        let came = said.as_deref().unwrap_or("without a media type");
        UpstreamError::Unusable(format!("a manifest came as {came}: {error}").into())
    })?;
    Ok(said.unwrap_or(manifest.media_type))
}

/// The media type without parameters.
fn kind(headers: &HeaderMap) -> Option<String> {
    let value = text(headers, header::CONTENT_TYPE)?.split(';').next()?.trim();
    (!value.is_empty()).then(|| value.to_ascii_lowercase())
}

/// The tags of a list (distribution-spec: `tags`). Registries in Go write `null` for none.
fn read_tags(bytes: &[u8]) -> Result<Vec<Tag>, UpstreamError> {
    let mut list: Value = serde_json::from_slice(bytes).map_err(UpstreamError::bad)?;
    match list.get_mut("tags").map(Value::take) {
        Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tags)) => {
            Ok(tags.iter().filter_map(|tag| tag.as_str()?.parse().ok()).collect())
        }
        _ => Err(UpstreamError::bad("what came is no list of tags")),
    }
}

/// The query of the page that `Link` names as the next. Its path is of no interest: it is another
/// page of the same list.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let (link, relation) = text(headers, header::LINK)?.split_once('>')?;
    let (_, query) = link.split_once('?')?;
    relation.contains("next").then(|| query.to_owned())
}

fn expect(reference: &str, digest: &Digest) -> Result<(), UpstreamError> {
    match reference.parse::<Digest>() {
        Ok(asked) if asked != *digest => {
            Err(UpstreamError::bad(format!("{asked} was asked for, {digest} came")))
        }
        _ => Ok(()),
    }
}

/// Reads the body of an unwanted answer, if it is short and arrives at once, so that the connection
/// can be used again.
async fn read_unwanted(body: Incoming) -> Bytes {
    if body.is_end_stream() || body.size_hint().lower() > UNWANTED as u64 {
        return Bytes::new();
    }
    match tokio::time::timeout(UNWANTED_WAIT, Limited::new(body, UNWANTED).collect()).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        _ => Bytes::new(),
    }
}

/// The message in a registry's error, shortened for a log line.
fn message(body: &[u8]) -> String {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return String::new() };
    let error = &body["errors"][0];
    let text = error["message"].as_str().or(error["code"].as_str()).unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
