//! Whose credentials these are, as an edge asks a replica.

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

/// Who that is: an identity, and with a token what it is good for.
pub type Verdict = (Identity, Option<Vec<Scope>>);
