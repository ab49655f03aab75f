//! The ledger: one replicated log and its records for the whole mesh. Only this folder imports the
//! consensus library.
//!
//! | module | what it does |
//! |---|---|
//! | `database` | the one redb file and its group-committing writer |
//! | `log` | log and vote |
//! | `state` | applied records |
//! | `carried` | records on their way, without those that the receiver has |
//! | `snapshot` | the file of a snapshot |
//! | `network` | the consensus's messages over the links |
//! | `appending` | streams of entries, of which several messages are under way at a time |
//! | `arrival` | snapshots on their way as files, before level 8 |
//! | [`reading`] | reads that are never stale, by lease or by asking the leader |
//! | `leases` | runs the lease machines of `rules::ledger::lease` |
//! | `health` | whether this node's ledger can write; if not, it hands its tasks over, and ends |
//! | `returning` | what others have seen of this node's disk, before it takes part |
//! | `comparing` | whether the records are those of the other replicas; if not, it takes theirs |
//! | `leading` | the leader's tasks: membership, failover |
//!
//! A command is acknowledged when it is *released*: committed, and applied by every node that may
//! answer reads.

mod appending;
mod arrival;
mod carried;
mod comparing;
mod database;
mod health;
mod latest;
mod leading;
mod leases;
mod log;
mod network;
mod proposing;
pub mod reading;
mod returning;
mod snapshot;
mod state;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::RaftError;
use openraft::impls::BasicNode;
use parking_lot::Mutex;
use quinn::{RecvStream, SendStream};
use rules::ledger::admitted::Stamp;
use rules::ledger::fingerprint::Fingerprint;
use rules::ledger::lease::{Holder, LeaseTerms, Unreleased};
use rules::ledger::level::Level;
use rules::ledger::records::{Look, RecordError};
use rules::ledger::trimming;
use rules::members::failover::FailoverTerms;
use rules::members::voters::VoterTerms;
use rules::wire::{Answer, NoLedger};
use rules::words::names::{NodeId, RepositoryName, Revision};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::links::{LinkError, Links};
use crate::members::Members;
pub use comparing::Comparison;
use ground::clock;
use ground::opening::Opening;
use ground::supervise::Tasks;
pub use health::Ended;
use leases::Term;
#[cfg(fuzzing)]
pub use network::read_consensus;
pub use reading::{Freshness, Reading};
use state::Raft;

/// The log directive for the consensus library. The library logs every vote at `info`; the ledger
/// itself logs what an operator needs.
pub const QUIET: &str = "openraft=error";

/// Settings of the ledger; see the settings of the same names.
#[derive(Clone, Copy, Debug)]
pub struct LedgerTerms {
    /// The time between two heartbeats of the leader, and the deadline of one message.
    pub heartbeat: Duration,
    /// The minimum silence after which a voter stands for election.
    pub election_min: Duration,
    /// The maximum of that, and how long a leader is believed.
    pub election_max: Duration,
    /// The number of bytes of the log that are kept.
    pub log_bytes: u64,
    /// Read leases.
    pub lease: LeaseTerms,
    /// The time between two renewals.
    pub renew_every: Duration,
    /// When projects move.
    pub failover: FailoverTerms,
    /// When voters are replaced.
    pub voters: VoterTerms,
    /// Whether this node takes part although others have seen more of its disk than it has.
    pub older_disk: bool,
}

/// The time between two looks at the size of the log.
const TRIM: Duration = Duration::from_secs(1);

/// Why the ledger could not be opened or formed.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file cannot be used.
    #[error("the ledger in {path} cannot be used: {reason}")]
    Storage {
        /// Where it is.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The consensus refused.
    #[error("the ledger's consensus: {0}")]
    Consensus(String),
}

