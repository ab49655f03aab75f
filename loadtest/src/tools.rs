//! Where the program under test is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The given atoll, or the one that was built beside this program.
pub(crate) fn atoll(given: Option<&Path>) -> Result<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("atoll"));
    let atoll = given.map(Path::to_owned).or_else(beside).context("no atoll")?;
    ensure!(atoll.is_file(), "{} is not there: cargo build --release -p node, or give --atoll PATH", atoll.display());
    Ok(atoll)
}
