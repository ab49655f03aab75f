//! Questions about what replicas hold, when some of it may be collected meanwhile.

use serde::{Deserialize, Serialize};

use crate::blobs::holding::Stock;
use crate::words::digest::Digest;
use crate::words::names::RepositoryName;

/// A question about blobs, of at most [`MAX_HAVE`](super::MAX_HAVE) of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionAsk {
    /// What do you hold of these? Answer only if you have carried out all collections up to a
    /// number, see [`collecting`](crate::ledger::collecting).
    Stock {
        /// The blobs.
        digests: Vec<Digest>,
        /// Where the asker wants to use them.
        repository: Option<RepositoryName>,
        /// The number.
        collections: u64,
    },
    /// Which of these does a push count on that came to you?
    CountedOn(Vec<Digest>),
}

impl CollectionAsk {
    /// The number of blobs that it is about.
    pub fn len(&self) -> usize {
        match self {
            CollectionAsk::Stock { digests, .. } | CollectionAsk::CountedOn(digests) => {
                digests.len()
            }
        }
    }

    /// Whether it is about no blob.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The answer to the [`CollectionAsk`] of the same name; one entry for each digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectionAnswer {
    /// See [`CollectionAsk::Stock`].
    Stock(Vec<Stock>),
    /// See [`CollectionAsk::CountedOn`].
    CountedOn(Vec<bool>),
}
