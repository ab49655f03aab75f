//! The native engine for vulnerabilities: which packages an image has, and what is known to be
//! wrong with them.
//!
//! Bytes go in, values come out: no task, no network, no ledger. The caller brings the layers'
//! bytes and the time, and keeps what comes out.
//!
//! 1. [`read_layer`] reads one layer once and keeps what matters of it ([`Layer`]).
//! 2. [`merge`] lays layers over each other and lists what the image has ([`Inventory`]).
//! 3. [`judge`] compares an inventory with a [`Database`], which is trivy's own file. A new database
//!    needs no layer again, only the inventories.
//! 4. [`sbom`] writes an inventory as CycloneDX or SPDX.
//!
//! | room | what it holds |
//! |---|---|
//! | `archive` | tar, gzip and zstd of strangers, streamed |
//! | [`package`] | a package, and the system that it belongs to |
//! | [`report`] | findings, severities, and how much of an image they cover |
//! | `versions` | how each ecosystem orders versions and writes ranges |
//! | `packages` | the files in which packages are listed |
//! | [`layer`] | layers: unpacked within limits, read, laid over each other |
//! | [`database`] | trivy.db: bolt files, what they say of a package |
//! | [`judging`] | which advisory counts for which package |
//! | [`sbom`] | CycloneDX and SPDX |
//! | [`adapter`] | the bodies of Harbor's API for pluggable scanners |
//! | [`trivy`] | reports of the program trivy |
//!
//! All that is read here was written by strangers. Each length is checked before it is used, and
//! each reader has a limit for what it keeps.

#![forbid(unsafe_code)]

pub mod adapter;
mod archive;
pub mod database;
pub mod judging;
pub mod layer;
pub mod package;
mod packages;
pub mod report;
pub mod sbom;
pub mod trivy;
mod versions;

// what the scenarios push as trivy-db, and trivy reads, is what the reader is tested with
#[cfg(test)]
#[allow(unreachable_pub)]
#[path = "../../../tests/src/bolt.rs"]
mod bolt;
#[cfg(test)]
#[allow(dead_code, unreachable_pub)]
#[path = "../../../tests/src/vulnerabilities.rs"]
mod vulnerabilities;

pub use database::{About, Database, DatabaseError, unpack_database};
pub use judging::judge;
pub use layer::{Inventory, Layer, LayerError, Limits, merge, read_layer, unpacked_digest};
pub use package::{Kind, Package, Source, System};
pub use report::{Coverage, Cvss, Finding, Report, Severity, Status};
