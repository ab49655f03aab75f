//! Pulls that the gates before manifests have let pass, remembered for as long as nothing that was
//! decided from has changed.
//!
//! A node reads the records of an image's scans and signatures once, and not for each of its pulls.
//! An admission ends with the first of these: a record changes that it may depend on
//! ([`Changes`]), the project decides otherwise, or a moment comes at which time alone may change
//! the decision. Refusals are not remembered. An edge, which has no ledger, knows of changes by their
//! number ([`Heard`](super::told::Heard)), and remembers for a moment only ([`AT_AN_EDGE`]).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::{scanning, signatures};
use crate::policies::signatures::Refusal;
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectId, RepositoryName, Tag};

/// The number of counters for records of repositories. Repositories that share one only lose
/// admissions sooner.
const COUNTERS: usize = 256;

/// How often the records have changed that decide about pulls, as this process has seen it.
#[derive(Clone, Debug)]
pub struct Changes {
    of_all: u64,
    of_repositories: Vec<u64>,
}

/// The longest that an edge remembers an admission: what it has kept of the records that decided has an
/// age of its own, which may end.
pub const AT_AN_EDGE: Duration = Duration::from_secs(2);

/// The state of what decides about the images of one repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub(super) of_all: u64,
    pub(super) of_repository: u64,
}

impl Default for Changes {
    fn default() -> Self {
        Changes { of_all: 0, of_repositories: vec![0; COUNTERS] }
    }
}

impl Changes {
    /// Counts that the record at this key was changed or removed. Readers must see that before it is
    /// counted, and nobody may count on it before it is counted.
    pub fn count(&mut self, key: &[u8]) {
        let of_repository = scanning::key::scanned(key).or_else(|| signatures::key::signed(key));
        if let Some((repository, _)) = of_repository {
            self.of_repositories[counter(&repository)] += 1;
        } else if decides_for_many(key) {
            self.of_all += 1;
        }
    }

    /// Counts that any record may have changed.
    pub fn count_all(&mut self) {
        self.of_all += 1;
    }

    /// The state of what decides about the images of `repository`. Take it before the records are
    /// read.
    pub fn stamp(&self, repository: &RepositoryName) -> Stamp {
        Stamp { of_all: self.of_all, of_repository: self.of_repositories[counter(repository)] }
    }
}

/// Whether a record decides about images of more than one repository. The number of changes that
/// edges follow is none of these: it is counted up with each of the others.
fn decides_for_many(key: &[u8]) -> bool {
    let counted = *key == scanning::key::verdicts();
    let database = key.starts_with(&scanning::key::database());
    let scanner = key.starts_with(&scanning::key::verdicts());
    let of_verdicts = scanning::key::is_of_verdicts(key) || signatures::key::is_of_verdicts(key);
    !counted && (of_verdicts || database || scanner)
}

fn counter(repository: &RepositoryName) -> usize {
    // FNV-1a
    let hash = repository.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as usize % COUNTERS
}

/// What a pull asks for, as far as gates care.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pull {
    /// The project.
    pub project: ProjectId,
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest.
    pub digest: Digest,
    /// The tag, if it asks by tag.
    pub tag: Option<Tag>,
}

/// That a pull was let pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The project's metadata, which say what it demands.
    pub metadata: BTreeMap<String, String>,
    /// The state of the records before they were read.
    pub stamp: Stamp,
    /// When it was judged.
    pub at: Timestamp,
    /// When time may change it.
    pub until: Option<Timestamp>,
    /// What was lacking, if the project only warns.
    pub lacking: Option<Refusal>,
}

impl Admission {
    fn holds(&self, metadata: &BTreeMap<String, String>, stamp: Stamp, now: Timestamp) -> bool {
        // a clock that was set back may be in a time in which something did not count yet
        let in_time = self.at <= now && self.until.is_none_or(|until| now < until);
        in_time && self.stamp == stamp && self.metadata == *metadata
    }
}

/// A limited number of admissions. What was asked for lately stays longest.
#[derive(Debug)]
pub struct Admissions {
    most: usize,
    young: HashMap<Pull, Admission>,
    old: HashMap<Pull, Admission>,
}

impl Admissions {
    /// Remembers at most `most`.
    pub fn new(most: usize) -> Self {
        Admissions { most, young: HashMap::new(), old: HashMap::new() }
    }

    /// What is remembered of this pull, if it still holds.
    pub fn find(
        &mut self,
        pull: &Pull,
        metadata: &BTreeMap<String, String>,
        stamp: Stamp,
        now: Timestamp,
    ) -> Option<&Admission> {
        if !self.young.contains_key(pull)
            && let Some(admission) = self.old.remove(pull)
            && admission.holds(metadata, stamp, now)
        {
            self.remember(pull.clone(), admission);
        }
        self.young.get(pull).filter(|admission| admission.holds(metadata, stamp, now))
    }

    /// Remembers an admission.
    pub fn remember(&mut self, pull: Pull, admission: Admission) {
        // each half has room for half of them
        if self.young.len() >= (self.most / 2).max(1) && !self.young.contains_key(&pull) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(pull, admission);
    }

    /// The number that is remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
