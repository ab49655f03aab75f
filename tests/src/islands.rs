//! Nodes in network namespaces of their own, on one bridge, each of which can be unplugged.
//!
//! Every namespace is held by a sleeping process and has no name: when the process is gone, the kernel takes links, bridge and
//! addresses away with it, and two runs side by side cannot see each other. An unplugged node keeps its link up and hears nothing
//! more, the way a cut cable in the middle of the sea behaves: no reset, no unreachable, silence. The test speaks to a node from
//! inside the node's own namespace, so a cut is between nodes, never between a node and its clients.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::MutexGuard;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::process::{self, Running};
use crate::repository::Repository;
use crate::tools::{atoll, packaged};
use crate::wait;

const REGIONS: [&str; 3] = ["us-east-1", "us-west-2", "eu-central-1"];

/// Three nodes over a network, formed with `init`, `invite` and `join` as an operator would.
#[derive(Debug)]
pub struct Islands {
    nodes: Vec<Option<Running>>,
    islands: Vec<Running>,
    sea: Running,
    password: String,
    folder: TempDir,
    _machine: MutexGuard<'static, ()>,
}

impl Islands {
    /// Raises three islands and forms a mesh on them: all ready, three voters.
    ///
    /// # Panics
    /// When a namespace cannot be made or the mesh does not form.
    #[must_use]
    pub fn raise() -> Self {
        let machine = crate::whole_machine();
        let folder = TempDir::with_prefix("atoll-islands-").expect("a temporary folder");
        let sea = namespace(folder.path(), "sea");
        let islands = REGIONS.map(|region| namespace(folder.path(), region)).into();
        let mut all = Self { nodes: Vec::new(), islands, sea, password: String::new(), folder, _machine: machine };
        all.dig();
        all.form();
        all
    }

    /// The bridge in the sea, and a cable from it to every island.
    fn dig(&self) {
        for command in ["link add bridge type bridge", "link set bridge up"] {
            ip(&self.sea, command);
        }
        for (at, island) in self.islands.iter().enumerate() {
            ip(&self.sea, &format!("link add port{at} type veth peer name shore netns {}", island.pid()));
            ip(&self.sea, &format!("link set port{at} master bridge up"));
            ip(island, "link set lo up");
            ip(island, &format!("addr add {}/24 dev shore", address(at)));
            ip(island, "link set shore up");
        }
    }

    fn form(&mut self) {
        for (at, region) in REGIONS.iter().enumerate() {
            let here = address(at);
            let text = format!(
                "data_dir: {}\nname: {region}\nregion: {region}\nhttp:\n  listen: {here}:5000\nmesh:\n  listen: {here}:7400\n",
                self.data(at).display()
            );
            std::fs::write(self.config(at), text).expect("a configuration can be written");
            if at == 0 {
                process::succeed(self.atoll(0, "init").arg("--config").arg(self.config(0)));
                let file = self.data(0).join("admin-password");
                let password =
                    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                self.password = password.trim().to_owned();
            } else {
                let said = process::succeed(self.atoll(0, "invite").arg("--config").arg(self.config(0)));
                let token = said.lines().last().expect("invite prints a token").trim();
                process::succeed(self.atoll(at, "join").arg(token).arg("--config").arg(self.config(at)));
            }
            let mut serve = self.atoll(at, "serve");
            let running = Running::start(serve.arg("--config").arg(self.config(at)), &self.log(at));
            self.nodes.push(Some(running));
            self.wait_ready(at);
        }
        wait::until("the ledger has three voters", || {
            let status = self.status(0).ok()?;
            (status["ledger"]["voters"].as_array()?.len() == REGIONS.len()).then_some(())
        });
    }

    /// Pulls a node's cable.
    pub fn cut(&self, at: usize) {
        ip(&self.sea, &format!("link set port{at} nomaster"));
    }

    /// Plugs it in again.
    pub fn heal(&self, at: usize) {
        ip(&self.sea, &format!("link set port{at} master bridge"));
    }

