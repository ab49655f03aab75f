//! `loadtest people`: what tokens cost, what a manifest costs with one, how soon somebody who was
//! removed is refused, and what very many robots and members cost.

use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde_json::{Value, json};

use crate::content::{Blob, manifest};
use crate::cpu::{Reading, resident_bytes};
use crate::figures::{Quantiles, Spread, plain, ratio};
use crate::mesh::Mesh;
use crate::registry::{self, ACCEPT, manifest_path};
use crate::report::{Report, Table};
use crate::wire::{Client, Request, Sink};
use crate::{stop, tools};

/// The project that is read.
const PROJECT: &str = "people";
const REPOSITORY: &str = "people/app";
const TOKEN: &str = "/service/token?service=atoll&scope=repository:people/app:pull";
/// A password that every user of a run has.
const PASSWORD: &str = "A-Word-Of-A-Loadtest-1";
/// Connections that ask for tokens, and that read.
const CONNECTIONS: usize = 8;
/// Users and robots who show their password or secret for the first time.
const FIRST: usize = 200;
/// Requests of each of the other rounds, and how many rounds there are.
const REQUESTS: usize = 6000;
const ROUNDS: usize = 5;
/// Robots that are deleted while they pull.
const DELETED: usize = 50;
/// Users who are members; each is one in every project.
const USERS: usize = 1000;

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct People {
    /// The atoll binary; without it the one beside loadtest
    #[arg(long, value_name = "PATH")]
    atoll: Option<PathBuf>,
    /// Robots in all
    #[arg(long, default_value_t = 100_000)]
    robots: usize,
    /// Members of projects in all
    #[arg(long, default_value_t = 1_000_000)]
    members: usize,
    /// Connections that make them
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// How long each of the two may take to be made, in minutes; what is there then is measured
    #[arg(long, default_value_t = 30)]
    minutes: u64,
}

/// A robot's name and secret.
struct Robot {
    name: String,
    secret: String,
}

/// One kind of requests, timed as a whole.
struct Rate {
    per_second: f64,
    latency: Option<Quantiles>,
    cpu_us: f64,
}

/// A mesh with so many people.
struct Size {
    what: String,
    count: usize,
    per_second: f64,
    memory: u64,
    ledger: u64,
    token: Rate,
    idle_cpu_percent: f64,
}

