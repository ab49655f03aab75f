//! `loadtest outage`: a replica is away while others write, and comes back. Does it get what it
//! missed from the log, or all records that it lacks (a snapshot), and how long does that take?

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::content::{Blob, numbered};
use crate::figures::plain;
use crate::mesh::{Mesh, PATIENCE};
use crate::report::{Report, Table};
use crate::wire::Client;
use crate::{process, registry, stop, tools};

const PROJECT: &str = "outage";
const REPOSITORY: &str = "outage/written";
/// Writers beside each other: one that waits for a new primary must not hold up all others.
const WRITERS: usize = 4;
/// How long one request of a writer may take.
const CLIENT_PATIENCE: Duration = Duration::from_secs(15);
/// How many manifests are read back at the node that was away.
const READ_BACK: usize = 200;

/// How long a replica is away, and what happens meanwhile.
#[derive(Args, Debug)]
pub(crate) struct Outage {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// Minutes from the kill to the start; parts of a minute are allowed
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Manifests that are pushed each second, before, meanwhile and after
    #[arg(long, default_value_t = 20.0)]
    writes: f64,
}

/// What was found.
#[derive(Debug)]
struct Found {
    acknowledged: usize,
    failed: usize,
    away: Duration,
    /// The entries of the ledger that it missed until it was started.
    missed: u64,
    /// The bytes of the leader's log when it was started.
    log_bytes: u64,
    /// The bytes of the leader's log when it was killed.
    log_bytes_before: u64,
    /// Whether the leader still had all that it missed.
    in_the_log: bool,
    ready: Duration,
    caught_up: Duration,
    /// The snapshots that it has taken in since its start; nothing if its build does not say.
    snapshots: Option<u64>,
}

