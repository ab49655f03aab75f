//! Retention: deletes the artifacts that a project does not retain. `rules::policies::retention`
//! decides which.
//!
//! A run is a job of its project, so its primary has it. It judges a repository and deletes at once
//! what is judged, by a write of the project's epoch that passes over what was pushed, tagged or
//! pulled meanwhile. What only an index lists that goes, and what is about something that goes, goes
//! along without being judged: else it would count among the newest that a rule retains.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use ground::clock;
use ground::supervise::at_length;
use rules::ledger::change::Change;
use rules::ledger::command::Outcome;
use rules::ledger::events::Actor;
use rules::ledger::jobs::{Priority, RunEnd, Task};
use rules::ledger::level::Level;
use rules::ledger::policies::{AT_ONCE, LookForPolicies, Policies};
use rules::ledger::records::{Look, ReadRecords, RecordError, TagRecord, decode, key};
use rules::ledger::stored::manifests_of;
use rules::policies::immutability::is_immutable;
use rules::policies::retention::{Candidate, Fate, fates, needs_confirmation};
use rules::wire::WriteKind;
use rules::words::digest::Digest;
use rules::words::fallback::Fallback;
use rules::words::manifest::Manifest;
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectName, RepositoryName, Tag};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Run, Work};
use crate::view::Records;
use crate::writes::{Refusal, Writes};

/// The name of this kind of jobs.
pub const KIND: &str = "retention";
/// How often a run is tried.
const TRIES: u32 = 3;
/// How far the clocks of two nodes may be apart, in milliseconds.
const APART: u64 = 60_000;
/// How often a repository is judged again because something was pushed meanwhile.
const TRIED_AGAIN: u32 = 20;
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// How far a run is, as [`JobReport::progress`](rules::wire::JobReport) has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// Of all repositories together.
    #[serde(flatten)]
    pub all: Found,
    /// Of those that were looked at and that rules are about, in the order of names; the first 400.
    #[serde(default)]
    pub repositories: Vec<InRepository>,
}

/// What was found in one repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InRepository {
    /// Its name.
    pub repository: String,
    /// What was found.
    #[serde(flatten)]
    pub found: Found,
}

/// What becomes of a repository.
#[derive(Default)]
struct Judgement {
    /// Its artifacts, and what becomes of each.
    artifacts: Vec<(Candidate, Fate)>,
    /// What goes along with artifacts that go.
    along: Vec<Digest>,
    found: Found,
    /// The number of the repository's manifests.
    manifests: u64,
    /// The first of those that go, each as it was seen, see [`LookForPolicies::seen`].
    seen: Vec<(Digest, Digest)>,
}

impl Judgement {
    /// All that goes. What goes along comes last.
    fn gone(&self) -> Vec<Digest> {
        let deleted = self.artifacts.iter().filter(|(_, fate)| *fate == Fate::Deleted);
        deleted.map(|(candidate, _)| candidate.digest).chain(self.along.iter().copied()).collect()
    }
}

/// The manifests of a repository.
struct Contents {
    candidates: Vec<Candidate>,
    /// The bytes of each manifest with its blobs, as it says. All manifests are here.
    sizes: BTreeMap<Digest, u64>,
    /// Manifests without a tag that indexes list or that are about others: what each depends on.
    dependent: BTreeMap<Digest, Dependence>,
}

/// What a manifest without a tag depends on.
struct Dependence {
    /// The indexes that list it.
    listed_by: Vec<Digest>,
    /// What it is about.
    subject: Option<Digest>,
}

impl Dependence {
    fn goes(&self, gone: &BTreeSet<Digest>) -> bool {
        let listed = !self.listed_by.is_empty();
        listed && self.listed_by.iter().all(|index| gone.contains(index))
            || self.subject.is_some_and(|subject| gone.contains(&subject))
    }
}

/// Runs of retention at this node.
pub struct Retentions {
    records: Records,
    writes: Arc<Writes>,
    /// More than this percentage of a project has to be confirmed.
    confirm_over: u32,
}

