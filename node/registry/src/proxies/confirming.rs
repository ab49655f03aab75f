//! Makes an upstream show a blob that is in the mesh for another project.
//!
//! An upstream's manifest, and a client's request, name blobs by digests, which prove nothing. Such
//! a blob may be read as the upstream's in three cases: no node of the mesh has it, so that its
//! bytes can only come from the upstream; or the upstream answers ranges that are chosen here with
//! the right bytes ([`rules::blobs::proof`]); or it gives the whole blob, which is read here as a
//! proof. A status line proves nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::Shared;
use futures::{FutureExt, StreamExt, TryStreamExt};
use ground::clock;
use ground::supervise::Tasks;
use mesh::transfer::{self, Fetching, TransferTerms, Wanted};
use parking_lot::Mutex;
use rand::RngExt;
use rules::blobs::groups::Groups;
use rules::blobs::pacing::Class;
use rules::blobs::proof;
use rules::ledger::records::{BlobRecord, Look, RecordError, Role, key};
use rules::proxies::budget::may_have_one_more;
use rules::proxies::denials::Denials;
use rules::words::digest::{ContentHash, Digest};
use rules::words::manifest::Manifest;
use rules::words::names::{NodeId, ProjectName, RepositoryName};
use store::Store;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::Remembered;
use crate::upstreams::Upstreams;
use crate::view::caches::Caches;
use crate::view::neighbours::Neighbours;
use upstream::{Sample, Upstream, UpstreamError};

/// The maximum number of blobs of one manifest that are asked for at a time.
const AT_A_TIME: usize = 16;
/// The maximum number of ranges of one blob that are asked for at a time.
const RANGES: usize = 4;
/// The maximum number of blobs that are proven at a time, over all projects.
const PROOFS: usize = 64;
/// How long the result of a proof is remembered when no client waits for it any more.
const PROOF_KEPT: Duration = Duration::from_secs(60);
/// How long a client waits for a proof.
const PROOF: Duration = Duration::from_secs(20);
/// The maximum number of denied blobs of a project that are remembered.
const DENIED: usize = 10_000;
/// The maximum number of nodes that are asked for the groups of one blob.
const WITNESSES: usize = 3;

/// Why a blob may be read as an upstream's, or that it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// The upstream has shown it.
    Shown,
    /// No node has it, and the upstream says that it does. What comes is the upstream's.
    Absent,
    /// The upstream does not have it, or shows other bytes.
    Denied,
}

/// The result of a proof.
type Proof = Shared<oneshot::Receiver<Result<Confirmed, UpstreamError>>>;

/// The proofs in progress and of the last minute, with the project that each is for.
type Proofs = Arc<Mutex<HashMap<(RepositoryName, Digest), (Proof, ProjectName)>>>;

/// The blobs of a manifest that must not be linked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unconfirmed {
    /// All of them.
    pub(super) blobs: BTreeSet<Digest>,
    /// Whether some may be confirmed later: their groups are not known now, or this upstream shows
    /// only whole blobs.
    pub(super) pending: bool,
}

/// Which nodes have a blob.
struct Whereabouts {
    here: bool,
    others: Vec<NodeId>,
    /// Whether a manifest of some repository refers to it, in the ledger or in a cache of a replica
    /// that answers.
    referred: bool,
    /// Its content hash in the ledger.
    content: Option<ContentHash>,
    /// Whether every replica has said whether it holds it.
    all_asked: bool,
}

impl Whereabouts {
    fn held(&self) -> bool {
        self.here || !self.others.is_empty()
    }

    /// Whether no node can have it from anybody but an upstream.
    fn absent(&self) -> bool {
        !self.held() && (self.all_asked || !self.referred)
    }
}

/// What an upstream has shown of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Bytes that match its groups.
    Right,
    /// Nothing, or other bytes.
    Not,
    /// Its groups are not known, or the upstream answers no ranges. Only the whole blob proves it.
    Unknown,
}

