//! `loadtest scale`: what pushes, reads, lists, memory, disk and starts cost when a mesh has a
//! thousand manifests, and when it has a million.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::content::{Blob, manifest, numbered};
use crate::cpu::{DiskReading, Reading, resident_bytes};
use crate::figures::{Quantiles, plain};
use crate::mesh::{Mesh, PATIENCE};
use crate::process::{self, Signal};
use crate::registry::{self, ACCEPT, manifest_path};
use crate::report::{Report, Table};
use crate::wire::{Client, Request, Sink};
use crate::{stop, tools};

/// The project that is filled.
const PROJECT: &str = "scale";
/// The repository with very many tags: it gets every second manifest until it has `MANY`.
const LARGE: &str = "scale/many";
const MANY: usize = 100_000;
/// The tags of each other repository.
const EACH: usize = 100;
/// What is timed one by one.
const PUSHES: usize = 300;
const READS: usize = 3000;

/// How much to fill.
#[derive(Args, Debug)]
pub(crate) struct Scale {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// Manifests in all, one after the other
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000")]
    manifests: Vec<usize>,
    /// Connections that fill
    #[arg(long, default_value_t = 32)]
    connections: usize,
}

/// What was found with so many manifests.
struct Found {
    fill_per_second: f64,
    push: Option<Quantiles>,
    push_cpu_us: f64,
    /// Of all nodes, for a push.
    push_written: f64,
    push_disk_reads: f64,
    read: Option<Quantiles>,
    read_cpu_us: f64,
    page: Duration,
    tags: (usize, Duration),
    catalog: Duration,
    repositories: Duration,
    status: Duration,
    idle_cpu_percent: f64,
    memory: u64,
    file: u64,
    log: u64,
    start: Duration,
}

impl Scale {
    /// Fills, measures, and writes `scale.json` and `scale.md`.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        ensure!(
            self.manifests.is_sorted() && !self.manifests.is_empty(),
            "--manifests has to grow: 1000,10000"
        );
        let mut report = Report::new("scale", "A mesh with many manifests");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        let mut mesh = Mesh::up(&atoll, 3)?;
        report
            .server("atoll", &format!("{}; three regions on this machine", tools::version(&atoll)));
        mesh.create_project(PROJECT, 1)?;
        let content = Content::new();
        let mut all = Vec::new();
        let mut before = 0;
        for &manifests in &self.manifests {
            eprintln!("loadtest: filling up to {manifests} manifests");
            let fill_per_second = self.fill(&mesh, &content, before..manifests)?;
            all.push((manifests, measure(&mut mesh, &content, manifests, fill_per_second)?));
            before = manifests;
        }
        tell(&mut report, &all);
        report.write(out)
    }

    /// Pushes the manifests with these numbers. Returns how many went in a second.
    fn fill(&self, mesh: &Mesh, content: &Content, numbers: std::ops::Range<usize>) -> Result<f64> {
        let primary = mesh.primary(PROJECT)?;
        let (next, total) = (AtomicUsize::new(numbers.start), numbers.len());
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let one = || -> Result<()> {
                let mut client = mesh.target(primary).client();
                loop {
                    // whole repositories, so that only one thread mounts the blobs into each
                    let first = next.fetch_add(2 * EACH, Ordering::Relaxed);
                    if first >= numbers.end {
                        return Ok(());
                    }
                    for number in first..(first + 2 * EACH).min(numbers.end) {
                        stop::check()?;
                        content.push(&mut client, number)?;
                    }
                }
            };
            let threads: Vec<_> = (0..self.connections.max(1)).map(|_| scope.spawn(one)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        })?;
        Ok(total as f64 / begun.elapsed().as_secs_f64())
    }
}

/// What is pushed: manifests that differ in a number, over the same two blobs.
struct Content {
    config: Blob,
    layer: Blob,
    manifest: Blob,
}

impl Content {
    fn new() -> Self {
        let (config, layer) = (Blob::config(), Blob::random(1024));
        let manifest = manifest(&config, &[(layer.digest, layer.bytes.len())]);
        Content { config, layer, manifest }
    }

    fn numbered(&self, number: usize) -> Blob {
        numbered(&self.manifest, number)
    }

    /// The repository and the tag of a manifest. Every second one is in the large repository.
    fn place(number: usize) -> (String, String) {
        if number % 2 == 1 && number < 2 * MANY {
            return (LARGE.to_owned(), format!("t{number:07}"));
        }
        (format!("{PROJECT}/r{:06}", number / (2 * EACH)), format!("t{number:07}"))
    }

    fn push(&self, client: &mut Client, number: usize) -> Result<()> {
        let (repository, tag) = Self::place(number);
        if number.is_multiple_of(2 * EACH) {
            self.push_blobs(client, &repository)?;
            self.push_blobs(client, LARGE)?;
        }
        registry::put_manifest(client, &repository, &tag, &self.numbered(number))
    }