/// Why a repository was not judged to its end.
enum NotRetired {
    /// Something was pushed there each time.
    Changing,
    /// Another try of the whole run may help.
    Failed(String),
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
            total.add(judged.map_err(read)?.found);
        }
        let much = needs_confirmation(total.deleted, total.artifacts, self.confirm_over);
        if much && !order.dry_run && !order.confirmed {
            return Ok(RunEnd::Hopeless(format!(
                "{} of {} artifacts would be deleted, which is more than {} % (retention.confirm_over): look at a dry run, and then confirm it (`atoll retention run {name} --confirm`)",
                total.deleted, total.artifacts, self.confirm_over
            )));
        }
        let (mut done, mut named, mut each) = (Found::default(), 0, Vec::new());
        let mut changing = Vec::new();
        for repository in &repositories {
            if run.is_stopped() {
                return Ok(RunEnd::Stopped(format!("{} artifacts deleted", done.deleted)));
            }
            let judged = match order.dry_run {
                true => at_length(|| self.judge(&policies, repository, judged_at)).map_err(read)?,
                false => match self.retire(&policies, repository).await {
                    Ok(judged) => judged,
                    Err(NotRetired::Failed(why)) => return Err(why),
                    // whoever pushes there all the time must not keep the rest of the project
                    Err(NotRetired::Changing) => {
                        changing.push(repository.to_string());
                        continue;
                    }
                },
            };
            done.add(judged.found);
            if judged.found.artifacts > 0 && each.len() < NAMED {
                let found = judged.found;
                each.push(InRepository { repository: repository.to_string(), found });
            }
            for (candidate, fate) in &judged.artifacts {
                named += 1;
                if named <= NAMED {
                    run.log(line(repository, candidate, *fate));
                }
            }
            run.progress(show(done, &each));
        }
        if named > NAMED {
            run.log(format!("and {} more", named - NAMED));
        }
        run.progress(show(done, &each));
        if !changing.is_empty() {
            return Err(format!("{} changed again and again meanwhile", changing.join(", ")));
        }
        let verb = if order.dry_run { "would be deleted" } else { "deleted" };
        Ok(RunEnd::Done(format!(
            "{} of {} artifacts {verb}, with {} bytes",
            done.deleted, done.artifacts, done.bytes
        )))
    }

    /// Judges a repository and deletes what does not stay. If something is pushed meanwhile, it is
    /// judged again.
    async fn retire(
        &self,
        policies: &Policies,
        repository: &RepositoryName,
    ) -> Result<Judgement, NotRetired> {
        let read = |e: RecordError| NotRetired::Failed(e.to_string());
        let mut whole: Option<Judgement> = None;
        let (mut tries, mut most) = (0, AT_ONCE);
        loop {
            let now = clock::timestamp();
            let mut judged = at_length(|| self.judge(policies, repository, now)).map_err(read)?;
            let mut digests = judged.gone();
            digests.truncate(most);
            let mut seen = std::mem::take(&mut judged.seen);
            seen.truncate(most);
            let (all, manifests) = (digests.len(), judged.manifests);
            // what is told is what was found before anything was deleted
            let told = whole.get_or_insert(judged);
            if digests.is_empty() {
                return Ok(std::mem::take(told));
            }
            let level = self.records.view().and_then(|view| view.level()).map_err(read)?;
            let change = match level >= Level::SEEN {
                true => Change::RetireSeen { repository: repository.clone(), seen, manifests },
                false => Change::Retire {
                    repository: repository.clone(),
                    digests,
                    judged: now,
                    manifests,
                },
            };
            let project = repository.project();
            match self.writes.commit(&project, WriteKind::Fenced(change), &Actor::mesh()).await {
                // one with many signatures is deleted in steps
                Ok(Outcome::Unfinished) => {}
                Ok(_) if all == most => (tries, most) = (0, (most * 2).min(AT_ONCE)),
                // all of it was touched meanwhile, or is gone
                Ok(_) | Err(Refusal::NotFound) => return Ok(std::mem::take(told)),
                // where much is pushed, fewer at a time are touched less often in between
                Err(Refusal::Precondition) if tries < TRIED_AGAIN => {
                    tries += 1;
                    most = (most / 2).max(1);
                    whole = None;
                }
                Err(Refusal::Precondition) => return Err(NotRetired::Changing),
                Err(refusal) => return Err(NotRetired::Failed(refusal.to_string())),
            }
        }
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

    /// What becomes of a repository. Nothing does if no rule is about it.
    fn judge(
        &self,
        policies: &Policies,
        repository: &RepositoryName,
        now: Timestamp,
    ) -> Result<Judgement, RecordError> {
        let Some(retention) = &policies.retention else { return Ok(Judgement::default()) };
        let view = self.records.view()?;
        let within = repository.as_str().split_once('/').map_or("", |(_, rest)| rest);
        let contents = contents(&*view, policies, repository, within)?;
        let since = view.pulls_counted_since()?;
        let fates = fates(&retention.rules, within, &contents.candidates, now, since);
        let mut judged = fates.map_or_else(Judgement::default, |fates| sentence(contents, fates));
        for digest in judged.gone().into_iter().take(AT_ONCE) {
            if let Some(seen) = view.seen(repository, &digest)? {
                judged.seen.push((digest, seen));
            }
        }
        Ok(judged)
    }
}

