//! Connections: which are taken, plain or TLS, and which protocol they speak.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use config::TlsFiles;
use ground::supervise::Tasks;
use http::Response;
use hyper::body::Incoming;
use parking_lot::Mutex;
use rules::people::crowd::{Crowd, Full, Place};
use rules::people::penalties::Waste;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Payload;
use super::begun::Begun;
use super::certificate::Certificate;
use super::connection::{self, ClientAddress, ConnectionTerms, Ending};
use super::handshakes::{Handshakes, PROTOCOLS};
use super::patience::Patient;
use super::punishing::Punishing;
use super::small_first::SmallFirst;
use super::socket;

/// A bound socket that is not served yet.
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<Handshakes>>,
    certificate: Option<Arc<Certificate>>,
}

impl Listener {
    /// Binds `address`, and reads the certificate if there is one.
    pub async fn bind(address: SocketAddr, tls: Option<&TlsFiles>) -> io::Result<Self> {
        let named = |e: io::Error, what: &str| io::Error::new(e.kind(), format!("{what}: {e}"));
        let socket = socket::listen(address)
            .map_err(|e| named(e, &format!("cannot listen on http.listen {address}")))?;
        let unusable = |e| named(e, "http.tls cannot be used");
        let certificate = tls.map(Certificate::read).transpose().map_err(unusable)?;
        let tls = certificate.clone().map(Handshakes::new).transpose().map_err(unusable)?;
        Ok(Listener { socket, tls: tls.map(Arc::new), certificate })
    }

    /// The certificate, if there is one. Its [`Certificate::keep`] is for the caller to run.
    pub fn certificate(&self) -> Option<&Arc<Certificate>> {
        self.certificate.as_ref()
    }

