//! `loadtest faults`: trials of a mesh of real processes. Clients push, delete, tag and pull while
//! a seeded plan of faults befalls the nodes; when the faults have ended, everything that was
//! acknowledged is read back from every node, what clients saw is put into one order, and the
//! nodes' records are compared.
//!
//! A trial is one line of a file that later runs go on with, so that trials add up over days. A
//! seed says which faults befall whom and when; what the processes make of it is theirs, so a seed
//! that failed may need to be played more than once.

mod clients;
mod ground;
mod history;
mod plan;
mod retained;
mod stage;
mod verdict;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum as _};
use serde::{Deserialize, Serialize};

use crate::figures::plain;
use crate::machine::Origin;
use crate::report::{Report, Table};
use crate::{stop, tools};

use clients::Clients;
use plan::{Fault, Kind, Plan};
use retained::Retained;
use stage::{Stage, Watched, locked, pause_until};
use verdict::Terms;

/// How many clients work at a node.
const CLIENTS: usize = 2;
/// How often `--shrink` plays a plan before it believes that it holds.
const TRIES: usize = 3;

/// Which trials. Needs root, `iproute2`, `util-linux` and a C compiler.
#[derive(Args, Debug)]
pub(crate) struct Faults {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// How many trials
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    trials: u32,
    /// Begin no further trial after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// How many trials one mesh stands before a new one is formed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    of_a_mesh: u32,
    /// How many replicas, each in a region of its own
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    nodes: u8,
    /// How many edges, in the first regions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=3))]
    edges: u8,
    /// The first seed; without it the one after the last in the file of trials
    #[arg(long)]
    seed: Option<u64>,
    /// Only these kinds of faults
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    /// The file to which each trial adds a line; without it `trials.jsonl` beside the report
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What the nodes log (`log.level`); their logs are kept where a trial is not passed
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
    /// Leaves out these faults of the plan, by their number
    #[arg(long, value_delimiter = ',', value_name = "NUMBER")]
    without: Vec<usize>,
    /// Plays the first seed again and again without some of its faults, and tells the fewest that fail
    #[arg(long)]
    shrink: bool,
}

/// What became of one trial: a line of the file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Outcome {
    seed: u64,
    nodes: usize,
    #[serde(default)]
    edges: usize,
    kinds: Vec<Kind>,
    network: String,
    commit: String,
    date: String,
    /// Seconds under faults.
    seconds: f64,
    pushed: usize,
    deleted: usize,
    reads: usize,
    writes: usize,
    unknown: usize,
    failed: usize,
    /// How often retention was said to run.
    #[serde(default)]
    runs: usize,
    /// The longest time in which no write was acknowledged at all, in seconds.
    longest_wait: f64,
    /// From the end of the faults until the mesh was whole, in seconds.
    healed: Option<f64>,
    /// How often a node ended by itself and was started again.
    ended: usize,
    /// What was not as it must be; none: the trial was passed.
    violations: Vec<String>,
}

