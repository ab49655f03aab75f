//! `atoll up` as a stranger runs it: a whole mesh on this machine, known only by what its
//! `mesh.json` and its API say.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rules::words::secret::Secret;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{self, Running, Signal};
use crate::wire::{Request, Sink, Target};

/// Long enough for anything a healthy mesh does, on a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A running mesh. Dropping it ends every process of it.
#[derive(Debug)]
pub(crate) struct Mesh {
    /// Its nodes, in the order of `mesh.json`.
    pub(crate) nodes: Vec<Node>,
    user: String,
    password: Secret,
    up: Running,
    folder: TempDir,
}

/// One node, as `mesh.json` tells.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Its process id, the latest if it was started again.
    pub(crate) pid: u32,
    target: Target,
    start: Vec<String>,
    again: Option<Running>,
}

impl Mesh {
    /// Starts `nodes` nodes with the product's defaults and waits until all of them are ready.
    pub(crate) fn up(atoll: &Path, nodes: usize) -> Result<Self> {
        Self::up_with_edges(atoll, nodes, 0)
    }

    /// The same, with edges; they come last among the nodes.
    pub(crate) fn up_with_edges(atoll: &Path, replicas: usize, edges: usize) -> Result<Self> {
        let nodes = replicas + edges;
        let folder = TempDir::with_prefix("loadtest-atoll-")?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        let mut command = Command::new(atoll);
        command.arg("up").arg("--data").arg(&data).args([
            "--port",
            "0",
            "--nodes",
            &replicas.to_string(),
        ]);
        if edges > 0 {
            command.args(["--edges", &edges.to_string()]);
        }
        let mut up = Running::start(&mut command, &folder.path().join("up.log"))?;
        let described = process::until("mesh.json tells the nodes' process ids", PATIENCE, || {
            up.must_run()?;
            let text = std::fs::read(data.join("mesh.json")).ok();
            Ok(text
                .and_then(|text| serde_json::from_slice::<Value>(&text).ok())
                .filter(all_started))
        })?;
        let (user, password) = admin(&described["admin"])?;
        let told = described["nodes"].as_array().context("mesh.json has no nodes")?;
        let told = told.iter().map(Node::told).collect::<Result<Vec<_>>>()?;
        ensure!(
            told.len() == nodes,
            "mesh.json names {} nodes, {nodes} were asked for",
            told.len()
        );
        let mut mesh = Mesh { nodes: told, user, password, up, folder };
        for at in 0..nodes {
            process::until("every node is ready", PATIENCE, || {
                mesh.up.must_run()?;
                Ok(mesh.is_ready(at).then_some(()))
            })?;
        }
        // readiness says that reads are answered, not that the administrator has been made yet
        process::until("the administrator is let in", PATIENCE, || {
            mesh.up.must_run()?;
            Ok((0..nodes).all(|at| mesh.status(at).is_ok()).then_some(()))
        })?;
        Ok(mesh)
    }

    /// Fails, with the last words of `up`, if a node has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        self.up.must_run()?;
        match self.nodes.iter().find(|node| !node.lives()) {
            None => Ok(()),
            Some(node) => bail!("{} has ended:\n{}", node.name, self.up.last_words()),
        }
    }

    /// The process ids of its nodes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.pid).collect()
    }

    /// A node's address, as the administrator.
    pub(crate) fn target(&self, at: usize) -> Target {
        self.nodes[at].target.clone().basic(&self.user, self.password.expose())
    }

    /// Whether a node says that it is ready.
    pub(crate) fn is_ready(&self, at: usize) -> bool {
        let mut client = self.nodes[at].target.client().patient_for(Duration::from_secs(5));
        client.get("/readyz").is_ok_and(|answer| answer.status == 200)
    }

    /// Makes a public project whose writes are durable in so many regions before they are
    /// acknowledged.
    pub(crate) fn create_project(&self, name: &str, durability: u8) -> Result<()> {
        let project = json!({
            "project_name": name,
            "metadata": { "public": "true", "durability": durability.to_string() },
        });
        let body = project.to_string().into_bytes();
        let body: [&[u8]; 1] = [&body];
        let headers = [("Content-Type", "application/json")];
        let request = Request::new("POST", "/api/v2.0/projects").headers(&headers).body(&body);
        let mut said = Vec::new();
        let answer = self.target(0).client().send(&request, &mut Sink::Keep(&mut said))?;
        let said = String::from_utf8_lossy(&said);
        ensure!(answer.status == 201, "making project {name}: status {}: {said}", answer.status);
        Ok(())
    }

    /// What a node says about the mesh.
    pub(crate) fn status(&self, at: usize) -> Result<Value> {
        let mut body = Vec::new();
        let mut client = self.target(at).client().patient_for(Duration::from_secs(5));
        let answer = client
            .send(&Request::new("GET", "/api/atoll/v1/status"), &mut Sink::Keep(&mut body))?;
        ensure!(answer.status == 200, "status of {}: {}", self.nodes[at].name, answer.status);
        Ok(serde_json::from_slice(&body)?)
    }

    /// Which node is the primary of a project, once all living nodes say the same.
    pub(crate) fn primary(&self, project: &str) -> Result<usize> {
        process::until("the nodes agree who is primary", PATIENCE, || {
            Ok(self.agreed_primary(project))
        })
    }

    /// Which node is the primary of a project, if all living nodes say the same one and it lives.
    pub(crate) fn agreed_primary(&self, project: &str) -> Option<usize> {
        let living = || (0..self.nodes.len()).filter(|at| self.nodes[*at].lives());
        let said = living().map(|at| primary_in(&self.status(at).ok()?, project));
        let said = said.collect::<Option<Vec<_>>>()?;
        let first = said.first().filter(|first| said.iter().all(|other| other == *first))?;
        living().find(|at| self.nodes[*at].name == *first)
    }

    /// Whether every node is ready and takes every other for alive.
    pub(crate) fn is_whole(&self) -> bool {
        let all = 0..self.nodes.len();
        let sees_all =
            |at| self.status(at).is_ok_and(|status| alive_in(&status) == self.nodes.len());
        all.clone().all(|at| self.is_ready(at)) && all.clone().all(sees_all)
    }

    /// The bytes of a node's ledger on the disk.
    pub(crate) fn ledger_bytes(&self, at: usize) -> Result<u64> {
        let file = self.folder.path().join("data").join(&self.nodes[at].name);
        let file = file.join("ledger/ledger.redb");
        let found = std::fs::metadata(&file);
        Ok(found.with_context(|| format!("there is no {}", file.display()))?.len())
    }

    /// A file beside the nodes' folders.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The settings of a node.
    pub(crate) fn settings(&self, at: usize) -> PathBuf {
        self.folder.path().join("data").join(&self.nodes[at].name).join("node.yaml")
    }

    /// `kill -9`, without waiting for anything.
    pub(crate) fn kill(&mut self, at: usize) {
        process::signal(self.nodes[at].pid, Signal::KILL);
    }

    /// Starts a dead node again as `mesh.json` says.
    pub(crate) fn start(&mut self, at: usize) -> Result<()> {
        let log = self.folder.path().join(format!("{}-again.log", self.nodes[at].name));
        let node = &mut self.nodes[at];
        node.again = None; // reaps the one before
        process::until("the killed process is gone", PATIENCE, || {
            Ok((!node.lives()).then_some(()))
        })?;
        let Some((program, arguments)) = node.start.split_first() else {
            bail!("{} has no start", node.name)
        };
        let running = Running::start(Command::new(program).args(arguments), &log)?;
        node.pid = running.pid();
        node.again = Some(running);
        Ok(())
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.again = None);
        if !self.up.stop(Signal::TERM, Duration::from_secs(30)) {
            self.up.stop(Signal::KILL, Duration::from_secs(10));
        }
        for node in self.nodes.iter().filter(|node| node.lives()) {
            process::signal(node.pid, Signal::KILL);
        }
    }
}

