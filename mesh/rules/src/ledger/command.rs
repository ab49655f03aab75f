//! What may change the ledger. A command carries everything that [`crate::ledger::apply`] needs:
//! ids, times, hashes, and the epoch it was decided under. It also carries what was read out of a
//! manifest's bytes, so that two versions of the reader never apply one entry differently.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ledger::level::Level;
use crate::ledger::records::{BlobDescriptor, NodeRecord, Role, UpstreamRecord, User};
use crate::proxies::proxy::ProxyChange;
use crate::words::digest::Digest;
use crate::words::manifest::Referrer;
use crate::words::moment::Timestamp;
use crate::words::names::{
    Epoch, NodeId, OperationId, ProjectName, RepositoryName, Tag, UpstreamId,
};
use crate::words::secret::Secret;

/// The longest part of a name that builds of the first level read.
const OLD_PART: usize = 128;

/// A command with its idempotency key: however often it is proposed, it is applied once and every
/// proposer gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The key, kept over retries.
    pub operation: OperationId,
    /// When it was first proposed.
    pub at: Timestamp,
    /// What to do.
    pub command: Command,
}

/// What may change the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes the mesh: its id, its first administrator, its first nodes and projects. Refused when
    /// there is one.
    FormMesh {
        /// The mesh's random name.
        mesh: u128,
        /// What tokens are signed with.
        token_secret: Secret<Vec<u8>>,
        /// The first administrator's name and record.
        administrator: (String, User),
        /// The nodes it begins with.
        nodes: Vec<NodeRecord>,
    },
    /// Allows nodes to join, so many, until it expires.
    Invite {
        /// The hash of the secret that the token carries.
        secret_hash: Digest,
        /// When the invitation ends.
        expires: Timestamp,
        /// What it lets in.
        role: Role,
        /// How many.
        nodes: u32,
    },
    /// Uses an invitation up: the node is a member from then on.
    Join {
        /// The hash of the secret that the node showed.
        secret_hash: Digest,
        /// The new member.
        node: NodeRecord,
    },
    /// Takes an edge out of the mesh: it is no member any more, and its name is free.
    RemoveNode {
        /// Which.
        id: NodeId,
    },
    /// Tells where a known node is now.
    MoveNode {
        /// Its record as of now.
        node: NodeRecord,
    },
    /// Makes a project with its first primary, under the first epoch.
    CreateProject {
        /// Its name.
        name: ProjectName,
        /// Whether anyone may pull.
        public: bool,
        /// In how many regions blobs must be durable.
        durability: u32,
        /// Its home and first primary.
        home: NodeId,
        /// The upstream that it caches, if it is a proxy.
        upstream: Option<UpstreamId>,
        /// What of it.
        proxy: ProxyChange,
        /// What else was written about it, see
        /// [`Project::metadata`](crate::ledger::records::Project::metadata).
        metadata: BTreeMap<String, String>,
    },
    /// Records an upstream under the next number.
    CreateUpstream {
        /// What people call it; no two have the same name.
        name: String,
        /// Harbor's word for its kind.
        kind: String,
        /// Where it is.
        url: String,
        /// What people wrote about it.
        description: String,
        /// User and sealed password, if it wants any.
        credentials: Option<(String, String)>,
    },
    /// Changes an upstream, if it still is what it was when that was decided: a password is sealed
    /// for the name that goes with it.
    ChangeUpstream {
        /// What it was.
        was: Box<UpstreamRecord>,
        /// What it becomes; its number and when it was made stay.
        becomes: Box<UpstreamRecord>,
    },
    /// Forgets an upstream that no project caches.
    DeleteUpstream {
        /// Which.
        id: UpstreamId,
    },
    /// Changes a project's settings.
    ConfigureProject {
        /// Its name.
        name: ProjectName,
        /// The epoch this was decided under.
        epoch: Epoch,
        /// New visibility, if it changes.
        public: Option<bool>,
        /// New durability, if it changes.
        durability: Option<u32>,
        /// What changes of a proxy's rules.
        proxy: ProxyChange,
        /// What changes of what else was written about it.
        metadata: BTreeMap<String, String>,
    },
    /// Removes a project that is empty, or a cache with what it has: so much of that at a time, see
    /// [`Outcome::Unfinished`].
    DeleteProject {
        /// Its name.
        name: ProjectName,
        /// The epoch this was decided under.
        epoch: Epoch,
    },
    /// Gives a project another primary and the next epoch.
    AssignPrimary {
        /// The project.
        project: ProjectName,
        /// The new primary.
        node: NodeId,
        /// The epoch that the decision was made under; any other refuses it.
        expect_epoch: Epoch,
    },
    /// Stores a manifest and moves tags to it.
    PutManifest {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// Where.
        repository: RepositoryName,
        /// Its name.
        digest: Digest,
        /// As received.
        media_type: String,
        /// As received.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// The tags to move to it.
        tags: Vec<Tag>,
        /// The blobs it refers to: checked to be held where durability wants them, or known only
        /// from an upstream.
        blobs: Vec<BlobDescriptor>,
        /// What it is about and how it shows among the subject's referrers.
        subject: Option<Box<(Digest, Referrer)>>,
    },
    /// Removes a tag; the manifest stays.
    DeleteTag {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// Where.
        repository: RepositoryName,
        /// Which.
        tag: Tag,
    },
    /// Removes a manifest and every tag that names it.
    DeleteManifest {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// Where.
        repository: RepositoryName,
        /// Which.
        digest: Digest,
    },
    /// Raises the mesh's feature level, see [`crate::ledger::level`].
    RaiseLevel {
        /// To this one.
        level: Level,
        /// What tokens are signed with from now on, sealed, if the mesh keeps it in the open until
        /// then.
        token_secret: Secret<Vec<u8>>,
    },
}

