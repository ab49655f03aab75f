//! Archives of strangers: decompressed and read once, front to back, within limits.

pub(crate) mod compression;
pub(crate) mod tar;
