//! The decisions of one flight (one blob on its way to this node): which source to ask next and
//! from which byte, what to believe, when to look for more sources, when to wait, and when to give
//! up.
//!
//! Sources are asked in the given order. When one breaks off, the next continues at the exact byte
//! that was reached. When bytes arrive, earlier failures are forgiven, so a long blob survives many
//! breaks.
//!
//! When every source was asked twice without result, the flight takes these steps in order:
//!
//! 1. It asks all nodes whether they hold the blob, and takes the first answer. If the sources
//!    found in this way give nothing either, it asks again and waits for all answers. It does so
//!    once for each byte at which it is stuck.
//! 2. It goes back to sources that had one group wrong, if another source has given that group, and
//!    to those that know their copy to be damaged. These are not asked for bytes before.
//! 3. It waits a moment and returns to sources that fell silent and are not known to be down. It
//!    does so for as long as a client would wait.
//! 4. It gives up.
//!
//! A flight that nobody has waited for during [`DESERTED`] is given up, too, unless three quarters of
//! its bytes are here. Otherwise clients that come and go could have a node fetch without end.
//!
//! Once the list of the blob's groups is known, only whole checked groups count as arrived,
//! whichever source sends them. A source that is caught lying is not asked again in this flight.
//! Without a list (the first source is itself still filling from an upstream) bytes count as they
//! arrive, and the digest decides at the end. If the digest is wrong, the flight starts again,
//! once.

mod whom;

use std::time::Duration;

use crate::blobs::groups::{Checked, Groups};
use crate::blobs::reputation::Lie;
use crate::words::digest::ContentHash;
use crate::words::moment::Moment;
use crate::words::names::RepositoryName;
use whom::Whom;

/// How long to wait before sources that fell silent are asked again.
pub const AGAIN: Duration = Duration::from_millis(200);

/// How long a flight goes on that nobody waits for. Clients that lose a connection come back within
/// this time, and then continue where they were.
pub const DESERTED: Duration = Duration::from_secs(10);

/// Where a blob's bytes may come from. `N` names a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source<N> {
    /// Another node.
    Peer {
        /// The node.
        node: N,
        /// Whether it should fetch the blob itself if it does not hold it.
        fill: bool,
    },
    /// The upstream of this proxy repository.
    Upstream(RepositoryName),
}

impl<N: Copy + PartialEq> Source<N> {
    /// The source's node; `None` for an upstream.
    pub fn peer(&self) -> Option<N> {
        match self {
            Source::Peer { node, .. } => Some(*node),
            Source::Upstream(_) => None,
        }
    }

    /// Whether both are the same source, regardless of `fill`.
    fn is(&self, other: &Source<N>) -> bool {
        self == other || (self.peer().is_some() && self.peer() == other.peer())
    }
}

/// How many answers to wait for when nodes are asked whether they hold a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hurry {
    /// The first to answer.
    First,
    /// All answers that arrive in time.
    All,
}

/// The sources that a flight asks first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First<N> {
    /// Sources that said that they hold the blob, or that are to fetch it. If the list is empty,
    /// the flight asks all nodes first.
    Named(Vec<Source<N>>),
    /// Nodes that kept the blob when it was pushed. They were not asked whether they still hold it.
    Presumed(Vec<Source<N>>),
}

/// A flight: its sources, and how far it has come.
#[derive(Clone)]
pub struct Flight<N> {
    whom: Whom<N>,
    /// How long to wait for sources that fell silent, counted from the last byte.
    patience: Duration,
    /// When the last byte arrived.
    grew: Moment,
    offset: u64,
    size: Option<u64>,
    bound: Option<Bound>,
    groups: Option<Groups>,
    group: Vec<u8>,
    vouching: Vec<Voucher<N>>,
    /// The current source has named the content hash.
    knows: bool,
    /// The sources are only presumed to hold the blob, and none has answered yet.
    presumed: bool,
    /// A source was believed, so the followers of this flight know the blob's length.
    begun: bool,
    /// The upstream says that it does not have the blob.
    missing_upstream: bool,
    wrong: Wrong,
    /// Since when nobody waits for it.
    deserted: Option<Moment>,
}

