//! `loadtest failover`: `kill -9` of a project's primary, and the time until another node
//! acknowledges a push.
//!
//! While the primary is dead, clients at the other regions pull an image that those hold. An
//! acknowledged push that any node later does not have counts as lost.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::content::{Blob, MIB, manifest};
use crate::figures::{plain, quantile};
use crate::mesh::{Mesh, PATIENCE};
use crate::registry::{self, blob_path, manifest_path};
use crate::report::{Report, Table};
use crate::wire::Target;
use crate::{process, stop, tools};

const PROJECT: &str = "demo";
const HELD: &str = "demo/held";
const PUSHED: &str = "demo/failover";
const TAG: &str = "held";

/// How long one request of a client may hang before it tries again.
const CLIENT_PATIENCE: Duration = Duration::from_secs(15);
/// Between two tries of a push.
const RETRY: Duration = Duration::from_millis(20);
/// Between two pulls: enough to be seen, too little to take the machine.
const PULL_PAUSE: Duration = Duration::from_millis(50);
/// How long the mesh must be whole before the next trial.
const CALM: Duration = Duration::from_secs(1);

/// How often to kill.
#[derive(Args, Debug)]
pub(crate) struct Failover {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// Primaries to kill, one after the other
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    trials: u16,
}

/// What one trial showed.
#[derive(Clone, Debug, Serialize)]
struct Trial {
    killed: String,
    pushed_to: String,
    /// From the kill to the acknowledgement; nothing if there was none in [`PATIENCE`].
    seconds: Option<f64>,
    /// Pushes begun until then.
    tries: usize,
    pulls: usize,
    failed_pulls: usize,
    /// Nodes that did not have the acknowledged push when the mesh was whole again.
    missing_at: Vec<String>,
}

/// An image that clients pull and push.
#[derive(Debug)]
struct Image {
    layer: Blob,
    config: Blob,
    manifest: Blob,
}

impl Failover {
    /// Measures and writes `failover.json` and `failover.md`, also when a trial ends the run.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        let mut report = Report::new("failover", "Losing the primary");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        let mut mesh = Mesh::up(&atoll, 3)?;
        report
            .server("atoll", &format!("{}; three regions on this machine", tools::version(&atoll)));
        let held = Image::random(MIB);
        held.push(&mesh.target(0), HELD, TAG)?;
        for node in &mesh.nodes {
            process::until("every region holds the image", PATIENCE, || {
                Ok(held.pull(&node.anonymous(), HELD, TAG).is_ok().then_some(()))
            })?;
        }
        let mut trials = Vec::new();
        let mut ended = Ok(());
        for number in 0..usize::from(self.trials) {
            ended = trial(&mut mesh, &held, number).map(|trial| {
                eprintln!("loadtest: trial {} of {}: {trial:?}", number + 1, self.trials);
                trials.push(trial);
            });
            if ended.is_err() {
                break;
            }
        }
        write(&mut report, &trials, ended.as_ref().err())?;
        report.write(out)?;
        ended
    }
}

impl Image {
    fn random(size: usize) -> Self {
        let (layer, config) = (Blob::random(size), Blob::config());
        Image { manifest: manifest(&config, &[(layer.digest, size)]), layer, config }
    }

    /// Pushes it whole, as a client that begins from the start each time.
    fn push(&self, target: &Target, repository: &str, tag: &str) -> Result<()> {
        let client = &mut target.client().patient_for(CLIENT_PATIENCE);
        registry::upload_blob(client, repository, &self.layer)?;
        registry::upload_blob(client, repository, &self.config)?;
        registry::put_manifest(client, repository, tag, &self.manifest)
    }

    /// Pulls manifest and layer and hashes both.
    fn pull(&self, target: &Target, repository: &str, reference: &str) -> Result<()> {
        let client = &mut target.client().patient_for(CLIENT_PATIENCE);
        registry::verify(client, &manifest_path(repository, reference), &self.manifest.digest)?;
        registry::verify(client, &blob_path(repository, &self.layer.digest), &self.layer.digest)
    }
}

/// Kills the primary, waits for the next acknowledgement, and makes the mesh whole again.
fn trial(mesh: &mut Mesh, held: &Image, number: usize) -> Result<Trial> {
    let victim = mesh.primary(PROJECT)?;
    let survivors: Vec<usize> = (0..mesh.nodes.len()).filter(|at| *at != victim).collect();
    let at = survivors[number % survivors.len()];
    let (pushed, tag, target) = (Image::random(4096), format!("t{number}"), mesh.target(at));
    let pullers: Vec<Target> = survivors.iter().map(|at| mesh.nodes[*at].anonymous()).collect();
    let (over, pulls, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut trial = Trial {
        killed: mesh.nodes[victim].name.clone(),
        pushed_to: mesh.nodes[at].name.clone(),
        seconds: None,
        tries: 0,
        pulls: 0,
        failed_pulls: 0,
        missing_at: Vec::new(),
    };
    std::thread::scope(|scope| {
        let (over, pulls, failed) = (&over, &pulls, &failed);
        for target in &pullers {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    pulls.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = held.pull(target, HELD, TAG) {
                        failed.fetch_add(1, Ordering::Relaxed);
                        eprintln!("loadtest: a pull failed: {error:#}");
                    }
                    std::thread::sleep(PULL_PAUSE);
                }
            });
        }
        let done = kill_and_push(mesh, victim, &target, (&pushed, &tag), &mut trial)
            .and_then(|()| mend(mesh, victim));
        over.store(true, Ordering::Relaxed);
        done
    })?;
    (trial.pulls, trial.failed_pulls) = (pulls.into_inner(), failed.into_inner());
    if trial.seconds.is_some() {
        for node in &mesh.nodes {
            let has = process::until("the push is there", PATIENCE / 4, || {
                Ok(pushed.pull(&node.anonymous(), PUSHED, &tag).is_ok().then_some(()))
            });
            stop::check()?;
            if has.is_err() {
                trial.missing_at.push(node.name.clone());
            }
        }
    }
    Ok(trial)
}

