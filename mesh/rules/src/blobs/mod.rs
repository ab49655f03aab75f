//! Decisions about blobs, on their way and on disk.
//!
//! | module | what it decides |
//! |---|---|
//! | [`holding`] | what a node holds of a blob |
//! | [`flight`] | whom to fetch a blob from next, what to believe, and when to give up |
//! | [`groups`], [`reputation`] | ranges that are checked as they arrive; peers that were caught sending wrong ones |
//! | [`fanout`] | who passes a blob on to whom, when many want it at once |
//! | [`pacing`], [`congestion`] | how many bytes a second, and for what first; what may be in flight on a link |
//! | [`cache`] | which cached blobs go when the budget is full |

pub mod cache;
pub mod congestion;
pub mod fanout;
pub mod flight;
pub mod groups;
pub mod holding;
pub mod pacing;
pub mod reputation;
