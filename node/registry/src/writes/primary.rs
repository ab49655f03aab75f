//! A write at the project's primary: checks what a manifest refers to, copies its blobs to enough
//! regions, and proposes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use ground::clock;
use rules::blobs::holding::Held;
use rules::blobs::reputation;
use rules::ledger::collecting::LookForGarbage;
use rules::ledger::command::{Checked, Command, NewManifest, Outcome};
use rules::ledger::events::Actor;
use rules::ledger::leaving::LookForLeaving;
use rules::ledger::level::Level;
use rules::ledger::precondition::Precondition;
use rules::ledger::records::{
    BlobDescriptor, BlobRecord, Look, Project, Role, SPARSE_IMAGES, SPARSE_INDEXES, key,
};
use rules::members::placement;
use rules::wire::questions::Replicate;
use rules::wire::{NoLedger, PlainWrite, Pushed, Write, WriteError};
use rules::words::digest::Digest;
use rules::words::manifest::{BlobReference, Manifest};
use rules::words::names::{NodeId, OperationId, ProjectName, Region, RepositoryName, Tag};
use tracing::info;

use super::{Writes, joining};

/// The maximum number of blobs of one manifest that are copied at a time.
const COPIES_AT_A_TIME: usize = 4;

impl Writes {
    /// As the project's primary: checks and commits a write.
    pub async fn commit_here(&self, write: Write) -> Result<Outcome, WriteError> {
        let (by, what) = write.kind.plain();
        match what {
            PlainWrite::Put(precondition, pushed) => {
                let (operation, by) = (write.operation, by.as_ref());
                match joining::of_signatures(&pushed) {
                    none if none.is_empty() => self.put(operation, precondition, pushed, by).await,
                    tags => self.join(operation, precondition, pushed, tags, by).await,
                }
            }
            PlainWrite::Fenced(change) => {
                let epoch = self.primary_of(&change.project())?.epoch;
                self.propose_by(write.operation, change.under(epoch), by.as_ref()).await
            }
        }
    }

    /// As the project's primary: checks and commits a manifest. Only the ledger judges the
    /// precondition: it knows whether this operation has moved the tag already.
    pub(super) async fn put(
        &self,
        operation: OperationId,
        precondition: Option<Box<Precondition>>,
        pushed: Pushed,
        by: Option<&Actor>,
    ) -> Result<Outcome, WriteError> {
        let (collections, new) = self.checked(pushed).await?;
        let command = match (collections, precondition) {
            (Some(collections), precondition) => Command::PutChecked(Box::new(Checked {
                collections,
                precondition: precondition.map(|precondition| *precondition),
                new,
            })),
            (None, Some(precondition)) => Command::PutManifestIf(precondition, new),
            (None, None) => Command::PutManifest(new),
        };
        self.propose_by(operation, command, by).await
    }

    async fn propose_by(
        &self,
        operation: OperationId,
        command: Command,
        by: Option<&Actor>,
    ) -> Result<Outcome, WriteError> {
        let command = match by {
            Some(by) => command.audited(by.clone()),
            None => command,
        };
        self.propose_fenced(operation, command).await
    }

    /// What is to be committed of a push: it is what its digest says, and its blobs are held in
    /// enough regions. With it comes the number of the last collection that the check knew of, if
    /// the mesh collects.
    async fn checked(&self, pushed: Pushed) -> Result<(Option<u64>, NewManifest), WriteError> {
        let Pushed { repository, digest, media_type, bytes, tags } = pushed;
        let project = self.primary_of(&repository.project())?;
        if Digest::of(digest.algorithm(), &bytes) != digest {
            return Err(WriteError::Invalid(
                "the manifest's bytes are not what its digest says".into(),
            ));
        }
        let manifest =
            Manifest::parse(&media_type, &bytes).map_err(|e| WriteError::Invalid(e.to_string()))?;
        let (collections, blobs) = self.check_manifest(&project, &repository, &manifest).await?;
        let subject = manifest.referrer(digest, &media_type, bytes.len());
        let epoch = project.epoch;
        let new =
            NewManifest { epoch, repository, digest, media_type, bytes, tags, blobs, subject };
        Ok((collections, new))
    }

