//! The mesh as a mirror of other registries: finds the repository for a request that names one of
//! them.
//!
//! `rules::proxies::mirror` decides. This module keeps what the decision needs, as fresh as this
//! node's records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rules::ledger::records::{Look, RecordError};
use rules::proxies::mirror::{Asked, Meaning, MirrorRules, Mirrored};
use rules::words::names::{BadName, ProjectName, RepositoryName, UpstreamId};

use crate::upstreams::endpoint;
use crate::view::Records;

/// Why a request does not mean a repository.
#[derive(Debug, thiserror::Error)]
pub enum NoMirror {
    /// It names a registry that no project caches.
    #[error(
        "no project of this mesh caches {registry}; cached for everyone: {}. An administrator can record it (POST /api/v2.0/registries) and make a project of it",
        listed(public)
    )]
    NotMirrored {
        /// The registry.
        registry: String,
        /// The registries that are cached in public projects.
        public: Vec<String>,
    },
    /// The name has no project.
    #[error("{0}")]
    OnePart(BadName),
    /// The rest is not the name of a repository.
    #[error(transparent)]
    Malformed(#[from] BadName),
    /// A fault of this node.
    #[error(transparent)]
    Records(#[from] RecordError),
}

fn listed(public: &[String]) -> String {
    if public.is_empty() { "none".into() } else { public.join(", ") }
}

fn no_repository(written: &str, bad: BadName) -> NoMirror {
    if written.parse::<ProjectName>().is_ok() {
        NoMirror::OnePart(bad)
    } else {
        NoMirror::Malformed(bad)
    }
}

/// What was read from the records at one point.
struct Read {
    at: u64,
    known: Mirrored,
    private: BTreeSet<ProjectName>,
}

/// Finds the project for a registry.
pub struct Mirrors {
    records: Records,
    rules: MirrorRules,
    read: Mutex<Option<Arc<Read>>>,
}

impl Mirrors {
    /// With the operator's rules.
    pub fn new(records: Records, rules: MirrorRules) -> Arc<Self> {
        Arc::new(Mirrors { records, rules, read: Mutex::default() })
    }

    /// The operator's rules.
    pub fn rules(&self) -> &MirrorRules {
        &self.rules
    }

    /// The repository that a request means.
    pub fn meant(&self, asked: &Asked<'_>) -> Result<RepositoryName, NoMirror> {
        if self.rules.is_plain(asked) {
            return asked.written.parse().map_err(|bad| no_repository(asked.written, bad));
        }
        let read = self.read()?;
        self.found(self.rules.meaning(asked, &read.known), asked.written, &read)
    }

    /// The repository that an image's name means, as people write it.
    pub fn of_image(&self, name: &str) -> Result<RepositoryName, NoMirror> {
        let read = self.read()?;
        self.found(self.rules.of_image(name, &read.known), name, &read)
    }

    fn found(
        &self,
        meaning: Meaning,
        written: &str,
        read: &Read,
    ) -> Result<RepositoryName, NoMirror> {
        match meaning {
            Meaning::Repository(repository) => Ok(repository),
            Meaning::Malformed(bad) => Err(no_repository(written, bad)),
            Meaning::NotMirrored(registry) => {
                metrics::counter!("atoll_mirror_unknown_total").increment(1);
                let mirrored = self.rules.mirrored(&read.known).into_iter();
                let public = mirrored
                    .filter(|(_, project)| !read.private.contains(project))
                    .map(|(name, _)| name);
                Err(NoMirror::NotMirrored { registry, public: public.collect() })
            }
        }
    }

    /// The repository to which a pull of `repository` is redirected, if it is in a project that
    /// caches Docker Hub and its name lacks `library/`.
    pub fn in_library(&self, repository: &RepositoryName) -> Option<RepositoryName> {
        self.read().ok()?.known.in_library(repository)
    }

    /// All registries that are mirrored, with their projects.
    pub fn mirrored(&self) -> Result<BTreeMap<String, ProjectName>, RecordError> {
        Ok(self.rules.mirrored(&self.read()?.known))
    }

    /// What the records say; read again only when it has changed.
    fn read(&self) -> Result<Arc<Read>, RecordError> {
        // the version is taken first: if the records change meanwhile, they are read once more
        // later
        let at = self.records.version();
        if let Some(read) = self.read.lock().as_ref().filter(|read| read.at == at) {
            return Ok(read.clone());
        }
        let read = Arc::new(self.read_at(at)?);
        *self.read.lock() = Some(read.clone());
        Ok(read)
    }

    fn read_at(&self, at: u64) -> Result<Read, RecordError> {
        let view = self.records.view()?;
        let registry = |kind: &str, url: &str| {
            endpoint(kind, url).ok().and_then(|endpoint| endpoint.registry())
        };
        let upstreams: BTreeMap<UpstreamId, Option<String>> =
            view.upstreams()?.into_iter().map(|u| (u.id, registry(&u.kind, &u.url))).collect();
        let (mut known, mut private) = (Mirrored::default(), BTreeSet::new());
        for project in view.projects()? {
            if !project.public {
                private.insert(project.name.clone());
            }
            if let Some(id) = project.upstream {
                known.proxies.insert(project.name.clone(), upstreams.get(&id).cloned().flatten());
            }
            known.projects.insert(project.name);
        }
        for node in view.nodes()? {
            let authority =
                node.url.parse::<http::Uri>().ok().and_then(|url| url.authority().cloned());
            known.own.extend(authority.map(|authority| authority.to_string()));
        }
        Ok(Read { at, known, private })
    }
}
