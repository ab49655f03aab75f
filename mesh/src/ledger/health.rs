//! Whether this node's ledger can write.
//!
//! When a node's disk has kept a commit for [`TERMS`]`.slow`, the node says so with its lease
//! renewals, gets no more leases, and loses its projects. If it leads the ledger, it hands
//! leadership over. When the ledger has stopped for good (a write failed, or never returned), the
//! process ends: see [`Ledger::ended`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use rules::ledger::health::{Disk, DiskTerms, DiskWatch};
use rules::wire::FromGranter;
use tracing::{error, info, warn};

use super::Ledger;
use super::database::Store;
use crate::links::read_message;
use ground::clock;
use ground::supervise::Tasks;

const LOOK: Duration = Duration::from_millis(200);

/// How long a node waits for its disk. Disks that share a machine stall for a second or two now and
/// then. No working disk stalls for ten seconds.
const TERMS: DiskTerms = DiskTerms {
    slow: Duration::from_secs(4),
    hung: Duration::from_secs(10),
    look: Duration::from_secs(1),
};

/// How long a notice may take. A look is delayed by as much.
const NOTICE: Duration = Duration::from_millis(500);

/// The time between two attempts to hand leadership over.
const HAND_OVER: Duration = Duration::from_secs(2);

/// How long no task of the process may run. A hanging disk can take every thread that runs tasks:
/// then the watch itself stands still.
const STUCK: DiskTerms = DiskTerms { hung: Duration::from_secs(15), ..TERMS };

/// Why a ledger has stopped for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It cannot write. A supervisor should start the process again.
    Stopped(String),
    /// Its disk has less than other nodes have seen of it. It must not start again as it is.
    OlderDisk(String),
}

pub(super) fn start(ledger: &Arc<Ledger>, store: Store, tasks: &Tasks) {
    let pulse = Pulse::default();
    watch_pulse(pulse.0.clone(), STUCK, || {
        let seconds = STUCK.hung.as_secs();
        error!(
            "this node ends: no task of it has run for {seconds} s. Most likely reads and \
             writes do not come back: look at the disk, and at what the processors and the memory \
             of this machine do"
        );
        // no drain and no destructors: each may wait for the disk
        std::process::exit(1);
    });
    tasks.spawn("ledger.health", watch(ledger.clone(), store, pulse));
}

/// Shows that tasks run: it counts on for as long as the watch looks, and ends with it.
#[derive(Default)]
struct Pulse(Arc<AtomicU64>);

impl Pulse {
    const ENDED: u64 = u64::MAX;

    fn beat(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.store(Pulse::ENDED, Ordering::SeqCst);
    }
}

/// Calls `stopped` when the pulse has stood still for `terms.hung`. This is a thread of its own,
/// because no task would run to see it.
fn watch_pulse(pulse: Arc<AtomicU64>, terms: DiskTerms, stopped: impl FnOnce() + Send + 'static) {
    let look = move || {
        let mut watch = DiskWatch::new(terms);
        loop {
            std::thread::sleep(terms.look / 2);
            let beats = pulse.load(Ordering::SeqCst);
            if beats == Pulse::ENDED {
                return;
            }
            if watch.handle_look(clock::now(), Some(beats)) == Disk::Hung {
                return stopped();
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("health".into()).spawn(look) {
        warn!(%error, "nothing watches whether the tasks of this node run");
    }
}

async fn watch(ledger: Arc<Ledger>, store: Store, pulse: Pulse) {
    let mut disk = DiskWatch::new(TERMS);
    let mut asked = None;
    let mut told = ledger.raft.server_metrics();
    loop {
        tokio::time::sleep(LOOK).await;
        pulse.beat();
        // one that panicked says nothing any more, not even that
        if let Some(Err(_)) = told.changed().now_or_never()
            && !*ledger.deaf.borrow()
        {
            return ledger.end("its consensus has ended");
        }
        let state = ledger.raft.metrics().borrow_watched().running_state.clone();
        match state {
            Ok(()) => {}
            Err(Fatal::Stopped) => return, // the node is stopping
            Err(reason) => return ledger.end(&format!("its consensus has stopped: {reason}")),
        }
        let looks = disk.handle_look(clock::now(), store.commit_under_way());
        if looks == Disk::Hung {
            return ledger
                .end(&format!("a write has not come back for {} s", TERMS.hung.as_secs()));
        }
        let slow = looks == Disk::Slow;
        if ledger.doubtful.swap(slow, Ordering::SeqCst) != slow {
            match slow {
                true => {
                    metrics::counter!("atoll_ledger_slow_disk_total").increment(1);
                    warn!(
                        "the ledger's disk has kept a write for {} s: others take over",
                        TERMS.slow.as_secs()
                    );
                }
                false => info!("the ledger's disk writes again"),
            }
        }
        if ledger.is_leader().is_none() {
            asked = None;
            continue;
        }
        let doubtful = ledger.is_doubtful();
        if doubtful {
            ledger.give_notice().await;
        }
        // a handover that was begun cannot be taken back, so it is repeated until another node
        // leads, even if the disk works again
        let due = asked.map_or(doubtful, |at| clock::now().since(at) >= HAND_OVER);
        if due {
            // the consensus may wait for the disk, and the watch must not wait with it
            match tokio::time::timeout(LOOK, ledger.hand_over()).await {
                Ok(false) => {} // no other voter can take it
                Ok(true) | Err(_) => asked = Some(clock::now()),
            }
        }
    }
}

impl Ledger {
    fn end(&self, reason: &str) {
        error!(reason, "the ledger has stopped on this node, most likely because of its disk");
        self.ended.send_replace(Some(Ended::Stopped(reason.to_owned())));
    }

    /// Tells the other voters that this node cannot write. The node believes that it leads. It may
    /// never learn of a new leader, because its consensus waits for the disk, too.
    async fn give_notice(&self) {
        let others = self.voters().into_iter().filter(|voter| *voter != self.me);
        let notices = others.map(|voter| async move {
            let told = async {
                let (mut send, mut receive) = self.links.open_lease(voter, NOTICE).await?;
                super::leases::renew(self, &mut send).await?;
                // the answer only confirms that the notice arrived
                read_message::<FromGranter>(&mut receive).await
            };
            let _ = tokio::time::timeout(NOTICE, told).await;
        });
        futures::future::join_all(notices).await;
    }

    /// Whether other nodes should do this node's tasks: its disk may not write, or its records are
    /// wrong.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::SeqCst) || self.differs()
    }

    /// Completes when the ledger has stopped for good. The process should then end.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match ended {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::*;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn a_process_in_which_no_task_runs_is_noticed_and_one_that_ends_is_let_go() {
        let moment = Duration::from_millis(50);
        let terms = DiskTerms { slow: moment, hung: moment * 4, look: moment };
        let (told, hears) = channel();
        let frozen = Pulse::default();
        watch_pulse(frozen.0.clone(), terms, move || told.send(()).unwrap());
        assert_eq!(hears.recv_timeout(PATIENCE), Ok(()), "the pulse never beat");
        let (told, hears) = channel::<()>();
        let ended = Pulse::default();
        watch_pulse(ended.0.clone(), terms, move || told.send(()).unwrap());
        drop(ended);
        // the thread has let its end go without a word
        assert_eq!(hears.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    }
}
