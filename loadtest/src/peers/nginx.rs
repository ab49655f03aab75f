//! nginx with the same bytes as plain files under the same paths: the kernel's floor with a server
//! around it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{Host, Peer, Role, wait_up};
use crate::content::MANIFEST;
use crate::process::{self, Running};
use crate::wire::Target;

/// Starts it over files given as path and bytes; nothing if nginx is not installed.
pub(crate) fn files(files: &[(String, &[u8])]) -> Result<Option<Peer>> {
    let Some(binary) = process::on_path("nginx") else { return Ok(None) };
    start(&binary, files).context("nginx").map(Some)
}

fn start(binary: &Path, files: &[(String, &[u8])]) -> Result<Peer> {
    let folder = TempDir::with_prefix("loadtest-nginx-")?;
    let root = folder.path().join("root");
    for (path, bytes) in files {
        let file = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().context("a file has a folder")?)?;
        fs::write(file, bytes)?;
    }
    fs::write(root.join("up"), "up\n")?;
    let target = Target::at(&format!("127.0.0.1:{}", process::free_port()?));
    let config = folder.path().join("nginx.conf");
    fs::write(&config, configuration(folder.path(), &target.host))?;
    let mut command = Command::new(binary);
    command.arg("-p").arg(folder.path()).arg("-c").arg(&config);
    let mut running = Running::start(&mut command, &folder.path().join("log"))?;
    wait_up(&mut running, &target, "/up")?;
    let version =
        process::first_line(Command::new(binary).arg("-v")).unwrap_or_else(|| "nginx".to_owned());
    Ok(Peer {
        name: "nginx".to_owned(),
        role: Role::Files,
        version: format!("{version}; static files, sendfile, no access log"),
        reads: target.clone(),
        writes: target,
        host: Host::Program { running, _folder: folder },
    })
}

fn configuration(folder: &Path, host: &str) -> String {
    let server = format!(
        "sendfile on; tcp_nopush on; open_file_cache max=1000 inactive=60s;\n  \
         default_type application/octet-stream;\n  \
         server {{\n    listen {host} reuseport;\n    root {}/root;\n    \
         location ~ /manifests/ {{ default_type {MANIFEST}; }}\n  }}",
        folder.display()
    );
    within(folder, &server)
}

/// A configuration with `inside` as what is said of HTTP, all of whose files are in `folder`. One
/// worker per core; run as root, the workers stay root, or they could not enter the folder.
pub(crate) fn within(folder: &Path, inside: &str) -> String {
    let folder = folder.display();
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    format!(
        "{user}worker_processes auto;\ndaemon off;\npid {folder}/pid;\nerror_log {folder}/errors error;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  \
         access_log off; keepalive_requests 100000000; tcp_nodelay on;\n  \
         client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;\n  \
         uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;\n  \
         {inside}\n}}\n"
    )
}
