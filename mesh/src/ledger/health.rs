//! Whether this node's ledger can write.
//!
//! A node whose disk has kept a commit for [`TERMS`]`.slow` says so with its lease renewals, gets
//! no lease any more and loses its projects; if it leads the ledger, it hands that over. A ledger
//! that has stopped for good (a write failed, or never came back) ends the process: see
//! [`Ledger::ended`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

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

/// How patient a node is with its disk. Disks that share a machine stall for a second or two now
/// and then; nothing that works stalls for ten.
const TERMS: DiskTerms = DiskTerms {
    slow: Duration::from_secs(4),
    hung: Duration::from_secs(10),
    look: Duration::from_secs(1),
};

/// How long a notice may take, and with it a look.
const NOTICE: Duration = Duration::from_millis(500);

/// Between two attempts to hand leadership over.
const HAND_OVER: Duration = Duration::from_secs(2);

pub(super) fn start(ledger: &Arc<Ledger>, store: Store, tasks: &Tasks) {
    tasks.spawn("ledger.health", watch(ledger.clone(), store));
}

async fn watch(ledger: Arc<Ledger>, store: Store) {
    let mut disk = DiskWatch::new(TERMS);
    let mut asked = None;
    loop {
        tokio::time::sleep(LOOK).await;
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
        let doubtful = looks == Disk::Slow;
        if ledger.doubtful.swap(doubtful, Ordering::SeqCst) != doubtful {
            match doubtful {
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
        if doubtful {
            ledger.give_notice().await;
        }
        // what was begun cannot be taken back: it is asked for until somebody follows, also if the
        // disk is well again
        let due = asked.map_or(doubtful, |at| clock::now().since(at) >= HAND_OVER);
        if due {
            // what the consensus is doing may wait for the disk, and this must go on looking
            match tokio::time::timeout(LOOK, ledger.hand_over()).await {
                Ok(false) => {} // there is nobody to take it
                Ok(true) | Err(_) => asked = Some(clock::now()),
            }
        }
    }
}

impl Ledger {
    fn end(&self, reason: &str) {
        error!(reason, "the ledger has stopped on this node, most likely for its disk");
        self.ended.send_replace(Some(reason.to_owned()));
    }

    /// Tells the other voters that this node cannot write. It thinks that it leads, and may never
    /// hear that another does: its consensus waits for the disk, too.
    async fn give_notice(&self) {
        let others = self.voters().into_iter().filter(|voter| *voter != self.me);
        let notices = others.map(|voter| async move {
            let told = async {
                let (mut send, mut receive) = self.links.open_lease(voter, NOTICE).await?;
                super::leases::renew(self, &mut send).await?;
                // the answer says nothing new, but that the notice was taken
                read_message::<FromGranter>(&mut receive).await
            };
            let _ = tokio::time::timeout(NOTICE, told).await;
        });
        futures::future::join_all(notices).await;
    }

    /// Whether this node doubts that it can write.
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::SeqCst)
    }

    /// Comes back when the ledger has stopped for good, with the reason: the process should end, so
    /// that a supervisor starts it again.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}
