//! One blob on its way to this node: whom to ask next, from which byte on, what to believe, and when to give up.
//!
//! Sources are tried in the order given. One that breaks off is replaced by the next from the exact byte reached; bytes that arrived forgive earlier
//! failures, so a long blob survives many breaks, while sources that give nothing are given up after two rounds.
//!
//! Once the list of the blob's groups is known, only whole groups that were checked count as arrived, whoever sends them. A source that is caught
//! at a lie is not asked again in this flight. Without a list (the first source is itself still filling from an upstream) the bytes count as they come, and the
//! digest decides at the end.

use crate::digest::ContentHash;
use crate::groups::{Checked, Groups};
use crate::reputation::Lie;

/// Where a flight's bytes may come from (`S`: nodes, an upstream), and how it stands.
#[derive(Clone)]
pub struct Flight<S> {
    sources: Vec<S>,
    shunned: Vec<S>,
    /// Of those, whose only lie was a wrong group, and where that begins.
    damaged: Vec<(S, u64)>,
    next: usize,
    fruitless: usize,
    offset: u64,
    size: Option<u64>,
    bound: Option<Bound>,
    groups: Option<Groups>,
    group: Vec<u8>,
    vouching: Vec<Voucher<S>>,
    /// The present source names the content hash.
    knows: bool,
    restarted: bool,
}

/// A source on whose word alone some of the bytes were taken.
#[derive(Clone)]
struct Voucher<S> {
    source: S,
    /// It named the content hash: asked again it can be held to a list.
    knows: bool,
    /// It broke off after some of its bytes.
    broke_off: bool,
}

/// What the ledger knows of the blob, from a node that has hashed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its content hash.
    pub content: ContentHash,
    /// Its length in bytes.
    pub size: u64,
}

/// What a source says of the blob before it sends bytes.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The whole blob's length in bytes.
    pub size: u64,
    /// Its content hash; `None` while the source does not know it itself.
    pub content: Option<ContentHash>,
    /// The list of its groups, if it was asked for and the blob has one.
    pub list: Option<Vec<u8>>,
}

/// What to make of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Take its bytes.
    Believed,
    /// It contradicts what another said, and who is right is not known: take the next, by [`Flight::handle_failure`].
    Contradicted,
    /// It contradicts the ledger, or itself: shun it, by [`Flight::handle_lie`].
    Lied(Lie),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<S> {
    /// Ask this source for the bytes from `offset` on.
    Ask {
        /// The source.
        source: S,
        /// First byte wanted.
        offset: u64,
    },
    /// All bytes are here: check them.
    Check,
    /// No source gives anything.
    GiveUp,
}

impl<S: Clone + PartialEq> Flight<S> {
    /// A flight with nothing yet, of a blob that the ledger may know.
    pub fn new(sources: Vec<S>, bound: Option<Bound>) -> Self {
        Flight {
            sources,
            shunned: Vec::new(),
            damaged: Vec::new(),
            next: 0,
            fruitless: 0,
            offset: 0,
            size: None,
            bound,
            groups: None,
            group: Vec::new(),
            vouching: Vec::new(),
            knows: false,
            restarted: false,
        }
    }

    /// What to do next.
    pub fn step(&self) -> Step<S> {
        if self.size == Some(self.offset) {
            return Step::Check;
        }
        if self.sources.is_empty() || self.fruitless >= self.sources.len() * 2 {
            return Step::GiveUp;
        }
        Step::Ask { source: self.sources[self.next % self.sources.len()].clone(), offset: self.offset }
    }

    /// Goes on from where it is with these sources instead. The caller leaves out whom it shuns.
    pub fn turn_to(&mut self, sources: Vec<S>) {
        self.sources = sources;
        (self.next, self.fruitless) = (0, 0);
    }

    /// Who lied, and is not to be asked again for this blob now.
    pub fn shunned(&self) -> &[S] {
        &self.shunned
    }

    /// Whether the next source is to send the list of groups: there is none that the ledger vouches for, and no bytes stand in its way yet.
    pub fn wants_list(&self) -> bool {
        self.offset == 0 && (self.groups.is_none() || self.bound.is_none())
    }

