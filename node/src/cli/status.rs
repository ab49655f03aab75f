//! `atoll status`: shows nodes, leader, projects, primaries and copies, as tables or as JSON.

mod replication;

use std::io;

use clap::ValueEnum;
use serde_json::Value;

use super::node::Node;
use super::shown::{safe, safe_json, table};

/// Arguments of `status`.
#[derive(clap::Args)]
pub(super) struct Status {
    #[command(flatten)]
    node: Node,
    /// The output format.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Do not ask the nodes which blobs they hold. This is faster in a mesh with many blobs.
    #[arg(long)]
    no_copies: bool,
    /// Show the artifacts that too few regions keep, and what each region lacks, instead: of all
    /// projects, of one, or of a repository.
    #[arg(long, value_name = "WHERE", num_args = 0..=1, default_missing_value = "")]
    under_replicated: Option<String>,
    /// Show in how many regions each artifact is, instead: of a project, a repository, or one
    /// artifact (REPOSITORY:TAG or REPOSITORY@DIGEST).
    #[arg(long, value_name = "WHERE", conflicts_with = "under_replicated")]
    replicated: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Asks and prints the status.
pub(super) fn run(status: &Status) -> io::Result<()> {
    let client = status.node.client()?;
    if let Output::Table = status.output {
        println!("asked {}", client.url());
    }
    let (path, tables): (String, fn(&Value) -> String) =
        match (&status.under_replicated, &status.replicated) {
            (None, None) if status.no_copies => {
                ("/api/atoll/v1/status?copies=false".into(), tables)
            }
            (None, None) => ("/api/atoll/v1/status".into(), tables),
            (of, all) => (replication_path(of.as_deref(), all.as_deref()), replication::tables),
        };
    let answer = super::small_runtime()?.block_on(client.get(&path))?;
    match status.output {
        Output::Json => {
            println!("{}", safe_json(&answer))
        }
        Output::Table => print!("{}", tables(&answer)),
    }
    Ok(())
}

fn replication_path(short: Option<&str>, all: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    match (short, all) {
        (_, Some(of)) => query.append_pair("of", of).append_pair("all", "true"),
        (Some(of), None) if !of.is_empty() => query.append_pair("of", of),
        _ => &mut query,
    };
    format!("/api/atoll/v1/replication?{}", query.finish())
}

/// Words that begin a sentence.
pub(super) fn sentence(words: &str) -> String {
    let words = safe(words);
    let mut letters = words.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}", first.unwrap_or_default(), letters.as_str())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => safe(s),
        Value::Null => "-".into(),
        other => other.to_string(),
    }
}

