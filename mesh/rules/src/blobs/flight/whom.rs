//! Whom a flight asks: the order of its sources, which of them are out, and where others are looked
//! for.

use std::collections::BTreeSet;

use super::{Hurry, Source};

/// The sources of one flight.
#[derive(Clone)]
pub(super) struct Whom<N> {
    sources: Vec<Source<N>>,
    next: usize,
    /// How often a source was asked in vain since the last byte, or since these are the sources.
    fruitless: usize,
    /// Who lied. They are not asked again in this flight.
    shunned: Vec<Source<N>>,
    /// Those of them whose only lie was a wrong group, and where that group begins.
    damaged: Vec<(Source<N>, u64)>,
    /// Who fell silent after the flight had begun, and was not asked again since.
    stalled: Vec<Source<N>>,
    /// Nodes that have sent the flight on to another node, and those they named. They send the blob
    /// themselves when they are asked.
    named: BTreeSet<N>,
    /// At which byte everyone was asked last who holds the blob, and how many answers were awaited.
    looked: Option<(u64, Hurry)>,
}

impl<N: Copy + Ord> Whom<N> {
    pub(super) fn new(sources: Vec<Source<N>>) -> Self {
        Whom {
            sources,
            next: 0,
            fruitless: 0,
            shunned: Vec::new(),
            damaged: Vec::new(),
            stalled: Vec::new(),
            named: BTreeSet::new(),
            looked: None,
        }
    }

    /// The source that is asked now; `None` when each was asked twice in vain.
    pub(super) fn present(&self) -> Option<&Source<N>> {
        if self.fruitless >= self.sources.len() * 2 {
            return None;
        }
        self.sources.get(self.next % self.sources.len())
    }

    /// Whether `source` is to send the blob itself, and name no other node.
    pub(super) fn is_direct(&self, source: &Source<N>) -> bool {
        source.peer().is_some_and(|node| self.named.contains(&node))
    }

    /// How everyone is to be asked who holds the blob, now that the sources give nothing from byte
    /// `offset` on; `None` if all were heard at that byte. A client waits, so the first to answer
    /// will do. If they give nothing either, all are heard.
    pub(super) fn hurry(&self, offset: u64) -> Option<Hurry> {
        match self.looked {
            Some((at, Hurry::All)) if at == offset => None,
            Some((at, Hurry::First)) if at == offset => Some(Hurry::All),
            _ => Some(Hurry::First),
        }
    }

    /// These hold the blob, as an answer to [`Whom::hurry`].
    pub(super) fn handle_found(&mut self, offset: u64, mut found: Vec<Source<N>>) {
        let hurry = self.hurry(offset).unwrap_or(Hurry::All);
        // a hurry that ends without any answer has waited for all of them
        self.looked = Some((offset, if found.is_empty() { Hurry::All } else { hurry }));
        found.retain(|source| !self.is_shunned(source));
        self.turn_to(found);
    }

    /// Bytes came: all sources have their tries again.
    pub(super) fn handle_growth(&mut self) {
        self.fruitless = 0;
    }

    /// The present source gave nothing more: the next is asked.
    pub(super) fn pass_on(&mut self) {
        self.next += 1;
        self.fruitless += 1;
    }

    /// Takes the present source out.
    pub(super) fn remove(&mut self) -> Option<Source<N>> {
        if self.sources.is_empty() {
            return None;
        }
        self.next %= self.sources.len();
        Some(self.sources.remove(self.next))
    }

    /// `source` had begun and fell silent.
    pub(super) fn note_stalled(&mut self, source: Source<N>) {
        if !self.stalled.iter().any(|stalled| stalled.is(&source)) {
            self.stalled.push(source);
        }
    }

    /// `source` lied.
    pub(super) fn shun(&mut self, source: Source<N>) {
        self.shunned.push(source);
    }

    /// One group of `source` was wrong: the one that begins at byte `at`.
    pub(super) fn note_damaged(&mut self, source: Source<N>, at: u64) {
        self.damaged.push((source, at));
    }

    /// The present source names `other`, which is asked first from now on if it is `usable`. If it
    /// is not, the same source is asked again, and sends the blob itself. Whether `other` is asked.
    pub(super) fn handle_elsewhere(&mut self, other: N, usable: bool) -> bool {
        let Some(Source::Peer { node: named_by, .. }) = self.present() else { return false };
        self.named.insert(*named_by);
        if !usable {
            return false;
        }
        // who named it has made room for this node there: it must not send the flight on again
        self.named.insert(other);
        let other = Source::Peer { node: other, fill: false };
        if self.is_shunned(&other) {
            return false;
        }
        self.next %= self.sources.len();
        self.sources.insert(self.next, other);
        true
    }

    /// Turns to those who had one group wrong that another source has given since; `false` if there
    /// are none. So two damaged copies make a good one. The flight still ends, because a source
    /// comes back only when the bytes are further than where it lied.
    pub(super) fn forgive(&mut self, offset: u64) -> bool {
        let back: Vec<_> =
            self.damaged.extract_if(.., |(_, at)| *at < offset).map(|(source, _)| source).collect();
        self.shunned.retain(|shunned| !back.iter().any(|source| source.is(shunned)));
        self.turn_to(back);
        !self.sources.is_empty()
    }

    /// Turns to those who fell silent and are not `down`; `false` if there are none.
    pub(super) fn turn_to_stalled(&mut self, down: impl Fn(N) -> bool) -> bool {
        let mut again = std::mem::take(&mut self.stalled);
        again.retain(|source| source.peer().is_some_and(|node| !down(node)));
        self.turn_to(again);
        !self.sources.is_empty()
    }

    /// The flight begins again at the first byte, without `liars`.
    pub(super) fn restart(&mut self, liars: Vec<Source<N>>) {
        self.shunned.extend(liars);
        let sources = std::mem::take(&mut self.sources);
        let sources = sources.into_iter().filter(|source| !self.is_shunned(source)).collect();
        self.turn_to(sources);
        self.damaged.clear();
        self.stalled.clear();
        self.looked = None;
    }

    fn turn_to(&mut self, sources: Vec<Source<N>>) {
        self.sources = sources;
        (self.next, self.fruitless) = (0, 0);
    }

    fn is_shunned(&self, source: &Source<N>) -> bool {
        self.shunned.iter().any(|shunned| shunned.is(source))
    }
}
