//! The whole registry without HTTP: what may be read and written, where blobs come from, and what
//! each user may do.
//!
//! | room | what it does |
//! |---|---|
//! | [`view`] | the ledger's records as this node reads them, and the other nodes |
//! | [`upstreams`] | the clients for the upstreams |
//! | [`blobs`] | blobs on their way: flights, copies, sending to peers |
//! | [`writes`] | a project's writes: to its primary, and there into the ledger |
//! | [`pushes`] | uploads |
//! | [`proxies`] | projects that cache other registries |
//! | [`people`] | authentication and authorization |
//! | [`jobs`] | background work |
//! | [`scans`] | what is vulnerable in images |
//! | [`signatures`] | who has signed images |
//! | [`events`] | what this node sees that is no change: logins, refusals, pulls |
//! | [`pulls`] | pulls of blobs: whether a blob may be shown, is here, or which flight brings it |
//!
//! A room uses those above it, and nothing below (`tests/scenarios/arrows.rs` has the table).
//! Deliberately absent: HTTP statuses, headers, paths, settings. The faces in the crate `node` turn
//! requests into calls and errors into statuses.

#![forbid(unsafe_code)]

pub mod blobs;
pub mod events;
pub mod jobs;
pub mod people;
pub mod proxies;
pub mod pulls;
pub mod pushes;
pub mod scans;
pub mod signatures;
pub mod upstreams;
pub mod view;
pub mod writes;
