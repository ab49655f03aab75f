//! TLS handshakes. One costs as much of a processor as several requests, and whoever begins it need
//! not end it. So few are computed at a time: a storm of them leaves the rest of the machine to
//! connections that are there.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::certificate::Certificate;

/// What a client is offered over TLS, the best first (RFC 7301).
pub(super) const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Shakes hands for a listener.
pub(super) struct Handshakes {
    config: Arc<rustls::ServerConfig>,
    turns: Semaphore,
}

impl Handshakes {
    /// With this certificate. Half of the machine's processors compute at a time.
    pub(super) fn new(certificate: Arc<Certificate>) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(certificate);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
        Ok(Handshakes { config: Arc::new(config), turns: Semaphore::new((processors / 2).max(1)) })
    }

    /// The connection, when its client has begun a handshake. Nothing was computed for it yet. How
    /// long the client may take is for the caller to bound.
    pub(super) async fn hello(stream: TcpStream) -> io::Result<StartHandshake<TcpStream>> {
        LazyConfigAcceptor::new(Acceptor::default(), stream).await
    }

    /// The stream, when both sides have shaken hands. How long the client may take is for the caller
    /// to bound: no turn is held while it is waited for.
    pub(super) async fn shake(
        &self,
        hello: StartHandshake<TcpStream>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let answered = {
            let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
            // exchanges keys, and signs
            hello.into_stream(self.config.clone())
        };
        answered.await
    }
}
