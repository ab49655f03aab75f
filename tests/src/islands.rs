//! Nodes in network namespaces of their own, on one bridge, each of which can be unplugged.
//!
//! Every namespace is held by a sleeping process and has no name: when the process is gone, the
//! kernel takes links, bridge and addresses away with it, and two runs side by side cannot see each
//! other. An unplugged node keeps its link up and hears nothing more, the way a cut cable in the
//! middle of the sea behaves: no reset, no unreachable, silence. The test speaks to a node from
//! inside the node's own namespace, so a cut is between nodes, never between a node and its
//! clients.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::MutexGuard;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::member::{self, Member, Place};
use crate::process::{self, Running};
use crate::repository::Repository;
use crate::tools::packaged;
use crate::wait;

const REGIONS: [&str; 3] = ["us-east-1", "us-west-2", "eu-central-1"];

/// Three nodes over a network, formed with `init`, `invite` and `join` as an operator would.
#[derive(Debug)]
pub struct Islands {
    nodes: Vec<Member>, // before what they stand on
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
        Self::raise_with("")
    }

    /// The same with `more` in the settings of all nodes.
    ///
    /// # Panics
    /// When a namespace cannot be made or the mesh does not form.
    #[must_use]
    pub fn raise_with(more: &str) -> Self {
        let machine = crate::whole_machine();
        let folder = TempDir::with_prefix("atoll-islands-").expect("a temporary folder");
        let sea = namespace(folder.path(), "sea");
        let islands = REGIONS.map(|region| namespace(folder.path(), region)).into();
        let mut all = Self {
            nodes: Vec::new(),
            islands,
            sea,
            password: String::new(),
            folder,
            _machine: machine,
        };
        bridge(&all.sea, &all.islands, address);
        all.form(more);
        all
    }

    fn form(&mut self, more: &str) {
        for (at, region) in REGIONS.iter().enumerate() {
            let here = address(at);
            let place = Place {
                http: format!("{here}:5000"),
                mesh: format!("{here}:7400"),
                network: Some(self.network(at)),
            };
            let node = Member::new(self.folder.path(), region, region, place, "", more);
            if at == 0 {
                self.password = node.init();
            } else {
                node.must_join(&self.nodes[0].invite());
            }
            node.serve();
            node.wait_ready();
            self.nodes.push(node);
        }
        wait::until("the ledger has three voters", || {
            let status = self.status(0).ok()?;
            (status["ledger"]["voters"].as_array()?.len() == REGIONS.len()).then_some(())
        });
    }

    /// Lets everything that a node receives through a bottleneck of so many kilobits a second, from
    /// now on.
    pub fn narrow(&self, at: usize, kilobits: u32) {
        // a short queue: what waits in it is late by 50 ms at most, so that only the blobs are slow
        let bottleneck = format!(
            "qdisc replace dev port{at} root tbf rate {kilobits}kbit burst 32kb latency 50ms"
        );
        process::succeed(enter(&self.sea).arg("tc").args(bottleneck.split(' ')));
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&self, at: usize) {
        self.nodes[at].stop(Signal::KILL);
    }

    /// Starts a killed node again, and waits until it is ready.
    pub fn start(&self, at: usize) {
        self.nodes[at].serve();
        self.nodes[at].wait_ready();
    }

    /// Pulls a node's cable.
    pub fn cut(&self, at: usize) {
        ip(&self.sea, &format!("link set port{at} nomaster"));
    }

    /// Plugs it in again.
    pub fn heal(&self, at: usize) {
        ip(&self.sea, &format!("link set port{at} master bridge"));
    }

    /// Two nodes do not hear each other any more, and both hear the third, or they do again.
    pub fn part(&self, one: usize, other: usize, parted: bool) {
        let word = if parted { "on" } else { "off" };
        for at in [one, other] {
            // isolated ports of a bridge pass on nothing to each other
            ip(&self.sea, &format!("link set port{at} type bridge_slave isolated {word}"));
        }
    }

    /// Whether one island hears another at all.
    #[must_use]
    pub fn hears(&self, from: usize, to: usize) -> bool {
        let client = self.anyone(to).inside(self.network(from)).patient_for(Duration::from_secs(3));
        client.get("/readyz").is_ok()
    }

    /// The administrator, at a node, from inside that node's island.
    #[must_use]
    pub fn client(&self, at: usize) -> Client {
        self.nodes[at].anyone().basic("admin", &self.password)
    }

    /// An anonymous client at a node.
    #[must_use]
    pub fn anyone(&self, at: usize) -> Client {
        self.nodes[at].anyone()
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
        REGIONS
            .iter()
            .position(|region| *region == name)
            .unwrap_or_else(|| panic!("no node is called {name}"))
    }

    /// The region (and the name) of a node.
    #[must_use]
    pub fn region(at: usize) -> &'static str {
        REGIONS[at]
    }

    /// What a node says about the mesh.
    ///
    /// # Errors
    /// When it does not say.
    pub fn status(&self, at: usize) -> Result<Value, String> {
        member::status(&self.client(at))
    }

    fn network(&self, at: usize) -> PathBuf {
        format!("/proc/{}/ns/net", self.islands[at].pid()).into()
    }
}

fn address(at: usize) -> String {
    format!("10.64.0.{}", at + 1)
}

/// A bridge in the sea, and a cable from it to every island, whose address it is told.
pub(crate) fn bridge(sea: &Running, islands: &[Running], address: fn(usize) -> String) {
    for command in ["link add bridge type bridge", "link set bridge up"] {
        ip(sea, command);
    }
    for (at, island) in islands.iter().enumerate() {
        ip(sea, &format!("link add port{at} type veth peer name shore netns {}", island.pid()));
        ip(sea, &format!("link set port{at} master bridge up"));
        ip(island, "link set lo up");
        ip(island, &format!("addr add {}/24 dev shore", address(at)));
        ip(island, "link set shore up");
    }
}

/// A network namespace, held by a process that does nothing else.
pub(crate) fn namespace(folder: &Path, name: &str) -> Running {
    let ours = std::fs::read_link("/proc/self/ns/net").expect("/proc is mounted");
    let mut command = packaged("unshare", "util-linux");
    let mut holder = Running::start(
        command.args(["--net", "sleep", "infinity"]),
        &folder.join(format!("{name}.ns.log")),
    );
    wait::until("a network namespace is made (this needs root)", || {
        assert!(holder.ended().is_none(), "no network namespace: {}", holder.last_words());
        let theirs = std::fs::read_link(format!("/proc/{}/ns/net", holder.pid())).ok()?;
        (theirs != ours).then_some(())
    });
    holder
}

/// A command inside a namespace. `nsenter` replaces itself by it, so its pid is the command's.
pub(crate) fn enter(island: &Running) -> Command {
    let mut command = packaged("nsenter", "util-linux");
    command.arg(format!("--net=/proc/{}/ns/net", island.pid()));
    command
}

pub(crate) fn ip(island: &Running, arguments: &str) {
    let _ = packaged("ip", "iproute2");
    process::succeed(enter(island).arg("ip").args(arguments.split(' ')));
}
