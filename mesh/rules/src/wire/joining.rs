//! The messages with which a node joins.

use serde::{Deserialize, Serialize};

use crate::ledger::records::NodeRecord;
use crate::words::secret::Secret;

/// What a node shows to be admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The secret of its token.
    pub secret: Secret<Vec<u8>>,
    /// Its certificate request (PEM), naming the identity it chose.
    pub certificate_request: String,
    /// Its record.
    pub node: NodeRecord,
}

impl JoinRequest {
    /// Checks that each field has a plausible size and form, before the ledger is read.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.secret.expose().len() != SECRET {
            return Err("this is not the secret of a token");
        }
        if self.certificate_request.len() > 8 << 10 {
            return Err("the certificate request is too long");
        }
        self.node.check()
    }
}

/// The length of a token's secret in bytes.
pub const SECRET: usize = 32;

/// What the node gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGrant {
    /// Its certificate (PEM).
    pub certificate: String,
    /// The CA's certificate (PEM).
    pub authority: String,
    /// The CA's key (PEM). Every replica can admit nodes, so that no single node is needed for it.
    /// `None` for an edge.
    pub authority_key: Option<Secret>,
    /// The members so far.
    pub nodes: Vec<NodeRecord>,
}
