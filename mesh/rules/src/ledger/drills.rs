//! A drill of a disaster: for a time the nodes of one region refuse their clients, and the region gives
//! its projects and the leadership of the ledger away, as if it had burned.
//!
//! The record says until when. Each node compares that with its own clock
//! ([`drilling`](crate::members::drilling)), so a drill ends also if nobody is left who could end it.
//! There is one at a time, and never one of the only region that has replicas. Nothing else changes:
//! the region's replicas vote, take copies and count for durability as before.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::level::Level;
use super::records::{Look, RecordError};
use crate::words::moment::Timestamp;
use crate::words::names::Region;

/// The longest drill.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// A drill, as long as its time is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// The region whose nodes refuse their clients.
    pub region: Region,
    /// When it began.
    pub began: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// Who has asked for it.
    pub by: String,
}

/// A change of the drill. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrillChange {
    /// Begins one.
    Begin {
        /// The region.
        region: Region,
        /// How long, at most [`LONGEST`].
        time: Duration,
    },
    /// Ends it before its time.
    End,
}

impl DrillChange {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            DrillChange::Begin { .. } => "begin_drill",
            DrillChange::End => "end_drill",
        }
    }

    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        Level::DRILLS
    }
}

/// Keys of drills in the map.
pub mod key {
    /// The last drill. Edges may read it, as what else is under this letter and is no table.
    pub fn drill() -> Vec<u8> {
        b"$f".to_vec()
    }
}

/// Typed reading of drills.
pub trait LookForDrills: Look {
    /// The last drill, which may be over.
    fn last_drill(&self) -> Result<Option<Drill>, RecordError> {
        self.record(&key::drill())
    }
    /// The drill that is under way at `now`.
    fn drill(&self, now: Timestamp) -> Result<Option<Drill>, RecordError> {
        Ok(self.last_drill()?.filter(|drill| now < drill.until))
    }
}

impl<R: Look + ?Sized> LookForDrills for R {}
