//! A layer of many gigabytes, in chunks, each of which the balancer sends to the next node.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rules::words::digest::{Algorithm, Digest, Hasher};
use serde_json::{Value, json};

use super::balancer::Balancer;
use super::node::PROJECT;
use crate::content::{Blob, MIB};
use crate::cpu::{Reading, resident_bytes};
use crate::figures::plain;
use crate::mesh::Mesh;
use crate::registry::{self, blob_path};
use crate::report::{Report, Table};
use crate::size::Size;
use crate::stop;
use crate::wire::{Client, Request, Sink};

/// What one request brings.
const CHUNK: u64 = 64 << 20;
/// What a chunk is made of: the same bytes again and again, behind a number that is never the same.
const PIECE: usize = MIB;
const STAMP: usize = 8;
/// What has to stay free on the disk, beside the layer where it is pushed and where it is pulled.
const SPARE: u64 = 3 << 30;

/// Bytes that need no memory: each piece is a number and the same random bytes.
struct Made {
    base: Vec<u8>,
    length: u64,
}

impl Made {
    fn new(length: u64) -> Self {
        Made { base: Blob::random(PIECE).bytes, length }
    }

    /// Calls `with` for the parts of the bytes from `begin` to `end`, where a piece begins.
    fn parts<R>(&self, begin: u64, end: u64, with: impl FnOnce(&[&[u8]]) -> R) -> R {
        let piece = PIECE as u64;
        let numbers: Vec<[u8; STAMP]> =
            (begin / piece..end.div_ceil(piece)).map(u64::to_be_bytes).collect();
        let mut left = (end - begin) as usize;
        let mut parts: Vec<&[u8]> = Vec::with_capacity(2 * numbers.len());
        for number in &numbers {
            for part in [&number[..], &self.base[STAMP..]] {
                let taken = part.len().min(left);
                parts.push(&part[..taken]);
                left -= taken;
            }
        }
        with(&parts)
    }

    fn chunks(&self) -> impl Iterator<Item = (u64, u64)> {
        let length = self.length;
        (0..length).step_by(CHUNK as usize).map(move |begin| (begin, (begin + CHUNK).min(length)))
    }

    fn digest(&self) -> Result<Digest> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for (begin, end) in self.chunks() {
            stop::check()?;
            self.parts(begin, end, |parts| parts.iter().for_each(|part| hasher.update(part)));
        }
        Ok(hasher.finish())
    }
}

/// Pushes such a layer through a balancer and pulls it again, or says that there is no room for it.
pub(crate) fn measure(report: &mut Report, mesh: &Mesh, size: Size) -> Result<Value> {
    report.heading("A long layer through a balancer");
    let folder = std::env::temp_dir();
    let (free, length) = (free_bytes(&folder)?, size.0 as u64);
    let needed = 2 * length + SPARE;
    if free < needed {
        let text = format!(
            "Not measured: a layer of {size} needs {} GB in {}, at the node that takes it and at one \
             that is asked for it, and {} are free. Take a smaller --layer, or set TMPDIR.",
            plain(needed as f64 / 1e9),
            folder.display(),
            plain(free as f64 / 1e9),
        );
        eprintln!("loadtest: {text}");
        report.say(&text);
        return Ok(json!({ "bytes": length, "free": free, "needed": needed }));
    }
    let all: Vec<usize> = (0..mesh.nodes.len()).collect();
    let (balancer, made) = (Balancer::before(mesh, &all)?, Made::new(length));
    eprintln!("loadtest: hashing {size}");
    let digest = made.digest()?;
    let before: Vec<u64> = mesh.nodes.iter().map(|node| resident(node.pid)).collect();
    let repository = format!("{PROJECT}/long");
    eprintln!("loadtest: pushing {size} in chunks");
    let (pushed, push_peak) = watched(mesh, || push(&balancer, &repository, &made, &digest))?;
    eprintln!("loadtest: pulling {size}");
    let (pulled, pull_peak) = watched(mesh, || pull(&balancer, &repository, &digest, length))?;
    let chunks = length.div_ceil(CHUNK);
    let told = |took: Took| {
        let rate = plain(length as f64 / 1e6 / took.seconds);
        format!("{rate} MB/s and {} CPU-s/GB of all nodes", plain(took.cpu * 1e9 / length as f64))
    };
    report.say(&format!(
        "{size} in {chunks} chunks of 64 MiB (`PATCH` with `Content-Range`), each to the next of three nodes, \
         then pulled through the balancer and hashed: it is whole. Pushed with {}; pulled with {}. The bytes \
         are made while they are sent.",
        told(pushed),
        told(pulled),
    ));
    let mut table =
        Table::new(&["node", "memory before, MiB", "most while pushed", "most while pulled"]);
    let mib = |bytes: u64| plain(bytes as f64 / MIB as f64);
    for (at, node) in mesh.nodes.iter().enumerate() {
        let cells = [before[at], push_peak[at], pull_peak[at]].map(mib);
        table.row([vec![node.name.clone()], cells.to_vec()].concat());
    }
    report.table(&table);
    Ok(json!({ "bytes": length, "chunks": chunks,
        "push": { "seconds": pushed.seconds, "cpu_seconds": pushed.cpu },
        "pull": { "seconds": pulled.seconds, "cpu_seconds": pulled.cpu },
        "resident_before": before, "resident_pushing": push_peak, "resident_pulling": pull_peak }))
}

