//! The credentials that this node sends to an upstream: none until it is challenged, then a
//! password or a token. A token, or a password for an access key, is fetched by one request for all
//! that wait for it, used until it expires, and replaced once if the upstream refuses it before
//! that. So many pulls need one login: upstreams limit logins just as they limit pulls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::Shared;
use ground::clock;
use ground::supervise::Tasks;
use http::uri::Scheme;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use parking_lot::Mutex;
use rules::words::moment::Moment;
use rules::words::secret::Secret;
use serde_json::Value;
use tokio::sync::oneshot;

use super::challenge::Challenge;
use super::coding;
use super::connect::Connections;
use super::ecr::AccessKey;
use super::headers::{USER_AGENT, wait_of};
use super::password::{PAUSE, Password};
use super::{UpstreamError, redirect};

/// The maximum size of a token service's answer in bytes. Tokens that contain many groups are long.
const ANSWER: usize = 256 << 10;
/// The lifetime in seconds of a token that does not state one, and the minimum lifetime that is
/// assumed (the distribution project's token protocol).
const SHORTEST: u64 = 60;
/// The maximum time in seconds that a token is used.
const LONGEST: u64 = 3600;
/// How long a refused login is not tried again.
const REFUSED: Duration = Duration::from_secs(10);
/// The approximate maximum number of tokens that are kept.
const TOKENS: usize = 4096;
/// If a password for an access key is refused within this time, the reason is not its age.
const FRESH: Duration = Duration::from_secs(300);
/// The slot of a password, which is valid for the whole upstream. No scope is an empty string.
const EVERYTHING: &str = "";

/// The credentials for an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Sent as they are when the upstream or its token service asks.
    Password(Password),
    /// Exchanged for a password, which is sent.
    AccessKey(AccessKey),
    /// A token that somebody else has fetched. It is sent to the registry with each request, and there
    /// is no other one.
    Token(Secret),
}

/// The credentials in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    /// The `Authorization` header.
    pub(super) header: HeaderValue,
}

impl Pass {
    fn new(scheme: &str, value: &str) -> Result<Self, UpstreamError> {
        let header = HeaderValue::try_from(format!("{scheme} {value}"));
        let mut header =
            header.map_err(|_| UpstreamError::bad("the token cannot be sent in a header"))?;
        header.set_sensitive(true);
        Ok(Pass { header })
    }

    fn basic(Password { user, password }: &Password) -> Result<Self, UpstreamError> {
        Pass::new("Basic", &BASE64_STANDARD.encode(format!("{user}:{}", password.expose())))
    }
}

/// The login of one upstream.
#[derive(Clone)]
pub(super) struct Login {
    inner: Arc<Inner>,
}

struct Inner {
    connections: Connections,
    credentials: Option<Credentials>,
    /// Whether the upstream uses https, so that its token service must, too.
    secure: bool,
    deadline: Duration,
    tasks: Tasks,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    way: LoginWay,
    slots: HashMap<String, Slot>,
}

/// How the upstream authenticates clients, according to its last challenge.
#[derive(Clone, Default)]
enum LoginWay {
    #[default]
    Open,
    Basic,
    Bearer(Service),
}

#[derive(Clone)]
struct Service {
    realm: Uri,
    name: Option<String>,
}

impl Service {
    /// The URL to ask for a token with `scope`.
    fn url(&self, scope: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(name) = &self.name {
            query.append_pair("service", name);
        }
        let joint = if self.realm.query().is_some() { '&' } else { '?' };
        if !scope.is_empty() {
            query.append_pair("scope", scope);
        }
        format!("{}{joint}{}", self.realm, query.finish())
    }
}

/// The credentials to fetch before a request can be made.
enum Errand {
    Token { service: Service, scope: String },
    Password(AccessKey),
}

/// Fetched credentials, by the scope of the request that they are for.
enum Slot {
    Ready { pass: Pass, asked: Moment, until: Moment },
    Refused { error: UpstreamError, until: Moment },
    Flying(Flying),
}

type Flying = Shared<oneshot::Receiver<Result<Pass, UpstreamError>>>;

impl Login {
    pub(super) fn new(
        connections: Connections,
        credentials: Option<Credentials>,
        secure: bool,
        deadline: Duration,
        tasks: Tasks,
    ) -> Self {
        let memory = Mutex::default();
        Login {
            inner: Arc::new(Inner { connections, credentials, secure, deadline, tasks, memory }),
        }
    }

