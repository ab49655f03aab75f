//! Which peers were caught sending wrong bytes. For a while they are asked last.
//!
//! They are asked last, not never: each of their groups is checked, so a liar that alone has a blob
//! can still give its right groups and no wrong one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::blobs::holding::Held;
use crate::words::digest::ContentHash;
use crate::words::moment::Moment;

/// How long a peer is asked last after it was caught.
pub const DEMOTED: Duration = Duration::from_secs(600);
/// How long a peer is reported after its last lie.
pub const REMEMBERED: Duration = Duration::from_secs(86_400);

/// What a peer was caught sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Lie {
    /// A wrong group of the blob.
    #[error("a group of the blob is wrong")]
    Group,
    /// A list of groups that does not hash to the content hash that came with it.
    #[error("the list of groups does not hash to the blob's content hash")]
    Outboard,
    /// A content hash that the ledger contradicts, or that the digest disproved.
    #[error("the content hash is not the blob's")]
    Binding,
    /// More or fewer bytes than the blob has.
    #[error("the length is not the blob's")]
    Length,
}

impl Lie {
    /// Its name in metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            Lie::Group => "group",
            Lie::Outboard => "outboard",
            Lie::Binding => "binding",
            Lie::Length => "length",
        }
    }
}

/// What is remembered of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
    /// The number of lies of each kind.
    pub lies: BTreeMap<Lie, u64>,
    /// When the last lie was found.
    pub last: Moment,
}

impl Caught {
    /// How long the peer is still asked last; zero if it no longer is.
    pub fn demoted_for(&self, now: Moment) -> Duration {
        DEMOTED.saturating_sub(now.since(self.last))
    }
}

/// What this node remembers of its peers. It is kept in memory only, so a restart forgets it.
#[derive(Clone, Debug)]
pub struct Reputation<N> {
    caught: BTreeMap<N, Caught>,
}

impl<N: Ord + Copy> Default for Reputation<N> {
    fn default() -> Self {
        Reputation { caught: BTreeMap::new() }
    }
}

impl<N: Ord + Copy> Reputation<N> {
    /// `peer` was caught lying.
    pub fn handle(&mut self, now: Moment, peer: N, lie: Lie) {
        self.caught.retain(|_, caught| now.since(caught.last) < REMEMBERED);
        let caught =
            self.caught.entry(peer).or_insert_with(|| Caught { lies: BTreeMap::new(), last: now });
        *caught.lies.entry(lie).or_default() += 1;
        caught.last = now;
    }

    /// Whether `peer` is asked last.
    pub fn demoted(&self, now: Moment, peer: &N) -> bool {
        self.caught.get(peer).is_some_and(|caught| !caught.demoted_for(now).is_zero())
    }

    /// Moves the peers that are asked last behind the others; the order is otherwise unchanged.
    pub fn order<T>(&self, now: Moment, sources: &mut [T], peer: impl Fn(&T) -> Option<N>) {
        sources.sort_by_key(|source| peer(source).is_some_and(|peer| self.demoted(now, &peer)));
    }

    /// The peers that were caught within the last day.
    pub fn caught(&self, now: Moment) -> impl Iterator<Item = (N, &Caught)> {
        self.caught
            .iter()
            .filter(move |(_, caught)| now.since(caught.last) < REMEMBERED)
            .map(|(peer, c)| (*peer, c))
    }
}

/// A blob's length, and its content hash if that is certain. This node's own copy decides;
/// otherwise the ledger's record; otherwise the nodes that hold the blob, if all agree. One node's
/// false word must not turn all others into liars. `None` if no node holds the blob.
pub fn what_it_is(
    own: Option<Held>,
    others: &[Held],
    recorded: Option<ContentHash>,
) -> Option<(u64, Option<ContentHash>)> {
    if let Some(own) = own {
        return Some((own.size, Some(own.content)));
    }
    let first = others.first()?;
    if let Some(as_recorded) = others.iter().find(|held| Some(held.content) == recorded) {
        return Some((as_recorded.size, recorded));
    }
    let agree = recorded.is_none() && others.iter().all(|held| held == first);
    Some((first.size, agree.then_some(first.content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_alone_does_not_say_what_a_blob_is_against_others() {
        let held = |size, content: &[u8]| Held { size, content: ContentHash::of(content) };
        let (honest, liar) = (held(5, b"hello"), held(5, b"other"));
        let (right, wrong) = (Some(honest.content), Some(liar.content));
        assert_eq!(what_it_is(None, &[], right), None);
        assert_eq!(
            what_it_is(Some(honest), &[liar, liar], wrong),
            Some((5, right)),
            "its own copy was hashed here"
        );
        assert_eq!(what_it_is(None, &[liar, honest], right), Some((5, right)), "as recorded");
        assert_eq!(what_it_is(None, &[honest, honest], None), Some((5, right)));
        assert_eq!(
            what_it_is(None, &[liar, honest], None),
            Some((5, None)),
            "who is right is not known"
        );
        assert_eq!(what_it_is(None, &[honest], wrong), Some((5, None)), "nor here");
    }

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    fn asked(reputation: &Reputation<u8>, now: Moment) -> Vec<u8> {
        let mut sources = vec![1, 2, 3];
        reputation.order(now, &mut sources, |peer| Some(*peer));
        sources
    }

    #[test]
    fn a_liar_is_asked_last_for_ten_minutes_and_still_asked() {
        let mut reputation = Reputation::default();
        assert_eq!(asked(&reputation, at(0)), [1, 2, 3]);
        reputation.handle(at(10), 1, Lie::Group);
        assert_eq!(asked(&reputation, at(10)), [2, 3, 1]);
        assert_eq!(asked(&reputation, at(609)), [2, 3, 1]);
        assert_eq!(asked(&reputation, at(610)), [1, 2, 3]);
    }

    #[test]
    fn lies_are_counted_and_forgotten_after_a_day_without_one() {
        let mut reputation = Reputation::default();
        for (second, lie) in [(0, Lie::Group), (5, Lie::Group), (7, Lie::Length)] {
            reputation.handle(at(second), 2, lie);
        }
        let (peer, caught) = reputation.caught(at(8)).next().unwrap();
        assert_eq!((peer, caught.last), (2, at(7)));
        assert_eq!(caught.lies, BTreeMap::from([(Lie::Group, 2), (Lie::Length, 1)]));
        assert_eq!(caught.demoted_for(at(8)), Duration::from_secs(599));
        assert_eq!(reputation.caught(at(7 + 86_400)).count(), 0);
        reputation.handle(at(100_000), 3, Lie::Outboard);
        assert_eq!(reputation.caught(at(100_000)).map(|(peer, _)| peer).collect::<Vec<_>>(), [3]);
    }
}
