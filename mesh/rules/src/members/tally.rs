//! Whether replicas keep what the ledger says that they keep, without naming each blob.
//!
//! The ledger has, of each blob, which replicas keep it ([`BlobRecord::kept_by`]). A project's blobs
//! are divided into [shards](Shards). The primary sums up, of each shard, what the ledger says of a
//! replica; the replica sums up what of that it keeps. Where the two sums are equal, the ledger is
//! right about that replica, and no blob of the shard has to be asked for by its name: ten million
//! blobs cost 4,096 sums of each replica.
//!
//! A blob counts as often as repositories refer to it, on both sides. The salt is new each time, so
//! nobody can push blobs that hide each other.
//!
//! [`BlobRecord::kept_by`]: crate::ledger::records::BlobRecord::kept_by

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::words::digest::Digest;
use crate::words::names::NodeId;

/// How many blobs a shard should have: so many are asked for by name if one of them is wrong.
const IN_A_SHARD: u64 = 512;

/// The maximum number of bits of a shard's number.
const MAX_BITS: u8 = 12;

/// How a project's blobs are divided, and what their sums are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shards {
    /// Random bytes, for one comparison.
    salt: [u8; 32],
    /// There are as many shards as this power of two.
    bits: u8,
}

impl Shards {
    /// Shards for about so many blobs.
    pub fn new(salt: [u8; 32], blobs: u64) -> Self {
        let shards = (blobs / IN_A_SHARD).max(1);
        let bits = u64::BITS - (shards - 1).leading_zeros();
        Shards { salt, bits: (bits as u8).min(MAX_BITS) }
    }

    /// Their number; `None` if there are more than anybody should ask for.
    pub fn count(&self) -> Option<usize> {
        (self.bits <= MAX_BITS).then(|| 1 << self.bits)
    }

    /// The shard of a blob, and what it adds to the shard's sum.
    fn of(&self, digest: &Digest) -> (usize, u128) {
        let mut hasher = blake3::Hasher::new_keyed(&self.salt);
        hasher.update(digest.algorithm().name().as_bytes()).update(digest.as_bytes());
        let hash = hasher.finalize();
        let (shard, summand) = hash.as_bytes().split_at(16);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
        ((number(shard) % (1 << self.bits.min(MAX_BITS))) as usize, number(summand))
    }

    /// The shard of a blob.
    pub fn shard_of(&self, digest: &Digest) -> usize {
        self.of(digest).0
    }
}

/// The sums of one replica, a number for each shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally(Vec<u128>);

impl Tally {
    /// Of nothing.
    pub fn new(shards: &Shards) -> Self {
        Tally(vec![0; shards.count().unwrap_or_default()])
    }

    /// Adds a blob.
    pub fn add(&mut self, shards: &Shards, digest: &Digest) {
        let (shard, summand) = shards.of(digest);
        if let Some(sum) = self.0.get_mut(shard) {
            *sum = sum.wrapping_add(summand);
        }
    }
}

/// What the ledger says of each replica.
#[derive(Clone, Debug)]
pub struct Recorded {
    shards: Shards,
    tallies: BTreeMap<NodeId, Tally>,
}

impl Recorded {
    /// Of no blob.
    pub fn new(shards: Shards) -> Self {
        Recorded { shards, tallies: BTreeMap::new() }
    }

    /// The ledger says that `kept_by` keep this blob.
    pub fn add(&mut self, digest: &Digest, kept_by: &[NodeId]) {
        let once: BTreeSet<NodeId> = kept_by.iter().copied().collect();
        for node in once {
            let new = || Tally::new(&self.shards);
            self.tallies.entry(node).or_insert_with(new).add(&self.shards, digest);
        }
    }

