//! Resolves tags and digests of proxy projects at the upstream, once for the whole mesh.
//!
//! The project's primary asks the upstream, remembers the answer for a while, and caches manifests
//! as they came. Bytes and indexes are never rewritten, and an index may list what was never
//! pulled. Each node caches what was pulled through it, and nodes ask each other ([`Caches`]). If
//! the upstream fails, what is cached is served and marked as old. If the primary cannot be
//! reached, a node asks the upstream itself and says so; it caches nothing of that.
//!
//! Below the feature level of caches the primary records manifests in the ledger instead, and every
//! node reads them there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::Tasks;
use parking_lot::Mutex;
use rules::ledger::records::{Look, ManifestRecord, Project, RecordError, TagRecord};
use rules::wire::{
    CacheAnswer, CacheAsk, CacheResolution, Referring, Resolution, WriteError, questions,
};
use rules::words::digest::Digest;
use rules::words::manifest::Manifest;
use rules::words::names::{Reference, RepositoryName};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::confirming::Confirming;
use super::listing::Lists;
use super::recording::{Recording, UpstreamManifest};
use super::{DENIED, PRIMARY, ProxyTerms, RETRY, Remembered, UPSTREAM, slow};
use crate::upstreams::Upstreams;
use crate::view::Records;
use crate::view::caches::Caches;
use crate::view::neighbours::Neighbours;
use crate::writes::Writes;
use upstream::budget::{AnswerTerms, Answers, Decision};
use upstream::{FetchedManifest, Resolved, Upstream, UpstreamError};

/// The maximum number of answers of upstreams that are remembered for each project.
const REMEMBERED: usize = 10_000;
/// How long that question may go on, each step of it: some registries take many seconds for what
/// they have not had asked for lately. An upstream that says nothing must end some time, since who
/// asks for the same waits for it.
pub const QUESTION: Duration = Duration::from_secs(15);
/// How long a replica may be behind the entry of the ledger that raised the feature level.
const LEVEL: Duration = Duration::from_millis(1000);
/// After this time without an answer of the upstream other nodes are asked for what they have.
const ELSEWHERE: Duration = Duration::from_millis(1000);
/// How long a client waits for another client's question. After that it still has time for a
/// question of its own.
const HANGS: Duration = Duration::from_millis(1100);

/// The primary's answer, or what this node got from the upstream itself because the primary gave
/// none.
pub enum Resolving {
    /// The primary's answer.
    Mesh(Answered),
    /// Directly from the upstream, and not cached.
    Direct(FetchedManifest),
}

/// What the project's primary says of a reference.
pub struct Answered {
    /// What it names.
    pub resolution: Resolution,
    /// The manifest that it names, if it came with the answer. Otherwise it is among this node's
    /// records.
    pub manifest: Option<ManifestRecord>,
    /// Whether the primary had it cached already.
    pub known: bool,
}

impl From<Resolution> for Answered {
    fn from(resolution: Resolution) -> Self {
        Answered { resolution, manifest: None, known: false }
    }
}

/// Limits the questions to an upstream about one thing. Normally one is asked at a time. If it
/// hangs, one more may be asked on another connection.
#[derive(Default)]
struct Turns {
    first: tokio::sync::Mutex<()>,
    second: tokio::sync::Mutex<()>,
}

impl Turns {
    async fn take(&self) -> tokio::sync::MutexGuard<'_, ()> {
        if let Ok(held) = tokio::time::timeout(HANGS, self.first.lock()).await {
            return held;
        }
        match self.second.try_lock() {
            Ok(held) => held,
            Err(_) => self.first.lock().await,
        }
    }
}

type Turn = Arc<Turns>;

/// Resolves references at upstreams.
pub struct Proxies {
    neighbours: Arc<Neighbours>,
    records: Records,
    caches: Arc<Caches>,
    upstreams: Arc<Upstreams>,
    confirming: Arc<Confirming>,
    lists: Arc<Lists>,
    tasks: Tasks,
    answers: Remembered<Answers>,
    turns: Mutex<HashMap<(RepositoryName, String), Turn>>,
    recording: Arc<Recording>,
}

