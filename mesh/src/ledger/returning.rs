//! What this node has seen of the other replicas' disks, and what they have seen of its own before
//! it takes part in the consensus: see `rules::ledger::returning`.
//!
//! Until then it neither votes nor stands for election, and takes no entries. It is as if it
//! started a moment later.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::async_runtime::WatchReceiver;
use openraft::storage::RaftLogStorage;
use parking_lot::Mutex;
use rules::ledger::records::{Look, Role};
use rules::ledger::returning::{Lost, Return, ReturnStep, Shown, Verdict};
use rules::wire::questions::Returned;
use rules::words::names::NodeId;
use tracing::{error, warn};

use super::Ledger;
use super::database::{META, Store, encode};
use super::health::Ended;
use super::log::Log;
use ground::clock;
use ground::supervise::Tasks;

/// The time between two looks at what followers have acknowledged, and between two writes of what
/// was seen.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ASK: Duration = Duration::from_secs(1);
/// The time between two rounds of questions.
const AGAIN: Duration = Duration::from_millis(100);
/// After so long it is said that this node still waits.
const LONG: Duration = Duration::from_secs(5);

/// What a peer is told meanwhile.
pub(super) const QUIET: &str =
    "this node has just started, and asks first what others have seen of its disk";

/// How often this node has started, with the number of this start.
const STARTS: &str = "starts";
/// What was seen of others.
const SEEN: &str = "seen";

/// What a node has seen of the others' disks. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Witness(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    of: BTreeMap<NodeId, Shown>,
    unsaved: bool,
}

impl Witness {
    fn open(store: &Store) -> io::Result<Self> {
        let of = store.meta(SEEN)?.unwrap_or_default();
        Ok(Witness(Arc::new(Mutex::new(Seen { of, unsaved: false }))))
    }

    /// `node` has shown this of its disk. What it has not shown is nothing.
    fn note(&self, node: NodeId, shown: Shown) {
        let mut seen = self.0.lock();
        let of = seen.of.entry(node).or_default();
        let before = *of;
        of.merge(shown);
        seen.unsaved |= *of != before;
    }

    /// `node` has voted for this node in `term`.
    pub(super) fn voted(&self, node: NodeId, term: u64) {
        self.note(node, Shown { term, ..Shown::default() });
    }

    /// `node` has started, and shows its disk: what was seen of it before.
    fn returned(&self, node: NodeId, shown: Shown, step: ReturnStep) -> Option<Shown> {
        // the end of its log may still be replaced, so only what it acknowledges later counts
        let counts = Shown { index: 0, ..shown };
        let before = self.0.lock().of.get(&node).copied();
        match step {
            ReturnStep::Asks => {}
            ReturnStep::TakesPart => self.note(node, counts),
            ReturnStep::Accepts => {
                let mut seen = self.0.lock();
                seen.of.insert(node, counts);
                seen.unsaved = true;
            }
        }
        before
    }

    /// What has to be written, without nodes that are no members any more.
    fn unsaved(&self, members: &BTreeSet<NodeId>) -> Option<BTreeMap<NodeId, Shown>> {
        let mut seen = self.0.lock();
        seen.of.retain(|node, _| members.contains(node));
        std::mem::take(&mut seen.unsaved).then(|| seen.of.clone())
    }
}

/// What this node's disk has, and what it has seen of others.
pub(super) struct Disk {
    mine: Shown,
    pub(super) witness: Witness,
}

impl Disk {
    /// Reads what it has. This start does not count yet.
    pub(super) async fn open(store: &Store, log: &Log) -> io::Result<Self> {
        let (starts, _): (u64, u64) = store.meta(STARTS)?.unwrap_or_default();
        let last = log.clone().get_log_state().await?.last_log_id;
        let term =
            store.meta::<super::types::Vote>("vote")?.map_or(0, |vote| vote.leader_id().term);
        let mine = Shown {
            starts: starts + 1,
            mark: rand::random(),
            term,
            index: last.map_or(0, |id| id.index),
        };
        Ok(Disk { mine, witness: Witness::open(store)? })
    }
}

/// Writes down that the node has started.
async fn count(store: &Store, mine: Shown) -> io::Result<()> {
    let bytes = encode(&(mine.starts, mine.mark))?;
    store
        .write(move |write| {
            write.open_table(META)?.insert(STARTS, bytes.as_slice())?;
            Ok(())
        })
        .await
}

pub(super) fn start(ledger: &Arc<Ledger>, store: Store, disk: Disk, tasks: &Tasks) {
    let Disk { mine, witness } = disk;
    tasks.spawn("ledger.returning", take_part(ledger.clone(), store.clone(), mine));
    tasks.spawn("ledger.witness", keep(ledger.clone(), store, witness));
}

