//! Many nodes that want one cold blob at once: what crosses each region's link, and how much longer
//! all take than one.

use std::path::Path;
use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::pull::{Pulled, Way, must_pull, pull};
use super::{Found, Mark, Wan};
use crate::content::Blob;
use crate::figures::{median, plain};
use crate::formed::{Formed, Site};
use crate::network::{PROFILES, Traffic};
use crate::process::Signal;
use crate::report::{Report, Table};

/// The nodes of one region that pull.
const PER_REGION: usize = 4;
/// The regions that pull; region 0 holds the image.
const REGIONS: usize = 3;
const REPOSITORY: &str = "bench/spread";
/// The share of a blob that has come when a node is killed.
const KILLED_AT: f64 = 0.3;

/// Three regions of a replica and three edges each, all pulling from a fourth over R1.
pub(super) fn regions(
    wan: &Wan,
    atoll: &Path,
    report: &mut Report,
    found: &mut Found,
) -> Result<()> {
    let mut sites = vec![Site::replica(0)];
    for region in 1..=REGIONS {
        sites.push(Site::replica(region));
        sites.extend([Site::edge(region); PER_REGION - 1]);
    }
    let mesh = Formed::of(atoll, &sites, false, "")?;
    mesh.create_project("bench", 1)?;
    mesh.network.profile(PROFILES[1]);
    let all: Vec<usize> = (1..sites.len()).collect();
    // what a lone pull costs on the wire: the measure of "once"
    let layer = mesh.push(REPOSITORY, wan.size.0, &all)?;
    let before = mesh.network.traffic();
    must_pull(&mesh, Way::at(1), REPOSITORY, &layer.digest)?;
    let lone = mesh.network.traffic().came_into(1, &before) as f64;
    report
        .heading("Bytes over each region's link: three regions of four nodes, all pulling at once");
    report.say(&format!(
        "A layer of {}, held by one node in a region of its own; R1 between regions. Everything that is IP counts: the headers, acknowledgements, \
         gossip and consensus of all nodes too. A lone pull by one node took {} bytes into its region for each byte of the layer.",
        wan.size,
        plain(lone / wan.size.0 as f64),
    ));
    let mut table = Table::new(&[
        "what",
        "region",
        "wire bytes per byte",
        "against a lone pull",
        "slowest s",
        "longest stall s",
        "failed",
    ]);
    let mut kept = Vec::new();
    for victim in [None, Some(Victim::Edge), Some(Victim::Fetcher)] {
        let layer = mesh.push(REPOSITORY, wan.size.0, &all)?;
        let before = mesh.network.traffic();
        let (pulls, killed) = all_at_once(&mesh, &all, &layer, victim)?;
        let after = mesh.network.traffic();
        for region in 1..=REGIONS {
            let ours =
                pulls.iter().filter(|(at, _)| sites[*at].region == region && Some(*at) != killed);
            let ours: Vec<&Pulled> = ours.map(|(_, pulled)| pulled).collect();
            let hit = killed.is_some_and(|at| sites[at].region == region);
            let wire = after.came_into(region, &before) as f64;
            let failed = ours.iter().filter(|one| one.error.is_some()).count();
            let most =
                |of: fn(&Pulled) -> f64| ours.iter().map(|one| of(one)).fold(0.0, f64::max) / 1e3;
            let what = match victim {
                Some(victim) if hit => victim.name(),
                Some(_) => continue, // a region in which nobody dies is the first case again
                None => "nobody dies",
            };
            let (per_byte, against) = (wire / wan.size.0 as f64, wire / lone);
            let (total, stall) = (most(|one| one.total_ms), most(|one| one.stall_ms));
            table.row(vec![
                what.into(),
                region.to_string(),
                plain(per_byte),
                plain(against),
                plain(total),
                plain(stall),
                failed.to_string(),
            ]);
            found.add(
                &format!("2b: wire bytes per image byte, region {region}, {what}"),
                per_byte,
                "x",
                Some(Mark::AtMost(1.06, 1.06)),
            );
            found.add(
                &format!("2b: against a lone pull, region {region}, {what}"),
                against,
                "x",
                Some(Mark::AtMost(1.02, 1.005)),
            );
            if hit {
                found.add(
                    &format!("2b: pulls that failed at the living, {what}"),
                    failed as f64,
                    "",
                    Some(Mark::AtMost(0.0, 0.0)),
                );
            }
            kept.push(json!({ "what": what, "region": region, "wire_bytes": wire, "pulls": ours }));
        }
        if let Some(at) = killed {
            mesh.start(at)?;
        }
    }
    report.table(&table);
    report.record("regions", Value::Array(kept));
    Ok(())
}

/// The node that is killed while the blob arrives.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// Of a region's nodes one that gets it from another of them.
    Edge,
    /// The one that brings it into the region.
    Fetcher,
}

impl Victim {
    fn name(self) -> &'static str {
        match self {
            Victim::Edge => "a follower dies",
            Victim::Fetcher => "the fetcher dies",
        }
    }
}

/// Each node's pull.
type Pulls = Vec<(usize, Pulled)>;