/// Makes upstreams show blobs.
pub struct Confirming {
    neighbours: Arc<Neighbours>,
    caches: Arc<Caches>,
    store: Arc<Store>,
    upstreams: Arc<Upstreams>,
    terms: TransferTerms,
    /// How long a denial counts.
    missing_for: Duration,
    tasks: Tasks,
    denials: Remembered<Denials<(RepositoryName, Digest)>>,
    proofs: Proofs,
}

impl Confirming {
    /// Nothing was asked yet. A denial counts for `missing_for`.
    pub fn new(
        neighbours: Arc<Neighbours>,
        caches: Arc<Caches>,
        store: Arc<Store>,
        upstreams: Arc<Upstreams>,
        terms: TransferTerms,
        missing_for: Duration,
        tasks: Tasks,
    ) -> Arc<Self> {
        let denials = Remembered::new(upstreams.clone(), Denials::new(DENIED));
        let proofs = Proofs::default();
        Arc::new(Confirming {
            neighbours,
            caches,
            store,
            upstreams,
            terms,
            missing_for,
            tasks,
            denials,
            proofs,
        })
    }

    /// What the mesh has cached.
    pub fn caches(&self) -> &Arc<Caches> {
        &self.caches
    }

    /// Whether the upstream denied the blob a moment ago, so that it is not asked now.
    pub fn is_denied(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        let what = (repository.clone(), *digest);
        self.denials.lock().stands(clock::now(), &repository.project(), &what)
    }

