//! The sources of a flight: their order, which of them are excluded, and when to look for others.

use std::collections::BTreeSet;

use super::{Hurry, Source};

/// The sources of one flight.
#[derive(Clone)]
pub(super) struct Whom<N> {
    sources: Vec<Source<N>>,
    next: usize,
    /// How many requests had no result since the last byte, or since the sources were last
    /// replaced.
    fruitless: usize,
    /// Sources that lied. They are not asked again in this flight.
    shunned: Vec<Source<N>>,
    /// Shunned sources whose only lie was a wrong group, and the byte where that group begins.
    damaged: Vec<(Source<N>, u64)>,
    /// Sources that know their copy to be damaged, and were not asked for its bytes yet.
    put_off: Vec<Source<N>>,
    /// Nobody else gave anything, so what is damaged is asked for as well.
    takes_damaged: bool,
    /// Sources that fell silent after the flight had begun, and were not asked again since.
    stalled: Vec<Source<N>>,
    /// Nodes that referred the flight to another node, and the nodes that they named. These must
    /// send the blob themselves.
    named: BTreeSet<N>,
    /// The byte at which all nodes were last asked whether they hold the blob, and how many answers
    /// were awaited.
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
            put_off: Vec::new(),
            takes_damaged: false,
            stalled: Vec::new(),
            named: BTreeSet::new(),
            looked: None,
        }
    }

    /// The source to ask now; `None` when each was asked twice without result.
    pub(super) fn present(&self) -> Option<&Source<N>> {
        if self.fruitless >= self.sources.len() * 2 {
            return None;
        }
        self.sources.get(self.next % self.sources.len())
    }

    /// Whether `source` must send the blob itself instead of naming another node.
    pub(super) fn is_direct(&self, source: &Source<N>) -> bool {
        source.peer().is_some_and(|node| self.named.contains(&node))
    }

    /// How many answers to wait for, now that no source continues from byte `offset`; `None` if all
    /// answers were awaited at that byte already. The first answer is enough at first, because a
    /// client waits. If that source gives nothing either, all answers are awaited.
    pub(super) fn hurry(&self, offset: u64) -> Option<Hurry> {
        match self.looked {
            Some((at, Hurry::All)) if at == offset => None,
            Some((at, Hurry::First)) if at == offset => Some(Hurry::All),
            _ => Some(Hurry::First),
        }
    }

    /// These sources hold the blob: the answer to [`Whom::hurry`].
    pub(super) fn handle_found(&mut self, offset: u64, mut found: Vec<Source<N>>) {
        let hurry = self.hurry(offset).unwrap_or(Hurry::All);
        // without any answer, all answers were awaited
        self.looked = Some((offset, if found.is_empty() { Hurry::All } else { hurry }));
        found.retain(|source| !self.is_shunned(source));
        self.turn_to(found);
    }

    /// Bytes arrived, so earlier requests without result are forgiven.
    pub(super) fn handle_growth(&mut self) {
        self.fruitless = 0;
    }

    /// The current source gives nothing more. Moves to the next.
    pub(super) fn pass_on(&mut self) {
        self.next += 1;
        self.fruitless += 1;
    }

    /// Removes the current source.
    pub(super) fn remove(&mut self) -> Option<Source<N>> {
        if self.sources.is_empty() {
            return None;
        }
        self.next %= self.sources.len();
        Some(self.sources.remove(self.next))
    }

    /// The current source knows its copy to be damaged. Returns whether it is removed until nobody
    /// else gives anything.
    pub(super) fn put_off(&mut self) -> bool {
        if self.takes_damaged {
            return false;
        }
        if let Some(source) = self.remove()
            && !self.put_off.iter().any(|other| other.is(&source))
        {
            self.put_off.push(source);
        }
        true
    }

    /// `source` had begun and then fell silent.
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

    /// The current source refers the flight to `other`, which is asked first from now on if it is
    /// `usable`. If it is not, the same source is asked again and must send the blob itself.
    /// Returns whether `other` is asked.
    pub(super) fn handle_elsewhere(&mut self, other: N, usable: bool) -> bool {
        let Some(Source::Peer { node: named_by, .. }) = self.present() else { return false };
        self.named.insert(*named_by);
        if !usable {
            return false;
        }
        // the node that named `other` has put this node behind it in a chain, so `other` must serve
        // it
        self.named.insert(other);
        let other = Source::Peer { node: other, fill: false };
        if self.is_shunned(&other) {
            return false;
        }
        self.next %= self.sources.len();
        self.sources.insert(self.next, other);
        true
    }

    /// Returns to sources that had one wrong group, if another source has given that group since, and
    /// to those that were put off; `false` if there are none. So two damaged copies make one good
    /// one. The flight still ends, because a source returns only when the flight is past the byte
    /// where it lied.
    pub(super) fn forgive(&mut self, offset: u64) -> bool {
        let mut back: Vec<_> =
            self.damaged.extract_if(.., |(_, at)| *at < offset).map(|(source, _)| source).collect();
        self.shunned.retain(|shunned| !back.iter().any(|source| source.is(shunned)));
        if !self.put_off.is_empty() {
            self.takes_damaged = true;
            back.append(&mut self.put_off);
            back.retain(|source| !self.is_shunned(source));
        }
        self.turn_to(back);
        !self.sources.is_empty()
    }

    /// Returns to sources that fell silent and are not `down`; `false` if there are none.
    pub(super) fn turn_to_stalled(&mut self, down: impl Fn(N) -> bool) -> bool {
        let mut again = std::mem::take(&mut self.stalled);
        again.retain(|source| source.peer().is_some_and(|node| !down(node)));
        self.turn_to(again);
        !self.sources.is_empty()
    }

    /// The flight starts again at the first byte, without `liars`.
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
