//! The part of Harbor's API for projects and registries (its `api/v2.0/swagger.yaml`), as Harbor's
//! clients use it. For administrators.

mod lists;
mod metadata;
mod projects;
mod registries;

use std::sync::Arc;

use http::{Method, Response};
use mesh::secrets::Secrets;
use registry::view::Records;
use registry::view::neighbours::Neighbours;
use registry::writes::{WriteTerms, Writes};
use rules::people::access::RegistryScope;

use crate::http::door::Door;
use crate::http::request::Request;
use crate::http::route::Route;
use crate::http::{Code, Failure, Payload};

/// The rooms that Harbor's API uses.
pub struct Harbor {
    /// Authorization.
    pub door: Arc<Door>,
    /// The ledger's records.
    pub records: Records,
    /// The other nodes.
    pub neighbours: Arc<Neighbours>,
    /// Commits writes.
    pub writes: Arc<Writes>,
    /// Seals secrets for the ledger.
    pub secrets: Arc<Secrets>,
    /// The default `durability` of new projects.
    pub durability: u32,
    /// Deadlines of writes.
    pub terms: WriteTerms,
}

impl Harbor {
    /// Answers a request under `/api/v2.0/`.
    pub async fn answer(
        &self,
        route: Route,
        request: Request,
    ) -> Result<Response<Payload>, Failure> {
        self.door.check_origin(&request)?;
        self.door.admit_administrator(&request, RegistryScope::Api).await?;
        request.changes_nothing_at(&self.neighbours)?;
        match (&request.method, route) {
            (&Method::GET | &Method::HEAD, Route::Registries) => {
                self.list_registries(&request).await
            }
            (&Method::POST, Route::Registries) => self.create_registry(request).await,
            (&Method::GET | &Method::HEAD, Route::Registry(id)) => self.show_registry(id).await,
            (&Method::PUT, Route::Registry(id)) => self.change_registry(request, id).await,
            (&Method::DELETE, Route::Registry(id)) => self.delete_registry(id).await,
            (&Method::GET | &Method::HEAD, Route::Projects) => self.list_projects(&request).await,
            (&Method::POST, Route::Projects) => self.create_project(request).await,
            (&Method::GET | &Method::HEAD, Route::Project(name)) => {
                self.show_project(&request, name).await
            }
            (&Method::PUT, Route::Project(name)) => self.configure_project(request, name).await,
            (&Method::DELETE, Route::Project(name)) => self.delete_project(&request, name).await,
            (method, _) => {
                Err(Failure::new(Code::Unsupported, format!("{method} is not supported here")))
            }
        }
    }
}
