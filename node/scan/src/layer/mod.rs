//! Layers: unpacked within limits, read, laid over each other.
//!
//! | module | what it does |
//! |---|---|
//! | `reading` | one layer, once, front to back |
//! | `merging` | layers over each other |

mod merging;
mod reading;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use merging::merge;
pub use reading::{read_layer, unpacked_digest};

use crate::package::{Build, Package, System};
use crate::packages::Listing;
use crate::packages::release::Says;

/// What one layer may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the unpacked layer, and of what each archive in it unpacks to.
    pub bytes: u64,
    /// Entries of its archive.
    pub files: u64,
    /// Bytes of one file that is read whole: a list of packages, a program. The engine holds one
    /// such file at a time. (JARs are not held, nor are programs of Go that are larger.)
    pub file: u64,
}

impl Default for Limits {
    /// 16 GiB, two million entries, 64 MiB.
    fn default() -> Self {
        Limits { bytes: 16 << 30, files: 2_000_000, file: 64 << 20 }
    }
}

/// Why a layer could not be read. Nothing of it is known then.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its media type is none that the engine can unpack.
    #[error("a layer of the type {0} cannot be read")]
    MediaType(String),
    /// Its bytes are not what they should be, or end too early.
    #[error("the layer is damaged: {0}")]
    Damaged(String),
    /// It is larger than a limit.
    #[error("the layer is too large: {0}")]
    TooLarge(String),
    /// The caller stopped it.
    #[error("stopped")]
    Stopped,
    /// The bytes could not be read.
    #[error("the layer could not be read: {0}")]
    Read(#[source] std::io::Error),
}

/// What one layer holds that matters, whatever image it is in: kept by the layer's digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// The number of this form. One with another number must be read again.
    pub format: u32,
    /// The files that were read, by their paths without a leading slash.
    files: BTreeMap<String, Contents>,
    /// Paths that the layer deletes from those below.
    whiteouts: Vec<String>,
    /// Folders of which nothing from below shows.
    opaque: Vec<String>,
    /// Paths at which something stands that is neither a folder nor was read: it hides what those
    /// below have there.
    replaced: Vec<String>,
    /// Files that should have been read and were not, each with the reason.
    gaps: BTreeMap<String, String>,
}

/// What one file says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Contents {
    #[serde(flatten)]
    listing: Listing,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    says: Option<Says>,
}

impl Layer {
    /// The number of the form that this build writes.
    pub const FORMAT: u32 = 1;

    /// How many packages the layer lists.
    pub fn packages(&self) -> usize {
        self.files.values().map(|file| file.listing.packages.len()).sum()
    }
}

/// What an image has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// The number of this form. One with another number must be merged again.
    pub format: u32,
    /// Its distribution, where a file says which.
    pub system: Option<System>,
    /// The release of Alpine whose repositories it uses, where that is told: `3.19`, `edge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Its packages, in a fixed order.
    pub packages: Vec<Package>,
    /// What the packages of Red Hat's images were built from; they name these by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<Build>,
    /// What could not be read of it, and why; for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<String>,
}

impl Inventory {
    /// The number of the form that this build writes.
    pub const FORMAT: u32 = 1;
}

#[cfg(test)]
mod tests;