impl Proxies {
    /// Nothing was asked yet.
    pub fn new(
        neighbours: Arc<Neighbours>,
        caches: Arc<Caches>,
        writes: Arc<Writes>,
        upstreams: Arc<Upstreams>,
        confirming: Arc<Confirming>,
        terms: ProxyTerms,
        tasks: Tasks,
    ) -> Arc<Self> {
        let freshness = AnswerTerms {
            found: terms.fresh_for,
            missing: terms.missing_for,
            retry: RETRY,
            most: REMEMBERED,
        };
        let answers = Remembered::new(upstreams.clone(), Answers::new(freshness));
        let lists = Lists::new(neighbours.clone(), upstreams.clone(), terms, tasks.clone());
        let recording = Recording::new(
            neighbours.records.clone(),
            caches.clone(),
            writes,
            upstreams.clone(),
            confirming.clone(),
            tasks.clone(),
        );
        Arc::new(Proxies {
            lists,
            records: neighbours.records.clone(),
            neighbours,
            caches,
            upstreams,
            confirming,
            tasks,
            answers,
            turns: Mutex::default(),
            recording,
        })
    }

    /// The clients for the upstreams.
    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// What the mesh has cached.
    pub fn caches(&self) -> &Arc<Caches> {
        &self.caches
    }

    /// Lists of tags.
    pub fn lists(&self) -> &Arc<Lists> {
        &self.lists
    }

    /// The manifests that refer to `subject` at the upstream. This node asks each time, because
    /// nothing recorded depends on the answer. An edge has no credentials, and asks the project's
    /// primary.
    pub async fn referrers(
        &self,
        project: &Project,
        repository: &RepositoryName,
        subject: &Digest,
        query: &str,
    ) -> Referring {
        if self.neighbours.is_edge() {
            let ask = questions::Referrers {
                repository: repository.clone(),
                subject: *subject,
                query: query.to_owned(),
            };
            match self.neighbours.links.ask(project.primary, ask, PRIMARY).await {
                Ok(referring) => return referring,
                Err(_) if self.upstreams.allowed() => {}
                Err(_) => {
                    return Referring::Failed("the project's primary cannot be reached".into());
                }
            }
        }
        self.referrers_here(repository, subject, query).await
    }

    /// The manifests that refer to `subject` at the upstream, asked by this node.
    pub async fn referrers_here(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        query: &str,
    ) -> Referring {
        let asked = async {
            let (upstream, there) =
                self.upstreams.admitted(repository)?.ok_or(UpstreamError::NotFound)?;
            upstream.referrers(&there, subject, query).await
        };
        match tokio::time::timeout(UPSTREAM, asked).await.unwrap_or_else(|_| Err(slow())) {
            Ok(page) => Referring::Page(page),
            // the registry has no such list, or does not know the API
            Err(
                error @ (UpstreamError::NotFound
                | UpstreamError::Denied(_)
                | UpstreamError::Unusable(_)
                | UpstreamError::Refused(_)
                | UpstreamError::Bad(_)),
            ) => Referring::Absent(error.to_string()),
            Err(error) => Referring::Failed(error.to_string()),
        }
    }

