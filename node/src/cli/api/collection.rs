//! `atoll gc`.

use std::io;
use std::time::Duration;

use clap::Subcommand;
use http::Method;
use serde_json::json;

use super::{Api, Asking, with};

const COLLECTION: &str = "/api/atoll/v1/collection";
/// The runs, as Harbor has them.
const RUNS: &str = "/api/v2.0/system/gc";

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
    /// Stop a collection that somebody has begun. What it has collected stays so.
    Stop {
        /// Its number, as `gc status` says. All that are under way, if it is left out.
        run: Option<u64>,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text)
}

/// Stops a run, or all that are under way.
async fn stop(api: &Api, run: Option<u64>) -> io::Result<()> {
    let runs = match run {
        Some(run) => vec![run],
        None => {
            let status = api.get(COLLECTION).await?;
            let under_way = status["under_way"].as_array().into_iter().flatten();
            under_way.filter_map(|one| one["id"].as_u64()).collect()
        }
    };
    if runs.is_empty() {
        return Err(io::Error::other("no collection is under way that somebody has begun"));
    }
    let mut stopped = Vec::new();
    for run in runs {
        let body = json!({"status": "Stopped"});
        api.send(Method::PUT, &format!("{RUNS}/{run}"), Some(&body)).await?;
        stopped.push(run.to_string());
    }
    api.say(&format!("told to stop: {}", stopped.join(", ")));
    Ok(())
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
            CollectionVerb::Stop { run } => return stop(&api, *run).await,
        };
        api.print_one(&told);
        Ok(())
    })
}
