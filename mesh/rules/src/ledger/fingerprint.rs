//! Whether replicas have the same records: a hash of all records that is kept up to date with each
//! of them, and what follows from comparing it.
//!
//! The log is the same everywhere and `apply` is deterministic, so replicas that have applied the
//! same entry have the same records. If a fault has made them differ, nothing else would notice.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::words::names::NodeId;

/// A hash of a set of records: the sum of the records' hashes, so that adding or taking one costs
/// no more than that record. It finds faults; it is not made against who chooses records on purpose
/// (replicas are trusted with the ledger anyway).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint([u64; 4]);

impl Fingerprint {
    /// A record is there now.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let lanes = self.0.iter_mut().zip(lanes(key, value));
        lanes.for_each(|(sum, lane)| *sum = sum.wrapping_add(lane));
    }

    /// A record that was there is gone.
    pub fn take(&mut self, key: &[u8], value: &[u8]) {
        let lanes = self.0.iter_mut().zip(lanes(key, value));
        lanes.for_each(|(sum, lane)| *sum = sum.wrapping_sub(lane));
    }

    /// The records of another set are there now, too.
    pub fn join(&mut self, other: &Fingerprint) {
        let lanes = self.0.iter_mut().zip(other.0);
        lanes.for_each(|(sum, lane)| *sum = sum.wrapping_add(lane));
    }
}

fn lanes(key: &[u8], value: &[u8]) -> [u64; 4] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    let hash = hasher.finalize();
    let mut lanes = [0; 4];
    for (lane, bytes) in lanes.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
        *lane = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    }
    lanes
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|lane| write!(f, "{lane:016x}"))
    }
}

/// What follows from comparing the replicas' records at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This node has what counts. The named replicas have something else.
    Same(BTreeSet<NodeId>),
    /// This node has something else than what counts. The named replicas have that.
    Differs(BTreeSet<NodeId>),
    /// Too few have answered to say what counts. Of those that have, these differ from this node.
    Unknown(BTreeSet<NodeId>),
}

/// Judges this node's records, `mine`, by what the other replicas `said` of theirs at the same
/// revision. What more than half of the voters have counts. If all voters have answered and no
/// such majority has the same, the leader's records count: readers without a lease were answered
/// from them.
pub fn judge(
    me: NodeId,
    mine: Fingerprint,
    said: &BTreeMap<NodeId, Fingerprint>,
    voters: &BTreeSet<NodeId>,
    leader: Option<NodeId>,
) -> Verdict {
    let mut all = said.clone();
    all.insert(me, mine);
    let with = |wanted: Fingerprint| -> BTreeSet<NodeId> {
        all.iter().filter(|(_, has)| **has == wanted).map(|(node, _)| *node).collect()
    };
    let without = |wanted: Fingerprint| -> BTreeSet<NodeId> {
        all.iter().filter(|(_, has)| **has != wanted).map(|(node, _)| *node).collect()
    };
    let is_majoritys =
        |wanted: &Fingerprint| with(*wanted).intersection(voters).count() * 2 > voters.len();
    let majoritys = all.values().copied().find(is_majoritys);
    let all_have_said = voters.iter().all(|voter| all.contains_key(voter));
    let leaders = || leader.filter(|_| all_have_said).and_then(|leader| all.get(&leader).copied());
    match majoritys.or_else(leaders) {
        Some(counts) if counts == mine => Verdict::Same(without(mine)),
        Some(counts) => Verdict::Differs(with(counts)),
        None => Verdict::Unknown(without(mine)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(records: &[(&[u8], &[u8])]) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        records.iter().for_each(|(key, value)| fingerprint.add(key, value));
        fingerprint
    }

    #[test]
    fn it_depends_on_the_records_and_not_on_how_they_came_to_be() {
        let (a, b) = ((&b"ta"[..], &b"1"[..]), (&b"tb"[..], &b"2"[..]));
        assert_eq!(of(&[a, b]), of(&[b, a]));
        assert_ne!(of(&[a, b]), of(&[a]));
        assert_ne!(of(&[(b"ta", b"1")]), of(&[(b"t", b"a1")]), "where a key ends counts");
        assert_ne!(of(&[(b"ta", b"1"), (b"tb", b"2")]), of(&[(b"ta", b"2"), (b"tb", b"1")]));
        let mut changed = of(&[a, b]);
        changed.take(a.0, a.1);
        assert_eq!(changed, of(&[b]));
        changed.take(b.0, b.1);
        assert_eq!(changed, Fingerprint::default());
    }

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    fn judged(mine: u64, said: &[(u64, u64)], voters: &[u64], leader: Option<u64>) -> Verdict {
        let print = |number: u64| Fingerprint([number; 4]);
        let said = said.iter().map(|(node, number)| (NodeId(*node), print(*number))).collect();
        judge(NodeId(1), print(mine), &said, &nodes(voters), leader.map(NodeId))
    }

    #[test]
    fn what_most_voters_have_counts() {
        let three = [1, 2, 3];
        assert_eq!(judged(7, &[(2, 7), (3, 7)], &three, None), Verdict::Same(nodes(&[])));
        assert_eq!(judged(7, &[(2, 7), (3, 8)], &three, Some(3)), Verdict::Same(nodes(&[3])));
        assert_eq!(judged(7, &[(2, 8), (3, 8)], &three, Some(1)), Verdict::Differs(nodes(&[2, 3])));
        assert_eq!(judged(7, &[(2, 7)], &three, None), Verdict::Same(nodes(&[])));
        // followers that do not vote are judged, and do not judge
        let (many, voters) = ([(2, 8), (4, 7), (5, 7)], [2, 3, 6]);
        assert_eq!(judged(7, &many, &voters, Some(2)), Verdict::Unknown(nodes(&[2])));
        assert_eq!(judged(7, &[(2, 8), (3, 8)], &voters, None), Verdict::Differs(nodes(&[2, 3])));
        assert_eq!(judged(7, &[], &[1], Some(1)), Verdict::Same(nodes(&[])), "alone");
    }

    #[test]
    fn without_a_majority_the_leaders_records_count_once_all_have_said() {
        let three = [1, 2, 3];
        assert_eq!(judged(7, &[(2, 8), (3, 9)], &three, Some(1)), Verdict::Same(nodes(&[2, 3])));
        assert_eq!(judged(7, &[(2, 8), (3, 9)], &three, Some(3)), Verdict::Differs(nodes(&[3])));
        assert_eq!(judged(7, &[(2, 8), (3, 9)], &three, None), Verdict::Unknown(nodes(&[2, 3])));
        assert_eq!(judged(7, &[(2, 8)], &three, Some(2)), Verdict::Unknown(nodes(&[2])));
        assert_eq!(judged(7, &[(2, 8)], &[1, 2], Some(2)), Verdict::Differs(nodes(&[2])));
    }
}
