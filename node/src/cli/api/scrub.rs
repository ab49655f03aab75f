//! `atoll scrub`: how far a node has read its blobs again, and reading them now.

use std::io;
use std::time::Duration;

use clap::Args;
use http::Method;
use rules::policies::quota::bytes;
use serde_json::Value;

use super::{Api, Asking, part, text, with};

/// The time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Arguments of `scrub`.
#[derive(Args)]
pub(in crate::cli) struct ScrubCommand {
    /// The node.
    node: String,
    /// Read all of its blobs now, faster than by itself, and wait until that is done.
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Does what `atoll scrub` says.
pub(in crate::cli) fn run(command: &ScrubCommand) -> io::Result<()> {
    with(&command.asking, |api| async move {
        let path = format!("/api/atoll/v1/nodes/{}/scrub", part(&command.node));
        if !command.now {
            show(&api, &api.get(&path).await?);
            return Ok(());
        }
        let begun = api.send(Method::POST, &path, None).await?.body;
        let mut told = String::new();
        loop {
            tokio::time::sleep(LOOK).await;
            let shown = api.get(&path).await?;
            // a round that began after ours has read everything, too
            if shown["over"] == true || shown["began"].as_str() > begun["began"].as_str() {
                show(&api, &shown);
                return Ok(());
            }
            let now = sentence(&shown);
            if now != told && !api.is_json() {
                println!("{now}");
                told = now;
            }
        }
    })
}

fn show(api: &Api, shown: &Value) {
    match api.is_json() {
        true => api.print_one(shown),
        false => println!("{}", sentence(shown)),
    }
}

/// How far a node is.
fn sentence(shown: &Value) -> String {
    let number = |field: &str| shown[field].as_u64().unwrap_or(0);
    let read = format!("{} blobs, {}", number("blobs"), bytes(number("bytes")));
    let damaged = match number("damaged") {
        0 if number("blobs") == 0 => "it held none when that round began".to_owned(),
        0 => "all sound".to_owned(),
        damaged => {
            let still = shown["still_damaged"].as_array().into_iter().flatten();
            let still: Vec<String> = still.map(text).collect();
            match still.is_empty() {
                true => format!(
                    "{damaged} damaged or gone (its log names them); no damaged copy is left there"
                ),
                false => format!(
                    "{damaged} damaged or gone; not replaced yet, or no node has a sound copy of: {}",
                    still.join(", ")
                ),
            }
        }
    };
    let (name, began) = (text(&shown["name"]), text(&shown["began"]));
    if shown["over"] == true {
        return format!("{name} has read all that it held since {began}: {read}; {damaged}");
    }
    let held = bytes(number("held_bytes"));
    format!("{name} has read {read} of {held} since {began}; {damaged}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn how_far_a_node_is_is_one_sentence() {
        let mut shown = json!({"name": "one", "began": "2026-11-30T00:00:00Z", "over": false,
            "blobs": 3, "bytes": 2048, "damaged": 0, "held_bytes": 4096});
        let said = sentence(&shown);
        assert_eq!(
            said,
            "one has read 3 blobs, 2.0 KiB of 4.0 KiB since 2026-11-30T00:00:00Z; all sound"
        );
        let none = json!({"name": "one", "began": "B", "over": true, "blobs": 0, "damaged": 0});
        assert!(!sentence(&none).contains("sound"), "{}", sentence(&none));
        shown["over"] = true.into();
        shown["damaged"] = 1.into();
        assert!(sentence(&shown).contains("no damaged copy is left"), "{}", sentence(&shown));
        shown["still_damaged"] = json!(["sha256:a", "sha256:b"]);
        assert!(sentence(&shown).ends_with("copy of: sha256:a, sha256:b"), "{}", sentence(&shown));
    }
}
