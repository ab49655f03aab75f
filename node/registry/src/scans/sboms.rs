//! SBOMs of images, kept beside them as referrers: one as SPDX and one as CycloneDX.
//!
//! A document's time is that of the image's push, so the same packages make the same bytes: whoever
//! makes it again, after a death or at another node, changes nothing.

use bytes::Bytes;
use ground::supervise::at_length;
use rules::ledger::change::Change;
use rules::ledger::events::Actor;
use rules::ledger::records::{Look, ManifestRecord, RecordError, decode, key};
use rules::ledger::scanning::LookForScans;
use rules::wire::WriteKind;
use rules::words::digest::Digest;
use rules::words::manifest::{MADE_BY, Referrer};
use rules::words::names::RepositoryName;
use scan::{Inventory, sbom};
use serde_json::json;

use super::{ENGINE, ScanError, Scans};
use crate::writes::Refusal;
use crate::writes::made::MANIFEST;

/// The types of the documents.
pub const KINDS: [&str; 2] = [sbom::SPDX, sbom::CYCLONEDX];
/// A configuration that says nothing (OCI image specification, "Guidance for an empty descriptor").
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The maximum number of packages of an SBOM, and of bytes of what names them: a document is in memory
/// as a whole, and its text is about a hundred times as long as a package's line.
const MOST_PACKAGES: usize = 20_000;
const MOST_NAMES: usize = 4 << 20;

/// The document of one of [`KINDS`], as text. Fails if there are too many packages.
fn document(kind: &str, inventory: &Inventory, about: &sbom::Subject) -> Result<Bytes, ScanError> {
    let names =
        inventory.packages.iter().map(|one| one.name.len() + one.version.len() + one.path.len());
    if inventory.packages.len() > MOST_PACKAGES || names.sum::<usize>() > MOST_NAMES {
        return Err(ScanError::Hopeless(format!(
            "an SBOM has at most {MOST_PACKAGES} packages and {} MiB of names",
            MOST_NAMES >> 20
        )));
    }
    let document = match kind {
        sbom::CYCLONEDX => sbom::cyclonedx(inventory, about),
        _ => sbom::spdx(inventory, about),
    };
    Ok(document.to_string().into())
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
        // what somebody has given a tag is theirs, whatever it claims to be
        let mut before = made_of(&*view, repository, digest)?;
        let mut tagged = Vec::new();
        for one in &before {
            let tags = key::all_named(repository, &one.digest);
            if !view.scan(&tags, None, 1)?.is_empty() {
                tagged.push(one.digest);
            }
        }
        before.retain(|one| !tagged.contains(&one.digest));
        drop(view);
        let about = sbom::Subject {
            repository: repository.to_string(),
            digest: *digest,
            at: subject.pushed,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut made = Vec::new();
        for kind in KINDS {
            let document = {
                let _one_of_few = self.shown.acquire().await;
                at_length(|| document(kind, inventory, &about))?
            };
            let manifest = manifest(kind, &document, &subject, digest);
            let named = Digest::sha256(&manifest);
            if !before.iter().any(|one| one.digest == named) {
                let blobs = vec![Bytes::from_static(b"{}"), document];
                match self.writes.put_about(repository, *digest, blobs, manifest, by).await {
                    Ok(_) => {}
                    // the image is gone, and its name may be somebody else's by now
                    Err(Refusal::Precondition) => return Err(ScanError::Stopped),
                    Err(refusal) => return Err(refusal.into()),
                }
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
            at_length(|| Ok::<_, ScanError>(scan::merge(&self.kept_layers(&image)?)))?
        };
        self.keep_sboms(repository, digest, &inventory, by).await
    }

    /// The SBOM of an image that was scanned, as text; `None` if it was not. It is made anew, and is
    /// of the time of the scan.
    pub async fn sbom(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        kind: &str,
    ) -> Result<Option<Bytes>, ScanError> {
        let known = self.neighbours.records.view()?.scan_of(repository, digest)?;
        let Some(report) = known.and_then(|known| known.report) else { return Ok(None) };
        let (image, again) = self.image_to_show(repository, digest).await?;
        let about = sbom::Subject {
            repository: repository.to_string(),
            digest: *digest,
            at: report.at,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let _one_of_few = self.shown.acquire().await;
        at_length(|| {
            let layers = match again {
                Some(layers) => layers,
                None => self.kept_layers(&image)?,
            };
            document(kind, &scan::merge(&layers), &about)
        })
        .map(Some)
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
