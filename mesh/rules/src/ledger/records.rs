//! The ledger's records, their keys, and the traits for whatever stores them.
//!
//! Everything is in one flat, ordered map from bytes to bytes: `redb` on a node, a `BTreeMap` in
//! tests and the simulator. A key is a table byte followed by the parts that order it. Names
//! contain no NUL, so NUL ends a name.

use std::collections::{BTreeMap, BTreeSet};
// only the address type is used; what could do I/O with it is in std
use core::net::SocketAddr;
use std::ops::Bound;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ledger::level::Level;
use crate::proxies::proxy::ProxyRules;
use crate::words::digest::{ContentHash, Digest};
use crate::words::manifest::Referrer;
use crate::words::moment::Timestamp;
use crate::words::names::{
    Epoch, GroupId, NodeId, NodeName, OperationId, ProjectId, ProjectName, Region, RepositoryName,
    Revision, RobotId, Tag, TrustId, UpstreamId, UserId, UserName,
};
use crate::words::roles::Provider;
use crate::words::secret::Secret;

/// A record cannot be read: the storage failed, or the record was not written by this version.
#[derive(Debug, thiserror::Error)]
#[error("the ledger's records cannot be read: {0}")]
pub struct RecordError(pub String);

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Reads the map.
pub trait ReadRecords {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError>;
    /// Up to `limit` pairs whose keys start with `prefix`, in order, strictly after the key `after`
    /// if one is given.
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError>;
}

impl<R: ReadRecords + ?Sized> ReadRecords for &R {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        (**self).get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError> {
        (**self).scan(prefix, after, limit)
    }
}

/// Writes the map. All writes of one command are atomic.
pub trait WriteRecords: ReadRecords {
    /// Sets `key`.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError>;
    /// Removes `key`, if it is there.
    fn remove(&mut self, key: &[u8]) -> Result<(), RecordError>;
}

/// A project's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its number.
    pub id: ProjectId,
    /// Its name.
    pub name: ProjectName,
    /// Whether anyone may pull.
    pub public: bool,
    /// In how many regions a blob must be durable before a manifest that refers to it is
    /// acknowledged.
    pub durability: u32,
    /// The node that is its primary when all is well.
    pub home: NodeId,
    /// The node that may commit its writes now.
    pub primary: NodeId,
    /// The number of that primary's term.
    pub epoch: Epoch,
    /// When it was created.
    pub created: Timestamp,
    /// The upstream that it caches. If there is one, nothing can be pushed into the project.
    pub upstream: Option<UpstreamId>,
    /// What it caches of its upstream.
    pub proxy: ProxyRules,
    /// Other metadata. It is stored and shown, and has no effect except for [`SPARSE_INDEXES`],
    /// [`SPARSE_IMAGES`] and [`EDGES`].
    pub metadata: BTreeMap<String, String>,
}

/// The key of a project's metadata that lets an index be pushed before the manifests that it lists,
/// if its value is "true".
pub const SPARSE_INDEXES: &str = "sparse_indexes";
/// The same for an image and its layers.
pub const SPARSE_IMAGES: &str = "sparse_images";
/// The key of a project's metadata that says which edges may serve it: patterns of their names. If
/// absent, all may. If empty, none may.
pub const EDGES: &str = "edges";

impl Project {
    /// Whether `key` of its metadata is "true".
    pub fn is_set(&self, key: &str) -> bool {
        self.metadata.get(key).is_some_and(|value| value == "true")
    }
}

/// A repository's record. It exists while the repository has a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// When its first manifest arrived.
    pub created: Timestamp,
    /// The number of its manifests.
    pub manifests: u64,
}

/// A tag's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRecord {
    /// The manifest that it names.
    pub digest: Digest,
    /// When it was last pushed.
    pub pushed: Timestamp,
}

/// A manifest's record within one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRecord {
    /// As received.
    pub media_type: String,
    /// As received. In the map they are empty from the level of caches on, and in a record of their
    /// own ([`ContentRecord`]); [`Look::manifest`] returns them here.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// The blobs that it links, so that they can be read in this repository.
    pub blobs: Vec<Digest>,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
    /// When it was pushed. From the level of caches on this stays when the same comes again.
    pub pushed: Timestamp,
}

/// The bytes of a manifest, once for all repositories that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRecord {
    /// The number of repositories that have it.
    pub repositories: u64,
    /// As received.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// How far the tags of a repository are indexed by their manifests. A repository without this record
/// is not indexed at all. Tags that are put from the level of caches on are always in the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TagIndex {
    /// Up to this tag.
    UpTo(Tag),
    /// Completely.
    Whole,
}

/// What the ledger knows of a blob's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobDescriptor {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The hash that its ranges are checked with. Unknown if only an upstream has the blob and no
    /// node has fetched it yet.
    pub content: Option<ContentHash>,
    /// The nodes that keep it for durability now.
    pub kept_by: Vec<NodeId>,
}

