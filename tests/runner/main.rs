//! Runs promises several at a time, each in namespaces of its own. `tests/run` starts it, in a pid
//! namespace that ends with it.
//!
//! ```text
//! promises SCENARIOS FOLDER [FILTER...]
//! ```
//!
//! SCENARIOS is the test binary; its promises are run whose names begin with a FILTER, or all of
//! them. Each has a log of its own, which stays as `FOLDER/NAME.log`; that of one that fails is
//! printed whole. `FOLDER/lengths` remembers how long each took, for the order of the next run.
//! Temporary files go where `TMPDIR` says, into a folder for each promise. `ATOLL_JOBS=N` is for N
//! slots.
//!
//! A promise has a pid, a mount and a network namespace: it sees no other's processes and ports, a
//! `/run` and a `/var/lib/containers` of its own, and when it ends, the kernel ends what it has
//! left behind.

mod schedule;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use schedule::{Job, Schedule, Weight, slots};

/// What is expected of those whose names begin so, the first of the list that does: their weight
/// and, until it was measured here, their length in seconds. (The lists of what each took, which a
/// run ends with, say what belongs here.)
const EXPECTED: &[(&str, Weight, u64)] = &[
    ("faults::", Weight::Slots(1), 320),
    ("kill_primary::", Weight::Slots(1), 130),
    ("trials::", Weight::Slots(1), 110),
    ("jobs::a_job", Weight::Slots(1), 90),
    // nine primaries are killed, and the next ones are waited for
    ("job_kills::", Weight::Slots(1), 90),
    // regions are cut off, twice
    ("collection::regions", Weight::Slots(1), 100),
    // a drill lasts 25 seconds, and its projects return
    ("drill::a_region", Weight::Slots(1), 60),
    ("trash::", Weight::Slots(1), 40),
    ("hsm::", Weight::Slots(1), 30),
    ("kms::", Weight::Slots(1), 40),
    // two primaries are stopped, and the next ones are waited for
    ("signing_by_rule::a_primary_that_sleeps", Weight::Slots(1), 40),
    ("jobs::a_schedule", Weight::Slots(1), 70),
    // 42 nodes
    ("fleet::", Weight::Alone, 60),
    ("caches::what_earlier", Weight::Slots(1), 30),
    ("proxy_failing::a_failing", Weight::Slots(1), 65),
    ("proxy_failing::without", Weight::Slots(1), 55),
    ("freshness::a_replica_that_slept", Weight::Slots(1), 45),
    ("freshness::a_tag_moved", Weight::Slots(2), 15),
    ("settled::a_rolling", Weight::Slots(2), 35),
    // dockerd and containerd compress, unpack and hash
    ("clients::", Weight::Slots(2), 30),
    ("balanced::clients", Weight::Slots(2), 30),
    ("tls::docker", Weight::Slots(2), 30),
    ("mirrors::containerd", Weight::Slots(2), 30),
    ("mirrors::podman", Weight::Slots(2), 30),
    ("newer::", Weight::Slots(2), 30),
    ("conformance::", Weight::Slots(2), 10),
    // two builds of three nodes, twelve restarts under pushes
    ("rolling::", Weight::Slots(1), 40),
    // schemathesis makes its requests on a core of its own
    ("openapi::schemathesis", Weight::Slots(2), 40),
    ("people::everybody", Weight::Slots(2), 90),
    // a minute has to pass
    ("ldap::a_directory", Weight::Slots(1), 66),
    // a node is taken for dead twice
    ("oidc::a_node_that_dies", Weight::Slots(1), 100),
    // new keys are looked for every ten seconds
    ("tokens::keys", Weight::Slots(1), 30),
    // dockerd and containerd unpack
    ("providers::", Weight::Slots(2), 40),
    // its primary dies, and the next one scans what is left
    ("scanning::a_scan", Weight::Slots(1), 40),
    // a scanner is killed in the middle, and one is never ready
    ("scanners::", Weight::Slots(1), 60),
    // a schedule has its times at whole minutes
    ("audit::the_log_is_purged", Weight::Slots(1), 30),
    // copies are made elsewhere, and it comes back
    ("drain::what_drains", Weight::Slots(1), 40),
    // what nobody has cached is looked for every ten seconds
    ("cached_signatures::what", Weight::Slots(1), 30),
    // scrypt, for each key that signs
    ("signatures_made::what_cosign", Weight::Slots(2), 14),
    // a primary dies, and nine nodes are started anew
    ("signing_by_rule::", Weight::Slots(1), 45),
    // it measures memory
    ("doors::a_stranger_costs", Weight::Alone, 10),
];
const OTHERS: (Weight, u64) = (Weight::Slots(1), 15);
/// After so long without news, those that run are named.
const QUIET: Duration = Duration::from_secs(60);

