//! The nodes that `atoll up` runs: created, found again, started and stopped.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use config::Settings;
use mesh::identity::{Authority, new_node_id, write_private};
use rules::ledger::records::{NodeRecord, Role};
use rules::words::secret::Secret;
use serde_json::{Value, json};

use super::client::Client;
use super::init::{ADMINISTRATOR, FIRST_PROJECT, issue, new_birth, new_password};
use super::shown::table;
use crate::start::https;
use crate::start::{identity_folder, node_record, public_url};

/// The regions of the local mesh.
const REGIONS: [&str; 3] = ["us-east-1", "us-west-2", "eu-central-1"];

/// The file with the password. It is written last, so it also shows that the mesh was created
/// completely.
const PASSWORD: &str = "admin-password";

/// The default port of the nodes.
const PORT: u16 = 5000;

/// The size and the port of the mesh.
#[derive(clap::Args)]
pub(super) struct Shape {
    /// The port of every node, each on its own address (127.0.0.1, .2, ...); 0 means any free
    /// ports. [default: 5000, or what the data folder already has]
    #[arg(long)]
    port: Option<u16>,
    /// The number of nodes, spread over the three regions. [default: 3, or what the data folder
    /// already has]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=60))]
    nodes: Option<u16>,
    /// The number of edges in addition. [default: 0, or what the data folder already has]
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=60))]
    edges: Option<u16>,
}

/// One node of the mesh, as `up` runs it.
pub(super) struct LocalNode {
    pub(super) name: String,
    pub(super) region: String,
    pub(super) role: Role,
    pub(super) url: String,
    /// Where it listens on this machine: `url` may lead elsewhere (`http.public_url`).
    pub(super) local_url: String,
    /// Its `http.tls.certificate`, if it speaks https.
    pub(super) certificate: Option<PathBuf>,
    pub(super) folder: PathBuf,
    pub(super) child: Option<Child>,
    pub(super) pid: u32,
}

impl LocalNode {
    /// A node that these settings describe; it does not run yet.
    fn of(settings: Settings, folder: PathBuf) -> io::Result<Self> {
        let tls = https::files(&settings);
        let certificate =
            tls.as_ref().map(|tls| std::path::absolute(&tls.certificate)).transpose()?;
        Ok(LocalNode {
            url: public_url(&settings),
            local_url: local_url(settings.http.listen, certificate.is_some()),
            certificate,
            name: settings.name,
            region: settings.region,
            role: settings.role,
            folder,
            child: None,
            pid: 0,
        })
    }

    /// Ready to ask it where it listens, as the administrator if the file with the password is
    /// given. Over https only the node's own certificate is believed.
    pub(super) fn client(&self, password: Option<&Path>) -> io::Result<Client> {
        let user = password.map(|file| (ADMINISTRATOR, file));
        let client = Client::new(&self.local_url, user, None)?;
        match &self.certificate {
            Some(certificate) => client.pinned(certificate),
            None => Ok(client),
        }
    }
}

/// The URL at which this machine reaches a node that listens at `listen`.
fn local_url(mut listen: SocketAddr, tls: bool) -> String {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("{}://{listen}", if tls { "https" } else { "http" })
}

/// The whole of it.
pub(super) struct LocalMesh {
    pub(super) data: PathBuf,
    pub(super) nodes: Vec<LocalNode>,
    executable: PathBuf,
    password: Option<Secret>,
}

/// The nodes that an earlier start created: those whose folders contain settings and an identity.
/// `mesh.json` is for scripts only and may be missing.
pub(super) fn find_nodes(data: &Path) -> io::Result<Option<Vec<LocalNode>>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data)? {
        let folder = entry?.path();
        let config = folder.join("node.yaml");
        if !config.exists() {
            continue;
        }
        let settings = super::load(&config)?;
        let listen = settings.http.listen;
        found.push((listen, LocalNode::of(settings, folder)?));
    }
    if found.is_empty() {
        return Ok(None);
    }
    if !data.join(PASSWORD).exists() {
        let message = format!(
            "{} holds nodes but was never finished; remove it, or give another --data",
            data.display()
        );
        return Err(io::Error::other(message));
    }
    found.sort_by_key(|(address, _)| *address);
    Ok(Some(found.into_iter().map(|(_, node)| node).collect()))
}

