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

/// Keys of the map, one function per table.
pub mod key {
    use super::*;

    fn make(table: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = vec![table];
        for part in parts {
            key.extend_from_slice(part);
        }
        key
    }

    /// The mesh's own record.
    pub fn mesh() -> Vec<u8> {
        make(b'g', &[])
    }
    /// The replica that is being removed.
    pub fn leaving() -> Vec<u8> {
        make(b'L', &[])
    }
    /// The mesh's feature level. If absent: [`Level::FIRST`](crate::ledger::level::Level::FIRST).
    pub fn level() -> Vec<u8> {
        make(b'v', &[])
    }
    /// A project.
    pub fn project(name: &ProjectName) -> Vec<u8> {
        make(b'p', &[name.as_str().as_bytes()])
    }
    /// All projects.
    pub fn projects() -> Vec<u8> {
        make(b'p', &[])
    }
    /// The number that the last new project got.
    pub fn last_project() -> Vec<u8> {
        make(b'c', &[b"p"])
    }
    /// The number that the last new upstream got.
    pub fn last_upstream() -> Vec<u8> {
        make(b'c', &[b"s"])
    }
    /// A repository.
    pub fn repository(name: &RepositoryName) -> Vec<u8> {
        make(b'y', &[name.as_str().as_bytes()])
    }
    /// All repositories.
    pub fn repositories() -> Vec<u8> {
        make(b'y', &[])
    }
    /// All repositories of a project.
    pub fn repositories_of(project: &ProjectName) -> Vec<u8> {
        make(b'y', &[project.as_str().as_bytes(), b"/"])
    }
    /// A tag.
    pub fn tag(repository: &RepositoryName, tag: &Tag) -> Vec<u8> {
        make(b't', &[repository.as_str().as_bytes(), b"\0", tag.as_str().as_bytes()])
    }
    /// All tags of a repository.
    pub fn tags(repository: &RepositoryName) -> Vec<u8> {
        make(b't', &[repository.as_str().as_bytes(), b"\0"])
    }
    /// All tags of a project.
    pub fn tags_of(project: &ProjectName) -> Vec<u8> {
        make(b't', &[project.as_str().as_bytes(), b"/"])
    }
    /// A manifest of a repository.
    pub fn manifest(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        make(b'm', &[repository.as_str().as_bytes(), b"\0", &digest.to_key()])
    }
    /// All manifests of a project.
    pub fn manifests_of(project: &ProjectName) -> Vec<u8> {
        make(b'm', &[project.as_str().as_bytes(), b"/"])
    }
    /// All manifests of a repository.
    pub fn manifests(repository: &RepositoryName) -> Vec<u8> {
        make(b'm', &[repository.as_str().as_bytes(), b"\0"])
    }
    /// The bytes of a manifest.
    pub fn content(digest: &Digest) -> Vec<u8> {
        make(b'd', &[&digest.to_key()])
    }
    /// That a tag names a manifest: the index of tags by their manifests.
    pub fn named(repository: &RepositoryName, digest: &Digest, tag: &Tag) -> Vec<u8> {
        let tag = tag.as_str().as_bytes();
        make(b'w', &[repository.as_str().as_bytes(), b"\0", &digest.to_key(), tag])
    }
    /// All tags that name a manifest.
    pub fn all_named(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        make(b'w', &[repository.as_str().as_bytes(), b"\0", &digest.to_key()])
    }
    /// How far the tags of a repository are in that index, see
    /// [`TagIndex`](super::TagIndex).
    pub fn tag_index(repository: &RepositoryName) -> Vec<u8> {
        make(b'z', &[repository.as_str().as_bytes()])
    }
    /// The number of manifests of a repository that refer to a blob.
    pub fn link(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        make(b'l', &[repository.as_str().as_bytes(), b"\0", &digest.to_key()])
    }
    /// All blobs that a project's repositories refer to.
    pub fn links_of(project: &ProjectName) -> Vec<u8> {
        make(b'l', &[project.as_str().as_bytes(), b"/"])
    }
    /// A blob.
    pub fn blob(digest: &Digest) -> Vec<u8> {
        make(b'b', &[&digest.to_key()])
    }
    /// A manifest that is about a subject.
    pub fn referrer(repository: &RepositoryName, subject: &Digest, digest: &Digest) -> Vec<u8> {
        make(b'r', &[repository.as_str().as_bytes(), b"\0", &subject.to_key(), &digest.to_key()])
    }
    /// All manifests that are about a subject.
    pub fn referrers(repository: &RepositoryName, subject: &Digest) -> Vec<u8> {
        make(b'r', &[repository.as_str().as_bytes(), b"\0", &subject.to_key()])
    }
    /// All manifests of a repository that are about others.
    pub fn all_referrers(repository: &RepositoryName) -> Vec<u8> {
        make(b'r', &[repository.as_str().as_bytes(), b"\0"])
    }
    /// An upstream.
    pub fn upstream(id: UpstreamId) -> Vec<u8> {
        make(b's', &[&id.0.to_be_bytes()])
    }
    /// All upstreams.
    pub fn upstreams() -> Vec<u8> {
        make(b's', &[])
    }
    /// A user of a mesh below the level [`Level::PEOPLE`](crate::ledger::level::Level::PEOPLE).
    pub fn user(name: &str) -> Vec<u8> {
        make(b'u', &[name.as_bytes()])
    }
    /// All such users.
    pub fn users() -> Vec<u8> {
        make(b'u', &[])
    }
    /// An account.
    pub fn account(id: UserId) -> Vec<u8> {
        make(b'A', &[&id.0.to_be_bytes()])
    }
    /// All accounts.
    pub fn accounts() -> Vec<u8> {
        make(b'A', &[])
    }
    /// The number of the account with this name.
    pub fn user_name(name: &UserName) -> Vec<u8> {
        make(b'N', &[name.as_str().as_bytes()])
    }
    /// The names of all accounts.
    pub fn user_names() -> Vec<u8> {
        make(b'N', &[])
    }
    /// The number that the last new account, robot or membership got.
    pub fn last_of_people() -> Vec<u8> {
        make(b'c', &[b"A"])
    }
    /// A user's membership in a project.
    pub fn member(project: ProjectId, user: UserId) -> Vec<u8> {
        make(b'M', &[&project.0.to_be_bytes(), &user.0.to_be_bytes()])
    }
    /// All members of a project.
    pub fn members(project: ProjectId) -> Vec<u8> {
        make(b'M', &[&project.0.to_be_bytes()])
    }
    /// That a user is a member of a project.
    pub fn membership(user: UserId, project: ProjectId) -> Vec<u8> {
        make(b'J', &[&user.0.to_be_bytes(), &project.0.to_be_bytes()])
    }
    /// All projects that a user is a member of.
    pub fn memberships(user: UserId) -> Vec<u8> {
        make(b'J', &[&user.0.to_be_bytes()])
    }
    /// The project at the end of a key of [`membership`].
    pub fn project_of_membership(key: &[u8]) -> Option<ProjectId> {
        key.get(9..)?.try_into().ok().map(|id| ProjectId(u64::from_be_bytes(id)))
    }
    /// A robot.
    pub fn robot(id: RobotId) -> Vec<u8> {
        make(b'R', &[&id.0.to_be_bytes()])
    }
    /// All robots.
    pub fn robots() -> Vec<u8> {
        make(b'R', &[])
    }
    /// The number of the robot with this name, without the prefix.
    pub fn robot_name(login: &str) -> Vec<u8> {
        make(b'S', &[login.as_bytes()])
    }
    /// The numbers of all robots of a project.
    pub fn robot_names_of(project: &ProjectName) -> Vec<u8> {
        make(b'S', &[project.as_str().as_bytes(), b"+"])
    }
    /// A trust rule, by its issuer.
    pub fn trust(issuer: &str, robot: RobotId, id: TrustId) -> Vec<u8> {
        let issuer = Digest::sha256(issuer.as_bytes()).to_key();
        make(b'W', &[&issuer, &robot.0.to_be_bytes(), &id.0.to_be_bytes()])
    }
    /// All rules about an issuer.
    pub fn trusts_in(issuer: &str) -> Vec<u8> {
        make(b'W', &[&Digest::sha256(issuer.as_bytes()).to_key()])
    }
    /// The issuer of a rule of a robot.
    pub fn trust_place(robot: RobotId, id: TrustId) -> Vec<u8> {
        make(b'Y', &[&robot.0.to_be_bytes(), &id.0.to_be_bytes()])
    }
    /// The issuers of all rules of a robot.
    pub fn trusts_of(robot: RobotId) -> Vec<u8> {
        make(b'Y', &[&robot.0.to_be_bytes()])
    }
    /// The rule of a key of [`trust_place`].
    pub fn trust_of(key: &[u8]) -> Option<TrustId> {
        key.get(9..)?.try_into().ok().map(|id| TrustId(u64::from_be_bytes(id)))
    }
    /// A key that tokens are signed with.
    pub fn token_key(number: u64) -> Vec<u8> {
        make(b'K', &[&number.to_be_bytes()])
    }
    /// All of them.
    pub fn token_keys() -> Vec<u8> {
        make(b'K', &[])
    }
    /// The keys that seal secrets in the ledger; see [`SealingKey`](crate::ledger::sealing::SealingKey).
    pub fn sealing_keys() -> Vec<u8> {
        make(b'Z', &[])
    }
    /// The name of the project with this number.
    pub fn project_number(id: ProjectId) -> Vec<u8> {
        make(b'9', &[b"p", &id.0.to_be_bytes()])
    }
    /// How often people's records were changed.
    pub fn people_version() -> Vec<u8> {
        make(b'V', &[])
    }
    /// A group of an identity provider.
    pub fn group(id: GroupId) -> Vec<u8> {
        make(b'G', &[&id.0.to_be_bytes()])
    }
    /// All groups.
    pub fn groups() -> Vec<u8> {
        make(b'G', &[])
    }
    /// The number of the group that the provider calls so.
    pub fn group_subject(provider: Provider, subject: &str) -> Vec<u8> {
        make(b'D', &[b"g", &[provider.number() as u8], subject.as_bytes()])
    }
    /// The number of the user whom the provider calls so.
    pub fn user_subject(provider: Provider, subject: &str) -> Vec<u8> {
        make(b'D', &[b"u", &[provider.number() as u8], subject.as_bytes()])
    }
    /// How often an account of whom the provider calls so was deleted.
    pub fn forgotten(provider: Provider, subject: &str) -> Vec<u8> {
        make(b'9', &[b"g", &[provider.number() as u8], subject.as_bytes()])
    }
    /// What a provider says of a user.
    pub fn belonging(user: UserId) -> Vec<u8> {
        make(b'H', &[&user.0.to_be_bytes()])
    }
    /// The membership of a group in a project.
    pub fn group_member(project: ProjectId, group: GroupId) -> Vec<u8> {
        make(b'B', &[&project.0.to_be_bytes(), &group.0.to_be_bytes()])
    }
    /// All groups that are members of a project.
    pub fn group_members(project: ProjectId) -> Vec<u8> {
        make(b'B', &[&project.0.to_be_bytes()])
    }
    /// That a group is a member of a project.
    pub fn group_place(group: GroupId, project: ProjectId) -> Vec<u8> {
        make(b'I', &[&group.0.to_be_bytes(), &project.0.to_be_bytes()])
    }
    /// All projects that a group is a member of.
    pub fn group_places(group: GroupId) -> Vec<u8> {
        make(b'I', &[&group.0.to_be_bytes()])
    }
    /// That a group was made a member of some project at some time.
    pub fn groups_used() -> Vec<u8> {
        make(b'F', &[])
    }
    /// The settings that administrators change over the API.
    pub fn configurations() -> Vec<u8> {
        make(b'1', &[])
    }
    /// The secret of a user for clients that have no browser.
    pub fn cli_secret(user: UserId) -> Vec<u8> {
        make(b'2', &[&user.0.to_be_bytes()])
    }
    /// All of them.
    pub fn cli_secrets() -> Vec<u8> {
        make(b'2', &[])
    }
    /// The user of a key of [`cli_secret`].
    pub fn user_of_cli(key: &[u8]) -> Option<UserId> {
        key.get(1..)?.try_into().ok().map(|id| UserId(u64::from_be_bytes(id)))
    }
    /// Whether a key is one of people's records.
    pub fn is_of_people(key: &[u8]) -> bool {
        let tables = b"ANMJRSWYGDHBI2";
        key.first().is_some_and(|table| tables.contains(table))
    }
    /// A node.
    pub fn node(id: NodeId) -> Vec<u8> {
        make(b'n', &[&id.0.to_be_bytes()])
    }
    /// Marks a node as removed from the mesh, and when. Its certificate is not accepted any more.
    pub fn removed(id: NodeId) -> Vec<u8> {
        make(b'x', &[&id.0.to_be_bytes()])
    }
    /// All removed nodes.
    pub fn removals() -> Vec<u8> {
        make(b'x', &[])
    }
    /// The node of a key of [`removed`].
    pub fn removed_of(key: &[u8]) -> Option<NodeId> {
        key.get(1..)?.try_into().ok().map(|id| NodeId(u64::from_be_bytes(id)))
    }
    /// All nodes.
    pub fn nodes() -> Vec<u8> {
        make(b'n', &[])
    }
    /// An invitation, by the hash of its secret.
    pub fn invitation(secret_hash: &Digest) -> Vec<u8> {
        make(b'i', &[&secret_hash.to_key()])
    }
    /// All invitations.
    pub fn invitations() -> Vec<u8> {
        make(b'i', &[])
    }
    /// The recorded key of a node.
    pub fn pin(id: NodeId) -> Vec<u8> {
        make(b'P', &[&id.0.to_be_bytes()])
    }
    /// The recorded keys of all nodes.
    pub fn pins() -> Vec<u8> {
        make(b'P', &[])
    }
    /// An authority of the mesh.
    pub fn authority(version: u64) -> Vec<u8> {
        make(b'C', &[&version.to_be_bytes()])
    }
    /// All authorities of the mesh.
    pub fn authorities() -> Vec<u8> {
        make(b'C', &[])
    }
    /// The sealed key of an authority.
    pub fn authority_key(version: u64) -> Vec<u8> {
        make(b'U', &[&version.to_be_bytes()])
    }
    /// What was exposed last.
    pub fn exposed() -> Vec<u8> {
        make(b'T', &[])
    }
    /// The answer to a command.
    pub fn operation(id: OperationId) -> Vec<u8> {
        make(b'o', &[&id.0.to_be_bytes()])
    }
    /// The commands in the order of their entries, so that old answers can be removed.
    pub fn operation_order(revision: Revision) -> Vec<u8> {
        make(b'q', &[&revision.0.to_be_bytes()])
    }
    /// All commands in that order.
    pub fn operation_orders() -> Vec<u8> {
        make(b'q', &[])
    }

    /// The repository of a tag's, manifest's or link's key, and what follows its name.
    pub fn in_repository(key: &[u8]) -> Option<(RepositoryName, &[u8])> {
        let end = key.iter().position(|b| *b == 0)?;
        let name = std::str::from_utf8(key.get(1..end)?).ok()?;
        Some((name.parse().ok()?, &key[end + 1..]))
    }
    /// The digest at the end of a link's or a manifest's key.
    pub fn digest_of(key: &[u8]) -> Option<Digest> {
        let end = key.iter().position(|b| *b == 0)?;
        Digest::from_key(&key[end + 1..]).ok()
    }
    /// The name at the end of a key with one name (project, repository).
    pub fn name_of(key: &[u8]) -> String {
        String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned()
    }
    /// The tag at the end of a tag's key.
    pub fn tag_of(key: &[u8]) -> String {
        let end = key.iter().position(|b| *b == 0).map_or(key.len(), |i| i + 1);
        String::from_utf8_lossy(&key[end..]).into_owned()
    }
}

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
