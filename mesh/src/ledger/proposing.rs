//! Commands are proposed wherever the leader is, written by the consensus, and answered when they are
//! released.

use std::time::Duration;

use ground::clock;
use openraft::errors::{ClientWriteError, RaftError};
use rules::ledger::command::{Command, Envelope, Outcome};
use rules::ledger::leaving::LookForLeaving;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, RecordError, Role};
use rules::wire::questions::Propose;
use rules::wire::{NoLedger, Proposed, transfer_time};
use rules::words::names::{NodeId, OperationId, Revision};

use super::Ledger;
use super::types::Entry;

impl Ledger {
    /// Proposes `command`, wherever the leader is, and waits until it is released, for at most
    /// `deadline` and the time that a manifest in it needs on slow paths ([`transfer_time`]).
    /// Retries keep one operation id, so the command is applied at most once. After
    /// [`NoLedger::NoMajority`] it may still be applied later.
    pub async fn propose(
        &self,
        operation: OperationId,
        command: Command,
        deadline: Duration,
    ) -> Result<Proposed, NoLedger> {
        let envelope = Envelope { operation, at: clock::timestamp(), command };
        let end = clock::now() + deadline + transfer_time(envelope.command.payload());
        let mut hint = None;
        loop {
            let left = end.since(clock::now());
            if left.is_zero() {
                return Err(NoLedger::NoMajority);
            }
            let result = match hint.take().or_else(|| self.leader()) {
                Some(leader) if leader == self.me => {
                    Box::pin(self.propose_here(envelope.clone(), left)).await
                }
                Some(leader) => {
                    let question = Propose { envelope: envelope.clone() };
                    let asked = self.links.ask(leader, question, left.min(Duration::from_secs(5)));
                    asked.await.unwrap_or(Err(NoLedger::NotLeader(None)))
                }
                None => Err(NoLedger::NotLeader(None)),
            };
            match result {
                Err(NoLedger::NotLeader(next)) => {
                    hint = next.filter(|n| *n != self.me);
                    if hint.is_none() {
                        self.leader_changes(Duration::from_millis(50 + rand::random_range(0..100)))
                            .await;
                    }
                }
                other => return other,
            }
        }
    }

    /// Answers [`Ask::Propose`]: proposes here, or says which node leads.
    pub async fn propose_here(
        &self,
        envelope: Envelope,
        deadline: Duration,
    ) -> Result<Proposed, NoLedger> {
        if self.differs() {
            // it would answer from wrong records whether the command took effect
            return Err(NoLedger::NotLeader(None));
        }
        let end = clock::now() + deadline;
        let name = envelope.command.name();
        let level = self
            .view()
            .and_then(|view| view.level())
            .map_err(|e| NoLedger::Storage(e.to_string()))?;
        if envelope.command.level() > level {
            let needed = envelope.command.level();
            let reason = format!(
                "the mesh has feature level {level} and this needs {needed}: `atoll level --raise`"
            );
            return Err(NoLedger::Storage(reason));
        }
        let leaving = self.leaving(&envelope.command)?;
        if let Some(node) = leaving {
            self.let_go(node, deadline).await?;
        }
        let (revision, outcome) = self.write(envelope, end.since(clock::now())).await?;
        metrics::counter!("atoll_ledger_commands_total", "command" => name).increment(1);
        self.wait_released(revision, end.since(clock::now())).await?;
        Ok(Proposed { revision, outcome })
    }

    /// The replica that a command removes, if it is one.
    fn leaving(&self, command: &Command) -> Result<Option<NodeId>, NoLedger> {
        let storage = |e: RecordError| NoLedger::Storage(e.to_string());
        let view = self.view().map_err(storage)?;
        let id = match command.plain().1 {
            Command::RemoveNode { id } => Some(*id),
            // one that was given up is refused, and must not cost the node its vote first
            Command::Leaving(change) => {
                let under_way = view.leaving().map_err(storage)?;
                change.removes().filter(|id| under_way.is_some_and(|leaving| leaving.node == *id))
            }
            _ => None,
        };
        let Some(id) = id else { return Ok(None) };
        let nodes = view.nodes().map_err(storage)?;
        // below the level, or as the last one, it is not removed
        let replicas = nodes.iter().filter(|node| node.role == Role::Replica).count();
        let known = nodes.iter().any(|node| node.id == id && node.role == Role::Replica);
        let goes = known && replicas > 1 && view.level().map_err(storage)? >= Level::KEYS;
        Ok(goes.then_some(id))
    }

    async fn write(
        &self,
        envelope: Envelope,
        deadline: Duration,
    ) -> Result<(Revision, Outcome), NoLedger> {
        if *self.deaf.borrow() {
            return Err(NoLedger::NotLeader(None));
        }
        let mut deaf = self.deaf.subscribe();
        // on the heap: it has the whole command in it, and lies below everything that a request runs
        let write = self.raft.client_write(Entry(envelope));
        let write = Box::pin(tokio::time::timeout(deadline, write));
        // the consensus takes one that is left at its end for an error
        let written = tokio::select! {
            biased;
            _ = deaf.wait_for(|deaf| *deaf) => return Err(NoLedger::NotLeader(None)),
            written = write => written,
        };
        let written = match written {
            Err(_) => return Err(NoLedger::NoMajority),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward)))) => {
                return Err(NoLedger::NotLeader(forward.leader_id.map(NodeId)));
            }
            Ok(Err(error)) => return Err(NoLedger::Storage(error.to_string())),
            Ok(Ok(written)) => written,
        };
        let revision = Revision(written.log_id.index);
        let outcome =
            written.data.ok_or_else(|| NoLedger::Storage("an entry without an outcome".into()))?;
        Ok((revision, outcome))
    }

    /// Waits at the leader until `revision` is released.
    pub(super) async fn wait_released(
        &self,
        revision: Revision,
        deadline: Duration,
    ) -> Result<(), NoLedger> {
        let mut released = self.released.subscribe();
        let wait = async {
            loop {
                if *released.borrow_and_update() >= revision {
                    return Ok(());
                }
                if self.term.lock().is_none() {
                    // leadership was lost: the entry is committed, but another leader decides when
                    // it is released
                    return Err(NoLedger::NotLeader(self.leader()));
                }
                tokio::select! {
                    changed = released.changed() => if changed.is_err() { return Err(NoLedger::NoMajority) },
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                }
            }
        };
        tokio::time::timeout(deadline, wait).await.unwrap_or(Err(NoLedger::NoMajority))
    }
}
