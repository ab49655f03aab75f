//! Repair: makes the copies of a project's blobs that are missing, after a replica or a region is
//! gone, or when the project's durability was raised. `rules::members::keeper` decides when, and
//! where copies go.
//!
//! A repair is a job of its project. It asks all replicas what they keep, a page of blobs at a time,
//! and has a few copies made at once. What was copied stays copied if its owner dies, so the next
//! one finds less to do.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ground::clock;
use ground::supervise::{Tasks, at_length};
use parking_lot::Mutex;
use rules::blobs::holding::Stock;
use rules::ledger::events::{Actor, MESH};
use rules::ledger::jobs::{LookForJobs, Priority, RunEnd, Task};
use rules::ledger::leaving::LookForLeaving;
use rules::ledger::records::{BlobRecord, Look, RecordError, Role, key};
use rules::members::keeper::{Keeper, KeeperTerms, missing_copies};
use rules::members::placement::Candidate;
use rules::wire::questions::Replicate;
use rules::words::digest::Digest;
use rules::words::names::{NodeId, ProjectName, Region};
use serde_json::json;
use store::Store;
use tracing::warn;

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
/// How long a copy may take.
const COPY: Duration = Duration::from_secs(3600);
/// How often a replica that is up and silent is asked again, and how long after.
const SILENT: (usize, Duration) = (3, Duration::from_secs(2));
/// The number of digests that are remembered, so that a blob of many repositories is looked at once.
const REMEMBERED: usize = 1 << 20;
/// The number of blobs that are named when something is wrong with them.
const NAMED: usize = 20;

/// Repairs of this node.
pub struct Repairs {
    neighbours: Arc<Neighbours>,
    store: Arc<Store>,
    flights: Arc<Flights>,
    keeper: Mutex<Keeper>,
    /// The number of blobs of each project that the last repair here found nowhere.
    lost: Mutex<BTreeMap<ProjectName, u64>>,
    terms: KeeperTerms,
}

/// What a repair has found and done.
#[derive(Default)]
struct Done {
    checked: u64,
    short: u64,
    copied: u64,
    bytes: u64,
    failed: u64,
    lost: u64,
    /// The replicas that were away for a moment, or about to leave: what they keep is not known.
    unsettled: BTreeSet<NodeId>,
    /// Errors for the log that were not written yet.
    said: Vec<String>,
}

impl Done {
    fn says(&mut self, line: String) {
        if self.said.len() < NAMED {
            self.said.push(line);
        }
    }

    fn show(&self) -> String {
        json!({
            "checked": self.checked,
            "short": self.short,
            "copied": self.copied,
            "bytes": self.bytes,
            "failed": self.failed,
            "lost": self.lost,
        })
        .to_string()
    }

    fn end(&self, name_of: impl Fn(NodeId) -> String) -> RunEnd {
        let Done { checked, short, copied, failed, lost, .. } = self;
        let looked = format!("{checked} blobs checked, {copied} copies made");
        if !self.unsettled.is_empty() {
            let names: Vec<String> = self.unsettled.iter().copied().map(name_of).collect();
            let why = format!(
                "{looked}; {} was away or is being removed, so it is looked again",
                names.join(", ")
            );
            return RunEnd::Failed(why);
        }
        if *failed > 0 {
            let why = format!("{looked}, {failed} of {short} blobs are still in too few regions");
            return RunEnd::Failed(why);
        }
        if *lost > 0 {
            let why = format!("{looked}; no replica that is up has {lost} blobs (see the log)");
            return RunEnd::Hopeless(why);
        }
        RunEnd::Done(looked)
    }
}

/// A blob that too few regions keep.
struct Short {
    digest: Digest,
    sources: Vec<NodeId>,
    to: Vec<NodeId>,
}

