//! What the replicas together have cached of proxy projects apart from blobs. Each has what was
//! pulled through it. It asks the others for what it lacks, those of its region first, and keeps
//! what they give.
//!
//! An edge has no part in this. It reads these records through replicas as it reads all records
//! ([`super::look`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use rules::ledger::cached::{CachedManifest, Origin, Owner, WithCached, merged, newest_first};
use rules::ledger::level::Level;
use rules::ledger::records::{
    Look, ManifestRecord, Pair, ReadRecords, RecordError, TagRecord, decode, key,
};
use rules::members::placement;
use rules::wire::{CacheAnswer, CacheAsk, Found, MAX_HAVE, MAX_QUESTIONS, Query, questions};
use rules::words::digest::Digest;
use rules::words::names::{NodeId, ProjectId, ProjectName, Reference, RepositoryName, Tag};
use store::CachedRecords;
use tracing::{debug, warn};

use super::Records;
use super::found::{find, pairs_of};
use super::neighbours::Neighbours;

/// How long the nodes of one round may take to give what they have cached. Then those of the next
/// round are asked, or the upstream.
const ROUND: Duration = Duration::from_millis(500);
/// How long nodes may take to say what a tag named, or to give their part of a list: the answers of
/// all of them count. A node that has just died is waited for this long, and an edge that asks waits
/// no longer than 1.5 s for both.
const ALL: Duration = Duration::from_millis(500);
/// How long a node may take to forget something, or to say what it has taken over.
const TOLD: Duration = Duration::from_secs(3);

/// How long a node may take to take manifests from others.
const TAKE: Duration = Duration::from_secs(60);

/// The caches of the mesh, as this node reaches them.
pub struct Caches {
    neighbours: Arc<Neighbours>,
    /// Whether the mesh was seen to have the feature level of caches, which it then has for good.
    seen: AtomicBool,
    /// The projects whose recorded content this node's cache has taken over since the start.
    moved: Mutex<BTreeSet<ProjectId>>,
}

impl Caches {
    /// Nothing was asked yet.
    pub fn new(neighbours: Arc<Neighbours>) -> Arc<Self> {
        Arc::new(Caches { neighbours, seen: AtomicBool::new(false), moved: Mutex::default() })
    }

    fn records(&self) -> &Records {
        &self.neighbours.records
    }

    /// Whether what is cached is here, and not in the ledger: this node is a replica, and the mesh
    /// has the feature level for it.
    pub fn are_used(&self) -> bool {
        let Some(ledger) = self.records().ledger() else { return false };
        if self.seen.load(Ordering::Relaxed) {
            return true;
        }
        let level = ledger.view().and_then(|view| view.level());
        let used = level.is_ok_and(|level| level >= Level::CACHES);
        self.seen.fetch_or(used, Ordering::Relaxed);
        used
    }

    /// This node's cache, and the origin of `project` in it.
    fn place(&self, project: &ProjectName) -> Option<(&Arc<CachedRecords>, Origin)> {
        let cached = self.records().cached()?;
        let view = self.records().view().ok()?;
        Some((cached, Origin::of_project(&*view, project).ok().flatten()?))
    }

    /// Caches a manifest whose bytes are known to be its digest's, and what the tag names that it
    /// was asked for by. If that fails, it is only not cached.
    pub async fn keep(
        &self,
        repository: &RepositoryName,
        digest: Digest,
        record: ManifestRecord,
        tag: Option<(Tag, TagRecord)>,
    ) {
        let Some((cached, origin)) = self.place(&repository.project()) else { return };
        let now = ground::clock::timestamp();
        let manifest = match CachedManifest::of(repository, digest, record) {
            Ok(manifest) => manifest,
            Err(error) => return warn!(%repository, %digest, %error, "it is not cached"),
        };
        let kept = vec![(manifest, tag.into_iter().collect())];
        if let Err(error) = cached.keep(origin, kept, move |_| now).await {
            warn!(%repository, %digest, %error, "a manifest could not be cached");
        }
    }

    /// Notes what the upstream says that a tag of a cached manifest names.
    pub async fn keep_tag(&self, repository: &RepositoryName, tag: &Tag, said: TagRecord) {
        let Some((cached, origin)) = self.place(&repository.project()) else { return };
        let kept = cached.keep_tag(origin, repository.clone(), tag.clone(), said);
        if let Err(error) = kept.await {
            warn!(%repository, %tag, %error, "what a tag names could not be noted");
        }
    }

