//! `loadtest push`: a whole image of three large layers, from its first byte to its tag.
//!
//! Atoll runs as three regions and is measured twice: with the promise that it makes by default
//! (two regions hold everything before the acknowledgement) and with the promise that a single
//! registry makes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::content::{Blob, Bodies, manifest};
use crate::cpu::Reading;
use crate::figures::{Spread, plain, ratio};
use crate::mesh::Mesh;
use crate::peers::{self, Peer};
use crate::registry::{self, blob_path, manifest_path};
use crate::report::{Report, Table};
use crate::size::Size;
use crate::wire::Target;
use crate::{stop, tools};

/// The layers' shares of the whole, about those of an image with an operating system, a runtime and
/// an application.
const SHARES: [usize; 3] = [24, 96, 70];

/// What to push.
#[derive(Args, Debug)]
pub(crate) struct Push {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// The Distribution binary; found as for `serve`
    #[arg(long, value_name = "PATH")]
    registry: Option<PathBuf>,
    /// The size of all layers together
    #[arg(long, default_value = "190MB")]
    size: Size,
    /// Pushes to every server
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// Where an image is pushed to.
#[derive(Debug)]
struct Place {
    name: &'static str,
    target: Target,
    repository: &'static str,
    pids: Vec<u32>,
    pushes: Vec<Pushed>,
}

/// One push.
#[derive(Clone, Copy, Debug, Serialize)]
struct Pushed {
    seconds: f64,
    cpu_seconds: f64,
}

impl Push {
    /// Measures and writes `push.json` and `push.md`.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        let mut report = Report::new("push", "Pushing an image");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        let distribution =
            peers::distribution(&peers::find_distribution(self.registry.as_deref())?)?;
        let mesh = Mesh::up(&atoll, 3)?;
        mesh.create_project("bench", 1)?;
        report
            .server("atoll", &format!("{}; three regions on this machine", tools::version(&atoll)));
        report.server("distribution", &distribution.version);
        let mut places = places(&mesh, &distribution);
        self.measure(&mut places)?;
        self.write(&mut report, &places);
        report.write(out)
    }

    fn measure(&self, places: &mut [Place]) -> Result<()> {
        let whole: usize = SHARES.iter().sum();
        let images = usize::from(self.rounds) * places.len();
        let layers = SHARES.map(|share| Bodies::random(images, self.size.0 / whole * share));
        let count = places.len();
        for round in 0..usize::from(self.rounds) {
            for turn in 0..count {
                stop::check()?;
                let place = &mut places[(round + turn) % count];
                let pushed =
                    push(place, &layers, round * count + turn).with_context(|| place.name)?;
                place.pushes.push(pushed);
            }
            eprintln!("loadtest: push round {} of {}", round + 1, self.rounds);
        }
        Ok(())
    }

    fn write(&self, report: &mut Report, places: &[Place]) {
        report.heading("From the first byte to the tag");
        report.say(&format!(
            "Three layers of together {} over three connections, then configuration and manifest; {} pushes to each server in turns; \
             median (least - greatest).",
            self.size, self.rounds
        ));
        let seconds = |place: &Place| Spread::of(place.pushes.iter().map(|one| Some(one.seconds)));
        let theirs = places.last().and_then(seconds);
        let mut table =
            Table::new(&["server", "seconds", "MB/s", "CPU seconds", "time against distribution"]);
        for place in places {
            let show = |spread: Option<Spread>| {
                spread.map_or_else(|| "-".to_owned(), |spread| spread.to_string())
            };
            let against = seconds(place)
                .zip(theirs)
                .and_then(|(ours, theirs)| ratio(ours.median, theirs.median));
            let rate = |one: &Pushed| Some(self.size.0 as f64 / 1e6 / one.seconds);
            table.row(vec![
                place.name.to_owned(),
                show(seconds(place)),
                show(Spread::of(place.pushes.iter().map(rate))),
                show(Spread::of(place.pushes.iter().map(|one| Some(one.cpu_seconds)))),
                against.map_or_else(|| "-".to_owned(), |ratio| format!("{}x", plain(ratio))),
            ]);
        }
        report.table(&table);
        report.say("CPU is that of all three nodes together, until the acknowledgement.");
        report.record("bytes", self.size.0.into());
        let pushes: serde_json::Map<_, _> = places
            .iter()
            .map(|place| (place.name.to_owned(), json!({ "pushes": place.pushes })))
            .collect();
        report.record("places", pushes.into());
    }
}

/// The places in the order of the report; the one to compare with comes last.
fn places(mesh: &Mesh, distribution: &Peer) -> Vec<Place> {
    vec![
        Place {
            name: "atoll, held by two regions",
            target: mesh.target(0),
            repository: "demo/image",
            pids: mesh.pids(),
            pushes: Vec::new(),
        },
        Place {
            name: "atoll, held by one region",
            target: mesh.target(0),
            repository: "bench/image",
            pids: mesh.pids(),
            pushes: Vec::new(),
        },
        Place {
            name: "distribution",
            target: distribution.writes(),
            repository: "bench/image",
            pids: distribution.pids(),
            pushes: Vec::new(),
        },
    ]
}

/// Pushes one image, then reads its manifest and first layer back.
fn push(place: &Place, layers: &[Bodies], number: usize) -> Result<Pushed> {
    let (repository, config) = (place.repository, Blob::config());
    let described: Vec<_> =
        layers.iter().map(|layer| (layer.digest(number), layer.length())).collect();
    let manifest = manifest(&config, &described);
    rustix::fs::sync();
    let before = Reading::of(&place.pids);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let one = |layer: &Bodies| {
            registry::upload(
                &mut place.target.client(),
                repository,
                &layer.parts(number),
                &layer.digest(number),
            )
        };
        let uploads: Vec<_> = layers.iter().map(|layer| scope.spawn(move || one(layer))).collect();
        uploads.into_iter().try_for_each(|upload| upload.join().expect("no panic"))
    })?;
    let client = &mut place.target.client();
    registry::upload_blob(client, repository, &config)?;
    registry::put_manifest(client, repository, &format!("v{number}"), &manifest)?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_seconds = Reading::of(&place.pids).since(&before);
    registry::verify(client, &manifest_path(repository, &format!("v{number}")), &manifest.digest)?;
    registry::verify(client, &blob_path(repository, &described[0].0), &described[0].0)?;
    Ok(Pushed { seconds, cpu_seconds })
}
