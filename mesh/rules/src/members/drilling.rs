//! What a drill means to a node, and to whom the projects of its region go.

use std::collections::BTreeSet;

use crate::ledger::drills::Drill;
use crate::ledger::records::NodeRecord;
use crate::words::moment::{Moment, Timestamp};
use crate::words::names::{NodeId, Region};

/// Decides whether a node refuses its clients. It never does so for longer than the drill lasts by
/// the node's own monotonic clock, so that a clock that is behind prolongs no drill; nor while no
/// replica of another region is known to be up, because then the drill has become the disaster.
#[derive(Clone, Debug, Default)]
pub struct Drilled {
    /// When the drill that began then was seen first.
    seen: Option<(Timestamp, Moment)>,
}

impl Drilled {
    /// What clients of a node in `region` are told at `now`, if they are refused. `others` is whether a
    /// replica of another region is up.
    pub fn handle(
        &mut self,
        now: Moment,
        clock: Timestamp,
        drill: Option<&Drill>,
        region: &Region,
        others: bool,
    ) -> Option<String> {
        let Some(drill) = drill.filter(|drill| drill.region == *region) else {
            self.seen = None;
            return None;
        };
        let first = match self.seen {
            Some((began, first)) if began == drill.began => first,
            _ => self.seen.insert((drill.began, now)).1,
        };
        let lasts = drill.until.0.saturating_sub(drill.began.0);
        let over = clock >= drill.until || now.since(first).as_millis() as u64 >= lasts;
        (!over && others).then(|| {
            format!(
                "a drill of the region {} is under way until {}: its nodes refuse all clients; use another region, or end it at a node there with `atoll dr drill --stop`",
                drill.region, drill.until
            )
        })
    }
}

/// The nodes that give their projects and leadership away: those that drain, and those of the region of
/// a drill.
pub fn giving_way(
    draining: BTreeSet<NodeId>,
    drill: Option<&Drill>,
    nodes: &[NodeRecord],
) -> BTreeSet<NodeId> {
    let drilled =
        nodes.iter().filter(|node| drill.is_some_and(|drill| drill.region == node.region));
    draining.into_iter().chain(drilled.map(|node| node.id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drill() -> Drill {
        let region = "east".parse().unwrap();
        Drill { region, began: Timestamp(1000), until: Timestamp(6000), by: "ann".into() }
    }

    #[test]
    fn a_node_refuses_for_the_time_of_the_drill_whatever_its_clock_says() {
        let (east, west): (Region, Region) = ("east".parse().unwrap(), "west".parse().unwrap());
        let mut node = Drilled::default();
        let at = |ms: u64| Moment::from_micros(ms * 1000);
        let drill = drill();
        assert_eq!(node.handle(at(0), Timestamp(2000), None, &east, true), None);
        assert_eq!(node.handle(at(0), Timestamp(2000), Some(&drill), &west, true), None);
        let said = node.handle(at(0), Timestamp(2000), Some(&drill), &east, true).unwrap();
        assert!(said.contains("drill of the region east"), "{said}");
        assert!(node.handle(at(3999), Timestamp(5999), Some(&drill), &east, true).is_some());
        assert_eq!(node.handle(at(4000), Timestamp(6000), Some(&drill), &east, true), None);
        // a clock that stands still
        assert!(node.handle(at(4900), Timestamp(0), Some(&drill), &east, true).is_some());
        assert_eq!(node.handle(at(5000), Timestamp(0), Some(&drill), &east, true), None);
        // the next one is another one
        let next = Drill { began: Timestamp(9000), until: Timestamp(9100), ..drill };
        assert!(node.handle(at(7000), Timestamp(9000), Some(&next), &east, true).is_some());
        assert_eq!(
            node.handle(at(7050), Timestamp(9050), Some(&next), &east, false),
            None,
            "alone"
        );
    }
}
