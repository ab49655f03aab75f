//! Public keys, and the signatures that each makes.
//!
//! A key says which algorithms count. What an envelope says of its algorithm never chooses one.

use aws_lc_rs::digest::{self, digest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{self, ParsedPublicKey, UnparsedPublicKey, VerificationAlgorithm};
use rules::policies::signatures::AnchorId;
use sha2::Digest as _;
use x509_parser::asn1_rs::Oid;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// The smallest and the largest RSA key that counts, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What comes before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const ED25519_SPKI: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a key is none that counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not a SubjectPublicKeyInfo.
    #[error("it is no public key (a SubjectPublicKeyInfo in DER, as PEM between PUBLIC KEY lines)")]
    Form,
    /// Of another kind.
    #[error("keys are P-256, P-384, RSA or Ed25519")]
    Kind,
    /// An RSA key that is too small or too large.
    #[error("an RSA key has 2048 to 8192 bits, and this one has {0}")]
    Bits(usize),
}

/// A public key.
#[derive(Clone, Debug)]
pub(crate) enum PublicKey {
    /// A point of P-256.
    P256(Vec<u8>),
    /// A point of P-384.
    P384(Vec<u8>),
    /// A point of P-521: in certificates of notation only.
    P521(Vec<u8>),
    /// An RSAPublicKey (PKCS#1), and its bits.
    Rsa(Vec<u8>, usize),
    /// Ed25519.
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

/// The id of what is written so in DER.
pub(crate) fn id(der: &[u8]) -> AnchorId {
    AnchorId(sha2::Sha256::digest(der).into())
}

/// The algorithm of an envelope of notation: it follows from the key (notaryproject/specifications
/// `signature-specification.md`, "Signature Algorithm Requirements").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Es256,
    Es384,
    Es512,
    Ps256,
    Ps384,
    Ps512,
}

impl Algorithm {
    /// All.
    pub(crate) const ALL: [Algorithm; 6] = [
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Es512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
    ];

