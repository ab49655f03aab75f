//! The trash: what was deleted in the projects, for the time that they keep it.
//!
//! A deleted manifest is gone for everybody who reads: its record, its tags, its links and its place
//! among the referrers are removed in the entry that deletes it. The same entry writes a
//! [`TrashRecord`], and has the trash refer to the manifest's bytes and blobs as one more repository
//! would ([`key::link`]). So they are no garbage, and whoever asks what a project keeps (repairs,
//! drains, the loss of a region) finds them without knowing of the trash. What is
//! about the manifest and goes with it (signatures, SBOMs) is in the trash by itself, and
//! says with what it went. A deleted tag whose manifest stays is a record without a manifest. A tag is
//! in a repository's trash once: with the manifest that it named when it was deleted last.
//!
//! A record leaves the trash when the same manifest is stored again: [`TrashChange::Restore`] is a push
//! of what the trash has, with a quota and with new places in the queues of scans and signatures. Else
//! it leaves it when somebody empties the trash, or when its time is over. The project's primary says
//! so in a command that names the records, and `apply` compares their times with the command's. Then
//! what nothing else refers to is garbage.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::directory::LookForGroups;
use super::level::Level;
use super::records::{ContentRecord, Look, Project, RecordError, decode, key as records_key};
use crate::policies::trash;
use crate::words::digest::Digest;
use crate::words::manifest::{Manifest, Referrer};
use crate::words::moment::Timestamp;
use crate::words::names::{LabelId, ProjectName, RepositoryName, Tag};

/// The maximum number of records of one change.
pub const AT_ONCE: usize = 100;
/// The maximum number of manifests that are restored with one: what is restored is in memory, and each
/// [`AT_ONCE`] of it are one entry of the log.
pub const MOST_RESTORED: usize = 10_000;
/// The maximum number of tags of one record. More are forgotten.
pub const MOST_TAGS: usize = 500;

/// Why something is in the trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// Somebody has deleted it.
    Deleted,
    /// The project's policy did not retain it.
    NotRetained,
}

/// A manifest in the trash. Its bytes are in their [`ContentRecord`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashedManifest {
    /// As received.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// The blobs that it linked.
    pub blobs: Vec<Digest>,
    /// When it was pushed.
    pub pushed: Timestamp,
    /// The manifest that it is about, and its entry in that manifest's list of referrers.
    pub subject: Option<(Digest, Referrer)>,
    /// The labels that were on it.
    pub labels: Vec<LabelId>,
    /// Whether it was scanned, or to be scanned.
    pub scanned: bool,
}

/// What was deleted of a manifest in a repository: itself, or only tags of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashRecord {
    /// When something of it was deleted last.
    pub at: Timestamp,
    /// Until when it is kept.
    pub until: Timestamp,
    /// Who deleted it.
    pub by: String,
    /// Why.
    pub why: Why,
    /// The manifest that it is about and with which it went.
    pub with: Option<Digest>,
    /// Its tags that were deleted, and when each was. No other record of the repository has them.
    pub tags: Vec<(Tag, Timestamp)>,
    /// The manifest, if it was deleted, too.
    pub manifest: Option<TrashedManifest>,
}

/// What a project's trash has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashUsage {
    /// The number of manifests.
    pub manifests: u64,
    /// The bytes of what only the trash has, each blob and manifest once.
    pub storage: u64,
}

/// A blob or manifest of a project's trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashBlob {
    /// Its length in bytes.
    pub size: u64,
    /// The number of the project's repositories whose trash refers to it, and of those whose trash has
    /// it as a manifest.
    pub repositories: u64,
}

