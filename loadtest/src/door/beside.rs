//! Quiet pulls beside each attack, in turn with pulls beside none.

use std::net::ToSocketAddrs as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::attacker::{Sent, attack};
use super::node::{Node, PROJECT};
use super::pullers::{Pulled, Quiet};
use super::storms::{Attack, Mark};
use crate::content::{Blob, MIB, manifest};
use crate::figures::{Quantiles, Spread, plain, ratio};
use crate::goals::{Figure, Judged, Verdict, beside_an_attack};
use crate::registry::{self, blob_path, manifest_path};
use crate::report::{Report, Table};
use crate::stop;

/// The layer of the image that is pulled.
const LAYER: usize = MIB / 4;
/// The blob that attackers ask for.
const LONG: usize = 64 * MIB;
/// How long an attack goes on before pulls are timed, and how long a node has to get over it.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(1);

/// How attacks are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Rounds of each kind.
    pub(crate) rounds: u16,
    /// How long a round is.
    pub(crate) time: Duration,
    /// Clients that pull.
    pub(crate) clients: usize,
    /// The share of one core that an attacker may use.
    pub(crate) share: f64,
}

/// All rounds of one attack.
struct Found {
    attack: Attack,
    quiet: Vec<Pulled>,
    beside: Vec<(Pulled, Sent)>,
}

/// Measures these attacks at a node, from other addresses and from the pullers' own.
pub(crate) fn measure(
    report: &mut Report,
    node: &Node,
    attacks: &[Attack],
    terms: Terms,
) -> Result<Value> {
    let tls = node.tls.is_some();
    let (quiet, mark) = prepare(node, terms)?;
    quiet.round(|| {})?; // warms what is pulled
    let scheme = if tls { "HTTPS" } else { "HTTP" };
    let mut told = Vec::new();
    for shared in [false, true] {
        let fits = |attack: &&Attack| attack.fits(tls) && (!shared || attack.fills_an_address());
        let mut found = Vec::new();
        for attack in attacks.iter().filter(fits) {
            found.push(rounds(*attack, shared, &quiet, &mark, terms)?);
        }
        if found.is_empty() {
            continue;
        }
        let whose = if shared { "the pullers' own address" } else { "other addresses" };
        report.heading(&format!("Pulls beside attacks from {whose}, over {scheme}"));
        report.say(&format!(
            "{} clients pull an image with a layer of 256 KiB again and again, with rests of 20 ms on \
             average; every second one opens a connection for each pull. {} rounds of {} s beside the \
             attack, in turn with as many beside none; medians of the rounds. An attacker uses at most \
             {} of one core.",
            terms.clients,
            terms.rounds,
            terms.time.as_secs(),
            plain(terms.share),
        ));
        tell(report, &found);
        told.extend(found.iter().map(|one| one.record(scheme, shared)));
    }
    Ok(told.into())
}

/// Pushes what is pulled and what attackers ask for.
fn prepare(node: &Node, terms: Terms) -> Result<(Quiet, Mark)> {
    let repository = format!("{PROJECT}/app");
    let (config, layer, long) = (Blob::config(), Blob::random(LAYER), Blob::random(LONG));
    let admin = &mut node.admin.client();
    for blob in [&config, &layer, &long] {
        registry::upload_blob(admin, &repository, blob)?;
    }
    let image = manifest(&config, &[(layer.digest, LAYER), (long.digest, LONG)]);
    registry::put_manifest(admin, &repository, "1", &image)?;
    let (tag, blob) = (manifest_path(&repository, "1"), blob_path(&repository, &layer.digest));
    let reader = &mut node.anonymous.client();
    registry::verify(reader, &tag, &image.digest)?;
    registry::verify(reader, &blob, &layer.digest)?;
    let to = node.anonymous.host.to_socket_addrs()?.next().context("a node has an address")?;
    let mark = Mark {
        to,
        tls: node.tls.is_some(),
        manifest: tag.clone(),
        blob: blob_path(&repository, &long.digest),
    };
    let quiet = Quiet {
        target: node.anonymous.clone(),
        pid: node.pid,
        manifest: tag,
        layer: (blob, LAYER as u64),
        clients: terms.clients,
        time: terms.time,
    };
    Ok((quiet, mark))
}

fn rounds(attack: Attack, shared: bool, quiet: &Quiet, mark: &Mark, terms: Terms) -> Result<Found> {
    let mut found = Found { attack, quiet: Vec::new(), beside: Vec::new() };
    for round in 0..terms.rounds {
        stop::check()?;
        found.quiet.push(quiet.round(|| {})?);
        found.beside.push(one(attack, shared, quiet, mark, terms)?);
        std::thread::sleep(AFTER);
        let name = attack.name();
        eprintln!("loadtest: {name} round {} of {}", round + 1, terms.rounds);
    }
    Ok(found)
}

/// A round of pulls beside an attack.
fn one(
    kind: Attack,
    shared: bool,
    quiet: &Quiet,
    mark: &Mark,
    terms: Terms,
) -> Result<(Pulled, Sent)> {
    let (begin, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let mut storm = kind.begin(mark, shared);
            while !begin.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            attack(&mut *storm, terms.share, &over)
        });
        let pulled = quiet.round(|| {
            begin.store(true, Ordering::Relaxed);
            std::thread::sleep(BEFORE);
        });
        over.store(true, Ordering::Relaxed);
        let sent = attacker.join().expect("no panic");
        Ok((pulled?, sent))
    })
}

