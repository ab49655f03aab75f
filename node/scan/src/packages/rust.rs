//! What `cargo auditable` writes into programs: the crates that were built in, as compressed JSON in
//! the section `.dep-v0`.

use std::io::Read;

use flate2::read::ZlibDecoder;
use serde::Deserialize;

use crate::package::{Kind, Package};

use super::elf::Elf;

/// The most that the list may have, unpacked. (`auditable-info` takes 8 MiB.)
const LARGEST: u64 = 8 << 20;

#[derive(Deserialize)]
struct List {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    /// `runtime` where it is left out.
    #[serde(default)]
    kind: Option<String>,
}

/// The crates of a program. Empty where nobody wrote them.
pub(super) fn read(elf: &Elf<'_>) -> Vec<Package> {
    let Some(section) = elf.section(".dep-v0") else { return Vec::new() };
    let mut json = Vec::new();
    let read = ZlibDecoder::new(section).take(LARGEST).read_to_end(&mut json);
    let list = read.ok().and_then(|_| serde_json::from_slice::<List>(&json).ok());
    let crates = list.map(|list| list.packages).unwrap_or_default();
    let runtime = crates.into_iter().filter(|one| {
        one.kind.as_deref().is_none_or(|kind| kind == "runtime") && !one.version.is_empty()
    });
    runtime.map(|one| Package::new(Kind::Rustbinary, one.name, one.version)).collect()
}
