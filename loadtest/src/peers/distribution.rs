//! Distribution, the reference registry: version 3 where it can be found or built, else what Debian
//! has.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{Host, Peer, Role, wait_up};
use crate::process::{self, Running};
use crate::wire::Target;

/// The version that is built when none is there.
const MODULE: &str = "github.com/distribution/distribution/v3/cmd/registry@v3.1.2";

/// The binary: the given one, the one built before, one on the path, one built now by Go, or
/// Debian's.
pub(crate) fn find(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        ensure!(given.is_file(), "{} is not there", given.display());
        return Ok(given.to_owned());
    }
    let clients = crate::machine::repository().join("target/clients");
    let built = clients.join("registry");
    if built.is_file() {
        return Ok(built);
    }
    if let Some(found) = process::on_path("registry") {
        return Ok(found);
    }
    match process::on_path("go").map(|go| build(&go, &clients)) {
        Some(Ok(())) if built.is_file() => return Ok(built),
        Some(Err(error)) => eprintln!("loadtest: {error:#}"),
        _ => {}
    }
    let fallback = process::on_path("docker-registry");
    fallback.context("no registry to compare with: install Go or Debian's docker-registry, or give --registry PATH")
}

fn build(go: &Path, folder: &Path) -> Result<()> {
    eprintln!("loadtest: building {MODULE} into {}", folder.display());
    std::fs::create_dir_all(folder)?;
    let mut command = Command::new(go);
    command
        .args(["install", MODULE])
        .env("GOBIN", folder)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod");
    ensure!(command.status()?.success(), "{} cannot build {MODULE}", go.display());
    Ok(())
}

/// Starts it on a fresh folder, without authentication and without an access log.
pub(super) fn start(name: &str, role: Role, binary: &Path) -> Result<Peer> {
    let folder = TempDir::with_prefix(format!("loadtest-{name}-"))?;
    let target = Target::at(&format!("127.0.0.1:{}", process::free_port()?));
    let config = folder.path().join("config.yml");
    std::fs::write(&config, configuration(&folder.path().join("data"), &target.host))?;
    let mut command = Command::new(binary);
    command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none");
    let mut running = Running::start(&mut command, &folder.path().join("log"))?;
    wait_up(&mut running, &target, "/v2/")?;
    Ok(Peer {
        name: name.to_owned(),
        role,
        version: version(binary),
        reads: target.clone(),
        writes: target,
        host: Host::Program { running, _folder: folder },
    })
}

fn configuration(data: &Path, host: &str) -> String {
    let data = data.display();
    format!(
        "version: 0.1\n\
         log:\n  level: error\n  accesslog: {{disabled: true}}\n\
         storage:\n  cache: {{blobdescriptor: inmemory}}\n  filesystem: {{rootdirectory: '{data}'}}\n  \
         delete: {{enabled: true}}\n  maintenance: {{uploadpurging: {{enabled: false}}}}\n\
         http:\n  addr: {host}\n  secret: loadtest\n"
    )
}

/// What it says of itself, and which Go built it: an old Go hashes three times as slowly.
fn version(binary: &Path) -> String {
    let said = process::first_line(Command::new(binary).arg("--version"));
    let said = said.unwrap_or_else(|| binary.display().to_string());
    let built = process::on_path("go")
        .and_then(|go| process::first_line(Command::new(go).arg("version").arg(binary)))
        .and_then(|line| Some(line.rsplit_once(": ")?.1.to_owned()));
    match built {
        Some(go) => format!("{said} ({go}); no authentication, no access log"),
        None => format!("{said}; no authentication, no access log"),
    }
}