    /// The shards in which some of `replicas` does not keep what the ledger says. One that did not
    /// answer may lack anything.
    pub fn doubtful(
        &self,
        replicas: &[NodeId],
        answers: &BTreeMap<NodeId, Tally>,
    ) -> BTreeSet<usize> {
        let count = self.shards.count().unwrap_or_default();
        let nothing = Tally::new(&self.shards);
        let wrong = |shard: &usize| {
            replicas.iter().any(|node| {
                let recorded = self.tallies.get(node).unwrap_or(&nothing);
                let said = answers.get(node).and_then(|tally| tally.0.get(*shard));
                said != recorded.0.get(*shard)
            })
        };
        (0..count).filter(wrong).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: [u8; 32] = [7; 32];

    fn blobs(count: u32) -> Vec<Digest> {
        (0..count).map(|n| Digest::sha256(&n.to_be_bytes())).collect()
    }

    /// What `node` answers if it keeps all but the blobs in `lost`.
    fn answer(
        shards: &Shards,
        recorded: &[(Digest, Vec<NodeId>)],
        node: NodeId,
        lost: &[Digest],
    ) -> Tally {
        let mut tally = Tally::new(shards);
        for (digest, kept_by) in recorded {
            if kept_by.contains(&node) && !lost.contains(digest) {
                tally.add(shards, digest);
            }
        }
        tally
    }

    #[test]
    fn there_are_as_many_shards_as_blobs_make_worth_while() {
        let count = |blobs| Shards::new(SALT, blobs).count();
        assert_eq!([0, 1, 1000].map(count), [Some(1); 3]);
        assert_eq!(count(1024), Some(2));
        assert_eq!(count(100_000), Some(256));
        assert_eq!([10_000_000, u64::MAX].map(count), [Some(4096); 2]);
        let all: BTreeSet<usize> =
            blobs(1000).iter().map(|d| Shards::new(SALT, 5120).shard_of(d)).collect();
        assert_eq!(all, (0..16).collect());
    }

    #[test]
    fn a_blob_that_a_replica_lacks_puts_its_shard_in_doubt_and_no_other() {
        let shards = Shards::new(SALT, 20_000);
        let (one, two) = (NodeId(1), NodeId(2));
        let recorded: Vec<(Digest, Vec<NodeId>)> = blobs(2000)
            .into_iter()
            .enumerate()
            .map(|(at, digest)| (digest, if at % 2 == 0 { vec![one, two] } else { vec![one] }))
            .collect();
        let mut sums = Recorded::new(shards);
        for (digest, kept_by) in &recorded {
            sums.add(digest, kept_by);
        }
        let answers = |lost: &[Digest]| {
            BTreeMap::from([one, two].map(|node| (node, answer(&shards, &recorded, node, lost))))
        };
        assert!(sums.doubtful(&[one, two], &answers(&[])).is_empty());
        let lost = recorded[4].0;
        let doubtful = sums.doubtful(&[one, two], &answers(&[lost]));
        assert_eq!(doubtful, [shards.shard_of(&lost)].into());
        // a replica of which the ledger says nothing keeps nothing that counts
        let three = NodeId(3);
        let mut more = answers(&[]);
        more.insert(three, Tally::new(&shards));
        assert!(sums.doubtful(&[one, two, three], &more).is_empty());
    }

    #[test]
    fn silence_and_nonsense_put_everything_in_doubt() {
        let shards = Shards::new(SALT, 2000);
        let mut sums = Recorded::new(shards);
        let one = NodeId(1);
        blobs(100).iter().for_each(|digest| sums.add(digest, &[one, one]));
        assert_eq!(sums.doubtful(&[one], &BTreeMap::new()).len(), 4, "no answer");
        let nonsense = BTreeMap::from([(one, Tally(vec![1; 9]))]);
        assert_eq!(sums.doubtful(&[one], &nonsense).len(), 4);
        let short = BTreeMap::from([(one, Tally(Vec::new()))]);
        assert_eq!(sums.doubtful(&[one], &short).len(), 4, "too few sums");
        // a node twice in the record counts once
        let mut tally = Tally::new(&shards);
        blobs(100).iter().for_each(|digest| tally.add(&shards, digest));
        assert!(sums.doubtful(&[one], &[(one, tally)].into()).is_empty());
        let greedy = Shards { bits: 60, ..shards };
        assert_eq!((greedy.count(), Tally::new(&greedy)), (None, Tally(Vec::new())));
    }

    #[test]
    fn blobs_that_hide_each_other_under_one_salt_do_not_under_another() {
        let with = |salt| {
            let shards = Shards::new(salt, 0);
            let mut tally = Tally::new(&shards);
            tally.add(&shards, &Digest::sha256(b"blob"));
            tally
        };
        assert_ne!(with([1; 32]), with([2; 32]));
    }
}
