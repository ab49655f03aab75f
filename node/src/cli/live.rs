//! The live view of `atoll up`: one line for each event in the mesh, so that a person can follow it
//! and a script can read it.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use ground::clock;
use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};

use super::world::{LocalMesh, LocalNode};

/// The signals that people send to end a process (HUP, INT, KILL, TERM). Other signals mean a
/// crash.
const SENT: [i32; 4] = [1, 2, 9, 15];
/// The time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// The minimum time between two lines about one transfer.
const PROGRESS: Duration = Duration::from_secs(1);
/// How long the mesh may take to become ready before the view says so.
const READY: Duration = Duration::from_secs(30);

/// Waits for the mesh, prints the introduction, and shows events until a signal comes.
pub(super) fn follow(world: &mut LocalMesh) -> io::Result<()> {
    let runtime = super::small_runtime()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let work = async {
            wait_until_ready(world).await?;
            println!("{}", world.introduction());
            let keys = io::stdin().is_terminal();
            println!(
                "What happens (Ctrl-C drains and stops{}):",
                if keys {
                    "; type a node's number and Enter to kill it, or to start it when it is down"
                } else {
                    ""
                }
            );
            watch(world, keys).await
        };
        tokio::select! {
            result = work => result,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })?;
    println!("draining");
    // a read of the terminal may still be blocked
    runtime.shutdown_background();
    Ok(())
}

fn say(text: &str) {
    println!("{}  {text}", &clock::timestamp().to_string()[11..19]);
}

fn down(node: &LocalNode, how: ExitStatus) {
    say(&format!("{} is down ({how}); it stays down until it is started again", node.name));
}

async fn wait_until_ready(world: &mut LocalMesh) -> io::Result<()> {
    let started = Instant::now();
    loop {
        for (i, how) in world.reap() {
            let node = &world.nodes[i];
            // a signal ended it, which `up` is made for; the other nodes continue
            if how.success() || how.signal().is_some_and(|signal| SENT.contains(&signal)) {
                down(node, how);
                continue;
            }
            let log = std::fs::read_to_string(node.folder.join("atoll.log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            return Err(io::Error::other(format!(
                "{} ended at its start ({how}):\n{}",
                node.name,
                last.join("\n")
            )));
        }
        let mut ready = 0;
        let running = world.nodes.iter().filter(|node| node.child.is_some());
        for node in running.clone() {
            // a certificate that is just being replaced cannot be read: later, then
            let Ok(client) = node.client(None) else { continue };
            ready +=
                usize::from(client.request("/readyz").await.is_ok_and(|(status, _)| status == 200));
        }
        let running = running.count();
        if running == 0 {
            return Err(io::Error::other("all nodes ended before they were ready"));
        }
        if ready == running {
            return Ok(());
        }
        if started.elapsed() > READY {
            say(&format!(
                "only {ready} of {} nodes are ready; their logs are in {}",
                world.nodes.len(),
                world.data.display()
            ));
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn watch(world: &mut LocalMesh, keys: bool) -> io::Result<()> {
    let mut shown = Shown::default();
    let mut stale = None;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line(), if keys => if let Ok(Some(line)) = line { obey(world, &line) },
            () = tokio::time::sleep(LOOK) => {}
        }
        for (i, how) in world.reap() {
            down(&world.nodes[i], how);
        }
        for i in 0..world.nodes.len() {
            // shown again and again, a password that is wrong now would look like a guesser's
            let password = std::fs::read_to_string(world.password_file()).ok();
            if password == stale {
                continue;
            }
            match status(world, i).await {
                Some((StatusCode::OK, status)) => {
                    let name = world.nodes[i].name.clone();
                    shown.note(&name, &status);
                }
                Some((StatusCode::UNAUTHORIZED, _)) => {
                    say(&format!(
                        "the administrator's password was changed: write the new one to {} to see here what the mesh does",
                        world.password_file().display()
                    ));
                    stale = password;
                }
                _ => {}
            }
        }
    }
}

/// What a node answers; `None` if it does not, or there is no file with the password.
async fn status(world: &LocalMesh, i: usize) -> Option<(StatusCode, Value)> {
    let node = &world.nodes[i];
    let file = world.password_file();
    let client = node.client(Some(&file)).ok()?;
    let asked = client.request("/api/atoll/v1/status?copies=false");
    let (status, body) = tokio::time::timeout(Duration::from_secs(1), asked).await.ok()?.ok()?;
    Some((status, serde_json::from_slice(&body).unwrap_or_default()))
}