/// What the ledger knows of a blob that a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRecord {
    /// Its length in bytes.
    pub size: u64,
    /// The hash that its ranges are checked with. Unknown if only an upstream has the blob.
    pub content: Option<ContentHash>,
    /// The number of repositories that refer to it.
    pub repositories: u64,
    /// The nodes that kept it when a manifest that refers to it was last acknowledged, or, from the
    /// level of tallies on, when a repair last looked. This is only a hint whom to ask first.
    pub kept_by: Vec<NodeId>,
}

/// The role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Has the ledger and blobs.
    Replica,
    /// A cache only: has blobs, but no ledger.
    Edge,
}

impl Role {
    /// Its name in settings and tables.
    pub fn name(self) -> &'static str {
        match self {
            Role::Replica => "replica",
            Role::Edge => "edge",
        }
    }
}

/// A member of the mesh, whether it is up or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its identity.
    pub id: NodeId,
    /// Its name for people.
    pub name: NodeName,
    /// Its region.
    pub region: Region,
    /// Its role.
    pub role: Role,
    /// The address of its links (UDP).
    pub address: SocketAddr,
    /// The URL of its registry, for people and tables.
    pub url: String,
}

impl NodeRecord {
    /// Checks that what a node says of itself can be shown, dialled and written into a client's
    /// settings. Names and regions are checked by their types.
    pub fn check(&self) -> Result<(), &'static str> {
        let url = self.url.as_str();
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            return Err(
                "a node's URL (http.public_url, else http.listen) must begin with http:// or https:// and a host",
            );
        }
        if url.len() > 512
            || !url.bytes().all(|b| b.is_ascii_graphic() && !br#""'<>\^`{|}"#.contains(&b))
        {
            return Err(
                "a node's URL (http.public_url) must have at most 512 letters, digits and signs of a URL",
            );
        }
        if self.address.port() == 0 {
            return Err("a node's address (mesh.advertise) must have a port");
        }
        Ok(())
    }
}

/// A user who may sign in, in a mesh below the level [`Level::PEOPLE`]. At that level it becomes an
/// [`Account`](crate::ledger::people::Account).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The password's argon2id hash, in PHC format.
    pub password_hash: Secret,
    /// Whether they may do everything.
    pub administrator: bool,
}

/// Another registry, which projects may cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamRecord {
    /// Its number.
    pub id: UpstreamId,
    /// Its name for people.
    pub name: String,
    /// Its kind in Harbor's terms, as the user wrote it.
    pub kind: String,
    /// Its URL, as the user wrote it.
    pub url: String,
    /// A description for people.
    pub description: String,
    /// User and password, if the upstream needs them. The password is sealed, and the ledger cannot
    /// open it.
    pub credentials: Option<(String, String)>,
    /// When it was recorded.
    pub created: Timestamp,
}

/// The mesh itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshRecord {
    /// Its random id. The mesh refuses nodes of other meshes by it.
    pub id: u128,
    /// When it was formed.
    pub formed: Timestamp,
    /// The secret that tokens are signed with, the same on every node.
    pub token_secret: Secret<Vec<u8>>,
}

/// A right to join for a number of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// When it expires.
    pub expires: Timestamp,
    /// The role of the nodes that it lets in. An edge is trusted less than a replica.
    pub role: Role,
    /// The number of nodes that it still lets in.
    pub left: u32,
}

impl Invitation {
    /// Checks whether a node of this role may join at `now`, with the invitation that belongs to
    /// its token, if there is one. Otherwise returns a sentence for the person who runs `atoll
    /// join`.
    pub fn lets_in(known: Option<&Invitation>, role: Role, now: Timestamp) -> Result<(), String> {
        match known {
            None => Err(
                "this token was used already or was never issued; make another with `atoll invite`"
                    .into(),
            ),
            Some(i) if i.expires < now => Err(format!(
                "this token expired at {}; make another with `atoll invite`",
                i.expires
            )),
            Some(i) if i.role != role => Err(format!(
                "this token lets in one {invited}, and the node's role is {}; make another with `atoll invite --role {}`",
                role.name(),
                role.name(),
                invited = i.role.name(),
            )),
            Some(_) => Ok(()),
        }
    }
}

pub mod key;