    /// The groups that all bytes are checked with, if they are.
    pub fn groups(&self) -> Option<&Groups> {
        self.groups.as_ref()
    }

    /// The source says what the blob is. If it is believed and the list is known from now on, bytes go to [`Flight::handle_bytes`], else to
    /// [`Flight::handle_unchecked`].
    pub fn handle_claim(&mut self, claim: &Claim) -> Judgement {
        self.group.clear();
        self.knows = claim.content.is_some();
        if self.offset == 0 && self.bound.is_none() {
            // an earlier word that no byte followed binds nobody
            (self.groups, self.size) = (None, None);
            self.vouching.clear();
        }
        if let (Some(bound), Some(content)) = (self.bound, claim.content) {
            if content != bound.content {
                return Judgement::Lied(Lie::Binding);
            }
            if claim.size != bound.size {
                return Judgement::Lied(Lie::Length);
            }
        }
        let size = self.bound.map(|bound| bound.size).or(self.size);
        let content = self.groups.as_ref().map(Groups::content);
        let same = size.is_none_or(|size| size == claim.size)
            && claim.content.is_none_or(|said| content.is_none_or(|content| said == content));
        if !same || claim.size < self.offset {
            return Judgement::Contradicted;
        }
        if let (true, Some(content)) = (self.wants_list(), claim.content)
            && Groups::checkable(claim.size)
        {
            let Ok(groups) = Groups::from_list(claim.list.as_deref().unwrap_or_default(), content, claim.size) else {
                return Judgement::Lied(Lie::Outboard);
            };
            self.groups = Some(groups);
            if self.bound.is_none() {
                self.vouch();
            }
        }
        self.size = Some(claim.size);
        Judgement::Believed
    }

