//! `atoll init`: the first node of a new mesh.

use std::io;
use std::path::{Path, PathBuf};

use ground::clock;
use mesh::identity::{Authority, Candidate, Identity, new_node_id, write_private};
use mesh::secrets::Secrets;
use rules::ledger::level::Level;
use rules::ledger::records::{NodeRecord, Role};
use rules::words::names::{NodeId, OperationId};
use rules::words::secret::Secret;

use crate::start::birth::Birth;
use crate::start::private;
use crate::start::{identity_folder, node_record};
use registry::people::hash_password;

/// The administrator's name.
pub(super) const ADMINISTRATOR: &str = "admin";

/// The project that every new mesh has.
pub(super) const FIRST_PROJECT: &str = "demo";

/// Arguments of `init`.
#[derive(clap::Args)]
pub(super) struct Init {
    /// The node's settings.
    #[arg(long, value_name = "node.yaml")]
    config: PathBuf,
    /// The feature level that the mesh begins with, if nodes of older builds are to join it. `atoll
    /// level --raise` raises it later.
    #[arg(long, value_name = "N", default_value_t = Level::NEWEST.0,
        value_parser = clap::value_parser!(u32).range(i64::from(Level::ROLES.0)..=i64::from(Level::NEWEST.0)))]
    level: u32,
}

/// Creates the CA, the node's identity, the administrator and the birth file.
pub(super) fn run(Init { config, level }: &Init) -> io::Result<()> {
    let settings = super::load(config)?;
    if settings.role == Role::Edge {
        return Err(io::Error::other(
            "a mesh begins with a replica; set role: replica, or `atoll join` this edge to a mesh",
        ));
    }
    let folder = identity_folder(&settings.data_dir);
    refuse_existing(&folder)?;
    let authority = Authority::generate().map_err(io::Error::other)?;
    let identity = issue(&authority, new_node_id(), Role::Replica)?;
    let record = node_record(&settings, identity.node).map_err(io::Error::other)?;
    let password = new_password();
    private::from_now_on();
    private::folder(&settings.data_dir)?;
    let mut birth = new_birth(
        &authority,
        &password,
        vec![record.clone()],
        vec![record],
        settings.projects.durability,
    )?;
    birth.level = Level(*level);
    birth.save(&settings.data_dir)?;
    let password_file = settings.data_dir.join("admin-password");
    write_private(&password_file, password.expose().as_bytes()).map_err(io::Error::other)?;
    // last: a node with an identity counts as initialized
    identity.save(&folder).map_err(io::Error::other)?;
    println!("A new mesh is ready to be formed by node {} in {}.", settings.name, settings.region);
    println!("Administrator: {ADMINISTRATOR}, password: {}", password.expose());
    println!("  (kept in {})", password_file.display());
    println!("Start the node:      atoll serve --config {}", config.display());
    println!("Invite another node: atoll invite --config {}", config.display());
    Ok(())
}

/// A node's identity is created once: overwriting it would orphan its blobs and its vote.
pub(super) fn refuse_existing(folder: &Path) -> io::Result<()> {
    if folder.join("node-id").exists() {
        let message = format!(
            "{} already holds a node's identity; give another data_dir, or remove it",
            folder.display()
        );
        return Err(io::Error::other(message));
    }
    Ok(())
}

/// A signed identity for `node` with this role.
pub(super) fn issue(authority: &Authority, node: NodeId, role: Role) -> io::Result<Identity> {
    let candidate = Candidate::generate(node).map_err(io::Error::other)?;
    let certificate = authority
        .sign(node, role, &candidate.request, clock::timestamp())
        .map_err(io::Error::other)?;
    Ok(Identity { node, certificate, key: candidate.key, authority: authority.clone() })
}

/// 24 letters and digits that cannot be mistaken for each other: 136 bits.
pub(super) fn new_password() -> Secret {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    (0..24)
        .map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]))
        .collect::<String>()
        .into()
}

/// The initial contents of the new mesh.
pub(super) fn new_birth(
    authority: &Authority,
    password: &Secret,
    nodes: Vec<NodeRecord>,
    voters: Vec<NodeRecord>,
    durability: u32,
) -> io::Result<Birth> {
    Ok(Birth {
        mesh: rand::random(),
        token_secret: Secrets::of(authority).new_token_key().map_err(io::Error::other)?,
        administrator: ADMINISTRATOR.into(),
        password_hash: hash_password(password).map_err(io::Error::other)?,
        nodes,
        voters: voters.iter().map(|n| (n.id, n.address)).collect(),
        project: FIRST_PROJECT.parse().map_err(io::Error::other)?,
        durability,
        operations: [(); 3].map(|()| OperationId(rand::random())),
        level: Level::NEWEST,
    })
}
