//! How a stream begins, which peers may begin it, and the maximum length of its first frame.

use serde::{Deserialize, Serialize};

use super::ask::Ask;
use super::blobs::{Bulk, MAX_HAVE};
use super::frames::{HEAD, LARGEST, MANIFEST, SMALL};
use super::joining::JoinRequest;
use super::{BadMessage, VERSION};
use crate::members::door::Standing;

/// The first message of a stream, which says what the stream is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Open {
    /// One question.
    Ask(Ask),
    /// Read leases, see [`FromHolder`](super::FromHolder).
    Lease,
    /// Bytes.
    Bulk(Bulk),
    /// Entries of the ledger's log, from its leader. Requests of the consensus follow, each in a
    /// frame of at most [`LARGEST`] bytes. They are answered in the same order, and the leader does
    /// not wait for an answer before it sends the next.
    Append,
}

/// Why a frame is not read further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    /// The peer speaks another version, or the bytes are not a message.
    #[error(transparent)]
    Bad(#[from] BadMessage),
    /// The peer may not send this.
    #[error("{0}")]
    NotAllowed(&'static str),
    /// The frame is longer than messages of its kind may be.
    #[error("a message of {length} bytes is longer than its kind may be ({largest})")]
    TooLong {
        /// Its length.
        length: usize,
        /// The maximum length for its kind.
        largest: usize,
    },
}

/// For each kind of stream: its numbers, which peers may open it, and the maximum length of its
/// first frame. The numbers are those that the derived encoding gives to the variants in their
/// order. A test compares the table with the encoding.
const KINDS: &[(u8, u8, &str, bool, usize)] = &[
    // (of Open, of Ask or Bulk, name, for edges too, longest frame)
    (0, 0, "Raft", false, LARGEST),
    (0, 1, "Propose", false, MANIFEST),
    (0, 2, "ReadIndex", false, SMALL),
    (0, 3, "Write", false, MANIFEST),
    (0, 4, "Have", true, SMALL + MAX_HAVE * 72),
    (0, 5, "Replicate", false, SMALL),
    (0, 6, "Revoke", false, SMALL),
    (0, 7, "Resolve", true, SMALL),
    (0, 8, "Recheck", true, SMALL),
    (0, 9, "Spare", false, SMALL),
    (0, 10, "Look", true, SMALL),
    (0, 11, "Identify", true, SMALL),
    (0, 12, "Introduce", true, SMALL),
    (0, 13, "Join", false, SMALL),
    (0, 14, "Preheat", false, SMALL),
    (0, 15, "Referrers", true, SMALL),
    (0, 16, "Token", true, SMALL),
    (0, 17, "Renew", true, SMALL),
    (0, 18, "Present", true, SMALL),
    (0, 19, "Announce", false, 1 << 20),
    (0, 20, "Build", true, SMALL),
    (0, 21, "Tags", true, SMALL),
    (0, 22, "Fingerprint", false, SMALL),
    (0, 23, "Cached", false, SMALL + MAX_HAVE * 72),
    (0, 24, "Sealing", false, SMALL),
    (0, 25, "Job", false, SMALL),
    (0, 26, "Collection", false, SMALL + MAX_HAVE * 72),
    (0, 27, "Pulled", true, 256 << 10),
    (0, 28, "Scrub", false, SMALL),
    (0, 29, "Returned", false, SMALL),
    (0, 30, "Upkeep", false, SMALL),
    (0, 31, "Tally", false, SMALL),
    (0, 32, "Seek", true, SMALL),
    (0, 33, "Condition", true, SMALL + MAX_HAVE * 72),
    (0, 34, "Changed", true, SMALL),
    (1, 0, "Lease", false, SMALL),
    (2, 0, "Fetch", true, SMALL),
    (2, 1, "Copy", false, SMALL),
    (2, 2, "Snapshot", false, 1 << 20),
    (2, 3, "Records", false, SMALL),
    (2, 4, "Upload", false, SMALL),
    (2, 5, "State", false, 1 << 20),
    (2, 6, "Ranges", false, SMALL),
    (3, 0, "Append", false, SMALL),
];

/// The numbers of [`Open::Ask`], [`Open::Lease`] and [`Open::Append`], and of [`Ask::Renew`] and
/// [`Ask::Join`].
const ASK: u8 = 0;

const LEASE: u8 = 1;

const APPEND: u8 = 3;

const RENEW: u8 = 17;

const JOIN: u8 = 13;

/// The kind of a frame, read from its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    open: u8,
    kind: u8,
}

impl Kind {
    /// Reads the head of a frame: its first [`HEAD`] bytes, or all of it if it is shorter.
    pub fn of(head: &[u8]) -> Result<Self, BadMessage> {
        match head {
            [VERSION, open @ (1 | 3), ..] => Ok(Kind { open: *open, kind: 0 }),
            [VERSION, open @ (0 | 2), kind, ..] => Ok(Kind { open: *open, kind: *kind }),
            [VERSION, ..] => Err(BadMessage::Malformed("it does not begin like a message".into())),
            [version, ..] => Err(BadMessage::Version(*version)),
            [] => Err(BadMessage::Malformed("empty".into())),
        }
    }

    /// Whether it is a message of the consensus or a read lease, which must not wait behind others.
    pub fn is_consensus(self) -> bool {
        (self.open, self.kind) == (ASK, 0) || matches!(self.open, LEASE | APPEND)
    }

    /// Whether a peer with this standing may send a frame of this kind and `length`. Call this
    /// before more of the frame is read.
    pub fn admit(self, standing: Standing, length: usize) -> Result<(), NotRead> {
        let row = KINDS.iter().find(|row| (row.0, row.1) == (self.open, self.kind));
        let Some((_, _, _, edges, largest)) = row else {
            return Err(BadMessage::Malformed(
                "this node does not know this kind of message".into(),
            )
            .into());
        };
        match standing {
            Standing::Replica => {}
            Standing::Edge if *edges => {}
            Standing::Edge => return Err(NotRead::NotAllowed("an edge may not ask that")),
            Standing::RenewOnly if (self.open, self.kind) == (ASK, RENEW) => {}
            Standing::RenewOnly => {
                return Err(NotRead::NotAllowed(
                    "this certificate is no longer valid; it can only be used to renew it",
                ));
            }
            Standing::Nobody(reason) => return Err(NotRead::NotAllowed(reason)),
        }
        if length > *largest { Err(NotRead::TooLong { length, largest: *largest }) } else { Ok(()) }
    }
}

/// Whether `ask` may be sent to an edge. Only replicas answer other questions; the asker checks
/// this by the certificate of the node that answers.
pub fn edges_answer(ask: &Ask) -> bool {
    matches!(ask, Ask::Have { .. } | Ask::Recheck(_) | Ask::Build)
}

/// Decodes the one frame that a stranger may send: a [`JoinRequest`] of at most [`SMALL`] bytes.
pub fn decode_join(frame: &[u8]) -> Result<JoinRequest, NotRead> {
    if frame.len() > SMALL {
        return Err(NotRead::TooLong { length: frame.len(), largest: SMALL });
    }
    let kind = Kind::of(frame)?;
    if (kind.open, kind.kind) != (ASK, JOIN) {
        return Err(NotRead::NotAllowed("only a member may ask that"));
    }
    let body = frame.get(HEAD..).unwrap_or_default();
    let request: JoinRequest =
        postcard::from_bytes(body).map_err(|e| BadMessage::Malformed(e.to_string()))?;
    request.check().map_err(NotRead::NotAllowed)?;
    Ok(request)
}

#[cfg(test)]
mod tests;
