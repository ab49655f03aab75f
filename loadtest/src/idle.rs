//! `loadtest idle`: what a mesh costs that gets no requests.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::cpu::{Reading, resident_bytes};
use crate::figures::plain;
use crate::mesh::Mesh;
use crate::report::{Report, Table};
use crate::{stop, tools};

/// How long a mesh may settle before it counts as idle.
const SETTLE: Duration = Duration::from_secs(10);

/// How long to watch.
#[derive(Args, Debug)]
pub(crate) struct Idle {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// Seconds to watch
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
    /// Edges beside the three replicas
    #[arg(long, default_value_t = 3)]
    edges: u16,
}

impl Idle {
    /// Watches and writes `idle.json` and `idle.md`.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        let mut report = Report::new("idle", "An idle mesh");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        let mut mesh = Mesh::up_with_edges(&atoll, 3, usize::from(self.edges))?;
        report
            .server("atoll", &format!("{}; three regions on this machine", tools::version(&atoll)));
        wait(SETTLE)?;
        let read = |mesh: &mut Mesh| {
            mesh.must_run()?;
            anyhow::Ok(mesh.nodes.iter().map(|node| Reading::of(&[node.pid])).collect::<Vec<_>>())
        };
        let (before, begun) = (read(&mut mesh)?, Instant::now());
        wait(Duration::from_secs(u64::from(self.seconds)))?;
        let (after, seconds) = (read(&mut mesh)?, begun.elapsed().as_secs_f64());
        let mut table = Table::new(&["node", "CPU, % of a core", "memory, MiB"]);
        let mut found = Vec::new();
        for (at, node) in mesh.nodes.iter().enumerate() {
            let cpu = after[at].since(&before[at]) / seconds * 100.0;
            let memory = resident_bytes(node.pid);
            let shown = memory
                .map_or_else(|| "-".to_owned(), |bytes| plain(bytes as f64 / f64::from(1 << 20)));
            table.row(vec![node.name.clone(), plain(cpu), shown]);
            found.push(json!({ "node": node.name, "cpu_percent": cpu, "resident_bytes": memory }));
        }
        report.heading("Each node");
        report.say(&format!(
            "Watched for {seconds:.0} s, {} s after everything was ready. The goal for memory is at most 64 MiB with 10,000 blobs; \
             this mesh is empty.",
            SETTLE.as_secs()
        ));
        report.table(&table);
        report.record("nodes", found.into());
        report.write(out)
    }
}

/// Sleeps, unless the run is asked to end.
fn wait(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        stop::check()?;
        std::thread::sleep(Duration::from_millis(100).min(time));
    }
    Ok(())
}
