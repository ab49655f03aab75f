//! Images that proxy projects have cached: scanned because somebody pulls them, a limited number and no
//! faster than is allowed. What the upstream has not shown of an image is not looked into, since it
//! may be here for another project.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::at_length;
use parking_lot::Mutex;
use rules::ledger::cached_scans::{LookForCachedScans, is_due, wants_scans};
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, Project, RecordError};
use rules::ledger::scanning::{AT_ONCE, LookForScans, ScanChange};
use rules::policies::vulnerabilities::chosen_scanner;
use rules::proxies::budget::{BudgetTerms, Budgets, client_of};
use rules::wire::questions;
use rules::words::digest::Digest;
use rules::words::image::{Image, Runnable};
use rules::words::names::{NodeId, ProjectId, RepositoryName};
use tracing::{debug, info};

use super::layers::Reading;
use super::{ScanError, Scans};
use crate::proxies::confirming::Confirming;

/// How many scans each client, and each edge, may cause in a project by pulls: at once, and more in each
/// minute.
const ASKED: BudgetTerms = BudgetTerms { burst: 50, per_minute: 20 };
/// How many scans of cached images are begun at once, after a time without any.
const BURST: u32 = 20;
/// How long a pull waits until its scan is asked for: the project's primary may be away.
const ASKING: Duration = Duration::from_secs(3);
/// The time between two looks for what nobody has cached any more.
const LOOK: Duration = Duration::from_secs(20);
/// The maximum number of images for which other nodes are asked in one look.
const LOOKED_FOR: usize = 50;
/// How long somebody who wants to see a report waits until the layers were read again.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);
/// The maximum number of bytes of lists of packages that are kept in memory.
const KEPT: usize = 16 << 20;

/// Who pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Puller {
    /// A client of this node.
    Client(IpAddr),
    /// An edge, for a client of its own.
    Edge(NodeId),
}

/// What this node knows of scans of cached images.
pub(super) struct CachedScans {
    confirming: Arc<Confirming>,
    asked: Mutex<Budgets<(Puller, ProjectId)>>,
    begun: Mutex<Budgets<()>>,
    /// One at a time: many ask for the same.
    asking: tokio::sync::Mutex<()>,
    lists: Mutex<Lists>,
}

impl CachedScans {
    /// `per_minute` is how many scans are begun in a minute.
    pub(super) fn new(confirming: Arc<Confirming>, per_minute: u32) -> Self {
        CachedScans {
            confirming,
            asked: Mutex::new(Budgets::new(ASKED)),
            begun: Mutex::new(Budgets::new(BudgetTerms { burst: BURST, per_minute })),
            asking: tokio::sync::Mutex::default(),
            lists: Mutex::default(),
        }
    }

    /// Whether one more scan may be begun now.
    pub(super) fn may_begin(&self) -> bool {
        let mut begun = self.begun.lock();
        let may = begun.take(clock::now(), &()).is_ok();
        if may {
            begun.give_back(&());
        }
        may
    }

    /// One more scan is begun; `false` if that is one too many.
    pub(super) fn begin(&self) -> bool {
        self.begun.lock().take(clock::now(), &()).is_ok()
    }

    /// The list of packages of a layer that was read lately.
    pub(super) fn list(&self, digest: &Digest) -> Option<Arc<[u8]>> {
        let lists = self.lists.lock();
        lists.all.iter().find(|(one, _)| one == digest).map(|(_, list)| list.clone())
    }

    /// Keeps a list of packages for a while.
    pub(super) fn keep_list(&self, digest: Digest, list: Vec<u8>) {
        self.lists.lock().keep(digest, list.into());
    }
}

/// Lists of packages, the newest last.
#[derive(Default)]
struct Lists {
    all: VecDeque<(Digest, Arc<[u8]>)>,
    bytes: usize,
}

impl Lists {
    fn keep(&mut self, digest: Digest, list: Arc<[u8]>) {
        if self.all.iter().any(|(one, _)| *one == digest) {
            return;
        }
        self.bytes += list.len();
        self.all.push_back((digest, list));
        while self.bytes > KEPT
            && let Some((_, oldest)) = self.all.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }
}

