//! `atoll explain`: why a node serves an image, or does not.

use std::io;

use serde_json::Value;

use super::stored::artifact_path;
use super::{Api, Asking, text, with};
use crate::cli::shown::safe;

/// Arguments of `explain`.
#[derive(clap::Args)]
pub(in crate::cli) struct ExplainCommand {
    /// The image: REPOSITORY:TAG or REPOSITORY@DIGEST.
    image: String,
    #[command(flatten)]
    asking: Asking,
}

/// Runs it.
pub(in crate::cli) fn run(command: &ExplainCommand) -> io::Result<()> {
    with(&command.asking, |api: Api| async move {
        let path = artifact_path(&command.image)?;
        let answer = api.get(&format!("{path}/explanation")).await?;
        if api.is_json() {
            api.print_one(&answer);
            return Ok(());
        }
        let (node, region) = (text(&answer["node"]), text(&answer["region"]));
        println!("{} at node {node} ({region}):", safe(&command.image));
        print(&answer, "");
        let policy = answer["policy"].as_object().into_iter().flatten();
        let policy: Vec<String> =
            policy.map(|(key, value)| format!("{}={}", safe(key), text(value))).collect();
        if !policy.is_empty() {
            println!("policy    {}", policy.join(" "));
        }
        let signing = &answer["signing"];
        if signing.is_object() {
            let (rule, state) = (text(&signing["rule"]), text(&signing["state"]));
            println!("signing   {state} (signature_auto={rule}): {}", text(&signing["why"]));
        }
        for digest in answer["images_not_here"].as_array().into_iter().flatten() {
            println!("not here  {}", text(digest));
        }
        for digest in answer["blobs_lost"].as_array().into_iter().flatten() {
            println!("lost      {}", text(digest));
        }
        println!("records   {}", text(&answer["records"]));
        let shown = answer["images"].as_array().map_or(0, Vec::len) as u64;
        let all = answer["images_in_all"].as_u64().unwrap_or_default();
        if all > shown {
            println!("images    {shown} of {all} are told of");
        }
        for image in answer["images"].as_array().into_iter().flatten() {
            println!();
            println!("{}:", text(&image["artifact"]));
            print(image, "  ");
        }
        Ok(())
    })
}

fn print(one: &Value, indent: &str) {
    let decision = match one["decision"].as_str() {
        Some("pass") => "is served",
        Some("wait") => "waits for a scan",
        _ => "is refused",
    };
    println!("{indent}it {decision}: {}", text(&one["why"]));
    let report = &one["report"];
    if report.is_object() {
        let source = match report["database"].as_str() {
            Some(database) => format!("in database {}", safe(database)),
            None => format!("by {}", text(&report["engine"])),
        };
        println!(
            "{indent}report    {} found at {}, {source}",
            report["found"],
            text(&report["at"])
        );
    }
    let last = &one["last_scan"];
    if last.is_object() {
        let (at, why) = (text(&last["at"]), text(&last["why"]));
        println!("{indent}last scan it ended at {at} without a report: {why}");
    }
    let mut shown = 0;
    for (word, key) in [("counts", "counted"), ("allowed", "allowed")] {
        for weakness in one[key].as_array().into_iter().flatten() {
            let fix = if weakness["fixable"] == true { ", a fix exists" } else { "" };
            let (id, severity) = (text(&weakness["id"]), text(&weakness["severity"]));
            println!("{indent}{word:<9} {id} ({severity}{fix})");
            shown += usize::from(word == "counts");
        }
    }
    let more = one["counted_in_all"].as_u64().unwrap_or_default().saturating_sub(shown as u64);
    if more > 0 {
        println!("{indent}counts    {more} more");
    }
    for remedy in one["remedies"].as_array().into_iter().flatten() {
        println!("{indent}remedy    {}", text(remedy));
    }
}
