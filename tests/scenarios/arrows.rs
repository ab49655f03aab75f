//! The house keeps its shape: who may depend on whom, who alone touches what, and what may be in
//! the house at all.
//!
//! Cargo refuses an arrow that a manifest lacks; this refuses the arrow in the manifest. The table
//! below is the diagram in ARCHITECTURE.md, and the test holds when the diagram was last true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::{modules, process, tools};

/// Each crate of ours, and which of ours it may use.
const ARROWS: [(&str, &[&str]); 13] = [
    ("rules", &[]),
    ("ground", &["rules"]),
    ("config", &["rules"]),
    ("mesh", &["ground", "rules"]),
    ("store", &["ground", "rules"]),
    ("upstream", &["ground", "rules"]),
    ("scan", &["rules"]),
    ("sign", &["rules"]),
    ("hsm", &["ground", "rules"]),
    ("registry", &["ground", "hsm", "mesh", "rules", "scan", "sign", "store", "upstream"]),
    (
        "node",
        &["config", "ground", "mesh", "registry", "rules", "scan", "sign", "store", "upstream"],
    ),
    ("loadtest", &["rules"]),
    // the intruder (src/intruder.rs) speaks the mesh protocol
    ("tests", &["ground", "mesh", "rules", "sign"]),
];

/// A folder of sources, and its rooms: the files and folders in it, each with those beside it that
/// it may use.
type Rooms = (&'static str, &'static [(&'static str, &'static [&'static str])]);

/// The rooms of the crates that have some. A room that is not listed may use none.
const ROOMS: [Rooms; 6] = [
    (
        "mesh/rules/src",
        &[
            ("words", &[]),
            ("blobs", &["words"]),
            ("proxies", &["words"]),
            ("policies", &["words"]),
            ("scanners", &["words"]),
            ("ledger", &["words", "proxies", "policies"]),
            ("members", &["words", "blobs", "ledger"]),
            ("people", &["words", "proxies", "policies", "ledger"]),
            ("wire", &["words", "blobs", "ledger", "members", "people"]),
            ("edges", &["words", "proxies", "ledger", "wire"]),
        ],
    ),
    (
        "mesh/src",
        &[
            ("identity", &[]),
            ("secrets", &["identity"]),
            ("links", &["identity"]),
            ("members", &["identity", "links"]),
            ("ledger", &["links", "members"]),
            ("transfer", &["links"]),
            ("sealing", &["identity", "ledger", "links", "secrets"]),
            (
                "service",
                &["identity", "ledger", "links", "members", "sealing", "secrets", "transfer"],
            ),
        ],
    ),
    (
        "node/scan/src",
        &[
            ("archive", &[]),
            ("package", &[]),
            ("report", &["package"]),
            ("versions", &[]),
            ("packages", &["package"]),
            ("layer", &["archive", "package", "packages"]),
            ("database", &["archive"]),
            ("judging", &["package", "report", "versions", "layer", "database"]),
            ("sbom", &["package", "layer"]),
            ("adapter", &["package", "report", "database", "sbom"]),
            ("trivy", &["adapter", "package", "report"]),
        ],
    ),
    (
        "node/sign/src",
        &[
            ("json", &[]),
            ("layers", &[]),
            ("keys", &[]),
            ("payload", &["json"]),
            ("certificates", &["json", "keys"]),
            ("anchor", &["certificates", "json", "keys"]),
            ("evidence", &["layers"]),
            ("cosign", &["anchor", "certificates", "json", "keys", "layers", "payload"]),
            ("notation", &["anchor", "certificates", "json", "keys", "layers", "payload"]),
            ("verify", &["anchor", "cosign", "evidence", "layers", "notation", "payload"]),
            ("behind", &["certificates", "cosign", "notation", "payload"]),
            ("union", &["layers"]),
            (
                "making",
                &["anchor", "certificates", "cosign", "json", "keys", "layers", "payload", "union"],
            ),
        ],
    ),
    (
        "node/registry/src",
        &[
            ("view", &[]),
            ("upstreams", &["view"]),
            ("blobs", &["view", "upstreams"]),
            ("writes", &["view", "blobs"]),
            ("pushes", &["view", "blobs"]),
            ("proxies", &["view", "upstreams", "writes"]),
            ("people", &["view", "proxies"]),
            ("jobs", &["view", "blobs", "writes", "proxies"]),
            ("scans", &["view", "blobs", "writes", "proxies", "people", "jobs"]),
            ("signatures", &["view", "blobs", "writes", "proxies", "jobs"]),
            ("events", &["view"]),
            ("pulls", &["blobs", "proxies"]),
        ],
    ),
    (
        "node/src",
        &[
            ("http", &[]),
            ("oci", &["http"]),
            ("harbor", &["http"]),
            ("atoll", &["http"]),
            ("adapter", &["http"]),
            ("peers", &[]),
            ("start", &["http", "oci", "harbor", "atoll", "peers"]),
            ("cli", &["start", "adapter"]),
        ],
    ),
];

/// The sources of the product.
const SOURCES: &[&str] = &[
    "mesh/rules/src",
    "mesh/ground/src",
    "mesh/src",
    "config/src",
    "node/store/src",
    "node/upstream/src",
    "node/scan/src",
    "node/sign/src",
    "node/hsm/src",
    "node/registry/src",
    "node/src",
];

/// What pure rules must not reach, not even through somebody else: sockets, files, tasks, clocks,
/// dice.
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

#[test]
fn crates_use_only_whom_the_design_lets_them_use() {
    let told = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let told: Value = serde_json::from_str(&told).expect("cargo metadata is JSON");
    let ours: BTreeMap<_, _> = told["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|one| (text(one, "name"), one))
        .collect();
    let drawn: BTreeSet<_> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        ours.keys().copied().collect::<BTreeSet<_>>(),
        drawn,
        "the workspace on the left, the table on the right"
    );
    for (name, allowed) in ARROWS {
        let uses = ours[name]["dependencies"].as_array().expect("dependencies").iter();
        let uses = uses
            .filter(|one| one["kind"] != "dev")
            .map(|one| text(one, "name"))
            .filter(|used| drawn.contains(used));
        for used in uses {
            assert!(allowed.contains(&used), "{name} must not use {used}");
        }
    }
}

#[test]
fn rooms_use_only_those_that_the_table_lets_them_use() {
    for (folder, rooms) in ROOMS {
        let sources = sources(folder);
        let there: BTreeSet<_> =
            sources.keys().filter_map(|module| module.first().cloned()).collect();
        let drawn: BTreeSet<_> = rooms.iter().map(|(room, _)| (*room).to_owned()).collect();
        assert_eq!(there, drawn, "the rooms of {folder} on the left, the table on the right");
        let forbidden = modules::forbidden(&sources, rooms);
        assert!(
            forbidden.is_empty(),
            "{folder}: arrows that the table does not list:\n{}",
            forbidden.join("\n")
        );
    }
}

#[test]
fn no_two_files_use_each_other() {
    for folder in SOURCES {
        let circles = modules::circles(&sources(folder));
        assert!(circles.is_empty(), "{folder}: files in a circle:\n{}", circles.join("\n"));
    }
}

/// The modules of a crate, with their code.
fn sources(folder: &str) -> BTreeMap<Vec<String>, String> {
    let mut sources: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for (file, _, line) in code_lines(&[folder]) {
        let module = modules::module_of(file.strip_prefix(folder).expect("under the folder"));
        let text = sources.entry(module).or_default();
        text.push_str(&line);
        text.push('\n');
    }
    sources
}

#[test]
fn rules_are_pure() {
    let reached = tree(&["--package", "rules", "--edges", "normal"]);
    let found: Vec<_> =
        IMPURE.iter().filter(|name| reached.iter().any(|one| one.name == **name)).collect();
    assert!(found.is_empty(), "mesh/rules reaches {found:?}");
    for (file, number, line) in code_lines(&["mesh/rules/src"]) {
        for word in
            ["Instant::now", "SystemTime::now", "std::env", "std::net", "std::fs", "std::thread"]
        {
            assert!(!line.contains(word), "{}:{number}: {word} in the pure crate", file.display());
        }
    }
}

/// What keeps blobs can be changed only if the rest of the store knows no file of them.
#[test]
fn only_a_backend_knows_the_files_of_blobs() {
    // what is known about blobs is on a local disk, whatever keeps their bytes; `blob` makes files for
    // programs
    let local = ["cached", "damaged", "scrubbing", "blob"];
    let mut found = BTreeSet::new();
    for (module, text) in sources("node/store/src") {
        let words = ["std::fs", "fs::", "File", "PathBuf", "os::unix", "os::fd", "rustix", "libc"];
        let Some(word) = words.iter().find(|word| text.contains(**word)) else { continue };
        let is_backend = module.len() > 1 && module[0] == "backend";
        let is_local = module.len() == 1 && local.contains(&module[0].as_str());
        assert!(is_backend || is_local, "{}: {word} outside of the backends", module.join("::"));
        found.insert(module);
    }
    assert!(found.len() > local.len(), "the files are not found: {found:?}");
}

/// Two kinds of records under one key once broke each other (drills, and the database of scans).
#[test]
fn no_two_files_of_the_ledger_begin_their_keys_alike() {
    let mut of: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for (file, _, line) in code_lines(&["mesh/rules/src/ledger"]) {
        for begin in ["b\"$", "b\"9"] {
            for (at, _) in line.match_indices(begin) {
                let letters = line[at + 2..].chars().take_while(|letter| *letter != '"');
                of.entry(letters.take(2).collect()).or_default().insert(file.clone());
            }
        }
    }
    assert!(of.len() > 15, "the keys are not found: {of:?}");
    let shared: Vec<_> = of.iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(shared.is_empty(), "one beginning, two files: {shared:?}");
}

#[test]
fn consensus_and_tasks_have_one_room_each() {
    let everywhere = [SOURCES, &["loadtest/src"]].concat();
    for (file, number, line) in code_lines(&everywhere) {
        let ledger = file
            .strip_prefix("mesh/src")
            .is_ok_and(|rest| rest.to_string_lossy().starts_with("ledger"));
        assert!(
            ledger || !line.contains("openraft"),
            "{}:{number}: only mesh/src/ledger knows openraft",
            file.display()
        );
    }
    for (file, number, line) in code_lines(SOURCES) {
        let supervisor = file.file_name().is_some_and(|name| name == "supervise.rs");
        let spawns = ["tokio::spawn", "task::spawn("].iter().any(|word| line.contains(word));
        assert!(
            supervisor || !spawns,
            "{}:{number}: tasks are started by the supervisor alone",
            file.display()
        );
    }
}

#[test]
fn there_is_one_rustls_and_no_ring() {
    let reached = tree(&["--workspace", "--edges", "normal,build,dev"]);
    let versions = |name: &str| {
        reached
            .iter()
            .filter(|one| one.name == name)
            .map(|one| one.version.clone())
            .collect::<Vec<_>>()
    };
    assert!(versions("ring").is_empty(), "ring is in the tree: cargo tree -i ring");
    assert_eq!(versions("rustls").len(), 1, "one rustls: {:?}", versions("rustls"));
}

#[test]
fn every_licence_is_one_that_deny_toml_allows() {
    let file = tools::repository().join("deny.toml");
    let deny = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let allowed = allowed_licences(&deny);
    let reached = tree(&["--workspace", "--edges", "normal,build,dev", "--target", "all"]);
    assert!(reached.len() > 50, "only {} packages in the tree", reached.len());
    let refused: Vec<_> = reached.iter().filter(|one| !permits(&one.licence, &allowed)).collect();
    assert!(refused.is_empty(), "not allowed by deny.toml, which has {allowed:?}:\n{refused:#?}");
}

/// What a node counts is described to Prometheus (`HELP`) and to people, and nothing is described
/// that no node counts.
#[test]
fn every_metric_is_described_and_nothing_else_is() {
    let (mut emitted, mut described) = (BTreeSet::new(), BTreeSet::new());
    for (file, _, line) in code_lines(SOURCES) {
        let names = if file == Path::new("node/src/start/observe.rs") {
            &mut described
        } else {
            &mut emitted
        };
        names.extend(line.split('"').skip(1).step_by(2).flat_map(metrics_in));
    }
    let page = tools::repository().join("docs/metrics.md");
    let page = std::fs::read_to_string(&page)
        .unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    // a row about a metric has its name, alone, in the first column; those of alerts have
    // expressions
    let first =
        |line: &str| line.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name.to_owned());
    let listed: BTreeSet<_> =
        page.lines().filter_map(first).filter(|cell| metrics_in(cell).eq([cell.clone()])).collect();
    let named: BTreeSet<_> = metrics_in(&page).collect();
    assert!(emitted.len() > 40, "the sources emit {emitted:?} only");
    assert_eq!(
        described, emitted,
        "node/src/start/observe.rs on the left, what is emitted on the right"
    );
    assert_eq!(listed, emitted, "docs/metrics.md on the left, what is emitted on the right");
    assert!(
        named.is_subset(&emitted),
        "docs/metrics.md names what no node counts: {:?}",
        &named - &emitted
    );
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_');
    words.filter(|word| word.starts_with("atoll_")).map(str::to_owned)
}

/// A package in the dependency tree.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
}

/// What `cargo tree` finds. (The graph of `cargo metadata` also has what no feature in use asks
/// for.)
fn tree(arguments: &[&str]) -> BTreeSet<Package> {
    let told = cargo(
        &[&["tree", "--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"], arguments].concat(),
    );
    let package = |line: &str| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split(' ').map(str::to_owned);
        Some(Package { name: words.next()?, version: words.next()?, licence: licence.to_owned() })
    };
    told.lines().filter_map(package).collect()
}

fn cargo(arguments: &[&str]) -> String {
    let mut cargo = tools::packaged("cargo", "cargo (or rustup's)");
    process::succeed(cargo.args(arguments).arg("--offline").current_dir(tools::repository()))
}

/// The strings of `allow = [ .. ]` under `[licenses]`.
fn allowed_licences(deny: &str) -> BTreeSet<String> {
    let plain: Vec<_> =
        deny.lines().map(|line| line.split_once('#').map_or(line, |(code, _)| code)).collect();
    let section = plain
        .iter()
        .skip_while(|line| line.trim() != "[licenses]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    let text = section.copied().collect::<Vec<_>>().join("\n");
    let list = text
        .split_once("allow")
        .and_then(|(_, rest)| rest.split_once('['))
        .and_then(|(_, rest)| rest.split_once(']'));
    let (list, _) = list.expect("deny.toml has [licenses] allow = [..]");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with the allowed licences: one side of each OR, all sides
/// of each AND.
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

/// The lines of code (no comments, no unit tests) under some folders: file as seen from the
/// repository, number, line.
fn code_lines(folders: &[&str]) -> Vec<(PathBuf, usize, String)> {
    let root = tools::repository();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut lines = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.expect("a folder can be read").path();
            let is_rust = path.extension().is_some_and(|extension| extension == "rs");
            if path.is_dir() {
                open.push(path);
            } else if is_rust && !is_test(&path) {
                let text = std::fs::read_to_string(&path).expect("source is text");
                let name = path.strip_prefix(&root).expect("under the root").to_owned();
                // a `mod tests;` may stand anywhere, what is in the file itself is at its end
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                let code = text.lines().enumerate();
                let code = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
                lines.extend(code.map(|(at, line)| (name.clone(), at + 1, line.to_owned())));
            }
        }
    }
    lines
}

/// Whether a file is a module of unit tests by its name.
fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests")
        || path.file_name().is_some_and(|name| name == "tests.rs")
}
