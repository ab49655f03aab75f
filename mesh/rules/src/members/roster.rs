//! Who is alive, as one node sees it: a hint, never an authority.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::words::moment::Moment;
use crate::words::names::NodeId;

/// How a member looks from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It answers probes.
    Up,
    /// It has been declared down by the gossip.
    Down,
}

/// What the gossip tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member came or came back.
    MemberUp(NodeId),
    /// A member was declared down.
    MemberDown(NodeId),
}

/// One node's view of the others.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    seen: BTreeMap<NodeId, (Standing, Moment)>,
    awaited: BTreeMap<NodeId, Moment>,
}

/// A member that the gossip was told of and has not met for so long is not there: a node that has
/// just started would otherwise never say so of one that died before they met, and its voice would
/// be missing when that one's projects are to move.
const ABSENT: Duration = Duration::from_secs(10);

impl Roster {
    /// Takes a notification in; returns whether the view changed.
    pub fn handle(&mut self, now: Moment, event: Event) -> bool {
        let (node, standing) = match event {
            Event::MemberUp(node) => (node, Standing::Up),
            Event::MemberDown(node) => (node, Standing::Down),
        };
        self.awaited.remove(&node);
        match self.seen.get(&node) {
            Some((old, _)) if *old == standing => false,
            _ => {
                self.seen.insert(node, (standing, now));
                true
            }
        }
    }

    /// There is a member `node`, and this node tries to reach it.
    pub fn handle_introduction(&mut self, now: Moment, node: NodeId) {
        if !self.seen.contains_key(&node) {
            self.awaited.entry(node).or_insert(now);
        }
    }

    /// How `node` looks, and since when; `None` if nothing was ever heard of it.
    pub fn standing(&self, node: NodeId) -> Option<(Standing, Moment)> {
        self.seen.get(&node).copied()
    }

    /// The members that are up.
    pub fn up(&self) -> BTreeSet<NodeId> {
        self.with(Standing::Up)
    }

    /// The members that are down: declared so by the gossip, or awaited in vain.
    pub fn down(&self, now: Moment) -> BTreeSet<NodeId> {
        let absent = self
            .awaited
            .iter()
            .filter(|(_, since)| now.since(**since) >= ABSENT)
            .map(|(node, _)| *node);
        self.with(Standing::Down).into_iter().chain(absent).collect()
    }

    fn with(&self, standing: Standing) -> BTreeSet<NodeId> {
        self.seen.iter().filter(|(_, (s, _))| *s == standing).map(|(n, _)| *n).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_reported() {
        let (mut roster, now) = (Roster::default(), Moment::from_micros(1));
        assert!(roster.handle(now, Event::MemberUp(NodeId(1))));
        assert!(!roster.handle(now, Event::MemberUp(NodeId(1))));
        assert!(roster.handle(now, Event::MemberDown(NodeId(1))));
        assert_eq!(roster.down(now), [NodeId(1)].into());
        assert!(roster.up().is_empty());
    }

    #[test]
    fn a_member_that_is_never_met_is_down_after_a_while() {
        let (mut roster, start) = (Roster::default(), Moment::from_micros(1));
        roster.handle_introduction(start, NodeId(1));
        roster.handle_introduction(start + ABSENT / 2, NodeId(1));
        assert!(roster.down(start + ABSENT / 2).is_empty());
        assert_eq!(roster.down(start + ABSENT), [NodeId(1)].into());
        roster.handle(start + ABSENT, Event::MemberUp(NodeId(1)));
        roster.handle_introduction(start + ABSENT, NodeId(1));
        assert!(roster.down(start + ABSENT * 3).is_empty());
    }
}
