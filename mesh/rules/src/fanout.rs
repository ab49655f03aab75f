//! A blob that many want at once: each of them passes it on to one other, so that no node sends many copies.
//!
//! The first that asks is served here. The next is sent on to the first, the third to the second: a chain, in which everyone sends what it receives while it
//! still arrives. A chain is not longer than [`DEPTH`], because each link of it may break and adds a little to the first byte; then another begins here.
//! Chains are kept within one group of followers (a region), so that none of their links is longer than the way from here.

use std::collections::BTreeMap;

/// The most followers of one chain.
pub const DEPTH: usize = 16;

/// Where a follower gets the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<N> {
    /// Here; say [`Fanout::ended`] when that is over.
    Here,
    /// From this one, who asked before.
    Follow(N),
}

/// The chains that begin at this node, of blobs (`B`) to groups (`G`) of followers (`N`).
#[derive(Clone, Debug)]
pub struct Fanout<B, G, N> {
    /// The first of each chain is served here; everyone else follows the one before.
    chains: BTreeMap<(B, G), Vec<Vec<N>>>,
}

impl<B, G, N> Default for Fanout<B, G, N> {
    fn default() -> Self {
        Fanout { chains: BTreeMap::new() }
    }
}

impl<B: Ord + Clone, G: Ord + Clone, N: Copy + PartialEq> Fanout<B, G, N> {
    /// `follower` asks for the whole of `blob`.
    pub fn place(&mut self, blob: &B, group: &G, follower: N) -> Place<N> {
        let chains = self.chains.entry((blob.clone(), group.clone())).or_default();
        forget(chains, follower, 0);
        let open = chains.iter_mut().filter(|chain| chain.len() < DEPTH).min_by_key(|chain| chain.len());
        if let Some(chain) = open
            && let Some(last) = chain.last().copied()
        {
            chain.push(follower);
            return Place::Follow(last);
        }
        chains.push(vec![follower]);
        Place::Here
    }

    /// `follower` could not go on with whom it was sent to, and is served here: nobody else is sent there.
    pub fn return_to_here(&mut self, blob: &B, group: &G, follower: N) {
        let chains = self.chains.entry((blob.clone(), group.clone())).or_default();
        forget(chains, follower, 1);
        chains.push(vec![follower]);
    }

    /// What was served here to `follower` is over, well or badly. Its chain is forgotten: those in it hold the blob now, or find another source.
    pub fn ended(&mut self, blob: &B, group: &G, follower: N) {
        let key = (blob.clone(), group.clone());
        if let Some(chains) = self.chains.get_mut(&key) {
            chains.retain(|chain| chain.first() != Some(&follower));
            if chains.is_empty() {
                self.chains.remove(&key);
            }
        }
    }

    /// How many blobs are being served to how many chains: 0 when nothing is.
    pub fn chains(&self) -> usize {
        self.chains.values().map(Vec::len).sum()
    }
}

/// Cuts the chain that `follower` is in before it, and so many links before that.
fn forget<N: PartialEq>(chains: &mut Vec<Vec<N>>, follower: N, before: usize) {
    for chain in chains.iter_mut() {
        if let Some(at) = chain.iter().position(|member| *member == follower) {
            chain.truncate(at.saturating_sub(before));
        }
    }
    chains.retain(|chain| !chain.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(fanout: &mut Fanout<char, u8, u8>, follower: u8) -> Place<u8> {
        fanout.place(&'a', &0, follower)
    }

    #[test]
    fn each_follows_the_one_before_until_the_chain_is_long() {
        let mut fanout = Fanout::default();
        assert_eq!(place(&mut fanout, 0), Place::Here);
        for follower in 1..16 {
            assert_eq!(place(&mut fanout, follower), Place::Follow(follower - 1));
        }
        assert_eq!(place(&mut fanout, 16), Place::Here);
        assert_eq!(place(&mut fanout, 17), Place::Follow(16));
        assert_eq!(fanout.place(&'b', &0, 9), Place::Here, "another blob");
        assert_eq!(fanout.place(&'a', &1, 9), Place::Here, "another region");
    }

    #[test]
    fn who_comes_back_is_served_here_and_nobody_is_sent_to_whom_it_could_not_follow() {
        let mut fanout = Fanout::default();
        for follower in 0..4 {
            place(&mut fanout, follower);
        }
        fanout.return_to_here(&'a', &0, 3);
        assert_eq!(place(&mut fanout, 4), Place::Follow(3), "the shorter chain");
        assert_eq!(place(&mut fanout, 5), Place::Follow(1));
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let mut fanout = Fanout::default();
        place(&mut fanout, 0);
        place(&mut fanout, 1);
        fanout.ended(&'a', &0, 1);
        assert_eq!(place(&mut fanout, 2), Place::Follow(1), "only who is served here ends here");
        fanout.ended(&'a', &0, 0);
        assert_eq!(fanout.chains(), 0);
        assert_eq!(place(&mut fanout, 3), Place::Here);
    }

    proptest! {
        #[test]
        fn nobody_follows_itself_or_a_ring_and_few_are_served_here(asks in proptest::collection::vec((0u8..40, 0u8..10), 1..200)) {
            let mut fanout = Fanout::default();
            // whom each follows now; who is not in it is served here
            let mut follows: BTreeMap<u8, u8> = BTreeMap::new();
            for (follower, what) in asks {
                follows.remove(&follower);
                match what {
                    0 => fanout.ended(&'a', &0, follower),
                    1 => fanout.return_to_here(&'a', &0, follower),
                    _ => if let Place::Follow(node) = place(&mut fanout, follower) {
                        follows.insert(follower, node);
                        let (mut at, mut depth) = (node, 1);
                        while let Some(next) = follows.get(&at) {
                            (at, depth) = (*next, depth + 1);
                            prop_assert!(depth <= 40, "a ring");
                        }
                        prop_assert!(at != follower);
                    }
                }
            }
        }

        #[test]
        fn so_many_at_once_cost_so_few_copies(followers in 1u8..100) {
            let mut fanout = Fanout::default();
            let here = (0..followers).filter(|f| place(&mut fanout, *f) == Place::Here).count();
            prop_assert_eq!(here, usize::from(followers).div_ceil(DEPTH));
            prop_assert_eq!(fanout.chains(), here);
            (0..followers).for_each(|f| fanout.ended(&'a', &0, f));
            prop_assert_eq!(fanout.chains(), 0);
        }
    }
}
