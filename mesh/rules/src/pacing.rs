//! Bytes per second towards a region: a bucket that fills at the rate of the cap and that what is more urgent empties first.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::moment::Moment;

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

/// How much is saved up while nothing is sent: what a tenth of a second may send, and at least one piece.
const SAVED: Duration = Duration::from_millis(100);
/// The most that is taken at once.
pub const PIECE: u64 = 256 << 10;

/// One cap. Whoever wants to send announces itself by [`Bucket::enter`], asks [`Bucket::take`] until it may, and [`Bucket::leave`]s.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Bytes in a second, above 0.
    rate: u64,
    /// In millionths of a byte, so that no time is too short to count.
    level: u128,
    filled: Moment,
    waiting: [u32; 3],
}

const MICRO: u128 = 1_000_000;

impl Bucket {
    /// A full bucket for `rate` bytes in a second; 0 counts as 1.
    pub fn new(now: Moment, rate: u64) -> Self {
        let mut bucket = Bucket { rate: rate.max(1), level: 0, filled: now, waiting: [0; 3] };
        bucket.level = bucket.room();
        bucket
    }

    fn room(&self) -> u128 {
        (u128::from(self.rate) * SAVED.as_micros()).max(u128::from(PIECE) * MICRO)
    }

    /// Somebody wants to send for `class`: from now on nobody less urgent may.
    pub fn enter(&mut self, class: Class) {
        self.waiting[class as usize] += 1;
    }

    /// It no longer wants to: it has taken, or has gone away.
    pub fn leave(&mut self, class: Class) {
        let waiting = &mut self.waiting[class as usize];
        *waiting = waiting.saturating_sub(1);
    }

    /// Takes `bytes`, at most [`PIECE`], or says how long to wait before asking again.
    pub fn take(&mut self, now: Moment, class: Class, bytes: u64) -> Result<(), Duration> {
        let grown = u128::from(self.rate) * now.since(self.filled).as_micros();
        self.level = (self.level + grown).min(self.room());
        self.filled = now.max(self.filled);
        let wanted = u128::from(bytes.min(PIECE)) * MICRO;
        let urgent: u32 = self.waiting[..class as usize].iter().sum();
        if urgent == 0 && self.level >= wanted {
            self.level -= wanted;
            return Ok(());
        }
        // behind somebody more urgent: not before that one's bytes could have gone
        let missing = if urgent == 0 { wanted - self.level } else { wanted };
        let micros = missing.div_ceil(u128::from(self.rate)).max(1000);
        Err(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: u64) -> Moment {
        Moment::from_micros(micros)
    }

    #[test]
    fn what_is_more_urgent_goes_first() {
        let mut bucket = Bucket::new(at(0), PIECE);
        bucket.enter(Class::Copy);
        assert_eq!(bucket.take(at(0), Class::Copy, PIECE), Ok(()));
        bucket.leave(Class::Copy);
        [Class::Preheat, Class::Copy, Class::Pull].map(|class| bucket.enter(class));
        assert_eq!(bucket.take(at(0), Class::Pull, PIECE), Err(Duration::from_secs(1)));
        // a second later there is enough for one
        assert!(bucket.take(at(1_000_000), Class::Preheat, PIECE).is_err());
        assert!(bucket.take(at(1_000_000), Class::Copy, PIECE).is_err());
        assert_eq!(bucket.take(at(1_000_000), Class::Pull, PIECE), Ok(()));
        bucket.leave(Class::Pull);
        assert!(bucket.take(at(2_000_000), Class::Preheat, PIECE).is_err());
        assert_eq!(bucket.take(at(2_000_000), Class::Copy, PIECE), Ok(()));
        bucket.leave(Class::Copy);
        assert_eq!(bucket.take(at(3_000_000), Class::Preheat, PIECE), Ok(()));
    }

    #[test]
    fn whoever_waits_as_long_as_it_was_told_may_send() {
        let mut bucket = Bucket::new(at(0), 1000);
        let mut now = at(0);
        for _ in 0..10 {
            if let Err(wait) = bucket.take(now, Class::Pull, PIECE) {
                now = now + wait;
                assert_eq!(bucket.take(now, Class::Pull, PIECE), Ok(()));
            }
        }
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_what_was_saved(
            rate in 1u64..200_000_000,
            asks in proptest::collection::vec((0u64..50_000, 1u64..=PIECE, 0usize..3), 1..300),
        ) {
            let mut bucket = Bucket::new(at(0), rate);
            let (mut now, mut sent) = (at(0), 0u128);
            for (later, bytes, class) in asks {
                now = now + Duration::from_micros(later);
                if bucket.take(now, Class::ALL[class], bytes).is_ok() {
                    sent += u128::from(bytes);
                }
                let most = u128::from(rate) * u128::from(now.as_micros()) / MICRO;
                prop_assert!(sent <= most + u128::from(rate / 10).max(u128::from(PIECE)) + 1);
            }
        }
    }
}
