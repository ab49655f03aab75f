//! `/api/atoll/v1/replication`: how many copies artifacts have, and what regions lack.

use std::collections::{BTreeMap, BTreeSet};

use ground::supervise::at_length;
use http::{Response, StatusCode};
use rules::ledger::records::{
    BlobRecord, Look, ManifestRecord, ReadRecords, RecordError, Role, decode, key,
};
use rules::members::placement::Candidate;
use rules::members::replication::{Copies, Replicated};
use rules::words::digest::Digest;
use rules::words::manifest::Manifest;
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectName, Reference, RepositoryName};
use serde_json::{Value, json};

use super::Atoll;
use super::holdings::kept_by_all;
use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The maximum number of artifacts that are named.
const NAMED: usize = 1000;
/// How deep indexes in indexes are followed.
const NESTED: usize = 3;
/// The maximum number of tags that are named of each.
const TAGS: usize = 5;

/// What the question is about.
enum About {
    Everything,
    Project(ProjectName),
    Repository(RepositoryName, Option<Reference>),
}

/// An artifact, as far as it matters here.
struct Artifact {
    repository: RepositoryName,
    digest: Digest,
    durability: u32,
    blobs: Vec<Digest>,
    pushed: Timestamp,
}

impl About {
    /// `PROJECT`, `REPOSITORY`, `REPOSITORY:TAG` or `REPOSITORY@DIGEST`.
    fn parse(text: Option<&str>) -> Result<Self, Failure> {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::new(
                Code::BadRequest,
                format!(
                    "of is a project, a repository or an artifact (REPOSITORY:TAG or REPOSITORY@DIGEST): {error}"
                ),
            )
        };
        let Some(text) = text else { return Ok(About::Everything) };
        if !text.contains('/') {
            return Ok(About::Project(text.parse().map_err(|error| wrong(&error))?));
        }
        let (name, reference) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => match text.rsplit_once(':') {
                Some((name, tag)) => (name, Some(tag)),
                None => (text, None),
            },
        };
        let reference = reference.map(str::parse).transpose().map_err(|error| wrong(&error))?;
        Ok(About::Repository(name.parse().map_err(|error| wrong(&error))?, reference))
    }

    fn project(&self) -> Option<ProjectName> {
        match self {
            About::Everything => None,
            About::Project(name) => Some(name.clone()),
            About::Repository(name, _) => Some(name.project()),
        }
    }

    /// The artifacts it is about; `None` if there is no such thing.
    fn artifacts(&self, records: &dyn ReadRecords) -> Result<Option<Vec<Artifact>>, RecordError> {
        let asked = self.project();
        let mut all = Vec::new();
        let mut is_there = asked.is_none();
        for project in records.projects()? {
            if asked.as_ref().is_some_and(|name| *name != project.name) {
                continue;
            }
            is_there = true;
            // what a proxy project has cached is its upstream's
            if project.upstream.is_some() {
                continue;
            }
            let prefix = match self {
                About::Repository(repository, _) => key::manifests(repository),
                _ => key::manifests_of(&project.name),
            };
            let only = match self {
                About::Repository(repository, Some(Reference::Tag(tag))) => {
                    let Some(tag) = records.tag(repository, tag)? else { return Ok(None) };
                    Some(tag.digest)
                }
                About::Repository(_, Some(Reference::Digest(digest))) => Some(*digest),
                _ => None,
            };
            for (place, record) in records.scan(&prefix, None, usize::MAX)? {
                let Some((repository, digest)) = named(&place) else { continue };
                if only.is_some_and(|only| only != digest) {
                    continue;
                }
                let ManifestRecord { blobs, pushed, .. } = decode(&record)?;
                let durability = project.durability;
                let blobs = blobs_of(records, &repository, (&digest, blobs), NESTED)?;
                all.push(Artifact { repository, digest, durability, blobs, pushed });
            }
        }
        let found = is_there && (!all.is_empty() || !matches!(self, About::Repository(..)));
        Ok(found.then_some(all))
    }
}

/// The blobs of an artifact. An index is as good as the images that it lists, so it has theirs.
fn blobs_of(
    records: &dyn ReadRecords,
    repository: &RepositoryName,
    (digest, own): (&Digest, Vec<Digest>),
    nested: usize,
) -> Result<Vec<Digest>, RecordError> {
    if !own.is_empty() || nested == 0 {
        return Ok(own);
    }
    let Some(manifest) = records.manifest(repository, digest)? else { return Ok(own) };
    let Ok(read) = Manifest::read_served(&manifest.media_type, &manifest.bytes) else {
        return Ok(Vec::new());
    };
    let mut all = BTreeSet::new();
    for child in read.children.iter().filter(|child| child.manifest) {
        // one that is not there (a sparse index) has no copies to lack
        if let Some(listed) = records.manifest(repository, &child.digest)? {
            let listed = (&child.digest, listed.blobs);
            all.extend(blobs_of(records, repository, listed, nested - 1)?);
        }
    }
    Ok(all.into_iter().collect())
}

/// The repository and the digest in a manifest's key.
pub(super) fn named(place: &[u8]) -> Option<(RepositoryName, Digest)> {
    let end = place.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(place.get(1..end)?).ok()?;
    Some((name.parse().ok()?, Digest::from_key(place.get(end + 1..)?).ok()?))
}

