//! `/api/atoll/v1/nodes/NAME`: what the removal of a node costs, and the removal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::{Response, StatusCode};
use rules::ledger::command::Command;
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, NodeRecord, Role, key};
use rules::members::removal::{Consequences, Survey, consequences};
use rules::words::digest::Digest;
use rules::words::names::{NodeId, OperationId, ProjectName};
use serde_json::json;

use super::Atoll;
use crate::http::answer::json_answer;
use crate::http::{Code, Failure, Payload};
use registry::writes::{Refusal, settle};

/// How long a removal may take: voters are chosen anew and projects move first.
const REMOVAL: Duration = Duration::from_secs(9);

impl Atoll {
    /// What the mesh would be without the node called `name`.
    pub(super) async fn show_removal(&self, name: &str) -> Result<Response<Payload>, Failure> {
        let node = self.node_named(name)?;
        let primary_of = self.records.view()?.projects()?;
        let primary_of = primary_of.iter().filter(|project| project.primary == node.id).count();
        let mut shown = json!({
            "name": node.name.as_str(),
            "role": node.role.name(),
            "region": node.region.as_str(),
            "primary_of": primary_of,
        });
        if node.role == Role::Replica {
            let costs = self.consequences(&node).await?;
            let names = |ids: &BTreeSet<NodeId>| {
                ids.iter().map(|id| self.neighbours.name_of(*id)).collect::<Vec<_>>()
            };
            let blobs = |of: &BTreeMap<ProjectName, usize>| {
                of.iter().map(|(name, n)| (name.to_string(), *n)).collect::<BTreeMap<_, _>>()
            };
            shown["voters"] = json!({"up": costs.voters.0, "all": costs.voters.1});
            shown["lost_blobs"] = json!(blobs(&costs.lost));
            shown["short_blobs"] = json!(blobs(&costs.short));
            shown["silent"] = json!(names(&costs.silent));
            shown["refused"] = json!(costs.refusal(false));
            shown["forced"] = json!(costs.refusal(true));
        }
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Removes the node called `name`. It may join again with another invitation, as another node.
    /// A replica must be one that the mesh can do without; `forced` accepts that content is lost.
    pub(super) async fn remove_node(
        &self,
        name: &str,
        forced: bool,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let node = self.node_named(name)?;
        self.writes.ready().await?;
        if node.role == Role::Replica {
            let conflict = |reason: String| Failure::new(Code::Conflict, reason);
            if node.id == self.neighbours.me {
                return Err(conflict(format!("{name} cannot remove itself; ask another replica")));
            }
            if self.records.view()?.level()? < Level::KEYS {
                return Err(conflict(format!(
                    "{name} stays: to remove a replica, the mesh must have feature level {}; run `atoll level --raise`",
                    Level::KEYS
                )));
            }
            if let Some(reason) = self.consequences(&node).await?.refusal(forced) {
                return Err(conflict(format!("{name} stays: {reason}")));
            }
        }
        let command = Command::RemoveNode { id: node.id };
        let operation = OperationId(rand::random());
        let outcome = self.writes.propose(operation, command, by, REMOVAL).await;
        match settle(outcome.map_err(|e| Failure::new(Code::Unavailable, e.to_string()))?) {
            Ok(_) => {
                let mut response = Response::new(Payload::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                Ok(response)
            }
            Err(Refusal::NotFound) => Err(missing(name)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn node_named(&self, name: &str) -> Result<NodeRecord, Failure> {
        let nodes = self.neighbours.nodes().into_iter();
        nodes.into_iter().find(|node| node.name.as_str() == name).ok_or_else(|| missing(name))
    }

    async fn consequences(&self, node: &NodeRecord) -> Result<Consequences, Failure> {
        let Some(ledger) = self.records.ledger() else {
            return Err(Failure::new(Code::Unavailable, "an edge does not know this".to_owned()));
        };
        let view = self.records.view()?;
        let mut projects = Vec::new();
        // what a proxy project has cached is its upstream's
        for project in view.projects()?.into_iter().filter(|p| p.upstream.is_none()) {
            let links = view.scan(&key::links_of(&project.name), None, usize::MAX)?;
            let blobs = links.iter().filter_map(|(k, _)| key::digest_of(k)).collect();
            projects.push((project.name, project.durability, blobs));
        }
        drop(view);
        let wanted: BTreeSet<Digest> = projects
            .iter()
            .flat_map(|(_, _, blobs): &(_, _, BTreeSet<_>)| blobs)
            .copied()
            .collect();
        let wanted: Vec<Digest> = wanted.into_iter().collect();
        let kept = |stocks: Vec<rules::blobs::holding::Stock>| -> BTreeSet<Digest> {
            let kept = wanted.iter().zip(stocks);
            kept.filter(|(_, s)| s.held.is_some() && !s.cached).map(|(digest, _)| *digest).collect()
        };
        let stocks = self.neighbours.have(&wanted, None).await;
        let mut holdings: BTreeMap<NodeId, BTreeSet<Digest>> =
            stocks.into_iter().map(|(node, stocks)| (node, kept(stocks))).collect();
        let mine: Result<Vec<_>, _> = wanted.iter().map(|d| self.store.stock(d, None)).collect();
        holdings.insert(self.neighbours.me, kept(mine?));
        let live = self.neighbours.alive().into_iter().map(|candidate| candidate.id).collect();
        Ok(consequences(&Survey {
            leaving: node.id,
            nodes: &self.neighbours.nodes(),
            voters: &ledger.status().voters,
            live: &live,
            projects: &projects,
            holdings: &holdings,
        }))
    }
}

fn missing(name: &str) -> Failure {
    Failure::new(Code::NameUnknown, format!("no node of this mesh is called {name}"))
}
