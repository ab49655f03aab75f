//! `atoll gc`.

use std::io;
use std::time::Duration;

use clap::Subcommand;
use http::Method;
use serde_json::json;

use super::{Asking, with};

const COLLECTION: &str = "/api/atoll/v1/collection";

/// Arguments of `gc`.
#[derive(clap::Args)]
pub(in crate::cli) struct CollectionCommand {
    #[command(subcommand)]
    verb: CollectionVerb,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum CollectionVerb {
    /// Show how many blobs nothing refers to, and when they go.
    Status,
    /// Count what the node that is asked has on its disk, and why. Reads its whole index.
    Inventory,
    /// Collect now, not at the next round.
    Run {
        /// What nothing has referred to for so long, instead of `collection.grace`: 0s, 90m, 24h.
        #[arg(long, value_parser = duration)]
        older_than: Option<Duration>,
        /// Only say what would be collected.
        #[arg(long)]
        dry_run: bool,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text)
}

/// Does what `atoll gc` says.
pub(in crate::cli) fn collection(command: &CollectionCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        let told = match &command.verb {
            CollectionVerb::Status => api.get(COLLECTION).await?,
            CollectionVerb::Inventory => api.get("/api/atoll/v1/inventory").await?,
            CollectionVerb::Run { older_than, dry_run } => {
                let body = json!({
                    "older_than_seconds": older_than.map(|age| age.as_secs()),
                    "dry_run": dry_run,
                });
                api.send(Method::POST, COLLECTION, Some(&body)).await?.body
            }
        };
        api.print_one(&told);
        Ok(())
    })
}
