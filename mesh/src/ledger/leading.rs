//! The tasks of the ledger's leader: it keeps the consensus's membership in line with the nodes,
//! and proposes failovers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::impls::BasicNode;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::draining::LookForDraining;
use rules::ledger::drills::LookForDrills;
use rules::ledger::leaving::{LeavingChange, LookForLeaving};
use rules::ledger::records::{Look, NodeRecord, RecordError};
use rules::ledger::sign_log::LookForSigning;
use rules::members::drilling;
use rules::members::failover::{Assignment, Situation};
use rules::members::signing::Openers;
use rules::members::voters::{self, VoterStep};
use rules::wire::NoLedger;
use rules::words::moment::Moment;
use rules::words::names::{NodeId, OperationId};
use tracing::{info, warn};

use super::Ledger;
use ground::clock;
use ground::supervise::Tasks;

/// The time between two looks at the situation.
const LOOK: Duration = Duration::from_millis(200);
/// The maximum number of projects that are moved at once. Their entries are written to the log
/// together; one after another, each would wait for its own release.
const MOVES: usize = 256;
/// How long a change of membership may take. A change that is cut off is finished at the next look.
const CHANGE: Duration = Duration::from_secs(5);
/// How long a replica counts as leaving after its removal was last waited for: the caller may ask
/// again.
const LEAVING: Duration = Duration::from_secs(2);
/// How long a leader that drains waits before it hands over again: the heir may have refused.
const DRAINED_AGAIN: Duration = Duration::from_secs(5);
/// The number of entries from which on a replica does not count as caught up.
const BEHIND: u64 = 50;

pub(super) fn start(ledger: &Arc<Ledger>, tasks: &Tasks) {
    let ledger = ledger.clone();
    tasks.spawn("ledger.leading", async move {
        let mut drained = None;
        loop {
            tokio::time::sleep(LOOK).await;
            if ledger.is_leader().is_none() {
                continue;
            }
            if let Err(error) = ledger.lead(&mut drained).await {
                warn!(%error, "the leader's duties");
            }
        }
    });
}

impl Ledger {
    /// `drained` is when this node last handed leadership over because it drains.
    async fn lead(&self, drained: &mut Option<Moment>) -> Result<(), RecordError> {
        let now = clock::now();
        let again = drained.is_none_or(|at| now.since(at) >= DRAINED_AGAIN);
        if again && self.giving_way()?.contains(&self.me) && self.has_heir()? {
            *drained = Some(now);
            self.hand_over().await;
            return Ok(());
        }
        let nodes = self.view()?.nodes()?;
        if !nodes.is_empty() && !nodes.iter().any(|node| node.id == self.me) {
            // this node was removed: another must lead
            self.hand_over().await;
            return Ok(());
        }
        let leaving = self.leaving_now();
        let staying: Vec<NodeRecord> =
            nodes.into_iter().filter(|node| !leaving.contains(&node.id)).collect();
        self.keep_membership(&staying).await;
        self.end_what_was_given_up().await?;
        let moves = futures::stream::iter(self.failovers(&staying)?);
        moves.for_each_concurrent(MOVES, |assignment| self.assign(assignment)).await;
        Ok(())
    }

    /// Ends the removal of a replica that nobody goes on with: until then no other may leave, and
    /// the copies of that replica count for nothing.
    async fn end_what_was_given_up(&self) -> Result<(), RecordError> {
        let leaving = self.view()?.leaving()?;
        let given_up = {
            let mut guard = self.term.lock();
            guard.as_mut().and_then(|term| term.given_up.handle_timeout(clock::now(), leaving))
        };
        let Some(leaving) = given_up else { return Ok(()) };
        let command = Command::Leaving(LeavingChange::End(leaving));
        let operation = OperationId(rand::random());
        match self.propose(operation, command, Duration::from_secs(3)).await {
            Ok(_) => info!(node = %leaving.node, "a removal was given up; the node stays"),
            Err(error) => warn!(node = %leaving.node, %error, "a removal that was given up"),
        }
        Ok(())
    }

