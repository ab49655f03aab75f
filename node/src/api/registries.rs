//! `/api/v2.0/registries`: upstreams, in Harbor's shapes and statuses. Secrets go in and never come out.

use http::{HeaderValue, Response, StatusCode, header};
use rules::command::Command;
use rules::names::{OperationId, UpstreamId};
use rules::records::{Look, UpstreamRecord, key};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, json_answer};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};
use crate::proxies;
use crate::upstream::ecr;
use crate::writes::{Refusal, settle};

/// A request's body may have this many bytes.
const BODY: u64 = 64 << 10;

#[derive(Deserialize)]
struct Written {
    name: String,
    url: String,
    #[serde(rename = "type")]
    kind: String,
    credential: Option<Credential>,
}

#[derive(Deserialize)]
struct Credential {
    #[serde(default)]
    access_key: String,
    #[serde(default)]
    access_secret: String,
}

fn show(upstream: &UpstreamRecord) -> Value {
    let user = upstream.credentials.as_ref().map_or("", |(user, _)| user.as_str());
    json!({
        "id": upstream.id.0,
        "name": upstream.name,
        "type": upstream.kind,
        "url": upstream.url,
        "credential": {"type": "basic", "access_key": user, "access_secret": if user.is_empty() { "" } else { "*****" }},
        "creation_time": upstream.created.to_string(),
    })
}

impl Api {
    pub(super) async fn list_registries(&self) -> Result<Response<Payload>, Failure> {
        let (upstreams, _) = self.records.read(|records| records.upstreams()).await?;
        Ok(json_answer(StatusCode::OK, &upstreams.iter().map(show).collect()))
    }

    pub(super) async fn show_registry(&self, id: UpstreamId) -> Result<Response<Payload>, Failure> {
        let (upstream, _) = self.records.read(|records| records.record::<UpstreamRecord>(&key::upstream(id))).await?;
        let upstream = upstream.ok_or_else(|| missing(id))?;
        Ok(json_answer(StatusCode::OK, &show(&upstream)))
    }

    pub(super) async fn create_registry(&self, mut request: Request) -> Result<Response<Payload>, Failure> {
        let bytes = request.body.whole(BODY).await?;
        let written: Written =
            serde_json::from_slice(&bytes).map_err(|e| Failure::new(Code::BadRequest, format!("the body: {e}")))?;
        if written.name.is_empty() || written.name.len() > 128 {
            return Err(Failure::new(Code::BadRequest, "name has 1 to 128 characters"));
        }
        let endpoint = proxies::endpoint(&written.kind, &written.url)
            .map_err(|e| Failure::new(Code::BadRequest, format!("url: {e}")))?;
        let credential = written.credential.filter(|c| !c.access_key.is_empty());
        if let Some(c) = &credential {
            ecr::api(&written.kind, &endpoint, &c.access_key)
                .map_err(|e| Failure::new(Code::BadRequest, format!("url: {e}")))?;
        }
        self.writes.ready().await?;
        let credentials = match credential {
            None => None,
            Some(c) => {
                let sealed = self.secrets.seal(&written.name, &c.access_secret);
                Some((c.access_key, sealed.map_err(|e| Failure::new(Code::Internal, e.to_string()))?))
            }
        };
        let command =
            Command::CreateUpstream { name: written.name.clone(), kind: written.kind, url: written.url, credentials };
        match self.change(command).await {
            Ok(()) => {}
            Err(Refusal::Exists) => {
                return Err(Failure::new(Code::Conflict, format!("registry {} exists already", written.name)));
            }
            Err(refusal) => return Err(refusal.into()),
        }
        let (upstreams, _) = self.records.read(|records| records.upstreams()).await?;
        let mut response = Response::new(Payload::empty());
        *response.status_mut() = StatusCode::CREATED;
        if let Some(made) = upstreams.iter().find(|u| u.name == written.name)
            && let Ok(location) = HeaderValue::from_str(&format!("/api/v2.0/registries/{}", made.id))
        {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    }

    pub(super) async fn delete_registry(&self, id: UpstreamId) -> Result<Response<Payload>, Failure> {
        self.writes.ready().await?;
        match self.change(Command::DeleteUpstream { id }).await {
            Ok(()) => Ok(Response::new(Payload::empty())),
            Err(Refusal::NotFound) => Err(missing(id)),
            Err(Refusal::Conflict(reason)) => Err(Failure::new(Code::Precondition, reason)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Proposes a command that belongs to no project.
    async fn change(&self, command: Command) -> Result<(), Refusal> {
        let proposed = self.records.propose(OperationId(rand::random()), command, self.terms.commit).await;
        let proposed = proposed.map_err(|e| Refusal::Unavailable(e.to_string()))?;
        settle(proposed.outcome).map(|_| ())
    }
}

fn missing(id: UpstreamId) -> Failure {
    Failure::new(Code::NameUnknown, format!("there is no registry {id}"))
}
