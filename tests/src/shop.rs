//! A mesh of three replicas and an edge with a project whose images need signatures.

use std::path::Path;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::formed::Formed;
use crate::http::{Answer, Client};
use crate::image::Image;
use crate::process::{self, Finished};
use crate::repository::create_project;

/// Its replicas and their regions.
pub const THREE: [(&str, &str); 3] =
    [("one", "us-east-1"), ("two", "us-west-2"), ("three", "eu-central-1")];

/// A mesh with a public project, and the place of its edge, which asks again after this time at the
/// latest.
///
/// # Panics
/// If it does not come up.
#[must_use]
pub fn with_shop(settings: &str, access_age: &str) -> (Formed, usize) {
    let mut mesh = Formed::of(&THREE, settings);
    let age = format!("edge: {{access_age: {access_age}}}\n");
    let edge = mesh.add_edge("edge", "us-east-1", &age);
    mesh.members()[edge].wait_ready();
    create_project(&mesh.client(0), "shop", true, 2);
    (mesh, edge)
}

/// Shows that a program has succeeded.
///
/// # Panics
/// If it has not.
pub fn did(finished: &Finished) {
    assert!(finished.success, "{finished:?}");
}

/// The time in so many days, as `--until` takes it.
///
/// # Panics
/// If the clock is before 1970.
#[must_use]
pub fn in_days(days: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    (now.as_secs() + days * 86_400).to_string()
}

/// The image as clients name it at a node.
#[must_use]
pub fn named(mesh: &Formed, at: usize, image: &Image) -> String {
    format!("{}/shop/web@{}", mesh.members()[at].place().http, image.digest())
}

/// Changes metadata of the project.
///
/// # Panics
/// If that is refused.
pub fn set(mesh: &Formed, metadata: &Value) {
    let body = json!({"metadata": metadata});
    let answer = mesh.client(0).send_json(Method::PUT, "/api/v2.0/projects/shop", &body);
    let answer = answer.unwrap_or_else(|none| panic!("{none}"));
    assert_eq!(answer.status, 200, "{answer}");
}

/// Starts a member anew with these settings for signing (in one line), and this environment.
///
/// # Panics
/// If its settings cannot be written, or it does not become ready.
pub fn restart_signing(mesh: &Formed, at: usize, signing: &str, environment: &[(String, String)]) {
    let member = &mesh.members()[at];
    let text = std::fs::read_to_string(member.config()).expect("settings");
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("signing:")).collect();
    let signing = format!("signing: {{{signing}}}");
    lines.push(&signing);
    std::fs::write(member.config(), lines.join("\n") + "\n").expect("settings");
    member.stop(Signal::TERM);
    member.serve_in(environment);
    member.wait_ready();
}

/// Runs a verb of the command line as the administrator, at a node.
///
/// # Panics
/// If it cannot be run.
pub fn atoll(mesh: &Formed, at: usize, verb: &str, arguments: &[&str]) -> Finished {
    let password = mesh.folder().join("password-for-signing");
    std::fs::write(&password, mesh.password()).expect("a file");
    let url = format!("http://{}", mesh.members()[at].place().http);
    let mut command = mesh.members()[0].atoll(verb);
    command.args(arguments).args(["--url", &url, "--password-file"]);
    process::finish(command.arg(password))
}

/// Has the project trust a key.
///
/// # Panics
/// If that is refused.
pub fn trust(mesh: &Formed, name: &str, key: &Path) {
    let key = key.display().to_string();
    did(&atoll(mesh, 0, "signer", &["add", name, "--project", "shop", "--key", &key]));
}

/// What somebody without an account gets at a node.
#[must_use]
pub fn anybody(mesh: &Formed, at: usize) -> Client {
    mesh.client(at).anonymous()
}

/// Asks for a manifest of the repository `web`.
///
/// # Panics
/// Without an answer.
pub fn asks(client: &Client, method: Method, reference: &str) -> Answer {
    let path = format!("/v2/shop/web/manifests/{reference}");
    client.ask(method, &path).send().unwrap_or_else(|none| panic!("{none}"))
}

/// Whether a node serves it to everybody; else what it said.
///
/// # Errors
/// With that.
pub fn served(mesh: &Formed, at: usize, reference: &str) -> Result<(), String> {
    let answer = asks(&anybody(mesh, at), Method::GET, reference);
    match answer.status {
        200 => Ok(()),
        status => Err(format!("{status} {}", answer.envelope().unwrap_or_default().1)),
    }
}

/// Whether a node refuses it for `why`, to GET and HEAD; else what it said.
///
/// # Errors
/// With that.
pub fn refused(mesh: &Formed, at: usize, reference: &str, why: &str) -> Result<(), String> {
    let answer = asks(&anybody(mesh, at), Method::GET, reference);
    let said = answer.envelope().unwrap_or_default();
    let expected = answer.status == 403 && said.0 == "DENIED" && said.1.contains(why);
    let head = asks(&anybody(mesh, at), Method::HEAD, reference).status;
    match expected && head == 403 {
        true => Ok(()),
        false => Err(format!("{} (HEAD {head}) {said:?}", answer.status)),
    }
}