/// Adds what goes along with what is deleted, and counts.
fn sentence(contents: Contents, fates: Vec<Fate>) -> Judgement {
    let Contents { candidates, sizes, mut dependent } = contents;
    let artifacts: Vec<(Candidate, Fate)> = candidates.into_iter().zip(fates).collect();
    let deleted = artifacts.iter().filter(|(_, fate)| *fate == Fate::Deleted);
    let mut gone: BTreeSet<Digest> = deleted.map(|(candidate, _)| candidate.digest).collect();
    let mut found = Found { artifacts: artifacts.len() as u64, ..Found::default() };
    found.deleted = gone.len() as u64;
    found.retained = found.artifacts - found.deleted;
    let mut along = Vec::new();
    loop {
        let more: Vec<Digest> = dependent
            .iter()
            .filter(|(_, dependence)| dependence.goes(&gone))
            .map(|(digest, _)| *digest)
            .collect();
        if more.is_empty() {
            break;
        }
        more.iter().for_each(|digest| drop(dependent.remove(digest)));
        gone.extend(&more);
        along.extend(more);
    }
    found.bytes = gone.iter().filter_map(|digest| sizes.get(digest)).sum();
    Judgement { artifacts, along, found, manifests: sizes.len() as u64, seen: Vec::new() }
}

struct Plan {
    policies: Policies,
    repositories: Vec<RepositoryName>,
    /// About the newest time that the project has recorded.
    newest: Timestamp,
}

