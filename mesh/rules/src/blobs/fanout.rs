//! A blob that many nodes want at once. Each node passes it on to one or two others, so that no
//! node sends many copies.
//!
//! The first node that asks is served here. The next one is referred to the first, the third to the
//! second, and so on. In this chain each node sends what it receives while the rest still arrives,
//! so a link that carries one copy per second serves the whole chain in little more than a second.
//! A chain has at most [`DEPTH`] members, because each step may break and adds a little to the time
//! of the first byte. The next chain begins at the first member of the earlier chains at which no
//! chain begins yet. So no node sends more than two copies, and a thousand followers need chains
//! four deep. A chain stays within one group of followers (a region), so none of its steps is
//! longer than the way from this node.

use std::collections::BTreeMap;

/// The maximum number of followers in one chain.
pub const DEPTH: usize = 16;

/// From whom a follower gets the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<N> {
    /// From this node. Call [`Fanout::ended`] when the transfer is over.
    Here,
    /// From this follower, which asked earlier.
    Follow(N),
}

/// For blobs (`B`) and groups (`G`) of followers (`N`): the chains that begin at this node, and
/// those that begin at members of other chains.
#[derive(Clone, Debug)]
pub struct Fanout<B, G, N> {
    chains: BTreeMap<(B, G), Vec<Chain<N>>>,
}

#[derive(Clone, Debug)]
struct Chain<N> {
    /// The node that serves the first member; `None` for this node.
    head: Option<N>,
    /// Each member follows the one before it.
    members: Vec<N>,
}

impl<B, G, N> Default for Fanout<B, G, N> {
    fn default() -> Self {
        Fanout { chains: BTreeMap::new() }
    }
}

impl<B: Ord + Clone, G: Ord + Clone, N: Copy + PartialEq> Fanout<B, G, N> {
    /// `follower` asks for the whole of `blob`. The node that it is referred to serves it, and does
    /// not refer it again.
    pub fn place(&mut self, blob: &B, group: &G, follower: N) -> Place<N> {
        let chains = self.chains.entry((blob.clone(), group.clone())).or_default();
        forget(chains, follower, false);
        let open = chains
            .iter_mut()
            .filter(|chain| chain.members.len() < DEPTH)
            .min_by_key(|c| c.members.len());
        if let Some(chain) = open
            && let Some(last) = chain.members.last().copied()
        {
            chain.members.push(follower);
            return Place::Follow(last);
        }
        let heads = |member: &N| chains.iter().any(|chain| chain.head == Some(*member));
        let head =
            chains.iter().flat_map(|chain| &chain.members).find(|member| !heads(member)).copied();
        chains.push(Chain { head, members: vec![follower] });
        head.map_or(Place::Here, Place::Follow)
    }

    /// `follower` got no further with the node that it was referred to, and is now served here. No
    /// other node is referred to that node.
    pub fn return_to_here(&mut self, blob: &B, group: &G, follower: N) {
        let chains = self.chains.entry((blob.clone(), group.clone())).or_default();
        forget(chains, follower, true);
        chains.push(Chain { head: None, members: vec![follower] });
    }

    /// The transfer from here to `follower` is over, whether it succeeded or not. Its chain is
    /// forgotten: the members hold the blob by now, or find another source. When the last chain
    /// that begins here has ended, the chains that begin at members are forgotten, too.
    pub fn ended(&mut self, blob: &B, group: &G, follower: N) {
        let key = (blob.clone(), group.clone());
        if let Some(chains) = self.chains.get_mut(&key) {
            chains.retain(|chain| chain.head.is_some() || chain.members.first() != Some(&follower));
            if chains.iter().all(|chain| chain.head.is_some()) {
                self.chains.remove(&key);
            }
        }
    }

    /// The number of transfers from this node that have not ended, over all blobs.
    pub fn served_here(&self) -> usize {
        self.chains.values().flatten().filter(|chain| chain.head.is_none()).count()
    }
}

