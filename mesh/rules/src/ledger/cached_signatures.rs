//! Signatures of images that proxy projects have cached.
//!
//! The ledger does not know what is cached: the upstream is the authority for that. When somebody pulls
//! an image that its project would refuse, the project's primary asks the upstream for signatures of
//! it, verifies them as it verifies those of its own images, and records what came of it. So every node
//! and edge decides from the ledger, a key that is revoked counts for nothing at once, and an upstream
//! that is away takes away nothing that was verified before.
//!
//! That is little, bounded for each project, and goes when nobody has cached the image any more. Of an
//! image without signatures nothing is recorded: it is refused as what nothing is known of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cached_scans::LookForCachedScans;
use super::records::{Look, Project, RecordError};
use super::scanning::key as scans_key;
use crate::policies::signatures::{By, Policy, SignatureRecord, Signer, State, exempting, is_on};
use crate::policies::vulnerabilities::Gate;
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{ProjectId, RepositoryName};

/// The maximum number of images of a project of whose signatures something is known, without what signed
/// indexes list. With one more, the one is forgotten that is worth least ([`Worth`]), and of those the
/// one about which something was found first.
pub const MOST_KNOWN: u64 = 2_000;
/// The maximum number of artifacts of signatures about one image that are read.
pub const MOST_FOUND: usize = 32;
/// The maximum number of those by nobody who is trusted that are kept of one image.
pub const MOST_UNKNOWN: usize = 8;
/// The maximum number of images that are forgotten at once.
pub const AT_ONCE: usize = 100;

/// How much it would matter if what is known of an image were forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Worth {
    /// Nobody who is trusted has signed it: whoever can write to the upstream can make such evidence.
    Nothing,
    /// Somebody who is trusted has signed it.
    Signed,
    /// Somebody has exempted it.
    Exempt,
}

impl Worth {
    /// What this is worth at `now`, if these are trusted. A signer that counts for nothing, or that is
    /// trusted no more, makes nothing worth more; nor does an exemption that has ended.
    pub fn of(record: &SignatureRecord, signers: &[Signer], now: Timestamp) -> Self {
        if exempting(record, &[], now).is_some() {
            return Worth::Exempt;
        }
        let counts = |by: &By| {
            let is_ended =
                |state: &State| matches!(state, State::Revoked { compromised: true, .. });
            signers.iter().any(|signer| signer.is(by) && !is_ended(&signer.state))
        };
        let mut seen = record.evidence.iter().flat_map(|one| &one.signatures);
        match seen.any(|seen| seen.signature.is_known() && counts(&seen.signature.by)) {
            true => Worth::Signed,
            false => Worth::Nothing,
        }
    }
}

/// Keys of these records. What is known of an image has the key of every image's
/// ([`signatures`](super::signatures::key::signatures)).
pub mod key {
    use super::*;

    /// The number of the last image about which something was found.
    pub fn last() -> Vec<u8> {
        b"$b".to_vec()
    }
    /// An image of which something is known, by what that is worth, and then in the order in which it
    /// was found; the value is the key of what is known.
    pub fn known(project: ProjectId, (worth, number): (Worth, u64)) -> Vec<u8> {
        [&all_known(project)[..], &[worth as u8], &number.to_be_bytes()].concat()
    }
    /// All of a project.
    pub fn all_known(project: ProjectId) -> Vec<u8> {
        [b"$b", &project.0.to_be_bytes()[..]].concat()
    }
    /// How many there are.
    pub fn count(project: ProjectId) -> Vec<u8> {
        [b"$x", &project.0.to_be_bytes()[..]].concat()
    }
    /// The worth and number of an image in [`known`].
    pub fn number(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        [b"$y", repository.as_str().as_bytes(), b"\0", &digest.to_key()].concat()
    }
    /// That images of this project need signatures. It is in a table that edges follow.
    pub fn judged(project: ProjectId) -> Vec<u8> {
        [&scans_key::verdicts()[..], b"s", &project.0.to_be_bytes()].concat()
    }
}

/// Typed reading of these records.
pub trait LookForCachedSignatures: Look {
    /// Whether images of a proxy project need signatures if its metadata says so. What that said before
    /// [`Level::CACHED_SIGNATURES`](super::level::Level::CACHED_SIGNATURES) had no effect, and has none
    /// until somebody says it again. Edges are told no feature level, and read this as a table that they
    /// follow.
    fn are_cached_verified(&self, project: ProjectId) -> Result<bool, RecordError> {
        let judged = key::judged(project);
        let table = self.records::<u64>(&scans_key::verdicts())?;
        Ok(table.iter().any(|(place, _)| *place == judged))
    }

    /// What a proxy project says about its images and what has no effect, as key and value, because it
    /// was said before the feature level that knows it.
    fn without_effect(&self, project: &Project) -> Result<Vec<(String, String)>, RecordError> {
        if project.upstream.is_none() {
            return Ok(Vec::new());
        }
        let judged = self.are_cached_judged(project.id)?;
        let verified = self.are_cached_verified(project.id)?;
        let ignored = |(key, value): &(&String, &String)| {
            let alone = BTreeMap::from([((*key).clone(), (*value).clone())]);
            !judged && Gate::of(&alone).is_some() || !verified && is_on(&alone)
        };
        let found = project.metadata.iter().filter(ignored);
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// What a project demands of signatures, whether it caches a registry or not.
    fn signature_policy_of(&self, project: &Project) -> Result<Option<Policy>, RecordError> {
        if !is_on(&project.metadata)
            || project.upstream.is_some() && !self.are_cached_verified(project.id)?
        {
            return Ok(None);
        }
        Ok(Policy::of(&project.metadata))
    }
}

impl<R: Look + ?Sized> LookForCachedSignatures for R {}
