//! A project that caches a registry, and its images: what tests of what is known of these begin with.

use super::leaving::at_newest;
use super::*;
use crate::ledger::change::Change;
use crate::ledger::records::{Project, encode, key as records_key};
use crate::words::digest::Digest;

pub(super) fn place() -> RepositoryName {
    "demo/a".parse().unwrap()
}

pub(super) fn digest(n: u64) -> Digest {
    Digest::sha256(&n.to_be_bytes())
}

pub(super) fn project(ledger: &Ledger) -> Project {
    ledger.records.project(&"demo".parse().unwrap()).unwrap().unwrap()
}

/// A ledger at the newest level whose project caches a registry.
pub(super) fn of_a_proxy() -> Ledger {
    let mut ledger = at_newest();
    let project = project(&ledger);
    let cached = Project { upstream: Some(UpstreamId(1)), ..project };
    ledger.records.put(&records_key::project(&cached.name), &encode(&cached).unwrap()).unwrap();
    ledger
}

/// Sets an entry of the project's metadata.
pub(super) fn set(ledger: &mut Ledger, key: &str, value: &str) {
    let metadata = [(key.to_owned(), value.to_owned())].into();
    let (name, proxy) = ("demo".parse().unwrap(), Default::default());
    let change = Change::Configure { name, public: None, durability: None, proxy, metadata };
    ledger.run(change.under(ledger.epoch()));
}

/// Deletes the project, and says how many records are left at these keys.
pub(super) fn left_after_deletion(ledger: &mut Ledger, keys: &[Vec<u8>]) -> usize {
    let delete = Change::Delete { name: "demo".parse().unwrap() };
    assert_eq!(ledger.run(delete.under(ledger.epoch())), Outcome::Done);
    keys.iter().map(|key| ledger.records.scan(key, None, usize::MAX).unwrap().len()).sum()
}
