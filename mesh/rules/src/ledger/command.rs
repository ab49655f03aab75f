//! The commands that change the ledger. A command carries everything that [`crate::ledger::apply`]
//! needs: ids, times, hashes, and the epoch it was decided under. It also carries what was read out
//! of a manifest's bytes, so that two versions of the reader never apply one entry differently.

mod name;

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ledger::collecting::CollectChange;
use crate::ledger::draining::DrainChange;
use crate::ledger::drills::DrillChange;
use crate::ledger::events::{Actor, EventsChange};
use crate::ledger::jobs::JobChange;
use crate::ledger::labels::LabelChange;
use crate::ledger::leaving::LeavingChange;
use crate::ledger::level::Level;
use crate::ledger::people::PeopleChange;
use crate::ledger::policies::{PolicyChange, Pull, Retention};
use crate::ledger::precondition::Precondition;
use crate::ledger::quotas::QuotaChange;
use crate::ledger::records::{BlobDescriptor, NodeRecord, Role, UpstreamRecord, User};
use crate::ledger::scanning::{ScanChange, ScannerChange};
use crate::ledger::sealing::SealingChange;
use crate::ledger::signatures::SignatureChange;
use crate::ledger::trash::TrashChange;
use crate::ledger::trust::TrustChange;
use crate::ledger::upkeep::UpkeepRun;
use crate::policies::quota::Limits;
use crate::proxies::proxy::ProxyChange;
use crate::words::digest::Digest;
use crate::words::manifest::Referrer;
use crate::words::moment::Timestamp;
use crate::words::names::{
    Epoch, NodeId, OperationId, ProjectName, RepositoryName, Tag, UpstreamId, UserId,
};
use crate::words::secret::Secret;

/// The maximum length of a name's part that builds of the first feature level can read.
const OLD_PART: usize = 128;

/// A command with its idempotency key: it is applied once, however often it is proposed, and every
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