fn kill_and_push(
    mesh: &mut Mesh,
    victim: usize,
    target: &Target,
    (pushed, tag): (&Image, &str),
    trial: &mut Trial,
) -> Result<()> {
    std::thread::sleep(PULL_PAUSE * 4);
    mesh.kill(victim);
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        stop::check()?;
        trial.tries += 1;
        if pushed.push(target, PUSHED, tag).is_ok() {
            trial.seconds = Some(begun.elapsed().as_secs_f64());
            break;
        }
        std::thread::sleep(RETRY);
    }
    Ok(())
}

/// Starts the dead node and waits until all nodes see each other and agree on a primary for a
/// while.
fn mend(mesh: &mut Mesh, victim: usize) -> Result<()> {
    mesh.start(victim)?;
    let mut calm: Option<(Instant, usize)> = None;
    process::until("the mesh is whole again", PATIENCE, || {
        let primary = mesh.agreed_primary(PROJECT).filter(|_| mesh.is_whole());
        let since = calm
            .filter(|(_, before)| Some(*before) == primary)
            .map_or_else(Instant::now, |(since, _)| since);
        calm = primary.map(|primary| (since, primary));
        Ok(calm.filter(|(since, _)| since.elapsed() >= CALM).map(|_| ()))
    })
}

fn write(report: &mut Report, trials: &[Trial], ended: Option<&anyhow::Error>) -> Result<()> {
    ensure!(!trials.is_empty() || ended.is_some(), "no trial");
    let mut times: Vec<f64> = trials.iter().filter_map(|trial| trial.seconds).collect();
    times.sort_by(f64::total_cmp);
    let sum = |part: fn(&Trial) -> usize| trials.iter().map(part).sum::<usize>();
    let (pulls, failed) = (sum(|trial| trial.pulls), sum(|trial| trial.failed_pulls));
    let lost = sum(|trial| usize::from(!trial.missing_at.is_empty()));
    let silent = trials.len() - times.len();
    report.heading("From the kill to the next acknowledged push");
    report.say(&format!(
        "{} trials on three regions of this machine, without a WAN between them; the goals are those for regions 100 ms apart.",
        trials.len()
    ));
    let told = |q: f64| quantile(&times, q);
    let seconds = |value: Option<f64>| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{} s", plain(value)))
    };
    let met = |met: Option<bool>| match met {
        Some(true) => "met".to_owned(),
        Some(false) => "**missed**".to_owned(),
        None => "-".to_owned(),
    };
    let mut table = Table::new(&["figure", "found", "goal", "verdict"]);
    let mut row = |figure: &str, found: String, goal: &str, verdict: Option<bool>| {
        table.row(vec![figure.to_owned(), found, goal.to_owned(), met(verdict)]);
    };
    let within = |q: f64, most: f64| told(q).map(|time| time <= most && silent == 0);
    row("p50", seconds(told(0.5)), "<= 6 s", within(0.5, 6.0));
    row("p99", seconds(told(0.99)), "<= 10 s", within(0.99, 10.0));
    row("longest", seconds(told(1.0)), "-", None);
    row("never acknowledged", silent.to_string(), "0", Some(silent == 0));
    row(
        "failed pulls at the other regions",
        format!("{failed} of {pulls}"),
        "0",
        Some(failed == 0),
    );
    row("acknowledged pushes lost", lost.to_string(), "0", Some(lost == 0));
    report.table(&table);
    if let Some(error) = ended {
        report.say(&format!("The run ended early: {error:#}"));
    }
    let mut table =
        Table::new(&["trial", "killed", "pushed to", "seconds", "tries", "pulls", "failed"]);
    for (number, trial) in trials.iter().enumerate() {
        table.row(vec![
            (number + 1).to_string(),
            trial.killed.clone(),
            trial.pushed_to.clone(),
            trial.seconds.map_or_else(|| "-".to_owned(), plain),
            trial.tries.to_string(),
            trial.pulls.to_string(),
            trial.failed_pulls.to_string(),
        ]);
    }
    report.table(&table);
    report.record("trials", serde_json::to_value(trials)?);
    Ok(())
}