impl Node {
    fn told(told: &Value) -> Result<Self> {
        let text = |field: &str| {
            told[field].as_str().with_context(|| format!("mesh.json: {field} of {told}"))
        };
        let pid = told["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let start = told["start"].as_array().into_iter().flatten();
        let target = Target::of_url(text("url")?)?;
        Ok(Node {
            name: text("name")?.to_owned(),
            pid: pid.with_context(|| format!("mesh.json: pid of {told}"))?,
            target,
            start: start.filter_map(|argument| Some(argument.as_str()?.to_owned())).collect(),
            again: None,
        })
    }

    /// Its address, for anonymous clients.
    pub(crate) fn anonymous(&self) -> Target {
        self.target.clone()
    }

    /// Whether its process runs.
    pub(crate) fn lives(&self) -> bool {
        process::lives(self.pid, &self.name)
    }
}

/// Whether every node has a process: `mesh.json` is there before they are started, with 0 for their
/// ids.
fn all_started(described: &Value) -> bool {
    described["nodes"]
        .as_array()
        .is_some_and(|nodes| nodes.iter().all(|node| node["pid"].as_u64() > Some(0)))
}

/// The administrator's name and password.
fn admin(told: &Value) -> Result<(String, Secret)> {
    let user = told["user"].as_str().context("mesh.json names no administrator")?;
    let file = told["password_file"].as_str().context("mesh.json names no password file")?;
    let password = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    Ok((user.to_owned(), password.trim().into()))
}

/// The primary of a project by a node's status, if it has one.
fn primary_in(status: &Value, project: &str) -> Option<String> {
    let projects = status["projects"].as_array()?;
    let found = projects.iter().find(|one| one["name"] == project)?;
    Some(found["primary"].as_str()?.to_owned())
}

/// How many nodes a status takes for alive. One that does not say so about a node only lists it.
pub(crate) fn alive_in(status: &Value) -> usize {
    let down = |node: &&Value| {
        let word = ["state", "status", "health"].iter().find_map(|field| node[*field].as_str());
        let flag = ["up", "alive"].iter().find_map(|field| node[*field].as_bool());
        flag == Some(false)
            || word.is_some_and(|word| !matches!(word, "up" | "alive" | "ready" | "ok"))
    };
    status["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(|node| !down(node)).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_a_process_have_not_started() {
        assert!(!all_started(&json!({ "nodes": [{ "pid": 7 }, { "pid": 0 }] })));
        assert!(!all_started(&json!({ "nodes": [{}] })));
        assert!(all_started(&json!({ "nodes": [{ "pid": 7 }] })));
    }

    #[test]
    fn a_status_names_primaries_and_the_living() {
        let status = json!({
            "projects": [{ "name": "demo", "primary": "region-a" }, { "name": "new", "primary": null }],
            "nodes": [{ "name": "a", "state": "up" }, { "name": "b", "state": "down" }, { "name": "c" }],
        });
        assert_eq!(primary_in(&status, "demo").as_deref(), Some("region-a"));
        assert_eq!((primary_in(&status, "new"), primary_in(&status, "none")), (None, None));
        assert_eq!(alive_in(&status), 2);
    }
}
