//! The repository `team/app` of another registry, as clients pull it through the project `hub`, which has a
//! gate before its images.

use http::Method;
use serde_json::{Value, json};

use crate::formed::Formed;
use crate::http::Answer;
use crate::image::ANY_KIND;
use crate::proxies::PROJECTS;

/// A pull by anybody, at one of the nodes.
///
/// # Panics
/// Without an answer.
#[must_use]
pub fn pull(mesh: &Formed, at: usize, method: Method, path: &str) -> Answer {
    let client = mesh.members()[at].anyone();
    let asked = client.ask(method, path).header("accept", &ANY_KIND.join(", ")).send();
    asked.unwrap_or_else(|none| panic!("{path} at {at}: {none}"))
}

/// The path of a manifest.
#[must_use]
pub fn by(reference: &str) -> String {
    format!("/v2/hub/team/app/manifests/{reference}")
}

/// Whether anybody gets it.
///
/// # Errors
/// With the answer, if not.
pub fn is_served(mesh: &Formed, at: usize, path: &str) -> Result<(), String> {
    let answer = pull(mesh, at, Method::GET, path);
    if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
}

/// Changes metadata of a project.
///
/// # Panics
/// If that is refused.
pub fn set(mesh: &Formed, project: &str, metadata: &Value) {
    let path = format!("{PROJECTS}/{project}");
    let answer = mesh.client(0).send_json(Method::PUT, &path, &json!({"metadata": metadata}));
    let answer = answer.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(answer.status, 200, "{answer}");
}
