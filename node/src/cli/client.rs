//! Asking a node's API from the command line.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where to ask, and as whom.
pub(super) struct Client {
    url: Uri,
    credentials: Option<String>,
    authority: Option<Vec<u8>>,
}

impl Client {
    /// Asks `url`, with the password in `password_file` if there is one, trusting the CA in `authority` for https.
    pub(super) fn new(url: &str, user: Option<(&str, &Path)>, authority: Option<&Path>) -> io::Result<Self> {
        let url: Uri = url.parse().map_err(|e| io::Error::other(format!("--url {url}: {e}")))?;
        let credentials = match user {
            Some((name, file)) => {
                let password = std::fs::read_to_string(file)
                    .map_err(|e| io::Error::other(format!("--password-file {}: {e}", file.display())))?;
                Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{}", password.trim()))))
            }
            None => None,
        };
        let authority = authority.map(std::fs::read).transpose()?;
        Ok(Client { url, credentials, authority })
    }

    /// GETs a JSON document.
    pub(super) async fn get(&self, path: &str) -> io::Result<Value> {
        let (status, body) = self.request(path).await?;
        if status != StatusCode::OK {
            let message = format!("{}{path} answered {status}: {}", self.url, String::from_utf8_lossy(&body));
            return Err(io::Error::other(message));
        }
        serde_json::from_slice(&body).map_err(io::Error::other)
    }

    /// GETs `path` and gives its status and body.
    pub(super) async fn request(&self, path: &str) -> io::Result<(StatusCode, Bytes)> {
        let exchange = async {
            let https = self.url.scheme_str() == Some("https");
            let host = self.url.host().ok_or_else(|| io::Error::other("--url has no host"))?;
            let port = self.url.port_u16().unwrap_or(if https { 443 } else { 80 });
            let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
            if https {
                let connector = self.connector()?;
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                self.exchange(connector.connect(name, stream).await?, path).await
            } else {
                self.exchange(stream, path).await
            }
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| Err(io::Error::other(format!("{} did not answer in time", self.url))))
    }

    fn connector(&self) -> io::Result<tokio_rustls::TlsConnector> {
        let pem = self.authority.as_ref().ok_or_else(|| io::Error::other("an https --url needs --ca FILE"))?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config).into())
    }

    async fn exchange<S>(&self, stream: S, path: &str) -> io::Result<(StatusCode, Bytes)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let mut request = Request::get(path)
            .header(header::HOST, self.url.authority().map_or("", |a| a.as_str()))
            .header(header::CONNECTION, "close");
        if let Some(credentials) = &self.credentials {
            request = request.header(header::AUTHORIZATION, credentials);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
            Ok((status, body))
        };
        // the connection has to be driven while the answer is awaited
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            result = answer.as_mut() => result,
            ended = connection.as_mut() => {
                ended.map_err(io::Error::other)?;
                answer.await
            }
        }
    }
}
