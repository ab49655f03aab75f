//! The other nodes as this node sees them now, from roster and ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use mesh::links::{LinkError, Links};
use mesh::members::Members;
use rules::blobs::flight::Hurry;
use rules::blobs::holding::{Held, Stock};
use rules::ledger::draining::LookForDraining;
use rules::ledger::records::{Look, NodeRecord, Role, key};
use rules::members::draining;
use rules::members::majority::Majority;
use rules::members::placement::{self, Candidate};
use rules::members::shortage::{Unable, unable};
use rules::wire::questions::{Collection, Condition, Have};
use rules::wire::{CollectionAnswer, CollectionAsk, MAX_HAVE, NoLedger};
use rules::words::digest::Digest;
use rules::words::names::{NodeId, Region, RepositoryName};

use crate::view::Records;
use crate::view::conditions::Conditions;
use crate::view::runs::UpkeepRuns;

/// The nodes that this node can ask.
pub struct Neighbours {
    /// This node.
    pub me: NodeId,
    /// Its region.
    pub region: Region,
    /// The links to the others.
    pub links: Arc<Links>,
    /// Which of them are alive.
    pub members: Arc<Members>,
    /// The records of the members.
    pub records: Records,
    /// The runs of the mesh's upkeep at this node.
    pub upkeep: UpkeepRuns,
    /// Which of the replicas should be given no blobs.
    pub conditions: Conditions,
}

/// The maximum number of edges that are asked for a blob that no replica holds.
const EDGES_ASKED: usize = 8;

/// The maximum number of edges of other regions that a replica asks for a blob that nobody else holds.
const FAR_EDGES_ASKED: usize = 64;

/// How long to wait for other nodes after the first has said that it holds a blob.
const GRACE: Duration = Duration::from_millis(5);
/// How long nodes may take to say what they hold.
const HAVE: Duration = Duration::from_millis(1000);
/// How long nodes that have not said what they hold are waited for if no other holds a blob. Nodes
/// that have died are known to be down before this is over, and then nobody waits for them.
const LAST: Duration = Duration::from_secs(10);
/// The time between two questions to a node that did not answer.
const AGAIN: Duration = Duration::from_millis(100);

impl Neighbours {
    /// All members, alive or not. Empty until this node has learnt of any.
    pub fn nodes(&self) -> Vec<NodeRecord> {
        self.records.view().and_then(|view| view.nodes()).unwrap_or_default()
    }

    /// The replicas that are not known to be down, including this node if it is a replica. A
    /// replica that the gossip has not met yet (just after a start) is included: it is worth
    /// asking, because every question has a deadline.
    pub fn alive(&self) -> Vec<Candidate> {
        self.all_alive().into_iter().filter(|c| c.role == Role::Replica).collect()
    }

    /// Those of them that may be given something new: the ones that do not drain, and that can take
    /// it.
    pub fn taking(&self) -> Vec<Candidate> {
        let staying = draining::taking(self.alive(), &self.draining());
        draining::taking(staying, &self.conditions.troubled())
    }

    /// The replicas that drain.
    pub fn draining(&self) -> BTreeSet<NodeId> {
        self.records.view().and_then(|view| view.draining()).unwrap_or_default()
    }

    /// All members that are not known to be down.
    fn all_alive(&self) -> Vec<Candidate> {
        let down = self.members.down();
        self.nodes()
            .iter()
            .filter(|n| n.id == self.me || !down.contains(&n.id))
            .map(Candidate::of)
            .collect()
    }

    /// The live members of this node's region, including edges.
    pub fn region_alive(&self) -> Vec<Candidate> {
        self.all_alive().into_iter().filter(|c| c.region == self.region).collect()
    }

    /// Whether this node is an edge.
    pub fn is_edge(&self) -> bool {
        matches!(self.records, Records::Edge(_))
    }

    /// The regions that have replicas, alive or not, without those in which all drain.
    pub fn regions(&self) -> BTreeSet<Region> {
        let replicas = self.nodes();
        let replicas = replicas.iter().filter(|node| node.role == Role::Replica);
        let replicas = replicas.map(Candidate::of).collect();
        let staying = draining::taking(replicas, &self.draining());
        staying.into_iter().map(|candidate| candidate.region).collect()
    }

