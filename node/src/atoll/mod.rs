//! Atoll's own API: status, what a disaster would cost (dr), feature level, mirrors, preheats, jobs, nodes. It is for administrators,
//! except what clients of mirrors need.

mod collection;
mod dr;
mod draining;
mod drills;
mod holdings;
mod inventory;
mod jobs;
mod level;
mod mirrors;
mod nodes;
mod openapi;
mod preheats;
mod replication;
mod scrubbing;
mod status;

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use mesh::secrets::Secrets;
use registry::blobs::collecting::Collecting;
use registry::blobs::liars::Liars;
use registry::blobs::rechecks::Rechecks;
use registry::blobs::transfers::Transfers;
use registry::jobs::preheats::Preheats;
use registry::jobs::queue::Jobs;
use registry::proxies::mirrors::Mirrors;
use registry::signatures::Signatures;
use registry::upstreams::Upstreams;
use registry::view::Records;
use registry::view::neighbours::Neighbours;
use registry::writes::{WriteTerms, Writes};
use rules::people::access::RegistryScope;
use rules::people::doors::{self, Need};
use store::Store;

use crate::http::answer::answer;
use crate::http::door::{Door, actor};
use crate::http::request::Request;
use crate::http::route::Route;
use crate::http::{Code, Failure, Payload};

/// The rooms that Atoll's API uses.
pub struct Atoll {
    /// Authorization.
    pub door: Arc<Door>,
    /// The ledger's records.
    pub records: Records,
    /// The other nodes.
    pub neighbours: Arc<Neighbours>,
    /// The blobs of this node.
    pub store: Arc<Store>,
    /// Commits writes.
    pub writes: Arc<Writes>,
    /// Which registries are mirrored.
    pub mirrors: Arc<Mirrors>,
    /// Other registries.
    pub upstreams: Arc<Upstreams>,
    /// Preheats.
    pub preheats: Arc<Preheats>,
    /// Background work.
    pub jobs: Arc<Jobs>,
    /// Reads the blobs of this node again.
    pub rechecks: Arc<Rechecks>,
    /// What nothing refers to any more.
    pub collecting: Arc<Collecting>,
    /// Seals secrets for the ledger.
    pub secrets: Arc<Secrets>,
    /// Transfers that are under way.
    pub transfers: Arc<Transfers>,
    /// Peers that were caught lying.
    pub liars: Arc<Liars>,
    /// Signatures, and what opens the keys that sign.
    pub signatures: Arc<Signatures>,
    /// Deadlines of writes.
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
        let method = request.method.as_str();
        let caller = match doors::need(route.pattern(), method) {
            Some(Need::Nothing) => self.door.caller(&request).await?,
            Some(Need::System(permission)) => {
                self.door.admit_system(&request, permission, RegistryScope::Api).await?
            }
            _ => {
                self.door.admit_signed_in(&request).await?;
                request.changes_nothing_at(&self.neighbours)?;
                let message = format!("{} is not supported here", request.method);
                return Err(Failure::new(Code::Unsupported, message));
            }
        };
        request.changes_nothing_at(&self.neighbours)?;
        if self.neighbours.is_edge() && route.is_about_jobs() {
            // nor may it read their records
            let message = "this node is an edge, which has no part in jobs; ask a replica";
            return Err(Failure::new(Code::Unsupported, message));
        }
        let by = &actor(&caller, &request);
        match (&request.method, route) {
            (&Method::GET | &Method::HEAD, Route::Mirrors) => self.show_mirrors(&caller).await,
            (&Method::GET | &Method::HEAD, Route::OpenApi) => Ok(openapi::answer()),
            (&Method::GET | &Method::HEAD, Route::Status) => {
                self.status(request.query("copies") != Some("false")).await
            }
            (&Method::GET | &Method::HEAD, Route::Dr) => self.show_dr().await,
            (&Method::GET | &Method::HEAD, Route::Replication) => {
                self.show_replication(&request).await
            }
            (&Method::GET | &Method::HEAD, Route::Drill) => self.show_drill().await,
            (&Method::POST, Route::Drill) => self.begin_drill(request, by).await,
            (&Method::DELETE, Route::Drill) => self.end_drill(by).await,
            (&Method::GET | &Method::HEAD, Route::Level) => self.show_level().await,
            (&Method::POST, Route::Level) => self.raise_level(by).await,
            (&Method::GET | &Method::HEAD, Route::Preheats) => self.list_preheats().await,
            (&Method::POST, Route::Preheats) => self.create_preheat(request, by).await,
            (&Method::GET | &Method::HEAD, Route::Preheat(id)) => self.show_preheat(id).await,
            (&Method::DELETE, Route::Preheat(id)) => self.stop_preheat(id, by).await,
            (&Method::GET | &Method::HEAD, Route::Jobs) => self.list_jobs(&request).await,
            (&Method::POST, Route::Jobs) => self.create_job(request, by).await,
            (&Method::GET | &Method::HEAD, Route::Job(id)) => self.show_job(id).await,
            (&Method::GET | &Method::HEAD, Route::JobLog(id)) => self.show_log(id).await,
            (&Method::POST, Route::JobStop(id)) => self.stop_job(id, by).await,
            (&Method::POST, Route::JobRetry(id)) => self.retry_job(id, by).await,
            (&Method::GET | &Method::HEAD, Route::Schedules) => self.list_schedules().await,
            (&Method::DELETE, Route::Schedule(project, name)) => {
                self.jobs.unschedule(project, name, by).await?;
                Ok(answer(StatusCode::OK))
            }
            (&Method::GET | &Method::HEAD, Route::Inventory) => self.show_inventory().await,
            (&Method::GET | &Method::HEAD, Route::Collection) => self.show_collection().await,
            (&Method::POST, Route::Collection) => self.collect(request).await,
            (&Method::GET | &Method::HEAD, Route::Scrub(name)) => self.scrub(&name, false).await,
            (&Method::POST, Route::Scrub(name)) => self.scrub(&name, true).await,
            (&Method::GET | &Method::HEAD, Route::Drain(name)) => self.show_drain(&name).await,
            (&Method::POST, Route::Drain(name)) => self.drain(&name, true, by).await,
            (&Method::DELETE, Route::Drain(name)) => self.drain(&name, false, by).await,
            (&Method::GET | &Method::HEAD, Route::Node(name)) => self.show_removal(&name).await,
            (&Method::DELETE, Route::Node(name)) => {
                let asked = |flag| request.query(flag) == Some("true");
                self.remove_node(&name, asked("force"), asked("compromised"), by).await
            }
            (method, _) => {
                Err(Failure::new(Code::Unsupported, format!("{method} is not supported here")))
            }
        }
    }
}