/// All nodes pull the layer at once; the pulls by node, and who was killed.
fn all_at_once(
    mesh: &Formed,
    all: &[usize],
    layer: &Blob,
    victim: Option<Victim>,
) -> Result<(Pulls, Option<usize>)> {
    let before = mesh.network.traffic();
    let digest = &layer.digest;
    let (targets, network) = (mesh.clients(all), &mesh.network);
    let (pulls, killed) = scope(|threads| -> Result<_> {
        let pulling: Vec<_> = targets
            .iter()
            .map(|(at, target)| {
                (*at, threads.spawn(move || pull(target, REPOSITORY, digest, &mut |_| {})))
            })
            .collect();
        let killed = match victim {
            None => None,
            Some(victim) => {
                let threshold = (layer.bytes.len() as f64 * KILLED_AT) as u64;
                let at = find(victim, || network.traffic(), &before, threshold)?;
                Some(at)
            }
        };
        if let Some(at) = killed {
            mesh.signal(at, Signal::KILL);
        }
        let pulls = pulling
            .into_iter()
            .map(|(at, thread)| (at, thread.join().expect("no panic")))
            .collect();
        Ok((pulls, killed))
    })?;
    if let Some(at) = killed {
        mesh.kill(at)?;
    }
    Ok((pulls, killed))
}

/// Waits until a third of the blob is there, and picks the victim by who received what from outside
/// of its region.
fn find(
    victim: Victim,
    traffic: impl Fn() -> Traffic,
    before: &Traffic,
    threshold: u64,
) -> Result<usize> {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        crate::stop::check()?;
        let now = traffic();
        let from_holder = |at: usize| now.between(0, at, before);
        // a follower is looked for in region 2, the fetcher in region 3, so that region 1 is never
        // short of a voter
        let region = match victim {
            Victim::Edge => 2,
            Victim::Fetcher => 3,
        };
        let members = (1 + (region - 1) * PER_REGION)..(1 + region * PER_REGION);
        let fetcher =
            members.clone().max_by_key(|at| from_holder(*at)).context("a region has nodes")?;
        if from_holder(fetcher) > threshold {
            return match victim {
                Victim::Fetcher => Ok(fetcher),
                Victim::Edge => {
                    members.rev().find(|at| *at != fetcher).context("a region has followers")
                }
            };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("nothing crossed into the region within a minute")
}

/// Sixteen edges of a region, the links of all nodes limited: how long until one holds a layer,
/// until 8 do, until 16 do.
pub(super) fn fanout(
    wan: &Wan,
    atoll: &Path,
    report: &mut Report,
    found: &mut Found,
) -> Result<()> {
    let mut sites = vec![Site::replica(0)];
    sites.extend([Site::edge(1); 16]);
    let mesh = Formed::of(atoll, &sites, false, "")?;
    mesh.create_project("bench", 1)?;
    mesh.network.limit_nodes(Some(wan.link.0 as f64));
    report.heading("All nodes of a region against one");
    report.say(&format!(
        "A layer of {}, held by one replica; sixteen edges in another region, no delay. Each node's link carries {} a second each way. \
         Seconds until the last client has the last byte, of {} rounds; the machine's cores are busy for that share of the time.",
        wan.size, wan.link, wan.rounds,
    ));
    let mut table = Table::new(&["nodes", "seconds", "against one", "layers that the holder sent"]);
    let mut times: Vec<(usize, Vec<f64>, Vec<f64>)> =
        [1, 8, 16].map(|nodes| (nodes, Vec::new(), Vec::new())).into();
    for _ in 0..wan.rounds {
        for (nodes, seconds, sent) in &mut times {
            let all: Vec<usize> = (1..=*nodes).collect();
            let layer = mesh.push(REPOSITORY, wan.size.0, &all)?;
            let before = mesh.network.traffic();
            let begun = Instant::now();
            let (targets, digest) = (mesh.clients(&all), &layer.digest);
            scope(|threads| -> Result<()> {
                let spawn = |(_, target)| {
                    threads.spawn(move || pull(target, REPOSITORY, digest, &mut |_| {}))
                };
                let pulling: Vec<_> =
                    targets.iter().map(|(at, target)| (at, target)).map(spawn).collect();
                for thread in pulling {
                    if let Some(error) = thread.join().expect("no panic").error {
                        bail!("a pull of {nodes}: {error}");
                    }
                }
                Ok(())
            })?;
            seconds.push(begun.elapsed().as_secs_f64());
            let after = mesh.network.traffic();
            let left: u64 = (1..sites.len()).map(|to| after.between(0, to, &before)).sum();
            sent.push(left as f64 / wan.size.0 as f64);
        }
    }
    let one = median(&times[0].1).context("no round")?;
    for (nodes, seconds, sent) in &times {
        let took = median(seconds).context("no round")?;
        table.row(vec![
            nodes.to_string(),
            plain(took),
            plain(took / one),
            plain(median(sent).unwrap_or(f64::NAN)),
        ]);
        let mark = match nodes {
            8 => Mark::AtMost(1.4, 1.2),
            16 => Mark::AtMost(1.7, 1.4),
            _ => continue,
        };
        found.add(
            &format!("3: T({nodes}) / T(1), {} links", wan.link),
            took / one,
            "x",
            Some(mark),
        );
    }
    report.table(&table);
    report.record(
        "fanout",
        json!(
            times
                .iter()
                .map(|(n, s, sent)| json!({ "nodes": n, "seconds": s, "sent": sent }))
                .collect::<Vec<_>>()
        ),
    );
    Ok(())
}
