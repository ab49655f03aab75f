//! Credentials that an edge has a replica check.

use serde::{Deserialize, Serialize};

use crate::people::access::{Identity, Scope};
use crate::words::secret::Secret;

/// What a client presented.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Credentials {
    /// Name and password.
    Basic(String, Secret),
    /// A token of this mesh.
    Token(Secret),
}

/// The identity behind credentials, and for a token the scopes that it grants.
pub type Verdict = (Identity, Option<Vec<Scope>>);
