//! The API beside the registry: projects in Harbor's manner, the state of the mesh, preheats. For administrators, except for what mirrors' clients need.

mod level;
mod lists;
mod metadata;
mod mirrors;
mod nodes;
mod origin;
mod preheats;
mod projects;
mod registries;
mod status;

use std::sync::Arc;

use http::{HeaderValue, Method, Response, StatusCode, header};
use mesh::secrets::Secrets;
use rules::people::access::RegistryScope;
use serde_json::Value;

use crate::access::Access;
use crate::http::request::Request;
use crate::http::route::Route;
use crate::http::{Code, Failure, Payload};
use crate::liars::Liars;
use crate::mirrors::Mirrors;
use crate::neighbours::Neighbours;
use crate::preheats::Preheats;
use crate::proxies::Proxies;
use crate::records::Records;
use crate::transfers::Transfers;
use crate::writes::{WriteTerms, Writes};
use store::Store;

/// The rooms that the API uses.
pub struct Api {
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
    pub proxies: Arc<Proxies>,
    /// Images on their way into regions.
    pub preheats: Arc<Preheats>,
    /// Who may.
    pub access: Arc<Access>,
    /// Seals what the ledger must not show.
    pub secrets: Arc<Secrets>,
    /// What moves.
    pub transfers: Arc<Transfers>,
    /// Who was caught.
    pub liars: Arc<Liars>,
    /// In how many regions new projects keep their blobs.
    pub durability: u32,
    /// How long writes may take.
    pub terms: WriteTerms,
}

impl Api {
    /// Answers a request under `/api/`.
    pub async fn answer(&self, route: Route, request: Request) -> Result<Response<Payload>, Failure> {
        origin::check(&request, self.access.public_url())?;
        let caller = self.access.caller(&request).await?;
        if let (&Method::GET | &Method::HEAD, Route::Mirrors) = (&request.method, &route) {
            return self.show_mirrors(&caller).await;
        }
        self.access.administrator(&request, &caller, RegistryScope::Api)?;
        if self.neighbours.is_edge() && !matches!(request.method, Method::GET | Method::HEAD) {
            let message = "this node is an edge, which changes nothing; ask a replica";
            return Err(Failure::new(Code::Unsupported, message).closing_unless_read(&request));
        }
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
            (&Method::GET | &Method::HEAD, Route::Registries) => self.list_registries(&request).await,
            (&Method::POST, Route::Registries) => self.create_registry(request).await,
            (&Method::GET | &Method::HEAD, Route::Registry(id)) => self.show_registry(id).await,
            (&Method::PUT, Route::Registry(id)) => self.change_registry(request, id).await,
            (&Method::DELETE, Route::Registry(id)) => self.delete_registry(id).await,
            (&Method::GET | &Method::HEAD, Route::Projects) => self.list_projects(&request).await,
            (&Method::POST, Route::Projects) => self.create_project(request).await,
            (&Method::GET | &Method::HEAD, Route::Project(name)) => self.show_project(&request, name).await,
            (&Method::PUT, Route::Project(name)) => self.configure_project(request, name).await,
            (&Method::DELETE, Route::Project(name)) => self.delete_project(&request, name).await,
            (method, _) => Err(Failure::new(Code::Unsupported, format!("{method} is not supported here"))),
        }
    }
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Payload> {
    let mut response = Response::new(Payload::full(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
