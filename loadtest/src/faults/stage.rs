//! The mesh under trial: real processes, each in a namespace of its own and on ground of its own,
//! with a supervisor that starts again what ends, as systemd does.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::{Scope, sleep};
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::ground::{self, Ground, Illness};
use super::plan::{Fault, Kind, Plan, Victim};
use super::retained;
use crate::formed::{Formed, Site};
use crate::network::{PROFILES, Profile};
use crate::process::Signal;
use crate::stop;

/// The project whose primary faults befall.
pub(crate) const PROJECT: &str = "trial";

/// Between two looks of the supervisor, and how long it waits before it starts a node again.
const LOOK: Duration = Duration::from_millis(200);
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Answers that may be stale are refused, so that what a client reads must be in the one order. What
/// nothing refers to leaves the disks within seconds, so that what is lost by that is seen.
const SETTINGS: &str = "reads: {without_lease: refuse}
collection: {grace: 3s, every: 1s}
uploads: {expire_after: 15s}
retention: {confirm_over: 100}
";
/// What an edge knows of a deleted image counts no longer.
const OF_EDGES: &str = "edge: {access_age: 3s}\n";
/// The time for which the project keeps what was deleted.
const TRASH: &str = "2s";

/// A mesh and what it stands on.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The mesh.
    pub(crate) mesh: Formed, // before what it stands on
    grounds: Vec<Ground>,
    replicas: usize,
    nodes: Vec<Node>,
    _folder: TempDir,
}

/// What is done to one node. Faults overlap, so each is counted.
#[derive(Debug, Default)]
struct Node {
    /// While this is not zero the supervisor leaves it dead.
    held: AtomicUsize,
    stopped: AtomicUsize,
    illness: Mutex<Vec<(Kind, Illness)>>,
    /// How often it ended by itself.
    ended: AtomicUsize,
}

/// Who leads what, as nodes said it meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Epoch of a project and the node that was its primary.
    primaries: std::collections::BTreeMap<(String, u64), String>,
    /// What must not be.
    pub(crate) violations: Vec<String>,
}

impl Stage {
    /// Forms a mesh of `replicas` regions of one replica, with an edge in the first `edges`, whose nodes
    /// log at the level `log`.
    pub(crate) fn raise(atoll: &Path, replicas: usize, edges: usize, log: &str) -> Result<Self> {
        let settings = format!("{SETTINGS}log: {{level: {log:?}}}\n");
        let folder = TempDir::with_prefix("loadtest-faults-")?;
        let library = ground::library(folder.path())?;
        let sites: Vec<_> =
            (0..replicas).map(Site::replica).chain((0..edges).map(Site::edge)).collect();
        let mut grounds = Vec::new();
        let mesh = Formed::on(atoll, &sites, (&settings, OF_EDGES), &mut |at, data| {
            let ground = Ground::new(folder.path(), &library, at, data)?;
            let environment = ground.environment();
            grounds.push(ground);
            Ok(environment)
        })?;
        mesh.create_project(PROJECT, 2)?;
        mesh.configure_project(PROJECT, &json!({ "trash": TRASH }))?;
        retained::keep_the_newest(&mesh)?;
        let nodes = sites.iter().map(|_| Node::default()).collect();
        Ok(Stage { mesh, grounds, replicas, nodes, _folder: folder })
    }