/// The replicas that vote first, one in each region. An edge has no ledger.
fn first_voters(records: &[NodeRecord]) -> Vec<NodeRecord> {
    let replicas = records.iter().filter(|record| record.role == Role::Replica);
    replicas.take(REGIONS.len()).cloned().collect()
}

impl LocalMesh {
    pub(super) fn again(data: PathBuf, nodes: Vec<LocalNode>, wanted: &Shape) -> io::Result<Self> {
        let edges = nodes.iter().filter(|n| n.role == Role::Edge).count();
        let other =
            |wanted: Option<u16>, there: usize| wanted.is_some_and(|n| usize::from(n) != there);
        if other(wanted.nodes, nodes.len() - edges) || other(wanted.edges, edges) {
            let message = format!(
                "{} holds a mesh of {} replicas and {edges} edges; leave --nodes and --edges out, give another --data, or add nodes with `atoll invite`",
                data.display(),
                nodes.len() - edges
            );
            return Err(io::Error::other(message));
        }
        let port = |node: &LocalNode| {
            node.local_url.rsplit(':').next().and_then(|p| p.parse::<u16>().ok())
        };
        if let Some(wanted) =
            wanted.port.filter(|p| *p != 0 && nodes.iter().any(|n| port(n) != Some(*p)))
        {
            let message = format!(
                "the nodes in {} do not listen on port {wanted}; leave --port out, or change http.listen and mesh.listen in each node.yaml",
                data.display()
            );
            return Err(io::Error::other(message));
        }
        Ok(LocalMesh { data, nodes, executable: std::env::current_exe()?, password: None })
    }