impl People {
    /// Measures, and writes `people.json` and `people.md`.
    pub(crate) fn run(&self, out: &Path) -> Result<()> {
        let mut report = Report::new("people", "Tokens, and very many people");
        let atoll = tools::atoll(self.atoll.as_deref())?;
        let mesh = Mesh::up_with_edges(&atoll, 3, 1)?;
        let version = tools::version(&atoll);
        report.server("atoll", &format!("{version}; three regions and an edge on this machine"));
        mesh.create_project(PROJECT, 1)?;
        let mut admin = mesh.target(mesh.primary(PROJECT)?).client();
        let (config, layer) = (Blob::config(), Blob::random(1024));
        registry::upload_blob(&mut admin, REPOSITORY, &config)?;
        registry::upload_blob(&mut admin, REPOSITORY, &layer)?;
        let image = manifest(&config, &[(layer.digest, layer.bytes.len())]);
        registry::put_manifest(&mut admin, REPOSITORY, "1", &image)?;

        eprintln!("loadtest: tokens");
        let tokens = tokens(&mesh, &mut admin)?;
        let mut table = Table::new(&["who asks", "tokens a second", "p50 / p99 ms", "CPU us"]);
        for (who, rate) in &tokens {
            table.row(vec![
                (*who).to_owned(),
                plain(rate.per_second),
                both(&rate.latency),
                plain(rate.cpu_us),
            ]);
        }
        report.heading("Requests for tokens");
        report.say(&format!(
            "{CONNECTIONS} connections to one replica. A first password or secret is one that this \
             node has not seen yet; {FIRST} of them. CPU is that of all nodes, for a request."
        ));
        report.table(&table);
        report.record("tokens", tokens.iter().map(|(who, rate)| rate.told(who)).collect());

        eprintln!("loadtest: manifests");
        let (with, without) = manifests(&mesh, &mut admin)?;
        let cost = |spread: &Option<Spread>| spread.map_or(0.0, |spread| spread.median);
        let times = ratio(cost(&with), cost(&without)).unwrap_or_default();
        report.heading("A manifest with a token");
        report.say(&format!(
            "A GET of a manifest by tag costs {} us of CPU with a robot's token and {} us without \
             credentials: {} times as much (the medians of {ROUNDS} rounds of {REQUESTS}, in turn).",
            plain(cost(&with)),
            plain(cost(&without)),
            plain(times),
        ));
        let spread = |spread: &Option<Spread>| {
            spread.map(|s| json!({"median": s.median, "min": s.min, "max": s.max}))
        };
        let both = json!({"token_us": spread(&with), "anonymous_us": spread(&without)});
        report.record("manifest", json!({"cpu": both, "ratio": times}));

        eprintln!("loadtest: deleting robots");
        let refused = refusals(&mesh)?;
        let mut table = Table::new(&["where", "p50 ms", "p99 ms", "longest ms"]);
        for (name, times) in &refused {
            let quantiles = Quantiles::of_seconds(times.clone());
            let longest = times.iter().copied().fold(0.0, f64::max) * 1e3;
            let of = |pick: fn(&Quantiles) -> f64| quantiles.as_ref().map_or(0.0, pick);
            let cells = [of(|q| q.p50), of(|q| q.p99), longest].map(plain);
            table.row([vec![name.clone()], cells.to_vec()].concat());
        }
        report.heading("Until a deleted robot is refused");
        report.say(&format!(
            "{DELETED} robots pull at every other node without a pause, with tokens. From the answer \
             to the DELETE until the last request began that was still admitted; 0 if none was."
        ));
        report.table(&table);
        report.record("refused_seconds", json!(refused));

        let sizes = self.grow(&mesh)?;
        let mut table = Table::new(&[
            "what",
            "there are",
            "made a second",
            "memory of the largest node, MiB",
            "the ledger's file, MiB",
            "a token, p50 / p99 ms",
            "idle CPU of all nodes, % of a core",
        ]);
        let mib = |bytes: u64| plain(bytes as f64 / f64::from(1 << 20));
        for size in &sizes {
            table.row(vec![
                size.what.clone(),
                size.count.to_string(),
                plain(size.per_second),
                mib(size.memory),
                mib(size.ledger),
                crate::people::both(&size.token.latency),
                plain(size.idle_cpu_percent),
            ]);
        }
        report.heading("Very many");
        report.say(&format!(
            "Robots of the system with a permission in one project, then members: {USERS} users, each \
             in every project. What was not made in {} minutes is not there.",
            self.minutes
        ));
        report.table(&table);
        let told = |size: &Size| {
            json!({"what": size.what, "count": size.count, "made_per_second": size.per_second,
                "memory_bytes": size.memory, "ledger_bytes": size.ledger,
                "token": size.token.told("a robot"), "idle_cpu_percent": size.idle_cpu_percent})
        };
        report.record("sizes", sizes.iter().map(told).collect());
        report.write(out)
    }

    /// Makes robots and members, and measures after each.
    fn grow(&self, mesh: &Mesh) -> Result<Vec<Size>> {
        let robot = create_robot(&mut mesh.target(0).client(), "measured")?;
        let mut sizes = vec![measure(mesh, "nobody", 0, 0.0, &robot)?];
        eprintln!("loadtest: robots");
        let (made, rate) = self.make(mesh, self.robots, |client, number| {
            create_robot(client, &format!("r{number}")).map(|_| ())
        })?;
        sizes.push(measure(mesh, "robots", made, rate, &robot)?);
        eprintln!("loadtest: users and projects");
        let projects = self.members.div_ceil(USERS);
        let (users, _) = self.make(mesh, USERS, |client, number| {
            create_user(client, &format!("member{number}")).map(|_| ())
        })?;
        let (projects, _) = self.make(mesh, projects, |client, number| {
            let body = json!({"project_name": format!("m{number}")});
            post(client, "/api/v2.0/projects", &body).map(|_| ())
        })?;
        eprintln!("loadtest: members");
        let (made, rate) =
            self.make(mesh, self.members.min(users * projects), |client, number| {
                let path = format!("/api/v2.0/projects/m{}/members", number / USERS);
                let user = json!({"username": format!("member{}", number % USERS)});
                post(client, &path, &json!({"role_id": 3, "member_user": user})).map(|_| ())
            })?;
        sizes.push(measure(mesh, "and members", made, rate, &robot)?);
        Ok(sizes)
    }

