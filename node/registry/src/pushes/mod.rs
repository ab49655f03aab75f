//! Pushes of blobs: open uploads, receiving their bytes, and passing them on to the node that has
//! the upload.

pub mod receiving;
pub mod relaying;
pub mod sessions;
mod underway;
