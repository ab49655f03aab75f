//! The index of what is held and granted: one redb file, written by one thread, everything queued behind a commit sharing the next fsync.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use rules::digest::{ContentHash, Digest};
use rules::moment::Timestamp;
use rules::names::RepositoryName;
use rules::wire::Held;
use tokio::sync::oneshot;

use super::StoreError;

/// Digest to length and content hash.
const HELD: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("held-1");
/// Repository, NUL, digest to the end of the grant in ms since the epoch.
const GRANTS: TableDefinition<'static, &[u8], u64> = TableDefinition::new("grants-1");

type Job = Box<dyn FnOnce(&WriteTransaction) -> Result<u64, redb::Error> + Send>;
type Answer = oneshot::Sender<Result<u64, String>>;

pub(super) struct Index {
    database: Arc<Database>,
    jobs: Sender<(Job, Answer)>,
}

fn index_error(error: impl std::fmt::Display) -> StoreError {
    StoreError::Index(error.to_string())
}

fn grant_key(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
    [repository.as_str().as_bytes(), b"\0", &digest.to_key()].concat()
}

impl Index {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder().set_cache_size(8 << 20).create(path).map_err(index_error)?;
        let write = database.begin_write().map_err(index_error)?;
        write.open_table(HELD).map_err(index_error)?;
        write.open_table(GRANTS).map_err(index_error)?;
        write.commit().map_err(index_error)?;
        let database = Arc::new(database);
        let (jobs, queue) = channel::<(Job, Answer)>();
        let writer = database.clone();
        std::thread::Builder::new()
            .name("store-index".into())
            .spawn(move || {
                while let Ok(first) = queue.recv() {
                    commit_batch(&writer, std::iter::once(first).chain(queue.try_iter()).collect());
                }
            })
            .map_err(StoreError::Disk)?;
        Ok(Index { database, jobs })
    }

    async fn write(
        &self,
        job: impl FnOnce(&WriteTransaction) -> Result<u64, redb::Error> + Send + 'static,
    ) -> Result<u64, StoreError> {
        let (answer, result) = oneshot::channel();
        self.jobs.send((Box::new(job), answer)).map_err(|_| index_error("its writer has stopped"))?;
        result.await.map_err(index_error)?.map_err(index_error)
    }

    pub(super) fn held(&self, digest: &Digest) -> Result<Option<Held>, StoreError> {
        let read = self.database.begin_read().map_err(index_error)?;
        let held = read.open_table(HELD).map_err(index_error)?;
        let Some(value) = held.get(digest.to_key().as_slice()).map_err(index_error)? else { return Ok(None) };
        let (size, content): (u64, ContentHash) = postcard::from_bytes(value.value()).map_err(index_error)?;
        Ok(Some(Held { size, content }))
    }

    pub(super) fn granted(
        &self,
        digest: &Digest,
        repository: &RepositoryName,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let read = self.database.begin_read().map_err(index_error)?;
        let grants = read.open_table(GRANTS).map_err(index_error)?;
        let expires = grants.get(grant_key(repository, digest).as_slice()).map_err(index_error)?;
        Ok(expires.is_some_and(|e| e.value() > now.0))
    }

    pub(super) async fn hold(
        &self,
        digest: Digest,
        size: u64,
        content: ContentHash,
        grant: Option<(RepositoryName, u64)>,
    ) -> Result<(), StoreError> {
        let value = postcard::to_stdvec(&(size, content)).map_err(index_error)?;
        self.write(move |write| {
            write.open_table(HELD)?.insert(digest.to_key().as_slice(), value.as_slice())?;
            if let Some((repository, expires)) = grant {
                write.open_table(GRANTS)?.insert(grant_key(&repository, &digest).as_slice(), expires)?;
            }
            Ok(1)
        })
        .await?;
        Ok(())
    }

    pub(super) async fn grant(
        &self,
        digest: Digest,
        repository: RepositoryName,
        expires: u64,
    ) -> Result<(), StoreError> {
        self.write(move |write| {
            write.open_table(GRANTS)?.insert(grant_key(&repository, &digest).as_slice(), expires)?;
            Ok(1)
        })
        .await?;
        Ok(())
    }

    pub(super) async fn revoke(
        &self,
        digest: Digest,
        repository: RepositoryName,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let removed = self.write(move |write| {
            let mut grants = write.open_table(GRANTS)?;
            let before = grants.remove(grant_key(&repository, &digest).as_slice())?.map(|v| v.value());
            Ok(u64::from(before.is_some_and(|expires| expires > now.0)))
        });
        Ok(removed.await? > 0)
    }

    pub(super) async fn drop_blob(&self, digest: Digest) -> Result<(), StoreError> {
        self.write(move |write| {
            write.open_table(HELD)?.remove(digest.to_key().as_slice())?;
            Ok(1)
        })
        .await?;
        Ok(())
    }

    pub(super) async fn expire_grants(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.write(move |write| {
            let mut grants = write.open_table(GRANTS)?;
            let mut expired = Vec::new();
            for pair in grants.iter()? {
                let (key, expires) = pair?;
                if expires.value() <= now.0 {
                    expired.push(key.value().to_vec());
                }
            }
            for key in &expired {
                grants.remove(key.as_slice())?;
            }
            Ok(expired.len() as u64)
        })
        .await
    }
}

fn commit_batch(database: &Database, batch: Vec<(Job, Answer)>) {
    let mut waiting = Vec::with_capacity(batch.len());
    let commit = || -> Result<(), redb::Error> {
        let mut write = database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        for (job, answer) in batch {
            let count = job(&write)?;
            waiting.push((answer, count));
        }
        write.commit()?;
        Ok(())
    };
    // a job that fails takes its batch with it: an answer is only given for what is on disk
    let result = commit().map_err(|e| e.to_string());
    for (answer, count) in waiting {
        let _ = answer.send(result.clone().map(|()| count));
    }
}