impl Faults {
    /// Plays the trials and writes `faults.json` and `faults.md`. Fails if one was not passed.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "trials are played in network namespaces: run this as root"
        );
        let atoll = tools::atoll(self.atoll.as_deref())?;
        let file = self.file.clone().unwrap_or_else(|| out.join("trials.jsonl"));
        let first = match self.seed {
            Some(seed) => seed,
            None => earlier(&file)?.iter().map(|trial| trial.seed + 1).max().unwrap_or(1),
        };
        if self.shrink {
            return self.shrink(&atoll, first);
        }
        let mut report = Report::new("faults", "Trials");
        let what =
            format!("{}; {} regions, {} edges", tools::version(&atoll), self.nodes, self.edges);
        report.server("atoll", &what);
        let mut all = Vec::new();
        let played = self.trials(&atoll, first, &file, &mut all);
        tell(&mut report, &all, &earlier(&file)?);
        if let Err(error) = &played {
            report.say(&format!("**The run broke off:** {error:#}"));
        }
        report.write(out)?;
        played?;
        let failed: Vec<_> = all
            .iter()
            .filter(|trial| !trial.violations.is_empty())
            .map(|trial| trial.seed)
            .collect();
        ensure!(
            failed.is_empty(),
            "these seeds were not passed: {failed:?}. Play one again with --seed N --trials 1 --nodes {} --edges {}",
            self.nodes,
            self.edges
        );
        Ok(())
    }

    fn kinds(&self) -> Vec<Kind> {
        if self.only.is_empty() { Kind::value_variants().to_vec() } else { self.only.clone() }
    }

    fn plan(&self, seed: u64, without: &[usize]) -> Plan {
        let (replicas, edges) = (usize::from(self.nodes), usize::from(self.edges));
        let mut plan = Plan::of(seed, replicas, edges, &self.kinds());
        let mut number = 0..;
        plan.faults.retain(|_| number.next().is_none_or(|number| !without.contains(&number)));
        plan
    }

    fn trials(&self, atoll: &Path, first: u64, file: &Path, all: &mut Vec<Outcome>) -> Result<()> {
        let begun = Instant::now();
        let mut mesh: Option<Trials> = None;
        let over = || self.seconds.is_some_and(|most| begun.elapsed().as_secs() >= most);
        for (number, seed) in (first..).take(self.trials as usize).enumerate() {
            if over() {
                break;
            }
            let trials = match mesh.take().filter(|trials| trials.played < self.of_a_mesh as usize)
            {
                Some(trials) => mesh.insert(trials),
                None => mesh.insert(self.mesh(atoll)?),
            };
            let plan = self.plan(seed, &self.without);
            let mut outcome = match trials.play(&plan) {
                Ok(outcome) => outcome,
                Err(broken) => {
                    trials.keep_logs(seed)?;
                    return Err(broken.context(format!("seed {seed}, {}", shown(&plan))));
                }
            };
            let last = number + 1 == self.trials as usize || over();
            if outcome.violations.is_empty() && (last || trials.played == self.of_a_mesh as usize) {
                outcome.violations.extend(trials.leftovers()?);
            }
            let verdict = match outcome.violations.as_slice() {
                [] => "passed".to_owned(),
                wrong => format!("NOT PASSED: {}", wrong.join("; ")),
            };
            eprintln!(
                "loadtest: trial {} of {}, seed {seed}, {}: {verdict}",
                number + 1,
                self.trials,
                shown(&plan)
            );
            add(file, &outcome)?;
            if !outcome.violations.is_empty() {
                trials.keep_logs(seed)?;
                mesh = None;
            }
            all.push(outcome);
        }
        Ok(())
    }

    fn mesh(&self, atoll: &Path) -> Result<Trials> {
        let (nodes, edges) = (usize::from(self.nodes), usize::from(self.edges));
        Stage::raise(atoll, nodes, edges, &self.log).map(Trials::of)
    }

    /// Leaves out fault after fault while the rest still fails.
    fn shrink(&self, atoll: &Path, seed: u64) -> Result<()> {
        let mut without = self.without.clone();
        let fails = |without: &[usize]| -> Result<Option<Outcome>> {
            for _ in 0..TRIES {
                let mut mesh = self.mesh(atoll)?;
                let mut outcome = mesh.play(&self.plan(seed, without))?;
                outcome.violations.extend(mesh.leftovers()?);
                if !outcome.violations.is_empty() {
                    return Ok(Some(outcome));
                }
            }
            Ok(None)
        };
        let Some(mut last) = fails(&without)? else {
            bail!("seed {seed} was passed {TRIES} times: there is nothing to shrink")
        };
        let all = self.plan(seed, &[]).faults.len();
        for number in 0..all {
            if without.contains(&number) || all - without.len() == 1 {
                continue;
            }
            without.push(number);
            match fails(&without)? {
                Some(outcome) => last = outcome,
                None => drop(without.pop()),
            }
        }
        println!("seed {seed} fails with {}", shown(&self.plan(seed, &without)));
        println!("{}", last.violations.join("\n"));
        let without = without.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let rest = if without.is_empty() { String::new() } else { format!(" --without {without}") };
        println!(
            "again: loadtest faults --trials 1 --nodes {} --edges {} --seed {seed}{rest}",
            self.nodes, self.edges
        );
        Ok(())
    }
}

