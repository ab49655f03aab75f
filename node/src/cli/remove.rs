//! `atoll remove`: removes a node from the mesh. For a replica it first says what that costs.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use ground::clock;
use http::{Method, StatusCode};
use serde_json::Value;

use super::client::{Call, Client, refusal};
use super::node::Node;
use super::shown::{agreed, safe};

/// How long to try while the mesh answers that it cannot do it yet.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `remove`.
#[derive(clap::Args)]
pub(super) struct Remove {
    /// The node's name.
    name: String,
    /// Remove a replica without asking.
    #[arg(long)]
    yes: bool,
    /// Remove a replica although content would be lost.
    #[arg(long)]
    force: bool,
    /// Somebody else has this replica's disk: the mesh makes new keys, and what people must change is
    /// listed.
    #[arg(long)]
    compromised: bool,
    #[command(flatten)]
    node: Node,
}

/// Asks, and prints the result.
pub(super) fn run(remove: &Remove) -> io::Result<()> {
    let client = remove.node.client()?;
    super::small_runtime()?.block_on(async {
        let path = format!("/api/atoll/v1/nodes/{}", remove.name);
        let costs = client.get(&path).await?;
        if costs["role"] == "replica" && !is_confirmed(remove, &costs)? {
            return Err(io::Error::other(format!("{} stays", remove.name)));
        }
        let flags = format!("?force={}&compromised={}", remove.force, remove.compromised);
        let change = delete(&client, &remove.name, &format!("{path}{flags}")).await?;
        println!(
            "{} is no longer a member. Stop it. It may join again with another invitation and an empty data_dir.",
            safe(&remove.name)
        );
        if !remove.compromised {
            return Ok(());
        }
        if costs["role"] == "edge" {
            println!("{}", OF_AN_EDGE);
            return Ok(());
        }
        print!("{}", to_change(&change));
        keys_are_replaced(&client).await
    })
}

/// What an edge's disk gives away.
const OF_AN_EDGE: &str = "An edge has no keys of the mesh. Change the passwords that passed through it; whoever has its disk has the images that it cached.";

/// What people must change, in sentences.
fn to_change(answer: &Value) -> String {
    let names = |list: &str| {
        let all = answer["change"][list].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).map(safe).collect::<Vec<_>>()
    };
    let mut lines = vec!["The mesh makes new keys. What you must change yourself:".to_owned()];
    for (list, what) in [
        ("registries", "credentials of these registries, which the disk has"),
        ("users", "passwords of these users: the disk has hashes, and weak ones can be guessed"),
        ("robots", "secrets of these robots, if a client used one at that node"),
    ] {
        let names = names(list);
        if !names.is_empty() {
            lines.push(format!("  {what}: {}", names.join(", ")));
        }
    }
    lines.push("  whatever else was on that machine".to_owned());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Waits until the mesh uses new keys only.
async fn keys_are_replaced(client: &Client) -> io::Result<()> {
    let end = clock::now() + PATIENCE;
    loop {
        let status = client.get("/api/atoll/v1/status?copies=false").await;
        if status.is_ok_and(|status| status["trust"]["exposed"]["replaced"] == true) {
            println!("The mesh has new keys. Nothing that was made with the old ones counts.");
            return Ok(());
        }
        if clock::now() >= end {
            return Err(io::Error::other(
                "the removal is done, but the mesh does not have all new keys yet: a majority of the replicas must be up; `atoll status --output json` shows `trust.exposed.replaced`",
            ));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Says what the removal of a replica costs. An error if it will be refused; whether it is wanted.
fn is_confirmed(remove: &Remove, costs: &Value) -> io::Result<bool> {
    print!("{}", told(&remove.name, costs));
    let refused = if remove.force { &costs["forced"] } else { &costs["refused"] };
    if let Some(reason) = refused.as_str() {
        return Err(io::Error::other(format!("{} stays: {reason}", remove.name)));
    }
    if remove.yes {
        return Ok(true);
    }
    let without = format!("{} stays; confirm with --yes", remove.name);
    agreed(&format!("Remove {}?", remove.name), &without)
}

/// What a removal costs, for people.
fn told(name: &str, costs: &Value) -> String {
    let mut lines = Vec::new();
    let primary_of = costs["primary_of"].as_u64().unwrap_or(0);
    if primary_of > 0 {
        lines.push(format!("{primary_of} project(s) get another primary."));
    }
    let (up, all) = (&costs["voters"]["up"], &costs["voters"]["all"]);
    lines.push(format!("Of the {all} voters that remain, {up} are up."));
    let blobs = |list: &Value, what: &str| {
        let projects = list.as_object().into_iter().flatten();
        projects.map(|(name, n)| format!("{n} blob(s) of {name} {what}")).collect::<Vec<_>>()
    };
    lines.extend(blobs(&costs["lost_blobs"], "are kept by no other replica that answers."));
    lines.extend(blobs(
        &costs["short_blobs"],
        "would be in fewer regions than the project's durability.",
    ));
    lines.extend(blobs(
        &costs["gone_blobs"],
        "are on no replica that answers, this one included: `atoll dr` names their images.",
    ));
    let silent: Vec<&str> =
        costs["silent"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !silent.is_empty() {
        lines.push(format!("These replicas do not say what they keep: {}.", silent.join(", ")));
    }
    let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    format!("Without {name}:\n{lines}")
}

/// Deletes, and returns what the answer says.
async fn delete(client: &Client, name: &str, path: &str) -> io::Result<Value> {
    let end = clock::now() + PATIENCE;
    let mut tried = false;
    loop {
        let answer = client.send(Call { method: Method::DELETE, ..Call::get(path) }).await;
        let (status, body) = match answer {
            Ok(answer) => (answer.status, answer.whole().await?),
            // it may have been done
            Err(_) if clock::now() < end => (StatusCode::SERVICE_UNAVAILABLE, Bytes::new()),
            Err(error) => return Err(error),
        };
        let gone = tried && status == StatusCode::NOT_FOUND;
        if status.is_success() || gone {
            return Ok(serde_json::from_slice(&body).unwrap_or_default());
        }
        if status != StatusCode::SERVICE_UNAVAILABLE || clock::now() >= end {
            return Err(io::Error::other(format!("{name} stays: {}", refusal(status, &body))));
        }
        tried = true;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_removal_costs_is_told_in_sentences() {
        let costs = json!({
            "primary_of": 2,
            "voters": {"up": 2, "all": 3},
            "lost_blobs": {"demo": 1},
            "short_blobs": {"team": 4},
            "gone_blobs": {"shop": 5},
            "silent": ["three"],
        });
        let told = told("two", &costs);
        for part in [
            "Without two:",
            "2 project(s) get another primary.",
            "Of the 3 voters that remain, 2 are up.",
            "1 blob(s) of demo are kept by no other replica",
            "4 blob(s) of team would be in fewer regions",
            "5 blob(s) of shop are on no replica",
            "do not say what they keep: three.",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let little = json!({"primary_of": 0, "voters": {"up": 2, "all": 2}});
        assert_eq!(super::told("x", &little).lines().count(), 2);
    }
}
