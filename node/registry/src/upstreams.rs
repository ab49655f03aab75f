//! The clients for the upstreams: one for each recorded registry, replaced when its record changes.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ground::supervise::Tasks;
use mesh::secrets::{SecretError, Secrets};
use parking_lot::Mutex;
use rules::ledger::records::{Look, Project, RecordError, UpstreamRecord, key};
use rules::wire::questions::Spare;
use rules::words::names::{RepositoryName, UpstreamId};
use tokio::sync::mpsc;
use upstream::{
    AccessKey, AddressRule, Credentials, Endpoint, Password, Trust, Upstream, UpstreamError,
    UpstreamSettings, UpstreamStanding, UpstreamTerms, ecr,
};

use crate::view::Records;
use crate::view::neighbours::Neighbours;

/// How long a node may take to receive the notice of a limit.
const TELL: Duration = Duration::from_secs(1);

/// Settings for upstreams; see the settings of the same names.
#[derive(Clone)]
pub struct UpstreamsTerms {
    /// Whether this node may ask upstreams itself.
    pub allowed: bool,
    /// The addresses that may be connected to.
    pub rule: AddressRule,
    /// The certificates that are trusted.
    pub trust: Trust,
    /// Limits for each client.
    pub each: UpstreamTerms,
}

/// The clients of this node.
pub struct Upstreams {
    records: Records,
    secrets: Arc<Secrets>,
    limits: mpsc::UnboundedSender<Spare>,
    terms: UpstreamsTerms,
    tasks: Tasks,
    clients: Mutex<HashMap<UpstreamId, (UpstreamRecord, Arc<Upstream>)>>,
    /// The number of clients that were replaced.
    replaced: AtomicU64,
}