    fn push_blobs(&self, client: &mut Client, repository: &str) -> Result<()> {
        registry::upload_blob(client, repository, &self.config)?;
        registry::upload_blob(client, repository, &self.layer)
    }
}

fn measure(
    mesh: &mut Mesh,
    content: &Content,
    manifests: usize,
    fill_per_second: f64,
) -> Result<Found> {
    let primary = mesh.primary(PROJECT)?;
    let pids = mesh.pids();
    let mut client = mesh.target(primary).client();
    let probe = format!("{PROJECT}/probe");
    content.push_blobs(&mut client, &probe)?;
    let settled = Instant::now();
    let before = Reading::of(&pids);
    std::thread::sleep(Duration::from_secs(5));
    let idle = Reading::of(&pids).since(&before);
    let idle_cpu_percent = idle / settled.elapsed().as_secs_f64() * 100.0;

    // what the fill has left to be written is not the pushes'
    rustix::fs::sync();
    let (before, mut pushes) = (Reading::of(&pids), Vec::new());
    let disk = DiskReading::of(&pids);
    for number in 0..PUSHES {
        stop::check()?;
        let fresh = content.numbered(1_000_000_000 + manifests * 1000 + number);
        let begun = Instant::now();
        registry::put_manifest(&mut client, &probe, &format!("p{manifests}-{number}"), &fresh)?;
        pushes.push(begun.elapsed().as_secs_f64());
    }
    let push_cpu_us = Reading::of(&pids).since(&before) * 1e6 / PUSHES as f64;
    let now = DiskReading::of(&pids);
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / PUSHES as f64;
    let push_written = each(now.written, disk.written);
    let push_disk_reads = each(now.reads, disk.reads);

    let (before, mut reads) = (Reading::of(&pids), Vec::new());
    for _ in 0..READS {
        stop::check()?;
        let number = rand::random::<u64>() as usize % manifests;
        let (repository, tag) = Content::place(number);
        let path = manifest_path(&repository, &tag);
        let request = Request::new("GET", &path).headers(&[ACCEPT]);
        let begun = Instant::now();
        let answer = client.send(&request, &mut Sink::Discard)?;
        reads.push(begun.elapsed().as_secs_f64());
        ensure!(answer.status == 200, "GET {path}: {}", answer.status);
    }
    let read_cpu_us = Reading::of(&pids).since(&before) * 1e6 / READS as f64;

    let page = timed(&mut client, &format!("/v2/{LARGE}/tags/list?n=1000"))?.0;
    let tags = all_tags(&mut client)?;
    let catalog = timed(&mut client, "/v2/_catalog?n=1000")?.0;
    let listed = format!("/api/v2.0/projects/{PROJECT}/repositories?page_size=100");
    let repositories = timed(&mut client, &listed)?.0;
    let (status, told) = timed(&mut client, "/api/atoll/v1/status")?;

    let memory = pids.iter().filter_map(|pid| resident_bytes(*pid)).max().unwrap_or(0);
    let file = mesh.ledger_bytes(primary)?;
    let log = told["ledger"]["log_bytes"].as_u64().unwrap_or(0);
    let start = restart(mesh, (primary + 1) % mesh.nodes.len())?;
    Ok(Found {
        fill_per_second,
        push: Quantiles::of_seconds(pushes),
        push_cpu_us,
        push_written,
        push_disk_reads,
        read: Quantiles::of_seconds(reads),
        read_cpu_us,
        page,
        tags,
        catalog,
        repositories,
        status,
        idle_cpu_percent,
        memory,
        file,
        log,
        start,
    })
}

/// How long a GET takes, and what it brings.
fn timed(client: &mut Client, path: &str) -> Result<(Duration, Value)> {
    let (begun, mut body) = (Instant::now(), Vec::new());
    let answer = client.send(&Request::new("GET", path), &mut Sink::Keep(&mut body))?;
    let took = begun.elapsed();
    ensure!(answer.status == 200, "GET {path}: {}", answer.status);
    Ok((took, serde_json::from_slice(&body)?))
}

