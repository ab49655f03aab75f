//! `loadtest cold`: what a pull costs in a region that does not hold the bytes yet.
//!
//! A fresh image goes to region A alone (durability 1). Region B is asked for it at once, then A,
//! then B again: cold, warm at home, warm abroad.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use rules::words::digest::Digest;
use serde::Serialize;

use crate::content::{Blob, manifest};
use crate::figures::{Spread, plain, ratio};
use crate::mesh::{Mesh, PATIENCE};
use crate::registry::{self, ACCEPT, blob_path, manifest_path};
use crate::report::{Report, Table};
use crate::size::Size;
use crate::wire::{Client, Request, Sink};
use crate::{process, tools};

const REPOSITORY: &str = "bench/cold";

/// What to pull.
#[derive(Args, Debug)]
pub(crate) struct Cold {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// The size of the layer
    #[arg(long, default_value = "64MiB")]
    size: Size,
    /// Fresh images
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// The times of one GET in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Got {
    first_byte_ms: f64,
    total_ms: f64,
}

/// One fresh image.
#[derive(Clone, Copy, Debug, Serialize)]
struct Pulled {
    /// From the acknowledgement of the push to the manifest's being there in region B.
    visible_ms: f64,
    cold: Got,
    home: Got,
    again: Got,
}

impl Cold {
    /// Measures and writes `cold.json` and `cold.md`.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        let mut report = Report::new("cold", "A cold pull in another region");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        let mesh = Mesh::up(&atoll, 3)?;
        mesh.create_project("bench", 1)?;
        report
            .server("atoll", &format!("{}; three regions on this machine", tools::version(&atoll)));
        let mut buffer = vec![1; self.size.0]; // touched once, so that no page fault is timed
        let mut pulled = Vec::new();
        for round in 0..self.rounds {
            pulled.push(pull(&mesh, self.size.0, &mut buffer)?);
            eprintln!("loadtest: cold round {} of {}", round + 1, self.rounds);
        }
        self.write(&mut report, &pulled)?;
        report.write(out)
    }

    fn write(&self, report: &mut Report, pulled: &[Pulled]) -> Result<()> {
        report.heading("A layer from region B against region A");
        report.say(&format!(
            "A layer of {}, {} fresh ones; median (least - greatest). All regions are on this machine, without a WAN between them: \
             what is seen is the mesh's own cost. Durability 1, pushed through region A ({}), asked for in region B ({}).",
            self.size, self.rounds, "node 1 of mesh.json", "node 2"
        ));
        let home: Vec<Got> = pulled.iter().map(|one| one.home).collect();
        let kinds = [
            ("B, cold", pulled.iter().map(|one| one.cold).collect()),
            ("A, warm", home.clone()),
            ("B, warm", pulled.iter().map(|one| one.again).collect()),
        ];
        let spreads = |gets: &[Got]| {
            let first = Spread::of(gets.iter().map(|got| Some(got.first_byte_ms)));
            [first, Spread::of(gets.iter().map(|got| Some(got.total_ms)))]
        };
        let mut table = Table::new(&["GET", "first byte ms", "against A", "total ms", "against A"]);
        for (name, gets) in kinds {
            let mut cells = vec![name.to_owned()];
            for (spread, home) in spreads(&gets).into_iter().zip(spreads(&home)) {
                let against =
                    spread.zip(home).and_then(|(spread, home)| ratio(spread.median, home.median));
                cells.push(spread.map_or_else(|| "-".to_owned(), |spread| spread.to_string()));
                cells.push(
                    against.map_or_else(|| "-".to_owned(), |ratio| format!("{}x", plain(ratio))),
                );
            }
            table.row(cells);
        }
        report.table(&table);
        if let Some(visible) = Spread::of(pulled.iter().map(|one| Some(one.visible_ms))) {
            report.say(&format!(
                "The tag was there in region B {visible} ms after the acknowledgement in region A."
            ));
        }
        report.record("bytes", self.size.0.into());
        report.record("pulls", serde_json::to_value(pulled)?);
        Ok(())
    }
}

fn pull(mesh: &Mesh, size: usize, buffer: &mut Vec<u8>) -> Result<Pulled> {
    let (layer, config) = (Blob::random(size), Blob::config());
    let manifest = manifest(&config, &[(layer.digest, size)]);
    let tag = layer.digest.short();
    let pusher = &mut mesh.target(0).client();
    registry::upload_blob(pusher, REPOSITORY, &layer)?;
    registry::upload_blob(pusher, REPOSITORY, &config)?;
    registry::put_manifest(pusher, REPOSITORY, &tag, &manifest)?;
    let begun = Instant::now();
    let (home, away) =
        (&mut mesh.nodes[0].anonymous().client(), &mut mesh.nodes[1].anonymous().client());
    let path = manifest_path(REPOSITORY, &tag);
    let request = Request::new("GET", &path).headers(&[ACCEPT]);
    process::until("region B knows the tag", PATIENCE, || {
        Ok((away.send(&request, &mut Sink::Discard)?.status == 200).then_some(()))
    })?;
    let visible_ms = begun.elapsed().as_secs_f64() * 1e3;
    let mut timed = |client: &mut Client| get(client, &layer.digest, buffer);
    Ok(Pulled { visible_ms, cold: timed(away)?, home: timed(home)?, again: timed(away)? })
}

/// GETs the layer and hashes it when the time is taken.
fn get(client: &mut Client, digest: &Digest, buffer: &mut Vec<u8>) -> Result<Got> {
    let path = blob_path(REPOSITORY, digest);
    client.connect()?;
    buffer.clear();
    let answer = client.send(&Request::new("GET", &path), &mut Sink::Keep(buffer))?;
    registry::expect(&answer, 200, "GET", &path)?;
    ensure!(Digest::sha256(buffer) == *digest, "GET {path}: the bytes are not those of its name");
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(Got { first_byte_ms: ms(answer.first), total_ms: ms(answer.total) })
}
