//! `/api/v2.0/projects/PROJECT/trash`: what was deleted, and how it comes back. Not in Harbor.

use std::collections::BTreeSet;

use http::{Response, StatusCode};
use registry::writes::Refusal;
use rules::ledger::change::Change;
use rules::ledger::command::Outcome;
use rules::ledger::events::Actor;
use rules::ledger::level::Level;
use rules::ledger::records::{Look, Project, ReadRecords};
use rules::ledger::trash::{
    AT_ONCE, LookForTrash, MOST_RESTORED, TrashChange, TrashRecord, Why, restoration,
};
use rules::wire::WriteKind;
use rules::words::digest::Digest;
use rules::words::names::{Reference, RepositoryName, Tag};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Harbor, bad, body};
use crate::http::answer::json_answer;
use crate::http::request::Request;
use crate::http::{Code, Failure, Payload};

/// The maximum number of records in an answer.
const PAGE: usize = 500;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreBody {
    /// The repository, without the project.
    repository: String,
    /// A tag or digest. If absent, all that the trash has of the repository.
    reference: Option<String>,
}

fn show(repository: &RepositoryName, digest: &Digest, record: &TrashRecord) -> Value {
    json!({
        "repository": repository.as_str(),
        "digest": digest.to_string(),
        "tags": record.tags.iter().map(|(tag, _)| tag.as_str()).collect::<Vec<_>>(),
        // a deleted tag whose artifact stays has none
        "artifact": record.manifest.is_some(),
        "media_type": record.manifest.as_ref().map(|manifest| manifest.media_type.as_str()),
        "pushed_at": record.manifest.as_ref().map(|manifest| manifest.pushed.to_string()),
        "deleted_at": record.at.to_string(),
        "until": record.until.to_string(),
        "deleted_by": record.by,
        "reason": match record.why {
            Why::Deleted => "deleted",
            Why::NotRetained => "not retained",
        },
        "with": record.with.map(|with| with.to_string()),
    })
}

/// A repository of the project.
fn within(project: &Project, name: &str) -> Result<RepositoryName, Failure> {
    format!("{}/{name}", project.name)
        .parse()
        .map_err(|e| Failure::new(Code::NameInvalid, format!("repository: {e}")))
}

fn nothing(message: String) -> Failure {
    Failure::new(Code::NotFound, message)
}

/// What a request has restored.
#[derive(Default)]
struct Restored {
    artifacts: u64,
    missing: Vec<String>,
    blobs: BTreeSet<Digest>,
}

