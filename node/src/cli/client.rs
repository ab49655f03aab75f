//! Requests to a node's API from the command line.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rules::words::secret::Secret;
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::shown::safe;

/// The maximum time to an answer, and between two pieces of its body. A node that can write nothing says
/// so after `deadlines.commit`, which is 10 s if nobody has set it.
const PATIENCE: Duration = Duration::from_secs(15);
/// The maximum size in bytes of an answer that is read as a whole.
const WHOLE: usize = 32 << 20;

/// The node to ask, and the credentials.
pub(super) struct Client {
    url: Uri,
    /// The value of `Authorization`.
    credentials: Option<Secret>,
    authority: Option<Vec<u8>>,
    /// The only certificate that is believed, if there is one.
    pinned: Option<CertificateDer<'static>>,
}

impl Client {
    /// Asks `url`, with the password in `password_file` if it is set. For https it trusts the
    /// public authorities and the CA in `authority`.
    pub(super) fn new(
        url: &str,
        user: Option<(&str, &Path)>,
        authority: Option<&Path>,
    ) -> io::Result<Self> {
        let Some((name, file)) = user else { return Self::anonymous(url, authority) };
        let password = std::fs::read_to_string(file)
            .map_err(|e| io::Error::other(format!("--password-file {}: {e}", file.display())))?;
        Self::with_password(url, name, &password.trim().to_owned().into(), authority)
    }

    /// The same with a password.
    pub(super) fn with_password(
        url: &str,
        user: &str,
        password: &Secret,
        authority: Option<&Path>,
    ) -> io::Result<Self> {
        let encoded = BASE64_STANDARD.encode(format!("{user}:{}", password.expose()));
        let credentials = Some(format!("Basic {encoded}").into());
        Ok(Client { credentials, ..Self::anonymous(url, authority)? })
    }

    fn anonymous(url: &str, authority: Option<&Path>) -> io::Result<Self> {
        let url: Uri = url.parse().map_err(|e| io::Error::other(format!("--url {url}: {e}")))?;
        let unread =
            |path: &Path, e: io::Error| io::Error::other(format!("--ca {}: {e}", path.display()));
        let authority =
            authority.map(|path| std::fs::read(path).map_err(|e| unread(path, e))).transpose()?;
        Ok(Client { url, credentials: None, authority, pinned: None })
    }

    /// The same client, which believes the first certificate in the file `certificate` and no other
    /// one: for a node whose settings are at hand. The certificate's CA, names and dates do not
    /// matter. An error if the file has no certificate.
    pub(super) fn pinned(mut self, certificate: &Path) -> io::Result<Self> {
        let read = CertificateDer::from_pem_file(certificate);
        self.pinned = Some(read.map_err(|e| {
            let file = certificate.display();
            io::Error::other(format!("the node's http.tls.certificate {file}: {e}"))
        })?);
        Ok(self)
    }

    /// The URL that it asks.
    pub(super) fn url(&self) -> String {
        self.url.to_string().trim_end_matches('/').to_owned()
    }

    /// GETs a JSON document.
    pub(super) async fn get(&self, path: &str) -> io::Result<Value> {
        let (status, body) = self.request(path).await?;
        if status != StatusCode::OK {
            let message = format!("{}: {}", self.url(), refusal(status, &body));
            return Err(io::Error::other(message));
        }
        serde_json::from_slice(&body).map_err(io::Error::other)
    }

    /// GETs `path` and returns status and body.
    pub(super) async fn request(&self, path: &str) -> io::Result<(StatusCode, Bytes)> {
        let answer = self.send(Call::get(path)).await?;
        let status = answer.status;
        Ok((status, answer.whole().await?))
    }

    /// Sends a request and reads the answer's head; the body is still to come.
    pub(super) async fn send(&self, call: Call<'_>) -> io::Result<ApiAnswer> {
        let exchange = async {
            let https = self.url.scheme_str() == Some("https");
            let host = self.url.host().ok_or_else(|| io::Error::other("--url has no host"))?;
            let port = self.url.port_u16().unwrap_or(if https { 443 } else { 80 });
            let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", self.url));
            let stream =
                TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(named)?;
            if https {
                let connector = self.connector()?;
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                    .map_err(io::Error::other)?;
                self.exchange(connector.connect(name, stream).await?, call).await
            } else {
                self.exchange(stream, call).await
            }
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| {
            Err(io::Error::other(format!("{} did not answer in time", self.url)))
        })
    }

