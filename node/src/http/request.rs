//! Reads requests: headers, queries, and bodies, which must make progress.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderName, Method, Version, header};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use registry::pushes::receiving::Pieces;
use registry::view::neighbours::Neighbours;
use rules::people::guesses::Origin;
use rules::proxies::budget::client_of;
use rules::words::names::RepositoryName;
use rules::words::network::{Network, client_behind, is_host, is_trusted};
use rules::words::secret::Secret;

use super::connection::ClientAddress;
use super::errors::{Code, Failure};

/// The name of the cookie of a session (Harbor's, `src/core/main.go`).
pub const SESSION: &str = "sid";

/// A request whose head was read.
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its head.
    pub head: Parts,
    /// Its body, which is still to come.
    pub body: Arrival,
    /// The address from which it came, or that a trusted proxy names.
    pub client: IpAddr,
    query: HashMap<String, String>,
    tags: Vec<String>,
    written: Option<NamedRepository>,
    forwarded: Forwarded,
    announces_body: bool,
}

/// What a trusted proxy says of the request that it got. Of several proxies the last one counts,
/// because a client can write the others.
#[derive(Debug, Default)]
struct Forwarded {
    host: Option<String>,
    https: Option<bool>,
}

/// A repository's name as the client wrote it, and its name in this mesh.
struct NamedRepository {
    written: String,
    meant: RepositoryName,
}

impl Request {
    /// Takes a request over. Its body may make no progress for at most `stall`. What proxies that
    /// are `trusted` say of the client is believed.
    pub fn new(request: hyper::Request<Incoming>, stall: Duration, trusted: &[Network]) -> Self {
        let (head, body) = request.into_parts();
        let is_http2 = head.version == Version::HTTP_2;
        let announces_body = !body.is_end_stream();
        let client = head.extensions.get::<ClientAddress>().map(|client| client.0);
        let peer = client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let forwarded: Vec<&str> = head
            .headers
            .get_all("x-forwarded-for")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let client = client_behind(trusted, peer, &forwarded);
        let last = |name| {
            let said = head.headers.get_all(name).iter().next_back()?.to_str().ok()?;
            let said = said.rsplit(',').next().unwrap_or_default().trim();
            Some(said.to_owned()).filter(|said| !said.is_empty())
        };
        let forwarded = match is_trusted(trusted, peer) {
            true => Forwarded {
                host: last("x-forwarded-host"),
                https: last("x-forwarded-proto").map(|word| word.eq_ignore_ascii_case("https")),
            },
            false => Forwarded::default(),
        };
        let mut query = HashMap::new();
        let mut tags = Vec::new();
        let pairs = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
        for (name, value) in pairs.filter(|(_, value)| !value.is_empty()) {
            if name == "tag" {
                tags.push(value.clone().into_owned());
            }
            query.insert(name.into_owned(), value.into_owned());
        }
        Request {
            method: head.method.clone(),
            head,
            body: Arrival { body, is_http2, stall, held: None },
            client,
            forwarded,
            announces_body,
            query,
            tags,
            written: None,
        }
    }

    /// Records that the name `written` in the path means the repository `meant`.
    pub fn meant(&mut self, written: &str, meant: &RepositoryName) {
        self.written = (written != meant.as_str())
            .then(|| NamedRepository { written: written.to_owned(), meant: meant.clone() });
    }

    /// The client's own name for `repository`, which is in the project that it asked for: the name
    /// in this mesh, or that of the registry that is mirrored.
    pub fn name_of(&self, repository: &RepositoryName) -> String {
        let prefix =
            self.written.as_ref().and_then(|w| w.written.strip_suffix(w.meant.within_project()));
        match prefix {
            Some(prefix) => format!("{prefix}{}", repository.within_project()),
            None => repository.to_string(),
        }
    }

    /// A URL path in `repository` for this client. A client of another registry repeats in every
    /// request which registry it means, so the path does so, too.
    pub fn place(&self, repository: &RepositoryName, what: &str) -> String {
        let ns = self.query("ns").map(|ns| {
            let encoded: String = form_urlencoded::byte_serialize(ns.as_bytes()).collect();
            format!("{}ns={encoded}", if what.contains('?') { '&' } else { '?' })
        });
        format!("/v2/{}/{what}{}", self.name_of(repository), ns.unwrap_or_default())
    }

    /// A parameter of the query. An empty one counts as absent.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// Whether the query has a parameter, empty or not: for requests in which an empty one must not mean
    /// everything.
    pub fn has_query(&self, name: &str) -> bool {
        let pairs = form_urlencoded::parse(self.head.uri.query().unwrap_or_default().as_bytes());
        pairs.into_iter().any(|(known, _)| known == name)
    }

    /// Fails if the query has another parameter than `known`: for requests in which one that is misspelt
    /// must not mean everything.
    pub fn knows_only(&self, known: &[&str]) -> Result<(), Failure> {
        let pairs = form_urlencoded::parse(self.head.uri.query().unwrap_or_default().as_bytes());
        for (name, _) in pairs {
            if !known.contains(&&*name) {
                let known = known.join(", ");
                let message = format!("there is no parameter {name:?} here; known are {known}");
                return Err(Failure::new(Code::BadRequest, message));
            }
        }
        Ok(())
    }

    /// Every `tag` parameter (distribution-spec end-7b).
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// From where it came, for what is counted of passwords.
    pub fn origin(&self) -> Origin {
        Origin::Client(client_of(self.client))
    }

