//! Of those who bring the same password at the same moment, one after the other has it checked. A
//! burst of a CI system's first requests was once taken for so many wrong passwords: each counts as
//! wrong until it is checked. Whoever waited looks first whether the one before was right.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rules::words::digest::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long one waits for those before.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who checks what, by a hash of it.
#[derive(Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<Digest, Arc<Semaphore>>>>);

/// The turn to check something. It ends when this is dropped.
pub(super) struct Turn {
    all: Arc<Mutex<HashMap<Digest, Arc<Semaphore>>>>,
    of: Digest,
    place: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Waits until nobody else checks this, but at most [`PATIENCE`]: a directory that hangs must not
    /// make one wait for all the others.
    pub(super) async fn take(&self, of: Digest) -> Turn {
        let one = self.0.lock().entry(of).or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
        // a place is kept from here on, so that a caller that goes away while it waits leaves nothing
        let mut turn = Turn { all: self.0.clone(), of, place: None };
        let place = tokio::time::timeout(PATIENCE, one.acquire_owned()).await;
        // it is never closed
        turn.place = place.ok().and_then(Result::ok);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.place = None;
        let mut all = self.all.lock();
        // nobody else waits for it
        if all.get(&self.of).is_some_and(|one| Arc::strong_count(one) == 1) {
            all.remove(&self.of);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_same_is_checked_by_one_at_a_time_and_nothing_is_left_behind() {
        let turns = Turns::default();
        let [one, other] = [b"one", b"two"].map(|text| Digest::sha256(text));
        let first = turns.take(one).await;
        let mut second = Box::pin(turns.take(one));
        assert!((&mut second).now_or_never().is_none(), "the same waits");
        drop(turns.take(other).now_or_never().expect("another one does not"));
        let mut gone = Box::pin(turns.take(one));
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        drop(first);
        drop(second.now_or_never().expect("its turn"));
        assert!(turns.0.lock().is_empty());
    }
}
