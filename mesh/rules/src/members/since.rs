//! Since when something has been true of a node without a break.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::words::moment::Moment;
use crate::words::names::NodeId;

/// It is true of the nodes in `current` at `now`, and of no other: those of whom it was not before
/// begin anew.
pub(crate) fn keep_since(
    since: &mut BTreeMap<NodeId, Moment>,
    now: Moment,
    current: &BTreeSet<NodeId>,
) {
    since.retain(|node, _| current.contains(node));
    for node in current {
        since.entry(*node).or_insert(now);
    }
}

/// Whether it has been true of `node` for as long as `wanted`.
pub(crate) fn lasted(
    since: &BTreeMap<NodeId, Moment>,
    now: Moment,
    node: NodeId,
    wanted: Duration,
) -> bool {
    since.get(&node).is_some_and(|at| now.since(*at) >= wanted)
}
