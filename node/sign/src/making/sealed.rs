//! Keys that are sealed under a key-encryption key, as the ledger may keep them.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rules::ledger::sign_log::{KekId, sealed_head, sealed_under};
use rules::words::digest::Digest;
use zeroize::Zeroizing;

use super::SigningKey;

/// Why a sealed key could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// Sealed under another key-encryption key, for another binding, or damaged.
    #[error(
        "the sealed key does not open: it was sealed under another key-encryption key or for another place, or it is damaged"
    )]
    Closed,
    /// Sealed under a key-encryption key that is not here.
    #[error("the key is sealed under the key-encryption key {0}, which this node does not have")]
    Absent(KekId),
    /// Of a later version of the form.
    #[error("the sealed key is of a form that this build does not know; update it")]
    Form,
    /// The system has no random bytes, or what was opened is no key.
    #[error("a key could not be sealed")]
    Key,
    /// What keeps the key-encryption key does not do what it is asked.
    #[error("the key-encryption key cannot be used: {0}")]
    Unusable(String),
    /// What keeps the key-encryption key was not asked yet, because this node has just begun.
    #[error("the key-encryption key is not looked for yet")]
    Beginning,
}

/// A key-encryption key. What it wraps opens only with the same `binding`: where it belongs (mesh,
/// project, version), so that nobody can put it into another place.
pub trait Wrapping: Send + Sync {
    /// Its name: the same wherever the same key is.
    ///
    /// # Errors
    /// If it cannot be used now, and why.
    fn id(&self) -> Result<KekId, SealedError>;

    /// Wraps a private key.
    ///
    /// # Errors
    /// If the system has no random bytes, or what keeps the key does not answer.
    fn wrap(&self, private: &[u8], binding: &[u8]) -> Result<Vec<u8>, SealedError>;

    /// Unwraps what [`Wrapping::wrap`] made.
    ///
    /// # Errors
    /// If it was wrapped with another key or for another binding, or is damaged.
    fn unwrap(&self, wrapped: &[u8], binding: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealedError>;
}

/// A key-encryption key in this node's memory. It wraps with AES-256-GCM.
pub struct InMemory {
    key: Zeroizing<[u8; 32]>,
    id: KekId,
}

impl std::fmt::Debug for InMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InMemory({})", self.id)
    }
}

impl InMemory {
    /// With these bytes.
    pub fn new(key: Zeroizing<[u8; 32]>) -> Self {
        let id = name_of(&*key);
        InMemory { key, id }
    }
}

/// The name of a key, made of what only the key can show: its bytes, or what it makes of the same
/// bytes each time.
pub fn name_of(shown: &[u8]) -> KekId {
    let named = Zeroizing::new([&b"atoll key-encryption key 1\0"[..], shown].concat());
    let mut id = [0; 8];
    id.copy_from_slice(&Digest::sha256(&named).as_bytes()[..8]);
    KekId(id)
}

impl Wrapping for InMemory {
    fn id(&self) -> Result<KekId, SealedError> {
        Ok(self.id)
    }

    fn wrap(&self, private: &[u8], binding: &[u8]) -> Result<Vec<u8>, SealedError> {
        let sealing = RandomizedNonceKey::new(&AES_256_GCM, &*self.key);
        let sealing = sealing.map_err(|_| SealedError::Key)?;
        let mut bytes = private.to_vec();
        let nonce = sealing.seal_in_place_append_tag(Aad::from(binding), &mut bytes);
        let nonce = nonce.map_err(|_| SealedError::Key)?;
        Ok([&nonce.as_ref()[..], &bytes].concat())
    }

    fn unwrap(&self, wrapped: &[u8], binding: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealedError> {
        let (nonce, bytes) = wrapped.split_at_checked(NONCE_LEN).ok_or(SealedError::Closed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealedError::Closed)?;
        let opening = RandomizedNonceKey::new(&AES_256_GCM, &*self.key);
        let opening = opening.map_err(|_| SealedError::Closed)?;
        let mut bytes = Zeroizing::new(bytes.to_vec());
        let opened = opening.open_in_place(nonce, Aad::from(binding), &mut bytes);
        let length = opened.map_err(|_| SealedError::Closed)?.len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// Seals a key. With `named` it says under which key-encryption key, which builds of before feature
/// level 11 cannot read.
///
/// # Errors
/// If the system has no random bytes, or what keeps the key-encryption key does not answer.
pub fn seal(
    key: &SigningKey,
    kek: &dyn Wrapping,
    binding: &[u8],
    named: bool,
) -> Result<Vec<u8>, SealedError> {
    let private = key.to_pkcs8().map_err(|_| SealedError::Key)?;
    let under = named.then(|| kek.id()).transpose()?;
    let wrapped = kek.wrap(&private, binding)?;
    Ok([sealed_head(under), wrapped].concat())
}

/// Opens what [`seal`] made, with one of these key-encryption keys.
///
/// # Errors
/// If it was sealed under another key or for another binding, or is damaged.
pub fn open(
    sealed: &[u8],
    keks: &[&dyn Wrapping],
    binding: &[u8],
) -> Result<SigningKey, SealedError> {
    let (under, wrapped) = sealed_under(sealed).ok_or(SealedError::Form)?;
    let mut failed = under.map_or(SealedError::Closed, SealedError::Absent);
    for kek in keks {
        match kek.id() {
            Ok(id) if under.is_some_and(|under| under != id) => continue,
            Ok(_) => {}
            // it may be the one
            Err(error) => {
                failed = error;
                continue;
            }
        }
        match kek.unwrap(wrapped, binding) {
            Ok(private) => {
                return SigningKey::from_pkcs8(&private).map_err(|_| SealedError::Closed);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
