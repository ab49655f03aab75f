//! [`Digest`] names a blob or manifest for ever. [`ContentHash`] only checks bytes in flight. One
//! never takes the place of the other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// The algorithm of a [`Digest`]: the two that the OCI image-spec registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// The default of every client.
    Sha256,
    /// The other algorithm that the image-spec allows.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }
}

/// The name of immutable bytes: `sha256:<64 hex>` or `sha512:<128 hex>`, lower case.
///
/// Only [`FromStr`] and [`Hasher`] make one, so a value of this type is always well formed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Bytes);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Bytes {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

/// Why a text is not a [`Digest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDigest {
    /// Not of the form `algorithm:hex`.
    #[error("a digest is written algorithm:hex, for example sha256:e3b0c442...")]
    Form,
    /// The registry does not store digests of this algorithm.
    #[error("the digest algorithm must be sha256 or sha512")]
    Algorithm,
    /// Wrong length or not lower-case hex.
    #[error("the digest's hex part has the wrong length or is not lower-case hex")]
    Hex,
}

impl Digest {
    /// The sha256 of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Digest(Bytes::Sha256(sha2::Sha256::digest(bytes).into()))
    }

    /// The digest of `bytes` under `algorithm`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm that made it.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Bytes::Sha256(_) => Algorithm::Sha256,
            Bytes::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw hash.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Sha256(b) => b,
            Bytes::Sha512(b) => b,
        }
    }

    /// The hex part.
    pub fn hex(&self) -> String {
        hex::encode(self.as_bytes())
    }

    /// The first twelve hex digits, for logs and tables.
    pub fn short(&self) -> String {
        hex::encode(&self.as_bytes()[..6])
    }

    /// One tag byte and the hash, as used in keys and compact messages.
    pub fn to_key(&self) -> Vec<u8> {
        let mut key = vec![match self.algorithm() {
            Algorithm::Sha256 => 1,
            Algorithm::Sha512 => 2,
        }];
        key.extend_from_slice(self.as_bytes());
        key
    }

    /// Decodes what [`Digest::to_key`] wrote.
    pub fn from_key(key: &[u8]) -> Result<Self, BadDigest> {
        match key.split_first() {
            Some((1, rest)) => {
                rest.try_into().map(|b| Digest(Bytes::Sha256(b))).map_err(|_| BadDigest::Hex)
            }
            Some((2, rest)) => {
                rest.try_into().map(|b| Digest(Bytes::Sha512(b))).map_err(|_| BadDigest::Hex)
            }
            Some(_) => Err(BadDigest::Algorithm),
            None => Err(BadDigest::Form),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.short())
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let (algorithm, encoded) = text.split_once(':').ok_or(BadDigest::Form)?;
        if encoded.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(BadDigest::Hex);
        }
        match algorithm {
            "sha256" => {
                let mut bytes = [0; 32];
                hex::decode_to_slice(encoded, &mut bytes).map_err(|_| BadDigest::Hex)?;
                Ok(Digest(Bytes::Sha256(bytes)))
            }
            "sha512" => {
                let mut bytes = [0; 64];
                hex::decode_to_slice(encoded, &mut bytes).map_err(|_| BadDigest::Hex)?;
                Ok(Digest(Bytes::Sha512(bytes)))
            }
            _ => Err(BadDigest::Algorithm),
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.to_key().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            Digest::from_key(&Vec::<u8>::deserialize(deserializer)?)
                .map_err(serde::de::Error::custom)
        }
    }
}

/// Computes a [`Digest`] of bytes that arrive in pieces.
#[derive(Clone)]
pub struct Hasher(Hashing);

#[derive(Clone)]
enum Hashing {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher without any bytes yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Hasher(match algorithm {
            Algorithm::Sha256 => Hashing::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hashing::Sha512(sha2::Sha512::new()),
        })
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Hashing::Sha256(h) => h.update(bytes),
            Hashing::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        Digest(match self.0 {
            Hashing::Sha256(h) => Bytes::Sha256(h.finalize().into()),
            Hashing::Sha512(h) => Bytes::Sha512(h.finalize().into()),
        })
    }
}

/// The BLAKE3 hash of a blob. It checks ranges in flight and never names anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The content hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        ContentHash(*blake3::hash(bytes).as_bytes())
    }

    /// The content hash in a BLAKE3 hasher.
    pub fn from_hasher(hasher: &blake3::Hasher) -> Self {
        ContentHash(*hasher.finalize().as_bytes())
    }

    /// The raw hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<blake3::Hash> for ContentHash {
    fn from(hash: blake3::Hash) -> Self {
        ContentHash(*hash.as_bytes())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", hex::encode(&self.0[..6]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
    }

    #[test]
    fn malformed_digests_are_refused_with_the_reason() {
        assert_eq!("sha256".parse::<Digest>(), Err(BadDigest::Form));
        assert_eq!("md5:00".parse::<Digest>(), Err(BadDigest::Algorithm));
        assert_eq!("sha256:00".parse::<Digest>(), Err(BadDigest::Hex));
        assert_eq!(
            EMPTY.to_uppercase().replace("SHA", "sha").parse::<Digest>(),
            Err(BadDigest::Hex)
        );
        assert_eq!(format!("{EMPTY}/../x").parse::<Digest>(), Err(BadDigest::Hex));
    }

    proptest! {
        #[test]
        fn every_form_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..100), long in any::<bool>()) {
            let digest = Digest::of(if long { Algorithm::Sha512 } else { Algorithm::Sha256 }, &bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
            prop_assert_eq!(Digest::from_key(&digest.to_key()).unwrap(), digest);
            let compact = postcard::to_stdvec(&digest).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Digest>(&compact).unwrap(), digest);
            let json = serde_json::to_string(&digest).unwrap();
            prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            let _ = text.parse::<Digest>();
        }
    }
}
