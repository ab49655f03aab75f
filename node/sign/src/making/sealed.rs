//! Keys that are sealed under a key-encryption key, as the ledger may keep them.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use super::SigningKey;

/// The version of the form, the first byte.
const VERSION: u8 = 1;

/// Why a sealed key could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// Sealed under another key-encryption key, for another binding, or damaged.
    #[error(
        "the sealed key does not open: it was sealed under another key-encryption key or for another place, or it is damaged"
    )]
    Closed,
    /// Of a later version of the form.
    #[error("the sealed key is of a form that this build does not know; update it")]
    Form,
    /// The system has no random bytes, or what was opened is no key.
    #[error("a key could not be sealed")]
    Key,
}

/// Seals a key with AES-256-GCM under `kek`. It opens only with the same `binding`: where it belongs
/// (mesh, project, key, version), so that nobody can put it into another place.
///
/// # Errors
/// If the system has no random bytes.
pub fn seal(key: &SigningKey, kek: &[u8; 32], binding: &[u8]) -> Result<Vec<u8>, SealedError> {
    let sealing = RandomizedNonceKey::new(&AES_256_GCM, kek).map_err(|_| SealedError::Key)?;
    let mut bytes = key.to_pkcs8().map_err(|_| SealedError::Key)?.to_vec();
    let nonce = sealing.seal_in_place_append_tag(Aad::from(binding), &mut bytes);
    let nonce = nonce.map_err(|_| SealedError::Key)?;
    Ok([&[VERSION][..], nonce.as_ref(), &bytes].concat())
}

/// Opens what [`seal`] made.
///
/// # Errors
/// If it was sealed under another key or for another binding, or is damaged.
pub fn open(sealed: &[u8], kek: &[u8; 32], binding: &[u8]) -> Result<SigningKey, SealedError> {
    let (version, rest) = sealed.split_first().ok_or(SealedError::Closed)?;
    if *version != VERSION {
        return Err(SealedError::Form);
    }
    let (nonce, bytes) = rest.split_at_checked(NONCE_LEN).ok_or(SealedError::Closed)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealedError::Closed)?;
    let opening = RandomizedNonceKey::new(&AES_256_GCM, kek).map_err(|_| SealedError::Closed)?;
    let mut bytes = Zeroizing::new(bytes.to_vec());
    let opened = opening
        .open_in_place(nonce, Aad::from(binding), &mut bytes)
        .map_err(|_| SealedError::Closed)?;
    SigningKey::from_pkcs8(opened).map_err(|_| SealedError::Closed)
}
