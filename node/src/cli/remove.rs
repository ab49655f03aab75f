//! `atoll remove`: removes an edge from the mesh.

use std::io;

use http::{Method, StatusCode};

use super::client::Call;
use super::node::Node;

/// Arguments of `remove`.
#[derive(clap::Args)]
pub(super) struct Remove {
    /// The edge's name.
    name: String,
    #[command(flatten)]
    node: Node,
}

/// Asks, and prints the result.
pub(super) fn run(remove: &Remove) -> io::Result<()> {
    let client = remove.node.client()?;
    super::small_runtime()?.block_on(async {
        let path = format!("/api/atoll/v1/nodes/{}", remove.name);
        let answer = client.send(Call { method: Method::DELETE, ..Call::get(&path) }).await?;
        let status = answer.status;
        let body = answer.whole().await?;
        if status != StatusCode::NO_CONTENT {
            return Err(io::Error::other(format!(
                "{} stays: {status}: {}",
                remove.name,
                String::from_utf8_lossy(&body)
            )));
        }
        println!(
            "{} is no longer a member. Stop it. It may join again with another invitation and an empty data_dir.",
            remove.name
        );
        Ok(())
    })
}
