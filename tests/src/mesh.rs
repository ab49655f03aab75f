//! `atoll up` as a stranger runs it, and what one can do to its nodes.
//!
//! `up` starts every node as a child and writes `mesh.json`. A node that dies stays down until it
//! is started again with the arguments in that file, which [`Mesh::start`] does here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::process::{self, Finished, Running};
use crate::repository::{Repository, create_project};
use crate::{member, tools, wait};

/// Settings for scenarios that count who was asked and what was sent: a machine that is busy for a
/// while is no stall and no death.
pub const UNHURRIED: [(&str, &str); 2] =
    [("deadlines.source_stall", "30s"), ("roster.suspect_to_down", "20s")];

/// A running mesh. Dropping it ends every process of it; if the scenario failed, the nodes' last
/// words are printed.
#[derive(Debug)]
pub struct Mesh {
    folder: PathBuf,
    up: Mutex<Running>,
    nodes: Vec<Node>,
    admin: (String, String),
    temporary: Option<TempDir>,
    environment: Vec<(String, String)>,
    _machine: MutexGuard<'static, ()>,
}

/// One node of it, as `mesh.json` tells.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Where it answers.
    pub url: String,
    /// Its data folder.
    pub data: PathBuf,
    start: Vec<String>,
    pid: Mutex<u32>,
    again: Mutex<Option<Running>>,
}

impl Node {
    /// The process id it has (or had last).
    #[must_use]
    pub fn pid(&self) -> u32 {
        *lock(&self.pid)
    }

    /// Whether its process runs.
    #[must_use]
    pub fn lives(&self) -> bool {
        process::lives(self.pid(), &self.name)
    }

    /// Stops its clock, as a paused virtual machine has it.
    pub fn pause(&self) {
        process::signal(self.pid(), Signal::STOP);
    }

    /// Lets it go on.
    pub fn wake(&self) {
        process::signal(self.pid(), Signal::CONT);
    }
}

impl Mesh {
    /// `count` nodes in a temporary folder, all of them ready.
    ///
    /// # Panics
    /// When they do not become ready.
    #[must_use]
    pub fn up(count: usize) -> Self {
        let temporary = TempDir::with_prefix("atoll-").expect("a temporary folder");
        let mut mesh = Self::up_in(&temporary.path().join("data"), count);
        mesh.temporary = Some(temporary);
        mesh
    }

    /// The same on a [`Disk`](crate::disk::Disk): every process of it has this in its environment.
    ///
    /// # Panics
    /// When they do not become ready.
    #[must_use]
    pub fn up_on(disk: &crate::disk::Disk, count: usize) -> Self {
        let temporary = TempDir::with_prefix("atoll-").expect("a temporary folder");
        let mut mesh = Self::up_in_with(&temporary.path().join("data"), count, disk.environment());
        mesh.temporary = Some(temporary);
        mesh
    }

    /// The same with some settings of every node changed (`("upstreams.fresh_for", "0s")`,
    /// `("drain", "1m")`): started, stopped, and started again.
    ///
    /// # Panics
    /// When they do not become ready, or there is no such setting.
    #[must_use]
    pub fn up_with(count: usize, changes: &[(&str, &str)]) -> Self {
        let temporary = TempDir::with_prefix("atoll-").expect("a temporary folder");
        let folder = temporary.path().join("data");
        let first = Self::up_in(&folder, count);
        let (well, left) = first.stop(Signal::INT);
        assert!(well && left.is_empty(), "atoll up ended well: {well}; still running: {left:?}");
        let files: Vec<_> = first.nodes.iter().map(|node| node.data.join("node.yaml")).collect();
        drop(first);
        for (file, (setting, value)) in
            files.iter().flat_map(|file| changes.iter().map(move |change| (file, change)))
        {
            change(file, setting, value);
        }
        let mut mesh = Self::up_in(&folder, count);
        mesh.temporary = Some(temporary);
        mesh
    }

    /// The same in a folder that outlives the mesh.
    ///
    /// # Panics
    /// When they do not become ready.
    #[must_use]
    pub fn up_in(folder: &Path, count: usize) -> Self {
        Self::up_in_with(folder, count, Vec::new())
    }

