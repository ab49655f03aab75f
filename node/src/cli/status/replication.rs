//! `atoll status --under-replicated` and `--replicated`: in how many regions artifacts are.

use serde_json::Value;

use super::text;
use crate::cli::shown::table;

/// What each region lacks, and the artifacts.
pub(super) fn tables(answer: &Value) -> String {
    let list = |of: &Value| of.as_array().cloned().unwrap_or_default();
    let mut out = String::new();
    let silent: Vec<String> = list(&answer["silent"]).iter().map(text).collect();
    if !silent.is_empty() {
        out += &format!("{} did not answer; what it keeps is not counted\n", silent.join(", "));
    }
    if answer["is_fresh"] == false {
        out += "this node is cut off from the mesh: what it shows may be old\n";
    }
    out += &format!(
        "{} of {} artifacts are in fewer regions than they should be\n",
        text(&answer["under_replicated"]),
        text(&answer["of"]),
    );
    let regions: Vec<_> = list(&answer["regions"])
        .iter()
        .map(|one| ["region", "lacks_blobs", "lacks_bytes"].map(|key| text(&one[key])).to_vec())
        .collect();
    if !regions.is_empty() {
        out.push('\n');
        out += &table(&["REGION", "LACKS BLOBS", "BYTES"], regions);
    }
    let artifacts = list(&answer["artifacts"]);
    if artifacts.is_empty() {
        return out;
    }
    out.push('\n');
    let rows = artifacts.iter().map(|one| {
        let tags: Vec<String> = list(&one["tags"]).iter().map(text).collect();
        vec![
            format!("{}@{}", text(&one["repository"]), text(&one["digest"])),
            if tags.is_empty() { "-".to_owned() } else { tags.join(", ") },
            format!("{}/{}", text(&one["replicated"]), text(&one["of"])),
            text(&one["short_blobs"]),
            text(&one["short_bytes"]),
        ]
    });
    out += &table(&["ARTIFACT", "TAGS", "REPLICATED", "BLOBS SHORT", "BYTES"], rows.collect());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_told_with_its_regions() {
        let answer = serde_json::json!({
            "silent": ["three"], "is_fresh": true, "under_replicated": 1, "of": 7,
            "regions": [{"region": "eu", "lacks_blobs": 2, "lacks_bytes": 30}],
            "artifacts": [{"repository": "team/app", "digest": "sha256:ab", "tags": ["v1", "v2"],
                "replicated": 1, "of": 2, "short_blobs": 2, "short_bytes": 30}],
        });
        let out = tables(&answer);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = out.lines().map(words).collect();
        for line in [
            "three did not answer; what it keeps is not counted",
            "1 of 7 artifacts are in fewer regions than they should be",
            "eu 2 30",
            "team/app@sha256:ab v1, v2 1/2 2 30",
        ] {
            assert!(lines.iter().any(|l| l == line), "no {line:?} in\n{out}");
        }
    }
}
