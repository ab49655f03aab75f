//! `loadtest gate`: what it costs a pull that images need signatures and scans, how many signatures
//! are verified and made a second, how soon a key that is revoked is refused, and how long it takes
//! to sign everything anew.

mod scanner;
mod signer;

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::content::{Blob, MANIFEST, manifest};
use crate::cpu::Reading;
use crate::figures::{Quantiles, Spread, plain, ratio};
use crate::mesh::{Mesh, PATIENCE};
use crate::process::{self, Signal};
use crate::registry::{self, ACCEPT, manifest_path};
use crate::report::{Report, Table};
use crate::wire::{Client, Request, Sink};
use crate::{stop, tools};
use signer::Signer;

/// Connections that read.
const CONNECTIONS: usize = 4;
/// Rounds of each kind.
const ROUNDS: usize = 9;
/// Keys that are revoked while their images are pulled.
const REVOKED: usize = 20;
/// How long a wait for one of the parts may take.
const LONGEST: Duration = Duration::from_secs(3600);
/// What a gate may cost, as in goals.md: a pull with it takes at most so many times the CPU of one
/// without.
const GOAL: f64 = 1.03;
/// Until a revoked key is refused: in other regions, and at edges (`edge.access_age`, as it is by
/// default; a connected edge asks every two seconds).
const SOON: [f64; 2] = [1.0, 30.0];
/// Nodes of the mesh: three replicas and an edge.
const REPLICAS: usize = 3;

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Gate {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// Signatures of others that are verified
    #[arg(long, default_value_t = 2000)]
    signatures: usize,
    /// Tags that the mesh signs, and signs anew
    #[arg(long, default_value_t = 10_000)]
    tags: usize,
    /// Requests of a round
    #[arg(long, default_value_t = 5000)]
    requests: usize,
    /// Measure only these parts
    #[arg(long, value_enum)]
    only: Vec<Part>,
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The CPU of pulls.
    Cost,
    /// Keys that are revoked.
    Revocations,
    /// Signatures that are verified.
    Verified,
    /// Tags that are signed, and signed anew.
    Signed,
}

/// The mesh, and what every part pushes.
struct Stage {
    mesh: Mesh,
    config: Blob,
    layer: Blob,
}

impl Gate {
    /// Measures and writes `gate.json` and `gate.md`.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        let mut report = Report::new("gate", "Signatures and scans at the gate");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        let mut mesh = Mesh::up_with_edges(&atoll, REPLICAS, 1)?;
        let version = tools::version(&atoll);
        report.server("atoll", &format!("{version}; three regions and an edge on this machine"));
        mesh.set_passphrase(REPLICAS)?;
        let stage = Stage { mesh, config: Blob::config(), layer: Blob::random(1024) };
        let plays = |part| self.only.is_empty() || self.only.contains(&part);
        if plays(Part::Cost) {
            eprintln!("loadtest: pulls with gates and without");
            tell_cost(&mut report, self.requests, &stage.cost(self.requests)?);
        }
        if plays(Part::Revocations) {
            eprintln!("loadtest: keys are revoked");
            tell_revocations(&mut report, &stage.revocations()?);
        }
        if plays(Part::Verified) {
            eprintln!("loadtest: {} signatures are verified", self.signatures);
            tell_verified(&mut report, self.signatures, &stage.verified(self.signatures)?);
        }
        if plays(Part::Signed) {
            eprintln!("loadtest: {} tags are signed, and signed anew", self.tags);
            tell_signed(&mut report, self.tags, &stage.signed(self.tags)?);
        }
        report.write(out)
    }
}

/// How long something took, and the CPU-seconds of all nodes for it.
struct Took {
    seconds: f64,
    cpu: f64,
}