    /// The nodes that give their projects and leadership away.
    pub(super) fn giving_way(&self) -> Result<BTreeSet<NodeId>, RecordError> {
        let view = self.view()?;
        let (draining, drill) = (view.draining()?, view.drill(clock::timestamp())?);
        match drill {
            Some(drill) => Ok(drilling::giving_way(draining, Some(&drill), &view.nodes()?)),
            None => Ok(draining),
        }
    }

    /// Whether a voter that does not drain could lead.
    fn has_heir(&self) -> Result<bool, RecordError> {
        let draining = self.giving_way()?;
        let holders = self.lease_holders();
        let able = |voter: &NodeId| {
            *voter != self.me && !draining.contains(voter) && holders.contains(voter)
        };
        Ok(self.voters().iter().any(able))
    }

    fn failovers(&self, nodes: &[NodeRecord]) -> Result<Vec<Assignment>, RecordError> {
        let view = self.view()?;
        let projects = view.projects()?;
        let openers = Openers { sealed: view.signing_projects()?, opens: view.opens()? };
        drop(view);
        let draining = self.giving_way()?;
        let voters: BTreeSet<NodeId> = self.voters();
        let now = clock::now();
        let mut guard = self.term.lock();
        let Some(term) = guard.as_mut() else { return Ok(Vec::new()) };
        if !term.granter.may_lead(now) {
            return Ok(Vec::new());
        }
        let applied = self.applied_now();
        let holders = term.granter.holders(now);
        let mut renewing = term.granter.renewing(now);
        renewing.insert(self.me);
        let mut caught_up: BTreeSet<NodeId> =
            holders.iter().filter(|(_, a)| a.0 + BEHIND >= applied.0).map(|(n, _)| *n).collect();
        caught_up.insert(self.me);
        let mut down = self.members.down();
        if self.is_doubtful() {
            down.insert(self.me);
        }
        term.failover.handle_view(now, self.me, down);
        let situation = Situation {
            nodes,
            voters: &voters,
            projects: &projects,
            caught_up: &caught_up,
            renewing: &renewing,
            draining: &draining,
            openers: &openers,
        };
        Ok(term.failover.handle_timeout(now, &situation))
    }

    async fn assign(&self, assignment: Assignment) {
        let Assignment { project, node, expect_epoch } = assignment;
        let command = Command::AssignPrimary { project: project.clone(), node, expect_epoch };
        let operation = OperationId(rand::random());
        match self.propose(operation, command, Duration::from_secs(3)).await {
            Ok(proposed) if proposed.outcome == Outcome::Done => {
                info!(%project, %node, epoch = expect_epoch.next().get(), "the project has another primary");
                metrics::counter!("atoll_failovers_total").increment(1);
            }
            Ok(proposed) => {
                info!(%project, outcome = ?proposed.outcome, "the project was not moved")
            }
            Err(error) => warn!(%project, %error, "the project could not be moved yet"),
        }
    }

    pub(super) fn voters(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        metrics.membership_config.membership().voter_ids().map(NodeId).collect()
    }

