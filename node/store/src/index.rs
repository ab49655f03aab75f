//! The index of held and granted blobs.

use std::collections::HashSet;
use std::ops::Bound;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use ground::grouped::Grouped;
use ground::opening::Opening;
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use rules::blobs::holding::Held;
use rules::words::digest::{ContentHash, Digest};
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectName, RepositoryName};

use super::StoreError;

/// From a digest to length and content hash.
const HELD: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("held-1");
/// From the digest of a held blob that may be evicted to its last use, in ms since the epoch.
const CACHED: TableDefinition<'static, &[u8], u64> = TableDefinition::new("cached-1");
/// The digests of blobs that were kept for good and whose bytes are lost.
const LOST: TableDefinition<'static, &[u8], ()> = TableDefinition::new("lost-1");
/// From repository, NUL, digest to the end of the grant, in ms since the epoch.
const GRANTS: TableDefinition<'static, &[u8], u64> = TableDefinition::new("grants-1");
/// The number of the last collection of the ledger that was carried out, under an empty key.
const COLLECTED: TableDefinition<'static, &[u8], u64> = TableDefinition::new("collected-1");

/// The size of redb's cache in bytes.
const CACHE: usize = 8 << 20;
/// From a project's name to its number, when something was granted there last.
const OWNERS: TableDefinition<'static, &str, u64> = TableDefinition::new("grants-of-1");

/// Says which number the project with this name has now; `None` if there is none.
pub type Numbers = Box<dyn Fn(&ProjectName) -> Option<u64> + Send + Sync>;

pub(super) struct Index {
    file: Grouped,
    failed: AtomicBool,
    numbers: OnceLock<Numbers>,
}

fn index_error(error: impl std::fmt::Display) -> StoreError {
    StoreError::Index(error.to_string())
}

fn grant_key(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
    [repository.as_str().as_bytes(), b"\0", &digest.to_key()].concat()
}

/// From now on grants in `project` are those of the one with this number. Those of an earlier project
/// of that name have ended: whoever made it anew has no right to them. They are not removed, because
/// their blobs are collected by them.
fn claim(
    write: &redb::WriteTransaction,
    project: &ProjectName,
    number: u64,
) -> Result<(), redb::Error> {
    let mut owners = write.open_table(OWNERS)?;
    let before = owners.get(project.as_str())?.map(|before| before.value());
    if before == Some(number) {
        return Ok(());
    }
    owners.insert(project.as_str(), number)?;
    if before.is_some() {
        let first = [project.as_str().as_bytes(), b"/"].concat();
        let after = [project.as_str().as_bytes(), b"0"].concat();
        let mut grants = write.open_table(GRANTS)?;
        let mut earlier = Vec::new();
        for pair in grants.range(first.as_slice()..after.as_slice())? {
            earlier.push(pair?.0.value().to_vec());
        }
        for key in earlier {
            grants.insert(key.as_slice(), 0)?;
        }
    }
    Ok(())
}

/// A grant that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedGrant(Vec<u8>);

/// The blob of a key of [`grant_key`].
fn digest_of_grant(key: &[u8]) -> Option<Digest> {
    let end = key.iter().position(|byte| *byte == 0)?;
    Digest::from_key(key.get(end + 1..)?).ok()
}

impl Index {
    pub(super) fn open(path: &Path, opening: &Opening) -> Result<Self, StoreError> {
        let prepare = |write: &redb::WriteTransaction| {
            write.open_table(HELD)?;
            write.open_table(CACHED)?;
            write.open_table(LOST)?;
            write.open_table(GRANTS)?;
            write.open_table(COLLECTED)?;
            write.open_table(OWNERS)?;
            Ok(())
        };
        let file = Grouped::open(path, "store-index", CACHE, opening, prepare)?;
        Ok(Index { file, failed: AtomicBool::new(false), numbers: OnceLock::new() })
    }

    pub(super) fn know_projects(&self, numbers: Numbers) {
        let _ = self.numbers.set(numbers);
    }

    /// The project's number now, if this store was told of projects.
    fn number(&self, project: &ProjectName) -> Option<Option<u64>> {
        self.numbers.get().map(|numbers| numbers(project))
    }

