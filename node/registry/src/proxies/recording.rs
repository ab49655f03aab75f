//! Keeps what upstreams gave: manifests as they came, with links to the blobs that may be read in
//! their repository.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ground::clock;
use ground::supervise::Tasks;
use rules::ledger::command::Outcome;
use rules::ledger::records::{Look, ManifestRecord, TagRecord};
use rules::wire::WriteError;
use rules::words::digest::Digest;
use rules::words::manifest::Manifest;
use rules::words::names::{RepositoryName, Tag};
use tokio::sync::Semaphore;
use tracing::debug;
use upstream::UpstreamError;

use super::confirming::Confirming;
use crate::upstreams::Upstreams;
use crate::view::Records;
use crate::view::caches::Caches;
use crate::writes::Writes;

/// After which times it is tried again to confirm blobs that were not in the mesh when the manifest
/// that names them was recorded. A pull brings them within seconds or minutes.
const LATER: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
];
/// The maximum number of manifests for which this is tried at a time. Others wait until their tag
/// is resolved again.
const CONFIRMED_LATER: usize = 256;

/// Records manifests of upstreams.
pub(super) struct Recording {
    records: Records,
    caches: Arc<Caches>,
    writes: Arc<Writes>,
    upstreams: Arc<Upstreams>,
    confirming: Arc<Confirming>,
    tasks: Tasks,
    /// Places for manifests that are confirmed later.
    later: Arc<Semaphore>,
}

/// A manifest of an upstream.
pub(super) struct UpstreamManifest {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
    /// What `bytes` say.
    pub(super) manifest: Manifest,
    /// The tag that names it.
    pub(super) tag: Option<Tag>,
}

impl Recording {
    pub(super) fn new(
        records: Records,
        caches: Arc<Caches>,
        writes: Arc<Writes>,
        upstreams: Arc<Upstreams>,
        confirming: Arc<Confirming>,
        tasks: Tasks,
    ) -> Arc<Self> {
        let later = Arc::new(Semaphore::new(CONFIRMED_LATER));
        Arc::new(Recording { records, caches, writes, upstreams, confirming, tasks, later })
    }

    /// Caches a manifest of an upstream, without links to the blobs that are `unconfirmed`. Below the
    /// feature level of caches the ledger records it.
    pub(super) async fn record(
        &self,
        repository: &RepositoryName,
        found: UpstreamManifest,
        unconfirmed: &BTreeSet<Digest>,
    ) -> Result<(), WriteError> {
        let UpstreamManifest { digest, media_type, bytes, manifest, tag } = found;
        if !self.caches.are_used() {
            let put = self.writes.put_cached(
                repository,
                digest,
                media_type.clone(),
                bytes.clone(),
                &manifest,
                tag.clone(),
                unconfirmed,
            );
            match put.await? {
                // the level was raised in between
                Outcome::Refused(_) if self.caches.are_used() => {}
                Outcome::Refused(reason) => return Err(WriteError::Invalid(reason)),
                _ => return Ok(()),
            }
        }
        let confirmed = manifest.blobs.iter().map(|blob| blob.digest);
        let blobs = confirmed.filter(|blob| !unconfirmed.contains(blob)).collect();
        let pushed = clock::timestamp();
        let record = ManifestRecord { media_type, bytes, blobs, subject: manifest.subject, pushed };
        let tag = tag.map(|tag| (tag, TagRecord { digest, pushed }));
        self.caches.keep(repository, digest, record, tag).await;
        if self.cached(repository, &digest) {
            return Ok(());
        }
        Err(WriteError::Invalid("this node cannot cache it; see its log".into()))
    }

    /// Whether blobs of a recorded manifest are not linked: the upstream had not shown them.
    pub(super) fn misses(known: &ManifestRecord) -> bool {
        Manifest::read_served(&known.media_type, &known.bytes)
            .is_ok_and(|manifest| manifest.blobs.iter().any(|b| !known.blobs.contains(&b.digest)))
    }

    /// Links blobs of a manifest that could not be confirmed when it was recorded, once a pull has
    /// brought them into the mesh, so that they can be served when the upstream fails.
    pub(super) fn confirm_later(self: &Arc<Self>, repository: &RepositoryName, digest: Digest) {
        let Ok(place) = self.later.clone().try_acquire_owned() else { return };
        let (recording, repository) = (self.clone(), repository.clone());
        self.tasks.spawn("proxy.confirm", async move {
            let _place = place;
            for wait in LATER {
                tokio::time::sleep(wait).await;
                match recording.confirm_now(&repository, digest).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => debug!(%repository, %digest, %error, "not confirmed yet"),
                }
            }
        });
    }

    /// Links what is confirmed now of a recorded manifest. Whether nothing is pending any more.
    async fn confirm_now(
        &self,
        repository: &RepositoryName,
        digest: Digest,
    ) -> Result<bool, UpstreamError> {
        let known = self.records.view().and_then(|view| view.manifest(repository, &digest));
        let Some(known) = known.map_err(UpstreamError::bad)? else { return Ok(true) };
        let Some((upstream, there)) = self.upstreams.admitted(repository)? else { return Ok(true) };
        let manifest =
            Manifest::read_served(&known.media_type, &known.bytes).map_err(UpstreamError::bad)?;
        let unlinked =
            self.confirming.unlinked(repository, &manifest).map_err(UpstreamError::bad)?;
        let unconfirmed =
            self.confirming.unconfirmed(repository, &upstream, &there, &manifest).await?;
        if !unlinked.is_subset(&unconfirmed.blobs) {
            let ManifestRecord { media_type, bytes, .. } = known;
            let found = UpstreamManifest { digest, media_type, bytes, manifest, tag: None };
            match self.record(repository, found, &unconfirmed.blobs).await {
                Ok(()) => {}
                // the next primary does it when it resolves the tag again
                Err(WriteError::NotPrimary) => return Ok(true),
                Err(error) => return Err(UpstreamError::bad(format!("{error:?}"))),
            }
        }
        Ok(!unconfirmed.pending)
    }

    /// Whether the manifest is here: in the cache or, below the level of caches, in the ledger.
    pub(super) fn cached(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        self.records.view().and_then(|view| view.has_manifest(repository, digest)).unwrap_or(false)
    }
}
