//! A plain HTTP/1.1 client: one connection for each request, everything read into memory, nothing
//! retried.
//!
//! Retries and redirects would hide what the scenarios want to see. A request that gets no answer
//! is told apart from one that is answered with an error: the first is what a killed node looks
//! like, the second is a statement.

use std::fmt;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use hyper_util::rt::TokioIo;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};

/// Someone who talks to one node.
#[derive(Clone, Debug)]
pub struct Client {
    authority: String,
    host: Option<String>,
    authorization: Option<String>,
    session: Option<(String, String)>,
    network: Option<PathBuf>,
    source: Option<IpAddr>,
    deadline: Duration,
}

impl Client {
    /// An anonymous client of the node at `url` (`http://ADDRESS:PORT`).
    #[must_use]
    pub fn of(url: &str) -> Self {
        let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').to_owned();
        Self {
            authority,
            host: None,
            authorization: None,
            session: None,
            network: None,
            source: None,
            deadline: Duration::from_secs(60),
        }
    }

    /// The same with a user's name and password.
    #[must_use]
    pub fn basic(mut self, user: &str, password: &str) -> Self {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.authorization = Some(format!("Basic {pair}"));
        self
    }

    /// The same, calling the node by another name.
    #[must_use]
    pub fn calling_it(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// The same with a token.
    #[must_use]
    pub fn bearer(mut self, token: &str) -> Self {
        self.authorization = Some(format!("Bearer {token}"));
        self
    }

    /// The same without credentials.
    #[must_use]
    pub fn anonymous(mut self) -> Self {
        self.authorization = None;
        self
    }

    /// The same as a browser with this session's cookie, and what its writes repeat.
    #[must_use]
    pub fn with_session(mut self, cookie: &str, csrf: &str) -> Self {
        self.authorization = None;
        self.session = Some((cookie.to_owned(), csrf.to_owned()));
        self
    }

    /// The same, asking the node of another client.
    #[must_use]
    pub fn asking(mut self, other: &Self) -> Self {
        other.authority.clone_into(&mut self.authority);
        self
    }

    /// The cookie of its session, and what its writes repeat.
    #[must_use]
    pub fn session(&self) -> Option<(&str, &str)> {
        self.session.as_ref().map(|(cookie, csrf)| (cookie.as_str(), csrf.as_str()))
    }

    /// The same from inside a network namespace, given as its file in `/proc`.
    #[must_use]
    pub fn inside(mut self, network: PathBuf) -> Self {
        self.network = Some(network);
        self
    }

    /// The same from another address of this machine.
    ///
    /// # Panics
    /// When this is no address.
    #[must_use]
    pub fn from(mut self, address: &str) -> Self {
        self.source = Some(address.parse().expect("an address"));
        self
    }

    /// The same with less (or more) patience than a minute.
    #[must_use]
    pub fn patient_for(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// `ADDRESS:PORT` of the node: the registry's name for clients.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The value of its `Authorization` header, for requests made by hand.
    #[must_use]
    pub fn credentials(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// Begins a request.
    #[must_use]
    pub fn ask(&self, method: Method, path: &str) -> Ask {
        let path = path
            .strip_prefix("http://")
            .and_then(|rest| rest.find('/').map(|at| &rest[at..]))
            .unwrap_or(path);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.host.as_ref().unwrap_or(&self.authority));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        if let Some((cookie, csrf)) = &self.session {
            request = request.header("cookie", format!("theme=dark; sid={cookie}"));
            request = request.header("x-harbor-csrf-token", csrf);
        }
        Ask { client: self.clone(), request, body: Content::nothing() }
    }

    /// Sends a GET.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn get(&self, path: &str) -> Result<Answer, Unanswered> {
        self.ask(Method::GET, path).send()
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn send_json(
        &self,
        method: Method,
        path: &str,
        value: &Value,
    ) -> Result<Answer, Unanswered> {
        self.ask(method, path)
            .header("content-type", "application/json")
            .body(value.to_string())
            .send()
    }
}

/// A request in the making.
#[derive(Debug)]
pub struct Ask {
    client: Client,
    request: http::request::Builder,
    body: Content,
}

impl Ask {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Gives it a body of known length.
    #[must_use]
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        self.body.bytes = bytes.into();
        self
    }

    /// Gives it a body of unknown length, in pieces, as docker sends layers. `watch` hears how many
    /// bytes went before each piece.
    #[must_use]
    pub fn streamed(mut self, bytes: Bytes, watch: impl FnMut(usize) + Send + 'static) -> Self {
        self.body = Content { bytes, sent: 0, watch: Some(Box::new(watch)) };
        self
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    /// When no answer comes: refused, cut off, or nothing within the client's patience.
    ///
    /// # Panics
    /// When the request itself makes no sense.
    pub fn send(self) -> Result<Answer, Unanswered> {
        let Self { client, request, body } = self;
        let request = request.body(body).expect("a request with a valid path and valid headers");
        let Some(network) = client.network.clone() else { return exchange(&client, request) };
        // a thread of its own: the others stay where they are
        let there = std::thread::spawn(move || {
            step_into(&network)?;
            exchange(&client, request)
        });
        there.join().expect("the exchange does not panic")
    }

    /// Sends it and reads the answer piece by piece, no faster than the pieces are taken: a slow
    /// client, or one that goes away.
    ///
    /// # Errors
    /// When not even the head of an answer comes.
    ///
    /// # Panics
    /// When the request itself makes no sense.
    pub fn open(self) -> Result<Arriving, Unanswered> {
        let Self { client, request, body } = self;
        let request = request.body(body).expect("a request with a valid path and valid headers");
        let (to, pieces) = sync_channel(0);
        std::thread::spawn(move || {
            let entered = client.network.as_ref().map_or(Ok(()), |network| step_into(network));
            if let Err(none) = entered.and_then(|()| follow(&client, request, &to)) {
                let _ = to.send(Err(none));
            }
        });
        match pieces.recv().unwrap_or_else(|_| Err(Unanswered("the connection ended".into())))? {
            Piece::Head(status, headers) => Ok(Arriving { status, headers, pieces }),
            Piece::Bytes(_) => unreachable!("the head comes first"),
        }
    }
}

/// An answer of which only the head has been read.
#[derive(Debug)]
pub struct Arriving {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    pieces: Receiver<Result<Piece, Unanswered>>,
}

impl Iterator for Arriving {
    type Item = Result<Bytes, Unanswered>;

    /// The next bytes; an error when the answer breaks off. To drop this is to hang up.
    fn next(&mut self) -> Option<Self::Item> {
        match self.pieces.recv().ok()? {
            Ok(Piece::Bytes(bytes)) => Some(Ok(bytes)),
            Ok(Piece::Head(..)) => unreachable!("there is one head"),
            Err(none) => Some(Err(none)),
        }
    }
}

impl Arriving {
    /// A header's value, if it is there.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The rest, which must be exactly `expected`.
    ///
    /// # Errors
    /// When it breaks off before its end, or has other bytes.
    pub fn rest_is(self, expected: &[u8]) -> Result<(), String> {
        let mut at = 0;
        for piece in self {
            let piece =
                piece.map_err(|none| format!("after {at} of {} bytes: {none}", expected.len()))?;
            if expected.get(at..at + piece.len()) != Some(&piece[..]) {
                return Err(format!("wrong bytes after {at} of {}", expected.len()));
            }
            at += piece.len();
        }
        if at == expected.len() {
            Ok(())
        } else {
            Err(format!("ended after {at} of {} bytes", expected.len()))
        }
    }
}

#[derive(Debug)]
enum Piece {
    Head(u16, HeaderMap),
    Bytes(Bytes),
}

fn follow(
    client: &Client,
    request: Request<Content>,
    to: &SyncSender<Result<Piece, Unanswered>>,
) -> Result<(), Unanswered> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let whole = async {
        let socket = connect(client).await.map_err(|error| Unanswered::from(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| Unanswered::from(&error))?;
        let answer = async {
            let answer =
                sender.send_request(request).await.map_err(|error| Unanswered::from(&error))?;
            let (head, mut body) = answer.into_parts();
            let mut next = Piece::Head(head.status.as_u16(), head.headers);
            // the receiver is gone: hang up
            while to.send(Ok(next)).is_ok() {
                match body.frame().await {
                    None => break,
                    Some(Err(error)) => return Err(Unanswered::from(&error)),
                    Some(Ok(frame)) => next = Piece::Bytes(frame.into_data().unwrap_or_default()),
                }
            }
            Ok(())
        };
        tokio::pin!(connection, answer);
        tokio::select! {
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    };
    let late = |_| Unanswered(format!("no whole answer within {:?}", client.deadline));
    runtime.block_on(async { tokio::time::timeout(client.deadline, whole).await.map_err(late)? })
}

async fn connect(client: &Client) -> std::io::Result<TcpStream> {
    let Some(source) = client.source else { return TcpStream::connect(&client.authority).await };
    let to = client.authority.parse().map_err(std::io::Error::other)?;
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(to).await
}

/// Sockets belong to the network namespace that their thread is in.
fn step_into(network: &Path) -> Result<(), Unanswered> {
    let file = File::open(network)
        .map_err(|error| Unanswered(format!("{}: {error}", network.display())))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| Unanswered(format!("cannot enter the network namespace: {error}")))
}

fn exchange(client: &Client, request: Request<Content>) -> Result<Answer, Unanswered> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let whole = async {
        let socket = connect(client).await.map_err(|error| Unanswered::from(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| Unanswered::from(&error))?;
        let answer = async {
            let answer =
                sender.send_request(request).await.map_err(|error| Unanswered::from(&error))?;
            let (head, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| Unanswered::from(&error))?.to_bytes();
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::pin!(connection, answer);
        // Both are driven here, without a task: the connection may end first, and the answer is
        // still to be taken.
        tokio::select! {
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    };
    let late = |_| Unanswered(format!("no whole answer within {:?}", client.deadline));
    runtime.block_on(async { tokio::time::timeout(client.deadline, whole).await.map_err(late)? })
}

/// What a node answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
}

impl Answer {
    /// The cookies that it sets.
    #[must_use]
    pub fn cookies(&self) -> Vec<(String, String)> {
        let all = self.headers.get_all("set-cookie").iter().filter_map(|one| one.to_str().ok());
        let pair = |one: &str| {
            let (name, rest) = one.split_once('=')?;
            Some((name.to_owned(), rest.split(';').next().unwrap_or_default().to_owned()))
        };
        all.filter_map(pair).collect()
    }

    /// A header's value, if it is there.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON; `null` if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The error's code and message, if the body is the specification's envelope.
    #[must_use]
    pub fn envelope(&self) -> Option<(String, String)> {
        let first = self.json().get("errors")?.get(0)?.clone();
        Some((first.get("code")?.as_str()?.to_owned(), first.get("message")?.as_str()?.to_owned()))
    }

    /// Whether the node said that its answer may be stale.
    #[must_use]
    pub fn may_be_stale(&self) -> bool {
        self.headers.get_all("warning").iter().any(|value| value.as_bytes().starts_with(b"110"))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(400)]).into_owned();
        write!(f, "{} {text}", self.status)
    }
}

/// No answer came: the connection was refused or cut, or nothing arrived for too long.
#[derive(Clone, Debug)]
pub struct Unanswered(String);

impl From<&dyn std::error::Error> for Unanswered {
    fn from(error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        Self(text)
    }
}

impl From<&std::io::Error> for Unanswered {
    fn from(error: &std::io::Error) -> Self {
        Self::from(error as &dyn std::error::Error)
    }
}

impl From<&hyper::Error> for Unanswered {
    fn from(error: &hyper::Error) -> Self {
        Self::from(error as &dyn std::error::Error)
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer ({})", self.0)
    }
}

const PIECE: usize = 64 << 10;

struct Content {
    bytes: Bytes,
    sent: usize,
    watch: Option<Box<dyn FnMut(usize) + Send>>,
}

impl Content {
    fn nothing() -> Self {
        Self { bytes: Bytes::new(), sent: 0, watch: None }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let sent = self.sent;
        if let Some(watch) = &mut self.watch {
            watch(sent);
        }
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let size =
            if self.watch.is_some() { PIECE.min(self.bytes.len()) } else { self.bytes.len() };
        let piece = self.bytes.split_to(size);
        self.sent += size;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.watch.is_none() && self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.watch.is_some() {
            SizeHint::default()
        } else {
            SizeHint::with_exact(self.bytes.len() as u64)
        }
    }
}