    /// Makes so many of something, or as many as there is time for: how many, and how many a second.
    fn make(
        &self,
        mesh: &Mesh,
        count: usize,
        one: impl Fn(&mut Client, usize) -> Result<()> + Sync,
    ) -> Result<(usize, f64)> {
        let (next, made) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (begun, time) = (Instant::now(), Duration::from_secs(self.minutes * 60));
        std::thread::scope(|scope| {
            let work = || -> Result<()> {
                let mut client = mesh.target(0).client();
                while begun.elapsed() < time {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    stop::check()?;
                    one(&mut client, number)?;
                    made.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            };
            let threads: Vec<_> = (0..self.connections.max(1)).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        })?;
        let made = made.into_inner();
        Ok((made, made as f64 / begun.elapsed().as_secs_f64()))
    }
}

impl Rate {
    fn told(&self, who: &str) -> Value {
        json!({"who": who, "per_second": self.per_second, "latency_ms": self.latency,
            "cpu_us": self.cpu_us})
    }
}

fn both(figure: &Option<Quantiles>) -> String {
    figure.map_or_else(|| "-".into(), |q| format!("{} / {}", plain(q.p50), plain(q.p99)))
}

fn basic(name: &str, secret: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{secret}")))
}

/// Sends JSON and returns what is answered; it must be created.
fn post(client: &mut Client, path: &str, body: &Value) -> Result<Value> {
    let body = body.to_string().into_bytes();
    let (body, mut said): ([&[u8]; 1], Vec<u8>) = ([&body], Vec::new());
    let headers = [("Content-Type", "application/json")];
    let request = Request::new("POST", path).headers(&headers).body(&body);
    let answer = client.send(&request, &mut Sink::Keep(&mut said))?;
    let text = String::from_utf8_lossy(&said);
    ensure!(answer.status == 201, "POST {path}: status {}: {text}", answer.status);
    Ok(serde_json::from_slice(&said).unwrap_or_default())
}

fn create_user(client: &mut Client, name: &str) -> Result<Value> {
    let mail = format!("{name}@example.com");
    let body = json!({"username": name, "password": PASSWORD, "email": mail, "realname": name});
    post(client, "/api/v2.0/users", &body)
}

fn create_robot(client: &mut Client, name: &str) -> Result<Robot> {
    let access = json!([{"resource": "repository", "action": "pull"}]);
    let grant = json!({"kind": "project", "namespace": PROJECT, "access": access});
    let body = json!({"name": name, "level": "system", "duration": 7, "permissions": [grant]});
    let made = post(client, "/api/v2.0/robots", &body)?;
    let text = |field: &str| made[field].as_str().map(str::to_owned).context("a robot has one");
    Ok(Robot { name: text("name")?, secret: text("secret")? })
}

/// A token for whom `authorization` names.
fn token(client: &mut Client, authorization: &str) -> Result<String> {
    let (headers, mut said) = ([("Authorization", authorization)], Vec::new());
    let request = Request::new("GET", TOKEN).headers(&headers);
    let answer = client.send(&request, &mut Sink::Keep(&mut said))?;
    ensure!(answer.status == 200, "GET {TOKEN}: status {}", answer.status);
    let said: Value = serde_json::from_slice(&said)?;
    Ok(said["token"].as_str().context("an answer with a token")?.to_owned())
}

/// Sends a GET for each header, over some connections; all must be answered 200.
fn rate(mesh: &Mesh, at: usize, path: &str, authorizations: &[Option<String>]) -> Result<Rate> {
    let (next, ready) = (AtomicUsize::new(0), Barrier::new(CONNECTIONS + 1));
    let pids = mesh.pids();
    let (times, took, cpu) = std::thread::scope(|scope| {
        let work = || -> Result<Vec<f64>> {
            let mut client = mesh.nodes[at].anonymous().client();
            let connected = client.connect();
            ready.wait();
            connected?;
            let mut times = Vec::new();
            while let Some(shown) = authorizations.get(next.fetch_add(1, Ordering::Relaxed)) {
                stop::check()?;
                let mut headers = vec![ACCEPT];
                headers.extend(shown.as_deref().map(|text| ("Authorization", text)));
                let request = Request::new("GET", path).headers(&headers);
                let begun = Instant::now();
                let answer = client.send(&request, &mut Sink::Discard)?;
                ensure!(answer.status == 200, "GET {path}: status {}", answer.status);
                times.push(begun.elapsed().as_secs_f64());
            }
            Ok(times)
        };
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(work)).collect();
        let before = Reading::of(&pids);
        ready.wait();
        let begun = Instant::now();
        let all: Result<Vec<Vec<f64>>> =
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        let took = begun.elapsed().as_secs_f64();
        all.map(|all| (all.concat(), took, Reading::of(&pids).since(&before)))
    })?;
    let count = times.len() as f64;
    let (latency, cpu_us) = (Quantiles::of_seconds(times), cpu * 1e6 / count);
    Ok(Rate { per_second: count / took, latency, cpu_us })
}