    /// Creates keys, settings and the birth file of a new mesh.
    pub(super) fn create(data: PathBuf, wanted: &Shape) -> io::Result<Self> {
        let (replicas, edges) = (wanted.nodes.unwrap_or(3), wanted.edges.unwrap_or(0));
        let port = wanted.port.unwrap_or(PORT);
        let authority = Authority::generate().map_err(io::Error::other)?;
        let password = new_password();
        let (mut nodes, mut records) = (Vec::new(), Vec::<NodeRecord>::new());
        for i in 0..replicas + edges {
            let (role, nth) =
                if i < replicas { (Role::Replica, i) } else { (Role::Edge, i - replicas) };
            let region = REGIONS[usize::from(nth) % REGIONS.len()];
            let word = if role == Role::Edge { "edge-" } else { "" };
            let name = format!("{region}-{word}{}", usize::from(nth) / REGIONS.len() + 1);
            let folder = data.join(&name);
            let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, i as u8 + 1));
            let mut settings = Settings::new(&folder, region);
            settings.name = name;
            settings.role = role;
            settings.http.listen = SocketAddr::new(ip, free_port(ip, port)?);
            settings.mesh.listen = SocketAddr::new(ip, settings.http.listen.port());
            // everything is on one machine, and so may be the upstreams
            settings.upstreams.allow_loopback = true;
            let mut identity = issue(&authority, new_node_id(), role)?;
            if role == Role::Edge {
                identity.authority.key.clear();
            }
            identity.save(&identity_folder(&folder)).map_err(io::Error::other)?;
            std::fs::write(folder.join("node.yaml"), config::render(&settings))?;
            let record = node_record(&settings, identity.node).map_err(io::Error::other)?;
            nodes.push(LocalNode::of(settings, folder)?);
            records.push(record);
        }
        for (node, record) in nodes.iter().zip(&records) {
            let others = records
                .iter()
                .filter(|r| r.id != record.id && r.role == Role::Replica)
                .map(|r| (r.id, r.address))
                .collect();
            mesh::members::keep_seeds(&node.folder, others).map_err(io::Error::other)?;
        }
        let durability = Settings::new(&data, REGIONS[0]).projects.durability;
        let voters = first_voters(&records);
        new_birth(&authority, &password, records, voters, durability)?.save(&nodes[0].folder)?;
        let world = LocalMesh {
            data,
            nodes,
            executable: std::env::current_exe()?,
            password: Some(password.clone()),
        };
        write_private(&world.password_file(), password.expose().as_bytes())
            .map_err(io::Error::other)?;
        Ok(world)
    }

    pub(super) fn password_file(&self) -> PathBuf {
        self.data.join(PASSWORD)
    }

    fn start_line(&self, node: &LocalNode) -> Vec<String> {
        let config = node.folder.join("node.yaml");
        let parts = [self.executable.as_path(), Path::new("serve"), Path::new("--config"), &config];
        parts.iter().map(|p| p.display().to_string()).collect()
    }

    /// Writes `mesh.json`, for scripts.
    fn write_mesh(&self) -> io::Result<()> {
        let nodes: Vec<Value> = self
            .nodes
            .iter()
            .map(|n| {
                json!({
                    "name": n.name, "region": n.region, "role": n.role.name(), "url": n.url, "local_url": n.local_url,
                    "certificate": n.certificate, "pid": n.pid, "data_dir": n.folder, "start": self.start_line(n),
                })
            })
            .collect();
        let mesh = json!({"nodes": nodes, "admin": {"user": ADMINISTRATOR, "password_file": self.password_file()}});
        let text = serde_json::to_string_pretty(&mesh).map_err(io::Error::other)?;
        write_private(&self.data.join("mesh.json"), text.as_bytes()).map_err(io::Error::other)
    }

    pub(super) fn start_all(&mut self) -> io::Result<()> {
        for i in 0..self.nodes.len() {
            self.spawn(i)?;
        }
        self.write_mesh()
    }

    /// Starts a node that is down.
    pub(super) fn start_node(&mut self, i: usize) -> io::Result<()> {
        self.spawn(i)?;
        self.write_mesh()
    }

    fn spawn(&mut self, i: usize) -> io::Result<()> {
        let line = self.start_line(&self.nodes[i]);
        let node = &mut self.nodes[i];
        let log = File::options().create(true).append(true).open(node.folder.join("atoll.log"))?;
        // its own process group, because Ctrl-C is for `up`, which drains the nodes; the open stdin
        // shows the node that `up` is alive
        let child = Command::new(&line[0])
            .args(&line[1..])
            .arg("--stop-with-stdin")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        node.pid = child.id();
        node.child = Some(child);
        Ok(())
    }

    /// The nodes that have ended since the last look, with their exit status.
    pub(super) fn reap(&mut self) -> Vec<(usize, ExitStatus)> {
        let mut ended = Vec::new();
        for (i, node) in self.nodes.iter_mut().enumerate() {
            if let Some(child) = &mut node.child
                && let Ok(Some(status)) = child.try_wait()
            {
                node.child = None;
                ended.push((i, status));
            }
        }
        ended
    }

    /// Kills a node without warning, as a crash would.
    pub(super) fn kill_node(&mut self, i: usize) -> io::Result<()> {
        match &mut self.nodes[i].child {
            Some(child) => child.kill(),
            None => Ok(()),
        }
    }

    /// Drains all nodes and waits for them.
    pub(super) fn stop_all(&mut self) -> io::Result<()> {
        for node in &mut self.nodes {
            if let Some(child) = &mut node.child
                && let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        let patience = Duration::from_secs(20);
        let started = std::time::Instant::now();
        for node in &mut self.nodes {
            let Some(mut child) = node.child.take() else { continue };
            loop {
                match child.try_wait()? {
                    Some(_) => break,
                    None if started.elapsed() > patience => {
                        println!("{} did not drain in time and was killed", node.name);
                        child.kill()?;
                        child.wait()?;
                        break;
                    }
                    None => std::thread::sleep(Duration::from_millis(50)),
                }
            }
        }
        Ok(())
    }

    /// The text that a user needs to begin.
    pub(super) fn introduction(&self) -> String {
        let row = |n: &LocalNode| {
            vec![
                n.name.clone(),
                n.region.clone(),
                n.role.name().into(),
                n.url.clone(),
                n.pid.to_string(),
            ]
        };
        let mut out =
            table(&["NODE", "REGION", "ROLE", "URL", "PID"], self.nodes.iter().map(row).collect());
        let host = |i: usize| {
            let url = &self.nodes[i % self.nodes.len()].url;
            url.split_once("://").map_or(url.as_str(), |(_, host)| host).to_owned()
        };
        let (first, second) = (host(0), host(1));
        let file = self.password_file().display().to_string();
        if let Some(password) = &self.password {
            out.push_str(&format!(
                "\nAdministrator: {ADMINISTRATOR}, password: {}\n  (shown once; kept in {file})\n",
                password.expose()
            ));
        }
        out.push_str(&format!(
            "\nPush to one region, pull from another:\n\
             {}\
             \n{}\n\
             \x20 kill -9 {}\n\
             \x20 {}\n\
             \nLook:  {} status --data {}\n",
            lines(
                &clients_on(&std::env::var_os("PATH").unwrap_or_default()),
                &first,
                &second,
                &file
            ),
            match self.nodes.iter().filter(|node| node.role == Role::Replica).count() {
                // half of two is no majority
                1 | 2 => "Kill a node (nothing can be written until it is back), bring it back:",
                _ => "Lose a region, go on, bring it back:",
            },
            self.nodes[0].pid,
            self.start_line(&self.nodes[0]).join(" "),
            self.executable.display(),
            self.data.display(),
        ));
        out
    }
}

