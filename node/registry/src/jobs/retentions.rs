//! Retention: deletes the artifacts that a project does not retain. `rules::policies::retention`
//! decides which.
//!
//! A run is a job of its project, so its primary has it. It judges a repository and deletes at once
//! what is judged, by a write of the project's epoch that passes over what was pushed, tagged or
//! pulled meanwhile. When an index goes, what it listed is judged next.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use ground::clock;
use ground::supervise::at_length;
use rules::ledger::change::Change;
use rules::ledger::events::Actor;
use rules::ledger::jobs::{Priority, RunEnd, Task};
use rules::ledger::policies::{AT_ONCE, LookForPolicies, Policies};
use rules::ledger::records::{
    Look, ManifestRecord, ReadRecords, RecordError, TagRecord, decode, key,
};
use rules::policies::immutability::is_immutable;
use rules::policies::retention::{Candidate, Fate, fates, needs_confirmation};
use rules::wire::WriteKind;
use rules::words::digest::Digest;
use rules::words::manifest::{Manifest, media_type};
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectName, RepositoryName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Run, Work};
use crate::view::Records;
use crate::writes::{Refusal, Writes};

/// The name of this kind of jobs.
pub const KIND: &str = "retention";
/// How often a run is tried.
const TRIES: u32 = 3;
/// How often a repository is judged again: an index that lists indexes that list images.
const PASSES: usize = 4;
/// The number of records that are read in one scan.
const PAGE: usize = 1000;
/// How far the clocks of two nodes may be apart, in milliseconds.
const APART: u64 = 60_000;
/// The maximum number of artifacts that a log names.
const NAMED: usize = 400;

/// What a run is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Only say what would be deleted.
    pub dry_run: bool,
    /// Delete also if that is much of the project.
    pub confirmed: bool,
    /// Judge as if it were so many days later. Only for a dry run.
    pub days_later: u32,
}

/// What a run has found, of a repository or of a project.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The number of artifacts that rules are about.
    pub artifacts: u64,
    /// The number of those that stay.
    pub retained: u64,
    /// The number of those that go.
    pub deleted: u64,
    /// The number of bytes of what goes, as its manifests say. Layers that others share count, too.
    pub bytes: u64,
}

impl Found {
    fn add(&mut self, other: Found) {
        self.artifacts += other.artifacts;
        self.retained += other.retained;
        self.deleted += other.deleted;
        self.bytes += other.bytes;
    }
}

/// An artifact, and what becomes of it.
pub struct Judged {
    /// The artifact.
    pub candidate: Candidate,
    /// What becomes of it.
    pub fate: Fate,
    /// The number of its bytes, as its manifest says.
    pub bytes: u64,
}

/// Runs of retention at this node.
pub struct Retentions {
    records: Records,
    writes: Arc<Writes>,
    /// More than this percentage of a project has to be confirmed.
    confirm_over: u32,
}

impl Retentions {
    /// Judges by these records, and deletes through these writes.
    pub fn new(records: Records, writes: Arc<Writes>, confirm_over: u32) -> Arc<Self> {
        Arc::new(Retentions { records, writes, confirm_over })
    }

    /// The job that applies a project's retention.
    pub fn task(project: &ProjectName, order: Order, asked_by: &str) -> Task {
        let what = if order.dry_run { "what retention would delete in" } else { "retention of" };
        Task {
            project: project.clone(),
            kind: KIND.into(),
            subject: format!("{what} {project}"),
            // plain data, so it cannot fail
            order: serde_json::to_vec(&order).unwrap_or_default(),
            priority: Priority::Low,
            tries: TRIES,
            asked_by: asked_by.into(),
        }
    }

    async fn apply(&self, run: &Run) -> RunEnd {
        let order: Order = match serde_json::from_slice(&run.job.task.order) {
            Ok(order) => order,
            Err(error) => return RunEnd::Hopeless(format!("the order cannot be read: {error}")),
        };
        let end = match self.carry_out_order(run, order).await {
            Ok(end) => end,
            Err(why) => RunEnd::Failed(why),
        };
        run.log(match &end {
            RunEnd::Done(why) | RunEnd::Failed(why) => why,
            RunEnd::Hopeless(why) | RunEnd::Stopped(why) => why,
        });
        end
    }

