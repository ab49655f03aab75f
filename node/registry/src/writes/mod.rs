//! A project's writes. Any node accepts a write and passes it to the project's primary, which
//! checks and commits it.
//!
//! A manifest is acknowledged when it is released in the ledger, and every blob it refers to is
//! held and fsynced in as many regions as the project's `durability` requires. Retries keep the
//! operation id, so a write that reached the ledger twice is applied once.

pub mod counting;
pub mod expiring;
pub mod indexing;
mod joining;
pub mod made;
mod primary;

use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::Tasks;
use rules::ledger::command::{Command, Outcome};
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, Project, RecordError, key};
use rules::members::shortage::Shortage;
use rules::wire::{NoLedger, Write, WriteError, WriteKind, questions, transfer_time};
use rules::words::digest::Digest;
use rules::words::names::{NodeId, OperationId, ProjectName};
use tokio::sync::oneshot;
use tracing::debug;

use crate::blobs::collecting::Collecting;
use crate::blobs::flights::Flights;
use crate::view::Records;
use crate::view::neighbours::Neighbours;
use store::Store;

/// How long a node without a lease waits for one before it refuses a write.
const LEASE_WAIT: Duration = Duration::from_millis(800);
/// How long to wait before looking up the primary again.
const AGAIN: Duration = Duration::from_millis(150);

/// Deadlines of writes.
#[derive(Clone, Copy, Debug)]
pub struct WriteTerms {
    /// Until the write is committed, not counting copies of blobs and the time that a large
    /// manifest needs on slow paths.
    pub commit: Duration,
    /// Until the blobs are copied to enough regions.
    pub replicate: Duration,
    /// How long a copy stays that no manifest refers to yet.
    pub grant: Duration,
}

/// Why a write was not acknowledged, for the caller.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such project, or the object of the write does not exist.
    #[error("not found")]
    NotFound,
    /// The object exists already.
    #[error("it exists already")]
    Exists,
    /// A sentence for the caller.
    #[error("{0}")]
    Conflict(String),
    /// The manifest names blobs that are not in the repository.
    #[error("blobs are unknown to the repository")]
    BlobsUnknown(Vec<Digest>),
    /// The index names manifests that are not in the repository.
    #[error("manifests are unknown to the repository")]
    ManifestsUnknown(Vec<Digest>),
    /// The manifest's bytes are invalid.
    #[error("{0}")]
    Invalid(String),
    /// An immutable tag would be moved or deleted. A sentence for the caller.
    #[error("{0}")]
    Immutable(String),
    /// It does not fit into the project's quota. A sentence for the caller.
    #[error("{0}")]
    OverQuota(String),
    /// The write's precondition does not hold. Nothing was changed.
    #[error("the precondition does not hold")]
    Precondition,
    /// The mesh has the feature level `has`, and some replica may not understand this write before
    /// it is `needs`.
    #[error(
        "this needs feature level {needs} and the mesh has {has}: when every replica runs a build that supports it, run `atoll level --raise`"
    )]
    Level {
        /// What the write needs.
        needs: Level,
        /// What the mesh has.
        has: Level,
    },
    /// It is not possible now, and nothing was acknowledged; the client should try again.
    #[error("{0}")]
    Unavailable(String),
    /// A fault of this node.
    #[error(transparent)]
    Records(#[from] RecordError),
}

/// Accepts writes.
pub struct Writes {
    neighbours: Arc<Neighbours>,
    records: Records,
    store: Arc<Store>,
    flights: Arc<Flights>,
    collecting: Arc<Collecting>,
    terms: WriteTerms,
    tasks: Tasks,
}

