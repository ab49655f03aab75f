//! `loadtest regions`: what three regions far apart cost those who write: commands a second, the
//! loss of the node that is primary of many projects, an hour of packet loss without any other
//! fault, and the filling of an empty replica.

mod commands;
mod fill;
mod loss;
mod primaries;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::content::{Blob, manifest};
use crate::formed::{Formed, Site};
use crate::network::{PROFILES, Profile};
use crate::registry;
use crate::report::Report;
use crate::size::{Size, of_made};
use crate::tools;
use crate::wan::Found;
use crate::wire::Client;

/// What to measure. Needs root, `iproute2` and `util-linux`.
#[derive(Args, Debug)]
pub(crate) struct Regions {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// The WANs, by name; the loss of primaries and packets is measured over the last of them
    #[arg(long, value_delimiter = ',', default_value = "LAN,R2")]
    over: Vec<String>,
    /// How many clients write at a time
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    writers: Vec<usize>,
    /// How long they write
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How many projects the node that is killed is primary of
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    projects: Vec<usize>,
    /// How often it is killed
    #[arg(long, default_value_t = 5)]
    kills: usize,
    /// Shares of packets that are lost each way
    #[arg(long, value_delimiter = ',', default_value = "0.02,0.05")]
    losses: Vec<f64>,
    /// How long they are
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// What an empty replica is filled with
    #[arg(long, value_parser = of_made, default_value = "10GB")]
    fill: Size,
}

/// The parts of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Commands of the ledger a second
    Commands,
    /// From the kill of a primary of many projects to the next acknowledged push of each
    Primaries,
    /// Packet loss and no other fault: nothing may fail over
    Loss,
    /// An empty replica gets all that it should keep
    Fill,
}

impl Regions {
    /// Measures and writes `regions.json` and `regions.md`, also what was found before a part failed.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        let mut report = Report::new("regions", "Three regions and those who write");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        report.server(
            "atoll",
            &format!("{}; a network namespace for each node", tools::version(&atoll)),
        );
        let mut found = Found::default();
        let measured = self.parts(&atoll, &mut report, &mut found);
        found.write(&mut report);
        if let Err(error) = &measured {
            report.say(&format!("**The run failed and is not whole:** {error:#}"));
        }
        report.write(out)?;
        measured
    }

    fn parts(&self, atoll: &Path, report: &mut Report, found: &mut Found) -> Result<()> {
        let wanted = |part| self.only.is_empty() || self.only.contains(&part);
        let profiles = self.profiles()?;
        let far = *profiles.last().context("--over names no WAN")?;
        if wanted(Part::Commands) {
            commands::run(self, atoll, &profiles, found)?;
        }
        if wanted(Part::Primaries) {
            primaries::run(self, atoll, far, report, found)?;
        }
        if wanted(Part::Loss) {
            loss::run(self, atoll, far, found)?;
        }
        if wanted(Part::Fill) {
            fill::run(self, atoll, &profiles, found)?;
        }
        Ok(())
    }

    fn profiles(&self) -> Result<Vec<Profile>> {
        let named = |name: &String| {
            let profile = PROFILES.into_iter().find(|profile| profile.name == name);
            profile.with_context(|| format!("--over: {name:?} is none of LAN, R1, R2 and R3"))
        };
        self.over.iter().map(named).collect()
    }
}

/// A mesh of three replicas in three regions, over this WAN.
fn mesh(atoll: &Path, profile: Profile) -> Result<Formed> {
    let sites = [0, 1, 2].map(Site::replica);
    let mesh = Formed::of(atoll, &sites, false, "")?;
    mesh.network.profile(profile);
    for at in 0..sites.len() {
        mesh.settle(at)?;
    }
    Ok(mesh)
}

/// An image of a kilobyte.
struct Tiny {
    layer: Blob,
    config: Blob,
    manifest: Blob,
}

impl Tiny {
    fn random() -> Self {
        let (layer, config) = (Blob::random(1000), Blob::config());
        Tiny { manifest: manifest(&config, &[(layer.digest, 1000)]), layer, config }
    }

    /// Pushes it whole.
    fn push(&self, client: &mut Client, repository: &str, tag: &str) -> Result<()> {
        registry::upload_blob(client, repository, &self.layer)?;
        registry::upload_blob(client, repository, &self.config)?;
        self.tag(client, repository, tag)
    }

    /// Gives it one more tag: one command of the ledger.
    fn tag(&self, client: &mut Client, repository: &str, tag: &str) -> Result<()> {
        registry::put_manifest(client, repository, tag, &self.manifest)
    }
}

/// A number of a node's status.
fn number(status: &Value, place: &str) -> Result<u64> {
    let value = status.pointer(place).and_then(Value::as_u64);
    value.with_context(|| format!("the status has no {place}"))
}

/// The projects whose primary is the node of this name.
fn primary_of<'a>(status: &'a Value, node: &str) -> impl Iterator<Item = &'a Value> {
    let projects = status["projects"].as_array().into_iter().flatten();
    projects.filter(move |project| project["primary"] == node)
}

/// Ends what runs beside something else, whatever happens to that.
fn ensure_all<T>(results: Vec<Result<T>>) -> Result<Vec<T>> {
    let all: Result<Vec<T>> = results.into_iter().collect();
    let all = all?;
    ensure!(!all.is_empty(), "nobody did anything");
    Ok(all)
}
