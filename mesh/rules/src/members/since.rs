//! How long a condition has been true of a node without a break.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::words::moment::Moment;
use crate::words::names::NodeId;

/// At `now` the condition is true of exactly the nodes in `current`. For nodes of which it was not
/// true before, the time begins now.
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

/// Whether the condition has been true of `node` for at least `wanted`.
pub(crate) fn lasted(
    since: &BTreeMap<NodeId, Moment>,
    now: Moment,
    node: NodeId,
    wanted: Duration,
) -> bool {
    since.get(&node).is_some_and(|at| now.since(*at) >= wanted)
}
