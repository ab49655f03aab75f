//! A registry that answers as a test tells it to.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use ground::supervise::Tasks;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{AddressRule, Credentials, Password, Trust, Upstream, UpstreamSettings, UpstreamTerms};

pub(super) type Body = BoxBody<Bytes, io::Error>;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A server on a free port of this machine.
pub(super) struct Stage {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    pub(super) tasks: Tasks,
}

impl Stage {
    /// Answers with `answer`.
    pub(super) async fn open<F>(answer: F) -> Self
    where
        F: Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    {
        Stage::open_tls(None, answer).await
    }

    pub(super) async fn open_tls<F>(tls: Option<TlsAcceptor>, answer: F) -> Self
    where
        F: Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections, tasks) =
            (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)), Tasks::new());
        let answer = Arc::new(answer);
        let (log, count, inner) = (seen.clone(), connections.clone(), tasks.clone());
        tasks.spawn("stage", async move {
            while let Ok((stream, _)) = listener.accept().await {
                *count.lock() += 1;
                let (log, answer, tls) = (log.clone(), answer.clone(), tls.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (log, answer) = (log.clone(), answer.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let body =
                            body.collect().await.map(|whole| whole.to_bytes()).unwrap_or_default();
                        let seen = Seen {
                            method: head.method,
                            path: head.uri.path().to_owned(),
                            query: head.uri.query().unwrap_or_default().to_owned(),
                            headers: head.headers,
                            body,
                        };
                        let response = answer(&seen);
                        log.lock().push(seen);
                        Ok::<_, Infallible>(response)
                    }
                });
                inner.spawn("stage.connection", async move {
                    let builder = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                let _ =
                                    builder.serve_connection(TokioIo::new(stream), service).await;
                            }
                        }
                    }
                });
            }
        });
        Stage { address, seen, connections, tasks }
    }

    /// The requests so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// How many of them were for `path`.
    pub(super) fn count(&self, path: &str) -> usize {
        self.seen.lock().iter().filter(|seen| seen.path == path).count()
    }

    /// How many connections there have been.
    pub(super) fn connections(&self) -> usize {
        *self.connections.lock()
    }

    /// What this server is to a node.
    pub(super) fn upstream(&self) -> Upstream {
        Upstream::new(self.settings(), self.tasks.clone())
    }

    pub(super) fn settings(&self) -> UpstreamSettings {
        settings(&format!("http://{}", self.address))
    }
}

/// With terms that no machine is too slow for.
pub(super) fn settings(url: &str) -> UpstreamSettings {
    UpstreamSettings {
        endpoint: url.parse().unwrap(),
        credentials: None,
        trust: Trust::public().unwrap(),
        rule: AddressRule { allow_private: false, allow_loopback: true },
        terms: UpstreamTerms {
            first_byte: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            question: Duration::from_secs(30),
            max_manifest: 1 << 20,
        },
        on_limit: Arc::new(|_, _| ()),
    }
}

pub(super) fn robot() -> Option<Credentials> {
    Some(Credentials::Password(Password { user: "robot".into(), password: "secret".into() }))
}

pub(super) fn answer(
    status: u16,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response =
        Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        response.headers_mut().append(name, value.parse().unwrap());
    }
    response
}

/// `bytes` as a gzip file.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// Answers 200 with a whole body whose length is not told.
pub(super) fn unmeasured(all: &'static [u8]) -> Response<Body> {
    let pieces = futures::stream::iter([Ok(Frame::data(Bytes::from_static(all)))]);
    Response::new(BodyExt::boxed(StreamBody::new(pieces)))
}

/// Answers 200 with a body that claims `length`, brings `part`, and then breaks off or says nothing
/// more.
pub(super) fn unfinished(length: usize, part: &'static [u8], silent: bool) -> Response<Body> {
    let start = futures::stream::iter([Ok(Frame::data(Bytes::from_static(part)))]);
    let body = if silent {
        BodyExt::boxed(StreamBody::new(start.chain(futures::stream::pending())))
    } else {
        let broken = async {
            // what was sent must leave before the connection breaks
            tokio::task::yield_now().await;
            Err(io::Error::other("the test broke it off"))
        };
        BodyExt::boxed(StreamBody::new(start.chain(futures::stream::once(broken))))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert("content-length", length.into());
    response
}
