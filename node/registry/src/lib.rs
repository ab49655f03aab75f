//! The whole registry without HTTP: what may be read and written, where blobs come from, who may do
//! what.
//!
//! | room | what it does |
//! |---|---|
//! | [`view`] | the one door to the ledger: its records as this node reads them, and the other nodes |
//! | [`upstreams`] | which client speaks to which upstream |
//! | [`blobs`] | blobs on their way: flights, copies, to peers |
//! | [`writes`] | a project's writes: to its primary, and there into the ledger |
//! | [`pushes`] | uploads |
//! | [`proxies`] | projects that cache other registries |
//! | [`people`] | who is asking, and what they may do |
//! | [`jobs`] | work that nobody waits for |
//! | [`pulls`] | may it be shown, is it here, which flight brings it |
//!
//! A room uses those above it, and nothing below (`tests/scenarios/arrows.rs` has the table).
//! Deliberately absent: HTTP statuses, headers, paths, settings. The faces in the crate `node` turn
//! requests into calls and errors into statuses.

#![forbid(unsafe_code)]

pub mod blobs;
pub mod jobs;
pub mod people;
pub mod proxies;
pub mod pulls;
pub mod pushes;
pub mod upstreams;
pub mod view;
pub mod writes;
