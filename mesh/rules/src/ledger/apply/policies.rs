//! What projects decide about their artifacts: kept, and enforced against every write.

use super::trash::Deletion;
use super::{manifests, next_number};
use crate::ledger::command::{NewManifest, Outcome};
use crate::ledger::level::Level;
use crate::ledger::policies::{AT_ONCE, LookForPolicies, PolicyChange, Pull, key};
use crate::ledger::records::{
    Look, ManifestRecord, Project, RecordError, WriteRecords, encode, key as records_key,
};
use crate::policies::MOST_RULES;
use crate::policies::immutability::{ImmutableRule, is_immutable};
use crate::words::digest::Digest;
use crate::words::fallback::Fallback;
use crate::words::moment::Timestamp;
use crate::words::names::{Reference, RepositoryName, Tag};

pub(super) fn change<R: WriteRecords>(
    records: &mut R,
    project: &Project,
    change: &PolicyChange,
) -> Result<Outcome, RecordError> {
    let mut policies = records.policies(project.id)?;
    let rules = &mut policies.immutable;
    match change {
        PolicyChange::AddImmutable(rule) => {
            if rules.iter().any(|known| known.is_as(rule)) {
                return Ok(Outcome::Exists);
            }
            if rules.len() >= MOST_RULES {
                let said = format!("only {MOST_RULES} rules are allowed at most");
                return Ok(Outcome::Refused(said));
            }
            let id = next_number(records, &key::last_rule())?;
            rules.push(ImmutableRule { id, ..rule.clone() });
        }
        PolicyChange::SetImmutable(rule) => {
            if rules.iter().any(|known| known.id != rule.id && known.is_as(rule)) {
                return Ok(Outcome::Exists);
            }
            let Some(known) = rules.iter_mut().find(|known| known.id == rule.id) else {
                return Ok(Outcome::NotFound);
            };
            known.clone_from(rule);
        }
        PolicyChange::RemoveImmutable(id) => {
            let before = rules.len();
            rules.retain(|known| known.id != *id);
            if rules.len() == before {
                return Ok(Outcome::NotFound);
            }
        }
        PolicyChange::SetRetention(retention) => {
            if retention.as_ref().is_some_and(|retention| retention.rules.len() > MOST_RULES) {
                let said = format!("only {MOST_RULES} rules are allowed at most");
                return Ok(Outcome::Refused(said));
            }
            policies.retention.clone_from(retention);
        }
    }
    records.put(&key::policies(project.id), &encode(&policies)?)?;
    Ok(Outcome::Done)
}

/// The name of a repository without its project's, as rules have it.
fn within(repository: &RepositoryName) -> &str {
    repository.as_str().split_once('/').map_or("", |(_, rest)| rest)
}

fn immutable_rules<R: WriteRecords>(
    records: &R,
    project: &Project,
) -> Result<Vec<ImmutableRule>, RecordError> {
    Ok(records.policies(project.id)?.immutable)
}

/// Why a push may not move its tags, if it may not. A tag that names the manifest already is not
/// moved.
pub(super) fn forbids_put<R: WriteRecords>(
    records: &R,
    project: &Project,
    new: &NewManifest,
) -> Result<Option<Outcome>, RecordError> {
    if new.tags.is_empty() {
        return Ok(None);
    }
    let rules = immutable_rules(records, project)?;
    let name = within(&new.repository);
    // signatures are added to what is signed, which moves these tags
    let moves_on = records.level()? >= Level::SIGNATURES;
    let held = new.tags.iter().filter(|tag| is_immutable(&rules, name, tag.as_str()));
    for tag in held.filter(|tag| !moves_on || Fallback::of(tag).is_none()) {
        let known = records.tag(&new.repository, tag)?;
        if known.is_some_and(|known| known.digest != new.digest) {
            let said =
                format!("Failed to process request due to '{name}:{tag}' configured as immutable.");
            return Ok(Some(Outcome::Immutable(said)));
        }
    }
    Ok(None)
}

/// Why something may not be deleted, if it may not.
pub(super) fn forbids_delete<R: WriteRecords>(
    records: &R,
    project: &Project,
    repository: &RepositoryName,
    what: &Reference,
) -> Result<Option<Outcome>, RecordError> {
    let rules = immutable_rules(records, project)?;
    if rules.is_empty() {
        return Ok(None);
    }
    let immutable = match what {
        Reference::Tag(tag) => {
            is_immutable(&rules, within(repository), tag.as_str()).then(|| tag.as_str().to_owned())
        }
        Reference::Digest(digest) => {
            let tags = tags_of(records, repository, digest)?;
            tags.into_iter().find(|tag| is_immutable(&rules, within(repository), tag))
        }
    };
    // what is not there is not found
    let there = match what {
        Reference::Tag(tag) => records.tag(repository, tag)?.is_some(),
        Reference::Digest(_) => true,
    };
    Ok(immutable.filter(|_| there).map(|tag| {
        Outcome::Immutable(format!("the tag {tag} configured as immutable, cannot be deleted"))
    }))
}