/// A change of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Forms the mesh: its id, its first administrator, its first nodes and projects. Refused if
    /// the mesh exists already.
    FormMesh {
        /// The mesh's random name.
        mesh: u128,
        /// The secret that tokens are signed with.
        token_secret: Secret<Vec<u8>>,
        /// The first administrator's name and record.
        administrator: (String, User),
        /// The nodes it begins with.
        nodes: Vec<NodeRecord>,
    },
    /// Allows a number of nodes to join until it expires.
    Invite {
        /// The hash of the secret that the token carries.
        secret_hash: Digest,
        /// When the invitation ends.
        expires: Timestamp,
        /// The role of the nodes that it lets in.
        role: Role,
        /// The number of nodes that it lets in.
        nodes: u32,
    },
    /// Uses an invitation. The node becomes a member.
    Join {
        /// The hash of the secret that the node showed.
        secret_hash: Digest,
        /// The new member.
        node: NodeRecord,
    },
    /// Removes a node from the mesh. It is no longer a member, and its name becomes free. From
    /// [`Level::LEAVING`] on it must be an edge.
    RemoveNode {
        /// The node.
        id: NodeId,
    },
    /// Changes the address and other details of a known node.
    MoveNode {
        /// Its new record.
        node: NodeRecord,
    },
    /// Creates a project with its first primary, under the first epoch.
    CreateProject(NewProject),
    /// Records an upstream under the next number.
    CreateUpstream {
        /// Its name for people; names are unique.
        name: String,
        /// Its kind, in Harbor's terms.
        kind: String,
        /// Its URL.
        url: String,
        /// A description for people.
        description: String,
        /// User and sealed password, if the upstream needs them.
        credentials: Option<(String, String)>,
    },
    /// Changes an upstream if its record has not changed since the decision: a password is sealed
    /// for the user name that belongs to it.
    ChangeUpstream {
        /// The record at the time of the decision.
        was: Box<UpstreamRecord>,
        /// The new record; number and creation time stay.
        becomes: Box<UpstreamRecord>,
    },
    /// Forgets an upstream that no project caches.
    DeleteUpstream {
        /// The upstream.
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
        /// Changes of other metadata.
        metadata: BTreeMap<String, String>,
    },
    /// Removes a project that is empty. Of a cache, also removes the contents, a limited number of
    /// records at a time, see [`Outcome::Unfinished`].
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
        /// The epoch that the decision was made under; under any other epoch the command does
        /// nothing.
        expect_epoch: Epoch,
    },
    /// Stores a manifest and moves tags to it.
    PutManifest(NewManifest),
    /// Removes a tag; the manifest stays.
    DeleteTag {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
    },
    /// Removes a manifest and every tag that names it.
    DeleteManifest {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The repository.
        repository: RepositoryName,
        /// The digest.
        digest: Digest,
    },
    /// Raises the mesh's feature level, see [`crate::ledger::level`].
    RaiseLevel {
        /// To this one.
        level: Level,
        /// The secret that tokens are signed with from now on, sealed, if the mesh has kept it
        /// unsealed.
        token_secret: Secret<Vec<u8>>,
    },
    /// As `PutManifest`, if the precondition holds.
    PutManifestIf(Box<Precondition>, NewManifest),
    /// Removes the tag or manifest that the precondition is about, if the precondition holds.
    DeleteIf {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The repository.
        repository: RepositoryName,
        /// What to remove, and when.
        precondition: Box<Precondition>,
    },
    /// Removes what the ledger has recorded of a proxy project's content, a limited number of
    /// records at a time, see [`Outcome::Unfinished`]. The project stays.
    EmptyCache {
        /// The project.
        project: ProjectName,
        /// The epoch this was decided under.
        epoch: Epoch,
    },
    /// Puts tags of a repository that were set below the level of caches into the index of tags by
    /// their manifests, a limited number at a time, see [`Outcome::Unfinished`].
    IndexTags {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The repository.
        repository: RepositoryName,
    },
    /// Changes users, robots, members, or the keys that tokens are signed with.
    People(Box<PeopleChange>),
    /// As `CreateProject`, with a user as the project's admin.
    CreateOwnedProject {
        /// The user.
        owner: UserId,
        /// The project.
        project: Box<NewProject>,
    },
    /// Changes the keys that seal secrets, or seals a secret anew.
    Sealing(Box<SealingChange>),
    /// A step of a replica's removal.
    Leaving(LeavingChange),
    /// Changes whom nodes believe.
    Trust(Box<TrustChange>),
    /// Gives a manifest that the repository has another tag, unless there is such a tag.
    AddTag {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// The tag.
        tag: Tag,
    },
    /// Changes jobs or schedules.
    Job(Box<JobChange>),
    /// Another command, with who asked for it. It has the same effect, and leaves an event.
    Audited(Box<Audited>),
    /// Changes the record of events.
    Events(Box<EventsChange>),
    /// As `PutManifest` or `PutManifestIf`, checked by a primary that knew of collections up to a
    /// number, see [`collecting`](crate::ledger::collecting).
    PutChecked(Box<Checked>),
    /// Changes what is garbage.
    Collect(CollectChange),
    /// Changes what a project decides about its artifacts.
    Policy {
        /// The project.
        project: ProjectName,
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The change.
        change: Box<PolicyChange>,
    },
    /// Deletes artifacts that a project does not retain, unless they were pushed, tagged or pulled
    /// since that was judged.
    Retire {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The repository.
        repository: RepositoryName,
        /// The artifacts, at most [`AT_ONCE`](crate::ledger::policies::AT_ONCE).
        digests: Vec<Digest>,
        /// When it was judged.
        judged: Timestamp,
        /// How many manifests the repository had then. With another number nothing is deleted: a
        /// new index may list what was judged.
        manifests: u64,
    },
    /// Notes when artifacts were pulled.
    Pulled(Vec<Pull>),
    /// Changes labels, or what they are on.
    Label(Box<LabelChange>),
    /// Takes an entry out of the other metadata of a project.
    ForgetMetadata {
        /// The project.
        name: ProjectName,
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The entry's key.
        key: String,
    },
    /// Changes what is known of a project's images.
    Scan {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The change.
        change: Box<ScanChange>,
    },
    /// Changes what scans of all projects use.
    Scanner(Box<ScannerChange>),
    /// Changes whom a project trusts to sign, or what is known of its signatures.
    Signatures {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The change.
        change: Box<SignatureChange>,
    },
    /// As `CreateProject`, with what the project has from the beginning.
    CreateEquippedProject(Box<EquippedProject>),
    /// Changes what projects may have, or counts what they have.
    Quota(Box<QuotaChange>),
    /// Records a run of the mesh's upkeep.
    Upkeep(Box<UpkeepRun>),
    /// Changes which replicas drain.
    Drain(DrainChange),
    /// Restores what a project's trash has, or removes it.
    Trash {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The change.
        change: Box<TrashChange>,
    },
    /// Begins or ends a drill.
    Drill(DrillChange),
    /// Deletes artifacts that a project does not retain, if all of them are as they were seen, see
    /// [`seen`](crate::ledger::policies::LookForPolicies::seen). Otherwise nothing is deleted, because
    /// what was touched may list the others. (A time does not tell: what was on its way when they were
    /// judged is recorded later, and with an earlier time.)
    RetireSeen {
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The repository.
        repository: RepositoryName,
        /// The artifacts, at most [`AT_ONCE`](crate::ledger::policies::AT_ONCE), each as it was seen.
        /// Those that are not there any more do not matter.
        seen: Vec<(Digest, Digest)>,
        /// How many manifests the repository had then. With another number nothing is deleted: a
        /// new index may list what was judged.
        manifests: u64,
    },
    /// Records which replicas keep blobs now, as the project's primary has found out.
    Kept {
        /// The project.
        project: ProjectName,
        /// The epoch this was decided under.
        epoch: Epoch,
        /// The blobs, each with the replicas.
        blobs: Vec<(Digest, Vec<NodeId>)>,
    },
}

