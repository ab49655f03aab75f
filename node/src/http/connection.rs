//! One connection, from its first byte to its last: HTTP/1.1 or HTTP/2.

use std::future::{Future, ready};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::future::Either;
use ground::supervise::Tasks;
use http::{HeaderValue, Method, Response, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rules::people::penalties::Waste;
use rules::people::streams::Verdict;
use rules::people::windows::Windows;
use rules::words::network::Network;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tracing::debug;

use super::Payload;
use super::errors::{Code, Failure};
use super::streams::Connection;

/// The maximum that is read at once of an HTTP/1.1 connection, and so of a head.
const READ_AT_ONCE: usize = 256 << 10;
/// How many bytes of an answer wait in memory for the client, for each stream.
const WAITING: usize = 128 << 10;
/// How many streams a client may reset that were not taken up yet, before its connection is ended.
const RESETS_IN_LINE: usize = 20;
/// How many streams may end for errors of the client before its connection is ended.
const ERRORS: usize = 256;
/// How long the end of a connection may take that has no request any more.
const FAREWELL: Duration = Duration::from_secs(5);

/// How many connections are served at a time, and how long each may rest.
#[derive(Clone, Debug)]
pub struct ConnectionTerms {
    /// How long a client may read nothing.
    pub stall: Duration,
    /// The maximum number in all.
    pub most: usize,
    /// The maximum number from one address.
    pub each: usize,
    /// How many connections one address may waste at once (see [`rules::people::penalties`]).
    pub wasted: u32,
    /// The addresses behind which there are many clients.
    pub proxies: Vec<Network>,
    /// How long the TLS handshake or a request's head may take, and how long a connection may be
    /// without a request.
    pub head: Duration,
    /// The maximum size of a request's headers in bytes.
    pub header_bytes: usize,
    /// The maximum number of a request's headers.
    pub headers: usize,
    /// The maximum number of open requests of one HTTP/2 connection.
    pub streams: u32,
    /// How many bytes of bodies clients may send over HTTP/2 before they were read, beyond what each
    /// connection may ([`rules::people::windows`]).
    pub windows: Arc<Mutex<Windows>>,
}

/// What tells a connection to end: the node, or another client that takes its place.
#[derive(Clone, Copy)]
pub(super) struct Ending<'a> {
    /// The node's tasks.
    pub(super) tasks: &'a Tasks,
    /// Told once, when the connection is to make room.
    pub(super) displaced: &'a Notify,
}

impl Ending<'_> {
    /// Waits for either; whether it was the other client.
    async fn told(self) -> bool {
        tokio::select! {
            () = self.tasks.stopping() => false,
            () = self.displaced.notified() => true,
        }
    }
}

/// The window of a connection, which is given back at its end. It is for each stream, and for all of
/// them together: this is what the connection may take of memory.
struct Window {
    all: Arc<Mutex<Windows>>,
    bytes: u32,
}

impl Window {
    fn lent(all: &Arc<Mutex<Windows>>) -> Self {
        Window { all: all.clone(), bytes: all.lock().lend() }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.all.lock().give_back(self.bytes);
    }
}

/// The address from which a request came: an extension of each request.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// What a connection was good for.
#[derive(Default)]
struct Use {
    /// A request has come.
    asked: AtomicBool,
    /// The head of one was too large.
    long_head: AtomicBool,
}

impl Use {
    /// The waste that it was, if it was one. `error` is why it ended, if not in order.
    fn waste(&self, error: Option<&hyper::Error>) -> Option<Waste> {
        if self.long_head.load(Relaxed) || error.is_some_and(hyper::Error::is_parse_too_large) {
            Some(Waste::LongHead)
        } else {
            error.is_some_and(is_too_fast).then_some(Waste::Resets)
        }
    }
}

