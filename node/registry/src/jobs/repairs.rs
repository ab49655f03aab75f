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
use rules::ledger::records::{Look, RecordError, Role, key};
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

    fn end(&self) -> RunEnd {
        let Done { checked, short, copied, failed, lost, .. } = self;
        let looked = format!("{checked} blobs checked, {copied} copies made");
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
        let replicas = self.neighbours.nodes().into_iter().filter(|n| n.role == Role::Replica);
        let replicas: BTreeSet<NodeId> = replicas.map(|node| node.id).collect();
        let up: BTreeSet<NodeId> = self.neighbours.alive().into_iter().map(|c| c.id).collect();
        let down = replicas.difference(&up).copied().collect();
        let view = self.neighbours.records.view()?;
        let mine: Vec<(ProjectName, u32)> = view
            .projects()?
            .into_iter()
            .filter(|p| p.primary == self.neighbours.me && p.upstream.is_none())
            .map(|project| (project.name, project.durability))
            .collect();
        let due = self.keeper.lock().handle_view(clock::now(), self.terms, &replicas, &down, &mine);
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
            let mut lost = self.lost.lock();
            lost.insert(run.job.task.project.clone(), done.lost);
            metrics::gauge!("atoll_repair_blobs_lost").set(lost.values().sum::<u64>() as f64);
        }
        let end = ended.unwrap_or_else(|| done.end());
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
            match self.stock(&digests).await {
                Ok((alive, stock)) => {
                    let short = find_short(&digests, &alive, &stock, durability, done);
                    self.copy_all(run, short, done).await;
                }
                Err(silent) => {
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

    /// What each replica that is up keeps of `digests`. The error names those that do not say so.
    async fn stock(
        &self,
        digests: &[Digest],
    ) -> Result<(Vec<Candidate>, BTreeMap<NodeId, Vec<Stock>>), Vec<NodeId>> {
        let (tries, pause) = SILENT;
        let mut tried = 0;
        loop {
            let mut alive = self.neighbours.alive();
            let leaving = self.neighbours.records.view().and_then(|view| view.leaving());
            if let Ok(Some(leaving)) = leaving {
                alive.retain(|candidate| candidate.id != leaving.node);
            }
            let mut stock = self.neighbours.have(digests, None).await;
            let mine: Result<Vec<_>, _> =
                at_length(|| digests.iter().map(|d| self.store.stock(d, None)).collect());
            if let Ok(mine) = mine {
                stock.insert(self.neighbours.me, mine);
            }
            let silent: Vec<NodeId> =
                alive.iter().map(|c| c.id).filter(|id| !stock.contains_key(id)).collect();
            if silent.is_empty() {
                return Ok((alive, stock));
            }
            tried += 1;
            if tried == tries {
                return Err(silent);
            }
            tokio::time::sleep(pause).await;
        }
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

/// The blobs that too few regions keep, and where copies of them go. Blobs that no replica has are
/// counted and named in `done`.
fn find_short(
    digests: &[Digest],
    alive: &[Candidate],
    stock: &BTreeMap<NodeId, Vec<Stock>>,
    durability: u32,
    done: &mut Done,
) -> Vec<Short> {
    let regions: BTreeSet<&Region> = alive.iter().map(|candidate| &candidate.region).collect();
    let wanted = (durability as usize).min(regions.len());
    let mut all_short = Vec::new();
    for (at, digest) in digests.iter().enumerate() {
        done.checked += 1;
        let has = |node: &NodeId, kept: bool| {
            let stock = stock.get(node).and_then(|stock| stock.get(at));
            stock.is_some_and(|stock| stock.held.is_some() && stock.cached != kept)
        };
        let of = |kept| alive.iter().map(|c| c.id).filter(|id| has(id, kept)).collect();
        let (keep, cached): (BTreeSet<NodeId>, BTreeSet<NodeId>) = (of(true), of(false));
        // one that leaves may still be a source
        let sources: Vec<NodeId> =
            stock.keys().copied().filter(|node| has(node, true) || has(node, false)).collect();
        if sources.is_empty() {
            done.lost += 1;
            done.says(format!("{digest}: no replica that is up has it"));
            continue;
        }
        let to = missing_copies(digest, &keep, &cached, alive, wanted);
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

    #[test]
    fn what_is_short_gets_copies_what_is_lost_is_named_and_cached_copies_do_not_count() {
        let candidate = |id: u64, region: &str| Candidate {
            id: NodeId(id),
            region: region.parse().unwrap(),
            role: Role::Replica,
        };
        let alive = [candidate(1, "a"), candidate(2, "b"), candidate(3, "c")];
        let digests = [b"safe", b"once", b"soft", b"lost"].map(|text| Digest::sha256(text));
        let held = Some(Held { size: 4, content: ContentHash::of(b"four") });
        let kept = Stock { held, cached: false, granted: false };
        let cached = Stock { cached: true, ..kept };
        let none = Stock { held: None, cached: false, granted: false };
        let stock = [
            (NodeId(1), vec![kept, kept, cached, none]),
            (NodeId(2), vec![kept, none, none, none]),
            (NodeId(3), vec![none, none, cached, none]),
            // it leaves: it is a source and no more
            (NodeId(4), vec![none, none, none, none]),
        ];
        let stock: BTreeMap<NodeId, Vec<Stock>> = stock.into();
        let mut done = Done::default();
        let short = find_short(&digests, &alive, &stock, 2, &mut done);
        assert_eq!((done.checked, done.short, done.lost), (4, 2, 1));
        assert_eq!((short[0].digest, &short[0].sources[..]), (digests[1], &[NodeId(1)][..]));
        assert!(short[0].to.len() == 1 && short[0].to[0] != NodeId(1));
        let to: BTreeSet<NodeId> = short[1].to.iter().copied().collect();
        assert_eq!(to, [NodeId(1), NodeId(3)].into(), "no byte has to move");
        assert!(done.said[0].contains(&digests[3].to_string()));
        assert!(matches!(done.end(), RunEnd::Hopeless(why) if why.contains("1 blobs")));
        let mut more = Done::default();
        assert_eq!(find_short(&digests[..1], &alive, &stock, 5, &mut more)[0].to, [NodeId(3)]);
        assert!(matches!(more.end(), RunEnd::Done(_)));
    }
}
