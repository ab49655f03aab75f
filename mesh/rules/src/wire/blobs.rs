//! Streams of bytes: how they begin and end.

use serde::{Deserialize, Serialize};

use crate::blobs::pacing::Class;
use crate::words::digest::{ContentHash, Digest};
use crate::words::names::{NodeId, RepositoryName};

/// How many blobs one [`Ask::Have`](super::Ask::Have) may name.
pub const MAX_HAVE: usize = 20_000;

/// How a bulk stream begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bulk {
    /// Send me this blob from `offset`.
    Fetch {
        /// Its name.
        digest: Digest,
        /// First byte wanted.
        offset: u64,
        /// Whether the asked node should fetch it itself if it lacks it (it is the region's
        /// fetcher), and stream while it fills.
        fill: bool,
        /// The proxy repository whose upstream has it, if no node does.
        via: Option<RepositoryName>,
        /// Whether to send the list of the blob's groups before the bytes.
        list: bool,
        /// Whether to send it and not to answer [`Fetched::Elsewhere`]: it was tried there.
        direct: bool,
        /// What for.
        class: Class,
    },
    /// I am receiving an upload: take a copy while it arrives.
    Copy {
        /// Where it will be granted.
        repository: RepositoryName,
    },
    /// A snapshot of the ledger: header of the consensus, then the file.
    Snapshot(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// The answer to [`Bulk::Fetch`], before the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fetched {
    /// What the whole blob is; bytes from the offset follow.
    Found {
        /// Length in bytes.
        size: u64,
        /// Its content hash; `None` while it arrives from an upstream, which tells none.
        content: Option<ContentHash>,
        /// The list of its groups ([`crate::blobs::groups`]), if it was asked for and there is one.
        list: Option<serde_bytes::ByteBuf>,
        /// How many nodes the bytes pass on their way from one that holds the blob: 0 if the sender
        /// holds it.
        behind: u8,
    },
    /// This node is receiving or has just received it from here: ask it. If it does not give
    /// everything, ask here again, `direct`.
    Elsewhere(NodeId),
    /// Not here.
    Missing,
}

/// How a copy ends, after its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyEnd {
    /// The client named it: keep it, if the bytes agree.
    Seal(Digest),
    /// The client broke off or sent something else: forget it.
    Abandon,
}
