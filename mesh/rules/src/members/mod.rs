//! Nodes: which are alive, which lead what, which vote, and which are admitted.
//!
//! | module | what it decides |
//! |---|---|
//! | [`roster`], [`presence`] | which nodes are alive, as one node sees it; which edges are up |
//! | [`placement`] | which nodes hold and fetch blobs |
//! | [`keeper`] | when copies are looked after, and where missing ones are made |
//! | [`tally`] | whether replicas keep what the ledger says, in sums |
//! | [`replication`] | how many copies artifacts have, and what regions lack |
//! | [`failover`] | when a project gets another primary |
//! | [`signing`] | which replicas can sign for a project |
//! | [`voters`] | which nodes vote, and the next step towards that |
//! | [`majority`] | whether enough nodes vote, and what to do if not |
//! | [`shortage`] | which replicas take no copies, and why |
//! | [`removal`] | what the removal of a replica costs |
//! | [`door`] | which peers may come in through the mesh's port, and what they may do |

pub mod disaster;
pub mod door;
pub mod draining;
pub mod drilling;
pub mod failover;
pub mod keeper;
pub mod majority;
pub mod placement;
pub mod presence;
pub mod removal;
pub mod replication;
pub mod roster;
pub mod shortage;
pub mod signing;
mod since;
pub mod tally;
pub mod voters;
