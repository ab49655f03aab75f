//! The removal of a replica, from the first word to the last.
//!
//! What the mesh has without a replica can only be judged when no write counts on it any more. So a
//! removal begins with a record, [`Leaving`]. From then on a primary does not count what that
//! replica holds, and `apply` refuses a manifest that was checked before and counts on it. What was
//! acknowledged is then known to whoever reads the ledger, and does not become less safe
//! meanwhile. One replica leaves at a time: of two, each would count as the keeper of what the
//! other has.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::records::{Look, RecordError, key};
use crate::words::moment::Moment;
use crate::words::names::NodeId;

/// How long a removal may take, as the ledger's leader sees it. One that takes longer was given up
/// by whoever asked for it, and the leader ends it.
pub const LONGEST: Duration = Duration::from_secs(60);

/// The replica that is being removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The replica.
    pub node: NodeId,
    /// A random number of this removal. An earlier one of the same replica cannot go on with it.
    pub removal: u128,
}

/// A step of a removal. A variant's position is its number in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeavingChange {
    /// Begins it, if no other is under way.
    Begin(Leaving),
    /// Removes the replica, if its removal is still the one under way.
    Finish(Leaving),
    /// Ends it; the replica stays.
    End(Leaving),
    /// As `Finish`, for a replica whose disk somebody else has: the mesh makes new keys, see
    /// [`Exposed`](super::trust::Exposed).
    FinishExposed(Leaving),
}

impl LeavingChange {
    /// The replica, if this removes it.
    pub fn removes(&self) -> Option<NodeId> {
        match self {
            LeavingChange::Finish(leaving) | LeavingChange::FinishExposed(leaving) => {
                Some(leaving.node)
            }
            LeavingChange::Begin(_) | LeavingChange::End(_) => None,
        }
    }
}

impl LeavingChange {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            LeavingChange::Begin(_) => "begin_removal",
            LeavingChange::Finish(_) | LeavingChange::FinishExposed(_) => "remove_node",
            LeavingChange::End(_) => "end_removal",
        }
    }
}

/// Typed reading of what is under way.
pub trait LookForLeaving: Look {
    /// The removal that is under way.
    fn leaving(&self) -> Result<Option<Leaving>, RecordError> {
        self.record(&key::leaving())
    }
}

impl<L: Look + ?Sized> LookForLeaving for L {}

/// At the ledger's leader: notices a removal that nobody goes on with. Time counts from when this
/// leader first saw it, so no clock of another node matters.
#[derive(Clone, Copy, Debug, Default)]
pub struct GivenUp {
    seen: Option<(Leaving, Moment)>,
}

impl GivenUp {
    /// The removal that is to be ended now, given the one that is under way.
    pub fn handle_timeout(&mut self, now: Moment, leaving: Option<Leaving>) -> Option<Leaving> {
        let Some(leaving) = leaving else {
            self.seen = None;
            return None;
        };
        match self.seen {
            Some((seen, since)) if seen == leaving => {
                (now.since(since) >= LONGEST).then_some(leaving)
            }
            _ => {
                self.seen = Some((leaving, now));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_is_given_up_a_minute_after_the_leader_saw_it_and_each_has_its_own() {
        let at = |seconds: u64| Moment::from_micros(seconds * 1_000_000);
        let of = |removal| Some(Leaving { node: NodeId(3), removal });
        let mut given_up = GivenUp::default();
        assert_eq!(given_up.handle_timeout(at(100), of(1)), None);
        assert_eq!(given_up.handle_timeout(at(159), of(1)), None);
        assert_eq!(given_up.handle_timeout(at(160), of(2)), None, "another one");
        assert_eq!(given_up.handle_timeout(at(219), of(2)), None);
        assert_eq!(given_up.handle_timeout(at(220), of(2)), of(2));
        assert_eq!(given_up.handle_timeout(at(221), of(2)), of(2), "until it has ended");
        assert_eq!(given_up.handle_timeout(at(222), None), None);
        assert_eq!(given_up.handle_timeout(at(223), of(2)), None);
    }
}
