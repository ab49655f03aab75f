//! One blob on its way to this node: whom to ask next, from which byte on, what to believe, when to
//! look for others, when to wait, and when to give up.
//!
//! Sources are asked in the order given. When one breaks off, the next goes on from the exact byte
//! that was reached. Bytes that arrive forgive earlier failures, so a long blob survives many
//! breaks.
//!
//! When every source was asked twice in vain, the flight tries in this order:
//!
//! 1. It asks everyone who holds the blob, and takes the first to answer. If those give nothing
//!    either, it asks again and hears all. It does so once for each byte at which it stands still.
//! 2. It goes back to sources that had one group wrong, if another source has given that group.
//! 3. It waits a moment and goes back to sources that fell silent and are not known to be down, for
//!    as long as a client would wait.
//! 4. It gives up.
//!
//! Once the list of the blob's groups is known, only whole groups that were checked count as
//! arrived, whoever sends them. A source that is caught at a lie is not asked again in this flight.
//! Without a list (the first source is itself still filling from an upstream) the bytes count as
//! they come, and the digest decides at the end. If it is wrong, the flight begins again, once.

mod whom;

use std::time::Duration;

use crate::blobs::groups::{Checked, Groups};
use crate::blobs::reputation::Lie;
use crate::words::digest::ContentHash;
use crate::words::moment::Moment;
use crate::words::names::RepositoryName;
use whom::Whom;

/// The pause before sources that fell silent are asked again.
pub const AGAIN: Duration = Duration::from_millis(200);

/// Where a blob's bytes may come from. `N` names a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source<N> {
    /// Another node.
    Peer {
        /// Which.
        node: N,
        /// Whether it is to fetch the blob itself if it lacks it.
        fill: bool,
    },
    /// The upstream of this proxy repository.
    Upstream(RepositoryName),
}

impl<N: Copy + PartialEq> Source<N> {
    /// The node, if it is one.
    pub fn peer(&self) -> Option<N> {
        match self {
            Source::Peer { node, .. } => Some(*node),
            Source::Upstream(_) => None,
        }
    }

    /// Whether it is the same one, however it is asked.
    fn is(&self, other: &Source<N>) -> bool {
        self == other || (self.peer().is_some() && self.peer() == other.peer())
    }
}

/// How many of those that hold a blob are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hurry {
    /// The first to answer.
    First,
    /// All that answer in time.
    All,
}

/// Whom a flight asks first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First<N> {
    /// These. They were told, or are to have it. Nobody: everyone is asked who holds the blob.
    Named(Vec<Source<N>>),
    /// These, because they kept the blob when it was pushed. They were not asked whether they still
    /// hold it.
    Presumed(Vec<Source<N>>),
}

/// Where a flight's bytes may come from, and how it stands.
#[derive(Clone)]
pub struct Flight<N> {
    whom: Whom<N>,
    /// How long the flight waits for sources that fell silent.
    patience: Duration,
    /// When the last byte came.
    grew: Moment,
    offset: u64,
    size: Option<u64>,
    bound: Option<Bound>,
    groups: Option<Groups>,
    group: Vec<u8>,
    vouching: Vec<Voucher<N>>,
    /// The present source names the content hash.
    knows: bool,
    /// The sources are presumed to hold the blob, and none has answered yet.
    presumed: bool,
    /// A source was believed, and those who follow the flight know the blob's length.
    begun: bool,
    /// The upstream says that it does not have the blob.
    missing_upstream: bool,
    wrong: Wrong,
}

/// Whether what arrived was the blob.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Never,
    /// It was not, and the flight began again.
    Once,
    /// It was not, and the flight cannot begin again.
    Again,
}

/// A source on whose word alone some of the bytes were taken.
#[derive(Clone)]
struct Voucher<N> {
    source: Source<N>,
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
    /// It contradicts what another said, and who is right is not known. Call
    /// [`Flight::handle_failure`].
    Contradicted,
    /// It contradicts the ledger, or itself. Call [`Flight::handle_lie`].
    Lied(Lie),
}

/// A question to one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<N> {
    /// The source.
    pub source: Source<N>,
    /// First byte wanted.
    pub offset: u64,
    /// Whether it is to send the list of groups first: there is none that the ledger vouches for,
    /// and no bytes stand in its way yet.
    pub list: bool,
    /// Whether it is to send the blob itself, and name no other node.
    pub direct: bool,
    /// Whether it was not asked before if it holds the blob. It may not take long to begin: others
    /// have to be asked while a client still waits.
    pub presumed: bool,
}

