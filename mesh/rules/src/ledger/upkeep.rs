//! Runs of the mesh's upkeep that people see: collections that somebody asked for, and purges of the
//! audit log. A run is recorded when it has ended, and the newest ones are kept. Until then only the
//! node knows of it that has it: see [`RunningUpkeep`].

use serde::{Deserialize, Serialize};

use super::level::Level;
use super::records::{Look, RecordError, decode};
use crate::words::moment::Timestamp;

/// The number of runs of a kind that are kept.
pub const KEPT: usize = 100;
/// The maximum length of a text of a run, in characters.
pub const LONGEST: usize = 2000;

/// What the reason of a run that was stopped begins with; by whom follows.
const STOPPED: &str = "it was stopped by ";

/// What a run was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UpkeepKind {
    /// The collection of what nothing refers to.
    Collection,
    /// The purge of the audit log.
    Purge,
}

impl UpkeepKind {
    /// A word for logs and events.
    pub fn word(self) -> &'static str {
        match self {
            UpkeepKind::Collection => "collection",
            UpkeepKind::Purge => "purge_audit",
        }
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpkeepRun {
    /// What it was for.
    pub kind: UpkeepKind,
    /// Whether a schedule began it. Otherwise somebody did.
    pub scheduled: bool,
    /// What it was asked for, as JSON.
    pub parameters: String,
    /// When it began, which is also its number: no two runs of a kind have the same.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Why it has not come to its end, if it has not: it has failed, or was stopped.
    pub failed: Option<String>,
    /// What it has done, in a sentence.
    pub log: String,
}

/// How a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpkeepEnd {
    /// All is done.
    Done,
    /// It could not go on.
    Failed,
    /// Somebody stopped it.
    Stopped,
}

/// A run that is under way, at the node that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningUpkeep {
    /// What it is for.
    pub kind: UpkeepKind,
    /// Whether a schedule began it. Otherwise somebody did.
    pub scheduled: bool,
    /// What it was asked for, as JSON.
    pub parameters: String,
    /// When it began, which is also its number.
    pub began: Timestamp,
    /// Whether somebody has stopped it. It ends when it can.
    pub stopped: bool,
}

/// What [`UpkeepRun::failed`] has of a run that `by` has stopped.
pub fn stopped_by(by: &str) -> String {
    format!("{STOPPED}{by}")
}

impl UpkeepRun {
    /// How it has ended.
    pub fn end(&self) -> UpkeepEnd {
        match &self.failed {
            None => UpkeepEnd::Done,
            Some(why) if why.starts_with(STOPPED) => UpkeepEnd::Stopped,
            Some(_) => UpkeepEnd::Failed,
        }
    }

    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        Level::UPKEEP
    }
}

/// Keys of runs in the map.
pub mod key {
    use super::*;

    /// All runs of a kind, the oldest first.
    pub fn runs(kind: UpkeepKind) -> Vec<u8> {
        vec![b'9', b'r', if kind == UpkeepKind::Collection { b'c' } else { b'p' }]
    }
    /// A run, by its number.
    pub fn run(kind: UpkeepKind, number: u64) -> Vec<u8> {
        [&runs(kind)[..], &number.to_be_bytes()].concat()
    }
}

/// Typed reading of runs.
pub trait LookForUpkeep: Look {
    /// The runs of a kind, the newest first.
    fn upkeep_runs(&self, kind: UpkeepKind) -> Result<Vec<UpkeepRun>, RecordError> {
        let all = self.scan(&key::runs(kind), None, usize::MAX)?;
        all.iter().rev().map(|(_, run)| decode(run)).collect()
    }
    /// A run, by its number.
    fn upkeep_run(&self, kind: UpkeepKind, number: u64) -> Result<Option<UpkeepRun>, RecordError> {
        self.record(&key::run(kind, number))
    }
}

impl<R: Look + ?Sized> LookForUpkeep for R {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_stopped_has_not_failed() {
        let run = |failed: Option<&str>| UpkeepRun {
            kind: UpkeepKind::Purge,
            scheduled: false,
            parameters: String::new(),
            began: Timestamp(1),
            ended: Timestamp(2),
            failed: failed.map(str::to_owned),
            log: String::new(),
        };
        assert_eq!(run(None).end(), UpkeepEnd::Done);
        assert_eq!(run(Some(&stopped_by("ann"))).end(), UpkeepEnd::Stopped);
        assert_eq!(run(Some("the node one did not say")).end(), UpkeepEnd::Failed);
    }
}
