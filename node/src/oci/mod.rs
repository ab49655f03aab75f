//! The registry's verbs: OCI distribution-spec 1.1, with Docker's conventions where it says
//! nothing. Each verb has one file, which reads from top to bottom.

mod blobs;
mod cached_gate;
mod gate;
mod lists;
mod manifests;
pub mod token;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Response, StatusCode};
use parking_lot::Mutex;
use registry::blobs::flights::Flights;
use registry::events::Witness;
use registry::proxies::questions::Questions;
use registry::proxies::resolving::Proxies;
use registry::pulls::Pulls;
use registry::pushes::relaying::Uploads;
use registry::scans::Scans;
use registry::signatures::seeking::Seeking;
use registry::upstreams::Upstreams;
use registry::view::neighbours::Neighbours;
use registry::writes::Writes;
use rules::ledger::admitted::Admissions;
use rules::ledger::records::{Project, Role};
use rules::words::digest::Digest;
use serde_json::json;
use store::Store;

use crate::http::answer::json_answer;
use crate::http::door::Door;
use crate::http::request::Request;
use crate::http::route::Route;
use crate::http::{Code, Failure, Payload};

/// Deadlines and limits of the verbs; see the settings of the same names.
#[derive(Clone, Copy, Debug)]
pub struct OciTerms {
    /// The maximum time to wait for copies of uploads.
    pub replicate: Duration,
    /// How long a grant lasts.
    pub grant: Duration,
    /// The maximum size of a manifest in bytes.
    pub max_manifest: u64,
}

pub use gate::MOST_ADMISSIONS;

/// The rooms that the verbs use, and their limits.
pub struct Registry {
    /// Authorization, and reads of the records.
    pub door: Arc<Door>,
    /// The blobs of this node.
    pub store: Arc<Store>,
    /// Pulls of blobs.
    pub pulls: Arc<Pulls>,
    /// The blobs that are on their way.
    pub flights: Arc<Flights>,
    /// Commits writes.
    pub writes: Arc<Writes>,
    /// Counts pulls.
    pub witness: Arc<Witness>,
    /// The uploads of all nodes.
    pub uploads: Arc<Uploads>,
    /// Resolves references at upstreams.
    pub proxies: Arc<Proxies>,
    /// Upstreams.
    pub upstreams: Arc<Upstreams>,
    /// How many questions to upstreams each client may cause.
    pub questions: Arc<Questions>,
    /// Asks for scans of what is cached.
    pub scans: Arc<Scans>,
    /// Has upstreams asked for signatures of what is cached.
    pub seeking: Arc<Seeking>,
    /// The other nodes.
    pub neighbours: Arc<Neighbours>,
    /// What the gates have let pass.
    pub admissions: Mutex<Admissions>,
    /// Deadlines and limits.
    pub terms: OciTerms,
}

/// The warning that a proxy project's upstream could not be asked.
const UNASKED: &str = "111 atoll \"revalidation failed: the upstream cannot be asked\"";

impl Registry {
    /// Answers a request under `/v2/`.
    pub async fn answer(
        &self,
        route: Route,
        request: Request,
    ) -> Result<Response<Payload>, Failure> {
        if self.neighbours.is_edge()
            && !matches!(request.method, Method::GET | Method::HEAD)
            && route != Route::Base
        {
            return Err(self.refuse_at_edge(&request));
        }
        match (&request.method, route) {
            (&Method::GET | &Method::HEAD, Route::Base) => self.base(&request).await,
            (&Method::GET | &Method::HEAD, Route::Catalog) => self.catalog(request).await,
            (&Method::GET | &Method::HEAD, Route::Tags(repository)) => {
                self.tags(request, repository).await
            }
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
            (&Method::DELETE, Route::Blob(repository, digest)) => {
                self.delete_blob(request, repository, digest).await
            }
            (&Method::POST, Route::Uploads(repository)) => {
                self.begin_upload(request, repository).await
            }
            (&Method::PATCH, Route::Upload(repository, id)) => {
                self.add_to_upload(request, repository, id).await
            }
            (&Method::PUT, Route::Upload(repository, id)) => {
                self.finish_upload(request, repository, id).await
            }
            (&Method::GET | &Method::HEAD, Route::Upload(repository, id)) => {
                self.show_upload(request, repository, id).await
            }
            (&Method::DELETE, Route::Upload(repository, id)) => {
                self.cancel_upload(request, repository, id).await
            }
            (method, _) => {
                let message = format!("{method} is not supported here");
                Err(Failure::new(Code::Unsupported, message).closing_unless_read(&request))
            }
        }
    }

    /// The answer of an edge, which only caches, to a write: where to push instead.
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
        self.door.admit_presented(request).await?;
        Ok(json_answer(StatusCode::OK, &json!({})))
    }
}

/// The answer if the present content is not what the client wants to change (`If-Match`).
fn condition_failed(digest: &Digest) -> Failure {
    Failure::new(
        Code::Precondition,
        format!("the current digest is {digest}, which If-Match does not name"),
    )
}

/// Refuses pushes into a project that caches another registry.
fn refuse_proxy(project: &Project) -> Result<(), Failure> {
    match project.upstream {
        None => Ok(()),
        Some(_) => Err(Failure::new(Code::Denied, "can not push artifact to a proxy project")),
    }
}
