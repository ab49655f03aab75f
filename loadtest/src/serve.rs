//! `loadtest serve`: every operation at every server, alternating round by round, and the ratios.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::figures::{Quantiles, Spread};
use crate::goals::{self, Against, Figure, Judged};
use crate::load::Round;
use crate::operations::{self, Held, Operation};
use crate::peers::{self, Named, Peer, Role};
use crate::report::{Report, Table};
use crate::{stop, tools};

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// The atoll binary; without it the one beside loadtest, and without that only the peers are
    /// measured
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// The Distribution binary; without it target/clients/registry, the path, a build by Go, or
    /// Debian's docker-registry
    #[arg(long, value_name = "PATH")]
    registry: Option<PathBuf>,
    /// One more registry: a binary that reads Distribution's configuration (or zot's, if it is
    /// called zot), or a base URL
    #[arg(long = "peer", value_name = "NAME=PATH|URL")]
    peers: Vec<Named>,
    /// Rounds of every operation at every server
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Only these operations
    #[arg(long, value_delimiter = ',', value_name = "OPERATION,...")]
    only: Vec<Operation>,
}

impl Serve {
    /// Measures and writes `serve.json` and `serve.md`.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        let mut report = Report::new("serve", "Serving, side by side");
        let held = Held::random();
        let peers = self.peers(&held)?;
        for peer in &peers {
            report.server(&peer.name, &peer.version);
        }
        let operations = if self.only.is_empty() { Operation::all() } else { &self.only[..] };
        let mut found = Vec::new();
        for operation in operations {
            let measured = self.measure(*operation, &peers, &held)?;
            let judged = judge(*operation, &measured);
            write(&mut report, *operation, self.rounds, &measured, &judged);
            found.push(record(*operation, &measured, &judged));
        }
        report.record("rounds", self.rounds.into());
        report.record("operations", found.into());
        report.write(out)
    }

    fn peers(&self, held: &Held) -> Result<Vec<Peer>> {
        let mut registries = Vec::new();
        match tools::atoll(self.atoll.as_deref()) {
            Ok(atoll) => registries.push(peers::atoll(&atoll)?),
            Err(error) if self.atoll.is_some() => return Err(error),
            Err(error) => eprintln!("loadtest: {error:#}; measuring the peers only"),
        }
        registries.push(peers::distribution(&peers::find_distribution(self.registry.as_deref())?)?);
        for named in &self.peers {
            registries.push(peers::other(named)?);
        }
        for registry in &registries {
            held.push(registry)?;
        }
        let files = held.serve_as_files()?;
        if files.is_none() {
            eprintln!(
                "loadtest: nginx is not installed (apt-get install nginx-light); measuring without it"
            );
        }
        Ok(registries.into_iter().chain(files).collect())
    }

    /// Rounds of one operation. The order of the servers turns with the rounds, so that none always
    /// follows the same other.
    fn measure<'a>(
        &self,
        operation: Operation,
        peers: &'a [Peer],
        held: &Held,
    ) -> Result<Vec<Measured<'a>>> {
        let mut all: Vec<_> =
            peers.iter().filter(|peer| operation.fits(peer)).map(Measured::new).collect();
        for one in &all {
            operations::prepare(operation, one.peer, held)?;
        }
        for round in 0..usize::from(self.rounds) {
            for turn in 0..all.len() {
                stop::check()?;
                let count = all.len();
                let one = &mut all[(round + turn) % count];
                one.rounds.push(operations::round(operation, round, one.peer, held)?);
            }
            eprintln!("loadtest: {} round {} of {}", operation.name(), round + 1, self.rounds);
        }
        Ok(all)
    }
}

/// All rounds of one operation at one server.
#[derive(Debug)]
struct Measured<'a> {
    peer: &'a Peer,
    rounds: Vec<Round>,
}

/// The same over all rounds.
#[derive(Debug, Serialize)]
struct Summary {
    requests_per_second: Option<Spread>,
    mb_per_second: Option<Spread>,
    cpu_us_per_request: Option<Spread>,
    cpu_s_per_gb: Option<Spread>,
    first_byte_p50_ms: Option<Spread>,
    first_byte_p99_ms: Option<Spread>,
    latency_p50_ms: Option<Spread>,
    latency_p99_ms: Option<Spread>,
    client_cpu_us_per_request: Option<Spread>,
}

impl<'a> Measured<'a> {
    fn new(peer: &'a Peer) -> Self {
        Measured { peer, rounds: Vec::new() }
    }

