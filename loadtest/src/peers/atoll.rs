//! Atoll, as `atoll up --nodes 1` starts it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Host, Peer, Role};
use crate::mesh::Mesh;
use crate::process;

/// Starts one node and makes the project that is measured.
pub(super) fn start(binary: &Path) -> Result<Peer> {
    let mesh = Mesh::up(binary, 1)?;
    mesh.create_project("bench", 1)?;
    let version = process::first_line(Command::new(binary).arg("--version")).unwrap_or_else(|| "atoll".to_owned());
    Ok(Peer {
        name: "atoll".to_owned(),
        role: Role::Atoll,
        version: format!("{version}; one node, access checks, log and metrics on, durability 1"),
        reads: mesh.nodes[0].anonymous(),
        writes: mesh.target(0),
        host: Host::Mesh(Box::new(mesh)),
    })
}
