//! A redb file with one writer. All writes that are queued while a commit is under way share the
//! next commit and its fsync (group commit).
//!
//! A write is answered only after its commit is on disk. If one job of a commit fails, all jobs of
//! that commit fail, and none of them has an effect.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use parking_lot::{Mutex, MutexGuard};
use redb::{Database, WriteTransaction};

use crate::opening::Opening;

type Job = Box<dyn FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send>;
type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// The open file and its writer. Clones share both. When the last one is dropped, the writer ends
/// and the file is closed.
#[derive(Clone)]
pub struct Grouped(Arc<Shared>);

struct Shared {
    database: Arc<Database>,
    commits: Arc<Commits>,
    jobs: Option<Sender<(Job, Done)>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// The turn to write the file: one writer at a time.
#[derive(Default)]
struct Commits {
    turn: Mutex<()>,
    begun: AtomicU64,
    /// The number of the write that is under way, 0 if none is.
    current: AtomicU64,
    /// Whether the last queued write failed.
    failed: AtomicBool,
}

impl Commits {
    fn turn(&self) -> Turn<'_> {
        let turn = self.turn.lock();
        self.current.store(self.begun.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Turn { commits: self, _turn: turn }
    }
}

/// The right to write the file, see [`Grouped::turn`].
pub struct Turn<'a> {
    commits: &'a Commits,
    _turn: MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// This write may take long even on a healthy disk. It does not count as under way.
    pub fn may_take_long(&self) {
        self.commits.current.store(0, Ordering::SeqCst);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.commits.current.store(0, Ordering::SeqCst);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            let name = writer.thread().name().unwrap_or_default().to_owned();
            let _ = writer.join();
            // the writer had the other handle, so the file is closed after this
            tracing::debug!(name, "closing a database");
        }
    }
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Grouped {
    /// Opens or creates the file, lets `prepare` create its tables, and starts the writer, a thread
    /// called `name`. redb repairs what a crash left half written, and `opening` says how far that
    /// is. A file that was closed is compacted. After a crash it is not: the node should serve
    /// again soon, and repair has read the whole file already.
    pub fn open(
        path: &Path,
        name: &str,
        cache_bytes: usize,
        opening: &Opening,
        prepare: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> io::Result<Self> {
        let crashed = Arc::new(AtomicBool::new(false));
        let (noted, told) = (crashed.clone(), opening.clone());
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes).set_repair_callback(move |repair| {
            noted.store(true, Ordering::Relaxed);
            told.checked(repair.progress());
        });
        let mut database = builder.create(path).map_err(other)?;
        // the file does not shrink by itself, and compaction needs exclusive access, which only
        // exists here
        if !crashed.load(Ordering::Relaxed) {
            let _ = database.compact();
        }
        let write = database.begin_write().map_err(other)?;
        prepare(&write).map_err(other)?;
        write.commit().map_err(other)?;
        let database = Arc::new(database);
        let (jobs, queue) = channel::<(Job, Done)>();
        let written = database.clone();
        let commits = Arc::new(Commits::default());
        let counted = commits.clone();
        let writer = std::thread::Builder::new().name(name.into()).spawn(move || {
            while let Ok(first) = queue.recv() {
                commit(
                    &written,
                    std::iter::once(first).chain(queue.try_iter()).collect(),
                    &counted,
                );
            }
        })?;
        Ok(Grouped(Arc::new(Shared { database, commits, jobs: Some(jobs), writer: Some(writer) })))
    }

    /// The number of the write that is under way, if there is one that does not count as long.
    pub fn commit_under_way(&self) -> Option<u64> {
        Some(self.0.commits.current.load(Ordering::SeqCst)).filter(|number| *number > 0)
    }

    /// Waits for the turn to write the file directly. Hold it as long as your own transaction, and
    /// never while you wait for a queued write.
    pub fn turn(&self) -> Turn<'_> {
        self.0.commits.turn()
    }

    /// Whether the last queued write failed, and an empty one fails, too. After most disk failures no
    /// write succeeds until the file is opened again.
    pub async fn has_failed(&self) -> bool {
        self.0.commits.failed.load(Ordering::SeqCst) && self.write(|_| Ok(())).await.is_err()
    }

    /// The file itself, for reads, and for writes that need not be durable yet.
    pub fn database(&self) -> &Database {
        &self.0.database
    }

    /// Queues a durable write. `done` is called with the result on the writer's thread.
    pub fn queue(
        &self,
        job: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        let sent = self.0.jobs.as_ref().map(|jobs| jobs.send((Box::new(job), Box::new(done))));
        sent.and_then(Result::ok).ok_or_else(|| other("the database's writer has stopped"))
    }

    /// Writes durably, and returns what the job returned.
    pub async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> io::Result<T> {
        let returned = Arc::new(Mutex::new(None));
        let (answer, answered) = tokio::sync::oneshot::channel();
        let slot = returned.clone();
        self.queue(
            move |write| {
                *slot.lock() = Some(job(write)?);
                Ok(())
            },
            move |result| {
                let _ = answer.send(result);
            },
        )?;
        answered.await.map_err(other)??;
        let value = returned.lock().take();
        value.ok_or_else(|| other("the database's writer lost an answer"))
    }
}

