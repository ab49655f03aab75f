//! Blobs on their way.
//!
//! | module | what it does |
//! |---|---|
//! | [`flights`] | in: one flight per digest, however many ask |
//! | [`outgoing`] | to peers, and which of them passes a blob on |
//! | [`copies`] | uploads, copied to other regions while they arrive |
//! | [`pacing`] | how fast blobs go towards a region |
//! | [`transfers`] | what moves now, for people |
//! | [`liars`], [`rechecks`] | peers that were caught sending wrong bytes; own copies that peers complain of |

pub mod copies;
pub mod flights;
pub mod liars;
pub mod outgoing;
pub mod pacing;
pub mod rechecks;
pub mod transfers;
