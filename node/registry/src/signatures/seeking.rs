//! Signatures of images that proxy projects have cached, asked of their upstreams.
//!
//! A pull that its project would refuse asks for this, at whichever node. The project's primary asks the
//! upstream, once for the whole mesh: for cosign's tags, and for what refers to the image. What it finds
//! is cached as what clients pull, verified as what they push, and recorded in the ledger. For a while
//! after that it knows the answer. How much is asked, how often and by whom has limits; the upstream's
//! own are kept by its client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ground::clock;
use ground::supervise::at_length;
use mesh::links::LinkError;
use parking_lot::Mutex;
use rules::ledger::cached_signatures::{
    AT_ONCE, LookForCachedSignatures, MOST_FOUND, MOST_KNOWN, key,
};
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, Project, RecordError, decode, key as records_key};
use rules::ledger::signatures::{
    LookForSignatures, SignatureChange, Unverified, key as signed_key,
};
use rules::policies::signatures::{Evidence, Fault, SignatureRecord, is_evidence};
use rules::proxies::budget::{BudgetTerms, Budgets, client_of};
use rules::proxies::places::{PlaceTerms, Places};
use rules::proxies::tags::RecentAnswers;
use rules::wire::{Referring, Resolution, Sought, questions};
use rules::words::digest::Digest;
use rules::words::fallback::{Fallback, tags_about};
use rules::words::manifest::Referrer;
use rules::words::names::{NodeId, ProjectId, Reference, RepositoryName, Tag};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;
use tracing::{debug, info};

use super::verifying::Allowance;
use super::{Signatures, Waiting};
use crate::proxies::resolving::Proxies;
use crate::proxies::under_way::UnderWay;

/// How many images each node may have sought in a project: at once, and more in each minute.
const ASKED: BudgetTerms = BudgetTerms { burst: 200, per_minute: 120 };
/// How many of these one client may cause.
const ASKED_BY_ONE: BudgetTerms = BudgetTerms { burst: 100, per_minute: 60 };
/// The maximum number of images that wait or are sought, of all projects and of one. Each project, and
/// each client in it, has a share of the places.
const PLACES: PlaceTerms =
    PlaceTerms { all: 256, of_a_project: 64, at_a_time: 16, of_a_project_at_a_time: 4 };
/// The maximum number of artifacts of one image that are fetched at a time.
const FETCHED: usize = 4;
/// How long one image may take.
const LONGEST: Duration = Duration::from_secs(30);
/// After a failure the upstream is not asked about the same image for this long.
const RETRY: Duration = Duration::from_secs(5);
/// The maximum number of pages of a list of referrers that are read.
const PAGES: usize = 4;
/// The maximum length of an artifact's manifest in bytes.
const LARGEST: u64 = 1 << 20;
/// The maximum number of bytes of all artifacts of one image, with their blobs. Somewhat more may
/// arrive, because manifests are as long as the upstream has them.
const OF_ONE_IMAGE: u64 = 16 << 20;
/// The maximum number of bytes of answers that are remembered, and what one costs beside its name.
const REMEMBERED: usize = 4 << 20;
/// See [`REMEMBERED`].
const OVERHEAD: usize = 256;
/// The time between two looks for what nobody has cached any more.
const LOOK: Duration = Duration::from_secs(10);
/// The maximum number of images for which other nodes are asked in one look.
const LOOKED_FOR: usize = 50;
/// The artifact type that cosign writes into the tag of a registry without a list of referrers, whatever
/// the artifact is.
const UNTOLD: &str = "application/vnd.oci.empty.v1+json";

/// An image.
type Image = (RepositoryName, Digest);

/// What the upstream was asked about, and what came of that.
#[derive(Clone)]
struct Asked {
    /// What was trusted then.
    anchors: u64,
    /// How many registries had been changed then.
    replaced: u64,
    /// Why the upstream could not be asked, if it could not.
    failed: Option<String>,
}

/// Asks upstreams for signatures.
pub struct Seeking {
    signatures: Arc<Signatures>,
    proxies: Arc<Proxies>,
    /// How long an answer counts.
    missing_for: Duration,
    under_way: Mutex<UnderWay<Image, Sought>>,
    lately: Mutex<RecentAnswers<Image, Asked>>,
    budgets: Mutex<Budgets<(NodeId, ProjectId)>>,
    of_clients: Mutex<Budgets<(IpAddr, ProjectId)>>,
    turns: Arc<Mutex<Turns>>,
}

