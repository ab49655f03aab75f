//! Which edges are up, as one replica sees it. Edges are not members of the gossip, because any
//! member could spread claims about others. An edge tells a replica that it is up, over a link that
//! its certificate opened, and replicas tell each other which edges they have heard.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::words::moment::Moment;
use crate::words::names::NodeId;

/// How long an edge counts as up after this replica has heard it. It reports every [`EVERY`].
pub const HEARD_FOR: Duration = Duration::from_secs(6);
/// How often an edge reports that it is up.
pub const EVERY: Duration = Duration::from_millis(1500);
/// How often a replica tells the others which edges it has heard, when nothing changes.
pub const ANNOUNCED_EVERY: Duration = Duration::from_secs(3);
/// How long another replica's report counts.
pub const ANNOUNCED_FOR: Duration = Duration::from_secs(10);

/// The edges that this replica has heard, and those that other replicas have reported.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    heard: BTreeMap<NodeId, Moment>,
    announced: BTreeMap<NodeId, (Moment, BTreeSet<NodeId>)>,
}

impl Presence {
    /// An edge reported that it is up.
    pub fn handle_heard(&mut self, now: Moment, edge: NodeId) {
        self.heard.insert(edge, now);
    }

    /// An edge reported that it stops, or was removed from the mesh.
    pub fn handle_left(&mut self, edge: NodeId) {
        self.heard.remove(&edge);
        for (_, edges) in self.announced.values_mut() {
            edges.remove(&edge);
        }
    }

    /// A replica reported all edges that it has heard. This replaces its earlier report.
    pub fn handle_announced(&mut self, now: Moment, replica: NodeId, edges: BTreeSet<NodeId>) {
        self.announced.insert(replica, (now, edges));
    }

    /// The edges that this replica itself has heard lately: its report to the others.
    pub fn own(&self, now: Moment) -> BTreeSet<NodeId> {
        self.heard
            .iter()
            .filter(|(_, at)| now.since(**at) < HEARD_FOR)
            .map(|(edge, _)| *edge)
            .collect()
    }

    /// The edges that are up. Drops reports that are too old to count.
    pub fn up(&mut self, now: Moment) -> BTreeSet<NodeId> {
        self.heard.retain(|_, at| now.since(*at) < HEARD_FOR);
        self.announced.retain(|_, (at, _)| now.since(*at) < ANNOUNCED_FOR);
        let announced = self.announced.values().flat_map(|(_, edges)| edges.iter().copied());
        self.heard.keys().copied().chain(announced).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_up_while_it_is_heard_here_or_by_a_replica_that_still_says_so() {
        let (mut presence, start) = (Presence::default(), Moment::from_micros(0));
        presence.handle_heard(start, NodeId(1));
        presence.handle_announced(start, NodeId(90), [NodeId(2)].into());
        assert_eq!(presence.own(start), [NodeId(1)].into());
        assert_eq!(presence.up(start), [NodeId(1), NodeId(2)].into());
        assert_eq!(presence.up(start + HEARD_FOR), [NodeId(2)].into());
        assert!(presence.up(start + ANNOUNCED_FOR).is_empty());
    }

    #[test]
    fn the_last_word_of_a_replica_counts_and_who_leaves_is_gone_at_once() {
        let (mut presence, start) = (Presence::default(), Moment::from_micros(0));
        presence.handle_announced(start, NodeId(90), [NodeId(2), NodeId(3)].into());
        presence.handle_announced(start, NodeId(90), [NodeId(3)].into());
        assert_eq!(presence.up(start), [NodeId(3)].into());
        presence.handle_heard(start, NodeId(3));
        presence.handle_left(NodeId(3));
        assert!(presence.up(start).is_empty());
    }
}