/// Time, and processor of all nodes, in seconds.
#[derive(Clone, Copy, Debug)]
struct Took {
    seconds: f64,
    cpu: f64,
}

fn push(balancer: &Balancer, repository: &str, made: &Made, digest: &Digest) -> Result<()> {
    let client = &mut balancer.target.client();
    let mut place = registry::open_upload(client, repository)?;
    for (begin, end) in made.chunks() {
        stop::check()?;
        place = made
            .parts(begin, end, |parts| registry::add_to_upload(client, &place, begin, parts))
            .with_context(|| format!("the chunk that begins at {begin}"))?;
    }
    registry::close_upload(client, &place, &[], digest)
}

fn pull(balancer: &Balancer, repository: &str, digest: &Digest, length: u64) -> Result<()> {
    let (path, mut hasher) = (blob_path(repository, digest), Hasher::new(Algorithm::Sha256));
    let client: &mut Client = &mut balancer.target.client();
    let answer = client.send(&Request::new("GET", &path), &mut Sink::Hash(&mut hasher))?;
    registry::expect(&answer, 200, "GET", &path)?;
    ensure!(answer.bytes == length, "GET {path}: {} bytes of {length}", answer.bytes);
    ensure!(hasher.finish() == *digest, "GET {path}: the bytes are not those of its name");
    Ok(())
}

/// Does something, and looks meanwhile at each node's memory: how long it took, and the most that
/// each had.
fn watched(mesh: &Mesh, what: impl FnOnce() -> Result<()>) -> Result<(Took, Vec<u64>)> {
    const LOOK: Duration = Duration::from_millis(50);
    let (over, pids) = (AtomicBool::new(false), mesh.pids());
    let peaks: Vec<AtomicU64> = pids.iter().map(|_| AtomicU64::new(0)).collect();
    let (before, begun) = (Reading::of(&pids), Instant::now());
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (pid, peak) in pids.iter().zip(&peaks) {
                    peak.fetch_max(resident(*pid), Ordering::Relaxed);
                }
                std::thread::sleep(LOOK);
            }
        });
        let done = what();
        over.store(true, Ordering::Relaxed);
        done
    });
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), Reading::of(&pids).since(&before));
    done?;
    Ok((Took { seconds, cpu }, peaks.into_iter().map(AtomicU64::into_inner).collect()))
}

fn resident(pid: u32) -> u64 {
    resident_bytes(pid).unwrap_or(0)
}

/// What is free in a folder for us.
fn free_bytes(folder: &Path) -> Result<u64> {
    let said = rustix::fs::statvfs(folder)?;
    Ok(said.f_bavail * said.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_as_long_as_asked_for_and_no_two_pieces_are_the_same() {
        let length = 2 * CHUNK + 3 * PIECE as u64 + 5;
        let made = Made::new(length);
        let (mut all, mut hasher) = (0, Hasher::new(Algorithm::Sha256));
        let mut firsts = std::collections::BTreeSet::new();
        for (begin, end) in made.chunks() {
            made.parts(begin, end, |parts| {
                let sum: usize = parts.iter().map(|part| part.len()).sum();
                assert_eq!(sum as u64, end - begin);
                all += sum as u64;
                parts.iter().for_each(|part| hasher.update(part));
                for part in parts.iter().step_by(2) {
                    assert!(firsts.insert(part.to_vec()), "a piece comes twice");
                }
            });
        }
        assert_eq!(all, length);
        assert_eq!(hasher.finish(), made.digest().unwrap());
    }
}
