//! The registry's verbs: one file each, read from top to bottom. OCI distribution-spec 1.1, with Docker's conventions where it is silent.

mod blobs;
mod lists;
mod manifests;
mod sessions;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use config::StaleReads;
use http::{HeaderValue, Method, Response, StatusCode, header};
use rules::ledger::records::{Project, ReadRecords, RecordError, Role};
use rules::words::digest::Digest;

use crate::access::Access;
use crate::flights::Flights;
use crate::http::request::Request;
use crate::http::route::Route;
use crate::http::{Code, Failure, Payload};
use crate::neighbours::Neighbours;
use crate::proxies::Proxies;
use crate::rechecks::Rechecks;
use crate::records::{Freshness, Records};
use crate::writes::Writes;
pub use sessions::Sessions;
use store::Store;

/// The rooms that the verbs use, and their limits.
pub struct Registry {
    /// Records.
    pub records: Records,
    /// Bytes that are here.
    pub store: Arc<Store>,
    /// What becomes of blobs that the disk does not give.
    pub rechecks: Arc<Rechecks>,
    /// Bytes that are on their way.
    pub flights: Arc<Flights>,
    /// Commits.
    pub writes: Arc<Writes>,
    /// Uploads.
    pub sessions: Arc<Sessions>,
    /// Upstreams.
    pub proxies: Arc<Proxies>,
    /// The other nodes.
    pub neighbours: Arc<Neighbours>,
    /// Who may.
    pub access: Arc<Access>,
    /// Until the first byte.
    pub first_byte: Duration,
    /// Between two bytes.
    pub stall: Duration,
    /// Until copies of uploads are waited for no longer.
    pub replicate: Duration,
    /// How long a grant lasts.
    pub grant: Duration,
    /// The largest manifest.
    pub max_manifest: u64,
    /// What to do without a lease.
    pub without_lease: StaleReads,
}

/// Says that an answer may be old (RFC 9111 keeps the code in its registry).
const STALE: HeaderValue =
    HeaderValue::from_static("110 atoll \"may be stale: this node cannot reach the leader of the ledger\"");

/// Says that a proxy project's upstream could not be asked.
const UNASKED: &str = "111 atoll \"revalidation failed: the upstream cannot be asked\"";

impl Registry {
    /// Answers a request under `/v2/`.
    pub async fn answer(&self, route: Route, request: Request) -> Result<Response<Payload>, Failure> {
        if self.neighbours.is_edge() && !matches!(request.method, Method::GET | Method::HEAD) && route != Route::Base {
            return Err(self.refuse_at_edge(&request));
        }
        match (&request.method, route) {
            (&Method::GET | &Method::HEAD, Route::Base) => self.base(&request).await,
            (&Method::GET | &Method::HEAD, Route::Catalog) => self.catalog(request).await,
            (&Method::GET | &Method::HEAD, Route::Tags(repository)) => self.tags(request, repository).await,
            (&Method::GET | &Method::HEAD, Route::Referrers(repository, digest)) => {
                self.referrers(request, repository, digest).await
            }
            (&Method::GET | &Method::HEAD, Route::Manifest(repository, reference)) => {
                self.get_manifest(request, repository, reference).await
            }
            (&Method::PUT, Route::Manifest(repository, reference)) => {
                self.put_manifest(request, repository, reference).await
            }
            (&Method::DELETE, Route::Manifest(repository, reference)) => {
                self.delete_manifest(request, repository, reference).await
            }
            (&Method::GET | &Method::HEAD, Route::Blob(repository, digest)) => {
                self.get_blob(request, repository, digest).await
            }
            (&Method::DELETE, Route::Blob(repository, digest)) => self.delete_blob(request, repository, digest).await,
            (&Method::POST, Route::Uploads(repository)) => self.begin_upload(request, repository).await,
            (&Method::PATCH, Route::Upload(repository, id)) => self.add_to_upload(request, repository, id).await,
            (&Method::PUT, Route::Upload(repository, id)) => self.finish_upload(request, repository, id).await,
            (&Method::GET | &Method::HEAD, Route::Upload(repository, id)) => {
                self.show_upload(request, repository, id).await
            }
            (&Method::DELETE, Route::Upload(repository, id)) => self.cancel_upload(request, repository, id).await,
            (method, _) => {
                let message = format!("{method} is not supported here");
                Err(Failure::new(Code::Unsupported, message).closing_unless_read(&request))
            }
        }
    }

    /// An edge only caches: it says where to push instead.
    fn refuse_at_edge(&self, request: &Request) -> Failure {
        let replicas = self.neighbours.nodes().into_iter().filter(|n| n.role == Role::Replica);
        let near = replicas.max_by_key(|n| n.region == self.neighbours.region).map(|n| n.url);
        let message = format!(
            "this node is an edge, which only serves pulls; push to a replica{}",
            near.map(|url| format!(", e.g. {url}")).unwrap_or_default()
        );
        Failure::new(Code::Unsupported, message).closing_unless_read(request)
    }

    async fn base(&self, request: &Request) -> Result<Response<Payload>, Failure> {
        let caller = self.access.caller(request).await?;
        self.access.base(request, &caller)?;
        let mut response = Response::new(Payload::full("{}"));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    /// Reads the ledger; what may be stale is refused where the operator wants it so.
    async fn read<T>(
        &self,
        read: impl Fn(&dyn ReadRecords) -> Result<T, RecordError>,
    ) -> Result<(T, Freshness), Failure> {
        let (value, freshness) = self.records.read(read).await?;
        if freshness != Freshness::Fresh {
            metrics::counter!("atoll_reads_stale_total").increment(1);
        }
        if freshness == Freshness::Stale && self.without_lease == StaleReads::Refuse {
            let message = "this node cannot reach the leader of the ledger, and reads.without_lease is 'refuse'";
            return Err(Failure::new(Code::Unavailable, message));
        }
        Ok((value, freshness))
    }
}

/// A response with a status and no body.
fn answer(status: StatusCode) -> Response<Payload> {
    let mut response = Response::new(Payload::empty());
    *response.status_mut() = status;
    response
}

/// What is there now is not what the client wants to deal with (`If-Match`).
fn condition_failed(digest: &Digest) -> Failure {
    Failure::new(Code::Precondition, format!("what is there is {digest}, which If-Match does not name"))
}

/// It is elsewhere, for good.
fn moved(to: &str) -> Response<Payload> {
    let mut response = answer(StatusCode::MOVED_PERMANENTLY);
    set(&mut response, "location", to);
    response
}

/// Sets a header whose value is made of checked words; one that cannot be written is left out.
fn set(response: &mut Response<Payload>, name: &'static str, value: impl AsRef<str>) {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        response.headers_mut().insert(name, value);
    }
}

/// Nothing is pushed into a cache of somebody else's registry.
fn refuse_proxy(project: &Project) -> Result<(), Failure> {
    match project.upstream {
        None => Ok(()),
        Some(_) => Err(Failure::new(Code::Denied, "can not push artifact to a proxy project")),
    }
}

fn mark(response: &mut Response<Payload>, freshness: Freshness) {
    match freshness {
        Freshness::Fresh => {}
        Freshness::Stale => {
            response.headers_mut().insert(header::WARNING, STALE);
        }
        Freshness::Aged(age) => {
            let seconds = age.as_secs();
            let warning = format!(
                "110 atoll \"may be stale: this edge can reach no replica, and last asked one about this {seconds} s ago\""
            );
            set(response, "warning", warning);
            set(response, "age", seconds.to_string());
        }
    }
}
