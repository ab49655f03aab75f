//! `/api/atoll/v1/mirrors`: what a client needs to know to use the mesh as a mirror. It needs no
//! credentials.

use http::{Response, StatusCode};
use rules::ledger::cached_scans::LookForCachedScans;
use rules::ledger::cached_signatures::LookForCachedSignatures;
use rules::ledger::records::Look;
use rules::members::roster::Standing;
use rules::proxies::mirror::registry;
use serde_json::{Value, json};

use super::Atoll;
use crate::http::answer::json_answer;
use crate::http::{Failure, Payload};
use registry::people::Caller;
use registry::upstreams::endpoint;

impl Atoll {
    /// The nodes, the nearest (as seen from here) first, and the mirrored registries. Private ones
    /// are shown to administrators only.
    pub(super) async fn show_mirrors(&self, caller: &Caller) -> Result<Response<Payload>, Failure> {
        let all = caller.identity.is_administrator();
        let me = self.neighbours.me;
        let mut nodes = self.neighbours.nodes();
        nodes.sort_by_cached_key(|node| {
            let far = node.region != self.neighbours.region;
            let away =
                self.neighbours.links.round_trip(node.id).unwrap_or(std::time::Duration::MAX);
            (node.id != me, far, away, node.name.clone())
        });
        let listed: Vec<Value> = nodes
            .iter()
            .map(|node| {
                let down = matches!(self.neighbours.members.standing(node.id), Some((Standing::Down, _)));
                json!({
                    "name": node.name.as_str(),
                    "region": node.region.as_str(),
                    "url": node.url,
                    "state": if node.id != me && down { "down" } else { "up" },
                    "round_trip_ms": self.neighbours.links.round_trip(node.id).map(|d| d.as_micros() as f64 / 1000.0),
                })
            })
            .collect();
        let read = self.records.read(|records| {
            let (projects, mut gated) = (records.projects()?, Vec::new());
            for project in projects.iter().filter(|project| project.upstream.is_some()) {
                let policy = records.signature_policy_of(project)?;
                if records.gate_of(project)?.is_some() || policy.is_some_and(|one| one.refuses()) {
                    gated.push(project.id);
                }
            }
            Ok((projects, records.upstreams()?, gated))
        });
        let ((projects, upstreams, gated), _) = read.await?;
        let registries: Vec<Value> = self
            .mirrors
            .mirrored()?
            .into_iter()
            .filter_map(|(registry, name)| {
                let project = projects.iter().find(|project| project.name == name)?;
                let upstream =
                    upstreams.iter().find(|upstream| Some(upstream.id) == project.upstream);
                // an alias may name a registry that is reached in another way than its upstream
                let plain = upstream
                    .and_then(|upstream| endpoint(&upstream.kind, &upstream.url).ok())
                    .is_some_and(|at| !at.is_secure() && at.registry().as_ref() == Some(&registry));
                let shown = json!({
                    "registry": registry,
                    "scheme": if plain { "http" } else { "https" },
                    "project": name.as_str(),
                    "public": project.public,
                    "gated": gated.contains(&project.id),
                });
                (project.public || all).then_some(shown)
            })
            .collect();
        let rules = self.mirrors.rules();
        let shown = json!({
            "node": self.neighbours.name_of(me),
            "region": self.neighbours.region.as_str(),
            "nodes": listed,
            "registries": registries,
            "domain": rules.domain,
            "default": rules.default.as_deref().map(registry),
        });
        Ok(json_answer(StatusCode::OK, &shown))
    }
}
