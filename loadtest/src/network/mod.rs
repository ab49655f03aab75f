//! A wide area network on one machine: a network namespace for each node, and between them a switch
//! of our own in user space.
//!
//! Everything that a node sends, QUIC and TCP alike, leaves its namespace through a TUN device that
//! this program reads. So a peer that speaks TLS over TCP meets the same delay, rate and loss as
//! the mesh does, and every byte is counted. Needs root. Namespaces have no name: they are held by
//! a sleeping process and go with it.

mod model;
mod switch;
mod tun;

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::process::{self, Running};

pub(crate) use model::{PROFILES, Profile, Traffic};

use model::Model;
use switch::Switch;

/// Runs `work` on a thread inside a network namespace. A socket stays in the namespace it was made
/// in.
pub(crate) fn inside<T: Send>(network: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(network)?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread in a namespace panicked")))
    })
}

/// Namespaces and what is between them. Dropping it takes all of it away.
#[derive(Debug)]
pub(crate) struct Network {
    model: Arc<Mutex<Model>>,
    _switch: Switch, // before what it stands on
    islands: Vec<Running>,
    _folder: TempDir,
}

impl Network {
    /// One namespace for each of `regions`, which says by number what region a node is in; the WAN
    /// is between different ones.
    ///
    /// # Errors
    /// Without root, `unshare`, `nsenter`, `ip` and `/dev/net/tun` there is none.
    pub(crate) fn raise(regions: &[usize]) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a WAN is made of network namespaces and TUN devices: run this as root"
        );
        let folder = TempDir::with_prefix("loadtest-network-")?;
        let names = 0..regions.len();
        let islands = names.map(|at| namespace(folder.path(), at)).collect::<Result<Vec<_>>>()?;
        let mut devices = Vec::new();
        for (at, island) in islands.iter().enumerate() {
            devices.push(inside(&file(island), tun::open)?.context("a TUN device (/dev/net/tun)")?);
            let mtu = format!("link set {} mtu 1500 txqueuelen 10000 up", tun::NAME);
            for what in
                ["link set lo up", &format!("addr add {}/16 dev {}", address(at), tun::NAME), &mtu]
            {
                succeed(enter(&file(island), Path::new("ip")).args(what.split(' ')))?;
            }
        }
        let model = Arc::new(Mutex::new(Model::new(regions)));
        let switch = Switch::start(devices, model.clone())?;
        let network = Network { model, _switch: switch, islands, _folder: folder };
        network.congestion("cubic")?;
        Ok(network)
    }

    /// The WAN is as this profile says from now on.
    pub(crate) fn profile(&self, profile: Profile) {
        self.model().profile = profile;
    }

    /// Nothing that one node sends arrives at the other from now on, or it does again.
    pub(crate) fn cut(&self, from: usize, to: usize, cut: bool) {
        self.model().cut[from][to] = cut;
    }

    /// Each node sends and receives no more than so many bytes a second from now on.
    pub(crate) fn limit_nodes(&self, bytes_per_second: Option<f64>) {
        self.model().node_rate = bytes_per_second;
    }

    /// The congestion control of TCP connections that are opened from now on. It is the route's,
    /// because the namespace's own setting takes only what the machine allows to everybody.
    pub(crate) fn congestion(&self, name: &str) -> Result<()> {
        for (at, island) in self.islands.iter().enumerate() {
            let route = format!(
                "route replace 10.64.0.0/16 dev {} proto kernel scope link src {}",
                tun::NAME,
                address(at)
            );
            let mut command = enter(&file(island), Path::new("ip"));
            succeed(command.args(route.split(' ')).args(["congctl", name]))?;
        }
        Ok(())
    }

    /// What crossed so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.model().traffic.clone()
    }

    /// The file of a node's namespace.
    pub(crate) fn namespace(&self, at: usize) -> PathBuf {
        file(&self.islands[at])
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

/// A node's address.
pub(crate) fn address(at: usize) -> String {
    format!("10.64.0.{}", at + 1)
}

/// `program` inside a namespace. `nsenter` replaces itself by it, so its pid is the program's.
pub(crate) fn enter(network: &Path, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", network.display())).arg(program);
    command
}

/// Runs a command to its end; what it printed.
pub(crate) fn succeed(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {said}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn file(island: &Running) -> PathBuf {
    format!("/proc/{}/ns/net", island.pid()).into()
}

fn namespace(folder: &Path, at: usize) -> Result<Running> {
    let ours = fs::read_link("/proc/self/ns/net")?;
    let log = folder.join(format!("{at}.log"));
    let mut holder =
        Running::start(Command::new("unshare").args(["--net", "sleep", "infinity"]), &log)?;
    process::until("a network namespace is made", Duration::from_secs(10), || {
        holder.must_run()?;
        Ok(fs::read_link(file(&holder)).ok().filter(|theirs| *theirs != ours))
    })?;
    Ok(holder)
}
