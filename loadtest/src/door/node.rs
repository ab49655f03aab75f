//! One node with the product's defaults: as `atoll up` starts it, or made by hand to speak HTTPS.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use serde_json::json;
use tempfile::TempDir;

use crate::mesh::{Mesh, PATIENCE};
use crate::process::{self, Running};
use crate::wire::{Request, Sink, Target};

/// The project that is used.
pub(crate) const PROJECT: &str = "door";

/// A node. Dropping it ends it.
pub(crate) struct Node {
    /// Its process.
    pub(crate) pid: u32,
    /// Its address, for anonymous clients.
    pub(crate) anonymous: Target,
    /// Its address, for the administrator.
    pub(crate) admin: Target,
    /// How clients speak TLS to it.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    host: Host,
}

/// What has to live as long as the node.
enum Host {
    Up(Box<Mesh>),
    /// The folder goes when the node has ended.
    Served {
        running: Running,
        _folder: TempDir,
    },
}

impl Node {
    /// As `atoll up --nodes 1` starts it.
    pub(crate) fn plain(atoll: &Path) -> Result<Self> {
        let mesh = Mesh::up(atoll, 1)?;
        mesh.create_project(PROJECT, 1)?;
        let (anonymous, admin) = (mesh.nodes[0].anonymous(), mesh.target(0));
        let pid = mesh.nodes[0].pid;
        Ok(Node { pid, anonymous, admin, tls: None, host: Host::Up(Box::new(mesh)) })
    }

    /// One with a certificate of its own (ECDSA, P-256).
    pub(crate) fn secure(atoll: &Path) -> Result<Self> {
        let folder = TempDir::with_prefix("loadtest-door-")?;
        let path = |name: &str| folder.path().join(name);
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        std::fs::write(path("tls.crt"), cert.pem())?;
        std::fs::write(path("tls.key"), signing_key.serialize_pem())?;
        let [port, mesh] = [process::free_port()?, process::free_port()?];
        let (data, settings) = (path("data"), path("atoll.yaml"));
        let text = format!(
            "data_dir: {}\nname: door\nregion: here\nhttp:\n  listen: 127.0.0.1:{port}\n  tls:\n    \
             certificate: {}\n    key: {}\nmesh:\n  listen: 127.0.0.1:{mesh}\n",
            data.display(),
            path("tls.crt").display(),
            path("tls.key").display(),
        );
        std::fs::write(&settings, text)?;
        let said = Command::new(atoll).arg("init").arg("--config").arg(&settings).output()?;
        ensure!(
            said.status.success(),
            "atoll init: {}",
            String::from_utf8_lossy(&said.stderr).trim()
        );
        let mut command = Command::new(atoll);
        command.arg("serve").arg("--config").arg(&settings);
        let mut running = Running::start(&mut command, &path("log"))?;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone())?;
        let tls = Arc::new(trusting(roots)?);
        let anonymous = Target::at(&format!("127.0.0.1:{port}")).tls(Some(tls.clone()));
        let password = std::fs::read_to_string(data.join("admin-password"))
            .context("atoll init has left no admin-password")?;
        let admin = anonymous.clone().basic("admin", password.trim());
        process::until("the node with HTTPS is ready", PATIENCE, || {
            running.must_run()?;
            Ok(anonymous.client().get("/readyz").is_ok_and(|said| said.status == 200).then_some(()))
        })?;
        let project = json!({ "project_name": PROJECT,
            "metadata": { "public": "true", "durability": "1" } });
        let project = project.to_string().into_bytes();
        let (body, headers): ([&[u8]; 1], _) = ([&project], [("Content-Type", "application/json")]);
        let request = Request::new("POST", "/api/v2.0/projects").headers(&headers).body(&body);
        process::until("a project is made", PATIENCE, || {
            let said = admin.client().send(&request, &mut Sink::Discard)?;
            Ok((said.status == 201).then_some(()))
        })?;
        let pid = running.pid();
        Ok(Node {
            pid,
            anonymous,
            admin,
            tls: Some(tls),
            host: Host::Served { running, _folder: folder },
        })
    }
}

impl Node {
    /// Fails, with its last words, if it has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        match &mut self.host {
            Host::Up(mesh) => mesh.must_run(),
            Host::Served { running, .. } => running.must_run(),
        }
    }
}

/// A client that trusts these, and begins each connection anew.
fn trusting(roots: RootCertStore) -> Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
