//! A client of our own over blocking sockets, because a measuring client must cost less than what
//! it measures.
//!
//! Client and server share the machine's cores, so what the client burns is taken from the server.
//! One thread per connection, `read` into one buffer that stays in the cache, no allocation per
//! request beyond a `Location`: a small GET costs about what the two system calls cost. A client of
//! hyper's would hand every frame of a blob through a queue and a waker, which is as dear as
//! sending it. It speaks only what is measured: HTTP/1.1, plain or over TLS, one request at a time,
//! no redirects.

mod connection;
mod head;
mod stream;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rules::words::digest::Hasher;
use rules::words::secret::Secret;

use connection::Connection;

/// How long one read or write may take before the request counts as failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a server answers, and as whom to ask.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) host: String,
    /// The value of `Authorization`, if any.
    authorization: Option<Secret>,
    /// The network namespace to ask from, if it is not ours.
    network: Option<PathBuf>,
    /// How to speak TLS, if it is to be spoken.
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Target {
    /// The server at `host:port`, for anonymous requests.
    pub(crate) fn at(host: &str) -> Self {
        Target { host: host.to_owned(), authorization: None, network: None, tls: None }
    }

    /// Reads `http://[user:password@]host:port[/]`.
    pub(crate) fn of_url(url: &str) -> anyhow::Result<Self> {
        let Some(rest) = url.strip_prefix("http://") else {
            anyhow::bail!("{url}: only http:// can be measured")
        };
        let rest = rest.trim_end_matches('/');
        anyhow::ensure!(!rest.contains('/') && !rest.is_empty(), "{url}: a base URL has no path");
        let (login, host) =
            rest.rsplit_once('@').map_or((None, rest), |(login, host)| (Some(login), host));
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let target = Target::at(&host);
        Ok(match login.and_then(|login| login.split_once(':')) {
            Some((user, password)) => target.basic(user, password),
            None => target,
        })
    }

    /// The same server, asked by `user`.
    pub(crate) fn basic(mut self, user: &str, password: &str) -> Self {
        self.authorization =
            Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into());
        self
    }

    /// Another server for the same user.
    pub(crate) fn moved(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    /// The same server, asked from inside a network namespace, named by its file in `/proc`.
    pub(crate) fn inside(mut self, network: &Path) -> Self {
        self.network = Some(network.to_owned());
        self
    }

    /// The same server over TLS, if it is to be spoken.
    pub(crate) fn tls(mut self, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        self.tls = tls;
        self
    }

    /// A client without a connection yet.
    pub(crate) fn client(&self) -> Client {
        Client { target: self.clone(), patience: PATIENCE, connection: None, out: Vec::new() }
    }
}

/// One request. Its body is written part by part, so a large one needs no copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    method: &'a str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: Option<&'a [&'a [u8]]>,
}

impl<'a> Request<'a> {
    /// A request without a body.
    pub(crate) fn new(method: &'a str, path: &'a str) -> Self {
        Request { method, path, headers: &[], body: None }
    }

    /// With these header fields.
    pub(crate) fn headers(self, headers: &'a [(&'a str, &'a str)]) -> Self {
        Request { headers, ..self }
    }

    /// With this body.
    pub(crate) fn body(self, parts: &'a [&'a [u8]]) -> Self {
        Request { body: Some(parts), ..self }
    }

    /// Writes the head as it goes over the wire.
    fn write_head(&self, target: &Target, out: &mut Vec<u8>) {
        let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
        for part in [self.method, " ", self.path, " HTTP/1.1\r\nHost: ", &target.host, "\r\n"] {
            put(part);
        }
        let authorization =
            target.authorization.as_ref().map(|value| ("Authorization", value.expose().as_str()));
        for (name, value) in self.headers.iter().copied().chain(authorization) {
            for part in [name, ": ", value, "\r\n"] {
                put(part);
            }
        }
        if let Some(body) = self.body {
            put(&format!(
                "Content-Length: {}\r\n",
                body.iter().map(|part| part.len()).sum::<usize>()
            ));
        }
        put("\r\n");
    }
}