    fn connector(&self) -> io::Result<tokio_rustls::TlsConnector> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        if let Some(certificate) = self.pinned.clone() {
            let config = config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned { certificate, provider }))
                .with_no_client_auth();
            return Ok(Arc::new(config).into());
        }
        let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in
            CertificateDer::pem_slice_iter(self.authority.as_deref().unwrap_or_default())
        {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Arc::new(config).into())
    }

    async fn exchange<S>(&self, stream: S, call: Call<'_>) -> io::Result<ApiAnswer>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let own_host = self.url.authority().map_or("", |a| a.as_str());
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(header::HOST, call.host.unwrap_or(own_host))
            .header(header::CONNECTION, "close");
        if let Some(credentials) = call.authorization.or(self.credentials.as_ref()) {
            request = request.header(header::AUTHORIZATION, credentials.expose());
        }
        for accepted in call.accept {
            request = request.header(header::ACCEPT, *accepted);
        }
        if call.names {
            request = request.header("x-is-resource-name", "true");
        }
        if !call.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, call.content_type);
        }
        let request = request.body(Full::new(call.body)).map_err(io::Error::other)?;
        // the connection must be polled while the answer is awaited
        let mut connection: Driven = Box::pin(connection);
        let mut sent = std::pin::pin!(sender.send_request(request));
        let (response, ended) = tokio::select! {
            response = sent.as_mut() => (response.map_err(io::Error::other)?, false),
            ended = &mut connection => {
                ended.map_err(io::Error::other)?;
                (sent.await.map_err(io::Error::other)?, true)
            }
        };
        let (head, body) = response.into_parts();
        let connection = (!ended).then_some(connection);
        Ok(ApiAnswer { status: head.status, headers: head.headers, body, connection })
    }
}

/// Believes one certificate, from whoever proves to have its key.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        let why = "the node shows another certificate than the one in its http.tls.certificate";
        Err(rustls::Error::General(why.into()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

type Driven = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Why a node did not do what it was asked for, for people: its own sentence, if it has one.
pub(super) fn refusal(status: StatusCode, body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let reason = body["errors"][0]["message"].as_str().map(safe);
    let reason = reason.unwrap_or_else(|| format!("the node answered {status}"));
    match status {
        StatusCode::UNAUTHORIZED => format!("{reason} (`atoll login` again?)"),
        _ => reason,
    }
}

/// A request to be sent.
pub(super) struct Call<'a> {
    /// Its method.
    pub(super) method: Method,
    /// Its path, with the query.
    pub(super) path: &'a str,
    /// Its Host, if that differs from the URL's.
    pub(super) host: Option<&'a str>,
    /// Its `Authorization`, if that differs from the client's own.
    pub(super) authorization: Option<&'a Secret>,
    /// Its `Accept` lines.
    pub(super) accept: &'a [&'a str],
    /// Whether its path names projects, also those whose names look like numbers.
    pub(super) names: bool,
    /// Its body, or nothing.
    pub(super) body: Bytes,
    /// The media type of the body.
    pub(super) content_type: &'a str,
}

impl<'a> Call<'a> {
    /// A GET without additional headers.
    pub(super) fn get(path: &'a str) -> Self {
        Call {
            method: Method::GET,
            path,
            host: None,
            authorization: None,
            accept: &[],
            names: false,
            body: Bytes::new(),
            content_type: "application/json",
        }
    }
}

/// An answer whose body is still arriving.
pub(super) struct ApiAnswer {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its headers.
    pub(super) headers: HeaderMap,
    body: Incoming,
    connection: Option<Driven>,
}

impl ApiAnswer {
    /// A header, if it is present and text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next bytes of the body; `None` at its end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let next = async {
                match &mut self.connection {
                    None => Some(self.body.frame().await),
                    Some(connection) => tokio::select! {
                        biased;
                        frame = self.body.frame() => Some(frame),
                        // the connection has been read to its end: the rest of the body is in
                        // memory, or will never come
                        _ = connection => None,
                    },
                }
            };
            match tokio::time::timeout(PATIENCE, next).await {
                Err(_) => return Err(io::Error::other("no more of the body came for too long")),
                Ok(None) => self.connection = None,
                Ok(Some(None)) => return Ok(None),
                Ok(Some(Some(Err(error)))) => {
                    return Err(io::Error::other(format!("the body broke off: {error}")));
                }
                Ok(Some(Some(Ok(frame)))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, for short answers.
    pub(super) async fn whole(mut self) -> io::Result<Bytes> {
        let mut bytes = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if bytes.len() + piece.len() > WHOLE {
                return Err(io::Error::other("the answer is too long"));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_nodes_sentence_and_no_json() {
        let body =
            br#"{"errors":[{"code":"DENIED","message":"ann may not do this","detail":null}]}"#;
        assert_eq!(refusal(StatusCode::FORBIDDEN, body), "ann may not do this");
        assert!(refusal(StatusCode::UNAUTHORIZED, body).contains("atoll login"));
        for odd in [&b""[..], b"<html>", b"{}", b"{\"errors\":[]}"] {
            assert_eq!(refusal(StatusCode::BAD_GATEWAY, odd), "the node answered 502 Bad Gateway");
        }
    }
}