fn tables(status: &Value) -> String {
    let empty = Vec::new();
    let rows = |name: &str| status[name].as_array().unwrap_or(&empty).clone();
    let edge = &status["edge"];
    let standing = match edge["heard_seconds_ago"].as_u64() {
        _ if edge.is_null() => String::new(),
        Some(ago) => format!(
            "an edge; a replica answered {ago} s ago; {} records kept\n",
            text(&edge["kept_records"])
        ),
        None => {
            format!(
                "an edge; no replica has answered since its start; {} records kept\n",
                text(&edge["kept_records"])
            )
        }
    };
    let cache = format!(
        "cached: {} blobs, {} of {} bytes\n",
        text(&status["cache"]["blobs"]),
        text(&status["cache"]["bytes"]),
        text(&status["cache"]["budget"]),
    );
    let mut out = format!(
        "seen from {} ({}); leader {}; lease {}; applied {}, released {}; voters {}\n{standing}{cache}\n",
        text(&status["node"]["name"]),
        text(&status["node"]["region"]),
        text(&status["leader"]["name"]),
        text(&status["lease"]["state"]),
        text(&status["ledger"]["applied"]),
        text(&status["ledger"]["released"]),
        status["ledger"]["voters"]
            .as_array()
            .unwrap_or(&empty)
            .iter()
            .map(text)
            .collect::<Vec<_>>()
            .join(", "),
    );
    if let Some(lost) = status["majority"]["lost"].as_str() {
        out.push_str(&format!("{}.\n\n", sentence(lost)));
    }
    let drill = &status["drill"];
    if !drill.is_null() {
        out.push_str(&format!(
            "a drill of {} by {}: its nodes refuse all clients until {} (`atoll dr drill --stop` ends it)\n\n",
            text(&drill["region"]),
            text(&drill["by"]),
            text(&drill["until"]),
        ));
    }
    let differ = status["ledger"]["records"]["differ_from"].as_array().unwrap_or(&empty);
    if !differ.is_empty() {
        out.push_str(&format!(
            "the records of this node and of {} differ; whoever has others than most voters takes theirs, \
             see the logs\n\n",
            differ.iter().map(text).collect::<Vec<_>>().join(", "),
        ));
    }
    let nodes = rows("nodes")
        .iter()
        .map(|n| {
            let mut row = ["name", "region", "role", "state", "url"].map(|k| text(&n[k]));
            if n["draining"] == true {
                row[3].push_str(", drains");
            }
            if n["trouble"].is_string() {
                row[3].push_str(", in trouble");
            }
            if n["damaged_blobs"].as_u64() > Some(0) {
                row[3].push_str(", has damaged blobs");
            }
            row.to_vec()
        })
        .collect();
    out.push_str(&table(&["NODE", "REGION", "ROLE", "STATE", "URL"], nodes));
    for node in rows("nodes").iter().filter(|node| node["trouble"].is_string()) {
        out.push_str(&format!(
            "{} gets no copies while others can take them, and uploads there may fail: {}\n",
            text(&node["name"]),
            text(&node["trouble"]),
        ));
    }
    out.push('\n');
    let projects = rows("projects")
        .iter()
        .map(|p| {
            let total = text(&p["blobs"]);
            let copies = p["copies"].as_object().map(|regions| {
                regions
                    .iter()
                    .map(|(region, c)| format!("{region} {}/{total}", text(&c["blobs"])))
                    .collect::<Vec<_>>()
                    .join(", ")
            });
            let mut row =
                ["name", "primary", "home", "epoch", "durability"].map(|k| text(&p[k])).to_vec();
            row.push(copies.unwrap_or_else(|| "not counted".to_owned()));
            row
        })
        .collect();
    out.push_str(&table(
        &["PROJECT", "PRIMARY", "HOME", "EPOCH", "DURABILITY", "BLOBS HELD"],
        projects,
    ));
    let upstreams: Vec<_> = rows("upstreams").iter().map(upstream).collect();
    if !upstreams.is_empty() {
        out.push('\n');
        out.push_str(&table(&["UPSTREAM", "URL", "PAUSED", "LAST ERROR HERE"], upstreams));
    }
    let transfers: Vec<_> = rows("transfers").iter().map(transfer).collect();
    if !transfers.is_empty() {
        out.push('\n');
        out.push_str(&table(&["TRANSFER", "PEER", "BYTES", "BLOB"], transfers));
    }
    for kek in rows("key_encryption").iter().filter(|kek| kek["fault"].is_string()) {
        let (setting, fault) = (text(&kek["setting"]), text(&kek["fault"]));
        // most faults begin with the setting that they are about
        let told = match fault.starts_with("signing.") {
            true => fault,
            false => format!("{setting}: {fault}"),
        };
        out.push_str(&format!("\nThis node cannot use a key-encryption key: {told}.\n"));
    }
    for one in rows("signing").iter().filter(|one| one["signs"] == false) {
        let others = one["opened_by"].as_array().unwrap_or(&empty);
        let others = match others.is_empty() {
            true => "no replica that has said so can; see `signing` in their settings".to_owned(),
            false => format!("{} can", others.iter().map(text).collect::<Vec<_>>().join(", ")),
        };
        out.push_str(&format!(
            "\n{}, the primary of project {}, cannot open the key that the project signs with: its \
             signing jobs wait ({others}).\n",
            text(&one["primary"]),
            text(&one["project"]),
        ));
    }
    for liar in rows("liars") {
        let lies = liar["lies"].as_object().map(|lies| {
            lies.iter()
                .map(|(what, count)| format!("{what} {}", text(count)))
                .collect::<Vec<_>>()
                .join(", ")
        });
        out.push_str(&format!(
            "\n{} was caught sending wrong bytes ({}), last {} s ago; it is asked last for another {} s. Look at its disk.\n",
            text(&liar["node"]),
            lies.unwrap_or_default(),
            text(&liar["last_seconds_ago"]),
            text(&liar["demoted_for_seconds"]),
        ));
    }
    out
}