    /// The credentials for a request for `repository`, as far as it is known what the upstream
    /// wants.
    pub(super) async fn pass(&self, repository: &str) -> Result<Option<Pass>, UpstreamError> {
        // known without a challenge
        if let Some(Credentials::AccessKey(key)) = &self.inner.credentials {
            return self.exchanged(key, None).await.map(Some);
        }
        if let Some(Credentials::Token(token)) = &self.inner.credentials {
            return Pass::new("Bearer", token.expose()).map(Some);
        }
        let way = self.inner.memory.lock().way.clone();
        match (way, &self.inner.credentials) {
            (LoginWay::Bearer(service), _) => {
                let scope = pull(repository);
                self.fetched(scope.clone(), Errand::Token { service, scope }, None).await.map(Some)
            }
            (LoginWay::Basic, Some(Credentials::Password(password))) => {
                Pass::basic(password).map(Some)
            }
            (LoginWay::Open | LoginWay::Basic, _) => Ok(None),
        }
    }

    /// Whether a 403 to `used` may mean that it has expired, as at ECR, and not that it grants too
    /// little. This is not assumed of a fresh one: otherwise each forbidden request would cost an
    /// exchange.
    pub(super) fn is_doubtful(&self, used: Option<&Pass>) -> bool {
        let Some(Credentials::AccessKey(_)) = &self.inner.credentials else { return false };
        match self.inner.memory.lock().slots.get(EVERYTHING) {
            Some(Slot::Ready { pass, asked, .. }) if used == Some(pass) => {
                clock::now().since(*asked) >= FRESH
            }
            // it was replaced meanwhile, or is being replaced
            _ => true,
        }
    }

    /// The credentials to send instead of `used`, which was answered with 401 and `challenges`, or
    /// with 403 if it [was doubtful](Login::is_doubtful).
    pub(super) async fn renew(
        &self,
        repository: &str,
        used: Option<&Pass>,
        challenges: Vec<Challenge>,
    ) -> Result<Pass, UpstreamError> {
        let denied = |why: &str| UpstreamError::Denied(why.into());
        // such a registry never names a token service, so a server that does is not sent the
        // password
        let password = match &self.inner.credentials {
            Some(Credentials::AccessKey(key)) => return self.exchanged(key, used).await,
            Some(Credentials::Token(_)) => return Err(denied("it does not take the token")),
            Some(Credentials::Password(password)) => Some(password),
            None => None,
        };
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        if let Some((realm, name, scope)) = bearer {
            let service = Service { realm: self.realm(realm)?, name: name.clone() };
            self.inner.memory.lock().way = LoginWay::Bearer(service.clone());
            let own = pull(repository);
            let scope = scope.clone().unwrap_or_else(|| own.clone());
            return self.fetched(own, Errand::Token { service, scope }, used).await;
        }
        let basic = challenges.contains(&Challenge::Basic);
        // A token may become invalid before it expires. Not every registry, or proxy in front of
        // it, then repeats where to get the next one.
        let known = self.inner.memory.lock().way.clone();
        if let LoginWay::Bearer(service) = known
            && !(basic && password.is_some())
        {
            let scope = pull(repository);
            return self.fetched(scope.clone(), Errand::Token { service, scope }, used).await;
        }
        if !basic {
            return Err(denied("it wants a kind of login that this client does not support"));
        }
        let pass =
            Pass::basic(password.ok_or_else(|| denied("it wants a user name and a password"))?)?;
        if used == Some(&pass) {
            return Err(denied("the user name or the password is not right"));
        }
        self.inner.memory.lock().way = LoginWay::Basic;
        Ok(pass)
    }

    fn realm(&self, realm: &str) -> Result<Uri, UpstreamError> {
        let unreadable = || UpstreamError::bad("its token service's URL cannot be read");
        // the same rules as for a redirect; an absolute URL does not depend on the base
        let url = realm.contains("://").then(|| {
            redirect::follow(&Uri::from_static("https://none.invalid/"), realm.as_bytes())
        });
        let url = url.flatten().ok_or_else(unreadable)?;
        if self.inner.secure && url.scheme() != Some(&Scheme::HTTPS) {
            return Err(UpstreamError::Refused(
                "its token service uses http, although the registry uses https".into(),
            ));
        }
        Ok(url)
    }

