//! How much of the log may be under way to a follower without an answer, and for how long.

use std::collections::VecDeque;
use std::time::Duration;

use crate::wire::transfer_time;
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

    /// When the oldest request should have been answered: `patience` and the time that the bytes of
    /// all requests need on a slow path. The time begins again with each answer, so requests that
    /// wait behind others are not given up while those arrive. `None` if there is no request.
    pub fn deadline(&self, patience: Duration) -> Option<Moment> {
        let since = self.since.filter(|_| !self.is_empty())?;
        Some(since + patience + transfer_time(self.bytes))
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
    fn an_answer_is_waited_for_as_long_as_the_bytes_need_and_longer_after_each_answer() {
        let mut under_way = UnderWay::default();
        assert_eq!(under_way.deadline(PATIENCE), None);
        // 4 MiB over 8 Mbit/s are 4.2 s: with a deadline of 3 s, no try would ever succeed
        under_way.handle_sent(at(10), 4 << 20);
        let large = under_way.deadline(PATIENCE).unwrap();
        assert!(large > at(10) + PATIENCE + Duration::from_millis(4_200));
        under_way.handle_sent(at(11), 1 << 10);
        assert!(under_way.deadline(PATIENCE).unwrap() > large, "it came later, and counts too");
        under_way.handle_answer(at(70));
        let small = under_way.deadline(PATIENCE).unwrap();
        assert!(small > at(73) && small < at(74), "{small:?}");
        under_way.handle_answer(at(71));
        assert_eq!((under_way.deadline(PATIENCE), under_way.bytes()), (None, 0));
    }
}
