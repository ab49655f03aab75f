//! Retention: deletes the artifacts that a project does not retain. `rules::policies::retention`
//! decides which.
//!
//! A run is a job of its project, so its primary has it. It judges a repository and deletes at once
//! what is judged, by a write of the project's epoch that passes over what was pushed, tagged or
//! pulled meanwhile. What only an index lists that goes, and what is about something that goes, goes
//! along without being judged: else it would count among the newest that a rule retains.

mod contents;
mod forecast;

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
use rules::ledger::records::{Look, RecordError, TagRecord, decode, key};
use rules::policies::retention::{Candidate, Fate, fates, needs_confirmation};
use rules::wire::WriteKind;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::{ProjectName, RepositoryName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::contents::Contents;
pub use self::forecast::{Forecast, InDays, MOST_DAYS, OfRepository, forecast};
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
    /// The number of bytes that the repository no longer has then, as its manifests say: of manifests
    /// that go, and of blobs that none of the others has. Of a project it is the sum of these.
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
        let confirm = match much && order.dry_run {
            true => "; such a run has to be confirmed (retention.confirm_over)",
            false => "",
        };
        Ok(RunEnd::Done(format!(
            "{} of {} artifacts {verb}, with {} bytes{confirm}",
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
        let contents = Contents::of(&*view, policies, repository, within)?;
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

/// What becomes of the artifacts, and of what goes along with those that go.
fn sentence(contents: Contents, fates: Vec<Fate>) -> Judgement {
    let fates = contents.settled(fates);
    let gone = contents.gone(&fates);
    let mut found = Found { artifacts: fates.len() as u64, ..Found::default() };
    found.deleted = gone.artifacts;
    found.retained = found.artifacts - found.deleted;
    found.bytes = contents.freed_by(&gone.all);
    let manifests = contents.manifests() as u64;
    let artifacts = contents.candidates.into_iter().zip(fates).collect();
    Judgement { artifacts, along: gone.along, found, manifests, seen: Vec::new() }
}

struct Plan {
    policies: Policies,
    repositories: Vec<RepositoryName>,
    /// About the newest time that the project has recorded.
    newest: Timestamp,
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