/// This node's part of the ledger.
pub struct Ledger {
    me: NodeId,
    raft: Raft,
    log: log::Log,
    machine: state::StateMachine,
    arrivals: arrival::Arrivals,
    links: Arc<Links>,
    members: Arc<Members>,
    terms: LedgerTerms,
    holder: Mutex<Holder>,
    term: Mutex<Option<Term>>,
    unreleased: Arc<Mutex<Unreleased>>,
    applied: watch::Receiver<Revision>,
    released: watch::Sender<Revision>,
    unreachable: Mutex<(Option<NodeId>, rules::words::moment::Moment)>,
    /// How often leadership was handed over. Each attempt names the next voter, so that one that
    /// cannot lead is not asked again and again.
    handed_over: std::sync::atomic::AtomicUsize,
    /// Whether the disk is so slow that other nodes should take over this node's tasks.
    doubtful: std::sync::atomic::AtomicBool,
    ended: watch::Sender<Option<Ended>>,
    /// Whether this node has just started and asks what others have seen of its disk. Until then no
    /// peer's message reaches the consensus, and this node stands for no election.
    quiet: watch::Sender<bool>,
    witness: returning::Witness,
    /// Whether this node stops. Its lease then goes back to the leader, and it asks for no other.
    stopping: watch::Sender<bool>,
    /// Whether the consensus stops. Nothing reaches it any more, neither of a peer nor of this node.
    deaf: watch::Sender<bool>,
    /// Whether this node's records are known to be wrong.
    differs: std::sync::atomic::AtomicBool,
    comparison: Mutex<Comparison>,
    sending_records: tokio::sync::Mutex<()>,
    born_here: std::sync::atomic::AtomicBool,
    wary_until: rules::words::moment::Moment,
    /// As the leader: the replicas that are about to be removed, and until when that counts.
    leaving: Mutex<BTreeMap<NodeId, rules::words::moment::Moment>>,
}

/// What `status` shows about the ledger.
#[derive(Clone, Debug)]
pub struct LedgerStatus {
    /// The leader as this node knows it.
    pub leader: Option<NodeId>,
    /// The consensus's term.
    pub term: u64,
    /// What this node has applied.
    pub applied: Revision,
    /// What this node knows to be released.
    pub released: Revision,
    /// The first entry that this node's log still has. A node that has not applied the entries
    /// before it needs a snapshot.
    pub log_from: Revision,
    /// The number of bytes of the entries that its log still has.
    pub log_bytes: u64,
    /// How many times since its process began this node has taken all that it lacked from a
    /// leader, because no log had what it missed.
    pub snapshots: u64,
    /// The settled voters. While the voters change, these are the nodes that vote both before and
    /// after the change, so a node in this list may be relied on when another one dies.
    pub voters: BTreeSet<NodeId>,
    /// The other replicas that follow.
    pub learners: BTreeSet<NodeId>,
    /// How this node answers reads.
    pub lease: LeaseState,
    /// How its records compare with the other replicas'.
    pub comparison: Comparison,
    /// The fingerprint of its records, and the revision that it belongs to.
    pub fingerprint: (Revision, Fingerprint),
}

/// How a node answers reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// It leads, confirmed by a majority.
    Leader,
    /// It holds a lease.
    Held,
    /// It has to ask the leader.
    None,
}