    /// Whether what was granted in a project of this name was granted in the one that has it now.
    fn is_the_same(
        &self,
        read: &redb::ReadTransaction,
        project: &ProjectName,
    ) -> Result<bool, StoreError> {
        let owners = read.open_table(OWNERS).map_err(index_error)?;
        let then = owners.get(project.as_str()).map_err(index_error)?.map(|then| then.value());
        Ok(match (then, self.number(project)) {
            // grants of before this was recorded end soon
            (None, _) | (_, None) => true,
            (Some(then), Some(now)) => now == Some(then),
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let written = self.file.write(job).await;
        let failed = written.is_err();
        if failed && !self.failed.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "the store's index in data_dir cannot be written, most likely because of the disk: repair it (is it full?) and restart the node"
            );
        } else if !failed {
            self.failed.store(false, Ordering::Relaxed);
        }
        written.map_err(index_error)
    }

    /// Whether no write succeeds, not even an empty one.
    pub(super) async fn is_broken(&self) -> bool {
        self.file.has_failed().await
    }

    /// Whether the last write failed. After most disk failures no write succeeds until the file is
    /// opened again.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn held(&self, digest: &Digest) -> Result<Option<Held>, StoreError> {
        let read = self.file.database().begin_read().map_err(index_error)?;
        let held = read.open_table(HELD).map_err(index_error)?;
        let Some(value) = held.get(digest.to_key().as_slice()).map_err(index_error)? else {
            return Ok(None);
        };
        let (size, content): (u64, ContentHash) =
            postcard::from_bytes(value.value()).map_err(index_error)?;
        Ok(Some(Held { size, content }))
    }

    /// Whether no blob is held.
    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        let read = self.file.database().begin_read().map_err(index_error)?;
        let held = read.open_table(HELD).map_err(index_error)?;
        held.is_empty().map_err(index_error)
    }

    pub(super) fn granted(
        &self,
        digest: &Digest,
        repository: &RepositoryName,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let read = self.file.database().begin_read().map_err(index_error)?;
        let grants = read.open_table(GRANTS).map_err(index_error)?;
        let expires = grants.get(grant_key(repository, digest).as_slice()).map_err(index_error)?;
        let granted = expires.is_some_and(|e| e.value() > now.0);
        Ok(granted && self.is_the_same(&read, &repository.project())?)
    }

    /// Searches the grants of a project's repositories, which are as many as recent uploads into
    /// it.
    pub(super) fn granted_within(
        &self,
        digest: &Digest,
        project: &ProjectName,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let read = self.file.database().begin_read().map_err(index_error)?;
        let grants = read.open_table(GRANTS).map_err(index_error)?;
        let first = [project.as_str().as_bytes(), b"/"].concat();
        let after = [project.as_str().as_bytes(), b"0"].concat();
        let wanted = [&b"\0"[..], &digest.to_key()].concat();
        for pair in grants.range(first.as_slice()..after.as_slice()).map_err(index_error)? {
            let (key, until) = pair.map_err(index_error)?;
            if key.value().ends_with(&wanted) && until.value() > now.0 {
                return self.is_the_same(&read, project);
            }
        }
        Ok(false)
    }

    /// The blob is held from now on. `cached` (the time of its last use) makes it a cached one,
    /// unless it is kept for good already, or was until it was lost. `noted` is called with whether
    /// it is cached, in the order of the writes.
    pub(super) async fn hold(
        &self,
        digest: Digest,
        held: Held,
        grant: Option<(RepositoryName, u64)>,
        cached: Option<Timestamp>,
        noted: impl FnOnce(Option<Timestamp>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let value = postcard::to_stdvec(&(held.size, held.content)).map_err(index_error)?;
        let owner = grant.as_ref().map(|(repository, _)| repository.project());
        let owner = owner.and_then(|project| Some((self.number(&project)??, project)));
        self.write(move |write| {
            if let Some((number, project)) = owner {
                claim(write, &project, number)?;
            }
            let key = digest.to_key();
            let mut cachable = write.open_table(CACHED)?;
            let before =
                write.open_table(HELD)?.insert(key.as_slice(), value.as_slice())?.is_some();
            let kept = before && cachable.get(key.as_slice())?.is_none();
            let lost = write.open_table(LOST)?.remove(key.as_slice())?.is_some();
            let cached = cached.filter(|_| !kept && !lost);
            match cached {
                Some(used) => cachable.insert(key.as_slice(), used.0)?,
                None => cachable.remove(key.as_slice())?,
            };
            if let Some((repository, expires)) = grant {
                write
                    .open_table(GRANTS)?
                    .insert(grant_key(&repository, &digest).as_slice(), expires)?;
            }
            noted(cached);
            Ok(())
        })
        .await
    }

    /// The blob's bytes are lost. If it was kept for good, this is remembered for when it returns.
    pub(super) async fn lose(&self, digest: Digest) -> Result<(), StoreError> {
        self.write(move |write| {
            let key = digest.to_key();
            let held = write.open_table(HELD)?.remove(key.as_slice())?.is_some();
            let cached = write.open_table(CACHED)?.remove(key.as_slice())?.is_some();
            if held && !cached {
                write.open_table(LOST)?.insert(key.as_slice(), ())?;
            }
            Ok(())
        })
        .await
    }

    /// The next held blobs after `after`, with their lengths.
    pub(super) fn held_after(
        &self,
        after: Option<&Digest>,
        most: usize,
    ) -> Result<Vec<(Digest, u64)>, StoreError> {
        let read = self.file.database().begin_read().map_err(index_error)?;
        let held = read.open_table(HELD).map_err(index_error)?;
        let after = after.map(Digest::to_key);
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let range = held.range::<&[u8]>((from, Bound::Unbounded)).map_err(index_error)?;
        let mut all = Vec::new();
        for pair in range.take(most) {
            let (key, value) = pair.map_err(index_error)?;
            let (size, _): (u64, ContentHash) =
                postcard::from_bytes(value.value()).map_err(index_error)?;
            all.push((Digest::from_key(key.value()).map_err(index_error)?, size));
        }
        Ok(all)
    }

    /// All blobs that may be evicted, with length and last use.
    pub(super) fn cached(&self) -> Result<Vec<(Digest, u64, Timestamp)>, StoreError> {
        let read = self.file.database().begin_read().map_err(index_error)?;
        let cached = read.open_table(CACHED).map_err(index_error)?;
        let mut all = Vec::new();
        for pair in cached.iter().map_err(index_error)? {
            let (key, used) = pair.map_err(index_error)?;
            let digest = Digest::from_key(key.value()).map_err(index_error)?;
            if let Some(held) = self.held(&digest)? {
                all.push((digest, held.size, Timestamp(used.value())));
            }
        }
        Ok(all)
    }

    /// Records that blobs were used. Blobs that are no longer cached are ignored.
    pub(super) async fn used(&self, used: Vec<(Digest, Timestamp)>) -> Result<(), StoreError> {
        self.write(move |write| {
            let mut cached = write.open_table(CACHED)?;
            for (digest, at) in used {
                let known = cached.get(digest.to_key().as_slice())?.is_some();
                if known {
                    cached.insert(digest.to_key().as_slice(), at.0)?;
                }
            }
            Ok(())
        })
        .await
    }

    /// A blob is kept for good from now on.
    pub(super) async fn keep(&self, digest: Digest) -> Result<(), StoreError> {
        self.write(move |write| {
            write.open_table(CACHED)?.remove(digest.to_key().as_slice())?;
            Ok(())
        })
        .await
    }

    pub(super) async fn grant(
        &self,
        digest: Digest,
        repository: RepositoryName,
        expires: u64,
    ) -> Result<(), StoreError> {
        let project = repository.project();
        let number = self.number(&project).flatten();
        self.write(move |write| {
            if let Some(number) = number {
                claim(write, &project, number)?;
            }
            write
                .open_table(GRANTS)?
                .insert(grant_key(&repository, &digest).as_slice(), expires)?;
            Ok(())
        })
        .await
    }

    /// Grants in `repository` that are valid now last until `expires` at least.
    pub(super) async fn extend_grants(
        &self,
        repository: RepositoryName,
        now: Timestamp,
        expires: u64,
    ) -> Result<(), StoreError> {
        let project = repository.project();
        let number = self.number(&project).flatten();
        self.write(move |write| {
            if let Some(number) = number {
                claim(write, &project, number)?;
            }
            let mut grants = write.open_table(GRANTS)?;
            let first = [repository.as_str().as_bytes(), b"\0"].concat();
            let after = [repository.as_str().as_bytes(), b"\x01"].concat();
            let mut good = Vec::new();
            for pair in grants.range(first.as_slice()..after.as_slice())? {
                let (key, until) = pair?;
                if until.value() > now.0 && until.value() < expires {
                    good.push(key.value().to_vec());
                }
            }
            for key in good {
                grants.insert(key.as_slice(), expires)?;
            }
            Ok(())
        })
        .await
    }

    /// Ends a grant now, as if its time were over: whoever looks for grants that have ended finds it, and
    /// what it was about is garbage if nothing else refers to it.
    pub(super) async fn revoke(
        &self,
        digest: Digest,
        repository: RepositoryName,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(move |write| {
            let mut grants = write.open_table(GRANTS)?;
            let key = grant_key(&repository, &digest);
            let before = grants.get(key.as_slice())?.map(|until| until.value());
            let counted = before.is_some_and(|until| until > now.0);
            if counted {
                grants.insert(key.as_slice(), now.0)?;
            }
            Ok(counted)
        })
        .await
    }

    pub(super) async fn drop_blobs(&self, digests: Vec<Digest>) -> Result<(), StoreError> {
        self.write(move |write| {
            let (mut held, mut cached) = (write.open_table(HELD)?, write.open_table(CACHED)?);
            for digest in digests {
                held.remove(digest.to_key().as_slice())?;
                cached.remove(digest.to_key().as_slice())?;
            }
            Ok(())
        })
        .await
    }

    /// Up to `most` grants that have ended, and the blobs that they were about.
    pub(super) fn ended_grants(
        &self,
        now: Timestamp,
        most: usize,
    ) -> Result<Vec<(EndedGrant, Digest)>, StoreError> {
        let read = self.file.database().begin_read().map_err(index_error)?;
        let grants = read.open_table(GRANTS).map_err(index_error)?;
        let mut ended = Vec::new();
        for pair in grants.iter().map_err(index_error)? {
            let (key, until) = pair.map_err(index_error)?;
            if until.value() <= now.0
                && let Some(digest) = digest_of_grant(key.value())
            {
                ended.push((EndedGrant(key.value().to_vec()), digest));
                if ended.len() == most {
                    break;
                }
            }
        }
        Ok(ended)
    }

    /// Removes those of these grants that were not given anew.
    pub(super) async fn remove_grants(
        &self,
        ended: Vec<EndedGrant>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |write| {
            let mut grants = write.open_table(GRANTS)?;
            for EndedGrant(key) in ended {
                let over = grants.get(key.as_slice())?.is_some_and(|until| until.value() <= now.0);
                if over {
                    grants.remove(key.as_slice())?;
                }
            }
            Ok(())
        })
        .await
    }

    /// The blobs that are granted in any repository now.
    pub(super) fn all_granted(&self, now: Timestamp) -> Result<HashSet<Digest>, StoreError> {
        let read = self.file.database().begin_read().map_err(index_error)?;
        let grants = read.open_table(GRANTS).map_err(index_error)?;
        let mut all = HashSet::new();
        for pair in grants.iter().map_err(index_error)? {
            let (key, until) = pair.map_err(index_error)?;
            if until.value() > now.0 {
                all.extend(digest_of_grant(key.value()));
            }
        }
        Ok(all)
    }

    /// Stops holding those of `digests` that are kept for good and granted nowhere. Returns them
    /// with their lengths.
    pub(super) async fn collect(
        &self,
        digests: Vec<Digest>,
        now: Timestamp,
    ) -> Result<Vec<(Digest, u64)>, StoreError> {
        self.write(move |write| {
            let grants = write.open_table(GRANTS)?;
            let mut granted = HashSet::new();
            for pair in grants.iter()? {
                let (key, until) = pair?;
                if until.value() > now.0 {
                    granted.extend(digest_of_grant(key.value()));
                }
            }
            let cached = write.open_table(CACHED)?;
            let (mut held, mut lost) = (write.open_table(HELD)?, write.open_table(LOST)?);
            let mut gone = Vec::new();
            for digest in digests {
                let key = digest.to_key();
                if granted.contains(&digest) || cached.get(key.as_slice())?.is_some() {
                    continue;
                }
                lost.remove(key.as_slice())?;
                if let Some(value) = held.remove(key.as_slice())? {
                    let size = postcard::from_bytes::<(u64, ContentHash)>(value.value());
                    gone.push((digest, size.map(|(size, _)| size).unwrap_or(0)));
                }
            }
            Ok(gone)
        })
        .await
    }

    /// The number of the last collection that was carried out.
    pub(super) fn collected(&self) -> Result<u64, StoreError> {
        let read = self.file.database().begin_read().map_err(index_error)?;
        let table = read.open_table(COLLECTED).map_err(index_error)?;
        let number = table.get([].as_slice()).map_err(index_error)?;
        Ok(number.map_or(0, |number| number.value()))
    }

    /// All collections up to this one were carried out.
    pub(super) async fn note_collected(&self, number: u64) -> Result<(), StoreError> {
        self.write(move |write| {
            write.open_table(COLLECTED)?.insert([].as_slice(), number)?;
            Ok(())
        })
        .await
    }
}