impl Harbor {
    /// What the trash has, in the order of names. `next` continues a long list.
    pub(super) async fn list_trash(
        &self,
        request: &Request,
        project: &Project,
    ) -> Result<Response<Payload>, Failure> {
        let repository =
            request.query("repository").map(|name| within(project, name)).transpose()?;
        let after = match request.query("after").map(|text| text.rsplit_once('@')) {
            None => None,
            Some(Some((name, digest))) => {
                let digest = digest.parse().map_err(|e| bad(format!("after: {e}")))?;
                Some((within(project, name)?, digest))
            }
            Some(None) => return Err(bad("after is what the last answer called next")),
        };
        let look = |records: &dyn ReadRecords| {
            let page = records.trash(&project.name, repository.as_ref(), after.as_ref(), PAGE)?;
            Ok((page, records.trash_usage(&project.name)?, records.trash_time(project)?))
        };
        let (page, usage, time) = self.read_at_length(look).await?;
        let next = page.last().filter(|_| page.len() == PAGE).map(|(name, digest, _)| {
            let name = name.as_str().split_once('/').map_or("", |(_, rest)| rest);
            format!("{name}@{digest}")
        });
        let shown = json!({
            "kept_seconds": time.as_secs(),
            "artifacts": usage.manifests,
            // of what only the trash has
            "bytes": usage.storage,
            "records": page.iter().map(|(name, digest, record)| show(name, digest, record))
                .collect::<Vec<_>>(),
            "next": next,
        });
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Restores an artifact with what went with it, a tag, or all of a repository.
    pub(super) async fn restore(
        &self,
        mut request: Request,
        project: &Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        let RestoreBody { repository, reference } = body(&mut request).await?;
        self.writes.check_level(Level::TRASH)?;
        let repository = within(project, &repository)?;
        let mut restored = Restored::default();
        match reference {
            Some(reference) => {
                let reference: Reference =
                    reference.parse().map_err(|e| bad(format!("reference: {e}")))?;
                let (digest, tag) = match reference {
                    Reference::Digest(digest) => (Some(digest), None),
                    Reference::Tag(tag) => {
                        let look =
                            |records: &dyn ReadRecords| records.last_tagged(&repository, &tag);
                        (self.read_at_length(look).await?, Some(tag))
                    }
                };
                let gone =
                    || nothing(format!("the trash of {repository} has no such artifact or tag"));
                let digest = digest.ok_or_else(gone)?;
                if !self.restore_one(&repository, digest, tag, by, &mut restored).await? {
                    return Err(gone());
                }
            }
            None => {
                let (mut any, mut after) = (false, None);
                loop {
                    let look = |records: &dyn ReadRecords| {
                        records.trash(&project.name, Some(&repository), after.as_ref(), AT_ONCE)
                    };
                    let page = self.read_at_length(look).await?;
                    let Some((name, last, _)) = page.last() else { break };
                    after = Some((name.clone(), *last));
                    for (_, digest, _) in page {
                        any |=
                            self.restore_one(&repository, digest, None, by, &mut restored).await?;
                    }
                }
                if !any {
                    return Err(nothing(format!("the trash has nothing of {repository}")));
                }
            }
        }
        let blobs: Vec<Digest> = restored.blobs.into_iter().collect();
        let lost = self.pulls.lost_among(&blobs).await?;
        let shown = json!({
            "repository": repository.as_str(),
            "restored": restored.artifacts,
            // what an index lists and nobody has any more
            "missing": restored.missing,
            // layers and configs of which no replica has a sound copy
            "lost_blobs": lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        Ok(json_answer(StatusCode::OK, &shown))
    }

    /// Restores an artifact, if the trash has it, and all that belongs to it, in as many steps as that
    /// takes. If one of them is refused, what was restored before stays.
    async fn restore_one(
        &self,
        repository: &RepositoryName,
        digest: Digest,
        tag: Option<Tag>,
        by: &Actor,
        restored: &mut Restored,
    ) -> Result<bool, Failure> {
        let look = |records: &dyn ReadRecords| {
            let found = restoration(records, repository, digest)?;
            let mut blobs = BTreeSet::new();
            for one in &found.all {
                let manifest = records.trashed(repository, one)?.and_then(|one| one.manifest);
                blobs.extend(manifest.into_iter().flat_map(|manifest| manifest.blobs));
            }
            Ok((found, blobs))
        };
        let (found, blobs) = self.read_at_length(look).await?;
        if found.too_much {
            let message = format!(
                "more than {MOST_RESTORED} artifacts belong to {digest}: restore those that it lists first, by their digests"
            );
            return Err(Failure::new(Code::Conflict, message));
        }
        let taken = |tag: &Tag| {
            let message = format!(
                "{repository}:{tag} names something now; restore {digest} by its digest, and it comes back without that tag"
            );
            Failure::new(Code::Conflict, message)
        };
        let steps = found.steps(repository, digest, tag.as_ref());
        // before the first step, and not after some
        if let Some(tag) = tag.as_ref().filter(|_| steps.len() > 1)
            && self.read(|records| records.tag(repository, tag)).await?.is_some()
        {
            return Err(taken(tag));
        }
        let mut any = false;
        for step in steps {
            let TrashChange::Restore { all, .. } = &step else { continue };
            let count = all.len() as u64;
            let kind = WriteKind::Fenced(Change::Trash(Box::new(step)));
            match (self.writes.commit(&repository.project(), kind, by).await, &tag) {
                (Ok(_), _) => {
                    restored.artifacts += count;
                    any = true;
                }
                // it was restored or pushed meanwhile
                (Err(Refusal::NotFound), _) => {}
                (Err(Refusal::Exists), Some(tag)) => return Err(taken(tag)),
                (Err(refusal), _) => return Err(refusal.into()),
            }
        }
        if any {
            restored.blobs.extend(blobs);
        }
        restored.missing.extend(found.missing.iter().filter(|_| any).map(ToString::to_string));
        Ok(any)
    }

    /// Removes what the trash has: all, that of a repository, or one artifact with what went with it.
    pub(super) async fn empty_trash(
        &self,
        request: &Request,
        project: &Project,
        by: &Actor,
    ) -> Result<Response<Payload>, Failure> {
        self.writes.check_level(Level::TRASH)?;
        // neither a parameter that is misspelt nor a script's unset variable must mean everything
        request.knows_only(&["repository", "digest"])?;
        for name in ["repository", "digest"] {
            if request.has_query(name) && request.query(name).is_none_or(str::is_empty) {
                return Err(bad(format!("{name} is empty; leave it out to mean all")));
            }
        }
        let repository =
            request.query("repository").map(|name| within(project, name)).transpose()?;
        let digest = match (request.query("digest"), &repository) {
            (Some(_), None) => return Err(bad("digest needs the repository that it is in")),
            (Some(text), Some(_)) => {
                Some(text.parse::<Digest>().map_err(|e| bad(format!("digest: {e}")))?)
            }
            (None, _) => None,
        };
        loop {
            let change = TrashChange::Empty {
                project: project.name.clone(),
                repository: repository.clone(),
                digest,
            };
            let kind = WriteKind::Fenced(Change::Trash(Box::new(change)));
            match self.writes.commit(&project.name, kind, by).await {
                Ok(Outcome::Unfinished) => {}
                Ok(_) => return Ok(Response::new(Payload::empty())),
                // to empty what is empty is no fault; one artifact that is not there may be misspelt
                Err(Refusal::NotFound) if digest.is_none() => {
                    return Ok(Response::new(Payload::empty()));
                }
                Err(Refusal::NotFound) => {
                    return Err(nothing("the trash has no such artifact".into()));
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }
}
