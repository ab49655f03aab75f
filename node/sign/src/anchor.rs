//! What a project trusts: checked when it is written, and read once before many signatures.

use std::collections::BTreeMap;

use rules::policies::signatures::{Anchor, AnchorId, LONGEST_PEM};

pub use crate::keys::BadKey;
use crate::keys::{self, PublicKey};

/// The label of a public key in PEM.
const PUBLIC_KEY: &str = "PUBLIC KEY";
/// The label of a certificate in PEM.
const CERTIFICATE: &str = "CERTIFICATE";

/// Why something cannot be trusted. The text is for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnchor {
    /// Longer than what is kept.
    #[error("at most {LONGEST_PEM} bytes of PEM are kept")]
    TooLong,
    /// Not PEM.
    #[error("it is no PEM: {0}")]
    Pem(String),
    /// PEM of something else.
    #[error("PEM of a {expected} is needed, and this is one of a {found}")]
    Label {
        /// What is needed.
        expected: &'static str,
        /// What it says to be.
        found: String,
    },
    /// A private key.
    #[error(
        "this is a private key, which nobody should have seen: replace it, and give the public key"
    )]
    Private,
    /// There must be one, or at least one.
    #[error("{0}")]
    Number(&'static str),
    /// Not a key that counts.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// Not a certificate that counts.
    #[error("certificate {number}: {why}")]
    Certificate {
        /// Its place in the list, from 1 on.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Not a subject.
    #[error("subject {0:?}: write parts as in \"C=DE, O=Example, CN=signer\"")]
    Subject(String),
    /// Not an identity.
    #[error("{0}")]
    Identity(String),
}

/// The blocks of a PEM text, all of which must have this label.
fn blocks(text: &str, expected: &'static str) -> Result<Vec<Vec<u8>>, BadAnchor> {
    if text.len() > LONGEST_PEM {
        return Err(BadAnchor::TooLong);
    }
    let blocks = pem::parse_many(text).map_err(|error| BadAnchor::Pem(error.to_string()))?;
    let check = |block: pem::Pem| match block.tag() {
        tag if tag == expected => Ok(block.into_contents()),
        tag if tag.contains("PRIVATE KEY") => Err(BadAnchor::Private),
        tag => Err(BadAnchor::Label { expected, found: tag.chars().take(64).collect() }),
    };
    blocks.into_iter().map(check).collect()
}

/// PEM with lines of 64 characters.
pub(crate) fn to_pem(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}

fn public_key(text: &str) -> Result<(AnchorId, PublicKey, String), BadAnchor> {
    let Ok([der]) = <[Vec<u8>; 1]>::try_from(blocks(text, PUBLIC_KEY)?) else {
        return Err(BadAnchor::Number("PEM of exactly one public key is needed"));
    };
    let key = PublicKey::of(&der)?;
    if matches!(key, PublicKey::P521(_)) {
        return Err(BadKey::Kind.into());
    }
    Ok((keys::id(&der), key, to_pem(PUBLIC_KEY, &der)))
}

/// A public key as PEM: P-256, P-384, RSA of 2048 to 8192 bits, or Ed25519.
pub fn key(pem: &str) -> Result<Anchor, BadAnchor> {
    public_key(pem).map(|(id, _, pem)| Anchor::Key { id, pem })
}

/// What a project trusts, read for many signatures.
#[derive(Debug, Default)]
pub struct Anchors {
    keys: BTreeMap<AnchorId, PublicKey>,
}

impl Anchors {
    /// Reads them. One that cannot be read is left out: it was checked when it was written.
    pub fn of(anchors: &[Anchor]) -> Self {
        let mut read = Anchors::default();
        for anchor in anchors {
            match anchor {
                Anchor::Key { pem, .. } => {
                    if let Ok((id, key, _)) = public_key(pem) {
                        read.keys.insert(id, key);
                    }
                }
                Anchor::Authority { .. } | Anchor::Keyless { .. } => {}
            }
        }
        read
    }

    /// The trusted key that made this signature.
    pub(crate) fn key_of(&self, signed: &[u8], signature: &[u8]) -> Option<AnchorId> {
        let made = self.keys.iter().find(|(_, key)| key.verifies(signed, signature));
        made.map(|(id, _)| *id)
    }

    /// Whether a key is trusted.
    pub(crate) fn has_key(&self, id: &AnchorId) -> bool {
        self.keys.contains_key(id)
    }
}