impl Atoll {
    /// Says of the artifacts in a place how many regions keep them. Without `all=true` those that
    /// have their copies are only counted.
    pub(super) async fn show_replication(
        &self,
        request: &Request,
    ) -> Result<Response<Payload>, Failure> {
        if self.records.ledger().is_none() {
            let message = "an edge does not know this; ask a replica";
            return Err(Failure::new(Code::Unsupported, message));
        }
        let about = About::parse(request.query("of"))?;
        let with_all = request.query("all") == Some("true");
        let (artifacts, freshness) =
            self.door.read_at_length(|records| about.artifacts(records)).await?;
        let Some(artifacts) = artifacts else {
            return Err(Failure::new(Code::NotFound, "there is no such project or artifact"));
        };
        let wanted: BTreeSet<Digest> =
            artifacts.iter().flat_map(|one| &one.blobs).copied().collect();
        let holdings = kept_by_all(&self.neighbours, &self.store, wanted).await?;
        let replicas: Vec<Candidate> = self
            .neighbours
            .nodes()
            .iter()
            .filter(|node| node.role == Role::Replica)
            .map(Candidate::of)
            .collect();
        let draining = self.neighbours.draining();
        let mut up = self.neighbours.alive();
        up.retain(|one| !draining.contains(&one.id));
        let silent: Vec<String> = replicas
            .iter()
            .filter(|one| !holdings.contains_key(&one.id))
            .map(|one| self.neighbours.name_of(one.id))
            .collect();
        let told = at_length(|| {
            let copies = Copies::new(&replicas, &up, &holdings);
            self.tell(&artifacts, &copies, with_all)
        })?;
        let (regions, shown, short, count) = told;
        let answer = json!({
            "seen_from": self.neighbours.name_of(self.neighbours.me),
            "is_fresh": freshness == registry::view::Freshness::Fresh,
            "silent": silent,
            "regions": regions,
            "artifacts": shown,
            "under_replicated": short,
            "of": count,
        });
        Ok(json_answer(StatusCode::OK, &answer))
    }

    /// What regions lack, the artifacts to show, and how many have too few copies, of how many.
    fn tell(
        &self,
        artifacts: &[Artifact],
        copies: &Copies<'_>,
        with_all: bool,
    ) -> Result<(Vec<Value>, Vec<Value>, usize, usize), RecordError> {
        let view = self.records.view()?;
        let size = |digest: &Digest| -> Result<u64, RecordError> {
            Ok(view.record::<BlobRecord>(&key::blob(digest))?.map_or(0, |record| record.size))
        };
        let mut lacking: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut counted: BTreeSet<Digest> = BTreeSet::new();
        let mut found: Vec<(&Artifact, Replicated)> = Vec::new();
        let mut short = 0;
        for artifact in artifacts {
            let replicated = copies.of(&artifact.blobs, artifact.durability);
            for digest in &replicated.short {
                // a blob of several artifacts is copied once
                if counted.insert(*digest) {
                    for region in copies.lacking(digest, artifact.durability) {
                        let (blobs, bytes) = lacking.entry(region.to_string()).or_default();
                        (*blobs, *bytes) = (*blobs + 1, *bytes + size(digest)?);
                    }
                }
            }
            short += usize::from(!replicated.short.is_empty());
            if with_all || !replicated.short.is_empty() {
                found.push((artifact, replicated));
            }
        }
        // what has the fewest copies first, of those the newest
        found.sort_by_key(|(one, replicated)| (replicated.regions, std::cmp::Reverse(one.pushed)));
        let mut shown = Vec::new();
        for (artifact, Replicated { regions, of, short }) in found.into_iter().take(NAMED) {
            let place = key::all_named(&artifact.repository, &artifact.digest);
            let tags = view.scan(&place, None, TAGS)?;
            let tags: Vec<_> = tags
                .iter()
                .filter_map(|(tag, _)| Some(String::from_utf8_lossy(tag.get(place.len()..)?)))
                .collect();
            let mut bytes = 0;
            for digest in &short {
                bytes += size(digest)?;
            }
            shown.push(json!({
                "repository": artifact.repository.as_str(),
                "digest": artifact.digest.to_string(),
                "tags": tags,
                "pushed": artifact.pushed.to_string(),
                "replicated": regions,
                "of": of,
                "short_blobs": short.len(),
                "short_bytes": bytes,
            }));
        }
        let regions = lacking.into_iter().map(|(region, (blobs, bytes))| {
            json!({"region": region, "lacks_blobs": blobs, "lacks_bytes": bytes})
        });
        Ok((regions.collect(), shown, short, artifacts.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_about_all_a_project_a_repository_or_an_artifact() {
        let digest = Digest::sha256(b"x");
        let parse = |text: &str| About::parse(Some(text));
        assert!(matches!(About::parse(None), Ok(About::Everything)));
        assert!(matches!(parse("team"), Ok(About::Project(_))));
        assert!(matches!(parse("team/app"), Ok(About::Repository(_, None))));
        assert!(matches!(parse("team/a/b:v1"), Ok(About::Repository(_, Some(Reference::Tag(_))))));
        let by_digest = parse(&format!("team/app@{digest}"));
        assert!(matches!(by_digest, Ok(About::Repository(_, Some(Reference::Digest(_))))));
        for wrong in ["", "Team", "team/", "team/app@", "team/app:", "/", "team/app@sha256:zz"] {
            let no = parse(wrong).err().unwrap_or_else(|| panic!("{wrong:?} was taken"));
            assert_eq!(no.status(), StatusCode::BAD_REQUEST, "{wrong:?}");
        }
    }

    #[test]
    fn a_manifests_key_names_it() {
        let (repository, digest) = ("team/a/b".parse().unwrap(), Digest::sha256(b"x"));
        let place = key::manifest(&repository, &digest);
        assert_eq!(named(&place), Some((repository, digest)));
        assert_eq!(named(b"m"), None);
    }
}