    /// The same, with those in which all replicas drain.
    pub fn all_regions(&self) -> BTreeSet<Region> {
        let replicas = self.nodes().into_iter().filter(|node| node.role == Role::Replica);
        replicas.map(|node| node.region).collect()
    }

    /// The nodes that were removed from the mesh. Not known at an edge.
    pub fn removed(&self) -> Vec<NodeId> {
        let removed =
            self.records.view().and_then(|view| view.scan(&key::removals(), None, usize::MAX));
        removed.unwrap_or_default().iter().filter_map(|(place, _)| key::removed_of(place)).collect()
    }

    /// The names of the replicas that take no copies, and why. Only those that are known to be down or
    /// to drain at an edge.
    pub fn unable(&self) -> Vec<(String, Unable)> {
        let nodes = self.nodes();
        let live = self.alive().into_iter().map(|candidate| candidate.id).collect();
        let why = unable(&nodes, &live, &self.draining(), &self.conditions.all());
        let name = |id: NodeId| nodes.iter().find(|node| node.id == id).map(|n| n.name.to_string());
        why.into_iter().filter_map(|(id, why)| Some((name(id)?, why))).collect()
    }

    /// Why the ledger took nothing, for people: that its majority is lost, if that is so.
    pub fn no_ledger(&self, error: &NoLedger) -> String {
        self.majority().lost().unwrap_or_else(|| error.to_string())
    }

    /// Which voters of the ledger are up. None are known at an edge.
    pub fn majority(&self) -> Majority {
        let voters = self.records.ledger().map(|ledger| ledger.status().voters);
        let down = self.members.down();
        let voters = voters.unwrap_or_default().into_iter();
        Majority::of(voters.map(|id| (self.name_of(id), id == self.me || !down.contains(&id))))
    }

    /// The name of `node` for people. One that was removed has no name any more.
    pub fn name_of(&self, node: NodeId) -> String {
        let named = self.nodes().into_iter().find(|n| n.id == node);
        if let Some(named) = named {
            return named.name.to_string();
        }
        let removed = self.records.view().and_then(|view| view.get(&key::removed(node)));
        match removed {
            Ok(Some(_)) => "(a removed node)".to_owned(),
            _ => node.to_string(),
        }
    }

    /// Asks every other live replica which of `digests` it holds. A node that does not answer in
    /// time counts as holding none.
    pub async fn have(
        &self,
        digests: &[Digest],
        repository: Option<&RepositoryName>,
    ) -> BTreeMap<NodeId, Vec<Stock>> {
        let others = self.alive().into_iter().map(|c| c.id).filter(|id| *id != self.me).collect();
        self.ask_have(others, digests, repository, None).await
    }

    /// The same, of the replicas that have carried out all collections up to `collections`, see
    /// [`rules::ledger::collecting`]. A copy that one of them reports is not lost by those.
    pub async fn have_after(
        &self,
        digests: &[Digest],
        repository: &RepositoryName,
        collections: u64,
    ) -> BTreeMap<NodeId, Vec<Stock>> {
        let others = self.alive().into_iter().map(|c| c.id).filter(|id| *id != self.me).collect();
        self.ask_have(others, digests, Some(repository), Some(collections)).await
    }

