//! `atoll status`: nodes, leader, projects, primaries, copies; as tables or as JSON.

use std::io;

use clap::ValueEnum;
use serde_json::Value;

use super::node::Node;

/// Arguments of `status`.
#[derive(clap::Args)]
pub(super) struct Status {
    #[command(flatten)]
    node: Node,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Asks and prints.
pub(super) fn run(status: &Status) -> io::Result<()> {
    let client = status.node.client()?;
    let answer = super::small_runtime()?.block_on(client.get("/api/atoll/v1/status"))?;
    match status.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&answer).map_err(io::Error::other)?),
        Output::Table => print!("{}", tables(&answer)),
    }
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
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
        Some(ago) => format!("an edge; a replica answered {ago} s ago; {} records kept\n", text(&edge["kept_records"])),
        None => {
            format!("an edge; no replica has answered since its start; {} records kept\n", text(&edge["kept_records"]))
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
        status["ledger"]["voters"].as_array().unwrap_or(&empty).iter().map(text).collect::<Vec<_>>().join(", "),
    );
    let nodes = rows("nodes")
        .iter()
        .map(|n| ["name", "region", "role", "state", "url"].map(|k| text(&n[k])).to_vec())
        .collect();
    out.push_str(&table(&["NODE", "REGION", "ROLE", "STATE", "URL"], nodes));
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
            let mut row = ["name", "primary", "home", "epoch", "durability"].map(|k| text(&p[k])).to_vec();
            row.push(copies.unwrap_or_default());
            row
        })
        .collect();
    out.push_str(&table(&["PROJECT", "PRIMARY", "HOME", "EPOCH", "DURABILITY", "BLOBS HELD"], projects));
    for liar in rows("liars") {
        let lies = liar["lies"].as_object().map(|lies| {
            lies.iter().map(|(what, count)| format!("{what} {}", text(count))).collect::<Vec<_>>().join(", ")
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

/// Columns as wide as their widest cell.
pub(super) fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut widths: Vec<usize> = head.iter().map(|h| h.len()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut out = line(head.to_vec());
    for row in &rows {
        out.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let out = table(&["A", "B"], vec![vec!["long".into(), "x".into()], vec!["y".into(), "z".into()]]);
        assert_eq!(out, "A     B\nlong  x\ny     z\n");
    }
}