/// Forgets `follower`, and with `before` also the node that it follows. Then forgets every node
/// that follows a forgotten one, directly or indirectly. Their transfers continue, but no other
/// node is referred to them any more. So no ring can form.
fn forget<N: Copy + PartialEq>(chains: &mut Vec<Chain<N>>, follower: N, before: bool) {
    let place = chains.iter().find_map(|chain| {
        let at = chain.members.iter().position(|member| *member == follower)?;
        Some(if at == 0 { chain.head } else { Some(chain.members[at - 1]) })
    });
    let mut gone = vec![follower];
    gone.extend(place.flatten().filter(|_| before));
    while let Some(lost) = gone.pop() {
        for chain in chains.iter_mut() {
            let from = match chain.members.iter().position(|member| *member == lost) {
                Some(at) => at,
                None if chain.head == Some(lost) => 0,
                None => continue,
            };
            gone.extend(chain.members.drain(from..).filter(|member| *member != lost));
        }
    }
    chains.retain(|chain| !chain.members.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(fanout: &mut Fanout<char, u8, u8>, follower: u8) -> Place<u8> {
        fanout.place(&'a', &0, follower)
    }

    #[test]
    fn each_follows_the_one_before_and_the_next_chain_begins_at_the_first_of_the_last() {
        let mut fanout = Fanout::default();
        assert_eq!(place(&mut fanout, 0), Place::Here);
        for follower in 1..16 {
            assert_eq!(place(&mut fanout, follower), Place::Follow(follower - 1));
        }
        assert_eq!(place(&mut fanout, 16), Place::Follow(0));
        assert_eq!(place(&mut fanout, 17), Place::Follow(16));
        for follower in 18..32 {
            place(&mut fanout, follower);
        }
        assert_eq!(place(&mut fanout, 32), Place::Follow(1));
        assert_eq!(fanout.served_here(), 1);
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
    fn a_head_that_could_not_be_followed_is_named_no_more() {
        let mut fanout = Fanout::default();
        for follower in 0..17 {
            place(&mut fanout, follower);
        }
        fanout.return_to_here(&'a', &0, 16);
        assert_eq!(fanout.served_here(), 1, "the chain behind the head is forgotten with it");
        for follower in 20..90 {
            assert_ne!(place(&mut fanout, follower), Place::Follow(0));
        }
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let mut fanout = Fanout::default();
        place(&mut fanout, 0);
        place(&mut fanout, 1);
        fanout.ended(&'a', &0, 1);
        assert_eq!(place(&mut fanout, 2), Place::Follow(1), "only who is served here ends here");
        fanout.ended(&'a', &0, 0);
        assert_eq!(fanout.served_here(), 0);
        assert_eq!(place(&mut fanout, 3), Place::Here);
    }

    proptest! {
        #[test]
        fn nobody_follows_itself_or_a_ring_and_few_are_served_here(asks in proptest::collection::vec((0u8..40, 0u8..10), 1..200)) {
            let mut fanout = Fanout::default();
            // the node that each follower follows now; one that is missing is served here
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
        fn of_so_many_at_once_one_is_served_here_and_nobody_sends_more_than_two_copies(followers in 1usize..1500) {
            let mut fanout = Fanout::<char, u8, usize>::default();
            let mut sends: BTreeMap<usize, usize> = BTreeMap::new();
            let mut depth: BTreeMap<usize, usize> = BTreeMap::new();
            for follower in 0..followers {
                let before = match fanout.place(&'a', &0, follower) {
                    Place::Here => {
                        prop_assert_eq!(follower, 0);
                        0
                    }
                    Place::Follow(node) => {
                        *sends.entry(node).or_default() += 1;
                        depth[&node]
                    }
                };
                depth.insert(follower, before + 1);
            }
            prop_assert!(sends.values().all(|copies| *copies <= 2));
            prop_assert!(depth.values().all(|deep| *deep <= 4 * DEPTH));
            prop_assert!(depth.values().take(DEPTH).all(|deep| *deep <= DEPTH));
            fanout.ended(&'a', &0, 0);
            prop_assert_eq!(fanout.served_here(), 0);
        }
    }
}