/// Tokens for robots and users, for the first time and again.
fn tokens(mesh: &Mesh, admin: &mut Client) -> Result<Vec<(&'static str, Rate)>> {
    let (mut robots, mut users) = (Vec::new(), Vec::new());
    for number in 0..FIRST {
        let robot = create_robot(admin, &format!("first{number}"))?;
        robots.push(Some(basic(&robot.name, &robot.secret)));
        let name = format!("first{number}");
        create_user(admin, &name)?;
        users.push(Some(basic(&name, PASSWORD)));
    }
    let at = 1;
    let again = |all: &[Option<String>]| vec![all[0].clone(); REQUESTS];
    Ok(vec![
        ("a robot, first", rate(mesh, at, TOKEN, &robots)?),
        ("a robot, again", rate(mesh, at, TOKEN, &again(&robots))?),
        ("a user, first", rate(mesh, at, TOKEN, &users)?),
        ("a user, again", rate(mesh, at, TOKEN, &again(&users))?),
        ("nobody", rate(mesh, at, TOKEN, &vec![None; REQUESTS])?),
    ])
}

/// The CPU of a GET of a manifest in microseconds, with a token and without.
fn manifests(mesh: &Mesh, admin: &mut Client) -> Result<(Option<Spread>, Option<Spread>)> {
    let robot = create_robot(admin, "reader")?;
    let shown = token(&mut mesh.nodes[1].anonymous().client(), &basic(&robot.name, &robot.secret))?;
    let path = manifest_path(REPOSITORY, "1");
    let with = vec![Some(format!("Bearer {shown}")); REQUESTS];
    let without = vec![None; REQUESTS];
    let (mut tokens, mut nobodys) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let pair = [rate(mesh, 1, &path, &with)?.cpu_us, rate(mesh, 1, &path, &without)?.cpu_us];
        // the first round warms up
        if round > 0 {
            tokens.push(Some(pair[0]));
            nobodys.push(Some(pair[1]));
        }
    }
    Ok((Spread::of(tokens), Spread::of(nobodys)))
}

