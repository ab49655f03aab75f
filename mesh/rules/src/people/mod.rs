//! People and their permissions.

pub mod access;
pub mod guesses;
