//! Projects that stand for another registry: made over Harbor's API, asked as clients ask.

use http::Method;
use serde_json::{Value, json};

use crate::http::{Answer, Ask, Client};
use crate::image::ANY_KIND;
use crate::upstream::Upstream;

/// Where registries are made and listed.
pub const REGISTRIES: &str = "/api/v2.0/registries";
/// Where projects are.
pub const PROJECTS: &str = "/api/v2.0/projects";
/// Settings with which every pull by tag asks the upstream.
pub const ALWAYS_ASK: [(&str, &str); 2] =
    [("upstreams.fresh_for", "0s"), ("upstreams.missing_for", "0s")];

/// Makes something; where it is.
///
/// # Panics
/// When the mesh refuses, or does not say where.
pub fn make(administrator: &Client, path: &str, what: &Value) -> String {
    let made = administrator
        .send_json(Method::POST, path, what)
        .unwrap_or_else(|none| panic!("{what}: {none}"));
    assert_eq!(made.status, 201, "{what}: {made}");
    made.header("location").unwrap_or_else(|| panic!("{what}: made and not said where")).to_owned()
}

/// The id at the end of a location: a number, as in Harbor.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn id_of(location: &str) -> Value {
    let id = location.rsplit('/').next().and_then(|id| id.parse::<u64>().ok());
    json!(id.unwrap_or_else(|| panic!("no number at the end of {location}")))
}

/// Makes an upstream known, by the name `up`; its id.
///
/// # Panics
/// When the mesh refuses.
#[must_use]
pub fn make_registry(administrator: &Client, upstream: &Upstream) -> Value {
    let what = json!({"name": "up", "url": upstream.url(), "type": "docker-registry"});
    id_of(&make(administrator, REGISTRIES, &what))
}

/// A public project that stands for a registry.
///
/// # Panics
/// When the mesh refuses.
pub fn make_project(administrator: &Client, name: &str, registry: &Value) {
    let what =
        json!({"project_name": name, "registry_id": registry, "metadata": {"public": "true"}});
    make(administrator, PROJECTS, &what);
}

/// Makes another registry known and a project that caches it, both called `name`.
///
/// # Panics
/// When the mesh refuses.
pub fn create_proxy(administrator: &Client, name: &str, kind: &str, url: &str, public: bool) {
    let id =
        id_of(&make(administrator, REGISTRIES, &json!({"name": name, "url": url, "type": kind})));
    let metadata = json!({"public": public.to_string()});
    make(
        administrator,
        PROJECTS,
        &json!({"project_name": name, "registry_id": id, "metadata": metadata}),
    );
}

/// Begins to ask for a manifest of the project `hub`, whatever its kind.
#[must_use]
pub fn ask_manifest(client: &Client, repository: &str, reference: &str) -> Ask {
    client
        .ask(Method::GET, &format!("/v2/hub/{repository}/manifests/{reference}"))
        .header("accept", &ANY_KIND.join(", "))
}

/// The answer to that.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn manifest(client: &Client, repository: &str, reference: &str) -> Answer {
    let answer = ask_manifest(client, repository, reference).send();
    answer
        .unwrap_or_else(|none| panic!("{repository}:{reference} at {}: {none}", client.authority()))
}

/// Whether the node says that its answer may be old (110) or that it could not ask (111).
#[must_use]
pub fn warned(answer: &Answer) -> bool {
    let warnings = answer.headers.get_all("warning");
    warnings
        .iter()
        .any(|value| [&b"110"[..], b"111"].iter().any(|code| value.as_bytes().starts_with(code)))
}