    async fn carry_out_order(&self, run: &Run, order: Order) -> Result<RunEnd, String> {
        let name = &run.job.task.project;
        // with records that may be old, what was pushed lately would not be seen
        if !self.records.connected() {
            return Err("this node does not hear the ledger's majority".into());
        }
        let now = clock::timestamp();
        let read = |e: RecordError| e.to_string();
        let Some(plan) = at_length(|| self.plan(name)).map_err(read)? else {
            return Ok(RunEnd::Hopeless("the project has no retention policy".into()));
        };
        let Plan { policies, repositories, newest } = plan;
        if now.0 + APART < newest.0 {
            return Err(format!(
                "the clock of this node says {now}, and {newest} has been recorded: nothing is deleted by such a clock"
            ));
        }
        let judged_at = Timestamp(now.0 + u64::from(order.days_later) * 24 * 3600 * 1000);
        let mut total = Found::default();
        for repository in &repositories {
            let judged = at_length(|| self.judge(&policies, repository, judged_at));
            total.add(sum(&judged.map_err(read)?.unwrap_or_default()));
        }
        let much = needs_confirmation(total.deleted, total.artifacts, self.confirm_over);
        if much && !order.dry_run && !order.confirmed {
            return Ok(RunEnd::Hopeless(format!(
                "{} of {} artifacts would be deleted, which is more than {} % (retention.confirm_over): look at a dry run, and then confirm it (`atoll retention run {name} --confirm`)",
                total.deleted, total.artifacts, self.confirm_over
            )));
        }
        let (mut done, mut named) = (Found::default(), 0);
        for repository in &repositories {
            for pass in 0..PASSES {
                if run.is_stopped() {
                    return Ok(RunEnd::Stopped(format!("{} artifacts deleted", done.deleted)));
                }
                let judged_at = if order.dry_run { judged_at } else { clock::timestamp() };
                let judged = at_length(|| self.judge(&policies, repository, judged_at));
                let judged = judged.map_err(read)?.unwrap_or_default();
                let found = sum(&judged);
                // what the first pass has deleted is not there any more
                done.add(Found {
                    artifacts: if pass == 0 { found.artifacts } else { 0 },
                    retained: if pass == 0 { found.retained } else { 0 },
                    ..found
                });
                for one in judged.iter().filter(|one| pass == 0 || one.fate == Fate::Deleted) {
                    named += 1;
                    if named <= NAMED {
                        run.log(line(repository, one));
                    }
                }
                if found.deleted == 0 || order.dry_run {
                    break;
                }
                let gone = judged.iter().filter(|one| one.fate == Fate::Deleted);
                let gone: Vec<Digest> = gone.map(|one| one.candidate.digest).collect();
                self.retire(repository, &gone, judged_at).await?;
                run.progress(show(&done));
            }
        }
        if named > NAMED {
            run.log(format!("and {} more", named - NAMED));
        }
        run.progress(show(&done));
        let verb = if order.dry_run { "would be deleted" } else { "deleted" };
        Ok(RunEnd::Done(format!(
            "{} of {} artifacts {verb}, with {} bytes",
            done.deleted, done.artifacts, done.bytes
        )))
    }

    async fn retire(
        &self,
        repository: &RepositoryName,
        gone: &[Digest],
        judged: Timestamp,
    ) -> Result<(), String> {
        for some in gone.chunks(AT_ONCE) {
            let change =
                Change::Retire { repository: repository.clone(), digests: some.to_vec(), judged };
            let project = repository.project();
            match self.writes.commit(&project, WriteKind::Fenced(change), &Actor::mesh()).await {
                // all of it was touched meanwhile, or is gone
                Ok(_) | Err(Refusal::NotFound) => {}
                Err(refusal) => return Err(refusal.to_string()),
            }
        }
        Ok(())
    }

    /// What to look at; `None` without a policy.
    fn plan(&self, name: &ProjectName) -> Result<Option<Plan>, RecordError> {
        let view = self.records.view()?;
        let Some(project) = view.project(name)? else { return Ok(None) };
        let policies = view.policies(project.id)?;
        if policies.retention.is_none() {
            return Ok(None);
        }
        let names = view.scan(&key::repositories_of(name), None, usize::MAX)?;
        let repositories: Vec<RepositoryName> =
            names.iter().filter_map(|(place, _)| key::name_of(place).parse().ok()).collect();
        // some of what was pushed is enough: if it is later than now, a clock is wrong
        let mut newest = project.created;
        for repository in &repositories {
            for (_, tag) in view.scan(&key::tags(repository), None, 100)? {
                newest = newest.max(decode::<TagRecord>(&tag)?.pushed);
            }
        }
        Ok(Some(Plan { policies, repositories, newest }))
    }

    /// What becomes of each artifact of a repository; `None` if no rule is about it.
    pub fn judge(
        &self,
        policies: &Policies,
        repository: &RepositoryName,
        now: Timestamp,
    ) -> Result<Option<Vec<Judged>>, RecordError> {
        let Some(retention) = &policies.retention else { return Ok(None) };
        let view = self.records.view()?;
        let within = repository.as_str().split_once('/').map_or("", |(_, rest)| rest);
        let (candidates, bytes) = candidates(&*view, policies, repository, within)?;
        let since = view.pulls_counted_since()?;
        let fates = fates(&retention.rules, within, &candidates, now, since);
        Ok(fates.map(|fates| {
            let all = candidates.into_iter().zip(fates).zip(bytes);
            all.map(|((candidate, fate), bytes)| Judged { candidate, fate, bytes }).collect()
        }))
    }
}

