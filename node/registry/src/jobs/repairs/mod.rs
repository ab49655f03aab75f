//! Repair: makes the copies of a project's blobs that are missing, after a replica or a region is
//! gone, or when the project's durability was raised. `rules::members::keeper` decides when, and
//! where copies go.
//!
//! A repair is a job of its project. First the replicas say in sums whether they keep what the ledger
//! says ([`tallies`]). Blobs for which that is not so, and those that too few regions keep by what
//! the ledger says, are asked for by name, a page at a time ([`survey`]), and a few copies are made at
//! once. What was found out goes into the ledger. What was copied stays copied if its owner dies, so
//! the next one finds less to do.

mod lag;
mod losses;
mod survey;
pub mod tallies;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ground::clock;
use ground::supervise::{Tasks, at_length};
use parking_lot::Mutex;
use rules::ledger::command::Command;
use rules::ledger::events::{Actor, MESH};
use rules::ledger::jobs::{Job, JobState, LookForJobs, Priority, RunEnd, Task, key as jobs_key};
use rules::ledger::leaving::LookForLeaving;
use rules::ledger::level::Level;
use rules::ledger::records::{
    BlobRecord, Look, Project, ReadRecords, RecordError, Role, decode, key,
};
use rules::members::keeper::{Keeper, KeeperTerms, View};
use rules::members::placement::Candidate;
use rules::wire;
use rules::wire::questions::Replicate;
use rules::words::digest::Digest;
use rules::words::moment::Timestamp;
use rules::words::names::{NodeId, OperationId, ProjectName, Region};
use serde_json::json;
use store::Store;
use tracing::{debug, warn};

use self::lag::{Lag, Lags};
use self::losses::{Losses, Lost};
use self::survey::{Short, Situation, Survey, find_short};
use self::tallies::{Compared, Tallies};
use super::queue::Jobs;
use super::{Run, Work};
use crate::blobs::flights::Flights;
use crate::view::neighbours::Neighbours;

/// The name of this kind of jobs.
pub const KIND: &str = "repair";
/// How often a repair is tried.
const TRIES: u32 = 5;
/// The time between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);
/// The number of blobs that the replicas are asked about at a time.
const PAGE: usize = 1000;
/// The number of copies that are made at a time. Pulls come first.
const AT_A_TIME: usize = 4;
/// How long a copy may take, beside the time that its bytes need over the slowest path. A node whose
/// own flight goes on after that finds the blob there when it is asked again.
const COPY: Duration = Duration::from_secs(120);
/// How long an answer may take until the job's log names the node that has not answered.
const LONG: Duration = Duration::from_secs(30);
/// How often a replica that is up and silent is asked again, and how long after.
const SILENT: (usize, Duration) = (3, Duration::from_secs(2));
/// The number of digests that are remembered, so that a blob of many repositories is looked at once.
const REMEMBERED: usize = 1 << 20;
/// The number of blobs that are named when something is wrong with them.
const NAMED: usize = 20;
/// How long it may take to record who keeps blobs.
const RECORD: Duration = Duration::from_secs(10);

/// Repairs of this node.
pub struct Repairs {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    flights: Arc<Flights>,
    keeper: Mutex<Keeper>,
    losses: Losses,
    lags: Lags,
    tallies: Arc<Tallies>,
    terms: KeeperTerms,
}

/// What a repair has found and done.
#[derive(Default)]
struct Done {
    checked: u64,
    /// Those that the replicas were asked for by name.
    asked: u64,
    short: u64,
    copied: u64,
    bytes: u64,
    failed: u64,
    lost: Lost,
    /// The copies that should be in lost regions.
    unreachable: u64,
    /// What is short and not copied yet.
    lag: Lag,
    /// The replicas that were away for a moment, or about to leave: what they keep is not known.
    unsettled: BTreeSet<NodeId>,
    /// The replicas that drain and are away, and by what the ledger says are the only ones that have
    /// some blobs.
    only_at: BTreeSet<NodeId>,
    /// Errors for the log that were not written yet.
    said: Vec<String>,
}

