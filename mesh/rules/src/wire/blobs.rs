//! Byte streams: how they begin and end.

use serde::{Deserialize, Serialize};

use crate::blobs::pacing::Class;
use crate::blobs::uploads::RelayedStep;
use crate::words::digest::{ContentHash, Digest};
use crate::words::names::{NodeId, RepositoryName};

/// The maximum number of blobs in one [`Ask::Have`](super::Ask::Have).
pub const MAX_HAVE: usize = 20_000;

/// What [`Fetched::Found`] says of a copy whose sender knows it to be damaged: it is further away than
/// any that is whole. Some of its groups may be right.
pub const DAMAGED: u8 = u8::MAX;

/// The first message of a byte stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bulk {
    /// Send me this blob from `offset`.
    Fetch {
        /// Its digest.
        digest: Digest,
        /// First byte wanted.
        offset: u64,
        /// Whether the asked node, as the region's fetcher, should fetch the blob if it lacks it,
        /// and stream it while it fills.
        fill: bool,
        /// The proxy repository whose upstream has it, in case no node does.
        via: Option<RepositoryName>,
        /// Whether to send the list of the blob's groups before the bytes.
        list: bool,
        /// Whether to send the blob and not to answer [`Fetched::Elsewhere`]: this was tried
        /// already.
        direct: bool,
        /// The purpose.
        class: Class,
    },
    /// I am receiving an upload: take a copy while it arrives.
    Copy {
        /// The repository in which it will be granted.
        repository: RepositoryName,
    },
    /// A snapshot of the ledger: the consensus's header, then the file.
    Snapshot(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Send me the ledger's records as you have them: a snapshot, as an answer.
    Records,
    /// A client's request came here, and you have its upload. The body follows.
    Upload(RelayedStep),
    /// The leader's records, of which you get those that you do not have: the consensus's header.
    State(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Send me those of the ledger's records that I do not have.
    Ranges,
}

/// The answer to [`Bulk::Fetch`], before the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fetched {
    /// The description of the whole blob; the bytes from the offset follow.
    Found {
        /// Length in bytes.
        size: u64,
        /// Its content hash; `None` while it arrives from an upstream, which does not say it.
        content: Option<ContentHash>,
        /// The list of its groups ([`crate::blobs::groups`]), if it was asked for and there is one.
        list: Option<serde_bytes::ByteBuf>,
        /// The number of nodes that pass the bytes on, between one that holds the blob and the
        /// receiver: 0 if the sender holds it, [`DAMAGED`] if it knows its copy to be damaged.
        behind: u8,
    },
    /// This node is receiving the blob from here, or just has: ask it. If it does not give
    /// everything, ask here again with `direct`.
    Elsewhere(NodeId),
    /// Not here.
    Missing,
}

/// How a copy ends, after its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyEnd {
    /// The client has named the digest: keep the copy, if the bytes match.
    Seal(Digest),
    /// The client broke off or sent something else: drop the copy.
    Abandon,
}

/// How the body of a relayed request ends, after its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyEnd {
    /// All of it came.
    Whole,
    /// The client broke off.
    Broken,
}
