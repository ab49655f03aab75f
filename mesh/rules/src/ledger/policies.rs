//! What projects decide about their artifacts, and when artifacts were pulled: records and changes.

use serde::{Deserialize, Serialize};

use super::level::Level;
use super::records::{Look, ManifestRecord, RecordError, encode, key as records_key};
use crate::policies::immutability::ImmutableRule;
use crate::policies::retention::RetentionRule;
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectId, RepositoryName, Tag};

/// The maximum number of artifacts of one [`Command::Retire`](super::command::Command::Retire), and
/// of rows of one [`Command::Pulled`](super::command::Command::Pulled).
pub const AT_ONCE: usize = 500;

/// What stays in a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// The rules. An artifact that any of them retains stays.
    pub rules: Vec<RetentionRule>,
    /// When it is applied by itself, as it was written; never if empty.
    pub cron: String,
}

/// All that a project decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// Its immutable tags.
    pub immutable: Vec<ImmutableRule>,
    /// What stays.
    pub retention: Option<Retention>,
}

/// A change of what a project decides. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyChange {
    /// Adds a rule under the next number; its own is not read.
    AddImmutable(ImmutableRule),
    /// Changes the rule with its number.
    SetImmutable(ImmutableRule),
    /// Removes a rule.
    RemoveImmutable(u64),
    /// Sets what stays; everything if `None`.
    SetRetention(Option<Retention>),
}

impl PolicyChange {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            PolicyChange::AddImmutable(_) => "create_immutable_rule",
            PolicyChange::SetImmutable(_) => "change_immutable_rule",
            PolicyChange::RemoveImmutable(_) => "delete_immutable_rule",
            PolicyChange::SetRetention(_) => "set_retention",
        }
    }

    /// The minimum feature level.
    pub fn level(&self) -> Level {
        Level::POLICIES
    }
}

/// When an artifact was pulled last through some node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Where.
    pub repository: RepositoryName,
    /// What.
    pub digest: Digest,
    /// When.
    pub at: Timestamp,
}

/// Keys of policies in the map.
pub mod key {
    use super::*;

    /// What a project decides.
    pub fn policies(project: ProjectId) -> Vec<u8> {
        [&b"9"[..], &project.0.to_be_bytes()].concat()
    }
    /// When an artifact was pulled last.
    pub fn pulled(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        [b"0", repository.as_str().as_bytes(), b"\0", &digest.to_key()].concat()
    }
    /// Since when pulls are counted.
    pub fn counted_since() -> Vec<u8> {
        b"cpulls".to_vec()
    }
    /// The number of the last immutable rule.
    pub fn last_rule() -> Vec<u8> {
        b"crules".to_vec()
    }
}

/// Typed reading of policies.
pub trait LookForPolicies: Look {
    /// What a project decides.
    fn policies(&self, project: ProjectId) -> Result<Policies, RecordError> {
        Ok(self.record(&key::policies(project))?.unwrap_or_default())
    }
    /// When an artifact was pulled last, as far as that is known.
    fn pulled(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Timestamp>, RecordError> {
        self.record(&key::pulled(repository, digest))
    }
    /// What there is to see of an artifact: a hash of when it was pushed and pulled, of its tags, and when
    /// each of them was pushed. `None` if it is not there. Whatever touches it changes this, whatever the
    /// clock said of whoever did.
    fn seen(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Digest>, RecordError> {
        let manifest = records_key::manifest(repository, digest);
        let Some(manifest) = self.record::<ManifestRecord>(&manifest)? else { return Ok(None) };
        let named = records_key::all_named(repository, digest);
        let mut tags = Vec::new();
        for (place, _) in self.scan(&named, None, usize::MAX)? {
            let tag = String::from_utf8_lossy(&place[named.len()..]).into_owned();
            let record = match tag.parse::<Tag>() {
                Ok(name) => self.tag(repository, &name)?,
                Err(_) => None,
            };
            tags.push((tag, record.map(|record| record.pushed)));
        }
        let all = (manifest.pushed, self.pulled(repository, digest)?, tags);
        Ok(Some(Digest::sha256(&encode(&all)?)))
    }
    /// Since when pulls are counted; `None` if they are not yet.
    fn pulls_counted_since(&self) -> Result<Option<Timestamp>, RecordError> {
        self.record(&key::counted_since())
    }
}

impl<R: Look + ?Sized> LookForPolicies for R {}
