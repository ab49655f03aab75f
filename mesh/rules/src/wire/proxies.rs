//! Answers of an upstream, passed on by the node that asked it.

use serde::{Deserialize, Serialize};

use crate::words::digest::Digest;
use crate::words::names::Tag;

/// What a reference into a proxy project names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// This manifest, which is cached. The upstream said so lately.
    Fresh(Digest),
    /// This manifest, which is cached. The upstream could not be asked, for this reason.
    Stale(Digest, String),
    /// The upstream does not have it.
    Missing,
    /// The upstream could not be asked, for this reason, and nothing is cached.
    Failed(String),
    /// This node is not the primary (any more): look up the primary again.
    NotPrimary,
    /// The ledger cannot record the upstream's answer now. The node that wants it asks the upstream
    /// itself.
    Unrecorded,
    /// It cannot be cached, and waiting does not help: the upstream refuses the registry's
    /// credentials, or the content cannot be cached. A sentence for the client.
    Denied(String),
}

/// What came of asking an upstream for signatures of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sought {
    /// It was asked lately: what is recorded is what it has.
    Known,
    /// It was asked now, and has nothing new.
    Nothing,
    /// It was asked now, and what was found is recorded.
    Found,
    /// It could not be asked, or what was found could not be recorded, for this reason.
    Failed(String),
    /// So much is being asked for that it was not asked. Ask again.
    Busy,
}

/// An upstream's list of the manifests that refer to one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Referring {
    /// This page of the list.
    Page(ReferrersPage),
    /// The upstream has no such list, for this reason.
    Absent(String),
    /// The upstream could not be asked, for this reason.
    Failed(String),
}

/// One page of a list of referrers, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferrersPage {
    /// An OCI index.
    #[serde(with = "serde_bytes")]
    pub index: Vec<u8>,
    /// The filters that the upstream says it has applied.
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
