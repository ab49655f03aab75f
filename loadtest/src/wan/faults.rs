//! Sources that die or lie, a slow client beside a fast one, and everything down: what the client
//! sees.

use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rules::words::digest::Digest;
use serde_json::json;

use super::pull::pull;
use super::{Found, Mark, Wan};
use crate::figures::{Quantiles, median};
use crate::formed::{Formed, Site};
use crate::network::PROFILES;
use crate::process::Signal;
use crate::registry::{blob_path, manifest_path};
use crate::report::Report;

const REPOSITORY: &str = "bench/faults";
const DURABLE: &str = "twice/faults";
/// Bytes a second of a client that is slow.
const SLOW: f64 = 100e3;
/// Requests while everything is down.
const REQUESTS: usize = 100;
/// Where a byte is flipped.
const FLIPPED_AT: u64 = 5_000_000;

pub(super) fn run(wan: &Wan, atoll: &Path, report: &mut Report, found: &mut Found) -> Result<()> {
    let sites = [Site::replica(0), Site::replica(1), Site::replica(2), Site::edge(3)];
    let mesh = Formed::of(atoll, &sites, false, "")?;
    mesh.create_project("bench", 1)?;
    mesh.create_project("twice", 2)?;
    mesh.network.profile(PROFILES[1]); // before the links of blobs are opened
    flipped(&mesh, report, found)?;
    slow_client(wan, &mesh, report, found)?;
    source_dies(wan, &mesh, report, found)?;
    everything_down(wan, &mesh, report, found)
}

/// Row 10: one bit of the only copy is wrong.
fn flipped(mesh: &Formed, report: &mut Report, found: &mut Found) -> Result<()> {
    let layer = mesh.push(REPOSITORY, 10_000_000, &[0, 1])?;
    let file = find_file(&mesh.data(0), layer.bytes.len() as u64)?
        .context("the holder has no file of the layer's length")?;
    let mut file = OpenOptions::new().write(true).open(file)?;
    file.seek(SeekFrom::Start(FLIPPED_AT))?;
    file.write_all(&[layer.bytes[FLIPPED_AT as usize] ^ 1])?;
    let pulled = pull(&mesh.target(1, 1), REPOSITORY, &layer.digest, &mut |_| {});
    let past = pulled.bytes.saturating_sub(FLIPPED_AT) as f64;
    ensure!(
        pulled.error.is_some(),
        "a damaged blob was delivered whole: nothing was damaged, or nothing is checked"
    );
    found.add("10: bytes delivered past a flipped bit", past, "", Some(Mark::AtMost(0.0, 0.0)));
    found.add(
        "10: bytes from the last one delivered to the flipped bit",
        (FLIPPED_AT.saturating_sub(pulled.bytes)) as f64,
        "",
        None,
    );
    report.record("flipped", json!({ "at": FLIPPED_AT, "pull": pulled }));
    Ok(())
}

