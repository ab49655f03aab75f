//! `loadtest`: a client from outside that starts a registry and its peers and tells how they compare.
//!
//! It knows Atoll only as a stranger does: by its command line, its `mesh.json` and its HTTP APIs. Nothing fails because the machine is
//! slow; a run fails only when a server does not do what it was asked.

mod content;
mod cpu;
mod figures;
mod goals;
mod load;
mod machine;
mod mesh;
mod operations;
mod peers;
mod process;
mod registry;
mod report;
mod serve;
mod stop;
mod tools;
mod wire;

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
    let out = arguments.out.clone().unwrap_or_else(|| machine::repository().join("target/loadtest"));
    match &arguments.what {
        What::Serve(serve) => serve.run(&out),
    }
}
