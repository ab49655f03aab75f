//! `/api/atoll/v1/status`: the mesh as this node sees it, for `atoll status` and the live view.

use std::collections::{BTreeMap, BTreeSet};

use ground::clock;
use ground::supervise::at_length;
use http::{Response, StatusCode};
use mesh::ledger::LeaseState;
use rules::blobs::holding::{Held, Stock};
use rules::ledger::drills::LookForDrills;
use rules::ledger::level::Level;
use rules::ledger::people::LookForPeople;
use rules::ledger::records::{Look, NodeRecord, Project, key};
use rules::ledger::sealing::LookForKeys;
use rules::ledger::sign_log::LookForSigning;
use rules::ledger::trust::LookForTrust;
use rules::members::majority::Majority;
use rules::members::roster::Standing;
use rules::members::signing::Openers;
use rules::words::digest::Digest;
use rules::words::names::NodeId;
use serde_json::{Value, json};
use sign::making::sealed::SealedError;

use super::Atoll;
use crate::http::answer::json_answer;
use crate::http::{Failure, Payload};
use registry::blobs::transfers::Direction;
use registry::signatures::keks::KekStanding;
use registry::view::{EdgeStanding, Records};

/// Which voters are up, and what to know if too few are; nothing where no voter is known.
pub(super) fn show_majority(majority: &Majority) -> Value {
    if majority.all() == 0 {
        return Value::Null;
    }
    json!({
        "up": majority.up,
        "missing": majority.missing,
        "lost": majority.lost(),
    })
}

