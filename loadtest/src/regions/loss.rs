//! Packets are lost, and nothing else is wrong: no primary and no leader may change, and every push
//! is taken.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::{Regions, Tiny, mesh, number};
use crate::figures::Quantiles;
use crate::formed::Formed;
use crate::network::Profile;
use crate::stop;
use crate::wan::{Found, Mark};

const PROJECT: &str = "lossy";
/// Between two pushes.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) fn run(regions: &Regions, atoll: &Path, far: Profile, found: &mut Found) -> Result<()> {
    for loss in &regions.losses {
        let mesh = mesh(atoll, far)?;
        mesh.create_project(PROJECT, 2)?;
        mesh.network.profile(Profile { loss: *loss, ..far });
        let time = Duration::from_secs(60 * regions.minutes);
        let seen = watch(&mesh, time)?;
        let name =
            format!("{} with {} % loss, {} minutes", far.name, loss * 100.0, regions.minutes);
        let none = Some(Mark::AtMost(0.0, 0.0));
        found.add(&format!("{name}: primaries that changed"), seen.epochs as f64, "", none);
        found.add(&format!("{name}: leaders that changed"), seen.terms as f64, "", none);
        found.add(&format!("{name}: pushes refused"), seen.refused as f64, "", none);
        found.add(&format!("{name}: pushes"), seen.times.len() as f64, "", None);
        if let Some(times) = Quantiles::of_seconds(seen.times) {
            found.add(&format!("{name}: a push, p50"), times.p50, "ms", None);
            found.add(&format!("{name}: a push, p99"), times.p99, "ms", None);
        }
    }
    Ok(())
}

#[derive(Default)]
struct Seen {
    epochs: u64,
    terms: u64,
    refused: usize,
    times: Vec<f64>,
}

/// Pushes through each node in turn. A push that is refused is counted and not tried again.
fn watch(mesh: &Formed, time: Duration) -> Result<Seen> {
    let before = mesh.status(0)?;
    let (mut seen, begun) = (Seen::default(), Instant::now());
    for at in (0..3).cycle() {
        stop::check()?;
        if begun.elapsed() > time {
            break;
        }
        let asked = Instant::now();
        let client = &mut mesh.administrator(at);
        match Tiny::random().push(client, &format!("{PROJECT}/app"), "latest") {
            Ok(()) => seen.times.push(asked.elapsed().as_secs_f64()),
            Err(error) => {
                seen.refused += 1;
                eprintln!("loadtest: a push to node {at} was refused: {error:#}");
            }
        }
        std::thread::sleep(PAUSE);
    }
    let after = mesh.status(0)?;
    let grown =
        |place: &str| Ok::<_, anyhow::Error>(number(&after, place)? - number(&before, place)?);
    seen.terms = grown("/ledger/term")?;
    seen.epochs = epochs(&after) - epochs(&before);
    Ok(seen)
}

/// The epochs of all projects together: each change of a primary adds one.
fn epochs(status: &Value) -> u64 {
    let projects = status["projects"].as_array().into_iter().flatten();
    projects.filter_map(|project| project["epoch"].as_u64()).sum()
}
