//! `/api/atoll/v1/nodes/NAME`: what the removal of a node costs, and the removal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ground::supervise::at_length;
use http::{Response, StatusCode};
use rules::ledger::command::Command;
use rules::ledger::events::Actor;
use rules::ledger::leaving::{Leaving, LeavingChange};
use rules::ledger::level::Level;
use rules::ledger::people::{Account, Robot};
use rules::ledger::records::{Look, NodeRecord, RecordError, Role, key};
use rules::members::removal::{Consequences, Survey, consequences};
use rules::words::digest::Digest;
use rules::words::names::{NodeId, OperationId, ProjectName, Revision};
use serde_json::{Value, json};

use super::Atoll;
use super::holdings::kept_by_all;
use crate::http::answer::json_answer;
use crate::http::{Code, Failure, Payload};
use registry::writes::{Refusal, settle};

/// How long a removal may take: voters are chosen anew and projects move first.
const REMOVAL: Duration = Duration::from_secs(9);

impl Atoll {
    /// What the mesh would be without the node called `name`.
    pub(super) async fn show_removal(&self, name: &str) -> Result<Response<Payload>, Failure> {
        let node = self.node_named(name).await?;
        let primary_of = self.records.view()?.projects()?;
        let primary_of = primary_of.iter().filter(|project| project.primary == node.id).count();
        let mut shown = json!({
            "name": node.name.as_str(),
            "role": node.role.name(),
            "region": node.region.as_str(),
            "primary_of": primary_of,
        });
        if node.role == Role::Replica {
            let costs = self.consequences(&node, &BTreeSet::new(), usize::MAX).await?;
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
            shown["gone_blobs"] = json!(blobs(&costs.gone));
            let no_majority = self.neighbours.majority().lost();
            let refused = |forced| no_majority.clone().or_else(|| costs.refusal(forced));
            shown["refused"] = json!(refused(false));
            shown["forced"] = json!(refused(true));
        }
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Removes the node called `name`. It may join again with another invitation, as another node.
    /// A replica must be one that the mesh can do without; `forced` accepts that content is lost. If
    /// a replica's disk is `exposed`, the mesh makes new keys, and the answer says what people must
    /// change.
    pub(super) async fn remove_node(
        &self,
        name: &str,
        forced: bool,
        exposed: bool,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let node = self.node_named(name).await?;
        self.writes.ready().await?;
        if node.role == Role::Edge {
            self.step(name, Command::RemoveNode { id: node.id }, by).await?;
        } else {
            if node.id == self.neighbours.me {
                let reason = format!("{name} cannot remove itself; ask another replica");
                return Err(Failure::new(Code::Conflict, reason));
            }
            if self.records.view()?.level()? < Level::LEAVING {
                let reason = format!(
                    "{name} stays: to remove a replica, the mesh must have feature level {}; run `atoll level --raise`",
                    Level::LEAVING
                );
                return Err(Failure::new(Code::Conflict, reason));
            }
            self.remove_replica(&node, forced, exposed, by).await?;
            if exposed {
                return Ok(json_answer(StatusCode::OK, &self.what_a_disk_knows().await?));
            }
        }
        let mut response = Response::new(Payload::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    /// Lets a replica go. What it costs is judged after its copies have ceased to count for writes,
    /// see [`rules::ledger::leaving`]. If that is too much, it stays.
    async fn remove_replica(
        &self,
        node: &NodeRecord,
        forced: bool,
        exposed: bool,
        by: &Actor,
    ) -> Result<(), Failure> {
        let name = node.name.as_str();
        let leaving = Leaving { node: node.id, removal: rand::random() };
        let begun = self.step(name, Command::Leaving(LeavingChange::Begin(leaving)), by).await?;
        let judged = async {
            self.applied(begun).await?;
            let costs = self.consequences(node, &BTreeSet::new(), usize::MAX).await?;
            let refused = match exposed {
                true => costs.refusal_exposed(forced),
                false => costs.refusal(forced),
            };
            match refused {
                Some(reason) => {
                    Err(Failure::new(Code::Conflict, format!("{name} stays: {reason}")))
                }
                None => Ok(()),
            }
        };
        let gone = match judged.await {
            Ok(()) => {
                let finish = match exposed {
                    true => LeavingChange::FinishExposed(leaving),
                    false => LeavingChange::Finish(leaving),
                };
                self.step(name, Command::Leaving(finish), by).await
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = gone {
            // if this fails, too, the ledger's leader ends it a minute later
            let end = Command::Leaving(LeavingChange::End(leaving));
            let _ = self.records.propose(OperationId(rand::random()), end, REMOVAL).await;
            return Err(failure);
        }
        Ok(())
    }

    /// What whoever has the disk of a replica may use elsewhere, or guess at: the mesh cannot change
    /// it by itself.
    async fn what_a_disk_knows(&self) -> Result<Value, Failure> {
        let (known, _) = self
            .door
            .read_at_length(|records| {
                let upstreams = records.upstreams()?.into_iter();
                let upstreams: Vec<String> =
                    upstreams.filter(|u| u.credentials.is_some()).map(|u| u.name).collect();
                let accounts = records.records::<Account>(&key::accounts())?;
                let users: Vec<String> =
                    accounts.into_iter().map(|(_, user)| user.name.to_string()).collect();
                let robots = records.records::<Robot>(&key::robots())?;
                let named = robots.into_iter().map(|(_, robot)| match robot.project {
                    Some((_, project)) => format!("{project}+{}", robot.name),
                    None => robot.name.to_string(),
                });
                let robots: Vec<String> = named.collect();
                Ok(json!({"registries": upstreams, "users": users, "robots": robots}))
            })
            .await?;
        Ok(json!({"change": known}))
    }

    /// Proposes one step, and returns where the ledger has it.
    pub(super) async fn step(
        &self,
        name: &str,
        command: Command,
        by: &Actor,
    ) -> Result<Revision, Failure> {
        let audited = self.records.view()?.level()? >= Level::EVENTS;
        let command = if audited { command.audited(by.clone()) } else { command };
        let proposed = self.records.propose(OperationId(rand::random()), command, REMOVAL).await;
        let proposed =
            proposed.map_err(|e| Failure::new(Code::Unavailable, self.neighbours.no_ledger(&e)))?;
        match settle(proposed.outcome) {
            Ok(_) => Ok(proposed.revision),
            Err(Refusal::NotFound) => Err(missing(name)),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Waits until this node has applied `revision`: what it reads then has all that came before.
    async fn applied(&self, revision: Revision) -> Result<(), Failure> {
        let Some(ledger) = self.records.ledger() else { return Ok(()) };
        let mut applied = ledger.applied();
        let until = applied.wait_for(|applied| *applied >= revision);
        match tokio::time::timeout(REMOVAL, until).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Failure::new(
                Code::Unavailable,
                "this node has not caught up with the ledger; ask another replica".to_owned(),
            )),
        }
    }

    pub(super) async fn node_named(&self, name: &str) -> Result<NodeRecord, Failure> {
        let (nodes, freshness) = self.door.read(|records| records.nodes()).await?;
        let node = nodes.into_iter().find(|node| node.name.as_str() == name);
        node.ok_or_else(|| missing(name).if_known(freshness))
    }

    /// What the mesh would be without a replica, and without these others. No project's durability
    /// counts for more than so many regions.
    pub(super) async fn consequences(
        &self,
        node: &NodeRecord,
        others: &BTreeSet<NodeId>,
        regions: usize,
    ) -> Result<Consequences, Failure> {
        let Some(ledger) = self.records.ledger() else {
            return Err(Failure::new(Code::Unavailable, "an edge does not know this".to_owned()));
        };
        let projects = at_length(|| {
            let view = self.records.view()?;
            let mut projects = Vec::new();
            // what a proxy project has cached is its upstream's
            for project in view.projects()?.into_iter().filter(|p| p.upstream.is_none()) {
                let links = view.scan(&key::links_of(&project.name), None, usize::MAX)?;
                let blobs = links.iter().filter_map(|(k, _)| key::digest_of(k)).collect();
                let most = u32::try_from(regions).unwrap_or(u32::MAX);
                projects.push((project.name, project.durability.min(most), blobs));
            }
            Ok::<_, RecordError>(projects)
        })?;
        let wanted: BTreeSet<Digest> = projects
            .iter()
            .flat_map(|(_, _, blobs): &(_, _, BTreeSet<_>)| blobs)
            .copied()
            .collect();
        let mut holdings = kept_by_all(&self.neighbours, &self.store, wanted).await?;
        holdings.retain(|holder, _| !others.contains(holder));
        let mut nodes = self.neighbours.nodes();
        nodes.retain(|known| !others.contains(&known.id));
        let live = self.neighbours.alive().into_iter().map(|candidate| candidate.id).collect();
        let survey = Survey {
            leaving: node.id,
            nodes: &nodes,
            voters: &ledger.status().voters,
            live: &live,
            projects: &projects,
            holdings: &holdings,
        };
        Ok(at_length(|| consequences(&survey)))
    }
}

fn missing(name: &str) -> Failure {
    let said = format!("no node of this mesh is called {name}; `atoll status` lists them");
    Failure::new(Code::NameUnknown, said)
}