    fn spread(&self, of: impl Fn(&Round) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(of))
    }

    fn median(&self, figure: Figure) -> Option<f64> {
        let spread = self.spread(match figure {
            Figure::CpuUsPerRequest => Round::cpu_us_per_request,
            Figure::CpuSPerGb => Round::cpu_s_per_gb,
            Figure::MbPerSecond => Round::mb_per_second,
            Figure::RequestsPerSecond => Round::requests_per_second,
            Figure::PullP99Ms => return None, // `door` has it
        });
        Some(spread?.median)
    }

    fn summary(&self) -> Summary {
        let part = |of: fn(&Round) -> Option<Quantiles>, which: fn(Quantiles) -> f64| {
            self.spread(|round| of(round).map(which))
        };
        Summary {
            requests_per_second: self.spread(Round::requests_per_second),
            mb_per_second: self.spread(Round::mb_per_second),
            cpu_us_per_request: self.spread(Round::cpu_us_per_request),
            cpu_s_per_gb: self.spread(Round::cpu_s_per_gb),
            first_byte_p50_ms: part(Round::first_byte_ms, |told| told.p50),
            first_byte_p99_ms: part(Round::first_byte_ms, |told| told.p99),
            latency_p50_ms: part(Round::latency_ms, |told| told.p50),
            latency_p99_ms: part(Round::latency_ms, |told| told.p99),
            client_cpu_us_per_request: self.spread(Round::client_us_per_request),
        }
    }
}

/// Atoll beside every peer, and beside the best registry where there is a choice.
fn judge(operation: Operation, measured: &[Measured<'_>]) -> Vec<Judged> {
    let Some(ours) = measured.iter().find(|one| one.peer.role == Role::Atoll) else {
        return Vec::new();
    };
    let mut judged = Vec::new();
    for &figure in goals::figures(operation) {
        let Some(own) = ours.median(figure) else { continue };
        let others = || measured.iter().filter(|one| one.peer.role != Role::Atoll);
        for other in others() {
            let Some(theirs) = other.median(figure) else { continue };
            let goal = Against::role(other.peer.role)
                .and_then(|against| goals::goal(operation, figure, against));
            judged.push(Judged::of(figure, other.peer.name.clone(), own, theirs, goal));
        }
        let registries = others().filter(|one| one.peer.role != Role::Files);
        let known = registries.filter_map(|one| Some((one.peer, one.median(figure)?)));
        let best =
            known.reduce(|best, one| if (one.1 < best.1) == figure.is_cost() { one } else { best });
        let choice = others().any(|one| one.peer.role == Role::Registry);
        if let Some((peer, theirs)) = best.filter(|_| choice) {
            let goal = goals::goal(operation, figure, Against::BestRegistry);
            judged.push(Judged::of(
                figure,
                format!("best registry ({})", peer.name),
                own,
                theirs,
                goal,
            ));
        }
    }
    judged
}

fn write(
    report: &mut Report,
    operation: Operation,
    rounds: u16,
    measured: &[Measured<'_>],
    judged: &[Judged],
) {
    let plan = operation.plan();
    report.heading(&operation.title());
    report.say(&format!(
        "`{}`: {} connections, {} requests a round, {rounds} rounds; median (least - greatest) of the rounds.",
        operation.name(),
        plan.connections,
        plan.requests
    ));
    let mut columns = vec!["server"];
    columns.extend(if operation.is_bulk() {
        ["MB/s", "CPU-s/GB"]
    } else {
        ["requests/s", "client CPU us/request"]
    });
    columns.extend(["CPU us/request", "latency p50 ms", "p99 ms"]);
    if operation.has_first_byte() {
        columns.extend(["first byte p50 ms", "p99 ms"]);
    }
    let mut table = Table::new(&columns);
    let show =
        |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), |spread| spread.to_string());
    for one in measured {
        let all = one.summary();
        let mut cells = vec![one.peer.name.clone()];
        cells.extend(
            if operation.is_bulk() {
                [all.mb_per_second, all.cpu_s_per_gb]
            } else {
                [all.requests_per_second, all.client_cpu_us_per_request]
            }
            .map(show),
        );
        cells.extend([all.cpu_us_per_request, all.latency_p50_ms, all.latency_p99_ms].map(show));
        if operation.has_first_byte() {
            cells.extend([all.first_byte_p50_ms, all.first_byte_p99_ms].map(show));
        }
        table.row(cells);
    }
    report.table(&table);
    if !judged.is_empty() {
        let mut table =
            Table::new(&["figure", "atoll against", "ratio", "floor", "goal", "verdict"]);
        judged.iter().for_each(|one| table.row(one.row()));
        report.table(&table);
    }
}

fn record(operation: Operation, measured: &[Measured<'_>], judged: &[Judged]) -> Value {
    let servers: serde_json::Map<_, _> = measured
        .iter()
        .map(|one| {
            (one.peer.name.clone(), json!({ "summary": one.summary(), "rounds": one.rounds }))
        })
        .collect();
    json!({ "operation": operation, "plan": operation.plan(), "servers": servers, "against": judged })
}