/// Why a flight is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// No source gives anything.
    Nobody,
    /// No source gives anything, and the upstream says that it does not have the blob.
    MissingUpstream,
    /// What arrived was not the blob, and no source gives anything else.
    WrongBytes,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<N> {
    /// Ask this source, and report what comes of it by the `handle_` function for that.
    Ask(Request<N>),
    /// Ask everyone who holds the blob. Call [`Flight::handle_found`].
    Look(Hurry),
    /// Do nothing for so long: then sources that fell silent are asked again.
    Wait(Duration),
    /// All bytes are here. Check their digest; if it is wrong, call
    /// [`Flight::handle_wrong_digest`].
    Check,
    /// It cannot be had.
    GiveUp(GivenUp),
}

impl<N: Copy + Ord> Flight<N> {
    /// A flight with nothing yet, of a blob that the ledger may know. It waits no longer than
    /// `patience` after the last byte for sources that fell silent.
    pub fn new(now: Moment, first: First<N>, bound: Option<Bound>, patience: Duration) -> Self {
        let presumed = matches!(first, First::Presumed(_));
        let (First::Named(sources) | First::Presumed(sources)) = first;
        Flight {
            whom: Whom::new(sources),
            patience,
            grew: now,
            offset: 0,
            size: None,
            bound,
            groups: None,
            group: Vec::new(),
            vouching: Vec::new(),
            knows: false,
            presumed,
            begun: false,
            missing_upstream: false,
            wrong: Wrong::Never,
        }
    }

    /// What to do next, where `down` says whether a node is known to be down.
    pub fn step(&mut self, now: Moment, down: impl Fn(N) -> bool) -> Step<N> {
        if self.wrong == Wrong::Again {
            return Step::GiveUp(GivenUp::WrongBytes);
        }
        if self.is_whole() {
            return Step::Check;
        }
        if self.whom.present().is_none() {
            if let Some(hurry) = self.whom.hurry(self.offset) {
                self.presumed = false;
                return Step::Look(hurry);
            }
            if !self.whom.forgive(self.offset) {
                let patient = now.since(self.grew) < self.patience;
                let waits = patient && self.whom.turn_to_stalled(down);
                return if waits { Step::Wait(AGAIN) } else { Step::GiveUp(self.given_up()) };
            }
        }
        match self.whom.present() {
            Some(source) => Step::Ask(Request {
                source: source.clone(),
                offset: self.offset,
                list: self.wants_list(),
                direct: self.whom.is_direct(source),
                presumed: self.presumed,
            }),
            None => Step::GiveUp(self.given_up()),
        }
    }

    fn given_up(&self) -> GivenUp {
        match self.wrong {
            Wrong::Once | Wrong::Again => GivenUp::WrongBytes,
            Wrong::Never if self.missing_upstream => GivenUp::MissingUpstream,
            Wrong::Never => GivenUp::Nobody,
        }
    }

    /// Whether all bytes are here.
    pub fn is_whole(&self) -> bool {
        self.size == Some(self.offset)
    }

    /// How many bytes are here.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The groups that all bytes are checked with, if they are.
    pub fn groups(&self) -> Option<&Groups> {
        self.groups.as_ref()
    }

    fn wants_list(&self) -> bool {
        self.offset == 0 && (self.groups.is_none() || self.bound.is_none())
    }

    /// These say that they hold the blob. Those of them that lied are left out.
    pub fn handle_found(&mut self, found: Vec<Source<N>>) {
        self.whom.handle_found(self.offset, found);
    }