/// How a promise is run: in its namespaces, with bash as the first process, which takes in the
/// orphans and counts the time on CPUs.
const INSIDE: &str = r#"
mount -t tmpfs tmpfs /run && ip link set lo up || exit 1
[ ! -d /var/lib/containers ] || mount -t tmpfs tmpfs /var/lib/containers || exit 1
"$1" --exact "$2" --nocapture
status=$?
times >"$TMPDIR/times"
exit $status
"#;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("promises: {why}");
            ExitCode::from(2)
        }
    }
}

/// One that has ended.
struct Ended {
    job: Job,
    passed: bool,
    took: Duration,
    /// The time that it and what it started was on a CPU, as far as it was waited for.
    busy: Option<Duration>,
}

/// What all promises have in common.
struct Rig {
    scenarios: PathBuf,
    logs: PathBuf,
    scratch: PathBuf,
}

fn run() -> Result<bool, String> {
    let mut arguments = env::args().skip(1);
    let usage = "usage: promises SCENARIOS FOLDER [FILTER...]";
    let (Some(scenarios), Some(logs)) = (arguments.next(), arguments.next()) else {
        return Err(usage.into());
    };
    let filters: Vec<String> = arguments.collect();
    let rig = Rig { scenarios: scenarios.into(), logs: logs.into(), scratch: env::temp_dir() };
    fs::create_dir_all(&rig.logs).map_err(|error| format!("{}: {error}", rig.logs.display()))?;
    let mut lengths = remembered(&rig.lengths());
    let jobs: Vec<_> =
        rig.chosen(&filters)?.into_iter().map(|name| expected(name, &lengths)).collect();
    let slots = machine()?;
    println!("{} promises, {slots} slots", jobs.len());
    let begun = Instant::now();
    let mut over = rig.play_all(jobs, slots);
    for ended in over.iter().filter(|ended| ended.passed) {
        lengths.insert(ended.job.name.clone(), ended.took);
    }
    remember(&rig.lengths(), &lengths);

    over.sort_by_key(|ended| std::cmp::Reverse(ended.took));
    println!("\nhow long each took, and its time on CPUs:");
    for ended in &over {
        println!("{}", line(ended));
    }
    let failed: Vec<_> = over.iter().filter(|ended| !ended.passed).collect();
    println!(
        "\n{} promises in {:.0} s, {} failed",
        over.len(),
        begun.elapsed().as_secs_f64(),
        failed.len()
    );
    for ended in &failed {
        println!("FAILED {}: {}", ended.job.name, rig.log(&ended.job.name).display());
    }
    Ok(failed.is_empty())
}

impl Rig {
    /// The names of the tests that begin with one of the filters; all of them if there is none.
    fn chosen(&self, filters: &[String]) -> Result<Vec<String>, String> {
        let failed =
            |error: &dyn std::fmt::Display| format!("{} --list: {error}", self.scenarios.display());
        let listed = Command::new(&self.scenarios).args(["--list", "--format", "terse"]).output();
        let listed = listed.map_err(|error| failed(&error))?;
        if !listed.status.success() {
            return Err(failed(&listed.status));
        }
        let listed = String::from_utf8_lossy(&listed.stdout);
        let names: Vec<_> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        let lost = |what: &str| !names.iter().any(|name| name.starts_with(what));
        if let Some(filter) = filters.iter().find(|filter| lost(filter)) {
            return Err(format!("no promise's name begins with {filter}"));
        }
        if let Some((name, ..)) = EXPECTED.iter().find(|(name, ..)| lost(name)) {
            return Err(format!("tests/runner expects something of {name}, which there is not"));
        }
        let wanted = |name: &&str| {
            filters.is_empty() || filters.iter().any(|filter| name.starts_with(filter.as_str()))
        };
        Ok(names.into_iter().filter(wanted).map(str::to_owned).collect())
    }

