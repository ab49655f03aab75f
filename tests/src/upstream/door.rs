//! The door before the registry: it counts who asks for what, and fails in the ways that registries
//! and the networks before them do.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt::set_socket_linger;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The media type of a manifest of Docker's schema 1.
const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// How the door treats who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Hands everything to the registry.
    Honest,
    /// Nothing listens; open connections are gone.
    Refuse,
    /// Connections are not answered: the kernel drops the packets, as a firewall does. Open
    /// connections are gone.
    Swallow,
    /// Answers this status, 429 with `Retry-After: 1`.
    Answer(u16),
    /// Answers 200 and a page for people, as the gateway before a registry does that is being
    /// mended.
    Page,
    /// Takes requests and never says anything.
    Silent,
    /// Answers questions about manifests with one of schema 1, as old registries have them.
    Schema1,
    /// Says that it has no blob, and gives it to who asks for its bytes, as a cache before another
    /// cache does.
    DeniesBlobs,
    /// Says of every blob that it has it, and gives other bytes for it: as many as were asked for,
    /// from where they were asked for.
    InventsBlobs,
    /// Says of every blob that it has it, and gives nothing.
    HollowBlobs,
    /// Compresses every answer and calls it 203, as some gateways do, and says of manifests that
    /// they have another digest than they have.
    Gateway,
    /// Answers questions about manifests with [`SLOPPY`].
    Sloppy,
}

/// An index that begins with a byte order mark and says no size of what it lists. Registries refuse
/// it, and some clients take it.
pub const SLOPPY: &str = "\u{feff}{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}]}";

impl Manner {
    /// Whether a client may connect.
    #[must_use]
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Refuse | Self::Swallow)
    }
}

/// What the door does to the blobs that it hands on, while its manner is honest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spoiling {
    /// Nothing.
    #[default]
    Nothing,
    /// The first answer for each blob ends after so many bytes.
    Break(usize, Ending),
    /// The first answer for each blob has one wrong bit, and the right length.
    FlipOnce,
    /// Every answer for a blob has one wrong bit, and the right length.
    FlipAlways,
    /// The maximum number of bytes per second for each answer.
    Slow(usize),
}

/// How a connection ends in the middle of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With FIN, as when a process is ended.
    Close,
    /// With RST, as when a machine has forgotten the connection.
    Reset,
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

#[derive(Debug)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    pub(super) registry: SocketAddr,
    pub(super) manner: watch::Sender<Manner>,
    rules: Mutex<Rules>,
}

#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) asked: Vec<Asked>,
    /// How many requests came before those.
    pub(super) forgotten: usize,
    /// Break off the next blob that is asked for after so many bytes, and go on in this manner.
    pub(super) cut: Option<(usize, Manner)>,
    pub(super) pause: Duration,
    /// How long it thinks before it answers about a manifest.
    pub(super) thinking: Duration,
    pub(super) authorization: Option<String>,
    pub(super) spoiling: Spoiling,
    /// The blobs that were asked for since the spoiling began.
    pub(super) seen: HashSet<String>,
}

/// What happened to one body.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// It ends after so many bytes, and the door goes on in this manner, if it changes.
    ends: Option<(usize, Ending, Option<Manner>)>,
    flips: bool,
    rate: Option<usize>,
}

impl Door {
    pub(super) fn new(address: SocketAddr, registry: SocketAddr) -> Self {
        Self {
            address,
            registry,
            manner: watch::Sender::new(Manner::Honest),
            rules: Mutex::default(),
        }
    }

    pub(super) fn rules(&self) -> MutexGuard<'_, Rules> {
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

    fn fate(&mut self, path: &str) -> Fate {
        if let Some((bytes, then)) = self.cut.take() {
            return Fate { ends: Some((bytes, Ending::Close, Some(then))), ..Fate::default() };
        }
        let first = self.seen.insert(path.to_owned());
        match self.spoiling {
            Spoiling::Break(bytes, ending) if first => {
                Fate { ends: Some((bytes, ending, None)), ..Fate::default() }
            }
            Spoiling::FlipOnce if first => Fate { flips: true, ..Fate::default() },
            Spoiling::FlipAlways => Fate { flips: true, ..Fate::default() },
            Spoiling::Slow(rate) => Fate { rate: Some(rate), ..Fate::default() },
            Spoiling::Nothing | Spoiling::Break(..) | Spoiling::FlipOnce => Fate::default(),
        }
    }
}

