//! Decisions about blobs, on their way and on disk.
//!
//! | module | what it decides |
//! |---|---|
//! | [`holding`] | what a node has of a blob |
//! | [`flight`] | which source to ask next, what to believe, and when to give up |
//! | [`groups`], [`reputation`] | checks of ranges as they arrive; peers that sent wrong ones |
//! | [`proof`] | what an upstream must show of a blob before it may be read as its own |
//! | [`fanout`] | which node passes a blob on to which, when many want it at once |
//! | [`pacing`], [`congestion`] | caps and which class goes first; how much may be in flight |
//! | [`scrubbing`] | how fast a node reads its blobs again, and where it is |
//! | [`uploads`] | what a request asks of an open upload, and whether it may |
//! | [`cache`] | which cached blobs are evicted when the budget is full |

pub mod cache;
pub mod congestion;
pub mod fanout;
pub mod flight;
pub mod groups;
pub mod holding;
pub mod pacing;
pub mod proof;
pub mod reputation;
pub mod scrubbing;
pub mod uploads;
