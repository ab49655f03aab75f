//! `/api/atoll/v1/preheats`: preheats, which this node accepts and keeps.

use http::{HeaderValue, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Atoll;
use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};
use registry::jobs::preheats::{Item, Preheat, State};

/// The maximum size of a request's body in bytes.
const BODY: u64 = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreheatBody {
    images: Vec<String>,
    regions: Vec<String>,
    #[serde(default)]
    platforms: Vec<String>,
}

impl Atoll {
    pub(super) async fn create_preheat(
        &self,
        mut request: Request,
    ) -> Result<Response<Payload>, Failure> {
        let bytes = request.body.whole(BODY).await?;
        let PreheatBody { images, regions, platforms } = serde_json::from_slice(&bytes)
            .map_err(|e| Failure::new(Code::BadRequest, format!("the body: {e}")))?;
        let id = self.preheats.take(&images, &regions, platforms)?;
        let mut response = json_answer(StatusCode::ACCEPTED, &json!({"id": written(id)}));
        if let Ok(location) =
            HeaderValue::from_str(&format!("/api/atoll/v1/preheats/{}", written(id)))
        {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    }

    pub(super) fn show_preheat(&self, id: u64) -> Result<Response<Payload>, Failure> {
        let found = self.preheats.look(id).ok_or_else(unknown)?;
        Ok(json_answer(StatusCode::OK, &show(&found)))
    }

    pub(super) fn stop_preheat(&self, id: u64) -> Result<Response<Payload>, Failure> {
        let stopped = self.preheats.stop(id).ok_or_else(unknown)?;
        Ok(json_answer(StatusCode::ACCEPTED, &show(&stopped)))
    }

    pub(super) fn list_preheats(&self) -> Response<Payload> {
        json_answer(StatusCode::OK, &self.preheats.list().iter().map(show).collect())
    }
}

fn unknown() -> Failure {
    let message = "there is no such preheat on this node: a preheat belongs to the node that accepted it, until that node restarts";
    Failure::new(Code::NameUnknown, message)
}

fn written(id: u64) -> String {
    format!("{id:016x}")
}

fn word(state: State) -> &'static str {
    match state {
        State::Resolving => "resolving",
        State::Fetching => "fetching",
        State::Done => "done",
        State::Failed => "failed",
        State::Stopped => "stopped",
    }
}

fn show(preheat: &Preheat) -> Value {
    json!({
        "id": written(preheat.id),
        "creation_time": preheat.taken.to_string(),
        "state": word(preheat.state()),
        "platforms": preheat.platforms,
        "images": preheat.items.iter().map(show_item).collect::<Vec<_>>(),
    })
}

fn show_item(item: &Item) -> Value {
    let regions = item.regions.iter().map(|progress| {
        json!({
            "region": progress.region.as_str(),
            "state": word(progress.state),
            "blobs": {"wanted": progress.blobs.0, "held": progress.blobs.1},
            "bytes": {"wanted": progress.bytes.0, "held": progress.bytes.1},
            "errors": progress.errors,
        })
    });
    json!({
        "image": item.written,
        "repository": item.repository.as_str(),
        "reference": item.reference.to_string(),
        "digest": item.digest.map(|digest| digest.to_string()),
        "regions": regions.collect::<Vec<_>>(),
    })
}
