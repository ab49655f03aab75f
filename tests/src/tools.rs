//! Where the programs under test and the clients are, and what to do when one is missing: fail, and
//! say how to get it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_owned()
}

/// The folder for what is built once and kept: Go's clients and the images.
#[must_use]
pub fn cache() -> PathBuf {
    std::env::var_os("ATOLL_TEST_CACHE")
        .map_or_else(|| repository().join("target/clients"), PathBuf::from)
}

/// The `atoll` under test: `ATOLL_BIN`, or the debug build of this workspace.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn atoll() -> PathBuf {
    let bin = std::env::var_os("ATOLL_BIN")
        .map_or_else(|| repository().join("target/debug/atoll"), PathBuf::from);
    assert!(
        bin.is_file(),
        "{} is missing: run tests/run, or cargo build -p node, or set ATOLL_BIN",
        bin.display()
    );
    bin
}

/// The `atoll` of the landing before this one, which `tests/previous` names.
///
/// # Panics
/// When it is not built.
#[must_use]
pub fn previous_atoll() -> PathBuf {
    let commit = include_str!("../previous").trim();
    let bin = cache().join("previous").join(commit);
    assert!(bin.is_file(), "{} is missing: run tests/run rolling, which builds it", bin.display());
    bin
}

/// A program that Debian has.
///
/// # Panics
/// When it is not installed; the message names its package.
#[must_use]
pub fn packaged(program: &str, package: &str) -> Command {
    Command::new(on_path(program).unwrap_or_else(|| {
        panic!("{program} is missing: apt-get install {package}, or run tests/run")
    }))
}

/// A client that is built with Go: from the cache, or from the path.
///
/// # Panics
/// When it is in neither; the message says how to get it.
#[must_use]
pub fn built_by_go(program: &str) -> Command {
    let cached = cache().join(program);
    let found = if cached.is_file() { Some(cached) } else { on_path(program) };
    Command::new(found.unwrap_or_else(|| {
        panic!(
            "{program} is missing in {}: install Go 1.25 or later (Debian's backports have it: apt-get install -t \
             CODENAME-backports golang-go) and run tests/run, which builds it",
            cache().display()
        )
    }))
}

/// The folder with the images, built now if they are not there (`tests/images/build`).
///
/// # Panics
/// When they cannot be built.
#[must_use]
pub fn images() -> PathBuf {
    let folder = cache().join("images");
    process::succeed(Command::new(repository().join("tests/images/build")).arg(&folder));
    folder
}

/// Debian 13's skopeo, taken from its packages now if it is not there
/// (`tests/clients/newer-skopeo`).
///
/// # Panics
/// When it cannot be had.
#[must_use]
pub fn newer_skopeo() -> Command {
    let folder = cache().join("newer-skopeo");
    process::succeed(Command::new(repository().join("tests/clients/newer-skopeo")).arg(&folder));
    Command::new(folder.join("skopeo"))
}

/// A program that signs images: `cosign2`, `cosign3` or `notation`, taken from Debian's packages now
/// if it is not there (`tests/clients/signers`). The caller gives it a home folder of its own.
///
/// # Panics
/// When it cannot be had.
#[must_use]
pub fn signer(program: &str) -> Command {
    let folder = cache().join("signers");
    process::succeed(Command::new(repository().join("tests/clients/signers")).arg(&folder));
    Command::new(folder.join(program))
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // the places where administration tools are, which are not on every path
    let also = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(also)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