    /// Bytes arrived, and groups may be whole with them: those that are right are added to `checked`. At a lie the right ones before it still count.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], checked: &mut Vec<Checked>) -> Result<(), Lie> {
        let Some(groups) = &self.groups else { return Err(Lie::Outboard) };
        while !bytes.is_empty() {
            let length = groups.length_at(self.offset);
            let (now, later) = bytes.split_at(bytes.len().min(length - self.group.len()));
            if now.is_empty() {
                return Err(Lie::Length);
            }
            if self.group.capacity() < length {
                self.group.reserve_exact(length - self.group.len());
            }
            self.group.extend_from_slice(now);
            bytes = later;
            if self.group.len() == length {
                let group = groups.verify(self.offset, std::mem::take(&mut self.group)).ok_or(Lie::Group)?;
                checked.push(group);
                self.offset += length as u64;
                self.fruitless = 0;
            }
        }
        Ok(())
    }

    /// Bytes arrived that cannot be checked before the end.
    pub fn handle_unchecked(&mut self, count: u64) -> Result<(), Lie> {
        if self.size.is_some_and(|size| self.offset + count > size) {
            return Err(Lie::Length);
        }
        self.offset += count;
        if count > 0 {
            self.vouch();
            self.fruitless = 0;
        }
        Ok(())
    }

    /// The source has ended as if it had sent everything.
    pub fn handle_end(&self) -> Result<(), Lie> {
        if self.size == Some(self.offset) { Ok(()) } else { Err(Lie::Length) }
    }

    /// The source sends this one on to another, which is asked first from now on; `false` if that is shunned, and the same source is to be asked again.
    pub fn handle_elsewhere(&mut self, source: S) -> bool {
        if self.sources.is_empty() || self.shunned.contains(&source) {
            return false;
        }
        self.next %= self.sources.len();
        self.sources.insert(self.next, source);
        true
    }

    /// The source broke off or had nothing: what is not a whole checked group is forgotten.
    pub fn handle_failure(&mut self) {
        self.broke_off();
        self.next += 1;
        self.fruitless += 1;
    }

    fn broke_off(&mut self) {
        self.group.clear();
        let source = self.sources.get(self.next % self.sources.len().max(1));
        if let Some(voucher) = self.vouching.iter_mut().find(|voucher| Some(&voucher.source) == source) {
            voucher.broke_off = true;
        }
    }

    /// The source has nothing to give, or has said nothing for too long: others are asked, and it not again before [`Flight::turn_to`].
    pub fn handle_silence(&mut self) {
        self.broke_off();
        if !self.sources.is_empty() {
            self.next %= self.sources.len();
            self.sources.remove(self.next);
        }
    }

    /// The source was caught at a lie: what it sent of the group is forgotten, and it is asked no more, unless by [`Flight::forgive`].
    pub fn handle_lie(&mut self, lie: Lie) {
        self.group.clear();
        if !self.sources.is_empty() {
            self.next %= self.sources.len();
            let liar = self.sources.remove(self.next);
            if lie == Lie::Group {
                self.damaged.push((liar.clone(), self.offset));
            }
            self.shunned.push(liar);
        }
    }

    /// Nobody else gives anything: goes on with those who had one group wrong that another has given by now. `false` if there are none. So two damaged
    /// copies make a good one; and the flight ends, because a source comes back only when the bytes are further than where it lied.
    pub fn forgive(&mut self) -> bool {
        let offset = self.offset;
        let back: Vec<S> = self.damaged.extract_if(.., |(_, at)| *at < offset).map(|(source, _)| source).collect();
        if back.is_empty() {
            return false;
        }
        self.shunned.retain(|source| !back.contains(source));
        self.turn_to(back);
        true
    }

    /// All bytes are here and are not what they are called. The flight may begin again, once, without those on whose word alone it was; the one who has
    /// certainly lied is returned, if there is one: who vouched alone. (Who follows an upstream withholds the end until it has checked the digest; but when
    /// it breaks off for that and is asked for the rest, it gives that of another try: then the upstream may have lied, and it did not.)
    /// `None` if it has begun again before, or if everything was as the ledger has it.
    pub fn restart(&mut self) -> Option<Option<S>> {
        if self.restarted || self.vouching.is_empty() {
            return None;
        }
        let mut vouching = std::mem::take(&mut self.vouching);
        let liar = match &vouching[..] {
            [alone] if alone.knows || !alone.broke_off => Some(alone.source.clone()),
            _ => None,
        };
        if self.groups.is_none() && vouching.iter().any(|voucher| !voucher.knows) {
            vouching.retain(|voucher| !voucher.knows);
        }
        self.sources.retain(|source| !vouching.iter().any(|voucher| voucher.source == *source));
        self.shunned.extend(vouching.into_iter().map(|voucher| voucher.source));
        *self = Flight {
            sources: std::mem::take(&mut self.sources),
            shunned: std::mem::take(&mut self.shunned),
            restarted: true,
            ..Flight::new(Vec::new(), self.bound)
        };
        Some(liar)
    }

    /// What follows rests on the present source's word alone.
    fn vouch(&mut self) {
        let Some(source) = self.sources.get(self.next % self.sources.len().max(1)) else { return };
        match self.vouching.iter_mut().find(|voucher| voucher.source == *source) {
            Some(voucher) => voucher.knows &= self.knows,
            None => self.vouching.push(Voucher { source: source.clone(), knows: self.knows, broke_off: false }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::{GROUP, GroupHasher};
    use proptest::prelude::*;

    fn unknown(size: u64) -> Claim {
        Claim { size, content: None, list: None }
    }

    fn blob(size: usize) -> (Vec<u8>, Claim) {
        let bytes: Vec<u8> = (0..size).map(|i| (i / 7) as u8).collect();
        let mut hasher = GroupHasher::new();
        hasher.update(&bytes);
        let (content, list) = hasher.finish();
        (bytes, Claim { size: size as u64, content: Some(content), list })
    }

    fn bound(claim: &Claim) -> Option<Bound> {
        claim.content.map(|content| Bound { content, size: claim.size })
    }

    #[test]
    fn a_source_that_breaks_off_is_replaced_from_the_exact_byte() {
        let mut flight = Flight::new(vec![1, 2], None);
        assert_eq!(flight.step(), Step::Ask { source: 1, offset: 0 });
        assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
        assert_eq!(flight.handle_unchecked(40), Ok(()));
        flight.handle_failure();
        assert_eq!(flight.step(), Step::Ask { source: 2, offset: 40 });
        assert_eq!(flight.handle_claim(&unknown(99)), Judgement::Contradicted, "another length is another blob");
        assert_eq!(flight.handle_unchecked(60), Ok(()));
        assert_eq!(flight.step(), Step::Check);
    }

    #[test]
    fn a_wrong_group_is_replaced_from_its_first_byte_and_nothing_before_it_is_lost() {
        let (bytes, claim) = blob(4 * GROUP + 10);
        let mut flight = Flight::new(vec![1, 2], bound(&claim));
        assert!(flight.wants_list());
        assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
        let mut wrong = bytes.clone();
        wrong[2 * GROUP + 5] ^= 1;
        let mut checked = Vec::new();
        assert_eq!(flight.handle_bytes(&wrong, &mut checked), Err(Lie::Group));
        assert_eq!(checked.iter().map(|c| c.bytes().len()).sum::<usize>(), 2 * GROUP);
        flight.handle_lie(Lie::Group);
        assert_eq!(flight.shunned(), [1]);
        assert!(!flight.forgive(), "not before somebody else has given that group");
        assert_eq!(flight.step(), Step::Ask { source: 2, offset: 2 * GROUP as u64 });
        // the second is itself still filling: its bytes are checked all the same
        assert_eq!(flight.handle_claim(&unknown(claim.size)), Judgement::Believed);
        assert_eq!(flight.handle_bytes(&bytes[2 * GROUP..], &mut checked), Ok(()));
        assert_eq!(checked.iter().flat_map(|c| c.bytes()).copied().collect::<Vec<_>>(), bytes);
        assert_eq!((flight.step(), flight.handle_end()), (Step::Check, Ok(())));
        assert_eq!(flight.handle_bytes(&[0], &mut checked), Err(Lie::Length));
    }

    #[test]
    fn two_damaged_copies_make_a_good_one() {
        let (bytes, claim) = blob(4 * GROUP);
        let damaged_at = |group: usize| {
            let mut bytes = bytes.clone();
            bytes[group * GROUP] ^= 1;
            bytes
        };
        let copies = [damaged_at(1), damaged_at(3)];
        let mut flight = Flight::new(vec![0, 1], bound(&claim));
        let (mut checked, mut asked) = (Vec::new(), Vec::new());
        loop {
            match flight.step() {
                Step::Check => break,
                Step::GiveUp => assert!(flight.forgive()),
                Step::Ask { source, offset } => {
                    asked.push((source, offset as usize / GROUP));
                    assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
                    if let Err(lie) = flight.handle_bytes(&copies[source][offset as usize..], &mut checked) {
                        flight.handle_lie(lie);
                    }
                }
            }
        }
        assert_eq!(asked, [(0, 0), (1, 1), (0, 3)]);
        assert_eq!(checked.iter().flat_map(|c| c.bytes()).copied().collect::<Vec<_>>(), bytes);
    }

    #[test]
    fn half_a_group_of_a_source_that_broke_off_is_forgotten() {
        let (bytes, claim) = blob(2 * GROUP);
        let mut flight = Flight::new(vec![1, 2], bound(&claim));
        let mut checked = Vec::new();
        flight.handle_claim(&claim);
        assert_eq!(flight.handle_bytes(&bytes[..GROUP + 100], &mut checked), Ok(()));
        assert_eq!(flight.handle_end(), Err(Lie::Length));
        flight.handle_failure();
        assert_eq!(flight.step(), Step::Ask { source: 2, offset: GROUP as u64 });
        assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
        assert_eq!(flight.handle_bytes(&bytes[GROUP..], &mut checked), Ok(()));
        assert_eq!(flight.step(), Step::Check);
    }

    #[test]
    fn what_the_ledger_knows_decides_who_lies() {
        let (_, claim) = blob(3 * GROUP);
        let (_, other) = blob(3 * GROUP + 1);
        let judge = |claim: &Claim| Flight::new(vec![1], bound(&blob(3 * GROUP).1)).handle_claim(claim);
        assert_eq!(judge(&claim), Judgement::Believed);
        assert_eq!(judge(&other), Judgement::Lied(Lie::Binding));
        assert_eq!(judge(&Claim { size: 5, ..claim.clone() }), Judgement::Lied(Lie::Length));
        assert_eq!(judge(&Claim { list: other.list, ..claim.clone() }), Judgement::Lied(Lie::Outboard));
        assert_eq!(judge(&Claim { list: None, ..claim }), Judgement::Lied(Lie::Outboard));
        assert_eq!(judge(&unknown(3 * GROUP as u64)), Judgement::Believed);
        assert_eq!(judge(&unknown(5)), Judgement::Contradicted, "its upstream may have another length");
    }

    #[test]
    fn without_the_ledger_the_first_word_counts_until_the_digest_disproves_it() {
        let (bytes, claim) = blob(2 * GROUP);
        let (other_bytes, other) = blob(2 * GROUP - 1);
        let mut flight = Flight::new(vec![1, 2], None);
        let mut checked = Vec::new();
        assert_eq!(flight.handle_claim(&other), Judgement::Believed);
        assert_eq!(flight.handle_bytes(&other_bytes[..GROUP], &mut checked), Ok(()));
        flight.handle_failure();
        assert_eq!(flight.handle_claim(&claim), Judgement::Contradicted);
        flight.handle_failure();
        assert_eq!(flight.handle_claim(&other), Judgement::Believed);
        assert_eq!(flight.handle_bytes(&other_bytes[GROUP..], &mut checked), Ok(()));
        assert_eq!(flight.step(), Step::Check);
        assert_eq!(flight.restart(), Some(Some(1)));
        assert_eq!(flight.step(), Step::Ask { source: 2, offset: 0 });
        assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
        assert_eq!(flight.handle_bytes(&bytes, &mut checked), Ok(()));
        assert_eq!(flight.step(), Step::Check);
        assert_eq!(flight.restart(), None, "it begins again once");
    }

    #[test]
    fn whoever_is_named_is_asked_first_and_then_the_one_who_named_it() {
        let mut flight = Flight::new(vec![1, 2], None);
        flight.handle_failure();
        assert!(flight.handle_elsewhere(3));
        assert_eq!(flight.step(), Step::Ask { source: 3, offset: 0 });
        flight.handle_failure();
        assert_eq!(flight.step(), Step::Ask { source: 2, offset: 0 });
        assert!(flight.handle_elsewhere(4));
        flight.handle_lie(Lie::Outboard);
        assert_eq!(flight.step(), Step::Ask { source: 2, offset: 0 });
        assert!(!flight.handle_elsewhere(4), "it has lied");
    }

    #[test]
    fn after_wrong_unchecked_bytes_whoever_can_be_held_to_a_list_is_asked_again() {
        let (bytes, claim) = blob(3 * GROUP);
        let mut flight = Flight::new(vec![1, 2], bound(&claim));
        assert_eq!(flight.handle_claim(&unknown(claim.size)), Judgement::Believed);
        assert_eq!(flight.handle_unchecked(100), Ok(()));
        flight.handle_failure();
        assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
        assert_eq!(flight.handle_unchecked(claim.size - 100), Ok(()));
        assert_eq!(flight.step(), Step::Check);
        assert_eq!(flight.restart(), Some(None), "either may have lied");
        assert_eq!(flight.shunned(), [1]);
        assert_eq!(flight.step(), Step::Ask { source: 2, offset: 0 });
        assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
        assert_eq!(flight.handle_bytes(&bytes, &mut Vec::new()), Ok(()));
        assert_eq!((flight.step(), flight.restart()), (Step::Check, None));
    }

    #[test]
    fn who_breaks_off_and_gives_the_rest_of_another_try_has_not_certainly_lied() {
        let mut flight = Flight::new(vec![1], None);
        for part in [40, 60] {
            assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
            assert_eq!(flight.handle_unchecked(part), Ok(()));
            if part == 40 {
                flight.handle_failure(); // its upstream lied, and it begins anew
            }
        }
        assert_eq!(flight.step(), Step::Check);
        assert_eq!(flight.restart(), Some(None));
        let mut flight = Flight::new(vec![1], None);
        assert_eq!(flight.handle_claim(&unknown(100)), Judgement::Believed);
        assert_eq!(flight.handle_unchecked(100), Ok(()));
        assert_eq!(flight.restart(), Some(Some(1)), "it gave all of it in one go");
    }

    #[test]
    fn a_word_that_no_byte_follows_binds_nobody() {
        let (bytes, claim) = blob(2 * GROUP);
        let mut flight = Flight::new(vec![1, 2], None);
        for nothing in [blob(9).1, unknown(5), unknown(7)] {
            assert_eq!(flight.handle_claim(&nothing), Judgement::Believed);
            flight.handle_failure();
        }
        assert!(flight.wants_list());
        assert_eq!(flight.handle_claim(&claim), Judgement::Believed);
        assert_eq!(flight.handle_bytes(&bytes, &mut Vec::new()), Ok(()));
        assert_eq!(flight.step(), Step::Check);
    }

    #[test]
    fn sources_that_give_nothing_are_given_up_after_two_rounds() {
        let mut flight = Flight::new(vec![1, 2], None);
        for _ in 0..4 {
            assert!(matches!(flight.step(), Step::Ask { .. }));
            flight.handle_failure();
        }
        assert_eq!(flight.step(), Step::GiveUp);
        assert_eq!(Flight::<u8>::new(vec![], None).step(), Step::GiveUp);
        flight.turn_to(vec![3]);
        assert_eq!(flight.step(), Step::Ask { source: 3, offset: 0 });
        flight.handle_lie(Lie::Length);
        assert_eq!(flight.step(), Step::GiveUp);
    }

    #[test]
    fn who_is_silent_is_not_asked_again_and_the_others_keep_their_two_tries() {
        let mut flight = Flight::new(vec!["a", "b"], None);
        let asked = |flight: &Flight<&'static str>| match flight.step() {
            Step::Ask { source, .. } => source,
            other => panic!("{other:?}"),
        };
        flight.handle_failure();
        assert_eq!(asked(&flight), "b");
        flight.handle_silence();
        assert_eq!(asked(&flight), "a");
        flight.handle_failure();
        assert_eq!(flight.step(), Step::GiveUp);
        flight.turn_to(vec!["b"]);
        assert_eq!(asked(&flight), "b", "unless it is turned to again");
        flight.handle_silence();
        assert_eq!(flight.step(), Step::GiveUp);
        flight.handle_silence();
        assert_eq!(flight.step(), Step::GiveUp, "nobody is left");
    }

    #[test]
    fn more_bytes_than_the_blob_has_are_refused() {
        let mut flight = Flight::new(vec![1], None);
        flight.handle_claim(&unknown(10));
        assert_eq!(flight.handle_unchecked(11), Err(Lie::Length));
    }

    proptest! {
        #[test]
        fn every_flight_ends(breaks in proptest::collection::vec(0u64..30, 0..200), sources in 1u64..5) {
            let mut flight = Flight::new((0..sources).collect(), None);
            let mut given = breaks.into_iter();
            for _ in 0..1000 {
                match flight.step() {
                    Step::Check | Step::GiveUp => return Ok(()),
                    Step::Ask { offset, .. } => {
                        prop_assert_eq!(flight.handle_claim(&unknown(1000)), Judgement::Believed);
                        let n = given.next().unwrap_or(0).min(1000 - offset);
                        prop_assert_eq!(flight.handle_unchecked(n), Ok(()));
                        if offset + n < 1000 { flight.handle_failure(); }
                    }
                }
            }
            prop_assert!(false, "it went on for ever");
        }
    }
}
