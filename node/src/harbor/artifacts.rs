//! Artifacts in Harbor's API: manifests with their tags, labels and attributes.

use std::collections::{BTreeMap, BTreeSet};

use http::{Response, StatusCode};
use rules::ledger::change::Change;
use rules::ledger::events::Actor;
use rules::ledger::labels::LookForLabels;
use rules::ledger::policies::LookForPolicies;
use rules::ledger::records::{
    Look, ManifestRecord, Project, ReadRecords, RecordError, TagRecord, decode, key,
};
use rules::ledger::stored::manifests_of;
use rules::policies::signatures::is_evidence;
use rules::wire::WriteKind;
use rules::words::digest::Digest;
use rules::words::fallback::{Fallback, tags_about};
use rules::words::manifest::media_type;
use rules::words::moment::Timestamp;
use rules::words::names::{Reference, RepositoryName, Tag};
use rules::words::query::{self, Field, Kind, Selection, text};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::lists::PageRequest;
use super::overviews::{overview_of, sbom_overview_of};
use super::stored::{missing, number};
use super::tags::{Kept, show_tag};
use super::{Harbor, labels};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// A manifest with its tags.
struct Artifact {
    digest: Digest,
    manifest: ManifestRecord,
    tags: Vec<(Tag, TagRecord)>,
}

/// An artifact that may be listed. Its bytes are not kept.
struct Candidate {
    digest: Digest,
    media_type: String,
    pushed: Timestamp,
    tags: Vec<(Tag, TagRecord)>,
    /// Only known if the client asks for it; see [`Said::kind`].
    kind: String,
    /// Likewise.
    size: u64,
    /// Likewise: the numbers of its labels.
    labels: Vec<String>,
    /// Likewise: when it was pulled last.
    pulled: Timestamp,
}

/// What `q` and `sort` may be about in lists of artifacts.
const ARTIFACT_FIELDS: &[Field<Candidate>] = &[
    Field::new("digest", Kind::Text, |one| query::Value::Text(one.digest.to_string().into())),
    Field::new("tags", Kind::Several, |one| {
        query::Value::Several(one.tags.iter().map(|(tag, _)| tag.to_string()).collect())
    }),
    Field::new("labels", Kind::Several, |one| query::Value::Several(one.labels.clone())),
    Field::new("type", Kind::Text, |one| text(&one.kind)),
    Field::new("size", Kind::Number, |one| query::number(one.size)),
    Field::new("manifest_media_type", Kind::Text, |one| text(&one.media_type)),
    Field::new("push_time", Kind::Time, |one| query::Value::Time(one.pushed)),
    Field::new("pull_time", Kind::Time, |one| query::Value::Time(one.pulled)),
    Field::new("creation_time", Kind::Time, |one| query::Value::Time(one.pushed)),
];

/// The maximum length of an artifact's annotations or references in a list, in bytes.
const DETAILS: usize = 64 << 10;

/// What Harbor's API says of a manifest, read out of its bytes. The rest of the bytes is skipped and
/// not kept.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
    config: Option<Part>,
    layers: Option<Vec<Part>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<Vec<Part>>,
    manifests: Option<Vec<Child>>,
    annotations: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Part {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Child {
    digest: String,
    size: u64,
    platform: Value,
    annotations: Value,
    urls: Value,
}

/// The digests that an index lists, and nothing else of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Listing<'a> {
    #[serde(borrow)]
    manifests: Vec<Named<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named<'a> {
    #[serde(borrow)]
    digest: std::borrow::Cow<'a, str>,
}