impl Ledger {
    /// Opens the ledger in `folder` and takes part in it. `opening` says how far it is.
    pub async fn open(
        folder: &Path,
        links: Arc<Links>,
        members: Arc<Members>,
        terms: LedgerTerms,
        opening: &Opening,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, LedgerError> {
        let storage = |e: &dyn std::fmt::Display| LedgerError::Storage {
            path: folder.into(),
            reason: e.to_string(),
        };
        std::fs::create_dir_all(folder).map_err(|e| storage(&e))?;
        opening.begin("the ledger (ledger/ledger.redb)");
        let store =
            database::Store::open(&folder.join("ledger.redb"), opening).map_err(|e| storage(&e))?;
        // a voter with a vote on disk may have made a promise before it restarted
        let promised = store.meta::<types::Vote>("vote").map_err(|e| storage(&e))?.is_some();
        let wary_until = if promised { clock::now() + terms.election_max } else { clock::now() };
        let arrivals = arrival::Arrivals::open(folder).map_err(|e| storage(&e))?;
        let log = log::Log::open(store.clone()).map_err(|e| storage(&e))?;
        let machine = state::StateMachine::open(store.clone(), folder).map_err(|e| storage(&e))?;
        let disk = returning::Disk::open(&store, &log).await.map_err(|e| storage(&e))?;
        let level = machine.view().and_then(|view| view.level());
        let asks_first = promised && level.is_ok_and(|level| level >= Level::RETURNS);
        let millis = |d: Duration| d.as_millis() as u64;
        // Options that are not set here keep the library's defaults. These defaults matter:
        // - `allow_log_reversion` off: a voter that has lost its log is a fault, which must be
        //   seen. It ends the leader's consensus, and so its process. `returning` keeps such nodes
        //   out, and allows it once for one that its operator insists on;
        // - `heartbeat_min_interval` 0: leases depend on heartbeats, which are also sent while
        //   entries are;
        // - `quorum_loss_probe_interval` none: a leader that hears no majority continues to ask.
        //   Nobody believes it meanwhile, because its lease ends;
        // - `removed_leader_step_down` 150 ms: a leader that is no longer a voter hands over by
        //   itself;
        // - `api_batch_linger_ms` 0: the file's group commit collects concurrent writes, so none
        //   has to wait for others;
        // - `backoff` 200 ms to 1 s: how often a peer that does not answer is tried;
        // - `max_append_entries` 4096: the maximum in one commit, all of which came over the links
        //   in messages of at most 64 entries (`log`).
        let config = openraft::Config {
            cluster_name: "atoll".into(),
            heartbeat_interval: millis(terms.heartbeat),
            election_timeout_min: millis(terms.election_min),
            election_timeout_max: millis(terms.election_max),
            install_snapshot_timeout: 60_000,
            max_payload_entries: 64,
            enable_pre_vote: Some(true),
            // On by default, and wrong here: applied state is not flushed by itself, and the
            // committed index is not saved, so a leader that was killed may lack entries that its
            // followers have committed. If it led on in its old term, it would give their log ids
            // to other entries, and replicas would differ for ever. In a new term it first learns
            // what the majority has.
            enable_leader_restore: Some(false),
            // a snapshot is made when the log is cut, which is by bytes, not by entries: see `trim`
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            ..openraft::Config::default()
        };
        let config =
            Arc::new(config.validate().map_err(|e| LedgerError::Consensus(e.to_string()))?);
        let me = links.me();
        let factory = network::Factory {
            links: links.clone(),
            machine: machine.clone(),
            witness: disk.witness.clone(),
        };
        let raft = Raft::new(me.0, config, factory, log.clone(), machine.clone())
            .await
            .map_err(|e| LedgerError::Consensus(e.to_string()))?;
        raft.runtime_config().elect(!asks_first);
        let ledger = Arc::new(Ledger {
            me,
            raft,
            log,
            arrivals,
            links,
            members,
            terms,
            holder: Mutex::new(Holder::new(terms.lease)),
            term: Mutex::new(None),
            unreleased: machine.unreleased(),
            applied: machine.applied(),
            machine,
            released: watch::Sender::new(Revision(0)),
            unreachable: Mutex::new((None, rules::words::moment::Moment::from_micros(0))),
            handed_over: 0.into(),
            doubtful: false.into(),
            ended: watch::Sender::new(None),
            quiet: watch::Sender::new(asks_first),
            witness: disk.witness.clone(),
            stopping: watch::Sender::new(false),
            deaf: watch::Sender::new(false),
            differs: false.into(),
            comparison: Mutex::default(),
            sending_records: tokio::sync::Mutex::new(()),
            born_here: false.into(),
            wary_until,
            leaving: Mutex::default(),
        });
        ledger.know_nodes();
        leases::start(&ledger, tasks);
        leading::start(&ledger, tasks);
        health::start(&ledger, store.clone(), tasks);
        returning::start(&ledger, store, disk, tasks);
        comparing::start(&ledger, tasks);
        tasks.spawn("ledger.trim", trim(ledger.clone(), folder.to_owned()));
        Ok(ledger)
    }

    /// Forms the ledger with its first voters. Call this once, on one node of a new mesh. A ledger
    /// that exists already is not changed.
    pub async fn form(&self, voters: BTreeMap<NodeId, SocketAddr>) -> Result<(), LedgerError> {
        let nodes: BTreeMap<u64, BasicNode> =
            voters.iter().map(|(id, a)| (id.0, BasicNode::new(a))).collect();
        if self.raft.is_initialized().await.map_err(|e| LedgerError::Consensus(e.to_string()))? {
            return Ok(());
        }
        self.born_here.store(true, std::sync::atomic::Ordering::SeqCst);
        self.raft.initialize(nodes).await.map_err(|e| LedgerError::Consensus(e.to_string()))
    }

    /// Learns every member's address from the records.
    fn know_nodes(&self) {
        if let Ok(nodes) = self.view().and_then(|view| view.nodes()) {
            for node in nodes.iter().filter(|n| n.id != self.me) {
                self.links.know(node.id, node.address);
            }
        }
    }

    /// The records as this node has applied them, which may be old. For hints, never for answers.
    pub fn view(&self) -> Result<state::View, RecordError> {
        self.machine.view()
    }

    /// The state of what decides about pulls of a repository's images. Take it before the records are
    /// read that decide, and after a read that was fresh.
    pub fn stamp(&self, repository: &RepositoryName) -> Stamp {
        self.machine.stamp(repository)
    }

    /// The number of changes of what decides about pulls, and which records have changed since it was
    /// `since`; `None` if that is not known any more.
    pub fn changed_verdicts(&self, since: u64) -> (u64, Option<BTreeSet<Vec<u8>>>) {
        self.machine.changed_verdicts(since)
    }

    /// The revision that this node has applied, and which tags and manifests are gone since it was
    /// `since`; `None` if that is not known any more, or this node has not applied as much.
    pub fn gone(&self, since: Revision) -> (u64, Option<BTreeSet<Vec<u8>>>) {
        self.machine.gone(since)
    }

    /// The revision that this node has applied, as it grows.
    pub fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.clone()
    }

