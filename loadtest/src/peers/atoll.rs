//! Atoll, as `atoll up --nodes 1` starts it.

use std::path::Path;

use anyhow::Result;

use super::{Host, Peer, Role};
use crate::mesh::Mesh;
use crate::tools;

/// Starts one node and makes the project that is measured.
pub(super) fn start(binary: &Path) -> Result<Peer> {
    let mesh = Mesh::up(binary, 1)?;
    mesh.create_project("bench", 1)?;
    Ok(Peer {
        name: "atoll".to_owned(),
        role: Role::Atoll,
        version: format!(
            "{}; one node, access checks, log and metrics on, durability 1",
            tools::version(binary)
        ),
        reads: mesh.nodes[0].anonymous(),
        writes: mesh.target(0),
        host: Host::Mesh(Box::new(mesh)),
    })
}