impl Outage {
    /// Measures, and writes `outage.json` and `outage.md`. Fails if the node did not come back with
    /// all that was acknowledged, and also if it took a snapshot though the log was long enough.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        ensure!(self.minutes > 0.0 && self.writes > 0.0, "--minutes and --writes are above 0");
        let mut report = Report::new("outage", "A replica that was away");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        let mut mesh = Mesh::up(&atoll, 3)?;
        report
            .server("atoll", &format!("{}; three regions on this machine", tools::version(&atoll)));
        mesh.create_project(PROJECT, 1)?;
        let content = Content::new();
        let primary = mesh.primary(PROJECT)?;
        content.push_blobs(&mut mesh.target(primary).client())?;
        let away = (primary + 1) % mesh.nodes.len();
        let target = mesh.target(primary);
        let (over, next, failed) =
            (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let begun = Instant::now();
        let mut found = std::thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    let mut client = target.client().patient_for(CLIENT_PATIENCE);
                    while !over.load(Ordering::Relaxed) && stop::check().is_ok() {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let due = begun + Duration::from_secs_f64(number as f64 / self.writes);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        if let Err(error) = content.push(&mut client, number) {
                            eprintln!("loadtest: write {number} failed: {error:#}");
                            failed.fetch_add(1, Ordering::Relaxed);
                            client = target.client().patient_for(CLIENT_PATIENCE);
                        }
                    }
                });
            }
            let found = self.be_away(&mut mesh, primary, away);
            over.store(true, Ordering::Relaxed);
            found
        })?;
        let (written, failed) = (next.into_inner(), failed.into_inner());
        (found.acknowledged, found.failed) = (written - failed, failed);
        if failed == 0 {
            let mut client = mesh.target(away).client();
            for at in 0..READ_BACK.min(written) {
                content.read(&mut client, at * written / READ_BACK.min(written))?;
            }
        }
        self.tell(&mut report, &found);
        report.write(out)?;
        ensure!(
            !found.in_the_log || found.snapshots.unwrap_or(0) == 0,
            "the log had all that the node missed, and it took a snapshot"
        );
        Ok(())
    }

    /// Kills the node, starts it again when its time has come, and waits until it has all that the
    /// others had at that moment.
    fn be_away(&self, mesh: &mut Mesh, stays: usize, away: usize) -> Result<Found> {
        std::thread::sleep(Duration::from_secs(2)); // what it knows includes some writes
        let knew = entry(&mesh.status(away)?, "applied");
        let log_bytes_before = entry(&mesh.status(stays)?, "log_bytes");
        mesh.kill(away);
        let killed = Instant::now();
        let end = killed + Duration::from_secs_f64(self.minutes * 60.0);
        let mut told = Instant::now();
        while Instant::now() < end {
            stop::check()?;
            std::thread::sleep(Duration::from_millis(200).min(end - Instant::now().min(end)));
            if told.elapsed() > Duration::from_secs(60) {
                told = Instant::now();
                let status = mesh.status(stays)?;
                eprintln!(
                    "loadtest: away for {} min; it misses {} entries; the log has {} bytes",
                    killed.elapsed().as_secs() / 60,
                    entry(&status, "applied").saturating_sub(knew),
                    entry(&status, "log_bytes")
                );
            }
        }
        let before = mesh.status(stays)?;
        let target = entry(&before, "applied");
        let in_the_log = entry(&before, "log_from") <= knew + 1;
        let away_for = killed.elapsed();
        let begun = Instant::now();
        mesh.start(away)?;
        let (mut ready, mut last) = (None, Value::Null);
        process::until("the node has caught up", PATIENCE * 10, || {
            if ready.is_none() && mesh.is_ready(away) {
                ready = Some(begun.elapsed());
            }
            last = mesh.status(away).unwrap_or(Value::Null);
            Ok((ready.is_some() && entry(&last, "applied") >= target).then_some(()))
        })?;
        Ok(Found {
            acknowledged: 0,
            failed: 0,
            away: away_for,
            missed: target.saturating_sub(knew),
            log_bytes: entry(&before, "log_bytes"),
            log_bytes_before,
            in_the_log,
            ready: ready.unwrap_or_default(),
            caught_up: begun.elapsed(),
            snapshots: last["ledger"]["snapshots"].as_u64(),
        })
    }

    fn tell(&self, report: &mut Report, found: &Found) {
        let mib = |bytes: u64| plain(bytes as f64 / f64::from(1 << 20));
        let from = match found.snapshots {
            Some(0) => "the log".to_owned(),
            Some(count) => format!("{count} snapshots"),
            None => "this build does not say".to_owned(),
        };
        let rows = [
            ("away, minutes", plain(found.away.as_secs_f64() / 60.0)),
            ("writes asked for, a second", plain(self.writes)),
            ("manifests acknowledged", found.acknowledged.to_string()),
            ("writes that failed", found.failed.to_string()),
            ("entries that it missed", found.missed.to_string()),
            ("the log before and at the end, MiB", {
                format!("{} / {}", mib(found.log_bytes_before), mib(found.log_bytes))
            }),
            ("the log still had all of it", found.in_the_log.to_string()),
            ("it caught up from", from),
            ("from its start until ready, s", plain(found.ready.as_secs_f64())),
            ("until it had what it missed, s", plain(found.caught_up.as_secs_f64())),
        ];
        let mut table = Table::new(&["what", "found"]);
        for (what, value) in rows {
            table.row(vec![what.to_owned(), value]);
        }
        report.heading("A replica is killed, and started again");
        report.say(
            "The others are written to all the time, also while it catches up. Of the manifests \
             200 are read back at it and hashed.",
        );
        report.table(&table);
        report.record(
            "outage",
            json!({
                "away_seconds": found.away.as_secs_f64(),
                "acknowledged": found.acknowledged, "failed": found.failed,
                "missed_entries": found.missed,
                "log_bytes_before": found.log_bytes_before, "log_bytes": found.log_bytes,
                "in_the_log": found.in_the_log, "snapshots": found.snapshots,
                "ready_seconds": found.ready.as_secs_f64(),
                "caught_up_seconds": found.caught_up.as_secs_f64(),
            }),
        );
    }
}

/// A number of a status about the ledger; 0 if it is not there.
fn entry(status: &Value, name: &str) -> u64 {
    status["ledger"][name].as_u64().unwrap_or(0)
}

/// Manifests that differ in a number, over the same two blobs.
struct Content {
    config: Blob,
    layer: Blob,
    manifest: Blob,
}

impl Content {
    fn new() -> Self {
        let (config, layer) = (Blob::config(), Blob::random(1024));
        let manifest = crate::content::manifest(&config, &[(layer.digest, layer.bytes.len())]);
        Content { config, layer, manifest }
    }

    fn push_blobs(&self, client: &mut Client) -> Result<()> {
        registry::upload_blob(client, REPOSITORY, &self.config)?;
        registry::upload_blob(client, REPOSITORY, &self.layer)
    }

    fn push(&self, client: &mut Client, number: usize) -> Result<()> {
        let manifest = numbered(&self.manifest, number);
        registry::put_manifest(client, REPOSITORY, &format!("t{number:07}"), &manifest)
    }

    fn read(&self, client: &mut Client, number: usize) -> Result<()> {
        let path = registry::manifest_path(REPOSITORY, &format!("t{number:07}"));
        registry::verify(client, &path, &numbered(&self.manifest, number).digest)
    }
}
