//! From a request to its answer: the only place where HTTP meets the rooms.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use metrics_exporter_prometheus::PrometheusHandle;
use rules::ledger::records::{Look, key};
use rules::ledger::sealing::LookForKeys;
use rules::proxies::mirror::Asked;
use tracing::{Instrument, debug, info, info_span};

use crate::atoll::Atoll;
use crate::harbor::Harbor;
use crate::http::door::CSRF;
use crate::http::drills::Drills;
use crate::http::request::Request;
use crate::http::request_id;
use crate::http::route::Route;
use crate::http::{Code, Failure, Payload};
use crate::oci::Registry;
use crate::oci::token::answer_token;
use mesh::secrets::Secrets;
use registry::events::Witness;
use registry::people::{Access, csrf_token};
use registry::proxies::mirrors::Mirrors;
use registry::view::{EdgeRecords, Records};
use rules::words::network::Network;

/// An answer that takes longer than this, including its body, is logged.
const SLOW: Duration = Duration::from_secs(10);

/// Everything that answers requests.
pub struct Serving {
    /// `/v2/`
    pub registry: Registry,
    /// `/api/v2.0/`
    pub harbor: Harbor,
    /// `/api/atoll/v1/`
    pub atoll: Atoll,
    /// Whether a drill has this node refuse its clients.
    pub drills: Arc<Drills>,
    /// `/service/token`
    pub access: Arc<Access>,
    /// Counts logins.
    pub witness: Arc<Witness>,
    /// Decides which repository a name means.
    pub mirrors: Arc<Mirrors>,
    /// For `/readyz`.
    pub records: Records,
    /// For `/readyz`.
    pub secrets: Arc<Secrets>,
    /// For `/metrics`.
    pub metrics: PrometheusHandle,
    /// How long a request's body may make no progress.
    pub stall: Duration,
    /// The proxies that are believed about the addresses of clients.
    pub trusted_proxies: Vec<Network>,
}

