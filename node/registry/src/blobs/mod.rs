//! Blobs on their way.
//!
//! | module | what it does |
//! |---|---|
//! | [`flights`] | to this node: one flight per digest, for all requests that want it |
//! | [`outgoing`] | to peers, and which of them pass a blob on |
//! | [`copies`] | uploads, copied to other regions while they arrive |
//! | [`pacing`] | caps on what is sent to a region |
//! | [`transfers`] | transfers that are under way, for people to see |
//! | [`collecting`] | what nothing refers to any more goes |
//! | [`liars`], [`rechecks`] | peers that sent wrong bytes; checks of own copies |

pub mod checkups;
pub mod collecting;
pub mod copies;
pub mod flights;
pub mod liars;
pub mod outgoing;
pub mod pacing;
pub mod rechecks;
pub mod transfers;