/// A file of exactly this length, somewhere under a folder.
fn find_file(folder: &Path, length: u64) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_dir() {
            if let Some(found) = find_file(&entry.path(), length)? {
                return Ok(Some(found));
            }
        } else if about.len() == length {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Row 11: a fast client alone, and beside a slow one on the same cold blob, over R1.
fn slow_client(wan: &Wan, mesh: &Formed, report: &mut Report, found: &mut Found) -> Result<()> {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..wan.rounds {
        let layer = mesh.push(REPOSITORY, wan.size.0, &[0, 1])?;
        alone.push(timed(mesh, &layer.digest)?);
        let layer = mesh.push(REPOSITORY, wan.size.0, &[0, 1])?;
        let (digest, client) = (&layer.digest, mesh.target(1, 1));
        let over = std::sync::atomic::AtomicBool::new(false);
        let fast = scope(|threads| {
            threads.spawn(|| {
                let begun = Instant::now();
                let mut dawdle = |bytes: u64| {
                    while begun.elapsed().as_secs_f64() < bytes as f64 / SLOW
                        && !over.load(std::sync::atomic::Ordering::Relaxed)
                    {
                        sleep(Duration::from_millis(10));
                    }
                };
                pull(&client, REPOSITORY, digest, &mut dawdle)
            });
            let fast = timed(mesh, digest);
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            fast
        });
        beside.push(fast?);
    }
    let (alone_s, beside_s) =
        (median(&alone).context("no round")?, median(&beside).context("no round")?);
    found.add(
        "11: a fast client beside a slow one, R1, its rate against alone",
        alone_s / beside_s,
        "x",
        Some(Mark::AtLeast(0.95, 1.0)),
    );
    report.record("slow_client", json!({ "alone_s": alone, "beside_s": beside }));
    Ok(())
}

/// Seconds of a pull at node 1.
fn timed(mesh: &Formed, digest: &Digest) -> Result<f64> {
    let pulled = pull(&mesh.target(1, 1), REPOSITORY, digest, &mut |_| {});
    ensure!(pulled.error.is_none(), "{:?}", pulled.error);
    Ok(pulled.total_ms / 1e3)
}

/// Row 9: the node from which the blob comes is killed, another has it too; over R2.
fn source_dies(wan: &Wan, mesh: &Formed, report: &mut Report, found: &mut Found) -> Result<()> {
    let (mut stalls, mut failed, mut pulls) = (Vec::new(), 0, Vec::new());
    for _ in 0..wan.rounds {
        mesh.network.profile(PROFILES[1]); // pushed quickly
        let layer = mesh.push(DURABLE, wan.size.0, &[0, 1, 2, 3])?;
        mesh.network.profile(PROFILES[2]);
        let before = mesh.network.traffic();
        let (client, digest) = (mesh.target(3, 3), &layer.digest);
        let quarter = wan.size.0 as u64 / 4;
        let mut killed = None;
        let pulled = pull(&client, DURABLE, digest, &mut |bytes| {
            if bytes > quarter && killed.is_none() {
                let now = mesh.network.traffic();
                let source = (0..3).max_by_key(|at| now.between(*at, 3, &before)).unwrap_or(0);
                mesh.signal(source, Signal::KILL);
                killed = Some(source);
            }
        });
        stalls.push(pulled.stall_ms / 1e3);
        failed += usize::from(pulled.error.is_some());
        pulls.push(json!({ "killed": killed, "pull": pulled }));
        let killed = killed.context("the pull broke off before a quarter of it was there")?;
        mesh.kill(killed)?;
        mesh.start(killed)?;
        mesh.settle(3)?;
    }
    let worst = stalls.iter().copied().fold(0.0, f64::max);
    found.add(
        "9: client-visible errors when the source dies, R2",
        failed as f64,
        "",
        Some(Mark::AtMost(0.0, 0.0)),
    );
    found.add(
        "9: longest stall when the source dies, R2, median",
        median(&stalls).context("no round")?,
        "s",
        Some(Mark::AtMost(2.0, 1.0)),
    );
    found.add(
        "9: longest stall when the source dies, R2, worst",
        worst,
        "s",
        Some(Mark::AtMost(2.0, 1.0)),
    );
    report.record("source_dies", pulls.into());
    Ok(())
}

/// Row 12: all replicas are killed; an edge is asked for what it has not kept.
fn everything_down(wan: &Wan, mesh: &Formed, report: &mut Report, found: &mut Found) -> Result<()> {
    let layer = mesh.push(REPOSITORY, wan.size.0.min(1_000_000), &[3])?;
    let mut by_kind = Vec::new();
    for at in 0..3 {
        mesh.kill(at)?;
    }
    let unknown = Digest::sha256(b"nobody ever pushed this");
    let paths = [
        ("a blob not kept", blob_path(REPOSITORY, &layer.digest)),
        ("an unknown blob", blob_path(REPOSITORY, &unknown)),
        ("an unknown tag", manifest_path(REPOSITORY, "none")),
    ];
    for (what, path) in &paths {
        let (mut seconds, mut statuses) = (Vec::new(), Vec::new());
        for _ in 0..REQUESTS {
            crate::stop::check()?;
            let begun = Instant::now();
            let status = mesh.client(3, 3).get(path).map_or(0, |answer| answer.status);
            seconds.push(begun.elapsed().as_secs_f64());
            statuses.push(status);
        }
        let first = seconds[0];
        let clean = statuses.iter().filter(|status| matches!(status, 404 | 502 | 503)).count();
        let times = Quantiles::of_seconds(seconds).context("no request")?;
        found.add(
            &format!("12: everything down, {what}: p99 of {REQUESTS} answers"),
            times.p99 / 1e3,
            "s",
            Some(Mark::AtMost(1.0, 0.3)),
        );
        found.add(&format!("12: everything down, {what}: p50"), times.p50 / 1e3, "s", None);
        found.add(
            &format!("12: everything down, {what}: answers that are not 404, 502 or 503"),
            (REQUESTS - clean) as f64,
            "",
            Some(Mark::AtMost(0.0, 0.0)),
        );
        by_kind.push(json!({ "what": what, "first_s": first, "ms": times, "statuses": statuses }));
    }
    report.record("everything_down", by_kind.into());
    Ok(())
}