/// A change of the trash. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrashChange {
    /// Stores manifests again that the trash has, in this order.
    Restore {
        /// The repository.
        repository: RepositoryName,
        /// The one that is wanted. If the trash does not have it, nothing is restored.
        digest: Digest,
        /// The tag that it gets; all that it had and that name nothing now, if that is `None`.
        tag: Option<Tag>,
        /// All that are restored, with that one, at most [`AT_ONCE`].
        all: Vec<Digest>,
    },
    /// Removes records whatever their time, a limited number, see
    /// [`Outcome::Unfinished`](super::command::Outcome::Unfinished).
    Empty {
        /// The project.
        project: ProjectName,
        /// Of this repository only.
        repository: Option<RepositoryName>,
        /// Of this manifest only, and of what went with it.
        digest: Option<Digest>,
    },
    /// Removes those of these records whose time is over, at most [`AT_ONCE`].
    Expire {
        /// The project.
        project: ProjectName,
        /// The records.
        records: Vec<(RepositoryName, Digest)>,
    },
}

impl TrashChange {
    /// The project.
    pub fn project(&self) -> ProjectName {
        match self {
            TrashChange::Restore { repository, .. } => repository.project(),
            TrashChange::Empty { project, .. } | TrashChange::Expire { project, .. } => {
                project.clone()
            }
        }
    }

    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            TrashChange::Restore { .. } => "restore",
            TrashChange::Empty { .. } => "empty_trash",
            TrashChange::Expire { .. } => "expire_trash",
        }
    }

    /// What an event says of it, as an operation, a kind and a name.
    pub fn news(&self) -> (&'static str, &'static str, String) {
        match self {
            TrashChange::Restore { repository, digest, tag, .. } => match tag {
                Some(tag) => ("restore", "artifact", format!("{repository}:{tag}")),
                None => ("restore", "artifact", format!("{repository}@{digest}")),
            },
            TrashChange::Empty { project, repository, digest } => {
                let what = match (repository, digest) {
                    (Some(repository), Some(digest)) => format!("{repository}@{digest}"),
                    (Some(repository), None) => repository.to_string(),
                    (None, _) => project.to_string(),
                };
                ("empty", "trash", what)
            }
            TrashChange::Expire { project, records } => {
                ("expire", "trash", format!("{project}: {} records", records.len()))
            }
        }
    }
}

/// Keys of the trash in the map. They have names of projects, and no numbers, and go with the project: a later one of that name has none of them.
pub mod key {
    use super::*;

    /// What the trash has of a manifest.
    pub fn record(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        [&of_repository(repository)[..], &digest.to_key()].concat()
    }
    /// All records of a repository.
    pub fn of_repository(repository: &RepositoryName) -> Vec<u8> {
        [b"9xt", repository.as_str().as_bytes(), b"\0"].concat()
    }
    /// All records of a project.
    pub fn of_project(project: &ProjectName) -> Vec<u8> {
        [b"9xt", project.as_str().as_bytes(), b"/"].concat()
    }
    /// The repository and manifest of a key of [`record`].
    pub fn of_record(key: &[u8]) -> Option<(RepositoryName, Digest)> {
        named(key.strip_prefix(b"9xt")?)
    }
    /// The same records by the end of their time.
    pub fn by_end(until: Timestamp, repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        let repository = repository.as_str().as_bytes();
        [b"9xe", &until.0.to_be_bytes()[..], repository, b"\0", &digest.to_key()].concat()
    }
    /// All of them.
    pub fn all_by_end() -> Vec<u8> {
        b"9xe".to_vec()
    }
    /// The end, the repository and the manifest of a key of [`by_end`].
    pub fn of_end(key: &[u8]) -> Option<(Timestamp, RepositoryName, Digest)> {
        let rest = key.strip_prefix(b"9xe")?;
        let until = Timestamp(u64::from_be_bytes(rest.get(..8)?.try_into().ok()?));
        let (repository, digest) = named(&rest[8..])?;
        Some((until, repository, digest))
    }
    fn named(rest: &[u8]) -> Option<(RepositoryName, Digest)> {
        let end = rest.iter().position(|b| *b == 0)?;
        let repository = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        Some((repository, Digest::from_key(&rest[end + 1..]).ok()?))
    }
    /// The manifest that has a deleted tag. The value is its digest.
    pub fn tagged(repository: &RepositoryName, tag: &Tag) -> Vec<u8> {
        [b"9xn", repository.as_str().as_bytes(), b"\0", tag.as_str().as_bytes()].concat()
    }
    /// What went with a manifest. The value is the digest of what did.
    pub fn follower(repository: &RepositoryName, subject: &Digest, follower: &Digest) -> Vec<u8> {
        [&followers(repository, subject)[..], &follower.to_key()].concat()
    }
    /// All that went with a manifest.
    pub fn followers(repository: &RepositoryName, subject: &Digest) -> Vec<u8> {
        [b"9xw", repository.as_str().as_bytes(), b"\0", &subject.to_key()].concat()
    }
    /// What a project's trash has.
    pub fn usage(project: &ProjectName) -> Vec<u8> {
        [b"9xu", project.as_str().as_bytes()].concat()
    }
    /// A blob or manifest of a project's trash.
    pub fn blob(project: &ProjectName, digest: &Digest) -> Vec<u8> {
        [b"9xb", project.as_str().as_bytes(), b"\0", &digest.to_key()].concat()
    }
    /// The number of manifests in the trash of a repository that refer to a blob. It is among the links
    /// of the project ([`records_key::links_of`]), and of none of its repositories: no name has that
    /// byte.
    pub fn link(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        let (project, rest) = repository.as_str().split_once('/').unwrap_or_default();
        let name = [project.as_bytes(), b"/", MARK, rest.as_bytes(), b"\0"].concat();
        [b"l", &name[..], &digest.to_key()].concat()
    }
    /// Whether a key among a project's links is of its trash.
    pub fn is_link(key: &[u8]) -> bool {
        let end = key.iter().position(|b| *b == b'/');
        end.is_some_and(|end| key[end + 1..].starts_with(MARK))
    }
    const MARK: &[u8] = b"\x01";
}

