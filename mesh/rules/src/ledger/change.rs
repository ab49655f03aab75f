//! The writes, besides storing manifests, that only a project's primary may commit. Any node may
//! decide them; the primary adds its epoch.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ledger::command::Command;
use crate::ledger::level::Level;
use crate::ledger::policies::PolicyChange;
use crate::ledger::precondition::Precondition;
use crate::ledger::scanning::ScanChange;
use crate::ledger::signatures::SignatureChange;
use crate::ledger::trash::TrashChange;
use crate::proxies::proxy::ProxyChange;
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{Epoch, ProjectName, RepositoryName, Tag};

/// A change of one project. It becomes a [`Command`] only with the epoch of the primary that
/// commits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Changes the project's settings.
    Configure {
        /// Its name.
        name: ProjectName,
        /// New visibility, if it changes.
        public: Option<bool>,
        /// New durability, if it changes.
        durability: Option<u32>,
        /// What changes of a proxy's rules.
        proxy: ProxyChange,
        /// Changes of other metadata of the project.
        metadata: BTreeMap<String, String>,
    },
    /// Takes an entry out of the other metadata of the project.
    ForgetMetadata {
        /// Its name.
        name: ProjectName,
        /// The entry's key.
        key: String,
    },
    /// Removes the project, see [`Command::DeleteProject`].
    Delete {
        /// Its name.
        name: ProjectName,
    },
    /// Removes a tag; the manifest stays.
    DeleteTag {
        /// The repository.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
    },
    /// Removes a manifest and every tag that names it.
    DeleteManifest {
        /// The repository.
        repository: RepositoryName,
        /// The digest.
        digest: Digest,
    },
    /// Removes the tag or manifest that the precondition is about, if it holds.
    DeleteIf {
        /// The repository.
        repository: RepositoryName,
        /// What to remove, and when.
        precondition: Box<Precondition>,
    },
    /// Gives a manifest another tag, see [`Command::AddTag`].
    AddTag {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// The tag.
        tag: Tag,
    },
    /// Changes what the project decides about its artifacts.
    Policy {
        /// Its name.
        name: ProjectName,
        /// The change.
        change: Box<PolicyChange>,
    },
    /// Changes what is known of the project's images.
    Scan(Box<ScanChange>),
    /// Changes whom the project trusts to sign, or what is known of its signatures.
    Signatures(Box<SignatureChange>),
    /// Deletes what the project does not retain, see [`Command::Retire`].
    Retire {
        /// The repository.
        repository: RepositoryName,
        /// The artifacts.
        digests: Vec<Digest>,
        /// When it was judged.
        judged: Timestamp,
        /// How many manifests the repository had then.
        manifests: u64,
    },
    /// Restores what the project's trash has, or removes it.
    Trash(Box<TrashChange>),
    /// Deletes what the project does not retain, see [`Command::RetireSeen`].
    RetireSeen {
        /// The repository.
        repository: RepositoryName,
        /// The artifacts, each as it was seen.
        seen: Vec<(Digest, Digest)>,
        /// How many manifests the repository had then.
        manifests: u64,
    },
}

impl Change {
    /// The project.
    pub fn project(&self) -> ProjectName {
        match self {
            Change::Configure { name, .. }
            | Change::Delete { name }
            | Change::Policy { name, .. }
            | Change::ForgetMetadata { name, .. } => name.clone(),
            Change::Scan(change) => change.project(),
            Change::Signatures(change) => change.project(),
            Change::Trash(change) => change.project(),
            Change::DeleteTag { repository, .. }
            | Change::DeleteManifest { repository, .. }
            | Change::DeleteIf { repository, .. }
            | Change::AddTag { repository, .. }
            | Change::Retire { repository, .. }
            | Change::RetireSeen { repository, .. } => repository.project(),
        }
    }

    /// The minimum feature level of the mesh, see [`Command::level`].
    pub fn level(&self) -> Level {
        self.clone().under(Epoch::FIRST).level()
    }

    /// The command that carries `epoch`.
    pub fn under(self, epoch: Epoch) -> Command {
        match self {
            Change::Configure { name, public, durability, proxy, metadata } => {
                Command::ConfigureProject { name, epoch, public, durability, proxy, metadata }
            }
            Change::ForgetMetadata { name, key } => Command::ForgetMetadata { name, epoch, key },
            Change::Delete { name } => Command::DeleteProject { name, epoch },
            Change::DeleteTag { repository, tag } => Command::DeleteTag { epoch, repository, tag },
            Change::DeleteManifest { repository, digest } => {
                Command::DeleteManifest { epoch, repository, digest }
            }
            Change::DeleteIf { repository, precondition } => {
                Command::DeleteIf { epoch, repository, precondition }
            }
            Change::AddTag { repository, digest, tag } => {
                Command::AddTag { epoch, repository, digest, tag }
            }
            Change::Scan(change) => Command::Scan { epoch, change },
            Change::Signatures(change) => Command::Signatures { epoch, change },
            Change::Trash(change) => Command::Trash { epoch, change },
            Change::Policy { name, change } => Command::Policy { project: name, epoch, change },
            Change::Retire { repository, digests, judged, manifests } => {
                Command::Retire { epoch, repository, digests, judged, manifests }
            }
            Change::RetireSeen { repository, seen, manifests } => {
                Command::RetireSeen { epoch, repository, seen, manifests }
            }
        }
    }