/// Whether HTTP/2 itself has ended a connection whose client resets streams faster than they are
/// taken up.
fn is_too_fast(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let of_http2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
    of_http2.is_some_and(|error| error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// Serves HTTP/1.1 until the connection ends or, when it is told to end, until its open request has
/// ended. Says whether it was wasted.
pub(super) async fn http1<S, H, F>(
    stream: S,
    client: ClientAddress,
    handle: H,
    terms: &ConnectionTerms,
    end: Ending<'_>,
) -> Option<Waste>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(hyper::Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Payload>> + Send + 'static,
{
    let most = (terms.headers, terms.header_bytes);
    let used = Arc::new(Use::default());
    let uses = used.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        uses.asked.store(true, Relaxed);
        request.extensions_mut().insert(client);
        let response = answered(&handle, request, most, &uses);
        async move { Ok::<_, std::convert::Infallible>(response.await) }
    });
    // without pipeline_flush, which would make hyper copy every body
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(terms.head)
        .max_buf_size(READ_AT_ONCE)
        .max_headers(terms.headers)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);
    let result = tokio::select! {
        result = &mut connection => result,
        displaced = end.told() => {
            // of a head that has begun hyper would wait for the end
            if displaced && !used.asked.load(Relaxed) {
                return None;
            }
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let waste = used.waste(result.as_ref().err());
    if let Err(error) = result {
        debug!(%error, "connection ended early");
        if error.is_user() || error.is_body_write_aborted() {
            // The body could not be continued. The stream must end with FIN, after which containerd
            // asks for the rest. Without this the socket might send a reset, after which containerd
            // gives up the whole pull.
            let mut stream = connection.into_parts().io.into_inner();
            let _ = stream.shutdown().await;
        }
    }
    waste
}

/// Serves HTTP/2 until the connection ends or, after a stop, until its open requests have ended. A
/// body that cannot be continued ends with a reset of its stream, never with a clean end. Says whether
/// the connection was wasted.
pub(super) async fn http2<S, H, F>(
    stream: S,
    client: ClientAddress,
    handle: H,
    terms: &ConnectionTerms,
    end: Ending<'_>,
) -> Option<Waste>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(hyper::Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Payload>> + Send + 'static,
{
    metrics::counter!("atoll_http2_connections_total").increment(1);
    let streams = Connection::new(terms.head, terms.streams as usize);
    let window = Window::lent(&terms.windows);
    let most = (terms.headers, terms.header_bytes);
    let begun = streams.clone();
    let used = Arc::new(Use::default());
    let uses = used.clone();
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(client);
        name_host(&mut request);
        let is_head = request.method() == Method::HEAD;
        let open = begun.begin();
        let response = answered(&handle, request, most, &uses);
        async move {
            let mut response = response.await;
            // HTTP/2 has no header for the end of a connection (RFC 9113 section 8.2.2), and need
            // not: a body that is not read ends with its stream
            response.headers_mut().remove(header::CONNECTION);
            if is_head {
                leave_head(&mut response);
            }
            Ok::<_, std::convert::Infallible>(open.answer(response))
        }
    });
    // The table of compressed headers (4 KiB), the size of a frame (16 KiB) and no extended CONNECT
    // are hyper's defaults. Windows are not hyper's adaptive ones, which have no bound together.
    let spawn = Spawn { tasks: end.tasks.clone(), connection: streams.clone() };
    let connection = hyper::server::conn::http2::Builder::new(spawn)
        .timer(TokioTimer::new())
        .max_concurrent_streams(terms.streams)
        .max_header_list_size(terms.header_bytes.try_into().unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_IN_LINE)
        .max_local_error_reset_streams(ERRORS)
        .initial_stream_window_size(window.bytes)
        .initial_connection_window_size(window.bytes)
        .max_send_buf_size(WAITING)
        .keep_alive_interval(terms.head)
        .keep_alive_timeout(terms.head)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let look = (terms.head.min(terms.stall) / 4).max(Duration::from_millis(10));
    let result = loop {
        tokio::select! {
            result = connection.as_mut() => break result,
            _ = end.told() => {
                connection.as_mut().graceful_shutdown();
                break until_ended(connection.as_mut(), &streams, terms, look).await;
            }
            () = tokio::time::sleep(look) => streams.give_up_stalled(terms.stall),
            () = streams.request_broken_off() => {}
        }
        match streams.verdict() {
            Verdict::Stay => {}
            Verdict::Close => {
                connection.as_mut().graceful_shutdown();
                // a request may have come at the last moment
                break match tokio::time::timeout(FAREWELL, connection.as_mut()).await {
                    Ok(result) => result,
                    Err(_) => until_ended(connection.as_mut(), &streams, terms, look).await,
                };
            }
            Verdict::End => {
                metrics::counter!("atoll_connections_reset_rapidly_total").increment(1);
                debug!(client = %client.0, "ended: the client breaks off most requests");
                return Some(Waste::Resets);
            }
        }
    };
    let waste = used.waste(result.as_ref().err());
    if let Err(error) = result {
        debug!(%error, "connection ended early");
    }
    waste
}

/// Waits for the end of a connection that takes no more requests. One whose client does not answer
/// is ended when its last request has ended and it has rested.
async fn until_ended<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    streams: &Connection,
    terms: &ConnectionTerms,
    look: Duration,
) -> hyper::Result<()> {
    loop {
        tokio::select! {
            result = connection.as_mut() => return result,
            () = tokio::time::sleep(look) => streams.give_up_stalled(terms.stall),
            () = streams.request_broken_off() => {}
        }
        if streams.verdict() != Verdict::Stay {
            return Ok(());
        }
    }
}