    /// A cached manifest was served.
    pub fn touch(&self, repository: &RepositoryName, digest: &Digest) {
        if let Some((cached, origin)) = self.place(&repository.project()) {
            cached.touch(origin, repository, digest);
        }
    }

    /// A manifest that this node or another one has cached. One from another node is cached here,
    /// too. `near` asks the nodes of this region only.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        near: bool,
    ) -> Option<ManifestRecord> {
        let known = self.records().view().and_then(|view| view.manifest(repository, digest));
        if let Ok(Some(known)) = known {
            return Some(known);
        }
        if !self.are_used() {
            return None;
        }
        let question = Query::Key(key::manifest(repository, digest));
        let right = |found: &Found| {
            let record: ManifestRecord = value(found)?;
            (Digest::of(digest.algorithm(), &record.bytes) == *digest).then_some(record)
        };
        let record = self.first(&question, right, near).await?;
        self.keep(repository, *digest, record.clone(), None).await;
        Some(record)
    }

    /// Those of these manifests that no node that answers has cached.
    pub async fn nowhere(
        &self,
        manifests: Vec<(RepositoryName, Digest)>,
    ) -> BTreeMap<RepositoryName, Vec<Digest>> {
        let mut gone: BTreeMap<RepositoryName, Vec<Digest>> = BTreeMap::new();
        for (repository, digest) in manifests {
            if !self.is_anywhere(&repository, &digest).await {
                gone.entry(repository).or_default().push(digest);
            }
        }
        gone
    }

    /// Whether this node or another one that answers has cached the manifest. It is not taken over.
    async fn is_anywhere(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        let known = self.records().view().and_then(|view| view.has_manifest(repository, digest));
        if known.unwrap_or(true) {
            return true;
        }
        let question = Query::Key(key::manifest(repository, digest));
        let there = |found: &Found| value::<ManifestRecord>(found).map(|_| ());
        self.first(&question, there, false).await.is_some()
    }

    /// What a tag named last, as far as this node and those that answer know, whose manifest one of
    /// them has. It is noted here.
    pub async fn tag(&self, repository: &RepositoryName, tag: &Tag) -> Option<TagRecord> {
        let mine = self.records().view().and_then(|view| view.tag(repository, tag)).ok().flatten();
        if !self.are_used() {
            return mine;
        }
        let question = Query::Key(key::tag(repository, tag));
        let theirs = self.all(vec![question]).await;
        let theirs = theirs.into_iter().filter_map(|found| value(found.first()?));
        for said in newest_first(theirs.chain(mine)) {
            if self.manifest(repository, &said.digest, false).await.is_some() {
                self.keep_tag(repository, tag, said.clone()).await;
                return Some(said);
            }
        }
        None
    }

    /// Whether a cached manifest of `repository` links the blob, at this node or another one.
    pub async fn links(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        let mine = self.records().view().and_then(|view| view.linked(repository, digest));
        if mine.unwrap_or(false) {
            return true;
        }
        let question = Query::Key(key::link(repository, digest));
        let linked = |found: &Found| value::<u64>(found).map(|_| ());
        self.are_used() && self.first(&question, linked, false).await.is_some()
    }

    /// The first `limit` of the records under `prefix` after `after` that any node has cached,
    /// together with `mine`.
    pub async fn everywhere(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        mine: Vec<Pair>,
    ) -> Vec<Pair> {
        if !self.are_used() {
            return mine;
        }
        let theirs = self.all(vec![Query::scan(prefix, after, limit)]).await;
        let proxied = self.records().view().and_then(|view| Origin::all(&*view));
        let proxied: BTreeSet<ProjectName> =
            proxied.unwrap_or_default().into_iter().map(|(name, _)| name).collect();
        // of other projects only the ledger counts, and another node may not have applied all of it
        let fits = |key: &[u8]| {
            let cached = matches!(Owner::of(key), Owner::Project(name) if proxied.contains(&name));
            cached && key.starts_with(prefix) && after.is_none_or(|after| key > after)
        };
        theirs.iter().filter_map(|found| found.first()).fold(mine, |all, found| {
            let pairs = pairs_of(found).into_iter().filter(|(key, _)| fits(key));
            merged(pairs.collect(), all, limit)
        })
    }

    /// Which of `digests` anything refers to that is cached at this node or at one that answers.
    pub async fn refer(&self, digests: &[Digest]) -> Result<Vec<bool>, RecordError> {
        let mut referred = self.refer_here(digests)?;
        if !self.are_used() {
            return Ok(referred);
        }
        for (part, said) in digests.chunks(MAX_HAVE).zip(referred.chunks_mut(MAX_HAVE)) {
            let ask = || CacheAsk::Refers(part.to_vec());
            for answer in self.ask_all(ask, ALL).await {
                if let CacheAnswer::Refers(theirs) = answer
                    && theirs.len() == said.len()
                {
                    said.iter_mut().zip(theirs).for_each(|(said, theirs)| *said |= theirs);
                }
            }
        }
        Ok(referred)
    }

    fn refer_here(&self, digests: &[Digest]) -> Result<Vec<bool>, RecordError> {
        let Some(cached) = self.records().cached() else { return Ok(vec![false; digests.len()]) };
        let view = WithCached { ledger: NoRecords, cache: cached.view()? };
        digests.iter().map(|digest| Ok(view.get(&key::blob(digest))?.is_some())).collect()
    }

    /// Forgets a tag or manifest on every node that answers. Returns whether there was one.
    pub async fn forget(&self, repository: &RepositoryName, reference: &Reference) -> bool {
        let mine = self.forget_here(repository, reference).await;
        if !self.are_used() {
            return mine;
        }
        let ask =
            || CacheAsk::Forget { repository: repository.clone(), reference: reference.clone() };
        let theirs = self.ask_all(ask, TOLD).await;
        mine || theirs.into_iter().any(|answer| answer == CacheAnswer::Forgot(true))
    }

    async fn forget_here(&self, repository: &RepositoryName, reference: &Reference) -> bool {
        let Some((cached, origin)) = self.place(&repository.project()) else { return false };
        match cached.forget(origin, repository.clone(), reference.clone()).await {
            Ok(forgot) => forgot,
            Err(error) => {
                warn!(%repository, %reference, %error, "it could not be forgotten");
                false
            }
        }
    }

    /// Lets `node` cache manifests that this node has, and note what a tag names.
    pub async fn let_take(
        &self,
        node: NodeId,
        repository: &RepositoryName,
        manifests: &[Digest],
        tag: Option<(Tag, TagRecord)>,
    ) -> Result<(), String> {
        let (repository, manifests) = (repository.clone(), manifests.to_vec());
        let ask = CacheAsk::Take { repository, manifests, tag };
        match self.neighbours.links.ask(node, questions::Cached { ask }, TAKE).await {
            Ok(CacheAnswer::Taken(true)) => Ok(()),
            Ok(_) => Err("it could not cache all manifests".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn take_here(
        &self,
        repository: &RepositoryName,
        manifests: &[Digest],
        tag: Option<(Tag, TagRecord)>,
    ) -> bool {
        let mut all = manifests.len() <= MAX_HAVE;
        for digest in manifests.iter().take(MAX_HAVE) {
            all &= self.manifest(repository, digest, false).await.is_some();
        }
        if let Some((tag, said)) = tag {
            self.keep_tag(repository, &tag, said).await;
        }
        all
    }

    /// This node's cache has taken over what the ledger has recorded of a project's content.
    pub fn note_moved(&self, project: ProjectId) {
        self.moved.lock().insert(project);
    }

    /// Whether it has.
    pub fn has_moved(&self, project: ProjectId) -> bool {
        self.moved.lock().contains(&project)
    }

    /// Whether all live replicas say that they have taken it over. One that does not answer is
    /// waited for, until it counts as down.
    pub async fn all_have_moved(&self, project: &ProjectName) -> bool {
        let others = self.neighbours.alive().into_iter().filter(|c| c.id != self.neighbours.me);
        let others = others.count();
        let answers = self.ask_all(|| CacheAsk::Moved(project.clone()), TOLD).await;
        answers.iter().filter(|answer| **answer == CacheAnswer::Moved(true)).count() >= others
    }

    /// Answers another replica from what is cached here. `None` for [`CacheAsk::Resolve`], which is
    /// for the project's primary.
    pub async fn answer(&self, ask: CacheAsk) -> Result<Option<CacheAnswer>, RecordError> {
        Ok(Some(match ask {
            CacheAsk::Resolve { .. } => return Ok(None),
            CacheAsk::Find(queries) => CacheAnswer::Find(self.find_here(&queries)?),
            CacheAsk::Refers(digests) => CacheAnswer::Refers(self.refer_here(&digests)?),
            CacheAsk::Forget { repository, reference } => {
                CacheAnswer::Forgot(self.forget_here(&repository, &reference).await)
            }
            CacheAsk::Take { repository, manifests, tag } => {
                CacheAnswer::Taken(self.take_here(&repository, &manifests, tag).await)
            }
            CacheAsk::Moved(project) => {
                let project = self.records().view()?.project(&project)?;
                CacheAnswer::Moved(project.is_none_or(|project| self.has_moved(project.id)))
            }
        }))
    }

    fn find_here(&self, queries: &[Query]) -> Result<Vec<Found>, RecordError> {
        if queries.len() > MAX_QUESTIONS {
            return Err(RecordError(format!("more than {MAX_QUESTIONS} questions at once")));
        }
        let view = self.records().view()?;
        queries
            .iter()
            .map(|query| match rules::edges::may_look(query) {
                true => find(&*view, query),
                false => Err(RecordError("those records are not cached".into())),
            })
            .collect()
    }

    /// The first answer that is what was wanted: from the nodes of this region, else from others.
    async fn first<T>(
        &self,
        question: &Query,
        wanted: impl Fn(&Found) -> Option<T>,
        near: bool,
    ) -> Option<T> {
        let alive = self.neighbours.alive();
        let region = &self.neighbours.region;
        for round in placement::rounds(self.neighbours.me, region, &alive) {
            if near && !alive.iter().any(|c| round.contains(&c.id) && c.region == *region) {
                return None;
            }
            let mut answers: FuturesUnordered<_> =
                round.into_iter().map(|node| self.find_at(node, vec![question.clone()])).collect();
            let first = async {
                while let Some(found) = answers.next().await {
                    if let Some(wanted) = found.and_then(|found| wanted(found.first()?)) {
                        return Some(wanted);
                    }
                }
                None
            };
            if let Ok(Some(wanted)) = tokio::time::timeout(ROUND, first).await {
                metrics::counter!("atoll_cache_found_elsewhere_total").increment(1);
                return Some(wanted);
            }
        }
        None
    }

    /// The answers of all live replicas that give one.
    async fn all(&self, queries: Vec<Query>) -> Vec<Vec<Found>> {
        let answers = self.ask_all(|| CacheAsk::Find(queries.clone()), ALL).await;
        let found = answers.into_iter().filter_map(|answer| match answer {
            CacheAnswer::Find(found) => Some(found),
            _ => None,
        });
        found.collect()
    }

    async fn find_at(&self, node: NodeId, queries: Vec<Query>) -> Option<Vec<Found>> {
        let question = questions::Cached { ask: CacheAsk::Find(queries) };
        match self.neighbours.links.ask(node, question, ALL).await {
            Ok(CacheAnswer::Find(found)) => Some(found),
            Ok(_) => None,
            Err(error) => {
                debug!(%node, %error, "a node did not say what it has cached");
                None
            }
        }
    }

    async fn ask_all(&self, ask: impl Fn() -> CacheAsk, deadline: Duration) -> Vec<CacheAnswer> {
        let others = self.neighbours.alive().into_iter().filter(|c| c.id != self.neighbours.me);
        let asked = others.map(|other| {
            let question = questions::Cached { ask: ask() };
            self.neighbours.links.ask(other.id, question, deadline)
        });
        futures::future::join_all(asked).await.into_iter().filter_map(Result::ok).collect()
    }
}

/// No records at all.
struct NoRecords;

impl ReadRecords for NoRecords {
    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        Ok(None)
    }

    fn scan(&self, _: &[u8], _: Option<&[u8]>, _: usize) -> Result<Vec<Pair>, RecordError> {
        Ok(Vec::new())
    }
}

/// The record in an answer.
fn value<T: serde::de::DeserializeOwned>(found: &Found) -> Option<T> {
    match found {
        Found::Value(Some(value)) => decode(value).ok(),
        Found::Value(None) | Found::Pairs(_) | Found::Same => None,
    }
}