    async fn ask_have(
        &self,
        others: Vec<NodeId>,
        digests: &[Digest],
        repository: Option<&RepositoryName>,
        collections: Option<u64>,
    ) -> BTreeMap<NodeId, Vec<Stock>> {
        let asked = others.into_iter().map(|node| async move {
            let mut all = Vec::with_capacity(digests.len());
            for part in digests.chunks(MAX_HAVE) {
                let (digests, repository) = (part.to_vec(), repository.cloned());
                let stock = match collections {
                    None => self.links.ask(node, Have { digests, repository }, HAVE).await.ok()?,
                    Some(collections) => {
                        let ask = CollectionAsk::Stock { digests, repository, collections };
                        match self.links.ask(node, Collection { ask }, HAVE).await.ok()? {
                            CollectionAnswer::Stock(stock) => stock,
                            CollectionAnswer::CountedOn(_) => return None,
                        }
                    }
                };
                if stock.len() != part.len() {
                    return None;
                }
                all.extend(stock);
            }
            Some((node, all))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Live nodes that hold `digest`, the nearest first: replicas, and if none has a copy that is not
    /// known to be damaged, a few edges of this region, or, for a replica in no hurry, of others. [`Hurry::First`] waits only for the first answers of `trusted` nodes, which are
    /// about the nearest: a node that has just died must not delay the answer, and a node that lied
    /// lately must not be the only source because it is quick. The copies of the `damaged` nodes are
    /// known to be.
    pub async fn holders(
        &self,
        digest: Digest,
        hurry: Hurry,
        trusted: impl Fn(NodeId) -> bool,
        damaged: &BTreeSet<NodeId>,
    ) -> Vec<NodeId> {
        let region_of: BTreeMap<NodeId, Region> =
            self.alive().into_iter().map(|c| (c.id, c.region)).collect();
        let replicas = region_of.keys().copied().filter(|id| *id != self.me).collect();
        let mut holders = self.who_holds(replicas, digest, hurry, &trusted).await;
        // what replicas have is damaged: what an edge has is checked like theirs, and may be sound
        let is_damaged = |node: &NodeId| {
            damaged.contains(node) || self.conditions.damaged_at(*node).contains(&digest)
        };
        if holders.iter().all(is_damaged) {
            let edges = self.all_alive().into_iter();
            let edges = edges.filter(|c| c.role == Role::Edge && c.id != self.me);
            let (near, far): (Vec<_>, Vec<_>) = edges.partition(|c| c.region == self.region);
            let some = |edges: Vec<Candidate>, most| {
                let ranked = placement::ranked(&digest, edges.into_iter().map(|c| c.id));
                ranked.into_iter().take(most).collect()
            };
            let mut found = self.who_holds(some(near, EDGES_ASKED), digest, hurry, &trusted).await;
            if found.is_empty() && hurry == Hurry::All && !self.is_edge() {
                found = self.who_holds(some(far, FAR_EDGES_ASKED), digest, hurry, &trusted).await;
            }
            holders.append(&mut found);
        }
        holders.sort_by_key(|node| {
            let near = region_of.get(node) == Some(&self.region);
            (!near, self.links.round_trip(*node).unwrap_or(Duration::MAX), *node)
        });
        holders
    }

    /// What another live replica holds of `digest`, if it was uploaded or mounted there into
    /// `repository` lately. A client of a load balancer may have sent it there a moment ago.
    pub async fn granted(&self, digest: Digest, repository: &RepositoryName) -> Option<Held> {
        let others = self.alive().into_iter().map(|c| c.id).filter(|id| *id != self.me);
        let question = Have { digests: vec![digest], repository: Some(repository.clone()) };
        let mut answers: FuturesUnordered<_> =
            others.map(|node| self.links.ask(node, question.clone(), HAVE)).collect();
        while let Some(answer) = answers.next().await {
            let stock = answer.ok().and_then(|stock| stock.first().copied());
            if let Some(Stock { held: Some(held), granted: true, .. }) = stock {
                return Some(held);
            }
        }
        None
    }

    /// A replica that says that it holds `digest`, however late. Waits for those that are silent
    /// until they have answered or are known to be down: when nobody else holds the blob, a late
    /// answer is better than none.
    pub async fn late_holder(&self, digest: Digest) -> Option<NodeId> {
        let others = self.alive().into_iter().map(|c| c.id).filter(|id| *id != self.me);
        let mut says: FuturesUnordered<_> =
            others.map(|node| async move { self.says_late(node, digest).await }).collect();
        let first = async {
            while let Some(holder) = says.next().await {
                if holder.is_some() {
                    return holder;
                }
            }
            None
        };
        tokio::time::timeout(LAST, first).await.ok().flatten()
    }

    /// Whether every other replica of the mesh, up or not, says that it does not hold `digest`, or
    /// that its copy is damaged. False as soon as one does not say so, and at a node that may not know
    /// of all replicas.
    pub async fn denied_by_all(&self, digest: Digest) -> bool {
        let nodes = self.nodes();
        if nodes.is_empty() || (self.records.ledger().is_some() && !self.records.connected()) {
            return false;
        }
        let replicas = nodes.into_iter().filter(|n| n.role == Role::Replica && n.id != self.me);
        let question = Have { digests: vec![digest], repository: None };
        let mut denies: FuturesUnordered<_> = replicas
            .map(|node| {
                let question = question.clone();
                async move {
                    let stock = self.links.ask(node.id, question, HAVE).await.ok()?;
                    match stock.first()? {
                        Stock { held: None, .. } => Some(()),
                        // what is damaged looks like what is cached
                        Stock { cached: true, .. } => self
                            .damaged_at(node.id, &[digest])
                            .await
                            .contains(&digest)
                            .then_some(()),
                        Stock { .. } => None,
                    }
                }
            })
            .collect();
        while let Some(denied) = denies.next().await {
            if denied.is_none() {
                return false;
            }
        }
        true
    }

    /// Those of `digests` that `node` holds and knows to be damaged. None if it does not say.
    pub async fn damaged_at(&self, node: NodeId, digests: &[Digest]) -> BTreeSet<Digest> {
        let mut damaged = BTreeSet::new();
        for part in digests.chunks(MAX_HAVE) {
            let question = Condition { digests: part.to_vec() };
            match self.links.ask(node, question, HAVE).await {
                Ok(condition) => damaged.extend(condition.damaged),
                Err(_) => break,
            }
        }
        damaged
    }

    async fn says_late(&self, node: NodeId, digest: Digest) -> Option<NodeId> {
        loop {
            let question = Have { digests: vec![digest], repository: None };
            match self.links.ask(node, question, HAVE).await {
                Ok(stock) => return stock.first()?.held.as_ref().map(|_| node),
                Err(LinkError::Refused(_)) => return None,
                Err(_) if self.members.down().contains(&node) => return None,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// The nodes to ask for a blob, given the nodes that kept it when it was pushed, without asking
    /// all nodes: nodes that are much nearer and say that they hold it, otherwise the nearest of
    /// `kept_by`. Empty if none of them is connected now.
    pub async fn presumed_holders(&self, digest: Digest, kept_by: &[NodeId]) -> Vec<NodeId> {
        let others = self.alive().into_iter().map(|c| c.id).filter(|id| *id != self.me);
        let near: Vec<_> = others.filter_map(|id| Some((id, self.links.round_trip(id)?))).collect();
        let Some(presumed) = placement::presumed(kept_by, &near) else { return Vec::new() };
        let asked = self.who_holds(presumed.nearer, digest, Hurry::First, &|_| true);
        let mut holders =
            tokio::time::timeout(presumed.round_trip, asked).await.unwrap_or_default();
        if holders.is_empty() {
            holders.push(presumed.node);
        }
        holders
    }

    async fn who_holds(
        &self,
        nodes: Vec<NodeId>,
        digest: Digest,
        hurry: Hurry,
        trusted: &impl Fn(NodeId) -> bool,
    ) -> Vec<NodeId> {
        let question = Have { digests: vec![digest], repository: None };
        let mut answers: FuturesUnordered<_> = nodes
            .into_iter()
            .map(|node| self.links.ask(node, question.clone(), HAVE).map(move |a| (node, a)))
            .collect();
        let mut holders = Vec::new();
        loop {
            let enough = hurry == Hurry::First && holders.iter().any(|node| trusted(*node));
            let patience = if enough { GRACE } else { HAVE };
            match tokio::time::timeout(patience, answers.next()).await {
                Ok(Some((node, Ok(stock)))) if stock.first().is_some_and(|s| s.held.is_some()) => {
                    holders.push(node);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return holders,
            }
        }
    }
}
