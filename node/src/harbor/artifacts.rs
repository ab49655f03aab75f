//! Repositories, artifacts and tags in Harbor's API: what `/v2/` stores, as lists with numbers.
//!
//! Harbor's numbers are made here of names and digests, so that every node shows the same ones and
//! none needs a record.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, Response, StatusCode};
use rules::ledger::change::Change;
use rules::ledger::directory::LookForGroups;
use rules::ledger::events::Actor;
use rules::ledger::people::LookForPeople;
use rules::ledger::precondition::Precondition;
use rules::ledger::records::{
    Look, ManifestRecord, Project, ReadRecords, RecordError, Repository, TagRecord, decode, key,
};
use rules::wire::WriteKind;
use rules::words::digest::Digest;
use rules::words::manifest::media_type;
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectName, Reference, RepositoryName, Tag};
use rules::words::query::{self, Field, Kind, Selection, text};
use rules::words::roles::ProjectRole;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::lists::PageRequest;
use super::{Harbor, body, created};
use crate::http::answer::{answer, json_answer};
use crate::http::request::Request;
use crate::http::route::Stored;
use crate::http::{Code, Failure, Payload};
use registry::people::Caller;
use registry::writes::Refusal;

/// A number for a name: the same at every node, positive, and small enough for JavaScript.
fn number(name: &str) -> u64 {
    let hash = Digest::sha256(name.as_bytes()).to_key();
    let first = hash.iter().skip(1).take(8).fold(0u64, |all, byte| (all << 8) | u64::from(*byte));
    (first >> 12).max(1)
}

/// A repository of a project, as its list shows it.
pub(super) struct Listed {
    name: RepositoryName,
    record: Repository,
}

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
}

/// What `q` and `sort` may be about in lists of artifacts.
const ARTIFACT_FIELDS: &[Field<Candidate>] = &[
    Field::new("digest", Kind::Text, |one| query::Value::Text(one.digest.to_string().into())),
    Field::new("tags", Kind::Several, |one| {
        query::Value::Several(one.tags.iter().map(|(tag, _)| tag.to_string()).collect())
    }),
    Field::new("type", Kind::Text, |one| text(&one.kind)),
    Field::new("size", Kind::Number, |one| query::number(one.size)),
    Field::new("manifest_media_type", Kind::Text, |one| text(&one.media_type)),
    Field::new("push_time", Kind::Time, |one| query::Value::Time(one.pushed)),
    Field::new("creation_time", Kind::Time, |one| query::Value::Time(one.pushed)),
];

/// The number of records that are read at a time.
const AT_A_TIME: usize = 1_000;
/// The maximum length of an artifact's annotations or references in a list, in bytes.
const DETAILS: usize = 64 << 10;

#[derive(Deserialize)]
struct NewTag {
    name: Option<String>,
}

fn missing(what: &str) -> Failure {
    Failure::new(Code::NotFound, format!("{what} does not exist"))
}

/// All repositories of a project.
pub(super) fn repositories(
    records: &dyn ReadRecords,
    project: &ProjectName,
) -> Result<Vec<Listed>, RecordError> {
    let mut found = Vec::new();
    for (place, record) in records.scan(&key::repositories_of(project), None, usize::MAX)? {
        if let Ok(name) = key::name_of(&place).parse() {
            found.push(Listed { name, record: decode(&record)? });
        }
    }
    Ok(found)
}

fn show_repository(project: &Project, one: &Listed) -> Value {
    json!({
        "id": number(one.name.as_str()),
        "project_id": project.id.0,
        "name": one.name.as_str(),
        "description": "",
        "artifact_count": one.record.manifests,
        "pull_count": 0,
        "creation_time": one.record.created.to_string(),
        "update_time": one.record.created.to_string(),
    })
}

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
fn listed_in(
    records: &dyn ReadRecords,
    repository: &RepositoryName,
    index: &Digest,
) -> Result<BTreeSet<Digest>, RecordError> {
    let Some(index) = records.manifest(repository, index)? else { return Ok(BTreeSet::new()) };
    let listing: Listing<'_> = serde_json::from_slice(&index.bytes).unwrap_or_default();
    let digests = listing.manifests.iter().filter_map(|child| child.digest.parse().ok());
    Ok(digests.collect())
}

