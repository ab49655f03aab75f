//! Labels: words that people put on artifacts, for all projects or for one (Harbor's `src/pkg/label`).
//! These records exist from the feature level [`Level::LABELS`] on.

use serde::{Deserialize, Serialize};

use super::level::Level;
use super::records::{Look, RecordError};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{LabelId, ProjectId, RepositoryName};

/// The maximum number of labels of one project, and of those for all projects.
pub const MOST_LABELS: usize = 500;
/// The maximum number of labels on one artifact.
pub const MOST_ON_ARTIFACT: usize = 50;
/// The maximum length of a name, a description and a color in bytes.
pub const LONGEST: [usize; 3] = [128, 1024, 16];

/// A label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Its number.
    pub id: LabelId,
    /// The project that it is for; `None` for all projects.
    pub project: Option<ProjectId>,
    /// What it says.
    pub terms: LabelTerms,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// What people choose of a label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelTerms {
    /// Its name: no two labels of a project, or for all projects, have the same.
    pub name: String,
    /// For people.
    pub description: String,
    /// How it is shown, for example `#0065AB`.
    pub color: String,
}

impl LabelTerms {
    /// Checks them. The error is a sentence for whoever wrote them.
    pub fn check(&self) -> Result<(), String> {
        let texts = [&self.name, &self.description, &self.color];
        for ((field, text), longest) in
            ["name", "description", "color"].iter().zip(texts).zip(LONGEST)
        {
            if text.len() > longest || text.chars().any(char::is_control) {
                return Err(format!(
                    "{field} has at most {longest} bytes, and no control characters"
                ));
            }
        }
        match self.name.trim() == self.name && !self.name.is_empty() {
            true => Ok(()),
            false => Err("name is not empty, and does not begin or end with a space".into()),
        }
    }
}

/// A change of labels. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelChange {
    /// Makes a label.
    Create {
        /// See [`Label::project`].
        project: Option<ProjectId>,
        /// What it says.
        terms: LabelTerms,
    },
    /// Changes what a label says.
    Change {
        /// Which.
        id: LabelId,
        /// What it says from now on.
        terms: LabelTerms,
    },
    /// Takes a label off everything and forgets it, a limited number of artifacts at a time.
    Delete {
        /// Which.
        id: LabelId,
    },
    /// Puts a label on a manifest that is there.
    Attach {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// The label: one for all projects, or of the repository's own.
        id: LabelId,
    },
    /// Takes a label off a manifest.
    Detach {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
        /// The label.
        id: LabelId,
    },
}

impl LabelChange {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            LabelChange::Create { .. } => "create_label",
            LabelChange::Change { .. } => "change_label",
            LabelChange::Delete { .. } => "delete_label",
            LabelChange::Attach { .. } => "attach_label",
            LabelChange::Detach { .. } => "detach_label",
        }
    }

    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        Level::LABELS
    }
}

/// Keys of labels in the map.
pub mod key {
    use super::*;

    /// A label.
    pub fn label(id: LabelId) -> Vec<u8> {
        [b"3l".as_slice(), &id.0.to_be_bytes()].concat()
    }
    /// That a label is one of a project, or of those for all projects.
    pub fn of_project(project: Option<ProjectId>, id: LabelId) -> Vec<u8> {
        [all_of_project(project), id.0.to_be_bytes().to_vec()].concat()
    }
    /// All labels of a project, or all for all projects.
    pub fn all_of_project(project: Option<ProjectId>) -> Vec<u8> {
        let project = project.map_or(0, |id| id.0);
        [b"3p".as_slice(), &project.to_be_bytes()].concat()
    }
    /// The number that the last new label got.
    pub fn last() -> Vec<u8> {
        b"3n".to_vec()
    }
    /// That an artifact has a label.
    pub fn on_artifact(repository: &RepositoryName, digest: &Digest, id: LabelId) -> Vec<u8> {
        [all_on_artifact(repository, digest), id.0.to_be_bytes().to_vec()].concat()
    }
    /// All labels of an artifact.
    pub fn all_on_artifact(repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        [in_repository(repository), digest.to_key()].concat()
    }
    /// All labels of all artifacts of a repository.
    pub fn in_repository(repository: &RepositoryName) -> Vec<u8> {
        [b"4a".as_slice(), repository.as_str().as_bytes(), b"\0"].concat()
    }
    /// The artifact and the label of a key of [`on_artifact`].
    pub fn artifact_of(place: &[u8]) -> Option<(Digest, LabelId)> {
        let end = place.iter().position(|b| *b == 0)?;
        let (digest, id) = place.get(end + 1..)?.split_last_chunk::<8>()?;
        Some((Digest::from_key(digest).ok()?, LabelId(u64::from_be_bytes(*id))))
    }
    /// That a label is on an artifact.
    pub fn place(id: LabelId, repository: &RepositoryName, digest: &Digest) -> Vec<u8> {
        let name = repository.as_str().as_bytes();
        [places(id).as_slice(), name, b"\0", &digest.to_key()].concat()
    }
    /// Everything that a label is on.
    pub fn places(id: LabelId) -> Vec<u8> {
        [b"4l".as_slice(), &id.0.to_be_bytes()].concat()
    }
    /// The artifact of a key of [`place`].
    pub fn of_place(place: &[u8]) -> Option<(RepositoryName, Digest)> {
        let rest = place.get(10..)?;
        let end = rest.iter().position(|b| *b == 0)?;
        let name = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        Some((name, Digest::from_key(rest.get(end + 1..)?).ok()?))
    }
}

/// Typed reading of labels.
pub trait LookForLabels: Look {
    /// The label with this number.
    fn label(&self, id: LabelId) -> Result<Option<Label>, RecordError> {
        self.record(&key::label(id))
    }

    /// All labels of a project, or all for all projects, by number.
    fn labels(&self, project: Option<ProjectId>) -> Result<Vec<Label>, RecordError> {
        let prefix = key::all_of_project(project);
        let mut labels = Vec::new();
        for (place, _) in self.scan(&prefix, None, usize::MAX)? {
            let id = place.get(prefix.len()..).and_then(|id| id.try_into().ok());
            let id = id.map(u64::from_be_bytes);
            labels.extend(id.map(|id| self.label(LabelId(id))).transpose()?.flatten());
        }
        Ok(labels)
    }

    /// The numbers of the labels of an artifact.
    fn labels_on(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<LabelId>, RecordError> {
        let found = self.scan(&key::all_on_artifact(repository, digest), None, usize::MAX)?;
        Ok(found
            .iter()
            .filter_map(|(place, _)| key::artifact_of(place))
            .map(|(_, id)| id)
            .collect())
    }
}

impl<R: Look + ?Sized> LookForLabels for R {}