/// Lists the large repository's tags page by page: how many there are, and how long it takes.
fn all_tags(client: &mut Client) -> Result<(usize, Duration)> {
    let (begun, mut count, mut last) = (Instant::now(), 0, String::new());
    loop {
        stop::check()?;
        let path = format!("/v2/{LARGE}/tags/list?n=1000&last={last}");
        let (_, page) = timed(client, &path)?;
        let tags = page["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(end) = tags.last().and_then(Value::as_str) else { break };
        count += tags.len();
        last = end.to_owned();
    }
    Ok((count, begun.elapsed()))
}

/// Stops a node and starts it again: how long until it is ready.
fn restart(mesh: &mut Mesh, at: usize) -> Result<Duration> {
    process::signal(mesh.nodes[at].pid, Signal::TERM);
    process::until("a node stops", PATIENCE, || Ok((!mesh.nodes[at].lives()).then_some(())))?;
    let begun = Instant::now();
    mesh.start(at)?;
    process::until("a node is ready again", PATIENCE, || Ok(mesh.is_ready(at).then_some(())))?;
    let took = begun.elapsed();
    process::until("the mesh is whole again", PATIENCE, || Ok(mesh.is_whole().then_some(())))?;
    Ok(took)
}

/// How a figure is written.
type Figure<'a> = &'a dyn Fn(&Found) -> String;

fn tell(report: &mut Report, all: &[(usize, Found)]) {
    let millis = |time: Duration| plain(time.as_secs_f64() * 1e3);
    let both = |figure: &Option<Quantiles>| {
        figure.map_or_else(|| "-".into(), |q| format!("{} / {}", plain(q.p50), plain(q.p99)))
    };
    let mib = |bytes: u64| plain(bytes as f64 / f64::from(1 << 20));
    let rows: [(&str, Figure<'_>); 17] = [
        ("filled, manifests a second", &|found| plain(found.fill_per_second)),
        ("push of a manifest, p50 / p99 ms", &|found| both(&found.push)),
        ("CPU of all nodes for a push, us", &|found| plain(found.push_cpu_us)),
        ("written to the disks of all nodes for a push, KiB", &|found| {
            plain(found.push_written / 1024.0)
        }),
        ("calls of all nodes that read a file, for a push", &|found| plain(found.push_disk_reads)),
        ("GET by tag, p50 / p99 ms", &|found| both(&found.read)),
        ("CPU of all nodes for a GET, us", &|found| plain(found.read_cpu_us)),
        ("a page of 1,000 tags of the large repository, ms", &|found| millis(found.page)),
        ("tags of the large repository", &|found| found.tags.0.to_string()),
        ("all of them in pages of 1,000, ms", &|found| millis(found.tags.1)),
        ("a page of 1,000 of the catalog, ms", &|found| millis(found.catalog)),
        ("a page of 100 of the project's repositories, ms", &|found| millis(found.repositories)),
        ("status, ms", &|found| millis(found.status)),
        ("CPU of all nodes without requests, % of a core", &|found| plain(found.idle_cpu_percent)),
        ("memory of the largest node, MiB", &|found| mib(found.memory)),
        ("the ledger's file / its log in it, MiB", &|found| {
            format!("{} / {}", mib(found.file), mib(found.log))
        }),
        ("restart until ready, ms", &|found| millis(found.start)),
    ];
    let counts: Vec<String> = all.iter().map(|(count, _)| count.to_string()).collect();
    let mut head = vec!["manifests"];
    head.extend(counts.iter().map(String::as_str));
    let mut table = Table::new(&head);
    for (what, figure) in rows {
        let mut row = vec![what.to_owned()];
        row.extend(all.iter().map(|(_, found)| figure(found)));
        table.row(row);
    }
    report.heading("By the number of manifests");
    report.say(&format!(
        "Every second manifest is a tag of one repository, until that has {MANY}; the others are in \
         repositories of {EACH}. All have two kilobytes and the same two blobs. Nothing in the first \
         seven rows may grow but by a logarithm. Before pushes are timed, what the fill has left is \
         written to disk."
    ));
    report.table(&table);
    let rows = all.iter().map(|(manifests, found)| {
        json!({
            "manifests": manifests,
            "fill_per_second": found.fill_per_second,
            "push_ms": found.push, "push_cpu_us": found.push_cpu_us,
            "push_written_bytes": found.push_written, "push_read_calls": found.push_disk_reads,
            "read_ms": found.read, "read_cpu_us": found.read_cpu_us,
            "tags_page_ms": found.page.as_secs_f64() * 1e3,
            "tags": found.tags.0, "tags_all_ms": found.tags.1.as_secs_f64() * 1e3,
            "catalog_ms": found.catalog.as_secs_f64() * 1e3,
            "repositories_ms": found.repositories.as_secs_f64() * 1e3,
            "status_ms": found.status.as_secs_f64() * 1e3,
            "idle_cpu_percent": found.idle_cpu_percent,
            "memory_bytes": found.memory, "ledger_bytes": found.file, "log_bytes": found.log,
            "start_ms": found.start.as_secs_f64() * 1e3,
        })
    });
    report.record("sizes", rows.collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_has_a_place_and_bytes_of_its_own() {
        let content = Content::new();
        let (one, other) = (content.numbered(1), content.numbered(2));
        assert_ne!(one.digest, other.digest);
        assert!(serde_json::from_slice::<Value>(&one.bytes).is_ok());
        assert_eq!(Content::place(1).0, LARGE);
        assert_eq!(Content::place(0), ("scale/r000000".into(), "t0000000".into()));
        assert_eq!(Content::place(2 * MANY + 1).0, format!("scale/r{:06}", MANY / EACH));
    }
}
