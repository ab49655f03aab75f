//! A registry as a client asks it: logins, pauses and redirects are the same for every question.
//! `manifests`, `lists` and `blobs` have the questions themselves.
//!
//! Every question has a deadline to the first byte, including logins and redirects, and every body
//! has a maximum time between two bytes. A question has at most two rounds (the second with a new
//! token) of at most six requests each (five redirects).

mod blobs;
mod lists;
mod manifests;
mod ping;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ground::clock;
use ground::supervise::Tasks;
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use parking_lot::Mutex;
use rules::words::digest::Digest;
use rules::words::moment::Moment;
use serde_json::Value;
use tracing::{info, warn};

use crate::address::{AddressRule, Endpoint};
use crate::budget::{Ask, Gate};
use crate::challenge;
use crate::coding;
use crate::connect::{Connections, Trust};
use crate::headers::{USER_AGENT, text, wait_of};
use crate::login::{Credentials, Login, Pass};
use crate::{UpstreamError, redirect};

pub use blobs::Sample;

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
    pub(crate) login: Login,
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

impl FetchedManifest {
    /// What it is, without its bytes.
    pub fn resolved(&self) -> Resolved {
        let size = self.bytes.len() as u64;
        Resolved { digest: self.digest, media_type: self.media_type.clone(), size }
    }
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

    /// The whole of a body, which is `what`: not longer than a manifest may be.
    async fn whole(&self, body: Incoming, what: &str) -> Result<Bytes, UpstreamError> {
        let limit = usize::try_from(self.terms.max_manifest).unwrap_or(usize::MAX);
        let collect = Limited::new(body, limit).collect();
        let collected = tokio::time::timeout(self.terms.stall, collect)
            .await
            .map_err(|_| UpstreamError::unreachable(format!("{what} made no progress")))?;
        match collected {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                let why = format!("{what} of more than {limit} bytes came (uploads.max_manifest)");
                Err(UpstreamError::Unusable(why.into()))
            }
            Err(error) => Err(UpstreamError::unreachable(format!("{what} broke off: {error}"))),
        }
    }

    /// What [`Upstream::whole`] gave, without the encoding that `headers` name; `None` if they name
    /// none that can be read.
    fn decoded(&self, headers: &HeaderMap, came: &Bytes) -> Result<Option<Bytes>, UpstreamError> {
        let limit = usize::try_from(self.terms.max_manifest).unwrap_or(usize::MAX);
        coding::decoded(headers, came, limit)
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
    pub(crate) fn pause(
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

/// Whether an answer to a HEAD says nothing of what a GET would get: 405, 501, or what some gateways
/// say to every HEAD.
fn knows_no_head(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 403 | 405 | 406 | 411 | 415 | 422 | 501)
}

/// The requests that a limit heard for `ask` stops.
fn affected(ask: Option<Ask>) -> &'static str {
    if ask == Some(Ask::Manifest) { "manifests" } else { "everything" }
}

/// The media type without parameters.
fn kind(headers: &HeaderMap) -> Option<String> {
    let value = text(headers, header::CONTENT_TYPE)?.split(';').next()?.trim();
    (!value.is_empty()).then(|| value.to_ascii_lowercase())
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
