//! A user name and a password for an upstream.

use std::time::Duration;

use rules::words::secret::Secret;

/// The pause after a limit that does not say how long it lasts.
pub(super) const PAUSE: Duration = Duration::from_secs(5);

/// The name and password of a user or a robot account at an upstream. Cloud registries accept a
/// token as password (`AWS`, `_json_key`, `oauth2accesstoken`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Password {
    /// The name.
    pub user: String,
    /// The password or secret.
    pub password: Secret,
}