/// A page of the artifacts of a repository, newest first, and the number of all. An artifact is what
/// has a tag, or is no part of an index and about no other artifact: as Harbor lists them. `None`
/// without any manifest.
///
/// The bytes of manifests are read one after the other, and only those of indexes and of what is on
/// the page.
fn page_of_artifacts(
    records: &dyn ReadRecords,
    project: &Project,
    repository: &RepositoryName,
    wanted: &PageRequest,
    selection: &Selection<'_, Candidate>,
) -> Result<Option<(Vec<Value>, usize)>, RecordError> {
    let mut tags = tags_by_manifest(records, repository)?;
    let mut found: BTreeMap<Digest, ManifestRecord> = BTreeMap::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let some = records.scan(&key::manifests(repository), after.as_deref(), AT_A_TIME)?;
        let Some((last, _)) = some.last() else { break };
        after = Some(last.clone());
        for (place, record) in some {
            let Some(digest) = key::digest_of(&place) else { continue };
            let record: ManifestRecord = decode(&record)?;
            found.insert(digest, ManifestRecord { bytes: Vec::new(), blobs: Vec::new(), ..record });
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    let mut parts = BTreeSet::new();
    for (digest, _) in found.iter().filter(|(_, record)| is_index(record)) {
        let listed = listed_in(records, repository, digest)?;
        parts.extend(listed.into_iter().filter(|digest| found.contains_key(digest)));
    }
    found.retain(|digest, record| {
        record.subject.is_none() && !parts.contains(digest) || tags.contains_key(digest)
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
        let ManifestRecord { media_type, pushed, .. } = record;
        let candidate = Candidate { digest, media_type, pushed, tags, kind, size };
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
            shown.push(artifact.show_in_list(project, repository));
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
            "labels": [],
        })
    }
}

fn show_tag(repository: &RepositoryName, artifact: u64, tag: &Tag, record: &TagRecord) -> Value {
    json!({
        "id": number(&format!("{repository}:{tag}")),
        "repository_id": number(repository.as_str()),
        "artifact_id": artifact,
        "name": tag.as_str(),
        "push_time": record.pushed.to_string(),
        "pull_time": Timestamp(0).to_string(),
        "immutable": false,
    })
}

/// What `q` and `sort` may be about in lists of repositories.
const REPOSITORY_FIELDS: &[Field<(Project, Listed)>] = &[
    Field::new("name", Kind::Text, |(_, one)| text(one.name.as_str())),
    Field::new("repository_id", Kind::Number, |(_, one)| query::number(number(one.name.as_str()))),
    Field::new("project_id", Kind::Number, |(project, _)| query::number(project.id.0)),
    Field::new("artifact_count", Kind::Number, |(_, one)| query::number(one.record.manifests)),
    Field::new("creation_time", Kind::Time, |(_, one)| query::Value::Time(one.record.created)),
    Field::new("update_time", Kind::Time, |(_, one)| query::Value::Time(one.record.created)),
];

/// The same in lists of tags.
const TAG_FIELDS: &[Field<(Tag, TagRecord)>] = &[
    Field::new("name", Kind::Text, |(tag, _)| text(tag.as_str())),
    Field::new("push_time", Kind::Time, |(_, record)| query::Value::Time(record.pushed)),
];

fn answer_repositories(
    wanted: &PageRequest,
    found: Vec<(Project, Listed)>,
) -> Result<Response<Payload>, Failure> {
    let show = |(project, one): &(Project, Listed)| show_repository(project, one);
    wanted.answer_chosen(found, REPOSITORY_FIELDS, |(_, one)| one.name.as_str(), show)
}

