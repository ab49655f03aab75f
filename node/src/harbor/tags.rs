//! Tags of artifacts in Harbor's API.

use http::{Response, StatusCode};
use registry::writes::Refusal;
use rules::ledger::change::Change;
use rules::ledger::events::Actor;
use rules::ledger::precondition::Precondition;
use rules::ledger::records::TagRecord;
use rules::policies::immutability::{ImmutableRule, is_immutable};
use rules::wire::WriteKind;
use rules::words::moment::Timestamp;
use rules::words::names::{Reference, RepositoryName, Tag};
use rules::words::query::{self, Field, Kind, text};
use serde::Deserialize;
use serde_json::{Value, json};

use super::lists::PageRequest;
use super::stored::{missing, number};
use super::{Harbor, body, created};
use crate::http::answer::answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

#[derive(Deserialize)]
struct NewTag {
    name: Option<String>,
}

/// A tag as Harbor shows it.
pub(super) fn show_tag(
    repository: &RepositoryName,
    artifact: u64,
    tag: &Tag,
    record: &TagRecord,
) -> Value {
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

/// What the ledger has about the tags of an artifact apart from themselves. An edge is not told of it.
#[derive(Default)]
pub(super) struct Kept {
    /// When the artifact was pulled last, by whichever tag or digest; Harbor's zero if that was never
    /// noted.
    pub(super) pulled: Timestamp,
    /// The project's immutable tag rules.
    pub(super) rules: Vec<ImmutableRule>,
}

impl Kept {
    /// Says it of tags that are shown.
    pub(super) fn tell(&self, repository: &RepositoryName, tags: &mut Value) {
        let within = repository.as_str().split_once('/').map_or("", |(_, rest)| rest);
        for tag in tags.as_array_mut().into_iter().flatten() {
            tag["pull_time"] = self.pulled.to_string().into();
            let name = tag["name"].as_str().unwrap_or_default();
            tag["immutable"] = is_immutable(&self.rules, within, name).into();
        }
    }
}

/// What `q` and `sort` may be about in lists of tags.
const TAG_FIELDS: &[Field<(Tag, TagRecord, Timestamp)>] = &[
    Field::new("name", Kind::Text, |(tag, ..)| text(tag.as_str())),
    Field::new("push_time", Kind::Time, |(_, record, _)| query::Value::Time(record.pushed)),
    Field::new("pull_time", Kind::Time, |(.., pulled)| query::Value::Time(*pulled)),
];

impl Harbor {
    /// The page of an artifact's tags.
    pub(super) fn answer_tags(
        wanted: &PageRequest,
        name: &RepositoryName,
        artifact: u64,
        tags: Vec<(Tag, TagRecord)>,
        kept: &Kept,
    ) -> Result<Response<Payload>, Failure> {
        let tags = tags.into_iter().map(|(tag, record)| (tag, record, kept.pulled)).collect();
        let show = |(tag, record, _): &(Tag, TagRecord, Timestamp)| {
            let mut shown = json!([show_tag(name, artifact, tag, record)]);
            kept.tell(name, &mut shown);
            shown[0].take()
        };
        wanted.answer_chosen(tags, TAG_FIELDS, |(tag, ..)| tag.as_str(), show)
    }

    pub(super) async fn add_tag(
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
    pub(super) async fn remove_tag(
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
        match self.writes.commit(&name.project(), WriteKind::Fenced(change), by).await {
            Ok(_) => Ok(answer(StatusCode::OK)),
            Err(Refusal::Precondition | Refusal::NotFound) => Err(no_tag()),
            Err(refusal) => Err(refusal.into()),
        }
    }
}
