//! Another registry: Debian's `docker-registry` on loopback, and in front of it a door that counts who asks for what and that can be
//! told to fail.
//!
//! What is pushed to it goes to the registry itself. Who pulls as the mesh does goes through the door.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::http::Client;
use crate::process::Running;
use crate::repository::Repository;
use crate::{tools, wait};

/// How the door treats who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Hands everything to the registry.
    Honest,
    /// Nobody listens; connections that were open are gone.
    Refuse,
    /// Answers this status, 429 with `Retry-After: 1`.
    Answer(u16),
    /// Takes requests and never says anything.
    Silent,
}

/// A request that came to the door.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// Its `Range`.
    pub range: Option<String>,
    /// Its `User-Agent`.
    pub agent: Option<String>,
    /// How many bytes of a body went out for it so far.
    pub sent: usize,
}

/// A registry that is not of the mesh. Dropping it ends it.
#[derive(Debug)]
pub struct Upstream {
    url: String,
    registry: String,
    door: Arc<Door>,
    // in this order: nobody asks a registry that is gone
    _runtime: tokio::runtime::Runtime,
    _process: Running,
    _folder: TempDir,
}

#[derive(Debug)]
struct Door {
    address: SocketAddr,
    registry: SocketAddr,
    manner: watch::Sender<Manner>,
    rules: Mutex<Rules>,
}

#[derive(Debug, Default)]
struct Rules {
    asked: Vec<Asked>,
    /// How many requests came before those.
    forgotten: usize,
    /// Break off the next blob that is asked for after so many bytes, and go on in this manner.
    cut: Option<(usize, Manner)>,
    pause: Duration,
    authorization: Option<String>,
}

impl Upstream {
    /// Starts it and waits until it answers, through the door.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start() -> Self {
        let folder = TempDir::with_prefix("atoll-upstream-").expect("a temporary folder");
        let (registry, address) = (free(), free());
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: \"{registry}\"}}\n",
            folder.path().join("data").display()
        );
        std::fs::write(&config, text).expect("a configuration can be written");
        let mut command = tools::packaged("docker-registry", "docker-registry");
        let mut process = Running::start(command.arg("serve").arg(&config), &folder.path().join("log"));
        let rules = Mutex::default();
        let door = Arc::new(Door { address, registry, manner: watch::Sender::new(Manner::Honest), rules });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.spawn(stand(door.clone()));
        let url = format!("http://{address}");
        wait::until_ok("the upstream answers", || {
            assert!(process.ended().is_none(), "docker-registry ended:\n{}", process.last_words());
            let answer = Client::of(&url).get("/v2/").map_err(|none| none.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
        });
        let upstream = Self {
            url,
            registry: format!("http://{registry}"),
            door,
            _runtime: runtime,
            _process: process,
            _folder: folder,
        };
        upstream.forget();
        upstream
    }

    /// Its URL: the door's.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A repository of it, past the door.
    #[must_use]
    pub fn repository(&self, name: &str) -> Repository {
        Repository::new(&Client::of(&self.registry), name)
    }

    /// Changes the door's manner, and waits until it is so.
    pub fn behave(&self, manner: Manner) {
        self.door.manner.send_replace(manner);
        wait::until("the door opens or closes", || {
            let open = TcpStream::connect(self.door.address).is_ok();
            (open != (manner == Manner::Refuse)).then_some(())
        });
    }

    /// Breaks off the body of the next blob that is asked for after `bytes` bytes, and goes on in this manner.
    pub fn cut(&self, bytes: usize, then: Manner) {
        self.rules().cut = Some((bytes, then));
    }

    /// Rests before each piece of a blob, so that who asks at the same time does meet.
    pub fn pause(&self, pause: Duration) {
        self.rules().pause = pause;
    }

    /// From now on only who has this name and password is let in.
    pub fn demand(&self, user: &str, password: &str) {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.rules().authorization = Some(format!("Basic {pair}"));
    }

    /// What was asked of it, in the order it came.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.rules().asked.clone()
    }

    /// What was asked of it that ends with `what` (`blobs/sha256:...`), by this method.
    #[must_use]
    pub fn asked_for(&self, method: &Method, what: &str) -> Vec<Asked> {
        let fits = |one: &Asked| one.method == method && one.path.ends_with(&format!("/{what}"));
        self.asked().into_iter().filter(fits).collect()
    }

    /// The requests for manifests and blobs: what is left when logins and pings are left out.
    #[must_use]
    pub fn asked_for_content(&self) -> Vec<Asked> {
        let content = |one: &Asked| one.path.contains("/manifests/") || one.path.contains("/blobs/");
        self.asked().into_iter().filter(content).collect()
    }

    /// Begins to count anew.
    pub fn forget(&self) {
        let mut rules = self.rules();
        rules.forgotten += std::mem::take(&mut rules.asked).len();
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.door.rules()
    }
}