impl Atoll {
    pub(super) async fn status(&self, with_copies: bool) -> Result<Response<Payload>, Failure> {
        let ledger = self.records.ledger().map(|ledger| ledger.status());
        let leader = ledger.as_ref().and_then(|ledger| ledger.leader);
        let nodes = self.neighbours.nodes();
        let name = |id: NodeId| {
            nodes.iter().find(|n| n.id == id).map_or_else(|| id.to_string(), |n| n.name.to_string())
        };
        let projects = self.records.view()?.projects()?;
        // that reads a link for each blob of each repository, so it is not done for those who only
        // watch the mesh
        let copies: Vec<Option<(usize, Value)>> = match with_copies {
            true => self.count_copies(&projects, &nodes).await?.into_iter().map(Some).collect(),
            false => projects.iter().map(|_| None).collect(),
        };
        let shown_projects: Vec<Value> = projects
            .iter()
            .zip(copies)
            .map(|(project, copies)| self.show_project_status(project, copies))
            .collect();
        let draining = self.neighbours.draining();
        let shown_nodes: Vec<Value> =
            nodes.iter().map(|n| self.show_node(n, leader, &draining)).collect();
        let transfers: Vec<Value> = self
            .transfers
            .list()
            .iter()
            .map(|t| {
                json!({
                    "digest": t.digest.map(|d| d.to_string()),
                    "direction": match t.direction { Direction::In => "in", Direction::Out => "out" },
                    "peer": name(t.peer),
                    "bytes": t.bytes,
                    "total": t.total,
                })
            })
            .collect();
        let now = clock::now();
        let liars: Vec<Value> = self
            .liars
            .list()
            .iter()
            .map(|(node, caught)| {
                let lies: BTreeMap<&str, u64> =
                    caught.lies.iter().map(|(lie, count)| (lie.name(), *count)).collect();
                json!({
                    "node": name(*node),
                    "lies": lies,
                    "last_seconds_ago": now.since(caught.last).as_secs(),
                    "demoted_for_seconds": caught.demoted_for(now).as_secs(),
                })
            })
            .collect();
        let names = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| name(*id)).collect::<Vec<_>>();
        let status = json!({
            "node": {
                "id": self.neighbours.me.to_string(),
                "name": name(self.neighbours.me),
                "region": self.neighbours.region.as_str(),
            },
            "majority": show_majority(&self.neighbours.majority()),
            "leader": leader.map(|id| json!({"id": id.to_string(), "name": name(id)})),
            "lease": ledger.as_ref().map(|ledger| json!({"state": match ledger.lease {
                LeaseState::Leader => "leader",
                LeaseState::Held => "held",
                LeaseState::None => "none",
            }})),
            "ledger": ledger.as_ref().map(|ledger| json!({
                "applied": ledger.applied.0,
                "released": ledger.released.0,
                "log_from": ledger.log_from.0,
                "log_bytes": ledger.log_bytes,
                "snapshots": ledger.snapshots,
                "term": ledger.term,
                "voters": names(&ledger.voters),
                "learners": names(&ledger.learners),
                "records": {
                    "revision": ledger.fingerprint.0.0,
                    "fingerprint": ledger.fingerprint.1.to_string(),
                    "compared_at": ledger.comparison.at.map(|at| at.0),
                    "same": ledger.comparison.same,
                    "differ_from": names(&ledger.comparison.others),
                },
            })),
            "trust": self.show_trust()?,
            "edge": self.show_edge(),
            "drill": self.show_drill_under_way()?,
            "cache": self.show_cache(),
            "nodes": shown_nodes,
            "projects": shown_projects,
            "transfers": transfers,
            "upstreams": self.show_upstreams()?,
            "liars": liars,
            "signing": self.show_signing_status(&projects, &name)?,
            "key_encryption": self.show_keks(),
        });
        Ok(json_answer(StatusCode::OK, &status))
    }

    /// The drill that is under way, if there is one. An edge is not told who began it.
    fn show_drill_under_way(&self) -> Result<Option<Value>, Failure> {
        if self.neighbours.is_edge() {
            return Ok(None);
        }
        let drill = self.records.view()?.last_drill()?;
        Ok(drill.filter(|drill| clock::timestamp() < drill.until).map(|drill| {
            json!({
                "region": drill.region.as_str(),
                "until": drill.until.to_string(),
                "by": drill.by,
            })
        }))
    }

    /// The versions of the keys that the mesh uses now, and whether they are newer than what was
    /// exposed last.
    fn show_trust(&self) -> Result<Option<Value>, Failure> {
        if self.neighbours.is_edge() {
            return Ok(None);
        }
        let view = self.records.view()?;
        let sealing = view.sealing_keys()?.last().map_or(0, |key| key.version);
        let tokens = view.token_keys()?.last().map_or(0, |key| key.number);
        let authority = view.authorities()?.last().map_or(0, |authority| authority.version);
        let exposed = view.exposed()?.map(|exposed| {
            let replaced = sealing > exposed.sealing
                && tokens > exposed.tokens
                && authority > exposed.authority;
            json!({"node": exposed.node.to_string(), "at": exposed.at.to_string(), "replaced": replaced})
        });
        let mut unknown = Vec::new();
        for node in view.nodes()? {
            if view.pin(node.id)?.is_none() {
                unknown.push(node.name.to_string());
            }
        }
        Ok(Some(json!({
            "unknown_keys": unknown,
            "sealing_key": sealing,
            "token_key": tokens,
            "authority": authority,
            "exposed": exposed,
        })))
    }

    /// Of the projects that sign: whether their primaries can, and who else could.
    fn show_signing_status(
        &self,
        projects: &[Project],
        name: &dyn Fn(NodeId) -> String,
    ) -> Result<Option<Vec<Value>>, Failure> {
        // an edge is not told
        if self.neighbours.is_edge() {
            return Ok(None);
        }
        let view = self.records.view()?;
        // builds of before do not say what they open
        if view.level()? < Level::SIGNING {
            return Ok(None);
        }
        let openers = Openers { sealed: view.signing_projects()?, opens: view.opens()? };
        let signs = projects.iter().filter(|one| openers.sealed.contains_key(&one.id));
        let shown = signs.map(|project| {
            let can = |node: &NodeId| openers.can(*node, project.id);
            let openers = openers.opens.keys().filter(|node| can(node));
            json!({
                "project": project.name.as_str(),
                "primary": name(project.primary),
                "signs": can(&project.primary),
                "opened_by": openers.map(|node| name(*node)).collect::<Vec<_>>(),
            })
        });
        Ok(Some(shown.collect()))
    }

    /// How this node's key-encryption keys stand, in the order of its settings. It seals with the first.
    fn show_keks(&self) -> Vec<Value> {
        let told = |error| match error {
            // it names the setting
            SealedError::Unusable(why) => why,
            error => error.to_string(),
        };
        let show = |kek: KekStanding| {
            json!({
                "setting": kek.setting,
                "key": kek.key.as_ref().ok().map(ToString::to_string),
                "fault": kek.key.err().map(told),
            })
        };
        self.signatures.keks().into_iter().map(show).collect()
    }

    /// The number of records that an edge has kept, and how long ago it heard from the mesh.
    fn show_edge(&self) -> Option<Value> {
        let Records::Edge(edge) = &self.records else { return None };
        let EdgeStanding { heard, kept } = edge.standing();
        Some(json!({"heard_seconds_ago": heard.map(|ago| ago.as_secs()), "kept_records": kept}))
    }

    /// The recorded registries, with what this node knows about them.
    fn show_upstreams(&self) -> Result<Vec<Value>, Failure> {
        let shown = self.upstreams.standings()?.into_iter().map(|(record, standing)| {
            json!({
                "name": record.name,
                "url": record.url,
                "paused_seconds": standing.paused.as_millis().div_ceil(1000) as u64,
                "last_error": standing.failed.map(|(error, ago)| json!({"message": error, "seconds_ago": ago.as_secs()})),
            })
        });
        Ok(shown.collect())
    }

    fn show_cache(&self) -> Value {
        let (blobs, bytes, budget) = self.store.cached();
        let cached = self.records.cached().map(|cached| cached.totals());
        json!({
            "blobs": blobs,
            "bytes": bytes,
            "budget": budget,
            "manifests": cached.map(|(manifests, _)| manifests),
            "manifest_bytes": cached.map(|(_, bytes)| bytes),
        })
    }

    fn show_node(
        &self,
        node: &NodeRecord,
        leader: Option<NodeId>,
        draining: &BTreeSet<NodeId>,
    ) -> Value {
        let standing = self.neighbours.members.standing(node.id);
        let state = match standing {
            _ if node.id == self.neighbours.me => "up",
            Some((Standing::Up, _)) => "up",
            Some((Standing::Down, _)) => "down",
            None if self.neighbours.members.down().contains(&node.id) => "down",
            None => "unknown",
        };
        json!({
            "id": node.id.to_string(),
            "name": node.name.as_str(),
            "region": node.region.as_str(),
            "role": node.role.name(),
            "url": node.url,
            "address": node.address.to_string(),
            "state": state,
            "since_seconds": standing.map(|(_, at)| clock::now().since(at).as_secs()),
            "round_trip_ms": self.neighbours.links.round_trip(node.id).map(|d| d.as_micros() as f64 / 1000.0),
            "leader": leader == Some(node.id),
            "draining": draining.contains(&node.id),
            "trouble": self.neighbours.conditions.trouble(node.id).map(|why| why.to_string()),
            "damaged_blobs": self.neighbours.conditions.damaged_at(node.id).len(),
        })
    }

    fn blobs_of(&self, project: &Project) -> Result<BTreeSet<Digest>, Failure> {
        let view = self.records.view()?;
        let links = at_length(|| view.scan(&key::links_of(&project.name), None, usize::MAX))?;
        Ok(links.iter().filter_map(|(k, _)| key::digest_of(k)).collect())
    }

    /// The blobs of `wanted` that each node holds. There is one question for all projects, so a
    /// silent node delays the answer by one deadline only.
    async fn who_holds(
        &self,
        wanted: &BTreeSet<Digest>,
    ) -> Result<BTreeMap<NodeId, BTreeMap<Digest, Held>>, Failure> {
        let digests: Vec<Digest> = wanted.iter().copied().collect();
        let mut stocks = if digests.is_empty() {
            BTreeMap::new()
        } else {
            self.neighbours.have(&digests, None).await
        };
        stocks.insert(self.neighbours.me, self.store.stocks(&digests, None).await?);
        // a copy whose bytes are wrong is none
        let held = |node: NodeId, stock: Vec<Stock>| {
            let damaged = self.neighbours.conditions.damaged_at(node);
            let sound = digests.iter().zip(stock).filter(|(digest, _)| !damaged.contains(digest));
            sound.filter_map(|(digest, stock)| Some((*digest, stock.held?))).collect()
        };
        Ok(stocks.into_iter().map(|(node, stock)| (node, held(node, stock))).collect())
    }

    /// The number of blobs of each project, and how many of them each region holds.
    async fn count_copies(
        &self,
        projects: &[Project],
        nodes: &[NodeRecord],
    ) -> Result<Vec<(usize, Value)>, Failure> {
        let blobs =
            projects.iter().map(|project| self.blobs_of(project)).collect::<Result<Vec<_>, _>>()?;
        let wanted: BTreeSet<Digest> = blobs.iter().flatten().copied().collect();
        let held = self.who_holds(&wanted).await?;
        let count = |blobs| json!(copies(blobs, nodes, &held));
        Ok(blobs.iter().map(|blobs| (blobs.len(), count(blobs))).collect())
    }

    /// A project, with the number of its blobs and those that each region holds, if that was
    /// requested.
    fn show_project_status(&self, project: &Project, counted: Option<(usize, Value)>) -> Value {
        let (blobs, copies) = counted.unzip();
        json!({
            "name": project.name.as_str(),
            "public": project.public,
            "durability": project.durability,
            "registry_id": project.upstream.map(|id| id.0),
            "home": self.neighbours.name_of(project.home),
            "primary": self.neighbours.name_of(project.primary),
            "epoch": project.epoch.get(),
            "blobs": blobs,
            "copies": copies,
        })
    }
}

/// The number of `blobs`, and of their bytes, that each region holds.
fn copies(
    blobs: &BTreeSet<Digest>,
    nodes: &[NodeRecord],
    held: &BTreeMap<NodeId, BTreeMap<Digest, Held>>,
) -> BTreeMap<String, Value> {
    let mut regions: BTreeMap<&str, BTreeMap<&Digest, u64>> = BTreeMap::new();
    for node in nodes {
        let region = regions.entry(node.region.as_str()).or_default();
        if let Some(held) = held.get(&node.id) {
            region.extend(blobs.iter().filter_map(|digest| Some((digest, held.get(digest)?.size))));
        }
    }
    let shown = |held: &BTreeMap<&Digest, u64>| json!({"blobs": held.len(), "bytes": held.values().sum::<u64>()});
    regions.iter().map(|(region, held)| ((*region).to_owned(), shown(held))).collect()
}
