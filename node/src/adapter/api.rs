//! From a request of a registry to its answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use config::TlsFiles;
use ground::supervise::Tasks;
use http::{HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use parking_lot::Mutex;
use rules::people::windows::Windows;
use rules::words::digest::Digest;
use scan::adapter::request::{LONGEST_REQUEST, ScanAccepted, ScanRequest};
use scan::adapter::{self, is_same_type, metadata};
use scan::sbom;
use serde_json::json;
use tracing::debug;
use upstream::Endpoint;

use super::authorization::Authorization;
use super::database::Databases;
use super::work::{Found, Job, Work, scanner};
use crate::http::answer::set;
use crate::http::request::Request;
use crate::http::{self as web, Code, ConnectionTerms, Failure, Listener, Payload};

/// How long a request's body may make no progress.
const STALL: Duration = Duration::from_secs(30);
/// After how many seconds to ask again for a report.
const REFRESH: &str = "2";

/// What answers requests.
pub struct Adapter {
    /// Who may ask.
    pub authorization: Authorization,
    /// The database.
    pub databases: Arc<Databases>,
    /// The scans.
    pub work: Arc<Work>,
}

impl Adapter {
    /// Answers one request.
    pub async fn answer(&self, request: hyper::Request<Incoming>) -> Response<Payload> {
        let mut request = Request::new(request, STALL, &[]);
        let path = request.head.uri.path().to_owned();
        let method = request.method.clone();
        let answered = self.dispatch(&mut request, &path).await;
        let response =
            answered.unwrap_or_else(|failure| shown(failure.closing_unless_read(&request)));
        debug!(%method, path, status = response.status().as_u16(), "answered");
        response
    }

    async fn dispatch(
        &self,
        request: &mut Request,
        path: &str,
    ) -> Result<Response<Payload>, Failure> {
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        // for whoever watches the process: they tell nothing
        match path {
            "/probe/healthy" if reads => return Ok(plain(StatusCode::OK, "alive\n".into())),
            "/probe/ready" if reads => return Ok(self.ready()),
            _ => {}
        }
        if !self.authorization.admits(&request.head.headers) {
            let message = "credentials are needed: Basic, Bearer, or X-ScannerAdapter-API-Key";
            return Err(Failure::new(Code::Unauthorized, message)
                .header(header::WWW_AUTHENTICATE, "Basic realm=\"scanner adapter\""));
        }
        let report = path
            .strip_prefix("/api/v1/scan/")
            .and_then(|rest| rest.strip_suffix("/report"))
            .filter(|id| !id.contains('/'));
        match (path, report) {
            ("/api/v1/metadata", _) if reads => Ok(self.metadata(request)),
            ("/api/v1/scan", _) if request.method == Method::POST => self.scan(request).await,
            (_, Some(id)) if reads => self.report(request, id),
            ("/api/v1/metadata" | "/api/v1/scan", _) | (_, Some(_)) => {
                let message = format!("{} is not supported here", request.method);
                Err(Failure::new(Code::Unsupported, message))
            }
            _ => Err(Failure::new(Code::NotFound, "there is nothing at this path")),
        }
    }

    fn ready(&self) -> Response<Payload> {
        let (waiting, running) = self.work.load();
        match (self.databases.opened(), self.databases.problem()) {
            (Some(database), problem) => {
                let made = database.about().updated_at;
                let problem = problem.map(|why| format!("problem: {why}\n")).unwrap_or_default();
                let text = format!(
                    "ready: {running} scans run, {waiting} wait\ndatabase of {made}\n{problem}"
                );
                plain(StatusCode::OK, text)
            }
            (None, problem) => {
                let why = problem.unwrap_or_else(|| "it is being opened".into());
                plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: no database: {why}\n"))
            }
        }
    }

    fn metadata(&self, request: &Request) -> Response<Payload> {
        let database = self.databases.opened();
        let dates = database.map(|one| (one.about().updated_at, one.about().next_update));
        let wanted = request.header(&header::ACCEPT).unwrap_or_default();
        let old = is_same_type(wanted, adapter::METADATA_1_0);
        let kind = if old { adapter::METADATA_1_0 } else { adapter::METADATA };
        let body = metadata::of_this(&scanner(), dates).to_string();
        typed(StatusCode::OK, kind, body.into())
    }

    async fn scan(&self, request: &mut Request) -> Result<Response<Payload>, Failure> {
        let body = request.body.whole(LONGEST_REQUEST as u64).await?;
        let wrong = |message: String| Failure::new(Code::BadRequest, message);
        let asked: ScanRequest = serde_json::from_slice(&body)
            .map_err(|error| wrong(format!("the body is no scan request: {error}")))?;
        let unusable = |message: String| Failure::new(Code::Unprocessable, message);
        let ScanRequest { registry, artifact, enabled_capabilities } = asked;
        let digest: Digest = artifact
            .digest
            .parse()
            .map_err(|error| unusable(format!("artifact.digest: {error}")))?;
        // the same rules as of an upstream's repositories
        let any: Endpoint =
            "https://registry.invalid".parse().map_err(|error| unusable(format!("{error}")))?;
        any.repository(&artifact.repository)
            .map_err(|error| unusable(format!("artifact.repository: {error}")))?;
        let is_image = adapter::IMAGES.iter().any(|kind| is_same_type(kind, &artifact.mime_type));
        if !artifact.mime_type.is_empty() && !is_image {
            let kind: String = artifact.mime_type.chars().take(100).collect();
            return Err(unusable(format!("artifact.mime_type: {kind} cannot be scanned")));
        }
        let kinds: Vec<&str> =
            enabled_capabilities.iter().flatten().map(|one| one.kind.as_str()).collect();
        if kinds.iter().any(|kind| !matches!(*kind, "vulnerability" | "sbom")) {
            return Err(unusable("enabled_capabilities: vulnerability or sbom".into()));
        }
        let sboms = kinds.contains(&"sbom");
        let source = self.work.pulling().source(&registry).map_err(unusable)?;
        if self.databases.opened().is_none() {
            let message = "this adapter has no database of vulnerabilities yet; try again";
            return Err(Failure::new(Code::Unavailable, message));
        }
        let job = Job { source, artifact, digest, sboms };
        let id = self.work.take(job).map_err(|_| {
            Failure::new(Code::TooManyRequests, "too many scans wait already; try again")
        })?;
        let accepted = json!(ScanAccepted { id: format!("{id:032x}") });
        let body = accepted.to_string();
        Ok(typed(StatusCode::ACCEPTED, adapter::SCAN_RESPONSE, body.into()))
    }

    fn report(&self, request: &Request, id: &str) -> Result<Response<Payload>, Failure> {
        let unknown = || Failure::new(Code::NotFound, "there is no such scan, or not any more");
        let plain = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = plain.then(|| u128::from_str_radix(id, 16).ok()).flatten();
        let reports = match self.work.found(number.ok_or_else(unknown)?) {
            Found::Nothing => return Err(unknown()),
            Found::UnderWay => {
                let mut response = Response::new(Payload::empty());
                *response.status_mut() = StatusCode::FOUND;
                set(&mut response, "refresh-after", REFRESH);
                set(&mut response, "location", request.head.uri.path());
                return Ok(response);
            }
            Found::Failed(why) => {
                // it is a sentence for whoever asked, and no fault of this process
                let body = json!({"error": {"message": why}}).to_string();
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                return Ok(typed(status, adapter::ERROR, body.into()));
            }
            Found::Reports(reports) => reports,
        };
        let wanted = request.header(&header::ACCEPT).unwrap_or_default();
        if is_same_type(wanted, adapter::SBOM_REPORT) {
            let which = match request.query("sbom_media_type") {
                Some(sbom::SPDX) => 0,
                Some(sbom::CYCLONEDX) => 1,
                _ => {
                    let message =
                        format!("sbom_media_type is {} or {}", sbom::SPDX, sbom::CYCLONEDX);
                    return Err(Failure::new(Code::BadRequest, message));
                }
            };
            let sboms = reports.sboms.ok_or_else(|| {
                Failure::new(Code::BadRequest, "no SBOM was asked for with this scan")
            })?;
            return Ok(typed(StatusCode::OK, adapter::SBOM_REPORT, sboms[which].clone()));
        }
        let kind = match wanted.trim() {
            "" | "*/*" => adapter::REPORT,
            wanted => [adapter::REPORT, adapter::LEGACY_REPORT]
                .into_iter()
                .find(|kind| is_same_type(kind, wanted))
                .ok_or_else(|| {
                    let message = format!("the report is there as {}", adapter::REPORT);
                    Failure::new(Code::BadRequest, message)
                })?,
        };
        Ok(typed(StatusCode::OK, kind, reports.vulnerabilities))
    }
}

/// As a node has them by default.
fn connections() -> ConnectionTerms {
    ConnectionTerms {
        stall: Duration::from_secs(30),
        most: 500,
        each: 200,
        wasted: 1000,
        proxies: Vec::new(),
        head: Duration::from_secs(30),
        header_bytes: 64 << 10,
        headers: 100,
        streams: 100,
        windows: Arc::new(Mutex::new(Windows::new(16 << 20))),
    }
}

/// Answers requests at `listen` until `clients` stop. Returns the address.
pub async fn serve(
    adapter: Arc<Adapter>,
    listen: SocketAddr,
    tls: Option<&TlsFiles>,
    tasks: &Tasks,
    clients: &Tasks,
) -> io::Result<SocketAddr> {
    let listener = Listener::bind(listen, tls).await?;
    let address = listener.address()?;
    if let Some(certificate) = listener.certificate() {
        tasks.spawn("certificate", certificate.clone().keep());
    }
    let handle = move |request| {
        let adapter = adapter.clone();
        async move { adapter.answer(request).await }
    };
    let serving = web::serve(listener, handle, connections(), clients.clone());
    clients.spawn_draining("http", serving);
    Ok(address)
}

/// A failure in the words of this API.
fn shown(failure: Failure) -> Response<Payload> {
    let body = json!({"error": {"message": failure.message()}}).to_string();
    let mut response = failure.response();
    let kind = HeaderValue::from_static(adapter::ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    *response.body_mut() = Payload::full(body);
    response
}

fn typed(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Payload> {
    let mut response = Response::new(Payload::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn plain(status: StatusCode, text: String) -> Response<Payload> {
    typed(status, "text/plain; charset=utf-8", text.into())
}
