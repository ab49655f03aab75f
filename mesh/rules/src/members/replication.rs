//! How many copies artifacts have, and which regions lack some.

use std::collections::{BTreeMap, BTreeSet};

use super::keeper::missing_copies;
use super::placement::Candidate;
use crate::words::digest::Digest;
use crate::words::names::{NodeId, Region};

/// Where blobs are kept now.
pub struct Copies<'a> {
    /// The regions that have a replica, up or not.
    regions: BTreeSet<&'a Region>,
    /// The replicas that are up.
    up: &'a [Candidate],
    /// The regions that keep each blob, by what replicas said.
    places: BTreeMap<Digest, BTreeSet<&'a Region>>,
}

/// How many copies an artifact has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicated {
    /// So many regions keep each of its blobs.
    pub regions: usize,
    /// So many should.
    pub of: usize,
    /// The blobs that too few regions keep.
    pub short: BTreeSet<Digest>,
}

impl<'a> Copies<'a> {
    /// What follows from what each of `replicas` that answered keeps for good. `up` are those that
    /// could take copies.
    pub fn new(
        replicas: &'a [Candidate],
        up: &'a [Candidate],
        holdings: &BTreeMap<NodeId, BTreeSet<Digest>>,
    ) -> Self {
        let mut places: BTreeMap<Digest, BTreeSet<&Region>> = BTreeMap::new();
        for replica in replicas {
            for digest in holdings.get(&replica.id).into_iter().flatten() {
                places.entry(*digest).or_default().insert(&replica.region);
            }
        }
        Copies { regions: replicas.iter().map(|one| &one.region).collect(), up, places }
    }

    fn kept_in(&self, digest: &Digest) -> usize {
        self.places.get(digest).map_or(0, BTreeSet::len)
    }

    fn wanted(&self, durability: u32) -> usize {
        (durability as usize).min(self.regions.len())
    }

    /// Of an artifact with these blobs, in a project with that durability. One without blobs is
    /// wherever the ledger is.
    pub fn of(&self, blobs: &[Digest], durability: u32) -> Replicated {
        let of = self.wanted(durability);
        let short = blobs.iter().copied().filter(|digest| self.kept_in(digest) < of).collect();
        let least = blobs.iter().map(|digest| self.kept_in(digest)).min();
        Replicated { regions: least.unwrap_or(of), of, short }
    }

    /// The regions that lack a copy of this blob: where a repair would make one, and then those where
    /// no replica is up.
    pub fn lacking(&self, digest: &Digest, durability: u32) -> Vec<&'a Region> {
        let have = self.places.get(digest).cloned().unwrap_or_default();
        let (cached, wanted) = (BTreeSet::new(), self.wanted(durability));
        let kept = have.len();
        let well = BTreeMap::new();
        let to = missing_copies(digest, have.clone(), &cached, self.up, &well, wanted);
        let region = |node| self.up.iter().find(|one| one.id == node).map(|one| &one.region);
        let mut lacking: Vec<&Region> = to.into_iter().filter_map(region).collect();
        let left = wanted.saturating_sub(kept + lacking.len());
        let is_down = |region: &&&Region| !self.up.iter().any(|one| one.region == ***region);
        let down = self.regions.iter().filter(is_down).filter(|region| !have.contains(*region));
        lacking.extend(down.take(left));
        lacking
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::records::Role;

    fn replica(id: u64, region: &str) -> Candidate {
        Candidate { id: NodeId(id), region: region.parse().unwrap(), role: Role::Replica }
    }

    fn blob(n: u8) -> Digest {
        Digest::sha256(&[n])
    }

    #[test]
    fn an_artifact_is_replicated_as_its_scarcest_blob_is() {
        let replicas = [replica(1, "a"), replica(2, "a"), replica(3, "b"), replica(4, "c")];
        let holdings = [
            (NodeId(1), [blob(1), blob(2)].into()),
            (NodeId(2), [blob(1), blob(2)].into()),
            (NodeId(3), [blob(1)].into()),
            (NodeId(9), [blob(2)].into()),
        ]
        .into();
        // the third region is down
        let copies = Copies::new(&replicas, &replicas[..3], &holdings);
        let all = [blob(1), blob(2)];
        let found = copies.of(&all, 2);
        assert_eq!((found.regions, found.of, found.short), (1, 2, [blob(2)].into()));
        assert!(copies.of(&all[..1], 2).short.is_empty());
        assert_eq!(copies.of(&[blob(3)], 2).regions, 0, "nowhere");
        let three = copies.of(&all[..1], 5);
        assert_eq!((three.regions, three.of), (2, 3), "as many regions as there are");
        let index = copies.of(&[], 2);
        assert_eq!((index.regions, index.of), (2, 2));
        assert_eq!(copies.lacking(&blob(2), 2), [&replicas[2].region]);
        assert_eq!(copies.lacking(&blob(1), 3), [&replicas[3].region], "nobody there can take it");
        assert!(copies.lacking(&blob(1), 2).is_empty());
    }
}