/// The number of [`Command::Audited`] in the encoding.
const AUDITED: u8 = 27;

/// A manifest to be stored, and what its primary knew when it checked who holds what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The number of the last collection.
    pub collections: u64,
    /// What must hold, if the writer has said so.
    pub precondition: Option<Precondition>,
    /// The manifest.
    pub new: NewManifest,
}

/// A command with who asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// Who asked for it.
    pub by: Actor,
    /// The command.
    pub command: Inner,
}

/// A command inside of another. It is encoded as bytes, and is never one that has another inside:
/// else a short message could be nested so deeply that reading it takes the node down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner(Box<Command>);

impl Inner {
    /// The command.
    pub fn command(&self) -> &Command {
        &self.0
    }
}

impl Serialize for Inner {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = postcard::to_stdvec(&*self.0).map_err(serde::ser::Error::custom)?;
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        if bytes.first() == Some(&AUDITED) {
            return Err(D::Error::custom("a command in a command in a command"));
        }
        postcard::from_bytes(&bytes)
            .map(|command| Inner(Box::new(command)))
            .map_err(D::Error::custom)
    }
}

/// A project to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewProject {
    /// Its name.
    pub name: ProjectName,
    /// Whether anyone may pull.
    pub public: bool,
    /// In how many regions blobs must be durable.
    pub durability: u32,
    /// Its home and first primary.
    pub home: NodeId,
    /// The upstream that it caches, if it is a proxy.
    pub upstream: Option<UpstreamId>,
    /// What it caches of the upstream.
    pub proxy: ProxyChange,
    /// Other metadata.
    pub metadata: BTreeMap<String, String>,
}

/// A project to be created, with what it has from the beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EquippedProject {
    /// The project.
    pub project: NewProject,
    /// The user who becomes its admin.
    pub owner: Option<UserId>,
    /// What it may have.
    pub limits: Limits,
    /// What stays in it.
    pub retention: Option<Retention>,
}

/// A manifest to be stored, and the tags that move to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewManifest {
    /// The epoch this was decided under.
    pub epoch: Epoch,
    /// The repository.
    pub repository: RepositoryName,
    /// Its digest.
    pub digest: Digest,
    /// As received.
    pub media_type: String,
    /// As received.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// The tags to move to it.
    pub tags: Vec<Tag>,
    /// The blobs it refers to. Either they were checked to be held in as many regions as
    /// `durability` requires, or they are known only from an upstream.
    pub blobs: Vec<BlobDescriptor>,
    /// The manifest that it is about, and its entry in that manifest's list of referrers.
    pub subject: Option<Box<(Digest, Referrer)>>,
}

