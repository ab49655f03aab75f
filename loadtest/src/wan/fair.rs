//! What a pull through the mesh leaves to a TCP connection that crosses the same WAN at the same
//! time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::scope;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;

use super::pull::{Way, pull};
use super::{Found, Wan};
use crate::figures::{median, plain};
use crate::formed::{Formed, Site};
use crate::report::{Report, Table};

/// The node that holds what is pulled, and the one whose client pulls.
const HOLDER: usize = 0;
const NEAR: usize = 1;
const REPOSITORY: &str = "bench/fair";

/// Two pulls at once, until the first of them ends: what each had by then, in MB a second.
#[derive(Clone, Copy, Debug)]
struct Pair {
    tcp: f64,
    beside: f64,
}

pub(super) fn run(
    wan: &Wan,
    atoll: &std::path::Path,
    report: &mut Report,
    found: &mut Found,
) -> Result<()> {
    let mesh =
        Formed::of(atoll, &[Site::replica(0), Site::replica(1), Site::replica(2)], true, "")?;
    mesh.create_project("bench", 1)?;
    report.heading("Sharing a WAN: a TCP connection beside a pull through the mesh, and beside another TCP connection");
    report.say(
        "Both pulls begin at once and carry different layers over the same link; MB/s until the first of them ends, medians. TCP has \
         CUBIC, Linux's default.",
    );
    let mut table = Table::new(&["WAN", "beside", "TCP MB/s", "the other MB/s", "TCP's share"]);
    let mut all = Vec::new();
    mesh.network.congestion("cubic")?;
    for profile in wan.profiles().into_iter().filter(|profile| profile.bytes_per_second.is_some()) {
        mesh.network.profile(profile);
        let mut rates = Vec::new();
        for (name, way) in [("TCP", Way { beside: NEAR, to: HOLDER }), ("mesh", Way::at(NEAR))] {
            let pairs = (0..wan.rounds)
                .map(|_| pair(&mesh, wan.large(&profile), way))
                .collect::<Result<Vec<_>>>()?;
            let of = |pick: fn(&Pair) -> f64| {
                median(&pairs.iter().map(pick).collect::<Vec<_>>()).unwrap_or(f64::NAN)
            };
            let (tcp, beside) = (of(|pair| pair.tcp), of(|pair| pair.beside));
            let share = tcp / (tcp + beside);
            table.row(vec![
                profile.name.to_owned(),
                name.to_owned(),
                plain(tcp),
                plain(beside),
                plain(share),
            ]);
            all.push(json!({ "wan": profile.name, "beside": name, "tcp_mb_s": tcp, "other_mb_s": beside }));
            rates.push(tcp);
        }
        let name = format!(
            "fair: a TCP pull beside one through the mesh, against beside another TCP pull, {}",
            profile.name
        );
        found.add(&name, rates[1] / rates[0], "x", None);
    }
    report.table(&table);
    report.record("fair", all.into());
    Ok(())
}

fn pair(mesh: &Formed, size: usize, way: Way) -> Result<Pair> {
    crate::stop::check()?;
    let layers = [
        mesh.push(REPOSITORY, size, &[HOLDER, NEAR])?,
        mesh.push(REPOSITORY, size, &[HOLDER, NEAR])?,
    ];
    let ways = [Way { beside: NEAR, to: HOLDER }, way];
    let (bytes, first) = ([AtomicU64::new(0), AtomicU64::new(0)], AtomicU64::new(0));
    let begun = Instant::now();
    let pulled = scope(|threads| {
        let one = |at: usize| {
            let (way, digest, bytes, first) = (ways[at], &layers[at].digest, &bytes, &first);
            threads.spawn(move || {
                let pulled =
                    pull(&mesh.target(way.beside, way.to), REPOSITORY, digest, &mut |now| {
                        if first.load(Ordering::Relaxed) == 0 {
                            bytes[at].store(now, Ordering::Relaxed);
                        }
                    });
                let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                let _ = first.compare_exchange(0, millis, Ordering::Relaxed, Ordering::Relaxed);
                pulled
            })
        };
        [one(0), one(1)].map(|thread| thread.join())
    });
    for pulled in pulled {
        let pulled = pulled.map_err(|_| anyhow::anyhow!("a pull panicked"))?;
        ensure!(pulled.error.is_none(), "{:?}", pulled.error);
    }
    let millis = first.into_inner() as f64;
    let [tcp, beside] = bytes.map(|bytes| bytes.into_inner() as f64 / 1e3 / millis);
    Ok(Pair { tcp, beside })
}
