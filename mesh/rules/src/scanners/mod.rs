//! How scanners are asked over Harbor's API for pluggable scanners (version 1.2), from both sides.
//!
//! | module | what it decides |
//! |---|---|
//! | [`lately`] | whether what a scanner said of itself still does |
//! | [`polling`] | when a scanner is asked whether its report is there, and when that is given up |
//! | [`requests`] | which scans an adapter takes, which runs next, and how long it keeps a report |
//! | [`turns`] | which of the scans that wait are begun next |

pub mod lately;
pub mod polling;
pub mod requests;
pub mod turns;