    /// As the primary of a proxy project, below the feature level of caches: records a manifest of
    /// its upstream. `bytes` is what
    /// `manifest` was parsed from. Its blobs stay at the upstream until they are pulled. Blobs in
    /// `unconfirmed` are not linked in this repository.
    #[expect(
        clippy::too_many_arguments,
        reason = "a manifest as it came, and what was found out about it"
    )]
    pub async fn put_cached(
        &self,
        repository: &RepositoryName,
        digest: Digest,
        media_type: String,
        bytes: Vec<u8>,
        manifest: &Manifest,
        tag: Option<Tag>,
        unconfirmed: &BTreeSet<Digest>,
    ) -> Result<Outcome, WriteError> {
        let epoch = self.primary_of(&repository.project())?.epoch;
        let describe = |b: &BlobReference| BlobDescriptor {
            digest: b.digest,
            size: b.size,
            content: None,
            kept_by: Vec::new(),
        };
        let confirmed = manifest.blobs.iter().filter(|blob| !unconfirmed.contains(&blob.digest));
        let blobs = confirmed.map(describe).collect();
        let subject = manifest.referrer(digest, &media_type, bytes.len());
        let new = NewManifest {
            epoch,
            repository: repository.clone(),
            digest,
            media_type,
            bytes,
            tags: tag.into_iter().collect(),
            blobs,
            subject,
        };
        let operation = OperationId(rand::random());
        self.propose_fenced(operation, Command::PutManifest(new)).await
    }

    /// As the primary of a proxy project: removes a part of what the ledger has recorded of its
    /// content.
    pub async fn empty_cache(&self, project: &ProjectName) -> Result<Outcome, WriteError> {
        let epoch = self.primary_of(project)?.epoch;
        let command = Command::EmptyCache { project: project.clone(), epoch };
        self.propose_fenced(OperationId(rand::random()), command).await
    }

    /// As a project's primary: puts a part of the tags that were set below the level of caches into
    /// the index of tags by their manifests.
    pub(super) async fn index_tags(
        &self,
        repository: &RepositoryName,
    ) -> Result<Outcome, WriteError> {
        let epoch = self.primary_of(&repository.project())?.epoch;
        let command = Command::IndexTags { epoch, repository: repository.clone() };
        self.propose_fenced(OperationId(rand::random()), command).await
    }

    pub(super) fn primary_of(&self, name: &ProjectName) -> Result<Project, WriteError> {
        let project = self.records.view().and_then(|view| view.project(name));
        match project {
            Ok(Some(project)) if project.primary == self.neighbours.me => Ok(project),
            Ok(_) => Err(WriteError::NotPrimary),
            Err(error) => Err(WriteError::Ledger(NoLedger::Storage(error.to_string()))),
        }
    }

    pub(super) async fn propose_fenced(
        &self,
        operation: OperationId,
        command: Command,
    ) -> Result<Outcome, WriteError> {
        match self.records.propose(operation, command, self.terms.commit).await {
            Ok(proposed) => match proposed.outcome {
                Outcome::StaleEpoch { current } => {
                    info!(
                        current = current.get(),
                        "a write was fenced off: this node is no longer the primary"
                    );
                    metrics::counter!("atoll_writes_fenced_total").increment(1);
                    Err(WriteError::NotPrimary)
                }
                Outcome::Leaving(node) => Err(WriteError::Leaving(node)),
                // whoever asked asks again, and then it is checked anew
                Outcome::Collected => Err(WriteError::Ledger(NoLedger::Storage(
                    "blobs that it names were collected meanwhile".into(),
                ))),
                outcome => Ok(outcome),
            },
            Err(error) => Err(WriteError::Ledger(error)),
        }
    }

    /// Checks what `manifest` refers to, and copies its blobs to as many regions as the project
    /// requires.
    async fn check_manifest(
        &self,
        project: &Project,
        repository: &RepositoryName,
        manifest: &Manifest,
    ) -> Result<(Option<u64>, Vec<BlobDescriptor>), WriteError> {
        let storage =
            |e: &dyn std::fmt::Display| WriteError::Ledger(NoLedger::Storage(e.to_string()));
        let mut linked = BTreeSet::new();
        let mut known: BTreeMap<Digest, BlobRecord> = BTreeMap::new();
        let (leaving, collections);
        let sparse_index = project.is_set(SPARSE_INDEXES);
        let layers = if project.is_set(SPARSE_IMAGES) { Needed::IfHere } else { Needed::Held };
        let held = manifest.blobs.iter().map(|blob| (*blob, layers));
        let optional = manifest.optional.iter().map(|blob| (*blob, Needed::IfHere));
        let mut wanted: Vec<(BlobReference, Needed)> = held.chain(optional).collect();
        {
            let view = self.records.view().map_err(|e| storage(&e))?;
            leaving = view.leaving().map_err(|e| storage(&e))?.map(|leaving| leaving.node);
            collections = match view.level().map_err(|e| storage(&e))? >= Level::COLLECTION {
                true => Some(view.collections().map_err(|e| storage(&e))?),
                false => None,
            };
            for child in &manifest.children {
                let here = view.has_manifest(repository, &child.digest).map_err(|e| storage(&e))?;
                if !here || !child.manifest {
                    let by = match (here, child.manifest) {
                        (true, _) => Needed::IfHere,
                        (false, true) if sparse_index => Needed::IfHere,
                        (false, true) => Needed::Manifest,
                        (false, false) => Needed::Listed,
                    };
                    wanted.push((child.as_blob(), by));
                }
            }
            for (blob, _) in &wanted {
                if view.linked(repository, &blob.digest).map_err(|e| storage(&e))? {
                    linked.insert(blob.digest);
                }
                if let Some(record) =
                    view.record(&key::blob(&blob.digest)).map_err(|e| storage(&e))?
                {
                    known.insert(blob.digest, record);
                }
            }
        }
        let digests: Vec<Digest> = wanted.iter().map(|(blob, _)| blob.digest).collect();
        if digests.is_empty() {
            return Ok((collections, Vec::new()));
        }
        let (me, draining) = (self.neighbours.me, self.neighbours.draining());
        let mut have = match collections {
            Some(number) => {
                if !self.collecting.is_carried_out(number).await {
                    return Err(WriteError::Unanswered(vec![me]));
                }
                self.neighbours.have_after(&digests, repository, number).await
            }
            None => self.neighbours.have(&digests, Some(repository)).await,
        };
        let mine = self.store.stocks(&digests, Some(repository)).await;
        have.insert(me, mine.map_err(|e| storage(&e))?);

        let (mut unknown, mut unlisted, mut perhaps_a_blob) = (Vec::new(), Vec::new(), false);
        let mut descriptors = Vec::new();
        let mut taken = BTreeSet::new();
        let mut scarce = Vec::new();
        let regions_wanted =
            (project.durability as usize).min(self.neighbours.all_regions().len().max(1));
        let region_of: BTreeMap<NodeId, Region> =
            self.neighbours.nodes().into_iter().map(|n| (n.id, n.region)).collect();
        for (i, (blob, needed)) in wanted.iter().enumerate() {
            let holders: Vec<(NodeId, Held)> =
                have.iter().filter_map(|(n, s)| s[i].held.map(|h| (*n, h))).collect();
            let granted =
                linked.contains(&blob.digest) || have.values().any(|stock| stock[i].granted);
            let recorded = known.get(&blob.digest).and_then(|record| record.content);
            let of = |mine: bool| {
                holders.iter().filter(move |(n, _)| (*n == me) == mine).map(|(_, held)| *held)
            };
            let others: Vec<Held> = of(false).collect();
            let known_as = reputation::what_it_is(of(true).next(), &others, recorded);
            let Some((size, content)) = known_as.filter(|_| granted) else {
                match needed {
                    Needed::Held => unknown.push(blob.digest),
                    Needed::Manifest => unlisted.push(blob.digest),
                    Needed::Listed => {
                        unlisted.push(blob.digest);
                        perhaps_a_blob = true;
                    }
                    Needed::IfHere => {}
                }
                continue;
            };
            if blob.size != size {
                return Err(WriteError::Invalid(format!(
                    "the manifest says that {} has {} bytes; it has {size}",
                    blob.digest, blob.size
                )));
            }
            if !taken.insert(blob.digest) {
                continue;
            }
            // a copy that may be evicted does not count; its node is asked to keep it, which needs
            // no transfer. Nor does a copy of a node that is being removed, or that drains.
            let durable = holders.iter().filter(|(n, _)| {
                Some(*n) != leaving
                    && !draining.contains(n)
                    && have.get(n).is_some_and(|stock| !stock[i].cached)
            });
            let kept_by: Vec<NodeId> = durable.map(|(n, _)| *n).collect();
            let regions: BTreeSet<Region> =
                kept_by.iter().filter_map(|n| region_of.get(n).cloned()).collect();
            descriptors.push(BlobDescriptor { digest: blob.digest, size, content, kept_by });
            if regions.len() < regions_wanted {
                scarce.push((
                    blob.digest,
                    holders.into_iter().map(|(n, _)| n).collect::<Vec<_>>(),
                    regions,
                ));
            }
        }
        if !unknown.is_empty() || !unlisted.is_empty() {
            let replicas = self.neighbours.nodes().into_iter().filter(|n| n.role == Role::Replica);
            let silent: Vec<NodeId> =
                replicas.map(|n| n.id).filter(|id| !have.contains_key(id)).collect();
            return Err(if !silent.is_empty() && (perhaps_a_blob || !unknown.is_empty()) {
                WriteError::Unanswered(silent)
            } else if unlisted.is_empty() {
                WriteError::BlobsUnknown(unknown)
            } else {
                WriteError::ManifestsUnknown(unlisted)
            });
        }
        let scarce_blobs: Vec<Digest> = scarce.iter().map(|(digest, ..)| *digest).collect();
        let copied = self.spread(repository, scarce, regions_wanted, leaving).await;
        if let Err(WriteError::NotDurable { .. }) = &copied {
            let lost = self.lost(scarce_blobs).await;
            if !lost.is_empty() {
                return Err(WriteError::BlobsUnknown(lost));
            }
        }
        let copied = match (copied, leaving) {
            // whether it goes is known soon, and then how many regions there are
            (Err(WriteError::NotDurable { .. }), Some(node)) => Err(WriteError::Leaving(node)),
            (copied, _) => copied,
        }?;
        for descriptor in &mut descriptors {
            descriptor.kept_by.extend(copied.get(&descriptor.digest).into_iter().flatten());
        }
        Ok((collections, descriptors))
    }

    /// Those of `digests` of which no replica has a copy that is not damaged: the client has to send
    /// them again, and waiting does not help.
    async fn lost(&self, digests: Vec<Digest>) -> Vec<Digest> {
        let mut lost = Vec::new();
        for digest in digests {
            if self.flights.is_lost(digest).await {
                lost.push(digest);
            }
        }
        lost
    }

    /// Copies each scarce blob to live nodes of other regions until `wanted` regions hold it.
    /// Returns the nodes that keep it in addition. The node that is `leaving` may be a source.
    async fn spread(
        &self,
        repository: &RepositoryName,
        scarce: Vec<(Digest, Vec<NodeId>, BTreeSet<Region>)>,
        wanted: usize,
        leaving: Option<NodeId>,
    ) -> Result<BTreeMap<Digest, Vec<NodeId>>, WriteError> {
        // those that drain, or are full, if the others are in too few regions
        let mut alive = self.neighbours.taking();
        let regions: BTreeSet<&Region> = alive.iter().map(|candidate| &candidate.region).collect();
        if regions.len() < wanted {
            alive = self.neighbours.alive();
        }
        alive.retain(|candidate| Some(candidate.id) != leaving);
        let troubled = self.neighbours.conditions.troubled();
        let end = clock::now() + self.terms.replicate;
        let copies = scarce.into_iter().map(|(digest, holders, mut regions)| {
            let (alive, troubled) = (&alive, &troubled);
            async move {
                let mut copied = Vec::new();
                let mut nodes = placement::ranked(&digest, alive.iter().map(|c| c.id));
                nodes.sort_by_key(|node| troubled.contains(node));
                for node in nodes {
                    let Some(region) = alive.iter().find(|c| c.id == node).map(|c| c.region.clone()) else { continue };
                    if regions.len() >= wanted || regions.contains(&region) {
                        continue;
                    }
                    match self.replicate_to(node, digest, &holders, repository, end.since(clock::now())).await {
                        Ok(_) => {
                            regions.insert(region);
                            copied.push(node);
                        }
                        Err(error) => info!(%digest, %node, error, "a blob could not be copied to another region"),
                    }
                }
                (digest, regions.len(), copied)
            }
        });
        let copies: Vec<_> =
            futures::stream::iter(copies).buffer_unordered(COPIES_AT_A_TIME).collect().await;
        match copies.iter().map(|(_, reached, _)| *reached).min() {
            Some(reached) if reached < wanted => {
                Err(WriteError::NotDurable { wanted: wanted as u32, reached: reached as u32 })
            }
            _ => Ok(copies.into_iter().map(|(digest, _, copied)| (digest, copied)).collect()),
        }
    }

    async fn replicate_to(
        &self,
        node: NodeId,
        digest: Digest,
        holders: &[NodeId],
        repository: &RepositoryName,
        deadline: Duration,
    ) -> Result<Held, String> {
        if node == self.neighbours.me {
            let grant = Some((repository, self.terms.grant));
            return self.flights.replicate(digest, holders.to_vec(), grant).await;
        }
        let question =
            Replicate { digest, sources: holders.to_vec(), repository: Some(repository.clone()) };
        self.neighbours.links.ask(node, question, deadline).await.map_err(|e| e.to_string())?
    }
}

/// What happens to a write if a blob that its manifest names is not in the repository.
#[derive(Clone, Copy)]
enum Needed {
    /// It is refused: the blob is a layer or config.
    Held,
    /// It is refused: an index lists it as a manifest, and the repository has no such manifest.
    Manifest,
    /// It is refused: an index lists it, and it is not a manifest of the repository, so it must be
    /// a blob.
    Listed,
    /// Nothing: a registry need not hold this layer, or the repository has it as a manifest, too, or
    /// the project takes sparse indexes or images.
    IfHere,
}
