//! Atoll's own API: the state of the mesh, its feature level, mirrors, preheats, nodes. For
//! administrators, except for what the clients of mirrors need.

mod level;
mod mirrors;
mod nodes;
mod preheats;
mod status;

use std::sync::Arc;

use http::{Method, Response};
use mesh::secrets::Secrets;
use registry::blobs::liars::Liars;
use registry::blobs::transfers::Transfers;
use registry::jobs::preheats::Preheats;
use registry::proxies::mirrors::Mirrors;
use registry::upstreams::Upstreams;
use registry::view::Records;
use registry::view::neighbours::Neighbours;
use registry::writes::{WriteTerms, Writes};
use rules::people::access::RegistryScope;
use store::Store;

use crate::http::door::Door;
use crate::http::request::Request;
use crate::http::route::Route;
use crate::http::{Code, Failure, Payload};

/// The rooms that Atoll's API uses.
pub struct Atoll {
    /// Who may.
    pub door: Arc<Door>,
    /// Records.
    pub records: Records,
    /// The other nodes.
    pub neighbours: Arc<Neighbours>,
    /// What is here.
    pub store: Arc<Store>,
    /// Commits.
    pub writes: Arc<Writes>,
    /// Which registries are mirrored.
    pub mirrors: Arc<Mirrors>,
    /// Other registries.
    pub upstreams: Arc<Upstreams>,
    /// Images on their way into regions.
    pub preheats: Arc<Preheats>,
    /// Makes keys that the ledger must not show.
    pub secrets: Arc<Secrets>,
    /// What moves.
    pub transfers: Arc<Transfers>,
    /// Who was caught.
    pub liars: Arc<Liars>,
    /// How long writes may take.
    pub terms: WriteTerms,
}

impl Atoll {
    /// Answers a request under `/api/atoll/v1/`.
    pub async fn answer(
        &self,
        route: Route,
        request: Request,
    ) -> Result<Response<Payload>, Failure> {
        self.door.check_origin(&request)?;
        if let (&Method::GET | &Method::HEAD, Route::Mirrors) = (&request.method, &route) {
            let caller = self.door.caller(&request).await?;
            return self.show_mirrors(&caller).await;
        }
        self.door.admit_administrator(&request, RegistryScope::Api).await?;
        request.changes_nothing_at(&self.neighbours)?;
        match (&request.method, route) {
            (&Method::GET | &Method::HEAD, Route::Status) => {
                self.status(request.query("copies") != Some("false")).await
            }
            (&Method::GET | &Method::HEAD, Route::Level) => self.show_level().await,
            (&Method::POST, Route::Level) => self.raise_level().await,
            (&Method::GET | &Method::HEAD, Route::Preheats) => Ok(self.list_preheats()),
            (&Method::POST, Route::Preheats) => self.create_preheat(request).await,
            (&Method::GET | &Method::HEAD, Route::Preheat(id)) => self.show_preheat(id),
            (&Method::DELETE, Route::Preheat(id)) => self.stop_preheat(id),
            (&Method::DELETE, Route::Node(name)) => self.remove_node(&name).await,
            (method, _) => {
                Err(Failure::new(Code::Unsupported, format!("{method} is not supported here")))
            }
        }
    }
}
