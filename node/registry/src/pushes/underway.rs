//! Copies of uploads that are still on their way, and waiting for them.

use std::collections::HashMap;

use futures::future::{Either, join_all, select};
use parking_lot::Mutex;
use rules::words::digest::Digest;
use tokio::sync::watch;

/// The blobs whose copies are on their way.
#[derive(Default)]
pub(super) struct Underway(Mutex<HashMap<Digest, watch::Receiver<bool>>>);

impl Underway {
    /// Copies of `digest` begin. They have ended when [`Underway::end`] is called.
    pub(super) fn begin(&self, digest: Digest) -> watch::Sender<bool> {
        let (done, waiting) = watch::channel(false);
        self.0.lock().insert(digest, waiting);
        done
    }

    /// The copies of `digest` that `done` belongs to have ended, with or without success.
    pub(super) fn end(&self, digest: &Digest, done: &watch::Sender<bool>) {
        self.0.lock().remove(digest);
        done.send_replace(true);
    }

    /// Waits until the copies of all `digests` have ended, or until `deadline` completes. There is
    /// one deadline for all copies. Returns `false` if the deadline came first.
    pub(super) async fn ended(
        &self,
        digests: impl IntoIterator<Item = Digest>,
        deadline: impl Future<Output = ()>,
    ) -> bool {
        let waiting: Vec<_> = {
            let underway = self.0.lock();
            digests.into_iter().filter_map(|digest| underway.get(&digest).cloned()).collect()
        };
        let all = join_all(waiting.into_iter().map(|mut copy| async move {
            // an error means that the sender was dropped, so the copy has ended
            let _ = copy.wait_for(|done| *done).await;
        }));
        let (all, deadline) = (std::pin::pin!(all), std::pin::pin!(deadline));
        matches!(select(all, deadline).await, Either::Left(_))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures::FutureExt;

    use super::*;

    #[test]
    fn two_copies_that_never_end_cost_one_deadline() {
        let (underway, digests) =
            (Underway::default(), [Digest::sha256(b"a"), Digest::sha256(b"b")]);
        let _never = digests.map(|digest| underway.begin(digest));
        let mut deadlines = 0;
        // it is over once: a second deadline, or the same one waited for again, would be a panic
        let deadline = async { deadlines += 1 };
        assert_eq!(underway.ended(digests, deadline).now_or_never(), Some(false));
        assert_eq!(deadlines, 1);
        assert_eq!(
            underway.ended(digests, pending()).now_or_never(),
            None,
            "before it, both are waited for"
        );
    }

    #[test]
    fn all_copies_are_waited_for_and_what_has_none_is_not() {
        let (underway, digests) =
            (Underway::default(), [Digest::sha256(b"a"), Digest::sha256(b"b")]);
        assert_eq!(underway.ended(digests, pending()).now_or_never(), Some(true), "none has begun");
        let [a, b] = digests.map(|digest| underway.begin(digest));
        let mut waiting = Box::pin(underway.ended(digests, pending()));
        assert_eq!((&mut waiting).now_or_never(), None);
        underway.end(&digests[1], &b);
        assert_eq!((&mut waiting).now_or_never(), None, "the other is still on its way");
        // it ends with its task, too
        drop(a);
        assert_eq!(waiting.now_or_never(), Some(true));
        assert_eq!(underway.ended(digests, ready(())).now_or_never(), Some(true));
    }
}
