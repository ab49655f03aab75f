//! What Harbor's API says of the registry itself. Clients ask this first, to learn what they talk to.

use http::{HeaderValue, Response, StatusCode, header};
use registry::people::Caller;
use rules::ledger::directory::LookForGroups;
use rules::people::access::{Identity, RegistryScope};
use rules::people::configurations::{AuthMode, Configured};
use serde_json::json;

use super::{Harbor, ProjectCreation};
use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Failure, Payload};

/// Clients choose their ways by the version of Harbor, so it begins with the one whose API this is.
const VERSION: &str = concat!("v2.13.1-atoll-", env!("CARGO_PKG_VERSION"));

/// The answer to a ping.
pub(super) fn pong() -> Response<Payload> {
    let mut response = Response::new(Payload::full("Pong"));
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

impl Harbor {
    /// Whether the parts that Harbor's clients know of are well, at this node.
    pub(super) fn health(&self) -> Response<Payload> {
        let words = |well: bool| if well { "healthy" } else { "unhealthy" };
        // an edge has no part in the ledger
        let ledger = self.neighbours.is_edge() || self.records.connected();
        let components = json!([
            {"name": "core", "status": words(true)},
            {"name": "database", "status": words(ledger)},
            {"name": "registry", "status": words(true)},
        ]);
        let shown = json!({"status": words(ledger), "components": components});
        json_answer(StatusCode::OK, &shown)
    }

    /// What this registry is. Only who is signed in learns its version.
    pub(super) async fn system_info(
        &self,
        request: &Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        // an edge may not know the settings, and signs nobody in by itself
        let mode = match self.neighbours.is_edge() {
            true => AuthMode::Database,
            false => Configured::of(&self.read(|r| r.configurations()).await?).auth_mode(),
        };
        let mut shown = json!({
            "auth_mode": mode.word(),
            "primary_auth_mode": false,
            "banner_message": "",
            "self_registration": false,
        });
        let is_somebody = !matches!(caller.identity, Identity::Anonymous)
            && self.access.signed_in(caller, RegistryScope::Api).is_ok();
        if is_somebody {
            let host = request.host().unwrap_or_default();
            let restriction = match self.project_creation {
                ProjectCreation::Everyone => "everyone",
                ProjectCreation::Administrators => "adminonly",
            };
            shown["harbor_version"] = VERSION.into();
            shown["registry_url"] = host.into();
            shown["external_url"] = self.door.url_of(request).into();
            shown["project_creation_restriction"] = restriction.into();
            shown["has_ca_root"] = false.into();
            shown["read_only"] = false.into();
            shown["notification_enable"] = false.into();
        }
        Ok(json_answer(StatusCode::OK, &shown))
    }
}