/// The manifests of a repository. An artifact is what has a tag, or is no part of an index and about
/// nothing that is there. Tags that name a subject instead of referring to it (`sha256-...`) are none:
/// the ledger deletes them with that.
fn contents(
    view: &dyn ReadRecords,
    policies: &Policies,
    repository: &RepositoryName,
    within: &str,
) -> Result<Contents, RecordError> {
    let mut tags: BTreeMap<Digest, Vec<(Tag, Timestamp)>> = BTreeMap::new();
    for (place, record) in view.records::<TagRecord>(&key::tags(repository))? {
        if let Ok(tag) = key::tag_of(&place).parse() {
            tags.entry(record.digest).or_default().push((tag, record.pushed));
        }
    }
    let found = manifests_of(view, repository)?;
    let mut sizes = BTreeMap::new();
    let mut listed_by: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
    for digest in found.keys() {
        sizes.insert(*digest, 0);
        let Some(whole) = view.manifest(repository, digest)? else { continue };
        let Ok(manifest) = Manifest::parse(&whole.media_type, &whole.bytes) else { continue };
        let blobs = manifest.blobs.iter().map(|blob| blob.size);
        sizes.insert(*digest, whole.bytes.len() as u64 + blobs.fold(0, u64::saturating_add));
        for child in &manifest.children {
            listed_by.entry(child.digest).or_default().push(*digest);
        }
    }
    let is_there = |subject: Digest| found.contains_key(&subject);
    // the tag of a sha512 has the first half of it only
    let named = |fallback: Fallback<'_>| match fallback.digest() {
        Some(digest) => is_there(digest),
        None => found.keys().any(|digest| fallback.is_about(digest)),
    };
    let names_another = |tags: &[(Tag, Timestamp)]| {
        !tags.is_empty() && tags.iter().all(|(tag, _)| Fallback::of(tag).is_some_and(named))
    };
    let mut contents = Contents { candidates: Vec::new(), sizes, dependent: BTreeMap::new() };
    for (digest, record) in &found {
        let tags = tags.remove(digest).unwrap_or_default();
        let listed_by = listed_by.remove(digest).unwrap_or_default();
        let subject = record.subject.filter(|subject| is_there(*subject));
        if tags.is_empty() && (!listed_by.is_empty() || subject.is_some()) {
            contents.dependent.insert(*digest, Dependence { listed_by, subject });
            continue;
        }
        if names_another(&tags) {
            continue;
        }
        let is_immutable =
            |(tag, _): &(Tag, Timestamp)| is_immutable(&policies.immutable, within, tag.as_str());
        contents.candidates.push(Candidate {
            digest: *digest,
            immutable: tags.iter().any(is_immutable),
            pushed: tags.iter().map(|(_, pushed)| *pushed).fold(record.pushed, Timestamp::max),
            tags: tags.into_iter().map(|(tag, _)| tag.as_str().to_owned()).collect(),
            pulled: view.pulled(repository, digest)?,
        });
    }
    Ok(contents)
}

fn show(all: Found, each: &[InRepository]) -> String {
    json!(Told { all, repositories: each.to_vec() }).to_string()
}

fn line(repository: &RepositoryName, candidate: &Candidate, fate: Fate) -> String {
    let Candidate { digest, tags, pushed, pulled, .. } = candidate;
    let tags = if tags.is_empty() { "no tag".into() } else { tags.join(", ") };
    let pulled = pulled.map_or("never".into(), |at| at.to_string());
    format!("{} {repository}@{digest} ({tags}; pushed {pushed}, pulled {pulled})", fate.word())
}

impl Work for Retentions {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn carry_out<'a>(&'a self, run: &'a Run) -> Pin<Box<dyn Future<Output = RunEnd> + Send + 'a>> {
        Box::pin(self.apply(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::sha256(&[n])
    }

    fn candidate(n: u8) -> Candidate {
        Candidate {
            digest: digest(n),
            tags: Vec::new(),
            pushed: Timestamp(0),
            pulled: None,
            immutable: false,
        }
    }

    /// A signature that was judged would be among the newest artifacts, in the place of an image.
    #[test]
    fn what_is_part_of_what_goes_or_about_it_goes_along_and_nothing_else() {
        let on = |listed_by: &[u8], subject: Option<u8>| Dependence {
            listed_by: listed_by.iter().map(|n| digest(*n)).collect(),
            subject: subject.map(digest),
        };
        let contents = Contents {
            candidates: vec![candidate(1), candidate(2)],
            sizes: (1..=8).map(|n| (digest(n), 1 << n)).collect(),
            dependent: [
                (3, on(&[1], None)),
                (4, on(&[1, 2], None)),
                (5, on(&[], Some(3))),
                (6, on(&[], Some(4))),
                (7, on(&[3], None)),
                (8, on(&[2], Some(1))),
            ]
            .map(|(n, dependence)| (digest(n), dependence))
            .into(),
        };
        let judged = sentence(contents, vec![Fate::Deleted, Fate::Retained]);
        let gone: BTreeSet<Digest> = judged.gone().into_iter().collect();
        assert_eq!(gone, [1, 3, 5, 7, 8].map(digest).into());
        assert_eq!(judged.gone()[0], digest(1));
        let Found { artifacts, retained, deleted, bytes } = judged.found;
        assert_eq!((artifacts, retained, deleted), (2, 1, 1));
        assert_eq!(bytes, 2 + 8 + 32 + 128 + 256);
    }
}
