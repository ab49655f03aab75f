//! The house keeps its shape: who may depend on whom, who alone touches what, and what may be in the house at all.
//!
//! Cargo refuses an arrow that a manifest lacks; this refuses the arrow in the manifest. The table below is the diagram in
//! ARCHITECTURE.md, and the test holds when the diagram was last true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::{process, tools};

/// Each crate of ours, and which of ours it may use.
const ARROWS: [(&str, &[&str]); 6] = [
    ("rules", &[]),
    ("config", &["rules"]),
    ("mesh", &["config", "rules"]),
    ("node", &["config", "mesh", "rules"]),
    ("loadtest", &["rules"]),
    ("tests", &[]),
];

/// What pure rules must not reach, not even through somebody else: sockets, files, tasks, clocks, dice.
const IMPURE: &[&str] = &[
    "async-std",
    "crossterm",
    "foca",
    "getrandom",
    "hyper",
    "mio",
    "object_store",
    "openraft",
    "quinn",
    "quinn-proto",
    "rand",
    "redb",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "tempfile",
    "tokio",
    "tracing",
    "tracing-subscriber",
    "chrono",
    "time",
    "jiff",
];

struct Graph {
    metadata: Value,
}

impl Graph {
    fn read() -> Self {
        let mut cargo = tools::packaged("cargo", "cargo (or rustup's)");
        cargo.args(["metadata", "--format-version", "1", "--offline", "--manifest-path"]);
        let told = process::succeed(cargo.arg(tools::repository().join("Cargo.toml")));
        Self { metadata: serde_json::from_str(&told).expect("cargo metadata is JSON") }
    }

    fn packages(&self) -> impl Iterator<Item = &Value> {
        self.metadata["packages"].as_array().expect("packages").iter()
    }

    fn members(&self) -> BTreeMap<&str, &str> {
        let ids: BTreeSet<_> =
            self.metadata["workspace_members"].as_array().expect("members").iter().filter_map(Value::as_str).collect();
        let ours = self.packages().filter(|package| ids.contains(text(package, "id")));
        ours.map(|package| (text(package, "name"), text(package, "id"))).collect()
    }

    /// Ids and kinds of what a package uses directly: `None` for ordinary, else `dev` or `build`.
    fn uses<'a>(&'a self, id: &str) -> Vec<(&'a str, Option<&'a str>)> {
        let nodes = self.metadata["resolve"]["nodes"].as_array().expect("a resolved graph");
        let node = nodes.iter().find(|node| node["id"] == id).expect("every package is in the graph");
        let of = |dep: &'a Value| {
            dep["dep_kinds"].as_array().into_iter().flatten().map(move |kind| (text(dep, "pkg"), kind["kind"].as_str()))
        };
        node["deps"].as_array().expect("deps").iter().flat_map(of).collect()
    }

    /// Everything reached from these by ordinary and build dependencies, dev-dependencies of the roots included when `dev`.
    fn closure<'a>(&'a self, roots: impl IntoIterator<Item = &'a str>, dev: bool) -> BTreeSet<&'a str> {
        let roots: BTreeSet<_> = roots.into_iter().collect();
        let (mut seen, mut open) = (roots.clone(), roots.iter().copied().collect::<Vec<_>>());
        while let Some(id) = open.pop() {
            for (next, kind) in self.uses(id) {
                if (kind != Some("dev") || (dev && roots.contains(id))) && seen.insert(next) {
                    open.push(next);
                }
            }
        }
        seen
    }

    fn package(&self, id: &str) -> &Value {
        self.packages().find(|package| package["id"] == id).expect("every id is a package")
    }
}

#[test]
fn crates_use_only_whom_the_design_lets_them_use() {
    let graph = Graph::read();
    let members = graph.members();
    let named: BTreeSet<_> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        members.keys().copied().collect::<BTreeSet<_>>(),
        named,
        "a crate that this table does not know, or the other way round"
    );
    for (name, allowed) in ARROWS {
        for (other, id) in &members {
            let uses = graph.uses(members[name]).iter().any(|(used, kind)| used == id && *kind != Some("dev"));
            assert!(!uses || allowed.contains(other), "{name} must not use {other}");
        }
    }
}

#[test]
fn rules_are_pure() {
    let graph = Graph::read();
    let reached = graph.closure([graph.members()["rules"]], false);
    let names: BTreeSet<_> = reached.iter().map(|id| text(graph.package(id), "name")).collect();
    let found: Vec<_> = IMPURE.iter().filter(|name| names.contains(*name)).collect();
    assert!(found.is_empty(), "mesh/rules reaches {found:?}");
    for (file, number, line) in code_lines(&["mesh/rules/src"]) {
        for word in ["Instant::now", "SystemTime::now", "std::env", "std::net", "std::fs", "std::thread"] {
            assert!(!line.contains(word), "{}:{number}: {word} in the pure crate", file.display());
        }
    }
}

