//! One blob on its way to this node: whom to ask next, from which byte on, what to believe, and when to give up.
//!
//! Sources are tried in the order given. One that breaks off is replaced by the next from the exact byte reached; bytes that arrived forgive earlier
//! failures, so a long blob survives many breaks, while sources that give nothing are given up after two rounds.
//!
//! Once the list of the blob's groups is known, only whole groups that were checked count as arrived, whoever sends them. A source that is caught
//! at a lie is not asked again in this flight. Without a list (the first source is itself still filling from an upstream) the bytes count as they come, and the
//! digest decides at the end.

use crate::blobs::groups::{Checked, Groups};
use crate::blobs::reputation::Lie;
use crate::words::digest::ContentHash;

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
mod tests;
