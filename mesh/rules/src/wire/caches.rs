//! What replicas ask each other about what proxy projects cache.

use serde::{Deserialize, Serialize};

use super::looking::{Found, Query};
use super::proxies::Resolution;
use crate::ledger::records::{ManifestRecord, TagRecord};
use crate::words::digest::Digest;
use crate::words::names::{ProjectName, Reference, RepositoryName, Tag};

/// A question about what a replica has cached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheAsk {
    /// To the project's primary: what does this name at the upstream now?
    Resolve {
        /// The repository.
        repository: RepositoryName,
        /// The tag or digest.
        reference: Reference,
        /// The manifest that the asker has already. It is not sent.
        has: Option<Digest>,
    },
    /// What are these records in your cache? At most [`MAX_QUESTIONS`](super::MAX_QUESTIONS).
    Find(Vec<Query>),
    /// Does anything in your cache refer to these blobs? At most [`MAX_HAVE`](super::MAX_HAVE).
    Refers(Vec<Digest>),
    /// Forget this.
    Forget {
        /// The repository.
        repository: RepositoryName,
        /// The tag, or the manifest with the tags that name it.
        reference: Reference,
    },
    /// Has your cache taken over what the ledger has recorded of this project's content?
    Moved(ProjectName),
    /// Take these manifests from a replica that has cached them.
    Take {
        /// The repository.
        repository: RepositoryName,
        /// The manifests, at most [`MAX_HAVE`](super::MAX_HAVE).
        manifests: Vec<Digest>,
        /// What a tag of the repository names.
        tag: Option<(Tag, TagRecord)>,
    },
}

/// The answer to the [`CacheAsk`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheAnswer {
    /// See [`CacheAsk::Resolve`].
    Resolve(Box<CacheResolution>),
    /// See [`CacheAsk::Find`]; one entry for each question.
    Find(Vec<Found>),
    /// See [`CacheAsk::Refers`]; one entry for each blob.
    Refers(Vec<bool>),
    /// See [`CacheAsk::Forget`]: whether there was something to forget.
    Forgot(bool),
    /// See [`CacheAsk::Moved`].
    Moved(bool),
    /// See [`CacheAsk::Take`]: whether all of them are cached now.
    Taken(bool),
}

/// What the project's primary says of a tag or digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheResolution {
    /// What it names.
    pub resolution: Resolution,
    /// The manifest that it names, unless the asker has it.
    pub manifest: Option<ManifestRecord>,
    /// What the primary knows of the tag, if it is one.
    pub tag: Option<TagRecord>,
    /// Whether the primary had it cached before it was asked.
    pub known: bool,
}