/// A mesh and the trials that it has stood.
struct Trials {
    stage: Stage,
    played: usize,
    /// Whether a clock of the mesh has been wrong.
    clocks: bool,
    read: Vec<usize>,
    terms: Terms,
}

impl Trials {
    fn of(stage: Stage) -> Self {
        Trials {
            read: vec![0; stage.nodes()],
            stage,
            played: 0,
            clocks: false,
            terms: Terms::default(),
        }
    }

    fn leftovers(&self) -> Result<Option<String>> {
        verdict::leftovers(&self.stage, self.clocks)
    }

    fn play(&mut self, plan: &Plan) -> Result<Outcome> {
        stop::check()?;
        self.played += 1;
        self.clocks |= plan.kinds().contains(&Kind::Clock);
        let stage = &self.stage;
        let (clients, ended) = (Clients::prepare(stage, plan.seed)?, stage.ended());
        let retained = Retained::new(plan.seed);
        let (over, unwatched) = (AtomicBool::new(false), AtomicBool::new(false));
        let watched = Mutex::new(Watched::default());
        let (waited, healed, broken) = std::thread::scope(|scope| {
            let _ended = OnDrop(&unwatched); // whatever happens, the scope must not wait for ever
            scope.spawn(|| stage.supervise(&unwatched));
            scope.spawn(|| stage.watch(&unwatched, &watched));
            let played = std::thread::scope(|scope| {
                let _ended = OnDrop(&over);
                for number in 0..stage.nodes() * CLIENTS {
                    let seed = plan.seed.wrapping_mul(1009).wrapping_add(number as u64);
                    let (clients, over) = (&clients, &over);
                    scope.spawn(move || clients.work(stage, number % stage.nodes(), seed, over));
                }
                scope.spawn(|| retained.work(stage, plan.seed, &over));
                let begun = Instant::now();
                let played = stage.play(plan, begun);
                pause_until(begun + Duration::from_secs_f64(plan.lasts()));
                played.map(|()| clients.longest_wait())
            });
            let waited = played?;
            let healed = verdict::healed(stage)?;
            let mut broken = verdict::broken_promises(stage, &clients)?;
            if healed.is_ok() {
                let found = retained.afterwards(stage, self.clocks);
                broken.extend(
                    found.unwrap_or_else(|error| vec![format!("it had healed: {error:#}")]),
                );
                stop::check()?;
            }
            if healed.is_ok() {
                broken.extend(verdict::short_of_copies(stage)?);
            }
            // reading back has changed nothing: the records are compared once more
            let again = if healed.is_ok() { verdict::healed(stage)?.map(drop) } else { Ok(()) };
            anyhow::Ok((waited, healed.and_then(|took| again.map(|()| took)), broken))
        })?;
        let mut violations = broken;
        violations.extend(healed.as_ref().err().cloned());
        violations.append(&mut locked(&watched).violations);
        violations.extend(verdict::bad_words(stage, &mut self.read));
        violations.extend(self.terms.note(stage));
        let (counts, origin) = (clients.histories.counts(), Origin::now());
        let outcome = Outcome {
            seed: plan.seed,
            nodes: stage.replicas(),
            edges: stage.nodes() - stage.replicas(),
            kinds: plan.kinds(),
            network: plan.network.name.to_owned(),
            commit: origin.commit,
            date: origin.date,
            seconds: plan.lasts(),
            pushed: locked(&clients.pushed).len(),
            deleted: locked(&clients.deleted).len(),
            reads: counts.reads,
            writes: counts.writes,
            unknown: counts.unknown,
            failed: clients.failed.load(Ordering::Relaxed),
            runs: retained.runs.load(Ordering::Relaxed),
            longest_wait: waited.as_secs_f64(),
            healed: healed.ok().map(|took| took.as_secs_f64()),
            ended: stage.ended() - ended,
            violations,
        };
        Ok(outcome)
    }

