//! Names, records and decisions of the mesh.
//!
//! All decisions are made without a socket, a clock or randomness. Time comes in as
//! [`words::moment::Moment`], ids come in inside commands, and what should happen is returned as a
//! value. The other crates act on it.
//!
//! | room | what it holds |
//! |---|---|
//! | [`words`] | values that are parsed once: names, digests, moments, manifests |
//! | [`blobs`] | where to fetch a blob from, what to believe, how fast, what to evict |
//! | [`proxies`] | what a project caches, and which repository a mirror's request means |
//! | [`policies`] | what a project decides about its artifacts: what stays, what never moves |
//! | [`scanners`] | how a scanner is asked, and which scans one takes |
//! | [`ledger`] | records, the commands that change them, read leases, feature levels |
//! | [`members`] | which nodes are alive, are primaries, vote, and are admitted |
//! | [`people`] | what each identity may do |
//! | [`wire`] | messages between nodes |
//! | [`edges`] | what an edge may answer from what it has kept |
//!
//! A room uses those above it, and nothing below (`tests/scenarios/arrows.rs` has the table).
//! Deliberately absent: I/O crates, `Instant::now`, randomness, HTTP status codes.

#![forbid(unsafe_code)]

pub mod blobs;
pub mod edges;
pub mod ledger;
pub mod members;
pub mod people;
pub mod policies;
pub mod proxies;
pub mod scanners;
pub mod wire;
pub mod words;
