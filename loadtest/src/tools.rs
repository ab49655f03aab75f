//! Where the program under test is, and which one it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rules::words::digest::Digest;

use crate::process;

/// The given atoll, or the one that was built beside this program.
pub(crate) fn atoll(given: Option<&Path>) -> Result<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("atoll"));
    let atoll = given.map(Path::to_owned).or_else(beside).context("no atoll")?;
    ensure!(
        atoll.is_file(),
        "{} is not there: cargo build --release -p node, or give --atoll PATH",
        atoll.display()
    );
    Ok(atoll)
}

/// What atoll says of itself, and which file it was: the commit of a report is that of the source
/// tree, not of the binary.
pub(crate) fn version(atoll: &Path) -> String {
    let said = process::first_line(Command::new(atoll).arg("--version"))
        .unwrap_or_else(|| "atoll".to_owned());
    let debug = if atoll.iter().any(|part| part == "debug") {
        ", a debug build: its figures count for nothing"
    } else {
        ""
    };
    match std::fs::read(atoll) {
        Ok(bytes) => format!(
            "{said} ({}, sha256 {}{debug})",
            atoll.display(),
            Digest::sha256(&bytes).short()
        ),
        Err(_) => said,
    }
}
