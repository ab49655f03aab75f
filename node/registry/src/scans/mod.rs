//! Scans: what is vulnerable in the images of the projects whose primary this node is.
//!
//! | module | what it does |
//! |---|---|
//! | [`engines`] | which scanner looks into a project's images |
//! | [`adapters`] | other scanners, over Harbor's API for them |
//! | [`not_well`] | why a scanner does not answer as it should |
//! | [`trivy`] | the program trivy, and the image as it sees it |
//! | `programs` | other programs, within bounds |
//! | `elsewhere` | what other scanners have found: how it is kept |
//! | `bodies` | reports as they are sent |
//! | [`database`] | the database of vulnerabilities: from an image of this mesh, opened |
//! | [`layers`] | what layers contain: from the ledger, or read out of their bytes |
//! | [`cached`] | images of proxy projects, which are scanned when they are pulled |
//! | [`rescans`] | scans of all that a project has, as a job |
//! | [`everything`] | the same for all projects, by the mesh's schedule |
//! | [`exports`] | findings of a project as a table |
//! | [`attached`] | SBOMs that came with an image |
//! | [`sboms`] | what an image consists of, kept beside it |
//! | `showing` | reports with all their texts |
//! | [`matching`] | reports made anew when the database changes |
//!
//! The ledger has the queue, and what was found (`rules::ledger::scanning`). The engine that is built in
//! reads bytes where they are, once; nothing is pulled, and nothing is unpacked to disk. Which scanner
//! looks is decided for each scan, when it begins.

pub mod adapters;
pub mod attached;
mod bodies;
pub mod cached;
pub mod database;
mod elsewhere;
pub mod engines;
pub mod everything;
pub mod exports;
pub mod layers;
mod matching;
pub mod not_well;
mod programs;
pub mod rescans;
pub mod sboms;
mod showing;
pub mod trivy;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::{Tasks, at_length};
use parking_lot::Mutex;
use rules::ledger::change::Change;
use rules::ledger::command::Outcome;
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, Project, ReadRecords, RecordError, key as records_key};
use rules::ledger::scanning::{
    AT_ONCE, LookForScans, MOST_TRIES, Report, ScanChange, Wanted, rest,
};
use rules::ledger::stored::manifests_of;
use rules::policies::vulnerabilities::metadata::AUTO_SBOM;
use rules::policies::vulnerabilities::{Severity, VulnerabilityId, Weakness, chosen_scanner};
use rules::scanners::turns::{Waiting, take_turns_of_each};
use rules::wire::WriteKind;
use rules::words::digest::Digest;
use rules::words::image::{Image, Runnable};
use rules::words::moment::{Moment, Timestamp};
use rules::words::names::{ProjectName, RepositoryName, ScannerId, Tag};
use scan::Finding;
use scan::adapter::metadata::ScannerName;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::{debug, info, warn};

use crate::blobs::flights::Flights;
use crate::blobs::rechecks::Rechecks;
use crate::view::neighbours::Neighbours;
use crate::writes::{Refusal, Writes};
use adapters::Adapters;
use bodies::Bodies;
use cached::CachedScans;
use database::{DatabaseStatus, Databases};
use engines::{Engine, Engines, Examined};
use store::{Store, StoreError};

/// The name and version of what looks, in reports.
pub const ENGINE: &str = concat!("Atoll ", env!("CARGO_PKG_VERSION"));
/// The time between two looks at the queue, if nothing happens.
const LOOK: Duration = Duration::from_secs(1);
/// The maximum number of reports that are shown at a time.
const SHOWN: usize = 2;
/// How long a reader of a report waits until there is room for it.
const ROOM_WAIT: Duration = Duration::from_secs(4);
/// The shortest time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Limits of scans at this node.
#[derive(Clone, Debug)]
pub struct ScanTerms {
    /// The tag of the image that is the database; `None` if this node scans nothing.
    pub database: Option<(RepositoryName, Tag)>,
    /// The maximum number of images that each scanner scans at a time.
    pub at_a_time: usize,
    /// How many bytes of layers are read in a second; `None` if there is no limit.
    pub rate: Option<u64>,
    /// How long the scan of one image may take.
    pub timeout: Duration,
    /// The maximum number of bytes of a layer, unpacked.
    pub unpacked: u64,
    /// How many scans of cached images are begun in a minute.
    pub cached_per_minute: u32,
    /// Until the layers of an image are here.
    pub fetch: Duration,
    /// Until a change is committed.
    pub commit: Duration,
}

