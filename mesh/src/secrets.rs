//! Secrets in the ledger, sealed under a key that only replicas have.
//!
//! The key is derived from the key of the mesh's CA. Every replica holds that in its `identity`
//! folder, and no ledger, snapshot or backup contains it. An edge does not have it, and can open
//! nothing.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;

use rules::words::secret::Secret;

use crate::identity::Authority;

/// The purpose of the key; each purpose has its own key.
const PURPOSE: &str = "atoll 2026-11-24 secrets in the ledger v1";
/// The place of the secret that tokens are signed with.
const TOKEN_KEY: &str = "token key";
/// The prefix of a sealed text.
const PREFIX: &str = "sealed1.";

/// Why a sealed text could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// This node has no key.
    #[error("this node is an edge, which holds no secrets of the mesh")]
    NoKey,
    /// It was sealed by another mesh, or is damaged.
    #[error(
        "a secret in the ledger cannot be opened: it was sealed under another mesh's CA, or it is damaged; record it again"
    )]
    Damaged,
}

/// The purpose of the key that secrets of robots are hashed with.
const HASHING: &str = "atoll 2026-11-28 hashes of robots' secrets v1";
/// The place of the keys that tokens are signed with.
const SIGNING: &str = "key that signs tokens";

/// Seals and opens.
pub struct Secrets {
    key: Option<RandomizedNonceKey>,
    hashing: Option<[u8; 32]>,
}

/// A new key to sign tokens with (Ed25519).
pub struct NewSigningKey {
    /// The public key, raw.
    pub public: Vec<u8>,
    /// The private key, as the ledger keeps it; see [`Secrets::signing_key`].
    pub sealed: Secret,
}

impl Secrets {
    /// Uses the key of `authority`. Without one (at an edge), nothing can be sealed or opened.
    pub fn of(authority: &Authority) -> Self {
        if authority.key.is_empty() {
            return Secrets { key: None, hashing: None };
        }
        let derived = |purpose| blake3::derive_key(purpose, authority.key.trim().as_bytes());
        Secrets {
            key: RandomizedNonceKey::new(&AES_256_GCM, &derived(PURPOSE)).ok(),
            hashing: Some(derived(HASHING)),
        }
    }

    /// The keyed hash of a robot's secret. Such a secret is random, so it needs no slow hash; the
    /// key keeps guesses from whoever has only the ledger.
    pub fn hash(&self, secret: &Secret) -> Result<Secret<Vec<u8>>, SecretError> {
        let key = self.hashing.as_ref().ok_or(SecretError::NoKey)?;
        Ok(blake3::keyed_hash(key, secret.expose().as_bytes()).as_bytes().to_vec().into())
    }

    /// Whether `hash` is that of `secret`. The time that this takes tells nothing of the hash.
    pub fn is_hash_of(&self, hash: &Secret<Vec<u8>>, secret: &Secret) -> Result<bool, SecretError> {
        let right = self.hash(secret)?;
        Ok(aws_lc_rs::constant_time::verify_slices_are_equal(right.expose(), hash.expose()).is_ok())
    }

