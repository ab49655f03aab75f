//! `loadtest proxy`: what many cold clients of a pull-through cache cost its upstream, beside
//! Distribution as the same.
//!
//! The upstream is a server of our own that counts, in a network of its own behind R1. Half of the
//! clients pull the whole layer, every fourth the second half of it, every fourth the last tenth.

mod peers;
mod upstream;

use std::path::{Path, PathBuf};
use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::content::Blob;
use crate::figures::{median, plain};
use crate::formed::{Formed, Site};
use crate::network::{PROFILES, address};
use crate::process::Signal;
use crate::registry::{ACCEPT, blob_path, manifest_path};
use crate::report::{Report, Table};
use crate::size::Size;
use crate::tools;
use crate::wan::{Found, Mark};
use crate::wire::{Request, Sink, Target};

use peers::Peer;
use upstream::Upstream;

/// How many clients come at once.
const CLIENTS: [usize; 4] = [1, 8, 20, 32];
/// The nodes of the larger mesh.
const NODES: usize = 4;
/// The share of the layer that has come when the fetching node is killed.
const KILLED_AT: f64 = 0.3;

/// What to measure. Needs root, `iproute2` and `util-linux`.
#[derive(Args, Debug)]
pub(crate) struct Proxy {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// The binary of Distribution; without it target/clients/registry, one on the path, one that Go
    /// builds, or Debian's
    #[arg(long, value_name = "PATH")]
    registry: Option<PathBuf>,
    /// The size of the layer
    #[arg(long, default_value = "16MB")]
    size: Size,
    /// Rounds, each with fresh images
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

/// One image pulled by all clients of one server at once.
#[derive(Clone, Debug, Serialize)]
struct Case {
    server: String,
    clients: usize,
    gets: u64,
    upstream_bytes: u64,
    image_bytes: u64,
    delivered: u64,
    seconds: f64,
    first_ms: Vec<f64>,
    failed: Vec<String>,
}

impl Proxy {
    /// Measures and writes `proxy.json` and `proxy.md`.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        let mut report = Report::new("proxy", "Pull-through for many cold clients");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        report.server(
            "atoll",
            &format!("{}; access checks, log and metrics on", tools::version(&atoll)),
        );
        let mut cases = Vec::new();
        self.one_node(&atoll, &mut report, &mut cases)?;
        let killed = self.four_nodes(&atoll, &mut cases)?;
        self.write(&mut report, &cases, &killed)?;
        report.write(out)
    }

    /// One node of Atoll, and Distribution, each in a namespace of its own; the upstream in the
    /// last.
    fn one_node(&self, atoll: &Path, report: &mut Report, cases: &mut Vec<Case>) -> Result<()> {
        let binaries = peers::binaries(self.registry.as_deref())?;
        let last = 1 + binaries.len();
        let bare: Vec<usize> = (1..=last).collect();
        let mesh = Formed::with_guests(atoll, &[Site::replica(0)], &bare, false, SETTINGS)?;
        let upstream = Upstream::start(&mesh.network.namespace(last), &address(last))?;
        stand_for(&mesh, &upstream)?;
        let mut servers = vec![("atoll, one node".to_owned(), "hub/app", vec![mesh.target(0, 0)])];
        let mut running = Vec::new();
        for (number, binary) in binaries.iter().enumerate() {
            let at = number + 1;
            let peer =
                Peer::start(binary, &mesh.network.namespace(at), &address(at), upstream.address)?;
            report.server(&peer.name, &peer.version);
            servers.push((peer.name.clone(), "app", vec![peer.target.clone()]));
            running.push(peer);
        }
        mesh.network.profile(PROFILES[1]);
        for round in 0..self.rounds {
            for clients in CLIENTS {
                for turn in 0..servers.len() {
                    let (name, repository, targets) =
                        &servers[(turn + usize::from(round)) % servers.len()];
                    let case =
                        self.case(name, repository, targets, clients, &upstream, &mut |_| Ok(()))?;
                    eprintln!(
                        "loadtest: {name}, {clients} clients: {} GETs in {:.1} s",
                        case.gets, case.seconds
                    );
                    cases.push(case);
                }
            }
        }
        Ok(())
    }

    /// Four nodes of Atoll in two regions; at the end the node that fetches is killed.
    fn four_nodes(&self, atoll: &Path, cases: &mut Vec<Case>) -> Result<Case> {
        let sites = [0, 0, 1, 2].map(Site::replica);
        let mesh = Formed::with_guests(atoll, &sites, &[3], false, SETTINGS)?;
        let upstream = Upstream::start(&mesh.network.namespace(NODES), &address(NODES))?;
        stand_for(&mesh, &upstream)?;
        let targets: Vec<_> = (0..NODES).map(|at| mesh.target(at, at)).collect();
        mesh.network.profile(PROFILES[1]);
        for _ in 0..self.rounds {
            for clients in CLIENTS {
                let case = self.case(
                    "atoll, four nodes",
                    "hub/app",
                    &targets,
                    clients,
                    &upstream,
                    &mut |_| Ok(()),
                )?;
                eprintln!(
                    "loadtest: four nodes, {clients} clients: {} GETs in {:.1} s",
                    case.gets, case.seconds
                );
                cases.push(case);
            }
        }
        let before = mesh.network.traffic();
        let threshold = (self.size.0 as f64 * KILLED_AT) as u64;
        let mut killed = None;
        let case = self.case(
            "atoll, four nodes, the fetching one dies",
            "hub/app",
            &targets,
            8,
            &upstream,
            &mut |ended| {
                while killed.is_none() && !ended() {
                    let now = mesh.network.traffic();
                    let came = |at: usize| now.between(NODES, at, &before);
                    let most = (0..NODES).max_by_key(|at| came(*at)).unwrap_or(0);
                    if came(most) > threshold {
                        mesh.signal(most, Signal::KILL);
                        killed = Some(most);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            },
        )?;
        let Some(killed) = killed else {
            bail!("the pull was over before anybody could be killed")
        };
        mesh.kill(killed)?;
        let host = address(killed);
        let failed = case.failed.into_iter().filter(|error| !error.contains(&host)).collect();
        Ok(Case { failed, ..case })
    }

    fn case(
        &self,
        name: &str,
        repository: &str,
        targets: &[Target],
        clients: usize,
        upstream: &Upstream,
        meanwhile: &mut dyn FnMut(&dyn Fn() -> bool) -> Result<()>,
    ) -> Result<Case> {
        crate::stop::check()?;
        let layer = upstream.shelve(self.size.0);
        let tag = tag_of(&layer);
        let begun = Instant::now();
        let pulled = scope(|threads| -> Result<Vec<_>> {
            let pulling: Vec<_> = (0..clients)
                .map(|number| {
                    let (target, layer, tag) = (&targets[number % targets.len()], &layer, &tag);
                    threads.spawn(move || {
                        (target.host.clone(), client(target, repository, tag, layer, number))
                    })
                })
                .collect();
            meanwhile(&|| pulling.iter().all(std::thread::ScopedJoinHandle::is_finished))?;
            Ok(pulling.into_iter().map(|thread| thread.join().expect("no panic")).collect())
        })?;
        let seconds = begun.elapsed().as_secs_f64();
        let asked = upstream.asked(&layer.digest);
        let well = || pulled.iter().filter_map(|(_, result)| result.as_ref().ok());
        Ok(Case {
            server: name.to_owned(),
            clients,
            gets: asked.gets,
            upstream_bytes: asked.bytes,
            image_bytes: layer.bytes.len() as u64,
            delivered: well().map(|(_, bytes)| bytes).sum(),
            seconds,
            first_ms: well().filter_map(|(first, _)| *first).collect(),
            failed: pulled
                .iter()
                .filter_map(|(host, result)| Some(format!("{host}: {:#}", result.as_ref().err()?)))
                .collect(),
        })
    }

    fn write(&self, report: &mut Report, cases: &[Case], killed: &Case) -> Result<()> {
        report.heading("Many cold clients of one image");
        report.say(&format!(
            "An image with a layer of {}, behind R1 (30 ms, 100 Mbit/s); all clients come at once, each asks for the manifest by tag and then for the \
             layer over a fresh connection, half of them for all of it, a quarter from the middle on, a quarter for the last tenth. Upstream: \
             GETs of the layer, and bytes of it per byte of the layer. The first byte is that of the layer, the median of the clients that want all of it.",
            self.size
        ));
        let mut table = Table::new(&[
            "server",
            "clients",
            "upstream GETs",
            "upstream bytes",
            "first byte ms",
            "all done s",
            "MB/s to clients",
            "failed",
        ]);
        let mut found = Found::default();
        let names: Vec<&str> = cases.iter().fold(Vec::new(), |mut names, case| {
            if !names.contains(&case.server.as_str()) {
                names.push(&case.server);
            }
            names
        });
        for clients in CLIENTS {
            let of = |name: &str, figure: fn(&Case) -> f64| {
                let ours: Vec<f64> = cases
                    .iter()
                    .filter(|case| case.clients == clients && case.server == name)
                    .map(figure)
                    .collect();
                median(&ours).unwrap_or(f64::NAN)
            };
            for name in &names {
                let shown = FIGURES.map(|figure| plain(of(name, figure)));
                table.row([vec![(*name).to_owned(), clients.to_string()], shown.to_vec()].concat());
                if name.starts_with("atoll") {
                    found.add(
                        &format!("upstream GETs for {clients} clients, {name}"),
                        of(name, Case::gets),
                        "",
                        Some(Mark::AtMost(1.0, 1.0)),
                    );
                    found.add(
                        &format!("2a: upstream bytes per image byte, {clients} clients, {name}"),
                        of(name, Case::bytes),
                        "x",
                        Some(Mark::AtMost(1.02, 1.005)),
                    );
                } else {
                    let ratio = of(names[0], Case::first) / of(name, Case::first);
                    found.add(
                        &format!("first byte, {clients} clients, against {name}"),
                        ratio,
                        "x",
                        Some(Mark::AtMost(0.5, 0.3)),
                    );
                    let ratio = of(names[0], Case::rate) / of(name, Case::rate);
                    let mark = (clients == 20).then_some(Mark::AtLeast(3.0, 3.5));
                    found.add(
                        &format!("MB/s of {clients} cold clients, against {name}"),
                        ratio,
                        "x",
                        mark,
                    );
                }
            }
        }
        let shown = FIGURES.map(|figure| plain(figure(killed)));
        table.row(
            [vec![killed.server.clone(), killed.clients.to_string()], shown.to_vec()].concat(),
        );
        found.add(
            "upstream GETs when the fetching node dies",
            killed.gets(),
            "",
            Some(Mark::AtMost(2.0, 2.0)),
        );
        found.add(
            "2a: upstream bytes per image byte when the fetching node dies",
            killed.bytes(),
            "x",
            None,
        );
        found.add(
            "pulls that failed at the living when the fetching node dies",
            killed.failed.len() as f64,
            "",
            Some(Mark::AtMost(0.0, 0.0)),
        );
        report.table(&table);
        found.write(report);
        report.record("cases", serde_json::to_value(cases)?);
        report.record("fetching_node_dies", serde_json::to_value(killed)?);
        Ok(())
    }
}

/// The figures of the table, in its order.
const FIGURES: [fn(&Case) -> f64; 6] = [
    Case::gets,
    Case::bytes,
    Case::first,
    |case| case.seconds,
    Case::rate,
    |case| case.failed.len() as f64,
];

impl Case {
    fn gets(&self) -> f64 {
        self.gets as f64
    }

    fn bytes(&self) -> f64 {
        self.upstream_bytes as f64 / self.image_bytes as f64
    }

    fn first(&self) -> f64 {
        median(&self.first_ms).unwrap_or(f64::NAN)
    }

    fn rate(&self) -> f64 {
        self.delivered as f64 / 1e6 / self.seconds
    }
}

/// The tag of an image with this layer: each has its own, so that nothing that is cached can be
/// meant.
fn tag_of(layer: &Blob) -> String {
    format!("t{}", layer.digest.short())
}

/// The upstream has a private address.
const SETTINGS: &str = "upstreams:\n  allow_private: true\n";

/// A public project `hub` that caches the upstream.
fn stand_for(mesh: &Formed, upstream: &Upstream) -> Result<()> {
    let registry = json!({ "name": "up", "url": format!("http://{}", upstream.address), "type": "docker-registry" });
    let location = mesh.make("/api/v2.0/registries", &registry)?;
    let id: u64 = location.rsplit('/').next().unwrap_or_default().parse()?;
    let project =
        json!({ "project_name": "hub", "registry_id": id, "metadata": { "public": "true" } });
    mesh.make("/api/v2.0/projects", &project).map(drop)
}

/// One client: manifest by tag, then its part of the layer, compared. Milliseconds to the first
/// byte if it wants the whole layer, and bytes.
fn client(
    target: &Target,
    repository: &str,
    tag: &str,
    layer: &Blob,
    number: usize,
) -> Result<(Option<f64>, u64)> {
    let path = manifest_path(repository, tag);
    let asked =
        target.client().send(&Request::new("GET", &path).headers(&[ACCEPT]), &mut Sink::Discard)?;
    ensure!(asked.status == 200, "GET {path}: status {}", asked.status);
    let size = layer.bytes.len();
    let from = match number % 4 {
        1 => size / 2,
        3 => size - size / 10,
        _ => 0,
    };
    let range = format!("bytes={from}-");
    let headers = [("Range", range.as_str())];
    let path = blob_path(repository, &layer.digest);
    let request = Request::new("GET", &path);
    let request = if from > 0 { request.headers(&headers) } else { request };
    let (begun, mut first, mut came) = (Instant::now(), None, Vec::with_capacity(size));
    let mut take = |piece: &[u8]| {
        first.get_or_insert_with(|| begun.elapsed());
        came.extend_from_slice(piece);
    };
    let answer = target.client().send(&request, &mut Sink::Look(&mut take))?;
    // a server without ranges on a miss sends everything
    let wanted = match answer.status {
        206 => &layer.bytes[from..],
        200 => &layer.bytes[..],
        status => bail!("GET {path}: status {status}"),
    };
    ensure!(came == wanted, "GET {path}: other bytes than the upstream's");
    Ok((first.filter(|_| from == 0).map(|first| first.as_secs_f64() * 1e3), came.len() as u64))
}