/// Typed reading of the map.
pub trait Look: ReadRecords {
    /// The record under `key`, decoded.
    fn record<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, RecordError> {
        self.get(key)?.map(|bytes| decode(&bytes)).transpose()
    }
    /// All records under `prefix`, decoded, with their keys.
    fn records<T: DeserializeOwned>(
        &self,
        prefix: &[u8],
    ) -> Result<Vec<(Vec<u8>, T)>, RecordError> {
        self.scan(prefix, None, usize::MAX)?
            .into_iter()
            .map(|(k, v)| Ok((k, decode(&v)?)))
            .collect()
    }
    /// The mesh's feature level.
    fn level(&self) -> Result<Level, RecordError> {
        Ok(self.record(&key::level())?.unwrap_or(Level::FIRST))
    }
    /// A project.
    fn project(&self, name: &ProjectName) -> Result<Option<Project>, RecordError> {
        self.record(&key::project(name))
    }
    /// The project with this number. Below [`Level::NUMBERS`], and at an edge, which does not know
    /// the level, all projects are read for it.
    fn project_numbered(&self, id: ProjectId) -> Result<Option<Project>, RecordError> {
        if self.level()? < Level::NUMBERS {
            return Ok(self.projects()?.into_iter().find(|project| project.id == id));
        }
        let name = self.record::<ProjectName>(&key::project_number(id))?;
        name.map_or(Ok(None), |name| self.project(&name))
    }
    /// All projects.
    fn projects(&self) -> Result<Vec<Project>, RecordError> {
        Ok(self.records(&key::projects())?.into_iter().map(|(_, v)| v).collect())
    }
    /// All nodes.
    fn nodes(&self) -> Result<Vec<NodeRecord>, RecordError> {
        Ok(self.records(&key::nodes())?.into_iter().map(|(_, v)| v).collect())
    }
    /// All upstreams.
    fn upstreams(&self) -> Result<Vec<UpstreamRecord>, RecordError> {
        Ok(self.records(&key::upstreams())?.into_iter().map(|(_, v)| v).collect())
    }
    /// The manifest that `tag` names.
    fn tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<TagRecord>, RecordError> {
        self.record(&key::tag(repository, tag))
    }
    /// A manifest.
    fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, RecordError> {
        let Some(manifest) = self.record::<ManifestRecord>(&key::manifest(repository, digest))?
        else {
            return Ok(None);
        };
        if !manifest.bytes.is_empty() {
            return Ok(Some(manifest));
        }
        let content = self.record::<ContentRecord>(&key::content(digest))?;
        Ok(content.map(|content| ManifestRecord { bytes: content.bytes, ..manifest }))
    }
    /// Whether `repository` has a manifest. Its bytes are not read.
    fn has_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, RecordError> {
        Ok(self.get(&key::manifest(repository, digest))?.is_some())
    }
    /// Whether a manifest of `repository` refers to the blob.
    fn linked(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, RecordError> {
        Ok(self.get(&key::link(repository, digest))?.is_some())
    }
    /// All manifests in `repository` that are about `subject`.
    fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<Referrer>, RecordError> {
        Ok(self
            .records(&key::referrers(repository, subject))?
            .into_iter()
            .map(|(_, v)| v)
            .collect())
    }
}

impl<R: ReadRecords + ?Sized> Look for R {}

/// Encodes a record for storage.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, RecordError> {
    postcard::to_stdvec(value).map_err(|e| RecordError(e.to_string()))
}

/// Decodes what [`encode`] wrote.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    postcard::from_bytes(bytes).map_err(|e| RecordError(e.to_string()))
}

/// The map in memory, for tests and the simulator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRecords(pub BTreeMap<Vec<u8>, Vec<u8>>);

impl ReadRecords for MemoryRecords {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        Ok(self.0.get(key).cloned())
    }
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
            _ => Bound::Included(prefix.to_vec()),
        };
        let range =
            self.0.range((start, Bound::Unbounded)).take_while(|(k, _)| k.starts_with(prefix));
        Ok(range.take(limit).map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}

impl WriteRecords for MemoryRecords {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        self.0.insert(key.to_vec(), value.to_vec());
        Ok(())
    }
    fn remove(&mut self, key: &[u8]) -> Result<(), RecordError> {
        self.0.remove(key);
        Ok(())
    }
}

/// Records which keys are written through it, so that a replica knows what is not released yet.
pub struct Tracked<'a, R> {
    records: &'a mut R,
    /// The keys put or removed so far.
    pub changed: BTreeSet<Vec<u8>>,
}

impl<'a, R> Tracked<'a, R> {
    /// Writes through to `records`.
    pub fn new(records: &'a mut R) -> Self {
        Tracked { records, changed: BTreeSet::new() }
    }
}

impl<R: ReadRecords> ReadRecords for Tracked<'_, R> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        self.records.get(key)
    }
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, RecordError> {
        self.records.scan(prefix, after, limit)
    }
}

impl<R: WriteRecords> WriteRecords for Tracked<'_, R> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        self.changed.insert(key.to_vec());
        self.records.put(key, value)
    }
    fn remove(&mut self, key: &[u8]) -> Result<(), RecordError> {
        self.changed.insert(key.to_vec());
        self.records.remove(key)
    }
}
/// One page of the names of a repository's tags, in order: up to `limit` names after `last`.
pub fn tags_page<R: Look + ?Sized>(
    records: &R,
    repository: &RepositoryName,
    last: Option<&Tag>,
    limit: usize,
) -> Result<Vec<String>, RecordError> {
    let after = last.map(|tag| key::tag(repository, tag));
    let pairs = records.scan(&key::tags(repository), after.as_deref(), limit)?;
    Ok(pairs.iter().map(|(k, _)| key::tag_of(k)).collect())
}