impl Command {
    /// The feature level from which on this may be proposed: a replica below it could not decode
    /// the entry. `RaiseLevel` itself is proposed only after every replica has said that it
    /// supports it.
    pub fn level(&self) -> Level {
        let longest = match self {
            Command::CreateProject { name, .. } => name.longest_part(),
            Command::PutManifest { repository, .. } => repository.longest_part(),
            _ => 0,
        };
        if longest > OLD_PART { Level::ROLES } else { Level::FIRST }
    }

    /// Of a project's write the project, and the epoch that it was decided under: applied under
    /// another one, it does nothing.
    pub fn fence(&self) -> Option<(ProjectName, Epoch)> {
        match self {
            Command::ConfigureProject { name, epoch, .. }
            | Command::DeleteProject { name, epoch } => Some((name.clone(), *epoch)),
            Command::AssignPrimary { project, expect_epoch, .. } => {
                Some((project.clone(), *expect_epoch))
            }
            Command::PutManifest { epoch, repository, .. }
            | Command::DeleteTag { epoch, repository, .. }
            | Command::DeleteManifest { epoch, repository, .. } => {
                Some((repository.project(), *epoch))
            }
            Command::FormMesh { .. }
            | Command::Invite { .. }
            | Command::Join { .. }
            | Command::RemoveNode { .. }
            | Command::MoveNode { .. }
            | Command::CreateProject { .. }
            | Command::CreateUpstream { .. }
            | Command::ChangeUpstream { .. }
            | Command::DeleteUpstream { .. }
            | Command::RaiseLevel { .. } => None,
        }
    }

    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Command::FormMesh { .. } => "form_mesh",
            Command::Invite { .. } => "invite",
            Command::RemoveNode { .. } => "remove_node",
            Command::Join { .. } => "join",
            Command::MoveNode { .. } => "move_node",
            Command::CreateProject { .. } => "create_project",
            Command::CreateUpstream { .. } => "create_upstream",
            Command::ChangeUpstream { .. } => "change_upstream",
            Command::DeleteUpstream { .. } => "delete_upstream",
            Command::ConfigureProject { .. } => "configure_project",
            Command::DeleteProject { .. } => "delete_project",
            Command::AssignPrimary { .. } => "assign_primary",
            Command::PutManifest { .. } => "put_manifest",
            Command::DeleteTag { .. } => "delete_tag",
            Command::DeleteManifest { .. } => "delete_manifest",
            Command::RaiseLevel { .. } => "raise_level",
        }
    }
}

/// What came of a command. Everything but `Done` and `Unfinished` left the ledger as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It took effect.
    Done,
    /// A part of it took effect, and there was too much for one entry: the same again, as another
    /// operation, goes on.
    Unfinished,
    /// The project has another epoch: whoever proposed it is not its primary any more.
    StaleEpoch {
        /// The epoch now.
        current: Epoch,
    },
    /// What it is about does not exist.
    NotFound,
    /// There is one already.
    Exists,
    /// A sentence for the caller.
    Refused(String),
}
