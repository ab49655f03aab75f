//! Pushes of blobs: open uploads, and their bytes on their way in.

pub mod receiving;
pub mod sessions;
mod underway;