impl Serving {
    /// Answers one request.
    pub async fn answer(&self, request: hyper::Request<Incoming>) -> Response<Payload> {
        let started = Instant::now();
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let id = request_id::of(request.headers());
        let shown = id.to_str().unwrap_or_default();
        let span = info_span!("http.request", %method, path, request_id = shown);
        let mut request = Request::new(request, self.stall, &self.trusted_proxies);
        let client = request.client;
        let route = self.route(&path, &mut request);
        let session = request.session();
        let personal = request.header(&header::AUTHORIZATION).is_some() || session.is_some();
        let csrf = session.filter(|_| request.method == Method::GET).map(|one| csrf_token(&one));
        let word = route.as_ref().map_or("unknown", |r| r.word());
        let at_edge = matches!(self.records, Records::Edge(_));
        let allow = route.as_ref().map_or("GET, HEAD", |route| route.methods(at_edge));
        let result = match route {
            Ok(route) => self.dispatch(route, request).instrument(span).await,
            Err(failure) => Err(failure.closing_unless_read(&request)),
        };
        let refused = result.as_ref().err().map(|failure| failure.message().to_owned());
        let mut response = result.unwrap_or_else(Failure::response);
        let headers = response.headers_mut();
        headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(request_id::REQUEST_ID, id.clone());
        if personal {
            keep_private(headers);
        }
        if let Some(value) = csrf.and_then(|token| HeaderValue::try_from(token).ok()) {
            headers.insert(CSRF, value);
        }
        let status = response.status();
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let headers = response.headers_mut();
            headers.entry(header::ALLOW).or_insert(HeaderValue::from_static(allow));
        }
        let elapsed_ms = started.elapsed().as_millis() as u64;
        debug!(%method, path, status = status.as_u16(), %client, request_id = shown, refused, elapsed_ms, "answered");
        metrics::counter!("atoll_requests_total", "route" => word, "method" => method_word(&method), "status" => status_word(status))
            .increment(1);
        metrics::histogram!("atoll_request_seconds", "route" => word)
            .record(started.elapsed().as_secs_f64());
        response.body_mut().at_end(move |bytes| {
            let took = started.elapsed();
            if took > SLOW {
                let seconds = took.as_secs();
                info!(%method, path, status = status.as_u16(), bytes, seconds, "an answer took long");
            }
        });
        response
    }

    /// The route of a path, with the repository that it means, if there is one.
    fn route(&self, path: &str, request: &mut Request) -> Result<Route, Failure> {
        request.check_host()?;
        let meant = RefCell::new(None);
        let (ns, host) = (request.query("ns"), request.host());
        let writes = !matches!(request.method, Method::GET | Method::HEAD);
        let route = Route::parse(path, writes, |written| {
            let repository = self.mirrors.meant(&Asked { ns, host, written, writes })?;
            *meant.borrow_mut() = Some((written.to_owned(), repository.clone()));
            Ok(repository)
        })?;
        if let Some((written, repository)) = meant.into_inner() {
            request.meant(&written, &repository);
        }
        Ok(route)
    }

    async fn dispatch(&self, route: Route, request: Request) -> Result<Response<Payload>, Failure> {
        // what tells of this node and of the drill, and what ends it, goes on
        if let Some(why) = self.drills.refuses()
            && !matches!(route, Route::Drill | Route::Metrics | Route::Health)
        {
            metrics::counter!("atoll_drill_refused_total").increment(1);
            return Err(Failure::new(Code::Unavailable, why.to_string()));
        }
        match route {
            Route::Token => answer_token(&self.access, &self.witness, request).await,
            Route::Login
            | Route::Logout
            | Route::OidcLogin
            | Route::OidcCallback
            | Route::OidcOnboard => self.harbor.answer_browser(route, request).await,
            Route::Projects
            | Route::Project(_)
            | Route::Metadatas(_)
            | Route::Metadata(..)
            | Route::Permissions
            | Route::Registries
            | Route::RegistryPing
            | Route::Registry(_)
            | Route::Stored(..)
            | Route::Repositories
            | Route::Search
            | Route::Statistics
            | Route::Ping
            | Route::ApiHealth
            | Route::SystemInfo => self.harbor.answer(route, request).await,
            route if route.is_about_people() => self.harbor.answer(route, request).await,
            Route::OpenApi
            | Route::Status
            | Route::Dr
            | Route::Replication
            | Route::Drill
            | Route::Inventory
            | Route::Level
            | Route::Mirrors
            | Route::Preheats
            | Route::Preheat(_)
            | Route::Jobs
            | Route::Job(_)
            | Route::JobLog(_)
            | Route::JobStop(_)
            | Route::JobRetry(_)
            | Route::Schedules
            | Route::Collection
            | Route::Schedule(..)
            | Route::Node(_)
            | Route::Drain(_)
            | Route::Scrub(_) => self.atoll.answer(route, request).await,
            Route::Metrics => Ok(self.show_metrics()),
            Route::Health => Ok(Response::new(Payload::full("alive\n"))),
            Route::Ready => Ok(self.show_ready()),
            route => self.registry.answer(route, request).await,
        }
    }

    fn show_metrics(&self) -> Response<Payload> {
        match &self.records {
            Records::Ledger(ledger, _) => {
                let status = ledger.status();
                metrics::gauge!("atoll_ledger_applied").set(status.applied.0 as f64);
                metrics::gauge!("atoll_ledger_released").set(status.released.0 as f64);
                metrics::gauge!("atoll_read_lease").set(if ledger.connected() { 1.0 } else { 0.0 });
            }
            Records::Edge(edge) => {
                let heard = edge.heard_ago().map_or(f64::INFINITY, |ago| ago.as_secs_f64());
                metrics::gauge!("atoll_edge_heard_seconds_ago").set(heard);
            }
        }
        if let Some(free) = self.registry.store.free_on_disk() {
            metrics::gauge!("atoll_disk_free_bytes").set(free as f64);
        }
        let mut response = Response::new(Payload::full(self.metrics.render()));
        let kind = HeaderValue::from_static("text/plain; version=0.0.4");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    /// A replica is ready when it knows its mesh, answers reads from its own records as fresh, can
    /// open the secrets in them (without which it signs no token), and can store blobs. A node that
    /// is not ready may still serve, marked as stale. An edge is ready when it knows its mesh: it
    /// continues to serve when it is cut off.
    fn show_ready(&self) -> Response<Payload> {
        if self.registry.store.has_failed() {
            return not_ready(
                "the store's index in data_dir has failed: repair the disk and restart this node\n",
            );
        }
        if let Records::Edge(edge) = &self.records {
            return show_edge_ready(edge);
        }
        let looked = self.records.view().and_then(|view| {
            Ok((view.get(&key::mesh())?.is_some(), self.secrets.has(&view.sealing_keys()?)))
        });
        match looked {
            Ok((true, true)) if self.records.connected() => Response::new(Payload::full("ready\n")),
            Ok((true, false)) if self.records.connected() => not_ready(
                "this replica does not have the mesh's sealing key yet, and asks the others for it\n",
            ),
            _ => not_ready("no read lease: this node does not hear the ledger's leader\n"),
        }
    }
}

