//! Carries out a preheat: what a region lacks is fetched by the node that would fetch it for the
//! region's clients.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use mesh::links::LinkError;
use rules::blobs::pacing::Class;
use rules::ledger::records::Look;
use rules::members::placement;
use rules::wire::questions;
use rules::words::digest::Digest;
use rules::words::names::{NodeId, Reference, Region, RepositoryName};
use tracing::{info, warn};

use super::contents::{Contents, NoContents};
use super::{Preheats, Shared, State};
use crate::blobs::flights::Sources;

/// The maximum number of blobs of one preheat that are fetched at a time.
const AT_A_TIME: usize = 4;
/// How long one blob may take. A flight gives up by itself when no bytes arrive any more, so this
/// only limits the largest blobs.
const BLOB: Duration = Duration::from_secs(3600);
/// The maximum number of nodes of a region that are asked for one blob.
const TRIES: usize = 2;
/// The pauses before a region is asked again whose nodes could not be reached, or whose links broke
/// in the middle. A node that is thought dead for a moment is back within a few seconds.
const AGAIN: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(10)];

/// Why a region did not fetch a blob.
enum NotFetched {
    /// No node could be asked, or the link broke before it answered: ask again.
    Unreached(String),
    /// A node answered that it cannot.
    Failed(String),
}

impl Preheats {
    /// Carries out a preheat, image by image.
    pub(super) async fn carry_out_all(&self, shared: &Shared) {
        let count = shared.lock().items.len();
        for at in 0..count {
            self.carry_out_item(shared, at).await;
        }
        let (id, state) = {
            let preheat = shared.lock();
            (preheat.id, preheat.state())
        };
        info!(id, ?state, "a preheat has come to its end");
    }

    async fn carry_out_item(&self, shared: &Shared, at: usize) {
        let (item, platforms) = {
            let mut preheat = shared.lock();
            if preheat.stopped {
                return preheat.items[at]
                    .regions
                    .iter_mut()
                    .for_each(|region| region.state = State::Stopped);
            }
            (preheat.items[at].clone(), preheat.platforms.clone())
        };
        let contents = match self.contents(&item.repository, &item.reference, &platforms).await {
            Ok(contents) => contents,
            Err(error) => {
                warn!(image = item.written, %error, "an image cannot be preheated");
                let mut preheat = shared.lock();
                preheat.hopeless |= matches!(error, NoContents::Wrong(_));
                for region in &mut preheat.items[at].regions {
                    region.state = State::Failed;
                    region.fails(error.to_string());
                }
                return;
            }
        };
        let digests: Vec<Digest> = contents.blobs.keys().copied().collect();
        let held = self.held_in_regions(&digests).await;
        let mut missing = Vec::new();
        {
            let mut preheat = shared.lock();
            let item = &mut preheat.items[at];
            item.digest = Some(contents.digest);
            for (number, region) in item.regions.iter_mut().enumerate() {
                region.state = State::Fetching;
                region.blobs.0 = digests.len() as u64;
                region.bytes.0 = contents.blobs.values().sum();
                for (digest, size) in &contents.blobs {
                    if held.get(&region.region).is_some_and(|held| held.contains(digest)) {
                        region.blobs.1 += 1;
                        region.bytes.1 += size;
                    } else {
                        missing.push((number, region.region.clone(), *digest, *size));
                    }
                }
            }
        }
        if contents.proxied {
            self.spread_manifests(shared, at, &contents).await;
        }
        let via = contents.proxied.then_some(&contents.repository);
        let fetches = missing.into_iter().map(|(number, region, digest, size)| async move {
            if shared.lock().stopped {
                return;
            }
            let result = self.fetch_patiently(shared, &region, digest, via).await;
            let mut preheat = shared.lock();
            let progress = &mut preheat.items[at].regions[number];
            match result {
                Ok(()) => {
                    progress.blobs.1 += 1;
                    progress.bytes.1 += size;
                }
                Err(error) => progress.fails(format!("{digest}: {error}")),
            }
        });
        futures::stream::iter(fetches).buffer_unordered(AT_A_TIME).collect::<Vec<()>>().await;
        let mut preheat = shared.lock();
        let stopped = preheat.stopped;
        for region in &mut preheat.items[at].regions {
            region.state = match region.errors.is_empty() {
                true if region.blobs.1 == region.blobs.0 => State::Done,
                // what broke off at the end is not tried again either
                _ if stopped => State::Stopped,
                _ => State::Failed,
            };
        }
    }