impl Harbor {
    /// Answers a request about what a project stores.
    pub(super) async fn answer_about_stored(
        &self,
        request: Request,
        project: Project,
        stored: Stored,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        // the path may call the project by its number
        let own = |name: &RepositoryName| -> Result<RepositoryName, Failure> {
            let rest = name.as_str().split_once('/').map_or("", |(_, rest)| rest);
            format!("{}/{rest}", project.name)
                .parse()
                .map_err(|e| Failure::new(Code::NameInvalid, format!("{e}")))
        };
        match (&request.method, stored) {
            (&Method::DELETE, Stored::Repository(name)) => {
                self.delete_repository(&own(&name)?, by).await
            }
            (_, Stored::Repositories) => self.list_repositories(&request, &project).await,
            (_, Stored::Repository(name)) => self.show_repository(&project, &own(&name)?).await,
            (_, Stored::Artifacts(name)) => {
                self.list_artifacts(&request, &project, &own(&name)?).await
            }
            (&Method::DELETE, Stored::Artifact(name, reference)) => {
                self.delete_artifact(&own(&name)?, &reference, by).await
            }
            (_, Stored::Artifact(name, reference)) => {
                let name = own(&name)?;
                let found = self.artifact(&name, &reference).await?;
                let mut shown = found.show(&project, &name);
                if request.query("with_accessory") == Some("true") {
                    shown["accessories"] = self.accessories(&name, &found).await?;
                }
                Ok(json_answer(StatusCode::OK, &shown))
            }
            (&Method::POST, Stored::Tags(name, reference)) => {
                self.add_tag(request, &own(&name)?, &reference, by).await
            }
            (_, Stored::Tags(name, reference)) => {
                let (wanted, name) = (PageRequest::read(&request)?, own(&name)?);
                let found = self.artifact(&name, &reference).await?;
                let id = number(&format!("{name}@{}", found.digest));
                let show = |(tag, record): &(Tag, TagRecord)| show_tag(&name, id, tag, record);
                wanted.answer_chosen(found.tags, TAG_FIELDS, |(tag, _)| tag.as_str(), show)
            }
            (_, Stored::Tag(name, reference, tag)) => {
                self.remove_tag(&own(&name)?, &reference, &tag, by).await
            }
            (_, Stored::Summary) => self.summarize(&project).await,
            (_, Stored::Deletable) => {
                let found =
                    self.read_at_length(|records| repositories(records, &project.name)).await?;
                let deletable = found.is_empty() || project.upstream.is_some();
                let message = match deletable {
                    true => String::new(),
                    false => format!("the project has {} repositories", found.len()),
                };
                let shown = json!({"deletable": deletable, "message": message});
                Ok(json_answer(StatusCode::OK, &shown))
            }
        }
    }

    async fn list_repositories(
        &self,
        request: &Request,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let found = self.read_at_length(|records| repositories(records, &project.name)).await?;
        let found = found.into_iter().map(|one| (project.clone(), one)).collect();
        answer_repositories(&wanted, found)
    }

    /// The repositories of all projects that the caller may see.
    pub(super) async fn list_all_repositories(
        &self,
        request: &Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let found = self.seen_repositories(caller).await?;
        answer_repositories(&wanted, found)
    }

    async fn seen_repositories(&self, caller: &Caller) -> Result<Vec<(Project, Listed)>, Failure> {
        let seen = self.seen_projects(caller).await?;
        self.read_at_length(|records| {
            let mut all = Vec::new();
            for (project, _) in &seen {
                let found = repositories(records, &project.name)?;
                all.extend(found.into_iter().map(|one| (project.clone(), one)));
            }
            Ok(all)
        })
        .await
    }