impl Repairs {
    /// Repairs through these rooms.
    pub fn new(
        neighbours: Arc<Neighbours>,
        store: Arc<Store>,
        flights: Arc<Flights>,
        terms: KeeperTerms,
    ) -> Arc<Self> {
        Arc::new(Repairs {
            neighbours,
            store,
            flights,
            keeper: Mutex::default(),
            lost: Mutex::default(),
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
        let repairs = self.clone();
        tasks.spawn("repairs", async move {
            loop {
                tokio::time::sleep(LOOK).await;
                if let Err(error) = repairs.ask_for_due(&jobs).await {
                    warn!(%error, "repairs that are due cannot be known");
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
        let view = self.neighbours.records.view()?;
        let mine: Vec<(ProjectName, u32)> = view
            .projects()?
            .into_iter()
            .filter(|p| p.primary == self.neighbours.me && p.upstream.is_none())
            .map(|project| (project.name, project.durability))
            .collect();
        let (now, drains) = (clock::now(), !draining.is_empty());
        let due = self.keeper.lock().handle_view(now, self.terms, &replicas, &down, drains, &mine);
        {
            // a project that is gone, or another node's now, is not this node's to complain about
            let mut lost = self.lost.lock();
            lost.retain(|name, _| mine.iter().any(|(project, _)| project == name));
            metrics::gauge!("atoll_repair_blobs_lost").set(lost.values().sum::<u64>() as f64);
        }
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
            self.lost.lock().insert(run.job.task.project.clone(), done.lost);
        }
        let end = ended.unwrap_or_else(|| done.end(|node| self.neighbours.name_of(node)));
        if let RunEnd::Failed(_) = end {
            self.keeper.lock().again(clock::now(), &run.job.task.project);
        }
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
        let (mut after, mut seen) = (None, HashSet::new());
        loop {
            if run.is_stopped() {
                let said = format!("{} blobs checked, {} copies made", done.checked, done.copied);
                return Some(RunEnd::Stopped(said));
            }
            let page = self.page(name, after.as_deref());
            let (durability, keys) = match page {
                Ok(Some(page)) => page,
                Ok(None) => return Some(RunEnd::Done("the project is gone".into())),
                Err(error) => return unreadable(error),
            };
            after = Some(keys.last().cloned()?);
            if seen.len() > REMEMBERED {
                seen.clear();
            }
            let digests = keys.iter().filter_map(|key| key::digest_of(key));
            let digests: Vec<Digest> = digests.filter(|digest| seen.insert(*digest)).collect();
            match self.survey(&digests).await {
                Ok(survey) => {
                    let short = find_short(&digests, &survey, durability, done);
                    self.copy_all(run, short, done).await;
                }
                Err(Silent(silent)) => {
                    let names: Vec<String> =
                        silent.iter().map(|node| self.neighbours.name_of(*node)).collect();
                    let why = format!("{} did not say what it keeps", names.join(", "));
                    return Some(RunEnd::Failed(why));
                }
            }
            run.progress(done.show());
            done.said.drain(..).for_each(|line| run.log(line));
        }
    }

    /// The project's durability, and the next links of its blobs; `None` if it is gone or caches
    /// an upstream.
    #[expect(clippy::type_complexity, reason = "a number and keys")]
    fn page(
        &self,
        name: &ProjectName,
        after: Option<&[u8]>,
    ) -> Result<Option<(u32, Vec<Vec<u8>>)>, RecordError> {
        at_length(|| {
            let view = self.neighbours.records.view()?;
            let Some(project) = view.project(name)?.filter(|p| p.upstream.is_none()) else {
                return Ok(None);
            };
            let links = view.scan(&key::links_of(name), after, PAGE)?;
            Ok(Some((project.durability, links.into_iter().map(|(key, _)| key).collect())))
        })
    }

    /// What is known of `digests` now. The error names replicas that are up and do not say what they
    /// keep.
    async fn survey(&self, digests: &[Digest]) -> Result<Survey, Silent> {
        let (tries, pause) = SILENT;
        let mut tried = 0;
        loop {
            let records = &self.neighbours.records;
            let leaving = records.view().and_then(|view| view.leaving()).ok().flatten();
            let leaving = leaving.map(|leaving| leaving.node);
            let mut alive = self.neighbours.alive();
            let draining = self.neighbours.draining();
            alive.retain(|c| Some(c.id) != leaving && !draining.contains(&c.id));
            let replicas: Vec<Candidate> = self
                .neighbours
                .nodes()
                .iter()
                .filter(|node| node.role == Role::Replica && !draining.contains(&node.id))
                .map(Candidate::of)
                .collect();
            let all = replicas.iter().map(|replica| replica.id).collect();
            let present = self.keeper.lock().present(&all);
            let away = |replica: &Candidate| {
                present.contains(&replica.id) && !alive.iter().any(|c| c.id == replica.id)
            };
            let away: Vec<Candidate> = replicas.into_iter().filter(away).collect();
            let mut stock = self.neighbours.have(digests, None).await;
            let mine: Result<Vec<_>, _> =
                at_length(|| digests.iter().map(|d| self.store.stock(d, None)).collect());
            if let Ok(mine) = mine {
                stock.insert(self.neighbours.me, mine);
            }
            let silent: Vec<NodeId> =
                alive.iter().map(|c| c.id).filter(|id| !stock.contains_key(id)).collect();
            if silent.is_empty() {
                let kept_by = self.kept_by(digests);
                return Ok(Survey { alive, away, leaving, stock, kept_by });
            }
            tried += 1;
            if tried == tries {
                return Err(Silent(silent));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The nodes that kept each blob when it was last pushed, as the ledger has it.
    fn kept_by(&self, digests: &[Digest]) -> Vec<Vec<NodeId>> {
        at_length(|| {
            let view = self.neighbours.records.view().ok();
            let record = |digest| view.as_ref()?.record::<BlobRecord>(&key::blob(digest)).ok()?;
            let kept_by = |digest| record(digest).map(|record| record.kept_by).unwrap_or_default();
            digests.iter().map(kept_by).collect()
        })
    }

    async fn copy_all(&self, run: &Run, short: Vec<Short>, done: &mut Done) {
        let copies = short.into_iter().map(|short| async move {
            let (mut bytes, mut made, mut error) = (0, 0, None);
            for node in &short.to {
                if run.is_stopped() {
                    error = Some("the repair was stopped".to_owned());
                    break;
                }
                match self.copy(*node, short.digest, &short.sources).await {
                    Ok(size) => {
                        bytes += size;
                        made += 1;
                    }
                    Err(why) => {
                        let name = self.neighbours.name_of(*node);
                        error = Some(format!("{} to {name}: {why}", short.digest));
                    }
                }
            }
            (bytes, made, error)
        });
        let mut copies = futures::stream::iter(copies).buffer_unordered(AT_A_TIME);
        while let Some((bytes, made, error)) = copies.next().await {
            done.bytes += bytes;
            done.copied += made;
            metrics::counter!("atoll_repair_copies_total").increment(made);
            metrics::counter!("atoll_repair_bytes_total").increment(bytes);
            if let Some(error) = error {
                done.failed += 1;
                done.says(error);
            }
            run.progress(done.show());
        }
    }

    async fn copy(&self, node: NodeId, digest: Digest, sources: &[NodeId]) -> Result<u64, String> {
        let copied = if node == self.neighbours.me {
            self.flights.replicate(digest, sources.to_vec(), None).await
        } else {
            let question = Replicate { digest, sources: sources.to_vec(), repository: None };
            let asked = self.neighbours.links.ask(node, question, COPY).await;
            asked.map_err(|e| e.to_string())?
        };
        copied.map(|held| held.size)
    }
}

/// What is known of some blobs.
struct Survey {
    /// The replicas that are up and stay.
    alive: Vec<Candidate>,
    /// The replicas that are away, but not for so long that their copies count as gone.
    away: Vec<Candidate>,
    /// The replica that is being removed, whose copies count for nothing.
    leaving: Option<NodeId>,
    /// What each replica that is up has of each blob.
    stock: BTreeMap<NodeId, Vec<Stock>>,
    /// The nodes that kept each blob when it was last pushed.
    kept_by: Vec<Vec<NodeId>>,
}

/// Replicas that are up and do not say what they keep.
struct Silent(Vec<NodeId>);

/// The blobs that too few regions keep, and where copies of them go. A replica that is away is
/// believed to keep what it kept when it was pushed, and its region is one that the project can
/// have: who was away is noted in `done`, so the look is repeated. Blobs that no replica has are
/// counted and named there, too.
fn find_short(digests: &[Digest], survey: &Survey, durability: u32, done: &mut Done) -> Vec<Short> {
    let Survey { alive, away, leaving, stock, kept_by } = survey;
    done.unsettled.extend(away.iter().map(|replica| replica.id).chain(*leaving));
    let regions: BTreeSet<&Region> = alive.iter().chain(away).map(|c| &c.region).collect();
    let wanted = (durability as usize).min(regions.len());
    let mut all_short = Vec::new();
    for (at, digest) in digests.iter().enumerate() {
        done.checked += 1;
        let stock_of = |node: NodeId| stock.get(&node).and_then(|stock| stock.get(at));
        let keeps = |node| stock_of(node).is_some_and(|s| s.held.is_some() && !s.cached);
        let caches = |node| stock_of(node).is_some_and(|s| s.held.is_some() && s.cached);
        let kept_here = alive.iter().filter(|c| keeps(c.id));
        let kept_away = away.iter().filter(|c| kept_by[at].contains(&c.id));
        let have: BTreeSet<&Region> = kept_here.chain(kept_away).map(|c| &c.region).collect();
        let cached = alive.iter().map(|c| c.id).filter(|id| caches(*id)).collect();
        // one that leaves may still be a source
        let sources: Vec<NodeId> =
            stock.keys().copied().filter(|node| keeps(*node) || caches(*node)).collect();
        if sources.is_empty() {
            if done.unsettled.is_empty() {
                done.lost += 1;
                done.says(format!("{digest}: no replica that is up has it"));
            }
            continue;
        }
        let to = missing_copies(digest, have, &cached, alive, wanted);
        if !to.is_empty() {
            done.short += 1;
            all_short.push(Short { digest: *digest, sources, to });
        }
    }
    all_short
}

impl Work for Repairs {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn carry_out<'a>(&'a self, run: &'a Run) -> Pin<Box<dyn Future<Output = RunEnd> + Send + 'a>> {
        Box::pin(self.repair(run))
    }
}

#[cfg(test)]
mod tests {
    use rules::blobs::holding::Held;
    use rules::words::digest::ContentHash;

    use super::*;

    fn candidate(id: u64, region: &str) -> Candidate {
        Candidate { id: NodeId(id), region: region.parse().unwrap(), role: Role::Replica }
    }

    fn kept() -> Stock {
        let held = Some(Held { size: 4, content: ContentHash::of(b"four") });
        Stock { held, cached: false, granted: false }
    }

    const NONE: Stock = Stock { held: None, cached: false, granted: false };

    fn name(node: NodeId) -> String {
        format!("node-{}", node.0)
    }

    #[test]
    fn what_is_short_gets_copies_what_is_lost_is_named_and_cached_copies_do_not_count() {
        let digests = [b"safe", b"once", b"soft", b"lost"].map(|text| Digest::sha256(text));
        let cached = Stock { cached: true, ..kept() };
        let survey = Survey {
            alive: vec![candidate(1, "a"), candidate(2, "b"), candidate(3, "c")],
            away: vec![],
            leaving: None,
            stock: [
                (NodeId(1), vec![kept(), kept(), cached, NONE]),
                (NodeId(2), vec![kept(), NONE, NONE, NONE]),
                (NodeId(3), vec![NONE, NONE, cached, NONE]),
            ]
            .into(),
            kept_by: vec![vec![NodeId(1), NodeId(9)]; 4],
        };
        let mut done = Done::default();
        let short = find_short(&digests, &survey, 2, &mut done);
        assert_eq!((done.checked, done.short, done.lost), (4, 2, 1));
        assert_eq!((short[0].digest, &short[0].sources[..]), (digests[1], &[NodeId(1)][..]));
        assert!(short[0].to.len() == 1 && short[0].to[0] != NodeId(1));
        let to: BTreeSet<NodeId> = short[1].to.iter().copied().collect();
        assert_eq!(to, [NodeId(1), NodeId(3)].into(), "no byte has to move");
        assert!(done.said[0].contains(&digests[3].to_string()));
        assert!(matches!(done.end(name), RunEnd::Hopeless(why) if why.contains("1 blobs")));
        let mut more = Done::default();
        assert_eq!(find_short(&digests[..1], &survey, 5, &mut more)[0].to, [NodeId(3)]);
        assert!(matches!(more.end(name), RunEnd::Done(_)));
    }

    /// Such a repair once said that all was done, and that what the replica has was lost; and
    /// nothing looked again when it was back.
    #[test]
    fn a_replica_that_is_away_for_a_moment_lowers_nothing_and_loses_nothing() {
        let digests = [b"here", b"away", b"mine"].map(|text| Digest::sha256(text));
        let mut survey = Survey {
            alive: vec![candidate(1, "a"), candidate(2, "b")],
            away: vec![candidate(3, "c")],
            leaving: None,
            stock: [(NodeId(1), vec![kept(), NONE, kept()]), (NodeId(2), vec![kept(), NONE, NONE])]
                .into(),
            kept_by: vec![vec![NodeId(1)], vec![NodeId(3)], vec![NodeId(1), NodeId(3)]],
        };
        let mut done = Done::default();
        assert!(find_short(&digests, &survey, 2, &mut done).is_empty(), "it has the other copy");
        assert_eq!(done.lost, 0);
        let why = |done: &Done| match done.end(name) {
            RunEnd::Failed(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(why(&done).contains("node-3"), "{}", why(&done));
        let mut done = Done::default();
        let short = find_short(&digests, &survey, 3, &mut done);
        assert_eq!(
            (short.len(), short[0].digest, &short[0].to[..]),
            (1, digests[2], &[NodeId(2)][..])
        );
        why(&done);

        // it is being removed: what it has counts for nothing, but may be copied
        let third = vec![NONE, kept(), kept()];
        survey.away.clear();
        (survey.leaving, survey.stock) = (
            Some(NodeId(3)),
            std::mem::take(&mut survey.stock).into_iter().chain([(NodeId(3), third)]).collect(),
        );
        let mut done = Done::default();
        let short = find_short(&digests, &survey, 2, &mut done);
        assert_eq!(short.iter().map(|short| short.digest).collect::<Vec<_>>(), digests[1..]);
        assert_eq!(short[0].sources, [NodeId(3)]);
        why(&done);
    }
}