    /// Runs all of them, and says of each how it ended.
    fn play_all(&self, jobs: Vec<Job>, slots: usize) -> Vec<Ended> {
        let all = jobs.len();
        let mut schedule = Schedule::new(slots, jobs);
        let mut running: BTreeMap<String, Instant> = BTreeMap::new();
        let mut over: Vec<Ended> = Vec::new();
        let (tell, told) = mpsc::channel();
        thread::scope(|beside| {
            while !schedule.is_over() {
                while let Some(job) = schedule.start() {
                    running.insert(job.name.clone(), Instant::now());
                    let (number, tell) = (over.len() + running.len(), tell.clone());
                    beside.spawn(move || {
                        tell.send(self.play(job, number)).expect("the receiver lives as long")
                    });
                }
                let ended = match told.recv_timeout(QUIET) {
                    Ok(ended) => ended,
                    Err(RecvTimeoutError::Timeout) => {
                        println!("still running: {}", names(&running));
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is left here"),
                };
                schedule.ended(&ended.job);
                running.remove(&ended.job.name);
                println!("[{:3}/{all}] {}", over.len() + 1, line(&ended));
                if !ended.passed {
                    show(&ended.job.name, &self.log(&ended.job.name));
                }
                over.push(ended);
            }
        });
        over
    }

    /// Runs a promise to its end.
    fn play(&self, job: Job, number: usize) -> Ended {
        let begun = Instant::now();
        // a short name: there are sockets in it
        let (scratch, log) =
            (self.scratch.join(number.to_string()), self.scratch.join(format!("{number}.log")));
        let status = self.start(&job.name, &scratch, &log);
        let took = begun.elapsed();
        let passed = match status {
            // a test that is ignored fails here: nothing was shown
            Ok(true) => fs::read(&log).is_ok_and(|log| has(&log, b"test result: ok. 1 passed")),
            Ok(false) => false,
            Err(error) => {
                let _ = fs::write(&log, format!("it cannot be run: {error}\n"));
                false
            }
        };
        // only now: another run in this repository may have the same promise under way
        if let Err(error) = fs::copy(&log, self.log(&job.name)).and_then(|_| fs::remove_file(&log))
        {
            println!("the log of {} stays in {}: {error}", job.name, log.display());
        }
        let busy = fs::read_to_string(scratch.join("times")).ok().and_then(|times| on_cpu(&times));
        if passed || env::var_os("ATOLL_KEEP").is_none() {
            let _ = fs::remove_dir_all(&scratch); // `tests/run` takes what cannot be removed yet
        }
        Ended { job, passed, took, busy }
    }

    fn start(&self, name: &str, scratch: &Path, log: &Path) -> io::Result<bool> {
        fs::create_dir(scratch)?;
        let log = File::create(log)?;
        let mut command = Command::new("unshare");
        command
            .args("--mount --pid --net --fork --kill-child=KILL --mount-proc bash -c".split(' '))
            .arg(INSIDE);
        command.arg("promise").arg(&self.scenarios).arg(name).env("TMPDIR", scratch);
        Ok(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).status()?.success())
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    fn lengths(&self) -> PathBuf {
        self.logs.join("lengths")
    }
}

/// Prints all that a promise has said.
fn show(name: &str, log: &Path) {
    println!("\n---- {name}");
    if let Err(error) = File::open(log).and_then(|mut log| io::copy(&mut log, &mut io::stdout())) {
        println!("({}: {error})", log.display());
    }
    println!("---- end of {name}\n");
}

fn expected(name: String, lengths: &BTreeMap<String, Duration>) -> Job {
    let known = EXPECTED.iter().find(|(start, ..)| name.starts_with(start));
    let (weight, seconds) = known.map_or(OTHERS, |(_, weight, seconds)| (*weight, *seconds));
    let length = lengths.get(&name).copied().unwrap_or(Duration::from_secs(seconds));
    Job { name, weight, length }
}

/// The slots of this machine, or as many as `ATOLL_JOBS` says.
fn machine() -> Result<usize, String> {
    if let Ok(jobs) = env::var("ATOLL_JOBS") {
        let jobs = jobs.parse().ok().filter(|jobs| *jobs > 0);
        return jobs.ok_or_else(|| "ATOLL_JOBS is not a number above 0".into());
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let told =
        fs::read_to_string("/proc/meminfo").map_err(|error| format!("/proc/meminfo: {error}"))?;
    let free = told.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse().ok()
    });
    let free: u64 = free.ok_or("/proc/meminfo does not say how much memory is free")?;
    Ok(slots(cores, free << 10))
}

