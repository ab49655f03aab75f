//! The base of all crates that do I/O.
//!
//! | module | what it does |
//! |---|---|
//! | [`clock`] | the only place that reads the clocks |
//! | [`supervise`] | the only place that starts tasks; one way to stop them |
//! | [`grouped`] | a redb file whose writes share fsyncs |
//!
//! Deliberately absent: sockets, consensus, anything about registries. This crate compiles without
//! quinn and openraft, so crates that need only a clock do not wait for those.

#![forbid(unsafe_code)]

pub mod clock;
pub mod grouped;
pub mod supervise;
