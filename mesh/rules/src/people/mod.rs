//! People and what acts for them: who may do what.

pub mod access;