    /// Lets every replica follow and the chosen ones vote, one step per look.
    async fn keep_membership(&self, nodes: &[NodeRecord]) {
        let Some(step) = self.next_step(nodes) else { return };
        let ids = |voters: &BTreeSet<NodeId>| voters.iter().map(|n| n.0).collect::<BTreeSet<u64>>();
        let change = match &step {
            VoterStep::Finish(voters) => {
                info!(
                    ?voters,
                    "a change of the ledger's voters was interrupted; it is finished now"
                );
                ChangeMembers::ReplaceAllVoters(ids(voters))
            }
            VoterStep::Vote(voters) => {
                info!(?voters, "the ledger's voters change");
                ChangeMembers::ReplaceAllVoters(ids(voters))
            }
            VoterStep::Follow(node, address) => {
                info!(%node, %address, "the ledger takes the node in as a learner");
                ChangeMembers::AddNodes([(node.0, BasicNode::new(address))].into())
            }
            // writes wait for it until then
            VoterStep::Forget(node) if self.lease_holders().contains(node) => return,
            VoterStep::Forget(node) => {
                info!(%node, "the ledger's node leaves: it follows no more");
                ChangeMembers::RemoveNodes([node.0].into())
            }
            VoterStep::Move(node, address) => {
                info!(%node, %address, "the ledger's node has another address");
                ChangeMembers::SetNodes([(node.0, BasicNode::new(address))].into())
            }
        };
        if *self.deaf.borrow() {
            return;
        }
        match tokio::time::timeout(CHANGE, self.raft.change_membership(change, true)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                warn!(?step, %error, "the ledger's membership could not be changed yet")
            }
            Err(_) => warn!(?step, "the change of the ledger's membership takes long"),
        }
    }

    fn next_step(&self, nodes: &[NodeRecord]) -> Option<VoterStep> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.membership_config != metrics.committed_membership_config {
            return None;
        }
        let membership = metrics.membership_config.membership();
        let sets = membership.get_joint_config().iter();
        let sets: Vec<BTreeSet<NodeId>> =
            sets.map(|set| set.iter().map(|n| NodeId(*n)).collect()).collect();
        let followers: BTreeMap<_, _> =
            membership.nodes().map(|(id, n)| (NodeId(*id), n.addr.parse().ok())).collect();
        let caught_up = followers
            .keys()
            .copied()
            .filter(|n| *n == self.me || self.follows_closely(*n))
            .collect();
        let draining = self.view().and_then(|view| view.draining()).unwrap_or_default();
        let now = clock::now();
        let mut guard = self.term.lock();
        let term = guard.as_mut().filter(|term| term.granter.may_lead(now))?;
        // a node that holds a lease is alive and can write, as a voter must
        let live = term.granter.holders(now).keys().copied().chain([self.me]).collect();
        let situation = voters::Situation {
            leader: self.me,
            nodes,
            sets: &sets,
            followers: &followers,
            live: &live,
            caught_up: &caught_up,
            draining: &draining,
        };
        term.voters.handle_timeout(now, &situation)
    }

    /// The nodes that hold a read lease of this leader.
    fn lease_holders(&self) -> BTreeSet<NodeId> {
        let now = clock::now();
        let guard = self.term.lock();
        let holders = guard.as_ref().map(|term| term.granter.holders(now));
        holders.unwrap_or_default().into_keys().collect()
    }

    /// As the leader: lets the replica `node` go, before its removal is proposed. It gets no lease
    /// any more, its projects move, and it neither votes nor follows when this returns. If that
    /// cannot be done within `deadline`, the node soon votes and follows again.
    pub(super) async fn let_go(&self, node: NodeId, deadline: Duration) -> Result<(), NoLedger> {
        if node == self.me {
            self.hand_over().await;
            return Err(NoLedger::NotLeader(None));
        }
        let end = clock::now() + deadline;
        loop {
            self.leaving.lock().insert(node, clock::now() + LEAVING);
            if self.is_leader().is_none() {
                return Err(NoLedger::NotLeader(self.leader().filter(|leader| *leader != self.me)));
            }
            if self.has_let_go(node).map_err(|e| NoLedger::Storage(e.to_string()))? {
                return Ok(());
            }
            if clock::now() >= end {
                return Err(NoLedger::NoMajority);
            }
            tokio::time::sleep(LOOK / 2).await;
        }
    }

    /// The replicas that are about to be removed.
    pub(super) fn leaving_now(&self) -> BTreeSet<NodeId> {
        let now = clock::now();
        let mut leaving = self.leaving.lock();
        leaving.retain(|_, until| *until > now);
        leaving.keys().copied().collect()
    }

    fn has_let_go(&self, node: NodeId) -> Result<bool, RecordError> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let settled = metrics.membership_config == metrics.committed_membership_config;
        let membership = metrics.membership_config.membership();
        let follows = membership.nodes().any(|(id, _)| *id == node.0);
        let leads = self.view()?.projects()?.iter().any(|project| project.primary == node);
        Ok(settled && !follows && !leads)
    }

    fn follows_closely(&self, node: NodeId) -> bool {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = metrics
            .replication
            .as_ref()
            .and_then(|r| r.get(&node.0).cloned().flatten())
            .map(|id| id.index);
        matched.is_some_and(|index| index + BEHIND >= last)
    }
}