/// Microseconds of one node's CPU for a GET, with each kind of gate.
type Costs = Vec<(&'static str, Option<Spread>)>;

impl Stage {
    fn admin(&self) -> Client {
        self.mesh.target(0).client()
    }

    fn project(&self, name: &str, metadata: &Value) -> Result<()> {
        self.mesh.create_project(name, 1)?;
        set(&mut self.admin(), name, metadata)
    }

    fn push_blobs(&self, client: &mut Client, repository: &str) -> Result<()> {
        registry::upload_blob(client, repository, &self.config)?;
        registry::upload_blob(client, repository, &self.layer)
    }

    /// Pushes an image that no other one is.
    fn push(&self, client: &mut Client, repository: &str, tag: &str) -> Result<Blob> {
        let image = manifest(&self.config, &[(self.layer.digest, self.layer.bytes.len())]);
        let mut unique: Value = serde_json::from_slice(&image.bytes)?;
        unique["annotations"]["number"] = format!("{:032x}", rand::random::<u128>()).into();
        let image = Blob::of(unique.to_string().into_bytes());
        registry::put_manifest(client, repository, tag, &image)?;
        Ok(image)
    }

    fn cost(&self, requests: usize) -> Result<Costs> {
        let scanner = scanner::start(200)?;
        let mut admin = self.admin();
        let body = json!({"name": "loadtest", "url": scanner, "auth": ""});
        send(&mut admin, "POST", "/api/v2.0/scanners", &body)?;
        let listed = get(&mut admin, "/api/v2.0/scanners?q=name%3Dloadtest")?;
        let uuid = listed[0]["uuid"].as_str().context("a scanner has a uuid")?.to_owned();
        let signer = Signer::new()?;
        let kinds = ["off", "signatures", "vulnerabilities", "both"];
        for kind in kinds {
            let repository = format!("{kind}/app");
            self.project(kind, &json!({}))?;
            let chosen = format!("/api/v2.0/projects/{kind}/scanner");
            send(&mut admin, "PUT", &chosen, &json!({"uuid": uuid}))?;
            self.push_blobs(&mut admin, &repository)?;
            let image = self.push(&mut admin, &repository, "1")?;
            // all have been signed and scanned, whether somebody asks for it or not
            signer.sign(&mut admin, &repository, &image)?;
            trust(&mut admin, kind, "ci", &signer)?;
            let scan = format!("/api/v2.0/projects/{kind}/repositories/app/artifacts/1/scan");
            send(&mut admin, "POST", &scan, &json!({}))?;
            let overview = format!(
                "/api/v2.0/projects/{kind}/repositories/app/artifacts/1?with_scan_overview=true"
            );
            process::until("an image is scanned", PATIENCE, || {
                let shown = get(&mut self.admin(), &overview)?.to_string();
                Ok(shown.contains("\"Success\"").then_some(()))
            })?;
            let mut metadata = json!({});
            if kind != "off" && kind != "vulnerabilities" {
                metadata["signature_policy"] = "enforce".into();
            }
            if kind != "off" && kind != "signatures" {
                metadata["prevent_vul"] = "true".into();
                metadata["severity"] = "high".into();
            }
            set(&mut admin, kind, &metadata)?;
        }
        let mut rounds = vec![Vec::new(); kinds.len()];
        for kind in kinds {
            let path = manifest_path(&format!("{kind}/app"), "1");
            self.until_answered(1, &path, 200)?;
        }
        for round in 0..=ROUNDS {
            for at in 0..kinds.len() {
                // the order turns, too
                let at = (at + round) % kinds.len();
                let path = manifest_path(&format!("{}/app", kinds[at]), "1");
                let cost = self.cpu_of_gets(1, &path, requests)?;
                // the first round warms up
                if round > 0 {
                    rounds[at].push(Some(cost));
                }
            }
        }
        Ok(kinds.into_iter().zip(rounds.into_iter().map(Spread::of)).collect())
    }

    fn until_answered(&self, at: usize, path: &str, status: u16) -> Result<()> {
        let mut client = self.mesh.nodes[at].anonymous().client();
        process::until("the gate decides", PATIENCE, || {
            let request = Request::new("GET", path).headers(&[ACCEPT]);
            let answer = client.send(&request, &mut Sink::Discard)?;
            Ok((answer.status == status).then_some(()))
        })
    }

    /// Microseconds of a node's CPU for a GET without credentials.
    fn cpu_of_gets(&self, at: usize, path: &str, requests: usize) -> Result<f64> {
        let (next, ready) = (AtomicUsize::new(0), Barrier::new(CONNECTIONS + 1));
        let pids = [self.mesh.nodes[at].pid];
        std::thread::scope(|scope| {
            let work = || -> Result<()> {
                let mut client = self.mesh.nodes[at].anonymous().client();
                let connected = client.connect();
                ready.wait();
                connected?;
                while next.fetch_add(1, Ordering::Relaxed) < requests {
                    stop::check()?;
                    let request = Request::new("GET", path).headers(&[ACCEPT]);
                    let answer = client.send(&request, &mut Sink::Discard)?;
                    ensure!(answer.status == 200, "GET {path}: status {}", answer.status);
                }
                Ok(())
            };
            let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
            let before = Reading::of(&pids);
            ready.wait();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))?;
            Ok(Reading::of(&pids).since(&before) * 1e6 / requests as f64)
        })
    }

    /// How long after a key was revoked each other node still served what it had signed, in seconds,
    /// by node.
    fn revocations(&self) -> Result<Vec<(String, Vec<f64>)>> {
        let (project, repository) = ("revoked", "revoked/app");
        self.project(project, &json!({"signature_policy": "enforce"}))?;
        let mut admin = self.admin();
        self.push_blobs(&mut admin, repository)?;
        let nodes = &self.mesh.nodes[1..];
        let mut all: Vec<_> = nodes.iter().map(|node| (node.name.clone(), Vec::new())).collect();
        for number in 0..REVOKED {
            let (signer, name) = (Signer::new()?, format!("key{number}"));
            trust(&mut admin, project, &name, &signer)?;
            let image = self.push(&mut admin, repository, &name)?;
            signer.sign(&mut admin, repository, &image)?;
            let path = manifest_path(repository, &name);
            for at in 1..self.mesh.nodes.len() {
                self.until_answered(at, &path, 200)?;
            }
            let stopped = AtomicBool::new(false);
            let (revoked, last) = std::thread::scope(|scope| -> Result<_> {
                let poll = |at: usize| {
                    let (stopped, path) = (&stopped, &path);
                    move || -> Result<Instant> {
                        let mut client = self.mesh.nodes[at].anonymous().client();
                        let mut last = Instant::now();
                        while !stopped.load(Ordering::Relaxed) {
                            let begun = Instant::now();
                            let request = Request::new("GET", path).headers(&[ACCEPT]);
                            match client.send(&request, &mut Sink::Discard)?.status {
                                200 => last = begun,
                                403 => break,
                                status => anyhow::bail!("GET {path}: status {status}"),
                            }
                        }
                        Ok(last)
                    }
                };
                let polls: Vec<_> = (1..=nodes.len()).map(|at| scope.spawn(poll(at))).collect();
                std::thread::sleep(Duration::from_millis(50));
                let place = format!("/api/v2.0/projects/{project}/signers/{name}");
                let body = json!({"state": "compromised", "reason": "a test"});
                let sent = send(&mut admin, "PUT", &place, &body).map(|_| Instant::now());
                // they end by themselves when they are refused
                if sent.is_err() {
                    stopped.store(true, Ordering::Relaxed);
                }
                let last: Result<Vec<Instant>> =
                    polls.into_iter().map(|poll| poll.join().expect("no panic")).collect();
                Ok((sent?, last?))
            })?;
            for ((_, times), last) in all.iter_mut().zip(last) {
                times.push(last.saturating_duration_since(revoked).as_secs_f64());
            }
        }
        Ok(all)
    }

    /// What it takes to verify so many signatures of a key that a project begins to trust.
    fn verified(&self, signatures: usize) -> Result<Took> {
        let (project, repository) = ("verified", "verified/app");
        self.project(project, &json!({}))?;
        let mut admin = self.admin();
        self.push_blobs(&mut admin, repository)?;
        let signer = Signer::new()?;
        for number in 0..signatures {
            stop::check()?;
            let image = self.push(&mut admin, repository, &format!("t{number}"))?;
            signer.sign(&mut admin, repository, &image)?;
        }
        let primary = self.mesh.primary(project)?;
        let count = || self.metric(primary, "atoll_signatures_total");
        // what was just pushed is verified first
        let mut quiet = count()?;
        loop {
            std::thread::sleep(Duration::from_secs(2));
            let now = count()?;
            if now == quiet {
                break;
            }
            quiet = now;
        }
        self.took(
            "signatures are verified",
            || trust(&mut admin, project, "ci", &signer),
            || Ok(count()? >= quiet + signatures as f64),
        )
    }

    /// What it takes to sign so many tags by a rule, and to sign them anew after the key was replaced.
    fn signed(&self, tags: usize) -> Result<[Took; 2]> {
        let (project, repository) = ("signed", "signed/app");
        let host = json!({"signature_host": "registry.example"});
        self.project(project, &host)?;
        let mut admin = self.admin();
        self.push_blobs(&mut admin, repository)?;
        for number in 0..tags {
            stop::check()?;
            self.push(&mut admin, repository, &format!("t{number}"))?;
        }
        let keys = format!("/api/v2.0/projects/{project}/signing");
        send(&mut admin, "POST", &keys, &json!({}))?;
        let logged = || -> Result<u64> {
            let log = get(&mut self.admin(), &format!("{keys}/log?after=4000000000"))?;
            Ok(log["last"]["number"].as_u64().unwrap_or_default())
        };
        let by_rule = self.took(
            "tags are signed",
            || set(&mut self.admin(), project, &json!({"signature_auto": "**"})),
            || Ok(logged()? >= tags as u64),
        )?;
        let anew = self.took(
            "tags are signed anew",
            || send(&mut self.admin(), "POST", &keys, &json!({"rotate": true})).map(drop),
            || Ok(logged()? >= 2 * tags as u64),
        )?;
        Ok([by_rule, anew])
    }

    fn took(
        &self,
        what: &str,
        begin: impl FnOnce() -> Result<()>,
        mut is_over: impl FnMut() -> Result<bool>,
    ) -> Result<Took> {
        let pids = self.mesh.pids();
        let (before, begun) = (Reading::of(&pids), Instant::now());
        begin()?;
        process::until(what, LONGEST, || Ok(is_over()?.then_some(())))?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Took { seconds, cpu: Reading::of(&pids).since(&before) })
    }

    /// The sum of a metric's rows.
    fn metric(&self, at: usize, name: &str) -> Result<f64> {
        let mut said = Vec::new();
        let mut client = self.mesh.target(at).client();
        client.send(&Request::new("GET", "/metrics"), &mut Sink::Keep(&mut said))?;
        let text = String::from_utf8_lossy(&said).into_owned();
        let rows = text.lines().filter(|line| line.starts_with(name));
        Ok(rows.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

fn send(client: &mut Client, method: &str, path: &str, body: &Value) -> Result<Value> {
    let body = body.to_string().into_bytes();
    let (body, mut said): ([&[u8]; 1], Vec<u8>) = ([&body], Vec::new());
    let headers = [("Content-Type", "application/json")];
    let request = Request::new(method, path).headers(&headers).body(&body);
    let answer = client.send(&request, &mut Sink::Keep(&mut said))?;
    let text = String::from_utf8_lossy(&said);
    ensure!((200..300).contains(&answer.status), "{method} {path}: {}: {text}", answer.status);
    Ok(serde_json::from_slice(&said).unwrap_or_default())
}

fn get(client: &mut Client, path: &str) -> Result<Value> {
    let mut said = Vec::new();
    let answer = client.send(&Request::new("GET", path), &mut Sink::Keep(&mut said))?;
    ensure!(answer.status == 200, "GET {path}: status {}", answer.status);
    Ok(serde_json::from_slice(&said)?)
}

fn set(client: &mut Client, project: &str, metadata: &Value) -> Result<()> {
    let path = format!("/api/v2.0/projects/{project}");
    send(client, "PUT", &path, &json!({"metadata": metadata})).map(drop)
}

fn trust(client: &mut Client, project: &str, name: &str, signer: &Signer) -> Result<()> {
    let path = format!("/api/v2.0/projects/{project}/signers");
    send(client, "POST", &path, &json!({"name": name, "key": signer.public()})).map(drop)
}

fn verdict(met: bool) -> String {
    if met { "met".into() } else { "**missed**".into() }
}

fn tell_cost(report: &mut Report, requests: usize, costs: &Costs) {
    let median = |spread: &Option<Spread>| spread.map_or(0.0, |spread| spread.median);
    let off = median(&costs[0].1);
    let mut table = Table::new(&["gate", "CPU us of a GET", "against off", "goal", "verdict"]);
    let mut found = Vec::new();
    for (kind, spread) in costs {
        let times = ratio(median(spread), off);
        let judged = *kind != "off";
        table.row(vec![
            (*kind).to_owned(),
            spread.map_or_else(|| "-".into(), |spread| spread.to_string()),
            times.map_or_else(|| "-".into(), |times| format!("{times:.3}x")),
            if judged { format!("{GOAL}x") } else { "-".into() },
            match times.filter(|_| judged) {
                Some(times) => verdict(times <= GOAL),
                None => "-".into(),
            },
        ]);
        found.push(json!({"gate": kind, "cpu_us": spread, "ratio": times}));
    }
    report.heading("A manifest behind a gate");
    report.say(&format!(
        "GETs of a manifest of {MANIFEST} by tag, without credentials, at a replica that is not the \
         primary, {CONNECTIONS} connections; medians of {ROUNDS} rounds of {requests}, in turn. Every \
         image has a signature of a trusted key and a report of 200 weaknesses that are below the \
         threshold, whether its project asks for them or not."
    ));
    report.table(&table);
    report.record("cost", found.into());
}

fn tell_revocations(report: &mut Report, all: &[(String, Vec<f64>)]) {
    let mut table = Table::new(&["where", "p50 ms", "p99 ms", "goal", "verdict"]);
    for (at, (name, times)) in all.iter().enumerate() {
        let quantiles = Quantiles::of_seconds(times.clone());
        let goal = SOON[usize::from(at + 1 >= REPLICAS)];
        let of = |pick: fn(&Quantiles) -> f64| quantiles.as_ref().map_or(0.0, pick);
        table.row(vec![
            name.clone(),
            plain(of(|q| q.p50)),
            plain(of(|q| q.p99)),
            format!("{goal} s"),
            verdict(of(|q| q.p99) <= goal * 1e3),
        ]);
    }
    report.heading("Until a revoked key is refused");
    report.say(&format!(
        "{REVOKED} keys are called compromised at the first node, while an image that only they have \
         signed is pulled at every other node without a pause. From the answer to the PUT until the last \
         request began that was still served; 0 if none was. The last row is an edge, which asks every two \
         seconds. There is no WAN between the regions."
    ));
    report.table(&table);
    report.record("revoked_seconds", json!(all));
}

fn rates(took: &Took, count: usize) -> [String; 3] {
    let count = count as f64;
    [plain(took.seconds), plain(count / took.seconds), plain(took.cpu * 1e6 / count)]
}

fn told(took: &Took, count: usize) -> Value {
    json!({"count": count, "seconds": took.seconds, "cpu_seconds_of_all_nodes": took.cpu})
}

fn tell_verified(report: &mut Report, count: usize, took: &Took) {
    let [seconds, rate, cpu] = rates(took, count);
    report.heading("Verifying");
    report.say(&format!(
        "A project begins to trust a key that had signed {count} images: its primary verifies them and \
         records that in {seconds} s, {rate} a second, for {cpu} us of CPU each (all nodes, with the \
         ledger's commits)."
    ));
    report.record("verified", told(took, count));
}

fn tell_signed(report: &mut Report, tags: usize, took: &[Took; 2]) {
    let mut table = Table::new(&["what", "seconds", "a second", "CPU us of all nodes for one"]);
    for (what, took) in ["by a rule", "anew, after the key was replaced"].iter().zip(took) {
        table.row([vec![(*what).to_owned()], rates(took, tags).to_vec()].concat());
    }
    report.heading(&format!("Signing {tags} tags"));
    report.say(
        "Each is an image of its own, and gets a signature behind a tag and a bundle, with an entry of \
         the log before both. The job rests as long as it works, so that pulls do not wait for it.",
    );
    report.table(&table);
    report.record("signed", json!([told(&took[0], tags), told(&took[1], tags)]));
}

impl Mesh {
    /// Gives the first nodes a passphrase that seals signing keys, and starts them anew, one by one.
    fn set_passphrase(&mut self, nodes: usize) -> Result<()> {
        let file = self.file("passphrase");
        std::fs::write(&file, "a long passphrase of a loadtest\n")?;
        for at in 0..nodes {
            let settings = self.settings(at);
            let text = std::fs::read_to_string(&settings)?;
            let with = text.replacen(
                "  passphrase_file: null",
                &format!("  passphrase_file: {}", file.display()),
                1,
            );
            ensure!(with != text, "{} has no signing.passphrase_file", settings.display());
            std::fs::write(&settings, with)?;
            process::signal(self.nodes[at].pid, Signal::TERM);
            process::until("a node stops", PATIENCE, || {
                Ok((!self.nodes[at].lives()).then_some(()))
            })?;
            self.start(at)?;
            process::until("the mesh is whole again", PATIENCE, || {
                Ok(self.is_whole().then_some(()))
            })?;
        }
        Ok(())
    }
}
