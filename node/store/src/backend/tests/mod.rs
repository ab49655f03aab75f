//! What every backend promises, checked with each: the disk, and a bucket of an object store in
//! memory.

mod bucket;
mod checks;
mod model;

use std::path::Path;
use std::sync::Arc;

use super::Backend;
use super::disk::Disk;
pub(crate) use bucket::{Bucket, Machine};

/// What outlives a process: a folder, and what keeps bytes.
pub(crate) enum Site {
    /// All is in the folder.
    Disk(tempfile::TempDir),
    /// Blobs are in a bucket.
    Bucket(tempfile::TempDir, Machine),
}

impl Site {
    /// One for each backend, empty.
    pub(crate) fn each() -> [Site; 2] {
        let folder = || tempfile::tempdir().unwrap();
        [Site::Disk(folder()), Site::Bucket(folder(), Machine::default())]
    }

    /// The folder of the node.
    pub(crate) fn folder(&self) -> &Path {
        match self {
            Site::Disk(folder) | Site::Bucket(folder, _) => folder.path(),
        }
    }

    /// Opens the backend, as a process does that starts. The one of before must be gone, or have
    /// crashed.
    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        match self {
            Site::Disk(folder) => Arc::new(Disk::open(folder.path()).unwrap()),
            Site::Bucket(_, machine) => Arc::new(Bucket::open(machine)),
        }
    }
}
