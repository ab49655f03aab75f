//! zot, the strongest registry known. Told to commit: by default it acknowledges what a power cut
//! can lose.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::json;
use tempfile::TempDir;

use super::{Host, Peer, Role, wait_up};
use crate::process::{self, Running};
use crate::wire::Target;

/// Starts it on a fresh folder, without authentication and extensions.
pub(super) fn start(name: &str, binary: &Path) -> Result<Peer> {
    let folder = TempDir::with_prefix("loadtest-zot-")?;
    let port = process::free_port()?;
    let target = Target::at(&format!("127.0.0.1:{port}"));
    let config = folder.path().join("config.json");
    let settings = json!({
        "distSpecVersion": "1.1.1",
        "storage": { "rootDirectory": folder.path().join("data"), "commit": true, "gc": false },
        "http": { "address": "127.0.0.1", "port": port.to_string() },
        "log": { "level": "error" },
    });
    std::fs::write(&config, settings.to_string())?;
    let mut running =
        Running::start(Command::new(binary).arg("serve").arg(&config), &folder.path().join("log"))?;
    wait_up(&mut running, &target, "/v2/")?;
    let said = process::first_line(Command::new(binary).arg("--version"));
    Ok(Peer {
        name: name.to_owned(),
        role: Role::Registry,
        version: format!(
            "{}; commit on, no authentication",
            said.unwrap_or_else(|| binary.display().to_string())
        ),
        reads: target.clone(),
        writes: target,
        host: Host::Program { running, _folder: folder },
    })
}
