//! The settings that an operator writes in `node.yaml`: parsing, defaults and checks.
//!
//! All mistakes are reported at once, each with its line and a remedy. There are no hidden
//! defaults: [`REFERENCE`] lists every setting with its default, and a test compares it with the
//! code.
//!
//! - `tree`: from text to nodes that know their lines
//! - `document`: the walker that hands out settings and collects mistakes; `nearest`: what an
//!   unknown key may mean
//! - `value`: durations, sizes, addresses and other values, from text and back
//! - `meaning`: every setting with its bounds, and contradictions between settings
//! - `settings`: the result
//! - `mistake`: the result if there are mistakes
//! - `policy`: a file that says what a project decides
//! - `load`: reads a file or a text; `render`: writes settings as text
//!
//! Deliberately absent: environment variables and command-line flags as other places for settings,
//! and any task, socket or clock. Only [`load`] and [`policy`] touch the file
//! system.

mod document;
mod load;
mod meaning;
mod mistake;
mod nearest;
mod policy;
mod render;
mod settings;
mod tree;
mod value;

pub use load::{load, parse};
pub use mistake::{Mistake, Mistakes};
pub use policy::{PolicyFile, ScanPolicy, parse_policy, policy};
pub use render::render;
pub use settings::{
    Cache, CongestionControl, Deadlines, Edge, Failover, Hsm, Http, KmsKey, Lease, Ledger, Log,
    LogFormat, Mesh, Mirrors, People, ProjectCreation, Projects, Reads, Roster, SealWith, Settings,
    Signing, StaleReads, Tls, TlsFiles, Trivy, Uploads, Upstreams,
};

/// Reads a duration as settings have it: `700ms`, `2s`, `5m`, `1h`. The error is a sentence.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    let example = std::time::Duration::from_secs(24 * 3600);
    value::duration(text, example).map_err(|fault| format!("{}: {}", fault.problem, fault.remedy))
}

/// Reads a size as settings have it: `512KiB`, `4MiB`, `1GiB`. The error is a sentence.
pub fn size(text: &str) -> Result<u64, String> {
    value::size(text, 10 << 30).map_err(|fault| format!("{}: {}", fault.problem, fault.remedy))
}

/// `reference.yaml`: every setting with its default and a comment. It can be parsed.
pub const REFERENCE: &str = include_str!("../reference.yaml");
