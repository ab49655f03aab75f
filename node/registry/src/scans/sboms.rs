//! SBOMs of images, kept beside them as referrers: one as SPDX and one as CycloneDX.
//!
//! A document's time is that of the image's push, so the same packages make the same bytes: whoever
//! makes it again, after a death or at another node, changes nothing.

use bytes::Bytes;
use rules::ledger::change::Change;
use rules::ledger::events::Actor;
use rules::ledger::records::{Look, ManifestRecord, RecordError, decode, key};
use rules::wire::WriteKind;
use rules::words::digest::Digest;
use rules::words::manifest::Referrer;
use rules::words::names::RepositoryName;
use scan::{Inventory, sbom};
use serde_json::json;

use super::{ENGINE, ScanError, Scans};
use crate::writes::Refusal;
use crate::writes::made::MANIFEST;

/// The annotation that says that Atoll made an SBOM, and which version.
pub const MADE_BY: &str = "dev.atoll.engine";
/// The types of the documents.
pub const KINDS: [&str; 2] = [sbom::SPDX, sbom::CYCLONEDX];
/// A configuration that says nothing (OCI image specification, "Guidance for an empty descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The document of one of [`KINDS`].
pub fn document(kind: &str, inventory: &Inventory, about: &sbom::Subject) -> serde_json::Value {
    match kind {
        sbom::CYCLONEDX => sbom::cyclonedx(inventory, about),
        _ => sbom::spdx(inventory, about),
    }
}

/// The SBOMs of an image that this mesh has made, among its referrers.
pub fn made_of<R: Look + ?Sized>(
    records: &R,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Vec<Referrer>, RecordError> {
    let found = records.scan(&key::referrers(repository, digest), None, usize::MAX)?;
    let mut made = Vec::new();
    for (_, referrer) in found {
        let referrer: Referrer = decode(&referrer)?;
        if referrer.annotations.contains_key(MADE_BY) {
            made.push(referrer);
        }
    }
    Ok(made)
}

/// The manifest of an SBOM about `subject`.
fn manifest(kind: &str, document: &Bytes, subject: &ManifestRecord, digest: &Digest) -> Bytes {
    let described = |media_type: &str, bytes: &[u8]| {
        json!({
            "mediaType": media_type,
            "digest": Digest::sha256(bytes).to_string(),
            "size": bytes.len(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": described(EMPTY, b"{}"),
        "layers": [described(kind, document)],
        "subject": {
            "mediaType": subject.media_type,
            "digest": digest.to_string(),
            "size": subject.bytes.len(),
        },
        "annotations": {
            "org.opencontainers.image.created": subject.pushed.to_string(),
            MADE_BY: ENGINE,
        },
    });
    manifest.to_string().into()
}

impl Scans {
    /// Makes the SBOMs of an image and keeps them as its referrers. Those of another version of Atoll,
    /// or of packages that were read in another way, go.
    pub(super) async fn keep_sboms(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        inventory: &Inventory,
        by: &Actor,
    ) -> Result<(), ScanError> {
        let view = self.neighbours.records.view()?;
        let subject = view.manifest(repository, digest)?.ok_or(ScanError::Stopped)?;
        let before = made_of(&*view, repository, digest)?;
        drop(view);
        let about = sbom::Subject {
            repository: repository.to_string(),
            digest: *digest,
            at: subject.pushed,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut made = Vec::new();
        for kind in KINDS {
            let document = Bytes::from(document(kind, inventory, &about).to_string());
            let manifest = manifest(kind, &document, &subject, digest);
            let named = Digest::sha256(&manifest);
            if !before.iter().any(|one| one.digest == named) {
                let blobs = vec![Bytes::from_static(b"{}"), document];
                self.writes.put_made(repository, blobs, manifest, by).await?;
                metrics::counter!("atoll_sboms_made_total").increment(1);
            }
            made.push(named);
        }
        for old in before.iter().filter(|one| !made.contains(&one.digest)) {
            let change =
                Change::DeleteManifest { repository: repository.clone(), digest: old.digest };
            match self.writes.commit(&repository.project(), WriteKind::Fenced(change), by).await {
                Ok(_) | Err(Refusal::NotFound) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(())
    }

    /// Makes the SBOMs of an image whose packages are known. Fails if it was not scanned.
    pub async fn make_sboms(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        by: &Actor,
    ) -> Result<(), ScanError> {
        let image = self.image(repository, digest)?;
        let inventory = {
            let _one_of_few = self.shown.acquire().await;
            ground::supervise::at_length(|| {
                Ok::<_, ScanError>(scan::merge(&self.kept_layers(&image)?))
            })?
        };
        self.keep_sboms(repository, digest, &inventory, by).await
    }
}

#[cfg(test)]
mod tests {
    use rules::words::moment::Timestamp;

    use super::*;

    #[test]
    fn the_same_packages_of_the_same_image_make_the_same_artifact() {
        let subject = ManifestRecord {
            media_type: MANIFEST.into(),
            bytes: b"{}".to_vec(),
            blobs: Vec::new(),
            subject: None,
            pushed: Timestamp(1_700_000_000_000),
        };
        let digest = Digest::sha256(b"{}");
        let make = |kind| manifest(kind, &Bytes::from_static(b"{\"a\":1}"), &subject, &digest);
        assert_eq!(make(sbom::SPDX), make(sbom::SPDX));
        let parsed = rules::words::manifest::Manifest::parse(MANIFEST, &make(sbom::SPDX)).unwrap();
        assert_eq!(parsed.subject, Some(digest));
        let bytes = make(sbom::CYCLONEDX);
        let image = rules::words::image::Image::read(&bytes);
        assert_eq!(image, rules::words::image::Runnable::Nothing, "no gate stands before it");
    }
}
