//! Verified ranges: a blob is divided into groups of 64 KiB, and each group is checked alone.
//!
//! BLAKE3 is a tree over chunks of 1 KiB, and the hash of 64 chunks is an inner node. The list of
//! these nodes (32 bytes for each group, 0.05 % of the bytes) merges into the blob's
//! [`ContentHash`]. So the whole list is checked once against that hash, and then each group alone
//! against the list, in any order and from any number of sources. A blob of one group needs no
//! list.

use std::sync::Arc;

use blake3::hazmat::{self, HasherExt, Mode};

use crate::words::digest::ContentHash;

/// The length of a group in bytes. Only a blob's last group may be shorter.
pub const GROUP: usize = 64 << 10;

/// The maximum number of groups in a list: a list of 32 MiB, for a blob of 64 GiB. A longer blob
/// has a content hash and no list.
pub const MAX_GROUPS: usize = 1 << 20;

/// A group's hash as an inner node of the blob's tree.
pub type ChainingValue = [u8; 32];

const VALUE: usize = size_of::<ChainingValue>();

/// The roots of finished subtrees on the left, the largest first. A value may be added only if more
/// values follow it.
#[derive(Clone, Default)]
struct Merging {
    stack: Vec<ChainingValue>,
    added: u64,
}

impl Merging {
    fn add(&mut self, mut value: ChainingValue) {
        self.added += 1;
        let mut complete = self.added;
        while complete.is_multiple_of(2)
            && let Some(left) = self.stack.pop()
        {
            value = hazmat::merge_subtrees_non_root(&left, &value, Mode::Hash);
            complete /= 2;
        }
        self.stack.push(value);
    }

    /// The root, with `last` on the right edge. `None` if `last` is the only value: the hash of a
    /// root differs from that of an inner node.
    fn root(mut self, mut last: ChainingValue) -> Option<ContentHash> {
        while let Some(left) = self.stack.pop() {
            if self.stack.is_empty() {
                return Some(ContentHash::from(hazmat::merge_subtrees_root(
                    &left,
                    &last,
                    Mode::Hash,
                )));
            }
            last = hazmat::merge_subtrees_non_root(&left, &last, Mode::Hash);
        }
        None
    }
}

/// The last group so far. It is closed only when another byte follows, because the hash of a root
/// differs from that of an inner node.
#[derive(Clone)]
enum Last {
    Open(Box<blake3::Hasher>),
    /// A full group whose value was computed when it was checked.
    Checked(ChainingValue),
}

/// Hashes bytes that arrive in pieces, and computes their content hash and the list of their
/// groups.
///
/// Uses 32 bytes of memory for each 64 KiB seen, at most 32 MiB.
#[derive(Clone)]
pub struct GroupHasher {
    merging: Merging,
    list: Option<Vec<u8>>,
    last: Last,
}

impl Default for GroupHasher {
    fn default() -> Self {
        GroupHasher {
            merging: Merging::default(),
            list: Some(Vec::new()),
            last: Last::Open(Box::new(blake3::Hasher::new())),
        }
    }
}

impl GroupHasher {
    /// A hasher without any bytes yet.
    pub fn new() -> Self {
        GroupHasher::default()
    }

    /// Adds the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled() == GROUP {
                self.close();
            }
            let room = GROUP - self.filled();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Last::Open(hasher) = &mut self.last {
                hasher.update(now);
            }
            bytes = later;
        }
    }

    /// Adds the next group, which was checked. A full group is not hashed again.
    pub fn add(&mut self, group: &Checked) {
        let at_boundary = matches!(self.filled(), 0 | GROUP);
        match group.value {
            Some(value) if at_boundary && group.bytes.len() == GROUP => {
                if self.filled() == GROUP {
                    self.close();
                }
                self.last = Last::Checked(value);
            }
            _ => self.update(&group.bytes),
        }
    }

    fn filled(&self) -> usize {
        match &self.last {
            Last::Open(hasher) => hasher.count() as usize,
            Last::Checked(_) => GROUP,
        }
    }

    fn last_value(&self) -> ChainingValue {
        match &self.last {
            Last::Open(hasher) => hasher.finalize_non_root(),
            Last::Checked(value) => *value,
        }
    }

    /// Closes the full last group, because another byte follows.
    fn close(&mut self) {
        let value = self.last_value();
        self.list_value(&value);
        self.merging.add(value);
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(self.merging.added * GROUP as u64);
        self.last = Last::Open(Box::new(hasher));
    }

    fn list_value(&mut self, value: &ChainingValue) {
        match &mut self.list {
            Some(list) if list.len() < MAX_GROUPS * VALUE => list.extend_from_slice(value),
            list => *list = None,
        }
    }

    /// The content hash of all bytes, and the list of their groups in the format of
    /// [`Groups::from_list`]: empty for one group, `None` for more than [`MAX_GROUPS`].
    pub fn finish(mut self) -> (ContentHash, Option<Vec<u8>>) {
        if self.merging.added == 0
            && let Last::Open(hasher) = &self.last
        {
            return (ContentHash::from_hasher(hasher), Some(Vec::new()));
        }
        let last = self.last_value();
        self.list_value(&last);
        // a checked group has a value only if the blob has several groups: if it is alone here, the
        // bytes are not the blob, and the digest will show it
        let root = self
            .merging
            .root(last)
            .unwrap_or_else(|| ContentHash::from(blake3::Hash::from_bytes(last)));
        (root, self.list)
    }
}