    /// Its name in a JSON web signature.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Es512 => "ES512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
        }
    }
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo in DER.
    pub(crate) fn of(der: &[u8]) -> Result<Self, BadKey> {
        match SubjectPublicKeyInfo::from_der(der) {
            Ok(([], info)) => PublicKey::of_info(&info),
            _ => Err(BadKey::Form),
        }
    }

    /// The key of a certificate.
    pub(crate) fn of_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, BadKey> {
        let kind = &info.algorithm.algorithm;
        let bytes: &[u8] = &info.subject_public_key.data;
        if *kind == oid::OID_SIG_ED25519 {
            let raw: &[u8; 32] = bytes.try_into().map_err(|_| BadKey::Form)?;
            let key = ed25519_dalek::VerifyingKey::from_bytes(raw).map_err(|_| BadKey::Form)?;
            return Ok(PublicKey::Ed25519(Box::new(key)));
        }
        if *kind == oid::OID_PKCS1_RSAENCRYPTION {
            let Ok(([], rsa)) = RSAPublicKey::from_der(bytes) else { return Err(BadKey::Form) };
            let zeros = rsa.modulus.iter().take_while(|byte| **byte == 0).count();
            let leading = rsa.modulus.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
            let bits = (rsa.modulus.len() - zeros) * 8 - leading;
            if !RSA_BITS.contains(&bits) {
                return Err(BadKey::Bits(bits));
            }
            let key = PublicKey::Rsa(bytes.to_vec(), bits);
            return key.checked(&signature::RSA_PKCS1_2048_8192_SHA256, bytes);
        }
        if *kind != oid::OID_KEY_TYPE_EC_PUBLIC_KEY {
            return Err(BadKey::Kind);
        }
        let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        let curve = curve.ok_or(BadKey::Form)?;
        let point = bytes.to_vec();
        if curve == oid::OID_EC_P256 {
            PublicKey::P256(point).checked(&signature::ECDSA_P256_SHA256_ASN1, bytes)
        } else if curve == oid::OID_NIST_EC_P384 {
            PublicKey::P384(point).checked(&signature::ECDSA_P384_SHA384_ASN1, bytes)
        } else if curve == oid::OID_NIST_EC_P521 {
            PublicKey::P521(point).checked(&signature::ECDSA_P521_SHA512_ASN1, bytes)
        } else {
            Err(BadKey::Kind)
        }
    }

    /// The SubjectPublicKeyInfo in DER, in the one form that a key has: points are not compressed, and
    /// nothing is written that need not be. Whatever form a key came in, its id is of this one.
    pub(crate) fn spki(&self) -> Result<Vec<u8>, BadKey> {
        let (algorithm, bytes): (&'static dyn VerificationAlgorithm, &[u8]) = match self {
            PublicKey::P256(point) => (&signature::ECDSA_P256_SHA256_ASN1, point),
            PublicKey::P384(point) => (&signature::ECDSA_P384_SHA384_ASN1, point),
            PublicKey::P521(point) => (&signature::ECDSA_P521_SHA512_ASN1, point),
            PublicKey::Rsa(key, _) => (&signature::RSA_PKCS1_2048_8192_SHA256, key),
            PublicKey::Ed25519(key) => {
                let point = key.to_edwards().compress();
                return Ok([&ED25519_SPKI[..], point.as_bytes()].concat());
            }
        };
        let parsed = ParsedPublicKey::new(algorithm, bytes).map_err(|_| BadKey::Form)?;
        let der = parsed.as_der().map_err(|_| BadKey::Form)?;
        Ok(der.as_ref().to_vec())
    }

    fn checked(
        self,
        algorithm: &'static dyn VerificationAlgorithm,
        bytes: &[u8],
    ) -> Result<Self, BadKey> {
        ParsedPublicKey::new(algorithm, bytes).map(|_| self).map_err(|_| BadKey::Form)
    }

    /// Whether cosign or skopeo made this signature with the key. They do not agree with each other:
    /// P-384 signs SHA-256 (cosign 2, skopeo) or SHA-384 (cosign 3), Ed25519 the message (cosign 2,
    /// skopeo) or its SHA-512 (cosign 3: Ed25519ph).
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        use aws_lc_rs::signature as with;
        match self {
            PublicKey::P256(key) => is_by(&with::ECDSA_P256_SHA256_ASN1, key, message, signature),
            PublicKey::P384(key) => {
                is_by(&with::ECDSA_P384_SHA256_ASN1, key, message, signature)
                    || is_by(&with::ECDSA_P384_SHA384_ASN1, key, message, signature)
            }
            // no row of keys that cosign makes or reads
            PublicKey::P521(_) => false,
            PublicKey::Rsa(key, _) => {
                is_by(&with::RSA_PKCS1_2048_8192_SHA256, key, message, signature)
            }
            PublicKey::Ed25519(key) => {
                let Ok(signature) = ed25519_dalek::Signature::from_slice(signature) else {
                    return false;
                };
                let hashed = ed25519_dalek::Sha512::new_with_prefix(message);
                key.verify_strict(message, &signature).is_ok()
                    || key.verify_prehashed_strict(hashed, None, &signature).is_ok()
            }
        }
    }

    /// The one algorithm that notation's envelopes may have with this key; `None` if they may have
    /// none.
    pub(crate) fn algorithm(&self) -> Option<Algorithm> {
        match self {
            PublicKey::P256(_) => Some(Algorithm::Es256),
            PublicKey::P384(_) => Some(Algorithm::Es384),
            PublicKey::P521(_) => Some(Algorithm::Es512),
            PublicKey::Rsa(_, 2048) => Some(Algorithm::Ps256),
            PublicKey::Rsa(_, 3072) => Some(Algorithm::Ps384),
            PublicKey::Rsa(_, 4096) => Some(Algorithm::Ps512),
            PublicKey::Rsa(..) | PublicKey::Ed25519(_) => None,
        }
    }

    /// Whether this is a signature of an envelope of notation with the key: ECDSA signatures are the
    /// two numbers of fixed length (RFC 7518 section 3.4, RFC 9053 section 2.1).
    pub(crate) fn verifies_envelope(&self, message: &[u8], signature: &[u8]) -> bool {
        use aws_lc_rs::signature as with;
        match (self, self.algorithm()) {
            (PublicKey::P256(key), _) => {
                is_by(&with::ECDSA_P256_SHA256_FIXED, key, message, signature)
            }
            (PublicKey::P384(key), _) => {
                is_by(&with::ECDSA_P384_SHA384_FIXED, key, message, signature)
            }
            (PublicKey::P521(key), _) => {
                is_by(&with::ECDSA_P521_SHA512_FIXED, key, message, signature)
            }
            (PublicKey::Rsa(key, _), Some(Algorithm::Ps256)) => {
                is_by(&with::RSA_PSS_2048_8192_SHA256, key, message, signature)
            }
            (PublicKey::Rsa(key, _), Some(Algorithm::Ps384)) => {
                is_by(&with::RSA_PSS_2048_8192_SHA384, key, message, signature)
            }
            (PublicKey::Rsa(key, _), Some(Algorithm::Ps512)) => {
                is_by(&with::RSA_PSS_2048_8192_SHA512, key, message, signature)
            }
            _ => false,
        }
    }

    /// Whether this is a signature of a certificate, or of a timestamp, with the key. There the
    /// algorithm is a part of what is signed, or follows from `hash` in CMS with a bare key type
    /// (RFC 5754). SHA-1 counts nowhere.
    pub(crate) fn verifies_x509(
        &self,
        algorithm: &AlgorithmIdentifier<'_>,
        hash: Option<Hash>,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let Some(algorithm) = self.x509(algorithm, hash) else { return false };
        let key = match self {
            PublicKey::P256(key) | PublicKey::P384(key) | PublicKey::P521(key) => key,
            PublicKey::Rsa(key, _) => key,
            PublicKey::Ed25519(key) => {
                let signature = ed25519_dalek::Signature::from_slice(signature);
                return signature.is_ok_and(|one| key.verify_strict(message, &one).is_ok());
            }
        };
        is_by(algorithm, key, message, signature)
    }

    fn x509(
        &self,
        identifier: &AlgorithmIdentifier<'_>,
        hash: Option<Hash>,
    ) -> Option<&'static dyn VerificationAlgorithm> {
        use Hash::{Sha256, Sha384, Sha512};
        use aws_lc_rs::signature as with;
        let named = &identifier.algorithm;
        if let PublicKey::Ed25519(_) = self {
            // the key decides; this is not used
            let is_it = *named == oid::OID_SIG_ED25519;
            return is_it.then_some(&with::ED25519 as &dyn VerificationAlgorithm);
        }
        if let PublicKey::Rsa(..) = self {
            if *named == oid::OID_PKCS1_RSASSAPSS {
                let Ok(SignatureAlgorithm::RSASSA_PSS(terms)) =
                    SignatureAlgorithm::try_from(identifier)
                else {
                    return None;
                };
                return Some(match Hash::of(terms.hash_algorithm_oid())? {
                    Sha256 => &with::RSA_PSS_2048_8192_SHA256,
                    Sha384 => &with::RSA_PSS_2048_8192_SHA384,
                    Sha512 => &with::RSA_PSS_2048_8192_SHA512,
                });
            }
            let hash = if *named == oid::OID_PKCS1_SHA256WITHRSA {
                Sha256
            } else if *named == oid::OID_PKCS1_SHA384WITHRSA {
                Sha384
            } else if *named == oid::OID_PKCS1_SHA512WITHRSA {
                Sha512
            } else if *named == oid::OID_PKCS1_RSAENCRYPTION {
                hash?
            } else {
                return None;
            };
            return Some(match hash {
                Sha256 => &with::RSA_PKCS1_2048_8192_SHA256,
                Sha384 => &with::RSA_PKCS1_2048_8192_SHA384,
                Sha512 => &with::RSA_PKCS1_2048_8192_SHA512,
            });
        }
        let hash = if *named == oid::OID_SIG_ECDSA_WITH_SHA256 {
            Sha256
        } else if *named == oid::OID_SIG_ECDSA_WITH_SHA384 {
            Sha384
        } else if *named == oid::OID_SIG_ECDSA_WITH_SHA512 {
            Sha512
        } else if *named == oid::OID_KEY_TYPE_EC_PUBLIC_KEY {
            hash?
        } else {
            return None;
        };
        Some(match (self, hash) {
            (PublicKey::P256(_), Sha256) => &with::ECDSA_P256_SHA256_ASN1,
            (PublicKey::P256(_), Sha384) => &with::ECDSA_P256_SHA384_ASN1,
            (PublicKey::P256(_), Sha512) => &with::ECDSA_P256_SHA512_ASN1,
            (PublicKey::P384(_), Sha256) => &with::ECDSA_P384_SHA256_ASN1,
            (PublicKey::P384(_), Sha384) => &with::ECDSA_P384_SHA384_ASN1,
            (PublicKey::P384(_), Sha512) => &with::ECDSA_P384_SHA512_ASN1,
            (PublicKey::P521(_), Sha256) => &with::ECDSA_P521_SHA256_ASN1,
            (PublicKey::P521(_), Sha384) => &with::ECDSA_P521_SHA384_ASN1,
            (PublicKey::P521(_), Sha512) => &with::ECDSA_P521_SHA512_ASN1,
            _ => return None,
        })
    }
}

fn is_by(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

/// A hash that counts in certificates and timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// The hash with this identifier.
    pub(crate) fn of(named: &Oid<'_>) -> Option<Self> {
        if *named == oid::OID_NIST_HASH_SHA256 {
            Some(Hash::Sha256)
        } else if *named == oid::OID_NIST_HASH_SHA384 {
            Some(Hash::Sha384)
        } else if *named == oid::OID_NIST_HASH_SHA512 {
            Some(Hash::Sha512)
        } else {
            None
        }
    }

    /// The hash of bytes.
    pub(crate) fn hash(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        };
        digest(algorithm, bytes).as_ref().to_vec()
    }
}
