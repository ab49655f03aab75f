//! Which class of bytes is sent first. With a cap in bytes per second, a bucket, from which more
//! urgent classes take first; without one, a line, in which streams wait until the link takes more.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::words::moment::Moment;

/// The purpose of a transfer; the first is the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// A client waits for the blob.
    Pull,
    /// A copy in another region, before or after a push is acknowledged.
    Copy,
    /// A blob that is fetched before a client asks for it.
    Preheat,
}

impl Class {
    /// All classes, the most urgent first.
    pub const ALL: [Class; 3] = [Class::Pull, Class::Copy, Class::Preheat];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Class::Pull => "pull",
            Class::Copy => "copy",
            Class::Preheat => "preheat",
        }
    }

    /// The priority of its streams within a connection.
    pub fn priority(self) -> i32 {
        -(self as i32)
    }
}

/// How long unused rate is saved: the bucket holds what this time may send.
const SAVED: Duration = Duration::from_millis(100);
/// The minimum and the maximum number of bytes that are taken at once.
const PIECE: (u64, u64) = (4 << 10, 256 << 10);
/// A less urgent class may send a piece after it was held back for this long, so that its receivers
/// do not take the stream for dead.
const STARVED: Duration = Duration::from_secs(1);

/// One cap. A sender calls [`Bucket::enter`], then [`Bucket::take`] until it succeeds, then
/// [`Bucket::leave`].
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Bytes per second, above 0.
    rate: u64,
    /// In millionths of a byte, so that even the shortest time counts.
    level: u128,
    filled: Moment,
    waiting: [u32; 3],
    /// Since when each class is held back by a more urgent one.
    held_back: [Option<Moment>; 3],
}

const MICRO: u128 = 1_000_000;

impl Bucket {
    /// A full bucket for `rate` bytes per second; 0 counts as 1.
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

    /// The maximum number of bytes that may be taken at once: what a tenth of a second may send,
    /// but 4 to 256 KiB.
    pub fn piece(&self) -> u64 {
        (self.rate / 10).clamp(PIECE.0, PIECE.1)
    }

    fn room(&self) -> u128 {
        (u128::from(self.rate) * SAVED.as_micros()).max(u128::from(self.piece()) * MICRO)
    }

    /// A sender of `class` waits; from now on less urgent classes are held back.
    pub fn enter(&mut self, class: Class) {
        self.waiting[class as usize] += 1;
    }

    /// A sender of `class` no longer waits: it has taken its bytes, or has gone away.
    pub fn leave(&mut self, class: Class) {
        let waiting = &mut self.waiting[class as usize];
        *waiting = waiting.saturating_sub(1);
        if *waiting == 0 {
            self.held_back[class as usize] = None;
        }
    }

    /// Takes `bytes` (at most [`Bucket::piece`]), or returns how long to wait before the next try.
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
        // a more urgent sender waits: try again when its bytes could have been sent
        let missing = if behind { wanted } else { wanted - self.level };
        let micros = missing.div_ceil(u128::from(self.rate)).max(1000);
        Err(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }
}

/// A class that waited for the link this recently counts as waiting, so that no other class sends
/// between two of its pieces.
const PRESSED: Duration = Duration::from_millis(50);
/// Without a cap, a class that is held back may send one piece after this many pieces of more
/// urgent classes, or after [`HELD_BACK`]. It gets a fifth of a full link, so a push gets its
/// copies beside endless pulls.
const PASSED: u32 = 4;
const HELD_BACK: Duration = Duration::from_millis(100);

/// The streams to one peer. While a stream waits until the link takes more, less urgent streams
/// wait behind it.
///
/// Stream priorities of a connection order only what is in its send buffer, and a few copies fill
/// that.
#[derive(Clone, Debug, Default)]
pub struct Line {
    waiting: [u32; 3],
    waited: [Option<Moment>; 3],
    held_back: [Option<Moment>; 3],
    /// For each class: the number of more urgent pieces that were sent since its own last piece.
    passed: [u32; 3],
}

impl Line {
    /// A stream of this class waits for the link.
    pub fn enter(&mut self, class: Class) {
        self.waiting[class as usize] += 1;
    }

    /// A stream of this class no longer waits.
    pub fn leave(&mut self, now: Moment, class: Class) {
        let waiting = &mut self.waiting[class as usize];
        *waiting = waiting.saturating_sub(1);
        self.waited[class as usize] = Some(now);
    }

    /// Whether a stream of this class may send its next piece; if so, the piece counts as sent. If
    /// not, it should ask again soon.
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