    /// How many replicas it has. They come before its edges.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas
    }

    /// How many nodes it has.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// How often nodes have ended by themselves so far.
    pub(crate) fn ended(&self) -> usize {
        self.nodes.iter().map(|node| node.ended.load(Ordering::Relaxed)).sum()
    }

    /// Starts what ends, until `over`.
    pub(crate) fn supervise(&self, over: &AtomicBool) {
        let mut gone: Vec<Option<Instant>> = vec![None; self.nodes()];
        while !over.load(Ordering::Relaxed) {
            for (at, node) in self.nodes.iter().enumerate() {
                if node.held.load(Ordering::SeqCst) > 0 || self.mesh.ended(at).is_none() {
                    gone[at] = None;
                    continue;
                }
                match gone[at] {
                    None => {
                        node.ended.fetch_add(1, Ordering::Relaxed);
                        gone[at] = Some(Instant::now());
                    }
                    Some(since) if since.elapsed() > AGAIN_AFTER => {
                        gone[at] = None;
                        let _ = self.mesh.launch(at); // one that is held again meanwhile runs soon
                    }
                    Some(_) => {}
                }
            }
            sleep(LOOK);
        }
    }

    /// Asks all nodes who is primary, until `over`.
    pub(crate) fn watch(&self, over: &AtomicBool, watched: &Mutex<Watched>) {
        while !over.load(Ordering::Relaxed) {
            for at in 0..self.replicas() {
                if let Ok(status) = self.mesh.status(at) {
                    locked(watched).note(&status);
                }
            }
            sleep(LOOK);
        }
    }

    /// Plays all faults of a plan; returns when the last has ended. Each that cannot be made is an
    /// error of the trial's, not of the mesh's.
    pub(crate) fn play(&self, plan: &Plan, begun: Instant) -> Result<()> {
        self.mesh.network.profile(plan.network);
        let played = std::thread::scope(|scope| {
            let playing: Vec<_> = plan
                .faults
                .iter()
                .enumerate()
                .map(|(number, fault)| self.one(scope, plan, number, *fault, begun))
                .collect();
            playing.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a fault panicked")))
            })
        });
        self.heal();
        played
    }

    fn one<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        plan: &Plan,
        number: usize,
        fault: Fault,
        begun: Instant,
    ) -> std::thread::ScopedJoinHandle<'scope, Result<()>> {
        let (seed, calm) = (plan.seed ^ ((number as u64 + 1) << 48), plan.network);
        scope.spawn(move || {
            if !pause_until(begun + Duration::from_secs_f64(fault.at)) {
                return Ok(());
            }
            let victims = self.victims(fault.victim);
            self.befall(fault, &victims, calm, &mut StdRng::seed_from_u64(seed))
        })
    }

    /// The nodes that a fault befalls. If nobody is known to lead, the first does for it.
    fn victims(&self, victim: Victim) -> Vec<usize> {
        let statuses: Vec<_> =
            (0..self.replicas()).filter_map(|at| self.mesh.status(at).ok()).collect();
        let number = |name: &str| name.strip_prefix("node-")?.parse::<usize>().ok();
        let leader = statuses
            .iter()
            .find_map(|status| number(status["leader"]["name"].as_str()?))
            .unwrap_or(0);
        let primary = statuses
            .iter()
            .find_map(|status| {
                let projects = status["projects"].as_array()?;
                let project = projects.iter().find(|one| one["name"] == PROJECT)?;
                number(project["primary"].as_str()?)
            })
            .unwrap_or(leader);
        let mut victims = match victim {
            Victim::Leader => vec![leader],
            Victim::Primary => vec![primary],
            Victim::Both => vec![leader, primary],
            Victim::Node(at) => vec![at],
            Victim::All => (0..self.nodes()).collect(),
        };
        victims.dedup();
        victims
    }

    fn befall(
        &self,
        fault: Fault,
        victims: &[usize],
        calm: Profile,
        dice: &mut StdRng,
    ) -> Result<()> {
        let end = Instant::now() + Duration::from_secs_f64(fault.lasts);
        match fault.kind {
            Kind::Blink | Kind::Kill | Kind::Power | Kind::Replace => {
                self.kill(fault, victims, end, dice)?;
            }
            Kind::Stop => {
                for at in victims {
                    self.nodes[*at].stopped.fetch_add(1, Ordering::SeqCst);
                    self.mesh.signal(*at, Signal::STOP);
                }
                pause_until(end);
                for at in victims {
                    if self.nodes[*at].stopped.fetch_sub(1, Ordering::SeqCst) == 1 {
                        self.mesh.signal(*at, Signal::CONT);
                    }
                }
            }
            Kind::Cut | Kind::Pair | Kind::Deaf | Kind::Flap => {
                self.cut(fault, victims, end, dice);
            }
            Kind::Weather => {
                let worse = Profile {
                    name: "weather",
                    round_trip: calm.round_trip + Duration::from_secs_f64(0.3 * fault.degree),
                    loss: 0.02 + 0.18 * fault.degree,
                    ..calm
                };
                self.mesh.network.profile(worse);
                pause_until(end);
                self.mesh.network.profile(calm);
            }
            Kind::Slow | Kind::Hang | Kind::Fail | Kind::Full | Kind::Clock => {
                let illness = illness(fault, dice);
                for at in victims {
                    self.fall_ill(*at, fault.kind, illness)?;
                }
                pause_until(end);
                for at in victims {
                    self.recover(*at, fault.kind, illness)?;
                }
            }
        }
        Ok(())
    }

    fn kill(&self, fault: Fault, victims: &[usize], end: Instant, dice: &mut StdRng) -> Result<()> {
        for at in victims {
            self.nodes[*at].held.fetch_add(1, Ordering::SeqCst);
            self.mesh.signal(*at, Signal::KILL);
        }
        for at in victims {
            while self.mesh.ended(*at).is_none() && stop::check().is_ok() {
                sleep(Duration::from_millis(2));
            }
            if fault.kind == Kind::Power {
                self.grounds[*at].lose_power(dice)?;
            }
        }
        pause_until(end);
        for at in victims {
            if fault.kind == Kind::Replace {
                self.mesh.replace(*at, (*at + 1) % self.replicas())?;
            }
            if self.nodes[*at].held.fetch_sub(1, Ordering::SeqCst) == 1 {
                let _ = self.mesh.launch(*at); // the supervisor may have been first
            }
        }
        Ok(())
    }

    fn cut(&self, fault: Fault, victims: &[usize], end: Instant, dice: &mut StdRng) {
        let victim = victims[0];
        let others: Vec<_> = (0..self.nodes()).filter(|at| *at != victim).collect();
        let ways: Vec<(usize, usize)> = match fault.kind {
            Kind::Pair => {
                let other = others[dice.random_range(0..others.len())];
                vec![(victim, other), (other, victim)]
            }
            Kind::Deaf => others.iter().map(|other| (victim, *other)).collect(),
            _ => others.iter().flat_map(|other| [(victim, *other), (*other, victim)]).collect(),
        };
        let all = |cut| ways.iter().for_each(|(from, to)| self.mesh.network.cut(*from, *to, cut));
        if fault.kind == Kind::Flap {
            let beat = Duration::from_secs_f64(0.2 + 2.8 * fault.degree);
            while Instant::now() < end {
                all(true);
                pause_until((Instant::now() + beat).min(end));
                all(false);
                if !pause_until((Instant::now() + beat).min(end)) {
                    return;
                }
            }
        } else {
            all(true);
            pause_until(end);
            all(false);
        }
    }

    fn fall_ill(&self, at: usize, kind: Kind, illness: Illness) -> Result<()> {
        let mut ill = locked(&self.nodes[at].illness);
        ill.push((kind, illness));
        self.grounds[at].suffer(all_of(&ill))
    }

    fn recover(&self, at: usize, kind: Kind, illness: Illness) -> Result<()> {
        let mut ill = locked(&self.nodes[at].illness);
        if let Some(found) = ill.iter().position(|one| *one == (kind, illness)) {
            ill.remove(found);
        }
        self.grounds[at].suffer(all_of(&ill))
    }

    /// Ends every fault, also those of a trial that was broken off.
    fn heal(&self) {
        self.mesh.network.profile(PROFILES[0]);
        for at in 0..self.nodes() {
            for to in 0..self.nodes() {
                self.mesh.network.cut(at, to, false);
            }
            locked(&self.nodes[at].illness).clear();
            let _ = self.grounds[at].suffer(Illness::default());
            self.nodes[at].held.store(0, Ordering::SeqCst);
            self.nodes[at].stopped.store(0, Ordering::SeqCst);
            self.mesh.signal(at, Signal::CONT);
        }
    }
}

