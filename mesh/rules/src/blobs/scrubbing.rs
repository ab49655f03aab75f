//! How fast a node reads its blobs again, to find what its disk has spoiled, and where it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::words::digest::Digest;
use crate::words::moment::Timestamp;

/// The slowest reading in bytes a second: a small store is read in a day or two, and then rests.
const SLOWEST: u64 = 1 << 20;

/// How fast a node reads in a round that somebody asked for, in bytes a second. Pulls come beside it.
const HURRIED: u64 = 64 << 20;

/// What a node says of its reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// How far it is.
    pub position: Position,
    /// The bytes that it holds.
    pub total: u64,
    /// How long a round takes that nobody asked for, in seconds.
    pub every_seconds: u64,
}

/// How far a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// When the round began.
    pub began: Timestamp,
    /// The last blob that was read; `None` at the beginning, and when the round is over.
    pub after: Option<Digest>,
    /// Whether all blobs were read.
    pub over: bool,
    /// The number of blobs that were read in this round.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The number of them that were wrong, or could not be read.
    pub damaged: u64,
}

impl Position {
    /// Where to go on at `now`: here, or at the beginning of a new round if this one is over and
    /// began `every` ago. `None` if there is nothing to do yet. A clock that was set back delays
    /// no round by more than `every`.
    pub fn next(&self, now: Timestamp, every: Duration) -> Option<Position> {
        if !self.over {
            return Some(self.clone());
        }
        let rested = now.0.saturating_sub(self.began.0) >= every.as_millis() as u64;
        (rested || now < self.began).then(|| Position { began: now, ..Position::default() })
    }

    /// A blob of so many bytes was read.
    pub fn read(&mut self, digest: Digest, bytes: u64, sound: bool) {
        self.after = Some(digest);
        self.blobs += 1;
        self.bytes += bytes;
        self.damaged += u64::from(!sound);
    }
}

/// How long to wait after so many `bytes` were read, of `total` bytes that are read in `every`.
pub fn pause(bytes: u64, total: u64, every: Duration) -> Duration {
    let rate = (total as f64 / every.as_secs_f64().max(1.0)).max(SLOWEST as f64);
    Duration::from_secs_f64(bytes as f64 / rate)
}

/// The same in a round that somebody asked for.
pub fn hurried_pause(bytes: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / HURRIED as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn all_is_read_once_in_the_time_and_a_small_store_sooner() {
        let total = 30 * 86_400 * (8 << 20);
        assert_eq!(pause(8 << 20, total, 30 * DAY), Duration::from_secs(1));
        assert_eq!(pause(1 << 20, 5000, 30 * DAY), Duration::from_secs(1));
        assert_eq!(pause(0, 0, Duration::ZERO), Duration::ZERO);
        assert_eq!(hurried_pause(64 << 20), Duration::from_secs(1));
    }

    #[test]
    fn a_round_goes_on_after_a_restart_and_the_next_one_waits() {
        let mut position = Position { began: Timestamp(1000), ..Position::default() };
        let digest = Digest::sha256(b"x");
        position.read(digest, 10, true);
        position.read(digest, 10, false);
        assert_eq!((position.blobs, position.bytes, position.damaged), (2, 20, 1));
        assert_eq!(position.next(Timestamp(0), DAY), Some(position.clone()));
        position.over = true;
        let day = DAY.as_millis() as u64;
        assert_eq!(position.next(Timestamp(1000 + day - 1), DAY), None);
        let next = position.next(Timestamp(1000 + day), DAY).unwrap();
        assert_eq!(next, Position { began: Timestamp(1000 + day), ..Position::default() });
        assert!(position.next(Timestamp(1), DAY).is_some(), "the clock was set back");
    }
}
