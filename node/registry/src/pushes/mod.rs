//! Pushes of blobs: open uploads, and receiving their bytes.

pub mod receiving;
pub mod sessions;
mod underway;
