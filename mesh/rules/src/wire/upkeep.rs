//! Questions about runs of the mesh's upkeep that are under way.

use serde::{Deserialize, Serialize};

use crate::ledger::upkeep::UpkeepKind;

/// A question of a replica. The answer has the runs that it is about, as they are after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpkeepAsk {
    /// Which runs of this kind do you have?
    Running(UpkeepKind),
    /// Stop this run, if you have it.
    Stop {
        /// What it is for.
        kind: UpkeepKind,
        /// Its number.
        number: u64,
        /// Who wants it.
        by: String,
    },
}
