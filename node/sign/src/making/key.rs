//! The key that signs.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, Signature, SigningKey as Ecdsa};
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _};
use rules::policies::signatures::AnchorId;
use zeroize::Zeroizing;

use crate::anchor::to_pem;
use crate::keys;

/// A private key of P-256: the only kind that all verifiers accept. It is overwritten when it is
/// dropped, and nothing prints it.
pub struct SigningKey {
    key: Ecdsa,
    /// SubjectPublicKeyInfo in DER.
    public: Vec<u8>,
}

/// Bytes are no key that can sign here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no private key of P-256 (PKCS#8 in DER); the mesh signs with P-256 only")]
pub struct BadSigningKey;

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id())
    }
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate() -> Result<Self, BadSigningKey> {
        loop {
            let mut bytes = Zeroizing::new([0; 32]);
            aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| BadSigningKey)?;
            // one of 2^32 is no key
            if let Ok(key) = Ecdsa::from_slice(bytes.as_slice()) {
                return SigningKey::of(key);
            }
        }
    }

    /// Reads PKCS#8 in DER.
    ///
    /// # Errors
    /// If it is not, or of another kind.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, BadSigningKey> {
        Ecdsa::from_pkcs8_der(der).map_err(|_| BadSigningKey).and_then(SigningKey::of)
    }

    fn of(key: Ecdsa) -> Result<Self, BadSigningKey> {
        let public = key.verifying_key().to_public_key_der().map_err(|_| BadSigningKey)?;
        Ok(SigningKey { key, public: public.into_vec() })
    }

    /// PKCS#8 in DER. Whoever has it can sign.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, BadSigningKey> {
        let der = self.key.to_pkcs8_der().map_err(|_| BadSigningKey)?;
        Ok(Zeroizing::new(der.as_bytes().to_vec()))
    }

    /// The public key as PEM, as cosign and skopeo read it.
    pub fn public_pem(&self) -> String {
        to_pem("PUBLIC KEY", &self.public)
    }

    /// Its id, the same as in [`anchor::key`](crate::anchor::key) of [`SigningKey::public_pem`].
    pub fn id(&self) -> AnchorId {
        keys::id(&self.public)
    }

    /// Signs (ECDSA with SHA-256, in DER). The same message has the same signature (RFC 6979), so what
    /// is signed twice is stored once.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: DerSignature = self.key.sign(message);
        signature.as_bytes().to_vec()
    }

    /// The same signature as two numbers of 32 bytes (RFC 7518 section 3.4).
    pub(super) fn sign_fixed(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.key.sign(message);
        signature.to_bytes().to_vec()
    }
}
