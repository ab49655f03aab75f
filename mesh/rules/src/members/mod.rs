//! Nodes: which are alive, which lead what, which vote, and which are admitted.
//!
//! | module | what it decides |
//! |---|---|
//! | [`roster`], [`presence`] | who is alive in whose view; which edges are up |
//! | [`placement`] | which nodes hold, fetch |
//! | [`failover`] | when a project gets another primary |
//! | [`voters`] | which nodes vote, and the next step towards that |
//! | [`door`] | who comes in through the mesh's port, and how far |

pub mod door;
pub mod failover;
pub mod placement;
pub mod presence;
pub mod roster;
mod since;
pub mod voters;