struct Plan {
    policies: Policies,
    repositories: Vec<RepositoryName>,
    /// About the newest time that the project has recorded.
    newest: Timestamp,
}

/// The artifacts of a repository, with the numbers of their bytes. What is part of an index or about
/// another artifact is none, unless it has a tag. Tags that name a subject instead of referring to it
/// (`sha256-...`) go with that.
fn candidates(
    view: &dyn ReadRecords,
    policies: &Policies,
    repository: &RepositoryName,
    within: &str,
) -> Result<(Vec<Candidate>, Vec<u64>), RecordError> {
    let mut tags: BTreeMap<Digest, Vec<(String, Timestamp)>> = BTreeMap::new();
    for (place, tag) in view.records::<TagRecord>(&key::tags(repository))? {
        tags.entry(tag.digest).or_default().push((key::tag_of(&place), tag.pushed));
    }
    let mut found: BTreeMap<Digest, ManifestRecord> = BTreeMap::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let some = view.scan(&key::manifests(repository), after.as_deref(), PAGE)?;
        let Some((last, _)) = some.last() else { break };
        after = Some(last.clone());
        for (place, record) in some {
            let Some(digest) = key::digest_of(&place) else { continue };
            let record: ManifestRecord = decode(&record)?;
            found.insert(digest, ManifestRecord { bytes: Vec::new(), blobs: Vec::new(), ..record });
        }
    }
    let (mut parts, mut sizes) = (BTreeSet::new(), BTreeMap::new());
    for (digest, record) in &found {
        let Some(whole) = view.manifest(repository, digest)? else { continue };
        let Ok(manifest) = Manifest::parse(&whole.media_type, &whole.bytes) else { continue };
        let blobs = manifest.blobs.iter().map(|blob| blob.size);
        let size = whole.bytes.len() as u64 + blobs.fold(0, u64::saturating_add);
        sizes.insert(*digest, size);
        let kind = record.media_type.as_str();
        if matches!(kind, media_type::OCI_INDEX | media_type::DOCKER_LIST) {
            parts.extend(manifest.children.iter().map(|child| child.digest));
        }
    }
    let about_another = |record: &ManifestRecord| {
        record.subject.is_some_and(|subject| found.contains_key(&subject))
    };
    let names_another = |tags: &[(String, Timestamp)]| {
        let subject = |tag: &str| {
            let hex = tag.strip_prefix("sha256-")?.get(..64)?;
            format!("sha256:{hex}").parse::<Digest>().ok()
        };
        !tags.is_empty()
            && tags.iter().all(|(tag, _)| subject(tag).is_some_and(|d| found.contains_key(&d)))
    };
    let (mut candidates, mut bytes) = (Vec::new(), Vec::new());
    for (digest, record) in &found {
        let tags = tags.remove(digest).unwrap_or_default();
        let is_part = parts.contains(digest) || about_another(record);
        if tags.is_empty() && is_part || names_another(&tags) {
            continue;
        }
        let immutable = tags.iter().any(|(tag, _)| is_immutable(&policies.immutable, within, tag));
        let pushed = tags.iter().map(|(_, pushed)| *pushed).fold(record.pushed, Timestamp::max);
        candidates.push(Candidate {
            digest: *digest,
            tags: tags.into_iter().map(|(tag, _)| tag).collect(),
            pushed,
            pulled: view.pulled(repository, digest)?,
            immutable,
        });
        bytes.push(sizes.get(digest).copied().unwrap_or(0));
    }
    Ok((candidates, bytes))
}

fn sum(judged: &[Judged]) -> Found {
    let mut found = Found { artifacts: judged.len() as u64, ..Found::default() };
    for one in judged {
        match one.fate {
            Fate::Deleted => {
                found.deleted += 1;
                found.bytes += one.bytes;
            }
            Fate::Retained | Fate::Immutable => found.retained += 1,
        }
    }
    found
}

fn show(found: &Found) -> String {
    json!(found).to_string()
}

fn line(repository: &RepositoryName, one: &Judged) -> String {
    let Candidate { digest, tags, pushed, pulled, .. } = &one.candidate;
    let tags = if tags.is_empty() { "no tag".into() } else { tags.join(", ") };
    let pulled = pulled.map_or("never".into(), |at| at.to_string());
    format!("{} {repository}@{digest} ({tags}; pushed {pushed}, pulled {pulled})", one.fate.word())
}

impl Work for Retentions {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn carry_out<'a>(&'a self, run: &'a Run) -> Pin<Box<dyn Future<Output = RunEnd> + Send + 'a>> {
        Box::pin(self.apply(run))
    }
}
