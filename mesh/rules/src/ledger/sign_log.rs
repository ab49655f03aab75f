//! What the mesh has signed itself: the keys of projects, sealed, and the log of all that they have
//! signed.
//!
//! A key that was copied cannot be fenced by an epoch. So a signature of a project's own key counts
//! at the gate only if the log has it, and only the project's primary writes to the log, under its
//! epoch. Each entry has the hash of the one before: whoever keeps one hash sees whether what came
//! before it was changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::records::{self, Look, NodeRecord, RecordError, decode, encode};
use crate::policies::signatures::{AnchorId, MESH, Named, Own, SignatureRecord, unnamed};
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

/// The name of a key-encryption key: of its content, so that nodes with the same key name it alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KekId(pub [u8; 8]);

impl std::fmt::Display for KekId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for KekId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// The forms of what is sealed, the first byte. The first does not say under which key.
const FIRST_FORM: u8 = 1;
/// The form whose next bytes are the key's [`KekId`].
const NAMED_FORM: u8 = 2;

/// The beginning of what is sealed under this key; `None`: in the form of before they had names.
pub fn sealed_head(under: Option<KekId>) -> Vec<u8> {
    match under {
        Some(KekId(id)) => [&[NAMED_FORM][..], &id].concat(),
        None => vec![FIRST_FORM],
    }
}

/// Under which key something is sealed, if it says so, and the rest of it; `None` if it is of a form
/// that this build does not know.
pub fn sealed_under(sealed: &[u8]) -> Option<(Option<KekId>, &[u8])> {
    match sealed.split_first()? {
        (&FIRST_FORM, rest) => Some((None, rest)),
        (&NAMED_FORM, rest) => {
            let (id, rest) = rest.split_first_chunk::<8>()?;
            Some((Some(KekId(*id)), rest))
        }
        _ => None,
    }
}

/// The certificates of a project's key, for notation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotationIdentity {
    /// The key that they are of.
    pub key: AnchorId,
    /// The id of the authority's certificate.
    pub authority: AnchorId,
    /// The certificates as PEM: of the key first, of the authority last.
    pub chain: String,
    /// When the first of them ends.
    pub until: Timestamp,
    /// The authority's private key, sealed, if the mesh has made it: it certifies the next key, too.
    pub sealed: Option<ByteBuf>,
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
    /// The keys of all projects.
    pub fn all_keys() -> Vec<u8> {
        b"$k".to_vec()
    }
    /// The project of a key of [`keys`].
    pub fn project_of(key: &[u8]) -> Option<ProjectId> {
        let id = key.strip_prefix(b"$k")?.try_into().ok()?;
        Some(ProjectId(u64::from_be_bytes(id)))
    }
    /// The certificates of a project's key.
    pub fn identity(project: ProjectId) -> Vec<u8> {
        [&b"$c"[..], &project.0.to_be_bytes()].concat()
    }
    /// The key-encryption keys that a node has.
    pub fn opens(node: NodeId) -> Vec<u8> {
        [&b"$w"[..], &node.0.to_be_bytes()].concat()
    }
    /// Those of all nodes.
    pub fn all_opens() -> Vec<u8> {
        b"$w".to_vec()
    }
    /// The node of a key of [`opens`].
    pub fn node_of(key: &[u8]) -> Option<NodeId> {
        let id = key.strip_prefix(b"$w")?.try_into().ok()?;
        Some(NodeId(u64::from_be_bytes(id)))
    }
    /// Whether a record has sealed keys, or says who opens them: no edge is told.
    pub fn is_sealed(key: &[u8]) -> bool {
        [b"$k", b"$c", b"$w"].iter().any(|table| key.starts_with(*table))
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
    /// The certificates of the project's key, if it signs for notation.
    fn notation_identity(
        &self,
        project: ProjectId,
    ) -> Result<Option<NotationIdentity>, RecordError> {
        self.record(&key::identity(project))
    }
    /// The key-encryption keys that each replica has; one of a build that does not say it is not here.
    fn opens(&self) -> Result<BTreeMap<NodeId, Vec<KekId>>, RecordError> {
        let mut opens = BTreeMap::new();
        for (at, keks) in self.records::<Vec<KekId>>(&key::all_opens())? {
            let Some(node) = key::node_of(&at) else { continue };
            // what a replica said stays when it is removed
            if self.record::<NodeRecord>(&records::key::node(node))?.is_some() {
                opens.insert(node, keks);
            }
        }
        Ok(opens)
    }
    /// Under which key-encryption key the newest key of each project is sealed; `None` if it does not
    /// say so.
    fn signing_projects(&self) -> Result<BTreeMap<ProjectId, Option<KekId>>, RecordError> {
        let all = self.records::<Vec<MeshKey>>(&key::all_keys())?;
        let under = |keys: &[MeshKey]| {
            let newest = keys.last()?;
            Some(sealed_under(&newest.sealed).and_then(|(under, _)| under))
        };
        let read =
            |(at, keys): (Vec<u8>, Vec<MeshKey>)| Some((key::project_of(&at)?, under(&keys)?));
        Ok(all.into_iter().filter_map(read).collect())
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
    /// The names of those entries of which what is known of an image says neither name nor key, as far as
    /// they are by the project's present key.
    fn named_in_log(
        &self,
        project: ProjectId,
        known: &SignatureRecord,
        own: &Own,
    ) -> Result<Named, RecordError> {
        let mut named = Named::new();
        for number in unnamed(known, own) {
            let entry = self.record::<LogEntry>(&key::entry(project, number))?;
            if let Some(entry) = entry.filter(|entry| entry.key == own.key) {
                named.insert(number, entry.reference);
            }
        }
        Ok(named)
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