    async fn exchanged(&self, key: &AccessKey, used: Option<&Pass>) -> Result<Pass, UpstreamError> {
        self.fetched(EVERYTHING.to_owned(), Errand::Password(key.clone()), used).await
    }

    /// Credentials for `key` other than `used`: those at hand, those that are being fetched, or
    /// those that `errand` fetches now.
    async fn fetched(
        &self,
        key: String,
        errand: Errand,
        used: Option<&Pass>,
    ) -> Result<Pass, UpstreamError> {
        let flying = {
            let mut memory = self.inner.memory.lock();
            let now = clock::now();
            match memory.slots.get(&key) {
                Some(Slot::Ready { pass, until, .. }) if now < *until && used != Some(pass) => {
                    return Ok(pass.clone());
                }
                Some(Slot::Refused { error, until }) if now < *until => return Err(error.clone()),
                Some(Slot::Flying(flying)) => flying.clone(),
                _ => {
                    memory.make_room(now);
                    let (sender, receiver) = oneshot::channel();
                    let flying = receiver.shared();
                    memory.slots.insert(key.clone(), Slot::Flying(flying.clone()));
                    let task = self.inner.clone().fly(errand, key.clone(), sender);
                    self.inner.tasks.spawn("upstream.login", task);
                    flying
                }
            }
        };
        flying.await.unwrap_or_else(|_| {
            // the task was dropped (the node is stopping) or panicked, and must not be waited for
            // again
            self.inner.memory.lock().slots.remove(&key);
            Err(UpstreamError::unreachable("the login was broken off"))
        })
    }
}

/// The scope for pulls of a repository; none for a question about the registry itself.
fn pull(repository: &str) -> String {
    match repository {
        "" => EVERYTHING.to_owned(),
        repository => format!("repository:{repository}:pull"),
    }
}

impl Memory {
    fn make_room(&mut self, now: Moment) {
        if self.slots.len() < TOKENS {
            return;
        }
        self.slots.retain(|_, slot| match slot {
            Slot::Ready { until, .. } | Slot::Refused { until, .. } => now < *until,
            Slot::Flying(_) => true,
        });
        if self.slots.len() >= TOKENS {
            self.slots.retain(|_, slot| matches!(slot, Slot::Flying(_)));
        }
    }
}

impl Inner {
    async fn fly(
        self: Arc<Self>,
        errand: Errand,
        key: String,
        sender: oneshot::Sender<Result<Pass, UpstreamError>>,
    ) {
        let asked = clock::now();
        metrics::counter!("atoll_upstream_logins_total").increment(1);
        let late =
            |who: String| UpstreamError::unreachable(format!("{who} did not answer in time"));
        let result = match errand {
            Errand::Token { service, scope } => {
                let result = tokio::time::timeout(self.deadline, self.ask(service, &scope)).await;
                result.unwrap_or_else(|_| Err(late("its token service".into())))
            }
            Errand::Password(key) => {
                let result = tokio::time::timeout(self.deadline, self.exchange(&key)).await;
                result.unwrap_or_else(|_| Err(late(key.to_string())))
            }
        };
        {
            let mut memory = self.memory.lock();
            match &result {
                Ok((pass, life)) => memory
                    .slots
                    .insert(key, Slot::Ready { pass: pass.clone(), asked, until: asked + *life }),
                Err(error @ UpstreamError::Denied(_)) => {
                    let until = clock::now() + REFUSED;
                    memory.slots.insert(key, Slot::Refused { error: error.clone(), until })
                }
                Err(_) => memory.slots.remove(&key),
            };
        }
        let _ = sender.send(result.map(|(pass, _)| pass));
    }

