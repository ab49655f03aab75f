//! `loadtest newcomer`: an empty replica gets the ledger's records over a wide area network, and
//! meanwhile the ledger's leader is killed, twice. Does the transfer go on where it was?

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::content::{Blob, MIB, manifest_of, numbered};
use crate::cpu::resident_bytes;
use crate::figures::plain;
use crate::formed::{Formed, Site};
use crate::mesh::PATIENCE;
use crate::network::PROFILES;
use crate::report::{Report, Table};
use crate::size::{self, Size};
use crate::wire::{Client, Request, Sink};
use crate::{process, registry, stop, tools};

const PROJECT: &str = "newcomer";
const REPOSITORY: &str = "newcomer/filled";
/// The replicas that are there before it.
const OTHERS: usize = 3;
/// The newcomer's number among the nodes.
const NEW: usize = OTHERS;
/// The bytes of one manifest. With a few more than a power of two its page would be twice as large.
const EACH: usize = 1_000_000;
/// The connections that fill.
const FILLERS: usize = 4;
/// How much has arrived when the leader is killed for the first time, and for the second.
const KILLS: [f64; 2] = [0.25, 0.55];
/// How many manifests are read back at the newcomer.
const READ_BACK: usize = 100;
/// The log is short, so that a newcomer needs the records.
const SETTINGS: &str = "ledger:\n  log_bytes: 16MiB\n";

/// How large the ledger is, and which network is between the regions.
#[derive(Args, Debug)]
pub(crate) struct Newcomer {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// What the manifests of the ledger weigh together; the disk needs six times as much
    #[arg(long, default_value = "1GiB", value_parser = size::of_made)]
    size: Size,
    /// The network between the regions: LAN, R1, R2 or R3
    #[arg(long, default_value = "R2")]
    over: String,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    manifests: usize,
    fill_seconds: f64,
    kills: Vec<Kill>,
    /// From the newcomer's start until it had all records.
    seconds: f64,
    /// All bytes of IP packets into its region meanwhile.
    network_bytes: u64,
    /// Bytes of records that it received, in transfers that broke, too.
    received: u64,
    /// Bytes that one transfer that does not break would have brought.
    lacked: u64,
    broken: u64,
    most_memory: [u64; 2],
    ledger_bytes: u64,
}

/// A leader that was killed.
#[derive(Debug)]
struct Kill {
    leader: usize,
    /// Bytes of IP packets that had come into the newcomer's region.
    at_bytes: u64,
    /// How long until another one led.
    seconds: f64,
}