/// The places of questions, and who waits for a turn.
struct Turns {
    places: Places<ProjectId, IpAddr>,
    waiting: HashMap<u64, oneshot::Sender<()>>,
}

impl Turns {
    /// Tells those whose turn it is.
    fn begin(&mut self) {
        for number in self.places.begin() {
            if let Some(turn) = self.waiting.remove(&number) {
                let _ = turn.send(());
            }
        }
    }
}

/// A place of a question. It is free when this is dropped.
struct Place {
    turns: Arc<Mutex<Turns>>,
    number: u64,
    turn: Option<oneshot::Receiver<()>>,
}

impl Place {
    /// Waits until it is this question's turn.
    async fn turn(&mut self) {
        if let Some(turn) = self.turn.take() {
            let _ = turn.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut turns = self.turns.lock();
        turns.waiting.remove(&self.number);
        turns.places.leave(self.number);
        turns.begin();
    }
}

/// What the upstream has about an image, as far as it could be asked.
#[derive(Default)]
struct Listed {
    artifacts: Vec<(Digest, Option<Tag>)>,
    failed: Option<String>,
}

impl Listed {
    fn add(&mut self, artifact: (Digest, Option<Tag>)) {
        if self.artifacts.len() < MOST_FOUND && !self.artifacts.contains(&artifact) {
            self.artifacts.push(artifact);
        }
    }
}

impl Seeking {
    /// Nothing was asked yet. An answer counts for `missing_for`.
    pub fn new(
        signatures: Arc<Signatures>,
        proxies: Arc<Proxies>,
        missing_for: Duration,
    ) -> Arc<Self> {
        Arc::new(Seeking {
            signatures,
            proxies,
            missing_for,
            under_way: Mutex::new(UnderWay::new(PLACES.all)),
            lately: Mutex::new(RecentAnswers::new(REMEMBERED)),
            budgets: Mutex::new(Budgets::new(ASKED)),
            of_clients: Mutex::new(Budgets::new(ASKED_BY_ONE)),
            turns: Arc::new(Mutex::new(Turns {
                places: Places::new(PLACES),
                waiting: HashMap::new(),
            })),
        })
    }

    /// Begins to forget what nobody has cached any more. An edge has nothing to forget.
    pub fn start(self: &Arc<Self>) {
        if !self.signatures.neighbours.is_edge() {
            let one = self.clone();
            self.signatures
                .tasks
                .spawn("signatures.forget", async move { one.forget_uncached().await });
        }
    }

    /// Has the project's primary ask the upstream for signatures of an image that this client wants.
    /// `None` if there is no answer within this time; it goes on then.
    pub async fn seek(
        self: &Arc<Self>,
        project: &Project,
        (repository, digest): (&RepositoryName, &Digest),
        client: IpAddr,
        within: Duration,
    ) -> Option<Sought> {
        let (neighbours, client) = (&self.signatures.neighbours, client_of(client));
        if project.primary == neighbours.me {
            let sought = self.seek_here((neighbours.me, client), repository, digest);
            return tokio::time::timeout(within, sought).await.ok();
        }
        let away = || Some(Sought::Failed("the project's primary cannot be reached".into()));
        if neighbours.members.down().contains(&project.primary) {
            return away();
        }
        let ask = questions::Seek { repository: repository.clone(), digest: *digest, client };
        match neighbours.links.ask(project.primary, ask, within).await {
            Ok(sought) => Some(sought),
            Err(LinkError::Deadline) => None,
            Err(error) => {
                debug!(%repository, %digest, %error, "signatures could not be asked for");
                away()
            }
        }
    }

