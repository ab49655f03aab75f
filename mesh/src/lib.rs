//! The mesh: how nodes connect, agree, and send each other bytes. Everything here needs a socket, a
//! disk or a clock.
//!
//! | module | what it does |
//! |---|---|
//! | [`identity`] | the mesh's CA, and nodes' certificates and how they are issued |
//! | [`secrets`] | secrets that the ledger keeps sealed |
//! | [`sealing`] | brings the keys of those secrets to every replica |
//! | [`links`] | QUIC connections to peers, bound to their certificates |
//! | [`members`] | drives the gossip; keeps the roster |
//! | [`ledger`] | the replicated log and its records; the only user of the consensus library |
//! | [`transfer`] | blobs between nodes: fetches and copies, as streams |
//! | [`service`] | answers peers about the mesh, and passes other requests to the rooms above |
//!
//! Deliberately absent: HTTP, anything about registries, and where blobs are stored (the node
//! passes that in).

#![forbid(unsafe_code)]

pub mod identity;
pub mod ledger;
pub mod links;
pub mod members;
pub mod sealing;
pub mod secrets;
pub mod service;
pub mod transfer;
