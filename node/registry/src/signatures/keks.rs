//! The key-encryption keys of a node: what opens the projects' own keys.

#[cfg(feature = "kms")]
pub mod kms;
pub mod token;

use std::sync::Arc;

use rules::ledger::sign_log::KekId;
pub use sign::making::sealed::Wrapping;
use sign::making::sealed::{self, SealedError};
use zeroize::Zeroizing;

/// The minimum length of a passphrase in bytes.
const SHORTEST_PASSPHRASE: usize = 20;

/// A key-encryption key.
#[derive(Clone)]
pub struct Kek {
    /// The setting that gives it.
    pub setting: &'static str,
    /// What wraps.
    pub wrapping: Arc<dyn Wrapping>,
}

/// How a key-encryption key of this node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekStanding {
    /// The setting that gives it.
    pub setting: &'static str,
    /// Its name, or why it cannot be used.
    pub key: Result<KekId, SealedError>,
}

/// The key-encryption keys of this node: it seals with the first, and opens with each. Without one
/// it signs nothing.
#[derive(Clone, Default)]
pub struct Keks(Vec<Kek>);

impl std::fmt::Debug for Keks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.standing()).finish()
    }
}

impl Keks {
    /// These, the one that seals first. More than [`MOST_KEKS`](rules::ledger::trust::MOST_KEKS) are not told to others.
    pub fn new(keks: Vec<Kek>) -> Self {
        Keks(keks)
    }

    /// How each of them stands.
    pub fn standing(&self) -> Vec<KekStanding> {
        let standing = |kek: &Kek| KekStanding { setting: kek.setting, key: kek.wrapping.id() };
        self.0.iter().map(standing).collect()
    }

    /// The names of those that can be used now.
    pub fn ids(&self) -> Vec<KekId> {
        self.0.iter().filter_map(|kek| kek.wrapping.id().ok()).collect()
    }

    /// Whether one of them was not looked for yet: this node has just begun.
    pub(super) fn begin(&self) -> bool {
        self.0.iter().any(|kek| kek.wrapping.id() == Err(SealedError::Beginning))
    }

    /// The one that seals.
    pub(super) fn first(&self) -> Option<Arc<dyn Wrapping>> {
        self.0.first().map(|kek| kek.wrapping.clone())
    }

    pub(super) fn all(&self) -> Vec<&dyn Wrapping> {
        self.0.iter().map(|kek| &*kek.wrapping).collect()
    }
}

/// The key-encryption key of a passphrase: Argon2id with 64 MiB and three passes. All replicas that
/// may sign have the same passphrase, so the salt is the same, too: the passphrase has to be long.
/// Fails with a sentence if it is not.
pub fn kek(passphrase: Vec<u8>) -> Result<sealed::InMemory, String> {
    let passphrase = Zeroizing::new(passphrase);
    let passphrase = passphrase.trim_ascii();
    if passphrase.len() < SHORTEST_PASSPHRASE {
        return Err(format!("a passphrase has at least {SHORTEST_PASSPHRASE} bytes"));
    }
    let failed = |error: argon2::Error| format!("no key can be made of the passphrase: {error}");
    let params = argon2::Params::new(64 << 10, 3, 1, Some(32)).map_err(failed)?;
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let mut key = Zeroizing::new([0; 32]);
    argon2.hash_password_into(passphrase, b"atoll signing 1", &mut *key).map_err(failed)?;
    Ok(sealed::InMemory::new(key))
}