impl Said {
    /// What the bytes say. What an upstream sent may be odd; it is then shown without these details.
    fn of(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    /// The number of bytes of what it refers to.
    fn size(&self) -> u64 {
        let parts =
            self.layers.iter().flatten().chain(self.fs_layers.iter().flatten()).chain(&self.config);
        let children = self.manifests.iter().flatten().map(|child| child.size);
        parts.map(|part| part.size).chain(children).fold(0, u64::saturating_add)
    }

    fn config(&self) -> Option<&str> {
        self.config
            .as_ref()
            .map(|config| config.media_type.as_str())
            .filter(|kind| !kind.is_empty())
    }

    /// Harbor's word for what it is, from the media type of its configuration.
    fn kind(&self) -> String {
        if self.manifests.is_some() {
            return "IMAGE".to_owned();
        }
        let config = self.config().unwrap_or_default();
        let artifact = self.artifact_type.as_deref().unwrap_or_default();
        match config {
            "application/vnd.cncf.helm.config.v1+json" => "CHART".to_owned(),
            "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
                if artifact.is_empty() =>
            {
                "IMAGE".to_owned()
            }
            _ => {
                // Harbor's rule: what is between "vnd." and ".config", in capitals
                let of = if artifact.is_empty() { config } else { artifact };
                let word = of.strip_prefix("application/vnd.").unwrap_or(of);
                let word = word.split([';', '+']).next().unwrap_or(word);
                let word = word.split(".config").next().unwrap_or(word);
                if word.is_empty() { "UNKNOWN".to_owned() } else { word.to_uppercase() }
            }
        }
    }
}

/// The tags of a repository, by their manifests.
fn tags_by_manifest(
    records: &dyn ReadRecords,
    repository: &RepositoryName,
) -> Result<BTreeMap<Digest, Vec<(Tag, TagRecord)>>, RecordError> {
    let mut tags: BTreeMap<Digest, Vec<(Tag, TagRecord)>> = BTreeMap::new();
    for (place, record) in records.records::<TagRecord>(&key::tags(repository))? {
        if let Ok(tag) = key::tag_of(&place).parse() {
            tags.entry(record.digest).or_default().push((tag, record));
        }
    }
    Ok(tags)
}

fn is_index(record: &ManifestRecord) -> bool {
    matches!(record.media_type.as_str(), media_type::OCI_INDEX | media_type::DOCKER_LIST)
}

/// What an index in `repository` lists, as far as the repository has it.
pub(super) fn listed_in(
    records: &dyn ReadRecords,
    repository: &RepositoryName,
    index: &Digest,
) -> Result<BTreeSet<Digest>, RecordError> {
    let Some(index) = records.manifest(repository, index)? else { return Ok(BTreeSet::new()) };
    let listing: Listing<'_> = serde_json::from_slice(&index.bytes).unwrap_or_default();
    let digests = listing.manifests.iter().filter_map(|child| child.digest.parse().ok());
    Ok(digests.collect())
}

/// What an answer has that an edge is not told of.
#[derive(Clone, Copy)]
struct With {
    labels: bool,
    pulls: bool,
    scans: bool,
    sboms: bool,
}

/// When an artifact was pulled last; Harbor's zero if that was never noted.
fn pull_time(
    records: &dyn ReadRecords,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Timestamp, RecordError> {
    Ok(records.pulled(repository, digest)?.unwrap_or(Timestamp(0)))
}

/// What is kept about an artifact and its tags.
fn kept(
    records: &dyn ReadRecords,
    project: &Project,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Kept, RecordError> {
    let rules = records.policies(project.id)?.immutable;
    Ok(Kept { pulled: pull_time(records, repository, digest)?, rules })
}

/// A page of the artifacts of a repository, newest first, and the number of all. An artifact is what
/// has a tag that does not say that it is about another one, or is no part of an index and about no
/// other artifact: as Harbor lists them. `None` without any manifest.
///
/// The bytes of manifests are read one after the other, and only those of indexes and of what is on
/// the page.
fn page_of_artifacts(
    records: &dyn ReadRecords,
    project: &Project,
    repository: &RepositoryName,
    wanted: &PageRequest,
    selection: &Selection<'_, Candidate>,
    with: With,
) -> Result<Option<(Vec<Value>, usize)>, RecordError> {
    let mut tags = tags_by_manifest(records, repository)?;
    let mut found = manifests_of(records, repository)?;
    if found.is_empty() {
        return Ok(None);
    }
    let mut parts = BTreeSet::new();
    for (digest, _) in found.iter().filter(|(_, record)| is_index(record)) {
        let listed = listed_in(records, repository, digest)?;
        parts.extend(listed.into_iter().filter(|digest| found.contains_key(digest)));
    }
    // what is about another artifact by a tag's name is shown with that one
    let digests: BTreeSet<Digest> = found.keys().copied().collect();
    let is_there = |fallback: Fallback<'_>| match fallback.digest() {
        Some(digest) => digests.contains(&digest),
        None => digests.iter().any(|digest| fallback.is_about(digest)),
    };
    let is_own = |(tag, _): &(Tag, TagRecord)| !Fallback::of(tag).is_some_and(is_there);
    found.retain(|digest, record| match tags.get(digest) {
        Some(tags) => tags.iter().any(is_own),
        None => record.subject.is_none() && !parts.contains(digest),
    });
    let by_kind = selection.needs("type") || selection.needs("size");
    let mut listed = Vec::new();
    for (digest, record) in found {
        let tags = tags.remove(&digest).unwrap_or_default();
        let (mut kind, mut size) = (String::new(), 0);
        if by_kind && let Some(whole) = records.manifest(repository, &digest)? {
            let said = Said::of(&whole.bytes);
            (kind, size) = (said.kind(), said.size().saturating_add(whole.bytes.len() as u64));
        }
        let labels = match selection.needs("labels") {
            true => records.labels_on(repository, &digest)?,
            false => Vec::new(),
        };
        let labels = labels.iter().map(|id| id.0.to_string()).collect();
        let pulled = match selection.needs("pull_time") && with.pulls {
            true => pull_time(records, repository, &digest)?,
            false => Timestamp(0),
        };
        let ManifestRecord { media_type, pushed, .. } = record;
        let candidate = Candidate { digest, media_type, pushed, tags, kind, size, labels, pulled };
        if selection.admits(&candidate) {
            listed.push(candidate);
        }
    }
    listed.sort_by(|one, other| {
        let newest = || other.pushed.cmp(&one.pushed).then(one.digest.cmp(&other.digest));
        selection.order(one, other).then_with(newest)
    });
    let total = listed.len();
    let mut shown = Vec::new();
    let places = wanted.few_places();
    for one in listed.into_iter().skip(places.start).take(places.len()) {
        if let Some(manifest) = records.manifest(repository, &one.digest)? {
            let artifact = Artifact { digest: one.digest, manifest, tags: one.tags };
            let mut one = artifact.show_in_list(project, repository);
            if with.pulls {
                let kept = kept(records, project, repository, &artifact.digest)?;
                one["pull_time"] = kept.pulled.to_string().into();
                kept.tell(repository, &mut one["tags"]);
            }
            if with.scans
                && let Some(scan) =
                    overview_of(records, project, repository, &artifact.digest, || {
                        listed_in(records, repository, &artifact.digest)
                    })?
            {
                one["scan_overview"] = scan;
            }
            if with.sboms
                && let Some(sbom) = sbom_overview_of(records, repository, &artifact.digest)?
            {
                one["sbom_overview"] = sbom;
            }
            if with.labels {
                one["labels"] = labels::shown_on(records, repository, &artifact.digest)?.into();
            }
            shown.push(one);
        }
    }
    Ok(Some((shown, total)))
}

impl Artifact {
    /// As in a list: without details that are long. They are shown with the artifact itself.
    fn show_in_list(&self, project: &Project, repository: &RepositoryName) -> Value {
        let mut shown = self.show(project, repository);
        for (field, empty) in [("annotations", json!({})), ("references", json!([]))] {
            // a text of JSON is no shorter than what is in it
            if shown[field].to_string().len() > DETAILS {
                shown[field] = empty;
            }
        }
        shown
    }

    fn show(&self, project: &Project, repository: &RepositoryName) -> Value {
        let said = Said::of(&self.manifest.bytes);
        let id = number(&format!("{repository}@{}", self.digest));
        let repository_id = number(repository.as_str());
        let references: Vec<Value> = said
            .manifests
            .iter()
            .flatten()
            .map(|child| {
                json!({
                    "parent_id": id,
                    "child_id": number(&format!("{repository}@{}", child.digest)),
                    "child_digest": child.digest,
                    "platform": child.platform,
                    "annotations": child.annotations,
                    "urls": child.urls,
                })
            })
            .collect();
        let tags: Vec<Value> =
            self.tags.iter().map(|(tag, record)| show_tag(repository, id, tag, record)).collect();
        let artifact_type = said.artifact_type.as_deref().or(said.config()).unwrap_or_default();
        json!({
            "id": id,
            "type": said.kind(),
            "media_type": said.config().unwrap_or(&self.manifest.media_type),
            "manifest_media_type": self.manifest.media_type,
            "artifact_type": artifact_type,
            "project_id": project.id.0,
            "repository_id": repository_id,
            "repository_name": repository.as_str(),
            "digest": self.digest.to_string(),
            "size": said.size().saturating_add(self.manifest.bytes.len() as u64),
            "push_time": self.manifest.pushed.to_string(),
            "pull_time": Timestamp(0).to_string(),
            "annotations": said.annotations.unwrap_or_default(),
            "references": references,
            "tags": tags,
        })
    }
}

impl Harbor {
    pub(super) async fn list_artifacts(
        &self,
        request: &Request,
        project: &Project,
        name: &RepositoryName,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let selection = wanted.about(ARTIFACT_FIELDS)?;
        let with = With {
            labels: self.shows_labels(request),
            pulls: !self.neighbours.is_edge(),
            scans: self.shows_scans(request),
            sboms: self.shows_sboms(request),
        };
        if selection.needs("labels") && self.neighbours.is_edge() {
            let message = "this node is an edge, which knows no labels; ask a replica";
            return Err(Failure::new(Code::Unsupported, message));
        }
        let page = |records: &dyn ReadRecords| {
            page_of_artifacts(records, project, name, &wanted, &selection, with)
        };
        match self.read_at_length(page).await? {
            Some((shown, total)) => Ok(wanted.answer_shown(shown, total)),
            None => Err(missing(&format!("repository {name}"))),
        }
    }

    /// Whether an answer has labels. An edge is told of none, and must not say that there are none.
    fn shows_labels(&self, request: &Request) -> bool {
        request.query("with_label") == Some("true") && !self.neighbours.is_edge()
    }

    /// Whether an answer has what was found. An edge is told only what decides about pulls.
    fn shows_scans(&self, request: &Request) -> bool {
        request.query("with_scan_overview") == Some("true") && !self.neighbours.is_edge()
    }

    /// The same of SBOMs.
    fn shows_sboms(&self, request: &Request) -> bool {
        request.query("with_sbom_overview") == Some("true") && !self.neighbours.is_edge()
    }

    pub(super) async fn show_artifact(
        &self,
        request: &Request,
        project: &Project,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response<Payload>, Failure> {
        let found = self.artifact(name, reference).await?;
        let mut shown = found.show(project, name);
        if request.query("with_accessory") == Some("true") {
            shown["accessories"] = self.accessories(name, &found).await?;
        }
        if self.shows_scans(request) {
            let look = |records: &dyn ReadRecords| {
                let images = || listed_in(records, name, &found.digest);
                overview_of(records, project, name, &found.digest, images)
            };
            if let Some(scan) = self.read(look).await? {
                shown["scan_overview"] = scan;
            }
        }
        if self.shows_sboms(request) {
            let look = |records: &dyn ReadRecords| sbom_overview_of(records, name, &found.digest);
            if let Some(sbom) = self.read(look).await? {
                shown["sbom_overview"] = sbom;
            }
        }
        if self.shows_labels(request) {
            let look = |records: &dyn ReadRecords| labels::shown_on(records, name, &found.digest);
            shown["labels"] = self.read(look).await?.into();
        }
        if !self.neighbours.is_edge() {
            let look = |records: &dyn ReadRecords| kept(records, project, name, &found.digest);
            let kept = self.read(look).await?;
            shown["pull_time"] = kept.pulled.to_string().into();
            kept.tell(name, &mut shown["tags"]);
        }
        let config = Said::of(&found.manifest.bytes).config;
        let config = config.and_then(|config| Some((config.digest.parse().ok()?, config)));
        if let Some((digest, config)) = config
            && let Some(attributes) =
                self.attributes(request, project, name, &config.media_type, digest).await?
        {
            shown["extra_attrs"] = attributes;
        }
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// The page of an artifact's tags.
    pub(super) async fn list_tags(
        &self,
        request: &Request,
        project: &Project,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let found = self.artifact(name, reference).await?;
        let id = number(&format!("{name}@{}", found.digest));
        let kept = match self.neighbours.is_edge() {
            true => Kept::default(),
            false => self.read(|records| kept(records, project, name, &found.digest)).await?,
        };
        Harbor::answer_tags(&wanted, name, id, found.tags, &kept)
    }

    async fn artifact(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Artifact, Failure> {
        let found = self
            .read_at_length(|records| {
                let digest = match reference {
                    Reference::Digest(digest) => Some(*digest),
                    Reference::Tag(tag) => records.tag(name, tag)?.map(|tag| tag.digest),
                };
                let Some(digest) = digest else { return Ok(None) };
                let Some(manifest) = records.manifest(name, &digest)? else { return Ok(None) };
                let tags = records.records::<TagRecord>(&key::tags(name))?;
                let tags = tags.into_iter().filter(|(_, tag)| tag.digest == digest);
                let tags =
                    tags.filter_map(|(place, tag)| Some((key::tag_of(&place).parse().ok()?, tag)));
                Ok(Some(Artifact { digest, manifest, tags: tags.collect() }))
            })
            .await?;
        found.ok_or_else(|| missing(&format!("artifact {name}@{reference}")))
    }

    /// The digest of an artifact. Its manifest is not read.
    pub(super) async fn digest_of(
        &self,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Digest, Failure> {
        let found = self
            .read(|records| match reference {
                Reference::Tag(tag) => Ok(records.tag(name, tag)?.map(|tag| tag.digest)),
                Reference::Digest(digest) => {
                    Ok(records.has_manifest(name, digest)?.then_some(*digest))
                }
            })
            .await?;
        found.ok_or_else(|| missing(&format!("artifact {name}@{reference}")))
    }

    pub(super) async fn list_accessories(
        &self,
        request: &Request,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let found = self.artifact(name, reference).await?;
        let all = self.accessories(name, &found).await?;
        let all = all.as_array().cloned().unwrap_or_default();
        // what Harbor's clients ask for: the signatures alone, by their type
        let kind = wanted.wants("type");
        let all: Vec<Value> =
            all.into_iter().filter(|one| kind.is_none_or(|kind| one["type"] == kind)).collect();
        Ok(wanted.answer(&all, |_| "", Value::clone))
    }

    async fn accessories(&self, name: &RepositoryName, of: &Artifact) -> Result<Value, Failure> {
        let subject = number(&format!("{name}@{}", of.digest));
        let referrers = self
            .read_at_length(|records| {
                let found = records.scan(&key::referrers(name, &of.digest), None, usize::MAX)?;
                let all = found.iter().map(|(_, value)| decode(value));
                all.collect::<Result<Vec<rules::words::manifest::Referrer>, _>>()
            })
            .await?;
        let show = |digest: Digest, size: u64, kind: &str| {
            let id = number(&format!("{name}@{digest}"));
            json!({
                "id": id,
                "artifact_id": id,
                "subject_artifact_id": subject,
                "subject_artifact_digest": of.digest.to_string(),
                "subject_artifact_repo": name.as_str(),
                "digest": digest.to_string(),
                "size": size,
                "type": kind,
            })
        };
        let mut shown: Vec<Value> = referrers
            .iter()
            .map(|one| {
                let written = one.artifact_type.as_deref();
                let kind = match written {
                    Some("application/vnd.cncf.notary.signature") => "signature.notation",
                    _ if is_evidence(written) => "signature.cosign",
                    _ => written.unwrap_or(&one.media_type),
                };
                show(one.digest, one.size, kind)
            })
            .collect();
        for (kind, digest, size) in self.named_about(name, &of.digest).await? {
            if !referrers.iter().any(|one| one.digest == digest) {
                shown.push(show(digest, size, kind));
            }
        }
        Ok(json!(shown))
    }

    /// What is about an artifact by a tag's name, with Harbor's word for it and the length of its
    /// manifest. An index of referrers only repeats what their own list has.
    async fn named_about(
        &self,
        name: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<(&'static str, Digest, u64)>, Failure> {
        let look = |records: &dyn ReadRecords| {
            let mut found = Vec::new();
            for tag in tags_about(subject) {
                let kind = match Fallback::of(&tag).map(|fallback| fallback.ending) {
                    Some(".sig") => "signature.cosign",
                    Some(".att" | ".sbom") => "subject.accessory",
                    _ => continue,
                };
                let Some(TagRecord { digest, .. }) = records.tag(name, &tag)? else { continue };
                if let Some(manifest) = records.manifest(name, &digest)? {
                    found.push((kind, digest, manifest.bytes.len() as u64));
                }
            }
            Ok(found)
        };
        self.read_at_length(look).await
    }

    /// Removes an artifact with all its tags, also if it is named by one of them.
    pub(super) async fn delete_artifact(
        &self,
        name: &RepositoryName,
        reference: &Reference,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let digest = self.digest_of(name, reference).await?;
        let change = Change::DeleteManifest { repository: name.clone(), digest };
        self.change_stored(name, WriteKind::Fenced(change), by).await?;
        Ok(answer(StatusCode::OK))
    }
}

#[cfg(test)]
mod tests;
