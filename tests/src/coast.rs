//! Three regions and an edge in the first, over a network that can be cut and narrowed, and clients
//! before it that no cut touches.
//!
//! The nodes stand in namespaces of their own, as the [`islands`](crate::islands) do. The clients
//! are where the test is: one link leads them to the edge, another to the replicas, so that an edge
//! that is cut off from every replica still has its clients, and they can go on to another node.
//! Dropping all of it takes the links along.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::MutexGuard;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::islands::{bridge, enter, ip, namespace};
use crate::member::{self, Member, Place};
use crate::process::{self, Running};
use crate::repository::Repository;
use crate::tools::packaged;
use crate::wait;

/// The number of the edge among the nodes; 0 to 2 are replicas, and 0 is in its region.
pub const EDGE: usize = 3;
const NODES: [(&str, &str); 4] = [
    ("east", "us-east-1"),
    ("west", "us-west-2"),
    ("central", "eu-central-1"),
    ("edge", "us-east-1"),
];

/// The mesh on its coast.
#[derive(Debug)]
pub struct Coast {
    nodes: Vec<Member>, // before what they stand on
    islands: Vec<Running>,
    sea: Running,
    password: String,
    folder: TempDir,
    _machine: MutexGuard<'static, ()>,
}

impl Coast {
    /// Forms the mesh, all nodes with `more` in their settings.
    ///
    /// # Panics
    /// When a namespace cannot be made or the mesh does not form.
    #[must_use]
    pub fn raise(more: &str) -> Self {
        let machine = crate::whole_machine();
        let folder = TempDir::with_prefix("atoll-coast-").expect("a temporary folder");
        let sea = namespace(folder.path(), "sea");
        let islands = NODES.map(|(name, _)| namespace(folder.path(), name)).into();
        let mut all = Self {
            nodes: Vec::new(),
            islands,
            sea,
            password: String::new(),
            folder,
            _machine: machine,
        };
        all.dig();
        all.form(more);
        all
    }

    fn dig(&self) {
        bridge(&self.sea, &self.islands, address);
        // ours are the ends with a number in their names: two runs may share a network
        let (pid, sea, edge) = (std::process::id(), self.sea.pid(), self.islands[EDGE].pid());
        here(&format!("link add sea{pid} type veth peer name clients netns {sea}"));
        ip(&self.sea, "link set clients master bridge up");
        here(&format!("addr add {}/24 dev sea{pid}", clients()));
        here(&format!("link set sea{pid} up"));
        here(&format!("link add edge{pid} type veth peer name clients netns {edge}"));
        ip(&self.islands[EDGE], "addr add 10.67.0.1/24 dev clients");
        ip(&self.islands[EDGE], "link set clients up");
        here(&format!("addr add 10.67.0.254/24 dev edge{pid}"));
        here(&format!("link set edge{pid} up"));
    }

    fn form(&mut self, more: &str) {
        for (at, (name, region)) in NODES.iter().enumerate() {
            let mesh = format!("{}:7400", address(at));
            let place = Place { http: host(at), mesh, network: Some(self.network(at)) };
            let role = if at == EDGE { "role: edge\n" } else { "" };
            let node =
                Member::new(self.folder.path(), name, region, place, "", &format!("{role}{more}"));
            match at {
                0 => self.password = node.init(),
                EDGE => node.must_join(&self.nodes[0].invite_as("edge")),
                _ => node.must_join(&self.nodes[0].invite()),
            }
            node.serve();
            node.wait_ready();
            self.nodes.push(node);
        }
        self.settle();
    }

    /// Brings back everything that was killed, stopped, cut off or narrowed, and waits until all
    /// nodes see each other.
    ///
    /// # Panics
    /// When they do not for too long.
    pub fn settle(&self) {
        for at in 0..NODES.len() {
            self.heal(at);
            self.widen(at);
            if self.nodes[at].runs() {
                self.nodes[at].signal(Signal::CONT);
            } else {
                self.nodes[at].serve();
            }
        }
        for at in 0..NODES.len() {
            self.nodes[at].wait_ready();
        }
        for (at, (name, _)) in NODES.iter().enumerate() {
            wait::until_ok(&format!("{name} sees all four"), || {
                let status = self.status(at)?;
                let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
                let well =
                    nodes.len() == NODES.len() && nodes.iter().all(|node| node["state"] == "up");
                if well { Ok(()) } else { Err(status["nodes"].to_string()) }
            });
        }
        // what it has not kept it must ask a replica for, whatever gossip says
        wait::until_ok("the edge reaches a replica", || {
            let answer = self.nodes[EDGE].anyone().get("/v2/demo/nothing/manifests/nothing");
            let answer = answer.map_err(|none| none.to_string())?;
            if answer.status == 404 { Ok(()) } else { Err(answer.to_string()) }
        });
    }

    /// `ADDRESS:PORT` of a node for the clients.
    #[must_use]
    pub fn host(&self, at: usize) -> String {
        host(at)
    }

    /// The administrator, at a node.
    #[must_use]
    pub fn client(&self, at: usize) -> Client {
        Client::of(&host(at)).basic("admin", &self.password)
    }

    /// A repository at a node, as the administrator.
    #[must_use]
    pub fn repository(&self, at: usize, name: &str) -> Repository {
        Repository::new(&self.client(at), name)
    }

    /// A node: to be killed, stopped, started again.
    #[must_use]
    pub fn node(&self, at: usize) -> &Member {
        &self.nodes[at]
    }

    /// The number of the node with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<usize> {
        NODES.iter().position(|(known, _)| *known == name)
    }

    /// What a node says about the mesh, from beside it: cut off or not, it hears the question.
    ///
    /// # Errors
    /// When it does not say.
    pub fn status(&self, at: usize) -> Result<Value, String> {
        let beside = self.nodes[at].anyone().basic("admin", &self.password);
        member::status(&beside.patient_for(Duration::from_secs(5)))
    }

    /// Pulls a node's cable to the other nodes.
    pub fn cut(&self, at: usize) {
        ip(&self.sea, &format!("link set port{at} nomaster"));
    }

    /// Plugs it in again.
    pub fn heal(&self, at: usize) {
        ip(&self.sea, &format!("link set port{at} master bridge"));
    }

    /// Lets everything that a node receives from other nodes through a bottleneck of so many
    /// kilobits a second.
    pub fn narrow(&self, at: usize, kilobits: u32) {
        let bottleneck = format!(
            "qdisc replace dev port{at} root tbf rate {kilobits}kbit burst 32kb latency 50ms"
        );
        process::succeed(self.tc().args(bottleneck.split(' ')));
    }

    /// Takes the bottleneck away, if there is one.
    fn widen(&self, at: usize) {
        process::finish(self.tc().args(["qdisc", "del", "dev", &format!("port{at}"), "root"]));
    }

    fn tc(&self) -> Command {
        let mut command = enter(&self.sea);
        command.arg("tc");
        command
    }

    fn network(&self, at: usize) -> PathBuf {
        Path::new("/proc").join(self.islands[at].pid().to_string()).join("ns/net")
    }
}

/// The clients' address before the nodes: where an upstream can stand.
#[must_use]
pub fn clients() -> IpAddr {
    Ipv4Addr::new(10, 66, 0, 254).into()
}

fn address(at: usize) -> String {
    format!("10.66.0.{}", at + 1)
}

fn host(at: usize) -> String {
    if at == EDGE { "10.67.0.1:5000".into() } else { format!("{}:5000", address(at)) }
}

fn here(arguments: &str) {
    process::succeed(packaged("ip", "iproute2").args(arguments.split(' ')));
}