/// Asks the others what they have seen of this node, and lets it take part or end.
async fn take_part(ledger: Arc<Ledger>, store: Store, mine: Shown) {
    let accepts = ledger.terms.older_disk;
    let nodes = ledger.view().and_then(|view| view.nodes()).unwrap_or_default();
    let others = nodes.iter().filter(|node| node.role == Role::Replica && node.id != ledger.me);
    let others: BTreeSet<NodeId> = others.map(|node| node.id).collect();
    let begun = clock::now();
    let mut returns = Return::begin(begun, ledger.me, mine, &ledger.voters(), others.clone());
    let mut said = false;
    // below the level the others do not know what is meant
    let tells = *ledger.quiet.borrow();
    while *ledger.quiet.borrow() {
        let asked = returns.missing().map(|node| {
            let question = Returned { shown: mine, step: ReturnStep::Asks };
            let asked = ledger.links.ask(node, question, ASK);
            async move { (node, asked.await) }
        });
        for (node, answer) in join_all(asked.collect::<Vec<_>>()).await {
            if let Ok(seen) = answer {
                returns.handle_answer(node, seen.filter(|_| !accepts));
            }
        }
        let now = clock::now();
        match returns.handle_timeout(now) {
            Verdict::Wait => {}
            Verdict::TakePart => break,
            Verdict::End(by, lost) => return ledger.end_as_lost(by, lost),
        }
        if !said && now.since(begun) >= LONG {
            let missing: Vec<_> = returns.missing().collect();
            warn!(
                ?missing,
                "this node takes no part in the ledger yet: it asks what others have seen of its \
                 disk, and too few have answered"
            );
            said = true;
        }
        tokio::time::sleep(AGAIN).await;
    }
    // a disk that does not write is noticed elsewhere
    let counted = count(&store, mine).await;
    let tell = async |step| {
        let told = others.iter().map(|node| {
            let told = ledger.links.ask(*node, Returned { shown: mine, step }, ASK);
            async move { told.await.is_ok() }
        });
        // who is not there sees it by votes and entries only
        join_all(told.collect::<Vec<_>>()).await;
    };
    if tells && accepts {
        // the leader must know before it meets the older log
        tell(ReturnStep::Accepts).await;
    }
    ledger.speak();
    if tells && !accepts && counted.is_ok() {
        tell(ReturnStep::TakesPart).await;
    }
}

/// As the leader, sees what followers acknowledge. Writes what was seen.
async fn keep(ledger: Arc<Ledger>, store: Store, witness: Witness) {
    loop {
        tokio::time::sleep(LOOK).await;
        let metrics = ledger.raft.metrics().borrow_watched().clone();
        let committed = metrics.last_applied.map_or(0, |last| last.index);
        for (node, matched) in metrics.replication.iter().flatten() {
            let Some(matched) = matched else { continue };
            // who acknowledged an entry of this term follows in it; of an older one it is not known
            let current = matched.leader_id.term == metrics.current_term;
            let term = if current { metrics.current_term } else { 0 };
            let index = matched.index.min(committed);
            witness.note(NodeId(*node), Shown { term, index, ..Shown::default() });
        }
        let members = ledger.view().and_then(|view| view.nodes()).unwrap_or_default();
        let members = members.iter().map(|node| node.id).collect();
        let Some(seen) = witness.unsaved(&members) else { continue };
        let Ok(bytes) = encode(&seen) else { continue };
        let written = store.write(move |write| {
            write.open_table(META)?.insert(SEEN, bytes.as_slice())?;
            Ok(())
        });
        // a disk that does not write is noticed elsewhere
        let _ = written.await;
    }
}

impl Ledger {
    /// Answers [`Ask::Returned`](rules::wire::Ask::Returned).
    pub async fn witness(&self, from: NodeId, shown: Shown, step: ReturnStep) -> Option<Shown> {
        let seen = self.witness.returned(from, shown, step);
        if let Some(lost) = seen.and_then(|seen| shown.lost(&seen))
            && step != ReturnStep::TakesPart
        {
            metrics::counter!("atoll_ledger_returned_with_less_total").increment(1);
            warn!(node = %from, %lost, ?step, "a replica came back with less than it had");
        }
        if step == ReturnStep::Accepts {
            // only a leader has to be told; another one begins anew with each follower
            let _ = self.raft.trigger().allow_next_revert(&from.0, true).await;
        }
        seen
    }

    fn speak(&self) {
        self.raft.runtime_config().elect(true);
        self.quiet.send_replace(false);
    }

    fn end_as_lost(&self, by: NodeId, lost: Lost) {
        error!(%by, %lost, "this node's disk is older than what another node has seen of it");
        let nodes = self.view().and_then(|view| view.nodes()).unwrap_or_default();
        let name = nodes.iter().find(|node| node.id == by).map(|node| node.name.to_string());
        let by = name.unwrap_or_else(|| by.to_string());
        self.ended.send_replace(Some(Ended::OlderDisk(format!("according to {by}, {lost}"))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(starts: u64, term: u64, index: u64) -> Shown {
        Shown { starts, mark: starts, term, index }
    }

    #[test]
    fn what_a_node_shows_is_remembered_when_it_takes_part_and_not_when_it_asks() {
        let (witness, node) = (Witness::default(), NodeId(2));
        let returned = |shown, step| witness.returned(node, shown, step);
        assert_eq!(returned(shown(3, 4, 90), ReturnStep::Asks), None);
        assert_eq!(returned(shown(3, 4, 90), ReturnStep::TakesPart), None);
        witness.voted(node, 6);
        witness.note(node, Shown { index: 50, ..Shown::default() });
        let seen = shown(3, 6, 50);
        // an old disk is refused however often it asks
        for starts in 2..9 {
            assert_eq!(returned(shown(starts, 4, 60), ReturnStep::Asks), Some(seen));
        }
        assert_eq!(returned(shown(2, 4, 60), ReturnStep::Accepts), Some(seen));
        assert_eq!(returned(shown(2, 4, 60), ReturnStep::Asks), Some(shown(2, 4, 0)));
    }

    #[test]
    fn only_what_is_new_is_written_and_only_of_members() {
        let witness = Witness::default();
        witness.voted(NodeId(2), 6);
        witness.voted(NodeId(3), 6);
        let members = BTreeSet::from([NodeId(2)]);
        assert_eq!(witness.unsaved(&members).unwrap().len(), 1);
        witness.voted(NodeId(2), 5);
        assert_eq!(witness.unsaved(&members), None);
    }
}