/// Where a body goes.
pub(crate) enum Sink<'a> {
    /// Nowhere: it is only counted.
    Discard,
    /// Behind what is already there.
    Keep(&'a mut Vec<u8>),
    /// Through a hash.
    Hash(&'a mut Hasher),
    /// For a caller that handles the pieces as they come, at its own pace.
    Look(&'a mut dyn FnMut(&[u8])),
}

impl fmt::Debug for Sink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sink::Discard => "Discard",
            Sink::Keep(_) => "Keep",
            Sink::Hash(_) => "Hash",
            Sink::Look(_) => "Look",
        })
    }
}

impl Sink<'_> {
    fn take(&mut self, bytes: &[u8]) {
        match self {
            Sink::Discard => {}
            Sink::Keep(all) => all.extend_from_slice(bytes),
            Sink::Hash(hasher) => hasher.update(bytes),
            Sink::Look(look) => look(bytes),
        }
    }
}

/// The whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// Where to go on, as the server wrote it.
    pub(crate) location: Option<String>,
    /// Whether it warns that it may be stale.
    pub(crate) warned: bool,
    /// The body's length as received.
    pub(crate) bytes: u64,
    /// From the first byte sent to the whole head read.
    pub(crate) first: Duration,
    /// From the first byte sent to the last byte read.
    pub(crate) total: Duration,
}

/// A keep-alive connection that is opened when it is needed, and again when the server closed it.
#[derive(Debug)]
pub(crate) struct Client {
    target: Target,
    patience: Duration,
    connection: Option<Connection>,
    out: Vec<u8>,
}

impl Client {
    /// The same client, but a read or write may take no longer than this.
    pub(crate) fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Opens the connection now, so that the next request need not.
    pub(crate) fn connect(&mut self) -> io::Result<()> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(&self.target, self.patience)?);
        }
        Ok(())
    }

    /// Sends a request and reads the whole answer. After an error, which names the request, the
    /// next one opens a new connection.
    pub(crate) fn send(
        &mut self,
        request: &Request<'_>,
        sink: &mut Sink<'_>,
    ) -> io::Result<Answer> {
        let exchange = self.exchange(request, sink);
        if !matches!(exchange, Ok((_, true))) {
            self.connection = None;
        }
        exchange.map(|(answer, _)| answer).map_err(|error| self.named(request, &error))
    }

    fn exchange(
        &mut self,
        request: &Request<'_>,
        sink: &mut Sink<'_>,
    ) -> io::Result<(Answer, bool)> {
        self.connect()?;
        let Some(connection) = &mut self.connection else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        self.out.clear();
        request.write_head(&self.target, &mut self.out);
        connection.exchange(
            &self.out,
            request.body.unwrap_or_default(),
            request.method == "HEAD",
            sink,
        )
    }

    /// An error that says what was asked, and calls a time-out by its name: the system calls it
    /// "temporarily unavailable".
    fn named(&self, request: &Request<'_>, error: &io::Error) -> io::Error {
        let Request { method, path, .. } = request;
        let host = &self.target.host;
        if error.kind() == io::ErrorKind::WouldBlock {
            let text =
                format!("{method} http://{host}{path}: nothing moved for {:?}", self.patience);
            return io::Error::new(io::ErrorKind::TimedOut, text);
        }
        io::Error::new(error.kind(), format!("{method} http://{host}{path}: {error}"))
    }

    /// GET of a path, the body thrown away.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send(&Request::new("GET", path), &mut Sink::Discard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_name_who_asks() {
        let target = Target::of_url("http://admin:secret@127.0.0.1:5000/").unwrap();
        assert_eq!(target.host, "127.0.0.1:5000");
        assert_eq!(target.authorization, Some("Basic YWRtaW46c2VjcmV0".into()));
        assert!(!format!("{target:?}").contains("YWRtaW46c2VjcmV0"));
        assert_eq!(Target::of_url("http://zot").unwrap().host, "zot:80");
        assert!(Target::of_url("https://zot").is_err());
        assert!(Target::of_url("http://zot/path").is_err());
    }

    #[test]
    fn a_request_is_written_with_its_length() {
        let mut out = Vec::new();
        let request = Request::new("PUT", "/v2/").headers(&[("Accept", "x")]).body(&[b"ab", b"c"]);
        request.write_head(&Target::at("h:1"), &mut out);
        assert_eq!(
            out,
            b"PUT /v2/ HTTP/1.1\r\nHost: h:1\r\nAccept: x\r\nContent-Length: 3\r\n\r\n"
        );
    }
}
