//! `atoll ca`: prints the certificate of the mesh's CA, which clients of a node with
//! `http.tls.issuer: mesh` must be told to trust.

use std::io::{self, Write};
use std::path::PathBuf;

use mesh::identity::Identity;

use crate::start::identity_folder;

/// Arguments of `ca`.
#[derive(clap::Args)]
pub(super) struct Ca {
    /// The settings of a node on this machine.
    #[arg(long, value_name = "node.yaml")]
    config: PathBuf,
}

/// Prints it (PEM). The key stays where it is.
pub(super) fn run(ca: &Ca) -> io::Result<()> {
    let settings = super::load(&ca.config)?;
    let identity =
        Identity::load(&identity_folder(&settings.data_dir)).map_err(io::Error::other)?;
    io::stdout().write_all(identity.authority.certificate.as_bytes())
}
