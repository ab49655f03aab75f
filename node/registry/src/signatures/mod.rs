//! Signatures of the images of the projects whose primary this node is: each is verified once, and
//! what came of it is in the ledger (`rules::ledger::signatures`), from which every node decides.
//!
//! | module | what it does |
//! |---|---|
//! | [`verifying`] | reads an artifact of signatures, and what it is worth |
//! | [`signing`] | signs images with a project's own key, as a job |
//! | [`seeking`] | asks upstreams for signatures of what proxy projects have cached |
//! | [`ruling`] | asks for such jobs: by the project's rule, and after its key was replaced |
//! | [`keys`], [`keks`] | the projects' own keys, and what they are sealed under |
//!
//! What was pushed waits in a queue in the ledger. When a project trusts something new, all that it
//! has is verified again.

pub mod keks;
pub mod keys;
mod not_signed;
pub mod ruling;
pub mod seeking;
pub mod signing;
mod verifying;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ground::clock;
use ground::supervise::{Tasks, at_length};
use parking_lot::Mutex;
use rules::ledger::change::Change;
use rules::ledger::command::Outcome;
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::{
    Look, Project, ReadRecords, RecordError, TagRecord, decode, key as records_key,
};
use rules::ledger::signatures::{LookForSignatures, SignatureChange, Unverified, key};
use rules::policies::signatures::{Anchor, Exemption, Policy, Signer, is_evidence};
use rules::wire::WriteKind;
use rules::words::digest::Digest;
use rules::words::fallback::Fallback;
use rules::words::manifest::Referrer;
use rules::words::moment::Moment;
use rules::words::names::{ProjectId, ProjectName, RepositoryName, Tag};
use sign::Anchors;
use tracing::{info, warn};

use crate::blobs::flights::Flights;
use crate::proxies::confirming::Confirming;
use crate::view::neighbours::Neighbours;
use crate::writes::{Refusal, Writes};
use keks::Keks;
use store::Store;
use verifying::{Allowance, listed};

/// The time between two looks at the queue. Whoever signs and then deploys waits for it.
const LOOK: Duration = Duration::from_millis(200);
/// The time between two looks whether a project trusts something new.
const LOOK_AT_TRUST: Duration = Duration::from_secs(1);
/// The maximum number of entries of the queue that are read at a time.
const PAGE: usize = 500;
/// The maximum number of artifacts that are verified at a time.
const AT_A_TIME: usize = 4;
/// How often the blobs of an artifact are asked for, before it counts as one whose blobs are missing.
const TRIES: u32 = 5;

/// Limits of this room.
#[derive(Clone)]
pub struct SignatureTerms {
    /// Until the blobs of an artifact of signatures are here.
    pub fetch: Duration,
    /// What seals the projects' own keys.
    pub keks: Keks,
    /// Until a change is committed.
    pub commit: Duration,
}

/// An artifact that failed, how often, and when it is tried again.
#[derive(Clone, Copy, Debug, Default)]
struct Failed {
    tries: u32,
    again: Option<Moment>,
}

impl Failed {
    /// It has failed once more, and rests twice as long.
    fn count(&mut self) {
        self.tries += 1;
        self.again = Some(clock::now() + Duration::from_secs(1 << self.tries.min(5)));
    }

    fn is_last(&self) -> bool {
        self.tries + 1 >= TRIES
    }
}

/// What a project trusts, read once for each change of it: of the anchors, or of how many signers are
/// compromised.
type Parsed = BTreeMap<ProjectId, ((u64, usize), Arc<Anchors>)>;

/// Signatures at this node.
pub struct Signatures {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    flights: Arc<Flights>,
    writes: Arc<Writes>,
    confirming: Arc<Confirming>,
    terms: SignatureTerms,
    parsed: Mutex<Parsed>,
    failed: Mutex<BTreeMap<(ProjectId, u64), Failed>>,
    importing: tokio::sync::Mutex<()>,
    /// Who signs an image in each project: one run looks what is signed and signs, then the next.
    turns: Mutex<BTreeMap<ProjectId, Arc<tokio::sync::Mutex<()>>>>,
    tasks: Tasks,
}

/// An artifact of signatures in a project of this node.
struct Waiting {
    project: Project,
    number: Option<u64>,
    what: Unverified,
}