/// `NAME SECONDS` a line. What cannot be read is as if it had never been measured.
fn remembered(file: &Path) -> BTreeMap<String, Duration> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let read = |line: &str| {
        let (name, seconds) = line.split_once(' ')?;
        Some((name.to_owned(), Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?))
    };
    text.lines().filter_map(read).collect()
}

fn remember(file: &Path, lengths: &BTreeMap<String, Duration>) {
    let mut text = String::new();
    for (name, length) in lengths {
        let _ = writeln!(text, "{name} {:.1}", length.as_secs_f64());
    }
    if let Err(error) = fs::write(file, text) {
        println!("not remembered for the next run: {}: {error}", file.display());
    }
}

fn line(ended: &Ended) -> String {
    let busy = ended.busy.map_or_else(|| "?".into(), |busy| format!("{:.1}", busy.as_secs_f64()));
    let word = if ended.passed { "ok" } else { "FAILED" };
    format!("{word:6} {:7.1} s {busy:>7} s  {}", ended.took.as_secs_f64(), ended.job.name)
}

fn names(running: &BTreeMap<String, Instant>) -> String {
    let name = |(name, since): (&String, &Instant)| {
        format!("{name} ({:.0} s)", since.elapsed().as_secs_f64())
    };
    running.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn has(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}

/// The sum of what bash's `times` prints: `1m2.345s` for user and system, of itself and of what it
/// has waited for.
fn on_cpu(times: &str) -> Option<Duration> {
    let seconds = |word: &str| {
        let (minutes, seconds) = word.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    };
    let words = times.split_whitespace().map(seconds);
    Duration::try_from_secs_f64(words.sum::<Option<f64>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_on_cpus_is_read_from_bash() {
        assert_eq!(on_cpu("0m0.500s 0m0.250s\n1m2.000s 0m1.250s\n"), Some(Duration::from_secs(64)));
        assert_eq!(on_cpu("nonsense"), None);
    }

    #[test]
    fn lengths_are_remembered_and_nonsense_among_them_is_not() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let lengths = BTreeMap::from([("proxy::one".to_owned(), Duration::from_millis(2500))]);
        remember(file.path(), &lengths);
        assert_eq!(remembered(file.path()), lengths);
        fs::write(file.path(), "proxy::one\nproxy::two much\nproxy::three -1\nproxy::four 3\n")
            .expect("a file");
        assert_eq!(
            remembered(file.path()),
            BTreeMap::from([("proxy::four".to_owned(), Duration::from_secs(3))])
        );
    }

    #[test]
    fn a_measured_length_counts_for_more_than_an_expected_one() {
        let lengths = BTreeMap::from([("clients::one".to_owned(), Duration::from_secs(7))]);
        let job = expected("clients::one".into(), &lengths);
        assert_eq!((job.weight, job.length), (Weight::Slots(2), Duration::from_secs(7)));
        let job = expected("something::else".into(), &lengths);
        assert_eq!((job.weight, job.length), (OTHERS.0, Duration::from_secs(OTHERS.1)));
    }
}
