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

/// `Link` to the pages before and after page `page` of a list of `total` entries, `size` to a page,
/// with everything else that was asked in `parameters`. In Harbor's form (its
/// `src/server/v2.0/handler/base.go`); empty if there is no other page. A `size` of 0 means one page
/// with all.
pub fn page_links(path: &str, parameters: &str, page: usize, size: usize, total: usize) -> String {
    let link = |page: usize, rel: &str| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(parameters.as_bytes()) {
            if name != "page" && name != "page_size" {
                query.append_pair(&name, &value);
            }
        }
        query.append_pair("page", &page.to_string());
        query.append_pair("page_size", &size.to_string());
        format!("<{path}?{}>; rel=\"{rel}\"", query.finish())
    };
    let mut links = Vec::new();
    if size > 0 && page > 1 && (page - 1).saturating_mul(size) < total {
        links.push(link(page - 1, "prev"));
    }
    if size > 0 && page.saturating_mul(size) < total {
        links.push(link(page + 1, "next"));
    }
    links.join(" , ")
}

/// Adds a warning with the age of an answer, if it is not fresh.
pub fn mark(response: &mut Response<Payload>, freshness: Freshness) {
    match freshness {
        Freshness::Fresh => {}
        Freshness::Stale => set(response, "warning", STALE),
        Freshness::Aged(age) | Freshness::Superseded(age) => {
            let seconds = age.as_secs();
            let warning = format!(
                "110 atoll \"may be stale: this edge can reach no replica, and last asked one about this {seconds} s ago\""
            );
            set(response, "warning", warning);
            set(response, "age", seconds.to_string());
        }
    }
}