    /// What the nodes said, for whoever looks for the cause.
    fn keep_logs(&self, seed: u64) -> Result<()> {
        let folder = std::env::temp_dir().join(format!("atoll-trial-{seed}"));
        std::fs::create_dir_all(&folder)?;
        for at in 0..self.stage.nodes() {
            std::fs::write(folder.join(format!("{at}.log")), self.stage.mesh.words(at))?;
        }
        eprintln!("loadtest: the nodes' logs are in {}", folder.display());
        Ok(())
    }
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A plan in a few words.
fn shown(plan: &Plan) -> String {
    let fault = |Fault { kind, victim, at, lasts, .. }: &Fault| {
        format!("{} {victim:?} at {} s for {} s", kind.name(), plain(*at), plain(*lasts))
    };
    let faults = plan.faults.iter().map(fault).collect::<Vec<_>>().join(", ");
    format!("{}: {faults}", plan.network.name)
}

fn add(file: &Path, outcome: &Outcome) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    writeln!(file, "{}", serde_json::to_string(outcome)?)?;
    Ok(())
}

/// The trials in a file, of this run and of those before.
fn earlier(file: &Path) -> Result<Vec<Outcome>> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let read = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .with_context(|| format!("{}, line {}: no trial", file.display(), number + 1))
    };
    text.lines().enumerate().map(read).collect()
}

/// The tables: what befell how many, and what came of it.
fn tell(report: &mut Report, this_run: &[Outcome], all: &[Outcome]) {
    report.heading("This run");
    report.table(&by_kind(this_run));
    for trial in this_run.iter().filter(|trial| !trial.violations.is_empty()) {
        report.say(&format!("Seed {}: {}", trial.seed, trial.violations.join("; ")));
    }
    report.heading("All trials in the file");
    report.table(&by_kind(all));
    report.record("trials", serde_json::to_value(this_run).unwrap_or_default());
}

fn by_kind(trials: &[Outcome]) -> Table {
    let mut kinds: BTreeMap<String, Vec<&Outcome>> = BTreeMap::new();
    for trial in trials {
        let name = match trial.kinds.as_slice() {
            [kind] => kind.name(),
            _ => "storm".to_owned(),
        };
        kinds.entry(name).or_default().push(trial);
    }
    let mut table = Table::new(&[
        "fault",
        "trials",
        "not passed",
        "acknowledged pushes",
        "lost",
        "tag writes",
        "reads",
        "unknown",
        "longest wait for a write, s: median, most",
        "healed after, s: median, most",
        "nodes that ended by themselves",
    ]);
    let all: Vec<_> = trials.iter().collect();
    for (name, trials) in
        kinds.iter().map(|(name, trials)| (name.as_str(), trials)).chain([("all", &all)])
    {
        let sum = |of: fn(&Outcome) -> usize| trials.iter().map(|trial| of(trial)).sum::<usize>();
        let spread = |mut of: Vec<f64>| {
            of.sort_by(f64::total_cmp);
            match of.as_slice() {
                [] => "-".to_owned(),
                [.., most] => format!("{}, {}", plain(of[of.len() / 2]), plain(*most)),
            }
        };
        let lost = sum(|trial| {
            trial.violations.iter().filter(|what| what.contains("was acknowledged")).count()
        });
        table.row(vec![
            name.to_owned(),
            trials.len().to_string(),
            sum(|trial| usize::from(!trial.violations.is_empty())).to_string(),
            sum(|trial| trial.pushed + trial.deleted).to_string(),
            lost.to_string(),
            sum(|trial| trial.writes).to_string(),
            sum(|trial| trial.reads).to_string(),
            sum(|trial| trial.unknown).to_string(),
            spread(trials.iter().map(|trial| trial.longest_wait).collect()),
            spread(trials.iter().filter_map(|trial| trial.healed).collect()),
            sum(|trial| trial.ended).to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_add_up_in_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("more/trials.jsonl");
        assert!(earlier(&file).unwrap().is_empty());
        for seed in [4, 5] {
            add(&file, &Outcome { seed, kinds: vec![Kind::Blink], ..Outcome::default() }).unwrap();
        }
        let trials = earlier(&file).unwrap();
        assert_eq!(trials.iter().map(|trial| trial.seed).collect::<Vec<_>>(), [4, 5]);
        std::fs::write(&file, "no trial\n").unwrap();
        assert!(earlier(&file).is_err());
    }
}
