//! Uploads through a load balancer without sticky sessions, beside the same straight to one node.

use anyhow::Result;
use serde_json::{Value, json};

use super::balancer::Balancer;
use super::node::PROJECT;
use super::rate::{Loop, Rate};
use crate::content::{Bodies, MIB};
use crate::figures::{Spread, plain, ratio};
use crate::mesh::Mesh;
use crate::registry::{self, blob_path};
use crate::report::{Report, Table};
use crate::wire::Target;

const CONNECTIONS: usize = 4;
const UPLOADS: usize = 12;
const EACH: usize = 64 * MIB;

/// A column of the report, and what it shows of a round.
type Figure<'a> = (&'a str, &'a dyn Fn(&Rate) -> f64);

/// A way to the mesh, and the rounds of uploads on it.
struct Path {
    name: &'static str,
    target: Target,
    before: Vec<u32>,
    rates: Vec<Rate>,
}

/// Uploads of 64 MiB: a POST that begins one, and a PUT, which the balancer sends to the next node.
pub(crate) fn measure(report: &mut Report, mesh: &Mesh, rounds: u16) -> Result<Value> {
    let all: Vec<usize> = (0..mesh.nodes.len()).collect();
    let (one, each) = (Balancer::before(mesh, &[0])?, Balancer::before(mesh, &all)?);
    let path = |name, target: &Target, before| Path {
        name,
        target: target.clone(),
        before,
        rates: Vec::new(),
    };
    let mut paths = [
        path("straight to one node", &mesh.target(0), Vec::new()),
        path("nginx before this one node", &one.target, one.pids()),
        path("nginx before three nodes, each request to the next", &each.target, each.pids()),
    ];
    let pids = mesh.pids();
    for round in 0..usize::from(rounds) {
        for turn in 0..paths.len() {
            let at = (round + turn) % paths.len();
            let path = &mut paths[at];
            let rate = upload(mesh, &path.target, &pids, &path.before)?;
            path.rates.push(rate);
        }
        eprintln!("loadtest: balancer round {} of {rounds}", round + 1);
    }
    tell(report, &paths, rounds);
    report.server("nginx", &Balancer::version());
    Ok(paths.iter().map(|path| json!({ "path": path.name, "rounds": path.rates })).collect())
}

fn upload(mesh: &Mesh, target: &Target, nodes: &[u32], before: &[u32]) -> Result<Rate> {
    let repository = format!("{PROJECT}/balanced");
    let bodies = Bodies::random(UPLOADS, EACH);
    rustix::fs::sync(); // the last round's dirty pages are not this one's
    let round = Loop { nodes, before, connections: CONNECTIONS, requests: UPLOADS };
    let rate = round.run(
        || Ok(target.client()),
        |client, number| {
            registry::upload(client, &repository, &bodies.parts(number), &bodies.digest(number))
        },
    )?;
    let last = bodies.digest(UPLOADS - 1);
    for at in 0..mesh.nodes.len() {
        registry::verify(&mut mesh.target(at).client(), &blob_path(&repository, &last), &last)?;
    }
    Ok(rate)
}

fn tell(report: &mut Report, paths: &[Path], rounds: u16) {
    report.heading("Uploads through a balancer");
    report.say(&format!(
        "{UPLOADS} uploads of 64 MiB over {CONNECTIONS} connections, each a POST and a PUT with all bytes; {rounds} \
         rounds in turn; median (least - greatest). Three replicas on this machine, durability 1. nginx passes \
         bodies on as they come. Each last blob is read back at every node."
    ));
    let gb = EACH as f64 / 1e9;
    let of = |path: &Path, what: &dyn Fn(&Rate) -> f64| {
        Spread::of(path.rates.iter().map(|rate| Some(what(rate))))
    };
    let figures: [Figure<'_>; 3] = [
        ("MB/s", &|rate| rate.per_second * EACH as f64 / 1e6),
        ("CPU-s/GB of the nodes", &|rate| rate.cpu_us / 1e6 / gb),
        ("CPU-s/GB of nginx", &|rate| rate.before_us / 1e6 / gb),
    ];
    let mut table = Table::new(&[
        "path",
        figures[0].0,
        "against straight",
        figures[1].0,
        "against straight",
        figures[2].0,
    ]);
    for path in paths {
        let mut cells = vec![path.name.to_owned()];
        for (at, (_, figure)) in figures.iter().enumerate() {
            let own = of(path, *figure);
            cells.push(own.map_or_else(|| "-".to_owned(), |spread| spread.to_string()));
            let straight = of(&paths[0], *figure);
            let times = own.zip(straight).and_then(|(own, other)| ratio(own.median, other.median));
            if at < 2 {
                cells.push(
                    times.map_or_else(|| "-".to_owned(), |times| format!("{}x", plain(times))),
                );
            }
        }
        table.row(cells);
    }
    report.table(&table);
}
