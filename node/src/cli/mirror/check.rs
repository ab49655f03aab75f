//! `atoll mirror check`: pulls images through each node in each way that clients have, and hashes every byte.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rules::proxies::mirror::{self, DOCKER_HUB, is_registry, registry, without_colon};
use rules::words::digest::Digest;
use rules::words::names::Reference;

use super::Asking;
use super::nodes::{Known, Node, authority};
use super::pull::{Pulled, Puller};
use crate::cli::client::Client;
use crate::cli::status::table;

/// Arguments of `mirror check`.
#[derive(clap::Args)]
pub(super) struct Check {
    /// Images of registries that the mesh mirrors, e.g. docker.io/library/alpine:3 or alpine:3. All of each is pulled once for each way and node. Without
    /// any: whether each node answers.
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    asking: Asking,
    /// A name to get tokens with, for registries whose project is private. Without it: as anyone.
    #[arg(long, requires = "password_file")]
    user: Option<String>,
    /// A file with the password.
    #[arg(long, requires = "user")]
    password_file: Option<PathBuf>,
}

/// An image as its registry's own clients know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// Its registry.
    pub(super) registry: String,
    /// Its repository there.
    pub(super) repository: String,
    /// Its tag or digest.
    pub(super) reference: Reference,
}

impl Image {
    /// Reads a name as docker does: without a registry it is Docker Hub's, and there one part is in `library`.
    fn read(written: &str) -> io::Result<Self> {
        let (name, reference) = mirror::image(written).map_err(|e| io::Error::other(format!("'{written}': {e}")))?;
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (registry(first), rest),
            _ => (DOCKER_HUB.to_owned(), name),
        };
        let library = registry == DOCKER_HUB && !repository.contains('/');
        let repository = format!("{}{repository}", if library { "library/" } else { "" });
        Ok(Image { registry, repository, reference })
    }
}

/// How a client says which registry it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// For the table.
    pub(super) name: &'static str,
    /// Stands before the repository in the path.
    pub(super) prefix: String,
    /// The query.
    pub(super) query: String,
    /// The Host header, where that carries the registry.
    pub(super) host: Option<String>,
}

impl Way {
    /// Every way in which clients of this mesh may ask `node` for images of `registry`.
    fn all(known: &Known, registry: &str, node: &str) -> Vec<Way> {
        let way = |name| Way { name, prefix: String::new(), query: String::new(), host: None };
        let mut ways = vec![
            Way { query: format!("?ns={registry}"), ..way("ns") },
            Way { prefix: format!("{}/", without_colon(registry)), ..way("path") },
        ];
        if let Some(domain) = &known.domain {
            let port = authority(node).rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let host = format!("{}.{domain}{port}", without_colon(registry));
            ways.push(Way { host: Some(host), ..way("host") });
        }
        if known.default.as_deref() == Some(registry) {
            ways.push(way("default"));
        }
        ways
    }
}

