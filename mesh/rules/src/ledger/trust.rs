//! Whom nodes believe: the key of each node, and the mesh's authorities.
//!
//! A listed node is known by its own key, which the ledger records once. So who has an authority's
//! key cannot pass for a listed node. An authority vouches for nodes that are not listed here yet.
//!
//! The mesh's first authority is made with the mesh. When a replica is removed whose disk somebody
//! else has, there is another: that disk has the key of the one before. Certificates of an authority
//! that was replaced count only for nodes whose key is recorded.

use serde::{Deserialize, Serialize};

use super::level::Level;
use super::records::{Look, RecordError, key};
use super::sign_log::KekId;
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::NodeId;
use crate::words::secret::Secret;

/// An authority of the mesh, as everybody may know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// Its version: 0 for the mesh's first.
    pub version: u64,
    /// Its certificate (PEM).
    pub certificate: String,
    /// Since when it signs.
    pub since: Timestamp,
}

/// What somebody knows who has the disk of a replica that was removed. The mesh makes newer ones of
/// all of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposed {
    /// The replica.
    pub node: NodeId,
    /// When it was removed.
    pub at: Timestamp,
    /// The newest version of the keys that seal.
    pub sealing: u64,
    /// The newest number of the keys that sign tokens.
    pub tokens: u64,
    /// The newest version of the mesh's authority.
    pub authority: u64,
}

/// A change of whom nodes believe. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrustChange {
    /// Records the key of a listed node, for good.
    Pin {
        /// The node.
        node: NodeId,
        /// The sha256 of its public key (DER of the SubjectPublicKeyInfo).
        key: Digest,
    },
    /// Makes another authority the one that signs.
    Authority {
        /// The version of the newest at the time of the decision. If there is a newer one, nothing
        /// changes.
        after: u64,
        /// Its certificate (PEM).
        certificate: String,
        /// Its key (PEM), sealed.
        sealed: Secret,
        /// With the second authority: the certificate of the first, and its key, sealed. What was
        /// sealed or hashed under that key can still be read.
        first: Option<(String, Secret)>,
    },
    /// Replaces all keys that tokens are signed with, and the secret of before there were keys.
    /// Tokens of before are not accepted any more.
    Tokens {
        /// The number of the newest key at the time of the decision. If there is a newer one, nothing
        /// changes.
        after: u64,
        /// See [`TokenKey::public`](super::people::TokenKey::public).
        public: Vec<u8>,
        /// See [`TokenKey::sealed`](super::people::TokenKey::sealed).
        sealed: Secret,
        /// The secret, sealed.
        secret: Secret<Vec<u8>>,
    },
    /// Says which key-encryption keys a replica has: it opens what is sealed under them.
    Opens {
        /// The replica.
        node: NodeId,
        /// The keys, at most [`MOST_KEKS`]; it seals with the first.
        keks: Vec<KekId>,
    },
}

/// The maximum number of key-encryption keys of a replica.
pub const MOST_KEKS: usize = 4;

impl TrustChange {
    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            TrustChange::Pin { .. } => "pin_node",
            TrustChange::Authority { .. } => "new_authority",
            TrustChange::Tokens { .. } => "replace_token_keys",
            TrustChange::Opens { .. } => "say_what_opens",
        }
    }

    /// The minimum feature level at which it may be proposed.
    pub fn level(&self) -> Level {
        match self {
            TrustChange::Opens { .. } => Level::SIGNING,
            _ => Level::TRUST,
        }
    }
}

/// Typed reading of whom nodes believe.
pub trait LookForTrust: Look {
    /// The recorded key of a node.
    fn pin(&self, node: NodeId) -> Result<Option<Digest>, RecordError> {
        self.record(&key::pin(node))
    }
    /// The authorities, oldest first. Empty until there is a second one.
    fn authorities(&self) -> Result<Vec<AuthorityRecord>, RecordError> {
        Ok(self.records(&key::authorities())?.into_iter().map(|(_, v)| v).collect())
    }
    /// The sealed key of an authority.
    fn authority_key(&self, version: u64) -> Result<Option<Secret>, RecordError> {
        self.record(&key::authority_key(version))
    }
    /// The oldest version of an authority that counts for nodes whose key is not recorded.
    fn trusted_from(&self) -> Result<u64, RecordError> {
        let newest = self.authorities()?.last().map_or(0, |authority| authority.version);
        let exposed = self.exposed()?.map_or(0, |exposed| exposed.authority + 1);
        Ok(newest.max(exposed))
    }
    /// What was exposed last, if a replica was ever removed whose disk somebody else has.
    fn exposed(&self) -> Result<Option<Exposed>, RecordError> {
        self.record(&key::exposed())
    }
}

impl<L: Look + ?Sized> LookForTrust for L {}