/// The list does not belong to the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the list of groups does not hash to the blob's content hash")]
pub struct BadList;

/// The groups of one blob. The list was checked against the content hash. Cheap to clone.
#[derive(Clone)]
pub struct Groups {
    list: Arc<[u8]>,
    content: ContentHash,
    size: u64,
}

/// A group that was checked against the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    bytes: Vec<u8>,
    value: Option<ChainingValue>,
}

impl Checked {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Groups {
    /// The number of groups of a blob of `size` bytes. An empty blob has one empty group.
    pub fn count(size: u64) -> u64 {
        size.div_ceil(GROUP as u64).max(1)
    }

    /// Whether a blob of `size` bytes can be checked by groups: it has at most [`MAX_GROUPS`] of
    /// them.
    pub fn checkable(size: u64) -> bool {
        Self::count(size) <= MAX_GROUPS as u64
    }

    /// Whether a list is kept and sent for a blob of `size` bytes: it has more than one group and
    /// at most [`MAX_GROUPS`].
    pub fn listed(size: u64) -> bool {
        (2..=MAX_GROUPS as u64).contains(&Self::count(size))
    }

    /// Checks a list (32 bytes for each group; empty for a blob of one group) against the blob's
    /// content hash and length, and takes it.
    pub fn from_list(list: &[u8], content: ContentHash, size: u64) -> Result<Self, BadList> {
        let expected = if Self::listed(size) { Self::count(size) } else { 0 };
        if list.len() as u64 != expected * VALUE as u64 || !Self::checkable(size) {
            return Err(BadList);
        }
        let (values, _) = list.as_chunks::<VALUE>();
        if let Some((last, before)) = values.split_last() {
            let mut merging = Merging::default();
            before.iter().for_each(|value| merging.add(*value));
            if merging.root(*last) != Some(content) {
                return Err(BadList);
            }
        }
        Ok(Groups { list: list.into(), content, size })
    }

    /// The list, in the format of [`Groups::from_list`].
    pub fn list(&self) -> &[u8] {
        &self.list
    }

    /// The blob's content hash.
    pub fn content(&self) -> ContentHash {
        self.content
    }

    /// The blob's length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The length of the group that begins at `offset`, which must be a multiple of [`GROUP`]; 0 at
    /// and after the end.
    pub fn length_at(&self, offset: u64) -> usize {
        self.size.saturating_sub(offset).min(GROUP as u64) as usize
    }