/// Pulls, prints a table, and fails if anything failed.
pub(super) fn run(check: &Check) -> io::Result<()> {
    let images: Vec<Image> = check.images.iter().map(|written| Image::read(written)).collect::<io::Result<_>>()?;
    let user = check.user.as_deref().zip(check.password_file.as_deref());
    let url = check.asking.url()?;
    let runtime = crate::cli::small_runtime()?;
    let client = Client::new(&url, user, check.asking.ca.as_deref())?;
    let known = Known::read(&url, &runtime.block_on(client.get("/api/atoll/v1/mirrors"))?)?;
    if let Some(image) = images.iter().find(|image| !known.registries.contains(&image.registry)) {
        let mirrored = known.named();
        let message = format!(
            "{} is not among the registries that the mesh mirrors for {} ({mirrored})",
            image.registry,
            if user.is_some() { "this user" } else { "everyone; a private project's needs --user and --password-file" },
        );
        return Err(io::Error::other(message));
    }
    let puller = Puller { user, authority: check.asking.ca.as_deref() };
    let nodes: Vec<&Node> = known.listed(check.asking.all_regions).collect();
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for node in nodes {
        let answers = runtime.block_on(puller.ping(&node.url));
        if let Err(reason) = answers {
            failures.push(format!("{} ({}): {reason}", node.name, node.url));
            rows.push(row("-", "-", &node.name, Err(())));
            continue;
        }
        if images.is_empty() {
            rows.push(row("-", "answers", &node.name, Ok(None)));
        }
        for image in &images {
            let shown = format!("{}/{}:{}", image.registry, image.repository, image.reference);
            for way in Way::all(&known, &image.registry, &node.url) {
                match runtime.block_on(puller.pull(&node.url, &way, image)) {
                    Ok(pulled) => rows.push(row(&shown, way.name, &node.name, Ok(Some(pulled)))),
                    Err(reason) => {
                        failures
                            .push(format!("{shown} by {} through {} ({}): {reason}", way.name, node.name, node.url));
                        rows.push(row(&shown, way.name, &node.name, Err(())));
                    }
                }
            }
        }
    }
    print!("{}", table(&["IMAGE", "WAY", "NODE", "DIGEST", "BYTES", "FIRST BYTE", "RESULT"], rows.clone()));
    if failures.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!("{} of {} failed:\n  {}", failures.len(), rows.len(), failures.join("\n  "))))
}

fn row(image: &str, way: &str, node: &str, result: Result<Option<Pulled>, ()>) -> Vec<String> {
    let dash = || "-".to_owned();
    let (digest, bytes, first, word) = match result {
        Ok(Some(p)) => (p.digest.short(), p.bytes.to_string(), format!("{:.1} ms", milliseconds(p.first_byte)), "ok"),
        Ok(None) => (dash(), dash(), dash(), "ok"),
        Err(()) => (dash(), dash(), dash(), "FAILED"),
    };
    vec![image.into(), way.into(), node.into(), digest, bytes, first, word.into()]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Whether bytes are what they are called.
pub(super) fn verify(wanted: &Digest, actual: &Digest) -> Result<(), String> {
    if wanted == actual { Ok(()) } else { Err(format!("what came is {actual}, not {wanted}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn images_are_named_as_docker_names_them() {
        let read = |written: &str| Image::read(written).map(|i| (i.registry, i.repository, i.reference.to_string()));
        let is = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(read("alpine").unwrap(), is("docker.io", "library/alpine", "latest"));
        assert_eq!(read("index.docker.io/alpine:3").unwrap(), is("docker.io", "library/alpine", "3"));
        assert_eq!(read("team/app:1").unwrap(), is("docker.io", "team/app", "1"));
        assert_eq!(read("r.example:5000/app:1").unwrap(), is("r.example:5000", "app", "1"));
        assert!(read("a@nothing").is_err());
    }

    #[test]
    fn every_way_that_the_mesh_has_is_tried() {
        let answer = |domain, default| json!({"node": "n", "region": "r", "nodes": [], "registries": [], "domain": domain, "default": default});
        let names = |answer: &serde_json::Value, registry: &str| {
            let known = Known::read("http://n:5000", answer).unwrap();
            Way::all(&known, registry, "http://n:5000").into_iter().map(|w| w.name).collect::<Vec<_>>()
        };
        let plain = answer(serde_json::Value::Null, serde_json::Value::Null);
        assert_eq!(names(&plain, "docker.io"), ["ns", "path"]);
        let whole = answer(json!("m.example"), json!("docker.io"));
        assert_eq!(names(&whole, "docker.io"), ["ns", "path", "host", "default"]);
        assert_eq!(names(&whole, "quay.io"), ["ns", "path", "host"]);
        let known = Known::read("http://n:5000", &whole).unwrap();
        let ways = Way::all(&known, "r.example:99", "http://n:5000");
        assert_eq!(ways[1].prefix, "r.example_99/");
        assert_eq!(ways[2].host.as_deref(), Some("r.example_99.m.example:5000"));
    }
}