    fn up_in_with(folder: &Path, count: usize, environment: Vec<(String, String)>) -> Self {
        let machine = crate::whole_machine();
        std::fs::create_dir_all(folder).expect("a folder for the mesh");
        let described = folder.join("mesh.json");
        let mut command = Command::new(tools::atoll());
        command.arg("up").arg("--data").arg(folder).args([
            "--port",
            "0",
            "--nodes",
            &count.to_string(),
        ]);
        command.envs(environment.iter().cloned());
        let mut up = Running::start(&mut command, &folder.with_extension("up.log"));
        // an earlier start may have left one: it is this start's when the processes it names run
        let described = wait::until("mesh.json tells of running nodes", || {
            assert!(up.ended().is_none(), "atoll up ended at once:\n{}", up.last_words());
            let told: Value = serde_json::from_slice(&std::fs::read(&described).ok()?).ok()?;
            let nodes: Vec<_> = told["nodes"].as_array()?.iter().map(node).collect();
            (nodes.len() == count && nodes.iter().all(Node::lives)).then_some(told)
        });
        let mesh = Self {
            folder: folder.to_owned(),
            up: Mutex::new(up),
            nodes: described["nodes"]
                .as_array()
                .expect("mesh.json has nodes")
                .iter()
                .map(node)
                .collect(),
            admin: admin(&described),
            temporary: None,
            environment,
            _machine: machine,
        };
        for at in 0..count {
            mesh.wait_ready(at);
        }
        mesh.primary_of("demo");
        mesh
    }

    /// The nodes, in the order of `mesh.json`.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The administrator's name and password.
    #[must_use]
    pub fn admin(&self) -> (&str, &str) {
        (&self.admin.0, &self.admin.1)
    }

    /// The administrator, at a node.
    #[must_use]
    pub fn client(&self, at: usize) -> Client {
        Client::of(&self.nodes[at].url).basic(&self.admin.0, &self.admin.1)
    }

    /// An anonymous client at a node.
    #[must_use]
    pub fn anyone(&self, at: usize) -> Client {
        Client::of(&self.nodes[at].url)
    }

    /// A repository at a node, as the administrator.
    #[must_use]
    pub fn repository(&self, at: usize, name: &str) -> Repository {
        Repository::new(&self.client(at), name)
    }

    /// Makes a project.
    ///
    /// # Panics
    /// When the mesh refuses.
    pub fn create_project(&self, name: &str, public: bool, durability: u8) {
        create_project(&self.client(0), name, public, durability);
    }

    /// What a node says about the mesh.
    ///
    /// # Errors
    /// When it does not say.
    pub fn status(&self, at: usize) -> Result<Value, String> {
        member::status(&self.client(at))
    }

    /// The node that is primary of a project: what the first living node that knows says, if that
    /// node lives itself.
    ///
    /// # Panics
    /// When there is none for too long.
    pub fn primary_of(&self, project: &str) -> usize {
        wait::until("the project has a primary", || {
            let living = (0..self.nodes.len()).filter(|at| self.nodes[*at].lives());
            let said = living
                .filter_map(|at| self.status(at).ok())
                .find_map(|status| primary(&status, project))?;
            self.nodes.iter().position(|node| node.name == said && node.lives())
        })
    }

    /// The node that leads the ledger.
    ///
    /// # Panics
    /// When there is none for too long.
    pub fn leader(&self) -> usize {
        wait::until("the ledger has a leader", || {
            let living = (0..self.nodes.len()).filter(|at| self.nodes[*at].lives());
            let said = living
                .filter_map(|at| self.status(at).ok())
                .find_map(|status| Some(status["leader"]["name"].as_str()?.to_owned()))?;
            self.nodes.iter().position(|node| node.name == said && node.lives())
        })
    }

    /// Waits until a node is ready: it knows a leader and may answer reads.
    ///
    /// # Panics
    /// When it is not for too long, or its process has ended.
    pub fn wait_ready(&self, at: usize) {
        let node = &self.nodes[at];
        wait::until_ok(&format!("{} is ready", node.name), || {
            assert!(node.lives(), "{} ended:\n{}", node.name, self.last_words(at));
            let answer = self
                .anyone(at)
                .patient_for(Duration::from_secs(5))
                .get("/readyz")
                .map_err(|none| none.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
        });
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&self, at: usize) {
        let node = &self.nodes[at];
        process::signal(node.pid(), Signal::KILL);
        if let Some(mut running) = lock(&node.again).take() {
            running.stop(Signal::KILL, wait::PATIENCE); // reaped here: nobody else can
        }
        wait::until("a killed process is gone", || (!node.lives()).then_some(()));
    }

    /// SIGTERM, and waits until the process is gone.
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(&self, at: usize) {
        let node = &self.nodes[at];
        process::signal(node.pid(), Signal::TERM);
        let again = lock(&node.again).take();
        wait::until(&format!("{} has ended by SIGTERM", node.name), || {
            (!node.lives()).then_some(())
        });
        drop(again); // reaped
    }

    /// `kill -9` of all nodes at once, as if the power went.
    pub fn kill_all(&self) {
        for node in &self.nodes {
            process::signal(node.pid(), Signal::KILL);
        }
        for at in 0..self.nodes.len() {
            self.kill(at);
        }
    }

    /// Starts a dead node again as `mesh.json` says.
    ///
    /// # Panics
    /// When it is not dead, or cannot be started.
    pub fn start(&self, at: usize) {
        let node = &self.nodes[at];
        assert!(!node.lives(), "{} still runs", node.name);
        let mut command = Command::new(&node.start[0]);
        command.args(&node.start[1..]).envs(self.environment.iter().cloned());
        let running = Running::start(&mut command, &log(node));
        *lock(&node.pid) = running.pid();
        *lock(&node.again) = Some(running);
    }

    /// Sends `up` a signal and waits for its end; whether it ended well, and the nodes that
    /// outlived it.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&self, with: Signal) -> (bool, Vec<String>) {
        let ended = lock(&self.up).stop(with, wait::PATIENCE);
        let ended = ended.unwrap_or_else(|| {
            panic!("atoll up does not end on {with:?}:\n{}", lock(&self.up).last_words())
        });
        let left =
            self.nodes.iter().filter(|node| node.lives()).map(|node| node.name.clone()).collect();
        (ended.success(), left)
    }

