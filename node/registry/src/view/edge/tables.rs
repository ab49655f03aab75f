//! The tables that an edge always has.

use rules::ledger::records::key;
use rules::ledger::scanning;
use rules::wire::Query;

/// The query for a whole table.
pub(super) fn whole(prefix: Vec<u8>) -> Query {
    Query::Scan { prefix, after: None, limit: u64::MAX }
}

/// The tables that an edge always has: nodes, projects, upstreams; of people the keys that tokens are
/// signed with, how often their records were changed, and whether there are groups; whom nodes
/// believe; whether images are scanned, and how often what decides about them was changed.
pub(super) fn small() -> Vec<Query> {
    let people = [people(), groups()].concat();
    [mesh(), people, trust(), scans()].concat()
}

pub(super) fn mesh() -> Vec<Query> {
    [key::nodes(), key::projects(), key::upstreams()].map(whole).into()
}

pub(super) fn trust() -> Vec<Query> {
    [key::pins(), key::authorities()].map(whole).into()
}

pub(super) fn groups() -> Vec<Query> {
    vec![whole(key::groups_used())]
}

pub(super) fn scans() -> Vec<Query> {
    scanning::key::followed().map(whole).into()
}

pub(super) fn people() -> Vec<Query> {
    [key::token_keys(), key::people_version()].map(whole).into()
}
