//! What only the ledger's leader does: keep the consensus's membership in line with the nodes, and propose failovers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use openraft::impls::BasicNode;
use rules::command::{Command, Outcome};
use rules::failover::{Assignment, Situation};
use rules::names::{NodeId, OperationId};
use rules::placement;
use rules::records::{Look, NodeRecord, RecordError, Role};
use tracing::{error, info, warn};

use super::Ledger;
use crate::clock;
use crate::supervise::Tasks;

/// Between two looks at the situation.
const LOOK: Duration = Duration::from_millis(200);
/// Between two reminders that the ledger has stopped.
const STOPPED: Duration = Duration::from_secs(10);
/// A replica this many entries behind is not caught up.
const BEHIND: u64 = 50;

pub(super) fn start(ledger: &Arc<Ledger>, tasks: &Tasks) {
    let ledger = ledger.clone();
    tasks.spawn("ledger.leading", async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let state = ledger.raft.metrics().borrow_watched().running_state.clone();
            if let Err(reason) = state {
                if matches!(reason, Fatal::Stopped) {
                    return; // the node is stopping
                }
                error!(%reason, "the ledger has stopped on this node, most likely for its disk: mend that and restart the node");
                metrics::counter!("atoll_ledger_stopped_total").increment(1);
                tokio::time::sleep(STOPPED).await;
                continue;
            }
            if ledger.is_leader().is_none() {
                continue;
            }
            if let Err(error) = ledger.lead().await {
                warn!(%error, "the leader's duties");
            }
        }
    });
}

impl Ledger {
    async fn lead(&self) -> Result<(), RecordError> {
        let nodes = self.view()?.nodes()?;
        self.keep_membership(&nodes).await;
        for assignment in self.failovers(&nodes)? {
            self.assign(assignment).await;
        }
        Ok(())
    }

    fn failovers(&self, nodes: &[NodeRecord]) -> Result<Vec<Assignment>, RecordError> {
        let projects = self.view()?.projects()?;
        let voters: BTreeSet<NodeId> = self.voters();
        let now = clock::now();
        let mut guard = self.term.lock();
        let Some(term) = guard.as_mut() else { return Ok(Vec::new()) };
        if !term.granter.may_lead(now) {
            return Ok(Vec::new());
        }
        let applied = self.applied_now();
        let holders = term.granter.holders(now);
        let mut renewing: BTreeSet<NodeId> = holders.keys().copied().collect();
        renewing.insert(self.me);
        let mut caught_up: BTreeSet<NodeId> =
            holders.iter().filter(|(_, a)| a.0 + BEHIND >= applied.0).map(|(n, _)| *n).collect();
        caught_up.insert(self.me);
        term.failover.handle_view(now, self.me, self.members.down());
        let situation =
            Situation { nodes, voters: &voters, projects: &projects, caught_up: &caught_up, renewing: &renewing };
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
            Ok(proposed) => info!(%project, outcome = ?proposed.outcome, "the project was not moved"),
            Err(error) => warn!(%project, %error, "the project could not be moved yet"),
        }
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        metrics.membership_config.membership().voter_ids().map(NodeId).collect()
    }

    /// Every replica follows; the chosen ones vote. One step at a time: the next look goes on.
    async fn keep_membership(&self, nodes: &[NodeRecord]) {
        let metrics = self.raft.metrics().borrow_watched().clone();
        if metrics.membership_config != metrics.committed_membership_config {
            return;
        }
        let membership = metrics.membership_config.membership();
        for node in nodes.iter().filter(|n| n.role == Role::Replica) {
            let known = membership.get_node(&node.id.0).map(|n| n.addr.clone());
            if known.as_deref() != Some(&node.address.to_string()) && node.id != self.me {
                info!(node = %node.name, address = %node.address, "the ledger takes the node in as a learner");
                let learner = self.raft.add_learner(node.id.0, BasicNode::new(node.address), false);
                if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(3), learner).await {
                    warn!(node = %node.name, %error, "the node could not be taken in yet");
                }
                return;
            }
        }
        let current: BTreeSet<NodeId> = membership.voter_ids().map(NodeId).collect();
        let wanted = placement::voters(nodes, &current);
        let followed: BTreeSet<NodeId> = membership.nodes().map(|(id, _)| NodeId(*id)).collect();
        let up = self.members.up();
        // a new voter must be up and caught up, or the change could cost the majority
        let caught_up =
            wanted.difference(&current).all(|n| up.contains(n) && followed.contains(n) && self.follows_closely(*n));
        if wanted == current || wanted.is_empty() || !caught_up {
            return;
        }
        info!(voters = ?wanted, "the ledger's voters change");
        let ids: BTreeSet<u64> = wanted.iter().map(|n| n.0).collect();
        let change = self.raft.change_membership(ids, true);
        if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(5), change).await {
            warn!(%error, "the ledger's voters could not be changed yet");
        }
    }

    fn follows_closely(&self, node: NodeId) -> bool {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = metrics.replication.as_ref().and_then(|r| r.get(&node.0).cloned().flatten()).map(|id| id.index);
        matched.is_some_and(|index| index + BEHIND >= last)
    }
}