    /// A new key to sign tokens with.
    pub fn new_signing_key(&self) -> Result<NewSigningKey, SecretError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| SecretError::Damaged)?;
        let private = pair.to_pkcs8().map_err(|_| SecretError::Damaged)?;
        Ok(NewSigningKey {
            public: pair.public_key().as_ref().to_vec(),
            sealed: self.seal(SIGNING, &BASE64_STANDARD_NO_PAD.encode(private.as_ref()))?.into(),
        })
    }

    /// The private key (PKCS #8) behind what the ledger keeps.
    pub fn signing_key(&self, sealed: &Secret) -> Result<Secret<Vec<u8>>, SecretError> {
        let opened = self.open(SIGNING, sealed.expose())?;
        let key = BASE64_STANDARD_NO_PAD.decode(opened.expose());
        key.map(Secret::from).map_err(|_| SecretError::Damaged)
    }

    /// Seals `text` for `place`. It can only be opened for the same place.
    pub fn seal(&self, place: &str, text: &str) -> Result<String, SecretError> {
        let key = self.key.as_ref().ok_or(SecretError::NoKey)?;
        let mut bytes = text.as_bytes().to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut bytes);
        let nonce = nonce.map_err(|_| SecretError::Damaged)?;
        let whole = [nonce.as_ref().as_slice(), &bytes].concat();
        Ok(format!("{PREFIX}{}", BASE64_STANDARD_NO_PAD.encode(whole)))
    }

    /// A new secret to sign tokens with, as the ledger keeps it: sealed, so that no ledger,
    /// snapshot or backup reveals it.
    pub fn new_token_key(&self) -> Result<Secret<Vec<u8>>, SecretError> {
        Ok(self.seal(TOKEN_KEY, &hex::encode(rand::random::<[u8; 32]>()))?.into_bytes().into())
    }

    /// The secret that tokens are signed with, from what the ledger keeps. Before the level `ROLES`
    /// a mesh keeps it unsealed.
    pub fn token_key(&self, kept: &Secret<Vec<u8>>) -> Result<Secret<Vec<u8>>, SecretError> {
        match std::str::from_utf8(kept.expose()) {
            Ok(sealed) if sealed.starts_with(PREFIX) => {
                let key = hex::decode(self.open(TOKEN_KEY, sealed)?.expose());
                key.map(Secret::from).map_err(|_| SecretError::Damaged)
            }
            _ => Ok(kept.clone()),
        }
    }

    /// Opens what [`Secrets::seal`] sealed for the same place.
    pub fn open(&self, place: &str, sealed: &str) -> Result<Secret, SecretError> {
        let key = self.key.as_ref().ok_or(SecretError::NoKey)?;
        let encoded = sealed.strip_prefix(PREFIX).ok_or(SecretError::Damaged)?;
        let whole = BASE64_STANDARD_NO_PAD.decode(encoded).map_err(|_| SecretError::Damaged)?;
        let (nonce, bytes) = whole.split_at_checked(NONCE_LEN).ok_or(SecretError::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SecretError::Damaged)?;
        let mut bytes = bytes.to_vec();
        let opened = key.open_in_place(nonce, Aad::from(place.as_bytes()), &mut bytes);
        let opened = opened.map_err(|_| SecretError::Damaged)?;
        String::from_utf8(opened.to_vec()).map(Secret::from).map_err(|_| SecretError::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_tokens_opens_in_its_mesh_and_an_old_one_is_as_it_was() {
        let authority = Authority::generate().unwrap();
        let secrets = Secrets::of(&authority);
        let kept = secrets.new_token_key().unwrap();
        let key = secrets.token_key(&kept).unwrap();
        assert_eq!(key.expose().len(), 32);
        assert!(
            !kept.expose().windows(key.expose().len()).any(|part| part == key.expose())
                && kept != secrets.new_token_key().unwrap()
        );
        assert!(Secrets::of(&Authority::generate().unwrap()).token_key(&kept).is_err());
        assert_eq!(secrets.token_key(&vec![9; 32].into()).unwrap(), vec![9; 32].into());
    }

    #[test]
    fn a_robots_secret_is_hashed_under_the_meshs_key() {
        let authority = Authority::generate().unwrap();
        let secrets = Secrets::of(&authority);
        let hash = secrets.hash(&"hidden word".into()).unwrap();
        assert!(secrets.is_hash_of(&hash, &"hidden word".into()).unwrap());
        assert!(!secrets.is_hash_of(&hash, &"hidden work".into()).unwrap());
        assert!(!secrets.is_hash_of(&Vec::new().into(), &"hidden word".into()).unwrap());
        let other = Secrets::of(&Authority::generate().unwrap());
        assert_ne!(other.hash(&"hidden word".into()).unwrap(), hash);
        let edge = Secrets::of(&Authority { key: String::new(), ..authority });
        assert!(matches!(edge.hash(&"hidden word".into()), Err(SecretError::NoKey)));
    }

    #[test]
    fn a_key_that_signs_opens_in_its_mesh_only() {
        let secrets = Secrets::of(&Authority::generate().unwrap());
        let new = secrets.new_signing_key().unwrap();
        let private = secrets.signing_key(&new.sealed).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(private.expose()).unwrap();
        assert_eq!(pair.public_key().as_ref(), new.public);
        assert!(Secrets::of(&Authority::generate().unwrap()).signing_key(&new.sealed).is_err());
    }

    #[test]
    fn a_secret_opens_for_its_place_under_its_mesh_and_nowhere_else() {
        let authority = Authority::generate().unwrap();
        let secrets = Secrets::of(&authority);
        let sealed = secrets.seal("hub", "hidden word").unwrap();
        assert!(!sealed.contains("hidden"));
        assert_ne!(sealed, secrets.seal("hub", "hidden word").unwrap(), "a nonce is used once");
        assert_eq!(Secrets::of(&authority).open("hub", &sealed).unwrap(), "hidden word".into());
        assert!(matches!(secrets.open("quay", &sealed), Err(SecretError::Damaged)));
        let other = Secrets::of(&Authority::generate().unwrap());
        assert!(matches!(other.open("hub", &sealed), Err(SecretError::Damaged)));
        for broken in ["", "sealed1.", "sealed1.AAAA", "hidden word", &sealed[..sealed.len() - 2]] {
            assert!(matches!(secrets.open("hub", broken), Err(SecretError::Damaged)), "{broken}");
        }
        let edge = Secrets::of(&Authority { key: String::new(), ..authority });
        assert!(matches!(edge.open("hub", &sealed), Err(SecretError::NoKey)));
    }
}