    /// Resolves `reference` at the upstream through the project's primary, wherever that is. If the
    /// primary has no answer, this node asks itself, in the other half of the time that a client
    /// waits.
    pub async fn resolve(
        self: &Arc<Self>,
        project: &Project,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Resolving {
        if let Reference::Digest(digest) = reference
            && self.caches.are_used()
            && let Some(manifest) = self.caches.manifest(repository, digest, true).await
        {
            let (resolution, manifest) = (Resolution::Fresh(*digest), Some(manifest));
            return Resolving::Mesh(Answered { resolution, manifest, known: true });
        }
        let mut project = project.clone();
        for _ in 0..2 {
            let Some(answered) = self.ask_primary(&project, repository, reference).await else {
                break;
            };
            match answered.resolution {
                Resolution::NotPrimary => {}
                Resolution::Unrecorded => break,
                _ => return Resolving::Mesh(answered),
            }
            match self.records.view().and_then(|view| view.project(&project.name)) {
                Ok(Some(now)) => project = now,
                _ => break,
            }
        }
        self.resolve_alone(repository, reference).await
    }

    /// The answer of the project's primary; `None` if it gives none. The manifest in it is cached
    /// here.
    async fn ask_primary(
        self: &Arc<Self>,
        project: &Project,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Option<Answered> {
        let links = &self.neighbours.links;
        if project.primary == self.neighbours.me {
            let known = self.known(repository, reference).is_some();
            let resolution = self.resolve_here(repository, reference).await;
            return Some(Answered { resolution, manifest: None, known });
        }
        if self.neighbours.members.down().contains(&project.primary) {
            return None;
        }
        if !self.caches.are_used() {
            let ask = questions::Resolve {
                repository: repository.clone(),
                reference: reference.to_string(),
            };
            let resolution = links.ask(project.primary, ask, PRIMARY).await.ok()?;
            self.catch_up(repository, &resolution).await;
            return Some(resolution.into());
        }
        let ask = CacheAsk::Resolve {
            repository: repository.clone(),
            reference: reference.clone(),
            has: self.known(repository, reference),
        };
        let answer = links.ask(project.primary, questions::Cached { ask }, PRIMARY).await.ok()?;
        let CacheAnswer::Resolve(named) = answer else { return None };
        let CacheResolution { resolution, manifest, tag, known } = *named;
        let (Resolution::Fresh(digest) | Resolution::Stale(digest, _)) = &resolution else {
            return Some(Answered { resolution, manifest: None, known });
        };
        let said = match (reference, tag) {
            (Reference::Tag(tag), Some(said)) if said.digest == *digest => {
                Some((tag.clone(), said))
            }
            _ => None,
        };
        match &manifest {
            Some(record) => {
                if Digest::of(digest.algorithm(), &record.bytes) != *digest {
                    warn!(primary = %project.primary, %digest, "the project's primary sent other bytes than the manifest's");
                    return None;
                }
                self.caches.keep(repository, *digest, record.clone(), said).await;
            }
            None => {
                if let Some((tag, said)) = said {
                    self.caches.keep_tag(repository, &tag, said).await;
                }
            }
        }
        Some(Answered { resolution, manifest, known })
    }

    /// The primary may have cached what it named, because the mesh has the feature level of caches
    /// and this replica does not know it yet. Then this replica learns it, and takes the manifest.
    async fn catch_up(&self, repository: &RepositoryName, resolution: &Resolution) {
        let (Resolution::Fresh(digest) | Resolution::Stale(digest, _)) = resolution else { return };
        let end = clock::now() + LEVEL;
        while !self.neighbours.is_edge() && !self.recording.cached(repository, digest) {
            let seen = self.records.version();
            if self.caches.are_used() {
                self.caches.manifest(repository, digest, false).await;
                return;
            }
            let left = end.since(clock::now());
            if left.is_zero() {
                return;
            }
            self.records.applied_more(seen, left).await;
        }
    }

    /// As the project's primary: the answer for another replica.
    pub async fn answer(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
        has: Option<Digest>,
    ) -> CacheAnswer {
        let known = self.known(repository, reference).is_some();
        let resolution = self.resolve_here(repository, reference).await;
        let view = self.records.view();
        let (mut manifest, mut tag) = (None, None);
        if let (Ok(view), Resolution::Fresh(digest) | Resolution::Stale(digest, _)) =
            (view, &resolution)
        {
            if has != Some(*digest) {
                manifest = view.manifest(repository, digest).ok().flatten();
            }
            self.caches.touch(repository, digest);
            if let Reference::Tag(name) = reference {
                tag = view.tag(repository, name).ok().flatten();
            }
        }
        CacheAnswer::Resolve(Box::new(CacheResolution { resolution, manifest, tag, known }))
    }

    /// The manifest for `reference` among this node's records, however old.
    fn known(&self, repository: &RepositoryName, reference: &Reference) -> Option<Digest> {
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => {
                let tag = self.records.view().and_then(|view| view.tag(repository, tag));
                tag.ok().flatten()?.digest
            }
        };
        self.recording.cached(repository, &digest).then_some(digest)
    }

    /// Whether answers of an upstream are to be recorded in the ledger, and this replica hears no
    /// majority of it.
    fn cut_off(&self) -> bool {
        self.records.ledger().is_some() && !self.records.connected() && !self.caches.are_used()
    }

    /// The primary cannot be reached or cannot record, so this node asks the upstream. Nothing is
    /// cached. If this fails, what is cached already is used.
    async fn resolve_alone(&self, repository: &RepositoryName, reference: &Reference) -> Resolving {
        if !self.upstreams.allowed() {
            let why = "this edge has no answer from the project's primary, nor may it ask the upstream itself (edge.upstream_fallback)";
            let error = UpstreamError::Unreachable(why.into());
            return Resolving::Mesh(self.fall_back(repository, reference, &error).await.into());
        }
        metrics::counter!("atoll_proxy_direct_total").increment(1);
        // what other nodes have is looked for at the same time: clients wait for both
        let kept = async {
            let kept = tokio::time::timeout(UPSTREAM, self.kept(repository, reference)).await;
            kept.ok().flatten()
        };
        let asked = self.ask_directly(repository, reference);
        tokio::pin!(kept, asked);
        let mut found = None;
        let error = loop {
            tokio::select! {
                asked = &mut asked => match asked {
                    Ok(fetched) => return Resolving::Direct(fetched),
                    Err(error) => break error,
                },
                kept = &mut kept, if found.is_none() => found = Some(kept),
            }
        };
        let kept = match found {
            Some(kept) => kept,
            None => kept.await,
        };
        let resolution = match error {
            UpstreamError::NotFound => Resolution::Missing,
            error => self.answer_without(repository, reference, &error, kept),
        };
        Resolving::Mesh(resolution.into())
    }

    async fn ask_directly(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<FetchedManifest, UpstreamError> {
        let Some((upstream, there)) = self.upstreams.of(repository)? else {
            return Err(UpstreamError::NotFound);
        };
        let written = reference.to_string();
        match tokio::time::timeout(UPSTREAM, upstream.manifest(&there, &written)).await {
            Ok(answered) => answered,
            Err(_) => {
                upstream.note_failure(&slow());
                Err(slow())
            }
        }
    }

    /// As the project's primary: resolves `reference` at the upstream. One question is asked for
    /// all clients that want to know.
    pub async fn resolve_here(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Resolution {
        if let Some(resolution) = self.remembered(repository, reference).await {
            return resolution;
        }
        if self.cut_off() {
            return Resolution::Unrecorded;
        }
        let (proxies, theirs, wanted) = (self.clone(), repository.clone(), reference.clone());
        let (mut answer, answered) = oneshot::channel();
        self.tasks.spawn("proxy.resolve", async move {
            if let Some(resolution) =
                proxies.resolve_to_the_end(&theirs, &wanted, &mut answer).await
            {
                let _ = answer.send(resolution);
            }
        });
        let end = clock::now() + UPSTREAM;
        let silent = async {
            // what other nodes have is here then
            if self.caches.are_used() && self.known(repository, reference).is_none() {
                tokio::time::sleep(ELSEWHERE).await;
                let left = end.since(clock::now());
                let _ = tokio::time::timeout(left, self.kept(repository, reference)).await;
            }
            tokio::time::sleep(end.since(clock::now())).await;
        };
        let answered = tokio::select! {
            answered = answered => Some(answered),
            () = silent => None,
        };
        match answered {
            Some(Ok(resolution)) => resolution,
            Some(Err(_)) => Resolution::Failed("the node is stopping".into()),
            // the upstream may have answered, but the majority was lost meanwhile
            None if self.cut_off() => Resolution::Unrecorded,
            None => {
                // later clients need not wait as long for what is cached
                self.answers.lock().handle_failure(
                    clock::now(),
                    repository.as_str(),
                    &reference.to_string(),
                );
                self.answer_without(
                    repository,
                    reference,
                    &slow(),
                    self.known(repository, reference),
                )
            }
        }
    }

    /// Asks one question at a time about one thing. If `asker` goes away, a question that was begun
    /// continues, but none is begun.
    async fn resolve_to_the_end(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
        asker: &mut oneshot::Sender<Resolution>,
    ) -> Option<Resolution> {
        let written = reference.to_string();
        let turn =
            self.turns.lock().entry((repository.clone(), written.clone())).or_default().clone();
        let held = tokio::select! {
            held = turn.take() => Some(held),
            () = asker.closed() => None,
        };
        let resolution = match held {
            Some(_held) => Some(self.resolve_in_turn(repository, reference, &written).await),
            None => None,
        };
        let mut turns = self.turns.lock();
        // two references, the map's and this one: no other question waits
        if Arc::strong_count(&turn) <= 2 {
            turns.remove(&(repository.clone(), written));
        }
        resolution
    }

    /// The answer that can be given without asking the upstream.
    async fn remembered(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Option<Resolution> {
        if let Reference::Digest(digest) = reference
            && self.recording.cached(repository, digest)
        {
            return Some(Resolution::Fresh(*digest));
        }
        // this notices a changed registry, after which no answer is remembered
        let _ = self.upstreams.of(repository);
        let decision =
            self.answers.lock().decide(clock::now(), repository.as_str(), &reference.to_string());
        match decision {
            Decision::Missing => Some(self.gone(repository, reference).await),
            Decision::Denied(why) => Some(match self.kept(repository, reference).await {
                Some(digest) => Resolution::Stale(digest, why.to_string()),
                None => Resolution::Denied(why.to_string()),
            }),
            Decision::Fresh(known) if self.recording.cached(repository, &known.digest) => {
                Some(Resolution::Fresh(known.digest))
            }
            Decision::Stale(known) if self.recording.cached(repository, &known.digest) => {
                Some(Resolution::Stale(known.digest, "the upstream failed a moment ago".into()))
            }
            Decision::Ask { .. } | Decision::Fresh(_) | Decision::Stale(_) => None,
        }
    }

    async fn resolve_in_turn(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
        written: &str,
    ) -> Resolution {
        // the question before this one may have been the same
        if let Some(resolution) = self.remembered(repository, reference).await {
            return resolution;
        }
        if let Reference::Digest(digest) = reference
            && self.caches.manifest(repository, digest, false).await.is_some()
        {
            return Resolution::Fresh(*digest);
        }
        match self.ask_upstream(repository, reference, written).await {
            Ok(Ok(resolved)) => {
                let digest = resolved.digest;
                self.answers.lock().handle_answer(
                    clock::now(),
                    repository.as_str(),
                    written,
                    Some(resolved),
                );
                Resolution::Fresh(digest)
            }
            Ok(Err(WriteError::NotPrimary)) => Resolution::NotPrimary,
            Ok(Err(WriteError::Ledger(error))) => {
                warn!(%repository, %reference, %error, "what the upstream has could not be recorded");
                Resolution::Unrecorded
            }
            Ok(Err(error)) => Resolution::Failed(format!(
                "what the upstream has could not be recorded: {error:?}"
            )),
            Err(UpstreamError::NotFound) => {
                self.answers.lock().handle_answer(clock::now(), repository.as_str(), written, None);
                self.gone(repository, reference).await
            }
            Err(error) => {
                let resolution = self.fall_back(repository, reference, &error).await;
                let mut answers = self.answers.lock();
                match &resolution {
                    Resolution::Denied(why) => {
                        answers.handle_denial(
                            clock::now(),
                            repository.as_str(),
                            written,
                            why.as_str().into(),
                        );
                    }
                    _ => answers.handle_failure(clock::now(), repository.as_str(), written),
                }
                resolution
            }
        }
    }

    /// Asks what `reference` is, fetches the manifest if no node has it, and caches what has changed.
    async fn ask_upstream(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
        written: &str,
    ) -> Result<Result<Resolved, WriteError>, UpstreamError> {
        let Some((upstream, there)) = self.upstreams.admitted(repository)? else {
            return Err(UpstreamError::NotFound);
        };
        let (mut resolved, mut fetched) = match reference {
            Reference::Tag(_) => (upstream.resolve(&there, written).await?, None),
            Reference::Digest(_) => {
                let fetched = upstream.manifest(&there, written).await?;
                (fetched.resolved(), Some(fetched))
            }
        };
        let tag = match reference {
            Reference::Tag(tag) => Some(tag.clone()),
            Reference::Digest(_) => None,
        };
        let recorded_as = |digest: &Digest| -> Result<_, RecordError> {
            let view = self.records.view()?;
            let tagged = tag.as_ref().map(|tag| view.tag(repository, tag)).transpose()?.flatten();
            let tagged = tag.is_none() || tagged.is_some_and(|tag| tag.digest == *digest);
            Ok((view.manifest(repository, digest)?, tagged))
        };
        let recorded_as = |digest: &Digest| {
            recorded_as(digest).map_err(|e| UpstreamError::Unreachable(e.to_string().into()))
        };
        let (mut known, mut tagged) = recorded_as(&resolved.digest)?;
        let mut elsewhere = None;
        if known.is_none() && fetched.is_none() {
            // another node may have it from the time when it was the primary
            elsewhere = self.caches.manifest(repository, &resolved.digest, false).await;
            if elsewhere.is_none() {
                let came = manifest_of(&upstream, &there, written, &resolved.digest).await?;
                if came.digest != resolved.digest {
                    resolved = came.resolved();
                    (known, tagged) = recorded_as(&resolved.digest)?;
                }
                fetched = Some(came);
            }
        }
        if let (Some(_), Some(tag), true) = (&known, &tag, self.caches.are_used()) {
            // the upstream has just said so; of two nodes' records the newer one counts
            let said = TagRecord { digest: resolved.digest, pushed: clock::timestamp() };
            self.caches.keep_tag(repository, tag, said).await;
        }
        if tagged && known.as_ref().is_some_and(|manifest| !Recording::misses(manifest)) {
            return Ok(Ok(resolved));
        }
        let known = known.or(elsewhere);
        let recorded = known.is_some() && tagged;
        let (media_type, bytes) = match (known, fetched) {
            (Some(manifest), _) => (manifest.media_type, manifest.bytes),
            (None, Some(fetched)) => (fetched.media_type, fetched.bytes.to_vec()),
            (None, None) => return Err(UpstreamError::NotFound),
        };
        let manifest = Manifest::read_served(&media_type, &bytes).map_err(UpstreamError::bad)?;
        let unlinked =
            self.confirming.unlinked(repository, &manifest).map_err(UpstreamError::bad)?;
        let unconfirmed =
            match self.confirming.unconfirmed(repository, &upstream, &there, &manifest).await {
                Ok(unconfirmed) => unconfirmed,
                // only more of it could have been linked
                Err(_) if recorded => return Ok(Ok(resolved)),
                Err(error) => return Err(error),
            };
        if unconfirmed.pending && !recorded {
            self.recording.confirm_later(repository, resolved.digest);
        }
        if recorded && unlinked.is_subset(&unconfirmed.blobs) {
            return Ok(Ok(resolved));
        }
        let found = UpstreamManifest { digest: resolved.digest, media_type, bytes, manifest, tag };
        let put = self.recording.record(repository, found, &unconfirmed.blobs).await;
        info!(%repository, reference = written, digest = %resolved.digest, ok = put.is_ok(), "upstream resolved");
        Ok(put.map(|()| resolved))
    }

    /// The answer if the upstream does not have it (any more): that it is missing, or what is
    /// cached, if the project is configured so.
    async fn gone(&self, repository: &RepositoryName, reference: &Reference) -> Resolution {
        let project = self.records.view().and_then(|view| view.project(&repository.project()));
        if !project.is_ok_and(|project| project.is_some_and(|p| p.proxy.local_on_not_found)) {
            return Resolution::Missing;
        }
        match self.fall_back(repository, reference, &UpstreamError::NotFound).await {
            Resolution::Failed(_) => Resolution::Missing,
            cached => cached,
        }
    }

    /// The answer if the upstream fails: what is cached, marked as old; otherwise that it failed or
    /// denied access.
    async fn fall_back(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        error: &UpstreamError,
    ) -> Resolution {
        let kept = self.kept(repository, reference).await;
        self.answer_without(repository, reference, error, kept)
    }

    /// The same, where `kept` is what is cached.
    fn answer_without(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        error: &UpstreamError,
        kept: Option<Digest>,
    ) -> Resolution {
        metrics::counter!("atoll_proxy_stale_total").increment(1);
        warn!(%repository, %reference, %error, cached = kept.is_some(), "the upstream could not be asked");
        match (kept, error) {
            (Some(digest), _) => Resolution::Stale(digest, error.to_string()),
            // waiting does not help: an operator or the upstream's owner has to act first, and
            // clients show the reason
            (None, UpstreamError::Denied(_)) => Resolution::Denied(format!("{error} ({DENIED})")),
            (None, UpstreamError::Unusable(_) | UpstreamError::Refused(_)) => {
                Resolution::Denied(error.to_string())
            }
            (None, _) => Resolution::Failed(error.to_string()),
        }
    }

    /// The cached manifest for `reference`, however old, which is here then. If several nodes know
    /// what a tag named, the upstream's last word counts.
    async fn kept(&self, repository: &RepositoryName, reference: &Reference) -> Option<Digest> {
        if self.caches.are_used() {
            match reference {
                Reference::Digest(digest) => {
                    self.caches.manifest(repository, digest, false).await?;
                }
                Reference::Tag(tag) => {
                    self.caches.tag(repository, tag).await?;
                }
            }
        }
        self.known(repository, reference)
    }
}

/// The manifest that the upstream's `tag` is, which is `told` according to the answer to a HEAD. If
/// the upstream does not give that, the tag is whatever the upstream gives for it: the answer to a
/// HEAD may be wrong, or the tag may have moved since.
async fn manifest_of(
    upstream: &Upstream,
    there: &str,
    tag: &str,
    told: &Digest,
) -> Result<FetchedManifest, UpstreamError> {
    match upstream.manifest(there, &told.to_string()).await {
        Err(UpstreamError::NotFound | UpstreamError::Bad(_)) => upstream.manifest(there, tag).await,
        fetched => fetched,
    }
}