/// What a status calls a node that was removed.
const REMOVED: &str = "(a removed node)";

impl Watched {
    /// One status of one node: whoever is primary in an epoch is so for all.
    fn note(&mut self, status: &Value) {
        for project in status["projects"].as_array().into_iter().flatten() {
            let told =
                (project["name"].as_str(), project["epoch"].as_u64(), project["primary"].as_str());
            let (Some(name), Some(epoch), Some(primary)) = told else { continue };
            // until another node is chosen, this is the one that led in this epoch under its name
            if primary == REMOVED {
                continue;
            }
            let first = self.primaries.entry((name.to_owned(), epoch));
            let first = first.or_insert_with(|| primary.to_owned());
            if first != primary {
                self.violations.push(format!(
                    "{name} had two primaries in epoch {epoch}: {first} and {primary}"
                ));
            }
        }
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}

fn illness(fault: Fault, dice: &mut StdRng) -> Illness {
    let well = Illness::default();
    match fault.kind {
        Kind::Slow => Illness { slow_ms: 20 + (480.0 * fault.degree) as i32, ..well },
        Kind::Hang => Illness { hangs: true, ..well },
        Kind::Fail => Illness { fails: true, ..well },
        Kind::Full => Illness { full: true, ..well },
        _ => {
            let most: i64 = [2_000, 60_000, 3_600_000, 86_400_000][dice.random_range(0..4)];
            Illness { clock_ms: dice.random_range(-most..most), ..well }
        }
    }
}

/// Several illnesses at once: the worst of each.
fn all_of(ill: &[(Kind, Illness)]) -> Illness {
    ill.iter().fold(Illness::default(), |all, (_, one)| Illness {
        clock_ms: all.clock_ms + one.clock_ms,
        slow_ms: all.slow_ms.max(one.slow_ms),
        hangs: all.hangs || one.hangs,
        fails: all.fails || one.fails,
        full: all.full || one.full,
    })
}

/// Sleeps until then; false if the run is to end before.
pub(crate) fn pause_until(end: Instant) -> bool {
    while Instant::now() < end {
        if stop::check().is_err() {
            return false;
        }
        sleep((end - Instant::now()).min(Duration::from_millis(50)));
    }
    stop::check().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_one_primary() {
        let status = |epoch: u64, primary: &str| json!({ "projects": [{ "name": PROJECT, "epoch": epoch, "primary": primary }] });
        let mut watched = Watched::default();
        watched.note(&status(1, "node-0"));
        watched.note(&status(2, "node-1"));
        watched.note(&status(1, "node-0"));
        assert!(watched.violations.is_empty());
        watched.note(&status(2, "node-2"));
        assert_eq!(watched.violations.len(), 1, "{:?}", watched.violations);
    }

    #[test]
    fn illnesses_add_up() {
        let one = Illness { clock_ms: 5, slow_ms: 10, ..Illness::default() };
        let other = Illness { clock_ms: -2, hangs: true, ..Illness::default() };
        let all = all_of(&[(Kind::Clock, one), (Kind::Hang, other)]);
        assert_eq!((all.clock_ms, all.slow_ms, all.hangs, all.full), (3, 10, true, false));
    }
}
