//! A name and a password at an upstream.

use std::time::Duration;

use rules::words::secret::Secret;

/// The pause after a limit that does not say how long.
pub(super) const PAUSE: Duration = Duration::from_secs(5);

/// A user's name and password, or a robot's, at an upstream. Cloud registries take a token as
/// password (`AWS`, `_json_key`, `oauth2accesstoken`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Password {
    /// The name.
    pub user: String,
    /// The password or secret.
    pub password: Secret,
}