impl Scans {
    /// Somebody pulls an image of a proxy project. If its project wants it to be scanned, and nothing is
    /// known of it that is up to date, this asks for a scan, as far as the queue has room. Whether there
    /// is one is in the records.
    pub async fn pulled(
        &self,
        project: &Project,
        repository: &RepositoryName,
        digest: &Digest,
        by: Puller,
    ) {
        if !wants_scans(project) {
            return;
        }
        let by = match by {
            Puller::Client(address) => Puller::Client(client_of(address)),
            edge @ Puller::Edge(_) => edge,
        };
        let asked = async {
            if self.neighbours.is_edge() {
                let read = self.neighbours.records.read(|records| {
                    if !records.can_be_scanned(chosen_scanner(&project.metadata))? {
                        return Ok(false);
                    }
                    let (known, used) =
                        (records.scan_of(repository, digest)?, records.scan_database()?);
                    Ok(is_due(known.as_ref(), used.as_ref(), clock::timestamp()))
                });
                if !matches!(read.await, Ok((true, _))) || !self.may_ask(by, project) {
                    return;
                }
                // the primary asks for a scan of what it says to an edge
                let (repository, reference) = (repository.clone(), digest.to_string());
                let ask = questions::Resolve { repository, reference };
                let asked = self.neighbours.links.ask(project.primary, ask, ASKING).await;
                if let Err(error) = asked {
                    debug!(%digest, %error, "a scan could not be asked for");
                }
                return;
            }
            let is_wanted = || at_length(|| self.is_wanted_of_cached(project, repository, digest));
            // most pulls are of what is known
            if !matches!(is_wanted(), Ok(true)) {
                return;
            }
            let _turn = self.cached.asking.lock().await;
            match is_wanted() {
                Ok(true) if self.may_ask(by, project) => {}
                Ok(_) => return,
                Err(error) => return debug!(%digest, %error, "a scan could not be asked for"),
            }
            let (image, mesh) = (vec![*digest], Actor::mesh());
            if let Err(refusal) = self.ask(repository, image, false, &mesh).await {
                debug!(%repository, %digest, %refusal, "a scan could not be asked for");
            }
        };
        let _ = tokio::time::timeout(ASKING, asked).await;
    }

    /// The same for a client of an edge, which does not wait for it.
    pub fn pulled_at_edge(
        self: &Arc<Self>,
        project: Project,
        place: (RepositoryName, Digest),
        edge: NodeId,
    ) {
        let scans = self.clone();
        self.tasks.spawn("scans.ask", async move {
            scans.pulled(&project, &place.0, &place.1, Puller::Edge(edge)).await;
        });
    }

    fn may_ask(&self, by: Puller, project: &Project) -> bool {
        self.cached.asked.lock().take(clock::now(), &(by, project.id)).is_ok()
    }

