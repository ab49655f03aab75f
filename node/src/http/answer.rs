//! Answers that several faces give.

use http::{HeaderValue, Response, StatusCode, header};
use registry::view::Freshness;
use serde_json::Value;

use super::Payload;

/// The warning that an answer may be old (RFC 9111 keeps the code in its registry).
const STALE: &str = "110 atoll \"may be stale: this node cannot reach the leader of the ledger\"";

/// A response with a status and no body.
pub fn answer(status: StatusCode) -> Response<Payload> {
    let mut response = Response::new(Payload::empty());
    *response.status_mut() = status;
    response
}

/// A response with JSON.
pub fn json_answer(status: StatusCode, value: &Value) -> Response<Payload> {
    let mut response = Response::new(Payload::full(value.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A permanent redirect.
pub fn moved(to: &str) -> Response<Payload> {
    let mut response = answer(StatusCode::MOVED_PERMANENTLY);
    set(&mut response, "location", to);
    response
}

/// Sets a header whose value consists of checked words. A value that cannot be sent is left out.
pub fn set(response: &mut Response<Payload>, name: &'static str, value: impl AsRef<str>) {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        response.headers_mut().insert(name, value);
    }
}

/// Adds a warning with the age of an answer, if it is not fresh.
pub fn mark(response: &mut Response<Payload>, freshness: Freshness) {
    match freshness {
        Freshness::Fresh => {}
        Freshness::Stale => set(response, "warning", STALE),
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