    /// Whether a blob to which nothing in a proxy project refers is the upstream's. This is asked
    /// before it is served, because it may be here for another project.
    ///
    /// The proof is made once, however many clients ask. A long blob may take longer than a client
    /// waits; a client that asks again gets the proof in progress, or its result.
    pub async fn confirms(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Confirmed, UpstreamError> {
        let Some((upstream, there)) = self.upstreams.admitted(repository)? else {
            return Ok(Confirmed::Denied);
        };
        if !self.upstreams.allowed() || self.is_denied(repository, digest) {
            return Ok(Confirmed::Denied);
        }
        let place = (repository.clone(), *digest);
        let proof = {
            let mut proofs = self.proofs.lock();
            if !proofs.contains_key(&place) {
                let project = repository.project();
                let own = proofs.values().filter(|(_, of)| *of == project).count();
                if !may_have_one_more(own, proofs.len(), PROOFS) {
                    let why = "many blobs of this project are being checked; try again";
                    return Err(UpstreamError::unreachable(why));
                }
                let proof = self.begin_proof(repository, upstream, there, *digest);
                proofs.insert(place.clone(), (proof, project));
            }
            proofs[&place].0.clone()
        };
        match tokio::time::timeout(PROOF, proof).await {
            Ok(answer) => {
                self.proofs.lock().remove(&place);
                answer.unwrap_or_else(|_| Err(UpstreamError::unreachable("the node is stopping")))
            }
            Err(_) => Err(UpstreamError::unreachable("the blob is still being checked; try again")),
        }
    }

    /// Whether this repository's content may be read out of the blob: a cached manifest links it, or it
    /// is the upstream's.
    pub async fn is_theirs(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, UpstreamError> {
        let linked =
            self.neighbours.records.view().and_then(|view| view.linked(repository, digest));
        if linked.map_err(UpstreamError::unreachable)? {
            return Ok(true);
        }
        let confirmed = self.confirms(repository, digest).await?;
        Ok(matches!(confirmed, Confirmed::Shown | Confirmed::Absent))
    }

    fn begin_proof(
        self: &Arc<Self>,
        repository: &RepositoryName,
        upstream: Arc<Upstream>,
        there: String,
        digest: Digest,
    ) -> Proof {
        let (sender, receiver) = oneshot::channel();
        let (confirming, repository) = (self.clone(), repository.clone());
        self.tasks.spawn("proxy.proof", async move {
            let result = confirming.prove(&repository, &upstream, &there, &digest).await;
            let _ = sender.send(result);
            // clients that gave up waiting may ask again
            tokio::time::sleep(PROOF_KEPT).await;
            confirming.proofs.lock().remove(&(repository, digest));
        });
        receiver.shared()
    }

    async fn prove(
        &self,
        repository: &RepositoryName,
        upstream: &Upstream,
        there: &str,
        digest: &Digest,
    ) -> Result<Confirmed, UpstreamError> {
        let place = self.whereabouts(&[*digest]).await?.remove(digest);
        let Some(place) = place else { return Ok(Confirmed::Denied) };
        let confirmed = if place.absent() {
            // one byte: a flight asks several nodes and the upstream more than once
            match upstream.sample(there, digest, 0..1).await {
                Ok(_) => Confirmed::Absent,
                Err(UpstreamError::NotFound) => Confirmed::Denied,
                Err(error) => return Err(error),
            }
        } else {
            match self.shown(upstream, there, digest, &place).await? {
                Shown::Right => Confirmed::Shown,
                Shown::Not => Confirmed::Denied,
                Shown::Unknown => match upstream.gives_blob(there, digest).await? {
                    true => Confirmed::Shown,
                    false => Confirmed::Denied,
                },
            }
        };
        if confirmed == Confirmed::Denied {
            self.note_denial(repository, digest);
        }
        Ok(confirmed)
    }

    fn note_denial(&self, repository: &RepositoryName, digest: &Digest) {
        let what = (repository.clone(), *digest);
        let mut denials = self.denials.lock();
        denials.remember(clock::now(), &repository.project(), what, self.missing_for);
    }

    /// The blobs of an upstream's manifest that must not be linked in `repository`: nodes have them
    /// for another project, and the upstream has not shown them. A user who may write a manifest
    /// there could otherwise read every blob in the mesh. If the upstream does not answer, this is
    /// an error.
    ///
    /// A blob that no node has, and no manifest refers to, is not asked for: its bytes will be the
    /// upstream's.
    pub(super) async fn unconfirmed(
        &self,
        repository: &RepositoryName,
        upstream: &Upstream,
        there: &str,
        manifest: &Manifest,
    ) -> Result<Unconfirmed, UpstreamError> {
        let unlinked = self.unlinked(repository, manifest).map_err(UpstreamError::unreachable)?;
        let unlinked: Vec<Digest> = unlinked.into_iter().collect();
        let mut places = self.whereabouts(&unlinked).await?;
        places.retain(|_, place| place.held() || place.referred || !place.all_asked);
        let asked = places.into_iter().map(|(digest, place)| async move {
            if self.is_denied(repository, &digest) {
                return Ok((digest, Shown::Not));
            }
            if !place.held() {
                return Ok((digest, Shown::Unknown));
            }
            match self.shown(upstream, there, &digest, &place).await {
                Ok(shown) => Ok((digest, shown)),
                Err(UpstreamError::Denied(_)) => Ok((digest, Shown::Not)),
                Err(error) => Err(error),
            }
        });
        let asked: Vec<(Digest, Shown)> =
            futures::stream::iter(asked).buffer_unordered(AT_A_TIME).try_collect().await?;
        let mut unconfirmed = Unconfirmed::default();
        for (digest, shown) in asked {
            match shown {
                Shown::Right => continue,
                Shown::Not => {
                    self.note_denial(repository, &digest);
                    warn!(%repository, %digest, "an upstream's manifest names a blob of others that the upstream does not show");
                }
                Shown::Unknown => unconfirmed.pending = true,
            }
            unconfirmed.blobs.insert(digest);
        }
        Ok(unconfirmed)
    }

    /// The blobs of `manifest` that are not linked in `repository`.
    pub(super) fn unlinked(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
    ) -> Result<BTreeSet<Digest>, RecordError> {
        let view = self.neighbours.records.view()?;
        let mut unlinked = BTreeSet::new();
        for blob in &manifest.blobs {
            if !view.linked(repository, &blob.digest)? {
                unlinked.insert(blob.digest);
            }
        }
        Ok(unlinked)
    }

    /// Which nodes have each of `digests`. Every live replica is asked.
    async fn whereabouts(
        &self,
        digests: &[Digest],
    ) -> Result<BTreeMap<Digest, Whereabouts>, UpstreamError> {
        if digests.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (have, refer) =
            tokio::join!(self.neighbours.have(digests, None), self.caches.refer(digests));
        let refer = refer.map_err(UpstreamError::unreachable)?;
        let replicas = self
            .neighbours
            .nodes()
            .into_iter()
            .filter(|node| node.role == Role::Replica && node.id != self.neighbours.me);
        let all_asked = replicas.into_iter().all(|node| have.contains_key(&node.id));
        let view = self.neighbours.records.view().map_err(UpstreamError::unreachable)?;
        let mut places = BTreeMap::new();
        for (at, digest) in digests.iter().enumerate() {
            let record = view
                .record::<BlobRecord>(&key::blob(digest))
                .map_err(UpstreamError::unreachable)?
                .filter(|record| record.repositories > 0);
            let holds = |stock: &[rules::blobs::holding::Stock]| {
                stock.get(at).is_some_and(|stock| stock.held.is_some())
            };
            let others = have.iter().filter(|(_, stock)| holds(stock)).map(|(node, _)| *node);
            let mut others: Vec<NodeId> = others.collect();
            others.sort_by_key(|node| self.neighbours.links.round_trip(*node));
            let here = self.store.held(digest).map_err(UpstreamError::unreachable)?.is_some();
            let place = Whereabouts {
                here,
                others,
                referred: record.is_some() || refer.get(at).is_some_and(|refer| *refer),
                content: record.and_then(|record| record.content),
                all_asked,
            };
            places.insert(*digest, place);
        }
        Ok(places)
    }

    /// Asks the upstream for ranges that are chosen now, and compares them with the blob's groups.
    async fn shown(
        &self,
        upstream: &Upstream,
        there: &str,
        digest: &Digest,
        place: &Whereabouts,
    ) -> Result<Shown, UpstreamError> {
        let Some(groups) = self.groups(digest, place).await else { return Ok(Shown::Unknown) };
        let ranges = proof::ranges(groups.size(), |below| rand::rng().random_range(0..below));
        let groups = &groups;
        let asked = ranges.into_iter().map(|range| async move {
            match upstream.sample(there, digest, range.clone()).await {
                Ok(Sample::Bytes(bytes)) if proof::shows(groups, &range, &bytes) => {
                    Ok(Shown::Right)
                }
                Ok(Sample::Bytes(_)) => {
                    warn!(%digest, ?range, repository = there, "an upstream shows other bytes than the blob's");
                    Ok(Shown::Not)
                }
                Ok(Sample::Unanswered) => Ok(Shown::Unknown),
                Err(UpstreamError::NotFound) => Ok(Shown::Not),
                Err(error) => Err(error),
            }
        });
        let mut asked = futures::stream::iter(asked).buffer_unordered(RANGES);
        while let Some(shown) = asked.next().await {
            match shown? {
                Shown::Right => {}
                other => return Ok(other),
            }
        }
        Ok(Shown::Right)
    }

    /// The blob's groups, from this node or from a replica that holds it.
    async fn groups(&self, digest: &Digest, place: &Whereabouts) -> Option<Groups> {
        if place.here
            && let Ok(Some(blob)) = self.store.open_blob(digest).await
            && let Ok(Some(groups)) = self.store.groups(*digest, &blob).await
        {
            return Some(groups);
        }
        for node in place.others.iter().take(WITNESSES) {
            // from the second byte on: a node that wants the whole of a large blob may be sent on
            // to another one
            let wanted = Wanted {
                digest: *digest,
                offset: 1,
                fill: false,
                via: None,
                list: true,
                direct: false,
                class: Class::Pull,
            };
            match transfer::fetch(&self.neighbours.links, *node, wanted, self.terms).await {
                Ok(Fetching::Found(fetch)) => {
                    let claim = &fetch.claim;
                    let expected = place.content.or(claim.content);
                    let list = claim.list.as_deref().unwrap_or_default();
                    if let Some(content) = expected
                        && claim.content == expected
                        && let Ok(groups) = Groups::from_list(list, content, claim.size)
                    {
                        return Some(groups);
                    }
                    debug!(%digest, %node, "a node's list of groups is not the blob's");
                }
                Ok(_) => {}
                Err(error) => debug!(%digest, %node, %error, "a node did not give the groups"),
            }
        }
        None
    }
}
