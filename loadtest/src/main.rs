//! `loadtest`: a client from outside that starts a registry and its peers and tells how they
//! compare.
//!
//! It knows Atoll only as a stranger does: by its command line, its `mesh.json` and its HTTP APIs.
//! Nothing fails because the machine is slow; a run fails only when a server does not do what it
//! was asked.

mod cold;
mod content;
mod cpu;
mod door;
mod failover;
mod faults;
mod figures;
mod formed;
mod gate;
mod goals;
mod idle;
mod load;
mod machine;
mod mesh;
mod network;
mod newcomer;
mod operations;
mod outage;
mod peers;
mod people;
mod process;
mod proxy;
mod push;
mod regions;
mod registry;
mod report;
mod scale;
mod scan;
mod serve;
mod size;
mod stop;
mod tools;
mod wan;
mod wire;

// the database of vulnerabilities, which trivy reads, too
#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../../tests/src/bolt.rs"]
mod bolt;
#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../../tests/src/vulnerabilities.rs"]
mod vulnerabilities;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Starts Atoll and its peers on this machine and reports how they compare
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Where the reports go; without it target/loadtest in the source tree
    #[arg(long, global = true, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Pulls and pushes of one node beside Distribution, nginx and others
    Serve(serve::Serve),
    /// Pushes of a whole image to a mesh of three regions beside Distribution
    Push(push::Push),
    /// Pulls from a region that does not hold the bytes yet
    Cold(cold::Cold),
    /// Pulls beside attacks, uploads through a balancer, TLS handshakes and Harbor's API
    Door(door::Door),
    /// Kills primaries and times the next acknowledged push
    Failover(failover::Failover),
    /// Trials: clients work while faults befall a mesh, and then everything is compared; needs root
    Faults(faults::Faults),
    /// Pulls of what needs signatures and scans; signatures verified, made, and revoked
    Gate(gate::Gate),
    /// Processor and memory of a mesh without requests
    Idle(idle::Idle),
    /// An empty replica over a wide area network while the leader dies twice; needs root
    Newcomer(newcomer::Newcomer),
    /// A replica that is away while others write: what it catches up from, and how fast
    Outage(outage::Outage),
    /// Tokens, and a mesh with very many robots and members
    People(people::People),
    /// What many cold clients of a pull-through cache cost its upstream; needs root
    Proxy(proxy::Proxy),
    /// What three regions far apart cost those who write; needs root
    Regions(regions::Regions),
    /// A mesh with a thousand manifests, and with many more
    Scale(scale::Scale),
    /// Scans by the built-in scanner beside the program trivy; needs root
    Scan(scan::Scan),
    /// The mesh over emulated wide area networks beside TLS over TCP; needs root
    Wan(wan::Wan),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    stop::listen()?;
    let out =
        arguments.out.clone().unwrap_or_else(|| machine::repository().join("target/loadtest"));
    match &arguments.what {
        What::Serve(serve) => serve.run(&out),
        What::Push(push) => push.run(&out),
        What::Cold(cold) => cold.run(&out),
        What::Door(door) => door.run(&out),
        What::Failover(failover) => failover.run(&out),
        What::Faults(faults) => faults.run(&out),
        What::Gate(gate) => gate.run(&out),
        What::Idle(idle) => idle.run(&out),
        What::Newcomer(newcomer) => newcomer.run(&out),
        What::Outage(outage) => outage.run(&out),
        What::People(people) => people.run(&out),
        What::Proxy(proxy) => proxy.run(&out),
        What::Regions(regions) => regions.run(&out),
        What::Scale(scale) => scale.run(&out),
        What::Scan(scan) => scan.run(&out),
        What::Wan(wan) => wan.run(&out),
    }
}