impl Found {
    fn spread(&self, beside: bool, of: impl Fn(&Pulled) -> Option<f64>) -> Option<Spread> {
        match beside {
            false => Spread::of(self.quiet.iter().map(of)),
            true => Spread::of(self.beside.iter().map(|(pulled, _)| of(pulled))),
        }
    }

    /// The median beside the attack and beside none, of what a round has in milliseconds.
    fn both(&self, of: fn(&Pulled) -> Option<Quantiles>, which: fn(Quantiles) -> f64) -> Both {
        let [beside, quiet] = [true, false]
            .map(|beside| self.spread(beside, |one| of(one).map(which)).map(|one| one.median));
        Both { beside, quiet }
    }

    fn sent(&self, of: fn(&Sent) -> f64) -> f64 {
        Spread::of(self.beside.iter().map(|(_, sent)| Some(of(sent)))).map_or(0.0, |s| s.median)
    }

    fn record(&self, scheme: &str, shared: bool) -> Value {
        let beside: Vec<_> = self.beside.iter().map(|(pulled, _)| pulled).collect();
        let sent: Vec<_> = self.beside.iter().map(|(_, sent)| sent).collect();
        json!({ "attack": self.attack, "over": scheme, "from_the_pullers_address": shared,
            "quiet": self.quiet, "beside": beside, "sent": sent, "p99": self.judged() })
    }

    fn judged(&self) -> Option<Judged> {
        let p99 = self.both(|one| one.latency_ms, |told| told.p99);
        let (ours, theirs) = (p99.beside?, p99.quiet?);
        let goal = Some(beside_an_attack());
        Some(Judged::of(Figure::PullP99Ms, "no attack".to_owned(), ours, theirs, goal))
    }
}

/// A figure beside an attack, and beside none.
struct Both {
    beside: Option<f64>,
    quiet: Option<f64>,
}

impl Both {
    fn shown(&self) -> String {
        let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), plain);
        let times = self.beside.zip(self.quiet).and_then(|(ours, theirs)| ratio(ours, theirs));
        let times = times.map_or_else(|| "-".to_owned(), |times| format!("{}x", plain(times)));
        format!("{} / {} = {times}", show(self.beside), show(self.quiet))
    }
}

fn tell(report: &mut Report, found: &[Found]) {
    let mut pulls = Table::new(&[
        "attack",
        "p50 ms, beside / quiet",
        "p99 ms, beside / quiet",
        "p99 of fresh connections",
        "failed: kept, fresh, of",
        "goal",
        "verdict",
    ]);
    let mut costs = Table::new(&[
        "attack",
        "CPU of the node, % of a core, beside / quiet",
        "memory MiB, beside / quiet",
        "sent a second",
        "connections a second",
        "open at the end",
        "MB/s",
        "CPU of the attacker, %",
    ]);
    for one in found {
        let all = || one.beside.iter().map(|(pulled, _)| pulled);
        let failed: [usize; 2] = [
            all().map(|pulled| pulled.failed_kept).sum(),
            all().map(|pulled| pulled.failed_fresh).sum(),
        ];
        let tried = all().map(|pulled| pulled.pulls).sum::<usize>() + failed[0] + failed[1];
        let judged = one.judged();
        let name = one.attack.name();
        let verdict = |judged: &Judged| judged.verdict.map(|verdict| verdict.to_string());
        pulls.row(vec![
            format!("{name}: {}", one.attack.title()),
            one.both(|pulled| pulled.latency_ms, |told| told.p50).shown(),
            one.both(|pulled| pulled.latency_ms, |told| told.p99).shown(),
            one.both(|pulled| pulled.fresh_ms, |told| told.p99).shown(),
            format!("{}, {}, {tried}", failed[0], failed[1]),
            format!("{}x", plain(beside_an_attack().goal)),
            // with no pull at all there is no p99, and nothing is met
            judged.as_ref().and_then(verdict).unwrap_or_else(|| Verdict::Missed.to_string()),
        ]);
        let shown = |of: fn(&Pulled) -> f64| {
            let [beside, quiet] = [true, false].map(|beside| {
                one.spread(beside, |pulled| Some(of(pulled))).map(|spread| spread.median)
            });
            Both { beside, quiet }.shown()
        };
        costs.row(vec![
            name,
            shown(|pulled| pulled.cpu_percent),
            shown(|pulled| pulled.resident_bytes as f64 / MIB as f64),
            format!("{} {}", plain(one.sent(|s| s.things as f64 / s.seconds)), one.attack.thing()),
            plain(one.sent(|sent| sent.connections as f64 / sent.seconds)),
            plain(one.sent(|sent| sent.open as f64)),
            plain(one.sent(|sent| sent.bytes as f64 / 1e6 / sent.seconds)),
            plain(one.sent(|sent| sent.cpu_seconds / sent.seconds * 100.0)),
        ]);
    }
    report.table(&pulls);
    report.table(&costs);
}