fn not_ready(why: &'static str) -> Response<Payload> {
    let mut response = Response::new(Payload::full(why));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

fn show_edge_ready(edge: &Arc<EdgeRecords>) -> Response<Payload> {
    let knows = edge.view().nodes().is_ok_and(|nodes| !nodes.is_empty());
    let text = match (knows, edge.heard_ago()) {
        (true, Some(ago)) => format!("ready; a replica answered {} s ago\n", ago.as_secs()),
        (true, None) => {
            "ready; cut off from the mesh since the start, serving what was kept\n".into()
        }
        (false, _) => "this edge has not heard of its mesh yet: no replica answers\n".into(),
    };
    let mut response = Response::new(Payload::full(text));
    if !knows {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// Marks an answer to a request with credentials as private, so that no shared cache keeps it (RFC
/// 9111 section 5.2.2.7).
fn keep_private(headers: &mut HeaderMap) {
    let said =
        headers.get(header::CACHE_CONTROL).and_then(|said| said.to_str().ok()).unwrap_or_default();
    let said = match said {
        "" => HeaderValue::from_static("private"),
        said if said.contains("no-store") => return,
        said => HeaderValue::try_from(format!("private, {said}"))
            .unwrap_or(HeaderValue::from_static("private")),
    };
    headers.insert(header::CACHE_CONTROL, said);
}

fn method_word(method: &http::Method) -> &'static str {
    match *method {
        http::Method::GET => "GET",
        http::Method::HEAD => "HEAD",
        http::Method::PUT => "PUT",
        http::Method::POST => "POST",
        http::Method::PATCH => "PATCH",
        http::Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn status_word(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "200",
        201 => "201",
        202 => "202",
        206 => "206",
        401 => "401",
        403 => "403",
        404 => "404",
        416 => "416",
        429 => "429",
        500 => "500",
        503 => "503",
        100..=399 => "other-ok",
        400..=499 => "other-4xx",
        _ => "other-5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_to_credentials_is_kept_by_no_shared_cache() {
        for (said, then) in [
            (None, "private"),
            (Some("max-age=31536000, immutable"), "private, max-age=31536000, immutable"),
            (Some("no-store"), "no-store"),
        ] {
            let mut headers: HeaderMap = said
                .map(|said| (header::CACHE_CONTROL, HeaderValue::from_static(said)))
                .into_iter()
                .collect();
            keep_private(&mut headers);
            assert_eq!(headers[header::CACHE_CONTROL], then);
        }
    }

    #[test]
    fn what_somebody_on_call_tells_apart_has_a_status_of_its_own() {
        let word = |status| status_word(StatusCode::from_u16(status).unwrap());
        assert_eq!([429, 500, 503].map(word), ["429", "500", "503"]);
        assert_eq!(
            [204, 307, 400, 405, 501, 507].map(word),
            ["other-ok", "other-ok", "other-4xx", "other-4xx", "other-5xx", "other-5xx"]
        );
    }
}