/// The clients that a user may have, and the option that each needs to use plain HTTP with a node
/// on this machine. docker treats 127.0.0.0/8 as insecure by itself.
const CLIENTS: [(&str, &str); 2] = [("docker", ""), ("podman", " --tls-verify=false")];

/// The clients of [`CLIENTS`] that are in `path`, which is written like `PATH`; docker if there is
/// none.
fn clients_on(path: &std::ffi::OsStr) -> Vec<(&'static str, &'static str)> {
    let folders: Vec<PathBuf> = std::env::split_paths(path).collect();
    let there =
        |(name, _): &&(&str, &str)| folders.iter().any(|folder| folder.join(name).is_file());
    let found: Vec<_> = CLIENTS.iter().filter(there).copied().collect();
    if found.is_empty() { vec![CLIENTS[0]] } else { found }
}

/// The commands to push to one node and pull from another.
fn lines(clients: &[(&str, &str)], first: &str, second: &str, password: &str) -> String {
    let of = |(client, flag): &(&str, &str)| {
        let image = format!("{first}/{FIRST_PROJECT}/IMAGE");
        format!(
            "\x20 {client} login{flag} {first} -u {ADMINISTRATOR} --password-stdin < {password}\n\
             \x20 {client} tag IMAGE {image} && {client} push{flag} {image}\n\
             \x20 {client} pull{flag} {second}/{FIRST_PROJECT}/IMAGE\n"
        )
    };
    clients.iter().map(of).collect()
}

/// `port` itself, or, if it is 0, a port that is free for TCP and UDP at `ip`.
fn free_port(ip: IpAddr, port: u16) -> io::Result<u16> {
    for _ in 0..50 {
        let listener = TcpListener::bind((ip, port)).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("{ip}:{port} is taken ({e}); give another --port, or 0 for any"),
            )
        })?;
        let found = listener.local_addr()?.port();
        match UdpSocket::bind((ip, found)) {
            Ok(_) => return Ok(found),
            Err(error) if port != 0 => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("UDP {ip}:{port} is taken ({error}); give another --port"),
                ));
            }
            Err(_) => {}
        }
    }
    Err(io::Error::other("no free ports were found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An edge was taken for a voter, so a mesh of one replica and an edge waited for ever.
    #[test]
    fn only_replicas_vote_first() {
        let record = |n: u64, role| NodeRecord {
            id: rules::words::names::NodeId(n),
            name: format!("n{n}").parse().unwrap(),
            region: "r".parse().unwrap(),
            role,
            address: ([127, 0, 0, 1], 1).into(),
            url: String::new(),
        };
        for (replicas, edges, voters) in [(1, 0, 1), (1, 1, 1), (2, 1, 2), (3, 2, 3), (5, 5, 3)] {
            let roles = (0..replicas).map(|_| Role::Replica).chain((0..edges).map(|_| Role::Edge));
            let records: Vec<_> = (1..).zip(roles).map(|(n, role)| record(n, role)).collect();
            let first = first_voters(&records);
            assert_eq!(first.len(), voters, "{replicas} replicas, {edges} edges");
            assert!(first.iter().all(|one| one.role == Role::Replica));
        }
    }

    #[test]
    fn the_lines_to_copy_are_for_the_clients_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let found = || {
            clients_on(folder.path().as_os_str())
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(found(), ["docker"]);
        File::create(folder.path().join("podman")).unwrap();
        assert_eq!(found(), ["podman"]);
        let podman = lines(
            &clients_on(folder.path().as_os_str()),
            "127.0.0.1:5000",
            "127.0.0.2:5000",
            "password",
        );
        assert_eq!(podman.matches("--tls-verify=false").count(), 3, "{podman}");
        File::create(folder.path().join("docker")).unwrap();
        assert_eq!(found(), ["docker", "podman"]);
        assert!(
            !lines(&CLIENTS[..1], "a", "b", "p").contains("tls"),
            "docker takes loopback as it is"
        );
    }
}
