//! Commands of the ledger a second. Each is a tag that one client gives to an image that is there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Regions, Tiny, ensure_all, mesh, number};
use crate::figures::Quantiles;
use crate::formed::Formed;
use crate::network::Profile;
use crate::stop;
use crate::wan::{Found, Mark};

const PROJECT: &str = "writers";

pub(super) fn run(
    regions: &Regions,
    atoll: &Path,
    profiles: &[Profile],
    found: &mut Found,
) -> Result<()> {
    for profile in profiles {
        let mesh = mesh(atoll, *profile)?;
        mesh.create_project(PROJECT, 2)?;
        for writers in &regions.writers {
            let time = Duration::from_secs(regions.seconds);
            let (commands, times) = measure(&mesh, *writers, time)?;
            let name = format!("{}, {writers} writers", profile.name);
            // far apart, the clients wait for round trips most of the time: what they get says how
            // long a command takes, and not how many there can be
            let near = profile.round_trip.is_zero();
            let goal = (near && *writers >= 64).then_some(Mark::AtLeast(10_000.0, 10_000.0));
            found.add(&format!("{name}: commands"), commands, "/s", goal);
            if let Some(times) = Quantiles::of_seconds(times) {
                found.add(&format!("{name}: one, p50"), times.p50, "ms", None);
                found.add(&format!("{name}: one, p99"), times.p99, "ms", None);
            }
            eprintln!("loadtest: {name}: {commands:.0} commands a second");
        }
    }
    Ok(())
}

/// So many clients beside the first node, which is the project's primary, each tag as fast as they
/// are answered; what the ledger has applied in a second, and how long each tag took.
fn measure(mesh: &Formed, writers: usize, time: Duration) -> Result<(f64, Vec<f64>)> {
    let image = Tiny::random();
    for writer in 0..writers {
        let repository = format!("{PROJECT}/r{writer}");
        image.push(&mut mesh.administrator(0), &repository, "first")?;
    }
    let applied = |mesh: &Formed| number(&mesh.status(0)?, "/ledger/applied");
    let over = AtomicBool::new(false);
    let (before, begun) = (applied(mesh)?, Instant::now());
    let mut elapsed = Duration::ZERO;
    let mut after = before;
    let times = std::thread::scope(|scope| {
        let (image, over) = (&image, &over);
        let write = |writer: usize| {
            move || -> Result<Vec<f64>> {
                let client = &mut mesh.administrator(0);
                let repository = format!("{PROJECT}/r{writer}");
                let mut times = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let (tag, asked) = (format!("t{}", rand::random::<u64>()), Instant::now());
                    image.tag(client, &repository, &tag)?;
                    times.push(asked.elapsed().as_secs_f64());
                }
                Ok(times)
            }
        };
        let all: Vec<_> = (0..writers).map(|writer| scope.spawn(write(writer))).collect();
        while begun.elapsed() < time && stop::check().is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
        let told = applied(mesh);
        elapsed = begun.elapsed();
        over.store(true, Ordering::Relaxed);
        let ended: Vec<_> = all
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|_| anyhow::bail!("a writer panicked")))
            .collect();
        after = told?;
        ensure_all(ended)
    })?;
    stop::check()?;
    let commands = (after - before) as f64 / elapsed.as_secs_f64();
    Ok((commands, times.into_iter().flatten().collect()))
}
