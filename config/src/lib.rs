//! What an operator writes in `node.yaml`, and what it means.
//!
//! Every mistake is reported at once, each with its line and a remedy. Nothing has a hidden
//! default: [`REFERENCE`] lists every setting with its default, and a test holds it to that.
//!
//! - `tree`: text to nodes that know their lines
//! - `document`: the walker that hands out settings and collects mistakes; `nearest`: what an
//!   unknown key may have meant
//! - `value`: durations, sizes, addresses and the other values, from text and back
//! - `meaning`: every setting with its bounds, and what settings must not say to each other
//! - `settings`: what comes out
//! - `mistake`: what comes out instead
//! - `load`: the ways in; `render`: the way back to text
//!
//! Deliberately absent: environment variables and command-line flags as a second place for
//! settings, and any task, socket or clock. Only [`load`] touches the file system.

mod document;
mod load;
mod meaning;
mod mistake;
mod nearest;
mod render;
mod settings;
mod tree;
mod value;

pub use load::{load, parse};
pub use mistake::{Mistake, Mistakes};
pub use render::render;
pub use settings::{
    Cache, CongestionControl, Deadlines, Edge, Failover, Http, Lease, Ledger, Log, LogFormat, Mesh,
    Mirrors, Projects, Reads, Roster, Settings, StaleReads, Tls, Uploads, Upstreams,
};

/// `reference.yaml`: every setting with its default and a comment. It parses.
pub const REFERENCE: &str = include_str!("../reference.yaml");
