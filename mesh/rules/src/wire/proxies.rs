//! What an upstream says, passed on by the node that asked it.

use serde::{Deserialize, Serialize};

use crate::words::digest::Digest;
use crate::words::names::Tag;

/// What a reference into a proxy project means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// This manifest, which the ledger has; the upstream said so lately.
    Fresh(Digest),
    /// This manifest, which the ledger has; the upstream could not be asked, and why.
    Stale(Digest, String),
    /// The upstream has no such thing.
    Missing,
    /// The upstream could not be asked, and nothing is cached.
    Failed(String),
    /// Not the primary (any more): look again who is.
    NotPrimary,
    /// The ledger cannot record now what the upstream says: whoever wants to know asks the upstream
    /// itself.
    Unrecorded,
    /// It cannot be had, and waiting does not help: the upstream does not let the registry's
    /// credential see it, or has what no cache can keep. A sentence for the client.
    Denied(String),
}

/// What an upstream says of what refers to a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Referring {
    /// This, on this page.
    Page(ReferrersPage),
    /// It has no such list, and why.
    Absent(String),
    /// It could not be asked, and why.
    Failed(String),
}

/// One page of what refers to a manifest, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferrersPage {
    /// An OCI index.
    #[serde(with = "serde_bytes")]
    pub index: Vec<u8>,
    /// By what the upstream says it has filtered it.
    pub filtered: Option<String>,
    /// The query of the next page, if there is one.
    pub next: Option<String>,
}

/// What an upstream says of the tags of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listing {
    /// These, on this page.
    Page(TagsPage),
    /// It has no such repository.
    Missing,
    /// It does not show them, and waiting does not help. A sentence for the client.
    Denied(String),
    /// It could not be asked, and why.
    Failed(String),
}

/// One page of an upstream's list of tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagsPage {
    /// The tags, in the upstream's order.
    pub tags: Vec<Tag>,
    /// The query of the next page, if there is one.
    pub next: Option<String>,
}