fn upstream(upstream: &Value) -> Vec<String> {
    let paused = match upstream["paused_seconds"].as_u64() {
        None | Some(0) => "-".to_owned(),
        Some(seconds) => format!("for {seconds} s"),
    };
    let error = &upstream["last_error"];
    let error = match error["seconds_ago"].as_u64() {
        Some(ago) => format!("{ago} s ago: {}", text(&error["message"])),
        None => "-".to_owned(),
    };
    vec![text(&upstream["name"]), text(&upstream["url"]), paused, error]
}

fn transfer(transfer: &Value) -> Vec<String> {
    let bytes = match transfer["total"].as_u64() {
        Some(total) => format!("{} of {total}", text(&transfer["bytes"])),
        None => text(&transfer["bytes"]),
    };
    vec![text(&transfer["direction"]), text(&transfer["peer"]), bytes, text(&transfer["digest"])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_and_what_fails_is_in_the_tables() {
        let status = serde_json::json!({
            "projects": [{"name": "hub", "blobs": null, "copies": null}],
            "transfers": [
                {"direction": "in", "peer": "eu-1", "bytes": 5, "total": 9, "digest": "sha256:ab"},
                {"direction": "out", "peer": "us-1", "bytes": 3, "total": null, "digest": null},
            ],
            "upstreams": [
                {"name": "docker", "url": "https://docker.io", "paused_seconds": 30,
                    "last_error": {"message": "it limits requests", "seconds_ago": 4}},
                {"name": "quay", "url": "https://quay.io", "paused_seconds": 0, "last_error": null},
            ],
            "key_encryption": [
                {"setting": "signing.hsm", "key": null, "fault": "signing.hsm.token: there is no token x"},
                {"setting": "signing.passphrase_file", "key": "0102", "fault": null},
            ],
            "signing": [
                {"project": "shop", "primary": "eu-1", "signs": false, "opened_by": ["us-1"]},
                {"project": "other", "primary": "us-1", "signs": true, "opened_by": ["us-1"]},
            ],
        });
        let out = tables(&status);
        assert!(
            out.contains("eu-1, the primary of project shop, cannot open the key that the project signs with: its signing jobs wait (us-1 can).\n"),
            "{out}"
        );
        assert!(!out.contains("other"), "{out}");
        assert!(
            out.contains("\nThis node cannot use a key-encryption key: signing.hsm.token: there is no token x.\n"),
            "{out}"
        );
        assert!(!out.contains("passphrase_file"), "{out}");
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = out.lines().map(words).collect();
        for line in [
            "hub - - - - not counted",
            "in eu-1 5 of 9 sha256:ab",
            "out us-1 3 -",
            "docker https://docker.io for 30 s 4 s ago: it limits requests",
            "quay https://quay.io - -",
        ] {
            assert!(lines.iter().any(|l| l == line), "no {line:?} in\n{out}");
        }
    }

    #[test]
    fn columns_line_up() {
        let out =
            table(&["A", "B"], vec![vec!["long".into(), "x".into()], vec!["y".into(), "z".into()]]);
        assert_eq!(out, "A     B\nlong  x\ny     z\n");
    }
}