impl Newcomer {
    /// Measures, and writes `newcomer.json` and `newcomer.md`. Fails if the newcomer's records are
    /// not those of the others in the end, or if the leader did not change twice meanwhile.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        let mut report = Report::new("newcomer", "An empty replica, and leaders that die");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        report.server(
            "atoll",
            &format!("{}; a network namespace for each node", tools::version(&atoll)),
        );
        let profile = PROFILES.into_iter().find(|profile| profile.name == self.over);
        let profile = profile.context("--over is LAN, R1, R2 or R3")?;
        let sites: Vec<_> = (0..OTHERS).map(Site::replica).collect();
        let mut mesh = Formed::with_guests(&atoll, &sites, &[NEW], false, SETTINGS)?;
        mesh.create_project(PROJECT, 1)?;
        let content = Content::new();
        let mut found = Found { manifests: self.size.0.div_ceil(EACH), ..Found::default() };
        let begun = Instant::now();
        content.fill(&mesh, found.manifests)?;
        found.fill_seconds = begun.elapsed().as_secs_f64();
        eprintln!("loadtest: {} manifests in {:.0} s", found.manifests, found.fill_seconds);
        process::until("all replicas have them", PATIENCE, || {
            let applied: Vec<_> = (0..OTHERS).map(|at| applied(&mesh, at)).collect();
            Ok(applied.iter().all(|one| one == &applied[0] && one.is_some()).then_some(()))
        })?;
        mesh.network.profile(profile);
        self.arrive(&mut mesh, &mut found)?;
        content.read_back(&mesh, found.manifests)?;
        self.tell(&mut report, &found);
        report.write(out)
    }

    /// Lets the newcomer in, kills leaders, and waits until it has what the others have.
    fn arrive(&self, mesh: &mut Formed, found: &mut Found) -> Result<()> {
        let before = mesh.network.traffic();
        let came = |mesh: &Formed| mesh.network.traffic().came_into(NEW, &before);
        mesh.let_in(NEW, Site::replica(NEW), SETTINGS)?;
        let begun = Instant::now();
        for share in KILLS {
            let wanted = (self.size.0 as f64 * PACKED * share) as u64;
            let leader = loop {
                stop::check()?;
                note_memory(mesh, found);
                ensure!(
                    metric(mesh, NEW, "atoll_ledger_snapshots_total") == 0,
                    "the newcomer had all records before the leader had died twice: take a \
                     larger --size"
                );
                if came(mesh) >= wanted
                    && let Some(leader) = leader(mesh, None)
                {
                    break leader;
                }
                std::thread::sleep(Duration::from_millis(200));
            };
            let at_bytes = came(mesh);
            mesh.kill(leader)?;
            let killed = Instant::now();
            let next = process::until("another node leads", PATIENCE, || {
                Ok(self::leader(mesh, Some(leader)))
            })?;
            let kill = Kill { leader, at_bytes, seconds: killed.elapsed().as_secs_f64() };
            eprintln!("loadtest: {kill:?}; node {next} leads now");
            found.kills.push(kill);
            mesh.start(leader)?;
        }
        let patience = Duration::from_secs(600 + self.size.0 as u64 / 1_000_000);
        process::until("the newcomer has the records", patience, || {
            note_memory(mesh, found);
            std::thread::sleep(Duration::from_millis(200));
            let there = metric(mesh, NEW, "atoll_ledger_snapshots_total") > 0;
            Ok((there && mesh.is_ready(NEW)).then_some(()))
        })?;
        found.seconds = begun.elapsed().as_secs_f64();
        found.network_bytes = came(mesh);
        found.received = metric(mesh, NEW, "atoll_ledger_snapshot_bytes_total");
        found.broken = metric(mesh, NEW, "atoll_ledger_snapshots_broken_total");
        found.lacked = lacked(&mesh.words(NEW)).context("the newcomer's log tells no arrival")?;
        process::until("the newcomer's records are the others'", PATIENCE, || {
            let all: Option<Vec<_>> = (0..=NEW).map(|at| fingerprint(mesh, at)).collect();
            Ok(all.filter(|all| all.iter().all(|one| *one == all[0])).map(drop))
        })?;
        found.ledger_bytes = std::fs::metadata(mesh.data(NEW).join("ledger/ledger.redb"))?.len();
        Ok(())
    }

    fn tell(&self, report: &mut Report, found: &Found) {
        let mib = |bytes: u64| plain(bytes as f64 / MIB as f64);
        let mut table = Table::new(&["what", "found"]);
        let mut row = |what: &str, value: String| table.row(vec![what.to_owned(), value]);
        row("manifests of 1 MB", found.manifests.to_string());
        row("filled in, s", plain(found.fill_seconds));
        row("network between the regions", self.over.clone());
        for (number, kill) in found.kills.iter().enumerate() {
            row(
                &format!("leader {} killed", number + 1),
                format!(
                    "after {} MiB; another one led after {} s",
                    mib(kill.at_bytes),
                    plain(kill.seconds)
                ),
            );
        }
        row("until it had all records and was ready, s", plain(found.seconds));
        row("records that it lacked, compressed, MiB", mib(found.lacked));
        row(
            "of them received, in all transfers, MiB",
            format!(
                "{} ({}x)",
                mib(found.received),
                plain(found.received as f64 / found.lacked.max(1) as f64)
            ),
        );
        row("transfers that broke", found.broken.to_string());
        row("IP packets into its region, MiB", mib(found.network_bytes));
        row("its ledger's file, MiB", mib(found.ledger_bytes));
        row(
            "most memory of the newcomer / of another, MiB",
            format!("{} / {}", mib(found.most_memory[1]), mib(found.most_memory[0])),
        );
        report.heading("Records over a WAN while leaders die");
        report.say(
            "Three replicas in three regions are filled; an empty fourth one joins in a region of \
             its own. Each killed leader is started again. In the end the fingerprints of all \
             records are the same at all four, and 100 manifests are read at the newcomer and \
             hashed.",
        );
        report.table(&table);
        report.record(
            "newcomer",
            json!({
                "manifests": found.manifests, "fill_seconds": found.fill_seconds,
                "over": self.over,
                "kills": found.kills.iter().map(|kill| json!({
                    "leader": kill.leader, "at_bytes": kill.at_bytes, "seconds": kill.seconds,
                })).collect::<Vec<_>>(),
                "seconds": found.seconds, "network_bytes": found.network_bytes,
                "received": found.received, "lacked": found.lacked, "broken": found.broken,
                "ledger_bytes": found.ledger_bytes,
                "memory": { "newcomer": found.most_memory[1], "others": found.most_memory[0] },
            }),
        );
    }
}

/// What a byte of random letters and digits is worth when it is compressed, about.
const PACKED: f64 = 0.75;

