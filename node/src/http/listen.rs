//! Connections: plain or TLS, kept alive, and closed gracefully when draining.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use config::Tls;
use ground::supervise::Tasks;
use http::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rules::people::crowd::{Crowd, Full};
use rules::words::network::Network;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::Payload;
use super::certificate::Certificate;
use super::patience::Patient;
use super::small_first::SmallFirst;

/// How long a client may take for the TLS handshake, and for a request's head.
const HEAD: Duration = Duration::from_secs(30);
/// The maximum size of a head in bytes. Also the maximum that is read of a body at once.
const HEAD_BYTES: usize = 256 << 10;

/// A bound socket that is not served yet.
pub struct Listener {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    certificate: Option<Arc<Certificate>>,
}

impl Listener {
    /// Binds `address`, and reads the certificate if there is one.
    pub async fn bind(address: SocketAddr, tls: Option<&Tls>) -> io::Result<Self> {
        let named = |e: io::Error, what: &str| io::Error::new(e.kind(), format!("{what}: {e}"));
        let socket = TcpListener::bind(address)
            .await
            .map_err(|e| named(e, &format!("cannot listen on http.listen {address}")))?;
        let unusable = |e| named(e, "http.tls cannot be used");
        let certificate = tls.map(Certificate::read).transpose().map_err(unusable)?;
        let tls = certificate.clone().map(acceptor).transpose().map_err(unusable)?;
        Ok(Listener { socket, tls, certificate })
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

fn acceptor(certificate: Arc<Certificate>) -> io::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// How many connections are served at a time, and how long each may rest.
#[derive(Clone, Debug)]
pub struct ConnectionTerms {
    /// How long a client may read nothing.
    pub stall: Duration,
    /// The maximum number in all.
    pub most: usize,
    /// The maximum number from one address.
    pub each: usize,
    /// The addresses behind which there are many clients.
    pub proxies: Vec<Network>,
}

/// What a client reads whose connection is one too many.
const CROWDED: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A connection that is counted until it is dropped.
struct Inside {
    crowd: Arc<Mutex<Crowd>>,
    address: IpAddr,
}

impl Inside {
    fn enter(crowd: &Arc<Mutex<Crowd>>, address: IpAddr, proxy: bool) -> Result<Self, Full> {
        let mut open = crowd.lock();
        open.enter(address, proxy)?;
        metrics::gauge!("atoll_connections_open").set(open.open() as f64);
        Ok(Inside { crowd: crowd.clone(), address })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut open = self.crowd.lock();
        open.leave(self.address);
        metrics::gauge!("atoll_connections_open").set(open.open() as f64);
    }
}

/// Serves connections until the group stops. Gives up clients that read nothing for too long. After
/// the stop, open requests continue, and their connections close after them.
pub async fn serve<H, F>(listener: Listener, handle: H, terms: ConnectionTerms, tasks: Tasks)
where
    H: Fn(hyper::Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Payload>> + Send + 'static,
{
    let ConnectionTerms { stall, most, each, proxies } = terms;
    let crowd = Arc::new(Mutex::new(Crowd::new(most, each)));
    loop {
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
        let proxy = proxies.iter().any(|network| network.contains(peer.ip()));
        let inside = match Inside::enter(&crowd, peer.ip(), proxy) {
            Ok(inside) => inside,
            Err(full) => {
                metrics::counter!("atoll_connections_refused_total", "full" => full.word())
                    .increment(1);
                // the rest of an answer that does not fit at once is not worth a task
                if listener.tls.is_none() {
                    let _ = stream.try_write(CROWDED);
                }
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (handle, tls, inner) = (handle.clone(), listener.tls.clone(), tasks.clone());
        tasks.spawn_draining("http.connection", async move {
            let _inside = inside;
            let client = ClientAddress(peer.ip());
            match tls {
                None => connection(Patient::new(stream, stall), client, handle, inner).await,
                Some(tls) => match tokio::time::timeout(HEAD, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let stream = Patient::new(SmallFirst::new(stream), stall);
                        connection(stream, client, handle, inner).await;
                    }
                    Ok(Err(error)) => debug!(client = %peer, %error, "TLS handshake failed"),
                    Err(_) => debug!(client = %peer, "TLS handshake took too long"),
                },
            }
        });
    }
}

/// The address from which a request came: an extension of each request.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientAddress(pub(super) IpAddr);

async fn connection<S, H, F>(stream: S, client: ClientAddress, handle: H, tasks: Tasks)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(hyper::Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Payload>> + Send + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(client);
        let response = handle(request);
        async move { Ok::<_, std::convert::Infallible>(response.await) }
    });
    // without pipeline_flush, which would make hyper copy every body
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);
    let result = tokio::select! {
        result = &mut connection => result,
        () = tasks.stopping() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use store::{Buffers, FileBody};
    use tokio::sync::watch;

    const SENT: usize = 300_000;

    /// A blob of a million bytes of which only some arrive before it breaks off.
    fn broken_off() -> Response<Payload> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; SENT]).unwrap();
        let (allowed, following) = watch::channel(Ok(SENT as u64));
        drop(allowed);
        let body =
            FileBody::arriving(Arc::new(file), 0..1_000_000, &Buffers::default(), following, HEAD);
        let mut response = Response::new(Payload::File(Box::new(body)));
        response.headers_mut().insert(http::header::CONTENT_LENGTH, 1_000_000.into());
        response
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_body_that_breaks_off_ends_with_fin_and_not_with_a_reset() {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), None).await.unwrap();
        let (address, tasks) = (listener.address().unwrap(), Tasks::new());
        let handle = |_| async { broken_off() };
        let terms = ConnectionTerms { stall: HEAD, most: 9, each: 9, proxies: Vec::new() };
        tasks.spawn_draining("http", serve(listener, handle, terms, tasks.clone()));
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