impl Writes {
    /// Ready to accept writes.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        flights: Arc<Flights>,
        collecting: Arc<Collecting>,
        terms: WriteTerms,
        tasks: Tasks,
    ) -> Arc<Self> {
        let records = neighbours.records.clone();
        Arc::new(Writes { neighbours, records, store, flights, collecting, terms, tasks })
    }

    /// Whether a write can succeed now: this node hears the ledger's majority. Waits a moment for
    /// that.
    pub async fn ready(&self) -> Result<(), Refusal> {
        let end = clock::now() + LEASE_WAIT;
        while !self.records.connected() {
            if clock::now() >= end {
                return Err(Refusal::Unavailable(self.neighbours.majority().lost().unwrap_or_else(|| {
                    "this node cannot reach a majority of the ledger's voters, so nothing can be committed; pulls of blobs that it holds continue".into()
                })));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Refuses a write that needs a higher feature level than the mesh has: to wait does not help.
    pub fn check_level(&self, needs: Level) -> Result<(), Refusal> {
        let has = self.records.view()?.level()?;
        if needs > has { Err(Refusal::Level { needs, has }) } else { Ok(()) }
    }

    /// Commits a write of `project`, wherever its primary is. `by` is who asked for it. A deletion that
    /// takes several steps goes on when its caller has gone: a client that leaves must not leave an
    /// image with a part of its signatures.
    pub async fn commit(
        self: &Arc<Self>,
        project: &ProjectName,
        kind: WriteKind,
        by: &Actor,
    ) -> Result<Outcome, Refusal> {
        if !kind.deletes_manifest() {
            return self.commit_here_or_there(project, kind, by).await;
        }
        let (writes, project, by) = (self.clone(), project.clone(), by.clone());
        let (tell, told) = oneshot::channel();
        self.tasks.spawn_draining("deletion", async move {
            let outcome = tokio::select! {
                biased;
                () = writes.tasks.stopping() => return,
                outcome = writes.commit_here_or_there(&project, kind, &by) => outcome,
            };
            // whoever asked may have gone
            let _ = tell.send(outcome);
        });
        told.await.unwrap_or_else(|_| Err(Refusal::Unavailable("this node is stopping".into())))
    }

    async fn commit_here_or_there(
        &self,
        project: &ProjectName,
        kind: WriteKind,
        by: &Actor,
    ) -> Result<Outcome, Refusal> {
        self.ready().await?;
        self.check_level(kind.level())?;
        let kind = match self.records.view()?.level()? >= Level::EVENTS {
            true => kind.audited(by.clone()),
            false => kind,
        };
        let mut write = Write { operation: OperationId(rand::random()), kind };
        let mut end = clock::now() + self.terms.commit + transfer_time(write.kind.payload());
        let mut last = String::from("the project's primary did not answer");
        loop {
            let seen = self.records.version();
            let Some(record) = self.records.view()?.project(project)? else {
                return self.done_already(&write).await.unwrap_or(Err(Refusal::NotFound));
            };
            let left = end.since(clock::now());
            if left.is_zero() {
                let lost = self.neighbours.majority().lost();
                return Err(Refusal::Unavailable(lost.unwrap_or_else(|| {
                    format!("project {project} cannot commit this right now ({last}); try again")
                })));
            }
            match self.ask_primary(&record, &write).await {
                Ok(Ok(Outcome::Unfinished)) if write.kind.deletes_manifest() => {
                    write.operation = OperationId(rand::random());
                    end = clock::now() + self.terms.commit;
                    continue;
                }
                Ok(Ok(outcome)) => return settle(outcome),
                Ok(Err(WriteError::NotPrimary)) => {
                    last = "its primary has just changed".into();
                    if self.records.view()?.level()? < Level::ROLES {
                        // the ledger remembers that this operation was too late, and would answer
                        // so again
                        write.operation = OperationId(rand::random());
                    }
                }
                Ok(Err(WriteError::Ledger(error))) => last = error.to_string(),
                Ok(Err(WriteError::Leaving(node))) => last = self.without(node),
                Ok(Err(WriteError::Unanswered(silent))) => {
                    // they may be restarting; clients do not retry a manifest's PUT
                    let names: Vec<String> =
                        silent.into_iter().map(|id| self.neighbours.name_of(id)).collect();
                    let names = names.join(", ");
                    last = format!(
                        "blobs that the manifest refers to are on no node that answers, and {names} did not"
                    );
                }
                Ok(Err(error)) => return Err(refusal(&self.neighbours, project, error)),
                Err(error) => last = error,
            }
            debug!(%project, reason = last, "write is tried again");
            metrics::counter!("atoll_writes_retried_total").increment(1);
            self.records.applied_more(seen, AGAIN).await;
        }
    }

    fn without(&self, node: NodeId) -> String {
        let name = self.neighbours.name_of(node);
        format!("{name} is being removed, and without it blobs would be in too few regions")
    }

    /// Commits a command that needs no project's primary, as `operation`. `by` is who asked for it.
    pub async fn propose(
        &self,
        operation: OperationId,
        command: Command,
        by: &Actor,
        deadline: Duration,
    ) -> Result<Outcome, NoLedger> {
        let level = self.records.view().and_then(|view| view.level());
        let level = level.map_err(|e| NoLedger::Storage(e.to_string()))?;
        let command = if level >= Level::EVENTS { command.audited(by.clone()) } else { command };
        self.records.propose(operation, command, deadline).await.map(|proposed| proposed.outcome)
    }

    /// The result of `write`, if an earlier attempt committed it without an answer. A project may
    /// no longer exist because of that very write.
    async fn done_already(&self, write: &Write) -> Option<Result<Outcome, Refusal>> {
        let place = key::operation(write.operation);
        let (outcome, _) =
            self.records.read(|records| records.record::<Outcome>(&place)).await.ok()?;
        outcome.map(settle)
    }

    async fn ask_primary(
        &self,
        project: &Project,
        write: &Write,
    ) -> Result<Result<Outcome, WriteError>, String> {
        if project.primary == self.neighbours.me {
            return Ok(self.commit_here(write.clone()).await);
        }
        if self.neighbours.members.down().contains(&project.primary) {
            return Err("its primary is down".into());
        }
        // the primary may have to copy blobs first; a dead link is noticed long before this
        // deadline
        let deadline = self.terms.commit + self.terms.replicate;
        let asked = self.neighbours.links.ask(
            project.primary,
            questions::Write { write: write.clone() },
            deadline,
        );
        tokio::select! {
            answered = asked => answered.map_err(|e| e.to_string()),
            () = self.primary_changes(project) => Err("its primary changed meanwhile".into()),
        }
    }

    /// Waits until the ledger gives the project another epoch. Then there is no need to wait for
    /// the node that was asked under the old one.
    async fn primary_changes(&self, before: &Project) {
        let Some(ledger) = self.records.ledger() else { return std::future::pending().await };
        let mut applied = ledger.applied();
        while applied.changed().await.is_ok() {
            // the project may be gone because of this very write, which its primary will report
            let now = self.records.view().and_then(|view| view.project(&before.name));
            if matches!(now, Ok(Some(project)) if project.epoch != before.epoch) {
                return;
            }
        }
        std::future::pending().await
    }
}

/// The result of an applied command for the caller.
pub fn settle(outcome: Outcome) -> Result<Outcome, Refusal> {
    match outcome {
        outcome @ (Outcome::Done | Outcome::Unfinished) => Ok(outcome),
        Outcome::NotFound => Err(Refusal::NotFound),
        Outcome::Exists => Err(Refusal::Exists),
        Outcome::Refused(reason) => Err(Refusal::Conflict(reason)),
        Outcome::PreconditionFailed => Err(Refusal::Precondition),
        Outcome::Immutable(why) => Err(Refusal::Immutable(why)),
        Outcome::OverQuota(why) => Err(Refusal::OverQuota(why)),
        Outcome::StaleEpoch { .. } => {
            Err(Refusal::Unavailable("the project's primary has just changed".into()))
        }
        Outcome::Leaving(_) => Err(Refusal::Unavailable("a node is being removed".into())),
        Outcome::Collected => Err(Refusal::Unavailable("blobs were collected meanwhile".into())),
    }
}

fn refusal(neighbours: &Neighbours, project: &ProjectName, error: WriteError) -> Refusal {
    match error {
        WriteError::BlobsUnknown(digests) => Refusal::BlobsUnknown(digests),
        WriteError::ManifestsUnknown(digests) => Refusal::ManifestsUnknown(digests),
        WriteError::Invalid(reason) => Refusal::Invalid(reason),
        WriteError::NotDurable { wanted, reached } => {
            let unable = neighbours.unable();
            let short = Shortage { wanted, reached, unable: &unable };
            Refusal::Unavailable(format!("project {project} {short}"))
        }
        WriteError::Unanswered(_) => {
            Refusal::Unavailable("some nodes did not answer; try again".into())
        }
        WriteError::NotPrimary => {
            Refusal::Unavailable("the project's primary has just changed".into())
        }
        WriteError::Leaving(_) => Refusal::Unavailable("a node is being removed".into()),
        WriteError::Ledger(error) => Refusal::Unavailable(error.to_string()),
    }
}