/// How often the digest was wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Never,
    /// The digest was wrong, and the flight started again.
    Once,
    /// The digest was wrong, and the flight cannot start again.
    Again,
}

/// A source whose bytes were accepted on its word alone, without a check.
#[derive(Clone)]
struct Voucher<N> {
    source: Source<N>,
    /// It named the content hash, so it can be asked for a list next time.
    knows: bool,
    /// It broke off after it had sent bytes.
    broke_off: bool,
}

/// What the ledger knows of the blob, as computed by a node that has hashed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its content hash.
    pub content: ContentHash,
    /// Its length in bytes.
    pub size: u64,
}

/// What a source says about the blob before it sends bytes.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Length of the whole blob in bytes.
    pub size: u64,
    /// Content hash; `None` while the source does not know it itself.
    pub content: Option<ContentHash>,
    /// The list of the blob's groups, if it was asked for and the source has it.
    pub list: Option<Vec<u8>>,
}

/// The verdict on a [`Claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Accept the source's bytes.
    Believed,
    /// The claim contradicts another source, and it is not known which of them is right. Call
    /// [`Flight::handle_failure`].
    Contradicted,
    /// The claim contradicts the ledger or itself. Call [`Flight::handle_lie`].
    Lied(Lie),
}

/// What to ask a source for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<N> {
    /// The source.
    pub source: Source<N>,
    /// First byte wanted.
    pub offset: u64,
    /// Whether the source must send the list of groups first. It must if no bytes have arrived yet,
    /// and there is no list that the ledger's content hash vouches for.
    pub list: bool,
    /// Whether the source must send the blob itself instead of naming another node.
    pub direct: bool,
    /// Whether the source was not asked first if it holds the blob. It must begin soon, because
    /// other nodes have to be asked while the client still waits.
    pub presumed: bool,
}

/// Why a flight was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// No source gives any bytes.
    Nobody,
    /// No source gives any bytes, and the upstream says that it does not have the blob.
    MissingUpstream,
    /// The digest of what arrived was wrong, and no source gives other bytes.
    WrongBytes,
    /// Nobody waits for the blob any more.
    Deserted,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<N> {
    /// Ask this source, and report the result with the matching `handle_` function.
    Ask(Request<N>),
    /// Ask all nodes whether they hold the blob. Call [`Flight::handle_found`].
    Look(Hurry),
    /// Wait this long, then call [`Flight::step`] again: it returns to sources that fell silent.
    Wait(Duration),
    /// All bytes are here. Check the digest; if it is wrong, call [`Flight::handle_wrong_digest`].
    Check,
    /// The blob cannot be had.
    GiveUp(GivenUp),
}

