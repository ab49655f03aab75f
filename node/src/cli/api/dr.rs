//! `atoll dr`: what would be lost if a region burned now, and what to do about it.

use std::io;

use clap::Subcommand;
use serde_json::Value;

use super::drill::{self, DrillCommand};
use super::{Api, Asking, text, with};
use crate::cli::shown::{safe, table};
use crate::cli::status::sentence;

/// Arguments of `dr`.
#[derive(clap::Args)]
pub(in crate::cli) struct DrCommand {
    /// Fail if something would be lost, or could not go on, without any one region.
    #[arg(long)]
    check: bool,
    /// Show where the copies of each project are, too.
    #[arg(long)]
    projects: bool,
    #[command(subcommand)]
    verb: Option<DrVerb>,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Subcommand)]
enum DrVerb {
    /// Have a region refuse its clients for a time, and see what happens.
    Drill(DrillCommand),
}

/// Runs it.
pub(in crate::cli) fn run(command: &DrCommand) -> io::Result<()> {
    with(&command.asking, |api: Api| async move {
        if let Some(DrVerb::Drill(command)) = &command.verb {
            return drill::run(&api, command).await;
        }
        let answer = api.get("/api/atoll/v1/dr").await?;
        match api.is_json() {
            true => api.print_one(&answer),
            false => {
                if command.projects {
                    println!("{}", copies(&answer));
                }
                print!("{}", told(&answer));
            }
        }
        match command.check && answer["is_safe"] != true {
            true => Err(io::Error::other("the mesh would not be whole without one of its regions")),
            false => Ok(()),
        }
    })
}

fn told(answer: &Value) -> String {
    let rows = answer["regions"].as_array().into_iter().flatten().map(|region| {
        let lost = region["lost"].as_object().into_iter().flatten();
        let blobs: u64 = lost.clone().filter_map(|(_, one)| one["blobs"].as_u64()).sum();
        let lost = match blobs {
            0 => "nothing".to_owned(),
            blobs => format!("{blobs} blobs of {}", names(lost.map(|(name, _)| name.as_str()))),
        };
        let voters = &region["voters_elsewhere"];
        vec![
            text(&region["region"]),
            text(&region["replicas_up"]),
            lost,
            format!("{} of {}", voters["up"], voters["of"]),
            writes(region),
            text(&region["primaries"]),
        ]
    });
    let head = ["IF IT BURNED", "REPLICAS", "LOST", "VOTERS LEFT", "WRITES", "PRIMARIES MOVE"];
    let mut out = table(&head, rows.collect());
    for region in answer["regions"].as_array().into_iter().flatten() {
        for (name, lost) in region["lost"].as_object().into_iter().flatten() {
            let elsewhere = match lost["newest_push_elsewhere"].as_str() {
                Some(at) => format!("the newest that is whole elsewhere is of {}", safe(at)),
                None => "no image of it is whole elsewhere".to_owned(),
            };
            let newest = match lost["newest_push"].as_str() {
                Some(at) => format!("its newest push is of {}, and {elsewhere}", safe(at)),
                None => "no image refers to them that is not in its trash".to_owned(),
            };
            out += &format!(
                "{} has blobs only in {}; {newest}\n",
                text(&Value::from(name.as_str())),
                text(&region["region"])
            );
        }
    }
    if let Some(lost) = answer["majority"]["lost"].as_str() {
        out += &format!("{}.\n", sentence(lost));
    } else if answer["is_fresh"] != true {
        out += "this node does not hear the ledger's leader: it may be otherwise by now\n";
    }
    for advice in answer["advice"].as_array().into_iter().flatten() {
        out += &format!("- {}\n", text(advice));
    }
    if answer["is_safe"] == true {
        out += "any one region may burn: nothing is lost, and the rest goes on\n";
    }
    out
}

/// Whether writes go on without a region.
fn writes(region: &Value) -> String {
    let stopped = region["pushes_stop"].as_object().filter(|stopped| !stopped.is_empty());
    match stopped {
        _ if region["writes_go_on"] != true => "stop".to_owned(),
        Some(stopped) => format!("stop for {}", names(stopped.keys().map(String::as_str))),
        None => "go on".to_owned(),
    }
}

/// Where the copies of each project are.
fn copies(answer: &Value) -> String {
    let rows = answer["projects"].as_array().into_iter().flatten().map(|one| {
        let copies = one["copies"].as_object().into_iter().flatten();
        let copies = copies.map(|(region, count)| format!("{region} {count}"));
        vec![
            text(&one["name"]),
            format!("{} ({})", text(&one["primary"]), text(&one["primary_region"])),
            text(&one["durability"]),
            text(&one["blobs"]),
            copies.collect::<Vec<_>>().join(", "),
            time(&one["newest_push"]),
            time(&one["newest_push_in_two_regions"]),
        ]
    });
    let head =
        ["PROJECT", "PRIMARY", "WANTS", "BLOBS", "KEPT IN", "NEWEST PUSH", "NEWEST IN TWO REGIONS"];
    table(&head, rows.collect())
}

/// A time, or a dash if there is none.
fn time(at: &Value) -> String {
    at.as_str().map_or_else(|| "-".to_owned(), safe)
}

fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    all.map(|name| text(&Value::from(name))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_would_be_lost_is_told_with_how_old_the_rest_would_be() {
        let answer = json!({
            "is_fresh": true,
            "is_safe": false,
            "regions": [{
                "region": "east",
                "replicas_up": 1,
                "lost": {"shop": {"blobs": 2, "newest_push": "B", "newest_push_elsewhere": "A"}},
                "voters_elsewhere": {"up": 2, "of": 3},
                "writes_go_on": true,
                "primaries": 1,
            }],
            "advice": ["repair it"],
        });
        let told = told(&answer);
        for part in ["2 blobs of shop", "2 of 3", "go on", "whole elsewhere is of A", "- repair it"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains("may burn"), "{told}");
        let mut answer = answer;
        let region = &mut answer["regions"][0];
        region["pushes_stop"] = json!({"shop": 2});
        region["lost"]["shop"] = json!({"blobs": 2, "newest_push": null});
        let told = super::told(&answer);
        assert!(told.contains("stop for shop") && told.contains("in its trash"), "{told}");
        assert!(!told.contains("of ,"), "an empty date: {told}");
        let answer = json!({"projects": [{
            "name": "shop", "durability": 2, "primary": "one", "primary_region": "east", "blobs": 3,
            "copies": {"east": 3, "west": 2},
            "newest_push": "B", "newest_push_in_two_regions": "A",
        }]});
        let copies = copies(&answer);
        let row = copies.lines().nth(1).unwrap_or_default();
        let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(cells, ["shop", "one (east)", "2", "3", "east 3, west 2", "B", "A"]);
        assert_eq!(time(&Value::Null), "-");
    }
}
