//! What a job's owner tells of its run, which is not in the ledger.

use serde::{Deserialize, Serialize};

use crate::words::moment::Timestamp;
use crate::words::names::JobId;

/// The maximum number of lines of a run's log. The oldest make room.
pub const LOG_LINES: usize = 500;
/// The maximum length of a line in characters.
pub const LOG_LINE: usize = 300;
/// The maximum length of the progress in bytes. A longer one is not told.
pub const PROGRESS: usize = 256 << 10;

/// A question about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobAsk {
    /// How far is your last run of it, and what is in its log?
    Report(JobId),
}

/// What the owner of a job has of its last run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// How far it is: JSON of the job's kind; empty if nothing is known yet.
    pub progress: String,
    /// The log.
    pub log: Vec<(Timestamp, String)>,
}
