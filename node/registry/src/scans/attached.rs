//! SBOMs that came with an image: pushed as its referrers, as attestations of buildx beside it in an
//! index, or as attestations of cosign.
//!
//! They are shown in place of the one that this mesh makes where a project wants that. They decide
//! nothing: whoever may push may write one, so what is found in an image is always found in its
//! layers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ground::clock;
use ground::supervise::at_length;
use rules::ledger::records::{Look, ReadRecords, RecordError, decode, key};
use rules::ledger::stored::manifests_of;
use rules::policies::vulnerabilities::metadata::SBOM_SOURCE;
use rules::words::digest::Digest;
use rules::words::fallback::{Fallback, tags_about};
use rules::words::image::Image;
use rules::words::manifest::{MADE_BY, Referrer};
use rules::words::names::RepositoryName;
use scan::sbom;
use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::debug;

use super::layers::{Paced, Reading};
use super::{ScanError, Scans};

/// The maximum length of a document, and of an attestation with it.
const LONGEST: u64 = 16 << 20;
/// The maximum number of manifests of a repository among which an index is looked for that lists the
/// image, and of artifacts that are read.
const LOOKED_THROUGH: usize = 2_000;
const READ: usize = 20;
/// The maximum length of a manifest that is looked into for attestations of buildx.
const LONGEST_INDEX: usize = 256 << 10;
/// How long the reading of one may take, if it is at another node.
const WITHIN: Duration = Duration::from_secs(20);
/// Layers of attestations: a statement, one in an envelope, and that in a bundle of Sigstore's.
const STATEMENT: &str = "application/vnd.in-toto+json";
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";

/// An SBOM that came with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedSbom {
    /// The document, as it is.
    pub document: Bytes,
    /// The artifact that it is in.
    pub artifact: Digest,
}

/// What an attestation says (in-toto).
#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "predicateType")]
    predicate_type: String,
    subject: Vec<Subject>,
    /// As it is written: values of a hostile document would need a hundred times its length.
    predicate: Box<RawValue>,
}

/// What tells that a document is an SBOM. The rest of it is not looked at.
#[derive(Deserialize)]
struct Marks {
    #[serde(rename = "bomFormat")]
    bom_format: Option<String>,
    #[serde(rename = "spdxVersion")]
    spdx_version: Option<String>,
}

/// An index, as far as it matters here.
#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Envelope {
    payload: String,
}

#[derive(Deserialize)]
struct SigstoreBundle {
    #[serde(rename = "dsseEnvelope")]
    envelope: Envelope,
}

