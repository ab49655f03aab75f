//! People and their permissions.

pub mod access;