    /// Checks `bytes` as the whole group that begins at `offset`; `None` if they are wrong.
    pub fn verify(&self, offset: u64, bytes: Vec<u8>) -> Option<Checked> {
        if !offset.is_multiple_of(GROUP as u64) || bytes.len() != self.length_at(offset) {
            return None;
        }
        if self.list.is_empty() {
            return (ContentHash::of(&bytes) == self.content)
                .then_some(Checked { bytes, value: None });
        }
        let (values, _) = self.list.as_chunks::<VALUE>();
        let expected = values.get((offset / GROUP as u64) as usize)?;
        if bytes.is_empty() {
            return None;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(offset).update(&bytes);
        let value = hasher.finalize_non_root();
        (value == *expected).then_some(Checked { bytes, value: Some(value) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
    }

    fn hashed(bytes: &[u8]) -> (ContentHash, Vec<u8>) {
        let mut hasher = GroupHasher::new();
        hasher.update(bytes);
        let (content, list) = hasher.finish();
        (content, list.unwrap())
    }

    const SIZES: [usize; 16] = [
        0,
        1,
        1023,
        1024,
        1025,
        GROUP - 1,
        GROUP,
        GROUP + 1,
        2 * GROUP - 1,
        2 * GROUP,
        2 * GROUP + 1,
        3 * GROUP,
        5 * GROUP + 7,
        8 * GROUP,
        13 * GROUP + 1025,
        16 * GROUP,
    ];

    #[test]
    fn the_groups_of_every_size_hash_to_what_blake3_says() {
        for size in SIZES {
            let bytes = bytes(size);
            let (content, list) = hashed(&bytes);
            assert_eq!(content, ContentHash::of(&bytes), "{size} bytes");
            assert_eq!(
                list.len(),
                if size <= GROUP { 0 } else { size.div_ceil(GROUP) * 32 },
                "{size} bytes"
            );
            let groups = Groups::from_list(&list, content, size as u64).unwrap();
            for (at, group) in bytes.chunks(GROUP).enumerate() {
                let offset = (at * GROUP) as u64;
                assert_eq!(groups.length_at(offset), group.len());
                assert_eq!(
                    groups.verify(offset, group.to_vec()).unwrap().bytes(),
                    group,
                    "{size} bytes, group {at}"
                );
            }
        }
    }

    #[test]
    fn a_group_elsewhere_or_of_another_length_is_none_of_the_blob() {
        let bytes = bytes(3 * GROUP);
        let (content, list) = hashed(&bytes);
        let groups = Groups::from_list(&list, content, bytes.len() as u64).unwrap();
        let second = bytes[GROUP..2 * GROUP].to_vec();
        assert!(groups.verify(0, second.clone()).is_none(), "at another place");
        assert!(groups.verify(GROUP as u64 + 1024, second.clone()).is_none(), "between two");
        assert!(groups.verify(GROUP as u64, second[1..].to_vec()).is_none(), "too short");
        assert!(groups.verify(9 * GROUP as u64, second).is_none(), "after the end");
        assert!(groups.verify(3 * GROUP as u64, Vec::new()).is_none(), "at the end");
    }

    #[test]
    fn a_list_of_another_length_is_refused() {
        let bytes = bytes(3 * GROUP);
        let (content, list) = hashed(&bytes);
        for size in [0, GROUP, 2 * GROUP, 4 * GROUP, usize::MAX] {
            assert!(Groups::from_list(&list, content, size as u64).is_err(), "{size}");
        }
        assert!(Groups::from_list(&list[..64], content, bytes.len() as u64).is_err());
        assert!(Groups::from_list(&list[1..], content, bytes.len() as u64).is_err());
        assert!(Groups::from_list(&[], content, bytes.len() as u64).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn pieces_of_any_size_give_the_same(size in 0usize..6 * GROUP, cuts in proptest::collection::vec(1usize..100_000, 0..20)) {
            let bytes = bytes(size);
            let (mut hasher, mut rest) = (GroupHasher::new(), bytes.as_slice());
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                hasher.update(now);
                rest = later;
            }
            hasher.update(rest);
            let (content, list) = hasher.finish();
            prop_assert_eq!((content, list.unwrap()), hashed(&bytes));
            prop_assert_eq!(content, ContentHash::of(&bytes));
        }

        #[test]
        fn checked_groups_need_not_be_hashed_again(size in 0usize..6 * GROUP, plain in 0usize..6) {
            let bytes = bytes(size);
            let (content, list) = hashed(&bytes);
            let groups = Groups::from_list(&list, content, size as u64).unwrap();
            let mut hasher = GroupHasher::new();
            for (at, group) in bytes.chunks(GROUP).enumerate() {
                if at == plain {
                    hasher.update(group);
                } else {
                    hasher.add(&groups.verify((at * GROUP) as u64, group.to_vec()).unwrap());
                }
            }
            prop_assert_eq!(hasher.finish(), (content, Some(list)));
        }

        #[test]
        fn no_flipped_bit_passes(size in 1usize..5 * GROUP, at in any::<usize>(), bit in 0u8..8) {
            let mut bytes = bytes(size);
            let (content, mut list) = hashed(&bytes);
            let groups = Groups::from_list(&list, content, size as u64).unwrap();
            let at = at % size;
            bytes[at] ^= 1 << bit;
            for (index, group) in bytes.chunks(GROUP).enumerate() {
                let right = groups.verify((index * GROUP) as u64, group.to_vec()).is_some();
                prop_assert_eq!(right, index != at / GROUP);
            }
            if !list.is_empty() {
                let at = at % list.len();
                list[at] ^= 1 << bit;
                prop_assert!(Groups::from_list(&list, content, size as u64).is_err());
            }
        }
    }
}