/// Whether what a statement attests is a document of this kind. Tools write the version behind it.
fn is_of_kind(predicate: &str, kind: &str) -> bool {
    let name = match kind {
        sbom::CYCLONEDX => "https://cyclonedx.org/bom",
        _ => "https://spdx.dev/Document",
    };
    let rest = predicate.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The document in a layer of this type, if it is one of this kind about the image.
fn document_in(media_type: &str, bytes: &[u8], kind: &str, image: &Digest) -> Option<Bytes> {
    let opened =
        |envelope: Envelope| serde_json::from_slice(&STANDARD.decode(envelope.payload).ok()?).ok();
    let statement: Statement = match media_type {
        STATEMENT => serde_json::from_slice(bytes).ok()?,
        ENVELOPE => opened(serde_json::from_slice(bytes).ok()?)?,
        bundle if bundle.starts_with(BUNDLE) => {
            opened(serde_json::from_slice::<SigstoreBundle>(bytes).ok()?.envelope)?
        }
        plain if plain == kind => {
            return is_document(bytes, kind).then(|| Bytes::copy_from_slice(bytes));
        }
        _ => return None,
    };
    let (algorithm, hex) =
        image.to_string().split_once(':').map(|(a, h)| (a.to_owned(), h.to_owned()))?;
    let is_about = |one: &Subject| one.digest.get(&algorithm) == Some(&hex);
    if !is_of_kind(&statement.predicate_type, kind) || !statement.subject.iter().any(is_about) {
        return None;
    }
    let document = statement.predicate.get();
    is_document(document.as_bytes(), kind).then(|| document.to_owned().into())
}

fn is_document(document: &[u8], kind: &str) -> bool {
    let Ok(marks) = serde_json::from_slice::<Marks>(document) else { return false };
    match kind {
        sbom::CYCLONEDX => marks.bom_format.as_deref() == Some("CycloneDX"),
        _ => marks.spdx_version.is_some(),
    }
}

/// The attestations of an image that an index lists beside it, as buildx writes them.
fn attested_in(index: &[u8], image: &Digest) -> Vec<Digest> {
    let Ok(index) = serde_json::from_slice::<Index>(index) else { return Vec::new() };
    let image = image.to_string();
    let about = index.manifests.iter().filter(|one| {
        let says = |key: &str, value: &str| {
            one.annotations.as_ref().and_then(|notes| notes.get(key)).is_some_and(|at| at == value)
        };
        says("vnd.docker.reference.type", "attestation-manifest")
            && says("vnd.docker.reference.digest", &image)
    });
    about.filter_map(|one| one.digest.as_ref()?.parse().ok()).collect()
}

/// The artifacts that may have an SBOM of an image, those that say so first.
fn candidates(
    view: &dyn ReadRecords,
    repository: &RepositoryName,
    image: &Digest,
    kind: &str,
) -> Result<Vec<Digest>, RecordError> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for (_, referrer) in view.scan(&key::referrers(repository, image), None, LOOKED_THROUGH)? {
        let referrer: Referrer = decode(&referrer)?;
        if referrer.annotations.contains_key(MADE_BY) {
            continue;
        }
        match referrer.artifact_type.as_deref() {
            Some(of) if of == kind => found.push(referrer.digest),
            _ => others.push(referrer.digest),
        }
    }
    let attestations = tags_about(image)
        .into_iter()
        .filter(|tag| Fallback::of(tag).is_some_and(|tag| matches!(tag.ending, ".att" | ".sbom")));
    for tag in attestations {
        found.extend(view.tag(repository, &tag)?.map(|tag| tag.digest));
    }
    for (digest, _) in manifests_of(view, repository)?.into_iter().take(LOOKED_THROUGH) {
        let Some(manifest) = view.manifest(repository, &digest)? else { continue };
        if manifest.bytes.len() > LONGEST_INDEX {
            continue;
        }
        // only an index has no parts
        if Image::parts(&manifest.bytes).is_none_or(|parts| parts == Image::default()) {
            found.extend(attested_in(&manifest.bytes, image));
        }
    }
    found.extend(others);
    let mut seen = BTreeSet::new();
    found.retain(|one| seen.insert(*one));
    found.truncate(READ);
    Ok(found)
}

impl Scans {
    /// The SBOM of this kind that came with an image, if its project wants such ones and there is one.
    /// Nobody has verified it.
    pub async fn attached_sbom(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        kind: &str,
    ) -> Result<Option<AttachedSbom>, ScanError> {
        // anybody may ask, and much may have to be read
        let _one_of_few = self.attached.acquire().await;
        let found = at_length(|| {
            let view = self.neighbours.records.view()?;
            let project = view.project(&repository.project())?;
            let source = project.and_then(|project| project.metadata.get(SBOM_SOURCE).cloned());
            match source.as_deref() {
                Some("attached") => candidates(&*view, repository, digest, kind),
                _ => Ok(Vec::new()),
            }
        })?;
        for artifact in found {
            match self.document_of(repository, &artifact, kind, digest).await {
                Ok(Some(document)) => return Ok(Some(AttachedSbom { document, artifact })),
                Ok(None) => {}
                Err(error) => debug!(%repository, %artifact, %error, "an artifact cannot be read"),
            }
        }
        Ok(None)
    }

