//! Connections to upstreams. The name is resolved, each address is checked, and the connection goes
//! to a checked address, with TLS, and is kept for later requests. The same check applies to every
//! host that an upstream redirects to, and to token services.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use ground::supervise::Tasks;
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::default_port;
use super::{AddressRule, UpstreamError};

/// How long an unused connection is kept. Load balancers close them after about a minute, so this
/// is shorter.
const IDLE: Duration = Duration::from_secs(30);
/// The maximum number of unused connections that are kept to each host.
const IDLE_CONNECTIONS: usize = 16;
/// How long an address may take to answer before the next one is tried as well.
const STAGGER: Duration = Duration::from_millis(250);

/// The certificates that are trusted.
#[derive(Clone)]
pub struct Trust(Arc<rustls::ClientConfig>);

/// Why the given certificates cannot be trusted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the upstream's CA certificates cannot be used: {0}")]
pub struct BadTrust(String);

impl Trust {
    /// Trusts the public authorities (Mozilla's list). Create one and share it, because it also
    /// remembers TLS sessions.
    pub fn public() -> Result<Self, BadTrust> {
        Trust::with_authorities(&[])
    }

    /// Trusts the public authorities, and those in `pem`.
    pub fn with_authorities(pem: &[u8]) -> Result<Self, BadTrust> {
        let bad = |error: &dyn std::fmt::Display| BadTrust(error.to_string());
        let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
        }
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Trust(Arc::new(config)))
    }

    /// Trusts whoever answers, with whatever certificate. Only for what somebody has said that its
    /// certificate is not to be checked: who stands in between reads everything.
    pub fn unchecked() -> Result<Self, BadTrust> {
        let bad = |error: &dyn std::fmt::Display| BadTrust(error.to_string());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let any = AnyCertificate(provider.signature_verification_algorithms);
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| bad(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(any))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Trust(Arc::new(config)))
    }

    /// The same for what is not HTTP.
    pub(super) fn plain(&self) -> Arc<rustls::ClientConfig> {
        let mut config = (*self.0).clone();
        config.alpn_protocols = Vec::new();
        Arc::new(config)
    }
}

/// Takes each certificate. That the server has its key is checked all the same.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// The maximum number of headers in an answer. Every proxy on the way adds some.
const MAX_HEADERS: usize = 1000;

/// The connections to one upstream, and to the hosts that it redirects to.
#[derive(Clone)]
pub(super) struct Connections {
    client: Client<Connector, Full<Bytes>>,
    /// Keeps no connections, so each of its requests has a new one.
    fresh: Client<Connector, Full<Bytes>>,
    registry: Arc<str>,
}

/// Counts a request in the metrics when it was answered or given up, for whatever reason.
struct Counted {
    registry: Arc<str>,
    status: &'static str,
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::counter!("atoll_upstream_requests_total", "registry" => self.registry.to_string(), "status" => self.status)
            .increment(1);
    }
}

/// The class of a status. 429 has its own class, because it shows an upstream's limit.
fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        429 => "429",
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

impl Connections {
    /// No connections yet. A connection must be open within `deadline`. Requests are counted for
    /// `registry`, wherever they lead.
    pub(super) fn new(
        registry: &str,
        rule: AddressRule,
        trust: Trust,
        deadline: Duration,
        tasks: Tasks,
    ) -> Self {
        let connector = Connector { rule, tls: trust.0.into(), deadline };
        let fresh = Client::builder(Supervised(tasks.clone()))
            .http1_max_headers(MAX_HEADERS)
            .pool_max_idle_per_host(0)
            .build(connector.clone());
        let client = Client::builder(Supervised(tasks))
            .http1_max_headers(MAX_HEADERS)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Connections { client, fresh, registry: registry.into() }
    }

    /// Sends `request`, whose URL is absolute, and waits for the head of the answer. The caller
    /// sets the deadline. If a GET or HEAD is not answered because the connection ended, it is sent
    /// once more on a new connection (RFC 9112 section 9.3.1): a server may close a kept connection
    /// just when the next request comes.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut counted = Counted { registry: self.registry.clone(), status: "none" };
        let host = request.uri().host().unwrap_or_default().to_owned();
        let again =
            matches!(*request.method(), Method::GET | Method::HEAD).then(|| request.clone());
        let mut answered = self.client.request(request).await;
        if let (Err(error), Some(again)) = (&answered, again)
            && ended(error)
        {
            counted.status = "closed";
            drop(std::mem::replace(
                &mut counted,
                Counted { registry: self.registry.clone(), status: "none" },
            ));
            answered = self.fresh.request(again).await;
        }
        if let Ok(response) = &answered {
            counted.status = class(response.status());
        }
        answered.map_err(|error| {
            let mut source: Option<&(dyn Error + 'static)> = Some(&error);
            let mut last = String::new();
            while let Some(inner) = source {
                if let Some(known) = inner.downcast_ref::<UpstreamError>() {
                    return known.clone();
                }
                last = inner.to_string();
                source = inner.source();
            }
            UpstreamError::unreachable(format!("{host}: {last}"))
        })
    }
}