/// Why a scan has no report.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The image cannot be scanned, now or later. A sentence for people.
    #[error("{0}")]
    Hopeless(String),
    /// Another try may help.
    #[error("{0}")]
    Again(String),
    /// Nobody wants it any more.
    #[error("it was stopped")]
    Stopped,
}

impl From<RecordError> for ScanError {
    fn from(error: RecordError) -> Self {
        ScanError::Again(error.to_string())
    }
}

impl From<StoreError> for ScanError {
    fn from(error: StoreError) -> Self {
        ScanError::Again(error.to_string())
    }
}

impl From<Refusal> for ScanError {
    fn from(refusal: Refusal) -> Self {
        ScanError::Again(refusal.to_string())
    }
}

/// An image that is scanned here, and the number of the scan.
type Running = (RepositoryName, Digest, u64);

/// A scan that is begun: the scanner, and the image with how often it was begun before.
type Begun = (ScannerId, (Running, u32));

/// Scans at this node.
pub struct Scans {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    flights: Arc<Flights>,
    writes: Arc<Writes>,
    databases: Arc<Databases>,
    adapters: Arc<Adapters>,
    terms: ScanTerms,
    /// With the scanner that each was begun for.
    running: Mutex<BTreeMap<Running, ScannerId>>,
    /// Scans that failed here and are tried again, and not before when.
    resting: Mutex<BTreeMap<Running, Moment>>,
    /// The project that each scanner has served last.
    last: Mutex<BTreeMap<ScannerId, ProjectName>>,
    /// Reports that are shown at a time: each is made anew, which takes long for a large image.
    shown: Arc<Semaphore>,
    /// SBOMs that came with images: they are looked for by a limited number at a time.
    attached: Semaphore,
    bodies: Bodies,
    rechecks: Arc<Rechecks>,
    cached: CachedScans,
    /// Exports that are made at a time.
    exporting: Arc<Semaphore>,
    over: Notify,
    tasks: Tasks,
}

