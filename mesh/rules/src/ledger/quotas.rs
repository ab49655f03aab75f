//! What each project stores, and how much it may: records and changes.
//!
//! [`apply`](crate::ledger::apply) counts with each manifest, tag and repository that comes or goes.
//! A project of before [`Level::QUOTAS`] is counted afterwards, a limited number of records in an
//! entry: [`QuotaChange::Count`]. It goes through the project's records in the order of their keys,
//! and the record of its usage says how far that is. What comes or goes at a place before that one is
//! counted at once; what comes or goes after it is not, because the counting will find it there.
//!
//! Projects that cache a registry are not counted: the ledger does not have what they cache.

use serde::{Deserialize, Serialize};

use super::level::Level;
use super::records::{Look, RecordError};
use super::trash::LookForTrash;
use crate::policies::quota::{Limits, Usage};
use crate::policies::trash::COUNTED;
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectId, ProjectName};

/// How far a project is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// All records up to this key.
    UpTo(Vec<u8>),
    /// Completely.
    Whole,
}

impl Progress {
    /// Whether what is at this key is counted.
    pub fn has(&self, place: &[u8]) -> bool {
        match self {
            Progress::UpTo(last) => place <= last.as_slice(),
            Progress::Whole => true,
        }
    }
}

/// What a project has, as far as it is counted. A project without this record is not counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// What was counted.
    pub used: Usage,
    /// How far.
    pub progress: Progress,
}

impl UsageRecord {
    /// Of a project that has nothing.
    pub fn empty() -> Self {
        UsageRecord { used: Usage::default(), progress: Progress::Whole }
    }
}

/// A blob or manifest that a project has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectBlob {
    /// Its length in bytes, as it was counted.
    pub size: u64,
    /// The number of the project's repositories that refer to it as a blob, and of those that have
    /// it as a manifest.
    pub repositories: u64,
}

/// What a project may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsRecord {
    /// The limits.
    pub limits: Limits,
    /// When they were set.
    pub changed: Timestamp,
}

/// A change of what projects may have, or of what is known to be there. A variant's position is its
/// number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuotaChange {
    /// Sets what a project may have.
    Set {
        /// The project.
        project: ProjectId,
        /// Its limits.
        limits: Limits,
    },
    /// Counts what a project of before has, a limited number of records, see
    /// [`Outcome::Unfinished`](super::command::Outcome::Unfinished).
    Count {
        /// The project.
        project: ProjectName,
    },
}

impl QuotaChange {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            QuotaChange::Set { .. } => "set_quota",
            QuotaChange::Count { .. } => "count_usage",
        }
    }

    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        Level::QUOTAS
    }
}

/// Keys of quotas in the map. A project's name is in them, and not its number: what changes usage
/// knows repositories. They go with the project, so a later one of that name has none of them.
pub mod key {
    use super::*;

    /// What a project has.
    pub fn usage(project: &ProjectName) -> Vec<u8> {
        [b"9qu", project.as_str().as_bytes()].concat()
    }
    /// What all projects have.
    pub fn usages() -> Vec<u8> {
        b"9qu".to_vec()
    }
    /// What a project may have.
    pub fn limits(project: &ProjectName) -> Vec<u8> {
        [b"9ql", project.as_str().as_bytes()].concat()
    }
    /// A blob or manifest that a project has.
    pub fn blob(project: &ProjectName, digest: &Digest) -> Vec<u8> {
        [&blobs(project)[..], &digest.to_key()].concat()
    }
    /// All of them.
    pub fn blobs(project: &ProjectName) -> Vec<u8> {
        [b"9qb", project.as_str().as_bytes(), b"\0"].concat()
    }
}

/// Typed reading of quotas.
pub trait LookForQuotas: Look {
    /// What a project has, as far as it is counted; `None` if it is not.
    fn usage(&self, project: &ProjectName) -> Result<Option<UsageRecord>, RecordError> {
        self.record(&key::usage(project))
    }
    /// What a project may have; `None` if that was never set.
    fn limits(&self, project: &ProjectName) -> Result<Option<LimitsRecord>, RecordError> {
        self.record(&key::limits(project))
    }
    /// Whether a project has a blob or manifest, as far as it is counted; in its trash, if the quota
    /// counts that.
    fn is_counted(&self, project: &ProjectName, digest: &Digest) -> Result<bool, RecordError> {
        if self.get(&key::blob(project, digest))?.is_some() {
            return Ok(true);
        }
        Ok(self.is_trashed(project, digest)? && self.counts_trash(project)?)
    }
    /// Whether a project's quota counts what only its trash has.
    fn counts_trash(&self, project: &ProjectName) -> Result<bool, RecordError> {
        Ok(self.project(project)?.is_some_and(|project| project.is_set(COUNTED)))
    }
    /// The limits of a project and what it has, if it has limits and is counted completely: only then
    /// are they kept.
    fn quota(&self, project: &ProjectName) -> Result<Option<(Limits, Usage)>, RecordError> {
        let Some(LimitsRecord { limits, .. }) = self.limits(project)? else { return Ok(None) };
        if limits.is_none() {
            return Ok(None);
        }
        let usage = self.usage(project)?;
        let whole = usage.filter(|usage| usage.progress == Progress::Whole);
        let Some(UsageRecord { mut used, .. }) = whole else { return Ok(None) };
        let trash = self.trash_usage(project)?.storage;
        if trash > 0 && self.counts_trash(project)? {
            used.storage = used.storage.saturating_add(trash);
        }
        Ok(Some((limits, used)))
    }
}

impl<R: Look + ?Sized> LookForQuotas for R {}
