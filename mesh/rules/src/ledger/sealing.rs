//! Which keys seal the secrets in the ledger: passwords of upstreams, keys that sign tokens, and
//! hashes of robots' secrets. The ledger names the keys and never has them: replicas keep them on
//! their disks and hand them to each other.
//!
//! Below [`Level::KEYS`](super::level::Level::KEYS), and until the first key is in use, secrets are
//! sealed under a key that is made of the CA's.

use serde::{Deserialize, Serialize};

use super::level::Level;
use super::records::{Look, RecordError, key};
use crate::words::digest::Digest;
use crate::words::moment::Timestamp;
use crate::words::names::{ScannerId, UpstreamId, UserId};
use crate::words::secret::Secret;

/// A key that seals, as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingKey {
    /// Its version: 1 for the first.
    pub version: u64,
    /// The sha256 of the key, which is random. Whoever is handed a key knows it by this.
    pub check: Digest,
    /// Since when it is in use.
    pub since: Timestamp,
}

/// Where the ledger has a sealed secret that can be sealed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SealedPlace {
    /// The password of an upstream.
    Upstream(UpstreamId),
    /// The private part of a key that tokens are signed with.
    TokenKey(u64),
    /// The secret that signed tokens before there were such keys.
    TokenSecret,
    /// The key of an authority of the mesh.
    Authority(u64),
    /// The secret of this mesh at its OIDC provider.
    ClientSecret,
    /// The password of the account that searches the LDAP directory.
    SearchPassword,
    /// The secret of a user for clients that have no browser.
    CliSecret(UserId),
    /// The refresh token of the OIDC provider about a user.
    ProviderToken(UserId),
    /// What the mesh shows a scanner.
    Scanner(ScannerId),
}

/// A change of the keys, or of what they seal. A variant's position is its number in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SealingChange {
    /// Uses the next key from now on. Propose it only when [`is_safe`] says so.
    Use {
        /// The version of the newest key at the time of the decision, 0 without one. If there is a
        /// newer one, nothing changes.
        after: u64,
        /// See [`SealingKey::check`].
        check: Digest,
    },
    /// Replaces a sealed secret with the same, sealed under a newer key, unless it was changed.
    Reseal {
        /// Where.
        place: SealedPlace,
        /// As it was.
        was: Secret<Vec<u8>>,
        /// As it becomes.
        becomes: Secret<Vec<u8>>,
    },
}

impl SealingChange {
    /// The minimum feature level, see [`Command::level`](super::command::Command::level).
    pub fn level(&self) -> Level {
        match self {
            SealingChange::Reseal { place: SealedPlace::ProviderToken(_), .. } => {
                Level::PROVIDER_TOKENS
            }
            SealingChange::Reseal { place: SealedPlace::Scanner(_), .. } => Level::SCANNERS,
            _ => Level::KEYS,
        }
    }

    /// A word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            SealingChange::Use { .. } => "use_sealing_key",
            SealingChange::Reseal { .. } => "reseal",
        }
    }
}

/// Whether a new key may be used that so many of the mesh's replicas have on their disks: a
/// majority. Then it is lost only with the disks of a majority, and with those the ledger is lost,
/// too.
pub fn is_safe(kept: usize, replicas: usize) -> bool {
    kept > replicas / 2
}

/// Typed reading of the keys.
pub trait LookForKeys: Look {
    /// The keys that seal, oldest first. The last one seals what is new.
    fn sealing_keys(&self) -> Result<Vec<SealingKey>, RecordError> {
        Ok(self.record(&key::sealing_keys())?.unwrap_or_default())
    }
}

impl<R: Look + ?Sized> LookForKeys for R {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_used_when_a_majority_has_it() {
        let safe = |replicas: usize| (0..=replicas).find(|kept| is_safe(*kept, replicas));
        assert_eq!([1, 2, 3, 4, 5].map(safe), [1, 2, 2, 3, 3].map(Some));
        assert!(!is_safe(0, 0));
    }
}
