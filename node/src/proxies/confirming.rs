//! What an upstream says of a blob that is in the mesh for another's sake.

use std::collections::BTreeSet;

use futures::StreamExt;
use rules::digest::Digest;
use rules::manifest::Manifest;
use rules::names::RepositoryName;
use rules::records::{BlobRecord, Look, RecordError, key};
use tracing::info;

use super::{Proxies, UPSTREAM, slow};
use crate::upstream::UpstreamError;

/// So many blobs of one manifest are asked for at a time.
const AT_A_TIME: usize = 4;

impl Proxies {
    /// Whether the upstream of a proxy project has a blob: asked before one is handed out that nothing in the project refers to, for it may be here for
    /// another project's sake.
    pub async fn confirms(&self, repository: &RepositoryName, digest: &Digest) -> Result<bool, UpstreamError> {
        let Some((upstream, there)) = self.upstream_of(repository)? else { return Ok(false) };
        if !self.terms.upstream_allowed {
            return Ok(false);
        }
        let asked = tokio::time::timeout(UPSTREAM, upstream.has_blob(&there, digest));
        asked.await.unwrap_or_else(|_| Err(slow()))
    }

    /// Of the blobs that an upstream's manifest names those that this repository does not vouch for: the mesh has them for another's sake, and the upstream
    /// does not say that it has them too. A manifest is quickly written, and whoever may write one there must not read everything here.
    pub(super) async fn unconfirmed(&self, repository: &RepositoryName, manifest: &Manifest) -> BTreeSet<Digest> {
        let Ok(elsewhere) = self.known_elsewhere(repository, manifest) else {
            // each is asked for when somebody wants it
            return manifest.blobs.iter().map(|blob| blob.digest).collect();
        };
        let asked = futures::stream::iter(elsewhere).map(async |digest| {
            let confirmed = self.confirms(repository, &digest).await;
            if !matches!(confirmed, Ok(true)) {
                info!(%repository, %digest, ?confirmed, "an upstream's manifest names a blob of others that it does not show");
            }
            (digest, matches!(confirmed, Ok(true)))
        });
        let asked: Vec<_> = asked.buffer_unordered(AT_A_TIME).collect().await;
        asked.into_iter().filter(|(_, confirmed)| !confirmed).map(|(digest, _)| digest).collect()
    }

    /// The blobs of `manifest` that some repository refers to, and this one does not yet.
    fn known_elsewhere(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
    ) -> Result<BTreeSet<Digest>, RecordError> {
        let view = self.records.view()?;
        let mut elsewhere = BTreeSet::new();
        for blob in &manifest.blobs {
            let known = view.record::<BlobRecord>(&key::blob(&blob.digest))?;
            if known.is_some_and(|known| known.repositories > 0) && !view.linked(repository, &blob.digest)? {
                elsewhere.insert(blob.digest);
            }
        }
        Ok(elsewhere)
    }
}