impl Done {
    /// Copies of a blob should be in these regions, and cannot be made.
    fn lacks<'a>(&mut self, regions: impl Iterator<Item = &'a Region>, size: u64) {
        for region in regions {
            self.unreachable += 1;
            self.lag.add(region, size);
        }
    }

    fn says(&mut self, line: String) {
        if self.said.len() < NAMED {
            self.said.push(line);
        }
    }

    fn show(&self) -> String {
        json!({
            "checked": self.checked,
            "asked": self.asked,
            "short": self.short,
            "copied": self.copied,
            "bytes": self.bytes,
            "failed": self.failed,
            "lost": self.lost.count(),
            "lacks": self.lag.show(),
        })
        .to_string()
    }

    fn end(&self, name_of: impl Fn(NodeId) -> String + Copy) -> RunEnd {
        let Done { checked, short, copied, failed, lost, unreachable, .. } = self;
        let mut looked = format!("{checked} blobs checked, {copied} copies made");
        if *unreachable > 0 {
            looked += &format!("; {unreachable} copies should be in regions that are lost");
        }
        if !self.unsettled.is_empty() {
            let names: Vec<String> = self.unsettled.iter().copied().map(name_of).collect();
            let why = format!(
                "{looked}; {} was away or is being removed, so it is looked again",
                names.join(", ")
            );
            return RunEnd::Failed(why);
        }
        if !self.only_at.is_empty() {
            let names: Vec<String> = self.only_at.iter().copied().map(name_of).collect();
            let why = format!(
                "{looked}; some blobs are only at {}, which drains and does not answer: start it, so that they can be copied",
                names.join(", ")
            );
            return RunEnd::Failed(why);
        }
        if *failed > 0 {
            let why = format!("{looked}, {failed} of {short} blobs are still in too few regions");
            return RunEnd::Failed(why);
        }
        if lost.count() > 0 {
            let why = format!(
                "{looked}; no replica that is up has a sound copy of {} blobs (see the log)",
                lost.count()
            );
            return RunEnd::Hopeless(why);
        }
        RunEnd::Done(looked)
    }
}

