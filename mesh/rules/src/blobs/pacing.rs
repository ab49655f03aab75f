//! Who sends first: under a cap in bytes a second, a bucket that what is more urgent empties first;
//! without one, a line before what a link takes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::words::moment::Moment;

/// What bytes are sent for; the first is the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// A client waits.
    Pull,
    /// A copy in another region, before or after a push is acknowledged.
    Copy,
    /// Ahead of a pull that may come.
    Preheat,
}

impl Class {
    /// All of them, the most urgent first.
    pub const ALL: [Class; 3] = [Class::Pull, Class::Copy, Class::Preheat];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Class::Pull => "pull",
            Class::Copy => "copy",
            Class::Preheat => "preheat",
        }
    }

    /// Its streams' priority among those of one connection.
    pub fn priority(self) -> i32 {
        -(self as i32)
    }
}

/// How much is saved up while nothing is sent: what this time may send.
const SAVED: Duration = Duration::from_millis(100);
/// The least and the most that is taken at once.
const PIECE: (u64, u64) = (4 << 10, 256 << 10);
/// What is less urgent may send a piece after it was held back for so long, so that no stream looks
/// dead to its receiver.
const STARVED: Duration = Duration::from_secs(1);

/// One cap. Whoever wants to send announces itself by [`Bucket::enter`], asks [`Bucket::take`]
/// until it may, and [`Bucket::leave`]s.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Bytes in a second, above 0.
    rate: u64,
    /// In millionths of a byte, so that no time is too short to count.
    level: u128,
    filled: Moment,
    waiting: [u32; 3],
    /// Since when a class is held back by a more urgent one.
    held_back: [Option<Moment>; 3],
}

const MICRO: u128 = 1_000_000;

impl Bucket {
    /// A full bucket for `rate` bytes in a second; 0 counts as 1.
    pub fn new(now: Moment, rate: u64) -> Self {
        let mut bucket = Bucket {
            rate: rate.max(1),
            level: 0,
            filled: now,
            waiting: [0; 3],
            held_back: [None; 3],
        };
        bucket.level = bucket.room();
        bucket
    }

    /// The most that may be taken at once: what a tenth of a second may send, within reason.
    pub fn piece(&self) -> u64 {
        (self.rate / 10).clamp(PIECE.0, PIECE.1)
    }

    fn room(&self) -> u128 {
        (u128::from(self.rate) * SAVED.as_micros()).max(u128::from(self.piece()) * MICRO)
    }

    /// Somebody wants to send for `class`: from now on what is less urgent is held back.
    pub fn enter(&mut self, class: Class) {
        self.waiting[class as usize] += 1;
    }

    /// It no longer wants to: it has taken, or has gone away.
    pub fn leave(&mut self, class: Class) {
        let waiting = &mut self.waiting[class as usize];
        *waiting = waiting.saturating_sub(1);
        if *waiting == 0 {
            self.held_back[class as usize] = None;
        }
    }

    /// Takes `bytes`, at most [`Bucket::piece`], or says how long to wait before asking again.
    pub fn take(&mut self, now: Moment, class: Class, bytes: u64) -> Result<(), Duration> {
        let grown = u128::from(self.rate) * now.since(self.filled).as_micros();
        self.level = (self.level + grown).min(self.room());
        self.filled = now.max(self.filled);
        let wanted = u128::from(bytes.min(self.piece())) * MICRO;
        let urgent = self.waiting[..class as usize].iter().any(|waiting| *waiting > 0);
        let held_back = &mut self.held_back[class as usize];
        let behind = urgent && now.since(*held_back.get_or_insert(now)) < STARVED;
        if !behind && self.level >= wanted {
            *held_back = None;
            self.level -= wanted;
            return Ok(());
        }
        // behind somebody more urgent: not before that one's bytes could have gone
        let missing = if behind { wanted } else { wanted - self.level };
        let micros = missing.div_ceil(u128::from(self.rate)).max(1000);
        Err(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }
}

/// Whoever had to wait for a link lately is taken to wait still: between two of its pieces nobody
/// slips in.
const PRESSED: Duration = Duration::from_millis(50);
/// Without a cap, what is held back may send a piece after so many of what is more urgent, or after
/// so long: a fifth of a full link, so that a push gets its copies beside pulls without end.
const PASSED: u32 = 4;
const HELD_BACK: Duration = Duration::from_millis(100);

/// The streams to one peer: while one has to wait until the link takes more, what is less urgent
/// stays behind.
///
/// Priorities of a connection's streams order only what is in its buffer, and a few copies fill
/// that.
#[derive(Clone, Debug, Default)]
pub struct Line {
    waiting: [u32; 3],
    waited: [Option<Moment>; 3],
    held_back: [Option<Moment>; 3],
    /// Pieces of what is more urgent since a class sent its last.
    passed: [u32; 3],
}

impl Line {
    /// A stream of this class has to wait.
    pub fn enter(&mut self, class: Class) {
        self.waiting[class as usize] += 1;
    }

    /// It no longer has to.
    pub fn leave(&mut self, now: Moment, class: Class) {
        let waiting = &mut self.waiting[class as usize];
        *waiting = waiting.saturating_sub(1);
        self.waited[class as usize] = Some(now);
    }

