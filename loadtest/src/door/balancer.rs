//! nginx before a mesh: each request goes to the next node, or all of them to one.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::mesh::{Mesh, PATIENCE};
use crate::peers::nginx;
use crate::process::{self, Running};
use crate::wire::Target;

/// One nginx. It ends when it is dropped.
pub(crate) struct Balancer {
    /// Its address, as the administrator.
    pub(crate) target: Target,
    running: Running,
    _folder: TempDir,
}

impl Balancer {
    /// Starts it before these nodes of a mesh.
    pub(crate) fn before(mesh: &Mesh, nodes: &[usize]) -> Result<Self> {
        let binary = process::on_path("nginx");
        let binary = binary.context("nginx is not installed (apt-get install nginx-light)")?;
        let folder = TempDir::with_prefix("loadtest-balancer-")?;
        let host = format!("127.0.0.1:{}", process::free_port()?);
        let servers: String =
            nodes.iter().map(|at| format!("server {};", mesh.target(*at).host)).collect();
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, configuration(folder.path(), &host, &servers))?;
        let mut command = Command::new(binary);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
        let mut running = Running::start(&mut command, &folder.path().join("log"))?;
        let target = mesh.target(nodes[0]).moved(&host);
        process::until("nginx answers", PATIENCE, || {
            running.must_run()?;
            Ok(target.client().get("/readyz").is_ok_and(|said| said.status == 200).then_some(()))
        })?;
        Ok(Balancer { target, running, _folder: folder })
    }

    /// Its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        [vec![self.running.pid()], process::children(self.running.pid())].concat()
    }

    /// Its version.
    pub(crate) fn version() -> String {
        let binary = process::on_path("nginx");
        let said = binary.and_then(|nginx| process::first_line(Command::new(nginx).arg("-v")));
        said.unwrap_or_else(|| "nginx".to_owned())
    }
}

/// Bodies pass through as they come: nothing of them is kept in nginx.
fn configuration(folder: &Path, host: &str, servers: &str) -> String {
    let server = format!(
        "client_max_body_size 0;\n  \
         upstream mesh {{ {servers} keepalive 32; }}\n  \
         server {{\n    listen {host};\n    location / {{\n      \
         proxy_pass http://mesh; proxy_http_version 1.1;\n      \
         proxy_set_header Connection \"\"; proxy_set_header Host $http_host;\n      \
         proxy_request_buffering off; proxy_buffering off; proxy_read_timeout 900s;\n    }}\n  }}"
    );
    nginx::within(folder, &server)
}
