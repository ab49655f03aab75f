//! Which nodes are alive, as one node sees it: a hint, never an authority.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::words::moment::Moment;
use crate::words::names::NodeId;

/// The state of a member, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It answers probes.
    Up,
    /// The gossip has declared it down.
    Down,
}

/// An event of the gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A member is up, for the first time or again.
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

/// How long to wait for a member that this node was told of and has not met, before it counts as
/// down. Without this, a node that has just started would never report a member that died before
/// they met, and that report may be needed to move the dead member's projects.
const ABSENT: Duration = Duration::from_secs(10);

impl Roster {
    /// Applies an event. Returns whether the view changed.
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

    /// `node` is a member, and this node tries to reach it.
    pub fn handle_introduction(&mut self, now: Moment, node: NodeId) {
        if !self.seen.contains_key(&node) {
            self.awaited.entry(node).or_insert(now);
        }
    }

    /// The state of `node`, and since when; `None` if this node has never heard of it.
    pub fn standing(&self, node: NodeId) -> Option<(Standing, Moment)> {
        self.seen.get(&node).copied()
    }

    /// The members that are up.
    pub fn up(&self) -> BTreeSet<NodeId> {
        self.with(Standing::Up)
    }

    /// The members that are down: declared down by the gossip, or not met for ten seconds.
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