impl Upstreams {
    /// Nothing was asked yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        secrets: Arc<Secrets>,
        terms: UpstreamsTerms,
        tasks: Tasks,
    ) -> Arc<Self> {
        let (limits, heard) = mpsc::unbounded_channel();
        let records = neighbours.records.clone();
        tasks.spawn("upstream.limits", tell_limits(neighbours, heard));
        let (clients, replaced) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Upstreams { records, secrets, limits, terms, tasks, clients, replaced })
    }

    /// Whether this node may ask upstreams itself.
    pub fn allowed(&self) -> bool {
        self.terms.allowed
    }

    /// Grows when an upstream's client is replaced. Answers that are remembered from before came
    /// from another address, or were for other credentials.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Acquire)
    }

    /// The upstream of a proxy project, and the name of `repository` there; `None` for a project
    /// that is not a proxy.
    pub fn of(
        &self,
        repository: &RepositoryName,
    ) -> Result<Option<(Arc<Upstream>, String)>, UpstreamError> {
        let broken = |e: RecordError| UpstreamError::Unreachable(e.to_string().into());
        let view = self.records.view().map_err(broken)?;
        let project = view.project(&repository.project()).map_err(broken)?;
        let Some(id) = project.and_then(|p| p.upstream) else { return Ok(None) };
        let record: Option<UpstreamRecord> = view.record(&key::upstream(id)).map_err(broken)?;
        let record = record.ok_or_else(|| {
            UpstreamError::Refused("the project's registry is not recorded".into())
        })?;
        let upstream = self.client(record)?;
        let there = upstream.endpoint().repository(repository.within_project());
        let there = there.map_err(|e| UpstreamError::Refused(e.to_string().into()))?;
        Ok(Some((upstream, there)))
    }

    /// The upstream of `repository`, if the project's patterns admit the repository. This holds for
    /// clients here and for edges.
    pub fn admitted(
        &self,
        repository: &RepositoryName,
    ) -> Result<Option<(Arc<Upstream>, String)>, UpstreamError> {
        let Some((upstream, there)) = self.of(repository)? else { return Ok(None) };
        let project = self.records.view().and_then(|view| view.project(&repository.project()));
        let project = project.map_err(UpstreamError::bad)?;
        Ok(project.is_some_and(|project| project.proxy.admits(&there)).then_some((upstream, there)))
    }

    /// Whether a proxy project serves `repository` at all. A repository that its patterns exclude
    /// does not exist for clients, here or at the upstream.
    pub fn admits(&self, project: &Project, repository: &RepositoryName) -> bool {
        let there = match self.of(repository) {
            Ok(Some((_, there))) => there,
            Ok(None) | Err(_) => repository.within_project().to_owned(),
        };
        project.proxy.admits(&there)
    }

    /// The repository to which a client that left `library/` out is redirected. Docker Hub's own
    /// clients add it (and Harbor also answers 301).
    pub fn canonical(&self, repository: &RepositoryName) -> Option<RepositoryName> {
        let (upstream, there) = self.of(repository).ok()??;
        let differs = upstream.endpoint().is_hub() && there != repository.within_project();
        differs.then(|| format!("{}/{there}", repository.project()).parse().ok()).flatten()
    }

    /// The recorded upstreams, and what this node knows about the state of each (nothing, if it has
    /// not asked it).
    pub fn standings(&self) -> Result<Vec<(UpstreamRecord, UpstreamStanding)>, RecordError> {
        let recorded = self.records.view()?.upstreams()?;
        let clients = self.clients.lock().clone();
        let standing = |record: &UpstreamRecord| {
            let (known, upstream) = clients.get(&record.id)?;
            self.same_place(known, record).then(|| upstream.standing())
        };
        let standings: Vec<_> =
            recorded.iter().map(|record| standing(record).unwrap_or_default()).collect();
        Ok(recorded.into_iter().zip(standings).collect())
    }

    /// Another node has heard that an upstream wants a pause of `wait`.
    pub fn spare(&self, id: UpstreamId, everything: bool, wait: Duration) {
        let record =
            self.records.view().and_then(|view| view.record::<UpstreamRecord>(&key::upstream(id)));
        if let Ok(Some(record)) = record
            && let Ok(upstream) = self.client(record)
        {
            upstream.spare(everything, wait);
        }
    }

    /// Whether a registry with this record answers, and takes its credentials.
    pub async fn ping(&self, record: &UpstreamRecord) -> Result<(), UpstreamError> {
        let known = self.clients.lock().get(&record.id).cloned();
        let known = known.filter(|(known, _)| self.same_place(known, record));
        let upstream = match known {
            Some((_, upstream)) => upstream,
            None => {
                // nobody else asks it, so nobody else need hear of its limits
                let on_limit = Arc::new(|_, _| {});
                let settings = UpstreamSettings { on_limit, ..self.settings_of(record)? };
                Arc::new(Upstream::new(settings, self.tasks.clone()))
            }
        };
        upstream.ping().await
    }

    fn client(&self, record: UpstreamRecord) -> Result<Arc<Upstream>, UpstreamError> {
        let mut clients = self.clients.lock();
        if let Some((known, upstream)) = clients.get(&record.id)
            && self.same_place(known, &record)
        {
            return Ok(upstream.clone());
        }
        let settings = self.settings_of(&record)?;
        let upstream = Arc::new(Upstream::new(settings, self.tasks.clone()));
        if clients.insert(record.id, (record, upstream.clone())).is_some() {
            self.replaced.fetch_add(1, Ordering::Release);
        }
        Ok(upstream)
    }

    /// Whether a change of the record leaves the upstream the same, so that logins and pauses are
    /// kept. A password that was sealed anew is the same.
    fn same_place(&self, a: &UpstreamRecord, b: &UpstreamRecord) -> bool {
        let opened =
            |record: &UpstreamRecord, sealed: &str| self.secrets.open(&record.name, sealed).ok();
        let same_login = match (&a.credentials, &b.credentials) {
            (Some((user, was)), Some((other, sealed))) => {
                user == other
                    && (was == sealed
                        || opened(a, was).is_some_and(|was| Some(was) == opened(b, sealed)))
            }
            (was, now) => was == now,
        };
        same_login && (&a.kind, &a.url) == (&b.kind, &b.url)
    }

    fn settings_of(&self, record: &UpstreamRecord) -> Result<UpstreamSettings, UpstreamError> {
        let endpoint =
            endpoint(&record.kind, &record.url).map_err(|e| UpstreamError::Refused(e.into()))?;
        let credentials = match &record.credentials {
            None => None,
            Some((user, sealed)) => {
                let named = |e: &dyn Display| format!("registry {}: {e}", record.name).into();
                let refused = |e: &dyn Display| UpstreamError::Refused(named(e));
                let password = self.secrets.open(&record.name, sealed).map_err(|e| match e {
                    SecretError::NotHere(_) => UpstreamError::Unreachable(named(&e)),
                    SecretError::NoKey | SecretError::Damaged => refused(&e),
                });
                let (user, password) = (user.clone(), password?);
                Some(match ecr::api(&record.kind, &endpoint, &user).map_err(|e| refused(&e))? {
                    Some(api) => {
                        Credentials::AccessKey(AccessKey { id: user, secret: password, api })
                    }
                    None => Credentials::Password(Password { user, password }),
                })
            }
        };
        let (id, limits) = (record.id, self.limits.clone());
        let on_limit = move |everything, wait: Duration| {
            let _ =
                limits.send(Spare { upstream: id, everything, millis: wait.as_millis() as u64 });
        };
        let UpstreamsTerms { rule, trust, each, .. } = self.terms.clone();
        Ok(UpstreamSettings {
            endpoint,
            credentials,
            trust,
            rule,
            terms: each,
            on_limit: Arc::new(on_limit),
        })
    }
}

/// Tells every live replica when an upstream wants a pause, because its limit applies to the whole
/// mesh.
async fn tell_limits(neighbours: Arc<Neighbours>, mut heard: mpsc::UnboundedReceiver<Spare>) {
    while let Some(limit) = heard.recv().await {
        let others = neighbours.alive().into_iter().filter(|c| c.id != neighbours.me);
        let told = others.map(|other| neighbours.links.ask(other.id, limit.clone(), TELL));
        futures::future::join_all(told).await;
    }
}

/// The endpoint of an upstream of Harbor's `kind`. Harbor writes Docker Hub as
/// https://hub.docker.com, which is its website.
pub fn endpoint(kind: &str, url: &str) -> Result<Endpoint, String> {
    let url = if kind == "docker-hub" { "https://docker.io" } else { url };
    url.parse::<Endpoint>().map_err(|e| e.to_string())
}
