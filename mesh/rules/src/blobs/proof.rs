//! What an upstream must show before a blob that the mesh has for another project may be read as
//! its own.
//!
//! A digest proves nothing, because everybody who may read a manifest knows digests. A status
//! proves nothing, because it costs an upstream nothing. Bytes prove it: ranges that are chosen
//! here, so that nobody can know them before, and that match the blob's groups.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::blobs::groups::{GROUP, Groups};

/// A blob of at most this many bytes is shown whole, with one request. Small blobs are
/// configurations, in which a few unknown bytes may be the secret.
pub const WHOLE: u64 = 16 * GROUP as u64;

/// The number of groups that are shown of a longer blob. Who has half of its groups passes once in
/// 256 tries; who has none of them never passes.
pub const SAMPLES: usize = 8;

/// The ranges of a blob of `size` bytes that must be shown: all of it, or [`SAMPLES`] different
/// groups. `dice` gives a number below its argument, which nobody can foresee.
pub fn ranges(size: u64, mut dice: impl FnMut(u64) -> u64) -> Vec<Range<u64>> {
    if size <= WHOLE {
        return std::iter::once(0..size).collect();
    }
    let (count, group) = (Groups::count(size), GROUP as u64);
    let mut chosen = BTreeSet::new();
    // a longer blob has more groups than samples, and each number is as likely as the others
    // (Floyd's algorithm)
    for last in count - SAMPLES as u64..count {
        let number = dice(last + 1);
        if !chosen.insert(number) {
            chosen.insert(last);
        }
    }
    chosen.into_iter().map(|number| number * group..size.min((number + 1) * group)).collect()
}

/// Whether `bytes` are the bytes in `range` of the blob with these groups. The range is one of
/// [`ranges`].
pub fn shows(groups: &Groups, range: &Range<u64>, bytes: &[u8]) -> bool {
    if bytes.len() as u64 != range.end.saturating_sub(range.start) || range.end > groups.size() {
        return false;
    }
    let mut offset = range.start;
    // an empty blob has one empty group
    if bytes.is_empty() {
        return groups.size() == 0 && groups.verify(0, Vec::new()).is_some();
    }
    bytes.chunks(GROUP).all(|group| {
        let right = groups.verify(offset, group.to_vec()).is_some();
        offset += group.len() as u64;
        right
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::groups::GroupHasher;
    use proptest::prelude::*;

    fn blob(size: usize) -> (Vec<u8>, Groups) {
        let bytes: Vec<u8> =
            (0..size).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let mut hasher = GroupHasher::new();
        hasher.update(&bytes);
        let (content, list) = hasher.finish();
        let groups = Groups::from_list(&list.unwrap(), content, size as u64).unwrap();
        (bytes, groups)
    }

    fn part(bytes: &[u8], range: &Range<u64>) -> Vec<u8> {
        bytes[range.start as usize..range.end as usize].to_vec()
    }

    #[test]
    fn a_small_blob_is_shown_whole_and_a_long_one_in_samples_that_the_dice_choose() {
        for size in [0, 1, GROUP as u64, WHOLE] {
            let all = ranges(size, |_| panic!("nothing to choose"));
            assert!(all.len() == 1 && all[0] == (0..size), "{all:?}");
        }
        let size = WHOLE + 5;
        let (first, last) = (ranges(size, |_| 0), ranges(size, |below| below - 1));
        assert_eq!((first.len(), last.len()), (SAMPLES, SAMPLES));
        assert_eq!((first[0].start, last.last().unwrap().end), (0, size));
        assert_ne!(first, last);
    }

    #[test]
    fn wrong_bytes_and_bytes_of_another_place_show_nothing() {
        for size in [1, GROUP + 1, WHOLE as usize, WHOLE as usize + 3 * GROUP + 7] {
            let (bytes, groups) = blob(size);
            for range in ranges(size as u64, |below| below / 2) {
                let right = part(&bytes, &range);
                assert!(shows(&groups, &range, &right), "{range:?} of {size}");
                let mut wrong = right.clone();
                *wrong.last_mut().unwrap() ^= 1;
                assert!(!shows(&groups, &range, &wrong), "{range:?} of {size}");
                assert!(!shows(&groups, &range, &right[1..]), "too short");
                assert!(!shows(&groups, &(range.start + 1..range.end + 1), &right), "elsewhere");
                assert!(!shows(&groups, &range, &vec![0x55; right.len()]), "made up");
            }
        }
        let (_, empty) = blob(0);
        assert!(shows(&empty, &(0..0), b""));
        assert!(!shows(&blob(5).1, &(0..0), b""), "no byte shows nothing of a blob");
        assert!(!shows(&blob(5).1, &(0..6), b"123456"), "behind the end");
    }

    proptest! {
        #[test]
        fn samples_are_different_whole_groups_of_the_blob(size in WHOLE + 1..1 << 34, dice: Vec<u64>) {
            let mut dice = dice.into_iter().cycle();
            let ranges = ranges(size, |below| dice.next().unwrap_or(7) % below);
            prop_assert_eq!(ranges.len(), SAMPLES);
            prop_assert!(ranges.is_sorted_by(|a, b| a.end <= b.start));
            for range in ranges {
                prop_assert!(range.start % GROUP as u64 == 0 && range.start < range.end);
                prop_assert!(range.end <= size && range.end - range.start <= GROUP as u64);
            }
        }
    }
}
