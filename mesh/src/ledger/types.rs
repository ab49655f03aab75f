//! The consensus library's types for this ledger. Nothing outside this folder names them.

use std::fmt;

use openraft::impls::BasicNode;
use openraft::type_config::alias::{
    CommittedLeaderIdOf, EntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf,
};
use rules::ledger::command::{Envelope, Outcome};
use serde::{Deserialize, Serialize};

/// The content of an entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    unreachable_pub,
    reason = "the consensus library's type bundle, made public by its macro, names it"
)]
pub struct Entry(pub Envelope);

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.command.name())
    }
}

// The library's default for `LeaderId` is kept: a leader is a term and a node, and a node may vote for
// a greater node after it has voted for a smaller one in the same term. So a term may have more than
// one leader, one after the other, and a term alone does not say who has proposed an entry.
openraft::declare_raft_types!(pub Consensus: D = Entry, R = Option<Outcome>, NodeId = u64, Node = BasicNode);

/// A leader: a term, and the node that was elected in it.
pub(super) type Leader = CommittedLeaderIdOf<Consensus>;
pub(super) type LogId = LogIdOf<Consensus>;
pub(super) type Vote = VoteOf<Consensus>;
pub(super) type LogEntry = EntryOf<Consensus>;
pub(super) type SnapshotMeta = SnapshotMetaOf<Consensus>;
pub(super) type Membership = StoredMembershipOf<Consensus>;