    /// The source says what the blob is. If it is believed and the list is known from now on, bytes
    /// go to [`Flight::handle_bytes`], else to [`Flight::handle_unchecked`].
    pub fn handle_claim(&mut self, claim: &Claim) -> Judgement {
        self.group.clear();
        self.presumed = false;
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
            let Ok(groups) =
                Groups::from_list(claim.list.as_deref().unwrap_or_default(), content, claim.size)
            else {
                return Judgement::Lied(Lie::Outboard);
            };
            self.groups = Some(groups);
            if self.bound.is_none() {
                self.vouch();
            }
        }
        self.size = Some(claim.size);
        self.begun = true;
        Judgement::Believed
    }

    /// Bytes arrived, and groups may be whole with them: those that are right are added to
    /// `checked`. At a lie the right ones before it still count.
    pub fn handle_bytes(
        &mut self,
        now: Moment,
        mut bytes: &[u8],
        checked: &mut Vec<Checked>,
    ) -> Result<(), Lie> {
        let Some(groups) = &self.groups else { return Err(Lie::Outboard) };
        while !bytes.is_empty() {
            let length = groups.length_at(self.offset);
            let (piece, later) = bytes.split_at(bytes.len().min(length - self.group.len()));
            if piece.is_empty() {
                return Err(Lie::Length);
            }
            if self.group.capacity() < length {
                self.group.reserve_exact(length - self.group.len());
            }
            self.group.extend_from_slice(piece);
            bytes = later;
            if self.group.len() == length {
                let group = groups
                    .verify(self.offset, std::mem::take(&mut self.group))
                    .ok_or(Lie::Group)?;
                checked.push(group);
                self.offset += length as u64;
                self.grew = now;
                self.whom.handle_growth();
            }
        }
        Ok(())
    }

    /// Bytes arrived that cannot be checked before the end.
    pub fn handle_unchecked(&mut self, now: Moment, count: u64) -> Result<(), Lie> {
        if self.size.is_some_and(|size| self.offset + count > size) {
            return Err(Lie::Length);
        }
        self.offset += count;
        if count > 0 {
            self.vouch();
            self.grew = now;
            self.whom.handle_growth();
        }
        Ok(())
    }

    /// The source has ended as if it had sent everything.
    pub fn handle_end(&self) -> Result<(), Lie> {
        if self.is_whole() { Ok(()) } else { Err(Lie::Length) }
    }

    /// The source sends this flight on to the node `other`, which is asked first from now on if it
    /// is `usable`. A source does so once; the next time it is to send the blob itself. Whether
    /// `other` is asked.
    pub fn handle_elsewhere(&mut self, other: N, usable: bool) -> bool {
        if self.whom.present().is_some_and(|source| self.whom.is_direct(source)) {
            self.handle_failure();
            return false;
        }
        self.whom.handle_elsewhere(other, usable)
    }

    /// The source broke off, or could not be asked. What is not a whole checked group is forgotten.
    pub fn handle_failure(&mut self) {
        self.broke_off();
        self.whom.pass_on();
    }

    /// The upstream was asked, and says that it does not have the blob.
    pub fn handle_missing(&mut self) {
        self.missing_upstream = true;
        self.handle_failure();
    }

    /// The source does not hold the blob. It is not asked again before everyone was.
    pub fn handle_nothing(&mut self) {
        self.broke_off();
        self.whom.remove();
    }

    /// The source has said nothing for too long. It is not asked again before the others were. If
    /// the flight had begun, the source counts as stalled: it may go on when nobody else gives
    /// anything. Whether it does.
    pub fn handle_silence(&mut self) -> bool {
        self.broke_off();
        let Some(source) = self.whom.remove() else { return false };
        if self.begun {
            self.whom.note_stalled(source);
        }
        self.begun
    }

    fn broke_off(&mut self) {
        self.group.clear();
        let source = self.whom.present();
        if let Some(voucher) =
            self.vouching.iter_mut().find(|voucher| Some(&voucher.source) == source)
        {
            voucher.broke_off = true;
        }
    }

    /// The source was caught at a lie. What it sent of the group is forgotten. It is not asked
    /// again, but if its only lie was a wrong group, and another source has given that group since.
    pub fn handle_lie(&mut self, lie: Lie) {
        self.group.clear();
        let Some(liar) = self.whom.remove() else { return };
        if lie == Lie::Group {
            self.whom.note_damaged(liar.clone(), self.offset);
        }
        self.whom.shun(liar);
    }

    /// All bytes are here and are not what they are called. The flight begins again, once, without
    /// the sources on whose word alone it was. If it has begun again before, or if everything was
    /// as the ledger has it, it is given up.
    ///
    /// Returns the source that has certainly lied, if there is one, and at what: the one that
    /// vouched alone. A source that fills from an upstream and broke off on the way is not certain.
    /// It may have found its upstream's bytes wrong, thrown them away and fetched them again in
    /// between.
    pub fn handle_wrong_digest(&mut self) -> Option<(Source<N>, Lie)> {
        if self.wrong != Wrong::Never || self.vouching.is_empty() {
            self.wrong = Wrong::Again;
            return None;
        }
        let lie = if self.groups.is_some() { Lie::Binding } else { Lie::Group };
        let mut vouching = std::mem::take(&mut self.vouching);
        let liar = match &vouching[..] {
            [alone] if alone.knows || !alone.broke_off => Some((alone.source.clone(), lie)),
            _ => None,
        };
        if self.groups.is_none() && vouching.iter().any(|voucher| !voucher.knows) {
            vouching.retain(|voucher| !voucher.knows);
        }
        self.whom.restart(vouching.into_iter().map(|voucher| voucher.source).collect());
        (self.offset, self.size, self.groups) = (0, None, None);
        self.group.clear();
        (self.knows, self.begun) = (false, false);
        self.wrong = Wrong::Once;
        liar
    }

    /// What follows rests on the present source's word alone.
    fn vouch(&mut self) {
        let Some(source) = self.whom.present() else { return };
        match self.vouching.iter_mut().find(|voucher| voucher.source == *source) {
            Some(voucher) => voucher.knows &= self.knows,
            None => self.vouching.push(Voucher {
                source: source.clone(),
                knows: self.knows,
                broke_off: false,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