    /// As the project's primary: asks the upstream for signatures of an image, because a client of the
    /// asking node wants it.
    pub async fn seek_here(
        self: &Arc<Self>,
        (asker, client): (NodeId, IpAddr),
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Sought {
        let (project, anchors) = match at_length(|| self.wanting(repository)) {
            Ok(Some(wanting)) => wanting,
            Ok(None) => return Sought::Failed("this node does not judge it".into()),
            Err(error) => return Sought::Failed(error.to_string()),
        };
        let image = (repository.clone(), *digest);
        let replaced = self.proxies.upstreams().replaced();
        let lately = self.lately.lock().get(clock::now(), &image).cloned();
        let counts = |asked: &Asked| (asked.anchors, asked.replaced) == (anchors, replaced);
        if let Some(asked) = lately.filter(counts) {
            return asked.failed.map_or(Sought::Known, Sought::Failed);
        }
        let joined = self.under_way.lock().join(&image);
        let Some((mut heard, unasked)) = joined else { return Sought::Busy };
        if let Some(answer) = unasked {
            let Some(mut place) = self.enter(project.id, asker, client) else {
                answer.send_replace(Some(Sought::Busy));
                self.under_way.lock().leave(&image);
                return Sought::Busy;
            };
            let seeking = self.clone();
            self.signatures.tasks.spawn("signatures.seek", async move {
                place.turn().await;
                let (sought, failed) = seeking.look(&project, &image).await;
                drop(place);
                let result = match (&sought, &failed) {
                    (Sought::Found, _) => "found",
                    (_, Some(_)) => "failed",
                    _ => "nothing",
                };
                metrics::counter!("atoll_signatures_sought_total", "result" => result).increment(1);
                let time = if failed.is_some() { RETRY } else { seeking.missing_for };
                let size = OVERHEAD + image.0.as_str().len();
                let asked = Asked { anchors, replaced, failed };
                let mut lately = seeking.lately.lock();
                lately.remember(clock::now(), image.clone(), asked, size, time);
                drop(lately);
                seeking.under_way.lock().leave(&image);
                answer.send_replace(Some(sought));
            });
        }
        let heard = heard.wait_for(Option::is_some).await;
        let sought = heard.ok().and_then(|answer| answer.clone());
        sought.unwrap_or_else(|| Sought::Failed("the node is stopping".into()))
    }

    /// A place for a question of this client, which is one of `asker`; `None` if one of them has as many
    /// as it may have, or has asked too often.
    fn enter(&self, project: ProjectId, asker: NodeId, client: IpAddr) -> Option<Place> {
        let now = clock::now();
        let place = {
            let (mut turns, (tell, turn)) = (self.turns.lock(), oneshot::channel());
            let number = turns.places.enter(&project, &client)?;
            turns.waiting.insert(number, tell);
            turns.begin();
            Place { turns: self.turns.clone(), number, turn: Some(turn) }
        };
        self.of_clients.lock().take(now, &(client, project)).ok()?;
        if self.budgets.lock().take(now, &(asker, project)).is_err() {
            self.of_clients.lock().give_back(&(client, project));
            return None;
        }
        Some(place)
    }

    /// The project, if it demands signatures of what it caches, and this node is its primary; and the
    /// number of the last change of whom it trusts.
    fn wanting(&self, repository: &RepositoryName) -> Result<Option<(Project, u64)>, RecordError> {
        let neighbours = &self.signatures.neighbours;
        let view = neighbours.records.view()?;
        let Some(project) = view.project(&repository.project())? else { return Ok(None) };
        if project.primary != neighbours.me
            || project.upstream.is_none()
            || view.level()? < Level::CACHED_SIGNATURES
            || view.signature_policy_of(&project)?.is_none()
        {
            return Ok(None);
        }
        let anchors = view.trusted(project.id)?.anchors;
        Ok(Some((project, anchors)))
    }

    /// Looks for signatures, verifies and records them. Returns what came of it, and why the upstream
    /// could not be asked for all, if it could not.
    async fn look(&self, project: &Project, image: &Image) -> (Sought, Option<String>) {
        match tokio::time::timeout(LONGEST, self.look_now(project, image)).await {
            Ok(Ok((true, failed))) => (Sought::Found, failed),
            Ok(Ok((false, None))) => (Sought::Nothing, None),
            Ok(Ok((false, Some(why))) | Err(why)) => (Sought::Failed(why.clone()), Some(why)),
            Err(_) => {
                let why = "the upstream did not answer in time".to_owned();
                (Sought::Failed(why.clone()), Some(why))
            }
        }
    }

    /// Whether something new was found, and why not all could be asked for.
    async fn look_now(
        &self,
        project: &Project,
        image: &Image,
    ) -> Result<(bool, Option<String>), String> {
        let ((repository, digest), allowance) = (image, &Allowance::new(OF_ONE_IMAGE));
        // what an index lists is read out of it, so it has to be here before its signatures are
        if self.proxies.caches().manifest(repository, digest, false).await.is_none() {
            match self.proxies.resolve_here(repository, &Reference::Digest(*digest)).await {
                Resolution::Fresh(_) | Resolution::Stale(..) => {}
                Resolution::Missing | Resolution::Denied(_) => return Ok((false, None)),
                other => return Err(failure(other)),
            }
        }
        let Listed { artifacts, mut failed } = self.list(image, allowance).await;
        let verified = artifacts.into_iter().map(|(manifest, tag)| async move {
            let what = Unverified { repository: repository.clone(), manifest, tag };
            let one = Waiting { project: project.clone(), number: None, what };
            self.signatures.verify(&one, true, allowance).await
        });
        let verified: Vec<_> =
            futures::stream::iter(verified).buffer_unordered(FETCHED).collect().await;
        let (mut found, mut listed) = (Vec::new(), Vec::new());
        for one in verified {
            match one {
                Ok(Some(SignatureChange::Verified { subject, children, evidence, .. }))
                    if subject == *digest =>
                {
                    found.push(evidence);
                    listed = children;
                }
                // it is about another image, or has no signatures
                Ok(_) => {}
                Err(error) => failed = Some(error.to_string()),
            }
        }
        let is_missing = |one: &Evidence| {
            one.signatures.iter().any(|s| s.signature.fault == Some(Fault::Missing))
        };
        if found.iter().any(is_missing) {
            failed.get_or_insert_with(|| "a blob of a signature cannot be had".into());
        }
        found.sort_by_key(|one| (one.tag.is_none(), one.manifest));
        let known = at_length(|| {
            self.signatures.neighbours.records.view()?.signatures_of(repository, digest)
        });
        if !is_news(&known.map_err(|e| e.to_string())?, &found, &listed) {
            return Ok((false, failed));
        }
        let count = found.len();
        let change = SignatureChange::FoundCached {
            repository: repository.clone(),
            subject: *digest,
            children: listed,
            evidence: found,
        };
        let recorded = self.signatures.commit(change, &Actor::mesh()).await;
        recorded.map_err(|refusal| refusal.to_string())?;
        info!(%repository, %digest, count, "signatures of a cached image were found");
        Ok((true, failed))
    }

    /// What the upstream has about an image that may have signatures. If it cannot be asked, what is
    /// cached of that.
    async fn list(&self, image: &Image, allowance: &Allowance) -> Listed {
        let (repository, digest) = image;
        let (mut listed, mut signed, mut of_all) = (Listed::default(), Vec::new(), None);
        for tag in tags_about(digest) {
            let ending = Fallback::of(&tag).map(|of| of.ending.to_owned());
            match ending.as_deref() {
                Some(".sig" | ".att") => signed.push(tag),
                Some("") => of_all = Some(tag),
                _ => {}
            }
        }
        let signed = signed.into_iter().map(|tag| async move {
            let named = self.named(repository, &tag).await;
            (tag, named)
        });
        let signed = futures::future::join_all(signed);
        let (signed, referring) = tokio::join!(signed, self.referring(repository, digest));
        for (tag, named) in signed {
            match named {
                Ok(Some(manifest)) if self.fits(repository, &manifest, allowance) => {
                    listed.add((manifest, Some(tag)));
                }
                Ok(_) => {}
                Err(why) => listed.failed = Some(why),
            }
        }
        let referring = match referring {
            Ok(Some(referring)) => referring,
            Ok(None) => match of_all {
                Some(tag) => self.behind(repository, &tag, &mut listed).await,
                None => Vec::new(),
            },
            Err(why) => {
                listed.failed = Some(why);
                self.known_referrers(repository, digest)
            }
        };
        // each manifest is here before it is verified
        let fetched = referring.into_iter().take(MOST_FOUND).map(|manifest| async move {
            let reference = Reference::Digest(manifest);
            let resolution = match allowance.is_used_up() {
                true => Resolution::Missing,
                false => self.proxies.resolve_here(repository, &reference).await,
            };
            let is_there = matches!(resolution, Resolution::Fresh(_) | Resolution::Stale(..));
            let fits = is_there && self.fits(repository, &manifest, allowance);
            (manifest, resolution, fits)
        });
        let fetched: Vec<_> = futures::stream::iter(fetched).buffered(FETCHED).collect().await;
        for (manifest, resolution, fits) in fetched {
            match resolution {
                Resolution::Fresh(_) | Resolution::Stale(..) if fits => {
                    listed.add((manifest, None));
                }
                Resolution::Fresh(_) | Resolution::Stale(..) => {}
                Resolution::Missing | Resolution::Denied(_) => {}
                other => listed.failed = Some(failure(other)),
            }
        }
        listed
    }

    /// Whether the manifest, which is cached here, is no longer than it may be, whatever the upstream
    /// has said, and there is still room for it.
    fn fits(&self, repository: &RepositoryName, digest: &Digest, allowance: &Allowance) -> bool {
        let record =
            at_length(|| self.signatures.neighbours.records.view()?.manifest(repository, digest));
        let length = record.ok().flatten().map_or(0, |record| record.bytes.len() as u64);
        length <= LARGEST && allowance.take(length)
    }

    /// What a tag names upstream, which is cached then.
    async fn named(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, String> {
        match self.proxies.resolve_here(repository, &Reference::Tag(tag.clone())).await {
            Resolution::Fresh(digest) | Resolution::Stale(digest, _) => Ok(Some(digest)),
            Resolution::Missing | Resolution::Denied(_) => Ok(None),
            other => Err(failure(other)),
        }
    }

    /// The artifacts in the upstream's list of referrers that may have signatures; `None` if it has no
    /// such list.
    async fn referring(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Vec<Digest>>, String> {
        let (mut all, mut query) = (Vec::new(), String::new());
        for _ in 0..PAGES {
            match self.proxies.referrers_here(repository, digest, &query).await {
                Referring::Page(page) => {
                    all.extend(candidates(&page.index));
                    match page.next {
                        Some(next) if all.len() < MOST_FOUND => query = next,
                        _ => break,
                    }
                }
                Referring::Absent(_) => return Ok(None),
                Referring::Failed(why) => return Err(why),
            }
        }
        Ok(Some(all))
    }

    /// The same of a registry without that list: what is in the index behind a tag.
    async fn behind(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        listed: &mut Listed,
    ) -> Vec<Digest> {
        match self.named(repository, tag).await {
            Ok(Some(index)) => {
                let caches = self.proxies.caches();
                let index = caches.manifest(repository, &index, false).await;
                index.map(|index| candidates(&index.bytes)).unwrap_or_default()
            }
            Ok(None) => Vec::new(),
            Err(why) => {
                listed.failed = Some(why);
                Vec::new()
            }
        }
    }

    /// The artifacts of which this node has cached that they refer to an image.
    fn known_referrers(&self, repository: &RepositoryName, digest: &Digest) -> Vec<Digest> {
        let read = at_length(|| {
            let view = self.signatures.neighbours.records.view()?;
            let all =
                view.scan(&records_key::referrers(repository, digest), None, 4 * MOST_FOUND)?;
            let all = all.iter().map(|(_, one)| decode::<Referrer>(one));
            all.collect::<Result<Vec<_>, RecordError>>()
        });
        let known = read.unwrap_or_default().into_iter();
        let known = known.filter(|one| is_evidence(one.artifact_type.as_deref()));
        known.map(|one| one.digest).collect()
    }

    async fn forget_uncached(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.forget_uncached_now().await {
                debug!(error, "what is known of cached images could not be looked through");
            }
        }
    }

    async fn forget_uncached_now(&self) -> Result<(), String> {
        let missing = at_length(|| self.not_cached_here()).map_err(|e| e.to_string())?;
        for (repository, digests) in self.proxies.caches().nowhere(missing).await {
            for some in digests.chunks(AT_ONCE) {
                let count = some.len();
                let (repository, digests) = (repository.clone(), some.to_vec());
                info!(%repository, count, "signatures of images are forgotten: nobody has them");
                let change = SignatureChange::ForgetCached { repository, digests };
                let forgotten = self.signatures.commit(change, &Actor::mesh()).await;
                forgotten.map_err(|refusal| refusal.to_string())?;
            }
        }
        Ok(())
    }

    /// Images of whose signatures something is known, and whose manifest this node, the primary, does
    /// not have. What somebody has exempted is not forgotten before that ends.
    fn not_cached_here(&self) -> Result<Vec<Image>, RecordError> {
        let neighbours = &self.signatures.neighbours;
        let view = neighbours.records.view()?;
        let (mut missing, now) = (Vec::new(), clock::timestamp());
        if view.level()? < Level::CACHED_SIGNATURES {
            return Ok(missing);
        }
        let is_own = |one: &Project| one.primary == neighbours.me && one.upstream.is_some();
        for project in view.projects()?.into_iter().filter(is_own) {
            let most = usize::try_from(MOST_KNOWN).unwrap_or(usize::MAX);
            for (_, place) in view.scan(&key::all_known(project.id), None, most)? {
                let Some((repository, digest)) = signed_key::signed(&place) else { continue };
                let is_exempt = |known: SignatureRecord| {
                    known.exempt.is_some_and(|exemption| now < exemption.until)
                };
                if missing.len() < LOOKED_FOR
                    && !view.has_manifest(&repository, &digest)?
                    && !is_exempt(view.signatures_of(&repository, &digest)?)
                {
                    missing.push((repository, digest));
                }
            }
        }
        Ok(missing)
    }
}

/// Why a reference could not be resolved.
fn failure(resolution: Resolution) -> String {
    match resolution {
        Resolution::Failed(why) => why,
        _ => "the project's primary has just changed".into(),
    }
}

/// The manifests in a list of referrers that may have signatures: those that say so, then those that say
/// nothing.
fn candidates(index: &[u8]) -> Vec<Digest> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry {
        digest: Digest,
        size: u64,
        artifact_type: Option<String>,
    }
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Value>,
    }
    let Ok(Index { manifests }) = serde_json::from_slice::<Index>(index) else {
        return Vec::new();
    };
    let read = manifests.into_iter().map(serde_json::from_value::<Entry>);
    let manifests: Vec<Entry> = read.filter_map(Result::ok).collect();
    let small = || manifests.iter().filter(|entry| entry.size <= LARGEST);
    let says = small().filter(|entry| is_evidence(entry.artifact_type.as_deref()));
    let untold = |entry: &&Entry| entry.artifact_type.as_deref().is_none_or(|kind| kind == UNTOLD);
    says.chain(small().filter(untold)).take(MOST_FOUND).map(|entry| entry.digest).collect()
}

/// Whether something of this is not known yet.
fn is_news(known: &SignatureRecord, found: &[Evidence], children: &[Digest]) -> bool {
    let is_known = |new: &Evidence| {
        let same = known.evidence.iter().find(|old| {
            (old.manifest, &old.tag, old.is_text) == (new.manifest, &new.tag, new.is_text)
        });
        same.is_some_and(|old| {
            let mut new = new.signatures.iter();
            new.all(|new| old.signatures.iter().any(|old| old.signature == new.signature))
        })
    };
    let lists_more = !found.is_empty() && !children.is_empty() && known.children != children;
    lists_more || !found.iter().all(is_known)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_list_of_referrers_those_are_read_that_may_have_signatures() {
        let bundle = "application/vnd.dev.sigstore.bundle.v0.3+json";
        let entry = |n: u8, kind: Option<&str>, size: u64| {
            let mut entry = json!({"mediaType": "x", "digest": Digest::sha256(&[n]), "size": size});
            if let Some(kind) = kind {
                entry["artifactType"] = kind.into();
            }
            entry
        };
        let index = json!({"manifests": [
            entry(0, Some("application/spdx+json"), 7),
            entry(1, Some(UNTOLD), 7),
            entry(2, Some(bundle), 7),
            entry(3, None, 7),
            entry(4, Some(bundle), LARGEST + 1),
        ]});
        let digest = |n: u8| Digest::sha256(&[n]);
        assert_eq!(candidates(index.to_string().as_bytes()), [digest(2), digest(1), digest(3)]);
        let many: Vec<_> = (0..=255).map(|n| entry(n, Some(bundle), 7)).collect();
        let many = json!({ "manifests": many }).to_string();
        assert_eq!(candidates(many.as_bytes()).len(), MOST_FOUND);
        for none in ["", "[]", "{}", "{\"manifests\": [{\"digest\": 7}]}"] {
            assert!(candidates(none.as_bytes()).is_empty(), "{none}");
        }
    }
}
