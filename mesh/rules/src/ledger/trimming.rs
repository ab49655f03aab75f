//! How much of the log a node keeps: as many bytes as its setting says, so that a replica that was
//! away for an hour can be sent what it missed.

use std::collections::BTreeMap;

/// The number of entries whose bytes are counted together.
const TOGETHER: u64 = 8;
/// What is kept of the log when the disk is nearly full, in bytes.
const NEARLY_FULL: u64 = 16 << 20;

/// The bytes of the entries of a log.
#[derive(Debug, Default)]
pub struct LogSizes {
    /// The bytes of `TOGETHER` entries each, by the number of the first divided by that.
    groups: BTreeMap<u64, u64>,
    total: u64,
}

impl LogSizes {
    /// The entry `index` has so many bytes.
    pub fn add(&mut self, index: u64, bytes: u64) {
        *self.groups.entry(index / TOGETHER).or_default() += bytes;
        self.total += bytes;
    }

    /// The entries from `index` on are gone. Those of its own group still count, until entries come
    /// in their place.
    pub fn truncate(&mut self, index: u64) {
        let gone = self.groups.split_off(&(index / TOGETHER + 1));
        self.total -= gone.values().sum::<u64>();
    }

    /// The entries up to and with `index` are gone.
    pub fn purge(&mut self, index: u64) {
        let left = self.groups.split_off(&((index + 1) / TOGETHER));
        let gone = std::mem::replace(&mut self.groups, left);
        self.total -= gone.values().sum::<u64>();
    }

    /// The bytes of all entries.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The last of the entries that are too many if at most `most` bytes are kept; `None` if all
    /// may stay. The newest entries stay, however large they are.
    pub fn surplus(&self, most: u64) -> Option<u64> {
        let mut left = self.total;
        let newest = *self.groups.last_key_value()?.0;
        let mut last = None;
        for (group, bytes) in self.groups.range(..newest) {
            if left <= most {
                break;
            }
            left -= bytes;
            last = Some((group + 1) * TOGETHER - 1);
        }
        last
    }
}

/// How many bytes of its log a node keeps: what its setting says, and less if its disk has less than
/// `reserved` bytes `free`, which blobs may not use. Then the log's room in the file is used again
/// before the file grows.
pub fn most(setting: u64, free: u64, reserved: u64) -> u64 {
    if free < reserved { setting.min(NEARLY_FULL) } else { setting }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_too_many_and_the_newest_always_stay() {
        let mut sizes = LogSizes::default();
        assert_eq!(sizes.surplus(0), None);
        for index in 1..=1000 {
            sizes.add(index, 10);
        }
        assert_eq!(sizes.total(), 10_000);
        assert_eq!(sizes.surplus(10_000), None);
        assert_eq!(sizes.surplus(9_999), Some(7));
        assert_eq!(sizes.surplus(5_000), Some(503));
        assert_eq!(sizes.surplus(0), Some(999), "the group of the newest stays");
        sizes.purge(503);
        assert_eq!((sizes.total(), sizes.surplus(5_000)), (4970, None));
        sizes.purge(503);
        assert_eq!(sizes.total(), 4970);
        sizes.truncate(640);
        assert_eq!(sizes.total(), (648 - 504) * 10, "the rest of the group of 640 still counts");
        sizes.truncate(0);
        assert_eq!(sizes.surplus(0), None);
        sizes.purge(5000);
        assert_eq!(sizes.total(), 0);
    }

    #[test]
    fn a_disk_that_is_nearly_full_keeps_little() {
        let gib = 1 << 30;
        assert_eq!(most(gib, 50 * gib, gib / 4), gib);
        assert_eq!(most(gib, gib / 5, gib / 4), NEARLY_FULL);
        assert_eq!(most(1000, 0, gib / 4), 1000);
    }
}
