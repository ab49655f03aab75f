//! The requests of one HTTP/2 connection: when it rests for too long, and when its client asks only
//! to break off (rapid reset, CVE-2023-44487).

use core::time::Duration;

use crate::words::moment::Moment;

/// How many requests a client may break off before their answers begin, whatever else it does.
/// Clients that stop a pull break off a few.
const BROKEN_OFF: u64 = 100;

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Stay,
    /// It has no open request for too long: the client is told not to send another.
    Close,
    /// Its client breaks off most of what it asks: it is ended at once.
    End,
}

/// What is known of one connection.
#[derive(Clone, Debug)]
pub struct Streams {
    rest: Duration,
    most: usize,
    open: usize,
    asked: u64,
    broken_off: u64,
    resting_since: Moment,
}

impl Streams {
    /// A connection that was opened `now` and may be without a request for `rest`. The protocol lets
    /// its client have `most` requests open.
    pub fn new(now: Moment, rest: Duration, most: usize) -> Self {
        Streams { rest, most, open: 0, asked: 0, broken_off: 0, resting_since: now }
    }

    /// A request has begun. [`Streams::ended`] is to be called once for it.
    pub fn begun(&mut self) {
        self.open += 1;
        self.asked += 1;
    }

    /// A request has ended, with its answer's body. `answered` says whether its answer had begun.
    pub fn ended(&mut self, now: Moment, answered: bool) {
        self.open = self.open.saturating_sub(1);
        self.broken_off += u64::from(!answered);
        self.resting_since = now;
    }

    /// Whether its client breaks off most of what it asks. What is open beyond `most` it has broken
    /// off, and the node has not come to notice yet: it must not queue up until then.
    pub fn is_over(&self) -> bool {
        (self.broken_off > BROKEN_OFF && self.broken_off * 2 > self.asked)
            || self.open > 2 * self.most
    }

    /// What is to be done now.
    pub fn verdict(&self, now: Moment) -> Verdict {
        if self.is_over() {
            Verdict::End
        } else if self.open == 0 && now.since(self.resting_since) >= self.rest {
            Verdict::Close
        } else {
            Verdict::Stay
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_connection_without_a_request_is_closed_after_its_rest() {
        let mut streams = Streams::new(at(0), REST, 100);
        assert_eq!(streams.verdict(at(29)), Verdict::Stay);
        assert_eq!(streams.verdict(at(30)), Verdict::Close, "also if it never had one");
        streams.begun();
        streams.begun();
        assert_eq!(streams.verdict(at(1000)), Verdict::Stay, "a long answer is no rest");
        streams.ended(at(1000), true);
        assert_eq!(streams.verdict(at(2000)), Verdict::Stay, "the other one is open");
        streams.ended(at(2000), true);
        assert_eq!(streams.verdict(at(2029)), Verdict::Stay);
        assert_eq!(streams.verdict(at(2030)), Verdict::Close);
    }

    #[test]
    fn who_has_far_more_open_than_the_protocol_allows_has_broken_off_the_others() {
        let mut streams = Streams::new(at(0), REST, 100);
        for _ in 0..200 {
            streams.begun();
        }
        assert!(!streams.is_over(), "a whole set was broken off, and another one asked for");
        streams.begun();
        assert_eq!(streams.verdict(at(0)), Verdict::End);
    }

    #[test]
    fn who_breaks_off_most_requests_is_ended_and_who_breaks_off_some_is_not() {
        let mut resets = Streams::new(at(0), REST, 100);
        for _ in 0..BROKEN_OFF {
            resets.begun();
            resets.ended(at(1), false);
        }
        assert_eq!(resets.verdict(at(1)), Verdict::Stay);
        resets.begun();
        resets.ended(at(1), false);
        assert_eq!(resets.verdict(at(1)), Verdict::End);

        let mut pulls = Streams::new(at(0), REST, 100);
        for n in 0..100_000 {
            pulls.begun();
            pulls.ended(at(1), n % 2 == 0);
            assert_eq!(pulls.verdict(at(1)), Verdict::Stay, "half of {n}");
        }
    }
}