/// Whether an open connection ended before the head of an answer had come.
fn ended(error: &hyper_util::client::legacy::Error) -> bool {
    if error.is_connect() {
        return false;
    }
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_canceled() || error.is_closed())
        {
            return true;
        }
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            use io::ErrorKind::{
                BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
            };
            return [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof]
                .contains(&error.kind());
        }
        source = inner.source();
    }
    false
}

/// Runs a connection as one of the node's tasks.
#[derive(Clone)]
struct Supervised(Tasks);

impl<F> hyper::rt::Executor<F> for Supervised
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn("upstream.connection", task);
    }
}

#[derive(Clone)]
struct Connector {
    rule: AddressRule,
    tls: TlsConnector,
    deadline: Duration,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Socket>;
    type Error = UpstreamError;
    type Future = BoxFuture<'static, Result<Self::Response, UpstreamError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UpstreamError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
            match tokio::time::timeout(connector.deadline, connector.connect(&url, host)).await {
                Ok(result) => result.map(TokioIo::new),
                Err(_) => Err(UpstreamError::unreachable(format!(
                    "{host} did not accept a connection in time"
                ))),
            }
        })
    }
}

impl Connector {
    async fn connect(&self, url: &Uri, host: &str) -> Result<Socket, UpstreamError> {
        let failed = |error: io::Error| UpstreamError::unreachable(format!("{host}: {error}"));
        let scheme = url.scheme().unwrap_or(&Scheme::HTTPS);
        let port = url.port_u16().unwrap_or(default_port(scheme));
        let addresses = self.addresses(host, port).await?;
        let stream = open(addresses).await.map_err(failed)?;
        let _ = stream.set_nodelay(true);
        if *scheme == Scheme::HTTP {
            return Ok(Socket::Plain(stream));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(UpstreamError::bad)?;
        Ok(Socket::Tls(Box::new(self.tls.connect(name, stream).await.map_err(failed)?)))
    }

    /// The addresses of `host` that may be connected to.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, UpstreamError> {
        let resolved: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => tokio::net::lookup_host((host, port))
                .await
                .map_err(|error| UpstreamError::unreachable(format!("{host}: {error}")))?
                .collect(),
        };
        let permitted: Vec<_> =
            resolved.iter().copied().filter(|a| self.rule.permits(a.ip())).collect();
        match (permitted.first(), resolved.first()) {
            (Some(_), _) => Ok(alternating(permitted)),
            (None, Some(refused)) => Err(UpstreamError::Refused(
                format!(
                    "{host} is at {}, which upstreams.allow_private and the like do not permit (of atoll scanner-adapter: --allow-private, --allow-loopback)",
                    refused.ip()
                )
                .into(),
            )),
            (None, None) => Err(UpstreamError::unreachable(format!("{host} has no address"))),
        }
    }
}

/// The resolver's order, with the first address of the other family moved to second place. If IPv6
/// does not work, this costs [`STAGGER`] and not the deadline.
fn alternating(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    if let Some(other) = addresses.iter().position(|a| a.is_ipv6() != first_is_v6) {
        addresses[1..=other].rotate_right(1);
    }
    addresses
}

/// Connects to the address that answers first. Each address has a head start over the next.
async fn open(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts: FuturesUnordered<_> =
        waiting.next().map(TcpStream::connect).into_iter().collect();
    loop {
        let next = tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => match waiting.next() {
                    None if attempts.is_empty() => return Err(error),
                    next => next,
                },
            },
            () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => waiting.next(),
            else => return Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        attempts.extend(next.map(TcpStream::connect));
    }
}

/// A connection, with or without TLS.
enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    fn inner(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        let stream: &mut dyn Duplex = match self.get_mut() {
            Socket::Plain(stream) => stream,
            Socket::Tls(stream) => &mut **stream,
        };
        Pin::new(stream)
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_family_is_tried_second() {
        let addresses =
            |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let given = addresses(&["[2606::1]:1", "[2606::2]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        assert_eq!(
            alternating(given),
            addresses(&["[2606::1]:1", "1.1.1.1:1", "[2606::2]:1", "1.1.1.2:1"])
        );
        let one = addresses(&["1.1.1.1:1", "1.1.1.2:1"]);
        assert_eq!(alternating(one.clone()), one);
        assert_eq!(alternating(Vec::new()), []);
    }
}