    /// Asks the token service. Returns the token, and how long to use it.
    async fn ask(&self, service: Service, scope: &str) -> Result<(Pass, Duration), UpstreamError> {
        let mut request = Request::get(service.url(scope))
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(Credentials::Password(password)) = &self.credentials {
            request = request.header(header::AUTHORIZATION, Pass::basic(password)?.header);
        }
        let request = request.body(Full::<Bytes>::default()).map_err(UpstreamError::bad)?;
        let response = self.connections.send(request).await?;
        let (head, body) = response.into_parts();
        let (status, wait) = (head.status, wait_of(&head.headers));
        match status {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(UpstreamError::Denied("its token service refused the login".into()));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                return Err(UpstreamError::Limited { until: clock::now() + wait.unwrap_or(PAUSE) });
            }
            StatusCode::SERVICE_UNAVAILABLE if wait.is_some() => {
                return Err(UpstreamError::Limited { until: clock::now() + wait.unwrap_or(PAUSE) });
            }
            status if status.is_server_error() => {
                return Err(UpstreamError::unreachable(format!(
                    "its token service answered {status}"
                )));
            }
            status => {
                return Err(UpstreamError::bad(format!("its token service answered {status}")));
            }
        }
        let came = Limited::new(body, ANSWER).collect().await;
        let came = came
            .map_err(|e| UpstreamError::unreachable(format!("its token service broke off: {e}")))?
            .to_bytes();
        read(&coding::decoded(&head.headers, &came, ANSWER)?.unwrap_or(came))
    }

    /// Asks ECR's API. Returns the credentials to send, and how long to use them.
    async fn exchange(&self, key: &AccessKey) -> Result<(Pass, Duration), UpstreamError> {
        let at = clock::timestamp();
        let response = self.connections.send(key.request(at)?).await?;
        let said = (response.status(), wait_of(response.headers()));
        let body = Limited::new(response.into_body(), ANSWER).collect().await;
        let body = body
            .map_err(|e| UpstreamError::unreachable(format!("{key} broke off: {e}")))?
            .to_bytes();
        let (password, life) = key.read(said, &body, at, clock::now())?;
        Ok((Pass::basic(&password)?, life))
    }
}

/// Parses a token service's answer. Some services write `token`, some `access_token`, some both.
fn read(body: &[u8]) -> Result<(Pass, Duration), UpstreamError> {
    let answer: Value = serde_json::from_slice(body)
        .map_err(|_| UpstreamError::bad("its token service's answer is not JSON"))?;
    let text = |name: &str| answer[name].as_str().filter(|value| !value.is_empty());
    let token = text("token").or(text("access_token"));
    let token =
        token.ok_or_else(|| UpstreamError::bad("its token service's answer holds no token"))?;
    let life = answer["expires_in"].as_u64().unwrap_or(SHORTEST).clamp(SHORTEST, LONGEST);
    // a request that is sent in the last moment must still arrive in time
    Ok((Pass::new("Bearer", token)?, Duration::from_secs(life - (life / 10).min(30))))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Login {
        /// Ages all fetched credentials by `by`.
        pub(crate) fn age(&self, by: Duration) {
            for slot in self.inner.memory.lock().slots.values_mut() {
                if let Slot::Ready { asked, .. } = slot {
                    *asked = *asked - by;
                }
            }
        }
    }

    #[test]
    fn a_token_has_two_names_and_a_life_within_bounds() {
        let token =
            |body: &str| read(body.as_bytes()).map(|(pass, life)| (pass.header, life.as_secs()));
        let bearer = |text: &str| HeaderValue::try_from(text).unwrap();
        assert_eq!(token(r#"{"token":"a","access_token":"b"}"#).unwrap(), (bearer("Bearer a"), 54));
        assert_eq!(
            token(r#"{"token":"","access_token":"b","expires_in":300}"#).unwrap(),
            (bearer("Bearer b"), 270)
        );
        assert_eq!(token(r#"{"token":"a","expires_in":1}"#).unwrap().1, 54);
        assert_eq!(token(r#"{"token":"a","expires_in":99999999}"#).unwrap().1, 3570);
        for bad in ["", "[]", "{}", r#"{"token":1}"#, r#"{"token":"a\nb"}"#] {
            assert!(matches!(token(bad), Err(UpstreamError::Bad(_))), "{bad}");
        }
    }

    #[test]
    fn neither_a_password_nor_a_token_is_printed() {
        let password = Password { user: "me".into(), password: "hidden-word".into() };
        let shown = format!("{password:?} {:?}", Pass::basic(&password).unwrap());
        assert!(
            shown.contains("me") && !shown.contains("hidden-word") && !shown.contains("bWU6"),
            "{shown}"
        );
    }
}