#[test]
fn consensus_and_tasks_have_one_room_each() {
    let everywhere = ["mesh/src", "mesh/rules/src", "config/src", "node/src", "loadtest/src"];
    for (file, number, line) in code_lines(&everywhere) {
        let ledger = file.strip_prefix("mesh/src").is_ok_and(|rest| rest.to_string_lossy().starts_with("ledger"));
        assert!(
            ledger || !line.contains("openraft"),
            "{}:{number}: only mesh/src/ledger knows openraft",
            file.display()
        );
    }
    for (file, number, line) in code_lines(&everywhere[..4]) {
        let supervisor = file.file_name().is_some_and(|name| name == "supervise.rs");
        let spawns = ["tokio::spawn", "task::spawn("].iter().any(|word| line.contains(word));
        assert!(supervisor || !spawns, "{}:{number}: tasks are started by the supervisor alone", file.display());
    }
}

#[test]
fn there_is_one_rustls_and_no_ring() {
    let graph = Graph::read();
    let reached = graph.closure(graph.members().into_values(), true);
    let versions = |name: &str| -> Vec<_> {
        let found = reached.iter().map(|id| graph.package(id)).filter(|package| package["name"] == name);
        found.map(|package| text(package, "version")).collect()
    };
    assert!(versions("ring").is_empty(), "ring is in the tree: cargo tree -i ring");
    assert_eq!(versions("rustls").len(), 1, "one rustls: {:?}", versions("rustls"));
}

#[test]
fn every_licence_is_one_that_deny_toml_allows() {
    let file = tools::repository().join("deny.toml");
    let deny = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let allowed = allowed_licences(&deny);
    assert!(allowed.contains("Apache-2.0"), "deny.toml allows {allowed:?}");
    let graph = Graph::read();
    let members: BTreeSet<_> = graph.members().into_values().collect();
    let reached = graph.closure(members.iter().copied(), true);
    let refused: Vec<_> = reached
        .iter()
        .filter(|id| !members.contains(*id))
        .map(|id| graph.package(id))
        .filter(|package| !package["license"].as_str().is_some_and(|licence| permits(licence, &allowed)))
        .map(|package| format!("{} {}: {}", text(package, "name"), text(package, "version"), package["license"]))
        .collect();
    assert!(refused.is_empty(), "not allowed by deny.toml:\n{}", refused.join("\n"));
}

/// The strings of `allow = [ .. ]` under `[licenses]`.
fn allowed_licences(deny: &str) -> BTreeSet<String> {
    let plain: Vec<_> = deny.lines().map(|line| line.split_once('#').map_or(line, |(code, _)| code)).collect();
    let section =
        plain.iter().skip_while(|line| line.trim() != "[licenses]").skip(1).take_while(|line| !line.starts_with('['));
    let text = section.copied().collect::<Vec<_>>().join("\n");
    let list =
        text.split_once("allow").and_then(|(_, rest)| rest.split_once('[')).and_then(|(_, rest)| rest.split_once(']'));
    let (list, _) = list.expect("deny.toml has [licenses] allow = [..]");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with the allowed licences: one side of each OR, all sides of each AND.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let (answer, rest) = either(&words, allowed);
    answer && rest.is_empty()
}

fn either<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut answer, mut rest) = both(words, allowed);
    while let ["OR", more @ ..] = rest {
        let (next, after) = both(more, allowed);
        (answer, rest) = (answer || next, after);
    }
    (answer, rest)
}

fn both<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut answer, mut rest) = one(words, allowed);
    while let ["AND", more @ ..] = rest {
        let (next, after) = one(more, allowed);
        (answer, rest) = (answer && next, after);
    }
    (answer, rest)
}

fn one<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => {
            let (answer, rest) = either(inner, allowed);
            (answer, rest.strip_prefix(&[")"]).unwrap_or(rest))
        }
        [licence, "WITH", exception, rest @ ..] => {
            let whole = format!("{licence} WITH {exception}");
            (allowed.contains(&whole) || allowed.contains(*licence), rest)
        }
        [licence, rest @ ..] => (allowed.contains(*licence), rest),
        [] => (false, words),
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "Apache-2.0".to_owned(), "ISC".to_owned()]);
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "ISC AND (MIT OR GPL-3.0)",
        "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
    ] {
        assert!(permits(good, &allowed), "{good}");
    }
    for bad in ["GPL-3.0", "ISC AND GPL-3.0", "GPL-3.0 OR (MIT AND GPL-3.0)", ""] {
        assert!(!permits(bad, &allowed), "{bad}");
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// The lines of code (no comments, no unit tests) under some folders: file as seen from the repository, number, line.
fn code_lines(folders: &[&str]) -> Vec<(PathBuf, usize, String)> {
    let root = tools::repository();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut lines = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a folder can be read").path();
            let is_rust = path.extension().is_some_and(|extension| extension == "rs");
            if path.is_dir() {
                open.push(path);
            } else if is_rust && !is_test(&path) {
                let text = std::fs::read_to_string(&path).expect("source is text");
                let name = path.strip_prefix(&root).expect("under the root").to_owned();
                let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]").enumerate();
                let code = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
                lines.extend(code.map(|(at, line)| (name.clone(), at + 1, line.to_owned())));
            }
        }
    }
    lines
}

/// Whether a file is a module of unit tests by its name.
fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.file_name().is_some_and(|name| name == "tests.rs")
}