    /// The address on which it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether it uses TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// What a client reads whose connection is one too many.
const CROWDED: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The number of connections that are taken in a row. Then the tasks that wait have their turn: where
/// connections flood in, requests on open ones would wait for a whole budget of tokio's, 128 of them.
const IN_A_ROW: u32 = 8;

/// The connections that are open, and how each is told to end.
struct Room {
    crowd: Crowd,
    told: HashMap<u64, Arc<Notify>>,
}

/// A connection that is counted until it is dropped.
struct Inside {
    room: Arc<Mutex<Room>>,
    place: Option<Place>,
    /// Told when it is to make room for another one.
    end: Arc<Notify>,
}

impl Inside {
    fn enter(room: &Arc<Mutex<Room>>, address: IpAddr, proxy: bool) -> Result<Self, Full> {
        let end = Arc::new(Notify::new());
        let (place, ended) = {
            let mut open = room.lock();
            let (place, ended) = open.crowd.enter(address, proxy)?;
            open.told.insert(place.number(), end.clone());
            metrics::gauge!("atoll_connections_open").set(open.crowd.open() as f64);
            (place, ended.and_then(|number| open.told.get(&number).cloned()))
        };
        if let Some(ended) = ended {
            metrics::counter!("atoll_connections_displaced_total").increment(1);
            ended.notify_one();
        }
        Ok(Inside { room: room.clone(), place: Some(place), end })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let mut open = self.room.lock();
        open.told.remove(&place.number());
        open.crowd.leave(place);
        metrics::gauge!("atoll_connections_open").set(open.crowd.open() as f64);
    }
}

/// Serves connections until the group stops. Gives up clients that read nothing for too long. After
/// the stop, open requests continue, and their connections close after them.
pub async fn serve<H, F>(listener: Listener, handle: H, terms: ConnectionTerms, tasks: Tasks)
where
    H: Fn(hyper::Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Payload>> + Send + 'static,
{
    let terms = Arc::new(terms);
    let crowd = Crowd::new(terms.most, terms.each);
    let room = Arc::new(Mutex::new(Room { crowd, told: HashMap::new() }));
    let punishing = Arc::new(Punishing::new(terms.wasted));
    for turn in (0..IN_A_ROW).cycle() {
        if turn == 0 {
            tokio::task::yield_now().await;
        }
        let (stream, peer) = tokio::select! {
            () = tasks.stopping() => return,
            accepted = listener.socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // most likely out of file descriptors; open connections will close and free
                    // some
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let proxy = terms.proxies.iter().any(|network| network.contains(peer.ip()));
        let inside = if proxy || punishing.admit(peer.ip()) {
            Inside::enter(&room, peer.ip(), proxy).map_err(Full::word)
        } else {
            Err("punished")
        };
        let inside = match inside {
            Ok(inside) => inside,
            Err(full) => {
                metrics::counter!("atoll_connections_refused_total", "full" => full).increment(1);
                // the rest of an answer that does not fit at once is not worth a task
                if listener.tls.is_none() {
                    let _ = stream.try_write(CROWDED);
                }
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (handle, tls, inner) = (handle.clone(), listener.tls.clone(), tasks.clone());
        let (terms, punishing) = (terms.clone(), punishing.clone());
        tasks.spawn_draining("http.connection", async move {
            let end = Ending { tasks: &inner, displaced: &inside.end };
            let waste = speak(stream, peer, tls, handle, &terms, end).await;
            if let Some(waste) = waste.filter(|_| !proxy) {
                punishing.wasted(peer.ip(), waste);
            }
        });
    }
}

/// Finds out which protocol a connection speaks, and serves it. Says whether it was wasted.
async fn speak<H, F>(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<Handshakes>>,
    handle: H,
    terms: &ConnectionTerms,
    end: Ending<'_>,
) -> Option<Waste>
where
    H: Fn(hyper::Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Payload>> + Send + 'static,
{
    let client = ClientAddress(peer.ip());
    let by = Instant::now() + terms.head;
    let Some(tls) = tls else {
        let (stream, is_http2) = begun(peer, by, Begun::read(stream), end).await.ok()?;
        let stream = Patient::new(stream, terms.stall);
        return match is_http2 {
            true => connection::http2(stream, client, handle, terms, end).await,
            false => connection::http1(stream, client, handle, terms, end).await,
        };
    };
    let hello = begun(peer, by, Handshakes::hello(stream), end).await.ok()?;
    let stream = match begun(peer, by, tls.shake(hello), end).await {
        Ok(stream) => stream,
        Err(ended) => return ended.then_some(Waste::Handshake),
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(PROTOCOLS[0]);
    let stream = Patient::new(SmallFirst::new(stream), terms.stall);
    match is_http2 {
        true => connection::http2(stream, client, handle, terms, end).await,
        false => connection::http1(stream, client, handle, terms, end).await,
    }
}

/// What the beginning of a connection comes to by this time. The error says whether the client has
/// ended it; else it is to make room for another one.
async fn begun<T>(
    peer: SocketAddr,
    by: Instant,
    beginning: impl Future<Output = io::Result<T>>,
    end: Ending<'_>,
) -> Result<T, bool> {
    let begun = tokio::select! {
        begun = tokio::time::timeout_at(by, beginning) => begun,
        () = end.displaced.notified() => return Err(false),
    };
    let error = match begun {
        Ok(Ok(begun)) => return Ok(begun),
        Ok(Err(error)) => error,
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    debug!(client = %peer, %error, "a connection ended before its first request");
    Err(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Code, Failure};
    use bytes::Bytes;
    use futures::StreamExt;
    use http_body_util::{BodyExt, Empty, StreamBody};
    use hyper::body::Frame;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use rules::people::windows::Windows;
    use std::io::{Read, Write};
    use store::{BlobBody, Buffers};
    use tokio::sync::watch;

    const HEAD: Duration = Duration::from_secs(30);
    const SENT: usize = 300_000;
    const PIECE: usize = 16 << 10;

    /// A blob of a million bytes of which only some arrive before it breaks off.
    fn broken_off() -> Response<Payload> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; SENT]).unwrap();
        let (allowed, following) = watch::channel(Ok(SENT as u64));
        drop(allowed);
        let body =
            BlobBody::arriving(Arc::new(file), 0..1_000_000, &Buffers::default(), following, HEAD);
        let mut response = Response::new(Payload::File(Box::new(body)));
        response.headers_mut().insert(http::header::CONTENT_LENGTH, 1_000_000.into());
        response
    }

    fn terms(stall: Duration, head: Duration) -> ConnectionTerms {
        let (header_bytes, headers, streams) = (64 << 10, 100, 100);
        ConnectionTerms {
            stall,
            most: 9,
            each: 9,
            wasted: 1000,
            proxies: Vec::new(),
            head,
            header_bytes,
            headers,
            streams,
            windows: Arc::new(Mutex::new(Windows::new(64 << 20))),
        }
    }

    /// Serves `handle` on a port; its address, and the tasks to stop.
    async fn served<H, F>(handle: H, terms: ConnectionTerms) -> (SocketAddr, Tasks)
    where
        H: Fn(hyper::Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Payload>> + Send + 'static,
    {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), None).await.unwrap();
        let (address, tasks) = (listener.address().unwrap(), Tasks::new());
        tasks.spawn_draining("http", serve(listener, handle, terms, tasks.clone()));
        (address, tasks)
    }

    type Http2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

    /// A connection that speaks HTTP/2 at once, and the task in which it lives until it is closed.
    async fn http2(address: SocketAddr, window: u32) -> (Http2, tokio::task::JoinHandle<()>) {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        (sender, Tasks::new().spawn("client", async move { drop(connection.await) }))
    }

    fn get(address: SocketAddr) -> hyper::Request<Empty<Bytes>> {
        hyper::Request::get(format!("http://{address}/")).body(Empty::new()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_only_holds_connections_makes_room_for_others() {
        const MOST: usize = 40;
        // so long that only room for others ends one
        let mut terms = terms(HEAD, Duration::from_secs(600));
        (terms.most, terms.each) = (MOST, MOST);
        let handle = |_| async { Response::new(Payload::full("whole")) };
        let (address, tasks) = served(handle, terms).await;
        let asked = ground::supervise::blocking(move || {
            use socket2::{Domain, Socket, Type};
            let from = |n: u8| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.bind(&SocketAddr::from(([127, 0, 0, n], 0)).into()).unwrap();
                socket.connect(&address.into()).unwrap();
                let stream = std::net::TcpStream::from(socket);
                stream.set_read_timeout(Some(HEAD)).unwrap();
                stream
            };
            let get = |stream: &mut std::net::TcpStream| {
                stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                let mut said = [0; 12];
                stream.read_exact(&mut said).map(|()| String::from_utf8_lossy(&said).into_owned())
            };
            // one that says nothing, one with half a head, one that rests after a request
            let mut first = [from(2), from(2), from(2)];
            first[1].write_all(b"GET / HT").unwrap();
            get(&mut first[2]).unwrap();
            let mut held: Vec<_> = (3..MOST / 10 * 9).map(|_| from(2)).collect();
            let mut others = Vec::new();
            for (n, mut oldest) in (3..).zip(first) {
                let mut other = from(n);
                assert_eq!(get(&mut other).unwrap(), "HTTP/1.1 200", "client {n}");
                others.push(other);
                let mut rest = Vec::new();
                let ended = oldest.read_to_end(&mut rest);
                // a reset is an end, too
                let waits = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                assert!(!ended.is_err_and(|error| waits.contains(&error.kind())), "client {n}");
                assert!(rest.is_empty() || rest.ends_with(b"whole"), "{rest:?}");
            }
            assert_eq!(get(&mut held.pop().unwrap()).unwrap(), "HTTP/1.1 200", "the newest stays");
        });
        asked.await.unwrap();
        tasks.stop(HEAD).await;
    }

    /// What a client from this address of loopback reads that sends `bytes`, and then nothing
    /// more.
    fn said_to(from: u8, address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, from], 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_read_timeout(Some(HEAD)).unwrap();
        // one that is refused may be closed already
        let sent = stream.write_all(bytes);
        if !bytes.ends_with(b"\r\n\r\n") {
            let _ = sent.and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        }
        let mut said = Vec::new();
        match stream.read_to_end(&mut said) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => said,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_wastes_connections_has_few_new_ones_and_others_have_theirs() {
        const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let long = [b"GET / HTTP/1.1\r\nx: ", &[b'x'; 300_000][..]].concat();
        let mut resets = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        resets.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        for stream in (1..1000u32).step_by(2) {
            // GET http / with an authority that is one letter, and its reset
            resets.extend([0, 0, 6, 1, 5]);
            resets.extend(stream.to_be_bytes());
            resets.extend([0x82, 0x86, 0x84, 0x41, 1, b'a']);
            resets.extend([0, 0, 4, 3, 0]);
            resets.extend(stream.to_be_bytes());
            resets.extend([0, 0, 0, 8]);
        }
        let mut terms = terms(HEAD, HEAD);
        (terms.most, terms.each, terms.wasted) = (1000, 1000, 10);
        terms.proxies = vec!["127.0.0.9/32".parse().unwrap()];
        let (address, tasks) = served(
            |_| async {
                tokio::task::yield_now().await;
                Response::new(Payload::full("whole"))
            },
            terms,
        )
        .await;
        let asked = ground::supervise::blocking(move || {
            let whole = |from| said_to(from, address, GET).ends_with(b"whole");
            let wasted: [(&[u8], &str); 2] = [(&long, "a long head"), (&resets, "resets")];
            for (from, (bytes, what)) in (2..).zip(wasted) {
                for _ in 0..10 {
                    assert!(whole(from), "{what}: useful ones are not counted");
                }
                // more come than are counted: it is told how long it takes by when one is refused
                let refused = (0..1000).any(|_| {
                    said_to(from, address, bytes);
                    !whole(from)
                });
                assert!(refused, "{what}");
                assert!(whole(100), "{what}: another address");
            }
            for _ in 0..100 {
                said_to(9, address, &long);
                said_to(8, address, b"");
                said_to(8, address, b"GET / HT");
                said_to(8, address, b"\x16\x03\x01\x02\x00\x01");
            }
            assert!((0..20).all(|_| whole(9)), "a proxy is not punished");
            assert!((0..20).all(|_| whole(8)), "nor who costs little");
        });
        asked.await.unwrap();
        tasks.stop(HEAD).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn over_http2_an_answer_to_head_has_no_body_also_when_it_is_an_error() {
        let handle = |_| async { Failure::new(Code::Unauthorized, "sign in").response() };
        let (address, tasks) = served(handle, terms(HEAD, HEAD)).await;
        let (mut client, _) = http2(address, 1 << 20).await;
        let whole = client.send_request(get(address)).await.unwrap();
        let length = whole.into_body().collect().await.unwrap().to_bytes().len();
        let mut head = get(address);
        *head.method_mut() = http::Method::HEAD;
        let answer = client.send_request(head).await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["content-length"], length.to_string());
        let body = answer.into_body().collect().await.expect("no broken protocol");
        assert!(body.to_bytes().is_empty() && length > 0);
        tasks.stop(HEAD).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn over_http2_a_body_that_breaks_off_is_a_stream_error_and_its_neighbours_go_on() {
        let handle = |request: hyper::Request<Incoming>| async move {
            assert!(request.headers().contains_key("host"), "rooms look for the host there");
            match request.uri().path() {
                "/" => broken_off(),
                _ => Response::new(Payload::full("whole")),
            }
        };
        let (address, tasks) = served(handle, terms(HEAD, HEAD)).await;
        let (mut client, _) = http2(address, 1 << 20).await;
        for _ in 0..3 {
            let mut body = client.send_request(get(address)).await.unwrap().into_body();
            let (mut arrived, mut ended) = (0, None);
            while ended.is_none() {
                match body.frame().await {
                    Some(Ok(frame)) => arrived += frame.into_data().map_or(0, |data| data.len()),
                    other => ended = Some(other),
                }
            }
            let ended = ended.flatten();
            assert!(matches!(ended, Some(Err(_))), "after {arrived} bytes: {ended:?}");
            assert!(arrived <= SENT, "{arrived}");
            let mut whole = get(address);
            *whole.uri_mut() = format!("http://{address}/whole").parse().unwrap();
            let whole = client.send_request(whole).await.unwrap().into_body().collect().await;
            assert_eq!(whole.unwrap().to_bytes(), "whole", "on the same connection");
        }
        tasks.stop(HEAD).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn over_http2_a_stream_of_which_nothing_is_taken_gives_its_file_back() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.set_len(10_000_000).unwrap();
        let (told, mut dropped) = tokio::sync::mpsc::unbounded_channel();
        let handle = move |_| {
            let body = BlobBody::whole(file.clone(), 0..10_000_000, &Buffers::default());
            let (mut payload, told) = (Payload::File(Box::new(body)), told.clone());
            payload.at_end(move |bytes| {
                let _ = told.send(bytes);
            });
            async { Response::new(payload) }
        };
        let (address, tasks) = served(handle, terms(Duration::from_millis(200), HEAD)).await;
        let (mut client, _) = http2(address, 70_000).await;
        let answer = client.send_request(get(address)).await.unwrap();
        let sent = dropped.recv().await.expect("the body is dropped while its client waits");
        assert!(sent < 10_000_000, "{sent}");
        let ended = answer.into_body().collect().await;
        assert!(ended.is_err(), "a short body must not look whole");
        tasks.stop(HEAD).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn over_http2_who_rests_or_resets_is_ended_and_who_asks_for_much_is_told_so() {
        let never = |request: hyper::Request<Incoming>| async move {
            match request.uri().path() {
                "/" => std::future::pending().await,
                _ => Response::new(Payload::full("whole")),
            }
        };
        let (address, tasks) = served(never, terms(HEAD, Duration::from_millis(300))).await;
        let (client, ended) = http2(address, 1 << 20).await;
        ended.await.expect("a connection without a request is closed");
        drop(client);
        tasks.stop(HEAD).await;

        let (address, tasks) = served(never, terms(HEAD, HEAD)).await;
        let (mut client, ended) = http2(address, 1 << 20).await;
        let mut many = get(address);
        *many.uri_mut() = format!("http://{address}/whole").parse().unwrap();
        for n in 0..200 {
            let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
            many.headers_mut().insert(name, 1.into());
        }
        let refused = client.send_request(many).await.unwrap();
        assert_eq!(refused.status(), 431);
        // each is asked and given up, one after another
        for _ in 0..100_000 {
            let asked = client.send_request(get(address));
            if tokio::time::timeout(Duration::from_millis(1), asked).await.is_ok_and(|a| a.is_err())
            {
                break;
            }
        }
        ended.await.expect("who only resets is ended");
        tasks.stop(HEAD).await;
    }

    /// Sends a long body to a handler that reads nothing of it. Each piece is told when there is room
    /// for it, so when a window lets the one before through.
    async fn sent_unread(lent: u64) -> (tokio::sync::mpsc::UnboundedReceiver<u64>, [Tasks; 3]) {
        let mut terms = terms(HEAD, HEAD);
        terms.windows = Arc::new(Mutex::new(Windows::new(lent)));
        let (address, tasks) = served(|_| std::future::pending(), terms).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .max_send_buf_size(1)
                .handshake(TokioIo::new(stream))
                .await
                .unwrap();
        let (told, asked) = tokio::sync::mpsc::unbounded_channel();
        let pieces = futures::stream::iter(0..4096u64).map(move |n| {
            let _ = told.send(n * PIECE as u64);
            Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[7; PIECE])))
        });
        let request = hyper::Request::post(format!("http://{address}/"));
        let request = request.body(StreamBody::new(pieces)).unwrap();
        let (connected, sending) = (Tasks::new(), Tasks::new());
        connected.spawn("client", async move { drop(connection.await) });
        sending.spawn("request", async move { drop(sender.send_request(request).await) });
        (asked, [tasks, connected, sending])
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn over_http2_as_much_of_a_body_is_under_way_as_memory_is_lent() {
        let (mut little, first) = sent_unread(0).await;
        let (mut much, second) = sent_unread(64 << 20).await;
        for (sent, least) in [(&mut little, 900 << 10), (&mut much, 15 << 20)] {
            while sent.recv().await.expect("the request is still sending") < least {}
        }
        // meanwhile the first has not gone on
        let mut last = 0;
        while let Ok(sent) = little.try_recv() {
            last = sent;
        }
        assert!(last < 2 << 20, "{last} bytes, and 1 MiB may be under way");
        for tasks in first.into_iter().chain(second) {
            tasks.stop(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_body_that_breaks_off_ends_with_fin_and_not_with_a_reset() {
        let (address, tasks) = served(|_| async { broken_off() }, terms(HEAD, HEAD)).await;
        let asked = ground::supervise::blocking(move || {
            let mut socket = std::net::TcpStream::connect(address).unwrap();
            socket.set_read_timeout(Some(HEAD)).unwrap();
            socket.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            let mut first = [0; 1];
            socket.read_exact(&mut first).unwrap();
            // with unread bytes, a plain close would send a reset
            socket.write_all(&[b'x'; 100_000]).unwrap();
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).map(|_| rest)
        });
        let rest = asked.await.unwrap().expect("the end must not be a reset");
        let body = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let arrived = rest.len() - body;
        assert!(
            (1..=SENT).contains(&arrived),
            "of {SENT} bytes that were allowed arrived {arrived}"
        );
        tasks.stop(HEAD).await;
    }
}
