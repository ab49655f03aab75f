//! The base of all crates that do I/O.
//!
//! | module | what it does |
//! |---|---|
//! | [`clock`] | the only place that reads the clocks |
//! | [`supervise`] | the only place that starts tasks; one way to stop them |
//! | [`grouped`] | a redb file whose writes share fsyncs |
//! | [`opening`] | what a node that starts is opening, and how far it is |
//!
//! Deliberately absent: sockets, consensus, anything about registries. This crate compiles without
//! quinn and openraft, so crates that need only a clock do not wait for those.

#![forbid(unsafe_code)]

pub mod clock;
pub mod grouped;
pub mod opening;
pub mod supervise;