/// A report with all its texts.
#[derive(Clone, Debug)]
pub struct Findings {
    /// What is recorded.
    pub report: Report,
    /// Who has looked.
    pub scanner: ScannerName,
    /// What was found: now, in the database of this node, or by another scanner when it looked.
    pub findings: Vec<Finding>,
    /// The digest of this mesh's database, if that was looked in.
    pub database: Option<Digest>,
    /// When the database was made, if that is known.
    pub updated: Option<Timestamp>,
    /// For as long as these are in memory: so few may be that at a time.
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

/// What the engine that is built in calls itself.
pub fn native() -> ScannerName {
    let word = || "Atoll".to_owned();
    ScannerName { name: word(), vendor: word(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

impl Scans {
    /// Ready to scan; nothing is begun yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        flights: Arc<Flights>,
        writes: Arc<Writes>,
        engines: Engines,
        terms: ScanTerms,
        tasks: Tasks,
    ) -> Arc<Self> {
        let Engines { databases, adapters, rechecks, confirming } = engines;
        let cached = CachedScans::new(confirming, terms.cached_per_minute);
        let (running, resting) = (Mutex::default(), Mutex::default());
        let (last, over) = (Mutex::default(), Notify::new());
        let (shown, bodies) = (Arc::new(Semaphore::new(SHOWN)), Bodies::new(ROOM_WAIT));
        Arc::new(Scans {
            neighbours,
            store,
            flights,
            writes,
            databases,
            adapters,
            terms,
            running,
            resting,
            last,
            shown,
            attached: Semaphore::new(SHOWN),
            bodies,
            rechecks,
            cached,
            exporting: Arc::new(Semaphore::new(exports::AT_A_TIME)),
            over,
            tasks,
        })
    }

    /// Begins. An edge scans nothing.
    pub fn start(self: &Arc<Self>) {
        if self.neighbours.is_edge() {
            return;
        }
        self.databases.start(&self.tasks);
        let scans = self.clone();
        self.tasks.spawn("scans", async move { scans.work().await });
        let scans = self.clone();
        self.tasks.spawn("matching", async move { scans.match_again().await });
        let scans = self.clone();
        self.tasks.spawn("scans.forget", async move { scans.forget_uncached().await });
    }

    /// Asks for scans of images of one repository. `first` puts them before others.
    pub async fn ask(
        &self,
        repository: &RepositoryName,
        digests: Vec<Digest>,
        first: bool,
        by: &Actor,
    ) -> Result<(), Refusal> {
        let is_cached = self.is_cached(repository)?;
        let repository = repository.clone();
        let change = match is_cached {
            true => ScanChange::AskCached { repository, digests, first },
            false => ScanChange::Ask { repository, digests, first },
        };
        self.commit(change, by).await.map(drop)
    }

    /// Ends the scan of an image that waits or runs.
    pub async fn stop(
        &self,
        repository: &RepositoryName,
        digest: Digest,
        by: &Actor,
    ) -> Result<(), Refusal> {
        let change = ScanChange::Stop { repository: repository.clone(), digest };
        self.commit(change, by).await.map(drop)
    }

    /// Ends the scans of a project's images that wait or run, but for those that somebody has asked for
    /// alone. Returns whether there were some.
    pub async fn stop_all(&self, project: &ProjectName, by: &Actor) -> Result<bool, Refusal> {
        let mut stopped = false;
        loop {
            match self.commit(ScanChange::StopAll { project: project.clone() }, by).await {
                Ok(Outcome::Unfinished) => stopped = true,
                Ok(_) => return Ok(true),
                Err(Refusal::NotFound) => return Ok(stopped),
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// What of the database is at this node.
    pub fn database_status(&self) -> DatabaseStatus {
        self.databases.status()
    }

    async fn commit(&self, change: ScanChange, by: &Actor) -> Result<Outcome, Refusal> {
        let project = change.project();
        let change = Change::Scan(Box::new(change));
        self.writes.commit(&project, WriteKind::Fenced(change), by).await
    }

    async fn work(self: &Arc<Self>) {
        loop {
            match at_length(|| self.next()) {
                Ok(next) => {
                    for (scanner, (running, tries)) in next {
                        self.begin(running, tries, scanner);
                    }
                }
                Err(error) => warn!(%error, "the queue of scans cannot be read"),
            }
            tokio::select! {
                () = self.over.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What to begin now.
    fn next(&self) -> Result<Vec<Begun>, RecordError> {
        let running = self.running.lock().clone();
        let resting = {
            let (mut resting, now) = (self.resting.lock(), clock::now());
            resting.retain(|_, until| now < *until);
            resting.clone()
        };
        let view = self.neighbours.records.view()?;
        if view.level()? < Level::SCANS {
            return Ok(Vec::new());
        }
        let mut projects = self.scanned_projects(&*view)?;
        let (is_equipped, known) = (self.is_equipped(&*view)?, view.known_scanners()?);
        let may_begin = self.cached.may_begin();
        projects.retain(|one| one.upstream.is_none() || may_begin);
        let cache: BTreeSet<ProjectName> = projects
            .iter()
            .filter(|one| one.upstream.is_some())
            .map(|one| one.name.clone())
            .collect();
        // other scanners need no database here
        projects.retain(|one| {
            is_equipped || known.of(chosen_scanner(&one.metadata)) != ScannerId::NATIVE
        });
        let most = self.terms.at_a_time + running.len() + resting.len();
        let mut all = Vec::new();
        for project in projects {
            let scanner = known.of(chosen_scanner(&project.metadata));
            if running.values().filter(|of| **of == scanner).count() >= self.terms.at_a_time {
                continue;
            }
            // one that was begun for the scanner of before does not stop the new one's
            let of_project = |one: &Running| one.0.project() == project.name;
            let run = running.iter().filter(|(one, of)| of_project(one) && **of == scanner).count();
            let mut scans = VecDeque::new();
            for (repository, digest) in view.queued_scans(project.id, most)? {
                let record = view.scan_of(&repository, &digest)?;
                let Some(wanted) = record.and_then(|record| record.wanted) else { continue };
                let one = (repository, digest, wanted.number);
                if !running.contains_key(&one) && !resting.contains_key(&one) {
                    scans.push_back((one, wanted.tries));
                }
            }
            let (project, running) = (project.name, run);
            all.push(Waiting { project, scanner, running, scans });
        }
        let mut begun = take_turns_of_each(all, &mut self.last.lock(), self.terms.at_a_time);
        begun.retain(|(_, (one, _))| !cache.contains(&one.0.project()) || self.cached.begin());
        Ok(begun)
    }

    /// Whether this node has the database that the mesh uses.
    fn is_equipped(&self, view: &dyn ReadRecords) -> Result<bool, RecordError> {
        let used = view.scan_database()?;
        Ok(used.is_some_and(|used| self.databases.opened(&used.digest).is_some()))
    }

    /// The projects whose primary this node is, without those that cache a registry.
    fn own_projects(&self, view: &dyn ReadRecords) -> Result<Vec<Project>, RecordError> {
        let mut projects = self.scanned_projects(view)?;
        projects.retain(|one| one.upstream.is_none());
        Ok(projects)
    }

    /// The projects whose primary this node is.
    fn scanned_projects(&self, view: &dyn ReadRecords) -> Result<Vec<Project>, RecordError> {
        let mut projects = view.projects()?;
        projects.retain(|one| one.primary == self.neighbours.me);
        Ok(projects)
    }

    fn begin(self: &Arc<Self>, one: Running, tries: u32, scanner: ScannerId) {
        if self.running.lock().insert(one.clone(), scanner).is_some() {
            return;
        }
        let scans = self.clone();
        self.tasks.spawn("scan", async move {
            let (repository, digest, number) = &one;
            if let Err(refusal) = scans.carry_out(repository, digest, *number, tries).await {
                debug!(%repository, %digest, %refusal, "a scan could not be recorded");
            }
            scans.running.lock().remove(&one);
            scans.over.notify_one();
        });
    }

    async fn carry_out(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        number: u64,
        tries: u32,
    ) -> Result<(), Refusal> {
        let (place, by) = ((repository.clone(), *digest), Actor::mesh());
        let fail = |why: String, again| ScanChange::Fail {
            repository: place.0.clone(),
            digest: place.1,
            number,
            why,
            again,
        };
        if tries >= MOST_TRIES {
            let why = format!("it was begun {tries} times, and its node ended each time");
            return self.commit(fail(why, false), &by).await.map(drop);
        }
        let (repository, digest) = place.clone();
        let began = clock::timestamp();
        match self.commit(ScanChange::Begin { repository, digest, number }, &by).await {
            Ok(_) => {}
            // it was stopped, or is gone
            Err(Refusal::NotFound) => return Ok(()),
            Err(refusal) => return Err(refusal),
        }
        let (repository, digest) = place.clone();
        let engine = match self.fetch_cached(&repository, &digest).await {
            Ok(()) => self.engine(&repository),
            Err(error) => Err(error),
        };
        let scanned = match engine {
            Ok(Engine::Native) => self.scan(&repository, &digest, number, began).await,
            Ok(engine) => self.scan_elsewhere(&engine, &repository, &digest, number, began).await,
            Err(error) => Err(error),
        };
        let change = match scanned {
            Ok(Examined { report, elsewhere }) => {
                let (found, engine) = (report.found.len(), &report.engine);
                info!(%repository, %digest, found, engine, "an image was scanned");
                metrics::counter!("atoll_scans_total", "result" => "report").increment(1);
                match elsewhere {
                    None => ScanChange::Report { repository, digest, report },
                    Some(elsewhere) => {
                        ScanChange::ReportElsewhere { repository, digest, report, elsewhere }
                    }
                }
            }
            Err(ScanError::Stopped) => return Ok(()),
            Err(error) => {
                warn!(%repository, %digest, %error, "an image could not be scanned");
                metrics::counter!("atoll_scans_total", "result" => "error").increment(1);
                let again = matches!(error, ScanError::Again(_));
                if again {
                    let until = clock::now() + rest(tries + 1);
                    let one = (place.0.clone(), place.1, number);
                    self.resting.lock().insert(one, until);
                }
                fail(error.to_string(), again)
            }
        };
        match self.commit(change, &by).await {
            Ok(_) | Err(Refusal::NotFound) => Ok(()),
            Err(Refusal::Precondition) => {
                let why = engines::given_up().to_string();
                self.commit(fail(why, true), &by).await.map(drop)
            }
            Err(refusal) => Err(refusal),
        }
    }

    async fn scan(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        number: u64,
        begun: Timestamp,
    ) -> Result<Examined, ScanError> {
        let image = self.image(repository, digest)?;
        let read = layers::Reading { scans: self, repository, digest, number: Some(number) };
        let (layers, mut log) = read.all(&image).await?;
        let (database, used) = self.database()?;
        let report = at_length(|| judge(&image, &layers, &database))?;
        if self.wants_sboms(repository)? && !image.attests() {
            log += &self.keep_sboms_of(repository, digest, &layers).await?;
        }
        let packages = format!("{} findings in database {used}", report.findings.len());
        let (insufficient, found) = (insufficient(&report), weaknesses(&report.findings));
        let report = Report {
            number,
            begun,
            at: begun,
            engine: ENGINE.into(),
            database: used,
            insufficient,
            found,
            log: format!("{log}{packages}\n"),
        };
        Ok(Examined { report, elsewhere: None })
    }

    /// Keeps the SBOMs of an image with these layers, before it has its report: a scan that has one is
    /// not begun again. What there is to say of it is returned.
    async fn keep_sboms_of(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        layers: &[scan::Layer],
    ) -> Result<String, ScanError> {
        let inventory = at_length(|| scan::merge(layers));
        match self.keep_sboms(repository, digest, &inventory, &Actor::mesh()).await {
            Ok(()) => Ok(String::new()),
            Err(ScanError::Stopped) => Err(ScanError::Stopped),
            // whether the image may be pulled matters more
            Err(error) => {
                warn!(%repository, %digest, %error, "SBOMs could not be kept");
                Ok(format!("its SBOMs could not be kept: {error}\n"))
            }
        }
    }

    /// Whether SBOMs are kept of what is scanned in the repository's project: a proxy project has only
    /// what its upstream has.
    fn wants_sboms(&self, repository: &RepositoryName) -> Result<bool, RecordError> {
        let project = self.neighbours.records.view()?.project(&repository.project())?;
        Ok(project.is_some_and(|one| one.upstream.is_none() && one.is_set(AUTO_SBOM)))
    }

    /// The parts of an image that can be scanned.
    fn image(&self, repository: &RepositoryName, digest: &Digest) -> Result<Image, ScanError> {
        let manifest = self.neighbours.records.view()?.manifest(repository, digest)?;
        let manifest = manifest.ok_or(ScanError::Stopped)?;
        match Image::read(&manifest.bytes) {
            Runnable::Image(image) => Ok(image),
            Runnable::Ambiguous => Err(ScanError::Hopeless(
                "clients read its manifest in several ways: a key is there twice, or in another case"
                    .into(),
            )),
            Runnable::Nothing => {
                Err(ScanError::Hopeless("it is not an image that can be scanned".into()))
            }
        }
    }

    /// The database that the mesh uses, with its digest.
    fn database(&self) -> Result<(Arc<scan::Database>, Digest), ScanError> {
        let used = self.neighbours.records.view()?.scan_database()?;
        let used = used.ok_or_else(|| {
            ScanError::Again("this mesh has no database of vulnerabilities (scan.database)".into())
        })?;
        let database = self.databases.opened(&used.digest).ok_or_else(|| {
            ScanError::Again(format!("this node does not have the database {} yet", used.digest))
        })?;
        Ok((database, used.digest))
    }

    /// Whether a scan is still wanted.
    fn is_wanted(&self, repository: &RepositoryName, digest: &Digest, number: u64) -> bool {
        let read = || {
            let record = self.neighbours.records.view()?.scan_of(repository, digest)?;
            let wanted = record.and_then(|record| record.wanted);
            Ok::<_, RecordError>(wanted.is_some_and(|wanted: Wanted| wanted.number == number))
        };
        read().unwrap_or(true)
    }

    /// Asks for scans of all images of a project that can be scanned. Returns how many.
    pub async fn ask_for_all(&self, project: &ProjectName, by: &Actor) -> Result<usize, Refusal> {
        let mut asked = 0;
        for (repository, digests) in at_length(|| self.scannable(project))? {
            for some in digests.chunks(AT_ONCE) {
                self.ask(&repository, some.to_vec(), false, by).await?;
                asked += some.len();
            }
        }
        Ok(asked)
    }

    fn scannable(
        &self,
        project: &ProjectName,
    ) -> Result<Vec<(RepositoryName, Vec<Digest>)>, RecordError> {
        let view = self.neighbours.records.view()?;
        let repositories = records_key::repositories_of(project);
        let names = view.scan(&repositories, None, usize::MAX)?;
        let mut all = Vec::new();
        for (place, _) in names {
            let name = records_key::name_of(&place).parse::<RepositoryName>();
            let Ok(repository) = name else { continue };
            let manifests = manifests_of(&*view, &repository)?;
            let mut digests = Vec::new();
            for digest in manifests.into_keys() {
                let manifest = view.manifest(&repository, &digest)?;
                if manifest.is_some_and(|one| Image::read(&one.bytes) != Runnable::Nothing) {
                    digests.push(digest);
                }
            }
            all.push((repository, digests));
        }
        Ok(all)
    }
}

/// What the database knows of an image. Of attestations, which are none, everything is known.
fn judge(
    image: &Image,
    layers: &[scan::Layer],
    database: &scan::Database,
) -> Result<scan::Report, ScanError> {
    let judged = scan::judge(&scan::merge(layers), database, clock::timestamp());
    let mut report = judged.map_err(|e| ScanError::Again(e.to_string()))?;
    if image.attests() {
        report.coverage = scan::Coverage::Whole;
    }
    Ok(report)
}

/// Why too little is known, if that is so.
fn insufficient(report: &scan::Report) -> Option<String> {
    match &report.coverage {
        scan::Coverage::Whole => None,
        scan::Coverage::Insufficient { why } => Some(why.clone()),
    }
}

/// What decides about pulls: each id once, with its worst severity. It has a fix if every package
/// that has it does.
fn weaknesses(findings: &[Finding]) -> Vec<Weakness> {
    let mut found = std::collections::BTreeMap::<VulnerabilityId, (Severity, bool)>::new();
    for finding in findings {
        let id = VulnerabilityId::from(finding.id.as_str());
        let (severity, fixable) = found.entry(id).or_insert((Severity::Unknown, true));
        *severity = (*severity).max(finding.severity);
        *fixable &= finding.fixed.is_some();
    }
    let weak = |(id, (severity, fixable))| Weakness { id, severity, fixable };
    found.into_iter().map(weak).collect()
}