/// How long after a robot was deleted each other node still admitted it, in seconds, by node.
fn refusals(mesh: &Mesh) -> Result<Vec<(String, Vec<f64>)>> {
    let mut all: Vec<(String, Vec<f64>)> =
        mesh.nodes[1..].iter().map(|node| (node.name.clone(), Vec::new())).collect();
    let private = json!({"project_name": "private", "metadata": {"public": "false"}});
    let mut admin = mesh.target(0).client();
    post(&mut admin, "/api/v2.0/projects", &private)?;
    let path = "/v2/private/app/tags/list";
    for number in 0..DELETED {
        let access = json!([{"resource": "repository", "action": "pull"}]);
        let grant = json!({"kind": "project", "namespace": "private", "access": access});
        let what = json!({"name": format!("gone{number}"), "level": "system", "duration": 7,
            "permissions": [grant]});
        let made = post(&mut admin, "/api/v2.0/robots", &what)?;
        let text = |field: &str| made[field].as_str().context("a robot has one");
        let authorization = basic(text("name")?, text("secret")?);
        let scope = "/service/token?service=atoll&scope=repository:private/app:pull";
        let (headers, mut said) = ([("Authorization", authorization.as_str())], Vec::new());
        let request = Request::new("GET", scope).headers(&headers);
        mesh.nodes[0].anonymous().client().send(&request, &mut Sink::Keep(&mut said))?;
        let said: Value = serde_json::from_slice(&said)?;
        let bearer = format!("Bearer {}", said["token"].as_str().context("a token")?);
        let (stopped, admitted) = (AtomicBool::new(false), AtomicUsize::new(0));
        let place = format!("/api/v2.0/robots/{}", made["id"]);
        let (answered, last) = std::thread::scope(|scope| -> Result<_> {
            let poll = |at: usize| {
                let (stopped, admitted, bearer) = (&stopped, &admitted, &bearer);
                move || -> Result<Instant> {
                    let mut client = mesh.nodes[at].anonymous().client();
                    let headers = [("Authorization", bearer.as_str())];
                    let (mut last, mut was) = (Instant::now(), false);
                    while !stopped.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        let request = Request::new("GET", path).headers(&headers);
                        let answer = client.send(&request, &mut Sink::Discard)?;
                        // a repository that nobody has pushed to: who may look is told so
                        if answer.status == 404 {
                            last = begun;
                            if !was {
                                admitted.fetch_add(1, Ordering::Relaxed);
                                was = true;
                            }
                        } else if was {
                            break;
                        }
                    }
                    Ok(last)
                }
            };
            let threads: Vec<_> = (1..mesh.nodes.len()).map(|at| scope.spawn(poll(at))).collect();
            let deleted = (|| -> Result<Instant> {
                let end = Instant::now() + Duration::from_secs(30);
                while admitted.load(Ordering::Relaxed) < mesh.nodes.len() - 1 {
                    stop::check()?;
                    ensure!(Instant::now() < end, "a robot is not admitted everywhere");
                    std::thread::sleep(Duration::from_millis(5));
                }
                let answer = admin.send(&Request::new("DELETE", &place), &mut Sink::Discard)?;
                ensure!(answer.status == 200, "DELETE {place}: {}", answer.status);
                Ok(Instant::now())
            })();
            // they end by themselves when they are refused
            if deleted.is_err() {
                stopped.store(true, Ordering::Relaxed);
            }
            let last: Result<Vec<Instant>> =
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            Ok((deleted?, last?))
        })?;
        for ((_, times), last) in all.iter_mut().zip(last) {
            times.push(last.saturating_duration_since(answered).as_secs_f64());
        }
    }
    Ok(all)
}

/// What a mesh with so many people costs.
fn measure(mesh: &Mesh, what: &str, count: usize, per_second: f64, robot: &Robot) -> Result<Size> {
    let pids = mesh.pids();
    let shown = vec![Some(basic(&robot.name, &robot.secret)); REQUESTS / 2];
    let token = rate(mesh, 1, TOKEN, &shown)?;
    let (settled, before) = (Instant::now(), Reading::of(&pids));
    std::thread::sleep(Duration::from_secs(5));
    let idle = Reading::of(&pids).since(&before) / settled.elapsed().as_secs_f64();
    let memory = pids.iter().filter_map(|pid| resident_bytes(*pid)).max().unwrap_or(0);
    Ok(Size {
        what: what.to_owned(),
        count,
        per_second,
        memory,
        ledger: mesh.ledger_bytes(0)?,
        token,
        idle_cpu_percent: idle * 100.0,
    })
}