fn obey(world: &mut LocalMesh, line: &str) {
    let Some(i) = line.trim().parse::<usize>().ok().filter(|n| (1..=world.nodes.len()).contains(n))
    else {
        say(&format!("type a number from 1 to {}", world.nodes.len()));
        return;
    };
    let name = world.nodes[i - 1].name.clone();
    let running = world.nodes[i - 1].child.is_some();
    let result = if running { world.kill_node(i - 1) } else { world.start_node(i - 1) };
    match result {
        Ok(()) => say(&format!("{name}: {}", if running { "killed" } else { "started" })),
        Err(error) => say(&format!("{name}: {error}")),
    }
}

/// The last line about each subject, so that only changes are printed.
#[derive(Default)]
struct Shown {
    facts: BTreeMap<String, String>,
    transfers: BTreeMap<(String, String, String), Instant>,
}

impl Shown {
    fn fact(&mut self, key: String, value: String, text: String) {
        if self.facts.get(&key) != Some(&value) {
            self.facts.insert(key, value);
            say(&text);
        }
    }

    fn note(&mut self, seer: &str, status: &Value) {
        let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
        let empty = Vec::new();
        let list = |name: &str| status[name].as_array().unwrap_or(&empty).clone();
        let edge = &status["edge"];
        let hears_leader = edge.is_null() && text(&status["lease"]["state"]) != "none";
        if hears_leader {
            let leader = text(&status["leader"]["name"]);
            self.fact("leader".into(), leader.clone(), format!("{leader} leads the ledger"));
            for project in list("projects") {
                let (name, primary) = (text(&project["name"]), text(&project["primary"]));
                let line = format!("project {name}: primary {primary}, epoch {}", project["epoch"]);
                // an older epoch is the view of a slower node, not news
                let epoch = format!("{:012}", project["epoch"].as_u64().unwrap_or(0));
                let key = format!("project/{name}");
                if self.facts.get(&key).is_none_or(|known| *known < epoch) {
                    self.fact(key, epoch, line);
                }
            }
        }
        // the others may hear of it later, and it would be told to be over
        if text(&status["lease"]["state"]) == "leader" {
            self.drill(&status["drill"]);
        }
        let lease = if !edge.is_null() {
            match edge["heard_seconds_ago"].as_u64() {
                Some(ago) if ago < 10 => "hears the mesh",
                _ => "hears no replica and serves what it has kept",
            }
        } else if hears_leader {
            "hears the leader"
        } else {
            "does not hear a leader: pushes wait, pulls continue"
        };
        self.fact(format!("lease/{seer}"), lease.into(), format!("{seer} {lease}"));
        for node in list("nodes") {
            let (name, state) = (text(&node["name"]), text(&node["state"]));
            if name != seer {
                self.fact(
                    format!("seen/{seer}/{name}"),
                    state.clone(),
                    format!("{seer} sees {name} {state}"),
                );
            }
        }
        for transfer in list("transfers") {
            self.transfer(seer, &transfer);
        }
    }

    fn drill(&mut self, drill: &Value) {
        let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
        let (key, until) = ("drill".to_owned(), text(&drill["until"]));
        match drill["region"].as_str() {
            Some(region) => {
                let line =
                    format!("a drill: the nodes of {region} refuse all clients until {until}");
                self.fact(key, format!("{region} {until}"), line);
            }
            None if self.facts.contains_key(&key) => {
                self.fact(key, "none".into(), "the drill is over".into());
            }
            None => {}
        }
    }

    fn transfer(&mut self, seer: &str, transfer: &Value) {
        // each transfer is shown once, by its receiver
        if transfer["direction"] != "in" {
            return;
        }
        let peer = transfer["peer"].as_str().unwrap_or("-").to_owned();
        let what = transfer["digest"]
            .as_str()
            .map_or("an upload".to_owned(), |d| d[..19.min(d.len())].to_owned());
        let key = (seer.to_owned(), peer.clone(), what.clone());
        if self.transfers.get(&key).is_some_and(|at| at.elapsed() < PROGRESS) {
            return;
        }
        self.transfers.retain(|_, at| at.elapsed() < PROGRESS * 10);
        self.transfers.insert(key, Instant::now());
        let mb = |v: &Value| v.as_u64().map(|b| format!("{:.1}", b as f64 / 1e6));
        let of = mb(&transfer["total"]).map_or(String::new(), |t| format!(" of {t}"));
        say(&format!(
            "{peer} -> {seer}: {what}, {}{of} MB",
            mb(&transfer["bytes"]).unwrap_or_default()
        ));
    }
}
