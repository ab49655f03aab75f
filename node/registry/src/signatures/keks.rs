//! The key-encryption keys of a node: what opens the projects' own keys.

use std::sync::Arc;

use rules::ledger::sign_log::KekId;
use sign::making::sealed;
pub use sign::making::sealed::Wrapping;
use zeroize::Zeroizing;

/// The minimum length of a passphrase in bytes.
const SHORTEST_PASSPHRASE: usize = 20;

/// The key-encryption keys of this node: it seals with the first, and opens with each. Without one
/// it signs nothing.
#[derive(Clone, Default)]
pub struct Keks(Vec<Arc<dyn Wrapping>>);

impl std::fmt::Debug for Keks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

impl Keks {
    /// These, the one that seals first. More than [`MOST_KEKS`](rules::ledger::trust::MOST_KEKS) are not told to others.
    pub fn new(keks: Vec<Arc<dyn Wrapping>>) -> Self {
        Keks(keks)
    }

    /// Their names.
    pub fn ids(&self) -> Vec<KekId> {
        self.0.iter().map(|kek| kek.id()).collect()
    }

    /// The one that seals.
    pub(super) fn first(&self) -> Option<Arc<dyn Wrapping>> {
        self.0.first().cloned()
    }

    pub(super) fn all(&self) -> Vec<&dyn Wrapping> {
        self.0.iter().map(|kek| &**kek).collect()
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