    /// The host that the client named, perhaps with a port: in `Host`, or as a trusted proxy says.
    pub fn host(&self) -> Option<&str> {
        self.forwarded.host.as_deref().or_else(|| self.header(&header::HOST))
    }

    /// Refuses a request that does not say which host it means, or in a way that can be read as
    /// several (RFC 9112 section 3.2): what is made of it goes into answers.
    pub fn check_host(&self) -> Result<(), Failure> {
        let written = self.head.headers.get_all(header::HOST).iter().count();
        let needed = usize::from(self.head.version == Version::HTTP_11);
        let is_good = (needed..=1).contains(&written)
            && (written == 0 || self.header(&header::HOST).is_some_and(is_host))
            && self.forwarded.host.as_deref().is_none_or(is_host);
        if is_good {
            return Ok(());
        }
        let message = "a request names one host: `Host: NAME` or `Host: NAME:PORT`";
        Err(Failure::new(Code::BadRequest, message).closing())
    }

    /// Whether the client used TLS, if a trusted proxy says so.
    pub fn is_https_before_proxy(&self) -> Option<bool> {
        self.forwarded.https
    }

    /// Whether a body was announced that is not empty. Over HTTP/2 no header need say so.
    pub fn announces_body(&self) -> bool {
        self.announces_body
    }

    /// A header, if it is text.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The cookie of a session, if there are no other credentials: these count before it.
    pub fn session(&self) -> Option<Secret> {
        if self.head.headers.contains_key(header::AUTHORIZATION) {
            return None;
        }
        self.cookie(SESSION)
    }

    /// A cookie with this name. An empty one counts as absent.
    pub fn cookie(&self, wanted: &str) -> Option<Secret> {
        let all = self.head.headers.get_all(header::COOKIE).into_iter();
        let all = all.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
        let named = all.filter_map(|one| one.trim().split_once('='));
        let mut own = named.filter(|(name, value)| *name == wanted && !value.is_empty());
        own.next().map(|(_, value)| value.into())
    }

    /// The media type of the body, without its parameters; empty if none was sent.
    pub fn content_type(&self) -> &str {
        self.header(&header::CONTENT_TYPE)
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
    }

    /// The announced length of the body.
    pub fn content_length(&self) -> Option<u64> {
        self.header(&header::CONTENT_LENGTH)?.parse().ok()
    }

    /// At an edge, refuses a request that would change something.
    pub fn changes_nothing_at(&self, neighbours: &Neighbours) -> Result<(), Failure> {
        if !neighbours.is_edge() || matches!(self.method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        let message = "this node is an edge, which cannot change anything; ask a replica";
        Err(Failure::new(Code::Unsupported, message).closing_unless_read(self))
    }

    /// The parameter `n` of a paged list, however large. Fails if it is not a number.
    pub fn page_size(&self) -> Result<Option<usize>, Failure> {
        let Some(text) = self.query("n") else { return Ok(None) };
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Failure::new(Code::BadRequest, "n must be a number"));
        }
        Ok(Some(text.parse().unwrap_or(usize::MAX)))
    }
}

/// An arriving body.
pub struct Arrival {
    body: Incoming,
    is_http2: bool,
    stall: Duration,
    /// The whole body, if it was read before anybody took it.
    held: Option<Bytes>,
}

/// Why a body did not arrive completely.
#[derive(Debug)]
pub enum Interrupted {
    /// The client sent nothing for too long.
    Stalled,
    /// The client broke off.
    Broken(String),
}

impl From<Interrupted> for Failure {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Stalled => {
                Failure::new(Code::Timeout, "no more of the request's body came for too long")
            }
            Interrupted::Broken(why) => Failure::new(
                Code::BlobUploadInvalid,
                format!("the request's body broke off: {why}"),
            )
            .closing(),
        }
    }
}

impl Failure {
    /// Closes the connection if `request` announced a body that was not read, because that may be
    /// long.
    pub fn closing_unless_read(self, request: &Request) -> Self {
        if request.announces_body() { self.closing() } else { self }
    }
}

impl Pieces for Arrival {
    type Error = Interrupted;

    async fn next(&mut self) -> Result<Option<Bytes>, Interrupted> {
        loop {
            match tokio::time::timeout(self.stall, self.body.frame()).await {
                Err(_) => return Err(Interrupted::Stalled),
                // hyper takes a stream that the client has reset without an error for a whole one
                Ok(None) if self.is_http2 && !self.body.is_end_stream() => {
                    return Err(Interrupted::Broken("the stream was reset".to_owned()));
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(Interrupted::Broken(error.to_string())),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

impl Arrival {
    /// Waits for the whole body, of at most `limit` bytes, and keeps it. What is decided after this
    /// is decided when the request is complete: a client may send a body as slowly as it likes, and
    /// may have lost a right by then.
    pub async fn hold(&mut self, limit: u64) -> Result<(), Failure> {
        self.held = Some(self.whole(limit).await?);
        Ok(())
    }

    /// The whole body, of at most `limit` bytes. A longer one is not read to its end.
    pub async fn whole(&mut self, limit: u64) -> Result<Bytes, Failure> {
        if let Some(held) = self.held.take() {
            return Ok(held);
        }
        let mut bytes = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if (bytes.len() + piece.len()) as u64 > limit {
                let message =
                    format!("the body has more than {limit} bytes, the most that is accepted here");
                return Err(Failure::new(Code::TooLarge, message).closing());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }
}