    /// All that a node has said.
    ///
    /// # Panics
    /// When its log cannot be read.
    #[must_use]
    pub fn words(&self, at: usize) -> String {
        let file = log(&self.nodes[at]);
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// The last lines of a node's log.
    #[must_use]
    pub fn last_words(&self, at: usize) -> String {
        process::tail(&log(&self.nodes[at]), 60)
    }

    /// Runs `atoll ...` to its end, as a user of this machine would.
    pub fn atoll(&self, arguments: &[&str]) -> Finished {
        process::finish(Command::new(tools::atoll()).args(arguments).current_dir(&self.folder))
    }

    /// The folder it lives in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- atoll up\n{}", lock(&self.up).last_words());
            for at in 0..self.nodes.len() {
                eprintln!(
                    "--- {} (pid {})\n{}",
                    self.nodes[at].name,
                    self.nodes[at].pid(),
                    self.last_words(at)
                );
            }
        }
        for node in &self.nodes {
            node.wake(); // a paused process hears nothing else
            drop(lock(&node.again).take());
        }
        if lock(&self.up).stop(Signal::TERM, Duration::from_secs(30)).is_none() {
            lock(&self.up).stop(Signal::KILL, wait::PATIENCE);
        }
        for node in self.nodes.iter().filter(|node| node.lives()) {
            process::signal(node.pid(), Signal::KILL);
        }
        if let Some(folder) = self
            .temporary
            .take()
            .filter(|_| std::thread::panicking() && std::env::var_os("ATOLL_KEEP").is_some())
        {
            eprintln!("--- kept: {}", folder.keep().display());
        }
    }
}

/// The primary of a project by a node's status, once it has one.
#[must_use]
pub fn primary(status: &Value, project: &str) -> Option<String> {
    let projects = status["projects"].as_array()?;
    let found = projects.iter().find(|one| one["name"] == project)?;
    Some(found["primary"].as_str()?.to_owned())
}

fn node(told: &Value) -> Node {
    let text = |field: &str| {
        told[field].as_str().unwrap_or_else(|| panic!("mesh.json: {field} of {told}")).to_owned()
    };
    let start: Option<Vec<_>> = told["start"]
        .as_array()
        .map(|all| all.iter().filter_map(|arg| Some(arg.as_str()?.to_owned())).collect());
    let pid = told["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    Node {
        name: text("name"),
        region: text("region"),
        url: text("url"),
        data: text("data_dir").into(),
        start: start.filter(|argv| !argv.is_empty()).expect("mesh.json tells how to start a node"),
        pid: Mutex::new(pid.expect("mesh.json tells a node's pid")),
        again: Mutex::new(None),
    }
}

fn admin(told: &Value) -> (String, String) {
    let user =
        told["admin"]["user"].as_str().expect("mesh.json names the administrator").to_owned();
    let file =
        told["admin"]["password_file"].as_str().expect("mesh.json names the password's file");
    let password = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    (user, password.trim().to_owned())
}

/// Writes another value into a `node.yaml` that spells out every setting.
fn change(file: &Path, setting: &str, value: &str) {
    let text =
        std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let (heading, start) = match setting.split_once('.') {
        Some((group, key)) => (Some(format!("{group}:")), format!("  {key}: ")),
        None => (None, format!("{setting}: ")),
    };
    let (mut within, mut found) = (heading.is_none(), false);
    let lines = text.lines().map(|line| {
        if let Some(heading) = heading.as_ref().filter(|_| !line.starts_with(' ')) {
            within = line == heading;
        }
        let wanted = within && line.starts_with(&start);
        found |= wanted;
        if wanted { format!("{start}{value}\n") } else { format!("{line}\n") }
    });
    let changed: String = lines.collect();
    assert!(found, "{} has no {setting}:\n{text}", file.display());
    std::fs::write(file, changed).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

fn log(node: &Node) -> PathBuf {
    node.data.join("atoll.log")
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(|broken| broken.into_inner())
}
