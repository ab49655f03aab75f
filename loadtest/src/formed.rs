//! A mesh formed by hand over a [`Network`], as an operator would: `init`, `invite`, `join`,
//! `serve`, each node in a namespace of its own.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rules::words::secret::Secret;
use rustls::RootCertStore;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::content::{Blob, manifest};
use crate::mesh::{PATIENCE, alive_in};
use crate::network::{Network, address, enter, succeed};
use crate::process::{self, Running, Signal};
use crate::registry;
use crate::wire::{Client, Request, Sink, Target};

/// The line that stands in a node's log before what each of its processes says.
pub(crate) const BEGINS: &str = "loadtest: a process begins";

/// One node to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// Its region, by number.
    pub(crate) region: usize,
    /// Whether it is an edge.
    pub(crate) edge: bool,
}

impl Site {
    /// A replica in a region.
    pub(crate) fn replica(region: usize) -> Self {
        Site { region, edge: false }
    }

    /// An edge in a region.
    pub(crate) fn edge(region: usize) -> Self {
        Site { region, edge: true }
    }
}

/// What a node's process finds in its environment beside ours.
pub(crate) type Environment = Vec<(&'static str, PathBuf)>;

/// A running mesh and the network that it stands on. Dropping it ends all of it.
#[derive(Debug)]
pub(crate) struct Formed {
    nodes: Vec<Mutex<Option<Running>>>, // before what they stand on
    /// What is between them.
    pub(crate) network: Network,
    atoll: PathBuf,
    environments: Vec<Environment>,
    password: Secret,
    tls: Option<Arc<rustls::ClientConfig>>,
    folder: TempDir,
}

impl Formed {
    /// Forms a mesh of these nodes over a LAN, with `more` in everybody's settings and HTTPS if
    /// `secure`, and waits until all are ready. The first node is a replica.
    pub(crate) fn of(atoll: &Path, sites: &[Site], secure: bool, more: &str) -> Result<Self> {
        Self::with_guests(atoll, sites, &[], secure, more)
    }

    /// The same without HTTPS. Edges have settings of their own beside everybody's, and each node's
    /// process finds in its environment what `ground` says for its number and its data folder.
    pub(crate) fn on(
        atoll: &Path,
        sites: &[Site],
        (more, of_edges): (&str, &str),
        ground: &mut dyn FnMut(usize, &Path) -> Result<Environment>,
    ) -> Result<Self> {
        Self::form(atoll, sites, &[], false, (more, of_edges), ground)
    }

    /// The same, and behind the nodes' namespaces further ones in these regions, for others to
    /// stand in.
    pub(crate) fn with_guests(
        atoll: &Path,
        sites: &[Site],
        guests: &[usize],
        secure: bool,
        more: &str,
    ) -> Result<Self> {
        Self::form(atoll, sites, guests, secure, (more, ""), &mut |_, _| Ok(Vec::new()))
    }

    fn form(
        atoll: &Path,
        sites: &[Site],
        guests: &[usize],
        secure: bool,
        (more, of_edges): (&str, &str),
        ground: &mut dyn FnMut(usize, &Path) -> Result<Environment>,
    ) -> Result<Self> {
        let regions: Vec<_> =
            sites.iter().map(|site| site.region).chain(guests.iter().copied()).collect();
        let network = Network::raise(&regions)?;
        let folder = TempDir::with_prefix("loadtest-formed-")?;
        let mut formed = Formed {
            nodes: Vec::new(),
            network,
            atoll: atoll.to_owned(),
            environments: Vec::new(),
            password: Secret::default(),
            tls: None,
            folder,
        };
        let http = if secure { formed.certify(sites.len())? } else { String::new() };
        for (at, site) in sites.iter().enumerate() {
            let environment = ground(at, &formed.data(at))?;
            formed.environments.push(environment);
            let own = if site.edge { of_edges } else { "" };
            formed.admit(at, *site, &http, &format!("{more}{own}"))?;
        }
        let voters = sites.iter().filter(|site| !site.edge).count().min(3);
        process::until("the ledger has its voters", PATIENCE, || {
            Ok(formed.status(0).ok().filter(|status| {
                status["ledger"]["voters"].as_array().is_some_and(|all| all.len() == voters)
            }))
        })?;
        Ok(formed)
    }

    fn admit(&mut self, at: usize, site: Site, http: &str, more: &str) -> Result<()> {
        std::fs::write(self.settings(at), self.settings_of(at, site, http, more))?;
        if at == 0 {
            succeed(self.command(at, "init").arg("--config").arg(self.settings(at)))?;
            self.password =
                std::fs::read_to_string(self.data(at).join("admin-password"))?.trim().into();
        } else {
            self.join(at, 0, if site.edge { "edge" } else { "replica" })?;
        }
        self.nodes.push(Mutex::new(None));
        self.start(at)
    }

    /// Lets one more node in, over a LAN or not, and starts it; does not wait until it is ready. Its
    /// namespace is the next of the guests'.
    pub(crate) fn let_in(&mut self, at: usize, site: Site, more: &str) -> Result<()> {
        ensure!(at == self.nodes.len() && self.tls.is_none(), "node {at} is not the next one");
        self.environments.push(Vec::new());
        std::fs::write(self.settings(at), self.settings_of(at, site, "", more))?;
        self.join(at, 0, if site.edge { "edge" } else { "replica" })?;
        self.nodes.push(Mutex::new(None));
        self.launch(at)
    }

    fn settings_of(&self, at: usize, site: Site, http: &str, more: &str) -> String {
        let here = address(at);
        let role = if site.edge { "role: edge\n" } else { "" };
        format!(
            "data_dir: {}\nname: node-{at}\nregion: region-{}\n{role}http:\n  listen: {here}:5000\n{http}mesh:\n  listen: {here}:7946\n{more}",
            self.data(at).display(),
            site.region,
        )
    }

    /// Joins `at` with a token of the node `by`.
    fn join(&self, at: usize, by: usize, role: &str) -> Result<()> {
        let said = succeed(
            self.command(by, "invite").args(["--role", role, "--config"]).arg(self.settings(by)),
        )?;
        let token = said.lines().last().context("invite prints a token")?.trim().to_owned();
        succeed(self.command(at, "join").arg(token).arg("--config").arg(self.settings(at)))
            .map(drop)
    }

    /// A replica that does not run has lost its disk: has the node `by` remove it, joins it anew under
    /// its name, and starts it. Both are tried again while the others choose who leads.
    pub(crate) fn replace(&self, at: usize, by: usize) -> Result<()> {
        std::fs::remove_dir_all(self.data(at))?;
        let password = self.folder.path().join("password");
        std::fs::write(&password, self.password.expose())?;
        let (name, url) = (format!("node-{at}"), format!("http://{}:5000", address(by)));
        let patiently = |what: &str, step: &dyn Fn() -> Result<()>| {
            let mut last = Ok(());
            let done = process::until(what, PATIENCE, || {
                last = step();
                Ok(last.is_ok().then_some(()))
            });
            done.or_else(|late| last.map_err(|error| error.context(late)))
        };
        patiently("a replica that lost its disk is removed", &|| {
            let mut remove = self.command(by, "remove");
            remove.args([&name, "--yes", "--url", &url]).arg("--password-file").arg(&password);
            succeed(&mut remove).map(drop)
        })?;
        patiently("a replica is let in anew", &|| self.join(at, by, "replica"))?;
        self.launch(at)
    }

    /// A certificate for everybody, and the clients' trust in it; the section of the settings.
    fn certify(&mut self, nodes: usize) -> Result<String> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed((0..nodes).map(address).collect::<Vec<_>>())?;
        let (certificate, key) =
            (self.folder.path().join("tls.crt"), self.folder.path().join("tls.key"));
        std::fs::write(&certificate, cert.pem())?;
        std::fs::write(&key, signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled(); // fresh connections are what is measured
        self.tls = Some(Arc::new(config));
        Ok(format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            certificate.display(),
            key.display()
        ))
    }

    /// Starts a node, again or for the first time, and waits until it is ready.
    pub(crate) fn start(&self, at: usize) -> Result<()> {
        self.launch(at)?;
        process::until("a node is ready", PATIENCE, || {
            if let Some(node) = &mut *self.node(at) {
                node.must_run()?;
            }
            Ok(self.is_ready(at).then_some(()))
        })
    }

    /// Starts a node and waits for nothing. It must not run.
    pub(crate) fn launch(&self, at: usize) -> Result<()> {
        let mut command = self.command(at, "serve");
        command.arg("--config").arg(self.settings(at)).envs(self.environments[at].iter().cloned());
        let mut node = self.node(at);
        ensure!(node.as_mut().is_none_or(|node| node.ended().is_some()), "node {at} runs");
        let mut log = OpenOptions::new().create(true).append(true).open(self.log(at))?;
        writeln!(log, "{BEGINS}")?;
        *node = Some(Running::start(&mut command, &self.log(at))?);
        Ok(())
    }

    /// The number of a node's process.
    pub(crate) fn pid(&self, at: usize) -> Result<u32> {
        self.node(at).as_ref().map(Running::pid).with_context(|| format!("node {at} does not run"))
    }

    /// How a node's process has ended, if it has.
    pub(crate) fn ended(&self, at: usize) -> Option<ExitStatus> {
        self.node(at).as_mut().and_then(Running::ended)
    }

    /// Whether a node says that it is ready.
    pub(crate) fn is_ready(&self, at: usize) -> bool {
        let mut client = self.target(at, at).client().patient_for(Duration::from_secs(5));
        client.get("/readyz").is_ok_and(|answer| answer.status == 200)
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&self, at: usize) -> Result<()> {
        let Some(mut running) = self.node(at).take() else { bail!("node {at} does not run") };
        ensure!(running.stop(Signal::KILL, Duration::from_secs(10)), "node {at} does not die");
        Ok(())
    }

    /// A signal to a node's process, without waiting for anything.
    pub(crate) fn signal(&self, at: usize, what: Signal) {
        if let Some(node) = &*self.node(at) {
            process::signal(node.pid(), what);
        }
    }

    /// What a node's processes have said so far.
    pub(crate) fn words(&self, at: usize) -> String {
        std::fs::read_to_string(self.log(at)).unwrap_or_default()
    }

    fn log(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("{at}.log"))
    }

    fn node(&self, at: usize) -> MutexGuard<'_, Option<Running>> {
        self.nodes[at].lock().unwrap_or_else(|broken| broken.into_inner())
    }

    /// The addresses of nodes for clients beside them.
    pub(crate) fn clients(&self, nodes: &[usize]) -> Vec<(usize, Target)> {
        nodes.iter().map(|at| (*at, self.target(*at, *at))).collect()
    }

    /// Waits until a node takes all others for alive.
    pub(crate) fn settle(&self, at: usize) -> Result<()> {
        process::until("all nodes are seen alive", PATIENCE, || {
            Ok(self.status(at).ok().filter(|status| alive_in(status) == self.nodes.len()))
        })
        .map(drop)
    }

    /// An anonymous client at one node, in the namespace of another node.
    pub(crate) fn client(&self, beside: usize, to: usize) -> Client {
        self.target(beside, to).client()
    }

    /// The administrator, beside a node.
    pub(crate) fn administrator(&self, at: usize) -> Client {
        self.target(at, at).basic("admin", self.password.expose()).client()
    }

    /// A node's address for an anonymous client beside another node.
    pub(crate) fn target(&self, beside: usize, to: usize) -> Target {
        Target::at(&format!("{}:5000", address(to)))
            .inside(&self.network.namespace(beside))
            .tls(self.tls.clone())
    }

    /// Makes something by the API of the first node; the answer's `Location`.
    pub(crate) fn make(&self, path: &str, what: &Value) -> Result<String> {
        let body = what.to_string().into_bytes();
        let body: [&[u8]; 1] = [&body];
        let headers = [("Content-Type", "application/json")];
        let mut said = Vec::new();
        let request = Request::new("POST", path).headers(&headers).body(&body);
        let answer = self.administrator(0).send(&request, &mut Sink::Keep(&mut said))?;
        ensure!(
            answer.status == 201,
            "POST {path}: status {}: {}",
            answer.status,
            String::from_utf8_lossy(&said)
        );
        answer.location.with_context(|| format!("POST {path}: no Location"))
    }

    /// Makes a public project whose writes are durable in so many regions before they are
    /// acknowledged.
    pub(crate) fn create_project(&self, name: &str, durability: u8) -> Result<()> {
        let metadata = json!({ "public": "true", "durability": durability.to_string() });
        self.make("/api/v2.0/projects", &json!({ "project_name": name, "metadata": metadata }))
            .map(drop)
    }

    /// Sets metadata of a project.
    pub(crate) fn configure_project(&self, name: &str, metadata: &Value) -> Result<()> {
        let body = json!({ "metadata": metadata }).to_string().into_bytes();
        let body: [&[u8]; 1] = [&body];
        let path = format!("/api/v2.0/projects/{name}");
        let headers = [("Content-Type", "application/json")];
        let request = Request::new("PUT", &path).headers(&headers).body(&body);
        let answer = self.administrator(0).send(&request, &mut Sink::Discard)?;
        ensure!(answer.status == 200, "PUT {path}: status {}", answer.status);
        Ok(())
    }

    /// Pushes an image of one layer through the first node and waits until `seen_by` know it; the
    /// layer.
    pub(crate) fn push(&self, repository: &str, size: usize, seen_by: &[usize]) -> Result<Blob> {
        let (layer, config) = (Blob::random(size), Blob::config());
        let manifest = manifest(&config, &[(layer.digest, size)]);
        let pusher = &mut self.administrator(0);
        registry::upload_blob(pusher, repository, &layer)?;
        registry::upload_blob(pusher, repository, &config)?;
        registry::put_manifest(pusher, repository, "latest", &manifest)?;
        let path = registry::manifest_path(repository, &manifest.digest.to_string());
        for at in seen_by {
            let request = Request::new("GET", &path).headers(&[registry::ACCEPT]);
            process::until("the image is known", PATIENCE, || {
                Ok((self.client(*at, *at).send(&request, &mut Sink::Discard)?.status == 200)
                    .then_some(()))
            })?;
        }
        Ok(layer)
    }

    /// What a node says about the mesh.
    pub(crate) fn status(&self, at: usize) -> Result<Value> {
        let mut body = Vec::new();
        let mut client = self.administrator(at).patient_for(Duration::from_secs(5));
        let answer = client
            .send(&Request::new("GET", "/api/atoll/v1/status"), &mut Sink::Keep(&mut body))?;
        ensure!(answer.status == 200, "status of node {at}: {}", answer.status);
        Ok(serde_json::from_slice(&body)?)
    }

    /// A node's data folder.
    pub(crate) fn data(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("{at}.data"))
    }

    fn settings(&self, at: usize) -> PathBuf {
        self.folder.path().join(format!("{at}.yaml"))
    }

    fn command(&self, at: usize, verb: &str) -> Command {
        let mut command = enter(&self.network.namespace(at), &self.atoll);
        command.arg(verb);
        command
    }
}