fn commit(database: &Database, batch: Vec<(Job, Done)>, commits: &Commits) {
    let (jobs, waiting): (Vec<Job>, Vec<Done>) = batch.into_iter().unzip();
    let run = || -> Result<(), redb::Error> {
        let _turn = commits.turn();
        let write = database.begin_write()?;
        for job in jobs {
            job(&write)?;
        }
        write.commit()?;
        Ok(())
    };
    let result = run().map_err(|e| e.to_string());
    commits.failed.store(result.is_err(), Ordering::SeqCst);
    for done in waiting {
        done(result.clone().map_err(io::Error::other));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::{ReadableDatabase, TableDefinition};

    const TABLE: TableDefinition<'static, u64, u64> = TableDefinition::new("t");

    #[tokio::test]
    async fn a_write_that_failed_for_its_own_reason_is_no_failure_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.redb");
        let prepare =
            |write: &WriteTransaction| write.open_table(TABLE).map(drop).map_err(Into::into);
        let grouped = Grouped::open(&path, "test", 1 << 20, &Opening::default(), prepare).unwrap();
        assert!(!grouped.has_failed().await);
        let refused = grouped.write(|_| Err::<(), _>(redb::Error::Corrupted("no".into()))).await;
        assert!(refused.is_err() && !grouped.has_failed().await);
    }

    #[tokio::test]
    async fn what_was_answered_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.redb");
        let open = || {
            Grouped::open(&path, "test", 1 << 20, &Opening::default(), |w| {
                w.open_table(TABLE).map(|_| ()).map_err(Into::into)
            })
            .unwrap()
        };
        let grouped = open();
        let writes = (0..50u64).map(|n| {
            grouped.write(move |write| {
                Ok(write.open_table(TABLE)?.insert(n, n * 2)?.map(|v| v.value()))
            })
        });
        for before in futures::future::join_all(writes).await {
            assert_eq!(before.unwrap(), None);
        }
        drop(grouped);
        let reopened = open();
        let read = reopened.database().begin_read().unwrap();
        assert_eq!(read.open_table(TABLE).unwrap().get(49).unwrap().unwrap().value(), 98);
    }

    /// Compaction of a large file takes long, and a node that was killed should be back soon.
    #[tokio::test]
    async fn a_file_that_was_not_closed_is_checked_and_not_compacted() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("x.redb"), folder.path().join("copy.redb"));
        let open = |path: &Path| {
            let opening = Opening::default();
            opening.begin("the file");
            let grouped = Grouped::open(path, "test", 1 << 20, &opening, |w| {
                w.open_table(TABLE).map(|_| ()).map_err(Into::into)
            });
            (grouped.unwrap(), opening.to_string())
        };
        let length = |path: &Path| std::fs::metadata(path).unwrap().len();
        let (grouped, said) = open(&path);
        assert_eq!(said, "opening the file", "a new file needs no check");
        let fill = grouped.write(|write| {
            let mut table = write.open_table(TABLE)?;
            for n in 0..200_000 {
                table.insert(n, n)?;
            }
            Ok(())
        });
        fill.await.unwrap();
        let empty =
            grouped.write(|write| Ok(write.open_table(TABLE)?.retain_in(1.., |_, _| false)?));
        empty.await.unwrap();
        // as a crash leaves it
        std::fs::copy(&path, &copy).unwrap();
        drop(grouped);
        let large = length(&copy);
        let (crashed, said) = open(&copy);
        assert!(length(&copy) >= large, "it was compacted");
        assert!(said.starts_with("opening the file: ") && said.contains("checked"), "{said}");
        let (closed, said) = open(&path);
        assert!(length(&path) < large, "it was closed, and is compacted");
        assert_eq!(said, "opening the file");
        for grouped in [crashed, closed] {
            let read = grouped.database().begin_read().unwrap();
            assert_eq!(read.open_table(TABLE).unwrap().get(0).unwrap().unwrap().value(), 0);
        }
    }

    #[tokio::test]
    async fn a_commit_that_is_under_way_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let grouped = Grouped::open(
            &folder.path().join("x.redb"),
            "test",
            1 << 20,
            &Opening::default(),
            |_| Ok(()),
        )
        .unwrap();
        assert_eq!(grouped.commit_under_way(), None);
        let (go, gone) = channel::<()>();
        let watched = grouped.clone();
        let write = grouped.write(move |_| {
            let _ = gone.recv();
            Ok(())
        });
        let watch = async {
            while watched.commit_under_way() != Some(1) {
                tokio::task::yield_now().await;
            }
            go.send(()).unwrap();
        };
        let (written, ()) = tokio::join!(write, watch);
        written.unwrap();
        while grouped.commit_under_way().is_some() {
            tokio::task::yield_now().await;
        }
    }
}
