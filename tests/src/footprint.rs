//! What a mesh keeps on its disks: the files of every node, to compare before and after.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::image::Blob;
use crate::mesh::Mesh;
use crate::wait;

/// What logs and a ledger may grow by while nothing is stored.
const MUCH: u64 = 16 << 20;

/// Waits until every node holds each of these blobs: who pulled them had their bytes before.
///
/// # Panics
/// When a node does not hold one for too long.
pub fn until_held(mesh: &Mesh, blobs: &[Blob]) {
    for (at, node) in mesh.nodes().iter().enumerate() {
        wait::until(&format!("{} holds what it was asked for", node.name), || {
            holds(&node.data, &mesh.status(at).ok()?, blobs).then_some(())
        });
    }
}

/// Whether a node holds all of these blobs: it has their files, and its status shows that none of
/// them is still on its way into its index.
#[must_use]
pub fn holds(data: &Path, status: &Value, blobs: &[Blob]) -> bool {
    let moving = status["transfers"].as_array().into_iter().flatten();
    let coming: Vec<_> =
        moving.filter(|one| one["direction"] == "in").map(|one| &one["digest"]).collect();
    blobs.iter().all(|blob| {
        blob.file(data).exists() && !coming.iter().any(|one| **one == blob.digest.as_str())
    })
}

/// Every file of every node but its log, its identity and what the ledger keeps: blobs, uploads,
/// whatever else there is.
#[must_use]
pub fn files(mesh: &Mesh) -> BTreeSet<PathBuf> {
    let all = mesh.nodes().iter().flat_map(|node| walk(&node.data));
    all.map(|(file, _)| file).filter(|file| !is_of_the_node_itself(file)).collect()
}

/// The size of everything the nodes keep, logs and ledger included.
#[must_use]
pub fn bytes(mesh: &Mesh) -> u64 {
    mesh.nodes().iter().flat_map(|node| walk(&node.data)).map(|(_, size)| size).sum()
}

/// Waits until there is no file that was not there `before`, and the whole is not much larger than
/// `size`.
///
/// # Panics
/// When something is left for too long; the message names it.
pub fn until_as_before(mesh: &Mesh, before: &BTreeSet<PathBuf>, size: u64) {
    wait::until_ok("nothing is left of it", || {
        let now = files(mesh);
        let left: Vec<_> = now.difference(before).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:#?}")) }
    });
    let grown = bytes(mesh).saturating_sub(size);
    assert!(grown < MUCH, "the data folders have grown by {grown} bytes");
}

/// A mesh makes its keys in its own time, so the folder of a node's identity does not count either.
fn is_of_the_node_itself(file: &Path) -> bool {
    let named = |name: &str| file.extension().is_some_and(|extension| extension == name);
    named("redb")
        || named("log")
        || file.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            part.starts_with("ledger") || part == "identity"
        })
}

fn walk(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(kind) if kind.is_dir() => found.extend(walk(&entry.path())),
            Ok(kind) => found.push((entry.path(), kind.len())),
            Err(_) => {} // gone between listing and asking
        }
    }
    found
}