impl Door {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

impl Rules {
    /// Counts what goes out for a request, unless it was forgotten.
    fn sent(&mut self, number: usize, bytes: usize) {
        let asked = number.checked_sub(self.forgotten).and_then(|at| self.asked.get_mut(at));
        if let Some(asked) = asked {
            asked.sent += bytes;
        }
    }
}

/// Listens for as long as it may.
async fn stand(door: Arc<Door>) {
    let mut manner = door.manner.subscribe();
    while manner.wait_for(|manner| *manner != Manner::Refuse).await.is_ok() {
        let Ok(listener) = tokio::net::TcpListener::bind(door.address).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                come = listener.accept() => if let Ok((socket, _)) = come {
                    let door = door.clone();
                    connections.spawn(async move {
                        let service = service_fn(move |request| answer(door.clone(), request));
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(socket), service)
                            .await;
                    });
                },
                _ = connections.join_next(), if !connections.is_empty() => {}
                _ = manner.wait_for(|manner| *manner == Manner::Refuse) => break,
            }
        }
    }
}

async fn answer(door: Arc<Door>, request: Request<Incoming>) -> Result<Response<Passing>, Infallible> {
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (range, agent, authorization) = (text("range"), text("user-agent"), text("authorization"));
    let path = request.uri().path().to_owned();
    let (number, let_in) = {
        let mut rules = door.rules();
        rules.asked.push(Asked { method: request.method().clone(), path, range, agent, sent: 0 });
        (rules.forgotten + rules.asked.len() - 1, rules.authorization.is_none() || rules.authorization == authorization)
    };
    let manner = *door.manner.borrow();
    match manner {
        Manner::Silent | Manner::Refuse => std::future::pending().await,
        Manner::Answer(status) => Ok(refusal(status)),
        Manner::Honest if !let_in => Ok(refusal(401)),
        Manner::Honest => Ok(pass_on(&door, request, number).await.unwrap_or_else(|_| refusal(502))),
    }
}

fn refusal(status: u16) -> Response<Passing> {
    let mut response = Response::new(Passing(None));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    let header = match status {
        401 => Some(("www-authenticate", "Basic realm=\"upstream\"")),
        429 => Some(("retry-after", "1")),
        _ => None,
    };
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, value.parse().expect("a header"));
    }
    response
}

/// Asks the registry the same, and hands its answer on.
async fn pass_on(
    door: &Arc<Door>,
    request: Request<Incoming>,
    number: usize,
) -> Result<Response<Passing>, hyper::Error> {
    let Ok(socket) = tokio::net::TcpStream::connect(door.registry).await else { return Ok(refusal(502)) };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let mut same = Request::new(Empty::<Bytes>::new());
    *same.method_mut() = request.method().clone();
    *same.uri_mut() = request.uri().clone();
    *same.headers_mut() = without_hop(request.headers());
    let (head, mut body) = sender.send_request(same).await?.into_parts();
    let is_blob = request.method() == Method::GET && request.uri().path().contains("/blobs/");
    let (to, pieces) = mpsc::channel(1);
    let mut left = if is_blob { door.rules().cut.take() } else { None };
    let door = door.clone();
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(mut bytes) = frame.into_data() else { continue };
            if is_blob {
                let pause = door.rules().pause;
                tokio::time::sleep(pause).await;
            }
            let cut = left.as_ref().is_some_and(|(left, _)| *left <= bytes.len());
            if let Some((left, _)) = &mut left {
                bytes.truncate(*left);
                *left -= bytes.len();
            }
            door.rules().sent(number, bytes.len());
            if to.send(Ok(Frame::data(bytes))).await.is_err() {
                return; // nobody takes it any more
            }
            if let Some((_, then)) = left.filter(|_| cut) {
                door.manner.send_replace(then);
                // what was sent leaves before the connection breaks
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _ = to.send(Err(io::Error::other("the scenario broke it off"))).await;
                return;
            }
        }
    });
    let mut response = Response::new(Passing(Some(pieces)));
    *response.status_mut() = head.status;
    *response.headers_mut() = without_hop(&head.headers);
    Ok(response)
}

fn without_hop(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in ["connection", "keep-alive", "transfer-encoding"] {
        headers.remove(name);
    }
    headers
}

/// A body that comes from elsewhere, or none.
struct Passing(Option<mpsc::Receiver<Result<Frame<Bytes>, io::Error>>>);

impl Body for Passing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |pieces| pieces.poll_recv(context))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket has an address")
}
