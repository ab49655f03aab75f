//! What every room that touches the world stands on.
//!
//! | module | what it does |
//! |---|---|
//! | [`clock`] | the only place that asks the time |
//! | [`supervise`] | the only place that starts tasks; one way to stop them |
//! | [`grouped`] | a redb file whose writes share fsyncs |
//!
//! Deliberately absent: sockets, consensus, what a registry is. It compiles without quinn and
//! openraft, so what needs only a clock does not wait for them.

#![forbid(unsafe_code)]

pub mod clock;
pub mod grouped;
pub mod supervise;
