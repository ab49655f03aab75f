//! The contents of an image: its manifest, the manifests below it, and their blobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rules::ledger::records::{Look, ManifestRecord, Project, RecordError, key};
use rules::wire::Resolution;
use rules::words::digest::Digest;
use rules::words::manifest::Manifest;
use rules::words::names::{Reference, RepositoryName};
use rules::words::platform::{Index, Listed};

use super::Preheats;
use crate::proxies::resolving::Resolving;

/// The maximum number of times that a slow upstream is asked for one manifest. A late answer is
/// there for the next try.
const TRIES: usize = 4;
/// The time between two tries.
const AGAIN: Duration = Duration::from_secs(2);
/// How deep indexes may be nested.
const DEPTH: usize = 4;
/// The maximum number of tags that are listed when the requested one does not exist.
const NAMED: usize = 10;

/// The contents of an image.
pub(super) struct Contents {
    /// Its repository. For a proxy repository, this is the name that the upstream's own clients
    /// would use.
    pub(super) repository: RepositoryName,
    /// Whether what the mesh lacks can be fetched from an upstream.
    pub(super) proxied: bool,
    /// Its manifest.
    pub(super) digest: Digest,
    /// Its manifest, and those below it.
    pub(super) manifests: BTreeSet<Digest>,
    /// Its blobs, with their sizes.
    pub(super) blobs: BTreeMap<Digest, u64>,
}

/// Why the contents of an image are unknown: a sentence for the caller.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoContents {
    /// Something is wrong that no other try mends.
    #[error("{0}")]
    Wrong(String),
    /// It could not be found out now.
    #[error("{0}")]
    Unknown(String),
}

impl From<String> for NoContents {
    fn from(wrong: String) -> Self {
        NoContents::Wrong(wrong)
    }
}

impl Preheats {
    /// The contents of `reference`, for `platforms`, or for all platforms if that is empty.
    pub(super) async fn contents(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        platforms: &[String],
    ) -> Result<Contents, NoContents> {
        let unreadable = |e: RecordError| e.to_string();
        let repository =
            self.proxies.upstreams().canonical(repository).unwrap_or_else(|| repository.clone());
        let project =
            self.neighbours.records.view().and_then(|view| view.project(&repository.project()));
        let project = project
            .map_err(unreadable)?
            .ok_or_else(|| format!("project {} is gone", repository.project()))?;
        let (digest, first) = self.manifest(&project, &repository, reference).await?;
        let mut blobs = BTreeMap::new();
        let mut manifests = BTreeSet::from([digest]);
        let mut open = vec![(0, first)];
        while let Some((depth, record)) = open.pop() {
            let manifest = Manifest::read_served(&record.media_type, &record.bytes)
                .map_err(|e| e.to_string())?;
            blobs.extend(manifest.blobs.iter().map(|blob| (blob.digest, blob.size)));
            if manifest.children.is_empty() {
                continue;
            }
            if depth >= DEPTH {
                let wrong = format!("{repository}: indexes lie more than {DEPTH} deep in indexes");
                return Err(wrong.into());
            }
            let index = Index::read(&record.bytes)?;
            let wanted: Vec<&Listed> =
                index.manifests.iter().filter(|child| child.is_one_of(platforms)).collect();
            if wanted.is_empty() {
                let all: Vec<String> = index.manifests.iter().map(Listed::words).collect();
                return Err(NoContents::Wrong(format!(
                    "the image has none of the platforms wanted; it has {}",
                    all.join(", ")
                )));
            }
            let blob = |digest| {
                manifest.children.iter().find(|child| child.digest == digest && !child.manifest)
            };
            for child in wanted {
                // an index may list blobs, as BuildKit's caches do
                if let Some(blob) = blob(child.digest)
                    && self.recorded(&repository, &blob.digest)?.is_none()
                {
                    blobs.insert(blob.digest, blob.size);
                    continue;
                }
                let (_, record) =
                    self.manifest(&project, &repository, &Reference::Digest(child.digest)).await?;
                manifests.insert(child.digest);
                open.push((depth + 1, record));
            }
        }
        let proxied = project.upstream.is_some();
        Ok(Contents { repository, proxied, digest, manifests, blobs })
    }

    /// A manifest in the ledger. For a proxy project the upstream is asked first.
    async fn manifest(
        &self,
        project: &Project,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<(Digest, ManifestRecord), NoContents> {
        let digest = match reference {
            Reference::Digest(digest) if self.recorded(repository, digest)?.is_some() => *digest,
            _ if project.upstream.is_some() => {
                self.ask_upstream(project, repository, reference).await?
            }
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => {
                let view = self.neighbours.records.view().map_err(|e| e.to_string())?;
                let found = view.tag(repository, tag).map_err(|e| e.to_string())?;
                found.map(|tag| tag.digest).ok_or_else(|| self.no_tag(repository, reference))?
            }
        };
        let record = self.recorded(repository, &digest)?;
        record
            .map(|record| (digest, record))
            .ok_or_else(|| format!("repository {repository} has no manifest {digest}").into())
    }

    fn recorded(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestRecord>, String> {
        self.neighbours
            .records
            .view()
            .and_then(|view| view.manifest(repository, digest))
            .map_err(|e| e.to_string())
    }

    fn no_tag(&self, repository: &RepositoryName, reference: &Reference) -> String {
        let view = self.neighbours.records.view();
        let tags = view.and_then(|view| {
            rules::ledger::records::ReadRecords::scan(&*view, &key::tags(repository), None, NAMED)
        });
        let tags: Vec<String> =
            tags.unwrap_or_default().iter().map(|(k, _)| key::tag_of(k)).collect();
        match tags.is_empty() {
            true => format!("there is no repository {repository}"),
            false => format!(
                "repository {repository} has no tag {reference}; it has {}",
                tags.join(", ")
            ),
        }
    }

    async fn ask_upstream(
        &self,
        project: &Project,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Digest, NoContents> {
        let proxies: &Arc<_> = &self.proxies;
        let mut last = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(AGAIN).await;
            }
            let resolution = match proxies.resolve(project, repository, reference).await {
                Resolving::Direct(_) => None,
                Resolving::Mesh(answered) => Some(answered.resolution),
            };
            match resolution {
                Some(Resolution::Fresh(digest) | Resolution::Stale(digest, _)) => {
                    return Ok(digest);
                }
                Some(Resolution::Missing) => {
                    return Err(NoContents::Wrong(format!(
                        "neither repository {repository} nor its upstream has {reference}"
                    )));
                }
                Some(Resolution::Denied(why)) => {
                    return Err(format!("{reference} of {repository}: {why}").into());
                }
                Some(Resolution::Failed(reason)) => last = reason,
                Some(Resolution::NotPrimary | Resolution::Unrecorded) | None => {
                    last = "the project's primary cannot be reached".into();
                }
            }
        }
        Err(NoContents::Unknown(format!(
            "what {reference} of {repository} is could not be found out: {last}"
        )))
    }
}