/// Typed reading of the trash.
pub trait LookForTrash: Look {
    /// What the trash has of a manifest.
    fn trashed(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<TrashRecord>, RecordError> {
        self.record(&key::record(repository, digest))
    }
    /// What a project's trash has.
    fn trash_usage(&self, project: &ProjectName) -> Result<TrashUsage, RecordError> {
        Ok(self.record(&key::usage(project))?.unwrap_or_default())
    }
    /// Whether a project's trash has a blob or manifest.
    fn is_trashed(&self, project: &ProjectName, digest: &Digest) -> Result<bool, RecordError> {
        Ok(self.get(&key::blob(project, digest))?.is_some())
    }
    /// How long the project keeps what is deleted; zero if it has no trash.
    fn trash_time(&self, project: &Project) -> Result<core::time::Duration, RecordError> {
        if self.level()? < Level::TRASH || project.upstream.is_some() {
            return Ok(core::time::Duration::ZERO);
        }
        if let Some(own) = project.metadata.get(trash::TRASH).and_then(|text| trash::time(text)) {
            return Ok(own);
        }
        let set = self.configurations()?.values.remove(trash::SETTING);
        let set = set.and_then(|json| serde_json::from_str::<String>(&json).ok());
        Ok(set.and_then(|text| trash::time(&text)).unwrap_or(trash::DEFAULT))
    }
    /// The manifest in a repository's trash that a tag named when it was deleted last.
    fn last_tagged(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, RecordError> {
        self.record(&key::tagged(repository, tag))
    }
    /// Up to `limit` manifests of which something went with a manifest.
    fn went_with(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        limit: usize,
    ) -> Result<Vec<Digest>, RecordError> {
        let found = self.scan(&key::followers(repository, subject), None, limit)?;
        found.iter().map(|(_, digest)| decode(digest)).collect()
    }
    /// Up to `limit` records of a repository, or of all of a project, after `after`.
    fn trash(
        &self,
        project: &ProjectName,
        repository: Option<&RepositoryName>,
        after: Option<&(RepositoryName, Digest)>,
        limit: usize,
    ) -> Result<Vec<(RepositoryName, Digest, TrashRecord)>, RecordError> {
        let table = match repository {
            Some(repository) => key::of_repository(repository),
            None => key::of_project(project),
        };
        let after = after.map(|(repository, digest)| key::record(repository, digest));
        let mut found = Vec::new();
        for (place, value) in self.scan(&table, after.as_deref(), limit)? {
            let broken = || RecordError(format!("a record of the trash of {project} has no name"));
            let (repository, digest) = key::of_record(&place).ok_or_else(broken)?;
            found.push((repository, digest, decode(&value)?));
        }
        Ok(found)
    }
    /// Up to `limit` records whose time is over at `now`, the oldest first, after `after`.
    fn ended_trash(
        &self,
        now: Timestamp,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, RepositoryName, Digest)>, RecordError> {
        let mut ended = Vec::new();
        for (place, _) in self.scan(&key::all_by_end(), after, limit)? {
            match key::of_end(&place) {
                Some((until, repository, digest)) if until <= now => {
                    ended.push((place, repository, digest));
                }
                _ => break,
            }
        }
        Ok(ended)
    }
}

impl<R: Look + ?Sized> LookForTrash for R {}

/// What is restored with a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restoration {
    /// What is restored, in this order: what an index lists before the index, what is about a manifest
    /// after it.
    pub all: Vec<Digest>,
    /// What an index among them lists, and what is neither in the repository nor in its trash.
    pub missing: BTreeSet<Digest>,
    /// Whether there is more than [`MOST_RESTORED`].
    pub too_much: bool,
}

impl Restoration {
    /// The changes that restore it, one after the other. The first ones restore what others list or are
    /// about, so that nothing is there without what it needs, whichever of them is the last one. `wanted`
    /// gets `tag`, if that is said.
    pub fn steps(
        &self,
        repository: &RepositoryName,
        wanted: Digest,
        tag: Option<&Tag>,
    ) -> Vec<TrashChange> {
        let step = |some: &[Digest]| {
            let has_wanted = some.contains(&wanted);
            TrashChange::Restore {
                repository: repository.clone(),
                digest: if has_wanted { wanted } else { some[0] },
                tag: tag.filter(|_| has_wanted).cloned(),
                all: some.to_vec(),
            }
        };
        self.all.chunks(AT_ONCE).map(step).collect()
    }
}

/// What is restored if a manifest is: what it lists, what these list, and what has gone with any of
/// them. It reads manifests, so it is no part of `apply`.
pub fn restoration<R: Look + ?Sized>(
    records: &R,
    repository: &RepositoryName,
    digest: Digest,
) -> Result<Restoration, RecordError> {
    let mut found = Restoration::default();
    let mut seen = BTreeSet::from([digest]);
    // each is looked at twice: when it is met, and when all that it lists has its place
    let mut left = vec![(digest, false)];
    while let Some((one, listed)) = left.pop() {
        if seen.len() > MOST_RESTORED {
            found.too_much = true;
            return Ok(found);
        }
        let Some(record) = records.trashed(repository, &one)? else { continue };
        let Some(manifest) = record.manifest.filter(|_| !listed) else {
            found.all.push(one);
            let followers = records.went_with(repository, &one, MOST_RESTORED + 1)?;
            left.extend(
                followers.into_iter().filter(|one| seen.insert(*one)).map(|one| (one, false)),
            );
            continue;
        };
        left.push((one, true));
        let content = records.record::<ContentRecord>(&records_key::content(&one))?;
        let bytes = content.map(|content| content.bytes).unwrap_or_default();
        let Ok(parsed) = Manifest::parse(&manifest.media_type, &bytes) else { continue };
        for child in parsed.children.iter().filter(|child| child.manifest) {
            if records.has_manifest(repository, &child.digest)? {
                continue;
            }
            let known = records.trashed(repository, &child.digest)?;
            if known.is_none_or(|one| one.manifest.is_none()) {
                found.missing.insert(child.digest);
            } else if seen.insert(child.digest) {
                left.push((child.digest, false));
            }
        }
    }
    Ok(found)
}
