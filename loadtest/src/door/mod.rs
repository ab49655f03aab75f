//! `loadtest door`: what a node's front door bears, and what lies behind it: pulls beside attacks,
//! uploads through a balancer, TLS handshakes, and Harbor's API.

mod api;
mod attacker;
mod balanced;
mod balancer;
mod beside;
mod frames;
mod handshakes;
mod layer;
mod node;
mod pullers;
mod rate;
mod storms;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::mesh::Mesh;
use crate::report::Report;
use crate::size::{self, Size};
use crate::{stop, tools};
use beside::Terms;
use node::{Node, PROJECT};
use storms::Attack;

/// Open files that a node needs for as many connections as it takes, and those that attack it.
const FILES: u64 = 65_536;

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Door {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART,...")]
    only: Vec<Part>,
    /// Only these attacks
    #[arg(long, value_delimiter = ',', value_name = "ATTACK,...")]
    attacks: Vec<Attack>,
    /// Rounds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of a round of pulls, in seconds
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Clients that pull beside attacks
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..))]
    clients: u16,
    /// The share of one core that an attacker may use
    #[arg(long, default_value_t = 0.25)]
    share: f64,
    /// The size of the long layer; the disk needs room for two of them
    #[arg(long, default_value = "10GB", value_parser = size::of_made)]
    layer: Size,
}

/// A part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// pulls beside attacks
    Attacks,
    /// TLS handshakes with and without tickets
    Handshakes,
    /// reads and writes of Harbor's API at a node that is not primary
    Api,
    /// uploads through nginx without sticky sessions, and straight
    Balancer,
    /// a long layer in chunks through nginx without sticky sessions
    Layer,
}

impl Door {
    /// Measures and writes `door.json` and `door.md`.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        ensure!(self.share > 0.0 && self.share <= 1.0, "--share is above 0 and at most 1");
        let mut report = Report::new("door", "The front door");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        report.server("atoll", &tools::version(&atoll));
        let parts = if self.only.is_empty() { Part::value_variants() } else { &self.only[..] };
        // what one part has found is told, though another one fails
        let mut failed = Ok(());
        for part in parts {
            if let Err(error) = self.measure(*part, &mut report, &atoll) {
                eprintln!("loadtest: {part:?}: {error:#}");
                report.say(&format!("{part:?} broke off: {error:#}"));
                failed = failed.and(Err(error));
            }
            stop::check()?;
        }
        report.write(out)?;
        failed
    }

    fn measure(&self, part: Part, report: &mut Report, atoll: &Path) -> Result<()> {
        let (field, told) = match part {
            Part::Attacks => ("attacks", self.attacks(report, atoll)?),
            Part::Handshakes => {
                let (plain, secure) = (Node::plain(atoll)?, Node::secure(atoll)?);
                ("handshakes", handshakes::measure(report, &plain, &secure, self.rounds)?)
            }
            Part::Api => ("api", api::measure(report, &three(atoll)?, self.rounds)?),
            Part::Balancer => ("balancer", balanced::measure(report, &three(atoll)?, self.rounds)?),
            Part::Layer => ("layer", layer::measure(report, &three(atoll)?, self.layer)?),
        };
        report.record(field, told);
        Ok(())
    }

    fn attacks(&self, report: &mut Report, atoll: &Path) -> Result<Value> {
        let files = attacker::raise_open_files(FILES);
        report.server("open files", &format!("{files} for each process"));
        if files < FILES {
            eprintln!(
                "loadtest: the system allows {files} open files of {FILES}; root may raise it"
            );
        }
        let attacks = if self.attacks.is_empty() { Attack::all() } else { &self.attacks[..] };
        let terms = Terms {
            rounds: self.rounds,
            time: Duration::from_secs(self.seconds),
            clients: usize::from(self.clients),
            share: self.share,
        };
        let mut told = Vec::new();
        for mut node in [Node::plain(atoll)?, Node::secure(atoll)?] {
            let measured = beside::measure(report, &node, attacks, terms);
            node.must_run()?;
            told.push(measured?);
        }
        Ok(told.into())
    }
}

/// Three replicas in three regions of this machine, with the project that is used.
fn three(atoll: &Path) -> Result<Mesh> {
    let mesh = Mesh::up(atoll, 3)?;
    mesh.create_project(PROJECT, 1)?;
    Ok(mesh)
}