/// Listens for as long as it may.
pub(super) async fn stand(door: Arc<Door>) {
    let mut manner = door.manner.subscribe();
    loop {
        let now = *manner.borrow_and_update();
        match now {
            Manner::Refuse => {}
            Manner::Swallow => {
                let Some(_full) = full(door.address).await else { continue };
                if manner.changed().await.is_err() {
                    return;
                }
                continue;
            }
            _ => receive(&door, &mut manner).await,
        }
        if *manner.borrow() == Manner::Refuse && manner.changed().await.is_err() {
            return;
        }
    }
}

/// Lets people in until the manner says otherwise.
async fn receive(door: &Arc<Door>, manner: &mut watch::Receiver<Manner>) {
    let Ok(listener) = TcpListener::bind(door.address).await else {
        return tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            come = listener.accept() => if let Ok((socket, _)) = come {
                connections.spawn(serve(door.clone(), socket));
            },
            _ = connections.join_next(), if !connections.is_empty() => {}
            _ = manner.wait_for(|manner| !manner.is_open()) => return,
        }
    }
}

async fn serve(door: Arc<Door>, socket: TcpStream) {
    // a second handle, to choose how the connection ends
    let Ok((socket, end)) =
        socket.into_std().and_then(|socket| Ok((socket.try_clone()?, Arc::new(socket))))
    else {
        return;
    };
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let service = service_fn(move |request| answer(door.clone(), end.clone(), request));
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

/// A listener whose queue is full, so that the kernel drops every further SYN, and those who fill
/// it.
async fn full(address: SocketAddr) -> Option<(TcpListener, Vec<TcpStream>)> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_reuseaddr(true).ok()?;
    if socket.bind(address).is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        return None;
    }
    let listener = socket.listen(1).ok()?;
    let mut waiting = Vec::new();
    while let Ok(Ok(one)) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        waiting.push(one);
    }
    Some((listener, waiting))
}

