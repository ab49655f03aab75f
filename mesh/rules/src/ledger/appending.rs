//! How much of the log may be under way to a follower without an answer, and for how long.

use std::collections::VecDeque;
use std::time::Duration;

use crate::words::moment::Moment;

/// The number of bytes under way from which on no more are sent: what a path of 100 ms at
/// 600 Mbit/s holds.
const WINDOW: usize = 8 << 20;
/// The number of requests under way from which on no more are sent. The follower writes requests
/// that have come together in one commit.
const REQUESTS: usize = 64;

/// The requests to one follower that are not answered yet, in their order.
#[derive(Clone, Debug, Default)]
pub struct UnderWay {
    sizes: VecDeque<usize>,
    bytes: usize,
    /// The last answer, or when the first of `sizes` was sent if that was later.
    since: Option<Moment>,
}

impl UnderWay {
    /// Whether another request may be sent, however large it is.
    pub fn may_send(&self) -> bool {
        self.bytes < WINDOW && self.sizes.len() < REQUESTS
    }

    /// A request of `bytes` is sent.
    pub fn handle_sent(&mut self, now: Moment, bytes: usize) {
        if self.sizes.is_empty() {
            self.since = Some(now);
        }
        self.sizes.push_back(bytes);
        self.bytes += bytes;
    }

    /// The oldest request is answered.
    pub fn handle_answer(&mut self, now: Moment) {
        self.bytes -= self.sizes.pop_front().unwrap_or(0);
        self.since = Some(now);
    }

    /// The number of bytes of all these requests.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything is answered.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// When the oldest request should have been answered. `patience` is for all of
    /// [`UnderWay::bytes`], and begins again with each answer, so requests that wait behind others
    /// are not given up while those arrive. `None` if there is no request.
    pub fn deadline(&self, patience: Duration) -> Option<Moment> {
        let since = self.since.filter(|_| !self.is_empty())?;
        Some(since + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_large_entry_is_followed_by_small_ones_and_a_full_window_by_none() {
        let mut under_way = UnderWay::default();
        under_way.handle_sent(at(0), 4 << 20);
        assert!(under_way.may_send(), "small ones do not wait for a large one");
        under_way.handle_sent(at(0), 5 << 20);
        assert!(!under_way.may_send());
        under_way.handle_answer(at(1));
        assert!(under_way.may_send());
        for _ in 1..REQUESTS {
            assert!(under_way.may_send());
            under_way.handle_sent(at(1), 1);
        }
        assert!(!under_way.may_send(), "{} requests", REQUESTS);
    }

    #[test]
    fn an_answer_is_waited_for_since_the_one_before_and_not_since_its_request() {
        let mut under_way = UnderWay::default();
        assert_eq!(under_way.deadline(PATIENCE), None);
        under_way.handle_sent(at(10), 4 << 20);
        under_way.handle_sent(at(12), 1 << 10);
        assert_eq!(under_way.bytes(), (4 << 20) + (1 << 10));
        assert_eq!(under_way.deadline(PATIENCE), Some(at(13)), "the oldest counts");
        under_way.handle_answer(at(70));
        assert_eq!(under_way.deadline(PATIENCE), Some(at(73)), "it waited behind the large one");
        under_way.handle_answer(at(71));
        assert_eq!((under_way.deadline(PATIENCE), under_way.bytes()), (None, 0));
    }
}