    /// The leader, as this node knows it.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader.map(NodeId)
    }

    /// Whether this node is the leader, as it knows.
    pub fn leads(&self) -> bool {
        self.leader() == Some(self.me)
    }

    /// Waits until the leader is another one than at the time of the call, but at most `patience`.
    async fn leader_changes(&self, patience: Duration) {
        let before = self.leader();
        let mut metrics = self.raft.server_metrics();
        let changed = async {
            while self.leader() == before {
                if metrics.changed().await.is_err() {
                    // the consensus has stopped, so nothing changes any more; a caller in a loop
                    // must not spin
                    std::future::pending::<()>().await;
                }
            }
        };
        let _ = tokio::time::timeout(patience, changed).await;
    }

    /// The revision that this node has applied. It is copied, because a borrowed watch is a lock
    /// and must not be held together with another.
    fn applied_now(&self) -> Revision {
        *self.applied.borrow()
    }

    /// The revision that this node knows to be released. It is copied for the same reason.
    fn released_now(&self) -> Revision {
        *self.released.borrow()
    }

    /// For `status`.
    pub fn status(&self) -> LedgerStatus {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.committed_membership_config.membership();
        let voters = settled_voters(membership.get_joint_config());
        let lease = self.lease_state();
        LedgerStatus {
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            applied: self.applied_now(),
            released: self.released_now(),
            log_bytes: self.log.bytes(),
            snapshots: self.arrivals.installed(),
            log_from: Revision(metrics.purged.map_or(0, |last| last.index + 1)),
            learners: membership
                .nodes()
                .map(|(id, _)| NodeId(*id))
                .filter(|id| !voters.contains(id))
                .collect(),
            voters,
            lease,
            comparison: self.comparison.lock().clone(),
            fingerprint: self.machine.newest_fingerprint(),
        }
    }

    /// Answers [`Ask::ReadIndex`]: confirms with a majority that this node leads, and returns the
    /// revision that a reader must have applied.
    pub async fn read_index(&self, deadline: Duration) -> Result<Revision, NoLedger> {
        let end = clock::now() + deadline;
        while !self.is_open() {
            if self.is_leader().is_none() {
                return Err(NoLedger::NotLeader(self.leader().filter(|leader| *leader != self.me)));
            }
            if clock::now() >= end {
                return Err(NoLedger::NoMajority);
            }
            // it leads, and its first entry is not applied yet
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if *self.deaf.borrow() {
            return Err(NoLedger::NotLeader(None));
        }
        let confirm = self.raft.get_read_log_id(openraft::ReadPolicy::ReadIndex);
        let index = match tokio::time::timeout(end.since(clock::now()), confirm).await {
            Err(_) => return Err(NoLedger::NoMajority),
            Ok(Err(RaftError::APIError(error))) => {
                return match error {
                    openraft::errors::LinearizableReadError::ForwardToLeader(f) => {
                        Err(NoLedger::NotLeader(f.leader_id.map(NodeId)))
                    }
                    _ => Err(NoLedger::NoMajority),
                };
            }
            Ok(Err(error)) => return Err(NoLedger::Storage(error.to_string())),
            Ok(Ok((id, _))) => Revision(id.log_id().index),
        };
        self.wait_released(index, end.since(clock::now())).await?;
        Ok(index)
    }

    /// Answers a message of the consensus. After a restart a voter votes for no other node for as
    /// long as a leader may count on its earlier promise: the consensus library forgets that
    /// promise in a restart (see its `get_initial_state`).
    pub async fn answer_raft(&self, kind: u8, body: &[u8]) -> Answer {
        if network::asks_for_a_vote(kind) && clock::now() < self.wary_until {
            return Answer::Refused(
                "this voter has just restarted, and an older leader may still count on it".into(),
            );
        }
        match self.unless_deaf(network::answer(&self.raft, kind, body)).await {
            Ok(answer) => answer,
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    /// What comes of a peer's message, unless the consensus stops first: it takes a message that
    /// comes later for an error. Nothing comes of it while this node is quiet.
    async fn unless_deaf<T>(&self, message: impl Future<Output = T>) -> Result<T, LinkError> {
        let mut deaf = self.deaf.subscribe();
        if *self.quiet.borrow() {
            return Err(LinkError::Broken(returning::QUIET.into()));
        }
        tokio::select! {
            biased;
            _ = deaf.wait_for(|deaf| *deaf) => {
                Err(LinkError::Broken("this node is stopping".into()))
            }
            came = message => Ok(came),
        }
    }

    /// Appends the entries that the leader sends in a stream, until it ends or one of them cannot be
    /// appended.
    pub async fn receive_entries(
        &self,
        send: SendStream,
        receive: RecvStream,
    ) -> Result<(), LinkError> {
        self.unless_deaf(appending::receive(&self.raft, send, receive)).await?
    }

    /// Receives a snapshot.
    pub async fn receive_snapshot(
        &self,
        header: &[u8],
        mut send: SendStream,
        mut receive: RecvStream,
    ) -> Result<(), LinkError> {
        let (send, receive) = (&mut send, &mut receive);
        let received = network::receive_snapshot(&self.raft, &self.arrivals, header, send, receive);
        self.unless_deaf(received).await?
    }

    /// Receives the leader's records, those that this node does not have.
    pub async fn receive_state(
        &self,
        announced: &[u8],
        mut send: SendStream,
        mut receive: RecvStream,
    ) -> Result<(), LinkError> {
        let (machine, arrivals) = (&self.machine, &self.arrivals);
        let (send, receive) = (&mut send, &mut receive);
        let received =
            network::receive_state(&self.raft, machine, arrivals, announced, send, receive);
        self.unless_deaf(received).await?
    }

    /// Whether this node may assume that a majority hears it: it holds a lease, or leads with one.
    /// A node without one may still read by asking the leader. A node that was cut off for longer
    /// than a lease answers false at once.
    pub fn connected(&self) -> bool {
        self.lease_state() != LeaseState::None
    }

    /// Gives the read lease back, hands leadership over, if this node has it, and stops
    /// participating. Call this when no request is open any more.
    pub async fn shut_down(&self) {
        self.stopping.send_replace(true);
        if self.hand_over().await {
            for _ in 0..20 {
                if !self.raft.is_leader() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        self.deaf.send_replace(true);
        if let Err(error) = self.raft.shutdown().await {
            warn!(%error, "the consensus did not stop cleanly");
        }
    }

    /// If this node leads and another voter is up, asks that voter to lead. Returns whether it
    /// asked.
    async fn hand_over(&self) -> bool {
        if !self.raft.is_leader() {
            return false;
        }
        let heirs = self.heirs();
        let nth = self.handed_over.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let Some(heir) = nth.checked_rem(heirs.len()).and_then(|nth| heirs.get(nth)).copied()
        else {
            return false;
        };
        if let Some(term) = self.term.lock().as_mut() {
            term.granter.hand_over();
        }
        info!(%heir, "handing the ledger's leadership over");
        if let Err(error) = self.raft.trigger().transfer_leader(heir.0).await {
            warn!(%error, "leadership could not be handed over");
        }
        true
    }

    /// The nodes that could lead in this node's place: voters that hold a lease, because those can
    /// write; otherwise voters that the gossip calls up.
    fn heirs(&self) -> Vec<NodeId> {
        let holders = self
            .term
            .lock()
            .as_ref()
            .map(|term| term.granter.holders(clock::now()))
            .unwrap_or_default();
        let up = self.members.up();
        let others: Vec<NodeId> =
            self.voters().into_iter().filter(|n| *n != self.me && up.contains(n)).collect();
        let able: Vec<NodeId> =
            others.iter().copied().filter(|n| holders.contains_key(n)).collect();
        let able = if able.is_empty() { others } else { able };
        // one that drains would hand it over again
        let draining = self.giving_way().unwrap_or_default();
        let staying: Vec<NodeId> =
            able.iter().copied().filter(|node| !draining.contains(node)).collect();
        if staying.is_empty() { able } else { staying }
    }

    fn is_leader(&self) -> Option<u64> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let leads =
            metrics.state == ServerState::Leader && metrics.current_leader == Some(self.me.0);
        leads.then(|| metrics.vote.leader_id().term)
    }
}

/// The voters in all current sets of voters. There are two sets while one replaces the other, and
/// each must have a majority.
fn settled_voters(sets: &[BTreeSet<u64>]) -> BTreeSet<NodeId> {
    let Some((first, others)) = sets.split_first() else { return BTreeSet::new() };
    first
        .iter()
        .filter(|id| others.iter().all(|set| set.contains(id)))
        .map(|id| NodeId(*id))
        .collect()
}

/// Keeps the log within its bytes.
async fn trim(ledger: Arc<Ledger>, folder: PathBuf) {
    let log = ledger.log.clone();
    match ground::supervise::blocking(move || log.measure()).await {
        Ok(Ok(())) => {}
        // entries that were there before do not count then, and are removed with newer ones
        Ok(Err(error)) => warn!(%error, "the size of the ledger's log is not known"),
        Err(_) => return,
    }
    loop {
        tokio::time::sleep(TRIM).await;
        let disk = rustix::fs::statvfs(&folder).ok();
        let disk = disk.map(|disk| (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize));
        let setting = ledger.terms.log_bytes;
        let most = disk.map_or(setting, |(free, all)| {
            trimming::most(setting, free, rules::blobs::cache::reserve(all))
        });
        if let Some(last) = ledger.log.surplus(most) {
            // Entries are removed only up to the last snapshot, which is a read transaction and costs
            // nothing. It is there at the next look. An error means that the consensus has stopped,
            // which others report.
            let _ = ledger.raft.trigger().snapshot().await;
            let _ = ledger.raft.trigger().purge_log(last).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::types::Consensus;
    use super::{database::Store, log::Log, settled_voters, state::StateMachine};
    use rules::words::names::NodeId;

    #[test]
    fn a_voter_to_be_is_not_shown_before_the_mesh_can_do_without_the_old_ones() {
        assert!(settled_voters(&[]).is_empty());
        assert_eq!(settled_voters(&[[1, 2, 3].into()]), [1, 2, 3].map(NodeId).into());
        assert_eq!(settled_voters(&[[1].into(), [1, 2, 3].into()]), [NodeId(1)].into());
    }

    struct Builder;

    impl openraft::testing::log::StoreBuilder<Consensus, Log, StateMachine, tempfile::TempDir>
        for Builder
    {
        async fn build(
            &self,
        ) -> Result<(tempfile::TempDir, Log, StateMachine), openraft::StorageError<Consensus>>
        {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(
                &folder.path().join("ledger.redb"),
                &ground::opening::Opening::default(),
            )
            .unwrap();
            let log = Log::open(store.clone()).unwrap();
            let machine = StateMachine::open(store, folder.path()).unwrap();
            Ok((folder, log, machine))
        }
    }

    /// The consensus library's own suite for stores: what it assumes of log, vote, state and
    /// snapshots.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_store_keeps_what_the_consensus_assumes() {
        openraft::testing::log::Suite::test_all(Builder).await.unwrap();
    }
}