    /// The change in a command; `None` if the command is not a change of a project.
    fn of(command: Command) -> Option<Self> {
        Some(match command {
            Command::ConfigureProject { name, epoch: _, public, durability, proxy, metadata } => {
                Change::Configure { name, public, durability, proxy, metadata }
            }
            Command::ForgetMetadata { name, key, .. } => Change::ForgetMetadata { name, key },
            Command::DeleteProject { name, .. } => Change::Delete { name },
            Command::DeleteTag { repository, tag, .. } => Change::DeleteTag { repository, tag },
            Command::DeleteManifest { repository, digest, .. } => {
                Change::DeleteManifest { repository, digest }
            }
            Command::DeleteIf { repository, precondition, .. } => {
                Change::DeleteIf { repository, precondition }
            }
            Command::AddTag { repository, digest, tag, .. } => {
                Change::AddTag { repository, digest, tag }
            }
            Command::Scan { change, .. } => Change::Scan(change),
            Command::Signatures { change, .. } => Change::Signatures(change),
            Command::Trash { change, .. } => Change::Trash(change),
            Command::Policy { project, change, .. } => Change::Policy { name: project, change },
            Command::Retire { repository, digests, judged, manifests, .. } => {
                Change::Retire { repository, digests, judged, manifests }
            }
            Command::RetireSeen { repository, seen, manifests, .. } => {
                Change::RetireSeen { repository, seen, manifests }
            }
            _ => return None,
        })
    }
}

/// On the wire a change is the command with the first epoch, which the receiver ignores. Version 3
/// of the protocol requires this, and nodes of two builds pass writes to each other.
impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.clone().under(Epoch::FIRST).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Change {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let command = Command::deserialize(deserializer)?;
        let name = command.name();
        Change::of(command)
            .ok_or_else(|| D::Error::custom(format!("{name} is not a project's write")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::precondition::Named;
    use crate::words::names::{NodeId, Reference};

    fn all() -> Vec<Change> {
        let (name, repository): (ProjectName, RepositoryName) =
            ("demo".parse().unwrap(), "demo/a".parse().unwrap());
        let metadata = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let proxy = ProxyChange::default();
        vec![
            Change::Configure {
                name: name.clone(),
                public: Some(true),
                durability: None,
                proxy,
                metadata,
            },
            Change::Delete { name: name.clone() },
            Change::ForgetMetadata { name: name.clone(), key: "a".into() },
            Change::Policy { name, change: Box::new(PolicyChange::RemoveImmutable(1)) },
            Change::Retire {
                repository: repository.clone(),
                digests: vec![Digest::sha256(b"x")],
                judged: Timestamp(7),
                manifests: 3,
            },
            Change::RetireSeen {
                repository: repository.clone(),
                seen: vec![(Digest::sha256(b"x"), Digest::sha256(b"y"))],
                manifests: 3,
            },
            Change::Trash(Box::new(TrashChange::Restore {
                repository: repository.clone(),
                digest: Digest::sha256(b"x"),
                tag: None,
                all: vec![Digest::sha256(b"x")],
            })),
            Change::DeleteTag { repository: repository.clone(), tag: "1".parse().unwrap() },
            Change::DeleteManifest { repository: repository.clone(), digest: Digest::sha256(b"x") },
            Change::AddTag {
                repository: repository.clone(),
                digest: Digest::sha256(b"x"),
                tag: "2".parse().unwrap(),
            },
            Change::DeleteIf {
                repository,
                precondition: Box::new(Precondition {
                    of: Reference::Tag("1".parse().unwrap()),
                    is: Some(Named::Anything),
                    is_not: None,
                }),
            },
        ]
    }

    #[test]
    fn a_change_is_on_the_wire_what_the_command_was_before() {
        for change in all() {
            let command = change.clone().under(Epoch::FIRST);
            let bytes = postcard::to_stdvec(&change).unwrap();
            assert_eq!(bytes, postcard::to_stdvec(&Box::new(command.clone())).unwrap());
            assert_eq!(postcard::from_bytes::<Change>(&bytes).unwrap(), change);
            assert_eq!(
                change.clone().under(Epoch::FIRST.next()).fence(),
                Some((change.project(), Epoch::FIRST.next()))
            );
        }
    }

    #[test]
    fn what_is_no_projects_write_is_not_read_as_one() {
        let bytes = postcard::to_stdvec(&Command::RemoveNode { id: NodeId(1) }).unwrap();
        assert!(postcard::from_bytes::<Change>(&bytes).is_err());
    }
}