/// The minimum feature level at which a name with a part of this length may be recorded: a replica
/// below it could not decode the name.
pub(crate) fn level_of_part(longest: usize) -> Level {
    if longest > OLD_PART { Level::ROLES } else { Level::FIRST }
}

impl Command {
    /// This command with who asked for it. One that has that already keeps it.
    #[must_use]
    pub fn audited(self, by: Actor) -> Command {
        match self {
            audited @ Command::Audited(_) => audited,
            plain => Command::Audited(Box::new(Audited { by, command: Inner(Box::new(plain)) })),
        }
    }

    /// Who asked for it, if that is known, and the command itself.
    pub fn plain(&self) -> (Option<&Actor>, &Command) {
        match self {
            Command::Audited(audited) => (Some(&audited.by), audited.command.command()),
            plain => (None, plain),
        }
    }

    /// The minimum feature level at which this may be proposed: a replica below it could not decode
    /// the entry. `RaiseLevel` itself is proposed only after every replica has said that it
    /// supports it.
    pub fn level(&self) -> Level {
        match self {
            Command::CreateProject(new) => level_of_part(new.name.longest_part()),
            Command::PutManifest(new) => level_of_part(new.repository.longest_part()),
            Command::PutManifestIf(..) | Command::DeleteIf { .. } => Level::CONDITIONS,
            Command::EmptyCache { .. } | Command::IndexTags { .. } => Level::CACHES,
            Command::People(change) => change.level(),
            Command::CreateOwnedProject { .. } => Level::PEOPLE,
            Command::Sealing(change) => change.level(),
            Command::Leaving(_) => Level::LEAVING,
            Command::Trust(change) => change.level(),
            Command::AddTag { .. } => Level::TAGS,
            Command::Job(change) => change.level(),
            Command::Events(change) => change.level(),
            Command::PutChecked(_) => Level::COLLECTION,
            Command::Collect(change) => change.level(),
            Command::Policy { change, .. } => change.level(),
            Command::Retire { .. } | Command::Pulled(_) => Level::POLICIES,
            Command::Label(change) => change.level(),
            Command::ForgetMetadata { .. } => Level::METADATA,
            Command::Scan { change, .. } => change.level(),
            Command::Scanner(change) => change.level(),
            Command::Signatures { change, .. } => change.level(),
            Command::CreateEquippedProject(_) => Level::QUOTAS,
            Command::Quota(change) => change.level(),
            Command::Upkeep(run) => run.level(),
            Command::Drain(change) => change.level(),
            Command::Trash { .. } => Level::TRASH,
            Command::Drill(change) => change.level(),
            Command::RetireSeen { .. } => Level::SEEN,
            Command::Kept { .. } => Level::TALLIES,
            Command::Audited(audited) => Level::EVENTS.max(audited.command.command().level()),
            _ => Level::FIRST,
        }
    }

