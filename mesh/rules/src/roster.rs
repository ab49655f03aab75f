//! Who is alive, as one node sees it: a hint, never an authority.

use std::collections::{BTreeMap, BTreeSet};

use crate::moment::Moment;
use crate::names::NodeId;

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
}

impl Roster {
    /// Takes a notification in; returns whether the view changed.
    pub fn handle(&mut self, now: Moment, event: Event) -> bool {
        let (node, standing) = match event {
            Event::MemberUp(node) => (node, Standing::Up),
            Event::MemberDown(node) => (node, Standing::Down),
        };
        match self.seen.get(&node) {
            Some((old, _)) if *old == standing => false,
            _ => {
                self.seen.insert(node, (standing, now));
                true
            }
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

    /// The members that are down.
    pub fn down(&self) -> BTreeSet<NodeId> {
        self.with(Standing::Down)
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
        assert_eq!(roster.down(), [NodeId(1)].into());
        assert!(roster.up().is_empty());
    }
}
