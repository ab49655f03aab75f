//! `atoll scanner-adapter`: offers the engine that is built in to other registries, over Harbor's API for
//! pluggable scanners (version 1.2). It is no node: it has no mesh, no ledger and no blobs.
//!
//! | module | what it does |
//! |---|---|
//! | [`authorization`] | who may ask |
//! | [`database`] | the database of vulnerabilities, from a file or a registry |
//! | [`pulling`] | reads an image's layers as they come from the registry that has it |
//! | [`work`] | the scans that were asked for |
//! | [`api`] | from a request to its answer |
//!
//! What runs next and what is kept is decided in `rules::scanners`.

pub mod api;
pub mod authorization;
pub mod database;
pub mod pulling;
pub mod work;
