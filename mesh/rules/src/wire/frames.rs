//! Limits for the length of frames, and the time that they need.

use std::time::Duration;

/// The maximum length of a frame in bytes. A few of the largest manifests fit into one message of
/// the consensus.
pub const LARGEST: usize = 40 << 20;

/// The maximum length in bytes of most messages, and of every frame from a stranger.
pub const SMALL: usize = 64 << 10;

/// The maximum length in bytes of a message with a manifest: the largest one that
/// `uploads.max_manifest` allows, with descriptors of everything it refers to.
pub(super) const MANIFEST: usize = 16 << 20;

/// The rate in bytes a second of the slowest path that messages have time for: half a megabit a
/// second. A slower path is too slow for a member's heartbeats and gossip beside anything else.
const SLOWEST: u64 = 64 << 10;

/// How long `bytes` may be under way, beside the deadline of what is asked. It is the time over the
/// slowest path that is supported, and not over the path as it was measured: others share the path
/// now and then, and a message that is given up begins again from its first byte. Whether the peer
/// is there at all is not found out by this time, but by the connection, which ends after a silence
/// of a few seconds.
pub fn transfer_time(bytes: usize) -> Duration {
    Duration::from_micros(bytes as u64 * 1_000_000 / SLOWEST)
}

/// The number of bytes of a frame that tell its kind: the version, and the two numbers of
/// [`Open`](super::Open) and [`Ask`](super::Ask) or [`Bulk`](super::Bulk).
pub const HEAD: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_message_has_time_for_the_slowest_path_and_a_small_one_no_more_than_its_deadline() {
        assert_eq!(transfer_time(0), Duration::ZERO);
        assert!(transfer_time(200) < Duration::from_millis(4), "a heartbeat");
        // the largest manifest by default, twice over 8 Mbit/s at the same time
        assert!(transfer_time(4 << 20) > 2 * Duration::from_millis(4_200));
        assert_eq!(transfer_time(LARGEST), Duration::from_secs(640));
    }
}
