//! A lock on the data folder: only one process may use it.
//!
//! A node that is started while its predecessor still drains waits for it, instead of failing at
//! the first port or database that is still in use.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use tracing::{info, warn};

/// The time between two tries to take the lock.
const LOOK: Duration = Duration::from_millis(100);
/// How long to wait after the lock is free. A killed process releases its files one by one, and the
/// lock is not the last of them.
const REST: Duration = Duration::from_millis(300);

/// The folder belongs to this process until this is dropped, or until the process ends in any way.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks the folder. Waits for at most `patience` for a process that has it.
    ///
    /// # Errors
    /// A sentence for the operator, if the folder cannot be written or the other process does not
    /// end. Nothing was changed then.
    pub async fn take(data_dir: &Path, patience: Duration) -> io::Result<Self> {
        let path = data_dir.join("in-use");
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(named)?;
        if !taken(&file).map_err(named)? {
            let folder = data_dir.display();
            info!(%folder, "another process uses this node's folder; waiting for its end");
            let free = async {
                while !taken(&file).map_err(named)? {
                    tokio::time::sleep(LOOK).await;
                }
                Ok::<_, io::Error>(())
            };
            tokio::time::timeout(patience, free).await.map_err(|_| {
                let message = format!("another process has used {folder} for {patience:?} and still does; end it (`{folder}/pid` names it), or give this node another data_dir");
                io::Error::new(io::ErrorKind::ResourceBusy, message)
            })??;
            tokio::time::sleep(REST).await;
        }
        Ok(FolderLock { _file: file })
    }
}

fn taken(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
            warn!(
                "the file system of data_dir has no locks: make sure that only one process uses it"
            );
            Ok(true)
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_comes_second_waits_and_gives_up_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path(), Duration::ZERO).await.unwrap();
        let refused =
            FolderLock::take(folder.path(), Duration::ZERO).await.unwrap_err().to_string();
        assert!(refused.contains("another process") && refused.contains("data_dir"), "{refused}");
        let second = FolderLock::take(folder.path(), Duration::from_secs(60));
        let gone = async {
            tokio::time::sleep(LOOK * 3).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(second, gone);
        second.unwrap();
    }
}
