//! What an upstream says of a blob that is in the mesh for another's sake.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt};
use rules::digest::Digest;
use rules::manifest::Manifest;
use rules::names::RepositoryName;
use rules::records::{BlobRecord, Look, RecordError, key};
use tracing::warn;

use super::{Proxies, UPSTREAM, slow};
use crate::upstream::{Upstream, UpstreamError};

/// So many blobs of one manifest are asked for at a time.
const AT_A_TIME: usize = 16;

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

    /// Of the blobs that an upstream's manifest names those that it does not have itself, and the mesh has for another's sake. A manifest is quickly written, and
    /// whoever may write one there must not read everything here. An error when the upstream does not say: what is recorded is recorded for good.
    pub(super) async fn unconfirmed(
        &self,
        repository: &RepositoryName,
        upstream: &Upstream,
        there: &str,
        manifest: &Manifest,
    ) -> Result<BTreeSet<Digest>, UpstreamError> {
        let elsewhere = self.known_elsewhere(repository, manifest).map_err(UpstreamError::unreachable)?;
        let asked = elsewhere.into_iter().map(async |digest| match upstream.has_blob(there, &digest).await {
            Ok(true) => Ok(None),
            Ok(false) | Err(UpstreamError::Denied(_)) => Ok(Some(digest)),
            Err(error) => Err(error),
        });
        let asked: Vec<Option<Digest>> = futures::stream::iter(asked).buffer_unordered(AT_A_TIME).try_collect().await?;
        let unconfirmed: BTreeSet<Digest> = asked.into_iter().flatten().collect();
        if !unconfirmed.is_empty() {
            warn!(%repository, blobs = ?unconfirmed, "an upstream's manifest names blobs of others that the upstream does not have");
        }
        Ok(unconfirmed)
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
