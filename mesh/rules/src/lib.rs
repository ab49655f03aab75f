//! Words and decisions of the mesh.
//!
//! Everything here is decided without a socket, a clock or dice: time comes in as [`moment::Moment`], ids come in inside
//! commands, and what should happen comes out as a value. `mesh` and `node` act on it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`digest`], [`names`] | words that are parsed once and cannot be wrong afterwards |
//! | [`moment`] | monotonic moments, wall-clock timestamps |
//! | [`manifest`] | what a manifest refers to |
//! | [`records`] | the ledger's records: keys, values, and the seam to whatever stores them |
//! | [`command`], [`apply`] | what may change the ledger, and the one function that changes it |
//! | [`lease`] | read leases: when a replica may answer from its own state, when a write is released |
//! | [`roster`], [`failover`] | who is alive in whose view; when a project gets another primary |
//! | [`health`] | whether a node's ledger can write |
//! | [`flight`] | whom to fetch a blob from next, what to believe, and when to give up |
//! | [`groups`], [`reputation`] | ranges that are checked as they arrive; peers that were caught sending wrong ones |
//! | [`fanout`] | who passes a blob on to whom, when many want it at once |
//! | [`pacing`] | how many bytes a second, and for what first |
//! | [`placement`] | which nodes hold, fetch |
//! | [`voters`] | which nodes vote, and the next step towards that |
//! | [`cache`] | which cached blobs go when the budget is full |
//! | [`presence`] | which edges are up |
//! | [`door`] | who comes in through the mesh's port, and how far |
//! | [`level`] | which formats all replicas have agreed to use |
//! | [`edge`] | what an edge may answer from what it has kept |
//! | [`platform`] | for which platforms the manifests of an index are |
//! | [`proxy`] | what of its upstream a proxy project caches |
//! | [`access`] | who may do what |
//! | [`mirror`] | which repository a request means that names another registry |
//! | [`wire`] | messages between nodes |
//!
//! Deliberately absent: I/O crates, `Instant::now`, randomness, HTTP status codes, anything of `mesh` or `node`.

#![forbid(unsafe_code)]

pub mod access;
pub mod apply;
pub mod cache;
pub mod command;
pub mod congestion;
pub mod digest;
pub mod door;
pub mod edge;
pub mod failover;
pub mod fanout;
pub mod flight;
pub mod groups;
pub mod health;
pub mod lease;
pub mod level;
pub mod manifest;
pub mod mirror;
pub mod moment;
pub mod names;
pub mod pacing;
pub mod placement;
pub mod platform;
pub mod presence;
pub mod proxy;
pub mod records;
pub mod reputation;
pub mod roster;
mod since;
pub mod voters;
pub mod wire;