/// The tags of an artifact, by the index of tags.
fn tags_of<R: WriteRecords>(
    records: &R,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Vec<String>, RecordError> {
    let named = records_key::all_named(repository, digest);
    let places = records.scan(&named, None, usize::MAX)?;
    let tag = |place: &[u8]| String::from_utf8_lossy(&place[named.len()..]).into_owned();
    Ok(places.iter().map(|(place, _)| tag(place)).collect())
}

/// Deletes those of `digests` that were not pushed, tagged or pulled since they were judged, and
/// have no immutable tag.
pub(super) fn retire<R: WriteRecords>(
    records: &mut R,
    deletion: &Deletion,
    project: &Project,
    repository: &RepositoryName,
    digests: &[Digest],
    judged: Timestamp,
) -> Result<Outcome, RecordError> {
    if records.level()? < Level::POLICIES || digests.len() > AT_ONCE {
        return Ok(Outcome::Refused("too many artifacts, or too early".into()));
    }
    let rules = immutable_rules(records, project)?;
    let mut deletions = Deletions::default();
    for digest in digests {
        let place = records_key::manifest(repository, digest);
        let Some(manifest) = records.record::<ManifestRecord>(&place)? else { continue };
        let pulled = records.pulled(repository, digest)?.unwrap_or(Timestamp(0));
        let mut newest = manifest.pushed.max(pulled);
        let mut immutable = false;
        for tag in tags_of(records, repository, digest)? {
            immutable |= is_immutable(&rules, within(repository), &tag);
            if let Ok(tag) = tag.parse::<Tag>()
                && let Some(record) = records.tag(repository, &tag)?
            {
                newest = newest.max(record.pushed);
            }
        }
        if newest < judged && !immutable {
            deletions.note(manifests::delete(records, deletion, repository, digest)?);
        }
    }
    Ok(deletions.outcome())
}

/// What became of several deletions that one entry makes.
#[derive(Default)]
struct Deletions {
    any: bool,
    unfinished: bool,
}

impl Deletions {
    fn note(&mut self, outcome: Outcome) {
        self.any = true;
        self.unfinished |= outcome == Outcome::Unfinished;
    }

    fn outcome(&self) -> Outcome {
        match (self.unfinished, self.any) {
            (true, _) => Outcome::Unfinished,
            (false, true) => Outcome::Done,
            (false, false) => Outcome::NotFound,
        }
    }
}

/// Deletes those of `seen` that have no immutable tag, if all that are there are as they were seen.
pub(super) fn retire_seen<R: WriteRecords>(
    records: &mut R,
    deletion: &Deletion,
    project: &Project,
    repository: &RepositoryName,
    seen: &[(Digest, Digest)],
) -> Result<Outcome, RecordError> {
    if records.level()? < Level::SEEN || seen.len() > AT_ONCE {
        return Ok(Outcome::Refused("too many artifacts, or too early".into()));
    }
    let mut there = Vec::new();
    for (digest, was) in seen {
        match records.seen(repository, digest)? {
            Some(is) if is == *was => there.push(*digest),
            Some(_) => return Ok(Outcome::PreconditionFailed),
            None => {}
        }
    }
    let rules = immutable_rules(records, project)?;
    let mut deletions = Deletions::default();
    for digest in there {
        let tags = tags_of(records, repository, &digest)?;
        if tags.iter().any(|tag| is_immutable(&rules, within(repository), tag)) {
            continue;
        }
        // it may have gone with one before it
        deletions.note(manifests::delete(records, deletion, repository, &digest)?);
    }
    Ok(deletions.outcome())
}

/// Notes when artifacts were pulled. What is not there, or older than what is known, is ignored.
pub(super) fn pulled<R: WriteRecords>(
    records: &mut R,
    at: Timestamp,
    pulls: &[Pull],
) -> Result<Outcome, RecordError> {
    if records.level()? < Level::POLICIES || pulls.len() > AT_ONCE {
        return Ok(Outcome::Refused("too many pulls, or too early".into()));
    }
    if records.pulls_counted_since()?.is_none() {
        records.put(&key::counted_since(), &encode(&at)?)?;
    }
    for pull in pulls {
        let known = records.pulled(&pull.repository, &pull.digest)?;
        if known.is_none_or(|known| known < pull.at)
            && records.has_manifest(&pull.repository, &pull.digest)?
        {
            // a node's clock may be ahead
            let when = pull.at.min(at);
            records.put(&key::pulled(&pull.repository, &pull.digest), &encode(&when)?)?;
        }
    }
    Ok(Outcome::Done)
}