impl Signatures {
    /// Ready to verify; nothing is begun yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        flights: Arc<Flights>,
        writes: Arc<Writes>,
        confirming: Arc<Confirming>,
        terms: SignatureTerms,
        tasks: Tasks,
    ) -> Arc<Self> {
        let (parsed, failed) = (Mutex::default(), Mutex::default());
        let (importing, turns) = (tokio::sync::Mutex::default(), Mutex::default());
        Arc::new(Signatures {
            neighbours,
            store,
            flights,
            writes,
            confirming,
            terms,
            parsed,
            failed,
            importing,
            turns,
            tasks,
        })
    }

    /// Begins. An edge verifies nothing.
    pub fn start(self: &Arc<Self>) {
        if self.neighbours.is_edge() {
            return;
        }
        let one = self.clone();
        self.tasks.spawn("signatures", async move { one.work().await });
        let one = self.clone();
        self.tasks.spawn("signatures.trust", async move { one.follow_trust().await });
        let one = self.clone();
        self.tasks.spawn("signatures.keys", async move { one.keep_sealed().await });
    }

    /// Adds a signer to a project, or changes one.
    pub async fn set_signer(
        &self,
        project: &ProjectName,
        signer: Signer,
        new: bool,
        by: &Actor,
    ) -> Result<(), Refusal> {
        if !signer.state.is_compromised() {
            self.check_compromised(project, &signer.anchor, &signer.name).await?;
        }
        let signer = Box::new(signer);
        let change = SignatureChange::SetSigner { project: project.clone(), signer, new };
        self.commit(change, by).await.map(drop)
    }

    /// Refuses to trust the key of a compromised signer of another name, in whatever form it comes. The
    /// ledger compares ids, which do for all keys that were written by this build.
    async fn check_compromised(
        &self,
        project: &ProjectName,
        anchor: &Anchor,
        name: &str,
    ) -> Result<(), Refusal> {
        let read = self.neighbours.records.read(|records| {
            let id = records.project(project)?.map(|project| project.id);
            let trusted = id.map(|id| records.trusted(id)).transpose()?;
            Ok(trusted.map(|trusted| trusted.signers).unwrap_or_default())
        });
        let read = read.await.map_err(|error| Refusal::Unavailable(error.to_string()));
        let (mut known, _) = read?;
        known.retain(|signer| signer.name != name);
        match sign::anchor::compromised(anchor, &known) {
            Some(other) => Err(Refusal::Conflict(format!(
                "it has the key of {}, which is compromised",
                other.name
            ))),
            None => Ok(()),
        }
    }

    /// Serves an image, and what it lists if it is an index, without signatures for a while; `None` ends
    /// that. What an index lists that is on no node now is not known here, and needs an exemption of its
    /// own then. Says how many manifests are served with the image, if it is exempted.
    pub async fn exempt(
        &self,
        repository: &RepositoryName,
        digest: Digest,
        exemption: Option<Exemption>,
        by: &Actor,
    ) -> Result<Option<usize>, Refusal> {
        let repository = repository.clone();
        let Some(exemption) = exemption else {
            let change = SignatureChange::Exempt { repository, digest, exemption: None };
            return self.commit(change, by).await.map(|_| None);
        };
        let caches = self.confirming.caches();
        let manifest = match self
            .neighbours
            .records
            .read(|records| records.manifest(&repository, &digest))
            .await
        {
            Ok((Some(manifest), _)) => Some(manifest),
            _ => caches.manifest(&repository, &digest, false).await,
        };
        let children = match &manifest {
            Some(index) => {
                // of indexes within the index those that are known here
                let read = self
                    .neighbours
                    .records
                    .read(|records| listed(index, |digest| records.manifest(&repository, digest)));
                match read.await {
                    Ok((children, _)) => children,
                    Err(_) => listed(index, |_| Ok(None))?,
                }
            }
            None => Vec::new(),
        };
        if !children.is_empty() {
            let (repository, exemption) = (repository.clone(), exemption.clone());
            let count = children.len();
            let change = SignatureChange::ExemptIndex { repository, digest, children, exemption };
            match self.commit(change, by).await {
                // the index alone is what this mesh can exempt
                Err(Refusal::Level { .. }) => {}
                committed => return committed.map(|_| Some(count)),
            }
        }
        let exemption = Some(exemption);
        let change = SignatureChange::Exempt { repository, digest, exemption };
        self.commit(change, by).await.map(|_| Some(0))
    }

    /// Commits a change of what a project knows of signatures, at its primary.
    pub async fn commit(&self, change: SignatureChange, by: &Actor) -> Result<Outcome, Refusal> {
        let project = change.project();
        let change = Change::Signatures(Box::new(change));
        self.writes.commit(&project, WriteKind::Fenced(change), by).await
    }

    /// Commits a change here, and nowhere else: a node that is not the project's primary refuses it.
    async fn commit_here(&self, change: SignatureChange, by: &Actor) -> Result<Outcome, Refusal> {
        let change = Change::Signatures(Box::new(change));
        self.writes.change_here(change, by).await
    }

    async fn work(self: &Arc<Self>) {
        loop {
            match at_length(|| self.waiting()) {
                Ok(waiting) => {
                    let verified = waiting.into_iter().map(|one| {
                        let last = self.is_last(&one);
                        self.carry_out(one, last)
                    });
                    futures::stream::iter(verified).buffer_unordered(AT_A_TIME).count().await;
                }
                Err(error) => warn!(%error, "the queue of signatures cannot be read"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What of the queue is of projects whose primary this node is.
    fn waiting(&self) -> Result<Vec<Waiting>, RecordError> {
        let view = self.neighbours.records.view()?;
        let queue = view.scan(&key::all_unverified(), None, PAGE)?;
        let mut failed = self.failed.lock();
        failed.retain(|(project, number), _| {
            let place = key::unverified(*project, *number);
            queue.len() >= PAGE || queue.iter().any(|(key, _)| *key == place)
        });
        let (mut all, mut projects) = (Vec::new(), BTreeMap::new());
        for (place, what) in queue {
            let Some((id, number)) = key::queued(&place) else { continue };
            let project = match projects.entry(id) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => {
                    new.insert(self.own_project(&*view, id)?)
                }
            };
            let Some(project) = project else { continue };
            let rests = failed.get(&(id, number)).and_then(|failed| failed.again);
            if rests.is_some_and(|again| clock::now() < again) {
                continue;
            }
            let (project, what) = (project.clone(), decode(&what)?);
            all.push(Waiting { project, number: Some(number), what });
        }
        Ok(all)
    }

    fn own_project(
        &self,
        view: &dyn ReadRecords,
        id: ProjectId,
    ) -> Result<Option<Project>, RecordError> {
        let name: Option<ProjectName> = view.record(&records_key::project_number(id))?;
        let Some(name) = name else { return Ok(None) };
        let project = view.project(&name)?;
        Ok(project.filter(|one| one.id == id && one.primary == self.neighbours.me))
    }

    /// Verifies one artifact, and records what came of it. At the `last` try blobs that are not here
    /// count as missing. Returns whether it need not be tried again.
    async fn carry_out(&self, one: Waiting, last: bool) -> bool {
        let place = one.number.map(|number| (one.project.id, number));
        let change = match self.verify(&one, last, &Allowance::of_one()).await {
            Ok(Some(change)) => change,
            Ok(None) => match one.number {
                Some(number) => SignatureChange::Skip { project: one.project.name.clone(), number },
                None => return true,
            },
            Err(error) => {
                let Unverified { repository, manifest, .. } = &one.what;
                warn!(%repository, %manifest, %error, "a signature could not be verified yet");
                if let Some(place) = place {
                    self.failed.lock().entry(place).or_default().count();
                }
                return false;
            }
        };
        match self.commit(change, &Actor::mesh()).await {
            // it was deleted meanwhile, with its project or alone
            Ok(_) | Err(Refusal::NotFound) => true,
            Err(refusal) => {
                info!(%refusal, "what a signature is worth could not be recorded yet");
                false
            }
        }
    }

    /// What this project trusts.
    fn anchors(
        &self,
        view: &dyn ReadRecords,
        project: ProjectId,
    ) -> Result<Arc<Anchors>, RecordError> {
        let trusted = view.trusted(project)?;
        let compromised = trusted.signers.iter().filter(|one| one.state.is_compromised()).count();
        let number = (trusted.anchors, compromised);
        if let Some((known, anchors)) = self.parsed.lock().get(&project)
            && *known == number
        {
            return Ok(anchors.clone());
        }
        let anchors = Arc::new(Anchors::of_signers(&trusted.signers));
        self.parsed.lock().insert(project, (number, anchors.clone()));
        Ok(anchors)
    }

    /// Whether it has failed so often that this is its last try.
    fn is_last(&self, one: &Waiting) -> bool {
        let failed = self.failed.lock();
        let known = one.number.and_then(|number| failed.get(&(one.project.id, number)));
        known.is_some_and(Failed::is_last)
    }

    async fn follow_trust(self: &Arc<Self>) {
        let mut failed = BTreeMap::<ProjectId, Failed>::new();
        loop {
            match at_length(|| self.behind()) {
                Ok(projects) => {
                    failed.retain(|id, _| projects.iter().any(|(project, _)| project.id == *id));
                    for (project, anchors) in projects {
                        let known = failed.entry(project.id).or_default();
                        if known.again.is_some_and(|again| clock::now() < again) {
                            continue;
                        }
                        if !self.verify_all(&project, anchors, known.is_last()).await {
                            known.count();
                        }
                    }
                }
                Err(error) => warn!(%error, "what projects trust cannot be read"),
            }
            tokio::time::sleep(LOOK_AT_TRUST).await;
        }
    }

    /// The projects of this node of which not everything was verified against what they trust now.
    fn behind(&self) -> Result<Vec<(Project, u64)>, RecordError> {
        let view = self.neighbours.records.view()?;
        if view.level()? < Level::SIGNATURES {
            return Ok(Vec::new());
        }
        let mut projects = view.projects()?;
        projects.retain(|one| one.primary == self.neighbours.me);
        self.parsed.lock().retain(|id, _| projects.iter().any(|one| one.id == *id));
        // what is cached is verified again when somebody pulls it
        projects.retain(|one| one.upstream.is_none());
        let mut behind = Vec::new();
        for project in projects {
            let trusted = view.trusted(project.id)?;
            let used = trusted.anchors > 0 || Policy::of(&project.metadata).is_some();
            if used && view.verified_against(project.id)? != Some(trusted.anchors) {
                behind.push((project, trusted.anchors));
            }
        }
        Ok(behind)
    }

    /// Verifies all that a project has. Returns whether that is done; otherwise all of it is tried
    /// again a little later. At the `last` try blobs that are not here count as missing.
    async fn verify_all(&self, project: &Project, anchors: u64, last: bool) -> bool {
        let repositories = match at_length(|| self.repositories(&project.name)) {
            Ok(repositories) => repositories,
            Err(error) => {
                warn!(%error, "the repositories of a project cannot be read");
                return false;
            }
        };
        let mut count = 0_usize;
        for repository in repositories {
            let all = match at_length(|| self.evidence_in(&repository)) {
                Ok(all) => all,
                Err(error) => {
                    warn!(%repository, %error, "the signatures of a repository cannot be read");
                    return false;
                }
            };
            count += all.len();
            let waiting = all.into_iter().map(|(manifest, tag)| Waiting {
                project: project.clone(),
                number: None,
                what: Unverified { repository: repository.clone(), manifest, tag },
            });
            let verified = waiting.map(|one| self.carry_out(one, last));
            let verified: Vec<bool> =
                futures::stream::iter(verified).buffer_unordered(AT_A_TIME).collect().await;
            if verified.contains(&false) {
                return false;
            }
        }
        let name = project.name.clone();
        let change = SignatureChange::UpToDate { project: name, anchors };
        match self.commit(change, &Actor::mesh()).await {
            Ok(_) => {
                info!(project = %project.name, count, "all signatures were verified");
                true
            }
            Err(refusal) => {
                info!(project = %project.name, %refusal, "signatures are verified again");
                false
            }
        }
    }

    fn repositories(&self, project: &ProjectName) -> Result<Vec<RepositoryName>, RecordError> {
        let view = self.neighbours.records.view()?;
        let names = view.scan(&records_key::repositories_of(project), None, usize::MAX)?;
        let names = names.iter().filter_map(|(place, _)| records_key::name_of(place).parse().ok());
        Ok(names.collect())
    }

    /// The artifacts of signatures in a repository.
    fn evidence_in(
        &self,
        repository: &RepositoryName,
    ) -> Result<Vec<(Digest, Option<Tag>)>, RecordError> {
        let view = self.neighbours.records.view()?;
        let mut all = Vec::new();
        let referrers = records_key::all_referrers(repository);
        for (_, referrer) in view.scan(&referrers, None, usize::MAX)? {
            let referrer: Referrer = decode(&referrer)?;
            if is_evidence(referrer.artifact_type.as_deref()) {
                all.push((referrer.digest, None));
            }
        }
        for (place, record) in view.scan(&records_key::tags(repository), None, usize::MAX)? {
            let Ok(tag) = records_key::tag_of(&place).parse::<Tag>() else { continue };
            let signs = |of: Fallback<'_>| matches!(of.ending, ".sig" | ".att");
            if Fallback::of(&tag).is_some_and(signs) {
                let record: TagRecord = decode(&record)?;
                all.push((record.digest, Some(tag)));
            }
        }
        Ok(all)
    }
}