    /// Projects and repositories with `q` in their names.
    pub(super) async fn search(
        &self,
        request: &Request,
        caller: &Caller,
    ) -> Result<Response<Payload>, Failure> {
        let part = request.query("q").unwrap_or_default();
        let projects = self.seen_projects(caller).await?;
        let named = projects.iter().filter(|(project, _)| project.name.as_str().contains(part));
        let projects: Vec<Value> =
            named.map(|(project, role)| self.show_in(project, *role)).collect();
        let found = self.seen_repositories(caller).await?;
        let named = found.iter().filter(|(_, one)| one.name.as_str().contains(part));
        let repositories: Vec<Value> = named
            .map(|(project, one)| {
                json!({
                    "project_id": project.id.0,
                    "project_name": project.name.as_str(),
                    "project_public": project.public,
                    "repository_name": one.name.as_str(),
                    "artifact_count": one.record.manifests,
                    "pull_count": 0,
                })
            })
            .collect();
        let shown = json!({"project": projects, "repository": repositories});
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// How many projects and repositories the caller may see.
    pub(super) async fn statistics(&self, caller: &Caller) -> Result<Response<Payload>, Failure> {
        let projects = self.seen_projects(caller).await?;
        let found = self.seen_repositories(caller).await?;
        let of = |public: bool| {
            let projects = projects.iter().filter(|(project, _)| project.public == public).count();
            (projects, found.iter().filter(|(project, _)| project.public == public).count())
        };
        let ((public, public_repositories), (private, private_repositories)) =
            (of(true), of(false));
        let shown = json!({
            "public_project_count": public,
            "public_repo_count": public_repositories,
            "private_project_count": private,
            "private_repo_count": private_repositories,
            "total_project_count": public + private,
            "total_repo_count": public_repositories + private_repositories,
        });
        Ok(json_answer(StatusCode::OK, &shown))
    }

    async fn show_repository(
        &self,
        project: &Project,
        name: &RepositoryName,
    ) -> Result<Response<Payload>, Failure> {
        let record =
            self.read(|records| records.record::<Repository>(&key::repository(name))).await?;
        let record = record.ok_or_else(|| missing(&format!("repository {name}")))?;
        let shown = show_repository(project, &Listed { name: name.clone(), record });
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Removes all manifests of a repository, one after the other. If this breaks off, the next
    /// DELETE goes on.
    async fn delete_repository(
        &self,
        name: &RepositoryName,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let manifests = self
            .read_at_length(|records| {
                let found = records.scan(&key::manifests(name), None, usize::MAX)?;
                Ok(found.iter().filter_map(|(place, _)| key::digest_of(place)).collect::<Vec<_>>())
            })
            .await?;
        if manifests.is_empty() {
            return Err(missing(&format!("repository {name}")));
        }
        for digest in manifests {
            let change = Change::DeleteManifest { repository: name.clone(), digest };
            match self.writes.commit(&name.project(), WriteKind::Fenced(change), by).await {
                // somebody else has deleted it
                Ok(_) | Err(Refusal::NotFound) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(answer(StatusCode::OK))
    }

    async fn list_artifacts(
        &self,
        request: &Request,
        project: &Project,
        name: &RepositoryName,
    ) -> Result<Response<Payload>, Failure> {
        let wanted = PageRequest::read(request)?;
        let selection = wanted.about(ARTIFACT_FIELDS)?;
        let page = |records: &dyn ReadRecords| {
            page_of_artifacts(records, project, name, &wanted, &selection)
        };
        match self.read_at_length(page).await? {
            Some((shown, total)) => Ok(wanted.answer_shown(shown, total)),
            None => Err(missing(&format!("repository {name}"))),
        }
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
    async fn digest_of(
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

    async fn accessories(&self, name: &RepositoryName, of: &Artifact) -> Result<Value, Failure> {
        let subject = number(&format!("{name}@{}", of.digest));
        let referrers = self
            .read_at_length(|records| {
                let found = records.scan(&key::referrers(name, &of.digest), None, usize::MAX)?;
                let all = found.iter().map(|(_, value)| decode(value));
                all.collect::<Result<Vec<rules::words::manifest::Referrer>, _>>()
            })
            .await?;
        let shown: Vec<Value> = referrers
            .iter()
            .map(|one| {
                let id = number(&format!("{name}@{}", one.digest));
                json!({
                    "id": id,
                    "artifact_id": id,
                    "subject_artifact_id": subject,
                    "subject_artifact_digest": of.digest.to_string(),
                    "subject_artifact_repo": name.as_str(),
                    "digest": one.digest.to_string(),
                    "size": one.size,
                    "type": one.artifact_type.as_deref().unwrap_or(&one.media_type),
                })
            })
            .collect();
        Ok(json!(shown))
    }

    /// Removes an artifact with all its tags, also if it is named by one of them.
    async fn delete_artifact(
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

    async fn add_tag(
        &self,
        mut request: Request,
        name: &RepositoryName,
        reference: &Reference,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let NewTag { name: tag } = body(&mut request).await?;
        let tag: Tag = tag
            .unwrap_or_default()
            .parse()
            .map_err(|e| Failure::new(Code::TagInvalid, format!("name: {e}")))?;
        let digest = self.digest_of(name, reference).await?;
        let change = Change::AddTag { repository: name.clone(), digest, tag: tag.clone() };
        match self.writes.commit(&name.project(), WriteKind::Fenced(change), by).await {
            Err(Refusal::Exists) => {
                Err(Failure::new(Code::Conflict, format!("tag {tag} exists in {name}")))
            }
            Err(Refusal::NotFound) => Err(missing(&format!("artifact {name}@{digest}"))),
            Err(refusal) => Err(refusal.into()),
            Ok(_) => {
                let rest = name.as_str().split_once('/').map_or("", |(_, rest)| rest);
                let rest = rest.replace('/', "%252F");
                let project = name.project();
                let place = format!(
                    "/api/v2.0/projects/{project}/repositories/{rest}/artifacts/{reference}/tags/{tag}"
                );
                Ok(created(Some(place)))
            }
        }
    }

    /// Takes a tag off the artifact. Another artifact's tag of this name stays.
    async fn remove_tag(
        &self,
        name: &RepositoryName,
        reference: &Reference,
        tag: &Tag,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let digest = self.digest_of(name, reference).await?;
        let precondition = Precondition::names(Reference::Tag(tag.clone()), digest);
        let change =
            Change::DeleteIf { repository: name.clone(), precondition: Box::new(precondition) };
        let no_tag = || missing(&format!("tag {tag} of {name}@{digest}"));
        match self.change_stored(name, WriteKind::Fenced(change), by).await {
            Err(failure) if failure.status() == StatusCode::PRECONDITION_FAILED => Err(no_tag()),
            changed => changed.map(|()| answer(StatusCode::OK)),
        }
    }

    async fn change_stored(
        &self,
        name: &RepositoryName,
        kind: WriteKind,
        by: &Actor,
    ) -> Result<(), Failure> {
        match self.writes.commit(&name.project(), kind, by).await {
            Ok(_) => Ok(()),
            Err(Refusal::NotFound) => Err(missing(&format!("it, in {name},"))),
            Err(refusal) => Err(refusal.into()),
        }
    }

    async fn summarize(&self, project: &Project) -> Result<Response<Payload>, Failure> {
        let (found, roles) = self
            .read_at_length(|records| {
                let users = records.members(project.id)?.into_iter().map(|one| one.role);
                let groups = records.group_members(project.id)?.into_iter().map(|one| one.role);
                let roles: Vec<ProjectRole> = users.chain(groups).collect();
                Ok((repositories(records, &project.name)?, roles))
            })
            .await?;
        let with = |number: u64| roles.iter().filter(|role| role.number() == number).count();
        let shown = json!({
            "repo_count": found.len(),
            "project_admin_count": with(1),
            "developer_count": with(2),
            "guest_count": with(3),
            "maintainer_count": with(4),
            "limited_guest_count": with(5),
        });
        Ok(json_answer(StatusCode::OK, &shown))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use rules::ledger::records::{ContentRecord, MemoryRecords, WriteRecords, encode};
    use rules::proxies::proxy::ProxyRules;
    use rules::words::names::{Epoch, NodeId, ProjectId};

    use super::*;

    #[test]
    fn numbers_are_the_same_everywhere_and_fit_into_javascripts() {
        assert_eq!(number("demo/app"), number("demo/app"));
        assert_ne!(number("demo/app"), number("demo/apq"));
        for name in ["", "a", "demo/app"] {
            assert!((1..1 << 53).contains(&number(name)), "{name}");
        }
    }

    #[test]
    fn what_an_artifact_is_is_said_in_harbors_words() {
        let kind = |json: Value| Said::of(json.to_string().as_bytes()).kind();
        let config = |kind: &str| json!({"config": {"mediaType": kind}});
        assert_eq!(kind(config("application/vnd.oci.image.config.v1+json")), "IMAGE");
        assert_eq!(kind(config("application/vnd.cncf.helm.config.v1+json")), "CHART");
        assert_eq!(kind(json!({"manifests": []})), "IMAGE");
        assert_eq!(kind(config("application/vnd.wasm.config.v0+json")), "WASM");
        assert_eq!(kind(json!({})), "UNKNOWN");
    }

    /// Records that count how often the bytes of a manifest are read.
    struct Counting {
        records: MemoryRecords,
        read: Cell<usize>,
    }

    impl ReadRecords for Counting {
        fn get(&self, place: &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
            if place.first() == key::content(&Digest::sha256(b"")).first() {
                self.read.set(self.read.get() + 1);
            }
            self.records.get(place)
        }
        fn scan(
            &self,
            prefix: &[u8],
            after: Option<&[u8]>,
            limit: usize,
        ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, RecordError> {
            self.records.scan(prefix, after, limit)
        }
    }

    #[test]
    fn a_list_reads_the_bytes_of_indexes_and_of_what_it_shows() {
        let repository: RepositoryName = "demo/a".parse().unwrap();
        let mut records = MemoryRecords::default();
        let mut put = |media_type: &str, json: Value, pushed: u64| {
            let bytes = json.to_string().into_bytes();
            let digest = Digest::sha256(&bytes);
            let manifest = ManifestRecord {
                media_type: media_type.to_owned(),
                bytes: Vec::new(),
                blobs: Vec::new(),
                subject: None,
                pushed: Timestamp(pushed),
            };
            let content = ContentRecord { repositories: 1, bytes };
            records.put(&key::manifest(&repository, &digest), &encode(&manifest).unwrap()).unwrap();
            records.put(&key::content(&digest), &encode(&content).unwrap()).unwrap();
            digest
        };
        let images: Vec<Digest> = (0..2_500)
            .map(|n| put(media_type::OCI_MANIFEST, json!({"annotations": {"n": n.to_string()}}), n))
            .collect();
        let children: Vec<Value> =
            images[..900].iter().map(|digest| json!({"digest": digest.to_string()})).collect();
        put(media_type::OCI_INDEX, json!({"manifests": children}), 5_000);
        let counting = Counting { records, read: Cell::new(0) };
        let project = Project {
            id: ProjectId(1),
            name: "demo".parse().unwrap(),
            public: true,
            durability: 1,
            home: NodeId(1),
            primary: NodeId(1),
            epoch: Epoch::FIRST,
            created: Timestamp(0),
            upstream: None,
            proxy: ProxyRules::default(),
            metadata: BTreeMap::new(),
        };
        let page = |page: &str, size: &str| {
            let wanted = PageRequest::of(Some(page), Some(size), None).unwrap();
            let selection = wanted.about(ARTIFACT_FIELDS).unwrap();
            let page =
                page_of_artifacts(&counting, &project, &repository, &wanted, &selection);
            page.unwrap().unwrap()
        };
        let (shown, total) = page("1", "10");
        assert_eq!((shown.len(), total), (10, 1_601));
        assert_eq!(shown[0]["references"], json!([]), "long details are with the artifact itself");
        assert_eq!(shown[1]["annotations"]["n"], "2499");
        assert_eq!(counting.read.get(), 11);
        assert_eq!(page("1", "0").0.len(), 100, "never all of them");
        assert_eq!(page("17", "100").0.len(), 1);
        assert_eq!(page("18", "100").0.len(), 0);
    }
}
