//! The mesh as a mirror of other registries: which repository a request means that names one of them.
//!
//! The decision is `rules::mirror`; this room keeps what it needs at hand, as fresh as this node's ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh::ledger::Ledger;
use parking_lot::Mutex;
use rules::mirror::{Asked, Meaning, MirrorRules, Mirrored};
use rules::names::{BadName, ProjectName, RepositoryName, Revision, UpstreamId};
use rules::records::{Look, RecordError};

use crate::proxies;

/// Why a request means no repository.
#[derive(Debug, thiserror::Error)]
pub enum NoMirror {
    /// It names a registry that no project caches.
    #[error(
        "no project of this mesh caches {registry}; it caches {}. Record the registry with POST /api/v2.0/registries and make a project of it",
        listed(mirrored)
    )]
    NotMirrored {
        /// The registry.
        registry: String,
        /// Those that are cached.
        mirrored: Vec<String>,
    },
    /// What follows is not a repository's name.
    #[error(transparent)]
    Malformed(#[from] BadName),
    /// This node's own fault.
    #[error(transparent)]
    Records(#[from] RecordError),
}

fn listed(mirrored: &[String]) -> String {
    if mirrored.is_empty() { "no registry".into() } else { mirrored.join(", ") }
}

/// Knows which project stands for which registry.
pub struct Mirrors {
    ledger: Arc<Ledger>,
    rules: MirrorRules,
    known: Mutex<Option<(Revision, Arc<Mirrored>)>>,
}

impl Mirrors {
    /// By these settings.
    pub fn new(ledger: Arc<Ledger>, settings: &config::Mirrors) -> Arc<Self> {
        let rules = MirrorRules {
            names: settings.names.iter().cloned().collect(),
            domain: settings.domain.clone(),
            default: settings.default.clone(),
            aliases: settings.aliases.clone(),
        };
        Arc::new(Mirrors { ledger, rules, known: Mutex::default() })
    }

    /// What the operator says.
    pub fn rules(&self) -> &MirrorRules {
        &self.rules
    }

    /// The repository that a request means.
    pub fn meant(&self, asked: &Asked<'_>) -> Result<RepositoryName, NoMirror> {
        if self.rules.is_plain(asked) {
            return Ok(asked.written.parse()?);
        }
        let known = self.known()?;
        self.found(self.rules.meaning(asked, &known), &known)
    }

    /// The repository that an image's name means, as people write it.
    pub fn of_image(&self, name: &str) -> Result<RepositoryName, NoMirror> {
        let known = self.known()?;
        self.found(self.rules.of_image(name, &known), &known)
    }

    fn found(&self, meaning: Meaning, known: &Mirrored) -> Result<RepositoryName, NoMirror> {
        match meaning {
            Meaning::Repository(repository) => Ok(repository),
            Meaning::Malformed(bad) => Err(NoMirror::Malformed(bad)),
            Meaning::NotMirrored(registry) => {
                metrics::counter!("atoll_mirror_unknown_total").increment(1);
                Err(NoMirror::NotMirrored { registry, mirrored: self.rules.mirrored(known).into_keys().collect() })
            }
        }
    }

    /// Every registry that is mirrored, and its project.
    pub fn mirrored(&self) -> Result<BTreeMap<String, ProjectName>, RecordError> {
        Ok(self.rules.mirrored(&*self.known()?))
    }

    /// What the ledger says, read anew only when it has changed.
    fn known(&self) -> Result<Arc<Mirrored>, RecordError> {
        // before it is read: what is read may be newer, and then is read once more
        let applied = *self.ledger.applied().borrow();
        if let Some((read, known)) = &*self.known.lock()
            && *read == applied
        {
            return Ok(known.clone());
        }
        let known = Arc::new(self.read()?);
        *self.known.lock() = Some((applied, known.clone()));
        Ok(known)
    }

    fn read(&self) -> Result<Mirrored, RecordError> {
        let view = self.ledger.view()?;
        let registry =
            |kind: &str, url: &str| proxies::endpoint(kind, url).ok().and_then(|endpoint| endpoint.registry());
        let upstreams: BTreeMap<UpstreamId, Option<String>> =
            view.upstreams()?.into_iter().map(|u| (u.id, registry(&u.kind, &u.url))).collect();
        let mut known = Mirrored::default();
        for project in view.projects()? {
            if let Some(id) = project.upstream {
                known.proxies.insert(project.name.clone(), upstreams.get(&id).cloned().flatten());
            }
            known.projects.insert(project.name);
        }
        for node in view.nodes()? {
            let authority = node.url.parse::<http::Uri>().ok().and_then(|url| url.authority().cloned());
            known.own.extend(authority.map(|authority| authority.to_string()));
        }
        Ok(known)
    }
}