impl<N: Copy + Ord> Flight<N> {
    /// A flight without any bytes yet. `bound` is what the ledger knows of the blob. The flight
    /// waits for sources that fell silent for at most `patience` after the last byte.
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
            deserted: None,
        }
    }

    /// Whether somebody waits for the blob now. Say so now and then; a flight that was never told
    /// is waited for.
    pub fn handle_waiting(&mut self, now: Moment, waited_for: bool) {
        self.deserted = if waited_for { None } else { self.deserted.or(Some(now)) };
    }

    /// Whether the flight is to end because nobody has waited for it for a while, and it is not
    /// nearly done.
    pub fn is_deserted(&self, now: Moment) -> bool {
        let long = self.deserted.is_some_and(|since| now.since(since) >= DESERTED);
        let nearly_done = self.size.is_some_and(|size| self.offset >= size - size / 4);
        long && !nearly_done
    }

    /// What to do next. `down` says whether a node is known to be down.
    pub fn step(&mut self, now: Moment, down: impl Fn(N) -> bool) -> Step<N> {
        if self.wrong == Wrong::Again {
            return Step::GiveUp(GivenUp::WrongBytes);
        }
        if self.is_whole() {
            return Step::Check;
        }
        if self.is_deserted(now) {
            return Step::GiveUp(GivenUp::Deserted);
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

    /// The number of bytes that are here.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The groups against which all bytes are checked, if the list is known.
    pub fn groups(&self) -> Option<&Groups> {
        self.groups.as_ref()
    }

    fn wants_list(&self) -> bool {
        self.offset == 0 && (self.groups.is_none() || self.bound.is_none())
    }

    /// These sources say that they hold the blob. Sources that lied are left out.
    pub fn handle_found(&mut self, found: Vec<Source<N>>) {
        self.whom.handle_found(self.offset, found);
    }

    /// The source says what the blob is. If the claim is believed and the list is known now, pass
    /// the bytes to [`Flight::handle_bytes`], otherwise to [`Flight::handle_unchecked`].
    pub fn handle_claim(&mut self, claim: &Claim) -> Judgement {
        self.group.clear();
        self.presumed = false;
        self.knows = claim.content.is_some();
        if self.offset == 0 && self.bound.is_none() {
            // no bytes followed the earlier claim, so it no longer counts
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

    /// Bytes arrived that can be checked. Groups that are now whole and right are added to
    /// `checked`. After an error, the groups added before it still count.
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

    /// Bytes arrived that can only be checked at the end, by the digest.
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

    /// The source ended its stream as if it had sent everything.
    pub fn handle_end(&self) -> Result<(), Lie> {
        if self.is_whole() { Ok(()) } else { Err(Lie::Length) }
    }

    /// The source refers this flight to the node `other`, which is asked first from now on if it is
    /// `usable`. A source may do so once; the next time it must send the blob itself. Returns
    /// whether `other` is asked.
    pub fn handle_elsewhere(&mut self, other: N, usable: bool) -> bool {
        if self.whom.present().is_some_and(|source| self.whom.is_direct(source)) {
            self.handle_failure();
            return false;
        }
        self.whom.handle_elsewhere(other, usable)
    }

    /// The source broke off, or could not be asked. Bytes of an incomplete group are dropped.
    pub fn handle_failure(&mut self) {
        self.broke_off();
        self.whom.pass_on();
    }

    /// The upstream was asked, and says that it does not have the blob.
    pub fn handle_missing(&mut self) {
        self.missing_upstream = true;
        self.handle_failure();
    }

    /// The source does not hold the blob. It is not asked again until all nodes were asked.
    pub fn handle_nothing(&mut self) {
        self.broke_off();
        self.whom.remove();
    }

    /// The source says that its copy is damaged. Returns whether it is put off: it is asked again
    /// when no other source gives anything, because damaged copies may make a whole one together.
    pub fn handle_damaged(&mut self) -> bool {
        let put_off = self.whom.put_off();
        if put_off {
            self.broke_off();
        }
        put_off
    }

    /// The source has been silent for too long. It is not asked again before the others were. If
    /// the flight had begun, the source counts as stalled: it may be asked again when no other
    /// source gives anything. Returns whether it counts as stalled.
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

    /// The source was caught lying. Its bytes of the incomplete group are dropped. It is not asked
    /// again, unless its only lie was one wrong group and another source has given that group
    /// since.
    pub fn handle_lie(&mut self, lie: Lie) {
        self.group.clear();
        let Some(liar) = self.whom.remove() else { return };
        if lie == Lie::Group {
            self.whom.note_damaged(liar.clone(), self.offset);
        }
        self.whom.shun(liar);
    }

    /// All bytes are here, and their digest is wrong. The flight starts again, once, without the
    /// sources whose bytes were accepted on their word alone. It is given up if it has started
    /// again before, or if all bytes were checked against the ledger's content hash.
    ///
    /// Returns the source that has certainly lied, if there is one, and the lie. This is the case
    /// if only one source was accepted on its word. A source that fills from an upstream and broke
    /// off on the way is not certain: it may have received wrong bytes from its upstream, dropped
    /// them, and fetched the blob again in between.
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

    /// From here on, bytes are accepted on the current source's word alone.
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