    /// Lets the replicas of the regions cache the manifests, too: without them the blobs could not be
    /// served when this node and the upstream are gone.
    async fn spread_manifests(&self, shared: &Shared, at: usize, contents: &Contents) {
        let caches = self.proxies.caches();
        if !caches.are_used() {
            return;
        }
        let Contents { repository, manifests, .. } = contents;
        let manifests: Vec<Digest> = manifests.iter().copied().collect();
        let (regions, tag) = {
            let preheat = shared.lock();
            let item = &preheat.items[at];
            let regions: Vec<Region> = item.regions.iter().map(|r| r.region.clone()).collect();
            let tag = match &item.reference {
                Reference::Tag(tag) => Some(tag.clone()),
                Reference::Digest(_) => None,
            };
            (regions, tag)
        };
        let said = tag.and_then(|tag| {
            let view = self.neighbours.records.view().ok()?;
            let said = view.tag(repository, &tag).ok().flatten()?;
            Some((tag, said))
        });
        let alive = self.neighbours.alive();
        let others = alive.iter().filter(|c| c.id != self.neighbours.me);
        let told = others.filter_map(|other| {
            let number = regions.iter().position(|region| *region == other.region)?;
            let (manifests, said) = (&manifests, said.clone());
            Some(async move {
                (number, other.id, caches.let_take(other.id, repository, manifests, said).await)
            })
        });
        for (number, node, taken) in futures::future::join_all(told).await {
            if let Err(error) = taken {
                let error = format!("manifests, at {}: {error}", self.neighbours.name_of(node));
                shared.lock().items[at].regions[number].fails(error);
            }
        }
    }

    /// Which of `digests` each region holds, on any live node.
    async fn held_in_regions(&self, digests: &[Digest]) -> BTreeMap<Region, BTreeSet<Digest>> {
        let mut have = self.neighbours.have(digests, None).await;
        if let Ok(mine) = self.store.stocks(digests, None).await {
            have.insert(self.neighbours.me, mine);
        }
        let mut held: BTreeMap<Region, BTreeSet<Digest>> = BTreeMap::new();
        for candidate in self.neighbours.alive() {
            let Some(stock) = have.get(&candidate.id) else { continue };
            let there = digests
                .iter()
                .zip(stock)
                .filter(|(_, stock)| stock.held.is_some())
                .map(|(digest, _)| *digest);
            held.entry(candidate.region).or_default().extend(there);
        }
        held
    }

    /// Lets a region fetch a blob, and asks again for as long as only the way to it fails and nobody
    /// stops the preheat.
    async fn fetch_patiently(
        &self,
        shared: &Shared,
        region: &Region,
        digest: Digest,
        via: Option<&RepositoryName>,
    ) -> Result<(), String> {
        let mut pauses = AGAIN.into_iter();
        loop {
            let error = match self.fetch_into(region, digest, via).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match (error, pauses.next()) {
                (NotFetched::Unreached(_), Some(pause)) if !shared.lock().stopped => {
                    tokio::time::sleep(pause).await;
                }
                (NotFetched::Unreached(sentence) | NotFetched::Failed(sentence), _) => {
                    return Err(sentence);
                }
            }
        }
    }

    /// Lets one node of `region` fetch a blob: the one that the region's other nodes would ask for
    /// it.
    async fn fetch_into(
        &self,
        region: &Region,
        digest: Digest,
        via: Option<&RepositoryName>,
    ) -> Result<(), NotFetched> {
        let alive = self.neighbours.alive();
        let there = alive.iter().filter(|c| c.region == *region).map(|c| c.id);
        let mut last = NotFetched::Unreached(format!("no node of {region} is up"));
        for node in placement::ranked(&digest, there).into_iter().take(TRIES) {
            let name = || self.neighbours.name_of(node);
            last = match self.fetch_at(node, digest, via).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(sentence)) => NotFetched::Failed(format!("{}: {sentence}", name())),
                Err(error) => NotFetched::Unreached(format!("{}: {error}", name())),
            };
        }
        Err(last)
    }

    async fn fetch_at(
        &self,
        node: NodeId,
        digest: Digest,
        via: Option<&RepositoryName>,
    ) -> Result<Result<(), String>, LinkError> {
        if node == self.neighbours.me {
            return Ok(self.fetch_here(digest, via.cloned()).await);
        }
        let question = questions::Preheat { digest, via: via.cloned() };
        self.neighbours.links.ask(node, question, BLOB).await
    }

    /// Fetches a blob to this node unless it is held, and waits until it is.
    pub async fn fetch_here(
        &self,
        digest: Digest,
        via: Option<RepositoryName>,
    ) -> Result<(), String> {
        if self.store.held(&digest).map_err(|e| e.to_string())?.is_some() {
            return Ok(());
        }
        let flight = self.flights.join(digest, Sources::Holders { via }, Class::Preheat);
        flight.finished().await.map(|_| ()).map_err(|e| e.to_string())
    }
}
