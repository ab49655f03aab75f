//! Which leader's records a node takes: those of the latest leader that sends some, one transfer
//! at a time.
//!
//! A leader that died says nothing any more, and that is noticed late. So the next leader's
//! transfer ends the one before, and begins when what had arrived is put away for it.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use super::types::Vote;

/// The transfers from leaders to this node.
#[derive(Debug, Default)]
pub(super) struct Latest {
    /// The latest leader that has begun to send, and how many transfers have begun.
    begun: watch::Sender<(Option<Vote>, u64)>,
    turn: Arc<Mutex<()>>,
}

/// A transfer that may take what arrives. The next one waits until this is dropped.
pub(super) struct Turn {
    number: u64,
    begun: watch::Receiver<(Option<Vote>, u64)>,
    _turn: OwnedMutexGuard<()>,
}

impl Latest {
    /// A leader begins to send: ends the transfer before, if there is one, and waits until it is
    /// put away. `None` if a later leader has begun to send.
    pub(super) async fn begin(&self, leader: Vote) -> Option<Turn> {
        let mut number = None;
        self.begun.send_if_modified(|(latest, count)| {
            let takes = latest.as_ref().is_none_or(|latest| leader >= *latest);
            if takes {
                (*latest, *count) = (Some(leader), *count + 1);
                number = Some(*count);
            }
            takes
        });
        let (number, begun) = (number?, self.begun.subscribe());
        let turn = self.turn.clone().lock_owned().await;
        Some(Turn { number, begun, _turn: turn })
    }
}

impl Turn {
    /// Waits until another transfer has begun.
    pub(super) fn superseded(&self) -> impl Future<Output = ()> + use<> {
        let (mut begun, number) = (self.begun.clone(), self.number);
        async move {
            // without a sender the ledger is gone, and all transfers with it
            let _ = begun.wait_for(|(_, count)| *count != number).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_latest_leader_ends_the_transfer_before_and_waits_for_it() {
        let latest = Latest::default();
        let first = latest.begin(Vote::new(1, 1)).await.unwrap();
        let blink = Duration::from_millis(20);
        assert!(tokio::time::timeout(blink, first.superseded()).await.is_err());
        let mut second = std::pin::pin!(latest.begin(Vote::new(2, 3)));
        assert!(tokio::time::timeout(blink, &mut second).await.is_err(), "the first has its turn");
        first.superseded().await;
        assert!(latest.begin(Vote::new(1, 1)).await.is_none(), "a leader that was deposed");
        drop(first);
        let second = second.await.unwrap();
        assert!(tokio::time::timeout(blink, second.superseded()).await.is_err());
        // the same leader tries again
        let mut third = std::pin::pin!(latest.begin(Vote::new(2, 3)));
        assert!(tokio::time::timeout(blink, &mut third).await.is_err());
        second.superseded().await;
        drop(second);
        assert!(third.await.is_some());
    }
}