/// Large manifests that differ in a number, over the same two blobs.
struct Content {
    config: Blob,
    layer: Blob,
    manifest: Blob,
}

impl Content {
    fn new() -> Self {
        let (config, layer) = (Blob::config(), Blob::random(1024));
        let manifest = manifest_of(&config, &[(layer.digest, layer.bytes.len())], EACH);
        Content { config, layer, manifest }
    }

    fn fill(&self, mesh: &Formed, manifests: usize) -> Result<()> {
        let mut first = mesh.administrator(0);
        registry::upload_blob(&mut first, REPOSITORY, &self.config)?;
        registry::upload_blob(&mut first, REPOSITORY, &self.layer)?;
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let one = || -> Result<()> {
                let mut client = mesh.administrator(0);
                loop {
                    stop::check()?;
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= manifests {
                        return Ok(());
                    }
                    self.push(mesh, &mut client, number)?;
                }
            };
            let threads: Vec<_> = (0..FILLERS).map(|_| scope.spawn(one)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        })
    }

    /// A disk that is written to all the time may keep a push for long: it is tried again.
    fn push(&self, mesh: &Formed, client: &mut Client, number: usize) -> Result<()> {
        let manifest = numbered(&self.manifest, number);
        let end = Instant::now() + PATIENCE;
        loop {
            stop::check()?;
            match registry::put_manifest(client, REPOSITORY, &tag(number), &manifest) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > end => return Err(error),
                Err(error) => {
                    eprintln!("loadtest: manifest {number} is pushed again: {error:#}");
                    std::thread::sleep(Duration::from_millis(500));
                    *client = mesh.administrator(0);
                }
            }
        }
    }

    fn read_back(&self, mesh: &Formed, manifests: usize) -> Result<()> {
        let (mut client, count) = (mesh.client(NEW, NEW), READ_BACK.min(manifests));
        for at in 0..count {
            let number = at * manifests / count;
            let path = registry::manifest_path(REPOSITORY, &tag(number));
            registry::verify(&mut client, &path, &numbered(&self.manifest, number).digest)?;
        }
        Ok(())
    }
}

fn tag(number: usize) -> String {
    format!("t{number:07}")
}

/// Who leads the ledger, as a replica says that runs and is not `but`; never `but`.
fn leader(mesh: &Formed, but: Option<usize>) -> Option<usize> {
    let told = |at: usize| {
        let status = mesh.status(at).ok()?;
        let name = status["leader"]["name"].as_str()?;
        name.strip_prefix("node-")?.parse::<usize>().ok()
    };
    let mut asked = (0..OTHERS).filter(|at| Some(*at) != but);
    asked.find_map(told).filter(|leader| Some(*leader) != but && *leader < OTHERS)
}

fn applied(mesh: &Formed, at: usize) -> Option<u64> {
    mesh.status(at).ok()?["ledger"]["applied"].as_u64()
}

/// The fingerprint of a node's records, and which revision it is of.
fn fingerprint(mesh: &Formed, at: usize) -> Option<(Value, Value)> {
    let status = mesh.status(at).ok()?;
    let records = &status["ledger"]["records"];
    Some((records["revision"].clone(), records["fingerprint"].clone()))
}

/// A counter of a node; 0 if it has not counted yet, or does not answer.
fn metric(mesh: &Formed, at: usize, name: &str) -> u64 {
    let mut body = Vec::new();
    let mut client = mesh.client(at, at).patient_for(Duration::from_secs(5));
    let asked = client.send(&Request::new("GET", "/metrics"), &mut Sink::Keep(&mut body));
    if asked.is_err() {
        return 0;
    }
    counter(&String::from_utf8_lossy(&body), name)
}

fn counter(metrics: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    metrics.lines().find_map(value).unwrap_or(0)
}

/// How many bytes the records have that a node lacked, as its log says of the last arrival.
fn lacked(log: &str) -> Option<u64> {
    let said = log.rsplit_once("lacked=")?.1;
    said.split_whitespace().next()?.parse().ok()
}

fn note_memory(mesh: &Formed, found: &mut Found) {
    for at in 0..=NEW {
        let now = mesh.pid(at).ok().and_then(resident_bytes).unwrap_or(0);
        let most = &mut found.most_memory[usize::from(at == NEW)];
        *most = now.max(*most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_tells_is_read() {
        let metrics = "# HELP a_total x\na_total 7\na_total_more 9\nb_total 2\n";
        assert_eq!((counter(metrics, "a_total"), counter(metrics, "c_total")), (7, 0));
        let log = "INFO the records arrived received=5 lacked=9 ranges=2\nINFO received=1 lacked=3 ranges=1\n";
        assert_eq!(lacked(log), Some(3));
        assert_eq!(lacked("nothing"), None);
    }
}