async fn answer(
    door: Arc<Door>,
    end: Arc<std::net::TcpStream>,
    request: Request<Incoming>,
) -> Result<Response<Passing>, Infallible> {
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let (range, agent, authorization) =
        (header("range"), header("user-agent"), header("authorization"));
    let path = request.uri().path().to_owned();
    let (number, let_in) = {
        let mut rules = door.rules();
        rules.asked.push(Asked { method: request.method().clone(), path, range, agent, sent: 0 });
        (
            rules.forgotten + rules.asked.len() - 1,
            rules.authorization.is_none() || rules.authorization == authorization,
        )
    };
    if request.uri().path().contains("/manifests/") {
        let thinking = door.rules().thinking;
        tokio::time::sleep(thinking).await;
    }
    let manner = *door.manner.borrow();
    match manner {
        Manner::Silent | Manner::Refuse | Manner::Swallow => std::future::pending().await,
        Manner::Answer(status) => Ok(refusal(status)),
        Manner::Page => Ok(page()),
        Manner::Honest if !let_in => Ok(refusal(401)),
        Manner::Schema1 if request.uri().path().contains("/manifests/") => {
            Ok(text(SCHEMA_1, "{\"schemaVersion\":1}"))
        }
        Manner::Sloppy if request.uri().path().contains("/manifests/") => {
            Ok(text(crate::image::INDEX, SLOPPY))
        }
        Manner::Gateway => {
            let manifest = request.uri().path().contains("/manifests/");
            let passed = pass_on(&door, end, request, number).await;
            Ok(compressed(passed.unwrap_or_else(|_| refusal(502)), manifest).await)
        }
        Manner::DeniesBlobs
            if request.method() == Method::HEAD && request.uri().path().contains("/blobs/") =>
        {
            Ok(refusal(404))
        }
        Manner::InventsBlobs if request.uri().path().contains("/blobs/") => Ok(invented(&request)),
        Manner::HollowBlobs if request.uri().path().contains("/blobs/") => {
            Ok(Response::new(Passing(None)))
        }
        Manner::Honest
        | Manner::Schema1
        | Manner::Sloppy
        | Manner::DeniesBlobs
        | Manner::InventsBlobs
        | Manner::HollowBlobs => {
            Ok(pass_on(&door, end, request, number).await.unwrap_or_else(|_| refusal(502)))
        }
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

fn page() -> Response<Passing> {
    text("text/html", "<html>We are back soon.</html>")
}

/// 200 with this body.
fn text(kind: &'static str, body: &'static str) -> Response<Passing> {
    let (to, pieces) = mpsc::channel(1);
    to.try_send(Ok(Frame::data(body.into()))).expect("room for one piece");
    let mut response = Response::new(Passing(Some(pieces)));
    response.headers_mut().insert("content-type", kind.parse().expect("a header"));
    response
}

/// What [`Manner::Gateway`] makes of an answer.
async fn compressed(response: Response<Passing>, manifest: bool) -> Response<Passing> {
    let (mut head, body) = response.into_parts();
    let came = body.collect().await.map(|whole| whole.to_bytes()).unwrap_or_default();
    if !head.status.is_success() {
        return Response::from_parts(head, Passing(None));
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let written = std::io::Write::write_all(&mut gzip, &came).and_then(|()| gzip.finish());
    let (to, pieces) = mpsc::channel(1);
    to.try_send(Ok(Frame::data(written.expect("memory").into()))).expect("room for one piece");
    head.status = StatusCode::NON_AUTHORITATIVE_INFORMATION;
    head.headers.remove("content-length");
    head.headers.insert("content-encoding", "gzip".parse().expect("a header"));
    if manifest {
        let other = format!("sha256:{}", "0".repeat(64)).parse().expect("a header");
        head.headers.insert("docker-content-digest", other);
    }
    Response::from_parts(head, Passing(Some(pieces)))
}

/// 200 for a HEAD, 206 with made-up bytes for a range that has an end, and 200 with some for the
/// rest.
fn invented(request: &Request<Incoming>) -> Response<Passing> {
    if request.method() == Method::HEAD {
        return Response::new(Passing(None));
    }
    let range = request.headers().get("range").and_then(|range| range.to_str().ok());
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let range = range.and_then(|(first, last)| {
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
    });
    let length = range.map_or(1000, |(first, last)| last - first + 1);
    let (to, pieces) = mpsc::channel(1);
    to.try_send(Ok(Frame::data(vec![0x55; length].into()))).expect("room for one piece");
    let mut response = Response::new(Passing(Some(pieces)));
    response.headers_mut().insert("content-length", length.into());
    if let Some((first, last)) = range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let told = format!("bytes {first}-{last}/*").parse().expect("a header");
        response.headers_mut().insert("content-range", told);
    }
    response
}

/// Asks the registry the same, and hands its answer on.
async fn pass_on(
    door: &Arc<Door>,
    end: Arc<std::net::TcpStream>,
    request: Request<Incoming>,
    number: usize,
) -> Result<Response<Passing>, hyper::Error> {
    let Ok(socket) = TcpStream::connect(door.registry).await else { return Ok(refusal(502)) };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    let mut same = Request::new(Empty::<Bytes>::new());
    *same.method_mut() = request.method().clone();
    *same.uri_mut() = request.uri().clone();
    *same.headers_mut() = without_hop(request.headers());
    let is_blob = request.method() == Method::GET && request.uri().path().contains("/blobs/");
    let fate = if is_blob { door.rules().fate(request.uri().path()) } else { Fate::default() };
    let (head, body) = sender.send_request(same).await?.into_parts();
    let (to, pieces) = mpsc::channel(1);
    let mut response = Response::new(Passing(Some(pieces)));
    *response.status_mut() = head.status;
    *response.headers_mut() = without_hop(&head.headers);
    let pause = if is_blob { door.rules().pause } else { Duration::ZERO };
    tokio::spawn(hand_on(door.clone(), end, number, body, (fate, pause), to));
    Ok(response)
}

/// Hands a body on, piece by piece, as its fate has it.
async fn hand_on(
    door: Arc<Door>,
    end: Arc<std::net::TcpStream>,
    number: usize,
    mut body: Incoming,
    (mut fate, pause): (Fate, Duration),
    to: mpsc::Sender<Result<Frame<Bytes>, io::Error>>,
) {
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(mut bytes) = frame.into_data() else { continue };
        let slow = fate.rate.map(|rate| Duration::from_secs_f64(bytes.len() as f64 / rate as f64));
        tokio::time::sleep(pause.max(slow.unwrap_or_default())).await;
        if std::mem::take(&mut fate.flips) {
            let mut wrong = bytes.to_vec();
            let middle = wrong.len() / 2;
            wrong[middle] ^= 0x10;
            bytes = wrong.into();
        }
        let ends = fate.ends.is_some_and(|(left, ..)| left <= bytes.len());
        if let Some((left, ..)) = &mut fate.ends {
            bytes.truncate(*left);
            *left -= bytes.len();
        }
        door.rules().sent(number, bytes.len());
        if to.send(Ok(Frame::data(bytes))).await.is_err() {
            return; // nobody takes it any more
        }
        let Some((_, ending, then)) = fate.ends.filter(|_| ends) else { continue };
        if let Some(then) = then {
            door.manner.send_replace(then);
        }
        // what was sent leaves before the connection breaks
        tokio::time::sleep(Duration::from_millis(20)).await;
        if ending == Ending::Reset {
            let _ = set_socket_linger(&*end, Some(Duration::ZERO));
        }
        drop(end);
        let _ = to.send(Err(io::Error::other("the scenario broke it off"))).await;
        return;
    }
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