    fn is_wanted_of_cached(
        &self,
        project: &Project,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, RecordError> {
        let view = self.neighbours.records.view()?;
        if view.level()? < Level::CACHED_SCANS
            || !view.can_be_scanned(chosen_scanner(&project.metadata))?
        {
            return Ok(false);
        }
        let (known, database) = (view.scan_of(repository, digest)?, view.scan_database()?);
        if !is_due(known.as_ref(), database.as_ref(), clock::timestamp())
            || !view.has_room_for_scans(project.id, false)?
        {
            return Ok(false);
        }
        let manifest = view.manifest(repository, digest)?;
        // an image that runtimes read in several ways gets no report
        Ok(manifest.is_some_and(|one| matches!(Image::read(&one.bytes), Runnable::Image(_))))
    }

    /// Whether a repository is of a proxy project.
    pub(super) fn is_cached(&self, repository: &RepositoryName) -> Result<bool, RecordError> {
        let project = self.neighbours.records.view()?.project(&repository.project())?;
        Ok(project.is_some_and(|project| project.upstream.is_some()))
    }

    /// Has the manifest of a cached image here before it is scanned. Fails if nobody has cached it any
    /// more, or if the image is so large that it is not fetched.
    pub(super) async fn fetch_cached(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), ScanError> {
        if !self.is_cached(repository)? {
            return Ok(());
        }
        let caches = self.cached.confirming.caches();
        let Some(manifest) = caches.manifest(repository, digest, false).await else {
            return Err(ScanError::Hopeless("nobody has cached it any more".into()));
        };
        if let Runnable::Image(image) = Image::read(&manifest.bytes) {
            let bytes = image.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
            if bytes > self.terms.unpacked {
                let most = self.terms.unpacked;
                let why =
                    format!("its layers have {bytes} bytes, more than {most} (scan.unpacked)");
                return Err(ScanError::Hopeless(why));
            }
        }
        Ok(())
    }

    /// Fails unless the upstream has shown that this repository has the blob.
    pub(super) async fn check_shown(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), ScanError> {
        match self.cached.confirming.is_theirs(repository, digest).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ScanError::Hopeless(format!(
                "layer {digest}: the upstream does not show it in this repository"
            ))),
            Err(error) => Err(ScanError::Again(format!("layer {digest}: {error}"))),
        }
    }

    /// An image, and what its layers contain if that is not kept in the ledger: they are read again for
    /// a report or an SBOM that somebody wants to see.
    pub(super) async fn image_to_show(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(Image, Option<Vec<scan::Layer>>), ScanError> {
        if !self.is_cached(repository)? {
            return Ok((self.image(repository, digest)?, None));
        }
        self.fetch_cached(repository, digest).await?;
        let image = self.image(repository, digest)?;
        if image.attests() {
            return Ok((image, None));
        }
        let reading = Reading { scans: self, repository, digest, number: None };
        let _one_of_few = self.shown.acquire().await;
        let layers = reading.within(&image, SHOWN_WITHIN).await?.0;
        Ok((image, Some(layers)))
    }

    /// Forgets what is known of images that nobody has cached any more, for as long as the node runs.
    pub(super) async fn forget_uncached(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.forget_uncached_now().await {
                debug!(%error, "what is known of cached images could not be looked through");
            }
        }
    }

    async fn forget_uncached_now(&self) -> Result<(), ScanError> {
        let missing = at_length(|| self.not_cached_here())?;
        for (repository, digests) in self.cached.confirming.caches().nowhere(missing).await {
            for some in digests.chunks(AT_ONCE) {
                let count = some.len();
                let change = ScanChange::ForgetCached {
                    repository: repository.clone(),
                    digests: some.to_vec(),
                };
                self.commit(change, &Actor::mesh()).await?;
                info!(%repository, count, "what was known of images is forgotten: nobody has them");
            }
        }
        Ok(())
    }

    /// Images with a report whose manifest this node, the primary, does not have.
    fn not_cached_here(&self) -> Result<Vec<(RepositoryName, Digest)>, RecordError> {
        let view = self.neighbours.records.view()?;
        let mut missing = Vec::new();
        if view.level()? < Level::CACHED_SCANS {
            return Ok(missing);
        }
        for project in self.scanned_projects(&*view)? {
            if project.upstream.is_none() {
                continue;
            }
            view.each_scan(&project.name, |repository, digest, record| {
                if missing.len() < LOOKED_FOR
                    && record.wanted.is_none()
                    && !view.has_manifest(&repository, &digest)?
                {
                    missing.push((repository, digest));
                }
                Ok(())
            })?;
        }
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_packages_are_kept_within_a_bound_the_newest_ones() {
        let mut lists = Lists::default();
        let digest = |n: u8| Digest::sha256(&[n]);
        for n in 0..5 {
            lists.keep(digest(n), vec![n; KEPT / 4].into());
        }
        assert_eq!(lists.bytes, KEPT);
        let kept: Vec<bool> =
            (0..5).map(|n| lists.all.iter().any(|(one, _)| *one == digest(n))).collect();
        assert_eq!(kept, [false, true, true, true, true]);
        lists.keep(digest(4), vec![4; KEPT / 4].into());
        assert_eq!(lists.bytes, KEPT, "it is there already");
    }
}