/// Answers, unless the request has more headers, or longer ones, than `most` allows.
fn answered<H, F>(
    handle: &H,
    request: hyper::Request<Incoming>,
    most: (usize, usize),
    used: &Use,
) -> impl Future<Output = Response<Payload>> + Send + use<H, F>
where
    H: Fn(hyper::Request<Incoming>) -> F,
    F: Future<Output = Response<Payload>> + Send + 'static,
{
    let (count, bytes) = most;
    let headers = request.headers();
    // as HTTP/2 counts them (RFC 9113 section 6.5.2)
    let size: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    if headers.len() <= count && size <= bytes {
        return Either::Left(handle(request));
    }
    used.long_head.store(true, Relaxed);
    let text = format!(
        "the request has more than {count} headers or {bytes} bytes of them; see http.max_headers \
         and http.max_header_bytes"
    );
    Either::Right(ready(Failure::new(Code::HeadersTooLarge, text).closing().response()))
}

/// Leaves of an answer to HEAD what says how long its body would be. Over HTTP/1.1 hyper does not
/// send the body; over HTTP/2 it would, and clients take that for a broken protocol (RFC 9110
/// section 9.3.2).
fn leave_head(response: &mut Response<Payload>) {
    let length = response.body().size_hint().exact().filter(|length| *length > 0);
    if let Some(length) = length {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    *response.body_mut() = Payload::empty();
}

/// HTTP/2 names the host beside the path. Everything here looks for it in `Host`.
fn name_host(request: &mut hyper::Request<Incoming>) {
    debug_assert_eq!(request.version(), Version::HTTP_2);
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    if let Some(host) = authority.and_then(|authority| HeaderValue::try_from(authority).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// Starts what hyper starts for a connection: its streams. A client that resets most of them would
/// fill the queue of all tasks with them before they are looked at.
#[derive(Clone)]
struct Spawn {
    tasks: Tasks,
    connection: Connection,
}

impl<T> Executor<T> for Spawn
where
    T: Future + Send + 'static,
{
    fn execute(&self, stream: T) {
        if self.connection.is_over() {
            return;
        }
        self.tasks.spawn_draining("http.stream", async move {
            stream.await;
        });
    }
}