    /// Whether a stream of this class may go on with its next piece, and then it does. One that may
    /// not asks again soon.
    pub fn may_send(&mut self, now: Moment, class: Class) -> bool {
        let before = 0..class as usize;
        let presses = |at: usize| {
            self.waiting[at] > 0
                || self.waited[at].is_some_and(|waited| now.since(waited) < PRESSED)
        };
        let urgent = before.into_iter().any(presses);
        let held_back = self.held_back[class as usize].get_or_insert(now);
        if urgent && self.passed[class as usize] < PASSED && now.since(*held_back) < HELD_BACK {
            return false;
        }
        (self.held_back[class as usize], self.passed[class as usize]) = (None, 0);
        for passed in &mut self.passed[class as usize + 1..] {
            *passed = passed.saturating_add(1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: u64 = PIECE.1;

    fn at(milliseconds: u64) -> Moment {
        Moment::from_micros(milliseconds * 1000)
    }

    #[test]
    fn in_a_line_the_less_urgent_stays_behind_but_for_a_piece_now_and_then() {
        let mut line = Line::default();
        assert!(line.may_send(at(0), Class::Preheat), "nobody waits");
        line.enter(Class::Copy);
        assert!(line.may_send(at(1), Class::Copy), "equals do not hold each other up");
        assert!(!line.may_send(at(1), Class::Preheat));
        assert!(!line.may_send(at(100), Class::Preheat));
        assert!(line.may_send(at(101), Class::Preheat), "held back for long enough");
        assert!(!line.may_send(at(102), Class::Preheat), "and that was one piece");
        line.leave(at(110), Class::Copy);
        assert!(!line.may_send(at(159), Class::Preheat), "the next piece will have to wait, too");
        assert!(line.may_send(at(160), Class::Preheat));
    }

    #[test]
    fn in_a_line_the_less_urgent_has_a_fifth_however_fast_the_link_is() {
        let mut line = Line::default();
        line.enter(Class::Pull);
        let mut sent = [0; 2];
        for _ in 0..100 {
            for (class, sent) in [Class::Pull, Class::Copy].into_iter().zip(&mut sent) {
                *sent += u32::from(line.may_send(at(1), class));
            }
        }
        assert_eq!(sent, [100, 25]);
    }

    #[test]
    fn what_is_more_urgent_goes_first() {
        let mut bucket = Bucket::new(at(0), 10 * MOST);
        assert_eq!(bucket.take(at(0), Class::Copy, MOST), Ok(()));
        Class::ALL.into_iter().for_each(|class| bucket.enter(class));
        assert_eq!(bucket.take(at(0), Class::Pull, MOST), Err(Duration::from_millis(100)));
        // after a tenth of a second there is enough for one
        assert!(bucket.take(at(100), Class::Preheat, MOST).is_err());
        assert!(bucket.take(at(100), Class::Copy, MOST).is_err());
        assert_eq!(bucket.take(at(100), Class::Pull, MOST), Ok(()));
        bucket.leave(Class::Pull);
        assert!(bucket.take(at(200), Class::Preheat, MOST).is_err());
        assert_eq!(bucket.take(at(200), Class::Copy, MOST), Ok(()));
        bucket.leave(Class::Copy);
        assert_eq!(bucket.take(at(300), Class::Preheat, MOST), Ok(()));
    }

    #[test]
    fn what_is_less_urgent_is_not_starved() {
        let mut bucket = Bucket::new(at(0), 10 * MOST);
        bucket.enter(Class::Pull);
        bucket.enter(Class::Preheat);
        let mut sent = [0, 0];
        for tenth in 0..100 {
            // the less urgent asks first each time
            for (which, class) in [Class::Preheat, Class::Pull].into_iter().enumerate() {
                sent[which] += u64::from(bucket.take(at(tenth * 100), class, MOST).is_ok());
            }
        }
        assert!((8..=11).contains(&sent[0]) && sent[1] >= 89, "in ten seconds: {sent:?}");
    }

    #[test]
    fn whoever_waits_as_long_as_it_was_told_may_send() {
        for rate in [1, 1000, 65_536, 20 << 20] {
            let (mut bucket, mut now) = (Bucket::new(at(0), rate), at(0));
            for _ in 0..10 {
                if let Err(wait) = bucket.take(now, Class::Pull, MOST) {
                    now = now + wait;
                    assert_eq!(bucket.take(now, Class::Pull, MOST), Ok(()), "{rate}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_what_was_saved(
            rate in 1u64..200_000_000,
            asks in proptest::collection::vec((0u64..50, 1u64..=MOST, 0usize..3), 1..300),
        ) {
            let mut bucket = Bucket::new(at(0), rate);
            let (mut now, mut sent) = (at(0), 0u128);
            for (later, bytes, class) in asks {
                now = now + Duration::from_millis(later);
                let bytes = bytes.min(bucket.piece());
                if bucket.take(now, Class::ALL[class], bytes).is_ok() {
                    sent += u128::from(bytes);
                }
                let most = u128::from(rate) * u128::from(now.as_micros()) / MICRO;
                prop_assert!(sent <= most + u128::from((rate / 10).max(bucket.piece())) + 1);
            }
        }
    }
}
