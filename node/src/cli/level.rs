//! `atoll level`: shows the mesh's feature level, and raises it after an upgrade.

use std::io;

use http::{Method, StatusCode};
use serde_json::Value;

use super::client::{Call, refusal};
use super::node::Node;
use super::shown::{safe, table};

/// Arguments of `level`.
#[derive(clap::Args)]
pub(super) struct LevelCommand {
    /// Raise the level to the highest that every replica's build supports. After that, older builds
    /// cannot be started in this mesh.
    #[arg(long)]
    raise: bool,
    #[command(flatten)]
    node: Node,
}

/// Asks, and prints the level and the builds.
pub(super) fn run(command: &LevelCommand) -> io::Result<()> {
    let client = command.node.client()?;
    super::small_runtime()?.block_on(async {
        let method = if command.raise { Method::POST } else { Method::GET };
        let answer = client.send(Call { method, ..Call::get("/api/atoll/v1/level") }).await?;
        let status = answer.status;
        let body = answer.whole().await?;
        if status != StatusCode::OK {
            return Err(io::Error::other(refusal(status, &body)));
        }
        let shown: Value = serde_json::from_slice(&body).map_err(io::Error::other)?;
        let rows = shown["nodes"].as_array().into_iter().flatten().map(|node| {
            let word = |name: &str| match &node[name] {
                Value::Null => "no answer".to_owned(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            vec![word("name"), word("role"), word("version"), word("supports")]
        });
        print!("{}", table(&["NODE", "ROLE", "BUILD", "SUPPORTS LEVEL"], rows.collect()));
        println!("\nThe mesh has feature level {}.", shown["level"]);
        let supported = shown["nodes"].as_array().into_iter().flatten().filter(|node| node["role"] == "replica");
        let lowest = supported.map(|node| node["supports"].as_u64().unwrap_or(0)).min().unwrap_or(0);
        if lowest > shown["level"].as_u64().unwrap_or(u64::MAX) {
            println!("Every replica supports {lowest}: `atoll level --raise` when no older build is to come back.");
        }
        let moving = shown["moving"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let moving: Vec<&str> = moving.collect();
        if !moving.is_empty() {
            println!("What these projects cache is being moved out of the ledger: {}.", moving.join(", "));
        }
        for one in shown["without_effect"].as_array().into_iter().flatten() {
            println!("{}", ignored(one));
        }
        Ok(())
    })
}

/// That a project's policy does nothing, and what would make it count.
fn ignored(one: &Value) -> String {
    let [project, key, value] =
        ["project", "key", "value"].map(|name| safe(one[name].as_str().unwrap_or_default()));
    format!(
        "Project {project} has {key}={value} from before the feature level that knows it for projects that \
         cache a registry: it refuses nothing, now and after a raise, until it is set again \
         (`atoll project set {project} {key}={value}`)."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_does_nothing_is_told_with_the_command_that_helps() {
        let one = serde_json::json!({"project": "hub", "key": "prevent_vul", "value": "true"});
        let said = ignored(&one);
        assert!(said.contains("`atoll project set hub prevent_vul=true`"), "{said}");
    }
}
