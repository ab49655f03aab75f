//! What the mesh has signed itself: the keys of projects, sealed, and the log of all that they have
//! signed.
//!
//! A key that was copied cannot be fenced by an epoch. So a signature of a project's own key counts
//! at the gate only if the log has it, and only the project's primary writes to the log, under its
//! epoch. Each entry has the hash of the one before: whoever keeps one hash sees whether what came
//! before it was changed.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::records::{Look, RecordError, decode, encode};
use crate::policies::signatures::{AnchorId, MESH};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{Epoch, NodeId, ProjectId, RepositoryName};

/// The maximum number of keys that a project has had.
pub const MOST_KEYS: usize = 20;
/// The maximum number of payloads in an entry: one for each form of signatures.
pub const MOST_PAYLOADS: usize = 4;
/// The number of entries that are read at a time.
const PAGE: usize = 500;

/// A key of a project that the mesh signs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshKey {
    /// The id of the public key.
    pub id: AnchorId,
    /// The public key, as PEM.
    pub pem: String,
    /// Its number in the project, from 1 on.
    pub version: u32,
    /// When it was made.
    pub created: Timestamp,
    /// The private key, sealed under the operator's key-encryption key. Edges are never told.
    pub sealed: ByteBuf,
}

impl MeshKey {
    /// The name of its signer.
    pub fn signer(version: u32) -> String {
        if version == 1 { MESH.to_owned() } else { format!("{MESH}-{version}") }
    }
}

/// What the mesh has signed once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its number in the project's log, from 1 on.
    pub number: u64,
    /// The repository.
    pub repository: RepositoryName,
    /// What was signed.
    pub subject: Digest,
    /// Under which name.
    pub reference: String,
    /// With which key.
    pub key: AnchorId,
    /// SHA-256 of the signed bytes of each form.
    pub payloads: Vec<Digest>,
    /// The epoch of the primary that signed.
    pub epoch: Epoch,
    /// The node that signed.
    pub node: NodeId,
    /// Who asked for it.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// The hash of the entry before; of the first one, of nothing.
    pub before: Digest,
}

impl LogEntry {
    /// The hash of this entry, with all before it.
    pub fn hash(&self) -> Result<Digest, RecordError> {
        Ok(Digest::sha256(&[b"atoll sign log 1\0", &encode(self)?[..]].concat()))
    }
}

/// The end of a project's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead {
    /// The number of the last entry; 0 if there is none.
    pub number: u64,
    /// Its hash.
    pub hash: Digest,
}

impl Default for LogHead {
    fn default() -> Self {
        LogHead { number: 0, hash: Digest::sha256(b"") }
    }
}

/// Keys in the map.
pub mod key {
    use super::*;

    /// The keys of a project.
    pub fn keys(project: ProjectId) -> Vec<u8> {
        [&b"$k"[..], &project.0.to_be_bytes()].concat()
    }
    /// Whether a record has sealed keys, which no edge is told.
    pub fn is_sealed(key: &[u8]) -> bool {
        key.starts_with(b"$k")
    }
    /// An entry of a project's log.
    pub fn entry(project: ProjectId, number: u64) -> Vec<u8> {
        [&b"$j"[..], &project.0.to_be_bytes(), &number.to_be_bytes()].concat()
    }
    /// A project's log.
    pub fn log(project: ProjectId) -> Vec<u8> {
        [&b"$j"[..], &project.0.to_be_bytes()].concat()
    }
    /// The number of the entry that has this payload.
    pub fn payload(project: ProjectId, payload: &Digest) -> Vec<u8> {
        [&b"$i"[..], &project.0.to_be_bytes(), &payload.to_key()].concat()
    }
    /// The payloads of a project's log.
    pub fn payloads(project: ProjectId) -> Vec<u8> {
        [&b"$i"[..], &project.0.to_be_bytes()].concat()
    }
    /// The end of a project's log.
    pub fn head(project: ProjectId) -> Vec<u8> {
        [&b"$h"[..], &project.0.to_be_bytes()].concat()
    }
}

/// What a check of a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It is whole: the number of entries, and the hash of the last.
    Whole(LogHead),
    /// An entry is missing, or was changed: the first that does not fit.
    Broken(u64),
}

/// Typed reading of keys and logs.
pub trait LookForSigning: Look {
    /// The keys of a project, the oldest first.
    fn mesh_keys(&self, project: ProjectId) -> Result<Vec<MeshKey>, RecordError> {
        Ok(self.record(&key::keys(project))?.unwrap_or_default())
    }
    /// The end of a project's log.
    fn log_head(&self, project: ProjectId) -> Result<LogHead, RecordError> {
        Ok(self.record(&key::head(project))?.unwrap_or_default())
    }
    /// Entries of a project's log after this number, at most `limit`.
    fn log_after(
        &self,
        project: ProjectId,
        number: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, RecordError> {
        let after = key::entry(project, number);
        let found = self.scan(&key::log(project), Some(&after), limit)?;
        found.iter().map(|(_, entry)| decode(entry)).collect()
    }
    /// Whether the log has all its entries as they were written.
    fn check_log(&self, project: ProjectId) -> Result<Checked, RecordError> {
        let (head, mut last) = (self.log_head(project)?, LogHead::default());
        loop {
            let some = self.log_after(project, last.number, PAGE)?;
            if some.is_empty() {
                let whole = last == head;
                return Ok(if whole {
                    Checked::Whole(head)
                } else {
                    Checked::Broken(last.number + 1)
                });
            }
            for entry in some {
                if entry.number != last.number + 1 || entry.before != last.hash {
                    return Ok(Checked::Broken(last.number + 1));
                }
                last = LogHead { number: entry.number, hash: entry.hash()? };
            }
        }
    }
}

impl<R: Look + ?Sized> LookForSigning for R {}