    /// Whether one island hears another at all.
    #[must_use]
    pub fn hears(&self, from: usize, to: usize) -> bool {
        let network = format!("/proc/{}/ns/net", self.islands[from].pid());
        let client = self.anyone(to).inside(network.into()).patient_for(Duration::from_secs(3));
        client.get("/readyz").is_ok()
    }

    /// The administrator, at a node, from inside that node's island.
    #[must_use]
    pub fn client(&self, at: usize) -> Client {
        self.anyone(at).basic("admin", &self.password)
    }

    /// Nobody in particular, at a node.
    #[must_use]
    pub fn anyone(&self, at: usize) -> Client {
        let network = format!("/proc/{}/ns/net", self.islands[at].pid());
        Client::of(&format!("http://{}:5000", address(at))).inside(network.into())
    }

    /// A repository at a node, as the administrator.
    #[must_use]
    pub fn repository(&self, at: usize, name: &str) -> Repository {
        Repository::new(&self.client(at), name)
    }

    /// The node with this name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn named(&self, name: &str) -> usize {
        REGIONS.iter().position(|region| *region == name).unwrap_or_else(|| panic!("no node is called {name}"))
    }

    /// What a node says about the mesh.
    ///
    /// # Errors
    /// When it does not say.
    pub fn status(&self, at: usize) -> Result<Value, String> {
        let answer = self.client(at).get("/api/atoll/v1/status").map_err(|none| none.to_string())?;
        if answer.status == 200 { Ok(answer.json()) } else { Err(answer.to_string()) }
    }

    /// Waits until a node is ready.
    ///
    /// # Panics
    /// When it is not for too long.
    pub fn wait_ready(&self, at: usize) {
        wait::until_ok(&format!("{} is ready", REGIONS[at]), || {
            let answer =
                self.anyone(at).patient_for(Duration::from_secs(5)).get("/readyz").map_err(|none| none.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
        });
    }

    fn atoll(&self, at: usize, verb: &str) -> Command {
        let mut command = enter(&self.islands[at]);
        command.arg(atoll()).arg(verb);
        command
    }

    fn config(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("{}.yaml", REGIONS[at]))
    }

    fn data(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("{}.data", REGIONS[at]))
    }

    fn log(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("{}.log", REGIONS[at]))
    }
}

impl Drop for Islands {
    fn drop(&mut self) {
        for (at, node) in self.nodes.iter().enumerate() {
            if let Some(node) = node.as_ref().filter(|_| std::thread::panicking()) {
                eprintln!("--- {}\n{}", REGIONS[at], node.last_words());
            }
        }
        self.nodes.clear(); // the nodes first, while they still have a network
    }
}

fn address(at: usize) -> String {
    format!("10.64.0.{}", at + 1)
}

/// A network namespace, held by a process that does nothing else.
fn namespace(folder: &Path, name: &str) -> Running {
    let ours = std::fs::read_link("/proc/self/ns/net").expect("/proc is mounted");
    let mut command = packaged("unshare", "util-linux");
    let mut holder =
        Running::start(command.args(["--net", "sleep", "infinity"]), &folder.join(format!("{name}.ns.log")));
    wait::until("a network namespace is made (this needs root)", || {
        assert!(holder.ended().is_none(), "no network namespace: {}", holder.last_words());
        let theirs = std::fs::read_link(format!("/proc/{}/ns/net", holder.pid())).ok()?;
        (theirs != ours).then_some(())
    });
    holder
}

/// A command inside a namespace. `nsenter` replaces itself by it, so its pid is the command's.
fn enter(island: &Running) -> Command {
    let mut command = packaged("nsenter", "util-linux");
    command.arg(format!("--net=/proc/{}/ns/net", island.pid()));
    command
}

fn ip(island: &Running, arguments: &str) {
    let _ = packaged("ip", "iproute2");
    process::succeed(enter(island).arg("ip").args(arguments.split(' ')));
}
