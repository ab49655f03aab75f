//! An image, and the ways in which clients ask a mirror for it.

use std::io;

use rules::proxies::mirror::{self, DOCKER_HUB, is_registry, registry, without_colon};
use rules::words::digest::Digest;
use rules::words::names::Reference;

use super::nodes::{MirrorList, authority};

/// An image, by the names that its registry's own clients use.
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
    /// Parses a name as docker does: a name without a registry is of Docker Hub, and there a name
    /// of one part is in `library`.
    pub(super) fn read(written: &str) -> io::Result<Self> {
        let (name, reference) =
            mirror::image(written).map_err(|e| io::Error::other(format!("'{written}': {e}")))?;
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (registry(first), rest),
            _ => (DOCKER_HUB.to_owned(), name),
        };
        let library = registry == DOCKER_HUB && !repository.contains('/');
        let repository = format!("{}{repository}", if library { "library/" } else { "" });
        Ok(Image { registry, repository, reference })
    }
}

/// A way in which a client names the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The name in the table.
    pub(super) name: &'static str,
    /// The path's part before the repository.
    pub(super) prefix: String,
    /// The query.
    pub(super) query: String,
    /// The Host header, if that names the registry.
    pub(super) host: Option<String>,
}

impl Way {
    /// All ways in which clients may ask `node` for images of `registry`.
    pub(super) fn all(known: &MirrorList, registry: &str, node: &str) -> Vec<Way> {
        let way = |name| Way { name, prefix: String::new(), query: String::new(), host: None };
        let mut ways = vec![
            Way { query: format!("?ns={registry}"), ..way("ns") },
            Way { prefix: format!("{}/", without_colon(registry)), ..way("path") },
        ];
        if let Some(domain) = &known.domain {
            let port = authority(node)
                .rsplit_once(':')
                .map(|(_, port)| port)
                .filter(|port| !port.contains(']'));
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

/// Compares the digest of received bytes with the expected one.
pub(super) fn verify(wanted: &Digest, actual: &Digest) -> Result<(), String> {
    if wanted == actual {
        Ok(())
    } else {
        Err(format!("the received bytes hash to {actual}, not to {wanted}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn images_are_named_as_docker_names_them() {
        let read = |written: &str| {
            Image::read(written).map(|i| (i.registry, i.repository, i.reference.to_string()))
        };
        let is = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(read("alpine").unwrap(), is("docker.io", "library/alpine", "latest"));
        assert_eq!(
            read("index.docker.io/alpine:3").unwrap(),
            is("docker.io", "library/alpine", "3")
        );
        assert_eq!(read("team/app:1").unwrap(), is("docker.io", "team/app", "1"));
        assert_eq!(read("r.example:5000/app:1").unwrap(), is("r.example:5000", "app", "1"));
        assert!(read("a@nothing").is_err());
    }

    #[test]
    fn every_way_that_the_mesh_has_is_tried() {
        let answer = |domain, default| json!({"node": "n", "region": "r", "nodes": [], "registries": [], "domain": domain, "default": default});
        let names = |answer: &serde_json::Value, registry: &str| {
            let known = MirrorList::read("http://n:5000", answer).unwrap();
            Way::all(&known, registry, "http://n:5000")
                .into_iter()
                .map(|w| w.name)
                .collect::<Vec<_>>()
        };
        let plain = answer(serde_json::Value::Null, serde_json::Value::Null);
        assert_eq!(names(&plain, "docker.io"), ["ns", "path"]);
        let whole = answer(json!("m.example"), json!("docker.io"));
        assert_eq!(names(&whole, "docker.io"), ["ns", "path", "host", "default"]);
        assert_eq!(names(&whole, "quay.io"), ["ns", "path", "host"]);
        let known = MirrorList::read("http://n:5000", &whole).unwrap();
        let ways = Way::all(&known, "r.example:99", "http://n:5000");
        assert_eq!(ways[1].prefix, "r.example_99/");
        assert_eq!(ways[2].host.as_deref(), Some("r.example_99.m.example:5000"));
    }
}
