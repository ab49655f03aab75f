//! trivy.db: what is known of packages.
//!
//! | module | what it holds |
//! |---|---|
//! | `bolt` | the file's format |
//! | [`about`] | what the database says about itself |
//! | [`advisories`] | what it says about packages |
//! | `unpacking` | the artifact that it comes in |

pub mod about;
pub mod advisories;
mod bolt;
mod unpacking;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::{ControlFlow, RangeFrom};
use std::path::Path;

pub use about::About;
pub use unpacking::unpack_database;

use advisories::{Advisory, Detail, Found, RedHat, Source};
use bolt::{Bolt, Bucket, Entry};

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

/// The name of the database's file.
pub const DATABASE: &str = "trivy.db";

/// The name of the file beside it, which says when it was made.
pub const METADATA: &str = "metadata.json";

/// Buckets at the top, at most: each distribution's releases, and each source of a language.
const BUCKETS: usize = 10_000;

/// An open database. It only reads, and may be used by several threads at once.
#[derive(Debug)]
pub struct Database {
    about: About,
    bolt: Bolt,
    buckets: BTreeMap<String, Bucket>,
    sources: BTreeMap<String, Source>,
}

fn json<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, DatabaseError> {
    serde_json::from_slice(bytes)
        .map_err(|error| DatabaseError::Damaged(format!("its entry {what}: {error}")))
}

impl Database {
    /// Opens the database in `file` ([`DATABASE`]), with the [`METADATA`] beside it.
    pub fn open(file: &Path) -> Result<Self, DatabaseError> {
        let metadata = std::fs::read(file.with_file_name(METADATA))?;
        let about = About::parse(&metadata)?;
        let bolt = Bolt::open(File::open(file)?)?;
        let mut buckets = BTreeMap::new();
        bolt.each(&bolt.root(), &mut |name, entry| {
            if let (Ok(name), Entry::Bucket(bucket)) = (std::str::from_utf8(name), entry) {
                buckets.insert(name.to_owned(), bucket);
            }
            if buckets.len() > BUCKETS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if buckets.len() > BUCKETS {
            return Err(DatabaseError::Damaged("it has too many buckets".to_owned()));
        }
        let mut database = Database { about, bolt, buckets, sources: BTreeMap::new() };
        if let Some(bucket) = database.buckets.get("data-source").cloned() {
            for (name, value) in database.values(&bucket, BUCKETS)? {
                let source: Source = json(&value, &name)?;
                database.sources.insert(name, source);
            }
        }
        Ok(database)
    }

    /// What it says about itself.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Whether it has a bucket of this name: whether it knows of a distribution's release at all.
    pub fn knows(&self, bucket: &str) -> bool {
        self.buckets.contains_key(bucket)
    }

    /// What one bucket says about a package: by id.
    pub fn advisories(&self, bucket: &str, package: &str) -> Result<Vec<Found>, DatabaseError> {
        let mut found = Vec::new();
        let Some(top) = self.buckets.get(bucket) else { return Ok(found) };
        let Some(inner) = self.bolt.bucket(top, package.as_bytes())? else { return Ok(found) };
        let source = self.sources.get(bucket).cloned().unwrap_or_default();
        for (id, value) in self.values(&inner, usize::MAX)? {
            let advisory: Advisory = json(&value, &id)?;
            found.push(Found { id, source: source.clone(), advisory });
        }
        Ok(found)
    }

    /// What all sources of an ecosystem (`npm`, `pip`) say about a package. Of two that have the
    /// same id the later bucket counts, as with trivy.
    pub fn of_ecosystem(
        &self,
        ecosystem: &str,
        package: &str,
    ) -> Result<Vec<Found>, DatabaseError> {
        let prefix = format!("{ecosystem}::");
        let mut found = BTreeMap::new();
        let from: RangeFrom<String> = prefix.clone()..;
        for (bucket, _) in
            self.buckets.range(from).take_while(|(name, _)| name.starts_with(&prefix))
        {
            for one in self.advisories(bucket, package)? {
                found.insert(one.id.clone(), one);
            }
        }
        Ok(found.into_values().collect())
    }

    /// What Red Hat says about a package, by the id of its advisory or CVE.
    pub fn red_hat(&self, package: &str) -> Result<Vec<(String, RedHat)>, DatabaseError> {
        let mut found = Vec::new();
        let Some(top) = self.buckets.get("Red Hat") else { return Ok(found) };
        let Some(inner) = self.bolt.bucket(top, package.as_bytes())? else { return Ok(found) };
        for (id, value) in self.values(&inner, usize::MAX)? {
            let entry = json(&value, &id)?;
            found.push((id, entry));
        }
        Ok(found)
    }

    /// The products (numbers of CPEs) that a repository of Red Hat's (`repository`), or an image of
    /// theirs (`nvr`), belongs to.
    pub fn products(&self, kind: &str, name: &str) -> Result<Vec<u64>, DatabaseError> {
        let Some(top) = self.buckets.get("Red Hat CPE") else { return Ok(Vec::new()) };
        let Some(inner) = self.bolt.bucket(top, kind.as_bytes())? else { return Ok(Vec::new()) };
        match self.bolt.value(&inner, name.as_bytes())? {
            Some(value) => Ok(json::<Option<Vec<u64>>>(&value, name)?.unwrap_or_default()),
            None => Ok(Vec::new()),
        }
    }

    /// What is known of an id, if anything.
    pub fn detail(&self, id: &str) -> Result<Option<Detail>, DatabaseError> {
        let Some(bucket) = self.buckets.get("vulnerability") else { return Ok(None) };
        match self.bolt.value(bucket, id.as_bytes())? {
            Some(value) => json(&value, id).map(Some),
            None => Ok(None),
        }
    }

    /// The values of a bucket whose keys are text. Empty values stand for nothing.
    fn values(
        &self,
        bucket: &Bucket,
        most: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, DatabaseError> {
        let mut values = Vec::new();
        self.bolt.each(bucket, &mut |key, entry| {
            if let (Ok(key), Entry::Value(value)) = (std::str::from_utf8(key), entry)
                && !value.is_empty()
            {
                values.push((key.to_owned(), value.to_vec()));
            }
            if values.len() >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(values)
    }
}