impl Repairs {
    /// Repairs through these rooms.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        flights: Arc<Flights>,
        tallies: Arc<Tallies>,
        terms: KeeperTerms,
    ) -> Arc<Self> {
        Arc::new(Repairs {
            neighbours,
            store,
            flights,
            keeper: Mutex::default(),
            losses: Losses::default(),
            lags: Lags::default(),
            tallies,
            terms,
        })
    }

    /// The job that repairs `project`.
    pub fn task(project: &ProjectName, asked_by: &str) -> Task {
        Task {
            project: project.clone(),
            kind: KIND.into(),
            subject: format!("copies of {project}"),
            order: Vec::new(),
            priority: Priority::Low,
            tries: TRIES,
            asked_by: asked_by.into(),
        }
    }

    /// Asks for repairs whenever one is due.
    pub fn start(self: &Arc<Self>, jobs: Arc<Jobs>, tasks: &Tasks) {
        if self.neighbours.is_edge() {
            return;
        }
        let (repairs, losing) = (self.clone(), jobs.clone());
        tasks.spawn("repairs", async move {
            loop {
                tokio::time::sleep(LOOK).await;
                if let Err(error) = repairs.ask_for_due(&jobs).await {
                    warn!(%error, "repairs that are due cannot be known");
                }
            }
        });
        let repairs = self.clone();
        tasks.spawn("losses", async move {
            loop {
                tokio::time::sleep(losses::FOLLOW).await;
                if let Err(error) = repairs.follow_losses(&losing).await {
                    debug!(%error, "which blobs are lost cannot be known");
                }
            }
        });
    }

    async fn ask_for_due(&self, jobs: &Jobs) -> Result<(), RecordError> {
        // cut off from the majority, this node cannot know whose projects these are
        if !self.neighbours.records.connected() || !jobs.are_used()? {
            return Ok(());
        }
        // copies of one that drains are made elsewhere, as if it were gone
        let draining = self.neighbours.draining();
        let replicas = self.neighbours.nodes().into_iter().filter(|n| n.role == Role::Replica);
        let replicas: BTreeSet<NodeId> =
            replicas.map(|node| node.id).filter(|node| !draining.contains(node)).collect();
        let up: BTreeSet<NodeId> = self.neighbours.alive().into_iter().map(|c| c.id).collect();
        let down = replicas.difference(&up).copied().collect();
        let drained = draining.difference(&up).copied().collect();
        let view = self.neighbours.records.view()?;
        let mine: Vec<(ProjectName, u32)> = view
            .projects()?
            .into_iter()
            .filter(|p| p.primary == self.neighbours.me && p.upstream.is_none())
            .map(|project| (project.name, project.durability))
            .collect();
        let (now, drains) = (clock::now(), !draining.is_empty());
        let due = {
            let removed = OnceCell::new();
            let looked = |name: &ProjectName| -> bool {
                let removed = removed.get_or_init(|| last_removal(&*view));
                // what cannot be read is looked at
                looked_since(&*view, name, *removed).unwrap_or(false)
            };
            let (replicas, down, drained, mine) = (&replicas, &down, &drained, &mine[..]);
            let seen = View { replicas, down, drained, drains, mine, looked: &looked };
            self.keeper.lock().handle_view(now, self.terms, seen)
        };
        // a project that is gone, or another node's now, is not this node's to complain about
        let is_mine = |name: &ProjectName| mine.iter().any(|(project, _)| project == name);
        metrics::gauge!("atoll_repair_blobs_lost").set(self.losses.retain(is_mine) as f64);
        self.lags.tell(is_mine);
        if due.is_empty() {
            return Ok(());
        }
        let active: BTreeSet<ProjectName> = view
            .active_jobs()?
            .into_iter()
            .filter(|job| job.task.kind == KIND)
            .map(|job| job.task.project)
            .collect();
        for name in due {
            let has_blobs = !view.scan(&key::links_of(&name), None, 1)?.is_empty();
            // one that runs may have looked before something changed
            if has_blobs && active.contains(&name) {
                continue;
            }
            if has_blobs {
                let asked = jobs.ask(Self::task(&name, MESH), &Actor::mesh()).await;
                if let Err(error) = asked {
                    warn!(project = %name, %error, "a repair is due and was not accepted");
                    self.keeper.lock().again(clock::now(), &name);
                    continue;
                }
            }
            let durability = mine.iter().find(|(project, _)| *project == name).map(|(_, d)| *d);
            self.keeper.lock().looked(clock::now(), &name, durability.unwrap_or_default());
        }
        Ok(())
    }

    async fn repair(&self, run: &Run) -> RunEnd {
        let mut done = Done::default();
        let ended = self.look_at_all(run, &mut done).await;
        done.said.drain(..).for_each(|line| run.log(line));
        run.progress(done.show());
        if ended.is_none() {
            self.losses.set(&run.job.task.project, done.lost.clone());
            self.lags.set(&run.job.task.project, &done.lag);
        }
        let end = ended.unwrap_or_else(|| done.end(|node| self.neighbours.name_of(node)));
        if let RunEnd::Failed(_) = end {
            self.keeper.lock().again(clock::now(), &run.job.task.project);
        }
        run.log(format!("{} of {} blobs were asked for by name", done.asked, done.checked));
        run.log(match &end {
            RunEnd::Done(why) | RunEnd::Failed(why) => why,
            RunEnd::Hopeless(why) | RunEnd::Stopped(why) => why,
        });
        end
    }

    /// `None` if all blobs were looked at.
    async fn look_at_all(&self, run: &Run, done: &mut Done) -> Option<RunEnd> {
        let name = &run.job.task.project;
        let unreadable = |e: RecordError| Some(RunEnd::Failed(e.to_string()));
        let alive: Vec<NodeId> = match self.situation() {
            Ok(situation) => situation.alive.iter().map(|replica| replica.id).collect(),
            Err(error) => return unreadable(error),
        };
        let sums = self.tallies.compare(name, &alive, rand::random());
        let compared =
            patiently(run, || "the replicas for sums of what they keep".into(), sums).await;
        let (mut after, mut seen) = (None, HashSet::new());
        loop {
            if run.is_stopped() {
                let said = format!("{} blobs checked, {} copies made", done.checked, done.copied);
                return Some(RunEnd::Stopped(said));
            }
            let page = self.page(name, after.as_deref());
            let (project, keys) = match page {
                Ok(Some(page)) => page,
                Ok(None) => return Some(RunEnd::Done("the project is gone".into())),
                Err(error) => return unreadable(error),
            };
            after = Some(keys.last().cloned()?);
            if seen.len() > REMEMBERED {
                seen.clear();
            }
            let digests = keys.iter().filter_map(|key| key::digest_of(key));
            let mut digests: Vec<Digest> = digests.filter(|digest| seen.insert(*digest)).collect();
            if let Some(compared) = &compared {
                match self.unsure(&digests, compared, &alive, project.durability, done) {
                    Ok(unsure) => digests = unsure,
                    Err(error) => return unreadable(error),
                }
            }
            done.asked += digests.len() as u64;
            match self.survey(&digests).await {
                Ok(survey) => {
                    let short = find_short(&digests, &survey, project.durability, done);
                    self.lags.set(name, &done.lag);
                    let made = self.copy_all(run, &survey.situation, short, done).await;
                    self.record(&project, survey.news(&digests, &made)).await;
                }
                Err(NotSurveyed::Silent(silent)) => {
                    let names: Vec<String> =
                        silent.iter().map(|node| self.neighbours.name_of(*node)).collect();
                    let why = format!("{} did not say what it keeps", names.join(", "));
                    return Some(RunEnd::Failed(why));
                }
                Err(NotSurveyed::Records(error)) => return unreadable(error),
            }
            run.progress(done.show());
            done.said.drain(..).for_each(|line| run.log(line));
        }
    }

    /// Of these blobs, those that have to be asked for by name. The others count as checked.
    fn unsure(
        &self,
        digests: &[Digest],
        compared: &Compared,
        asked: &[NodeId],
        durability: u32,
        done: &mut Done,
    ) -> Result<Vec<Digest>, RecordError> {
        let situation = self.situation()?;
        situation.note(done);
        // one that has come since said nothing of what it keeps, and counts for nothing here
        let (kept_by, sizes) = self.kept_by(digests)?.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        let is_sure = |digest: &Digest, kept_by: &[NodeId]| {
            let said: Vec<NodeId> = kept_by
                .iter()
                .copied()
                .filter(|node| asked.contains(node) || situation.is_away(*node))
                .collect();
            compared.confirms(digest) && situation.is_enough(&said, durability)
        };
        let mut unsure = Vec::new();
        for ((digest, kept_by), size) in digests.iter().zip(&kept_by).zip(sizes) {
            if is_sure(digest, kept_by) {
                done.checked += 1;
                done.lacks(situation.lacking(situation.regions(kept_by), durability), size);
            } else {
                unsure.push(*digest);
            }
        }
        Ok(unsure)
    }

    /// Tells the ledger who keeps blobs, so that the next look need not ask for them by name.
    async fn record(&self, project: &Project, news: Vec<(Digest, Vec<NodeId>)>) {
        let level = at_length(|| self.neighbours.records.view().and_then(|view| view.level()));
        if news.is_empty() || !level.is_ok_and(|level| level >= Level::TALLIES) {
            return;
        }
        let command =
            Command::Kept { project: project.name.clone(), epoch: project.epoch, blobs: news };
        let operation = OperationId(rand::random());
        let proposed = self.neighbours.records.propose(operation, command, RECORD).await;
        if let Err(error) = proposed {
            // the next repair finds it out again
            debug!(project = %project.name, %error, "who keeps its blobs was not recorded");
        }
    }

    /// The project, and the next links of its blobs; `None` if it is gone or caches
    /// an upstream.
    #[expect(clippy::type_complexity, reason = "a project and keys")]
    fn page(
        &self,
        name: &ProjectName,
        after: Option<&[u8]>,
    ) -> Result<Option<(Project, Vec<Vec<u8>>)>, RecordError> {
        at_length(|| {
            let view = self.neighbours.records.view()?;
            let Some(project) = view.project(name)?.filter(|p| p.upstream.is_none()) else {
                return Ok(None);
            };
            let links = view.scan(&key::links_of(name), after, PAGE)?;
            Ok(Some((project, links.into_iter().map(|(key, _)| key).collect())))
        })
    }

    /// Which replicas are up, away or about to leave now.
    fn situation(&self) -> Result<Situation, RecordError> {
        let leaving = at_length(|| self.neighbours.records.view()?.leaving())?;
        let leaving = leaving.map(|leaving| leaving.node);
        let mut alive = self.neighbours.alive();
        let draining = self.neighbours.draining();
        let up: BTreeSet<NodeId> = alive.iter().map(|c| c.id).collect();
        alive.retain(|c| Some(c.id) != leaving && !draining.contains(&c.id));
        let replicas: Vec<Candidate> = self
            .neighbours
            .nodes()
            .iter()
            .filter(|node| node.role == Role::Replica && !draining.contains(&node.id))
            .map(Candidate::of)
            .collect();
        let all = replicas.iter().map(|replica| replica.id).collect();
        let all_regions: BTreeSet<Region> =
            replicas.iter().map(|replica| replica.region.clone()).collect();
        let (present, drained) = {
            let (keeper, now) = (self.keeper.lock(), clock::now());
            let mut drained = draining.clone();
            drained.retain(|node| !up.contains(node) && keeper.may_return(now, self.terms, *node));
            (keeper.present(&all), drained)
        };
        let away = |replica: &Candidate| {
            present.contains(&replica.id) && !alive.iter().any(|c| c.id == replica.id)
        };
        let away: Vec<Candidate> = replicas.into_iter().filter(away).collect();
        let regions: BTreeSet<&Region> = alive.iter().chain(&away).map(|c| &c.region).collect();
        let lost = all_regions.into_iter().filter(|region| !regions.contains(region)).collect();
        let troubled = self.neighbours.conditions.all();
        Ok(Situation { alive, troubled, away, drained, leaving, lost })
    }

    /// What is known of `digests` now.
    async fn survey(&self, digests: &[Digest]) -> Result<Survey, NotSurveyed> {
        let (tries, pause) = SILENT;
        let mut tried = 0;
        loop {
            let situation = self.situation().map_err(NotSurveyed::Records)?;
            if digests.is_empty() {
                return Ok(Survey { situation, ..Survey::default() });
            }
            let mut stock = self.neighbours.have(digests, None).await;
            if let Ok(mine) = self.store.stocks(digests, None).await {
                stock.insert(self.neighbours.me, mine);
            }
            let alive = situation.alive.iter().map(|c| c.id);
            let silent: Vec<NodeId> = alive.filter(|id| !stock.contains_key(id)).collect();
            if silent.is_empty() {
                let kept_by = self.kept_by(digests).map_err(NotSurveyed::Records)?;
                let kept_by = kept_by.into_iter().map(|(kept_by, _)| kept_by).collect();
                let mut survey = Survey { situation, stock, damaged: BTreeMap::new(), kept_by };
                for (node, doubtful) in survey.doubtful(digests) {
                    survey.damaged.insert(node, self.damaged_at(node, &doubtful).await);
                }
                return Ok(survey);
            }
            tried += 1;
            if tried == tries {
                return Err(NotSurveyed::Silent(silent));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Those of `digests` that `node` holds and knows to be damaged.
    async fn damaged_at(&self, node: NodeId, digests: &[Digest]) -> BTreeSet<Digest> {
        if node == self.neighbours.me {
            return self.store.condition(digests).damaged.into_iter().collect();
        }
        self.neighbours.damaged_at(node, digests).await
    }

    /// The nodes that kept each blob when it was last pushed or looked for, as the ledger has it, and
    /// its size.
    fn kept_by(&self, digests: &[Digest]) -> Result<Vec<(Vec<NodeId>, u64)>, RecordError> {
        at_length(|| {
            let view = self.neighbours.records.view()?;
            let record = |digest| view.record::<BlobRecord>(&key::blob(digest));
            let kept_by = |digest| {
                let known = record(digest)?;
                Ok(known.map(|record| (record.kept_by, record.size)).unwrap_or_default())
            };
            digests.iter().map(kept_by).collect()
        })
    }

    /// Makes copies. The result has the nodes that keep one now.
    async fn copy_all(
        &self,
        run: &Run,
        situation: &Situation,
        short: Vec<Short>,
        done: &mut Done,
    ) -> BTreeMap<Digest, BTreeSet<NodeId>> {
        let copies = short.into_iter().map(|short| async move {
            let (mut bytes, mut made, mut error) = (0, BTreeSet::new(), None);
            for node in &short.to {
                if run.is_stopped() {
                    error = Some("the repair was stopped".to_owned());
                    break;
                }
                let asked =
                    || format!("{} for a copy of {}", self.neighbours.name_of(*node), short.digest);
                match patiently(run, asked, self.copy(*node, &short)).await {
                    Ok(size) => {
                        bytes += size;
                        made.insert(*node);
                    }
                    Err(why) => {
                        let name = self.neighbours.name_of(*node);
                        error = Some(format!("{} to {name}: {why}", short.digest));
                    }
                }
            }
            (short, bytes, made, error)
        });
        let mut copies = futures::stream::iter(copies).buffer_unordered(AT_A_TIME);
        let mut all_made = BTreeMap::new();
        while let Some((short, bytes, made, error)) = copies.next().await {
            done.bytes += bytes;
            done.copied += made.len() as u64;
            metrics::counter!("atoll_repair_copies_total").increment(made.len() as u64);
            for region in made.iter().filter_map(|node| situation.region_of(*node)) {
                done.lag.remove(region, short.size);
            }
            self.lags.set(&run.job.task.project, &done.lag);
            all_made.insert(short.digest, made);
            metrics::counter!("atoll_repair_bytes_total").increment(bytes);
            match error {
                Some(_) if short.damaged && done.unsettled.is_empty() => {
                    done.lost.add(short.digest);
                    let why = match short.sources.is_empty() {
                        true => "no replica that is up has it",
                        false => "every copy is damaged",
                    };
                    done.says(format!("{}: {why}: push its image again", short.digest));
                }
                Some(error) => {
                    done.failed += 1;
                    done.says(error);
                }
                None => {}
            }
            run.progress(done.show());
        }
        all_made
    }

    async fn copy(&self, node: NodeId, short: &Short) -> Result<u64, String> {
        let (digest, sources) = (short.digest, short.sources.clone());
        let copied = if node == self.neighbours.me {
            self.flights.replicate(digest, sources, None).await
        } else {
            let question = Replicate { digest, sources, repository: None };
            let patience = COPY + wire::transfer_time(short.size as usize);
            let asked = self.neighbours.links.ask(node, question, patience).await;
            asked.map_err(|e| e.to_string())?
        };
        copied.map(|held| held.size)
    }
}

/// Waits for the answer of a node. One that takes long is named in the job's log, for those who ask
/// why a repair does not go on.
async fn patiently<T>(run: &Run, asked: impl Fn() -> String, answer: impl Future<Output = T>) -> T {
    let mut answer = pin!(answer);
    if let Ok(answer) = tokio::time::timeout(LONG, &mut answer).await {
        return answer;
    }
    let line = format!("no answer for {} s: asked {}", LONG.as_secs(), asked());
    warn!(project = %run.job.task.project, line, "a repair waits");
    run.log(line);
    answer.await
}

/// Why it is not known what replicas keep.
enum NotSurveyed {
    /// These are up and do not say.
    Silent(Vec<NodeId>),
    /// The records cannot be read.
    Records(RecordError),
}

/// When a node was last removed from the mesh, if one ever was.
fn last_removal(view: &dyn ReadRecords) -> Option<Timestamp> {
    let removed = view.scan(&key::removals(), None, usize::MAX).unwrap_or_default();
    removed.iter().filter_map(|(_, at)| decode(at).ok()).max()
}

/// Whether a repair of a project that began after this time has ended well, or is not needed: the
/// project is younger.
fn looked_since(
    view: &dyn ReadRecords,
    name: &ProjectName,
    removed: Option<Timestamp>,
) -> Result<bool, RecordError> {
    let (Some(removed), Some(project)) = (removed, view.project(name)?) else { return Ok(true) };
    let jobs = view.scan(&jobs_key::jobs_of(project.id), None, usize::MAX)?;
    let looked = jobs.iter().filter_map(|(_, job)| decode::<Job>(job).ok()).any(|job| {
        job.task.kind == KIND
            && job.state == JobState::Done
            && job.began.is_some_and(|began| began > removed)
    });
    Ok(looked || project.created > removed)
}

impl Work for Repairs {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn carry_out<'a>(&'a self, run: &'a Run) -> Pin<Box<dyn Future<Output = RunEnd> + Send + 'a>> {
        Box::pin(self.repair(run))
    }
}