    /// The project of a project's write, and the epoch that the write was decided under. Under any
    /// other epoch it does nothing.
    pub fn fence(&self) -> Option<(ProjectName, Epoch)> {
        if let Some(new) = self.new_manifest() {
            return Some((new.repository.project(), new.epoch));
        }
        match self {
            Command::ConfigureProject { name, epoch, .. }
            | Command::ForgetMetadata { name, epoch, .. }
            | Command::DeleteProject { name, epoch } => Some((name.clone(), *epoch)),
            Command::AssignPrimary { project, expect_epoch: epoch, .. }
            | Command::EmptyCache { project, epoch }
            | Command::Kept { project, epoch, .. }
            | Command::Policy { project, epoch, .. } => Some((project.clone(), *epoch)),
            Command::DeleteTag { epoch, repository, .. }
            | Command::DeleteManifest { epoch, repository, .. }
            | Command::DeleteIf { epoch, repository, .. }
            | Command::AddTag { epoch, repository, .. }
            | Command::Retire { epoch, repository, .. }
            | Command::RetireSeen { epoch, repository, .. }
            | Command::IndexTags { epoch, repository } => Some((repository.project(), *epoch)),
            Command::Job(change) => change.fence(),
            Command::Scan { epoch, change } => Some((change.project(), *epoch)),
            Command::Signatures { epoch, change } => Some((change.project(), *epoch)),
            Command::Trash { epoch, change } => Some((change.project(), *epoch)),
            Command::Audited(audited) => audited.command.command().fence(),
            Command::FormMesh { .. }
            | Command::Invite { .. }
            | Command::Join { .. }
            | Command::RemoveNode { .. }
            | Command::MoveNode { .. }
            | Command::CreateProject(_)
            | Command::CreateOwnedProject { .. }
            | Command::CreateEquippedProject(_)
            | Command::Quota(_)
            | Command::Upkeep(_)
            | Command::Drain(_)
            | Command::Drill(_)
            | Command::CreateUpstream { .. }
            | Command::ChangeUpstream { .. }
            | Command::DeleteUpstream { .. }
            | Command::RaiseLevel { .. }
            | Command::People(_)
            | Command::Sealing(_)
            | Command::Leaving(_)
            | Command::Trust(_)
            | Command::Collect(_)
            | Command::Pulled(_)
            | Command::Scanner(_)
            | Command::PutManifest(_)
            | Command::PutManifestIf(..)
            | Command::PutChecked(_)
            | Command::Label(_)
            | Command::Events(_) => None,
        }
    }

    /// The manifest that this stores, if it does.
    pub fn new_manifest(&self) -> Option<&NewManifest> {
        match self {
            Command::PutManifest(new) | Command::PutManifestIf(_, new) => Some(new),
            Command::PutChecked(checked) => Some(&checked.new),
            _ => None,
        }
    }

    /// The number of bytes of the manifest in it, 0 for commands without one. A deadline has to
    /// grow with it.
    pub fn payload(&self) -> usize {
        match self {
            Command::Audited(audited) => audited.command.command().payload(),
            plain => plain.new_manifest().map_or(0, |new| new.bytes.len()),
        }
    }
}

/// The result of a command. Only `Done` and `Unfinished` have changed the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It took effect.
    Done,
    /// A part of it took effect, because there was too much for one entry. Propose the same command
    /// again, as a new operation, to continue.
    Unfinished,
    /// The project has another epoch, so the proposer is no longer its primary.
    StaleEpoch {
        /// The epoch now.
        current: Epoch,
    },
    /// The object does not exist.
    NotFound,
    /// The object exists already.
    Exists,
    /// A sentence for the caller.
    Refused(String),
    /// The write's precondition does not hold.
    PreconditionFailed,
    /// The write counts on what this node holds, and it is being removed. What the write refers to
    /// must be checked anew.
    Leaving(NodeId),
    /// The write counts on a blob that was collected after its check. What the write refers to must
    /// be checked anew.
    Collected,
    /// An immutable tag would be moved or deleted. A sentence for the caller.
    Immutable(String),
    /// It does not fit into the project's quota. A sentence for the caller.
    OverQuota(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_in_a_command_is_read_and_a_third_is_not() {
        let by = || Actor { name: "ann".into(), address: None };
        let plain = Command::RemoveNode { id: NodeId(7) };
        let audited = plain.clone().audited(by());
        let bytes = postcard::to_stdvec(&audited).unwrap();
        assert_eq!(bytes[0], AUDITED, "the number of Command::Audited has changed: say so above");
        assert_eq!(postcard::from_bytes::<Command>(&bytes).unwrap(), audited);
        assert_eq!(audited.plain(), (Some(&by()), &plain));
        assert_eq!((audited.name(), audited.level()), (plain.name(), Level::EVENTS));
        assert_eq!(audited.clone().audited(Actor::mesh()), audited, "it keeps who asked first");
        let nested =
            Command::Audited(Box::new(Audited { by: by(), command: Inner(Box::new(audited)) }));
        let bytes = postcard::to_stdvec(&nested).unwrap();
        assert!(postcard::from_bytes::<Command>(&bytes).is_err());
    }
}