    async fn document_of(
        &self,
        repository: &RepositoryName,
        artifact: &Digest,
        kind: &str,
        image: &Digest,
    ) -> Result<Option<Bytes>, ScanError> {
        let manifest = self.neighbours.records.view()?.manifest(repository, artifact)?;
        let parts = manifest.and_then(|manifest| Image::parts(&manifest.bytes));
        let reading = Reading { scans: self, repository, digest: image, number: None };
        for layer in parts.unwrap_or_default().layers {
            let of = layer.media_type.as_str();
            let may_have = [STATEMENT, ENVELOPE, kind].contains(&of) || of.starts_with(BUNDLE);
            if !may_have || layer.size > LONGEST {
                continue;
            }
            let blob = reading.open(&layer.digest, clock::now() + WITHIN).await?;
            let document = at_length(|| {
                let mut bytes = Vec::new();
                let read = Paced::new(&blob, None).take(LONGEST).read_to_end(&mut bytes);
                read.map_err(|e| ScanError::Again(e.to_string()))?;
                Ok::<_, ScanError>(document_in(&layer.media_type, &bytes, kind, image))
            })?;
            if document.is_some() {
                return Ok(document);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_document_is_taken_from_what_is_about_the_image_only() {
        let (image, other) = (Digest::sha256(b"image"), Digest::sha256(b"other"));
        let hex = |digest: &Digest| digest.to_string().split_once(':').unwrap().1.to_owned();
        let spdx = json!({"spdxVersion": "SPDX-2.3", "name": "x"});
        let statement = |about: &Digest, predicate: &str, document: &Value| {
            json!({
                "_type": "https://in-toto.io/Statement/v0.1",
                "predicateType": predicate,
                "subject": [{"name": "x", "digest": {"sha256": hex(about)}}],
                "predicate": document,
            })
        };
        let read = |kind: &str, statement: &Value, wanted: &str| {
            let bytes = match kind {
                ENVELOPE => json!({"payload": STANDARD.encode(statement.to_string())}),
                BUNDLE => {
                    json!({"dsseEnvelope": {"payload": STANDARD.encode(statement.to_string())}})
                }
                _ => statement.clone(),
            };
            document_in(kind, bytes.to_string().as_bytes(), wanted, &image)
        };
        let right = statement(&image, "https://spdx.dev/Document", &spdx);
        for kind in [STATEMENT, ENVELOPE, BUNDLE] {
            let found = read(kind, &right, sbom::SPDX).expect("a document");
            assert_eq!(serde_json::from_slice::<Value>(&found).unwrap(), spdx);
            assert_eq!(read(kind, &right, sbom::CYCLONEDX), None);
            let about_another = statement(&other, "https://spdx.dev/Document", &spdx);
            assert_eq!(read(kind, &about_another, sbom::SPDX), None);
            let versioned = statement(&image, "https://spdx.dev/Document/v2.3", &spdx);
            assert!(read(kind, &versioned, sbom::SPDX).is_some());
            let no_sbom = statement(&image, "https://spdx.dev/Documents", &spdx);
            assert_eq!(read(kind, &no_sbom, sbom::SPDX), None);
            let empty = statement(&image, "https://spdx.dev/Document", &json!({}));
            assert_eq!(read(kind, &empty, sbom::SPDX), None);
        }
        let cyclonedx = json!({"bomFormat": "CycloneDX"});
        assert!(read(sbom::CYCLONEDX, &cyclonedx, sbom::CYCLONEDX).is_some());
        assert_eq!(read(sbom::CYCLONEDX, &spdx, sbom::CYCLONEDX), None);
        assert_eq!(document_in(STATEMENT, b"{", sbom::SPDX, &image), None);
    }

    #[test]
    fn what_buildx_lists_beside_an_image_is_found() {
        let [image, other, attestation] = [b"a", b"b", b"c"].map(|one| Digest::sha256(one));
        let child = |digest: &Digest, about: &Digest| {
            json!({"digest": digest.to_string(), "annotations": {
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": about.to_string(),
            }})
        };
        let plain = json!({"digest": image.to_string()});
        let index =
            json!({"manifests": [plain, child(&attestation, &image), child(&other, &other)]});
        assert_eq!(attested_in(index.to_string().as_bytes(), &image), [attestation]);
        assert!(attested_in(b"{}", &image).is_empty() && attested_in(b"[", &image).is_empty());
    }
}
