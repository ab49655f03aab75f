//! Harbor's API at a node that is not the project's primary: reads that it answers itself, and
//! writes that it passes on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::node::PROJECT;
use super::rate::{Loop, Rate};
use crate::content::{Blob, manifest};
use crate::figures::{Quantiles, Spread, plain};
use crate::mesh::Mesh;
use crate::registry;
use crate::report::{Report, Table};
use crate::wire::{Client, Request, Sink};

const CONNECTIONS: usize = 8;
const READS: usize = 6000;
const WRITES: usize = 600;
/// How often a write is tried again, and after how long.
const ATTEMPTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Reads a project and makes tags at another node than the primary, and, to compare, there.
pub(crate) fn measure(report: &mut Report, mesh: &Mesh, rounds: u16) -> Result<Value> {
    let repository = format!("{PROJECT}/api");
    let primary = mesh.primary(PROJECT)?;
    let other = (primary + 1) % mesh.nodes.len();
    let admin = &mut mesh.target(primary).client();
    let (config, layer) = (Blob::config(), Blob::random(1024));
    registry::upload_blob(admin, &repository, &config)?;
    registry::upload_blob(admin, &repository, &layer)?;
    let image = manifest(&config, &[(layer.digest, layer.bytes.len())]);
    registry::put_manifest(admin, &repository, "1", &image)?;

    let project = format!("/api/v2.0/projects/{PROJECT}");
    let tags = format!("{project}/repositories/api/artifacts/{}/tags", image.digest);
    let (made, again, pids) = (AtomicUsize::new(0), AtomicUsize::new(0), mesh.pids());
    let round = |at: usize, write: bool| -> Result<Rate> {
        let requests = if write { WRITES } else { READS };
        let round = Loop { nodes: &pids, before: &[], connections: CONNECTIONS, requests };
        round.run(
            || {
                let mut client = mesh.target(at).client();
                read(&mut client, &project)?; // the password is checked once
                Ok(client)
            },
            |client, _| match write {
                false => read(client, &project),
                true => tag(client, &tags, made.fetch_add(1, Ordering::Relaxed), &again),
            },
        )
    };
    let mut found = [
        ("GET of a project, at another node than the primary", other, false, Vec::new()),
        ("a tag is made, at another node (forwarded)", other, true, Vec::new()),
        ("a tag is made, at the primary", primary, true, Vec::new()),
    ];
    for number in 0..rounds {
        for (_, at, write, rates) in &mut found {
            rates.push(round(*at, *write)?);
        }
        eprintln!("loadtest: API round {} of {rounds}", number + 1);
    }
    report.heading("Harbor's API");
    report.say(&format!(
        "Three replicas in three regions of this machine, durability 1; {CONNECTIONS} connections, {READS} reads or \
         {WRITES} writes a round, {rounds} rounds in turn; median (least - greatest). CPU is that of all three \
         nodes. The client shows a password with each request. {} writes were answered 503 and tried again.",
        again.load(Ordering::Relaxed),
    ));
    let mut table = Table::new(&["request", "a second", "p50 / p99 ms", "CPU of all nodes, us"]);
    for (what, _, _, rates) in &found {
        let spread = |of: fn(&Rate) -> f64| {
            let spread = Spread::of(rates.iter().map(|rate| Some(of(rate))));
            spread.map_or_else(|| "-".to_owned(), |spread| spread.to_string())
        };
        let latency = |which: fn(Quantiles) -> f64| {
            Spread::of(rates.iter().map(|rate| rate.latency_ms.map(which)))
                .map_or(0.0, |s| s.median)
        };
        table.row(vec![
            (*what).to_owned(),
            spread(|rate| rate.per_second),
            format!("{} / {}", plain(latency(|told| told.p50)), plain(latency(|told| told.p99))),
            spread(|rate| rate.cpu_us),
        ]);
    }
    report.table(&table);
    Ok(found.iter().map(|(what, _, _, rates)| json!({ "what": what, "rounds": rates })).collect())
}

fn read(client: &mut Client, path: &str) -> Result<()> {
    let answer = client.get(path)?;
    ensure!(answer.status == 200, "GET {path}: status {}", answer.status);
    Ok(())
}

/// Makes a tag. A node that cannot write at the moment says so with 503: like any client, this one
/// tries again, and the time counts.
fn tag(client: &mut Client, path: &str, number: usize, again: &AtomicUsize) -> Result<()> {
    let body = json!({ "name": format!("t{number}") }).to_string().into_bytes();
    let (body, headers): ([&[u8]; 1], _) = ([&body], [("Content-Type", "application/json")]);
    let request = Request::new("POST", path).headers(&headers).body(&body);
    for attempt in 0.. {
        let mut said = Vec::new();
        let answer = client.send(&request, &mut Sink::Keep(&mut said))?;
        // it may have been written all the same
        if answer.status == 201 || (attempt > 0 && answer.status == 409) {
            break;
        }
        let said = String::from_utf8_lossy(&said);
        let patient = answer.status == 503 && attempt < ATTEMPTS;
        ensure!(patient, "POST {path}: status {}: {said}", answer.status);
        again.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
