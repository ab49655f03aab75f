//! A blob that many want at once: each of them passes it on to one or two others, so that no node
//! sends many copies.
//!
//! The first that asks is served here. The next is sent on to the first, the third to the second: a
//! chain, in which everyone sends what it receives while it still arrives, so that a link that
//! carries one copy a second carries it to all of them in little more than a second. A chain is not
//! longer than [`DEPTH`], because each link of it may break and adds a little to the first byte;
//! the next chain begins at the first member of the chains before it that none begins at yet. So
//! nobody sends more than two copies, and a thousand followers are four chains deep. Chains are
//! kept within one group of followers (a region), so that none of their links is longer than the
//! way from here.

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

/// The chains that begin at this node, and those that begin at their members, of blobs (`B`) to
/// groups (`G`) of followers (`N`).
#[derive(Clone, Debug)]
pub struct Fanout<B, G, N> {
    chains: BTreeMap<(B, G), Vec<Chain<N>>>,
}

#[derive(Clone, Debug)]
struct Chain<N> {
    /// Who serves its first; `None`: this node.
    head: Option<N>,
    /// Everyone follows the one before.
    members: Vec<N>,
}

impl<B, G, N> Default for Fanout<B, G, N> {
    fn default() -> Self {
        Fanout { chains: BTreeMap::new() }
    }
}

impl<B: Ord + Clone, G: Ord + Clone, N: Copy + PartialEq> Fanout<B, G, N> {
    /// `follower` asks for the whole of `blob`. Whom it is to follow serves it without sending it
    /// on again.
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

    /// `follower` could not go on with whom it was sent to, and is served here: nobody else is sent
    /// there.
    pub fn return_to_here(&mut self, blob: &B, group: &G, follower: N) {
        let chains = self.chains.entry((blob.clone(), group.clone())).or_default();
        forget(chains, follower, true);
        chains.push(Chain { head: None, members: vec![follower] });
    }

    /// What was served here to `follower` is over, well or badly. Its chain is forgotten: those in
    /// it hold the blob now, or find another source. With the last chain that begins here all that
    /// begin at members are forgotten, too.
    pub fn ended(&mut self, blob: &B, group: &G, follower: N) {
        let key = (blob.clone(), group.clone());
        if let Some(chains) = self.chains.get_mut(&key) {
            chains.retain(|chain| chain.head.is_some() || chain.members.first() != Some(&follower));
            if chains.iter().all(|chain| chain.head.is_some()) {
                self.chains.remove(&key);
            }
        }
    }

    /// To how many followers how many blobs are being served from here: 0 when nothing is.
    pub fn served_here(&self) -> usize {
        self.chains.values().flatten().filter(|chain| chain.head.is_none()).count()
    }
}

/// Forgets `follower`, and with `before` also whom it follows; and then everyone who follows,
/// however indirectly, somebody who is forgotten: they go on as they are, but nobody is sent to
/// them any more. So no ring can come about.
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
