//! What a node says about the mesh, and which nodes a client should ask.

use std::io;

use http::Uri;
use serde_json::Value;

/// The maximum number of nodes of one region in a client's file. Each of them fetches what it lacks
/// by itself, and each that does not answer costs a pull time.
const MOST: usize = 3;

/// A node, as another node describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MirrorNode {
    pub(super) name: String,
    region: String,
    pub(super) url: String,
    up: bool,
}

/// A node's answer about the mesh.
#[derive(Clone, Debug)]
pub(super) struct MirrorList {
    region: String,
    /// The nearest first. The asked node is the first, with the URL at which it was asked.
    nodes: Vec<MirrorNode>,
    /// The mirrored registries that this client may see.
    pub(super) registries: Vec<String>,
    /// Those of them whose images the mesh may refuse: a client must not ask the registry itself.
    pub(super) gated: Vec<String>,
    /// Those of them without TLS.
    pub(super) plain: Vec<String>,
    /// The domain under which host names contain a registry.
    pub(super) domain: Option<String>,
    /// The registry that is meant if nothing names one.
    pub(super) default: Option<String>,
}

/// The nodes for a client's file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Their URLs, in the order in which they should be asked.
    pub(super) urls: Vec<String>,
    /// The nodes that were left out, with the reasons.
    pub(super) left_out: Vec<String>,
}

impl MirrorList {
    /// Parses the answer of the node at `url`.
    pub(super) fn read(url: &str, answer: &Value) -> io::Result<Self> {
        let strange =
            || io::Error::other(format!("{url} does not answer as a node of this version does"));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let me = answer["node"].as_str().ok_or_else(strange)?;
        let mut nodes = Vec::new();
        for node in answer["nodes"].as_array().ok_or_else(strange)? {
            let name = text(&node["name"]).ok_or_else(strange)?;
            let told = text(&node["url"]).ok_or_else(strange)?;
            let at = if name == me { url } else { told.as_str() };
            nodes.push(MirrorNode {
                region: text(&node["region"]).ok_or_else(strange)?,
                url: at.trim_end_matches('/').to_owned(),
                up: node["state"] == "up",
                name,
            });
        }
        nodes.sort_by_key(|node| node.name != me);
        if nodes.is_empty() {
            // it does not know its mesh yet, but it answers
            let name = me.to_owned();
            nodes.push(MirrorNode {
                name,
                region: text(&answer["region"]).unwrap_or_default(),
                url: url.into(),
                up: true,
            });
        }
        let registries = answer["registries"].as_array().ok_or_else(strange)?;
        let plain = registries.iter().filter(|one| one["scheme"] == "http");
        let gated = registries.iter().filter(|one| one["gated"] == true);
        Ok(MirrorList {
            region: text(&answer["region"]).ok_or_else(strange)?,
            nodes,
            gated: gated.filter_map(|one| text(&one["registry"])).collect(),
            plain: plain.filter_map(|one| text(&one["registry"])).collect(),
            registries: registries.iter().filter_map(|one| text(&one["registry"])).collect(),
            domain: text(&answer["domain"]),
            default: text(&answer["default"]),
        })
    }

    /// The mirrored registries, as text for people.
    pub(super) fn named(&self) -> String {
        if self.registries.is_empty() { "none".to_owned() } else { self.registries.join(", ") }
    }

    /// The asked node and others of its region, then those of other regions, if requested.
    pub(super) fn choose(&self, all_regions: bool) -> Chosen {
        let (mut urls, mut left_out): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        let mut near = 0;
        for node in self.listed(all_regions) {
            if !node.up {
                left_out.push(format!("{} ({}) is down", node.name, node.url));
            } else if !can_be_dialled(&node.url) {
                left_out.push(format!(
                    "{}: clients cannot connect to {}; set its http.public_url",
                    node.name, node.url
                ));
            } else if is_loopback(&node.url)
                && !self.nodes.first().is_some_and(|first| is_loopback(&first.url))
            {
                left_out.push(format!(
                    "{}: {} can only be reached on its own machine",
                    node.name, node.url
                ));
            } else if !urls.contains(&node.url) {
                let is_near = node.region == self.region;
                if is_near && near == MOST {
                    continue;
                }
                near += usize::from(is_near);
                urls.push(node.url.clone());
            }
        }
        Chosen { urls, left_out }
    }

    /// The nodes of the asked node's region, or all nodes, whether they are up or not.
    pub(super) fn listed(&self, all_regions: bool) -> impl Iterator<Item = &MirrorNode> {
        self.nodes.iter().filter(move |node| all_regions || node.region == self.region)
    }
}

/// The `host[:port]` of a URL.
pub(super) fn authority(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/')
}

/// Whether a URL uses plain HTTP.
pub(super) fn is_plain(url: &str) -> bool {
    url.starts_with("http://")
}

/// Whether a URL leads to the machine that uses it.
fn is_loopback(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn can_be_dialled(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    !host.is_empty() && host.parse::<std::net::IpAddr>().map_or(true, |ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn known() -> MirrorList {
        let node = |name: &str, region: &str, url: &str, state: &str| json!({"name": name, "region": region, "url": url, "state": state});
        let answer = json!({
            "node": "b1", "region": "b", "domain": null, "default": "docker.io",
            "registries": [{"registry": "docker.io", "scheme": "https"}, {"registry": "r:5000", "scheme": "http", "gated": true}],
            "nodes": [
                node("b1", "b", "http://0.0.0.0:5000", "up"), node("b2", "b", "http://b2:5000", "down"),
                node("b3", "b", "http://b3:5000", "up"), node("b4", "b", "http://[::]:5000", "up"),
                node("b5", "b", "http://b5:5000", "up"), node("b6", "b", "http://b6:5000", "up"),
                node("a1", "a", "https://a1", "up"), node("c1", "c", "https://a1/", "up"),
            ],
        });
        MirrorList::read("http://localhost:5000", &answer).unwrap()
    }

    #[test]
    fn a_client_asks_near_nodes_only_unless_it_wants_more() {
        let chosen = known().choose(false);
        assert_eq!(chosen.urls, ["http://localhost:5000", "http://b3:5000", "http://b5:5000"]);
        assert_eq!(chosen.left_out.len(), 2, "{:?}", chosen.left_out);
        assert_eq!((known().registries.len(), known().plain), (2, vec!["r:5000".to_owned()]));
        assert_eq!(known().gated, ["r:5000"]);
        let all = known().choose(true);
        assert_eq!(
            all.urls,
            ["http://localhost:5000", "http://b3:5000", "http://b5:5000", "https://a1"]
        );
    }

    #[test]
    fn another_machines_loopback_is_no_mirror() {
        let node =
            |name: &str, url: &str| json!({"name": name, "region": "b", "url": url, "state": "up"});
        let edge = node("edge", "http://127.0.0.1:5000");
        let answer = json!({"node": "b1", "region": "b", "registries": [], "nodes": [node("b1", "http://b1:5000"), edge]});
        let seen_from = |url: &str| MirrorList::read(url, &answer).unwrap().choose(false).urls;
        assert_eq!(seen_from("http://b1:5000"), ["http://b1:5000"]);
        assert_eq!(seen_from("http://127.0.0.2:5000").len(), 2, "one machine with several nodes");
    }

    #[test]
    fn an_answer_of_something_else_is_no_mesh() {
        assert!(MirrorList::read("http://x", &json!({"name": "x"})).is_err());
        assert_eq!(authority("https://r.example:5000"), "r.example:5000");
    }
}
